//! What everything above sees of the other processes: operations that all ranks do together. A process by itself does
//! them alone, at no cost, so that nobody above has to tell the two apart.
//!
//! All ranks call the same operations in the same order. An operation that fails says which rank is to blame and what
//! that rank last did ([`super::watch`]); afterwards there is nothing left to do but to [`leave`](Collective::leave).

use super::launch::Launch;
use super::roll_call::{self, absent};
use super::store::Store;
use super::watch::{self, Alarm, Limits, StoreKeeper, Stuck, Watch};
use crate::data::share::Share;
use crate::error::{Result, TorchContext, failed, usage};
use crate::process;
use crate::torch_ext::dist::{Group, Membership, Peers, Reducer, ReducerOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How long one try to wait for others takes, between looks at whether they still live.
pub(super) const SLICE: Duration = Duration::from_millis(500);

/// All ranks, as one of them sees them.
#[derive(Debug)]
pub enum Collective {
    /// A process by itself: rank 0 of 1.
    Alone,
    /// One of several.
    Ranks(Box<Ranks>),
}

/// The connections of one of several ranks.
#[derive(Debug)]
pub struct Ranks {
    share: Share,
    /// Cores that this rank may keep busy.
    cores: usize,
    device: Device,
    // In the order in which they are to be dropped: good-bye is said while the store is there.
    watch: Arc<Watch>,
    group: Group,
    store: Store,
    limits: Limits,
    /// Operations done through the store.
    gathered: AtomicU64,
}

impl Collective {
    /// Meets the other ranks of `launch`; without one, or as the only rank, nobody. Tensors are to lie on `device` or
    /// in main memory. `stuck` is told when this rank hangs after others were lost: it should print the message and
    /// end the process.
    ///
    /// # Errors
    /// When the port is in use, ranks do not come within the limit, or they do not fit together; they are named.
    pub fn join(
        launch: Option<&Launch>,
        device: Device,
        limits: Limits,
        stuck: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Self> {
        match launch {
            Some(launch) if launch.world_size > 1 => {
                Ok(Self::Ranks(Box::new(Ranks::join(launch, device, limits, Box::new(stuck))?)))
            }
            _ => Ok(Self::Alone),
        }
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.share().rank
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.share().world_size
    }

    /// Both: which part of a batch this rank has.
    pub fn share(&self) -> Share {
        self.ranks().map_or(Share::ALONE, |ranks| ranks.share)
    }

    /// How many cores this process may keep busy.
    pub fn cores(&self) -> usize {
        self.ranks().map_or_else(process::allowed_cores, |ranks| ranks.cores)
    }

    /// Where this rank computes, if it is one of several.
    pub fn device(&self) -> Option<Device> {
        self.ranks().map(|ranks| ranks.device)
    }

    /// Whether this is the rank that prints and writes.
    pub fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// Tells the others what this rank does from now on, such as `epoch 3, step 120`. All ranks say the same things in
    /// the same order, so that one that hangs can be told by what it has not said yet. Costs next to nothing.
    pub fn doing(&self, what: impl Into<String>) {
        if let Some(ranks) = self.ranks() {
            ranks.watch.doing(what);
        }
    }

    /// Gives all ranks rank 0's values of `tensors`, in place.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.with_ranks(|ranks| ranks.group.broadcast(tensors))
    }

    /// Replaces each of `tensors` by the sum of all ranks', in place.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.with_ranks(|ranks| ranks.group.all_reduce_sum(tensors))
    }

    /// Replaces each of `tensors` (of a floating-point kind) by the mean of all ranks', in place.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn all_reduce_mean(&self, tensors: &[Tensor]) -> Result<()> {
        self.with_ranks(|ranks| ranks.group.all_reduce_mean(tensors))
    }

    /// The sums of all ranks' `values`, alike on all of them.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn sum(&self, values: &[f64]) -> Result<Vec<f64>> {
        if self.ranks().is_none() {
            return Ok(values.to_vec());
        }
        // In main memory on all machines: gloo adds them up, and no GPU is waited for.
        let sums = Tensor::f_from_slice(values).torch_context(|| "cannot add up".to_owned())?;
        self.all_reduce_sum(std::slice::from_ref(&sums))?;
        Vec::try_from(sums).torch_context(|| "cannot read sums".to_owned())
    }

    /// Whether `this` is so on any rank: the same answer on all of them.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn any(&self, this: bool) -> Result<bool> {
        Ok(self.sum(&[f64::from(this)])?[0] > 0.0)
    }

    /// What all ranks say, by rank, as [`gather`](Self::gather).
    ///
    /// # Errors
    /// When a rank is lost or does not come.
    pub fn gather_said<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let said = self.gather(&serde_json::to_vec(value)?)?;
        said.iter().map(|value| Ok(serde_json::from_slice(value)?)).collect()
    }

    /// What rank 0 says; `value` gives it, and is called there alone.
    ///
    /// # Errors
    /// When `value` fails, or rank 0 is lost or does not come.
    pub fn from_main<T: Serialize + DeserializeOwned>(&self, value: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Alone => value(),
            Self::Ranks(_) => {
                let own = self.is_main().then(value).transpose()?;
                let first = self.gather_said(&own)?.swap_remove(0);
                first.ok_or_else(|| failed("rank 0 said nothing").into())
            }
        }
    }

    /// The values of all ranks, by rank. For a few bytes now and then: they go through the store.
    ///
    /// # Errors
    /// When a rank is lost or does not come.
    pub fn gather(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        match self {
            Self::Alone => Ok(vec![value.to_owned()]),
            Self::Ranks(ranks) => {
                ranks.watch.begins_operation();
                ranks.gather(value).map_err(|error| ranks.watch.explain(error))
            }
        }
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// When a rank is lost or does not come.
    pub fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(|_| ())
    }

    /// Compares what has to be the same on all ranks: hashes of the configuration, the data and the like, by name.
    ///
    /// # Errors
    /// When a rank has another value than rank 0: the rank and the name. All ranks get the same error.
    pub fn agree(&self, hashes: &BTreeMap<String, String>) -> Result<()> {
        let notes = self.gather(&serde_json::to_vec(hashes)?)?;
        let parse =
            |note: &Vec<u8>| -> Result<BTreeMap<String, String>> { Ok(serde_json::from_slice(note)?) };
        let all = notes.iter().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(difference(&all)?)
    }

    /// Fails when a rank is known to be lost, without waiting for anybody. For long stretches without other operations.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn check(&self) -> Result<()> {
        match self.ranks().and_then(|ranks| ranks.watch.loss()) {
            Some(loss) => Err(failed(loss).into()),
            None => Ok(()),
        }
    }

    /// Prepares the reduction of these parameters' gradients. All ranks call it, with the same parameters (names,
    /// kinds and shapes are compared).
    ///
    /// # Errors
    /// When a rank is lost, or has other parameters.
    pub fn gradients(&self, params: &[(String, Tensor)], options: ReducerOptions) -> Result<Gradients> {
        let described = |(name, param): &(String, Tensor)| {
            let described = format!("{:?} {:?}", param.f_kind()?, param.size());
            Ok((format!("parameter {name}"), described))
        };
        let described: Result<_, tch::TchError> = params.iter().map(described).collect();
        self.agree(&described.torch_context(|| "cannot describe the parameters".to_owned())?)?;
        let mut reduced = None;
        self.with_ranks(|ranks| {
            let (names, params): (Vec<_>, Vec<_>) =
                params.iter().map(|(name, param)| (name.clone(), param.shallow_clone())).unzip();
            let reducer = Reducer::new(&ranks.group, &params, &names, options)?;
            reduced = Some((reducer, Arc::clone(&ranks.watch)));
            Ok(())
        })?;
        Ok(Gradients { reduced })
    }

    /// The others as operators of a network see them; nothing for a process by itself.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn peers(&self) -> Result<Option<Peers>> {
        self.ranks().map(|ranks| ranks.group.peers()).transpose()
    }

    /// Whether this rank has to speak for rank 0, which is lost: the first of the others does.
    pub fn speaks_for_main(&self) -> bool {
        self.ranks().is_some_and(|ranks| ranks.share.rank == 1 && ranks.watch.main_is_lost())
    }

    /// Says good-bye: this rank has finished, or failed for the reason given. What was made of the collective should be
    /// gone before. A rank that just disappears is taken for dead by the others.
    pub fn leave(self, failure: Option<&str>) {
        let Self::Ranks(ranks) = self else { return };
        let Ranks { group, watch, .. } = *ranks;
        if failure.is_some() {
            // Operations that will never end are waited for when a group is freed; the process ends soon.
            std::mem::forget(group);
        } else {
            drop(group);
        }
        watch.leave(failure);
    }

    fn ranks(&self) -> Option<&Ranks> {
        match self {
            Self::Alone => None,
            Self::Ranks(ranks) => Some(ranks),
        }
    }

    fn with_ranks(&self, operation: impl FnOnce(&Ranks) -> Result<()>) -> Result<()> {
        let Some(ranks) = self.ranks() else { return Ok(()) };
        ranks.watch.begins_operation();
        operation(ranks).map_err(|error| ranks.watch.explain(error))
    }
}

