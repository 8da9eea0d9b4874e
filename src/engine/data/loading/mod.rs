//! The loader looked at by itself: its speed by stage, and what comes out of it.

mod bench;
mod sheet;

pub use bench::{Measurement, StageCost, bench};
pub use sheet::{Sheet, sheet};

use crate::data::faults::Faults;
use crate::data::loader::Plan;
use crate::data::{DataSpec, Dataset, Image, Split};
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
struct Repeated {
    all: Arc<dyn Dataset>,
    times: usize,
}

impl Repeated {
    fn at(&self, index: usize) -> usize {
        index % self.all.len()
    }
}

impl Dataset for Repeated {
    fn len(&self) -> usize {
        self.all.len() * self.times
    }
    fn classes(&self) -> &[String] {
        self.all.classes()
    }
    fn channels(&self) -> usize {
        self.all.channels()
    }
    fn natural_size(&self) -> Option<(usize, usize)> {
        self.all.natural_size()
    }
    fn label(&self, index: usize) -> usize {
        self.all.label(self.at(index))
    }
    fn image(&self, index: usize) -> Result<Image> {
        self.all.image(self.at(index))
    }
    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        self.all.encoded(self.at(index), bytes)
    }
    fn source_name(&self, index: usize) -> String {
        self.all.source_name(self.at(index))
    }
    fn relative_name(&self, index: usize) -> String {
        self.all.relative_name(self.at(index))
    }
    fn undecodable(&self, index: usize, error: &anyhow::Error) -> anyhow::Error {
        self.all.undecodable(self.at(index), error)
    }
}
