//! NaN stays NaN, and an infinity what libtorch's own operators make of it, in every operator of ours and at every batch
//! size.

mod filled;

use filled::{doubles, filled_net, input, spec, uniform};
use senet::net::Conv;
use senet::net::build::{Mode, channels_last};
use senet::net::loss::{LossSpec, Mixed, Target};
use senet::net::plan::InferencePlan;
use senet::torch_ext::conv::{convolve, pack};
use senet::torch_ext::excite::excite_add_relu;
use senet::torch_ext::norm::{BatchNorm, batch_norm_relu};
use senet::torch_ext::{grouped, winograd};
use tch::{Kind, Tensor, no_grad};

const BATCHES: [i64; 4] = [1, 2, 3, 16];
const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

fn values(name: &str, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&uniform(name, shape.iter().product())).view(shape) - 0.4
}

fn map(name: &str, shape: &[i64]) -> Tensor {
    channels_last(&values(name, shape)).unwrap()
}

/// Puts `value` into the first place of `tensor`.
fn spoil(tensor: &Tensor, value: f64) {
    let mut first = tensor.shallow_clone();
    for _ in 0..tensor.dim() {
        first = first.select(0, 0);
    }
    let _ = no_grad(|| first.fill_(value));
}

fn is_nan(values: &Tensor) -> Tensor {
    values.isnan().contiguous()
}

/// Whether ours is NaN wherever theirs is.
fn keeps_nan(ours: &Tensor, theirs: &Tensor) -> bool {
    let lost = is_nan(theirs).logical_and(&is_nan(ours).logical_not());
    lost.sum(Kind::Int64).int64_value(&[]) == 0
}

/// Whether both are NaN at the same places.
fn agree_on_nan(ours: &Tensor, theirs: &Tensor) -> bool {
    is_nan(ours) == is_nan(theirs)
}

/// Whether both are NaN, infinite and finite at the same places.
fn agree(ours: &Tensor, theirs: &Tensor) -> bool {
    doubles(ours).iter().zip(doubles(theirs)).all(|(a, b)| {
        a.is_nan() == b.is_nan()
            && (a.is_nan() || a.is_finite() == b.is_finite() && (a.is_finite() || *a == b))
    })
}

#[test]
fn networks_with_a_tensor_that_is_not_finite_compute_what_libtorch_computes() {
    let tensors: [(&str, &[&str]); 5] = [
        (
            "resnet-18",
            &["conv1.weight", "layer1.0.bn2.running_var", "bn1.running_mean", "layer4.1.bn2.bias", "fc.bias"],
        ),
        (
            "se-resnet-50",
            &["conv1.weight", "bn1.weight", "layer2.0.se.fc1.weight", "layer1.0.se.fc2.bias", "fc.weight"],
        ),
        ("se-bn-inception", &[]),
        ("mobilenet", &[]),
        ("se-resnext-50-32x4d", &["layer1.0.conv2.weight", "layer3.0.bn2.running_var"]),
    ];
    for (name, wanted) in tensors {
        let net = filled_net(&spec(name), 10);
        let (count, mut tried) = (net.tensors().len(), 0);
        // Those that are named, or one at each end and two on the way.
        let picked = net.tensors().iter().enumerate().filter(|(index, named)| {
            wanted.contains(&named.param.name.as_str())
                || wanted.is_empty() && [0, count / 3, 2 * count / 3, count - 1].contains(index)
        });
        for (index, (_, named)) in picked.enumerate() {
            let kept = named.tensor.detach().copy();
            spoil(&named.tensor, f64::NAN);
            let plan = InferencePlan::new(&net).unwrap();
            let images = input(BATCHES[index % 4].min(3), 64);
            let planned = plan.forward(&images).unwrap();
            let direct = no_grad(|| net.forward(&images, Mode::Eval)).unwrap();
            for (way, logits) in [("plan", &planned), ("forward", &direct)] {
                let bad = is_nan(logits).any_dim(1, false).all();
                assert_eq!(bad.int64_value(&[]), 1, "{name}, {}, {way}: finite logits", named.param.name);
            }
            no_grad(|| named.tensor.shallow_clone().copy_(&kept));
            tried += 1;
        }
        assert_eq!(tried, if wanted.is_empty() { 4 } else { wanted.len() }, "{name}");
    }
}

