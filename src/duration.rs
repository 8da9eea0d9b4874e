//! Lengths of time with their unit: `"90ep"`, `"5000st"`, `"10%"`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest lengths; arithmetic with them stays exact.
const MAX_EPOCHS: f64 = 1e6;
const MAX_STEPS: f64 = 1e12;

/// A length of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Duration {
    /// Passes over the training set; fractions are allowed.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
    /// Share of the whole run.
    Percent(f64),
}

impl Default for Duration {
    fn default() -> Self {
        Duration::Steps(0)
    }
}

impl Duration {
    /// The length in steps, rounded to the nearest.
    pub fn steps(self, steps_per_epoch: u64, total_steps: u64) -> u64 {
        match self {
            Duration::Epochs(epochs) => (epochs * steps_per_epoch as f64).round() as u64,
            Duration::Steps(steps) => steps,
            Duration::Percent(percent) => (percent / 100.0 * total_steps as f64).round() as u64,
        }
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let value = number.parse::<f64>().ok();
        match (value, unit.trim()) {
            (Some(value), "ep") if value > MAX_EPOCHS => {
                Err(format!("a length of {value:e} epochs has no end: up to {MAX_EPOCHS} are possible"))
            }
            (Some(value), "st") if value > MAX_STEPS => {
                Err(format!("a length of {value:e} steps has no end: up to {MAX_STEPS} are possible"))
            }
            (Some(value), "ep") => Ok(Duration::Epochs(value)),
            (Some(value), "st") if value.fract() == 0.0 => Ok(Duration::Steps(value as u64)),
            (Some(value), "%") if value <= 100.0 => Ok(Duration::Percent(value)),
            _ => Err(format!(
                "`{text}` is no length of training: a number with a unit is expected, such as \"90ep\" (epochs), \
                 \"5000st\" (steps) or \"10%\" (of the run)"
            )),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Epochs(epochs) => write!(f, "{epochs}ep"),
            Duration::Steps(steps) => write!(f, "{steps}st"),
            Duration::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of training with its unit: epochs, steps, or a share of the run.",
            "type": "string",
            "pattern": r"^(([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ep|%)|[0-9]+(\.0*)?\s*st)\s*$",
            "examples": ["90ep", "5000st", "10%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        for (text, steps) in [("90ep", 900), ("0.5ep", 5), ("5000st", 5000), ("10%", 20), ("0st", 0)] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.steps(10, 200), steps, "{text}");
            assert_eq!(duration.to_string(), text);
        }
        for endless in ["1000001ep", "2000000000000st"] {
            assert!(endless.parse::<Duration>().unwrap_err().contains("has no end"), "{endless}");
        }
        for wrong in ["90", "ep", "1.5st", "110%", "-3ep", "3 weeks", ""] {
            assert!(wrong.parse::<Duration>().unwrap_err().contains("90ep"), "{wrong}");
        }
    }
}
