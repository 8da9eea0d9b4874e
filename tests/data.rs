//! `senet data` and training from every form of data, end to end.

mod common;

use common::{Sandbox, fields, refused, write_class_folders, write_image};
use image::ImageFormat;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SMALL: &str = "--set data.size=8 --batch-size 4 --epochs 1 --json";

/// Class folders of JPEGs alone: packed, they keep their bytes.
fn write_jpegs(sandbox: &Sandbox, dir: &str, classes: &[&str], train: usize, eval: usize) {
    for (half, count) in [("train", train), ("val", eval)] {
        for (class, name) in classes.iter().enumerate() {
            for image in 0..count {
                write_image(sandbox, &format!("{dir}/{half}/{name}/{image}.jpg"), ImageFormat::Jpeg, class);
            }
        }
    }
}

/// A tar of members whose names no honest program would write, and a good sample.
fn write_tar(sandbox: &Sandbox, name: &str, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (member, contents) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..member.len()].copy_from_slice(member.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, *contents).unwrap();
    }
    sandbox.write(name, builder.into_inner().unwrap());
}

fn half<'a>(document: &'a Value, name: &str) -> &'a Value {
    let halves = document["halves"].as_array().unwrap();
    halves.iter().find(|half| half["half"] == name).unwrap_or_else(|| panic!("no {name} in {document}"))
}

/// All files of a folder but the index.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| !name.starts_with(".senet-index"))
        .collect();
    files.sort();
    files
}

#[test]
fn an_index_is_made_once_and_again_when_the_data_changes() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 2);
    sandbox.write("photos/train/blue/notes.txt", "no image");
    write_image(&sandbox, "photos/train/green/deep/er/5.jpg", ImageFormat::Jpeg, 1);
    // What is fresh may still be written to.
    std::thread::sleep(Duration::from_millis(2200));
    let index = |words: &str| sandbox.succeed(&format!("data index photos --json {words}")).json();

    let first = index("");
    assert_eq!(fields(&first), ["dir", "source", "halves"]);
    assert_eq!(first["source"], "folder");
    let train = half(&first, "train");
    assert_eq!(fields(train), ["half", "samples", "classes", "seconds", "index"]);
    assert_eq!((&train["samples"], &train["classes"]), (&9.into(), &2.into()));
    let listing = &train["index"];
    assert_eq!(fields(listing), ["units", "bytes", "loaded", "why", "file", "unsaved", "passed_over"]);
    assert_eq!((&listing["units"], &listing["loaded"]), (&4.into(), &false.into()));
    assert_eq!(listing["why"], "there is none yet");
    assert_eq!(listing["passed_over"], json!({"files not named like images": 1}));
    assert!(listing["file"].as_str().unwrap().ends_with("photos/train/.senet-index"));

    let loaded = |document: &Value| half(document, "train")["index"]["loaded"].as_bool().unwrap();
    assert!(loaded(&index("")));
    assert!(!loaded(&index("--rebuild")));
    let text = sandbox.succeed("data index photos").stdout;
    assert!(text.contains("train: loaded from") && text.contains("skipped 1 files"), "{text}");
    write_image(&sandbox, "photos/train/blue/9.jpg", ImageFormat::Jpeg, 0);
    let changed = index("");
    assert_eq!(half(&changed, "train")["samples"], 10);
    let why = half(&changed, "train")["index"]["why"].as_str().unwrap();
    assert!(why.contains("train/blue has changed"), "{why}");

    // A place that cannot be written to: a folder is there already.
    fs::remove_file(sandbox.path("photos/val/.senet-index")).unwrap();
    fs::create_dir(sandbox.path("photos/val/.senet-index")).unwrap();
    for loaded in [false, true] {
        let output = sandbox
            .command("data index photos --json")
            .env("XDG_CACHE_HOME", sandbox.path("cache"))
            .output()
            .unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let index = &half(&document, "eval")["index"];
        assert_eq!(index["loaded"], loaded, "{index}");
        assert!(index["file"].as_str().unwrap().contains("cache/senet/index/"), "{index}");
    }
}

