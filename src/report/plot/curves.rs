//! Draws curves: lines over an axis of whole numbers, some with a band, and a tooltip for each number.

use super::axis::Axis;
use super::canvas::Canvas;
use super::{Curve, CurvePoint, Curves};

/// Ticks of the measured axis.
const TICKS: usize = 6;
/// Radius of a point that no neighbour makes a line of.
const DOT: f64 = 2.4;

/// Draws all curves, the first at the bottom.
pub fn draw(curves: &Curves) -> String {
    let (low, high) = curves.measured_range;
    let measured = Axis::holding(low, high, &curves.measured_figures(), TICKS);
    let chosen = |room| Axis::counts(curves.last, room);
    let mut canvas = Canvas::upright(&[], (&curves.title, chosen), (&curves.measured, measured));
    for curve in &curves.curves {
        runs(curve).for_each(|run| band(&mut canvas, curve, run));
    }
    for curve in &curves.curves {
        runs(curve).for_each(|run| line(&mut canvas, curve, run));
    }
    tooltips(&mut canvas, &curves.exact);
    canvas.finish(&curves.description)
}

/// The stretches of a curve without a gap.
fn runs(curve: &Curve) -> impl Iterator<Item = &[CurvePoint]> {
    curve.points.split(|point| !point.is_drawable()).filter(|run| !run.is_empty())
}

fn line(canvas: &mut Canvas, curve: &Curve, run: &[CurvePoint]) {
    let place = |point: &CurvePoint| (canvas.chosen_at(point.at), canvas.measured_at(point.mean));
    if let [point] = run {
        let (at, mean) = place(point);
        canvas.circle(&format!("dot {}", curve.class), canvas.spot(at, mean), DOT);
        return;
    }
    let path = canvas.trail(run.iter().map(place));
    canvas.path(&format!("curve {}", curve.class), &path);
}

/// From the upper edge and back along the lower; of a point alone, an error bar.
fn band(canvas: &mut Canvas, curve: &Curve, run: &[CurvePoint]) {
    let edges: Option<Vec<(f64, [f64; 2])>> = run.iter().map(|point| edge(canvas, point)).collect();
    match edges.as_deref() {
        None => {}
        Some(&[(at, ends)]) => {
            let bar = canvas.error_bar(at, ends);
            canvas.path(&format!("curve {}", curve.class), &bar);
        }
        Some(edges) => {
            let upper = edges.iter().map(|(at, [_, high])| (*at, *high));
            let lower = edges.iter().rev().map(|(at, [low, _])| (*at, *low));
            let outline = canvas.trail(upper.chain(lower));
            canvas.path(&format!("spread {}", curve.class), &format!("{outline}Z"));
        }
    }
}

/// Where a point lies, and the ends of its band there.
fn edge(canvas: &Canvas, point: &CurvePoint) -> Option<(f64, [f64; 2])> {
    let ends = point.ends()?;
    Some((canvas.chosen_at(point.at), ends.map(|end| canvas.measured_at(end))))
}

/// For each number a stripe that reaches half-way to its neighbours.
fn tooltips(canvas: &mut Canvas, exact: &[(f64, String)]) {
    let frame = canvas.frame;
    let at: Vec<f64> = exact.iter().map(|(at, _)| canvas.chosen_at(*at)).collect();
    let halfway = |one: usize, other: usize| at.get(other).map(|other| (at[one] + other) / 2.0);
    for (number, (_, text)) in exact.iter().enumerate() {
        let before = number.checked_sub(1).and_then(|before| halfway(number, before)).unwrap_or(frame.left);
        let after = halfway(number, number + 1).unwrap_or(frame.right);
        let stripe = format!("M{before:.1} {:.1}H{after:.1}V{:.1}H{before:.1}Z", frame.top, frame.bottom);
        canvas.group(text, |canvas| canvas.path("stripe", &stripe));
    }
}
