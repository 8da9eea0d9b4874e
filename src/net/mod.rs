//! The vocabulary of networks: a network is described as a value, a [`Node`], and everything else reads it.
//!
//! * [`params`] lists parameters and statistics: names, shapes, roles, initial values;
//! * [`cost`] computes shapes, parameters and multiply-adds without allocating anything;
//! * [`build`] makes tensors and computes with them;
//! * [`plan`] arranges a built network for inference.
//!
//! A tree has leaves (a convolution, a ReLU, …) and four ways to join: one after the other ([`Op::Seq`]), a sum
//! of two branches ([`Op::Add`]), features scaled by a gate ([`Op::Scale`]) and nothing ([`Op::Identity`]).

pub mod build;
pub mod cost;
pub mod loss;
pub mod params;
pub mod plan;
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
    },
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// Largest value of each window.
    MaxPool(Pool),
    /// Mean over H and W: `[N, C, H, W]` to `[N, C, 1, 1]`.
    GlobalAvgPool,
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
        /// C of the input.
        c_in: i64,
        /// C of the output, at least `c_in`.
        c_out: i64,
    },
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
    },
    /// F_scale (paper Eq. 4): features times a gate `[N, C, 1, 1]`, both computed from the same input.
    Scale {
        /// What is scaled.
        features: Box<Node>,
        /// By how much.
        gate: Box<Node>,
    },
}

/// A 2-D convolution with square windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// C of the input.
    pub c_in: i64,
    /// C of the output.
    pub c_out: i64,
    /// Window size.
    pub kernel: i64,
    /// Step in both directions.
    pub stride: i64,
    /// Zeros added on each side.
    pub padding: i64,
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

/// Convolution without bias, padded so that stride 1 keeps the size.
pub fn conv(name: &str, c_in: i64, c_out: i64, kernel: i64, stride: i64) -> Node {
    let padding = (kernel - 1) / 2;
    node(
        name,
        Op::Conv(Conv { c_in, c_out, kernel, stride, padding, groups: 1, bias: false, excitation: false }),
    )
}

/// Batch normalisation.
pub fn bn(name: &str, channels: i64) -> Node {
    node(name, Op::BatchNorm { channels })
}

/// ReLU.
pub fn relu() -> Node {
    node("", Op::Relu)
}

/// Max pooling.
pub fn max_pool(name: &str, pool: Pool) -> Node {
    node(name, Op::MaxPool(pool))
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
    node("", Op::Add { branch: Box::new(branch), shortcut: Box::new(shortcut) })
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
