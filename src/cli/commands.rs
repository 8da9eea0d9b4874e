//! One function a command.

use super::args::{
    Cli, Crops, DoctorArgs, EvalArgs, ExperimentArgs, PreprocessingArgs, SubjectArgs, SummaryArgs, Which,
};
use super::output::{Console, answer_lines, evaluation_lines, note, print, print_json};
use super::ranks::{self, Role};
use super::weights;
use crate::data::class_order::ClassOrder;
use crate::data::preprocessing::{PreprocessingOverrides, ShortSide, UsedPreprocessing};
use crate::data::views::Views;
use crate::dist::collective::Collective;
use crate::engine::details::{Answers, Questions};
use crate::engine::weights_file::WeightsOptions;
use crate::engine::{doctor, eval};
use crate::error::{Result, usage};
use crate::escaped::{self, shown};
use crate::experiment::Experiment;
use crate::experiment::load::Layers;
use crate::models::aliases::Alias;
use crate::models::{self, ModelSpec};
use crate::net::cost::{Cost, Shape, cost};
use crate::net::se::{InexactWidth, SeSpec};
use crate::report::event::Evaluation;
use crate::report::table::{Table, grouped};
use crate::run::{Checkpoint, RunDir};
use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::Device;

/// Where runs go by default.
pub(super) const RUNS: &str = "runs";

/// `defaults < file < --set < flags`.
pub(super) fn experiment(args: &ExperimentArgs) -> Result<Experiment> {
    let mut layers = Layers::default();
    if let Some(path) = &args.config {
        layers.file(path)?;
    }
    with_flags(layers, args)
}

/// What `--set` and the flags make of `layers`.
pub(super) fn with_flags(mut layers: Layers, args: &ExperimentArgs) -> Result<Experiment> {
    for assignment in &args.set {
        layers.setting(assignment)?;
    }
    let (data, weights) = (path_value("--data", &args.data)?, path_value("--weights", &args.weights)?);
    let mut flag = |flag: &str, key: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            layers.set(key, value, flag);
        }
    };
    flag("--data", "data.dir", data);
    flag("--model", "model.name", args.model.as_ref().map(|name| json!(name)));
    flag("--weights", "model.weights", weights);
    flag("--head", "model.head", args.head.as_ref().map(|head| json!(head)));
    flag("--epochs", "train.duration", args.epochs.map(|epochs| json!(format!("{epochs}ep"))));
    flag("--batch-size", "train.batch_size", args.batch_size.map(|size| json!(size)));
    flag("--lr", "optim.lr", args.lr.map(|lr| json!(lr)));
    flag("--seed", "seed", args.seed.map(|seed| json!(seed)));
    flag("--device", "device", args.device.as_ref().map(|device| json!(device)));
    flag("--threads", "threads", args.threads.map(|threads| json!(threads)));
    layers.apply_to(&Experiment::default())
}

/// A path as a configuration has it.
///
/// # Errors
/// When it is not UTF-8, as JSON has to be.
pub(super) fn path_value(flag: &str, path: &Option<PathBuf>) -> Result<Option<serde_json::Value>> {
    let Some(path) = path else { return Ok(None) };
    let text = path.to_str().ok_or_else(|| {
        usage(format!("`{flag}`: {} is not UTF-8, so a configuration cannot hold it", shown(path)))
            .hint("rename it, or name a link to it: `ln -s`")
    })?;
    Ok(Some(json!(text)))
}

pub(super) fn open_run(path: Option<&Path>) -> Result<RunDir> {
    match path {
        Some(path) => RunDir::open(path),
        None => RunDir::newest(Path::new(RUNS)),
    }
}

/// Where a trained network comes from.
pub(super) enum Source {
    Run(RunDir, Checkpoint),
    File(PathBuf, WeightsOptions),
}

impl Source {
    pub(super) fn of(args: &SubjectArgs) -> Result<Self> {
        Ok(match &args.weights {
            Some(path) => Self::File(path.clone(), weights::options(&args.model, &args.set, args.ema)),
            None => Self::Run(open_run(args.run.as_deref())?, args.checkpoint.into()),
        })
    }

    pub(super) fn subject(&self) -> eval::Subject<'_> {
        match self {
            Self::Run(run, checkpoint) => eval::Subject::Run(run, *checkpoint),
            Self::File(path, options) => eval::Subject::File(path, options),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Run(run, _) => run.path(),
            Self::File(path, _) => path,
        }
    }
}

