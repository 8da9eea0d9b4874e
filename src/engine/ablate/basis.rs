//! What the counts of a comparison rest on: the data's shape, and the length of a run.

use crate::engine::setup::{OpenData, Setup};
use crate::error::Result;
use crate::experiment::Experiment;
use crate::experiment::rate::rounded;
use crate::experiment::sweep::{Row, Sweep};
use crate::models;
use crate::net::cost::{Cost, Shape, cost};
use crate::report::comparison::{Results, RowResult, Run, State};
use serde::{Deserialize, Serialize};

/// What a comparison has learned of its data: its counts rest on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Basis {
    channels: i64,
    size: i64,
    pub(super) classes: i64,
    /// Samples that a run trains on, epochs taken together.
    pub(super) trained_samples: f64,
    /// Samples that a run evaluates, epochs taken together.
    pub(super) evaluated_samples: f64,
    /// Data and recipe in words.
    setting: Vec<String>,
}

/// Images of ImageNet-1k, for training and for evaluation.
const IMAGENET: [usize; 2] = [1_281_167, 50_000];

/// From this height on, a network was made for photographs.
const PHOTOGRAPH: i64 = 200;

impl Basis {
    /// What a dry run counts for: the data of `base`; or, where none is named and the network was made for photographs,
    /// ImageNet.
    pub(super) fn of_plan(base: &Experiment) -> Result<Self> {
        let (entry, _) = models::find(&base.model.name)?;
        if base.data.is_unnamed() && entry.input.height >= PHOTOGRAPH {
            let name = &base.model.name;
            let data = format!(
                "counted for ImageNet, {}: no data is named, and {name} was made for it",
                entry.input
            );
            return Ok(Self::new(base, entry.input, entry.classes, IMAGENET, data));
        }
        Self::of_run(base, &mut OpenData::default())
    }

    /// What is trained on: the data of `base`.
    pub(super) fn of_run(base: &Experiment, data: &mut OpenData) -> Result<Self> {
        let setup = Setup::for_training_on(base.clone(), data)?;
        let data = &setup.experiment.data;
        let input = Shape::square(setup.train.channels() as i64, data.size.expect("resolved") as i64);
        let (samples, classes) = ([setup.train.len(), setup.eval.len()], setup.train.classes().len());
        let [train, eval] = samples;
        let words = format!(
            "{}: {train} training and {eval} evaluation images, {input}, {classes} classes",
            data.in_words()
        );
        Ok(Self::new(base, input, classes as i64, samples, words))
    }

    fn new(base: &Experiment, input: Shape, classes: i64, [train, eval]: [usize; 2], data: String) -> Self {
        let Experiment { train: spec, model, .. } = base;
        let steps_per_epoch = base.steps_per_epoch(train);
        let epochs = spec.duration.steps(steps_per_epoch, 0) as f64 / steps_per_epoch as f64;
        let biases = if model.se.bias { "with biases" } else { "without biases" };
        let recipe = format!(
            "{}, {} in batches of {}, peak learning rate {}; SE has r = {} {biases}, unless a row says otherwise",
            model.name,
            spec.duration,
            spec.samples_per_step(),
            rounded(base.peak_lr()),
            model.se.reduction
        );
        Self {
            channels: input.channels,
            size: input.height,
            classes,
            trained_samples: epochs * base.data.sampling.draws(train) as f64,
            evaluated_samples: epochs.ceil() * eval as f64,
            setting: vec![data, recipe],
        }
    }

    pub(super) fn input(&self) -> Shape {
        Shape::square(self.channels, self.size)
    }

    /// The table of `sweep` with nothing but counts in it.
    pub(super) fn results(&self, sweep: &Sweep) -> Result<Results> {
        let row = |row: &Row| -> Result<RowResult> {
            let node = row.experiment.model.describe(self.channels, self.classes)?;
            Ok(empty(sweep, row, &cost(&node, self.input())?))
        };
        Ok(Results {
            title: sweep.title(),
            model: sweep.base.model.name.clone(),
            setting: self.setting.clone(),
            seeds: sweep.seeds.clone(),
            rows: sweep.rows.iter().map(row).collect::<Result<_>>()?,
            comparisons: sweep.comparisons.clone(),
            left_out: sweep.left_out.clone(),
            speeds_are_in_turns: false,
        })
    }
}

/// A row of which nothing but its counts is known.
fn empty(sweep: &Sweep, row: &Row, cost: &Cost) -> RowResult {
    let model = &row.experiment.model;
    let has_se = models::find(&model.name).is_ok_and(|(_, has_se)| has_se);
    RowResult {
        label: row.label.clone(),
        key: row.key.clone(),
        model: model.name.clone(),
        reduction: has_se.then_some(model.se.reduction),
        params: cost.params.trainable,
        macs: cost.macs,
        runs: sweep.seeds.iter().map(|seed| Run { seed: *seed, state: State::Open }).collect(),
        ..RowResult::default()
    }
}
