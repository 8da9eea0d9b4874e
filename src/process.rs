//! What a process has to know before libtorch computes: how its threads wait, and how many there are.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// Turns a thread spins for the others of its operation before it sleeps (read by GNU's OpenMP when it is loaded).
///
/// By default threads spin for milliseconds. That is the fastest on an idle machine by a little and the slowest on a
/// busy one by far: a thread that spins keeps the core from the very thread it waits for.
const SPIN: (&str, &str) = ("GOMP_SPINCOUNT", "1000");

/// What a user can say about it; said, it stays.
const SAID: [&str; 3] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"];

/// Starts this program anew, in the same process, with `SPIN` set, unless that is settled already. For commands that
/// compute; it costs the loading of libtorch (0.3 s). Where it fails, things are as they were.
pub fn settle_waiting() {
    if SAID.iter().any(|name| env::var_os(name).is_some()) {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let mut arguments = env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Returns only when it fails.
        let _ = command.args(arguments).env(SPIN.0, SPIN.1).exec();
    }
}

/// Has libtorch use no more threads than this process may keep busy. libtorch counts the cores that it may run on; a
/// container that may use two of a hundred by its quota (cgroup) would have a hundred threads waiting for each other.
/// `OMP_NUM_THREADS` stays as it is said.
pub fn settle_threads() {
    let allowed = allowed_cores() as i32;
    if env::var_os("OMP_NUM_THREADS").is_none() && tch::get_num_threads() > allowed {
        tch::set_num_threads(allowed);
    }
}

/// How many cores this process may keep busy, by its affinity and by its quota.
pub fn allowed_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The cores that this process may run on, by number.
pub fn cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        return (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
    }
    // A machine with more cores than a set holds, or a system without sets.
    (0..allowed_cores()).collect()
}
