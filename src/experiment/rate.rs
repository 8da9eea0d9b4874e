//! The learning rate of a run: its peak, scaled to the size of the steps where that is asked for, and its course.

use super::Experiment;
use crate::error::{Result, usage};
use crate::optim::{Schedule, Timeline};
use serde::Serialize;

/// The learning rate of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The step, from 0.
    pub step: u64,
    /// The same in epochs.
    pub epoch: f64,
    /// Its learning rate, before any drop of a plateau.
    pub lr: f64,
}

impl Experiment {
    /// Learning rate at the peak of the schedule: `optim.lr`, or with `optim.lr_per` `optim.lr` · samples in a step /
    /// `optim.lr_per`.
    pub fn peak_lr(&self) -> f64 {
        let lr = self.optim.lr;
        self.optim.lr_per.map_or(lr, |per| lr * self.train.samples_per_step() as f64 / per as f64)
    }

    /// How a scaled peak comes about: `0.4 = 0.1 · 1024 / 256`. Nothing where the rate is taken as it is written.
    pub fn scaled_lr(&self) -> Option<String> {
        let (lr, samples) = (self.optim.lr, self.train.samples_per_step());
        self.optim.lr_per.map(|per| format!("{} = {lr} · {samples} / {per}", rounded(self.peak_lr())))
    }

    /// Optimizer steps in an epoch over `samples` training samples.
    pub fn steps_per_epoch(&self, samples: usize) -> u64 {
        self.data.sampling.draws(samples).div_ceil(self.train.samples_per_step()) as u64
    }

    /// Length of the run in steps, with so many an epoch.
    ///
    /// # Errors
    /// When it would have none.
    pub fn timeline(&self, steps_per_epoch: u64) -> Result<Timeline> {
        let total_steps = self.train.duration.steps(steps_per_epoch, 0);
        if total_steps == 0 {
            let message = format!("`train.duration` is {}, less than one step", self.train.duration);
            return Err(usage(message).hint("for example \"2ep\" or \"500st\"").into());
        }
        Ok(Timeline { total_steps, steps_per_epoch })
    }

    /// The learning rate at up to `count` steps, at equal distances from the first to the last.
    ///
    /// # Errors
    /// When the schedule does not fit the run.
    pub fn lr_course(&self, timeline: Timeline, count: usize) -> Result<Vec<Point>> {
        let samples = Schedule::new(&self.schedule, timeline)?.samples(count);
        let point = |(step, factor): (u64, f64)| Point {
            step,
            epoch: step as f64 / timeline.steps_per_epoch as f64,
            lr: self.peak_lr() * factor,
        };
        Ok(samples.into_iter().map(point).collect())
    }
}

/// A figure without the last digits, which arithmetic has made up: for people.
pub fn rounded(figure: f64) -> f64 {
    format!("{figure:.9e}").parse().unwrap_or(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_scaled_only_where_that_is_asked_for() {
        let mut experiment = Experiment::default();
        (experiment.train.batch_size, experiment.train.accumulate) = (128, 8);
        assert_eq!((experiment.peak_lr(), experiment.scaled_lr()), (0.1, None));
        experiment.optim.lr_per = Some(256);
        assert_eq!(experiment.peak_lr(), 0.1 * 1024.0 / 256.0);
        assert_eq!(experiment.scaled_lr().unwrap(), "0.4 = 0.1 · 1024 / 256");
        experiment.train.batch_size = 24;
        assert_eq!(experiment.scaled_lr().unwrap(), "0.075 = 0.1 · 192 / 256");
    }

    #[test]
    fn a_course_begins_and_ends_with_the_run() {
        let experiment = Experiment::default();
        let timeline = experiment.timeline(experiment.steps_per_epoch(1000)).unwrap();
        assert_eq!((timeline.steps_per_epoch, timeline.total_steps), (8, 16));
        let course = experiment.lr_course(timeline, 1000).unwrap();
        assert_eq!(course.len(), 16);
        // Three steps of warm-up (20 % of 16), a quarter of the peak first.
        assert_eq!(course[0], Point { step: 0, epoch: 0.0, lr: 0.1 * (1.0 / 4.0) });
        assert_eq!((course[3].lr, course[15].epoch), (0.1, 15.0 / 8.0));
    }
}
