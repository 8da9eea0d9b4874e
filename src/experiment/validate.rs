//! Files checked without running them: all that is wrong with each.
//!
//! Loading stops at the first mistake. Here the value that it names is taken out and the rest is loaded again, until
//! nothing is wrong or the mistake is none of a single value.

use super::Experiment;
use super::load;
use super::request::Request;
use super::sweep::Sweep;
use crate::error::{self, Result, usage};
use crate::files;
use crate::run::{LabDir, RunDir};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Mistakes of one file that are told.
const MOST: usize = 20;

/// Steps of an epoch that a schedule is tried with, as the data is not asked: one length has to do.
const STEPS_PER_EPOCH: [u64; 6] = [1000, 100, 10_000, 10, 100_000, 1];

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// Whether it can be used.
    pub ok: bool,
    /// What it is of, if it can.
    pub summary: Option<String>,
    /// What it says that it cannot express of its source: `about.differs`.
    pub differs: Option<String>,
    /// Everything that is wrong.
    pub problems: Vec<Complaint>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Complaint {
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Complaint {
    fn of(error: &anyhow::Error) -> Self {
        let hint = error::problem(error).and_then(|problem| problem.hint.clone());
        Self { message: format!("{error:#}"), hint }
    }
}

/// The files that `path` stands for: itself; of a folder all `*.json` in it and below but for schemas; of a run's folder,
/// its configuration alone, and of a comparison's its runs'.
///
/// # Errors
/// When there is nothing.
pub fn files_at(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    let mut walk = WalkDir::new(path).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| usage(format!("cannot list {}: {error}", path.display())))?;
        if entry.depth() > 0 && is_hidden(&entry) {
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
        } else if entry.file_type().is_dir() {
            if let Ok(run) = RunDir::open(entry.path()) {
                found.push(run.config());
                walk.skip_current_dir();
            }
        } else if is_configuration(entry.path()) {
            found.push(entry.into_path());
        }
    }
    if found.is_empty() {
        let message = format!("{} holds no configurations (*.json)", path.display());
        return Err(usage(message).hint("for example `senet config check configs`").into());
    }
    Ok(found)
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Whether a file of a folder is meant to be a configuration.
fn is_configuration(path: &Path) -> bool {
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let is_of_lab = path.parent().is_some_and(|dir| LabDir::open(dir).is_ok_and(|lab| lab.has_rows()));
    let text = || files::read_text(path).unwrap_or_default();
    is_json && !is_of_lab && !serde_json::from_str(&text()).is_ok_and(|object| load::is_schema(&object))
}

/// Checks a configuration or a sweep file.
pub fn check(file: &Path) -> Checked {
    let (summary, differs, problems) = match Request::read(file) {
        Err(error) => (None, None, vec![Complaint::of(&error)]),
        Ok(Some(request)) => match expanded(&request, file) {
            Ok(sweep) => (Some(of_sweep(&sweep)), differs(&request.about), Vec::new()),
            Err(error) => (None, differs(&request.about), vec![Complaint::of(&error)]),
        },
        Ok(None) => match load::read_object(file) {
            Err(error) => (None, None, vec![Complaint::of(&error)]),
            Ok(object) => {
                let said = differs(&object["about"]);
                let (experiment, problems) = all_problems(object);
                (experiment.as_ref().map(of_experiment), said, problems)
            }
        },
    };
    Checked { file: file.to_path_buf(), ok: problems.is_empty(), summary, differs, problems }
}

/// The comparison that a sweep file asks for; `file` only names it.
///
/// # Errors
/// When its base is no experiment, or it cannot be expanded.
pub fn expanded(request: &Request, file: &Path) -> Result<Sweep> {
    let base = request.layers(file).apply_to(&Experiment::default())?;
    let sweep = request.expand(&base)?;
    check_schedule(&base)?;
    Ok(sweep)
}

fn of_sweep(sweep: &Sweep) -> String {
    let (rows, runs) = (sweep.rows.len(), sweep.order().len());
    format!("comparison by {}: {rows} rows, {runs} runs", sweep.title())
}

fn of_experiment(experiment: &Experiment) -> String {
    let Experiment { model, train, .. } = experiment;
    format!("{}, {} in steps of {}", model.name, train.duration, train.samples_per_step())
}

