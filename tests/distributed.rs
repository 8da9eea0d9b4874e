//! `senet train` by several real processes: they come to what one does, count each image once, survive nothing alone, and go
//! on with another number of them.

mod common;

use common::{Output, Running, Sandbox, assert_calm, last_step};
use senet::weights::{Array, safetensors};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// 4 whole steps of 16 and one of 2, fewer than three processes.
const DATA: &str = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                    --set data.synthetic.train=66 --set data.synthetic.eval=23";

/// What one process and several come to the same by.
const RECIPE: &str =
    "--set train.batch_size=16 --epochs 1 --lr 0.002 --set train.sync_bn=true --set train.log_every=2st";

/// Rounding decides on which side of a ReLU's threshold a value lies that is as good as on it, and with it about gradients.
/// With some seeds there is such a value within few steps, and networks come apart; where processes compute something else,
/// they do so with all seeds.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Distance of two networks as a share of their length, where they differ by rounding alone. A step is 1e-2.
const ROUNDING: f64 = 1e-5;

/// Within this time a job has ended, whatever happened to its processes.
const END: Duration = Duration::from_secs(60);

/// The distance of two runs' weights and statistics, as a share of their length.
fn distance(sandbox: &Sandbox, one: &str, other: &str) -> f64 {
    let [one, other] = [one, other].map(|run| {
        let file = format!("{run}/checkpoints/last/model.safetensors");
        safetensors::read(Path::new(&file), &sandbox.read(&file), u64::MAX).unwrap().0
    });
    assert_eq!(one.len(), other.len());
    let values = |array: &Array| array.values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    let (mut apart, mut length) = (0.0, 0.0);
    for (name, array) in &one {
        let (these, those) = (values(array), values(&other[name]));
        apart += these.iter().zip(&those).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        length += these.iter().map(|a| a.powi(2)).sum::<f64>();
    }
    (apart / length).sqrt()
}

fn result(sandbox: &Sandbox, run: &str) -> Value {
    sandbox.read_json(&format!("{run}/result.json"))
}

/// What a run told of its steps and epochs: all losses and counts.
fn told(sandbox: &Sandbox, run: &str) -> Vec<(String, u64, f64)> {
    let text = String::from_utf8(sandbox.read(&format!("{run}/events.jsonl"))).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let loss = |event: &Value| event["loss"].as_f64().or(event["train_loss"].as_f64());
    let line =
        |event: Value| Some((event["event"].as_str()?.to_string(), event["step"].as_u64()?, loss(&event)?));
    events.filter_map(line).collect()
}

/// Whether two runs came to the same and told the same on the way.
fn are_same(sandbox: &Sandbox, one: &str, other: &str) -> bool {
    let [was, is] = [one, other].map(|run| result(sandbox, run));
    assert_eq!((&was["eval"]["seen"], &is["eval"]["seen"]), (&Value::from(23), &Value::from(23)));
    let [before, after] = [one, other].map(|run| told(sandbox, run));
    assert_eq!(before.len(), after.len());
    let pairs = before.iter().zip(&after);
    // All of them: each is also asserted to be the other's event.
    let alike = pairs.map(|((event, step, loss), other)| {
        assert_eq!((event, step), (&other.0, &other.1));
        (loss - other.2).abs() < 1e-4 * loss
    });
    let alike: Vec<bool> = alike.collect();
    let is_counted = ["top1", "top5"].iter().all(|key| was["eval"][key] == is["eval"][key]);
    distance(sandbox, one, other) < ROUNDING && is_counted && !alike.contains(&false)
}

#[test]
fn two_and_three_processes_come_to_what_one_does() {
    let sandbox = Sandbox::new();
    let adamw = RECIPE.replace("--lr 0.002", "--lr 0.0005 --model resnet-20")
        + " --set optim={\"kind\":\"adamw\"} --set train.ema={\"decay\":0.9}";
    for (name, recipe) in [
        ("plain", RECIPE.to_string()),
        ("accumulated", format!("{RECIPE} --set train.accumulate=2")),
        ("adamw", adamw),
    ] {
        let mut runs = SEEDS.iter().map(|seed| {
            let train = |processes: u32| {
                let run = format!("{name}-{seed}-{processes}");
                let several = if processes > 1 { format!("--nproc {processes}") } else { String::new() };
                let words = format!("train {DATA} {recipe} --seed {seed} --out {run} {several}");
                let output = sandbox.succeed(&words);
                assert_calm(&words, &output.stderr);
                (run, output)
            };
            let (one, _) = train(1);
            let (two, output) = train(2);
            let said = &output.stderr;
            assert!(said.contains("rank 0 of 2, local rank 0, from senet --nproc"), "{said}");
            assert!(said.contains("on cpu, 2 processes:"), "{said}");
            assert!(output.stdout.contains("of 23"), "{}", output.stdout);
            let (three, _) = train(3);
            assert!(told(&sandbox, &one).len() > 2, "little is compared");
            are_same(&sandbox, &one, &two) && are_same(&sandbox, &one, &three)
        });
        assert!(runs.any(|is_same| is_same), "{name}: several processes compute something else than one");
    }
    // The others tell their logs what the first tells its user.
    let run = format!("plain-{}-3", SEEDS[0]);
    let log = String::from_utf8(sandbox.read(&format!("{run}/ranks/rank-2.log"))).unwrap();
    assert!(log.contains("3 processes") && log.contains("epoch 1/1"), "{log}");
    assert_eq!(sandbox.list(&format!("{run}/ranks")), ["rank-1.log", "rank-2.log"]);
    let start = String::from_utf8(sandbox.read(&format!("{run}/provenance.jsonl"))).unwrap();
    assert!(start.lines().count() == 1 && start.contains("\"world_size\":3"), "{start}");
}

