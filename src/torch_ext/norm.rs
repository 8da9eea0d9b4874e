//! Batch normalisation in training with the ReLU behind it, as one operator; over the batches of several processes, too.

use super::checked_tensor;
use super::dist::{CGroup, Peers};
use std::ffi::c_int;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_batch_norm_relu(
        x: *const C_tensor,
        gamma: *const C_tensor,
        beta: *const C_tensor,
        running_mean: *const C_tensor,
        running_var: *const C_tensor,
        momentum: f64,
        epsilon: f64,
        relu: c_int,
        peers: *const CGroup,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Tensors of a batch normalisation over C channels, each `[C]`.
#[derive(Debug)]
pub struct BatchNorm {
    /// Scale.
    pub gamma: Tensor,
    /// Shift.
    pub beta: Tensor,
    /// Running mean.
    pub mean: Tensor,
    /// Running variance, unbiased.
    pub variance: Tensor,
}

/// relu?(γ (x - mean) / √(variance + ε) + β) with the mean and variance of this batch, which move the running ones by
/// `momentum`. With `peers`, all of whom call this with their batches, mean and variance are those of all batches
/// together.
///
/// # Errors
/// When libtorch refuses, for example for want of memory, or a peer is lost.
pub fn batch_norm_relu(
    x: &Tensor,
    norm: &BatchNorm,
    momentum: f64,
    epsilon: f64,
    relu: bool,
    peers: Option<&Peers>,
) -> Result<Tensor, TchError> {
    // SAFETY: the tensors live for the length of the call.
    checked_tensor(|out| unsafe {
        senet_batch_norm_relu(
            x.as_ptr(),
            norm.gamma.as_ptr(),
            norm.beta.as_ptr(),
            norm.mean.as_ptr(),
            norm.variance.as_ptr(),
            momentum,
            epsilon,
            c_int::from(relu),
            peers.map_or(std::ptr::null(), Peers::as_ptr),
            out,
        )
    })
}
