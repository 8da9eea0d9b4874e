//! What tells two experiments apart.

use super::Experiment;
use crate::error::Result;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// A key with different values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its path, such as `model.se.reduction`.
    pub key: String,
    /// Its value in the first experiment; nothing where that has no such key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// Its value in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |value: &Option<Value>| value.as_ref().map_or_else(|| "not set".to_string(), Value::to_string);
        write!(f, "`{}` {} → {}", self.key, text(&self.a), text(&self.b))
    }
}

impl Difference {
    /// For messages about what was and what is: `optim.lr` was 0.1, now 0.2.
    pub fn since(&self) -> String {
        let text =
            |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_string(), Value::to_string);
        format!("`{}` was {}, now {}", self.key, text(&self.a), text(&self.b))
    }
}

/// Some differences in a line, each as `text` says; of many the first few.
pub fn listed(differences: &[Difference], text: impl Fn(&Difference) -> String) -> String {
    const SHOWN: usize = 8;
    let mut parts: Vec<String> = differences.iter().take(SHOWN).map(text).collect();
    if let Some(more) = differences.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

/// The keys in which `b` differs from `a`, in the order of the configuration; lists are one value.
///
/// # Errors
/// When an experiment cannot be written as JSON.
pub fn differences(a: &Experiment, b: &Experiment) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    collect("", Some(&serde_json::to_value(a)?), Some(&serde_json::to_value(b)?), &mut found);
    Ok(found)
}

fn collect(key: &str, a: Option<&Value>, b: Option<&Value>, found: &mut Vec<Difference>) {
    match (a, b) {
        (a, b) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let only_in_b = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(only_in_b) {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(&key, a.get(name), b.get(name), found);
            }
        }
        (a, b) => found.push(Difference { key: key.to_string(), a: a.cloned(), b: b.cloned() }),
    }
}

/// What in `experiment` is not the built-in default, as a configuration of its own.
///
/// # Errors
/// When an experiment cannot be written as JSON.
pub fn changed(experiment: &Experiment) -> Result<Value> {
    let (default, value) = (serde_json::to_value(Experiment::default())?, serde_json::to_value(experiment)?);
    Ok(beyond(&default, &value).unwrap_or_else(|| Value::Object(Map::new())))
}

/// What makes `value` of `base` when laid over it: the other way around than layers are merged, so an object of another
/// `kind` comes whole.
fn beyond(base: &Value, value: &Value) -> Option<Value> {
    match (base, value) {
        (base, value) if base == value => None,
        (Value::Object(old), Value::Object(new)) if old.get("kind") == new.get("kind") => {
            let part = |(key, value): (&String, &Value)| match old.get(key) {
                Some(base) => Some((key.clone(), beyond(base, value)?)),
                None => Some((key.clone(), value.clone())),
            };
            Some(Value::Object(new.iter().filter_map(part).collect()))
        }
        _ => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Layers;
    use super::*;
    use serde_json::json;

    fn with(settings: &[&str]) -> Experiment {
        let mut layers = Layers::default();
        settings.iter().for_each(|setting| layers.setting(setting).unwrap());
        layers.apply_to(&Experiment::default()).unwrap()
    }

    #[test]
    fn differences_have_whole_paths_and_both_values() {
        let (a, b) = (
            with(&["optim.lr=0.5"]),
            with(&["model.se.reduction=4", "schedule={\"kind\":\"step\",\"every\":\"1ep\"}"]),
        );
        let found = differences(&a, &b).unwrap();
        let lines: Vec<String> = found
            .iter()
            .map(|Difference { key, a, b }| {
                let text = |value: &Option<Value>| value.as_ref().map_or("-".to_string(), Value::to_string);
                format!("{key}: {} {}", text(a), text(b))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "model.se.reduction: 16 4",
                "optim.lr: 0.5 0.1",
                "schedule.kind: \"cosine\" \"step\"",
                "schedule.warmup: \"20%\" \"0st\"",
                "schedule.end: 0.0 -",
                "schedule.every: - \"1ep\"",
                "schedule.factor: - 0.1",
            ]
        );
        assert_eq!(differences(&a, &a).unwrap(), []);
    }

    #[test]
    fn what_is_changed_is_a_configuration_that_means_the_same() {
        assert_eq!(changed(&Experiment::default()).unwrap(), json!({}));
        for settings in [
            &["optim.lr=0.5", "train.clip.norm=1", "data.augment=[{\"kind\":\"erase\"}]"][..],
            &["schedule={\"kind\":\"step\",\"every\":\"1ep\"}", "optim={\"kind\":\"lamb\",\"clip\":null}"],
            &["schedule.warmup_start=0.1", "about={\"run\":\"x\"}", "train.loss=bce"],
        ] {
            let experiment = with(settings);
            let mut layers = Layers::default();
            layers.set("", changed(&experiment).unwrap(), "changed");
            assert_eq!(layers.apply_to(&Experiment::default()).unwrap(), experiment, "{settings:?}");
        }
        assert_eq!(changed(&with(&["optim.lr=0.5"])).unwrap(), json!({ "optim": { "lr": 0.5 } }));
    }
}
