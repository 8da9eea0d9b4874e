//! What a network makes of the samples of a batch, one by one, on the host.

use super::{GUESSES, best_classes};
use tch::{Device, Kind, TchError, Tensor};

/// The best classes of some samples, with their probabilities.
#[derive(Debug)]
pub struct Guesses {
    labels: Vec<i64>,
    /// Classes of each sample, the best first: as many a sample as there are classes, up to five.
    classes: Vec<i64>,
    probabilities: Vec<f64>,
    of_label: Vec<f64>,
}

/// What a network makes of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess<'a> {
    /// The right class.
    pub label: usize,
    /// The best classes, the best first.
    pub classes: &'a [i64],
    /// Their probabilities, fractions of 1.
    pub probabilities: &'a [f64],
    /// The probability of the right class.
    pub of_label: f64,
}

impl Guesses {
    /// Of logits `[N, classes]` and labels `[N]`. The best classes are those that [`Counters`](super::Counters) counts;
    /// probabilities are their softmax in float64.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn read(logits: &Tensor, labels: &Tensor) -> Result<Self, TchError> {
        let best = best_classes(logits, GUESSES)?;
        let probabilities = logits.f_softmax(1, Kind::Double)?;
        let of_best = probabilities.f_gather(1, &best, false)?;
        let of_label = probabilities.f_gather(1, &labels.f_unsqueeze(1)?, false)?;
        // sync: waits for the batch.
        let on_host = |tensor: &Tensor| tensor.f_flatten(0, -1)?.f_to_device(Device::Cpu);
        Ok(Self {
            labels: Vec::try_from(on_host(labels)?)?,
            classes: Vec::try_from(on_host(&best)?)?,
            probabilities: Vec::try_from(on_host(&of_best)?)?,
            of_label: Vec::try_from(on_host(&of_label)?)?,
        })
    }

    /// Sample by sample.
    pub fn iter(&self) -> impl Iterator<Item = Guess<'_>> {
        let each = (self.classes.len() / self.labels.len().max(1)).max(1);
        let best = self.classes.chunks_exact(each).zip(self.probabilities.chunks_exact(each));
        let labels = self.labels.iter().zip(&self.of_label);
        labels.zip(best).map(|((&label, &of_label), (classes, probabilities))| Guess {
            label: label as usize,
            classes,
            probabilities,
            of_label,
        })
    }
}

impl Guess<'_> {
    /// The class that is predicted.
    pub fn predicted(&self) -> usize {
        self.classes[0] as usize
    }

    /// Whether that is the right one.
    pub fn is_right(&self) -> bool {
        self.predicted() == self.label
    }

    /// Whether the right one is among the best five.
    pub fn is_close(&self) -> bool {
        self.classes.contains(&(self.label as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_come_with_their_probabilities() {
        // Softmax of ln p is p.
        let logits = Tensor::from_slice2(&[[0.1f32, 0.2, 0.7], [0.5, 0.25, 0.25]]).log();
        let guesses = Guesses::read(&logits, &Tensor::from_slice(&[1i64, 0])).unwrap();
        let guesses: Vec<_> = guesses.iter().collect();
        let [one, two] = guesses[..] else { panic!("{guesses:?}") };
        assert_eq!(
            (one.label, one.classes, one.is_right(), one.is_close()),
            (1, &[2, 1, 0][..], false, true)
        );
        assert!((one.of_label - 0.2).abs() < 1e-6 && (one.probabilities[0] - 0.7).abs() < 1e-6, "{one:?}");
        assert_eq!((two.predicted(), two.is_right()), (0, true));
        assert!((two.of_label - 0.5).abs() < 1e-6, "{two:?}");
    }
}
