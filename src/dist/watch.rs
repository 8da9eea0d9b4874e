//! What each rank does, known to all others. A thread of each rank writes a note into the job's store once a pulse and
//! reads the others'. When an operation of all ranks fails, the notes tell whose fault it was. An operation by itself
//! only says that a connection broke or that time is up.
//!
//! Notes cost the training loop nothing: it changes a string in memory. A second thread raises the alarm when this rank
//! itself hangs; it asks nobody, so that nothing can hold it up.

use super::store::Store;
use crate::error::{Problem, Result, failed};
use crate::torch_ext::dist::Aborter;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pulses without a sign of life after which a rank is taken for dead once an operation has failed.
const SILENT_PULSES: u32 = 3;

/// Pulses that a rank looks at the notes for whose fault a failure was.
const INQUIRY_PULSES: u32 = 6;

/// What a rank tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// Grows with each pulse: a sign of life.
    beat: u64,
    /// Grows with each thing done, the same things on all ranks: who has a lower one is behind.
    progress: u64,
    doing: String,
    state: State,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
enum State {
    #[default]
    Working,
    Finished,
    /// By itself.
    Failed(String),
    /// For want of another, with what it found out about that one.
    Bereft(String),
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until all ranks have met.
    pub meeting: Duration,
    /// For an operation of all ranks.
    pub operation: Duration,
    /// Between a rank's notes.
    pub pulse: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let long = Duration::from_secs(600);
        Self { meeting: long, operation: long, pulse: Duration::from_secs(1) }
    }
}

/// What the watch does when this rank cannot go on and does not come to notice it.
pub struct Alarm {
    /// Lets go the thread that waits for an operation on CUDA.
    pub aborter: Option<Aborter>,
    /// Is told why when the rank has not left although it had the time of an operation since others were lost: it
    /// hangs. Meant to print the message and end the process.
    pub stuck: Option<Stuck>,
}

/// What is called with the reason.
pub type Stuck = Box<dyn FnOnce(&str) + Send>;

/// Who keeps the notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKeeper {
    /// Where, for messages.
    pub place: String,
    /// Whether rank 0 does; else the launcher.
    pub is_rank_0: bool,
}

/// The notes as this rank knows them.
#[derive(Debug)]
struct Board {
    own: Note,
    /// Of all ranks, by number.
    notes: Vec<Note>,
    /// When each last changed.
    changed: Vec<Instant>,
    /// When the store last answered.
    answered: Instant,
    /// Why it is gone, if it is known to be. The machine of one that only falls silent may be.
    store_lost: Option<String>,
    /// Whose fault this rank's failure is, if another's.
    verdict: Option<String>,
    /// The state that the others can read.
    told: State,
    /// Whether a note is to be written now.
    urgent: bool,
    closing: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// Wakes the threads.
    wake: Condvar,
    /// Wakes those who wait for notes.
    news: Condvar,
    rank: usize,
    keeper: StoreKeeper,
    limits: Limits,
}

/// This rank's note and its view of the others'.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    /// Who writes notes, and who raises the alarm.
    threads: Mutex<Option<[JoinHandle<()>; 2]>>,
}

/// The key of a rank's note.
fn key(rank: usize) -> String {
    format!("note/{rank}")
}

/// Writes this rank's first note. All ranks have to, before one of them watches.
///
/// # Errors
/// When the store does not answer.
pub fn introduce(store: &Store, rank: usize) -> Result<()> {
    store.set(&key(rank), &serde_json::to_vec(&Note { doing: "met the others".into(), ..Note::default() })?)
}

