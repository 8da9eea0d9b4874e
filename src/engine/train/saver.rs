//! Saving a run while it goes on, and taking it up again.

use super::Learner;
use crate::dist::collective::Collective;
use crate::engine::Context;
use crate::engine::setup::Setup;
use crate::error::Result;
use crate::optim::Ema;
use crate::report::event::Event;
use crate::run::Checkpoint;
use crate::run::checkpoint::{Identity, Parts, Place, Progress, Snapshot, Writer};
use std::time::Instant;

/// What saves a run.
pub(super) struct Saver {
    writer: Writer,
    /// When the last snapshot was taken.
    last: Instant,
}

impl Saver {
    pub(super) fn new() -> Self {
        Self { writer: Writer::default(), last: Instant::now() }
    }

    /// Whether a checkpoint is due after `step`: the same answer on all ranks, whatever their clocks say.
    pub(super) fn is_due(&self, setup: &Setup, step: u64, collective: &Collective) -> Result<bool> {
        let spec = &setup.experiment.checkpoint;
        let due = spec.is_due(step, self.last.elapsed());
        if spec.every_minutes.is_some() { collective.any(due) } else { Ok(due) }
    }

    /// Begins to save the run to these places, on rank 0.
    pub(super) fn save(
        &mut self,
        setup: &Setup,
        learner: &Learner,
        progress: &Progress,
        checkpoints: &[Checkpoint],
        ctx: &Context<'_>,
    ) -> Result<()> {
        self.last = Instant::now();
        if !ctx.collective.is_main() {
            return Ok(());
        }
        let preprocessing = setup.experiment.data.preprocessing();
        let run = ctx.run.id()?;
        let identity = Identity {
            model: &setup.experiment.model.name,
            spec: Some(&setup.experiment.model),
            channels: setup.train.channels(),
            classes: setup.train.classes(),
            preprocessing: Some(&preprocessing),
            run: run.as_deref(),
        };
        let parts = Parts {
            net: &learner.net,
            average: learner.ema.as_ref().map(|ema| &ema.net),
            optimizer: &learner.optimizer,
            scaler: learner.scaler.as_ref(),
        };
        let snapshot = Snapshot::take(identity, parts, progress)?;
        let place = |checkpoint: &Checkpoint| Place {
            dir: ctx.run.checkpoint(*checkpoint),
            earlier: match checkpoint {
                Checkpoint::Last => setup.experiment.checkpoint.keep,
                Checkpoint::Best => 1,
            },
        };
        self.writer.begin(snapshot, checkpoints.iter().map(place).collect())
    }

    /// Fails when the checkpoint on its way could not be written.
    pub(super) fn check(&mut self) -> Result<()> {
        self.writer.check()
    }

    /// Waits until everything is written.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.writer.finish()
    }
}

/// Puts the learner where the run's last checkpoint left it, which rank 0 reads for all.
pub(super) fn restore(learner: &mut Learner, ctx: &mut Context<'_>) -> Result<Progress> {
    let collective = ctx.collective;
    let said = collective.from_main(|| {
        let progress = restore_here(learner, ctx)?;
        Ok((progress, learner.optimizer.steps(), learner.scaler.clone()))
    })?;
    let (progress, updates, scaler) = said;
    if !collective.is_main() {
        learner.optimizer.goes_on_after(updates);
        learner.scaler = scaler;
    }
    learner.take_main_values(collective)?;
    Ok(progress)
}

/// The same for a process by itself.
fn restore_here(learner: &mut Learner, ctx: &mut Context<'_>) -> Result<Progress> {
    let (saved, warning) = ctx.run.saved(Checkpoint::Last)?;
    if let Some(message) = warning {
        ctx.emit(&Event::Warning { message })?;
    }
    saved.load_weights(&learner.net)?;
    learner.ema.iter().try_for_each(|ema: &Ema| saved.load_average(&ema.net))?;
    saved.load_optimizer(&mut learner.optimizer)?;
    if let (Some(scaler), Some(saved)) = (&mut learner.scaler, saved.scaler()) {
        scaler.clone_from(saved);
    }
    Ok(saved.progress().clone())
}
