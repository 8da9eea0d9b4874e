//! A checkpoint: everything that a run needs to go on as if it had never stopped.
//!
//! It is a folder of three files, or four with a moving average, written beside its place and then renamed into it, so
//! that a reader finds a whole checkpoint or the one before. `state.json` holds sizes and hashes of the others, its own
//! checksum, and the id of its run; what does not match is refused. A [`Snapshot`] is taken between two steps; a
//! [`Writer`] writes it while training continues.

use super::sealed::{self, Checksum};
use crate::data::Preprocessing;
use crate::error::{Result, TorchContext, failed, usage};
use crate::files;
use crate::metrics::Totals;
use crate::models::ModelSpec;
use crate::net::build::{NamedTensor, Net};
use crate::optim::{LossScaler, Optimizer, Plateau};
use crate::process;
use crate::rng::fnv1a;
use crate::weights::{self, About, Array, Arrays, safetensors};
use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tch::{Device, TchError, Tensor};

/// Weights and statistics.
const MODEL: &str = "model.safetensors";
/// The same of the moving average, where there is one.
const EMA: &str = "ema.safetensors";
/// What the optimizer remembers of each parameter.
const OPTIM: &str = "optim.safetensors";
/// Everything that is no tensor.
pub(super) const STATE: &str = "state.json";

/// What the weights of a checkpoint belong to.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Name of the network.
    pub model: &'a str,
    /// All its settings, for the weights file; `None` in an identity that was read, as the run's configuration has them.
    pub spec: Option<&'a ModelSpec>,
    /// Channels of the images.
    pub channels: usize,
    /// Names of the classes, in the order of the labels.
    pub classes: &'a [String],
    /// How images are prepared; checkpoints of older versions do not say.
    pub preprocessing: Option<&'a Preprocessing>,
    /// Id of the run; checkpoints of older versions do not say.
    pub run: Option<&'a str>,
}

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Counts of the epoch in progress.
    pub epoch_totals: Totals,
    /// The same up to the last line about steps in the history, where later steps are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_totals: Option<Totals>,
    /// Seconds of training of the epoch in progress.
    pub epoch_seconds: f64,
    /// Seconds of training of all finished epochs.
    pub train_seconds: f64,
    /// Highest evaluation top-1 so far, as a fraction; of the moving average, where there is one.
    pub best_top1: Option<f64>,
    /// State of a plateau schedule.
    pub plateau: Plateau,
    /// Whether the last epoch's evaluation is still to be done: all its steps are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_evaluation: bool,
    /// Steps without an update since the last with one (`train.on_nan: "skip"`).
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// Steps, counted from 0, that the run leaves out since it has gone back because of them (`"rollback"`).
    #[serde(default)]
    pub left_out: Vec<u64>,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    model: String,
    channels: usize,
    classes: Vec<String>,
    #[serde(default)]
    preprocessing: Option<Preprocessing>,
    /// Id of the run; checkpoints of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    progress: Progress,
    /// Checkpoints of older versions do not say: theirs is SGD, with as many updates as steps.
    #[serde(default)]
    optim: Option<OptimMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaler: Option<LossScaler>,
    files: BTreeMap<String, FileMark>,
}

/// What is no tensor of the optimizer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OptimMark {
    kind: String,
    /// Updates so far.
    steps: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileMark {
    bytes: usize,
    fnv1a: String,
}

impl FileMark {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len(), fnv1a: format!("{:016x}", fnv1a(bytes)) }
    }
}

/// What is saved of a run, beside how far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The network.
    pub net: &'a Net,
    /// Its moving average.
    pub average: Option<&'a Net>,
    /// Its optimizer.
    pub optimizer: &'a Optimizer,
    /// Its loss scaler.
    pub scaler: Option<&'a LossScaler>,
}

