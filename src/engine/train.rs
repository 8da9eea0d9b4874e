//! Training: one step, one epoch, the run.

use super::Context;
use super::eval::evaluate;
use super::mixing;
use super::setup::Setup;
use crate::data::Normalise;
use crate::data::augment::mix::Mix;
use crate::data::faults::Faults;
use crate::data::loader::{Batch, Loader, Plan};
use crate::error::{Result, TorchContext, failed};
use crate::experiment::TrainSpec;
use crate::metrics::{Counters, Totals};
use crate::models::ModelSpec;
use crate::net::build::{Mode, Net};
use crate::net::loss::Target;
use crate::optim::{Ema, Optimizer, Schedule, Timeline};
use crate::report::event::{Evaluation, Event, Tick};
use crate::rng;
use crate::run::Checkpoint;
use crate::run::checkpoint::{CheckpointSpec, Identity, Parts, Progress, Saved, Snapshot, Writer};
use crate::weights::Weights;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tch::{TchError, Tensor};

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

/// A network that learns.
pub struct Learner {
    /// The network.
    pub net: Net,
    /// Its optimizer.
    pub optimizer: Optimizer,
    /// Its moving average.
    pub ema: Option<Ema>,
    normalise: Normalise,
    recipe: TrainSpec,
}

impl Learner {
    /// At its first, random values.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(setup: &Setup) -> Result<Self> {
        let recipe = setup.experiment.train.clone();
        let build = || Net::build(&setup.node, setup.experiment.seed, setup.device);
        let net = build()?;
        let optimizer = Optimizer::new(&setup.experiment.optim, net.trainable())
            .torch_context(|| "cannot prepare the optimizer".to_string())?;
        let ema = recipe.ema.as_ref().map(|spec| Ema::new(spec, build()?, &net)).transpose()?;
        Ok(Self { net, optimizer, ema, normalise: setup.normalise(), recipe })
    }

    /// One optimizer step on `batch` alone at learning rate `lr`.
    ///
    /// # Errors
    /// When libtorch refuses, for example for want of memory.
    pub fn step(&mut self, batch: &Batch, lr: f64) -> Result<()> {
        let _ = self.gradients(batch, None, Mode::Train, 1.0)?;
        self.update(lr)
    }

    /// Adds `share` of the gradient of the mean loss of `batch`, mixed by `mix`, to what is there. Returns logits and loss, still on the
    /// device.
    ///
    /// # Errors
    /// When libtorch refuses, for example for want of memory.
    pub fn gradients(
        &self,
        batch: &Batch,
        mix: Option<&Mix>,
        mode: Mode,
        share: f64,
    ) -> Result<(Tensor, Tensor)> {
        self.forward_backward(batch, mix, mode, share)
            .torch_context(|| format!("cannot compute a training step of {} images", batch.len))
    }

    fn forward_backward(
        &self,
        batch: &Batch,
        mix: Option<&Mix>,
        mode: Mode,
        share: f64,
    ) -> Result<(Tensor, Tensor), TchError> {
        let images = self.normalise.apply(&batch.pixels)?;
        let (images, target) = match mix {
            None => (images, Target::plain(&batch.labels)),
            Some(mix) => (mixing::images(mix, &images)?, mixing::target(mix, &batch.labels)?),
        };
        let logits = self.net.forward(&images, mode)?;
        let loss = self.recipe.loss.of(&logits, &target, self.recipe.label_smoothing)?;
        if share == 1.0 {
            loss.f_backward()?;
        } else {
            loss.f_mul_scalar(share)?.f_backward()?;
        }
        Ok((logits, loss))
    }

    /// Changes the weights by the gradients, at learning rate `lr`, and the average by the weights.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn update(&mut self, lr: f64) -> Result<()> {
        if let Some(clip) = &self.recipe.clip {
            clip.apply(&self.optimizer.params())?;
        }
        self.optimizer.step(lr)?;
        self.ema.iter().try_for_each(|ema| ema.follow(self.optimizer.steps()))
    }
}

