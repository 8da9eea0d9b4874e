//! Weights from one form of file to another.

use super::trained::{self, Trained};
use crate::error::{Result, failed};
use crate::files;
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
pub fn import(path: &Path, model: Option<&ModelSpec>, average: bool, out: &Path) -> Result<Written> {
    refuse_existing(out)?;
    let (weights, spec) = trained::open(path, model, average)?;
    let trained = Trained::of_weights(&weights, spec, Device::Cpu)?;
    let notes = trained.notes.clone();
    Ok(Written { left_out: weights.left_out, notes, ..export(&trained, Scheme::Senet, out)? })
}

/// Writes the weights of `trained` with names of `scheme`.
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn export(trained: &Trained, scheme: Scheme, out: &Path) -> Result<Written> {
    refuse_existing(out)?;
    let (entry, _) = models::find(&trained.model)?;
    let tensors: Vec<(String, Tensor)> = trained
        .net
        .tensors()
        .iter()
        .map(|named| (scheme.from_ours(entry, &named.param.name), named.tensor.shallow_clone()))
        .collect();
    let about = About {
        model: Some(trained.model.clone()),
        classes: if trained.classes_are_named { trained.classes.clone() } else { Vec::new() },
        preprocessing: Some(trained.preprocessing.values.clone()),
    };
    files::write_atomic(out, &safetensors::write(&tensors, &about)?)?;
    let values = trained.net.tensors().iter().map(|named| named.param.count() as u64).sum();
    let (out, model) = (out.to_path_buf(), trained.model.clone());
    let (left_out, notes) = (Vec::new(), Vec::new());
    Ok(Written { out, model, names: scheme, tensors: tensors.len(), values, left_out, notes })
}

/// The names that timm gives the tensors of the network `model`.
///
/// # Errors
/// When the network is unknown.
pub fn timm_names(model: &str) -> Result<Scheme> {
    let (entry, with_se) = models::find(model)?;
    Ok(names::timm(entry, with_se))
}

/// A file that is there is somebody's.
fn refuse_existing(out: &Path) -> Result<()> {
    if out.exists() {
        let message = format!("{} exists already", out.display());
        return Err(failed(message).hint("name another file with `--out`, or move that one away").into());
    }
    Ok(())
}
