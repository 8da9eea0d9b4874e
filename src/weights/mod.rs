//! Weights in files: ours, those of others, and how they come into a network: whole or not at all.
//!
//! A file is read into named float32 [`Array`]s, whatever its form ([`safetensors`], also in [several files](sharded),
//! PyTorch's [`pickle`]s, [`caffe`]'s layers); what trainers put around the names is [removed](state_dict); they become
//! ours ([`names`]); and [`Weights::fill`] puts the tensors into a network if every one is there, none is left over,
//! and all are finite and have the right shape.

mod about;
pub mod caffe;
mod channels;
pub mod dtype;
pub mod file;
pub mod infer;
pub mod names;
pub mod pickle;
pub mod safetensors;
pub mod sharded;
pub mod state_dict;
pub mod timm;

use crate::data::preprocessing::{Preprocessing, PreprocessingSource};
use crate::error::{Result, TorchContext, failed};
use crate::models::{self, Entry, Head, ModelSpec};
use crate::net::build::{NamedTensor, Net, overwrite};
use crate::net::params::params;
use crate::printable::quoted;
pub use about::About;
use anyhow::Context;
use file::Form;
use names::Scheme;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tch::Tensor;
use timm::TimmConfig;

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

/// Preprocessing of a file of weights, by the file itself, timm's configuration beside it, or the network's default.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredPreprocessing {
    /// The values.
    pub values: Preprocessing,
    /// Who declared them.
    pub source: PreprocessingSource,
    /// What was declared and is not done, a sentence each.
    pub notes: Vec<String>,
}

impl DeclaredPreprocessing {
    /// Of the file `path` of the network `entry`, which says `about` itself.
    ///
    /// # Errors
    /// When timm's configuration beside it is damaged.
    pub fn of(path: &Path, about: &About, entry: &Entry) -> Result<Self> {
        if let Some(values) = about.preprocessing.clone() {
            return Ok(Self { values, source: PreprocessingSource::File, notes: Vec::new() });
        }
        let default = entry.preprocessing();
        let config = TimmConfig::beside(path)?;
        let declared = config.and_then(|config| Some((config.preprocessing(&default)?, config.notes)));
        Ok(match declared {
            Some((values, notes)) => Self { values, source: PreprocessingSource::TimmConfig, notes },
            None => Self { values: default, source: PreprocessingSource::Default, notes: Vec::new() },
        })
    }
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
    /// What the user should know of how they were read, a sentence each.
    pub notes: Vec<String>,
}

/// What a file holds, by its own names.
#[derive(Debug, Default)]
struct Contents {
    arrays: Arrays,
    /// Where the form of the file decides it.
    scheme: Option<Scheme>,
    about: About,
    notes: Vec<String>,
}

/// Values that a file may hold beside the network's own: auxiliary classifiers, optimizer state, another head.
const SPARE_VALUES: u64 = 1 << 25;

impl Weights {
    /// Reads weights for the network `model`, which has `values` values, from any known form of file; with `average`,
    /// the moving average of the weights that a trainer's checkpoint has beside them.
    ///
    /// # Errors
    /// When the file cannot be read, is of no known form, damaged, or much larger than the network, or has no average.
    pub fn read(path: &Path, model: &str, values: u64, average: bool) -> Result<Self> {
        let (entry, _) = models::find(model)?;
        let max_values = 3 * values + SPARE_VALUES;
        let mut contents = contents(path, entry, max_values, average)?;
        let mut left_out = Vec::new();
        if contents.scheme.is_none() {
            let modules = modules(model)?;
            let unwrapped = state_dict::unwrap(contents.arrays, |module| modules.contains(module));
            let unwrapped = unwrapped.map_err(|name| {
                let message = format!("{}: two tensors are called {}", path.display(), quoted(&name));
                failed(message).hint("the file mixes the names of two wrappers of the network")
            })?;
            contents.arrays = unwrapped.arrays;
            contents.notes.extend(unwrapped.notes);
            left_out = unwrapped.counters;
        }
        let scheme = contents.scheme.unwrap_or_else(|| Scheme::of(contents.arrays.keys()));
        let notes = contents.notes.iter().map(|note| format!("{}: {note}", path.display())).collect();
        let arrays = Arrays::new();
        let mut weights =
            Self { path: path.to_path_buf(), scheme, about: contents.about, arrays, left_out, notes };
        weights.rename(entry, contents.arrays)?;
        Ok(weights)
    }

    /// What the file `path` says of itself, without its tensors; only ours say anything.
    ///
    /// # Errors
    /// When the file cannot be read, is no weights file, or describes a network that this version does not know.
    pub fn about(path: &Path) -> Result<About> {
        let (mut file, _) = file::open(path)?;
        if let Some(about) = safetensors::about(path, &mut file)? {
            return Ok(about);
        }
        // Which network a file belongs to is no question where it holds no weights at all.
        file::form(path, &file::start(path)?)?;
        Ok(About::default())
    }

    /// How images are prepared for the network `entry`, as the file `path` declares it, without its tensors being read.
    ///
    /// # Errors
    /// When the file, or timm's configuration beside it, cannot be read.
    pub fn preprocessing_in(path: &Path, entry: &Entry) -> Result<DeclaredPreprocessing> {
        let (mut file, _) = file::open(path)?;
        let mut about = safetensors::about(path, &mut file)?.unwrap_or_default();
        if about == About::default() && file::form(path, &file::start(path)?)? == Form::Caffe {
            about.preprocessing = Some(names::caffe_preprocessing(entry));
        }
        DeclaredPreprocessing::of(path, &about, entry)
    }

