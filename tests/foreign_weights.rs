//! Weights files that say nothing of their network: what the shapes of their tensors imply, what `--set` adds, and images of
//! another number of channels.

mod common;
mod filled;

use common::{Sandbox, TINY, refused, write_class_folders, write_image};
use filled::filled;
use image::ImageFormat;
use senet::models::ModelSpec;
use senet::net::params::params;
use senet::net::se::{Gate, Rounding, SeSpec};
use senet::weights::{About, safetensors};
use serde_json::Value;

/// Writes tensors of the network `spec` for images of `channels` channels, without a description.
fn write_weights(sandbox: &Sandbox, name: &str, spec: &ModelSpec, channels: i64) {
    let tensors: Vec<_> = params(&spec.describe(channels, 10).unwrap())
        .into_iter()
        .map(|param| (param.name.clone(), filled(&param.name, &param.shape)))
        .collect();
    sandbox.write(name, safetensors::write(&tensors, &About::default()).unwrap());
}

fn spec(name: &str, se: SeSpec) -> ModelSpec {
    ModelSpec { se, ..ModelSpec::named(name) }
}

fn logits(sandbox: &Sandbox, subject: &str) -> Value {
    write_image(sandbox, "a.png", ImageFormat::Png, 0);
    sandbox.succeed(&format!("predict --weights {subject} a.png --json --logits")).json()[0]["logits"].clone()
}

#[test]
fn widths_and_biases_are_inferred_from_shapes() {
    let sandbox = Sandbox::new();
    let se = SeSpec { reduction: 4, rounding: Rounding::MultipleOf8, bias: false, ..SeSpec::default() };
    write_weights(&sandbox, "w.safetensors", &spec("se-resnet-20", se), 3);
    let words = "import w.safetensors --model se-resnet-20 --out ours.safetensors";
    let imported = sandbox.succeed(words);
    assert!(
        imported.stderr.contains("imply model.se.reduction=4, model.se.bias=false"),
        "{}",
        imported.stderr
    );
    let inferred = logits(&sandbox, "ours.safetensors");
    let flags = "--set model.se.reduction=4 --set model.se.rounding=multiple-of-8 --set model.se.bias=false";
    assert_eq!(inferred, logits(&sandbox, &format!("w.safetensors --model se-resnet-20 {flags}")));
    // Training has a network of its own, which is not changed unasked.
    write_class_folders(&sandbox, "data", &["a", "b"], 4, 2);
    let train = "train --data data --epochs 1 --batch-size 4 --set data.size=32 --model se-resnet-20 --weights \
                 w.safetensors --head new --quiet --out run";
    refused(
        &sandbox,
        train,
        1,
        &[
            "imply model.se.reduction=4, model.se.bias=false",
            "add `--set model.se.reduction=4 --set model.se.bias=false",
        ],
    );
    sandbox.succeed(&format!("{train}-2 {flags}"));
}

#[test]
fn settings_of_a_files_network_can_be_set() {
    let sandbox = Sandbox::new();
    let tanh = spec("se-resnet-20", SeSpec { gate: Gate::Tanh, ..SeSpec::default() });
    write_weights(&sandbox, "w.safetensors", &tanh, 3);
    let of = |flags: &str| logits(&sandbox, &format!("w.safetensors --model se-resnet-20 {flags}"));
    assert_ne!(of(""), of("--set model.se.gate=tanh"));
    let words = "import w.safetensors --model se-resnet-20 --set model.se.gate=tanh --out tanh.safetensors";
    assert!(!sandbox.succeed(words).stderr.contains("assumed"));
    assert_eq!(of("--set model.se.gate=tanh"), logits(&sandbox, "tanh.safetensors"));
    write_class_folders(&sandbox, "data", &["0", "1"], 2, 2);
    let eval = |flags: &str| {
        let words = format!("eval --weights w.safetensors --model se-resnet-20 --data data {flags} --json");
        sandbox.succeed(&words).json()["loss"].clone()
    };
    assert_ne!(eval(""), eval("--set model.se.gate=tanh"));
    for (setting, part) in [
        ("model.name=resnet-20", "--model"),
        ("optim.lr=1", "no setting of the network"),
        ("model.se.gate=softmax", "softmax"),
    ] {
        refused(
            &sandbox,
            &words.replace("model.se.gate=tanh", setting).replace("tanh.", "other."),
            2,
            &[part],
        );
    }
}

#[test]
fn first_convolutions_are_converted_between_one_channel_and_three() {
    let sandbox = Sandbox::new();
    let net = ModelSpec::named("resnet-20");
    write_weights(&sandbox, "gray.safetensors", &net, 1);
    write_weights(&sandbox, "rgb.safetensors", &net, 3);
    write_weights(&sandbox, "four.safetensors", &net, 4);
    write_image(&sandbox, "a.png", ImageFormat::Png, 0);
    let predicted = sandbox.succeed("predict --model resnet-20 --weights gray.safetensors a.png");
    assert!(
        predicted.stderr.contains("`conv1.weight` is for images of 1 channel(s)"),
        "{}",
        predicted.stderr
    );
    // TINY's images have one channel.
    let train = |from: &str| format!("train {TINY} --model resnet-20 --weights {from} --out {from}.run");
    let tuned = sandbox.succeed(&train("rgb.safetensors"));
    assert!(tuned.stderr.contains("its sum over the channels"), "{}", tuned.stderr);
    let quiet = sandbox.succeed(&train("gray.safetensors"));
    assert!(!quiet.stderr.contains("channel(s)"), "{}", quiet.stderr);
    let output = refused(
        &sandbox,
        &train("four.safetensors"),
        1,
        &["`conv1.weight` is [16, 4, 3, 3], not [16, 1, 3, 3]"],
    );
    assert!(!output.stderr.contains("--head new"), "{}", output.stderr);
}
