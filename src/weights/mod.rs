//! Weights in files: ours, those of others, and how they come into a network: whole or not at all.
//!
//! A file is read into named float32 [`Array`]s, whatever its form ([`safetensors`], PyTorch's [`pickle`]s,
//! [`caffe`]'s layers); its names become ours ([`names`]); and [`Weights::fill`] puts them into a network if every
//! tensor is there, none is left over, and all have the right shape.

pub mod caffe;
pub mod names;
pub mod pickle;
pub mod safetensors;

use crate::data::Preprocessing;
use crate::error::{Result, TorchContext, failed};
use crate::models::{self, Entry, Head};
use crate::net::build::{NamedTensor, Net, overwrite};
use anyhow::Context;
use names::Scheme;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A tensor as float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its sides.
    pub shape: Vec<i64>,
    /// Its values, the last side innermost.
    pub values: Vec<f32>,
}

/// Tensors by name.
pub type Arrays = BTreeMap<String, Array>;

/// Words of a foreign file, fit for a message.
fn printable(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// What a weights file says of itself, beside its tensors; ours do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Name of the network.
    pub model: Option<String>,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// How images are prepared.
    pub preprocessing: Option<Preprocessing>,
}

/// Weights of a network, by our names.
#[derive(Debug)]
pub struct Weights {
    /// Where they come from.
    pub path: PathBuf,
    /// How the file names its tensors.
    pub scheme: Scheme,
    /// What the file says of itself.
    pub about: About,
    /// The tensors.
    pub arrays: Arrays,
    /// Tensors that no network of ours has, such as counters and auxiliary classifiers, by the file's names.
    pub left_out: Vec<String>,
}

/// Values that a file may hold beside the network's own: auxiliary classifiers, optimizer state, another head.
const SPARE_VALUES: u64 = 1 << 25;

impl Weights {
    /// Reads weights for the network `model`, which has `values` values, from any known form of file.
    ///
    /// # Errors
    /// When the file cannot be read, is of no known form, damaged, or much larger than the network.
    pub fn read(path: &Path, model: &str, values: u64) -> Result<Self> {
        let (entry, _) = models::find(model)?;
        let max_values = 3 * values + SPARE_VALUES;
        // The widest type is float64; pickles and headers take little beside the values.
        let bytes = read_bounded(path, 8 * max_values + SPARE_VALUES)?;
        let (arrays, scheme, about) = match form(&bytes) {
            Form::Safetensors => {
                let (arrays, about) = safetensors::read(path, &bytes, max_values)?;
                (arrays, None, about)
            }
            Form::Pickle => (pickle::read(path, &bytes, max_values)?, None, About::default()),
            Form::Caffe => {
                let layers = caffe::read(path, &bytes, max_values)?;
                let arrays = caffe::fold_statistics(layers).with_context(|| path.display().to_string())?;
                let preprocessing = Some(names::caffe_preprocessing(entry));
                (arrays, Some(Scheme::Caffe), About { preprocessing, ..About::default() })
            }
            Form::Unknown => {
                let message = format!("{}: not a weights file of a known form", path.display());
                let hint =
                    "safetensors, PyTorch's .pth (a state dict saved by torch.save) and .caffemodel are read";
                return Err(failed(message).hint(hint).into());
            }
        };
        let scheme = scheme.unwrap_or_else(|| Scheme::of(arrays.keys()));
        let mut weights =
            Self { path: path.to_path_buf(), scheme, about, arrays: Arrays::new(), left_out: Vec::new() };
        weights.rename(entry, arrays)?;
        Ok(weights)
    }

    /// The network that the file `path` says it belongs to; only ours say so.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn model_named_in(path: &Path) -> Result<Option<String>> {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(safetensors::about(&mut file).and_then(|about| about.model))
    }

    /// From the file's names to ours.
    fn rename(&mut self, entry: &Entry, arrays: Arrays) -> Result<()> {
        for (name, mut array) in arrays {
            if names::is_idle(&name) {
                self.left_out.push(name);
                continue;
            }
            let ours = self.scheme.to_ours(entry, &name).unwrap_or_else(|| name.clone());
            if self.scheme == Scheme::Caffe && names::takes_pixels(entry, &ours) {
                reverse_input_channels(&mut array);
            }
            if self.arrays.insert(ours.clone(), array).is_some() {
                let message = format!("{}: two tensors are `{ours}`", self.path.display());
                return Err(failed(message).hint("the file mixes the names of two libraries").into());
            }
        }
        Ok(())
    }

    /// Puts the weights into `net`; nothing is changed unless everything fits. With [`Head::New`] the classifier keeps
    /// the values that it has.
    ///
    /// # Errors
    /// When a tensor is missing, left over or of another shape; all are named.
    pub fn fill(&self, net: &Net, model: &str, head: Head) -> Result<()> {
        let (entry, _) = models::find(model)?;
        let kept = |name: &str| {
            let of_head = name.strip_prefix(entry.classifier()).is_some_and(|rest| rest.starts_with('.'));
            head == Head::Keep || !of_head
        };
        let wanted: Vec<&NamedTensor> =
            net.tensors().iter().filter(|named| kept(&named.param.name)).collect();
        let given = self.arrays.iter().filter(|(name, _)| kept(name));
        fill(&self.path, &wanted, &given.collect(), "`--head new` starts a fresh classifier")
    }
}

