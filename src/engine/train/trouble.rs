//! What a run does about numbers that are not finite: a step's loss or gradients, weights, an evaluation's logits.

use super::saver::restore;
use super::step::NotFinite;
use super::{DIVERGED, Training};
use crate::engine::Context;
use crate::error::{Result, failed};
use crate::experiment::OnNan;
use crate::report::event::Event;
use crate::run::Checkpoint;
use crate::run::checkpoint::{self, Progress};

/// Steps in a row that `train.on_nan: "skip"` leaves out, and times that `rollback` goes back, before the run is given up.
const MOST_IN_A_ROW: u64 = 10;
const MOST_ROLLBACKS: usize = 10;

impl Training<'_, '_> {
    /// Deals with a step whose numbers are not finite as `train.on_nan` says. Returns whether the run is elsewhere now.
    pub(super) fn bear(&mut self, found: &NotFinite, lr: f64) -> Result<bool> {
        let step = self.progress.step + 1;
        let mut message = format!("step {step}: {} (learning rate {lr:.3e})", found.what);
        if self.ctx.collective.is_main() {
            let list = self.ctx.run.note_not_finite(step, &found.what, &self.names(&found.samples))?;
            let samples = found.samples.len();
            message += &format!("; its {samples} samples are listed in {}", list.display());
        }
        let give_up = |tried: String| Err(failed(format!("{message}; {tried}")).hint(DIVERGED).into());
        let warn = |ctx: &mut Context<'_>, done: String| {
            ctx.emit(&Event::Warning { message: format!("{message}; {done}") })
        };
        match self.recipe().on_nan {
            OnNan::Stop => Err(failed(message).hint(DIVERGED).into()),
            OnNan::Skip if self.progress.skipped_in_a_row == MOST_IN_A_ROW => {
                give_up(format!("so were the {MOST_IN_A_ROW} steps before"))
            }
            OnNan::Skip => {
                self.progress.skipped_in_a_row += 1;
                warn(self.ctx, "the step is left out".to_string())?;
                Ok(false)
            }
            OnNan::Rollback => {
                self.roll_back(&message, self.progress.step, "this step and the one before")?;
                Ok(true)
            }
        }
    }

    /// Handles weights that are NaN or infinite after a step as `train.on_nan` says. Where this succeeds, the run was rolled
    /// back.
    pub(super) fn handle_nonfinite_weights(&mut self, what: &str) -> Result<()> {
        let message = format!("after step {}: {what} is NaN or infinite", self.progress.step);
        match self.recipe().on_nan {
            OnNan::Stop => Err(failed(message).hint(DIVERGED).into()),
            OnNan::Skip => {
                Err(failed(format!("{message}, which no skipped step repairs")).hint(DIVERGED).into())
            }
            OnNan::Rollback => self.roll_back_last(&message),
        }
    }

    /// Handles an evaluation without a result, though weights are finite, as `train.on_nan` says. Returns whether the run was
    /// rolled back; else it continues without the evaluation.
    pub(super) fn handle_nonfinite_evaluation(&mut self, what: &str) -> Result<bool> {
        let message = format!("evaluation after step {}: {what}", self.progress.step);
        match self.recipe().on_nan {
            OnNan::Skip if !self.is_over() => {
                let message = format!("{message}; the evaluation is skipped");
                self.ctx.emit(&Event::Warning { message })?;
                Ok(false)
            }
            OnNan::Stop | OnNan::Skip => Err(failed(message).hint(DIVERGED).into()),
            OnNan::Rollback => {
                self.roll_back_last(&message)?;
                Ok(true)
            }
        }
    }

    /// Rolls back to before the last steps, after which the run cannot be evaluated.
    fn roll_back_last(&mut self, message: &str) -> Result<()> {
        self.saver.finish()?;
        let (step, last) = (self.progress.step, self.ctx.run.checkpoint(Checkpoint::Last));
        let withdrawn = self.ctx.collective.from_main(|| checkpoint::withdraw(&last, step));
        withdrawn.map_err(|error| cannot_roll_back(message, &error))?;
        self.roll_back(message, step.saturating_sub(1), "the last two steps")
    }

    /// Rolls back to the last checkpoint, to leave out step `last`, counted from 0, and the one before, whose update may be
    /// what ruined the weights.
    fn roll_back(&mut self, message: &str, last: u64, left_out_in_words: &str) -> Result<()> {
        if self.progress.left_out.len() == 2 * MOST_ROLLBACKS {
            let message = format!("{message}; the run has gone back {MOST_ROLLBACKS} times already");
            return Err(failed(message).hint(DIVERGED).into());
        }
        let mut left_out = std::mem::take(&mut self.progress.left_out);
        left_out.extend([last.saturating_sub(1), last]);
        self.saver.finish()?;
        let restored =
            restore(&mut self.learner, self.ctx).map_err(|error| cannot_roll_back(message, &error))?;
        self.progress = Progress { left_out, ..restored };
        let back = self.progress.step;
        self.ctx.goes_on_after(back, self.progress.awaits_evaluation, &self.experiment().log)?;
        let message = format!("{message}; back to step {back}, to go on without {left_out_in_words}");
        self.ctx.emit(&Event::Warning { message })
    }

    fn names(&self, samples: &[usize]) -> Vec<String> {
        samples.iter().map(|sample| self.setup.train.source_name(*sample)).collect()
    }
}

/// Why a run stops whose last checkpoint cannot be restored.
fn cannot_roll_back(message: &str, error: &anyhow::Error) -> anyhow::Error {
    failed(format!("{message}; cannot go back: {error:#}")).hint(DIVERGED).into()
}
