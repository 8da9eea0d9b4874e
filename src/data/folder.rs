//! Class folders, as ImageNet is kept: `train/CLASS/**` and `val/CLASS/**` (or another [name](super::split) of the split).
//!
//! The files are listed once, by several threads, and kept in an [`index`](super::index). Folders inside a class
//! folder belong to the class, by the rules of [`walk`](super::walk). Class folders without images are skipped; one that
//! has images for evaluation alone is an error.

use super::class_names::{listed, spelled_alike};
use super::class_order::{self, ClassOrder};
use super::images::{EXTENSIONS, read_image_file};
use super::index::{Cache, Index, Kind, Listing, Origin, Stamp, Unit};
use super::shards::ShardOptions;
use super::split::{SAMPLE, SplitOrigin, find_folder, folders_in, holds_images, is_hidden, split_folders};
use super::walk::{has_images, walk};
use super::{Dataset, Image, Split, decode_file, workers};
use crate::error::{Result, failed};
use crate::escaped::{escaped, shown};
use anyhow::Context;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The file of the index in a split's folder.
const INDEX: &str = ".senet-index";

/// Images in class folders; only an index of them is in memory.
pub struct FolderDataset {
    /// The folder of the split.
    dir: PathBuf,
    split: SplitOrigin,
    index: Index,
    origin: Origin,
    classes: Vec<String>,
    /// Label of each class of the index; of a class without images, nothing that is ever read.
    labels: Vec<usize>,
    remarks: Vec<String>,
}

/// The folders of a split that are classes, or could be.
struct ClassFolders {
    /// Sorted.
    names: Vec<String>,
    /// Hidden ones and those of tools.
    hidden: Vec<String>,
}

impl FolderDataset {
    /// Opens one split of the data; plain class folders are something to evaluate on. The classes are the folders of the
    /// training split that hold images, in this `order`; where there is no training split, those of the split itself.
    ///
    /// # Errors
    /// When a folder is missing, no class has images, or images for evaluation have no class of the training split.
    pub fn open(dir: &Path, split: Split, order: ClassOrder, options: &ShardOptions) -> Result<Self> {
        let cache = &options.cache;
        let plain = || {
            let is_plain = split == Split::Eval && is_plain(dir);
            is_plain
                .then(|| (dir.to_path_buf(), SplitOrigin { name: own_name(dir), ..SplitOrigin::default() }))
        };
        let named = find_folder(dir, split, |_| true).map(|(folder, origin)| (folder.path, origin));
        let (place, origin_of_split) = named.or_else(plain).ok_or_else(|| {
            let names = if split == Split::Train {
                "train/`"
            } else {
                "val/` (or `valid/`, `validation/`, `dev/`) or `test/`"
            };
            failed(format!("{}: no folder `{names}", shown(dir)))
                .hint("class folders are expected as `train/CLASS/*` and `val/CLASS/*`")
        })?;
        let ClassFolders { names, hidden } = class_folders(&place)?;
        let root = fs::canonicalize(&place).with_context(|| format!("cannot find {}", shown(&place)))?;
        let (index, origin) = cache.open(
            &root,
            INDEX,
            Kind::Folders,
            |index| is_current(index, &place, &names),
            || list(&place, &root, &names, cache),
        )?;
        let mut has_samples = vec![false; names.len()];
        (0..index.len()).for_each(|sample| has_samples[index.label(sample)] = true);
        let (own, empty): (Vec<_>, Vec<_>) = names.iter().zip(&has_samples).partition(|(_, has)| **has);
        let own: Vec<String> = own.into_iter().map(|(name, _)| name.clone()).collect();
        let mut empty: Vec<String> = empty.into_iter().map(|(name, _)| name.clone()).collect();
        if own.is_empty() {
            return Err(no_images(&place, &names, index.skipped()[0]).into());
        }
        let train =
            find_folder(dir, Split::Train, |_| true).filter(|_| split == Split::Eval && !options.alone);
        let classes = match train {
            None => own.clone(),
            Some((train, _)) => {
                let (classes, unused) = trained_classes(&train.path)?;
                check_known(&place, &own, &train.path, &classes, &unused)?;
                // That a class of the training split has no images here is reported with the other splits' forms.
                empty.retain(|name| classes.binary_search(name).is_err());
                classes
            }
        };
        let classes = order.sort(&classes)?;
        let label_of: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
        let labels = names.iter().map(|name| label_of.get(name.as_str()).copied().unwrap_or(0)).collect();
        let mut remarks = Vec::new();
        let name = &origin_of_split.name;
        if !empty.is_empty() {
            remarks.push(format!("{name}: skipped {} without images: {}", counted(&empty), listed(&empty)));
        }
        if !hidden.is_empty() {
            remarks.push(format!("{name}: skipped hidden folders: {}", listed(&hidden)));
        }
        Ok(Self { dir: place, split: origin_of_split, index, origin, classes, labels, remarks })
    }

