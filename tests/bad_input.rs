//! Bad input gets one message that names the file or key and says what to do, and the right exit code: 2 for usage
//! and configuration, 1 otherwise. Never a panic, a C++ back-trace, a process that eats memory or one that hangs.

mod common;

use common::{Sandbox, TINY, assert_calm, idx, refused, write_class_folders, write_idx_set};
use std::fs;
use std::path::Path;

/// The same, for a wrong setting of the configuration that is given as `--set`.
fn setting_refused(sandbox: &Sandbox, setting: &str, parts: &[&str]) {
    refused(sandbox, &format!("train --out run --set {setting}"), 2, parts);
    assert!(!sandbox.path("run").exists(), "--set {setting}: nothing is written before all is checked");
}

const FETCH: &str = "hint: the file is damaged or of another format; fetch it again";

#[test]
fn missing_data() {
    let sandbox = Sandbox::new();
    let default = ["the folder data/fashion-mnist does not exist", "hint: `make data`"];
    refused(&sandbox, "train", 1, &default);
    refused(&sandbox, "ablate --ratios 4", 1, &default);
    refused(
        &sandbox,
        "train --data nowhere",
        1,
        &["the folder nowhere does not exist", "hint: `--data DIR`"],
    );
    let mismatch = "train --data nowhere --set data.source=idx";
    refused(&sandbox, mismatch, 1, &["the folder nowhere does not exist", "hint: `--data DIR`"]);
    sandbox.write("file", "no folder");
    refused(&sandbox, "train --data file", 1, &["file is not a folder", "hint: `--data DIR`"]);
    refused(&sandbox, "train --data .", 1, &[".: neither `train/`", "nor IDX files", "hint: `data.dir`"]);
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn damaged_idx_files() {
    let sandbox = Sandbox::new();
    write_idx_set(&sandbox, "whole", 20, 10, 4);
    let images = sandbox.read("whole/train-images-idx3-ubyte");
    let packed = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&images).unwrap();
        encoder.finish().unwrap()
    };
    let plain = "train-images-idx3-ubyte";
    let unpacks_to_more = [images.as_slice(), &[0; 1000]].concat();
    let too_wide = idx(&[usize::MAX, usize::MAX, usize::MAX], &[]);
    let cases: [(&str, &str, &[u8], &str); 9] = [
        ("truncated", plain, &images[..images.len() - 7], "the header promises 2880 values, but 2873 follow"),
        ("longer", plain, &unpacks_to_more, "the header promises 2880 values, but more follow"),
        ("headless", plain, &images[..9], "not an IDX file of unsigned bytes"),
        ("empty", plain, &[], "not an IDX file of unsigned bytes"),
        ("text", plain, b"pixel,pixel,pixel,pixel,label", "not an IDX file of unsigned bytes"),
        ("labels", plain, &idx(&[20], &[0; 20]), "not an IDX file"),
        ("endless", plain, &too_wide, "impossible dimensions"),
        ("cut", "train-images-idx3-ubyte.gz", &packed[..packed.len() / 2], "the gzip stream is broken"),
        ("cut-tail", "train-images-idx3-ubyte.gz", &packed[..packed.len() - 3], "the gzip stream is broken"),
    ];
    for (dir, name, contents, what) in cases {
        sandbox.copy("whole", dir);
        fs::remove_file(sandbox.path(dir).join(plain)).unwrap();
        sandbox.write(&format!("{dir}/{name}"), contents);
        let what = if dir == "labels" { "3 dimension(s) expected, 1 found" } else { what };
        refused(&sandbox, &format!("train --data {dir}"), 1, &[&format!("{dir}/{name}: {what}"), FETCH]);
    }

    sandbox.copy("whole", "unequal");
    sandbox.write("unequal/train-labels-idx1-ubyte", idx(&[19], &[0; 19]));
    let parts = [
        "unequal/train-images-idx3-ubyte holds 20 images",
        "unequal/train-labels-idx1-ubyte holds 19 labels",
        "hint: the two files do not belong together",
    ];
    refused(&sandbox, "train --data unequal", 1, &parts);

    sandbox.copy("whole", "nothing");
    sandbox.write("nothing/train-images-idx3-ubyte", idx(&[0, 12, 12], &[]));
    sandbox.write("nothing/train-labels-idx1-ubyte", idx(&[0], &[]));
    refused(
        &sandbox,
        "train --data nothing",
        1,
        &["nothing/train-images-idx3-ubyte holds no pixels", "hint"],
    );

    sandbox.copy("whole", "half");
    fs::remove_file(sandbox.path("half/t10k-labels-idx1-ubyte")).unwrap();
    refused(
        &sandbox,
        "train --data half",
        1,
        &["half: neither t10k-labels-idx1-ubyte nor", "hint: `make data`"],
    );
}

