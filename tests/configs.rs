//! Every configuration that is shipped loads, says what it is, and the first one is the built-in default. Those of single
//! runs name the schema beside them, which is the code's, and are valid by it.

use senet::experiment::load::Layers;
use senet::experiment::request::Request;
use senet::experiment::{Experiment, diff, schema, validate};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn shipped() -> Vec<PathBuf> {
    validate::files_at(&configs()).unwrap()
}

/// The shipped configurations of single runs, as they are written.
fn experiments() -> impl Iterator<Item = (PathBuf, Value)> {
    let single = |path: &PathBuf| Request::read(path).unwrap().is_none();
    shipped().into_iter().filter(single).map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path, serde_json::from_str(&text).unwrap())
    })
}

fn load(path: &Path) -> Experiment {
    let mut layers = Layers::default();
    layers.file(path).unwrap();
    layers.apply_to(&Experiment::default()).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
}

/// The `about` block of a configuration or a sweep file, after reading all of it.
fn about(path: &Path) -> Value {
    let Some(request) = Request::read(path).unwrap() else { return load(path).about };
    let base = request.layers(path).apply_to(&Experiment::default()).unwrap();
    let sweep = request.expand(&base).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    assert!(sweep.rows.len() > 2, "{}: nothing to compare", path.display());
    request.about
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

#[test]
fn every_configuration_loads_and_tells_its_story() {
    let files = shipped();
    assert!(files.len() >= 25);
    for path in files {
        let about = about(&path);
        for key in ["reproduces", "run", "data", "cost", "expect"] {
            let text = about.get(key).and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "{}: about.{key} is missing", path.display());
        }
        let command = about["run"].as_str().unwrap();
        let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(
            command.contains(relative.to_str().unwrap()),
            "{}: about.run names another file",
            path.display()
        );
    }
}

#[test]
fn the_built_in_default_is_written_out() {
    let written = Experiment { about: Value::Null, ..load(&configs().join("fashion-mnist.json")) };
    assert_eq!(written, Experiment::default());
}

#[test]
fn the_schema_is_the_codes() {
    let written = fs::read_to_string(configs().join("schema.json")).unwrap();
    assert!(written == schema::text().unwrap(), "run `senet config schema --out configs/schema.json`");
    jsonschema::meta::validate(&schema::schema()).unwrap();
}

#[test]
fn every_configuration_is_valid_by_the_schema_that_it_names() {
    let validator = jsonschema::validator_for(&schema::schema()).unwrap();
    let fits = |path: &Path, value: &Value| {
        let found: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    };
    for (path, value) in experiments() {
        let named = value["$schema"].as_str().unwrap_or_else(|| panic!("{}: no $schema", path.display()));
        let named = path.parent().unwrap().join(named).canonicalize().unwrap();
        assert_eq!(named, configs().join("schema.json").canonicalize().unwrap(), "{}", path.display());
        fits(&path, &value);
        // What a run saves is valid, too; and what differs from the default is a configuration that means the same.
        let experiment = load(&path);
        fits(&path, &serde_json::to_value(&experiment).unwrap());
        let changed = diff::changed(&experiment).unwrap();
        fits(&path, &changed);
        let mut layers = Layers::default();
        layers.set("", changed, "changed");
        assert_eq!(layers.apply_to(&Experiment::default()).unwrap(), experiment, "{}", path.display());
    }
}

