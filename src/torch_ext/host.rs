//! Tensors in main memory that are filled as slices, by any thread, and their way to floats.

use super::checked_tensor;
use std::ffi::c_int;
use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_host_bytes(
        shape: *const i64,
        dimensions: usize,
        pinned: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn senet_normalise_bytes(
        pixels: *const C_tensor,
        factor: *const C_tensor,
        offset: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// factor · pixels + offset of u8 `[N, H, W, C]` in main memory, with C of 1 or 3 and factors and offsets `[C]`; floats of
/// the same shape.
///
/// # Errors
/// When shapes or kinds are others, or there is no memory.
pub fn normalise(pixels: &Tensor, factor: &Tensor, offset: &Tensor) -> Result<Tensor, TchError> {
    let (pixels, factor, offset) = (pixels.as_ptr(), factor.as_ptr(), offset.as_ptr());
    // SAFETY: the tensors live for the length of the call; the other side checks what they are.
    checked_tensor(|out| unsafe { senet_normalise_bytes(pixels, factor, offset, out) })
}

/// A u8 tensor in the making. It has no other owner, so that its bytes can be lent as a slice.
#[derive(Debug)]
pub struct HostBytes {
    tensor: Tensor,
    len: usize,
}

impl HostBytes {
    /// Zeros of this shape, on their way to `device`: page-locked where that is a GPU.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn zeros(shape: &[i64], device: Device) -> Result<Self, TchError> {
        let pinned = c_int::from(device.is_cuda());
        // SAFETY: as many numbers of `shape` are read as it has.
        let tensor =
            checked_tensor(|out| unsafe { senet_host_bytes(shape.as_ptr(), shape.len(), pinned, out) })?;
        let len = tensor.numel();
        Ok(Self { tensor, len })
    }

    /// All bytes, in row-major order.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: a contiguous u8 tensor of `len` values, initialised when it was made, in main memory; nobody else
        // has a handle to it, and it lives as long as the borrow of `self`.
        unsafe { std::slice::from_raw_parts_mut(self.tensor.data_ptr().cast(), self.len) }
    }

    /// The tensor, filled.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_floats_of_the_plain_path() {
        for channels in [1, 3] {
            let pixels = Tensor::arange(5 * 7 * 11 * channels, (tch::Kind::Int64, Device::Cpu));
            let pixels = pixels.to_kind(tch::Kind::Uint8).view([5, 7, 11, channels]);
            let factor = Tensor::from_slice(&[0.017f32, 0.018, 0.019][..channels as usize]);
            let offset = Tensor::from_slice(&[-2.1f32, -2.0, -1.8][..channels as usize]);
            let plain = offset.addcmul(&pixels.to_kind(tch::Kind::Float), &factor);
            let ours = normalise(&pixels, &factor, &offset).unwrap();
            assert!((ours - plain).abs().max().double_value(&[]) < 1e-6);
        }
        let factor = Tensor::from_slice(&[1f32; 5]);
        let pixels = Tensor::zeros([1, 1, 1, 5], (tch::Kind::Uint8, Device::Cpu));
        assert!(normalise(&pixels, &factor, &factor).is_err());
    }

    #[test]
    fn what_is_written_is_in_the_tensor() {
        let mut bytes = HostBytes::zeros(&[2, 3], Device::Cpu).unwrap();
        assert_eq!(bytes.bytes_mut(), [0; 6]);
        bytes.bytes_mut().copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        let tensor = bytes.into_tensor();
        assert_eq!((tensor.size(), tensor.int64_value(&[1, 0])), (vec![2, 3], 4));
        assert_eq!(HostBytes::zeros(&[0, 3], Device::Cpu).unwrap().bytes_mut(), [0; 0]);
        assert!(HostBytes::zeros(&[1 << 50, 1 << 10], Device::Cpu).is_err());
    }
}
