//! ImageNet's validation half as it is handed out: a flat folder of `ILSVRC2012_val_00000001.JPEG` to `…50000.JPEG`,
//! and a list with the WordNet id of each, a line an image; or the development kit's list of numbers
//! (`ILSVRC2012_validation_ground_truth.txt`), which are not those of the sorted ids: its table `meta.mat` tells which is
//! which.

use super::folder::trained_classes;
use super::images::read_image_file;
use super::split::{NamedSplit, SplitOrigin};
use super::{Dataset, Image, decode_file, imagenet_meta};
use crate::error::{Result, failed};
use crate::escaped::shown;
use crate::files;
use anyhow::Context;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that the list goes by.
const LISTS: [&str; 3] = [
    "imagenet_2012_validation_synset_labels.txt",
    "synset_labels.txt",
    "ILSVRC2012_validation_synset_labels.txt",
];
const NUMBERS: &str = "ILSVRC2012_validation_ground_truth.txt";
/// What its numbers stand for.
const TABLE: &str = "meta.mat";
/// More bytes than that table has.
const MAX_TABLE: u64 = 16 << 20;
/// The folder that the development kit unpacks to.
const KIT: &str = "ILSVRC2012_devkit_t12";
const PREFIX: &str = "ILSVRC2012_val_";
/// More than there are images, in case there is a larger list once.
const MAX_IMAGES: usize = 1 << 20;

/// The flat validation folder.
pub struct ImagenetVal {
    dir: PathBuf,
    /// What relative names begin with: `val/`, or nothing where the images lie in the data's folder itself.
    prefix: &'static str,
    /// Number and ending of each file, and its label.
    files: Vec<(u32, &'static str, u32)>,
    classes: Vec<String>,
}

/// The folder of the images: `val/` in `dir`, or `dir` itself where there is no `val/`.
fn locate(dir: &Path) -> Option<PathBuf> {
    let val = dir.join("val");
    let place = if val.is_dir() { val } else { dir.to_path_buf() };
    let mut entries = fs::read_dir(&place).ok()?.take(1000).flatten();
    entries.any(|entry| parse(&entry.file_name().to_string_lossy()).is_some()).then_some(place)
}

/// Whether `dir`, or its `val/`, is such a folder.
pub fn is_here(dir: &Path) -> bool {
    locate(dir).is_some()
}

/// Number and ending of a file's name.
fn parse(name: &str) -> Option<(u32, &'static str)> {
    let (_, ending) = name.split_once('.')?;
    let ending = ["JPEG", "jpeg", "jpg", "JPG"].into_iter().find(|known| *known == ending)?;
    Some((image_number(name)?, ending))
}

/// The number of the validation image that a file of this name, or a sample with this key, is; whatever it ends with.
pub fn image_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX)?.split('.').next()?;
    (digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    digits.parse().ok()
}

/// The sorted WordNet ids of ImageNet-1k.
fn imagenet_ids() -> Vec<String> {
    let lines = include_str!("../models/imagenet_classes.txt").lines();
    let ids = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next());
    ids.map(str::to_string).collect()
}

impl ImagenetVal {
    /// Opens the folder `dir`, or its `val/`. The list is looked for beside the images and one folder above. Classes
    /// are the folders of `dir/train/`, where there are any, else the 1000 sorted ids.
    ///
    /// # Errors
    /// When there are no images or no list, or an id has no class.
    pub fn open(dir: &Path) -> Result<Self> {
        let place = locate(dir).ok_or_else(|| {
            failed(format!("{}: no files {PREFIX}00000001.JPEG and so on", dir.display()))
                .hint("unpack ILSVRC2012_img_val.tar there, or in `val/`")
        })?;
        let train = dir.join("train");
        let classes = if train.is_dir() { trained_classes(&train)?.0 } else { imagenet_ids() };
        let labels = List::find(dir, &place)?.labels(&classes)?;
        let unreadable = || format!("cannot list the folder {}", place.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(&place).with_context(unreadable)? {
            let name = entry.with_context(unreadable)?.file_name();
            let Some((number, ending)) = name.to_str().and_then(parse) else { continue };
            let label = (number as usize).checked_sub(1).and_then(|line| labels.get(line));
            let Some(label) = label else {
                let message = format!(
                    "{}: the list has {} lines, none for this image",
                    place.join(&name).display(),
                    labels.len()
                );
                return Err(failed(message).hint("line N of the list is of image N, from 1").into());
            };
            files.push((number, ending, *label));
        }
        files.sort_unstable();
        if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let message = format!("{}: image {} is there twice", place.display(), pair[0].0);
            return Err(failed(message).hint("remove one of the two files").into());
        }
        let prefix = if place == dir { "" } else { "val/" };
        Ok(Self { dir: place, prefix, files, classes })
    }

