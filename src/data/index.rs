//! A cached list of the samples of a data set, so that a million files are listed once and not at every start.
//!
//! One compact file, held in memory as it lies on disk (about 40 bytes and a file name a sample in shards, 8 and a
//! name in folders): no allocation per sample, and nothing to convert when it is loaded. A *unit* is what changes as
//! a whole and is checked for changes: a folder (by the times of its last changes) or a shard (by size and time).
//!
//! ```text
//! "senetidx"  version u32  kind u32  checksum u64 (FNV-1a of all that follows)
//! classes u32  units u32  samples u32  text bytes u32  skipped 5 × u32
//! units:   stamp a i64, stamp b u64, cut at u64, first sample u32, zero u32
//! ends of the strings in the text, u32 each: root, classes, unit paths, sample names
//! labels u32;  for shards: lengths u32, offsets u64
//! text
//! ```
//!
//! An index is never believed: magic, version, checksum, all sizes, ranges and names are checked when it is loaded,
//! and it is made anew when anything is wrong or the data has changed. It may lie about a label no more than the
//! person who can write the data can anyway.

use super::images::MAX_FILE_BYTES;
use crate::error::{Result, failed};
use crate::files;
use crate::rng::fnv1a;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"senetidx";
/// Goes up when the layout or the rules of listing change.
const VERSION: u32 = 2;
const HEADER: usize = 60;
const UNIT: usize = 32;
/// Time of the last change of a shard that may still change, of which nobody can be sure later.
pub const FRESH: i64 = i64::MIN;
/// More classes than any data set in use.
pub const MAX_CLASSES: usize = 1 << 20;
/// Reasons for which members or files are passed over.
pub const SKIP_KINDS: usize = 5;

/// What an index lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Class folders; the samples are files.
    Folders = 1,
    /// Tar shards; the samples are pieces of files.
    Shards = 2,
}

/// What tells that a unit has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Time of the last change of its contents, in nanoseconds.
    pub modified: i64,
    /// Shards: bytes. Folders: time of the last change of any kind, which nobody can set back.
    pub second: u64,
}

impl Stamp {
    /// Of a folder.
    pub fn of_folder(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let changed = metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec());
        Self { modified: modified(metadata), second: changed as u64 }
    }

    /// Of a shard.
    pub fn of_shard(metadata: &fs::Metadata) -> Self {
        Self { modified: modified(metadata), second: metadata.len() }
    }
}

fn modified(metadata: &fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec())
}

/// One folder or shard, as it was found.
#[derive(Debug, Default)]
pub struct Unit {
    /// Path relative to the root.
    pub path: Vec<u8>,
    /// As it was before it was read.
    pub stamp: Stamp,
    /// Shards: where a truncated one ends; 0 where it is whole.
    pub cut: u64,
    text: Vec<u8>,
    ends: Vec<u32>,
    labels: Vec<u32>,
    lengths: Vec<u32>,
    offsets: Vec<u64>,
    /// What was passed over, by reason.
    pub skipped: [u32; SKIP_KINDS],
}

impl Unit {
    /// Without samples yet.
    pub fn new(path: &[u8], stamp: Stamp) -> Self {
        Self { path: path.to_vec(), stamp, ..Self::default() }
    }

    /// Adds a file.
    pub fn push_file(&mut self, name: &[u8], label: u32) {
        self.text.extend_from_slice(name);
        // More than 4 GiB of names in one folder wrap around here; the builder counts again and refuses them.
        self.ends.push(self.text.len() as u32);
        self.labels.push(label);
    }

