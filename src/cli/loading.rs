//! `senet data bench` and `senet data show`.

use super::args::{OutputArgs, batch_size, number};
use super::commands::path_value;
use super::output::{note, print, print_json};
use super::signals;
use crate::data::{MAX_SIZE, Preprocessing, Split};
use crate::engine::data::loading::{self, Measurement, Pipeline};
use crate::error::{Result, failed};
use crate::escaped::shown;
use crate::experiment::load::Layers;
use crate::experiment::{Experiment, MAX_THREADS};
use crate::files;
use crate::report::table::{Table, grouped};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;

/// Which preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PipelineName {
    /// Shuffled and augmented.
    Train,
    /// As it is, resized and cut out.
    Eval,
}

/// What decides how images are prepared.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// Folder of the data: `train/` and `val/`, class folders, or shards.
    pub dir: PathBuf,
    /// Prepare as in training or as in evaluation.
    #[arg(long, value_enum, default_value_t = PipelineName::Train)]
    pub pipeline: PipelineName,
    /// Height and width of the samples [default: those of the images where all have the same, else 224].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=MAX_SIZE as i64))]
    pub size: Option<u32>,
    /// Take `data` of a configuration, with its augmentation.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one value of the configuration; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Threads that make samples [default: one for each core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u32>,
    /// Seed of order and augmentation.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// `senet data bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data bench IMAGENET
  senet data bench IMAGENET --pipeline eval --threads 2 --json
  senet data bench SHARDS --config configs/imagenet/se-resnet-50.json --set data.scaled_decoding=true

An image is done when it lies in a batch of normalised floats. Stages are times of one thread for one image; decoding
alone is the limit that no faster loader passes on these threads.")]
pub struct DataBenchArgs {
    /// What is timed.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = batch_size())]
    pub batch_size: u32,
    /// Length of the measurement, after a first pass that is not timed.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = number)]
    pub seconds: f64,
    /// How to report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `senet data show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data show IMAGENET --out sheet.png
  senet data show IMAGENET --config configs/imagenet/se-resnet-50.json --count 16 --epoch 3
  senet data show IMAGENET --set 'data.augment=[{\"kind\": \"rand-augment\"}]'")]
pub struct DataShowArgs {
    /// What is shown.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The picture to write (PNG).
    #[arg(long, value_name = "FILE", default_value = "samples.png")]
    pub out: PathBuf,
    /// Write over a file that is there.
    #[arg(long)]
    pub force: bool,
    /// Samples.
    #[arg(long, value_name = "N", default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..=400))]
    pub count: u32,
    /// Epoch of training that the order and the augmentation are of, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub epoch: u64,
    /// Print the samples as one JSON document.
    #[arg(long)]
    pub json: bool,
}

impl PipelineArgs {
    fn open(&self, batch_size: usize) -> Result<Pipeline> {
        let mut layers = Layers::default();
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        for assignment in &self.set {
            layers.setting(assignment)?;
        }
        layers.set("data.dir", path_value("DIR", &Some(self.dir.clone()))?.unwrap_or_default(), "DIR");
        if let Some(size) = self.size {
            layers.set("data.size", json!(size), "--size");
        }
        if let Some(seed) = self.seed {
            layers.set("seed", json!(seed), "--seed");
        }
        let experiment = layers.apply_to(&Experiment::default())?;
        experiment.check()?;
        let split = match self.pipeline {
            PipelineName::Train => Split::Train,
            PipelineName::Eval => Split::Eval,
        };
        let (mut spec, seed) = (experiment.data, experiment.seed);
        // What there is only one half of can be prepared in either way.
        let there = spec.halves()?;
        let half = if there.contains(&split) { split } else { there[0] };
        let dataset = spec.open(half, seed)?;
        spec.resolve(dataset.as_ref(), &Preprocessing::default())?;
        Ok(Pipeline { dataset, spec, split, batch_size, seed })
    }

    fn threads(&self, pipeline: &Pipeline) -> usize {
        self.threads.map_or_else(|| pipeline.spec.thread_count(), |threads| threads as usize)
    }
}

pub(super) fn bench(args: &DataBenchArgs) -> Result<u8> {
    let stop = signals::stop_flag();
    let pipeline = args.pipeline.open(args.batch_size as usize)?;
    let threads = args.pipeline.threads(&pipeline);
    let bar =
        if args.output.quiet { ProgressBar::hidden() } else { ProgressBar::new(args.seconds.ceil() as u64) };
    if let Ok(style) = ProgressStyle::with_template("timing {wide_bar} {pos} of {len} s") {
        bar.set_style(style);
    }
    let measurement = loading::bench(&pipeline, threads, args.seconds, &stop, &mut |seconds| {
        bar.set_position(seconds as u64)
    })?;
    bar.finish_and_clear();
    for message in &measurement.warnings {
        note(&format!("warning: {message}"));
    }
    if args.output.json {
        return print_json(&measurement).map(|()| 0);
    }
    print(&lines(&measurement)).map(|()| 0)
}

/// A measurement as people read it.
fn lines(measurement: &Measurement) -> String {
    let Measurement { pipeline, threads, images_per_second, spread, batch_size, size, .. } = measurement;
    let mut table = Table::new(["stage", "ms an image", "share"]);
    for (stage, cost) in &measurement.stages {
        table.row([
            stage.to_string(),
            format!("{:.3}", cost.ms_per_image),
            format!("{:.1} %", 100.0 * cost.share),
        ]);
    }
    let memory =
        measurement.peak_memory.map_or(String::new(), |bytes| format!("; peak memory {} MiB", bytes >> 20));
    format!(
        "{pipeline} pipeline, {} samples at {size} × {size} in batches of {batch_size}, {threads} thread(s)\n\
         images a second: median {images_per_second:.0}, min {:.0}, max {:.0} ({} images{memory})\n\n{}\n\n\
         decoding alone would allow {:.0} images a second",
        grouped(measurement.samples as i64),
        spread.min,
        spread.max,
        grouped(measurement.images as i64),
        table.text(),
        measurement.decode_limit
    )
}

pub(super) fn show(args: &DataShowArgs) -> Result<u8> {
    if args.out.exists() && !args.force {
        let message = format!("{} exists", args.out.display());
        return Err(failed(message).hint("`--force` writes over it, `--out` names another file").into());
    }
    let pipeline = args.pipeline.open(args.count.min(16) as usize)?;
    let threads = args.pipeline.threads(&pipeline);
    let sheet = loading::sheet(&pipeline, args.epoch, args.count as usize, threads)?;
    for message in &sheet.warnings {
        note(&format!("warning: {message}"));
    }
    files::write_atomic(&args.out, &sheet.png)?;
    if args.json {
        let samples: Vec<_> =
            sheet.samples.iter().map(|(sample, class)| json!({ "sample": sample, "class": class })).collect();
        return print_json(
            &json!({ "file": shown(&args.out), "columns": sheet.columns, "samples": samples }),
        )
        .map(|()| 0);
    }
    print(&format!("{}: {} samples, {} in a row", args.out.display(), sheet.samples.len(), sheet.columns))?;
    for row in sheet.samples.chunks(sheet.columns) {
        let classes: Vec<&str> = row.iter().map(|(_, class)| class.as_str()).collect();
        print(&format!("  {}", classes.join(", ")))?;
    }
    Ok(0)
}
