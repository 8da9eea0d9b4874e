//! Evaluations beside the plain one: other sizes and crops, other classes and labels, and what is told of each class and
//! image; calibration and crops against numpy and torchvision (tests/golden/evaluation.json, made by
//! scripts/golden_evaluation.py).

mod common;
mod filled;

use common::{Sandbox, TINY, fields, refused, write_class_folders};
use filled::{filled_net, numbers, spec, uniform};
use image::{ImageFormat, Rgb, RgbImage};
use senet::data::augment::crop::corner_and_centre_windows;
use senet::metrics::by_class::PerClass;
use senet::metrics::calibration::Reliability;
use senet::metrics::guesses::Guesses;
use senet::models;
use senet::weights::{About, safetensors};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use tch::Tensor;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/evaluation.json")).unwrap()
}

fn whole(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

#[test]
fn calibration_and_counts_are_numpys() {
    let golden = golden();
    let (samples, classes) = (whole(&golden["samples"]), whole(&golden["classes"]));
    for case in golden["calibration"].as_array().unwrap() {
        let (name, scale) = (case["name"].as_str().unwrap(), case["scale"].as_f64().unwrap() as f32);
        let logits: Vec<f32> =
            uniform(name, samples * classes).iter().map(|value| (value - 0.5) * scale).collect();
        let labels: Vec<i64> = case["labels"].as_array().unwrap().iter().map(whole).collect();
        let logits = Tensor::from_slice(&logits).view([samples, classes]);
        let guesses = Guesses::read(&logits, &Tensor::from_slice(&labels)).unwrap();
        let (mut reliability, mut per_class) = (Reliability::default(), PerClass::new(classes as usize));
        for (guess, expected) in guesses.iter().zip(numbers(&case["of_label"])) {
            assert!((guess.of_label - expected).abs() < 1e-9, "{name}: {guess:?}, expected {expected}");
            reliability.add(&guess);
            per_class.add(&guess);
        }
        let found = reliability.calibration();
        let ece = case["ece"].as_f64().unwrap();
        assert!((found.ece - ece).abs() < 1e-9, "{name}: {} instead of {ece}", found.ece);
        for (bin, expected) in found.bins.iter().zip(case["bins"].as_array().unwrap()) {
            assert_eq!(bin.seen as i64, whole(&expected["seen"]), "{name}: {bin:?}");
            for (found, key) in [(bin.accuracy, "accuracy"), (bin.confidence, "confidence")] {
                let expected = expected[key].as_f64();
                let off = found.unwrap_or(0.0) - expected.unwrap_or(0.0);
                assert!(found.is_some() == expected.is_some() && off.abs() < 1e-9, "{name}: {bin:?}");
            }
        }
        let top5: u64 = per_class.counts().iter().map(|counts| counts.top5).sum();
        assert_eq!(top5 as i64, whole(&case["top5"]), "{name}");
        for (key, figure) in [("recall", true), ("precision", false)] {
            for (counts, expected) in per_class.counts().iter().zip(numbers(&case[key])) {
                let found = if figure { counts.top1_accuracy() } else { counts.precision() };
                assert!((found.unwrap() - expected).abs() < 1e-12, "{name}: {key} of {counts:?}");
            }
        }
    }
}

#[test]
fn five_crops_are_where_torchvision_takes_them() {
    for case in golden()["crops"].as_array().unwrap() {
        let [width, height, resize, size] =
            ["width", "height", "resize", "size"].map(|key| whole(&case[key]) as usize);
        let resized = numbers(&case["resized"]);
        let scale = [width as f64 / resized[0], height as f64 / resized[1]];
        let windows = corner_and_centre_windows(width, height, resize, size);
        for (window, corner) in windows.iter().zip(case["corners"].as_array().unwrap()) {
            let corner = numbers(corner);
            let found = [window.x / scale[0], window.y / scale[1], window.width / scale[0]];
            let expected = [corner[0], corner[1], size as f64];
            let off = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
            assert!(off.fold(0.0, f64::max) < 1e-9, "{case}: {window:?}");
        }
    }
}

/// Puts an image of 24 × 18 there whose pixels its seed says.
fn put_picture(sandbox: &Sandbox, name: &str, seed: usize, mirrored: bool) {
    let path = sandbox.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut picture = RgbImage::from_fn(24, 18, |x, y| {
        let value = |factor: usize| ((seed + 3) * (x as usize * factor + y as usize * 5) % 251) as u8;
        Rgb([value(1), value(7), (seed * 37 % 256) as u8])
    });
    if mirrored {
        image::imageops::flip_horizontal_in_place(&mut picture);
    }
    picture.save_with_format(path, ImageFormat::Png).unwrap();
}

/// Class folders, a run that was trained on them, and the same evaluation images mirrored.
fn trained_on_pictures() -> Sandbox {
    let sandbox = Sandbox::new();
    for (class, name) in ["ant", "bee", "cat, tom", "dog"].iter().enumerate() {
        for image in 0..4 {
            let seed = class + 17 * image;
            put_picture(&sandbox, &format!("photos/train/{name}/{image}.png"), seed, false);
            put_picture(&sandbox, &format!("photos/val/{name}/{image}.png"), seed + 7, false);
            put_picture(&sandbox, &format!("mirrored/val/{name}/{image}.png"), seed + 7, true);
        }
    }
    sandbox.succeed(
        "train --data photos --set data.size=12 --set data.resize=14 --batch-size 8 --epochs 3 --out run",
    );
    sandbox
}

fn loss(document: &Value) -> f64 {
    document["loss"].as_f64().unwrap()
}

/// The cells of a CSV file, its heading first.
fn cells(sandbox: &Sandbox, name: &str) -> Vec<Vec<String>> {
    let text = String::from_utf8(sandbox.read(name)).unwrap();
    let line = |line: &str| {
        let mut cells = vec![String::new()];
        let mut inside = false;
        for letter in line.chars() {
            match letter {
                '"' => inside = !inside,
                ',' if !inside => cells.push(String::new()),
                other => cells.last_mut().unwrap().push(other),
            }
        }
        cells
    };
    text.lines().map(line).collect()
}

#[test]
fn other_sizes_and_crops() {
    let sandbox = trained_on_pictures();
    let eval = |words: &str| sandbox.succeed(&format!("eval run --json {words}")).json();
    let plain = eval("");
    let context = ["run", "model", "checkpoint", "step"];
    let counts = ["seen", "top1", "top5", "loss"];
    assert_eq!(fields(&plain), [&context[..], &["preprocessing"], &counts].concat());
    // Trained at 12 of 14 pixels.
    assert_eq!(eval("--size 12 --resize 14")["loss"], plain["loss"]);
    for (words, size, resize) in [
        ("--size 16", 16, 19),
        ("--resize 18", 12, 18),
        ("--crop-ratio 1.0", 12, 12),
        ("--size 14 --crop-ratio 0.875", 14, 16),
    ] {
        let found = eval(words);
        assert_eq!(
            fields(&found),
            [&context[..], &["size", "resize", "preprocessing"], &counts[..]].concat()
        );
        assert_eq!((&found["size"], &found["resize"]), (&size.into(), &resize.into()), "{words}");
        assert_eq!(found["seen"], 16, "{words}");
        assert_ne!(found["loss"], plain["loss"], "{words}");
    }
    // A mean over an image and its mirror image does not know which of them is the image.
    for (words, crops) in [("--crops flip", "flip"), ("--crops ten --resize 18 --batch-size 5", "ten")] {
        let found = eval(words);
        assert_eq!((&found["crops"], &found["seen"]), (&crops.into(), &16.into()));
        assert_ne!(found["loss"], plain["loss"], "{crops}");
        let mirrored = eval(&format!("{words} --data mirrored"));
        assert_eq!(mirrored["top1"], found["top1"], "{crops}");
        assert!((loss(&mirrored) - loss(&found)).abs() < 1e-4, "{crops}: {mirrored}, but {found}");
    }
    assert_ne!(eval("--data mirrored")["loss"], plain["loss"]);
    assert_eq!(eval("--crops centre")["loss"], plain["loss"]);

    let refuse = |words: &str, parts: &[&str]| refused(&sandbox, &format!("eval run {words}"), 2, parts);
    refuse("--size 20 --resize 16", &["a crop of 20 × 20 pixels", "short side 16", "hint"]);
    refuse("--crop-ratio 0.00001", &["more than 32768", "hint"]);
    for ratio in ["0", "1.5", "-1", "NaN", "half"] {
        refuse(&format!("--crop-ratio {ratio}"), &["a number above 0, up to 1"]);
    }
    refuse("--size 0", &["0 is not in 1..="]);
    refuse("--crop-ratio 1 --resize 14", &["cannot be used with"]);
    refuse("--crops five", &["center", "flip", "ten"]);
}

#[test]
fn tables_of_classes_and_images_agree_with_the_counts() {
    let sandbox = trained_on_pictures();
    let tables = "--per-class classes.csv --confusion matrix.csv --predictions images.csv --calibration";
    let found = sandbox.succeed(&format!("eval run --json --batch-size 3 {tables}")).json();
    let correct = whole(&found["top1"]["correct"]);

    let classes = cells(&sandbox, "classes.csv");
    let heading = "class,index,seen,top1_correct,top1,top5_correct,top5,precision";
    assert_eq!(classes[0].join(","), heading);
    assert_eq!(
        classes[1..].iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        ["ant", "bee", "cat, tom", "dog"]
    );
    let sum = |column: usize| classes[1..].iter().map(|row| row[column].parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!((sum(2), sum(3), sum(5)), (16, correct, 16));

    let matrix = cells(&sandbox, "matrix.csv");
    assert_eq!(matrix[0], ["label", "ant", "bee", "cat, tom", "dog"]);
    let count = |row: usize, column: usize| matrix[row][column].parse::<i64>().unwrap();
    assert_eq!((1..5).map(|class| count(class, class)).sum::<i64>(), correct);
    assert!((1..5).all(|class| (1..5).map(|column| count(class, column)).sum::<i64>() == 4));

    let images = cells(&sandbox, "images.csv");
    let heading = "image,label,predicted,correct,probability,label_probability,class1,probability1,class2,\
                   probability2,class3,probability3,class4,probability4";
    assert_eq!((images[0].join(",").as_str(), images.len()), (heading, 17));
    let number = |row: &[String], column: usize| row[column].parse::<f64>().unwrap();
    let mut losses = 0.0;
    for (at, row) in images[1..].iter().enumerate() {
        assert_eq!(row[0], format!("val/{}/{}.png", row[1], at % 4));
        assert_eq!(row[3], (row[1] == row[2]).to_string());
        assert_eq!((&row[2], &row[4]), (&row[6], &row[7]));
        let all: f64 = [7, 9, 11, 13].iter().map(|&column| number(row, column)).sum();
        assert!((all - 1.0).abs() < 1e-5, "{row:?}");
        assert!(number(row, 7) >= number(row, 9), "{row:?}");
        losses -= number(row, 5).ln();
    }
    assert_eq!(images.iter().filter(|row| row[3] == "true").count() as i64, correct);
    assert!((losses / 16.0 - loss(&found)).abs() < 1e-4, "{losses}, but {found}");

    let calibration = &found["calibration"];
    assert_eq!(fields(calibration), ["ece", "bins"]);
    let bins = calibration["bins"].as_array().unwrap();
    assert_eq!(fields(&bins[0]), ["from", "to", "seen", "accuracy", "confidence"]);
    assert_eq!((bins.len(), bins.iter().map(|bin| whole(&bin["seen"])).sum::<i64>()), (15, 16));
    let text = sandbox.succeed("eval run --calibration").stdout;
    let ece = calibration["ece"].as_f64().unwrap();
    assert!(text.contains(&format!("ECE    {:>6.2} %\n", 100.0 * ece)), "{text}");
    assert_eq!(text.lines().count(), 2 + 1 + 17, "{text}");

    // The last table is as good as the first, and nothing is left beside them.
    sandbox.succeed("eval run --per-class classes.csv");
    assert_eq!(cells(&sandbox, "classes.csv"), classes);
    assert!(sandbox.list("").iter().all(|name| !name.contains("partial")), "{:?}", sandbox.list(""));
    refused(&sandbox, "eval run --confusion no/where.csv", 1, &["cannot write no/where.csv"]);
    refused(&sandbox, "eval run --predictions photos", 1, &["cannot write photos"]);
    let config = sandbox.read("run/config.json");
    for table in ["--per-class", "--confusion", "--predictions"] {
        let words = format!("eval run {table} run/config.json");
        refused(
            &sandbox,
            &words,
            1,
            &["run/config.json exists already", "not a file of this kind", "`--force`"],
        );
        assert_eq!(sandbox.read("run/config.json"), config);
        sandbox.write("mine.csv", "name,phone\n");
        refused(&sandbox, &format!("eval run {table} mine.csv"), 1, &["mine.csv exists already"]);
        sandbox.succeed(&format!("eval run {table} mine.csv --force"));
        sandbox.succeed(&format!("eval run {table} mine.csv"));
    }
    let twice = "eval run --predictions a.csv --confusion a.csv";
    refused(&sandbox, twice, 2, &["two tables cannot both be written to a.csv", "hint"]);
}

#[test]
fn a_part_of_the_classes_is_found_by_name() {
    let sandbox = trained_on_pictures();
    for name in ["dog", "bee"] {
        sandbox.copy(&format!("photos/val/{name}"), &format!("part/val/{name}"));
    }
    let plain = sandbox.succeed("eval run --json --per-class all.csv").json();
    let part = sandbox.succeed("eval run --data part --json --per-class part.csv");
    assert!(part.stderr.contains("2 of the network's 4 classes; guesses are among all"), "{}", part.stderr);
    assert_eq!(part.json()["seen"], 8);
    // What was right among all classes is right again; only the other classes' rows are empty.
    let (all, some) = (cells(&sandbox, "all.csv"), cells(&sandbox, "part.csv"));
    for (row, seen) in [(2, true), (4, true), (1, false), (3, false)] {
        let expected = if seen { all[row][2..7].join(",") } else { "0,0,,0,".to_string() };
        assert_eq!(some[row][2..7].join(","), expected, "{}", some[row][0]);
    }
    let subset = "eval run --data part --subset --json --predictions part-images.csv";
    let subset = sandbox.succeed(subset).json();
    assert_eq!(
        (&subset["subset"], &subset["seen"], &subset["top5"]["correct"]),
        (&2.into(), &8.into(), &8.into())
    );
    assert!(whole(&subset["top1"]["correct"]) >= whole(&part.json()["top1"]["correct"]));
    assert!(loss(&subset) < loss(&part.json()), "{subset}");
    for row in &cells(&sandbox, "part-images.csv")[1..] {
        assert!(["bee", "dog"].contains(&row[2].as_str()) && row.len() == 10, "{row:?}");
    }
    // Nothing to leave out.
    let whole_subset = sandbox.succeed("eval run --subset --json").json();
    assert_eq!((&whole_subset["loss"], &whole_subset["subset"]), (&plain["loss"], &4.into()));
    sandbox.copy("photos/val/ant", "strange/val/fox");
    refused(&sandbox, "eval run --data strange", 1, &["class `fox`, which is none of the 4", "hint"]);
    // Folders that are mere numbers mean nothing to a network whose classes have names.
    for (number, name) in ["ant", "bee", "cat, tom", "dog"].iter().enumerate() {
        sandbox.copy(&format!("photos/val/{name}"), &format!("numbers/val/{number}"));
    }
    refused(&sandbox, "eval run --data numbers", 1, &["class `0`, which is none of the 4", "hint"]);
}

/// ImageNet in small: an image a class to train and to evaluate on, the latter numbered in another order than the
/// folders', in folders by WordNet id, and a run.
fn trained_on_imagenet() -> (Sandbox, Vec<(&'static str, &'static str)>) {
    let sandbox = Sandbox::new();
    let classes: Vec<_> = models::imagenet_classes().collect();
    for (class, (id, _)) in classes.iter().enumerate() {
        put_picture(&sandbox, &format!("imagenet/train/{id}/1.png"), class, false);
        let number = number_of(class);
        put_picture(
            &sandbox,
            &format!("imagenet/val/{id}/ILSVRC2012_val_{number:08}.JPEG"),
            class + 5,
            false,
        );
    }
    sandbox.succeed("train --data imagenet --set data.size=8 --batch-size 100 --epochs 1 --out run");
    (sandbox, classes)
}

/// The number of a class's image.
fn number_of(class: usize) -> usize {
    50_000 - 7 * class
}

#[test]
fn imagenets_other_validation_sets() {
    let (sandbox, classes) = trained_on_imagenet();
    let plain = sandbox.succeed("eval run --json --predictions images.csv").json();
    assert_eq!(plain["seen"], 1000);
    let images = cells(&sandbox, "images.csv");

    // ImageNet-V2: folders that are labels, sorted as text.
    for (class, (id, _)) in classes.iter().enumerate() {
        sandbox.copy(&format!("imagenet/val/{id}"), &format!("v2/{class}"));
    }
    let other = sandbox.succeed("eval run --data v2 --json").json();
    assert_eq!(
        (&other["seen"], &other["top1"], &other["top5"]),
        (&plain["seen"], &plain["top1"], &plain["top5"])
    );
    assert!((loss(&other) - loss(&plain)).abs() < 1e-3, "{other}, but {plain}");
    // ImageNet-R: some of the classes.
    for (id, _) in classes.iter().step_by(5) {
        sandbox.copy(&format!("imagenet/val/{id}"), &format!("r/{id}"));
    }
    let words = "eval run --data r --subset --json --predictions r.csv";
    let subset = sandbox.succeed(words);
    assert!(subset.stderr.contains("200 of the network's 1000 classes; guesses are among these alone"));
    assert_eq!((&subset.json()["subset"], &subset.json()["seen"]), (&200.into(), &200.into()));
    let chosen: Vec<&str> = classes.iter().step_by(5).map(|(_, name)| *name).collect();
    for (row, label) in cells(&sandbox, "r.csv")[1..].iter().zip(&chosen) {
        assert_eq!(row[1], *label);
        assert!(chosen.contains(&row[2].as_str()), "{row:?}");
    }

    // ReaL: a third of the images without a label, a third with the predicted one among others, a third with another.
    let label_of: HashMap<&str, usize> = classes.iter().map(|(_, name)| *name).zip(0..).collect();
    let mut real = vec![Vec::new(); 50_000];
    for (class, row) in images[1..].iter().enumerate() {
        let predicted = label_of[row[2].as_str()];
        real[number_of(class) - 1] = match class % 3 {
            0 => vec![],
            1 => vec![(predicted + 1) % 1000, predicted],
            _ => vec![(predicted + 1) % 1000],
        };
    }
    sandbox.write("real.json", json!(real).to_string());
    let found = sandbox.succeed("eval run --labels real.json --json").json();
    assert_eq!(found["real"], json!({"seen": 666, "correct": 333, "accuracy": 0.5}));
    assert_eq!((&found["seen"], &found["top1"]), (&plain["seen"], &plain["top1"]));
    let text = sandbox.succeed("eval run --labels real.json").stdout;
    assert!(text.ends_with("ReaL    50.00 %   333 of 666\n"), "{text}");

    let refuse = |labels: &str, parts: &[&str]| {
        sandbox.write("bad.json", labels);
        refused(&sandbox, "eval run --labels bad.json", 1, &[&["bad.json: ", "hint"], parts].concat());
    };
    real[49_999] = vec![1000];
    refuse(&json!(real).to_string(), &["image 50000 has the label 1000"]);
    refuse(&json!(real[..9]).to_string(), &["50000 lists are expected, one an image, but there are 9"]);
    refuse("{\"1\": [2]}", &["no list of lists of labels"]);
    refuse(&"[".repeat(100_000), &["no list of lists of labels"]);
    refuse(&"[".repeat(9 << 20), &["9437184 bytes, more than such a file has"]);
    refused(&sandbox, "eval run --labels none.json", 1, &["cannot read none.json"]);
    put_picture(&sandbox, "imagenet/val/n01440764/tench.png", 0, false);
    let parts = ["val/n01440764/tench.png: the name does not say which image", "hint"];
    refused(&sandbox, "eval run --labels real.json", 1, &parts);
}

#[test]
fn real_labels_are_for_imagenet() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    sandbox.write("real.json", "[]");
    let parts = ["ReaL labels are ImageNet's, and the network knows none", "hint"];
    refused(&sandbox, "eval run --labels real.json", 1, &parts);
}

/// Writes weights of a resnet-20 whose logits are equal for all classes: `scale` times the sum of the last features.
fn write_ties(sandbox: &Sandbox, name: &str, scale: f64) {
    let net = filled_net(&spec("resnet-20"), 7);
    let tensor = |tensor: &Tensor, value: f64| tensor.detach().full_like(value);
    let values = net.tensors().iter().map(|named| {
        let value = match named.param.name.as_str() {
            "fc.weight" => tensor(&named.tensor, scale),
            "fc.bias" => tensor(&named.tensor, 0.0),
            _ => named.tensor.detach(),
        };
        (named.param.name.clone(), value)
    });
    let about = About { model: Some("resnet-20".to_string()), ..About::default() };
    sandbox.write(name, safetensors::write(&values.collect::<Vec<_>>(), &about).unwrap());
}

const SEVEN: [&str; 7] = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"];

#[test]
fn of_equal_logits_the_lower_class_is_predicted_and_counted() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &SEVEN, 1, 2);
    write_ties(&sandbox, "w.safetensors", 1.0);
    let words = "--weights w.safetensors --json";
    let predicted = sandbox.succeed(&format!("predict {words} --logits data/val")).json();
    for prediction in predicted.as_array().unwrap() {
        let logits = numbers(&prediction["logits"]);
        assert!(logits.iter().all(|logit| *logit == logits[0]), "{logits:?}");
        let top: Vec<i64> =
            prediction["top"].as_array().unwrap().iter().map(|p| whole(&p["class"])).collect();
        assert_eq!(top, [0, 1, 2, 3, 4]);
    }
    let tables = "--predictions images.csv --per-class classes.csv";
    let found = sandbox.succeed(&format!("eval {words} --data data --batch-size 5 {tables}")).json();
    assert_eq!((whole(&found["top1"]["correct"]), whole(&found["top5"]["correct"])), (2, 10), "{found}");
    assert!(cells(&sandbox, "images.csv")[1..].iter().all(|row| row[2] == "ant"));
    let classes = cells(&sandbox, "classes.csv");
    let sum = |column: usize| classes[1..].iter().map(|row| row[column].parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!((sum(3), sum(5)), (2, 10));
}

