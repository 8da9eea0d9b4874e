//! The ablation lab: rows, tables, and what becomes of a comparison that is interrupted, shared or partly failing.

mod common;

use common::{Sandbox, TINY, default_data, fields, last_step, only_run, refused};
use serde_json::{Value, json};
use std::time::Instant;

fn rows(document: &Value) -> &[Value] {
    document["rows"].as_array().unwrap()
}

/// Of each row the figures that do not depend on the machine's mood.
fn outcome(sandbox: &Sandbox, lab: &str) -> Vec<Value> {
    let results = sandbox.read_json(&format!("{lab}/results.json"));
    let evaluation = |run: &Value| json!([run["seed"], run["state"], run["eval"]]);
    let of_row = |row: &Value| {
        let runs: Vec<_> = row["runs"].as_array().unwrap().iter().map(evaluation).collect();
        json!([row["key"], row["top1_error"], row["top5_error"], runs])
    };
    rows(&results).iter().map(of_row).collect()
}

#[test]
fn table_10_has_the_papers_counts() {
    let sandbox = Sandbox::new();
    let plan = sandbox.succeed("ablate --table 10 --model se-resnet-50 --dry-run --json").json();
    let params: Vec<_> = rows(&plan).iter().map(|row| row["params"].as_i64().unwrap()).collect();
    assert_eq!(params, [45_676_584, 35_616_808, 30_586_920, 28_071_976, 26_814_504, 25_557_032]);
    let comparison = &plan["comparisons"][0];
    let papers: Vec<_> =
        comparison["entries"].as_array().unwrap().iter().map(|entry| &entry["paper"]).collect();
    let millions: Vec<_> = papers.iter().map(|paper| paper["params_millions"].as_f64().unwrap()).collect();
    assert_eq!(millions, [45.7, 35.7, 30.7, 28.1, 26.9, 25.6]);
    assert!(comparison["note"].as_str().unwrap().contains("53,120"), "{comparison}");
    assert_eq!(comparison["control"], "no-SE");
    assert!(rows(&plan).iter().all(|row| row["estimated_seconds"].as_f64().unwrap() > 0.0));
    assert_eq!(sandbox.list("."), [""; 0], "a dry run writes nothing");
}

