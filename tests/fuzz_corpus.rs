//! A short run of each fuzz target: its reader on the committed corpus, on the inputs of past findings and on a few
//! hundred mutations of both, the same ones every time. `make fuzz` is the long run; `FUZZ_MUTATIONS=1000000` makes a
//! long one of this, not guided by coverage, where cargo-fuzz is missing.

use rand::Rng;
use rand::seq::IndexedRandom;
use readers::READERS;
use senet::rng;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

#[path = "../fuzz/readers.rs"]
mod readers;

/// Mutations per reader, unless the environment says otherwise.
const MUTATIONS: usize = 400;

/// Time limit for one input; they take milliseconds, but machines that run tests are busy.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Limit for the resident memory of the process, libtorch included.
const MAX_RESIDENT_KIB: u64 = 1 << 20;

/// Values at the limits of integer types, as which lengths and offsets are most likely mishandled.
const NUMBERS: [u32; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// File names without their endings.
fn stems(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The committed inputs of a target: its corpus, then past findings.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for dir in ["corpus", "regressions"].map(|name| folder(name).join(target)) {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        found.extend(paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())));
    }
    assert!(!found.is_empty(), "{target} has no corpus");
    found
}

/// One to four changes to `bytes`; `other` is a file from which bytes are copied.
fn mutated(bytes: &[u8], other: &[u8], random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(1..=64)).min(bytes.len());
        let number = *NUMBERS.choose(random).expect("there are some");
        match random.random_range(0..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = number as u8,
            2 if at < bytes.len() => bytes[at] = random.random(),
            3 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&number.to_le_bytes()),
            4 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&number.to_be_bytes()),
            5 => drop(bytes.drain(at..end)),
            6 => bytes.extend_from_within(at..end),
            7 => bytes.truncate(at),
            _ if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let to = (from + random.random_range(1..=64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
    bytes
}

/// Peak resident memory of this process in KiB.
fn peak_resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

fn run(target: &'static str) {
    let mutations = std::env::var("FUZZ_MUTATIONS");
    let mutations = mutations.map_or(MUTATIONS, |count| count.parse().expect("a number"));
    let (_, reader) = *READERS.iter().find(|(name, _)| *name == target).expect("a target has a reader");
    let files = inputs(target);
    let (sender, receiver) = channel();
    let worker = thread::spawn(move || {
        for (name, bytes) in &files {
            sender.send((name.clone(), bytes.clone())).unwrap();
            reader(bytes);
        }
        for mutation in 0..mutations {
            let mut random = rng::stream(0, target, [mutation as u64, 0]);
            let (name, bytes) = &files[mutation % files.len()];
            let (_, other) = files.choose(&mut random).expect("there is a corpus");
            let bytes = mutated(bytes, other, &mut random);
            sender.send((format!("mutation {mutation} of {name}"), bytes.clone())).unwrap();
            reader(&bytes);
        }
    });
    let mut current = (String::new(), Vec::new());
    loop {
        match receiver.recv_timeout(MAX_TIME) {
            Ok(next) => current = next,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => fail(target, &current, "takes too long"),
        }
    }
    if worker.join().is_err() {
        fail(target, &current, "panics");
    }
    let peak = peak_resident();
    assert!(peak.is_none_or(|peak| peak < MAX_RESIDENT_KIB), "{target}: {peak:?} KiB resident");
}

/// Fails with the input in a file.
fn fail(target: &str, (name, bytes): &(String, Vec<u8>), what: &str) -> ! {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
    fs::write(&path, bytes).unwrap();
    panic!("{name} {what}: the input is {}", path.display());
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($target)),*];
    };
}

targets! {
    safetensors pickle torch_zip torch_legacy weights_form caffemodel tar index idx cifar meta_mat val_labels config jpeg
    image
}

#[test]
fn each_target_has_a_reader_a_corpus_and_a_test() {
    let tested: BTreeSet<String> = TESTED.iter().map(|name| name.to_string()).collect();
    assert_eq!(tested, READERS.iter().map(|(name, _)| name.to_string()).collect());
    assert_eq!(tested, stems(&folder("fuzz_targets")));
    assert_eq!(tested, stems(&folder("corpus")));
}

#[test]
fn mutations_are_reproducible_and_change_their_input() {
    let mutate = |seed| mutated(&[7; 300], b"other", &mut rng::stream(0, "test", [seed, 0]));
    assert_eq!(mutate(3), mutate(3));
    let different: BTreeSet<Vec<u8>> = (0..100).map(mutate).collect();
    assert!(different.len() > 90, "{}", different.len());
}
