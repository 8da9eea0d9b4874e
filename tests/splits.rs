//! Which folder or shard is which split, what of it is skipped, and what is said about it.

mod common;

use common::{Sandbox, refused, write_class_folders, write_image};
use image::ImageFormat;
use senet::files::FolderLock;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

const SMALL: &str = "--set data.size=8 --batch-size 4 --epochs 1 --json";

/// Writes a shard of JPEGs, one for each label, with these keys and labels.
fn write_shard(sandbox: &Sandbox, name: &str, samples: &[(&str, usize)]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (key, label) in samples {
        write_image(sandbox, "one.jpg", ImageFormat::Jpeg, *label);
        let (image, label) = (sandbox.read("one.jpg"), label.to_string());
        for (ending, contents) in [("jpg", image.as_slice()), ("cls", label.as_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, format!("{key}.{ending}"), contents).unwrap();
        }
    }
    sandbox.write(name, builder.into_inner().unwrap());
}

#[test]
fn validation_shards_are_never_trained_on() {
    let sandbox = Sandbox::new();
    for (dir, train, eval) in [
        ("timm", "imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("docs", "imagenet-train-000000.tar", "imagenet-val-000000.tar"),
        ("capitals", "MyTrain0.tar", "MyVal0.tar"),
    ] {
        write_shard(&sandbox, &format!("{dir}/{train}"), &[("a", 0), ("b", 1), ("c", 0), ("d", 1)]);
        write_shard(&sandbox, &format!("{dir}/{eval}"), &[("e", 0), ("f", 1)]);
        let trained = sandbox.succeed(&format!("train --data {dir} {SMALL} --out run-{dir}"));
        assert_eq!(trained.json()["eval"]["seen"], 2);
        let lines = [format!("training split: {train} of"), format!("evaluation split: {eval} of")];
        assert!(lines.iter().all(|line| trained.stderr.contains(line)), "{}", trained.stderr);
        assert!(trained.stderr.contains(" 4 training images"), "{}", trained.stderr);
        // Packing, too.
        let packed = sandbox.succeed(&format!("data pack {dir} packed-{dir} --json")).json();
        let samples: Vec<_> =
            packed["halves"].as_array().unwrap().iter().map(|half| &half["samples"]).collect();
        assert_eq!(samples, [4, 2]);
    }
    // Validation alone is nothing to train on; two words say nothing.
    write_shard(&sandbox, "alone/x-validation-0.tar", &[("a", 0), ("b", 1)]);
    refused(&sandbox, "train --data alone", 1, &["alone: no shards of the split `train`", "hint"]);
    write_shard(&sandbox, "both/train-val-0.tar", &[("a", 0), ("b", 1)]);
    refused(&sandbox, "train --data both", 1, &["the words `train` and `val`", "hint"]);
    // Of three, the validation split is evaluated on; shards of no split are told.
    for split in ["train", "val", "test"] {
        write_shard(&sandbox, &format!("three/{split}-0.tar"), &[("a", 0), ("b", 1), (split, 1)]);
    }
    write_shard(&sandbox, "three/extra-0.tar", &[("a", 0)]);
    let three = sandbox.succeed(&format!("train --data three {SMALL} --out three-run"));
    assert_eq!(three.json()["eval"]["seen"], 3);
    for part in ["split: val-0.tar of", "test-0.tar is not used", "say no split, such as extra-0.tar"] {
        assert!(three.stderr.contains(part), "no {part:?} in {}", three.stderr);
    }
    sandbox.write("packed/train-0.tar.gz", "");
    refused(&sandbox, "train --data packed", 1, &["compressed (train-0.tar.gz)", "hint"]);
}

#[test]
fn the_validation_split_is_preferred_and_the_test_split_named() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    for name in ["valid", "validation", "dev", "Val", "VALID"] {
        let dir = format!("as-{name}");
        sandbox.copy("photos/train", &format!("{dir}/train"));
        sandbox.copy("photos/val", &format!("{dir}/{name}"));
        let text = sandbox.succeed(&format!("train --data {dir} {SMALL} --out run-{dir}")).stderr;
        assert!(
            text.contains(&format!("evaluation split: {name}/ of")) && !text.contains("warning"),
            "{text}"
        );
    }
    sandbox.copy("as-valid", "threeway");
    sandbox.copy("photos/train", "threeway/test");
    let trained = sandbox.succeed(&format!("train --data threeway {SMALL} --out run"));
    assert_eq!(trained.json()["eval"]["seen"], 4);
    let line = "evaluation split: valid/ of";
    assert!(
        trained.stderr.contains(line) && trained.stderr.contains("test/ is not used"),
        "{}",
        trained.stderr
    );
    let evaluated = sandbox.succeed("eval run").stderr;
    assert!(evaluated.contains(line) && evaluated.contains(", 4 images, 2 classes"), "{evaluated}");
    // The test split is for a last evaluation.
    assert_eq!(sandbox.succeed("eval run --data threeway/test --json").json()["seen"], 8);
    fs::rename(sandbox.path("as-valid/valid"), sandbox.path("as-valid/test")).unwrap();
    for command in [format!("train --data as-valid {SMALL} --out tested"), "eval tested".to_string()] {
        let text = sandbox.succeed(&command).stderr;
        assert!(text.contains("(the test split: no validation split was found), 4 images"), "{text}");
    }
    let quiet = sandbox.succeed(&format!("train --data as-valid {SMALL} --quiet --out quiet"));
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_class_may_be_called_train() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "vehicles", &["bus", "car", "train"], 4, 2);
    let trained = sandbox.succeed(&format!("train --data vehicles {SMALL} --out run")).json();
    assert_eq!(trained["eval"]["seen"], 6);
    // The evaluation split by itself has a folder `train/`, which is a class.
    let alone = sandbox.succeed("eval run --data vehicles/val --json").json();
    assert_eq!((&alone["seen"], &alone["top1"]), (&6.into(), &trained["eval"]["top1"]));
    // An archive that unpacks into a folder of its own name.
    sandbox.copy("vehicles/train", "kaggle/train/train");
    sandbox.copy("vehicles/val", "kaggle/val/val");
    let nested = sandbox.succeed(&format!("train --data kaggle {SMALL} --out nested"));
    assert_eq!(nested.json()["eval"]["seen"], 6);
    assert!(nested.stderr.contains("training split: train/train/ of"), "{}", nested.stderr);
    assert!(nested.stderr.contains("12 images, 3 classes"), "{}", nested.stderr);
}

