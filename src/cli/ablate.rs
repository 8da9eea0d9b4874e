//! `senet ablate`.

use super::args::{AblateArgs, ControlRow};
use super::commands::{RUNS, with_flags};
use super::output::{Console, note, print, print_json};
use super::ranks;
use super::signals;
use crate::dist::launch::{self, Launch};
use crate::engine::{StopFlag, ablate};
use crate::error::{Result, failed, usage};
use crate::experiment::axis::Axis;
use crate::experiment::paper;
use crate::experiment::request::{Control, Request, Seeds, Word};
use crate::experiment::sweep::Sweep;
use crate::process;
use crate::report::comparison::Results;
use crate::rng::fnv1a;
use crate::run::LogSpec;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, thread};

/// Set for the further processes of `--jobs`, which end when their standard input does: the number of each, from 1.
const HELPER: &str = "SENET_ABLATE_HELPER";

pub(super) fn ablate(args: &AblateArgs) -> Result<u8> {
    let mut sweep = sweep(args)?;
    for what in &sweep.left_out {
        note(&format!("warning: left out: {what}"));
    }
    if args.dry_run {
        return show(&ablate::plan(&sweep)?, args.output.json).map(|()| 0);
    }
    let stop = signals::stop_flag();
    let dir = match &args.out {
        Some(dir) => dir.clone(),
        None => default_dir(&sweep)?,
    };
    let worker = Worker::find()?;
    let is_helper = worker.is_helper;
    worker.take_device(&mut sweep);
    if worker.is_started_here {
        stop_with_input(&stop)?;
    }
    let _helpers = if is_helper { Helpers(Vec::new()) } else { start_helpers(args.jobs)? };
    let cores = tch::get_num_threads();
    if args.jobs > 1 {
        tch::set_num_threads((cores / args.jobs as i32).max(1));
    }
    let mut console = Console::new(args.output.quiet || is_helper);
    if !args.output.quiet && !is_helper {
        let (rows, runs) = (sweep.rows.len(), sweep.order().len());
        note(&format!("comparison by {}: {rows} rows, {runs} runs, {}", sweep.title(), dir.display()));
    }
    let mut outcome = ablate::run(&sweep, &dir, &mut console, &stop)?;
    if args.speed && !is_helper && matches!(outcome, ablate::Outcome::Finished(_)) {
        tch::set_num_threads(cores);
        outcome = ablate::measure_speed(&sweep, &dir, &mut console, &stop)?;
    }
    drop(console);
    match outcome {
        _ if is_helper => Ok(0),
        ablate::Outcome::Finished(results) => {
            show(&results, args.output.json)?;
            if !args.output.quiet {
                note(&format!("tables and plots: {}", dir.join("results.html").display()));
            }
            every_run_is_done(&results)
        }
        ablate::Outcome::Interrupted(results) => {
            show(&results, args.output.json)?;
            note("interrupted: what is done is saved\n\nhint: the same command goes on");
            Ok(signals::code())
        }
    }
}

/// This process among those that share the runs of a comparison: they take them from its folder, one by one.
struct Worker {
    /// Number on this machine, from 0.
    number: usize,
    /// Whether another prints and makes the tables.
    is_helper: bool,
    /// Whether it ends with the process that started it.
    is_started_here: bool,
}

impl Worker {
    /// A helper of `--jobs`, one of those that a launcher started, or the only one.
    fn find() -> Result<Self> {
        let number = env::var(HELPER).ok().and_then(|number| number.parse().ok());
        if let Some(number) = number {
            return Ok(Self { number, is_helper: true, is_started_here: true });
        }
        Ok(match launch::find(&ranks::environment())? {
            Some(Launch { rank, local_rank, .. }) => {
                Self { number: local_rank.unwrap_or(rank), is_helper: rank > 0, is_started_here: false }
            }
            None => Self { number: 0, is_helper: false, is_started_here: false },
        })
    }

    /// Gives each worker of a machine a GPU of its own, as far as there are any, unless the user has named one.
    fn take_device(&self, sweep: &mut Sweep) {
        let Some(device) = device_of(&sweep.base.device, self.number, tch::Cuda::device_count()) else {
            return;
        };
        sweep.rows.iter_mut().for_each(|row| row.experiment.device.clone_from(&device));
        sweep.base.device = device;
    }
}

fn device_of(name: &str, worker: usize, gpus: i64) -> Option<String> {
    let is_free = ["auto", "cuda"].contains(&name) && gpus > 1;
    is_free.then(|| format!("cuda:{}", worker as i64 % gpus))
}

