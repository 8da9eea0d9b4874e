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
pub mod predict;
pub mod setup;
pub mod train;
pub mod trained;

use crate::error::Result;
use crate::report::event::{Event, Observer};
use crate::run::RunDir;
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

    /// The flag itself, for a signal handler.
    pub fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
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
}

impl Context<'_> {
    /// Tells the observer and the run's history.
    fn emit(&mut self, event: &Event) -> Result<()> {
        self.observer.event(event);
        self.run.note_event(event)
    }
}
