//! Some samples of a data set, in any order, as often as wanted.

use super::index::Listing;
use super::split::SplitOrigin;
use super::{Dataset, Image};
use crate::error::Result;
use std::sync::Arc;

/// The samples of another data set with these numbers.
pub struct Subset {
    all: Arc<dyn Dataset>,
    indices: Vec<u32>,
}

impl Subset {
    /// Samples `indices` of `all`, in this order.
    pub fn new(all: Arc<dyn Dataset>, indices: Vec<u32>) -> Self {
        Self { all, indices }
    }

    fn at(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
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
    fn listing(&self) -> Option<Listing> {
        self.all.listing()
    }
    fn origin(&self) -> Option<SplitOrigin> {
        self.all.origin()
    }
}
