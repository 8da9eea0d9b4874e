//! Training runs side by side, from their own records: one a row, and means over those that differ by their seed alone.

use super::comparison::{deviation, mean};
use super::csv::quoted;
use super::table::{Table, percent};
use crate::duration::Duration;
use serde::Serialize;

/// Some runs, finished or not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Runs {
    /// Those that differ by their seed alone are together.
    pub groups: Vec<Group>,
}

/// Runs of the same settings with different seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// The runs.
    pub runs: Vec<RunRecord>,
    /// Means over those that are done; `null` where they are fewer than two.
    pub means: Option<Means>,
}

/// What a run was, and what it came to; what is not known yet is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// Its folder.
    pub run: String,
    /// Its name in the configuration.
    pub name: String,
    /// The network.
    pub model: String,
    /// Its seed.
    pub seed: u64,
    /// Length.
    pub duration: Duration,
    /// Samples in an optimizer step.
    pub batch_size: usize,
    /// Whether all steps are done and evaluated.
    pub is_done: bool,
    /// Steps that are done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: Option<u64>,
    /// Whether the accuracies are those of the moving average of the weights.
    pub is_average: bool,
    /// Fraction that is right at the first guess, after the last step.
    pub top1: Option<f64>,
    /// Fraction that is right within five guesses, after the last step.
    pub top5: Option<f64>,
    /// Highest top-1 of all evaluations.
    pub best_top1: Option<f64>,
    /// Seconds of the run so far, evaluations included.
    pub seconds: f64,
    /// Seconds of training alone.
    pub train_seconds: Option<f64>,
    /// Training speed.
    pub images_per_second: Option<f64>,
    /// The processes that have worked on it.
    pub starts: Vec<Start>,
}

/// Where and by what a run was computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// Where it computes.
    pub device: String,
    /// Threads of one operation on the CPU.
    pub threads: i32,
    /// Processes that work together.
    pub world_size: usize,
    /// Version of this program.
    pub senet: String,
    /// Git revision that it was built from.
    pub revision: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Command line.
    pub command: Vec<String>,
}

/// Means over finished runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Means {
    /// How many.
    pub runs: usize,
    /// Of the fraction that is right at the first guess.
    pub top1: Spread,
    /// Of the fraction that is right within five guesses.
    pub top5: Spread,
    /// Of the highest top-1.
    pub best_top1: Spread,
    /// Of the seconds, evaluations included.
    pub seconds: Spread,
    /// Of the training speed; `null` where a run has none.
    pub images_per_second: Option<Spread>,
}

/// A mean with its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation.
    pub deviation: f64,
}

impl Spread {
    /// Of at least two figures, all of which are known.
    fn of(figures: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let figures: Vec<f64> = figures.collect::<Option<_>>()?;
        Some(Self { mean: mean(&figures)?, deviation: deviation(&figures)? })
    }

    /// `93.10 ± 0.12 %`.
    fn percent(&self) -> String {
        format!("{:.2} ± {:.2} %", 100.0 * self.mean, 100.0 * self.deviation)
    }
}

impl Group {
    /// Runs that differ by their seed alone.
    pub fn new(runs: Vec<RunRecord>) -> Self {
        let means = Means::of(&runs);
        Self { runs, means }
    }
}

impl Means {
    fn of(runs: &[RunRecord]) -> Option<Self> {
        let done = || runs.iter().filter(|run| run.is_done);
        let spread = |figure: fn(&RunRecord) -> Option<f64>| Spread::of(done().map(figure));
        Some(Self {
            runs: done().count(),
            top1: spread(|run| run.top1)?,
            top5: spread(|run| run.top5)?,
            best_top1: spread(|run| run.best_top1)?,
            seconds: spread(|run| Some(run.seconds))?,
            images_per_second: spread(|run| run.images_per_second),
        })
    }
}

impl Start {
    fn place(&self) -> String {
        let place = match self.device.as_str() {
            "cpu" => format!("cpu, {} thread(s)", self.threads),
            device => device.to_string(),
        };
        match self.world_size {
            1 => place,
            several => format!("{several} processes, each {place}"),
        }
    }

    fn version(&self) -> String {
        format!("{} ({}), libtorch {}", self.senet, self.revision, self.libtorch)
    }

    /// The command as anyone would type it, wherever the program and the run's folder lie.
    fn line(&self) -> String {
        let mut words = self.command.iter().skip(1);
        let mut line = vec!["senet".to_string()];
        while let Some(word) = words.next() {
            match word.as_str() {
                "--out" => _ = words.next(),
                word if word.starts_with("--out=") => {}
                word if word.contains(|c: char| c.is_whitespace() || "'\"{}[]$*?;&|<>()".contains(c)) => {
                    line.push(format!("'{word}'"));
                }
                word => line.push(word.to_string()),
            }
        }
        line.join(" ")
    }
}

