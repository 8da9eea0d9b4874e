//! Many processes: c10d's key-value store, process groups and DDP's reducer. What the calls mean to training is in
//! [`crate::dist`], their only caller.

use super::{checked, pointers};
use crate::error::{Result, failed};
use std::ffi::{CString, c_char, c_int};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::time::Duration;
use tch::Tensor;
use torch_sys::C_tensor;

/// An array of live tensors.
type List = *const *const C_tensor;

/// An array of strings that end in NUL.
type Names = *const *const c_char;

/// The other side's handles.
#[repr(C)]
struct CStore([u8; 0]);
#[repr(C)]
pub(super) struct CGroup([u8; 0]);
#[repr(C)]
struct CReducer([u8; 0]);

unsafe extern "C" {
    fn senet_store_open(
        host: *const c_char,
        port: u16,
        serve: c_int,
        listener: c_int,
        timeout_ms: i64,
        prefix: *const c_char,
        out: *mut *mut CStore,
    ) -> c_int;
    fn senet_store_port(store: *const CStore) -> u16;
    fn senet_store_set(store: *mut CStore, key: *const c_char, value: *const u8, length: usize) -> c_int;
    fn senet_store_get(store: *mut CStore, keys: Names, count: usize) -> c_int;
    fn senet_store_answer(index: usize, length: *mut usize) -> *const u8;
    fn senet_store_add(store: *mut CStore, key: *const c_char, amount: i64, sum: *mut i64) -> c_int;
    fn senet_store_has(store: *mut CStore, key: *const c_char, there: *mut c_int) -> c_int;
    fn senet_store_delete(store: *mut CStore, key: *const c_char) -> c_int;
    fn senet_store_wait(
        store: *mut CStore,
        keys: Names,
        count: usize,
        timeout_ms: i64,
        there: *mut c_int,
    ) -> c_int;
    fn senet_store_free(store: *mut CStore) -> c_int;
    fn senet_group_has_nccl() -> c_int;
    fn senet_group_join(
        store: *mut CStore,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        cuda: c_int,
        timeout_ms: i64,
        out: *mut *mut CGroup,
    ) -> c_int;
    fn senet_group_broadcast(group: *mut CGroup, tensors: List, count: usize) -> c_int;
    fn senet_group_all_reduce(group: *mut CGroup, tensors: List, count: usize, mean: c_int) -> c_int;
    fn senet_group_abort(group: *mut CGroup) -> c_int;
    fn senet_group_share(group: *mut CGroup, out: *mut *mut CGroup) -> c_int;
    fn senet_group_shutdown(group: *mut CGroup) -> c_int;
    fn senet_group_free(group: *mut CGroup) -> c_int;
    fn senet_reducer_new(
        group: *mut CGroup,
        params: List,
        names: Names,
        count: usize,
        bucket_bytes: i64,
        first_bucket_bytes: i64,
        find_unused: c_int,
        static_graph: c_int,
        out: *mut *mut CReducer,
    ) -> c_int;
    fn senet_reducer_prepare_forward(reducer: *mut CReducer) -> c_int;
    fn senet_reducer_prepare_backward(reducer: *mut CReducer, loss: *const C_tensor) -> c_int;
    fn senet_reducer_free(reducer: *mut CReducer) -> c_int;
}

/// Whether groups on CUDA are compiled in.
pub fn has_nccl() -> bool {
    // SAFETY: no arguments, no exceptions.
    unsafe { senet_group_has_nccl() != 0 }
}

/// A string for the other side.
fn c_string(text: &str) -> Result<CString> {
    Ok(CString::new(text).map_err(|_| failed(format!("`{}` holds a NUL", text.escape_debug())))?)
}

/// At least 1 ms: 0 means no limit to c10d.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 1_000_000).clamp(1, i64::MAX / 1_000_000)
}

/// Listens for processes of this machine alone, where `host` is 127.0.0.1 or ::1 by whatever name. (Another address of the
/// loopback may be what this machine takes its own name for, while others know it by another.)
fn loopback_listener(host: &str, port: u16) -> Result<Option<TcpListener>> {
    // What cannot be resolved is libtorch's to say.
    let places: Vec<_> = (host, port).to_socket_addrs().into_iter().flatten().collect();
    let is_loopback =
        |ip: IpAddr| [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&ip);
    if places.is_empty() || !places.iter().all(|place| is_loopback(place.ip())) {
        return Ok(None);
    }
    let listener = TcpListener::bind(places.as_slice()).map_err(|reason| {
        let code = if reason.kind() == io::ErrorKind::AddrInUse { "EADDRINUSE, " } else { "" };
        failed(format!("the store at {host}:{port}: {code}{reason}"))
    })?;
    Ok(Some(listener))
}