#[test]
fn classes_that_lack_images_or_differ_in_spelling_are_told() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "whole", &["blue", "green", "red"], 4, 2);
    let train = |dir: &str| sandbox.succeed(&format!("train --data {dir} {SMALL} --out run-{dir}"));
    // Folders that tools leave stop nothing.
    sandbox.copy("whole", "left");
    for folder in ["train/__MACOSX", "train/.git", "train/zzz", "val/__MACOSX", "train/aaa"] {
        fs::create_dir_all(sandbox.path(&format!("left/{folder}"))).unwrap();
    }
    sandbox.write("left/train/blue/notes.txt", "");
    sandbox.write("left/val/blue/.hidden.jpg", "");
    let left = train("left");
    for part in [
        "warning: train/: skipped 2 class folders without images: `aaa`, `zzz`",
        "warning: train/: skipped hidden folders: `.git`, `__MACOSX`",
        "warning: train/: skipped 1 files not named like images",
        "split: train/ of left, 12 images, 3 classes",
    ] {
        assert!(left.stderr.contains(part), "no {part:?} in {}", left.stderr);
    }
    let verified = sandbox.succeed("data verify left");
    assert!(verified.stderr.contains("without images: `aaa`, `zzz`"), "{}", verified.stderr);
    // The labels stay those of the training split.
    sandbox.copy("whole", "gap");
    fs::remove_dir_all(sandbox.path("gap/val/green")).unwrap();
    fs::create_dir(sandbox.path("gap/val/green")).unwrap();
    let gap = train("gap");
    let warning = "warning: the evaluation split has no images of 1 of its 3 classes: `green`";
    assert!(gap.stderr.contains(warning), "{}", gap.stderr);
    sandbox.succeed("eval run-gap --predictions rows.csv");
    let rows = String::from_utf8(sandbox.read("rows.csv")).unwrap();
    let of_red = |row: &&str| row.starts_with("val/red/") && row.split(',').nth(1) == Some("red");
    assert_eq!(rows.lines().filter(of_red).count(), 2, "{rows}");
    // What cannot have been learned is an error of training, and no reason not to look at the images.
    fs::rename(sandbox.path("gap/train/red"), sandbox.path("red")).unwrap();
    fs::create_dir(sandbox.path("gap/train/red")).unwrap();
    refused(
        &sandbox,
        &format!("train --data gap {SMALL}"),
        1,
        &["gap/train has no images of `red`, but", "hint"],
    );
    let verified = sandbox.senet("data verify gap");
    assert!(verified.code == 1 && verified.stdout.contains("fine"), "{}", verified.stderr);
    assert!(
        verified.stderr.contains("training refuses this data: gap/train has no images"),
        "{}",
        verified.stderr
    );
    // Spellings.
    sandbox.copy("whole", "twice");
    sandbox.copy("whole/train/blue", "twice/train/Blue");
    let twice = train("twice").stderr;
    assert!(twice.contains("`Blue` and `blue` differ in the case of letters alone"), "{twice}");
    sandbox.copy("whole", "accents");
    fs::rename(sandbox.path("accents/train/red"), sandbox.path("accents/train/caf\u{e9}")).unwrap();
    fs::rename(sandbox.path("accents/val/red"), sandbox.path("accents/val/cafe\u{301}")).unwrap();
    let parts = ["has a class `cafe\u{301}` that", "differ in composed and decomposed accents alone"];
    refused(&sandbox, "train --data accents", 1, &parts);
    // One class.
    write_class_folders(&sandbox, "single", &["only"], 4, 2);
    assert!(train("single").stderr.contains("there is one class only, `only`"));
    // Names of classes that are no text are listed at once.
    for name in [b"caf\xe9".as_slice(), b"\xe8"] {
        fs::create_dir(sandbox.path("single/train").join(OsStr::from_bytes(name))).unwrap();
    }
    refused(&sandbox, "train --data single", 1, &["must be UTF-8, not `\\xe8`, `caf\\xe9`", "hint"]);
}

