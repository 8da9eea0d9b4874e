//! A comparison, expanded into its rows: an ablation is data.
//!
//! A comparison sets some values of one [`Axis`] side by side, all else equal, with the base network ("SE") and the
//! network without SE. What two comparisons share is one row and is trained once.

use super::axis::{Axis, NO_SE, SE};
use super::request::{Control, Request, Word};
use super::{Experiment, paper};
use crate::error::{Result, usage};
use crate::models;
use crate::net::se::SeSpec;
use crate::report::comparison::{Comparison, Entry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One network under one recipe, trained once with each seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is called where it comes first, such as `r = 16`.
    pub label: String,
    /// The name of its folder, such as `r-16`; the same settings always have the same.
    pub key: String,
    /// What is trained, with the first of the seeds.
    pub experiment: Experiment,
}

/// Several rows under one recipe, data and seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// What is varied.
    pub base: Experiment,
    /// Each row is trained once with each.
    pub seeds: Vec<u64>,
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// How they are set side by side.
    pub comparisons: Vec<Comparison>,
    /// What was asked for by `all` and cannot be had from this network, and why.
    #[serde(default)]
    pub left_out: Vec<String>,
}

impl Request {
    /// The rows, from the network and recipe of `base`.
    ///
    /// # Errors
    /// When nothing is compared, a value is not possible for the network, or comes twice.
    pub fn expand(&self, base: &Experiment) -> Result<Sweep> {
        let (_, has_se) = models::find(&base.model.name)?;
        if !has_se {
            let name = &base.model.name;
            let hint = format!("use `model.name` = `se-{name}`; the row without SE is added by itself");
            return Err(usage(format!("`{name}` has no SE blocks to vary")).hint(hint).into());
        }
        let seeds = self.seeds(base.seed)?;
        let base = Experiment { about: Value::Null, seed: seeds[0], ..base.clone() };
        let sweep = Sweep { base, seeds, rows: Vec::new(), comparisons: Vec::new(), left_out: Vec::new() };
        let mut builder = Builder { sweep, control: self.control };
        for table in self.tables()? {
            builder.table(table, self.tables.len() > 1)?;
        }
        for axis in Axis::ALL {
            if let Some(words) = self.axes.clone().of(axis) {
                let words: Vec<String> = words.iter().map(Word::text).collect();
                builder.axis(axis, axis.key(), &words, None)?;
            }
        }
        builder.finish()
    }
}

/// A sweep in the making.
struct Builder {
    sweep: Sweep,
    control: Option<Control>,
}

impl Builder {
    /// A table of the paper. Of several, what the network cannot have is left out and named.
    fn table(&mut self, table: paper::PaperTable, lenient: bool) -> Result<()> {
        let axis = Axis::ALL.into_iter().find(|axis| axis.key() == table.axis).expect("tables name axes");
        let base = self.sweep.base.clone();
        let mut words = Vec::new();
        for word in table.words {
            match axis.variant(word, &base) {
                Err(error) if lenient => {
                    self.sweep.left_out.push(format!("Table {}: `{word}`: {error:#}", table.number));
                }
                Err(error) => return Err(error),
                Ok(_) => words.push((*word).to_string()),
            }
        }
        // A table with nothing but the base in it compares nothing.
        let compares = words.iter().any(|word| !axis.variant(word, &base).is_ok_and(|(_, row)| row == base));
        if compares { self.axis(axis, table.key, &words, Some(table.number)) } else { Ok(()) }
    }

    /// A comparison of these values, in this order; the base and the network without SE are added.
    fn axis(&mut self, axis: Axis, key: &str, words: &[String], table: Option<u32>) -> Result<()> {
        let flag = axis.key();
        let words = match words {
            [] => {
                let example = axis.words().last().copied().unwrap_or("4,8,16,32");
                return Err(usage(format!("`--{flag}` is empty"))
                    .hint(format!("for example `--{flag} {example}`"))
                    .into());
            }
            [all] if all == "all" && axis != Axis::Stages && axis != Axis::Ratios => self.possible(axis),
            words => words.to_vec(),
        };
        let base = self.sweep.base.clone();
        let mut entries: Vec<Entry> = Vec::new();
        for word in &words {
            let (label, experiment) = axis.variant(word, &base)?;
            let row = self.row(&label, &experiment);
            if entries.iter().any(|entry| entry.row == row) {
                return Err(usage(format!("`--{flag}` holds {word} twice")).into());
            }
            // The paper varied one thing at a time, from r = 16.
            let paper = paper::of(flag, word);
            entries.push(Entry::new(label, row, paper));
        }
        if axis != Axis::Ratios {
            let row = self.row(SE, &base);
            if entries.iter().all(|entry| entry.row != row) {
                entries.push(Entry::new(SE, row, Some(paper::SE)));
            }
        }
        let without = Experiment { model: base.model.without_se(), ..base.clone() };
        let none = self.row(NO_SE, &without);
        if entries.iter().all(|entry| entry.row != none) {
            entries.push(Entry::new(NO_SE, none.clone(), Some(paper::WITHOUT_SE)));
        }
        let is_none = match self.control {
            Some(control) => control == Control::None,
            None => axis.is_measured_from_none(),
        };
        let control = if is_none { none } else { self.row(SE, &base) };
        if entries.iter().all(|entry| entry.row != control) {
            entries.push(Entry::new(SE, control.clone(), Some(paper::SE)));
        }
        let comparison = Comparison {
            key: key.to_string(),
            title: axis.title().to_string(),
            paper_table: table,
            note: axis.note(table).map(str::to_string),
            control,
            entries,
        };
        self.sweep.add(comparison);
        Ok(())
    }

