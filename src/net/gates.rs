//! The gates of a network's SE blocks: what they let through, and the network without some of them.

use super::build::{ConvLayer, Net, Pass, block_name, run};
use super::{Node, Op, join};
use std::cell::RefCell;
use tch::{Kind, TchError, Tensor, no_grad};

/// The scale that an SE block computed for a batch.
#[derive(Debug)]
pub struct BlockGate {
    /// Name of the block's parameters, such as `layer3.5.se`.
    pub block: String,
    /// `[N, C]`; of a gate for each position, its mean over the positions.
    pub values: Tensor,
}

/// Gates as they are computed.
#[derive(Default)]
pub(super) struct GateLog(RefCell<Vec<BlockGate>>);

impl GateLog {
    pub(super) fn note(&self, block: &str, gate: &Tensor) {
        let values = gate.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        self.0.borrow_mut().push(BlockGate { block: block.to_string(), values });
    }
}

/// The gate s `[N, C, 1, 1]` of the features `u`, where one operator usually does that and more.
pub(super) fn se_gate(u: &Tensor, fc1: &ConvLayer, fc2: &ConvLayer) -> Result<Tensor, TchError> {
    let z = u.f_mean_dim([2i64, 3].as_slice(), true, None::<Kind>)?;
    fc2.forward(&fc1.forward(&z)?.f_relu()?)?.f_sigmoid()
}

impl Net {
    /// The gates of all SE blocks for normalised images `[N, C, H, W]`, in the order of the computation, with running
    /// statistics and without gradients.
    ///
    /// # Errors
    /// When libtorch refuses: out of memory, or images that do not fit the network.
    pub fn gates(&self, images: &Tensor) -> Result<Vec<BlockGate>, TchError> {
        let log = GateLog::default();
        let _logits = no_grad(|| run(self.layers(), images, Pass::noting(&log)))?;
        Ok(log.0.into_inner())
    }
}

/// Names of the SE blocks of `net` that have a gate, in order.
pub fn gated_blocks(net: &Node) -> Vec<String> {
    let mut names = Vec::new();
    without(net, "", &mut |block| {
        names.push(block.to_string());
        false
    });
    names
}

/// `net` without the SE blocks for which `is_dropped` says so: their features pass as they are.
pub fn without_blocks(net: &Node, mut is_dropped: impl FnMut(&str) -> bool) -> Node {
    without(net, "", &mut is_dropped)
}

fn without(node: &Node, scope: &str, is_dropped: &mut dyn FnMut(&str) -> bool) -> Node {
    let path = join(scope, &node.name);
    let mut inner = |part: &Node| Box::new(without(part, &path, is_dropped));
    let op = match &node.op {
        Op::Seq(parts) => Op::Seq(parts.iter().map(|part| *inner(part)).collect()),
        Op::Concat(parts) => Op::Concat(parts.iter().map(|part| *inner(part)).collect()),
        Op::Add { branch, shortcut, drop_path } => {
            Op::Add { branch: inner(branch), shortcut: inner(shortcut), drop_path: *drop_path }
        }
        Op::Shake { one, other } => Op::Shake { one: inner(one), other: inner(other) },
        Op::Scale { features, gate } => {
            let kept = inner(features);
            if is_dropped(&block_name(gate, &path)) {
                return Node { name: node.name.clone(), op: Op::Seq(vec![*kept]) };
            }
            Op::Scale { features: kept, gate: gate.clone() }
        }
        leaf => leaf.clone(),
    };
    Node { name: node.name.clone(), op }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelSpec;
    use crate::net::cost::count;

    #[test]
    fn blocks_are_named_as_their_parameters_and_can_be_dropped() {
        let describe = |name: &str| ModelSpec::named(name).describe(3, 10).unwrap();
        let net = describe("se-resnet-20");
        let blocks = gated_blocks(&net);
        assert_eq!((blocks.len(), blocks[0].as_str(), blocks[8].as_str()), (9, "layer1.0.se", "layer3.2.se"));
        assert_eq!(gated_blocks(&describe("se-vgg-16-bn"))[0], "features.2.se");
        assert!(gated_blocks(&describe("resnet-20")).is_empty());

        let bare = without_blocks(&net, |_| true);
        assert_eq!(count(&bare), count(&describe("resnet-20")));
        let some = without_blocks(&net, |block| block.starts_with("layer3."));
        assert_eq!(gated_blocks(&some).len(), 6);
    }
}
