//! What a plot is drawn on: a frame between two axes, marks in it, a legend above it.

use super::axis::{Axis, Tick};
use super::labels::Area;
use super::svg::{LETTERS, LINE, escape, shortened, text_width, wrap};
use std::fmt::Write;

/// Width of a drawing; a page shows it a little larger, a phone a little smaller.
const WIDTH: f64 = 420.0;
/// Height of the part of an upright plot that holds marks.
const HEIGHT: f64 = 210.0;
/// Room at the right for half a tick label.
const RIGHT: f64 = 24.0;
/// Room below for tick labels and the name of the axis.
const BELOW: f64 = 46.0;
/// Least height of a row.
const ROW: f64 = 34.0;
/// Room for names beside rows; longer ones are broken into lines.
const NAMES: f64 = 145.0;
/// Half the length of the cap of an error bar.
pub const CAP: f64 = 4.0;
/// From a baseline to the middle of its letters.
const HALF: f64 = 0.35 * LETTERS;

/// Letters of a name that a drawing shows; tooltips and tables have all of it.
pub const LONGEST: usize = 60;

/// A key of a legend: a drawing 18 wide about the line y = 0, and its meaning.
pub type Key = (&'static str, String);

/// The axes of a plot and what is drawn between them. One axis is of what was chosen, the other of what was measured.
pub struct Canvas {
    /// Where the marks are.
    pub frame: Area,
    chosen: Axis,
    measured: Axis,
    /// Whether rows of names lie one below the other.
    is_lying: bool,
    svg: String,
}

impl Canvas {
    /// Rows of names, the measured axis below them. An axis is made for the room that it has.
    pub fn lying(keys: &[Key], names: &[String], title: &str, measured: impl FnOnce(f64) -> Axis) -> Self {
        let (svg, top) = legend(keys);
        let names: Vec<_> = names.iter().map(|name| wrap(&shortened(name, LONGEST), NAMES)).collect();
        let left = 14.0 + names.iter().flatten().map(|line| text_width(line)).fold(0.0, f64::max);
        let lines = names.iter().map(Vec::len).max().unwrap_or(1);
        let row = (LINE * lines as f64 + 10.0).max(ROW);
        let frame = Area::of(left, top + 4.0, WIDTH - left - RIGHT, row * names.len() as f64);
        let measured = measured(frame.right - frame.left);
        let chosen = Axis::steps(names.len().max(1));
        let mut canvas = Self { frame, chosen, measured, is_lying: true, svg };
        for (number, lines) in names.iter().enumerate() {
            let y = canvas.chosen_at(number as f64);
            canvas.path("grid", &format!("M{left:.1} {y:.1}H{:.1}", frame.right));
            let first = y - LINE * lines.len() as f64 / 2.0;
            canvas.lines((left - 10.0, first), "name", "end", lines);
        }
        for Tick { at, label } in canvas.measured.ticks.clone() {
            let x = canvas.measured_at(at);
            canvas.path("grid", &format!("M{x:.1} {:.1}V{:.1}", frame.top, frame.bottom));
            canvas.text((x, frame.bottom + 18.0), "tick", "middle", &label);
        }
        canvas.bottom(title);
        canvas
    }

    /// The measured axis at the left, that of what was chosen below; each with its title.
    pub fn upright(
        keys: &[Key],
        (chosen_title, chosen): (&str, impl FnOnce(f64) -> Axis),
        (measured_title, measured): (&str, Axis),
    ) -> Self {
        let (svg, top) = legend(keys);
        let left = 10.0 + measured.ticks.iter().map(|tick| text_width(&tick.label)).fold(RIGHT, f64::max);
        let frame = Area::of(left, top + 24.0, WIDTH - left - RIGHT, HEIGHT);
        let chosen = chosen(frame.right - frame.left);
        let mut canvas = Self { frame, chosen, measured, is_lying: false, svg };
        for Tick { at, label } in canvas.measured.ticks.clone() {
            let y = canvas.measured_at(at);
            canvas.path("grid", &format!("M{left:.1} {y:.1}H{:.1}", frame.right));
            canvas.text((left - 8.0, y + HALF), "tick", "end", &label);
        }
        for Tick { at, label } in canvas.chosen.ticks.clone() {
            let x = canvas.chosen_at(at);
            canvas.path("axis", &format!("M{x:.1} {:.1}v4", frame.bottom));
            canvas.text((x, frame.bottom + 18.0), "tick", "middle", &label);
        }
        canvas.text((0.0, frame.top - 12.0), "title", "start", measured_title);
        canvas.bottom(chosen_title);
        canvas
    }

    /// The whole drawing; the description is for those who cannot see it.
    pub fn finish(self, description: &str) -> String {
        let (height, description) = (self.frame.bottom + BELOW, escape(description));
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{description}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
            self.svg
        )
    }

    /// The line below the marks and the name of its axis.
    fn bottom(&mut self, title: &str) {
        let Area { left, right, bottom, .. } = self.frame;
        self.path("axis", &format!("M{left:.1} {bottom:.1}H{right:.1}"));
        self.text((right, bottom + 38.0), "title", "end", title);
    }

    /// Where a chosen figure lies along its axis.
    pub fn chosen_at(&self, figure: f64) -> f64 {
        let (frame, fraction) = (&self.frame, self.chosen.fraction(figure));
        if self.is_lying {
            frame.top + fraction * (frame.bottom - frame.top)
        } else {
            frame.left + fraction * (frame.right - frame.left)
        }
    }

    /// Where a measured figure lies along its axis.
    pub fn measured_at(&self, figure: f64) -> f64 {
        let (frame, fraction) = (&self.frame, self.measured.fraction(figure));
        if self.is_lying {
            frame.left + fraction * (frame.right - frame.left)
        } else {
            frame.bottom - fraction * (frame.bottom - frame.top)
        }
    }

    /// Both ends of the axis of what was chosen.
    pub fn chosen_ends(&self) -> (f64, f64) {
        let Area { left, top, right, bottom } = self.frame;
        if self.is_lying { (top, bottom) } else { (left, right) }
    }

    /// From places along both axes to x and y.
    pub fn spot(&self, chosen: f64, measured: f64) -> (f64, f64) {
        if self.is_lying { (measured, chosen) } else { (chosen, measured) }
    }

    /// `M x y` or `L x y`.
    pub fn go(&self, verb: char, chosen: f64, measured: f64) -> String {
        let (x, y) = self.spot(chosen, measured);
        format!("{verb}{x:.1} {y:.1}")
    }

    /// A line through places along both axes, from one to the next.
    pub fn trail(&self, places: impl Iterator<Item = (f64, f64)>) -> String {
        let verbs = std::iter::once('M').chain(std::iter::repeat('L'));
        verbs.zip(places).map(|(verb, (chosen, measured))| self.go(verb, chosen, measured)).collect()
    }

    /// An error bar with caps: its ends along the measured axis, its place on the other.
    pub fn error_bar(&self, chosen: f64, ends: [f64; 2]) -> String {
        let caps =
            ends.map(|end| self.go('M', chosen - CAP, end) + &self.go('L', chosen + CAP, end)).concat();
        self.go('M', chosen, ends[0]) + &self.go('L', chosen, ends[1]) + &caps
    }

    /// Draws a path.
    pub fn path(&mut self, class: &str, path: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    /// Draws a circle.
    pub fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let _ = writeln!(self.svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
    }

    /// Draws a group that has a tooltip.
    pub fn group(&mut self, tooltip: &str, draw: impl FnOnce(&mut Self)) {
        let _ = writeln!(self.svg, "<g><title>{}</title>", escape(tooltip));
        draw(self);
        self.svg.push_str("</g>\n");
    }

    /// Writes lines of text into the space that begins at `y`.
    pub fn lines(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, lines: &[String]) {
        for (number, line) in lines.iter().enumerate() {
            self.text((x, y + LINE * (number as f64 + 0.5) + HALF), class, anchor, line);
        }
    }

    fn text(&mut self, place: (f64, f64), class: &str, anchor: &str, text: &str) {
        self.svg.push_str(&written(place, class, anchor, text));
    }
}

fn written((x, y): (f64, f64), class: &str, anchor: &str, text: &str) -> String {
    let text = escape(text);
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

/// The keys side by side, in as many lines as they need; and where the room below them begins.
fn legend(keys: &[Key]) -> (String, f64) {
    let (mut x, mut y, mut svg) = (0.0, 0.0, String::new());
    for (drawing, name) in keys {
        let width = 24.0 + text_width(name) + 14.0;
        if x > 0.0 && x + width > WIDTH {
            (x, y) = (0.0, y + LINE + 4.0);
        }
        let _ = writeln!(svg, "<g transform=\"translate({x:.1} {:.1})\">{drawing}", y + 10.0);
        svg.push_str(&written((24.0, HALF), "key", "start", name));
        svg.push_str("</g>\n");
        x += width;
    }
    (svg, if keys.is_empty() { 0.0 } else { y + 24.0 })
}
