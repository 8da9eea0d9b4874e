//! What training does when numbers are no longer finite, in fewer bits, with images that grow, and with checkpoints that
//! are kept.

mod common;

use common::{Sandbox, TINY, refused};
use senet::data::loader::Loader;
use senet::dist::collective::Collective;
use senet::engine::setup::Setup;
use senet::engine::train::Learner;
use senet::engine::train::split::Split;
use senet::engine::train::step::{NotFinite, Step, Stepped};
use senet::experiment::Experiment;
use senet::metrics::{Counters, Totals};
use senet::net::build::{Mode, overwrite};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn setup(train: Value) -> Setup {
    let data = json!({
        "source": "synthetic",
        "synthetic": { "size": 8, "channels": 1, "train": 64, "eval": 16 },
    });
    let experiment: Experiment = serde_json::from_value(json!({ "data": data, "train": train })).unwrap();
    Setup::new(experiment).unwrap()
}

/// What becomes of step number `number`, of batches of 8.
fn take(setup: &Setup, learner: &mut Learner, number: u64) -> Stepped {
    let first = number as usize * setup.experiment.train.accumulate;
    take_of(setup, learner, number, &mut setup.train_batches(0, first, 8).unwrap())
}

/// The same with the next of these batches.
fn take_of(setup: &Setup, learner: &mut Learner, number: u64, batches: &mut Loader) -> Stepped {
    let mut counters = Counters::new(&Totals::default(), Device::Cpu);
    let step = Step {
        experiment: &setup.experiment,
        number,
        lr: 0.1,
        mode: Mode::Train,
        size: 8,
        samples: 8 * setup.experiment.train.accumulate,
        checked: true,
    };
    step.take(learner, batches, &mut counters, &mut Split::start(), &Collective::Alone).unwrap()
}

fn not_finite(stepped: Stepped) -> NotFinite {
    match stepped {
        Stepped::NotFinite(found) => found,
        Stepped::Done => panic!("the weights were changed"),
        Stepped::Overflow => panic!("taken for an overflow"),
    }
}

fn values(learner: &Learner) -> Vec<Tensor> {
    learner.net.tensors().iter().map(|named| named.tensor.detach().copy()).collect()
}

#[test]
fn a_step_that_is_left_out_changes_nothing() {
    let setup = setup(json!({ "batch_size": 8, "on_nan": "skip", "ema": { "decay": 0.9 } }));
    let mut learner = Learner::new(&setup).unwrap();
    assert!(matches!(take(&setup, &mut learner, 0), Stepped::Done));
    let (before, steps) = (values(&learner), learner.optimizer.steps());

    let spoilt = learner.net.tensors().iter().find(|named| named.param.name == "layer2.0.bn1.bias").unwrap();
    let good = spoilt.tensor.detach().copy();
    overwrite(&spoilt.tensor, &good.full_like(f64::NAN)).unwrap();
    let spoilt = spoilt.tensor.shallow_clone();
    let found = not_finite(take(&setup, &mut learner, 1));
    assert_eq!(
        found.what,
        "the loss is NaN, and the first output that is not finite is that of layer2.0.bn1"
    );
    assert_eq!(found.samples.len(), 8);
    overwrite(&spoilt, &good).unwrap();
    // The statistics, which the pass had moved to NaN, are those from before as well.
    assert_eq!(values(&learner), before);
    assert_eq!(learner.optimizer.steps(), steps);

    // And the next step is as if there had been none between.
    assert!(matches!(take(&setup, &mut learner, 2), Stepped::Done));
    let mut other = Learner::new(&setup).unwrap();
    take(&setup, &mut other, 0);
    take(&setup, &mut other, 2);
    assert_eq!(values(&learner), values(&other));
}

