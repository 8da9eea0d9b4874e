//! Files and folders are written whole or not at all.

use crate::error::{Result, failed};
use anyhow::Context;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Writes `bytes` to `path` so that a reader, or a crash at any moment, sees the old file or the new one.
///
/// # Errors
/// As [`NewFile`]'s; the old file is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write(|out| out.write_all(bytes))?;
    file.finish()
}

/// A file that is written piece by piece and replaces the one at its path when it is complete. Dropped before, it leaves
/// nothing behind.
///
/// A symbolic link at the path is followed, and a file that is replaced passes on its owner and permissions. A device or
/// a pipe (`/dev/null`, `/dev/stdout`) is written to, not replaced.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    out: BufWriter<File>,
    /// Where it is written and where it is moved to; nothing for a device or a pipe.
    partial: Option<(TempPath, PathBuf)>,
}

impl NewFile {
    /// Starts it, beside the file that it replaces.
    ///
    /// # Errors
    /// When the path is a folder or a read-only file, or lies in a folder that is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || {
            let destination = followed(path)?;
            let old = fs::metadata(&destination).ok();
            match &old {
                Some(old) if old.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
                Some(old) if !old.is_file() => {
                    return Ok((File::options().write(true).open(&destination)?, None));
                }
                Some(old) if old.permissions().readonly() => {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only"));
                }
                _ => {}
            }
            let (file, partial) = tempfile::Builder::new()
                .prefix(&partial_prefix(&destination)?)
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(folder_of(&destination))?
                .into_parts();
            if let Some(old) = &old {
                pass_on(old, &file)?;
            }
            Ok((file, Some((partial, destination))))
        };
        let (file, partial) = open().map_err(|error| unwritable(path, error))?;
        Ok(Self { path: path.to_path_buf(), out: BufWriter::new(file), partial })
    }

    /// Appends what `put` writes.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&mut self, put: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        put(&mut self.out).map_err(|error| unwritable(&self.path, error))
    }

    /// Moves it to its path.
    ///
    /// # Errors
    /// When the disk is full; what was at its path is then untouched.
    pub fn finish(mut self) -> Result<()> {
        let partial = self.partial.take();
        let finish = || {
            self.out.flush()?;
            let Some((partial, destination)) = partial else { return Ok(()) };
            self.out.get_ref().sync_all()?;
            partial.persist(destination).map_err(|error| error.error)
        };
        finish().map_err(|error| unwritable(&self.path, error))
    }
}

/// Refuses to replace a file that is not of the kind to be written, which all begin with `start`. A missing or empty file is
/// none, and devices and pipes lose nothing; what else is wrong with the path is reported by whoever writes.
///
/// # Errors
/// When the file is another, or cannot be read.
pub fn check_replaceable(path: &Path, start: &str) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        File::open(path)?.take(start.len() as u64).read_to_end(&mut found)?;
        Ok(found)
    };
    let found = read().with_context(|| format!("cannot read {}", path.display()))?;
    if found.is_empty() || found == start.as_bytes() {
        return Ok(());
    }
    let message = format!("{} exists already, and is not a file of this kind", path.display());
    Err(failed(message).hint("name another file, or overwrite it with `--force`").into())
}

/// Makes a folder that appears with what `fill` has put into it; where that fails, nothing is left of it.
///
/// # Errors
/// Those of `fill`; when the folder above is missing, or `path` is taken.
pub fn create_dir_filled(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    fs::create_dir_all(folder_of(path))?;
    let partial = tempfile::Builder::new()
        .prefix(&partial_prefix(path)?)
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(folder_of(path))?;
    fill(partial.path())?;
    fs::rename(partial.path(), path)?;
    // It has moved: there is nothing to remove.
    let _ = partial.keep();
    Ok(())
}

/// The start of the temporary names of what is to become `path`. The rest is random: in containers, processes that share
/// a folder have equal ids.
fn partial_prefix(path: &Path) -> io::Result<OsString> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".partial-");
    Ok(prefix)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a chain of symbolic links points to, there or not; any other path as it is.
fn followed(path: &Path) -> io::Result<PathBuf> {
    /// As many as the kernel follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Ok(path);
        }
        // The kernel alone can follow those of /proc, such as /dev/stdout.
        match fs::metadata(&path) {
            Ok(found) if !found.is_file() => return Ok(path),
            _ => path = folder_of(&path).join(fs::read_link(&path)?),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Gives a file the owner, as far as this process may, and the permissions of the one that it replaces.
fn pass_on(old: &Metadata, file: &File) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    file.set_permissions(old.permissions())
}

/// Says which file could not be written.
pub fn unwritable(path: &Path, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::FileTooLarge => Some("`ulimit -f` limits the size of this process's files"),
        io::ErrorKind::StorageFull => Some("the disk is full"),
        io::ErrorKind::QuotaExceeded => Some("your quota of this disk is used up"),
        _ => None,
    };
    let problem = failed(format!("cannot write {}: {error}", path.display()));
    match hint {
        Some(hint) => problem.hint(hint).into(),
        None => problem.into(),
    }
}

