//! Which part of an image is taken.

use crate::data::Image;
use crate::data::sample::Workbench;
use crate::error::Result;
use rand::Rng;

/// A part of an image in pixels; may be fractional.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Whether the part is cut out before it is resampled, so that the filter sees nothing beside it.
    pub closed: bool,
}

impl Window {
    /// The same part of an image that is `divisor` times smaller.
    pub fn divided_by(self, divisor: f64) -> Self {
        let [x, y, width, height] = [self.x, self.y, self.width, self.height].map(|length| length / divisor);
        Self { x, y, width, height, ..self }
    }
}

/// The part of the original that is left when its short side becomes `resize` and the centre `size` is cut out
/// (torchvision's Resize and CenterCrop, with their roundings).
pub fn centre_window(width: usize, height: usize, resize: usize, size: usize) -> Window {
    Resize::new(width, height, resize).centre(size)
}

/// The same, but with the four corners before it: upper left and right, lower left and right, centre (torchvision's
/// FiveCrop).
pub fn corner_and_centre_windows(width: usize, height: usize, resize: usize, size: usize) -> [Window; 5] {
    let resized = Resize::new(width, height, resize);
    let [right, lower] = resized.to.map(|side| (side - size) as f64);
    let corner = |x, y| resized.window([x, y], size);
    [corner(0.0, 0.0), corner(right, 0.0), corner(0.0, lower), corner(right, lower), resized.centre(size)]
}

/// Width and height of an image before and after its short side became what is asked for.
struct Resize {
    from: [usize; 2],
    to: [usize; 2],
}

impl Resize {
    fn new(width: usize, height: usize, resize: usize) -> Self {
        let (from, short) = ([width, height], width.min(height));
        let scaled = |side: usize| if side == short { resize } else { resize * side / short };
        Self { from, to: from.map(scaled) }
    }

    fn centre(&self, size: usize) -> Window {
        // Python rounds halves to even.
        self.window(self.to.map(|side| ((side - size) as f64 / 2.0).round_ties_even()), size)
    }

    /// The part of the original that `size` × `size` pixels of the resized image show, from `corner` on.
    fn window(&self, corner: [f64; 2], size: usize) -> Window {
        let span = |axis: usize| {
            let side = self.from[axis] as f64;
            let scale = side / self.to[axis] as f64;
            let start = corner[axis] * scale;
            // No further than the edge, by however little the product is rounded up.
            (start, (size as f64 * scale).min(side - start))
        };
        let ((x, width), (y, height)) = (span(0), span(1));
        Window { x, y, width, height, closed: false }
    }
}

/// A random part with a share of the image in `area` (fractions of 1; usually 0.08 to 1), 3:4 to 4:3 in shape:
/// torchvision's RandomResizedCrop, after Szegedy et al. 2015. After ten misses, the largest central part of an allowed
/// shape.
pub fn random_window(width: usize, height: usize, [least, most]: [f64; 2], random: &mut impl Rng) -> Window {
    let (w, h) = (width as f64, height as f64);
    let (flattest, tallest) = (3.0f64 / 4.0, 4.0f64 / 3.0);
    for _ in 0..10 {
        let area = w * h * random.random_range(least..=most);
        let ratio = random.random_range(flattest.ln()..=tallest.ln()).exp();
        let part_w = (area * ratio).sqrt().round_ties_even() as usize;
        let part_h = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&part_w) && (1..=height).contains(&part_h) {
            let x = random.random_range(0..=width - part_w) as f64;
            let y = random.random_range(0..=height - part_h) as f64;
            return Window { x, y, width: part_w as f64, height: part_h as f64, closed: true };
        }
    }
    let (part_w, part_h) = if w / h < flattest {
        (w, (w / flattest).round_ties_even())
    } else if w / h > tallest {
        ((h * tallest).round_ties_even(), h)
    } else {
        (w, h)
    };
    let centred = |side: f64, part: f64| ((side - part) / 2.0).floor();
    Window { x: centred(w, part_w), y: centred(h, part_h), width: part_w, height: part_h, closed: true }
}

/// A random window of an image's centre with `padding` zeros on each side (CIFAR): `size` × `size` × C bytes to
/// `out`. An image of another size is first resampled.
///
/// # Errors
/// When the image has no pixels.
pub(super) fn padded(
    image: &Image,
    padding: usize,
    size: usize,
    bench: &mut Workbench,
    random: &mut impl Rng,
    out: &mut [u8],
) -> Result<()> {
    let steps = 0..=2 * padding;
    let (right, down) = (random.random_range(steps.clone()), random.random_range(steps));
    let shift = |step: usize| step as isize - padding as isize;
    if (image.width, image.height) == (size, size) {
        shifted(image, shift(right), shift(down), out);
    } else {
        let window = centre_window(image.width, image.height, size, size);
        let mut fitted = vec![0; out.len()];
        bench.resample(image, window, size, &mut fitted)?;
        let (width, height, channels) = (size, size, image.channels);
        let fitted = Image { width, height, channels, pixels: fitted };
        shifted(&fitted, shift(right), shift(down), out);
    }
    Ok(())
}

