//! Shake-Shake 26 2×96d for small images (Gastaldi 2017), into which the paper's Table 4 puts SE.
//!
//! Three stages of four units with 96, 192 and 384 channels. A unit has two branches of ReLU, 3×3, BN, ReLU, 3×3, BN,
//! mixed at random in training; SE on the mixture, before the sum. Where the shape changes, the shortcut joins two 1×1
//! convolutions, of the pixels and of their lower right neighbours.

use super::Variant;
use crate::net::{
    Node, Op, add, bn, concat, conv, flatten, global_avg_pool, identity, linear, node, relu, seq,
};

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut c = 16;
    let mut parts = vec![conv("conv1", variant.channels, c, 3, 1), bn("bn1", c)];
    for (i, width) in [96, 192, 384].into_iter().enumerate() {
        let variant = variant.in_stage(i as i64 + 2);
        let units = (0..4).map(|unit| {
            let stride = if i > 0 && unit == 0 { 2 } else { 1 };
            let c_in = c;
            c = width;
            let mixture = node(
                "",
                Op::Shake {
                    one: Box::new(branch("branch1", c_in, width, stride)),
                    other: Box::new(branch("branch2", c_in, width, stride)),
                },
            );
            let mixture = variant.recalibrated(mixture, [c_in, width]);
            seq(&unit.to_string(), [add(mixture, shortcut(c_in, width, stride))])
        });
        parts.push(seq(&format!("layer{}", i + 1), units.collect::<Vec<_>>()));
    }
    parts.extend([relu(), global_avg_pool("avgpool"), flatten(), linear("fc", c, variant.classes)]);
    seq("", parts)
}

fn branch(name: &str, c_in: i64, width: i64, stride: i64) -> Node {
    seq(
        name,
        [
            relu(),
            conv("conv1", c_in, width, 3, stride),
            bn("bn1", width),
            relu(),
            conv("conv2", width, width, 3, 1),
            bn("bn2", width),
        ],
    )
}

fn shortcut(c_in: i64, c_out: i64, stride: i64) -> Node {
    if c_in == c_out {
        return identity();
    }
    let half = |name: &str, offset: i64| {
        let pixels = node("", Op::Subsample { stride, offset, c_in, c_out: c_in });
        seq("", [pixels, conv(name, c_in, c_out / 2, 1, 1)])
    };
    seq("downsample", [relu(), concat([half("conv1", 0), half("conv2", 1)]), bn("bn", c_out)])
}
