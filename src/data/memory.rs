//! How much memory decoding may take: of all threads together, and of one image.

use crate::process;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};

/// Where no limit can be found out.
const UNKNOWN: u64 = 8 << 30;

/// Memory that threads reserve before they decode, and wait for where others have it.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of a [`Budget`], returned when it is dropped.
#[derive(Debug)]
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// Of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// That of this process: a quarter of the memory that it may use. The rest is the network's, and the cache's of what
    /// is read.
    pub fn of_process() -> &'static Self {
        static BUDGET: LazyLock<Budget> =
            LazyLock::new(|| Budget::new(process::memory().unwrap_or(UNKNOWN) / 4));
        &BUDGET
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes `bytes` as soon as they are there; nothing where they never will be. A thread must not ask twice.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation<'_>> {
        if bytes > self.total {
            return None;
        }
        let mut free = self.lock();
        while *free < bytes {
            free = self.freed.wait(free).expect("no thread panics while it holds the lock");
        }
        *free -= bytes;
        Some(Reservation { budget: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.free.lock().expect("no thread panics while it holds the lock")
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.budget.lock() += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn threads_together_never_have_more_than_there_is() {
        let budget = Budget::new(100);
        let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (budget, taken, most) = (&budget, &taken, &most);
                scope.spawn(move || {
                    for round in 0..50 {
                        let bytes = 1 + (thread * 31 + round * 17) % 100;
                        let reservation = budget.reserve(bytes).unwrap();
                        most.fetch_max(taken.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        taken.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                    }
                });
            }
        });
        assert!((50..=100).contains(&most.into_inner()));
        assert!(budget.reserve(101).is_none() && budget.reserve(100).is_some());
    }
}
