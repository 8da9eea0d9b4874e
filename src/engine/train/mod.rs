//! Training: the run, its epochs and their steps.

mod learner;
mod saver;
pub mod split;
pub mod step;
mod trouble;

pub use learner::Learner;

use super::Context;
use super::eval::{Passed, evaluate};
use super::setup::Setup;
use super::trained::Trained;
use super::weights_file;
use crate::data::faults::Faults;
use crate::error::{Result, failed};
use crate::experiment::{Experiment, OnNan, TrainSpec};
use crate::metrics::{Counters, Totals};
use crate::models::ModelSpec;
use crate::net::build::{Mode, Net};
use crate::optim::{Ema, Schedule, Timeline};
use crate::report::event::{Evaluation, Event, Tick};
use crate::run::checkpoint::Progress;
use crate::run::{Checkpoint, RunDir};
use crate::weights::Weights;
use saver::{Saver, restore};
use serde::{Deserialize, Serialize};
use split::{Part, Split};
use std::time::Instant;
use step::{Step, Stepped};
use tch::Device;

/// What a finished run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The network.
    pub model: String,
    /// Its trainable parameters.
    pub params: i64,
    /// Its multiply-adds for one sample.
    pub macs: i64,
    /// Optimizer steps.
    pub steps: u64,
    /// The evaluation after the last step.
    pub eval: Evaluation,
    /// The same with the moving average of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<Evaluation>,
    /// Highest top-1 accuracy of all evaluations, as a fraction; of the moving average, where there is one.
    pub best_top1: f64,
    /// Seconds of training, without evaluations.
    pub train_seconds: f64,
    /// The same for one epoch.
    pub seconds_per_epoch: f64,
    /// Training speed, without evaluations; runs of older versions have none.
    #[serde(default)]
    pub train_images_per_second: Option<f64>,
    /// Speed of the last evaluation.
    #[serde(default)]
    pub eval_images_per_second: Option<f64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Box<Summary>),
    /// It was asked to stop and has saved itself after this step.
    Interrupted {
        /// Steps done in all.
        step: u64,
    },
}

/// Trains until the run is done, diverges or is asked to stop. With `resume`, goes on from the last checkpoint.
///
/// # Errors
/// When data, memory or disk fail, or when the loss is no longer finite and `train.on_nan` does not help.
pub fn run(setup: &Setup, resume: bool, ctx: &mut Context<'_>) -> Result<Outcome> {
    let mut training = Training::begin(setup, resume, ctx)?;
    let (start, mut evaluation) = (Instant::now(), None);
    while training.progress.awaits_evaluation || !training.is_over() {
        // A run that stopped in an evaluation resumes with it.
        if !training.progress.awaits_evaluation {
            match training.epoch()? {
                EpochEnd::Done => {}
                EpochEnd::RolledBack => continue,
                EpochEnd::Interrupted => return training.interrupt(),
            }
        }
        match training.close_epoch()? {
            Closed::Done(evaluated) => evaluation = evaluated,
            Closed::RolledBack => {}
            Closed::Interrupted => return training.interrupt(),
        }
    }
    let evaluation = match evaluation {
        Some(evaluation) => evaluation,
        // Resumed after the last step: the evaluation's result may be all that is missing.
        None => match training.evaluate()? {
            Passed::Counted(evaluation) => evaluation,
            Passed::NonFinite(message) => return Err(failed(message).hint(DIVERGED).into()),
            Passed::Stopped => return training.interrupt(),
        },
    };
    training.finish(&evaluation, start)
}

/// A run while it goes on.
struct Training<'a, 'c> {
    setup: &'a Setup,
    timeline: Timeline,
    schedule: Schedule,
    learner: Learner,
    progress: Progress,
    saver: Saver,
    split: Split,
    ctx: &'a mut Context<'c>,
}

/// How an epoch ended.
enum EpochEnd {
    /// All its steps are done.
    Done,
    /// Someone asked to stop.
    Interrupted,
    /// The run is where its last checkpoint was.
    RolledBack,
}

