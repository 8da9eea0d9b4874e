//! ResNet and SE-ResNet for ImageNet (paper Table 1; He et al. 2015, Table 1).
//!
//! | stage  | output    | 18, 34        | 50, 101, 152               | SE            |
//! |--------|-----------|---------------|----------------------------|---------------|
//! | conv1  | 112 × 112 | 7×7, 64, stride 2                          |||
//! | layer1 | 56 × 56   | [3×3, 64]²    | [1×1, 64; 3×3, 64; 1×1, 256] | fc [C/r, C] |
//! | layer2 | 28 × 28   | [3×3, 128]²   | … 128, 128, 512            |               |
//! | layer3 | 14 × 14   | [3×3, 256]²   | … 256, 256, 1024           |               |
//! | layer4 | 7 × 7     | [3×3, 512]²   | … 512, 512, 2048           |               |
//! | fc     | 1 × 1     | global average pool, 1000-d fc             |||

use crate::net::se::SeSpec;
use crate::net::{
    Node, Pool, add, bn, conv, flatten, global_avg_pool, identity, linear, max_pool, relu, seq,
};

/// Where the stride of a block sits and how the stem's pool treats the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The authors' released nets: stride on a bottleneck's first 1×1, pool in ceil mode without padding.
    Released,
    /// torchvision, timm and NVIDIA's "v1.5": stride on the 3×3, pool padded by 1.
    V1_5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Basic,
    Bottleneck,
}

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    block: Block,
    depths: [usize; 4],
    form: Form,
}

pub(super) const fn basic(depths: [usize; 4], form: Form) -> Table {
    Table { block: Block::Basic, depths, form }
}

pub(super) const fn bottleneck(depths: [usize; 4], form: Form) -> Table {
    Table { block: Block::Bottleneck, depths, form }
}

/// The whole network.
pub(super) fn describe(table: &Table, se: Option<&SeSpec>, channels: i64, classes: i64) -> Node {
    let pool = match table.form {
        Form::Released => Pool { kernel: 3, stride: 2, padding: 0, ceil: true },
        Form::V1_5 => Pool { kernel: 3, stride: 2, padding: 1, ceil: false },
    };
    let mut c = 64;
    let mut parts = vec![conv("conv1", channels, c, 7, 2), bn("bn1", c), relu(), max_pool("maxpool", pool)];
    for (i, (width, depth)) in [64, 128, 256, 512].into_iter().zip(table.depths).enumerate() {
        let blocks = (0..depth).map(|block| {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let c_in = c;
            let (branch, c_out) = match table.block {
                Block::Basic => (basic_branch(c_in, width, stride), width),
                Block::Bottleneck => (bottleneck_branch(c_in, width, stride, table.form), 4 * width),
            };
            c = c_out;
            residual(&block.to_string(), branch, projection(c_in, c_out, stride), se, c_out)
        });
        parts.push(seq(&format!("layer{}", i + 1), blocks.collect::<Vec<_>>()));
    }
    parts.extend([global_avg_pool("avgpool"), flatten(), linear("fc", c, classes)]);
    seq("", parts)
}

/// Two 3×3 convolutions.
fn basic_branch(c_in: i64, width: i64, stride: i64) -> Node {
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

/// 1×1 reduce, 3×3, 1×1 expand by 4.
fn bottleneck_branch(c_in: i64, width: i64, stride: i64, form: Form) -> Node {
    let (on_first, on_second) = match form {
        Form::Released => (stride, 1),
        Form::V1_5 => (1, stride),
    };
    seq(
        "",
        [
            conv("conv1", c_in, width, 1, on_first),
            bn("bn1", width),
            relu(),
            conv("conv2", width, width, 3, on_second),
            bn("bn2", width),
            relu(),
            conv("conv3", width, 4 * width, 1, 1),
            bn("bn3", 4 * width),
        ],
    )
}

/// The shortcut: a 1×1 projection where the shape changes, else the input itself.
fn projection(c_in: i64, c_out: i64, stride: i64) -> Node {
    if c_in == c_out && stride == 1 {
        return identity();
    }
    seq("downsample", [conv("0", c_in, c_out, 1, stride), bn("1", c_out)])
}

/// ReLU(SE(branch(x)) + shortcut(x)): the block sits before the sum (paper Fig. 3).
pub(super) fn residual(name: &str, branch: Node, shortcut: Node, se: Option<&SeSpec>, c_out: i64) -> Node {
    let branch = match se {
        Some(se) => se.after(branch, c_out),
        None => branch,
    };
    seq(name, [add(branch, shortcut), relu()])
}
