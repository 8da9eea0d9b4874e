//! What changes a network in training, number by number: optimizers, clipping, schedules, losses and averages as PyTorch
//! and timm compute them (tests/golden/optim.json, made by scripts/golden_optim.py); and steps made of several batches.

mod common;
mod filled;

use common::{Sandbox, TINY, last_step};
use filled::{doubles, relative_error, uniform};
use rand::Rng;
use senet::net::build::NamedTensor;
use senet::net::loss::{LossSpec, Mixed, Target};
use senet::net::params::{Init, Param, Role};
use senet::optim::{ClipSpec, EmaSpec, OptimSpec, Optimizer, Schedule, ScheduleSpec, Timeline};
use senet::rng;
use senet::weights::safetensors;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/optim.json")).unwrap()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// (u - 1/2) · scale, as golden_optim.py's `filled`.
fn filled_by(name: &str, shape: &[i64], scale: f64) -> Tensor {
    let values = Tensor::from_slice(&uniform(name, shape.iter().product())).to_kind(Kind::Double);
    ((values - 0.5) * scale).to_kind(Kind::Float).view(shape)
}

fn parameters(shapes: &Value) -> Vec<NamedTensor> {
    let role = |name: &str| match name {
        "bn.weight" => Role::Norm,
        name if name.ends_with("bias") => Role::Bias,
        _ => Role::Weight,
    };
    let shapes: Vec<(String, Vec<i64>)> =
        shapes.as_object().unwrap().iter().map(|(name, shape)| (name.clone(), read(shape))).collect();
    let parameter = |(name, shape): (String, Vec<i64>)| NamedTensor {
        tensor: filled_by(&name, &shape, 1.0).set_requires_grad(true),
        param: Param { role: role(&name), init: Init::Constant(0.0), name, shape },
    };
    shapes.into_iter().map(parameter).collect()
}

/// Steps `from..to` of a golden case.
fn steps(params: &[NamedTensor], optimizer: &mut Optimizer, clip: Option<ClipSpec>, from: u64, to: u64) {
    for step in from..to {
        for NamedTensor { param, tensor } in params {
            let gradient =
                filled_by(&format!("{} {step}", param.name), &param.shape, 0.1 + (step % 3) as f64);
            (tensor * gradient).sum(Kind::Float).backward();
        }
        if let Some(clip) = clip {
            clip.apply(&optimizer.params()).unwrap();
        }
        optimizer.step(0.1 * (1.0 - step as f64 / 20.0)).unwrap();
    }
}

#[test]
fn ten_steps_of_each_optimizer_are_pytorchs_and_timms() {
    let golden = golden();
    for case in golden["optimizers"].as_array().unwrap() {
        let (spec, clip): (OptimSpec, Option<ClipSpec>) = (read(&case["optim"]), read(&case["clip"]));
        let params = parameters(&golden["shapes"]);
        let mut optimizer = Optimizer::new(&spec, &params).unwrap();
        steps(&params, &mut optimizer, clip, 0, 4);
        // Its state, and no more, is what goes on.
        let state = optimizer.state();
        let mut resumed = Optimizer::new(&spec, &params).unwrap();
        let take = |name: &str, _: &[i64]| {
            Ok(state.iter().find(|(known, _)| known == name).unwrap().1.shallow_clone())
        };
        resumed.restore(optimizer.steps(), take).unwrap();
        steps(&params, &mut resumed, clip, 4, golden["steps"].as_u64().unwrap());
        for NamedTensor { param, tensor } in &params {
            let expected: Vec<f64> = read(&case["params"][&param.name]);
            let error = relative_error(&doubles(tensor), &expected);
            assert!(error < 1e-5, "{}, clip {clip:?}, {}: {error:.1e}", case["optim"], param.name);
        }
    }
}