/// What became of an epoch whose steps are done.
enum Closed {
    /// It is evaluated, where that was due, and saved.
    Done(Option<Evaluated>),
    /// Its weights, or the logits of its evaluation, are not finite: the run is where its last checkpoint was.
    RolledBack,
    /// Someone asked to stop.
    Interrupted,
}

impl<'a, 'c> Training<'a, 'c> {
    fn begin(setup: &'a Setup, resume: bool, ctx: &'a mut Context<'c>) -> Result<Self> {
        let timeline = setup.timeline()?;
        let schedule = Schedule::new(&setup.experiment.schedule, timeline)?;
        let mut learner = Learner::new(setup)?;
        let mut progress = Progress::default();
        learner.join(ctx.collective)?;
        if resume {
            progress = restore(&mut learner, ctx)?;
        } else if let ModelSpec { name, weights: Some(path), head, .. } = &setup.experiment.model {
            if ctx.collective.is_main() {
                let mut weights = Weights::read(path, name, setup.cost.params.values(), false)?;
                let mut notes = weights_file::compare(&weights, &setup.experiment.model)?;
                notes.extend(weights.convert_channels(&learner.net));
                weights.fill(&learner.net, name, *head)?;
                for message in weights.notes.iter().cloned().chain(notes) {
                    ctx.emit(&Event::Warning { message })?;
                }
                learner.ema.iter().try_for_each(Ema::catch_up)?;
            }
            learner.take_main_values(ctx.collective)?;
        }
        ctx.goes_on_after(progress.step, progress.awaits_evaluation, &setup.experiment.log)?;
        ctx.emit(&Event::Started {
            model: setup.experiment.model.name.clone(),
            params: setup.cost.params.trainable,
            macs: setup.cost.macs,
            samples: setup.train.len(),
            total_steps: timeline.total_steps,
            done_steps: progress.step,
            device: format!("{:?}", setup.device).to_lowercase(),
            world_size: ctx.collective.world_size(),
        })?;
        let (saver, split) = (Saver::new(), Split::start());
        let mut training = Self { setup, timeline, schedule, learner, progress, saver, split, ctx };
        if training.recipe().on_nan == OnNan::Rollback && training.progress.step == 0 {
            training.save(&[Checkpoint::Last])?;
        }
        Ok(training)
    }

