//! Draws a plot of points: means with their error bars, single figures beside them, names, a line across.

use super::axis::{Axis, Spacing};
use super::canvas::{CAP, Canvas, LONGEST};
use super::labels::{Area, Label, Placed, arrange};
use super::svg::{LINE, shortened, text_width, wrap};
use super::{Chosen, Plot, Point};

/// Room for the label of a point.
const LABEL: f64 = 120.0;
/// How far the small dots lie beside the mean that they belong to.
const ASIDE: f64 = 9.0;

/// Draws all of a plot.
pub fn draw(plot: &Plot) -> String {
    let mut canvas = laid_out(plot);
    reference(&mut canvas, plot);
    if plot.is_joined {
        let places =
            plot.drawable().map(|point| (canvas.chosen_at(point.at), canvas.measured_at(point.mean)));
        let path = canvas.trail(places);
        canvas.path("joined", &path);
    }
    let (controls, others): (Vec<_>, Vec<_>) = plot.drawable().partition(|point| point.is_control);
    others.into_iter().chain(controls).for_each(|one| point(&mut canvas, one)); // the control on top
    if plot.is_labelled {
        labels(&mut canvas, plot);
    }
    canvas.finish(&plot.description)
}

/// The axes and the legend.
fn laid_out(plot: &Plot) -> Canvas {
    let keys = plot.keys();
    let measured = plot.measured_figures();
    match &plot.chosen {
        Chosen::Names(names) => Canvas::lying(&keys, names, &plot.measured, |room| {
            Axis::fitting(Spacing::Linear, &measured, room)
        }),
        Chosen::Figures { title, spacing } => {
            let figures: Vec<f64> = plot.drawable().map(|point| point.at).collect();
            let chosen = |room| Axis::fitting(*spacing, &figures, room);
            let measured = Axis::over(Spacing::Linear, &measured, 6);
            Canvas::upright(&keys, (title, chosen), (&plot.measured, measured))
        }
    }
}

/// The line across, and its band.
fn reference(canvas: &mut Canvas, plot: &Plot) {
    let Some(line) = plot.drawable_reference() else { return };
    let (from, to) = canvas.chosen_ends();
    if let Some(deviation) = line.spread() {
        let [low, high] = [line.mean - deviation, line.mean + deviation].map(|end| canvas.measured_at(end));
        let band = canvas.trail([(from, low), (to, low), (to, high), (from, high)].into_iter());
        canvas.path("band", &format!("{band}Z"));
    }
    let middle = canvas.measured_at(line.mean);
    let path = canvas.trail([(from, middle), (to, middle)].into_iter());
    canvas.path("reference", &path);
}

/// Error bar, mean and single figures, with their tooltips.
fn point(canvas: &mut Canvas, point: &Point) {
    let (at, mean) = (canvas.chosen_at(point.at), canvas.measured_at(point.mean));
    let control = if point.is_control { " control" } else { "" };
    canvas.group(&point.exact, |canvas| {
        if let Some(ends) = ends(canvas, point) {
            let bar = canvas.error_bar(at, ends);
            canvas.path(&format!("bar{control}"), &bar);
        }
        let (x, y) = canvas.spot(at, mean);
        if point.is_control {
            canvas.path("mean control", &format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5Z", y - 5.0));
        } else {
            canvas.circle("mean", (x, y), 3.6);
        }
        canvas.circle("target", (x, y), 9.0);
    });
    for (figure, title) in point.singles.iter().filter(|(figure, _)| Spacing::Linear.holds(*figure)) {
        let spot = canvas.spot(at + ASIDE, canvas.measured_at(*figure));
        canvas.group(title, |canvas| canvas.circle(&format!("single{control}"), spot, 2.0));
    }
}

/// The ends of its error bar along the measured axis.
fn ends(canvas: &Canvas, point: &Point) -> Option<[f64; 2]> {
    let deviation = point.spread()?;
    Some([point.mean - deviation, point.mean + deviation].map(|end| canvas.measured_at(end)))
}

/// Names beside points. One that has no place without hiding another is left to its tooltip.
fn labels(canvas: &mut Canvas, plot: &Plot) {
    let mut points: Vec<&Point> = plot.drawable().collect();
    // From the top, so that labels of one stack lie in the order of their points.
    points.sort_by(|one, other| other.mean.total_cmp(&one.mean));
    let marks: Vec<Area> =
        points.iter().flat_map(|point| marks(canvas, point)).chain(line_mark(canvas, plot)).collect();
    let names: Vec<Vec<String>> =
        points.iter().map(|point| wrap(&shortened(&point.label, LONGEST), LABEL)).collect();
    let label = |(point, lines): (&&Point, &Vec<String>)| {
        let width = lines.iter().map(|line| text_width(line)).fold(0.0, f64::max);
        let point = canvas.spot(canvas.chosen_at(point.at), canvas.measured_at(point.mean));
        Label { point, size: (width, LINE * lines.len() as f64) }
    };
    let labels: Vec<Label> = points.iter().zip(&names).map(label).collect();
    let placed = arrange(&labels, &canvas.frame, &marks);
    for [from, to] in placed.iter().flatten().filter_map(|placed| placed.tie) {
        canvas.path("tie", &format!("M{:.1} {:.1}L{:.1} {:.1}", from.0, from.1, to.0, to.1));
    }
    // Above all ties.
    for ((label, lines), placed) in labels.iter().zip(&names).zip(placed) {
        let Some(Placed { area, .. }) = placed else { continue };
        let is_before = area.left + area.right < 2.0 * label.point.0;
        let (x, anchor) = if is_before { (area.right, "end") } else { (area.left, "start") };
        canvas.lines((x, area.top), "label", anchor, lines);
    }
}

/// What labels must not hide: a mean and its error bar.
fn marks(canvas: &Canvas, point: &Point) -> [Area; 2] {
    let (x, y) = canvas.spot(canvas.chosen_at(point.at), canvas.measured_at(point.mean));
    let [low, high] = ends(canvas, point).unwrap_or([y, y]);
    let bar = Area { left: x - CAP - 1.0, top: high, right: x + CAP + 1.0, bottom: low };
    [Area::of(x - 6.0, y - 6.0, 12.0, 12.0), bar]
}

/// The same of the line across: thin, since text above it can still be read.
fn line_mark(canvas: &Canvas, plot: &Plot) -> Option<Area> {
    let Area { left, right, .. } = canvas.frame;
    let y = canvas.measured_at(plot.drawable_reference()?.mean);
    Some(Area { left, right, top: y - 0.4, bottom: y + 0.4 })
}
