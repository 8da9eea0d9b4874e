//! The folder of a run: the only place that knows which file lies where.
//!
//! ```text
//! RUN/config.json       the resolved configuration          RUN/events.jsonl   one line an event
//! RUN/run.json          its id and first configuration      RUN/.lock          held by the process that trains it
//! RUN/provenance.jsonl  one line a start                    RUN/result.json    written when the run is done
//! RUN/not-finite-N.json the samples of a step whose numbers are not finite
//! RUN/checkpoints/last/ RUN/checkpoints/best/               model.safetensors, optim.safetensors, state.json,
//!                                                       and ema.safetensors of runs with `train.ema`
//! RUN/tensorboard/      files of events, one a start (`log.tensorboard`)
//! ```

use super::checkpoint::Saved;
use super::history::{EVENTS, STARTS};
use super::identity::{self, RUN};
use super::lock::LOCK;
use super::{Provenance, RunLock, checkpoint, location, sealed, timestamp};
use crate::error::{Result, failed, problem, usage};
use crate::experiment::{Experiment, load};
use crate::files;
use crate::report::event::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which of a run's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// The newest.
    Last,
    /// The one with the highest top-1.
    Best,
}

/// An existing folder of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Creates the folder of a new run, which appears with its configuration in it: whoever else looks, or comes after a
    /// kill, finds a run or none. A folder that exists and is vacant, such as a mounted volume, is filled in place, the
    /// configuration last. The run is locked for as long as the second value lives.
    ///
    /// # Errors
    /// When the folder exists and is not vacant, or cannot be written.
    pub fn create(path: &Path, experiment: &Experiment) -> Result<(Self, RunLock)> {
        check_vacant(path)?;
        let run = Self { path: path.to_path_buf() };
        let lock = run.make(experiment).map_err(|error| match check_vacant(path) {
            // Another process was quicker.
            Err(occupied) => occupied,
            Ok(()) if problem(&error).is_some_and(|problem| problem.hint.is_some()) => error,
            Ok(()) => failed(format!("{error:#}"))
                .hint("`--out` must name a folder that can be made and written")
                .into(),
        })?;
        Ok((run, lock))
    }

    fn make(&self, experiment: &Experiment) -> Result<RunLock> {
        let experiment = Experiment { data: location::absolute(&experiment.data), ..experiment.clone() };
        let mut lock = None;
        let mut fill = |folder: &Path| {
            lock = Some(RunLock::take(folder, &self.path)?);
            check_vacant(folder)?;
            identity::create(folder, &experiment)?;
            files::create_dir(&folder.join(CHECKPOINTS))?;
            write_json(&folder.join(CONFIG), &experiment)
        };
        if self.path.exists() {
            fill(&self.path)?;
        } else {
            files::create_dir_filled(&self.path, fill).map_err(|error| -> anyhow::Error {
                // Not of the partial folder, which nobody has asked for.
                let (path, cause) = (self.path.display(), error.root_cause());
                failed(format!("cannot create the folder {path}: {cause}")).into()
            })?;
        }
        Ok(lock.expect("it was filled"))
    }

    /// Removes a run that failed before its first step, as far as nothing else is in its folder; the folder itself stays
    /// where it `existed` before. What cannot be removed stays, too.
    pub fn discard_unstarted(&self, existed: bool) {
        const OURS: [&str; 6] = [CONFIG, RUN, EVENTS, STARTS, LOCK, CHECKPOINTS];
        let files = || -> io::Result<Vec<fs::DirEntry>> { fs::read_dir(&self.path)?.collect() };
        let Ok(files) = files() else { return };
        let is_ours = |file: &fs::DirEntry| OURS.iter().any(|name| file.file_name() == *name);
        let is_unstarted = self.history().is_ok_and(|history| history.step == 0);
        // Fails where a checkpoint is in it.
        if !files.iter().all(is_ours) || !is_unstarted || fs::remove_dir(self.path.join(CHECKPOINTS)).is_err()
        {
            return;
        }
        for name in OURS {
            let _ = fs::remove_file(self.path.join(name));
        }
        if !existed {
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Whether a new run can be created at `path`: it does not exist, or holds nothing of anyone's.
    pub fn is_vacant(path: &Path) -> bool {
        check_vacant(path).is_ok()
    }

    /// Locks the run: no other process trains it for as long as the value lives.
    ///
    /// # Errors
    /// When another process has it, which is named, or the folder cannot be written.
    pub fn lock(&self) -> Result<RunLock> {
        RunLock::take(&self.path, &self.path)
    }

    /// A fresh path below `runs`: `runs/2026-11-24T03-10-00-fashion-mnist`.
    pub fn fresh_path(runs: &Path, name: &str) -> PathBuf {
        let stem = format!("{}-{name}", timestamp().trim_end_matches('Z').replace(':', "-"));
        let numbered = |n: u32| runs.join(if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
        (1..).map(numbered).find(|path| !path.exists()).expect("some number is free")
    }

    /// Opens the folder of an earlier run.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(path: &Path) -> Result<Self> {
        if path.join(CONFIG).is_file() {
            return Ok(Self { path: path.to_path_buf() });
        }
        let message = format!("{} is not the folder of a run: no {CONFIG} in it", path.display());
        Err(failed(message).hint("`senet train` makes one below runs/").into())
    }

    /// The folder of a run that another process has made, and keeps: it may not be there on this machine.
    pub fn of_another(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// The run below `runs` whose newest checkpoint is the newest.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest(runs: &Path) -> Result<Self> {
        let saved_at = |run: &RunDir| -> Option<SystemTime> {
            let state = run.checkpoint(Checkpoint::Last).join(super::checkpoint::STATE);
            fs::metadata(state).and_then(|data| data.modified()).ok()
        };
        let entries = fs::read_dir(runs).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| RunDir::open(&entry.path()).ok())
            .filter_map(|run| Some((saved_at(&run)?, run)))
            .max_by_key(|(saved, _)| *saved)
            .map(|(_, run)| run)
            .ok_or_else(|| {
                failed(format!("{} holds no run with a checkpoint", runs.display()))
                    .hint("`senet train` makes one; or name a run's folder")
                    .into()
            })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of a checkpoint.
    pub fn checkpoint(&self, which: Checkpoint) -> PathBuf {
        self.path.join(CHECKPOINTS).join(match which {
            Checkpoint::Last => "last",
            Checkpoint::Best => "best",
        })
    }

    /// Opens a checkpoint of this run, or the newest intact one before it; the second value then says why.
    ///
    /// # Errors
    /// When none is intact, or all belong to another run.
    pub fn saved(&self, which: Checkpoint) -> Result<(Saved, Option<String>)> {
        Saved::open(&self.checkpoint(which), self.id()?.as_deref())
    }

    /// Whether the run can be resumed from a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        checkpoint::exists(&self.checkpoint(Checkpoint::Last))
    }

    /// Where its configuration lies.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The resolved configuration. Data that was moved together with the run is found again.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn experiment(&self) -> Result<Experiment> {
        let experiment = load::read_resolved(&self.config())?;
        let data = location::found_again(experiment.data, &self.path, &self.path.join(STARTS));
        Ok(Experiment { data, ..experiment })
    }

    /// Notes that a process works on this run.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn note_start(&self, provenance: &Provenance) -> Result<()> {
        #[derive(Serialize)]
        struct Start<'a> {
            #[serde(flatten)]
            provenance: &'a Provenance,
            /// Where the run is: its data is looked for beside it, should both be moved.
            #[serde(skip_serializing_if = "Option::is_none")]
            run: Option<&'a str>,
        }
        let run = std::path::absolute(&self.path).ok();
        let run = run.as_deref().and_then(Path::to_str);
        self.append(STARTS, &Start { provenance, run })
    }

    /// Appends to the history.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn note_event(&self, event: &Event) -> Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            #[serde(flatten)]
            event: &'a Event,
        }
        self.append(EVENTS, &Line { time: timestamp(), event })
    }

    /// Lists the samples of a step whose numbers are not finite, and says where.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn note_not_finite(&self, step: u64, what: &str, samples: &[String]) -> Result<PathBuf> {
        let path = self.path.join(format!("not-finite-{step}.json"));
        write_json(&path, &json!({ "step": step, "what": what, "samples": samples }))?;
        Ok(path)
    }

    /// Saves what the run came to.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_result(&self, result: &impl Serialize) -> Result<()> {
        sealed::write(&self.path.join(RESULT), result)
    }

    /// What the run came to, if it is done.
    ///
    /// # Errors
    /// When the file is there but damaged.
    pub fn result<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let path = self.path.join(RESULT);
        if !path.is_file() {
            return Ok(None);
        }
        sealed::read(&path).map(Some)
    }

    fn append(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(name);
        let line = sealed::line(value)?;
        let write = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            end_last_line(&mut file)?;
            append_whole(&mut file, &line)
        };
        write().map_err(|error| files::unwritable(&path, error))
    }
}

