//! The commands about weights: predict, import, export.

use super::args::{ExportArgs, ImportArgs, Names, PredictArgs};
use super::commands::{open_run, preprocessing_overrides};
use super::output::{note, print, print_json};
use crate::data::images::ImageFiles;
use crate::engine::convert::{self, Written};
use crate::engine::predict::{self, Prediction, Unpredicted};
use crate::engine::trained::Trained;
use crate::engine::weights_file::WeightsOptions;
use crate::error::{Result, failed, usage};
use crate::escaped::shown;
use crate::experiment;
use crate::report::table::{grouped, percent};
use crate::run::Checkpoint;
use crate::weights::names::Scheme;
use std::path::Path;
use tch::Device;

/// A file of weights, or a checkpoint of a run.
fn trained(
    weights: Option<&Path>,
    run: Option<&Path>,
    checkpoint: Checkpoint,
    options: &WeightsOptions,
    device: Device,
) -> Result<Trained> {
    if let Some(path) = weights {
        let trained = Trained::of_file(path, options, device)?;
        trained.notes.iter().for_each(|text| note(&format!("note: {text}")));
        return Ok(trained);
    }
    let run = open_run(run)?;
    let trained = Trained::of_run(&run, &run.experiment()?, checkpoint, options.average, device)?;
    trained.notes.iter().for_each(|text| note(&format!("warning: {text}")));
    Ok(trained)
}

/// How the flags `--model`, `--set` and `--ema` want a file of weights to be read.
pub(super) fn options(model: &Option<String>, settings: &[String], average: bool) -> WeightsOptions {
    WeightsOptions { model: model.clone(), settings: settings.to_vec(), average }
}

pub(super) fn predict(args: &PredictArgs) -> Result<u8> {
    let device = experiment::device(&args.device)?;
    let (weights, run) = (args.weights.as_deref(), args.run.as_deref());
    let options = options(&args.model, &args.set, args.ema);
    let mut trained = trained(weights, run, Checkpoint::Last, &options, device)?;
    trained.preprocess_with(&preprocessing_overrides(&args.preprocessing))?;
    let images = ImageFiles::find(&args.images, trained.preprocessing.values.mean.len())?;
    note(&trained.preprocessing.line(&trained.spec.name));
    if images.skipped() > 0 {
        note(&format!("warning: skipped {} files not named like images", grouped(images.skipped() as i64)));
    }
    let (mut found, mut readable) = (Vec::new(), 0);
    let mut each = |prediction: Prediction| {
        readable += 1;
        if args.json {
            found.push(prediction);
            return Ok(());
        }
        print(&lines(&prediction))
    };
    let Unpredicted { unreadable, non_finite } =
        predict::run(&trained, images, args.top as usize, args.logits, &mut each)?;
    if let (0, None, Some(first)) = (readable, &non_finite, unreadable.first()) {
        return Err(failed(first).hint("name images that can be decoded").into());
    }
    if args.json && readable > 0 {
        print_json(&found)?;
    }
    for message in &unreadable {
        note(&format!("warning: {message}"));
    }
    match non_finite {
        Some(problem) => Err(problem.into()),
        None => Ok(u8::from(!unreadable.is_empty())),
    }
}

/// A prediction as people read it.
fn lines(prediction: &Prediction) -> String {
    let mut lines = vec![shown(&prediction.image)];
    for guess in &prediction.top {
        lines.push(format!("  {:>8}  {}", percent(guess.probability), guess.name));
    }
    lines.join("\n")
}

pub(super) fn import(args: &ImportArgs) -> Result<u8> {
    check_ending(&args.out)?;
    let options = options(&args.model, &args.set, args.ema);
    let written = convert::import(&args.file, &options, &args.out)?;
    show(&written, args.json)
}

/// Refuses the endings of other formats, whose readers could not open a safetensors file.
fn check_ending(out: &Path) -> Result<()> {
    const OTHERS: [&str; 10] = ["onnx", "pth", "pt", "pkl", "bin", "ckpt", "tar", "npz", "h5", "caffemodel"];
    let ending = out.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    if !OTHERS.contains(&&*ending) {
        return Ok(());
    }
    let message =
        format!("`--out {}`: `.{ending}` is another format's, and safetensors is written", out.display());
    let hint = format!("name it {}", out.with_extension("safetensors").display());
    Err(usage(message).hint(hint).into())
}

pub(super) fn export(args: &ExportArgs) -> Result<u8> {
    let (weights, run) = (args.weights.as_deref(), args.run.as_deref());
    check_ending(&args.out)?;
    let options = options(&args.model, &args.set, args.ema);
    let trained = trained(weights, run, args.checkpoint.into(), &options, Device::Cpu)?;
    let scheme = match args.names {
        Names::Senet => Scheme::Senet,
        Names::Timm => convert::timm_names(&trained.spec)?,
    };
    show(&convert::export(&trained, scheme, &args.out)?, args.json)
}

fn show(written: &Written, json: bool) -> Result<u8> {
    written.notes.iter().for_each(|text| note(&format!("note: {text}")));
    if json {
        return print_json(written).map(|()| 0);
    }
    let Written { out, model, tensors, values, left_out, .. } = written;
    let mut text = format!(
        "{}: {model}, {tensors} tensors, {} values",
        out.display(),
        grouped(i64::try_from(*values).unwrap_or(i64::MAX))
    );
    if let Some(first) = left_out.first() {
        text += &format!(
            "\nleft out, since the network does not need them: {} tensors ({first}, …)",
            left_out.len()
        );
    }
    print(&text).map(|()| 0)
}
