//! The 6n + 2 residual nets for small images (He et al. 2015, §4.2): a 3×3 stem and three stages of n blocks
//! with 16, 32 and 64 channels; two 3×3 convolutions a block; shortcuts without parameters (option A).

use super::resnet::residual;
use crate::net::se::SeSpec;
use crate::net::{Node, Op, bn, conv, flatten, global_avg_pool, identity, linear, node, relu, seq};

/// The whole network with `n` blocks a stage.
pub(super) fn describe(n: usize, se: Option<&SeSpec>, channels: i64, classes: i64) -> Node {
    let mut c = 16;
    let mut parts = vec![conv("conv1", channels, c, 3, 1), bn("bn1", c), relu()];
    for (i, width) in [16, 32, 64].into_iter().enumerate() {
        let blocks = (0..n).map(|block| {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let c_in = c;
            c = width;
            residual(
                &block.to_string(),
                branch(c_in, width, stride),
                shortcut(c_in, width, stride),
                se,
                width,
            )
        });
        parts.push(seq(&format!("layer{}", i + 1), blocks.collect::<Vec<_>>()));
    }
    parts.extend([global_avg_pool("avgpool"), flatten(), linear("fc", c, classes)]);
    seq("", parts)
}

/// Two 3×3 convolutions.
fn branch(c_in: i64, width: i64, stride: i64) -> Node {
    seq(
        "",
        [
            conv("conv1", c_in, width, 3, stride),
            bn("bn1", width),
            relu(),
            conv("conv2", width, width, 3, 1),
            bn("bn2", width),
        ],
    )
}

fn shortcut(c_in: i64, c_out: i64, stride: i64) -> Node {
    if c_in == c_out && stride == 1 { identity() } else { node("", Op::Subsample { stride, c_in, c_out }) }
}