/// A row of the table.
enum Row<'a> {
    Run(&'a RunRecord),
    Means(&'a Means),
}

/// A column: heading, cell of a run, cell of means.
type Column = (&'static str, fn(&RunRecord) -> Option<String>, fn(&Means) -> Option<String>);

/// What a run was. Where all runs agree, it is said once and takes no column.
const SETTING: [Column; 7] = [
    ("name", |run| Some(run.name.clone()), |_| None),
    ("network", |run| Some(run.model.clone()), |_| None),
    ("epochs", |run| Some(epochs(run.duration)), |_| None),
    ("batch", |run| Some(run.batch_size.to_string()), |_| None),
    ("device", |run| different(run.starts.iter().map(Start::place)), |_| None),
    ("senet", |run| different(run.starts.iter().map(Start::version)), |_| None),
    ("state", |run| Some(state(run)), |_| None),
];

/// What it came to.
const FIGURES: [Column; 6] = [
    ("seed", |run| Some(run.seed.to_string()), |_| None),
    ("top-1", |run| run.top1.map(percent), |means| Some(means.top1.percent())),
    ("top-5", |run| run.top5.map(percent), |means| Some(means.top5.percent())),
    ("best top-1", |run| run.best_top1.map(percent), |means| Some(means.best_top1.percent())),
    (
        "time, min:s",
        |run| Some(clock(run.seconds)),
        |means| Some(format!("{} ± {}", clock(means.seconds.mean), clock(means.seconds.deviation))),
    ),
    (
        "img/s",
        |run| run.images_per_second.map(|speed| format!("{speed:.0}")),
        |means| {
            means.images_per_second.map(|Spread { mean, deviation }| format!("{mean:.0} ± {deviation:.0}"))
        },
    ),
];

impl Runs {
    /// Those whose configuration has this name; `None` where there are none.
    pub fn named(&self, name: &str) -> Option<Self> {
        let is_named = |group: &&Group| group.runs.iter().any(|run| run.name == name);
        let groups: Vec<Group> = self.groups.iter().filter(is_named).cloned().collect();
        (!groups.is_empty()).then_some(Self { groups })
    }

    /// All runs, in the order of the table.
    pub fn all(&self) -> impl Iterator<Item = &RunRecord> {
        self.groups.iter().flat_map(|group| &group.runs)
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let (setting, table) = self.table();
        let parts = [setting.join("\n"), table.text(), self.remarks().join("\n")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let (setting, table) = self.table();
        let list = |lines: &[String]| lines.iter().map(|line| format!("* {line}\n")).collect::<String>();
        let parts = [list(&setting), table.markdown(), list(&self.remarks())];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// A line for each run, for a spreadsheet or a data frame. Accuracies are fractions of 1.
    pub fn csv(&self) -> String {
        let head = "run,name,model,seed,duration,batch_size,is_done,step,total_steps,is_average,top1,top5,best_top1,seconds,\
                    train_seconds,images_per_second,device,threads,senet,revision,libtorch\n";
        let number = |figure: Option<f64>| figure.map_or(String::new(), |figure| figure.to_string());
        let line = |run: &RunRecord| {
            let last = |figure: fn(&Start) -> String| run.starts.last().map_or(String::new(), figure);
            let cells = [
                run.run.clone(),
                run.name.clone(),
                run.model.clone(),
                run.seed.to_string(),
                run.duration.to_string(),
                run.batch_size.to_string(),
                run.is_done.to_string(),
                run.step.to_string(),
                run.total_steps.map_or(String::new(), |steps| steps.to_string()),
                run.is_average.to_string(),
                number(run.top1),
                number(run.top5),
                number(run.best_top1),
                run.seconds.to_string(),
                number(run.train_seconds),
                number(run.images_per_second),
                last(|start| start.device.clone()),
                last(|start| start.threads.to_string()),
                last(|start| start.senet.clone()),
                last(|start| start.revision.clone()),
                last(|start| start.libtorch.clone()),
            ];
            cells.map(|cell| quoted(&cell)).join(",") + "\n"
        };
        head.to_string() + &self.all().map(line).collect::<String>()
    }

    /// What all runs have in common, and the table of the rest.
    fn table(&self) -> (Vec<String>, Table) {
        let mut rows = Vec::new();
        let mut labels = Vec::new();
        for group in &self.groups {
            labels.extend(group.runs.iter().map(|run| Some(self.label(run))));
            rows.extend(group.runs.iter().map(Row::Run));
            labels.extend(group.means.map(|means| Some(format!("mean of {}", means.runs))));
            rows.extend(group.means.iter().map(Row::Means));
        }
        let common = |cell: fn(&RunRecord) -> Option<String>| -> Option<String> {
            let mut cells = self.all().map(cell);
            let first = cells.next()??;
            cells.all(|cell| cell.as_ref() == Some(&first)).then_some(first)
        };
        let (mut setting, mut columns) = (Vec::new(), vec![(String::new(), labels)]);
        let all =
            SETTING.map(|column| (column, true)).into_iter().chain(FIGURES.map(|column| (column, false)));
        for ((heading, of_run, of_means), is_setting) in all {
            match common(of_run).filter(|_| is_setting) {
                // That all are done goes without saying.
                Some(cell) if heading == "state" && cell == DONE => {}
                Some(cell) => setting.push(format!("{heading}: {cell}")),
                None => {
                    let cell = |row: &Row<'_>| match row {
                        Row::Run(run) => of_run(run),
                        Row::Means(means) => of_means(means),
                    };
                    columns.push((heading.to_string(), rows.iter().map(cell).collect()));
                }
            }
        }
        (setting, Table::of_columns(columns))
    }

    /// What a run is called in the table: its folder, without what lies above where that is not needed.
    fn label(&self, run: &RunRecord) -> String {
        let name = |run: &RunRecord| run.run.trim_end_matches('/').rsplit('/').next().map(str::to_string);
        let is_alone = self.all().filter(|other| name(other) == name(run)).count() == 1;
        name(run).filter(|_| is_alone).unwrap_or_else(|| run.run.clone())
    }

    /// What stands below the table.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![
            "time: the whole run, evaluations included; img/s: training alone, loading included".to_string(),
        ];
        if self.groups.iter().any(|group| group.means.is_some()) {
            remarks.push("±: one standard deviation over runs that differ by their seed alone".to_string());
        }
        let averages = self.all().filter(|run| run.is_average).count();
        if averages > 0 {
            let which = if averages == self.all().count() { "" } else { ", where a run has one" };
            remarks.push(format!("accuracies are those of the moving average of the weights{which}"));
        }
        let mut commands: Vec<String> = Vec::new();
        for start in self.all().filter_map(|run| run.starts.first()) {
            let command = format!("`{}`", start.line());
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
        remarks.extend(commands);
        remarks
    }
}

const DONE: &str = "done";

fn state(run: &RunRecord) -> String {
    match run.total_steps {
        _ if run.is_done => DONE.to_string(),
        Some(total) => format!("step {} of {total}", run.step),
        None => "not begun".to_string(),
    }
}

/// `12`, or a length that is not in epochs as it is.
fn epochs(duration: Duration) -> String {
    match duration {
        Duration::Epochs(epochs) => epochs.to_string(),
        other => other.to_string(),
    }
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// What is different among these, in order; nothing of nothing.
fn different(items: impl Iterator<Item = String>) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    (!found.is_empty()).then(|| found.join(", then "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, top1: Option<f64>) -> RunRecord {
        let command =
            format!("/somewhere/senet train a.json --out runs/{seed} --set train.mix={{}} --seed {seed}");
        RunRecord {
            run: format!("runs/{seed}/"),
            name: "laptop".to_string(),
            model: "se-resnet-20".to_string(),
            seed,
            duration: Duration::Epochs(12.0),
            batch_size: 128,
            is_done: top1.is_some(),
            step: 40,
            total_steps: Some(100),
            is_average: false,
            top1,
            top5: top1.map(|top1| top1 + 0.01),
            best_top1: top1,
            seconds: 60.0 * seed as f64 + 59.6,
            train_seconds: top1.map(|_| 50.0),
            images_per_second: top1.map(|_| 700.0),
            starts: vec![Start {
                device: "cpu".to_string(),
                world_size: 1,
                threads: 2,
                senet: "0.1.0".to_string(),
                revision: "abc".to_string(),
                libtorch: "2.13.0".to_string(),
                command: command.split(' ').map(str::to_string).collect(),
            }],
        }
    }

    #[test]
    fn means_are_of_the_runs_that_are_done() {
        let runs =
            Runs { groups: vec![Group::new(vec![run(0, Some(0.93)), run(1, None), run(2, Some(0.95))])] };
        let means = runs.groups[0].means.unwrap();
        // Of 0.93 and 0.95 the sample deviation is √2 hundredths.
        assert_eq!(means.runs, 2);
        assert!((means.top1.mean - 0.94).abs() < 1e-12);
        assert!((means.top1.deviation - 0.02 / 2f64.sqrt()).abs() < 1e-12);
        let text = runs.markdown();
        for part in
            ["| mean of 2 |", "94.00 ± 1.41 %", "step 40 of 100", " 1:00 ", "2:00 ± 1:25", "* epochs: 12\n"]
        {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.contains("* `senet train a.json --set 'train.mix={}' --seed 0`\n"), "{text}");
        let unfinished = Runs { groups: vec![Group::new(vec![run(0, Some(0.93)), run(1, None)])] };
        assert!(unfinished.groups[0].means.is_none() && !unfinished.text().contains('±'));
    }

    #[test]
    fn what_all_runs_share_takes_no_column() {
        let other = RunRecord { model: "resnet-20".to_string(), ..run(1, Some(0.9)) };
        let runs = Runs { groups: vec![Group::new(vec![run(0, Some(0.93))]), Group::new(vec![other])] };
        let (setting, table) = runs.table();
        assert_eq!(table.headings[..3], ["", "network", "seed"]);
        assert!(
            setting.contains(&"batch: 128".to_string()) && !setting.iter().any(|line| line.contains("state"))
        );
        assert!(runs.named("laptop").is_some() && runs.named("desktop").is_none());
        let csv = runs.csv();
        assert_eq!(csv.lines().count(), 3);
        assert_eq!(
            csv.lines().next().unwrap().split(',').count(),
            csv.lines().nth(1).unwrap().split(',').count()
        );
    }
}