#[test]
fn what_verify_lists_training_leaves_out() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "photos", &["blue", "green"], 4, 3);
    sandbox.write("photos/train/blue/text.jpg", "this is text");
    sandbox.write("photos/train/green/empty.jpg", "");
    let whole = sandbox.read("photos/val/blue/1.png");
    sandbox.write("photos/val/blue/cut.png", &whole[..whole.len() / 2]);
    refused(
        &sandbox,
        &format!("train --data photos {SMALL} --out broken"),
        1,
        &["cannot decode photos/train"],
    );

    let verified = sandbox.senet("data verify photos --json");
    assert_eq!(verified.code, 1, "{}", verified.stderr);
    let document = verified.json();
    assert_eq!(fields(&document), ["dir", "unusable", "quarantine", "halves"]);
    assert_eq!(document["unusable"], 3);
    let train = half(&document, "train");
    assert_eq!(fields(train), ["half", "samples", "unusable", "counts", "findings", "refused"]);
    let count = |half: &Value, verdict: &str| half["counts"][verdict].as_u64().unwrap();
    // Every other file of the class folders has a name that lies.
    for (verdict, expected) in [("fine", 4), ("misnamed", 4), ("not-an-image", 1), ("empty", 1)] {
        assert_eq!(count(train, verdict), expected, "{verdict} in {train}");
    }
    assert_eq!(count(half(&document, "eval"), "truncated"), 1);
    let text = sandbox.senet("data verify photos --split train");
    assert_eq!(text.code, 1);
    for part in
        ["not an image", "train/blue/text.jpg", "the first bytes decide", "unless skipped or in quarantine"]
    {
        assert!(text.stdout.contains(part), "no {part:?} in {}", text.stdout);
    }
    assert!(
        !text.stdout.contains("truncated") && text.stderr.contains("--quarantine FILE"),
        "{}",
        text.stdout
    );

    // Other files are not overwritten by mistake; a list is.
    sandbox.write("precious", "mine");
    refused(
        &sandbox,
        "data verify photos --quarantine precious",
        2,
        &["precious is there already", "--force"],
    );
    refused(&sandbox, "data verify photos --quarantine no/where", 1, &["the folder no is missing"]);
    sandbox.succeed("data verify photos --quarantine precious --force");
    for _ in 0..2 {
        sandbox.succeed("data verify photos --quarantine bad.txt");
    }
    let list = String::from_utf8(sandbox.read("bad.txt")).unwrap();
    assert!(list.starts_with("# senet quarantine: 3 of 17 samples cannot be used\n"), "{list}");
    let names: Vec<_> = list.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(names, ["train/blue/text.jpg", "train/green/empty.jpg", "val/blue/cut.png"]);

    let train = format!("train --data photos --set data.quarantine=bad.txt {SMALL} --out run");
    let trained = sandbox.succeed(&train);
    assert_eq!(trained.json()["eval"]["seen"], 6);
    assert!(trained.stderr.contains("8 training images"), "{}", trained.stderr);
    assert_eq!(sandbox.succeed("eval run --json").json()["seen"], 6);
    sandbox.write("nonsense.txt", "a\\x\n");
    let nonsense = "train --data photos --set data.quarantine=nonsense.txt";
    refused(&sandbox, nonsense, 1, &["nonsense.txt, line 1: an unknown escape", "hint: one relative path"]);
}

