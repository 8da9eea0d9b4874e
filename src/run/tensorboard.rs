//! A run's files for TensorBoard: `RUN/tensorboard/events.out.tfevents.SECONDS.HOST.senet`, one for each start of the run.
//! TensorBoard reads those of a folder one after the other, in the order of their names.

use super::RunDir;
use crate::error::Result;
use crate::files;
use crate::report::event::Event;
use crate::report::tensorboard::{goes_on_after, scalars, version};
use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a run writes for others, beside its own history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpec {
    /// Files of events for TensorBoard, in the run's folder.
    pub tensorboard: bool,
}

/// A file of events that grows. Each event is in the file when its call returns.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Makes the next file of a run.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(run: &RunDir) -> Result<Self> {
        let dir = run.path().join(FOLDER);
        files::create_dir(&dir)?;
        // Later by name than the others, however short ago they were made and however the clock was set.
        let seconds = (now() as u64).max(newest(&dir).map_or(0, |newest| newest.saturating_add(1)));
        let path = dir.join(format!("{PREFIX}{seconds}.{}.senet", host()));
        let file = File::create_new(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = Self { path, file };
        events.append(&version(now()))?;
        Ok(events)
    }

    /// Notes that the run goes on after `step`: what is told of later steps, here or in an earlier file, counts no more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn goes_on_after(&mut self, step: u64) -> Result<()> {
        self.append(&goes_on_after(step, now()))
    }

    /// Notes the numbers of an event.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&mut self, event: &Event) -> Result<()> {
        scalars(event, now()).map_or(Ok(()), |record| self.append(&record))
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.file.write_all(record).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

const FOLDER: &str = "tensorboard";
const PREFIX: &str = "events.out.tfevents.";

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The highest number of seconds in the names of the files.
fn newest(dir: &Path) -> Option<u64> {
    let seconds = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| seconds(&entry.file_name().to_string_lossy())).max()
}

/// Name of this machine, as far as it suits a file's name.
fn host() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if plain.is_empty() { "localhost".to_string() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Experiment;

    #[test]
    fn each_start_has_a_file_that_is_read_after_those_before() {
        let dir = tempfile::tempdir().unwrap();
        let (run, _lock) = RunDir::create(&dir.path().join("run"), &Experiment::default()).unwrap();
        let folder = run.path().join(FOLDER);
        let ahead = format!("{PREFIX}9999999998.host.senet");
        files::create_dir(&folder).unwrap();
        fs::write(folder.join(&ahead), "").unwrap();
        fs::write(folder.join("notes"), "").unwrap();
        for seconds in [9_999_999_999_u64, 10_000_000_000] {
            let mut events = EventFile::create(&run).unwrap();
            let name = events.path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(&format!("{PREFIX}{seconds}.")) && name.ends_with(".senet"), "{name}");
            let before = fs::read(&events.path).unwrap();
            events.goes_on_after(7).unwrap();
            events.note(&Event::Warning { message: String::new() }).unwrap();
            let after = fs::read(&events.path).unwrap();
            assert!(after.starts_with(&before) && after.len() > before.len());
        }
    }
}
