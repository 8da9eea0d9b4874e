//! Who has which samples: arithmetic on positions in the epoch's order, which is the same on all ranks.
//!
//! A step takes the next `world size · batch` positions of the order, and each rank a contiguous part of them. The
//! last step of an epoch may have fewer; they are split as evenly as can be, the first ranks having one more, so rank
//! 0 is never without. A rank may be: it takes part with an empty batch, for the others wait for its gradients
//! ([`super::collective::nothing`]).
//!
//! Gradients are averaged over ranks, so a rank's mean loss counts by its [`weight`](Part::weight); with it, ranks and
//! batch are interchangeable: N ranks of B samples compute what one rank of N·B does.

use std::ops::Range;

/// The contiguous part of `all` that rank `rank` of `world_size` has; sizes differ by 1 at most.
///
/// # Panics
/// When there is no such rank.
pub fn part(all: Range<usize>, rank: usize, world_size: usize) -> Range<usize> {
    assert!(rank < world_size, "rank {rank} of {world_size}");
    let (each, more) = (all.len() / world_size, all.len() % world_size);
    let begin = all.start + rank * each + rank.min(more);
    begin..begin + each + usize::from(rank < more)
}

/// What one step takes: positions in the epoch's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Of all ranks.
    pub whole: Range<usize>,
    /// Of this one; may be empty.
    pub own: Range<usize>,
}

impl Part {
    /// What this rank's mean loss has to be multiplied with, so that the mean over ranks of its gradients is the mean
    /// over samples: 1 when all ranks have as many.
    pub fn weight(&self, world_size: usize) -> f64 {
        if self.whole.is_empty() {
            return 0.0;
        }
        (self.own.len() * world_size) as f64 / self.whole.len() as f64
    }
}

/// How an epoch is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Draws in the epoch.
    pub draws: usize,
    /// Samples of a step on each rank, 1 or more.
    pub batch: usize,
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
}

impl Share {
    /// The steps of the epoch that remain after its first `done` draws: 0 at its begin, else where an interrupted one
    /// goes on, also with other numbers of ranks or samples than before.
    pub fn steps(self, done: usize) -> impl ExactSizeIterator<Item = Part> {
        let whole = self.batch.saturating_mul(self.world_size).max(1);
        let remaining = self.draws.saturating_sub(done);
        (0..remaining.div_ceil(whole)).map(move |step| {
            let begin = done + step * whole;
            let whole = begin..self.draws.min(begin.saturating_add(whole));
            Part { own: part(whole.clone(), self.rank, self.world_size), whole }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(draws: usize, batch: usize, world_size: usize, done: usize) -> Vec<Vec<Part>> {
        let of = |rank| Share { draws, batch, rank, world_size }.steps(done).collect();
        (0..world_size).map(of).collect()
    }

    #[test]
    fn every_draw_is_taken_once_whatever_the_remainder() {
        for draws in 0..40 {
            for batch in 1..5 {
                for world_size in 1..6 {
                    for done in [0, 1, 7] {
                        let ranks = steps(draws, batch, world_size, done);
                        let mut taken = Vec::new();
                        for step in 0..ranks[0].len() {
                            let parts: Vec<&Part> = ranks.iter().map(|rank| &rank[step]).collect();
                            let sizes: Vec<usize> = parts.iter().map(|part| part.own.len()).collect();
                            let last = step + 1 == ranks[0].len();
                            assert!(last || sizes.iter().all(|size| *size == batch));
                            assert!(sizes[0] > 0 && sizes[0] <= batch);
                            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
                            let weights: f64 = parts.iter().map(|part| part.weight(world_size)).sum();
                            assert!((weights - world_size as f64).abs() < 1e-12);
                            taken.extend(parts.into_iter().flat_map(|part| part.own.clone()));
                        }
                        assert_eq!(taken, (done.min(draws)..draws).collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    #[test]
    fn one_rank_has_what_many_have_together() {
        let many = steps(103, 4, 3, 0);
        let one = steps(103, 12, 1, 0);
        assert_eq!(many[0].len(), one[0].len());
        for (step, whole) in one[0].iter().enumerate() {
            let joined: Vec<usize> = many.iter().flat_map(|rank| rank[step].own.clone()).collect();
            assert_eq!(joined, whole.own.clone().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_rank_may_be_without_samples_and_then_has_no_weight() {
        let ranks = steps(2, 4, 3, 0);
        let sizes: Vec<usize> = ranks.iter().map(|rank| rank[0].own.len()).collect();
        assert_eq!(sizes, [1, 1, 0]);
        let weights: Vec<f64> = ranks.iter().map(|rank| rank[0].weight(3)).collect();
        assert_eq!(weights, [1.5, 1.5, 0.0]);
    }

    #[test]
    fn numbers_at_the_limit_do_not_overflow() {
        let share = Share { draws: 10, batch: usize::MAX, rank: 1, world_size: 4 };
        assert_eq!(share.steps(0).map(|part| part.own).collect::<Vec<_>>(), vec![3..6]);
        assert_eq!(share.steps(11).len(), 0);
    }
}
