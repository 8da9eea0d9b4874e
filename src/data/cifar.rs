//! CIFAR-10 and CIFAR-100 in their binary form: records of one or two labels and 3 × 32 × 32 bytes, plane by plane.

use super::split::{NamedSplit, SplitOrigin};
use super::{Dataset, Image, Split};
use crate::error::{Result, failed};
use crate::files;
use anyhow::Context;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// More than any such file: CIFAR-100's training half has 147 MiB.
const MAX_BYTES: u64 = 1 << 30;

/// CIFAR in memory.
pub struct CifarDataset {
    /// The records of all files, one after the other.
    records: Vec<u8>,
    /// Bytes of labels before the pixels; the last counts.
    label_bytes: usize,
    /// Each file's name and the number of its first record.
    files: Vec<(String, usize)>,
    dir: PathBuf,
    classes: Vec<String>,
}

/// Which of the two, and its files.
struct Form {
    label_bytes: usize,
    classes: usize,
    names: &'static str,
    train: &'static [&'static str],
    eval: &'static [&'static str],
}

const FORMS: [Form; 2] = [
    Form {
        label_bytes: 1,
        classes: 10,
        names: "batches.meta.txt",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        eval: &["test_batch.bin"],
    },
    Form {
        label_bytes: 2,
        classes: 100,
        names: "fine_label_names.txt",
        train: &["train.bin"],
        eval: &["test.bin"],
    },
];

impl Form {
    /// Bytes of a record.
    fn record(&self) -> usize {
        self.label_bytes + 3 * PLANE
    }

    fn check_labels(&self, path: &Path, records: &[u8]) -> Result<()> {
        for (number, bytes) in records.chunks_exact(self.record()).enumerate() {
            let label = bytes[self.label_bytes - 1];
            if usize::from(label) >= self.classes {
                let message = format!(
                    "{}: record {number} (byte {}) has the label {label}, but there are {} classes",
                    path.display(),
                    number * self.record() + self.label_bytes - 1,
                    self.classes
                );
                return Err(failed(message).hint("the file is damaged or of another data set").into());
            }
        }
        Ok(())
    }
}

/// The folders that the archives unpack to.
const FOLDERS: [&str; 2] = ["cifar-10-batches-bin", "cifar-100-binary"];

/// Where CIFAR lies: in `dir`, or in the folder that its archive unpacks to.
fn locate(dir: &Path) -> Option<(PathBuf, &'static Form)> {
    let places = [dir.to_path_buf(), dir.join(FOLDERS[0]), dir.join(FOLDERS[1])];
    places.into_iter().find_map(|place| {
        let here =
            |form: &&Form| [form.train, form.eval].concat().iter().any(|name| place.join(name).is_file());
        let form = FORMS.iter().find(here)?;
        Some((place, form))
    })
}

/// Whether `dir` holds CIFAR's binary files.
pub fn is_here(dir: &Path) -> bool {
    locate(dir).is_some()
}

impl CifarDataset {
    /// Reads one half.
    ///
    /// # Errors
    /// When a file is missing, does not consist of whole records, or has a label out of range.
    pub fn open(dir: &Path, split: Split) -> Result<Self> {
        let (dir, form) = locate(dir).ok_or_else(|| {
            failed(format!(
                "{}: neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100)",
                dir.display()
            ))
            .hint("the binary version is read; fetch it from the data set's page and unpack it there")
        })?;
        let names = match split {
            Split::Train => form.train,
            Split::Eval => form.eval,
        };
        let record = form.record();
        let mut records = Vec::new();
        let mut parts = Vec::new();
        for name in names {
            let path = dir.join(name);
            let before = records.len();
            parts.push((name.to_string(), before / record));
            read_records(&path, record, &mut records)?;
            form.check_labels(&path, &records[before..])?;
        }
        let classes = class_names(&dir.join(form.names), form.classes)?;
        Ok(Self { records, label_bytes: form.label_bytes, files: parts, dir, classes })
    }

    /// The images of one file of CIFAR-10, or of CIFAR-100 where there are 100 `classes`. `path` only names the file.
    ///
    /// # Errors
    /// When the bytes are not whole records, or a label is out of range.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, classes: usize) -> Result<Self> {
        let form = if classes == FORMS[1].classes { &FORMS[1] } else { &FORMS[0] };
        check_size(path, bytes.len() as u64, form.record())?;
        form.check_labels(path, &bytes)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            records: bytes,
            label_bytes: form.label_bytes,
            files: vec![(name, 0)],
            dir: path.parent().unwrap_or(Path::new("")).to_path_buf(),
            classes: numbers(form.classes),
        })
    }

    fn record(&self, index: usize) -> &[u8] {
        let size = self.label_bytes + 3 * PLANE;
        &self.records[index * size..][..size]
    }

    fn place(&self, index: usize) -> (&str, usize) {
        let file = self.files.partition_point(|(_, first)| *first <= index) - 1;
        let (name, first) = &self.files[file];
        (name, index - first)
    }
}

fn read_records(path: &Path, record: usize, records: &mut Vec<u8>) -> Result<()> {
    if !path.is_file() {
        let message = format!("{} is missing", path.display());
        return Err(failed(message).hint("all files of a half are needed; unpack the archive again").into());
    }
    let unreadable = || format!("cannot read {}", path.display());
    let size = fs::metadata(path).with_context(unreadable)?.len();
    check_size(path, size, record)?;
    let before = records.len();
    records.reserve_exact(size as usize);
    File::open(path).with_context(unreadable)?.take(size).read_to_end(records).with_context(unreadable)?;
    if records.len() - before != size as usize {
        return Err(failed(format!("{} has changed while it was read", path.display())).into());
    }
    Ok(())
}

