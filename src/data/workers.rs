//! A few threads for work that waits for disks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// `work(0)`, …, `work(count - 1)`, by `threads` threads, in this order.
pub fn map<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count <= 1 || threads <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut own = Vec::new();
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return own;
            }
            own.push((item, work(item)));
        }
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, run).ok();
        let threads: Vec<_> = (0..threads.min(count)).map_while(start).collect();
        if threads.is_empty() {
            // The system allows no more of them: this one does the work.
            return run();
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, T)>>| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect()
    });
    all.sort_unstable_by_key(|(item, _)| *item);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Threads for reading folders and headers: disks answer several questions at once.
pub fn for_listing() -> usize {
    (2 * for_computing()).clamp(2, 16)
}

/// Threads for decoding: one for each core.
pub fn for_computing() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_order() {
        for (count, threads) in [(0, 4), (1, 4), (1000, 1), (1000, 7)] {
            let squares = super::map(count, threads, |item| item * item);
            assert_eq!(squares, (0..count).map(|item| item * item).collect::<Vec<_>>());
        }
    }
}
