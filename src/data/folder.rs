//! Class folders, as ImageNet is kept: `train/CLASS/*` and `val/CLASS/*` (or `test/`).

use super::{Dataset, Image, Split, decode};
use crate::error::{Result, failed};
use crate::files;
use anyhow::Context;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Images in class folders; only the paths are in memory.
pub struct FolderDataset {
    files: Vec<(PathBuf, usize)>,
    classes: Vec<String>,
}

impl FolderDataset {
    /// Lists one half of the data. The classes are the folders of `train/`, sorted by name; where there is no
    /// `train/`, those of the half itself.
    ///
    /// # Errors
    /// When a folder is missing or empty, or the halves have different classes.
    pub fn open(dir: &Path, split: Split) -> Result<Self> {
        let names: &[&str] = match split {
            Split::Train => &["train"],
            Split::Eval => &["val", "test"],
        };
        let half = names.iter().map(|name| dir.join(name)).find(|path| path.is_dir()).ok_or_else(|| {
            failed(format!("{}: no folder `{}/`", dir.display(), names.join("/` or `")))
                .hint("class folders are expected as `train/CLASS/*` and `val/CLASS/*`")
        })?;
        let own = class_folders(&half)?;
        let train = dir.join("train");
        let classes =
            if train.is_dir() && split == Split::Eval { class_folders(&train)? } else { own.clone() };
        let mut files = Vec::new();
        for name in &own {
            let Ok(label) = classes.binary_search(name) else {
                let message =
                    format!("{} has a class `{name}` that {} lacks", half.display(), train.display());
                return Err(failed(message).hint("both halves need the same class folders").into());
            };
            let folder = half.join(name);
            let images = regular_files(&folder)?;
            if images.is_empty() {
                let message = format!("the class folder {} holds no files", folder.display());
                return Err(failed(message).hint("remove the folder, or put its images there").into());
            }
            files.extend(images.into_iter().map(|path| (path, label)));
        }
        Ok(Self { files, classes })
    }

    /// The file of sample `index`.
    pub fn path(&self, index: usize) -> &Path {
        &self.files[index].0
    }
}

/// Names of the folders in `dir`, sorted.
fn class_folders(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in list(dir)? {
        if entry.is_dir() {
            let name = entry.file_name().expect("an entry has a name");
            names.push(name.to_str().with_context(|| format!("{}: not UTF-8", entry.display()))?.to_string());
        }
    }
    if names.is_empty() {
        let message = format!("{} holds no class folders", dir.display());
        return Err(failed(message).hint("one folder a class is expected, with its images inside").into());
    }
    Ok(names)
}

fn regular_files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(list(dir)?.into_iter().filter(|path| path.is_file()).collect())
}

/// Entries of `dir`, sorted, without hidden ones.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot list the folder {}", dir.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

impl Dataset for FolderDataset {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn channels(&self) -> usize {
        3
    }

    fn natural_size(&self) -> Option<(usize, usize)> {
        None
    }

    fn label(&self, index: usize) -> usize {
        self.files[index].1
    }

    fn image(&self, index: usize) -> Result<Image> {
        let bytes = files::read(self.path(index))?;
        decode::decode(&bytes).map_err(|error| self.undecodable(index, &error))
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        let path = self.path(index);
        bytes.clear();
        let mut read = || File::open(path)?.read_to_end(bytes);
        read().with_context(|| format!("cannot read {}", path.display()))?;
        Ok(true)
    }

    fn undecodable(&self, index: usize, error: &anyhow::Error) -> anyhow::Error {
        let path = self.path(index);
        failed(format!("cannot decode {}: {error:#}", path.display()))
            .hint("remove or replace the file")
            .into()
    }
}
