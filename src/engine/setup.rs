//! From an experiment to everything that training it needs, checked before anything is written.

use crate::data::faults::Faults;
use crate::data::loader::{Loader, Plan};
use crate::data::preprocessing::PreprocessingSource;
use crate::data::share::Share;
use crate::data::{DataSpec, Dataset, Normalise, Split};
use crate::dist::collective::Collective;
use crate::error::{Result, failed, usage};
use crate::experiment::Experiment;
use crate::models;
use crate::net::Node;
use crate::net::cost::{Cost, Shape, cost};
use crate::optim::{Schedule, Timeline};
use crate::rng::fnv1a;
use crate::weights::{DeclaredPreprocessing, Weights};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tch::Device;

/// An experiment with its data open and its network described.
pub struct Setup {
    /// The experiment, every `null` filled in.
    pub experiment: Experiment,
    /// Training samples.
    pub train: Arc<dyn Dataset>,
    /// Evaluation samples.
    pub eval: Arc<dyn Dataset>,
    /// Training samples that turned out to be bad.
    pub train_faults: Arc<Faults>,
    /// Evaluation samples that turned out to be bad.
    pub eval_faults: Arc<Faults>,
    /// The network.
    pub node: Node,
    /// What it costs.
    pub cost: Cost,
    /// Where it computes.
    pub device: Device,
    /// What this process has of each batch.
    pub share: Share,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Cores that this process may keep busy.
    cores: usize,
}

/// The data that was opened last.
#[derive(Default)]
pub struct OpenData {
    /// By its specification and seed.
    last: Option<(DataSpec, u64, Halves)>,
}

/// Training and evaluation data.
type Halves = [Arc<dyn Dataset>; 2];

impl OpenData {
    /// Training and evaluation data of `experiment`.
    fn halves(&mut self, experiment: &Experiment) -> Result<Halves> {
        let Experiment { data, seed, .. } = experiment;
        match &self.last {
            Some((spec, of_seed, halves)) if (spec, of_seed) == (data, seed) => Ok(halves.clone()),
            _ => {
                // Before the new ones are opened, the old ones go.
                self.last = None;
                let halves = [data.open(Split::Train, *seed)?, data.open(Split::Eval, *seed)?];
                self.last = Some((data.clone(), *seed, halves.clone()));
                Ok(halves)
            }
        }
    }
}

/// Has libtorch use the `threads` that a configuration asks for; without, no more than this rank's part of the cores,
/// unless `OMP_NUM_THREADS` is set: a launcher, or a user, that has said how many there are to be has thought of the
/// others.
pub fn share_threads(threads: Option<usize>, collective: &Collective) {
    let part = collective.cores() as i32;
    match threads {
        Some(threads) => tch::set_num_threads(threads as i32),
        None if collective.world_size() > 1
            && std::env::var_os("OMP_NUM_THREADS").is_none()
            && tch::get_num_threads() > part =>
        {
            tch::set_num_threads(part);
        }
        None => {}
    }
}

impl Setup {
    /// Opens the data, fills in what is `null`, and describes the network for the data's classes.
    ///
    /// # Errors
    /// When anything does not fit together.
    pub fn new(experiment: Experiment) -> Result<Self> {
        Self::on(experiment, &mut OpenData::default(), &Collective::Alone)
    }

    /// The same for one rank of `collective`, with the data that `open` has from a setup before, if it is the same data.
    fn on(mut experiment: Experiment, open: &mut OpenData, collective: &Collective) -> Result<Self> {
        experiment.check()?;
        let device = collective.device().map_or_else(|| experiment.device(), Ok)?;
        share_threads(experiment.threads, collective);
        let [train, eval] = open.halves(&experiment)?;
        if eval.classes().len() > train.classes().len() {
            let (more, fewer) = (eval.classes().len(), train.classes().len());
            let message = format!("the evaluation data has {more} classes, the training data {fewer}");
            return Err(failed(message).hint("both splits must be of the same data set").into());
        }
        let (entry, _) = models::find(&experiment.model.name)?;
        let notes = normalise_as_declared(&mut experiment, train.channels(), collective)?;
        experiment.data.resolve(train.as_ref(), &entry.preprocessing())?;
        let (node, cost) = describe(&experiment, train.channels(), train.classes().len())?;
        let faults = |data: &Arc<dyn Dataset>| Arc::new(Faults::new(&experiment.data, data.len()));
        let (train_faults, eval_faults) = (faults(&train), faults(&eval));
        let share = collective.share();
        let setup = Self {
            experiment,
            train,
            eval,
            train_faults,
            eval_faults,
            node,
            cost,
            device,
            share,
            cores: collective.cores(),
            notes,
        };
        collective.agree(&setup.hashes(collective)?)?;
        Ok(setup)
    }

