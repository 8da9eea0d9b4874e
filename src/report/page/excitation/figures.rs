//! Which blocks are drawn, and their gates by class as curves, with a legend that all drawings share.

use crate::report::excitation::{Activations, BlockGates, Excitation};
use crate::report::plot::{Curve, CurvePoint, Curves, escape, shortened};
use crate::report::table::grouped;

/// Classes that are drawn; the style sheet has a colour for each.
const MOST_CLASSES: usize = 8;
/// Classes of which the spread is drawn: more bands would hide one another.
const SPREAD_CLASSES: usize = 2;
/// Channels that are drawn, as in the paper.
pub const MOST_CHANNELS: usize = 50;
/// Blocks of the last stage before its last one that are drawn beside it.
const FEW: usize = 3;
/// Panels that are in sight at first, and as many that can be opened.
const MOST_PANELS: usize = 24;
/// Letters of a class name that a legend shows.
const LONGEST: usize = 40;

/// A class, or all images, in the drawings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Where its figures are among a block's classes; `None` for those over all images.
    class: Option<usize>,
    /// The number of its colour: 0 for all images.
    colour: usize,
    /// Images that its figures are of.
    images: u64,
}

impl<'a> Line<'a> {
    fn all(excitation: &Excitation) -> Self {
        Self { name: "all images", class: None, colour: 0, images: excitation.seen }
    }

    fn of<'b>(&self, block: &'b BlockGates) -> Option<&'b Activations> {
        self.class.map_or(Some(&block.all), |class| block.by_class.get(class))
    }

    /// The classes that have images, in their order.
    pub fn classes(excitation: &'a Excitation) -> Vec<Self> {
        let images = |class: usize| {
            let activations = excitation.blocks.iter().filter_map(|block| block.by_class.get(class));
            activations.filter(|over| has_figures(over)).map(|over| over.images).max()
        };
        let names = excitation.classes.iter().enumerate();
        let known = names.filter_map(|(class, name)| Some((class, name, images(class)?)));
        let line = |((class, name, images), colour): ((usize, &'a String, u64), usize)| Self {
            name,
            class: Some(class),
            colour,
            images,
        };
        known.zip(1..).map(line).collect()
    }
}

fn has_figures(over: &Activations) -> bool {
    (0..over.mean.len()).any(|channel| over.of_channel(channel).0.is_some())
}

/// The blocks that are drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chosen<'a> {
    /// In sight, from the first to the last.
    pub shown: Vec<&'a BlockGates>,
    /// To be opened.
    pub more: Vec<&'a BlockGates>,
    /// Blocks that those in sight were sampled from.
    pub shown_of: usize,
    /// Blocks that the others were sampled from.
    pub more_of: usize,
}

impl Chosen<'_> {
    /// Whether all that should be in sight is.
    pub fn is_whole(&self) -> bool {
        self.shown.len() == self.shown_of
    }
}

/// The last block of each stage and, of the last stage, its other blocks.
pub fn chosen(blocks: &[BlockGates]) -> Chosen<'_> {
    let last_stage = blocks.last().and_then(|block| block.stage);
    let is_other =
        |block: &&BlockGates| !block.is_last_of_stage && last_stage.is_some() && block.stage == last_stage;
    let others: Vec<&BlockGates> = blocks.iter().filter(is_other).collect();
    let with_others = others.len() <= FEW;
    let is_shown = |block: &&BlockGates| block.is_last_of_stage || with_others && is_other(block);
    let shown: Vec<&BlockGates> = blocks.iter().filter(is_shown).collect();
    let more = if with_others { Vec::new() } else { others };
    Chosen {
        shown: sampled(&shown, MOST_PANELS),
        more: sampled(&more, MOST_PANELS),
        shown_of: shown.len(),
        more_of: more.len(),
    }
}

/// At most `most` of them, evenly spaced from the first to the last.
fn sampled<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let count = all.len().min(most);
    let place = |number: usize| (number * (all.len() - 1) + (count - 1) / 2) / (count - 1).max(1);
    (0..count).map(|number| all[place(number)]).collect()
}

/// The paper's Figure 6: for each block, the mean gates of classes and, below them, of all images.
pub fn means(blocks: &[&BlockGates], lines: &[Line]) -> String {
    panels(blocks, lines, "Mean gate of each channel", false)
}

/// The paper's Figure 7: with a band of one standard deviation to both sides.
pub fn spreads(blocks: &[&BlockGates], lines: &[Line]) -> String {
    panels(blocks, lines, "Mean gate of each channel ± one standard deviation", true)
}

