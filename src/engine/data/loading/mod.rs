//! The loader looked at by itself: its speed by stage, and what comes out of it.

mod bench;
mod sheet;

pub use bench::{Measurement, StageCost, bench};
pub use sheet::{Sheet, sheet};

use crate::data::faults::Faults;
use crate::data::loader::Plan;
use crate::data::subset::Subset;
use crate::data::{DataSpec, Dataset, Split};
use crate::error::Result;
use std::sync::Arc;

/// What is looked at.
pub struct Pipeline {
    /// The samples.
    pub dataset: Arc<dyn Dataset>,
    /// How they are prepared, resolved.
    pub spec: DataSpec,
    /// As in training or as in evaluation.
    pub split: Split,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Decides order and augmentation.
    pub seed: u64,
}

impl Pipeline {
    /// One pass; in training the one of epoch `epoch`.
    fn plan(&self, faults: &Arc<Faults>, epoch: u64) -> Result<Plan> {
        let (dataset, faults) = (Arc::clone(&self.dataset), Arc::clone(faults));
        match self.split {
            Split::Train => Plan::train(dataset, faults, &self.spec, self.batch_size, self.seed, epoch),
            Split::Eval => Ok(Plan::eval(dataset, faults, &self.spec, self.batch_size)),
        }
    }
}

/// A data set several times in a row, so that a pass over a small one is long enough to be timed.
fn repeated(all: Arc<dyn Dataset>, times: usize) -> Arc<dyn Dataset> {
    let samples = all.len() as u32;
    Arc::new(Subset::new(all, (0..times).flat_map(|_| 0..samples).collect()))
}
