//! `senet data`: its words, and what its commands print.

use super::loading::{self, DataBenchArgs, DataShowArgs};
use super::output::{Meter, note, print, print_json};
use super::signals;
use crate::data::shards::pack::PackOptions;
use crate::data::verify::{Finding, Verdict};
use crate::data::{Split, workers};
use crate::engine::data::{self, IndexedHalf, PackRequest, PackedHalf, VerifiedHalf};
use crate::error::Result;
use crate::escaped::shown;
use crate::experiment::MAX_THREADS;
use crate::report::table::{Table, grouped};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `senet data`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data index IMAGENET                              list the samples once
  senet data verify IMAGENET --quarantine bad.txt        which files training cannot use
  senet data pack IMAGENET SHARDS --short-side 400       smaller images in tar shards
  senet data bench SHARDS --pipeline train               images a second, and where the time goes
  senet data show SHARDS --out sheet.png                 what the network will see")]
pub struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What to do with a data set.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List the samples once, and keep the list for later starts.
    Index(IndexArgs),
    /// Decode every sample: which ones are damaged, and which are odd.
    Verify(VerifyArgs),
    /// Write tar shards, smaller if wanted.
    Pack(PackArgs),
    /// Time the loader, stage by stage.
    Bench(DataBenchArgs),
    /// Draw what the network will see, after augmentation.
    Show(DataShowArgs),
}

/// `senet data index`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data index IMAGENET
  senet data index 'shards/train-{000000..000099}.tar'
  senet data index IMAGENET --rebuild --json

