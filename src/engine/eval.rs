//! Exact evaluation: every image once, counted, divided at the end.

use super::StopFlag;
use super::classes::{ClassMap, Targets};
use super::details::{Answers, Details, Questions};
use super::nonfinite::{self, LogitsCheck};
use super::setup::{Setup, fingerprint, share_threads};
use super::splits;
use super::trained::Trained;
use super::weights_file::WeightsOptions;
use crate::data::class_order::ClassOrder;
use crate::data::faults::Faults;
use crate::data::loader::{Batch, Loader, Plan};
use crate::data::preprocessing::{PreprocessingOverrides, UsedPreprocessing};
use crate::data::views::Views;
use crate::data::{DataSpec, Dataset, Normalise, Source, Split};
use crate::dist::collective::Collective;
use crate::error::{Result, TorchContext, failed, usage};
use crate::experiment::Experiment;
use crate::metrics::guesses::Guesses;
use crate::metrics::{Counters, Totals};
use crate::net::build::Net;
use crate::net::loss::cross_entropy;
use crate::net::plan::InferencePlan;
use crate::report::event::{Evaluation, Event, Observer, Tick};
use crate::run::{Checkpoint, RunDir};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, TchError, Tensor, no_grad_guard};

/// Runs `net` over all of the evaluation data of `setup`, but for those samples that may be left out. Each rank of
/// `collective` takes its share, and all get the same outcome, the counts of all.
///
/// # Errors
/// When a sample cannot be read, libtorch refuses, or a rank is lost.
pub fn evaluate(
    setup: &Setup,
    net: &Net,
    normalise: &Normalise,
    observer: &mut dyn Observer,
    collective: &Collective,
    stop: &StopFlag,
) -> Result<Passed<Evaluation>> {
    let Setup { experiment, eval: dataset, eval_faults: faults, .. } = setup;
    let (views, targets, threads) = (Views::default(), &Targets::Own, setup.loader_threads());
    let pass = Pass {
        experiment,
        net,
        dataset,
        faults,
        normalise,
        views,
        targets,
        threads,
        collective,
        stop: Some(stop),
    };
    pass.run(&mut |_| Ok(()), observer)
}

/// How a pass over a data set ended, on all ranks alike.
#[derive(Debug)]
pub enum Passed<T> {
    /// Every sample is counted.
    Counted(T),
    /// There is no result, since logits are NaN or infinite; the message says of which images.
    NonFinite(String),
    /// Someone asked to stop.
    Stopped,
}

/// One pass over a data set.
struct Pass<'a> {
    experiment: &'a Experiment,
    net: &'a Net,
    dataset: &'a Arc<dyn Dataset>,
    faults: &'a Arc<Faults>,
    normalise: &'a Normalise,
    views: Views,
    targets: &'a Targets,
    /// That prepare batches.
    threads: usize,
    collective: &'a Collective,
    /// Looked at after each batch, by all ranks together.
    stop: Option<&'a StopFlag>,
}

/// What a network makes of a batch, on the device.
struct Seen {
    /// Numbers of the samples in the data set.
    samples: Vec<usize>,
    /// `[N, classes]`.
    logits: Tensor,
    /// int64 `[N]`.
    labels: Tensor,
}

