//! Every configuration that is shipped loads, says what it is, and the first one is the built-in default.

use senet::experiment::Experiment;
use senet::experiment::load::Layers;
use senet::experiment::sweep::Request;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn shipped(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(shipped(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files
}

fn load(path: &Path) -> Experiment {
    let mut layers = Layers::default();
    layers.file(path).unwrap();
    layers.apply_to(&Experiment::default()).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
}

/// The `about` block of a configuration or a sweep file, after reading all of it.
fn about(path: &Path) -> Value {
    let Some(request) = Request::read(path).unwrap() else { return load(path).about };
    let mut layers = Layers::default();
    layers.set("", request.base.clone(), "base");
    let base = layers.apply_to(&Experiment::default()).unwrap();
    let sweep = request.expand(&base).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    assert!(sweep.rows.len() > 2, "{}: nothing to compare", path.display());
    request.about
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

#[test]
fn every_configuration_loads_and_tells_its_story() {
    let files = shipped(&configs());
    assert!(files.len() >= 3);
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
