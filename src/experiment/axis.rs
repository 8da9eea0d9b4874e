//! What a comparison varies: a setting of the SE blocks with a word for each of its values.

use super::Experiment;
use crate::error::{Result, nearest, usage};
use serde::de::DeserializeOwned;
use serde_json::json;

/// A setting that is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Reduction ratio (paper Table 10).
    Ratios,
    /// How a block is wired: `none`, `se` and the structures that are called wrong.
    Variants,
    /// From a map to the FCs' input (Tables 11 and 16).
    Squeeze,
    /// The function behind the second FC (Table 12).
    Gate,
    /// Stages with SE (Table 13).
    Stages,
    /// Place in the residual unit (Tables 14 and 15).
    Placement,
}

impl Axis {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ratios, Self::Variants, Self::Squeeze, Self::Gate, Self::Stages, Self::Placement];

    /// Its name in files, and its flag without dashes.
    pub fn key(self) -> &'static str {
        match self {
            Self::Ratios => "ratios",
            Self::Variants => "variants",
            Self::Squeeze => "squeeze",
            Self::Gate => "gate",
            Self::Stages => "stages",
            Self::Placement => "placement",
        }
    }

    /// What tables and figures call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Ratios => "reduction ratio",
            Self::Variants => "structure",
            Self::Squeeze => "squeeze",
            Self::Gate => "excitation",
            Self::Stages => "stages with SE",
            Self::Placement => "place of the SE block",
        }
    }

    /// What `all` stands for; a ratio has no end.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Ratios => &[],
            Self::Variants => &["none", "se", "gap-scale", "gap-sigmoid", "conv", "parallel"],
            Self::Squeeze => &["average", "max", "none"],
            Self::Gate => &["sigmoid", "tanh", "relu"],
            Self::Stages => &["2", "3", "4", "5", "all"],
            Self::Placement => &[
                "standard",
                "pre",
                "pre-shared",
                "post",
                "identity",
                "identity-before-projection",
                "inside",
                "inside-before-norm",
            ],
        }
    }

    /// Whether differences are measured from the network without SE, and not from SE as the base has it.
    pub(super) fn is_measured_from_none(self) -> bool {
        matches!(self, Self::Ratios | Self::Stages)
    }

    /// What is said about its figures, as a table of the paper or without.
    pub(super) fn note(self, table: Option<u32>) -> Option<&'static str> {
        match self {
            Self::Ratios if table.is_some() => Some(
                "the paper's millions of parameters fit SE-ResNet-50 to 0.1 only if the running statistics of batch \
                 norm (53,120 values) are counted, which are not trained; its figure for r = 8 fits with the biases of \
                 the FCs, that for r = 2 without",
            ),
            Self::Placement => Some(
                "of two readings of a place, the one taken for the paper's has the plain name: `pre` gates the \
                 branch's input alone, `identity` stands behind the projection, `inside` behind the ReLU",
            ),
            Self::Variants => Some(
                "gap-scale: the mean is the scale, no FC (gap-sigmoid: its sigmoid is); conv: the same two weight \
                 matrices as a classic convolution; parallel: the scale is computed from the input X instead of U",
            ),
            _ => None,
        }
    }

    /// `base` at the value `word`, and how a table calls it.
    pub(super) fn variant(self, word: &str, base: &Experiment) -> Result<(String, Experiment)> {
        let mut experiment = base.clone();
        let se = &mut experiment.model.se;
        let mut label = word.to_string();
        match self {
            Self::Ratios => {
                se.reduction = parse_ratio(word)?;
                label = format!("r = {}", se.reduction);
            }
            Self::Variants if word == "none" => {
                experiment.model = base.model.without_se();
                label = NO_SE.to_string();
            }
            Self::Variants => {
                se.structure = self.value(word)?;
                if word == "se" {
                    label = SE.to_string();
                }
            }
            Self::Squeeze => se.squeeze = self.value(word)?,
            Self::Gate => se.gate = self.value(word)?,
            Self::Placement => se.placement = self.value(word)?,
            Self::Stages if word == "all" => {
                se.stages = None;
                label = "all stages".to_string();
            }
            Self::Stages => {
                se.stages = Some(parse_stages(word)?);
                label = format!("stage {}", word.replace('+', " + "));
            }
        }
        experiment.check()?;
        Ok((label, experiment))
    }

    /// The value that is called `word` in a configuration.
    fn value<T: DeserializeOwned>(self, word: &str) -> Result<T> {
        serde_json::from_value(json!(word)).map_err(|_| {
            let words = self.words();
            let message = format!("`--{}` holds `{word}`, but {} are possible", self.key(), words.join(", "));
            let hint = nearest(word, words.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            usage(message).hint(hint.unwrap_or_else(|| "`all` is all of them".to_string())).into()
        })
    }
}

/// The base, where nothing else about it is in question, as tables call it.
pub(super) const SE: &str = "SE";
/// The network without SE, as tables call it.
pub(super) const NO_SE: &str = "no SE";

fn parse_ratio(word: &str) -> Result<i64> {
    let ratio: Option<i64> = word.parse().ok();
    ratio.filter(|ratio| *ratio >= 1).ok_or_else(|| {
        let message =
            format!("`--ratios` holds {word}, but a reduction ratio is a whole number of at least 1");
        usage(message).hint("the paper's are 2, 4, 8, 16 and 32").into()
    })
}

/// `3` or `3+4`.
fn parse_stages(word: &str) -> Result<Vec<i64>> {
    word.split('+').map(str::parse).collect::<Result<_, _>>().map_err(|_| {
        let message =
            format!("`--stages` holds `{word}`: numbers of stages joined by `+`, or `all`, are expected");
        usage(message).hint("for example `--stages 2,3,4,3+4,all`").into()
    })
}
