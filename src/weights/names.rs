//! How other libraries name the tensors of our networks. Ours are torchvision's and today's timm's where they have
//! the network, so most files need no renaming.

use super::Array;
use crate::data::Preprocessing;
use crate::models::Entry;
use serde::Serialize;

/// Who named the tensors of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// senet, torchvision, timm.
    Senet,
    /// timm's `legacy_*` networks (and pretrainedmodels): `layer0.conv1`, `se_module`, `last_linear`.
    TimmLegacy,
    /// timm's VGG, whose fully connected layers are convolutions: `pre_logits.fc1`, `head.fc`.
    TimmVgg,
    /// The authors' Caffe layers: `conv2_1_1x1_reduce`, `classifier`.
    Caffe,
}

/// Our stem of SENet-154 beside timm's legacy one.
const STEM_154: [(&str, &str); 6] = [
    ("conv1.0", "layer0.conv1"),
    ("conv1.1", "layer0.bn1"),
    ("conv1.3", "layer0.conv2"),
    ("conv1.4", "layer0.bn2"),
    ("conv1.6", "layer0.conv3"),
    ("bn1", "layer0.bn3"),
];
/// Every other stem.
const STEM: [(&str, &str); 2] = [("conv1", "layer0.conv1"), ("bn1", "layer0.bn1")];

/// Our fully connected layers of VGG-16 beside timm's.
const VGG_CLASSIFIER: [(&str, &str); 3] =
    [("classifier.0", "pre_logits.fc1"), ("classifier.3", "pre_logits.fc2"), ("classifier.6", "head.fc")];

/// timm's VGG has `[C_out, C_in, K, K]` where ours has `[C_out, C_in·K·K]`, of the same values in the same order.
pub fn flatten_classifier(ours: &str, array: &mut Array) {
    if let ([outputs, rest @ ..], true) =
        (&array.shape[..], ours.starts_with("classifier.") && array.shape.len() == 4)
    {
        array.shape = vec![*outputs, rest.iter().product()];
    }
}

fn stem(entry: &Entry) -> &'static [(&'static str, &'static str)] {
    if entry.base.starts_with("senet-154") { &STEM_154 } else { &STEM }
}

impl Scheme {
    /// The scheme of a file with these names.
    pub fn of<'a>(mut names: impl Iterator<Item = &'a String>) -> Self {
        let is_legacy = |name: &String| {
            ["layer0.", "last_linear."].iter().any(|start| name.starts_with(start))
                || name.contains(".se_module.")
        };
        let scheme = |name: &String| match name {
            name if is_legacy(name) => Some(Scheme::TimmLegacy),
            name if name.starts_with("pre_logits.fc1.") => Some(Scheme::TimmVgg),
            _ => None,
        };
        names.find_map(scheme).unwrap_or(Scheme::Senet)
    }

    /// Our name of the tensor that the file calls `name`, if the scheme knows it.
    pub fn to_ours(self, entry: &Entry, name: &str) -> Option<String> {
        match self {
            Scheme::Senet => Some(name.to_string()),
            Scheme::TimmLegacy => {
                let (layer, leaf) = name.rsplit_once('.')?;
                if let Some((ours, _)) = stem(entry).iter().find(|(_, theirs)| *theirs == layer) {
                    return Some(format!("{ours}.{leaf}"));
                }
                if layer == "last_linear" {
                    return Some(format!("{}.{leaf}", entry.classifier()));
                }
                Some(name.replace(".se_module.", ".se."))
            }
            Scheme::TimmVgg => {
                let (layer, leaf) = name.rsplit_once('.')?;
                let ours = VGG_CLASSIFIER.iter().find(|(_, theirs)| *theirs == layer);
                Some(ours.map_or_else(|| name.to_string(), |(ours, _)| format!("{ours}.{leaf}")))
            }
            Scheme::Caffe => {
                let (layer, leaf) = name.rsplit_once('.')?;
                Some(format!("{}.{leaf}", caffe_layer(entry, layer)?))
            }
        }
    }

    /// What the file calls our tensor `name`. Caffe's files are not written.
    pub fn from_ours(self, entry: &Entry, name: &str) -> String {
        if self != Scheme::TimmLegacy {
            return name.to_string();
        }
        let Some((layer, leaf)) = name.rsplit_once('.') else { return name.to_string() };
        if let Some((_, theirs)) = stem(entry).iter().find(|(ours, _)| *ours == layer) {
            return format!("{theirs}.{leaf}");
        }
        if layer == entry.classifier() {
            return format!("last_linear.{leaf}");
        }
        name.replace(".se.", ".se_module.")
    }
}

/// The names in timm's network that is called `name`.
pub fn of_timm(name: &str) -> Scheme {
    if name.starts_with("legacy_") { Scheme::TimmLegacy } else { Scheme::Senet }
}

/// Whether a tensor says nothing about what a network computes: PyTorch's batch counters, Inception-v3's auxiliary
/// classifier.
pub fn is_idle(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name.starts_with("AuxLogits.") || name.starts_with("aux_logits.")
}

/// Whether our tensor `name` is the weight of the convolution that sees the pixels.
pub fn takes_pixels(entry: &Entry, name: &str) -> bool {
    let first = match entry.base {
        "bn-inception" => "conv1.conv.weight",
        base if base.starts_with("senet-154") => "conv1.0.weight",
        _ => "conv1.weight",
    };
    name == first
}

