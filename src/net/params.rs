//! Reader 1 of a [`Node`]: its parameters and statistics, in the order of the description.

use super::{Node, Op, join};

/// What a tensor is to its network; optimizers group by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weight of a convolution or of the classifier.
    Weight,
    /// Bias of the classifier or of a convolution.
    Bias,
    /// Gamma and beta of a batch normalisation.
    Norm,
    /// Weight of an SE block's FC.
    ExcitationWeight,
    /// Bias of an SE block's FC.
    ExcitationBias,
    /// Running mean and variance: no gradient, counted apart.
    Statistic,
}

impl Role {
    /// Whether the optimizer changes it.
    pub fn is_trainable(self) -> bool {
        self != Role::Statistic
    }
}

/// What a tensor starts as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// He et al. 2015: normal with variance 2 / fan.
    He {
        /// Number of values that one output (or, in "fan-out" mode, one input) touches.
        fan: i64,
    },
    /// Uniform between ±bound.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
    /// All the same.
    Constant(f64),
}

/// One tensor of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Dotted name, as torchvision and timm spell it: `layer1.0.conv1.weight`.
    pub name: String,
    /// Its shape; convolution weights are `[C_out, C_in / groups, K, K]`.
    pub shape: Vec<i64>,
    /// What it is to the network.
    pub role: Role,
    /// What it starts as.
    pub init: Init,
}

impl Param {
    /// Number of values.
    pub fn count(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// All tensors of `root`, in the order in which they are computed with.
pub fn params(root: &Node) -> Vec<Param> {
    let mut found = Vec::new();
    collect(root, "", &mut found);
    found
}

fn collect(node: &Node, scope: &str, found: &mut Vec<Param>) {
    let path = join(scope, &node.name);
    let mut push = |leaf: &str, shape: Vec<i64>, role, init| {
        found.push(Param { name: join(&path, leaf), shape, role, init });
    };
    match &node.op {
        Op::Conv(conv) => {
            let (weight, bias) = if conv.excitation {
                (Role::ExcitationWeight, Role::ExcitationBias)
            } else {
                (Role::Weight, Role::Bias)
            };
            let per_group = conv.c_in / conv.groups;
            // Fan-out keeps the gradient's variance over depth; torchvision and the released nets' ports use it.
            let [kernel_h, kernel_w] = conv.kernel;
            let fan = kernel_h * kernel_w * conv.c_out / conv.groups;
            let fan = if conv.excitation { conv.c_in } else { fan };
            push("weight", vec![conv.c_out, per_group, kernel_h, kernel_w], weight, Init::He { fan });
            if conv.bias {
                push("bias", vec![conv.c_out], bias, Init::Constant(0.0));
            }
        }
        Op::BatchNorm { channels, .. } => {
            push("weight", vec![*channels], Role::Norm, Init::Constant(1.0));
            push("bias", vec![*channels], Role::Norm, Init::Constant(0.0));
            push("running_mean", vec![*channels], Role::Statistic, Init::Constant(0.0));
            push("running_var", vec![*channels], Role::Statistic, Init::Constant(1.0));
        }
        Op::Linear { inputs, outputs } => {
            let bound = 1.0 / (*inputs as f64).sqrt();
            push("weight", vec![*outputs, *inputs], Role::Weight, Init::Uniform { bound });
            push("bias", vec![*outputs], Role::Bias, Init::Uniform { bound });
        }
        Op::Seq(parts) | Op::Concat(parts) => parts.iter().for_each(|part| collect(part, &path, found)),
        Op::Add { branch, shortcut, .. } => {
            collect(branch, &path, found);
            collect(shortcut, &path, found);
        }
        Op::Scale { features, gate } => {
            collect(features, &path, found);
            collect(gate, &path, found);
        }
        Op::Shake { one, other } => {
            collect(one, &path, found);
            collect(other, &path, found);
        }
        Op::Relu
        | Op::Relu6
        | Op::Sigmoid
        | Op::Tanh
        | Op::MaxPool(_)
        | Op::AvgPool { .. }
        | Op::AdaptiveAvgPool { .. }
        | Op::GlobalAvgPool
        | Op::GlobalMaxPool
        | Op::Flatten
        | Op::Subsample { .. }
        | Op::Shuffle { .. }
        | Op::Dropout { .. }
        | Op::Times(_)
        | Op::Identity => {}
    }
}
