//! Squeeze-and-Excitation (Hu et al., "Squeeze-and-Excitation Networks", TPAMI; Eqs. 2-4), entire.
//!
//! ```text
//!   U [N, C, H, W] ──┬──────────────────────────────────────────────────────────── × ── X̃ [N, C, H, W]
//!                    └─ squeeze: mean over H, W ─ fc1 C→C/r ─ ReLU ─ fc2 C/r→C ─ σ ─┘ s [N, C, 1, 1]
//! ```
//!
//! The sources differ in two details, so both are fields: the released nets have biases in both FCs while the
//! journal's ablations say that they were removed, and timm rounds the hidden width to multiples of 8. As in the
//! released nets the FCs are 1×1 convolutions.

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
    /// What becomes of a C/r that is no whole number, or too small.
    pub rounding: Rounding,
    /// How a map becomes the FCs' input.
    pub squeeze: Squeeze,
    /// Where in a block of a residual net it sits.
    pub placement: Placement,
    /// Stages of a residual net that have SE blocks, from 2 (56 × 56) to 5 (7 × 7); `null` is all of them.
    pub stages: Option<Vec<i64>>,
}

/// From a feature map to the input of the FCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Squeeze {
    /// The mean over H and W (Eq. 2).
    Average,
    /// None: the FCs are 1×1 convolutions on the map and the gate is one for each position (paper Table 16,
    /// "NoSqueeze").
    None,
}

/// Where an SE block sits in a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Behind the whole branch, before the sum (paper Fig. 3).
    Standard,
    /// Inside a bottleneck's branch, behind the 3×3 convolution (paper Table 15, "SE_3×3"). Whether before or after its
    /// normalisation the paper does not say; here it is after its ReLU.
    Inside,
}

/// The hidden width of an SE block, from C/r.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// C/r, rounded down, and 1 where that would be less: the paper's.
    Exact,
    /// The nearest multiple of 8, and at least 8: timm's, for the tensor cores' sake.
    #[serde(rename = "multiple-of-8")]
    MultipleOf8,
}

impl Default for SeSpec {
    fn default() -> Self {
        Self {
            reduction: 16,
            bias: true,
            rounding: Rounding::Exact,
            squeeze: Squeeze::Average,
            placement: Placement::Standard,
            stages: None,
        }
    }
}

impl SeSpec {
    /// Width between the two FCs for C channels.
    pub fn hidden(&self, channels: i64) -> i64 {
        match self.rounding {
            Rounding::Exact => (channels / self.reduction).max(1),
            // Halves go up: 192 / 16 = 12 becomes 16.
            Rounding::MultipleOf8 => ((channels + 4 * self.reduction) / (8 * self.reduction) * 8).max(8),
        }
    }

    /// `features`, recalibrated: the SE block sits after them and its parameters are named `se.fc1` and `se.fc2`.
    pub fn after(&self, features: Node, channels: i64) -> Node {
        seq("", [features, scale(identity(), self.gate(channels))])
    }

    /// Whether blocks of this stage have SE.
    pub fn is_in(&self, stage: i64) -> bool {
        self.stages.as_ref().is_none_or(|stages| stages.contains(&stage))
    }

    /// F_ex(F_sq(U)): the gate s `[N, C, 1, 1]` with values between 0 and 1 (Eqs. 2 and 3).
    fn gate(&self, channels: i64) -> Node {
        let hidden = self.hidden(channels);
        let squeeze = match self.squeeze {
            Squeeze::Average => global_avg_pool(""),
            Squeeze::None => identity(),
        };
        seq(
            "se",
            [
                squeeze,
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
        let conv = Conv { bias: self.bias, excitation: true, ..Conv::new(c_in, c_out, 1) };
        conv.named(name)
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
        let se = SeSpec { reduction: 32, ..SeSpec::default() };
        assert_eq!((se.hidden(256), se.hidden(80), se.hidden(16)), (8, 2, 1));
        let net = seq("", [se.after(identity(), 256), seq("small", [se.after(identity(), 16)])]);
        let small = InexactWidth { block: "small.se".to_string(), channels: 16, hidden: 1 };
        assert_eq!(se.inexact(&net), [small]);
    }

    #[test]
    fn multiples_of_8_are_timms() {
        let se = SeSpec { rounding: Rounding::MultipleOf8, ..SeSpec::default() };
        let widths = [64, 128, 192, 256, 320, 576, 608, 1056].map(|channels| se.hidden(channels));
        assert_eq!(widths, [8, 8, 16, 16, 24, 40, 40, 64]);
    }
}
