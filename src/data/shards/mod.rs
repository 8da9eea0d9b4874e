//! Tar shards by WebDataset's convention: the members `KEY.jpg` (or another image) and `KEY.cls` (the label in
//! decimal digits) or `KEY.json` (an object with `cls` or `label`) make a sample; they lie side by side. The key is
//! the path up to the first dot of the file name.
//!
//! The headers are read once and kept in an [`index`](super::index); samples are then read at their place, in any
//! order. Links, devices, sparse files and members with absolute paths or `..` are passed over and counted.

pub mod pack;
pub mod tar;

use super::images::{EXTENSIONS, MAX_FILE_BYTES};
use super::index::{Cache, FRESH, Index, Kind, Listing, MAX_CLASSES, Origin, Stamp, Unit, is_inside};
use super::{Dataset, Image, Split, decode_file, workers};
use crate::error::{Problem, Result, failed};
use crate::files;
use anyhow::Context;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tar::{Fault, Member, MemberKind, Members, decimal};

/// Longest label file and longest JSON file.
const MAX_CLS: u64 = 64;
const MAX_JSON: u64 = 1 << 20;
/// Shards open at once; many systems allow 1024 files.
const MAX_OPEN: usize = 64;
/// Most shards that a pattern may name.
const MAX_SHARDS: u64 = 100_000;

/// What is passed over, in the order of [`Index::skipped`].
const PASSED_OVER: [&str; 4] = [
    "links, devices and sparse files",
    "members with absolute paths or `..`",
    // Notes, or what a cut has left.
    "keys without an image",
    // With `Broken::KeepWhole` only.
    "images without a label",
];

/// What to do with shards that are not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// They are an error.
    #[default]
    Refuse,
    /// The whole samples before the place where a shard ends are used, and samples without a label passed over. Other
    /// damage is still an error.
    KeepWhole,
}

/// How shards are opened.
#[derive(Debug, Clone, Default)]
pub struct ShardOptions {
    /// What to do with shards that are not whole.
    pub broken: Broken,
    /// Where the index is kept.
    pub cache: Cache,
}

impl ShardOptions {
    /// As training opens data: whole shards only, and an index that is kept.
    pub fn for_training() -> Self {
        Self { broken: Broken::Refuse, cache: Cache::for_user() }
    }
}

/// Samples in tar shards; only an index of them is in memory.
pub struct ShardDataset {
    /// The folder as it was named, for messages.
    folder: PathBuf,
    /// What relative names begin with: the half's folder, where it was found below the data's.
    prefix: String,
    index: Index,
    origin: Origin,
    classes: Vec<String>,
    open: Handles,
}

/// The shards of one half.
struct Found {
    folder: PathBuf,
    prefix: String,
    /// File names, sorted.
    names: Vec<String>,
    /// File of the index.
    index: String,
}

impl ShardDataset {
    /// Opens the shards that `place` names: a shard (`train.tar`), a pattern of them (`train-{000000..000099}.tar`,
    /// `train-*.tar`), a folder of them, or a folder with `train/` and `val/` (or `test/`). In a folder that directly
    /// holds shards of both halves these begin with `train`, and with `val` or `test`. A pattern that begins with the
    /// other half's word stands for its folder: `train-*.tar` has its evaluation half in `val-*.tar` beside it.
    ///
    /// Class names are the lines of `classes.txt` beside the shards or a folder above; without it, the labels.
    ///
    /// # Errors
    /// When shards are missing or damaged, or a label has no class.
    pub fn open(place: &Path, split: Split, options: &ShardOptions) -> Result<Self> {
        let found = find(place, split)?;
        let unfindable = || format!("cannot find {}", found.folder.display());
        let root = fs::canonicalize(&found.folder).with_context(unfindable)?;
        let (index, origin) = options.cache.open(
            &root,
            &found.index,
            Kind::Shards,
            |index| is_current(index, &found, options.broken),
            || list(&found, &root, options),
        )?;
        if index.is_empty() {
            let message = format!("the shards of {} hold no samples", place.display());
            return Err(failed(message).hint("a sample is KEY.jpg with KEY.cls or KEY.json").into());
        }
        let (classes, from) = match class_names(&found.folder)? {
            Some((names, file)) => (names, file),
            None => {
                let highest = (0..index.len()).map(|sample| index.label(sample)).max().unwrap_or(0);
                // Both halves need the same classes, and one may lack the last.
                let kept = ShardOptions { cache: options.cache.clone().kept(), ..options.clone() };
                let other =
                    (split == Split::Eval).then(|| Self::open(place, Split::Train, &kept).ok()).flatten();
                let other = other.map_or(0, |train| train.classes.len());
                ((0..other.max(highest + 1)).map(|class| class.to_string()).collect(), PathBuf::new())
            }
        };
        let open = Handles::new(MAX_OPEN);
        let data = Self { folder: found.folder, prefix: found.prefix, index, origin, classes, open };
        let beyond = (0..data.len()).find(|sample| data.index.label(*sample) >= data.classes.len());
        if let Some(sample) = beyond {
            let message = format!(
                "{}: the label is {}, but {} names {} classes",
                data.source_name(sample),
                data.index.label(sample),
                from.display(),
                data.classes.len()
            );
            return Err(failed(message).hint("labels count from 0; the list has one class a line").into());
        }
        Ok(data)
    }