/// What else the words say about looking at a trained network.
pub(super) fn request(args: &SubjectArgs, without_se: &[String]) -> eval::Request {
    eval::Request {
        average: args.ema,
        data: args.data.clone(),
        batch_size: args.batch_size.map(|size| size as usize),
        device: args.device.clone(),
        without_se: without_se.to_vec(),
        class_order: args.class_order.map_or(ClassOrder::Auto, ClassOrder::from),
        preprocessing: PreprocessingOverrides::default(),
    }
}

/// What the flags change of how images are prepared.
pub(super) fn preprocessing_overrides(args: &PreprocessingArgs) -> PreprocessingOverrides {
    let pixels = args.resize.map(|pixels| ShortSide::Pixels(pixels as usize));
    PreprocessingOverrides {
        size: args.size.map(|size| size as usize),
        resize: pixels.or(args.crop_ratio.map(ShortSide::CropRatio)),
        mean: args.mean.clone(),
        std: args.std.clone(),
    }
}

/// As `--device` has it.
fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}

/// `senet eval --json`: what was not asked for is not there.
#[derive(Serialize)]
struct EvalDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped::serialize_some")]
    run: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped::serialize_some")]
    weights: Option<&'a Path>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    without_se: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize: Option<usize>,
    preprocessing: &'a UsedPreprocessing,
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<Views>,
    /// Classes that are guessed among.
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<usize>,
    /// How folders named by numbers were read, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    class_order: Option<ClassOrder>,
    #[serde(flatten)]
    evaluation: Evaluation,
    #[serde(flatten)]
    answers: &'a Answers,
}

pub(super) fn eval(args: &EvalArgs) -> Result<u8> {
    let launch = match Role::find(&args.ranks)? {
        Role::Starter(processes) => return ranks::start(processes),
        Role::Worker(launch) => launch,
    };
    let device = args.subject.device.as_deref().unwrap_or("auto");
    let collective = ranks::join(launch.as_ref(), &args.ranks, device)?;
    let came_out = eval_as(args, &collective);
    ranks::leave(collective, launch.as_ref(), &None, came_out)
}

/// Evaluates as one of the ranks.
fn eval_as(args: &EvalArgs, collective: &Collective) -> Result<u8> {
    let EvalArgs { look, details, .. } = args;
    let mut console = Console::new(args.output.quiet || !collective.is_main());
    let source = Source::of(&args.subject)?;
    let preprocessing = preprocessing_overrides(&look.preprocessing);
    let resizes = preprocessing.resizes();
    let mut request = eval::Request { preprocessing, ..request(&args.subject, &args.without_se) };
    request.device = collective.device().map(device_name).or(request.device);
    let questions = Questions {
        calibration: details.calibration,
        real_labels: details.labels.clone(),
        per_class: details.per_class.clone(),
        confusion: details.confusion.clone(),
        predictions: details.predictions.clone(),
        overwrite: details.force,
    };
    let views = look.crops.into();
    let asked = eval::Look { views, subset: look.subset, questions };
    let outcome = eval::run(source.subject(), &request, &asked, &mut console, collective)?;
    drop(console);
    if !collective.is_main() {
        return Ok(0);
    }
    if let Some(warning) = &outcome.warning {
        note(&format!("warning: {warning}"));
    }
    let eval::Outcome { model, step, evaluation, answers, preprocessing, .. } = &outcome;
    let (classes, outputs) = outcome.classes;
    if !args.output.quiet && classes < outputs {
        let among = match look.subset {
            true => "guesses are among these alone",
            false => "guesses are among all of them (`--subset`: among those of the data alone)",
        };
        note(&format!("the data has {classes} of the network's {outputs} classes; {among}"));
    }
    if args.output.json {
        let (is_run, path) = (matches!(source, Source::Run(..)), source.path());
        let which = if args.subject.checkpoint == Which::Last { "last" } else { "best" };
        print_json(&EvalDocument {
            run: is_run.then_some(path),
            weights: (!is_run).then_some(path),
            model,
            checkpoint: is_run.then_some(which),
            step: *step,
            without_se: &args.without_se,
            size: resizes.then_some(preprocessing.values.size),
            resize: resizes.then_some(preprocessing.values.resize),
            preprocessing,
            crops: (look.crops != Crops::Center).then_some(views),
            subset: look.subset.then_some(classes),
            class_order: outcome.class_order,
            evaluation: *evaluation,
            answers,
        })?;
    } else {
        if !args.output.quiet {
            let step = step.map_or(String::new(), |step| format!(" after step {step}"));
            note(&format!("{}, {model}{step}", source.path().display()));
        }
        print(&evaluation_lines(evaluation, args.top5))?;
        let lines = answer_lines(answers);
        if !lines.is_empty() {
            print(&lines)?;
        }
    }
    Ok(0)
}

