//! Threads that fill batches ahead of the training loop.
//!
//! Batch k is made by whichever thread is free, from its [`share`](super::share) of the samples `order[k·B..]` alone, so the number of threads
//! changes nothing but the speed. At most `AHEAD` batches a thread wait.

use super::augment::Transform;
use super::faults::Faults;
use super::sample::{Stage, Workbench};
use super::share::{Part, Share};
use super::stages::Stages;
use super::views::Views;
use super::{DataSpec, Dataset, Split};
use crate::error::{Result, failed};
use crate::process;
use crate::rng;
use crate::torch_ext::host::HostBytes;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Finished batches that may wait, for each thread.
const AHEAD: usize = 2;

/// Pixels and labels of some samples, on the device.
#[derive(Debug)]
pub struct Batch {
    /// u8 `[N, H, W, C]`; with several windows an image `[N · windows, H, W, C]`, those of an image one after another.
    pub pixels: Tensor,
    /// int64 `[N]`.
    pub labels: Tensor,
    /// Numbers of the samples in the data set.
    pub samples: Vec<usize>,
    /// N.
    pub len: usize,
    /// Samples of the batch on all ranks.
    pub whole: usize,
    /// What the mean loss has to be multiplied with where gradients are averaged over ranks.
    pub weight: f64,
    /// Whether its samples count here, not on another rank.
    pub counts: bool,
}

impl Batch {
    /// A batch of a process by itself.
    pub fn alone(pixels: Tensor, labels: Tensor, samples: Vec<usize>) -> Self {
        let len = samples.len();
        Self { pixels, labels, samples, len, whole: len, weight: 1.0, counts: true }
    }

    /// Whether other ranks have other samples of the batch.
    pub fn is_shared(&self) -> bool {
        self.len < self.whole
    }
}

/// What one pass over a data set yields.
pub struct Plan {
    dataset: Arc<dyn Dataset>,
    transform: Transform,
    order: Vec<usize>,
    /// Of all ranks together.
    batch_size: usize,
    share: Share,
    seed: u64,
    epoch: u64,
    faults: Arc<Faults>,
    purpose: Purpose,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Batches have their size, whatever happens.
    Train {
        /// Whether a sample may come more than once: its randomness then is its place's.
        by_place: bool,
        /// Whether JPEGs may be decoded at a fraction of their size.
        scaled_decoding: bool,
    },
    /// Every sample counts once.
    Eval,
}

