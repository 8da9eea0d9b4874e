//! A comparison as text: tables for a terminal and for documents, and a line for each run for a spreadsheet.

use super::{Comparison, Difference, Entry, PaperFigures, Results, RowResult, Run, State};
use crate::report::csv::quoted;
use crate::report::table::{Table, grouped, percent};
use std::fmt;

/// A column of a table: its heading, and a cell for each row that has one.
type Column = (String, Vec<Option<String>>);

impl Results {
    /// One comparison as a table. Columns of which nothing is known are left out.
    pub fn table(&self, comparison: &Comparison) -> Table {
        let entries = &comparison.entries;
        let rows: Vec<&RowResult> = entries.iter().filter_map(|entry| self.row(&entry.row)).collect();
        let of_row = |heading: &str, cell: fn(&RowResult) -> Option<String>| -> Column {
            (heading.to_string(), rows.iter().map(|row| cell(row)).collect())
        };
        let of_entry = |heading: String, cell: fn(&Entry) -> Option<String>| -> Column {
            (heading, entries.iter().map(cell).collect())
        };
        let control = entries.iter().find(|entry| entry.row == comparison.control);
        let control = control.map_or("control", |entry| entry.label.as_str());
        let columns = [
            (String::new(), entries.iter().map(|entry| Some(entry.label.clone())).collect()),
            of_row("top-1 error", |row| {
                row.failure().map(|_| "failed".to_string()).or(row.error(RowResult::top1))
            }),
            of_row("top-5 error", |row| row.error(RowResult::top5)),
            of_entry(format!("top-1 − {control}"), |entry| Some(entry.top1_difference?.to_string())),
            of_row("parameters", |row| Some(grouped(row.params))),
            of_row("multiply-adds", |row| Some(grouped(row.macs))),
            of_row("img/s train / eval", |row| {
                let (train, eval) = (row.train_images_per_second, row.eval_images_per_second);
                pair(train.map(|speed| format!("{speed:.0}")), eval.map(|speed| format!("{speed:.0}")))
            }),
            of_row("about", |row| Some(rough(row.estimated_seconds?))),
            of_entry("paper: top-1 / 5, %".to_string(), |entry| {
                let PaperFigures { top1_error, top5_error, .. } = entry.paper?;
                Some(format!("{:.2} / {:.2}", 100.0 * top1_error, 100.0 * top5_error))
            }),
            of_entry("paper: parameters / MACs".to_string(), |entry| {
                let PaperFigures { params_millions, giga_macs, .. } = entry.paper?;
                pair(
                    params_millions.map(|params| format!("{params:.1} M")),
                    giga_macs.map(|macs| format!("{macs:.2} G")),
                )
            }),
        ];
        Table::of_columns(columns.into_iter().filter(|(_, cells)| cells.iter().any(Option::is_some)))
    }

    /// For a terminal: a table for each comparison, with what must be known about it.
    pub fn text(&self) -> String {
        let part = |comparison: &Comparison| {
            let note = comparison.note.as_ref().map_or(String::new(), |note| format!("\n{note}"));
            format!("{}\n{}{note}", comparison.heading(), self.table(comparison).text())
        };
        let mut parts = vec![self.setting.join("\n")];
        parts.extend(self.comparisons.iter().map(part));
        parts.extend(self.remarks());
        parts.join("\n\n")
    }

    /// The same for a document.
    pub fn markdown(&self) -> String {
        let mut parts = vec![format!("# {}: {}", self.model, self.title), self.setting.join("\n\n")];
        for comparison in &self.comparisons {
            parts.push(format!("## {}", comparison.heading()));
            parts.push(self.table(comparison).markdown().trim_end().to_string());
            parts.extend(comparison.note.clone());
        }
        parts.extend(self.remarks());
        parts.join("\n\n") + "\n"
    }

    /// Data, recipe, seeds, and how the figures are to be read, for a document.
    pub fn setting_markdown(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(u64::to_string).collect();
        let done: usize = self.rows.iter().map(|row| row.done().count()).sum();
        let mut lines = self.setting.clone();
        lines.push(format!("seeds {}; {done} runs", seeds.join(", ")));
        lines.extend(self.remarks());
        lines.iter().map(|line| format!("* {line}")).collect::<Vec<_>>().join("\n")
    }

    /// A line for each run of each comparison, for a spreadsheet or a data frame. Errors are fractions of 1.
    pub fn csv(&self) -> String {
        let mut lines = vec![
            "comparison,label,row,model,reduction,seed,state,top1_error,top5_error,params,macs,train_images_per_second,\
             eval_images_per_second,paper_top1_error,paper_top5_error,paper_params_millions,paper_giga_macs"
                .to_string(),
        ];
        for comparison in &self.comparisons {
            let rows = comparison.entries.iter().filter_map(|entry| Some((entry, self.row(&entry.row)?)));
            lines.extend(rows.flat_map(|(entry, row)| {
                row.runs.iter().map(|run| csv_line(&comparison.key, entry, row, run)).collect::<Vec<_>>()
            }));
        }
        lines.join("\n") + "\n"
    }

