//! The table of a comparison: one column a figure, the paper's set apart.

use super::super::html_table::{self, Column};
use super::figures::Line;
use crate::report::comparison::{Difference, PaperFigures};
use crate::report::plot::{escape, shortened};
use crate::report::table::grouped;

/// Letters of an error message that a table shows; the list of failed runs has all of it.
const MESSAGE: usize = 90;

const ERROR: &str = "error, %";
const AGAINST: &str = "top-1 from control, points";
const COST: &str = "cost";
const SPEED: &str = "images a second";
/// The heading of the paper's columns.
pub const PAPER: &str = "paper, ImageNet";

/// The columns, without the paper's that no row has.
fn columns<'a>(lines: &[Line<'a>]) -> Vec<Column<Line<'a>>> {
    let columns = [
        Column::of(ERROR, "top-1", "", top1),
        Column::of(ERROR, "top-5", "", |line| spread(line.row.top5_error, line.row.top5_deviation)),
        Column::of(AGAINST, "difference", "", difference),
        Column::of(AGAINST, "verdict", "verdict", verdict),
        Column::of(COST, "parameters", "", |line| Some(grouped(line.row.params))),
        Column::of(COST, "multiply-adds", "", |line| Some(grouped(line.row.macs))),
        Column::of(SPEED, "training", "", |line| speed(line.row.train_images_per_second)),
        Column::of(SPEED, "evaluation", "", |line| speed(line.row.eval_images_per_second)),
        Column::of(PAPER, "top-1, %", "paper", |line| paper(line, |paper| Some(100.0 * paper.top1_error), 2)),
        Column::of(PAPER, "top-5, %", "paper", |line| paper(line, |paper| Some(100.0 * paper.top5_error), 2)),
        Column::of(PAPER, "params, M", "paper", |line| paper(line, |paper| paper.params_millions, 1)),
        Column::of(PAPER, "GMACs", "paper", |line| paper(line, |paper| paper.giga_macs, 2)),
    ];
    let is_shown = |column: &Column<Line<'a>>| {
        column.group != PAPER || lines.iter().any(|line| (column.cell)(line).is_some())
    };
    columns.into_iter().filter(is_shown).collect()
}

/// The table of all lines.
pub fn table(lines: &[Line], seeds: usize) -> String {
    let columns = columns(lines);
    let rows: String = lines.iter().map(|line| row(line, &columns, seeds)).collect();
    html_table::table("", &columns, &rows)
}

fn row<'a>(line: &Line<'a>, columns: &[Column<Line<'a>>], seeds: usize) -> String {
    let class = if line.is_control { "control" } else { "" };
    let name = escape(&line.entry.label) + &state(line, seeds);
    html_table::row(class, &name, columns, line) + &failure(line, columns.len())
}

/// A row below that of a row with a failed run, which says why.
fn failure(line: &Line, columns: usize) -> String {
    let Some(message) = line.row.failure() else { return String::new() };
    let first = shortened(message.lines().next().unwrap_or_default(), MESSAGE);
    format!(
        "<tr class=\"message\"><td colspan=\"{}\"><div><span class=\"failed\">failed</span>: {}</div></td></tr>\n",
        columns + 1,
        escape(&first)
    )
}

/// What must be known of a row beside its figures.
fn state(line: &Line, seeds: usize) -> String {
    let mut notes = Vec::new();
    if line.is_control {
        notes.push("<span class=\"tag\">control</span>".to_string());
    }
    match line.row.done().count() {
        done if done >= seeds => {}
        0 if line.row.failure().is_some() => {}
        0 => notes.push("not finished".to_string()),
        done => notes.push(format!("{done} of {seeds} seeds")),
    }
    notes.iter().map(|note| format!("<span class=\"state\">{note}</span>")).collect()
}

fn top1(line: &Line) -> Option<String> {
    let failed = || line.row.failure().map(|_| "<span class=\"failed\">failed</span>".to_string());
    spread(line.row.top1_error, line.row.top1_deviation).or_else(failed)
}

fn difference(line: &Line) -> Option<String> {
    if line.is_control {
        return Some(String::new());
    }
    let Difference { mean, half_width, .. } = line.entry.top1_difference?;
    let half_width = half_width.and_then(|width| points(width, 2));
    let half_width = half_width.map_or_else(String::new, |width| format!(" ± {width}"));
    Some(signed(mean)? + &half_width)
}

/// Whether the difference can be told from noise.
fn verdict(line: &Line) -> Option<String> {
    if line.is_control {
        return Some(String::new());
    }
    let difference = line.entry.top1_difference.filter(|difference| difference.mean.is_finite());
    let Some(difference) = difference else { return Some(String::new()) };
    // The control may have fewer seeds than the row.
    let pairs = match difference.pairs {
        pairs if pairs > 1 && pairs < line.row.done().count() => format!(", {pairs} seeds"),
        _ => String::new(),
    };
    let (class, word) = match difference.is_distinguishable {
        Some(true) => ("clear", "clear"),
        Some(false) => ("noise", "within noise"),
        None => ("noise", "one seed"),
    };
    Some(format!("<span class=\"{class}\">{word}{pairs}</span>"))
}

/// Mean ± standard deviation in per cent.
fn spread(mean: Option<f64>, deviation: Option<f64>) -> Option<String> {
    let mean = points(mean?, 2)?;
    let deviation = deviation.and_then(|deviation| points(deviation, 2));
    Some(deviation.map_or_else(|| mean.clone(), |deviation| format!("{mean} ± {deviation}")))
}

/// A fraction in per cent.
fn points(fraction: f64, decimals: usize) -> Option<String> {
    fraction.is_finite().then(|| format!("{:.decimals$}", 100.0 * fraction))
}

/// A difference of fractions in points, with its sign: none where it rounds to nothing.
fn signed(fraction: f64) -> Option<String> {
    let text = points(fraction.abs(), 2)?;
    let sign = match fraction {
        _ if text.bytes().all(|byte| matches!(byte, b'0' | b'.')) => "",
        fraction if fraction < 0.0 => "−",
        _ => "+",
    };
    Some(format!("{sign}{text}"))
}

fn speed(images: Option<f64>) -> Option<String> {
    let images = images.filter(|images| images.is_finite())?;
    Some(if images < 100.0 { format!("{images:.1}") } else { grouped(images.round() as i64) })
}

fn paper(line: &Line, figure: fn(&PaperFigures) -> Option<f64>, decimals: usize) -> Option<String> {
    let figure = line.entry.paper.as_ref().and_then(figure).filter(|figure| figure.is_finite())?;
    Some(format!("{figure:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_a_sign_unless_it_rounds_to_nothing() {
        assert_eq!(signed(0.0012).as_deref(), Some("+0.12"));
        assert_eq!(signed(-0.0102).as_deref(), Some("−1.02"));
        assert_eq!(signed(-0.000_001).as_deref(), Some("0.00"));
        assert_eq!(signed(f64::NAN), None);
    }

    #[test]
    fn one_seed_has_no_deviation() {
        assert_eq!(spread(Some(0.0843), None).as_deref(), Some("8.43"));
        assert_eq!(spread(Some(0.0843), Some(0.002)).as_deref(), Some("8.43 ± 0.20"));
        assert_eq!(spread(None, None), None);
    }
}
