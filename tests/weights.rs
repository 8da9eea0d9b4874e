//! Weights come in from other libraries and go out to them, whole or not at all; a network names what is in images.

mod common;
mod filled;

use common::{Sandbox, TINY, fields, refused, write_class_folders, write_image};
use filled::{doubles, filled_net, input, relative_error, spec, uniform};
use image::ImageFormat;
use prost::Message;
use senet::error::problem;
use senet::models::{Head, ModelSpec, find};
use senet::net::build::Net;
use senet::net::cost::count;
use senet::net::plan::InferencePlan;
use senet::weights::names::Scheme;
use senet::weights::{About, Weights, pickle, safetensors};
use serde_json::Value;
use std::io::{Cursor, Write};
use std::path::Path;
use tch::Tensor;

/// The network's tensors, named by `scheme`.
fn named(net: &Net, model: &str, scheme: Scheme) -> Vec<(String, Tensor)> {
    let (entry, _) = find(model).unwrap();
    let tensors = net.tensors().iter();
    tensors.map(|t| (scheme.from_ours(entry, &t.param.name), t.tensor.shallow_clone())).collect()
}

fn write_weights(path: &Path, tensors: &[(String, Tensor)]) {
    std::fs::write(path, safetensors::write(tensors, &About::default()).unwrap()).unwrap();
}

fn logits(net: &Net, size: i64) -> Vec<f64> {
    doubles(&InferencePlan::new(net).unwrap().forward(&input(2, size)).unwrap())
}

/// What every kind of file must hold to be put into the network `model`.
fn values(model: &str, classes: i64) -> u64 {
    count(&spec(model).describe(3, classes).unwrap()).values()
}

#[test]
fn what_torch_saves_is_read() {
    let path = Path::new("tests/golden/torch_save.pth");
    let arrays = pickle::read(path, &std::fs::read(path).unwrap(), 1000, false).unwrap().arrays;
    let expect = |name: &str, shape: &[i64], values: &[f32], error: f32| {
        let array = &arrays[name];
        assert_eq!(array.shape, shape, "{name}");
        let largest = array.values.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= error && array.values.len() == values.len(), "{name}: {largest}");
    };
    expect("plain", &[2, 3], &uniform("plain", 6), 0.0);
    expect("half", &[5], &uniform("half", 5), 5e-4);
    expect("bfloat16", &[5], &uniform("bfloat16", 5), 4e-3);
    expect("double", &[5], &uniform("double", 5), 0.0);
    expect("channels_last", &[2, 3, 2, 2], &uniform("channels_last", 24), 0.0);
    let rows = uniform("transposed", 6);
    expect("transposed", &[2, 3], &[rows[0], rows[2], rows[4], rows[1], rows[3], rows[5]], 0.0);
    let part = uniform("part", 16);
    expect("part", &[2, 2], &[part[6], part[7], part[10], part[11]], 0.0);
    expect("bn.num_batches_tracked", &[], &[7.0], 0.0);
}

#[test]
fn export_and_import_are_each_others_inverse() {
    let sandbox = Sandbox::new();
    let net = filled_net(&spec("se-resnet-18-legacy"), 10);
    write_weights(&sandbox.path("a.safetensors"), &named(&net, "se-resnet-18-legacy", Scheme::Senet));
    // A file that does not say whose it is needs to be told; ours say it.
    refused(
        &sandbox,
        "export --weights a.safetensors --out b",
        2,
        &["does not say which network", "--model"],
    );
    sandbox.succeed("import a.safetensors --model SE-ResNet-18-Legacy --out ours.safetensors");
    let words = "export --weights ours.safetensors --names timm --out timm.safetensors --json";
    let written = sandbox.succeed(words).json();
    assert_eq!(fields(&written), ["out", "model", "names", "tensors", "values", "left_out"]);
    assert_eq!(
        (&written["names"], &written["tensors"]),
        (&"timm-legacy".into(), &net.tensors().len().into())
    );
    sandbox.succeed("import timm.safetensors --out back.safetensors");
    assert!(sandbox.read("back.safetensors") == sandbox.read("ours.safetensors"), "the way there and back");
    let theirs = safetensors::read(Path::new("t"), &sandbox.read("timm.safetensors"), u64::MAX).unwrap().0;
    for name in ["layer0.conv1.weight", "layer1.0.se_module.fc1.weight", "last_linear.bias"] {
        assert!(theirs.contains_key(name), "{name}");
    }
    refused(&sandbox, "import timm.safetensors --out back.safetensors", 1, &["exists already", "--out"]);
}

