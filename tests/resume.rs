//! Runs that are resumed, or should not be: nothing is lost, told twice or changed without need.

mod common;

use common::{Sandbox, TINY, last_step, refused, write_class_folders};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// All files below a folder with their bytes, and the folders.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            found.insert(name, Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn resuming_a_finished_run_changes_nothing_and_says_so() {
    let sandbox = Sandbox::new();
    let trained = sandbox.succeed(&format!("train {TINY} --set log.tensorboard=true --out run"));
    let before = contents(&sandbox.path("run"));
    for words in
        ["train --resume run".to_string(), format!("train {TINY} --out run --resume auto --tensorboard")]
    {
        let again = sandbox.succeed(&words);
        assert_eq!(again.stdout, trained.stdout);
        assert!(again.stderr.contains("it is finished, after 5 steps"), "{}", again.stderr);
        assert!(contents(&sandbox.path("run")) == before, "{words}: something is changed");
    }
    let several = sandbox.succeed("train --resume run --nproc 2 --json").json();
    assert_eq!(several["steps"], 5);
    assert!(contents(&sandbox.path("run")) == before, "several processes change something");
}

#[test]
fn another_configuration_is_told_by_its_keys_and_both_values() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    let words = format!("train {TINY} --lr 0.25 --seed 7 --out run --resume auto");
    refused(
        &sandbox,
        &words,
        2,
        &["run was begun with", "`optim.lr` was 0.1, now 0.25", "`seed` was 0, now 7"],
    );
}

#[test]
fn one_value_a_channel_is_refused_at_every_size_of_training() {
    let sandbox = Sandbox::new();
    // 67 images in batches of 22 leave one, and the last map of images of 4 × 4 is a pixel; of 8 × 8 it is 2 × 2.
    let recipe = TINY.replace("train.batch_size=16", "train.batch_size=22").replace("=1ep", "=2ep");
    let sizes = r#"--set train.sizes={"from":4,"multiple":4}"#;
    refused(
        &sandbox,
        &format!("train {recipe} {sizes} --out run"),
        2,
        &["leave a batch of 1", "1 × 1", "`train.sizes`"],
    );
    sandbox.succeed(&format!("train {recipe} --out run"));
}

