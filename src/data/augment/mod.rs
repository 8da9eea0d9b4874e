//! From an image to the pixels that a network sees. Every function is pure: randomness is passed in.
//!
//! The order is that of torchvision's references: [crop] and resize, [flip], then the steps of
//! [`Augment`] in the order of their list, all of them on the cropped `size` × `size` bytes. Batches are
//! [mixed](mix) later, on the device.

pub mod check;
pub mod colour;
pub mod crop;
pub mod erase;
pub mod flip;
pub mod frame;
pub mod geometry;
#[cfg(test)]
mod golden;
pub mod mix;
pub mod policy;

use super::sample::{Stage, Workbench};
use super::views::Views;
use super::{Crop, DataSpec, Image, Split};
use crate::error::Result;
use check::Key;
use crop::{centre_window, corner_and_centre_windows, random_window};
use frame::Frame;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crop::Window;

/// Everything that is done to one sample of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    crop: Crop,
    crop_area: [f64; 2],
    padding: usize,
    flip: bool,
    augment: Augment,
    /// The data set's mean, of 255.
    mean: Vec<u8>,
    resize: usize,
    size: usize,
    views: Views,
}

impl Transform {
    /// For a [resolved](DataSpec::resolve) specification.
    pub fn new(spec: &DataSpec, split: Split) -> Self {
        let size = spec.size.expect("the data specification is resolved");
        let resize = spec.resize.expect("the data specification is resolved");
        let mean = spec.mean.iter().flatten().map(|share| (255.0 * share).round() as u8).collect();
        let (crop_area, padding, views) = (spec.crop_area, spec.padding, Views::default());
        match split {
            Split::Train => {
                let crop = spec.crop.expect("the data specification is resolved");
                let (flip, augment) = (spec.flip, spec.augment.clone());
                Self { crop, crop_area, padding, flip, augment, mean, resize, size, views }
            }
            Split::Eval => {
                let augment = Augment::default();
                let (crop, flip) = (Crop::None, false);
                Self { crop, crop_area, padding, flip, augment, mean, resize, size, views }
            }
        }
    }

    /// The same of an evaluation, with the windows of `views` instead of the centre alone.
    pub fn with_views(self, views: Views) -> Self {
        Self { views, ..self }
    }

    /// How many crops of an image there are, one after another.
    pub fn windows(&self) -> usize {
        self.views.windows()
    }

    /// Height and width of the output.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes `size` × `size` × C bytes to `out`, for each window.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn apply(
        &self,
        image: &Image,
        bench: &mut Workbench,
        random: &mut impl Rng,
        out: &mut [u8],
    ) -> Result<()> {
        if self.windows() > 1 {
            return self.corners_and_centre(image, bench, out);
        }
        match self.crop {
            Crop::None | Crop::Resized => {
                let window = self.window(image.width, image.height, random);
                bench.resample(image, window, self.size, out)?;
            }
            Crop::Pad => crop::padded(image, self.padding, self.size, bench, random, out)?,
        }
        self.finish(image.channels, bench, random, out);
        Ok(())
    }

    /// The same of an encoded image, in RGB; of a JPEG no more is decoded than is needed.
    ///
    /// # Errors
    /// When the bytes are no image, end early or promise an absurd size.
    pub fn apply_encoded(
        &self,
        bytes: &[u8],
        bench: &mut Workbench,
        random: &mut impl Rng,
        out: &mut [u8],
    ) -> Result<()> {
        // What needs all of the image is decoded once.
        if self.crop == Crop::Pad || self.windows() > 1 {
            let (image, _reservation) = bench.decode(bytes)?;
            return self.apply(&image, bench, random, out);
        }
        bench.sample(bytes, self.size, |width, height| self.window(width, height, random), out)?;
        self.finish(3, bench, random, out);
        Ok(())
    }

    fn corners_and_centre(&self, image: &Image, bench: &mut Workbench, out: &mut [u8]) -> Result<()> {
        let windows = corner_and_centre_windows(image.width, image.height, self.resize, self.size);
        let bytes = self.size * self.size * image.channels;
        let mut crops = windows.into_iter().zip(out.chunks_exact_mut(bytes));
        crops.try_for_each(|(window, crop)| bench.resample(image, window, self.size, crop))
    }

    /// The part of an image that becomes the sample, where no zeros are put around it.
    fn window(&self, width: usize, height: usize, random: &mut impl Rng) -> Window {
        match self.crop {
            Crop::Resized => random_window(width, height, self.crop_area, random),
            Crop::None | Crop::Pad => centre_window(width, height, self.resize, self.size),
        }
    }

    /// What follows crop and resize.
    fn finish(&self, channels: usize, bench: &mut Workbench, random: &mut impl Rng, out: &mut [u8]) {
        let mirrored = self.flip && random.random::<bool>();
        if !mirrored && self.augment.is_empty() {
            return;
        }
        bench.stages.time(Stage::Augment, || {
            if mirrored {
                flip::mirror(out, self.size, channels);
            }
            self.augment.apply(&mut Frame::new(self.size, self.size, channels, out), &self.mean, random);
        });
    }
}

