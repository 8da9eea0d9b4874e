//! Weight files of other programs, as they come: what is read, what is refused, and what is said of them.

mod common;
mod filled;

use common::{Sandbox, TINY, refused, write_image};
use filled::{filled_net, spec};
use image::ImageFormat;
use senet::weights::{About, safetensors};
use serde_json::json;
use std::process::Command;
use tch::Tensor;

const MODEL: &str = "resnet-20";

/// The tensors of a small network.
fn tensors() -> Vec<(String, Tensor)> {
    let net = filled_net(&spec(MODEL), 10);
    net.tensors().iter().map(|t| (t.param.name.clone(), t.tensor.detach().contiguous().copy())).collect()
}

fn safetensors_of(tensors: &[(String, Tensor)]) -> Vec<u8> {
    safetensors::write(tensors, &About::default()).unwrap()
}

/// The tensors with one value replaced in each tensor that is named.
fn spoilt(names: &[&str], value: f64) -> Vec<u8> {
    let tensors = tensors();
    for (name, tensor) in &tensors {
        if names.contains(&name.as_str()) {
            let _ = tensor.reshape([-1]).get(0).fill_(value);
        }
    }
    safetensors_of(&tensors)
}

#[test]
fn weights_that_are_not_finite_are_refused_by_every_command_that_reads_them() {
    let sandbox = Sandbox::new();
    write_image(&sandbox, "red.png", ImageFormat::Png, 0);
    for (value, name) in [
        (f64::NAN, "layer1.0.bn2.running_var"),
        (f64::INFINITY, "conv1.weight"),
        (f64::NEG_INFINITY, "fc.bias"),
    ] {
        sandbox.write("w.safetensors", spoilt(&[name], value));
        let parts = ["w.safetensors holds 1 value(s) that are NaN or infinite", &format!("`{name}` (1 of ")];
        for words in [
            "predict --weights w.safetensors --model resnet-20 red.png",
            "import w.safetensors --model resnet-20 --out out.safetensors",
            &format!(
                "train {TINY} --set data.synthetic.channels=3 --set data.synthetic.classes=10 --model resnet-20 --weights w.safetensors --out run-{name}"
            ),
        ] {
            refused(&sandbox, words, 1, &parts);
        }
    }
    let all: Vec<String> = tensors().into_iter().map(|(name, _)| name).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    sandbox.write("w.safetensors", spoilt(&all, f64::NAN));
    let parts = [&*format!("holds {} value(s)", all.len()), &*format!("and {} more tensors", all.len() - 4)];
    refused(&sandbox, "import w.safetensors --model resnet-20 --out out.safetensors", 1, &parts);
}

#[test]
fn prefixes_of_wrappers_are_removed_and_named() {
    let sandbox = Sandbox::new();
    sandbox.write("plain.safetensors", safetensors_of(&tensors()));
    sandbox.succeed(&format!("import plain.safetensors --model {MODEL} --out plain"));
    for prefix in ["module.", "_orig_mod.", "_orig_mod.module.", "model."] {
        let wrapped: Vec<_> =
            tensors().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        sandbox.write("w.safetensors", safetensors_of(&wrapped));
        let output = sandbox.succeed(&format!("import w.safetensors --model {MODEL} --out out-{prefix}"));
        let told = format!("the prefix `{prefix}`, which all {} names share, was removed", wrapped.len());
        assert!(output.stderr.contains(&told), "{}", output.stderr);
        assert!(sandbox.read(&format!("out-{prefix}")) == sandbox.read("plain"), "{prefix}");
    }
    // An average of torch's, which counts its updates.
    let mut averaged: Vec<_> =
        tensors().into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    averaged.push(("n_averaged".to_string(), Tensor::from(7f32)));
    sandbox.write("w.safetensors", safetensors_of(&averaged));
    sandbox.succeed(&format!("import w.safetensors --ema --model {MODEL} --out averaged"));
    assert!(sandbox.read("averaged") == sandbox.read("plain"));
    let words = format!("import plain.safetensors --ema --model {MODEL} --out out");
    refused(&sandbox, &words, 1, &["holds no moving average", "without `--ema`"]);
}