#[test]
fn a_packed_file_unfolds_to_no_more_than_it_promises() {
    let sandbox = Sandbox::new();
    write_idx_set(&sandbox, "bomb", 20, 10, 4);
    fs::remove_file(sandbox.path("bomb/train-images-idx3-ubyte")).unwrap();
    let promise = idx(&[20, 12, 12], &[]);
    let file = fs::File::create(sandbox.path("bomb/train-images-idx3-ubyte.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    // Gzip members may follow one another: 4 MB each, written as often as it takes to fill 4 GB.
    std::io::Write::write_all(&mut encoder, &promise).unwrap();
    let file = encoder.finish().unwrap();
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut member, &vec![0; 4 << 20]).unwrap();
    let member = member.finish().unwrap();
    let mut file = std::io::BufWriter::new(file);
    for _ in 0..1000 {
        std::io::Write::write_all(&mut file, &member).unwrap();
    }
    drop(file);
    refused(&sandbox, "train --data bomb", 1, &["promises 2880 values, but more follow", FETCH]);
}

#[test]
fn bad_class_folders() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "whole", &["cat", "dog"], 3, 2);
    let small = "--set data.size=8 --batch-size 3 --epochs 1";
    let train = |dir: &str| format!("train --data {dir} {small} --out runs/{dir}");

    sandbox.copy("whole", "empty-class");
    fs::remove_dir_all(sandbox.path("empty-class/train/dog")).unwrap();
    fs::create_dir(sandbox.path("empty-class/train/dog")).unwrap();
    let parts =
        ["empty-class/train has no images of `dog`, but empty-class/val has", "hint: put the training"];
    refused(&sandbox, &train("empty-class"), 1, &parts);

    sandbox.copy("whole", "no-classes");
    fs::remove_dir_all(sandbox.path("no-classes/train")).unwrap();
    sandbox.copy("whole/train/cat", "no-classes/train");
    let parts = ["no-classes/train holds no class folders", "hint: one folder a class"];
    refused(&sandbox, &train("no-classes"), 1, &parts);

    sandbox.copy("whole", "no-val");
    fs::remove_dir_all(sandbox.path("no-val/val")).unwrap();
    refused(&sandbox, &train("no-val"), 1, &["no-val: no folder `val/` (or", "hint: class folders"]);

    sandbox.copy("whole", "stranger");
    fs::rename(sandbox.path("stranger/val/dog"), sandbox.path("stranger/val/fox")).unwrap();
    let parts = ["stranger/val has a class `fox` that stranger/train lacks", "hint: both splits"];
    refused(&sandbox, &train("stranger"), 1, &parts);

    let photo = sandbox.read("whole/train/cat/0.jpg");
    for (dir, contents, what) in [
        ("text", b"not a picture at all".as_slice(), "not an image (it starts with \"not a pictur\")"),
        ("nothing", b"", "the file is empty"),
        ("cut", &photo[..photo.len() / 3], ""),
    ] {
        let halves = if dir == "text" { ["train", "val"].as_slice() } else { &["train"] };
        for half in halves {
            let run = format!("{dir}-{half}");
            let file = format!("{run}/{half}/dog/1.jpg");
            sandbox.copy("whole", &run);
            sandbox.write(&file, contents);
            let message = format!("cannot decode {file}: {what}");
            refused(&sandbox, &train(&run), 1, &[&message, "hint: remove or replace the file"]);
        }
    }

    // A run that broke before its first step leaves no folder: with the data put right, the same command trains.
    assert!(!sandbox.path("runs/text-train").exists());
    sandbox.write("text-train/train/dog/1.jpg", &photo);
    sandbox.succeed(&train("text-train"));
}

