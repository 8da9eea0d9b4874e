//! The vocabulary of networks: a network is described as a value, a [`Node`], and everything else reads it.
//!
//! * [`params`] lists parameters and statistics: names, shapes, roles, initial values;
//! * [`cost`] computes shapes, parameters and multiply-adds without allocating anything;
//! * [`build`] makes tensors and computes with them;
//! * [`plan`] arranges a built network for inference;
//! * [`gates`] notes what its SE blocks let through;
//! * [`finite`] finds the layer where a computation went wrong;
//! * [`precision`] is the number format of a computation in training.
//!
//! A tree has leaves (a convolution, a ReLU, …) and ways to join: one after the other ([`Op::Seq`]), a sum of two
//! branches ([`Op::Add`]), channels side by side ([`Op::Concat`]), features scaled by a gate ([`Op::Scale`]), a
//! random mixture ([`Op::Shake`]) and nothing ([`Op::Identity`]).

pub mod build;
pub mod cost;
pub mod finite;
pub mod gates;
pub mod loss;
pub mod params;
pub mod plan;
pub mod precision;
pub mod se;

/// A named part of a network. Names join with dots to parameter names; an empty name adds nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The part's name within its parent, such as `layer1` or `conv2`.
    pub name: String,
    /// What it computes.
    pub op: Op,
}

/// What a part computes. Feature maps are `[N, C, H, W]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// 2-D convolution.
    Conv(Conv),
    /// Batch normalisation over N, H and W.
    BatchNorm {
        /// C.
        channels: i64,
        /// ε, added to the variance.
        epsilon: f64,
    },
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// (e^x - e^-x) / (e^x + e^-x).
    Tanh,
    /// Largest value of each window.
    MaxPool(Pool),
    /// Mean of each window.
    AvgPool {
        /// The window.
        pool: Pool,
        /// Whether the border's zeros count as values, or the mean is taken over what lies inside.
        count_border: bool,
    },
    /// Mean over as many equal windows as make a map of `size` × `size`.
    AdaptiveAvgPool {
        /// H and W of the output.
        size: i64,
    },
    /// Mean over H and W: `[N, C, H, W]` to `[N, C, 1, 1]`.
    GlobalAvgPool,
    /// Largest value over H and W: `[N, C, H, W]` to `[N, C, 1, 1]`.
    GlobalMaxPool,
    /// `[N, C, H, W]` to `[N, C·H·W]`.
    Flatten,
    /// Fully connected layer with bias, on `[N, inputs]`.
    Linear {
        /// Length of the input vector.
        inputs: i64,
        /// Length of the output vector.
        outputs: i64,
    },
    /// Shortcut without parameters (option A of He et al. 2015): every `stride`-th pixel, zero-filled new channels.
    Subsample {
        /// Step in both directions.
        stride: i64,
        /// The first pixel taken, right and down; beyond the border are zeros.
        offset: i64,
        /// C of the input.
        c_in: i64,
        /// C of the output, at least `c_in`.
        c_out: i64,
    },
    /// ShuffleNet's channel shuffle: channel k of group g becomes channel g of group k.
    Shuffle {
        /// Number of groups.
        groups: i64,
    },
    /// In training, each value is zero with this probability, and the others grow so that the mean stays.
    Dropout {
        /// Probability, below 1.
        p: f64,
    },
    /// The input times a constant.
    Times(f64),
    /// The input itself.
    Identity,
    /// One part after the other.
    Seq(Vec<Node>),
    /// The sum of two branches of the same input.
    Add {
        /// F(x).
        branch: Box<Node>,
        /// The way around it.
        shortcut: Box<Node>,
        /// Stochastic depth (Huang et al. 2016): in training, F(x) of a sample is left out with this probability, below 1,
        /// and else grows so that the mean stays.
        drop_path: f64,
    },
    /// The channels of several branches of the same input, one after the other.
    Concat(Vec<Node>),
    /// Shake-Shake: two branches of the same input, mixed α : 1 - α with one random α a sample, and in the backward
    /// pass with another; in evaluation, their mean.
    Shake {
        /// One branch.
        one: Box<Node>,
        /// The other.
        other: Box<Node>,
    },
    /// F_scale (paper Eq. 4): features times a gate `[N, C, 1, 1]` or `[N, C, H, W]`, both computed from the same input.
    Scale {
        /// What is scaled.
        features: Box<Node>,
        /// By how much.
        gate: Box<Node>,
    },
}

/// A 2-D convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// C of the input.
    pub c_in: i64,
    /// C of the output.
    pub c_out: i64,
    /// Height and width of the window.
    pub kernel: [i64; 2],
    /// Step in both directions.
    pub stride: i64,
    /// Zeros added above and below, and left and right.
    pub padding: [i64; 2],
    /// Number of independent channel groups.
    pub groups: i64,
    /// Whether it adds a bias.
    pub bias: bool,
    /// Whether it is one of the two FCs of an SE block (as 1×1 convolution on `[N, C, 1, 1]`).
    pub excitation: bool,
}

/// A pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Window size.
    pub kernel: i64,
    /// Step in both directions.
    pub stride: i64,
    /// Border on each side.
    pub padding: i64,
    /// Whether a window may reach over the far border (Caffe's rule) instead of being dropped.
    pub ceil: bool,
}

/// A part of the given name.
pub fn node(name: &str, op: Op) -> Node {
    Node { name: name.to_string(), op }
}

impl Node {
    /// The network with stochastic depth: the probability grows from 0 in the first residual sum to `rate` in the last,
    /// by the same amount from each to the next (the linear rule; timm's `drop_path_rate`).
    pub fn with_drop_path(mut self, rate: f64) -> Self {
        let last = self.sums().saturating_sub(1).max(1);
        let mut sum = 0;
        self.each_sum(&mut |drop_path: &mut f64| {
            *drop_path = rate * f64::from(sum) / f64::from(last);
            sum += 1;
        });
        self
    }

