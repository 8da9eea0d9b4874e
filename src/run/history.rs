//! A run's records read back: what its history tells, and what a run that goes on takes out of it.

use super::{Provenance, RunDir, sealed};
use crate::error::Result;
use crate::files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) const EVENTS: &str = "events.jsonl";
pub(super) const STARTS: &str = "provenance.jsonl";

/// How far a run is, and what it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Steps done in all.
    pub step: u64,
    /// Steps of the whole run, where they are known.
    pub total_steps: Option<u64>,
    /// Seconds of all its processes, evaluations included. Of a process that was killed, those to the last event that
    /// stayed in the history: work that was lost and done again counts once.
    pub seconds: f64,
}

/// What matters here of a line of the history.
#[derive(Deserialize)]
struct Line {
    time: String,
    event: String,
    step: Option<u64>,
    done_steps: Option<u64>,
    total_steps: Option<u64>,
    seconds: Option<f64>,
}

impl RunDir {
    /// Takes out of the history what it tells of steps after `step`, since the run goes on there and tells it again, and the
    /// end of a run that ended; where the run `awaits_evaluation`, the end of its epoch, too. Starts and warnings stay. A line
    /// that cannot be read, such as one that a killed process wrote by half, goes, too.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn forget_events_after(&self, step: u64, awaits_evaluation: bool) -> Result<()> {
        let path = self.path().join(EVENTS);
        if !path.is_file() {
            return Ok(());
        }
        let history = files::read(&path)?;
        let is_open = |line: &Line| awaits_evaluation && line.event == "epoch" && line.step == Some(step);
        let stays =
            |line: &Line| line.event != "finished" && line.step.is_none_or(|of| of <= step) && !is_open(line);
        let kept = lines(&history).filter(|line| {
            sealed::check_line(line).is_some() && serde_json::from_slice(line).is_ok_and(|line| stays(&line))
        });
        let kept: Vec<u8> = kept.flat_map(|line| [line, b"\n"].concat()).collect();
        if kept == history { Ok(()) } else { files::write_atomic(&path, &kept) }
    }

    /// What the history tells of the run as a whole.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn history(&self) -> Result<History> {
        let mut history = History::default();
        // Start of the process that the lines are of, and its last line.
        let mut process: Option<[SystemTime; 2]> = None;
        let lasted = |process: Option<[SystemTime; 2]>| {
            let [from, to] = process?;
            to.duration_since(from).ok()
        };
        let seconds = |lasted: Option<Duration>| lasted.map_or(0.0, |lasted| lasted.as_secs_f64());
        for line in read::<Line>(&self.path().join(EVENTS))? {
            let Ok(time) = humantime::parse_rfc3339(&line.time) else { continue };
            history.step = line.step.or(line.done_steps).unwrap_or(history.step);
            history.total_steps = line.total_steps.or(history.total_steps);
            match (line.event.as_str(), &mut process) {
                ("started", _) => {
                    history.seconds += seconds(lasted(process));
                    process = Some([time, time]);
                }
                // It knows its time to more than a second.
                ("finished", _) => {
                    history.seconds += line.seconds.unwrap_or_else(|| seconds(lasted(process)));
                    process = None;
                }
                (_, Some([_, last])) => *last = time,
                (_, None) => {}
            }
        }
        history.seconds += seconds(lasted(process));
        Ok(history)
    }

    /// The processes that have worked on the run, in order.
    ///
    /// # Errors
    /// When the record of them cannot be read.
    pub fn starts(&self) -> Result<Vec<Provenance>> {
        read(&self.path().join(STARTS))
    }
}

/// The values in a file of JSON lines, without those that cannot be read; none where there is no file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    Ok(lines(&files::read(path)?)
        .filter(|line| sealed::check_line(line).is_some())
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Experiment;
    use std::fs;
    use tempfile::TempDir;

    fn run_with(events: &str) -> (TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let (run, _lock) = RunDir::create(&dir.path().join("run"), &Experiment::default()).unwrap();
        fs::write(run.path().join(EVENTS), events).unwrap();
        (dir, run)
    }

    fn line(second: u32, event: &str, rest: &str) -> String {
        let comma = if rest.is_empty() { "" } else { "," };
        format!("{{\"time\":\"2026-11-24T03:00:{second:02}Z\",\"event\":\"{event}\"{comma}{rest}}}\n")
    }

    fn started(second: u32, done: u64) -> String {
        line(second, "started", &format!("\"total_steps\":20,\"done_steps\":{done}"))
    }

    fn at(second: u32, event: &str, step: u64) -> String {
        line(second, event, &format!("\"step\":{step}"))
    }

    #[test]
    fn later_steps_are_forgotten_and_half_a_line_with_them() {
        let kept = [
            started(0, 0),
            at(1, "steps", 5),
            at(2, "epoch", 5),
            line(3, "warning", "\"message\":\"a file\""),
        ];
        let gone =
            [at(3, "steps", 6), at(4, "interrupted", 6), line(5, "finished", "\"step\":5,\"seconds\":1")];
        let half = "{\"time\":\"2026-11-24T03:00:06Z\",\"event\":\"ste";
        let history = [&kept[..3], &gone[..1], &kept[3..], &gone[1..]].concat().concat() + half;
        let (_dir, run) = run_with(&history);
        run.forget_events_after(5, false).unwrap();
        let left = || fs::read_to_string(run.path().join(EVENTS)).unwrap();
        assert_eq!(left(), kept.concat());
        // Of a line that lacks its end alone, nothing is lost.
        fs::write(run.path().join(EVENTS), kept.concat().trim_end()).unwrap();
        run.forget_events_after(5, false).unwrap();
        assert_eq!(left(), kept.concat());
        // An epoch whose evaluation comes again is told again.
        run.forget_events_after(5, true).unwrap();
        assert_eq!(left(), [&kept[..2], &kept[3..]].concat().concat());
        fs::remove_file(run.path().join(EVENTS)).unwrap();
        run.forget_events_after(5, false).unwrap();
        assert!(!run.path().join(EVENTS).exists());
    }

    #[test]
    fn time_is_that_of_all_processes() {
        let killed = started(0, 0) + &at(7, "steps", 5);
        let interrupted = started(20, 5) + &at(24, "steps", 9) + &at(25, "interrupted", 9);
        let (_dir, run) = run_with(&(killed.clone() + &interrupted + "no line of ours\n"));
        let open = run.history().unwrap();
        assert_eq!(open, History { step: 9, total_steps: Some(20), seconds: 12.0 });
        let finished =
            started(40, 9) + &at(48, "epoch", 20) + &line(48, "finished", "\"step\":20,\"seconds\":8.25");
        let (_dir, run) = run_with(&(killed + &interrupted + &finished));
        assert_eq!(run.history().unwrap().seconds, 20.25);
    }
}
