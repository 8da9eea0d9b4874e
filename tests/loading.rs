//! How images are prepared and what is done about bad ones, end to end.

mod common;

use common::{Sandbox, fields, refused, write_class_folders};
use serde_json::Value;

const SMALL: &str = "--set data.size=8 --batch-size 4 --epochs 1 --json";

#[test]
fn bad_files_are_skipped_and_told_once_where_that_is_asked_for() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 4);
    sandbox.write("photos/train/blue/text.jpg", "this is text");
    sandbox.write("photos/val/green/empty.jpg", "");
    let train = format!("train --data photos {SMALL}");
    refused(&sandbox, &format!("{train} --out strict"), 1, &["cannot decode", "data.on_error"]);

    let skip = "--set data.on_error=skip --set data.max_bad=0.2";
    let longer = train.replace("--epochs 1", "--epochs 3");
    let trained = sandbox.succeed(&format!("{longer} {skip} --out run"));
    let told = |name: &str| trained.stderr.lines().filter(|line| line.contains(name)).count();
    assert_eq!((told("text.jpg"), told("empty.jpg")), (1, 1), "{}", trained.stderr);
    let eval = &trained.json()["eval"];
    assert_eq!((&eval["seen"], &eval["skipped"]), (&8.into(), &1.into()));
    let text = sandbox.succeed("eval run --top5").stdout;
    assert!(text.contains("of 8\n") && text.contains("1 image(s) could not be read"), "{text}");
    let events = String::from_utf8(sandbox.read("run/events.jsonl")).unwrap();
    let warnings = events.lines().filter(|line| line.contains("\"warning\""));
    assert_eq!(warnings.count(), 2, "{events}");

    let many = format!("{train} --set data.on_error=skip --set data.max_bad=0 --out many");
    refused(&sandbox, &many, 1, &["samples are bad", "`data.max_bad`", "hint: `senet data verify"]);
    refused(&sandbox, &format!("{train} --set data.max_bad=2"), 2, &["`data.max_bad` is 2", "0 to 1"]);

    // Predictions of the others are made.
    let predicted = sandbox.senet("predict --run run photos/val --json");
    assert_eq!(predicted.code, 1);
    assert!(predicted.stderr.contains("empty.jpg"), "{}", predicted.stderr);
    assert_eq!(predicted.json().as_array().unwrap().len(), 8);
}

#[test]
fn every_order_and_augmentation_trains_and_repeats() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 6, 2);
    let augment =
        r#"data.augment=[{"kind":"trivial-augment-wide"},{"kind":"lighting"},{"kind":"erase","p":1}]"#;
    for sampling in ["shuffled", "class-aware", "repeated"] {
        let run = |name: &str| {
            let words = format!("train --data photos {SMALL} --out {name}");
            let mut command = sandbox.command(&words);
            let sampling = format!("data.sampling.kind={sampling}");
            let output = command.args(["--set", augment, "--set", &sampling]).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{sampling}: {errors}");
            sandbox.read(&format!("{name}/checkpoints/last/model.safetensors"))
        };
        let once = run(&format!("{sampling}-1"));
        assert!(once == run(&format!("{sampling}-2")), "{sampling}: a run repeats");
    }
    let slip = |setting: &str, parts: &[&str]| {
        let output = sandbox.command("train --data photos --set").arg(setting).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        for part in parts {
            assert!(errors.contains(part), "no {part:?} in {errors}");
        }
    };
    slip(r#"data.augment=[{"kind":"erase","p":3}]"#, &["`data.augment[0].p` is 3, but 0 to 1 is expected"]);
    slip(r#"data.augment=[{"kind":"erasing"}]"#, &["data.augment", "erasing"]);
    slip(r#"data.sampling={"kind":"weighted","power":-1}"#, &["`data.sampling.power` is -1"]);
    slip("data.crop_area=[0.5,0.1]", &["`data.crop_area` is [0.5, 0.1], but the lower bound comes first"]);
}

#[test]
fn the_loader_is_timed_and_shown_by_itself() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 8, 8);
    for pipeline in ["train", "eval"] {
        let words = "--size 16 --batch-size 8 --threads 2 --seconds 0.2 --json";
        let document = sandbox.succeed(&format!("data bench photos --pipeline {pipeline} {words}")).json();
        assert_eq!(document["pipeline"], pipeline);
        assert_eq!((&document["threads"], &document["samples"]), (&2.into(), &16.into()));
        assert!(document["images_per_second"].as_f64().unwrap() > 0.0);
        let stages = &document["stages"];
        assert_eq!(fields(stages), ["read", "decode", "resize", "augment", "collate", "normalise"]);
        let share = |stage: &Value| stage["share"].as_f64().unwrap();
        let total: f64 = stages.as_object().unwrap().values().map(share).sum();
        assert!((total - 1.0).abs() < 1e-9, "{stages}");
    }
    // Class folders by themselves are something to look at, and to evaluate on, but not to train on.
    let show = "data show photos/val --size 16 --count 5 --out sheet.png";
    let text = sandbox.succeed(show).stdout;
    assert!(text.contains("5 samples, 3 in a row"), "{text}");
    let sheet = image::open(sandbox.path("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 20 + 4, 2 * 20 + 4));
    refused(&sandbox, show, 1, &["sheet.png exists", "--force"]);
    sandbox.succeed(&format!("{show} --force --epoch 1"));
    refused(&sandbox, "train --data photos/val", 1, &["no folder `train/`"]);
}
