//! The folder of a run: the only place that knows which file lies where.
//!
//! ```text
//! RUN/config.json       the resolved configuration          RUN/events.jsonl   one line an event
//! RUN/provenance.jsonl  one line a start                    RUN/result.json    written when the run is done
//! RUN/not-finite-N.json the samples of a step whose numbers are not finite
//! RUN/checkpoints/last/ RUN/checkpoints/best/               model.safetensors, optim.safetensors, state.json,
//!                                                       and ema.safetensors of runs with `train.ema`
//! RUN/tensorboard/      files of events, one a start (`log.tensorboard`)
//! ```

use super::history::{EVENTS, STARTS};
use super::{Provenance, location, timestamp};
use crate::error::{Result, failed, usage};
use crate::experiment::{Experiment, load};
use crate::files;
use crate::report::event::Event;
use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write;
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
    /// Makes the folder of a new run, which appears with its configuration in it: whoever else looks, or comes after a
    /// kill, finds a run or none. (A folder that is there already, and empty, is filled at its place.)
    ///
    /// # Errors
    /// When the folder exists and is not empty, or cannot be written.
    pub fn create(path: &Path, experiment: &Experiment) -> Result<Self> {
        let occupied = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if occupied || path.is_file() {
            let resumable = path.join(CONFIG).is_file();
            let hint = if resumable {
                format!(
                    "`senet train --resume {}` continues it; another `--out` starts a new run",
                    path.display()
                )
            } else {
                "choose another `--out`; nothing is overwritten".to_string()
            };
            return Err(usage(format!("{} exists already", path.display())).hint(hint).into());
        }
        let run = Self { path: path.to_path_buf() };
        run.make(experiment).map_err(|error| {
            failed(format!("{error:#}")).hint("`--out` must name a folder that can be made and written")
        })?;
        Ok(run)
    }

    fn make(&self, experiment: &Experiment) -> Result<()> {
        let experiment = Experiment { data: location::absolute(&experiment.data), ..experiment.clone() };
        let fill = |path: &Path| {
            files::create_dir(&path.join(CHECKPOINTS))?;
            write_json(&path.join(CONFIG), &experiment)
        };
        if self.path.exists() {
            return fill(&self.path);
        }
        files::create_dir_filled(&self.path, fill).map_err(|error| {
            // Not of the partial folder, which nobody has asked for.
            failed(format!("cannot create the folder {}: {}", self.path.display(), error.root_cause())).into()
        })
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
        self.write_json(RESULT, result)
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
        let value = serde_json::from_slice(&files::read(&path)?);
        Ok(Some(value.with_context(|| format!("{} is damaged", path.display()))?))
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.path.join(name), value)
    }

    fn append(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(name);
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let write = || OpenOptions::new().create(true).append(true).open(&path)?.write_all(&line);
        write().with_context(|| format!("cannot write {}", path.display()))
    }
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
