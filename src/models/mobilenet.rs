//! MobileNet 1.0 at 224 (Howard et al. 2017, Table 1), named as timm's `mobilenetv1_100`, with its ReLU6.
//!
//! | stage    | units | channels | stride of the first |
//! |----------|-------|----------|---------------------|
//! | blocks.0 | 1     | 64       | 1                   |
//! | blocks.1 | 2     | 128      | 2                   |
//! | blocks.2 | 2     | 256      | 2                   |
//! | blocks.3 | 6     | 512      | 2                   |
//! | blocks.4 | 2     | 1024     | 2                   |
//!
//! A unit is a depthwise 3×3 and a pointwise 1×1. SE acts on the pointwise convolution's activated output: of the
//! places that the paper leaves open, the one that has its Table 3's 4.7 million parameters.

use super::Variant;
use crate::net::{Conv, Node, Op, bn, conv, flatten, global_avg_pool, linear, node, seq};

const STAGES: [(usize, i64, i64); 5] = [(1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2)];

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut c = 32;
    let mut stages = Vec::new();
    for (i, (units, width, first_stride)) in STAGES.into_iter().enumerate() {
        let units = (0..units).map(|unit| {
            let stride = if unit == 0 { first_stride } else { 1 };
            let c_in = c;
            c = width;
            seq(&unit.to_string(), [variant.recalibrated(separable(c_in, width, stride), [c_in, width])])
        });
        stages.push(seq(&i.to_string(), units.collect::<Vec<_>>()));
    }
    seq(
        "",
        [
            conv("conv_stem", variant.channels, 32, 3, 2),
            bn("bn1", 32),
            relu6(),
            seq("blocks", stages),
            global_avg_pool("global_pool"),
            flatten(),
            variant.dropout(0.0),
            linear("classifier", c, variant.classes),
        ],
    )
}

/// Depthwise 3×3, pointwise 1×1.
fn separable(c_in: i64, c_out: i64, stride: i64) -> Node {
    seq(
        "",
        [
            Conv::new(c_in, c_in, 3).stride(stride).groups(c_in).named("conv_dw"),
            bn("bn1", c_in),
            relu6(),
            conv("conv_pw", c_in, c_out, 1, 1),
            bn("bn2", c_out),
            relu6(),
        ],
    )
}

fn relu6() -> Node {
    node("", Op::Relu6)
}
