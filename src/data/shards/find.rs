//! Which shards a place names: a folder, a pattern, one file; and the list of classes beside them.

use super::super::index::MAX_CLASSES;
use super::super::split::{NamedSplit, Split, SplitOrigin, find_folder};
use super::pack;
use super::tar::decimal;
use crate::error::{Problem, Result, failed};
use crate::escaped::shown;
use crate::files;
use anyhow::Context;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most shards that a pattern may name.
const MAX_SHARDS: u64 = 100_000;

/// The shards of one split.
pub(super) struct Found {
    pub(super) folder: PathBuf,
    /// What relative names begin with: the split's folder, where it was found below the data's.
    pub(super) prefix: String,
    /// File names, sorted.
    pub(super) names: Vec<String>,
    /// File of the index.
    pub(super) index: String,
    pub(super) split: SplitOrigin,
    pub(super) remarks: Vec<String>,
}

/// Endings of compressed shards.
const COMPRESSED: [&str; 6] = [".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.lz4"];

/// Whether a name is that of a shard, or a pattern of such names.
pub fn is_shard_name(place: &Path) -> bool {
    let name = place.file_name().unwrap_or_default().as_bytes();
    name.ends_with(b".tar") || name.iter().any(|byte| b"*?{".contains(byte))
}

/// Whether a folder directly holds shards.
pub fn are_in(folder: &Path) -> bool {
    tars(folder).is_ok_and(|names| !names.is_empty())
}

/// The error for a folder whose shards are compressed, where it holds such ones and no others.
pub fn compressed_in(folder: &Path) -> Option<Problem> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.find(|name| COMPRESSED.iter().any(|ending| name.ends_with(ending)))?;
    let message = format!("{}: the shards are compressed ({})", shown(folder), name.escape_debug());
    Some(
        failed(message)
            .hint("members are read in random order, from plain tar: `gunzip *.tar.gz`, or unpack them"),
    )
}

/// Whether shards of this split are where `place` says.
pub fn has(place: &Path, split: Split) -> bool {
    find(place, split).is_ok()
}

/// Whether the names of the shards that `place` names say which split they are.
///
/// # Errors
/// When there are no shards, or a name says two things.
pub fn is_named(place: &Path, split: Split) -> Result<bool> {
    Ok(find(place, split)?.split.named.is_some())
}

/// The shards of this split that `place` names.
pub(super) fn find(place: &Path, split: Split) -> Result<Found> {
    if place.is_dir() {
        return find_in(place, split);
    }
    let unnamed = || failed(format!("{}: not the name of a shard", shown(place)));
    let pattern = place.file_name().and_then(OsStr::to_str).ok_or_else(unnamed)?;
    let folder = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    if !folder.is_dir() {
        let message = format!("no shards: the folder {} does not exist", shown(&folder));
        return Err(failed(message)
            .hint("only the file name of a pattern may have `*`, `?` or `{a..b}`")
            .into());
    }
    if NamedSplit::of_file(pattern.as_bytes())?.is_some_and(|named| named.split() != split) {
        return find_in(&folder, split);
    }
    let mut names = Vec::new();
    for name in expand(pattern).map_err(|what| failed(format!("{}: {what}", shown(place))))? {
        if name.contains(['*', '?']) {
            names.extend(tars(&folder)?.into_iter().filter(|file| matches(name.as_bytes(), file.as_bytes())));
        } else if folder.join(&name).is_file() {
            names.push(name);
        } else {
            let message = format!("no shard {}", shown(&folder.join(&name)));
            return Err(failed(message)
                .hint(format!("`{pattern}` names it; fetch it, or change the range"))
                .into());
        }
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        let hint = "shards are *.tar files";
        return Err(failed(format!("no shard is named like {}", shown(place))).hint(hint).into());
    }
    let Selected { names, split: origin, remarks } = match select(names, split)? {
        selected if selected.names.is_empty() => return Err(none_of(place, split).into()),
        selected => selected,
    };
    let text = format!("{pattern} {}", split.name());
    let index = format!(".senet-index-{:08x}", crate::rng::fnv1a(text.as_bytes()) as u32);
    Ok(Found { folder, prefix: String::new(), names, index, split: origin, remarks })
}

/// The shards of one split in a folder: those in its folder there (`train/`, `val/`), else those that are called so; for
/// training, any, where no name says a split.
fn find_in(place: &Path, split: Split) -> Result<Found> {
    let Some((folder, origin)) = find_folder(place, split, are_in) else {
        let Selected { names, split: origin, remarks } = select(tars(place)?, split)?;
        if names.is_empty() || (split == Split::Eval && origin.named.is_none()) {
            return Err(compressed_in(place).unwrap_or_else(|| none_of(place, split)).into());
        }
        pack::check_finished(place, &names)?;
        // One index for each split, where both lie in one folder.
        let index = format!(".senet-index-{}", if split == Split::Train { "train" } else { "val" });
        let folder = place.to_path_buf();
        return Ok(Found { folder, prefix: String::new(), names, index, split: origin, remarks });
    };
    let names = tars(&folder.path)?;
    for name in &names {
        if NamedSplit::of_file(name.as_bytes())?.is_some_and(|named| named.split() != split) {
            let path = folder.path.join(name);
            let message = format!("{}: the name says another split than its folder", shown(&path));
            return Err(failed(message)
                .hint("move the shard to the folder of its split, or rename it")
                .into());
        }
    }
    pack::check_finished(&folder.path, &names)?;
    let (prefix, index) = (format!("{}/", folder.name), ".senet-index".to_string());
    Ok(Found { folder: folder.path, prefix, names, index, split: origin, remarks: Vec::new() })
}

fn none_of(place: &Path, split: Split) -> Problem {
    let split = if split == Split::Train { "train" } else { "val` or `test" };
    failed(format!("{}: no shards of the split `{split}`", shown(place)))
        .hint("shards are *.tar, in `train/` and `val/`, or with these words in their names")
}

/// Shards of one split among others.
struct Selected {
    names: Vec<String>,
    split: SplitOrigin,
    remarks: Vec<String>,
}

/// Chooses by the words of the names. Where no name has any, all are chosen, as being of no named split.
fn select(names: Vec<String>, split: Split) -> Result<Selected> {
    let mut of: BTreeMap<Option<NamedSplit>, Vec<String>> = BTreeMap::new();
    for name in names {
        of.entry(NamedSplit::of_file(name.as_bytes())?).or_default().push(name);
    }
    let unnamed = of.remove(&None).unwrap_or_default();
    if of.is_empty() {
        return Ok(Selected { names: unnamed, split: SplitOrigin::default(), remarks: Vec::new() });
    }
    let mut remarks = Vec::new();
    if let Some(first) = unnamed.first() {
        let count = unnamed.len();
        remarks.push(format!("skipped {count} shard(s) whose names say no split, such as {first}"));
    }
    // In the order of preference.
    let mut fit = of.into_iter().filter(|(named, _)| named.is_some_and(|named| named.split() == split));
    let Some((named, names)) = fit.next() else {
        return Ok(Selected { names: Vec::new(), split: SplitOrigin::default(), remarks });
    };
    let in_words = |names: &[String]| match names {
        [one] => one.clone(),
        several => format!("{} to {}", several[0], several[several.len() - 1]),
    };
    let unused = fit.map(|(_, others)| in_words(&others)).collect();
    let origin = SplitOrigin { name: in_words(&names), named, unused };
    Ok(Selected { names, split: origin, remarks })
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
            let name = name.to_str().with_context(|| format!("{}: not UTF-8", shown(&entry.path())))?;
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
