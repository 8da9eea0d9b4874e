//! Where the time of the loader's threads goes.

use std::time::{Duration, Instant};

/// What is done to a sample, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From disk (or the system's cache of it) to memory.
    Read,
    /// From a file's bytes to pixels.
    Decode,
    /// Crop and resampling.
    Resize,
    /// Mirroring and everything in `data.augment`.
    Augment,
    /// The batch's memory and labels; samples are made at their place in it.
    Collate,
}

impl Stage {
    /// All, in the order of a sample's way.
    pub const ALL: [Self; 5] = [Self::Read, Self::Decode, Self::Resize, Self::Augment, Self::Collate];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Augment => "augment",
            Self::Collate => "collate",
        }
    }
}

/// Time spent in each stage, over all threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    times: [Duration; Stage::ALL.len()],
    /// Samples that are done.
    pub samples: usize,
}

impl Stages {
    /// Does `work` and counts its time.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(stage, start);
        result
    }

    /// Counts the time since `start`.
    pub fn add(&mut self, stage: Stage, start: Instant) {
        self.times[stage as usize] += start.elapsed();
    }

    /// Counts what another thread has counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.times.iter_mut().zip(other.times) {
            *own += other;
        }
        self.samples += other.samples;
    }

    /// Time spent in `stage`.
    pub fn of(&self, stage: Stage) -> Duration {
        self.times[stage as usize]
    }

    /// Time spent in all stages.
    pub fn total(&self) -> Duration {
        self.times.iter().sum()
    }
}