    /// Adds a piece of a shard.
    pub fn push_piece(&mut self, key: &[u8], label: u32, offset: u64, length: u32) {
        self.push_file(key, label);
        self.offsets.push(offset);
        self.lengths.push(length);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Name of its sample `index`.
    pub fn name(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }
}

/// The list of all samples.
pub struct Index {
    bytes: Vec<u8>,
    layout: Layout,
}

/// Where the parts begin.
#[derive(Debug, Clone, Copy)]
struct Layout {
    kind: Kind,
    classes: usize,
    units: usize,
    samples: usize,
    ends: usize,
    labels: usize,
    lengths: usize,
    offsets: usize,
    text: usize,
}

impl Layout {
    /// Of these numbers; `None` when they are not those of a file of `total` bytes.
    fn new(
        kind: Kind,
        classes: u32,
        units: u32,
        samples: u32,
        text_bytes: u32,
        total: usize,
    ) -> Option<Self> {
        let strings = 1 + u64::from(classes) + u64::from(units) + u64::from(samples);
        let ends = HEADER as u64 + UNIT as u64 * u64::from(units);
        let labels = ends + 4 * strings;
        let lengths = labels + 4 * u64::from(samples);
        let pieces = if kind == Kind::Shards { u64::from(samples) } else { 0 };
        let offsets = lengths + 4 * pieces;
        let text = offsets + 8 * pieces;
        if text + u64::from(text_bytes) != total as u64 {
            return None;
        }
        Some(Self {
            kind,
            classes: classes as usize,
            units: units as usize,
            samples: samples as usize,
            ends: ends as usize,
            labels: labels as usize,
            lengths: lengths as usize,
            offsets: offsets as usize,
            text: text as usize,
        })
    }
}

impl Index {
    /// Of units in their order. `root` says whose index it is; `classes` are folder names, or none for shards.
    ///
    /// # Errors
    /// When there are more than 4 billion samples or 4 GiB of names.
    pub fn build(kind: Kind, root: &Path, classes: &[String], units: Vec<Unit>) -> Result<Self> {
        let too_many = || failed(format!("{}: too many samples for an index", root.display()));
        let samples: usize = units.iter().map(Unit::len).sum();
        let root_text = root.as_os_str().as_bytes();
        let text_bytes = root_text.len()
            + classes.iter().map(String::len).sum::<usize>()
            + units.iter().map(|unit| unit.path.len() + unit.text.len()).sum::<usize>();
        let count = |number: usize| u32::try_from(number).map_err(|_| too_many());
        let (class_count, unit_count) = (count(classes.len())?, count(units.len())?);
        let (sample_count, text_count) = (count(samples)?, count(text_bytes)?);
        let per_sample = if kind == Kind::Shards { 20 } else { 8 };
        let fixed = HEADER + UNIT * units.len() + 4 * (1 + classes.len() + units.len());
        let total = fixed + per_sample * samples + text_bytes;

        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(MAGIC);
        let word = |value: u32, bytes: &mut Vec<u8>| bytes.extend_from_slice(&value.to_le_bytes());
        word(VERSION, &mut bytes);
        word(kind as u32, &mut bytes);
        bytes.extend_from_slice(&[0; 8]);
        [class_count, unit_count, sample_count, text_count].iter().for_each(|count| word(*count, &mut bytes));
        for reason in 0..SKIP_KINDS {
            let sum = units.iter().fold(0u32, |sum, unit| sum.saturating_add(unit.skipped[reason]));
            word(sum, &mut bytes);
        }
        let mut first = 0;
        for unit in &units {
            bytes.extend_from_slice(&unit.stamp.modified.to_le_bytes());
            bytes.extend_from_slice(&unit.stamp.second.to_le_bytes());
            bytes.extend_from_slice(&unit.cut.to_le_bytes());
            word(first, &mut bytes);
            word(0, &mut bytes);
            first += unit.len() as u32;
        }
        let mut end = 0u32;
        let heads = std::iter::once(root_text)
            .chain(classes.iter().map(String::as_bytes))
            .chain(units.iter().map(|unit| unit.path.as_slice()));
        for head in heads.clone() {
            end += head.len() as u32;
            word(end, &mut bytes);
        }
        for unit in &units {
            unit.ends.iter().for_each(|own| word(end + own, &mut bytes));
            end += unit.text.len() as u32;
        }
        units.iter().flat_map(|unit| &unit.labels).for_each(|label| word(*label, &mut bytes));
        units.iter().flat_map(|unit| &unit.lengths).for_each(|length| word(*length, &mut bytes));
        for offset in units.iter().flat_map(|unit| &unit.offsets) {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        heads.for_each(|head| bytes.extend_from_slice(head));
        for unit in units {
            bytes.extend_from_slice(&unit.text);
        }
        let checksum = fnv1a(&bytes[24..]);
        bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
        let layout = Layout::new(kind, class_count, unit_count, sample_count, text_count, bytes.len());
        let index = Self { layout: layout.ok_or_else(too_many)?, bytes };
        match index.check() {
            Ok(()) => Ok(index),
            Err(what) => Err(failed(format!("{}: cannot be listed: {what}", root.display())).into()),
        }
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// With the reason, when they are not those of a whole and sound index of this version.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return Err("it is not an index".to_string());
        }
        let word = |at: usize| u32_at(&bytes, at);
        if word(8) != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", word(8)));
        }
        if fnv1a(&bytes[24..]) != u64_at(&bytes, 16) {
            return Err("its checksum is wrong".to_string());
        }
        let kind = match word(12) {
            1 => Kind::Folders,
            2 => Kind::Shards,
            other => return Err(format!("it is of an unknown kind ({other})")),
        };
        let layout = Layout::new(kind, word(24), word(28), word(32), word(36), bytes.len())
            .ok_or("its parts do not add up to its size")?;
        let index = Self { bytes, layout };
        index.check()?;
        Ok(index)
    }

