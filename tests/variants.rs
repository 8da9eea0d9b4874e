//! The variants of SE: each computes what a second description in PyTorch computes, costs what the paper prints, and is
//! refused where it means nothing.

mod filled;

use filled::{
    CLASSES, assert_logits_equal, assert_training_equals, doubles, golden, golden_spec, in_float64, input,
    relative_error, spec,
};
use senet::models::{self, ModelSpec};
use senet::net::build::{Mode, Net};
use senet::net::cost::{Cost, Shape, cost};
use senet::net::gates::gated_blocks;
use senet::net::se::{Placement, SeSpec, Squeeze};
use senet::net::{add, bn, conv, identity, relu, seq};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

fn full_cost(spec: &ModelSpec) -> Cost {
    let (entry, _) = models::find(&spec.name).unwrap();
    cost(&spec.describe(entry.input.channels, entry.classes).unwrap(), entry.input).unwrap()
}

/// Each entry of the golden file with its name and network.
fn variants() -> Vec<(String, ModelSpec, Value)> {
    let of = |(name, entry): (String, Value)| {
        let spec = golden_spec(entry["base"].as_str().unwrap(), &entry);
        (name, spec, entry)
    };
    golden(include_str!("golden/variants.json")).into_iter().map(of).collect()
}

#[test]
fn logits_equal_those_of_a_second_description() {
    for (name, spec, expected) in variants() {
        // U · mean(U) squares the map in each of nine units: 1e67 is no float32.
        let bound = (name != "se-resnet-20, gap-scale").then_some(1e-4);
        assert_logits_equal(&name, &spec, &expected, bound);
    }
}

#[test]
fn losses_gradients_and_statistics_equal_those_of_a_second_description() {
    for (name, spec, expected) in variants() {
        assert_training_equals(&name, &spec, &expected);
    }
}

#[test]
fn counts_equal_those_of_a_second_description() {
    for (name, spec, expected) in variants() {
        let found =
            cost(&spec.describe(3, CLASSES).unwrap(), Shape::square(3, expected["size"].as_i64().unwrap()));
        let found = found.unwrap();
        let counts = [&expected["trainable"], &expected["macs"]].map(|count| count.as_i64().unwrap());
        assert_eq!([found.params.trainable, found.macs], counts, "{name}");
    }
}

#[test]
fn counts_equal_the_papers_reduction_ratios() {
    // Trainable parameters of SE-ResNet-50 without SE biases, and what Table 10 prints in millions, which includes the
    // batch-norm statistics (30.7 with SE biases, too: then it is 30.66, without them 30.64).
    for (reduction, trainable, printed) in [
        (2, 45_676_584, 45.7),
        (4, 35_616_808, 35.7),
        (8, 30_586_920, 30.7),
        (16, 28_071_976, 28.1),
        (32, 26_814_504, 26.9),
    ] {
        let se = SeSpec { reduction, bias: false, ..SeSpec::default() };
        let spec = ModelSpec { se, ..ModelSpec::named("se-resnet-50") };
        let found = cost(&spec.describe(3, 1000).unwrap(), Shape::square(3, 224)).unwrap();
        assert_eq!(found.params.trainable, trainable, "r = {reduction}");
        let millions = found.params.values() as f64 / 1e6;
        assert!((millions - printed).abs() < 0.1, "r = {reduction}: {millions} for {printed}");
    }
}

#[test]
fn counts_equal_the_papers_variants() {
    // SE-ResNet-50 without SE biases. The paper prints parameters in millions, with the batch-norm statistics (53,120).
    let found = |change: &dyn Fn(&mut SeSpec)| {
        let mut spec = spec("se-resnet-50");
        spec.se.bias = false;
        change(&mut spec.se);
        full_cost(&spec)
    };
    let stage = |stage: i64| found(&move |se: &mut SeSpec| se.stages = Some(vec![stage]));
    let plain = full_cost(&spec("resnet-50"));
    // Table 13: SE in one stage only.
    for (number, trainable, printed) in [(2, 25_581_608, 25.6), (3, 25_688_104, 25.7), (4, 26_343_464, 26.4)]
    {
        let cost = stage(number);
        assert_eq!(cost.params.trainable, trainable, "stage {number}");
        let millions = cost.params.values() as f64 / 1e6;
        assert!((millions - printed).abs() <= 0.05, "stage {number}: {millions} for {printed}");
        assert!((cost.macs as f64 / 1e9 - 3.86).abs() <= 0.005, "stage {number}");
    }
    // Table 15: SE behind the 3×3.
    let inside = found(&|se: &mut SeSpec| se.placement = Placement::Inside);
    assert_eq!(inside.params.trainable, plain.params.trainable + 157_184);
    assert!((inside.params.values() as f64 / 1e6 - 25.8).abs() <= 0.05);
    // Table 16: no squeeze; 4.27 GFLOPs, 28.1 million.
    let no_squeeze = found(&|se: &mut SeSpec| se.squeeze = Squeeze::None);
    assert_eq!(no_squeeze.macs, plain.macs + 411_041_792);
    assert!((no_squeeze.macs as f64 / 1e9 - 4.27).abs() <= 0.005);
    assert!((no_squeeze.params.values() as f64 / 1e6 - 28.1).abs() <= 0.05);
}

