//! Work on data sets before anything is trained on them: the index, verification, packing, the loader by itself.

pub mod loading;

use super::{StopFlag, splits};
use crate::data::index::{Cache, Listing};
use crate::data::quarantine::{TITLE, without_listed};
use crate::data::shards::pack::{self, PackOptions};
use crate::data::shards::{Broken, ShardOptions};
use crate::data::verify::{self, Report};
use crate::data::{DataSpec, Dataset, Source, Split};
use crate::error::{Result, failed, usage};
use crate::escaped;
use crate::files;
use anyhow::Context;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Who is told how far the work on a half has come: the half, samples done, all samples. Asked by several threads.
pub type Tell<'a> = &'a (dyn Fn(Split, usize, usize) + Sync);

fn name<S: Serializer>(split: &Split, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(split.name())
}

/// The data in `dir`, whatever its form, and the halves of it that are there and wanted.
fn find(dir: &Path, wanted: &[Split]) -> Result<(DataSpec, Vec<Split>)> {
    let mut spec = DataSpec { dir: dir.to_path_buf(), ..DataSpec::default() };
    spec.source = spec.form()?;
    let there = spec.halves()?;
    // One half that was asked for by name is opened even so: the error says what is missing.
    let halves = wanted.iter().copied().filter(|split| wanted.len() == 1 || there.contains(split)).collect();
    Ok((spec, halves))
}

/// The listing of one half.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexedHalf {
    /// Which.
    #[serde(serialize_with = "name")]
    pub half: Split,
    /// Samples in it.
    pub samples: usize,
    /// Its classes.
    pub classes: usize,
    /// Time that opening it took.
    pub seconds: f64,
    /// The rest; of forms that lie in a few files, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexedUnits>,
}

/// How a half was listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexedUnits {
    /// Folders or shards.
    pub units: usize,
    /// Size of the index.
    pub bytes: usize,
    /// Whether the kept index did.
    pub loaded: bool,
    /// Why it did not.
    pub why: Option<String>,
    /// The file that keeps it.
    #[serde(serialize_with = "escaped::serialize_some")]
    pub file: Option<PathBuf>,
    /// Why a new one could not be kept.
    pub unsaved: Option<String>,
    /// What was skipped, and how much of it there was.
    pub passed_over: BTreeMap<&'static str, u64>,
    /// What else the user should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl From<Listing> for IndexedUnits {
    fn from(listing: Listing) -> Self {
        let passed_over = listing.passed_over.into_iter().filter(|(_, count)| *count > 0);
        Self {
            units: listing.units,
            bytes: listing.bytes,
            loaded: listing.origin.is_loaded(),
            why: listing.origin.listed,
            file: listing.origin.file,
            unsaved: listing.origin.unsaved,
            passed_over: passed_over.collect(),
            remarks: listing.remarks.into_iter().chain(listing.class_order).collect(),
        }
    }
}

