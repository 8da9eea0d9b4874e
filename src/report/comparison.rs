//! What a comparison of networks came to, as values: means over seeds, and paired differences from a control.
//! [`Results::table`] lays them out; [`page`](super::page) draws them.

use super::event::Evaluation;
use super::table::{Table, grouped, percent};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::fmt;

/// A whole comparison, finished or not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// What is compared, such as `reduction ratio`.
    pub title: String,
    /// The network that is varied.
    pub model: String,
    /// Data, size and recipe in words, such as `data/fashion-mnist, 1 × 28 × 28, 10 classes`.
    pub setting: Vec<String>,
    /// Seeds; each network is trained once with each.
    pub seeds: Vec<u64>,
    /// Each network once, in the order in which the comparisons name it.
    pub rows: Vec<RowResult>,
    /// Which of them are set side by side.
    pub comparisons: Vec<Comparison>,
    /// What was asked for by `all` and cannot be had from this network, and why.
    pub left_out: Vec<String>,
    /// Whether all rows were timed in turns, or speeds are those of the runs, whenever they were.
    pub speeds_are_in_turns: bool,
}

/// One network under one recipe; what is not known yet is `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RowResult {
    /// What the row is called, in the first comparison that has it.
    pub label: String,
    /// Its folder below `rows/`; unique.
    pub key: String,
    /// The network.
    pub model: String,
    /// Reduction ratio; `null` without SE.
    pub reduction: Option<i64>,
    /// Mean fraction of evaluation images that are wrong at the first guess.
    pub top1_error: Option<f64>,
    /// Standard deviation of the same over seeds; `null` with fewer than two.
    pub top1_deviation: Option<f64>,
    /// Mean fraction of evaluation images that are wrong after five guesses.
    pub top5_error: Option<f64>,
    /// Standard deviation of the same over seeds.
    pub top5_deviation: Option<f64>,
    /// Trainable parameters.
    pub params: i64,
    /// Multiply-adds for one sample.
    pub macs: i64,
    /// Median seconds of training an epoch, without evaluation.
    pub seconds_per_epoch: Option<f64>,
    /// Median training speed.
    pub train_images_per_second: Option<f64>,
    /// Median evaluation speed.
    pub eval_images_per_second: Option<f64>,
    /// Evaluation images.
    pub seen: Option<u64>,
    /// Rough seconds that all runs of this row would take from the start; of a dry run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_seconds: Option<f64>,
    /// One for each seed, in the order of the seeds.
    pub runs: Vec<Run>,
}

/// One run of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// How far it is.
    #[serde(flatten)]
    pub state: State,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Not finished.
    Open,
    /// Ended by an error; the same command tries again.
    Failed {
        /// What went wrong.
        message: String,
    },
    /// Done.
    Done(Measured),
}

/// What a finished run measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// After the last step.
    pub eval: Evaluation,
    /// Seconds of training an epoch, without evaluation.
    pub seconds_per_epoch: f64,
    /// Training speed.
    pub train_images_per_second: Option<f64>,
    /// Evaluation speed.
    pub eval_images_per_second: Option<f64>,
}

/// The paper's figures for one variant of SE-ResNet-50 on ImageNet, single crop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PaperFigures {
    /// Fraction wrong at the first guess.
    pub top1_error: f64,
    /// Fraction wrong after five guesses.
    pub top5_error: f64,
    /// Parameters in millions, as printed.
    pub params_millions: Option<f64>,
    /// Multiply-adds in thousands of millions, as printed ("GFLOPs").
    pub giga_macs: Option<f64>,
}

/// Rows side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Short name, such as `ratios`.
    pub key: String,
    /// What differs between its rows.
    pub title: String,
    /// The paper's table that has the same comparison.
    pub paper_table: Option<u32>,
    /// What a reader must know about its figures.
    pub note: Option<String>,
    /// Key of the row that all others are measured from.
    pub control: String,
    /// Its rows, the control among them.
    pub entries: Vec<Entry>,
}

/// A row within a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called here.
    pub label: String,
    /// Which row it is.
    pub row: String,
    /// What the paper has for the same variant of SE-ResNet-50, on ImageNet.
    pub paper: Option<PaperFigures>,
    /// Top-1 error minus the control's, over the seeds that both have; `null` for the control itself.
    pub top1_difference: Option<Difference>,
    /// The same for top-5.
    pub top5_difference: Option<Difference>,
}

/// Mean of paired differences, with the 95 % interval of Student's t.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of pairs: seeds that both rows have finished.
    pub pairs: usize,
    /// Their mean, as a fraction of 1; negative is better than the control.
    pub mean: f64,
    /// Half the width of the interval; `null` with fewer than two pairs.
    pub half_width: Option<f64>,
    /// Whether the interval excludes 0; `null` with fewer than two pairs.
    pub is_distinguishable: Option<bool>,
}

