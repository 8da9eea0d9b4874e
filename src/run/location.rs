//! Where a run's data is: stored as an absolute path, and found again where run and data were moved together.

use crate::data::{DataSpec, Source};
use crate::files;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// The paths of a data specification, absolute: a run is read from other working directories than it was started in.
///
/// A path that JSON cannot hold because it is not UTF-8 stays as it is.
pub fn absolute(spec: &DataSpec) -> DataSpec {
    with_paths(spec, absolute_path)
}

/// The paths of a data specification without links and `..`, where they exist: two that are equal are of the same data.
pub fn resolved(spec: &DataSpec) -> DataSpec {
    with_paths(spec, |path| path.canonicalize().unwrap_or_else(|_| absolute_path(path)))
}

fn with_paths(spec: &DataSpec, of: impl Fn(&Path) -> PathBuf) -> DataSpec {
    let quarantine = spec.quarantine.as_deref().map(&of);
    match spec.source {
        Source::Synthetic => DataSpec { quarantine, ..spec.clone() },
        _ => DataSpec { dir: of(&spec.dir), quarantine, ..spec.clone() },
    }
}

fn absolute_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).ok();
    absolute.filter(|path| path.to_str().is_some()).unwrap_or_else(|| path.to_path_buf())
}

/// The data of the run in the folder `run`, where its paths do not exist any more: beside the run as before, if both were
/// moved; for a relative path, as earlier versions stored it, below a folder above the run.
pub fn found_again(spec: DataSpec, run: &Path, starts: &Path) -> DataSpec {
    let exists = |path: &Path| path.exists() || is_pattern_in_folder(path);
    let Ok(run) = std::path::absolute(run) else { return spec };
    let before = first_place(starts);
    let find = |path: &Path| -> PathBuf {
        let moved = before.as_deref().and_then(|before| beside(path, before, &run));
        let above = || run.ancestors().skip(1).map(|above| above.join(path)).find(|path| exists(path));
        match path.is_absolute() {
            _ if exists(path) => path.to_path_buf(),
            true => moved.filter(|path| exists(path)).unwrap_or_else(|| path.to_path_buf()),
            false => above().unwrap_or_else(|| path.to_path_buf()),
        }
    };
    let quarantine = spec.quarantine.as_deref().map(find);
    match spec.source {
        Source::Synthetic => DataSpec { quarantine, ..spec },
        _ => DataSpec { dir: find(&spec.dir), quarantine, ..spec },
    }
}

/// Whether the last part of a path is a pattern of shards, in a folder that exists.
fn is_pattern_in_folder(path: &Path) -> bool {
    let is_pattern = path.file_name().is_some_and(|name| name.to_string_lossy().contains(['*', '?', '{']));
    is_pattern && path.parent().is_some_and(Path::is_dir)
}

/// Where a run was when it was started first; earlier versions do not say.
fn first_place(starts: &Path) -> Option<PathBuf> {
    let text = files::read(starts).ok()?;
    let first: Value = serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()?;
    Some(PathBuf::from(first["run"].as_str()?))
}

/// What lies to `run` as `path` lay to the run's place `before`; `None` where they had no folder in common.
fn beside(path: &Path, before: &Path, run: &Path) -> Option<PathBuf> {
    let shared = path.components().zip(before.components()).take_while(|(a, b)| a == b).count();
    let is_root_alone =
        path.components().take(shared).all(|part| matches!(part, Component::RootDir | Component::Prefix(_)));
    if is_root_alone {
        return None;
    }
    let up = before.components().count() - shared;
    let common = run.ancestors().nth(up)?;
    Some(common.join(path.components().skip(shared).collect::<PathBuf>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_was_moved_with_its_run_lies_beside_it() {
        let beside = |path, before, run| super::beside(Path::new(path), Path::new(before), Path::new(run));
        let moved = |path: &str| Some(PathBuf::from(path));
        assert_eq!(beside("/a/b/data/x", "/a/b/runs/1", "/c/runs/1"), moved("/c/data/x"));
        assert_eq!(beside("/a/b/data", "/a/b/1", "/c/d/e"), moved("/c/d/data"));
        assert_eq!(beside("/a/b/1/data", "/a/b/1", "/c/d"), moved("/c/d/data"));
        assert_eq!(beside("/data", "/a/b/1", "/c/d"), None);
    }

    #[test]
    fn paths_are_stored_absolute() {
        let spec = DataSpec { dir: "here".into(), quarantine: Some("bad.txt".into()), ..DataSpec::default() };
        let stored = absolute(&spec);
        let here = std::env::current_dir().unwrap();
        assert_eq!((stored.dir, stored.quarantine), (here.join("here"), Some(here.join("bad.txt"))));
        let spec = DataSpec { source: Source::Synthetic, ..spec };
        assert_eq!(absolute(&spec).dir, Path::new("here"));
    }
}
