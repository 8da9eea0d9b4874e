//! What a run tells while it goes on. Engines emit events; the command line shows them, the run keeps them.

use crate::metrics::Totals;
use serde::{Deserialize, Serialize};

/// Top-1, top-5 and loss over a data set; fractions of 1, and the counts behind them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Samples.
    pub seen: u64,
    /// Samples that could not be read and are not among those; `data.on_error` allowed it.
    #[serde(default, skip_serializing_if = "none")]
    pub skipped: u64,
    /// Right at the first guess.
    pub top1: Accuracy,
    /// Right within five guesses.
    pub top5: Accuracy,
    /// Mean cross-entropy.
    pub loss: f64,
}

/// Whether there are none.
fn none(count: &u64) -> bool {
    *count == 0
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

/// A count and its share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Samples that are right.
    pub correct: u64,
    /// The same as a fraction of all samples.
    pub accuracy: f64,
}

impl From<Totals> for Evaluation {
    fn from(totals: Totals) -> Self {
        Self {
            seen: totals.seen,
            skipped: 0,
            top1: Accuracy { correct: totals.top1, accuracy: totals.top1_accuracy() },
            top5: Accuracy { correct: totals.top5, accuracy: totals.top5_accuracy() },
            loss: totals.loss(),
        }
    }
}

/// One line of a run's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Training begins or goes on.
    Started {
        /// The network.
        model: String,
        /// Its trainable parameters.
        params: i64,
        /// Its multiply-adds for one sample.
        macs: i64,
        /// Training samples.
        samples: usize,
        /// Steps of the whole run.
        total_steps: u64,
        /// Steps that are done already.
        done_steps: u64,
        /// Where it computes.
        device: String,
        /// Processes that train it together.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        world_size: usize,
    },
    /// Some steps are done.
    Steps {
        /// Pass over the data, from 1.
        epoch: u64,
        /// Steps done in all.
        step: u64,
        /// Mean training loss since the last such event.
        loss: f64,
        /// Learning rate of the last step.
        lr: f64,
        /// Training speed since the last such event.
        images_per_second: f64,
        /// Share of the time that was spent on waiting for batches and making floats of them.
        #[serde(default)]
        waiting: f64,
    },
    /// An epoch is done.
    Epoch {
        /// Pass over the data, from 1.
        epoch: u64,
        /// Steps done in all.
        step: u64,
        /// Training loss over the epoch.
        train_loss: f64,
        /// Training top-1 accuracy over the epoch, augmented and while learning.
        train_top1: f64,
        /// The evaluation, if one was due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval: Option<Evaluation>,
        /// That of the moving average of the weights.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ema: Option<Evaluation>,
        /// Seconds of training, without the evaluation.
        seconds: f64,
        /// Training speed over the epoch.
        images_per_second: f64,
        /// Whether no epoch before was better in top-1, by the moving average where there is one.
        best: bool,
    },
    /// The run was asked to stop, and has saved itself.
    Interrupted {
        /// Steps done in all.
        step: u64,
    },
    /// Something that the user should know.
    Warning {
        /// What.
        message: String,
    },
    /// The run is done.
    Finished {
        /// Steps done in all.
        step: u64,
        /// Seconds of training of this process, evaluations included.
        seconds: f64,
    },
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tick {
    /// A training step is done.
    Train {
        /// Pass over the data, from 1.
        epoch: u64,
        /// Epochs in all, rounded up.
        epochs: u64,
        /// Steps done in all.
        step: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// An evaluation batch is done.
    Eval {
        /// Images done.
        done: u64,
        /// Images in all.
        total: u64,
    },
}

/// Someone who wants to know.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// A line for people, of which nothing is kept.
    fn remark(&mut self, _text: &str) {}
    /// A batch is done. Called at each, so it must be quick.
    fn tick(&mut self, _tick: Tick) {}
}
