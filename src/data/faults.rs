//! Samples that cannot be read or decoded: what is done about them.

use crate::data::DataSpec;
use crate::error::{Result, failed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What to do about a file that cannot be read or decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The run stops.
    #[default]
    Fail,
    /// The file is reported once. Training takes the next sample of the data set in its place, evaluation leaves it out
    /// and says so.
    Skip,
}

/// The bad samples of a data set, as far as they were met. All passes over it share one.
#[derive(Debug)]
pub struct Faults {
    on_error: OnError,
    /// Bad samples that are borne.
    most: usize,
    samples: usize,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    bad: HashSet<usize>,
    /// What has not been told yet.
    news: Vec<String>,
}

impl Faults {
    /// None yet, of a data set of `samples`.
    pub fn new(spec: &DataSpec, samples: usize) -> Self {
        let most = (spec.max_bad * samples as f64).ceil() as usize;
        Self { on_error: spec.on_error, most, samples, met: Mutex::default() }
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a sample that cannot be had because of `error`, which names its file.
    ///
    /// # Errors
    /// When the run is to stop: always with [`OnError::Fail`], else when too many samples are bad.
    pub fn note(&self, sample: usize, error: anyhow::Error) -> Result<()> {
        if self.on_error == OnError::Fail {
            return Err(error);
        }
        let mut met = self.met();
        if !met.bad.insert(sample) {
            return Ok(());
        }
        if met.bad.len() > self.most {
            let message = format!(
                "{} of {} samples are bad, more than `data.max_bad` allows ({}); the last: {error:#}",
                met.bad.len(),
                self.samples,
                self.most
            );
            let hint =
                "`senet data verify DIR --quarantine FILE` finds them all; `data.quarantine` leaves them out";
            return Err(failed(message).hint(hint).into());
        }
        met.news.push(format!("{error:#}"));
        Ok(())
    }

    /// What has been met since the last call, a message for each sample.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.met().news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_fault_is_told_once_and_too_many_stop_the_run() {
        let skip = DataSpec { on_error: OnError::Skip, max_bad: 0.02, ..DataSpec::default() };
        let faults = Faults::new(&skip, 100);
        for sample in [3, 4, 3] {
            faults.note(sample, anyhow!("cannot read {sample}")).unwrap();
        }
        assert_eq!(faults.take_news(), ["cannot read 3", "cannot read 4"]);
        assert_eq!(faults.take_news().len(), 0);
        let error = faults.note(5, anyhow!("cannot read 5")).unwrap_err().to_string();
        assert!(error.contains("3 of 100 samples are bad") && error.contains("cannot read 5"), "{error}");
        let strict = Faults::new(&DataSpec::default(), 100);
        assert_eq!(strict.note(3, anyhow!("cannot read 3")).unwrap_err().to_string(), "cannot read 3");
    }
}