    /// The file of sample `index`.
    pub fn path(&self, index: usize) -> PathBuf {
        let folder = OsStr::from_bytes(self.index.unit_path(self.index.unit_of(index)));
        let mut path = self.dir.join(folder);
        path.push(OsStr::from_bytes(self.index.name(index)));
        path
    }
}

/// The name of a folder and a slash, even where it is given as `.`.
fn own_name(dir: &Path) -> String {
    let real = fs::canonicalize(dir).unwrap_or_default();
    let name = dir.file_name().or(real.file_name()).map(|name| escaped(name.as_bytes()));
    name.map_or_else(String::new, |name| format!("{name}/"))
}

/// `1 class folder`, `3 class folders`.
fn counted(folders: &[String]) -> String {
    format!("{} class folder{}", folders.len(), if folders.len() == 1 { "" } else { "s" })
}

fn no_images(place: &Path, names: &[String], skipped: u32) -> crate::error::Problem {
    let message = match (names, skipped) {
        ([only], 0) => format!("the class folder {} holds no files", shown(&place.join(only))),
        ([only], _) => format!(
            "the class folder {} holds no images, only {skipped} other file(s)",
            shown(&place.join(only))
        ),
        _ => format!("none of the {} class folders of {} holds images", names.len(), shown(place)),
    };
    failed(message).hint(format!("images end with .{}", EXTENSIONS.join(", .")))
}

/// Refuses images of classes that the training split does not have.
fn check_known(
    place: &Path,
    own: &[String],
    train: &Path,
    classes: &[String],
    without_images: &[String],
) -> Result<()> {
    let unknown: Vec<String> =
        own.iter().filter(|name| classes.binary_search(name).is_err()).cloned().collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    let (place, train) = (shown(place), shown(train));
    let empty: Vec<String> =
        unknown.iter().filter(|name| without_images.binary_search(name).is_ok()).cloned().collect();
    if !empty.is_empty() {
        let message = format!("{train} has no images of {}, but {place} has", listed(&empty));
        return Err(failed(message)
            .hint("put the training images there, or remove both class folders")
            .into());
    }
    let message = match unknown.len() {
        1 => format!("{place} has a class `{first}` that {train} lacks"),
        several => format!("{place} has {several} classes that {train} lacks: {}", listed(&unknown)),
    };
    let alike = unknown.iter().find_map(|name| {
        let known = classes.iter().find_map(|known| Some((known, spelled_alike(name, known)?)))?;
        Some(format!("`{name}` and `{}` differ in {} alone: rename one of the folders", known.0, known.1))
    });
    let hint = alike.unwrap_or_else(|| "both splits need the same class folders".to_string());
    Err(failed(message).hint(hint).into())
}

/// The class folders of the training split that hold images, and those that do not.
///
/// # Errors
/// When there is none, or one cannot be listed.
pub fn trained_classes(train: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let names = class_folders(train)?.names;
    let has = |class: usize| has_images(train, OsStr::new(&names[class]));
    let has: Vec<bool> =
        workers::map(names.len(), workers::for_listing(), has).into_iter().collect::<Result<_>>()?;
    let of = |wanted: bool| {
        names.iter().zip(&has).filter(|(_, has)| **has == wanted).map(|(name, _)| name.clone()).collect()
    };
    let (classes, empty): (Vec<String>, Vec<String>) = (of(true), of(false));
    if classes.is_empty() {
        return Err(no_images(train, &names, 0).into());
    }
    Ok((classes, empty))
}