#[test]
fn schedules_are_pytorchs() {
    let golden = golden();
    let timeline = Timeline { total_steps: golden["total"].as_u64().unwrap(), steps_per_epoch: 10 };
    for case in golden["schedules"].as_array().unwrap() {
        let spec: ScheduleSpec = read(&case["schedule"]);
        let schedule = Schedule::new(&spec, timeline).unwrap();
        let expected: Vec<f64> = read(&case["factors"]);
        for (step, expected) in (0..).zip(expected) {
            let factor = schedule.factor(step);
            assert!((factor - expected).abs() < 1e-9, "{spec:?}, step {step}: {factor}, not {expected}");
        }
    }
}

#[test]
fn averages_warm_up_as_timms() {
    for case in golden()["ema"].as_array().unwrap() {
        let spec = EmaSpec { decay: read(&case["decay"]), warmup: read(&case["warmup"]), every: 1 };
        for (update, expected) in (1..).zip(read::<Vec<f64>>(&case["decays"])) {
            let decay = spec.decay_at(update);
            assert!((decay - expected).abs() < 1e-12, "{spec:?}, update {update}: {decay}, not {expected}");
        }
    }
}

#[test]
fn losses_and_their_gradients_are_pytorchs_and_timms() {
    let losses = &golden()["losses"];
    let labels = |key: &str| Tensor::from_slice(&read::<Vec<i64>>(&losses[key]));
    let (n, classes) = (labels("labels").size()[0], losses["classes"].as_i64().unwrap());
    for case in losses["cases"].as_array().unwrap() {
        let loss: LossSpec = read(&case["loss"]);
        let share = Tensor::from_slice(&[losses["share"].as_f64().unwrap() as f32]);
        let mixed = case["mixed"].as_bool().unwrap().then(|| Mixed { labels: labels("other"), share });
        let target = Target { labels: labels("labels"), mixed };
        let logits = filled_by("logits", &[n, classes], 6.0).set_requires_grad(true);
        let value = loss.of(&logits, &target, case["smoothing"].as_f64().unwrap()).unwrap();
        value.backward();
        let error = relative_error(&doubles(&value), &[case["value"].as_f64().unwrap()]);
        assert!(error < 1e-5, "{case}: {error:.1e}");
        let error = relative_error(&doubles(&logits.grad()), &read::<Vec<f64>>(&case["gradient"]));
        assert!(error < 1e-5, "gradient of {case}: {error:.1e}");
    }
}

/// 40 steps an epoch of three batches of 4, the last of which has 11 samples.
const RECIPE: &str = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                      --set data.synthetic.train=479 --set data.synthetic.eval=23 --batch-size 4 --epochs 2 --seed 5 \
                      --set data.crop=pad --set train.log_every=1st --set train.accumulate=3 \
                      --set train.ema.decay=0.99 --set train.clip.norm=1 --set train.freeze_bn=5st";

#[test]
fn small_batches_together_are_one_large_batch() {
    let sandbox = Sandbox::new();
    // Frozen from the first step, batch normalisation does not tell batches apart. Of 71 samples the last step has 11.
    let recipe = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                  --set data.synthetic.train=71 --set data.synthetic.eval=23 --epochs 2 --set data.crop=pad \
                  --set train.freeze_bn=100% --lr 0.01";
    sandbox.succeed(&format!("train {recipe} --batch-size 12 --out large"));
    sandbox.succeed(&format!("train {recipe} --batch-size 4 --set train.accumulate=3 --out small"));
    let weights = |run: &str| {
        let path = sandbox.path(&format!("{run}/checkpoints/last/model.safetensors"));
        safetensors::read(&path, &std::fs::read(&path).unwrap(), u64::MAX).unwrap().0
    };
    let (large, small) = (weights("large"), weights("small"));
    assert_eq!(sandbox.read_json("small/result.json")["steps"], 12);
    let doubles = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    for (name, array) in &large {
        // Convolutions of four samples and of twelve may be computed differently; where that turns a ReLU, more than
        // rounding is left.
        let error = relative_error(&doubles(&small[name].values), &doubles(&array.values));
        assert!(error < 5e-3, "{name}: {error:.1e}");
        if name.ends_with("running_mean") {
            assert!(array.values.iter().all(|value| *value == 0.0), "{name} has moved");
        }
    }
}

