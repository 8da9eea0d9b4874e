//! ResNet, ResNeXt and SENet-154 for ImageNet, with and without SE (paper Table 1; He et al. 2015, Table 1; Xie et
//! al. 2017, Table 1; paper's appendix for SENet-154).
//!
//! | stage  | output    | 18, 34      | 50, 101, 152                 | ResNeXt 32×4d                     | SENet-154                    | SE          |
//! |--------|-----------|-------------|------------------------------|-----------------------------------|------------------------------|-------------|
//! | conv1  | 112 × 112 | 7×7, 64, /2 | 7×7, 64, /2                  | 7×7, 64, /2                       | 3×3, 64, /2; 3×3, 64; 3×3, 128 |           |
//! | layer1 | 56 × 56   | [3×3, 64]²  | [1×1, 64; 3×3, 64; 1×1, 256] | [1×1, 128; 3×3, 128, G 32; 1×1, 256] | [1×1, 128; 3×3, 256, G 64; 1×1, 256] | fc [C/r, C] |
//! | layer2 | 28 × 28   | [3×3, 128]² | … 128, 128, 512              | … 256, 256, 512                   | … 256, 512, 512              |             |
//! | layer3 | 14 × 14   | [3×3, 256]² | … 256, 256, 1024             | … 512, 512, 1024                  | … 512, 1024, 1024            |             |
//! | layer4 | 7 × 7     | [3×3, 512]² | … 512, 512, 2048             | … 1024, 1024, 2048                | … 1024, 2048, 2048           |             |
//! | fc     | 1 × 1     | global average pool, 1000-d fc ||||                                                                                  |

use super::Variant;
use crate::net::se::Placement;
use crate::net::{
    Conv, Node, Pool, add, bn, conv, flatten, global_avg_pool, identity, linear, max_pool, relu, seq,
};

/// Where the stride of a block sits and how the stem's pool treats the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The authors' released nets: stride on a ResNet bottleneck's first 1×1 (on the 3×3 where that is grouped), pool
    /// in ceil mode without border.
    Released,
    /// torchvision, timm and NVIDIA's "v1.5": stride on the 3×3, pool with a border of 1.
    V1_5,
    /// timm's `legacy_seresnet18` and `-34`: as released, with a ReLU at the end of a basic block's branch, before SE.
    Legacy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1 reduce, 3×3, 1×1 expand.
    Bottleneck,
    /// The same with the 3×3 in `groups` groups of `width` channels (times 1, 2, 4, 8 in the stages).
    Grouped { groups: i64, width: i64 },
    /// The same with 64 groups of 4 and half as many channels in the first 1×1.
    Senet154,
}

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    block: Block,
    depths: [usize; 4],
    form: Form,
}

impl Table {
    /// Whether its blocks have a 3×3 between two 1×1.
    pub(super) fn has_bottlenecks(&self) -> bool {
        self.block != Block::Basic
    }

    /// Whether the nets have the same tensors, whatever they compute with them.
    pub(super) fn has_tensors_of(&self, other: &Self) -> bool {
        (self.block, self.depths) == (other.block, other.depths)
    }
}

pub(super) const fn basic(depths: [usize; 4], form: Form) -> Table {
    Table { block: Block::Basic, depths, form }
}

pub(super) const fn bottleneck(depths: [usize; 4], form: Form) -> Table {
    Table { block: Block::Bottleneck, depths, form }
}

pub(super) const fn grouped(groups: i64, width: i64, depths: [usize; 4], form: Form) -> Table {
    Table { block: Block::Grouped { groups, width }, depths, form }
}

pub(super) const fn senet_154(form: Form) -> Table {
    Table { block: Block::Senet154, depths: [3, 8, 36, 3], form }
}