/// Lists the samples of both halves of `dir`, or checks that the kept indexes still do; with `rebuild` lists them
/// whatever is kept.
///
/// # Errors
/// When the data is missing or damaged.
pub fn index(dir: &Path, rebuild: bool) -> Result<(Source, Vec<IndexedHalf>)> {
    let (spec, halves) = find(dir, &Split::BOTH)?;
    let options =
        ShardOptions { cache: Cache { rebuild, ..Cache::for_user() }, ..ShardOptions::for_training() };
    let look = |half: &Split| {
        let start = Instant::now();
        let data = spec.open_whole(*half, 0, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let (samples, classes) = (data.len(), data.classes().len());
        let index = data.listing().map(IndexedUnits::from);
        Ok(IndexedHalf { half: *half, samples, classes, seconds, index })
    };
    Ok((spec.source, halves.iter().map(look).collect::<Result<_>>()?))
}

/// What was found in one half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedHalf {
    /// Which.
    #[serde(serialize_with = "name")]
    pub half: Split,
    /// What.
    #[serde(flatten)]
    pub report: Report,
    /// What else the user should know.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Why training refuses the split, whatever its images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Decodes all samples of the halves of `dir`. `None` where it was stopped.
///
/// # Errors
/// When the data is missing or cannot be listed.
pub fn verify(
    dir: &Path,
    wanted: &[Split],
    threads: usize,
    stop: &StopFlag,
    tell: Tell<'_>,
) -> Result<Option<Vec<VerifiedHalf>>> {
    let (spec, halves) = find(dir, wanted)?;
    let mut found = Vec::new();
    for half in halves {
        let options = ShardOptions { alone: true, ..ShardOptions::for_training() };
        let data = spec.open_whole(half, 0, &options)?;
        let strictly = spec.open_whole(half, 0, &ShardOptions::for_training());
        let refused = strictly.err().map(|error| format!("{error:#}"));
        let progress = |done: usize| {
            tell(half, done, data.len());
            go_on(stop)
        };
        match verify::verify(data.as_ref(), threads, &progress) {
            Some(report) => {
                let mut warnings = splits::of_listing(data.as_ref());
                warnings.extend(splits::class_order(data.as_ref()));
                found.push(VerifiedHalf { half, report, warnings, refused });
            }
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

fn go_on(stop: &StopFlag) -> ControlFlow<()> {
    if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Refuses to write a quarantine in the place of a file that is none, before hours of work.
///
/// # Errors
/// When `file` is something else, or its folder is missing.
pub fn check_quarantine(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let message = format!("cannot write {}: the folder {} is missing", file.display(), folder.display());
        return Err(failed(message).hint("make the folder first").into());
    }
    if !file.exists() {
        return Ok(());
    }
    let mut start = Vec::new();
    if file.is_file() {
        let file = fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        file.take(TITLE.len() as u64).read_to_end(&mut start)?;
        if start == TITLE.as_bytes() {
            return Ok(());
        }
    }
    let message = format!("{} is there already, and is no list of this command", file.display());
    Err(usage(message).hint("choose another name, or overwrite it with `--force`").into())
}

/// Writes the list of all samples that training cannot use; says how many there are.
///
/// # Errors
/// When it cannot be written.
pub fn write_quarantine(file: &Path, found: &[VerifiedHalf]) -> Result<usize> {
    let (unusable, samples) = found
        .iter()
        .fold((0, 0), |(bad, all), half| (bad + half.report.unusable(), all + half.report.samples));
    let mut text = format!("{TITLE}: {unusable} of {samples} samples cannot be used\n");
    found.iter().for_each(|half| text += &half.report.quarantine());
    files::write_atomic(file, text.as_bytes())?;
    Ok(unusable)
}

/// A half that was packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackedHalf {
    /// Which.
    #[serde(serialize_with = "name")]
    pub half: Split,
    /// The folder of its shards.
    #[serde(serialize_with = "escaped::serialize")]
    pub dir: PathBuf,
    /// Samples in them.
    pub samples: usize,
    /// How many they are.
    pub shards: usize,
    /// Bytes of all.
    pub bytes: u64,
    /// What else the user should know.
    pub remarks: Vec<String>,
}

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackRequest<'a> {
    /// The data.
    pub dir: &'a Path,
    /// Folder that gets `train/` and `val/`.
    pub out: &'a Path,
    /// Halves that are wanted.
    pub halves: &'a [Split],
    /// List of samples that are left out.
    pub quarantine: Option<&'a Path>,
    /// Whether the whole samples of shards that end early are taken.
    pub salvage: bool,
    /// The rest.
    pub options: PackOptions,
}

/// Packs the halves of a data set into shards. `None` where it was stopped: the same again goes on with it.
///
/// # Errors
/// When the data is damaged, the folder holds something else or the disk is full.
pub fn pack(request: &PackRequest<'_>, stop: &StopFlag, tell: Tell<'_>) -> Result<Option<Vec<PackedHalf>>> {
    let PackRequest { dir, out, quarantine, salvage, options, .. } = request;
    let (spec, halves) = find(dir, request.halves)?;
    let real = |path: &Path| fs::canonicalize(path).ok();
    if real(out).is_some_and(|out| real(dir).is_some_and(|dir| out == dir)) {
        let message = format!("{} is the folder of the data itself", out.display());
        return Err(usage(message).hint("shards need a folder of their own").into());
    }
    let broken = if *salvage { Broken::KeepWhole } else { Broken::Refuse };
    // Leniently made indexes are of no use to training.
    let cache = if *salvage { Cache::none() } else { Cache::for_user() };
    let opening = ShardOptions { broken, cache, ..ShardOptions::default() };
    // Both are opened first: what one half lacks shall not show after hours with the other.
    let open = |half: &Split| -> Result<(Split, Vec<String>, Arc<dyn Dataset>)> {
        let all = spec.open_whole(*half, 0, &opening)?;
        let remarks = splits::of_listing(all.as_ref());
        let kept = match quarantine {
            Some(list) => without_listed(all, list)?,
            None => all,
        };
        Ok((*half, remarks, kept))
    };
    let mut packed = Vec::new();
    for (half, remarks, data) in halves.iter().map(open).collect::<Result<Vec<_>>>()? {
        let dir = out.join(if half == Split::Train { "train" } else { "val" });
        let mut progress = |progress: pack::Progress| {
            tell(half, progress.done, progress.samples);
            go_on(stop)
        };
        let Some(manifest) = pack::pack(data.as_ref(), &dir, options, &mut progress)? else {
            return Ok(None);
        };
        let bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
        let (samples, shards) = (manifest.samples, manifest.shards.len());
        packed.push(PackedHalf { half, dir, samples, shards, bytes, remarks });
    }
    Ok(Some(packed))
}
