//! IDX, the format of MNIST and Fashion-MNIST: a big-endian header (two zero bytes, 8 for unsigned bytes, the
//! number of dimensions, each dimension as u32), then the values. Plain or gzip.

use super::source::missing;
use super::split::{NamedSplit, SplitOrigin};
use super::{Dataset, Image, Split};
use crate::error::{Result, failed};
use crate::files;
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An IDX data set in memory.
pub struct IdxDataset {
    images: Vec<u8>,
    labels: Vec<u8>,
    rows: usize,
    columns: usize,
    classes: Vec<String>,
    /// The file of the images.
    file: PathBuf,
}

/// More than any IDX data set in use: 4 GiB of pixels.
const MAX_BYTES: u64 = 4 << 30;

impl IdxDataset {
    /// Reads one half of the IDX files in `dir`.
    ///
    /// # Errors
    /// When a file is missing, is no IDX file or ends early, or when images and labels differ in number.
    pub fn open(dir: &Path, split: Split) -> Result<Self> {
        let (image_file, label_file) = find(dir, split)?;
        let images = parse(&image_file, &files::read(&image_file)?, 3)?;
        let labels = parse(&label_file, &files::read(&label_file)?, 1)?;
        Self::new((&image_file, images), (&label_file, labels))
    }

    /// Joins images of shape `[N, H, W]` with labels of shape `[N]`; each comes with the file that it is from.
    ///
    /// # Errors
    /// When images and labels differ in number, or there are no pixels.
    pub fn new(
        (image_file, (shape, images)): (&Path, Values),
        (label_file, (label_shape, labels)): (&Path, Values),
    ) -> Result<Self> {
        if shape[0] != label_shape[0] {
            let message = format!(
                "{} holds {} images, but {} holds {} labels",
                image_file.display(),
                shape[0],
                label_file.display(),
                label_shape[0]
            );
            return Err(failed(message)
                .hint("the two files do not belong together; fetch them again")
                .into());
        }
        if shape.contains(&0) {
            let message = format!("{} holds no pixels (its dimensions are {shape:?})", image_file.display());
            return Err(failed(message)
                .hint("the file is damaged or of another data set; fetch it again")
                .into());
        }
        let classes = 1 + usize::from(*labels.iter().max().expect("there is a label for each image"));
        let classes = (0..classes).map(|class| class.to_string()).collect();
        Ok(Self {
            images,
            labels,
            rows: shape[1],
            columns: shape[2],
            classes,
            file: image_file.to_path_buf(),
        })
    }
}

/// The image and label files of one half: `train-…` or `t10k-…`, with `-` or `.` before `idx`, gzip or not.
///
/// # Errors
/// When one is missing; the message names what was looked for.
pub fn find(dir: &Path, split: Split) -> Result<(PathBuf, PathBuf)> {
    if !dir.is_dir() {
        return Err(missing(dir).into());
    }
    let prefix = match split {
        Split::Train => "train",
        Split::Eval => "t10k",
    };
    let locate = |what: &str, dimensions: usize| {
        let forms = ["-", "."].map(|dot| format!("{prefix}-{what}{dot}idx{dimensions}-ubyte"));
        let candidates = forms.iter().flat_map(|form| [form.clone(), format!("{form}.gz")]);
        candidates.map(|name| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
            failed(format!("{}: neither {form} nor {form}.gz is there", dir.display(), form = forms[0]))
                .hint("`make data` fetches Fashion-MNIST; `data.dir` names the folder of the four IDX files")
        })
    };
    Ok((locate("images", 3)?, locate("labels", 1)?))
}

/// Shape and values of an IDX file.
pub type Values = (Vec<usize>, Vec<u8>);

