//! `senet report`.

use super::args::{Format, ReportArgs};
use super::output::{note, print, print_json};
use crate::engine::{ablate, runs};
use crate::error::{Result, failed, usage};
use crate::files;
use crate::report::comparison::Results;
use crate::report::document::with_tables;
use crate::report::page::comparison::page;
use crate::report::runs::Runs;
use crate::run::RunDir;
use std::path::PathBuf;

/// What folders hold.
enum Found {
    Comparison(Box<Results>),
    Runs(Runs),
}

/// What a marker in a document says of runs, before the name in their configuration.
const RUNS_KEY: &str = "runs";

impl Found {
    fn read(paths: &[PathBuf]) -> Result<Self> {
        match paths {
            [path] if RunDir::open(path).is_err() => Ok(Self::Comparison(Box::new(ablate::report(path)?))),
            paths => Ok(Self::Runs(runs::report(paths)?)),
        }
    }

    /// What a document gets at the marker `key`.
    fn table(&self, key: &str) -> Option<String> {
        match self {
            Self::Comparison(results) if key == "setting" => Some(results.setting_markdown()),
            Self::Comparison(results) => {
                let comparison = results.comparisons.iter().find(|one| one.key == key)?;
                Some(results.table(comparison).markdown())
            }
            Self::Runs(runs) => match key.strip_prefix(RUNS_KEY)?.trim() {
                "" => Some(runs.markdown()),
                name => Some(runs.named(name)?.markdown()),
            },
        }
    }

    /// The markers that it has something for.
    fn keys(&self) -> Vec<String> {
        match self {
            Self::Comparison(results) => {
                let keys = results.comparisons.iter().map(|one| one.key.clone());
                ["setting".to_string()].into_iter().chain(keys).collect()
            }
            Self::Runs(runs) => {
                let mut keys = vec![RUNS_KEY.to_string()];
                for key in runs.all().map(|run| format!("{RUNS_KEY} {}", run.name)) {
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                keys
            }
        }
    }
}

pub(super) fn report(args: &ReportArgs) -> Result<u8> {
    let found = Found::read(&args.dirs)?;
    let Some(path) = &args.into else {
        match (args.format, &found) {
            (Format::Text, Found::Comparison(results)) => print(&results.text())?,
            (Format::Text, Found::Runs(runs)) => print(&runs.text())?,
            (Format::Markdown, Found::Comparison(results)) => print(results.markdown().trim_end())?,
            (Format::Markdown, Found::Runs(runs)) => print(runs.markdown().trim_end())?,
            (Format::Csv, Found::Comparison(results)) => print(results.csv().trim_end())?,
            (Format::Csv, Found::Runs(runs)) => print(runs.csv().trim_end())?,
            (Format::Json, Found::Comparison(results)) => print_json(results)?,
            (Format::Json, Found::Runs(runs)) => print_json(runs)?,
            (Format::Html, Found::Comparison(results)) => print(page(results).trim_end())?,
            (Format::Html, Found::Runs(_)) => {
                let message = "`--format html` is for comparisons, not for runs";
                return Err(usage(message).hint("text, markdown, csv and json are possible").into());
            }
        }
        return Ok(0);
    };
    let (document, count) = with_tables(&files::read_text(path)?, |key| found.table(key))
        .map_err(|error| error.context(format!("cannot put tables into {}", path.display())))?;
    if count == 0 {
        let of = args.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = format!("{} has no marker for any table of {of}", path.display());
        let hint = format!(
            "`<!-- senet report KEY -->` and `<!-- end of report -->`, where KEY is {}",
            found.keys().join(", ")
        );
        return Err(failed(message).hint(hint).into());
    }
    files::write_atomic(path, document.as_bytes())?;
    note(&format!("{count} table(s) put into {}", path.display()));
    Ok(0)
}