impl Pass<'_> {
    /// Counts every sample, unless it is stopped, and hands each batch to `each`.
    fn run(
        &self,
        each: &mut dyn FnMut(&Seen) -> Result<()>,
        observer: &mut dyn Observer,
    ) -> Result<Passed<Evaluation>> {
        let Self { experiment, net, dataset, faults, collective, .. } = self;
        let _guard = no_grad_guard();
        let batch_size = experiment.train.eval_batch_size();
        let plan = Plan::eval(Arc::clone(dataset), Arc::clone(faults), &experiment.data, batch_size)
            .shared(collective.share());
        let batches = plan.batches();
        let (mut done, total) = (0, plan.samples() as u64);
        let mut counters = Counters::new(&Totals::default(), net.device());
        let mut check = LogitsCheck::default();
        let net_plan = InferencePlan::new(net).torch_context(|| "cannot prepare the network".to_string())?;
        let mut loader = Loader::start(plan.seen_as(self.views), 0, self.threads, net.device());
        // As many turns on all ranks, whatever samples they have.
        for _ in 0..batches {
            if let Some(stop) = self.stop
                && collective.any(stop.is_set())?
            {
                return Ok(Passed::Stopped);
            }
            let Some(batch) = loader.next() else { continue };
            let batch = batch?;
            done += batch.len as u64;
            let seen = self
                .look_at(batch, &net_plan, &mut counters, &mut check)
                .torch_context(|| "cannot evaluate a batch".to_string())?;
            each(&seen)?;
            observer.tick(Tick::Eval { done, total });
        }
        let [seen, top1, top5, loss_sum] = counters.read()?.to_array();
        let failed = check.failed()?;
        let counts = [seen, top1, top5, loss_sum, loader.skipped() as f64, failed.len() as f64];
        let sums = collective.sum(&counts)?;
        let totals = Totals::from_slice(&sums[..4]).expect("four of six");
        let skipped = sums[4] as u64;
        assert_eq!(totals.seen + skipped, dataset.len() as u64, "every image is counted once");
        if sums[5] > 0.0 {
            let first = failed.iter().min().map(|sample| (*sample, dataset.source_name(*sample)));
            let first = collective.gather_said(&[first])?.into_iter().flatten().flatten().min();
            let (_, first) = first.expect("one rank has a sample");
            return Ok(Passed::NonFinite(nonfinite::message(sums[5] as u64, totals.seen, &first)));
        }
        if totals.seen > 0 && !totals.loss_sum.is_finite() {
            return Ok(Passed::NonFinite(format!("the loss of the evaluation is {}", totals.loss())));
        }
        Ok(Passed::Counted(Evaluation { skipped, ..totals.into() }))
    }

    fn look_at(
        &self,
        batch: Batch,
        net: &InferencePlan<'_>,
        counters: &mut Counters,
        check: &mut LogitsCheck,
    ) -> Result<Seen, TchError> {
        let logits = self.logits(&batch.pixels, net)?;
        check.add(&batch.samples, &logits)?;
        let (logits, labels) = self.targets.choose(logits, &batch.labels)?;
        counters.add(&logits, &labels, &cross_entropy(&logits, &labels, 0.0)?)?;
        Ok(Seen { samples: batch.samples, logits, labels })
    }

    /// The network's logits for each image, `[N, outputs]`: their mean over the image's views.
    fn logits(&self, pixels: &Tensor, net: &InferencePlan<'_>) -> Result<Tensor, TchError> {
        let forward = |pixels: &Tensor| net.forward(&self.normalise.apply(pixels)?);
        if self.views == Views::Centre {
            return forward(pixels);
        }
        let (_, height, width, channels) = pixels.size4()?;
        let windows = self.views.windows() as i64;
        let crops = pixels.f_view([-1, windows, height, width, channels])?;
        let mut logits = Vec::new();
        for window in 0..windows {
            let crop = crops.f_select(1, window)?;
            logits.push(forward(&crop)?);
            if self.views.are_mirrored() {
                logits.push(forward(&crop.f_flip([2])?)?);
            }
        }
        Tensor::f_stack(&logits, 0)?.f_mean_dim([0i64].as_slice(), false, None::<Kind>)
    }
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
    /// Changes of how images are prepared.
    pub preprocessing: PreprocessingOverrides,
    /// What class folders named by numbers are to a network whose classes have no names.
    pub class_order: ClassOrder,
}

/// Which trained network.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A checkpoint of a run.
    Run(&'a RunDir, Checkpoint),
    /// A file of weights, and how to read it.
    File(&'a Path, &'a WeightsOptions),
}

/// A trained network with the data it is looked at on.
pub struct Examined {
    /// The network.
    pub trained: Trained,
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// Which of the network's outputs its classes are.
    pub classes: ClassMap,
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
    /// What else was asked.
    pub answers: Answers,
    /// How images were prepared.
    pub preprocessing: UsedPreprocessing,
    /// Classes of the data, and outputs of the network.
    pub classes: (usize, usize),
    /// How folders named by numbers were read, where it matters.
    pub class_order: Option<ClassOrder>,
    /// What the user should know.
    pub warning: Option<String>,
}

/// How the network's outputs are looked at.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// As which crops it sees an image.
    pub views: Views,
    /// Whether its guesses are among the data set's classes alone.
    pub subset: bool,
    /// What is asked beside the counts.
    pub questions: Questions,
}