/// Trains until the run is done, diverges or is asked to stop. With `resume`, goes on from the last checkpoint.
///
/// # Errors
/// When data, memory or disk fail, or when the loss is no longer finite.
pub fn run(setup: &Setup, resume: bool, ctx: &mut Context<'_>) -> Result<Outcome> {
    let timeline = setup.timeline()?;
    let schedule = Schedule::new(&setup.experiment.schedule, timeline)?;
    let mut learner = Learner::new(setup)?;
    let mut progress = Progress::default();
    if resume {
        progress = restore(&mut learner, ctx)?;
    } else if let ModelSpec { name, weights: Some(path), head, .. } = &setup.experiment.model {
        Weights::read(path, name, setup.cost.params.values())?.fill(&learner.net, name, *head)?;
        learner.ema.iter().try_for_each(Ema::catch_up)?;
    }
    announce(setup, timeline, &progress, ctx)?;

    let start = Instant::now();
    let mut saver = Saver::new();
    let mut evaluation: Option<Timed> = None;
    while progress.step < timeline.total_steps && !progress.plateau.exhausted {
        let finished_epoch = epoch(setup, timeline, &schedule, &mut learner, &mut progress, &mut saver, ctx)?;
        if !finished_epoch {
            saver.save(setup, &learner, &progress, &[Checkpoint::Last], ctx)?;
            saver.writer.finish()?;
            ctx.emit(&Event::Interrupted { step: progress.step })?;
            return Ok(Outcome::Interrupted { step: progress.step });
        }
        evaluation = Some(close_epoch(setup, timeline, &learner, &mut progress, &mut saver, ctx)?);
    }
    let Timed { eval, ema, images_per_second } = match evaluation {
        Some(evaluation) => evaluation,
        // Resumed after the last step: its evaluation may be all that is missing.
        None => evaluate_now(setup, &learner, ctx)?,
    };
    saver.writer.finish()?;
    ctx.emit(&Event::Finished { step: progress.step, seconds: start.elapsed().as_secs_f64() })?;
    let epochs = progress.step as f64 / timeline.steps_per_epoch as f64;
    let summary = Summary {
        model: setup.experiment.model.name.clone(),
        params: setup.cost.params.trainable,
        macs: setup.cost.macs,
        steps: progress.step,
        eval,
        ema,
        best_top1: progress.best_top1.unwrap_or(ema.unwrap_or(eval).top1.accuracy),
        train_seconds: progress.train_seconds,
        seconds_per_epoch: progress.train_seconds / epochs,
        train_images_per_second: Some(epochs * setup.draws() as f64 / progress.train_seconds),
        eval_images_per_second: Some(images_per_second),
    };
    ctx.run.write_result(&summary)?;
    Ok(Outcome::Finished(Box::new(summary)))
}

/// Trains to the end of the epoch that `progress` is in. Returns false when asked to stop before.
fn epoch(
    setup: &Setup,
    timeline: Timeline,
    schedule: &Schedule,
    learner: &mut Learner,
    progress: &mut Progress,
    saver: &mut Saver,
    ctx: &mut Context<'_>,
) -> Result<bool> {
    let experiment = &setup.experiment;
    let (epoch, first) = (progress.step / timeline.steps_per_epoch, progress.step % timeline.steps_per_epoch);
    let plan = Plan::train(
        Arc::clone(&setup.train),
        Arc::clone(&setup.train_faults),
        &experiment.data,
        experiment.train.batch_size,
        experiment.seed,
        epoch,
    )?;
    let accumulate = experiment.train.accumulate;
    let mut batches =
        Loader::start(plan, first as usize * accumulate, experiment.data.thread_count(), setup.device);
    let log_every = timeline.steps(experiment.train.log_every).max(1);
    let end = ((epoch + 1) * timeline.steps_per_epoch).min(timeline.total_steps);
    let frozen_from = timeline.total_steps.saturating_sub(timeline.steps(experiment.train.freeze_bn));

    let size = experiment.data.size.expect("the data specification is resolved");

    let mut counters = Counters::new(&progress.epoch_totals, setup.device);
    let (epochs, total_steps) =
        (timeline.total_steps.div_ceil(timeline.steps_per_epoch), timeline.total_steps);
    let mut logged = Instant::now();
    while progress.step < end && !ctx.stop.is_set() {
        let lr = experiment.peak_lr() * schedule.factor(progress.step) * progress.plateau.factor;
        let mode = if progress.step < frozen_from { Mode::Train } else { Mode::TrainFrozen };
        let samples = samples_in(setup, progress.step % timeline.steps_per_epoch);
        for (part, batch) in (0..).zip(batches.by_ref().take(accumulate)) {
            let batch = batch?;
            // What is random in a step depends on its number alone, so that a resumed run draws the same.
            tch::manual_seed(rng::stream(experiment.seed, "step", [progress.step, part]).random());
            let mut random = rng::stream(experiment.seed, "mix", [progress.step, part]);
            let mix = experiment.train.mix.draw(batch.len, size, size, &mut random);
            let (logits, loss) =
                learner.gradients(&batch, mix.as_ref(), mode, batch.len as f64 / samples as f64)?;
            counters.add(&logits, &batch.labels, &loss)?;
        }
        learner.update(lr)?;
        progress.step += 1;

        ctx.observer.tick(Tick::Train { epoch: epoch + 1, epochs, step: progress.step, total_steps });
        let over = progress.step == end || ctx.stop.is_set();
        let due = !over && saver.is_due(&experiment.checkpoint, progress.step);
        if progress.step.is_multiple_of(log_every) || over || due {
            log_steps(setup, &counters, epoch, lr, &mut logged, progress, ctx)?;
        }
        if due {
            saver.save(setup, learner, progress, &[Checkpoint::Last], ctx)?;
        }
    }
    Ok(progress.step == end)
}

