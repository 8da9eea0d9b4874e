//! The zoo: names, and the networks behind them.

mod cifar;
mod resnet;

use crate::error::{Result, nearest, usage};
use crate::net::Node;
use crate::net::cost::Shape;
use crate::net::se::SeSpec;
use serde::{Deserialize, Serialize};

/// Which network, and how its SE blocks are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// A name of the zoo, such as `se-resnet-50`.
    pub name: String,
    /// Its SE blocks; nothing to a network without them.
    pub se: SeSpec,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self { name: "se-resnet-20".to_string(), se: SeSpec::default() }
    }
}

/// A network of the zoo, without its number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Name without the prefix `se-`.
    pub base: &'static str,
    /// What tells it from its neighbours.
    pub about: &'static str,
    /// What it was made for.
    pub input: Shape,
    /// Number of classes it was made for.
    pub classes: i64,
    family: Family,
}

/// A table of depths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    ResNet(resnet::Table),
    Cifar { blocks: usize },
}

/// Most classes; a classifier on 2048 features then holds 8 GB.
const MAX_CLASSES: i64 = 1_000_000;

const IMAGENET: Shape = Shape { channels: 3, height: 224, width: 224 };
const CIFAR: Shape = Shape { channels: 3, height: 32, width: 32 };

const fn imagenet(base: &'static str, about: &'static str, table: resnet::Table) -> Entry {
    Entry { base, about, input: IMAGENET, classes: 1000, family: Family::ResNet(table) }
}

/// 6n + 2 layers.
const fn cifar(base: &'static str, n: usize) -> Entry {
    let about = "for 32×32, He et al. 2015 §4.2, shortcuts without parameters";
    Entry { base, about, input: CIFAR, classes: 10, family: Family::Cifar { blocks: n } }
}

const RELEASED: &str =
    "as released by the authors: stride on the first convolution of a block, ceil-mode pool";
const V1_5: &str = "as in torchvision and timm: stride on the 3×3, padded pool";

/// All networks; each also exists with `se-` before its name.
pub const ZOO: &[Entry] = &[
    imagenet("resnet-18", RELEASED, resnet::basic([2, 2, 2, 2], resnet::Form::Released)),
    imagenet("resnet-34", RELEASED, resnet::basic([3, 4, 6, 3], resnet::Form::Released)),
    imagenet("resnet-50", RELEASED, resnet::bottleneck([3, 4, 6, 3], resnet::Form::Released)),
    imagenet("resnet-101", RELEASED, resnet::bottleneck([3, 4, 23, 3], resnet::Form::Released)),
    imagenet("resnet-152", RELEASED, resnet::bottleneck([3, 8, 36, 3], resnet::Form::Released)),
    imagenet("resnet-18-v1.5", V1_5, resnet::basic([2, 2, 2, 2], resnet::Form::V1_5)),
    imagenet("resnet-34-v1.5", V1_5, resnet::basic([3, 4, 6, 3], resnet::Form::V1_5)),
    imagenet("resnet-50-v1.5", V1_5, resnet::bottleneck([3, 4, 6, 3], resnet::Form::V1_5)),
    imagenet("resnet-101-v1.5", V1_5, resnet::bottleneck([3, 4, 23, 3], resnet::Form::V1_5)),
    imagenet("resnet-152-v1.5", V1_5, resnet::bottleneck([3, 8, 36, 3], resnet::Form::V1_5)),
    cifar("resnet-20", 3),
    cifar("resnet-32", 5),
    cifar("resnet-44", 7),
    cifar("resnet-56", 9),
    cifar("resnet-110", 18),
];

/// All names, those without SE first.
pub fn names() -> Vec<String> {
    let plain = ZOO.iter().map(|entry| entry.base.to_string());
    plain.chain(ZOO.iter().map(|entry| format!("se-{}", entry.base))).collect()
}

/// The entry behind `name`, and whether it has SE blocks.
///
/// # Errors
/// When the zoo has no such network; the nearest name is suggested.
pub fn find(name: &str) -> Result<(&'static Entry, bool)> {
    let base = name.strip_prefix("se-").unwrap_or(name);
    match ZOO.iter().find(|entry| entry.base == base) {
        Some(entry) => Ok((entry, base.len() < name.len())),
        None => {
            let names = names();
            let hint = match nearest(&name.to_lowercase(), names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`? `senet summary --list` names all"),
                None => "`senet summary --list` names all".to_string(),
            };
            Err(usage(format!("unknown network `{name}` (`model.name`)")).hint(hint).into())
        }
    }
}

impl ModelSpec {
    /// The description of this network for images of `channels` channels and that many `classes`.
    ///
    /// # Errors
    /// When the name is unknown or a setting is out of its range.
    pub fn describe(&self, channels: i64, classes: i64) -> Result<Node> {
        let (entry, with_se) = find(&self.name)?;
        if self.se.reduction < 1 {
            let message = format!("`model.se.reduction` is {}, but a ratio is at least 1", self.se.reduction);
            return Err(usage(message).hint("the paper uses 16; 1 keeps the full width").into());
        }
        if !(1..=MAX_CLASSES).contains(&classes) {
            let message =
                format!("a network of {classes} classes cannot be made: 1 to {MAX_CLASSES} are possible");
            return Err(usage(message).hint("ImageNet-1k has 1000 classes, ImageNet-21k 21841").into());
        }
        let se = with_se.then_some(&self.se);
        Ok(match entry.family {
            Family::ResNet(table) => resnet::describe(&table, se, channels, classes),
            Family::Cifar { blocks } => cifar::describe(blocks, se, channels, classes),
        })
    }

    /// The same network without its SE blocks.
    pub fn without_se(&self) -> Self {
        let name = self.name.strip_prefix("se-").unwrap_or(&self.name).to_string();
        Self { name, se: self.se.clone() }
    }
}
