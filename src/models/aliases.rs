//! The names by which timm, torchvision and pretrainedmodels know our networks. A network is stored under our name; an
//! alias is what a user may type instead.

use super::{Entry, ModelSpec, ZOO, find};
use crate::net::Node;
use crate::net::se::{Rounding, SeSpec};
use serde_json::{Value, json};

/// Who calls a network by an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// timm.
    Timm,
    /// torchvision and timm, with the same tensors under the same names.
    Both,
    /// torchvision, whose tensors timm names otherwise.
    Torchvision,
    /// pretrainedmodels, the forerunner of timm's `legacy_*`.
    PretrainedModels,
}

/// A name of another library for one of our networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alias {
    /// The name there.
    pub name: &'static str,
    /// Whose name it is.
    pub library: Library,
    /// Our name.
    pub canonical: &'static str,
    /// The hidden width of its SE blocks.
    rounding: Rounding,
    /// Mean and standard deviation of each channel that its weights were trained with, where they are not those of
    /// [`Entry::preprocessing`].
    normalisation: Option<[[f64; 3]; 2]>,
}

const fn alias(name: &'static str, library: Library, canonical: &'static str) -> Alias {
    Alias { name, library, canonical, rounding: Rounding::Exact, normalisation: None }
}

/// timm's SE networks round the hidden width.
const fn timm_se(name: &'static str, canonical: &'static str) -> Alias {
    Alias { rounding: Rounding::MultipleOf8, ..alias(name, Library::Timm, canonical) }
}

use Library::{Both, PretrainedModels, Timm, Torchvision};

/// All of them; tests/aliases.rs compares them with the references of scripts/golden.py.
pub const ALIASES: &[Alias] = &[
    alias("resnet18", Both, "resnet-18-v1.5"),
    alias("resnet34", Both, "resnet-34-v1.5"),
    alias("resnet50", Both, "resnet-50-v1.5"),
    alias("resnet101", Both, "resnet-101-v1.5"),
    alias("resnet152", Both, "resnet-152-v1.5"),
    alias("resnext50_32x4d", Both, "resnext-50-32x4d-v1.5"),
    alias("resnext101_32x4d", Timm, "resnext-101-32x4d-v1.5"),
    alias("resnext101_64x4d", Both, "resnext-101-64x4d-v1.5"),
    alias("resnext101_32x8d", Both, "resnext-101-32x8d-v1.5"),
    timm_se("seresnet18", "se-resnet-18-v1.5"),
    timm_se("seresnet34", "se-resnet-34-v1.5"),
    timm_se("seresnet50", "se-resnet-50-v1.5"),
    timm_se("seresnet101", "se-resnet-101-v1.5"),
    timm_se("seresnet152", "se-resnet-152-v1.5"),
    timm_se("seresnext50_32x4d", "se-resnext-50-32x4d-v1.5"),
    timm_se("seresnext101_32x4d", "se-resnext-101-32x4d-v1.5"),
    timm_se("seresnext101_64x4d", "se-resnext-101-64x4d-v1.5"),
    timm_se("seresnext101_32x8d", "se-resnext-101-32x8d-v1.5"),
    timm_se("senet154", "senet-154-v1.5"),
    alias("legacy_seresnet18", Timm, "se-resnet-18-legacy"),
    alias("legacy_seresnet34", Timm, "se-resnet-34-legacy"),
    alias("legacy_seresnet50", Timm, "se-resnet-50"),
    alias("legacy_seresnet101", Timm, "se-resnet-101"),
    alias("legacy_seresnet152", Timm, "se-resnet-152"),
    alias("legacy_seresnext50_32x4d", Timm, "se-resnext-50-32x4d"),
    alias("legacy_seresnext101_32x4d", Timm, "se-resnext-101-32x4d"),
    alias("legacy_senet154", Timm, "senet-154"),
    alias("se_resnet50", PretrainedModels, "se-resnet-50"),
    alias("se_resnet101", PretrainedModels, "se-resnet-101"),
    alias("se_resnet152", PretrainedModels, "se-resnet-152"),
    alias("se_resnext50_32x4d", PretrainedModels, "se-resnext-50-32x4d"),
    alias("se_resnext101_32x4d", PretrainedModels, "se-resnext-101-32x4d"),
    alias("inception_v3", Both, "inception-v3"),
    alias("inception_resnet_v2", Timm, "inception-resnet-v2"),
    alias("vgg16_bn", Torchvision, "vgg-16-bn"),
    Alias { normalisation: Some([[0.5; 3]; 2]), ..alias("mobilenetv1_100", Timm, "mobilenet") },
];

impl Alias {
    /// The network with the settings that the library gives it.
    pub fn spec(&self) -> ModelSpec {
        let se = SeSpec { rounding: self.rounding, ..SeSpec::default() };
        ModelSpec { se, ..ModelSpec::named(self.canonical) }
    }

    /// Mean and standard deviation of each channel, where the library's weights have others than our default.
    pub fn normalisation(&self) -> Option<[Vec<f64>; 2]> {
        self.normalisation.map(|values| values.map(Vec::from))
    }

    /// The name and what it means, in words: `seresnet18 is se-resnet-18-v1.5 with model.se.rounding=multiple-of-8`.
    pub fn described(&self) -> String {
        let Self { name, canonical, rounding, .. } = self;
        let rounded = if *rounding == Rounding::Exact { "" } else { " with model.se.rounding=multiple-of-8" };
        format!("{name} is {canonical}{rounded}")
    }