/// Who keeps a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// This process; with port 0 on a free port. Where the host is the loopback, no other machine can connect.
    Us,
    /// Another, at the given place.
    Another,
}

/// A connection to a key-value store that many processes share. A call blocks the calls of other threads on the same
/// connection.
pub struct Store(*mut CStore);

// SAFETY: c10d's store may be used from any thread; it locks itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store(port {})", self.port())
    }
}

impl Store {
    /// Connects, trying for as long as `timeout`, which limits later calls as well. Keys begin with `prefix`.
    ///
    /// # Errors
    /// When the port is in use, or nobody answers in time.
    pub fn open(host: &str, port: u16, keeper: Keeper, timeout: Duration, prefix: &str) -> Result<Self> {
        let (host_text, prefix) = (c_string(host)?, c_string(prefix)?);
        let serve = c_int::from(keeper == Keeper::Us);
        // libtorch would listen on all interfaces.
        let listener = if keeper == Keeper::Us { loopback_listener(host, port)? } else { None };
        let port = match &listener {
            Some(listener) => listener.local_addr()?.port(),
            None => port,
        };
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        let mut out = std::ptr::null_mut();
        // SAFETY: the strings live for the length of the call.
        let status = unsafe {
            let (host, prefix) = (host_text.as_ptr(), prefix.as_ptr());
            senet_store_open(host, port, serve, listener, milliseconds(timeout), prefix, &mut out)
        };
        checked(status, &format!("the store at {host}:{port}"))?;
        Ok(Self(out))
    }

    /// The port where it is kept.
    pub fn port(&self) -> u16 {
        // SAFETY: the handle lives as long as `self`.
        unsafe { senet_store_port(self.0) }
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key_text = c_string(key)?;
        // SAFETY: handle, key and value live for the length of the call.
        let status = unsafe { senet_store_set(self.0, key_text.as_ptr(), value.as_ptr(), value.len()) };
        checked(status, &format!("cannot set {key}"))
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = c_string(key)?;
        let mut there = 0;
        // SAFETY: handle and key live for the length of the call.
        checked(unsafe { senet_store_has(self.0, key.as_ptr(), &mut there) }, "cannot ask for a key")?;
        Ok(there != 0)
    }

    /// The values of keys, all in one question. It waits for those that are not there yet.
    ///
    /// # Errors
    /// When the store does not answer, or a key does not come.
    pub fn get(&self, keys: &[String]) -> Result<Vec<Vec<u8>>> {
        let names = keys.iter().map(|key| c_string(key)).collect::<Result<Vec<_>>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: handle and strings live for the length of the call.
        checked(unsafe { senet_store_get(self.0, names.as_ptr(), names.len()) }, "cannot read keys")?;
        let copied = |index| {
            let mut length = 0;
            // SAFETY: the last call has read as many values as there are keys.
            let value = unsafe { senet_store_answer(index, &mut length) };
            if length == 0 {
                return Vec::new();
            }
            // SAFETY: `length` bytes that stay until this thread's next call, copied at once.
            unsafe { std::slice::from_raw_parts(value, length) }.to_vec()
        };
        Ok((0..keys.len()).map(copied).collect())
    }

    /// Adds to a number that starts at 0, and says what it is now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key_text = c_string(key)?;
        let mut sum = 0;
        // SAFETY: handle and key live for the length of the call.
        let status = unsafe { senet_store_add(self.0, key_text.as_ptr(), amount, &mut sum) };
        checked(status, &format!("cannot count {key}"))?;
        Ok(sum)
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn delete(&self, key: &str) -> Result<()> {
        let key_text = c_string(key)?;
        // SAFETY: handle and key live for the length of the call.
        checked(unsafe { senet_store_delete(self.0, key_text.as_ptr()) }, &format!("cannot delete {key}"))
    }