/// The pixels that Caffe's nets were trained on: 0 to 255 less the means of ImageNet's channels, not divided by a
/// deviation (their order, BGR, is put right in the first convolution).
pub fn caffe_preprocessing(entry: &Entry) -> Preprocessing {
    let mean = [123.0, 117.0, 104.0].map(|value: f64| value / 255.0).to_vec();
    Preprocessing { mean, std: vec![1.0 / 255.0; 3], ..entry.preprocessing() }
}

/// Our layer for the authors' layer `name`: a convolution, its `/bn` (statistics) or `/bn/scale` (gamma and beta).
fn caffe_layer(entry: &Entry, name: &str) -> Option<String> {
    let (unit, is_norm) = match name.strip_suffix("/bn/scale").or_else(|| name.strip_suffix("/bn")) {
        Some(unit) => (unit, true),
        None => (name, false),
    };
    if unit == "classifier" {
        return Some(entry.classifier().to_string());
    }
    let (conv, norm) = match entry.base {
        "bn-inception" => inception_unit(unit)?,
        _ => residual_unit(unit)?,
    };
    Some(if is_norm { norm } else { conv })
}

/// Our convolution and normalisation of a unit of SE-BN-Inception.
fn inception_unit(unit: &str) -> Option<(String, String)> {
    let ours = match unit {
        "conv1/7x7_s2" => "conv1".to_string(),
        "conv2/3x3_reduce" => "conv2_reduce".to_string(),
        "conv2/3x3" => "conv2".to_string(),
        _ => match unit.split_once('/') {
            Some((module, part)) => format!("{module}.{part}"),
            None => {
                // An FC of an SE block has no normalisation.
                let (module, fc) = excitation(unit)?;
                return Some((format!("{module}.{fc}"), String::new()));
            }
        },
    };
    Some((format!("{ours}.conv"), format!("{ours}.bn")))
}

/// `inception_3a_1x1_down` is `inception_3a` and `se.fc1`.
fn excitation(unit: &str) -> Option<(&str, &'static str)> {
    let down = unit.strip_suffix("_1x1_down").map(|module| (module, "se.fc1"));
    down.or_else(|| unit.strip_suffix("_1x1_up").map(|module| (module, "se.fc2")))
}

/// Our convolution and normalisation of a unit of the residual nets: `conv3_2_1x1_reduce` is `layer2.1.conv1`.
fn residual_unit(unit: &str) -> Option<(String, String)> {
    let pair = |conv: &str, norm: &str| Some((conv.to_string(), norm.to_string()));
    match unit {
        "conv1/7x7_s2" => return pair("conv1", "bn1"),
        "conv1_1/3x3_s2" => return pair("conv1.0", "conv1.1"),
        "conv1_2/3x3" => return pair("conv1.3", "conv1.4"),
        "conv1_3/3x3" => return pair("conv1.6", "bn1"),
        _ => {}
    }
    let mut parts = unit.strip_prefix("conv")?.splitn(3, '_');
    let stage: usize = parts.next()?.parse().ok()?;
    let block: usize = parts.next()?.parse().ok()?;
    let (conv, norm) = match parts.next()? {
        "1x1_reduce" => ("conv1", "bn1"),
        "3x3" => ("conv2", "bn2"),
        "1x1_increase" => ("conv3", "bn3"),
        "1x1_proj" => ("downsample.0", "downsample.1"),
        "1x1_down" => ("se.fc1", ""),
        "1x1_up" => ("se.fc2", ""),
        _ => return None,
    };
    let at = format!("layer{}.{}", stage.checked_sub(1)?, block.checked_sub(1)?);
    Some((format!("{at}.{conv}"), format!("{at}.{norm}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{ModelSpec, find};
    use crate::net::params::params;

    #[test]
    fn legacy_names_and_ours_are_each_others_inverse() {
        for model in ["se-resnet-50", "se-resnext-101-32x4d", "senet-154", "se-resnet-34-legacy"] {
            let (entry, _) = find(model).unwrap();
            for param in params(&ModelSpec::named(model).describe(3, 1000).unwrap()) {
                let theirs = Scheme::TimmLegacy.from_ours(entry, &param.name);
                assert_eq!(Scheme::TimmLegacy.to_ours(entry, &theirs), Some(param.name));
            }
        }
    }

    #[test]
    fn the_authors_layers_have_our_names() {
        let cases = [
            ("se-resnet-50", "conv1/7x7_s2", "conv1"),
            ("se-resnet-50", "conv1/7x7_s2/bn/scale", "bn1"),
            ("se-resnet-50", "conv3_2_1x1_increase/bn", "layer2.1.bn3"),
            ("se-resnet-50", "conv2_1_1x1_proj/bn/scale", "layer1.0.downsample.1"),
            ("se-resnext-50-32x4d", "conv5_3_1x1_up", "layer4.2.se.fc2"),
            ("senet-154", "conv1_3/3x3/bn", "bn1"),
            ("se-bn-inception", "inception_4e/double3x3a/bn", "inception_4e.double3x3a.bn"),
            ("se-bn-inception", "inception_5b_1x1_down", "inception_5b.se.fc1"),
            ("se-bn-inception", "conv2/3x3_reduce", "conv2_reduce.conv"),
            ("se-bn-inception", "classifier", "fc"),
        ];
        for (model, theirs, ours) in cases {
            assert_eq!(caffe_layer(find(model).unwrap().0, theirs).as_deref(), Some(ours), "{model}");
        }
        assert_eq!(caffe_layer(find("se-resnet-50").unwrap().0, "conv2_1_5x5"), None);
    }
}
