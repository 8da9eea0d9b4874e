//! What an evaluation tells beside its counts: calibration, ReaL accuracy, and tables of classes and images. All of it
//! is gathered image by image, in the same pass.

use super::classes::imagenet_labels;
use crate::data::Dataset;
use crate::data::real_labels::{RealLabels, image_numbers};
use crate::error::{Result, failed, usage};
use crate::files::{self, NewFile};
use crate::metrics::by_class::{Confusion, PerClass};
use crate::metrics::calibration::{Calibration, Reliability};
use crate::metrics::guesses::{Guess, Guesses};
use crate::report::evaluation::{
    PER_CLASS_HEADING, PREDICTIONS_HEADING, confusion_heading, write_confusion, write_per_class,
    write_prediction, write_prediction_heading,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Most classes of a confusion matrix: its file has a cell for each pair of them.
const MAX_MATRIX: usize = 10_000;

/// What is asked of an evaluation beside its counts.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Whether the network is as sure as it is right.
    pub calibration: bool,
    /// ImageNet-ReaL's labels.
    pub real_labels: Option<PathBuf>,
    /// Where to write a line for each class.
    pub per_class: Option<PathBuf>,
    /// Where to write the confusion matrix.
    pub confusion: Option<PathBuf>,
    /// Where to write a line for each image.
    pub predictions: Option<PathBuf>,
    /// Whether these may replace files of other kinds.
    pub overwrite: bool,
}

/// The answers that are figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    /// Accuracy by ImageNet-ReaL's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<RealAccuracy>,
    /// Expected calibration error and its bins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// How many predictions are among the labels that people gave the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RealAccuracy {
    /// Images that have a label.
    pub seen: u64,
    /// Those whose predicted class is one of their labels.
    pub correct: u64,
    /// The same as a fraction of 1.
    pub accuracy: f64,
}

/// What has been gathered so far.
pub struct Details<'a> {
    dataset: &'a dyn Dataset,
    /// Names of the classes that are compared.
    classes: Vec<String>,
    reliability: Option<Reliability>,
    real: Option<Real>,
    per_class: Option<(NewFile, PerClass)>,
    confusion: Option<(NewFile, Confusion)>,
    predictions: Option<NewFile>,
}

/// The count by ImageNet-ReaL's labels.
struct Real {
    labels: RealLabels,
    /// The image of each sample.
    images: Vec<u32>,
    /// ImageNet's label of each class that is compared.
    classes: Vec<Option<u16>>,
    seen: u64,
    correct: u64,
}

impl<'a> Details<'a> {
    /// Opens all that is asked for, so that a mistake shows before hours are spent. `classes` are the names of those
    /// that are compared.
    ///
    /// # Errors
    /// When a file cannot be written, or the labels cannot be read or are not of these images or classes.
    pub fn begin(questions: &Questions, dataset: &'a dyn Dataset, classes: Vec<String>) -> Result<Self> {
        let Questions { calibration, real_labels, per_class, confusion, predictions, overwrite } = questions;
        check_files([per_class, confusion, predictions])?;
        if confusion.is_some() && classes.len() > MAX_MATRIX {
            let message = format!("a confusion matrix of {} classes has too many cells", classes.len());
            return Err(failed(message).hint("`--predictions` has all that it is made of").into());
        }
        let real = real_labels.as_deref().map(|path| Real::open(path, dataset, &classes)).transpose()?;
        let create = |path: &Option<PathBuf>, heading: &str| {
            let Some(path) = path else { return Ok(None) };
            if !overwrite {
                files::check_replaceable(path, heading)?;
            }
            NewFile::create(path).map(Some)
        };
        let mut predictions = create(predictions, PREDICTIONS_HEADING)?;
        if let Some(file) = &mut predictions {
            file.write(|out| write_prediction_heading(out, classes.len().min(5)))?;
        }
        Ok(Self {
            dataset,
            reliability: calibration.then(Reliability::default),
            real,
            per_class: create(per_class, PER_CLASS_HEADING)?.map(|file| (file, PerClass::new(classes.len()))),
            confusion: create(confusion, &confusion_heading(&classes))?
                .map(|file| (file, Confusion::default())),
            predictions,
            classes,
        })
    }

    /// Whether nothing is asked for.
    pub fn are_none(&self) -> bool {
        self.reliability.is_none()
            && self.real.is_none()
            && self.per_class.is_none()
            && self.confusion.is_none()
            && self.predictions.is_none()
    }

    /// Takes what the network makes of `samples`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, samples: &[usize], guesses: &Guesses) -> Result<()> {
        for (&sample, guess) in samples.iter().zip(guesses.iter()) {
            if let Some(reliability) = &mut self.reliability {
                reliability.add(&guess);
            }
            if let Some(real) = &mut self.real {
                real.add(sample, &guess);
            }
            if let Some((_, per_class)) = &mut self.per_class {
                per_class.add(&guess);
            }
            if let Some((_, confusion)) = &mut self.confusion {
                confusion.add(&guess);
            }
            if let Some(file) = &mut self.predictions {
                let image = self.dataset.relative_name(sample);
                file.write(|out| write_prediction(out, &image, &self.classes, &guess))?;
            }
        }
        Ok(())
    }

    /// Writes the tables, and says the rest.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self) -> Result<Answers> {
        let classes = &self.classes;
        if let Some((mut file, per_class)) = self.per_class {
            file.write(|out| write_per_class(out, classes, &per_class))?;
            file.finish()?;
        }
        if let Some((mut file, confusion)) = self.confusion {
            file.write(|out| write_confusion(out, classes, &confusion))?;
            file.finish()?;
        }
        if let Some(file) = self.predictions {
            file.finish()?;
        }
        let calibration = self.reliability.map(|reliability| reliability.calibration());
        Ok(Answers { real: self.real.map(|real| real.accuracy()), calibration })
    }
}

impl Real {
    fn open(path: &Path, dataset: &dyn Dataset, classes: &[String]) -> Result<Self> {
        let classes = imagenet_labels(classes);
        if classes.iter().all(Option::is_none) {
            let message =
                format!("{}: ReaL labels are ImageNet's, and the network knows none", path.display());
            return Err(failed(message).hint("evaluate a network that was trained on ImageNet").into());
        }
        let images = image_numbers(dataset)?;
        Ok(Self { labels: RealLabels::read(path)?, images, classes, seen: 0, correct: 0 })
    }

    fn add(&mut self, sample: usize, guess: &Guess<'_>) {
        let labels = self.labels.of(self.images[sample]);
        let is_right = self.classes[guess.predicted()].is_some_and(|class| labels.contains(&class));
        self.seen += u64::from(!labels.is_empty());
        self.correct += u64::from(is_right);
    }

    fn accuracy(&self) -> RealAccuracy {
        let Self { seen, correct, .. } = *self;
        RealAccuracy { seen, correct, accuracy: correct as f64 / seen as f64 }
    }
}

/// Refuses two tables in one file.
fn check_files(files: [&Option<PathBuf>; 3]) -> Result<()> {
    let named: Vec<&PathBuf> = files.into_iter().flatten().collect();
    for (at, file) in named.iter().enumerate() {
        if named[..at].contains(file) {
            let message = format!("two tables cannot both be written to {}", file.display());
            return Err(usage(message).hint("name a file for each").into());
        }
    }
    Ok(())
}
