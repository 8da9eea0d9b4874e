//! What the splits of a data set are, for people: which are used, how large they are, and what is odd about them.

use crate::data::class_names::{alike, listed};
use crate::data::split::NamedSplit;
use crate::data::{DataSpec, Dataset};
use crate::report::table::grouped;

/// One line about a split: `evaluation split: valid/ of DIR, 4 images, 2 classes`.
pub fn line(spec: &DataSpec, use_of_it: &str, data: &dyn Dataset) -> String {
    let (images, classes) = (grouped(data.len() as i64), data.classes().len());
    let plural = if classes == 1 { "class" } else { "classes" };
    let place = match data.origin() {
        None => "synthetic data".to_string(),
        Some(origin) if origin.named.is_none() || origin.name.is_empty() => spec.in_words(),
        Some(origin) => format!("{} of {}", origin.name, spec.in_words()),
    };
    let origin = data.origin().unwrap_or_default();
    let is_test = use_of_it == EVALUATION && origin.named == Some(NamedSplit::Test);
    let test = if is_test { " (the test split: no validation split was found)" } else { "" };
    let unused = match origin.unused.as_slice() {
        [] => String::new(),
        [one] => format!("; {one} is not used"),
        several => format!("; {} are not used", several.join(", ")),
    };
    format!("{use_of_it} split: {place}{test}, {images} images, {classes} {plural}{unused}")
}

/// What a split is used for, as [`line`] has it.
pub const TRAINING: &str = "training";
/// The same.
pub const EVALUATION: &str = "evaluation";

/// What is odd about the data for training and evaluation, in whole sentences; of an evaluation alone, without `train`.
pub fn warnings(train: Option<&dyn Dataset>, eval: &dyn Dataset) -> Vec<String> {
    let mut found = Vec::new();
    let splits = train.into_iter().map(|data| (TRAINING, data)).chain([(EVALUATION, eval)]);
    for (use_of_it, data) in splits {
        found.extend(of_listing(data));
        let missing = without_samples(data);
        if !missing.is_empty() {
            let mut warning = format!(
                "the {use_of_it} split has no images of {} of its {} classes: {}",
                missing.len(),
                data.classes().len(),
                listed(&missing)
            );
            if use_of_it == TRAINING && missing == ["0"] {
                warning += " (labels count from 0, not from 1)";
            }
            found.push(warning);
        }
    }
    let data = train.unwrap_or(eval);
    if let [only] = data.classes() {
        found.push(format!("there is one class only, `{}`: every prediction is right", only.escape_debug()));
    }
    found.extend(alike(data.classes()));
    found
}

/// Which order of the classes training uses, where another would give other labels.
pub fn class_order(data: &dyn Dataset) -> Option<String> {
    data.listing()?.class_order
}

/// What was skipped when a data set was listed, in whole sentences.
pub fn of_listing(data: &dyn Dataset) -> Vec<String> {
    let Some(listing) = data.listing() else { return Vec::new() };
    let name = data.origin().map_or_else(String::new, |origin| origin.name);
    let prefix = if name.is_empty() { name } else { format!("{name}: ") };
    let skipped = listing.passed_over.iter().filter(|(_, count)| *count > 0);
    let skipped = skipped.map(|(what, count)| format!("{prefix}skipped {} {what}", grouped(*count as i64)));
    skipped.chain(listing.remarks).collect()
}

/// Classes of a data set of which it has no sample.
fn without_samples(data: &dyn Dataset) -> Vec<String> {
    let mut has_samples = vec![false; data.classes().len()];
    (0..data.len()).for_each(|sample| has_samples[data.label(sample)] = true);
    let missing = data.classes().iter().zip(has_samples).filter(|(_, has)| !has);
    missing.map(|(name, _)| name.clone()).collect()
}
