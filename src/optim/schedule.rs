//! The learning rate over time: a factor of `optim.lr`, a pure function of the step.

use super::spec::Range;
use crate::duration::Duration;
use crate::error::{Result, usage};
use crate::tagged::{self, Tagged};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

/// How the learning rate changes: a shape, behind a warm-up.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(transform = tagged::kinds("cosine"))]
pub struct ScheduleSpec {
    /// Length of the linear warm-up.
    #[schemars(default)]
    pub warmup: Duration,
    /// Factor s of the warm-up's first step, and then s + (1 - s) t / warmup at step t, as PyTorch's `LinearLR` and timm
    /// have it. `null` warms up from nothing without a step at 0: (t + 1) / (warmup + 1).
    #[schemars(default, range(min = 0, max = 1))]
    pub warmup_start: Option<f64>,
    /// What comes behind.
    #[schemars(flatten)]
    pub shape: Shape,
}

/// The factor behind the warm-up. T is the length of the run without the warm-up, t the step counted from the warm-up's
/// end, and t' from the run's beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "kind")]
pub enum Shape {
    /// No change.
    Constant {},
    /// Half a cosine from the peak to `end` times the peak: end + (1 - end) (1 + cos(π t / T)) / 2.
    Cosine {
        /// Factor at the end.
        #[serde(default)]
        #[schemars(range(min = 0, max = 1))]
        end: f64,
    },
    /// A straight line from the peak to `end` times the peak; with a warm-up, FFCV's schedule: 1 + (end - 1) t / T.
    Linear {
        /// Factor at the end.
        #[serde(default)]
        #[schemars(range(min = 0, max = 1))]
        end: f64,
    },
    /// Times `factor` after each `every` (the paper: ÷ 10 each 30 epochs): factor^⌊t' / every⌋.
    Step {
        /// Time between two drops.
        every: Duration,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
        factor: f64,
    },
    /// Times `factor` at each of `milestones`, counted from the run's beginning.
    MultiStep {
        /// When the rate drops, in ascending order.
        #[schemars(length(min = 1))]
        milestones: Vec<Duration>,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
        factor: f64,
    },
    /// A line up from `start` to 1 at step peak - 1, and one down to `end` at the last step: PyTorch's `OneCycleLR` with
    /// `anneal_strategy="linear"`, where `start` is 1 / div_factor and `end` 1 / (div_factor · final_div_factor).
    OneCycle {
        /// Length of the way up.
        #[serde(default = "third")]
        peak: Duration,
        /// Factor at the first step.
        #[serde(default = "twenty_fifth")]
        #[schemars(range(min = 0, max = 1))]
        start: f64,
        /// Factor at the last step.
        #[serde(default)]
        #[schemars(range(min = 0, max = 1))]
        end: f64,
    },
    /// Times `factor` whenever the evaluation loss has not improved for `patience` evaluations.
    Plateau {
        /// Evaluations without improvement that are borne.
        #[serde(default = "patience")]
        patience: u64,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
        factor: f64,
        /// Drops after which training stops at the next plateau; 0 is never.
        #[serde(default)]
        max_drops: u64,
    },
    /// Schedules one after the other, each as if the run were its part.
    Sequence {
        /// The parts.
        #[schemars(length(min = 1))]
        parts: Vec<Part>,
    },
}

/// A stretch of a run with a schedule of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// How long it is; `null`, allowed at the end, is the rest of the run.
    #[serde(default)]
    pub length: Option<Duration>,
    /// What all its factors are multiplied with.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub scale: f64,
    /// Its schedule.
    #[schemars(extend("required" = ["kind"]))]
    pub schedule: ScheduleSpec,
}

fn one() -> f64 {
    1.0
}

fn tenth() -> f64 {
    0.1
}

fn third() -> Duration {
    Duration::Percent(30.0)
}

fn twenty_fifth() -> f64 {
    0.04
}

fn patience() -> u64 {
    5
}

impl From<Shape> for ScheduleSpec {
    /// Without a warm-up.
    fn from(shape: Shape) -> Self {
        Self { warmup: Duration::default(), warmup_start: None, shape }
    }
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self { warmup: Duration::Percent(20.0), ..Shape::Cosine { end: 0.0 }.into() }
    }
}