    /// What has to be the same on all ranks, in short.
    fn hashes(&self, collective: &Collective) -> Result<BTreeMap<String, String>> {
        if collective.world_size() == 1 {
            return Ok(BTreeMap::new());
        }
        Ok(BTreeMap::from([
            ("configuration".to_string(), recipe_hash(&self.experiment)?),
            ("program".to_string(), format!("{} {}", env!("CARGO_PKG_VERSION"), env!("SENET_GIT_REVISION"))),
            ("training data".to_string(), fingerprint(self.train.as_ref())),
            ("evaluation data".to_string(), fingerprint(self.eval.as_ref())),
        ]))
    }

    /// The same, with what only training needs checked as well: its length, its schedule and its batches.
    ///
    /// # Errors
    /// When anything does not fit together.
    pub fn for_training(experiment: Experiment) -> Result<Self> {
        Self::for_training_by(experiment, &Collective::Alone)
    }

    /// The same for one of the ranks of `collective`, all of which are to train it together.
    ///
    /// # Errors
    /// When anything does not fit together, or not to the other ranks'.
    pub fn for_training_by(experiment: Experiment, collective: &Collective) -> Result<Self> {
        Self::checked(Self::on(experiment, &mut OpenData::default(), collective)?)
    }

    /// The same for one run of several: data that the run before has opened is used again.
    ///
    /// # Errors
    /// When anything does not fit together.
    pub fn for_training_on(experiment: Experiment, open: &mut OpenData) -> Result<Self> {
        Self::checked(Self::on(experiment, open, &Collective::Alone)?)
    }

    fn checked(setup: Self) -> Result<Self> {
        let timeline = setup.timeline()?;
        Schedule::new(&setup.experiment.schedule, timeline)?;
        match &setup.experiment.train.sizes {
            None => setup.check_smallest_batch(timeline, &setup.cost, "`data.size`")?,
            Some(sizes) => {
                for size in sizes.all(timeline, setup.size()) {
                    let cost = setup.cost_at(size)?;
                    setup.check_smallest_batch(timeline, &cost, "`train.sizes`")?;
                }
            }
        }
        Ok(setup)
    }

    /// Height and width of the training images of epoch number `epoch`, from 0.
    pub fn train_size(&self, epoch: u64, timeline: Timeline) -> usize {
        let size = self.size();
        self.experiment.train.sizes.as_ref().map_or(size, |sizes| sizes.at(epoch, timeline, size))
    }

    /// The training batches of epoch number `epoch`, from 0, from its batch `first` on, of images of `size` × `size`.
    ///
    /// # Errors
    /// When the data does not allow the sampling that is asked for.
    pub fn train_batches(&self, epoch: u64, first: usize, size: usize) -> Result<Loader> {
        let Experiment { data, train, seed, .. } = &self.experiment;
        let data = DataSpec { size: Some(size), ..data.clone() };
        let (samples, faults) = (Arc::clone(&self.train), Arc::clone(&self.train_faults));
        let plan = Plan::train(samples, faults, &data, train.batch_size, *seed, epoch)?;
        Ok(Loader::start(plan.shared(self.share), first, self.loader_threads(), self.device))
    }

    /// Threads that prepare batches here.
    pub fn loader_threads(&self) -> usize {
        let DataSpec { threads, .. } = self.experiment.data;
        threads.unwrap_or(self.cores).max(1)
    }

    /// What the network costs for training images of `size` × `size`, which it may have no answer for.
    fn cost_at(&self, size: usize) -> Result<Cost> {
        let image = Shape::square(self.train.channels() as i64, size as i64);
        cost(&self.node, image).with_context(|| format!("training images of {size} × {size} (`train.sizes`)"))
    }

    /// Refuses a batch that leaves batch normalisation a single value a channel: its variance is 0 / 0, which
    /// training survives and every later evaluation does not. `cost` is that of images of a size of the run, which the key
    /// `setting` decides.
    fn check_smallest_batch(&self, timeline: Timeline, cost: &Cost, setting: &str) -> Result<()> {
        let (samples, batch_size) = (self.draws(), self.experiment.train.batch_size);
        let Share { world_size, .. } = self.share;
        let has_rest = timeline.total_steps >= timeline.steps_per_epoch && samples % batch_size > 0;
        let batches = has_rest.then_some(samples % batch_size).into_iter().chain([batch_size.min(samples)]);
        let is_shared = |batch: usize| batch >= world_size && !self.experiment.train.sync_bn;
        let smallest = batches.map(|batch| if is_shared(batch) { batch / world_size } else { batch }).min();
        let normalised = cost.stages.iter().filter(|stage| stage.params.bn_statistics > 0);
        let single_pixel = normalised.map(|stage| stage.output).find(|map| map.height * map.width == 1);
        if let (Some(1), Some(map)) = (smallest, single_pixel) {
            let among = match world_size {
                1 => String::new(),
                several => format!(" among {several} processes"),
            };
            let message = format!(
                "{samples} images in batches of {batch_size} (`train.batch_size`){among} leave a batch of 1, and batch \
                 normalisation needs more than the one value a channel of a map of {map}"
            );
            return Err(usage(message)
                .hint(format!("choose another `train.batch_size`, or larger images ({setting})"))
                .into());
        }
        Ok(())
    }

