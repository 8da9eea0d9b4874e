//! Preprocessing of an evaluation: input size, resize, mean and standard deviation, who declared them, and what flags
//! change.

use super::MAX_SIZE;
use crate::error::{Result, usage};
use serde::{Deserialize, Serialize};

/// How photographs are prepared for a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height and width of its input in pixels.
    pub size: usize,
    /// Length of the short side before the centre crop, in pixels.
    pub resize: usize,
    /// Mean of each channel, as a fraction of 255.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, as a fraction of 255.
    pub std: Vec<f64>,
}

impl Default for Preprocessing {
    /// The paper's 224 of 256 pixels, and the channel statistics of ImageNet's training set as torchvision and timm
    /// have them.
    fn default() -> Self {
        Self { size: 224, resize: 256, mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }
}

/// Who declared a network's preprocessing. Flags take precedence over all of these, and each over those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreprocessingSource {
    /// The configuration of the run.
    Run,
    /// The file of weights: the metadata of our exports, or what is known of all files of its format.
    File,
    /// timm's `config.json` beside the file of weights.
    TimmConfig,
    /// Nobody: it is the network's default.
    Default,
}

/// Length of an image's short side before it is cropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ShortSide {
    /// In pixels.
    Pixels(usize),
    /// Such that the crop is this fraction of it, rounded down as timm does; 0.875 is 224 of 256.
    CropRatio(f64),
}

impl ShortSide {
    /// In pixels, for a crop of `size` × `size`.
    pub fn pixels(self, size: usize) -> usize {
        match self {
            Self::Pixels(pixels) => pixels,
            Self::CropRatio(ratio) => (size as f64 / ratio).floor() as usize,
        }
    }
}

/// What flags change of a declared preprocessing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PreprocessingOverrides {
    /// Height and width of a crop in pixels.
    pub size: Option<usize>,
    /// How large the image is made before.
    pub resize: Option<ShortSide>,
    /// Mean of each channel, or one for all, as a fraction of 255.
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, or one for all, as a fraction of 255.
    pub std: Option<Vec<f64>>,
}

impl PreprocessingOverrides {
    /// Whether the size of the crop or of the image before it is changed.
    pub fn resizes(&self) -> bool {
        self.size.is_some() || self.resize.is_some()
    }

    /// The flags that are given.
    pub fn flags(&self) -> Vec<&'static str> {
        let resize = match self.resize {
            Some(ShortSide::CropRatio(_)) => "crop-ratio",
            _ => "resize",
        };
        [
            ("size", self.size.is_some()),
            (resize, self.resize.is_some()),
            ("mean", self.mean.is_some()),
            ("std", self.std.is_some()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }

    /// The `declared` preprocessing with what the flags change. Where only the size is given, the crop's share of the
    /// image stays.
    ///
    /// # Errors
    /// When the crop would be larger than the image, the image absurdly large, or mean and standard deviation fit no
    /// image.
    pub fn apply(&self, declared: &Preprocessing) -> Result<Preprocessing> {
        let mut changed = declared.clone();
        if self.resizes() {
            changed.size = self.size.unwrap_or(declared.size);
            changed.resize = match self.resize {
                None => (changed.size * declared.resize).div_ceil(declared.size),
                Some(short_side) => short_side.pixels(changed.size),
            };
            check_crop(changed.size, changed.resize)?;
        }
        let channels = declared.mean.len();
        for (flag, given, values) in
            [("--mean", &self.mean, &mut changed.mean), ("--std", &self.std, &mut changed.std)]
        {
            if let Some(given) = given {
                *values = for_channels(flag, given, channels)?;
            }
        }
        Ok(changed)
    }
}

fn check_crop(size: usize, resize: usize) -> Result<()> {
    if resize < size {
        let message =
            format!("a crop of {size} × {size} pixels cannot be taken of an image of short side {resize}");
        return Err(usage(message).hint("raise `--resize`, or lower `--size`").into());
    }
    if resize > 2 * MAX_SIZE {
        let message = format!("images would be resized to {resize} pixels, more than {}", 2 * MAX_SIZE);
        return Err(usage(message).hint("0.875 is the usual `--crop-ratio`").into());
    }
    Ok(())
}

/// Values of `flag` for so many `channels`; a single one is for all of them.
fn for_channels(flag: &str, given: &[f64], channels: usize) -> Result<Vec<f64>> {
    let is_possible = |value: f64| match flag {
        "--std" => is_std(value),
        _ => is_mean(value),
    };
    if let Some(value) = given.iter().find(|value| !is_possible(**value)) {
        let message =
            format!("`{flag}` holds {value}, but fractions of 255 are expected, as PyTorch has them");
        return Err(usage(message).hint("divide by 255: 123.675 is 0.485").into());
    }
    match given {
        [value] => Ok(vec![*value; channels]),
        _ if given.len() == channels => Ok(given.to_vec()),
        _ => {
            let message = format!(
                "`{flag}` has {} values, but the network's images have {channels} channel(s)",
                given.len()
            );
            Err(usage(message).hint("give one value for each channel, or one for all").into())
        }
    }
}

/// Whether a channel's mean can be this fraction of 255.
pub fn is_mean(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// Whether a channel can be divided by this fraction of 255; 1/255 leaves pixels from 0 to 255.
pub fn is_std(value: f64) -> bool {
    (1e-6..=1.0).contains(&value)
}

/// The preprocessing of an evaluation, as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsedPreprocessing {
    /// The values.
    #[serde(flatten)]
    pub values: Preprocessing,
    /// The filter that resizes; there is one.
    pub interpolation: &'static str,
    /// Who declared what no flag changed.
    pub source: PreprocessingSource,
    /// The flags that changed some of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
}

impl UsedPreprocessing {
    /// As it was declared.
    pub fn declared(values: Preprocessing, source: PreprocessingSource) -> Self {
        Self { values, interpolation: "bilinear", source, flags: Vec::new() }
    }

