//! The commands as users type them, end to end: what they print, what they write, how they end.

mod common;

use common::{Sandbox, TINY, default_data, fields, last_step, only_run, write_class_folders, write_image};
use image::ImageFormat;
use serde_json::Value;
use std::process::Stdio;

#[test]
fn train_then_eval_as_they_stand() {
    let sandbox = Sandbox::new();
    default_data(&sandbox);
    let trained = sandbox.succeed("train");
    let run = only_run(&sandbox);
    assert!(run.ends_with("-fashion-mnist"), "{run}");

    // The result alone goes to stdout, and eval repeats it.
    let lines: Vec<&str> = trained.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", trained.stdout);
    for (line, name) in lines.iter().zip(["top-1", "top-5", "loss"]) {
        assert!(line.starts_with(name), "{line}");
    }
    assert!(lines[0].ends_with("of 37"), "{}", lines[0]);
    for part in [run.as_str(), "se-resnet-20 on cpu", "epoch 1/2", "epoch 2/2", "130 training images"] {
        assert!(trained.stderr.contains(part), "no {part:?} in {}", trained.stderr);
    }
    let evaluated = sandbox.succeed("eval --top5");
    assert_eq!(evaluated.stdout, trained.stdout);
    assert!(evaluated.stderr.contains(&run), "{}", evaluated.stderr);
    assert!(!sandbox.succeed("eval").stdout.contains("top-5"));

    // What a run leaves behind.
    let written = [
        ".lock",
        "checkpoints",
        "config.json",
        "events.jsonl",
        "provenance.jsonl",
        "result.json",
        "run.json",
    ];
    assert_eq!(sandbox.list(&run), written);
    assert_eq!(
        sandbox.list(&format!("{run}/checkpoints/best")),
        ["model.safetensors", "optim.safetensors", "state.json"]
    );
    let config = sandbox.read_json(&format!("{run}/config.json"));
    assert_eq!(config["data"]["size"], 12, "the saved configuration has every null filled in: {config}");
    let provenance = sandbox.read_json(&format!("{run}/provenance.jsonl"));
    for field in ["senet", "revision", "libtorch", "device", "command", "started"] {
        assert!(!provenance[field].is_null(), "no {field} in {provenance}");
    }
    let history = String::from_utf8(sandbox.read(&format!("{run}/events.jsonl"))).unwrap();
    let events: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "steps", "epoch", "steps", "epoch", "finished"]);
}

#[test]
fn json_documents_have_their_stable_names() {
    let sandbox = Sandbox::new();
    let accuracy = ["correct", "accuracy"];

    let trained = sandbox.succeed(&format!("train {TINY} --out run --json")).json();
    assert_eq!(fields(&trained["eval"]), ["seen", "top1", "top5", "loss"]);
    let evaluated = sandbox.succeed("eval run --json").json();
    let context = ["run", "model", "checkpoint", "step", "preprocessing"];
    let used = ["size", "resize", "mean", "std", "interpolation", "source"];
    assert_eq!(fields(&evaluated["preprocessing"]), used);
    assert_eq!(fields(&evaluated), [context.as_slice(), &["seen", "top1", "top5", "loss"]].concat());
    for top in ["top1", "top5"] {
        let count = &evaluated[top];
        assert_eq!(fields(count), accuracy);
        let (correct, share) = (count["correct"].as_u64().unwrap(), count["accuracy"].as_f64().unwrap());
        assert_eq!(share, correct as f64 / 23.0, "{top} is a fraction of 1");
    }

    let summary = sandbox.succeed("summary se-resnet-50 --json").json();
    let names = ["name", "input", "classes", "params", "macs", "stages", "inexact_se_widths"];
    assert_eq!(fields(&summary), names);
    assert_eq!(fields(&summary["params"]), ["trainable", "bn_statistics"]);
    assert_eq!(fields(&summary["stages"][0]), ["name", "output", "params", "macs"]);
    assert_eq!(summary["input"], serde_json::json!([3, 224, 224]));
    assert_eq!(summary["params"]["trainable"], 28_088_024);

    let measured =
        sandbox.succeed("bench train --model se-resnet-20 --size 8 --batch-size 2 --steps 3 --json");
    let names = ["what", "model", "batch_size", "size", "device", "threads", "steps", "images_per_second"];
    let measured = measured.json();
    assert_eq!(fields(&measured), [names.as_slice(), &["split", "outside"]].concat());
    assert_eq!(fields(&measured["split"]), ["data", "forward", "backward", "optimizer", "rest"]);
    assert_eq!(fields(&measured["images_per_second"]), ["median", "min", "max"]);
    assert_eq!((&measured["what"], &measured["batch_size"]), (&"train".into(), &2.into()));
    let speed = |name: &str| measured["images_per_second"][name].as_f64().unwrap();
    assert!(0.0 < speed("min") && speed("min") <= speed("median") && speed("median") <= speed("max"));

    let compared = sandbox.succeed(&format!("ablate --ratios 16 --dry-run --json {TINY}")).json();
    let names =
        ["title", "model", "setting", "seeds", "rows", "comparisons", "left_out", "speeds_are_in_turns"];
    assert_eq!(fields(&compared), names);
    assert_eq!(
        (&compared["rows"][0]["label"], &compared["rows"][1]["label"]),
        (&"r = 16".into(), &"no SE".into())
    );
}