impl Plan {
    /// One epoch of training: drawn as `data.sampling` says, augmented.
    ///
    /// # Errors
    /// When the data does not allow such a sampling.
    pub fn train(
        dataset: Arc<dyn Dataset>,
        faults: Arc<Faults>,
        spec: &DataSpec,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<Self> {
        let labels = (0..dataset.len()).map(|sample| dataset.label(sample));
        let order = spec.sampling.order(labels, seed, epoch)?;
        let transform = Transform::new(spec, Split::Train);
        let purpose =
            Purpose::Train { by_place: spec.sampling.repeats(), scaled_decoding: spec.scaled_decoding };
        let share = Share::ALONE;
        Ok(Self { dataset, transform, order, batch_size, share, seed, epoch, faults, purpose })
    }

    /// Every sample once, in the data set's order, as it is.
    pub fn eval(dataset: Arc<dyn Dataset>, faults: Arc<Faults>, spec: &DataSpec, batch_size: usize) -> Self {
        let order = (0..dataset.len()).collect();
        let transform = Transform::new(spec, Split::Eval);
        let (share, purpose) = (Share::ALONE, Purpose::Eval);
        Self { dataset, transform, order, batch_size, share, seed: 0, epoch: 0, faults, purpose }
    }

    /// This rank's part of each batch.
    pub fn shared(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// The same evaluation, with the windows of `views`.
    pub fn seen_as(self, views: Views) -> Self {
        Self { transform: self.transform.with_views(views), ..self }
    }

    /// Number of batches, a smaller last one included.
    pub fn batches(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// Samples of this rank.
    pub fn samples(&self) -> usize {
        (0..self.batches()).map(|index| self.part(index).own.len()).sum()
    }

    /// What this rank has of batch `index`.
    fn part(&self, index: usize) -> Part {
        let first = index * self.batch_size;
        let batch = first..first.saturating_add(self.batch_size).min(self.order.len());
        match self.purpose {
            Purpose::Train { .. } => self.share.of_training(batch),
            Purpose::Eval => {
                let whole = batch.len();
                Part { own: self.share.of(batch), whole, weight: 1.0, counts: true }
            }
        }
    }

    /// Makes batch `index`, on its way to `device`. A batch of evaluation lacks the samples that cannot be had.
    fn fill(&self, index: usize, device: Device, tools: &mut Tools) -> Result<HostBatch> {
        let part = self.part(index);
        let places = part.own.clone();
        let (size, channels, windows) =
            (self.transform.size(), self.dataset.channels(), self.transform.windows());
        let shape = [places.len() * windows, size, size, channels].map(|side| side as i64);
        let mut pixels = tools
            .bench
            .stages
            .time(Stage::Collate, || HostBytes::zeros(&shape, device))
            .map_err(|_| no_memory(places.len() * windows, size))?;
        let mut samples = Vec::with_capacity(places.len());
        let mut slots = pixels.bytes_mut().chunks_exact_mut(windows * size * size * channels);
        let mut slot = slots.next();
        for place in places {
            let Some(out) = slot.as_deref_mut() else { break };
            if let Some(sample) = self.sample(place, tools, out)? {
                samples.push(sample);
                slot = slots.next();
            }
        }
        tools.bench.stages.samples += samples.len();
        let labels = samples.iter().map(|&sample| self.dataset.label(sample) as i64).collect();
        Ok(HostBatch { pixels: pixels.into_tensor(), labels, samples, part })
    }

    /// Puts the sample of `place` in the order into `out` and says which it is: in training another one where it cannot
    /// be had, in evaluation then none.
    fn sample(&self, place: usize, tools: &mut Tools, out: &mut [u8]) -> Result<Option<usize>> {
        let wanted = self.order[place];
        for step in 0..self.dataset.len() {
            let sample = (wanted + step) % self.dataset.len();
            match self.make(place, sample, tools, out) {
                Ok(()) => return Ok(Some(sample)),
                Err(error) => self.faults.note(sample, error)?,
            }
            if self.purpose == Purpose::Eval {
                return Ok(None);
            }
        }
        Err(failed("no sample of the data set can be read").into())
    }

    fn make(&self, place: usize, sample: usize, tools: &mut Tools, out: &mut [u8]) -> Result<()> {
        let Tools { bench, bytes } = tools;
        let key = if matches!(self.purpose, Purpose::Train { by_place: true, .. }) { place } else { sample };
        let mut random = rng::stream(self.seed, "augment", [self.epoch, key as u64]);
        let start = Instant::now();
        if self.dataset.encoded(sample, bytes)? {
            bench.stages.add(Stage::Read, start);
            self.transform
                .apply_encoded(bytes, bench, &mut random, out)
                .map_err(|error| self.dataset.undecodable(sample, &error))
        } else {
            let image = self.dataset.image(sample)?;
            bench.stages.add(Stage::Read, start);
            self.transform.apply(&image, bench, &mut random, out)
        }
    }

    fn tools(&self) -> Tools {
        let scaled = matches!(self.purpose, Purpose::Train { scaled_decoding: true, .. });
        let bench = if scaled { Workbench::reduced() } else { Workbench::new() };
        Tools { bench, bytes: Vec::new() }
    }
}

fn no_memory(count: usize, size: usize) -> anyhow::Error {
    let message = format!("no memory for a batch of {count} images of {size} × {size}");
    failed(message).hint("lower `train.batch_size` or `data.size`").into()
}

/// What a thread uses again from sample to sample.
struct Tools {
    bench: Workbench,
    /// An encoded image.
    bytes: Vec<u8>,
}

struct HostBatch {
    pixels: Tensor,
    labels: Vec<i64>,
    samples: Vec<usize>,
    part: Part,
}

/// An iterator over the batches of a [`Plan`]. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    /// Samples that the batches so far lack.
    skipped: u64,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    plan: Plan,
    device: Device,
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next batch that no thread has begun.
    next_to_fill: usize,
    /// The next batch that the loop gets.
    next_to_take: usize,
    filled: HashMap<usize, Result<HostBatch>>,
    /// Time that all threads have spent.
    stages: Stages,
    stopped: bool,
}

impl Loader {
    /// Starts `threads` threads at batch `first` of the plan.
    pub fn start(plan: Plan, first: usize, threads: usize, device: Device) -> Self {
        let state = State { next_to_fill: first, next_to_take: first, ..State::default() };
        let shared = Arc::new(Shared {
            plan,
            device,
            ahead: AHEAD * threads,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("loader".to_string()).spawn(move || shared.work())
        };
        // Fewer threads than asked for are slower, but give the same batches.
        let (started, refused): (Vec<_>, Vec<_>) =
            (0..threads).map(worker).partition(|thread| thread.is_ok());
        if let (true, Some(Err(error))) = (started.is_empty(), refused.into_iter().next()) {
            shared.lock().filled.insert(first, Err(process::thread_refused(&error).into()));
        }
        Self { threads: started.into_iter().flatten().collect(), shared, skipped: 0 }
    }

    /// Samples that could not be had, of those that the batches so far should have: of this pass, since a file that could
    /// not be read once may be read the next time, and the other way around.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What the threads have spent their time on, in the batches that are done.
    pub fn stages(&self) -> Stages {
        self.shared.lock().stages
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    /// One thread's life: take the next batch number, fill the batch, hand it over.
    fn work(&self) {
        let mut tools = self.plan.tools();
        let mut state = self.lock();
        loop {
            if state.stopped || state.next_to_fill >= self.plan.batches() {
                return;
            }
            if state.next_to_fill >= state.next_to_take + self.ahead {
                state = self.changed.wait(state).expect("no thread panics while it holds the lock");
                continue;
            }
            let index = state.next_to_fill;
            state.next_to_fill += 1;
            drop(state);
            let batch = catch_unwind(AssertUnwindSafe(|| self.plan.fill(index, self.device, &mut tools)))
                .unwrap_or_else(|_| Err(failed(format!("a loader thread crashed on batch {index}")).into()));
            state = self.lock();
            state.stages.merge(&std::mem::take(&mut tools.bench.stages));
            state.filled.insert(index, batch);
            self.changed.notify_all();
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let filled = self.take_filled()?;
            if let Ok(HostBatch { samples, part, .. }) = &filled {
                self.skipped += (part.own.len() - samples.len()) as u64;
            }
            match filled {
                // All its samples are bad.
                Ok(host) if host.samples.is_empty() => {}
                Ok(host) => return Some(self.upload(host)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Loader {
    /// The next batch, as soon as it is filled.
    fn take_filled(&self) -> Option<Result<HostBatch>> {
        let mut state = self.shared.lock();
        if state.next_to_take >= self.shared.plan.batches() {
            return None;
        }
        let index = state.next_to_take;
        let batch = loop {
            if let Some(batch) = state.filled.remove(&index) {
                break batch;
            }
            state = self.shared.changed.wait(state).expect("no thread panics while it holds the lock");
        };
        state.next_to_take += 1;
        self.shared.changed.notify_all();
        Some(batch)
    }

    /// On a GPU the copy of the pixels goes on while this returns; what uses them comes after it in the stream.
    fn upload(&self, host: HostBatch) -> Result<Batch> {
        let HostBatch { mut pixels, labels, samples, part } = host;
        let Part { whole, weight, counts, .. } = part;
        let (device, len) = (self.shared.device, samples.len());
        let crops = (len * self.shared.plan.transform.windows()) as i64;
        if crops < pixels.size()[0] {
            pixels = pixels.f_narrow(0, 0, crops)?;
        }
        if device.is_cuda() {
            let (non_blocking, copy) = (true, false);
            pixels = pixels.f_to_device_(device, Kind::Uint8, non_blocking, copy)?;
        }
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
        Ok(Batch { pixels, labels, samples, len, whole, weight, counts })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::Augment;
    use crate::data::faults::OnError;
    use crate::data::sampling::Sampling;
    use crate::data::synthetic::SyntheticSpec;
    use crate::data::{Crop, Image, Preprocessing, Source};

    fn spec() -> (DataSpec, Arc<dyn Dataset>) {
        let synthetic = SyntheticSpec { train: 50, size: 12, ..SyntheticSpec::default() };
        let mut spec = DataSpec { source: Source::Synthetic, synthetic, ..DataSpec::default() };
        let data = spec.open(Split::Train, 1).unwrap();
        spec.resolve(data.as_ref(), &Preprocessing::default()).unwrap();
        (spec, data)
    }

    fn bytes(
        spec: &DataSpec,
        data: &Arc<dyn Dataset>,
        threads: usize,
        first: usize,
    ) -> Vec<(Vec<u8>, Vec<i64>)> {
        let data = Arc::clone(data);
        let faults = Arc::new(Faults::new(spec, data.len()));
        let plan = Plan::train(data, faults, spec, 16, 3, 2).unwrap();
        assert_eq!(plan.batches(), 4);
        Loader::start(plan, first, threads, Device::Cpu)
            .map(|batch| {
                let batch = batch.unwrap();
                let pixels = batch.pixels.flatten(0, -1);
                (Vec::try_from(pixels).unwrap(), Vec::try_from(batch.labels).unwrap())
            })
            .collect()
    }

    #[test]
    fn batches_are_the_same_for_any_number_of_threads() {
        let (plain, data) = spec();
        let augment =
            r#"[{"kind": "rand-augment"}, {"kind": "pixel-jitter", "per": "value"}, {"kind": "erase"}]"#;
        let augment: Augment = serde_json::from_str(augment).unwrap();
        let sampling = Sampling::ClassAware;
        let rich = DataSpec { augment, sampling, crop: Some(Crop::Resized), ..plain.clone() };
        for spec in [plain, rich] {
            let one = bytes(&spec, &data, 1, 0);
            assert_eq!(one.iter().map(|(_, labels)| labels.len()).collect::<Vec<_>>(), [16, 16, 16, 2]);
            for threads in [2, 5, 16] {
                assert_eq!(one, bytes(&spec, &data, threads, 0), "{threads} threads");
            }
            // Any batch can be the first.
            assert_eq!(one[2..], bytes(&spec, &data, 2, 2));
        }
    }

    /// Samples of which some cannot be had.
    struct Holed(Arc<dyn Dataset>);

    impl Dataset for Holed {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> &[String] {
            self.0.classes()
        }
        fn channels(&self) -> usize {
            self.0.channels()
        }
        fn natural_size(&self) -> Option<(usize, usize)> {
            self.0.natural_size()
        }
        fn label(&self, index: usize) -> usize {
            self.0.label(index)
        }
        fn image(&self, index: usize) -> Result<Image> {
            match index {
                3 | 4 | 17..=19 => Err(failed(format!("cannot read sample {index}")).into()),
                _ => self.0.image(index),
            }
        }
        fn source_name(&self, index: usize) -> String {
            self.0.source_name(index)
        }
        fn relative_name(&self, index: usize) -> String {
            self.0.relative_name(index)
        }
    }

    #[test]
    fn bad_samples_are_replaced_in_training_and_left_out_in_evaluation() {
        let (spec, data) = spec();
        let data: Arc<dyn Dataset> = Arc::new(Holed(data));
        let spec = DataSpec { on_error: OnError::Skip, max_bad: 0.1, ..spec };
        let pass = |plan: Plan| -> Vec<usize> {
            Loader::start(plan, 0, 3, Device::Cpu).flat_map(|batch| batch.unwrap().samples).collect()
        };
        let faults = Arc::new(Faults::new(&spec, data.len()));
        let evaluated = pass(Plan::eval(Arc::clone(&data), Arc::clone(&faults), &spec, 3));
        let good = (0..50).filter(|sample| ![3, 4, 17, 18, 19].contains(sample));
        assert_eq!(evaluated, good.collect::<Vec<_>>());
        assert_eq!(faults.take_news().len(), 5);
        let train = || Plan::train(Arc::clone(&data), Arc::clone(&faults), &spec, 16, 0, 0).unwrap();
        let wanted = train().order;
        let trained = pass(train());
        for (wanted, trained) in wanted.into_iter().zip(trained) {
            let expected = match wanted {
                3 | 4 => 5,
                17..=19 => 20,
                good => good,
            };
            assert_eq!(trained, expected);
        }
        assert!(faults.take_news().is_empty(), "each is told once");

        let strict = Arc::new(Faults::new(&DataSpec { max_bad: 0.08, ..spec.clone() }, data.len()));
        let batches = Loader::start(Plan::eval(data, strict, &spec, 8), 0, 2, Device::Cpu);
        let error = batches.into_iter().find_map(Result::err).unwrap().to_string();
        assert!(error.contains("5 of 50 samples are bad"), "{error}");
    }

    #[test]
    fn ten_crops_are_five_windows_of_each_image_that_can_be_had() {
        let (spec, data) = spec();
        let data: Arc<dyn Dataset> = Arc::new(Holed(data));
        let spec =
            DataSpec { on_error: OnError::Skip, max_bad: 0.1, size: Some(8), resize: Some(12), ..spec };
        let plan = |views| {
            let faults = Arc::new(Faults::new(&spec, data.len()));
            Plan::eval(Arc::clone(&data), faults, &spec, 4).seen_as(views)
        };
        let batches =
            |views| Loader::start(plan(views), 0, 2, Device::Cpu).map(Result::unwrap).collect::<Vec<_>>();
        for (one, five) in batches(Views::Centre).iter().zip(&batches(Views::Ten)) {
            assert_eq!((one.samples.len(), &one.samples), (five.len, &five.samples));
            assert_eq!(five.pixels.size(), [5 * five.len as i64, 8, 8, 3]);
            let windows = five.pixels.view([-1, 5, 8, 8, 3]);
            assert_eq!(windows.select(1, 4), one.pixels);
            // At the data's own size a corner is a piece of the image, byte for byte.
            for (row, &sample) in five.samples.iter().enumerate() {
                let image = data.image(sample).unwrap();
                let lower_right = Vec::<u8>::try_from(windows.get(row as i64).get(3).flatten(0, -1)).unwrap();
                let expected: Vec<u8> =
                    (4..12).flat_map(|y| image.pixels[(y * 12 + 4) * 3..][..24].to_vec()).collect();
                assert_eq!(lower_right, expected);
            }
        }
    }

    #[test]
    fn an_abandoned_loader_stops() {
        let (spec, data) = spec();
        let faults = Arc::new(Faults::new(&spec, data.len()));
        let mut loader = Loader::start(Plan::eval(data, faults, &spec, 1), 0, 3, Device::Cpu);
        assert_eq!(loader.next().unwrap().unwrap().len, 1);
    }
}