impl Entry {
    /// Not measured yet.
    pub fn new(label: impl Into<String>, row: String, paper: Option<PaperFigures>) -> Self {
        Self { label: label.into(), row, paper, top1_difference: None, top5_difference: None }
    }
}

/// Mean of some figures.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation, of at least two figures.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

impl Difference {
    /// Of pairs `(variant, control)` with the same seed; `None` without pairs.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let differences: Vec<f64> = pairs.iter().map(|(variant, control)| variant - control).collect();
        let mean = mean(&differences)?;
        let half_width = deviation(&differences).map(|deviation| {
            let freedom = (pairs.len() - 1) as f64;
            let t = StudentsT::new(0.0, 1.0, freedom).expect("a freedom of at least 1").inverse_cdf(0.975);
            t * deviation / (pairs.len() as f64).sqrt()
        });
        let is_distinguishable = half_width.map(|half_width| mean.abs() > half_width);
        Some(Self { pairs: pairs.len(), mean, half_width, is_distinguishable })
    }
}

impl RowResult {
    /// The runs that are done, with their seeds.
    pub fn done(&self) -> impl Iterator<Item = (u64, &Measured)> {
        self.runs.iter().filter_map(|run| match &run.state {
            State::Done(measured) => Some((run.seed, measured)),
            _ => None,
        })
    }

    /// The first failure, if a run failed.
    pub fn failure(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| match &run.state {
            State::Failed { message } => Some(message.as_str()),
            _ => None,
        })
    }

    /// Fills in what follows from the runs.
    pub fn settle(&mut self) {
        let of = |figure: fn(&Measured) -> f64| -> Vec<f64> {
            self.done().map(|(_, measured)| figure(measured)).collect()
        };
        let (top1, top5) = (of(|run| 1.0 - run.eval.top1.accuracy), of(|run| 1.0 - run.eval.top5.accuracy));
        let seconds = of(|run| run.seconds_per_epoch);
        let speed = |figure: fn(&Measured) -> Option<f64>| {
            median(self.done().filter_map(|(_, measured)| figure(measured)).collect())
        };
        let (train, eval) =
            (speed(|run| run.train_images_per_second), speed(|run| run.eval_images_per_second));
        let seen = self.done().map(|(_, measured)| measured.eval.seen).next();
        self.seen = seen;
        (self.top1_error, self.top1_deviation) = (mean(&top1), deviation(&top1));
        (self.top5_error, self.top5_deviation) = (mean(&top5), deviation(&top5));
        self.seconds_per_epoch = median(seconds);
        (self.train_images_per_second, self.eval_images_per_second) = (train, eval);
    }

    /// Pairs of a figure of this row and of `control`, for the seeds that both have.
    fn paired(&self, control: &Self, figure: fn(&Evaluation) -> f64) -> Vec<(f64, f64)> {
        let of_control = |seed: u64| control.done().find(|(other, _)| *other == seed);
        self.done()
            .filter_map(|(seed, measured)| {
                let (_, other) = of_control(seed)?;
                Some((figure(&measured.eval), figure(&other.eval)))
            })
            .collect()
    }
}

/// The middle one, if there is any.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let last = figures.len().checked_sub(1)?;
    Some((figures[last / 2] + figures[last.div_ceil(2)]) / 2.0)
}

impl Results {
    /// Fills in everything that follows from the runs.
    pub fn settle(&mut self) {
        self.rows.iter_mut().for_each(RowResult::settle);
        let Self { rows, comparisons, .. } = self;
        let find = |key: &str| rows.iter().find(|row| row.key == key).expect("a comparison names rows");
        for comparison in comparisons {
            let control = find(&comparison.control);
            for entry in comparison.entries.iter_mut().filter(|entry| entry.row != comparison.control) {
                let row = find(&entry.row);
                let top1 = row.paired(control, |eval| 1.0 - eval.top1.accuracy);
                let top5 = row.paired(control, |eval| 1.0 - eval.top5.accuracy);
                (entry.top1_difference, entry.top5_difference) =
                    (Difference::of(&top1), Difference::of(&top5));
            }
        }
    }

    /// The row of this key.
    pub fn row(&self, key: &str) -> Option<&RowResult> {
        self.rows.iter().find(|row| row.key == key)
    }

