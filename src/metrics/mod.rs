//! Evaluation counts: how many are right of how many seen. Sums are kept on the device and divided once. What is counted
//! sample by sample is counted on the host, of [`guesses`]: [`by_class`], and in [`calibration`].

pub mod by_class;
pub mod calibration;
pub mod guesses;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

/// Predictions that count for top-5 accuracy.
const GUESSES: i64 = 5;

/// Returns the `count` classes with the highest logits, int64 `[N, count]` of `[N, classes]`, the highest first. Of equal
/// logits the lower class comes first; libtorch's `topk` promises no order.
///
/// # Errors
/// When libtorch refuses.
pub fn best_classes(logits: &Tensor, count: i64) -> Result<Tensor, TchError> {
    let (stable, descending) = (true, true);
    let (_, classes) = logits.f_sort_stable(stable, 1, descending)?;
    classes.f_narrow(1, 0, count.min(logits.size()[1]))
}

/// Returns how many classes come before the label's in the order of [`best_classes`], int64 `[N]`, without sorting.
fn rank_of_label(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let labels = labels.f_unsqueeze(1)?;
    let of_label = logits.f_gather(1, &labels, false)?;
    let classes = Tensor::f_arange(logits.size()[1], (Kind::Int64, logits.device()))?;
    // A logit that is NaN is never below the label's.
    let higher = logits.f_le_tensor(&of_label)?.f_logical_not()?;
    let before = logits.f_eq_tensor(&of_label)?.f_logical_and(&classes.f_lt_tensor(&labels)?)?;
    higher.f_logical_or(&before)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
}

/// Counts of some samples, on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Samples.
    pub seen: u64,
    /// Samples whose highest logit is the label's.
    pub top1: u64,
    /// Samples whose label is among the five highest logits.
    pub top5: u64,
    /// Sum of the samples' losses.
    pub loss_sum: f64,
}

impl Totals {
    /// Mean loss; NaN of nothing.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.seen as f64
    }

    /// Share of samples that are right at the first guess.
    pub fn top1_accuracy(&self) -> f64 {
        self.top1 as f64 / self.seen as f64
    }

    /// Share of samples that are right within five guesses.
    pub fn top5_accuracy(&self) -> f64 {
        self.top5 as f64 / self.seen as f64
    }

    /// In the order of the fields; counts below 2^53 are exact.
    pub fn to_array(&self) -> [f64; 4] {
        [self.seen as f64, self.top1 as f64, self.top5 as f64, self.loss_sum]
    }

    /// The other way around; nothing of other lengths.
    pub fn from_slice(values: &[f64]) -> Option<Self> {
        let &[seen, top1, top5, loss_sum] = values else { return None };
        Some(Self { seen: seen as u64, top1: top1 as u64, top5: top5 as u64, loss_sum })
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            seen: self.seen - earlier.seen,
            top1: self.top1 - earlier.top1,
            top5: self.top5 - earlier.top5,
            loss_sum: self.loss_sum - earlier.loss_sum,
        }
    }
}

/// The same counts, on the device.
#[derive(Debug)]
pub struct Counters {
    seen: u64,
    /// float64 `[3]`: top-1, top-5, sum of losses. Counts below 2^53 are exact in it.
    sums: Tensor,
}

impl Counters {
    /// Goes on from `start`.
    pub fn new(start: &Totals, device: Device) -> Self {
        let sums = Tensor::from_slice(&[start.top1 as f64, start.top5 as f64, start.loss_sum]);
        Self { seen: start.seen, sums: sums.to_device(device) }
    }

