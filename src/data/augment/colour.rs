//! Operations on colours, in the arithmetic of Pillow's ImageEnhance, ImageOps and HSV conversion, which is what
//! torchvision applies to PIL images: all of them give the same bytes.

use super::check::{self, Key};
use super::frame::Frame;
use crate::error::Result;
use rand::Rng;
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A map of single values.
fn table(of: impl Fn(u8) -> u8) -> [u8; 256] {
    std::array::from_fn(|value| of(value as u8))
}

/// The way from `from` (factor 0) to `to` (factor 1) and beyond, in single precision, cut off to a byte.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    // `as` cuts the fraction off and saturates.
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// Luma by ITU-R 601 of three bytes, rounded as Pillow rounds it.
pub fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

/// Towards black (0) or away from it (more than 1); 1 changes nothing. `factor`: 0 or more.
pub fn brightness(frame: &mut Frame, factor: f64) {
    frame.map(&table(|value| blend(0, value, factor as f32)));
}

/// Towards the mean luma, rounded, (0) or away from it (more than 1); 1 changes nothing.
pub fn contrast(frame: &mut Frame, factor: f64) {
    let count = (frame.width() * frame.height()) as u64;
    if count == 0 {
        return;
    }
    let pixels = frame.pixels();
    let sum: u64 = match frame.channels() {
        3 => pixels.chunks_exact(3).map(|rgb| u64::from(luma(rgb))).sum(),
        _ => pixels.iter().map(|&value| u64::from(value)).sum(),
    };
    let mean = ((2 * sum + count) / (2 * count)) as u8;
    frame.map(&table(|value| blend(mean, value, factor as f32)));
}

/// Towards gray (0) or away from it (more than 1); 1 changes nothing. Gray images stay as they are.
pub fn saturation(frame: &mut Frame, factor: f64) {
    if frame.channels() != 3 {
        return;
    }
    for rgb in frame.pixels_mut().chunks_exact_mut(3) {
        let gray = luma(rgb);
        for value in rgb {
            *value = blend(gray, *value, factor as f32);
        }
    }
}

/// Turns the colour circle by `turn` of a whole one, -0.5 to 0.5, in steps of 1/255, by way of 8-bit HSV (which
/// loses some colours at 0, too). Gray images stay as they are.
pub fn hue(frame: &mut Frame, turn: f64) {
    if frame.channels() != 3 {
        return;
    }
    let steps = (turn * 255.0) as i32 as u8;
    // For each hue: the sixth of the circle, and how far into it.
    let places: [(u8, f32); 256] = std::array::from_fn(|hue| {
        let place = f64::from(hue as u8) * 6.0 / 255.0;
        ((place.floor() as u8) % 6, (place - place.floor()) as f32)
    });
    for rgb in frame.pixels_mut().chunks_exact_mut(3) {
        let [hue, saturation, value] = hsv([rgb[0], rgb[1], rgb[2]]);
        let (sixth, fraction) = places[usize::from(hue.wrapping_add(steps))];
        rgb.copy_from_slice(&from_hsv(sixth, fraction, saturation, value));
    }
}

/// Hue, saturation and value in 256 steps each.
fn hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let spread = f32::from(most - least);
    let saturation = spread / f32::from(most);
    let [r_gap, g_gap, b_gap] = [r, g, b].map(|value| f32::from(most - value) / spread);
    let sixths = if r == most {
        b_gap - g_gap
    } else if g == most {
        (2.0 + f64::from(r_gap) - f64::from(b_gap)) as f32
    } else {
        (4.0 + f64::from(g_gap) - f64::from(r_gap)) as f32
    };
    let hue = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

