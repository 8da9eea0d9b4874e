//! Reader 3 of a [`Node`]: tensors, and the computation.
//!
//! While reading, some things that a description need not say are arranged: a ReLU works in place where its input
//! is nobody else's; batch normalisation with the ReLU behind it, and an SE block with the sum and the ReLU behind it
//! (the authors' Axpy layer), become one operator each.

use super::finite::FiniteLog;
use super::gates::{GateLog, se_gate};
use super::params::{Init, Param, Role, params};
use super::{Conv, Node, Op, Pool, join};
use crate::error::{Result, TorchContext};
use crate::rng;
use crate::torch_ext::dist::Peers;
use crate::torch_ext::excite::excite_add_relu;
use crate::torch_ext::grouped;
use crate::torch_ext::norm::{BatchNorm, batch_norm_relu};
use crate::torch_ext::winograd;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::HashMap;
use tch::{Device, Kind, TchError, Tensor, no_grad};

/// Share of each new batch in the running statistics of batch normalisation, as in PyTorch.
const BN_MOMENTUM: f64 = 0.1;

/// Whether batch normalisation uses (and learns) the batch's statistics, or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Training with the statistics of the batches of all peers together (SyncBN); for a network that has none, as
    /// [`Mode::Train`].
    TrainTogether,
    /// Training with the running statistics, which stay as they are; gammas and betas still have gradients.
    TrainFrozen,
    /// Inference.
    Eval,
}

impl Mode {
    /// The same without peers.
    pub fn by_itself(self) -> Self {
        if self == Self::TrainTogether { Self::Train } else { self }
    }
}

/// A tensor of a network with its description.
#[derive(Debug)]
pub struct NamedTensor {
    /// Name, shape and role.
    pub param: Param,
    /// The values, float32.
    pub tensor: Tensor,
}

/// A network on a device.
#[derive(Debug)]
pub struct Net {
    layers: Vec<Layer>,
    tensors: Vec<NamedTensor>,
    device: Device,
    peers: Option<Peers>,
    plain: bool,
}

