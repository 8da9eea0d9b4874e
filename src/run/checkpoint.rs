//! A checkpoint: everything that a run needs to go on as if it had never stopped.
//!
//! It is a folder of three files, written beside its place and then renamed into it, so that a reader finds a whole
//! checkpoint or the one before. `state.json` holds sizes and hashes of the others; what does not match is refused.

use crate::error::{Result, TorchContext, failed};
use crate::files;
use crate::metrics::Totals;
use crate::net::build::{Net, overwrite};
use crate::optim::{Plateau, Sgd};
use crate::rng::fnv1a;
use anyhow::Context;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Weights and statistics.
const MODEL: &str = "model.safetensors";
/// Velocities of the optimizer.
const OPTIM: &str = "optim.safetensors";
/// Everything that is no tensor.
pub(super) const STATE: &str = "state.json";

/// What the weights of a checkpoint belong to.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Name of the network.
    pub model: &'a str,
    /// Channels of the images.
    pub channels: usize,
    /// Names of the classes, in the order of the labels.
    pub classes: &'a [String],
}

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Counts of the epoch in progress.
    pub epoch_totals: Totals,
    /// Seconds of training of the epoch in progress.
    pub epoch_seconds: f64,
    /// Seconds of training of all finished epochs.
    pub train_seconds: f64,
    /// Highest evaluation top-1 so far, as a fraction.
    pub best_top1: Option<f64>,
    /// State of a plateau schedule.
    pub plateau: Plateau,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    model: String,
    channels: usize,
    classes: Vec<String>,
    progress: Progress,
    files: BTreeMap<String, FileMark>,
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

/// Writes a checkpoint to the folder `dir`, replacing the one that is there; that one is kept as `dir.previous`.
///
/// # Errors
/// When the disk is full or not writable; the old checkpoint then stays.
pub fn save(dir: &Path, identity: Identity<'_>, net: &Net, sgd: &Sgd, progress: &Progress) -> Result<()> {
    let partial = sibling(dir, "partial");
    let previous = sibling(dir, "previous");
    remove(&partial)?;
    files::create_dir(&partial)?;
    let metadata = json!({ "format": "pt", "model": identity.model, "senet": env!("CARGO_PKG_VERSION") });
    let weights = net.tensors().iter().map(|named| (named.param.name.clone(), named.tensor.shallow_clone()));
    let mut marks = BTreeMap::new();
    for (name, tensors) in [(MODEL, weights.collect()), (OPTIM, sgd.state())] {
        let bytes = serialise(tensors, &metadata)?;
        files::write_atomic(&partial.join(name), &bytes)?;
        marks.insert(name.to_string(), FileMark::of(&bytes));
    }
    let Identity { model, channels, classes } = identity;
    let state = State {
        model: model.to_string(),
        channels,
        classes: classes.to_vec(),
        progress: progress.clone(),
        files: marks,
    };
    files::write_atomic(&partial.join(STATE), &serde_json::to_vec_pretty(&state)?)?;

    let swap = || -> std::io::Result<()> {
        if dir.exists() {
            if previous.exists() {
                fs::remove_dir_all(&previous)?;
            }
            fs::rename(dir, &previous)?;
        }
        fs::rename(&partial, dir)
    };
    swap().with_context(|| format!("cannot replace the checkpoint {}", dir.display()))
}

/// Whether there is a checkpoint `dir`, or one before it.
pub fn exists(dir: &Path) -> bool {
    [dir.to_path_buf(), sibling(dir, "previous")].iter().any(|dir| dir.join(STATE).is_file())
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Saved {
    dir: PathBuf,
    state: State,
}

impl Saved {
    /// Opens the checkpoint `dir`, or the one before it where `dir` is missing or damaged; the second value then
    /// says why.
    ///
    /// # Errors
    /// When neither is whole.
    pub fn open(dir: &Path) -> Result<(Self, Option<String>)> {
        match Self::open_exactly(dir) {
            Ok(saved) => Ok((saved, None)),
            Err(error) => match Self::open_exactly(&sibling(dir, "previous")) {
                Ok(saved) => {
                    let step = saved.progress().step;
                    Ok((saved, Some(format!("{error:#}; using the one before it, of step {step}"))))
                }
                Err(_) => Err(error),
            },
        }
    }

    fn open_exactly(dir: &Path) -> Result<Self> {
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
        let state: State = serde_json::from_slice(&files::read(&state_file)?)
            .map_err(|error| damaged(&state_file, &error.to_string()))?;
        for (name, mark) in &state.files {
            let path = dir.join(name);
            if FileMark::of(&files::read(&path)?) != *mark {
                return Err(damaged(&path, "it is not what was saved").into());
            }
        }
        Ok(Self { dir: dir.to_path_buf(), state })
    }

    /// How far the run had come.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// What the weights belong to.
    pub fn identity(&self) -> Identity<'_> {
        let State { model, channels, classes, .. } = &self.state;
        Identity { model, channels: *channels, classes }
    }

    /// Fills `net`; nothing is changed unless everything fits.
    ///
    /// # Errors
    /// When a tensor is missing, left over or of another shape; all are named.
    pub fn load_weights(&self, net: &Net) -> Result<()> {
        load_weights(&self.dir.join(MODEL), net)
    }

    /// Fills the optimizer.
    ///
    /// # Errors
    /// When it belongs to another network.
    pub fn load_optimizer(&self, sgd: &mut Sgd) -> Result<()> {
        let path = self.dir.join(OPTIM);
        let bytes = files::read(&path)?;
        let tensors = parse(&path, &bytes)?;
        sgd.restore(|name, shape| {
            let view = tensors.tensor(name).ok().filter(|view| same_shape(view, shape));
            let view =
                view.with_context(|| format!("{}: no velocity for `{name}` {shape:?}", path.display()))?;
            tensor(&view).torch_context(|| format!("cannot read `{name}`"))
        })
    }
}