#[test]
fn batch_counters_and_auxiliary_classifiers_are_left_out_and_named() {
    let sandbox = Sandbox::new();
    let mut tensors = named(&filled_net(&spec("resnet-20"), 10), "resnet-20", Scheme::Senet);
    tensors.push(("bn1.num_batches_tracked".to_string(), Tensor::from_slice(&[3f32])));
    tensors.push(("AuxLogits.fc.weight".to_string(), Tensor::from_slice(&[3f32])));
    write_weights(&sandbox.path("a.safetensors"), &tensors);
    let written = sandbox.succeed("import a.safetensors --model resnet-20 --out b.safetensors --json").json();
    assert_eq!(written["left_out"], serde_json::json!(["AuxLogits.fc.weight", "bn1.num_batches_tracked"]));
}

#[test]
fn loading_is_strict_and_names_every_misfit() {
    let sandbox = Sandbox::new();
    let mut tensors = named(&filled_net(&spec("resnet-20"), 10), "resnet-20", Scheme::Senet);
    tensors.retain(|(name, _)| name != "layer1.0.bn1.weight");
    tensors.push(("layer9.weight".to_string(), Tensor::from_slice(&[1f32])));
    let conv = tensors.iter_mut().find(|(name, _)| name == "conv1.weight").unwrap();
    conv.1 = Tensor::from_slice(&[0f32; 9]).view([1, 1, 3, 3]);
    let path = sandbox.path("a.safetensors");
    write_weights(&path, &tensors);
    let weights = Weights::read(&path, "resnet-20", values("resnet-20", 10), false).unwrap();
    let net = filled_net(&spec("resnet-20"), 10);
    let before = logits(&net, 32);
    let message = weights.fill(&net, "resnet-20", Head::Keep).unwrap_err().to_string();
    for part in [
        "`layer1.0.bn1.weight` is missing",
        "`layer9.weight` is left over",
        "`conv1.weight` is [1, 1, 3, 3], not [16, 3, 3, 3]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(logits(&net, 32), before, "nothing is half-loaded");
    let words = "import a.safetensors --model resnet-20 --out b.safetensors";
    refused(&sandbox, words, 1, &["`layer9.weight` is left over"]);
    assert!(!sandbox.path("b.safetensors").exists());
}

#[test]
fn fine_tuning_starts_from_weights_with_a_new_head() {
    let sandbox = Sandbox::new();
    let net = filled_net(&ModelSpec::named("se-resnet-20"), 10);
    write_weights(&sandbox.path("ten.safetensors"), &named(&net, "se-resnet-20", Scheme::Senet));
    write_class_folders(&sandbox, "three", &["a", "b", "c"], 4, 2);
    let train = "train --data three --epochs 1 --lr 1e-30 --batch-size 4 --set data.size=32 --weights ten.safetensors";
    refused(
        &sandbox,
        &format!("{train} --out kept"),
        1,
        &["`fc.weight` is [10, 64], not [3, 64]", "--head new"],
    );
    sandbox.succeed(&format!("{train} --head new --out tuned --quiet"));
    let saved = sandbox.read("tuned/checkpoints/last/model.safetensors");
    let saved = safetensors::read(Path::new("saved"), &saved, u64::MAX).unwrap().0;
    assert_eq!(saved["fc.weight"].shape, [3, 64]);
    // At a learning rate of next to nothing the weights are still those of the file.
    let conv = net.tensors().iter().find(|named| named.param.name == "layer1.0.conv1.weight").unwrap();
    let kept: Vec<f64> = saved["layer1.0.conv1.weight"].values.iter().map(|&value| value.into()).collect();
    assert_eq!(kept, doubles(&conv.tensor));
    // The file is needed only for the start.
    std::fs::remove_file(sandbox.path("ten.safetensors")).unwrap();
    sandbox.succeed("train --resume tuned --quiet");
}

/// The fields of Caffe's protocol that weights need.
#[derive(Message)]
struct NetParameter {
    #[prost(message, repeated, tag = "100")]
    layer: Vec<LayerParameter>,
}

#[derive(Clone, Message)]
struct LayerParameter {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(message, repeated, tag = "7")]
    blobs: Vec<BlobProto>,
}

