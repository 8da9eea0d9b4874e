//! From words to an [`Experiment`]: built-in defaults < file < `--set key=value` < flags, all strict.

use super::Experiment;
use crate::error::{Problem, Result, nearest, usage};
use crate::files;
use crate::models::{self, ModelSpec, aliases};
use crate::tagged;
use crate::weights::Weights;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// What overrides the defaults, weakest first.
#[derive(Debug, Default, Clone)]
pub struct Layers {
    values: Vec<(Value, String)>,
}

impl Layers {
    /// Adds a JSON file.
    ///
    /// # Errors
    /// When it cannot be read or is not a JSON object.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        self.values.push((read_object(path)?, path.display().to_string()));
        Ok(())
    }
    /// Adds `key=value`, where the value is JSON or a plain word: `optim.lr=0.1`, `data.crop=pad`.
    ///
    /// # Errors
    /// When there is no `=` or no key.
    pub fn setting(&mut self, assignment: &str) -> Result<()> {
        let Some((key, text)) = assignment.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            let message = format!("`--set {assignment}`: KEY=VALUE is expected");
            return Err(usage(message).hint("for example `--set optim.lr=0.1`").into());
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string()));
        self.set(key.trim(), value, &format!("--set {assignment}"));
        Ok(())
    }

    /// Adds one value, or with an empty key an object of them; `origin` is named when it does not fit.
    pub fn set(&mut self, key: &str, value: Value, origin: &str) {
        let nested = key
            .rsplit('.')
            .filter(|part| !part.is_empty())
            .fold(value, |inner, part| Value::Object(Map::from_iter([(part.to_string(), inner)])));
        self.values.push((nested, origin.to_string()));
    }

    /// The experiment that `base` becomes.
    ///
    /// # Errors
    /// When a key is unknown (the nearest is suggested) or a value has another type or range.
    pub fn apply_to(&self, base: &Experiment) -> Result<Experiment> {
        let mut experiment = base.clone();
        if let Some(network) = self.network_of_weights() {
            experiment.model = network;
        }
        let beside = aliases::settings_beside(self.values.iter().map(|(layer, _)| layer));
        let beside = beside.map(|settings| (settings, "model.name".to_string()));
        for (layer, origin) in self.values.iter().chain(&beside) {
            experiment = parse(laid_over(&experiment, layer)?).map_err(|mut problem| {
                problem.message = format!("{origin}: {}", problem.message);
                problem
            })?;
        }
        experiment.check()?;
        Ok(experiment)
    }
}

impl Layers {
    /// The network that the file `model.weights` describes, unless `model.name` is another. A file that cannot be read is
    /// refused where its tensors are needed.
    fn network_of_weights(&self) -> Option<ModelSpec> {
        let setting =
            |key: &str| self.values.iter().rev().find_map(|(layer, _)| layer["model"][key].as_str());
        let network = Weights::about(Path::new(setting("weights")?)).ok()?.spec()?;
        let is_named = setting("name").is_none_or(|name| models::canonical(name) == network.name);
        is_named.then_some(network)
    }
}

/// The experiment that a file with `object` in it means; errors name no file.
///
/// # Errors
/// As of [`Layers::apply_to`].
pub fn over_default(object: &Value) -> Result<Experiment> {
    let mut object = object.clone();
    if let Some(beside) = aliases::settings_beside([&object].into_iter()) {
        merge(&mut object, &beside);
    }
    let experiment: Experiment = parse(laid_over(&Experiment::default(), &object)?)?;
    experiment.check()?;
    Ok(experiment)
}

fn laid_over(experiment: &Experiment, layer: &Value) -> Result<Value> {
    let mut merged = serde_json::to_value(experiment)?;
    merge(&mut merged, layer);
    Ok(merged)
}

/// Where a file names its JSON Schema, for editors; no part of an experiment.
pub const SCHEMA: &str = "$schema";
/// What schemas themselves have there.
const META_SCHEMA: &str = "://json-schema.org/";

/// Whether an object is a JSON Schema.
pub fn is_schema(object: &Value) -> bool {
    object[SCHEMA].as_str().is_some_and(|uri| uri.contains(META_SCHEMA))
}

