//! What `senet export` writes, and what happens where messages cannot be printed.

mod common;

use common::{Sandbox, TINY};
use safetensors::SafeTensors;
use std::fs::File;

/// The tensors of a safetensors file, by name.
fn tensors(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn export_with_ema_writes_the_moving_average() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --set train.ema={{\"decay\":0.9}} --out run"));
    sandbox.succeed("export run --out plain.safetensors");
    sandbox.succeed("export run --ema --out ema.safetensors");
    let [plain, ema] = ["plain", "ema"].map(|name| tensors(&sandbox.read(&format!("{name}.safetensors"))));
    assert_eq!(plain, tensors(&sandbox.read("run/checkpoints/last/model.safetensors")));
    assert_eq!(ema, tensors(&sandbox.read("run/checkpoints/last/ema.safetensors")));
    assert_ne!(plain, ema);
}

#[test]
fn endings_of_other_formats_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    for name in ["net.onnx", "net.pth", "NET.PT", "net.pth.tar"] {
        let output = sandbox.senet(&format!("export run --out {name}"));
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(output.stderr.contains("safetensors is written"), "{}", output.stderr);
        assert!(!sandbox.path(name).exists());
    }
}

#[test]
fn a_run_survives_a_stderr_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = sandbox.command(&format!("train {TINY} --out run")).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(sandbox.path("run/result.json").is_file());
}
