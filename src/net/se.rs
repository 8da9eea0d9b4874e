//! Squeeze-and-Excitation (Hu et al., "Squeeze-and-Excitation Networks", TPAMI; Eqs. 2-4), entire.
//!
//! ```text
//!   U [N, C, H, W] ──┬──────────────────────────────────────────────────────────── × ── X̃ [N, C, H, W]
//!                    └─ squeeze: mean over H, W ─ fc1 C→C/r ─ ReLU ─ fc2 C/r→C ─ σ ─┘ s [N, C, 1, 1]
//! ```
//!
//! U = F_tr(X) is what the convolutions before the block make of their input X. What the paper varies in its ablations,
//! and the structures that an explanation of SE by its authors' colleagues calls wrong, are fields of [`SeSpec`]:
//! [`Structure`], [`Squeeze`], [`Gate`], [`Placement`], stages.
//!
//! The sources differ in two more details: the released nets have biases in both FCs while the journal's ablations
//! say that they were removed, and timm rounds the hidden width to multiples of 8. As in the released nets the FCs
//! are 1×1 convolutions.

use super::params::{Param, Role, params};
use super::{Conv, Node, Op, add, global_avg_pool, identity, node, relu, scale, seq};
use crate::error::{Result, usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the SE blocks of a network are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SeSpec {
    /// Reduction ratio r ≥ 1; 16 in the paper.
    #[schemars(range(min = 1))]
    pub reduction: i64,
    /// Whether the two FCs have biases, as in the released nets.
    pub bias: bool,
    /// What becomes of a C/r that is no whole number, or too small.
    pub rounding: Rounding,
    /// How a block is wired.
    pub structure: Structure,
    /// How a map becomes the FCs' input.
    pub squeeze: Squeeze,
    /// What the last FC's output becomes the gate by.
    pub gate: Gate,
    /// Where in a unit of a residual net it sits.
    pub placement: Placement,
    /// Stages of a residual net that have SE blocks, from 2 (the first after the stem; 56 × 56 in nets for
    /// photographs) to 5 (7 × 7); `null` is all of them.
    pub stages: Option<Vec<i64>>,
}

/// How a block is wired: the paper's way, and three that look as if they would do, the first of them in two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Squeeze, excitation, scale (Eqs. 2-4).
    Se,
    /// The squeeze is the scale; no FC, no gate, no parameters:
    /// ```text
    ///   U ──┬──────────────────── × ── X̃ = mean(U) · U
    ///       └─ mean over H, W ────┘
    /// ```
    GapScale,
    /// The same with the gate alone: X̃ = σ(mean(U)) · U.
    GapSigmoid,
    /// No squeeze and no gate: the classic convolution, with the same two weight matrices in the block's place:
    /// ```text
    ///   U ─ 1×1 C→C/r ─ ReLU ─ 1×1 C/r→C ── X̃
    /// ```
    Conv,
    /// SE beside F_tr instead of behind it: the scale comes from X (C' channels), and is applied to U:
    /// ```text
    ///   X ──┬─ F_tr ─────────────────────────────────────────── × ── X̃
    ///       └─ squeeze ─ fc1 C'→C/r ─ ReLU ─ fc2 C/r→C ─ σ ─────┘
    /// ```
    /// The hidden width is C/r, from U as in the paper, also where C' differs.
    Parallel,
}

/// From a feature map to the input of the FCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Squeeze {
    /// The mean over H and W (Eq. 2).
    Average,
    /// The largest value over H and W (paper Table 11).
    Max,
    /// None: the FCs are 1×1 convolutions on the map and the gate is one for each position (paper Table 16,
    /// "NoSqueeze").
    None,
}

/// The function behind the second FC, whose values scale the features (paper Table 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// 1 / (1 + e^-x), between 0 and 1.
    Sigmoid,
    /// Between -1 and 1.
    Tanh,
    /// 0 and more.
    Relu,
}

/// Where an SE block sits in a residual unit y = ReLU(F(x) + shortcut(x)) (paper Fig. 5, Tables 14 and 15). Three of
/// the paper's places can be read in two ways; both are here, the one that this program takes for the paper's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Behind the whole branch, before the sum: ReLU(SE(F(x)) + shortcut(x)).
    Standard,
    /// SE-PRE, on the branch's input: ReLU(F(SE(x)) + shortcut(x)).
    Pre,
    /// SE-PRE read as before the whole unit: ReLU(F(SE(x)) + shortcut(SE(x))).
    PreShared,
    /// SE-POST, behind the unit: SE(ReLU(F(x) + shortcut(x))).
    Post,
    /// SE-Identity, on the shortcut, behind its projection if it has one: ReLU(F(x) + SE(shortcut(x))).
    Identity,
    /// SE-Identity, before the projection: ReLU(F(x) + shortcut(SE(x))).
    IdentityBeforeProjection,
    /// "SE_3×3": in a bottleneck's branch behind the 3×3 convolution, its normalisation and its ReLU.
    Inside,
    /// "SE_3×3" read literally: directly behind the 3×3 convolution.
    InsideBeforeNorm,
}

/// The hidden width of an SE block, from C/r.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
            structure: Structure::Se,
            squeeze: Squeeze::Average,
            gate: Gate::Sigmoid,
            placement: Placement::Standard,
            stages: None,
        }
    }
}

