//! One optimizer step: the gradients of its batches, and the update.

use super::Learner;
use super::split::{Part, Split};
use crate::data::loader::Batch;
use crate::dist::collective::Collective;
use crate::error::{Result, TorchContext};
use crate::experiment::{Experiment, OnNan};
use crate::metrics::Counters;
use crate::net::build::Mode;
use crate::rng;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// What is to be done in a step.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The recipe.
    pub experiment: &'a Experiment,
    /// Steps of the run before it.
    pub number: u64,
    /// Learning rate.
    pub lr: f64,
    /// How batch normalisation is computed; of a batch that is not shared, by each rank for itself.
    pub mode: Mode,
    /// Height and width of its images.
    pub size: usize,
    /// Its samples, of all batches and ranks.
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
#[derive(Serialize, Deserialize)]
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
    /// of it, all of its batches are taken, and it is the same on all ranks.
    ///
    /// # Errors
    /// When a batch cannot be had, libtorch refuses, or a rank is lost.
    pub fn take(
        &self,
        learner: &mut Learner,
        batches: &mut impl Iterator<Item = Result<Batch>>,
        counters: &mut Counters,
        split: &mut Split,
        collective: &Collective,
    ) -> Result<Stepped> {
        let recipe = &self.experiment.train;
        let statistics = (recipe.on_nan == OnNan::Skip).then(|| learner.statistics()).transpose()?;
        let mut own = batches.take(recipe.accumulate);
        let found = match self.gradients(learner, &mut own, counters, split, collective)? {
            Computed::Finite { samples } => {
                if learner.update(self.lr, self.checked, split)? {
                    return Ok(Stepped::Done);
                }
                if learner.scaler.as_ref().is_some_and(|scaler| !scaler.is_exhausted()) {
                    learner.optimizer.drop_gradients()?;
                    return Ok(Stepped::Overflow);
                }
                let what = match learner.gradient_not_finite()? {
                    Some(name) => format!("the loss is finite, but not the gradient of `{name}`"),
                    // As after a loss scale that has shrunk to nothing.
                    None => "the loss is finite, but not the gradients".to_string(),
                };
                NotFinite::of_all(collective, Some(NotFinite { what, samples }))?
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
        learner: &mut Learner,
        batches: &mut impl Iterator<Item = Result<Batch>>,
        counters: &mut Counters,
        split: &mut Split,
        collective: &Collective,
    ) -> Result<Computed> {
        let mut samples = Vec::new();
        let mut done = 0;
        for (number, batch) in (0..).zip(batches) {
            let batch = batch?;
            done += batch.whole;
            let is_last = done == self.samples;
            let draws =
                Draws { step: self, number, rank: if batch.is_shared() { collective.rank() } else { 0 } };
            let mut random = draws.stream("mix");
            let mix = self.experiment.train.mix.draw(batch.len, self.size, self.size, &mut random);
            draws.seed();
            let share = batch.weight * batch.whole as f64 / self.samples as f64;
            let mode = if batch.is_shared() { self.mode } else { self.mode.by_itself() };
            split.lap(Part::Data);
            let (logits, loss) = learner.gradients(&batch, mix.as_ref(), mode, share, is_last, split)?;
            if self.checked {
                // sync: the loss decides whether it counts.
                let loss = loss.f_double_value(&[]).torch_context(|| "cannot read the loss".to_string())?;
                if collective.any(!loss.is_finite())? {
                    let look = || -> Result<NotFinite> {
                        draws.seed();
                        let layer = learner.first_not_finite(&batch, mix.as_ref(), mode.by_itself())?;
                        let place = layer.unwrap_or_else(|| "the loss itself".to_string());
                        let what = format!(
                            "the loss is {loss}, and the first output that is not finite is that of {place}"
                        );
                        Ok(NotFinite { what, samples: batch.samples.clone() })
                    };
                    let found = (!loss.is_finite()).then(look).transpose()?;
                    return Ok(Computed::NotFinite(NotFinite::of_all(collective, found)?));
                }
            }
            if batch.counts {
                counters.add(&logits, &batch.labels, &loss)?;
            }
            samples.extend(batch.samples);
            split.lap(Part::Rest);
        }
        Ok(Computed::Finite { samples })
    }
}

/// What is random in the computation of a batch. It depends on the numbers of step and batch alone, so that a resumed run
/// draws the same; ranks with other samples draw differently.
struct Draws<'a> {
    step: &'a Step<'a>,
    /// The batch's number in the step.
    number: u64,
    rank: usize,
}

impl Draws<'_> {
    fn stream(&self, purpose: &str) -> impl Rng + use<> {
        let numbers = [self.step.number, self.number | (self.rank as u64) << 32];
        rng::stream(self.step.experiment.seed, purpose, numbers)
    }

    /// Seeds what is drawn within the network.
    fn seed(&self) {
        tch::manual_seed(self.stream("step").random());
    }
}

impl NotFinite {
    /// What all ranks know of it, of whom one at least has `found` something.
    fn of_all(collective: &Collective, found: Option<Self>) -> Result<Self> {
        let mut all = Self { what: String::new(), samples: Vec::new() };
        for found in collective.gather_said(&found)?.into_iter().flatten() {
            if all.what.is_empty() {
                all.what = found.what;
            }
            all.samples.extend(found.samples);
        }
        Ok(all)
    }
}
