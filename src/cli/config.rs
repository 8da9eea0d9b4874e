//! `senet config`: its words, and what its commands print.

use super::args::ExperimentArgs;
use super::commands::with_flags;
use super::output::{note, print, print_json};
use crate::data::Split;
use crate::error::{Result, usage};
use crate::experiment::diff::{Difference, changed, differences};
use crate::experiment::load::Layers;
use crate::experiment::rate::{Point, rounded};
use crate::experiment::request::Request;
use crate::experiment::validate::{Checked, Complaint, check, files_at};
use crate::experiment::{Experiment, schema};
use crate::files;
use crate::optim::{Shape, Timeline};
use crate::report::plot::text::{Line, WIDTH};
use crate::report::table::{Table, grouped};
use crate::run::RunDir;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `senet config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config show configs/imagenet/rsb-a2.json         everything that decides the run
  senet config check configs                             all files of a folder
  senet config diff default runs/first                   what a run changed
  senet config plot configs/imagenet/ffcv.json           the learning rate over the epochs
  senet config schema --out schema.json                  for editors")]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the whole configuration that a file and flags come to.
    Show(ShowArgs),
    /// Check files without running them.
    Check(CheckArgs),
    /// Compare two configurations.
    Diff(DiffArgs),
    /// Print the JSON Schema of configurations, for editors.
    Schema(SchemaArgs),
    /// Plot the learning rate over the run.
    Plot(PlotArgs),
}

/// `senet config show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config show
  senet config show configs/imagenet/rsb-a2.json --set train.batch_size=128
  senet config show runs/first --changed > first.json

Prints what a run would save as config.json, but for what the data decides, which stays null. What is
printed is itself a configuration.")]
pub struct ShowArgs {
    /// The configuration; CONFIG may also be the folder of a run.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// Only what differs from the built-in default.
    #[arg(long)]
    pub changed: bool,
}

/// `senet config check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config check configs
  senet config check mine.json runs/first
  senet config check configs --json