#[derive(Clone, Message)]
struct BlobProto {
    #[prost(float, repeated, tag = "5")]
    data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    shape: Option<BlobShape>,
}

#[derive(Clone, Message)]
struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    dim: Vec<i64>,
}

/// SE-BN-Inception as the authors' file has it: its layers' names, statistics times a factor, BGR in the first layer.
fn caffemodel(net: &Net) -> Vec<u8> {
    let blob = |tensor: &Tensor| BlobProto {
        data: doubles(tensor).into_iter().map(|value| value as f32).collect(),
        shape: Some(BlobShape { dim: tensor.size() }),
    };
    let tensor = |name: String| {
        let found = net.tensors().iter().find(|named| named.param.name == name);
        found.map(|named| named.tensor.detach())
    };
    let mut layer = Vec::new();
    let mut push = |name: String, kind: &str, blobs: Vec<Tensor>| {
        let blobs = blobs.iter().map(blob).collect();
        layer.push(LayerParameter { name, kind: kind.to_string(), blobs });
    };
    for named in net.tensors() {
        let Some(ours) = named.param.name.strip_suffix(".weight") else { continue };
        let both =
            || vec![tensor(format!("{ours}.weight")).unwrap(), tensor(format!("{ours}.bias")).unwrap()];
        if ours == "fc" {
            push("classifier".to_string(), "InnerProduct", both());
        } else if let Some((module, fc)) = ours.split_once(".se.") {
            push(format!("{module}_1x1_{}", if fc == "fc1" { "down" } else { "up" }), "Convolution", both());
        } else {
            let (unit, part) = ours.rsplit_once('.').unwrap();
            let theirs = match unit {
                "conv1" => "conv1/7x7_s2".to_string(),
                "conv2_reduce" => "conv2/3x3_reduce".to_string(),
                "conv2" => "conv2/3x3".to_string(),
                unit => unit.replace('.', "/"),
            };
            if part == "conv" {
                let weight = named.tensor.detach();
                let weight = if unit == "conv1" { weight.flip([1i64].as_slice()) } else { weight };
                push(theirs, "Convolution", vec![weight]);
            } else {
                let [mean, variance] =
                    ["running_mean", "running_var"].map(|leaf| tensor(format!("{ours}.{leaf}")).unwrap() * 4);
                push(format!("{theirs}/bn"), "BatchNorm", vec![mean, variance, Tensor::from_slice(&[4f32])]);
                push(format!("{theirs}/bn/scale"), "Scale", both());
            }
        }
    }
    NetParameter { layer }.encode_to_vec()
}

#[test]
fn the_authors_caffemodel_is_read() {
    let sandbox = Sandbox::new();
    let net = filled_net(&spec("se-bn-inception"), 1000);
    sandbox.write("a.caffemodel", caffemodel(&net));
    let path = sandbox.path("a.caffemodel");
    let weights = Weights::read(&path, "se-bn-inception", values("se-bn-inception", 1000), false).unwrap();
    assert_eq!(weights.scheme, Scheme::Caffe);
    let loaded = Net::build(&spec("se-bn-inception").describe(3, 1000).unwrap(), 9, net.device()).unwrap();
    weights.fill(&loaded, "se-bn-inception", Head::Keep).unwrap();
    let error = relative_error(&logits(&loaded, 64), &logits(&net, 64));
    assert!(error < 1e-6, "{error:e}");
    // How Caffe's nets see pixels goes with the weights: 0 to 255 less the channels' means.
    sandbox.succeed("import a.caffemodel --model se-bn-inception --out a.safetensors");
    let about = safetensors::read(&path, &sandbox.read("a.safetensors"), u64::MAX).unwrap().1;
    let preprocessing = about.preprocessing.unwrap();
    assert_eq!(preprocessing.std, [1.0 / 255.0; 3]);
    let means: Vec<f64> = preprocessing.mean.iter().map(|mean| (mean * 255.0).round()).collect();
    assert_eq!(means, [123.0, 117.0, 104.0]);
    write_image(&sandbox, "red.png", ImageFormat::Png, 0);
    let direct = sandbox.succeed("predict --model se-bn-inception --weights a.caffemodel red.png --json");
    let imported = sandbox.succeed("predict --weights a.safetensors red.png --json");
    assert_eq!(direct.json(), imported.json());
}