impl<'de> Deserialize<'de> for ScheduleSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Tagged::read(deserializer, None)?;
        let warmup = object.shared("warmup")?.unwrap_or_default();
        let warmup_start = object.shared::<Option<f64>, _>("warmup_start")?.flatten();
        Ok(Self { warmup, warmup_start, shape: object.rest()? })
    }
}

impl Serialize for ScheduleSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let warmup = [("warmup", json!(self.warmup))];
        let start = self.warmup_start.map(|start| ("warmup_start", json!(start)));
        tagged::write(serializer, warmup.into_iter().chain(start), &self.shape)
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
    warmup: u64,
    warmup_start: Option<f64>,
    total: u64,
    curve: Curve,
}

/// A [`Shape`] in steps.
#[derive(Debug, Clone)]
enum Curve {
    Constant,
    Cosine { end: f64 },
    Linear { end: f64 },
    Step { every: u64, factor: f64 },
    MultiStep { milestones: Vec<u64>, factor: f64 },
    OneCycle { peak: u64, start: f64, end: f64 },
    Sequence(Vec<Stretch>),
}

/// A [`Part`] in steps.
#[derive(Debug, Clone)]
struct Stretch {
    first: u64,
    scale: f64,
    schedule: Schedule,
}

impl Schedule {
    /// Translates all durations to steps.
    ///
    /// # Errors
    /// When a factor is out of its range, a drop comes every 0 steps, or parts do not fill the run.
    pub fn new(spec: &ScheduleSpec, timeline: Timeline) -> Result<Self> {
        Self::at("schedule", spec, timeline)
    }

    fn at(key: &str, spec: &ScheduleSpec, timeline: Timeline) -> Result<Self> {
        let ScheduleSpec { warmup, warmup_start, shape } = spec;
        let within = |name: &str, factor: f64| -> Result<()> {
            if (0.0..=1.0).contains(&factor) {
                return Ok(());
            }
            Err(usage(format!("`{key}.{name}` is {factor}, but it must be from 0 to 1")).into())
        };
        let drops_by = |factor: f64| -> Result<()> {
            if factor > 0.0 && factor <= 1.0 {
                return Ok(());
            }
            Err(usage(format!("`{key}.factor` is {factor}, but it must be in (0, 1]")).into())
        };
        if let Some(start) = *warmup_start {
            within("warmup_start", start)?;
        }
        if let Shape::OneCycle { .. } | Shape::Sequence { .. } = shape
            && timeline.steps(*warmup) > 0
        {
            let message = format!("`{key}.warmup` is {warmup}, but this kind has its own beginning");
            return Err(usage(message)
                .hint("`one-cycle` has `peak`, the parts of a `sequence` their warm-ups")
                .into());
        }
        let curve = match shape {
            Shape::Constant {} => Curve::Constant,
            Shape::Plateau { factor, .. } => drops_by(*factor).map(|()| Curve::Constant)?,
            Shape::Cosine { end } => within("end", *end).map(|()| Curve::Cosine { end: *end })?,
            Shape::Linear { end } => within("end", *end).map(|()| Curve::Linear { end: *end })?,
            Shape::Step { every, factor } => {
                drops_by(*factor)?;
                let (between, every) = (every, timeline.steps(*every));
                if every == 0 {
                    return Err(usage(format!("`{key}.every` is {between}, less than one step")).into());
                }
                Curve::Step { every, factor: *factor }
            }
            Shape::MultiStep { milestones, factor } => {
                drops_by(*factor)?;
                let milestones: Vec<u64> = milestones.iter().map(|at| timeline.steps(*at)).collect();
                if milestones.is_empty() || !milestones.is_sorted() {
                    let message = format!("`{key}.milestones` must be one or more, in ascending order");
                    return Err(usage(message).hint("for example [\"30ep\", \"60ep\"]").into());
                }
                Curve::MultiStep { milestones, factor: *factor }
            }
            Shape::OneCycle { peak, start, end } => {
                within("start", *start)?;
                within("end", *end)?;
                let (length, peak) = (peak, timeline.steps(*peak));
                if !(1..timeline.total_steps).contains(&peak) {
                    let message = format!(
                        "`{key}.peak` is {length}, but it must lie within the {} steps",
                        timeline.total_steps
                    );
                    return Err(usage(message).hint("for example \"30%\"").into());
                }
                Curve::OneCycle { peak, start: *start, end: *end }
            }
            Shape::Sequence { parts } => Curve::Sequence(stretches(key, parts, timeline)?),
        };
        let (warmup, total) = (timeline.steps(*warmup), timeline.total_steps);
        Ok(Self { warmup, warmup_start: *warmup_start, total, curve })
    }

