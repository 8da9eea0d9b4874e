//! The image files below a folder, by the rules of every data set: links are followed, each folder once, so a loop ends;
//! hidden files and folders, and what tools leave, are no part of it; other files are counted.

use super::images::has_image_extension;
use super::split::is_hidden;
use crate::error::Result;
use anyhow::Context;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One folder of a walk.
pub struct Folder {
    /// Its path below the root.
    pub path: Vec<u8>,
    /// As it was before it was listed: what is added meanwhile shows the next time.
    pub metadata: Metadata,
    /// Names of its images, sorted.
    pub images: Vec<OsString>,
    /// Other files, and links that lead nowhere.
    pub skipped: u32,
}

/// Walks over the folder `start` in `root` and those below it; `each` is handed one after the other, and says whether
/// to go on.
///
/// # Errors
/// When a folder cannot be listed.
pub fn walk(root: &Path, start: &OsStr, each: &mut dyn FnMut(Folder) -> bool) -> Result<()> {
    let mut waiting = vec![start.as_bytes().to_vec()];
    let mut seen = HashSet::new();
    while let Some(path) = waiting.pop() {
        let place = root.join(OsStr::from_bytes(&path));
        let unreadable = || format!("cannot list the folder {}", place.display());
        let metadata = fs::metadata(&place).with_context(unreadable)?;
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let mut folder = Folder { path, metadata, images: Vec::new(), skipped: 0 };
        for entry in fs::read_dir(&place).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let mut kind = entry.file_type().with_context(unreadable)?;
            if kind.is_symlink() {
                // A dangling link is no file.
                let Ok(target) = fs::metadata(entry.path()) else {
                    folder.skipped += 1;
                    continue;
                };
                kind = target.file_type();
            }
            if kind.is_dir() {
                let parts: &[&[u8]] = match folder.path.as_slice() {
                    b"" => &[name.as_bytes()],
                    above => &[above, name.as_bytes()],
                };
                waiting.push(parts.join(&b'/'));
            } else if kind.is_file() && has_image_extension(name.as_bytes()) {
                folder.images.push(name);
            } else {
                folder.skipped += 1;
            }
        }
        folder.images.sort_unstable();
        // Which of two links to one folder is followed must not depend on the order of the disk.
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        if !each(folder) {
            break;
        }
    }
    Ok(())
}

/// Whether there is an image below the folder `start` in `root`.
///
/// # Errors
/// When a folder cannot be listed.
pub fn has_images(root: &Path, start: &OsStr) -> Result<bool> {
    // Nearly always the first file is one; a folder of a million is then not listed whole.
    let is_image = |entry: fs::DirEntry| {
        let name = entry.file_name();
        !is_hidden(&name)
            && has_image_extension(name.as_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    if fs::read_dir(root.join(start)).into_iter().flatten().flatten().any(is_image) {
        return Ok(true);
    }
    let mut found = false;
    walk(root, start, &mut |folder| {
        found |= !folder.images.is_empty();
        !found
    })?;
    Ok(found)
}