    /// Shards that end early, in words; with [`Broken::KeepWhole`] only.
    fn cut_shards(&self) -> Vec<String> {
        let words = |unit: usize| {
            let cut = self.index.cut(unit)?;
            let whole = self.index.samples_of(unit).len();
            Some(format!(
                "{} ends early, at byte {cut}; its {whole} whole samples are used",
                self.shard(unit).display()
            ))
        };
        (0..self.index.units()).filter_map(words).collect()
    }

    fn shard(&self, unit: usize) -> PathBuf {
        self.folder.join(OsStr::from_bytes(self.index.unit_path(unit)))
    }
}

/// A few open files, the latest used.
struct Handles {
    open: Mutex<Open>,
    most: usize,
}

#[derive(Default)]
struct Open {
    /// By unit; with the time of its last use.
    files: HashMap<usize, (Arc<File>, u64)>,
    /// Uses so far.
    clock: u64,
}

impl Handles {
    fn new(most: usize) -> Self {
        Self { open: Mutex::default(), most }
    }

    /// The file of a unit; one that is closed meanwhile stays open for who reads it.
    fn get(&self, unit: usize, open: impl FnOnce() -> Result<File>) -> Result<Arc<File>> {
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Open { files, clock } = &mut *open;
            *clock += 1;
            if let Some((file, used)) = files.get_mut(&unit) {
                *used = *clock;
                return Ok(Arc::clone(file));
            }
        }
        // Without the lock: the disk may be far.
        let file = Arc::new(open()?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { files, clock } = &mut *open;
        if files.len() >= self.most
            && let Some(oldest) = files.iter().min_by_key(|(_, (_, used))| *used).map(|(unit, _)| *unit)
        {
            files.remove(&oldest);
        }
        files.insert(unit, (Arc::clone(&file), *clock));
        Ok(file)
    }
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

fn find(place: &Path, split: Split) -> Result<Found> {
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
fn class_names(folder: &Path) -> Result<Option<(Vec<String>, PathBuf)>> {
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

fn is_current(index: &Index, found: &Found, broken: Broken) -> Result<(), String> {
    let names = (0..index.units()).map(|unit| index.unit_path(unit));
    if !names.eq(found.names.iter().map(String::as_bytes)) {
        return Err("the shards are others".to_string());
    }
    if broken == Broken::Refuse
        && (index.skipped()[3] > 0 || (0..index.units()).any(|unit| index.cut(unit).is_some()))
    {
        return Err("it leaves out what is broken".to_string());
    }
    let changed = |unit: usize| {
        let path = found.folder.join(&found.names[unit]);
        if index.stamp(unit).modified == FRESH {
            return Some(format!("{} was new when it was listed", path.display()));
        }
        let stamp = fs::metadata(&path).map(|metadata| Stamp::of_shard(&metadata));
        (stamp.ok() != Some(index.stamp(unit))).then(|| format!("{} has changed", path.display()))
    };
    match workers::map(index.units(), workers::for_listing(), changed).into_iter().flatten().next() {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn list(found: &Found, root: &Path, options: &ShardOptions) -> Result<Index> {
    let units = workers::map(found.names.len(), workers::for_listing(), |shard| {
        let path = found.folder.join(&found.names[shard]);
        list_shard(&path, &found.names[shard], options)
    });
    Index::build(Kind::Shards, root, &[], units.into_iter().collect::<Result<Vec<_>>>()?)
}

/// The members of one key.
#[derive(Default)]
struct Group {
    key: Vec<u8>,
    header: u64,
    image: Option<(u64, u64)>,
    cls: Option<(u64, u64)>,
    json: Option<(u64, u64)>,
}

fn list_shard(path: &Path, name: &str, options: &ShardOptions) -> Result<Unit> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let metadata = file.metadata().with_context(unreadable)?;
    let stamp = options.cache.settled(Stamp::of_shard(&metadata), Kind::Shards);
    let mut unit = Unit::new(name.as_bytes(), stamp);
    let mut members = Members::new(&file, metadata.len());
    let mut group = Group::default();
    let damaged = |fault: Fault| -> anyhow::Error {
        let hint = match fault.truncated {
            true => "fetch it again; `senet data pack --salvage` takes the whole samples before the cut",
            false => "fetch or pack it again",
        };
        problem(path, fault.offset, &fault.what).hint(hint).into()
    };
    loop {
        match members.next_member() {
            Ok(Some(member)) => {
                take_in(&mut group, &member, &mut unit, &mut members, path, options.broken)?;
            }
            Ok(None) => break,
            Err(fault) if fault.truncated && options.broken == Broken::KeepWhole => {
                // At 0 there would be no mark that it is cut; an empty file is cut at "1".
                unit.cut = fault.offset.max(1);
                break;
            }
            Err(fault) => return Err(damaged(fault)),
        }
    }
    if unit.cut == 0 || (group.image.is_some() && (group.cls.is_some() || group.json.is_some())) {
        close(&group, &mut unit, &mut members, path, options.broken)?;
    }
    refuse_twins(&unit, path)?;
    Ok(unit)
}

fn problem(path: &Path, offset: u64, what: &str) -> Problem {
    failed(format!("{}, byte {offset}: {what}", path.display()))
}

/// A member finds its place in its group, or begins the next.
fn take_in(
    group: &mut Group,
    member: &Member,
    unit: &mut Unit,
    members: &mut Members<'_>,
    path: &Path,
    broken: Broken,
) -> Result<()> {
    match member.kind {
        MemberKind::Folder => return Ok(()),
        MemberKind::Link | MemberKind::Special => {
            unit.skipped[0] += 1;
            return Ok(());
        }
        MemberKind::File => {}
    }
    if !is_inside(&member.name) {
        unit.skipped[1] += 1;
        return Ok(());
    }
    let name = member.name.strip_prefix(b"./").unwrap_or(&member.name);
    let base = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    // Hidden files and files without a dot belong to no sample.
    let Some(dot) = name[base..].iter().position(|byte| *byte == b'.').filter(|dot| *dot > 0) else {
        return Ok(());
    };
    let (key, extension) = (&name[..base + dot], name[base + dot + 1..].to_ascii_lowercase());
    if key != group.key {
        close(group, unit, members, path, broken)?;
        *group = Group { key: key.to_vec(), header: member.header, ..Group::default() };
    }
    let image = EXTENSIONS.iter().any(|known| extension == known.as_bytes());
    let slot = match extension.as_slice() {
        _ if image => &mut group.image,
        b"cls" => &mut group.cls,
        b"json" => &mut group.json,
        _ => return Ok(()),
    };
    if slot.is_some() {
        let what = if image { "image" } else { "label" };
        let what = format!("a second {what} of the key `{}`", group.key.escape_ascii());
        return Err(problem(path, member.header, &what)
            .hint("a key must have one image and one label")
            .into());
    }
    if image && member.size > MAX_FILE_BYTES {
        let what = format!("`{}`: {} bytes are too many for an image", name.escape_ascii(), member.size);
        return Err(problem(path, member.header, &what).hint("pack the shard again without it").into());
    }
    *slot = Some((member.offset, member.size));
    Ok(())
}

/// A whole group becomes a sample.
fn close(
    group: &Group,
    unit: &mut Unit,
    members: &mut Members<'_>,
    path: &Path,
    broken: Broken,
) -> Result<()> {
    if group.key.is_empty() {
        return Ok(());
    }
    let Some((offset, length)) = group.image else {
        unit.skipped[2] += 1;
        return Ok(());
    };
    let key = group.key.escape_ascii();
    let label = match (group.cls, group.json) {
        (Some((at, size)), _) => {
            let bytes = members
                .read(at, size, MAX_CLS, "a label")
                .map_err(|fault| problem(path, fault.offset, &format!("`{key}.cls`: {}", fault.what)))?;
            let label = decimal(bytes.trim_ascii()).ok_or_else(|| format!("\"{}\"", bytes.escape_ascii()));
            (label, at, "cls")
        }
        (None, Some((at, size))) => {
            let bytes = members
                .read(at, size, MAX_JSON, "a label")
                .map_err(|fault| problem(path, fault.offset, &format!("`{key}.json`: {}", fault.what)))?;
            (label_of_json(&bytes), at, "json")
        }
        (None, None) if broken == Broken::KeepWhole => {
            unit.skipped[3] += 1;
            return Ok(());
        }
        (None, None) => {
            let what = format!("the key `{key}` has an image, but neither `.cls` nor `.json` beside it");
            return Err(problem(path, group.header, &what)
                .hint("members of one key must follow one another")
                .into());
        }
    };
    match label {
        (Ok(label), ..) if label < MAX_CLASSES as u64 => {
            unit.push_piece(&group.key, label as u32, offset, length as u32);
            Ok(())
        }
        (label, at, kind) => {
            let found = label.map_or_else(|what| what, |label| label.to_string());
            let what =
                format!("`{key}.{kind}`: a label from 0 to {} is expected, not {found}", MAX_CLASSES - 1);
            Err(problem(path, at, &what).hint("labels count from 0, in decimal digits").into())
        }
    }
}

/// What JSON beside an image says of its class.
#[derive(Deserialize)]
struct Described {
    cls: Option<serde_json::Value>,
    label: Option<serde_json::Value>,
}

fn label_of_json(bytes: &[u8]) -> Result<u64, String> {
    let described: Described =
        serde_json::from_slice(bytes).map_err(|error| format!("JSON that is broken ({error})"))?;
    let number = |value: &Option<serde_json::Value>| value.as_ref().and_then(serde_json::Value::as_u64);
    match (number(&described.cls), number(&described.label)) {
        (Some(cls), Some(label)) if cls != label => Err(format!("both `cls` {cls} and `label` {label}")),
        (Some(label), _) | (None, Some(label)) => Ok(label),
        (None, None) => Err("JSON without a number as `cls` or `label`".to_string()),
    }
}

/// A key that comes again, after others, would name two samples.
fn refuse_twins(unit: &Unit, path: &Path) -> Result<()> {
    let mut order: Vec<u32> = (0..unit.len() as u32).collect();
    let name = |sample: u32| unit.name(sample as usize);
    order.sort_unstable_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        None => Ok(()),
        Some(pair) => {
            let message = format!(
                "{}: the key `{}` names two samples, numbers {} and {}",
                path.display(),
                name(pair[0]).escape_ascii(),
                pair[0] + 1,
                pair[1] + 1
            );
            Err(failed(message).hint("keys must be unique in a shard; pack it again").into())
        }
    }
}

impl Dataset for ShardDataset {
    fn len(&self) -> usize {
        self.index.len()
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
        self.index.label(index)
    }

    fn image(&self, index: usize) -> Result<Image> {
        decode_file(self, index)
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        let unit = self.index.unit_of(index);
        let unreadable = || format!("cannot read {}", self.source_name(index));
        let file = self.open.get(unit, || {
            let file = File::open(self.shard(unit)).with_context(unreadable)?;
            let size = file.metadata().with_context(unreadable)?.len();
            let listed = self.index.stamp(unit).second;
            if size != listed {
                let message =
                    format!("{} has changed: {size} bytes, not {listed}", self.shard(unit).display());
                return Err(failed(message).hint("start again, so that it is listed anew").into());
            }
            Ok(file)
        })?;
        let (offset, length) = self.index.piece(index);
        bytes.resize(length as usize, 0);
        file.read_exact_at(bytes, offset).with_context(unreadable)?;
        Ok(true)
    }

    fn source_name(&self, index: usize) -> String {
        let shard = self.shard(self.index.unit_of(index));
        format!("{}:{}", shard.display(), String::from_utf8_lossy(self.index.name(index)))
    }

    fn relative_name(&self, index: usize) -> String {
        let shard = String::from_utf8_lossy(self.index.unit_path(self.index.unit_of(index)));
        format!("{}{shard}:{}", self.prefix, String::from_utf8_lossy(self.index.name(index)))
    }

    fn undecodable(&self, index: usize, error: &anyhow::Error) -> anyhow::Error {
        failed(format!("cannot decode {}: {error:#}", self.source_name(index)))
            .hint(
                "`senet data verify --quarantine FILE` lists such samples, `data.quarantine` leaves them out",
            )
            .into()
    }

    fn listing(&self) -> Option<Listing> {
        let counts = self.index.skipped().map(u64::from);
        Some(Listing {
            origin: self.origin.clone(),
            units: self.index.units(),
            bytes: self.index.size(),
            passed_over: PASSED_OVER.into_iter().zip(counts).collect(),
            remarks: self.cut_shards(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::tar::{write_end, write_member};
    use super::*;
    use crate::rng;
    use rand::Rng;
    use std::time::Duration;

    fn options() -> ShardOptions {
        ShardOptions { broken: Broken::Refuse, cache: Cache { settle: Duration::ZERO, ..Cache::default() } }
    }

    fn lenient() -> ShardOptions {
        ShardOptions { broken: Broken::KeepWhole, ..options() }
    }

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        members.iter().for_each(|(name, contents)| write_member(&mut bytes, name, contents).unwrap());
        write_end(&mut bytes).unwrap();
        bytes
    }

    fn plain(keys: &[&str]) -> Vec<u8> {
        let names: Vec<_> = keys.iter().map(|key| (format!("{key}.jpg"), format!("{key}.cls"))).collect();
        let mut members: Vec<(&str, &[u8])> = Vec::new();
        for (label, (image, cls)) in names.iter().enumerate() {
            members.push((image, image.as_bytes()));
            members.push((cls, [b"0", b"1", b"2", b"3"][label % 4].as_slice()));
        }
        tar(&members)
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn names(data: &ShardDataset) -> Vec<String> {
        (0..data.len()).map(|index| data.relative_name(index)).collect()
    }

    fn read(data: &ShardDataset, index: usize) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        assert!(data.encoded(index, &mut bytes).unwrap());
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a.tar", bytes);
        let opened = ShardDataset::open(&dir.path().join("a.tar"), Split::Train, &options());
        opened.err().map_or(String::new(), |error| format!("{error:#}"))
    }

    #[test]
    fn samples_come_with_labels_from_either_kind_of_file() {
        let dir = tempfile::tempdir().unwrap();
        let shard = tar(&[
            ("README", b"no sample"),
            ("n01/a.JPEG", b"first"),
            ("n01/a.cls", b" 12\n"),
            ("n01/a.txt", b"a caption"),
            ("./b.c.seg.png", b"not an image of ours"),
            ("./b.cls", b"1"),
            ("c.json", b"{\"label\": 3, \"other\": [1, {}]}"),
            ("c.png", b"second"),
            ("d.webp", b"third"),
            ("d.json", b"{\"cls\": 4, \"label\": \"cat\"}"),
        ]);
        put(dir.path(), "x.tar", &shard);
        for round in 0..2 {
            let data = ShardDataset::open(&dir.path().join("x.tar"), Split::Train, &options()).unwrap();
            assert_eq!(data.origin.is_loaded(), round == 1);
            assert_eq!(names(&data), ["x.tar:n01/a", "x.tar:c", "x.tar:d"]);
            assert_eq!([0, 1, 2].map(|index| data.label(index)), [12, 3, 4]);
            assert_eq!(data.classes().len(), 13);
            for (index, contents) in ["first", "second", "third"].iter().enumerate() {
                assert_eq!(read(&data, index), contents.as_bytes());
            }
            assert_eq!(data.index.skipped(), [0, 0, 1, 0]);
        }
    }

    #[test]
    fn halves_and_patterns_find_their_shards() {
        let dir = tempfile::tempdir().unwrap();
        for (name, key) in [("train/s-00.tar", "a"), ("train/s-01.tar", "b"), ("val/s-00.tar", "c")] {
            put(dir.path(), name, &plain(&[key]));
        }
        for (name, key) in [("flat/train-09.tar", "d"), ("flat/train-10.tar", "e"), ("flat/val-0.tar", "f")] {
            put(dir.path(), name, &plain(&[key]));
        }
        put(dir.path(), "classes.txt", b"cat\ndog\n");
        let open = |place: &str, split| ShardDataset::open(&dir.path().join(place), split, &options());
        let found = |place: &str, split| names(&open(place, split).unwrap());
        assert_eq!(found("", Split::Train), ["train/s-00.tar:a", "train/s-01.tar:b"]);
        assert_eq!(found("", Split::Eval), ["val/s-00.tar:c"]);
        assert_eq!(found("train/*.tar", Split::Train), ["s-00.tar:a", "s-01.tar:b"]);
        assert_eq!(found("flat", Split::Train), ["train-09.tar:d", "train-10.tar:e"]);
        assert_eq!(found("flat", Split::Eval), ["val-0.tar:f"]);
        assert_eq!(found("flat/train-{09..10}.tar", Split::Train), ["train-09.tar:d", "train-10.tar:e"]);
        assert_eq!(found("flat/t*-?9.tar", Split::Train), ["train-09.tar:d"]);
        assert_eq!(found("flat/train-{09..10}.tar", Split::Eval), ["val-0.tar:f"]);
        assert_eq!(found("flat/val-*.tar", Split::Train), ["train-09.tar:d", "train-10.tar:e"]);
        assert_eq!(open("", Split::Eval).unwrap().classes(), ["cat", "dog"]);
        let error = |place: &str, split| format!("{:#}", open(place, split).err().unwrap());
        assert!(error("flat/train-{09..11}.tar", Split::Train).contains("no shard"), "");
        assert!(error("flat/x*.tar", Split::Train).contains("named like"));
        assert!(error("train", Split::Eval).contains("no shards for the half `val` or `test`"));
        assert!(error("nowhere/x.tar", Split::Train).contains("nowhere does not exist"));
        assert!(error("flat/{1..", Split::Train).contains("a range is written"));
        assert!(error("flat/{2..1}", Split::Train).contains("backwards"));
        assert!(error("flat/{1..999999999999999999}{1..9}", Split::Train).contains("more than 100000"));
    }

    #[test]
    fn ranges_expand_as_in_a_shell() {
        assert_eq!(expand("a-{8..11}.tar").unwrap(), ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expand("{0..1}-{01..02}").unwrap(), ["0-01", "0-02", "1-01", "1-02"]);
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
    }

    #[test]
    fn both_halves_have_the_same_classes_without_a_list() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "train/0.tar", &plain(&["a", "b", "c", "d"]));
        put(dir.path(), "val/0.tar", &plain(&["a", "b"]));
        let data = ShardDataset::open(dir.path(), Split::Eval, &options()).unwrap();
        assert_eq!(data.classes(), ["0", "1", "2", "3"]);
        put(dir.path(), "classes.txt", b"cat\ndog\n");
        let error = ShardDataset::open(dir.path(), Split::Train, &options()).err().unwrap().to_string();
        assert!(error.contains("0.tar:c: the label is 2, but") && error.contains("2 classes"), "{error}");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        assert_eq!(refusal(&plain(&["a", "b"])), "");
        for (bytes, expected) in [
            (plain(&["a", "b"])[..3000].to_vec(), "a.tar, byte 3000: it ends without an end mark"),
            (plain(&["a", "b", "a"]), "the key `a` names two samples, numbers 1 and 3"),
            (tar(&[("a.jpg", b"x"), ("b.cls", b"1")]), "byte 0: the key `a` has an image, but neither"),
            (tar(&[("a.jpg", b"x"), ("a.png", b"x")]), "byte 1024: a second image of the key `a`"),
            (
                tar(&[("a.cls", b"x"), ("a.jpg", b"x")]),
                "byte 512: `a.cls`: a label from 0 to 1048575 is expected, not \"x\"",
            ),
            (tar(&[("a.cls", b"-1"), ("a.jpg", b"x")]), "not \"-1\""),
            (tar(&[("a.cls", b"1048576"), ("a.jpg", b"x")]), "not 1048576"),
            (tar(&[("a.cls", &[b'1'; 65]), ("a.jpg", b"x")]), "a label of 65 bytes, more than 64"),
            (tar(&[("a.json", b"{\"label\": \"cat\"}"), ("a.jpg", b"x")]), "JSON without a number"),
            (
                tar(&[("a.json", b"{\"cls\": 1, \"label\": 2}"), ("a.jpg", b"x")]),
                "both `cls` 1 and `label` 2",
            ),
            (tar(&[("a.json", b"[1]"), ("a.jpg", b"x")]), "JSON"),
            (tar(&[("a.json", &[b'['; 100_000]), ("a.jpg", b"x")]), "JSON that is broken"),
            (tar(&[("a.txt", b"x")]), "hold no samples"),
            (tar(&[]), "hold no samples"),
            (b"hello".to_vec(), "byte 0: it ends within a header, after 5 bytes"),
            (vec![7; 5000], "byte 0: it is not a tar archive"),
        ] {
            let text = refusal(&bytes);
            assert!(text.contains(expected), "{expected:?} in {text:?}");
        }
    }

    #[test]
    fn links_devices_and_paths_that_lead_out_are_passed_over() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: ::tar::EntryType, contents: &[u8]| {
            let mut header = ::tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(contents.len() as u64);
            header.set_entry_type(kind);
            header.set_cksum();
            builder.append(&header, contents).unwrap();
        };
        use ::tar::EntryType;
        add("good.jpg", EntryType::Regular, b"x");
        add("link.jpg", EntryType::Symlink, b"");
        add("hard.jpg", EntryType::Link, b"");
        add("device.jpg", EntryType::Char, b"");
        add("pipe.jpg", EntryType::Fifo, b"");
        add("/etc/a.jpg", EntryType::Regular, b"x");
        add("../../b.jpg", EntryType::Regular, b"x");
        add("folder.jpg/", EntryType::Directory, b"");
        add("good.cls", EntryType::Regular, b"3");
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a.tar", &builder.into_inner().unwrap());
        let data = ShardDataset::open(dir.path(), Split::Train, &options()).unwrap();
        assert_eq!(names(&data), ["a.tar:good"]);
        assert_eq!(data.index.skipped(), [4, 2, 0, 0]);
    }

    #[test]
    fn the_whole_samples_of_a_cut_shard_are_used_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let whole = plain(&["a", "b", "c"]);
        // 1024 bytes a member, two a sample: c begins at 4096.
        for (len, samples, cut) in [
            (whole.len() - 1024, 3, Some(6144)),
            (whole.len() - 2000, 2, Some(5120)),
            (5700, 3, Some(5632 + 512)),
            (5200, 2, Some(5120)),
            (4096, 2, Some(4096)),
            (whole.len(), 3, None),
        ] {
            put(dir.path(), "a.tar", &whole[..len]);
            let place = dir.path().join("a.tar");
            if len == 5700 {
                // Within the padding of the last label: the label is there.
                assert!(whole[5632..5633] == *b"2");
            }
            let data = ShardDataset::open(&place, Split::Train, &lenient()).unwrap();
            assert_eq!(data.len(), samples, "{len}");
            assert_eq!(data.cut_shards().len(), usize::from(cut.is_some()), "{len}");
            let again = ShardDataset::open(&place, Split::Train, &lenient()).unwrap();
            assert_eq!((again.origin.is_loaded(), again.cut_shards()), (true, data.cut_shards()));
            // The lenient index does not help the strict.
            assert_eq!(ShardDataset::open(&place, Split::Train, &options()).is_ok(), cut.is_none(), "{len}");
            if len == 4096 {
                let expected = "a.tar ends early, at byte 4096; its 2 whole samples are used";
                assert!(data.cut_shards()[0].ends_with(expected), "{:?}", data.cut_shards());
            }
        }
    }

    #[test]
    fn changed_shards_are_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "train/0.tar", &plain(&["a"]));
        let open = || ShardDataset::open(dir.path(), Split::Train, &options()).unwrap();
        assert_eq!(open().len(), 1);
        let data = open();
        assert!(data.origin.is_loaded());
        put(dir.path(), "train/0.tar", &plain(&["a", "b"]));
        // Under the feet of one that is open.
        let error = format!("{:#}", data.encoded(0, &mut Vec::new()).unwrap_err());
        assert!(error.contains("0.tar has changed"), "{error}");
        let changed = open();
        assert!(changed.origin.listed.as_ref().unwrap().contains("0.tar has changed"));
        assert_eq!(changed.len(), 2);
        put(dir.path(), "train/1.tar", &plain(&["c"]));
        assert_eq!(open().origin.listed.unwrap(), "the shards are others");
        assert_eq!(open().len(), 3);
    }

