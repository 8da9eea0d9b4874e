//! The names of timm and torchvision, wherever a network is named.

mod common;

use common::{Sandbox, TINY, refused};
use safetensors::SafeTensors;
use senet::models::ModelSpec;

/// Writes the tensors of `from` as other programs do: nothing says what they are of.
fn without_description(sandbox: &Sandbox, from: &str, to: &str) {
    let bytes = sandbox.read(from);
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    sandbox.write(to, safetensors::serialize(tensors, None).unwrap());
}

/// Beside `TINY`: images that the networks for photographs take.
const PHOTOS: &str = "--set data.synthetic.size=32 --set data.synthetic.channels=3 --set data.synthetic.train=8 \
                      --set data.synthetic.eval=4 --set train.batch_size=4";

#[test]
fn aliases_are_listed_and_described_as_what_they_are() {
    let sandbox = Sandbox::new();
    let list = sandbox.succeed("summary --list").stdout;
    for name in
        ["seresnet50", "legacy_seresnet50", "resnet50", "resnext50_32x4d", "senet154", "inception_resnet_v2"]
    {
        assert!(list.contains(name), "{name} is missing in\n{list}");
    }
    let line =
        |name: &str| sandbox.succeed(&format!("summary {name}")).stdout.lines().next().unwrap().to_string();
    assert!(line("seresnet50").starts_with("se-resnet-50-v1.5:"), "{}", line("seresnet50"));
    assert!(line("timm/resnet50.a1_in1k").starts_with("resnet-50-v1.5:"), "{}", line("resnet50"));
    assert!(line("legacy_seresnet18").starts_with("se-resnet-18-legacy:"), "{}", line("legacy_seresnet18"));
}

#[test]
fn timms_hidden_widths_come_with_its_names() {
    let sandbox = Sandbox::new();
    let params = |words: &str| {
        sandbox.succeed(&format!("summary {words} --json")).json()["params"]["trainable"].clone()
    };
    assert_eq!(params("seresnet18"), 11_779_624);
    assert_ne!(params("se-resnet-18-v1.5"), 11_779_624);
    let shown = sandbox.succeed("config show --set model.name=seresnet18").json();
    assert_eq!(shown["model"]["name"], "se-resnet-18-v1.5");
    assert_eq!(shown["model"]["se"]["rounding"], "multiple-of-8");
    let exact =
        sandbox.succeed("config show --set model.name=seresnet18 --set model.se.rounding=exact").json();
    assert_eq!(exact["model"]["se"]["rounding"], "exact");
}

#[test]
fn a_misspelt_name_is_never_sent_to_another_network() {
    let sandbox = Sandbox::new();
    for name in ["seresnet51", "se-resnet-51", "resnet50d", "resnest50", "skresnet50", "efficientnet_b0"] {
        let output = refused(&sandbox, &format!("summary {name}"), 2, &["unknown network", "summary --list"]);
        assert!(!output.stderr.contains("did you mean"), "{}", output.stderr);
    }
    refused(&sandbox, "summary seresent50", 2, &["did you mean `seresnet50` (se-resnet-50-v1.5)"]);
    refused(&sandbox, "summary seresnet-50", 2, &["`seresnet50` (se-resnet-50-v1.5)", "`se-resnet-50`"]);
}

/// The references of scripts/golden.py name the library's network, and tests/zoo.rs compares their logits.
#[test]
fn aliases_mean_the_networks_whose_logits_equal_theirs() {
    let networks: serde_json::Value = serde_json::from_str(include_str!("golden/networks.json")).unwrap();
    let mut compared = 0;
    for (name, reference) in networks["networks"].as_object().unwrap() {
        let source = reference["source"].as_str().unwrap();
        let [library @ ("timm" | "torchvision"), theirs] = source.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let spec = ModelSpec::called(theirs).unwrap_or_else(|_| panic!("{library} {theirs} is no alias"));
        assert_eq!(&spec.name, name, "{source}");
        let mut golden = ModelSpec::named(name);
        if let Some(settings) = reference.get("settings") {
            golden.se = serde_json::from_value(settings.clone()).unwrap();
        }
        assert_eq!(spec.describe(3, 10).unwrap(), golden.describe(3, 10).unwrap(), "{source}");
        compared += 1;
    }
    assert!(compared >= 28, "{compared}");
}

#[test]
fn a_run_stores_the_canonical_name() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} {PHOTOS} --set model.name=legacy_seresnet18 --out run"));
    let config = sandbox.read_json("run/config.json");
    assert_eq!(config["model"]["name"], "se-resnet-18-legacy");
}

#[test]
fn a_file_that_fits_two_networks_is_reported_unless_the_name_decides() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} {PHOTOS} --set model.name=legacy_seresnet18 --out run"));
    sandbox.succeed("export run --names timm --out named.safetensors");
    without_description(&sandbox, "named.safetensors", "bare.safetensors");
    let import =
        |words: &str, out: &str| sandbox.senet(&format!("import bare.safetensors {words} --out {out}"));
    let exact = import("--model legacy_seresnet18", "a.safetensors");
    assert_eq!(exact.code, 0, "{}", exact.stderr);
    assert!(!exact.stderr.contains("compute different logits"), "{}", exact.stderr);
    let ours = import("--model se-resnet-18", "b.safetensors");
    assert_eq!(ours.code, 0, "{}", ours.stderr);
    assert!(ours.stderr.contains("se-resnet-18-legacy"), "{}", ours.stderr);
}

#[test]
fn timms_names_are_refused_for_a_network_that_timm_does_not_have() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} {PHOTOS} --set model.name=se-resnet-18 --out run"));
    let output = sandbox.senet("export run --names timm --out timm.safetensors");
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("legacy_seresnet18 is se-resnet-18-legacy"), "{}", output.stderr);
    assert!(!sandbox.path("timm.safetensors").exists());
}
