//! Convolutions for inference on the CPU, their weights packed in oneDNN's layout.

use super::{checked_tensor, nullable};
use crate::net::Conv;
use std::ffi::c_int;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_pack_convolution(
        weight: *const C_tensor,
        stride: i64,
        padding: *const i64,
        groups: i64,
        input_shape: *const i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn senet_packed_convolution(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        stride: i64,
        padding: *const i64,
        groups: i64,
        relu: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Weights `[C_out, C_in / groups, K_h, K_w]`, packed for inputs `[N, C, H, W]` of the shape `input`. Other shapes
/// compute the same, more slowly.
///
/// # Errors
/// When libtorch refuses.
pub fn pack(conv: &Conv, weight: &Tensor, input: [i64; 4]) -> Result<Tensor, TchError> {
    let (weight, padding) = (weight.as_ptr(), conv.padding.as_ptr());
    // SAFETY: the tensor lives for the length of the call; two numbers of `padding` and four of `input` are read.
    checked_tensor(|out| unsafe {
        senet_pack_convolution(weight, conv.stride, padding, conv.groups, input.as_ptr(), out)
    })
}

/// relu(conv(x) + bias + other), where `other` and the ReLU may be left out. `weight` is [packed](pack). NaN stays NaN;
/// without `other`, what the ReLU leaves of a negative value is too small to matter instead of 0.
///
/// # Errors
/// When libtorch refuses.
pub fn convolve(
    conv: &Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    other: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor, TchError> {
    let Conv { stride, groups, .. } = *conv;
    let padding = conv.padding.as_ptr();
    let (x, weight, bias, other) = (x.as_ptr(), weight.as_ptr(), bias.as_ptr(), nullable(other));
    // SAFETY: the tensors live for the length of the call; two numbers of `padding` are read; null stands for no `other`.
    checked_tensor(|out| unsafe {
        senet_packed_convolution(x, weight, bias, other, stride, padding, groups, c_int::from(relu), out)
    })
}
