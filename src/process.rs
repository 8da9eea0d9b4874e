//! What a process has to know before libtorch computes: how its threads wait and how many there are, and the limits that
//! the system sets it.

use crate::error::{Problem, failed};
use rustix::process::{Resource, getrlimit};
use signal_hook::consts::SIGXFSZ;
use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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

/// Has a write beyond the largest size of a file (`ulimit -f`) fail like any other, instead of ending the process without a
/// word.
pub fn survive_file_size_limit() {
    // Handled, the signal does nothing, and the write says "file too large".
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Says that the system gives this process no more threads.
pub fn thread_refused(error: &io::Error) -> Problem {
    failed(format!("cannot start a thread: {error}"))
        .hint("`ulimit -u`, or the limit of processes of the container, is too low; or lower `data.threads`")
}

/// Bytes of memory that this process may use: the least of what the machine has, of the limits of its control groups, and of
/// `ulimit -v` and `-d`. Nothing where none of them is known.
pub fn memory() -> Option<u64> {
    let limits = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    limits.into_iter().flatten().chain(machine_memory()).chain(cgroup_memory()).min()
}

fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

/// The limits of this process's control group and of those above it; version 2's, else version 1's.
fn cgroup_memory() -> Vec<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit_of = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut limits = Vec::new();
    for line in groups.lines() {
        let (root, name, group) = match *line.splitn(3, ':').collect::<Vec<_>>() {
            ["0", "", group] => ("/sys/fs/cgroup", "memory.max", group),
            [_, "memory", group] => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", group),
            _ => continue,
        };
        let groups = Path::new(group).ancestors().map(|group| group.display().to_string());
        limits.extend(
            groups.filter_map(|group| limit_of(format!("{root}{}/{name}", group.trim_end_matches('/')))),
        );
    }
    limits
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_may_use_some_memory_and_no_more_than_the_machine_has() {
        let [allowed, machine] = [super::memory(), super::machine_memory()].map(Option::unwrap);
        assert!((1 << 20..=machine).contains(&allowed), "{allowed} of {machine}");
    }
}
