//! One process at a time trains a run: a lock on a file in its folder, for as long as the process lives.
//!
//! It is the kernel's lock on an open file (`flock`), which goes with the process however that ends, and knows nothing of
//! process ids, which are equal in containers. On NFS, Linux turns it into a lock of the server's, which holds between
//! machines; a mount with `nolock` keeps it within one. Where a file system knows no locks at all, nothing is locked and
//! that is said. Readers (`eval`, `predict`, `report`) take no lock.

use super::timestamp;
use crate::error::{Result, failed};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Name of the file in a run's folder.
pub(super) const LOCK: &str = ".lock";

/// Time in which a process that has just ended may still be seen to hold the lock: the ranks of a killed launcher end
/// a moment after it.
const GRACE: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The right to train a run, for as long as it lives.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    /// What the user should know: that nothing is locked.
    pub warning: Option<String>,
}

/// Who holds a lock, as far as the file says it.
#[derive(Serialize, Deserialize)]
struct Holder {
    host: String,
    pid: u32,
    since: String,
}

impl RunLock {
    /// Locks the run in `folder`, which errors call `run`.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be written.
    pub(super) fn take(folder: &Path, run: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < GRACE => thread::sleep(RETRY_EVERY),
                Err(TryLockError::WouldBlock) => return Err(in_use(run, &mut file).into()),
                Err(TryLockError::Error(error)) => {
                    let warning = format!(
                        "cannot lock {}: {error}; make sure that no other process trains this run",
                        path.display()
                    );
                    return Ok(Self { file, warning: Some(warning) });
                }
            }
        }
        let holder = Holder { host: host(), pid: std::process::id(), since: timestamp() };
        let note = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(serde_json::to_string(&holder)?.as_bytes())
        };
        // Who holds it is for messages alone; a full disk is met, and told, by what comes next.
        let _ = note(&mut file);
        Ok(Self { file, warning: None })
    }
}

impl Drop for RunLock {
    /// Nobody holds it from here on; closing the file releases it.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

fn in_use(run: &Path, file: &mut File) -> crate::error::Problem {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let holder = read.ok().and_then(|_| serde_json::from_str(&text).ok());
    let by = match holder {
        Some(Holder { host, pid, since }) => format!("process {pid} on {host}, since {since}"),
        None => "another process".to_string(),
    };
    failed(format!("{} is being trained by {by}", run.display()))
        .hint("wait for it or stop it; `senet eval`, `predict` and `report` work meanwhile")
}

/// Name of this machine, or of this container.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path(), Path::new("runs/first")).unwrap();
        let error = RunLock::take(dir.path(), Path::new("runs/first")).unwrap_err().to_string();
        let pid = format!("process {} on {}, since 20", std::process::id(), host());
        assert!(error.starts_with("runs/first is being trained by") && error.contains(&pid), "{error}");
        drop(first);
        RunLock::take(dir.path(), Path::new("runs/first")).unwrap();
    }
}