    /// What `optim.lr` is multiplied with at `step`, counted from 0, before any plateau.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = self.warmup;
        if step < warmup {
            return match self.warmup_start {
                Some(start) => start + (1.0 - start) * step as f64 / warmup as f64,
                None => (step + 1) as f64 / (warmup + 1) as f64,
            };
        }
        let rest = (self.total - warmup.min(self.total)).max(1) as f64;
        let progress = ((step - warmup) as f64 / rest).min(1.0);
        match &self.curve {
            Curve::Constant => 1.0,
            Curve::Cosine { end } => {
                end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Curve::Linear { end } => 1.0 + (end - 1.0) * progress,
            Curve::Step { every, factor } => factor.powi((step / every) as i32),
            Curve::MultiStep { milestones, factor } => {
                factor.powi(milestones.iter().filter(|at| step >= **at).count() as i32)
            }
            Curve::OneCycle { peak, start, end } => {
                let (top, last) = ((peak - 1) as f64, (self.total - 1) as f64);
                let step = (step as f64).min(last);
                if step <= top {
                    // A way up of one step is no way: the first step is the peak.
                    return if top == 0.0 { 1.0 } else { start + (1.0 - start) * step / top };
                }
                1.0 + (end - 1.0) * (step - top) / (last - top)
            }
            Curve::Sequence(stretches) => {
                let at = stretches.partition_point(|stretch| stretch.first <= step).saturating_sub(1);
                let Stretch { first, scale, schedule } = &stretches[at];
                scale * schedule.factor(step - first)
            }
        }
    }

    /// Step and factor at up to `count` steps, at equal distances from the first to the last: a plot's points.
    pub fn samples(&self, count: usize) -> Vec<(u64, f64)> {
        let last = self.total.saturating_sub(1);
        let gaps = (count.max(2) as u64 - 1).min(last.max(1));
        let mut steps: Vec<u64> =
            (0..=gaps).map(|gap| (u128::from(last) * u128::from(gap) / u128::from(gaps)) as u64).collect();
        steps.dedup();
        steps.into_iter().map(|step| (step, self.factor(step))).collect()
    }
}