#[test]
fn what_means_nothing_is_refused() {
    let refused = |name: &str, settings: Value| {
        let mut spec = spec(name);
        spec.se = serde_json::from_value(settings).unwrap();
        format!("{:#}", spec.describe(3, 10).unwrap_err())
    };
    for stages in [vec![], vec![6], vec![1]] {
        let message = refused("se-resnet-50", serde_json::json!({"stages": stages}));
        assert!(message.contains("some of 2, 3, 4, 5"), "{message}");
    }
    assert!(refused("se-resnet-20", serde_json::json!({"stages": [5]})).contains("some of 2, 3, 4"));
    assert!(refused("se-bn-inception", serde_json::json!({"stages": [2]})).contains("`null`"));
    for placement in ["inside", "inside-before-norm"] {
        let message = refused("se-resnet-18", serde_json::json!({"placement": placement}));
        assert!(message.contains("has no bottlenecks"), "{message}");
    }
    assert!(refused("se-vgg-16-bn", serde_json::json!({"placement": "pre"})).contains("no residual units"));
    for (structure, part, value) in [
        ("gap-scale", "gate", "relu"),
        ("gap-scale", "squeeze", "none"),
        ("gap-sigmoid", "squeeze", "none"),
        ("conv", "squeeze", "max"),
        ("conv", "gate", "tanh"),
        ("parallel", "squeeze", "none"),
        ("parallel", "placement", "post"),
    ] {
        let message = refused("se-resnet-50", serde_json::json!({"structure": structure, part: value}));
        assert!(message.contains(&format!("`model.se.{part}`")), "{structure}: {message}");
    }
}

#[test]
fn gates_are_those_that_scale_the_features() {
    // y = ReLU(s · BN(conv(x)) + x): from y, x and the gate of Eqs. 2 and 3, by hand.
    let se = SeSpec { reduction: 2, ..SeSpec::default() };
    let branch = seq("", [conv("conv", 3, 3, 3, 1), bn("bn", 3)]);
    let node = seq("unit", [add(se.after(branch, [3, 3]), identity()), relu()]);
    assert_eq!(gated_blocks(&node), ["unit.se"]);
    let net = Net::build(&node, 3, Device::Cpu).unwrap();
    in_float64(&net);
    let x = input(2, 5).to_kind(Kind::Double);
    let tensor = |name: &str| {
        let named = net.tensors().iter().find(|named| named.param.name == format!("unit.{name}")).unwrap();
        named.tensor.detach()
    };
    let gates = net.gates(&x).unwrap();
    assert_eq!((gates.len(), gates[0].block.as_str(), gates[0].values.size()), (1, "unit.se", vec![2, 3]));
    // At its start batch normalisation divides by √(1 + ε) and no more.
    let plain = |x: &Tensor, name: &str, pad: i64| {
        let (weight, bias) = (
            tensor(&format!("{name}.weight")),
            name.starts_with("se").then(|| tensor(&format!("{name}.bias"))),
        );
        x.conv2d(&weight, bias, [1, 1], [pad, pad], [1, 1], 1)
    };
    let u = plain(&x, "conv", 1) / (1.0f64 + 1e-5).sqrt();
    let z = u.mean_dim([2i64, 3].as_slice(), true, Kind::Double);
    let s = plain(&plain(&z, "se.fc1", 0).relu(), "se.fc2", 0).sigmoid();
    assert!(relative_error(&doubles(&gates[0].values), &doubles(&s.view([2, 3]))) < 1e-12);
    let y = no_grad(|| net.forward(&x, Mode::Eval)).unwrap();
    assert!(relative_error(&doubles(&y), &doubles(&(u * s + x).relu())) < 1e-12);
}