#[test]
fn an_evaluation_by_several_counts_each_image_once() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {DATA} {RECIPE} --out run"));
    let one = sandbox.succeed("eval run --json").json();
    for processes in [2, 3] {
        let several = sandbox.succeed(&format!("eval run --json --nproc {processes}"));
        let several = several.json();
        assert_eq!(
            (&several["seen"], &several["top1"], &several["top5"]),
            (&one["seen"], &one["top1"], &one["top5"])
        );
        let [one, several] = [&one["loss"], &several["loss"]].map(|loss| loss.as_f64().unwrap());
        assert!((one - several).abs() < 1e-6, "{one} {several}");
    }
    common::refused(&sandbox, "eval run --calibration --nproc 2", 2, &["there are several", "hint"]);
}

#[test]
fn without_sync_bn_the_statistics_are_averaged() {
    let sandbox = Sandbox::new();
    let recipe = RECIPE.replace("--set train.sync_bn=true", "--set checkpoint.every_steps=3");
    sandbox.succeed(&format!("train {DATA} {recipe} --out one"));
    sandbox.succeed(&format!("train {DATA} {recipe} --out two --nproc 2"));
    sandbox.succeed(&format!("train {DATA} {recipe} --out again --nproc 2"));
    // Other statistics, other gradients; but the same each time.
    let apart = distance(&sandbox, "one", "two");
    assert!(apart > 100.0 * ROUNDING && apart < 0.1, "{apart}");
    let file = "checkpoints/last/model.safetensors";
    assert!(sandbox.read(&format!("two/{file}")) == sandbox.read(&format!("again/{file}")));
    // What was evaluated is what was saved.
    let (evaluated, then) = (sandbox.succeed("eval two --json").json(), result(&sandbox, "two"));
    assert_eq!((&evaluated["seen"], &evaluated["top1"]), (&Value::from(23), &then["eval"]["top1"]));
    let [saved, then] = [&evaluated["loss"], &then["eval"]["loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((saved - then).abs() < 1e-6, "{saved} {then}");
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let sandbox = Sandbox::new();
    let is_same = |seed: &u64| {
        let recipe = format!("{} --seed {seed}", RECIPE.replace("--epochs 1", "--epochs 6"));
        let [whole, parts] = ["whole", "parts"].map(|run| format!("{run}-{seed}"));
        sandbox.succeed(&format!("train {DATA} {recipe} --out {whole}"));
        let command = format!("train {DATA} {recipe} --out {parts} --resume auto");
        let stop = |words: &str, step: u64| {
            let job = sandbox.start(&format!("{command} {words}"));
            let stopped = job.signal_when("TERM", || last_step(&sandbox, &parts) >= step);
            let said = &stopped.stderr;
            assert_eq!(stopped.code, 75, "{said}");
            assert_eq!(said.matches("interrupted: saved after step").count(), 1, "{said}");
        };
        stop("--nproc 3", 4);
        stop("--nproc 2", 12);
        stop("", 18);
        sandbox.succeed(&format!("{command} --nproc 2"));
        assert_eq!(result(&sandbox, &parts)["steps"], 30);
        assert_eq!(result(&sandbox, &parts)["eval"]["seen"], 23);
        distance(&sandbox, &whole, &parts) < 1e-3
    };
    assert!(SEEDS.iter().any(is_same), "a run in parts is another run");
}

/// Three processes that train for long, and the process numbers of theirs.
fn long_job(sandbox: &Sandbox, run: &str) -> (Running, Vec<String>) {
    let words = format!(
        "train {DATA} --epochs 4000 --set checkpoint.every_steps=5 --out {run} --nproc 3 --rank-timeout 20"
    );
    let job = sandbox.start(&words);
    let begun = Instant::now();
    while last_step(sandbox, run) < 30 {
        assert!(begun.elapsed() < END, "the job does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ranks = children(job.id());
    assert_eq!(ranks.len(), 3);
    (job, ranks)
}

/// The children of a process, in the order of their start.
fn children(parent: u32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(str::to_string).collect()
}

fn kill(signal: &str, process: &str) {
    assert!(Command::new("kill").args(["-s", signal, process]).status().unwrap().success());
}

fn is_running(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_killed_ends_the_job_with_one_message_and_a_whole_checkpoint() {
    let sandbox = Sandbox::new();
    for (rank, said) in [(1, "rank 1"), (0, "rank 0")] {
        let run = format!("killed-{rank}");
        let (job, ranks) = long_job(&sandbox, &run);
        let begun = Instant::now();
        kill("KILL", &ranks[rank]);
        let ended = job.wait();
        assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
        assert!(ended.code != 0 && ended.stderr.contains(said), "{}: {}", ended.code, ended.stderr);
        assert_calm(&run, &ended.stderr);
        assert!(ranks.iter().all(|process| !is_running(process)), "a process is left");
        // Whoever is left says what it was; the starter saw the signal.
        if rank == 1 {
            assert!(ended.stderr.contains("rank 0 cannot go on with `e"), "{}", ended.stderr);
            assert!(
                ended.stderr.contains("rank 1 no longer answers; what it last did: `e"),
                "{}",
                ended.stderr
            );
        } else {
            assert!(ended.stderr.contains("was killed by signal 9"), "{}", ended.stderr);
        }
        let step =
            sandbox.read_json(&format!("{run}/checkpoints/last/state.json"))["progress"]["step"].clone();
        assert!(step.as_u64().unwrap() >= 20, "{step}");
        let evaluated = sandbox.succeed(&format!("eval {run} --json")).json();
        assert_eq!((&evaluated["seen"], &evaluated["step"]), (&Value::from(23), &step));
        // The same words go on from there.
        let job = sandbox.start(&format!("train --resume {run} --nproc 2"));
        let stopped = job.interrupt_when(|| last_step(&sandbox, &run) > step.as_u64().unwrap() + 20);
        assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    }
}

/// Two processes as torchrun or a person starts them, each with words of its own.
fn by_hand(sandbox: &Sandbox, words: [&str; 2]) -> [Output; 2] {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: usize| {
        let mut command = sandbox.command(words[rank]);
        command.envs([("RANK", rank.to_string()), ("LOCAL_RANK", rank.to_string())]);
        command.envs([("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port.as_str())]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    [start(0), start(1)].map(|child| {
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    })
}

#[test]
fn processes_that_others_start_are_found_and_one_speaks() {
    let sandbox = Sandbox::new();
    let words = format!("train {DATA} {RECIPE}");
    let ours = format!("{words} --out run");
    let [main, other] = by_hand(&sandbox, [&ours, &ours]);
    assert_eq!((main.code, other.code), (0, 0), "{}\n{}", main.stderr, other.stderr);
    assert!(main.stderr.contains("rank 0 of 2, local rank 0, from torchrun"), "{}", main.stderr);
    assert!(main.stdout.contains("of 23"), "{}", main.stdout);
    assert_eq!((other.stdout.as_str(), other.stderr.as_str()), ("", ""));

    // Other words, other data, a mistake in both: one message.
    let data = words.replace("synthetic.train=66", "synthetic.train=67");
    let lr = words.replace("--lr 0.002", "--lr 0.003");
    for (words, code, parts) in [
        (
            [&words, &lr],
            2,
            ["rank 1 has another configuration than rank 0", "start all ranks with the same words"],
        ),
        ([&words, &data], 2, ["rank 1 has another configuration than rank 0", "hint"]),
        ([&ours, &ours], 2, ["run exists already", "hint"]),
    ] {
        let [main, other] = by_hand(&sandbox, words.map(String::as_str));
        assert_eq!(main.code, code, "{}", main.stderr);
        assert!(other.code != 0 && other.stderr.is_empty(), "{}", other.stderr);
        for part in parts {
            assert!(main.stderr.contains(part), "{part:?} is not in {}", main.stderr);
        }
        assert_eq!(main.stderr.matches("error: ").count(), 1, "{}", main.stderr);
    }
}

#[test]
fn data_that_differs_is_found_by_its_names() {
    let sandbox = Sandbox::new();
    common::write_idx_set(&sandbox, "here", 40, 10, 3);
    common::write_idx_set(&sandbox, "there", 41, 10, 3);
    let words = |dir: &str| format!("train --data {dir} --epochs 1 --out run");
    // The folder's place may differ from machine to machine, so it is no part of what is compared first.
    let [main, _] = by_hand(&sandbox, [&words("here"), &words("there")]);
    assert_eq!(main.code, 2, "{}", main.stderr);
    assert!(
        main.stderr.contains("rank 1 has another training data than rank 0: `41 samples"),
        "{}",
        main.stderr
    );
    assert!(!sandbox.path("run").exists());
}

#[test]
fn words_that_do_not_go_together_are_refused() {
    let sandbox = Sandbox::new();
    common::refused(&sandbox, "train --nproc 0", 2, &["--nproc"]);
    let mut command = sandbox.command("train --nproc 2");
    let envs = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let output = command.envs(envs).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.contains("leave `--nproc` out under a launcher"),
        "{said}"
    );
    // Two values a channel for one process are one for each of two.
    let small = "train --set data.source=synthetic --set data.synthetic.size=4 --set data.synthetic.train=32 \
                 --set train.batch_size=2 --epochs 1 --model se-resnet-50";
    common::refused(&sandbox, &format!("{small} --nproc 2"), 2, &["among 2 processes leave a batch of 1"]);
}
