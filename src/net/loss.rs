//! The training criterion.

use tch::{Reduction, TchError, Tensor};

/// Mean cross-entropy of `logits` `[N, classes]` against class indices `[N]`, with `smoothing` of the probability
/// spread evenly over all classes (Szegedy et al. 2016).
///
/// # Errors
/// When libtorch refuses, for example on a label beyond the classes.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    let nothing_ignored = -100;
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, nothing_ignored, smoothing)
}
