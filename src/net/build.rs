//! Reader 3 of a [`Node`]: tensors, and the computation.
//!
//! While reading, two things that a description need not say are arranged: a ReLU works in place where its input
//! is nobody else's, and "features × gate + shortcut" becomes one `addcmul`, the authors' Axpy layer.

use super::params::{Init, Param, Role, params};
use super::{Conv, Node, Op, Pool, join};
use crate::error::{Result, TorchContext};
use crate::rng;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::HashMap;
use tch::{Device, Kind, TchError, Tensor, no_grad};

/// Batch normalisation as in the released nets and in PyTorch: variance + 1e-5, and a tenth of each new batch.
const BN_EPSILON: f64 = 1e-5;
const BN_MOMENTUM: f64 = 0.1;

/// Whether batch normalisation uses (and learns) the batch's statistics, or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Inference.
    Eval,
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
        work_in_place(&mut layers);
        Ok(Self { layers, tensors, device })
    }

    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`.
    ///
    /// # Errors
    /// When libtorch refuses: out of memory, or images that do not fit the network.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        run(&self.layers, images, mode)
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

/// One step of the computation.
#[derive(Debug)]
enum Layer {
    Conv {
        conv: Conv,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    BatchNorm {
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
    },
    Relu {
        in_place: bool,
    },
    Sigmoid,
    MaxPool(Pool),
    GlobalAvgPool,
    Flatten,
    Linear {
        weight: Tensor,
        bias: Tensor,
    },
    Subsample {
        stride: i64,
        extra_channels: i64,
    },
    Add {
        branch: Vec<Layer>,
        shortcut: Vec<Layer>,
    },
    Scale {
        features: Vec<Layer>,
        gate: Vec<Layer>,
    },
    /// u = branch(x), u × gate(u) + shortcut(x).
    ScaleAdd {
        branch: Vec<Layer>,
        gate: Vec<Layer>,
        shortcut: Vec<Layer>,
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
            Layer::Conv { conv: *conv, weight: tensor("weight"), bias: conv.bias.then(|| tensor("bias")) }
        }
        Op::BatchNorm { .. } => Layer::BatchNorm {
            gamma: tensor("weight"),
            beta: tensor("bias"),
            mean: tensor("running_mean"),
            variance: tensor("running_var"),
        },
        Op::Relu => Layer::Relu { in_place: false },
        Op::Sigmoid => Layer::Sigmoid,
        Op::MaxPool(pool) => Layer::MaxPool(*pool),
        Op::GlobalAvgPool => Layer::GlobalAvgPool,
        Op::Flatten => Layer::Flatten,
        Op::Linear { .. } => Layer::Linear { weight: tensor("weight"), bias: tensor("bias") },
        Op::Subsample { stride, c_in, c_out } => {
            Layer::Subsample { stride: *stride, extra_channels: c_out - c_in }
        }
        Op::Scale { features, gate } => Layer::Scale { features: branch(features), gate: branch(gate) },
        Op::Add { branch: residual, shortcut } => {
            let (mut residual, shortcut) = (branch(residual), branch(shortcut));
            match residual.pop() {
                Some(Layer::Scale { features, gate }) if features.is_empty() => {
                    Layer::ScaleAdd { branch: residual, gate, shortcut }
                }
                last => {
                    residual.extend(last);
                    Layer::Add { branch: residual, shortcut }
                }
            }
        }
    });
}

/// Lets each ReLU overwrite an input that was made for it and that no gradient needs.
fn work_in_place(layers: &mut [Layer]) {
    let mut input_is_free = false;
    for layer in layers {
        match layer {
            Layer::Relu { in_place } => *in_place = input_is_free,
            Layer::Add { branch, shortcut } => {
                [branch, shortcut].into_iter().for_each(|part| work_in_place(part))
            }
            Layer::Scale { features, gate } => {
                [features, gate].into_iter().for_each(|part| work_in_place(part))
            }
            Layer::ScaleAdd { branch, gate, shortcut } => {
                [branch, gate, shortcut].into_iter().for_each(|part| work_in_place(part));
            }
            _ => {}
        }
        input_is_free = matches!(
            layer,
            Layer::Conv { .. }
                | Layer::BatchNorm { .. }
                | Layer::Linear { .. }
                | Layer::Add { .. }
                | Layer::ScaleAdd { .. }
        );
    }
}

fn run(layers: &[Layer], x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
    let mut x = x.shallow_clone();
    for layer in layers {
        x = layer.forward(x, mode)?;
    }
    Ok(x)
}

impl Layer {
    fn forward(&self, mut x: Tensor, mode: Mode) -> Result<Tensor, TchError> {
        match self {
            Layer::Conv { conv, weight, bias } => x.f_conv2d(
                weight,
                bias.as_ref(),
                [conv.stride, conv.stride],
                [conv.padding, conv.padding],
                [1, 1],
                conv.groups,
            ),
            Layer::BatchNorm { gamma, beta, mean, variance } => {
                let (train, cudnn) = (mode == Mode::Train, true);
                x.f_batch_norm(
                    Some(gamma),
                    Some(beta),
                    Some(mean),
                    Some(variance),
                    train,
                    BN_MOMENTUM,
                    BN_EPSILON,
                    cudnn,
                )
            }
            Layer::Relu { in_place: true } => x.f_relu_(),
            Layer::Relu { in_place: false } => x.f_relu(),
            Layer::Sigmoid => x.f_sigmoid(),
            Layer::MaxPool(pool) => x.f_max_pool2d(
                [pool.kernel, pool.kernel],
                [pool.stride, pool.stride],
                [pool.padding, pool.padding],
                [1, 1],
                pool.ceil,
            ),
            Layer::GlobalAvgPool => x.f_mean_dim([2i64, 3].as_slice(), true, None::<Kind>),
            Layer::Flatten => x.f_flatten(1, -1),
            Layer::Linear { weight, bias } => x.f_linear(weight, Some(bias)),
            Layer::Subsample { stride, extra_channels } => {
                let pixels = x.f_slice(2, None, None, *stride)?.f_slice(3, None, None, *stride)?;
                // [left, right] of W, then H, then C.
                pixels.f_constant_pad_nd([0, 0, 0, 0, 0, *extra_channels])
            }
            Layer::Add { branch, shortcut } => run(branch, &x, mode)?.f_add(&run(shortcut, &x, mode)?),
            Layer::Scale { features, gate } => run(features, &x, mode)?.f_mul(&run(gate, &x, mode)?),
            Layer::ScaleAdd { branch, gate, shortcut } => {
                let u = run(branch, &x, mode)?;
                let s = run(gate, &u, mode)?;
                run(shortcut, &x, mode)?.f_addcmul(&u, &s)
            }
        }
    }
}

/// Copies `values` into `target` without touching its gradient.
///
/// # Errors
/// When the shapes differ.
pub fn overwrite(target: &Tensor, values: &Tensor) -> Result<(), TchError> {
    no_grad(|| target.shallow_clone().f_copy_(values))
}
