//! The exponential moving average of a network: a second network that follows the trained one.

use super::spec::Range;
use crate::error::{Result, usage};
use crate::net::build::Net;
use crate::torch_ext::optim::move_averages;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// mean ← decay · mean + (1 - decay) · weights.
///
/// Everything is averaged, the running statistics of batch normalisation too, as timm's `ModelEmaV3` does by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmaSpec {
    /// Share of the average that is kept at an update.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub decay: f64,
    /// Whether the decay grows from 0: at update t it is at most 1 - t^(-2/3), as `ModelEmaV3` with `use_warmup`.
    pub warmup: bool,
    /// Optimizer steps for each update of the average.
    #[schemars(range(min = 1))]
    pub every: u64,
}

impl Default for EmaSpec {
    fn default() -> Self {
        Self { decay: 0.9999, warmup: true, every: 1 }
    }
}

impl EmaSpec {
    /// Refuses an average that never moves.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self) -> Result<()> {
        Range::Share.check("train.ema.decay", self.decay)?;
        if self.every == 0 {
            return Err(usage("`train.ema.every` is 0, but it must be 1 or more").into());
        }
        Ok(())
    }

    /// The decay of update number `update`, from 1. The first takes the weights as they are.
    pub fn decay_at(&self, update: u64) -> f64 {
        match update {
            0 | 1 => 0.0,
            _ if self.warmup => self.decay.min(1.0 - (update as f64).powf(-2.0 / 3.0)),
            _ => self.decay,
        }
    }
}

/// A network and the average that follows it.
#[derive(Debug)]
pub struct Ema {
    spec: EmaSpec,
    /// The average.
    pub net: Net,
    means: Vec<Tensor>,
    followed: Vec<Tensor>,
}

impl Ema {
    /// `average`, a network of the same description as `net`, follows `net` from where that is now.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn new(spec: &EmaSpec, average: Net, net: &Net) -> Result<Self> {
        let tensors = |net: &Net| net.tensors().iter().map(|named| named.tensor.shallow_clone()).collect();
        let ema = Self { spec: spec.clone(), means: tensors(&average), followed: tensors(net), net: average };
        ema.catch_up()?;
        Ok(ema)
    }

    /// Makes the average what the network is now.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn catch_up(&self) -> Result<()> {
        move_averages(&self.means, &self.followed, 1.0)
    }

    /// Takes note that the network has made its optimizer step number `step`, from 1.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn follow(&self, step: u64) -> Result<()> {
        if !step.is_multiple_of(self.spec.every) {
            return Ok(());
        }
        let decay = self.spec.decay_at(step / self.spec.every);
        move_averages(&self.means, &self.followed, 1.0 - decay)
    }
}
