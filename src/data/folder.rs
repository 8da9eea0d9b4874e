//! Class folders, as ImageNet is kept: `train/CLASS/**` and `val/CLASS/**` (or `test/`).
//!
//! The files are listed once, by several threads, and kept in an [`index`](super::index). Folders inside a class
//! folder belong to the class; links are followed, each folder once a class, so a loop ends. Files that are not
//! named like images are passed over and counted; hidden ones are not even that.

use super::images::{has_image_extension, read_image_file};
use super::index::{Cache, Index, Kind, Listing, Origin, Stamp, Unit};
use super::{Dataset, Image, Split, decode_file, workers};
use crate::error::{Result, failed};
use anyhow::Context;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file of the index in a half's folder.
const INDEX: &str = ".senet-index";

/// Images in class folders; only an index of them is in memory.
pub struct FolderDataset {
    half: PathBuf,
    index: Index,
    origin: Origin,
    classes: Vec<String>,
    /// Label of each class of the index.
    labels: Vec<usize>,
}

impl FolderDataset {
    /// Opens one half of the data; plain class folders are something to evaluate on. The classes are the folders of `train/`, sorted by name; where there is no
    /// `train/`, those of the half itself.
    ///
    /// # Errors
    /// When a folder is missing or empty, or the halves have different classes.
    pub fn open(dir: &Path, split: Split, cache: &Cache) -> Result<Self> {
        let names = split.folders();
        let plain = || (split == Split::Eval && is_plain(dir)).then(|| dir.to_path_buf());
        let half = names.iter().map(|name| dir.join(name)).find(|path| path.is_dir());
        let half = half.or_else(plain).ok_or_else(|| {
            failed(format!("{}: no folder `{}/`", dir.display(), names.join("/` or `")))
                .hint("class folders are expected as `train/CLASS/*` and `val/CLASS/*`")
        })?;
        let own = class_folders(&half)?;
        let train = dir.join("train");
        let classes =
            if train.is_dir() && split == Split::Eval { class_folders(&train)? } else { own.clone() };
        let label = |name: &String| {
            classes.binary_search(name).map_err(|_| {
                let message =
                    format!("{} has a class `{name}` that {} lacks", half.display(), train.display());
                failed(message).hint("both halves need the same class folders")
            })
        };
        let labels = own.iter().map(label).collect::<Result<Vec<_>, _>>()?;
        let root = fs::canonicalize(&half).with_context(|| format!("cannot find {}", half.display()))?;
        let (index, origin) = cache.open(
            &root,
            INDEX,
            Kind::Folders,
            |index| is_current(index, &half, &own),
            || list(&half, &root, &own, cache),
        )?;
        Ok(Self { half, index, origin, classes, labels })
    }

    /// The file of sample `index`.
    pub fn path(&self, index: usize) -> PathBuf {
        let folder = OsStr::from_bytes(self.index.unit_path(self.index.unit_of(index)));
        let mut path = self.half.join(folder);
        path.push(OsStr::from_bytes(self.index.name(index)));
        path
    }
}

/// Whether `dir` holds class folders itself, and no halves.
pub fn is_plain(dir: &Path) -> bool {
    let halves = Split::BOTH.iter().flat_map(|split| split.folders());
    if halves.into_iter().any(|half| dir.join(half).is_dir()) {
        return false;
    }
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let has_image = |folder: fs::DirEntry| {
        folder.path().is_dir()
            && entries(&folder.path()).take(100).any(|file| has_image_extension(file.file_name().as_bytes()))
    };
    entries(dir).take(100).any(has_image)
}

