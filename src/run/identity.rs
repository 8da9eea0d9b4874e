//! `RUN/run.json`: which run a folder is, and the configuration that it was created with. A checkpoint names its run, and a
//! configuration that was edited later is noticed. Runs of older versions have no such file.

use super::{RunDir, sealed, timestamp};
use crate::error::{Result, failed};
use crate::experiment::Experiment;
use crate::experiment::diff::{Difference, differences, listed};
use crate::experiment::load::{over_default, read_resolved};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Name of the file.
pub(super) const RUN: &str = "run.json";

/// Settings that may be edited between two starts, as they change nothing of what is computed: where it is computed, where
/// the data lies, and what is kept and logged.
const INCIDENTAL: [&str; 9] = [
    "about",
    "name",
    "device",
    "threads",
    "log",
    "checkpoint",
    "train.log_every",
    "data.dir",
    "data.threads",
];

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    /// 128 random bits in hexadecimal.
    id: String,
    /// When the run was created, UTC.
    created: String,
    config: Value,
}

/// Gives the run in `folder` an id of its own.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn create(folder: &Path, experiment: &Experiment) -> Result<()> {
    let id = format!("{:032x}", rand::random::<u128>());
    let config = serde_json::to_value(experiment)?;
    sealed::write(&folder.join(RUN), &Identity { id, created: timestamp(), config })
}

impl RunDir {
    fn identity(&self) -> Result<Option<Identity>> {
        let path = self.path().join(RUN);
        if !path.is_file() {
            return Ok(None);
        }
        let identity = sealed::read(&path).map_err(|error| {
            failed(format!("{error:#}"))
                .hint("restore it from a backup; without it, the run is read like one of an older version")
        })?;
        Ok(Some(identity))
    }

    /// The run's id, which its checkpoints carry; none of older versions.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn id(&self) -> Result<Option<String>> {
        Ok(self.identity()?.map(|identity| identity.id))
    }

    /// What was edited in the run's `config.json` since the run was created.
    ///
    /// # Errors
    /// When either configuration is damaged.
    pub fn edits(&self) -> Result<Vec<Difference>> {
        let Some(Identity { config, .. }) = self.identity()? else { return Ok(Vec::new()) };
        // As it is in the file: data that was moved with the run is no edit.
        differences(&over_default(&config)?, &read_resolved(&self.config())?)
    }

    /// What the user should know of edits that change what the run computes.
    ///
    /// # Errors
    /// When either configuration is damaged.
    pub fn edits_warning(&self) -> Result<Option<String>> {
        let edits: Vec<Difference> = self.edits()?.into_iter().filter(is_substantial).collect();
        Ok((!edits.is_empty()).then(|| {
            let config = self.config();
            format!(
                "{} was edited since the run was created, and is used as it is now: {}",
                config.display(),
                listed(&edits, Difference::to_string)
            )
        }))
    }
}

/// Whether an edit changes what the run computes.
fn is_substantial(edit: &Difference) -> bool {
    let within =
        |key: &str| edit.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    !INCIDENTAL.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_named_until_they_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let experiment = Experiment::default();
        let (run, _lock) = RunDir::create(&dir.path().join("run"), &experiment).unwrap();
        let (other, _lock) = RunDir::create(&dir.path().join("other"), &experiment).unwrap();
        assert_ne!(run.id().unwrap().unwrap(), other.id().unwrap().unwrap());
        assert_eq!(run.edits().unwrap(), []);
        let edited = Experiment { seed: 3, device: "cpu".to_string(), ..run.experiment().unwrap() };
        std::fs::write(run.config(), serde_json::to_vec(&edited).unwrap()).unwrap();
        let edits = run.edits().unwrap();
        assert_eq!(edits.iter().map(|edit| edit.key.as_str()).collect::<Vec<_>>(), ["seed", "device"]);
        assert_eq!(edits.iter().map(is_substantial).collect::<Vec<_>>(), [true, false]);
        assert_eq!(edits[0].to_string(), "`seed` 0 → 3");
        let warning = run.edits_warning().unwrap().unwrap();
        assert!(warning.contains("`seed` 0 → 3") && !warning.contains("`device`"), "{warning}");
    }
}
