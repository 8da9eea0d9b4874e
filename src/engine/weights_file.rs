//! A file of weights and the network it belongs to, as the user, the file and the names of its tensors say.

use crate::data::preprocessing::PreprocessingSource;
use crate::error::{Problem, Result, failed, usage};
use crate::experiment::Experiment;
use crate::experiment::load::Layers;
use crate::models::aliases::{self, ALIASES, alias_named};
use crate::models::{self, ModelSpec};
use crate::net::cost::count;
use crate::net::se::SeSpec;
use crate::weights::names::Scheme;
use crate::weights::timm::TimmConfig;
use crate::weights::{About, DeclaredPreprocessing, Weights, infer};
use std::path::Path;

/// How a user wants a file of weights to be read.
#[derive(Debug, Clone, Default)]
pub struct WeightsOptions {
    /// Name of the network: ours, timm's or torchvision's.
    pub model: Option<String>,
    /// Settings of the network, such as `model.se.gate=tanh`.
    pub settings: Vec<String>,
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
        let about = Weights::about(path)?;
        let model = match &options.model {
            None if about.model.is_none() => {
                let architecture = TimmConfig::beside(path)?.map(|config| config.architecture);
                architecture.filter(|name| alias_named(name).is_some())
            }
            given => given.clone(),
        };
        let mut spec = identify(path, model.as_deref(), &about)?;
        let (entry, _) = models::find(&spec.name)?;
        let values = count(&spec.describe(entry.input.channels, entry.classes)?).values();
        let weights = Weights::read(path, &spec.name, values, options.average)?;
        // Who reads our file by another library's name means the network, not how that library prepares images.
        let alias = model.as_deref().and_then(alias_named).filter(|_| about.model.is_none());
        let mut preprocessing = DeclaredPreprocessing::of(path, &weights.about, entry)?;
        let normalisation = alias.and_then(|alias| alias.normalisation());
        if let (Some([mean, std]), PreprocessingSource::Default) = (normalisation, preprocessing.source) {
            (preprocessing.values.mean, preprocessing.values.std) = (mean, std);
        }
        let mut notes = [weights.notes.as_slice(), &preprocessing.notes].concat();
        if about.se.is_none() {
            let inferred = infer::se_of(&weights.arrays, &spec.se);
            let list = differing_settings(&inferred, &spec.se).join(", ");
            if !list.is_empty() {
                notes.push(format!("{}: the shapes of its tensors imply {list}", path.display()));
            }
            spec.se = inferred;
        }
        let is_set = options.settings.iter().any(|setting| setting.starts_with("model.se."));
        notes.extend(undescribed(path, &spec, &about, alias.is_some() || is_set));
        notes.extend(ambiguity(&weights, &spec.name, alias.is_some()));
        let spec = with_settings(spec, &options.settings)?;
        Ok(Self { weights, spec, preprocessing, notes })
    }
}

/// The network that the file `path` belongs to: the one that it describes, or the one called `model`.
fn identify(path: &Path, model: Option<&str>, about: &About) -> Result<ModelSpec> {
    let given = model.map(ModelSpec::called).transpose()?;
    match (given, about.spec()) {
        (Some(given), Some(described)) if given.name != described.name => {
            Err(another_network(path, &described.name, &given.name).hint("omit `--model`").into())
        }
        (Some(given), Some(_)) if about.se.is_none() => Ok(given),
        (_, Some(described)) => Ok(described),
        (Some(given), None) => Ok(given),
        (None, None) => {
            let message = format!("{} does not say which network it belongs to", path.display());
            let hint = "name it with `--model NAME`; `senet summary --list` lists the networks";
            Err(usage(message).hint(hint).into())
        }
    }
}

fn another_network(path: &Path, described: &str, given: &str) -> Problem {
    failed(format!("{} holds weights of {described}, not of {given}", path.display()))
}

/// A warning where nothing tells how the SE blocks of `spec` are built, since shapes of tensors do not (a gate, for example).
fn undescribed(path: &Path, spec: &ModelSpec, about: &About, is_known: bool) -> Option<String> {
    let (_, with_se) = models::find(&spec.name).ok()?;
    if !with_se || about.se.is_some() || is_known {
        return None;
    }
    let why = match &about.model {
        Some(_) => "does not describe its SE blocks (it was written by an earlier version)",
        None => "does not describe its network",
    };
    Some(format!(
        "{} {why}: the default SE blocks of {} are assumed; `--set model.se.…` changes them",
        path.display(),
        spec.name
    ))
}

/// Compares what a file that training starts from says of itself with the network that is trained, `spec`; returns what the
/// user should know.
///
/// # Errors
/// When the file describes another network.
pub fn compare(weights: &Weights, spec: &ModelSpec) -> Result<Vec<String>> {
    let (path, about) = (&weights.path, &weights.about);
    if let Some(described) = about.spec().filter(|described| described.name != spec.name) {
        let hint = format!("`--model {}`, or no `model.name` at all", described.name);
        return Err(another_network(path, &described.name, &spec.name).hint(hint).into());
    }
    let (_, with_se) = models::find(&spec.name)?;
    let described = about.se.iter().filter(|_| with_se);
    let differing = described.map(|se| differing_settings(se, &spec.se)).filter(|list| !list.is_empty());
    let notes = differing.map(|list| {
        let (path, list) = (path.display(), list.join(", "));
        format!("{path}: the network was trained with {list}, which this run has otherwise")
    });
    if about.se.is_none() && with_se {
        let settings = differing_settings(&infer::se_of(&weights.arrays, &spec.se), &spec.se);
        if !settings.is_empty() {
            let message =
                format!("{}: the shapes of its tensors imply {}", path.display(), settings.join(", "));
            let flags: Vec<String> = settings.iter().map(|setting| format!("--set {setting}")).collect();
            return Err(failed(message).hint(format!("add `{}`", flags.join(" "))).into());
        }
    }
    Ok(notes.chain(ambiguity(weights, &spec.name, false)).collect())
}

/// The network with `settings` such as `model.se.gate=tanh`.
fn with_settings(spec: ModelSpec, settings: &[String]) -> Result<ModelSpec> {
    if settings.is_empty() {
        return Ok(spec);
    }
    let mut layers = Layers::default();
    for setting in settings {
        let key = setting.split('=').next().unwrap_or_default().trim();
        if !key.starts_with("model.se.") && !["model.dropout", "model.drop_path"].contains(&key) {
            let message =
                format!("`--set {setting}`: `{key}` is no setting of the network in a weights file");
            let hint = match key {
                "model.name" => "name the network with `--model`",
                _ => "for example `--set model.se.rounding=multiple-of-8`",
            };
            return Err(usage(message).hint(hint).into());
        }
        layers.setting(setting)?;
    }
    Ok(layers.apply_to(&Experiment { model: spec, ..Experiment::default() })?.model)
}

/// The settings `model.se.…` of `found` that `expected` has otherwise.
fn differing_settings(found: &SeSpec, expected: &SeSpec) -> Vec<String> {
    let [found, expected] = [found, expected].map(|se| serde_json::to_value(se).unwrap_or_default());
    let settings = found.as_object().into_iter().flatten();
    let differing = settings.filter(|(key, value)| expected[key.as_str()] != **value);
    differing.map(|(key, value)| format!("model.se.{key}={}", value.to_string().trim_matches('"'))).collect()
}

/// A warning where the tensors fit several networks, and neither the file nor the name tells that they belong to the network
/// called `name`. `is_alias`: the user gave it another library's name, which no other network has.
fn ambiguity(weights: &Weights, name: &str, is_alias: bool) -> Option<String> {
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