    /// All values of `axis` that the network can have; the others are named as left out.
    fn possible(&mut self, axis: Axis) -> Vec<String> {
        let mut possible = Vec::new();
        for word in axis.words() {
            match axis.variant(word, &self.sweep.base) {
                Ok(_) => possible.push((*word).to_string()),
                Err(error) => self.sweep.left_out.push(format!("--{} {word}: {error:#}", axis.key())),
            }
        }
        possible
    }

    /// The key of the row of `experiment`, which is added where it is new.
    fn row(&mut self, label: &str, experiment: &Experiment) -> String {
        let key = key_of(&experiment.model.se, &self.sweep.base.model.se, experiment.model.name.as_str())
            .unwrap_or_else(|| "no-SE".to_string());
        if self.sweep.rows.iter().all(|row| row.key != key) {
            let row = Row { label: label.to_string(), key: key.clone(), experiment: experiment.clone() };
            self.sweep.rows.push(row);
        }
        key
    }

    fn finish(self) -> Result<Sweep> {
        if self.sweep.comparisons.is_empty() {
            let hint = "for example `senet ablate --ratios 4,8,16,32`, `--variants all` or `--table 10`";
            return Err(usage("nothing to compare").hint(hint).into());
        }
        Ok(self.sweep)
    }
}

/// The folder's name of the network with these SE blocks: what differs from `base`, or its ratio. `None` without SE.
fn key_of(se: &SeSpec, base: &SeSpec, model: &str) -> Option<String> {
    let (_, has_se) = models::find(model).ok()?;
    if !has_se {
        return None;
    }
    let fields = |se: &SeSpec| -> [(&str, Value); 5] {
        [
            ("structure", json!(se.structure)),
            ("squeeze", json!(se.squeeze)),
            ("gate", json!(se.gate)),
            ("placement", json!(se.placement)),
            ("stages", json!(se.stages)),
        ]
    };
    let differing = fields(se).into_iter().zip(fields(base)).filter(|(a, b)| a != b);
    let mut parts: Vec<String> = differing
        .map(|((name, value), _)| match value {
            Value::String(word) if name == "structure" => word,
            Value::String(word) => format!("{name}-{word}"),
            Value::Array(stages) => {
                let list: Vec<_> = stages.iter().map(Value::to_string).collect();
                format!("stages-{}", list.join("-"))
            }
            _ => format!("{name}-all"),
        })
        .collect();
    if se.reduction != base.reduction || parts.is_empty() {
        parts.insert(0, format!("r-{}", se.reduction));
    }
    Some(parts.join("-"))
}

impl Sweep {
    /// Adds a comparison; one of the same key takes in its rows instead.
    fn add(&mut self, comparison: Comparison) {
        let Some(old) = self.comparisons.iter_mut().find(|old| old.key == comparison.key) else {
            self.comparisons.push(comparison);
            return;
        };
        for entry in comparison.entries {
            if old.entries.iter().all(|known| known.row != entry.row) {
                old.entries.push(entry);
            }
        }
        old.paper_table = old.paper_table.or(comparison.paper_table);
    }

    /// Adds the rows, comparisons and seeds of an earlier sweep of the same base that this one lacks.
    pub fn take_in(&mut self, earlier: Self) {
        for row in earlier.rows {
            if self.rows.iter().all(|known| known.key != row.key) {
                self.rows.push(row);
            }
        }
        earlier.comparisons.into_iter().for_each(|comparison| self.add(comparison));
        let new = earlier.seeds.into_iter().filter(|seed| !self.seeds.contains(seed));
        let new: Vec<_> = new.collect();
        self.seeds.extend(new);
    }