#[test]
fn one_bad_pixel_gives_the_same_logits_in_any_batch() {
    let mut net = filled_net(&spec("se-resnet-20"), 10);
    for batch in BATCHES {
        for value in BAD {
            let images = input(batch, 32);
            spoil(&images, value);
            let planned = InferencePlan::new(&net).unwrap().forward(&images).unwrap();
            net.compute_plainly();
            let reference = no_grad(|| net.forward(&images, Mode::Eval)).unwrap();
            assert!(agree(&planned, &reference), "batch {batch}, {value}");
            assert!(is_nan(&planned.get(0)).all().int64_value(&[]) == 1, "batch {batch}, {value}: finite");
        }
    }
}

#[test]
fn finite_weights_that_fold_into_nan_give_nan() {
    let net = filled_net(&spec("resnet-20"), 10);
    let variance = net.tensors().iter().find(|named| named.param.name == "bn1.running_var").unwrap();
    spoil(&variance.tensor, -1.0);
    let logits = InferencePlan::new(&net).unwrap().forward(&input(1, 32)).unwrap();
    assert_eq!(is_nan(&logits).all().int64_value(&[]), 1);
}

#[test]
fn batch_norm_with_relu_keeps_nan_in_maps_and_statistics() {
    for batch in BATCHES {
        for value in BAD {
            for place in ["x", "gamma", "beta"] {
                let compute = |ours: bool| {
                    let x = map("x", &[batch, 16, 5, 5]);
                    let norm = BatchNorm {
                        gamma: values("gamma", &[16]),
                        beta: values("beta", &[16]),
                        mean: values("mean", &[16]),
                        variance: values("variance", &[16]) + 1.0,
                    };
                    let input = match place {
                        "x" => &x,
                        "gamma" => &norm.gamma,
                        _ => &norm.beta,
                    };
                    spoil(input, value);
                    let y = if ours {
                        batch_norm_relu(&x, &norm, 0.1, 1e-5, true, None).unwrap()
                    } else {
                        let BatchNorm { gamma, beta, mean, variance } = &norm;
                        x.batch_norm(
                            Some(gamma),
                            Some(beta),
                            Some(mean),
                            Some(variance),
                            true,
                            0.1,
                            1e-5,
                            false,
                        )
                        .relu()
                    };
                    (y, norm)
                };
                let ((y, norm), (expected, reference)) = (compute(true), compute(false));
                assert!(keeps_nan(&y, &expected), "batch {batch}, {value} in {place}");
                assert!(keeps_nan(&norm.mean, &reference.mean), "mean: batch {batch}, {value} in {place}");
                assert!(
                    keeps_nan(&norm.variance, &reference.variance),
                    "variance: batch {batch}, {value} in {place}"
                );
            }
        }
    }
}

#[test]
fn se_with_sum_and_relu_keeps_nan() {
    for batch in BATCHES {
        for value in BAD {
            for place in 0..6 {
                let inputs = [
                    map("u", &[batch, 16, 5, 5]),
                    map("shortcut", &[batch, 16, 5, 5]),
                    values("w1", &[4, 16, 1, 1]),
                    values("b1", &[4]),
                    values("w2", &[16, 4, 1, 1]),
                    values("b2", &[16]),
                ];
                spoil(&inputs[place], value);
                let [u, shortcut, w1, b1, w2, b2] = &inputs;
                let z = u.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
                let hidden = z.conv2d(w1, Some(b1), 1, 0, 1, 1).relu();
                let gate = hidden.conv2d(w2, Some(b2), 1, 0, 1, 1).sigmoid();
                let expected = (u * gate + shortcut).relu();
                let trained = excite_add_relu(u, shortcut, (w1, Some(b1)), (w2, Some(b2))).unwrap();
                assert!(keeps_nan(&trained, &expected), "batch {batch}, {value} in input {place}");
                let planned =
                    no_grad(|| excite_add_relu(&u.copy(), shortcut, (w1, Some(b1)), (w2, Some(b2)))).unwrap();
                assert!(keeps_nan(&planned, &expected), "no grad, batch {batch}, {value} in input {place}");
            }
        }
    }
}

