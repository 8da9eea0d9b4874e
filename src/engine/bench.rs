//! Measurement: real training steps and forward passes on made-up batches, or on data.

use super::setup::Setup;
use super::train::Learner;
use super::train::split::{Seconds, Split};
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

/// Times `steps` steps of `setup`'s network; its data is not read.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn run(what: What, setup: &Setup, steps: usize) -> Result<Measurement> {
    let (size, batch_size) = (setup.size(), setup.experiment.train.batch_size);
    let batch = made_up(setup, batch_size, size)?;
    if what == What::Train {
        return training(setup, steps, &mut std::iter::repeat_with(|| Ok(again(&batch))));
    }
    let _guard = no_grad_guard();
    let learner = Learner::new(setup)?;
    let plan = InferencePlan::new(&learner.net).torch_context(|| "cannot prepare the network".to_string())?;
    let forward = || plan.forward(&learner.normalise.apply(&batch.pixels)?).map(|_| ());
    let mut figures = Vec::new();
    for round in 0..WARM_UP + steps {
        let start = Instant::now();
        forward().torch_context(|| format!("cannot evaluate a batch of {batch_size}"))?;
        if let Device::Cuda(index) = setup.device {
            // sync: the clock is read after each step.
            Cuda::synchronize(index as i64);
        }
        if round >= WARM_UP {
            figures.push(batch_size as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(Measurement::of(what, setup, steps, figures))
}

/// Times `steps` training steps on `setup`'s training data, epoch after epoch, as training takes them.
///
/// # Errors
/// When a sample cannot be read or libtorch refuses.
pub fn on_data(setup: &Setup, steps: usize) -> Result<Measurement> {
    training(setup, steps, &mut Epochs { setup, epoch: 0, loader: None })
}

/// Times training steps, and what their time goes into.
fn training(
    setup: &Setup,
    steps: usize,
    batches: &mut impl Iterator<Item = Result<Batch>>,
) -> Result<Measurement> {
    let mut learner = Learner::new(setup)?;
    let mut counters = Counters::new(&Totals::default(), setup.device);
    let mut split = Split::waiting_for(setup.device);
    let (mut figures, mut seen) = (Vec::new(), 0);
    for round in 0..WARM_UP + steps {
        if round == WARM_UP {
            split.take();
        }
        let start = Instant::now();
        let step = Step {
            experiment: &setup.experiment,
            number: round as u64,
            lr: 1e-3,
            mode: Mode::Train,
            size: setup.size(),
            samples: setup.experiment.train.samples_per_step(),
            checked: !setup.device.is_cuda(),
        };
        match step.take(&mut learner, batches, &mut counters, &mut split, &Collective::Alone)? {
            Stepped::Done | Stepped::Overflow => {}
            Stepped::NotFinite(found) => return Err(failed(found.what).into()),
        }
        if round >= WARM_UP {
            figures.push((counters.seen() - seen) as f64 / start.elapsed().as_secs_f64());
        }
        seen = counters.seen();
    }
    let seconds = split.take();
    let measured = Measurement::of(What::Train, setup, steps, figures);
    Ok(Measurement { split: Some(seconds), outside: Some(seconds.outside()), ..measured })
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
        }
    }
}

/// The same batch once more.
fn again(batch: &Batch) -> Batch {
    Batch::alone(batch.pixels.shallow_clone(), batch.labels.shallow_clone(), batch.samples.clone())
}

/// Bytes that differ, for shapes that are too large as well: then an error comes back. (tch panics where an
/// operation that takes a number, such as `arange`, fails.)
fn made_up(setup: &Setup, batch_size: usize, size: usize) -> Result<Batch> {
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
