//! A data set of ImageNet's size in small files: how long listing it takes, how long a later start, and how much memory.
//!
//! ```text
//! cargo run --release --example data_scale files|shards COUNT DIR
//! ```
//!
//! makes COUNT tiny samples in 1000 classes below DIR, lists them, reads some at random, and opens them once more in
//! a process of its own. The page cache is warm: the files were made a moment ago. DIR is left as it is.
#![allow(clippy::print_stdout, reason = "it is a program of its own")]

use rand::Rng;
use senet::data::class_order::ClassOrder;
use senet::data::folder::FolderDataset;
use senet::data::index::Cache;
use senet::data::shards::tar::{write_end, write_member};
use senet::data::shards::{ShardDataset, ShardOptions};
use senet::data::{Dataset, Split};
use senet::error::{Result, usage};
use senet::rng;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const CLASSES: usize = 1000;
const SAMPLES_A_SHARD: usize = 10_000;
const READS: usize = 20_000;

/// A line of `/proc/self/status` in MB.
fn memory(what: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    format!("{:.0} MB", kilobytes * 1024.0 / 1e6)
}

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work()?;
    let (now, peak) = (memory("VmRSS"), memory("VmHWM"));
    println!("{what:<28} {:>8.3} s   resident {now:>8}   peak {peak:>8}", start.elapsed().as_secs_f64());
    Ok(result)
}

fn make_shards(dir: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(dir.join("train"))?;
    for shard in 0..count.div_ceil(SAMPLES_A_SHARD) {
        let mut output = BufWriter::new(File::create(dir.join(format!("train/shard-{shard:06}.tar")))?);
        for sample in shard * SAMPLES_A_SHARD..count.min((shard + 1) * SAMPLES_A_SHARD) {
            write_member(&mut output, &format!("{sample:08}.jpg"), b"tiny")?;
            write_member(
                &mut output,
                &format!("{sample:08}.cls"),
                (sample % CLASSES).to_string().as_bytes(),
            )?;
        }
        write_end(&mut output)?;
        output.flush()?;
    }
    Ok(())
}

fn make_files(dir: &Path, count: usize) -> Result<()> {
    for class in 0..CLASSES {
        let folder = dir.join(format!("train/n{class:08}"));
        fs::create_dir_all(&folder)?;
        for sample in 0..count.div_ceil(CLASSES) {
            File::create(folder.join(format!("n{class:08}_{sample}.JPEG")))?;
        }
    }
    Ok(())
}

fn open(kind: &str, dir: &Path) -> Result<Box<dyn Dataset>> {
    // What is fresh would be listed twice.
    let cache = Cache { settle: Duration::ZERO, ..Cache::default() };
    let options = ShardOptions { cache, ..ShardOptions::default() };
    Ok(match kind {
        "shards" => Box::new(ShardDataset::open(dir, Split::Train, &options)?),
        _ => Box::new(FolderDataset::open(dir, Split::Train, ClassOrder::Auto, &options)?),
    })
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (kind, count, dir, later) = match words.as_slice() {
        [kind @ ("files" | "shards"), "again", dir] => (*kind, 0, *dir, true),
        [kind @ ("files" | "shards"), count, dir] => (*kind, count.parse::<usize>()?, *dir, false),
        _ => return Err(usage("data_scale files|shards COUNT DIR").into()),
    };
    let place = Path::new(dir);
    // libtorch's library alone takes some, as in every program that links it.
    println!("resident at the start: {}", memory("VmRSS"));
    if !later {
        timed(&format!("make {count} in {kind}"), || match kind {
            "shards" => make_shards(place, count),
            _ => make_files(place, count),
        })?;
    }
    let data = timed(if later { "later start" } else { "first start" }, || open(kind, place))?;
    let listing = data.listing().expect("folders and shards are listed");
    println!(
        "{} samples, {} classes, {} units, index of {} bytes, {}",
        data.len(),
        data.classes().len(),
        listing.units,
        listing.bytes,
        if listing.origin.is_loaded() { "loaded" } else { "listed" }
    );
    timed(&format!("{READS} reads at random"), || {
        let (mut random, mut bytes) = (rng::stream(1, "scale", [0, 0]), Vec::new());
        for _ in 0..READS {
            data.encoded(random.random_range(0..data.len()), &mut bytes)?;
        }
        Ok(())
    })?;
    drop(data);
    if !later && !Command::new(std::env::current_exe()?).args([kind, "again", dir]).status()?.success() {
        return Err(usage("the later start failed").into());
    }
    Ok(())
}