/// 3×3 of 32 to 32 channels, stride 1, border 1.
fn square_conv(groups: i64) -> Conv {
    Conv {
        c_in: 32,
        c_out: 32,
        kernel: [3, 3],
        stride: 1,
        padding: [1, 1],
        groups,
        bias: true,
        excitation: false,
    }
}

#[test]
fn our_convolutions_keep_nan() {
    for batch in BATCHES {
        for groups in [1, 8] {
            for place in 0..3 {
                let conv = square_conv(groups);
                let inputs =
                    [map("x", &[batch, 32, 14, 14]), map("w", &[32, 32 / groups, 3, 3]), values("b", &[32])];
                spoil(&inputs[place], f64::NAN);
                let [x, weight, bias] = &inputs;
                let expected = x.conv2d(weight, Some(bias), 1, 1, 1, groups);
                let (ours, fused) = if groups == 1 && winograd::suits(&conv, x) {
                    let packed = winograd::pack(weight).unwrap();
                    (
                        winograd::convolve(&conv, x, weight, Some(bias)).unwrap(),
                        winograd::convolve_packed(&conv, x, &packed, bias, None, true).unwrap(),
                    )
                } else if groups > 1 && grouped::suits(&conv, x) {
                    let packed = grouped::pack(weight).unwrap();
                    (
                        grouped::convolve(&conv, x, weight, Some(bias)).unwrap(),
                        grouped::convolve_packed(&conv, x, &packed, bias, true).unwrap(),
                    )
                } else {
                    continue;
                };
                assert!(keeps_nan(&ours, &expected), "batch {batch}, {groups} groups, input {place}");
                assert!(keeps_nan(&fused, &expected), "ReLU: batch {batch}, {groups} groups, input {place}");
            }
        }
    }
}