#[test]
fn what_a_shard_drops_is_told_by_training_and_evaluation() {
    let sandbox = Sandbox::new();
    write_shard(&sandbox, "data/train-0.tar", &[("a", 0), ("b", 1), ("img.1", 1), ("img.2", 0), ("c", 1)]);
    write_shard(&sandbox, "data/val-0.tar", &[("a", 0), ("b", 1), ("x.1", 0)]);
    let trained = sandbox.succeed(&format!("train --data data {SMALL} --out run"));
    let text = "skipped 2 images whose file names have more than one dot";
    assert!(trained.stderr.contains(text), "{}", trained.stderr);
    let evaluated = sandbox.succeed("eval run").stderr;
    assert!(evaluated.contains("warning: val-0.tar: skipped 1 images whose file names"), "{evaluated}");
    write_shard(&sandbox, "dotted/train-0.tar", &[("a.b", 0), ("a.c", 1)]);
    refused(&sandbox, "train --data dotted", 1, &["hold no samples", "KEY ends at the first dot"]);
    // Labels that count from 1.
    for split in ["train", "val"] {
        write_shard(&sandbox, &format!("from-one/{split}-0.tar"), &[("a", 1), ("b", 2)]);
    }
    let shifted = sandbox.succeed(&format!("train --data from-one {SMALL} --out shifted")).stderr;
    assert!(shifted.contains("no images of 1 of its 3 classes: `0` (labels count from 0"), "{shifted}");
}

#[test]
fn predict_walks_folders_as_data_sets_do() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    sandbox.succeed(&format!("train --data photos {SMALL} --out run"));
    write_image(&sandbox, "mixed/one.jpg", ImageFormat::Jpeg, 0);
    write_image(&sandbox, "mixed/two.jfif", ImageFormat::Jpeg, 1);
    write_image(&sandbox, "elsewhere/three.jpg", ImageFormat::Jpeg, 1);
    symlink("../elsewhere/three.jpg", sandbox.path("mixed/linked.jpg")).unwrap();
    symlink("../elsewhere", sandbox.path("mixed/folder")).unwrap();
    symlink("..", sandbox.path("elsewhere/loop")).unwrap();
    for hidden in ["mixed/._one.jpg", "mixed/.ipynb_checkpoints/x.jpg", "mixed/notes.txt"] {
        sandbox.write(hidden, "no image");
    }
    let output = sandbox.succeed("predict --run run mixed --json");
    let found: Vec<_> = output.json().as_array().unwrap().iter().map(|one| one["image"].clone()).collect();
    let in_mixed: Vec<_> =
        found.iter().filter_map(|name| name.as_str()).filter(|name| !name.contains("loop")).collect();
    assert_eq!(in_mixed, ["mixed/folder/three.jpg", "mixed/linked.jpg", "mixed/one.jpg", "mixed/two.jfif"]);
    assert!(output.stderr.contains("skipped"), "{}", output.stderr);
}