    /// Whether everything refers to what is there, and no name leads out of the root.
    fn check(&self) -> Result<(), String> {
        let Layout { kind, classes, units, samples, .. } = self.layout;
        if classes > MAX_CLASSES {
            return Err(format!("{classes} classes"));
        }
        let text = self.bytes.len() - self.layout.text;
        let strings = 1 + classes + units + samples;
        let mut before = 0;
        for string in 0..strings {
            let end = self.end(string);
            if end < before || end > text {
                return Err("its names are out of order".to_string());
            }
            before = end;
        }
        if before != text {
            return Err("its names do not fill the text".to_string());
        }
        for class in 0..classes {
            if std::str::from_utf8(self.string(1 + class)).is_err() {
                return Err("a class name is not UTF-8".to_string());
            }
        }
        let classes = if classes == 0 { MAX_CLASSES } else { classes };
        let bad_label = |sample: &usize| self.label(*sample) >= classes;
        if let Some(sample) = (0..samples).find(bad_label) {
            return Err(format!("sample {sample} has the label {}", self.label(sample)));
        }
        let mut first = 0;
        for unit in 0..units {
            if !is_inside(self.unit_path(unit)) {
                return Err(format!("unit {unit} leads out of the folder"));
            }
            if self.first(unit) < first || self.first(unit) > samples || (unit == 0 && self.first(0) != 0) {
                return Err("its units are out of order".to_string());
            }
            first = self.first(unit);
        }
        if units == 0 && samples > 0 {
            return Err("it has samples, but no units".to_string());
        }
        for unit in 0..units {
            let size = self.stamp(unit).second;
            for sample in self.samples_of(unit) {
                let sound = match kind {
                    Kind::Folders => {
                        let name = self.name(sample);
                        !name.is_empty()
                            && name != b".."
                            && name != b"."
                            && !name.contains(&b'/')
                            && !name.contains(&0)
                    }
                    Kind::Shards => {
                        let (offset, length) = self.piece(sample);
                        let end = offset.checked_add(u64::from(length));
                        end.is_some_and(|end| end <= size) && u64::from(length) <= MAX_FILE_BYTES
                    }
                };
                if !sound {
                    return Err(format!("sample {sample} is impossible"));
                }
            }
        }
        Ok(())
    }

    fn end(&self, string: usize) -> usize {
        u32_at(&self.bytes, self.layout.ends + 4 * string) as usize
    }

    fn string(&self, string: usize) -> &[u8] {
        let start = if string == 0 { 0 } else { self.end(string - 1) };
        &self.bytes[self.layout.text..][start..self.end(string)]
    }

    fn first(&self, unit: usize) -> usize {
        u32_at(&self.bytes, HEADER + UNIT * unit + 24) as usize
    }

