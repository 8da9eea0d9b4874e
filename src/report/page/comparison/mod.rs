//! The page of a comparison: a table and plots for each, and how to read them.

mod figures;
mod table;

use super::{HOW_TO_READ, capitalised, document, list, section, setting_list};
use crate::report::comparison::{Comparison, Results};
use crate::report::plot::escape;
use figures::{figures, lines};
use table::table;

/// How to read the figures.
const READING: &str = "\
<p>Errors are means over the seeds that have finished, ± one standard deviation over them. The difference is top-1 \
error minus that of the control: negative is better. It is taken seed by seed, between runs that share their seed \
and with it the order of the data, and then averaged; ± is half the width of the 95 % interval of Student’s t on \
these paired differences.</p>
<ul>
<li><strong>clear</strong>: the interval does not contain 0.</li>
<li><strong>within noise</strong>: it contains 0; these seeds cannot tell the row from the control.</li>
<li><strong>one seed</strong>: a single pair has no interval.</li>
</ul>
<p>The intervals are not corrected for the number of rows: of many rows that do not differ from the control, about \
one in twenty would stand out by chance.</p>
<p>Axes of error begin near the smallest figure, not at 0. Parameters are the trainable ones; multiply-adds are for one \
image; speeds are ";

/// Where speeds come from, as the end of [`READING`].
const OF_RUNS: &str = "medians of the runs, loading included, whatever else the machine did.</p>\n";
const IN_TURNS: &str = "medians of steps on made-up images, all rows in turns.</p>\n";

/// How to read the paper's.
const READING_PAPER: &str = "\
<p>The paper’s figures are of SE-ResNet-50 on ImageNet, single crop: compare how rows differ there and here, not the \
figures themselves.</p>
";

/// The whole document.
pub fn page(results: &Results) -> String {
    let title = capitalised(&results.title);
    let sections = results.comparisons.iter().enumerate();
    let sections: String = sections.map(|(number, one)| comparison_section(results, one, number)).collect();
    document(
        &format!("{title} – {}", results.model),
        &title,
        &setting(results),
        &format!("{sections}{}", closing(results)),
    )
}

/// The network, its setting, and how far the runs are.
fn setting(results: &Results) -> String {
    let seeds: Vec<String> = results.seeds.iter().map(u64::to_string).collect();
    let seed_list = match seeds.as_slice() {
        [] => "no seeds".to_string(),
        [seed] => format!("seed {seed}"),
        seeds => format!("seeds {}", seeds.join(", ")),
    };
    let runs = results.rows.iter().map(|row| row.runs.len()).sum::<usize>();
    let done = results.rows.iter().map(|row| row.done().count()).sum::<usize>();
    let failed = match results.failures().len() {
        0 => String::new(),
        count => format!(", <span class=\"failed\">{count} failed</span>"),
    };
    let progress = format!("{seed_list}; {done} of {runs} runs finished{failed}");
    format!(
        "<p class=\"lead\">{}</p>\n{}{}",
        escape(&results.model),
        setting_list(&results.setting, &progress),
        contents(&results.comparisons)
    )
}

/// Links to the comparisons, where there are several.
fn contents(comparisons: &[Comparison]) -> String {
    if comparisons.len() < 2 {
        return String::new();
    }
    let link = |(number, comparison): (usize, &Comparison)| {
        format!("<li><a href=\"#c{number}\">{}</a></li>\n", escape(&capitalised(&comparison.title)))
    };
    let links: String = comparisons.iter().enumerate().map(link).collect();
    format!("<nav>\n<ul>\n{links}</ul>\n</nav>\n")
}

fn comparison_section(results: &Results, comparison: &Comparison, number: usize) -> String {
    let lines = lines(results, comparison);
    let source = comparison
        .paper_table
        .map_or_else(String::new, |table| format!(" <span class=\"source\">paper Table {table}</span>"));
    let note = comparison.note.as_ref();
    let note = note.map_or_else(String::new, |note| format!("<p class=\"note\">{}</p>\n", escape(note)));
    let plots = match figures(comparison, &lines) {
        plots if plots.is_empty() => "<p class=\"note\">No row has finished yet.</p>\n".to_string(),
        plots => plots,
    };
    format!(
        "<section id=\"c{number}\">\n<h2>{}{source}</h2>\n{note}{}{plots}</section>\n",
        escape(&capitalised(&comparison.title)),
        table(&lines, results.seeds.len()),
    )
}

