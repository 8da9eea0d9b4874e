//! The training criteria, and what they compare with.

use crate::error::{Result, usage};
use crate::tagged::{self, Tagged};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Kind, Reduction, TchError, Tensor};

/// Which criterion. A word (`"bce"`) is one with all else left out.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
pub struct LossSpec(pub Criterion);

/// A criterion, a mean over the N samples of a batch with logits x and target shares y of K classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "kind", transform = tagged::kinds("cross-entropy"))]
pub enum Criterion {
    /// - Σₖ yₖ log softmax(x)ₖ.
    CrossEntropy {},
    /// Binary cross-entropy of each class on its own (Wightman et al. 2021, timm's `BinaryCrossEntropy`):
    /// - mean over k of yₖ log σ(xₖ) + (1 - yₖ) log(1 - σ(xₖ)).
    Bce {
        /// Targets above this share are 1 and all others 0; `null` leaves them as they are.
        #[serde(default)]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        target_threshold: Option<f64>,
        /// The sum over the classes instead of their mean.
        #[serde(default)]
        sum_classes: bool,
    },
}

impl Default for LossSpec {
    fn default() -> Self {
        Self(Criterion::CrossEntropy {})
    }
}

impl<'de> Deserialize<'de> for LossSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tagged::read(deserializer, None)?.rest().map(Self)
    }
}

impl Serialize for LossSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        tagged::write(serializer, [], &self.0)
    }
}

/// What a batch's logits should say.
#[derive(Debug)]
pub struct Target {
    /// int64 `[N]`: the classes.
    pub labels: Tensor,
    /// Where images are mixed, the classes of what was mixed in.
    pub mixed: Option<Mixed>,
}

/// What was mixed into a batch (mixup, cutmix).
#[derive(Debug)]
pub struct Mixed {
    /// int64 `[N]`: its classes.
    pub labels: Tensor,
    /// float32 `[N]` or `[1]`: the share in [0, 1] that is left to the first classes.
    pub share: Tensor,
}

impl Target {
    /// Images that are of one class each.
    pub fn plain(labels: &Tensor) -> Self {
        Self { labels: labels.shallow_clone(), mixed: None }
    }

    /// float32 `[N, classes]`: the share of each class, of which `smoothing` is spread evenly over all. As timm's
    /// `mixup_target` has it, and its `BinaryCrossEntropy` for plain labels.
    ///
    /// # Errors
    /// When libtorch refuses, for example on a label beyond the classes.
    pub fn shares(&self, classes: i64, smoothing: f64) -> Result<Tensor, TchError> {
        let (n, device) = (self.labels.size()[0], self.labels.device());
        let even = smoothing / classes as f64;
        let shares = Tensor::f_full([n, classes], even, (Kind::Float, device))?;
        let whole = Tensor::f_full([n, 1], 1.0 - smoothing, (Kind::Float, device))?;
        let column = |labels: &Tensor| labels.f_view([n, 1]);
        let Some(Mixed { labels, share }) = &self.mixed else {
            return shares.f_scatter_add(1, &column(&self.labels)?, &whole);
        };
        let first = whole.f_mul(&share.f_view([-1, 1])?)?;
        let second = whole.f_sub(&first)?;
        shares.f_scatter_add(1, &column(&self.labels)?, &first)?.f_scatter_add(1, &column(labels)?, &second)
    }
}

impl LossSpec {
    /// Refuses a threshold that no target is above.
    ///
    /// # Errors
    /// When it is out of its range.
    pub fn check(&self) -> Result<()> {
        match self.0 {
            Criterion::Bce { target_threshold: Some(threshold), .. } if !(0.0..1.0).contains(&threshold) => {
                let message = format!(
                    "`train.loss.target_threshold` is {threshold}, but it must be from 0 to less than 1"
                );
                Err(usage(message).into())
            }
            _ => Ok(()),
        }
    }

    /// The loss of `logits` `[N, classes]`, with `smoothing` of the target spread evenly over all classes.
    ///
    /// # Errors
    /// When libtorch refuses, for example on a label beyond the classes.
    pub fn of(&self, logits: &Tensor, target: &Target, smoothing: f64) -> Result<Tensor, TchError> {
        match &self.0 {
            Criterion::CrossEntropy {} if target.mixed.is_none() => {
                cross_entropy(logits, &target.labels, smoothing)
            }
            Criterion::CrossEntropy {} => {
                cross_entropy(logits, &target.shares(logits.size()[1], smoothing)?, 0.0)
            }
            Criterion::Bce { target_threshold, sum_classes } => {
                let classes = logits.size()[1];
                let mut shares = target.shares(classes, smoothing)?;
                if let Some(threshold) = target_threshold {
                    shares = shares.f_gt(*threshold)?.f_to_kind(Kind::Float)?;
                }
                let nothing = None::<&Tensor>;
                let mean = logits.f_binary_cross_entropy_with_logits(
                    &shares.f_to_kind(logits.kind())?,
                    nothing,
                    nothing,
                    Reduction::Mean,
                )?;
                if *sum_classes { mean.f_mul_scalar(classes as f64) } else { Ok(mean) }
            }
        }
    }
}

/// Mean cross-entropy of `logits` `[N, classes]` against class indices `[N]` or shares `[N, classes]`, with `smoothing`
/// of the probability spread evenly over all classes (Szegedy et al. 2016).
///
/// # Errors
/// When libtorch refuses, for example on a label beyond the classes.
pub fn cross_entropy(logits: &Tensor, target: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    let nothing_ignored = -100;
    logits.f_cross_entropy_loss(target, None::<&Tensor>, Reduction::Mean, nothing_ignored, smoothing)
}