    /// What it lists.
    pub fn kind(&self) -> Kind {
        self.layout.kind
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.layout.samples
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory, and in the file.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whose index it is.
    pub fn root(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.string(0)))
    }

    /// Names of the classes, of folders.
    pub fn classes(&self) -> Vec<String> {
        let name = |class| String::from_utf8_lossy(self.string(1 + class)).into_owned();
        (0..self.layout.classes).map(name).collect()
    }

    /// Number of units.
    pub fn units(&self) -> usize {
        self.layout.units
    }

    /// Path of a unit relative to the root.
    pub fn unit_path(&self, unit: usize) -> &[u8] {
        self.string(1 + self.layout.classes + unit)
    }

    /// What a unit was like when it was listed.
    pub fn stamp(&self, unit: usize) -> Stamp {
        let at = HEADER + UNIT * unit;
        Stamp { modified: u64_at(&self.bytes, at) as i64, second: u64_at(&self.bytes, at + 8) }
    }

    /// Where a truncated shard ends.
    pub fn cut(&self, unit: usize) -> Option<u64> {
        Some(u64_at(&self.bytes, HEADER + UNIT * unit + 16)).filter(|cut| *cut != 0)
    }

    /// The samples of a unit.
    pub fn samples_of(&self, unit: usize) -> std::ops::Range<usize> {
        let end = if unit + 1 < self.units() { self.first(unit + 1) } else { self.len() };
        self.first(unit)..end
    }

    /// The unit of a sample.
    pub fn unit_of(&self, sample: usize) -> usize {
        // The last unit that begins at or before it; empty ones begin where the next does.
        let (mut low, mut high) = (0, self.units());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first(middle) <= sample { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// File name or key of a sample.
    pub fn name(&self, sample: usize) -> &[u8] {
        self.string(1 + self.layout.classes + self.layout.units + sample)
    }

    /// Class index of a sample.
    pub fn label(&self, sample: usize) -> usize {
        u32_at(&self.bytes, self.layout.labels + 4 * sample) as usize
    }

    /// Offset and length of a sample in its shard; of shards only.
    pub fn piece(&self, sample: usize) -> (u64, u32) {
        let length = u32_at(&self.bytes, self.layout.lengths + 4 * sample);
        (u64_at(&self.bytes, self.layout.offsets + 8 * sample), length)
    }

    /// What was passed over, by reason.
    pub fn skipped(&self) -> [u32; SKIP_KINDS] {
        std::array::from_fn(|reason| u32_at(&self.bytes, 40 + 4 * reason))
    }

    /// The file's contents.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Whether a path is relative and without `..`, so that it stays below the folder it is joined to.
pub fn is_inside(path: &[u8]) -> bool {
    !path.starts_with(b"/")
        && !path.contains(&0)
        && path.split(|byte| *byte == b'/').all(|part| part != b"..")
}

/// Where an index is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the folder of its data.
    Beside,
    /// In a folder for the indexes of all data sets.
    Folder(PathBuf),
}

/// Where indexes are kept, and when one is made anew.
#[derive(Debug, Clone)]
pub struct Cache {
    /// A new index goes to the first place that can be written to; none are kept where there is no place.
    pub places: Vec<Place>,
    /// List the data anew whatever is kept.
    pub rebuild: bool,
    /// What changed as lately as this before it was listed may change again within the same tick of the disk's
    /// clock, unseen; such a unit is listed anew the next time.
    pub settle: Duration,
}

impl Default for Cache {
    /// Beside the data.
    fn default() -> Self {
        Self { places: vec![Place::Beside], rebuild: false, settle: Duration::from_secs(2) }
    }
}

/// How an index was come by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The file that keeps it; none where it could not be kept.
    pub file: Option<PathBuf>,
    /// Why the data was listed; none where the kept index did.
    pub listed: Option<String>,
    /// Why a new index could not be kept; the data works without.
    pub unsaved: Option<String>,
}

impl Origin {
    /// Whether it was kept, and nothing was listed.
    pub fn is_loaded(&self) -> bool {
        self.listed.is_none()
    }
}

/// What is known of the listing of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// How it was come by.
    pub origin: Origin,
    /// Folders or shards.
    pub units: usize,
    /// Size of the index, in memory and on the disk.
    pub bytes: usize,
    /// What was passed over, and how much of it there was.
    pub passed_over: Vec<(&'static str, u64)>,
    /// What else the user should know.
    pub remarks: Vec<String>,
    /// Which order of the classes is used, where another would give other labels.
    pub class_order: Option<String>,
}

impl Cache {
    /// No index is read or written.
    pub fn none() -> Self {
        Self { places: Vec::new(), ..Self::default() }
    }

    /// In a folder of its own.
    pub fn in_folder(dir: impl Into<PathBuf>) -> Self {
        Self { places: vec![Place::Folder(dir.into())], ..Self::default() }
    }

    /// Beside the data; where that cannot be written to, in the user's cache (`$XDG_CACHE_HOME/senet/index` or
    /// `~/.cache/senet/index`).
    pub fn for_user() -> Self {
        let mut cache = Self::default();
        // As the XDG specification has it, a path that is not absolute counts as none.
        let folder =
            |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let user = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        cache.places.extend(user.map(|user| Place::Folder(user.join("senet/index"))));
        cache
    }

