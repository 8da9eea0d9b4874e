//! Whether a network is as sure as it is right: the expected calibration error of Guo et al. 2017, "On Calibration of
//! Modern Neural Networks".

use super::guesses::Guess;
use serde::Serialize;

/// Bins of equal width that confidences are sorted into, as in Guo et al.
pub const BINS: usize = 15;

/// Samples by the probability of the class that is predicted.
#[derive(Debug, Default)]
pub struct Reliability([Sums; BINS]);

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    seen: u64,
    right: u64,
    confidence: f64,
}

/// How well confidence and accuracy agree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error (Guo et al., equation 3): Σ n / N · |accuracy - confidence| over the bins. A fraction
    /// of 1.
    pub ece: f64,
    /// The bins, from the least confident to the most.
    pub bins: Vec<Bin>,
}

/// Samples of some confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Their confidence is above this …
    pub from: f64,
    /// … and at most this.
    pub to: f64,
    /// How many they are.
    pub seen: u64,
    /// Share of them that are right; none of none.
    pub accuracy: Option<f64>,
    /// Mean probability of the class that is predicted.
    pub confidence: Option<f64>,
}

impl Reliability {
    /// Counts a sample.
    pub fn add(&mut self, guess: &Guess<'_>) {
        let confidence = guess.probabilities[0];
        // A bin has its upper end; what is no number at all falls into the first.
        let bin = (0..BINS - 1).find(|&bin| confidence <= end_of(bin)).unwrap_or(BINS - 1);
        let bin = &mut self.0[if confidence.is_nan() { 0 } else { bin }];
        bin.seen += 1;
        bin.right += u64::from(guess.is_right());
        bin.confidence += confidence;
    }

    /// The bins and their mean error.
    pub fn calibration(&self) -> Calibration {
        let all: u64 = self.0.iter().map(|bin| bin.seen).sum();
        let gap = |bin: &Sums| (bin.right as f64 - bin.confidence).abs();
        let ece = self.0.iter().map(gap).sum::<f64>() / all as f64;
        let bin = |(at, sums): (usize, &Sums)| {
            let mean = |sum: f64| (sums.seen > 0).then(|| sum / sums.seen as f64);
            let from = if at == 0 { 0.0 } else { end_of(at - 1) };
            let (accuracy, confidence) = (mean(sums.right as f64), mean(sums.confidence));
            Bin { from, to: end_of(at), seen: sums.seen, accuracy, confidence }
        };
        Calibration { ece, bins: self.0.iter().enumerate().map(bin).collect() }
    }
}

/// Upper end of a bin.
fn end_of(bin: usize) -> f64 {
    (bin + 1) as f64 / BINS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reliability(samples: &[(f64, bool)]) -> Calibration {
        let mut reliability = Reliability::default();
        for &(confidence, right) in samples {
            let label = usize::from(!right);
            reliability.add(&Guess { label, classes: &[0], probabilities: &[confidence], of_label: 0.0 });
        }
        reliability.calibration()
    }

    #[test]
    fn the_error_is_the_mean_gap_of_the_bins() {
        let found = reliability(&[(0.95, true), (1.0, true), (0.97, false), (0.5, true), (0.5, false)]);
        // (0.9333, 1]: two of three right at 0.9733; (0.4667, 0.5333]: one of two at 0.5.
        let expected = 3.0 / 5.0 * (2.92 / 3.0 - 2.0 / 3.0);
        assert!((found.ece - expected).abs() < 1e-12, "{found:?}");
        let (middle, last) = (found.bins[7], found.bins[14]);
        assert_eq!((middle.seen, middle.accuracy, middle.confidence), (2, Some(0.5), Some(0.5)));
        assert_eq!((last.seen, last.accuracy, last.to), (3, Some(2.0 / 3.0), 1.0));
        assert_eq!((found.bins[0].accuracy, found.bins.len()), (None, 15));
    }

    #[test]
    fn a_bin_has_its_upper_end() {
        let seen = |confidence| reliability(&[(confidence, true)]).bins.iter().position(|bin| bin.seen == 1);
        assert_eq!(
            [0.2, 0.2 + 1e-9, 0.4, 1.0, 0.0].map(seen),
            [Some(2), Some(3), Some(5), Some(14), Some(0)]
        );
        assert_eq!(seen(f64::NAN), Some(0));
    }

    #[test]
    fn who_is_as_sure_as_right_has_no_error() {
        let samples: Vec<(f64, bool)> = (0..10).map(|at| (0.7, at < 7)).collect();
        assert!(reliability(&samples).ece < 1e-12);
    }
}
