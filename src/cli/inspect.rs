//! `senet inspect`.

use super::args::ExcitationArgs;
use super::commands::{Source, request};
use super::output::{Console, note, print, print_json};
use crate::engine::inspect;
use crate::error::Result;
use crate::files;
use crate::report::excitation::{BlockGates, Excitation, csv};
use crate::report::page;
use crate::report::table::{Table, percent};
use std::path::Path;

pub(super) fn excitation(args: &ExcitationArgs) -> Result<u8> {
    let mut console = Console::new(args.output.quiet);
    let source = Source::of(&args.subject)?;
    let request = request(&args.subject, &[]);
    let (mut found, warning) = inspect::excitation(source.subject(), &request, &args.classes, &mut console)?;
    let beside = match &source {
        Source::Run(run, _) => run.path(),
        Source::File(..) => Path::new(""),
    };
    let out = args.out.clone().unwrap_or_else(|| beside.join("excitation"));
    drop(console);
    if let Some(warning) = warning {
        note(&format!("warning: {warning}"));
    }
    found.setting.insert(0, format!("weights of {}", source.path().display()));
    files::create_dir(&out)?;
    let json = serde_json::to_string_pretty(&found)? + "\n";
    let (csv, html) = (csv(&found), page::excitation::page(&found));
    // What all files of a kind begin with, and the texts.
    let written = [
        ("excitation.json", json.split(':').next(), &json),
        ("excitation.csv", csv.lines().next(), &csv),
        ("excitation.html", html.lines().next(), &html),
    ];
    for (name, start, _) in written.iter().filter(|_| !args.force) {
        files::check_replaceable(&out.join(name), start.unwrap_or_default())?;
    }
    for (name, _, text) in written {
        files::write_atomic(&out.join(name), text.as_bytes())?;
    }
    if args.output.json {
        return print_json(&found).map(|()| 0);
    }
    print(&summary(&found).text())?;
    if !args.output.quiet {
        note(&format!("each class and channel: {}", out.join("excitation.html").display()));
    }
    Ok(0)
}

fn summary(found: &Excitation) -> Table {
    let mut table = Table::new([
        "block",
        "parameters",
        "channels",
        "mean gate",
        "shut < 0.1",
        "open > 0.9",
        "between classes",
    ]);
    for BlockGates { name, label, all, saturation, .. } in &found.blocks {
        table.row([
            label.clone(),
            name.clone(),
            all.mean.len().to_string(),
            format!("{:.3}", saturation.mean),
            percent(saturation.shut),
            percent(saturation.open),
            saturation.between_classes.map_or_else(|| "–".to_string(), percent),
        ]);
    }
    table
}
