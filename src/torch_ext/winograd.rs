//! Convolutions of 3×3 with a quarter of the products, by Winograd's minimal filtering: on CPUs, in float32.

use super::{checked_tensor, nullable};
use crate::net::Conv;
use std::ffi::c_int;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_winograd_suits(x: *const C_tensor, c_out: i64, groups: i64) -> c_int;
    fn senet_winograd(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        groups: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn senet_pack_winograd(weight: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    fn senet_packed_winograd(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        groups: i64,
        relu: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Whether `conv` of `x` can be computed so here, and is faster: 3×3 with stride 1 and border 1 of a channels_last map
/// in float32 on a CPU with AVX2 or AVX-512, both numbers of channels of a group multiples of 16 (of several groups, at
/// most 128), maps that fill at least half of their tiles of 4×4 outputs, eight such tiles or more, and no autocast.
pub fn suits(conv: &Conv, x: &Tensor) -> bool {
    let Conv { kernel, stride, padding, groups, c_in, c_out, .. } = *conv;
    kernel == [3, 3] && stride == 1 && padding == [1, 1] && x.size().get(1) == Some(&c_in)
        // SAFETY: the tensor lives for the length of the call; no exceptions.
        && unsafe { senet_winograd_suits(x.as_ptr(), c_out, groups) != 0 }
}

/// The convolution, which has to [suit](suits), with gradients where they are recorded.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn convolve(conv: &Conv, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let (x, weight, bias) = (x.as_ptr(), weight.as_ptr(), nullable(bias));
    // SAFETY: the tensors live for the length of the call; null stands for no bias.
    checked_tensor(|out| unsafe { senet_winograd(x, weight, bias, conv.groups, out) })
}

/// Weights `[C_out, C_in / groups, 3, 3]` for [`convolve_packed`].
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn pack(weight: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: the tensor lives for the length of the call.
    checked_tensor(|out| unsafe { senet_pack_winograd(weight.as_ptr(), out) })
}

/// relu(conv(x) + bias + other), where `other` and the ReLU may be left out, without gradients. The convolution has to
/// [suit](suits); `weight` is [packed](pack).
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn convolve_packed(
    conv: &Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    other: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor, TchError> {
    let (x, weight, bias, other) = (x.as_ptr(), weight.as_ptr(), bias.as_ptr(), nullable(other));
    // SAFETY: the tensors live for the length of the call; null stands for no `other`.
    checked_tensor(|out| unsafe {
        senet_packed_winograd(x, weight, bias, other, conv.groups, c_int::from(relu), out)
    })
}
