//! Looking into trained networks: gates, and what trained SE blocks are worth.

mod common;

use common::{Sandbox, TINY, refused};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn trained() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --set model.se.reduction=4 --lr 0.02 --out run"));
    sandbox
}

fn doubles(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn gates_for_each_class_and_block() {
    let sandbox = trained();
    let found = sandbox.succeed("inspect excitation run --json").json();
    assert_eq!(sandbox.read_json("run/excitation/excitation.json"), found);
    let blocks = found["blocks"].as_array().unwrap();
    let labels: Vec<_> = blocks.iter().map(|block| block["label"].as_str().unwrap()).collect();
    let expected = [2, 3, 4].iter().flat_map(|stage| [1, 2, 3].map(|number| format!("SE_{stage}_{number}")));
    assert_eq!(labels, expected.collect::<Vec<_>>());
    let last: Vec<_> = blocks.iter().map(|block| block["is_last_of_stage"].as_bool().unwrap()).collect();
    assert_eq!(last, [false, false, true, false, false, true, false, false, true]);
    assert_eq!((&found["seen"], found["classes"].as_array().unwrap().len()), (&json!(23), 10));
    for (block, channels) in blocks.iter().zip([16, 16, 16, 32, 32, 32, 64, 64, 64]) {
        let all = doubles(&block["all"]["mean"]);
        assert_eq!(all.len(), channels);
        assert!(all.iter().all(|gate| (0.0..=1.0).contains(gate)), "{all:?}");
        // All classes are chosen, so their means, weighted by their images, are the mean of all.
        let classes = block["by_class"].as_array().unwrap();
        for (channel, mean) in all.iter().enumerate() {
            let weighted = |class: &Value| {
                let images = class["images"].as_f64().unwrap();
                if images == 0.0 { 0.0 } else { images * class["mean"][channel].as_f64().unwrap() }
            };
            let sum: f64 = classes.iter().map(weighted).sum();
            assert!((sum / 23.0 - mean).abs() < 1e-9, "channel {channel}: {sum} {mean}");
        }
        let saturation = &block["saturation"];
        assert!(
            (saturation["mean"].as_f64().unwrap() - all.iter().sum::<f64>() / channels as f64).abs() < 1e-9
        );
        assert!((0.0..=1.0).contains(&saturation["between_classes"].as_f64().unwrap()), "{saturation}");
    }
    // 336 channels, for ten classes and all images.
    let csv = String::from_utf8(sandbox.read("run/excitation/excitation.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 336 * 11);

    let chosen = sandbox
        .succeed("inspect excitation run --classes class-7,class-2 --out two --batch-size 3 --json")
        .json();
    assert_eq!(chosen["classes"], json!(["class-7", "class-2"]));
    let (some, full) = (&chosen["blocks"][4], &blocks[4]);
    for (mean, other) in
        doubles(&some["by_class"][1]["mean"]).iter().zip(doubles(&full["by_class"][2]["mean"]))
    {
        assert!((mean - other).abs() < 1e-5, "the batch size changes a gate: {mean} {other}");
    }
    let text = sandbox.succeed("inspect excitation run").stdout;
    assert!(text.contains("SE_4_3") && text.contains("layer3.2.se"), "{text}");
}

#[test]
fn gates_that_are_not_there() {
    let sandbox = trained();
    let unknown = ["the data has no class `boot`", "hint: the first of its 10 is `class-0`"];
    refused(&sandbox, "inspect excitation run --classes boot", 2, &unknown);
    sandbox.succeed(&format!("train {TINY} --model resnet-20 --out plain"));
    refused(&sandbox, "inspect excitation plain", 1, &["resnet-20 has no SE blocks with gates", "hint"]);
    refused(&sandbox, "inspect excitation nowhere", 1, &["nowhere is not the folder of a run"]);
}

#[test]
fn evaluation_without_trained_blocks() {
    let sandbox = trained();
    let loss = |flags: &str| {
        let found = sandbox.succeed(&format!("eval run --json {flags}")).json();
        assert_eq!(found["seen"], 23);
        found["loss"].as_f64().unwrap()
    };
    let whole = loss("");
    let (stage, same) = (loss("--without-se stage4"), loss("--without-se layer3.0,layer3.1.se,layer3.2"));
    assert!((stage - whole).abs() > 1e-6, "{stage} {whole}");
    assert_eq!(stage, same, "one stage is its three blocks");
    assert_ne!(loss("--without-se all"), stage);
    let named = sandbox.succeed("eval run --json --without-se stage4").json();
    assert_eq!(named["without_se"], json!(["stage4"]));
    for word in ["stage5", "layer4", "layer3.", "layer3.1.s", "stage"] {
        let parts = [format!("`--without-se` names `{word}`"), "layer1.0.se to layer3.2.se".to_string()];
        refused(&sandbox, &format!("eval run --without-se {word}"), 2, &parts.each_ref().map(String::as_str));
    }
}

/// A Chromium, where there is one.
fn chromium() -> Option<PathBuf> {
    let folders = env::split_paths(&env::var_os("PATH")?).collect::<Vec<_>>();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// A picture of `page` of this width, kept in target/pages/ for people to look at.
fn screenshot(chromium: &Path, page: &Path, name: &str, width: u32) -> image::RgbaImage {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    fs::create_dir_all(&folder).unwrap();
    let picture = folder.join(format!("{name}-{width}.png"));
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},2400"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    image::open(&picture).unwrap().to_rgba8()
}

#[test]
fn pages_in_a_browser() {
    let sandbox = trained();
    sandbox.succeed("inspect excitation run");
    sandbox.write("run/excitation/excitation.csv", "mine");
    refused(&sandbox, "inspect excitation run", 1, &["excitation.csv exists already", "`--force`"]);
    sandbox.succeed("inspect excitation run --force");
    sandbox.succeed(&format!("ablate --ratios 4,16 --gate tanh --seeds 2 {TINY} --lr 0.02 --out lab -q"));
    for (page, name) in [("run/excitation/excitation.html", "excitation"), ("lab/results.html", "comparison")]
    {
        let text = String::from_utf8(sandbox.read(page)).unwrap();
        assert!(text.contains("<svg"), "{name} has no plot");
        // Self-contained: nothing is fetched from anywhere.
        for reference in ["src=", "href=\"http", "@import", "url("] {
            assert!(!text.contains(reference), "{name} refers to something with {reference}");
        }
        let Some(chromium) = chromium() else { continue };
        let picture = screenshot(&chromium, &sandbox.path(page), name, 1200);
        assert_eq!(picture.dimensions(), (1200, 2400));
        let background = picture.get_pixel(0, 0);
        let inked = picture.pixels().filter(|pixel| *pixel != background).count();
        assert!(inked > 20_000, "{name}: only {inked} pixels are not background");
    }
}
