//! Which optimizer, with which numbers.

use crate::error::{Result, usage};
use crate::net::params::Role;
use crate::tagged::{self, Tagged};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

/// Parameters that weight decay can leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecayExemption {
    /// Gamma and beta of batch normalisation.
    Norm,
    /// Biases of convolutions and of the classifier.
    Bias,
    /// Biases of the SE blocks' FCs.
    ExcitationBias,
}

/// An optimizer: what all have, and its rule. Without `kind` it is SGD.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(transform = tagged::kinds(SGD))]
pub struct OptimSpec {
    /// Learning rate at the peak of the schedule: of the run, or with `lr_per` of batches of that size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Samples in a step that `lr` is meant for: the run's peak is then lr · samples in its steps / lr_per (Goyal et al.
    /// 2017). `null` takes `lr` as it is written.
    #[schemars(default, range(min = 1))]
    pub lr_per: Option<u64>,
    /// Weight decay; what it does is the rule's affair.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// What weight decay leaves alone.
    #[schemars(default)]
    pub no_decay: Vec<DecayExemption>,
    /// How gradients become steps.
    #[schemars(flatten)]
    pub rule: Rule,
}

/// How a gradient g changes a parameter p. Sums and products go value by value; t counts the updates from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "kind")]
pub enum Rule {
    /// v ← momentum · v + g + decay · p;  p ← p - lr · v, or by Nesterov's p ← p - lr · (g + decay · p + momentum · v).
    Sgd {
        /// Share of the velocity that is kept.
        #[serde(default = "momentum")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        momentum: f64,
        /// Nesterov's form of momentum.
        #[serde(default = "yes")]
        nesterov: bool,
    },
    /// AdamW (Loshchilov & Hutter 2019): p ← p - lr · decay · p, m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g²,
    /// p ← p - lr · m̂ / (√v̂ + eps) with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ).
    #[serde(rename = "adamw")]
    AdamW {
        /// β₁ and β₂.
        #[serde(default = "betas")]
        #[schemars(inner(range(min = 0, max = 1)))]
        betas: [f64; 2],
        /// Keeps the denominator off 0.
        #[serde(default = "adamw_eps")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        eps: f64,
    },
    /// LAMB (You et al. 2020) in timm's form: u = m̂ / (√v̂ + eps) + decay · p, p ← p - lr · r · u with m̂ and v̂ as AdamW's.
    /// The trust ratio r of a tensor is ‖p‖ / ‖u‖, and 1 where either is 0 or the tensor does not decay (timm's
    /// `always_adapt=False`); it has no bound (`trust_clip=False`). Before, all gradients are shortened to `clip`.
    Lamb {
        /// β₁ and β₂.
        #[serde(default = "betas")]
        #[schemars(inner(range(min = 0, max = 1)))]
        betas: [f64; 2],
        /// Keeps the denominator off 0.
        #[serde(default = "lamb_eps")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        eps: f64,
        /// Longest gradient of the whole network (timm's `max_grad_norm`); `null` is any.
        #[serde(default = "lamb_clip")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        clip: Option<f64>,
    },
    /// RMSProp as TensorFlow has it (timm's `RMSpropTF`): g ← g + decay · p, s ← s + (1 - alpha) (g² - s) from s = 1,
    /// b ← momentum · b + lr · g / √(s + eps), p ← p - b.
    RmspropTf {
        /// Share of the mean square that is kept.
        #[serde(default = "momentum")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        alpha: f64,
        /// Share of the last step that is kept.
        #[serde(default = "momentum")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        momentum: f64,
        /// Keeps the denominator off 0, inside the root.
        #[serde(default = "rmsprop_eps")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        eps: f64,
    },
}

/// The rule where none is named.
const SGD: &str = "sgd";

fn yes() -> bool {
    true
}

fn momentum() -> f64 {
    0.9
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn adamw_eps() -> f64 {
    1e-8
}

fn lamb_eps() -> f64 {
    1e-6
}

fn lamb_clip() -> Option<f64> {
    Some(1.0)
}

fn rmsprop_eps() -> f64 {
    1e-3
}

impl Default for OptimSpec {
    fn default() -> Self {
        let rule = Rule::Sgd { momentum: momentum(), nesterov: true };
        let (lr, weight_decay) = rule.usual();
        Self { lr, lr_per: None, weight_decay, no_decay: Vec::new(), rule }
    }
}

impl Rule {
    /// Learning rate and weight decay that are taken where none are given.
    fn usual(&self) -> (f64, f64) {
        match self {
            Rule::Sgd { .. } => (0.1, 5e-4),
            Rule::AdamW { .. } => (1e-3, 0.05),
            Rule::Lamb { .. } => (5e-3, 0.02),
            Rule::RmspropTf { .. } => (0.01, 1e-5),
        }
    }

    /// The rule's name, as `kind` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Sgd { .. } => SGD,
            Rule::AdamW { .. } => "adamw",
            Rule::Lamb { .. } => "lamb",
            Rule::RmspropTf { .. } => "rmsprop-tf",
        }
    }
}

