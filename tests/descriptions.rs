//! A file that senet writes describes its network: it is read without any settings and computes the same logits.

mod common;
mod filled;

use common::{Sandbox, refused, write_class_folders};
use filled::{CLASSES, doubles, filled, golden, input};
use safetensors::SafeTensors;
use senet::data::preprocessing::{PreprocessingSource, UsedPreprocessing};
use senet::engine::convert;
use senet::engine::trained::Trained;
use senet::engine::weights_file::WeightsOptions;
use senet::models::{self, ModelSpec};
use senet::net::build::{Net, overwrite};
use senet::net::cost::count;
use senet::net::plan::InferencePlan;
use senet::net::se::{Rounding, SeSpec};
use senet::weights::names::Scheme;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use tch::Device;

/// Exports the network `spec` and loads it from the file alone. Returns whether there were logits to compare: some variants
/// overflow with random weights.
fn survives(spec: &ModelSpec, size: i64, dir: &Path) -> bool {
    let net = Net::build(&spec.describe(3, CLASSES).unwrap(), 1, Device::Cpu).unwrap();
    // Statistics, biases and scales that are not all 0 or 1.
    for named in net.tensors().iter().filter(|named| named.param.shape.len() == 1) {
        overwrite(&named.tensor, &filled(&named.param.name, &named.param.shape)).unwrap();
    }
    let logits = |trained: &Trained| {
        doubles(&InferencePlan::new(&trained.net).unwrap().forward(&input(1, size)).unwrap())
    };
    let (entry, _) = models::find(&spec.name).unwrap();
    let written = Trained {
        spec: spec.clone(),
        node: spec.describe(3, CLASSES).unwrap(),
        net,
        preprocessing: UsedPreprocessing::declared(entry.preprocessing(), PreprocessingSource::File),
        classes: (0..CLASSES).map(|class| format!("class {class}")).collect(),
        classes_are_named: true,
        step: None,
        notes: Vec::new(),
    };
    let path = dir.join("net.safetensors");
    convert::export(&written, Scheme::Senet, &path).unwrap();
    let read = Trained::of_file(&path, &WeightsOptions::default(), Device::Cpu).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read.spec, written.spec);
    assert_eq!((&read.classes, &read.preprocessing), (&written.classes, &written.preprocessing), "{spec:?}");
    assert!(read.notes.is_empty(), "{spec:?}: {:?}", read.notes);
    let (found, expected) = (logits(&read), logits(&written));
    let is_finite = expected.iter().all(|logit| logit.is_finite());
    if is_finite {
        assert_eq!(found, expected, "{spec:?}");
    }
    is_finite
}

#[test]
fn every_network_is_loaded_from_its_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut loaded, mut compared) = (0, 0);
    for name in models::names() {
        let (entry, with_se) = models::find(&name).unwrap();
        let spec = ModelSpec::named(&name);
        // Of the largest, the one with SE is enough.
        if !with_se && count(&spec.describe(3, CLASSES).unwrap()).values() > 30_000_000 {
            continue;
        }
        let size = if entry.input.height == 299 { 96 } else { entry.input.height.min(64) };
        loaded += 1;
        compared += usize::from(survives(&spec, size, dir.path()));
    }
    assert!(10 * compared > 9 * loaded, "{compared} of {loaded}");
}

#[test]
fn every_variant_is_loaded_from_its_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut specs: Vec<ModelSpec> = golden(include_str!("golden/variants.json"))
        .values()
        .map(|variant| ModelSpec {
            se: serde_json::from_value(variant["settings"].clone()).unwrap(),
            ..ModelSpec::named(variant["base"].as_str().unwrap())
        })
        .collect();
    let se = |se: SeSpec| ModelSpec { se, ..ModelSpec::named("se-resnet-20") };
    for reduction in [1, 2, 4, 8, 32] {
        specs.push(se(SeSpec { reduction, ..SeSpec::default() }));
        specs.push(se(SeSpec {
            reduction,
            rounding: Rounding::MultipleOf8,
            bias: false,
            ..SeSpec::default()
        }));
    }
    specs.push(ModelSpec { dropout: Some(0.5), ..ModelSpec::named("se-mobilenet") });
    specs.push(ModelSpec { drop_path: 0.125, ..ModelSpec::named("se-resnet-20") });
    assert!(specs.len() > 30, "{}", specs.len());
    let compared = specs.iter().filter(|spec| survives(spec, 32, dir.path())).count();
    assert!(4 * compared > 3 * specs.len(), "{compared} of {}", specs.len());
}

const TRAIN: &str = "train --data data --epochs 1 --batch-size 4 --set data.size=32 --quiet";
/// A variant whose tensors have the shapes of the default.
const TANH: &str = "--set model.se.gate=tanh --set model.se.squeeze=max --set model.se.placement=post";

/// Predictions without the paths of images.
fn logits(sandbox: &Sandbox, subject: &str) -> Vec<Value> {
    let found = sandbox.succeed(&format!("predict {subject} data/val --json --logits")).json();
    found.as_array().unwrap().iter().map(|prediction| prediction["logits"].clone()).collect()
}