/// The image moved left by `right` and up by `down` pixels, zeros where nothing is.
fn shifted(image: &Image, right: isize, down: isize, out: &mut [u8]) {
    let Image { width, height, channels, .. } = *image;
    let row_bytes = width * channels;
    out.fill(0);
    let from = right.max(0) as usize;
    let to = (width as isize + right.min(0)).max(0) as usize;
    if from >= width || to == 0 {
        return;
    }
    let columns = (width as isize - right.abs()).max(0) as usize * channels;
    let target = (-right).max(0) as usize * channels;
    for row in 0..height {
        let source_row = row as isize + down;
        if (0..height as isize).contains(&source_row) {
            let source = source_row as usize * row_bytes + from * channels;
            out[row * row_bytes + target..][..columns].copy_from_slice(&image.pixels[source..][..columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn image(width: usize, height: usize, channels: usize) -> Image {
        let pixels = (0..width * height * channels).map(|at| at as u8 + 1).collect();
        Image { width, height, channels, pixels }
    }

    #[test]
    fn the_centre_window_has_torchvisions_roundings() {
        // Resize(256): 500 × 375 becomes 341 × 256; CenterCrop(224) starts at (58, 16).
        let window = centre_window(500, 375, 256, 224);
        let (x_scale, y_scale) = (500.0 / 341.0, 375.0 / 256.0);
        assert_eq!((window.x, window.y), (58.0 * x_scale, 16.0 * y_scale));
        assert_eq!((window.width, window.height), (224.0 * x_scale, 224.0 * y_scale));
    }

    #[test]
    fn corner_windows_reach_the_edges_and_no_further() {
        let windows = corner_and_centre_windows(500, 375, 256, 224);
        let (x_scale, y_scale) = (500.0 / 341.0, 375.0 / 256.0);
        let corners = windows.map(|window| (window.x / x_scale, window.y / y_scale));
        for (found, expected) in
            corners.iter().zip([(0.0, 0.0), (117.0, 0.0), (0.0, 32.0), (117.0, 32.0), (58.0, 16.0)])
        {
            let off = (found.0 - expected.0).abs().max((found.1 - expected.1).abs());
            assert!(off < 1e-9, "{found:?}, not {expected:?}");
        }
        assert_eq!(windows[4], centre_window(500, 375, 256, 224));
        // 225 / 224 · 224 is more than 225 in floating point, and many others are.
        for side in 200..700 {
            for (resize, size) in [(224, 224), (256, 224), (366, 320), (299, 299)] {
                for window in corner_and_centre_windows(side, side + 17, resize, size) {
                    assert!(window.x >= 0.0 && window.x + window.width <= side as f64, "{window:?}");
                    assert!(window.y >= 0.0 && window.y + window.height <= (side + 17) as f64, "{window:?}");
                }
            }
        }
    }

    #[test]
    fn random_windows_stay_inside_and_keep_their_shape() {
        let mut random = rng::stream(0, "test", [0, 0]);
        for _ in 0..1000 {
            let window = random_window(500, 375, [0.08, 1.0], &mut random);
            assert!(window.x >= 0.0 && window.x + window.width <= 500.0, "{window:?}");
            assert!(window.y >= 0.0 && window.y + window.height <= 375.0, "{window:?}");
            let (area, ratio) = (window.width * window.height, window.width / window.height);
            assert!(area > 0.079 * 500.0 * 375.0 && (0.74..1.35).contains(&ratio), "{window:?}");
        }
        // No allowed shape fits often into a strip: the fallback takes the middle of it.
        let strip = random_window(1000, 10, [0.08, 1.0], &mut random);
        assert!((strip.height - 10.0).abs() < 1e-9 && strip.width <= 14.0, "{strip:?}");
    }

    #[test]
    fn shifting_moves_and_fills_with_zeros() {
        let mut out = vec![9; 9];
        shifted(&image(3, 3, 1), 1, -1, &mut out);
        assert_eq!(out, [0, 0, 0, 2, 3, 0, 5, 6, 0]);
        shifted(&image(3, 3, 1), -4, 0, &mut out);
        assert_eq!(out, [0; 9]);
    }
}
