//! Counts for each class, and which class is taken for which.

use super::guesses::Guess;
use std::collections::HashMap;

/// Counts of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Samples of the class.
    pub seen: u64,
    /// Those of them that are right at the first guess.
    pub top1: u64,
    /// Those of them that are right within five guesses.
    pub top5: u64,
    /// Samples of any class that were taken for this one.
    pub predicted: u64,
}

impl ClassCounts {
    /// Share of the class's samples that are right at the first guess (its recall); none of none.
    pub fn top1_accuracy(&self) -> Option<f64> {
        share(self.top1, self.seen)
    }

    /// Share of the class's samples that are right within five guesses.
    pub fn top5_accuracy(&self) -> Option<f64> {
        share(self.top5, self.seen)
    }

    /// Share of the samples taken for the class that are of it.
    pub fn precision(&self) -> Option<f64> {
        share(self.top1, self.predicted)
    }
}

fn share(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

/// Counts of every class.
#[derive(Debug)]
pub struct PerClass(Vec<ClassCounts>);

impl PerClass {
    /// Nothing yet, of `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self(vec![ClassCounts::default(); classes])
    }

    /// Counts a sample.
    pub fn add(&mut self, guess: &Guess<'_>) {
        let own = &mut self.0[guess.label];
        own.seen += 1;
        own.top1 += u64::from(guess.is_right());
        own.top5 += u64::from(guess.is_close());
        self.0[guess.predicted()].predicted += 1;
    }

    /// The counts, in the order of the classes.
    pub fn counts(&self) -> &[ClassCounts] {
        &self.0
    }
}

/// How many samples of each class are taken for each. Only what occurs is in memory.
#[derive(Debug, Default)]
pub struct Confusion(HashMap<(usize, usize), u64>);

impl Confusion {
    /// Counts a sample.
    pub fn add(&mut self, guess: &Guess<'_>) {
        *self.0.entry((guess.label, guess.predicted())).or_default() += 1;
    }

    /// Samples of class `label` that were taken for class `predicted`.
    pub fn of(&self, label: usize, predicted: usize) -> u64 {
        self.0.get(&(label, predicted)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(label: usize, classes: &[i64]) -> Guess<'_> {
        Guess { label, classes, probabilities: &[], of_label: 0.0 }
    }

    #[test]
    fn classes_are_counted_by_label_and_by_prediction() {
        let (mut per_class, mut confusion) = (PerClass::new(4), Confusion::default());
        let guesses =
            [guess(0, &[0, 1]), guess(0, &[2, 0]), guess(0, &[2, 1]), guess(2, &[2, 0]), guess(1, &[0, 2])];
        for guess in &guesses {
            per_class.add(guess);
            confusion.add(guess);
        }
        let counts = |seen, top1, top5, predicted| ClassCounts { seen, top1, top5, predicted };
        assert_eq!(
            per_class.counts(),
            [counts(3, 1, 2, 2), counts(1, 0, 0, 0), counts(1, 1, 1, 3), counts(0, 0, 0, 0)]
        );
        let [zero, one, two, three] = [0, 1, 2, 3].map(|class: usize| per_class.counts()[class]);
        assert_eq!((zero.top1_accuracy(), zero.precision()), (Some(1.0 / 3.0), Some(0.5)));
        assert_eq!((one.top1_accuracy(), one.precision()), (Some(0.0), None));
        assert_eq!((two.top5_accuracy(), two.precision()), (Some(1.0), Some(1.0 / 3.0)));
        assert_eq!((three.top1_accuracy(), three.top5_accuracy()), (None, None));
        assert_eq!((confusion.of(0, 2), confusion.of(2, 0), confusion.of(1, 0)), (2, 0, 1));
    }
}