/// Shape and values of the bytes of an IDX file of unsigned bytes, gzip or not. `path` only names the file in errors.
///
/// # Errors
/// When it is another format, has another number of dimensions, or its values are not as many as its shape says.
pub fn parse(path: &Path, packed: &[u8], dimensions: usize) -> Result<Values> {
    let damaged = |what: String| {
        failed(format!("{}: {what}", path.display()))
            .hint("the file is damaged or of another format; fetch it again")
    };
    let broken = |error| damaged(format!("the gzip stream is broken ({error})"));
    let mut stream: Box<dyn Read> = match packed.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(MultiGzDecoder::new(packed)),
        false => Box::new(packed),
    };
    let mut header = Vec::new();
    let header_bytes = 4 + 4 * dimensions;
    stream.by_ref().take(header_bytes as u64).read_to_end(&mut header).map_err(broken)?;
    if header.len() < header_bytes || header[..3] != [0, 0, 8] {
        return Err(damaged("not an IDX file of unsigned bytes".to_string()).into());
    }
    if usize::from(header[3]) != dimensions {
        return Err(damaged(format!("{dimensions} dimension(s) expected, {} found", header[3])).into());
    }
    let shape: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|word| u32::from_be_bytes(word.try_into().expect("four bytes")) as usize)
        .collect();
    let values = shape.iter().try_fold(1u64, |total, side| total.checked_mul(*side as u64));
    let Some(values) = values.filter(|values| *values <= MAX_BYTES) else {
        return Err(damaged(format!("impossible dimensions {shape:?}")).into());
    };
    // One more than is promised, and never all that a small packed file can unfold to.
    let mut bytes = Vec::new();
    stream.take(values + 1).read_to_end(&mut bytes).map_err(broken)?;
    match bytes.len() as u64 {
        found if found == values => Ok((shape, bytes)),
        found if found > values => {
            Err(damaged(format!("the header promises {values} values, but more follow")).into())
        }
        found => Err(damaged(format!("the header promises {values} values, but {found} follow")).into()),
    }
}

impl Dataset for IdxDataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn channels(&self) -> usize {
        1
    }

    fn natural_size(&self) -> Option<(usize, usize)> {
        Some((self.rows, self.columns))
    }

    fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }

    fn image(&self, index: usize) -> Result<Image> {
        let size = self.rows * self.columns;
        let pixels = self.images[index * size..][..size].to_vec();
        Ok(Image { width: self.columns, height: self.rows, channels: 1, pixels })
    }

    fn source_name(&self, index: usize) -> String {
        format!("{}:{index}", self.file.display())
    }

    fn relative_name(&self, index: usize) -> String {
        format!("{}:{index}", self.file.file_name().unwrap_or_default().to_string_lossy())
    }

    fn origin(&self) -> Option<SplitOrigin> {
        let is_train =
            self.file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"train"));
        Some(match is_train {
            true => SplitOrigin::fixed("train", NamedSplit::Train),
            false => SplitOrigin::fixed("t10k", NamedSplit::Test),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(dir: &Path, name: &str, header: &[u32], values: &[u8]) {
        let mut bytes = vec![0, 0, 8, header.len() as u8];
        header.iter().for_each(|side| bytes.extend(side.to_be_bytes()));
        bytes.extend(values);
        fs::write(dir.join(name), bytes).unwrap();
    }

    fn refusal(prepare: impl Fn(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train-images-idx3-ubyte", &[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        write(dir.path(), "train-labels-idx1-ubyte", &[2], &[0, 3]);
        prepare(dir.path());
        match IdxDataset::open(dir.path(), Split::Train) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn images_and_labels_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train-images-idx3-ubyte", &[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        write(dir.path(), "train-labels-idx1-ubyte", &[2], &[0, 3]);
        let data = IdxDataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((data.len(), data.classes().len(), data.label(1)), (2, 4, 3));
        assert_eq!(data.image(1).unwrap().pixels, [5, 6, 7, 8]);
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(refusal(|_| {}), "");
        let short = refusal(|dir| write(dir, "train-images-idx3-ubyte", &[2, 2, 2], &[1, 2, 3]));
        assert!(short.contains("promises 8 values, but 3 follow"), "{short}");
        let text =
            refusal(|dir| fs::write(dir.join("train-images-idx3-ubyte"), "hello, this is text").unwrap());
        assert!(text.contains("not an IDX file"), "{text}");
        let count = refusal(|dir| write(dir, "train-labels-idx1-ubyte", &[3], &[0, 1, 2]));
        assert!(count.contains("2 images") && count.contains("3 labels"), "{count}");
        let huge = refusal(|dir| write(dir, "train-images-idx3-ubyte", &[u32::MAX, u32::MAX, u32::MAX], &[]));
        assert!(huge.contains("impossible dimensions"), "{huge}");
        let gone = refusal(|dir| fs::remove_file(dir.join("train-labels-idx1-ubyte")).unwrap());
        assert!(gone.contains("train-labels-idx1-ubyte"), "{gone}");
    }
}
