//! Draws a line in a terminal: in braille, whose characters have two dots by four.

use super::axis::Axis;
use std::iter::repeat_n;

/// Characters of the drawing, without its axes.
const COLUMNS: usize = 64;
const ROWS: usize = 12;
/// Dots of the drawing.
pub const WIDTH: usize = 2 * COLUMNS;
const HEIGHT: usize = 4 * ROWS;
/// Ticks of an axis, about.
const TICKS: usize = 6;

/// The first of the braille characters, and what each dot adds to it, from the top.
const BLANK: u32 = 0x2800;
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// A line through points.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// Name of the axis to the right.
    pub chosen: &'a str,
    /// Where it ends, if not before the last point.
    pub last: f64,
    /// Name of the axis upwards, which begins at 0.
    pub measured: &'a str,
    /// Where that ends, if not below the highest point.
    pub highest: f64,
    /// From the left.
    pub points: Vec<(f64, f64)>,
}

impl Line<'_> {
    /// The drawing, [`WIDTH`] dots wide; points that are no numbers, or below 0, are left out.
    pub fn text(&self) -> String {
        let points: Vec<(f64, f64)> = self
            .points
            .iter()
            .copied()
            .filter(|(x, y)| x.is_finite() && y.is_finite() && *y >= 0.0)
            .collect();
        let first = points.first().map_or(0.0, |point| point.0);
        let last = points.last().map_or(self.last, |point| point.0.max(self.last));
        let highest = points.iter().map(|point| point.1).fold(self.highest, f64::max);
        // A single point, or nothing but zeros, still need a range; and an end that is a tick must not fall short of it.
        let beyond = |end: f64| end * (1.0 + 1e-9);
        let chosen = Axis::holding(first, beyond(if last > first { last } else { first + 1.0 }), &[], TICKS);
        let measured = Axis::holding(0.0, beyond(if highest > 0.0 { highest } else { 1.0 }), &[], TICKS);

        let across = |x: f64| (chosen.fraction(x) * (WIDTH - 1) as f64).round() as usize;
        let down = |y: f64| ((1.0 - measured.fraction(y)) * (HEIGHT - 1) as f64).round() as usize;
        let mut grid = Grid::new();
        let dots: Vec<(usize, usize)> = points.iter().map(|(x, y)| (across(*x), down(*y))).collect();
        for pair in dots.windows(2) {
            grid.line(pair[0], pair[1]);
        }
        if let [only] = dots.as_slice() {
            grid.line(*only, *only);
        }

        let labels: Vec<(usize, &str)> =
            measured.ticks.iter().map(|tick| (down(tick.at) / 4, tick.label.as_str())).collect();
        let margin = labels.iter().map(|(_, label)| label.chars().count()).max().unwrap_or_default();
        let mut lines = vec![self.measured.to_string()];
        for (row, cells) in grid.rows().enumerate() {
            let label = labels.iter().find(|(at, _)| *at == row).map(|(_, label)| *label);
            let axis = if label.is_some() { '┤' } else { '│' };
            lines
                .push(format!("{:>margin$} {axis}{cells}", label.unwrap_or_default()).trim_end().to_string());
        }
        let ticks: Vec<(usize, &str)> =
            chosen.ticks.iter().map(|tick| (across(tick.at) / 2, tick.label.as_str())).collect();
        let mark = |column| if ticks.iter().any(|(at, _)| *at == column) { '┬' } else { '─' };
        let axis: String = (0..COLUMNS).map(mark).collect();
        lines.push(format!("{:margin$} └{axis}", ""));
        lines.push(format!("{:margin$}  {}  {}", "", below(&ticks), self.chosen));
        lines.join("\n")
    }
}

/// Labels in one line, each below its column as far as the one before it leaves room.
fn below(labels: &[(usize, &str)]) -> String {
    let mut line = String::new();
    let mut length = 0;
    for (column, label) in labels {
        let width = label.chars().count();
        let start = column.saturating_sub((width - 1) / 2);
        if length > 0 && start <= length {
            continue;
        }
        line.extend(repeat_n(' ', start - length));
        line.push_str(label);
        length = start + width;
    }
    line
}

/// Dots, a bit each.
struct Grid([[u32; COLUMNS]; ROWS]);

impl Grid {
    fn new() -> Self {
        Self([[0; COLUMNS]; ROWS])
    }

    fn line(&mut self, (x0, y0): (usize, usize), (x1, y1): (usize, usize)) {
        let dots = x0.abs_diff(x1).max(y0.abs_diff(y1)).max(1);
        let between = |from: usize, to: usize, at: usize| (from * (dots - at) + to * at + dots / 2) / dots;
        for at in 0..=dots {
            let (x, y) = (between(x0, x1, at), between(y0, y1, at));
            self.0[y / 4][x / 2] |= DOTS[x % 2][y % 4];
        }
    }

    fn rows(&self) -> impl Iterator<Item = String> {
        let character = |dots: &u32| match dots {
            0 => ' ',
            dots => char::from_u32(BLANK + dots).unwrap_or(' '),
        };
        self.0.iter().map(move |row| row.iter().map(character).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(points: Vec<(f64, f64)>) -> Vec<String> {
        Line { chosen: "epoch", last: 1.0, measured: "rate", highest: 0.0, points }
            .text()
            .lines()
            .map(str::to_string)
            .collect()
    }

    #[test]
    fn a_falling_line_begins_at_the_top_and_ends_at_the_bottom() {
        let lines = drawn((0..=100).map(|at| (f64::from(at), 0.5 - 0.005 * f64::from(at))).collect());
        assert_eq!(lines.len(), ROWS + 3);
        assert_eq!(lines[0], "rate");
        assert!(lines[1].starts_with("0.5 ┤") && !lines[1].starts_with("0.5 ┤ "), "{}", lines[1]);
        assert!(lines[ROWS].starts_with("0.0 ┤ "), "{}", lines[ROWS]);
        let last_dots = lines[ROWS].chars().last().unwrap();
        assert!((last_dots as u32 - BLANK) & 0x80 > 0, "{last_dots}");
        assert!(lines[ROWS + 1].starts_with("    └┬"), "{}", lines[ROWS + 1]);
        assert!(
            lines[ROWS + 2].starts_with("     0 ") && lines[ROWS + 2].ends_with("100  epoch"),
            "{}",
            lines[ROWS + 2]
        );
    }

    #[test]
    fn a_drop_is_an_unbroken_line() {
        let lines = drawn((0..WIDTH).map(|at| (at as f64, if at < WIDTH / 2 { 1.0 } else { 0.1 })).collect());
        let middle =
            |line: &String| line.chars().skip(5).skip(COLUMNS / 2 - 1).take(2).any(|dots| dots != ' ');
        assert!(lines[1..ROWS].iter().all(middle), "{lines:#?}");
    }

    #[test]
    fn any_points_can_be_drawn() {
        for points in
            [vec![], vec![(3.0, 0.0)], vec![(0.0, f64::NAN), (1.0, -1.0)], vec![(0.0, 1e-9), (1e9, 2e-9)]]
        {
            assert_eq!(drawn(points).len(), ROWS + 3);
        }
    }
}