#[test]
fn data_that_does_not_fit_the_network() {
    let sandbox = Sandbox::new();
    write_idx_set(&sandbox, "grey-4", 40, 11, 4);
    write_idx_set(&sandbox, "grey-6", 40, 11, 6);
    write_class_folders(&sandbox, "colour", &["cat", "dog"], 3, 2);
    sandbox.succeed("train --data grey-4 --epochs 1 --batch-size 20 --out run");
    refused(&sandbox, "eval run --data grey-6", 1, &["trained for 4 classes, but the data has 6", "hint"]);
    refused(&sandbox, "eval run --data colour", 1, &["takes 1 channel(s), but the images have 3", "hint"]);
    refused(&sandbox, "eval run --data nowhere", 1, &["the folder nowhere does not exist", "hint"]);
    // The data of a run may be replaced behind its back.
    fs::rename(sandbox.path("grey-4"), sandbox.path("gone")).unwrap();
    refused(&sandbox, "eval run", 1, &["/grey-4 does not exist", "hint"]);
    fs::rename(sandbox.path("grey-6"), sandbox.path("grey-4")).unwrap();
    fs::remove_file(sandbox.path("run/result.json")).unwrap();
    refused(&sandbox, "train --resume run", 1, &["belongs to another network", "`fc.weight` is [4, 64]"]);

    sandbox.copy("gone", "halves");
    sandbox.copy("grey-4", "six");
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::copy(sandbox.path("six").join(file), sandbox.path("halves").join(file)).unwrap();
    }
    let parts = ["the evaluation data has 6 classes, the training data 4", "hint: both splits"];
    refused(&sandbox, "train --data halves", 1, &parts);
    let parts = ["`data.mean` has 3 values, but the images have 1 channel(s)", "hint"];
    refused(&sandbox, "train --data gone --set data.mean=[0.5,0.5,0.5]", 2, &parts);
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn a_loss_that_is_no_number() {
    let sandbox = Sandbox::new();
    let parts = ["error: step ", "the loss is NaN, and the first output", "hint: lower `optim.lr`"];
    refused(&sandbox, &format!("train {TINY} --lr 1e30 --out run"), 1, &parts);
    assert!(!sandbox.path("run/result.json").exists(), "a lost run has no result");
    // Lost by the last step, which only the evaluation sees.
    let parts = [
        "evaluation after step 1: the logits of 23 of 23 images are NaN or infinite",
        "hint: lower `optim.lr`",
    ];
    let last_step = "--lr 1e30 --set train.duration=1st";
    refused(&sandbox, &format!("train {TINY} {last_step} --out last"), 1, &parts);
}

#[test]
fn a_batch_of_one_value_a_channel() {
    // Batch normalisation would save a variance of 0 / 0, and every later evaluation would be NaN.
    let sandbox = Sandbox::new();
    let parts =
        ["67 images in batches of 33 (`train.batch_size`) leave a batch of 1", "hint: choose another"];
    let command = format!("train {TINY} --batch-size 33 --set data.size=4 --out run");
    refused(&sandbox, &command, 2, &parts);
    sandbox.succeed(&command.replace("data.size=4", "data.size=8"));
}