/// What else is done to a training image, in this order. In JSON a list of objects that name their `kind`:
/// `[{"kind": "rand-augment", "n": 2, "m": 9}, {"kind": "erase", "p": 0.25}]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Augment(pub Vec<Step>);

/// One thing that is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Step {
    /// Brightness, contrast, saturation and hue.
    ColourJitter(colour::ColourJitter),
    /// Whole numbers added to the values.
    PixelJitter(colour::PixelJitter),
    /// AlexNet's light.
    Lighting(colour::Lighting),
    /// A turn about the centre.
    Rotate(geometry::Rotation),
    /// Some operations of one magnitude.
    RandAugment(policy::RandAugment),
    /// One operation of any magnitude.
    TrivialAugmentWide(policy::TrivialAugmentWide),
    /// A pair of operations learned for ImageNet.
    AutoAugment(policy::AutoAugment),
    /// All channels the luma (torchvision's RandomGrayscale).
    Grayscale(Sometimes),
    /// Every channel stretched to 0-255 (RandomAutocontrast).
    Autocontrast(Sometimes),
    /// Every channel's histogram evened out (RandomEqualize).
    Equalize(Sometimes),
    /// All values inverted (RandomInvert).
    Invert(Sometimes),
    /// Fewer bits (RandomPosterize).
    Posterize(Posterize),
    /// High values inverted (RandomSolarize).
    Solarize(Solarize),
    /// Blurred or sharpened (RandomAdjustSharpness).
    Sharpness(Sharpness),
    /// A rectangle in the data set's mean colour.
    Erase(erase::Erase),
}

/// An operation without parameters, on some images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sometimes {
    /// Share of images.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
}

/// Keeps the upper bits of some images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Posterize {
    /// Bits that stay, 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub bits: u8,
    /// Share of images.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
}

/// Inverts the high values of some images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Solarize {
    /// Lowest value that is inverted, 0 to 256.
    #[schemars(range(min = 0, max = 256))]
    pub threshold: f64,
    /// Share of images.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
}

/// Sharpens (more than 1) or blurs (less) some images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sharpness {
    /// 0 or more; 1 changes nothing.
    #[schemars(range(min = 0, max = 100))]
    pub factor: f64,
    /// Share of images.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
}

impl Augment {
    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does every step. `mean` has the data set's mean of each channel, of 255, for what is erased.
    pub fn apply(&self, frame: &mut Frame, mean: &[u8], random: &mut impl Rng) {
        for step in &self.0 {
            step.apply(frame, mean, random);
        }
    }

    /// Refuses numbers that mean nothing. `path` is where the list stands, such as `data.augment`.
    ///
    /// # Errors
    /// When a value is out of its range; the key and the range are named.
    pub fn check(&self, path: &str) -> Result<()> {
        self.0.iter().enumerate().try_for_each(|(index, step)| step.check(Key::item(path, index)))
    }
}