/// Samples in the optimizer step number `step` of an epoch, from 0; what is left at an epoch's end is a smaller step.
fn samples_in(setup: &Setup, step: u64) -> usize {
    let whole = setup.experiment.train.samples_per_step();
    whole.min(setup.draws() - step as usize * whole)
}

/// What to do when a loss is no longer finite.
const DIVERGED: &str =
    "lower `optim.lr` or lengthen `schedule.warmup`; a checkpoint, if there is one, is from before";

/// Waits for the device, tells the loss since the last time, and stops a run whose loss is lost.
fn log_steps(
    setup: &Setup,
    counters: &Counters,
    epoch: u64,
    lr: f64,
    logged: &mut Instant,
    progress: &mut Progress,
    ctx: &mut Context<'_>,
) -> Result<()> {
    let totals = counters.read()?;
    let recent = totals.since(&progress.epoch_totals);
    let seconds = logged.elapsed().as_secs_f64();
    *logged = Instant::now();
    progress.epoch_totals = totals;
    progress.epoch_seconds += seconds;
    if !recent.loss().is_finite() {
        let (step, loss) = (progress.step, recent.loss());
        let message =
            format!("the training loss became {loss} at step {step} or just before (learning rate {lr:.3e})");
        return Err(failed(message).hint(DIVERGED).into());
    }
    let images_per_second = recent.seen as f64 / seconds;
    tell_faults(&setup.train_faults, ctx)?;
    ctx.emit(&Event::Steps {
        epoch: epoch + 1,
        step: progress.step,
        loss: recent.loss(),
        lr,
        images_per_second,
    })
}

/// Warns of samples that could not be read since the last time.
fn tell_faults(faults: &Faults, ctx: &mut Context<'_>) -> Result<()> {
    faults.take_news().into_iter().try_for_each(|message| ctx.emit(&Event::Warning { message }))
}

