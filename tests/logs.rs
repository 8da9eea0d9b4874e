//! What runs write about themselves, and what is read from it: files for TensorBoard, and `senet report RUN…`.

mod common;

use common::{Sandbox, TINY, fields, last_step, refused};
use std::fs;

/// The records in a file of events. (That they are TensorBoard's, byte for byte, is tested where they are made.)
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let end = 4 + u64::from_le_bytes(*length) as usize;
        found.push(after[4..end].to_vec());
        rest = &after[end + 4..];
    }
    found
}

fn has(record: &[u8], part: &str) -> bool {
    record.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn tensorboard_gets_a_file_for_each_start() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out plain"));
    assert!(!sandbox.path("plain/tensorboard").exists());

    let long =
        format!("train {TINY} --epochs 40 --set train.log_every=1st --set train.ema.decay=0.9 --out run");
    let command = format!("{long} --tensorboard --resume auto");
    sandbox.start(&command).kill_when(|| last_step(&sandbox, "run") >= 12);
    assert_eq!(sandbox.read_json("run/config.json")["log"]["tensorboard"], true);
    // What is logged is no part of what a run is.
    sandbox.start(&format!("{long} --resume auto")).kill_when(|| last_step(&sandbox, "run") >= 40);
    assert_eq!(sandbox.list("run/tensorboard").len(), 1);
    sandbox.succeed("train --resume run");
    let files = sandbox.list("run/tensorboard");
    assert_eq!(files.len(), 2);

    let last = records(&sandbox.read(&format!("run/tensorboard/{}", files[1])));
    assert!(has(&last[0], "brain.Event:2"));
    let lines = String::from_utf8(sandbox.read("run/events.jsonl")).unwrap();
    let since = lines.rfind(r#""event":"started""#).unwrap();
    let told = lines[since..].matches(r#""event":"steps""#).count();
    assert_eq!(last.iter().filter(|record| has(record, "loss/train")).count(), told);
    for tag in ["top1/train", "loss/eval", "top1/eval", "top5/eval", "top1/ema"] {
        let epochs = last.iter().filter(|record| has(record, tag)).count();
        assert_eq!(epochs, lines[since..].matches(r#""event":"epoch""#).count(), "{tag}");
    }
}

#[test]
fn runs_are_reported_from_their_records() {
    let sandbox = Sandbox::new();
    for seed in [3, 4] {
        sandbox.succeed(&format!("train {TINY} --seed {seed} --out runs/seed-{seed}"));
    }
    sandbox.succeed(&format!("train {TINY} --lr 0.05 --set name=other --out runs/other"));
    sandbox.copy("runs/seed-3", "runs/open");
    fs::remove_file(sandbox.path("runs/open/result.json")).unwrap();
    let found = sandbox.succeed("report runs/seed-3 runs/other runs/seed-4 runs/open --format json").json();
    let groups = found["groups"].as_array().unwrap();
    // Of the same seed twice there is no mean.
    assert_eq!(
        groups.iter().map(|group| group["runs"].as_array().unwrap().len()).collect::<Vec<_>>(),
        [2, 1, 1]
    );
    let (result, run) = (sandbox.read_json("runs/seed-4/result.json"), &groups[0]["runs"][1]);
    assert_eq!(run["top1"], result["eval"]["top1"]["accuracy"]);
    assert_eq!(run["best_top1"], result["best_top1"]);
    assert_eq!(run["seed"], 4);
    assert_eq!(run["step"], 5);
    assert_eq!(run["is_done"], true);
    assert!(run["seconds"].as_f64().unwrap() >= run["train_seconds"].as_f64().unwrap());
    assert_eq!(run["starts"][0]["command"][1], "train");
    let means = &groups[0]["means"];
    assert_eq!(fields(means), ["runs", "top1", "top5", "best_top1", "seconds", "images_per_second"]);
    let [one, other] = [0, 1].map(|at| groups[0]["runs"][at]["top1"].as_f64().unwrap());
    assert!((means["top1"]["mean"].as_f64().unwrap() - (one + other) / 2.0).abs() < 1e-12);
    assert!(groups[1]["means"].is_null() && groups[2]["runs"][0]["top1"].is_null());

    let text = sandbox.succeed("report runs/seed-3 runs/seed-4 runs/open").stdout;
    for part in
        ["mean of 2", "step 5 of 5", "network: se-resnet-20", "`senet train --set data.source=synthetic"]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(sandbox.succeed("report runs/seed-3 runs/other --format csv").stdout.lines().count(), 3);

    let document = "mine\n<!-- senet report runs other -->\nold\n<!-- end of report -->\nmine too\n";
    sandbox.write("doc.md", document);
    sandbox.succeed("report runs/seed-3 runs/other runs/seed-4 --into doc.md");
    let made = String::from_utf8(sandbox.read("doc.md")).unwrap();
    assert!(made.starts_with("mine\n") && made.ends_with("\nmine too\n"), "{made}");
    assert!(made.contains("* name: other") && !made.contains("mean of"), "{made}");
    refused(
        &sandbox,
        "report runs/seed-3 --into doc.md",
        1,
        &["no marker", "KEY is runs, runs fashion-mnist"],
    );
    refused(&sandbox, "report runs/seed-3 runs/seed-3", 2, &["runs/seed-3 is named twice"]);
    refused(&sandbox, "report runs/seed-3 --format html", 2, &["for comparisons"]);
    refused(&sandbox, "report runs/seed-3 runs", 1, &["runs is not the folder of a run"]);
    sandbox.write("runs/seed-4/result.json", "{");
    refused(&sandbox, "report runs/seed-4", 1, &["result.json is damaged"]);
}
