//! The networks are what they claim to be: counts of the authors' released nets, numbers of PyTorch's, and the same
//! result whichever way they are computed.

use senet::models::{self, ModelSpec};
use senet::net::build::{Mode, Net, channels_last, overwrite};
use senet::net::cost::{Shape, cost};
use senet::net::loss::cross_entropy;
use senet::net::params::{Role, params};
use senet::net::plan::InferencePlan;
use senet::net::se::SeSpec;
use senet::rng::fnv1a;
use senet::torch_ext::excite::excite_add_relu;
use senet::torch_ext::norm::{BatchNorm, batch_norm_relu};
use serde_json::Value;
use std::collections::HashSet;
use tch::{Device, Kind, Tensor, no_grad};

/// `count` numbers in [0, 1): SplitMix64 of (hash of the name + index), as in scripts/golden.py.
fn uniform(name: &str, count: i64) -> Vec<f32> {
    let mix = |index: u64| {
        let mut z = fnv1a(name.as_bytes()).wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 40
    };
    (0..count as u64).map(|index| mix(index) as f32 / (1 << 24) as f32).collect()
}

/// What scripts/golden.py fills a tensor with.
fn filled(name: &str, shape: &[i64]) -> Tensor {
    let u = uniform(name, shape.iter().product());
    let vector = shape.len() == 1;
    let value = |u: f32| {
        if name.ends_with("running_var") || (vector && name.ends_with("weight")) {
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

fn filled_net(name: &str, classes: i64) -> Net {
    let node = spec(name).describe(3, classes).unwrap();
    let net = Net::build(&node, 0, Device::Cpu).unwrap();
    for named in net.tensors() {
        overwrite(&named.tensor, &filled(&named.param.name, &named.param.shape)).unwrap();
    }
    net
}

fn spec(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_string(), se: SeSpec::default() }
}

fn input(batch: i64, size: i64) -> Tensor {
    let pixels = Tensor::from_slice(&uniform("input", batch * 3 * size * size)).view([batch, 3, size, size]);
    channels_last(&(pixels * 2 - 1)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Largest difference, as a share of the largest expected magnitude.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    let difference = found.iter().zip(expected).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
    if difference == 0.0 { 0.0 } else { difference / largest }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

#[test]
fn logits_losses_and_gradients_equal_those_of_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("golden/networks.json")).unwrap();
    let of = |key: &str| golden[key].as_i64().unwrap();
    let (size, batch, classes) = (of("size"), of("batch"), of("classes"));
    let labels = Tensor::arange(batch, (Kind::Int64, Device::Cpu)) * 3;
    let labels = labels.remainder(classes);
    for (name, expected) in golden["networks"].as_object().unwrap() {
        let net = filled_net(name, classes);
        let logits = no_grad(|| net.forward(&input(batch, size), Mode::Eval)).unwrap();
        let error = relative_error(&doubles(&logits), &numbers(&expected["logits"]));
        assert!(error < 1e-4, "{name}: logits differ by {error:.1e}");

        // In float32 a gradient of a deep random network is a matter of luck: PyTorch's own differ by up to 1 % from
        // those in float64. In float64 nothing is left to luck.
        for named in net.tensors() {
            named.tensor.shallow_clone().set_data(&named.tensor.detach().to_kind(Kind::Double));
        }
        let images = input(batch, size).to_kind(Kind::Double);
        let logits = net.forward(&images, Mode::Train).unwrap();
        let loss = cross_entropy(&logits, &labels, 0.0).unwrap();
        loss.backward();
        let expected_loss = expected["train_loss"].as_f64().unwrap();
        assert!((loss.double_value(&[]) / expected_loss - 1.0).abs() < 1e-9, "{name}: loss");
        for named in net.tensors() {
            let parameter = named.param.name.as_str();
            if named.param.role == Role::Statistic {
                let sum = named.tensor.sum(Kind::Double).double_value(&[]);
                let expected = expected["statistics"][parameter].as_f64().unwrap();
                assert!((sum - expected).abs() < 1e-9 * expected.abs().max(1.0), "{name}: {parameter}");
            } else {
                let norm = named.tensor.grad().to_kind(Kind::Double).norm().double_value(&[]);
                let expected = expected["gradient_norms"][parameter].as_f64().unwrap();
                assert!(
                    (norm / expected - 1.0).abs() < 1e-6,
                    "{name}: gradient of {parameter}: {norm} {expected}"
                );
            }
        }
        let named = net.trainable().count();
        assert_eq!(named, expected["gradient_norms"].as_object().unwrap().len(), "{name}: parameters");
    }
}

#[test]
fn counts_equal_the_released_nets() {
    // Trainable parameters and multiply-adds at 224 of the authors' prototxts, layer by layer; those without SE are
    // theirs with the SE layers left out, and equal torchvision's parameters. -18 and -34: timm's legacy_seresnet.
    for (name, trainable, macs) in [
        ("se-resnet-50", 28_088_024, Some(3_860_488_192)),
        ("se-resnet-101", 49_326_872, Some(7_574_937_600)),
        ("se-resnet-152", 66_821_848, Some(11_288_993_792)),
        ("resnet-50", 25_557_032, Some(3_855_925_248 + 2_048_000)),
        ("resnet-101", 44_549_160, Some(7_568_146_432 + 2_048_000)),
        ("resnet-152", 60_192_808, Some(11_280_367_616 + 2_048_000)),
        ("se-resnet-18", 11_778_592, None),
        ("se-resnet-34", 21_958_868, None),
        ("resnet-18", 11_689_512, None),
        ("resnet-34", 21_797_672, None),
        ("se-resnet-50-v1.5", 28_088_024, None),
    ] {
        let found = cost(&spec(name).describe(3, 1000).unwrap(), Shape::square(3, 224)).unwrap();
        assert_eq!(found.params.trainable, trainable, "{name}");
        if let Some(macs) = macs {
            assert_eq!(found.macs, macs, "{name}");
        }
    }
}

#[test]
fn counts_equal_the_papers_reduction_ratios() {
    // Trainable parameters of SE-ResNet-50 without SE biases (paper Table 10 prints 45.7, 35.7, 30.7, 28.1, 26.9 M,
    // which include the batch-norm statistics).
    for (reduction, trainable) in
        [(2, 45_676_584), (4, 35_616_808), (8, 30_586_920), (16, 28_071_976), (32, 26_814_504)]
    {
        let spec = ModelSpec { name: "se-resnet-50".into(), se: SeSpec { reduction, bias: false } };
        let found = cost(&spec.describe(3, 1000).unwrap(), Shape::square(3, 224)).unwrap();
        assert_eq!(found.params.trainable, trainable, "r = {reduction}");
    }
}

#[test]
fn every_network_is_built_as_described() {
    for name in models::names() {
        let (entry, _) = models::find(&name).unwrap();
        let node = spec(&name).describe(entry.input.channels, entry.classes).unwrap();
        let described = params(&node);
        let names: HashSet<&str> = described.iter().map(|param| param.name.as_str()).collect();
        assert_eq!(names.len(), described.len(), "{name}: two tensors have one name");
        assert!(cost(&node, entry.input).unwrap().macs > 0, "{name}");
        // The deepest nets take a second each to fill; their blocks are those of the others.
        if described.len() > 400 {
            continue;
        }
        let net = Net::build(&node, 0, Device::Cpu).unwrap();
        for (named, param) in net.tensors().iter().zip(&described) {
            assert_eq!((&named.param, named.tensor.size()), (param, param.shape.clone()), "{name}");
        }
    }
}

#[test]
fn variants_start_equal_in_all_that_they_share() {
    let build = |name: &str| Net::build(&spec(name).describe(3, 10).unwrap(), 5, Device::Cpu).unwrap();
    let (with, without) = (build("se-resnet-20"), build("resnet-20"));
    for plain in without.tensors() {
        let twin = with.tensors().iter().find(|named| named.param.name == plain.param.name).unwrap();
        assert_eq!(doubles(&twin.tensor), doubles(&plain.tensor), "{}", plain.param.name);
    }
}

#[test]
fn the_inference_plan_computes_what_the_network_computes() {
    for (name, size) in [("se-resnet-20", 32), ("resnet-20", 28), ("se-resnet-18", 64), ("resnet-50", 64)] {
        let net = filled_net(name, 10);
        let plan = InferencePlan::new(&net).unwrap();
        // The second batch is smaller than the one that the weights were packed for.
        for batch in [5, 2] {
            let images = input(batch, size);
            let plain = no_grad(|| net.forward(&images, Mode::Eval)).unwrap();
            let error = relative_error(&doubles(&plan.forward(&images).unwrap()), &doubles(&plain));
            assert!(error < 1e-4, "{name}, batch {batch}: {error:.1e}");
        }
    }
}

/// The five tensors and the shortcut of an SE block, asking for gradients.
struct Block {
    u: Tensor,
    shortcut: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
}

impl Block {
    fn new(n: i64, c: i64, size: i64, layout: impl Fn(&Tensor) -> Tensor) -> Self {
        let hidden = (c / 4).max(1);
        let tensor = |name: &str, shape: &[i64]| {
            // A positive first bias keeps hidden units alive.
            let shift = if name == "b1" { 0.0 } else { 0.5 };
            let values = Tensor::from_slice(&uniform(name, shape.iter().product())).view(shape) - shift;
            (if shape[0] == n { layout(&values) } else { values }).set_requires_grad(true)
        };
        Self {
            u: tensor("u", &[n, c, size, size]),
            shortcut: tensor("shortcut", &[n, c, size, size]),
            w1: tensor("w1", &[hidden, c, 1, 1]),
            b1: tensor("b1", &[hidden]),
            w2: tensor("w2", &[c, hidden, 1, 1]),
            b2: tensor("b2", &[c]),
        }
    }

    fn fused(&self, bias: bool) -> Tensor {
        let bias = |b| bias.then_some(b);
        excite_add_relu(&self.u, &self.shortcut, (&self.w1, bias(&self.b1)), (&self.w2, bias(&self.b2)))
            .unwrap()
    }

    /// Equations 2 to 4 of the paper, one libtorch call each.
    fn plain(&self, bias: bool) -> Tensor {
        let z = self.u.mean_dim([2i64, 3].as_slice(), true, Kind::Float);
        let fc =
            |x: &Tensor, w: &Tensor, b: &Tensor| x.conv2d(w, bias.then_some(b), [1, 1], [0, 0], [1, 1], 1);
        let s = fc(&fc(&z, &self.w1, &self.b1).relu(), &self.w2, &self.b2).sigmoid();
        (&self.u * s + &self.shortcut).relu()
    }

    fn gradients(&self, y: &Tensor, bias: bool) -> Vec<Vec<f64>> {
        let weight = Tensor::from_slice(&uniform("weight", y.numel() as i64)).view_as(y) - 0.3;
        let mut inputs = vec![&self.u, &self.shortcut, &self.w1, &self.w2];
        if bias {
            inputs.extend([&self.b1, &self.b2]);
        }
        Tensor::run_backward(&[(y * weight).sum(Kind::Float)], &inputs, false, false)
            .iter()
            .map(doubles)
            .collect()
    }
}

#[test]
fn the_fused_excitation_has_the_plain_ones_values_and_gradients() {
    let as_is = |x: &Tensor| x.shallow_clone();
    let last = |x: &Tensor| channels_last(x).unwrap();
    for (n, c, size, bias) in [(3, 8, 5, true), (1, 20, 9, true), (2, 256, 14, false), (2, 3, 1, true)] {
        for block in [Block::new(n, c, size, last), Block::new(n, c, size, as_is)] {
            let (fused, plain) = (block.fused(bias), block.plain(bias));
            assert!(relative_error(&doubles(&fused), &doubles(&plain)) < 1e-5, "{n} {c} {size}");
            let pairs = block.gradients(&fused, bias).into_iter().zip(block.gradients(&plain, bias));
            for (at, (fused, plain)) in pairs.enumerate() {
                let error = relative_error(&fused, &plain);
                assert!(error < 1e-5, "gradient {at} of {n} {c} {size}: {error:.1e}");
            }
            // Last, since it overwrites u.
            let inferred = no_grad(|| block.fused(bias));
            assert!(relative_error(&doubles(&inferred), &doubles(&plain)) < 1e-5, "{n} {c} {size}");
        }
    }
}

#[test]
fn the_fused_batch_norm_has_the_plain_ones_values_and_gradients() {
    for (n, c, size, relu) in [(3, 8, 5, true), (2, 64, 14, false), (4, 3, 1, true), (2, 100, 9, true)] {
        // The plain one computes in float64: it is the truth, not another approximation.
        let vector = |name: &str, shift: f64, kind: Kind| {
            let values = (Tensor::from_slice(&uniform(name, c)) + shift).to_kind(kind);
            values.set_requires_grad(!name.starts_with("running"))
        };
        let norm = |kind: Kind| BatchNorm {
            gamma: vector("gamma", 0.2, kind),
            beta: vector("beta", -0.5, kind),
            mean: vector("running mean", 0.0, kind),
            variance: vector("running variance", 0.5, kind),
        };
        let (ours, theirs) = (norm(Kind::Float), norm(Kind::Double));
        // A mean of many deviations, to which a careless variance is sensitive.
        let x = Tensor::from_slice(&uniform("x", n * c * size * size)).view([n, c, size, size]) + 5.0;
        let x = channels_last(&x).unwrap().set_requires_grad(true);
        let exact_x = x.detach().to_kind(Kind::Double).set_requires_grad(true);
        let fused = batch_norm_relu(&x, &ours, 0.1, 1e-5, relu).unwrap();
        let BatchNorm { gamma, beta, mean, variance } = &theirs;
        let plain =
            exact_x.batch_norm(Some(gamma), Some(beta), Some(mean), Some(variance), true, 0.1, 1e-5, true);
        let plain = if relu { plain.relu() } else { plain };

        let same = |what: &str, a: &Tensor, b: &Tensor| {
            let error = relative_error(&doubles(a), &doubles(b));
            assert!(error < 3e-5, "{what} of {n} {c} {size}: {error:.1e}");
        };
        same("output", &fused, &plain);
        same("running mean", &ours.mean, &theirs.mean);
        same("running variance", &ours.variance, &theirs.variance);
        let weight =
            channels_last(&(Tensor::from_slice(&uniform("w", x.numel() as i64)).view_as(&x) - 0.3)).unwrap();
        let gradients = |y: &Tensor, x: &Tensor, norm: &BatchNorm| {
            let inputs = [x, &norm.gamma, &norm.beta];
            Tensor::run_backward(&[(y * &weight).sum(y.kind())], &inputs, false, false)
        };
        let (fused, plain) = (gradients(&fused, &x, &ours), gradients(&plain, &exact_x, &theirs));
        for (at, (a, b)) in fused.iter().zip(&plain).enumerate() {
            same(["gradient of x", "gradient of gamma", "gradient of beta"][at], a, b);
        }
    }
}