#[test]
fn shards_are_what_was_packed() {
    let sandbox = Sandbox::new();
    write_jpegs(&sandbox, "photos", &["blue", "green", "red"], 6, 4);
    let pack = "data pack photos shards --shard-size 8k --json";
    let packed = sandbox.succeed(pack).json();
    assert_eq!(fields(&packed), ["out", "halves"]);
    let train = half(&packed, "train");
    assert_eq!(fields(train), ["half", "dir", "samples", "shards", "bytes", "remarks"]);
    assert_eq!(train["samples"], 18);
    assert!(train["shards"].as_u64().unwrap() > 2, "{train}");
    let manifest = sandbox.read_json("shards/train/manifest.json");
    let shard = &manifest["shards"][0];
    let sum = Command::new("sha256sum").arg(sandbox.path("shards/train/shard-000000.tar")).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(shard["sha256"].as_str().unwrap()), "{shard}");

    // The same images, in another order.
    let folders = sandbox.succeed(&format!("train --data photos {SMALL} --out folders")).json();
    let same = sandbox.succeed("eval folders --data shards --json").json();
    assert_eq!((&same["top1"], &same["seen"]), (&folders["eval"]["top1"], &12.into()));
    let difference = same["loss"].as_f64().unwrap() - folders["eval"]["loss"].as_f64().unwrap();
    assert!(difference.abs() < 1e-4, "{difference}");
    let shards = sandbox.succeed(&format!("train --data shards {SMALL} --out shards-run"));
    assert!(shards.stderr.contains("18 training images"), "{}", shards.stderr);
    assert_eq!(shards.json()["eval"]["seen"], 12);
    let state = sandbox.read_json("shards-run/checkpoints/last/state.json");
    assert_eq!(state["classes"].as_array().unwrap(), &["blue", "green", "red"]);
    let verified = sandbox.succeed("data verify shards --json").json();
    assert_eq!(half(&verified, "train")["counts"]["fine"], 18);

    // All in one folder, by a pattern.
    for (half, name) in [("train", "train"), ("val", "val")] {
        for (number, shard) in ["shard-000000.tar", "shard-000001.tar"].iter().enumerate() {
            let bytes = sandbox.read(&format!("shards/{half}/{shard}"));
            sandbox.write(&format!("flat/{name}-{number:03}.tar"), bytes);
        }
    }
    sandbox.write("flat/classes.txt", "blue\ngreen\nred\n");
    let flat =
        sandbox.succeed(&format!("train --data flat/train-{{000..001}}.tar {SMALL} --out flat-run")).json();
    assert_eq!(sandbox.succeed("eval flat-run --json").json()["top1"], flat["eval"]["top1"]);
    refused(&sandbox, "train --data flat/train-{000..002}.tar", 1, &["no shard flat/train-002.tar", "hint"]);
    // The words of the names decide, whatever the pattern; without any, nobody knows.
    let all = sandbox.succeed(&format!("train --data flat/*.tar {SMALL} --out all-run")).json();
    assert_eq!(all["eval"]["top1"], flat["eval"]["top1"]);
    sandbox.write("unnamed/a-0.tar", sandbox.read("flat/train-000.tar"));
    refused(&sandbox, "train --data unnamed/*.tar", 2, &["does not say which split", "hint"]);
    // Classes of another data set, and labels beyond them.
    sandbox.write("flat/classes.txt", "blue\ngrey\nred\n");
    let parts = ["class `grey`, which is none of the 3 that the network was trained for", "hint"];
    refused(&sandbox, "eval folders --data flat", 1, &parts);
    sandbox.write("flat/classes.txt", "blue\ngreen\n");
    refused(
        &sandbox,
        "train --data flat",
        1,
        &["the label is 2, but", "flat/classes.txt names 2 classes", "hint"],
    );
    // Folders that are taken.
    refused(&sandbox, "data pack photos photos", 2, &["is the folder of the data itself"]);
    refused(&sandbox, "data pack photos shards --quality 50", 1, &["other data or options", "hint"]);
}

#[test]
fn a_packing_that_was_stopped_goes_on() {
    let sandbox = Sandbox::new();
    write_jpegs(&sandbox, "photos", &["blue", "green"], 300, 1);
    let pack = |out: &str| format!("data pack photos {out} --shard-size 4k --short-side 10 --threads 1");
    sandbox.succeed(&pack("whole"));
    let third = sandbox.path("parts/train/shard-000003.tar");
    let stopped = sandbox.start(&pack("parts")).interrupt_when(|| third.exists());
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("hint: the same command goes on"), "{}", stopped.stderr);
    refused(&sandbox, "train --data parts", 1, &["parts/train: packing has not finished", "hint"]);
    // And what a power cut may do.
    fs::remove_file(sandbox.path("parts/train/shard-000001.tar")).unwrap();
    sandbox.write("parts/train/shard-000002.tar", "half");
    sandbox.succeed(&pack("parts"));
    for half in ["train", "val"] {
        let folder = |out: &str| contents(&sandbox.path(&format!("{out}/{half}")));
        assert!(folder("whole") == folder("parts"), "{half}");
    }
    // Nothing to be done is done quickly.
    sandbox.succeed(&pack("parts"));
}

