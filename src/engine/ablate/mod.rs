//! A comparison: every row is trained once with every seed. Finished runs are kept, interrupted ones go on, failed
//! ones are reported and leave the others alone.
//!
//! Several processes can work on one folder: each takes the next run that nobody holds (a lock on a file beside the
//! run's folder), so side by side is the same command, more than once.

mod basis;
mod speed;

pub use speed::measure_speed;

use super::bench;
use super::setup::{OpenData, Setup};
use super::train::{self, Summary};
use super::{Context, StopFlag};
use crate::error::{Kind, Result, problem, usage};
use crate::experiment::Experiment;
use crate::experiment::sweep::{Row, Sweep};
use crate::metrics::median;
use crate::report::comparison::{Measured, Results, State};
use crate::report::event::{Evaluation, Observer};
use crate::run::{LabDir, LogSpec, Provenance, RunDir, RunLock, location};
use basis::Basis;
use serde::{Deserialize, Serialize};
use speed::{Speed, Speeds};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All runs are done, or have failed.
    Finished(Results),
    /// It was asked to stop; these runs are done.
    Interrupted(Results),
}

/// What happens to a run of the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowEvent<'a> {
    /// It begins or goes on.
    Begins,
    /// It was done before.
    Kept,
    /// Its row is timed; the numbers are those of the round.
    Timed,
    /// It is done.
    Done(&'a Evaluation),
    /// It failed.
    Failed(&'a str),
}

/// Someone who wants to know about the rows, and about the run of each.
pub trait RowObserver: Observer {
    /// Something happened to run `number` of `of`.
    fn row(&mut self, number: usize, of: usize, label: &str, event: RowEvent<'_>);
}

/// Time between two looks at what other processes do.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the rows cost, without training anything, and about how long all of it would take on this machine.
///
/// # Errors
/// When the data cannot be opened: its channels and classes decide the counts.
pub fn plan(sweep: &Sweep) -> Result<Results> {
    let basis = Basis::of_plan(&sweep.base)?;
    let mut results = basis.results(sweep)?;
    let (input, classes) = (basis.input(), basis.classes);
    let macs_per_second = bench::training_rate(&sweep.base, input, classes)?;
    for row in &mut results.rows {
        // A backward pass costs twice a forward pass.
        let macs_of_a_run = row.macs as f64 * (3.0 * basis.trained_samples + basis.evaluated_samples);
        row.estimated_seconds = Some(sweep.seeds.len() as f64 * macs_of_a_run / macs_per_second);
    }
    Ok(results)
}

/// What a folder compares: everything that any command has compared there.
#[derive(Debug, Serialize, Deserialize)]
struct Notebook {
    sweep: Sweep,
    basis: Basis,
}

/// Trains all runs of `sweep` below `dir` that are not done, and keeps the tables there: JSON, Markdown, CSV and a page.
/// The results are those of `sweep`; the files hold everything that was ever compared in `dir`.
///
/// # Errors
/// When the data does not fit, or the folder holds another comparison. A run that fails is no error of the comparison.
pub fn run(sweep: &Sweep, dir: &Path, observer: &mut dyn RowObserver, stop: &StopFlag) -> Result<Outcome> {
    // Before the first hour is spent, every row must be possible.
    let mut data = OpenData::default();
    for row in &sweep.rows {
        Setup::for_training_on(row.experiment.clone(), &mut data)?;
    }
    let lab = Lab::open(sweep, dir, &mut data)?;
    let order = sweep.order();
    let (started, mut open_runs) = (SystemTime::now(), (0..order.len()).collect::<Vec<_>>());
    while !open_runs.is_empty() {
        let mut elsewhere = Vec::new();
        for at in open_runs {
            let (row, seed) = order[at];
            let run =
                OneRun { row, seed, number: at + 1, of: order.len(), label: labelled(row, seed, sweep) };
            match attend(&lab, &run, started, &mut data, observer, stop)? {
                Attended::Kept => {}
                Attended::Settled => lab.save()?,
                Attended::Elsewhere => elsewhere.push(at),
                Attended::Interrupted => return Ok(Outcome::Interrupted(lab.results(sweep)?)),
            }
        }
        open_runs = elsewhere;
        if !open_runs.is_empty() {
            thread::sleep(LOOK_EVERY);
        }
    }
    lab.save()?;
    Ok(Outcome::Finished(lab.results(sweep)?))
}

/// A run among those of the comparison.
struct OneRun<'a> {
    row: &'a Row,
    seed: u64,
    number: usize,
    of: usize,
    label: String,
}

impl OneRun<'_> {
    fn tell(&self, observer: &mut dyn RowObserver, event: RowEvent<'_>) {
        observer.row(self.number, self.of, &self.label, event);
    }
}

