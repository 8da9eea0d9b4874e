//! Training runs side by side, from their folders.

use super::train::Summary;
use crate::error::{Result, usage};
use crate::experiment::Experiment;
use crate::report::runs::{Group, RunRecord, Runs, Start};
use crate::run::{LogSpec, Provenance, RunDir};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// The runs in these folders, those that differ by their seed alone together.
///
/// # Errors
/// When a folder is none of a run or is named twice, or a record is damaged.
pub fn report(paths: &[PathBuf]) -> Result<Runs> {
    let mut groups: Vec<(Experiment, Vec<RunRecord>)> = Vec::new();
    let mut places = Vec::new();
    for path in paths {
        let run = RunDir::open(path)?;
        let place = fs::canonicalize(path)?;
        if places.contains(&place) {
            let message = format!("{} is named twice", path.display());
            return Err(usage(message).hint("name each run once").into());
        }
        places.push(place);
        let experiment = run.experiment()?;
        let record = record(&run, &experiment)?;
        let settings = settings(experiment);
        let fits = |(of, runs): &&mut (Experiment, Vec<RunRecord>)| {
            *of == settings && runs.iter().all(|other| other.seed != record.seed)
        };
        match groups.iter_mut().find(fits) {
            Some((_, runs)) => runs.push(record),
            None => groups.push((settings, vec![record])),
        }
    }
    Ok(Runs { groups: groups.into_iter().map(|(_, runs)| Group::new(runs)).collect() })
}

/// What runs have in common that differ by their seed alone.
fn settings(experiment: Experiment) -> Experiment {
    Experiment { seed: 0, about: Value::Null, log: LogSpec::default(), ..experiment }
}

fn record(run: &RunDir, experiment: &Experiment) -> Result<RunRecord> {
    let (history, summary) = (run.history()?, run.result::<Summary>()?);
    let evaluation = summary.as_ref().map(|summary| summary.ema.unwrap_or(summary.eval));
    let start = |start: Provenance| {
        let Provenance { device, threads, world_size, senet, revision, libtorch, command, .. } = start;
        Start { device, threads, world_size, senet, revision, libtorch, command }
    };
    Ok(RunRecord {
        run: run.path().display().to_string(),
        name: experiment.name.clone(),
        model: experiment.model.name.clone(),
        seed: experiment.seed,
        duration: experiment.train.duration,
        batch_size: experiment.train.samples_per_step(),
        is_done: summary.is_some(),
        step: history.step,
        total_steps: history.total_steps,
        is_average: experiment.train.ema.is_some(),
        top1: evaluation.map(|evaluation| evaluation.top1.accuracy),
        top5: evaluation.map(|evaluation| evaluation.top5.accuracy),
        best_top1: summary.as_ref().map(|summary| summary.best_top1),
        seconds: history.seconds,
        train_seconds: summary.as_ref().map(|summary| summary.train_seconds),
        images_per_second: summary.as_ref().and_then(|summary| summary.train_images_per_second),
        starts: run.starts()?.into_iter().map(start).collect(),
    })
}
