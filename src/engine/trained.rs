//! A network that has been trained, with everything that its use needs: from a run, or from a file of weights.

use super::weights_file::{WeightsFile, WeightsOptions};
use crate::data::Normalise;
use crate::data::preprocessing::{
    Preprocessing, PreprocessingOverrides, PreprocessingSource, UsedPreprocessing,
};
use crate::error::{Result, TorchContext, usage};
use crate::experiment::Experiment;
use crate::models::{self, Head, ModelSpec};
use crate::net::Node;
use crate::net::build::{Net, overwrite};
use crate::net::cost::{Shape, cost};
use crate::net::gates::{gated_blocks, without_blocks};
use crate::net::precision::Precision;
use crate::run::{Checkpoint, RunDir};
use crate::weights::DeclaredPreprocessing;
use std::collections::HashSet;
use std::path::Path;
use tch::Device;

/// A trained network.
#[derive(Debug)]
pub struct Trained {
    /// The network, with all its settings.
    pub spec: ModelSpec,
    /// Its description.
    pub node: Node,
    /// Its weights, on the device.
    pub net: Net,
    /// How images are prepared for it.
    pub preprocessing: UsedPreprocessing,
    /// Names of its classes, in the order of its logits.
    pub classes: Vec<String>,
    /// Whether the weights came with these names, or they are ImageNet's or mere numbers.
    pub classes_are_named: bool,
    /// Optimizer steps behind its weights, where that is known.
    pub step: Option<u64>,
    /// What the user should know of them.
    pub notes: Vec<String>,
}

impl Trained {
    /// A checkpoint of a run, whose configuration is `experiment`, or with `average` the moving average of its weights.
    ///
    /// # Errors
    /// When the checkpoint is damaged or does not fit the configuration.
    pub fn of_run(
        run: &RunDir,
        experiment: &Experiment,
        which: Checkpoint,
        average: bool,
        device: Device,
    ) -> Result<Self> {
        let (saved, warning) = run.saved(which)?;
        let warnings: Vec<String> = run.edits_warning()?.into_iter().chain(warning).collect();
        let identity = saved.identity();
        let node = experiment.model.describe(identity.channels as i64, identity.classes.len() as i64)?;
        let preprocessing = experiment.data.preprocessing();
        check_size(&node, &preprocessing)?;
        let preprocessing = UsedPreprocessing::declared(preprocessing, PreprocessingSource::Run);
        Precision::Fp32.prepare()?;
        let net = Net::build(&node, experiment.seed, device)?;
        if average {
            saved.load_average(&net)?
        } else {
            saved.load_weights(&net)?
        };
        Ok(Self {
            spec: experiment.model.clone(),
            node,
            net,
            preprocessing,
            classes: identity.classes.to_vec(),
            classes_are_named: true,
            step: Some(saved.progress().step),
            notes: warnings,
        })
    }

    /// A file of weights, of the network that `options` name or else of the one that the file names.
    ///
    /// # Errors
    /// When nobody says which network it is, or the file does not fit it.
    pub fn of_file(path: &Path, options: &WeightsOptions, device: Device) -> Result<Self> {
        Self::of_weights(WeightsFile::open(path, options)?, device)
    }

    /// Weights that have been read, in their network.
    ///
    /// # Errors
    /// When they do not fit it in every tensor.
    pub fn of_weights(file: WeightsFile, device: Device) -> Result<Self> {
        let WeightsFile { mut weights, spec, preprocessing, mut notes } = file;
        let (entry, _) = models::find(&spec.name)?;
        let DeclaredPreprocessing { values: preprocessing, source, .. } = preprocessing;
        // How many classes there are, the classifier's bias says.
        let bias = weights.arrays.get(&format!("{}.bias", entry.classifier()));
        let outputs = bias.map_or(entry.classes, |bias| bias.values.len() as i64);
        let node = spec.describe(preprocessing.mean.len() as i64, outputs)?;
        check_size(&node, &preprocessing)?;
        Precision::Fp32.prepare()?;
        let net = Net::build(&node, 0, device)?;
        notes.extend(weights.convert_channels(&net));
        weights.fill(&net, &spec.name, Head::Keep)?;
        let classes = &weights.about.classes;
        let classes_are_named = classes.len() as i64 == outputs;
        let classes = if classes_are_named { classes.clone() } else { default_classes(outputs) };
        let preprocessing = UsedPreprocessing::declared(preprocessing, source);
        Ok(Self { spec, node, net, preprocessing, classes, classes_are_named, step: None, notes })
    }
}

