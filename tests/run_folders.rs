//! The folder of a run or a comparison: what is damaged, foreign, edited or in use is never taken silently.

mod common;

use common::{Sandbox, TINY, last_step, refused};
use serde_json::Value;
use std::fs;

const STATE: &str = "run/checkpoints/last/state.json";

#[test]
fn a_changed_byte_of_state_json_is_refused_or_an_earlier_checkpoint_is_used() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --set checkpoint.every_steps=1 --out run"));
    let intact = sandbox.read(STATE);
    for at in (0..intact.len()).step_by(intact.len() / 12) {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        sandbox.write(STATE, &damaged);
        let output = sandbox.succeed("eval run --checkpoint last");
        let stderr = &output.stderr;
        assert!(
            stderr.contains("is damaged") && stderr.contains("using an earlier one"),
            "byte {at}: {stderr}"
        );
    }
    for name in sandbox.list("run/checkpoints").iter().filter(|name| name.starts_with("last.")) {
        fs::remove_dir_all(sandbox.path("run/checkpoints").join(name)).unwrap();
    }
    refused(&sandbox, "eval run --checkpoint last", 1, &["state.json is damaged"]);
}

#[test]
fn a_checkpoint_of_an_older_version_loads_and_that_is_said() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    let mut state = sandbox.read_json(STATE);
    let fields = state.as_object_mut().unwrap();
    assert!(fields.remove("sha256").is_some() && fields.remove("run").is_some());
    sandbox.write(STATE, serde_json::to_vec_pretty(&state).unwrap());
    let output = sandbox.succeed("eval run --checkpoint last");
    assert!(output.stderr.contains("has no checksum: an older version"), "{}", output.stderr);
}

#[test]
fn the_checkpoint_of_another_run_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    sandbox.succeed(&format!("train {TINY} --seed 1 --out other"));
    fs::remove_dir_all(sandbox.path("run/checkpoints")).unwrap();
    sandbox.copy("other/checkpoints", "run/checkpoints");
    refused(&sandbox, "eval run --checkpoint last", 1, &["is the checkpoint of another run"]);
}

#[test]
fn an_edited_configuration_is_noticed_and_its_keys_are_named() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    let mut config = sandbox.read_json("run/config.json");
    config["optim"]["lr"] = Value::from(0.5);
    sandbox.write("run/config.json", config.to_string());
    let output = sandbox.succeed("eval run");
    let said = "config.json was edited since the run was created";
    assert!(output.stderr.contains(said) && output.stderr.contains("`optim.lr`"), "{}", output.stderr);
}

#[test]
fn a_run_is_trained_by_one_process_and_read_by_all() {
    let sandbox = Sandbox::new();
    let words = format!("train {TINY} --epochs 100000 --set checkpoint.every_steps=5 --out run");
    let running = sandbox.start(&words);
    let mut tried = false;
    let ended = running.interrupt_when(|| {
        let started = sandbox.path(STATE).is_file() && last_step(&sandbox, "run") > 5;
        if started && !tried {
            tried = true;
            refused(&sandbox, "train --resume run", 1, &["run is being trained by process", "since 20"]);
            sandbox.succeed("eval run --checkpoint last");
        }
        tried
    });
    assert_eq!(ended.code, 130, "{}", ended.stderr);
}

#[test]
fn a_folder_with_nothing_of_anyones_is_filled_by_resume_auto() {
    let sandbox = Sandbox::new();
    for (name, inside) in
        [("empty", ""), ("volume", "lost+found"), ("hidden", ".snapshots"), ("killed", "checkpoints")]
    {
        fs::create_dir_all(sandbox.path(name).join(inside)).unwrap();
        sandbox.succeed(&format!("train {TINY} --out {name} --resume auto"));
        assert_eq!(last_step(&sandbox, name), 5);
    }
    sandbox.write("occupied/notes.txt", "mine");
    assert_ne!(sandbox.senet(&format!("train {TINY} --out occupied --resume auto")).code, 0);
    assert_eq!(sandbox.list("occupied"), ["notes.txt"]);
}

#[test]
fn a_run_that_fails_before_its_first_step_can_be_started_again_by_the_same_command() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --set data.synthetic.classes=4 --out four"));
    sandbox.succeed("export four --out four.safetensors");
    let words = format!("train {TINY} --weights four.safetensors --out run");
    fs::create_dir(sandbox.path("volume")).unwrap();
    for (out, is_kept) in [("run", false), ("volume", true)] {
        let words = words.replace("--out run", &format!("--out {out}"));
        for _ in 0..2 {
            refused(&sandbox, &words, 1, &["`fc.weight`", "hint"]);
            assert_eq!(sandbox.path(out).exists(), is_kept);
            assert!(!is_kept || sandbox.list(out).is_empty());
        }
    }
    sandbox.succeed(&(words + " --head new"));
    assert_eq!(last_step(&sandbox, "run"), 5);
}

#[test]
fn different_axes_started_together_are_all_in_the_folder() {
    let sandbox = Sandbox::new();
    let words = |axis: &str| format!("ablate {axis} {TINY} --out lab");
    let axes = ["--ratios 4", "--ratios 8", "--ratios 32"];
    let running: Vec<_> = axes.iter().map(|axis| sandbox.start(&words(axis))).collect();
    for running in running {
        let output = running.wait();
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    let sweep = String::from_utf8(sandbox.read("lab/sweep.json")).unwrap();
    let table = String::from_utf8(sandbox.read("lab/results.md")).unwrap();
    for label in ["r = 4", "r = 8", "r = 32"] {
        assert!(sweep.contains(label), "no {label} in sweep.json");
        assert!(table.contains(&format!("| {label} ")), "no {label} in {table}");
    }
}