#[test]
fn a_bench_tells_operators_apart() {
    let sandbox = Sandbox::new();
    let bench = |words: &str| {
        sandbox.succeed(&format!("bench {words} --model se-resnet-20 --size 16 --batch-size 4 --steps 2"))
    };
    for what in ["train", "eval"] {
        let profiled = bench(&format!("{what} --profile --json")).json();
        let operators = profiled["operators"].as_array().unwrap();
        assert_eq!(fields(&operators[0]), ["name", "calls", "milliseconds", "share"]);
        let shares: f64 = operators.iter().map(|operator| operator["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-6, "{shares}");
        let calls = |name: &str| {
            let found = operators.iter().find(|operator| operator["name"] == name);
            found.map_or(0.0, |operator| operator["calls"].as_f64().unwrap())
        };
        // Nine blocks; evaluation folds its 19 batch norms away, training goes through each of them and back.
        let norms = if what == "train" { 19.0 } else { 0.0 };
        assert_eq!(calls("senet::ExciteAddRelu"), 9.0, "{what}");
        assert_eq!(calls("senet::BatchNormRelu"), norms, "{what}");
        assert_eq!(calls("senet::BatchNormRelu backward"), norms, "{what}");

        let compared = bench(&format!("{what} --compare plain --json")).json();
        assert_eq!(fields(&compared), ["senet", "plain", "ratio"]);
        let median = |side: &str| compared[side]["images_per_second"]["median"].as_f64().unwrap();
        assert_eq!(compared["ratio"].as_f64().unwrap(), median("senet") / median("plain"));
    }
    assert!(bench("eval --profile").stdout.contains("senet::ExciteAddRelu"));
    assert!(bench("train --compare plain").stdout.contains("times as fast"));
}

#[test]
fn training_learns() {
    let sandbox = Sandbox::new();
    let made_up = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.train=640 \
                   --set data.synthetic.eval=201 --set data.synthetic.channels=1 --epochs 4 --batch-size 32";
    let result = sandbox.succeed(&format!("train {made_up} --json")).json();
    let top1 = result["eval"]["top1"]["accuracy"].as_f64().unwrap();
    assert!(top1 > 0.6, "top-1 of {top1} in ten classes");
    assert!(result["best_top1"].as_f64().unwrap() >= top1);
    let best = sandbox.succeed("eval --checkpoint best --json").json();
    assert_eq!(best["top1"]["accuracy"], result["best_top1"]);
}

#[test]
fn eval_counts_every_image_once() {
    let sandbox = Sandbox::new();
    let trained = sandbox.succeed(&format!("train {TINY} --out run --json")).json();
    let exact = sandbox.succeed("eval run --json").json();
    for field in ["seen", "top1", "top5", "loss"] {
        assert_eq!(exact[field], trained["eval"][field], "the checkpoint is what training evaluated");
    }
    assert_eq!(exact["seen"], 23);
    for batch_size in [1, 7, 1000] {
        let other = sandbox.succeed(&format!("eval run --json --batch-size {batch_size}")).json();
        assert_eq!(
            (&other["seen"], &other["top1"], &other["top5"]),
            (&exact["seen"], &exact["top1"], &exact["top5"])
        );
        let difference = other["loss"].as_f64().unwrap() - exact["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "batches of {batch_size}: the loss differs by {difference}");
    }
}

#[test]
fn resume_gives_the_same_bytes() {
    let sandbox = Sandbox::new();
    // 120 steps an epoch: enough for a signal to arrive in the midst of one.
    let recipe = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                  --set data.synthetic.train=479 --set data.synthetic.eval=23 --batch-size 4 --epochs 2 \
                  --seed 5 --set data.crop=pad --set train.log_every=1st";
    let whole = sandbox.succeed(&format!("train {recipe} --out whole"));

    let stop_after = |step: u64, command: &str| {
        let output = sandbox.start(command).interrupt_when(|| last_step(&sandbox, "parts") >= step);
        assert_eq!((output.code, output.stdout.as_str()), (130, ""), "{}", output.stderr);
        assert!(output.stderr.contains("hint: `senet train --resume parts` continues"), "{}", output.stderr);
        let saved = sandbox.read_json("parts/checkpoints/last/state.json")["progress"]["step"].as_u64();
        let saved = saved.unwrap();
        assert!(
            saved >= step && !saved.is_multiple_of(120),
            "stopped after step {saved}, not within an epoch"
        );
        assert!(output.stderr.contains(&format!("saved after step {saved}")), "{}", output.stderr);
    };
    // Once before there is any checkpoint, and once after.
    stop_after(3, &format!("train {recipe} --out parts"));
    stop_after(123, "train --resume parts");
    // Without a name it is the newest below runs/; there is none.
    assert_eq!(sandbox.senet("train --resume").code, 1);
    let resumed = sandbox.succeed("train --resume parts");

    assert!(resumed.stderr.contains("going on after step"), "{}", resumed.stderr);
    assert_eq!(resumed.stdout, whole.stdout);
    for checkpoint in ["last", "best"] {
        for file in ["model.safetensors", "optim.safetensors"] {
            let file = format!("checkpoints/{checkpoint}/{file}");
            let same = sandbox.read(&format!("whole/{file}")) == sandbox.read(&format!("parts/{file}"));
            assert!(same, "{file} differs");
        }
    }
}

#[test]
fn a_finished_run_resumes_to_its_result() {
    let sandbox = Sandbox::new();
    let trained = sandbox.succeed(&format!("train {TINY}"));
    let weights = format!("{}/checkpoints/last/model.safetensors", only_run(&sandbox));
    let before = sandbox.read(&weights);
    assert_eq!(sandbox.succeed("train --resume").stdout, trained.stdout);
    assert_eq!(sandbox.read(&weights), before);
}

#[test]
fn class_folders_train() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green", "red"], 8, 3);
    // Formats beside JPEG and PNG, names that lie, folders within; what is not named like an image is none.
    write_image(&sandbox, "photos/val/red/9.webp", ImageFormat::Jpeg, 2);
    write_image(&sandbox, "photos/val/red/10.jpg", ImageFormat::Bmp, 2);
    write_image(&sandbox, "photos/val/red/more/11.WebP", ImageFormat::WebP, 2);
    write_image(&sandbox, "photos/val/red/12.txt", ImageFormat::WebP, 2);
    sandbox.write("photos/val/red/.hidden", "no image, and not looked at");

    let command = "train --data photos --set data.size=12 --batch-size 6 --epochs 2 --out run --json";
    let trained = sandbox.succeed(command);
    assert_eq!(trained.json()["eval"]["seen"], 12);
    assert!(trained.stderr.contains("24 training images"), "{}", trained.stderr);
    let state = sandbox.read_json("run/checkpoints/last/state.json");
    assert_eq!(state["classes"].as_array().unwrap(), &["blue", "green", "red"]);
    assert_eq!(state["channels"], 3);

    // The halves may lie elsewhere at evaluation, and `test/` is another name of `val/`.
    sandbox.copy("photos/val", "elsewhere/test");
    let elsewhere = sandbox.succeed("eval run --data elsewhere --json").json();
    assert_eq!(elsewhere["top1"], trained.json()["eval"]["top1"]);
    // As many classes, but others: their labels would mean something else.
    write_class_folders(&sandbox, "strange", &["blue", "grey", "red"], 8, 3);
    let refused = sandbox.senet("eval run --data strange");
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("class `grey`, which is none of the 3 that the network was trained for"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_configuration_is_overridden_by_settings_and_these_by_flags() {
    let sandbox = Sandbox::new();
    let file = r#"{"about": "small", "seed": 1, "optim": {"lr": 0.5, "momentum": 0.8}, "threads": 1}"#;
    sandbox.write("small.json", file);
    sandbox.succeed(&format!("train small.json {TINY} --set seed=2 --set optim.lr=0.25 --seed 3 --out run"));
    let config = sandbox.read_json("run/config.json");
    assert_eq!((&config["seed"], &config["optim"]["lr"]), (&3.into(), &0.25.into()));
    assert_eq!((&config["optim"]["momentum"], &config["about"]), (&0.8.into(), &"small".into()));
}

#[test]
fn a_run_of_a_gpu_is_evaluated_without_one() {
    let sandbox = Sandbox::new();
    let trained = sandbox.succeed(&format!("train {TINY} --out run"));
    let mut config = sandbox.read_json("run/config.json");
    config["device"] = "cuda".into();
    sandbox.write("run/config.json", config.to_string());
    assert_eq!(sandbox.senet("eval run").code, 2);
    assert_eq!(sandbox.succeed("eval run --top5 --device cpu").stdout, trained.stdout);
}

#[test]
fn quiet_leaves_the_result_alone() {
    let sandbox = Sandbox::new();
    for command in [format!("train {TINY} --out run --quiet"), "eval run -q".to_string()] {
        let output = sandbox.succeed(&command);
        assert!(output.stdout.starts_with("top-1"), "{}", output.stdout);
        assert_eq!(output.stderr, "", "{command}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("summary --list");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
}

#[test]
fn every_command_explains_itself_with_examples() {
    let sandbox = Sandbox::new();
    let all = sandbox.succeed("--help").stdout;
    for line in ["senet train ", "senet eval --top5", "senet ablate --ratios 4,8,16,32"] {
        assert!(all.contains(line), "no {line:?} in {all}");
    }
    for command in ["train", "eval", "ablate", "data", "summary", "bench", "doctor", "completions"] {
        assert!(all.contains(&format!("\n  {command} ")), "no {command} in {all}");
        let help = sandbox.succeed(&format!("{command} --help"));
        assert!(help.stdout.contains("Example"), "{}", help.stdout);
        assert!(help.stdout.contains(&format!("\n  senet {command}")), "{}", help.stdout);
        assert_eq!(help.stderr, "");
    }
    let version = sandbox.succeed("--version").stdout;
    assert_eq!(version.trim(), format!("senet {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_all_commands() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.succeed(&format!("completions {shell}")).stdout;
        for word in ["train", "eval", "ablate", "summary", "bench", "doctor", "ratios"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn doctor_tells_where_it_runs() {
    let sandbox = Sandbox::new();
    let missing = sandbox.succeed("doctor").stdout;
    for subject in ["libtorch", "GPU", "threads", "memory", "default data"] {
        assert!(missing.contains(subject), "no {subject} in {missing}");
    }
    assert!(missing.contains("`make data`"), "{missing}");
    default_data(&sandbox);
    let there = sandbox.succeed("doctor").stdout;
    assert!(there.contains("130 + 37 images"), "{there}");
}

#[test]
fn exit_codes_tell_whose_mistake_it_is() {
    // 130, of an interrupted run, is with the test of resuming.
    let sandbox = Sandbox::new();
    for (command, code) in [
        ("summary resnet-20", 0),
        ("summary --list", 0),
        ("train", 1),
        ("eval", 1),
        ("ablate --ratios 4", 1),
        ("summary se-resnet-51", 2),
        ("train --set seed=x", 2),
        ("trian", 2),
        ("", 2),
    ] {
        let output = sandbox.senet(command);
        assert_eq!(output.code, code, "senet {command}\n{}", output.stderr);
        assert_eq!(output.stdout.is_empty(), code != 0, "senet {command}\n{}", output.stdout);
    }
}