/// When checkpoints are written, beside the end of each epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSpec {
    /// After so many steps, counted from the run's beginning.
    #[schemars(range(min = 1))]
    pub every_steps: Option<u64>,
    /// After so many minutes since the last one.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub every_minutes: Option<f64>,
    /// How many of those before the newest are kept, the best apart.
    #[schemars(range(min = 1, max = MAX_KEPT))]
    pub keep: usize,
}

/// Attempts to read a checkpoint that may be replaced meanwhile, and the time between them.
const TRIES: usize = 3;
const RETRY_EVERY: Duration = Duration::from_millis(30);

/// Most checkpoints before the newest.
const MAX_KEPT: usize = 1000;

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { every_steps: None, every_minutes: None, keep: 1 }
    }
}

impl CheckpointSpec {
    /// Refuses distances that are none.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self) -> Result<()> {
        if self.every_steps == Some(0) {
            return Err(usage("`checkpoint.every_steps` is 0, but it must be 1 or more").into());
        }
        if !(1..=MAX_KEPT).contains(&self.keep) {
            let message = format!("`checkpoint.keep` is {}, but it must be from 1 to {MAX_KEPT}", self.keep);
            return Err(usage(message).hint("1 keeps the checkpoint before the newest").into());
        }
        match self.every_minutes {
            Some(minutes) if !(minutes > 0.0 && minutes.is_finite()) => {
                let message = format!("`checkpoint.every_minutes` is {minutes}, but it must be more than 0");
                Err(usage(message).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether one is due after `step`, the last one being `age` old.
    pub fn is_due(&self, step: u64, age: Duration) -> bool {
        self.every_steps.is_some_and(|steps| step.is_multiple_of(steps))
            || self.every_minutes.is_some_and(|minutes| age.as_secs_f64() >= 60.0 * minutes)
    }
}

/// Where a checkpoint goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its folder.
    pub dir: PathBuf,
    /// How many of those that were there before are kept.
    pub earlier: usize,
}

/// A checkpoint in memory, which no later step changes.
pub struct Snapshot {
    about: About,
    /// Names of files, and what belongs into them.
    contents: Vec<(&'static str, Vec<(String, Tensor)>)>,
    /// But for the marks of the files.
    state: State,
}

impl Snapshot {
    /// Copies everything, to main memory.
    ///
    /// # Errors
    /// When there is not enough of it.
    pub fn take(identity: Identity<'_>, parts: Parts<'_>, progress: &Progress) -> Result<Self> {
        let Identity { model, spec, channels, classes, preprocessing, run } = identity;
        let about = About::of(spec.unwrap_or(&ModelSpec::named(model)), classes, preprocessing);
        let Parts { net, average, optimizer, scaler } = parts;
        let mut contents = vec![(MODEL, weights_of(net)), (OPTIM, optimizer.state())];
        contents.extend(average.map(|average| (EMA, weights_of(average))));
        for (_, tensor) in contents.iter_mut().flat_map(|(_, tensors)| tensors) {
            let copy = |tensor: &Tensor| -> Result<Tensor, TchError> {
                let tensor = tensor.f_detach()?;
                let (non_blocking, copy) = (false, true);
                tensor.f_to_device_(Device::Cpu, tensor.kind(), non_blocking, copy)
            };
            *tensor =
                copy(tensor).torch_context(|| "cannot copy the weights for a checkpoint".to_string())?;
        }
        let optim = OptimMark { kind: optimizer.kind().to_string(), steps: optimizer.steps() };
        let state = State {
            model: model.to_string(),
            channels,
            classes: classes.to_vec(),
            preprocessing: preprocessing.cloned(),
            run: run.map(str::to_string),
            progress: progress.clone(),
            optim: Some(optim),
            scaler: scaler.cloned(),
            files: BTreeMap::new(),
        };
        Ok(Self { about, contents, state })
    }

    /// Writes it to each of `places`, in this order.
    fn write(mut self, places: &[Place]) -> Result<()> {
        let mut files = Vec::new();
        for (name, tensors) in &self.contents {
            let bytes = safetensors::write(tensors, &self.about)?;
            self.state.files.insert((*name).to_string(), FileMark::of(&bytes));
            files.push((*name, bytes));
        }
        // Last, as it vouches for the others.
        files.push((STATE, sealed::document(&self.state)?));
        let (state, marks) = (&files[files.len() - 1].1, &self.state.files);
        places.iter().try_for_each(|place| match holds(&place.dir, marks) {
            // The same weights a little later, as after an evaluation: no reason to move earlier checkpoints on.
            true => files::write_atomic(&place.dir.join(STATE), state),
            false => replace(place, &files),
        })
    }
}

/// Writes snapshots on a thread of its own, one after the other.
#[derive(Default)]
pub struct Writer {
    running: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    /// Begins to write `snapshot` to each of `places`, when the snapshot before is written.
    ///
    /// # Errors
    /// When that one could not be written.
    pub fn begin(&mut self, snapshot: Snapshot, places: Vec<Place>) -> Result<()> {
        self.finish()?;
        let write = move || snapshot.write(&places);
        let thread = thread::Builder::new().name("checkpoint".to_string()).spawn(write);
        self.running = Some(thread.map_err(|error| process::thread_refused(&error))?);
        Ok(())
    }

    /// Looks whether what has been begun is written, without waiting for it.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn check(&mut self) -> Result<()> {
        match &self.running {
            Some(running) if running.is_finished() => self.finish(),
            _ => Ok(()),
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// When the disk is full or not writable; the checkpoint before then stays.
    pub fn finish(&mut self) -> Result<()> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(written)) => written,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Writer {
    /// What has been begun becomes whole even where training fails.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// Whether the checkpoint `dir` has files of these marks, undamaged.
fn holds(dir: &Path, marks: &BTreeMap<String, FileMark>) -> bool {
    let state = fs::read(dir.join(STATE)).ok().and_then(|state| sealed::parse::<State>(&state).ok());
    let is_whole = |(name, mark): (&String, &FileMark)| {
        fs::read(dir.join(name)).is_ok_and(|bytes| FileMark::of(&bytes) == *mark)
    };
    state.is_some_and(|(state, _)| state.files == *marks) && marks.iter().all(is_whole)
}

/// Puts a folder of these files in its place; what was there is kept as `dir.previous`, what was that before as
/// `dir.previous-2`, and so on.
fn replace(Place { dir, earlier }: &Place, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let partial = sibling(dir, "partial");
    remove(&partial)?;
    // Not the folders above it: a run that was moved or deleted meanwhile does not come into being again, in pieces.
    fs::create_dir(&partial).map_err(|reason| {
        let problem = failed(format!("cannot create the folder {}: {reason}", partial.display()));
        match reason.kind() {
            std::io::ErrorKind::NotFound => {
                problem.hint("was the run's folder moved or deleted? `--resume` goes on where it lies now")
            }
            _ => problem,
        }
    })?;
    let mut write = files.iter().map(|(name, bytes)| files::write_atomic(&partial.join(name), bytes));
    if let Err(error) = write.try_for_each(|written| written) {
        // On a full disk, what is there of it would be in the way of everything else.
        let _ = remove(&partial);
        return Err(error);
    }

    let swap = || -> std::io::Result<()> {
        if dir.exists() {
            let kept: Vec<PathBuf> =
                [dir.clone()].into_iter().chain(earlier_than(dir).take(*earlier)).collect();
            let oldest = &kept[*earlier];
            if oldest.exists() {
                fs::remove_dir_all(oldest)?;
            }
            for pair in kept.windows(2).rev().filter(|pair| pair[0].exists()) {
                fs::rename(&pair[0], &pair[1])?;
            }
        }
        fs::rename(&partial, dir)
    };
    swap().with_context(|| format!("cannot replace the checkpoint {}", dir.display()))
}

fn weights_of(net: &Net) -> Vec<(String, Tensor)> {
    net.tensors().iter().map(|named| (named.param.name.clone(), named.tensor.shallow_clone())).collect()
}

/// Removes the checkpoint `dir` if it is of `step` and awaits its evaluation, and puts the ones before it in its place.
///
/// # Errors
/// When there is none before it, or a folder cannot be moved.
pub fn withdraw(dir: &Path, step: u64) -> Result<()> {
    let is_meant = |progress: &Progress| progress.step == step && progress.awaits_evaluation;
    if !Saved::open_exactly(dir, None).is_ok_and(|(saved, _)| is_meant(saved.progress())) {
        return Ok(());
    }
    let kept: Vec<PathBuf> =
        [dir.to_path_buf()].into_iter().chain(earlier_than(dir).take_while(|dir| dir.exists())).collect();
    if kept.len() == 1 {
        return Err(failed(format!("there is no checkpoint before {}", dir.display())).into());
    }
    let partial = sibling(dir, "partial");
    remove(&partial)?;
    let shift = || -> std::io::Result<()> {
        fs::rename(dir, &partial)?;
        kept.windows(2).try_for_each(|pair| fs::rename(&pair[1], &pair[0]))
    };
    shift().with_context(|| format!("cannot replace the checkpoint {}", dir.display()))?;
    remove(&partial)
}

/// Whether there is a checkpoint `dir`, or one before it.
pub fn exists(dir: &Path) -> bool {
    let dirs = [dir.to_path_buf()].into_iter().chain(earlier_than(dir).take(1));
    dirs.into_iter().any(|dir| dir.join(STATE).is_file())
}

/// The folders of the checkpoints before `dir`, from the newest back.
fn earlier_than(dir: &Path) -> impl Iterator<Item = PathBuf> {
    (1..).map(|back| match back {
        1 => sibling(dir, "previous"),
        _ => sibling(dir, &format!("previous-{back}")),
    })
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Saved {
    dir: PathBuf,
    state: State,
}

impl Saved {
    /// Opens the checkpoint `dir` of the run with this id, or the newest intact one before it where `dir` is missing, damaged
    /// or another run's; the second value then says why.
    ///
    /// # Errors
    /// When none is intact.
    pub fn open(dir: &Path, run: Option<&str>) -> Result<(Self, Option<String>)> {
        let mut tries = 1;
        let error = loop {
            match Self::open_exactly(dir, run) {
                Ok((saved, Checksum::Valid)) => return Ok((saved, None)),
                Ok((saved, Checksum::Missing)) => {
                    let path = dir.join(STATE);
                    let message =
                        format!("{} has no checksum: an older version of senet saved it", path.display());
                    return Ok((saved, Some(message)));
                }
                // A process that trains the run may be replacing it at this moment.
                Err(_) if tries < TRIES => {
                    tries += 1;
                    thread::sleep(RETRY_EVERY);
                }
                Err(error) => break error,
            }
        };
        let mut earlier = earlier_than(dir).take(MAX_KEPT).filter(|dir| dir.exists());
        match earlier.find_map(|dir| Self::open_exactly(&dir, run).ok()) {
            Some((saved, _)) => {
                let step = saved.progress().step;
                Ok((saved, Some(format!("{error:#}; using an earlier one, of step {step}"))))
            }
            None => Err(error),
        }
    }

    fn open_exactly(dir: &Path, run: Option<&str>) -> Result<(Self, Checksum)> {
        let state_file = dir.join(STATE);
        if !state_file.is_file() {
            return Err(failed(format!("no checkpoint in {}", dir.display()))
                .hint("the run was stopped before its first one; `senet train --resume` begins it anew")
                .into());
        }
        let damaged = |file: &Path, what: &str| {
            failed(format!("{} is damaged: {what}", file.display()))
                .hint("copy the checkpoint from a backup; `checkpoints/best` may still be whole")
        };
        let (state, checksum): (State, _) =
            sealed::parse(&files::read(&state_file)?).map_err(|what| damaged(&state_file, &what))?;
        if let (Some(wanted), Some(found)) = (run, &state.run)
            && wanted != found
        {
            let message = format!(
                "{} is the checkpoint of another run: its id is {found}, this run's is {wanted}",
                dir.display()
            );
            return Err(failed(message).hint("restore the checkpoint that belongs to the run").into());
        }
        for (name, mark) in &state.files {
            let path = dir.join(name);
            if FileMark::of(&files::read(&path)?) != *mark {
                return Err(damaged(&path, "it is not what was saved").into());
            }
        }
        Ok((Self { dir: dir.to_path_buf(), state }, checksum))
    }

    /// How far the run had come.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// The loss scaler, where the run has one.
    pub fn scaler(&self) -> Option<&LossScaler> {
        self.state.scaler.as_ref()
    }

    /// What the weights belong to.
    pub fn identity(&self) -> Identity<'_> {
        let State { model, channels, classes, preprocessing, run, .. } = &self.state;
        let (preprocessing, run) = (preprocessing.as_ref(), run.as_deref());
        Identity { model, spec: None, channels: *channels, classes, preprocessing, run }
    }

    /// Fills `net`; nothing is changed unless everything fits.
    ///
    /// # Errors
    /// When a tensor is missing, left over or of another shape; all are named.
    pub fn load_weights(&self, net: &Net) -> Result<()> {
        self.load(MODEL, net)
    }

    /// The same with the moving average.
    ///
    /// # Errors
    /// When the run has none, or as [`Saved::load_weights`].
    pub fn load_average(&self, net: &Net) -> Result<()> {
        if !self.state.files.contains_key(EMA) {
            let message = format!("{} holds no moving average of the weights", self.dir.display());
            return Err(failed(message).hint("`train.ema` makes one while a network is trained").into());
        }
        self.load(EMA, net)
    }

    fn load(&self, file: &str, net: &Net) -> Result<()> {
        let path = self.dir.join(file);
        let arrays = self.read(file)?;
        let wanted: Vec<&NamedTensor> = net.tensors().iter().collect();
        let hint = "`model` must be the network that was trained";
        weights::fill(&path, &wanted, &arrays.iter().collect(), hint)
    }

    /// Fills the optimizer.
    ///
    /// # Errors
    /// When it belongs to another network, or is another optimizer's.
    pub fn load_optimizer(&self, optimizer: &mut Optimizer) -> Result<()> {
        let path = self.dir.join(OPTIM);
        let (kind, saved) = (optimizer.kind(), self.state.optim.as_ref());
        let (saved, steps) = saved.map_or(("sgd", self.progress().step), |mark| (&mark.kind, mark.steps));
        if saved != kind {
            let message =
                format!("{} is the state of `{saved}`, but `optim.kind` is `{kind}`", path.display());
            return Err(failed(message).hint("a run goes on with the optimizer that it began with").into());
        }
        let memories = self.read(OPTIM)?;
        optimizer.restore(steps, |name, shape| {
            let memory = memories.get(name).filter(|memory| memory.shape == shape);
            let Array { values, .. } =
                memory.with_context(|| format!("{}: no `{name}` {shape:?}", path.display()))?;
            let tensor = Tensor::f_from_slice(values).and_then(|flat| flat.f_view(shape));
            tensor.torch_context(|| format!("cannot read `{name}`"))
        })
    }

    /// The tensors of one of the checkpoint's files, which are what was saved.
    fn read(&self, file: &str) -> Result<Arrays> {
        let path = self.dir.join(file);
        Ok(safetensors::read(&path, &files::read(&path)?, u64::MAX)?.0)
    }
}

fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{name}.{suffix}"))
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}
