//! The words that users type: clap types, and nothing that does anything.

use super::config::ConfigArgs;
use super::data::DataArgs;
use crate::data::MAX_SIZE;
use crate::data::class_order::ClassOrder;
use crate::data::views::Views;
use crate::experiment::{MAX_BATCH_SIZE, MAX_THREADS};
use crate::net::se::Rounding;
use crate::run::Checkpoint;
use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// Train, evaluate and take apart Squeeze-and-Excitation networks.
#[derive(Debug, Parser)]
#[command(name = "senet", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  senet train                            SE-ResNet-20 on Fashion-MNIST, a few minutes on a laptop
  senet eval --top5                      top-1 and top-5 of the newest run
  senet ablate --ratios 4,8,16,32        the reduction ratios of the paper's Table 10, and no SE
  senet summary se-resnet-50             what a network is made of and costs
  senet doctor                           what this program runs on, and what is missing";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network, from a configuration or the built-in default.
    Train(TrainArgs),
    /// Evaluate a run exactly: every image once, counted.
    Eval(EvalArgs),
    /// Train variants of a network under one recipe and compare them in a table.
    Ablate(AblateArgs),
    /// Print the tables of a comparison again, or of runs, from their records.
    Report(ReportArgs),
    /// Look into a trained network.
    Inspect(InspectArgs),
    /// Name what is in images.
    Predict(PredictArgs),
    /// Read weights of other libraries into a file of ours.
    Import(ImportArgs),
    /// Write the weights of a run, or of a file, for other libraries.
    Export(ExportArgs),
    /// Index, verify and pack data sets.
    Data(DataArgs),
    /// Show, check, compare and plot configurations.
    Config(ConfigArgs),
    /// Print a network's stages, shapes, parameters and multiply-adds.
    Summary(SummaryArgs),
    /// Time training steps or forward passes on made-up batches.
    Bench(BenchArgs),
    /// Say what this program runs on, and what is missing.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  senet completions bash > ~/.local/share/bash-completion/completions/senet"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// What decides an experiment.
#[derive(Debug, Args)]
pub struct ExperimentArgs {
    /// Configuration (JSON); without it, the built-in default.
    pub config: Option<PathBuf>,
    /// Change one value of the configuration; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of the data (`data.dir`).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Network (`model.name`); `senet summary --list` names all.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Passes over the training set (`train.duration`).
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    pub epochs: Option<f64>,
    /// Images in a step (`train.batch_size`).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<usize>,
    /// Peak learning rate (`optim.lr`).
    #[arg(long, value_name = "RATE", value_parser = number, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Weights to start from: safetensors, .pth or .caffemodel (`model.weights`).
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Classifier of those weights: `keep`, or `new` for other classes (`model.head`).
    #[arg(long, value_name = "HEAD", requires = "weights")]
    pub head: Option<String>,
    /// Seed of everything that is random (`seed`).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// auto, cpu, cuda or cuda:N (`device`).
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Threads of one operation on the CPU (`threads`).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<usize>,
}

/// `senet train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet train                                        the built-in default
  senet train --epochs 10 --set optim.lr=0.2         longer and steeper
  senet train --model se-resnet-50 --data IMAGENET   class folders train/ and val/
  senet train configs/fashion-mnist.json --out runs/first
  senet train --resume runs/first                    go on where it stopped
  senet train --tensorboard                          for `tensorboard --logdir runs`, too
  senet train CONFIG --out runs/first --resume auto  begin it, or go on: for jobs that are started again
  senet train --model se-resnet-50-v1.5 --weights seresnet50.safetensors --head new --data PETS
  senet train CONFIG --nproc 8                       8 processes on this machine, a GPU for each
  torchrun --no-python --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST senet train CONFIG
  srun senet train CONFIG                            as many as SLURM has tasks