/// `senet summary NAME --json`.
#[derive(Serialize)]
struct SummaryDocument<'a> {
    name: &'a str,
    input: Shape,
    classes: i64,
    #[serde(flatten)]
    cost: &'a Cost,
    /// SE blocks whose hidden width is not exactly C/r.
    inexact_se_widths: &'a [InexactWidth],
}

pub(super) fn summary(args: &SummaryArgs) -> Result<u8> {
    let Some(name) = &args.name else {
        return list(args.json).map(|()| 0);
    };
    let (entry, has_se) = models::find(name)?;
    let called = ModelSpec::called(name)?;
    let se = SeSpec {
        reduction: args.reduction,
        bias: !args.no_se_bias,
        rounding: args.rounding.unwrap_or(called.se.rounding),
        ..called.se.clone()
    };
    let spec = ModelSpec { se, ..called };
    let name = &spec.name;
    let classes = args.classes.unwrap_or(entry.classes);
    let size = args.size.unwrap_or(entry.input.height);
    let input = Shape::square(entry.input.channels, size);
    let node = spec.describe(input.channels, classes)?;
    let cost = cost(&node, input)?;
    let inexact = spec.se.inexact(&node);
    if args.json {
        let document = SummaryDocument { name, input, classes, cost: &cost, inexact_se_widths: &inexact };
        return print_json(&document).map(|()| 0);
    }
    let mut table = Table::new(["stage", "output C × H × W", "parameters", "BN statistics", "multiply-adds"]);
    let row = |name: &str, output: String, params: crate::net::cost::ParamCount, macs: i64| {
        [name.to_string(), output, grouped(params.trainable), grouped(params.bn_statistics), grouped(macs)]
    };
    for stage in &cost.stages {
        table.row(row(&stage.name, stage.output.to_string(), stage.params, stage.macs));
    }
    table.row(row("total", String::new(), cost.params, cost.macs));
    let se = match has_se {
        true => format!(", r = {}, SE biases {}", args.reduction, if args.no_se_bias { "off" } else { "on" }),
        false => String::new(),
    };
    let mut text = format!("{name}: input {input}, {classes} classes{se}; {}\n{}", entry.about, table.text());
    let all = grouped(cost.params.trainable + cost.params.bn_statistics);
    text += &format!("\nparameters with BN statistics: {all}");
    if let Some(first) = inexact.first() {
        let InexactWidth { block, channels, hidden } = first;
        text += &format!(
            "\nC/r is no whole number in {} SE block(s): the hidden width is rounded down, and 1 where C/r < 1 \
             (first: {block}, {channels}/{} becomes {hidden})",
            inexact.len(),
            args.reduction
        );
    }
    print(&text).map(|()| 0)
}

fn list(json: bool) -> Result<()> {
    let names = models::names();
    if json {
        return print_json(&names);
    }
    let mut table = Table::new(["without SE", "with SE", "input", "form", "aliases (timm, torchvision)"]);
    for entry in models::ZOO {
        let (input, aliases) = (entry.input.to_string(), Alias::of_entry(entry).join(", "));
        table.row([entry.base.to_string(), entry.se_name(), input, entry.about.to_string(), aliases]);
    }
    print(&table.text())
}

pub(super) fn doctor(args: &DoctorArgs, large_blocks_kept: bool) -> Result<u8> {
    let findings = doctor::examine(large_blocks_kept);
    if args.json {
        return print_json(&findings).map(|()| 0);
    }
    let mut lines = Vec::new();
    for finding in &findings {
        let mark = if finding.good { "ok  " } else { "look" };
        lines.push(format!("{mark}  {:<13} {}", finding.subject, finding.found));
        lines.extend(finding.hint.iter().map(|hint| format!("{:20}hint: {hint}", "")));
    }
    print(&lines.join("\n")).map(|()| 0)
}

pub(super) fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "senet", &mut script);
    print(&String::from_utf8(script).map_err(|_| usage("the completion script is not text"))?).map(|()| 0)
}

/// Adds the fields of `value` to the object `document`.
pub(super) fn merge(document: &mut serde_json::Value, value: &impl Serialize) -> Result<()> {
    if let (Some(document), serde_json::Value::Object(fields)) =
        (document.as_object_mut(), serde_json::to_value(value)?)
    {
        document.extend(fields);
    }
    Ok(())
}