/// Refuses a folder for a new run that has something in it, other than what a file system or a process that was killed
/// while it created a run leaves there.
fn check_vacant(path: &Path) -> Result<()> {
    let is_vacant = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let is_empty_dir = || fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none());
        match name.to_string_lossy().as_ref() {
            "lost+found" | RUN => true,
            CHECKPOINTS => is_empty_dir(),
            hidden => hidden.starts_with('.'),
        }
    };
    let entries: Vec<fs::DirEntry> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    let has = |name: &str| path.join(name).exists();
    if !path.is_file() && entries.into_iter().all(is_vacant) {
        return Ok(());
    }
    let (path, mut message) = (path.display(), format!("{} exists already", path.display()));
    let hint = if has(CONFIG) {
        format!("`senet train --resume {path}` continues it; another `--out` starts a new run")
    } else if has(CHECKPOINTS) {
        message = format!("{path} holds checkpoints, but no {CONFIG}");
        format!("restore {CONFIG} to resume that run; another `--out` starts a new one")
    } else {
        "choose another `--out`; nothing is overwritten".to_string()
    };
    Err(usage(message).hint(hint).into())
}

/// Ends the last line of a file of lines, which a process that was killed may have written in part: what cannot be read is
/// dropped.
fn end_last_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last == *b"\n" {
        return Ok(());
    }
    let mut text = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut text, 0)?;
    let start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    match sealed::check_line(&text[start..]) {
        Some(_) => append_whole(file, b"\n"),
        None => file.set_len(start as u64),
    }
}

/// Appends all of `bytes` or, where the disk is full, none of them.
pub(super) fn append_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| drop(file.set_len(length)))
}

/// Writes a JSON document for people's eyes as well.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    files::write_atomic(path, &text)
}

const CONFIG: &str = "config.json";
const RESULT: &str = "result.json";
const CHECKPOINTS: &str = "checkpoints";
