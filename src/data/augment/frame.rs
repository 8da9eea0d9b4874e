//! Pixels that are changed in place.

use crate::data::Image;

/// A borrowed image, H × W × C bytes with channels innermost, and the room that neighbourhood operations need.
#[derive(Debug)]
pub struct Frame<'a> {
    width: usize,
    height: usize,
    channels: usize,
    pixels: &'a mut [u8],
    /// The pixels as they were, where an operation looks at neighbours; kept from one operation to the next.
    before: Vec<u8>,
}

impl<'a> Frame<'a> {
    /// A view of `width` · `height` · `channels` bytes; 1 or 3 channels.
    ///
    /// # Panics
    /// When `pixels` has another length: a mistake in the program, not in the data.
    pub fn new(width: usize, height: usize, channels: usize, pixels: &'a mut [u8]) -> Self {
        assert_eq!(pixels.len(), width * height * channels, "a frame holds H × W × C bytes");
        Self { width, height, channels, pixels, before: Vec::new() }
    }

    /// A view of a whole image.
    pub fn of(image: &'a mut Image) -> Self {
        Self::new(image.width, image.height, image.channels, &mut image.pixels)
    }

    /// W.
    pub fn width(&self) -> usize {
        self.width
    }

    /// H.
    pub fn height(&self) -> usize {
        self.height
    }

    /// C: 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All bytes.
    pub fn pixels(&self) -> &[u8] {
        self.pixels
    }

    /// All bytes, to be changed.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        self.pixels
    }

    /// The pixels as they are, copied, and the same pixels to be overwritten.
    pub fn rewrite(&mut self) -> (&[u8], &mut [u8]) {
        self.before.clear();
        self.before.extend_from_slice(self.pixels);
        (&self.before, self.pixels)
    }

    /// Replaces every value by what `table` says.
    pub fn map(&mut self, table: &[u8; 256]) {
        for value in self.pixels.iter_mut() {
            *value = table[usize::from(*value)];
        }
    }

    /// The same with a table for each of three channels; a gray image takes the first.
    pub fn map_channels(&mut self, tables: &[[u8; 256]; 3]) {
        if self.channels != 3 {
            return self.map(&tables[0]);
        }
        for rgb in self.pixels.chunks_exact_mut(3) {
            for (value, table) in rgb.iter_mut().zip(tables) {
                *value = table[usize::from(*value)];
            }
        }
    }

    /// How often each channel has each value. The histograms of a gray image's missing channels are empty.
    pub fn histograms(&self) -> [[u32; 256]; 3] {
        let mut counts = [[0; 256]; 3];
        for values in self.pixels.chunks_exact(self.channels.max(1)) {
            for (count, &value) in counts.iter_mut().zip(values) {
                count[usize::from(value)] += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_histograms_go_by_channel() {
        let mut pixels = vec![1, 2, 3, 1, 5, 3];
        let mut frame = Frame::new(2, 1, 3, &mut pixels);
        let counts = frame.histograms();
        assert_eq!((counts[0][1], counts[1][2], counts[1][5], counts[2][3]), (2, 1, 1, 2));
        let plus = |by: u8| std::array::from_fn(|value| (value as u8).wrapping_add(by));
        frame.map_channels(&[plus(0), plus(10), plus(100)]);
        assert_eq!(frame.pixels(), [1, 12, 103, 1, 15, 103]);
        frame.map(&plus(1));
        assert_eq!(frame.pixels(), [2, 13, 104, 2, 16, 104]);
    }
}
