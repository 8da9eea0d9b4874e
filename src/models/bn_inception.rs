//! BN-Inception (Ioffe & Szegedy 2015), as the authors of SE released it: no auxiliary classifiers, no dropout, pools in
//! ceil mode, SE on the concatenation of each of the ten modules.

use super::Variant;
use super::inception::{Module, to, unit};
use crate::net::{Conv, Node, Pool, avg_pool, flatten, global_avg_pool, linear, max_pool, seq};

/// What the pool of a module is, and the channels of the projection behind it.
enum PoolBranch {
    Average(i64),
    Max(i64),
    /// Stride 2, and nothing behind it.
    PassThrough,
}

/// One row of the table.
struct Row {
    name: &'static str,
    /// 1×1; modules of stride 2 have none.
    one: Option<i64>,
    /// 1×1 reduce, 3×3.
    three: [i64; 2],
    /// 1×1 reduce, 3×3, 3×3.
    double: [i64; 3],
    pool: PoolBranch,
}

const fn row(
    name: &'static str,
    one: Option<i64>,
    three: [i64; 2],
    double: [i64; 3],
    pool: PoolBranch,
) -> Row {
    Row { name, one, three, double, pool }
}

use PoolBranch::{Average, Max, PassThrough};
const MODULES: [Row; 10] = [
    row("inception_3a", Some(64), [64, 64], [64, 96, 96], Average(32)),
    row("inception_3b", Some(64), [64, 96], [64, 96, 96], Average(64)),
    row("inception_3c", None, [128, 160], [64, 96, 96], PassThrough),
    row("inception_4a", Some(224), [64, 96], [96, 128, 128], Average(128)),
    row("inception_4b", Some(192), [96, 128], [96, 128, 128], Average(128)),
    row("inception_4c", Some(160), [128, 160], [128, 160, 160], Average(128)),
    row("inception_4d", Some(96), [128, 192], [160, 192, 192], Average(128)),
    row("inception_4e", None, [128, 192], [192, 256, 256], PassThrough),
    row("inception_5a", Some(352), [192, 320], [160, 224, 224], Average(128)),
    row("inception_5b", Some(352), [192, 320], [192, 224, 224], Max(128)),
];

const EPSILON: f64 = 1e-5;

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut parts = vec![
        unit("conv1", Conv::new(variant.channels, 64, 7).stride(2), EPSILON),
        max_pool("pool1", Pool::ceil(3, 2)),
        unit("conv2_reduce", Conv::new(64, 64, 1), EPSILON),
        unit("conv2", Conv::new(64, 192, 3), EPSILON),
        max_pool("pool2", Pool::ceil(3, 2)),
    ];
    let mut c = 192;
    for row in &MODULES {
        let module = module(row, c);
        c = module.c_out;
        parts.push(module.named(row.name, variant));
    }
    let head =
        [global_avg_pool("avgpool"), flatten(), variant.dropout(0.0), linear("fc", c, variant.classes)];
    parts.extend(head);
    seq("", parts)
}

fn module(row: &Row, c_in: i64) -> Module {
    let mut module = Module::on(c_in, EPSILON);
    if let Some(one) = row.one {
        module = module.branch([("1x1", to(one, 1))]);
    }
    let stride = if row.one.is_some() { 1 } else { 2 };
    let ([three_reduce, three], [double_reduce, double_a, double_b]) = (row.three, row.double);
    let module =
        module.branch([("3x3_reduce", to(three_reduce, 1)), ("3x3", to(three, 3).stride(stride))]).branch([
            ("double3x3_reduce", to(double_reduce, 1)),
            ("double3x3a", to(double_a, 3)),
            ("double3x3b", to(double_b, 3).stride(stride)),
        ]);
    match row.pool {
        Average(c_out) => module.pooled(avg_pool(Pool::padded(3, 1), true), [("pool_proj", to(c_out, 1))]),
        Max(c_out) => module.pooled(max_pool("", Pool::padded(3, 1)), [("pool_proj", to(c_out, 1))]),
        PassThrough => module.pooled(max_pool("", Pool::ceil(3, 2)), []),
    }
}
