//! `senet train`: which run is started or resumed, in which folder, and how it ends.

use super::args::{ExperimentArgs, TrainArgs};
use super::commands::{RUNS, experiment, merge, open_run};
use super::output::{Console, evaluation_lines, note, print, print_json};
use super::ranks::{self, Role};
use super::{INTERRUPTED, REQUEUE, signals};
use crate::dist::collective::Collective;
use crate::engine::setup::{Setup, recipe_hash};
use crate::engine::{Context, StopFlag, splits, train};
use crate::error::{Result, failed, usage};
use crate::escaped::shown;
use crate::experiment::Experiment;
use crate::experiment::diff::{Difference, differences, listed};
use crate::run::{LogSpec, Provenance, RunDir, RunLock, location};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// What the words ask to train.
fn asked(args: &TrainArgs) -> Result<Experiment> {
    let mut experiment = experiment(&args.experiment)?;
    experiment.log.tensorboard |= args.tensorboard;
    Ok(experiment)
}

/// How a run comes about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way<'a> {
    /// It is a new one.
    Begin,
    /// It was begun, here or in the newest folder.
    GoOn(Option<&'a Path>),
    /// The one in `--out` if it was begun, else a new one: a job that is started again and again with the same words.
    Auto,
}

impl<'a> Way<'a> {
    fn of(args: &'a TrainArgs) -> Self {
        match &args.resume {
            None => Self::Begin,
            Some(Some(auto)) if auto.as_os_str() == "auto" => Self::Auto,
            Some(path) => Self::GoOn(path.as_deref()),
        }
    }
}

/// A run to train, as rank 0 finds it.
#[derive(Serialize, Deserialize)]
struct Found {
    experiment: Experiment,
    /// The folder of a run that was begun.
    run: Option<PathBuf>,
    /// Whether it has a checkpoint.
    resume: bool,
}

impl Found {
    fn of(args: &TrainArgs, asked: Option<&Experiment>) -> Result<Self> {
        let new = |asked: Option<&Experiment>| {
            let experiment = asked.expect("whoever begins a run asks for something").clone();
            Self { experiment, run: None, resume: false }
        };
        match Way::of(args) {
            Way::Begin => Ok(new(asked)),
            Way::GoOn(path) => Self::begun(args, &open_run(path)?),
            Way::Auto => {
                let Some(path) = &args.out else {
                    let message =
                        "`--resume auto` needs `--out RUN`: the folder that says whether the run was begun";
                    return Err(usage(message)
                        .hint("senet train CONFIG --out runs/first --resume auto")
                        .into());
                };
                if RunDir::is_vacant(path) { Ok(new(asked)) } else { Self::begun(args, &RunDir::open(path)?) }
            }
        }
    }

    /// An earlier run, as it was configured.
    fn begun(args: &TrainArgs, run: &RunDir) -> Result<Self> {
        let mut experiment = run.experiment()?;
        // Where the run goes on, and what it logs, is no part of what it computes.
        experiment.device = args.experiment.device.clone().unwrap_or(experiment.device);
        experiment.threads = args.experiment.threads.or(experiment.threads);
        experiment.log.tensorboard |= args.tensorboard;
        // A run that broke before its first checkpoint begins anew, in the folder that it has already.
        let resume = run.has_checkpoint();
        Ok(Self { experiment, run: Some(run.path().to_path_buf()), resume })
    }

    /// Its folder, made where there is none.
    fn folder(
        &self,
        args: &TrainArgs,
        setup: &Setup,
        asked: Option<&Experiment>,
    ) -> Result<(RunDir, RunLock)> {
        match (&self.run, asked) {
            (None, _) => {
                let name = &setup.experiment.name;
                let path = args.out.clone().unwrap_or_else(|| RunDir::fresh_path(Path::new(RUNS), name));
                RunDir::create(&path, &setup.experiment)
            }
            (Some(path), Some(asked)) => {
                let mut asked = asked.clone();
                // The weights that a run started from may be gone, or declare something else since.
                let run = &setup.experiment.data;
                asked.data.mean = asked.data.mean.or_else(|| run.mean.clone());
                asked.data.std = asked.data.std.or_else(|| run.std.clone());
                let asked = Setup::new(asked)?.experiment;
                let same_place = |experiment: &Experiment| {
                    let (data, log) = (location::resolved(&experiment.data), LogSpec::default());
                    Experiment { device: String::new(), threads: None, data, log, ..experiment.clone() }
                };
                let different = differences(&same_place(&setup.experiment), &same_place(&asked))?;
                if !different.is_empty() {
                    let message = format!(
                        "{} was begun with another configuration: {}",
                        path.display(),
                        listed(&different, Difference::since)
                    );
                    return Err(usage(message)
                        .hint("name another folder, or `--resume RUN` alone goes on as it was")
                        .into());
                }
                locked(path)
            }
            (Some(path), None) => locked(path),
        }
    }
}