impl SeSpec {
    /// Refuses numbers and combinations that mean nothing.
    ///
    /// # Errors
    /// When a ratio is below 1, or a structure is asked for a part that it does not have.
    pub fn check(&self) -> Result<()> {
        if self.reduction < 1 {
            let message = format!("`model.se.reduction` is {}, but a ratio is at least 1", self.reduction);
            return Err(usage(message).hint("the paper uses 16; 1 keeps the full width").into());
        }
        let default = Self::default();
        let (squeeze, gate) = (self.squeeze != default.squeeze, self.gate != default.gate);
        let (name, part) = match self.structure {
            Structure::GapScale if gate => ("gap-scale", "gate"),
            Structure::GapScale | Structure::GapSigmoid if self.squeeze == Squeeze::None => {
                ("a scale without FCs", "squeeze")
            }
            Structure::Conv if squeeze => ("conv", "squeeze"),
            Structure::Conv if gate => ("conv", "gate"),
            Structure::Parallel if self.squeeze == Squeeze::None => ("parallel", "squeeze"),
            Structure::Parallel if self.placement != default.placement => ("parallel", "placement"),
            _ => return Ok(()),
        };
        let message =
            format!("`model.se.{part}` does not go with `model.se.structure`: {name} leaves no choice of it");
        Err(usage(message)
            .hint(format!("leave `model.se.{part}` as it is, or use the structure `se`"))
            .into())
    }

    /// Width between the two FCs for C channels.
    pub fn hidden(&self, channels: i64) -> i64 {
        match self.rounding {
            Rounding::Exact => (channels / self.reduction).max(1),
            // Halves go up: 192 / 16 = 12 becomes 16.
            Rounding::MultipleOf8 => ((channels + 4 * self.reduction) / (8 * self.reduction) * 8).max(8),
        }
    }

    /// `features` of `[c_in, c]` channels, recalibrated behind their last layer. The block's parameters are named
    /// `se.fc1` and `se.fc2`.
    pub fn after(&self, features: Node, channels: [i64; 2]) -> Node {
        self.after_as("", features, channels)
    }

    /// The same with parameters named `SCOPE.se.fc1` and `SCOPE.se.fc2`.
    pub fn after_as(&self, scope: &str, features: Node, [c_in, c]: [i64; 2]) -> Node {
        match self.structure {
            Structure::Parallel => scale(features, seq(scope, [self.gate_of([c_in, c])])),
            Structure::Conv => seq("", [features, seq(scope, [self.block(c)])]),
            _ => seq("", [features, scale(identity(), seq(scope, [self.gate_of([c, c])]))]),
        }
    }

    /// The residual unit ReLU(branch(x) + shortcut(x)) with its SE block (paper Fig. 5); the places inside the branch
    /// are the branch's own affair. `[c_in, c]` are the channels of its input and output.
    pub fn in_unit(&self, branch: Node, shortcut: Node, [c_in, c]: [i64; 2]) -> Node {
        let sum = |branch, shortcut| seq("", [add(branch, shortcut), relu()]);
        match self.placement {
            Placement::Standard => sum(self.after(branch, [c_in, c]), shortcut),
            Placement::Pre => sum(seq("", [self.block(c_in), branch]), shortcut),
            Placement::PreShared => seq("", [self.block(c_in), sum(branch, shortcut)]),
            Placement::Post => seq("", [sum(branch, shortcut), self.block(c)]),
            Placement::Identity => sum(branch, seq("", [shortcut, self.block(c)])),
            Placement::IdentityBeforeProjection => sum(branch, seq("", [self.block(c_in), shortcut])),
            Placement::Inside | Placement::InsideBeforeNorm => sum(branch, shortcut),
        }
    }

    /// Whether blocks of this stage have SE.
    pub fn is_in(&self, stage: i64) -> bool {
        self.stages.as_ref().is_none_or(|stages| stages.contains(&stage))
    }

    /// The block as a layer: U `[N, C, H, W]` to X̃ of the same shape.
    pub fn block(&self, c: i64) -> Node {
        match self.structure {
            Structure::Conv => seq("se", self.fcs([c, c])),
            _ => scale(identity(), self.gate_of([c, c])),
        }
    }

    /// The scale s `[N, C, 1, 1]` (or `[N, C, H, W]` without squeeze), from a map of `c_in` channels.
    fn gate_of(&self, [c_in, c]: [i64; 2]) -> Node {
        let squeeze = match self.squeeze {
            Squeeze::Average => global_avg_pool(""),
            Squeeze::Max => node("", Op::GlobalMaxPool),
            Squeeze::None => identity(),
        };
        let gate = match self.gate {
            Gate::Sigmoid => node("", Op::Sigmoid),
            Gate::Tanh => node("", Op::Tanh),
            Gate::Relu => relu(),
        };
        match self.structure {
            Structure::GapScale => seq("se", [squeeze]),
            Structure::GapSigmoid => seq("se", [squeeze, gate]),
            _ => {
                let [fc1, between, fc2] = self.fcs([c_in, c]);
                seq("se", [squeeze, fc1, between, fc2, gate])
            }
        }
    }

    /// W2 δ(W1 z): from `c_in` channels through C/r to C.
    fn fcs(&self, [c_in, c]: [i64; 2]) -> [Node; 3] {
        let hidden = self.hidden(c);
        [self.fc("fc1", c_in, hidden), relu(), self.fc("fc2", hidden, c)]
    }

    /// The blocks of `net` whose hidden width is not exactly C/r, by their parameters' names.
    pub fn inexact(&self, net: &Node) -> Vec<InexactWidth> {
        let fc2 = |param: Param| -> Option<InexactWidth> {
            let block = param.name.strip_suffix(".fc2.weight")?.to_string();
            let (channels, hidden) = (param.shape[0], param.shape[1]);
            let is_inexact = param.role == Role::ExcitationWeight && hidden * self.reduction != channels;
            is_inexact.then_some(InexactWidth { block, channels, hidden })
        };
        params(net).into_iter().filter_map(fc2).collect()
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
        let net = seq("", [se.block(256), seq("small", [se.block(16)])]);
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
