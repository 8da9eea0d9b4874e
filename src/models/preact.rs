//! Pre-activation nets for small images: ResNet-110 and -164 (He et al. 2016, "Identity Mappings") and the wide
//! WRN-16-8 (Zagoruyko & Komodakis 2016). The paper's Tables 4 and 5 put SE into them.
//!
//! | net     | blocks a stage | block                         | channels of the stages | shortcut where the shape changes |
//! |---------|----------------|-------------------------------|------------------------|----------------------------------|
//! | 110     | 18             | 3×3, 3×3                      | 16, 32, 64             | option A: no parameters          |
//! | 164     | 18             | 1×1, 3×3, 1×1 (a quarter, a quarter, all) | 64, 128, 256 | 1×1 on the activated input     |
//! | WRN-16-8| 2              | 3×3, 3×3                      | 128, 256, 512          | 1×1 on the activated input       |
//!
//! Batch normalisation and ReLU come before each convolution; SE on the branch, before the sum.

use super::Variant;
use super::cifar::shortcut;
use crate::net::{Node, add, bn, conv, flatten, global_avg_pool, identity, linear, relu, seq};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    blocks: usize,
    widths: [i64; 3],
    block: Block,
    projects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Basic,
    Bottleneck,
}

pub(super) const RESNET_110: Table =
    Table { blocks: 18, widths: [16, 32, 64], block: Block::Basic, projects: false };
pub(super) const RESNET_164: Table =
    Table { blocks: 18, widths: [64, 128, 256], block: Block::Bottleneck, projects: true };
pub(super) const WRN_16_8: Table =
    Table { blocks: 2, widths: [128, 256, 512], block: Block::Basic, projects: true };

/// The whole network.
pub(super) fn describe(table: &Table, variant: &Variant<'_>) -> Node {
    let mut c = 16;
    let mut parts = vec![conv("conv1", variant.channels, c, 3, 1)];
    for (i, width) in table.widths.into_iter().enumerate() {
        let variant = variant.in_stage(i as i64 + 2);
        let blocks = (0..table.blocks).map(|block| {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let c_in = c;
            c = width;
            unit(&block.to_string(), table, [c_in, width], stride, &variant)
        });
        parts.push(seq(&format!("layer{}", i + 1), blocks.collect::<Vec<_>>()));
    }
    parts.extend([
        bn("bn", c),
        relu(),
        global_avg_pool("avgpool"),
        flatten(),
        linear("fc", c, variant.classes),
    ]);
    seq("", parts)
}

/// SE(branch(x)) + shortcut(x).
fn unit(name: &str, table: &Table, [c_in, width]: [i64; 2], stride: i64, variant: &Variant<'_>) -> Node {
    let activation = seq("", [bn("bn1", c_in), relu()]);
    let branch = match table.block {
        Block::Basic => seq(
            "",
            [
                conv("conv1", c_in, width, 3, stride),
                bn("bn2", width),
                relu(),
                conv("conv2", width, width, 3, 1),
            ],
        ),
        Block::Bottleneck => {
            let inner = width / 4;
            seq(
                "",
                [
                    conv("conv1", c_in, inner, 1, 1),
                    bn("bn2", inner),
                    relu(),
                    conv("conv2", inner, inner, 3, stride),
                    bn("bn3", inner),
                    relu(),
                    conv("conv3", inner, width, 1, 1),
                ],
            )
        }
    };
    let branch = variant.recalibrated(branch, [c_in, width]);
    let changes = c_in != width || stride != 1;
    if changes && table.projects {
        // The projection sees what the branch sees.
        return seq(name, [activation, add(branch, conv("downsample", c_in, width, 1, stride))]);
    }
    let shortcut = if changes { shortcut(c_in, width, stride) } else { identity() };
    seq(name, [add(seq("", [activation, branch]), shortcut)])
}
