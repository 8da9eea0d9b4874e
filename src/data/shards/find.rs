//! Which shards a place names: a folder, a pattern, one file; and the list of classes beside them.

use super::super::Split;
use super::super::index::MAX_CLASSES;
use super::pack;
use super::tar::decimal;
use crate::error::{Result, failed};
use crate::files;
use anyhow::Context;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most shards that a pattern may name.
const MAX_SHARDS: u64 = 100_000;

/// The shards of one half.
pub(super) struct Found {
    pub(super) folder: PathBuf,
    pub(super) prefix: String,
    /// File names, sorted.
    pub(super) names: Vec<String>,
    /// File of the index.
    pub(super) index: String,
}

/// Whether a name is that of a shard, or a pattern of such names.
pub fn is_shard_name(place: &Path) -> bool {
    let name = place.file_name().unwrap_or_default().as_bytes();
    name.ends_with(b".tar") || name.iter().any(|byte| b"*?{".contains(byte))
}

/// The half that a shard's name says it is of.
pub fn half_of(name: &[u8]) -> Option<Split> {
    Split::BOTH.into_iter().find(|split| split.folders().iter().any(|half| name.starts_with(half.as_bytes())))
}

/// Whether a folder directly holds shards.
pub fn are_in(folder: &Path) -> bool {
    tars(folder).is_ok_and(|names| !names.is_empty())
}

/// Whether shards of this half are where `place` says.
pub fn has(place: &Path, split: Split) -> bool {
    find(place, split).is_ok()
}

/// The shards of this half that `place` names.
pub(super) fn find(place: &Path, split: Split) -> Result<Found> {
    if place.is_dir() {
        return find_in(place, split);
    }
    let unnamed = || failed(format!("{}: not the name of a shard", place.display()));
    let pattern = place.file_name().and_then(OsStr::to_str).ok_or_else(unnamed)?;
    let folder = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    if !folder.is_dir() {
        let message = format!("no shards: the folder {} does not exist", folder.display());
        return Err(failed(message)
            .hint("only the file name of a pattern may have `*`, `?` or `{a..b}`")
            .into());
    }
    if half_of(pattern.as_bytes()).is_some_and(|half| half != split) {
        return find_in(&folder, split);
    }
    let mut names = Vec::new();
    for name in expand(pattern).map_err(|what| failed(format!("{}: {what}", place.display())))? {
        if name.contains(['*', '?']) {
            names.extend(tars(&folder)?.into_iter().filter(|file| matches(name.as_bytes(), file.as_bytes())));
        } else if folder.join(&name).is_file() {
            names.push(name);
        } else {
            let message = format!("no shard {}", folder.join(&name).display());
            return Err(failed(message)
                .hint(format!("`{pattern}` names it; fetch it, or change the range"))
                .into());
        }
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(failed(format!("no shard is named like {}", place.display()))
            .hint("shards are *.tar files")
            .into());
    }
    let index = format!(".senet-index-{:08x}", crate::rng::fnv1a(pattern.as_bytes()) as u32);
    Ok(Found { folder, prefix: String::new(), names, index })
}

/// The shards of one half in a folder: those in its `train/` (`val/`, `test/`), else those that are called so; for
/// training, any, where none is called like a half.
fn find_in(place: &Path, split: Split) -> Result<Found> {
    let halves = split.folders();
    let half = halves.iter().find(|half| place.join(half).is_dir());
    let folder = half.map_or(place.to_path_buf(), |half| place.join(half));
    let prefix = half.map_or(String::new(), |half| format!("{half}/"));
    let mut names = tars(&folder)?;
    if half.is_none() {
        let any = names.iter().any(|name| half_of(name.as_bytes()).is_some());
        if any || split == Split::Eval {
            names.retain(|name| half_of(name.as_bytes()) == Some(split));
        }
    }
    if names.is_empty() {
        let message = format!("{}: no shards for the half `{}`", folder.display(), halves.join("` or `"));
        return Err(failed(message)
            .hint("shards are *.tar, in `train/` and `val/`, or named train-* and val-*")
            .into());
    }
    pack::check_finished(&folder, &names)?;
    // One index for each half, where both lie in one folder.
    let index =
        if half.is_some() { ".senet-index".to_string() } else { format!(".senet-index-{}", halves[0]) };
    Ok(Found { folder, prefix, names, index })
}

/// Names of the shards in a folder, sorted.
fn tars(folder: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot list the folder {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let shard = name.as_bytes().ends_with(b".tar") && !name.as_bytes().starts_with(b".");
        if shard && entry.path().is_file() {
            let name = name.to_str().with_context(|| format!("{}: not UTF-8", entry.path().display()))?;
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A pattern without its ranges `{000..012}`.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let broken = || "a range is written {000000..000099}".to_string();
        let close = open + rest[open..].find('}').ok_or_else(broken)?;
        let (first, last) = rest[open + 1..close].split_once("..").ok_or_else(broken)?;
        let number = |text: &str| decimal(text.as_bytes()).ok_or_else(broken);
        let (from, to) = (number(first)?, number(last)?);
        if from > to {
            return Err(format!("the range {{{first}..{last}}} runs backwards"));
        }
        if (to - from).saturating_add(1).saturating_mul(names.len() as u64) > MAX_SHARDS {
            return Err(format!("more than {MAX_SHARDS} shards"));
        }
        // As a shell does it: zeros in front where one of the ends has them.
        let zeros = [first, last].iter().any(|end| end.len() > 1 && end.starts_with('0'));
        let width = if zeros { first.len().max(last.len()) } else { 0 };
        let ends = (from..=to).map(|number| format!("{}{number:0width$}", &rest[..open])).collect::<Vec<_>>();
        names = names.iter().flat_map(|name| ends.iter().map(move |end| format!("{name}{end}"))).collect();
        rest = &rest[close + 1..];
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// Whether a name is of a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[place] => {
                at += 1;
                place += 1;
            }
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (at, place) = (*after + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Names of the classes, and the file that has them.
pub(super) fn class_names(folder: &Path) -> Result<Option<(Vec<String>, PathBuf)>> {
    let above = folder.join("..");
    for dir in [folder, above.as_path()] {
        let file = dir.join("classes.txt");
        if file.is_file() {
            let names: Vec<String> =
                files::read_text(&file)?.lines().map(|line| line.trim().to_string()).collect();
            if names.is_empty() || names.len() > MAX_CLASSES || names.iter().any(String::is_empty) {
                let message = format!("{}: {} lines, or an empty one", file.display(), names.len());
                return Err(failed(message)
                    .hint("one class a line is expected, in the order of the labels")
                    .into());
            }
            return Ok(Some((names, file)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn ranges_expand_as_in_a_shell() {
        assert_eq!(expand("a-{8..11}.tar").unwrap(), ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expand("{0..1}-{01..02}").unwrap(), ["0-01", "0-02", "1-01", "1-02"]);
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
    }
}