#[test]
fn logits_that_are_not_finite_are_an_error_with_the_first_image() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &SEVEN, 1, 2);
    write_ties(&sandbox, "w.safetensors", 1.0);
    let words = "predict --weights w.safetensors --json --logits data/val";
    let finite = sandbox.succeed(words).json();
    let logit_of = |prediction: &Value| numbers(&prediction["logits"])[0];
    let mut logits: Vec<f64> = finite.as_array().unwrap().iter().map(logit_of).collect();
    logits.sort_by(f64::total_cmp);
    // Some overflow and some do not: the limit lies in the widest gap of the larger half.
    let gaps = logits.windows(2).skip(6).map(|pair| (pair[1] / pair[0], (pair[0] * pair[1]).sqrt()));
    let (gap, limit) = gaps.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(logits[0] > 0.0 && gap > 1.0001, "{logits:?}");
    let fails = |prediction: &&Value| logit_of(prediction) > limit;
    let failed: Vec<&Value> = finite.as_array().unwrap().iter().filter(fails).collect();
    let first = failed[0]["image"].as_str().unwrap();
    write_ties(&sandbox, "w.safetensors", f64::from(f32::MAX) / limit);

    let told = format!("error: the logits of {} of 14 images are NaN or infinite; ", failed.len());
    let predicted = sandbox.senet(words);
    assert_eq!(predicted.code, 1, "{}", predicted.stderr);
    for part in [&*told, first, "hint: "] {
        assert!(predicted.stderr.contains(part), "no {part:?} in {}", predicted.stderr);
    }
    // The others have their predictions.
    assert_eq!(predicted.json().as_array().unwrap().len(), 14 - failed.len());
    // An image by itself is no other than among others.
    refused(&sandbox, &format!("predict --weights w.safetensors --json {first}"), 1, &[first, "of 1 images"]);

    let eval = "eval --weights w.safetensors --data data --json";
    for more in ["", "--batch-size 1", "--predictions images.csv", "--crops flip"] {
        refused(&sandbox, &format!("{eval} {more}"), 1, &["images are NaN or infinite; ", "hint: "]);
    }
    refused(&sandbox, eval, 1, &[&told, first]);
    assert!(!sandbox.path("images.csv").exists(), "a table of an evaluation without a result");
}