/// The first difference from rank 0.
fn difference(all: &[BTreeMap<String, String>]) -> Result<(), crate::error::Problem> {
    let first = &all[0];
    for (rank, other) in all.iter().enumerate() {
        let names = first.keys().chain(other.keys());
        if let Some(name) = names.into_iter().find(|name| first.get(*name) != other.get(*name)) {
            let shown = |hashes: &BTreeMap<String, String>| {
                hashes.get(name).map_or("nothing".to_owned(), |hash| format!("`{hash}`"))
            };
            let message =
                format!("rank {rank} has another {name} than rank 0: {}, not {}", shown(other), shown(first));
            return Err(usage(message).hint("start all ranks with the same words, files and program"));
        }
    }
    Ok(())
}

/// The gradients of a set of parameters: reduced to the mean over all ranks during a backward pass.
///
/// A pass that is to be reduced calls [`begin`](Self::begin) before its forward part and [`turn`](Self::turn) before its
/// backward part. Others (all but the last of an accumulation) call neither: their gradients stay here, and are reduced
/// with the next pass's.
#[derive(Debug, Default)]
pub struct Gradients {
    reduced: Option<(Reducer, Arc<Watch>)>,
}

impl Gradients {
    /// To be called before the forward pass.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn begin(&mut self) -> Result<()> {
        match &mut self.reduced {
            None => Ok(()),
            Some((reducer, watch)) => reducer.prepare_forward().map_err(|error| watch.explain(error)),
        }
    }

    /// To be called before the backward pass from `loss`.
    ///
    /// # Errors
    /// When the pass before was not finished.
    pub fn turn(&mut self, loss: &Tensor) -> Result<()> {
        match &mut self.reduced {
            None => Ok(()),
            Some((reducer, watch)) => {
                watch.begins_operation();
                reducer.prepare_backward(loss).map_err(|error| watch.explain(error))
            }
        }
    }

    /// Finds out whose fault it was that a pass failed with `error`.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.reduced {
            None => error,
            Some((_, watch)) => watch.explain(error),
        }
    }
}

