//! Measurement: real training steps and forward passes on made-up batches, or on data.

use super::setup::Setup;
use super::train::Learner;
use super::train::split::{Seconds, Split as TimeSplit};
use super::train::step::{Step, Stepped};
use crate::data::loader::{Batch, Loader};
use crate::data::{DataSpec, Source, synthetic};
use crate::dist::collective::Collective;
use crate::error::{Result, TorchContext, failed};
use crate::experiment::Experiment;
use crate::metrics::{Counters, Totals, median};
use crate::net::build::Mode;
use crate::net::cost::{Shape, cost};
use crate::net::plan::InferencePlan;
use crate::torch_ext::profile::{Cost, profiled};
use serde::Serialize;
use std::time::Instant;
use tch::{Cuda, Device, Kind, Tensor, no_grad_guard};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Normalise, forward, loss, backward, optimizer.
    Train,
    /// Normalise, forward.
    Eval,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub what: What,
    /// The network.
    pub model: String,
    /// Images in a step.
    pub batch_size: usize,
    /// Height and width of the images.
    pub size: usize,
    /// Where it was measured.
    pub device: String,
    /// Threads of one operation on the CPU.
    pub threads: i32,
    /// Timed steps; two more came before.
    pub steps: usize,
    /// Speed over the steps.
    pub images_per_second: Spread,
    /// Where the time of training steps went, in seconds of all that were timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Seconds>,
    /// Share of that time that was neither the network's nor the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<f64>,
    /// What operators cost, the dearest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<Operator>>,
}

/// What an operator costs in a step, without the operators that it calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operator {
    /// As libtorch calls it, such as `aten::convolution_backward`; ours begin with `senet::`.
    pub name: String,
    /// Calls in a step.
    pub calls: f64,
    /// Time of them in a step; on a GPU, the host's.
    pub milliseconds: f64,
    /// Share of the time of all operators.
    pub share: f64,
}

/// senet's operators against libtorch's alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// As `senet` computes.
    pub senet: Measurement,
    /// The same network with libtorch's operators alone.
    pub plain: Measurement,
    /// How many times as fast senet is, by the medians.
    pub ratio: f64,
}

/// Median, lowest and highest of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (figures[0], figures[figures.len() - 1]);
        Self { median: median(figures).expect("at least one figure"), min, max }
    }
}

/// `base` on made-up batches of `batch_size` samples of shape `input`.
pub fn on_made_up_data(base: &Experiment, input: Shape, classes: i64, batch_size: usize) -> Experiment {
    let mut experiment = Experiment { data: DataSpec::default(), ..base.clone() };
    let (size, data) = (input.height as usize, &mut experiment.data);
    data.source = Source::Synthetic;
    data.size = Some(size);
    data.synthetic.size = size;
    data.synthetic.channels = input.channels as usize;
    data.synthetic.classes = (classes as usize).min(synthetic::MAX_CLASSES);
    experiment.train.batch_size = batch_size;
    experiment
}

/// Multiply-adds a second in training the network of `base` here, a backward pass taken for two forward passes. A
/// matter of seconds: three steps are timed, on batches of at most `CALIBRATION` multiply-adds (or of two images).
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn training_rate(base: &Experiment, input: Shape, classes: i64) -> Result<f64> {
    let node = base.model.describe(input.channels, classes)?;
    let macs = 3.0 * cost(&node, input)?.macs as f64;
    let batch_size = ((CALIBRATION / macs) as usize).clamp(2, base.train.batch_size.max(2));
    let setup = Setup::new(on_made_up_data(base, input, classes, batch_size))?;
    Ok(macs * run(What::Train, &setup, 3)?.images_per_second.median)
}

/// Multiply-adds of a step that takes some tenths of a second on two cores.
const CALIBRATION: f64 = 2e10;

/// Steps before the clock starts: memory is asked for and kernels are chosen in them.
const WARM_UP: usize = 2;

/// Times `steps` steps of `setup`'s network on made-up batches; its data is not read.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn run(what: What, setup: &Setup, steps: usize) -> Result<Measurement> {
    let batch = made_up(setup)?;
    match what {
        What::Train => training(setup, steps, &mut std::iter::repeat_with(|| Ok(again(&batch)))),
        What::Eval => {
            let learner = Learner::new(setup)?;
            let [figures] = in_turns([&mut *evaluation(setup, &learner, &batch, Operators::Own)?], steps)?;
            Ok(Measurement::of(what, setup, steps, figures))
        }
    }
}

