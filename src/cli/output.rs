//! The only printer: results on stdout, everything else on stderr.

use crate::engine::ablate::{RowEvent, RowObserver};
use crate::engine::details::Answers;
use crate::error::{self, Kind, Result};
use crate::printable;
use crate::report::event::{Accuracy, Evaluation, Event, Observer, Tick};
use crate::report::table::{Table, grouped, percent};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Prints a result. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(text: &str) -> Result<()> {
    write_out(&printable::lines(text))
}

/// Writes a result as it is.
fn write_out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a result as one JSON document.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    write_out(&printable::json(&serde_json::to_string_pretty(value)?))
}

/// Prints a remark. A terminal that has gone away (a closed ssh, `2>&1 | head`) ends no run: what cannot be printed is
/// dropped, where `eprintln!` would panic.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable::lines(text));
}

/// Prints an error with its hint and says which exit code it means.
pub fn report(error: &anyhow::Error) -> u8 {
    note(&format!("error: {error:#}"));
    if let Some(hint) = error::problem(error).and_then(|problem| problem.hint.as_ref()) {
        note(&format!("\nhint: {hint}"));
    }
    code(error)
}

/// The exit code that an error means.
pub fn code(error: &anyhow::Error) -> u8 {
    match error::problem(error).map(|problem| problem.kind) {
        Some(Kind::Usage) => 2,
        _ => 1,
    }
}

