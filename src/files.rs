//! Files are written whole or not at all.

use crate::error::Result;
use anyhow::Context;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path` so that a reader, or a crash at any moment, sees the old file or the new one.
///
/// # Errors
/// When the folder is missing, not writable or full; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write(|out| out.write_all(bytes))?;
    file.finish()
}

/// A file that is written piece by piece and takes its place when it is whole. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    is_placed: bool,
}

impl NewFile {
    /// Begins it, beside its place.
    ///
    /// # Errors
    /// When the place is a folder, or lies in none that can be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().context("a path without a file name")?.to_string_lossy().into_owned();
        let partial = path.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        let unwritable = || format!("cannot write {}", path.display());
        if path.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory)).with_context(unwritable);
        }
        let out = BufWriter::new(File::create(&partial).with_context(unwritable)?);
        Ok(Self { path: path.to_path_buf(), partial, out, is_placed: false })
    }

    /// Appends what `put` writes.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&mut self, put: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        put(&mut self.out).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Puts it into its place.
    ///
    /// # Errors
    /// When the disk is full; what was in its place is then untouched.
    pub fn finish(mut self) -> Result<()> {
        self.out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Reads a file, naming it in the error.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a text file, naming it in the error.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes a folder and its parents, naming it in the error.
///
/// # Errors
/// When it cannot be made.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create the folder {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_given_up_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        write_atomic(&path, b"old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write(|out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        drop(file);
        assert_eq!(
            (fs::read(&path).unwrap().as_slice(), fs::read_dir(dir.path()).unwrap().count()),
            (b"old".as_slice(), 1)
        );
        assert!(NewFile::create(dir.path()).is_err());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_atomic(Path::new("/nonexistent/a.json"), b"").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.json"));
    }
}
