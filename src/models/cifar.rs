//! The 6n + 2 residual nets for small images (He et al. 2015, §4.2): a 3×3 stem and three stages of n blocks
//! with 16, 32 and 64 channels; two 3×3 convolutions a block; shortcuts without parameters (option A).

use super::Variant;
use super::resnet::{basic_branch, residual};
use crate::net::{Node, Op, bn, conv, flatten, global_avg_pool, identity, linear, node, relu, seq};

/// The whole network with `n` blocks a stage.
pub(super) fn describe(n: usize, variant: &Variant<'_>) -> Node {
    let mut c = 16;
    let mut parts = vec![conv("conv1", variant.channels, c, 3, 1), bn("bn1", c), relu()];
    for (i, width) in [16, 32, 64].into_iter().enumerate() {
        // As in the nets for photographs, the stem is stage 1.
        let variant = variant.in_stage(i as i64 + 2);
        let blocks = (0..n).map(|block| {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let c_in = c;
            c = width;
            let branch = basic_branch(c_in, width, stride);
            residual(&block.to_string(), branch, shortcut(c_in, width, stride), &variant, [c_in, width])
        });
        parts.push(seq(&format!("layer{}", i + 1), blocks.collect::<Vec<_>>()));
    }
    parts.extend([global_avg_pool("avgpool"), flatten(), linear("fc", c, variant.classes)]);
    seq("", parts)
}

/// Option A: the input, subsampled and with new channels of zeros where the shape changes.
pub(super) fn shortcut(c_in: i64, c_out: i64, stride: i64) -> Node {
    if c_in == c_out && stride == 1 {
        return identity();
    }
    node("", Op::Subsample { stride, offset: 0, c_in, c_out })
}
