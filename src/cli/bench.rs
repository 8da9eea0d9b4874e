//! `senet bench`.

use super::args::{BenchArgs, BenchWhat};
use super::output::{print, print_json};
use crate::data::DataSpec;
use crate::engine::bench::{self, Comparison, Measurement, Spread, What};
use crate::engine::setup::Setup;
use crate::engine::train::split::Part;
use crate::error::{Result, usage};
use crate::experiment::Experiment;
use crate::models::{self, ModelSpec};
use crate::net::cost::Shape;
use crate::report::table::{Table, percent};

pub(super) fn bench(args: &BenchArgs) -> Result<u8> {
    let (setup, steps) = (setup(args)?, args.steps as usize);
    let what = match args.what {
        BenchWhat::Train => What::Train,
        BenchWhat::Eval => What::Eval,
    };
    if args.compare.is_some() {
        let comparison = bench::compare(what, &setup, steps)?;
        return if args.json { print_json(&comparison) } else { print_comparison(&comparison) }.map(|()| 0);
    }
    let measurement = if args.data.is_some() {
        bench::on_data(&setup, steps)?
    } else if args.profile {
        bench::profile(what, &setup, steps)?
    } else {
        bench::run(what, &setup, steps)?
    };
    if args.json {
        return print_json(&measurement).map(|()| 0);
    }
    print(&format!("{}\nimages a second: {}", heading(&measurement), figures(&measurement)))?;
    if args.data.is_some() {
        print_split(&measurement)?;
    }
    print_operators(&measurement).map(|()| 0)
}

/// The network on made-up batches, or on data.
fn setup(args: &BenchArgs) -> Result<Setup> {
    let (entry, _) = models::find(&args.model)?;
    let size = args.size.map_or(entry.input.height as usize, |size| size as usize);
    let mut base = Experiment { device: args.device.clone(), ..Experiment::default() };
    base.threads = args.threads.map(|threads| threads as usize);
    base.model = ModelSpec::called(&args.model)?;
    let Some(dir) = &args.data else {
        let input = Shape::square(entry.input.channels, size as i64);
        return Setup::new(bench::on_made_up_data(&base, input, entry.classes, args.batch_size as usize));
    };
    if args.what == BenchWhat::Eval {
        let message = "`--data` is for `senet bench train`";
        return Err(usage(message).hint("`senet data bench DIR --pipeline eval` times the data").into());
    }
    base.data = DataSpec { dir: dir.clone(), size: Some(size), ..DataSpec::default() };
    base.train.batch_size = args.batch_size as usize;
    Setup::new(base)
}

fn heading(measurement: &Measurement) -> String {
    let Measurement { what, model, batch_size, size, device, threads, steps, .. } = measurement;
    let verb = match what {
        What::Train => "training",
        What::Eval => "evaluation",
    };
    format!(
        "{model} {verb}, batch {batch_size} at {size} × {size}, {device} with {threads} thread(s), {steps} steps"
    )
}

fn figures(measurement: &Measurement) -> String {
    let Spread { median, min, max } = measurement.images_per_second;
    format!("median {median:.2}, min {min:.2}, max {max:.2}")
}

fn print_comparison(comparison: &Comparison) -> Result<()> {
    let Comparison { senet, plain, ratio } = comparison;
    print(&format!(
        "{}, in turns\n\
         images a second, senet:                 {}\n\
         images a second, libtorch's operators:  {}\n\
         senet is {ratio:.2} times as fast",
        heading(senet),
        figures(senet),
        figures(plain)
    ))
}

fn print_split(measurement: &Measurement) -> Result<()> {
    let (Some(seconds), Some(outside)) = (&measurement.split, measurement.outside) else { return Ok(()) };
    let line = |part: Part| {
        let (seconds, share) = (seconds.of(part), seconds.of(part) / seconds.total());
        let name = part.name();
        format!(
            "{name:<9} {:>9.2} ms a step  {:>8}",
            1e3 * seconds / measurement.steps as f64,
            percent(share)
        )
    };
    let lines = Part::ALL.map(line).join("\n");
    print(&format!("{lines}\noutside of network and optimizer: {}", percent(outside)))
}

/// Operators below this share of the time are told together.
const LEAST_SHARE: f64 = 0.002;

fn print_operators(measurement: &Measurement) -> Result<()> {
    let Some(operators) = &measurement.operators else { return Ok(()) };
    let mut table = Table::new(["operator", "calls a step", "ms a step", "share"]);
    let (dear, cheap): (Vec<_>, Vec<_>) =
        operators.iter().partition(|operator| operator.share >= LEAST_SHARE);
    let mut row = |name: &str, calls: f64, milliseconds: f64, share: f64| {
        table.row([name.to_string(), format!("{calls:.0}"), format!("{milliseconds:.2}"), percent(share)]);
    };
    for operator in dear {
        row(&operator.name, operator.calls, operator.milliseconds, operator.share);
    }
    if !cheap.is_empty() {
        let sum = |of: fn(&bench::Operator) -> f64| cheap.iter().map(|operator| of(operator)).sum();
        row(&format!("{} others", cheap.len()), sum(|o| o.calls), sum(|o| o.milliseconds), sum(|o| o.share));
    }
    print(&table.text())
}
