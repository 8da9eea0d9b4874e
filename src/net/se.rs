//! Squeeze-and-Excitation (Hu et al., "Squeeze-and-Excitation Networks", TPAMI; Eqs. 2-4), entire.
//!
//! ```text
//!   U [N, C, H, W] ──┬──────────────────────────────────────────────────────────── × ── X̃ [N, C, H, W]
//!                    └─ squeeze: mean over H, W ─ fc1 C→C/r ─ ReLU ─ fc2 C/r→C ─ σ ─┘ s [N, C, 1, 1]
//! ```
//!
//! The sources differ in two details, so both are fields: the released nets have biases in both FCs while the
//! journal's ablations say that they were removed, and some ports round the hidden width. Here it is C/r, rounded
//! down, and 1 where that would be less. As in the released nets the FCs are 1×1 convolutions.

use super::params::{Param, Role, params};
use super::{Conv, Node, Op, global_avg_pool, identity, node, relu, scale, seq};
use serde::{Deserialize, Serialize};

/// How the SE blocks of a network are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeSpec {
    /// Reduction ratio r ≥ 1; 16 in the paper.
    pub reduction: i64,
    /// Whether the two FCs have biases, as in the released nets.
    pub bias: bool,
}

impl Default for SeSpec {
    fn default() -> Self {
        Self { reduction: 16, bias: true }
    }
}

impl SeSpec {
    /// Width between the two FCs for C channels: C/r, and 1 where C/r would fall below 1.
    pub fn hidden(&self, channels: i64) -> i64 {
        (channels / self.reduction).max(1)
    }

    /// `features`, recalibrated: the SE block sits after them and its parameters are named `se.fc1` and `se.fc2`.
    pub fn after(&self, features: Node, channels: i64) -> Node {
        seq("", [features, scale(identity(), self.gate(channels))])
    }

    /// F_ex(F_sq(U)): the gate s `[N, C, 1, 1]` with values between 0 and 1 (Eqs. 2 and 3).
    fn gate(&self, channels: i64) -> Node {
        let hidden = self.hidden(channels);
        seq(
            "se",
            [
                global_avg_pool(""),
                self.fc("fc1", channels, hidden),
                relu(),
                self.fc("fc2", hidden, channels),
                node("", Op::Sigmoid),
            ],
        )
    }

    /// The blocks of `net` whose hidden width is not exactly C/r, by their parameters' names.
    pub fn inexact(&self, net: &Node) -> Vec<InexactWidth> {
        let fc1 = |param: Param| -> Option<InexactWidth> {
            let block = param.name.strip_suffix(".fc1.weight")?.to_string();
            let (hidden, channels) = (param.shape[0], param.shape[1]);
            let is_inexact = param.role == Role::ExcitationWeight && hidden * self.reduction != channels;
            is_inexact.then_some(InexactWidth { block, channels, hidden })
        };
        params(net).into_iter().filter_map(fc1).collect()
    }

    fn fc(&self, name: &str, c_in: i64, c_out: i64) -> Node {
        let (kernel, stride, padding, groups) = (1, 1, 0, 1);
        node(
            name,
            Op::Conv(Conv {
                c_in,
                c_out,
                kernel,
                stride,
                padding,
                groups,
                bias: self.bias,
                excitation: true,
            }),
        )
    }
}

/// An SE block whose hidden width is not exactly C/r.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InexactWidth {
    /// Name of the block, such as `layer1.0.se`.
    pub block: String,
    /// C.
    pub channels: i64,
    /// What the width is instead of C/r.
    pub hidden: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_width_never_vanishes() {
        let se = SeSpec { reduction: 32, bias: true };
        assert_eq!((se.hidden(256), se.hidden(80), se.hidden(16)), (8, 2, 1));
        let net = seq("", [se.after(identity(), 256), seq("small", [se.after(identity(), 16)])]);
        let small = InexactWidth { block: "small.se".to_string(), channels: 16, hidden: 1 };
        assert_eq!(se.inexact(&net), [small]);
    }
}