    /// The runs in the order in which they are trained: seed by seed, so that a first whole table is there early, and
    /// within a seed the rows that others are measured from first.
    pub fn order(&self) -> Vec<(&Row, u64)> {
        let is_control = |row: &Row| self.comparisons.iter().any(|comparison| comparison.control == row.key);
        let (controls, others): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|row| is_control(row));
        let rows: Vec<&Row> = controls.into_iter().chain(others).collect();
        self.seeds.iter().flat_map(|seed| rows.iter().map(|row| (*row, *seed))).collect()
    }

    /// What is compared, in a few words.
    pub fn title(&self) -> String {
        let titles: Vec<_> = self.comparisons.iter().map(|comparison| comparison.title.as_str()).collect();
        titles.join(", ")
    }
}

impl Row {
    /// The run with this seed.
    pub fn of_seed(&self, seed: u64) -> Experiment {
        Experiment { seed, ..self.experiment.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Seeds;
    use super::*;

    fn request(axes: &Value) -> Request {
        Request { axes: serde_json::from_value(axes.clone()).unwrap(), ..Request::default() }
    }

    fn expand(axes: &Value) -> Result<Sweep> {
        request(axes).expand(&Experiment::default())
    }

    #[test]
    fn rows_differ_in_their_ratio_alone() {
        let sweep = expand(&json!({"ratios": [4, 16]})).unwrap();
        let labels: Vec<_> = sweep.rows.iter().map(|row| (row.label.as_str(), row.key.as_str())).collect();
        assert_eq!(labels, [("r = 4", "r-4"), ("r = 16", "r-16"), ("no SE", "no-SE")]);
        assert_eq!(sweep.rows[0].experiment.model.se.reduction, 4);
        assert_eq!(sweep.rows[2].experiment.model.name, "resnet-20");
        assert_eq!(sweep.rows[1].experiment.optim, sweep.rows[2].experiment.optim);
    }

    #[test]
    fn comparisons_share_their_rows() {
        let all =
            json!({"ratios": [16], "variants": ["gap-scale"], "squeeze": ["max", "none"], "stages": ["2+3"]});
        let sweep = expand(&all).unwrap();
        let keys: Vec<_> = sweep.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["r-16", "no-SE", "gap-scale", "squeeze-max", "squeeze-none", "stages-2-3"]);
        let controls: Vec<_> = sweep.comparisons.iter().map(|one| one.control.as_str()).collect();
        assert_eq!(controls, ["no-SE", "r-16", "r-16", "no-SE"]);
        let base = |one: &Comparison| one.entries.iter().any(|entry| entry.row == "r-16");
        assert!(sweep.comparisons.iter().all(base));
    }

    #[test]
    fn a_first_table_comes_early_and_controls_come_first() {
        let two = Request { seeds: Some(Seeds::Count(2)), ..request(&json!({"ratios": [4, 16]})) };
        let sweep = two.expand(&Experiment { seed: 7, ..Experiment::default() }).unwrap();
        let order: Vec<_> = sweep.order().iter().map(|(row, seed)| (row.key.as_str(), *seed)).collect();
        let first = [("no-SE", 7), ("r-4", 7), ("r-16", 7)];
        let second = first.map(|(key, _)| (key, 8));
        assert_eq!(order, [first, second].concat());
    }

    #[test]
    fn all_tables_leave_out_what_the_network_cannot_have() {
        let numbers = paper::TABLES.map(|table| table.number).to_vec();
        let sweep = Request { tables: numbers, ..Request::default() }.expand(&Experiment::default()).unwrap();
        let keys: Vec<_> = sweep.comparisons.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["ratios", "squeeze", "gate", "stages", "placement", "no-squeeze"]);
        assert!(sweep.left_out.len() == 1 && sweep.left_out[0].contains("inside"), "{:?}", sweep.left_out);
    }

    #[test]
    fn an_earlier_sweep_is_taken_in() {
        let mut sweep = expand(&json!({"ratios": [4]})).unwrap();
        sweep.take_in(expand(&json!({"ratios": [8], "gate": ["relu"]})).unwrap());
        let keys: Vec<_> = sweep.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["r-4", "no-SE", "r-8", "gate-relu", "r-16"]);
        assert_eq!(sweep.comparisons.len(), 2);
        assert_eq!(sweep.comparisons[0].entries.len(), 3);
    }

    #[test]
    fn impossible_values_are_refused() {
        let message = |axes: Value| format!("{:#}", expand(&axes).unwrap_err());
        assert!(message(json!({"ratios": [4, 0]})).contains("holds 0"));
        assert!(message(json!({"ratios": [4, 4]})).contains("4 twice"));
        assert!(message(json!({"ratios": []})).contains("empty"));
        assert!(message(json!({})).contains("nothing to compare"));
        assert!(message(json!({"stages": [5]})).contains("some of 2, 3, 4"));
        assert!(message(json!({"stages": ["2-3"]})).contains("joined by `+`"));
        assert!(message(json!({"placement": ["inside"]})).contains("no bottlenecks"));
        assert!(message(json!({"gate": ["sigmoyd"]})).contains("`sigmoyd`"));
    }
}