/// Evaluates a trained network; each rank of `collective` takes its share of the images, and all get the counts of all.
///
/// # Errors
/// When the weights, the data and the network do not fit together, a table cannot be written, or a rank is lost or has
/// other data.
pub fn run(
    subject: Subject<'_>,
    request: &Request,
    look: &Look,
    observer: &mut dyn Observer,
    collective: &Collective,
) -> Result<Outcome> {
    let Examined { trained, dataset, classes, experiment, warning } = Examined::open(subject, request)?;
    share_threads(experiment.threads, collective);
    if collective.is_main() {
        observer.remark(&splits::line(&experiment.data, splits::EVALUATION, dataset.as_ref()));
        if let Some((_, reading)) = classes.reading() {
            observer.remark(reading);
        }
        observer.remark(&trained.preprocessing.line(&trained.spec.name));
        for message in splits::warnings(None, dataset.as_ref()) {
            observer.event(&Event::Warning { message });
        }
    }
    let net = &trained.net;
    let targets = &classes
        .targets(look.subset, net.device())
        .torch_context(|| "cannot prepare the classes".to_string())?;
    if collective.world_size() > 1 {
        let data = ("evaluation data".to_string(), fingerprint(dataset.as_ref()));
        let weights = ("checkpoint".to_string(), format!("{:?} of {}", trained.step, trained.spec.name));
        let preprocessing = ("preprocessing".to_string(), format!("{:?}", trained.preprocessing));
        collective.agree(&[data, weights, preprocessing].into())?;
    }
    let mut details = Details::begin(&look.questions, dataset.as_ref(), classes.names(look.subset))?;
    let faults = Arc::new(Faults::new(&experiment.data, dataset.len()));
    let pass = Pass {
        experiment: &experiment,
        net,
        dataset: &dataset,
        faults: &faults,
        normalise: &trained.normalise(),
        views: look.views,
        targets,
        threads: experiment.data.threads.unwrap_or_else(|| collective.cores()).max(1),
        collective,
        stop: None,
    };
    if collective.world_size() > 1 && !details.are_none() {
        let message = "tables, calibration and further labels are made by one process, but there are several";
        return Err(usage(message).hint("evaluate with one process for them").into());
    }
    let mut note = |seen: &Seen| {
        if details.are_none() {
            return Ok(());
        }
        let guesses = Guesses::read(&seen.logits, &seen.labels)
            .torch_context(|| "cannot read the logits".to_string())?;
        details.add(&seen.samples, &guesses)
    };
    let evaluation = match pass.run(&mut note, observer)? {
        Passed::Counted(evaluation) => evaluation,
        Passed::NonFinite(message) => return Err(failed(message).hint(nonfinite::HINT).into()),
        Passed::Stopped => unreachable!("nobody can stop it"),
    };
    let answers = details.finish()?;
    for message in faults.take_news() {
        observer.event(&Event::Warning { message });
    }
    let class_order = classes.reading().map(|(order, _)| *order);
    let classes = (classes.len(), classes.outputs());
    let Trained { spec, step, preprocessing, .. } = trained;
    let model = spec.name;
    Ok(Outcome { model, step, evaluation, answers, preprocessing, classes, class_order, warning })
}

impl Examined {
    /// Reads the network and opens the data.
    ///
    /// # Errors
    /// When the weights, the data and the network do not fit together.
    pub fn open(subject: Subject<'_>, request: &Request) -> Result<Self> {
        let (mut experiment, mut trained) = match subject {
            Subject::Run(run, checkpoint) => {
                let mut experiment = run.experiment()?;
                let device = request.apply(&mut experiment)?;
                let trained = Trained::of_run(run, &experiment, checkpoint, request.average, device)?;
                (experiment, trained)
            }
            Subject::File(path, options) => {
                let mut experiment = Experiment::default();
                let device = request.apply(&mut experiment)?;
                let trained = Trained::of_file(
                    path,
                    &WeightsOptions { average: request.average, ..options.clone() },
                    device,
                )?;
                let (dir, source) = (experiment.data.dir, experiment.data.source);
                experiment.data =
                    DataSpec { dir, source, ..DataSpec::prepared(&trained.preprocessing.values) };
                (experiment, trained)
            }
        };
        let warning = (!trained.notes.is_empty()).then(|| trained.notes.join("; "));
        trained.preprocess_with(&request.preprocessing)?;
        experiment.data.preprocess_as(&trained.preprocessing.values);
        let trained =
            if request.without_se.is_empty() { trained } else { trained.without_se(&request.without_se)? };
        let dataset = experiment.data.open(Split::Eval, experiment.seed)?;
        check_channels(dataset.as_ref(), &trained)?;
        let classes = ClassMap::new(dataset.classes(), &trained, request.class_order)?;
        Ok(Self { trained, dataset, classes, experiment, warning })
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

/// Refuses images of other channels than those that the network was trained on.
fn check_channels(data: &dyn Dataset, trained: &Trained) -> Result<()> {
    let channels = trained.preprocessing.values.mean.len();
    if channels == data.channels() {
        return Ok(());
    }
    let message = format!("the network takes {channels} channel(s), but the images have {}", data.channels());
    Err(failed(message).hint("evaluate on the data set that the run was trained on").into())
}
