//! One optimizer step: the gradients of its batches, and the update.

use super::Learner;
use super::split::{Part, Split};
use crate::data::loader::Batch;
use crate::error::{Result, TorchContext};
use crate::experiment::{Experiment, OnNan};
use crate::metrics::Counters;
use crate::net::build::Mode;
use crate::rng;
use rand::Rng;

/// What is to be done in a step.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The recipe.
    pub experiment: &'a Experiment,
    /// Steps of the run before it.
    pub number: u64,
    /// Learning rate.
    pub lr: f64,
    /// How batch normalisation is computed.
    pub mode: Mode,
    /// Height and width of its images.
    pub size: usize,
    /// Its samples, of all batches.
    pub samples: usize,
    /// Whether to look at loss and gradients before weights are changed, for which a GPU is waited for.
    pub checked: bool,
}

/// What became of a step.
pub enum Stepped {
    /// The weights are changed.
    Done,
    /// Gradients overflowed float16, as they do now and then: the loss scaler has made itself smaller, the weights are as
    /// they were.
    Overflow,
    /// The weights are as they were.
    NotFinite(NotFinite),
}

/// A step whose loss or gradients are not finite.
pub struct NotFinite {
    /// What is not, and where it was seen first: "the loss is NaN; …".
    pub what: String,
    /// The samples that it may be due to.
    pub samples: Vec<usize>,
}

/// What came of the batches of a step.
enum Computed {
    /// Gradients of these samples, whose losses are finite.
    Finite { samples: Vec<usize> },
    /// A loss is not.
    NotFinite(NotFinite),
}

impl Step<'_> {
    /// Computes the gradients of the next `train.accumulate` of `batches` and changes the weights by them. Whatever becomes
    /// of it, all of its batches are taken.
    ///
    /// # Errors
    /// When a batch cannot be had or libtorch refuses.
    pub fn take(
        &self,
        learner: &mut Learner,
        batches: &mut impl Iterator<Item = Result<Batch>>,
        counters: &mut Counters,
        split: &mut Split,
    ) -> Result<Stepped> {
        let recipe = &self.experiment.train;
        let statistics = (recipe.on_nan == OnNan::Skip).then(|| learner.statistics()).transpose()?;
        let mut own = batches.take(recipe.accumulate);
        let found = match self.gradients(learner, &mut own, counters, split)? {
            Computed::Finite { samples } => {
                if learner.update(self.lr, self.checked, split)? {
                    return Ok(Stepped::Done);
                }
                if learner.scaler.as_ref().is_some_and(|scaler| !scaler.is_exhausted()) {
                    learner.optimizer.drop_gradients()?;
                    return Ok(Stepped::Overflow);
                }
                let name = learner.gradient_not_finite()?.unwrap_or_default();
                NotFinite { what: format!("the loss is finite, but not the gradient of `{name}`"), samples }
            }
            Computed::NotFinite(found) => {
                own.try_for_each(|batch| batch.map(drop))?;
                found
            }
        };
        learner.optimizer.drop_gradients()?;
        statistics.iter().try_for_each(|copies| learner.restore_statistics(copies))?;
        Ok(Stepped::NotFinite(found))
    }

    /// Computes the gradients of `batches`, up to the first whose loss is not finite.
    fn gradients(
        &self,
        learner: &Learner,
        batches: &mut impl Iterator<Item = Result<Batch>>,
        counters: &mut Counters,
        split: &mut Split,
    ) -> Result<Computed> {
        let mut samples = Vec::new();
        for (part, batch) in (0..).zip(batches) {
            let batch = batch?;
            let mut random = rng::stream(self.experiment.seed, "mix", [self.number, part]);
            let mix = self.experiment.train.mix.draw(batch.len, self.size, self.size, &mut random);
            self.seed(part);
            let share = batch.len as f64 / self.samples as f64;
            split.lap(Part::Data);
            let (logits, loss) = learner.gradients(&batch, mix.as_ref(), self.mode, share, split)?;
            if self.checked {
                // sync: the loss decides whether it counts.
                let loss = loss.f_double_value(&[]).torch_context(|| "cannot read the loss".to_string())?;
                if !loss.is_finite() {
                    self.seed(part);
                    let layer = learner.first_not_finite(&batch, mix.as_ref(), self.mode)?;
                    let place = layer.unwrap_or_else(|| "the loss itself".to_string());
                    let what = format!(
                        "the loss is {loss}, and the first output that is not finite is that of {place}"
                    );
                    return Ok(Computed::NotFinite(NotFinite { what, samples: batch.samples }));
                }
            }
            counters.add(&logits, &batch.labels, &loss)?;
            samples.extend(batch.samples);
            split.lap(Part::Rest);
        }
        Ok(Computed::Finite { samples })
    }

    /// What is random in a step depends on its number alone, so that a resumed run draws the same.
    fn seed(&self, part: u64) {
        tch::manual_seed(rng::stream(self.experiment.seed, "step", [self.number, part]).random());
    }
}
