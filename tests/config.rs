//! `senet config`, end to end.

mod common;

use common::{Sandbox, TINY, fields, refused};
use serde_json::{Value, json};
use std::path::Path;

/// The folder of the shipped configurations.
fn configs() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").display().to_string()
}

#[test]
fn show_prints_what_a_run_saves() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "mine.json",
        r#"{ "$schema": "x/schema.json", "optim": { "lr": 0.5 }, "data": { "dir": "nowhere" } }"#,
    );
    let shown = sandbox.succeed("config show mine.json --set train.batch_size=64 --seed 7").json();
    assert_eq!((&shown["optim"]["lr"], &shown["optim"]["lr_per"]), (&json!(0.5), &Value::Null));
    assert_eq!((&shown["train"]["batch_size"], &shown["seed"]), (&json!(64), &json!(7)));
    assert_eq!((&shown["data"]["size"], &shown["model"]["se"]["reduction"]), (&Value::Null, &json!(16)));
    assert!(shown.get("$schema").is_none());

    let changed = sandbox.succeed("config show mine.json --set train.batch_size=64 --changed");
    assert_eq!(
        changed.json(),
        json!({ "data": { "dir": "nowhere" }, "train": { "batch_size": 64 }, "optim": { "lr": 0.5 } })
    );
    sandbox.write("again.json", changed.stdout);
    assert_eq!(sandbox.succeed("config show again.json --seed 7").json(), shown);
    assert_eq!(sandbox.succeed("config show --changed").json(), json!({}));

    // Of a run, what it saved: all nulls filled in.
    sandbox.succeed(&format!("train {TINY} --out run"));
    let saved = sandbox.read_json("run/config.json");
    assert_eq!(saved["data"]["size"], 8);
    assert_eq!(sandbox.succeed("config show run").json(), saved);
    assert_eq!(sandbox.succeed("config show run --lr 0.3").json()["optim"]["lr"], 0.3);
}

#[test]
fn show_refuses_what_is_no_configuration() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.json", r#"{ "axes": { "ratios": [4, 8] } }"#);
    refused(&sandbox, "config show sweep.json", 2, &["is a sweep file", "senet ablate sweep.json --dry-run"]);
    refused(&sandbox, "config show nowhere.json", 2, &["cannot read nowhere.json"]);
    refused(&sandbox, &format!("config show {}/schema.json", configs()), 2, &["a JSON Schema"]);
    sandbox.write("odd.json", r#"{ "$schema": 3 }"#);
    refused(&sandbox, "config show odd.json", 2, &["odd.json: `$schema` is 3"]);
    sandbox.write("folder/x.json", "{}");
    refused(&sandbox, "config show folder", 1, &["folder is not the folder of a run"]);
}

#[test]
fn all_shipped_files_pass_the_check() {
    let sandbox = Sandbox::new();
    let checked = sandbox.succeed(&format!("config check {}", configs()));
    let lines: Vec<&str> = checked.stdout.lines().collect();
    assert!(lines.len() >= 25 && lines.iter().all(|line| line.starts_with("ok ")), "{}", checked.stdout);
    let line = |name: &str| *lines.iter().find(|line| line.contains(name)).unwrap();
    assert!(
        line("configs/fashion-mnist.json").ends_with("fashion-mnist.json: se-resnet-20, 2ep in steps of 128")
    );
    assert!(line("imagenet/rsb-a2.json").contains("steps of 2048; "), "what it cannot express is told");
    assert!(line("ablations/imagenet.json").contains(" rows, "));
    assert!(!checked.stdout.contains("schema.json"));
}