/// The same with senet's operators and with libtorch's alone, a step each in turns.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn compare(what: What, setup: &Setup, steps: usize) -> Result<Comparison> {
    let batch = made_up(setup)?;
    let [own, plain] = match what {
        What::Train => {
            let mut batches = [0; 2].map(|_| std::iter::repeat_with(|| Ok(again(&batch))));
            let [of_own, of_plain] = &mut batches;
            let mut own = Training::new(setup, of_own, Operators::Own)?;
            let mut plain = Training::new(setup, of_plain, Operators::Plain)?;
            in_turns([&mut || own.step(), &mut || plain.step()], steps)?
        }
        What::Eval => {
            // A plan computes with our operators, whatever its network does by itself.
            let learner = Learner::plain(setup)?;
            let mut own = evaluation(setup, &learner, &batch, Operators::Own)?;
            let mut plain = evaluation(setup, &learner, &batch, Operators::Plain)?;
            in_turns([&mut *own, &mut *plain], steps)?
        }
    };
    let [senet, plain] = [own, plain].map(|figures| Measurement::of(what, setup, steps, figures));
    let ratio = senet.images_per_second.median / plain.images_per_second.median;
    Ok(Comparison { senet, plain, ratio })
}

/// Times steps as [`run`] does, and then counts as many more, operator by operator.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn profile(what: What, setup: &Setup, steps: usize) -> Result<Measurement> {
    let batch = made_up(setup)?;
    let times = |step: &mut dyn FnMut() -> Result<u64>| {
        let [figures] = in_turns([&mut *step], steps)?;
        let (_, costs) = profiled(|| (0..steps).try_for_each(|_| step().map(|_| ())))?;
        Ok::<_, anyhow::Error>((figures, costs))
    };
    let (figures, costs) = match what {
        What::Train => {
            let mut batches = std::iter::repeat_with(|| Ok(again(&batch)));
            let mut training = Training::new(setup, &mut batches, Operators::Own)?;
            times(&mut || training.step())?
        }
        What::Eval => {
            let learner = Learner::new(setup)?;
            times(&mut *evaluation(setup, &learner, &batch, Operators::Own)?)?
        }
    };
    let all: f64 = costs.iter().map(|cost| cost.seconds).sum();
    let per_step = |cost: &Cost| Operator {
        name: cost.operator.clone(),
        calls: cost.calls as f64 / steps as f64,
        milliseconds: 1e3 * cost.seconds / steps as f64,
        share: cost.seconds / all,
    };
    let operators = Some(costs.iter().map(per_step).collect());
    Ok(Measurement { operators, ..Measurement::of(what, setup, steps, figures) })
}

/// Times `steps` training steps on `setup`'s training data, epoch after epoch, as training takes them.
///
/// # Errors
/// When a sample cannot be read or libtorch refuses.
pub fn on_data(setup: &Setup, steps: usize) -> Result<Measurement> {
    training(setup, steps, &mut Epochs { setup, epoch: 0, loader: None })
}

