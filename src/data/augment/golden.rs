//! Comparison with torchvision on PIL images, byte by byte. The expected values are from scripts/golden_augment.py.

use super::frame::Frame;
use super::geometry::{Filter, rotate};
use super::policy::{AUTO, IMAGENET, OPS, Op, RAND, Space, WIDE};
use super::{Image, colour};
use crate::rng::fnv1a;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/augment.json")).unwrap()
}

/// A value of the input images, as in the script.
fn value(name: &str, x: u32, y: u32, c: u32) -> u8 {
    match name {
        "noise" => {
            let sum = x.wrapping_mul(374_761_393).wrapping_add(y.wrapping_mul(668_265_263));
            let hash = sum.wrapping_add(c.wrapping_mul(2_246_822_519));
            let hash = (hash ^ (hash >> 13)).wrapping_mul(1_274_126_177);
            (hash ^ (hash >> 16)) as u8
        }
        "smooth" => (x * 5 + y * 3 + c * 70 + x * y / 8) as u8,
        "dull" => (60 + 20 * c) as u8 + value("noise", x / 3, y / 3, c) % 90,
        "flat" => (90 + 30 * c) as u8,
        _ => panic!("no formula for {name}"),
    }
}

fn picture(golden: &Value, name: &str, channels: usize) -> Image {
    let [width, height] = [0, 1].map(|at| golden["size"][at].as_u64().unwrap() as u32);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.extend((0..channels as u32).map(|c| value(name, x, y, c)));
        }
    }
    Image { width: width as usize, height: height as usize, channels, pixels }
}

fn apply(operation: &str, magnitude: f64, frame: &mut Frame) {
    match operation {
        "brightness" => colour::brightness(frame, magnitude),
        "contrast" => colour::contrast(frame, magnitude),
        "saturation" => colour::saturation(frame, magnitude),
        "hue" => colour::hue(frame, magnitude),
        "sharpness" => colour::sharpness(frame, magnitude),
        "posterize" => colour::posterize(frame, magnitude as u8),
        "solarize" => colour::solarize(frame, magnitude),
        "grayscale" => colour::grayscale(frame),
        "autocontrast" => colour::autocontrast(frame),
        "equalize" => colour::equalize(frame),
        "invert" => colour::invert(frame),
        "shear-x" => Op::ShearX.apply(magnitude, frame),
        "shear-y" => Op::ShearY.apply(magnitude, frame),
        "translate-x" => Op::TranslateX.apply(magnitude, frame),
        "translate-y" => Op::TranslateY.apply(magnitude, frame),
        "rotate-nearest" => rotate(frame, magnitude, Filter::Nearest),
        "rotate-bilinear" => rotate(frame, magnitude, Filter::Bilinear),
        _ => panic!("no operation {operation}"),
    }
}

/// What is wrong with `pixels`, if they are not those of a case's hash and four places.
fn difference(pixels: &[u8], hash: &Value, places: &Value) -> Option<String> {
    if format!("{:016x}", fnv1a(pixels)) == hash.as_str().unwrap() {
        return None;
    }
    let len = pixels.len();
    let found = [0, len / 3, len / 2, len - 2].map(|place| pixels[place]);
    Some(format!("{found:?} instead of {places}"))
}

#[test]
fn every_operation_gives_torchvisions_bytes() {
    let golden = golden();
    let mut wrong = Vec::new();
    let cases = golden["cases"].as_array().unwrap();
    for case in cases {
        let (name, channels) = (case[0].as_str().unwrap(), case[1].as_u64().unwrap() as usize);
        let (operation, magnitude) = (case[2].as_str().unwrap(), case[3].as_f64().unwrap());
        let mut image = picture(&golden, name, channels);
        apply(operation, magnitude, &mut Frame::of(&mut image));
        if let Some(difference) = difference(&image.pixels, &case[4], &case[5]) {
            wrong.push(format!("{name} of {channels}, {operation} {magnitude}: {difference}"));
        }
    }
    assert!(
        cases.len() > 500 && wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn op(name: &str) -> Op {
    serde_json::from_value(name.into()).unwrap()
}

fn space(policy: &str) -> Space {
    match policy {
        "rand" => RAND,
        "wide" => WIDE,
        _ => AUTO,
    }
}

#[test]
fn operations_and_magnitudes_are_torchvisions() {
    let golden = golden();
    let [width, height] = [0, 1].map(|at| golden["size"][at].as_u64().unwrap() as usize);
    for policy in ["rand", "wide", "auto"] {
        let table = golden["tables"][policy].as_object().unwrap();
        let names: Vec<Op> = table.keys().map(|name| op(name)).collect();
        match policy {
            "auto" => assert_eq!(names[..], [&OPS[1..], &[Op::Invert]].concat()),
            _ => assert_eq!(names[..], OPS),
        }
        for (name, row) in table {
            let signed = row[0].as_bool().unwrap();
            let Some(magnitudes) = row[1].as_array() else {
                assert_eq!(space(policy).magnitude(op(name), 0, width, height), None, "{policy} {name}");
                continue;
            };
            assert_eq!(magnitudes.len(), usize::from(space(policy).bins));
            for (bin, magnitude) in magnitudes.iter().enumerate() {
                let found = space(policy).magnitude(op(name), bin as u8, width, height);
                assert_eq!(found, Some((magnitude.as_f64().unwrap(), signed)), "{policy} {name} {bin}");
            }
        }
    }
    let pairs = golden["tables"]["imagenet"].as_array().unwrap();
    assert_eq!(pairs.len(), IMAGENET.len());
    for (expected, pair) in pairs.iter().zip(IMAGENET) {
        for (at, chance) in pair.into_iter().enumerate() {
            let expected = &expected[at];
            let bin = expected[2].as_u64().unwrap_or(0) as u8;
            assert_eq!(chance, (op(expected[0].as_str().unwrap()), expected[1].as_f64().unwrap(), bin));
        }
    }
}

#[test]
fn operations_at_a_policys_magnitudes_give_torchvisions_bytes() {
    let golden = golden();
    let mut wrong = Vec::new();
    for case in golden["applied"].as_array().unwrap() {
        let (policy, name, bin) =
            (case[0].as_str().unwrap(), case[1].as_str().unwrap(), case[2].as_u64().unwrap());
        let mut image = picture(&golden, "smooth", 3);
        let found = space(policy).magnitude(op(name), bin as u8, image.width, image.height);
        let magnitude = found.map_or(0.0, |(magnitude, _)| magnitude);
        let magnitude = if case[3].as_bool().unwrap() { -magnitude } else { magnitude };
        op(name).apply(magnitude, &mut Frame::of(&mut image));
        if let Some(difference) = difference(&image.pixels, &case[5], &case[6]) {
            wrong.push(format!("{policy} {name} {bin}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