#[test]
fn images_are_named_one_by_one_and_in_folders() {
    let sandbox = Sandbox::new();
    let net = filled_net(&spec("se-resnet-18"), 1000);
    write_weights(&sandbox.path("w.safetensors"), &named(&net, "se-resnet-18", Scheme::Senet));
    for (at, name) in ["b/1.png", "b/deep/2.jpg", "a.png"].into_iter().enumerate() {
        write_image(
            &sandbox,
            name,
            if name.ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg },
            at,
        );
    }
    sandbox.write("b/notes.txt", "no image");
    let predict = "predict --model se-resnet-18 --weights w.safetensors";
    let found = sandbox.succeed(&format!("{predict} b a.png --json --logits")).json();
    let predictions = found.as_array().unwrap();
    let images: Vec<&str> = predictions.iter().map(|p| p["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["b/1.png", "b/deep/2.jpg", "a.png"]);
    let first = &predictions[0];
    assert_eq!(fields(first), ["image", "preprocessing", "top", "logits"]);
    let (top, logits) = (first["top"].as_array().unwrap(), first["logits"].as_array().unwrap());
    assert_eq!((top.len(), logits.len()), (5, 1000));
    assert_eq!(fields(&top[0]), ["class", "name", "probability", "logit"]);
    let number = |value: &Value| value.as_f64().unwrap();
    let largest = logits.iter().map(number).fold(f64::MIN, f64::max);
    assert_eq!(number(&top[0]["logit"]), largest);
    assert_eq!(number(&logits[top[0]["class"].as_u64().unwrap() as usize]), largest);
    let total: f64 = logits.iter().map(|logit| (number(logit) - largest).exp()).sum();
    assert!((number(&top[0]["probability"]) - 1.0 / total).abs() < 1e-6);
    assert!(top.windows(2).all(|pair| number(&pair[0]["logit"]) >= number(&pair[1]["logit"])));
    // An image alone gets what it gets among others.
    let alone = sandbox.succeed(&format!("{predict} a.png --json")).json();
    assert_eq!(alone[0]["top"][0]["class"], predictions[2]["top"][0]["class"]);
    let lines = sandbox.succeed(&format!("{predict} a.png --top 2")).stdout;
    assert_eq!(lines.lines().count(), 3, "{lines}");

    refused(&sandbox, &format!("{predict} c.png"), 1, &["c.png does not exist"]);
    refused(&sandbox, &format!("{predict} b/notes.txt"), 1, &["notes.txt", "not an image"]);
    sandbox.write("empty/notes.txt", "");
    refused(&sandbox, &format!("{predict} empty"), 1, &["holds no images", ".jpg"]);
    refused(&sandbox, "predict --model resnet-999 --weights w.safetensors a.png", 2, &["unknown network"]);
}

#[test]
fn a_run_predicts_and_its_weights_evaluate_elsewhere() {
    let sandbox = Sandbox::new();
    write_class_folders(&sandbox, "data", &["cat", "dog"], 6, 3);
    let train = "train --data data --epochs 1 --batch-size 4 --set data.size=32 --out run --quiet";
    sandbox.succeed(train);
    let found = sandbox.succeed("predict --run run data/val --json").json();
    assert_eq!(found.as_array().unwrap().len(), 6);
    let names: Vec<&str> =
        found[0]["top"].as_array().unwrap().iter().map(|guess| guess["name"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names.contains(&"cat") && names.contains(&"dog"), "{names:?}");
    // The exported file knows its network, its classes and how its images are prepared.
    sandbox.succeed("export run --out run.safetensors");
    let of_run = sandbox.succeed("eval run --json --quiet").json();
    let of_file = sandbox.succeed("eval --weights run.safetensors --data data --json --quiet").json();
    for key in ["seen", "top1", "top5", "loss"] {
        assert_eq!(of_run[key], of_file[key], "{key}");
    }
    write_class_folders(&sandbox, "other", &["cow", "dog"], 1, 1);
    let words = "eval --weights run.safetensors --data other";
    refused(&sandbox, words, 1, &["class `cow`, which is none of the 2 that the network was trained for"]);
    sandbox.succeed(&format!("train {TINY} --out gray --quiet"));
    let gray = sandbox.succeed("predict --run gray data/val/cat --json").json();
    assert_eq!(gray.as_array().unwrap().len(), 3, "colour images come to a gray network as gray");
}

/// A safetensors file of this header and so many bytes of values.
fn safetensors_file(header: &str, values: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + values, 0);
    bytes
}

#[test]
fn hostile_files_get_one_error_and_leave_nothing() {
    let sandbox = Sandbox::new();
    let whole = safetensors::write(
        &named(&filled_net(&spec("resnet-20"), 10), "resnet-20", Scheme::Senet),
        &About::default(),
    )
    .unwrap();
    let entry = |dtype: &str, shape: &str, from: usize, to: usize| {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let million: Vec<String> =
        (0..1_000_000).map(|at| format!("\"{at}\":{}", entry("F32", "[0]", 0, 0))).collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("../../etc/data.pkl", stored).unwrap();
    zip.write_all(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    let calling = zip.finish().unwrap().into_inner();
    let mut beyond = whole.clone();
    beyond[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let damaged = "not a whole safetensors file";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("truncated", whole[..whole.len() - 100].to_vec(), damaged),
        ("truncated in its header", whole[..100].to_vec(), damaged),
        ("a header beyond the file", beyond, damaged),
        (
            "overlapping tensors",
            safetensors_file(
                &format!("{{\"a\":{},\"b\":{}}}", entry("F32", "[2]", 0, 8), entry("F32", "[2]", 4, 12)),
                12,
            ),
            damaged,
        ),
        (
            "a size beyond all numbers",
            safetensors_file(&format!("{{\"a\":{}}}", entry("F32", "[4294967296,4294967296,4]", 0, 8)), 8),
            damaged,
        ),
        (
            "a type that is none",
            safetensors_file(&format!("{{\"a\":{}}}", entry("C64", "[1]", 0, 8)), 8),
            "type",
        ),
        (
            "a million tensors",
            safetensors_file(&format!("{{{}}}", million.join(",")), 0),
            "belongs to another",
        ),
        ("a pickle that calls functions", calling, "a whole object of the class `os.system`"),
        ("text", b"these are no weights".to_vec(), "not a weights file of a known form"),
        ("empty", Vec::new(), "the file is empty, not weights"),
    ];
    for (what, bytes, part) in cases {
        sandbox.write("w", bytes);
        refused(&sandbox, "import w --model resnet-20 --out out", 1, &["w", part]);
        assert!(!sandbox.path("out").exists(), "{what}");
    }
    // A terabyte, of which nearly nothing is on the disk.
    sandbox.write("w", &whole);
    let large = std::fs::File::options().write(true).open(sandbox.path("w")).unwrap();
    large.set_len(1 << 40).unwrap();
    refused(&sandbox, "import w --model resnet-20 --out out", 1, &["larger than the", "`--model`"]);
    refused(&sandbox, "import missing --model resnet-20 --out out", 1, &["cannot read missing"]);
    let error = Weights::read(&sandbox.path("w"), "resnet-20", values("resnet-20", 10), false).unwrap_err();
    assert!(problem(&error).unwrap().hint.is_some());
}
