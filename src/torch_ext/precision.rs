//! Number formats of the computation.

use super::{checked, text};
use crate::error::Result;
use std::ffi::c_int;
use std::marker::PhantomData;
use tch::{Device, TchError};

unsafe extern "C" {
    fn senet_autocast_enter(cuda: c_int, bfloat16: c_int, before: *mut c_int) -> c_int;
    fn senet_autocast_leave(cuda: c_int, before: *const c_int) -> c_int;
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
    /// What was in force before, and is again afterwards.
    before: [c_int; 3],
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
        let bfloat16 = c_int::from(half == Half::BFloat16);
        let mut before = [0; 3];
        // SAFETY: plain numbers, and a place for three.
        if unsafe { senet_autocast_enter(c_int::from(cuda), bfloat16, before.as_mut_ptr()) } != 0 {
            // SAFETY: no arguments; the string is this thread's own.
            return Err(TchError::Torch(text(unsafe { super::senet_last_error() })));
        }
        Ok(Self { cuda, before, not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: a plain number, and three that are only read; it can only fail where `enter` has.
        unsafe { senet_autocast_leave(c_int::from(self.cuda), self.before.as_ptr()) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn what_was_in_force_is_in_force_again() {
        let kind = || {
            let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
            x.matmul(&x).kind()
        };
        {
            let _outer = Autocast::enter(Device::Cpu, Half::BFloat16).unwrap();
            {
                let _inner = Autocast::enter(Device::Cpu, Half::Float16).unwrap();
                assert_eq!(kind(), Kind::Half);
            }
            assert_eq!(kind(), Kind::BFloat16);
        }
        assert_eq!(kind(), Kind::Float);
    }
}