/// Copies `arrays` into the tensors that are `wanted`; nothing is changed unless everything fits and is finite.
///
/// # Errors
/// When a tensor is missing, left over, of another shape or not finite; the first of them are named, with `path`.
pub fn fill(
    path: &Path,
    wanted: &[&NamedTensor],
    arrays: &BTreeMap<&String, &Array>,
    head_hint: &str,
) -> Result<()> {
    let mut complaints = Vec::new();
    let mut only_shapes = true;
    for NamedTensor { param, .. } in wanted {
        match arrays.get(&param.name) {
            None => {
                only_shapes = false;
                complaints.push(format!("`{}` is missing", param.name));
            }
            Some(array) if array.shape != param.shape => {
                complaints.push(format!("`{}` is {:?}, not {:?}", param.name, array.shape, param.shape));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<&String> = wanted.iter().map(|named| &named.param.name).collect();
    let left_over =
        arrays.keys().filter(|name| !known.contains(**name)).map(|name| format!("`{name}` is left over"));
    let misshapen = complaints.len();
    complaints.extend(left_over);
    if !complaints.is_empty() {
        let shown = complaints.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let rest = complaints.len().saturating_sub(8);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let message = format!("{} belongs to another network: {shown}{rest}", path.display());
        let another_head = only_shapes && misshapen == complaints.len() && misshapen <= 2;
        let hint = if another_head { head_hint } else { "`model` must be the network that was trained" };
        return Err(failed(message).hint(hint).into());
    }
    check_finite(path, wanted.iter().map(|named| (&named.param.name, arrays[&named.param.name])))?;
    let mut values = Vec::with_capacity(wanted.len());
    for NamedTensor { param, .. } in wanted {
        let array = arrays[&param.name];
        let tensor = Tensor::f_from_slice(&array.values).and_then(|flat| flat.f_view(array.shape.as_slice()));
        values.push(tensor.torch_context(|| format!("cannot read `{}`", param.name))?);
    }
    for (named, values) in wanted.iter().zip(values) {
        overwrite(&named.tensor, &values).torch_context(|| format!("cannot load `{}`", named.param.name))?;
    }
    Ok(())
}

/// Refuses weights and statistics that are NaN or infinite. A network with a single one may still give plausible numbers,
/// since many operators lose a NaN (`max(NaN, 0)` is 0 on most processors).
fn check_finite<'a>(path: &Path, arrays: impl Iterator<Item = (&'a String, &'a Array)>) -> Result<()> {
    let counts = arrays.map(|(name, Array { values, .. })| {
        (name, values.iter().filter(|value| !value.is_finite()).count(), values.len())
    });
    let spoilt: Vec<_> = counts.filter(|(_, count, _)| *count > 0).collect();
    if spoilt.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 4;
    let named =
        spoilt.iter().take(SHOWN).map(|(name, count, of)| format!("`{name}` ({count} of {of} values)"));
    let named = named.collect::<Vec<_>>().join(", ");
    let rest = match spoilt.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more tensors"),
    };
    let total: usize = spoilt.iter().map(|(_, count, _)| count).sum();
    let message =
        format!("{} holds {total} value(s) that are NaN or infinite: {named}{rest}", path.display());
    let hint = "the training that wrote it diverged, or the file is damaged: take an earlier checkpoint";
    Err(failed(message).hint(hint).into())
}

enum Form {
    Safetensors,
    Pickle,
    Caffe,
    Unknown,
}

/// What a file is, by its first bytes.
fn form(bytes: &[u8]) -> Form {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Form::Pickle;
    }
    if bytes.get(8) == Some(&b'{') {
        return Form::Safetensors;
    }
    // A NetParameter begins with its name, or with a layer of today's form or of the one before 2015.
    let caffe: [&[u8]; 3] = [&[0x0a], &[0xa2, 0x06], &[0x12]];
    if caffe.iter().any(|start| bytes.starts_with(start)) { Form::Caffe } else { Form::Unknown }
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(unreadable)?.len();
    let mut bytes = Vec::new();
    if length <= limit {
        // One more than allowed, in case it is a device or still grows.
        File::open(path)
            .with_context(unreadable)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .with_context(unreadable)?;
    }
    if length.max(bytes.len() as u64) > limit {
        let message = format!(
            "{} is larger than the {limit} bytes that weights of this network can take",
            path.display()
        );
        return Err(failed(message).hint("`--model` names the network that the file belongs to").into());
    }
    Ok(bytes)
}

/// From BGR to RGB and back: reverses the second side of `[C_out, C_in, K, K]`.
fn reverse_input_channels(array: &mut Array) {
    let [_, c_in, height, width] = array.shape[..] else { return };
    let plane = (height * width) as usize;
    if plane == 0 {
        return;
    }
    for filter in array.values.chunks_mut(c_in as usize * plane) {
        let planes: Vec<f32> = filter.chunks(plane).rev().flatten().copied().collect();
        filter.copy_from_slice(&planes);
    }
}
