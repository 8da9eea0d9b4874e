//! Starts the processes of a job on this machine, where no other launcher is at hand: the program itself, once for
//! each rank, with torchrun's variables. The launcher keeps the store where they meet, so no port has to be chosen and
//! a rank that dies takes nothing along that the others need.
//!
//! No process is left behind: one that fails takes the others along, and each ends by itself when the launcher is gone
//! (its standard input, a pipe from the launcher, ends then).

use super::launch::SPAWNED;
use super::store::{TOKEN, Token};
use crate::error::{Problem, Result, failed};
use crate::files;
use crate::torch_ext::dist::{Keeper, Store};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Between looks at the children.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes at the end of a log among which a rank's last words are.
const LAST_WORDS: u64 = 4096;

/// Processes to be started.
#[derive(Debug)]
pub struct Job<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its words, the same for each.
    pub arguments: &'a [OsString],
    /// Variables beside the launcher's.
    pub variables: &'a [(OsString, OsString)],
    /// How many.
    pub processes: usize,
    /// Folder for what ranks other than 0 print: `rank-1.log` and so on. It is made.
    pub logs: &'a Path,
    /// Exit codes of a process that was asked to stop and did: the others are asked, too, and may take their time.
    pub asked: &'a [i32],
    /// Time that the others have to end by themselves when one has failed. Half of it they are left alone, to say why;
    /// then they are asked to stop.
    pub patience: Duration,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code of the first process that failed, as a shell has it (128 and the signal), or 0.
    pub code: i32,
    /// What is to be told, when one failed whose output nobody has seen.
    pub failure: Option<Problem>,
}

/// The processes, killed when the job is given up.
struct Children {
    running: Vec<Running>,
}

struct Running {
    rank: usize,
    child: Child,
    /// Ends when we do.
    _lifeline: Option<ChildStdin>,
}