    /// One line for people, about the network called `model`.
    pub fn line(&self, model: &str) -> String {
        let Preprocessing { size, resize, mean, std } = &self.values;
        let listed = |values: &[f64]| {
            let all_equal = values.iter().all(|value| *value == values[0]);
            let shown = if all_equal { &values[..1] } else { values };
            let rounded = |value: &f64| format!("{}", (value * 1e4).round() / 1e4);
            shown.iter().map(rounded).collect::<Vec<_>>().join(", ")
        };
        let source = match self.source {
            PreprocessingSource::Run => "as in the run".to_string(),
            PreprocessingSource::File => "declared by the weights file".to_string(),
            PreprocessingSource::TimmConfig => "declared by config.json beside the weights file".to_string(),
            PreprocessingSource::Default => format!("defaults of {model}, as the weights file declares none"),
        };
        let flags: String = self.flags.iter().map(|flag| format!(", `--{flag}`")).collect();
        format!(
            "preprocessing: resize to {resize}, crop {size} × {size}, {}, mean {}, std {} ({source}{flags})",
            self.interpolation,
            listed(mean),
            listed(std)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(size: Option<usize>, resize: Option<ShortSide>) -> Result<(usize, usize)> {
        let overrides = PreprocessingOverrides { size, resize, ..PreprocessingOverrides::default() };
        let Preprocessing { size, resize, .. } = overrides.apply(&Preprocessing::default())?;
        Ok((size, resize))
    }

    #[test]
    fn sizes_without_a_flag_stay_as_declared() {
        let ratio = |ratio| Some(ShortSide::CropRatio(ratio));
        for (size, resize, expected) in [
            (None, None, (224, 256)),
            (Some(320), None, (320, 366)),
            (None, Some(ShortSide::Pixels(232)), (224, 232)),
            (Some(320), ratio(1.0), (320, 320)),
            // timm's: math.floor(size / ratio).
            (Some(320), ratio(0.875), (320, 365)),
            (None, ratio(0.95), (224, 235)),
            (Some(299), ratio(0.897), (299, 333)),
        ] {
            assert_eq!(resized(size, resize).unwrap(), expected);
        }
    }

    #[test]
    fn crops_lie_within_their_image() {
        let refusal = |size, resize| resized(size, resize).unwrap_err().to_string();
        let text = refusal(Some(320), Some(ShortSide::Pixels(256)));
        assert!(
            text.contains("a crop of 320 × 320 pixels cannot be taken of an image of short side 256"),
            "{text}"
        );
        assert!(refusal(None, Some(ShortSide::CropRatio(1e-9))).contains("more than 32768"));
    }

    #[test]
    fn mean_and_std_are_fractions_for_each_channel_or_for_all() {
        let apply = |mean: &[f64], std: &[f64]| {
            let (mean, std) = (Some(mean.to_vec()), Some(std.to_vec()));
            let overrides = PreprocessingOverrides { mean, std, ..PreprocessingOverrides::default() };
            overrides.apply(&Preprocessing::default()).map(|values| (values.mean, values.std))
        };
        assert_eq!(apply(&[0.5], &[0.25]).unwrap(), (vec![0.5; 3], vec![0.25; 3]));
        let each = [0.1, 0.2, 0.3];
        assert_eq!(apply(&each, &[1.0 / 255.0]).unwrap(), (each.to_vec(), vec![1.0 / 255.0; 3]));
        for (mean, std, part) in [
            (&each[..2], &each[..], "`--mean` has 2 values"),
            (&each, &[0.5, 0.5, 0.5, 0.5], "`--std` has 4 values"),
            (&[123.675], &each, "`--mean` holds 123.675"),
            (&each, &[0.0], "`--std` holds 0"),
            (&each, &[58.4], "fractions of 255"),
        ] {
            let text = apply(mean, std).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_line_names_values_and_who_declared_them() {
        let mut used = UsedPreprocessing::declared(Preprocessing::default(), PreprocessingSource::Default);
        assert_eq!(
            used.line("mobilenet"),
            "preprocessing: resize to 256, crop 224 × 224, bilinear, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225 \
             (defaults of mobilenet, as the weights file declares none)"
        );
        (used.source, used.flags) = (PreprocessingSource::TimmConfig, vec!["mean"]);
        used.values.mean = vec![0.5; 3];
        assert!(used.line("mobilenet").contains("mean 0.5, std"));
        assert!(used.line("x").ends_with("(declared by config.json beside the weights file, `--mean`)"));
    }
}