/// Names of the folders in `dir`, sorted, without hidden ones.
///
/// # Errors
/// When there is none, or a name is not UTF-8.
pub fn class_folders(dir: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot list the folder {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            let name = name.to_str().with_context(|| format!("{}: not UTF-8", entry.path().display()))?;
            names.push(name.to_string());
        }
    }
    if names.is_empty() {
        let message = format!("{} holds no class folders", dir.display());
        return Err(failed(message).hint("one folder a class is expected, with its images inside").into());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether nothing has been added to, or removed from, any folder since it was listed.
fn is_current(index: &Index, half: &Path, classes: &[String]) -> Result<(), String> {
    if index.classes() != classes {
        return Err("the class folders are others".to_string());
    }
    let changed = |unit: usize| {
        let path = half.join(OsStr::from_bytes(index.unit_path(unit)));
        if index.stamp(unit) == Stamp::default() {
            return Some(format!("{} was new when it was listed", path.display()));
        }
        let stamp = fs::metadata(&path).map(|metadata| Stamp::of_folder(&metadata));
        (stamp.ok() != Some(index.stamp(unit))).then(|| format!("{} has changed", path.display()))
    };
    // Asking takes long where the disk is far.
    match workers::map(index.units(), workers::for_listing(), changed).into_iter().flatten().next() {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn list(half: &Path, root: &Path, classes: &[String], cache: &Cache) -> Result<Index> {
    let found = workers::map(classes.len(), workers::for_listing(), |class| {
        list_class(half, &classes[class], class as u32, cache)
    });
    let mut units = Vec::new();
    for (class, found) in classes.iter().zip(found) {
        let found = found?;
        if found.iter().all(Unit::is_empty) {
            let others: u32 = found.iter().map(|unit| unit.skipped[0]).sum();
            let folder = half.join(class);
            let message = match others {
                0 => format!("the class folder {} holds no files", folder.display()),
                _ => format!(
                    "the class folder {} holds no images, only {others} other file(s)",
                    folder.display()
                ),
            };
            return Err(failed(message).hint("remove the folder, or put its images there").into());
        }
        units.extend(found);
    }
    Index::build(Kind::Folders, root, classes, units)
}

/// The folders of one class, sorted by path, with their files, sorted by name.
fn list_class(half: &Path, class: &str, label: u32, cache: &Cache) -> Result<Vec<Unit>> {
    let mut waiting = vec![class.as_bytes().to_vec()];
    let mut seen = HashSet::new();
    let mut units = Vec::new();
    while let Some(path) = waiting.pop() {
        let folder = half.join(OsStr::from_bytes(&path));
        let unreadable = || format!("cannot list the folder {}", folder.display());
        // Before the listing: what is added meanwhile shows the next time.
        let metadata = fs::metadata(&folder).with_context(unreadable)?;
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let stamp = cache.settled(Stamp::of_folder(&metadata), Kind::Folders);
        let mut unit = Unit::new(&path, stamp);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            let mut kind = entry.file_type().with_context(unreadable)?;
            if kind.is_symlink() {
                // A dangling link is no file.
                match fs::metadata(entry.path()) {
                    Ok(target) => kind = target.file_type(),
                    Err(_) => {
                        unit.skipped[0] += 1;
                        continue;
                    }
                }
            }
            if kind.is_dir() {
                waiting.push([path.as_slice(), b"/", name.as_bytes()].concat());
            } else if kind.is_file() && has_image_extension(name.as_bytes()) {
                names.push(name);
            } else {
                unit.skipped[0] += 1;
            }
        }
        names.sort_unstable();
        names.iter().for_each(|name| unit.push_file(name.as_bytes(), label));
        units.push(unit);
        // Which of two links to one folder is followed must not depend on the order of the disk.
        waiting.sort_unstable_by(|a, b| b.cmp(a));
    }
    units.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(units)
}

impl Dataset for FolderDataset {
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
        self.labels[self.index.label(index)]
    }

    fn image(&self, index: usize) -> Result<Image> {
        decode_file(self, index)
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        read_image_file(&self.path(index), bytes).map(|()| true)
    }

    fn source_name(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn relative_name(&self, index: usize) -> String {
        let half = self.half.file_name().unwrap_or_default().as_bytes();
        let folder = self.index.unit_path(self.index.unit_of(index));
        let name = [half, folder, self.index.name(index)].join(&b'/');
        String::from_utf8_lossy(&name).into_owned()
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing {
            origin: self.origin.clone(),
            units: self.index.units(),
            bytes: self.index.size(),
            passed_over: vec![("files not named like images", u64::from(self.index.skipped()[0]))],
            remarks: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Place;
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    fn cache() -> Cache {
        Cache { settle: Duration::ZERO, ..Cache::default() }
    }

    fn put(dir: &Path, files: &[&str]) {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file.as_bytes()).unwrap();
        }
    }

    fn names(data: &FolderDataset) -> Vec<String> {
        (0..data.len()).map(|index| data.relative_name(index)).collect()
    }

    fn open(dir: &Path, split: Split) -> FolderDataset {
        FolderDataset::open(dir, split, &cache()).unwrap()
    }

    fn why(data: &FolderDataset) -> String {
        data.origin.listed.clone().unwrap_or_else(|| "loaded".to_string())
    }

    #[test]
    fn nested_folders_belong_to_their_class_and_other_files_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["train/cat/b.JPEG", "train/cat/a.png", "train/cat/deep/er/c.webp", "train/dog/d.jpg"];
        put(dir.path(), &files);
        put(
            dir.path(),
            &["train/cat/notes.txt", "train/cat/.hidden.jpg", "train/.git/x.jpg", "val/dog/e.jpg"],
        );
        for round in ["there is none yet", "loaded"] {
            let data = open(dir.path(), Split::Train);
            assert_eq!(why(&data), round);
            let expected =
                ["train/cat/a.png", "train/cat/b.JPEG", "train/cat/deep/er/c.webp", "train/dog/d.jpg"];
            assert_eq!(names(&data), expected);
            assert_eq!((data.index.skipped()[0], data.label(2), data.label(3)), (1, 0, 1));
            let mut bytes = b"before".to_vec();
            assert!(data.encoded(2, &mut bytes).unwrap());
            assert_eq!(bytes, b"train/cat/deep/er/c.webp");
        }
        // The evaluation half has the labels of the training half, though it lacks a class.
        let data = open(dir.path(), Split::Eval);
        assert_eq!((data.len(), data.label(0), data.classes().len()), (1, 1, 2));
    }

    #[test]
    fn every_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/a/1.jpg", "train/b/2.jpg", "train/b/deep/3.jpg"]);
        open(dir.path(), Split::Train);
        assert_eq!(why(&open(dir.path(), Split::Train)), "loaded");
        let train = dir.path().join("train");
        type Change<'a> = Box<dyn Fn() + 'a>;
        let steps: [(&str, Change<'_>, usize); 5] = [
            ("train/b has changed", Box::new(|| put(dir.path(), &["train/b/4.jpg"])), 4),
            ("b/deep has changed", Box::new(|| fs::remove_file(train.join("b/deep/3.jpg")).unwrap()), 3),
            ("class folders are others", Box::new(|| put(dir.path(), &["train/c/5.jpg"])), 4),
            (
                "class folders are others",
                Box::new(|| fs::rename(train.join("c"), train.join("d")).unwrap()),
                4,
            ),
            ("not an index", Box::new(|| fs::write(train.join(INDEX), "x").unwrap()), 4),
        ];
        for (expected, change, len) in steps {
            // The clock of the disk ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            change();
            let data = open(dir.path(), Split::Train);
            assert!(why(&data).contains(expected), "{expected:?}: {:?}", why(&data));
            assert_eq!(data.len(), len);
            assert_eq!(why(&open(dir.path(), Split::Train)), "loaded", "after {expected:?}");
        }
        let bytes = fs::read(train.join(INDEX)).unwrap();
        fs::write(train.join(INDEX), &bytes[..bytes.len() - 1]).unwrap();
        assert!(why(&open(dir.path(), Split::Train)).contains("checksum"));
    }

    #[test]
    fn a_fresh_folder_is_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/a/1.jpg"]);
        for expected in ["there is none yet", "train/a was new when it was listed"] {
            let data = FolderDataset::open(dir.path(), Split::Train, &Cache::default()).unwrap();
            assert!(why(&data).contains(expected), "{}", why(&data));
        }
    }

    #[test]
    fn loops_of_links_end() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/a/1.jpg", "train/a/b/2.jpg", "else/3.jpg"]);
        symlink("..", dir.path().join("train/a/b/up")).unwrap();
        symlink(".", dir.path().join("train/a/self")).unwrap();
        symlink("../../else", dir.path().join("train/a/else")).unwrap();
        symlink("../../../else/3.jpg", dir.path().join("train/a/b/4.jpg")).unwrap();
        symlink("nowhere.jpg", dir.path().join("train/a/dangling.jpg")).unwrap();
        let data = open(dir.path(), Split::Train);
        assert_eq!(
            names(&data),
            ["train/a/1.jpg", "train/a/b/2.jpg", "train/a/b/4.jpg", "train/a/else/3.jpg"]
        );
        assert_eq!(data.index.skipped()[0], 1);
    }

    #[test]
    fn an_index_elsewhere_knows_its_data() {
        let (one, two, kept) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(one.path(), &["train/a/1.jpg"]);
        put(two.path(), &["train/a/1.jpg", "train/a/2.jpg"]);
        let cache = Cache { settle: Duration::ZERO, ..Cache::in_folder(kept.path().join("made")) };
        for round in 0..2 {
            for (dir, len) in [(&one, 1), (&two, 2)] {
                let data = FolderDataset::open(dir.path(), Split::Train, &cache).unwrap();
                assert_eq!((data.len(), data.origin.is_loaded()), (len, round == 1));
                assert!(!dir.path().join("train").join(INDEX).exists());
            }
        }
        // Another data set's file under this one's name.
        let file = |dir: &Path| {
            let data = FolderDataset::open(dir, Split::Train, &cache).unwrap();
            data.origin.file.unwrap()
        };
        fs::copy(file(one.path()), file(two.path())).unwrap();
        let data = FolderDataset::open(two.path(), Split::Train, &cache).unwrap();
        assert_eq!((data.len(), why(&data).as_str()), (2, "it belongs to other data"));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_said_and_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/a/1.jpg", "file"]);
        let cache = Cache::in_folder(dir.path().join("file/below"));
        let data = FolderDataset::open(dir.path(), Split::Train, &cache).unwrap();
        let unsaved = data.origin.unsaved.clone().unwrap();
        assert!(unsaved.contains("file/below") && data.origin.file.is_none(), "{unsaved}");
        // The next place is tried.
        let mut cache = Cache { settle: Duration::ZERO, ..cache };
        cache.places.push(Place::Folder(dir.path().join("kept")));
        for round in 0..2 {
            let data = FolderDataset::open(dir.path(), Split::Train, &cache).unwrap();
            assert_eq!((data.origin.is_loaded(), &data.origin.unsaved), (round == 1, &None));
            assert!(data.origin.file.unwrap().starts_with(dir.path().join("kept")));
        }
    }

    #[test]
    fn missing_and_empty_folders_are_named() {
        let refusal = |prepare: &dyn Fn(&Path), split| {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), &["train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg"]);
            prepare(dir.path());
            FolderDataset::open(dir.path(), split, &cache()).err().map_or(String::new(), |e| format!("{e:#}"))
        };
        let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
        let text = refusal(&remove("train/dog/2.jpg"), Split::Train);
        assert!(text.contains("train/dog holds no files"), "{text}");
        let rename =
            |dir: &Path| fs::rename(dir.join("train/dog/2.jpg"), dir.join("train/dog/2.txt")).unwrap();
        let text = refusal(&rename, Split::Train);
        assert!(text.contains("train/dog holds no images, only 1 other"), "{text}");
        let text = refusal(&|dir| put(dir, &["val/fox/1.jpg"]), Split::Eval);
        assert!(text.contains("has a class `fox` that"), "{text}");
        let text = refusal(&|dir| fs::remove_dir_all(dir.join("val")).unwrap(), Split::Eval);
        assert!(text.contains("no folder `val/` or `test/`"), "{text}");
    }
}