/// Evaluates a finished epoch and saves it.
fn close_epoch(
    setup: &Setup,
    timeline: Timeline,
    learner: &Learner,
    progress: &mut Progress,
    saver: &mut Saver,
    ctx: &mut Context<'_>,
) -> Result<Timed> {
    let timed = evaluate_now(setup, learner, ctx)?;
    let eval = timed.eval;
    if !eval.loss.is_finite() {
        // The last step before an evaluation can ruin the weights after its own loss was computed.
        let message = format!("the evaluation loss became {} after step {}", eval.loss, progress.step);
        return Err(failed(message).hint(DIVERGED).into());
    }
    let (totals, seconds) = (progress.epoch_totals, progress.epoch_seconds);
    let top1 = timed.ema.unwrap_or(eval).top1.accuracy;
    let best = progress.best_top1.is_none_or(|best| top1 > best);
    if best {
        progress.best_top1 = Some(top1);
    }
    progress.plateau.observe(&setup.experiment.schedule, eval.loss);
    progress.train_seconds += seconds;
    progress.epoch_totals = Totals::default();
    progress.epoch_seconds = 0.0;

    // The best first: a run that is killed in between comes to this evaluation again.
    let places: &[Checkpoint] =
        if best { &[Checkpoint::Best, Checkpoint::Last] } else { &[Checkpoint::Last] };
    saver.save(setup, learner, progress, places, ctx)?;
    ctx.emit(&Event::Epoch {
        epoch: progress.step.div_ceil(timeline.steps_per_epoch),
        step: progress.step,
        train_loss: totals.loss(),
        train_top1: totals.top1_accuracy(),
        eval,
        ema: timed.ema,
        seconds,
        images_per_second: totals.seen as f64 / seconds,
        best,
    })?;
    Ok(timed)
}

/// An evaluation, that of the moving average, and the speed of the first.
struct Timed {
    eval: Evaluation,
    ema: Option<Evaluation>,
    images_per_second: f64,
}

fn evaluate_now(setup: &Setup, learner: &Learner, ctx: &mut Context<'_>) -> Result<Timed> {
    let (data, faults) = (&setup.eval, &setup.eval_faults);
    let mut evaluate =
        |net: &Net| evaluate(&setup.experiment, net, data, faults, &learner.normalise, ctx.observer);
    let start = Instant::now();
    let eval = evaluate(&learner.net)?;
    let images_per_second = eval.seen as f64 / start.elapsed().as_secs_f64();
    let ema = learner.ema.as_ref().map(|ema| evaluate(&ema.net)).transpose()?;
    tell_faults(faults, ctx)?;
    Ok(Timed { eval, ema, images_per_second })
}

fn announce(setup: &Setup, timeline: Timeline, progress: &Progress, ctx: &mut Context<'_>) -> Result<()> {
    ctx.emit(&Event::Started {
        model: setup.experiment.model.name.clone(),
        params: setup.cost.params.trainable,
        macs: setup.cost.macs,
        samples: setup.train.len(),
        total_steps: timeline.total_steps,
        done_steps: progress.step,
        device: format!("{:?}", setup.device).to_lowercase(),
    })
}

/// What saves a run while it goes on.
struct Saver {
    writer: Writer,
    /// When the last snapshot was taken.
    last: Instant,
}

impl Saver {
    fn new() -> Self {
        Self { writer: Writer::default(), last: Instant::now() }
    }

    fn is_due(&self, spec: &CheckpointSpec, step: u64) -> bool {
        spec.is_due(step, self.last.elapsed())
    }

    /// Begins to save the run to these places.
    fn save(
        &mut self,
        setup: &Setup,
        learner: &Learner,
        progress: &Progress,
        places: &[Checkpoint],
        ctx: &Context<'_>,
    ) -> Result<()> {
        let preprocessing = setup.experiment.data.preprocessing();
        let identity = Identity {
            model: &setup.experiment.model.name,
            channels: setup.train.channels(),
            classes: setup.train.classes(),
            preprocessing: Some(&preprocessing),
        };
        let average = learner.ema.as_ref().map(|ema| &ema.net);
        let parts = Parts { net: &learner.net, average, optimizer: &learner.optimizer };
        let snapshot = Snapshot::take(identity, parts, progress)?;
        self.last = Instant::now();
        self.writer.begin(snapshot, places.iter().map(|place| ctx.run.checkpoint(*place)).collect())
    }
}

fn restore(learner: &mut Learner, ctx: &mut Context<'_>) -> Result<Progress> {
    let (saved, warning) = Saved::open(&ctx.run.checkpoint(Checkpoint::Last))?;
    if let Some(message) = warning {
        ctx.emit(&Event::Warning { message })?;
    }
    saved.load_weights(&learner.net)?;
    learner.ema.iter().try_for_each(|ema| saved.load_average(&ema.net))?;
    saved.load_optimizer(&mut learner.optimizer)?;
    Ok(saved.progress().clone())
}
