//! What runs write for others to show: files for TensorBoard.

mod common;

use common::{Sandbox, TINY, last_step};

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
