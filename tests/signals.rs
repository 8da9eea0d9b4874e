//! Signals that ask to stop: a run saves itself, whatever comes, in any number and order.

mod common;

use common::{Output, Running, Sandbox, TINY, last_step};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Long, with a checkpoint at the end of an epoch that never comes, and steps that are long enough for a second signal to
/// come before the first is obeyed.
const LONG: &str = "--set data.source=synthetic --set data.synthetic.size=16 --set data.synthetic.channels=1 \
                    --set data.synthetic.train=40000 --set data.synthetic.eval=23 --batch-size 64 --epochs 50 \
                    --set train.log_every=1st";

fn send(signal: &str, process: &str) {
    assert!(Command::new("kill").args(["-s", signal, process]).status().unwrap().success());
}

fn saved_step(sandbox: &Sandbox, run: &str) -> Option<u64> {
    let state = fs::read(sandbox.path(run).join("checkpoints/last/state.json")).ok()?;
    serde_json::from_slice::<serde_json::Value>(&state).unwrap()["progress"]["step"].as_u64()
}

fn wait_for_step(sandbox: &Sandbox, run: &str, step: u64) {
    let start = Instant::now();
    while last_step(sandbox, run) < step {
        assert!(start.elapsed() < Duration::from_secs(60), "{run} does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends these signals to a run, so many milliseconds apart.
fn stop(sandbox: &Sandbox, job: Running, run: &str, signals: &[&str], apart: u64) -> Output {
    wait_for_step(sandbox, run, 3);
    let process = job.id().to_string();
    for (at, signal) in signals.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(Duration::from_millis(apart));
        }
        // The process may have saved itself, and ended, before the last of them.
        let _ = Command::new("kill").args(["-s", signal, &process]).output();
    }
    job.wait()
}

#[test]
fn every_signal_saves_in_any_number_and_order() {
    let sandbox = Sandbox::new();
    for (number, (signals, code)) in [
        (&["TERM", "TERM"][..], 75),
        (&["USR1", "TERM"], 75),
        (&["INT", "TERM"], 75),
        (&["HUP", "HUP", "TERM"], 75),
        (&["INT", "INT"], 130),
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run-{number}");
        let job = sandbox.start(&format!("train {LONG} --out {run}"));
        // A person does not press Ctrl-C twice within a hundredth of a second; programs do.
        let ended = stop(&sandbox, job, &run, signals, 5);
        assert_eq!(ended.code, code, "{signals:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("saved after step"), "{signals:?}: {}", ended.stderr);
        assert!(saved_step(&sandbox, &run).is_some_and(|step| step >= 3), "{signals:?}: nothing is saved");
    }
}

#[test]
fn ctrl_c_pressed_again_ends_at_once_with_a_code_of_its_own() {
    let sandbox = Sandbox::new();
    // A step of several seconds, whose end nobody waits for.
    let slow = LONG.replace("size=16", "size=64").replace("--batch-size 64", "--batch-size 512");
    let job = sandbox.start(&format!("train {slow} --out run"));
    let start = Instant::now();
    while !sandbox.path("run/events.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = job.id().to_string();
    std::thread::sleep(Duration::from_secs(1));
    send("INT", &process);
    std::thread::sleep(Duration::from_millis(300));
    send("INT", &process);
    let ended = job.wait();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert_eq!(saved_step(&sandbox, "run"), None);
}

/// The children of a process, in the order of their start.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(str::to_string).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_to_every_process_of_a_job_is_one_and_saves() {
    let sandbox = Sandbox::new();
    for (signal, code) in [("TERM", 75), ("INT", 130)] {
        let job = sandbox.start(&format!("train {LONG} --out {signal} --nproc 2"));
        wait_for_step(&sandbox, signal, 3);
        // As `scancel` and systemd do: the launcher passes it on to processes that have it already.
        for process in [vec![job.id().to_string()], children(job.id())].concat() {
            send(signal, &process);
        }
        let ended = job.wait();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(saved_step(&sandbox, signal).is_some_and(|step| step >= 3), "{}", ended.stderr);
    }
}

#[test]
fn a_comparison_saves_and_ends_with_the_codes_of_training() {
    let sandbox = Sandbox::new();
    let long = TINY.replace("train.duration=1ep", "train.duration=4000ep");
    let command = format!("ablate --variants none --control none {long} --out lab");
    let runs = |sandbox: &Sandbox| {
        let rows = fs::read_dir(sandbox.path("lab/rows")).into_iter().flatten().flatten();
        rows.map(|row| format!("lab/rows/{}/seed-0", row.file_name().to_string_lossy())).collect::<Vec<_>>()
    };
    for (signal, code) in [("USR1", 75), ("TERM", 75), ("INT", 130)] {
        let at = || runs(&sandbox).iter().map(|run| last_step(&sandbox, run)).max().unwrap_or(0);
        let before = at();
        let ended = sandbox.start(&command).signal_when(signal, || at() > before + 20);
        assert_eq!(ended.code, code, "{signal}: {}", ended.stderr);
        let saved = runs(&sandbox).iter().filter_map(|run| saved_step(&sandbox, run)).max();
        assert!(saved > Some(before), "{signal}: {saved:?} is saved, {before} were done before");
    }
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let sandbox = Sandbox::new();
    let mut shell = Command::new("sh");
    let train = sandbox.command(&format!("train {LONG} --out run"));
    let words: Vec<_> = train.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    shell.current_dir(sandbox.path("")).env("OMP_NUM_THREADS", "1").args([
        "-c",
        &format!("trap '' HUP; exec {} {} 2>/dev/null", env!("CARGO_BIN_EXE_senet"), words.join(" ")),
    ]);
    let mut job = shell.spawn().unwrap();
    wait_for_step(&sandbox, "run", 2);
    send("HUP", &job.id().to_string());
    let step = last_step(&sandbox, "run");
    wait_for_step(&sandbox, "run", step + 5);
    send("TERM", &job.id().to_string());
    assert_eq!(job.wait().unwrap().code(), Some(75));
}

/// Whether a process holds back SIGTERM (15): it has started, and nothing listens yet.
#[cfg(target_os = "linux")]
fn is_starting(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    blocked.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() >> 14 & 1 == 1)
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_at_the_start_is_obeyed_and_the_same_command_trains() {
    let sandbox = Sandbox::new();
    for (signal, code) in [("TERM", 75), ("USR1", 75), ("INT", 130)] {
        let train = format!("train {LONG} --out {signal} --resume auto");
        let job = sandbox.start(&train);
        let start = Instant::now();
        while !is_starting(job.id()) {
            assert!(start.elapsed() < Duration::from_secs(30), "signals are not held back at the start");
            std::thread::sleep(Duration::from_millis(1));
        }
        send(signal, &job.id().to_string());
        let ended = job.wait();
        assert_eq!(ended.code, code, "{signal}: {}", ended.stderr);
        let job = sandbox.start(&train);
        let ended = stop(&sandbox, job, signal, &["TERM"], 0);
        assert_eq!(ended.code, 75, "{signal}: {}", ended.stderr);
    }
}
