//! Random erasing (Zhong et al. 2017), as torchvision has it.

use super::check::{self, Key};
use super::frame::Frame;
use crate::error::Result;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rectangle in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// Gives a random rectangle of some images one colour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Erase {
    /// Share of images.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
    /// Smallest and largest share of the area.
    #[schemars(inner(range(min = 0, max = 1)))]
    pub scale: [f64; 2],
    /// Smallest and largest height over width; its logarithm is drawn evenly.
    #[schemars(inner(range(min = 0.01, max = 100)))]
    pub ratio: [f64; 2],
}

impl Default for Erase {
    /// torchvision's.
    fn default() -> Self {
        Self { p: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3] }
    }
}

impl Erase {
    /// Changes the image. `colour` has a value for each channel; the data set's mean becomes 0 when normalised, up
    /// to the rounding to a byte. A missing value is black.
    pub fn apply(&self, frame: &mut Frame, colour: &[u8], random: &mut impl Rng) {
        if !random.random_bool(self.p) {
            return;
        }
        if let Some(patch) = self.patch(frame.width(), frame.height(), random) {
            fill(frame, patch, colour);
        }
    }

    /// The rectangle, less wide and less high than the image; nothing after ten misses.
    pub fn patch(&self, width: usize, height: usize, random: &mut impl Rng) -> Option<Patch> {
        let area = (width * height) as f64;
        let ([least, most], [widest, tallest]) = (self.scale, self.ratio.map(f64::ln));
        for _ in 0..10 {
            let area = area * random.random_range(least..=most);
            let ratio = random.random_range(widest..=tallest).exp();
            let part_h = (area * ratio).sqrt().round_ties_even() as usize;
            let part_w = (area / ratio).sqrt().round_ties_even() as usize;
            if part_h < height && part_w < width {
                let y = random.random_range(0..=height - part_h);
                let x = random.random_range(0..=width - part_w);
                return Some(Patch { x, y, width: part_w, height: part_h });
            }
        }
        None
    }

    /// Refuses shares and bounds that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        check::share(key.at("p"), self.p)?;
        check::bounds(key.at("scale"), self.scale, 0.0..=1.0, "[0.02, 0.33] is usual")?;
        check::bounds(key.at("ratio"), self.ratio, 0.01..=100.0, "[0.3, 3.3] is usual")
    }
}

fn fill(frame: &mut Frame, patch: Patch, colour: &[u8]) {
    let channels = frame.channels();
    let row = frame.width() * channels;
    for line in frame.pixels_mut().chunks_exact_mut(row.max(1)).skip(patch.y).take(patch.height) {
        for pixel in line[patch.x * channels..][..patch.width * channels].chunks_exact_mut(channels) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = colour.get(channel).copied().unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn a_patch_has_its_place_and_colour() {
        let mut pixels = vec![9; 3 * 2 * 3];
        let patch = Patch { x: 1, y: 1, width: 2, height: 1 };
        fill(&mut Frame::new(3, 2, 3, &mut pixels), patch, &[1, 2, 3]);
        assert_eq!(pixels[..12], [9; 12]);
        assert_eq!(pixels[12..], [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn areas_and_shapes_keep_their_bounds() {
        let mut random = rng::stream(0, "test", [0, 0]);
        let erase = Erase::default();
        let (mut areas, mut upright) = (0.0, 0);
        for _ in 0..2000 {
            let Patch { x, y, width, height } = erase.patch(224, 200, &mut random).unwrap();
            assert!(x + width <= 224 && y + height <= 200 && width < 224 && height < 200);
            let (area, ratio) = ((width * height) as f64 / (224.0 * 200.0), height as f64 / width as f64);
            assert!((0.018..0.34).contains(&area) && (0.28..3.6).contains(&ratio), "{width} × {height}");
            areas += area / 2000.0;
            upright += usize::from(height > width);
        }
        assert!((areas - 0.175).abs() < 0.01, "{areas}");
        assert!((900..1100).contains(&upright), "{upright}");
    }

    #[test]
    fn as_many_images_as_asked_are_erased() {
        let mut random = rng::stream(0, "test", [0, 0]);
        let erase = Erase { p: 0.25, ..Erase::default() };
        let erased = (0..2000).filter(|_| {
            let mut pixels = vec![255; 20 * 20];
            erase.apply(&mut Frame::new(20, 20, 1, &mut pixels), &[7], &mut random);
            pixels.contains(&7)
        });
        let share = erased.count() as f64 / 2000.0;
        assert!((share - 0.25).abs() < 0.03, "{share}");
        // No allowed rectangle is smaller than one pixel: nothing happens, and nothing fails.
        let mut one = [5];
        Erase { p: 1.0, ..Erase::default() }.apply(&mut Frame::new(1, 1, 1, &mut one), &[7], &mut random);
        assert_eq!(one, [5]);
    }
}
