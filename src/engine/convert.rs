//! Weights from one form of file to another.

use super::trained::Trained;
use super::weights_file::{WeightsFile, WeightsOptions};
use crate::error::{Result, failed};
use crate::files;
use crate::models::aliases::{self, ALIASES};
use crate::models::{self, ModelSpec};
use crate::weights::names::{self, Scheme};
use crate::weights::{About, safetensors};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    /// The file.
    pub out: PathBuf,
    /// The network.
    pub model: String,
    /// How the file's tensors are named.
    pub names: Scheme,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub values: u64,
    /// Tensors of the file that was read which the network does not need.
    pub left_out: Vec<String>,
    /// What the user should know of the file that was read.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// Reads any known form of weights file and writes it as one of ours; with `average`, the moving average of the weights.
///
/// # Errors
/// When the weights do not fit the network in every tensor, or `out` exists.
pub fn import(path: &Path, options: &WeightsOptions, out: &Path) -> Result<Written> {
    refuse_existing(out)?;
    let file = WeightsFile::open(path, options)?;
    let left_out = file.weights.left_out.clone();
    let trained = Trained::of_weights(file, Device::Cpu)?;
    Ok(Written { left_out, notes: trained.notes.clone(), ..export(&trained, Scheme::Senet, out)? })
}

/// Writes the weights of `trained` with names of `scheme`.
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn export(trained: &Trained, scheme: Scheme, out: &Path) -> Result<Written> {
    refuse_existing(out)?;
    let (entry, _) = models::find(&trained.spec.name)?;
    let tensors: Vec<(String, Tensor)> = trained
        .net
        .tensors()
        .iter()
        .map(|named| (scheme.from_ours(entry, &named.param.name), named.tensor.shallow_clone()))
        .collect();
    let classes = if trained.classes_are_named { trained.classes.as_slice() } else { &[] };
    let about = About::of(&trained.spec, classes, Some(&trained.preprocessing.values));
    files::write_atomic(out, &safetensors::write(&tensors, &about)?)?;
    let values = trained.net.tensors().iter().map(|named| named.param.count() as u64).sum();
    let (out, model) = (out.to_path_buf(), trained.spec.name.clone());
    let (left_out, notes) = (Vec::new(), Vec::new());
    Ok(Written { out, model, names: scheme, tensors: tensors.len(), values, left_out, notes })
}

/// The names that timm gives the tensors of the network `spec`.
///
/// # Errors
/// When timm has no network that computes the same.
pub fn timm_names(spec: &ModelSpec) -> Result<Scheme> {
    if let Some(alias) = aliases::timm_name(spec) {
        return Ok(names::of_timm(alias.name));
    }
    let name = &spec.name;
    let mut twins = vec![name.clone()];
    twins.extend(aliases::twins(name));
    let theirs =
        ALIASES.iter().filter(|alias| alias.is_timms() && twins.iter().any(|twin| twin == alias.canonical));
    let near: Vec<String> = theirs.map(|alias| alias.described()).collect();
    let message = format!(
        "timm has no network that computes what this {name} computes, so no file can be named for it"
    );
    let hint = match near.is_empty() {
        true => "leave out `--names timm`".to_string(),
        false => format!("leave out `--names timm`; timm's {}", near.join(", its ")),
    };
    Err(failed(message).hint(hint).into())
}

/// A file that is there is somebody's.
fn refuse_existing(out: &Path) -> Result<()> {
    if out.exists() {
        let message = format!("{} exists already", out.display());
        return Err(failed(message).hint("name another file with `--out`, or move that one away").into());
    }
    Ok(())
}