#[test]
fn unknown_names() {
    let sandbox = Sandbox::new();
    for command in ["summary se-resent-50", "bench eval --model se-resent-50", "train --model se-resent-50"] {
        let parts = ["unknown network `se-resent-50`", "hint: did you mean `se-resnet-50`"];
        refused(&sandbox, command, 2, &parts);
    }
    refused(
        &sandbox,
        "summary transformer",
        2,
        &["unknown network `transformer`", "hint: `senet summary --list`"],
    );
    refused(&sandbox, "trian", 2, &["'trian'", "similar subcommand", "train"]);
    refused(&sandbox, "train --epoch 3", 2, &["'--epoch'", "--epochs"]);
    refused(
        &sandbox,
        "train --device tpu",
        2,
        &["unknown device `tpu`", "expected auto, cpu, cuda or cuda:N"],
    );
    refused(
        &sandbox,
        "train --device cuda:3",
        2,
        &["`cuda:3`, but 0 CUDA device(s)", "hint: `senet doctor`"],
    );
}

#[test]
fn impossible_ratios() {
    let sandbox = Sandbox::new();
    for ratio in ["0", "-3"] {
        let named = format!("`model.se.reduction` is {ratio}");
        let parts = [named.as_str(), "at least 1", "hint: the paper uses 16"];
        refused(&sandbox, &format!("summary se-resnet-20 --reduction {ratio}"), 2, &parts);
        setting_refused(&sandbox, &format!("model.se.reduction={ratio}"), &parts);
        let named = format!("`--ratios` holds {ratio}");
        let parts = [named.as_str(), "at least 1", "hint: the paper's are"];
        refused(&sandbox, &format!("ablate --ratios 4,{ratio}"), 2, &parts);
    }
    refused(&sandbox, "ablate --ratios 4,x,8", 2, &["'x'", "--ratios", "a whole number is expected"]);
    refused(&sandbox, "ablate --ratios 4,,8", 2, &["''", "--ratios", "a whole number is expected"]);
    refused(&sandbox, "ablate --ratios 4,8,4", 2, &["`--ratios` holds 4 twice"]);
    refused(&sandbox, "ablate", 2, &["nothing to compare", "--ratios 4,8,16,32", "--table 10"]);
    refused(&sandbox, "ablate --ratios 4 --model resnet-20", 2, &["`resnet-20` has no SE", "`se-resnet-20`"]);

    // Far above every width is no mistake: each block keeps one hidden channel, and that is said.
    let huge = sandbox.succeed("summary se-resnet-20 --reduction 1000000000000000000");
    assert!(huge.stdout.contains("1 where C/r < 1"), "{}", huge.stdout);
}

#[test]
fn damaged_checkpoints_give_way_to_the_one_before() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --epochs 2 --out whole"));
    let last = "checkpoints/last";
    let weights = sandbox.read(&format!("whole/{last}/model.safetensors"));
    let mut flipped = weights.clone();
    flipped[weights.len() - 1000] ^= 1;
    let state = sandbox.read(&format!("whole/{last}/state.json"));
    let cases: [(&str, &str, Option<&[u8]>); 5] = [
        ("truncated", "model.safetensors", Some(&weights[..weights.len() / 2])),
        ("flipped", "model.safetensors", Some(&flipped)),
        ("removed", "model.safetensors", None),
        ("half-state", "state.json", Some(&state[..state.len() / 2])),
        ("no-state", "state.json", None),
    ];
    for (run, file, contents) in cases {
        sandbox.copy("whole", run);
        let damage = |folder: &str| {
            let path = sandbox.path(&format!("{run}/checkpoints/{folder}/{file}"));
            match contents {
                Some(contents) => fs::write(path, contents).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        };
        damage("last");
        let words = format!("eval {run}");
        let saved = sandbox.succeed(&words);
        assert_calm(&words, &saved.stderr);
        for part in ["warning: ", &format!("{run}/{last}"), "using an earlier one, of step 5"] {
            assert!(saved.stderr.contains(part), "{words}\nno {part:?} in {}", saved.stderr);
        }
        if run == "flipped" {
            damage("last.previous");
        }
    }

    // Training goes on from the one before, to the same end.
    sandbox.copy("whole", "resumed");
    sandbox.write(&format!("resumed/{last}/model.safetensors"), &flipped);
    let resumed = sandbox.succeed("train --resume resumed");
    assert!(resumed.stderr.contains("going on after step 5 of 10"), "{}", resumed.stderr);
    assert!(sandbox.read(&format!("resumed/{last}/model.safetensors")) == weights, "the end differs");

    let parts = ["model.safetensors is damaged: it is not what was saved", "hint: ", "checkpoints/best"];
    refused(&sandbox, "eval flipped", 1, &parts);
    refused(&sandbox, "train --resume flipped", 1, &parts);
    sandbox.succeed("eval flipped --checkpoint best");
}