#[test]
fn a_step_that_is_left_out_takes_all_of_its_batches() {
    let setup = setup(json!({ "batch_size": 8, "accumulate": 3, "on_nan": "skip" }));
    let mut learner = Learner::new(&setup).unwrap();
    let conv = learner.net.tensors()[0].tensor.shallow_clone();
    let good = conv.detach().copy();
    overwrite(&conv, &good.full_like(f64::NAN)).unwrap();
    let mut batches = setup.train_batches(0, 0, 8).unwrap();
    // It is the first of the three that fails.
    let found = not_finite(take_of(&setup, &mut learner, 0, &mut batches));
    assert_eq!(found.samples.len(), 8);
    let next = batches.next().unwrap().unwrap();
    assert_eq!(next.samples, setup.train_batches(0, 3, 8).unwrap().next().unwrap().unwrap().samples);
}

#[test]
fn gradients_alone_can_be_infinite() {
    // A factor on the loss that float16's gradients cannot bear: the scaler gets smaller until they do.
    let setup = setup(json!({ "batch_size": 8, "precision": "fp16" }));
    let mut learner = Learner::new(&setup).unwrap();
    learner.scaler = Some(serde_json::from_value(json!({ "scale": 1e9, "good": 0 })).unwrap());
    let before = values(&learner);
    let scale = |learner: &Learner| learner.scaler.as_ref().unwrap().scale();
    let start = scale(&learner);
    let mut overflows = 0;
    for number in 0..24 {
        match take_of(&setup, &mut learner, number, &mut setup.train_batches(0, 0, 8).unwrap()) {
            Stepped::Done => {}
            Stepped::Overflow => overflows += 1,
            Stepped::NotFinite(found) => panic!("{}", found.what),
        }
    }
    assert!(overflows > 0 && overflows < 24, "{overflows} overflows");
    assert_eq!(scale(&learner), start / f64::from(1 << overflows));
    assert_eq!(learner.optimizer.steps(), 24 - overflows);
    assert_ne!(values(&learner), before);
}

#[test]
fn an_infinite_gradient_is_named() {
    let setup = setup(json!({ "batch_size": 8 }));
    let mut learner = Learner::new(&setup).unwrap();
    // A gradient to which the step's own is added; the forward pass does not see it.
    let before = values(&learner);
    let conv =
        learner.net.tensors().iter().find(|named| named.param.name == "layer2.0.conv1.weight").unwrap();
    (&conv.tensor * f64::INFINITY).sum(Kind::Float).backward();
    let found = not_finite(take(&setup, &mut learner, 0));
    assert_eq!(found.what, "the loss is finite, but not the gradient of `layer2.0.conv1.weight`");
    assert_eq!(found.samples.len(), 8);
    assert_eq!(learner.optimizer.steps(), 0);
    for (before, named) in before.iter().zip(learner.net.tensors()) {
        assert!(named.param.name.contains("running") || *before == named.tensor, "{}", named.param.name);
    }
}

/// Nine good steps, one that ruins the weights, and good ones again.
fn with_a_spike(rest: &str) -> String {
    with_a_spike_of(1e30, rest)
}

/// The same with a learning rate so many times too high in the tenth step.
fn with_a_spike_of(scale: f64, rest: &str) -> String {
    let constant = json!({ "kind": "constant" });
    let parts = json!([
        { "length": "9st", "schedule": constant },
        { "length": "1st", "scale": scale, "schedule": constant },
        { "schedule": constant },
    ]);
    format!(
        "train {TINY} --batch-size 4 --set data.synthetic.train=80 --set schedule={} {rest}",
        json!({ "kind": "sequence", "parts": parts })
    )
}

