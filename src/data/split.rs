//! Train and evaluation split: which folder or shard belongs to which, by the words of its name.
//!
//! Validation data is preferred to test data for evaluation, and neither is ever taken for training.

use super::images::has_image_extension;
use crate::error::{Problem, failed};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A split of a data set by its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// For evaluation: the validation split, or the test split where there is no other.
    Eval,
}

impl Split {
    /// Both splits.
    pub const BOTH: [Self; 2] = [Self::Train, Self::Eval];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

/// A split by its name. In the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedSplit {
    /// For training.
    Train,
    /// To choose settings and checkpoints by.
    Validation,
    /// For the last figure.
    Test,
}

/// Words that name a split, in lower case and in the order of preference.
const WORDS: [(&str, NamedSplit); 16] = [
    ("train", NamedSplit::Train),
    ("training", NamedSplit::Train),
    ("trainset", NamedSplit::Train),
    ("trainval", NamedSplit::Train),
    ("val", NamedSplit::Validation),
    ("valid", NamedSplit::Validation),
    ("validation", NamedSplit::Validation),
    ("validate", NamedSplit::Validation),
    ("valset", NamedSplit::Validation),
    ("minival", NamedSplit::Validation),
    ("dev", NamedSplit::Validation),
    ("eval", NamedSplit::Validation),
    ("evaluation", NamedSplit::Validation),
    ("test", NamedSplit::Test),
    ("testing", NamedSplit::Test),
    ("testset", NamedSplit::Test),
];

/// Place of a word in [`WORDS`], whatever the case of its letters.
fn rank(word: &[u8]) -> Option<usize> {
    WORDS.iter().position(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()))
}

impl NamedSplit {
    /// What it is used for.
    pub fn split(self) -> Split {
        match self {
            Self::Train => Split::Train,
            Self::Validation | Self::Test => Split::Eval,
        }
    }

    /// The split that the words of a file name name, wherever they stand: `imagenet1k-validation-00.tar`,
    /// `ImageNetTrain_0.tar`. Words are runs of letters; a capital after a small letter begins another. Of words of
    /// validation and test, those of validation count.
    ///
    /// # Errors
    /// When words of the training split and of another one are in it.
    pub fn of_file(name: &[u8]) -> Result<Option<Self>, Problem> {
        let mut found: Vec<(usize, &[u8])> =
            words(name).filter_map(|word| rank(word).map(|rank| (rank, word))).collect();
        found.sort_unstable_by_key(|(rank, _)| *rank);
        let named = |(rank, _): &(usize, &[u8])| WORDS[*rank].1;
        match (found.first(), found.last()) {
            (Some(first), Some(last)) if named(first).split() != named(last).split() => {
                let word = |(_, word): &(usize, &[u8])| word.escape_ascii().to_string();
                let message = format!(
                    "the name {} has the words `{}` and `{}`: it does not say which split it is",
                    name.escape_ascii(),
                    word(first),
                    word(last)
                );
                Err(failed(message).hint("leave one of the words, or put the file into `train/` or `val/`"))
            }
            (first, _) => Ok(first.map(named)),
        }
    }
}

/// Runs of ASCII letters, parted before a capital that follows a small letter.
fn words(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_start = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    name.split(|byte| !byte.is_ascii_alphabetic()).flat_map(move |run| {
        let starts = run.windows(2).enumerate().filter(move |(_, pair)| is_start(pair)).map(|(at, _)| at + 1);
        let ends = starts.clone().chain([run.len()]);
        std::iter::once(0).chain(starts).zip(ends).map(move |(start, end)| &run[start..end])
    })
}

/// Where the samples of a split are from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitOrigin {
    /// As the data set calls it: `val/`, `t10k`; empty where nothing is called so.
    pub name: String,
    /// The split that it is by its name.
    pub named: Option<NamedSplit>,
    /// Other splits that are there for the same use, and are not used.
    pub unused: Vec<String>,
}

impl SplitOrigin {
    /// Of a data set whose files have fixed names.
    pub fn fixed(name: &str, named: NamedSplit) -> Self {
        Self { name: name.to_string(), named: Some(named), unused: Vec::new() }
    }
}

/// A folder that is named like a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitFolder {
    /// Its name below the data's folder, without a slash at the end.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Which split.
    pub named: NamedSplit,
    rank: usize,
}

/// Folders that tools leave everywhere, and that hold no data of people's.
const TOOL_FOLDERS: [&str; 5] =
    ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"];

/// Whether a file or folder of this name is no part of a data set: hidden, or left by a tool.
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || TOOL_FOLDERS.iter().any(|known| name == *known)
}

