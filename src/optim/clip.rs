//! Gradients that are not let grow too large.

use super::spec::Range;
use crate::error::{Result, usage};
use crate::torch_ext::optim::{clip_gradient_norm, clip_gradient_values};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How gradients are clipped before the optimizer sees them; one of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClipSpec {
    /// All gradients together, as one vector, are at most this long (Pascanu et al. 2013; PyTorch's
    /// `clip_grad_norm_`): g ← g · min(norm / (‖g‖ + 10⁻⁶), 1).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub norm: Option<f64>,
    /// Every value lies in [-value, value] (PyTorch's `clip_grad_value_`).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub value: Option<f64>,
}

impl ClipSpec {
    /// Refuses bounds that leave nothing, and both at once.
    ///
    /// # Errors
    /// When a bound is out of its range, or not one of both is given.
    pub fn check(&self) -> Result<()> {
        match (self.norm, self.value) {
            (Some(norm), None) => Range::AboveZero.check("train.clip.norm", norm),
            (None, Some(value)) => Range::AboveZero.check("train.clip.value", value),
            _ => {
                let message = "`train.clip` must have one of `norm` and `value`";
                Err(usage(message)
                    .hint("for example {\"norm\": 1.0}; `null` for the other, or for `train.clip`")
                    .into())
            }
        }
    }

    /// Clips the gradients of `params`.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn apply(&self, params: &[Tensor]) -> Result<()> {
        if let Some(value) = self.value {
            clip_gradient_values(params, value)?;
        }
        if let Some(norm) = self.norm {
            // PyTorch's, for a gradient of 0.
            clip_gradient_norm(params, norm, 1e-6)?;
        }
        Ok(())
    }
}
