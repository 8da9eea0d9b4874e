//! Axes of a plot: where a figure lies between the two ends, and where the ticks are.

use super::svg::text_width;

/// Units of large figures, from the largest.
const UNITS: [(f64, &str); 5] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
/// Digits after the point that a tick label may have.
const MOST_DECIMALS: usize = 5;
/// Free room between two tick labels.
const LABEL_GAP: f64 = 16.0;

/// How an axis spaces its figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Equal steps.
    Linear,
    /// Equal factors, ticks at powers of 2.
    Log2,
    /// Equal factors, ticks at powers of 10.
    Log10,
}

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The figure.
    pub at: f64,
    /// How it is written.
    pub label: String,
}

/// A range of figures with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    spacing: Spacing,
    /// The ends; logarithms of them on a logarithmic axis.
    low: f64,
    high: f64,
    /// From the smallest.
    pub ticks: Vec<Tick>,
}

impl Spacing {
    /// Whether a figure has a place on such an axis.
    pub fn holds(self, figure: f64) -> bool {
        // Beyond 1e100 the arithmetic of a range could overflow.
        figure.abs() < 1e100 && (self == Self::Linear || figure > 1e-100)
    }

    fn transform(self, figure: f64) -> f64 {
        match self {
            Self::Linear => figure,
            Self::Log2 => figure.log2(),
            Self::Log10 => figure.log10(),
        }
    }

    /// Room that is left beyond the outermost figures.
    fn margin(self, low: f64, high: f64) -> f64 {
        let largest = low.abs().max(high.abs());
        match self {
            // Equal figures, or figures that differ by rounding alone, still need a range.
            Self::Linear if high - low <= 1e-9 * largest => 0.02 * largest,
            Self::Linear => 0.07 * (high - low),
            Self::Log2 => (0.07 * (high - low)).max(0.35),
            Self::Log10 => (0.07 * (high - low)).max(0.15),
        }
    }
}

impl Axis {
    /// Holds all `figures`, with at most about `most` ticks.
    pub fn over(spacing: Spacing, figures: &[f64], most: usize) -> Self {
        let figures = figures.iter().copied().filter(|&figure| spacing.holds(figure));
        let ends = figures.map(|figure| spacing.transform(figure)).fold(None, |ends, figure| {
            let (low, high) = ends.unwrap_or((figure, figure));
            Some((figure.min(low), figure.max(high)))
        });
        let (least, greatest) = ends.unwrap_or((0.0, 0.0));
        let margin = Some(spacing.margin(least, greatest)).filter(|&margin| margin > 0.0).unwrap_or(1.0);
        let (mut low, high) = (least - margin, greatest + margin);
        if spacing == Spacing::Linear && least >= 0.0 {
            low = low.max(0.0); // no room for figures that cannot be
        }
        let ticks = match spacing {
            Spacing::Linear => linear_ticks(low, high, most),
            Spacing::Log2 => log_ticks(2.0, low, high, most),
            Spacing::Log10 => log_ticks(10.0, low, high, most),
        };
        Self { spacing, low, high, ticks }
    }

    /// The same with as many ticks as have room beside each other.
    pub fn fitting(spacing: Spacing, figures: &[f64], room: f64) -> Self {
        let fits = |axis: &Self| {
            let widths = axis.ticks.iter().map(|tick| text_width(&tick.label) + LABEL_GAP);
            widths.sum::<f64>() <= room
        };
        let candidates = (3..=8).rev().map(|most| Self::over(spacing, figures, most));
        candidates.into_iter().find(fits).unwrap_or_else(|| Self::over(spacing, figures, 2))
    }

