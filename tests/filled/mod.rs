//! Networks filled by a formula of a tensor's name and the index of a value, as in scripts/golden.py.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use senet::models::ModelSpec;
use senet::net::build::{Net, channels_last, overwrite};
use senet::rng::fnv1a;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

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