    fn name(&self, index: usize) -> String {
        let (number, ending, _) = self.files[index];
        format!("{PREFIX}{number:08}.{ending}")
    }
}

/// A list of the images' classes.
enum List {
    /// WordNet ids.
    Ids(PathBuf),
    /// Numbers, and the table that says which ids they stand for.
    Numbers(PathBuf, PathBuf),
}

impl List {
    /// Looks beside the images, and in the folders that the development kit unpacks to.
    fn find(dir: &Path, place: &Path) -> Result<Self> {
        let above = place.join("..");
        let kit = |dir: &Path| dir.join(KIT).join("data");
        let places = [place.to_path_buf(), dir.to_path_buf(), above.clone(), kit(dir), kit(&above)];
        let find = |name: &str| places.iter().map(|place| place.join(name)).find(|path| path.is_file());
        if let Some(list) = LISTS.iter().find_map(|name| find(name)) {
            return Ok(Self::Ids(list));
        }
        let message = match (find(NUMBERS), find(TABLE)) {
            (Some(numbers), Some(table)) => return Ok(Self::Numbers(numbers, table)),
            (Some(numbers), None) => {
                format!("{}: its numbers alone do not say which classes they are", numbers.display())
            }
            (None, _) => format!("{}: no list of labels, {}", place.display(), LISTS[0]),
        };
        let hint = format!(
            "{} (a WordNet id a line, line N for image N), or the development kit's {NUMBERS} and {TABLE}, are expected \
             beside the images or one folder above",
            LISTS[0]
        );
        Err(failed(message).hint(hint).into())
    }

    /// The label of each image, from the first on.
    fn labels(&self, classes: &[String]) -> Result<Vec<u32>> {
        match self {
            Self::Ids(path) => labels_of_ids(path, &files::read_text(path)?, classes),
            Self::Numbers(numbers, table) => read_numbers(numbers, table, classes),
        }
    }
}

fn by_id(classes: &[String]) -> HashMap<&str, u32> {
    classes.iter().zip(0..).map(|(class, label)| (class.as_str(), label)).collect()
}

fn read_numbers(path: &Path, table: &Path, classes: &[String]) -> Result<Vec<u32>> {
    let size = fs::metadata(table).with_context(|| format!("cannot read {}", table.display()))?.len();
    if size > MAX_TABLE {
        let message = format!("{}: {size} bytes, more than such a table has", table.display());
        return Err(failed(message).hint("unpack the development kit again").into());
    }
    labels_of_numbers(path, &files::read_text(path)?, table, &files::read(table)?, classes)
}

/// The label of each line of `text`, the numbers that `meta`, the bytes of the development kit's table, explains.
/// `path` and `table` only name the two files.
///
/// # Errors
/// When the table is damaged, a line is no number of it, or its class is none of `classes`.
pub fn labels_of_numbers(
    path: &Path,
    text: &str,
    table: &Path,
    meta: &[u8],
    classes: &[String],
) -> Result<Vec<u32>> {
    let ids = imagenet_meta::wordnet_ids(meta).map_err(|what| {
        failed(format!("{}: {what}", table.display())).hint("unpack the development kit again")
    })?;
    let known = by_id(classes);
    let labels: Vec<Option<u32>> = ids.iter().map(|id| known.get(id.as_str()).copied()).collect();
    let problem = |line: usize, what: String| failed(format!("{}, line {line}: {what}", path.display()));
    let numbers = imagenet_meta::read_numbers(text, ids.len()).map_err(|(line, what)| problem(line, what))?;
    let label = |(line, number): (usize, usize)| {
        labels[number].ok_or_else(|| {
            let what =
                format!("number {} is {}, none of the {} classes", number + 1, ids[number], classes.len());
            problem(line + 1, what).hint("WordNet ids are expected, as `train/` has them").into()
        })
    };
    numbers.into_iter().enumerate().map(label).collect()
}

/// The label of each line of `text`, a WordNet id each. `path` only names the file.
///
/// # Errors
/// When a line is none of `classes`, or there are more lines than images.
pub fn labels_of_ids(path: &Path, text: &str, classes: &[String]) -> Result<Vec<u32>> {
    let known = by_id(classes);
    let mut labels = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let id = line.trim();
        let problem = |what: String| failed(format!("{}, line {}: {what}", path.display(), number + 1));
        if number >= MAX_IMAGES {
            return Err(problem("more lines than ImageNet has images".to_string()).into());
        }
        match known.get(id) {
            Some(label) => labels.push(*label),
            None if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => {
                let what = format!("a WordNet id is expected, not the number {id}");
                return Err(problem(what).hint("numbers alone do not say which classes they are").into());
            }
            None => {
                let what = format!("\"{}\" is not one of the {} classes", id.escape_debug(), classes.len());
                return Err(problem(what).hint("WordNet ids are expected, as `train/` has them").into());
            }
        }
    }
    Ok(labels)
}