impl Watch {
    /// Begins to tell and to watch, over a connection of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(
        store: Store,
        rank: usize,
        world_size: usize,
        keeper: StoreKeeper,
        limits: Limits,
        alarm: Alarm,
    ) -> Result<Self> {
        // Each rank reads all notes: large jobs do so less often.
        let pulse = limits.pulse.mul_f64(1.0 + world_size as f64 / 128.0);
        let note = Note { doing: "met the others".into(), ..Note::default() };
        let board = Board {
            own: note.clone(),
            notes: vec![note; world_size],
            changed: vec![Instant::now(); world_size],
            answered: Instant::now(),
            store_lost: None,
            verdict: None,
            told: State::Working,
            urgent: false,
            closing: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            board: Mutex::new(board),
            wake: Condvar::new(),
            news: Condvar::new(),
            rank,
            keeper,
            limits: Limits { pulse, ..limits },
        });
        let for_notes = Arc::clone(&shared);
        let for_alarm = Arc::clone(&shared);
        let notes = thread("notes", move || for_notes.exchange_notes(&store))?;
        let alarm = thread("alarm", move || for_alarm.raise_alarm(alarm))?;
        Ok(Self { shared, threads: Mutex::new(Some([notes, alarm])) })
    }

    /// Says what this rank does from now on. All ranks say the same things in the same order.
    pub fn doing(&self, what: impl Into<String>) {
        let mut board = self.shared.lock();
        board.own.progress += 1;
        board.own.doing = what.into();
    }

    /// Says that this rank begins an operation of all: one that has not yet is behind.
    pub fn begins_operation(&self) {
        self.shared.lock().own.progress += 1;
    }

    /// A rank that is lost, if one is known to be, without waiting.
    pub fn loss(&self) -> Option<String> {
        self.shared.loss(&self.shared.lock())
    }

    /// Whether rank 0 cannot speak for itself any more.
    pub fn main_is_lost(&self) -> bool {
        let board = self.shared.lock();
        let silence = SILENT_PULSES * self.shared.limits.pulse;
        let main_keeps_store = self.shared.keeper.is_rank_0;
        (main_keeps_store && board.store_lost.is_some()) || board.changed[0].elapsed() > silence
    }

    /// Finds out whose fault it was that an operation of all ranks failed with `error`. Takes some pulses at most, and
    /// none where the error is of this rank's own making.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let deadline = Instant::now() + INQUIRY_PULSES * self.shared.limits.pulse;
        let reason = format!("{error:#}");
        if !comes_from_others(&reason) {
            return error;
        }
        let mut board = self.shared.lock();
        let verdict = loop {
            let silence = SILENT_PULSES * self.shared.limits.pulse;
            if let Some(culprit) = self.shared.culprit(&board, silence) {
                break culprit;
            }
            let now = Instant::now();
            if now >= deadline {
                let nobody = || format!("an operation failed although all ranks live: {reason}");
                break self.shared.laggard(&board).unwrap_or_else(nobody);
            }
            board = wait(&self.shared.news, board, deadline - now);
        };
        let message = format!("rank {} cannot go on with `{}`: {verdict}", self.shared.rank, board.own.doing);
        board.verdict = Some(verdict);
        failed(message).hint(format!("what this rank noticed: {reason}")).into()
    }

    /// Says good-bye: that this rank has finished, or why it failed. Who keeps the store stays until the others have
    /// read it.
    pub fn leave(&self, failure: Option<&str>) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some([notes, alarm]) = threads else { return };
        let Shared { limits: Limits { pulse, operation, .. }, rank, keeper, .. } = &*self.shared;
        let mut board = self.shared.lock();
        board.own.state = match (failure, board.verdict.take()) {
            (None, _) => State::Finished,
            (Some(_), Some(verdict)) => State::Bereft(verdict),
            (Some(reason), None) => State::Failed(reason.to_owned()),
        };
        board.urgent = true;
        self.shared.wake.notify_all();
        let mut board = self.shared.wait_until(board, 2 * *pulse, |board| board.told == board.own.state);

        if keeper.is_rank_0 && *rank == 0 {
            let patience = if failure.is_none() { *operation } else { INQUIRY_PULSES * *pulse };
            let silence = SILENT_PULSES * *pulse;
            board = self.shared.wait_until(board, patience, |board| {
                let gone = |rank: usize| {
                    board.notes[rank].state != State::Working || board.changed[rank].elapsed() > silence
                };
                (1..board.notes.len()).all(gone)
            });
        }
        board.closing = true;
        self.shared.wake.notify_all();
        // The first thread may hang in a connection to a machine that is gone; then it is left to itself.
        let board = self.shared.wait_until(board, 2 * *pulse, |board| board.closed);
        let closed = board.closed;
        drop(board);
        let _ = alarm.join();
        if closed {
            let _ = notes.join();
        }
    }
}

/// Whether an error speaks of connections and waiting, not of this rank's memory, tensors and so on.
fn comes_from_others(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    let words =
        ["gloo", "nccl", "timed out", "timeout", "connection", "socket", "broken pipe", "recv", "store"];
    words.iter().any(|word| reason.contains(word))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.leave(Some("it ended without a word"));
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    Ok(started.map_err(|reason| failed(format!("cannot start a thread: {reason}")))?)
}

