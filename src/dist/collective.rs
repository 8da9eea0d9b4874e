//! What everything above sees of the other processes: operations that all ranks do together. A process by itself does
//! them alone, at no cost, so that nobody above has to tell the two apart.
//!
//! All ranks call the same operations in the same order. An operation that fails says which rank is to blame and what
//! that rank last did ([`super::watch`]); afterwards there is nothing left to do but to [`leave`](Collective::leave).

use super::launch::{Launch, Meeting};
use super::watch::{self, Alarm, Limits, StoreKeeper, Stuck, Watch};
use crate::data::share::Share;
use crate::error::{Result, TorchContext, failed, usage};
use crate::process;
use crate::torch_ext::dist::{Group, Keeper, Membership, Peers, Reducer, ReducerOptions, Store};
use crate::torch_ext::torch_version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How long one try to wait for others takes, between looks at whether they still live.
const SLICE: Duration = Duration::from_millis(500);

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
    /// Ranks on this machine.
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

/// What a rank says of itself when it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    world_size: usize,
    machine: String,
    libtorch: String,
    /// This machine's address on the way to the meeting place.
    address: IpAddr,
    /// The address of the meeting place as seen from here.
    meeting: IpAddr,
    /// Whether it computes on a GPU: ranks that do not would wait for the others' NCCL forever.
    on_gpu: bool,
    /// The cores that this rank may run on, by number.
    cores: Vec<usize>,
    /// How many it may keep busy, by its quota.
    allowed: usize,
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
        let deadline = Instant::now() + limits.meeting;
        let left = || deadline.saturating_duration_since(Instant::now()).max(SLICE);
        // A store of ours lives as long as we; a launcher's sees one attempt at the job after the other.
        let mut attempt = match meeting.kept_by_launcher {
            true => Some(Attempt::find(
                open_store(rank, meeting, PREFIX, left())?,
                launch,
                left(),
                limits.meeting,
            )?),
            false => None,
        };
        let prefix = format!("{PREFIX}{}/", attempt.as_ref().map_or(0, |attempt| attempt.number));
        let store = open_store(rank, meeting, &prefix, left())?;
        let cards = Card::ours(world_size, meeting, device)
            .and_then(|card| roll_call(&store, launch, &card, attempt.as_mut(), left(), limits.meeting))
            .map_err(|error| call_off(&store, &keeper, rank, error))?;
        let address = if launch.interfaces_named { String::new() } else { gloo_address(&cards, rank) };
        let cuda = match device {
            Device::Cuda(index) => Some(index),
            _ => None,
        };
        let membership =
            Membership { rank, size: world_size, address: &address, cuda, timeout: limits.operation };
        let group = Group::join(&store, &membership)?;
        let aborter = if cuda.is_some() { Some(group.aborter()?) } else { None };
        // Of its own: a connection serves one question at a time, and some take long.
        let notes = Store::open(&meeting.host, meeting.port, Keeper::Another, left(), &prefix)?;
        let watch =
            Watch::begin(notes, rank, world_size, keeper, limits, Alarm { aborter, stuck: Some(stuck) })?;
        let gathered = AtomicU64::new(0);
        let cores = cores(&cards, rank);
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

/// Our keys in a store that may be another's.
const PREFIX: &str = "senet/";

/// One start of all ranks, among several that a launcher's store has seen: keys of an earlier one are not ours. How often
/// each machine's launcher has started its ranks does not tell them apart, since one may restart them for its own sake
/// and the next because it was asked to. So rank 0 counts, and the others ask it.
struct Attempt {
    store: Store,
    number: i64,
    /// Questions that were answered.
    answered: i64,
}

impl Attempt {
    /// Begins one, as rank 0; as another, waits for rank 0's answer.
    fn find(store: Store, launch: &Launch, time: Duration, limit: Duration) -> Result<Self> {
        if launch.rank == 0 {
            let number = store.add("attempts", 1)?;
            return Ok(Self { store, number, answered: 0 });
        }
        let answer = [Self::answer_to(store.add("questions", 1)?)];
        let deadline = Instant::now() + time;
        while !store.wait(&answer, SLICE)? {
            if Instant::now() >= deadline {
                return Err(not_there(&[0], launch.world_size, limit));
            }
        }
        let number = String::from_utf8_lossy(&store.get(&answer)?[0]).parse();
        let number =
            number.map_err(|_| failed("the launcher's store holds something else than an answer"))?;
        Ok(Self { store, number, answered: 0 })
    }

