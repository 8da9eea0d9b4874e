//! Where the time of a computation goes, operator by operator.

use super::{checked, text};
use crate::error::Result;
use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    fn senet_profile_start() -> c_int;
    fn senet_profile_stop(
        tell: extern "C" fn(*mut c_void, *const c_char, i64, f64),
        context: *mut c_void,
    ) -> c_int;
}

/// What an operator cost, without the operators that it calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// As libtorch calls it, such as `aten::convolution_backward`; ours begin with `senet::`.
    pub operator: String,
    /// How often it was called.
    pub calls: u64,
    /// Time of all calls; on a GPU, the host's.
    pub seconds: f64,
}

/// What `body` comes to, and what each operator of this process cost meanwhile, the dearest first.
///
/// # Errors
/// `body`'s.
pub fn profiled<T>(body: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Cost>)> {
    // SAFETY: no arguments.
    checked(unsafe { senet_profile_start() }, "cannot count operators")?;
    let result = body();
    let mut costs: Vec<Cost> = Vec::new();
    // SAFETY: `tell` is called with the pointer given here, before the function returns.
    let stopped = unsafe { senet_profile_stop(tell, (&raw mut costs).cast()) };
    checked(stopped, "cannot count operators")?;
    costs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok((result?, costs))
}

extern "C" fn tell(costs: *mut c_void, name: *const c_char, calls: i64, seconds: f64) {
    // SAFETY: the vector of `profiled`, which nobody else touches meanwhile.
    let costs = unsafe { &mut *costs.cast::<Vec<Cost>>() };
    costs.push(Cost { operator: plain_name(&text(name)), calls: calls as u64, seconds });
}

/// The name of a node of the backward pass that is ours, without the words of C++ around it.
fn plain_name(name: &str) -> String {
    match name.strip_prefix("torch::autograd::CppNode<").and_then(|rest| rest.strip_suffix('>')) {
        Some(node) => format!("senet::{} backward", node.rsplit("::").next().unwrap_or(node)),
        None => name.to_string(),
    }
}