/// The whole network.
pub(super) fn describe(table: &Table, variant: &Variant<'_>) -> Node {
    let pool = match table.form {
        Form::Released | Form::Legacy => Pool::ceil(3, 2),
        Form::V1_5 => Pool::padded(3, 2),
    };
    let (stem, mut c) = stem(table.block, variant.channels);
    let mut parts = vec![stem, bn("bn1", c), relu(), max_pool("maxpool", pool)];
    for (i, (width, depth)) in [64, 128, 256, 512].into_iter().zip(table.depths).enumerate() {
        // The paper counts the stem as stage 1.
        let variant = variant.in_stage(i as i64 + 2);
        let blocks = (0..depth).map(|block| {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let c_in = c;
            let (branch, c_out) = branch(table, c_in, width, stride, &variant);
            c = c_out;
            let shortcut = projection(table.block, c_in, c_out, stride);
            residual(&block.to_string(), branch, shortcut, &variant, [c_in, c_out])
        });
        parts.push(seq(&format!("layer{}", i + 1), blocks.collect::<Vec<_>>()));
    }
    let dropout = variant.dropout(if table.block == Block::Senet154 { 0.2 } else { 0.0 });
    parts.extend([global_avg_pool("avgpool"), flatten(), dropout, linear("fc", c, variant.classes)]);
    seq("", parts)
}

/// What comes before the first normalisation, and its channels. The names are timm's.
fn stem(block: Block, channels: i64) -> (Node, i64) {
    if block != Block::Senet154 {
        return (conv("conv1", channels, 64, 7, 2), 64);
    }
    let convs = [
        conv("0", channels, 64, 3, 2),
        bn("1", 64),
        relu(),
        conv("3", 64, 64, 3, 1),
        bn("4", 64),
        relu(),
        conv("6", 64, 128, 3, 1),
    ];
    (seq("conv1", convs), 128)
}

/// F_tr of a block in a stage of this width, and its channels.
fn branch(table: &Table, c_in: i64, width: i64, stride: i64, variant: &Variant<'_>) -> (Node, i64) {
    let c_out = 4 * width;
    let on_3x3 = (1, stride);
    match table.block {
        Block::Basic if table.form == Form::Legacy => {
            (seq("", [basic_branch(c_in, width, stride), relu()]), width)
        }
        Block::Basic => (basic_branch(c_in, width, stride), width),
        Block::Bottleneck => {
            let strides = if table.form == Form::Released { (stride, 1) } else { on_3x3 };
            (bottleneck_branch([c_in, width, width, c_out], 1, strides, variant), c_out)
        }
        Block::Grouped { groups, width: group_width } => {
            let inner = groups * group_width * width / 64;
            (bottleneck_branch([c_in, inner, inner, c_out], groups, on_3x3, variant), c_out)
        }
        Block::Senet154 => (bottleneck_branch([c_in, 2 * width, c_out, c_out], 64, on_3x3, variant), c_out),
    }
}

/// Two 3×3 convolutions.
pub(super) fn basic_branch(c_in: i64, width: i64, stride: i64) -> Node {
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

/// 1×1 reduce, 3×3 in groups, 1×1 expand, through these channels.
fn bottleneck_branch(channels: [i64; 4], groups: i64, strides: (i64, i64), variant: &Variant<'_>) -> Node {
    let [c_in, reduced, inner, c_out] = channels;
    seq(
        "",
        [
            conv("conv1", c_in, reduced, 1, strides.0),
            bn("bn1", reduced),
            relu(),
            Conv::new(reduced, inner, 3).stride(strides.1).groups(groups).named("conv2"),
            variant.recalibrated_inside(Placement::InsideBeforeNorm, inner),
            bn("bn2", inner),
            relu(),
            variant.recalibrated_inside(Placement::Inside, inner),
            conv("conv3", inner, c_out, 1, 1),
            bn("bn3", c_out),
        ],
    )
}

/// The shortcut: a projection where the shape changes, else the input itself.
fn projection(block: Block, c_in: i64, c_out: i64, stride: i64) -> Node {
    if c_in == c_out && stride == 1 {
        return identity();
    }
    let kernel = if block == Block::Senet154 && stride > 1 { 3 } else { 1 };
    seq("downsample", [conv("0", c_in, c_out, kernel, stride), bn("1", c_out)])
}

/// ReLU(branch(x) + shortcut(x)), with an SE block by default on the branch, before the sum (paper Fig. 3).
pub(super) fn residual(
    name: &str,
    branch: Node,
    shortcut: Node,
    variant: &Variant<'_>,
    channels: [i64; 2],
) -> Node {
    match variant.se {
        Some(se) => seq(name, [se.in_unit(branch, shortcut, channels)]),
        None => seq(name, [add(branch, shortcut), relu()]),
    }
}