#[test]
fn a_run_goes_back_to_before_its_loss_was_lost() {
    let sandbox = Sandbox::new();
    let stopped = sandbox.senet(&with_a_spike("--out stopped"));
    assert_eq!(stopped.code, 1);
    for part in [
        "error: step 11: the loss is NaN",
        "its 4 samples are listed in stopped/not-finite-11.json",
        "hint: ",
    ] {
        assert!(stopped.stderr.contains(part), "{}", stopped.stderr);
    }
    let listed = sandbox.read_json("stopped/not-finite-11.json");
    assert_eq!(listed["samples"].as_array().unwrap().len(), 4);

    let command = with_a_spike("--set train.on_nan=rollback --set checkpoint.every_steps=4 --out back");
    let back = sandbox.succeed(&command);
    assert!(
        back.stderr.contains("back to step 8, to go on without this step and the one before"),
        "{}",
        back.stderr
    );
    assert_eq!(sandbox.read_json("back/result.json")["steps"], 20);
    let state = sandbox.read_json("back/checkpoints/last/state.json");
    assert_eq!(state["progress"]["left_out"], json!([9, 10]));
    assert_eq!(state["optim"]["steps"], 18);

    // Leaving steps out does not mend weights.
    let lost =
        sandbox.senet(&with_a_spike("--set train.on_nan=skip --out lost").replace("train=80", "train=160"));
    assert_eq!(lost.code, 1);
    assert!(lost.stderr.contains("so were the 10 steps before"), "{}", lost.stderr);
}

#[test]
fn a_run_that_has_gone_back_resumes_as_it_would_have_gone_on() {
    let sandbox = Sandbox::new();
    let command = with_a_spike("--set train.on_nan=rollback --set checkpoint.every_steps=4");
    sandbox.succeed(&format!("{command} --out whole"));
    sandbox.start(&format!("{command} --out parts")).kill_when(|| common::last_step(&sandbox, "parts") >= 17);
    sandbox.succeed("train --resume parts");
    for file in ["model.safetensors", "optim.safetensors"] {
        let file = format!("checkpoints/last/{file}");
        assert!(sandbox.read(&format!("whole/{file}")) == sandbox.read(&format!("parts/{file}")), "{file}");
    }
}

/// Two epochs of ten steps, the last of which in the first epoch makes weights so large that no evaluation is finite, or
/// infinite.
fn ruined_by_the_last_step(scale: f64, rest: &str) -> String {
    let words = with_a_spike_of(scale, rest);
    words.replace("synthetic.train=80", "synthetic.train=40").replace("duration=1ep", "duration=2ep")
}

#[test]
fn an_evaluation_that_is_not_finite_is_handled_as_a_step_is() {
    let sandbox = Sandbox::new();
    // Finite weights whose logits overflow, and weights that are not finite.
    for (scale, what) in
        [(1e20, "the logits of 23 of 23 images are NaN or infinite"), (1e60, "is NaN or infinite")]
    {
        let run = |name: &str| format!("{name}-{}", scale > 1e30);
        let stopped = sandbox.senet(&ruined_by_the_last_step(scale, &format!("--out {}", run("stopped"))));
        assert_eq!(stopped.code, 1, "{}", stopped.stderr);
        for part in ["after step 10: ", what, "hint: lower `optim.lr`"] {
            assert!(stopped.stderr.contains(part), "no {part:?} in {}", stopped.stderr);
        }
        assert!(!sandbox.path(&format!("{}/checkpoints/best", run("stopped"))).exists());

        let skipped = "--set train.on_nan=skip --set checkpoint.every_steps=4";
        let skipped =
            sandbox.senet(&ruined_by_the_last_step(scale, &format!("{skipped} --out {}", run("skip"))));
        assert_eq!(skipped.code, 1, "{}", skipped.stderr);
        assert!(!sandbox.path(&format!("{}/checkpoints/best", run("skip"))).exists(), "{}", skipped.stderr);

        let back = "--set train.on_nan=rollback --set checkpoint.every_steps=4";
        let command = ruined_by_the_last_step(scale, &format!("{back} --out {}", run("back")));
        let back = sandbox.succeed(&command);
        let told = "back to step 8, to go on without the last two steps";
        assert!(back.stderr.contains(told) && back.stderr.contains(what), "{}", back.stderr);
        let state = sandbox.read_json(&format!("{}/checkpoints/last/state.json", run("back")));
        assert_eq!(state["progress"]["left_out"], json!([8, 9]));
        assert_eq!(state["progress"]["awaits_evaluation"], Value::Null);
        assert_eq!(sandbox.read_json(&format!("{}/result.json", run("back")))["steps"], 20);
        let previous = sandbox.read_json(&format!("{}/checkpoints/last.previous/state.json", run("back")));
        assert_eq!(previous["progress"]["step"], 16, "the checkpoint that was not finite is gone");

        // Without a checkpoint in between, the run starts anew, but for those steps.
        let anew = format!("--set train.on_nan=rollback --out {}", run("anew"));
        let anew = sandbox.succeed(&ruined_by_the_last_step(scale, &anew));
        assert!(anew.stderr.contains(what) && anew.stderr.contains("back to step 0"), "{}", anew.stderr);
    }
}