#[test]
fn convolutions_of_onednn_keep_nan_behind_relu_and_sum() {
    // Pointwise, as the stem's, depthwise, and in groups that are not ours.
    for (c_in, c_out, kernel, stride, groups) in
        [(16, 32, 1, 1, 1), (3, 64, 7, 2, 1), (32, 32, 3, 1, 32), (24, 24, 1, 1, 3), (16, 32, 3, 2, 1)]
    {
        let padding = kernel / 2;
        let conv = Conv {
            c_in,
            c_out,
            kernel: [kernel, kernel],
            stride,
            padding: [padding, padding],
            groups,
            bias: true,
            excitation: false,
        };
        for (batch, place) in BATCHES.into_iter().flat_map(|batch| (0..4).map(move |place| (batch, place))) {
            let side = (14 + 2 * padding - kernel) / stride + 1;
            let inputs = [
                map("x", &[batch, c_in, 14, 14]),
                map("w", &[c_out, c_in / groups, kernel, kernel]),
                values("b", &[c_out]),
                map("other", &[batch, c_out, side, side]),
            ];
            spoil(&inputs[place], f64::NAN);
            let [x, weight, bias, other] = &inputs;
            let plain = x.conv2d(weight, Some(bias), stride, padding, 1, groups);
            let packed = pack(&conv, weight, [batch, c_in, 14, 14]).unwrap();
            let where_ = format!("batch {batch}, {c_in} to {c_out} by {kernel}, input {place}");
            // At the border, what NaN of a filter does to zeros around the image is nobody's promise.
            let of_filter = |y: &Tensor| if place == 1 { interior(y, padding) } else { y.shallow_clone() };
            let agree_on_nan = |a: &Tensor, b: &Tensor| agree_on_nan(&of_filter(a), &of_filter(b));
            let ours = |other, relu| no_grad(|| convolve(&conv, x, &packed, bias, other, relu)).unwrap();
            assert!(agree_on_nan(&ours(None, false), &plain), "{where_}");
            assert!(agree_on_nan(&ours(None, true), &plain.relu()), "ReLU: {where_}");
            assert!(agree_on_nan(&ours(Some(other), false), &(&plain + other)), "sum: {where_}");
            assert!(agree_on_nan(&ours(Some(other), true), &(&plain + other).relu()), "sum, ReLU: {where_}");
        }
    }
    // What stands in for the ReLU is as good as 0.
    let conv = Conv {
        c_in: 16,
        c_out: 8,
        kernel: [1, 1],
        stride: 1,
        padding: [0, 0],
        groups: 1,
        bias: true,
        excitation: false,
    };
    let (x, weight, bias) = (map("x", &[2, 16, 9, 9]) * 1e3, map("w", &[8, 16, 1, 1]), values("b", &[8]));
    let packed = pack(&conv, &weight, [2, 16, 9, 9]).unwrap();
    let ours = no_grad(|| convolve(&conv, &x, &packed, &bias, None, true)).unwrap();
    let expected = x.conv2d(&weight, Some(&bias), 1, 0, 1, 1).relu();
    let least = ours.minimum(&ours.zeros_like()).min().double_value(&[]);
    assert!(least > -1e-15, "{least}");
    assert!((ours - expected).abs().max().double_value(&[]) < 1e-2);
}

/// A map without so many rows and columns at each side.
fn interior(y: &Tensor, border: i64) -> Tensor {
    let of = |y: &Tensor, dim: i64| y.narrow(dim, border, y.size()[dim as usize] - 2 * border);
    of(&of(y, 2), 3)
}

/// Of finite weights and images: no look at either finds it.
#[test]
fn what_overflows_on_the_way_is_what_libtorch_computes() {
    for (name, size, first, second) in [
        ("resnet-50", 64, "layer1.0.bn1.weight", "layer1.0.bn3.weight"),
        ("resnet-20", 32, "bn1.weight", "layer1.0.bn2.weight"),
        ("se-resnet-50", 64, "bn1.weight", "layer1.0.bn1.weight"),
    ] {
        let mut net = filled_net(&spec(name), 10);
        let gammas =
            net.tensors().iter().filter(|named| [first, second].contains(&named.param.name.as_str()));
        let scaled =
            gammas.map(|named| no_grad(|| named.tensor.shallow_clone().f_mul_scalar_(1e25)).unwrap());
        assert!(scaled.count() >= 2, "{name}");
        for batch in [1, 2, 3] {
            let images = input(batch, size);
            let planned = InferencePlan::new(&net).unwrap().forward(&images).unwrap();
            net.compute_plainly();
            let reference = no_grad(|| net.forward(&images, Mode::Eval)).unwrap();
            let is_finite = reference.isfinite().all().int64_value(&[]) == 1;
            assert!(!is_finite, "{name}: nothing overflows");
            assert!(agree(&planned, &reference), "{name}, batch {batch}");
        }
    }
}

