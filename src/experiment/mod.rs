//! One experiment, whole: everything that decides what a run computes, on one page.
//!
//! Each part owns its settings (`model`, `data`, `optim`, `schedule`); this module only puts them together,
//! reads them from JSON ([`load`]) and expands a comparison into its rows ([`sweep`]).

pub mod load;
pub mod sweep;

use crate::data::DataSpec;
use crate::duration::Duration;
use crate::error::{Result, usage};
use crate::models::ModelSpec;
use crate::optim::{ScheduleSpec, SgdSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Cuda, Device};

/// A training run, described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Experiment {
    /// For people: what it reproduces, how to run it, what it costs, what to expect. Read by nobody else.
    pub about: Value,
    /// Short name; part of the run's folder name.
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
    pub optim: SgdSpec,
    /// The learning rate over time.
    pub schedule: ScheduleSpec,
    /// `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:1`.
    pub device: String,
    /// Threads of one operation on the CPU; `null` is libtorch's choice.
    pub threads: Option<usize>,
}

/// How long and on what the network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSpec {
    /// Length of the run.
    pub duration: Duration,
    /// Samples in one step.
    pub batch_size: usize,
    /// Samples in one step of evaluation; `null` is twice the training's.
    pub eval_batch_size: Option<usize>,
    /// Share of the target probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Steps between two lines of the log.
    pub log_every: Duration,
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
            optim: SgdSpec::default(),
            schedule: ScheduleSpec::default(),
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
            eval_batch_size: None,
            label_smoothing: 0.0,
            log_every: Duration::Steps(50),
        }
    }
}

impl TrainSpec {
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
        let TrainSpec { batch_size, eval_batch_size, label_smoothing, .. } = &self.train;
        if *batch_size == 0 || *eval_batch_size == Some(0) {
            return Err(usage(
                "a batch size of 0 (`train.batch_size`, `train.eval_batch_size`) trains nothing",
            )
            .into());
        }
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
        if self.threads == Some(0) || self.data.threads == Some(0) {
            return Err(
                usage("0 threads (`threads`, `data.threads`) cannot work; use null for all cores").into()
            );
        }
        let made_up = &self.data.synthetic;
        if made_up.classes == 0 || made_up.size == 0 || made_up.train == 0 || made_up.eval == 0 {
            return Err(usage("`data.synthetic` has a 0 among `classes`, `size`, `train` and `eval`").into());
        }
        if ![1, 3].contains(&made_up.channels) {
            let message =
                format!("`data.synthetic.channels` is {}, but images have 1 or 3", made_up.channels);
            return Err(usage(message).into());
        }
        self.device().map(|_| ())
    }

    /// The device that `device` names.
    ///
    /// # Errors
    /// When it is unknown or not there.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }
}

/// The device called `name`.
///
/// # Errors
/// When the name is unknown or the device not there.
pub fn device(name: &str) -> Result<Device> {
    let gpus = Cuda::device_count();
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => index,
            None => {
                let message = format!("unknown device `{other}`: expected auto, cpu, cuda or cuda:N");
                return Err(usage(message).into());
            }
        },
    };
    if (index as i64) < gpus {
        return Ok(Device::Cuda(index));
    }
    let message = format!("`device` is `{name}`, but {gpus} CUDA device(s) were found");
    Err(usage(message).hint("`senet doctor` says why").into())
}