#[test]
fn a_checkpoint_that_does_not_name_its_optimizer_is_of_sgd() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {TINY} --out run"));
    let file = "run/checkpoints/last/state.json";
    let mut state = sandbox.read_json(file);
    // As an older version saved it.
    for key in ["optim", "run", "sha256"] {
        state.as_object_mut().unwrap().remove(key).unwrap();
    }
    sandbox.write(file, state.to_string());
    std::fs::remove_file(sandbox.path("run/result.json")).unwrap();
    sandbox.succeed("train --resume run");
    std::fs::remove_file(sandbox.path("run/result.json")).unwrap();
    state["optim"] = serde_json::json!({"kind": "lamb", "steps": 5});
    sandbox.write(file, state.to_string());
    let refused = sandbox.senet("train --resume run");
    let expected = "optim.safetensors is the state of `lamb`, but `optim.kind` is `sgd`";
    assert!(refused.code == 1 && refused.stderr.contains(expected), "{}", refused.stderr);
}

/// Steps at which a run is killed, drawn with this seed.
fn moments(seed: u64) -> Vec<u64> {
    let mut random = rng::stream(seed, "kill", [0, 0]);
    let mut steps: Vec<u64> = (0..4).map(|_| random.random_range(16..78)).collect();
    steps.sort_unstable();
    steps
}

fn assert_same_end(sandbox: &Sandbox, whole: &str, parts: &str) {
    for checkpoint in ["last", "best"] {
        for file in ["model.safetensors", "ema.safetensors", "optim.safetensors"] {
            let file = format!("checkpoints/{checkpoint}/{file}");
            let same = sandbox.read(&format!("{whole}/{file}")) == sandbox.read(&format!("{parts}/{file}"));
            assert!(same, "{file} differs");
        }
    }
    let [was, is] = [whole, parts].map(|run| sandbox.read_json(&format!("{run}/result.json")));
    for key in ["steps", "eval", "ema", "best_top1"] {
        assert_eq!(was[key], is[key], "{key}");
    }
    assert_eq!(history(sandbox, parts), history(sandbox, whole));
}

/// What a run's history tells of its steps, but for times.
fn history(sandbox: &Sandbox, run: &str) -> Vec<Value> {
    let text = String::from_utf8(sandbox.read(&format!("{run}/events.jsonl"))).unwrap();
    let mut events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    events.retain(|event| event["event"] != "started" && event["event"] != "interrupted");
    for event in events.iter_mut().map(|event| event.as_object_mut().unwrap()) {
        event.retain(|key, _| {
            !["time", "seconds", "images_per_second", "waiting", "crc32c"].contains(&key.as_str())
        });
    }
    events
}