    /// The runs that ended with an error: label, seed and message.
    pub fn failures(&self) -> Vec<(&str, u64, &str)> {
        self.rows
            .iter()
            .flat_map(|row| {
                row.runs.iter().filter_map(|run| match &run.state {
                    State::Failed { message } => Some((row.label.as_str(), run.seed, message.as_str())),
                    _ => None,
                })
            })
            .collect()
    }
}

/// A column of a table: its heading, and a cell for each row that has one.
type Column = (String, Vec<Option<String>>);

impl Results {
    /// One comparison as a table. Columns of which nothing is known are left out.
    pub fn table(&self, comparison: &Comparison) -> Table {
        let entries = &comparison.entries;
        let rows: Vec<&RowResult> = entries.iter().filter_map(|entry| self.row(&entry.row)).collect();
        let of_row = |heading: &str, cell: fn(&RowResult) -> Option<String>| -> Column {
            (heading.to_string(), rows.iter().map(|row| cell(row)).collect())
        };
        let of_entry = |heading: String, cell: fn(&Entry) -> Option<String>| -> Column {
            (heading, entries.iter().map(cell).collect())
        };
        let control = entries.iter().find(|entry| entry.row == comparison.control);
        let control = control.map_or("control", |entry| entry.label.as_str());
        let columns = [
            (String::new(), entries.iter().map(|entry| Some(entry.label.clone())).collect()),
            of_row("top-1 error", |row| {
                row.failure().map(|_| "failed".to_string()).or(row.error(RowResult::top1))
            }),
            of_row("top-5 error", |row| row.error(RowResult::top5)),
            of_entry(format!("top-1 − {control}"), |entry| Some(entry.top1_difference?.to_string())),
            of_row("parameters", |row| Some(grouped(row.params))),
            of_row("multiply-adds", |row| Some(grouped(row.macs))),
            of_row("img/s train / eval", |row| {
                let (train, eval) = (row.train_images_per_second, row.eval_images_per_second);
                pair(train.map(|speed| format!("{speed:.0}")), eval.map(|speed| format!("{speed:.0}")))
            }),
            of_row("about", |row| Some(rough(row.estimated_seconds?))),
            of_entry("paper: top-1 / 5, %".to_string(), |entry| {
                let PaperFigures { top1_error, top5_error, .. } = entry.paper?;
                Some(format!("{:.2} / {:.2}", 100.0 * top1_error, 100.0 * top5_error))
            }),
            of_entry("paper: parameters / MACs".to_string(), |entry| {
                let PaperFigures { params_millions, giga_macs, .. } = entry.paper?;
                pair(
                    params_millions.map(|params| format!("{params:.1} M")),
                    giga_macs.map(|macs| format!("{macs:.2} G")),
                )
            }),
        ];
        Table::of_columns(columns.into_iter().filter(|(_, cells)| cells.iter().any(Option::is_some)))
    }

    /// For a terminal: a table for each comparison, with what must be known about it.
    pub fn text(&self) -> String {
        let part = |comparison: &Comparison| {
            let note = comparison.note.as_ref().map_or(String::new(), |note| format!("\n{note}"));
            format!("{}\n{}{note}", comparison.heading(), self.table(comparison).text())
        };
        let mut parts = vec![self.setting.join("\n")];
        parts.extend(self.comparisons.iter().map(part));
        parts.extend(self.remarks());
        parts.join("\n\n")
    }

    /// The same for a document.
    pub fn markdown(&self) -> String {
        let mut parts = vec![format!("# {}: {}", self.model, self.title), self.setting.join("\n\n")];
        for comparison in &self.comparisons {
            parts.push(format!("## {}", comparison.heading()));
            parts.push(self.table(comparison).markdown().trim_end().to_string());
            parts.extend(comparison.note.clone());
        }
        parts.extend(self.remarks());
        parts.join("\n\n") + "\n"
    }

    /// Data, recipe, seeds, and how the figures are to be read, for a document.
    pub fn setting_markdown(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(u64::to_string).collect();
        let done: usize = self.rows.iter().map(|row| row.done().count()).sum();
        let mut lines = self.setting.clone();
        lines.push(format!("seeds {}; {done} runs", seeds.join(", ")));
        lines.extend(self.remarks());
        lines.iter().map(|line| format!("* {line}")).collect::<Vec<_>>().join("\n")
    }