/// What became of a run for now.
enum Attended {
    /// It was done before.
    Kept,
    /// It is done now, or has failed.
    Settled,
    /// Another process has it.
    Elsewhere,
    /// It was asked to stop and has saved itself.
    Interrupted,
}

/// Keeps a run that is done, leaves one that another process has, and trains the rest.
fn attend(
    lab: &Lab,
    run: &OneRun<'_>,
    started: SystemTime,
    data: &mut OpenData,
    observer: &mut dyn RowObserver,
    stop: &StopFlag,
) -> Result<Attended> {
    let (row, seed, dir) = (run.row, run.seed, &lab.dir);
    let kept = |observer: &mut dyn RowObserver| {
        run.tell(observer, RowEvent::Kept);
        Ok(Attended::Kept)
    };
    if lab.measured(row, seed)?.is_some() {
        return kept(observer);
    }
    if stop.is_set() {
        return Ok(Attended::Interrupted);
    }
    let Some(_lock) = dir.lock(&row.key, seed)? else { return Ok(Attended::Elsewhere) };
    // It may have been finished just before the lock became free.
    if lab.measured(row, seed)?.is_some() {
        return kept(observer);
    }
    // What failed before this command is tried again; what failed beside it, in another process, is not.
    if let Some(message) = dir.failure(&row.key, seed, Some(started))? {
        run.tell(observer, RowEvent::Failed(&message));
        return Ok(Attended::Settled);
    }
    run.tell(observer, RowEvent::Begins);
    dir.clear_failure(&row.key, seed)?;
    match one(&row.of_seed(seed), &dir.run(&row.key, seed), data, observer, stop) {
        Ok(train::Outcome::Interrupted { .. }) => return Ok(Attended::Interrupted),
        Ok(train::Outcome::Finished(summary)) => run.tell(observer, RowEvent::Done(&summary.eval)),
        Err(error) if concerns_all(&error) => return Err(error),
        Err(error) => {
            let message = format!("{error:#}");
            dir.note_failure(&row.key, seed, &message)?;
            run.tell(observer, RowEvent::Failed(&message));
        }
    }
    Ok(Attended::Settled)
}

/// The tables of a comparison that was made before, from its records alone.
///
/// # Errors
/// When `dir` holds none, or a record is damaged.
pub fn report(dir: &Path) -> Result<Results> {
    let dir = LabDir::open(dir)?;
    let notebook: Notebook = dir.notebook()?;
    let lab = Lab { dir, notebook };
    lab.results(&lab.notebook.sweep)
}

/// A comparison with its folder.
struct Lab {
    dir: LabDir,
    notebook: Notebook,
}

impl Lab {
    /// The folder of `sweep`, made or found. What was compared there before stays part of its tables.
    fn open(sweep: &Sweep, path: &Path, data: &mut OpenData) -> Result<Self> {
        let mut notebook = Notebook { sweep: sweep.clone(), basis: Basis::of_run(&sweep.base, data)? };
        let dir = LabDir::create(path)?;
        let _lock = dir.lock_notebook()?;
        if dir.has_notebook() {
            let earlier: Notebook = dir.notebook()?;
            let base = |notebook: &Notebook| comparable(&notebook.sweep.base, notebook.sweep.base.seed);
            if base(&earlier) != comparable(&sweep.base, earlier.sweep.base.seed) {
                return Err(another(path).into());
            }
            notebook.sweep.take_in(earlier.sweep);
        }
        dir.write_notebook(&notebook)?;
        Ok(Self { dir, notebook })
    }