    /// Waits until all of `keys` are there, and says whether they came within `timeout`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn wait(&self, keys: &[String], timeout: Duration) -> Result<bool> {
        let names = keys.iter().map(|key| c_string(key)).collect::<Result<Vec<_>>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut there = 0;
        // SAFETY: handle and strings live for the length of the call.
        let status = unsafe {
            senet_store_wait(self.0, names.as_ptr(), names.len(), milliseconds(timeout), &mut there)
        };
        checked(status, "cannot wait for the others")?;
        Ok(there != 0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and freed once. What goes wrong at the end concerns nobody any more.
        let _ = unsafe { senet_store_free(self.0) };
    }
}

/// This process's place in a group, and what its operations need.
#[derive(Debug, Clone, Copy)]
pub struct Membership<'a> {
    /// Number of this process.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Address of this machine where gloo listens; empty for the interfaces that GLOO_SOCKET_IFNAME names, or the one
    /// that this machine's name stands for.
    pub address: &'a str,
    /// Index of the device whose tensors NCCL reduces; without one, tensors lie in main memory.
    pub cuda: Option<usize>,
    /// Time within which all have to join, and limit of each operation.
    pub timeout: Duration,
}

/// A group of processes that compute together. All of them have to call the same operations in the same order.
pub struct Group(*mut CGroup);

// SAFETY: nothing in it belongs to a thread. (It is not `Sync`: operations have to keep their order.)
unsafe impl Send for Group {}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Group")
    }
}

impl Group {
    /// Meets the others.
    ///
    /// # Errors
    /// When they do not come in time, or the machine refuses.
    pub fn join(store: &Store, membership: &Membership) -> Result<Self> {
        let number = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
        let Membership { rank, size, address, cuda, timeout } = *membership;
        let address = c_string(address)?;
        let cuda = cuda.map_or(-1, number);
        let mut out = std::ptr::null_mut();
        // SAFETY: store and address live for the length of the call; the group keeps its own reference to the store.
        let status = unsafe {
            let address = address.as_ptr();
            let timeout = milliseconds(timeout);
            senet_group_join(store.0, number(rank), number(size), address, cuda, timeout, &mut out)
        };
        checked(status, "cannot connect to the other processes")?;
        Ok(Self(out))
    }

    /// Gives all ranks rank 0's values, in place.
    ///
    /// # Errors
    /// When another rank is lost, or out of time.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        let list = pointers(tensors);
        // SAFETY: the tensors live for the length of the call, which ends when they are written.
        let status = unsafe { senet_group_broadcast(self.0, list.as_ptr(), list.len()) };
        checked(status, "cannot broadcast")
    }

    /// Replaces each tensor by the sum of all ranks', in place.
    ///
    /// # Errors
    /// When another rank is lost, or out of time.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.all_reduce(tensors, false)
    }

    /// Replaces each tensor by the mean of all ranks', in place. Floating-point kinds only.
    ///
    /// # Errors
    /// When another rank is lost, or out of time.
    pub fn all_reduce_mean(&self, tensors: &[Tensor]) -> Result<()> {
        self.all_reduce(tensors, true)
    }

    fn all_reduce(&self, tensors: &[Tensor], mean: bool) -> Result<()> {
        let list = pointers(tensors);
        // SAFETY: the tensors live for the length of the call, which ends when they are written.
        let status = unsafe { senet_group_all_reduce(self.0, list.as_ptr(), list.len(), c_int::from(mean)) };
        checked(status, "cannot reduce")
    }

    /// The other processes as an operator within a network sees them.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn peers(&self) -> Result<Peers> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the handle lives as long as `self`.
        checked(unsafe { senet_group_share(self.0, &mut out) }, "cannot share the group")?;
        Ok(Peers(out))
    }

    /// What another thread needs to give up this group's operations.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn aborter(&self) -> Result<Aborter> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the handle lives as long as `self`.
        checked(unsafe { senet_group_share(self.0, &mut out) }, "cannot share the group")?;
        Ok(Aborter(out))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and freed once. What goes wrong at the end concerns nobody any more.
        let _ = unsafe { (senet_group_shutdown(self.0), senet_group_free(self.0)) };
    }
}

/// The other processes of a group, for an operator within a network that computes with them.
pub struct Peers(*mut CGroup);

// SAFETY: nothing in it belongs to a thread. (It is not `Sync`: operations have to keep their order.)
unsafe impl Send for Peers {}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

impl Peers {
    /// For the other side.
    pub(super) fn as_ptr(&self) -> *const CGroup {
        self.0
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // SAFETY: this reference is ours, and freed once.
        let _ = unsafe { senet_group_free(self.0) };
    }
}

