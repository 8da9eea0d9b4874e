//! The learning rate over time: a factor of `optim.lr`, a pure function of the step.

use crate::duration::Duration;
use crate::error::{Result, usage};
use serde::{Deserialize, Serialize};

/// How the learning rate changes. Each begins with a linear warm-up from 0 over `warmup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleSpec {
    /// No change.
    Constant {
        /// Length of the warm-up.
        #[serde(default)]
        warmup: Duration,
    },
    /// Half a cosine from the peak to `end` times the peak.
    Cosine {
        /// Length of the warm-up.
        #[serde(default)]
        warmup: Duration,
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// A straight line from the peak to `end` times the peak.
    Linear {
        /// Length of the warm-up.
        #[serde(default)]
        warmup: Duration,
        /// Factor at the last step.
        #[serde(default)]
        end: f64,
    },
    /// Times `factor` after each `every` (the paper: ÷ 10 each 30 epochs).
    Step {
        /// Length of the warm-up.
        #[serde(default)]
        warmup: Duration,
        /// Time between two drops.
        every: Duration,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// Times `factor` whenever the evaluation loss has not improved for `patience` evaluations.
    Plateau {
        /// Length of the warm-up.
        #[serde(default)]
        warmup: Duration,
        /// Evaluations without improvement that are borne.
        #[serde(default = "patience")]
        patience: u64,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        factor: f64,
        /// Drops after which training stops at the next plateau; 0 is never.
        #[serde(default)]
        max_drops: u64,
    },
}

fn tenth() -> f64 {
    0.1
}

fn patience() -> u64 {
    5
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        ScheduleSpec::Cosine { warmup: Duration::Percent(20.0), end: 0.0 }
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// Steps in all.
    pub total_steps: u64,
    /// Steps of one pass over the training set.
    pub steps_per_epoch: u64,
}

impl Timeline {
    /// Steps in `duration`; a percentage is one of the whole run.
    pub fn steps(&self, duration: Duration) -> u64 {
        duration.steps(self.steps_per_epoch, self.total_steps)
    }
}

/// A schedule in steps.
#[derive(Debug, Clone)]
pub struct Schedule {
    spec: ScheduleSpec,
    warmup: u64,
    every: u64,
    total: u64,
}

impl Schedule {
    /// Translates all durations to steps.
    ///
    /// # Errors
    /// When a drop comes every 0 steps or a factor or `end` is not between 0 and 1.
    pub fn new(spec: &ScheduleSpec, timeline: Timeline) -> Result<Self> {
        let (ScheduleSpec::Constant { warmup }
        | ScheduleSpec::Cosine { warmup, .. }
        | ScheduleSpec::Linear { warmup, .. }
        | ScheduleSpec::Step { warmup, .. }
        | ScheduleSpec::Plateau { warmup, .. }) = spec;
        let mut every = 0;
        if let ScheduleSpec::Step { every: between, .. } = spec {
            every = timeline.steps(*between);
            if every == 0 {
                return Err(usage(format!("`schedule.every` is {between}, less than one step")).into());
            }
        }
        if let ScheduleSpec::Step { factor, .. } | ScheduleSpec::Plateau { factor, .. } = spec
            && !(*factor > 0.0 && *factor <= 1.0)
        {
            return Err(usage(format!("`schedule.factor` is {factor}, but it must be in (0, 1]")).into());
        }
        if let ScheduleSpec::Cosine { end, .. } | ScheduleSpec::Linear { end, .. } = spec
            && !(0.0..=1.0).contains(end)
        {
            return Err(usage(format!("`schedule.end` is {end}, but it must be from 0 to 1")).into());
        }
        Ok(Self { spec: spec.clone(), warmup: timeline.steps(*warmup), every, total: timeline.total_steps })
    }

    /// What `optim.lr` is multiplied with at `step`, counted from 0, before any plateau.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let rest = (self.total - self.warmup.min(self.total)).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / rest).min(1.0);
        match self.spec {
            ScheduleSpec::Constant { .. } | ScheduleSpec::Plateau { .. } => 1.0,
            ScheduleSpec::Cosine { end, .. } => {
                end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleSpec::Linear { end, .. } => 1.0 + (end - 1.0) * progress,
            ScheduleSpec::Step { factor, .. } => factor.powi((step / self.every) as i32),
        }
    }
}

/// What a plateau schedule remembers; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// Product of all drops so far.
    pub factor: f64,
    /// Drops so far.
    pub drops: u64,
    /// Lowest evaluation loss so far.
    pub best_loss: Option<f64>,
    /// Evaluations since then, or since the last drop.
    pub waited: u64,
    /// Whether the last plateau came after the last allowed drop.
    pub exhausted: bool,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { factor: 1.0, drops: 0, best_loss: None, waited: 0, exhausted: false }
    }
}

