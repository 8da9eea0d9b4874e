//! Convolutions of 3×3 whose groups have few channels, as ResNeXt's: on CPUs, in float32.

use super::{checked_tensor, nullable};
use crate::net::Conv;
use std::ffi::c_int;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_grouped_suits(x: *const C_tensor, groups: i64, stride: i64) -> c_int;
    fn senet_grouped(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        stride: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn senet_pack_grouped(weight: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    fn senet_packed_grouped(
        x: *const C_tensor,
        filters: *const C_tensor,
        bias: *const C_tensor,
        stride: i64,
        relu: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Whether `conv` of `x` can be computed so here: 3×3 with stride 1 or 2 and border 1, as many channels out as in, a
/// multiple of 8 with AVX2 and of 16 with AVX-512 in groups of 4, 8 or 16, of a channels_last map in float32 on such a
/// CPU, and no autocast.
pub fn suits(conv: &Conv, x: &Tensor) -> bool {
    let Conv { kernel, stride, padding, groups, c_in, c_out, .. } = *conv;
    kernel == [3, 3] && padding == [1, 1] && c_in == c_out && x.size().get(1) == Some(&c_in)
        // SAFETY: the tensor lives for the length of the call; no exceptions.
        && unsafe { senet_grouped_suits(x.as_ptr(), groups, stride) != 0 }
}

/// The convolution, which has to [suit](suits), with gradients where they are recorded.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn convolve(conv: &Conv, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let (x, weight, bias) = (x.as_ptr(), weight.as_ptr(), nullable(bias));
    // SAFETY: the tensors live for the length of the call; null stands for no bias.
    checked_tensor(|out| unsafe { senet_grouped(x, weight, bias, conv.stride, out) })
}

/// Weights `[C, C / groups, 3, 3]` as filters for [`convolve_packed`].
///
/// # Errors
/// When they are not those of a convolution that suits, or libtorch refuses, for example for want of memory.
pub fn pack(weight: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: the tensor lives for the length of the call.
    checked_tensor(|out| unsafe { senet_pack_grouped(weight.as_ptr(), out) })
}

/// relu?(conv(x) + bias), without gradients. The convolution has to [suit](suits); `filters` are [packed](pack).
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn convolve_packed(
    conv: &Conv,
    x: &Tensor,
    filters: &Tensor,
    bias: &Tensor,
    relu: bool,
) -> Result<Tensor, TchError> {
    let (x, filters, bias) = (x.as_ptr(), filters.as_ptr(), bias.as_ptr());
    // SAFETY: the tensors live for the length of the call.
    checked_tensor(|out| unsafe {
        senet_packed_grouped(x, filters, bias, conv.stride, c_int::from(relu), out)
    })
}