#[test]
fn a_checkpoint_of_another_network() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    for (other, settings, complaint) in [
        ("deeper", "--model se-resnet-32", "`layer1.3.bn1.bias` is left over"),
        ("plain", "--model resnet-20", "`layer1.0.se.fc1.weight` is missing"),
        (
            "ratio",
            "--set model.se.reduction=4",
            "`layer1.0.se.fc1.weight` is [4, 16, 1, 1], not [1, 16, 1, 1]",
        ),
    ] {
        sandbox.succeed(&format!("train {TINY} --out {other} {settings}"));
        fs::remove_dir_all(sandbox.path("run/checkpoints")).unwrap();
        sandbox.copy(&format!("{other}/checkpoints"), "run/checkpoints");
        let parts = ["run/checkpoints/last is the checkpoint of another run", "hint: restore"];
        for command in ["eval run", "train --resume run"] {
            refused(&sandbox, command, 1, &parts);
        }
        // As older versions saved it: without the run's id and without a checksum.
        for checkpoint in ["last", "best"] {
            let path = format!("run/checkpoints/{checkpoint}/state.json");
            let mut state = sandbox.read_json(&path);
            for key in ["run", "sha256"] {
                state.as_object_mut().unwrap().remove(key).unwrap();
            }
            sandbox.write(&path, state.to_string());
        }
        let parts =
            ["run/checkpoints/last/model.safetensors belongs to another network", complaint, "hint: `model`"];
        for command in ["eval run", "train --resume run"] {
            refused(&sandbox, command, 1, &parts);
        }
    }
}

#[test]
fn run_folders_that_are_none_or_taken() {
    let sandbox = Sandbox::new();
    let none = ["runs holds no run with a checkpoint", "hint: `senet train` makes one"];
    refused(&sandbox, "eval", 1, &none);
    refused(&sandbox, "train --resume", 1, &none);
    let none = ["nowhere is not the folder of a run", "no config.json", "hint: `senet train` makes one"];
    refused(&sandbox, "eval nowhere", 1, &none);
    refused(&sandbox, "train --resume nowhere", 1, &none);

    // Below a regular file no folder can be made, not even by root.
    sandbox.write("file", "in the way");
    let parts = ["cannot create the folder file/run", "hint: `--out`"];
    refused(&sandbox, &format!("train {TINY} --out file/run"), 1, &parts);
    refused(
        &sandbox,
        &format!("ablate --ratios 4 {TINY} --out file/rows"),
        1,
        &["cannot create", "hint: `--out`"],
    );
    refused(
        &sandbox,
        &format!("train {TINY} --out file"),
        2,
        &["file exists already", "hint: choose another"],
    );

    sandbox.succeed(&format!("train {TINY} --out run"));
    let before = sandbox.read("run/checkpoints/last/model.safetensors");
    let parts = ["run exists already", "hint: `senet train --resume run` continues it"];
    refused(&sandbox, &format!("train {TINY} --out run"), 2, &parts);
    assert!(sandbox.read("run/checkpoints/last/model.safetensors") == before, "a run is never overwritten");
    refused(&sandbox, "train run", 2, &["cannot read run", "hint: `senet train --resume run`"]);
    refused(&sandbox, "train --resume run --epochs 3", 2, &["--epochs", "--resume"]);

    // A comparison with other settings is another comparison.
    sandbox.succeed(&format!("ablate --ratios 4 {TINY} --out rows"));
    let other = format!("ablate --ratios 4 {TINY} --out rows --lr 0.7");
    refused(&sandbox, &other, 2, &["rows belongs to another comparison", "hint"]);
    refused(&sandbox, &format!("ablate --ratios 4 {TINY} --out run"), 2, &["run exists already", "hint"]);

    fs::remove_dir_all(sandbox.path("run/checkpoints")).unwrap();
    refused(&sandbox, "eval run", 1, &["no checkpoint in run/checkpoints/last", "hint"]);
    sandbox.write("run/config.json", "{\"model\": ");
    refused(&sandbox, "eval run", 2, &["run/config.json: not JSON", "hint"]);
}

