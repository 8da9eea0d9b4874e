//! Inception-ResNet-v2 (Szegedy et al. 2017), named as in timm: Google's released net. SE sits on the branch of each of
//! the forty residual modules, before it is scaled down and added (the paper leaves the place open).

use super::Variant;
use super::inception::{Module, to, to_shape, unit};
use crate::net::{
    Conv, Node, Op, Pool, add, avg_pool, flatten, global_avg_pool, identity, linear, max_pool, node, relu,
    seq,
};

const EPSILON: f64 = 1e-3;

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let module = |c_in: i64| Module::on(c_in, EPSILON);
    let repeated = |name: &str, times: usize, block: &dyn Fn(&str) -> Node| {
        seq(name, (0..times).map(|at| block(&at.to_string())).collect::<Vec<_>>())
    };
    let block_35 = |name: &str| residual(name, block_35(module(320)), 320, 0.17, variant);
    let block_17 = |name: &str| residual(name, block_17(module(1088)), 1088, 0.10, variant);
    let block_8 = |name: &str| residual(name, block_8(module(2080)), 2080, 0.20, variant);
    seq(
        "",
        [
            unit("conv2d_1a", Conv::new(variant.channels, 32, 3).stride(2).valid(), EPSILON),
            unit("conv2d_2a", Conv::new(32, 32, 3).valid(), EPSILON),
            unit("conv2d_2b", Conv::new(32, 64, 3), EPSILON),
            max_pool("maxpool_3a", Pool::valid(3, 2)),
            unit("conv2d_3b", Conv::new(64, 80, 1), EPSILON),
            unit("conv2d_4a", Conv::new(80, 192, 3).valid(), EPSILON),
            max_pool("maxpool_5a", Pool::valid(3, 2)),
            seq("mixed_5b", [mixed_5b(module(192)).joined()]),
            repeated("repeat", 10, &block_35),
            seq("mixed_6a", [mixed_6a(module(320)).joined()]),
            repeated("repeat_1", 20, &block_17),
            seq("mixed_7a", [mixed_7a(module(1088)).joined()]),
            repeated("repeat_2", 9, &block_8),
            // The last one neither scales its branch down nor ends with a ReLU.
            seq("block8", [sum(self::block_8(module(2080)), 2080, 1.0, variant)]),
            unit("conv2d_7b", Conv::new(2080, 1536, 1), EPSILON),
            global_avg_pool("global_pool"),
            flatten(),
            variant.dropout(0.2),
            linear("classif", 1536, variant.classes),
        ],
    )
}

/// ReLU(scale · SE(1×1(branches(x))) + x).
fn residual(name: &str, branches: Module, channels: i64, factor: f64, variant: &Variant<'_>) -> Node {
    seq(name, [sum(branches, channels, factor, variant), relu()])
}

fn sum(branches: Module, channels: i64, factor: f64, variant: &Variant<'_>) -> Node {
    let expand = Conv::new(branches.c_out, channels, 1).biased().named("conv2d");
    let c_in = branches.c_in;
    let branch = variant.recalibrated(seq("", [branches.joined(), expand]), [c_in, channels]);
    let scaled = if factor == 1.0 { branch } else { seq("", [branch, node("", Op::Times(factor))]) };
    add(scaled, identity())
}

fn mixed_5b(module: Module) -> Module {
    module
        .branch([("branch0", to(96, 1))])
        .branch([("branch1.0", to(48, 1)), ("branch1.1", to(64, 5))])
        .branch([("branch2.0", to(64, 1)), ("branch2.1", to(96, 3)), ("branch2.2", to(96, 3))])
        .pooled(avg_pool(Pool::padded(3, 1), false), [("branch3.1", to(64, 1))])
}

/// Inception-ResNet-A, 35 × 35.
fn block_35(module: Module) -> Module {
    module
        .branch([("branch0", to(32, 1))])
        .branch([("branch1.0", to(32, 1)), ("branch1.1", to(32, 3))])
        .branch([("branch2.0", to(32, 1)), ("branch2.1", to(48, 3)), ("branch2.2", to(64, 3))])
}

/// Reduction-A, to 17 × 17.
fn mixed_6a(module: Module) -> Module {
    module
        .branch([("branch0", to(384, 3).stride(2).valid())])
        .branch([
            ("branch1.0", to(256, 1)),
            ("branch1.1", to(256, 3)),
            ("branch1.2", to(384, 3).stride(2).valid()),
        ])
        .pooled(max_pool("", Pool::valid(3, 2)), [])
}

/// Inception-ResNet-B, 17 × 17.
fn block_17(module: Module) -> Module {
    module.branch([("branch0", to(192, 1))]).branch([
        ("branch1.0", to(128, 1)),
        ("branch1.1", to_shape(160, [1, 7])),
        ("branch1.2", to_shape(192, [7, 1])),
    ])
}

/// Reduction-B, to 8 × 8.
fn mixed_7a(module: Module) -> Module {
    module
        .branch([("branch0.0", to(256, 1)), ("branch0.1", to(384, 3).stride(2).valid())])
        .branch([("branch1.0", to(256, 1)), ("branch1.1", to(288, 3).stride(2).valid())])
        .branch([
            ("branch2.0", to(256, 1)),
            ("branch2.1", to(288, 3)),
            ("branch2.2", to(320, 3).stride(2).valid()),
        ])
        .pooled(max_pool("", Pool::valid(3, 2)), [])
}

/// Inception-ResNet-C, 8 × 8.
fn block_8(module: Module) -> Module {
    module.branch([("branch0", to(192, 1))]).branch([
        ("branch1.0", to(192, 1)),
        ("branch1.1", to_shape(224, [1, 3])),
        ("branch1.2", to_shape(256, [3, 1])),
    ])
}