fn check_size(path: &Path, size: u64, record: usize) -> Result<()> {
    let rest = size % record as u64;
    if size == 0 || size > MAX_BYTES || rest != 0 {
        let message = format!(
            "{}: {size} bytes are not whole records of {record} ({rest} bytes are left at byte {})",
            path.display(),
            size - rest
        );
        return Err(failed(message).hint("the file is damaged or of another format; fetch it again").into());
    }
    Ok(())
}

/// Classes without names.
fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

fn class_names(path: &Path, count: usize) -> Result<Vec<String>> {
    if !path.is_file() {
        return Ok(numbers(count));
    }
    let text = files::read_text(path)?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect();
    if names.len() != count {
        let message = format!("{}: {} names, but there are {count} classes", path.display(), names.len());
        return Err(failed(message).hint("one class a line; without the file numbers are used").into());
    }
    Ok(names)
}

impl Dataset for CifarDataset {
    fn len(&self) -> usize {
        self.records.len() / (self.label_bytes + 3 * PLANE)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn channels(&self) -> usize {
        3
    }

    fn natural_size(&self) -> Option<(usize, usize)> {
        Some((SIDE, SIDE))
    }

    fn label(&self, index: usize) -> usize {
        usize::from(self.record(index)[self.label_bytes - 1])
    }

    fn image(&self, index: usize) -> Result<Image> {
        let planes = &self.record(index)[self.label_bytes..];
        let pixels =
            (0..PLANE).flat_map(|at| [planes[at], planes[PLANE + at], planes[2 * PLANE + at]]).collect();
        Ok(Image { width: SIDE, height: SIDE, channels: 3, pixels })
    }

    fn source_name(&self, index: usize) -> String {
        let (name, record) = self.place(index);
        format!("{}:{record}", self.dir.join(name).display())
    }

    fn relative_name(&self, index: usize) -> String {
        let (name, record) = self.place(index);
        format!("{name}:{record}")
    }

    fn origin(&self) -> Option<SplitOrigin> {
        let name = &self.files.first()?.0;
        let is_test = name.starts_with("test");
        Some(SplitOrigin::fixed(name, if is_test { NamedSplit::Test } else { NamedSplit::Train }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(labels: &[&[u8]]) -> Vec<u8> {
        let planes =
            [1u8, 2, 3].iter().flat_map(|plane| (0..PLANE).map(move |at| plane * 50 + (at % 32) as u8));
        let planes: Vec<u8> = planes.collect();
        labels.iter().flat_map(|label| [label, planes.as_slice()].concat()).collect()
    }

    fn ten(dir: &Path) {
        for batch in 1..=5u8 {
            fs::write(dir.join(format!("data_batch_{batch}.bin")), records(&[&[batch], &[9]])).unwrap();
        }
        fs::write(dir.join("test_batch.bin"), records(&[&[0]])).unwrap();
    }

    #[test]
    fn both_forms_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_here(dir.path()));
        ten(dir.path());
        let data = CifarDataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.len(), data.classes().len(), data.natural_size()), (10, 10, Some((32, 32))));
        assert_eq!([0, 1, 2, 3].map(|index| data.label(index)), [1, 9, 2, 9]);
        assert_eq!(data.relative_name(3), "data_batch_2.bin:1");
        assert!(!data.encoded(0, &mut Vec::new()).unwrap());
        assert_eq!(&data.image(0).unwrap().pixels[..6], [50, 100, 150, 51, 101, 151]);
        assert_eq!(CifarDataset::open(dir.path(), Split::Eval).unwrap().len(), 1);

        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cifar-100-binary");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("train.bin"), records(&[&[3, 99], &[4, 0], &[5, 50]])).unwrap();
        let names: String = (0..100).map(|class| format!("class{class}\n")).collect();
        fs::write(folder.join("fine_label_names.txt"), names + "\n").unwrap();
        let data = CifarDataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!([0, 1, 2].map(|index| data.label(index)), [99, 0, 50]);
        assert_eq!(data.classes()[99], "class99");
        let error = CifarDataset::open(dir.path(), Split::Eval).err().unwrap().to_string();
        assert!(error.contains("test.bin is missing"), "{error}");
    }

    #[test]
    fn damage_is_named() {
        let refusal = |name: &str, bytes: Option<&[u8]>| {
            let dir = tempfile::tempdir().unwrap();
            ten(dir.path());
            match bytes {
                Some(bytes) => fs::write(dir.path().join(name), bytes).unwrap(),
                None => fs::remove_file(dir.path().join(name)).unwrap(),
            }
            CifarDataset::open(dir.path(), Split::Train)
                .err()
                .map_or(String::new(), |error| error.to_string())
        };
        let two = records(&[&[1], &[2]]);
        assert_eq!(refusal("data_batch_1.bin", Some(&two)), "");
        let text = refusal("data_batch_2.bin", Some(&two[..5000]));
        assert!(
            text.contains("data_batch_2.bin: 5000 bytes")
                && text.contains("1927 bytes are left at byte 3073"),
            "{text}"
        );
        let text = refusal("data_batch_3.bin", Some(&records(&[&[1], &[10]])));
        assert!(text.contains("record 1 (byte 3073) has the label 10"), "{text}");
        assert!(refusal("data_batch_4.bin", None).contains("data_batch_4.bin is missing"));
        assert!(refusal("data_batch_5.bin", Some(b"")).contains("0 bytes are not whole records"));
        let text = refusal("batches.meta.txt", Some(b"cat\ndog\n"));
        assert!(text.contains("2 names, but there are 10 classes"), "{text}");
    }
}