    /// A line for each run of each comparison, for a spreadsheet or a data frame. Errors are fractions of 1.
    pub fn csv(&self) -> String {
        let mut lines = vec![
            "comparison,label,row,model,reduction,seed,state,top1_error,top5_error,params,macs,train_images_per_second,\
             eval_images_per_second,paper_top1_error,paper_top5_error,paper_params_millions,paper_giga_macs"
                .to_string(),
        ];
        for comparison in &self.comparisons {
            for entry in &comparison.entries {
                let Some(row) = self.row(&entry.row) else { continue };
                for run in &row.runs {
                    let (state, done) = match &run.state {
                        State::Done(measured) => ("done", Some(measured)),
                        State::Failed { .. } => ("failed", None),
                        State::Open => ("open", None),
                    };
                    let paper = entry.paper;
                    let figures = [
                        done.map(|run| 1.0 - run.eval.top1.accuracy),
                        done.map(|run| 1.0 - run.eval.top5.accuracy),
                        Some(row.params as f64),
                        Some(row.macs as f64),
                        done.and_then(|run| run.train_images_per_second),
                        done.and_then(|run| run.eval_images_per_second),
                        paper.map(|paper| paper.top1_error),
                        paper.map(|paper| paper.top5_error),
                        paper.and_then(|paper| paper.params_millions),
                        paper.and_then(|paper| paper.giga_macs),
                    ];
                    let mut cells = [&comparison.key, &entry.label, &row.key, &row.model]
                        .map(|text| quoted(text))
                        .to_vec();
                    cells.push(row.reduction.map_or(String::new(), |reduction| reduction.to_string()));
                    cells.extend([run.seed.to_string(), state.to_string()]);
                    cells.extend(
                        figures.map(|figure| figure.map_or(String::new(), |figure| figure.to_string())),
                    );
                    lines.push(cells.join(","));
                }
            }
        }
        lines.join("\n") + "\n"
    }

    /// What stands below the tables: how to read them, what failed, what was left out.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self
            .comparisons
            .iter()
            .any(|comparison| comparison.entries.iter().any(|entry| entry.paper.is_some()))
        {
            remarks.push("paper: SE-ResNet-50 on ImageNet, r = 16 unless varied, one crop".to_string());
        }
        let estimated: f64 = self.rows.iter().filter_map(|row| row.estimated_seconds).sum();
        if estimated > 0.0 {
            remarks.push(format!(
                "about {} for all, on this machine and as busy as it is now",
                rough(estimated)
            ));
        }
        if self.rows.iter().any(|row| row.top1_error.is_some()) {
            remarks.push(READING.to_string());
        }
        if self.speeds_are_in_turns {
            remarks.push("img/s: medians of steps on made-up images, all rows in turns".to_string());
        } else if self.rows.iter().any(|row| row.train_images_per_second.is_some()) {
            remarks.push(
                "img/s: medians of the runs, loading included, whatever else the machine did".to_string(),
            );
        }
        let failed = self.failures().into_iter();
        remarks
            .extend(failed.map(|(label, seed, message)| format!("failed: {label}, seed {seed}: {message}")));
        remarks.extend(self.left_out.iter().map(|what| format!("left out: {what}")));
        remarks
    }
}

/// How figures are to be read.
pub const READING: &str = "± is one standard deviation over seeds; of a difference, half the 95 % interval of the mean of \
                           pairs with equal seeds and data order (Student's t), and ≠ marks one that excludes 0: of \
                           twenty comparisons of equals, one does";

impl Comparison {
    /// What stands above its table.
    pub fn heading(&self) -> String {
        match self.paper_table {
            Some(number) => format!("{} (paper Table {number})", self.title),
            None => self.title.clone(),
        }
    }
}

impl RowResult {
    fn top1(&self) -> (Option<f64>, Option<f64>) {
        (self.top1_error, self.top1_deviation)
    }

    fn top5(&self) -> (Option<f64>, Option<f64>) {
        (self.top5_error, self.top5_deviation)
    }

    /// `9.10 ± 0.12 %`.
    fn error(&self, figure: fn(&Self) -> (Option<f64>, Option<f64>)) -> Option<String> {
        match figure(self) {
            (Some(mean), Some(deviation)) => {
                Some(format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * deviation))
            }
            (mean, _) => mean.map(percent),
        }
    }
}

impl fmt::Display for Difference {
    /// `+0.12 ± 0.30`, in percentage points, with a mark where it can be told from noise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.2}", 100.0 * self.mean)?;
        match (self.half_width, self.is_distinguishable) {
            (Some(half_width), Some(true)) => write!(f, " ± {:.2} ≠", 100.0 * half_width),
            (Some(half_width), _) => write!(f, " ± {:.2}  ", 100.0 * half_width),
            (None, _) => Ok(()),
        }
    }
}

/// Two figures in one cell, if one of them is known.
fn pair(one: Option<String>, other: Option<String>) -> Option<String> {
    let or_dash = |figure: &Option<String>| figure.clone().unwrap_or_else(|| "–".to_string());
    (one.is_some() || other.is_some()).then(|| format!("{} / {}", or_dash(&one), or_dash(&other)))
}

