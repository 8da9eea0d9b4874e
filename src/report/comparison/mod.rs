//! What a comparison of networks came to, as values: means over seeds, and paired differences from a control.
//! `text` lays them out for terminals, documents and spreadsheets; [`page`](crate::report::page) draws them.

mod text;

use crate::metrics::median;
use crate::report::event::Evaluation;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::event::Accuracy;

    fn measured(correct: u64) -> State {
        let accuracy = Accuracy { correct, accuracy: correct as f64 / 1000.0 };
        let eval = Evaluation { seen: 1000, skipped: 0, top1: accuracy, top5: accuracy, loss: 1.0 };
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
}