#[test]
fn weights_and_average_of_a_variant_predict_as_their_run() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &["cat", "dog"], 6, 3);
    sandbox.succeed(&format!("{TRAIN} {TANH} --set train.ema={{\"decay\":0.5}} --out run"));
    let mut all = Vec::new();
    for (flag, file) in [("", "plain.safetensors"), ("--ema", "ema.safetensors")] {
        sandbox.succeed(&format!("export run {flag} --out {file}"));
        let of_run = logits(&sandbox, &format!("--run run {flag}"));
        assert_eq!(of_run, logits(&sandbox, &format!("--weights {file}")), "{file}");
        let counts = |subject: &str| {
            let counts = sandbox.succeed(&format!("eval {subject} --json")).json();
            (counts["loss"].clone(), counts["top1"].clone())
        };
        let of_file = counts(&format!("--weights {file} --data data"));
        assert_eq!(counts(&format!("run {flag}")), of_file, "{file}");
        all.push(of_run);
    }
    assert_ne!(all[0], all[1], "the average is another network");
    // A checkpoint's own file says as much.
    assert_eq!(all[0], logits(&sandbox, "--weights run/checkpoints/last/model.safetensors"));
    // timm has no such network, whatever the shapes.
    refused(&sandbox, "export run --names timm --out timm.safetensors", 1, &["timm has no network"]);
}

#[test]
fn training_starts_from_the_network_that_the_file_describes() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &["cat", "dog"], 4, 2);
    sandbox.succeed(&format!("{TRAIN} {TANH} --model resnet-20 --out plain"));
    sandbox.succeed(&format!("{TRAIN} {TANH} --set model.se.reduction=8 --model se-resnet-32 --out run"));
    sandbox.succeed("export run --out net.safetensors");
    sandbox.succeed(&format!("{TRAIN} --weights net.safetensors --out tuned"));
    let [trained, tuned] = ["run", "tuned"].map(|run| sandbox.read_json(&format!("{run}/config.json")));
    for key in ["name", "se"] {
        assert_eq!(tuned["model"][key], trained["model"][key]);
    }
    // Settings that are named count.
    let gate = format!("{TRAIN} --weights net.safetensors --set model.se.gate=relu --out relu");
    let warned = sandbox.succeed(&gate.replace("--quiet", "")).stderr;
    assert!(warned.contains("was trained with model.se.gate=tanh"), "{warned}");
    let relu = sandbox.read_json("relu/config.json");
    assert_eq!(
        (&relu["model"]["se"]["gate"], &relu["model"]["se"]["reduction"]),
        (&json!("relu"), &json!(8))
    );
    let parts =
        ["net.safetensors holds weights of se-resnet-32, not of se-resnet-20", "`--model se-resnet-32`"];
    refused(
        &sandbox,
        &format!("{TRAIN} --model se-resnet-20 --weights net.safetensors --out other"),
        1,
        &parts,
    );
}

/// Writes the tensors of `from` with a description like `about`.
fn described_as(sandbox: &Sandbox, from: &str, to: &str, about: Option<Value>) {
    let bytes = sandbox.read(from);
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let metadata = about.map(|about| HashMap::from([("senet".to_string(), about.to_string())]));
    sandbox.write(to, safetensors::serialize(tensors, metadata).unwrap());
}

#[test]
fn files_without_a_description_are_loaded_and_reported() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &["cat", "dog"], 4, 2);
    sandbox.succeed(&format!("{TRAIN} --out run"));
    sandbox.succeed("export run --out net.safetensors");
    let whole = logits(&sandbox, "--weights net.safetensors");
    let preprocessing =
        json!({"size": 32, "resize": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]});
    let early = json!({"model": "se-resnet-20", "classes": ["cat", "dog"], "preprocessing": preprocessing});
    described_as(&sandbox, "net.safetensors", "early.safetensors", Some(early));
    described_as(&sandbox, "net.safetensors", "foreign.safetensors", None);
    let early = sandbox.succeed("predict --weights early.safetensors data/val --json --logits");
    assert!(early.stderr.contains("does not describe its SE blocks"), "{}", early.stderr);
    assert_eq!(logits(&sandbox, "--weights early.safetensors"), whole);
    let import =
        |words: &str, out: &str| sandbox.succeed(&format!("import {words} --out {out}.safetensors")).stderr;
    let foreign = import("foreign.safetensors --model se-resnet-20", "a");
    assert!(foreign.contains("does not describe its network"), "{foreign}");
    let ours = import("net.safetensors", "b");
    assert!(!ours.contains("does not describe"), "{ours}");
    // A description that this version does not understand is never ignored.
    let strange = json!({"model": "se-resnet-20", "se": {"gate": "softmax"}});
    described_as(&sandbox, "net.safetensors", "strange.safetensors", Some(strange));
    let parts = ["strange.safetensors", "description of the network", "softmax"];
    refused(&sandbox, "import strange.safetensors --out c.safetensors", 1, &parts);
}
