//! Files that stay open between reads, a limited number of them.

use crate::error::Result;
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// A few open files, the latest used.
pub(super) struct Handles {
    open: Mutex<Open>,
    most: usize,
}

#[derive(Default)]
struct Open {
    /// By unit; with the time of its last use.
    files: HashMap<usize, (Arc<File>, u64)>,
    /// Uses so far.
    clock: u64,
}

impl Handles {
    pub(super) fn new(most: usize) -> Self {
        Self { open: Mutex::default(), most }
    }

    /// The file of a unit; one that is closed meanwhile stays open for who reads it.
    pub(super) fn get(&self, unit: usize, open: impl FnOnce() -> Result<File>) -> Result<Arc<File>> {
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Open { files, clock } = &mut *open;
            *clock += 1;
            if let Some((file, used)) = files.get_mut(&unit) {
                *used = *clock;
                return Ok(Arc::clone(file));
            }
        }
        // Without the lock: the disk may be far.
        let file = Arc::new(open()?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { files, clock } = &mut *open;
        if files.len() >= self.most
            && let Some(oldest) = files.iter().min_by_key(|(_, (_, used))| *used).map(|(unit, _)| *unit)
        {
            files.remove(&oldest);
        }
        files.insert(unit, (Arc::clone(&file), *clock));
        Ok(file)
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).files.len()
    }
}