/// The folders in `dir`, links to folders included, without hidden ones.
pub(super) fn folders_in(dir: &Path) -> impl Iterator<Item = (OsString, PathBuf)> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.map(|entry| (entry.file_name(), entry.path()));
    entries.filter(|(name, path)| !is_hidden(name) && path.is_dir())
}

/// Entries of a folder that are looked at to see what it holds.
pub(super) const SAMPLE: usize = 100;

/// Whether a folder directly holds images, as far as its first entries show.
pub fn holds_images(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(SAMPLE);
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| !is_hidden(&name) && has_image_extension(name.as_bytes()))
}

/// The folders of `dir` that are splits, in the order of preference. Letters may be of either case. A folder such as
/// `train/` that directly holds images, beside other folders of images, is a class of that name and no split. Where a
/// split's only folder is named like the split once more (`train/train/CLASS`), as some archives unpack, it stands for the
/// split.
pub fn split_folders(dir: &Path) -> Vec<SplitFolder> {
    let mut found = Vec::new();
    let mut others = Vec::new();
    for (name, path) in folders_in(dir) {
        match (name.to_str(), rank(name.as_bytes())) {
            (Some(name), Some(rank)) => {
                found.push(SplitFolder { name: name.to_string(), path, named: WORDS[rank].1, rank });
            }
            _ => others.push(path),
        }
    }
    if let [only] = found.as_slice()
        && holds_images(&only.path)
        && folders_in(&only.path).next().is_none()
        && others.iter().take(SAMPLE).any(|other| holds_images(other))
    {
        return Vec::new();
    }
    // Of names that differ in case alone, the one in small letters is first.
    found.sort_by(|a, b| (a.named, a.rank).cmp(&(b.named, b.rank)).then(b.name.cmp(&a.name)));
    found.into_iter().map(SplitFolder::unwrapped).collect()
}

impl SplitFolder {
    /// The only folder in it, where that is the split itself.
    fn unwrapped(self) -> Self {
        let mut inner = folders_in(&self.path);
        let (Some((name, path)), None) = (inner.next(), inner.next()) else { return self };
        let is_same = rank(name.as_bytes()).is_some_and(|rank| WORDS[rank].1 == self.named);
        let is_split = is_same && folders_in(&path).next().is_some() && !holds_images(&self.path);
        match name.to_str() {
            Some(name) if is_split => Self { name: format!("{}/{name}", self.name), path, ..self },
            _ => self,
        }
    }
}

/// The folder of one split in `dir`, and what it is, among those that are `fit`.
pub fn find_folder(
    dir: &Path,
    split: Split,
    fit: impl Fn(&Path) -> bool,
) -> Option<(SplitFolder, SplitOrigin)> {
    let folders = split_folders(dir).into_iter();
    let mut folders = folders.filter(|folder| folder.named.split() == split && fit(&folder.path));
    let chosen = folders.next()?;
    let origin = SplitOrigin {
        name: format!("{}/", chosen.name),
        named: Some(chosen.named),
        unused: folders.map(|folder| format!("{}/", folder.name)).collect(),
    };
    Some((chosen, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_file_name_decide_wherever_they_stand() {
        use NamedSplit::{Test, Train, Validation};
        for (name, expected) in [
            ("train-00.tar", Some(Train)),
            ("train0001.tar", Some(Train)),
            ("imagenet-train-000000.tar", Some(Train)),
            ("imagenet1k-validation-00.tar", Some(Validation)),
            ("imagenet_val_{000..012}.tar", Some(Validation)),
            ("ImageNetVal-7.tar", Some(Validation)),
            ("DEV.tar", Some(Validation)),
            ("a-test-val-0.tar", Some(Validation)),
            ("TestSet3.tar", Some(Test)),
            ("shard-000000.tar", None),
            ("latest-interval-contest.tar", None),
        ] {
            assert_eq!(NamedSplit::of_file(name.as_bytes()).unwrap(), expected, "{name}");
        }
        for name in ["train-val-0.tar", "test-train.tar"] {
            let problem = NamedSplit::of_file(name.as_bytes()).unwrap_err();
            assert!(problem.message.contains("does not say which split"), "{problem}");
        }
    }

    #[test]
    fn a_class_may_be_called_like_a_split() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        put("bus/1.jpg");
        put("train/2.jpg");
        assert_eq!(split_folders(dir.path()), []);
        put("train/deep/3.jpg");
        assert_eq!(split_folders(dir.path()).len(), 1);
        // An archive that unpacks into a folder of its own name.
        put("Val/VAL/bus/1.jpg");
        put("test/bus/1.jpg");
        let (folder, origin) = find_folder(dir.path(), Split::Eval, |_| true).unwrap();
        assert_eq!((folder.name.as_str(), folder.named), ("Val/VAL", NamedSplit::Validation));
        assert_eq!(origin.unused, ["test/"]);
    }
}