/// A tensor with one bad value, and what `ours` and `theirs` make of it and of its gradients.
fn gradients_keep_nan(
    inputs: &[Tensor],
    ours: impl Fn(&[Tensor]) -> Tensor,
    theirs: impl Fn(&[Tensor]) -> Tensor,
    what: &str,
) {
    let compute = |operator: &dyn Fn(&[Tensor]) -> Tensor, bad_gradient: Option<f64>| {
        let leaves: Vec<Tensor> = inputs
            .iter()
            .map(|input| {
                let leaf = input.detach().copy();
                let leaf = if input.dim() == 4 { channels_last(&leaf).unwrap().detach() } else { leaf };
                leaf.set_requires_grad(true)
            })
            .collect();
        let y = operator(&leaves);
        let weights = map("gradient", &y.size()).to_kind(y.kind());
        if let Some(value) = bad_gradient {
            spoil(&weights, value);
        }
        (y.shallow_clone() * weights).sum(y.kind()).backward();
        leaves.iter().map(Tensor::grad).collect::<Vec<_>>()
    };
    for bad_gradient in [None, Some(f64::NAN), Some(f64::INFINITY)] {
        let (found, expected) = (compute(&ours, bad_gradient), compute(&theirs, bad_gradient));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(keeps_nan(found, expected), "{what}, gradient {bad_gradient:?}: that of input {at}");
        }
    }
}

#[test]
fn gradients_of_batch_norm_and_se_keep_nan() {
    for (batch, kind, value) in BATCHES
        .into_iter()
        .flat_map(|batch| [Kind::Float, Kind::BFloat16].map(|kind| (batch, kind)))
        .flat_map(|(batch, kind)| [f64::NAN, f64::INFINITY, 0.5].map(|value| (batch, kind, value)))
    {
        let what = format!("batch {batch}, {kind:?}, {value}");
        let norm_inputs =
            [map("x", &[batch, 16, 5, 5]).to_kind(kind), values("gamma", &[16]), values("beta", &[16])];
        spoil(&norm_inputs[0], value);
        let norm = |leaves: &[Tensor]| BatchNorm {
            gamma: leaves[1].shallow_clone(),
            beta: leaves[2].shallow_clone(),
            mean: values("mean", &[16]),
            variance: values("variance", &[16]) + 1.0,
        };
        gradients_keep_nan(
            &norm_inputs,
            |leaves| batch_norm_relu(&leaves[0], &norm(leaves), 0.1, 1e-5, true, None).unwrap(),
            |leaves| {
                let BatchNorm { gamma, beta, mean, variance } = norm(leaves);
                let statistics = (Some(mean), Some(variance));
                let (mean, variance) = statistics;
                leaves[0].batch_norm(Some(gamma), Some(beta), mean, variance, true, 0.1, 1e-5, false).relu()
            },
            &format!("batch norm, {what}"),
        );
        let se_inputs = [
            map("u", &[batch, 16, 5, 5]),
            map("shortcut", &[batch, 16, 5, 5]),
            values("w1", &[4, 16, 1, 1]),
            values("b1", &[4]),
            values("w2", &[16, 4, 1, 1]),
            values("b2", &[16]),
        ]
        .map(|input| input.to_kind(kind));
        spoil(&se_inputs[0], value);
        gradients_keep_nan(
            &se_inputs,
            |leaves| {
                let [u, shortcut, w1, b1, w2, b2] = leaves else { unreachable!() };
                excite_add_relu(u, shortcut, (w1, Some(b1)), (w2, Some(b2))).unwrap()
            },
            |leaves| {
                let [u, shortcut, w1, b1, w2, b2] = leaves else { unreachable!() };
                let z = u.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
                let gate =
                    z.conv2d(w1, Some(b1), 1, 0, 1, 1).relu().conv2d(w2, Some(b2), 1, 0, 1, 1).sigmoid();
                (u * gate + shortcut).relu()
            },
            &format!("SE, {what}"),
        );
    }
}

#[test]
fn gradients_of_our_convolutions_keep_nan() {
    for (batch, groups) in BATCHES.into_iter().flat_map(|batch| [(batch, 1), (batch, 8)]) {
        let conv = square_conv(groups);
        for value in [f64::NAN, 0.5] {
            let inputs =
                [map("x", &[batch, 32, 14, 14]), map("w", &[32, 32 / groups, 3, 3]), values("b", &[32])];
            spoil(&inputs[0], value);
            let suits = if groups == 1 { winograd::suits } else { grouped::suits };
            if !suits(&conv, &inputs[0]) {
                continue;
            }
            gradients_keep_nan(
                &inputs,
                |leaves| {
                    let convolve = if groups == 1 { winograd::convolve } else { grouped::convolve };
                    convolve(&conv, &leaves[0], &leaves[1], Some(&leaves[2])).unwrap()
                },
                |leaves| leaves[0].conv2d(&leaves[1], Some(&leaves[2]), 1, 1, 1, groups),
                &format!("batch {batch}, {groups} groups, {value}"),
            );
        }
    }
}

