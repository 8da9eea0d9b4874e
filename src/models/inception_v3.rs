//! Inception-v3 (Szegedy et al. 2016), named as in torchvision, without the auxiliary classifier; SE on the
//! concatenation of each of the eleven modules.

use super::Variant;
use super::inception::{Module, to, to_shape, unit};
use crate::net::{Conv, Node, Pool, avg_pool, flatten, global_avg_pool, linear, max_pool, seq};

const EPSILON: f64 = 1e-3;

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut parts = vec![
        unit("Conv2d_1a_3x3", Conv::new(variant.channels, 32, 3).stride(2).valid(), EPSILON),
        unit("Conv2d_2a_3x3", Conv::new(32, 32, 3).valid(), EPSILON),
        unit("Conv2d_2b_3x3", Conv::new(32, 64, 3), EPSILON),
        max_pool("maxpool1", Pool::valid(3, 2)),
        unit("Conv2d_3b_1x1", Conv::new(64, 80, 1), EPSILON),
        unit("Conv2d_4a_3x3", Conv::new(80, 192, 3).valid(), EPSILON),
        max_pool("maxpool2", Pool::valid(3, 2)),
    ];
    type Make = fn(Module, i64) -> Module;
    let modules: [(&str, Make, i64); 11] = [
        ("Mixed_5b", module_a, 32),
        ("Mixed_5c", module_a, 64),
        ("Mixed_5d", module_a, 64),
        ("Mixed_6a", reduction_b, 0),
        ("Mixed_6b", module_c, 128),
        ("Mixed_6c", module_c, 160),
        ("Mixed_6d", module_c, 160),
        ("Mixed_6e", module_c, 192),
        ("Mixed_7a", reduction_d, 0),
        ("Mixed_7b", module_e, 0),
        ("Mixed_7c", module_e, 0),
    ];
    let mut c = 192;
    for (name, make, width) in modules {
        let module = make(Module::on(c, EPSILON), width);
        c = module.c_out;
        parts.push(module.named(name, variant));
    }
    let head =
        [global_avg_pool("avgpool"), flatten(), variant.dropout(0.5), linear("fc", c, variant.classes)];
    parts.extend(head);
    seq("", parts)
}

fn average() -> Node {
    avg_pool(Pool::padded(3, 1), true)
}

fn halving() -> Node {
    max_pool("", Pool::valid(3, 2))
}

/// 35 × 35 (their Fig. 5), with `width` channels behind the pool.
fn module_a(module: Module, width: i64) -> Module {
    module
        .branch([("branch1x1", to(64, 1))])
        .branch([("branch5x5_1", to(48, 1)), ("branch5x5_2", to(64, 5))])
        .branch([("branch3x3dbl_1", to(64, 1)), ("branch3x3dbl_2", to(96, 3)), ("branch3x3dbl_3", to(96, 3))])
        .pooled(average(), [("branch_pool", to(width, 1))])
}

/// 35 × 35 to 17 × 17 (their Fig. 10).
fn reduction_b(module: Module, _: i64) -> Module {
    module
        .branch([("branch3x3", to(384, 3).stride(2).valid())])
        .branch([
            ("branch3x3dbl_1", to(64, 1)),
            ("branch3x3dbl_2", to(96, 3)),
            ("branch3x3dbl_3", to(96, 3).stride(2).valid()),
        ])
        .pooled(halving(), [])
}

/// 17 × 17 (their Fig. 6), with `width` channels inside the factorised 7×7.
fn module_c(module: Module, width: i64) -> Module {
    let (flat, tall) = ([1, 7], [7, 1]);
    module
        .branch([("branch1x1", to(192, 1))])
        .branch([
            ("branch7x7_1", to(width, 1)),
            ("branch7x7_2", to_shape(width, flat)),
            ("branch7x7_3", to_shape(192, tall)),
        ])
        .branch([
            ("branch7x7dbl_1", to(width, 1)),
            ("branch7x7dbl_2", to_shape(width, tall)),
            ("branch7x7dbl_3", to_shape(width, flat)),
            ("branch7x7dbl_4", to_shape(width, tall)),
            ("branch7x7dbl_5", to_shape(192, flat)),
        ])
        .pooled(average(), [("branch_pool", to(192, 1))])
}

/// 17 × 17 to 8 × 8.
fn reduction_d(module: Module, _: i64) -> Module {
    module
        .branch([("branch3x3_1", to(192, 1)), ("branch3x3_2", to(320, 3).stride(2).valid())])
        .branch([
            ("branch7x7x3_1", to(192, 1)),
            ("branch7x7x3_2", to_shape(192, [1, 7])),
            ("branch7x7x3_3", to_shape(192, [7, 1])),
            ("branch7x7x3_4", to(192, 3).stride(2).valid()),
        ])
        .pooled(halving(), [])
}

/// 8 × 8 (their Fig. 7).
fn module_e(module: Module, _: i64) -> Module {
    let (flat, tall) = ([1, 3], [3, 1]);
    module
        .branch([("branch1x1", to(320, 1))])
        .forked(
            [("branch3x3_1", to(384, 1))],
            [("branch3x3_2a", to_shape(384, flat)), ("branch3x3_2b", to_shape(384, tall))],
        )
        .forked(
            [("branch3x3dbl_1", to(448, 1)), ("branch3x3dbl_2", to(384, 3))],
            [("branch3x3dbl_3a", to_shape(384, flat)), ("branch3x3dbl_3b", to_shape(384, tall))],
        )
        .pooled(average(), [("branch_pool", to(192, 1))])
}