/// What is known stays of use when another thread has panicked.
fn wait<'a>(condvar: &Condvar, board: MutexGuard<'a, Board>, time: Duration) -> MutexGuard<'a, Board> {
    condvar.wait_timeout(board, time).unwrap_or_else(PoisonError::into_inner).0
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for news until `enough` of them, for `time` at most or until the store is lost.
    fn wait_until<'a>(
        &'a self,
        mut board: MutexGuard<'a, Board>,
        time: Duration,
        enough: impl Fn(&Board) -> bool,
    ) -> MutexGuard<'a, Board> {
        let deadline = Instant::now() + time;
        while !enough(&board) && (board.store_lost.is_none() || board.closing) {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            board = wait(&self.news, board, deadline - now);
        }
        board
    }

    /// The thread that writes notes and reads the others'.
    fn exchange_notes(&self, store: &Store) {
        let keys: Vec<String> = (0..self.lock().notes.len()).map(key).collect();
        loop {
            self.exchange(store, &keys);
            let mut board = self.lock();
            if !board.urgent && !board.closing {
                board = wait(&self.wake, board, self.limits.pulse);
            }
            board.urgent = false;
            if board.closing || board.store_lost.is_some() {
                board.closed = true;
                self.news.notify_all();
                return;
            }
        }
    }

    /// The thread that sees to it that this rank ends when others are lost.
    fn raise_alarm(&self, mut alarm: Alarm) {
        let mut lost_since = None;
        loop {
            let board = self.lock();
            if board.closing {
                return;
            }
            if let Some(loss) = self.loss(&board) {
                let doing = board.own.doing.clone();
                drop(board);
                let lost_for = lost_since.get_or_insert_with(Instant::now).elapsed();
                if lost_for > SILENT_PULSES * self.limits.pulse
                    && let Some(aborter) = alarm.aborter.take()
                {
                    // Refused or not: who waited is let go, or is stuck.
                    let _ = aborter.abort();
                }
                if lost_for > self.limits.operation
                    && let Some(stuck) = alarm.stuck.take()
                {
                    stuck(&format!("rank {} hangs in `{doing}`, and {loss}", self.rank));
                }
            } else {
                drop(board);
            }
            let board = self.lock();
            if !board.closing {
                drop(wait(&self.wake, board, self.limits.pulse));
            }
        }
    }

    fn exchange(&self, store: &Store, keys: &[String]) {
        let own = {
            let mut board = self.lock();
            board.own.beat += 1;
            board.own.clone()
        };
        let exchanged = serde_json::to_vec(&own)
            .map_err(anyhow::Error::from)
            .and_then(|note| store.set(&keys[self.rank], &note))
            .and_then(|()| store.get(keys));
        let mut board = self.lock();
        match exchanged {
            Ok(notes) => {
                for (rank, note) in notes.iter().enumerate() {
                    // What cannot be read counts as silence.
                    if let Ok(note) = serde_json::from_slice::<Note>(note)
                        && note != board.notes[rank]
                    {
                        board.notes[rank] = note;
                        board.changed[rank] = Instant::now();
                    }
                }
                board.answered = Instant::now();
                board.told = own.state;
            }
            Err(error) => board.store_lost = Some(format!("{error:#}")),
        }
        self.news.notify_all();
    }

    /// What is lost for certain: nothing that a busy machine could mend.
    fn loss(&self, board: &Board) -> Option<String> {
        self.culprit(board, self.limits.operation)
    }

    /// Whose fault a failure is, when ranks silent for longer than `silence` are dead.
    fn culprit(&self, board: &Board, silence: Duration) -> Option<String> {
        let others = || board.notes.iter().enumerate().filter(|(rank, _)| *rank != self.rank);
        let failed = || {
            others().find_map(|(rank, note)| match &note.state {
                State::Failed(reason) => Some(format!("rank {rank} failed in `{}`: {reason}", note.doing)),
                _ => None,
            })
        };
        let told_by_another = || {
            others().find_map(|(_, note)| match &note.state {
                State::Bereft(verdict) => Some(verdict.clone()),
                _ => None,
            })
        };
        let store = || {
            let quiet = board.answered.elapsed();
            let seconds = Duration::from_secs(quiet.as_secs());
            let quiet = (quiet > silence).then(|| format!("not for {}", humantime::format_duration(seconds)));
            let reason = board.store_lost.clone().or(quiet)?;
            let place = &self.keeper.place;
            Some(if self.keeper.is_rank_0 {
                let doing = &board.notes[0].doing;
                format!("rank 0 no longer answers at {place} ({reason}); what it last did: `{doing}`")
            } else {
                format!("the launcher no longer answers at {place} ({reason})")
            })
        };
        let silent = || {
            others().find_map(|(rank, note)| {
                let silent = note.state == State::Working && board.changed[rank].elapsed() > silence;
                silent.then(|| format!("rank {rank} no longer answers; what it last did: `{}`", note.doing))
            })
        };
        // Without the store nobody is heard: silence says nothing then.
        failed().or_else(told_by_another).or_else(store).or_else(silent)
    }

    /// Who is alive but has not come as far as this rank, or has gone already.
    fn laggard(&self, board: &Board) -> Option<String> {
        let behind = board.notes.iter().enumerate().filter(|(rank, note)| {
            *rank != self.rank && note.state == State::Working && note.progress < board.own.progress
        });
        let last = behind.min_by_key(|(_, note)| note.progress);
        let gone = || board.notes.iter().enumerate().find(|(_, note)| note.state == State::Finished);
        match last {
            Some((rank, note)) => Some(format!("rank {rank} does not come; it still does `{}`", note.doing)),
            None => gone().map(|(rank, note)| format!("rank {rank} has finished with `{}`", note.doing)),
        }
    }
}

/// Which of `ranks` has not come, for a message.
pub fn missing(ranks: &[usize], world_size: usize, time: Duration) -> Problem {
    let names: Vec<String> = ranks.iter().take(8).map(ToString::to_string).collect();
    let more = if ranks.len() > 8 { ", …" } else { "" };
    let who = if ranks.len() == 1 { "rank" } else { "ranks" };
    failed(format!(
        "{who} {}{more} of {world_size} did not come within {}",
        names.join(", "),
        humantime::format_duration(time)
    ))
}
