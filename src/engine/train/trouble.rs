//! What a run does about a step whose loss or gradients are not finite.

use super::saver::restore;
use super::step::NotFinite;
use super::{DIVERGED, Training};
use crate::engine::Context;
use crate::error::{Result, failed};
use crate::experiment::OnNan;
use crate::report::event::Event;
use crate::run::checkpoint::Progress;

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
            OnNan::Rollback if self.progress.left_out.len() == 2 * MOST_ROLLBACKS => {
                give_up(format!("the run has gone back {MOST_ROLLBACKS} times already"))
            }
            OnNan::Rollback => {
                let mut left_out = std::mem::take(&mut self.progress.left_out);
                // The update before may be what ruined the weights.
                left_out.extend([self.progress.step.saturating_sub(1), self.progress.step]);
                self.saver.finish()?;
                self.progress = Progress { left_out, ..restore(&mut self.learner, self.ctx)? };
                let back = self.progress.step;
                self.ctx.goes_on_after(back, self.progress.awaits_evaluation, &self.experiment().log)?;
                let done = format!("back to step {back}, to go on without this step and the one before");
                warn(self.ctx, done)?;
                Ok(true)
            }
        }
    }

    fn names(&self, samples: &[usize]) -> Vec<String> {
        samples.iter().map(|sample| self.setup.train.source_name(*sample)).collect()
    }
}