#[test]
fn cifar_trains() {
    let sandbox = Sandbox::new();
    let record = |label: u8| [vec![label], vec![label * 20; 3072]].concat();
    for batch in 1..=5u8 {
        sandbox.write(&format!("cifar/data_batch_{batch}.bin"), [record(batch), record(9)].concat());
    }
    sandbox.write("cifar/test_batch.bin", [record(0), record(1), record(2)].concat());
    let train = "train --data cifar --batch-size 5 --epochs 1 --set data.crop=pad --json";
    let trained = sandbox.succeed(&format!("{train} --out run"));
    assert_eq!(trained.json()["eval"]["seen"], 3);
    assert!(trained.stderr.contains("10 training images"), "{}", trained.stderr);
    let config = sandbox.read_json("run/config.json");
    assert_eq!((&config["data"]["size"], &config["data"]["crop"]), (&32.into(), &"pad".into()));
    sandbox.write("cifar/data_batch_2.bin", [record(1), record(10)].concat());
    refused(
        &sandbox,
        train,
        1,
        &["data_batch_2.bin: record 1 (byte 3073) has the label 10", "10 classes", "hint"],
    );
}

#[test]
fn imagenet_as_it_is_downloaded_trains() {
    let sandbox = Sandbox::new();
    for (class, id) in ["n01440764", "n01443537"].iter().enumerate() {
        for image in 0..4 {
            write_image(&sandbox, &format!("in/train/{id}/{id}_{image}.JPEG"), ImageFormat::Jpeg, class);
        }
    }
    for number in 1..=3 {
        write_image(
            &sandbox,
            &format!("in/val/ILSVRC2012_val_{number:08}.JPEG"),
            ImageFormat::Jpeg,
            number % 2,
        );
    }
    let train = format!("train --data in {SMALL}");
    refused(
        &sandbox,
        &train,
        1,
        &["in/val: no list of labels", "hint: imagenet_2012_validation_synset_labels"],
    );
    sandbox.write("in/imagenet_2012_validation_synset_labels.txt", "n01443537\nn01440764\nn99999999\n");
    refused(&sandbox, &train, 1, &["line 3: \"n99999999\" is not one of the 2 classes", "hint"]);
    sandbox.write("in/imagenet_2012_validation_synset_labels.txt", "n01443537\nn01440764\nn01443537\n");
    assert_eq!(sandbox.succeed(&format!("{train} --out run")).json()["eval"]["seen"], 3);
    let verified = sandbox.succeed("data verify in --json").json();
    assert_eq!(half(&verified, "eval")["counts"]["fine"], 3);
    let packed = sandbox.succeed("data pack in out --json").json();
    assert_eq!(
        (&half(&packed, "train")["samples"], &half(&packed, "eval")["samples"]),
        (&8.into(), &3.into())
    );
    let shards = sandbox.succeed("eval run --data out --json").json();
    assert_eq!(shards["top1"], sandbox.succeed("eval run --json").json()["top1"]);
}