/// Reads a file that holds one JSON object, without its `$schema`.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn read_object(path: &Path) -> Result<Value> {
    let text = files::read_text(path).map_err(|error| {
        let hint = match path.join("config.json").is_file() {
            true => format!("`senet train --resume {}` goes on with a run", path.display()),
            false => "name a configuration, or none for the built-in default".to_string(),
        };
        usage(format!("{error:#}")).hint(hint)
    })?;
    parse_object(path, &text)
}

/// The same of the text of a file; `path` only names it.
///
/// # Errors
/// When it holds something else.
pub fn parse_object(path: &Path, text: &str) -> Result<Value> {
    let mut value: Value = serde_json::from_str(text).map_err(|error| {
        usage(format!("{}: not JSON: {error}", path.display()))
            .hint("a configuration is one JSON object, without comments or trailing commas")
    })?;
    if is_schema(&value) {
        let message =
            format!("{}: a JSON Schema, which describes configurations and is none", path.display());
        return Err(usage(message).hint("name a configuration, or none for the built-in default").into());
    }
    let Some(object) = value.as_object_mut() else {
        let message = format!("{}: a JSON object is expected", path.display());
        return Err(usage(message).hint("for example {\"optim\": {\"lr\": 0.1}}").into());
    };
    if let Some(schema) = object.shift_remove(SCHEMA).filter(|schema| !schema.is_string()) {
        let message =
            format!("{}: `{SCHEMA}` is {schema}, but the place of a JSON Schema is expected", path.display());
        return Err(usage(message).hint("for example \"configs/schema.json\"; or leave it out").into());
    }
    Ok(value)
}

/// Lays `over` on `under`. Objects merge; an object of another `kind` replaces the old one whole.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(old), Value::Object(new)) => {
            if new.get("kind").is_some_and(|kind| old.get("kind").is_some_and(|was| was != kind)) {
                *old = new.clone();
                return;
            }
            for (key, value) in new {
                match old.get_mut(key) {
                    Some(slot) if key != "about" => merge(slot, value),
                    _ => {
                        old.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (slot, value) => *slot = value.clone(),
    }
}

/// Reads a value strictly; what does not fit is named by its whole key.
///
/// # Errors
/// When a key is unknown or a value has another type.
pub fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let text = error.inner().to_string();
        let (mut path, mut message) = (error.path().to_string(), text.as_str());
        while let (Some(deeper), rest) = tagged::place(message) {
            path = tagged::joined(&path, deeper);
            message = rest;
        }
        let message = in_plain_words(message);
        let expected = backticked(message.split_once("expected").map_or("", |(_, list)| list));
        let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
        else {
            let problem = usage(format!("`{path}`: {message}"));
            let wrong = message.strip_prefix("unknown variant `").and_then(|rest| rest.split('`').next());
            let near = wrong.and_then(|wrong| nearest(wrong, expected.iter().copied()));
            let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            return match (near, missing) {
                (Some(near), _) => problem.hint(format!("did you mean `{near}`?")),
                // Only what has a `kind` has fields without a default.
                (None, Some(field)) => problem.hint(format!(
                    "give all of it at once: `--set '{path}={{\"kind\": …, \"{field}\": …}}'`"
                )),
                (None, None) => problem,
            };
        };
        // The path may or may not end with the unknown key itself.
        if path != unknown && !path.ends_with(&format!(".{unknown}")) {
            path = if path == "." { unknown.to_string() } else { format!("{path}.{unknown}") };
        }
        let problem = usage(format!("unknown key `{path}`, expected one of {}", expected.join(", ")));
        match nearest(unknown, expected.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        }
    })
}

/// serde's message with the types named as JSON's users know them.
fn in_plain_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_string() };
    let expected = match expected {
        "usize" | "u64" => "a whole number, 0 or more",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}expected {expected}")
}