/// The parts of a sequence in steps: of the run `timeline`, each of at least one.
fn stretches(key: &str, parts: &[Part], timeline: Timeline) -> Result<Vec<Stretch>> {
    let mut stretches = Vec::new();
    let mut first = 0;
    for (index, part) in parts.iter().enumerate() {
        let key = format!("{key}.parts[{index}]");
        let last = index + 1 == parts.len();
        if matches!(part.schedule.shape, Shape::Plateau { .. }) {
            let message = format!("`{key}` is a plateau, whose drops have no place in a sequence");
            return Err(usage(message).hint("use `plateau` alone, or `multi-step`").into());
        }
        Range::AboveZero.check(&format!("{key}.scale"), part.scale)?;
        let left = timeline.total_steps.saturating_sub(first);
        let steps = match part.length {
            Some(length) => timeline.steps(length),
            None if last => left,
            None => {
                let message = format!("`{key}.length` is missing; only the last part takes what is left");
                return Err(usage(message).hint("for example \"5ep\"").into());
            }
        };
        if steps == 0 || steps > left || (last && steps < left) {
            let message =
                format!("`{key}` has {steps} steps of the run's {}, after {first}", timeline.total_steps);
            return Err(usage(message)
                .hint("each part needs a step or more, and all together the whole run; leave the last `length` out")
                .into());
        }
        let schedule = Schedule::at(
            &format!("{key}.schedule"),
            &part.schedule,
            Timeline { total_steps: steps, ..timeline },
        )?;
        stretches.push(Stretch { first, scale: part.scale, schedule });
        first += steps;
    }
    if stretches.is_empty() {
        return Err(usage(format!("`{key}.parts` is empty")).hint("name one schedule or more").into());
    }
    Ok(stretches)
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
        let Shape::Plateau { patience, factor, max_drops } = &spec.shape else { return };
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
        let after = |warmup, shape: Shape| ScheduleSpec { warmup, ..shape.into() };
        let constant = after(Duration::Steps(4), Shape::Constant {});
        assert_eq!(factors(&constant, &[0, 1, 3, 4, 99]), [0.2, 0.4, 0.8, 1.0, 1.0]);
        let from_tenth = ScheduleSpec { warmup_start: Some(0.1), ..constant };
        assert_eq!(factors(&from_tenth, &[0, 1, 2, 4]), [0.1, 0.325, 0.55, 1.0]);
        let cosine = Shape::Cosine { end: 0.0 }.into();
        assert_eq!(factors(&cosine, &[0, 50, 100]), [1.0, 0.5, 0.0]);
        let linear = after(Duration::Epochs(2.0), Shape::Linear { end: 0.0 });
        assert_eq!(factors(&linear, &[20, 60, 100]), [1.0, 0.5, 0.0]);
        let step = Shape::Step { every: Duration::Percent(30.0), factor: 0.1 }.into();
        assert_eq!(factors(&step, &[0, 29, 30, 60, 90]), [1.0, 1.0, 0.1, 0.01, 0.001]);
        let milestones = vec![Duration::Epochs(3.0), Duration::Epochs(6.0)];
        let multi_step = Shape::MultiStep { milestones, factor: 0.5 }.into();
        assert_eq!(factors(&multi_step, &[29, 30, 59, 60]), [1.0, 0.5, 0.5, 0.25]);
        let one_cycle = Shape::OneCycle { peak: Duration::Steps(21), start: 0.2, end: 0.0 }.into();
        assert_eq!(factors(&one_cycle, &[0, 10, 20, 99]), [0.2, 0.6, 1.0, 0.0]);
    }

    #[test]
    fn a_sequence_begins_each_part_anew() {
        let part = |length, scale, shape: Shape| Part { length, scale, schedule: shape.into() };
        let ten = Some(Duration::Steps(10));
        let parts = vec![
            part(ten, 1.0, Shape::Linear { end: 0.0 }),
            part(ten, 0.5, Shape::Constant {}),
            part(None, 1.0, Shape::Cosine { end: 0.0 }),
        ];
        let sequence = |parts| Shape::Sequence { parts }.into();
        assert_eq!(factors(&sequence(parts), &[0, 5, 10, 19, 20, 60]), [1.0, 0.5, 0.5, 0.5, 1.0, 0.5]);
        for (parts, expected) in [
            (vec![], "`schedule.parts` is empty"),
            (
                vec![part(None, 1.0, Shape::Constant {}), part(ten, 1.0, Shape::Constant {})],
                "parts[0].length",
            ),
            (vec![part(ten, 1.0, Shape::Constant {})], "`schedule.parts[0]` has 10 steps of the run's 100"),
            (vec![part(None, 0.0, Shape::Constant {})], "`schedule.parts[0].scale` is 0"),
            (vec![part(None, 1.0, Shape::Cosine { end: 2.0 })], "`schedule.parts[0].schedule.end` is 2"),
        ] {
            let error = Schedule::new(&sequence(parts), TIMELINE).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn samples_reach_from_the_first_step_to_the_last() {
        let schedule = Schedule::new(&Shape::Linear { end: 0.0 }.into(), TIMELINE).unwrap();
        assert_eq!(schedule.samples(3), [(0, 1.0), (49, 0.51), (99, 1.0 - 0.99)]);
        assert_eq!(schedule.samples(1000).len(), 100);
        let one_step = Timeline { total_steps: 1, steps_per_epoch: 1 };
        assert_eq!(Schedule::new(&Shape::Constant {}.into(), one_step).unwrap().samples(9), [(0, 1.0)]);
    }

    #[test]
    fn a_plateau_drops_after_patience_and_stops_after_its_last_drop() {
        let spec = Shape::Plateau { patience: 1, factor: 0.1, max_drops: 1 }.into();
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
        let spec = Shape::Step { every: Duration::Percent(0.1), factor: 0.1 }.into();
        assert!(Schedule::new(&spec, TIMELINE).unwrap_err().to_string().contains("schedule.every"));
    }
}