impl Trained {
    /// What turns bytes into the network's input.
    pub fn normalise(&self) -> Normalise {
        let Preprocessing { mean, std, .. } = &self.preprocessing.values;
        Normalise::new(mean, std, self.net.device())
    }

    /// Changes how images are prepared.
    ///
    /// # Errors
    /// When the network does not take such images.
    pub fn preprocess_with(&mut self, overrides: &PreprocessingOverrides) -> Result<()> {
        let changed = overrides.apply(&self.preprocessing.values)?;
        check_size(&self.node, &changed)?;
        (self.preprocessing.values, self.preprocessing.flags) = (changed, overrides.flags());
        Ok(())
    }

    /// The same network without some of its SE blocks: `all` of them, those of a stage (`stage5`), or those whose names
    /// begin with a word (`layer4.2`). What the others have learned stays as it is.
    ///
    /// # Errors
    /// When a word names no block.
    pub fn without_se(mut self, words: &[String]) -> Result<Self> {
        let blocks = gated_blocks(&self.node);
        let mut dropped = HashSet::new();
        for word in words {
            let mut meant = blocks.iter().filter(|block| is_meant(word, block)).peekable();
            if meant.peek().is_none() {
                let message =
                    format!("`--without-se` names `{word}`, but {} has no such SE block", self.spec.name);
                let hint = match (blocks.first(), blocks.last()) {
                    (Some(first), Some(last)) => {
                        format!(
                            "`all`, a stage such as `stage4`, or the start of a name, {first} to {last}, are possible"
                        )
                    }
                    _ => "it has no SE blocks with a gate at all".to_string(),
                };
                return Err(usage(message).hint(hint).into());
            }
            dropped.extend(meant.cloned());
        }
        let node = without_blocks(&self.node, |block| dropped.contains(block));
        let net = Net::build(&node, 0, self.net.device())?;
        for kept in net.tensors() {
            let mut trained = self.net.tensors().iter();
            let trained = trained.find(|named| named.param.name == kept.param.name);
            let trained = trained.expect("a network without a block has no tensor of its own");
            overwrite(&kept.tensor, &trained.tensor)
                .torch_context(|| format!("cannot copy `{}`", kept.param.name))?;
        }
        (self.node, self.net) = (node, net);
        Ok(self)
    }
}

/// Whether `word` means the block called `name`.
fn is_meant(word: &str, name: &str) -> bool {
    // The first stage after the stem is the paper's stage 2, and called `layer1`.
    let stage = word.strip_prefix("stage").and_then(|number| number.parse::<i64>().ok());
    let prefix = stage.map_or(word.to_string(), |stage| format!("layer{}", stage - 1));
    word == "all" || name == word || name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.'))
}

/// Refuses images of a size that the network does not take.
pub(super) fn check_size(node: &Node, preprocessing: &Preprocessing) -> Result<()> {
    let channels = preprocessing.mean.len() as i64;
    cost(node, Shape::square(channels, preprocessing.size as i64)).map(|_| ())
}

/// Names of classes that no file names: ImageNet's for 1000, else their numbers.
fn default_classes(outputs: i64) -> Vec<String> {
    if outputs == 1000 {
        return models::imagenet_classes().map(|(_, name)| name.to_string()).collect();
    }
    (0..outputs).map(|class| class.to_string()).collect()
}
