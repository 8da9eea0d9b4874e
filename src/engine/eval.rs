//! Exact evaluation: every image once, counted, divided at the end.

use super::setup::normalise;
use crate::data::loader::{Batch, Loader, Plan};
use crate::data::{Dataset, Normalise, Split};
use crate::error::{Result, TorchContext, failed};
use crate::experiment::Experiment;
use crate::metrics::{Counters, Totals};
use crate::net::build::Net;
use crate::net::loss::cross_entropy;
use crate::net::plan::InferencePlan;
use crate::report::event::{Evaluation, Observer, Tick};
use crate::run::checkpoint::{Identity, Saved};
use crate::run::{Checkpoint, RunDir};
use std::path::PathBuf;
use std::sync::Arc;
use tch::{Device, no_grad_guard};

/// Runs `net` over all of `dataset`.
///
/// # Errors
/// When a sample cannot be read or libtorch refuses.
pub fn evaluate(
    experiment: &Experiment,
    net: &Net,
    dataset: &Arc<dyn Dataset>,
    normalise: &Normalise,
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    let _guard = no_grad_guard();
    let plan = Plan::eval(Arc::clone(dataset), &experiment.data, experiment.train.eval_batch_size());
    let (mut done, total) = (0, dataset.len() as u64);
    let mut counters = Counters::new(&Totals::default(), net.device());
    let net_plan = InferencePlan::new(net).torch_context(|| "cannot prepare the network".to_string())?;
    for batch in Loader::start(plan, 0, experiment.data.thread_count(), net.device()) {
        let batch = batch?;
        count(&net_plan, normalise, &batch, &mut counters)
            .torch_context(|| "cannot evaluate a batch".to_string())?;
        done += batch.len as u64;
        observer.tick(Tick::Eval { done, total });
    }
    let totals = counters.read()?;
    assert_eq!(totals.seen, dataset.len() as u64, "every image is counted once");
    Ok(totals.into())
}

fn count(
    net: &InferencePlan<'_>,
    normalise: &Normalise,
    batch: &Batch,
    counters: &mut Counters,
) -> Result<(), tch::TchError> {
    let logits = net.forward(&normalise.apply(&batch.pixels)?)?;
    let loss = cross_entropy(&logits, &batch.labels, 0.0)?;
    counters.add(&logits, &batch.labels, &loss)
}

/// What to evaluate, beside the run itself.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which weights.
    pub checkpoint: Checkpoint,
    /// Other data than the run's.
    pub data: Option<PathBuf>,
    /// Other batch size than the run's.
    pub batch_size: Option<usize>,
    /// Other device than the run's.
    pub device: Option<String>,
}

/// An evaluation of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The network.
    pub model: String,
    /// Optimizer steps behind its weights.
    pub step: u64,
    /// The counts.
    pub evaluation: Evaluation,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Evaluates a checkpoint of `run`.
///
/// # Errors
/// When the checkpoint, the data and the network do not fit together.
pub fn run(run: &RunDir, request: &Request, observer: &mut dyn Observer) -> Result<Outcome> {
    let mut experiment = run.experiment()?;
    if let Some(dir) = &request.data {
        experiment.data.dir.clone_from(dir);
        experiment.data.source = crate::data::Source::Auto;
    }
    experiment.train.eval_batch_size = request.batch_size.or(experiment.train.eval_batch_size);
    let device: Device = crate::experiment::device(request.device.as_deref().unwrap_or(&experiment.device))?;
    if let Some(threads) = experiment.threads {
        tch::set_num_threads(threads as i32);
    }

    let (saved, warning) = Saved::open(&run.checkpoint(request.checkpoint))?;
    let dataset = experiment.data.open(Split::Eval, experiment.seed)?;
    // The data that the run was trained on decides the classes, not the data at hand.
    let Identity { channels, classes, .. } = saved.identity();
    check_fit(dataset.as_ref(), channels, classes)?;
    let (node, _) = super::setup::describe(&experiment, channels, classes.len())?;
    let net = Net::build(&node, experiment.seed, device)?;
    saved.load_weights(&net)?;

    let evaluation = evaluate(&experiment, &net, &dataset, &normalise(&experiment, device), observer)?;
    Ok(Outcome { model: experiment.model.name.clone(), step: saved.progress().step, evaluation, warning })
}

/// Refuses data whose images or labels mean something else than those that the network was trained on.
fn check_fit(data: &dyn Dataset, channels: usize, classes: &[String]) -> Result<()> {
    let hint = "evaluate on the data set that the run was trained on";
    if channels != data.channels() {
        let message =
            format!("the network takes {channels} channel(s), but the images have {}", data.channels());
        return Err(failed(message).hint(hint).into());
    }
    // Fewer are no harm, as long as those that are there have the same labels.
    if !classes.starts_with(data.classes()) {
        let (trained, found) = (classes.len(), data.classes().len());
        let other = data.classes().iter().zip(classes).find(|(found, trained)| found != trained);
        let message = match other {
            Some((found, trained)) => {
                format!("the data has a class `{found}` where the network was trained for `{trained}`")
            }
            None => format!("the network was trained for {trained} classes, but the data has {found}"),
        };
        return Err(failed(message).hint(hint).into());
    }
    Ok(())
}
