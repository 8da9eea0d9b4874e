//! VGG-16 with batch normalisation (Simonyan & Zisserman 2015, column D), named as in torchvision.
//!
//! SE follows the non-linearity of each convolution (paper §3.3); its name is the ReLU's: `features.2.se`.

use super::Variant;
use crate::net::{Conv, Node, Op, Pool, bn, dropout, flatten, linear, max_pool, node, relu, seq};

/// Channels of the convolutions between two pools.
const STAGES: [&[i64]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// The whole network.
pub(super) fn describe(variant: &Variant<'_>) -> Node {
    let mut c = variant.channels;
    // Places in torchvision's list, which counts ReLUs and pools as well.
    let mut place = 0;
    let mut features = Vec::new();
    for stage in STAGES {
        for &width in stage {
            let [conv, norm, relu_place] =
                [place, place + 1, place + 2].map(|place: usize| place.to_string());
            let unit = [Conv::new(c, width, 3).biased().named(&conv), bn(&norm, width), relu()];
            features.push(match variant.se {
                Some(se) => se.after_as(&relu_place, seq("", unit), [c, width]),
                None => seq("", unit),
            });
            c = width;
            place += 3;
        }
        features.push(max_pool("", Pool::valid(2, 2)));
        place += 1;
    }
    let p = variant.dropout_or(0.5);
    let classifier = [
        linear("0", 7 * 7 * c, 4096),
        relu(),
        dropout(p),
        linear("3", 4096, 4096),
        relu(),
        dropout(p),
        linear("6", 4096, variant.classes),
    ];
    let pool = node("avgpool", Op::AdaptiveAvgPool { size: 7 });
    seq("", [seq("features", features), pool, flatten(), seq("classifier", classifier)])
}
