//! A network computes the same, whichever way it is computed, and starts from what it shares with its variants.

mod filled;

use filled::{doubles, filled_net, input, relative_error, spec, uniform};
use senet::net::build::{Mode, Net, channels_last};
use senet::net::plan::InferencePlan;
use senet::net::{Conv, add, identity, relu, seq};
use senet::torch_ext::excite::excite_add_relu;
use senet::torch_ext::host::normalise;
use senet::torch_ext::norm::{BatchNorm, batch_norm_relu};
use senet::torch_ext::{grouped, has_own_convolutions, winograd};
use tch::{Device, Kind, Tensor, no_grad};

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
        let net = filled_net(&spec(name), 10);
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

#[test]
fn stochastic_depth_leaves_out_whole_branches_of_samples() {
    let sums = seq("", (0..3).map(|_| add(identity(), identity()))).with_drop_path(0.75);
    let net = Net::build(&sums, 0, Device::Cpu).unwrap();
    let images = Tensor::ones([4000, 1, 1, 2], (Kind::Float, Device::Cpu));
    tch::manual_seed(0);
    let outputs = net.forward(&images, Mode::Train).unwrap();
    let values = doubles(&outputs);
    // The first sum always adds. The branch of the second stays with 5/8, that of the third with 1/4, as 8/5 and 4 times.
    let (keep2, keep3) = (0.625, 0.25);
    let possible = [1.0, 1.0 + 1.0 / keep2].map(|second| [2.0 * second, 2.0 * second * (1.0 + 1.0 / keep3)]);
    let mut counts = [[0.0f64; 2]; 2];
    for sample in values.chunks_exact(2) {
        assert_eq!(sample[0], sample[1], "a sample's branch is left out as a whole");
        let is = |value: f64| (value - sample[0]).abs() < 1e-5;
        let found = (0..4).find(|way| is(possible[way / 2][way % 2])).expect("one of the four ways");
        counts[found / 2][found % 2] += 1.0 / 4000.0;
    }
    assert!((counts[1][0] + counts[1][1] - keep2).abs() < 0.03, "{counts:?}");
    assert!((counts[0][1] + counts[1][1] - keep3).abs() < 0.03, "{counts:?}");
    // In evaluation nothing is left out, and nothing grown.
    assert_eq!(doubles(&net.forward(&images, Mode::Eval).unwrap()), vec![8.0; 8000]);
}

#[test]
fn with_stochastic_depth_an_se_block_computes_what_it_computes_alone() {
    // A rate so small that nothing is left out, but that takes the way of libtorch's own operators.
    let with = |drop_path: f64| {
        let node = senet::models::ModelSpec { drop_path, ..spec("se-resnet-20") }.describe(3, 10).unwrap();
        let net = Net::build(&node, 3, Device::Cpu).unwrap();
        let logits = net.forward(&input(4, 16), Mode::Train).unwrap();
        logits.square().sum(Kind::Float).backward();
        let gradient = net.trainable().next().unwrap().tensor.grad();
        (doubles(&logits), doubles(&gradient))
    };
    let (fused, plain) = (with(0.0), with(1e-9));
    let errors = [relative_error(&plain.0, &fused.0), relative_error(&plain.1, &fused.1)];
    assert!(errors.iter().all(|error| *error < 1e-4), "{errors:?}");
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

    /// The same in float64, each tensor moved by `step` times a direction of its own.
    fn exact(&self, step: f64) -> Self {
        let moved = |name: &str, tensor: &Tensor| {
            let exact = tensor.detach().to_kind(Kind::Double);
            (&exact + direction(name, tensor) * step).set_requires_grad(true)
        };
        Self {
            u: moved("u", &self.u),
            shortcut: moved("shortcut", &self.shortcut),
            w1: moved("w1", &self.w1),
            b1: moved("b1", &self.b1),
            w2: moved("w2", &self.w2),
            b2: moved("b2", &self.b2),
        }
    }

    /// Those that have gradients, with their names.
    fn inputs(&self, bias: bool) -> Vec<(&str, &Tensor)> {
        let mut inputs =
            vec![("u", &self.u), ("shortcut", &self.shortcut), ("w1", &self.w1), ("w2", &self.w2)];
        if bias {
            inputs.extend([("b1", &self.b1), ("b2", &self.b2)]);
        }
        inputs
    }

    fn fused(&self, bias: bool) -> Tensor {
        let bias = |b| bias.then_some(b);
        excite_add_relu(&self.u, &self.shortcut, (&self.w1, bias(&self.b1)), (&self.w2, bias(&self.b2)))
            .unwrap()
    }

    /// Equations 2 to 4 of the paper, one libtorch call each.
    fn plain(&self, bias: bool) -> Tensor {
        let z = self.u.mean_dim([2i64, 3].as_slice(), true, self.u.kind());
        let fc =
            |x: &Tensor, w: &Tensor, b: &Tensor| x.conv2d(w, bias.then_some(b), [1, 1], [0, 0], [1, 1], 1);
        let s = fc(&fc(&z, &self.w1, &self.b1).relu(), &self.w2, &self.b2).sigmoid();
        (&self.u * s + &self.shortcut).relu()
    }

    fn gradients(&self, y: &Tensor, bias: bool) -> Vec<Vec<f64>> {
        let inputs: Vec<&Tensor> = self.inputs(bias).into_iter().map(|(_, tensor)| tensor).collect();
        Tensor::run_backward(&[loss(y)], &inputs, false, false).iter().map(doubles).collect()
    }
}