#[test]
fn check_tells_everything_that_is_wrong() {
    let sandbox = Sandbox::new();
    sandbox.write("all/good.json", r#"{ "about": { "differs": "the moon is missing. And more." } }"#);
    sandbox.write("all/broken.json", "{ \"name\": ");
    sandbox.write(
        "all/deep/wrong.json",
        r#"{ "model": { "se": { "reductoin": 4 } }, "optim": { "lr": -1 }, "train": { "batch_size": 0 } }"#,
    );
    sandbox
        .write("all/deep/sweep.json", r#"{ "base": { "optim": { "lrr": 1 } }, "axes": { "ratios": [4] } }"#);
    sandbox.write("all/deep/notes.txt", "no configuration");
    sandbox.write("all/.hidden/wrong.json", "{");
    let found = sandbox.senet("config check all");
    assert_eq!(found.code, 2, "{}", found.stderr);
    assert!(found.stderr.contains("error: 3 of 4 files cannot be used"), "{}", found.stderr);
    let lines: Vec<&str> = found.stdout.lines().collect();
    let starts = [
        "wrong  all/broken.json: not JSON: ",
        "wrong  all/deep/sweep.json: `base`: unknown key `optim.lrr`",
        "wrong  all/deep/wrong.json: unknown key `model.se.reductoin`",
        "wrong  all/deep/wrong.json: `optim.lr` is -1",
        "wrong  all/deep/wrong.json: `train.batch_size` is 0",
        "ok     all/good.json: se-resnet-20, 2ep in steps of 128; the moon is missing",
    ];
    assert_eq!(lines.len(), starts.len(), "{}", found.stdout);
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
    assert!(lines[2].ends_with("(did you mean `reduction`?)"), "{}", lines[2]);
    assert!(!lines[5].contains("And more"), "{}", lines[5]);

    let document = sandbox.senet("config check all/good.json all/deep/wrong.json nowhere.json --json");
    assert_eq!(document.code, 2);
    let document = document.json();
    assert_eq!(document["wrong"], 2);
    let files = document["files"].as_array().unwrap();
    assert_eq!(fields(&files[0]), ["file", "ok", "summary", "differs", "problems"]);
    assert_eq!(files[0]["differs"], "the moon is missing. And more.");
    assert_eq!(files[1]["problems"].as_array().unwrap().len(), 3);
    assert_eq!(files[1]["problems"][0]["hint"], "did you mean `reduction`?");
    assert!(files[2]["problems"][0]["message"].as_str().unwrap().contains("cannot read nowhere.json"));
    sandbox.write("empty/x.txt", "");
    refused(&sandbox, "config check empty", 2, &["empty holds no configurations"]);
}

#[test]
fn check_takes_runs_and_comparisons() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out runs/first"));
    sandbox.succeed(&format!("ablate --ratios 16 {TINY} --out runs/lab"));
    let found = sandbox.succeed("config check runs").stdout;
    let files: Vec<&str> = found.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        files,
        [
            "ok     runs/first/config.json",
            "ok     runs/lab/rows/no-SE/seed-0/config.json",
            "ok     runs/lab/rows/r-16/seed-0/config.json"
        ]
    );
}

#[test]
fn diff_names_both_values() {
    let sandbox = Sandbox::new();
    sandbox.write("a.json", r#"{ "name": "a", "optim": { "lr": 0.5 } }"#);
    sandbox.write(
        "b.json",
        r#"{ "name": "b", "schedule": { "kind": "step", "every": "30ep" }, "data": { "mean": [0.5] } }"#,
    );
    let document = sandbox.succeed("config diff a.json b.json --json").json();
    assert_eq!(fields(&document), ["a", "b", "differences"]);
    let mut expected = json!([
        { "key": "data.mean", "a": null, "b": [0.5] },
        { "key": "optim.lr", "a": 0.5, "b": 0.1 },
        { "key": "schedule.kind", "a": "cosine", "b": "step" },
        { "key": "schedule.warmup", "a": "20%", "b": "0st" },
        { "key": "schedule.end", "a": 0.0 },
        { "key": "schedule.every", "b": "30ep" },
        { "key": "schedule.factor", "b": 0.1 },
    ]);
    assert_eq!(document["differences"], expected);
    let all = sandbox.succeed("config diff a.json b.json --all --json").json();
    expected.as_array_mut().unwrap().insert(0, json!({ "key": "name", "a": "a", "b": "b" }));
    assert_eq!(all["differences"], expected);

    let table = sandbox.succeed("config diff default a.json").stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&rows[0], &rows[2]), (&vec!["key", "default", "a.json"], &vec!["optim.lr", "0.1", "0.5"]));
    assert_eq!(rows.len(), 3, "{table}");

    sandbox.succeed(&format!("train {TINY} --out run"));
    assert_eq!(sandbox.succeed("config diff run run").stdout, "no difference\n");
    assert!(sandbox.succeed("config diff default run").stdout.contains("data.synthetic.train"));
    refused(&sandbox, "config diff default nowhere.json", 2, &["nowhere.json"]);
}

