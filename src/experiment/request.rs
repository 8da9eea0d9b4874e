//! What is to be compared, as a file or flags say it.

use super::axis::Axis;
use super::load::{self, Layers};
use super::paper;
use crate::error::{Result, usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Most seeds of a comparison.
const MAX_SEEDS: u64 = 1000;

/// What to compare: a file of `configs/ablations/`, or what the flags say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// For people; read by nobody else.
    pub about: Value,
    /// The configuration that all rows start from: an object, or a path relative to this file; `null` is the built-in
    /// default.
    pub base: Value,
    /// Tables of the paper, by number.
    pub tables: Vec<u32>,
    /// Values of each axis.
    pub axes: Axes,
    /// The row that differences are measured from, in all comparisons: `none` (without SE) or `se` (the base);
    /// `null` is what suits each.
    pub control: Option<Control>,
    /// Seeds: how many, counted from the base's, or which.
    pub seeds: Option<Seeds>,
}

/// Values of each axis, by their words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Axes {
    /// Reduction ratios.
    pub ratios: Option<Vec<Word>>,
    /// Structures.
    pub variants: Option<Vec<Word>>,
    /// Squeezes.
    pub squeeze: Option<Vec<Word>>,
    /// Gates.
    pub gate: Option<Vec<Word>>,
    /// Sets of stages, joined by `+`.
    pub stages: Option<Vec<Word>>,
    /// Places.
    pub placement: Option<Vec<Word>>,
}

/// A value of an axis: a word, or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word {
    /// Such as `gap-scale`.
    Text(String),
    /// Such as 16.
    Number(i64),
}

/// The row that differences are measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// The network without SE.
    None,
    /// The base network.
    Se,
}

/// Seeds of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// So many, counted from the base's.
    Count(u64),
    /// These.
    List(Vec<u64>),
}

impl Axes {
    /// The values of `axis`, if it is varied.
    pub fn of(&mut self, axis: Axis) -> &mut Option<Vec<Word>> {
        match axis {
            Axis::Ratios => &mut self.ratios,
            Axis::Variants => &mut self.variants,
            Axis::Squeeze => &mut self.squeeze,
            Axis::Gate => &mut self.gate,
            Axis::Stages => &mut self.stages,
            Axis::Placement => &mut self.placement,
        }
    }
}

impl Word {
    /// As it stands on the command line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl Request {
    /// Reads a sweep file; `None` where the file is the configuration of a single run.
    ///
    /// # Errors
    /// When the file cannot be read, or has unknown keys.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        Self::parse(path, load::read_object(path)?)
    }

    /// The same of the object in a file. `path` names the file, and a `base` that is a path is relative to its folder.
    ///
    /// # Errors
    /// When the object has unknown keys, or its base cannot be read.
    pub fn parse(path: &Path, value: Value) -> Result<Option<Self>> {
        let is_sweep =
            ["base", "tables", "axes", "control", "seeds"].iter().any(|key| value.get(key).is_some());
        if !is_sweep {
            return Ok(None);
        }
        let mut request: Self = load::parse(value).map_err(|mut problem| {
            problem.message = format!("{}: {}", path.display(), problem.message);
            problem
        })?;
        if let Value::String(base) = &request.base {
            let base = path.parent().unwrap_or(Path::new("")).join(base);
            request.base = load::read_object(&base)?;
        }
        Ok(Some(request))
    }

    /// What all rows start from: what the paper's tables have in common, and the `base` of the file.
    pub fn layers(&self, file: &Path) -> Layers {
        let mut layers = Layers::default();
        if !self.tables.is_empty() {
            // The paper's ablations have SE blocks without biases.
            layers.set("model.se.bias", json!(false), "--table");
        }
        if !self.base.is_null() {
            layers.set("", self.base.clone(), &format!("{}: `base`", file.display()));
        }
        layers
    }

    /// The paper's tables that are asked for.
    pub(super) fn tables(&self) -> Result<Vec<paper::PaperTable>> {
        let find = |number: &u32| {
            paper::TABLES.into_iter().find(|table| table.number == *number).ok_or_else(|| {
                let possible = paper::TABLES.map(|table| table.number.to_string()).join(", ");
                let message = format!("the paper's Table {number} is no ablation");
                usage(message).hint(format!("`--table` takes {possible} or `all`")).into()
            })
        };
        self.tables.iter().map(find).collect()
    }

    /// The seeds, the first of which may be `first`.
    pub(super) fn seeds(&self, first: u64) -> Result<Vec<u64>> {
        let seeds = match &self.seeds {
            None => vec![first],
            Some(Seeds::Count(count)) if *count <= MAX_SEEDS => (0..*count).map(|i| first + i).collect(),
            Some(Seeds::Count(count)) => {
                return Err(
                    usage(format!("`--seeds` is {count}, but at most {MAX_SEEDS} are possible")).into()
                );
            }
            Some(Seeds::List(list)) => list.clone(),
        };
        if seeds.is_empty() {
            return Err(usage("`--seeds` is 0, but one seed is the least")
                .hint("3 give a first idea of the spread")
                .into());
        }
        for (at, seed) in seeds.iter().enumerate() {
            if seeds[..at].contains(seed) {
                return Err(usage(format!("`seeds` holds {seed} twice")).into());
            }
        }
        Ok(seeds)
    }
}