/// Gives up a group's operations, from another thread than theirs.
pub struct Aborter(*mut CGroup);

// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Aborter {}

impl fmt::Debug for Aborter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aborter")
    }
}

impl Aborter {
    /// Lets go whoever waits for an operation on CUDA; they fail. Operations in main memory end by their time limit.
    ///
    /// # Errors
    /// When NCCL refuses.
    pub fn abort(&self) -> Result<()> {
        // SAFETY: the handle lives as long as `self`; c10d's abort is made for other threads.
        checked(unsafe { senet_group_abort(self.0) }, "cannot give up")
    }
}

impl Drop for Aborter {
    fn drop(&mut self) {
        // SAFETY: this reference is ours, and freed once.
        let _ = unsafe { senet_group_free(self.0) };
    }
}

/// How gradients are reduced.
#[derive(Debug, Clone, Copy)]
pub struct ReducerOptions {
    /// Bytes of gradients that are reduced together.
    pub bucket_bytes: usize,
    /// Bytes of the first bucket that is full in a backward pass: a small one starts early.
    pub first_bucket_bytes: usize,
    /// Whether parameters may be without a gradient in some passes or on some ranks; it costs a walk over the graph in
    /// each pass.
    pub find_unused: bool,
    /// Whether the graph is the same in every pass, so that those without a gradient need to be found once. The first
    /// backward pass has to be one that is reduced.
    pub static_graph: bool,
}

impl Default for ReducerOptions {
    /// PyTorch's: 25 MiB, the first 1 MiB; every parameter has a gradient in every pass.
    fn default() -> Self {
        Self { bucket_bytes: 25 << 20, first_bucket_bytes: 1 << 20, find_unused: false, static_graph: false }
    }
}

/// Reduces the gradients of parameters to their mean over the ranks while the backward pass goes on.
pub struct Reducer(*mut CReducer);

// SAFETY: nothing in it belongs to a thread; c10d locks it against the threads of a backward pass.
unsafe impl Send for Reducer {}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reducer")
    }
}

impl Reducer {
    /// For parameters with these names, all of which ask for a gradient and are on one device. All ranks call it.
    ///
    /// # Errors
    /// When there are none, or their shapes are others than on rank 0.
    pub fn new(group: &Group, params: &[Tensor], names: &[String], options: ReducerOptions) -> Result<Self> {
        if params.is_empty() || params.len() != names.len() {
            let message = format!("{} parameters with {} names cannot be reduced", params.len(), names.len());
            return Err(failed(message).into());
        }
        let list = pointers(params);
        let names = names.iter().map(|name| c_string(name)).collect::<Result<Vec<_>>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut out = std::ptr::null_mut();
        // SAFETY: both arrays have `list.len()` entries that live for the length of the call; the reducer keeps its own
        // references to group and parameters.
        let status = unsafe {
            senet_reducer_new(
                group.0,
                list.as_ptr(),
                names.as_ptr(),
                list.len(),
                bytes(options.bucket_bytes),
                bytes(options.first_bucket_bytes),
                c_int::from(options.find_unused),
                c_int::from(options.static_graph),
                &mut out,
            )
        };
        checked(status, "cannot prepare the reduction of gradients")?;
        Ok(Self(out))
    }

    /// To be called before a forward pass whose gradients are to be reduced. Without it and
    /// [`prepare_backward`](Self::prepare_backward), a backward pass adds to this rank's gradients alone.
    ///
    /// # Errors
    /// When another rank is lost: after the first pass the ranks agree on buckets.
    pub fn prepare_forward(&mut self) -> Result<()> {
        // SAFETY: the handle lives as long as `self`.
        checked(unsafe { senet_reducer_prepare_forward(self.0) }, "cannot prepare a forward pass")
    }

    /// To be called between that forward pass and the backward pass from `loss`.
    ///
    /// # Errors
    /// When the pass before was not finished, as when a parameter had no gradient.
    pub fn prepare_backward(&mut self, loss: &Tensor) -> Result<()> {
        // SAFETY: handle and tensor live for the length of the call.
        let status = unsafe { senet_reducer_prepare_backward(self.0, loss.as_ptr()) };
        checked(status, "cannot prepare a backward pass")
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and freed once; it takes its hooks off the parameters.
        let _ = unsafe { senet_reducer_free(self.0) };
    }
}