/// Failed runs, what was left out, and how to read the figures.
fn closing(results: &Results) -> String {
    let failures = results.failures().into_iter().map(|(label, seed, message)| {
        format!("{}, seed {seed}<pre>{}</pre>", escape(label), escape(message))
    });
    let left_out = results.left_out.iter().map(|what| escape(what));
    let mut entries = results.comparisons.iter().flat_map(|comparison| &comparison.entries);
    let paper = if entries.any(|entry| entry.paper.is_some()) { READING_PAPER } else { "" };
    let speeds = if results.speeds_are_in_turns { IN_TURNS } else { OF_RUNS };
    let failures = list("Failed runs", failures.collect());
    let left_out = list("Left out", left_out.collect());
    failures + &left_out + &section(HOW_TO_READ, &format!("{READING}{speeds}{paper}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::table::PAPER;
    use super::*;
    use crate::report::comparison::{Entry, Measured, PaperFigures, RowResult, Run, State};
    use crate::report::event::{Accuracy, Evaluation};

    const SEEDS: [u64; 3] = [1, 2, 3];

    fn done(error: f64) -> State {
        let accuracy = |error: f64| Accuracy { correct: 0, accuracy: 1.0 - error };
        let eval = Evaluation {
            seen: 10_000,
            skipped: 0,
            top1: accuracy(error),
            top5: accuracy(error / 10.0),
            loss: 0.3,
        };
        State::Done(Measured {
            eval,
            seconds_per_epoch: 9.0,
            train_images_per_second: Some(4321.0),
            eval_images_per_second: None,
        })
    }

    fn row(key: &str, reduction: Option<i64>, states: Vec<State>) -> RowResult {
        RowResult {
            label: format!("<{key}> & co"),
            key: key.into(),
            reduction,
            params: 270_000,
            macs: 40_000_000 + reduction.unwrap_or_default(),
            runs: SEEDS.into_iter().zip(states).map(|(seed, state)| Run { seed, state }).collect(),
            ..RowResult::default()
        }
    }

    fn results(rows: Vec<RowResult>) -> Results {
        let entry = |row: &RowResult| Entry::new(row.label.clone(), row.key.clone(), None);
        let compare = |key: &str| Comparison {
            key: key.into(),
            title: "a < b".into(),
            paper_table: Some(10),
            note: Some("x & y".into()),
            control: rows[0].key.clone(),
            entries: rows.iter().map(entry).collect(),
        };
        let comparisons = vec![compare("ratios"), compare("structures")];
        let mut results = Results {
            title: "title".into(),
            model: "net".into(),
            setting: vec!["data".into()],
            seeds: SEEDS.to_vec(),
            rows,
            comparisons,
            left_out: vec!["a < b".into()],
            speeds_are_in_turns: false,
        };
        results.settle();
        results
    }

    #[test]
    fn any_state_of_the_runs_gives_a_balanced_page_without_nan() {
        let failed = || State::Failed { message: "a < b\n\u{1b}[31mline & line".into() };
        let states: [Vec<State>; 6] = [
            vec![],
            vec![State::Open, State::Open, State::Open],
            vec![done(0.08)],
            vec![done(0.08), failed(), State::Open],
            vec![done(0.08), done(0.08), done(0.08)],
            vec![done(f64::NAN), done(0.08), failed()],
        ];
        for control in &states {
            check(&page(&results(vec![row("plain", None, control.clone())])));
            for variant in &states {
                let rows = vec![
                    row("plain", None, control.clone()),
                    row("r4", Some(4), variant.clone()),
                    row("r8", Some(8), variant.clone()),
                ];
                check(&page(&results(rows)));
            }
        }
    }

    #[test]
    fn a_row_without_runs_shows_dashes_and_a_failed_one_says_why() {
        let open = page(&results(vec![row("plain", None, vec![]), row("r4", Some(4), vec![])]));
        assert!(open.contains("<td><span class=\"missing\">–</span></td>") && open.contains("not finished"));
        assert!(open.contains("No row has finished yet") && !open.contains("<svg"));
        let failed = State::Failed { message: "out of memory".into() };
        let failed = page(&results(vec![row("plain", None, vec![failed])]));
        assert!(failed.contains("<h2>Failed runs</h2>") && failed.contains("failed</span>: out of memory"));
    }

    #[test]
    fn differences_are_signed_and_judged() {
        let rows = |r4: [f64; 3], r8: [f64; 3]| {
            let row = |key, reduction, errors: [f64; 3]| row(key, reduction, errors.map(done).to_vec());
            vec![row("plain", None, [0.080, 0.082, 0.084]), row("r4", Some(4), r4), row("r8", Some(8), r8)]
        };
        let page = page(&results(rows([0.070, 0.0721, 0.0739], [0.081, 0.080, 0.0853])));
        assert!(page.contains("−1.00 ± 0.02") && page.contains(">clear<"), "{page}");
        assert!(page.contains("+0.01 ± ") || page.contains(">within noise<"));
    }

    #[test]
    fn the_paper_has_only_the_columns_that_a_row_has() {
        let mut results = results(vec![row("plain", None, vec![done(0.08)])]);
        assert!(!page(&results).contains(PAPER));
        results.comparisons[0].entries[0].paper = Some(PaperFigures {
            top1_error: 0.2228,
            top5_error: 0.0603,
            params_millions: Some(28.1),
            giga_macs: None,
        });
        let page = page(&results);
        assert!(page.contains("colspan=\"3\"><span>paper, ImageNet") && page.contains(">22.28<"));
        assert!(!page.contains("GMACs"));
    }
}
