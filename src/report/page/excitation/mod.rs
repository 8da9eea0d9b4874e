//! The page of what the gates of a network do (paper §7.2): a table of all blocks, and plots of some like the paper's
//! Figures 6 and 7.

mod figures;
mod table;

use super::{HOW_TO_READ, document, section, setting_list};
use crate::report::excitation::{BlockGates, Excitation};
use crate::report::plot::escape;
use crate::report::table::grouped;
use figures::{Chosen, Line, MOST_CHANNELS, chosen, drawn, legend, means, spreads};
use table::table;

/// How to read the figures.
const READING: &str = "\
<p>A gate is the factor by which an SE block scales a channel: at 0 the channel is shut, at 1 it passes unchanged. \
Where the lines of the classes lie on one another, the block weights its channels alike whatever an image shows; where \
they part, its gates depend on the class. Gates that are near 0 or near 1 for every image are saturated: they tell no \
images apart, and a block that is open throughout does little more than pass on what it is given. Seen this way, the \
paper found in SE-ResNet-50 on ImageNet (§7.2) that early blocks treat all classes alike (SE_2_3), that later ones are \
specific to the class (SE_4_6, SE_5_1), that SE_5_2 is saturated with most gates near 1, and that in SE_5_3 classes \
have one pattern up to a change of scale; the last two blocks thus matter less to the network.</p>
<p>In the table, shut and open are the shares of all gates, over images and channels, that are below 0.1 and above \
0.9.</p>
";
/// How to read what only chosen classes have.
const READING_BETWEEN: &str = "\
<p>The variance between classes is the share of the variance of a block’s gates that the chosen classes explain, from \
0 where the classes are alike to 100 % where nothing but the class makes a difference.</p>
";
/// How to read gates other than sigmoids.
const READING_BEYOND: &str = "\
<p>Some gates here lie outside 0 to 1, as those of tanh and of ReLU do, and so do their axes: a negative gate turns \
the sign of its channel, one above 1 amplifies it. “Shut” counts negative gates as well.</p>
";

/// The whole document.
pub fn page(excitation: &Excitation) -> String {
    let title = format!("What the gates do: {}", excitation.model);
    let chosen = chosen(&excitation.blocks);
    let main = [
        section("Blocks", &table(&excitation.blocks, &chosen.shown)),
        plots(excitation, &chosen),
        section(HOW_TO_READ, &reading(&excitation.blocks)),
    ];
    document(&title, &title, &setting(excitation), &main.concat())
}

fn setting(excitation: &Excitation) -> String {
    let seen = count(i64::try_from(excitation.seen).unwrap_or(i64::MAX), "image");
    let blocks = count(excitation.blocks.len() as i64, "SE block");
    setting_list(&excitation.setting, &format!("{seen} seen by {blocks}"))
}

fn count(number: i64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

fn reading(blocks: &[BlockGates]) -> String {
    let has_between = blocks.iter().any(|block| block.saturation.between_classes.is_some());
    let mut means = blocks.iter().flat_map(|block| &block.all.mean);
    let is_beyond = means.any(|mean| mean.is_finite() && !(0.0..=1.0).contains(mean));
    let paragraphs = [(true, READING), (has_between, READING_BETWEEN), (is_beyond, READING_BEYOND)];
    paragraphs.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, paragraph)| paragraph).collect()
}

/// The sections of both figures.
fn plots(excitation: &Excitation, chosen: &Chosen) -> String {
    if chosen.shown.is_empty() && chosen.more.is_empty() {
        return String::new();
    }
    let classes = Line::classes(excitation);
    let (mean_lines, spread_lines) = drawn(excitation, &classes);
    let by_class = format!(
        "{}{}{}{}",
        mean_caption(excitation, &classes, mean_lines.len() - 1, chosen),
        legend(&mean_lines, false),
        means(&chosen.shown, &mean_lines),
        more(chosen, &mean_lines)
    );
    let spread = format!(
        "{}{}{}",
        spread_caption(&spread_lines, classes.is_empty()),
        legend(&spread_lines, true),
        spreads(&chosen.shown, &spread_lines)
    );
    let heading = if classes.is_empty() { "Gates of each channel" } else { "Gates by class" };
    section(&with_source(heading, 6), &by_class) + &section(&with_source("Spread over images", 7), &spread)
}

