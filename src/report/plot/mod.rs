//! Plots, as values that draw themselves as SVG.
//!
//! A [`Plot`] is of measured points with their spread, upright over an axis of figures or lying in rows of names
//! (drawn in `points`); [`Curves`] are lines over an axis of whole numbers (drawn in `curves`). Both are drawn on a
//! `canvas` between two axes (`axis`), with labels that keep apart (`labels`), in markup (`svg`). For a terminal, `text`
//! draws one line in braille.
//!
//! A drawing takes its colours from the style sheet of its page (`page.css`), and scales to the width it is given.

mod axis;
mod canvas;
mod curves;
mod labels;
mod points;
mod svg;
pub mod text;

pub use axis::Spacing;
pub use svg::{escape, shortened};

use canvas::Key;

/// A plot of something measured against something chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows, for those who cannot see it.
    pub description: String,
    /// What was chosen.
    pub chosen: Chosen,
    /// Name and unit of what was measured; its axis is linear.
    pub measured: String,
    /// What was measured.
    pub points: Vec<Point>,
    /// Whether a line joins the points, in their order.
    pub is_joined: bool,
    /// Whether each point has its name beside it.
    pub is_labelled: bool,
    /// A measured figure that all others are seen against.
    pub reference: Option<Reference>,
}

/// The axis of what was chosen, and with it the way a plot lies.
#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    /// Names, one a row from the top: the measured axis lies below.
    Names(Vec<String>),
    /// Figures from left to right: the measured axis stands at the left.
    Figures {
        /// Name and unit.
        title: String,
        /// How the axis is spaced.
        spacing: Spacing,
    },
}

/// One measured point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its name.
    pub label: String,
    /// The chosen figure, or the number of its name from 0.
    pub at: f64,
    /// The measured figure: a mean.
    pub mean: f64,
    /// Half the length of its error bar.
    pub deviation: Option<f64>,
    /// What the mean was taken of, drawn beside it: each with its tooltip.
    pub singles: Vec<(f64, String)>,
    /// The tooltip, with the exact figures.
    pub exact: String,
    /// Whether it is the one that the others are compared with.
    pub is_control: bool,
}

/// A line across the plot, with a band where its spread is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Its name.
    pub label: String,
    /// Where it lies.
    pub mean: f64,
    /// Half the width of the band.
    pub deviation: Option<f64>,
}

impl Point {
    /// Half the length of its error bar, if that has a place.
    fn spread(&self) -> Option<f64> {
        self.deviation.filter(|&deviation| Spacing::Linear.holds(deviation))
    }
}

impl Reference {
    /// Half the width of its band, if that has a place.
    fn spread(&self) -> Option<f64> {
        self.deviation.filter(|&deviation| Spacing::Linear.holds(deviation))
    }
}

impl Plot {
    /// The drawing; points that have no place on the axes are left out.
    pub fn svg(&self) -> String {
        points::draw(self)
    }

    /// How the axis of what was chosen is spaced.
    fn spacing(&self) -> Spacing {
        match self.chosen {
            Chosen::Figures { spacing, .. } => spacing,
            Chosen::Names(_) => Spacing::Linear,
        }
    }

    /// The points that have a place.
    fn drawable(&self) -> impl Iterator<Item = &Point> {
        let holds = |point: &&Point| self.spacing().holds(point.at) && Spacing::Linear.holds(point.mean);
        self.points.iter().filter(holds)
    }

    /// Everything that the measured axis must hold.
    fn measured_figures(&self) -> Vec<f64> {
        let ends = |mean: f64, deviation: Option<f64>| {
            let deviation = deviation.unwrap_or_default();
            [mean - deviation, mean + deviation]
        };
        let points = self.drawable().flat_map(|point| {
            ends(point.mean, point.spread())
                .into_iter()
                .chain(point.singles.iter().map(|(figure, _)| *figure))
        });
        points
            .chain(self.drawable_reference().iter().flat_map(|line| ends(line.mean, line.spread())))
            .collect()
    }

    /// The line across, if it has a place.
    fn drawable_reference(&self) -> Option<&Reference> {
        self.reference.as_ref().filter(|line| Spacing::Linear.holds(line.mean))
    }

