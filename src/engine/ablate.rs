//! A comparison: every row is trained once with every seed. Finished runs are kept, interrupted ones go on, failed
//! ones are reported and leave the others alone.
//!
//! Several processes can work on one folder: each takes the next run that nobody holds (a lock on a file beside the
//! run's folder), so side by side is the same command, more than once.

use super::bench;
use super::setup::{OpenData, Setup};
use super::train::{self, Summary};
use super::{Context, StopFlag};
use crate::error::{Kind, Result, problem, usage};
use crate::experiment::Experiment;
use crate::experiment::sweep::{Row, Sweep};
use crate::models;
use crate::net::cost::{Cost, Shape, cost};
use crate::report::comparison::{Measured, Results, RowResult, Run, State};
use crate::report::event::{Evaluation, Observer};
use crate::run::{Checkpoint, LabDir, Provenance, RunDir, checkpoint};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

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
    /// It is done.
    Done(&'a Evaluation),
    /// It failed.
    Failed(&'a str),
    /// All that is left is in the hands of other processes.
    Elsewhere,
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
    let basis = Basis::of(&sweep.base)?;
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

/// What a comparison has learned of its data: its counts rest on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Basis {
    channels: i64,
    size: i64,
    classes: i64,
    /// Samples that a run trains on, epochs taken together.
    trained_samples: f64,
    /// Samples that a run evaluates, epochs taken together.
    evaluated_samples: f64,
    /// Data and recipe in words.
    setting: Vec<String>,
}

/// What a folder compares: everything that any command has compared there.
#[derive(Debug, Serialize, Deserialize)]
struct Notebook {
    sweep: Sweep,
    basis: Basis,
}

/// Images of ImageNet-1k, for training and for evaluation.
const IMAGENET: [usize; 2] = [1_281_167, 50_000];

/// From this height on, a network was made for photographs.
const PHOTOGRAPH: i64 = 200;

impl Basis {
    /// The data of `base`; or, where none is named and the network was made for photographs, ImageNet.
    fn of(base: &Experiment) -> Result<Self> {
        let (entry, _) = models::find(&base.model.name)?;
        if base.data.is_unnamed() && entry.input.height >= PHOTOGRAPH {
            let name = &base.model.name;
            let data = format!(
                "counted for ImageNet, {}: no data is named, and {name} was made for it",
                entry.input
            );
            return Ok(Self::new(base, entry.input, entry.classes, IMAGENET, data));
        }
        let setup = Setup::for_training(base.clone())?;
        let data = &setup.experiment.data;
        let input = Shape::square(setup.train.channels() as i64, data.size.expect("resolved") as i64);
        let (samples, classes) = ([setup.train.len(), setup.eval.len()], setup.train.classes().len());
        let [train, eval] = samples;
        let words = format!(
            "{}: {train} training and {eval} evaluation images, {input}, {classes} classes",
            data.in_words()
        );
        Ok(Self::new(base, input, classes as i64, samples, words))
    }

    fn new(base: &Experiment, input: Shape, classes: i64, [train, eval]: [usize; 2], data: String) -> Self {
        let Experiment { train: spec, optim, model, .. } = base;
        let steps_per_epoch = train.div_ceil(spec.batch_size) as u64;
        let epochs = spec.duration.steps(steps_per_epoch, 0) as f64 / steps_per_epoch as f64;
        let biases = if model.se.bias { "with biases" } else { "without biases" };
        let recipe = format!(
            "{}, {} in batches of {}, peak learning rate {}; SE has r = {} {biases}, unless a row says otherwise",
            model.name, spec.duration, spec.batch_size, optim.lr, model.se.reduction
        );
        Self {
            channels: input.channels,
            size: input.height,
            classes,
            trained_samples: epochs * train as f64,
            evaluated_samples: epochs.ceil() * eval as f64,
            setting: vec![data, recipe],
        }
    }

    fn input(&self) -> Shape {
        Shape::square(self.channels, self.size)
    }

    /// The table of `sweep` with nothing but counts in it.
    fn results(&self, sweep: &Sweep) -> Result<Results> {
        let row = |row: &Row| -> Result<RowResult> {
            let node = row.experiment.model.describe(self.channels, self.classes)?;
            Ok(empty(sweep, row, &cost(&node, self.input())?))
        };
        Ok(Results {
            title: sweep.title(),
            model: sweep.base.model.name.clone(),
            setting: self.setting.clone(),
            seeds: sweep.seeds.clone(),
            rows: sweep.rows.iter().map(row).collect::<Result<_>>()?,
            comparisons: sweep.comparisons.clone(),
            left_out: sweep.left_out.clone(),
        })
    }
}

/// A row of which nothing but its counts is known.
fn empty(sweep: &Sweep, row: &Row, cost: &Cost) -> RowResult {
    let model = &row.experiment.model;
    let has_se = models::find(&model.name).is_ok_and(|(_, has_se)| has_se);
    RowResult {
        label: row.label.clone(),
        key: row.key.clone(),
        model: model.name.clone(),
        reduction: has_se.then_some(model.se.reduction),
        params: cost.params.trainable,
        macs: cost.macs,
        runs: sweep.seeds.iter().map(|seed| Run { seed: *seed, state: State::Open }).collect(),
        ..RowResult::default()
    }
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
    let lab = Lab::open(sweep, dir)?;
    let order = sweep.order();
    let mut settled = HashSet::new();
    loop {
        let mut elsewhere = 0;
        for (at, (row, seed)) in
            order.iter().enumerate().filter(|(at, _)| !settled.contains(at)).collect::<Vec<_>>()
        {
            let label = labelled(row, *seed, sweep);
            let mut tell = |event: RowEvent<'_>| observer.row(at + 1, order.len(), &label, event);
            if lab.measured(row, *seed)?.is_some() {
                tell(RowEvent::Kept);
                settled.insert(at);
                continue;
            }
            let Some(_lock) = lab.dir.lock(&row.key, *seed)? else {
                elsewhere += 1;
                continue;
            };
            tell(RowEvent::Begins);
            lab.dir.clear_failure(&row.key, *seed)?;
            match one(&row.of_seed(*seed), &lab.dir.run(&row.key, *seed), &mut data, observer, stop) {
                Ok(train::Outcome::Interrupted { .. }) => {
                    return Ok(Outcome::Interrupted(lab.results(sweep)?));
                }
                Ok(train::Outcome::Finished(summary)) => {
                    observer.row(at + 1, order.len(), &label, RowEvent::Done(&summary.eval));
                }
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => {
                    let message = format!("{error:#}");
                    lab.dir.note_failure(&row.key, *seed, &message)?;
                    observer.row(at + 1, order.len(), &label, RowEvent::Failed(&message));
                }
            }
            settled.insert(at);
            lab.save()?;
        }
        if elsewhere == 0 {
            lab.save()?;
            return Ok(Outcome::Finished(lab.results(sweep)?));
        }
        if stop.is_set() {
            return Ok(Outcome::Interrupted(lab.results(sweep)?));
        }
        observer.row(order.len() - elsewhere, order.len(), "", RowEvent::Elsewhere);
        thread::sleep(LOOK_EVERY);
    }
}

/// The tables of a comparison that was made before, from its records alone.
///
/// # Errors
/// When `dir` holds none, or a record is damaged.
pub fn report(dir: &Path) -> Result<Results> {
    let dir = LabDir::open(dir)?;
    let notebook: Notebook = dir.notebook()?;
    let lab = Lab { dir, notebook };
    lab.save()?;
    lab.results(&lab.notebook.sweep)
}

/// A comparison with its folder.
struct Lab {
    dir: LabDir,
    notebook: Notebook,
}

impl Lab {
    /// The folder of `sweep`, made or found. What was compared there before stays part of its tables.
    fn open(sweep: &Sweep, path: &Path) -> Result<Self> {
        let mut notebook = Notebook { sweep: sweep.clone(), basis: Basis::of(&sweep.base)? };
        let dir = LabDir::create(path)?;
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
                    None => match self.dir.failure(&row.key, run.seed)? {
                        Some(message) => State::Failed { message },
                        None => State::Open,
                    },
                };
            }
        }
        results.settle();
        Ok(results)
    }

    /// Writes the tables of everything that is compared in the folder.
    fn save(&self) -> Result<()> {
        self.dir.save(&self.results(&self.notebook.sweep)?)
    }
}

/// What two comparisons must have in common to share a folder: all but seeds and the place where they run.
fn comparable(base: &Experiment, seed: u64) -> Experiment {
    Experiment { seed, device: String::new(), threads: None, ..base.clone() }
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
    let run = open_run(&setup, path)?;
    run.note_start(&Provenance::here(setup.device))?;
    let resume = checkpoint::exists(&run.checkpoint(Checkpoint::Last));
    train::run(&setup, resume, &mut Context { run: &run, observer, stop })
}

/// The run's folder, made or found.
fn open_run(setup: &Setup, path: &Path) -> Result<RunDir> {
    if !path.exists() {
        return RunDir::create(path, &setup.experiment);
    }
    let run = RunDir::open(path)?;
    let (found, wanted) = (run.experiment()?, &setup.experiment);
    if comparable(&found, found.seed) != comparable(wanted, wanted.seed) {
        return Err(another(path).into());
    }
    Ok(run)
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
