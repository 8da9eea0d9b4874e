//! Networks filled by a formula of a tensor's name and the index of a value, as in scripts/golden.py.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use senet::models::ModelSpec;
use senet::net::build::{Mode, Net, channels_last, overwrite};
use senet::net::loss::cross_entropy;
use senet::net::params::Role;
use senet::net::plan::InferencePlan;
use senet::rng::fnv1a;
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor, no_grad};

/// Images of a golden file's batches.
pub const BATCH: i64 = 4;
/// Classes of a golden file's networks.
pub const CLASSES: i64 = 10;

/// `count` numbers in [0, 1): SplitMix64 of (hash of the name + index), as in scripts/golden.py.
pub fn uniform(name: &str, count: i64) -> Vec<f32> {
    let mix = |index: u64| {
        let mut z = fnv1a(name.as_bytes()).wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 40
    };
    (0..count as u64).map(|index| mix(index) as f32 / (1 << 24) as f32).collect()
}

/// What scripts/golden.py fills a tensor with.
pub fn filled(name: &str, shape: &[i64]) -> Tensor {
    let u = uniform(name, shape.iter().product());
    let vector = shape.len() == 1;
    let value = |u: f32| {
        if name.ends_with("bn3.weight") {
            (u + 0.5) * 0.25
        } else if name.ends_with("running_var") || (vector && name.ends_with("weight")) {
            u + 0.5
        } else if vector {
            (u - 0.5) * 0.2
        } else {
            let fan_in: i64 = shape[1..].iter().product();
            (u - 0.5) * (2.0 * (6.0 / fan_in as f64).sqrt()) as f32
        }
    };
    Tensor::from_slice(&u.into_iter().map(value).collect::<Vec<_>>()).view(shape)
}

/// The network with every tensor filled by the formula.
pub fn filled_net(spec: &ModelSpec, classes: i64) -> Net {
    let node = spec.describe(3, classes).unwrap();
    let net = Net::build(&node, 0, Device::Cpu).unwrap();
    for named in net.tensors() {
        overwrite(&named.tensor, &filled(&named.param.name, &named.param.shape)).unwrap();
    }
    net
}

/// The network of this name, without what is random in training.
pub fn spec(name: &str) -> ModelSpec {
    ModelSpec { dropout: Some(0.0), ..ModelSpec::named(name) }
}

/// Images filled by the formula.
pub fn input(batch: i64, size: i64) -> Tensor {
    let pixels = Tensor::from_slice(&uniform("input", batch * 3 * size * size)).view([batch, 3, size, size]);
    channels_last(&(pixels * 2 - 1)).unwrap()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Largest difference, as a share of the largest expected magnitude.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    let difference = found.iter().zip(expected).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// All values.
pub fn doubles(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

/// The networks of a golden file.
pub fn golden(text: &str) -> Map<String, Value> {
    let document: Value = serde_json::from_str(text).unwrap();
    document["networks"].as_object().unwrap().clone()
}

/// The network of a golden file's entry, whose `settings` are those of its SE blocks.
pub fn golden_spec(name: &str, entry: &Value) -> ModelSpec {
    let mut spec = spec(name);
    if let Some(settings) = entry.get("settings") {
        spec.se = serde_json::from_value(settings.clone()).unwrap();
    }
    spec
}

/// Makes every tensor one of doubles: without rounding to hide behind.
pub fn in_float64(net: &Net) {
    for named in net.tensors() {
        named.tensor.shallow_clone().set_data(&named.tensor.detach().to_kind(Kind::Double));
    }
}

/// The network computes the logits of the golden file, in float64 as described and, within `bound` if there is one, in
/// float32 as evaluations compute them: folded and packed.
pub fn assert_logits_equal(name: &str, spec: &ModelSpec, expected: &Value, bound: Option<f64>) {
    let net = filled_net(spec, CLASSES);
    let images = input(BATCH, expected["size"].as_i64().unwrap());
    let expected = numbers(&expected["logits"]);
    if let Some(bound) = bound {
        let planned = InferencePlan::new(&net).unwrap().forward(&images).unwrap();
        let error = relative_error(&doubles(&planned), &expected);
        assert!(error < bound, "{name}, planned: logits differ by {error:.1e}");
    }
    in_float64(&net);
    let plain = no_grad(|| net.forward(&images.to_kind(Kind::Double), Mode::Eval)).unwrap();
    let error = relative_error(&doubles(&plain), &expected);
    assert!(error < 1e-9, "{name}: logits differ by {error:.1e}");
}

/// A training step has the loss, the gradients and the statistics of the golden file.
///
/// In float32 a gradient of a deep random network is a matter of luck: PyTorch's own differ by up to 1 % from those in
/// float64. In float64 nothing is left to luck.
pub fn assert_training_equals(name: &str, spec: &ModelSpec, expected: &Value) {
    let labels = (Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)) * 3).remainder(CLASSES);
    let net = filled_net(spec, CLASSES);
    in_float64(&net);
    let images = input(BATCH, expected["size"].as_i64().unwrap()).to_kind(Kind::Double);
    let loss = cross_entropy(&net.forward(&images, Mode::Train).unwrap(), &labels, 0.0).unwrap();
    loss.backward();
    let expected_loss = expected["train_loss"].as_f64().unwrap();
    assert!((loss.double_value(&[]) / expected_loss - 1.0).abs() < 1e-9, "{name}: loss");
    // Gradients that are nothing but rounding: of a bias before batch normalisation, of a unit that is never active.
    let norms = expected["gradient_norms"].as_object().unwrap().values();
    let nothing = 1e-9 * norms.map(|norm| norm.as_f64().unwrap()).fold(0.0, f64::max);
    for named in net.tensors() {
        let parameter = named.param.name.as_str();
        if named.param.role == Role::Statistic {
            let sum = named.tensor.sum(Kind::Double).double_value(&[]);
            let expected = expected["statistics"][parameter].as_f64().unwrap();
            assert!((sum - expected).abs() < 1e-9 * expected.abs().max(1.0), "{name}: {parameter}");
        } else {
            let norm = named.tensor.grad().norm().double_value(&[]);
            let expected = expected["gradient_norms"][parameter].as_f64().unwrap();
            assert!(
                (norm - expected).abs() < (1e-6 * expected).max(nothing),
                "{name}: gradient of {parameter}: {norm} {expected}"
            );
        }
    }
    let named = net.trainable().count();
    assert_eq!(named, expected["gradient_norms"].as_object().unwrap().len(), "{name}: parameters");
}
