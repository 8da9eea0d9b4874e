//! NaN stays NaN, and an infinity what libtorch's own operators make of it, in every operator of ours and at every batch
//! size.

mod filled;

use filled::{doubles, filled_net, input, spec, uniform};
use senet::net::Conv;
use senet::net::build::{Mode, channels_last};
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

#[test]
fn our_convolutions_keep_nan() {
    for batch in BATCHES {
        for groups in [1, 8] {
            for place in 0..3 {
                let conv = Conv {
                    c_in: 32,
                    c_out: 32,
                    kernel: [3, 3],
                    stride: 1,
                    padding: [1, 1],
                    groups,
                    bias: true,
                    excitation: false,
                };
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
    // oneDNN's, without the ReLU.
    let conv = Conv {
        c_in: 16,
        c_out: 32,
        kernel: [1, 1],
        stride: 1,
        padding: [0, 0],
        groups: 1,
        bias: true,
        excitation: false,
    };
    let (x, weight, bias) = (map("x", &[1, 16, 7, 7]), map("w", &[32, 16, 1, 1]), values("b", &[32]));
    spoil(&x, f64::NAN);
    let packed = pack(&conv, &weight, [1, 16, 7, 7]).unwrap();
    let y = no_grad(|| convolve(&conv, &x, &packed, &bias, None, false)).unwrap();
    assert!(keeps_nan(&y, &x.conv2d(&weight, Some(&bias), 1, 0, 1, 1)));
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
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && text.contains("3 passed"), "{text}");
}
