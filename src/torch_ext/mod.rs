//! What libtorch offers and tch does not bind: a few lines of C++ each, and here their only callers. This is the
//! module with `unsafe` beside `data::jpeg`.
#![expect(unsafe_code, reason = "the border to C++: opaque tensors, plain numbers, no exception crosses")]

pub mod conv;
pub mod dist;
pub mod excite;
pub mod grouped;
pub mod host;
pub mod norm;
pub mod optim;
pub mod precision;
pub mod profile;
pub mod winograd;

use crate::error::{LESS_MEMORY, Result, failed, means_out_of_memory, reason_in_words};
use std::ffi::{CStr, c_char, c_int};
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn senet_last_error() -> *const c_char;
    fn senet_torch_version() -> *const c_char;
    fn senet_cpu_capability() -> *const c_char;
    fn senet_has_kernels() -> c_int;
    fn senet_cuda_linked() -> c_int;
    fn senet_library_path() -> *const c_char;
    fn senet_keep_large_blocks() -> c_int;
    fn senet_hold_stop_signals(held: c_int) -> c_int;
}

/// Copies a string of the C++ side.
fn text(pointer: *const c_char) -> String {
    // SAFETY: the functions above return NUL-terminated strings that outlive this copy.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn checked(status: c_int, doing: &str) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: no arguments; the string is this thread's own.
    let reason = text(unsafe { senet_last_error() });
    let problem = failed(format!("{doing}: {}", reason_in_words(&reason)));
    Err(if means_out_of_memory(&reason) { problem.hint(LESS_MEMORY) } else { problem }.into())
}

/// The tensor that a C++ function hands over.
fn checked_tensor(call: impl FnOnce(*mut *mut C_tensor) -> c_int) -> Result<Tensor, TchError> {
    let mut out = std::ptr::null_mut();
    if call(&mut out) == 0 {
        // SAFETY: on success the function has put a new tensor there, which is ours to free.
        return Ok(unsafe { Tensor::from_ptr(out) });
    }
    // SAFETY: no arguments; the string is this thread's own.
    Err(TchError::Torch(text(unsafe { senet_last_error() })))
}

/// Null for nothing.
fn nullable(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// The version of libtorch that this program was compiled against, such as `2.13.0`.
pub fn torch_version() -> String {
    // SAFETY: no arguments; a static string.
    text(unsafe { senet_torch_version() })
}

/// The vector instructions that libtorch chose for this processor, such as `AVX2`.
pub fn cpu_capability() -> String {
    // SAFETY: no arguments; a static string.
    text(unsafe { senet_cpu_capability() })
}

/// Whether convolutions of our own ([`winograd`], [`grouped`]) can be used here: the compiler made them, and the processor
/// (or `ATEN_CPU_CAPABILITY`) has AVX2 or AVX-512.
pub fn has_own_convolutions() -> bool {
    // SAFETY: no arguments, no exceptions.
    let compiled = unsafe { senet_has_kernels() != 0 };
    compiled && matches!(cpu_capability().as_str(), "AVX2" | "AVX512")
}

/// Whether libtorch's CUDA half is part of this program (a GPU may still be missing).
pub fn cuda_linked() -> bool {
    // SAFETY: no arguments, no exceptions.
    unsafe { senet_cuda_linked() != 0 }
}

/// The file that libtorch was loaded from.
pub fn library_path() -> Option<String> {
    // SAFETY: no arguments; null or a string of the dynamic linker, which lives as long as the library.
    let path = unsafe { senet_library_path() };
    (!path.is_null()).then(|| text(path))
}

/// Returns whether the process keeps large memory blocks: jemalloc does by its options, glibc's malloc is set to here.
/// (libtorch is asked for huge pages before `main`.)
pub fn keep_large_blocks() -> bool {
    // SAFETY: no arguments, no exceptions; both allocators take options from any thread.
    unsafe { senet_keep_large_blocks() != 0 }
}

/// Holds back the signals that ask to stop (SIGINT, SIGTERM, SIGHUP, SIGUSR1) from this thread, or lets them come. What
/// comes meanwhile waits, also while the process starts another program in its place. Returns whether any was waiting.
pub fn hold_stop_signals(held: bool) -> bool {
    // SAFETY: reads and sets this thread's signal mask, which is of no consequence for memory.
    unsafe { senet_hold_stop_signals(c_int::from(held)) != 0 }
}