    /// What stands below the tables: how to read them, what failed, what was left out.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self
            .comparisons
            .iter()
            .any(|comparison| comparison.entries.iter().any(|entry| entry.paper.is_some()))
        {
            remarks.push("paper: SE-ResNet-50 on ImageNet, r = 16 unless varied, one crop".to_string());
        }
        let estimated: f64 = self.rows.iter().filter_map(|row| row.estimated_seconds).sum();
        if estimated > 0.0 {
            remarks.push(format!(
                "about {} for all, on this machine and as busy as it is now",
                rough(estimated)
            ));
        }
        if self.rows.iter().any(|row| row.top1_error.is_some()) {
            remarks.push(READING.to_string());
        }
        if self.speeds_are_in_turns {
            remarks.push("img/s: medians of steps on made-up images, all rows in turns".to_string());
        } else if self.rows.iter().any(|row| row.train_images_per_second.is_some()) {
            remarks.push(
                "img/s: medians of the runs, loading included, whatever else the machine did".to_string(),
            );
        }
        let failed = self.failures().into_iter();
        remarks
            .extend(failed.map(|(label, seed, message)| format!("failed: {label}, seed {seed}: {message}")));
        remarks.extend(self.left_out.iter().map(|what| format!("left out: {what}")));
        remarks
    }
}

fn csv_line(comparison: &str, entry: &Entry, row: &RowResult, run: &Run) -> String {
    let (state, done) = match &run.state {
        State::Done(measured) => ("done", Some(measured)),
        State::Failed { .. } => ("failed", None),
        State::Open => ("open", None),
    };
    let paper = entry.paper;
    let figures = [
        done.map(|run| 1.0 - run.eval.top1.accuracy),
        done.map(|run| 1.0 - run.eval.top5.accuracy),
        Some(row.params as f64),
        Some(row.macs as f64),
        done.and_then(|run| run.train_images_per_second),
        done.and_then(|run| run.eval_images_per_second),
        paper.map(|paper| paper.top1_error),
        paper.map(|paper| paper.top5_error),
        paper.and_then(|paper| paper.params_millions),
        paper.and_then(|paper| paper.giga_macs),
    ];
    let mut cells = [comparison, &entry.label, &row.key, &row.model].map(quoted).to_vec();
    cells.push(row.reduction.map_or(String::new(), |reduction| reduction.to_string()));
    cells.extend([run.seed.to_string(), state.to_string()]);
    cells.extend(figures.map(|figure| figure.map_or(String::new(), |figure| figure.to_string())));
    cells.join(",")
}

/// How figures are to be read.
const READING: &str = "± is one standard deviation over seeds; of a difference, half the 95 % interval of the mean of \
                           pairs with equal seeds and data order (Student's t), and ≠ marks one that excludes 0: of \
                           twenty comparisons of equals, one does";

impl Comparison {
    /// What stands above its table.
    pub fn heading(&self) -> String {
        match self.paper_table {
            Some(number) => format!("{} (paper Table {number})", self.title),
            None => self.title.clone(),
        }
    }
}

impl RowResult {
    fn top1(&self) -> (Option<f64>, Option<f64>) {
        (self.top1_error, self.top1_deviation)
    }

    fn top5(&self) -> (Option<f64>, Option<f64>) {
        (self.top5_error, self.top5_deviation)
    }

    /// `9.10 ± 0.12 %`.
    fn error(&self, figure: fn(&Self) -> (Option<f64>, Option<f64>)) -> Option<String> {
        match figure(self) {
            (Some(mean), Some(deviation)) => {
                Some(format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * deviation))
            }
            (mean, _) => mean.map(percent),
        }
    }
}

impl fmt::Display for Difference {
    /// `+0.12 ± 0.30`, in percentage points, with a mark where it can be told from noise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.2}", 100.0 * self.mean)?;
        match (self.half_width, self.is_distinguishable) {
            (Some(half_width), Some(true)) => write!(f, " ± {:.2} ≠", 100.0 * half_width),
            (Some(half_width), _) => write!(f, " ± {:.2}  ", 100.0 * half_width),
            (None, _) => Ok(()),
        }
    }
}

/// Two figures in one cell, if one of them is known.
fn pair(one: Option<String>, other: Option<String>) -> Option<String> {
    let or_dash = |figure: &Option<String>| figure.clone().unwrap_or_else(|| "–".to_string());
    (one.is_some() || other.is_some()).then(|| format!("{} / {}", or_dash(&one), or_dash(&other)))
}

/// A rough length of time: `40 s`, `12 min`, `3.5 h`, `4 d`.
fn rough(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 48.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::rough;

    #[test]
    fn lengths_of_time_are_rough() {
        assert_eq!([40.0, 720.0, 12_600.0, 345_600.0].map(rough), ["40 s", "12 min", "3.5 h", "4 d"]);
    }
}