    /// From the file's names to ours.
    fn rename(&mut self, entry: &Entry, arrays: Arrays) -> Result<()> {
        for (name, mut array) in arrays {
            if names::is_idle(&name) {
                self.left_out.push(name);
                continue;
            }
            let ours = self.scheme.to_ours(entry, &name).unwrap_or(name);
            if self.scheme == Scheme::Caffe && names::takes_pixels(entry, &ours) {
                reverse_input_channels(&mut array);
            }
            if self.scheme == Scheme::TimmVgg {
                names::flatten_classifier(&ours, &mut array);
            }
            if self.arrays.insert(ours.clone(), array).is_some() {
                let message = format!("{}: two tensors are {}", self.path.display(), quoted(&ours));
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
    let mut only_of_head = true;
    // The classifier is last.
    let head = wanted.last().and_then(|named| named.param.name.rsplit_once('.')).map(|(module, _)| module);
    for NamedTensor { param, .. } in wanted {
        match arrays.get(&param.name) {
            None => {
                only_of_head = false;
                complaints.push(format!("`{}` is missing", param.name));
            }
            Some(array) if array.shape != param.shape => {
                only_of_head &= head == param.name.rsplit_once('.').map(|(module, _)| module);
                complaints.push(format!("`{}` is {:?}, not {:?}", param.name, array.shape, param.shape));
            }
            Some(_) => {}
        }
    }
    let known: HashSet<&String> = wanted.iter().map(|named| &named.param.name).collect();
    let left_over = arrays
        .keys()
        .filter(|name| !known.contains(**name))
        .map(|name| format!("{} is left over", quoted(name)));
    let misshapen = complaints.len();
    complaints.extend(left_over);
    if !complaints.is_empty() {
        let shown = complaints.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let rest = complaints.len().saturating_sub(8);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let message = format!("{} belongs to another network: {shown}{rest}", path.display());
        let another_head = only_of_head && misshapen == complaints.len();
        let hint = match another_head {
            true => head_hint,
            false if sharded::is_part(path) => {
                "it is one of several parts: name their index (`….index.json`) instead"
            }
            false => "`model` must be the network that was trained",
        };
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

/// Reads the file `path` for a network of the kind `entry`: at most `max_values` values.
fn contents(path: &Path, entry: &Entry, max_values: u64, average: bool) -> Result<Contents> {
    // The widest type is float64; pickles and headers take little beside the values.
    let bytes = file::read(path, 8 * max_values + SPARE_VALUES)?;
    let form = file::form(path, &bytes)?;
    let contents = match form {
        Form::Safetensors => {
            let (arrays, about) = safetensors::read(path, &bytes, max_values)?;
            Contents { arrays, about, ..Contents::default() }
        }
        Form::Zip | Form::Pickle => {
            let pickle::StateDict { arrays, notes } = pickle::read(path, &bytes, max_values, average)?;
            Contents { arrays, notes, ..Contents::default() }
        }
        Form::Index => {
            let mut left = max_values;
            let arrays = sharded::read(path, &bytes, |part| {
                let arrays = part_of(part, left)?;
                left = left.saturating_sub(arrays.values().map(|array| array.values.len() as u64).sum());
                Ok(arrays)
            })?;
            Contents { arrays, ..Contents::default() }
        }
        Form::Caffe => {
            let layers = caffe::read(path, &bytes, max_values)?;
            let arrays = caffe::fold_statistics(layers).with_context(|| path.display().to_string())?;
            let preprocessing = Some(names::caffe_preprocessing(entry));
            let about = About { preprocessing, ..About::default() };
            Contents { arrays, about, scheme: Some(Scheme::Caffe), ..Contents::default() }
        }
    };
    // Only checkpoints of trainers hold an average beside the weights; other files may be one.
    let may_hold_one = matches!(form, Form::Zip | Form::Pickle);
    if average && !may_hold_one && !contents.arrays.contains_key(state_dict::AVERAGE_COUNTER) {
        return Err(failed(format!("{} holds no moving average beside the weights", path.display()))
            .hint("without `--ema`, the weights of the file are taken, which may be an average themselves")
            .into());
    }
    Ok(contents)
}

/// Reads one file of a sharded checkpoint.
fn part_of(path: &Path, max_values: u64) -> Result<Arrays> {
    let bytes = file::read(path, 8 * max_values + SPARE_VALUES)?;
    match file::form(path, &bytes)? {
        Form::Safetensors => Ok(safetensors::read(path, &bytes, max_values)?.0),
        Form::Zip | Form::Pickle => Ok(pickle::read(path, &bytes, max_values, false)?.arrays),
        Form::Index | Form::Caffe => {
            let message = format!(
                "{}: neither safetensors nor a state dict, as parts of a checkpoint are",
                path.display()
            );
            Err(failed(message).hint("fetch all parts again").into())
        }
    }
}

/// The modules at the top of the network `model`, by the names of all libraries that are read.
fn modules(model: &str) -> Result<HashSet<String>> {
    let (entry, _) = models::find(model)?;
    let params = params(&ModelSpec::named(model).describe(entry.input.channels, entry.classes)?);
    let ours = params.iter().filter_map(|param| param.name.split('.').next());
    let theirs = ["layer0", "last_linear", "fc", "classifier", "head", "features", "AuxLogits", "aux_logits"];
    Ok(ours.chain(theirs).map(str::to_string).collect())
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