    /// From `low` to `high` where these hold all `figures`; else wide enough for the ends and the figures.
    pub fn holding(low: f64, high: f64, figures: &[f64], most: usize) -> Self {
        let figures = figures.iter().copied().filter(|&figure| Spacing::Linear.holds(figure));
        let all: Vec<f64> = [low, high].into_iter().chain(figures).collect();
        if all.iter().all(|figure| (low..=high).contains(figure)) {
            return Self { spacing: Spacing::Linear, low, high, ticks: linear_ticks(low, high, most) };
        }
        Self::over(Spacing::Linear, &all, most)
    }

    /// Whole numbers from 0 to `last`, with as many ticks as have room beside each other.
    pub fn counts(last: usize, room: f64) -> Self {
        let high = last as f64;
        if last == 0 {
            let ticks = vec![Tick { at: 0.0, label: "0".into() }];
            return Self { spacing: Spacing::Linear, low: -0.5, high: 0.5, ticks };
        }
        let widest = text_width(&last.to_string()) + LABEL_GAP;
        let most = ((room / widest) as usize).clamp(1, 8);
        let is_whole = |tick: &Tick| (tick.at - tick.at.round()).abs() < 1e-6;
        let ticks = linear_ticks(0.0, high, most).into_iter().filter(is_whole);
        // Numbers of things are written in full.
        let ticks = ticks.map(|Tick { at, .. }| Tick { at, label: format!("{at:.0}") }).collect();
        Self { spacing: Spacing::Linear, low: 0.0, high, ticks }
    }

    /// One step for each of `count` names, numbered from 0; without ticks.
    pub fn steps(count: usize) -> Self {
        Self { spacing: Spacing::Linear, low: -0.5, high: count as f64 - 0.5, ticks: Vec::new() }
    }

    /// Where a figure lies: 0 at the low end, 1 at the high end.
    pub fn fraction(&self, figure: f64) -> f64 {
        (self.spacing.transform(figure) - self.low) / (self.high - self.low)
    }
}

/// Multiples of 1, 2 or 5 times a power of 10.
fn linear_ticks(low: f64, high: f64, most: usize) -> Vec<Tick> {
    let span = high - low;
    let power = 10f64.powf((span / most as f64).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| span / step <= most as f64).unwrap_or(span);
    let largest = low.abs().max(high.abs());
    let numbers = (low / step).ceil() as i64..=(high / step).floor() as i64;
    let tick = |number: i64| {
        let at = number as f64 * step;
        let label = step_label(at, step, largest);
        let label = label.strip_prefix('-').map_or(label.clone(), |size| format!("−{size}"));
        Tick { at, label }
    };
    numbers.take(most + 1).map(tick).collect()
}