/// Times training steps, and what their time goes into.
fn training<B: Iterator<Item = Result<Batch>>>(
    setup: &Setup,
    steps: usize,
    batches: &mut B,
) -> Result<Measurement> {
    let mut training = Training::new(setup, batches, Operators::Own)?;
    for _ in 0..WARM_UP {
        training.step()?;
    }
    training.split.take();
    let figures = (0..steps).map(|_| speed(&mut || training.step())).collect::<Result<_>>()?;
    let seconds = training.split.take();
    let measured = Measurement::of(What::Train, setup, steps, figures);
    Ok(Measurement { split: Some(seconds), outside: Some(seconds.outside()), ..measured })
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operators {
    /// senet's, where there are any.
    Own,
    /// libtorch's alone.
    Plain,
}

/// Images a second of each step of `sides`, which take turns, after a warm-up.
fn in_turns<const N: usize>(
    mut sides: [&mut dyn FnMut() -> Result<u64>; N],
    steps: usize,
) -> Result<[Vec<f64>; N]> {
    for side in &mut sides {
        (0..WARM_UP).try_for_each(|_| side().map(|_| ()))?;
    }
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..steps {
        for (side, figures) in sides.iter_mut().zip(&mut figures) {
            figures.push(speed(side)?);
        }
    }
    Ok(figures)
}

/// Images a second of one step.
fn speed(step: &mut dyn FnMut() -> Result<u64>) -> Result<f64> {
    let start = Instant::now();
    let images = step()?;
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Training steps, one after the other.
struct Training<'a, B> {
    setup: &'a Setup,
    learner: Learner,
    counters: Counters,
    split: TimeSplit,
    batches: &'a mut B,
    number: u64,
}

impl<'a, B: Iterator<Item = Result<Batch>>> Training<'a, B> {
    fn new(setup: &'a Setup, batches: &'a mut B, operators: Operators) -> Result<Self> {
        let learner = match operators {
            Operators::Own => Learner::new(setup)?,
            Operators::Plain => Learner::plain(setup)?,
        };
        let counters = Counters::new(&Totals::default(), setup.device);
        let split = TimeSplit::waiting_for(setup.device);
        Ok(Self { setup, learner, counters, split, batches, number: 0 })
    }

    /// Takes a step, and says of how many images.
    fn step(&mut self) -> Result<u64> {
        let Setup { experiment, device, .. } = self.setup;
        let step = Step {
            experiment,
            number: self.number,
            lr: 1e-3,
            mode: Mode::Train,
            size: self.setup.size(),
            samples: experiment.train.samples_per_step(),
            checked: !device.is_cuda(),
        };
        self.number += 1;
        let seen = self.counters.seen();
        let (learner, counters, split) = (&mut self.learner, &mut self.counters, &mut self.split);
        match step.take(learner, self.batches, counters, split, &Collective::Alone)? {
            Stepped::Done | Stepped::Overflow => Ok(self.counters.seen() - seen),
            Stepped::NotFinite(found) => Err(failed(found.what).into()),
        }
    }
}

/// What evaluates a batch when it is called, and says of how many images.
fn evaluation<'a>(
    setup: &'a Setup,
    learner: &'a Learner,
    batch: &'a Batch,
    operators: Operators,
) -> Result<Box<dyn FnMut() -> Result<u64> + 'a>> {
    let _guard = no_grad_guard();
    let plan = match operators {
        Operators::Own => Some(InferencePlan::new(&learner.net)),
        Operators::Plain => None,
    };
    let plan = plan.transpose().torch_context(|| "cannot prepare the network".to_string())?;
    let forward = move |images: &Tensor| match &plan {
        Some(plan) => plan.forward(images),
        None => learner.net.forward(images, Mode::Eval),
    };
    Ok(Box::new(move || {
        let _guard = no_grad_guard();
        learner
            .normalise
            .apply(&batch.pixels)
            .and_then(|images| forward(&images).map(drop))
            .torch_context(|| format!("cannot evaluate a batch of {}", batch.samples.len()))?;
        if let Device::Cuda(index) = setup.device {
            // sync: the clock is read after each step.
            Cuda::synchronize(index as i64);
        }
        Ok(batch.samples.len() as u64)
    }))
}

/// Batches of training data, epoch after epoch.
struct Epochs<'a> {
    setup: &'a Setup,
    epoch: u64,
    loader: Option<Loader>,
}

impl Iterator for Epochs<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.loader.as_mut().and_then(Iterator::next) {
            return Some(batch);
        }
        let next = self.setup.train_batches(self.epoch, 0, self.setup.size());
        self.epoch += 1;
        match next {
            Ok(loader) => self.loader.insert(loader).next(),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Measurement {
    fn of(what: What, setup: &Setup, steps: usize, figures: Vec<f64>) -> Self {
        Self {
            what,
            model: setup.experiment.model.name.clone(),
            batch_size: setup.experiment.train.batch_size,
            size: setup.size(),
            device: format!("{:?}", setup.device).to_lowercase(),
            threads: tch::get_num_threads(),
            steps,
            images_per_second: Spread::of(figures),
            split: None,
            outside: None,
            operators: None,
        }
    }
}

/// The same batch once more.
fn again(batch: &Batch) -> Batch {
    Batch::alone(batch.pixels.shallow_clone(), batch.labels.shallow_clone(), batch.samples.clone())
}

/// Bytes that differ, for shapes that are too large as well: then an error comes back. (tch panics where an
/// operation that takes a number, such as `arange`, fails.)
fn made_up(setup: &Setup) -> Result<Batch> {
    let (batch_size, size) = (setup.experiment.train.batch_size, setup.size());
    let doing = || format!("cannot make a batch of {batch_size} images of {size} × {size}");
    let channels = setup.train.channels();
    let classes = setup.train.classes().len();
    let bytes =
        [batch_size, size, size, channels].iter().try_fold(1usize, |bytes, side| bytes.checked_mul(*side));
    let mut pixels: Vec<u8> = Vec::new();
    if bytes.is_none_or(|bytes| pixels.try_reserve_exact(bytes).is_err()) {
        let message = format!("{}: not enough memory", doing());
        return Err(failed(message).hint("lower `--batch-size` or `--size`").into());
    }
    pixels.extend((0..=250).cycle().take(bytes.unwrap_or(0)));
    let labels: Vec<i64> = (0..batch_size).map(|sample| (sample % classes) as i64).collect();
    let make = || -> Result<Batch, tch::TchError> {
        let shape = [batch_size, size, size, channels].map(|side| side as i64);
        let pixels = Tensor::f_from_data_size(&pixels, &shape, Kind::Uint8)?.f_to_device(setup.device)?;
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(setup.device)?;
        Ok(Batch::alone(pixels, labels, (0..batch_size).collect()))
    };
    make().torch_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }
}
