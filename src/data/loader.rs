//! Threads that fill batches ahead of the training loop.
//!
//! Batch k is made by whichever thread is free, from the samples `order[k·B..]` alone, so the number of threads
//! changes nothing but the speed. At most `AHEAD` batches a thread wait, and their buffers are used again.

use super::augment::Transform;
use super::sample::Workbench;
use super::{DataSpec, Dataset, Split, order};
use crate::error::{Result, failed};
use crate::rng;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use tch::{Device, Kind, Tensor};

/// Finished batches that may wait, for each thread.
const AHEAD: usize = 2;

/// Pixels and labels of some samples, on the device.
#[derive(Debug)]
pub struct Batch {
    /// u8 `[N, H, W, C]`.
    pub pixels: Tensor,
    /// int64 `[N]`.
    pub labels: Tensor,
    /// N.
    pub len: usize,
}

/// What one pass over a data set yields.
pub struct Plan {
    dataset: Arc<dyn Dataset>,
    transform: Transform,
    order: Vec<usize>,
    batch_size: usize,
    seed: u64,
    epoch: u64,
}

impl Plan {
    /// One epoch of training: shuffled, augmented.
    pub fn train(
        dataset: Arc<dyn Dataset>,
        spec: &DataSpec,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Self {
        let order = order::shuffled(dataset.len(), seed, epoch);
        Self { transform: Transform::new(spec, Split::Train), dataset, order, batch_size, seed, epoch }
    }

    /// Every sample once, in the data set's order, as it is.
    pub fn eval(dataset: Arc<dyn Dataset>, spec: &DataSpec, batch_size: usize) -> Self {
        let order = (0..dataset.len()).collect();
        Self { transform: Transform::new(spec, Split::Eval), dataset, order, batch_size, seed: 0, epoch: 0 }
    }

    /// Number of batches, a smaller last one included.
    pub fn batches(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// Makes batch `index` in `pixels`, whatever that buffer held before.
    fn fill(&self, index: usize, mut pixels: Vec<u8>, tools: &mut Tools) -> Result<HostBatch> {
        let start = index * self.batch_size;
        let samples = &self.order[start..(start + self.batch_size).min(self.order.len())];
        let sample_bytes = self.transform.size() * self.transform.size() * self.dataset.channels();
        let bytes = samples.len() * sample_bytes;
        // Asked for as a question: a process that cannot get what it insists on is ended.
        if pixels.try_reserve_exact(bytes.saturating_sub(pixels.len())).is_err() {
            let (count, size) = (samples.len(), self.transform.size());
            let message =
                format!("no memory for a batch of {count} images of {size} × {size} ({bytes} bytes)");
            return Err(failed(message).hint("lower `train.batch_size` or `data.size`").into());
        }
        pixels.resize(bytes, 0);
        for (&sample, out) in samples.iter().zip(pixels.chunks_exact_mut(sample_bytes)) {
            let mut random = rng::stream(self.seed, "augment", [self.epoch, sample as u64]);
            if self.dataset.encoded(sample, &mut tools.bytes)? {
                self.transform
                    .apply_encoded(&tools.bytes, &mut tools.bench, &mut random, out)
                    .map_err(|error| self.dataset.undecodable(sample, &error))?;
            } else {
                self.transform.apply(&self.dataset.image(sample)?, &mut tools.bench, &mut random, out)?;
            }
        }
        let labels = samples.iter().map(|&sample| self.dataset.label(sample) as i64).collect();
        Ok(HostBatch { pixels, labels })
    }
}

/// What a thread uses again from sample to sample.
#[derive(Default)]
struct Tools {
    bench: Workbench,
    /// An encoded image.
    bytes: Vec<u8>,
}

struct HostBatch {
    pixels: Vec<u8>,
    labels: Vec<i64>,
}

/// An iterator over the batches of a [`Plan`]. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    device: Device,
}

struct Shared {
    plan: Plan,
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
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

impl Loader {
    /// Starts `threads` threads at batch `first` of the plan.
    pub fn start(plan: Plan, first: usize, threads: usize, device: Device) -> Self {
        let state = State { next_to_fill: first, next_to_take: first, ..State::default() };
        let shared = Arc::new(Shared {
            plan,
            ahead: AHEAD * threads,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        Self { threads: (0..threads).map(worker).collect(), shared, device }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    /// One thread's life: take the next batch number, fill the batch, hand it over.
    fn work(&self) {
        let mut tools = Tools::default();
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
            let buffer = state.spare.pop().unwrap_or_default();
            drop(state);
            let batch = catch_unwind(AssertUnwindSafe(|| self.plan.fill(index, buffer, &mut tools)))
                .unwrap_or_else(|_| Err(failed(format!("a loader thread crashed on batch {index}")).into()));
            state = self.lock();
            state.filled.insert(index, batch);
            self.changed.notify_all();
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        if state.next_to_take >= self.shared.plan.batches() {
            return None;
        }
        let index = state.next_to_take;
        let host = loop {
            if let Some(batch) = state.filled.remove(&index) {
                break batch;
            }
            state = self.shared.changed.wait(state).expect("no thread panics while it holds the lock");
        };
        state.next_to_take += 1;
        self.shared.changed.notify_all();
        drop(state);
        Some(host.and_then(|host| self.upload(host)))
    }
}

impl Loader {
    fn upload(&self, host: HostBatch) -> Result<Batch> {
        let plan = &self.shared.plan;
        let (len, size) = (host.labels.len(), plan.transform.size() as i64);
        let shape = [len as i64, size, size, plan.dataset.channels() as i64];
        let pixels = Tensor::f_from_data_size(&host.pixels, &shape, Kind::Uint8)?.f_to_device(self.device)?;
        let labels = Tensor::f_from_slice(&host.labels)?.f_to_device(self.device)?;
        self.shared.lock().spare.push(host.pixels);
        Ok(Batch { pixels, labels, len })
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
    use crate::data::synthetic::SyntheticSpec;
    use crate::data::{Preprocessing, Source};

    fn spec() -> (DataSpec, Arc<dyn Dataset>) {
        let synthetic = SyntheticSpec { train: 50, size: 12, ..SyntheticSpec::default() };
        let mut spec = DataSpec { source: Source::Synthetic, synthetic, ..DataSpec::default() };
        let data = spec.open(Split::Train, 1).unwrap();
        spec.resolve(data.as_ref(), &Preprocessing::default()).unwrap();
        (spec, data)
    }

    fn bytes(threads: usize, first: usize) -> Vec<(Vec<u8>, Vec<i64>)> {
        let (spec, data) = spec();
        let plan = Plan::train(data, &spec, 16, 3, 2);
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
        let one = bytes(1, 0);
        assert_eq!(one.iter().map(|(_, labels)| labels.len()).collect::<Vec<_>>(), [16, 16, 16, 2]);
        assert_eq!(one, bytes(5, 0));
        assert_eq!(one[2..], bytes(2, 2));
    }

    #[test]
    fn an_abandoned_loader_stops() {
        let (spec, data) = spec();
        let mut loader = Loader::start(Plan::eval(data, &spec, 1), 0, 3, Device::Cpu);
        assert_eq!(loader.next().unwrap().unwrap().len, 1);
    }
}