Several processes share each batch: the recipe means the same on any number of them, and a run may go on with another
number. Ctrl-C stops after the step in flight and saves; a second one stops at once. SIGTERM and SIGUSR1 save, too, and
exit with code 75: the job is to be started again.")]
pub struct TrainArgs {
    /// What to train.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// Folder of the run; default: a new one below runs/.
    #[arg(long, value_name = "RUN")]
    pub out: Option<PathBuf>,
    /// Go on with a run (default: the newest) from its last checkpoint, with the configuration saved there; `auto` begins
    /// the run of `--out`, or goes on with it.
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    pub resume: Option<Option<PathBuf>>,
    /// Write files of events for TensorBoard as well, to RUN/tensorboard (`log.tensorboard`).
    #[arg(long)]
    pub tensorboard: bool,
    /// Several processes.
    #[command(flatten)]
    pub ranks: RankArgs,
    /// How to report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Processes that work together.
#[derive(Debug, Args)]
pub struct RankArgs {
    /// Start N processes on this machine that work together, each on a GPU of its own or a part of the cores; torchrun,
    /// srun and mpirun start them on several machines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub nproc: Option<u32>,
    /// Seconds after which a process that does not come, or no longer answers, ends the job; one that is stuck is
    /// itself ended after as many again.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rank_timeout: u64,
}

/// `senet eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet eval --top5                      the newest run
  senet eval runs/first --checkpoint best --json
  senet eval --weights seresnet50.safetensors --model se-resnet-50-v1.5 --data IMAGENET
  senet eval --without-se stage5         what the trained SE blocks of the last stage are worth
  senet eval runs/first --size 320 --crop-ratio 1.0 --crops flip
                                         larger images than in training, whole, and their mirror images
  senet eval runs/first --labels real.json --data IMAGENET
                                         by ImageNet-ReaL's labels, too
  senet eval runs/first --data IMAGENET-R --subset
                                         200 of the classes, and guesses among these alone
  senet eval --weights model.safetensors --model mobilenet --data IMAGENET --mean 0.5 --std 0.5
                                         pixels from -1 to 1
  senet eval runs/first --nproc 8        by eight processes, a GPU for each
  senet eval --calibration --per-class classes.csv --confusion matrix.csv --predictions images.csv

Classes are found by their names, whatever the order of their folders; folders 0 to 999 (ImageNet-V2) are ImageNet's
labels, unless `--class-order alphabetical` says that they are sorted as torchvision's ImageFolder sorts them. Of several
crops the logits are averaged, and the loss is that of the mean.

Preprocessing is, in this order: as the flags say, as the run or the weights file declares it (our exports do), as timm's
config.json beside the file declares it, the network's default.")]
pub struct EvalArgs {
    /// What to evaluate.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Print top-5 as well.
    #[arg(long)]
    pub top5: bool,
    /// How to look at images.
    #[command(flatten)]
    pub look: LookArgs,
    /// What else to tell.
    #[command(flatten)]
    pub details: DetailArgs,
    /// Leave trained SE blocks out: `all`, a stage (`stage5`), or the start of a block's name (`layer4.2`).
    #[arg(long, value_name = "BLOCKS,…", value_delimiter = ',')]
    pub without_se: Vec<String>,
    /// Several processes.
    #[command(flatten)]
    pub ranks: RankArgs,
    /// How to report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How images are prepared; what is not given is as the weights declare it.
#[derive(Debug, Args)]
pub struct PreprocessingArgs {
    /// Height and width of the crop.
    #[arg(long, visible_aliases = ["img-size", "image-size"], value_name = "PIXELS",
          value_parser = clap::value_parser!(u32).range(1..=MAX_SIZE as i64))]
    pub size: Option<u32>,
    /// Short side of the image before it is cropped; default: such that the crop's share of it stays.
    #[arg(long, value_name = "PIXELS", conflicts_with = "crop_ratio",
          value_parser = clap::value_parser!(u32).range(1..=2 * MAX_SIZE as i64))]
    pub resize: Option<u32>,
    /// The crop's share of that short side instead, up to 1: 0.875 is 224 of 256.
    #[arg(long, visible_alias = "crop-pct", value_name = "RATIO", value_parser = ratio, allow_negative_numbers = true)]
    pub crop_ratio: Option<f64>,
    /// Mean of each channel as a fraction of 255, separated by commas, or one for all: 0.485,0.456,0.406.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', value_parser = number, allow_negative_numbers = true)]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, likewise.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', value_parser = number, allow_negative_numbers = true)]
    pub std: Option<Vec<f64>>,
}

