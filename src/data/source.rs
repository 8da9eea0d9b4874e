//! Which form the data has, and what opens it.

use super::class_order::ClassOrder;
use super::folder::{self, FolderDataset};
use super::imagenet_val::{self, ImagenetVal};
use super::shards::{self, ShardDataset, ShardOptions};
use super::split::{find_folder, split_folders};
use super::synthetic::SyntheticDataset;
use super::{DataSpec, Dataset, Source, Split, cifar, idx};
use crate::error::{Result, failed, usage};
use crate::escaped::shown;
use std::fs;
use std::path::Path;
use std::sync::Arc;

impl DataSpec {
    /// Opens one half of the data with all its samples, whatever the limit and the quarantine.
    ///
    /// # Errors
    /// When the data is missing, damaged or of another form.
    pub fn open_whole(&self, split: Split, seed: u64, options: &ShardOptions) -> Result<Arc<dyn Dataset>> {
        let dir = &self.dir;
        Ok(match self.form()? {
            Source::Idx => Arc::new(idx::IdxDataset::open(dir, split)?),
            Source::Folder => Arc::new(FolderDataset::open(dir, split, self.class_order, options)?),
            Source::Shards => {
                check_named(dir, split)?;
                Arc::new(ShardDataset::open(dir, split, options)?)
            }
            Source::Cifar => Arc::new(cifar::CifarDataset::open(dir, split)?),
            Source::ImagenetVal => match split {
                Split::Train => Arc::new(FolderDataset::open(dir, split, ClassOrder::Auto, options)?),
                Split::Eval => Arc::new(ImagenetVal::open(dir)?),
            },
            Source::Synthetic => Arc::new(SyntheticDataset::new(&self.synthetic, split, seed)),
            Source::Auto => unreachable!("detection returns a form"),
        })
    }

    /// Which form the data has.
    ///
    /// # Errors
    /// When that is to be found out and nothing known is there.
    pub fn form(&self) -> Result<Source> {
        if self.source != Source::Auto {
            return Ok(self.source);
        }
        let dir = &self.dir;
        if !dir.is_dir() {
            return match shards::is_shard_name(dir) {
                true => Ok(Source::Shards),
                false => Err(missing(dir).into()),
            };
        }
        if has_flat_val(dir) {
            return Ok(Source::ImagenetVal);
        }
        // The evaluation split may come alone.
        let splits = split_folders(dir);
        if !splits.is_empty() {
            let only_shards = |place: &Path| shards::are_in(place) && !has_folders(place);
            let is_shards = splits.iter().any(|split| only_shards(&split.path));
            return Ok(if is_shards { Source::Shards } else { Source::Folder });
        }
        if cifar::is_here(dir) {
            return Ok(Source::Cifar);
        }
        if Split::BOTH.iter().any(|split| idx::find(dir, *split).is_ok()) {
            return Ok(Source::Idx);
        }
        if shards::are_in(dir) {
            return Ok(Source::Shards);
        }
        if folder::is_plain(dir) {
            return Ok(Source::Folder);
        }
        if let Some(problem) = shards::compressed_in(dir) {
            return Err(problem.into());
        }
        let message = format!(
            "{}: neither `train/`, `val/` or `test/` with class folders or shards, nor shards themselves, nor CIFAR's \
             binary files, nor IDX files found",
            shown(dir)
        );
        Err(failed(message)
            .hint("`data.dir` names the folder that directly holds them (`--data DIR`)")
            .into())
    }

    /// Which halves are there. Of nothing, or of what always has both, both: opening them says what is missing.
    ///
    /// # Errors
    /// When nothing known is there.
    pub fn halves(&self) -> Result<Vec<Split>> {
        let dir = &self.dir;
        let has_folder = |split: Split| find_folder(dir, split, |_| true).is_some();
        let is_there = |split: &Split| match self.source {
            Source::Folder => has_folder(*split) || (*split == Split::Eval && folder::is_plain(dir)),
            Source::ImagenetVal => *split == Split::Eval || has_folder(*split),
            Source::Shards => check_named(dir, *split).is_ok() && shards::has(dir, *split),
            _ => true,
        };
        let mut known = self.clone();
        known.source = self.form()?;
        if known.source != self.source {
            return known.halves();
        }
        let halves: Vec<Split> = Split::BOTH.into_iter().filter(is_there).collect();
        Ok(if halves.is_empty() { Split::BOTH.to_vec() } else { halves })
    }
}

/// Whether the validation half lies there as ImageNet hands it out, and no class folders beside it.
fn has_flat_val(dir: &Path) -> bool {
    let val = dir.join("val");
    imagenet_val::is_here(dir) && !dir.join("test").is_dir() && !(val.is_dir() && has_folders(&val))
}

fn has_folders(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir())
}

/// Refuses to train on named shards whose names do not say which split they are: they would be evaluated on, too.
fn check_named(place: &Path, split: Split) -> Result<()> {
    if split == Split::Eval || place.is_dir() || shards::is_named(place, split)? {
        return Ok(());
    }
    let message = format!("{}: the name does not say which split these shards are", shown(place));
    let hint =
        "call them train-* and val-* in one folder, or put them into `train/` and `val/` and name the folder";
    Err(usage(message).hint(hint).into())
}

/// The error for a data folder that is not there.
pub(super) fn missing(dir: &Path) -> crate::error::Problem {
    let hint = if dir == DataSpec::default().dir {
        "`make data` fetches Fashion-MNIST; `--data DIR` names another data set"
    } else {
        "`--data DIR` (or `data.dir`) names a folder with `train/CLASS/*` and `val/CLASS/*`, shards, CIFAR or IDX files"
    };
    let message = match dir.exists() {
        true => format!("no data: {} is not a folder", shown(dir)),
        false => format!("no data: the folder {} does not exist", shown(dir)),
    };
    failed(message).hint(hint)
}