fn with_source(heading: &str, figure: u32) -> String {
    format!("{heading} <span class=\"source\">as in the paper’s Figure {figure}</span>")
}

/// What is drawn, and what is not.
fn mean_caption(excitation: &Excitation, classes: &[Line], drawn: usize, chosen: &Chosen) -> String {
    let blocks = drawn_blocks(&excitation.blocks, chosen);
    let lines = match drawn {
        0 => "The line is the mean gate of each channel over all images: no class that has images was chosen.".to_string(),
        _ => "Each line is the mean gate of each channel over the images of one class; the broad one is over all \
              images. Beside the names are numbers of images."
            .to_string(),
    };
    let hidden = match classes.len() {
        all if all > drawn => format!(" The first {drawn} of {all} chosen classes are drawn."),
        _ => String::new(),
    };
    let is_missing = |name: &&String| !classes.iter().any(|class| class.name == name.as_str());
    let missing: Vec<String> =
        excitation.classes.iter().filter(is_missing).map(|name| escape(name)).collect();
    let missing = match missing.len() {
        0 => String::new(),
        _ => format!(" Left out, being without images: {}.", missing.join(", ")),
    };
    format!("<p class=\"note\">{lines}{hidden}{missing} {blocks}</p>\n")
}

/// Which blocks are drawn, and how much of them.
fn drawn_blocks(blocks: &[BlockGates], chosen: &Chosen) -> String {
    let has_stages = blocks.iter().any(|block| block.stage.is_some());
    let has_others = chosen.shown.iter().any(|block| !block.is_last_of_stage);
    let which = match chosen.shown.len() {
        all if all == blocks.len() => "All blocks are drawn".to_string(),
        _ if has_stages && chosen.is_whole() => {
            let (verb, others) = if has_others {
                ("Drawn are", " and the others of the last stage")
            } else {
                ("Drawn is", "")
            };
            format!("{verb} the last block of each stage{others}")
        }
        drawn => format!("{drawn} of {} blocks are drawn", grouped(blocks.len() as i64)),
    };
    match blocks.iter().any(|block| block.channels() > MOST_CHANNELS) {
        true => format!(
            "{which}; of one with more than {MOST_CHANNELS} channels, {MOST_CHANNELS} at even distances."
        ),
        false => format!("{which}."),
    }
}

fn spread_caption(lines: &[Line], without_classes: bool) -> String {
    let (of, apart) = match lines {
        _ if without_classes => ("over all images".to_string(), ""),
        [one] => (format!("over the images of {}", escape(one.name)), ""),
        _ => (
            "over the images of the first two classes".to_string(),
            " Where the bands lie apart, that gate alone tells most images of one class from those of the other.",
        ),
    };
    format!(
        "<p class=\"note\">Lines are mean gates {of}, bands ± one standard deviation over these images.{apart}</p>\n"
    )
}

