//! Images a second of the loader, and where its threads spend their time.

use super::{Pipeline, repeated};
use crate::data::faults::Faults;
use crate::data::loader::Loader;
use crate::data::stages::{Stage, Stages};
use crate::data::{Normalise, Split};
use crate::engine::StopFlag;
use crate::engine::bench::Spread;
use crate::error::{Result, TorchContext, failed};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;

/// Samples that one figure is of, the start of the threads included.
const PASS: usize = 1024;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// `train` or `eval`.
    pub pipeline: &'static str,
    /// Threads that make batches.
    pub threads: usize,
    /// Ready batches of normalised floats: the median over passes of a thousand images.
    pub images_per_second: f64,
    /// The same, slowest and fastest.
    pub spread: Spread,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Height and width of a sample in pixels.
    pub size: usize,
    /// Samples of the data set.
    pub samples: usize,
    /// Images that were timed.
    pub images: usize,
    /// Time of the loader's threads, in the order of a sample's way; and that of the consumer.
    #[serde(serialize_with = "by_name")]
    pub stages: Vec<(&'static str, StageCost)>,
    /// What the threads could make if they did nothing but decode.
    pub decode_limit: f64,
    /// Most memory that the process has held so far, in bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// Samples that could not be read.
    pub warnings: Vec<String>,
}

/// What a stage costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StageCost {
    /// Milliseconds of one thread for one image.
    pub ms_per_image: f64,
    /// Share of the time of all stages.
    pub share: f64,
}

fn by_name<S: Serializer>(stages: &[(&'static str, StageCost)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(stages.iter().map(|(name, cost)| (name, cost)))
}

/// Times the pipeline for about `seconds`, after a first pass that fills the system's cache. Batches are normalised to
/// floats, on the CPU, by one thread beside those of the loader.
///
/// # Errors
/// When the data cannot be read, or `stop` is set before anything was timed.
pub fn bench(
    pipeline: &Pipeline,
    threads: usize,
    seconds: f64,
    stop: &StopFlag,
    tick: &mut dyn FnMut(f64),
) -> Result<Measurement> {
    let all = Arc::clone(&pipeline.dataset);
    let samples = all.len();
    let times = PASS.max(pipeline.batch_size).div_ceil(samples.max(1));
    let dataset = repeated(all, times);
    let long = Pipeline { dataset, spec: pipeline.spec.clone(), ..*pipeline };
    let faults = Arc::new(Faults::new(&long.spec, long.dataset.len()));
    let resolved = "the data specification is resolved";
    let (mean, std) = (long.spec.mean.as_deref().expect(resolved), long.spec.std.as_deref().expect(resolved));
    let normalise = Normalise::new(mean, std, Device::Cpu);
    // Of the consumer: more would take the loader's cores, in bursts.
    tch::set_num_threads(1);

    let (mut figures, mut stages, mut images) = (Vec::new(), Stages::default(), 0);
    let mut consumer = Duration::ZERO;
    let mut started: Option<Instant> = None;
    for pass in 0.. {
        let start = Instant::now();
        let mut loader = Loader::start(long.plan(&faults, pass)?, 0, threads, Device::Cpu);
        let (mut seen, mut normalising) = (0, Duration::ZERO);
        while seen < PASS
            && !stop.is_set()
            && let Some(batch) = loader.next()
        {
            let batch = batch?;
            let start = Instant::now();
            drop(normalise.apply(&batch.pixels).torch_context(|| "cannot normalise a batch".to_string())?);
            normalising += start.elapsed();
            seen += batch.len;
            tick(started.map_or(0.0, |started| started.elapsed().as_secs_f64()));
        }
        if stop.is_set() {
            break;
        }
        // The first pass fills the system's cache and is not counted.
        let Some(started) = started else {
            started = Some(Instant::now());
            continue;
        };
        figures.push(seen as f64 / start.elapsed().as_secs_f64());
        images += seen;
        consumer += normalising;
        stages.merge(&loader.stages());
        if started.elapsed().as_secs_f64() >= seconds {
            break;
        }
    }
    if figures.is_empty() {
        return Err(failed("stopped before anything was timed").hint("let it run for some seconds").into());
    }

    let per_image = |time: Duration, images: usize| time.as_secs_f64() / images.max(1) as f64;
    let normalising = per_image(consumer, images);
    let making = per_image(stages.total(), stages.samples);
    let cost =
        |seconds: f64| StageCost { ms_per_image: 1e3 * seconds, share: seconds / (making + normalising) };
    let of = |stage: Stage| per_image(stages.of(stage), stages.samples);
    let mut costs: Vec<_> = Stage::ALL.iter().map(|stage| (stage.name(), cost(of(*stage)))).collect();
    costs.push(("normalise", cost(normalising)));
    let spread = Spread::of(figures);
    // A small data set comes several times, and with it each of its bad samples.
    let mut warnings = faults.take_news();
    warnings.sort_unstable();
    warnings.dedup();
    Ok(Measurement {
        pipeline: match pipeline.split {
            Split::Train => "train",
            Split::Eval => "eval",
        },
        threads,
        images_per_second: spread.median,
        spread,
        batch_size: pipeline.batch_size,
        size: pipeline.spec.size.expect(resolved),
        samples,
        images,
        stages: costs,
        decode_limit: threads as f64 / of(Stage::Decode),
        peak_memory: peak_memory(),
        warnings,
    })
}

/// The high-water mark of this process's resident memory, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}