    /// The same, without making anything anew that does for itself.
    pub fn kept(self) -> Self {
        Self { rebuild: false, ..self }
    }

    /// The kept index when it is sound, belongs to `root` and is `current`; else a new one from `list`, which is kept.
    ///
    /// # Errors
    /// When the data cannot be listed. A cache that cannot be read or written is no error.
    pub fn open(
        &self,
        root: &Path,
        name: &str,
        kind: Kind,
        current: impl Fn(&Index) -> Result<(), String>,
        list: impl FnOnce() -> Result<Index>,
    ) -> Result<(Index, Origin)> {
        let load = |place: &Place| {
            let file = place.file(root, name);
            let Some(bytes) = read_bounded(&file)? else { return Ok(None) };
            let index = Index::from_bytes(bytes)?;
            // Beside the data it belongs to it, whatever the folder is called by now.
            if index.kind() != kind || (*place != Place::Beside && index.root() != root) {
                return Err("it belongs to other data".to_string());
            }
            current(&index)?;
            Ok(Some((index, Origin { file: Some(file), ..Origin::default() })))
        };
        let mut why = None;
        for place in self.places.iter().filter(|_| !self.rebuild) {
            match load(place) {
                Ok(Some(kept)) => return Ok(kept),
                Ok(None) => {}
                // The first place is where an index is kept if it can be.
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        let index = list()?;
        let otherwise = match self.places.is_empty() {
            _ if self.rebuild => "it was asked for",
            true => "no index is kept",
            false => "there is none yet",
        };
        let listed = why.unwrap_or_else(|| otherwise.to_string());
        let mut origin = Origin { listed: Some(listed), ..Origin::default() };
        for place in &self.places {
            let file = place.file(root, name);
            let keep = || {
                if let Place::Folder(dir) = place {
                    files::create_dir(dir)?;
                }
                files::write_atomic(&file, index.as_bytes())
            };
            match keep() {
                Ok(()) => {
                    origin.file = Some(file);
                    origin.unsaved = None;
                    break;
                }
                Err(error) => origin.unsaved = Some(format!("{error:#}")),
            }
        }
        Ok((index, origin))
    }

    /// The stamp to keep of a unit that is being listed: none, which nothing matches, when it is too fresh.
    pub fn settled(&self, stamp: Stamp, kind: Kind) -> Stamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let window = self.settle.as_nanos() as i64;
        let fresh = |time: i64| window > 0 && now.saturating_sub(time).abs() <= window;
        match kind {
            Kind::Folders if fresh(stamp.modified) || fresh(stamp.second as i64) => Stamp::default(),
            Kind::Shards if fresh(stamp.modified) => Stamp { modified: FRESH, ..stamp },
            _ => stamp,
        }
    }
}

impl Place {
    /// The file of the index `name` of what lies in `root`.
    fn file(&self, root: &Path, name: &str) -> PathBuf {
        let beside = root.join(name);
        match self {
            Self::Beside => beside,
            Self::Folder(dir) => {
                dir.join(format!("{:016x}.senet-index", fnv1a(beside.as_os_str().as_bytes())))
            }
        }
    }
}

/// A file's bytes, with no more memory than it has bytes; `None` where there is no file.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let open = || -> std::io::Result<(File, fs::Metadata)> {
        // Looked at before it is opened: a pipe would wait for a writer.
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        Ok((File::open(path)?, metadata))
    };
    let (file, metadata) = match open() {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read ({error})")),
    };
    let mut start = [0; 8];
    let magic = (&file).read_exact(&mut start);
    if magic.is_err() || start != *MAGIC {
        return Err("it is not an index".to_string());
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if bytes.try_reserve_exact(size).is_err() {
        return Err("it is too large".to_string());
    }
    bytes.extend_from_slice(&start);
    match file.take(metadata.len().saturating_sub(8)).read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(format!("it cannot be read ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::Rng;

    fn sample_index(kind: Kind) -> Index {
        let mut units = Vec::new();
        for unit in 0..4u32 {
            let mut made = Unit {
                path: format!("unit-{unit}").into_bytes(),
                stamp: Stamp { modified: 1_000 + i64::from(unit), second: 1 << 20 },
                ..Unit::default()
            };
            made.skipped[0] = unit;
            // The third is empty.
            for file in 0..[3u32, 1, 0, 2][unit as usize] {
                let name = format!("{unit}-{file}.jpg");
                match kind {
                    Kind::Folders => made.push_file(name.as_bytes(), unit),
                    Kind::Shards => made.push_piece(name.as_bytes(), unit, 512 * (1 + u64::from(file)), 100),
                }
            }
            units.push(made);
        }
        let classes: Vec<String> = ["a", "b", "c", "d"].map(str::to_string).to_vec();
        Index::build(kind, Path::new("/data/train"), &classes, units).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for kind in [Kind::Folders, Kind::Shards] {
            let index = Index::from_bytes(sample_index(kind).as_bytes().to_vec()).unwrap();
            assert_eq!((index.len(), index.units(), index.kind()), (6, 4, kind));
            assert_eq!(index.classes(), ["a", "b", "c", "d"]);
            assert_eq!(index.root(), Path::new("/data/train"));
            let names: Vec<_> = (0..6).map(|sample| String::from_utf8_lossy(index.name(sample))).collect();
            assert_eq!(names, ["0-0.jpg", "0-1.jpg", "0-2.jpg", "1-0.jpg", "3-0.jpg", "3-1.jpg"]);
            assert_eq!((0..6).map(|sample| index.unit_of(sample)).collect::<Vec<_>>(), [0, 0, 0, 1, 3, 3]);
            assert_eq!((0..6).map(|sample| index.label(sample)).collect::<Vec<_>>(), [0, 0, 0, 1, 3, 3]);
            assert_eq!(index.unit_path(3), b"unit-3");
            assert_eq!(index.samples_of(2), 4..4);
            assert_eq!(index.skipped(), [6, 0, 0, 0, 0]);
            assert_eq!(index.stamp(2).modified, 1_002);
            if kind == Kind::Shards {
                assert_eq!(index.piece(5), (1024, 100));
            }
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        for kind in [Kind::Folders, Kind::Shards] {
            let whole = sample_index(kind).as_bytes().to_vec();
            for at in 0..whole.len() {
                for bit in [1u8, 0x80] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= bit;
                    assert!(Index::from_bytes(bytes).is_err(), "{kind:?}: byte {at}");
                }
                assert!(Index::from_bytes(whole[..at].to_vec()).is_err(), "{kind:?}: {at} bytes");
            }
            let longer = [whole.as_slice(), b"x"].concat();
            assert!(Index::from_bytes(longer).is_err());
        }
    }

    /// Damage with a checksum that fits: what an attacker would write.
    #[test]
    fn a_forged_index_is_refused_or_harmless() {
        let mut random = rng::stream(1, "forge", [0, 0]);
        let mut refused = 0;
        for round in 0..20_000 {
            let kind = if round % 2 == 0 { Kind::Folders } else { Kind::Shards };
            let mut bytes = sample_index(kind).as_bytes().to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(8..bytes.len());
                bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, b'/', b'.', random.random()]
                    .get(random.random_range(0..8))
                    .unwrap();
            }
            if random.random_bool(0.1) {
                bytes.truncate(random.random_range(0..bytes.len()));
            }
            if bytes.len() >= 24 {
                let checksum = fnv1a(&bytes[24..]);
                bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
            }
            let Ok(index) = Index::from_bytes(bytes) else {
                refused += 1;
                continue;
            };
            // What passed can be read in every part.
            let classes = index.classes().len();
            for sample in 0..index.len() {
                assert!(index.label(sample) < classes);
                assert!(index.samples_of(index.unit_of(sample)).contains(&sample));
                assert!(is_inside(index.unit_path(index.unit_of(sample))));
                let _ = index.name(sample);
                if index.kind() == Kind::Shards {
                    let _ = index.piece(sample);
                } else {
                    assert!(!index.name(sample).contains(&b'/'));
                }
            }
            let _ = (index.skipped(), index.root());
        }
        assert!(refused > 5_000, "{refused}");
    }

    #[test]
    fn paths_that_lead_out_are_known() {
        for inside in ["a", "a/b", "", "a..b/..c"] {
            assert!(is_inside(inside.as_bytes()), "{inside}");
        }
        for outside in ["/a", "..", "a/../../b", "a/..", "a\0b"] {
            assert!(!is_inside(outside.as_bytes()), "{outside}");
        }
    }
}