    fn experiment(&self) -> &'a Experiment {
        &self.setup.experiment
    }

    fn recipe(&self) -> &'a TrainSpec {
        &self.setup.experiment.train
    }

    fn is_over(&self) -> bool {
        self.progress.step >= self.timeline.total_steps || self.progress.plateau.exhausted
    }

    /// Trains to the end of the epoch that the run is in.
    fn epoch(&mut self) -> Result<EpochEnd> {
        let Timeline { steps_per_epoch, total_steps } = self.timeline;
        let (epoch, first) = (self.progress.step / steps_per_epoch, self.progress.step % steps_per_epoch);
        let end = ((epoch + 1) * steps_per_epoch).min(total_steps);
        let size = self.setup.train_size(epoch, self.timeline);
        let first_batch = first as usize * self.recipe().accumulate;
        let mut batches = self.setup.train_batches(epoch, first_batch, size)?;
        let collective = self.ctx.collective;
        // What was counted before belongs to all ranks, and is kept by one.
        let before = if collective.is_main() { self.progress.epoch_totals } else { Totals::default() };
        let mut counters = Counters::new(&before, self.setup.device);
        let mut logged = Instant::now();
        self.split = Split::start();
        let mut stops = collective.any(self.ctx.stop.is_set())?;
        while !stops && self.progress.step < end {
            collective.doing(format!("epoch {}, step {}", epoch + 1, self.progress.step + 1));
            self.split.lap(Part::Rest);
            let step = self.next_step(size);
            if self.progress.left_out.contains(&self.progress.step) {
                batches.by_ref().take(self.recipe().accumulate).try_for_each(|batch| batch.map(drop))?;
            } else {
                match step.take(
                    &mut self.learner,
                    &mut batches,
                    &mut counters,
                    &mut self.split,
                    collective,
                )? {
                    Stepped::Done => self.progress.skipped_in_a_row = 0,
                    Stepped::Overflow => {}
                    Stepped::NotFinite(found) if self.bear(&found, step.lr)? => {
                        return Ok(EpochEnd::RolledBack);
                    }
                    Stepped::NotFinite(_) => {}
                }
            }
            self.progress.step += 1;
            self.saver.check()?;

            let (done, epochs) = (self.progress.step, total_steps.div_ceil(steps_per_epoch));
            self.ctx.observer.tick(Tick::Train { epoch: epoch + 1, epochs, step: done, total_steps });
            stops = collective.any(self.ctx.stop.is_set())?;
            let saves = !stops && done < end && self.saver.is_due(self.setup, done, collective)?;
            let log_every = self.timeline.steps(self.recipe().log_every).max(1);
            let logs = done.is_multiple_of(log_every) || done == end || saves;
            if logs || stops {
                let recent = self.count(&counters, step.lr, &mut logged)?;
                if logs {
                    self.log(epoch, step.lr, recent)?;
                }
            }
            if saves {
                // Where weights are not finite, the next step says so.
                let _ = self.save(&[Checkpoint::Last])?;
            }
        }
        Ok(if self.progress.step < end { EpochEnd::Interrupted } else { EpochEnd::Done })
    }

    fn next_step(&self, size: usize) -> Step<'a> {
        let (experiment, number) = (self.experiment(), self.progress.step);
        let frozen = self.timeline.steps(experiment.train.freeze_bn);
        let thaws = number < self.timeline.total_steps.saturating_sub(frozen);
        let whole = experiment.train.samples_per_step();
        // What is left at an epoch's end is a smaller step.
        let before = (number % self.timeline.steps_per_epoch) as usize * whole;
        Step {
            experiment,
            number,
            lr: experiment.peak_lr() * self.schedule.factor(number) * self.progress.plateau.factor,
            mode: match thaws {
                true if experiment.train.sync_bn => Mode::TrainTogether,
                true => Mode::Train,
                false => Mode::TrainFrozen,
            },
            size,
            samples: whole.min(self.setup.draws() - before),
            // A GPU would have to be waited for at each step.
            checked: !self.setup.device.is_cuda() || experiment.train.on_nan != OnNan::Stop,
        }
    }

    /// Waits for the device, adds what was counted since the last time to the progress, and stops a run whose loss is no
    /// longer finite. Returns the images per second.
    fn count(&mut self, counters: &Counters, lr: f64, counted: &mut Instant) -> Result<f64> {
        let totals = self.ctx.collective.sum(&counters.read()?.to_array())?;
        let totals = Totals::from_slice(&totals).expect("as many sums as values");
        let Progress { step, epoch_totals: before, .. } = self.progress;
        let recent = totals.since(&before);
        let seconds = counted.elapsed().as_secs_f64();
        *counted = Instant::now();
        self.progress.logged_totals.get_or_insert(before);
        self.progress.epoch_totals = totals;
        self.progress.epoch_seconds += seconds;
        if recent.seen > 0 && !recent.loss().is_finite() {
            let message = format!(
                "the training loss became {} at step {step} or just before (learning rate {lr:.3e})",
                recent.loss()
            );
            return Err(failed(message).hint(DIVERGED).into());
        }
        tell_faults(&self.setup.train_faults, self.ctx)?;
        Ok(recent.seen as f64 / seconds)
    }

    /// Logs the loss since the last time. A run that was stopped between two such lines and resumed logs the second as if
    /// it had not been: the steps before the stop are part of it.
    fn log(&mut self, epoch: u64, lr: f64, images_per_second: f64) -> Result<()> {
        let totals = self.progress.epoch_totals;
        let recent = totals.since(&self.progress.logged_totals.unwrap_or(totals));
        self.progress.logged_totals = None;
        let split = self.split.take();
        if recent.seen == 0 {
            // All steps since the last time were skipped.
            return Ok(());
        }
        self.ctx.emit(&Event::Steps {
            epoch: epoch + 1,
            step: self.progress.step,
            loss: recent.loss(),
            lr,
            images_per_second,
            waiting: split.data / split.total(),
        })
    }

    /// Saves a finished epoch, evaluates it, where that is due, and saves what came of that.
    fn close_epoch(&mut self) -> Result<Closed> {
        let epoch = self.progress.step.div_ceil(self.timeline.steps_per_epoch);
        let due =
            self.progress.step >= self.timeline.total_steps || epoch.is_multiple_of(self.recipe().eval_every);
        let mut evaluated = None;
        if due {
            if !self.progress.awaits_evaluation {
                self.progress.awaits_evaluation = true;
                // The last update can ruin the weights after its own loss was computed.
                if let Some(what) = self.save(&[Checkpoint::Last])? {
                    self.handle_nonfinite_weights(&what)?;
                    return Ok(Closed::RolledBack);
                }
            }
            match self.evaluate()? {
                Passed::Counted(result) => evaluated = Some(result),
                Passed::NonFinite(what) if self.handle_nonfinite_evaluation(&what)? => {
                    return Ok(Closed::RolledBack);
                }
                Passed::NonFinite(_) => {}
                Passed::Stopped => return Ok(Closed::Interrupted),
            }
        }
        self.progress.awaits_evaluation = false;
        let mut best = false;
        if let Some(Evaluated { eval, ema, .. }) = &evaluated {
            let top1 = ema.unwrap_or(*eval).top1.accuracy;
            best = self.progress.best_top1.is_none_or(|best| top1 > best);
            if best {
                self.progress.best_top1 = Some(top1);
            }
            self.progress.plateau.observe(&self.experiment().schedule, eval.loss);
        }
        let (totals, seconds) = (self.progress.epoch_totals, self.progress.epoch_seconds);
        self.progress.train_seconds += seconds;
        self.progress.epoch_totals = Totals::default();
        self.progress.epoch_seconds = 0.0;

        // Before the checkpoint: what is told after it, a run that is killed in between never tells.
        self.ctx.emit(&Event::Epoch {
            epoch,
            step: self.progress.step,
            train_loss: totals.loss(),
            train_top1: totals.top1_accuracy(),
            eval: evaluated.map(|evaluated| evaluated.eval),
            ema: evaluated.and_then(|evaluated| evaluated.ema),
            seconds,
            images_per_second: totals.seen as f64 / seconds,
            best,
        })?;
        // The best first: a run that is killed in between comes to this evaluation again. Where weights are not finite and
        // no evaluation was due, the next step says so.
        let _ = self.save(if best { &[Checkpoint::Best, Checkpoint::Last] } else { &[Checkpoint::Last] })?;
        Ok(Closed::Done(evaluated))
    }

    /// Evaluates network and average.
    fn evaluate(&mut self) -> Result<Passed<Evaluated>> {
        let Self { setup, learner, ctx, .. } = self;
        let collective = ctx.collective;
        collective.doing(format!("evaluation after step {}", self.progress.step));
        learner.average_statistics(collective)?;
        let mut evaluate =
            |net: &Net| evaluate(setup, net, &learner.normalise, ctx.observer, collective, ctx.stop);
        let start = Instant::now();
        let eval = match evaluate(&learner.net)? {
            Passed::Counted(eval) => eval,
            Passed::NonFinite(what) => return Ok(Passed::NonFinite(what)),
            Passed::Stopped => return Ok(Passed::Stopped),
        };
        let images_per_second = eval.seen as f64 / start.elapsed().as_secs_f64();
        let ema = match &learner.ema {
            None => None,
            Some(ema) => match evaluate(&ema.net)? {
                Passed::Counted(eval) => Some(eval),
                Passed::NonFinite(what) => {
                    return Ok(Passed::NonFinite(format!("with the moving average, {what}")));
                }
                Passed::Stopped => return Ok(Passed::Stopped),
            },
        };
        tell_faults(&setup.eval_faults, ctx)?;
        Ok(Passed::Counted(Evaluated { eval, ema, images_per_second }))
    }

    /// Saves the run, unless weights or statistics are not finite: the checkpoint before is then the better one. Returns
    /// what is not finite.
    fn save(&mut self, checkpoints: &[Checkpoint]) -> Result<Option<String>> {
        self.learner.average_statistics(self.ctx.collective)?;
        // In a list: an option by itself would look like a rank 0 that says nothing.
        let [spoilt] = self.ctx.collective.from_main(|| Ok([self.learner.weight_not_finite()?]))?;
        if spoilt.is_none() {
            self.saver.save(self.setup, &self.learner, &self.progress, checkpoints, self.ctx)?;
        }
        Ok(spoilt)
    }

    /// Saves a run that was asked to stop.
    fn interrupt(mut self) -> Result<Outcome> {
        if let Some(what) = self.save(&[Checkpoint::Last])? {
            self.handle_nonfinite_weights(&what)?;
        }
        self.saver.finish()?;
        let step = self.progress.step;
        self.ctx.emit(&Event::Interrupted { step })?;
        Ok(Outcome::Interrupted { step })
    }

    /// Notes what a finished run came to.
    fn finish(mut self, last: &Evaluated, start: Instant) -> Result<Outcome> {
        self.saver.finish()?;
        let Self { setup, timeline, progress, ctx, .. } = self;
        ctx.emit(&Event::Finished { step: progress.step, seconds: start.elapsed().as_secs_f64() })?;
        let epochs = progress.step as f64 / timeline.steps_per_epoch as f64;
        let summary = Summary {
            model: setup.experiment.model.name.clone(),
            params: setup.cost.params.trainable,
            macs: setup.cost.macs,
            steps: progress.step,
            eval: last.eval,
            ema: last.ema,
            best_top1: progress.best_top1.unwrap_or(last.ema.unwrap_or(last.eval).top1.accuracy),
            train_seconds: progress.train_seconds,
            seconds_per_epoch: progress.train_seconds / epochs,
            train_images_per_second: Some(epochs * setup.draws() as f64 / progress.train_seconds),
            eval_images_per_second: Some(last.images_per_second),
        };
        if ctx.collective.is_main() {
            ctx.run.write_result(&summary)?;
        }
        Ok(Outcome::Finished(Box::new(summary)))
    }
}

