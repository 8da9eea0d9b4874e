//! What the three Inception families share: a unit of convolution, batch normalisation and ReLU, and modules that put
//! branches of units side by side.

use super::Variant;
use crate::net::{Conv, Node, bn_with, concat, relu, seq};

/// Convolution, batch normalisation, ReLU.
pub(super) fn unit(name: &str, conv: Conv, epsilon: f64) -> Node {
    seq(name, [conv.named("conv"), bn_with("bn", conv.c_out, epsilon), relu()])
}

/// A module under construction.
pub(super) struct Module {
    /// Channels of its input.
    pub(super) c_in: i64,
    epsilon: f64,
    branches: Vec<Node>,
    /// Channels of the branches so far.
    pub(super) c_out: i64,
}

/// A unit's convolution to `c_out` channels, whose input is what comes before it.
pub(super) fn to(c_out: i64, kernel: i64) -> Conv {
    Conv::new(0, c_out, kernel)
}

/// The same with a window of this height and width.
pub(super) fn to_shape(c_out: i64, kernel: [i64; 2]) -> Conv {
    Conv::of_shape(0, c_out, kernel)
}

impl Module {
    /// A module on `c_in` channels.
    pub(super) fn on(c_in: i64, epsilon: f64) -> Self {
        Self { c_in, epsilon, branches: Vec::new(), c_out: 0 }
    }

    /// The units of a branch, one after the other.
    fn chain(&self, units: &[(&str, Conv)]) -> (Vec<Node>, i64) {
        let mut c = self.c_in;
        let mut nodes = Vec::new();
        for (name, conv) in units {
            nodes.push(unit(name, Conv { c_in: c, ..*conv }, self.epsilon));
            c = conv.c_out;
        }
        (nodes, c)
    }

    /// With a branch of these units.
    pub(super) fn branch<const N: usize>(self, units: [(&str, Conv); N]) -> Self {
        let (nodes, c) = self.chain(&units);
        self.with(seq("", nodes), c)
    }

    /// With a branch of a pool and these units (or none).
    pub(super) fn pooled<const N: usize>(self, pool: Node, units: [(&str, Conv); N]) -> Self {
        let (nodes, c) = self.chain(&units);
        self.with(seq("", std::iter::once(pool).chain(nodes)), c)
    }

    /// With a branch of these units whose output goes through two further ones, side by side.
    pub(super) fn forked<const N: usize>(self, units: [(&str, Conv); N], prongs: [(&str, Conv); 2]) -> Self {
        let (mut nodes, c) = self.chain(&units);
        let c_out = prongs.iter().map(|(_, conv)| conv.c_out).sum();
        nodes.push(concat(prongs.map(|(name, conv)| unit(name, Conv { c_in: c, ..conv }, self.epsilon))));
        self.with(seq("", nodes), c_out)
    }

    fn with(mut self, branch: Node, c_out: i64) -> Self {
        self.branches.push(branch);
        self.c_out += c_out;
        self
    }

    /// The branches side by side.
    pub(super) fn joined(self) -> Node {
        concat(self.branches)
    }

    /// The whole module as a part of this name, its concatenation recalibrated (paper Fig. 2).
    pub(super) fn named(self, name: &str, variant: &Variant<'_>) -> Node {
        let channels = [self.c_in, self.c_out];
        seq(name, [variant.recalibrated(self.joined(), channels)])
    }
}