The index lies beside the data, or in ~/.cache/senet/index where that cannot be written to. Every start
checks it against the folders' and shards' times and sizes; it is made anew when anything has changed.
With --rebuild it is made anew even so: a file that was replaced under its own name does not show.")]
pub struct IndexArgs {
    /// Folder of the data, a shard or a pattern of shards.
    pub dir: PathBuf,
    /// List everything anew.
    #[arg(long)]
    pub rebuild: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `senet data verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data verify IMAGENET
  senet data verify IMAGENET --quarantine bad.txt
  senet train --data IMAGENET --set data.quarantine=bad.txt
  senet data verify IMAGENET --split eval --all --json

Exit code 0: training can use everything, or the rest is in the list; 1: it cannot.")]
pub struct VerifyArgs {
    /// Folder of the data, a shard or a pattern of shards.
    pub dir: PathBuf,
    /// Which half.
    #[arg(long, value_enum, default_value_t = Halves::All)]
    pub split: Halves,
    /// Write the names of all samples that cannot be used; `data.quarantine` leaves them out of training.
    #[arg(long, value_name = "FILE")]
    pub quarantine: Option<PathBuf>,
    /// Overwrite FILE whatever it is.
    #[arg(long, requires = "quarantine")]
    pub force: bool,
    /// Name all files, not only the first 20 of a kind.
    #[arg(long)]
    pub all: bool,
    /// Threads that decode; default: one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u32>,
    /// How to report.
    #[command(flatten)]
    pub output: super::args::OutputArgs,
}

/// `senet data pack`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  senet data pack IMAGENET SHARDS --short-side 400 --quality 90
  senet data pack IMAGENET SHARDS --quarantine bad.txt
  senet train --data SHARDS

Writes train/ and val/ with shard-000000.tar and so on, classes.txt and manifest.json (sizes and SHA-256).
The order of the samples is mixed once. The same data and options make the same bytes, so a packing that
was interrupted goes on when it is started again. JPEGs that are small enough keep their bytes; what else is
an image becomes a JPEG; pixels of IDX and CIFAR become PNGs. Shards hold colour: gray is read back as RGB.")]
pub struct PackArgs {
    /// Folder of the data, a shard or a pattern of shards.
    pub dir: PathBuf,
    /// Folder for the shards; a new one, or the one to go on in.
    pub out: PathBuf,
    /// Which half.
    #[arg(long, value_enum, default_value_t = Halves::All)]
    pub split: Halves,
    /// Make images smaller whose short side is longer than this.
    #[arg(long, value_name = "PIXELS")]
    pub short_side: Option<usize>,
    /// JPEG quality of what is encoded anew, 1 to 100.
    #[arg(long, value_name = "Q", default_value_t = 90)]
    pub quality: u8,
    /// Most bytes of a shard: a number, or one with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub shard_size: u64,
    /// Seed of the order.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Leave out the samples that FILE lists.
    #[arg(long, value_name = "FILE")]
    pub quarantine: Option<PathBuf>,
    /// Of shards that end early, take the whole samples before the cut.
    #[arg(long)]
    pub salvage: bool,
    /// Threads that encode; default: one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u32>,
    /// How to report.
    #[command(flatten)]
    pub output: super::args::OutputArgs,
}

/// Halves of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Halves {
    /// For training.
    Train,
    /// For evaluation.
    Eval,
    /// Both, where they are there.
    All,
}

impl Halves {
    fn splits(self) -> &'static [Split] {
        match self {
            Self::Train => &[Split::Train],
            Self::Eval => &[Split::Eval],
            Self::All => &Split::BOTH,
        }
    }
}

/// A number of bytes, in units of 1024 where they have a letter.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let bytes =
        digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a number of bytes is expected, such as 256M or 1G".to_string())
}

fn threads(wanted: Option<u32>) -> usize {
    wanted.map_or_else(workers::for_computing, |threads| threads as usize)
}

pub(super) fn data(args: &DataArgs) -> Result<u8> {
    match &args.command {
        DataCommand::Index(args) => index(args),
        DataCommand::Verify(args) => verify(args),
        DataCommand::Pack(args) => pack(args),
        DataCommand::Bench(args) => loading::bench(args),
        DataCommand::Show(args) => loading::show(args),
    }
}

fn index(args: &IndexArgs) -> Result<u8> {
    let (source, halves) = data::index(&args.dir, args.rebuild)?;
    if args.json {
        return print_json(&json!({ "dir": shown(&args.dir), "source": source, "halves": halves }))
            .map(|()| 0);
    }
    let mut table = Table::new(["half", "samples", "classes", "folders or shards", "index bytes", "seconds"]);
    for IndexedHalf { half, samples, classes, seconds, index } in &halves {
        let count = |number: usize| grouped(number as i64);
        let of_index = |number: Option<usize>| number.map_or_else(|| "–".to_string(), count);
        table.row([
            half.name().to_string(),
            count(*samples),
            count(*classes),
            of_index(index.as_ref().map(|index| index.units)),
            of_index(index.as_ref().map(|index| index.bytes)),
            format!("{seconds:.3}"),
        ]);
    }
    let lines = halves.iter().flat_map(index_lines);
    print(&std::iter::once(table.text()).chain(lines).collect::<Vec<_>>().join("\n")).map(|()| 0)
}

/// What a table has no place for.
fn index_lines(indexed: &IndexedHalf) -> Vec<String> {
    let half = indexed.half.name();
    let Some(index) = &indexed.index else { return vec![format!("{half}: a few files, needs no index")] };
    let file = index.file.as_ref().map(|file| shown(file)).unwrap_or_default();
    let mut lines = vec![match (&index.why, &index.unsaved) {
        (None, _) => format!("{half}: loaded from {file}"),
        (Some(why), Some(unsaved)) => format!("{half}: listed, since {why}; not kept ({unsaved})"),
        (Some(why), None) => format!("{half}: listed, since {why}; kept in {file}"),
    }];
    let passed_over = index.passed_over.iter();
    lines.extend(passed_over.map(|(what, count)| format!("{half}: skipped {count} {what}")));
    lines.extend(index.remarks.iter().map(|remark| format!("{half}: {remark}")));
    lines
}

/// Files of a kind that are named without `--all`.
const NAMED: usize = 20;

fn verify(args: &VerifyArgs) -> Result<u8> {
    if let Some(file) = args.quarantine.as_ref().filter(|_| !args.force) {
        data::check_quarantine(file)?;
    }
    let stop = signals::stop_flag();
    let meter = Meter::new(args.output.quiet);
    let tell = |half: Split, done, total| meter.at(half.name(), done, total);
    let found = data::verify(&args.dir, args.split.splits(), threads(args.threads), &stop, &tell)?;
    drop(meter);
    let Some(found) = found else {
        note("interrupted: nothing was written");
        return Ok(signals::code());
    };
    for half in &found {
        half.warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
        half.refused.iter().for_each(|why| note(&format!("warning: training refuses this data: {why}")));
    }
    let is_refused = found.iter().any(|half| half.refused.is_some());
    let unusable: usize = found.iter().map(|half| half.report.unusable()).sum();
    if let Some(file) = &args.quarantine {
        data::write_quarantine(file, &found)?;
    }
    if args.output.json {
        let halves: Vec<_> = found
            .iter()
            .map(|VerifiedHalf { half, report, refused, .. }| {
                let count = |verdict: &Verdict| (json_name(*verdict), report.count(*verdict));
                let counts: BTreeMap<String, usize> = Verdict::ALL.iter().map(count).collect();
                json!({
                    "half": half.name(), "samples": report.samples, "unusable": report.unusable(),
                    "counts": counts, "findings": report.findings, "refused": refused,
                })
            })
            .collect();
        let document = json!({
            "dir": shown(&args.dir), "unusable": unusable, "quarantine": args.quarantine.as_deref().map(shown),
            "halves": halves,
        });
        print_json(&document)?;
    } else {
        print(&verified(&found, args.all))?;
        if !args.output.quiet {
            remark(unusable, &args.dir, args.quarantine.as_deref());
        }
    }
    Ok(u8::from(is_refused || (unusable > 0 && args.quarantine.is_none())))
}

fn json_name(verdict: Verdict) -> String {
    serde_json::to_value(verdict).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}

/// What comes next.
fn remark(unusable: usize, dir: &Path, quarantine: Option<&Path>) {
    let dir = shown(dir);
    match quarantine {
        Some(file) => {
            let file = shown(file);
            note(&format!(
                "{unusable} listed in {file}: `senet train --data {dir} --set data.quarantine={file}` leaves them out"
            ));
        }
        None if unusable > 0 => note(&format!(
            "{unusable} cannot be used\n\nhint: `senet data verify {dir} --quarantine FILE` lists them for training"
        )),
        None => {}
    }
}

fn verified(found: &[VerifiedHalf], all: bool) -> String {
    let mut table = Table::default();
    table.headings.push("verdict".to_string());
    table.headings.extend(found.iter().map(|half| half.half.name().to_string()));
    table.headings.push("in training".to_string());
    let mut lines = Vec::new();
    for verdict in Verdict::ALL {
        let counts: Vec<usize> = found.iter().map(|half| half.report.count(verdict)).collect();
        if verdict != Verdict::Fine && counts.iter().all(|count| *count == 0) {
            continue;
        }
        let counts = counts.iter().map(|count| grouped(*count as i64));
        let row = std::iter::once(verdict.in_words().to_string()).chain(counts);
        table.rows.push(row.chain([verdict.in_training().to_string()]).collect());
        let of_kind = found.iter().flat_map(|half| &half.report.findings);
        let of_kind: Vec<&Finding> = of_kind.filter(|finding| finding.verdict == verdict).collect();
        if of_kind.is_empty() {
            continue;
        }
        lines.push(format!("\n{}", verdict.in_words()));
        let shown = if all { of_kind.len() } else { NAMED.min(of_kind.len()) };
        let name =
            |name: &str| name.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        lines.extend(
            of_kind[..shown].iter().map(|found| format!("  {}: {}", name(&found.name), found.detail)),
        );
        if shown < of_kind.len() {
            lines.push(format!("  … and {} more (`--all` names them)", of_kind.len() - shown));
        }
    }
    std::iter::once(table.text()).chain(lines).collect::<Vec<_>>().join("\n")
}

fn pack(args: &PackArgs) -> Result<u8> {
    let stop = signals::stop_flag();
    let meter = Meter::new(args.output.quiet);
    let tell = |half: Split, done, total| meter.at(half.name(), done, total);
    let options = PackOptions {
        shard_bytes: args.shard_size,
        short_side: args.short_side,
        quality: args.quality,
        seed: args.seed,
        threads: threads(args.threads),
    };
    let request = PackRequest {
        dir: &args.dir,
        out: &args.out,
        halves: args.split.splits(),
        quarantine: args.quarantine.as_deref(),
        salvage: args.salvage,
        options,
    };
    let packed = data::pack(&request, &stop, &tell)?;
    drop(meter);
    let Some(packed) = packed else {
        note("interrupted: the shards that are whole are kept\n\nhint: the same command goes on");
        return Ok(signals::code());
    };
    for remark in packed.iter().flat_map(|half| &half.remarks) {
        note(&format!("warning: {remark}"));
    }
    if args.output.json {
        return print_json(&json!({ "out": shown(&args.out), "halves": packed })).map(|()| 0);
    }
    let mut table = Table::new(["half", "samples", "shards", "bytes", "folder"]);
    for PackedHalf { half, dir, samples, shards, bytes, .. } in &packed {
        table.row([
            half.name().to_string(),
            grouped(*samples as i64),
            grouped(*shards as i64),
            grouped(i64::try_from(*bytes).unwrap_or(i64::MAX)),
            shown(dir),
        ]);
    }
    print(&table.text()).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("4096", 4096), ("4k", 4096), ("256M", 256 << 20), ("1GiB", 1 << 30), ("7B", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "1.5M", "1T", "-1", "99999999999G", "1µ"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
