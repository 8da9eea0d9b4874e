//! Labels beside the points of a plot that keep out of each other's way.

use std::f64::consts::FRAC_PI_8;

/// How far from its point a label may go.
const DISTANCES: [f64; 7] = [9.0, 16.0, 26.0, 38.0, 52.0, 70.0, 90.0];
/// A label farther away than this is tied to its point by a line.
const TIED_FROM: f64 = 12.0;
/// How often all labels are placed again, each knowing where the others are.
const ROUNDS: usize = 4;

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Least x.
    pub left: f64,
    /// Least y.
    pub top: f64,
    /// Greatest x.
    pub right: f64,
    /// Greatest y.
    pub bottom: f64,
}

impl Area {
    /// From the least corner and the size.
    pub fn of(left: f64, top: f64, width: f64, height: f64) -> Self {
        Self { left, top, right: left + width, bottom: top + height }
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }

    /// How much of it lies in the other.
    pub fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    /// Its point that is nearest to another.
    fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }

    fn contains(&self, (x, y): (f64, f64)) -> bool {
        (self.left..=self.right).contains(&x) && (self.top..=self.bottom).contains(&y)
    }
}

/// A label to be placed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// The point that it names.
    pub point: (f64, f64),
    /// Width and height.
    pub size: (f64, f64),
}

/// A label's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Where its text goes.
    pub area: Area,
    /// Ends of the line that ties it to its point, where it is too far away to be taken for its label.
    pub tie: Option<[(f64, f64); 2]>,
}

/// Finds a place for each label: inside the frame, off the marks, off each other, and near its point. `None` for
/// one that has no place without covering another.
pub fn arrange(labels: &[Label], frame: &Area, marks: &[Area]) -> Vec<Option<Placed>> {
    let mut placed: Vec<Option<Placed>> = vec![None; labels.len()];
    for number in (0..labels.len()).cycle().take(ROUNDS * labels.len()) {
        placed[number] = None;
        let others: Vec<Placed> = placed.iter().copied().flatten().collect();
        placed[number] = best(&labels[number], frame, marks, &others);
    }
    placed
}

/// The best place of those that cover no other label.
fn best(label: &Label, frame: &Area, marks: &[Area], others: &[Placed]) -> Option<Placed> {
    let candidates = DISTANCES.iter().flat_map(|&distance| {
        directions().map(move |direction| (beside(label, direction, distance), distance))
    });
    let is_free = |area: &Area| others.iter().all(|other| other.area.overlap(area) == 0.0);
    let free = candidates.filter(|(placed, _)| is_free(&placed.area));
    let costed =
        free.map(|(placed, distance)| (placed, cost(&placed, frame, marks, others) + 1.5 * distance));
    costed.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(placed, _)| placed)
}

/// How bad a place is, apart from its distance.
fn cost(placed: &Placed, frame: &Area, marks: &[Area], others: &[Placed]) -> f64 {
    let Placed { area, tie } = placed;
    let outside = area.size() - area.overlap(frame);
    let hidden: f64 = marks.iter().map(|mark| area.overlap(mark)).sum();
    let crosses = |tie: &Option<_>, area: &Area| tie.is_some_and(|tie| is_crossed(tie, area));
    let is_tangled = |other: &&Placed| {
        let ties = tie.zip(other.tie);
        crosses(tie, &other.area)
            || crosses(&other.tie, area)
            || ties.is_some_and(|(one, two)| do_cross(one, two))
    };
    let tangles = others.iter().filter(is_tangled).count();
    // A tie straight up or down would hide behind the error bar.
    let is_upright = tie.is_some_and(|[from, to]| (from.0 - to.0).abs() < 6.0);
    100.0 * outside + 1.5 * hidden + 80.0 * tangles as f64 + if is_upright { 150.0 } else { 0.0 }
}

/// All around a point, to the right first: that is where a label is looked for.
fn directions() -> impl Iterator<Item = (f64, f64)> {
    let sixteenths = [0.0, 8.0, -1.0, 1.0, 7.0, 9.0, -2.0, 2.0, 6.0, 10.0, -3.0, 3.0, 5.0, 11.0, -4.0, 4.0];
    let angles = sixteenths.into_iter().map(|sixteenth| sixteenth * FRAC_PI_8);
    angles.map(|angle: f64| (angle.cos(), angle.sin()))
}

fn beside(label: &Label, direction: (f64, f64), distance: f64) -> Placed {
    let Label { point, size } = label;
    // From wholly before the point (-1) through centred on it (0) to wholly beyond it (1).
    let start = |at: f64, way: f64, length: f64| at + way * distance - length * (1.0 - way) / 2.0;
    let area =
        Area::of(start(point.0, direction.0, size.0), start(point.1, direction.1, size.1), size.0, size.1);
    let tie = (distance > TIED_FROM).then(|| [*point, area.nearest(*point)]);
    Placed { area, tie }
}

/// Whether two lines cross, ends apart.
fn do_cross(one: [(f64, f64); 2], two: [(f64, f64); 2]) -> bool {
    // Which side of a line a point lies on, as a sign.
    let side = |[from, to]: [(f64, f64); 2], point: (f64, f64)| {
        (to.0 - from.0) * (point.1 - from.1) - (to.1 - from.1) * (point.0 - from.0)
    };
    let parts = |line, [from, to]: [(f64, f64); 2]| side(line, from) * side(line, to) < 0.0;
    parts(one, two) && parts(two, one)
}

/// Whether a line runs through an area; looked at in a few of its points.
fn is_crossed([from, to]: [(f64, f64); 2], area: &Area) -> bool {
    (1..12).any(|step| {
        let part = f64::from(step) / 12.0;
        area.contains((from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_one_spot_do_not_cover_each_other() {
        let frame = Area::of(0.0, 0.0, 400.0, 300.0);
        let labels = [Label { point: (380.0, 150.0), size: (60.0, 14.0) }; 8];
        let placed: Vec<Area> =
            arrange(&labels, &frame, &[]).into_iter().map(|placed| placed.unwrap().area).collect();
        for (number, area) in placed.iter().enumerate() {
            assert!((area.overlap(&frame) - area.size()).abs() < 1e-6);
            assert!(placed[..number].iter().all(|other| other.overlap(area) == 0.0));
        }
    }

    #[test]
    fn crossing_lines_are_told_from_lines_that_meet() {
        let line = [(0.0, 0.0), (10.0, 10.0)];
        assert!(do_cross(line, [(0.0, 10.0), (10.0, 0.0)]));
        assert!(!do_cross(line, [(0.0, 0.0), (10.0, 0.0)]));
        assert!(!do_cross(line, [(20.0, 0.0), (30.0, 9.0)]));
    }

    #[test]
    fn a_lonely_label_stands_at_the_right() {
        let label = Label { point: (50.0, 50.0), size: (60.0, 14.0) };
        let placed = arrange(&[label], &Area::of(0.0, 0.0, 400.0, 300.0), &[]);
        assert_eq!(placed, [Some(Placed { area: Area::of(59.0, 43.0, 60.0, 14.0), tie: None })]);
    }
}