/// Whether `dir` holds class folders itself, and no splits.
pub fn is_plain(dir: &Path) -> bool {
    if !split_folders(dir).is_empty() {
        return false;
    }
    folders_in(dir).take(SAMPLE).any(|(_, folder)| holds_images(&folder))
}

/// The folders in `dir`, sorted by name.
///
/// # Errors
/// When there is none, or names are not UTF-8.
fn class_folders(dir: &Path) -> Result<ClassFolders> {
    let unreadable = || format!("cannot list the folder {}", shown(dir));
    let (mut names, mut hidden, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let kind = entry.file_type().with_context(unreadable)?;
        if !(kind.is_dir() || (kind.is_symlink() && entry.path().is_dir())) {
            continue;
        }
        match name.to_str() {
            _ if is_hidden(&name) => hidden.push(escaped(name.as_bytes())),
            Some(name) => names.push(name.to_string()),
            None => unfit.push(escaped(name.as_bytes())),
        }
    }
    [&mut names, &mut hidden, &mut unfit].iter_mut().for_each(|names| names.sort_unstable());
    if !unfit.is_empty() {
        let message = format!("{}: names of classes must be UTF-8, not {}", shown(dir), listed(&unfit));
        return Err(failed(message)
            .hint("rename the folders; `convmv -f latin1 -t utf8 --notest` does, if they are Latin-1")
            .into());
    }
    if names.is_empty() {
        let message = format!("{} holds no class folders", shown(dir));
        return Err(failed(message).hint("one folder a class is expected, with its images inside").into());
    }
    Ok(ClassFolders { names, hidden })
}