impl<'de> Deserialize<'de> for OptimSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Tagged::read(deserializer, Some(SGD))?;
        let lr = object.shared("lr")?;
        let lr_per = object.shared::<Option<u64>, _>("lr_per")?.flatten();
        let weight_decay = object.shared("weight_decay")?;
        let no_decay = object.shared("no_decay")?.unwrap_or_default();
        let rule: Rule = object.rest()?;
        let usual = rule.usual();
        let (lr, weight_decay) = (lr.unwrap_or(usual.0), weight_decay.unwrap_or(usual.1));
        Ok(Self { lr, lr_per, weight_decay, no_decay, rule })
    }
}

impl Serialize for OptimSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { lr, lr_per, weight_decay, no_decay, rule } = self;
        let shared = [
            ("lr", json!(lr)),
            ("lr_per", json!(lr_per)),
            ("weight_decay", json!(weight_decay)),
            ("no_decay", json!(no_decay)),
        ];
        tagged::write(serializer, shared, rule)
    }
}

impl OptimSpec {
    /// Refuses numbers that no training survives.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self) -> Result<()> {
        let mut figures =
            vec![("lr", self.lr, Range::AboveZero), ("weight_decay", self.weight_decay, Range::FromZero)];
        match &self.rule {
            Rule::Sgd { momentum, .. } => figures.push(("momentum", *momentum, Range::Share)),
            Rule::AdamW { betas: [one, two], eps } | Rule::Lamb { betas: [one, two], eps, .. } => figures
                .extend([
                    ("betas[0]", *one, Range::Share),
                    ("betas[1]", *two, Range::Share),
                    ("eps", *eps, Range::AboveZero),
                ]),
            Rule::RmspropTf { alpha, momentum, eps } => figures.extend([
                ("alpha", *alpha, Range::Share),
                ("momentum", *momentum, Range::Share),
                ("eps", *eps, Range::AboveZero),
            ]),
        }
        if let Rule::Lamb { clip: Some(clip), .. } = &self.rule {
            figures.push(("clip", *clip, Range::AboveZero));
        }
        for (key, value, range) in figures {
            range.check(&format!("optim.{key}"), value)?;
        }
        if self.lr_per == Some(0) {
            let message = "`optim.lr_per` is 0, but it must be 1 or more";
            return Err(usage(message).hint("null takes `optim.lr` as it is written").into());
        }
        if let Rule::Sgd { momentum: 0.0, nesterov: true } = self.rule {
            let message = "`optim.nesterov` needs momentum, but `optim.momentum` is 0";
            return Err(usage(message).hint("set `optim.nesterov` to false for plain SGD").into());
        }
        Ok(())
    }

    /// The weight decay of parameters of this role.
    pub(super) fn decay_of(&self, role: Role) -> f64 {
        let exempt = self.no_decay.iter().any(|exempt| {
            matches!(
                (exempt, role),
                (DecayExemption::Norm, Role::Norm)
                    | (DecayExemption::Bias, Role::Bias)
                    | (DecayExemption::ExcitationBias, Role::ExcitationBias)
            )
        });
        if exempt { 0.0 } else { self.weight_decay }
    }
}

/// What a figure may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Range {
    AboveZero,
    FromZero,
    /// From 0 to less than 1.
    Share,
}

impl Range {
    /// Refuses a figure that is not in the range.
    pub(super) fn check(self, key: &str, value: f64) -> Result<()> {
        let (fits, range) = match self {
            Range::AboveZero => (value > 0.0 && value.is_finite(), "more than 0"),
            Range::FromZero => (value >= 0.0 && value.is_finite(), "0 or more"),
            Range::Share => ((0.0..1.0).contains(&value), "from 0 to less than 1"),
        };
        if fits {
            return Ok(());
        }
        Err(usage(format!("`{key}` is {value}, but it must be {range}")).into())
    }
}
