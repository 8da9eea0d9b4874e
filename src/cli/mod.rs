//! From words to work: parse, put the experiment together, call an engine, print what it returns.

mod ablate;
pub mod args;
mod bench;
mod commands;
pub mod config;
pub mod data;
mod inspect;
pub mod loading;
mod output;
mod ranks;
mod report;
mod signals;
mod train;
mod weights;

use crate::error::{LESS_MEMORY, Result, means_out_of_memory};
use crate::process;
use crate::torch_ext::hold_stop_signals;
use args::{AblateArgs, Cli, Command, InspectArgs, InspectWhat};
use clap::Parser;
use std::panic;

/// Exit code of a run that a person asked to stop (Ctrl-C) and that has saved itself.
const INTERRUPTED: u8 = 130;

/// Exit code of a process that a person ended at once, by a second Ctrl-C: what came after the last checkpoint is lost.
const ABANDONED: u8 = 3;

/// Exit code of a run that its machine asked to stop (SIGTERM, SIGHUP, or SIGUSR1, a scheduler's warning) and that has saved
/// itself: the same command with `--resume auto` goes on. `EX_TEMPFAIL` of sysexits.h.
const REQUEUE: u8 = 75;

/// Runs the command line of this process and returns its exit code: 0 done, 1 failed, 2 wrong usage or
/// configuration, 130 interrupted, 75 asked to stop by the machine (both after saving), 3 abandoned by a second Ctrl-C.
/// `large_blocks_kept` is for `doctor`.
pub fn run(large_blocks_kept: bool) -> u8 {
    // Until somebody listens; a signal that comes before would end a run without a word or a code of ours.
    hold_stop_signals(true);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, mistakes to stderr with code 2.
            let _ = error.print();
            return error.exit_code() as u8;
        }
    };
    if matches!(
        cli.command,
        Command::Train(_)
            | Command::Eval(_)
            | Command::Ablate(AblateArgs { dry_run: false, .. })
            | Command::Inspect(_)
            | Command::Predict(_)
            | Command::Bench(_)
            | Command::Data(_)
    ) {
        process::settle_waiting();
    }
    if let Err(error) = signals::listen() {
        return output::report(&error);
    }
    if hold_stop_signals(false) {
        signals::await_first();
    }
    process::settle_threads();
    if !matches!(cli.command, Command::Train(_) | Command::Ablate(AblateArgs { dry_run: false, .. })) {
        signals::restore_default();
    }
    process::survive_file_size_limit();
    panic::set_hook(Box::new(|panic| {
        output::note(&panic_in_words(&panic.to_string()));
    }));
    match panic::catch_unwind(|| dispatch(cli, large_blocks_kept)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => output::report(&error),
        Err(_) => 1,
    }
}

/// What a panic's message means: limits of the system that a library takes for impossible, or a bug.
fn panic_in_words(message: &str) -> String {
    let first_lines = message.lines().take(2).collect::<Vec<_>>().join(" ");
    if means_out_of_memory(message) {
        return format!("error: out of memory\n\nhint: {LESS_MEMORY}");
    }
    if message.contains("failed to spawn thread") {
        let problem = process::thread_refused(&std::io::ErrorKind::WouldBlock.into());
        return format!("error: {problem}\n\nhint: {}", problem.hint.as_deref().unwrap_or_default());
    }
    format!("error: internal error: {first_lines}\n\nhint: this is a bug; please report it")
}

fn dispatch(cli: Cli, large_blocks_kept: bool) -> Result<u8> {
    match cli.command {
        Command::Train(args) => train::train(&args),
        Command::Eval(args) => commands::eval(&args),
        Command::Ablate(args) => ablate::ablate(&args),
        Command::Report(args) => report::report(&args),
        Command::Inspect(InspectArgs { what: InspectWhat::Excitation(args) }) => inspect::excitation(&args),
        Command::Predict(args) => weights::predict(&args),
        Command::Import(args) => weights::import(&args),
        Command::Export(args) => weights::export(&args),
        Command::Summary(args) => commands::summary(&args),
        Command::Data(args) => data::data(&args),
        Command::Config(args) => config::config(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Doctor(args) => commands::doctor(&args, large_blocks_kept),
        Command::Completions { shell } => commands::completions(shell),
    }
}

#[cfg(test)]
mod tests {
    use super::panic_in_words;

    #[test]
    fn limits_of_the_system_are_no_bugs() {
        let of_tch = "panicked at scalar.rs:58:9:\ncalled `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at \
                      alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 2359296 \
                      bytes\")";
        assert!(panic_in_words(of_tch).starts_with("error: out of memory\n\nhint: lower the batch size"));
        let of_std =
            "panicked at thread/mod.rs:1:1:\nfailed to spawn thread: Os { code: 11, kind: WouldBlock }";
        assert!(panic_in_words(of_std).starts_with("error: cannot start a thread: "));
        let ours = "panicked at src/x.rs:1:2:\nindex out of bounds\nmore";
        assert_eq!(
            panic_in_words(ours),
            "error: internal error: panicked at src/x.rs:1:2: index out of bounds\n\nhint: this is a bug; please report it"
        );
    }
}