#[test]
fn hostile_archives_do_no_harm() {
    let sandbox = Sandbox::new();
    write_image(&sandbox, "a.jpg", ImageFormat::Jpeg, 0);
    let image = sandbox.read("a.jpg");
    let good: [(&str, &[u8]); 4] = [("1.jpg", &image), ("1.cls", b"0"), ("2.jpg", &image), ("2.cls", b"1")];
    let hostile: [(&str, &[u8]); 3] =
        [("/etc/x.jpg", &image), ("../../y.jpg", &image), ("a/../../z.cls", b"1")];
    write_tar(&sandbox, "evil/train-0.tar", &[&hostile[..], &good[..]].concat());
    write_tar(&sandbox, "evil/val-0.tar", &good);
    let train = |dir: &str| format!("train --data {dir} --set data.size=8 --batch-size 2 --epochs 1 --json");
    assert_eq!(sandbox.succeed(&format!("{} --out run", train("evil"))).json()["eval"]["seen"], 2);
    let listed = sandbox.succeed("data index evil --json").json();
    assert_eq!(
        half(&listed, "train")["index"]["passed_over"],
        json!({"members with absolute paths or `..`": 3})
    );

    sandbox.copy("evil", "cut");
    let whole = sandbox.read("evil/val-0.tar");
    sandbox.write("cut/val-0.tar", &whole[..whole.len() - 2000]);
    let parts = ["cut/val-0.tar, byte ", "it ends", "hint: fetch it again; `senet data pack --salvage`"];
    refused(&sandbox, &train("cut"), 1, &parts);
    refused(&sandbox, "data verify cut", 1, &parts[..2]);
    let salvaged = sandbox.succeed("data pack cut saved --salvage --json");
    assert_eq!(half(&salvaged.json(), "eval")["samples"], 1, "{}", salvaged.stderr);
    assert!(salvaged.stderr.contains("warning: cut/val-0.tar ends early, at byte"), "{}", salvaged.stderr);

    for (name, contents, what) in [
        ("text", b"hello".to_vec(), "it ends within a header, after 5 bytes"),
        ("gzip", [&[0x1f, 0x8b], &[7; 1022][..]].concat(), "it is packed with gzip"),
        ("empty", Vec::new(), "the file is empty"),
    ] {
        sandbox.write(&format!("{name}/train-0.tar"), &contents);
        sandbox.write(&format!("{name}/val-0.tar"), &contents);
        refused(&sandbox, &train(name), 1, &[&format!("{name}/train-0.tar, byte 0: {what}"), "hint"]);
    }
    write_tar(&sandbox, "lone/train-0.tar", &good[..1]);
    refused(
        &sandbox,
        &train("lone"),
        1,
        &["the key `1` has an image, but neither `.cls` nor `.json`", "hint"],
    );
}

#[test]
fn loops_of_links_end_and_locked_files_are_named() {
    let sandbox = Sandbox::new();
    write_jpegs(&sandbox, "photos", &["blue", "green"], 3, 2);
    symlink("..", sandbox.path("photos/train/blue/up")).unwrap();
    symlink(".", sandbox.path("photos/train/green/self")).unwrap();
    symlink("nowhere", sandbox.path("photos/train/green/dangling.jpg")).unwrap();
    let listed = sandbox.succeed("data index photos --json").json();
    // The loop of `blue` leads through all of the half, once.
    assert!(half(&listed, "train")["samples"].as_u64().unwrap() >= 6, "{listed}");
    fs::remove_file(sandbox.path("photos/train/blue/up")).unwrap();
    assert_eq!(half(&sandbox.succeed("data index photos --json").json(), "train")["samples"], 6);

    let locked = sandbox.path("photos/train/blue/1.jpg");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&locked).is_ok() {
        // Root reads everything.
        return;
    }
    let found = sandbox.senet("data verify photos --json").json();
    assert_eq!(half(&found, "train")["counts"]["unreadable"], 1);
    refused(&sandbox, &format!("train --data photos {SMALL}"), 1, &["cannot read photos/train/blue/1.jpg"]);
    fs::set_permissions(sandbox.path("photos/train/green"), fs::Permissions::from_mode(0o000)).unwrap();
    refused(&sandbox, "data index photos", 1, &["cannot list the folder photos/train/green"]);
    fs::set_permissions(sandbox.path("photos/train/green"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nothing_known_is_said_to_be_there() {
    let sandbox = Sandbox::new();
    sandbox.write("stuff/readme", "text");
    for command in ["index", "verify"] {
        refused(
            &sandbox,
            &format!("data {command} stuff"),
            1,
            &["stuff: neither `train/`", "nor IDX files", "hint"],
        );
        refused(&sandbox, &format!("data {command} gone"), 1, &["the folder gone does not exist", "hint"]);
    }
    refused(&sandbox, "data pack stuff out", 1, &["stuff: neither"]);
    refused(&sandbox, "data pack stuff out --shard-size 1.5M", 2, &["a number of bytes is expected"]);
    for command in ["index", "verify", "pack"] {
        let help = sandbox.succeed(&format!("data {command} --help")).stdout;
        assert!(help.contains(&format!("Examples:\n  senet data {command} ")), "{help}");
    }
}
