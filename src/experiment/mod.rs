//! One experiment, whole: everything that decides what a run computes, on one page.
//!
//! Each part owns its settings (`model`, `data`, `optim`, `schedule`); this module only puts them together,
//! reads them from JSON ([`load`]), describes that JSON ([`schema`]), checks files ([`validate`]), compares two experiments
//! ([`diff`]) and expands a comparison ([`request`], of values of an [`axis`]) into its rows ([`sweep`]).

pub mod axis;
pub mod diff;
pub mod load;
pub mod paper;
pub mod rate;
pub mod request;
pub mod schema;
pub mod sizes;
pub mod sweep;
pub mod validate;

use crate::data::augment::check::{self, Key};
use crate::data::augment::mix::{MixSpec, Pairing};
use crate::data::sampling::Sampling;
use crate::data::{DataSpec, MAX_SIZE, synthetic};
use crate::duration::Duration;
use crate::error::{Result, usage};
use crate::models::ModelSpec;
use crate::net::loss::LossSpec;
use crate::net::precision::Precision;
use crate::optim::{ClipSpec, EmaSpec, OptimSpec, ScheduleSpec};
use crate::run::LogSpec;
use crate::run::checkpoint::CheckpointSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sizes::SizeSpec;
use tch::{Cuda, Device};

/// Largest batch, in samples.
pub const MAX_BATCH_SIZE: usize = 1_000_000;

/// Most threads of one kind. libgomp ends the process when it gets fewer than it was asked for.
pub const MAX_THREADS: usize = 1024;

/// A training run, described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(transform = schema::names_itself)]
pub struct Experiment {
    /// For people: what it reproduces, how to run it, what it costs, what to expect. Read by nobody else.
    pub about: Value,
    /// Short name; part of the run's folder name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Decides initial values, order, augmentation and made-up data.
    pub seed: u64,
    /// The network.
    pub model: ModelSpec,
    /// The data and its preparation.
    pub data: DataSpec,
    /// The training itself.
    pub train: TrainSpec,
    /// The optimizer.
    pub optim: OptimSpec,
    /// The learning rate over time.
    pub schedule: ScheduleSpec,
    /// When checkpoints are written.
    pub checkpoint: CheckpointSpec,
    /// What is written for other programs to show.
    pub log: LogSpec,
    /// `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:1`.
    #[schemars(regex(pattern = "^(auto|cpu|cuda|cuda:[0-9]+)$"))]
    pub device: String,
    /// Threads of one operation on the CPU; `null` is libtorch's choice.
    #[schemars(range(min = 1, max = MAX_THREADS))]
    pub threads: Option<usize>,
}

/// How long and on what the network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSpec {
    /// Length of the run.
    pub duration: Duration,
    /// Samples in one forward and backward pass, of all processes together.
    #[schemars(range(min = 1, max = MAX_BATCH_SIZE))]
    pub batch_size: usize,
    /// Batches in one optimizer step.
    #[schemars(range(min = 1, max = MAX_BATCH_SIZE))]
    pub accumulate: usize,
    /// Samples in one step of evaluation, of all processes together; `null` is twice the training's.
    #[schemars(range(min = 1, max = MAX_BATCH_SIZE))]
    pub eval_batch_size: Option<usize>,
    /// Share of the target probability that is spread over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f64,
    /// The criterion.
    pub loss: LossSpec,
    /// Mixing of images and labels within a batch.
    pub mix: MixSpec,
    /// Bounds of the gradients.
    pub clip: Option<ClipSpec>,
    /// A moving average of the weights, evaluated and kept beside them.
    pub ema: Option<EmaSpec>,
    /// Length at the run's end with the statistics of batch normalisation as they are: used as in evaluation, and no
    /// longer moved. Gammas and betas are still trained.
    pub freeze_bn: Duration,
    /// Whether several processes normalise their batches together (SyncBN), so that their number changes nothing; else
    /// each has the statistics of its own part, and the running ones are averaged before an evaluation or checkpoint.
    pub sync_bn: bool,
    /// Number format of the computation.
    pub precision: Precision,
    /// What becomes of a step whose loss or gradients are not finite.
    pub on_nan: OnNan,
    /// Size of the training images, where it is not the evaluation's.
    pub sizes: Option<SizeSpec>,
    /// Epochs between two evaluations; the last is always evaluated.
    #[schemars(range(min = 1))]
    pub eval_every: u64,
    /// Steps between two lines of the log.
    pub log_every: Duration,
}

