//! The processes of one training job: started here (`--nproc`), or found to be there; joined, and left.

use super::args::RankArgs;
use super::output::{Console, report};
use super::{ABANDONED, INTERRUPTED, REQUEUE, signals};
use crate::dist::collective::Collective;
use crate::dist::launch::{self, Environment, Launch, Launcher};
use crate::dist::spawn::{self, Job};
use crate::dist::watch::Limits;
use crate::error::{Result, failed, usage};
use crate::experiment::device_of_rank;
use crate::files;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Time that the processes of `--nproc` have to end by themselves when one of them has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Signs of life within a time limit, at least.
const PULSES: u32 = 20;

/// What this process is to do.
pub(super) enum Role {
    /// To start so many others, and to wait for them.
    Starter(usize),
    /// To work, as one of several or by itself.
    Worker(Option<Launch>),
}

impl Role {
    /// By what the environment and the words say.
    ///
    /// # Errors
    /// When they contradict each other or themselves.
    pub(super) fn find(args: &RankArgs) -> Result<Self> {
        let environment = environment();
        let launch = launch::find(&environment)?;
        let is_ours = launch.as_ref().is_some_and(|launch| launch.launcher == Launcher::Senet);
        match (args.nproc, launch) {
            // A shell in a job step of one task is no launch: `srun --pty bash` leaves it to the user.
            (Some(_), Some(launch)) if !is_ours && launch.world_size > 1 => {
                let message = format!("`--nproc` starts processes, but this one is {launch} already");
                Err(usage(message).hint("leave `--nproc` out under a launcher").into())
            }
            (Some(processes), _) if !is_ours && processes > 1 => Ok(Self::Starter(processes as usize)),
            (_, launch) => {
                if launch.is_none()
                    && let Some(word) = launch::forgotten_srun(&environment)
                {
                    super::output::note(&format!("warning: {word}"));
                }
                Ok(Self::Worker(launch))
            }
        }
    }
}

/// The variables of this process, but for those that are no text.
pub(super) fn environment() -> Environment {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    env::vars_os().filter_map(text).collect()
}

/// Starts this command `processes` times and waits for them all; returns the exit code.
///
/// # Errors
/// When processes cannot be started.
pub(super) fn start(processes: usize) -> Result<u8> {
    if let Some(code) = signals::relay() {
        return Ok(code);
    }
    // What other ranks than the first say before there is a run to say it in.
    // In a folder that only this user can enter and whose name nobody can know beforehand.
    let logs = tempfile::Builder::new().prefix("senet-ranks-").tempdir().map_err(|reason| {
        failed(format!("cannot create a folder in {}: {reason}", env::temp_dir().display()))
            .hint("set TMPDIR to a folder that can be written")
    })?;
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let job = Job {
        program: &env::current_exe()?,
        arguments: &arguments,
        variables: &[],
        processes,
        logs: logs.path(),
        asked: &[i32::from(INTERRUPTED), i32::from(REQUEUE)],
        patience: PATIENCE,
    };
    let ended = spawn::run(&job)?;
    match ended.failure {
        // A second Ctrl-C was passed on to all.
        Some(_) if ended.code == i32::from(ABANDONED) => {}
        Some(failure) => {
            // The failure names a log in it.
            let _ = logs.keep();
            report(&failure.into());
        }
        // They are of use to nobody: what a run says is in its folder.
        None => {}
    }
    Ok(u8::try_from(ended.code).unwrap_or(1))
}

/// Meets the other processes of the job.
///
/// # Errors
/// When they do not come or do not fit together, or there is no device for this one.
pub(super) fn join(launch: Option<&Launch>, args: &RankArgs, device: &str) -> Result<Collective> {
    let Some(launch) = launch.filter(|launch| launch.world_size > 1) else { return Ok(Collective::Alone) };
    if launch.launcher == Launcher::Senet {
        spawn::end_with_launcher(|| signal_hook::low_level::exit(1))?;
    }
    let device = device_of_rank(device, launch.local_rank.unwrap_or(launch.rank))?;
    let time = Duration::from_secs(args.rank_timeout);
    let pulse = Limits::default().pulse.min(time / PULSES);
    let limits = Limits { meeting: time, operation: time, pulse };
    Collective::join(Some(launch), device, limits, |message| {
        report(&failed(message.to_string()).into());
        signal_hook::low_level::exit(1)
    })
}

/// Says good-bye with what came out. A failure is told once for all: by rank 0, or by the first of the others where rank 0
/// is lost; the rest note it in their logs.
///
/// # Errors
/// What came out, where this process has to tell it.
pub(super) fn leave(
    collective: Collective,
    launch: Option<&Launch>,
    log: &Option<File>,
    came_out: Result<u8>,
) -> Result<u8> {
    let speaks = collective.is_main() || collective.speaks_for_main();
    // Its output is a file that the starter reads.
    let is_heard = launch.is_some_and(|launch| launch.launcher == Launcher::Senet);
    let failure = came_out.as_ref().err().map(|error| format!("{error:#}"));
    collective.leave(failure.as_deref());
    match came_out {
        Err(error) if !speaks => {
            if let Some(log) = log {
                Console::to_file(log)?.note(&format!("error: {error:#}"));
            }
            if is_heard {
                return Err(error);
            }
            Ok(super::output::code(&error))
        }
        came_out => came_out,
    }
}

/// The log of a rank that prints nothing, in the folder of its run; nothing where that cannot be written, as on a machine
/// that does not have it.
pub(super) fn log(run: &Path, rank: usize) -> Option<File> {
    let folder = run.join("ranks");
    files::create_dir(&folder).ok()?;
    File::options().create(true).append(true).open(folder.join(format!("rank-{rank}.log"))).ok()
}
