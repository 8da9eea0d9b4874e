//! Class folders that are named by numbers: which order is used is said, and the other one can be had.

mod common;

use common::{Sandbox, refused, write_class_folders};
use serde_json::Value;

const TRAIN: &str = "--model se-resnet-20 --set data.size=8 --batch-size 11 --epochs 1 --lr 0.05";

/// A file of a run's weights that says nothing of its classes, as others write them.
fn bare_weights(sandbox: &Sandbox, run: &str, file: &str) {
    let bytes = sandbox.read(&format!("{run}/checkpoints/last/model.safetensors"));
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header.as_object_mut().unwrap().remove("__metadata__");
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let bare = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[8 + length..]].concat();
    sandbox.write(file, bare);
}

#[test]
fn folders_named_by_numbers_are_read_as_the_user_says_and_the_reading_is_said() {
    let sandbox = Sandbox::new();
    let numbers: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    write_class_folders(&sandbox, "data", &numbers, 4, 2);
    let by_text = "output 2 is folder 10 (`data.class_order=numeric`: folder 2";
    let by_number = "output 2 is folder 2 (`data.class_order=alphabetical`: folder 10";

    let mut evaluated = Vec::new();
    for (order, said, other_order) in
        [("alphabetical", by_text, "numeric"), ("numeric", by_number, "alphabetical")]
    {
        let set = if order == "alphabetical" { "" } else { "--set data.class_order=numeric" };
        let trained = sandbox.succeed(&format!("train --data data {TRAIN} {set} --out {order}"));
        assert!(trained.stderr.contains(said), "{order}: {}", trained.stderr);
        // A run's classes have names: there is one reading.
        let of_run = sandbox.succeed(&format!("eval {order} --json"));
        assert!(!of_run.stderr.contains("named by numbers"), "{}", of_run.stderr);
        sandbox.succeed(&format!("export {order} --out {order}.safetensors"));
        let of_export =
            sandbox.succeed(&format!("eval --weights {order}.safetensors --data data --json")).json();
        assert_eq!(
            (&of_export["loss"], &of_export["top1"]),
            (&of_run.json()["loss"], &of_run.json()["top1"])
        );

        // A file that names no classes is scored rightly in the order that it was trained in.
        let bare = format!("{order}-bare.safetensors");
        bare_weights(&sandbox, order, &bare);
        let eval = |class_order: &str| {
            let words = format!(
                "eval --weights {bare} --model se-resnet-20 --data data --size 8 --json {class_order}"
            );
            sandbox.succeed(&words)
        };
        let right = eval(&format!("--class-order {order}")).json();
        assert_eq!(
            (&right["loss"], &right["top1"]),
            (&of_run.json()["loss"], &of_run.json()["top1"]),
            "{order}"
        );
        assert_eq!(right["class_order"], order);
        let wrong = eval(&format!("--class-order {other_order}")).json();
        assert_ne!(wrong["loss"], right["loss"], "{order}: both readings are the same");
        let silent = eval("");
        assert!(
            silent.stderr.contains("folder 10 is output 10 (`--class-order alphabetical`: output 2"),
            "{}",
            silent.stderr
        );
        assert_eq!(silent.json()["class_order"], "numeric");
        evaluated.push(of_run.json()["loss"].clone());
    }
    assert_ne!(evaluated[0], evaluated[1]);
    for command in ["data index data", "data verify data"] {
        let said = sandbox.succeed(command);
        assert!(format!("{}{}", said.stdout, said.stderr).contains(by_text), "{command}: {}", said.stdout);
    }
    // Names decide where there are names, and numbers are needed where they are to be sorted.
    refused(&sandbox, "eval numeric --class-order numeric", 2, &["classes have names", "hint"]);
    write_class_folders(&sandbox, "words", &["ant", "bee"], 2, 1);
    let parts = ["`data.class_order` is `numeric`, but the class folder `ant` is no number", "hint"];
    refused(
        &sandbox,
        &format!("train --data words {TRAIN} --set data.class_order=numeric --out no"),
        2,
        &parts,
    );
}

#[test]
fn where_both_readings_are_one_nothing_is_said() {
    let sandbox = Sandbox::new();
    let padded: Vec<String> = (0..11).map(|number| format!("{number:02}")).collect();
    for (dir, names) in
        [("padded", padded.iter().map(String::as_str).collect::<Vec<_>>()), ("few", vec!["0", "1", "2"])]
    {
        write_class_folders(&sandbox, dir, &names, 2, 1);
        let trained = sandbox.succeed(&format!("train --data {dir} {TRAIN} --out run-{dir}"));
        bare_weights(&sandbox, &format!("run-{dir}"), "bare.safetensors");
        let words =
            format!("eval --weights bare.safetensors --model se-resnet-20 --data {dir} --size 8 --json");
        let evaluated = sandbox.succeed(&words);
        let indexed = sandbox.succeed(&format!("data index {dir}"));
        for said in [&trained.stderr, &evaluated.stderr, &indexed.stdout] {
            assert!(!said.contains("named by numbers"), "{said}");
        }
        assert!(evaluated.json().get("class_order").is_none());
    }
}