#[test]
fn the_schema_can_be_printed_and_written() {
    let sandbox = Sandbox::new();
    let printed = sandbox.succeed("config schema");
    assert_eq!(printed.json()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    sandbox.succeed("config schema --out schema.json");
    assert_eq!(sandbox.read("schema.json"), printed.stdout.as_bytes());
    sandbox.succeed("config schema --out schema.json");
    sandbox.write("first.json", r#"{"$schema": "schema.json"}"#);
    refused(&sandbox, "config schema --out first.json", 1, &["first.json exists already", "`--force`"]);
    sandbox.succeed("config schema --out first.json --force");
}

#[test]
fn plot_draws_the_learning_rate() {
    let sandbox = Sandbox::new();
    let line = "--set schedule={\"kind\":\"linear\",\"warmup\":\"1ep\"} --epochs 5 --lr 0.4";
    let drawn = sandbox.succeed(&format!("config plot {line} --steps-per-epoch 100")).stdout;
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines[0], "5ep: 500 steps, 100 an epoch (--steps-per-epoch); peak learning rate 0.4");
    assert_eq!((lines[1], lines[2]), ("", "learning rate"));
    assert!(lines[3].starts_with("0.4 ┤"), "{drawn}");
    assert!(drawn.trim_end().ends_with("5  epoch"), "{drawn}");
    assert!(drawn.contains('⠤') || drawn.contains('⠉') || drawn.contains('⣀'), "{drawn}");

    // The formula, at every step.
    let values = sandbox.succeed(&format!("config plot {line} --steps-per-epoch 10 --csv --points 50"));
    let mut rows = values.stdout.lines();
    assert_eq!(rows.next(), Some("step,epoch,learning_rate"));
    for (step, row) in rows.by_ref().enumerate() {
        let cells: Vec<f64> = row.split(',').map(|cell| cell.parse().unwrap()).collect();
        let t = step as f64;
        let factor = if step < 10 { (t + 1.0) / 11.0 } else { 1.0 - (t - 10.0) / 40.0 };
        assert_eq!((cells[0], cells[1]), (t, t / 10.0));
        assert!((cells[2] - 0.4 * factor).abs() < 1e-12, "{row}");
    }
    assert_eq!(values.stdout.lines().count(), 51);

    // Steps follow from samples, from the data, or are assumed, and it is said which.
    let document = |words: &str| sandbox.succeed(&format!("config plot {words} --json --points 2")).json();
    let counted = document("--samples 1000 --batch-size 100");
    assert_eq!(fields(&counted), ["peak_lr", "total_steps", "steps_per_epoch", "steps_from", "points"]);
    assert_eq!((&counted["steps_per_epoch"], &counted["steps_from"]), (&json!(10), &json!("1,000 samples")));
    assert_eq!(fields(&counted["points"][1]), ["step", "epoch", "lr"]);
    let tiny = document(TINY);
    assert_eq!((&tiny["steps_per_epoch"], &tiny["steps_from"]), (&json!(5), &json!("67 samples")));
    let assumed = document("");
    assert_eq!(assumed["steps_per_epoch"], 1000);
    assert!(assumed["steps_from"].as_str().unwrap().starts_with("assumed"), "{assumed}");
    let plateau = sandbox.succeed("config plot --set schedule=plateau").stdout;
    assert!(
        plateau.contains("1,000 an epoch (assumed") && plateau.contains("times 0.1 at each plateau"),
        "{plateau}"
    );
    refused(
        &sandbox,
        "config plot --set schedule={\"kind\":\"cosine\",\"end\":2}",
        2,
        &["`schedule.end` is 2"],
    );
}

#[test]
fn a_learning_rate_is_scaled_to_the_batch_only_if_asked_for() {
    let sandbox = Sandbox::new();
    // Steps of 16 · 2 samples: four times as many as the rate is for, and the same run as with the rate itself.
    let recipe = format!("{TINY} --set train.accumulate=2");
    let scaled = "--lr 0.05 --set optim.lr_per=8";
    let said = sandbox.succeed(&format!("train {recipe} {scaled} --out scaled")).stderr;
    assert!(said.contains("learning rate 0.2 = 0.05 · 32 / 8"), "{said}");
    let plain = sandbox.succeed(&format!("train {recipe} --lr 0.2 --out plain")).stderr;
    assert!(!plain.contains("learning rate"), "{plain}");
    for file in ["model.safetensors", "optim.safetensors"] {
        let [one, other] =
            ["scaled", "plain"].map(|run| sandbox.read(&format!("{run}/checkpoints/last/{file}")));
        assert!(one == other, "{file} differs");
    }
    // The file says what was written, so that it means the same once more.
    let saved = sandbox.read_json("scaled/config.json");
    assert_eq!((&saved["optim"]["lr"], &saved["optim"]["lr_per"]), (&json!(0.05), &json!(8)));
    let shown = sandbox.succeed("config show scaled");
    assert!(shown.stderr.contains("learning rate 0.2 = 0.05 · 32 / 8"), "{}", shown.stderr);
    assert_eq!(shown.json(), saved);
    let compared = sandbox.succeed(&format!("ablate --ratios 16 --dry-run {recipe} {scaled}")).stdout;
    assert!(compared.contains("peak learning rate 0.2;"), "{compared}");
    refused(&sandbox, "config show --set optim.lr_per=0", 2, &["`optim.lr_per` is 0"]);
}