impl Plateau {
    /// Takes note of an evaluation; nothing happens under another schedule.
    pub fn observe(&mut self, spec: &ScheduleSpec, loss: f64) {
        let ScheduleSpec::Plateau { patience, factor, max_drops, .. } = spec else { return };
        if self.best_loss.is_none_or(|best| loss < best) {
            self.best_loss = Some(loss);
            self.waited = 0;
            return;
        }
        self.waited += 1;
        if self.waited > *patience {
            self.waited = 0;
            if *max_drops > 0 && self.drops == *max_drops {
                self.exhausted = true;
            } else {
                self.drops += 1;
                self.factor *= factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMELINE: Timeline = Timeline { total_steps: 100, steps_per_epoch: 10 };

    fn factors(spec: &ScheduleSpec, steps: &[u64]) -> Vec<f64> {
        let schedule = Schedule::new(spec, TIMELINE).unwrap();
        steps.iter().map(|step| (schedule.factor(*step) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn the_formulas_hold() {
        let warmup = Duration::Steps(4);
        let constant = ScheduleSpec::Constant { warmup };
        assert_eq!(factors(&constant, &[0, 1, 3, 4, 99]), [0.2, 0.4, 0.8, 1.0, 1.0]);
        let cosine = ScheduleSpec::Cosine { warmup: Duration::Steps(0), end: 0.0 };
        assert_eq!(factors(&cosine, &[0, 50, 100]), [1.0, 0.5, 0.0]);
        let linear = ScheduleSpec::Linear { warmup: Duration::Epochs(2.0), end: 0.0 };
        assert_eq!(factors(&linear, &[20, 60, 100]), [1.0, 0.5, 0.0]);
        let step =
            ScheduleSpec::Step { warmup: Duration::Steps(0), every: Duration::Percent(30.0), factor: 0.1 };
        assert_eq!(factors(&step, &[0, 29, 30, 60, 90]), [1.0, 1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn a_plateau_drops_after_patience_and_stops_after_its_last_drop() {
        let spec =
            ScheduleSpec::Plateau { warmup: Duration::Steps(0), patience: 1, factor: 0.1, max_drops: 1 };
        let mut plateau = Plateau::default();
        for (loss, factor, exhausted) in [
            (1.0, 1.0, false),
            (1.1, 1.0, false),
            (1.1, 0.1, false),
            (0.9, 0.1, false),
            (0.9, 0.1, false),
            (0.9, 0.1, true),
        ] {
            plateau.observe(&spec, loss);
            assert_eq!((plateau.factor, plateau.exhausted), (factor, exhausted), "{plateau:?}");
        }
    }

    #[test]
    fn a_drop_every_no_steps_is_refused() {
        let spec =
            ScheduleSpec::Step { warmup: Duration::Steps(0), every: Duration::Percent(0.1), factor: 0.1 };
        assert!(Schedule::new(&spec, TIMELINE).unwrap_err().to_string().contains("schedule.every"));
    }
}
