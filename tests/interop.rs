//! Weight files of other programs, as they come: what is read, what is refused, and what is said of them.

mod common;
mod filled;

use common::{Sandbox, TINY, refused, write_image};
use filled::{filled_net, spec};
use image::ImageFormat;
use senet::weights::{About, safetensors};
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