#[test]
fn names_that_are_no_text_stay_apart() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    let name = |bytes: &[u8]| sandbox.path("photos/train/blue").join(OsStr::from_bytes(bytes));
    fs::copy(sandbox.path("photos/train/blue/0.jpg"), name(b"\xe9.jpg")).unwrap();
    fs::write(name(b"\xe8.jpg"), "no image").unwrap();
    sandbox.succeed("data verify photos --quarantine bad.txt --json");
    let list = String::from_utf8(sandbox.read("bad.txt")).unwrap();
    assert_eq!(list.lines().last(), Some("train/blue/\\xe8.jpg"), "{list}");
    let trained =
        sandbox.succeed(&format!("train --data photos --set data.quarantine=bad.txt {SMALL} --out run"));
    assert!(trained.stderr.contains(" 9 training images"), "{}", trained.stderr);
    fs::remove_file(name(b"\xe8.jpg")).unwrap();
    fs::copy(name(b"\xe9.jpg"), name(b"\xe8.jpg")).unwrap();
    let found = sandbox.succeed("predict --run run photos/train/blue --json").json();
    let names: Vec<_> = found.as_array().unwrap().iter().filter(|one| one["image_escaped"] == true).collect();
    assert_eq!((found.as_array().unwrap().len(), names.len()), (6, 2));
    assert_eq!(names[0]["image"], "photos/train/blue/\\xe8.jpg");
    // A folder of such a name is data like any other, where its name need not be written down.
    let odd = sandbox.path("").join(OsStr::from_bytes(b"\xe9"));
    fs::rename(sandbox.path("photos"), &odd).unwrap();
    for words in ["data index --json", "data verify --json"] {
        let output = sandbox.command(words).arg(&odd).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("\\\\xe9\""), "{words}: {text}");
    }
    let output = sandbox.command("train --epochs 1 --data").arg(&odd).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && text.contains("`--data`: ") && text.contains("UTF-8"),
        "{text}"
    );
}

#[test]
fn one_process_at_a_time_packs_into_a_folder() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    fs::create_dir_all(sandbox.path("out/train")).unwrap();
    let lock = FolderLock::take(&sandbox.path("out/train"), ".senet-pack.lock").unwrap().unwrap();
    let parts = ["another process is packing into out/train", "hint: wait for its end"];
    refused(&sandbox, "data pack photos out", 1, &parts);
    drop(lock);
    sandbox.succeed("data pack photos out");
    // Nothing of the lock stays behind, and what is complete is left as it is.
    assert!(!sandbox.path("out/train/.senet-pack.lock").exists());
    refused(&sandbox, "data pack photos out --shard-size 4K", 1, &["out/train"]);
}

#[test]
fn configurations_may_begin_with_a_byte_order_mark() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    sandbox.write("marked.json", "\u{feff}{ \"data\": { \"dir\": \"photos\", \"size\": 8 } }");
    sandbox.succeed("config check marked.json");
    sandbox.succeed("train marked.json --batch-size 4 --epochs 1 --out run");
    sandbox.write("wide.json", b"\xff\xfe{\0}\0");
    refused(&sandbox, "train wide.json", 2, &["wide.json: it is text in UTF-16, not in UTF-8"]);
}

#[test]
fn a_run_finds_its_data_from_anywhere_and_after_a_move() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "old/photos", &["blue", "green"], 4, 2);
    sandbox.write("bad.txt", "train/blue/0.jpg\n");
    let options = format!("{SMALL} --set data.quarantine=bad.txt");
    sandbox.succeed(&format!("train --data old/photos {options} --out old/runs/one"));
    let config = |run: &str| -> serde_json::Value {
        serde_json::from_slice(&sandbox.read(&format!("{run}/config.json"))).unwrap()
    };
    let stored = config("old/runs/one");
    let path = |key: &str| PathBuf::from(stored["data"][key].as_str().unwrap());
    assert!(path("dir").is_absolute() && path("dir").ends_with("old/photos"), "{stored}");
    assert!(path("quarantine").is_absolute() && path("quarantine").ends_with("bad.txt"), "{stored}");
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let eval = |run: &str| {
        let run = sandbox.path(run);
        let output = sandbox.command("eval --json").arg(run).current_dir(sandbox.path("elsewhere")).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    assert_eq!(eval("old/runs/one").0, Some(0), "{}", eval("old/runs/one").1);
    // Both moved, then the run alone.
    fs::rename(sandbox.path("old"), sandbox.path("new")).unwrap();
    let (code, text) = eval("new/runs/one");
    assert!(code == Some(0) && text.contains("new/photos, 4 images"), "{text}");
    fs::rename(sandbox.path("new/runs/one"), sandbox.path("elsewhere/one")).unwrap();
    let (code, text) = eval("elsewhere/one");
    assert!(code == Some(1) && text.contains("old/photos does not exist"), "{text}");
    // As earlier versions stored it: relative to a folder above the run.
    let mut older = stored;
    older["data"]["dir"] = "photos".into();
    fs::rename(sandbox.path("elsewhere/one"), sandbox.path("new/runs/one")).unwrap();
    sandbox.write("new/runs/one/config.json", older.to_string());
    assert_eq!(eval("new/runs/one").0, Some(0));
}
