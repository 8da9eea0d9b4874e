//! Which samples an epoch has, in which order: functions of the labels, the seed and the epoch. In all orders but the
//! plain one samples may come more than once or not at all.
//!
//! A sample that comes more than once has to be augmented anew each time: its random stream must be told apart by
//! its place in the order, not by its number.

use super::augment::check::{self, Key};
use super::order::{shuffle_front, shuffled};
use crate::error::{Result, usage};
use crate::rng;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The samples of an epoch. In JSON an object that names its `kind`: `{"kind": "class-aware"}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Sampling {
    /// Every sample once, shuffled.
    #[default]
    Shuffled,
    /// All classes equally often: [`class_aware`].
    ClassAware,
    /// Independent draws, classes by their frequency to the power of 1 - `power`: [`weighted`] by [`rarity`].
    Weighted {
        /// 0 leaves the data as it is, 1 gives all classes the same share.
        #[schemars(range(min = 0, max = 2))]
        power: f64,
    },
    /// Each sample several times in a row, so an epoch sees a part of the data: [`repeated`].
    Repeated {
        /// Times.
        #[serde(default = "three")]
        #[schemars(range(min = 1, max = 100))]
        repeats: usize,
    },
}

fn three() -> usize {
    3
}

impl Sampling {
    /// Draws in an epoch over `samples` samples.
    pub fn draws(self, samples: usize) -> usize {
        match self {
            Self::Repeated { .. } => repeated_draws(samples),
            _ => samples,
        }
    }

    /// Whether an epoch may have a sample more than once.
    pub fn repeats(self) -> bool {
        self != Self::Shuffled
    }

    /// The samples of `epoch` of a data set that has these `labels`, in order.
    ///
    /// # Errors
    /// When the data set is too uneven for the weights.
    pub fn order(
        self,
        labels: impl ExactSizeIterator<Item = usize>,
        seed: u64,
        epoch: u64,
    ) -> Result<Vec<usize>> {
        let samples = labels.len();
        Ok(match self {
            Self::Shuffled => shuffled(samples, seed, epoch),
            Self::ClassAware => class_aware(&labels.collect::<Vec<_>>(), seed, epoch),
            Self::Weighted { power } => {
                weighted(&rarity(&labels.collect::<Vec<_>>(), power), samples, seed, epoch)?
            }
            Self::Repeated { repeats } => repeated(samples, repeats, seed, epoch),
        })
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key and the range are named.
    pub fn check(self, path: &str) -> Result<()> {
        match self {
            Self::Shuffled | Self::ClassAware => Ok(()),
            Self::Weighted { power } => {
                let hint = "1 gives all classes the same share, 0.5 is half-way";
                check::range(Key::object(path).at("power"), power, 0.0..=2.0, hint)
            }
            Self::Repeated { repeats } => {
                let hint = "3 is usual for repeated augmentation";
                check::range(Key::object(path).at("repeats"), repeats as f64, 1.0..=100.0, hint)
            }
        }
    }
}

/// Class-aware sampling (Relay Backpropagation, Shen et al. 2016; the SE paper's "data balancing"): every draw takes
/// the next class of a shuffled list of all classes, then the next sample of a shuffled list of that class; a list
/// at its end is shuffled again. As many draws as there are samples.
///
/// So the classes are as equal as can be, in every batch, and a class's samples are used evenly. Classes without
/// samples are left out.
pub fn class_aware(labels: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
    let classes = labels.iter().max().map_or(0, |most| most + 1);
    let mut members = vec![Vec::new(); classes];
    for (sample, &label) in labels.iter().enumerate() {
        members[label].push(sample);
    }
    members.retain(|samples| !samples.is_empty());
    let mut random = rng::stream(seed, "class-aware", [epoch, 0]);
    let mut lists: Vec<Rounds> = members.into_iter().map(Rounds::new).collect();
    let mut turn = Rounds::new((0..lists.len()).collect());
    (0..labels.len())
        .map(|_| {
            let class = turn.next(&mut random);
            lists[class].next(&mut random)
        })
        .collect()
}

/// Values that come in rounds: each once, in random order, then all again. Not empty.
struct Rounds {
    values: Vec<usize>,
    next: usize,
}

impl Rounds {
    fn new(values: Vec<usize>) -> Self {
        // At its end from the start: the first round is shuffled, too.
        Self { next: values.len(), values }
    }

    fn next(&mut self, random: &mut impl Rng) -> usize {
        if self.next == self.values.len() {
            let len = self.values.len();
            shuffle_front(&mut self.values, len, random);
            self.next = 0;
        }
        self.next += 1;
        self.values[self.next - 1]
    }
}

/// `count` independent draws, each of sample i with a probability proportional to `weights[i]` (with replacement, as
/// PyTorch's WeightedRandomSampler).
///
/// # Errors
/// When a weight is negative or not finite, or all are 0.
pub fn weighted(weights: &[f64], count: usize, seed: u64, epoch: u64) -> Result<Vec<usize>> {
    if let Some(at) = weights.iter().position(|weight| !(0.0..f64::INFINITY).contains(weight)) {
        let message = format!("the weight of sample {at} is {}, but 0 or more is expected", weights[at]);
        return Err(usage(message).into());
    }
    let mut total = 0.0;
    let ends: Vec<f64> = weights
        .iter()
        .map(|weight| {
            total += weight;
            total
        })
        .collect();
    if count > 0 && !(total > 0.0 && total.is_finite()) {
        let message = format!("the weights of {} samples add up to {total}", weights.len());
        return Err(usage(message).hint("at least one sample needs a weight").into());
    }
    let mut random = rng::stream(seed, "weighted", [epoch, 0]);
    // The last sample with a weight, should rounding lead past it.
    let last = weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
    let draw = |_| {
        let place = random.random::<f64>() * total;
        ends.partition_point(|&end| end <= place).min(last)
    };
    Ok((0..count).map(draw).collect())
}

/// Weights of samples for [`weighted`]: the frequency of their class to the power of -`power`. 0 leaves the data as
/// it is, 1 gives all classes the same share, 0.5 is half-way.
pub fn rarity(labels: &[usize], power: f64) -> Vec<f64> {
    let mut counts = vec![0u32; labels.iter().max().map_or(0, |most| most + 1)];
    for &label in labels {
        counts[label] += 1;
    }
    labels.iter().map(|&label| f64::from(counts[label]).powf(-power)).collect()
}

/// Repeated augmentation (Hoffer et al. 2019), as timm's and torchvision's samplers have it for one process: the
/// shuffled samples, each `repeats` times in a row, up to as many draws as there are samples — of 256 samples or
/// more, rounded down to a multiple of 256. So an epoch sees 1 / `repeats` of the data; `repeats` of 0 counts as 1.
pub fn repeated(len: usize, repeats: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let samples = shuffled(len, seed, epoch).into_iter();
    samples.flat_map(|sample| std::iter::repeat_n(sample, repeats.max(1))).take(repeated_draws(len)).collect()
}

fn repeated_draws(len: usize) -> usize {
    if len >= 256 { len / 256 * 256 } else { len }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 classes of 2, 4, … 20 samples.
    fn labels() -> Vec<usize> {
        (0..10).flat_map(|class| vec![class; 2 * (class + 1)]).collect()
    }

    #[test]
    fn class_aware_orders_balance_every_stretch() {
        let labels = labels();
        let order = class_aware(&labels, 7, 3);
        assert_eq!(order, class_aware(&labels, 7, 3));
        assert_ne!(order, class_aware(&labels, 7, 4));
        assert_ne!(order, class_aware(&labels, 8, 3));
        assert_eq!(order.len(), 110);
        for ten in order.chunks_exact(10) {
            let mut classes: Vec<usize> = ten.iter().map(|&sample| labels[sample]).collect();
            classes.sort_unstable();
            assert_eq!(classes, (0..10).collect::<Vec<_>>());
        }
        // Eleven draws of each class: of two samples six or five each, of twenty eleven different ones.
        let count = |sample: usize| order.iter().filter(|&&drawn| drawn == sample).count();
        assert_eq!(count(0) + count(1), 11);
        assert!(count(0).abs_diff(count(1)) == 1);
        assert!((90..110).all(|sample| count(sample) <= 1));
    }

    #[test]
    fn classes_without_samples_are_left_out() {
        assert_eq!(class_aware(&[], 0, 0), [0; 0]);
        let mut order = class_aware(&[5, 5, 9], 0, 0);
        order.retain(|&sample| sample == 2);
        assert!((1..=2).contains(&order.len()));
    }

    #[test]
    fn weights_are_shares() {
        let order = weighted(&[0.0, 1.0, 3.0, 0.0], 8000, 1, 0).unwrap();
        assert_eq!(order, weighted(&[0.0, 1.0, 3.0, 0.0], 8000, 1, 0).unwrap());
        assert_ne!(order, weighted(&[0.0, 1.0, 3.0, 0.0], 8000, 1, 1).unwrap());
        let ones = order.iter().filter(|&&sample| sample == 1).count() as f64 / 8000.0;
        assert!((ones - 0.25).abs() < 0.02, "{ones}");
        assert!(order.iter().all(|sample| [1, 2].contains(sample)));
        assert_eq!(weighted(&[], 0, 1, 0).unwrap(), [0; 0]);
        for bad in [&[0.0, 0.0][..], &[1.0, -1.0], &[f64::NAN], &[f64::INFINITY], &[]] {
            assert!(weighted(bad, 1, 0, 0).is_err(), "{bad:?}");
        }
        let labels = labels();
        let weights = rarity(&labels, 1.0);
        let share: f64 = labels.iter().zip(&weights).filter(|(label, _)| **label == 3).map(|(_, w)| w).sum();
        assert!((share - 1.0).abs() < 1e-12);
        assert!(rarity(&labels, 0.0).iter().all(|&weight| weight == 1.0));
    }

    #[test]
    fn repeats_come_in_a_row_and_the_epoch_keeps_its_length() {
        let order = repeated(1000, 3, 7, 0);
        assert_eq!(order.len(), 768);
        assert_eq!(
            order[..300],
            shuffled(1000, 7, 0)[..100].iter().flat_map(|&s| [s; 3]).collect::<Vec<_>>()
        );
        assert_ne!(order, repeated(1000, 3, 7, 1));
        assert_eq!(repeated(100, 1, 7, 0), shuffled(100, 7, 0));
        assert_eq!(repeated(100, 4, 7, 0).len(), 100);
    }
}