/// How an evaluation looks at images.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// How they are prepared.
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    /// Crops of an image.
    #[arg(long, value_enum, default_value_t = Crops::Center)]
    pub crops: Crops,
    /// Where the data has only some of the network's classes: guess among these alone.
    #[arg(long)]
    pub subset: bool,
}

/// Crops of an image; logits are averaged over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Crops {
    /// The centre.
    #[value(alias = "centre")]
    Center,
    /// The centre and its mirror image.
    Flip,
    /// Four corners, the centre, and their mirror images.
    Ten,
}

impl From<Crops> for Views {
    fn from(crops: Crops) -> Self {
        match crops {
            Crops::Center => Views::Centre,
            Crops::Flip => Views::Flip,
            Crops::Ten => Views::Ten,
        }
    }
}

/// What an evaluation tells beside its counts.
#[derive(Debug, Args)]
pub struct DetailArgs {
    /// ImageNet-ReaL's labels (real.json): the accuracy by these, too.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Whether it is as sure as it is right: the expected calibration error, in 15 bins of confidence.
    #[arg(long)]
    pub calibration: bool,
    /// Write a CSV file with a line for each class: images, top-1, top-5, precision.
    #[arg(long, value_name = "FILE")]
    pub per_class: Option<PathBuf>,
    /// Write the confusion matrix as CSV: a line for each class of images, a column for each predicted class.
    #[arg(long, value_name = "FILE")]
    pub confusion: Option<PathBuf>,
    /// Write a CSV file with a line for each image: its class, the five best guesses, their probabilities.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Let these tables overwrite files of any kind, not only earlier tables of the same kind.
    #[arg(long)]
    pub force: bool,
}

/// A trained network, and the images that it is looked at on.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// Folder of the run; default: the newest below runs/.
    #[arg(conflicts_with = "weights")]
    pub run: Option<PathBuf>,
    /// A file of weights instead of a run.
    #[arg(long, value_name = "FILE", requires = "data", conflicts_with = "checkpoint")]
    pub weights: Option<PathBuf>,
    /// Network that the weights belong to, if the file does not say it.
    #[arg(long, value_name = "NAME", requires = "weights")]
    pub model: Option<String>,
    /// Setting of the network in that file, such as `model.se.rounding=multiple-of-8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "weights")]
    pub set: Vec<String>,
    /// Which weights of the run.
    #[arg(long, value_enum, default_value_t = Which::Last)]
    pub checkpoint: Which,
    /// The moving average of these weights (runs with `train.ema`, files of trainers that keep one).
    #[arg(long)]
    pub ema: bool,
    /// Other data than the run's: a folder with `val/` or `test/`, or with IDX files.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What class folders named by numbers are to weights whose classes have no names: `numeric` (folder N is output N, the
    /// default where they count from 0) or `alphabetical` (sorted as text, "10" before "2", as torchvision's ImageFolder).
    #[arg(long, value_name = "ORDER", value_enum)]
    pub class_order: Option<NumberOrder>,
    /// Images in a step.
    #[arg(long, value_name = "N", value_parser = batch_size())]
    pub batch_size: Option<u32>,
    /// auto, cpu, cuda or cuda:N; default: the run's.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// Order of class folders that are named by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NumberOrder {
    /// As text.
    Alphabetical,
    /// By number.
    Numeric,
}

impl From<NumberOrder> for ClassOrder {
    fn from(order: NumberOrder) -> Self {
        match order {
            NumberOrder::Alphabetical => Self::Alphabetical,
            NumberOrder::Numeric => Self::Numeric,
        }
    }
}