impl Ranks {
    fn join(launch: &Launch, device: Device, limits: Limits, stuck: Stuck) -> Result<Self> {
        let &Launch { rank, world_size, ref meeting, .. } = launch;
        let keeper = StoreKeeper {
            place: format!("{}:{}", meeting.host, meeting.port),
            is_rank_0: !meeting.kept_by_launcher,
        };
        let met = roll_call::meet(launch, device, &keeper, limits.meeting)?;
        let address = if launch.interfaces_named { String::new() } else { met.gloo_address(rank) };
        let cuda = match device {
            Device::Cuda(index) => Some(index),
            _ => None,
        };
        let membership =
            Membership { rank, size: world_size, address: &address, cuda, timeout: limits.operation };
        let group = Group::join(met.store.connection(), &membership)?;
        let aborter = if cuda.is_some() { Some(group.aborter()?) } else { None };
        // Of its own: a connection serves one question at a time, and some take long.
        let notes = met.connect_again()?;
        let watch =
            Watch::begin(notes, rank, world_size, keeper, limits, Alarm { aborter, stuck: Some(stuck) })?;
        let gathered = AtomicU64::new(0);
        let (cores, store) = (met.cores(rank), met.store);
        let share = Share { rank, world_size };
        Ok(Self { share, cores, device, watch: Arc::new(watch), group, store, limits, gathered })
    }

    fn gather(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        let round = self.gathered.fetch_add(1, Ordering::Relaxed);
        let key = |round: u64, rank: usize| format!("gather/{round}/{rank}");
        let Share { rank: own, world_size } = self.share;
        self.store.set(&key(round, own), value)?;
        let keys: Vec<String> = (0..world_size).map(|rank| key(round, rank)).collect();
        let deadline = Instant::now() + self.limits.operation;
        while !self.store.wait(&keys, SLICE)? {
            if self.watch.loss().is_some() {
                return Err(failed("the connection to a rank is lost").into());
            }
            if Instant::now() >= deadline {
                let absent = absent(&self.store, &keys)?;
                return Err(watch::missing(&absent, world_size, self.limits.operation).into());
            }
        }
        let values = self.store.get(&keys)?;
        // Whoever is in this round has read all of the one before the last.
        if let Some(old) = round.checked_sub(2) {
            self.store.delete(&key(old, own))?;
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_difference_is_found_in_values_and_in_names() {
        let hashes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
        };
        let first = hashes(&[("configuration", "1"), ("data", "2")]);
        assert!(difference(&[first.clone(), first.clone()]).is_ok());
        for (other, said) in [
            (hashes(&[("configuration", "1"), ("data", "3")]), "another data than rank 0: `3`, not `2`"),
            (hashes(&[("configuration", "1")]), "another data than rank 0: nothing, not `2`"),
            (
                hashes(&[("configuration", "1"), ("data", "2"), ("x", "y")]),
                "another x than rank 0: `y`, not nothing",
            ),
        ] {
            let problem = difference(&[first.clone(), first.clone(), other]).unwrap_err();
            assert!(
                problem.kind == Kind::Usage && problem.message == format!("rank 2 has {said}"),
                "{problem}"
            );
        }
    }
}