/// What becomes of a step whose loss or gradients are not finite. On the CPU each step is looked at; on GPUs, which would
/// have to be waited for, under `stop` only the loss and when it is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// The run stops; its last checkpoint is from before.
    #[default]
    Stop,
    /// The step is left out, ten times in a row at most.
    Skip,
    /// The run goes back to its last checkpoint, and on from there without that step and the one before, whose update may
    /// be the cause; ten times at most.
    Rollback,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            about: Value::Null,
            name: "fashion-mnist".to_string(),
            seed: 0,
            model: ModelSpec::default(),
            data: DataSpec::default(),
            train: TrainSpec::default(),
            optim: OptimSpec::default(),
            schedule: ScheduleSpec::default(),
            checkpoint: CheckpointSpec::default(),
            log: LogSpec::default(),
            device: "auto".to_string(),
            threads: None,
        }
    }
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            duration: Duration::Epochs(2.0),
            batch_size: 128,
            accumulate: 1,
            eval_batch_size: None,
            label_smoothing: 0.0,
            loss: LossSpec::default(),
            mix: MixSpec::default(),
            clip: None,
            ema: None,
            freeze_bn: Duration::default(),
            sync_bn: false,
            precision: Precision::default(),
            on_nan: OnNan::default(),
            sizes: None,
            eval_every: 1,
            log_every: Duration::Steps(50),
        }
    }
}

impl TrainSpec {
    /// Samples in one optimizer step.
    pub fn samples_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// How the same steps take less memory.
    pub fn in_less_memory(&self) -> String {
        let halves = |size: &usize| self.batch_size.is_multiple_of(*size);
        match (1..=self.batch_size / 2).rev().find(halves) {
            Some(size) => format!(
                "`train.batch_size` {size} with `train.accumulate` {} makes the same steps of {} samples in less memory \
                 (batch normalisation then sees {size} at a time)",
                self.accumulate * self.batch_size / size,
                self.samples_per_step()
            ),
            None => "use smaller images (`data.size`) or a smaller network".to_string(),
        }
    }

    /// Samples in one step of evaluation.
    pub fn eval_batch_size(&self) -> usize {
        self.eval_batch_size.unwrap_or(2 * self.batch_size)
    }
}

impl Experiment {
    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// When a value is out of its range; its key is named.
    pub fn check(&self) -> Result<()> {
        self.model.describe(3, 10)?;
        self.optim.check()?;
        self.checkpoint.check()?;
        self.train.loss.check()?;
        self.train.mix.check(Key::object("train.mix"))?;
        self.train.clip.iter().try_for_each(ClipSpec::check)?;
        self.train.ema.iter().try_for_each(EmaSpec::check)?;
        self.train.sizes.iter().try_for_each(SizeSpec::check)?;
        if self.train.eval_every == 0 {
            return Err(usage("`train.eval_every` is 0, but it must be 1 or more epochs").into());
        }
        self.check_name()?;
        self.check_limits()?;
        let label_smoothing = &self.train.label_smoothing;
        if !(0.0..1.0).contains(label_smoothing) {
            let message =
                format!("`train.label_smoothing` is {label_smoothing}, but it must be from 0 to less than 1");
            return Err(usage(message).into());
        }
        if matches!(self.train.duration, Duration::Percent(_)) {
            let message =
                format!("`train.duration` is {}, but a run cannot be a share of itself", self.train.duration);
            return Err(usage(message).hint("give it in epochs (\"90ep\") or steps (\"5000st\")").into());
        }
        self.check_data()?;
        let made_up = &self.data.synthetic;
        if ![1, 3].contains(&made_up.channels) {
            let message =
                format!("`data.synthetic.channels` is {}, but images have 1 or 3", made_up.channels);
            return Err(usage(message).into());
        }
        is_device(&self.device)
    }

    /// What is done to the images.
    fn check_data(&self) -> Result<()> {
        let data = &self.data;
        let area = Key::object("data").at("crop_area");
        check::bounds(area, data.crop_area, 0.001..=1.0, "[0.08, 1] is usual")?;
        let bad = Key::object("data").at("max_bad");
        check::range(bad, data.max_bad, 0.0..=1.0, "a share of the samples; 0.01 bears one of a hundred")?;
        data.augment.check("data.augment")?;
        data.sampling.check("data.sampling")?;
        let mix = &self.train.mix;
        if matches!(data.sampling, Sampling::Repeated { .. }) && mix.is_on() && mix.pairing == Pairing::Roll {
            let message = "`train.mix.pairing` is `roll`, which would mix the repeats of `data.sampling` with each other";
            return Err(usage(message).hint("set `train.mix.pairing` to \"permutation\"").into());
        }
        Ok(())
    }

