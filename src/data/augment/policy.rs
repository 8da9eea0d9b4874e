//! Policies: which operations an image meets, and how strong they are. Operations, magnitudes and the policy
//! learned for ImageNet are torchvision's, which differ in places from the papers'.

use super::check::{self, Key};
use super::colour;
use super::frame::Frame;
use super::geometry::{self, Affine, Filter};
use crate::error::Result;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy may do to an image. Names as in torchvision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Nothing.
    Identity,
    /// Shears rows by the magnitude.
    ShearX,
    /// Shears columns by the magnitude.
    ShearY,
    /// Moves right by the magnitude, in whole pixels.
    TranslateX,
    /// Moves down by the magnitude, in whole pixels.
    TranslateY,
    /// Turns by the magnitude in degrees.
    Rotate,
    /// By 1 + the magnitude.
    Brightness,
    /// Saturation by 1 + the magnitude.
    Color,
    /// By 1 + the magnitude.
    Contrast,
    /// By 1 + the magnitude.
    Sharpness,
    /// Keeps as many bits as the magnitude says.
    Posterize,
    /// Inverts from the magnitude on.
    Solarize,
    /// Stretches each channel.
    AutoContrast,
    /// Evens out each channel's histogram.
    Equalize,
    /// Inverts all values.
    Invert,
}

impl Op {
    /// Changes the image.
    pub fn apply(self, magnitude: f64, frame: &mut Frame) {
        let mut nearest = |affine| geometry::transform(frame, &affine, Filter::Nearest);
        match self {
            Self::Identity => {}
            Self::ShearX => nearest(Affine::shear_x(magnitude)),
            Self::ShearY => nearest(Affine::shear_y(magnitude)),
            Self::TranslateX => nearest(Affine::translation(magnitude as i64, 0)),
            Self::TranslateY => nearest(Affine::translation(0, magnitude as i64)),
            Self::Rotate => geometry::rotate(frame, magnitude, Filter::Nearest),
            Self::Brightness => colour::brightness(frame, 1.0 + magnitude),
            Self::Color => colour::saturation(frame, 1.0 + magnitude),
            Self::Contrast => colour::contrast(frame, 1.0 + magnitude),
            Self::Sharpness => colour::sharpness(frame, 1.0 + magnitude),
            Self::Posterize => colour::posterize(frame, magnitude as u8),
            Self::Solarize => colour::solarize(frame, magnitude),
            Self::AutoContrast => colour::autocontrast(frame),
            Self::Equalize => colour::equalize(frame),
            Self::Invert => colour::invert(frame),
        }
    }
}

/// The magnitudes of a policy: evenly spaced in a number of bins, from no change to the strongest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Space {
    /// Number of bins, 2 or more.
    pub bins: u8,
    /// Strongest shear.
    pub shear: f64,
    /// Longest shift.
    pub shift: Shift,
    /// Widest rotation in degrees.
    pub rotation: f64,
    /// Furthest factor from 1 of brightness, colour, contrast and sharpness.
    pub factor: f64,
    /// Most bits that posterizing drops.
    pub bits: u8,
}

/// The longest shift of a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shift {
    /// In pixels.
    Pixels(f64),
    /// As a share of the image's width or height.
    Share(f64),
}

/// The magnitudes of RandAugment.
pub const RAND: Space =
    Space { bins: 31, shear: 0.3, shift: Shift::Share(150.0 / 331.0), rotation: 30.0, factor: 0.9, bits: 4 };

/// The magnitudes of AutoAugment: the same range in fewer bins.
pub const AUTO: Space = Space { bins: 10, ..RAND };

/// The magnitudes of TrivialAugment's wide space.
pub const WIDE: Space =
    Space { bins: 31, shear: 0.99, shift: Shift::Pixels(32.0), rotation: 135.0, factor: 0.99, bits: 6 };

/// The operations of RandAugment and TrivialAugment.
pub const OPS: [Op; 14] = [
    Op::Identity,
    Op::ShearX,
    Op::ShearY,
    Op::TranslateX,
    Op::TranslateY,
    Op::Rotate,
    Op::Brightness,
    Op::Color,
    Op::Contrast,
    Op::Sharpness,
    Op::Posterize,
    Op::Solarize,
    Op::AutoContrast,
    Op::Equalize,
];