/// An earlier run, with the right to train it.
fn locked(path: &Path) -> Result<(RunDir, RunLock)> {
    let run = RunDir::open(path)?;
    let lock = run.lock()?;
    let warnings = lock.warning.iter().cloned().chain(run.edits_warning()?);
    warnings.for_each(|warning| note(&format!("warning: {warning}")));
    Ok((run, lock))
}

/// A run that can be trained.
struct Prepared {
    setup: Setup,
    run: RunDir,
    /// Whether it resumes from a checkpoint.
    resume: bool,
    /// Whether this job has created it.
    is_new: bool,
    /// The right to train it, on rank 0.
    _lock: Option<RunLock>,
}

/// What a run needs, its folder, and whether it resumes from a checkpoint: what rank 0 finds, checked on all ranks.
fn prepare(args: &TrainArgs, collective: &Collective) -> Result<Prepared> {
    let way = Way::of(args);
    if let Way::GoOn(_) = way {
        check_alone(args)?;
    }
    let asked = (!matches!(way, Way::GoOn(_))).then(|| asked(args)).transpose()?;
    let hash = asked.as_ref().map_or_else(|| Ok(String::new()), recipe_hash)?;
    collective.agree(&[("configuration".to_string(), hash)].into())?;
    let found = collective.from_main(|| Found::of(args, asked.as_ref()))?;
    let mut experiment = found.experiment.clone();
    if let (Some(asked), false) = (&asked, collective.is_main()) {
        // Where the data lies on this machine, and what it is computed with, is this machine's.
        (experiment.device, experiment.threads) = (asked.device.clone(), asked.threads);
        (experiment.data.dir, experiment.data.quarantine) =
            (asked.data.dir.clone(), asked.data.quarantine.clone());
        experiment.data.threads = asked.data.threads;
    }
    let mut setup = Setup::for_training_by(experiment, collective)?;
    let mut lock = None;
    let path = collective.from_main(|| {
        let (run, held) = found.folder(args, &setup, asked.as_ref())?;
        lock = Some(held);
        Ok(run.path().to_path_buf())
    })?;
    if let (Some(_), Some(asked)) = (&found.run, asked) {
        setup.experiment.log = asked.log;
    }
    let run = if collective.is_main() {
        RunDir::open(&path)?
    } else {
        RunDir::of_another(&folder_as_asked(args, path)?)
    };
    Ok(Prepared { setup, run, resume: found.resume, is_new: found.run.is_none(), _lock: lock })
}

/// The run's folder as a rank other than 0 takes it: its own arguments' where they name one; else what rank 0 `told`, where
/// that is the name of a run below `runs`. Another process must not choose where this one writes.
fn folder_as_asked(args: &TrainArgs, told: PathBuf) -> Result<PathBuf> {
    let named = match Way::of(args) {
        Way::GoOn(path) => path,
        Way::Begin | Way::Auto => args.out.as_deref(),
    };
    if let Some(named) = named {
        return Ok(named.to_path_buf());
    }
    let mut below = told.strip_prefix(RUNS).map(Path::components).into_iter().flatten();
    match (below.next(), below.next()) {
        (Some(Component::Normal(_)), None) => Ok(told),
        _ => {
            let message =
                format!("rank 0 names {} as the run's folder, which is not in {RUNS}/", shown(&told));
            Err(failed(message).hint("`--out RUN`, the same for all processes, names the folder").into())
        }
    }
}