/// A checkpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The newest.
    Last,
    /// The one with the highest top-1.
    Best,
}

impl From<Which> for Checkpoint {
    fn from(which: Which) -> Self {
        match which {
            Which::Last => Checkpoint::Last,
            Which::Best => Checkpoint::Best,
        }
    }
}

/// `senet predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet predict photo.jpg                                       with the newest run
  senet predict --run runs/first photos/
  senet predict --model se-resnet-50 --weights weights.safetensors photo.jpg --json
  senet predict --weights model.safetensors --model mobilenet photo.jpg --mean 0.5 --std 0.5

Preprocessing is, in this order: as the flags say, as the run or the weights file declares it (our exports do), as timm's
config.json beside the file declares it, the network's default.")]
pub struct PredictArgs {
    /// Images, and folders of images.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// File of weights: safetensors (or the index of several), PyTorch's .pth, .caffemodel.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Network that the weights belong to, if the file does not say it.
    #[arg(long, value_name = "NAME", requires = "weights")]
    pub model: Option<String>,
    /// Setting of the network in that file, such as `model.se.rounding=multiple-of-8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "weights")]
    pub set: Vec<String>,
    /// Folder of a run; default: the newest below runs/.
    #[arg(long, value_name = "RUN", conflicts_with = "weights")]
    pub run: Option<PathBuf>,
    /// The moving average of the weights (runs with `train.ema`, files of trainers that keep one).
    #[arg(long)]
    pub ema: bool,
    /// How images are prepared.
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    /// Classes to print for each image.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// With --json: all logits, too.
    #[arg(long, requires = "json")]
    pub logits: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet import SE-ResNet-50.caffemodel --model se-resnet-50 --out se-resnet-50.safetensors
  senet import seresnet50.pth --model se-resnet-50-v1.5 --out seresnet50.safetensors
  senet predict --weights seresnet50.safetensors photo.jpg

Nothing in a file is ever executed. Every tensor must fit; what is idle in a network (batch counters,
auxiliary classifiers) is left out and named.")]
pub struct ImportArgs {
    /// File of weights: safetensors (or the index of several), PyTorch's .pth, .caffemodel.
    pub file: PathBuf,
    /// Network that the weights belong to.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Setting of the network in that file, such as `model.se.rounding=multiple-of-8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The moving average of the weights, where the file has one beside them.
    #[arg(long)]
    pub ema: bool,
    /// The safetensors file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet export --out se-resnet-20.safetensors                 the newest run
  senet export runs/first --checkpoint best --out best.safetensors
  senet export --weights se-resnet-50.safetensors --names timm --out legacy_seresnet50.safetensors")]
pub struct ExportArgs {
    /// Folder of the run; default: the newest below runs/.
    #[arg(conflicts_with = "weights")]
    pub run: Option<PathBuf>,
    /// Which weights of the run.
    #[arg(long, value_enum, default_value_t = Which::Last)]
    pub checkpoint: Which,
    /// The moving average of these weights (runs with `train.ema`, files of trainers that keep one).
    #[arg(long)]
    pub ema: bool,
    /// Export a file of weights instead of a run.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Network that the weights belong to, if the file does not say it.
    #[arg(long, value_name = "NAME", requires = "weights")]
    pub model: Option<String>,
    /// Setting of the network in that file, such as `model.se.rounding=multiple-of-8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "weights")]
    pub set: Vec<String>,
    /// Whose names the tensors get.
    #[arg(long, value_enum, default_value_t = Names::Senet)]
    pub names: Names,
    /// The safetensors file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Names of the tensors of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// Ours: torchvision's and timm's where they have the network.
    Senet,
    /// Those of timm's network of the same form: `legacy_*` for the authors' released forms.
    Timm,
}

/// `senet ablate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet ablate --ratios 4,8,16,32              with the built-in default
  senet ablate --variants all --seeds 3        SE, no SE, and the structures that are called wrong
  senet ablate --table 10 --model se-resnet-50 --dry-run
                                               parameters, multiply-adds and time, beside the paper's figures
  senet ablate --table all --seeds 3 --jobs 2  the paper's ablations; two runs at a time
  senet ablate configs/ablations/fashion-mnist.json
  senet ablate --ratios 2,16 --model se-resnet-50 --data IMAGENET --out runs/ratios

Values:
  --variants   none, se, gap-scale, gap-sigmoid, conv, parallel, or all
  --squeeze    average, max, none                  --gate    sigmoid, tanh, relu
  --stages     numbers joined by +, or all: 2,3,4,2+3,all
  --placement  standard, pre, post, identity, inside, and second readings of three of them:
               pre-shared, identity-before-projection, inside-before-norm

Each flag is a comparison of its own, all else as in the configuration; rows that they share are
trained once. Run again, the same command skips what is finished and goes on with what is not. The
same command in a second terminal (or on a second GPU: --device cuda:1) takes its share of the runs.")]
pub struct AblateArgs {
    /// What all rows have in common; CONFIG may also be a sweep file.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// Reduction ratios (paper Table 10).
    #[arg(long, value_name = "R,…", value_delimiter = ',', value_parser = whole, allow_hyphen_values = true)]
    pub ratios: Vec<i64>,
    /// Structures: how a block is wired.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub variants: Vec<String>,
    /// Squeezes (Tables 11 and 16).
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub squeeze: Vec<String>,
    /// Excitation's last function (Table 12).
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub gate: Vec<String>,
    /// Stages with SE (Table 13).
    #[arg(long, value_name = "N+N,…", value_delimiter = ',')]
    pub stages: Vec<String>,
    /// Places in the residual unit (Tables 14 and 15).
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub placement: Vec<String>,
    /// Ablations of the paper by number, 10 to 16, or `all`: SE without biases, as there.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub table: Vec<String>,
    /// Row that differences are measured from: `none` (no SE) or `se`; default: what suits each comparison.
    #[arg(long, value_name = "ROW")]
    pub control: Option<ControlRow>,
    /// Train each row with so many seeds, counted from `--seed`.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seeds: Option<u64>,
    /// Train so many runs at a time; each gets its share of the cores.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS as i64))]
    pub jobs: u32,
    /// After the runs, time all rows in turns, for speeds that can be compared.
    #[arg(long, conflicts_with = "dry_run")]
    pub speed: bool,
    /// Print the rows with parameters, multiply-adds and estimated time, and train nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Folder of the comparison; default: one below runs/ that belongs to these settings.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A row that differences are measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ControlRow {
    /// The network without SE.
    None,
    /// The base network.
    Se,
}

/// `senet report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet report runs/ablate-se-resnet-20-1234abcd
  senet report runs/lab --format markdown > table.md
  senet report runs/lab --into RESULTS.md
  senet report runs/seed-*                     runs by themselves, and means over seeds
  senet report runs/seed-* --into RESULTS.md

With --into, the lines of FILE between `<!-- senet report KEY -->` and `<!-- end of report -->` are replaced by the table
of the comparison KEY (ratios, variants, squeeze, gate, stages, placement, …; `setting` is data and recipe); all else
stays as it is. The KEY of runs is `runs NAME`, where NAME is the name in their configuration, or `runs` for all.")]
pub struct ReportArgs {
    /// Folder of the comparison, or folders of runs.
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Form of the tables.
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "into")]
    pub format: Format,
    /// Put the tables into a Markdown file, between its markers.
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

/// Form of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For a document.
    Markdown,
    /// A line for each run, for a spreadsheet.
    Csv,
    /// One document with everything.
    Json,
    /// One page with plots.
    Html,
}