#[test]
fn sharded_weights_are_read_by_their_index_and_from_its_folder_alone() {
    let sandbox = Sandbox::new();
    let all = tensors();
    let (first, second) = all.split_at(all.len() / 2);
    sandbox.write("plain.safetensors", safetensors_of(&all));
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    sandbox.write(&format!("s/{}", parts[0]), safetensors_of(first));
    sandbox.write(&format!("s/{}", parts[1]), safetensors_of(second));
    let index = |parts: [&str; 2]| {
        let of = |tensors: &[(String, Tensor)], part: &str| {
            tensors.iter().map(|(name, _)| (name.clone(), json!(part))).collect::<Vec<_>>()
        };
        let map: serde_json::Map<_, _> =
            of(first, parts[0]).into_iter().chain(of(second, parts[1])).collect();
        json!({ "metadata": {}, "weight_map": map }).to_string()
    };
    sandbox.write("s/model.safetensors.index.json", index(parts));
    sandbox.succeed(&format!("import plain.safetensors --model {MODEL} --out plain"));
    sandbox.succeed(&format!("import s/model.safetensors.index.json --model {MODEL} --out whole"));
    assert!(sandbox.read("whole") == sandbox.read("plain"));
    let words = format!("import s/{} --model {MODEL} --out out", parts[0]);
    refused(&sandbox, &words, 1, &["is missing", "hint: it is one of several parts"]);
    sandbox.write("s/outside.json", index([parts[0], "../plain.safetensors"]));
    let words = format!("import s/outside.json --model {MODEL} --out out");
    refused(&sandbox, &words, 1, &["`../plain.safetensors`, which is not in its folder"]);
}

#[test]
fn files_that_are_no_weights_are_named_with_or_without_a_network() {
    let sandbox = Sandbox::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 45000000\n";
    sandbox.write("lfs.safetensors", pointer);
    sandbox.write("page.pth", "<!DOCTYPE html><html><head><title>Virus scan\x1b[2J</title>");
    sandbox.write("empty.pth", "");
    sandbox.write("folder/model.safetensors", safetensors_of(&tensors()));
    let fifo = Command::new("mkfifo").arg(sandbox.path("fifo")).status().unwrap();
    assert!(fifo.success());
    for (file, parts) in [
        ("lfs.safetensors", ["a git-lfs pointer to a file of 45000000 bytes", "git lfs pull"]),
        ("page.pth", ["a web page (Virus scan\\u{1b}[2J)", "direct link"]),
        ("empty.pth", ["the file is empty", "fetch it again"]),
        ("fifo", ["fifo is a pipe or device", "hint: "]),
        ("folder", ["folder is a folder", "did you mean folder/model.safetensors?"]),
    ] {
        for model in ["", "--model resnet-20"] {
            refused(&sandbox, &format!("import {file} {model} --out out"), 1, &parts);
        }
    }
}

#[test]
fn names_of_foreign_files_cannot_act_on_the_terminal_and_json_keeps_them() {
    let sandbox = Sandbox::new();
    write_image(&sandbox, "red.png", ImageFormat::Png, 0);
    let hostile = "cat\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\r";
    let classes: Vec<String> = (0..10).map(|class| format!("{hostile}{class}")).collect();
    let about = About { model: Some(MODEL.to_string()), classes: classes.clone(), ..About::default() };
    sandbox.write("w.safetensors", safetensors::write(&tensors(), &about).unwrap());
    let acts = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    let output = sandbox.succeed("predict --weights w.safetensors red.png");
    assert!(output.stdout.contains("cat\\u{1b}[2J"), "{}", output.stdout);
    assert!(!acts(&output.stdout) && !acts(&output.stderr));
    let output = sandbox.succeed("predict --weights w.safetensors red.png --json");
    assert!(!acts(&output.stdout));
    let name = output.json()[0]["top"][0]["name"].as_str().unwrap().to_string();
    assert!(classes.contains(&name), "{name:?}");
    // Names of tensors in messages, an empty one too.
    let mut odd = tensors();
    odd.push((format!("{hostile}.x"), Tensor::from_slice(&[1f32])));
    odd.push((String::new(), Tensor::from_slice(&[1f32])));
    sandbox.write("w.safetensors", safetensors_of(&odd));
    let words = format!("import w.safetensors --model {MODEL} --out out");
    let output = refused(&sandbox, &words, 1, &["\"\" is left over", "`cat\\u{1b}[2J"]);
    assert!(!acts(&output.stderr));
}