impl Dataset for ImagenetVal {
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
        self.files[index].2 as usize
    }

    fn image(&self, index: usize) -> Result<Image> {
        decode_file(self, index)
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        read_image_file(&self.dir.join(self.name(index)), bytes).map(|()| true)
    }

    fn source_name(&self, index: usize) -> String {
        shown(&self.dir.join(self.name(index)))
    }

    fn relative_name(&self, index: usize) -> String {
        format!("{}{}", self.prefix, self.name(index))
    }

    fn origin(&self) -> Option<SplitOrigin> {
        Some(SplitOrigin::fixed(self.prefix, NamedSplit::Validation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(list: Option<(&str, &str)>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("val")).unwrap();
        for number in [3, 1, 2] {
            fs::write(dir.path().join(format!("val/{PREFIX}{number:08}.JPEG")), [number]).unwrap();
        }
        if let Some((name, text)) = list {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn refusal(list: Option<(&str, &str)>) -> String {
        ImagenetVal::open(prepared(list).path()).err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn ids_become_labels() {
        assert_eq!(imagenet_ids().len(), 1000);
        assert!(imagenet_ids().is_sorted());
        let list = Some((LISTS[0], "n01443537\nn01440764\nn15075141\n"));
        let dir = prepared(list);
        let data = ImagenetVal::open(dir.path()).unwrap();
        assert_eq!((data.len(), [0, 1, 2].map(|index| data.label(index))), (3, [1, 0, 999]));
        let mut bytes = Vec::new();
        assert!(data.encoded(2, &mut bytes).unwrap() && bytes == [3]);
        assert_eq!(data.relative_name(0), "val/ILSVRC2012_val_00000001.JPEG");
        // With the classes of a part of the training half.
        for class in ["n01440764", "n01443537", "n15075141"] {
            fs::create_dir_all(dir.path().join("train").join(class)).unwrap();
            fs::write(dir.path().join("train").join(class).join("1.JPEG"), "").unwrap();
        }
        let data = ImagenetVal::open(dir.path()).unwrap();
        assert_eq!((data.classes().len(), data.label(2)), (3, 2));
        assert!(is_here(dir.path()) && !is_here(&dir.path().join("train")));
    }

    #[test]
    fn the_development_kits_numbers_become_labels_by_its_table() {
        let dir = prepared(None);
        let kit = dir.path().join(KIT).join("data");
        fs::create_dir_all(&kit).unwrap();
        fs::write(kit.join(NUMBERS), "2\n12\n1\n").unwrap();
        fs::write(kit.join(TABLE), include_bytes!("../../tests/golden/meta.mat")).unwrap();
        // The table's ids are made up, and their order is not that of its numbers.
        let id = |number: usize| format!("n{}", 10_000_000 + 7919 * number % 1000);
        for number in 1..=12 {
            fs::create_dir_all(dir.path().join("train").join(id(number))).unwrap();
            fs::write(dir.path().join("train").join(id(number)).join("1.JPEG"), "").unwrap();
        }
        let data = ImagenetVal::open(dir.path()).unwrap();
        let class = |index: usize| data.classes()[data.label(index)].clone();
        assert_eq!([0, 1, 2].map(class), [2, 12, 1].map(id));
        fs::remove_dir_all(dir.path().join("train").join(id(12))).unwrap();
        let text = ImagenetVal::open(dir.path()).err().unwrap().to_string();
        assert!(text.contains("line 2: number 12 is n10000028, none of the 11 classes"), "{text}");
        fs::write(kit.join(NUMBERS), "2\n13\n1\n").unwrap();
        let text = ImagenetVal::open(dir.path()).err().unwrap().to_string();
        assert!(text.contains("line 2: expected a number from 1 to 12, found 13"), "{text}");
        fs::write(kit.join(TABLE), "MATLAB").unwrap();
        assert!(ImagenetVal::open(dir.path()).err().unwrap().to_string().contains("meta.mat: "));
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        assert!(refusal(None).contains("no list of labels"));
        assert!(refusal(Some((NUMBERS, "490\n361\n171\n"))).contains("its numbers alone"));
        assert!(
            refusal(Some((LISTS[1], "490\n")))
                .contains("line 1: a WordNet id is expected, not the number 490")
        );
        assert!(
            refusal(Some((LISTS[1], "n01440764\ncat\n"))).contains("line 2: \"cat\" is not one of the 1000")
        );
        assert!(
            refusal(Some((LISTS[1], "n01440764\n"))).contains("the list has 1 lines, none for this image")
        );
    }
}
