//! The speed of each row, measured so that rows can be compared.

use super::{Lab, Outcome, RowEvent, RowObserver};
use crate::engine::setup::{OpenData, Setup};
use crate::engine::{StopFlag, bench};
use crate::error::Result;
use crate::experiment::sweep::Sweep;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Times a training step and an evaluation batch of every row of `sweep`, `ROUNDS` times in turns, so that what else the
/// machine does falls on all rows alike. The tables in `dir` then have these speeds instead of the runs' own.
///
/// # Errors
/// When `dir` holds no comparison, or libtorch refuses.
pub fn measure_speed(
    sweep: &Sweep,
    dir: &Path,
    observer: &mut dyn RowObserver,
    stop: &StopFlag,
) -> Result<Outcome> {
    let mut data = OpenData::default();
    let lab = Lab::open(sweep, dir, &mut data)?;
    let mut speeds: Speeds = lab.dir.speeds()?;
    sweep.rows.iter().for_each(|row| drop(speeds.insert(row.key.clone(), Speed::default())));
    for round in 1..=ROUNDS {
        for row in &sweep.rows {
            if stop.is_set() {
                return Ok(Outcome::Interrupted(lab.results(sweep)?));
            }
            observer.row(round, ROUNDS, &row.label, RowEvent::Timed);
            let setup = Setup::for_training_on(row.experiment.clone(), &mut data)?;
            let speed = speeds.entry(row.key.clone()).or_default();
            speed.train.push(bench::run(bench::What::Train, &setup, TIMED_STEPS)?.images_per_second.median);
            speed.eval.push(bench::run(bench::What::Eval, &setup, TIMED_STEPS)?.images_per_second.median);
        }
    }
    lab.dir.write_speeds(&speeds)?;
    lab.save()?;
    Ok(Outcome::Finished(lab.results(sweep)?))
}

/// Times that each row is measured, and steps each time.
const ROUNDS: usize = 5;
const TIMED_STEPS: usize = 3;

/// Images a second of a row, each time that it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Speed {
    pub(super) train: Vec<f64>,
    pub(super) eval: Vec<f64>,
}

/// The speeds of rows, by their keys.
pub(super) type Speeds = BTreeMap<String, Speed>;
