//! One update of all parameters of a group, in one call each: the optimizers, clipping, moving averages. Parameters
//! without a gradient are left alone. Nothing here waits for the device but the question whether gradients are finite.

use super::{checked, pointers};
use crate::error::Result;
use std::ffi::c_int;
use tch::Tensor;
use torch_sys::C_tensor;

/// An array of live tensors.
type List = *const *const C_tensor;

unsafe extern "C" {
    fn senet_sgd_step(
        params: List,
        velocities: List,
        count: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: c_int,
        first: c_int,
    ) -> c_int;
    fn senet_adamw_step(
        params: List,
        means: List,
        squares: List,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        step: f64,
    ) -> c_int;
    fn senet_lamb_step(
        params: List,
        means: List,
        squares: List,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        step: f64,
    ) -> c_int;
    fn senet_rmsprop_tf_step(
        params: List,
        squares: List,
        buffers: List,
        count: usize,
        lr: f64,
        alpha: f64,
        momentum: f64,
        epsilon: f64,
        weight_decay: f64,
    ) -> c_int;
    fn senet_clip_gradient_norm(params: List, count: usize, most: f64, epsilon: f64) -> c_int;
    fn senet_clip_gradient_values(params: List, count: usize, most: f64) -> c_int;
    fn senet_move_averages(means: List, values: List, count: usize, share: f64) -> c_int;
    fn senet_scale_gradients(params: List, count: usize, factor: f64, finite: *mut c_int) -> c_int;
    fn senet_gradients_are_finite(params: List, count: usize, finite: *mut c_int) -> c_int;
    fn senet_drop_gradients(params: List, count: usize) -> c_int;
}

/// What fails when an update is refused.
const UPDATING: &str = "cannot update the parameters";

/// The numbers of one SGD update (momentum in PyTorch's form, without dampening).
#[derive(Debug, Clone, Copy)]
pub struct SgdUpdate {
    /// Learning rate.
    pub lr: f64,
    /// Share of the old velocity that is kept.
    pub momentum: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether to look ahead along the velocity.
    pub nesterov: bool,
    /// Whether the velocities hold no history yet.
    pub first: bool,
}

/// Updates `params` in place from their gradients, with `velocities[i]` belonging to `params[i]`.
///
/// # Errors
/// When libtorch refuses, for example on parameters of several devices.
pub fn sgd_step(params: &[Tensor], velocities: &[Tensor], update: SgdUpdate) -> Result<()> {
    let SgdUpdate { lr, momentum, weight_decay, nesterov, first } = update;
    let [params, velocities] = arrays([params, velocities]);
    let (nesterov, first) = (c_int::from(nesterov), c_int::from(first));
    // SAFETY: both arrays hold `params.len()` live tensors for the length of the call.
    let status = unsafe {
        let (values, velocities) = (params.as_ptr(), velocities.as_ptr());
        senet_sgd_step(values, velocities, params.len(), lr, momentum, weight_decay, nesterov, first)
    };
    checked(status, UPDATING)
}

/// The numbers of one update of Adam's kind.
#[derive(Debug, Clone, Copy)]
pub struct AdamUpdate {
    /// Learning rate.
    pub lr: f64,
    /// Shares of the old mean of the gradients, and of their squares, that are kept.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Share of the parameters that is taken off.
    pub weight_decay: f64,
    /// Number of the update, from 1.
    pub step: u64,
}

/// Which update of Adam's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdamKind {
    /// AdamW: p shrinks by lr · decay on its own.
    AdamW,
    /// LAMB: decay is part of the update, and the update of a tensor is as long as the tensor.
    Lamb,
}

/// Updates `params` in place from their gradients, with the i-th of `means` and `squares` belonging to `params[i]`.
///
/// # Errors
/// When libtorch refuses, for example on parameters of several devices.
pub fn adam_step(
    kind: AdamKind,
    params: &[Tensor],
    means: &[Tensor],
    squares: &[Tensor],
    update: AdamUpdate,
) -> Result<()> {
    let AdamUpdate { lr, betas: [beta1, beta2], epsilon, weight_decay, step } = update;
    let [params, means, squares] = arrays([params, means, squares]);
    let step_of = match kind {
        AdamKind::AdamW => senet_adamw_step,
        AdamKind::Lamb => senet_lamb_step,
    };
    // SAFETY: the three arrays hold `params.len()` live tensors each for the length of the call.
    let status = unsafe {
        let (values, means, squares) = (params.as_ptr(), means.as_ptr(), squares.as_ptr());
        step_of(values, means, squares, params.len(), lr, beta1, beta2, epsilon, weight_decay, step as f64)
    };
    checked(status, UPDATING)
}