fn panels(blocks: &[&BlockGates], lines: &[Line], what: &str, with_bands: bool) -> String {
    let panels: String = blocks.iter().map(|block| panel(block, lines, what, with_bands)).collect();
    format!("<div class=\"figures panels\">\n{panels}</div>\n")
}

/// The lines of both figures: of the means and of the spreads.
pub fn drawn<'a>(excitation: &'a Excitation, classes: &[Line<'a>]) -> (Vec<Line<'a>>, Vec<Line<'a>>) {
    let all = Line::all(excitation);
    if classes.is_empty() {
        // Alone, it is nothing that others are seen against.
        let alone = vec![Line { colour: 1, ..all }];
        return (alone.clone(), alone);
    }
    let means = [all].into_iter().chain(classes.iter().take(MOST_CLASSES).copied());
    (means.collect(), classes.iter().take(SPREAD_CLASSES).copied().collect())
}

/// One block, with its name above the drawing.
fn panel(block: &BlockGates, lines: &[Line], what: &str, with_bands: bool) -> String {
    let channels: Vec<usize> = (0..block.channels()).collect();
    let sample = sampled(&channels, MOST_CHANNELS);
    let count = match (sample.len(), channels.len()) {
        (_, 1) => "1 channel".to_string(),
        (drawn, all) if drawn < all => format!("{drawn} of {} channels", grouped(all as i64)),
        (_, all) => format!("{all} channels"),
    };
    let curves = Curves {
        description: format!("{what}: {}", block.label),
        title: "channel".into(),
        last: channels.len().saturating_sub(1),
        measured: "gate".into(),
        measured_range: (0.0, 1.0),
        curves: lines.iter().filter_map(|line| curve(line.of(block)?, line, &sample, with_bands)).collect(),
        exact: sample
            .iter()
            .map(|&channel| (channel as f64, exact(block, lines, channel, with_bands)))
            .collect(),
    };
    let name = match block.name == block.label {
        true => String::new(),
        false => format!(" <code>{}</code>", escape(&block.name)),
    };
    format!(
        "<figure>\n<figcaption><strong>{}</strong>{name} <span>{count}</span></figcaption>\n{}</figure>\n",
        escape(&block.label),
        curves.svg()
    )
}

/// The curve of a class; `None` where it has no figures.
fn curve(over: &Activations, line: &Line, sample: &[usize], with_band: bool) -> Option<Curve> {
    let point = |&channel: &usize| {
        let (mean, deviation) = over.of_channel(channel);
        let mean = mean.unwrap_or(f64::NAN); // a gap
        CurvePoint { at: channel as f64, mean, deviation: deviation.filter(|_| with_band) }
    };
    let class = format!("c{}", line.colour);
    has_figures(over).then(|| Curve { class, points: sample.iter().map(point).collect() })
}

/// The exact figures of a channel, a line each.
fn exact(block: &BlockGates, lines: &[Line], channel: usize, with_deviation: bool) -> String {
    let figure = |line: &Line| {
        let (mean, deviation) = line.of(block)?.of_channel(channel);
        let deviation = deviation.filter(|_| with_deviation);
        let deviation = deviation.map_or_else(String::new, |deviation| format!(" ± {deviation:.3}"));
        Some(format!("\n{:.3}{deviation} {}", mean?, shortened(line.name, LONGEST)))
    };
    let figures: String = lines.iter().filter_map(figure).collect();
    format!("channel {channel}{figures}")
}

/// What the colours mean. Pointing at a name dims the other lines of the section.
pub fn legend(lines: &[Line], with_bands: bool) -> String {
    let key = |line: &Line| {
        let class = format!("c{}", line.colour);
        let band = match with_bands {
            true => format!("<path class=\"spread {class}\" d=\"M0 0H26V14H0Z\"/>"),
            false => String::new(),
        };
        format!(
            "<li class=\"{class}\" tabindex=\"0\"><svg class=\"plot\" viewBox=\"0 0 26 14\" aria-hidden=\"true\" \
             xmlns=\"http://www.w3.org/2000/svg\">{band}<path class=\"curve {class}\" d=\"M0 7H26\"/></svg>\
             {} <span>{}</span></li>\n",
            escape(&shortened(line.name, LONGEST)),
            grouped(i64::try_from(line.images).unwrap_or(i64::MAX))
        )
    };
    let keys: String = lines.iter().map(key).collect();
    format!("<ul class=\"legend\">\n{keys}</ul>\n")
}
