//! The folder of a comparison.
//!
//! ```text
//! LAB/sweep.json          what is compared            LAB/rows/KEY/seed-N/         a run of a row (see RunDir)
//! LAB/speed.json          rows timed in turns, if asked for
//! LAB/results.json .md    the tables, written anew    LAB/rows/KEY/seed-N.lock     held by the process that trains it
//!            .csv .html   after every run             LAB/rows/KEY/seed-N.failed   why it failed
//! ```

use super::dir::write_json;
use super::sealed;
use crate::error::{Result, failed};
use crate::files;
use crate::report::comparison::Results;
use crate::report::page::comparison::page;
use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const NOTEBOOK: &str = "sweep.json";
const ROWS: &str = "rows";
const SPEED: &str = "speed.json";

/// An existing folder of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct LabDir {
    path: PathBuf,
}

/// The right to train a run, for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl LabDir {
    /// Makes the folder, or takes one that is there.
    ///
    /// # Errors
    /// When it cannot be made or holds something else.
    pub fn create(path: &Path) -> Result<Self> {
        let lab = Self { path: path.to_path_buf() };
        // Another process may have begun a moment ago, and not written its notebook yet.
        let ours = |name: &str| {
            name.starts_with(['.']) || name.starts_with("results.") || [ROWS, NOTEBOOK, SPEED].contains(&name)
        };
        let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
        if path.is_file() || entries.any(|entry| !ours(&entry.file_name().to_string_lossy())) {
            let message = format!("{} exists already and is not the folder of a comparison", path.display());
            return Err(crate::error::usage(message)
                .hint("choose another `--out`; nothing is overwritten")
                .into());
        }
        files::create_dir(&path.join(ROWS)).map_err(|error| {
            failed(format!("{error:#}")).hint("`--out` must name a folder that can be made and written")
        })?;
        Ok(lab)
    }

    /// Opens the folder of an earlier comparison.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let lab = Self { path: path.to_path_buf() };
        if lab.has_notebook() {
            return Ok(lab);
        }
        let message = format!("{} is not the folder of a comparison: no {NOTEBOOK} in it", path.display());
        Err(failed(message).hint("`senet ablate` makes one below runs/").into())
    }

    /// Whether anything was compared here.
    pub fn has_notebook(&self) -> bool {
        self.path.join(NOTEBOOK).is_file()
    }

    /// Whether it has runs, as any comparison has that was begun; a sweep file's own folder has none.
    pub fn has_rows(&self) -> bool {
        self.path.join(ROWS).is_dir()
    }

    /// Waits until no other process reads, changes and writes what is compared, or makes the tables.
    ///
    /// # Errors
    /// When the folder cannot be written, or its file system knows no locks.
    pub fn lock_notebook(&self) -> Result<Lock> {
        let path = self.path.join(".sweep.lock");
        let open = || File::options().create(true).append(true).open(&path);
        let file = open().with_context(|| format!("cannot write {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Lock(file))
    }

    /// What was compared.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn notebook<T: DeserializeOwned>(&self) -> Result<T> {
        let path = self.path.join(NOTEBOOK);
        sealed::read(&path)
    }

    /// Saves what is compared.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_notebook(&self, notebook: &impl Serialize) -> Result<()> {
        sealed::write(&self.path.join(NOTEBOOK), notebook)
    }

    /// Folder of a run.
    pub fn run(&self, key: &str, seed: u64) -> PathBuf {
        self.path.join(ROWS).join(key).join(format!("seed-{seed}"))
    }

    /// Takes the run, unless another process has it.
    ///
    /// # Errors
    /// When the folder cannot be written, or its file system knows no locks.
    pub fn lock(&self, key: &str, seed: u64) -> Result<Option<Lock>> {
        let path = self.run(key, seed).with_extension("lock");
        files::create_dir(path.parent().expect("a run lies in a folder"))?;
        let open = || File::options().create(true).append(true).open(&path);
        let file = open().with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Notes why a run failed.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn note_failure(&self, key: &str, seed: u64, message: &str) -> Result<()> {
        files::write_atomic(&self.failed(key, seed), message.as_bytes())
    }

    /// Why a run failed, if it did, at any time or after `since`.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn failure(&self, key: &str, seed: u64, since: Option<SystemTime>) -> Result<Option<String>> {
        let path = self.failed(key, seed);
        let noted = fs::metadata(&path).and_then(|note| note.modified());
        let counts = noted.is_ok_and(|noted| since.is_none_or(|since| noted >= since));
        if counts { files::read_text(&path).map(Some) } else { Ok(None) }
    }

    /// Forgets that a run failed: it is tried again.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn clear_failure(&self, key: &str, seed: u64) -> Result<()> {
        let path = self.failed(key, seed);
        if !path.exists() {
            return Ok(());
        }
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// What rows were timed at, by their keys; nothing where none was.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn speeds<T: DeserializeOwned + Default>(&self) -> Result<T> {
        let path = self.path.join(SPEED);
        if !path.is_file() {
            return Ok(T::default());
        }
        serde_json::from_slice(&files::read(&path)?).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Saves what rows were timed at.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_speeds(&self, speeds: &impl Serialize) -> Result<()> {
        write_json(&self.path.join(SPEED), speeds)
    }

    /// Writes the tables, in every form.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, results: &Results) -> Result<()> {
        let write = |name: &str, text: &str| files::write_atomic(&self.path.join(name), text.as_bytes());
        write_json(&self.path.join("results.json"), results)?;
        write("results.md", &results.markdown())?;
        write("results.csv", &results.csv())?;
        write("results.html", &page(results))
    }

    fn failed(&self, key: &str, seed: u64) -> PathBuf {
        self.run(key, seed).with_extension("failed")
    }
}
