//! How an evaluation looks at an image: at which size, and as which crops.

use super::{DataSpec, MAX_SIZE};
use crate::error::{Result, usage};
use serde::Serialize;

/// The crops of an image that a network sees; its logits are averaged over them, as is usual with PyTorch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Views {
    /// The centre.
    #[default]
    #[serde(rename = "center")]
    Centre,
    /// The centre and its mirror image.
    Flip,
    /// The four corners and the centre of the resized image, and the mirror images of these five (Krizhevsky et al.
    /// 2012). torchvision's TenCrop mirrors before it crops: where the centre is half a pixel off the middle, its mirrored
    /// one is a pixel beside ours.
    Ten,
}

impl Views {
    /// Crops that are cut out of an image.
    pub fn windows(self) -> usize {
        match self {
            Self::Centre | Self::Flip => 1,
            Self::Ten => 5,
        }
    }

    /// Whether each of them is seen mirrored as well.
    pub fn are_mirrored(self) -> bool {
        self != Self::Centre
    }
}

/// Where the crop comes from, if from another size than the trained one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Framing {
    /// Height and width of a crop in pixels.
    pub size: Option<usize>,
    /// How large the image is made before.
    pub resize: Option<ShortSide>,
}

/// Length of an image's short side before it is cropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ShortSide {
    /// In pixels.
    Pixels(usize),
    /// Such that the crop is this fraction of it, rounded to the nearest pixel; 0.875 is 224 of 256.
    CropRatio(f64),
}

impl Framing {
    /// Whether everything stays as the network was trained.
    pub fn is_default(self) -> bool {
        self == Self::default()
    }

    /// Puts it into a [resolved](DataSpec::resolve) specification. Where only the size is said, the crop's share of the
    /// image stays.
    ///
    /// # Errors
    /// When the crop would be larger than the image, or the image absurdly large.
    pub fn apply(self, data: &mut DataSpec) -> Result<()> {
        if self.is_default() {
            return Ok(());
        }
        let trained = data.preprocessing();
        let size = self.size.unwrap_or(trained.size);
        let resize = match self.resize {
            None => (size * trained.resize).div_ceil(trained.size),
            Some(ShortSide::Pixels(pixels)) => pixels,
            Some(ShortSide::CropRatio(ratio)) => (size as f64 / ratio).round() as usize,
        };
        if resize < size {
            let message = format!(
                "a crop of {size} × {size} pixels cannot be taken of an image of short side {resize}"
            );
            return Err(usage(message).hint("raise `--resize`, or lower `--size`").into());
        }
        if resize > 2 * MAX_SIZE {
            let message = format!("images would be resized to {resize} pixels, more than {}", 2 * MAX_SIZE);
            return Err(usage(message).hint("0.875 is the usual `--crop-ratio`").into());
        }
        (data.size, data.resize) = (Some(size), Some(resize));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preprocessing;

    fn framed(size: Option<usize>, resize: Option<ShortSide>) -> Result<(usize, usize)> {
        let mut data = DataSpec::prepared(&Preprocessing::default());
        Framing { size, resize }.apply(&mut data)?;
        let Preprocessing { size, resize, .. } = data.preprocessing();
        Ok((size, resize))
    }

    #[test]
    fn what_is_not_said_stays_as_it_was_trained() {
        let ratio = |ratio| Some(ShortSide::CropRatio(ratio));
        for (size, resize, expected) in [
            (None, None, (224, 256)),
            (Some(320), None, (320, 366)),
            (None, Some(ShortSide::Pixels(232)), (224, 232)),
            (Some(320), ratio(1.0), (320, 320)),
            (Some(320), ratio(0.875), (320, 366)),
            (None, ratio(0.95), (224, 236)),
        ] {
            assert_eq!(framed(size, resize).unwrap(), expected);
        }
    }

    #[test]
    fn crops_lie_within_their_image() {
        let refusal = |size, resize| framed(size, resize).unwrap_err().to_string();
        let text = refusal(Some(320), Some(ShortSide::Pixels(256)));
        assert!(
            text.contains("a crop of 320 × 320 pixels cannot be taken of an image of short side 256"),
            "{text}"
        );
        assert!(refusal(None, Some(ShortSide::CropRatio(1e-9))).contains("more than 32768"));
    }
}
