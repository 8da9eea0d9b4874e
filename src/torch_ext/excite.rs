//! An SE block with the sum and the ReLU around it, as one operator.

use super::{checked_tensor, nullable};
use std::ffi::c_int;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_excite_add_relu(
        u: *const C_tensor,
        shortcut: *const C_tensor,
        w1: *const C_tensor,
        b1: *const C_tensor,
        w2: *const C_tensor,
        b2: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Weight and bias of an FC, stored as a 1×1 convolution.
pub type Fc<'a> = (&'a Tensor, Option<&'a Tensor>);

/// relu(u × σ(W2 δ(W1 mean(u))) + shortcut), with gradients where they are recorded. Where they are not, `u` may
/// be overwritten.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn excite_add_relu(u: &Tensor, shortcut: &Tensor, fc1: Fc<'_>, fc2: Fc<'_>) -> Result<Tensor, TchError> {
    let ((w1, b1), (w2, b2)) = (fc1, fc2);
    // SAFETY: the tensors live for the length of the call; null stands for no bias.
    checked_tensor(|out| unsafe {
        senet_excite_add_relu(
            u.as_ptr(),
            shortcut.as_ptr(),
            w1.as_ptr(),
            nullable(b1),
            w2.as_ptr(),
            nullable(b2),
            out,
        )
    })
}
