//! What a weights file says of itself, beside its tensors: the network, its classes and how images are prepared. Ours
//! do, others' do not.

use crate::data::preprocessing::Preprocessing;
use crate::models::{self, ModelSpec};
use crate::net::se::SeSpec;
use serde::{Deserialize, Serialize};

/// Description of a network in a weights file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Name of the network.
    pub model: Option<String>,
    /// Settings of its SE blocks (`model.se`); files of the first versions lack them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se: Option<SeSpec>,
    /// `model.dropout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// `model.drop_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// How images are prepared.
    pub preprocessing: Option<Preprocessing>,
}

impl About {
    /// Description of weights of the network `spec`; `classes` is empty where they have no names.
    pub fn of(spec: &ModelSpec, classes: &[String], preprocessing: Option<&Preprocessing>) -> Self {
        Self {
            model: Some(spec.name.clone()),
            se: Some(spec.se.clone()),
            dropout: spec.dropout,
            drop_path: (spec.drop_path > 0.0).then_some(spec.drop_path),
            classes: classes.to_vec(),
            preprocessing: preprocessing.cloned(),
        }
    }

    /// The network, if the file names it; SE settings that the file lacks have their defaults.
    pub fn spec(&self) -> Option<ModelSpec> {
        let name = models::canonical(self.model.as_deref()?);
        let (se, drop_path) = (self.se.clone().unwrap_or_default(), self.drop_path.unwrap_or(0.0));
        Some(ModelSpec { se, dropout: self.dropout, drop_path, ..ModelSpec::named(&name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::se::{Gate, Placement, Rounding, Squeeze};

    #[test]
    fn the_whole_network_is_described() {
        let se = SeSpec {
            reduction: 8,
            bias: false,
            rounding: Rounding::MultipleOf8,
            gate: Gate::Tanh,
            squeeze: Squeeze::Max,
            placement: Placement::Pre,
            stages: Some(vec![2, 3]),
            ..SeSpec::default()
        };
        let spec =
            ModelSpec { se, dropout: Some(0.25), drop_path: 0.125, ..ModelSpec::named("se-resnet-50") };
        let text = serde_json::to_string(&About::of(&spec, &[], None)).unwrap();
        assert_eq!(serde_json::from_str::<About>(&text).unwrap().spec(), Some(spec));
    }

    #[test]
    fn the_first_versions_files_are_read() {
        let about: About =
            serde_json::from_str(r#"{"model": "se-resnet-20", "classes": ["a"], "preprocessing": null}"#)
                .unwrap();
        assert_eq!((about.spec(), about.se), (Some(ModelSpec::named("se-resnet-20")), None));
    }
}