/// `senet inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// At what.
    #[command(subcommand)]
    pub what: InspectWhat,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum InspectWhat {
    /// The gates of the SE blocks, for each class, stage and channel (paper Figures 6 and 7).
    Excitation(ExcitationArgs),
}

/// `senet inspect excitation`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet inspect excitation                         the newest run
  senet inspect excitation runs/first --classes \"Sneaker,Ankle boot\"
  senet inspect excitation --weights seresnet50.safetensors --model se-resnet-50-v1.5 --data IMAGENET \\
      --classes goldfish,pug,airliner,cliff --out gates

Writes excitation.csv, excitation.json and excitation.html, a page with plots.")]
pub struct ExcitationArgs {
    /// What to look into.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Classes that are shown one by one; default: all, up to 20.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Folder for the files; default: `excitation` in the run's folder, or here.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Overwrite files of any kind, not only earlier ones of this command.
    #[arg(long)]
    pub force: bool,
    /// How to report.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `senet summary`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet summary --list
  senet summary se-resnet-50
  senet summary se-resnet-50 --reduction 4 --no-se-bias --json")]
pub struct SummaryArgs {
    /// Network.
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Name all networks.
    #[arg(long, conflicts_with = "name")]
    pub list: bool,
    /// Reduction ratio.
    #[arg(long, value_name = "R", default_value_t = 16, value_parser = whole, allow_hyphen_values = true)]
    pub reduction: i64,
    /// SE blocks without biases, as in the journal's ablations.
    #[arg(long)]
    pub no_se_bias: bool,
    /// Hidden width of the SE blocks: `exact` (C/r) or `multiple-of-8` (timm's) [default: that of the name].
    #[arg(long, value_name = "RULE", value_parser = rounding)]
    pub rounding: Option<Rounding>,
    /// Number of classes; default: what the network was made for.
    #[arg(long, value_name = "N", value_parser = whole, allow_hyphen_values = true)]
    pub classes: Option<i64>,
    /// Height and width of the input; default: what the network was made for.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..=MAX_SIZE as i64))]
    pub size: Option<i64>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet bench train --model se-resnet-50 --batch-size 16
  senet bench eval --model se-resnet-50 --batch-size 16 --steps 15 --json
  senet bench train --compare plain
  senet bench eval --profile")]
pub struct BenchArgs {
    /// What to time.
    pub what: BenchWhat,
    /// Network.
    #[arg(long, value_name = "NAME", default_value = "se-resnet-50")]
    pub model: String,
    /// Train on this data instead of made-up batches, and say what the time goes into.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Images in a step.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = batch_size())]
    pub batch_size: u32,
    /// Height and width of the images; default: what the network was made for.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=MAX_SIZE as i64))]
    pub size: Option<u32>,
    /// Timed steps, after two that are not timed.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Threads of one operation on the CPU.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u32>,
    /// Time the same network otherwise as well, a step each in turns: `plain` is with libtorch's own operators alone.
    #[arg(long, value_name = "WITH", conflicts_with_all = ["data", "profile"])]
    pub compare: Option<BenchPeer>,
    /// Say what each operator costs, in further steps.
    #[arg(long, conflicts_with = "data")]
    pub profile: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// What `senet bench` compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPeer {
    /// The same network with libtorch's own operators alone.
    Plain,
}

/// What `senet bench` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchWhat {
    /// Normalise, forward, loss, backward, optimizer.
    Train,
    /// Normalise, forward.
    Eval,
}

/// `senet doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet doctor
  senet doctor --json")]
pub struct DoctorArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// How a long command reports.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
    /// No progress, only the result.
    #[arg(long, short)]
    pub quiet: bool,
}

/// A number that is one: neither NaN nor infinite.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "a number is expected, such as 0.5".to_string())
}

/// A share of something, but not nothing.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
    ratio.ok_or_else(|| "a number above 0, up to 1, is expected, such as 0.875".to_string())
}

fn whole(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| "a whole number is expected, such as 16".to_string())
}

/// The words of the configuration.
fn rounding(text: &str) -> Result<Rounding, String> {
    serde_json::from_value(text.into()).map_err(|_| "`exact` or `multiple-of-8` is expected".to_string())
}

pub(super) fn batch_size() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=MAX_BATCH_SIZE as i64)
}