/// Back, from a hue that is `fraction` into `sixth` of the circle.
fn from_hsv(sixth: u8, fraction: f32, saturation: u8, value: u8) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let (fraction, full) = (f64::from(fraction), f64::from(value));
    let saturation = f64::from((f64::from(saturation) / 255.0) as f32);
    let round = |share: f64| (full * share).round() as u8;
    let low = round(1.0 - saturation);
    let falling = round(1.0 - saturation * fraction);
    let rising = round(1.0 - saturation * (1.0 - fraction));
    match sixth {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

/// Towards a 3 × 3 blur that weighs the middle with 5 of 13 (0) or away from it (more than 1); 1 changes nothing.
/// The outermost pixels stay as they are.
pub fn sharpness(frame: &mut Frame, factor: f64) {
    let (width, height, channels) = (frame.width(), frame.height(), frame.channels());
    if width < 3 || height < 3 {
        return;
    }
    let row = width * channels;
    let (old, new) = frame.rewrite();
    for y in 1..height - 1 {
        let [above, here, below] = [y - 1, y, y + 1].map(|y| &old[y * row..][..row]);
        for (at, target) in new[y * row..][..row].iter_mut().enumerate().take(row - channels).skip(channels) {
            let three = |line: &[u8]| {
                u32::from(line[at - channels]) + u32::from(line[at]) + u32::from(line[at + channels])
            };
            let sum = three(above) + three(here) + three(below) + 4 * u32::from(here[at]);
            *target = blend(((2 * sum + 13) / 26) as u8, here[at], factor as f32);
        }
    }
}

/// Stretches each channel to 0-255. A channel of one value stays as it is.
pub fn autocontrast(frame: &mut Frame) {
    let tables = frame.histograms().map(|counts| {
        let least = counts.iter().position(|&count| count > 0);
        let most = counts.iter().rposition(|&count| count > 0);
        match (least, most) {
            (Some(least), Some(most)) if least < most => {
                let scale = 255.0 / (most - least) as f64;
                let offset = -(least as f64) * scale;
                table(|value| (f64::from(value) * scale + offset) as u8)
            }
            _ => table(|value| value),
        }
    });
    frame.map_channels(&tables);
}

/// Spreads each channel's values so that every range of them is about as frequent as any other.
pub fn equalize(frame: &mut Frame) {
    let tables = frame.histograms().map(|counts| {
        let last = counts.iter().rfind(|&&count| count > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<u32>() - last) / 255;
        if step == 0 {
            return table(|value| value);
        }
        let mut below = step / 2;
        counts.map(|count| {
            let level = (below / step).min(255) as u8;
            below += count;
            level
        })
    });
    frame.map_channels(&tables);
}

/// Keeps the upper `bits`, 1 to 8, of each value.
pub fn posterize(frame: &mut Frame, bits: u8) {
    let mask = 255u8 << (8 - bits.clamp(1, 8));
    frame.map(&table(|value| value & mask));
}

/// Inverts the values that are not below `threshold`, 0 (all) to 256 (none).
pub fn solarize(frame: &mut Frame, threshold: f64) {
    frame.map(&table(|value| if f64::from(value) < threshold { value } else { 255 - value }));
}

/// Inverts every value.
pub fn invert(frame: &mut Frame) {
    frame.map(&table(|value| 255 - value));
}

/// Gives all three channels the luma. Gray images stay as they are.
pub fn grayscale(frame: &mut Frame) {
    if frame.channels() == 3 {
        for rgb in frame.pixels_mut().chunks_exact_mut(3) {
            rgb.fill(luma(rgb));
        }
    }
}

/// Adds `shift` to the values of each channel (a gray image takes the first) and clamps to 0-255.
pub fn shift(frame: &mut Frame, shift: [i32; 3]) {
    let tables = shift.map(|by| table(|value| i32::from(value).saturating_add(by).clamp(0, 255) as u8));
    frame.map_channels(&tables);
}

/// Random brightness, contrast, saturation and hue, in random order: torchvision's ColorJitter.
///
/// A strength x draws a factor evenly from max(0, 1 - x) to 1 + x, for the hue a turn from -x to x; 0 leaves the
/// operation out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ColourJitter {
    /// Strength, 0 or more.
    #[schemars(range(min = 0, max = 100))]
    pub brightness: f64,
    /// Strength, 0 or more.
    #[schemars(range(min = 0, max = 100))]
    pub contrast: f64,
    /// Strength, 0 or more.
    #[schemars(range(min = 0, max = 100))]
    pub saturation: f64,
    /// Strength, 0 to 0.5 of the colour circle.
    #[schemars(range(min = 0, max = 0.5))]
    pub hue: f64,
}