impl Space {
    /// The magnitude of `op` in a bin, and whether its sign is random; nothing for operations that have none.
    pub fn magnitude(&self, op: Op, bin: u8, width: usize, height: usize) -> Option<(f64, bool)> {
        let shift = |side: usize| match self.shift {
            Shift::Pixels(pixels) => pixels,
            Shift::Share(share) => share * side as f64,
        };
        let signed = |most: f64| Some((self.spaced(0.0, most, bin), true));
        match op {
            Op::ShearX | Op::ShearY => signed(self.shear),
            Op::TranslateX => signed(shift(width)),
            Op::TranslateY => signed(shift(height)),
            Op::Rotate => signed(self.rotation),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => signed(self.factor),
            Op::Posterize => {
                let dropped = f64::from(bin) * f64::from(self.bits) / f64::from(self.bins - 1);
                Some((8.0 - dropped.round_ties_even(), false))
            }
            Op::Solarize => Some((self.spaced(255.0, 0.0, bin), false)),
            Op::Identity | Op::AutoContrast | Op::Equalize | Op::Invert => None,
        }
    }

    /// Value `bin` of evenly spaced ones from `first` to `last`, in single precision and from the nearer end, as
    /// torch.linspace has it: with products that are not rounded before they are subtracted. That is what it computes on
    /// any processor with fused multiply-add, and it shows: the middle of 0 to 32 is 15.999999, a shift by 15 pixels.
    fn spaced(&self, first: f64, last: f64, bin: u8) -> f64 {
        let (first, last) = (first as f32, last as f32);
        let step = (last - first) / f32::from(self.bins - 1);
        f64::from(match bin < self.bins / 2 {
            true => step.mul_add(f32::from(bin), first),
            false => (-step).mul_add(f32::from(self.bins - 1 - bin), last),
        })
    }

    /// Applies `op` with its magnitude in a bin, negated every other time where that means something.
    fn apply(&self, op: Op, bin: u8, frame: &mut Frame, random: &mut impl Rng) {
        let magnitude = match self.magnitude(op, bin, frame.width(), frame.height()) {
            Some((magnitude, true)) if random.random::<bool>() => -magnitude,
            Some((magnitude, _)) => magnitude,
            None => 0.0,
        };
        op.apply(magnitude, frame);
    }
}

/// `n` random operations of one magnitude (Cubuk et al. 2019), as torchvision has it: with replacement, identity
/// among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations for each image, 1 to 16.
    #[schemars(range(min = 1, max = 16))]
    pub n: u8,
    /// Their bin, 0 (no or next to no change) to 30.
    #[schemars(range(max = 30))]
    pub m: u8,
}

impl Default for RandAugment {
    /// torchvision's.
    fn default() -> Self {
        Self { n: 2, m: 9 }
    }
}

impl RandAugment {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        for _ in 0..self.n {
            let op = OPS[random.random_range(0..OPS.len())];
            RAND.apply(op, self.m.min(RAND.bins - 1), frame, random);
        }
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        check::range(key.at("n"), f64::from(self.n), 1.0..=16.0, "operations for each image; 2 is usual")?;
        check::range(key.at("m"), f64::from(self.m), 0.0..=30.0, "one of 31 magnitudes; 9 is usual")
    }
}

/// One random operation of a random magnitude (Müller and Hutter 2021), of the wide space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrivialAugmentWide {}

impl TrivialAugmentWide {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        let op = OPS[random.random_range(0..OPS.len())];
        WIDE.apply(op, random.random_range(0..WIDE.bins), frame, random);
    }
}

/// One of 25 random pairs of operations that were learned for ImageNet (Cubuk et al. 2018), each with a probability
/// and a magnitude of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoAugment {}

impl AutoAugment {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        for (op, p, bin) in IMAGENET[random.random_range(0..IMAGENET.len())] {
            if random.random_bool(p) {
                AUTO.apply(op, bin, frame, random);
            }
        }
    }
}

/// An operation, its probability and its bin (0 where it has no magnitude).
type Chance = (Op, f64, u8);