    /// The keys of the legend.
    fn keys(&self) -> Vec<Key> {
        let has = |test: fn(&Point) -> bool| self.drawable().any(test);
        let (mean_key, mean) = match has(|point| point.spread().is_some()) {
            true => (MEAN_KEY, "mean ± std. dev."),
            false => (RUN_KEY, "one run"),
        };
        let has_control = has(|point| point.is_control);
        let control = self.drawable_reference().map_or("control", |line| &line.label);
        let drawing = match (has_control, self.drawable_reference().is_some()) {
            (true, true) => CONTROL_LINE_KEY,
            (true, false) => CONTROL_KEY,
            (false, _) => LINE_KEY,
        };
        let keys = [
            (has(|point| !point.is_control), mean_key, mean.to_string()),
            (has(|point| !point.singles.is_empty()), SINGLE_KEY, "one seed".to_string()),
            (has_control || self.drawable_reference().is_some(), drawing, shortened(control, 36)),
        ];
        keys.into_iter()
            .filter(|(is_shown, ..)| *is_shown)
            .map(|(_, drawing, name)| (drawing, name))
            .collect()
    }
}

/// Lines over whole numbers: something measured of each thing of a numbered row.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// What they show, for those who cannot see it.
    pub description: String,
    /// Name of what is numbered.
    pub title: String,
    /// The last number; the first is 0.
    pub last: usize,
    /// Name and unit of what was measured; its axis is linear.
    pub measured: String,
    /// What the measured axis shows; more where figures lie beyond.
    pub measured_range: (f64, f64),
    /// The lines, from the one at the bottom.
    pub curves: Vec<Curve>,
    /// Tooltips: number and text, from the least number.
    pub exact: Vec<(f64, String)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its class in the style sheet, which gives it its colour.
    pub class: String,
    /// From the least number. A point that has no place leaves a gap.
    pub points: Vec<CurvePoint>,
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The number.
    pub at: f64,
    /// The measured figure.
    pub mean: f64,
    /// Half the width of the band there; a band needs one at each point.
    pub deviation: Option<f64>,
}

impl CurvePoint {
    fn is_drawable(&self) -> bool {
        Spacing::Linear.holds(self.mean)
    }

    /// The edges of the band, if they have a place.
    fn ends(&self) -> Option<[f64; 2]> {
        let deviation = self.deviation.filter(|&deviation| Spacing::Linear.holds(deviation))?;
        Some([self.mean - deviation, self.mean + deviation])
    }
}

impl Curves {
    /// The drawing; points that have no place on the axes are left out.
    pub fn svg(&self) -> String {
        curves::draw(self)
    }

    /// Everything that the measured axis must hold.
    fn measured_figures(&self) -> Vec<f64> {
        let points = self.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.is_drawable());
        points.flat_map(|point| point.ends().unwrap_or([point.mean; 2])).collect()
    }
}

