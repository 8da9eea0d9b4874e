//! Progressive resizing: images that are smaller in training than in evaluation, and grow while the run goes on.

use crate::data::MAX_SIZE;
use crate::duration::Duration;
use crate::error::{Result, usage};
use crate::optim::Timeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Height and width of the training images over the epochs: `from` until `begin`, then larger from epoch to epoch by the
/// linear rule, in steps of `multiple`, and `to` from `end` on.
///
/// A fixed size other than the evaluation's has `to` alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SizeSpec {
    /// Size in the beginning, in pixels; `null` is `to`.
    #[schemars(range(min = 1, max = MAX_SIZE))]
    pub from: Option<usize>,
    /// Size in the end, in pixels; `null` is `data.size`.
    #[schemars(range(min = 1, max = MAX_SIZE))]
    pub to: Option<usize>,
    /// When it begins to grow.
    pub begin: Duration,
    /// When it has grown.
    pub end: Duration,
    /// What sizes in between are multiples of, in pixels.
    #[schemars(range(min = 1, max = MAX_SIZE))]
    pub multiple: usize,
}

impl Default for SizeSpec {
    fn default() -> Self {
        Self { from: None, to: None, begin: Duration::default(), end: Duration::Percent(80.0), multiple: 32 }
    }
}

impl SizeSpec {
    /// Refuses sizes that are none.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self) -> Result<()> {
        let sizes = [("from", self.from), ("to", self.to), ("multiple", Some(self.multiple))];
        for (key, size) in sizes {
            if let Some(size) = size.filter(|size| !(1..=MAX_SIZE).contains(size)) {
                let message = format!("`train.sizes.{key}` is {size}, but it must be from 1 to {MAX_SIZE}");
                return Err(usage(message).into());
            }
        }
        Ok(())
    }

    /// The size of epoch number `epoch`, from 0, of a run whose evaluations have images of `size`.
    pub fn at(&self, epoch: u64, timeline: Timeline, size: usize) -> usize {
        let to = self.to.unwrap_or(size);
        let from = self.from.unwrap_or(to);
        let step = epoch * timeline.steps_per_epoch;
        let [begin, end] = [self.begin, self.end].map(|length| timeline.steps(length));
        if step >= end {
            return to;
        }
        if step <= begin {
            return from;
        }
        let share = (step - begin) as f64 / (end - begin) as f64;
        let between = from as f64 + share * (to as f64 - from as f64);
        let rounded = (between / self.multiple as f64).round() as usize * self.multiple;
        rounded.clamp(from.min(to), from.max(to))
    }

    /// All sizes of a run, each once.
    pub fn all(&self, timeline: Timeline, size: usize) -> Vec<usize> {
        let epochs = timeline.total_steps.div_ceil(timeline.steps_per_epoch);
        let mut sizes: Vec<usize> = (0..epochs).map(|epoch| self.at(epoch, timeline, size)).collect();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCHS: Timeline = Timeline { total_steps: 880, steps_per_epoch: 10 };

    #[test]
    fn images_grow_from_epoch_to_epoch() {
        // FFCV's 88 epochs: from 160 to 192 between epochs 65 and 76; evaluation has another size again.
        let spec = SizeSpec {
            from: Some(160),
            to: Some(192),
            begin: "65ep".parse().unwrap(),
            end: "76ep".parse().unwrap(),
            ..SizeSpec::default()
        };
        assert_eq!(spec.all(EPOCHS, 256), [160, 192]);
        assert_eq!(
            [0, 65, 70, 71, 76, 87].map(|epoch| spec.at(epoch, EPOCHS, 256)),
            [160, 160, 160, 192, 192, 192]
        );
        let fine = SizeSpec { multiple: 8, ..spec };
        assert_eq!(fine.all(EPOCHS, 256), [160, 168, 176, 184, 192]);
    }

    #[test]
    fn what_is_left_out_is_the_evaluations_size() {
        assert_eq!(SizeSpec::default().all(EPOCHS, 224), [224]);
        let smaller = SizeSpec { to: Some(160), ..SizeSpec::default() };
        assert_eq!(smaller.all(EPOCHS, 224), [160]);
        let grows = SizeSpec { from: Some(128), multiple: 50, ..SizeSpec::default() };
        assert_eq!(grows.all(EPOCHS, 224), [128, 150, 200, 224]);
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        let refused = SizeSpec { from: Some(0), ..SizeSpec::default() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "`train.sizes.from` is 0, but it must be from 1 to 16384");
    }
}