impl ColourJitter {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        let mut order = [0, 1, 2, 3];
        for place in 0..3 {
            order.swap(place, random.random_range(place..4));
        }
        for operation in order {
            let (change, strength): (fn(&mut Frame, f64), f64) = match operation {
                0 => (brightness, self.brightness),
                1 => (contrast, self.contrast),
                2 => (saturation, self.saturation),
                _ if self.hue > 0.0 => {
                    hue(frame, random.random_range(-self.hue..=self.hue));
                    continue;
                }
                _ => continue,
            };
            if strength > 0.0 {
                change(frame, random.random_range((1.0 - strength).max(0.0)..=1.0 + strength));
            }
        }
    }

    /// Refuses strengths that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        let strengths =
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (name, strength) in strengths {
            check::range(key.at(name), strength, 0.0..=100.0, "0.4 draws factors from 0.6 to 1.4")?;
        }
        check::range(key.at("hue"), self.hue, 0.0..=0.5, "0.5 turns the colours by up to half the circle")
    }
}

/// What gets a shift of its own in [`PixelJitter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each of the H · W · C values, as the authors describe their release (hujie-frank/SENet, issue 38).
    Value,
    /// The whole image.
    Image,
}

/// Random whole numbers from -`amount` to `amount`, added and clamped: the "pixel jitter" of ±20 with which the
/// authors trained the networks that they released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PixelJitter {
    /// Largest shift, of 255.
    #[serde(default = "PixelJitter::release")]
    #[schemars(range(min = 1))]
    pub amount: u8,
    /// What gets a shift of its own.
    pub per: Per,
}

impl PixelJitter {
    const fn release() -> u8 {
        20
    }

    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        let amount = i32::from(self.amount);
        match self.per {
            Per::Image => shift(frame, [random.random_range(-amount..=amount); 3]),
            Per::Value => {
                let count = 2 * u32::from(self.amount) + 1;
                for two in frame.pixels_mut().chunks_mut(2) {
                    // One word for two values: the shifts are even to 1 in 128 at the widest, to 1 in 1598 at ±20.
                    let word = random.next_u32();
                    for (value, half) in two.iter_mut().zip([word & 0xffff, word >> 16]) {
                        let by = ((half * count) >> 16) as i32 - amount;
                        *value = (i32::from(*value) + by).clamp(0, 255) as u8;
                    }
                }
            }
        }
    }

    /// Refuses a jitter of nothing.
    ///
    /// # Errors
    /// When the amount is 0; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        check::range(key.at("amount"), f64::from(self.amount), 1.0..=255.0, "the authors use 20")
    }
}

/// Random light along the principal components of ImageNet's colours (AlexNet): a shift for each channel, rounded
/// to whole numbers and clamped. Gray images stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lighting {
    /// Standard deviation of the components' random factors.
    #[schemars(range(min = 0, max = 10))]
    pub std: f64,
}

impl Default for Lighting {
    /// AlexNet's.
    fn default() -> Self {
        Self { std: 0.1 }
    }
}

/// Square roots of the variances of ImageNet's colours along their principal components, as fractions of 255 (as in
/// fb.resnet.torch).
const LIGHT: [f64; 3] = [0.2175, 0.0188, 0.0045];
/// The components, a column each; rows are red, green and blue.
const COMPONENTS: [[f64; 3]; 3] =
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]];

