//! How ranks meet: in c10d's store, where each says what it is; they begin when all have come and fit together.

use super::collective::SLICE;
use super::launch::{Launch, Meeting};
use super::store::Store;
use super::watch::{self, StoreKeeper};
use crate::error::{Result, failed, usage};
use crate::process;
use crate::torch_ext::dist::Keeper;
use crate::torch_ext::torch_version;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};
use tch::Device;

/// Ranks that have met.
pub(super) struct Met {
    /// This attempt's keys.
    pub(super) store: Store,
    prefix: String,
    meeting: Meeting,
    /// When they had to have met.
    deadline: Instant,
    /// What each rank has said of itself.
    cards: Vec<Card>,
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

/// Meets the others, within the time.
///
/// # Errors
/// When ranks do not come, or do not fit together.
pub(super) fn meet(launch: &Launch, device: Device, keeper: &StoreKeeper, time: Duration) -> Result<Met> {
    let &Launch { rank, world_size, ref meeting, .. } = launch;
    let deadline = Instant::now() + time;
    let left = || left_until(deadline);
    // A store of ours lives as long as we; a launcher's sees one attempt at the job after the other.
    let mut attempt = match meeting.kept_by_launcher {
        true => Some(Attempt::find(open_store(rank, meeting, PREFIX, left(), time)?, launch, left(), time)?),
        false => None,
    };
    let prefix = format!("{PREFIX}{}/", attempt.as_ref().map_or(0, |attempt| attempt.number));
    let store = open_store(rank, meeting, &prefix, left(), time)?;
    let cards = Card::ours(world_size, meeting, device)
        .and_then(|card| {
            roll_call(&store, launch, &card, attempt.as_mut().filter(|_| rank == 0), left(), time)
        })
        .map_err(|error| call_off(&store, keeper, rank, error))?;
    Ok(Met { store, prefix, meeting: meeting.clone(), deadline, cards })
}

/// The time until then, and enough for a look.
fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(SLICE)
}

impl Met {
    /// Another connection to the same keys: one serves one question at a time.
    pub(super) fn connect_again(&self) -> Result<Store> {
        let Meeting { host, port, token, .. } = &self.meeting;
        let time = left_until(self.deadline);
        Store::open(host, *port, Keeper::Another, time, &self.prefix, token.as_ref())
    }

    /// Where gloo listens for the other ranks.
    pub(super) fn gloo_address(&self, rank: usize) -> String {
        gloo_address(&self.cards, rank)
    }

    /// How many cores of its machine a rank may keep busy.
    pub(super) fn cores(&self, rank: usize) -> usize {
        cores(&self.cards, rank)
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

/// Connects within `time`, what is left of the `limit` that a message names.
fn open_store(
    rank: usize,
    meeting: &Meeting,
    prefix: &str,
    time: Duration,
    limit: Duration,
) -> Result<Store> {
    let ours = rank == 0 && !meeting.kept_by_launcher;
    let keeper = if ours { Keeper::Us } else { Keeper::Another };
    let Meeting { host, port, token, .. } = meeting;
    Store::open(host, *port, keeper, time, prefix, token.as_ref()).map_err(|error| {
        let reason = format!("{error:#}");
        let problem = if ours && reason.contains("EADDRINUSE") {
            failed(format!("port {port} is in use on this machine, where rank 0 was to meet the others"))
                .hint("another job may use it: set MASTER_PORT to another port")
        } else if ours {
            failed(format!("rank 0 cannot meet the others at {host}:{port}: {reason}"))
                .hint("MASTER_ADDR has to name the machine of rank 0")
        } else {
            let who = if meeting.kept_by_launcher { "the launcher" } else { "rank 0" };
            let time = humantime::format_duration(limit);
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

/// Waits for all ranks and compares what they say of themselves. With an `attempt`, tells those who ask
/// which it is.
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
        let slice = match &mut attempt {
            Some(attempt) => {
                attempt.answer()?;
                SLICE / 10
            }
            None => SLICE,
        };
        let all = store.wait(&keys, slice)?;
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
    // The first reason stays: a rank that ends for it must not pass it on as one of its own. Who cannot tell the others has
    // the same reason as they to end.
    let told = match store.has(OFF) {
        Ok(true) => Ok(()),
        _ => store.set(OFF, format!("rank {rank} called it off: {error:#}").as_bytes()),
    };
    if told.is_ok() && rank == 0 && keeper.is_rank_0 {
        std::thread::sleep(2 * SLICE);
    }
    error
}

/// The ranks whose keys are not there.
pub(super) fn absent(store: &Store, keys: &[String]) -> Result<Vec<usize>> {
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
}
