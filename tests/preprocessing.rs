//! Which preprocessing `eval`, `predict`, `import` and `train` use: flags, then the run or the weights file, then timm's
//! config.json beside it, then the network's default.

mod common;
mod filled;

use common::{Sandbox, refused, write_class_folders, write_image};
use filled::{filled_net, spec};
use image::ImageFormat;
use senet::weights::{About, safetensors};
use serde_json::{Value, json};

const NETWORK: &str = "--model resnet-20";

/// A file of weights that declares nothing at `bare/`, `timm/` (with a config.json) and, as one of ours, at `ours/`; an
/// image; class folders.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let net = filled_net(&spec("resnet-20"), 10);
    let tensors: Vec<_> =
        net.tensors().iter().map(|t| (t.param.name.clone(), t.tensor.detach().contiguous().copy())).collect();
    let bare = safetensors::write(&tensors, &About::default()).unwrap();
    sandbox.write("bare/model.safetensors", &bare);
    sandbox.write("timm/model.safetensors", &bare);
    let cfg = json!({
        "input_size": [3, 12, 12], "test_input_size": [3, 16, 16], "interpolation": "bicubic", "crop_pct": 0.875,
        "test_crop_pct": 0.95, "crop_mode": "center", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]
    });
    let config = json!({"architecture": "resnet20", "num_classes": 10, "pretrained_cfg": cfg});
    sandbox.write("timm/config.json", config.to_string());
    write_image(&sandbox, "red.png", ImageFormat::Png, 0);
    write_class_folders(&sandbox, "photos", &["a", "b"], 8, 4);
    sandbox
}

fn preprocessing(output: &common::Output) -> Value {
    let document = output.json();
    if document.is_array() { document[0]["preprocessing"].clone() } else { document["preprocessing"].clone() }
}

/// The values of a document without who declared them.
fn values(used: &Value) -> Value {
    json!([used["size"], used["resize"], used["mean"], used["std"], used["interpolation"]])
}

#[test]
fn flags_file_timm_config_and_default_decide_in_this_order() {
    let sandbox = sandbox();
    let declared = json!([12, 13, [0.5, 0.4, 0.3], [0.5, 0.6, 0.7], "bilinear"]);
    let default = json!([32, 32, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "bilinear"]);
    let flags = "--img-size 12 --crop-pct 0.875 --mean 0.5,0.4,0.3 --std 0.5,0.6,0.7";
    // The export of a run has the run's.
    sandbox.succeed(
        "train --model resnet-20 --data photos --weights bare/model.safetensors --head new --epochs 1 --batch-size 4 \
         --set data.size=12 --set data.resize=13 --set data.mean=[0.5,0.4,0.3] --set data.std=[0.5,0.6,0.7] --out run",
    );
    // A file that declares its own is not overruled by what is beside it.
    let other = json!({"architecture": "x", "mean": [0.1, 0.1, 0.1], "std": [0.1, 0.1, 0.1]});
    sandbox.write("ours/config.json", other.to_string());
    sandbox.succeed("export run --out ours/model.safetensors");
    for command in ["predict red.png --json --logits", "eval --data photos --json"] {
        let run = if command.starts_with("eval") { "run" } else { "--run run" };
        let of = |folder: &str, flags: &str| {
            let network = if folder == "ours" { "" } else { NETWORK };
            sandbox.succeed(&format!("{command} --weights {folder}/model.safetensors {network} {flags}"))
        };
        let is_eval = command.starts_with("eval");
        if !is_eval {
            let [bare, timm, by_flags] = [of("bare", ""), of("timm", ""), of("bare", flags)];
            assert_eq!(values(&preprocessing(&bare)), default);
            assert_eq!(preprocessing(&bare)["source"], "default");
            assert!(bare.stderr.contains("defaults of resnet-20, as the weights file declares none"));
            for (output, source) in [(&timm, "timm-config"), (&by_flags, "default")] {
                assert_eq!(values(&preprocessing(output)), declared);
                assert_eq!(preprocessing(output)["source"], source);
            }
            assert_eq!(preprocessing(&by_flags)["flags"], json!(["size", "crop-ratio", "mean", "std"]));
            assert_eq!(timm.json()[0]["logits"], by_flags.json()[0]["logits"]);
            assert_ne!(timm.json()[0]["logits"], bare.json()[0]["logits"]);
            // What is declared and not done is reported.
            for part in ["declares bicubic interpolation", "--size 16 --crop-ratio 0.95"] {
                assert!(timm.stderr.contains(part), "{}", timm.stderr);
            }
        }
        let (of_run, ours) = (sandbox.succeed(&format!("{command} {run}")), of("ours", ""));
        for (output, source) in [(&of_run, "run"), (&ours, "file")] {
            assert_eq!(values(&preprocessing(output)), declared, "{command}");
            assert_eq!(preprocessing(output)["source"], source);
            assert!(
                output
                    .stderr
                    .contains("resize to 13, crop 12 × 12, bilinear, mean 0.5, 0.4, 0.3, std 0.5, 0.6, 0.7"),
                "{}",
                output.stderr
            );
        }
        let changed = of("ours", "--mean 0.25 --size 16 --resize 16");
        let expected = json!([16, 16, [0.25, 0.25, 0.25], [0.5, 0.6, 0.7], "bilinear"]);
        assert_eq!(values(&preprocessing(&changed)), expected);
        assert_eq!(preprocessing(&changed)["flags"], json!(["size", "resize", "mean"]));
        let number = |output: &common::Output| {
            let document = output.json();
            if is_eval { document["loss"].clone() } else { document[0]["logits"].clone() }
        };
        assert_eq!(number(&of_run), number(&ours), "{command}");
        assert_ne!(number(&changed), number(&ours), "{command}");
    }
}