#[test]
fn a_run_stopped_between_two_logged_steps_has_the_history_of_one_that_was_not() {
    let sandbox = Sandbox::new();
    // 334 steps an epoch, of which the last is logged.
    let recipe = format!(
        "{TINY} --set data.synthetic.train=667 --batch-size 2 --epochs 3 --set train.log_every=1000st \
         --set train.ema.decay=0.9"
    );
    sandbox.succeed(&format!("train {recipe} --out whole"));
    let command = format!("train {recipe} --out parts --resume auto");
    let mut between = 0;
    for step in [334, 668] {
        let mut since = None;
        let within_the_next_epoch = || {
            let is_logged = last_step(&sandbox, "parts") >= step;
            is_logged && since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(200)
        };
        let stopped = sandbox.start(&command).signal_when("TERM", within_the_next_epoch);
        assert_eq!(stopped.code, 75, "{}", stopped.stderr);
        let saved = sandbox.read_json("parts/checkpoints/last/state.json")["progress"]["step"].as_u64();
        between += u64::from(!saved.unwrap().is_multiple_of(334));
    }
    assert!(between > 0, "no stop between two logged steps");
    sandbox.succeed(&command);
    assert_same_end(&sandbox, "whole", "parts");
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let sandbox = Sandbox::new();
    let recipe = format!(
        "{RECIPE} --set train.mix.mixup=0.4 --set train.mix.cutmix=1 --set data.sampling.kind=class-aware \
         --set checkpoint.every_steps=7"
    );
    sandbox.succeed(&format!("train {recipe} --out whole"));
    let command = format!("train {recipe} --out parts --resume auto");
    for step in moments(11) {
        sandbox.start(&command).kill_when(|| last_step(&sandbox, "parts") >= step);
        let saved = sandbox.read_json("parts/checkpoints/last/state.json")["progress"]["step"].as_u64();
        // A snapshot is on its way while the next steps are done.
        assert!(saved.unwrap() + 15 > step, "killed after step {step}, saved at {saved:?}");
    }
    sandbox.succeed(&command);
    assert_same_end(&sandbox, "whole", "parts");
    // Once more, and it says what it came to.
    sandbox.succeed(&command);
    let other = sandbox.senet(&command.replace("--seed 5", "--seed 6"));
    assert_eq!(other.code, 2, "{}", other.stderr);
    assert!(other.stderr.contains("parts was begun with another configuration"), "{}", other.stderr);
}

#[test]
fn what_the_machine_stops_saves_and_asks_to_be_started_again() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!("train {RECIPE} --out whole"));
    let command = format!("train {RECIPE} --out parts --resume auto");
    for (signal, step) in [("USR1", 5), ("TERM", 30)] {
        let stopped = sandbox.start(&command).signal_when(signal, || last_step(&sandbox, "parts") >= step);
        assert_eq!(stopped.code, 75, "{signal}: {}", stopped.stderr);
        assert!(stopped.stderr.contains("saved after step"), "{}", stopped.stderr);
    }
    sandbox.succeed(&command);
    assert_same_end(&sandbox, "whole", "parts");
    let alone = sandbox.senet(&format!("train {RECIPE} --resume auto"));
    assert_eq!(alone.code, 2, "{}", alone.stderr);
    assert!(alone.stderr.contains("needs `--out RUN`"), "{}", alone.stderr);
}

#[test]
fn resume_gives_the_same_bytes_with_all_that_has_a_state() {
    let sandbox = Sandbox::new();
    let optim = r#"--set optim={"kind":"adamw"} --set train.loss=bce"#;
    let whole = sandbox.succeed(&format!("train {RECIPE} {optim} --out whole"));
    for (step, command) in
        [(3, format!("train {RECIPE} {optim} --out parts")), (43, "train --resume parts".to_string())]
    {
        let output = sandbox.start(&command).interrupt_when(|| last_step(&sandbox, "parts") >= step);
        assert_eq!(output.code, 130, "{}", output.stderr);
        let state = sandbox.read_json("parts/checkpoints/last/state.json");
        assert_eq!(state["optim"]["kind"], "adamw");
        assert_eq!(state["optim"]["steps"], state["progress"]["step"]);
        assert!(!state["progress"]["step"].as_u64().unwrap().is_multiple_of(40), "not within an epoch");
    }
    let resumed = sandbox.succeed("train --resume parts");
    assert_eq!(resumed.stdout, whole.stdout);
    assert_same_end(&sandbox, "whole", "parts");
    let result = sandbox.read_json("whole/result.json");
    assert_eq!(result["steps"], 80);
    // The average is evaluated at the end, and again from its file.
    let average = sandbox.succeed("eval whole --ema --json").json();
    assert_eq!(average["top1"], result["ema"]["top1"]);
    assert_eq!(sandbox.succeed("eval whole --json").json()["top1"], result["eval"]["top1"]);
    let best = sandbox.succeed("eval whole --ema --json --checkpoint best").json();
    assert_eq!(best["top1"]["accuracy"], result["best_top1"]);
}
