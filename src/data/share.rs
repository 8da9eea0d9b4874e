//! Who has which samples of a batch where several processes (ranks) train one network: arithmetic on positions in the
//! epoch's order, which is the same on all ranks.
//!
//! A batch is the same samples on any number of ranks; each takes a contiguous part. The recipe therefore means the same
//! on any number of ranks, and a run goes on where it stopped with more of them or fewer.
//!
//! Gradients are averaged over ranks, so a rank's mean loss counts by its [`weight`](Part::weight); with it, N ranks
//! compute what one does, but for the statistics of batch normalisation, which are each rank's own unless
//! `train.sync_bn` is on.

use std::ops::Range;

/// One of the ranks that share batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
}

/// What a rank has of a training batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Positions in the epoch's order.
    pub own: Range<usize>,
    /// Samples of the batch on all ranks.
    pub whole: usize,
    /// What this rank's mean loss has to be multiplied with, so that the mean over ranks of its gradients is the mean over
    /// the batch's samples: 1 when all ranks have as many.
    pub weight: f64,
    /// Whether its samples count here, not on another rank.
    pub counts: bool,
}

impl Share {
    /// A process by itself.
    pub const ALONE: Self = Self { rank: 0, world_size: 1 };

    /// The contiguous part of `all` that this rank has; sizes differ by 1 at most, the first ranks having one more.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn of(self, all: Range<usize>) -> Range<usize> {
        let Self { rank, world_size } = self;
        assert!(rank < world_size, "rank {rank} of {world_size}");
        let (each, more) = (all.len() / world_size, all.len() % world_size);
        let begin = all.start + rank * each + rank.min(more);
        begin..begin + each + usize::from(rank < more)
    }

    /// What this rank has of the training batch of the samples at `batch`. One that has fewer samples than there are ranks,
    /// as the last of an epoch may, is computed by all of them: no rank is ever without, and none waits for what does not
    /// come.
    pub fn of_training(self, batch: Range<usize>) -> Part {
        let whole = batch.len();
        if whole < self.world_size {
            return Part { own: batch, whole, weight: 1.0, counts: self.rank == 0 };
        }
        let own = self.of(batch);
        let weight = (own.len() * self.world_size) as f64 / whole as f64;
        Part { own, whole, weight, counts: true }
    }
}

impl Part {
    /// Whether other ranks have other samples of the batch.
    pub fn is_shared(&self) -> bool {
        self.own.len() < self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_counted_once_whatever_the_remainder() {
        for batch in [0..0, 0..1, 3..5, 0..12, 7..18] {
            for world_size in 1..6 {
                let shares: Vec<Share> = (0..world_size).map(|rank| Share { rank, world_size }).collect();
                let evaluated: Vec<usize> = shares.iter().flat_map(|share| share.of(batch.clone())).collect();
                assert_eq!(evaluated, batch.clone().collect::<Vec<_>>());
                let parts: Vec<Part> = shares.iter().map(|share| share.of_training(batch.clone())).collect();
                let counted: Vec<usize> =
                    parts.iter().filter(|part| part.counts).flat_map(|part| part.own.clone()).collect();
                assert_eq!(counted, batch.clone().collect::<Vec<_>>());
                let sizes: Vec<usize> = parts.iter().map(|part| part.own.len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
                assert!(batch.is_empty() || sizes.iter().all(|size| *size > 0));
                let weights: f64 = parts.iter().map(|part| part.weight).sum();
                assert!((weights - world_size as f64).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_batch_of_fewer_samples_than_ranks_is_everybodys() {
        let of = |rank| Share { rank, world_size: 3 }.of_training(4..6);
        assert_eq!(of(0), Part { own: 4..6, whole: 2, weight: 1.0, counts: true });
        assert_eq!(of(2), Part { own: 4..6, whole: 2, weight: 1.0, counts: false });
        assert!(!of(0).is_shared() && Share { rank: 2, world_size: 3 }.of_training(4..8).is_shared());
        assert!(!Share::ALONE.of_training(4..8).is_shared());
    }

    #[test]
    fn parts_of_other_sizes_have_other_weights() {
        let weights = [0, 1].map(|rank| Share { rank, world_size: 2 }.of_training(0..5).weight);
        assert_eq!(weights, [1.2, 0.8]);
    }
}