/// What the file and the flags ask for.
fn sweep(args: &AblateArgs) -> Result<Sweep> {
    let file = match &args.experiment.config {
        Some(path) => Request::read(path)?.map(|request| (request, path)),
        None => None,
    };
    let is_sweep = file.is_some();
    let (mut request, origin) =
        file.map_or_else(|| (Request::default(), Path::new("")), |(request, path)| (request, path.as_path()));
    let flags = [
        (Axis::Variants, &args.variants),
        (Axis::Squeeze, &args.squeeze),
        (Axis::Gate, &args.gate),
        (Axis::Stages, &args.stages),
        (Axis::Placement, &args.placement),
    ];
    let ratios = args.ratios.iter().map(|ratio| Word::Number(*ratio)).collect();
    let named = flags.map(|(axis, words)| (axis, words.iter().cloned().map(Word::Text).collect::<Vec<_>>()));
    for (axis, words) in named.into_iter().chain([(Axis::Ratios, ratios)]) {
        if !words.is_empty() {
            *request.axes.of(axis) = Some(words);
        }
    }
    if !args.table.is_empty() {
        request.tables = tables(&args.table)?;
    }
    request.seeds = args.seeds.map(Seeds::Count).or(request.seeds);
    request.control = match args.control {
        Some(ControlRow::None) => Some(Control::None),
        Some(ControlRow::Se) => Some(Control::Se),
        None => request.control,
    };

    let mut layers = request.layers(origin);
    if let (Some(path), false) = (&args.experiment.config, is_sweep) {
        layers.file(path)?;
    }
    request.expand(&with_flags(layers, &args.experiment)?)
}

fn tables(words: &[String]) -> Result<Vec<u32>> {
    if words == ["all"] {
        return Ok(paper::TABLES.map(|table| table.number).to_vec());
    }
    let number = |word: &String| {
        word.parse().map_err(|_| {
            usage(format!("`--table` holds `{word}`, but a table is a number"))
                .hint("the paper's ablations are Tables 10 to 16; `all` is all of them")
                .into()
        })
    };
    words.iter().map(number).collect()
}

/// The same settings have the same folder, so that the same command goes on; seeds, and what is compared, may differ.
fn default_dir(sweep: &Sweep) -> Result<PathBuf> {
    let mut base = sweep.base.clone();
    (base.seed, base.threads, base.log) = (0, None, LogSpec::default());
    let hash = fnv1a(serde_json::to_string(&base)?.as_bytes()) as u32;
    Ok(Path::new(RUNS).join(format!("ablate-{}-{hash:08x}", base.model.name)))
}

fn show(results: &Results, json: bool) -> Result<()> {
    if json { print_json(results) } else { print(&results.text()) }
}

/// Runs that failed make the command fail, after everything else is done.
fn every_run_is_done(results: &Results) -> Result<u8> {
    let failures = results.failures();
    let Some((label, seed, message)) = failures.first() else { return Ok(0) };
    let of = results.rows.len() * results.seeds.len();
    let message =
        format!("{} of {of} runs failed; the first, {label} with seed {seed}: {message}", failures.len());
    Err(failed(message).hint("the same command tries them again; the other rows are done").into())
}

/// The same command once more for each further job. They take runs as this process does, and end when it does. They say
/// nothing: what stops one of them stops this process as well, and a run that fails there is noted in its folder.
fn start_helpers(jobs: u32) -> Result<Helpers> {
    let program = env::current_exe()?;
    let start = |number: u32| {
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).env(HELPER, number.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let mut helpers = Helpers(Vec::new());
    for number in 1..jobs {
        helpers.0.push(start(number).map_err(|reason| {
            failed(format!("cannot start process {number} of `--jobs`: {reason}"))
                .hint("lower `--jobs`, or raise the limit of processes (`ulimit -u`, the container's)")
        })?);
    }
    Ok(helpers)
}

/// Further processes of this command. They are asked to stop when this is dropped, and waited for: whoever has started
/// the command may end all of its processes as soon as it has ended.
struct Helpers(Vec<Child>);

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|helper| drop(helper.stdin.take()));
        self.0.iter_mut().for_each(|helper| drop(helper.wait()));
    }
}

/// Asks to stop when standard input ends, which is when the process that holds its other end does.
fn stop_with_input(stop: &StopFlag) -> Result<()> {
    let stop = stop.clone();
    let thread = thread::Builder::new().name("input".into()).spawn(move || {
        let mut nothing = [0; 64];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        stop.set();
    });
    thread.map(drop).map_err(|error| process::thread_refused(&error).into())
}

#[cfg(test)]
mod tests {
    use super::device_of;

    #[test]
    fn workers_take_gpus_in_turn_unless_one_is_named() {
        let of = |name, gpus| [0, 1, 2].map(|worker| device_of(name, worker, gpus));
        assert_eq!(of("auto", 2), ["cuda:0", "cuda:1", "cuda:0"].map(|name| Some(name.to_string())));
        for (name, gpus) in [("auto", 0), ("auto", 1), ("cpu", 2), ("cuda:1", 2)] {
            assert_eq!(of(name, gpus), [None, None, None], "{name}, {gpus}");
        }
    }
}
