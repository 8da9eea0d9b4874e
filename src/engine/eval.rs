//! Exact evaluation: every image once, counted, divided at the end.

use super::trained::Trained;
use crate::data::faults::Faults;
use crate::data::loader::{Batch, Loader, Plan};
use crate::data::{DataSpec, Dataset, Normalise, Source, Split};
use crate::error::{Result, TorchContext, failed};
use crate::experiment::Experiment;
use crate::metrics::{Counters, Totals};
use crate::models::{self, ModelSpec};
use crate::net::build::Net;
use crate::net::loss::cross_entropy;
use crate::net::plan::InferencePlan;
use crate::report::event::{Evaluation, Event, Observer, Tick};
use crate::run::{Checkpoint, RunDir};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, no_grad_guard};

/// Runs `net` over all of `dataset`, but for those samples that `faults` allows to leave out.
///
/// # Errors
/// When a sample cannot be read or libtorch refuses.
pub fn evaluate(
    experiment: &Experiment,
    net: &Net,
    dataset: &Arc<dyn Dataset>,
    faults: &Arc<Faults>,
    normalise: &Normalise,
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    let _guard = no_grad_guard();
    let batch_size = experiment.train.eval_batch_size();
    let plan = Plan::eval(Arc::clone(dataset), Arc::clone(faults), &experiment.data, batch_size);
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
    let skipped = faults.count() as u64;
    assert_eq!(totals.seen + skipped, dataset.len() as u64, "every image is counted once");
    Ok(Evaluation { skipped, ..totals.into() })
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

/// What to evaluate a network on and how, beside what its run says.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The moving average of a run's weights instead of the weights.
    pub average: bool,
    /// Other data than the run's.
    pub data: Option<PathBuf>,
    /// Other batch size than the run's.
    pub batch_size: Option<usize>,
    /// Other device than the run's.
    pub device: Option<String>,
    /// SE blocks that are left out, as [`Trained::without_se`] names them.
    pub without_se: Vec<String>,
}

/// Which trained network.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A checkpoint of a run.
    Run(&'a RunDir, Checkpoint),
    /// A file of weights, of this network if it does not say so itself.
    File(&'a Path, Option<&'a ModelSpec>),
}

/// A trained network with the data it is looked at on.
pub struct Examined {
    /// The network.
    pub trained: Trained,
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// How they are prepared, batch sizes, threads.
    pub experiment: Experiment,
    /// What the user should know.
    pub warning: Option<String>,
}

/// An evaluation of a trained network.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The network.
    pub model: String,
    /// Optimizer steps behind its weights, where that is known.
    pub step: Option<u64>,
    /// The counts.
    pub evaluation: Evaluation,
    /// What the user should know.
    pub warning: Option<String>,
}

/// Evaluates a trained network.
///
/// # Errors
/// When the weights, the data and the network do not fit together.
pub fn run(subject: Subject<'_>, request: &Request, observer: &mut dyn Observer) -> Result<Outcome> {
    let Examined { trained, dataset, experiment, warning } = Examined::open(subject, request)?;
    let normalise = trained.normalise();
    let faults = Arc::new(Faults::new(&experiment.data, dataset.len()));
    let evaluation = evaluate(&experiment, &trained.net, &dataset, &faults, &normalise, observer)?;
    for message in faults.take_news() {
        observer.event(&Event::Warning { message });
    }
    Ok(Outcome { model: trained.model, step: trained.step, evaluation, warning })
}

impl Examined {
    /// Reads the network and opens the data.
    ///
    /// # Errors
    /// When the weights, the data and the network do not fit together.
    pub fn open(subject: Subject<'_>, request: &Request) -> Result<Self> {
        let (experiment, trained, warning) = match subject {
            Subject::Run(run, checkpoint) => {
                let mut experiment = run.experiment()?;
                let device = request.apply(&mut experiment)?;
                let (trained, warning) =
                    Trained::of_run(run, &experiment, checkpoint, request.average, device)?;
                (experiment, trained, warning)
            }
            Subject::File(path, model) => {
                let mut experiment = Experiment::default();
                let device = request.apply(&mut experiment)?;
                let trained = Trained::of_file(path, model, device)?;
                let (dir, source) = (experiment.data.dir, experiment.data.source);
                experiment.data = DataSpec { dir, source, ..DataSpec::prepared(&trained.preprocessing) };
                (experiment, trained, None)
            }
        };
        let trained =
            if request.without_se.is_empty() { trained } else { trained.without_se(&request.without_se)? };
        let dataset = experiment.data.open(Split::Eval, experiment.seed)?;
        check_fit(dataset.as_ref(), trained.preprocessing.mean.len(), &trained)?;
        Ok(Self { trained, dataset, experiment, warning })
    }

    /// The images in batches, each once, in order.
    pub(super) fn batches(&self) -> Loader {
        let Experiment { data, train, .. } = &self.experiment;
        let faults = Arc::new(Faults::new(data, self.dataset.len()));
        let plan = Plan::eval(Arc::clone(&self.dataset), faults, data, train.eval_batch_size());
        Loader::start(plan, 0, data.thread_count(), self.trained.net.device())
    }
}

impl Request {
    /// Puts what was asked for into the run's configuration, and finds the device.
    fn apply(&self, experiment: &mut Experiment) -> Result<Device> {
        if let Some(dir) = &self.data {
            experiment.data.dir.clone_from(dir);
            experiment.data.source = Source::Auto;
        }
        experiment.train.eval_batch_size = self.batch_size.or(experiment.train.eval_batch_size);
        if let Some(threads) = experiment.threads {
            tch::set_num_threads(threads as i32);
        }
        crate::experiment::device(self.device.as_deref().unwrap_or(&experiment.device))
    }
}

/// Refuses data whose images or labels mean something else than those that the network was trained on.
fn check_fit(data: &dyn Dataset, channels: usize, trained: &Trained) -> Result<()> {
    let hint = "evaluate on the data set that the run was trained on";
    if channels != data.channels() {
        let message =
            format!("the network takes {channels} channel(s), but the images have {}", data.channels());
        return Err(failed(message).hint(hint).into());
    }
    // Fewer are no harm, as long as those that are there have the same labels.
    let (expected, found) = (spelled(&trained.classes), spelled(data.classes()));
    let fits =
        if trained.classes_are_named { expected.starts_with(&found) } else { expected.len() == found.len() };
    if !fits {
        let other = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        let other = other.filter(|_| trained.classes_are_named);
        let (trained, found) = (expected.len(), found.len());
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

/// Names of classes, ImageNet's by their names where the folders are called by their WordNet ids.
pub(super) fn spelled(classes: &[String]) -> Vec<&str> {
    let names: HashMap<&str, &str> = models::imagenet_classes().collect();
    classes.iter().map(|class| names.get(class.as_str()).copied().unwrap_or(class)).collect()
}
