//! The crops of an image in an evaluation.

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