/// Reads a file, naming it in the error.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a text file, naming it in the error. A byte order mark, as editors on Windows write it, is no part of the text.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let encoding = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        _ => "another encoding",
    };
    match std::str::from_utf8(without_mark(&bytes)) {
        Ok(text) => Ok(text.to_string()),
        Err(_) => {
            Err(failed(format!("cannot read {}: it is text in {encoding}, not in UTF-8", path.display()))
                .hint("save it as UTF-8; PowerShell's `Out-File -Encoding utf8` does")
                .into())
        }
    }
}

/// Text or JSON of people's without the byte order mark that it may begin with.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The value in JSON of people's, with or without a byte order mark.
///
/// # Errors
/// When it is not JSON, or of another shape.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(without_mark(bytes))
}

/// The right to write into a folder alone, for as long as it lives.
#[derive(Debug)]
pub struct FolderLock {
    /// Closing it gives the lock back.
    _file: File,
    path: PathBuf,
}

impl FolderLock {
    /// Locks the file `name` in a folder; `None` where another process has it.
    ///
    /// # Errors
    /// When the folder cannot be written, or its file system has no locks.
    pub fn take(folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = folder.join(name);
        let cannot = |error: io::Error| unwritable(&path, error);
        loop {
            let file = File::options().create(true).append(true).open(&path).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            // The one before may have removed it between the two.
            let locked = file.metadata().map_err(cannot)?;
            if fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()))
            {
                return Ok(Some(Self { _file: file, path }));
            }
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is still held.
        let _ = fs::remove_file(&self.path);
    }
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
    fn a_byte_order_mark_is_no_part_of_a_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        assert_eq!(read_text(&path).unwrap(), "{\"a\": 1}");
        assert_eq!(parse_json::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap()["a"], 1);
        fs::write(&path, b"\xff\xfe{\0}\0").unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(error.contains("a.json: it is text in UTF-16, not in UTF-8"), "{error}");
    }

    #[test]
    fn a_folder_is_locked_by_one_and_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path(), ".lock").unwrap().unwrap();
        assert!(FolderLock::take(dir.path(), ".lock").unwrap().is_none());
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(FolderLock::take(dir.path(), ".lock").unwrap().is_some());
    }

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
    fn writers_with_equal_process_ids_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut files = [0, 1].map(|_| NewFile::create(&path).unwrap());
        for (file, text) in files.iter_mut().zip([b"one", b"two"]) {
            file.write(|out| out.write_all(text)).unwrap();
        }
        for (file, text) in files.into_iter().zip(["one", "two"]) {
            file.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_permissions_stay_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let [target, link, dangling] = ["target", "link", "dangling"].map(|name| dir.path().join(name));
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        std::os::unix::fs::symlink("new", &dangling).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert_eq!(
            (fs::read(&target).unwrap(), fs::read_link(&link).unwrap()),
            (b"new".to_vec(), "target".into())
        );
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
        write_atomic(&dangling, b"there").unwrap();
        assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"there");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        let looped = dir.path().join("loop");
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        assert!(write_atomic(&looped, b"").unwrap_err().to_string().contains("loop"));
    }

    #[test]
    fn a_new_file_has_the_permissions_of_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| dir.path().join(name));
        write_atomic(&ours, b"").unwrap();
        fs::write(&plain, "").unwrap();
        let mode = |path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(&ours), mode(&plain));
        create_dir_filled(&dir.path().join("folder"), |_| Ok(())).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        assert_eq!(mode(&dir.path().join("folder")), mode(&dir.path().join("other")));
    }

    #[test]
    fn a_read_only_file_is_kept_and_a_device_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let message = write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(message.contains("read-only"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let null = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write_atomic(&null, b"nowhere").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn files_of_another_kind_are_not_replaceable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        let check = || check_replaceable(&path, "class,seen");
        check().unwrap();
        for (contents, is_replaceable) in
            [("", true), ("class,seen\na,1\n", true), ("class,", false), ("{}", false)]
        {
            fs::write(&path, contents).unwrap();
            assert_eq!(check().is_ok(), is_replaceable, "{contents:?}");
        }
        assert!(check().unwrap_err().to_string().contains("table.csv exists already"));
        check_replaceable(Path::new("/dev/null"), "class").unwrap();
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing() {
        // Every write to it fails as on a full disk.
        let error = write_atomic(Path::new("/dev/full"), b"new").unwrap_err();
        assert!(error.to_string().starts_with("cannot write /dev/full: "), "{error}");
        assert_eq!(crate::error::problem(&error).unwrap().hint.as_deref(), Some("the disk is full"));
    }

    #[test]
    fn a_folder_appears_filled_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let half = create_dir_filled(&path, |path| {
            fs::write(path.join("config.json"), "{}")?;
            Err(failed("the disk is full").into())
        });
        assert_eq!(half.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let fill = |path: &Path| Ok(fs::write(path.join("config.json"), "{}")?);
        create_dir_filled(&path, fill).unwrap();
        assert_eq!(fs::read(path.join("config.json")).unwrap(), b"{}");
        assert!(create_dir_filled(&path, fill).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_atomic(Path::new("/nonexistent/a.json"), b"").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.json"));
    }
}
