//! Tar shards by WebDataset's convention: the members `KEY.jpg` (or another image) and `KEY.cls` (the label in
//! decimal digits) or `KEY.json` (an object with `cls` or `label`) make a sample; they lie side by side. The key is
//! the path up to the first dot of the file name.
//!
//! The headers are read once and kept in an [`index`](super::index); samples are then read at their place, in any
//! order. Links, devices, sparse files and members with absolute paths or `..` are passed over and counted.
//!
//! * `find` says which shards a folder or a pattern names.
//! * `list` makes the index of them.
//! * [`tar`] reads the headers, [`pack`] makes shards.

mod find;
mod handles;
mod list;
pub mod pack;
pub mod tar;

use super::index::{Cache, Index, Kind, Listing, Origin};
use super::split::SplitOrigin;
use super::{Dataset, Image, Split, decode_file};
use crate::error::{Result, failed};
use crate::escaped::{escaped, shown};
use anyhow::Context;
use find::{Found, class_names, find};
pub use find::{are_in, compressed_in, has, is_named, is_shard_name};
use handles::Handles;
pub use list::list_members;
use list::{is_current, list};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Shards open at once; many systems allow 1024 files.
const MAX_OPEN: usize = 64;

/// What is passed over, in the order of [`Index::skipped`].
const PASSED_OVER: [&str; 5] = [
    "links, devices and sparse files",
    "members with absolute paths or `..`",
    // Notes, or what a cut has left.
    "keys without an image",
    // With `Broken::KeepWhole` only.
    "images without a label",
    "images whose file names have more than one dot: the key ends at the first",
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
    /// Whether a split of class folders is looked at by itself: its classes need not be those of the other.
    pub alone: bool,
}

impl ShardOptions {
    /// As training opens data: whole shards only, and an index that is kept.
    pub fn for_training() -> Self {
        Self { cache: Cache::for_user(), ..Self::default() }
    }
}

/// Samples in tar shards; only an index of them is in memory.
pub struct ShardDataset {
    /// The folder as it was named, for messages.
    folder: PathBuf,
    /// What relative names begin with: the split's folder, where it was found below the data's.
    prefix: String,
    split: SplitOrigin,
    remarks: Vec<String>,
    index: Index,
    origin: Origin,
    classes: Vec<String>,
    open: Handles,
}

impl ShardDataset {
    /// Opens the shards that `place` names: a shard (`train.tar`), a pattern of them (`train-{000000..000099}.tar`,
    /// `train-*.tar`), a folder of them, or a folder with `train/` and `val/` (or another [name](super::split) of a split).
    /// In a folder that directly holds shards of several splits, the words of their names say which is which. A pattern
    /// with a word of the other split stands for its folder: `train-*.tar` has its evaluation split in `val-*.tar` beside
    /// it.
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
            let message = format!("the shards of {} hold no samples", shown(place));
            let hint = match index.skipped()[4] {
                0 => "a sample is KEY.jpg with KEY.cls or KEY.json",
                _ => {
                    "a sample is KEY.jpg with KEY.cls or KEY.json, and KEY ends at the first dot: rename the members"
                }
            };
            return Err(failed(message).hint(hint).into());
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
        let Found { folder, prefix, split, remarks, .. } = found;
        let data = Self { folder, prefix, split, remarks, index, origin, classes, open };
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
        format!("{}:{}", shown(&shard), escaped(self.index.name(index)))
    }

    fn relative_name(&self, index: usize) -> String {
        let shard = escaped(self.index.unit_path(self.index.unit_of(index)));
        format!("{}{shard}:{}", self.prefix, escaped(self.index.name(index)))
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
            remarks: self.remarks.iter().cloned().chain(self.cut_shards()).collect(),
            class_order: None,
        })
    }

    fn origin(&self) -> Option<SplitOrigin> {
        Some(self.split.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::workers;
    use super::tar::{write_end, write_member};
    use super::*;
    use crate::rng;
    use rand::Rng;
    use std::time::Duration;

    fn options() -> ShardOptions {
        ShardOptions {
            cache: Cache { settle: Duration::ZERO, ..Cache::default() },
            ..ShardOptions::default()
        }
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
            assert_eq!(data.index.skipped(), [0, 0, 0, 0, 1]);
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
        assert!(error("train", Split::Eval).contains("no shards of the split `val` or `test`"));
        assert!(error("nowhere/x.tar", Split::Train).contains("nowhere does not exist"));
        assert!(error("flat/{1..", Split::Train).contains("a range is written"));
        assert!(error("flat/{2..1}", Split::Train).contains("backwards"));
        assert!(error("flat/{1..999999999999999999}{1..9}", Split::Train).contains("more than 100000"));
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
        assert_eq!(data.index.skipped(), [4, 2, 0, 0, 0]);
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
        assert!(data.open.count() <= MAX_OPEN);
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
            let opened = ShardDataset::open(
                &place,
                Split::Train,
                &ShardOptions { broken, cache: Cache::none(), alone: false },
            );
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
