//! A comparison: each row is a run; finished rows are kept, interrupted ones go on.

use super::setup::{self, Setup};
use super::train::{self, Summary};
use super::{Context, StopFlag};
use crate::error::{Result, usage};
use crate::experiment::sweep::{Row, Sweep};
use crate::report::event::Observer;
use crate::report::table::{Table, grouped, percent};
use crate::run::{Checkpoint, Provenance, RunDir, checkpoint};
use serde::Serialize;
use std::path::Path;

/// One row of the table; what is not known yet is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowResult {
    /// What the row is called.
    pub label: String,
    /// The network.
    pub model: String,
    /// Reduction ratio; `null` without SE.
    pub reduction: Option<i64>,
    /// Fraction of evaluation images that are wrong at the first guess.
    pub top1_error: Option<f64>,
    /// Fraction of evaluation images that are wrong after five guesses.
    pub top5_error: Option<f64>,
    /// Trainable parameters.
    pub params: i64,
    /// Multiply-adds for one sample.
    pub macs: i64,
    /// Seconds of training an epoch, without evaluation.
    pub seconds_per_epoch: Option<f64>,
    /// Evaluation images.
    pub seen: Option<u64>,
}

/// The table so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// What is compared.
    pub title: String,
    /// The rows, in the sweep's order.
    pub rows: Vec<RowResult>,
}

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All rows are done.
    Finished(Results),
    /// It was asked to stop; these rows are done.
    Interrupted(Results),
}

/// Someone who wants to know about rows, and about the run of each.
pub trait RowObserver: Observer {
    /// A row begins, goes on, or is found done.
    fn row(&mut self, number: usize, of: usize, label: &str, done: bool);
}

/// What the rows cost, without training anything.
///
/// # Errors
/// When the data cannot be opened: its channels and classes decide the counts.
pub fn plan(sweep: &Sweep) -> Result<Results> {
    let mut results = Results { title: sweep.title.clone(), rows: Vec::new() };
    let first = sweep.rows.first().expect("a sweep has rows");
    let base = Setup::for_training(first.experiment.clone())?;
    for row in &sweep.rows {
        let mut experiment = row.experiment.clone();
        experiment.data = base.experiment.data.clone();
        let (_, cost) = setup::describe(&experiment, base.train.channels(), base.train.classes().len())?;
        results.rows.push(row_result(row, cost.params.trainable, cost.macs, None));
    }
    Ok(results)
}

/// Trains all rows below `dir`, one after the other, and keeps the table there as JSON and Markdown.
///
/// # Errors
/// When a row fails, or the folder holds another comparison.
pub fn run(sweep: &Sweep, dir: &Path, observer: &mut dyn RowObserver, stop: &StopFlag) -> Result<Outcome> {
    let mut results = plan(sweep)?;
    for (at, row) in sweep.rows.iter().enumerate() {
        let folder = dir.join("rows").join(row.folder());
        let (setup, run) = open_row(row, &folder)?;
        let finished = run.result::<Summary>()?;
        observer.row(at + 1, sweep.rows.len(), &row.label, finished.is_some());
        let summary = match finished {
            Some(summary) => summary,
            None => {
                run.note_start(&Provenance::here(setup.device))?;
                let resume = checkpoint::exists(&run.checkpoint(Checkpoint::Last));
                let mut ctx = Context { run: &run, observer: &mut *observer, stop };
                match train::run(&setup, resume, &mut ctx)? {
                    train::Outcome::Finished(summary) => summary,
                    train::Outcome::Interrupted { .. } => return Ok(Outcome::Interrupted(results)),
                }
            }
        };
        results.rows[at] = row_result(row, summary.params, summary.macs, Some(&summary));
        save(&results, dir)?;
    }
    Ok(Outcome::Finished(results))
}

/// The row's run, made or found.
fn open_row(row: &Row, folder: &Path) -> Result<(Setup, RunDir)> {
    let setup = Setup::for_training(row.experiment.clone())?;
    if !folder.exists() {
        let run = RunDir::create(folder, &setup.experiment)?;
        return Ok((setup, run));
    }
    let run = RunDir::open(folder)?;
    if run.experiment()? != setup.experiment {
        let message = format!("{} holds a row of another comparison", folder.display());
        return Err(usage(message)
            .hint("choose another `--out`, or repeat the settings it was made with")
            .into());
    }
    Ok((setup, run))
}

fn row_result(row: &Row, params: i64, macs: i64, summary: Option<&Summary>) -> RowResult {
    let model = &row.experiment.model;
    RowResult {
        label: row.label.clone(),
        model: model.name.clone(),
        reduction: model.name.starts_with("se-").then_some(model.se.reduction),
        top1_error: summary.map(|summary| 1.0 - summary.eval.top1.accuracy),
        top5_error: summary.map(|summary| 1.0 - summary.eval.top5.accuracy),
        params,
        macs,
        seconds_per_epoch: summary.map(|summary| summary.seconds_per_epoch),
        seen: summary.map(|summary| summary.eval.seen),
    }
}

fn save(results: &Results, dir: &Path) -> Result<()> {
    crate::files::write_atomic(&dir.join("results.json"), &serde_json::to_vec_pretty(results)?)?;
    crate::files::write_atomic(&dir.join("results.md"), results.table().markdown().as_bytes())
}

impl Results {
    /// The table as people read it.
    pub fn table(&self) -> Table {
        let headings = ["", "top-1 error", "top-5 error", "parameters", "multiply-adds", "s / epoch"];
        let mut table = Table::new(headings);
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
        for row in &self.rows {
            table.row([
                row.label.clone(),
                or_dash(row.top1_error.map(percent)),
                or_dash(row.top5_error.map(percent)),
                grouped(row.params),
                grouped(row.macs),
                or_dash(row.seconds_per_epoch.map(|seconds| format!("{seconds:.1}"))),
            ]);
        }
        table
    }
}
