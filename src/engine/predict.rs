//! Prediction: the most probable classes of images.

use super::trained::Trained;
use crate::data::faults::{Faults, OnError};
use crate::data::images::ImageFiles;
use crate::data::loader::{Loader, Plan};
use crate::data::preprocessing::UsedPreprocessing;
use crate::data::{DataSpec, Dataset};
use crate::error::{Result, TorchContext};
use crate::escaped;
use crate::net::plan::InferencePlan;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Kind, TchError, Tensor, no_grad_guard};

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

/// Predicts the `top` best classes of every image; each is handed to `each` as soon as it is known. Returns what is wrong
/// with the images that cannot be read.
///
/// # Errors
/// When libtorch refuses, or `each` fails.
pub fn run(
    trained: &Trained,
    images: ImageFiles,
    top: usize,
    with_logits: bool,
    each: &mut dyn FnMut(Prediction) -> Result<()>,
) -> Result<Vec<String>> {
    let _guard = no_grad_guard();
    let device = trained.net.device();
    let prepared = DataSpec::prepared(&trained.preprocessing.values);
    let spec = DataSpec { on_error: OnError::Skip, max_bad: 1.0, ..prepared };
    let normalise = trained.normalise();
    let net = InferencePlan::new(&trained.net).torch_context(|| "cannot prepare the network".to_string())?;
    let images = Arc::new(images);
    let faults = Arc::new(Faults::new(&spec, images.len()));
    let plan = Plan::eval(Arc::clone(&images) as Arc<dyn Dataset>, Arc::clone(&faults), &spec, BATCH_SIZE);
    for batch in Loader::start(plan, 0, spec.thread_count(), device) {
        let batch = batch?;
        let logits = normalise
            .apply(&batch.pixels)
            .and_then(|pixels| net.forward(&pixels))
            .torch_context(|| "cannot compute a batch of images".to_string())?;
        for row in 0..batch.len {
            let (logits, probabilities) =
                row_of(&logits, row).torch_context(|| "cannot read the logits".to_string())?;
            let image = images.path(batch.samples[row]);
            each(prediction(trained, image, &logits, &probabilities, top, with_logits))?;
        }
    }
    Ok(faults.take_news())
}

/// Logits and probabilities of one image.
fn row_of(logits: &Tensor, row: usize) -> Result<(Vec<f64>, Vec<f64>), TchError> {
    let logits = logits.f_select(0, row as i64)?.f_to_kind(Kind::Double)?;
    Ok((Vec::try_from(&logits)?, Vec::try_from(logits.f_softmax(0, Kind::Double)?)?))
}

fn prediction(
    trained: &Trained,
    image: &Path,
    logits: &[f64],
    probabilities: &[f64],
    top: usize,
    with_logits: bool,
) -> Prediction {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Of equal logits the lower class is first.
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let guess = |&class: &usize| Guess {
        class,
        name: trained.classes[class].clone(),
        probability: probabilities[class],
        logit: logits[class],
    };
    Prediction {
        image: image.to_path_buf(),
        image_escaped: image.to_str().is_none(),
        preprocessing: trained.preprocessing.clone(),
        top: order.iter().take(top).map(guess).collect(),
        logits: with_logits.then(|| logits.to_vec()),
    }
}