/// Powers of `base`, given the logarithms of the ends; a short decimal range has 2 and 5 times them as well.
fn log_ticks(base: f64, low: f64, high: f64, most: usize) -> Vec<Tick> {
    let is_short = base == 10.0 && 3.0 * (high - low) <= most as f64;
    let factors: &[f64] = if is_short { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let stride = ((high - low) / most as f64).ceil().max(1.0) as usize;
    let is_inside = |figure: &f64| (low..=high).contains(&(figure.ln() / base.ln()));
    let powers = (low.floor() as i32..=high.floor() as i32).step_by(stride);
    let figures = powers.flat_map(|power| factors.iter().map(move |factor| factor * base.powi(power)));
    figures.filter(is_inside).map(|at| Tick { at, label: short_label(at) }).collect()
}

/// A figure with the digits that tell it from its neighbours `step` away, in the unit of the `largest`.
fn step_label(figure: f64, step: f64, largest: f64) -> String {
    let decimals = |unit: f64| (-(step / unit).log10() - 1e-9).ceil().max(0.0) as usize;
    let fits = |(unit, _): &&(f64, &str)| largest >= *unit && decimals(*unit) <= MOST_DECIMALS;
    let figure = if figure.abs() < step / 2.0 { 0.0 } else { figure };
    match UNITS.iter().find(fits) {
        Some((unit, name)) => with_unit(format!("{:.*}", decimals(*unit), figure / unit), name),
        None if (1e-6..1e15).contains(&largest) => format!("{figure:.*}", decimals(1.0)),
        None => format!("{figure:.2e}"),
    }
}

/// A figure in its own unit, without needless digits.
fn short_label(figure: f64) -> String {
    match UNITS.iter().find(|(unit, _)| figure >= *unit) {
        Some((unit, name)) if figure < 1e15 => with_unit(format!("{}", rounded(figure / unit)), name),
        None if figure >= 1e-3 => format!("{}", rounded(figure)),
        _ => format!("{figure:.0e}"),
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

fn with_unit(number: String, unit: &str) -> String {
    if unit.is_empty() { number } else { format!("{number}\u{a0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn a_log2_axis_has_ticks_at_powers_of_2() {
        let axis = Axis::over(Spacing::Log2, &[2.0, 32.0, 0.0, f64::NAN], 8);
        assert_eq!(labels(&axis), ["2", "4", "8", "16", "32"]);
        let gap = axis.fraction(8.0) - axis.fraction(4.0);
        assert!((axis.fraction(32.0) - axis.fraction(16.0) - gap).abs() < 1e-12);
    }

    #[test]
    fn a_log10_axis_names_units() {
        assert_eq!(labels(&Axis::over(Spacing::Log10, &[1e3, 1e9], 8))[..2], ["1\u{a0}k", "10\u{a0}k"]);
        assert_eq!(
            labels(&Axis::over(Spacing::Log10, &[2e6, 8e6], 8)),
            ["2\u{a0}M", "5\u{a0}M", "10\u{a0}M"]
        );
    }

    #[test]
    fn linear_ticks_are_round_and_told_apart() {
        assert_eq!(labels(&Axis::over(Spacing::Linear, &[8.1, 9.0], 6)), ["8.2", "8.4", "8.6", "8.8", "9.0"]);
        let close = Axis::over(Spacing::Linear, &[40_893_440.0, 40_893_940.0], 4);
        assert_eq!(labels(&close), ["40.8936\u{a0}M", "40.8938\u{a0}M"]);
    }

    #[test]
    fn any_figures_give_a_finite_range() {
        let sets: [&[f64]; 7] = [
            &[],
            &[0.0],
            &[7.0, 7.0],
            &[1e99, -1e99],
            &[1e-99, 2e-99],
            &[f64::NAN, f64::INFINITY],
            &[1e15, 1e15 + 1.0],
        ];
        for figures in sets {
            for spacing in [Spacing::Linear, Spacing::Log2, Spacing::Log10] {
                let axis = Axis::fitting(spacing, figures, 300.0);
                assert!(axis.high > axis.low && axis.high.is_finite() && axis.low.is_finite(), "{axis:?}");
                assert!(axis.ticks.len() <= 26, "{axis:?}");
                assert!(
                    axis.ticks.iter().all(|tick| (-0.01..1.01).contains(&axis.fraction(tick.at))),
                    "{axis:?}"
                );
            }
        }
    }

    #[test]
    fn counts_have_whole_ticks() {
        assert_eq!(labels(&Axis::counts(0, 300.0)), ["0"]);
        assert_eq!(labels(&Axis::counts(2, 300.0)), ["0", "1", "2"]);
        assert_eq!(labels(&Axis::counts(2047, 300.0)), ["0", "500", "1000", "1500", "2000"]);
    }

    #[test]
    fn an_axis_with_given_ends_grows_only_for_figures_beyond() {
        let axis = Axis::holding(0.0, 1.0, &[0.5, f64::NAN], 6);
        assert_eq!((axis.low, axis.high), (0.0, 1.0));
        assert_eq!(labels(&axis), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let axis = Axis::holding(0.0, 1.0, &[-0.5], 6);
        assert!(axis.low < -0.5 && axis.high >= 1.0);
        assert_eq!(labels(&axis)[0], "−0.5");
    }
}