#[test]
fn the_other_tables_count_as_the_paper_does() {
    let sandbox = Sandbox::new();
    let plan =
        sandbox.succeed("ablate --table 11,12,13,14,15,16 --model se-resnet-50 --dry-run --json").json();
    let of = |key: &str, field: &str| -> i64 {
        let row = rows(&plan).iter().find(|row| row["key"] == key);
        row.unwrap_or_else(|| panic!("no row {key} in {plan}"))[field].as_i64().unwrap()
    };
    // NoSqueeze: 4.27 G where ResNet-50 has 3.86.
    assert_eq!(of("squeeze-none", "macs") - of("no-SE", "macs"), 411_041_792);
    assert_eq!(of("squeeze-none", "params"), of("r-16", "params"));
    let stages = ["stages-2", "stages-3", "stages-4"].map(|key| of(key, "params"));
    assert_eq!(stages, [25_581_608, 25_688_104, 26_343_464]);
    let weights = |key: &str| of(key, "params") - of("no-SE", "params");
    let placed =
        ["placement-pre", "placement-post", "placement-identity", "placement-inside", "r-16"].map(weights);
    assert_eq!(placed, [1_991_168, 2_514_944, 2_514_944, 157_184, 2_514_944]);
    for same in ["squeeze-max", "gate-relu", "gate-tanh"] {
        assert_eq!(
            (of(same, "params"), of(same, "macs")),
            (of("r-16", "params"), of("r-16", "macs")),
            "{same}"
        );
    }
    let keys: Vec<_> = plan["comparisons"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect();
    assert_eq!(keys, ["squeeze", "gate", "stages", "placement", "inside", "no-squeeze"]);
}

#[test]
fn the_wrong_structures_cost_what_their_wiring_says() {
    let sandbox = Sandbox::new();
    let options = "--model se-resnet-50 --set model.se.bias=false --dry-run --json";
    let plan = sandbox.succeed(&format!("ablate --variants all {options}")).json();
    let of = |key: &str| {
        let row = rows(&plan).iter().find(|row| row["key"] == key).unwrap();
        (row["params"].as_i64().unwrap(), row["macs"].as_i64().unwrap())
    };
    assert_eq!((of("gap-scale"), of("gap-sigmoid")), (of("no-SE"), of("no-SE")));
    assert_eq!(of("conv").0, of("r-16").0);
    // The classic convolution pays for every position: NoSqueeze's multiply-adds.
    assert_eq!(of("conv").1 - of("no-SE").1, 411_041_792);
    // fc1 reads X instead of U: fewer channels in the first unit of each stage.
    let fewer: i64 =
        [(64, 256), (256, 512), (512, 1024), (1024, 2048)].map(|(x, u)| (u - x) * u / 16).iter().sum();
    assert_eq!(of("r-16").0 - of("parallel").0, fewer);
}

#[test]
fn wrong_structures_train_in_other_families() {
    let sandbox = Sandbox::new();
    let size = "--set data.synthetic.size=32 --set data.synthetic.train=3 --set data.synthetic.eval=2";
    for model in ["se-preact-resnet-110", "se-mobilenet", "se-shufflenet", "se-bn-inception"] {
        let command = format!("train --model {model} {TINY} {size} --set train.batch_size=3 --lr 1e-4 -q");
        for setting in ["structure=conv", "structure=parallel"] {
            sandbox.succeed(&format!("{command} --set model.se.{setting}"));
        }
    }
}

#[test]
fn a_whole_table_with_seeds() {
    let sandbox = Sandbox::new();
    let command = format!("ablate --ratios 4 --gate tanh --seeds 3 {TINY} --lr 0.02 --out lab --json");
    let results = sandbox.succeed(&command).json();
    assert_eq!(results["seeds"], json!([0, 1, 2]));
    let names = [
        "label",
        "key",
        "model",
        "reduction",
        "top1_error",
        "top1_deviation",
        "top5_error",
        "top5_deviation",
        "params",
        "macs",
        "seconds_per_epoch",
        "train_images_per_second",
        "eval_images_per_second",
        "seen",
        "runs",
    ];
    assert_eq!(fields(&rows(&results)[0]), names);
    let keys: Vec<_> = rows(&results).iter().map(|row| row["key"].clone()).collect();
    assert_eq!(keys, ["r-4", "no-SE", "gate-tanh", "r-16"]);
    for row in rows(&results) {
        let errors: Vec<f64> = row["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| 1.0 - run["eval"]["top1"]["accuracy"].as_f64().unwrap())
            .collect();
        assert_eq!(errors.len(), 3);
        let mean = errors.iter().sum::<f64>() / 3.0;
        assert!((row["top1_error"].as_f64().unwrap() - mean).abs() < 1e-12, "{row}");
    }
    let gate = &results["comparisons"][1];
    assert_eq!(gate["control"], "r-16");
    let tanh = &gate["entries"][0];
    let error = |key: &str, seed: usize| {
        let row = rows(&results).iter().find(|row| row["key"] == key).unwrap();
        1.0 - row["runs"][seed]["eval"]["top1"]["accuracy"].as_f64().unwrap()
    };
    let difference = (0..3).map(|seed| error("gate-tanh", seed) - error("r-16", seed)).sum::<f64>() / 3.0;
    assert!((tanh["top1_difference"]["mean"].as_f64().unwrap() - difference).abs() < 1e-12, "{tanh}");
    assert_eq!(tanh["top1_difference"]["pairs"], 3);

    // Later questions to the same folder train only what is new, and its tables keep both.
    let more = sandbox.succeed(&format!("ablate --ratios 4,8 --seeds 2 {TINY} --lr 0.02 --out lab --json"));
    assert_eq!(more.stderr.matches("done before, kept").count(), 4, "{}", more.stderr);
    assert_eq!(rows(&more.json()).len(), 3);
    let all = sandbox.read_json("lab/results.json");
    assert_eq!((rows(&all).len(), &all["seeds"]), (5, &json!([0, 1, 2])));

    let page = String::from_utf8(sandbox.read("lab/results.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Excitation") && !page.contains("NaN"));
    let csv = String::from_utf8(sandbox.read("lab/results.csv")).unwrap();
    assert_eq!(
        csv.lines().filter(|line| line.starts_with("gate,") && line.contains(",done,")).count(),
        9,
        "{csv}"
    );

    // The same tables from the records alone.
    assert_eq!(sandbox.succeed("report lab --format json").json(), all);
    assert_eq!(sandbox.succeed("report lab --format csv").stdout, csv);
    sandbox.write("doc.md", "mine\n<!-- senet report gate -->\nold\n<!-- end of report -->\nmine too\n");
    sandbox.succeed("report lab --into doc.md");
    let document = String::from_utf8(sandbox.read("doc.md")).unwrap();
    assert!(document.starts_with("mine\n") && document.ends_with("\nmine too\n"), "{document}");
    assert!(document.contains("| tanh ") && !document.contains("old"), "{document}");
    sandbox.write("none.md", "nothing here");
    refused(
        &sandbox,
        "report lab --into none.md",
        1,
        &["none.md has no marker", "hint: `<!-- senet report KEY -->`"],
    );
    refused(&sandbox, "report .", 1, &[". is not the folder of a comparison", "hint"]);
}

#[test]
fn a_killed_comparison_comes_to_the_same_table() {
    let sandbox = Sandbox::new();
    let command =
        format!("ablate --ratios 4,8 --seeds 2 {TINY} --set train.batch_size=2 --set train.duration=2ep");
    sandbox.succeed(&format!("{command} --out whole"));
    let parts = format!("{command} --out parts");
    let is_under_way =
        |run: &str| sandbox.path(&format!("parts/rows/{run}/checkpoints/last/state.json")).exists();
    sandbox.start(&parts).kill_when(|| is_under_way("r-4/seed-0"));
    sandbox.start(&parts).kill_when(|| is_under_way("no-SE/seed-1"));
    sandbox.succeed(&parts);
    assert_eq!(outcome(&sandbox, "parts"), outcome(&sandbox, "whole"));
}

#[test]
fn counts_of_a_run_are_of_what_it_trained() {
    let sandbox = Sandbox::new();
    default_data(&sandbox);
    // A dry run of a net for photographs counts for ImageNet where no data is named; a run has trained on something else.
    let command = "ablate --ratios 16 --model se-resnet-18 --set train.duration=1st --batch-size 4 --out lab";
    sandbox.succeed(command);
    for row in rows(&sandbox.read_json("lab/results.json")) {
        let run = sandbox.read_json(&format!("lab/rows/{}/seed-0/result.json", row["key"].as_str().unwrap()));
        assert_eq!((&row["params"], &row["macs"]), (&run["params"], &run["macs"]), "{row}");
    }
}

#[test]
fn speeds_in_turns() {
    let sandbox = Sandbox::new();
    let command = format!("ablate --ratios 4,16 {TINY} --out lab --json");
    let of_runs = sandbox.succeed(&command).json();
    let timed = sandbox.succeed(&format!("{command} --speed"));
    assert_eq!(timed.stderr.matches("timing, round 5 of 5").count(), 3, "{}", timed.stderr);
    let timed = timed.json();
    assert_eq!(
        (&of_runs["speeds_are_in_turns"], &timed["speeds_are_in_turns"]),
        (&json!(false), &json!(true))
    );
    let measured = sandbox.read_json("lab/speed.json");
    for row in rows(&timed) {
        let figures = measured[row["key"].as_str().unwrap()]["train"].as_array().unwrap();
        assert_eq!(figures.len(), 5);
        assert!(figures.contains(&row["train_images_per_second"]), "{row}");
    }
    assert_eq!(
        sandbox.succeed("report lab --format json").json()["rows"],
        sandbox.read_json("lab/results.json")["rows"]
    );
}

#[test]
fn several_processes_share_the_runs() {
    let sandbox = Sandbox::new();
    let command = format!("ablate --ratios 4,8,16 --seeds 2 {TINY} --set data.synthetic.train=640");
    sandbox.succeed(&format!("{command} --out alone"));
    let shared = sandbox.succeed(&format!("{command} --out shared --jobs 2"));
    assert_eq!(outcome(&sandbox, "shared"), outcome(&sandbox, "alone"));
    // No run was trained twice: each history has one beginning.
    let mut starts = 0;
    for row in sandbox.list("shared/rows") {
        for seed in ["seed-0", "seed-1"] {
            let history =
                String::from_utf8(sandbox.read(&format!("shared/rows/{row}/{seed}/events.jsonl"))).unwrap();
            starts += history.matches("\"event\":\"started\"").count();
        }
    }
    assert_eq!(starts, 8);
    let here = shared.stderr.lines().filter(|line| line.contains(": top-1 error ")).count();
    assert!((1..8).contains(&here), "the other process took none or all\n{}", shared.stderr);
}

#[test]
fn a_row_that_fails_leaves_the_others_alone() {
    let sandbox = Sandbox::new();
    // The mean as scale is quadratic in U: a few steps at this rate and it is no number any more.
    let command = format!("ablate --variants gap-scale,parallel {TINY} --lr 3 --out lab");
    let failed = sandbox.senet(&command);
    assert_eq!(failed.code, 1, "{failed:?}");
    let parts = [
        "error: 1 of 4 runs failed; the first, gap-scale with seed 0: step ",
        "finite",
        "hint: the same command",
    ];
    assert!(parts.iter().all(|part| failed.stderr.contains(part)), "{}", failed.stderr);
    assert!(
        failed.stdout.contains(" failed ") && failed.stdout.contains("failed: gap-scale, seed 0"),
        "{}",
        failed.stdout
    );
    let results = sandbox.read_json("lab/results.json");
    for row in rows(&results) {
        let state = if row["key"] == "gap-scale" { "failed" } else { "done" };
        assert_eq!(row["runs"][0]["state"], state, "{row}");
    }
    // The same command tries it again, and it alone; what it failed of is not forgotten.
    let again = sandbox.senet(&command);
    assert_eq!((again.code, again.stderr.matches("done before, kept").count()), (1, 3), "{}", again.stderr);
    assert_eq!(again.stdout, failed.stdout);
}

#[test]
fn sweep_files() {
    let sandbox = Sandbox::new();
    sandbox.write("configs/base.json", r#"{"model": {"se": {"reduction": 4}}, "optim": {"lr": 0.05}}"#);
    sandbox.write(
        "configs/sweep.json",
        r#"{"about": {}, "base": "base.json", "axes": {"ratios": [2], "stages": ["3+4"]},
                                            "tables": [12], "control": "none", "seeds": [5, 3]}"#,
    );
    let plan = sandbox.succeed(&format!("ablate configs/sweep.json {TINY} --dry-run --json")).json();
    let keys: Vec<_> = rows(&plan).iter().map(|row| row["key"].clone()).collect();
    assert_eq!(keys, ["gate-relu", "gate-tanh", "r-4", "no-SE", "r-2", "stages-3-4"]);
    assert_eq!(plan["seeds"], json!([5, 3]));
    assert!(plan["comparisons"].as_array().unwrap().iter().all(|one| one["control"] == "no-SE"));
    assert!(plan["setting"][1].as_str().unwrap().contains("r = 4 without biases"), "{}", plan["setting"]);
    assert!(plan["setting"][1].as_str().unwrap().contains("rate 0.05"), "{}", plan["setting"]);

    let broken = |text: &str, parts: &[&str]| {
        sandbox.write("broken.json", text);
        refused(&sandbox, &format!("ablate broken.json {TINY}"), 2, parts);
    };
    broken(
        r#"{"axes": {"ratio": [2]}}"#,
        &["broken.json: unknown key `axes.ratio`", "did you mean `ratios`?"],
    );
    broken(r#"{"seeds": 2, "axis": {}}"#, &["broken.json: unknown key `axis`", "did you mean `axes`?"]);
    broken(r#"{"axes": {"ratios": []}}"#, &["`--ratios` is empty"]);
    broken(
        r#"{"base": {"optim": {"lrr": 1}}, "axes": {"ratios": [2]}}"#,
        &["`optim.lrr`", "did you mean `lr`?"],
    );
    broken(r#"{"base": "nowhere.json", "tables": [10]}"#, &["nowhere.json"]);
    broken(r#"{"seeds": 3}"#, &["nothing to compare"]);
}

#[test]
fn what_a_network_cannot_have() {
    let sandbox = Sandbox::new();
    let ablate = |flags: &str, parts: &[&str]| {
        refused(&sandbox, &format!("ablate {flags} {TINY}"), 2, parts);
    };
    ablate("--stages 5", &["[5]", "se-resnet-20 takes some of 2, 3, 4"]);
    ablate("--stages 2,2", &["`--stages` holds 2 twice"]);
    ablate("--stages two", &["`--stages` holds `two`", "joined by `+`"]);
    ablate("--placement inside", &["se-resnet-20 has no bottlenecks", "hint: ResNet-50"]);
    ablate("--placement post --model se-mobilenet", &["has no residual units", "hint"]);
    ablate("--variants paralel", &["`--variants` holds `paralel`", "did you mean `parallel`?"]);
    ablate("--gate ,", &["`--gate` holds ``", "sigmoid, tanh, relu"]);
    ablate("--squeeze max,max", &["`--squeeze` holds max twice"]);
    ablate("--table 9", &["Table 9 is no ablation", "hint: `--table` takes 10, 11"]);
    ablate("--table ten", &["`--table` holds `ten`"]);
    ablate("--ratios 4 --seeds 0", &["`--seeds` is 0"]);
    ablate("--ratios 4 --seeds 1000000000000", &["at most 1000"]);
    ablate("--ratios 4 --jobs 0", &["--jobs"]);
    ablate("--squeeze max --set model.se.structure=conv", &["`model.se.squeeze` does not go with"]);
    assert_eq!(sandbox.list("."), [""; 0], "what is refused leaves nothing behind");
}

#[test]
fn ablate_as_it_stands_and_once_more() {
    let sandbox = Sandbox::new();
    default_data(&sandbox);
    let plan = sandbox.succeed("ablate --ratios 4,8,16,32 --dry-run --json");
    assert_eq!(sandbox.list("."), ["data"], "a dry run writes nothing");

    let started = Instant::now();
    let first = sandbox.succeed("ablate --ratios 4,8,16,32");
    let first_took = started.elapsed();
    for label in ["r = 4", "r = 8", "r = 16", "r = 32", "no SE"] {
        assert!(first.stdout.contains(label), "no {label:?} in {}", first.stdout);
    }
    assert!(!first.stdout.contains("epoch 1/2") && first.stderr.contains("epoch 1/2"), "{first:?}");
    let comparison = only_run(&sandbox);
    let files =
        [".sweep.lock", "results.csv", "results.html", "results.json", "results.md", "rows", "sweep.json"];
    assert_eq!(sandbox.list(&comparison), files);
    let results = sandbox.read(&format!("{comparison}/results.json"));
    let saved: Value = serde_json::from_slice(&results).unwrap();
    for (row, planned) in
        saved["rows"].as_array().unwrap().iter().zip(plan.json()["rows"].as_array().unwrap())
    {
        assert_eq!((&row["params"], &row["macs"]), (&planned["params"], &planned["macs"]), "{row}");
        assert!(planned["top1_error"].is_null() && planned["seconds_per_epoch"].is_null(), "{planned}");
        assert_eq!(row["seen"], 37);
        assert!((0.0..=1.0).contains(&row["top1_error"].as_f64().unwrap()), "{row}");
    }
    let markdown = String::from_utf8(sandbox.read(&format!("{comparison}/results.md"))).unwrap();
    assert!(markdown.contains("| r = 4 "), "{markdown}");

    let rows = sandbox.list(&format!("{comparison}/rows"));
    assert_eq!(rows, ["no-SE", "r-16", "r-32", "r-4", "r-8"]);
    let histories = || {
        let history = |row: &String| sandbox.read(&format!("{comparison}/rows/{row}/seed-0/events.jsonl"));
        rows.iter().map(history).collect::<Vec<_>>()
    };
    let before = histories();
    let started = Instant::now();
    let again = sandbox.succeed("ablate --ratios 4,8,16,32");
    assert_eq!(again.stderr.matches("done before, kept").count(), 5, "{}", again.stderr);
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(sandbox.read(&format!("{comparison}/results.json")), results);
    assert_eq!(histories(), before, "no row is trained again");
    assert!(started.elapsed() < first_took, "{:?} after {first_took:?}", started.elapsed());
    assert_eq!(only_run(&sandbox), comparison);
}

#[test]
fn an_interrupted_comparison_goes_on() {
    let sandbox = Sandbox::new();
    let settings = "--set train.batch_size=2 --set train.log_every=1st";
    let command = format!("ablate --ratios 8 --out both {TINY} {settings}");
    let stopped =
        sandbox.start(&command).interrupt_when(|| last_step(&sandbox, "both/rows/no-SE/seed-0") >= 2);
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("hint: the same command goes on"), "{}", stopped.stderr);
    let step = last_step(&sandbox, "both/rows/no-SE/seed-0");
    assert!((2..34).contains(&step), "stopped at step {step}");

    let finished = sandbox.succeed(&command);
    assert!(finished.stderr.contains(&format!("going on after step {step} of 34")), "{}", finished.stderr);
    let rows = sandbox.read_json("both/results.json")["rows"].as_array().unwrap().clone();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["seen"] == 23), "{rows:?}");
}