    /// Counts a batch: logits `[N, classes]`, labels `[N]`, and the batch's mean loss. Does not wait for the device.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor, mean_loss: &Tensor) -> Result<(), TchError> {
        let (logits, mean_loss) = (logits.f_detach()?, mean_loss.f_detach()?);
        let batch = labels.size()[0];
        let guesses = logits.size()[1].min(GUESSES);
        let rank = rank_of_label(&logits, labels)?;
        let top1 = rank.f_lt(1)?.f_sum(Kind::Double)?;
        let top5 = rank.f_lt(guesses)?.f_sum(Kind::Double)?;
        let loss = mean_loss.f_to_kind(Kind::Double)?.f_mul_scalar(batch as f64)?;
        self.sums = self.sums.f_add(&Tensor::f_stack(&[top1, top5, loss], 0)?)?;
        self.seen += batch as u64;
        Ok(())
    }

    /// Samples so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The counts so far.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn read(&self) -> Result<Totals, TchError> {
        // sync: waits for everything that the device was given so far.
        let sums = Vec::<f64>::try_from(self.sums.f_to_device(Device::Cpu)?)?;
        Ok(Totals { seen: self.seen, top1: sums[0] as u64, top5: sums[1] as u64, loss_sum: sums[2] })
    }
}

/// The middle one, if there is any.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let last = figures.len().checked_sub(1)?;
    Some((figures[last / 2] + figures[last.div_ceil(2)]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_not_averaged() {
        let mut counters = Counters::new(&Totals::default(), Device::Cpu);
        let logits = Tensor::from_slice2(&[[7f32, 6., 5., 4., 3., 2., 1.], [1., 2., 3., 4., 5., 6., 7.]]);
        let loss = Tensor::from(0.5f32);
        counters.add(&logits, &Tensor::from_slice(&[0i64, 2]), &loss).unwrap();
        counters.add(&logits.narrow(0, 0, 1), &Tensor::from_slice(&[5i64]), &loss).unwrap();
        let totals = counters.read().unwrap();
        assert_eq!(totals, Totals { seen: 3, top1: 1, top5: 2, loss_sum: 1.5 });
    }

    #[test]
    fn of_equal_logits_the_lower_class_comes_first() {
        // More classes than a sort that is not stable leaves in order by chance; few values, so that many are equal.
        let classes = 100;
        let value = |at: i64| (at * 37 % 11 / 4) as f32;
        let rows = Tensor::from_slice(&(0..classes * classes).map(value).collect::<Vec<_>>());
        let spread = rows.view([classes, classes]);
        let labels = Tensor::arange(classes, (Kind::Int64, Device::Cpu));
        for logits in [spread.zeros_like(), spread.shallow_clone(), spread.to_kind(Kind::BFloat16)] {
            let order = Vec::<Vec<i64>>::try_from(best_classes(&logits, classes).unwrap()).unwrap();
            let values = Vec::<Vec<f32>>::try_from(logits.to_kind(Kind::Float)).unwrap();
            for (order, values) in order.iter().zip(&values) {
                let key = |class: &i64| (-values[*class as usize] as i64, *class);
                assert!(order.is_sorted_by_key(key), "{order:?}");
            }
            let ranks = Vec::<i64>::try_from(rank_of_label(&logits, &labels).unwrap()).unwrap();
            for (label, (order, rank)) in order.iter().zip(ranks).enumerate() {
                assert_eq!(order[rank as usize], label as i64);
            }
        }
        let mut counters = Counters::new(&Totals::default(), Device::Cpu);
        counters.add(&spread.zeros_like(), &labels, &Tensor::from(1f32)).unwrap();
        let totals = counters.read().unwrap();
        assert_eq!((totals.top1, totals.top5), (1, 5), "only class 0, and classes 0 to 4, are right");
    }

    #[test]
    fn fewer_than_five_classes_are_all_within_five_guesses() {
        let mut counters = Counters::new(&Totals::default(), Device::Cpu);
        let logits = Tensor::from_slice2(&[[1f32, 2.], [2., 1.]]);
        counters.add(&logits, &Tensor::from_slice(&[0i64, 0]), &Tensor::from(1f32)).unwrap();
        assert_eq!(counters.read().unwrap(), Totals { seen: 2, top1: 1, top5: 2, loss_sum: 2.0 });
    }
}
