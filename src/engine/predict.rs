//! Prediction: the most probable classes of images.

use super::nonfinite;
use super::trained::Trained;
use crate::data::faults::{Faults, OnError};
use crate::data::images::ImageFiles;
use crate::data::loader::{Loader, Plan};
use crate::data::preprocessing::UsedPreprocessing;
use crate::data::{DataSpec, Dataset};
use crate::error::{Problem, Result, TorchContext};
use crate::escaped::{self, shown};
use crate::metrics::best_classes;
use crate::net::plan::InferencePlan;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, TchError, Tensor, no_grad_guard};

/// Images in one step; a few are decoded while others are computed.
const BATCH_SIZE: usize = 16;

/// One class of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guess {
    /// Index of the class.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Softmax of the logits, a fraction of 1.
    pub probability: f64,
    /// Output of the network.
    pub logit: f64,
}

/// What a network makes of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The file; in JSON, where its name is not UTF-8, [escaped](crate::escaped).
    #[serde(serialize_with = "escaped::serialize")]
    pub image: PathBuf,
    /// Whether it is escaped in JSON: `\\` and `\xHH` then stand for bytes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub image_escaped: bool,
    /// How it was prepared.
    pub preprocessing: UsedPreprocessing,
    /// The most probable classes, the best first.
    pub top: Vec<Guess>,
    /// All logits, in the order of the classes, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f64>>,
}

/// Images that have no prediction.
#[derive(Debug, Default)]
pub struct Unpredicted {
    /// What is wrong with those that cannot be read.
    pub unreadable: Vec<String>,
    /// What is wrong where logits are NaN or infinite.
    pub non_finite: Option<Problem>,
}

/// Predicts the `top` best classes of every image; each is handed to `each` as soon as it is known. Returns what is wrong
/// with the images that have no prediction.
///
/// # Errors
/// When libtorch refuses, or `each` fails.
pub fn run(
    trained: &Trained,
    images: ImageFiles,
    top: usize,
    with_logits: bool,
    each: &mut dyn FnMut(Prediction) -> Result<()>,
) -> Result<Unpredicted> {
    let _guard = no_grad_guard();
    let device = trained.net.device();
    let prepared = DataSpec::prepared(&trained.preprocessing.values);
    let spec = DataSpec { on_error: OnError::Skip, max_bad: 1.0, ..prepared };
    let normalise = trained.normalise();
    let net = InferencePlan::new(&trained.net).torch_context(|| "cannot prepare the network".to_string())?;
    let images = Arc::new(images);
    let faults = Arc::new(Faults::new(&spec, images.len()));
    let plan = Plan::eval(Arc::clone(&images) as Arc<dyn Dataset>, Arc::clone(&faults), &spec, BATCH_SIZE);
    let (mut seen, mut non_finite) = (0, Vec::new());
    for batch in Loader::start(plan, 0, spec.thread_count(), device) {
        let batch = batch?;
        let logits = normalise
            .apply(&batch.pixels)
            .and_then(|pixels| net.forward(&pixels))
            .torch_context(|| "cannot compute a batch of images".to_string())?;
        seen += batch.len as u64;
        for row in 0..batch.len {
            let found = Row::read(&logits, row).torch_context(|| "cannot read the logits".to_string())?;
            let image = images.path(batch.samples[row]);
            if found.logits.iter().all(|logit| logit.is_finite()) {
                each(found.prediction(trained, image, top, with_logits))?;
            } else {
                non_finite.push(shown(image));
            }
        }
    }
    let count = non_finite.len() as u64;
    let non_finite = non_finite.first().map(|first| nonfinite::problem(count, seen, first));
    Ok(Unpredicted { unreadable: faults.take_news(), non_finite })
}

/// What a network makes of one image, by class.
struct Row {
    logits: Vec<f64>,
    probabilities: Vec<f64>,
    /// Classes from the highest logit to the lowest.
    order: Vec<i64>,
}

impl Row {
    /// Of row `row` of `[N, classes]`.
    fn read(logits: &Tensor, row: usize) -> Result<Self, TchError> {
        let logits = logits.f_narrow(0, row as i64, 1)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let order = best_classes(&logits, logits.size()[1])?;
        let values = |tensor: Tensor| tensor.f_flatten(0, -1);
        Ok(Self {
            probabilities: Vec::try_from(values(logits.f_softmax(1, Kind::Double)?)?)?,
            order: Vec::try_from(values(order)?)?,
            logits: Vec::try_from(values(logits)?)?,
        })
    }

    fn prediction(&self, trained: &Trained, image: &Path, top: usize, with_logits: bool) -> Prediction {
        let guess = |&class: &i64| {
            let class = class as usize;
            Guess {
                class,
                name: trained.classes[class].clone(),
                probability: self.probabilities[class],
                logit: self.logits[class],
            }
        };
        Prediction {
            image: image.to_path_buf(),
            image_escaped: image.to_str().is_none(),
            preprocessing: trained.preprocessing.clone(),
            top: self.order.iter().take(top).map(guess).collect(),
            logits: with_logits.then(|| self.logits.clone()),
        }
    }
}