    /// Number of residual sums.
    pub fn sums(&self) -> u32 {
        match &self.op {
            Op::Seq(parts) | Op::Concat(parts) => parts.iter().map(Node::sums).sum(),
            Op::Shake { one: a, other: b } | Op::Scale { features: a, gate: b } => a.sums() + b.sums(),
            Op::Add { branch, shortcut, .. } => branch.sums() + shortcut.sums() + 1,
            _ => 0,
        }
    }

    /// Visits the residual sums in the order of the computation.
    fn each_sum(&mut self, visit: &mut impl FnMut(&mut f64)) {
        match &mut self.op {
            Op::Seq(parts) | Op::Concat(parts) => parts.iter_mut().for_each(|part| part.each_sum(visit)),
            Op::Shake { one: a, other: b } | Op::Scale { features: a, gate: b } => {
                a.each_sum(visit);
                b.each_sum(visit);
            }
            Op::Add { branch, shortcut, drop_path } => {
                branch.each_sum(visit);
                shortcut.each_sum(visit);
                visit(drop_path);
            }
            _ => {}
        }
    }
}

impl Conv {
    /// Square window, stride 1, padded so that the size stays, one group, no bias.
    pub fn new(c_in: i64, c_out: i64, kernel: i64) -> Self {
        Self::of_shape(c_in, c_out, [kernel, kernel])
    }

    /// The same with a window of this height and width.
    pub fn of_shape(c_in: i64, c_out: i64, kernel: [i64; 2]) -> Self {
        let padding = kernel.map(|side| (side - 1) / 2);
        Self { c_in, c_out, kernel, stride: 1, padding, groups: 1, bias: false, excitation: false }
    }

    /// With this step.
    pub fn stride(self, stride: i64) -> Self {
        Self { stride, ..self }
    }

    /// Without padding.
    pub fn valid(self) -> Self {
        Self { padding: [0, 0], ..self }
    }

    /// With this many independent groups.
    pub fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    /// With a bias.
    pub fn biased(self) -> Self {
        Self { bias: true, ..self }
    }

    /// As a part of this name.
    pub fn named(self, name: &str) -> Node {
        node(name, Op::Conv(self))
    }
}

impl Pool {
    /// A window without border; those that do not fit are dropped.
    pub fn valid(kernel: i64, stride: i64) -> Self {
        Self { kernel, stride, padding: 0, ceil: false }
    }

    /// A window with a border that, at stride 1, keeps the size.
    pub fn padded(kernel: i64, stride: i64) -> Self {
        Self { kernel, stride, padding: (kernel - 1) / 2, ceil: false }
    }

    /// A window without border that may reach over the far border: Caffe's rule.
    pub fn ceil(kernel: i64, stride: i64) -> Self {
        Self { kernel, stride, padding: 0, ceil: true }
    }
}

/// Convolution without bias, padded so that stride 1 keeps the size.
pub fn conv(name: &str, c_in: i64, c_out: i64, kernel: i64, stride: i64) -> Node {
    Conv::new(c_in, c_out, kernel).stride(stride).named(name)
}

/// Batch normalisation with the usual ε of 1e-5.
pub fn bn(name: &str, channels: i64) -> Node {
    bn_with(name, channels, 1e-5)
}

/// Batch normalisation.
pub fn bn_with(name: &str, channels: i64, epsilon: f64) -> Node {
    node(name, Op::BatchNorm { channels, epsilon })
}

/// ReLU.
pub fn relu() -> Node {
    node("", Op::Relu)
}

/// Max pooling.
pub fn max_pool(name: &str, pool: Pool) -> Node {
    node(name, Op::MaxPool(pool))
}

/// Mean of each window.
pub fn avg_pool(pool: Pool, count_border: bool) -> Node {
    node("", Op::AvgPool { pool, count_border })
}

/// Mean over the whole map.
pub fn global_avg_pool(name: &str) -> Node {
    node(name, Op::GlobalAvgPool)
}

/// From maps to vectors.
pub fn flatten() -> Node {
    node("", Op::Flatten)
}

/// Fully connected layer.
pub fn linear(name: &str, inputs: i64, outputs: i64) -> Node {
    node(name, Op::Linear { inputs, outputs })
}

/// The input itself.
pub fn identity() -> Node {
    node("", Op::Identity)
}

/// One part after the other.
pub fn seq(name: &str, parts: impl IntoIterator<Item = Node>) -> Node {
    node(name, Op::Seq(parts.into_iter().collect()))
}

/// The sum of two branches.
pub fn add(branch: Node, shortcut: Node) -> Node {
    node("", Op::Add { branch: Box::new(branch), shortcut: Box::new(shortcut), drop_path: 0.0 })
}

/// The channels of several branches, one after the other.
pub fn concat(branches: impl IntoIterator<Item = Node>) -> Node {
    node("", Op::Concat(branches.into_iter().collect()))
}

/// Dropout, or nothing where the probability is 0.
pub fn dropout(p: f64) -> Node {
    if p == 0.0 { identity() } else { node("", Op::Dropout { p }) }
}

/// Features times a gate.
pub fn scale(features: Node, gate: Node) -> Node {
    node("", Op::Scale { features: Box::new(features), gate: Box::new(gate) })
}

/// The dotted name of `name` inside `scope`.
fn join(scope: &str, name: &str) -> String {
    match (scope, name) {
        (scope, "") => scope.to_string(),
        ("", name) => name.to_string(),
        (scope, name) => format!("{scope}.{name}"),
    }
}
