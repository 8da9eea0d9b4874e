//! "ImageNet-ReaL" (Beyer et al. 2020, "Are we done with ImageNet?"): the labels that people gave ImageNet's validation
//! images anew, none or several each. Their file `real.json` is a list of 50,000 lists of labels, that of
//! `ILSVRC2012_val_00000001.JPEG` first.

use super::Dataset;
use super::imagenet_val::image_number;
use crate::error::{Result, failed};
use crate::files;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// Images of ImageNet's validation half, and its classes.
const IMAGES: usize = 50_000;
const CLASSES: u16 = 1000;
/// Many times the size of the file; what it unfolds to in memory is a few times more.
const MAX_BYTES: u64 = 8 << 20;

/// The labels of each image.
#[derive(Debug)]
pub struct RealLabels(Vec<Vec<u16>>);

impl RealLabels {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is no such list, has another length, or names a class that ImageNet has not.
    pub fn read(path: &Path) -> Result<Self> {
        let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        let problem = |what: String| {
            failed(format!("{}: {what}", path.display()))
                .hint("real.json of the authors is expected: a list of 50,000 lists of labels from 0 to 999")
        };
        if size > MAX_BYTES {
            return Err(problem(format!("{size} bytes, more than such a file has")).into());
        }
        let labels = Self::parse(&files::read(path)?).map_err(problem)?;
        Ok(Self(labels))
    }

    fn parse(json: &[u8]) -> Result<Vec<Vec<u16>>, String> {
        let labels: Vec<Vec<u16>> =
            files::parse_json(json).map_err(|error| format!("no list of lists of labels ({error})"))?;
        if labels.len() != IMAGES {
            return Err(format!("{IMAGES} lists are expected, one an image, but there are {}", labels.len()));
        }
        let too_large = |labels: &Vec<u16>| labels.iter().copied().find(|label| *label >= CLASSES);
        match labels.iter().enumerate().find_map(|(at, labels)| Some((at + 1, too_large(labels)?))) {
            Some((image, label)) => {
                Err(format!("image {image} has the label {label}, but ImageNet's end with {}", CLASSES - 1))
            }
            None => Ok(labels),
        }
    }

    /// The labels of image `number`, counted from 1; none where people saw nothing of the 1000 classes.
    pub fn of(&self, number: u32) -> &[u16] {
        &self.0[number as usize - 1]
    }
}

/// The number of each sample's image, which its file's name says; the order of a listing says nothing.
///
/// # Errors
/// When a file is named otherwise.
pub fn image_numbers(data: &dyn Dataset) -> Result<Vec<u32>> {
    let number = |sample: usize| {
        let name = data.relative_name(sample);
        let known = name.rsplit(['/', ':']).next().and_then(image_number);
        known.filter(|number| (1..=IMAGES as u32).contains(number)).ok_or_else(|| {
            let message = format!(
                "{}: the name does not say which image of ImageNet's validation half it is",
                data.source_name(sample)
            );
            failed(message)
                .hint("ReaL labels go by number: ILSVRC2012_val_00000001.JPEG to …50000.JPEG are expected")
                .into()
        })
    };
    (0..data.len()).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: &str, lists: usize) -> String {
        format!("[{first}{}]", ", []".repeat(lists - 1))
    }

    #[test]
    fn labels_are_found_by_number() {
        let labels = RealLabels(RealLabels::parse(file("[7, 999]", IMAGES).as_bytes()).unwrap());
        assert_eq!((labels.of(1), labels.of(50_000)), ([7, 999].as_slice(), [].as_slice()));
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        let refusal = |json: &str| RealLabels::parse(json.as_bytes()).unwrap_err();
        assert!(
            refusal(&file("[]", 49_999))
                .contains("50000 lists are expected, one an image, but there are 49999")
        );
        assert!(refusal(&file("[3, 1000]", IMAGES)).contains("image 1 has the label 1000"));
        let nested = "[".repeat(1 << 20);
        let other =
            ["", "{}", "[1]", "[[1.5]]", "[[-1]]", "[[70000]]", "[[\"1\"]]", "[[1]", "[[[1]]]", &nested];
        for json in other {
            assert!(refusal(json).contains("no list of lists of labels"), "{json:.20}");
        }
    }
}