A line for each file, and one for each thing that is wrong. Of folders all *.json files below are checked, of the
folder of a run its configuration. Exit code 2 if any file cannot be used.")]
pub struct CheckArgs {
    /// Configurations, sweep files, and folders of them.
    #[arg(required = true, value_name = "CONFIG")]
    pub paths: Vec<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet config diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config diff configs/imagenet/rsb-a1.json configs/imagenet/rsb-a2.json
  senet config diff default runs/first --all
  senet config diff runs/first runs/second --json")]
pub struct DiffArgs {
    /// A configuration, the folder of a run, or `default`.
    pub a: PathBuf,
    /// What it is compared with, likewise.
    pub b: PathBuf,
    /// `about` and `name`, too.
    #[arg(long)]
    pub all: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet config schema`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config schema --out schema.json

An editor that knows JSON Schema completes, explains and checks the keys of a file that begins with
  \"$schema\": \"schema.json\"")]
pub struct SchemaArgs {
    /// The file to write, instead of printing.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite FILE whatever it is, not only an earlier schema.
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// `senet config plot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet config plot
  senet config plot configs/imagenet/ffcv.json --samples 1281167
  senet config plot runs/first --csv > rate.csv")]
pub struct PlotArgs {
    /// The configuration; CONFIG may also be the folder of a run.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// Optimizer steps in an epoch; default: as the data has them, and 1000 where it is not there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_SAMPLES))]
    pub steps_per_epoch: Option<u64>,
    /// Training samples, from which the steps follow.
    #[arg(long, value_name = "N", conflicts_with = "steps_per_epoch", value_parser = clap::value_parser!(u64).range(1..=MOST_SAMPLES))]
    pub samples: Option<u64>,
    /// Steps that --csv and --json name, at equal distances.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub points: u32,
    /// Print the values, a line each.
    #[arg(long)]
    pub csv: bool,
    /// Print one JSON document.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
}

/// Most samples that arithmetic is asked to count with.
const MOST_SAMPLES: u64 = 1_000_000_000_000;

/// Steps of an epoch where nobody says how many samples there are.
const ASSUMED_STEPS: u64 = 1000;

pub(super) fn config(args: &ConfigArgs) -> Result<u8> {
    match &args.command {
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Check(args) => check_all(args),
        ConfigCommand::Diff(args) => diff(args),
        ConfigCommand::Schema(args) => write_schema(args),
        ConfigCommand::Plot(args) => plot(args),
    }
}

/// What the file and the flags come to; of a run's folder, its configuration under them.
fn resolved(args: &ExperimentArgs) -> Result<Experiment> {
    let mut layers = Layers::default();
    if let Some(path) = &args.config {
        layers.file(&file_of(path)?)?;
    }
    with_flags(layers, args)
}

/// The file behind a configuration or the folder of a run.
fn file_of(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Ok(RunDir::open(path)?.config());
    }
    if Request::read(path)?.is_some() {
        let message = format!("{} is a sweep file: a comparison of many configurations", path.display());
        let hint = format!(
            "`senet ablate {} --dry-run` lists them; `base` names what they have in common",
            path.display()
        );
        return Err(usage(message).hint(hint).into());
    }
    Ok(path.to_path_buf())
}

fn show(args: &ShowArgs) -> Result<u8> {
    let experiment = resolved(&args.experiment)?;
    if let Some(scaled) = experiment.scaled_lr() {
        note(&format!("learning rate {scaled} (`optim.lr` · samples in a step / `optim.lr_per`)"));
    }
    match args.changed {
        true => print_json(&changed(&experiment)?)?,
        false => print_json(&experiment)?,
    }
    Ok(0)
}

fn check_all(args: &CheckArgs) -> Result<u8> {
    let mut files = Vec::new();
    for path in &args.paths {
        files.extend(files_at(path)?);
    }
    let checked: Vec<Checked> = files.iter().map(|file| check(file)).collect();
    let wrong = checked.iter().filter(|checked| !checked.ok).count();
    match args.json {
        true => print_json(&json!({ "wrong": wrong, "files": checked }))?,
        false => print(&checked.iter().map(lines).collect::<Vec<_>>().join("\n"))?,
    }
    if wrong > 0 {
        return Err(usage(format!("{wrong} of {} files cannot be used", checked.len())).into());
    }
    Ok(0)
}

/// A line for a file, or one for each of its problems.
fn lines(checked: &Checked) -> String {
    let file = checked.file.display();
    if let Some(summary) = &checked.summary {
        let differs =
            checked.differs.as_ref().map_or(String::new(), |text| format!("; {}", first_sentence(text)));
        return format!("ok     {file}: {summary}{differs}");
    }
    let line = |problem: &Complaint| {
        let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        // What names the file already does so once.
        let message = problem.message.strip_prefix(&format!("{file}: ")).unwrap_or(&problem.message);
        format!("wrong  {file}: {message}{hint}")
    };
    checked.problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The first sentence of a text for people, which says what the rest is about.
fn first_sentence(text: &str) -> &str {
    let ends = text.match_indices(". ").map(|(at, _)| at);
    let end = ends.into_iter().find(|at| !text[..*at].ends_with(" al"));
    text[..end.unwrap_or(text.len())].trim_end_matches('.')
}

fn diff(args: &DiffArgs) -> Result<u8> {
    let experiment = |path: &Path| -> Result<Experiment> {
        let mut layers = Layers::default();
        if path.as_os_str() != "default" {
            layers.file(&file_of(path)?)?;
        }
        layers.apply_to(&Experiment::default())
    };
    let (a, b) = (experiment(&args.a)?, experiment(&args.b)?);
    let is_asked = |difference: &Difference| {
        let part = difference.key.split('.').next().unwrap_or_default();
        args.all || !["about", "name"].contains(&part)
    };
    let found: Vec<Difference> = differences(&a, &b)?.into_iter().filter(is_asked).collect();
    if args.json {
        return print_json(&json!({ "a": args.a, "b": args.b, "differences": found })).map(|()| 0);
    }
    if found.is_empty() {
        return print("no difference").map(|()| 0);
    }
    let (first, second) = (args.a.display().to_string(), args.b.display().to_string());
    let mut table = Table::new(["key", first.as_str(), second.as_str()]);
    let cell = |value: &Option<Value>| match value {
        None => "–".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    for Difference { key, a, b } in &found {
        table.row([key.clone(), cell(a), cell(b)]);
    }
    print(&table.text()).map(|()| 0)
}

fn write_schema(args: &SchemaArgs) -> Result<u8> {
    let text = schema::text()?;
    match &args.out {
        Some(path) => {
            if !args.force {
                files::check_replaceable(path, &text[..text.find("description").unwrap_or(0)])?;
            }
            files::write_atomic(path, text.as_bytes())?;
        }
        None => print(text.trim_end())?,
    }
    Ok(0)
}

fn plot(args: &PlotArgs) -> Result<u8> {
    let experiment = resolved(&args.experiment)?;
    let (steps_per_epoch, origin) = steps_per_epoch(&experiment, args);
    let timeline = experiment.timeline(steps_per_epoch)?;
    let peak = rounded(experiment.peak_lr());
    if args.json {
        let points = experiment.lr_course(timeline, args.points as usize)?;
        let Timeline { total_steps, steps_per_epoch } = timeline;
        return print_json(&json!({
            "peak_lr": peak,
            "total_steps": total_steps,
            "steps_per_epoch": steps_per_epoch,
            "steps_from": origin,
            "points": points,
        }))
        .map(|()| 0);
    }
    let head = in_words(&experiment, timeline, &origin);
    if args.csv {
        note(&head);
        let row = |Point { step, epoch, lr }: Point| format!("{step},{epoch},{lr}");
        let rows: Vec<String> =
            experiment.lr_course(timeline, args.points as usize)?.into_iter().map(row).collect();
        return print(&format!("step,epoch,learning_rate\n{}", rows.join("\n"))).map(|()| 0);
    }
    let course = experiment.lr_course(timeline, WIDTH)?;
    let points = course.into_iter().map(|point| (point.epoch, point.lr)).collect();
    let last = timeline.total_steps as f64 / timeline.steps_per_epoch as f64;
    let line = Line { chosen: "epoch", last, measured: "learning rate", highest: peak, points };
    print(&format!("{head}\n\n{}", line.text())).map(|()| 0)
}

/// Optimizer steps in an epoch, and where the number is from.
fn steps_per_epoch(experiment: &Experiment, args: &PlotArgs) -> (u64, String) {
    if let Some(steps) = args.steps_per_epoch {
        return (steps, "--steps-per-epoch".to_string());
    }
    let of = |samples: usize| {
        (experiment.steps_per_epoch(samples), format!("{} samples", grouped(samples as i64)))
    };
    match args.samples {
        Some(samples) => of(samples as usize),
        None => match experiment.data.open(Split::Train, experiment.seed) {
            Ok(data) => of(data.len()),
            Err(error) => {
                note(&format!("{error:#}; `--samples N` or `--steps-per-epoch N` say how long an epoch is"));
                (ASSUMED_STEPS, "assumed".to_string())
            }
        },
    }
}

fn in_words(experiment: &Experiment, timeline: Timeline, origin: &str) -> String {
    let [total, epoch] = [timeline.total_steps, timeline.steps_per_epoch].map(|steps| grouped(steps as i64));
    let peak = experiment.scaled_lr().unwrap_or_else(|| rounded(experiment.peak_lr()).to_string());
    let duration = experiment.train.duration;
    let mut text =
        format!("{duration}: {total} steps, {epoch} an epoch ({origin}); peak learning rate {peak}");
    if let Shape::Plateau { factor, .. } = experiment.schedule.shape {
        text += &format!(", times {factor} at each plateau");
    }
    text
}