#[test]
fn half_of_the_bits_learn_as_well() {
    let sandbox = Sandbox::new();
    let train = |precision: &str| {
        let command = format!(
            "train {TINY} --set data.synthetic.train=640 --set train.precision={precision} --out {precision}"
        );
        let result = sandbox.succeed(&format!("{command} --json")).json();
        result["eval"]["top1"]["accuracy"].as_f64().unwrap()
    };
    let exact = train("fp32");
    for precision in ["bf16", "fp16", "tf32"] {
        let accuracy = train(precision);
        assert!(accuracy > exact - 0.15, "{precision}: {accuracy}, fp32: {exact}");
    }
    let scaler = &sandbox.read_json("fp16/checkpoints/last/state.json")["scaler"];
    assert!(scaler["scale"].as_f64().unwrap() > 0.0, "{scaler}");
    let same = |a: &str, b: &str| sandbox.read(a) == sandbox.read(b);
    // On a CPU, tf32 is float32.
    assert!(same("fp32/checkpoints/last/model.safetensors", "tf32/checkpoints/last/model.safetensors"));
    assert!(!same("fp32/checkpoints/last/model.safetensors", "bf16/checkpoints/last/model.safetensors"));
    refused(&sandbox, &format!("train {TINY} --set train.precision=fp8"), 2, &["train.precision", "fp16"]);
}

#[test]
fn float16_resumes_with_its_scaler() {
    let sandbox = Sandbox::new();
    let command = format!("train {TINY} --batch-size 4 --set train.precision=fp16 --set train.log_every=1st");
    sandbox.succeed(&format!("{command} --out whole"));
    let stopped = sandbox
        .start(&format!("{command} --out parts"))
        .interrupt_when(|| common::last_step(&sandbox, "parts") >= 6);
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    sandbox.succeed("train --resume parts");
    let [whole, parts] =
        ["whole", "parts"].map(|run| sandbox.read_json(&format!("{run}/checkpoints/last/state.json")));
    assert_eq!(whole["scaler"], parts["scaler"]);
    assert_eq!(whole["files"], parts["files"]);
}

#[test]
fn the_last_checkpoints_are_kept() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&format!(
        "train {TINY} --batch-size 4 --set checkpoint.every_steps=2 --set checkpoint.keep=3 --out run"
    ));
    let step = |name: &str| {
        sandbox.read_json(&format!("run/checkpoints/{name}/state.json"))["progress"]["step"].as_u64().unwrap()
    };
    let kept = ["last", "last.previous", "last.previous-2", "last.previous-3"].map(step);
    assert_eq!(kept, [17, 16, 14, 12]);
    assert!(!sandbox.path("run/checkpoints/last.previous-4").exists());
    // Whatever is damaged of the newer ones, the newest whole one serves.
    for name in ["last", "last.previous"] {
        sandbox.write(&format!("run/checkpoints/{name}/model.safetensors"), "cut");
    }
    let resumed = sandbox.succeed("train --resume run");
    assert!(resumed.stderr.contains("using an earlier one, of step 14"), "{}", resumed.stderr);
    refused(&sandbox, &format!("train {TINY} --set checkpoint.keep=0"), 2, &["checkpoint.keep", "1 to 1000"]);
}

