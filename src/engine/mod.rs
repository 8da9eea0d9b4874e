//! The algorithms: training, evaluation, comparison, measurement. They print nothing and take what they need.

pub mod ablate;
pub mod bench;
pub mod classes;
pub mod convert;
pub mod data;
pub mod details;
pub mod doctor;
pub mod eval;
pub mod inspect;
pub mod mixing;
pub mod nonfinite;
pub mod predict;
pub mod runs;
pub mod setup;
pub mod splits;
pub mod train;
pub mod trained;
pub mod weights_file;

use crate::dist::collective::Collective;
use crate::error::Result;
use crate::report::event::{Event, Observer};
use crate::run::{EventFile, LogSpec, RunDir};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set from outside (Ctrl-C); engines look at it between steps.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Whether someone asked to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What an engine works with.
pub struct Context<'a> {
    /// Where the run is kept.
    pub run: &'a RunDir,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// Whether to stop.
    pub stop: &'a StopFlag,
    /// The other processes that work on the run.
    pub collective: &'a Collective,
    /// For TensorBoard, where that is asked for, once training begins.
    tensorboard: Option<EventFile>,
}

impl<'a> Context<'a> {
    /// Of a run that this process works on by itself.
    pub fn new(run: &'a RunDir, observer: &'a mut dyn Observer, stop: &'a StopFlag) -> Self {
        Self { run, observer, stop, collective: &Collective::Alone, tensorboard: None }
    }

    /// Of a run that several processes work on. Rank 0 alone writes into its folder.
    pub fn with(self, collective: &'a Collective) -> Self {
        Self { collective, ..self }
    }

    /// The run goes on after `step`, be it 0: what its records tell of later steps counts no more.
    fn goes_on_after(&mut self, step: u64, awaits_evaluation: bool, log: &LogSpec) -> Result<()> {
        if !self.collective.is_main() {
            return Ok(());
        }
        self.run.forget_events_after(step, awaits_evaluation)?;
        if log.tensorboard && self.tensorboard.is_none() {
            self.tensorboard = Some(EventFile::create(self.run)?);
        }
        self.tensorboard.iter_mut().try_for_each(|file| file.goes_on_after(step))
    }

    /// Tells the observer and the run's records.
    fn emit(&mut self, event: &Event) -> Result<()> {
        self.observer.event(event);
        if !self.collective.is_main() {
            return Ok(());
        }
        self.run.note_event(event)?;
        self.tensorboard.iter_mut().try_for_each(|file| file.note(event))
    }
}