/// The schema and the program agree on what may be written: a value of every kind, and a mistake of every kind.
#[test]
fn schema_and_loader_agree() {
    let validator = jsonschema::validator_for(&schema::schema()).unwrap();
    let loads = |value: &Value| {
        let mut layers = Layers::default();
        layers.set("", value.clone(), "test");
        layers.apply_to(&Experiment::default()).is_ok()
    };
    let good = [
        json!({}),
        json!({ "about": ["anything", 1], "name": "x", "seed": 3, "device": "cuda:1", "threads": null }),
        json!({ "model": { "name": "SE-ResNet-50", "se": { "rounding": "multiple-of-8", "stages": [3, 4] } } }),
        json!({ "model": { "name": "se-vgg-16-bn", "dropout": 0.2, "weights": "w.safetensors", "head": "new" } }),
        json!({ "optim": { "lr": 0.5, "momentum": 0.8 } }),
        json!({ "optim": "adamw" }),
        json!({ "optim": { "kind": "lamb", "clip": null, "no_decay": ["norm", "bias", "excitation-bias"] } }),
        json!({ "optim": { "kind": "rmsprop-tf", "lr": 0.1, "lr_per": 256 } }),
        json!({ "schedule": "cosine" }),
        json!({ "schedule": { "warmup": "5ep" }, "train": { "loss": {} } }),
        json!({ "schedule": { "kind": "step", "every": "30ep", "warmup": "3.5%", "warmup_start": 0.1 } }),
        json!({ "schedule": { "kind": "multi-step", "milestones": ["1ep", "100st"], "factor": 1 } }),
        json!({ "schedule": { "kind": "plateau", "max_drops": 3 } }),
        json!({ "schedule": { "kind": "sequence", "parts": [
            { "length": "1ep", "scale": 2, "schedule": { "kind": "linear", "end": 0.5 } },
            { "schedule": "constant" },
        ] } }),
        json!({ "train": { "loss": "bce", "clip": { "value": 0.1 }, "ema": { "decay": 0.99 }, "duration": "5000 st" } }),
        json!({ "train": { "loss": { "kind": "bce", "target_threshold": 0.2 }, "clip": null, "ema": null } }),
        json!({ "data": { "sampling": { "kind": "weighted", "power": 0.5 }, "mean": [0.5], "crop_area": [0.1, 1] } }),
        json!({ "data": { "sampling": { "kind": "shuffled" }, "source": "imagenet-val", "on_error": "skip" } }),
        json!({ "data": { "augment": [
            { "kind": "rand-augment" }, { "kind": "trivial-augment-wide" }, { "kind": "grayscale", "p": 0.1 },
            { "kind": "pixel-jitter", "per": "image" }, { "kind": "erase", "scale": [0.1, 0.2] },
            { "kind": "posterize", "bits": 4, "p": 0.5 }, { "kind": "colour-jitter", "hue": 0.1 },
        ] } }),
        json!({ "checkpoint": { "every_steps": 5, "every_minutes": 0.5 } }),
    ];
    for value in good {
        let found: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(found.is_empty(), "{value}: {found:#?}");
        assert!(loads(&value), "{value}");
    }
    let bad = [
        json!({ "optimiser": {} }),
        json!({ "name": "" }),
        json!({ "device": "tpu" }),
        json!({ "threads": 0 }),
        json!({ "seed": -1 }),
        json!({ "model": { "name": "se-resnet-51" } }),
        json!({ "model": { "se": { "reduction": 0 } } }),
        json!({ "model": { "se": { "gate": "softmax" } } }),
        json!({ "model": { "dropout": 1 } }),
        json!({ "data": { "crop": "padd" } }),
        json!({ "data": { "synthetic": { "channels": 2 } } }),
        json!({ "data": { "max_bad": 2 } }),
        json!({ "data": { "sampling": { "kind": "repeated", "repeats": 0 } } }),
        json!({ "data": { "sampling": "shuffled" } }),
        json!({ "data": { "augment": [{ "kind": "erase", "q": 1 }] } }),
        json!({ "data": { "augment": [{ "kind": "solarize" }] } }),
        json!({ "data": { "augment": [{ "kind": "posterize", "bits": 9, "p": 1 }] } }),
        json!({ "train": { "batch_size": 0 } }),
        json!({ "train": { "duration": 90 } }),
        json!({ "train": { "duration": "1.5st" } }),
        json!({ "train": { "loss": { "kind": "cross-entropy", "sum_classes": true } } }),
        json!({ "train": { "loss": { "sum_classes": true } } }),
        json!({ "train": { "ema": { "decay": 1 } } }),
        json!({ "train": { "label_smoothing": 1 } }),
        json!({ "optim": { "lr": 0 } }),
        json!({ "optim": { "lr_per": 0 } }),
        json!({ "optim": { "kind": "lamb", "momentum": 0.9 } }),
        json!({ "optim": { "betas": [0.9, 0.9] } }),
        json!({ "optim": { "no_decay": ["nrom"] } }),
        json!({ "schedule": { "kind": "sequence", "parts": [{ "schedule": { "end": 0 } }] } }),
        json!({ "schedule": "step" }),
        json!({ "schedule": { "kind": "step" } }),
        json!({ "schedule": { "kind": "constant", "end": 1 } }),
        json!({ "checkpoint": { "every_minutes": 0 } }),
    ];
    for value in bad {
        assert!(!validator.is_valid(&value), "the schema accepts {value}");
        assert!(!loads(&value), "the program accepts {value}");
    }
}
