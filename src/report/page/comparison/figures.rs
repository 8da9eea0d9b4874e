//! Which plots a comparison gets, and what is said below each.

use crate::report::comparison::{Comparison, Entry, Results, RowResult};
use crate::report::plot::{Chosen, Plot, Point, Reference, Spacing, escape};
use crate::report::table::grouped;

/// The comparison that has an axis of its own.
const RATIOS: &str = "ratios";
/// From this factor between the ends on, an axis of costs is logarithmic.
const WIDE: f64 = 20.0;

/// An entry of a comparison with its row.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What it is called, and how far it is from the control.
    pub entry: &'a Entry,
    /// What was measured.
    pub row: &'a RowResult,
    /// Whether it is the control itself.
    pub is_control: bool,
}

/// The lines of a comparison, in its order.
pub fn lines<'a>(results: &'a Results, comparison: &'a Comparison) -> Vec<Line<'a>> {
    let line = |entry: &'a Entry| {
        let row = results.row(&entry.row)?;
        Some(Line { entry, row, is_control: entry.row == comparison.control })
    };
    comparison.entries.iter().filter_map(line).collect()
}

/// All plots of a comparison, as markup; empty while no row has a figure.
pub fn figures(comparison: &Comparison, lines: &[Line]) -> String {
    let finished: Vec<Line> = lines.iter().copied().filter(|line| error(line).is_some()).collect();
    if finished.is_empty() {
        return String::new();
    }
    let ratios = (comparison.key == RATIOS).then(|| against_ratio(&finished)).flatten();
    let main = ratios.unwrap_or_else(|| side_by_side(&comparison.title, &finished));
    let multiply_adds =
        against_cost(&finished, "multiply-adds", "multiply-adds for one image", |row| row.macs);
    let parameters = against_cost(&finished, "parameters", "trainable parameters", |row| row.params);
    let figures = [Some(main), multiply_adds, parameters].into_iter().flatten();
    format!("<div class=\"figures\">\n{}</div>\n", figures.collect::<String>())
}

/// Top-1 error against the reduction ratio; `None` when fewer than two finished rows have one.
fn against_ratio(finished: &[Line]) -> Option<String> {
    let mut points: Vec<Point> = finished
        .iter()
        .filter_map(|line| point(line, line.row.reduction? as f64, true))
        .filter(|point| Spacing::Log2.holds(point.at))
        .collect();
    points.sort_by(|one, other| one.at.total_cmp(&other.at));
    let plot = Plot {
        description: "Top-1 error against the reduction ratio".into(),
        chosen: Chosen::Figures { title: "reduction ratio r".into(), spacing: Spacing::Log2 },
        measured: "top-1 error, %".into(),
        points,
        is_joined: true,
        is_labelled: false,
        reference: reference(finished, true),
    };
    (plot.points.len() > 1).then(|| figure(&plot, ""))
}

/// Top-1 error of each row, one below the other.
fn side_by_side(title: &str, finished: &[Line]) -> String {
    let points =
        finished.iter().enumerate().filter_map(|(row, line)| point(line, row as f64, true)).collect();
    let plot = Plot {
        description: format!("Top-1 error: {title}"),
        chosen: Chosen::Names(finished.iter().map(|line| line.entry.label.clone()).collect()),
        measured: "top-1 error, %".into(),
        points,
        is_joined: false,
        is_labelled: false,
        reference: reference(finished, true),
    };
    figure(&plot, "")
}

/// Top-1 error against what a network costs; `None` where all rows cost the same.
fn against_cost(finished: &[Line], noun: &str, title: &str, cost: fn(&RowResult) -> i64) -> Option<String> {
    let costs = || finished.iter().map(|line| cost(line.row));
    let (least, most) = (costs().min()?, costs().max()?);
    if least == most {
        return None;
    }
    let is_wide = least > 0 && most as f64 / least as f64 > WIDE;
    let spacing = if is_wide { Spacing::Log10 } else { Spacing::Linear };
    let plot = Plot {
        description: format!("Top-1 error against {noun}"),
        chosen: Chosen::Figures { title: title.into(), spacing },
        measured: "top-1 error, %".into(),
        points: finished.iter().filter_map(|line| point(line, cost(line.row) as f64, false)).collect(),
        is_joined: false,
        is_labelled: true,
        reference: reference(finished, false),
    };
    Some(figure(
        &plot,
        &format!(" From {} to {} {noun}{}.", grouped(least), grouped(most), ratio(least, most)),
    ))
}