/// The other blocks of the last stage, where they are many.
fn more(chosen: &Chosen, lines: &[Line]) -> String {
    if chosen.more.is_empty() {
        return String::new();
    }
    let all = grouped(chosen.more_of as i64);
    let which = match chosen.more.len() {
        drawn if drawn < chosen.more_of => format!("{drawn} of the {all} other blocks of the last stage"),
        _ => format!("The {all} other blocks of the last stage"),
    };
    format!("<details>\n<summary>{which}</summary>\n{}</details>\n", means(&chosen.more, lines))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;
    use crate::report::excitation::{Activations, Saturation};

    fn over(images: u64, mean: &[f64]) -> Activations {
        Activations { images, mean: mean.to_vec(), deviation: vec![0.1; mean.len()] }
    }

    fn block(stage: Option<i64>, is_last_of_stage: bool, by_class: Vec<Activations>) -> BlockGates {
        BlockGates {
            name: "layer1.0.se".into(),
            label: "SE <a> & \"b\"".into(),
            stage,
            is_last_of_stage,
            all: over(9, &[0.5, 0.25, 0.75]),
            by_class,
            saturation: Saturation { mean: 0.5, shut: 0.125, open: 0.25, between_classes: None },
        }
    }

    fn excitation(classes: &[&str], blocks: Vec<BlockGates>) -> Excitation {
        let classes = classes.iter().map(|class| class.to_string()).collect();
        Excitation { model: "<net>".into(), setting: vec!["a < b".into()], seen: 9, classes, blocks }
    }

    fn drawings(page: &str) -> usize {
        page.matches("<figure>").count()
    }

    #[test]
    fn any_gates_give_a_balanced_page_without_nan() {
        let odd = [f64::NAN, f64::INFINITY, -1e300];
        let all_classes = [
            vec![],
            vec![over(1, &[0.5])],
            vec![over(0, &[]), over(2, &odd)],
            vec![over(0, &odd), over(2, &[0.5, f64::NAN, 0.25])],
        ];
        check(&page(&excitation(&["a < b", "c & d"], vec![])));
        for by_class in all_classes {
            for stage in [None, Some(2)] {
                let mut last = block(stage, true, by_class.clone());
                check(&page(&excitation(&["a < b", "c & d"], vec![last.clone()])));
                last.all = over(9, &odd);
                last.saturation =
                    Saturation { mean: f64::NAN, shut: 2.0, open: -1.0, between_classes: Some(f64::NAN) };
                check(&page(&excitation(
                    &["a < b"],
                    vec![block(stage, false, by_class.clone()), last.clone()],
                )));
                last.all = over(9, &[0.5]);
                check(&page(&excitation(&[], vec![last])));
            }
        }
    }

    #[test]
    fn classes_beyond_the_colours_and_those_without_images_are_named() {
        let names = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "empty"];
        let mut by_class = vec![over(4, &[0.5, 0.25, 0.75]); 9];
        by_class.push(over(0, &[f64::NAN; 3]));
        let page = page(&excitation(&names, vec![block(Some(2), true, by_class)]));
        assert!(page.contains("The first 8 of 9 chosen classes are drawn"), "{page}");
        assert!(page.contains("being without images: empty."), "{page}");
        assert!(page.contains("curve c8\"") && !page.contains("curve c9\""));
        assert_eq!(page.matches("<path class=\"spread").count(), 4, "two keys and two bands");
    }

    #[test]
    fn the_last_of_each_stage_and_few_others_of_the_last_stage_are_drawn() {
        let stages = |count: usize| {
            let mut blocks = vec![block(Some(2), false, vec![]), block(Some(2), true, vec![])];
            blocks.extend(vec![block(Some(3), false, vec![]); count]);
            blocks.push(block(Some(3), true, vec![]));
            page(&excitation(&[], blocks))
        };
        assert_eq!(drawings(&stages(2)), 2 * 4);
        let many = stages(300);
        check(&many);
        assert_eq!(drawings(&many), 2 * 2 + 24);
        assert!(many.contains("24 of the 300 other blocks") && many.contains("All 303 blocks"));
    }

    #[test]
    fn gates_beyond_0_to_1_are_explained() {
        let mut tanh = block(None, true, vec![]);
        assert!(!page(&excitation(&[], vec![tanh.clone()])).contains("amplifies"));
        tanh.all = over(9, &[-0.5, 0.5]);
        assert!(page(&excitation(&[], vec![tanh])).contains("amplifies"));
    }

    #[test]
    fn many_channels_are_sampled_from_the_first_to_the_last() {
        let mut wide = block(None, true, vec![]);
        wide.all = over(9, &[0.5; 2048]);
        let page = page(&excitation(&[], vec![wide]));
        assert!(page.contains("50 of 2,048 channels") && page.contains("50 at even distances"));
        assert_eq!(page.matches("<title>channel ").count(), 2 * 50);
        assert!(page.contains("<title>channel 0\n") && page.contains("<title>channel 2047\n"));
    }
}