impl Step {
    /// Changes the image. `mean` as for [`Augment::apply`].
    pub fn apply(&self, frame: &mut Frame, mean: &[u8], random: &mut impl Rng) {
        let mut happens = |p: f64| random.random_bool(p);
        match self {
            Self::ColourJitter(jitter) => jitter.apply(frame, random),
            Self::PixelJitter(jitter) => jitter.apply(frame, random),
            Self::Lighting(lighting) => lighting.apply(frame, random),
            Self::Rotate(rotation) => rotation.apply(frame, random),
            Self::RandAugment(policy) => policy.apply(frame, random),
            Self::TrivialAugmentWide(policy) => policy.apply(frame, random),
            Self::AutoAugment(policy) => policy.apply(frame, random),
            Self::Erase(erase) => erase.apply(frame, mean, random),
            Self::Grayscale(Sometimes { p }) if happens(*p) => colour::grayscale(frame),
            Self::Autocontrast(Sometimes { p }) if happens(*p) => colour::autocontrast(frame),
            Self::Equalize(Sometimes { p }) if happens(*p) => colour::equalize(frame),
            Self::Invert(Sometimes { p }) if happens(*p) => colour::invert(frame),
            Self::Posterize(Posterize { bits, p }) if happens(*p) => colour::posterize(frame, *bits),
            Self::Solarize(Solarize { threshold, p }) if happens(*p) => colour::solarize(frame, *threshold),
            Self::Sharpness(Sharpness { factor, p }) if happens(*p) => colour::sharpness(frame, *factor),
            Self::Grayscale(_)
            | Self::Autocontrast(_)
            | Self::Equalize(_)
            | Self::Invert(_)
            | Self::Posterize(_)
            | Self::Solarize(_)
            | Self::Sharpness(_) => {}
        }
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key and the range are named.
    pub fn check(&self, key: Key) -> Result<()> {
        match self {
            Self::ColourJitter(jitter) => jitter.check(key),
            Self::PixelJitter(jitter) => jitter.check(key),
            Self::Lighting(lighting) => lighting.check(key),
            Self::Rotate(rotation) => rotation.check(key),
            Self::RandAugment(policy) => policy.check(key),
            Self::TrivialAugmentWide(_) | Self::AutoAugment(_) => Ok(()),
            Self::Grayscale(Sometimes { p })
            | Self::Autocontrast(Sometimes { p })
            | Self::Equalize(Sometimes { p })
            | Self::Invert(Sometimes { p }) => check::share(key.at("p"), *p),
            Self::Posterize(Posterize { bits, p }) => {
                check::range(key.at("bits"), f64::from(*bits), 1.0..=8.0, "how many bits stay")?;
                check::share(key.at("p"), *p)
            }
            Self::Solarize(Solarize { threshold, p }) => {
                check::range(key.at("threshold"), *threshold, 0.0..=256.0, "128 inverts the upper half")?;
                check::share(key.at("p"), *p)
            }
            Self::Sharpness(Sharpness { factor, p }) => {
                check::range(key.at("factor"), *factor, 0.0..=100.0, "2 sharpens, 0 blurs")?;
                check::share(key.at("p"), *p)
            }
            Self::Erase(erase) => erase.check(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    /// Every kind, as a user would write it.
    const ALL: &str = r#"[
        {"kind": "rand-augment", "n": 2, "m": 9},
        {"kind": "trivial-augment-wide"},
        {"kind": "auto-augment"},
        {"kind": "rotate", "degrees": 10},
        {"kind": "colour-jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        {"kind": "pixel-jitter", "amount": 20, "per": "value"},
        {"kind": "pixel-jitter", "per": "image"},
        {"kind": "lighting", "std": 0.1},
        {"kind": "grayscale", "p": 0.1},
        {"kind": "autocontrast", "p": 0.5},
        {"kind": "equalize", "p": 0.5},
        {"kind": "invert", "p": 0.5},
        {"kind": "posterize", "bits": 4, "p": 0.5},
        {"kind": "solarize", "threshold": 128, "p": 0.5},
        {"kind": "sharpness", "factor": 2, "p": 0.5},
        {"kind": "erase", "p": 0.25, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]}
    ]"#;

    fn image(width: usize, height: usize, channels: usize) -> Image {
        let pixels = (0..width * height * channels).map(|at| (at as u8).wrapping_add(1)).collect();
        Image { width, height, channels, pixels }
    }

    fn spec(augment: Augment) -> DataSpec {
        let (size, resize, crop) = (Some(8), Some(8), Some(Crop::Resized));
        DataSpec { size, resize, crop, augment, mean: Some(vec![0.5; 3]), ..DataSpec::default() }
    }

    #[test]
    fn evaluation_of_an_image_of_the_right_size_changes_no_pixel() {
        let augment = serde_json::from_str(ALL).unwrap();
        let spec = DataSpec { size: Some(4), resize: Some(4), augment, ..DataSpec::default() };
        let source = image(4, 4, 1);
        let mut out = vec![0; 16];
        let mut random = rng::stream(0, "test", [0, 0]);
        let mut bench = Workbench::new();
        Transform::new(&spec, Split::Eval).apply(&source, &mut bench, &mut random, &mut out).unwrap();
        assert_eq!(out, source.pixels);
    }

    #[test]
    fn every_kind_reads_writes_and_runs_on_images_of_any_form() {
        let augment: Augment = serde_json::from_str(ALL).unwrap();
        augment.check("data.augment").unwrap();
        let written = serde_json::to_string(&augment).unwrap();
        assert_eq!(serde_json::from_str::<Augment>(&written).unwrap(), augment);
        let mut random = rng::stream(0, "test", [0, 0]);
        for (width, height, channels) in [(1, 1, 1), (1, 1, 3), (2, 5, 3), (17, 3, 1), (0, 0, 3), (40, 30, 3)]
        {
            for _ in 0..50 {
                let mut image = image(width, height, channels);
                augment.apply(&mut Frame::of(&mut image), &[1, 2, 3], &mut random);
            }
        }
    }

    #[test]
    fn the_steps_come_after_crop_and_flip_and_repeat_with_their_seed() {
        let source = image(20, 12, 3);
        let run = |augment: &str, seed| {
            let mut out = vec![0; 8 * 8 * 3];
            let transform = Transform::new(&spec(serde_json::from_str(augment).unwrap()), Split::Train);
            let mut random = rng::stream(seed, "test", [0, 0]);
            transform.apply(&source, &mut Workbench::new(), &mut random, &mut out).unwrap();
            out
        };
        let plain = run("[]", 1);
        let inverted: Vec<u8> = plain.iter().map(|value| 255 - value).collect();
        assert_eq!(run(r#"[{"kind": "invert", "p": 1}]"#, 1), inverted);
        assert_eq!(run(ALL, 1), run(ALL, 1));
        assert_ne!(run(ALL, 1), run(ALL, 2));
        let erased = run(r#"[{"kind": "erase", "p": 1}]"#, 1);
        assert!(erased.chunks(3).zip(plain.chunks(3)).all(|(now, old)| now == old || now == [128; 3]));
        assert_ne!(erased, plain);
    }

    #[test]
    fn slips_in_the_list_are_named() {
        for (text, expected) in [
            (r#"[{"kind": "invert", "p": 2}]"#, "`data.augment[0].p` is 2, but 0 to 1 is expected"),
            (
                r#"[{"kind": "auto-augment"}, {"kind": "colour-jitter", "hue": 0.6}]"#,
                "`data.augment[1].hue` is 0.6, but 0 to 0.5 is expected",
            ),
            (
                r#"[{"kind": "posterize", "bits": 0, "p": 1}]"#,
                "`data.augment[0].bits` is 0, but 1 to 8 is expected",
            ),
            (
                r#"[{"kind": "erase", "scale": [0.3, 0.1]}]"#,
                "`data.augment[0].scale` is [0.3, 0.1], but the lower bound comes first",
            ),
        ] {
            let augment: Augment = serde_json::from_str(text).unwrap();
            assert_eq!(augment.check("data.augment").unwrap_err().to_string(), expected);
        }
        for (text, part) in [
            (r#"[{"kind": "auto-augment", "policy": 1}]"#, "unknown field `policy`"),
            (r#"[{"kind": "erase", "P": 1}]"#, "unknown field `P`"),
            (r#"[{"kind": "pixel-jitter"}]"#, "missing field `per`"),
            (r#"[{"kind": "color-jitter"}]"#, "unknown variant `color-jitter`"),
        ] {
            let error = serde_json::from_str::<Augment>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