    /// What a run came to, if it is done.
    fn measured(&self, row: &Row, seed: u64) -> Result<Option<Measured>> {
        let path = self.dir.run(&row.key, seed);
        if !path.exists() {
            return Ok(None);
        }
        let run = RunDir::open(&path)?;
        let Some(summary) = run.result::<Summary>()? else { return Ok(None) };
        let found = run.experiment()?;
        if found.model != row.experiment.model || found.seed != seed {
            return Err(another(&path).into());
        }
        Ok(Some(Measured {
            eval: summary.eval,
            seconds_per_epoch: summary.seconds_per_epoch,
            train_images_per_second: summary.train_images_per_second,
            eval_images_per_second: summary.eval_images_per_second,
        }))
    }

    /// The tables of `sweep` as far as they are known.
    fn results(&self, sweep: &Sweep) -> Result<Results> {
        let mut results = self.notebook.basis.results(sweep)?;
        for (result, row) in results.rows.iter_mut().zip(&sweep.rows) {
            for run in &mut result.runs {
                run.state = match self.measured(row, run.seed)? {
                    Some(measured) => State::Done(measured),
                    None => match self.dir.failure(&row.key, run.seed, None)? {
                        Some(message) => State::Failed { message },
                        None => State::Open,
                    },
                };
            }
        }
        results.settle();
        let speeds: Speeds = self.dir.speeds()?;
        for row in &mut results.rows {
            if let Some(Speed { train, eval }) = speeds.get(&row.key) {
                row.train_images_per_second = median(train.clone()).or(row.train_images_per_second);
                row.eval_images_per_second = median(eval.clone()).or(row.eval_images_per_second);
            }
        }
        results.speeds_are_in_turns = results.rows.iter().all(|row| speeds.contains_key(&row.key));
        Ok(results)
    }

    /// Writes the tables of everything that is compared in the folder.
    fn save(&self) -> Result<()> {
        // Other processes may have added to it since.
        let _lock = self.dir.lock_notebook()?;
        let lab = Self { dir: self.dir.clone(), notebook: self.dir.notebook()? };
        lab.dir.save(&lab.results(&lab.notebook.sweep)?)
    }
}

/// What two comparisons must have in common to share a folder: all but seeds, the place where they run, and what
/// they log.
fn comparable(base: &Experiment, seed: u64) -> Experiment {
    let data = location::absolute(&base.data);
    Experiment { seed, device: String::new(), threads: None, log: LogSpec::default(), data, ..base.clone() }
}

/// One run, made or found.
fn one(
    experiment: &Experiment,
    path: &Path,
    data: &mut OpenData,
    observer: &mut dyn RowObserver,
    stop: &StopFlag,
) -> Result<train::Outcome> {
    let setup = Setup::for_training_on(experiment.clone(), data)?;
    let (run, _lock) = open_run(&setup, path)?;
    run.note_start(&Provenance::here(setup.device, 1))?;
    let resume = run.has_checkpoint();
    train::run(&setup, resume, &mut Context::new(&run, observer, stop))
}

/// The run's folder, made or found.
fn open_run(setup: &Setup, path: &Path) -> Result<(RunDir, RunLock)> {
    if RunDir::is_vacant(path) {
        return RunDir::create(path, &setup.experiment);
    }
    let run = RunDir::open(path)?;
    let (found, wanted) = (run.experiment()?, &setup.experiment);
    if comparable(&found, found.seed) != comparable(wanted, wanted.seed) {
        return Err(another(path).into());
    }
    let lock = run.lock()?;
    Ok((run, lock))
}

fn another(path: &Path) -> crate::error::Problem {
    usage(format!("{} belongs to another comparison", path.display()))
        .hint("choose another `--out`, or repeat the settings it was made with")
}

/// Whether an error would meet every run alike: wrong settings, and a folder that cannot be written.
fn concerns_all(error: &anyhow::Error) -> bool {
    let is_usage = problem(error).is_some_and(|problem| problem.kind == Kind::Usage);
    is_usage || error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some())
}

/// A run among others, as people call it.
fn labelled(row: &Row, seed: u64, sweep: &Sweep) -> String {
    if sweep.seeds.len() == 1 { row.label.clone() } else { format!("{}, seed {seed}", row.label) }
}