    /// The name becomes part of a folder's name, so it must not lead elsewhere.
    fn check_name(&self) -> Result<()> {
        let plain = |c: char| !c.is_control() && !['/', '\\'].contains(&c);
        if self.name.is_empty() || self.name.len() > 100 || !self.name.chars().all(plain) {
            let message = format!("`name` is {:?}, but it must suit a folder's name", self.name);
            return Err(usage(message).hint("use 1 to 100 letters, digits and dashes").into());
        }
        Ok(())
    }

    /// Refuses numbers that no machine can serve, before anything tries to.
    fn check_limits(&self) -> Result<()> {
        let (train, data, made_up) = (&self.train, &self.data, &self.data.synthetic);
        let limits = [
            ("train.batch_size", Some(train.batch_size), MAX_BATCH_SIZE),
            ("train.accumulate", Some(train.accumulate), MAX_BATCH_SIZE),
            ("train.eval_batch_size", train.eval_batch_size, MAX_BATCH_SIZE),
            ("threads", self.threads, MAX_THREADS),
            ("data.threads", data.threads, MAX_THREADS),
            ("data.size", data.size, MAX_SIZE),
            // The default is a little more than the size.
            ("data.resize", data.resize, 2 * MAX_SIZE),
            ("data.synthetic.size", Some(made_up.size), MAX_SIZE),
            ("data.synthetic.classes", Some(made_up.classes), synthetic::MAX_CLASSES),
            ("data.synthetic.train", Some(made_up.train), synthetic::MAX_SAMPLES),
            ("data.synthetic.eval", Some(made_up.eval), synthetic::MAX_SAMPLES),
        ];
        for (key, value, max) in limits {
            if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
                return Err(usage(format!("`{key}` is {value}, but it must be from 1 to {max}")).into());
            }
        }
        if data.padding > MAX_SIZE {
            let message = format!("`data.padding` is {}, but it must be from 0 to {MAX_SIZE}", data.padding);
            return Err(usage(message).into());
        }
        Ok(())
    }

    /// The device that `device` names.
    ///
    /// # Errors
    /// When it is unknown or not there.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }
}

/// Refuses a name that is none of a device, whether or not the device is there: a run that was trained on a GPU
/// is read on machines without one.
fn is_device(name: &str) -> Result<()> {
    let numbered = name.strip_prefix("cuda:").is_some_and(|index| index.parse::<usize>().is_ok());
    if numbered || ["auto", "cpu", "cuda"].contains(&name) {
        return Ok(());
    }
    let message = format!("unknown device `{name}` (`device`): expected auto, cpu, cuda or cuda:N");
    Err(usage(message).into())
}

/// The device called `name`.
///
/// # Errors
/// When the name is unknown or the device not there.
pub fn device(name: &str) -> Result<Device> {
    is_device(name)?;
    let gpus = Cuda::device_count();
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        numbered => numbered.strip_prefix("cuda:").map_or(Ok(0), str::parse::<usize>)?,
    };
    if (index as i64) < gpus {
        return Ok(Device::Cuda(index));
    }
    let message = format!("`device` is `{name}`, but {gpus} CUDA device(s) were found");
    Err(usage(message).hint("`senet doctor` says why").into())
}

/// The device of the process number `local_rank` of its machine, from 0, under a launcher: a GPU of its own. A launcher
/// may show each process its GPU alone, which is number 0 then.
///
/// # Errors
/// When the name is unknown or names one GPU for all, or there are fewer GPUs than processes.
pub fn device_of_rank(name: &str, local_rank: usize) -> Result<Device> {
    is_device(name)?;
    let gpus = Cuda::device_count();
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if gpus == 0 => Ok(Device::Cpu),
        "auto" | "cuda" if gpus == 1 => Ok(Device::Cuda(0)),
        "auto" | "cuda" if (local_rank as i64) < gpus => Ok(Device::Cuda(local_rank)),
        "auto" | "cuda" => {
            let message =
                format!("process {local_rank} of this machine has no GPU: {gpus} CUDA device(s) were found");
            Err(usage(message).hint("start as many processes on a machine as it has GPUs").into())
        }
        one => {
            let message = format!("`device` is `{one}`, but each process needs a GPU of its own");
            Err(usage(message).hint("`cuda` takes the one of the process's number on its machine").into())
        }
    }
}