#[test]
fn imported_files_and_runs_from_weights_keep_what_timm_declares() {
    let sandbox = sandbox();
    let imported =
        sandbox.succeed(&format!("import timm/model.safetensors {NETWORK} --out imported.safetensors"));
    assert!(imported.stderr.contains("declares bicubic interpolation"), "{}", imported.stderr);
    let output = sandbox.succeed("predict red.png --json --weights imported.safetensors");
    let declared = json!([12, 13, [0.5, 0.4, 0.3], [0.5, 0.6, 0.7], "bilinear"]);
    assert_eq!(values(&preprocessing(&output)), declared);
    assert_eq!(preprocessing(&output)["source"], "file");

    let train =
        "train --model resnet-20 --data photos --head new --epochs 1 --batch-size 4 --set data.size=12";
    let words = format!("{train} --weights timm/model.safetensors --out run");
    let trained = sandbox.succeed(&words);
    assert!(trained.stderr.contains("as config.json declares them"), "{}", trained.stderr);
    let data = &sandbox.read_json("run/config.json")["data"];
    assert_eq!(json!([data["mean"], data["std"]]), json!([[0.5, 0.4, 0.3], [0.5, 0.6, 0.7]]));
    // A run that exists keeps what it was started with, though the file declares something else now.
    std::fs::remove_file(sandbox.path("timm/config.json")).unwrap();
    sandbox.succeed(&format!("{words} --resume auto"));
    // What the configuration says takes precedence.
    sandbox.succeed(&format!(
        "{train} --weights imported.safetensors --set data.mean=[0.1,0.1,0.1] --set data.std=[0.2,0.2,0.2] --out other"
    ));
    let data = &sandbox.read_json("other/config.json")["data"];
    assert_eq!(json!([data["mean"], data["std"]]), json!([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]));
}

#[test]
fn impossible_preprocessing_is_refused() {
    let sandbox = sandbox();
    let words = format!("predict red.png --weights bare/model.safetensors {NETWORK}");
    let refuse = |flags: &str, parts: &[&str]| {
        refused(&sandbox, &format!("{words} {flags}"), 2, &[parts, &["hint"]].concat())
    };
    refuse("--mean 123.675", &["`--mean` holds 123.675", "divide by 255"]);
    refuse("--std 0.5,0.5", &["`--std` has 2 values", "3 channel(s)"]);
    refuse("--size 20 --resize 16", &["a crop of 20 × 20 pixels"]);
    sandbox.write("bare/config.json", r#"{"architecture": "resnet20", "mean": [123.7, 116.3, 103.5]}"#);
    refused(&sandbox, &words, 1, &["bare/config.json: `mean` holds 123.7", "hint"]);
    // A configuration of another program declares nothing.
    sandbox.write("bare/config.json", r#"{"architectures": ["ResNet"], "mean": "x"}"#);
    sandbox.succeed(&words);
}