#[test]
fn a_full_disk() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    fs::remove_file(sandbox.path("run/events.jsonl")).unwrap();
    fs::remove_file(sandbox.path("run/result.json")).unwrap();
    std::os::unix::fs::symlink("/dev/full", sandbox.path("run/events.jsonl")).unwrap();
    refused(&sandbox, "train --resume run", 1, &["cannot write run/events.jsonl", "No space left"]);
}

#[test]
fn configurations_that_are_none() {
    let sandbox = Sandbox::new();
    let json = "hint: a configuration is one JSON object";
    for (name, contents, parts) in [
        ("empty.json", b"".as_slice(), ["empty.json: not JSON", json]),
        ("yaml.json", b"optim:\n  lr: 0.1\n", ["yaml.json: not JSON", json]),
        ("comma.json", b"{\"seed\": 1,}", ["comma.json: not JSON: trailing comma at line 1", json]),
        ("list.json", b"[1, 2]", ["list.json: a JSON object is expected", "hint: for example"]),
        ("bytes.json", b"\xff\xfe\x00", ["cannot read bytes.json", "hint: name a configuration"]),
    ] {
        sandbox.write(name, contents);
        refused(&sandbox, &format!("train {name}"), 2, &parts);
    }
    let deep = format!("{{\"about\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    sandbox.write("deep.json", deep);
    refused(&sandbox, "train deep.json", 2, &["deep.json: not JSON: recursion limit", json]);
    refused(&sandbox, "train nowhere.json", 2, &["cannot read nowhere.json", "hint: name a configuration"]);

    sandbox.write("key.json", r#"{"optim": {"momentun": 0.8}}"#);
    let parts = [
        "key.json: unknown key `optim.momentun`",
        "expected one of momentum, ",
        "hint: did you mean `momentum`?",
    ];
    refused(&sandbox, "train key.json", 2, &parts);
    sandbox.write("type.json", r#"{"optim": 3}"#);
    refused(&sandbox, "ablate type.json --ratios 4", 2, &["type.json: `optim`", "expected an object"]);
}

#[test]
fn settings_of_another_type() {
    let sandbox = Sandbox::new();
    setting_refused(
        &sandbox,
        "optim.lrate=1",
        &["unknown key `optim.lrate`", "expected one of momentum, nesterov, lr"],
    );
    setting_refused(&sandbox, "seed=-1", &["`seed`", "`-1`", "expected a whole number, 0 or more"]);
    setting_refused(&sandbox, "model.name=7", &["`model.name`", "`7`", "expected a string"]);
    setting_refused(&sandbox, "model.se.bias=yes", &["`model.se.bias`", "\"yes\"", "expected true or false"]);
    setting_refused(
        &sandbox,
        "schedule.kind=step",
        &["missing field `every`", "hint: give all of it at once"],
    );
    setting_refused(&sandbox, "lr", &["`--set lr`: KEY=VALUE is expected", "hint: for example"]);
    setting_refused(&sandbox, "train.duration=90", &["`90` is no length of training", "\"90ep\""]);
    setting_refused(&sandbox, "name=../elsewhere", &["`name` is \"../elsewhere\"", "hint"]);
}

#[test]
fn numbers_beyond_all_machines() {
    let sandbox = Sandbox::new();
    for (key, value, limit) in [
        ("train.batch_size", "1000000000000", "from 1 to 1000000"),
        ("data.size", "1000000000", "from 1 to 16384"),
        ("threads", "1000000000", "from 1 to 1024"),
        ("data.synthetic.classes", "1000000000000", "from 1 to 100000"),
        ("train.batch_size", "0", "from 1 to 1000000"),
    ] {
        let settings = format!("data.source=synthetic --set {key}={value}");
        setting_refused(&sandbox, &settings, &[&format!("`{key}` is {value}, but it must be"), limit]);
    }
    let made_up = "data.source=synthetic --set";
    for (setting, parts) in [
        ("data.std=[1e-300,1,1]", ["`data.std` holds 1e-300", "hint"]),
        ("data.limit=0", ["`data.limit` is 0", "training needs samples"]),
        ("schedule.end=-5", ["`schedule.end` is -5", "must be from 0 to 1"]),
        ("schedule.warmup=100000000000000000000st", ["1e20 steps has no end", "up to 1000000000000"]),
        ("train.duration=0st", ["`train.duration` is 0st, less than one step", "hint: for example"]),
        (r#"schedule={"kind":"step","every":"0st"}"#, ["`schedule.every` is 0st", "less than one step"]),
    ] {
        setting_refused(&sandbox, &format!("{made_up} {setting}"), &parts);
    }
    for (flags, parts) in [
        ("--epochs nan", ["'nan'", "a number is expected"]),
        ("--epochs inf", ["'inf'", "a number is expected"]),
        ("--epochs -1", ["`-1ep` is no length of training", "\"90ep\" (epochs)"]),
        ("--epochs 1e300", ["1e300 epochs has no end", "up to 1000000"]),
        ("--epochs 0", ["`train.duration` is 0ep, less than one step", "hint: for example"]),
        ("--lr nan", ["'nan'", "a number is expected"]),
        ("--batch-size -1", ["'-1'", "--batch-size"]),
    ] {
        setting_refused(&sandbox, &format!("data.source=synthetic {flags}"), &parts);
    }
}

#[test]
fn summaries_beyond_all_machines() {
    let sandbox = Sandbox::new();
    for classes in ["0", "-1", "1000000000000"] {
        let named = format!("a network of {classes} classes");
        let parts = [named.as_str(), "1 to 1000000 are possible", "hint"];
        refused(&sandbox, &format!("summary se-resnet-50 --classes {classes}"), 2, &parts);
    }
    for size in ["0", "1000000000"] {
        refused(&sandbox, &format!("summary se-resnet-50 --size {size}"), 2, &[size, "--size"]);
    }
    let parts = [
        "the input is too small: nothing is left of 64 × 1 × 1 at `maxpool`",
        "hint: use a larger",
        "--size",
    ];
    refused(&sandbox, "summary se-resnet-50 --size 2", 2, &parts);
    let parts = ["the input is too small", "hint: use a larger `data.size`"];
    refused(&sandbox, &format!("train {TINY} --model se-resnet-50 --set data.size=2"), 2, &parts);
    sandbox.succeed("summary se-resnet-50 --size 16384 --classes 1000000");
}

#[test]
fn batches_beyond_all_machines() {
    let sandbox = Sandbox::new();
    for flags in
        ["--batch-size 0", "--batch-size 4294967295", "--size 1000000000", "--steps 0", "--threads 4096"]
    {
        let (flag, value) = flags.split_once(' ').unwrap();
        refused(
            &sandbox,
            &format!("bench train {flags}"),
            2,
            &[flag, &format!("'{value}'"), "is not in 1.."],
        );
    }
    // Within each limit, and together far beyond any memory.
    let parts = ["cannot make a batch of 1000000 images of 16384 × 16384: not enough memory", "hint: lower"];
    refused(&sandbox, "bench train --model se-resnet-20 --batch-size 1000000 --size 16384", 1, &parts);
    let parts =
        ["no memory for a batch of 1000000 images of 16384 × 16384", "hint: lower `train.batch_size`"];
    let made_up = "--set data.source=synthetic --set data.synthetic.train=1000000 --set data.size=16384";
    refused(&sandbox, &format!("train {made_up} --batch-size 1000000 --out run"), 1, &parts);
    refused(&sandbox, "bench nothing", 2, &["'nothing'", "train", "eval"]);
}