impl Net {
    /// Allocates `root` on `device` and fills it from `seed`. A parameter's first values depend on the seed, its
    /// name and its shape only, so two variants of a network start equal in all that they share.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn build(root: &Node, seed: u64, device: Device) -> Result<Self> {
        let mut tensors = Vec::new();
        let mut by_name = HashMap::new();
        for param in params(root) {
            let tensor = initial(&param, seed, device)
                .torch_context(|| format!("cannot allocate `{}` on {device:?}", param.name))?;
            let twin = by_name.insert(param.name.clone(), tensor.shallow_clone());
            assert!(twin.is_none(), "two tensors of a network are named `{}`", param.name);
            tensors.push(NamedTensor { param, tensor });
        }
        let mut layers = Vec::new();
        lower(root, "", &by_name, &mut layers);
        arrange(&mut layers);
        Ok(Self { layers, tensors, device, peers: None, plain: false })
    }

    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`.
    ///
    /// # Errors
    /// When libtorch refuses: out of memory, or images that do not fit the network.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        run(&self.layers, images, Pass { peers: self.peers.as_ref(), plain: self.plain, ..Pass::of(mode) })
    }

    /// Has [`Mode::TrainTogether`] compute with these.
    pub fn compute_with(&mut self, peers: Option<Peers>) {
        self.peers = peers;
    }

    /// Has [`forward`](Self::forward) compute with libtorch's own operators alone, without peers: what ours are measured
    /// against.
    pub fn compute_plainly(&mut self) {
        self.plain = true;
    }

    /// The steps of the computation.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// All tensors, in the order of the description.
    pub fn tensors(&self) -> &[NamedTensor] {
        &self.tensors
    }

    /// The tensors that are trained.
    pub fn trainable(&self) -> impl Iterator<Item = &NamedTensor> {
        self.tensors.iter().filter(|named| named.param.role.is_trainable())
    }

    /// Where the network lives.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// The first values of a tensor.
fn initial(param: &Param, seed: u64, device: Device) -> Result<Tensor, TchError> {
    let count = usize::try_from(param.count()).expect("a shape has no negative side");
    let mut random = rng::stream(seed, "init", [rng::fnv1a(param.name.as_bytes()), 0]);
    let values: Vec<f32> = match param.init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform { bound } => (0..count).map(|_| random.random_range(-bound..bound) as f32).collect(),
        Init::He { fan } => {
            let deviation = (2.0 / fan as f64).sqrt() as f32;
            let mut normal = || -> f32 { StandardNormal.sample(&mut random) };
            (0..count).map(|_| normal() * deviation).collect()
        }
    };
    let tensor = Tensor::f_from_slice(&values)?.f_view(param.shape.as_slice())?;
    let tensor = if param.shape.len() == 4 { channels_last(&tensor)? } else { tensor };
    let tensor = tensor.f_to_device(device)?;
    Ok(tensor.set_requires_grad(param.role != Role::Statistic))
}

/// The same `[N, C, H, W]` values with C innermost in memory, the layout that the fast kernels want.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

/// A convolution with its tensors.
#[derive(Debug)]
pub(super) struct ConvLayer {
    pub(super) conv: Conv,
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

/// One step of the computation.
#[derive(Debug)]
pub(super) enum Layer {
    Conv(ConvLayer),
    BatchNorm {
        norm: BatchNorm,
        epsilon: f64,
        relu: bool,
    },
    Relu {
        in_place: bool,
    },
    Relu6,
    Sigmoid,
    Tanh,
    MaxPool(Pool),
    AvgPool {
        pool: Pool,
        count_border: bool,
    },
    AdaptiveAvgPool {
        size: i64,
    },
    GlobalAvgPool,
    GlobalMaxPool,
    Flatten,
    Linear {
        weight: Tensor,
        bias: Tensor,
    },
    Subsample {
        stride: i64,
        offset: i64,
        extra_channels: i64,
    },
    Shuffle {
        groups: i64,
    },
    Dropout {
        p: f64,
    },
    Times(f64),
    Concat(Vec<Vec<Layer>>),
    Shake {
        one: Vec<Layer>,
        other: Vec<Layer>,
    },
    Add {
        branch: Vec<Layer>,
        shortcut: Vec<Layer>,
        drop_path: f64,
    },
    Scale {
        /// Name of the SE block.
        name: String,
        features: Vec<Layer>,
        gate: Vec<Layer>,
    },
    /// u = branch(x), relu(u × s + shortcut(x)) with s from the two FCs of an SE block after u.
    ExciteAddRelu {
        /// Name of the SE block.
        name: String,
        branch: Vec<Layer>,
        fc1: ConvLayer,
        fc2: ConvLayer,
        shortcut: Vec<Layer>,
        drop_path: f64,
    },
}

/// Appends `node`'s layers to `layers`.
fn lower(node: &Node, scope: &str, tensors: &HashMap<String, Tensor>, layers: &mut Vec<Layer>) {
    let path = join(scope, &node.name);
    let tensor = |leaf: &str| tensors[&join(&path, leaf)].shallow_clone();
    let branch = |node: &Node| {
        let mut layers = Vec::new();
        lower(node, &path, tensors, &mut layers);
        layers
    };
    layers.push(match &node.op {
        Op::Seq(parts) => return parts.iter().for_each(|part| lower(part, &path, tensors, layers)),
        Op::Identity => return,
        Op::Conv(conv) => {
            let bias = conv.bias.then(|| tensor("bias"));
            Layer::Conv(ConvLayer { conv: *conv, weight: tensor("weight"), bias })
        }
        Op::BatchNorm { epsilon, .. } => {
            let (gamma, beta) = (tensor("weight"), tensor("bias"));
            let (mean, variance) = (tensor("running_mean"), tensor("running_var"));
            let norm = BatchNorm { gamma, beta, mean, variance };
            Layer::BatchNorm { norm, epsilon: *epsilon, relu: false }
        }
        Op::Relu => Layer::Relu { in_place: false },
        Op::Relu6 => Layer::Relu6,
        Op::Sigmoid => Layer::Sigmoid,
        Op::Tanh => Layer::Tanh,
        Op::MaxPool(pool) => Layer::MaxPool(*pool),
        Op::AvgPool { pool, count_border } => Layer::AvgPool { pool: *pool, count_border: *count_border },
        Op::AdaptiveAvgPool { size } => Layer::AdaptiveAvgPool { size: *size },
        Op::GlobalAvgPool => Layer::GlobalAvgPool,
        Op::GlobalMaxPool => Layer::GlobalMaxPool,
        Op::Flatten => Layer::Flatten,
        Op::Linear { .. } => Layer::Linear { weight: tensor("weight"), bias: tensor("bias") },
        Op::Subsample { stride, offset, c_in, c_out } => {
            Layer::Subsample { stride: *stride, offset: *offset, extra_channels: c_out - c_in }
        }
        Op::Shuffle { groups } => Layer::Shuffle { groups: *groups },
        Op::Dropout { p } => Layer::Dropout { p: *p },
        Op::Times(factor) => Layer::Times(*factor),
        Op::Concat(branches) => Layer::Concat(branches.iter().map(branch).collect()),
        Op::Shake { one, other } => Layer::Shake { one: branch(one), other: branch(other) },
        Op::Scale { features, gate } => {
            Layer::Scale { name: block_name(gate, &path), features: branch(features), gate: branch(gate) }
        }
        Op::Add { branch: residual, shortcut, drop_path } => {
            Layer::Add { branch: branch(residual), shortcut: branch(shortcut), drop_path: *drop_path }
        }
    });
}

/// The name that an SE block's parameters share: that of its gate, without what only holds it.
pub(super) fn block_name(gate: &Node, scope: &str) -> String {
    let path = join(scope, &gate.name);
    match &gate.op {
        Op::Seq(parts) if parts.len() == 1 && matches!(parts[0].op, Op::Seq(_)) => {
            block_name(&parts[0], &path)
        }
        _ => path,
    }
}

/// Merges what one operator can do, and lets each ReLU overwrite an input that was made for it and that no gradient
/// needs.
fn arrange(layers: &mut Vec<Layer>) {
    let mut arranged: Vec<Layer> = Vec::with_capacity(layers.len());
    for mut layer in layers.drain(..) {
        match &mut layer {
            Layer::Add { branch: a, shortcut: b, .. }
            | Layer::Scale { features: a, gate: b, .. }
            | Layer::Shake { one: a, other: b } => {
                arrange(a);
                arrange(b);
            }
            Layer::Concat(branches) => branches.iter_mut().for_each(arrange),
            Layer::Relu { in_place } => *in_place = arranged.last().is_some_and(Layer::output_is_free),
            _ => {}
        }
        match (arranged.pop(), layer) {
            (Some(Layer::BatchNorm { norm, epsilon, .. }), Layer::Relu { .. }) => {
                arranged.push(Layer::BatchNorm { norm, epsilon, relu: true });
            }
            (Some(Layer::Add { branch, shortcut, drop_path }), Layer::Relu { .. }) => {
                arranged.extend(excite_add(branch, shortcut, drop_path));
            }
            (last, layer) => arranged.extend(last.into_iter().chain([layer])),
        }
    }
    *layers = arranged;
}

/// The layers of relu(branch(x) + shortcut(x)): one, where the branch ends with an SE block.
fn excite_add(mut branch: Vec<Layer>, shortcut: Vec<Layer>, drop_path: f64) -> Vec<Layer> {
    match branch.pop() {
        // The operator overwrites what the layers before it make, which the block's input is not.
        Some(Layer::Scale { name, features, gate })
            if features.is_empty() && branch.last().is_some_and(Layer::makes_its_output) =>
        {
            match se_fcs(gate) {
                Ok((fc1, fc2)) => {
                    return vec![Layer::ExciteAddRelu { name, branch, fc1, fc2, shortcut, drop_path }];
                }
                Err(gate) => branch.push(Layer::Scale { name, features, gate }),
            }
        }
        last => branch.extend(last),
    }
    vec![Layer::Add { branch, shortcut, drop_path }, Layer::Relu { in_place: true }]
}

/// The two FCs of the gate "mean, FC, ReLU, FC, sigmoid", or another gate as it is.
fn se_fcs(gate: Vec<Layer>) -> Result<(ConvLayer, ConvLayer), Vec<Layer>> {
    match <[Layer; 5]>::try_from(gate) {
        Ok(
            [Layer::GlobalAvgPool, Layer::Conv(fc1), Layer::Relu { .. }, Layer::Conv(fc2), Layer::Sigmoid],
        ) => Ok((fc1, fc2)),
        Ok(other) => Err(other.into()),
        Err(gate) => Err(gate),
    }
}

/// One pass through the layers.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    mode: Mode,
    /// Where the gates of SE blocks are noted, if someone wants them.
    gates: Option<&'a GateLog>,
    /// What looks at all outputs, if something is wrong with them.
    outputs: Option<&'a FiniteLog>,
    /// Whose batches are normalised together with this one, if anyone's.
    peers: Option<&'a Peers>,
    /// Whether none of our own operators is used.
    plain: bool,
}

impl<'a> Pass<'a> {
    pub(super) fn of(mode: Mode) -> Self {
        Self { mode, gates: None, outputs: None, peers: None, plain: false }
    }

    /// By libtorch's own operators alone.
    pub(super) fn reference(mode: Mode) -> Self {
        Self { plain: true, ..Self::of(mode) }
    }

    /// In evaluation, noting gates.
    pub(super) fn noting(gates: &'a GateLog) -> Self {
        Self { gates: Some(gates), ..Self::of(Mode::Eval) }
    }

    /// Looking at outputs.
    pub(super) fn looking(mode: Mode, outputs: &'a FiniteLog) -> Self {
        Self { outputs: Some(outputs), ..Self::of(mode) }
    }
}

pub(super) fn run(layers: &[Layer], x: &Tensor, pass: Pass<'_>) -> Result<Tensor, TchError> {
    let mut x = x.shallow_clone();
    for layer in layers {
        x = layer.forward(x, pass)?;
        if let Some(outputs) = pass.outputs {
            outputs.look(layer, &x)?;
        }
    }
    Ok(x)
}

impl ConvLayer {
    /// The convolution by the fastest operator that can do it.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        if winograd::suits(&self.conv, x) {
            return winograd::convolve(&self.conv, x, &self.weight, self.bias.as_ref());
        }
        if grouped::suits(&self.conv, x) {
            return grouped::convolve(&self.conv, x, &self.weight, self.bias.as_ref());
        }
        self.plain(x)
    }

    /// The convolution by libtorch's general operator.
    fn plain(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Conv { stride, padding, groups, .. } = self.conv;
        x.f_conv2d(&self.weight, self.bias.as_ref(), [stride, stride], padding, [1, 1], groups)
    }

    /// Weight and bias.
    pub(super) fn tensors(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.weight, self.bias.as_ref())
    }
}

impl Layer {
    /// Whether its output was made by it and is not needed for its gradient.
    fn output_is_free(&self) -> bool {
        matches!(self, Layer::Conv(_) | Layer::Linear { .. } | Layer::Add { .. } | Layer::Concat(_))
    }

    /// Whether its output shares no memory with what came into it, or only with what was made for it.
    fn makes_its_output(&self) -> bool {
        self.output_is_free() || matches!(self, Layer::BatchNorm { .. } | Layer::Relu { .. })
    }

    pub(super) fn forward(&self, mut x: Tensor, pass: Pass<'_>) -> Result<Tensor, TchError> {
        match self {
            Layer::Conv(conv) if pass.plain => conv.plain(&x),
            Layer::Conv(conv) => conv.forward(&x),
            Layer::BatchNorm { norm, epsilon, relu } if pass.plain => {
                let of_batch = matches!(pass.mode, Mode::Train | Mode::TrainTogether);
                plain_batch_norm(&x, norm, *epsilon, *relu, of_batch)
            }
            Layer::BatchNorm { norm, epsilon, relu } => match pass.mode {
                Mode::Train => batch_norm_relu(&x, norm, BN_MOMENTUM, *epsilon, *relu, None),
                Mode::TrainTogether => batch_norm_relu(&x, norm, BN_MOMENTUM, *epsilon, *relu, pass.peers),
                Mode::TrainFrozen | Mode::Eval => plain_batch_norm(&x, norm, *epsilon, *relu, false),
            },
            Layer::Relu { in_place: true } => x.f_relu_(),
            Layer::Relu { in_place: false } => x.f_relu(),
            Layer::Relu6 => x.f_relu6(),
            Layer::Sigmoid => x.f_sigmoid(),
            Layer::Tanh => x.f_tanh(),
            Layer::MaxPool(pool) => x.f_max_pool2d(
                [pool.kernel, pool.kernel],
                [pool.stride, pool.stride],
                [pool.padding, pool.padding],
                [1, 1],
                pool.ceil,
            ),
            Layer::AvgPool { pool, count_border } => x.f_avg_pool2d(
                [pool.kernel, pool.kernel],
                [pool.stride, pool.stride],
                [pool.padding, pool.padding],
                pool.ceil,
                *count_border,
                None,
            ),
            Layer::AdaptiveAvgPool { size } => x.f_adaptive_avg_pool2d([*size, *size]),
            Layer::GlobalAvgPool => x.f_mean_dim([2i64, 3].as_slice(), true, None::<Kind>),
            Layer::GlobalMaxPool => x.f_adaptive_max_pool2d([1, 1]).map(|(largest, _)| largest),
            Layer::Flatten => x.f_flatten(1, -1),
            Layer::Linear { weight, bias } => x.f_linear(weight, Some(bias)),
            Layer::Subsample { stride, offset, extra_channels } => {
                // [before, after] of W, then H, then C.
                let moved = match offset {
                    0 => x,
                    offset => x.f_constant_pad_nd([-offset, *offset, -offset, *offset])?,
                };
                let pixels = moved.f_slice(2, None, None, *stride)?.f_slice(3, None, None, *stride)?;
                pixels.f_constant_pad_nd([0, 0, 0, 0, 0, *extra_channels])
            }
            Layer::Shuffle { groups } => {
                let (n, c, h, w) = x.size4()?;
                let grouped = x.f_permute([0, 2, 3, 1])?.f_reshape([n, h, w, *groups, c / groups])?;
                grouped.f_transpose(3, 4)?.f_reshape([n, h, w, c])?.f_permute([0, 3, 1, 2])
            }
            Layer::Dropout { p } => x.f_dropout(*p, pass.mode != Mode::Eval),
            Layer::Times(factor) => x.f_mul_scalar(*factor),
            Layer::Concat(branches) => {
                let maps: Result<Vec<Tensor>, _> =
                    branches.iter().map(|branch| run(branch, &x, pass)).collect();
                Tensor::f_cat(&maps?, 1)
            }
            Layer::Shake { one, other } => shake(&run(one, &x, pass)?, &run(other, &x, pass)?, pass.mode),
            Layer::Add { branch, shortcut, drop_path } => {
                drop_paths(run(branch, &x, pass)?, *drop_path, pass.mode)?.f_add(&run(shortcut, &x, pass)?)
            }
            Layer::Scale { name, features, gate } => {
                let gate = run(gate, &x, pass)?;
                if let Some(gates) = pass.gates {
                    gates.note(name, &gate);
                }
                run(features, &x, pass)?.f_mul(&gate)
            }
            Layer::ExciteAddRelu { name, branch, fc1, fc2, shortcut, drop_path } => {
                let u = run(branch, &x, pass)?;
                if let Some(gates) = pass.gates {
                    gates.note(name, &se_gate(&u, fc1, fc2)?);
                }
                if pass.plain || *drop_path > 0.0 && pass.mode != Mode::Eval {
                    let scaled = u.f_mul(&se_gate(&u, fc1, fc2)?)?;
                    let kept = drop_paths(scaled, *drop_path, pass.mode)?;
                    return kept.f_add(&run(shortcut, &x, pass)?)?.f_relu_();
                }
                excite_add_relu(&u, &run(shortcut, &x, pass)?, fc1.tensors(), fc2.tensors())
            }
        }
    }
}

/// relu?(batch_norm(x)) by libtorch's operator, with the statistics of the batch (which move the running ones) or the
/// running ones.
fn plain_batch_norm(
    x: &Tensor,
    norm: &BatchNorm,
    epsilon: f64,
    relu: bool,
    of_batch: bool,
) -> Result<Tensor, TchError> {
    let BatchNorm { gamma, beta, mean, variance } = norm;
    let (gamma, beta, mean, variance) = (Some(gamma), Some(beta), Some(mean), Some(variance));
    let mut y = x.f_batch_norm(gamma, beta, mean, variance, of_batch, BN_MOMENTUM, epsilon, true)?;
    if relu { y.f_relu_() } else { Ok(y) }
}

/// Stochastic depth: `branch` with each sample zeroed with this probability, and the others grown so that the mean stays.
fn drop_paths(branch: Tensor, probability: f64, mode: Mode) -> Result<Tensor, TchError> {
    if probability == 0.0 || mode == Mode::Eval {
        return Ok(branch);
    }
    let keep = 1.0 - probability;
    let draws = Tensor::f_rand([branch.size()[0], 1, 1, 1], (Kind::Float, branch.device()))?;
    let factors = draws.f_lt(keep)?.f_to_kind(branch.kind())?.f_mul_scalar(1.0 / keep)?;
    branch.f_mul(&factors)
}

/// The mixture of Shake-Shake (Gastaldi 2017, "Image" level): ratios are drawn anew for each sample, for the forward
/// pass and for the backward pass apart.
pub(super) fn shake(one: &Tensor, other: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
    if mode == Mode::Eval {
        return one.f_add(other)?.f_mul_scalar(0.5);
    }
    let ratios = || Tensor::f_rand([one.size()[0], 1, 1, 1], (one.kind(), one.device()));
    let forward = no_grad(|| other.f_lerp_tensor(one, &ratios()?))?;
    let backward = other.f_lerp_tensor(one, &ratios()?)?;
    // The value of `forward` with the gradient of `backward`.
    let change = forward.f_sub(&backward.detach())?;
    backward.f_add(&change)
}

/// Copies `values` into `target` without touching its gradient.
///
/// # Errors
/// When the shapes differ.
pub fn overwrite(target: &Tensor, values: &Tensor) -> Result<(), TchError> {
    no_grad(|| target.shallow_clone().f_copy_(values))
}