/// AutoAugment's policy for ImageNet.
#[rustfmt::skip]
pub const IMAGENET: [[Chance; 2]; 25] = [
    [(Op::Posterize, 0.4, 8), (Op::Rotate, 0.6, 9)],
    [(Op::Solarize, 0.6, 5), (Op::AutoContrast, 0.6, 0)],
    [(Op::Equalize, 0.8, 0), (Op::Equalize, 0.6, 0)],
    [(Op::Posterize, 0.6, 7), (Op::Posterize, 0.6, 6)],
    [(Op::Equalize, 0.4, 0), (Op::Solarize, 0.2, 4)],
    [(Op::Equalize, 0.4, 0), (Op::Rotate, 0.8, 8)],
    [(Op::Solarize, 0.6, 3), (Op::Equalize, 0.6, 0)],
    [(Op::Posterize, 0.8, 5), (Op::Equalize, 1.0, 0)],
    [(Op::Rotate, 0.2, 3), (Op::Solarize, 0.6, 8)],
    [(Op::Equalize, 0.6, 0), (Op::Posterize, 0.4, 6)],
    [(Op::Rotate, 0.8, 8), (Op::Color, 0.4, 0)],
    [(Op::Rotate, 0.4, 9), (Op::Equalize, 0.6, 0)],
    [(Op::Equalize, 0.0, 0), (Op::Equalize, 0.8, 0)],
    [(Op::Invert, 0.6, 0), (Op::Equalize, 1.0, 0)],
    [(Op::Color, 0.6, 4), (Op::Contrast, 1.0, 8)],
    [(Op::Rotate, 0.8, 8), (Op::Color, 1.0, 2)],
    [(Op::Color, 0.8, 8), (Op::Solarize, 0.8, 7)],
    [(Op::Sharpness, 0.4, 7), (Op::Invert, 0.6, 0)],
    [(Op::ShearX, 0.6, 5), (Op::Equalize, 1.0, 0)],
    [(Op::Color, 0.4, 0), (Op::Equalize, 0.6, 0)],
    [(Op::Equalize, 0.4, 0), (Op::Solarize, 0.2, 4)],
    [(Op::Solarize, 0.6, 5), (Op::AutoContrast, 0.6, 0)],
    [(Op::Invert, 0.6, 0), (Op::Equalize, 1.0, 0)],
    [(Op::Color, 0.6, 4), (Op::Contrast, 1.0, 8)],
    [(Op::Equalize, 0.8, 0), (Op::Equalize, 0.6, 0)],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn outcomes(apply: impl Fn(&mut Frame, &mut rand_chacha::ChaCha8Rng)) -> f64 {
        let source: Vec<u8> = (0..16 * 16 * 3).map(|at| (at * 7 % 251) as u8).collect();
        let mut random = rng::stream(0, "test", [0, 0]);
        let changed = (0..1000).filter(|_| {
            let mut pixels = source.clone();
            apply(&mut Frame::new(16, 16, 3, &mut pixels), &mut random);
            pixels != source
        });
        changed.count() as f64 / 1000.0
    }

    #[test]
    fn policies_change_about_as_many_images_as_their_tables_say() {
        // One of 14 operations is the identity.
        let one = outcomes(|frame, random| RandAugment { n: 1, m: 20 }.apply(frame, random));
        assert!((one - 13.0 / 14.0).abs() < 0.03, "{one}");
        // Bin 0 leaves only what has no magnitude, and solarizing at 255.
        let none = outcomes(|frame, random| RandAugment { n: 1, m: 0 }.apply(frame, random));
        assert!(none < 0.25, "{none}");
        let wide = outcomes(|frame, random| TrivialAugmentWide {}.apply(frame, random));
        assert!((0.8..0.93).contains(&wide), "{wide}");
        let auto = outcomes(|frame, random| AutoAugment {}.apply(frame, random));
        assert!((0.75..0.95).contains(&auto), "{auto}");
    }

    #[test]
    fn a_bin_beyond_the_last_is_refused_by_name() {
        let error = RandAugment { n: 2, m: 31 }.check(Key::item("data.augment", 1)).unwrap_err();
        assert_eq!(error.to_string(), "`data.augment[1].m` is 31, but 0 to 30 is expected");
    }
}