    #[test]
    fn few_files_are_open_and_threads_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let shards = MAX_OPEN * 2 + 3;
        for shard in 0..shards {
            put(dir.path(), &format!("train/{shard:04}.tar"), &plain(&[&format!("k{shard}"), "x"]));
        }
        let data = ShardDataset::open(dir.path(), Split::Train, &options()).unwrap();
        workers::map(8, 8, |thread| {
            let mut random = rng::stream(1, "read", [thread as u64, 0]);
            for _ in 0..500 {
                let index = random.random_range(0..data.len());
                let key = if index % 2 == 0 { format!("k{}.jpg", index / 2) } else { "x.jpg".to_string() };
                assert_eq!(read(&data, index), key.as_bytes());
            }
        });
        assert!(data.open.open.lock().unwrap().files.len() <= MAX_OPEN);
    }

    /// Seeded damage: never a panic, and what is accepted can be read.
    #[test]
    fn mutated_shards_are_refused_or_sound() {
        let mut builder = ::tar::Builder::new(Vec::new());
        for sample in 0..4 {
            for (extension, contents) in
                [("jpg", vec![7u8; 300 * sample]), ("json", b"{\"cls\": 1}".to_vec())]
            {
                let mut header = ::tar::Header::new_gnu();
                header.set_size(contents.len() as u64);
                let name = format!("{}/{sample}.{extension}", "n".repeat(45 * sample + 1));
                builder.append_data(&mut header, name, contents.as_slice()).unwrap();
            }
            let records = [("path", b"short.cls".as_slice()), ("size", b"1")];
            builder.append_pax_extensions(records).unwrap();
            let mut header = ::tar::Header::new_ustar();
            header.set_size(1);
            builder.append_data(&mut header, "x.cls", b"1".as_slice()).unwrap();
        }
        let whole = builder.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.tar");
        let mut random = rng::stream(2, "mutate", [0, 0]);
        let (mut accepted, rounds) = (0, 4000);
        for round in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len());
                let value =
                    [b'0', b'7', 0, 0xff, 0x80, b' ', b'9', random.random()][random.random_range(0..8)];
                // Headers matter most: names, sizes, flags.
                let spot = [at, at / 512 * 512 + random.random_range(120..160)][random.random_range(0..2)];
                if let Some(byte) = bytes.get_mut(spot) {
                    *byte = value;
                }
            }
            match random.random_range(0..8) {
                0 => bytes.truncate(random.random_range(0..bytes.len())),
                1 => {
                    let from = random.random_range(0..bytes.len() / 512) * 512;
                    bytes.drain(from..from + 512);
                }
                _ => {}
            }
            // Every other one with sums that fit, so that the damage behind them is met.
            if round % 2 == 0 {
                for header in bytes.chunks_exact_mut(512) {
                    if header[257..262] == *b"ustar" {
                        header[148..156].fill(b' ');
                        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
                        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                    }
                }
            }
            fs::write(&place, &bytes).unwrap();
            let broken = if round % 3 == 0 { Broken::KeepWhole } else { Broken::Refuse };
            let opened =
                ShardDataset::open(&place, Split::Train, &ShardOptions { broken, cache: Cache::none() });
            if let Ok(data) = opened {
                accepted += 1;
                for index in 0..data.len() {
                    assert!(read(&data, index).len() <= bytes.len());
                    let _ = (data.source_name(index), data.label(index));
                }
            }
        }
        assert!((100..rounds).contains(&accepted), "{accepted}");
    }
}