/// What a run came to, where it is finished and its last checkpoint is complete: then there is nothing to resume.
///
/// # Errors
/// When no checkpoint is complete, or the last is another network's.
pub fn finished(run: &RunDir, experiment: &Experiment) -> Result<Option<Summary>> {
    let Some(summary) = run.result::<Summary>()? else {
        return Ok(None);
    };
    let last = Trained::of_run(run, experiment, Checkpoint::Last, false, Device::Cpu)?;
    // A damaged checkpoint gives way to one of fewer steps, from which the run goes on to its end again.
    Ok((last.step == Some(summary.steps)).then_some(summary))
}

/// What to do when a loss is no longer finite.
const DIVERGED: &str = "lower `optim.lr` or lengthen `schedule.warmup`; a checkpoint, if there is one, is from before, and \
                        `train.on_nan` can be `skip` or `rollback`";

/// Warns of samples that could not be read since the last time.
fn tell_faults(faults: &Faults, ctx: &mut Context<'_>) -> Result<()> {
    faults.take_news().into_iter().try_for_each(|message| ctx.emit(&Event::Warning { message }))
}

/// An evaluation, that of the moving average, and the speed of the first.
#[derive(Clone, Copy)]
struct Evaluated {
    eval: Evaluation,
    ema: Option<Evaluation>,
    images_per_second: f64,
}