const MEAN_KEY: &str = r#"<path class="bar" d="M9 -6V6"/><circle class="mean" cx="9" cy="0" r="3.6"/>"#;
const RUN_KEY: &str = r#"<circle class="mean" cx="9" cy="0" r="3.6"/>"#;
const SINGLE_KEY: &str = r#"<circle class="single" cx="9" cy="0" r="2"/>"#;
const CONTROL_KEY: &str = r#"<path class="mean control" d="M9 -5L14 0L9 5L4 0Z"/>"#;
const LINE_KEY: &str = r#"<path class="reference" d="M0 0H18"/>"#;
const CONTROL_LINE_KEY: &str =
    r#"<path class="reference" d="M0 0H18"/><path class="mean control" d="M9 -5L14 0L9 5L4 0Z"/>"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, mean: f64) -> Point {
        let label = "<net> & \"co\"".to_string();
        Point {
            label,
            at,
            mean,
            deviation: Some(0.0),
            singles: vec![(mean, "s < 1".into())],
            exact: "a & b".into(),
            is_control: at == 0.0,
        }
    }

    fn plots(points: Vec<Point>, reference: Option<Reference>) -> [String; 4] {
        let names = Chosen::Names(points.iter().map(|point| point.label.clone()).collect());
        let figures = |spacing| Chosen::Figures { title: "<figure>".into(), spacing };
        let axes = [names, figures(Spacing::Linear), figures(Spacing::Log2), figures(Spacing::Log10)];
        axes.map(|chosen| {
            let (points, reference) = (points.clone(), reference.clone());
            let (description, measured) = ("a plot".into(), "error, %".into());
            Plot { description, chosen, measured, points, is_joined: true, is_labelled: true, reference }
                .svg()
        })
    }

    fn all_finite(svg: &str) -> bool {
        !svg.contains("NaN") && !svg.contains("inf")
    }

    #[test]
    fn equal_and_impossible_figures_have_finite_coordinates() {
        let equal = vec![point(1.0, 8.4), point(1.0, 8.4)];
        let odd = vec![point(0.0, f64::NAN), point(-1.0, 1e300), point(f64::INFINITY, 0.0), point(2.0, 0.0)];
        let line = Reference { label: "control".into(), mean: 8.4, deviation: Some(0.0) };
        for points in [equal, odd, Vec::new()] {
            assert!(plots(points.clone(), None).iter().all(|svg| all_finite(svg)));
            assert!(plots(points, Some(line.clone())).iter().all(|svg| all_finite(svg)));
        }
    }

    #[test]
    fn labels_and_tooltips_are_escaped() {
        for svg in plots(vec![point(1.0, 8.4), point(4.0, 8.9)], None) {
            assert!(svg.contains("&lt;") && svg.contains("a &amp; b") && svg.contains("s &lt; 1"));
            assert!(!svg.contains("<net>") && !svg.contains("& "));
        }
    }

    #[test]
    fn a_log_axis_of_ratios_is_marked_at_powers_of_2() {
        let [_, _, svg, _] = plots(vec![point(2.0, 8.4), point(8.0, 8.9)], None);
        for tick in [">2<", ">4<", ">8<"] {
            assert!(svg.contains(tick), "{svg}");
        }
    }

    fn curves(means: &[f64]) -> Curves {
        let points = means.iter().zip(0u8..).map(|(&mean, number)| CurvePoint {
            at: f64::from(number),
            mean,
            deviation: Some(0.1),
        });
        Curves {
            description: "<curves>".into(),
            title: "channel".into(),
            last: means.len().saturating_sub(1),
            measured: "gate".into(),
            measured_range: (0.0, 1.0),
            curves: vec![Curve { class: "c1".into(), points: points.collect() }],
            exact: vec![(0.0, "a < b".into())],
        }
    }

    #[test]
    fn curves_have_gaps_where_a_point_has_no_place() {
        let svg = curves(&[0.2, 0.3, f64::NAN, 0.4, f64::INFINITY, 0.5, 0.6]).svg();
        let count = |class: &str| svg.matches(&format!("class=\"{class} c1\"")).count();
        assert_eq!((count("spread"), count("dot")), (2, 1), "{svg}");
        assert_eq!(count("curve"), 3, "two lines and the bar of the point alone: {svg}");
        assert!(all_finite(&svg) && svg.contains("a &lt; b") && svg.contains("&lt;curves&gt;"));
    }

    #[test]
    fn any_curve_has_finite_coordinates() {
        for means in [&[][..], &[0.5], &[f64::NAN], &[1e99, -1e99], &[1e300, 0.0], &[7.0, 7.0]] {
            assert!(all_finite(&curves(means).svg()), "{means:?}");
        }
    }

    #[test]
    fn the_measured_axis_grows_only_where_it_must() {
        let has = |means: &[f64], tick: &str| curves(means).svg().contains(&format!(">{tick}<"));
        assert!(has(&[0.5, 0.6], "0.0") && has(&[0.5, 0.6], "1.0") && !has(&[0.5, 0.6], "1.2"));
        assert!(has(&[0.5, 1.6], "1.5") && !has(&[0.5, 1.6], "−0.5"));
        assert!(has(&[-0.7, 0.6], "−0.5") && has(&[-0.7, 0.6], "1.0"));
    }
}