    /// Whether timm has the network, with the tensors that we write for it.
    pub fn is_timms(&self) -> bool {
        matches!(self.library, Timm | Both)
    }

    /// The networks of an [`Entry`] that this is a name of, in words for a list.
    pub fn of_entry(entry: &Entry) -> Vec<&'static str> {
        let ours = [entry.base.to_string(), entry.se_name()];
        ALIASES
            .iter()
            .filter(|alias| ours.iter().any(|name| name == alias.canonical))
            .map(|a| a.name)
            .collect()
    }
}

/// The alias that `name` is: in upper or lower case, with timm's tag of the weights (`seresnet50.ra2_in1k`) or its
/// repository (`timm/…`, `hf-hub:timm/…`) or without.
pub fn alias_named(name: &str) -> Option<&'static Alias> {
    let lower = name.to_lowercase();
    let bare = ["hf-hub:", "hf_hub:"].iter().fold(lower.as_str(), |name, hub| name.trim_start_matches(hub));
    let bare = bare.strip_prefix("timm/").unwrap_or(bare);
    let bare = bare.split_once('.').map_or(bare, |(network, _)| network);
    ALIASES.iter().find(|alias| alias.name == bare)
}

/// timm's name of the network `spec`, settings of its SE blocks included; none where timm has no such network.
pub fn timm_name(spec: &ModelSpec) -> Option<&'static Alias> {
    let comparable = |spec: &ModelSpec| -> Option<Node> {
        ModelSpec { dropout: Some(0.0), drop_path: 0.0, ..spec.clone() }.describe(3, 10).ok()
    };
    let node = comparable(spec)?;
    ALIASES.iter().find(|alias| {
        alias.is_timms() && alias.canonical == spec.name && comparable(&alias.spec()).as_ref() == Some(&node)
    })
}

/// The networks that have the tensors of `name` and compute something else with them: other strides, another pool, a
/// further ReLU. No file of tensors tells them apart.
pub fn twins(name: &str) -> Vec<String> {
    let Ok((entry, with_se)) = find(name) else { return Vec::new() };
    let twins =
        ZOO.iter().filter(|other| other.base != entry.base && other.family.has_tensors_of(&entry.family));
    twins.map(|twin| if with_se { twin.se_name() } else { twin.base.to_string() }).collect()
}

/// The settings that the alias in `layers` of configurations means beside the name, weakest first; none where the name
/// that counts is no alias, or a layer says itself how hidden widths are rounded.
pub fn settings_beside<'a>(layers: impl DoubleEndedIterator<Item = &'a Value> + Clone) -> Option<Value> {
    let model = |layer: &'a Value| &layer["model"];
    let name = layers.clone().rev().find_map(|layer| model(layer)["name"].as_str())?;
    let rounding = alias_named(name).map(|alias| alias.rounding).filter(|found| *found != Rounding::Exact)?;
    let is_set = layers.clone().any(|layer| !model(layer)["se"]["rounding"].is_null());
    (!is_set).then(|| json!({ "model": { "se": { "rounding": rounding } } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_unique_and_mean_a_network() {
        for (at, alias) in ALIASES.iter().enumerate() {
            assert!(ALIASES[..at].iter().all(|other| other.name != alias.name), "{}", alias.name);
            assert!(super::super::names().iter().any(|name| name == alias.canonical), "{}", alias.name);
            assert!(super::super::names().iter().all(|name| name != alias.name), "{}", alias.name);
        }
    }

    #[test]
    fn tags_repositories_and_capitals_are_taken_off() {
        for name in [
            "seresnet50",
            "SEResNet50",
            "seresnet50.ra2_in1k",
            "timm/seresnet50.a1_in1k",
            "hf-hub:timm/seresnet50",
        ] {
            assert_eq!(alias_named(name).map(|alias| alias.canonical), Some("se-resnet-50-v1.5"), "{name}");
        }
        for name in ["se-resnet-50", "se-resnet-50-v1.5", "seresnet51", "resnet50d", ""] {
            assert_eq!(alias_named(name), None, "{name}");
        }
    }

    #[test]
    fn timm_has_the_networks_that_it_has_a_name_for() {
        let of = |spec: &ModelSpec| timm_name(spec).map(|alias| alias.name);
        for alias in ALIASES.iter().filter(|alias| alias.is_timms()) {
            assert_eq!(of(&alias.spec()), Some(alias.name));
        }
        // The same widths, rounded or not.
        assert_eq!(of(&ModelSpec::named("se-resnet-50-v1.5")), Some("seresnet50"));
        for name in
            ["se-resnet-18", "se-resnet-34", "se-resnet-18-v1.5", "resnet-50", "se-resnet-20", "vgg-16-bn"]
        {
            assert_eq!(of(&ModelSpec::named(name)), None, "{name}");
        }
        let mut tanh = ModelSpec::named("se-resnet-50-v1.5");
        tanh.se.gate = crate::net::se::Gate::Tanh;
        assert_eq!(of(&tanh), None);
    }

    #[test]
    fn twins_share_their_tensors() {
        assert_eq!(twins("se-resnet-50"), ["se-resnet-50-v1.5"]);
        assert_eq!(twins("se-resnet-18"), ["se-resnet-18-v1.5", "se-resnet-18-legacy"]);
        assert_eq!(twins("senet-154-v1.5"), ["senet-154"]);
        assert!(twins("mobilenet").is_empty() && twins("se-resnet-20").is_empty());
    }
}
