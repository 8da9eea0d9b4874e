//! Number formats of the computation.

use super::{checked, text};
use crate::error::Result;
use std::ffi::c_int;
use std::marker::PhantomData;
use tch::{Device, TchError};

unsafe extern "C" {
    fn senet_autocast_enter(cuda: c_int, bfloat16: c_int) -> c_int;
    fn senet_autocast_leave(cuda: c_int) -> c_int;
    fn senet_allow_tf32(allowed: c_int) -> c_int;
}

/// Sixteen bits of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// float32's range, 8 bits of mantissa.
    BFloat16,
    /// 11 bits of mantissa, up to 65,504.
    Float16,
}

/// While it lives, convolutions and matrix products that this thread begins compute in half of the bits (libtorch's
/// autocast); sums over many values stay in float32. The backward pass follows the formats of the forward pass by
/// itself, and is to run after.
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
    /// It is the thread's: not to be dropped on another.
    not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Begins.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn enter(device: Device, half: Half) -> Result<Self, TchError> {
        let cuda = device.is_cuda();
        // SAFETY: plain numbers.
        if unsafe { senet_autocast_enter(c_int::from(cuda), c_int::from(half == Half::BFloat16)) } != 0 {
            // SAFETY: no arguments; the string is this thread's own.
            return Err(TchError::Torch(text(unsafe { super::senet_last_error() })));
        }
        Ok(Self { cuda, not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: a plain number; it can only fail where `enter` has.
        unsafe { senet_autocast_leave(c_int::from(self.cuda)) };
    }
}

/// Whether GPUs may round the inputs of float32 convolutions and matrix products to 10 bits of mantissa; for the whole
/// process.
///
/// # Errors
/// When libtorch refuses.
pub fn allow_tf32(allowed: bool) -> Result<()> {
    // SAFETY: a plain number.
    checked(unsafe { senet_allow_tf32(c_int::from(allowed)) }, "cannot set the precision")
}