/// Fills `net` from a safetensors file; nothing is changed unless everything fits.
///
/// # Errors
/// When a tensor is missing, left over or of another shape or type; all are named.
pub fn load_weights(path: &Path, net: &Net) -> Result<()> {
    let bytes = files::read(path)?;
    let tensors = parse(path, &bytes)?;
    let mut complaints = Vec::new();
    let mut values = Vec::new();
    for named in net.tensors() {
        match tensors.tensor(&named.param.name) {
            Err(_) => complaints.push(format!("`{}` is missing", named.param.name)),
            Ok(view) if !same_shape(&view, &named.param.shape) || view.dtype() != Dtype::F32 => {
                let (found, expected) = (view.shape(), &named.param.shape);
                let dtype = view.dtype();
                complaints
                    .push(format!("`{}` is {dtype:?} {found:?}, not F32 {expected:?}", named.param.name));
            }
            Ok(view) => {
                values.push(tensor(&view).torch_context(|| format!("cannot read `{}`", named.param.name))?)
            }
        }
    }
    let known: std::collections::HashSet<&str> =
        net.tensors().iter().map(|named| named.param.name.as_str()).collect();
    let mut left_over: Vec<&str> = tensors.names().into_iter().filter(|name| !known.contains(name)).collect();
    left_over.sort_unstable();
    complaints.extend(left_over.iter().map(|name| format!("`{name}` is left over")));
    if !complaints.is_empty() {
        let shown = complaints.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
        let rest = complaints.len().saturating_sub(6);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let message = format!("{} belongs to another network: {shown}{rest}", path.display());
        return Err(failed(message).hint("`model` must be the network that was trained").into());
    }
    for (named, values) in net.tensors().iter().zip(values) {
        overwrite(&named.tensor, &values).torch_context(|| format!("cannot load `{}`", named.param.name))?;
    }
    Ok(())
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

/// A safetensors file. Its header is written here because the crate's own writer hashes the metadata into another
/// order in every process, and the same training should give the same bytes.
fn serialise(mut tensors: Vec<(String, Tensor)>, metadata: &Value) -> Result<Vec<u8>> {
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut header = Map::from_iter([("__metadata__".to_string(), metadata.clone())]);
    let mut end = 0;
    for (name, tensor) in &tensors {
        let start = end;
        end += tensor.numel() * 4;
        let entry = json!({ "dtype": "F32", "shape": tensor.size(), "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&header)?;
    // Spaces, so that the values begin at a multiple of eight.
    text.resize(text.len().next_multiple_of(8), b' ');

    let mut bytes = Vec::with_capacity(8 + text.len() + end);
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
    for (name, tensor) in tensors {
        let failed = || format!("cannot save `{name}`");
        let host = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous());
        let host = host.torch_context(failed)?;
        let (start, count) = (bytes.len(), host.numel());
        bytes.resize(start + count * 4, 0);
        host.f_copy_data_u8(&mut bytes[start..], count).torch_context(failed)?;
    }
    Ok(bytes)
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|error| {
        let message = format!("{}: not a whole safetensors file: {error}", path.display());
        failed(message).hint("the file is damaged or of another format").into()
    })
}

fn same_shape(view: &TensorView<'_>, shape: &[i64]) -> bool {
    view.shape().iter().map(|&side| side as i64).eq(shape.iter().copied())
}

fn tensor(view: &TensorView<'_>) -> Result<Tensor, tch::TchError> {
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, Kind::Float)
}