impl Drop for Children {
    fn drop(&mut self) {
        for Running { child, .. } in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Children {
    /// Those that have ended since the last look.
    fn ended(&mut self) -> Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for Running { rank, child, .. } in &mut self.running {
            let looked = child.try_wait();
            if let Some(status) =
                looked.map_err(|reason| failed(format!("cannot watch rank {rank}: {reason}")))?
            {
                ended.push((*rank, status));
            }
        }
        self.running.retain(|running| !ended.iter().any(|(rank, _)| *rank == running.rank));
        Ok(ended)
    }

    fn signal(&self, signal: Signal) {
        for Running { child, .. } in &self.running {
            // It may be ending this moment.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

/// Runs a job to its end. SIGINT, SIGTERM, SIGUSR1 and SIGHUP are passed on to all of its processes.
///
/// # Errors
/// When processes cannot be started, or their logs not be written.
pub fn run(job: &Job) -> Result<Ended> {
    // Before there are children: a signal that comes early is theirs, too.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(|reason| failed(format!("cannot listen to signals: {reason}")))?;
    files::create_dir(job.logs)?;
    // Its own connection is not used; a port that is in use cannot be chosen.
    let store = Store::open("127.0.0.1", 0, Keeper::Us, Duration::from_secs(60), "launcher/")?;
    let token = Token::random()?;
    let mut children = Children { running: Vec::with_capacity(job.processes) };
    for rank in 0..job.processes {
        children.running.push(start(job, rank, store.port(), &token)?);
    }

    let mut first: Option<(usize, ExitStatus)> = None;
    // Whether rank 0, whose output is seen, has said why the job failed.
    let mut is_told = false;
    let mut asked = None;
    let mut killed = None;
    while !children.running.is_empty() {
        for signal in signals.pending() {
            children.signal(match signal {
                SIGINT => Signal::INT,
                SIGUSR1 => Signal::USR1,
                SIGHUP => Signal::HUP,
                _ => Signal::TERM,
            });
        }
        for (rank, status) in children.ended()? {
            is_told |= rank == 0 && status.code().is_some_and(|code| code != 0);
            if !status.success() && first.is_none() {
                first = Some((rank, status));
                if !job.asked.contains(&code(status)) {
                    asked = Some(Instant::now() + job.patience / 2);
                    killed = Some(Instant::now() + job.patience);
                }
            }
        }
        if asked.is_some_and(|time| time <= Instant::now()) {
            children.signal(Signal::TERM);
            asked = None;
        }
        if killed.is_some_and(|time| time <= Instant::now()) {
            children.signal(Signal::KILL);
            killed = None;
        }
        std::thread::sleep(LOOK);
    }
    let Some((rank, status)) = first else { return Ok(Ended { code: 0, failure: None }) };
    let code = code(status);
    let is_silent = is_told || job.asked.contains(&code);
    let failure = (!is_silent || status.signal().is_some()).then(|| told(job, rank, status));
    Ok(Ended { code, failure })
}

fn log_of(job: &Job, rank: usize) -> PathBuf {
    job.logs.join(format!("rank-{rank}.log"))
}

fn start(job: &Job, rank: usize, port: u16, token: &Token) -> Result<Running> {
    let mut command = Command::new(job.program);
    command.args(job.arguments).envs(job.variables.iter().map(|(name, value)| (name, value)));
    let numbers = [("RANK", rank), ("LOCAL_RANK", rank)];
    let sizes = [("WORLD_SIZE", job.processes), ("LOCAL_WORLD_SIZE", job.processes)];
    command.envs(numbers.into_iter().chain(sizes).map(|(name, value)| (name, value.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("TORCHELASTIC_USE_AGENT_STORE", "True");
    command.env(SPAWNED, "1").env(TOKEN, token.text());
    // A group of its own: Ctrl-C would reach the child twice, from the terminal and from us.
    command.stdin(Stdio::piped()).process_group(0);
    if rank > 0 {
        let path = log_of(job, rank);
        let log = File::create(&path).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) =
            log.map_err(|reason| failed(format!("cannot write {}: {reason}", path.display())))?;
        command.stdout(out).stderr(err);
    }
    let mut child = command.spawn().map_err(|reason| {
        failed(format!("cannot start {} as rank {rank}: {reason}", job.program.display()))
    })?;
    let lifeline = child.stdin.take();
    Ok(Running { rank, child, _lifeline: lifeline })
}

/// A shell's exit code.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// What to say of a rank that failed.
fn told(job: &Job, rank: usize, status: ExitStatus) -> Problem {
    let how = match status.signal() {
        Some(signal) => format!("was killed by signal {signal}"),
        None => format!("ended with exit code {}", code(status)),
    };
    if rank == 0 {
        return failed(format!("rank 0 {how}"));
    }
    let log = log_of(job, rank);
    let problem = failed(match last_words(&log) {
        Some(words) => format!("rank {rank} {how}; its last words: {words}"),
        None => format!("rank {rank} {how}"),
    });
    problem.hint(format!("all that it said is in {}", log.display()))
}

/// The last error in a log, else its last line that says something: hints stand behind what they are for.
fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS))).ok()?;
    let mut end = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let last = |wanted: fn(&str) -> bool| text.lines().rev().map(str::trim).find(|line| wanted(line));
    last(|line| line.starts_with("error: ")).or_else(|| last(|line| !line.is_empty())).map(str::to_owned)
}

/// Has `end` called when the launcher that started this process is gone, however it went. For a process whose launch
/// is [`Launcher::Senet`](super::launch::Launcher::Senet); its standard input is the launcher's.
///
/// # Errors
/// When there is no thread to be had.
pub fn end_with_launcher(end: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name("lifeline".into()).spawn(|| {
        // Nothing is ever sent: it ends, or fails, which is the same.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        end();
    });
    thread.map_err(|reason| failed(format!("cannot start a thread: {reason}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn last_words_are_the_last_error_or_line_of_whatever_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("rank-1.log");
        assert_eq!(last_words(&log), None);
        for (text, words) in [
            (Vec::new(), None),
            (b"\n \n".to_vec(), None),
            (b"one\n two \n\n".to_vec(), Some("two")),
            (b"error: no GPU\n\nhint: start fewer\n".to_vec(), Some("error: no GPU")),
            ([b"x".repeat(100_000), b"\nend".to_vec()].concat(), Some("end")),
        ] {
            std::fs::write(&log, text).unwrap();
            assert_eq!(last_words(&log).as_deref(), words);
        }
    }
}