/// The words between backticks.
fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Reads the resolved configuration of a run.
///
/// # Errors
/// When the file is missing or was written by something else.
pub fn read_resolved(path: &Path) -> Result<Experiment> {
    let mut layers = Layers::default();
    layers.file(path)?;
    layers.apply_to(&Experiment::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duration::Duration;
    use crate::error::problem;
    use crate::net::loss::Criterion;
    use crate::optim::{OptimSpec, Rule, Shape};

    fn set(assignments: &[&str]) -> Result<Experiment> {
        let mut layers = Layers::default();
        for assignment in assignments {
            layers.setting(assignment)?;
        }
        layers.apply_to(&Experiment::default())
    }

    fn refusal(assignment: &str) -> (String, String) {
        let error = set(&[assignment]).unwrap_err();
        let hint = problem(&error).expect("a usage problem").hint.clone();
        (format!("{error:#}"), hint.unwrap_or_default())
    }

    #[test]
    fn later_layers_win_and_the_rest_stays() {
        let experiment = set(&["optim.lr=0.5", "model.se.reduction=4", "optim.lr=0.25"]).unwrap();
        assert_eq!((experiment.optim.lr, experiment.optim.weight_decay), (0.25, 5e-4));
        assert_eq!(experiment.model.se.reduction, 4);
    }

    #[test]
    fn another_kind_of_schedule_replaces_the_old_one_whole() {
        let experiment = set(&["schedule={\"kind\":\"step\",\"every\":\"30ep\"}"]).unwrap();
        let expected = Shape::Step { every: Duration::Epochs(30.0), factor: 0.1 };
        assert_eq!(experiment.schedule, expected.into());
    }

    #[test]
    fn an_optimizer_without_a_kind_is_sgd() {
        let read = |text: &str| set(&[&format!("optim={text}")]).unwrap().optim;
        let sgd = read(r#"{"lr": 0.5, "nesterov": false}"#);
        assert_eq!((sgd.lr, &sgd.rule), (0.5, &Rule::Sgd { momentum: 0.9, nesterov: false }));
        assert_eq!(read(r#"{"kind": "sgd"}"#), OptimSpec::default());
        let adamw = Rule::AdamW { betas: [0.9, 0.95], eps: 1e-8 };
        let expected =
            OptimSpec { lr: 1e-3, lr_per: None, weight_decay: 0.05, no_decay: Vec::new(), rule: adamw };
        assert_eq!(read(r#"{"kind": "adamw", "betas": [0.9, 0.95]}"#), expected);
        // What a later layer changes leaves the rest of the same kind alone.
        let later = set(&["optim={\"kind\":\"lamb\",\"clip\":null}", "optim.lr=0.01"]).unwrap().optim;
        assert_eq!((later.lr, later.rule), (0.01, Rule::Lamb { betas: [0.9, 0.999], eps: 1e-6, clip: None }));
        let bce = set(&["train.loss=bce"]).unwrap().train.loss;
        assert_eq!(bce.0, Criterion::Bce { target_threshold: None, sum_classes: false });
    }

    #[test]
    fn keys_of_a_kind_are_named_whole() {
        for (assignment, message_part, hint_part) in [
            ("optim.momentun=0.5", "unknown key `optim.momentun`, expected one of", "`momentum`"),
            (
                "optim.knid=lamb",
                "expected one of momentum, nesterov, lr, lr_per, weight_decay, no_decay, kind",
                "`kind`",
            ),
            ("optim={\"kind\":\"adamw\",\"beta\":[0,0]}", "unknown key `optim.beta`", "`betas`"),
            ("optim={\"kind\":\"adam\"}", "`optim`: unknown variant `adam`", "`adamw`"),
            ("optim={\"kind\":3}", "`optim.kind`: invalid type: integer `3`, expected a string", ""),
            ("optim.momentum=fast", "`optim.momentum`: invalid type: string \"fast\", expected a number", ""),
            ("optim.no_decay=[\"nrom\"]", "`optim.no_decay[0]`: unknown variant `nrom`", "`norm`"),
            ("optim={\"kind\":\"lamb\",\"betas\":[0.9,\"x\"]}", "`optim.betas[1]`: invalid type", ""),
            ("optim={\"kind\":\"lamb\",\"clip\":0}", "`optim.clip` is 0, but it must be more than 0", ""),
            ("optim={\"kind\":\"rmsprop-tf\",\"alpha\":1}", "`optim.alpha` is 1", ""),
            (
                "schedule={\"kind\":\"constant\",\"end\":1}",
                "unknown key `schedule.end`, expected one of warmup",
                "",
            ),
            ("schedule={\"kind\":\"step\"}", "`schedule`: missing field `every`", "give all of it"),
            (
                "schedule={\"kind\":\"sequence\",\"parts\":[{\"schedule\":{\"kind\":\"cosine\",\"ned\":0}}]}",
                "unknown key `schedule.parts[0].schedule.ned`, expected one of end, warmup",
                "`end`",
            ),
            ("train.loss=bc", "`train.loss`: unknown variant `bc`", "`bce`"),
            (
                "train.loss={\"kind\":\"bce\",\"target_threshold\":1}",
                "`train.loss.target_threshold` is 1",
                "",
            ),
            ("train.clip={}", "`train.clip` must have one of `norm` and `value`", "for example"),
            ("train.clip.norm=0", "`train.clip.norm` is 0", ""),
            ("train.ema.decay=1", "`train.ema.decay` is 1", ""),
            ("train.ema.every=0", "`train.ema.every` is 0", ""),
            ("train.accumulate=0", "`train.accumulate` is 0, but it must be from 1", ""),
        ] {
            let (message, hint) = refusal(assignment);
            assert!(message.contains(message_part), "{assignment}: {message}");
            assert!(hint.contains(hint_part), "{assignment}: {message}: {hint}");
        }
    }

    #[test]
    fn unknown_keys_get_a_suggestion() {
        let (message, hint) = refusal("model.se.reductoin=4");
        assert!(message.contains("unknown key `model.se.reductoin`"), "{message}");
        assert_eq!(hint, "did you mean `reduction`?");
        let (message, hint) = refusal("schedule.warmpu=\"1ep\"");
        assert!(message.contains("`schedule.warmpu`"), "{message}");
        assert_eq!(hint, "did you mean `warmup`?");
        let (message, _) = refusal("optimiser.lr=4");
        assert!(message.contains("unknown key `optimiser`") && message.contains("optim"), "{message}");
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (assignment, expected) in [
            ("optim.lr=fast", "`optim.lr`: invalid type: string \"fast\", expected a number"),
            ("optim.lr=-1", "`optim.lr` is -1"),
            ("model.se.reduction=0", "`model.se.reduction` is 0"),
            ("train.duration=90", "90ep"),
            ("train.duration=10%", "share of itself"),
            ("model.name=se-resnet-51", "unknown network `se-resnet-51`"),
            ("data.crop=padd", "`data.crop`"),
            ("train.batch_size=0", "`train.batch_size` is 0, but it must be from 1"),
            ("train.batch_size=1.5", "expected a whole number, 0 or more"),
            ("train.eval_batch_size=1000000000000", "`train.eval_batch_size` is 1000000000000"),
            ("data.mean=0.5", "expected a list"),
            ("data.padding=1000000000000", "`data.padding` is 1000000000000"),
            ("data.resize=1000000000", "`data.resize` is 1000000000"),
            ("data.threads=1000000000", "`data.threads` is 1000000000"),
            ("data.synthetic.channels=2", "`data.synthetic.channels` is 2"),
            ("data.synthetic.size=1000000000", "`data.synthetic.size` is 1000000000"),
            ("data.synthetic.train=1000000000000", "`data.synthetic.train` is 1000000000000"),
            ("train.label_smoothing=1", "`train.label_smoothing` is 1"),
            ("threads=0", "`threads` is 0"),
            ("name=a/../../b", "`name` is \"a/../../b\""),
            ("device=tpu", "unknown device `tpu`"),
        ] {
            let (message, _) = refusal(assignment);
            assert!(message.contains(expected), "{assignment}: {message}");
        }
        assert_eq!(refusal("data.crop=padd").1, "did you mean `pad`?");
        assert!(refusal("model.name=se-resent-50").1.contains("`se-resnet-50`"));
    }

    #[test]
    fn the_resolved_whole_reads_back_equal() {
        let experiment = set(&[
            "data.crop=pad",
            "optim.no_decay=[\"norm\"]",
            "train.ema.every=2",
            "train.clip.value=0.1",
            "train.loss={\"kind\":\"bce\",\"target_threshold\":0.2}",
            "schedule={\"kind\":\"sequence\",\"parts\":[{\"schedule\":{\"kind\":\"one-cycle\"}}]}",
        ])
        .unwrap();
        let text = serde_json::to_string(&experiment).unwrap();
        let mut layers = Layers::default();
        layers.values.push((serde_json::from_str(&text).unwrap(), String::new()));
        assert_eq!(layers.apply_to(&Experiment::default()).unwrap(), experiment);
    }
}