#[test]
fn a_file_that_is_bad_in_one_epoch_alone_is_counted_in_the_next() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 8, 3);
    let (file, good) = ("photos/val/blue/0.jpg", sandbox.read("photos/val/blue/0.jpg"));
    sandbox.write(file, &good[..good.len() / 8]);
    let settings =
        "--set data.size=12 --set data.on_error=skip --set data.max_bad=0.5 --set train.log_every=1st";
    let words = format!("train --data photos --batch-size 4 --epochs 400 {settings} --out run");
    let evaluated = |step: u64| {
        let history = fs::read_to_string(sandbox.path("run/events.jsonl")).unwrap_or_default();
        let epochs = history.lines().filter(|line| line.contains(r#""event":"epoch""#));
        let mut epochs = epochs.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let last = epochs.next_back().map(|epoch| (epoch["step"].as_u64().unwrap(), epoch["eval"].clone()));
        last.filter(|(at, _)| *at > step)
    };
    let mut mended = None;
    let ended = sandbox.start(&words).interrupt_when(|| match mended {
        None => {
            if let Some((_, eval)) = evaluated(0) {
                assert_eq!((&eval["seen"], &eval["skipped"]), (&5.into(), &1.into()));
                sandbox.write(file, &good);
                mended = Some(last_step(&sandbox, "run") + 8);
            }
            false
        }
        Some(step) => evaluated(step).is_some_and(|(_, eval)| eval["seen"] == 6 && eval["skipped"].is_null()),
    });
    assert_eq!(ended.code, 130, "{}", ended.stderr);
}

/// Two steps an epoch and evaluations that take their time.
const EVALUATES: &str = "--set data.source=synthetic --set data.synthetic.size=16 --set data.synthetic.channels=1 \
                         --set data.synthetic.train=32 --set data.synthetic.eval=3000 --batch-size 16 --epochs 3 \
                         --set train.eval_batch_size=16 --set train.log_every=1st";

/// The history without what differs from run to run, and without starts and interruptions.
fn told(sandbox: &Sandbox, run: &str) -> Vec<String> {
    let history = fs::read_to_string(sandbox.path(run).join("events.jsonl")).unwrap();
    let lines = history.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines = lines.filter(|line| line["event"] != "started" && line["event"] != "interrupted");
    let without = |mut line: serde_json::Value| {
        for key in ["time", "seconds", "images_per_second", "waiting", "crc32c"] {
            line[key].take();
        }
        line.to_string()
    };
    lines.map(without).collect()
}

#[test]
fn an_evaluation_stops_at_once_and_comes_first_on_resume() {
    let sandbox = Sandbox::new();
    for several in ["", "--nproc 2"] {
        let [whole, parts] = ["whole", "parts"].map(|run| format!("{run}{}", several.len()));
        sandbox.succeed(&format!("train {EVALUATES} {several} --out {whole}"));
        let saved = || {
            let state = fs::read(sandbox.path(&format!("{parts}/checkpoints/last/state.json"))).ok();
            state.and_then(|state| serde_json::from_slice::<serde_json::Value>(&state).ok())
        };
        let evaluates = |step: u64| {
            saved().is_some_and(|state| {
                state["progress"]["step"] == step && state["progress"]["awaits_evaluation"] == true
            })
        };
        let begin = format!("train {EVALUATES} {several} --out {parts}");
        let resume = format!("train --resume {parts} {several}");
        let stopped = sandbox.start(&begin).signal_when("TERM", || evaluates(2));
        assert_eq!(stopped.code, 75, "{}", stopped.stderr);
        assert!(stopped.stderr.contains("saved after step 2"), "{}", stopped.stderr);
        assert!(evaluates(2) && !told(&sandbox, &parts).iter().any(|line| line.contains("\"epoch\",")));
        if several.is_empty() {
            // Without a word, in the second evaluation.
            sandbox.start(&resume).kill_when(|| evaluates(4));
        }
        sandbox.succeed(&resume);
        assert_eq!(told(&sandbox, &parts), told(&sandbox, &whole));
        for checkpoint in ["last", "best", "last.previous"] {
            for file in ["model.safetensors", "optim.safetensors"] {
                let [a, b] = [&whole, &parts]
                    .map(|run| sandbox.read(&format!("{run}/checkpoints/{checkpoint}/{file}")));
                assert!(a == b, "{checkpoint}/{file} differs");
            }
        }
    }
}

#[test]
fn kills_during_evaluations_with_a_moving_average_leave_no_trace() {
    let sandbox = Sandbox::new();
    let state = "--set train.ema={\"decay\":0.9} --set train.mix.mixup=0.2 --set optim.kind=adamw --lr 0.001";
    let begin = |run: &str| format!("train {EVALUATES} {state} --set checkpoint.every_steps=1 --out {run}");
    sandbox.succeed(&begin("whole"));
    let awaits = |step: u64| {
        let state = fs::read(sandbox.path("parts/checkpoints/last/state.json")).ok();
        let state = state.and_then(|state| serde_json::from_slice::<serde_json::Value>(&state).ok());
        state.is_some_and(|state| {
            state["progress"]["step"] == step && state["progress"]["awaits_evaluation"] == true
        })
    };
    // At the beginning of the network's evaluation, and later in it or in the average's.
    let mut command = begin("parts");
    for (step, milliseconds) in [(2, 0), (2, 150), (4, 0), (4, 250), (6, 0)] {
        let mut since = None;
        sandbox.start(&command).kill_when(|| {
            since = since.or_else(|| awaits(step).then(Instant::now));
            since.is_some_and(|since| since.elapsed() >= Duration::from_millis(milliseconds))
        });
        command = "train --resume parts".to_string();
    }
    sandbox.succeed(&command);
    assert_eq!(told(&sandbox, "parts"), told(&sandbox, "whole"));
    for checkpoint in ["last", "best", "last.previous"] {
        for file in ["model.safetensors", "optim.safetensors", "ema.safetensors"] {
            let file = format!("checkpoints/{checkpoint}/{file}");
            assert!(
                sandbox.read(&format!("whole/{file}")) == sandbox.read(&format!("parts/{file}")),
                "{file}"
            );
        }
    }
}

#[test]
fn a_run_whose_folder_goes_away_ends_at_the_next_step_and_makes_no_other() {
    let sandbox = Sandbox::new();
    let words = "train --set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                 --set data.synthetic.train=40000 --batch-size 4 --epochs 5 --set checkpoint.every_steps=10 \
                 --set train.log_every=5000st --out run";
    let job = sandbox.start(words);
    let mut at = 0;
    let moved = || {
        at = last_step(&sandbox, "run");
        let is_time = at >= 20 && sandbox.path("run/checkpoints/last").exists();
        is_time && fs::rename(sandbox.path("run"), sandbox.path("moved")).is_ok()
    };
    let ended = job.signal_when("WINCH", moved);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(!sandbox.path("run").exists(), "an unusable folder has come into being");
    let saved = sandbox.read_json("moved/checkpoints/last/state.json");
    assert!(saved["progress"]["step"].as_u64().unwrap() >= 10);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error_at_the_next_step() {
    let sandbox = Sandbox::new();
    let words = "train --set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                 --set data.synthetic.train=40000 --batch-size 4 --epochs 5 --set checkpoint.every_steps=200 \
                 --set train.log_every=1st --out run";
    let job = sandbox.start(words);
    let blocked = || {
        last_step(&sandbox, "run") >= 3
            && Command::new("rmdir").arg(sandbox.path("run/checkpoints")).status().unwrap().success()
    };
    let ended = job.signal_when("WINCH", blocked);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let step = last_step(&sandbox, "run");
    assert!((200..300).contains(&step), "told at step {step}: {}", ended.stderr);
}
