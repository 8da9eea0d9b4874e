//! Signals that ask this process to stop. Each of them lets a run save itself, however many come: launchers, schedulers
//! and service managers send them more than once, to the launcher, to its processes, or to all of them. Only a person
//! who presses Ctrl-C again within a few seconds ends the process without a save.

use super::{ABANDONED, INTERRUPTED, REQUEUE};
use crate::engine::StopFlag;
use crate::error::{Result, failed};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::low_level;
use std::io::IsTerminal;
use std::os::unix::process::parent_id;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// A second Ctrl-C counts as one within this time after the first. `timeout` and the like send a signal twice at once,
/// which no finger does.
const AGAIN: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);

static RECEIVED: OnceLock<Received> = OnceLock::new();

/// What has come so far, and what is done about it.
#[derive(Default)]
struct Received {
    stop: StopFlag,
    by_machine: AtomicBool,
    mode: AtomicU8,
}

/// The process saves and ends by itself.
const SAVE: u8 = 0;
/// It passes signals on to others, and ends when they do.
const RELAY: u8 = 1;
/// The system's default: the process ends.
const DEFAULT: u8 = 2;

fn received() -> &'static Received {
    RECEIVED.get_or_init(Received::default)
}

/// Listens from now on; signals that come before anybody asks for the [`stop_flag`] are remembered.
///
/// # Errors
/// When handlers cannot be installed or there is no thread to be had.
pub(super) fn listen() -> Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
    // `nohup` is a user's word that the terminal may go.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let refused = |reason: std::io::Error| failed(format!("cannot listen to signals: {reason}"));
    let mut signals = SignalsInfo::<WithOrigin>::new(wanted).map_err(refused)?;
    let mut interrupts = Interrupts::default();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            receive(&origin, &mut interrupts);
        }
    });
    thread.map_err(refused)?;
    Ok(())
}

fn receive(origin: &Origin, interrupts: &mut Interrupts) {
    let received = received();
    let mode = received.mode.load(Ordering::SeqCst);
    received.by_machine.fetch_or(origin.signal != SIGINT, Ordering::SeqCst);
    received.stop.set();
    if mode == DEFAULT {
        let _ = low_level::emulate_default_handler(origin.signal);
    } else if mode == SAVE && origin.signal == SIGINT {
        // A launcher passes on what the terminal has sent to its processes already.
        let relayed = origin.process.is_some_and(|sender| sender.pid as u32 == parent_id());
        if interrupts.is_again(relayed, Instant::now()) {
            low_level::exit(i32::from(ABANDONED));
        }
        if std::io::stderr().is_terminal() {
            super::output::note("stopping after this step; Ctrl-C again ends at once, without saving");
        }
    }
}

/// When Ctrl-C was pressed first, as seen by way of the terminal and by way of the parent.
#[derive(Default)]
struct Interrupts {
    first: [Option<Instant>; 2],
}

impl Interrupts {
    /// Whether this one, at `now`, is the second press.
    fn is_again(&mut self, relayed: bool, now: Instant) -> bool {
        let first = &mut self.first[usize::from(relayed)];
        match first.map(|first| now.saturating_duration_since(first)) {
            Some(since) if since < AGAIN.end => AGAIN.contains(&since),
            _ => {
                *first = Some(now);
                false
            }
        }
    }
}

/// Waits until a signal that was let come has set the flag: from here on each command looks at it.
pub(super) fn await_first() {
    let start = Instant::now();
    while !received().stop.is_set() && start.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The flag that a signal sets, or has set. From now on signals let this process save itself.
pub(super) fn stop_flag() -> StopFlag {
    received().mode.store(SAVE, Ordering::SeqCst);
    received().stop.clone()
}

/// Whether it was the machine that asked to stop, be it beside a person.
pub(super) fn by_machine() -> bool {
    received().by_machine.load(Ordering::SeqCst)
}

/// The exit code of a process that was asked to stop and has saved itself.
pub(super) fn code() -> u8 {
    if by_machine() { REQUEUE } else { INTERRUPTED }
}

/// This process starts others and passes signals on to them. Returns the exit code if it was asked to stop before.
pub(super) fn relay() -> Option<u8> {
    received().mode.store(RELAY, Ordering::SeqCst);
    received().stop.is_set().then(code)
}

/// Signals end this process, which has nothing to save.
pub(super) fn restore_default() {
    received().mode.store(DEFAULT, Ordering::SeqCst);
    if received().stop.is_set() {
        let _ = low_level::emulate_default_handler(if by_machine() { SIGTERM } else { SIGINT });
    }
}

/// Whether this process was started with `signal` ignored, as far as the system says.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_press_within_seconds_is_one() {
        let mut interrupts = Interrupts::default();
        let start = Instant::now();
        let mut press = |milliseconds: u64, relayed: bool| {
            interrupts.is_again(relayed, start + Duration::from_millis(milliseconds))
        };
        assert!(!press(0, false), "the first");
        assert!(!press(1, false), "sent twice at once");
        assert!(!press(300, true), "the first, passed on");
        assert!(!press(6000, false), "long after");
        assert!(press(6300, false), "pressed again");
        assert!(!press(9000, true) && press(9500, true), "pressed again, both passed on");
    }
}