/// Pools, sums, ReLUs, gates, grouped and shuffled convolutions: NaN of one image reaches its logits and no others.
#[test]
fn nan_of_an_image_reaches_its_own_logits_in_networks_of_all_families() {
    for (name, size) in [
        ("vgg-16-bn", 32),
        ("se-bn-inception", 64),
        ("se-shufflenet", 64),
        ("mobilenet", 64),
        ("se-preact-resnet-110", 32),
    ] {
        let net = filled_net(&spec(name), 10);
        let plan = InferencePlan::new(&net).unwrap();
        for batch in [1, 2] {
            let images = input(batch, size);
            spoil(&images, f64::NAN);
            let planned = plan.forward(&images).unwrap();
            let direct = no_grad(|| net.forward(&images, Mode::Eval)).unwrap();
            for logits in [planned, direct] {
                let bad: Vec<bool> = Vec::try_from(is_nan(&logits).any_dim(1, false)).unwrap();
                let expected: Vec<bool> = (0..batch).map(|at| at == 0).collect();
                assert_eq!(bad, expected, "{name}, batch {batch}");
            }
        }
    }
}

#[test]
fn criteria_of_logits_that_are_not_finite_are_not_finite() {
    let criteria = [
        "\"cross-entropy\"",
        "\"bce\"",
        "{\"kind\": \"bce\", \"target_threshold\": 0.2, \"sum_classes\": true}",
    ];
    for (criterion, batch) in criteria.iter().flat_map(|criterion| [1, 2, 3].map(|batch| (criterion, batch)))
    {
        let criterion: LossSpec = serde_json::from_str(criterion).unwrap();
        for (kind, smoothing) in [(Kind::Float, 0.0), (Kind::Float, 0.1), (Kind::BFloat16, 0.1)] {
            let labels = Tensor::arange(batch, (Kind::Int64, tch::Device::Cpu));
            let logits = values("logits", &[batch, 7]).to_kind(kind);
            let mixed = Mixed { labels: labels.flip([0]), share: Tensor::from_slice(&[0.3f32]) };
            for target in
                [Target::plain(&labels), Target { labels: labels.shallow_clone(), mixed: Some(mixed) }]
            {
                let loss = |value: f64| {
                    let leaf = logits.copy();
                    spoil(&leaf, value);
                    let leaf = leaf.set_requires_grad(true);
                    let loss = criterion.of(&leaf, &target, smoothing).unwrap();
                    loss.backward();
                    (loss.double_value(&[]), leaf.grad().isnan().any().int64_value(&[]) == 1)
                };
                let what = format!("{criterion:?}, batch {batch}, {kind:?}, {smoothing}");
                let (finite, has_nan) = loss(0.5);
                assert!(finite.is_finite() && !has_nan, "{what}");
                let (of_nan, has_nan) = loss(f64::NAN);
                assert!(of_nan.is_nan() && has_nan, "{what}: {of_nan}");
                assert!(!loss(f64::INFINITY).0.is_finite(), "{what}");
            }
        }
    }
}

/// On a processor with AVX-512 the other half of the kernels would never run.
#[test]
fn nan_stays_nan_with_avx2() {
    if senet::torch_ext::cpu_capability() != "AVX512" {
        return;
    }
    let tests = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["keep", "--test-threads", "1"])
        .env("ATEN_CPU_CAPABILITY", "avx2")
        .env("ONEDNN_MAX_CPU_ISA", "AVX2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && text.contains("6 passed"), "{text}");
}