/// Refuses settings beside `--resume RUN`: the run has its own.
fn check_alone(args: &TrainArgs) -> Result<()> {
    let ExperimentArgs { config, set, data, model, epochs, batch_size, lr, weights, head, seed, .. } =
        &args.experiment;
    let given = [
        ("CONFIG", config.is_some()),
        ("--out", args.out.is_some()),
        ("--set", !set.is_empty()),
        ("--data", data.is_some()),
        ("--model", model.is_some()),
        ("--epochs", epochs.is_some()),
        ("--batch-size", batch_size.is_some()),
        ("--lr", lr.is_some()),
        ("--weights", weights.is_some()),
        ("--head", head.is_some()),
        ("--seed", seed.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => {
            let message =
                format!("{name} cannot be used with `--resume RUN`: the run goes on as it was begun");
            Err(usage(message)
                .hint("`--resume auto --out RUN` begins a run, or goes on with the same settings")
                .into())
        }
    }
}

pub(super) fn train(args: &TrainArgs) -> Result<u8> {
    let launch = match Role::find(&args.ranks)? {
        Role::Starter(processes) => return ranks::start(processes),
        Role::Worker(launch) => launch,
    };
    let stop = signals::stop_flag();
    let collective = ranks::join(launch.as_ref(), &args.ranks, &wanted_device(args))?;
    if let (Some(launch), true, false) = (&launch, collective.is_main(), args.output.quiet) {
        note(&launch.to_string());
    }
    let mut log = None;
    let came_out = train_as(args, &collective, &stop, &mut log);
    ranks::leave(collective, launch.as_ref(), &log, came_out)
}

/// The name of the device to compute on, as far as it is known before the ranks have met.
fn wanted_device(args: &TrainArgs) -> String {
    let of_run = || match Way::of(args) {
        Way::GoOn(path) => open_run(path).and_then(|run| run.experiment()),
        Way::Begin | Way::Auto => asked(args),
    };
    let device = args.experiment.device.clone();
    // What is wrong with it is told later, by one rank for all.
    device.unwrap_or_else(|| of_run().map_or_else(|_| "auto".to_string(), |experiment| experiment.device))
}

/// Trains as one of the ranks; returns the exit code. A rank that prints nothing gets a `log`.
fn train_as(
    args: &TrainArgs,
    collective: &Collective,
    stop: &StopFlag,
    log: &mut Option<File>,
) -> Result<u8> {
    let folder_existed = args.out.as_deref().is_some_and(Path::exists);
    let Prepared { setup, run, resume, is_new, _lock } = prepare(args, collective)?;
    let is_main = collective.is_main();
    // In a list: an option by itself would look like a rank 0 that says nothing.
    let [finished] = collective.from_main(|| Ok([train::finished(&run, &setup.experiment)?]))?;
    if let Some(summary) = finished {
        if is_main && !args.output.quiet {
            let (path, steps) = (run.path().display(), summary.steps);
            note(&format!("run: {path}\nit is finished, after {steps} steps: nothing is resumed or changed"));
        }
        return if is_main { show_summary(args, &run, &summary).map(|()| 0) } else { Ok(0) };
    }
    let mut console = if is_main {
        run.note_start(&Provenance::here(setup.device, collective.world_size()))?;
        Console::new(args.output.quiet)
    } else {
        *log = ranks::log(run.path(), collective.rank());
        log.as_ref().map_or_else(|| Ok(Console::new(true)), Console::to_file)?
    };
    if is_main && !args.output.quiet {
        note(&format!("run: {}", run.path().display()));
        setup.notes.iter().for_each(|text| note(&format!("note: {text}")));
        if let Some(scaled) = setup.experiment.scaled_lr() {
            note(&format!("learning rate {scaled}"));
        }
        note(&splits::line(&setup.experiment.data, splits::TRAINING, setup.train.as_ref()));
        note(&splits::line(&setup.experiment.data, splits::EVALUATION, setup.eval.as_ref()));
        if let Some(order) = splits::class_order(setup.train.as_ref()) {
            note(&order);
        }
    }
    if is_main {
        for warning in splits::warnings(Some(setup.train.as_ref()), setup.eval.as_ref()) {
            note(&format!("warning: {warning}"));
        }
    }
    let mut context = Context::new(&run, &mut console, stop).with(collective);
    let outcome = train::run(&setup, resume, &mut context).inspect_err(|_| {
        // A command that could not train at all can be repeated as it was once its cause is gone.
        if is_main && is_new {
            run.discard_unstarted(folder_existed);
        }
    })?;
    drop(console);
    match outcome {
        train::Outcome::Finished(_) if !is_main => {}
        train::Outcome::Finished(summary) => show_summary(args, &run, &summary)?,
        train::Outcome::Interrupted { step } => {
            let is_requeued = collective.any(signals::by_machine())?;
            if is_main {
                let path = run.path().display();
                note(&format!(
                    "interrupted: saved after step {step}\n\nhint: `senet train --resume {path}` continues"
                ));
            }
            return Ok(if is_requeued { REQUEUE } else { INTERRUPTED });
        }
    }
    Ok(0)
}

/// Prints what a finished run came to.
fn show_summary(args: &TrainArgs, run: &RunDir, summary: &train::Summary) -> Result<()> {
    if args.output.json {
        let mut document = json!({ "run": shown(run.path()) });
        merge(&mut document, summary)?;
        return print_json(&document);
    }
    print(&evaluation_lines(&summary.eval, true))?;
    match &summary.ema {
        Some(ema) => {
            print(&format!("with the moving average of the weights:\n{}", evaluation_lines(ema, true)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn rank_0_does_not_choose_where_other_ranks_write() {
        let folder = |words: &str, told: &str| {
            let cli = Cli::try_parse_from(format!("senet train {words}").split_whitespace()).unwrap();
            let Command::Train(args) = cli.command else { panic!("not `train`") };
            folder_as_asked(&args, told.into()).ok()
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder("", "runs/2026-first"), path("runs/2026-first"));
        assert_eq!(folder("--resume", "runs/2026-first"), path("runs/2026-first"));
        for words in ["--out /data/first", "--resume /data/first", "--out /data/first --resume auto"] {
            assert_eq!(folder(words, "/elsewhere/planted"), path("/data/first"), "{words}");
        }
        for planted in ["/elsewhere/planted", "runs/../planted", "runs", "runs/a/b", "elsewhere/a", ""] {
            assert_eq!(folder("", planted), None, "{planted}");
        }
    }
}