/// The numbers of one RMSProp update.
#[derive(Debug, Clone, Copy)]
pub struct RmsPropUpdate {
    /// Learning rate.
    pub lr: f64,
    /// Share of the old mean square that is kept.
    pub alpha: f64,
    /// Share of the old step that is kept.
    pub momentum: f64,
    /// Added to the mean square, inside the root.
    pub epsilon: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
}

/// Updates `params` in place from their gradients, with `squares[i]` and `buffers[i]` belonging to `params[i]`. Without
/// momentum there are no `buffers`.
///
/// # Errors
/// When libtorch refuses, for example on parameters of several devices.
pub fn rmsprop_tf_step(
    params: &[Tensor],
    squares: &[Tensor],
    buffers: Option<&[Tensor]>,
    update: RmsPropUpdate,
) -> Result<()> {
    let RmsPropUpdate { lr, alpha, momentum, epsilon, weight_decay } = update;
    let [params, squares, buffers] = match buffers {
        Some(buffers) => arrays([params, squares, buffers]),
        None => {
            let [params, squares] = arrays([params, squares]);
            [params, squares, Vec::new()]
        }
    };
    let buffers = if buffers.is_empty() { std::ptr::null() } else { buffers.as_ptr() };
    // SAFETY: the arrays that are not null hold `params.len()` live tensors for the length of the call.
    let status = unsafe {
        let (values, squares, count) = (params.as_ptr(), squares.as_ptr(), params.len());
        senet_rmsprop_tf_step(values, squares, buffers, count, lr, alpha, momentum, epsilon, weight_decay)
    };
    checked(status, UPDATING)
}

/// Shortens the gradients of `params` together, as one vector, to the length `most`: g ← g · min(most / (‖g‖ + ε), 1).
///
/// # Errors
/// When libtorch refuses.
pub fn clip_gradient_norm(params: &[Tensor], most: f64, epsilon: f64) -> Result<()> {
    let params = pointers(params);
    // SAFETY: the array holds `params.len()` live tensors for the length of the call.
    let status = unsafe { senet_clip_gradient_norm(params.as_ptr(), params.len(), most, epsilon) };
    checked(status, "cannot clip the gradients")
}

/// Puts every value of the gradients of `params` into [-most, most].
///
/// # Errors
/// When libtorch refuses.
pub fn clip_gradient_values(params: &[Tensor], most: f64) -> Result<()> {
    let params = pointers(params);
    // SAFETY: the array holds `params.len()` live tensors for the length of the call.
    let status = unsafe { senet_clip_gradient_values(params.as_ptr(), params.len(), most) };
    checked(status, "cannot clip the gradients")
}

/// Moves each of `means` towards the value of the same place by `share` of the way.
///
/// # Errors
/// When libtorch refuses.
pub fn move_averages(means: &[Tensor], values: &[Tensor], share: f64) -> Result<()> {
    let [means, values] = arrays([means, values]);
    // SAFETY: both arrays hold `means.len()` live tensors for the length of the call.
    let status = unsafe { senet_move_averages(means.as_ptr(), values.as_ptr(), means.len(), share) };
    checked(status, "cannot average the weights")
}

/// Multiplies the gradients of `params` by `factor`, and says whether they were all finite. Waits for the device.
///
/// # Errors
/// When libtorch refuses.
pub fn scale_gradients(params: &[Tensor], factor: f64) -> Result<bool> {
    let params = pointers(params);
    let mut finite = 0;
    // SAFETY: the array holds `params.len()` live tensors for the length of the call, and `finite` is ours.
    let status = unsafe { senet_scale_gradients(params.as_ptr(), params.len(), factor, &raw mut finite) };
    checked(status, "cannot scale the gradients")?;
    Ok(finite != 0)
}

/// Whether the gradients of `params` are all finite. Waits for the device.
///
/// # Errors
/// When libtorch refuses.
pub fn gradients_are_finite(params: &[Tensor]) -> Result<bool> {
    let params = pointers(params);
    let mut finite = 0;
    // SAFETY: the array holds `params.len()` live tensors for the length of the call, and `finite` is ours.
    let status = unsafe { senet_gradients_are_finite(params.as_ptr(), params.len(), &raw mut finite) };
    checked(status, "cannot look at the gradients")?;
    Ok(finite != 0)
}

/// Forgets the gradients of `params`.
///
/// # Errors
/// When libtorch refuses.
pub fn drop_gradients(params: &[Tensor]) -> Result<()> {
    let params = pointers(params);
    // SAFETY: the array holds `params.len()` live tensors for the length of the call.
    checked(unsafe { senet_drop_gradients(params.as_ptr(), params.len()) }, "cannot drop the gradients")
}

/// Lists of one length as C sees them.
fn arrays<const N: usize>(lists: [&[Tensor]; N]) -> [Vec<*const C_tensor>; N] {
    assert!(lists.iter().all(|list| list.len() == lists[0].len()), "every parameter has its tensors");
    lists.map(pointers)
}