/// Shows progress: a bar on a terminal, else a line now and then.
pub struct Console {
    bar: Option<ProgressBar>,
    /// Where lines go instead of stderr.
    log: Option<File>,
    quiet: bool,
    started: Instant,
    /// Steps that were done when this process began, and steps of the run.
    first_step: u64,
    total_steps: u64,
    epochs: u64,
    last_line: Instant,
    loss: String,
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Share of the time on data from which on it is told.
const MUCH_WAITING: f64 = 0.05;

impl Console {
    /// With `quiet`, only warnings are shown.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let template = "{prefix:<12} {bar:24} {pos}/{len}  {msg}  ETA {eta}";
            bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
        });
        let now = Instant::now();
        let loss = "no loss yet".to_string();
        let log = None;
        Self { bar, log, quiet, started: now, first_step: 0, total_steps: 0, epochs: 0, last_line: now, loss }
    }

    /// For a process that prints nothing: into its log.
    ///
    /// # Errors
    /// When the file cannot be opened once more.
    pub fn to_file(log: &File) -> Result<Self> {
        let mut console = Self::new(true);
        console.log = Some(log.try_clone()?);
        Ok(console)
    }

    /// Prints a remark, however quiet.
    pub fn note(&self, text: &str) {
        match (&self.log, &self.bar) {
            // A log that cannot be written is no reason to stop.
            (Some(log), _) => {
                let mut log: &File = log;
                let _ = writeln!(log, "{}", printable::lines(text));
            }
            (None, Some(bar)) => bar.suspend(|| note(text)),
            (None, None) => note(text),
        }
    }

    /// Prints above the bar.
    fn line(&self, text: &str) {
        if !self.quiet || self.log.is_some() {
            self.note(text);
        }
    }

    fn time_left(&self, step: u64) -> Duration {
        let done = step.saturating_sub(self.first_step).max(1) as u32;
        let seconds =
            (self.started.elapsed() / done).as_secs_f64() * self.total_steps.saturating_sub(step) as f64;
        Duration::from_secs(seconds as u64)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Console {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { model, params, macs, samples, total_steps, done_steps, device, world_size } => {
                (self.first_step, self.total_steps, self.started) =
                    (*done_steps, *total_steps, Instant::now());
                let (params, macs, samples) = (grouped(*params), grouped(*macs), grouped(*samples as i64));
                let by = match world_size {
                    1 => String::new(),
                    several => format!(", {several} processes"),
                };
                self.line(&format!(
                    "{model} on {device}{by}: {params} parameters, {macs} multiply-adds, {samples} training images"
                ));
                if *done_steps > 0 {
                    self.line(&format!("going on after step {done_steps} of {total_steps}"));
                }
                if let Some(bar) = &self.bar {
                    bar.set_length(*total_steps);
                    bar.set_position(*done_steps);
                    bar.reset_eta();
                }
            }
            Event::Steps { epoch, step, loss, images_per_second, waiting, .. } => {
                let waiting = match *waiting {
                    share if share > MUCH_WAITING => format!(" ({} waiting for data)", percent(share)),
                    _ => String::new(),
                };
                self.loss = format!("loss {loss:.4}, {images_per_second:.0} img/s{waiting}");
                if self.bar.is_none() && self.last_line.elapsed() >= LINE_EVERY {
                    self.last_line = Instant::now();
                    let (epochs, total, loss) = (self.epochs, self.total_steps, &self.loss);
                    let left = humantime::format_duration(self.time_left(*step));
                    self.line(&format!("epoch {epoch}/{epochs}, step {step}/{total}: {loss}, {left} left"));
                }
            }
            Event::Epoch {
                epoch,
                train_loss,
                train_top1,
                eval,
                ema,
                seconds,
                images_per_second,
                best,
                ..
            } => {
                let (epochs, best) = (self.epochs, if *best { ", best so far" } else { "" });
                let ema =
                    ema.map_or(String::new(), |ema| format!("; EMA: top-1 {}", percent(ema.top1.accuracy)));
                let eval = eval.map_or(String::new(), |eval| {
                    format!(
                        "; evaluation: loss {:.4}, top-1 {}, top-5 {}",
                        eval.loss,
                        percent(eval.top1.accuracy),
                        percent(eval.top5.accuracy)
                    )
                });
                self.line(&format!(
                    "epoch {epoch}/{epochs} in {seconds:.0} s ({images_per_second:.0} img/s): loss {train_loss:.4}, \
                     top-1 {}{eval}{ema}{best}",
                    percent(*train_top1),
                ));
                self.last_line = Instant::now();
            }
            Event::Warning { message } => self.note(&format!("warning: {message}")),
            Event::Interrupted { .. } | Event::Finished { .. } => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn remark(&mut self, text: &str) {
        self.line(text);
    }

    fn tick(&mut self, tick: Tick) {
        if let Tick::Train { epochs, .. } = tick {
            self.epochs = epochs;
        }
        let Some(bar) = &self.bar else { return };
        match tick {
            Tick::Train { epoch, epochs, step, .. } => {
                bar.set_prefix(format!("epoch {epoch}/{epochs}"));
                bar.set_position(step);
                bar.set_message(self.loss.clone());
            }
            Tick::Eval { done, total } if self.total_steps == 0 => {
                bar.set_prefix("evaluation");
                bar.set_length(total);
                bar.set_position(done);
            }
            Tick::Eval { done, total } => bar.set_message(format!("evaluating {done}/{total}")),
        }
    }
}

impl RowObserver for Console {
    fn row(&mut self, number: usize, of: usize, label: &str, event: RowEvent<'_>) {
        let what = match event {
            RowEvent::Begins => String::new(),
            RowEvent::Kept => ": done before, kept".to_string(),
            RowEvent::Done(eval) => format!(
                ": top-1 error {}, top-5 error {}",
                percent(1.0 - eval.top1.accuracy),
                percent(1.0 - eval.top5.accuracy)
            ),
            RowEvent::Failed(message) => format!(": failed: {message}"),
            RowEvent::Timed => return self.line(&format!("timing, round {number} of {of}: {label}")),
        };
        self.line(&format!("run {number} of {of}, {label}{what}"));
    }
}

/// Shows how far work of a known length has come, to several threads: a bar on a terminal, else a line now and then.
pub struct Meter {
    bar: Option<ProgressBar>,
    quiet: bool,
    last_line: Mutex<Instant>,
}

impl Meter {
    /// With `quiet`, nothing is shown.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let template = "{prefix:<12} {bar:24} {human_pos}/{human_len}  {per_sec}  ETA {eta}";
            bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
        });
        Self { bar, quiet, last_line: Mutex::new(Instant::now()) }
    }

    /// Of `what`, `done` of `total` are done.
    pub fn at(&self, what: &str, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            if bar.prefix() != what {
                bar.set_prefix(what.to_string());
                bar.reset_eta();
            }
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        } else if !self.quiet {
            let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= LINE_EVERY {
                *last = Instant::now();
                note(&format!("{what}: {} of {}", grouped(done as i64), grouped(total as i64)));
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An evaluation as people read it.
pub fn evaluation_lines(evaluation: &Evaluation, top5: bool) -> String {
    let line =
        |name: &str, count: Accuracy| accuracy_line(name, count.correct, evaluation.seen, count.accuracy);
    let mut lines = vec![line("top-1", evaluation.top1)];
    if top5 {
        lines.push(line("top-5", evaluation.top5));
    }
    lines.push(format!("loss   {:>8.4}", evaluation.loss));
    if evaluation.skipped > 0 {
        lines.push(format!("{} image(s) could not be read and are not counted", evaluation.skipped));
    }
    lines.join("\n")
}

fn accuracy_line(name: &str, correct: u64, of: u64, accuracy: f64) -> String {
    let [correct, of] = [correct, of].map(|count| grouped(count as i64));
    format!("{name:<5}  {:>8}   {correct} of {of}", percent(accuracy))
}

/// What else was asked of an evaluation, as people read it.
pub fn answer_lines(answers: &Answers) -> String {
    let mut lines = Vec::new();
    if let Some(real) = answers.real {
        lines.push(accuracy_line("ReaL", real.correct, real.seen, real.accuracy));
    }
    if let Some(calibration) = &answers.calibration {
        lines.push(format!("ECE    {:>8}", percent(calibration.ece)));
        let mut table = Table::new(["confidence", "images", "accuracy", "mean confidence"]);
        let cell = |share: Option<f64>| share.map_or_else(|| "–".to_string(), percent);
        for bin in &calibration.bins {
            let span = format!("{:.3} to {:.3}", bin.from, bin.to);
            table.row([span, grouped(bin.seen as i64), cell(bin.accuracy), cell(bin.confidence)]);
        }
        lines.push(table.text());
    }
    lines.join("\n")
}
