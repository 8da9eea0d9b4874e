//! Which samples, in which order: a function of the seed and the epoch.

use crate::rng;
use rand::Rng;

/// The samples of one epoch, shuffled.
pub fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    shuffle_front(&mut order, len, &mut rng::stream(seed, "order", [epoch, 0]));
    order
}

/// `limit` of `len` samples, drawn without replacement and sorted.
pub fn subset(len: usize, limit: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    shuffle_front(&mut order, limit, &mut rng::stream(seed, "subset", [0, 0]));
    order.truncate(limit);
    order.sort_unstable();
    order
}

/// Fisher-Yates, as far as the first `count` places.
pub(super) fn shuffle_front(order: &mut [usize], count: usize, random: &mut impl Rng) {
    for place in 0..count.min(order.len()) {
        let other = random.random_range(place..order.len());
        order.swap(place, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once_and_epochs_differ() {
        let mut first = shuffled(1000, 7, 0);
        assert_eq!(first, shuffled(1000, 7, 0));
        assert_ne!(first, shuffled(1000, 7, 1));
        assert_ne!(first, shuffled(1000, 8, 0));
        first.sort_unstable();
        assert_eq!(first, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_subset_has_its_size_and_no_sample_twice() {
        let mut some = subset(1000, 100, 7);
        assert_eq!(some.len(), 100);
        some.dedup();
        assert_eq!(some.len(), 100);
        assert_eq!(subset(5, 9, 7).len(), 5);
    }
}
