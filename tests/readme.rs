//! The README's commands are words that the program knows, and the quick ones run.

use clap::Parser;
use senet::cli::args::Cli;
use senet::models::{self, ModelSpec};
use senet::net::cost::cost;
use std::process::Command;

const README: &str = include_str!("../README.md");

/// Lines of fenced code that call senet, without what follows a `#`.
fn commands() -> Vec<Vec<&'static str>> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in README.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            let line = line.trim_start_matches("$ ").split(" #").next().unwrap().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            if matches!(words.first(), Some(&"senet" | &"target/release/senet")) {
                found.push(words);
            }
        }
    }
    found
}

#[test]
fn every_command_parses() {
    let commands = commands();
    assert!(commands.len() >= 8, "only {} commands found", commands.len());
    for words in commands {
        if let Err(error) = Cli::try_parse_from(&words) {
            assert_eq!(error.exit_code(), 0, "{}: {error}", words.join(" "));
        }
    }
}

#[test]
fn the_quick_ones_run() {
    let quick = |words: &[&str]| {
        matches!(words.get(1), Some(&"summary" | &"doctor" | &"completions")) || words.contains(&"--dry-run")
    };
    let mut ran = 0;
    for words in commands().iter().filter(|words| quick(words)) {
        let output = Command::new(env!("CARGO_BIN_EXE_senet"))
            .args(&words[1..])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", words.join(" "));
        ran += 1;
    }
    assert!(ran >= 3, "only {ran} commands ran");
}

#[test]
fn the_table_of_networks_is_the_zoos() {
    let number = |cell: &str| cell.replace(',', "").parse::<i64>().unwrap();
    let section = README.split("\n## Networks\n").nth(1).unwrap();
    let rows = section.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let mut named = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        for at in [1, 4] {
            let (name, params, macs) = (cells[at], number(cells[at + 1]), number(cells[at + 2]));
            let (entry, _) = models::find(name).unwrap();
            let node = ModelSpec::named(name).describe(entry.input.channels, entry.classes).unwrap();
            let found = cost(&node, entry.input).unwrap();
            assert_eq!((found.params.trainable, found.macs), (params, macs), "{name}");
            named.push(name.to_string());
        }
    }
    named.sort();
    let mut all = models::names();
    all.sort();
    assert_eq!(named, all);
}
