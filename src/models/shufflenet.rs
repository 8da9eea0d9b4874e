//! ShuffleNet 1× with 3 groups (Zhang et al. 2017, Table 1).
//!
//! | stage  | units | channels |
//! |--------|-------|----------|
//! | layer1 | 4     | 240      |
//! | layer2 | 8     | 480      |
//! | layer3 | 4     | 960      |
//!
//! The first unit of a stage has stride 2 and puts its branch beside the pooled input; the others add. SE acts on the
//! branch before either (the paper leaves the place open; this one has its Table 3's 2.4 million parameters).

use super::Variant;
use crate::net::{
    Conv, Node, Op, Pool, add, avg_pool, bn, concat, conv, flatten, global_avg_pool, identity, linear,
    max_pool, node, relu, seq,
};

const GROUPS: i64 = 3;
const STAGES: [(usize, i64); 3] = [(4, 240), (8, 480), (4, 960)];

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut c = 24;
    let stem = [conv("conv1", variant.channels, c, 3, 2), bn("bn1", c), relu()];
    let mut parts = Vec::from(stem);
    parts.push(max_pool("maxpool", Pool::padded(3, 2)));
    for (i, (units, width)) in STAGES.into_iter().enumerate() {
        let units = (0..units).map(|unit| {
            // The 24 channels of the stem are too few for groups.
            let first_groups = if i == 0 && unit == 0 { 1 } else { GROUPS };
            let c_in = c;
            c = width;
            shuffle_unit(&unit.to_string(), [c_in, width], first_groups, variant)
        });
        parts.push(seq(&format!("layer{}", i + 1), units.collect::<Vec<_>>()));
    }
    parts.extend([
        global_avg_pool("avgpool"),
        flatten(),
        variant.dropout(0.0),
        linear("fc", c, variant.classes),
    ]);
    seq("", parts)
}

fn shuffle_unit(name: &str, [c_in, c_out]: [i64; 2], first_groups: i64, variant: &Variant<'_>) -> Node {
    let adds = c_in == c_out;
    let (stride, branch_out) = if adds { (1, c_out) } else { (2, c_out - c_in) };
    let inner = c_out / 4;
    let branch = seq(
        "",
        [
            Conv::new(c_in, inner, 1).groups(first_groups).named("conv1"),
            bn("bn1", inner),
            relu(),
            node("", Op::Shuffle { groups: GROUPS }),
            Conv::new(inner, inner, 3).stride(stride).groups(inner).named("conv2"),
            bn("bn2", inner),
            Conv::new(inner, branch_out, 1).groups(GROUPS).named("conv3"),
            bn("bn3", branch_out),
        ],
    );
    let branch = variant.recalibrated(branch, [c_in, branch_out]);
    let joined =
        if adds { add(branch, identity()) } else { concat([avg_pool(Pool::padded(3, 2), true), branch]) };
    seq(name, [joined, relu()])
}