/// Whether nothing has been added to, or removed from, any folder since it was listed.
fn is_current(index: &Index, dir: &Path, classes: &[String]) -> Result<(), String> {
    if index.classes() != classes {
        return Err("the class folders are others".to_string());
    }
    let changed = |unit: usize| {
        let path = dir.join(OsStr::from_bytes(index.unit_path(unit)));
        if index.stamp(unit) == Stamp::default() {
            return Some(format!("{} was new when it was listed", shown(&path)));
        }
        let stamp = fs::metadata(&path).map(|metadata| Stamp::of_folder(&metadata));
        (stamp.ok() != Some(index.stamp(unit))).then(|| format!("{} has changed", shown(&path)))
    };
    // Asking takes long where the disk is far.
    match workers::map(index.units(), workers::for_listing(), changed).into_iter().flatten().next() {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn list(dir: &Path, root: &Path, classes: &[String], cache: &Cache) -> Result<Index> {
    let found = workers::map(classes.len(), workers::for_listing(), |class| {
        list_class(dir, &classes[class], class as u32, cache)
    });
    let units = found.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Index::build(Kind::Folders, root, classes, units)
}

/// The folders of one class, sorted by path, with their files, sorted by name.
fn list_class(dir: &Path, class: &str, label: u32, cache: &Cache) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    walk(dir, OsStr::new(class), &mut |folder| {
        let stamp = cache.settled(Stamp::of_folder(&folder.metadata), Kind::Folders);
        let mut unit = Unit::new(&folder.path, stamp);
        unit.skipped[0] = folder.skipped;
        folder.images.iter().for_each(|name| unit.push_file(name.as_bytes(), label));
        units.push(unit);
        true
    })?;
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
        shown(&self.path(index))
    }

    fn relative_name(&self, index: usize) -> String {
        let folder = self.index.unit_path(self.index.unit_of(index));
        let name = escaped(&[folder, self.index.name(index)].join(&b'/'));
        format!("{}{name}", self.split.name)
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing {
            origin: self.origin.clone(),
            units: self.index.units(),
            bytes: self.index.size(),
            passed_over: vec![("files not named like images", u64::from(self.index.skipped()[0]))],
            remarks: self.remarks.clone(),
            class_order: class_order::remark(&self.classes),
        })
    }

    fn origin(&self) -> Option<SplitOrigin> {
        Some(self.split.clone())
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

    fn opened(dir: &Path, split: Split, cache: &Cache) -> Result<FolderDataset> {
        FolderDataset::open(
            dir,
            split,
            ClassOrder::Auto,
            &ShardOptions { cache: cache.clone(), ..ShardOptions::default() },
        )
    }

    fn open(dir: &Path, split: Split) -> FolderDataset {
        opened(dir, split, &cache()).unwrap()
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
            let data = opened(dir.path(), Split::Train, &Cache::default()).unwrap();
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
                let data = opened(dir.path(), Split::Train, &cache).unwrap();
                assert_eq!((data.len(), data.origin.is_loaded()), (len, round == 1));
                assert!(!dir.path().join("train").join(INDEX).exists());
            }
        }
        // Another data set's file under this one's name.
        let file = |dir: &Path| {
            let data = opened(dir, Split::Train, &cache).unwrap();
            data.origin.file.unwrap()
        };
        fs::copy(file(one.path()), file(two.path())).unwrap();
        let data = opened(two.path(), Split::Train, &cache).unwrap();
        assert_eq!((data.len(), why(&data).as_str()), (2, "it belongs to other data"));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_said_and_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/a/1.jpg", "file"]);
        let cache = Cache::in_folder(dir.path().join("file/below"));
        let data = opened(dir.path(), Split::Train, &cache).unwrap();
        let unsaved = data.origin.unsaved.clone().unwrap();
        assert!(unsaved.contains("file/below") && data.origin.file.is_none(), "{unsaved}");
        // The next place is tried.
        let mut cache = Cache { settle: Duration::ZERO, ..cache };
        cache.places.push(Place::Folder(dir.path().join("kept")));
        for round in 0..2 {
            let data = opened(dir.path(), Split::Train, &cache).unwrap();
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
            opened(dir.path(), split, &cache()).err().map_or(String::new(), |e| format!("{e:#}"))
        };
        let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
        let only = |dir: &Path| fs::remove_dir_all(dir.join("train/cat")).unwrap();
        let text = refusal(
            &|dir| {
                only(dir);
                remove("train/dog/2.jpg")(dir)
            },
            Split::Train,
        );
        assert!(text.contains("train/dog holds no files"), "{text}");
        let rename =
            |dir: &Path| fs::rename(dir.join("train/dog/2.jpg"), dir.join("train/dog/2.txt")).unwrap();
        let text = refusal(
            &|dir| {
                only(dir);
                rename(dir)
            },
            Split::Train,
        );
        assert!(text.contains("train/dog holds no images, only 1 other"), "{text}");
        // Of what cannot have been learned, nothing can be counted.
        let text = refusal(
            &|dir| {
                remove("train/dog/2.jpg")(dir);
                put(dir, &["val/dog/4.jpg"])
            },
            Split::Eval,
        );
        assert!(text.contains("train has no images of `dog`, but"), "{text}");
        let text = refusal(&|dir| put(dir, &["val/Cat/4.jpg"]), Split::Eval);
        assert!(text.contains("has a class `Cat` that"), "{text}");
        let text = refusal(&|dir| put(dir, &["val/fox/1.jpg"]), Split::Eval);
        assert!(text.contains("has a class `fox` that"), "{text}");
        let text = refusal(&|dir| fs::remove_dir_all(dir.join("val")).unwrap(), Split::Eval);
        assert!(text.contains("no folder `val/` (or"), "{text}");
    }

    #[test]
    fn folders_without_images_are_no_classes_and_labels_stay_right() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/cat/1.jpg", "train/dog/2.jpg", "train/fox/notes.txt", "train/.git/x.jpg"]);
        put(
            dir.path(),
            &["train/__MACOSX/cat/._1.jpg", "train/cat/@eaDir/1.jpg/thumb.jpg", "val/dog/3.jfif"],
        );
        fs::create_dir_all(dir.path().join("val/cat")).unwrap();
        fs::create_dir_all(dir.path().join("val/bat")).unwrap();
        let train = open(dir.path(), Split::Train);
        assert_eq!(
            (train.classes(), names(&train).len()),
            (["cat", "dog"].map(str::to_string).as_slice(), 2)
        );
        assert_eq!(
            train.listing().unwrap().remarks,
            [
                "train/: skipped 1 class folder without images: `fox`",
                "train/: skipped hidden folders: `.git`, `__MACOSX`"
            ]
        );
        let eval = open(dir.path(), Split::Eval);
        assert_eq!((eval.classes().len(), eval.len(), eval.label(0)), (2, 1, 1));
        assert_eq!(eval.listing().unwrap().remarks, ["val/: skipped 1 class folder without images: `bat`"]);
    }
}