    /// Tells those who have asked. To answer a question of an earlier attempt does no harm: who asked it is gone.
    fn answer(&mut self) -> Result<()> {
        let asked = self.store.add("questions", 0)?;
        while self.answered < asked {
            self.answered += 1;
            self.store.set(&Self::answer_to(self.answered), self.number.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn answer_to(question: i64) -> String {
        format!("answer/{question}")
    }
}

fn open_store(rank: usize, meeting: &Meeting, prefix: &str, time: Duration) -> Result<Store> {
    let ours = rank == 0 && !meeting.kept_by_launcher;
    let keeper = if ours { Keeper::Us } else { Keeper::Another };
    let Meeting { host, port, .. } = meeting;
    Store::open(host, *port, keeper, time, prefix).map_err(|error| {
        let reason = format!("{error:#}");
        let problem = if ours && reason.contains("EADDRINUSE") {
            failed(format!("port {port} is in use on this machine, where rank 0 was to meet the others"))
                .hint("another job may use it: set MASTER_PORT to another port")
        } else if ours {
            failed(format!("rank 0 cannot meet the others at {host}:{port}: {reason}"))
                .hint("MASTER_ADDR has to name the machine of rank 0")
        } else {
            let who = if meeting.kept_by_launcher { "the launcher" } else { "rank 0" };
            let time = humantime::format_duration(time);
            failed(format!("rank {rank} found nobody at {host}:{port} within {time}, where {who} should be"))
                .hint(format!("is {who} running, and is {host} the right machine? libtorch says: {reason}"))
        };
        problem.into()
    })
}

impl Card {
    fn ours(world_size: usize, meeting: &Meeting, device: Device) -> Result<Self> {
        let place = (meeting.host.as_str(), meeting.port);
        let unreachable = |reason: std::io::Error| {
            failed(format!("no way leads to {}:{}: {reason}", meeting.host, meeting.port))
        };
        let mut places: Vec<_> = place.to_socket_addrs().map_err(unreachable)?.collect();
        places.sort_by_key(|place| !place.is_ipv4());
        let Some(place) = places.first() else {
            return Err(unreachable(std::io::ErrorKind::AddrNotAvailable.into()).into());
        };
        // Nothing is sent: connecting only asks for the way.
        let any = if place.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).map_err(unreachable)?;
        socket.connect(place).map_err(unreachable)?;
        Ok(Self {
            world_size,
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            libtorch: torch_version(),
            address: socket.local_addr().map_err(unreachable)?.ip(),
            meeting: place.ip(),
            on_gpu: device.is_cuda(),
            cores: process::cores(),
            allowed: process::allowed_cores(),
        })
    }
}

/// Waits for all ranks and compares what they say of themselves. Rank 0 tells those who come which `attempt` this is.
fn roll_call(
    store: &Store,
    launch: &Launch,
    card: &Card,
    mut attempt: Option<&mut Attempt>,
    time: Duration,
    limit: Duration,
) -> Result<Vec<Card>> {
    let &Launch { rank, world_size, .. } = launch;
    if store.add(&format!("here/{rank}"), 1)? > 1 {
        let message = format!("two processes say that they are rank {rank}");
        return Err(usage(message).hint("each needs its own RANK; or MASTER_PORT is another job's").into());
    }
    watch::introduce(store, rank)?;
    let keys: Vec<String> = (0..world_size).map(|rank| format!("card/{rank}")).collect();
    store.set(&keys[rank], &serde_json::to_vec(card)?)?;
    let deadline = Instant::now() + time;
    let mut cards: Vec<Option<Card>> = vec![None; world_size];
    loop {
        if let Some(attempt) = attempt.as_mut().filter(|_| rank == 0) {
            attempt.answer()?;
        }
        let all = store.wait(&keys, if attempt.is_some() { SLICE / 10 } else { SLICE })?;
        for (other, key) in keys.iter().enumerate() {
            if cards[other].is_none() && (all || store.has(key)?) {
                let theirs: Card = serde_json::from_slice(&store.get(std::slice::from_ref(key))?[0])?;
                fits(rank, card, other, &theirs)?;
                cards[other] = Some(theirs);
            }
        }
        if all {
            return Ok(cards.into_iter().flatten().collect());
        }
        if store.has(OFF)? {
            let reason = store.get(&[OFF.to_owned()])?.remove(0);
            return Err(failed(String::from_utf8_lossy(&reason).into_owned()).into());
        }
        if Instant::now() >= deadline {
            return Err(not_there(&absent(store, &keys)?, world_size, limit));
        }
    }
}

/// Ranks that have not come to the meeting.
fn not_there(ranks: &[usize], world_size: usize, limit: Duration) -> anyhow::Error {
    let problem = watch::missing(ranks, world_size, limit);
    problem.hint("were they started, and have all the same MASTER_ADDR and MASTER_PORT?").into()
}

/// How many cores of its machine a rank may keep busy: those that it may run on, each shared with the other ranks that
/// may, if the launcher has not given them cores of their own; at least one.
fn cores(cards: &[Card], rank: usize) -> usize {
    let own = &cards[rank];
    let beside = || cards.iter().filter(|card| card.machine == own.machine);
    let shares =
        own.cores.iter().map(|core| 1.0 / beside().filter(|card| card.cores.contains(core)).count() as f64);
    // Eight eighths can come to a little less than one.
    let of_own = (shares.sum::<f64>() + 1e-6) as usize;
    // A quota is of the machine's ranks together.
    let of_quota = if own.allowed < own.cores.len() { own.allowed / beside().count() } else { usize::MAX };
    of_own.min(of_quota).max(1)
}

/// The key of the reason why the meeting is off.
const OFF: &str = "off";

/// Tells the others why this rank does not come; who keeps the store gives them the time to read it.
fn call_off(store: &Store, keeper: &StoreKeeper, rank: usize, error: anyhow::Error) -> anyhow::Error {
    // Who cannot tell them has the same reason as they to end.
    let told = store.set(OFF, format!("rank {rank} called it off: {error:#}").as_bytes());
    if told.is_ok() && rank == 0 && keeper.is_rank_0 {
        std::thread::sleep(2 * SLICE);
    }
    error
}

/// The ranks whose keys are not there.
fn absent(store: &Store, keys: &[String]) -> Result<Vec<usize>> {
    let mut absent = Vec::new();
    for (rank, key) in keys.iter().enumerate() {
        if !store.has(key)? {
            absent.push(rank);
        }
    }
    Ok(absent)
}

/// Refuses two ranks that cannot work together.
fn fits(rank: usize, ours: &Card, other: usize, theirs: &Card) -> Result<()> {
    if theirs.world_size != ours.world_size {
        let message = format!(
            "rank {rank} was told of {} processes, and rank {other} of {}",
            ours.world_size, theirs.world_size
        );
        return Err(usage(message).hint("all need the same WORLD_SIZE").into());
    }
    if theirs.libtorch != ours.libtorch {
        let message = format!(
            "rank {rank} has libtorch {}, and rank {other} on {} has {}",
            ours.libtorch, theirs.machine, theirs.libtorch
        );
        return Err(failed(message).hint("all ranks need the same program").into());
    }
    if theirs.on_gpu != ours.on_gpu {
        let place = |on_gpu: bool| if on_gpu { "a GPU" } else { "the CPU" };
        let message = format!(
            "rank {rank} computes on {}, and rank {other} on {} on {}",
            place(ours.on_gpu),
            theirs.machine,
            place(theirs.on_gpu)
        );
        let hint = "`--device cuda` insists on GPUs, `--device cpu` takes none; `senet doctor` says what a machine has";
        return Err(failed(message).hint(hint).into());
    }
    Ok(())
}

/// Where gloo listens for the other ranks: this machine's address on the way to rank 0. It must not be the loopback
/// when there are other machines, and often is on rank 0's own, whose name may stand for 127.0.1.1 there; the others
/// know its address.
fn gloo_address(cards: &[Card], rank: usize) -> String {
    let own = &cards[rank];
    let seen_from_afar = || cards.iter().find(|card| !card.address.is_loopback()).map(|card| card.meeting);
    if own.address.is_loopback() {
        return seen_from_afar().unwrap_or(own.address).to_string();
    }
    own.address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn card(address: &str, meeting: &str) -> Card {
        let (address, meeting) = (address.parse().unwrap(), meeting.parse().unwrap());
        let (machine, libtorch) = ("a".into(), "2.13.0".into());
        Card {
            world_size: 3,
            machine,
            libtorch,
            address,
            meeting,
            on_gpu: false,
            cores: vec![0, 1],
            allowed: 2,
        }
    }

    #[test]
    fn gloo_listens_where_the_other_machines_find_it() {
        let alone = [card("127.0.0.1", "127.0.0.1"), card("127.0.0.1", "127.0.1.1")];
        assert_eq!(gloo_address(&alone, 0), "127.0.0.1");
        // Ranks 0 and 1 are on a machine that takes its own name for 127.0.1.1; rank 2 is elsewhere.
        let cards =
            [card("127.0.0.1", "127.0.1.1"), card("127.0.0.1", "127.0.1.1"), card("10.0.0.2", "10.0.0.1")];
        assert_eq!([0, 1, 2].map(|rank| gloo_address(&cards, rank)), ["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn ranks_that_do_not_fit_are_refused_with_both_numbers() {
        let ours = card("127.0.0.1", "127.0.0.1");
        assert!(fits(0, &ours, 1, &ours).is_ok());
        let more = Card { world_size: 4, ..ours.clone() };
        let error = fits(0, &ours, 1, &more).unwrap_err();
        assert_eq!(error.to_string(), "rank 0 was told of 3 processes, and rank 1 of 4");
        let older = Card { libtorch: "2.12.0".into(), ..ours.clone() };
        assert!(fits(0, &ours, 1, &older).unwrap_err().to_string().ends_with("on a has 2.12.0"));
        let gpu = Card { on_gpu: true, ..ours.clone() };
        let error = fits(0, &ours, 1, &gpu).unwrap_err();
        assert_eq!(error.to_string(), "rank 0 computes on the CPU, and rank 1 on a on a GPU");
    }

    #[test]
    fn ranks_share_the_cores_that_they_may_all_run_on() {
        let on = |machine: &str, cores: std::ops::Range<usize>, allowed: usize| Card {
            machine: machine.into(),
            cores: cores.collect(),
            allowed,
            ..card("10.0.0.1", "10.0.0.1")
        };
        // Two ranks of one machine share its twelve cores; a third is alone on another.
        let shared = [on("a", 0..12, 12), on("a", 0..12, 12), on("b", 0..12, 12)];
        assert_eq!([0, 1, 2].map(|rank| cores(&shared, rank)), [6, 6, 12]);
        // A launcher has given each cores of its own.
        let bound = [on("a", 0..6, 6), on("a", 6..12, 6)];
        assert_eq!([0, 1].map(|rank| cores(&bound, rank)), [6, 6]);
        // Some of them are another's, too.
        let lapping = [on("a", 0..6, 6), on("a", 4..12, 8)];
        assert_eq!([0, 1].map(|rank| cores(&lapping, rank)), [5, 7]);
        // A container may use four cores of twelve; a core for each is the least.
        let quota = [on("a", 0..12, 4), on("a", 0..12, 4)];
        assert_eq!(cores(&quota, 0), 2);
        let many: Vec<_> = (0..8).map(|_| on("a", 0..2, 2)).collect();
        assert_eq!(cores(&many, 7), 1);
        let thirds: Vec<_> = (0..3).map(|_| on("a", 0..3, 3)).collect();
        assert_eq!(cores(&thirds, 0), 1);
    }

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