fn differs(about: &Value) -> Option<String> {
    about["differs"].as_str().map(str::to_string)
}

/// Loads `object` again and again, each time without the value that was wrong. The experiment is there if none was.
pub fn all_problems(mut object: Value) -> (Option<Experiment>, Vec<Complaint>) {
    let mut problems = Vec::new();
    loop {
        let loaded = load::over_default(&object).and_then(|experiment| {
            check_schedule(&experiment)?;
            Ok(experiment)
        });
        let error = match loaded {
            Ok(experiment) => return (Some(experiment).filter(|_| problems.is_empty()), problems),
            Err(error) => error,
        };
        let complaint = Complaint::of(&error);
        let is_removed = remove_named(&mut object, &complaint.message);
        problems.push(complaint);
        if !is_removed || problems.len() == MOST {
            return (None, problems);
        }
    }
}

/// Refuses a schedule that fits no run of this length.
fn check_schedule(experiment: &Experiment) -> Result<()> {
    let fits = |steps: u64| experiment.lr_course(experiment.timeline(steps)?, 2);
    let usual = fits(STEPS_PER_EPOCH[0]);
    match STEPS_PER_EPOCH[1..].iter().any(|steps| fits(*steps).is_ok()) {
        true => Ok(()),
        false => usual.map(|_| ()),
    }
}

/// Takes the first value out that `message` names by its path; of a list all items, since the next would get its number.
fn remove_named(object: &mut Value, message: &str) -> bool {
    message.split('`').skip(1).step_by(2).any(|path| remove(object, path))
}

fn remove(object: &mut Value, path: &str) -> bool {
    // Without its kind, an object's other keys would be wrong as well.
    let path = path.strip_suffix(".kind").unwrap_or(path);
    let path = path.split('[').next().unwrap_or_default();
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (object.pointer_mut(&format!("/{}", parent.replace('.', "/"))), name),
        None => (Some(object), path),
    };
    let keys = parent.and_then(Value::as_object_mut);
    keys.is_some_and(|keys| keys.shift_remove(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(object: Value) -> Vec<String> {
        all_problems(object).1.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn every_mistake_of_a_file_is_told() {
        let found = messages(json!({
            "name": "a/b",
            "model": { "name": "se-resnet-51", "se": { "reductoin": 4 } },
            "data": { "crop": "padd", "augment": [{ "kind": "erase", "p": 2 }, { "kind": "lightning" }] },
            "optim": { "kind": "lambb", "betas": [0.9, 0.999] },
            "train": { "duration": "10%", "batch_size": 0 },
            "schedule": { "kind": "cosine", "end": 2 },
        }));
        for part in [
            "`name` is \"a/b\"",
            "unknown network `se-resnet-51`",
            "unknown key `model.se.reductoin`",
            "`data.crop`",
            "unknown variant `lightning`",
            "unknown variant `lambb`",
            "`train.duration` is 10%",
            "`train.batch_size` is 0",
            "`schedule.end` is 2",
        ] {
            assert_eq!(
                found.iter().filter(|message| message.contains(part)).count(),
                1,
                "{part}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 9, "{found:#?}");
    }

    #[test]
    fn a_schedule_is_wrong_if_it_fits_no_run() {
        let sequence = |length: &str| {
            let parts = json!([
                { "length": length, "schedule": { "kind": "linear" } },
                { "schedule": { "kind": "constant" } }
            ]);
            json!({ "train": { "duration": "4ep" }, "schedule": { "kind": "sequence", "parts": parts } })
        };
        // 5000 steps are less than four epochs of enough data.
        for fits in ["1ep", "5000st", "50%"] {
            assert_eq!(messages(sequence(fits)), [""; 0], "{fits}");
        }
        let never = messages(sequence("5ep"));
        assert!(never[0].contains("`schedule.parts[0]` has 5000 steps of the run's 4000"), "{never:?}");
        assert_eq!(messages(json!({ "train": { "duration": "0ep" } })).len(), 1);
    }

    #[test]
    fn a_hostile_file_ends() {
        let many: serde_json::Map<String, Value> = (0..100).map(|at| (format!("k{at}"), json!(at))).collect();
        assert_eq!(messages(Value::Object(many)).len(), MOST);
    }
}
