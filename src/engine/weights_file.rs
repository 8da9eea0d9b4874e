//! A file of weights and the network it belongs to, as the user, the file and the names of its tensors say.

use crate::data::preprocessing::PreprocessingSource;
use crate::error::{Result, failed, usage};
use crate::models::aliases::{self, ALIASES, alias_named};
use crate::models::{self, ModelSpec};
use crate::net::cost::count;
use crate::weights::names::Scheme;
use crate::weights::{DeclaredPreprocessing, Weights};
use std::path::Path;

/// How a user wants a file of weights to be read.
#[derive(Debug, Clone, Default)]
pub struct WeightsOptions {
    /// Name of the network: ours, timm's or torchvision's.
    pub model: Option<String>,
    /// Whether to take the moving average that the file has beside the weights.
    pub average: bool,
}

/// Weights and the network they belong to.
#[derive(Debug)]
pub struct WeightsFile {
    /// The tensors.
    pub weights: Weights,
    /// The network.
    pub spec: ModelSpec,
    /// Preprocessing of images, where the user does not set it.
    pub preprocessing: DeclaredPreprocessing,
    /// What the user should know, a sentence each.
    pub notes: Vec<String>,
}

impl WeightsFile {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// When it cannot be read, belongs to another network than `options` name, or nothing says which it belongs to.
    pub fn open(path: &Path, options: &WeightsOptions) -> Result<Self> {
        let spec = identify(path, options.model.as_deref())?;
        let (entry, _) = models::find(&spec.name)?;
        let values = count(&spec.describe(entry.input.channels, entry.classes)?).values();
        let weights = Weights::read(path, &spec.name, values, options.average)?;
        let alias = options.model.as_deref().and_then(alias_named);
        let mut preprocessing = DeclaredPreprocessing::of(path, &weights.about, entry)?;
        let normalisation = alias.and_then(|alias| alias.normalisation());
        if let (Some([mean, std]), PreprocessingSource::Default) = (normalisation, preprocessing.source) {
            (preprocessing.values.mean, preprocessing.values.std) = (mean, std);
        }
        let mut notes = [weights.notes.as_slice(), &preprocessing.notes].concat();
        notes.extend(ambiguity(&weights, &spec.name, alias.is_some()));
        Ok(Self { weights, spec, preprocessing, notes })
    }
}

/// The network that the file `path` belongs to: the one called `model`, or that which the file names.
fn identify(path: &Path, model: Option<&str>) -> Result<ModelSpec> {
    let given = model.map(ModelSpec::called).transpose()?;
    match (given, Weights::model_named_in(path)?) {
        (Some(spec), Some(name)) if spec.name != name => {
            let message = format!("{} holds weights of {name}, not of {}", path.display(), spec.name);
            Err(failed(message).hint(format!("`--model {name}`, or none")).into())
        }
        (Some(spec), _) => Ok(spec),
        (None, Some(name)) => Ok(ModelSpec::named(&name)),
        (None, None) => {
            let message = format!("{} does not say which network it belongs to", path.display());
            let hint = "name it with `--model NAME`; `senet summary --list` lists the networks";
            Err(usage(message).hint(hint).into())
        }
    }
}

/// A warning where the tensors fit several networks, and neither the file nor the name tells that they belong to the network
/// called `name`. `is_alias`: the user gave it another library's name, which no other network has.
pub fn ambiguity(weights: &Weights, name: &str, is_alias: bool) -> Option<String> {
    let twins = aliases::twins(name);
    if twins.is_empty() || weights.about.model.is_some() {
        return None;
    }
    let likely = likely_network(weights.scheme, name, &twins);
    if likely == name || (is_alias && weights.scheme == Scheme::Senet) {
        return None;
    }
    let theirs = ALIASES.iter().find(|alias| alias.canonical == likely && alias.is_timms());
    let theirs = theirs.map_or_else(String::new, |alias| format!(" (timm's `{}`)", alias.name));
    Some(format!(
        "{}: its tensors fit {name} and {}, which compute different logits from them; loaded as {name}, but tensors of such \
         names usually belong to {likely}{theirs}: `--model {likely}` if they do",
        weights.path.display(),
        twins.join(" and ")
    ))
}

/// The network, `name` or one of its `twins`, whose tensors usually have names of `scheme`.
fn likely_network<'a>(scheme: Scheme, name: &'a str, twins: &'a [String]) -> &'a str {
    let forms = || twins.iter().map(String::as_str).chain([name]);
    let of = |form: &str| forms().find(|name| name.contains(form));
    let released = || forms().find(|name| !name.contains("-v1.5") && !name.contains("-legacy"));
    let likely = match scheme {
        Scheme::TimmLegacy => of("-legacy").or_else(released),
        Scheme::Caffe => released(),
        Scheme::Senet | Scheme::TimmVgg => of("-v1.5"),
    };
    likely.unwrap_or(name)
}