#[test]
fn images_grow_and_not_every_epoch_is_evaluated() {
    let sandbox = Sandbox::new();
    let output = sandbox.succeed(&format!(
        "train {TINY} --epochs 5 --set data.size=16 --set train.eval_every=2 \
         --set train.sizes={} --out run",
        json!({ "from": 8, "end": "4ep", "multiple": 4 })
    ));
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("epoch ")).collect();
    let evaluated = lines.iter().map(|line| line.contains("evaluation: ")).collect::<Vec<_>>();
    assert_eq!(evaluated, [false, true, false, true, true], "{}", output.stderr);
    refused(
        &sandbox,
        &format!("train {TINY} --set model.name=se-vgg-16-bn --set data.size=224 --set train.sizes.to=8"),
        2,
        &["training images of 8 × 8 (`train.sizes`)"],
    );
    refused(&sandbox, &format!("train {TINY} --set train.eval_every=0"), 2, &["`train.eval_every` is 0"]);
}

#[test]
fn stochastic_depth_draws_anew_in_each_step_and_resumes() {
    let sandbox = Sandbox::new();
    let command = format!("train {TINY} --batch-size 4 --set model.drop_path=0.5 --set train.log_every=1st");
    sandbox.succeed(&format!("{command} --out whole"));
    sandbox
        .start(&format!("{command} --out parts"))
        .interrupt_when(|| common::last_step(&sandbox, "parts") >= 6);
    sandbox.succeed("train --resume parts");
    let model = |run: &str| sandbox.read(&format!("{run}/checkpoints/last/model.safetensors"));
    assert!(model("whole") == model("parts"));
    sandbox.succeed(&format!("{} --out deep", command.replace("=0.5", "=0")));
    assert!(model("whole") != model("deep"));
    refused(&sandbox, &format!("train {TINY} --set model.drop_path=1"), 2, &["`model.drop_path` is 1"]);
    let no_sums = format!("train {TINY} --set model.name=vgg-16-bn --set model.drop_path=0.1");
    refused(&sandbox, &no_sums, 2, &["vgg-16-bn has no residual sums"]);
}

#[test]
fn where_the_time_goes() {
    let sandbox = Sandbox::new();
    common::write_class_folders(&sandbox, "photos", &["a", "b"], 6, 2);
    let command = "bench train --model se-resnet-20 --data photos --size 16 --batch-size 4 --steps 3";
    let measured = sandbox.succeed(&format!("{command} --json")).json();
    let split = measured["split"].as_object().unwrap();
    let seconds = |part: &str| split[part].as_f64().unwrap();
    let total: f64 = ["data", "forward", "backward", "optimizer", "rest"].map(seconds).iter().sum();
    let outside = measured["outside"].as_f64().unwrap();
    assert!((outside - (seconds("data") + seconds("rest")) / total).abs() < 1e-9, "{measured}");
    let text = sandbox.succeed(command).stdout;
    assert!(text.contains("outside of network and optimizer: "), "{text}");
    refused(&sandbox, "bench eval --data photos", 2, &["`--data` is for `senet bench train`"]);
}

#[test]
fn sgd_without_momentum_trains() {
    let sandbox = Sandbox::new();
    // The second momentum is too small to change a velocity: it computes what none should.
    let run = |name: &str, momentum: &str| {
        let settings = format!("--set optim.nesterov=false --set optim.momentum={momentum}");
        sandbox.succeed(&format!("train {TINY} {settings} --out {name}"));
        sandbox.read(&format!("{name}/checkpoints/last/model.safetensors"))
    };
    assert_eq!(run("none", "0"), run("tiny", "1e-300"));
}