/// How much more the most is than the least, in brackets: an axis alone can make little look like much.
fn ratio(least: i64, most: i64) -> String {
    let ratio = most as f64 / least as f64;
    match 100.0 * (ratio - 1.0) {
        _ if least <= 0 => String::new(),
        more if more < 0.01 => " (less than 0.01\u{a0}% more)".into(),
        more if more < 1.0 => format!(" ({more:.2}\u{a0}% more)"),
        more if more < 100.0 => format!(" ({more:.1}\u{a0}% more)"),
        more if more < 900.0 => format!(" ({ratio:.1} times as many)"),
        _ => format!(" ({ratio:.0} times as many)"),
    }
}

/// A plot with what its marks mean.
fn figure(plot: &Plot, remark: &str) -> String {
    let has = |test: fn(&Point) -> bool| plot.points.iter().any(test);
    let marks = match (has(|point| point.deviation.is_some()), has(|point| !point.singles.is_empty())) {
        (false, _) => "Each mark is one run, so no spread can be shown.",
        (true, false) => "Large marks are means over seeds; bars are ± one standard deviation over seeds.",
        (true, true) => {
            "Large marks are means over seeds; bars are ± one standard deviation over seeds; \
             the small dots beside them are single seeds."
        }
    };
    let is_mixed = has(|point| point.deviation.is_some()) && has(|point| point.deviation.is_none());
    let mixed = if is_mixed { " A mark without a bar is one run." } else { "" };
    let reference = match &plot.reference {
        Some(Reference { deviation: Some(_), .. }) => {
            " Line and band: mean ± one standard deviation of the control."
        }
        Some(_) if has(|point| point.deviation.is_some()) => " The line is the mean of the control.",
        Some(_) => " The line is the control.",
        None => "",
    };
    format!(
        "<figure>\n{}<figcaption><strong>{}.</strong> {marks}{mixed}{reference}{}</figcaption>\n</figure>\n",
        plot.svg(),
        escape(&plot.description),
        escape(remark)
    )
}

/// Mean top-1 error in per cent, if it is known.
fn error(line: &Line) -> Option<f64> {
    line.row.top1_error.map(|error| 100.0 * error).filter(|error| error.is_finite())
}

fn deviation(line: &Line) -> Option<f64> {
    line.row.top1_deviation.map(|deviation| 100.0 * deviation).filter(|deviation| deviation.is_finite())
}

fn point(line: &Line, at: f64, with_singles: bool) -> Option<Point> {
    let mean = error(line)?;
    let deviation = deviation(line);
    let singles = line.row.done().map(|(seed, run)| {
        let error = 100.0 * (1.0 - run.eval.top1.accuracy);
        (error, format!("{}, seed {seed}: {error:.2} %", line.entry.label))
    });
    // A single seed is the mean itself.
    let singles = if with_singles && deviation.is_some() { singles.collect() } else { Vec::new() };
    let spread = deviation.map_or_else(String::new, |deviation| format!(" ± {deviation:.2}"));
    let (macs, params) = (grouped(line.row.macs), grouped(line.row.params));
    Some(Point {
        label: line.entry.label.clone(),
        at,
        mean,
        deviation,
        singles,
        exact: format!(
            "{}: top-1 error {mean:.2}{spread} %, {macs} multiply-adds, {params} parameters",
            line.entry.label
        ),
        is_control: line.is_control,
    })
}

/// The control's line, if the control is finished.
fn reference(finished: &[Line], with_band: bool) -> Option<Reference> {
    let control = finished.iter().find(|line| line.is_control)?;
    let label = format!("control: {}", control.entry.label);
    Some(Reference { label, mean: error(control)?, deviation: deviation(control).filter(|_| with_band) })
}