/// A rough length of time: `40 s`, `12 min`, `3.5 h`, `4 d`.
pub fn rough(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 48.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86400.0),
    }
}

/// A cell of a CSV file.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::Accuracy;

    fn measured(correct: u64) -> State {
        let accuracy = Accuracy { correct, accuracy: correct as f64 / 1000.0 };
        let eval = Evaluation { seen: 1000, top1: accuracy, top5: accuracy, loss: 1.0 };
        let speed = Some(100.0);
        State::Done(Measured {
            eval,
            seconds_per_epoch: 1.0,
            train_images_per_second: speed,
            eval_images_per_second: speed,
        })
    }

    fn row(key: &str, correct: [Option<u64>; 3]) -> RowResult {
        let runs = correct
            .iter()
            .zip(0..)
            .map(|(correct, seed)| Run { seed, state: correct.map_or(State::Open, measured) });
        RowResult {
            label: key.to_string(),
            key: key.to_string(),
            runs: runs.collect(),
            ..RowResult::default()
        }
    }

    fn results(rows: Vec<RowResult>) -> Results {
        let entry = |row: &RowResult| Entry::new(row.label.clone(), row.key.clone(), None);
        let comparison = Comparison {
            key: "ratios".to_string(),
            title: "reduction ratio".to_string(),
            paper_table: Some(10),
            note: None,
            control: rows[0].key.clone(),
            entries: rows.iter().map(entry).collect(),
        };
        let mut results = Results {
            title: String::new(),
            model: "se-resnet-20".to_string(),
            setting: vec![],
            seeds: vec![0, 1, 2],
            rows,
            comparisons: vec![comparison],
            left_out: vec![],
            speeds_are_in_turns: false,
        };
        results.settle();
        results
    }

    #[test]
    fn the_interval_is_students() {
        // Differences of 1, 2 and 3: mean 2, deviation 1, t of two degrees of freedom 4.3027 (R: qt(0.975, 2)).
        let difference = Difference::of(&[(2.0, 1.0), (4.0, 2.0), (6.0, 3.0)]).unwrap();
        assert_eq!((difference.pairs, difference.mean), (3, 2.0));
        assert!((difference.half_width.unwrap() - 4.302_653 / 3f64.sqrt()).abs() < 1e-6, "{difference:?}");
        assert_eq!(difference.is_distinguishable, Some(false));
        let one = Difference::of(&[(0.5, 0.25)]).unwrap();
        assert_eq!((one.mean, one.half_width, one.is_distinguishable), (0.25, None, None));
        assert!(Difference::of(&[]).is_none());
        let equal = Difference::of(&[(0.5, 0.25), (0.75, 0.5)]).unwrap();
        assert_eq!((equal.half_width, equal.is_distinguishable), (Some(0.0), Some(true)));
    }

    #[test]
    fn pairs_are_of_the_seeds_that_both_have() {
        let rows = vec![row("no-SE", [Some(900), Some(910), None]), row("r-4", [Some(920), None, Some(990)])];
        let results = results(rows);
        let difference = results.comparisons[0].entries[1].top1_difference.unwrap();
        assert_eq!(difference.pairs, 1);
        assert!((difference.mean + 0.02).abs() < 1e-12);
        assert!(results.comparisons[0].entries[0].top1_difference.is_none());
        assert!((results.rows[0].top1_error.unwrap() - 0.095).abs() < 1e-12);
        assert!((results.rows[0].top1_deviation.unwrap() - 0.01 / 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn columns_of_which_nothing_is_known_are_left_out() {
        let text = results(vec![row("no-SE", [None; 3])]).text();
        assert!(
            text.contains("parameters") && !text.contains("top-1 error") && !text.contains("paper:"),
            "{text}"
        );
        let text = results(vec![row("no-SE", [Some(900); 3])]).markdown();
        assert!(text.contains("10.00 ± 0.00 %"), "{text}");
    }

    #[test]
    fn csv_has_a_line_for_each_run() {
        let csv = results(vec![row("a,b", [Some(900), None, None])]).csv();
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("ratios,\"a,b\",\"a,b\",,,0,done,0.09999999999999998,"), "{}", lines[1]);
        let cells = |line: &str| line.replace("\"a,b\"", "a").split(',').count();
        assert!(lines.iter().all(|line| cells(line) == 17), "{csv}");
    }

    #[test]
    fn lengths_of_time_are_rough() {
        assert_eq!([40.0, 720.0, 12_600.0, 345_600.0].map(rough), ["40 s", "12 min", "3.5 h", "4 d"]);
    }
}
