//! What the paper's ablations came to: SE-ResNet-50 on ImageNet, one crop, trained by its authors (TPAMI,
//! Tables 10 to 16).

use crate::report::comparison::PaperFigures;

/// A comparison of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaperTable {
    /// Its number.
    pub number: u32,
    /// Which setting differs between its rows.
    pub axis: &'static str,
    /// The values of that setting, as `senet ablate` takes them, in the paper's order.
    pub words: &'static [&'static str],
    /// Name of the comparison.
    pub key: &'static str,
}

/// The paper's ablations. The network without SE, the paper's "original", belongs to all of them here.
pub const TABLES: [PaperTable; 7] = [
    PaperTable { number: 10, axis: "ratios", words: &["2", "4", "8", "16", "32"], key: "ratios" },
    PaperTable { number: 11, axis: "squeeze", words: &["max", "average"], key: "squeeze" },
    PaperTable { number: 12, axis: "gate", words: &["relu", "tanh", "sigmoid"], key: "gate" },
    PaperTable { number: 13, axis: "stages", words: &["2", "3", "4", "all"], key: "stages" },
    PaperTable {
        number: 14,
        axis: "placement",
        words: &["standard", "pre", "post", "identity"],
        key: "placement",
    },
    PaperTable { number: 15, axis: "placement", words: &["standard", "inside"], key: "inside" },
    PaperTable { number: 16, axis: "squeeze", words: &["none", "average"], key: "no-squeeze" },
];

/// The network without SE: "original", "ResNet-50".
pub const WITHOUT_SE: PaperFigures = figures(23.30, 6.55, Some(25.6), Some(3.86));

/// SE as the paper proposes it, with r = 16.
pub const SE: PaperFigures = figures(22.28, 6.03, Some(28.1), Some(3.87));

/// The paper's figures for one value of an axis, all else as in [`SE`].
pub fn of(axis: &str, word: &str) -> Option<PaperFigures> {
    Some(match (axis, word) {
        ("ratios", "2") => figures(22.29, 6.00, Some(45.7), None),
        ("ratios", "4") => figures(22.25, 6.09, Some(35.7), None),
        ("ratios", "8") => figures(22.26, 5.99, Some(30.7), None),
        ("ratios", "32") => figures(22.72, 6.20, Some(26.9), None),
        ("squeeze", "max") => figures(22.57, 6.09, None, None),
        ("squeeze", "none") => figures(22.93, 6.39, Some(28.1), Some(4.27)),
        ("gate", "relu") => figures(23.47, 6.98, None, None),
        ("gate", "tanh") => figures(23.00, 6.38, None, None),
        ("stages", "2") => figures(23.03, 6.48, Some(25.6), Some(3.86)),
        ("stages", "3") => figures(23.04, 6.32, Some(25.7), Some(3.86)),
        ("stages", "4") => figures(22.68, 6.22, Some(26.4), Some(3.86)),
        ("placement", "pre") => figures(22.23, 6.00, None, None),
        ("placement", "post") => figures(22.78, 6.35, None, None),
        ("placement", "identity") => figures(22.20, 6.15, None, None),
        ("placement", "inside") => figures(22.48, 6.02, Some(25.8), Some(3.86)),
        ("variants", "none") => WITHOUT_SE,
        ("ratios", "16")
        | ("variants", "se")
        | ("squeeze", "average")
        | ("gate", "sigmoid")
        | ("placement", "standard")
        | ("stages", "all") => SE,
        _ => return None,
    })
}

/// Errors in percent, as printed.
const fn figures(top1: f64, top5: f64, params_millions: Option<f64>, giga_macs: Option<f64>) -> PaperFigures {
    PaperFigures { top1_error: top1 / 100.0, top5_error: top5 / 100.0, params_millions, giga_macs }
}