    /// Height and width of the images of evaluations, and of training unless `train.sizes` says otherwise.
    pub fn size(&self) -> usize {
        self.experiment.data.size.expect("the data specification is resolved")
    }

    /// Samples in an epoch of training.
    pub fn draws(&self) -> usize {
        self.experiment.data.sampling.draws(self.train.len())
    }

    /// Length of the run in steps.
    ///
    /// # Errors
    /// When it would have none.
    pub fn timeline(&self) -> Result<Timeline> {
        self.experiment.timeline(self.experiment.steps_per_epoch(self.train.len()))
    }

    /// What turns bytes into the network's input.
    pub fn normalise(&self) -> Normalise {
        normalise(&self.experiment, self.device)
    }
}

/// Mean and standard deviation as the weights declare them that training starts from, where the configuration has none:
/// they are part of what these weights compute. Returns what the user should know.
fn normalise_as_declared(
    experiment: &mut Experiment,
    channels: usize,
    collective: &Collective,
) -> Result<Vec<String>> {
    let Experiment { data, model, .. } = experiment;
    let Some(path) = model.weights.as_ref().filter(|_| data.mean.is_none() || data.std.is_none()) else {
        return Ok(Vec::new());
    };
    let (entry, _) = models::find(&model.name)?;
    let (source, mean, std) = collective.from_main(|| {
        let DeclaredPreprocessing { values, source, .. } = Weights::preprocessing_in(path, entry)?;
        Ok((source, values.mean, values.std))
    })?;
    if source == PreprocessingSource::Default || mean.len() != channels {
        return Ok(Vec::new());
    }
    let note = format!(
        "mean {mean:?} and std {std:?}, as {} declares them for these weights (`data.mean` and `data.std` take precedence)",
        if source == PreprocessingSource::TimmConfig { "config.json" } else { "the weights file" }
    );
    let is_usual = (&mean, &std) == (&entry.preprocessing().mean, &entry.preprocessing().std);
    data.mean.get_or_insert(mean);
    data.std.get_or_insert(std);
    Ok(if is_usual { Vec::new() } else { vec![note] })
}

/// What has to be the same on all machines that train together, in short: not where the data lies, nor on how many threads
/// it is computed.
///
/// # Errors
/// When the experiment cannot be written down.
pub fn recipe_hash(experiment: &Experiment) -> Result<String> {
    let mut recipe = Experiment { device: String::new(), threads: None, ..experiment.clone() };
    recipe.data = DataSpec { dir: PathBuf::new(), quarantine: None, threads: None, ..recipe.data };
    Ok(format!("{:016x}", fnv1a(&serde_json::to_vec(&recipe)?)))
}

/// What tells one half of a data set from another: its samples' names and labels, in their order.
pub(super) fn fingerprint(data: &dyn Dataset) -> String {
    let mut text = data.classes().join("\n").into_bytes();
    for sample in 0..data.len() {
        text.extend(data.relative_name(sample).into_bytes());
        text.extend(data.label(sample).to_le_bytes());
    }
    format!("{} samples, {:016x}", data.len(), fnv1a(&text))
}

/// The network of `experiment` for data of `channels` channels and `classes` classes, and what it costs.
///
/// # Errors
/// When the input is too small for it.
pub fn describe(experiment: &Experiment, channels: usize, classes: usize) -> Result<(Node, Cost)> {
    let node = experiment.model.describe(channels as i64, classes as i64)?;
    let size = experiment.data.size.expect("the data specification is resolved") as i64;
    let cost = cost(&node, Shape::square(channels as i64, size))?;
    Ok((node, cost))
}

/// What turns bytes into the network's input.
pub fn normalise(experiment: &Experiment, device: Device) -> Normalise {
    let data = &experiment.data;
    let resolved = "the data specification is resolved";
    Normalise::new(data.mean.as_deref().expect(resolved), data.std.as_deref().expect(resolved), device)
}