impl Lighting {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        let factors: [f64; 3] = std::array::from_fn(|_| self.std * random.sample::<f64, _>(StandardNormal));
        if frame.channels() == 3 {
            shift(frame, Self::shift(factors));
        }
    }

    /// What light of these factors adds to red, green and blue, of 255.
    fn shift(factors: [f64; 3]) -> [i32; 3] {
        COMPONENTS.map(|row| {
            let light: f64 =
                (0..3).map(|component| row[component] * factors[component] * LIGHT[component]).sum();
            (255.0 * light).round() as i32
        })
    }

    /// Refuses a deviation that means nothing.
    ///
    /// # Errors
    /// When it is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        check::range(key.at("std"), self.std, 0.0..=10.0, "AlexNet uses 0.1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn changed(pixels: &[u8], change: impl FnOnce(&mut Frame)) -> Vec<u8> {
        let mut pixels = pixels.to_vec();
        change(&mut Frame::new(pixels.len() / 3, 1, 3, &mut pixels));
        pixels
    }

    #[test]
    fn a_jitter_of_nothing_changes_nothing_and_a_strong_one_keeps_its_bounds() {
        let mut random = rng::stream(0, "test", [0, 0]);
        let source = [10, 100, 200, 90, 90, 90];
        assert_eq!(changed(&source, |frame| ColourJitter::default().apply(frame, &mut random)), source);
        let jitter = ColourJitter { brightness: 0.5, ..ColourJitter::default() };
        let mut seen = [255u8, 0];
        for _ in 0..500 {
            let now = changed(&source, |frame| jitter.apply(frame, &mut random));
            seen = [seen[0].min(now[1]), seen[1].max(now[1])];
        }
        assert!((50..55).contains(&seen[0]) && (145..=150).contains(&seen[1]), "{seen:?}");
    }

    #[test]
    fn the_operations_of_a_jitter_come_in_any_order() {
        // Brightness at 0 or 2 only would give few colours; contrast before or after gives others.
        let jitter = ColourJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        let source = [10, 100, 200, 90, 120, 30];
        let one =
            |seed| changed(&source, |frame| jitter.apply(frame, &mut rng::stream(seed, "test", [0, 0])));
        assert_eq!(one(1), one(1));
        assert_ne!(one(1), one(2));
    }

    #[test]
    fn pixel_jitter_reaches_every_shift_about_as_often() {
        for per in [Per::Value, Per::Image] {
            let jitter = PixelJitter { amount: 20, per };
            let mut counts = [0; 41];
            let mut random = rng::stream(0, "test", [0, 0]);
            for _ in 0..10_000 {
                let now = changed(&[100; 42], |frame| jitter.apply(frame, &mut random));
                let even = now.iter().all(|&value| value == now[0]);
                assert_eq!(even, per == Per::Image);
                for value in now {
                    counts[usize::from(value) - 80] += 1;
                }
            }
            let expected = 42.0 * 10_000.0 / 41.0;
            let spread = if per == Per::Image { 0.35 } else { 0.05 };
            for count in counts {
                assert!((f64::from(count) / expected - 1.0).abs() < spread, "{count} of {expected}");
            }
        }
        let mut random = rng::stream(0, "test", [0, 0]);
        let jitter = PixelJitter { amount: 255, per: Per::Value };
        let ends = changed(&[0, 255, 128], |frame| jitter.apply(frame, &mut random));
        assert_eq!(ends.len(), 3);
    }

    #[test]
    fn light_comes_along_the_components() {
        // The first component is nearly gray: one deviation of it darkens all channels by 0.57 · 0.2175 · 255.
        assert_eq!(Lighting::shift([1.0, 0.0, 0.0]), [-31, -32, -32]);
        assert_eq!(Lighting::shift([0.0, 1.0, 0.0]), [3, 0, -3]);
        let mut random = rng::stream(0, "test", [0, 0]);
        let (mut sum, mut squares, draws) = (0.0, 0.0, 4000);
        for _ in 0..draws {
            let now = changed(&[100; 3], |frame| Lighting::default().apply(frame, &mut random));
            let by = f64::from(now[0]) - 100.0;
            sum += by;
            squares += by * by;
        }
        // 0.1 · 255 · √((0.5675 · 0.2175)² + (0.7192 · 0.0188)² + …), and 1/12 for the rounding.
        let (mean, std) = (sum / f64::from(draws), (squares / f64::from(draws)).sqrt());
        assert!(mean.abs() < 0.2 && (std - 3.18).abs() < 0.15, "{mean} ± {std}");
    }

    #[test]
    fn small_images_are_left_in_peace() {
        let mut none: [u8; 0] = [];
        let mut frame = Frame::new(0, 0, 3, &mut none);
        contrast(&mut frame, 0.5);
        sharpness(&mut frame, 0.0);
        equalize(&mut frame);
        autocontrast(&mut frame);
        let mut two = [1, 9];
        sharpness(&mut Frame::new(2, 1, 1, &mut two), 0.0);
        assert_eq!(two, [1, 9]);
    }
}