/// A number that all of a map's values have a part in.
fn loss(y: &Tensor) -> Tensor {
    let weight = Tensor::from_slice(&uniform("weight", y.numel() as i64)).view_as(y) - 0.3;
    (y * weight).sum(y.kind())
}

/// Values from -1/2 to 1/2 in the shape of `tensor`, in float64.
fn direction(name: &str, tensor: &Tensor) -> Tensor {
    let values = Tensor::from_slice(&uniform(&format!("direction of {name}"), tensor.numel() as i64));
    values.view_as(tensor).to_kind(Kind::Double) - 0.5
}

#[test]
fn the_fused_excitation_has_the_plain_ones_values_and_gradients() {
    let as_is = |x: &Tensor| x.shallow_clone();
    let last = |x: &Tensor| channels_last(x).unwrap();
    for (n, c, size, bias) in [(3, 8, 5, true), (1, 20, 9, true), (2, 256, 14, false), (2, 3, 1, true)] {
        for block in [Block::new(n, c, size, last), Block::new(n, c, size, as_is)] {
            let case = format!("{n} {c} {size}");
            let exact_block = block.exact(0.0);
            let (fused, exact) = (block.fused(bias), exact_block.plain(bias));
            assert!(relative_error(&doubles(&fused), &doubles(&exact)) < 1e-5, "{case}");
            let gradients = block.gradients(&fused, bias);
            let expected = exact_block.gradients(&exact, bias);
            for ((name, _), (fused, exact)) in block.inputs(bias).iter().zip(gradients.iter().zip(&expected))
            {
                let error = relative_error(fused, exact);
                assert!(error < 1e-5, "gradient of {name}, {case}: {error:.1e}");
            }

            // That those are the gradients, without autograd: a step to either side along a direction in all tensors.
            let step = 1e-6;
            let [after, before] =
                [step, -step].map(|step| loss(&block.exact(step).plain(bias)).double_value(&[]));
            let slope = (after - before) / (2.0 * step);
            let along: f64 = block
                .inputs(bias)
                .iter()
                .zip(&gradients)
                .map(|((name, tensor), gradient)| {
                    let direction = doubles(&direction(name, tensor));
                    gradient.iter().zip(direction).map(|(a, b)| a * b).sum::<f64>()
                })
                .sum();
            let length: f64 = gradients.iter().flatten().map(|value| value * value).sum::<f64>().sqrt();
            assert!((along - slope).abs() < 1e-5 * length, "{case}: {along} along, {slope} by differences");

            // Last, since it overwrites u.
            let inferred = no_grad(|| block.fused(bias));
            assert!(relative_error(&doubles(&inferred), &doubles(&exact)) < 1e-5, "{case}");
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
        let fused = batch_norm_relu(&x, &ours, 0.1, 1e-5, relu, None).unwrap();
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

/// 3×3, stride 1, border 1.
fn square_conv(c_in: i64, c_out: i64, groups: i64) -> Conv {
    Conv { c_in, c_out, kernel: [3, 3], stride: 1, padding: [1, 1], groups, bias: true, excitation: false }
}

/// Values from -1/2 to 1/2; maps and filters in channels_last.
fn centred(name: &str, shape: &[i64]) -> Tensor {
    let uniform = Tensor::from_slice(&uniform(name, shape.iter().product())).view(shape) - 0.5;
    if shape.len() == 4 { channels_last(&uniform).unwrap() } else { uniform }
}

/// A convolution of ours: of x, weights and bias, with gradients.
type Convolve<'a> = &'a dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor;

/// Compares `convolve` with libtorch's convolution in float64: values and gradients, of all inputs together and of each
/// alone, with a bias and without, and of a plain sum, whose gradient is one number for all outputs.
fn has_the_direct_ones_gradients(conv: &Conv, [n, height, width]: [i64; 3], convolve: Convolve<'_>) {
    let Conv { c_in, c_out, groups, stride, .. } = *conv;
    // A part of a batch, which begins in the middle of its memory.
    let batch = centred("x", &[n + 1, c_in, height, width]);
    let x = batch.narrow(0, 1, n).set_requires_grad(true);
    let weight = centred("weight", &[c_out, c_in / groups, 3, 3]).set_requires_grad(true);
    let bias = centred("bias", &[c_out]).set_requires_grad(true);
    let exactly = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double).set_requires_grad(true);
    let (exact_x, exact_weight, exact_bias) = (exactly(&x), exactly(&weight), exactly(&bias));
    let same = |what: &str, found: &Tensor, expected: &Tensor| {
        let error = relative_error(&doubles(found), &doubles(expected));
        assert!(error < 5e-6, "{what} of {n} {conv:?} {height} {width}: {error:.1e}");
    };
    for with_bias in [true, false] {
        let bias_of = |bias| with_bias.then_some(bias);
        let fast = convolve(&x, &weight, bias_of(&bias));
        let (strides, border) = ([stride, stride], [1, 1]);
        let exact = exact_x.conv2d(&exact_weight, bias_of(&exact_bias), strides, border, [1, 1], groups);
        same("output", &fast, &exact);
        let grad = centred("grad", &fast.size());
        let inputs =
            [("x", &x, &exact_x), ("the weights", &weight, &exact_weight), ("the bias", &bias, &exact_bias)];
        let inputs = &inputs[..if with_bias { 3 } else { 2 }];
        for part in [inputs, &inputs[..1], &inputs[1..2]] {
            for weighted in [true, false] {
                let loss = |y: &Tensor| if weighted { (y * &grad).sum(y.kind()) } else { y.sum(y.kind()) };
                let gradients = |y: &Tensor, inputs: Vec<&Tensor>| {
                    Tensor::f_run_backward(&[loss(y)], &inputs, true, false).unwrap()
                };
                let found = gradients(&fast, part.iter().map(|input| input.1).collect());
                let expected = gradients(&exact, part.iter().map(|input| input.2).collect());
                for ((name, ..), (found, expected)) in part.iter().zip(found.iter().zip(&expected)) {
                    same(&format!("gradient of {name}"), found, expected);
                }
            }
        }
    }
}

/// The convolution in float64.
fn exact_convolution(conv: &Conv, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let exactly = |tensor: &Tensor| tensor.to_kind(Kind::Double);
    let strides = [conv.stride, conv.stride];
    exactly(x).conv2d(&exactly(weight), Some(exactly(bias)), strides, [1, 1], [1, 1], conv.groups)
}

#[test]
fn winograds_convolution_has_the_direct_ones_values_and_gradients() {
    // Few channels (each thread takes tiles through all of it) and many (threads share the channels), in groups, tiles
    // that end beyond the border, more tiles than are taken at once, and (the last) more images than are.
    tch::set_num_threads(2);
    let shapes = [
        (5, square_conv(16, 16, 1), 5, 4),
        (2, square_conv(64, 32, 1), 7, 7),
        (8, square_conv(32, 16, 1), 2, 4),
        (3, square_conv(96, 64, 2), 9, 6),
        (2, square_conv(256, 512, 16), 6, 14),
        (1, square_conv(48, 96, 1), 13, 6),
        (2, square_conv(32, 160, 1), 9, 11),
        (2, square_conv(128, 96, 1), 56, 57),
        (6, square_conv(144, 176, 1), 56, 57),
    ];
    for (n, conv, height, width) in shapes {
        let Conv { c_in, c_out, groups, .. } = conv;
        let x = centred("x", &[n, c_in, height, width]);
        assert_eq!(winograd::suits(&conv, &x), has_own_convolutions(), "{conv:?}");
        if !has_own_convolutions() {
            return;
        }
        has_the_direct_ones_gradients(&conv, [n, height, width], &|x, weight, bias| {
            winograd::convolve(&conv, x, weight, bias).unwrap()
        });
        let weight = centred("weight", &[c_out, c_in / groups, 3, 3]);
        let bias = centred("bias", &[c_out]);
        let expected = exact_convolution(&conv, &x, &weight, &bias);
        // The other map in another layout, as well.
        let other = centred("other", &[n, c_out, height, width]);
        let packed = winograd::pack(&weight).unwrap();
        for (other, relu) in [(None, false), (Some(&other), true), (Some(&other.contiguous()), false)] {
            let planned = winograd::convolve_packed(&conv, &x, &packed, &bias, other, relu).unwrap();
            let summed = other.map_or(expected.shallow_clone(), |other| &expected + other);
            let error =
                relative_error(&doubles(&planned), &doubles(&if relu { summed.relu() } else { summed }));
            assert!(error < 5e-6, "{n} {conv:?} {height} {width}, ReLU {relu}: {error:.1e}");
        }
    }
}

#[test]
fn a_convolution_by_groups_has_the_direct_ones_values_and_gradients() {
    // Groups narrower than a vector, as wide and wider; rows of less and of more outputs than are summed at a time, odd
    // and even, so that strides end at the border and before it; one row; one pixel.
    tch::set_num_threads(2);
    for (n, channels, groups, height, width) in [
        (2, 128, 32, 9, 20),
        (3, 64, 8, 8, 8),
        (2, 48, 3, 5, 17),
        (2, 64, 4, 14, 7),
        (1, 16, 4, 1, 1),
        (1, 32, 4, 2, 3),
        (1, 32, 8, 1, 21),
    ] {
        for stride in [1, 2] {
            let conv = Conv { stride, ..square_conv(channels, channels, groups) };
            let x = centred("x", &[n, channels, height, width]);
            assert_eq!(grouped::suits(&conv, &x), has_own_convolutions(), "{conv:?}");
            if !has_own_convolutions() {
                return;
            }
            has_the_direct_ones_gradients(&conv, [n, height, width], &|x, weight, bias| {
                grouped::convolve(&conv, x, weight, bias).unwrap()
            });
            let weight = centred("weight", &[channels, channels / groups, 3, 3]);
            let bias = centred("bias", &[channels]);
            let expected = exact_convolution(&conv, &x, &weight, &bias);
            let filters = grouped::pack(&weight).unwrap();
            for relu in [false, true] {
                let planned = grouped::convolve_packed(&conv, &x, &filters, &bias, relu).unwrap();
                let expected = if relu { expected.relu() } else { expected.shallow_clone() };
                let error = relative_error(&doubles(&planned), &doubles(&expected));
                assert!(error < 5e-6, "{n} {conv:?} {height} {width}, ReLU {relu}: {error:.1e}");
            }
        }
    }
}

/// On a processor with AVX-512 the other half of the kernels would never run.
#[test]
fn convolutions_compute_the_same_with_avx2() {
    if senet::torch_ext::cpu_capability() != "AVX512" {
        return;
    }
    let tests = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["direct_ones_values_and_gradients", "--test-threads", "1"])
        .env("ATEN_CPU_CAPABILITY", "avx2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && text.contains("2 passed"), "{text}");
}

#[test]
fn what_does_not_suit_our_convolutions_is_refused() {
    // The border to C++ believes nobody: each of these would read or write beyond a tensor.
    let filters = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    assert!(grouped::pack(&filters(&[20, 4, 3, 3])).is_err(), "a part of a vector");
    assert!(grouped::pack(&filters(&[32, 5, 3, 3])).is_err(), "groups of 5");
    assert!(grouped::pack(&filters(&[32, 4, 1, 1])).is_err(), "1x1");
    if !has_own_convolutions() {
        return;
    }
    let x = centred("x", &[4, 32, 9, 9]);
    let conv = square_conv(32, 32, 8);
    let packed = grouped::pack(&filters(&[64, 4, 3, 3])).unwrap();
    assert!(grouped::convolve_packed(&conv, &x, &packed, &filters(&[32]), false).is_err(), "more channels");
    let packed = grouped::pack(&filters(&[32, 4, 3, 3])).unwrap();
    assert!(grouped::convolve_packed(&conv, &x, &packed, &filters(&[31]), false).is_err(), "a short bias");
    assert!(grouped::convolve(&conv, &x.contiguous(), &filters(&[32, 4, 3, 3]), None).is_err(), "a layout");
    let conv = square_conv(32, 24, 1);
    assert!(winograd::convolve(&conv, &x, &filters(&[24, 32, 3, 3]), None).is_err(), "a part of a block");
    assert!(winograd::convolve(&conv, &x, &filters(&[32, 16, 3, 3]), None).is_err(), "fewer channels");
}

#[test]
fn tensors_that_do_not_fit_our_operators_are_refused() {
    let values = |count: i64, kind: Kind| Tensor::ones([count], (kind, Device::Cpu));
    let x = channels_last(&centred("x", &[2, 32, 5, 5])).unwrap();
    for (gamma, beta, mean, variance) in
        [(31, 32, 32, 32), (32, 64, 32, 32), (32, 32, 1, 32), (32, 32, 32, 0)]
    {
        let norm = BatchNorm {
            gamma: values(gamma, Kind::Float),
            beta: values(beta, Kind::Float),
            mean: values(mean, Kind::Float),
            variance: values(variance, Kind::Float),
        };
        assert!(batch_norm_relu(&x, &norm, 0.1, 1e-5, true, None).is_err(), "{norm:?}");
    }
    let of = |kind: Kind| BatchNorm {
        gamma: values(32, Kind::Float),
        beta: values(32, kind),
        mean: values(32, Kind::Float),
        variance: values(32, Kind::Float),
    };
    assert!(batch_norm_relu(&x, &of(Kind::Double), 0.1, 1e-5, true, None).is_err(), "a shift in float64");
    assert!(batch_norm_relu(&x, &of(Kind::Float), 0.1, 1e-5, true, None).is_ok());

    let fc = |outputs: i64, inputs: i64| centred("w", &[outputs, inputs, 1, 1]);
    for (outputs, shortcut, fits) in [
        (32, [2, 32, 5, 5], true),
        (16, [2, 32, 5, 5], false),
        (64, [2, 32, 5, 5], false),
        (32, [1, 32, 5, 5], false),
    ] {
        let shortcut = channels_last(&centred("shortcut", &shortcut)).unwrap();
        let (w1, w2) = (fc(2, 32), fc(outputs, 2));
        let excited = |u: &Tensor| excite_add_relu(u, &shortcut, (&w1, None), (&w2, None));
        assert_eq!(excited(&x).is_ok(), fits, "{outputs} gates, shortcut {:?}", shortcut.size());
        assert_eq!(
            no_grad(|| excited(&x.copy())).is_ok(),
            fits,
            "{outputs} gates, shortcut {:?}",
            shortcut.size()
        );
    }

    let pixels = Tensor::zeros([1, 2, 2, 3], (Kind::Uint8, Device::Cpu));
    let normalised = |factors: i64, offsets: i64, kind: Kind| {
        normalise(&pixels, &values(factors, Kind::Float), &values(offsets, kind)).is_ok()
    };
    assert!(
        normalised(3, 3, Kind::Float) && !normalised(3, 1, Kind::Float) && !normalised(1, 3, Kind::Float)
    );
    assert!(!normalised(3, 3, Kind::Double));

    if has_own_convolutions() {
        // Groups so wide that the way of many channels would be taken, which has none.
        let x = channels_last(&centred("x", &[4, 288, 9, 9])).unwrap();
        let weight = centred("w", &[288, 144, 3, 3]);
        assert!(winograd::convolve(&square_conv(288, 288, 2), &x, &weight, None).is_err());
    }
}

#[test]
fn a_branch_that_is_only_its_se_block_leaves_its_input_as_it_is() {
    let se = senet::net::se::SeSpec::default();
    let inner = seq("inner", [add(se.after(identity(), [32, 32]), identity()), relu()]);
    let net = Net::build(&add(inner, identity()), 3, Device::Cpu).unwrap();
    let x = channels_last(&centred("x", &[2, 32, 5, 5])).unwrap();
    let before = doubles(&x);
    let recorded = doubles(&net.forward(&x.set_requires_grad(true), Mode::Eval).unwrap());
    let x = x.detach();
    let plain = no_grad(|| net.forward(&x, Mode::Eval)).unwrap();
    let planned = InferencePlan::new(&net).unwrap().forward(&x).unwrap();
    assert!(doubles(&x) == before, "the input was overwritten");
    for other in [plain, planned] {
        assert!(relative_error(&doubles(&other), &recorded) < 1e-6);
    }
}

#[test]
fn a_convolution_by_groups_leaves_to_libtorch_what_it_cannot_do() {
    let map = |kind: Kind| channels_last(&Tensor::ones([4, 32, 14, 14], (kind, Device::Cpu))).unwrap();
    let conv = square_conv(32, 32, 8);
    assert!(!grouped::suits(&conv, &map(Kind::Double)), "float64");
    assert!(!grouped::suits(&conv, &map(Kind::Float).contiguous()), "another layout");
    assert!(!grouped::suits(&conv, &map(Kind::Float).narrow(0, 0, 0)), "no images");
    let others = [
        Conv { stride: 3, ..conv },
        Conv { kernel: [1, 1], ..conv },
        Conv { padding: [0, 0], ..conv },
        Conv { groups: 32, ..conv },
        Conv { groups: 1, ..conv },
        Conv { c_out: 64, ..conv },
    ];
    for other in others {
        assert!(!grouped::suits(&other, &map(Kind::Float)), "{other:?}");
    }
}

#[test]
fn winograds_convolution_leaves_to_libtorch_what_it_cannot_do() {
    let map = |kind: Kind, size: i64| {
        channels_last(&Tensor::ones([4, 16, size, size], (kind, Device::Cpu))).unwrap()
    };
    let conv = square_conv(16, 16, 1);
    assert!(!winograd::suits(&conv, &map(Kind::Double, 14)), "float64");
    assert!(!winograd::suits(&conv, &map(Kind::Float, 2)), "tiles that are mostly border");
    assert!(!winograd::suits(&conv, &map(Kind::Float, 14).contiguous()), "another layout");
    assert!(!winograd::suits(&conv, &map(Kind::Float, 14).narrow(0, 0, 0)), "no images");
    let others = [
        Conv { stride: 2, ..conv },
        Conv { kernel: [1, 1], ..conv },
        Conv { padding: [0, 0], ..conv },
        Conv { groups: 4, ..conv },
        Conv { c_out: 24, ..conv },
    ];
    for other in others {
        assert!(!winograd::suits(&other, &map(Kind::Float, 14)), "{other:?}");
    }
}

#[test]
fn a_network_computes_the_same_with_libtorchs_operators_alone() {
    for (name, size) in [("se-resnet-20", 32), ("se-resnet-18", 64), ("bn-inception", 64)] {
        let step = |plain: bool| {
            let mut net = filled_net(&spec(name), 10);
            if plain {
                net.compute_plainly();
            }
            let logits = net.forward(&input(4, size), Mode::Train).unwrap();
            logits.square().sum(Kind::Float).backward();
            let classifier = net.trainable().last().unwrap().tensor.grad();
            (doubles(&logits), doubles(&classifier), doubles(&net.tensors()[3].tensor))
        };
        let (ours, theirs) = (step(false), step(true));
        for (what, ours, theirs) in
            [("logits", ours.0, theirs.0), ("gradient", ours.1, theirs.1), ("statistics", ours.2, theirs.2)]
        {
            let error = relative_error(&ours, &theirs);
            assert!(error < 1e-3, "{name}: {what}: {error:.1e}");
        }
    }
}
