//! Several real processes: what they compute together, and how they end when one of them does not come, dies, hangs or
//! fails. Each rank is this test program again, in the role that a variable names.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "each rank is a process with its own output"
)]

use senet::data::share::Share;
use senet::dist::collective::{Collective, Gradients};
use senet::dist::launch::{self, Environment, Launch};
use senet::dist::spawn::{self, Job};
use senet::dist::watch::Limits;
use senet::error::{Result, TorchContext, problem};
use senet::torch_ext::dist::{Keeper, ReducerOptions, Store};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// The role of a process.
const ROLE: &str = "SENET_TEST_ROLE";

/// A folder of the test's.
const FOLDER: &str = "SENET_TEST_FOLDER";

/// The words that have this program play a role.
const ENTRY: [&str; 4] = ["rank", "--exact", "--ignored", "--nocapture"];

/// Short, for tests of what happens at their end.
const LIMITS: Limits = Limits {
    meeting: Duration::from_secs(4),
    operation: Duration::from_secs(4),
    pulse: Duration::from_millis(150),
};

/// Within this time every process has ended, whatever happened: limits, inquiry, start and a busy machine.
const END: Duration = Duration::from_secs(40);

/// A rank that was found to hang ends with it.
const STUCK: i32 = 7;

// ---- the roles ------------------------------------------------------------------------------------------------------

/// The entry of the processes that the tests start.
#[test]
#[ignore = "a rank of the other tests"]
fn rank() {
    let role = std::env::var(ROLE).expect("a role");
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let code = match play(&role, &folder) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = problem(&error).and_then(|problem| problem.hint.as_deref()) {
                eprintln!("hint: {hint}");
            }
            3
        }
    };
    std::process::exit(code);
}

/// From whatever thread, without waiting for the others.
fn leave_at_once(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}

fn launch() -> Launch {
    let environment: Environment = std::env::vars().collect();
    launch::find(&environment).expect("a sound environment").expect("a launch")
}

fn play(role: &str, folder: &Path) -> Result<()> {
    match role {
        "launch" => return play_launcher(folder),
        "spawned fails" => return play_spawned(),
        "spawned waits" => return play_waiting(folder),
        _ => {}
    }
    tch::set_num_threads(1);
    let launch = launch();
    let stuck = |message: &str| {
        eprintln!("stuck: {message}");
        leave_at_once(STUCK);
    };
    let collective = Collective::join(Some(&launch), Device::Cpu, LIMITS, stuck)?;
    let played = match role {
        "operations" => play_operations(&collective),
        "gradients" => play_gradients(&collective, folder),
        "differ" => play_differ(&collective),
        "other parameters" => play_other_parameters(&collective),
        _ => play_fault(&collective, role),
    };
    let failure = played.as_ref().err().map(|error| format!("{error:#}"));
    collective.leave(failure.as_deref());
    played
}

fn play_operations(collective: &Collective) -> Result<()> {
    let (rank, world_size) = (collective.rank() as i64, collective.world_size() as i64);
    let total = world_size * (world_size - 1) / 2;
    // Of two kinds, one not contiguous, one of no dimension.
    let make = || {
        let wide = Tensor::full([3, 4], rank, (Kind::Float, Device::Cpu)).tr();
        [wide, Tensor::from(rank), Tensor::full([2], rank as f64, (Kind::Double, Device::Cpu))]
    };
    let values = |tensors: &[Tensor]| -> Vec<f64> {
        let sums = tensors.iter().map(|tensor| tensor.to_kind(Kind::Double).mean(Kind::Double));
        sums.map(|mean| mean.double_value(&[])).collect()
    };
    let tensors = make();
    collective.all_reduce_sum(&tensors)?;
    assert_eq!(values(&tensors), [total as f64; 3]);
    assert_eq!(tensors[0].size(), [4, 3]);
    let floats = [make()[0].shallow_clone(), make()[2].shallow_clone()];
    collective.all_reduce_mean(&floats)?;
    assert_eq!(values(&floats), [total as f64 / world_size as f64; 2]);
    let tensors = make().map(|tensor| tensor + 5);
    let param = Tensor::full([2], rank, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    collective.broadcast(&tensors)?;
    collective.broadcast(&[param.shallow_clone()])?;
    assert_eq!(values(&tensors), [5.0; 3]);
    assert_eq!(param.double_value(&[1]), 0.0);
    collective.all_reduce_sum(&[])?;
    collective.broadcast(&[])?;
    for round in 0..5u8 {
        let values = collective.gather(&vec![round; collective.rank()])?;
        assert_eq!(values, (0..world_size as usize).map(|rank| vec![round; rank]).collect::<Vec<_>>());
    }
    collective.barrier()?;
    collective.check()?;
    let same = BTreeMap::from([("configuration".to_owned(), "1234".to_owned())]);
    collective.agree(&same)
}

fn play_differ(collective: &Collective) -> Result<()> {
    let data = if collective.rank() == 1 { "5678" } else { "1234" };
    let pairs = [("configuration", "abcd"), ("data", data)];
    collective.agree(&pairs.map(|(name, hash)| (name.to_owned(), hash.to_owned())).into())
}

fn play_other_parameters(collective: &Collective) -> Result<()> {
    let size = if collective.rank() == 1 { 4 } else { 3 };
    let param = Tensor::zeros([size], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    collective.gradients(&[("layer.weight".to_owned(), param)], ReducerOptions::default()).map(|_| ())
}

/// Rank 1 (or 0) does what the role says in the third step.
fn play_fault(collective: &Collective, role: &str) -> Result<()> {
    for step in 1..=5 {
        collective.doing(format!("step {step}"));
        match (step, collective.rank(), role) {
            (3, 1, "dies") | (3, 0, "rank 0 dies") => {
                // What a rank does is told once a pulse; these steps are shorter.
                std::thread::sleep(3 * LIMITS.pulse);
                std::process::abort()
            }
            (3, 1, "hangs") => std::thread::sleep(END * 2),
            (3, 1, "fails") => return Err(senet::error::failed("the disk is full").into()),
            (3, 1, "goes") => return Ok(()),
            _ => {}
        }
        // One operation of each way: through gloo, and through the store.
        collective.all_reduce_sum(&[Tensor::from(1.0)])?;
        collective.barrier()?;
    }
    Ok(())
}

// ---- a net of two layers ---------------------------------------------------------------------------------------------

/// Draws in an epoch: two whole steps and one of 2 samples, fewer than 3 ranks.
const DRAWS: usize = 26;
/// Of all ranks together.
const BATCH: usize = 12;

fn parameters() -> Vec<(String, Tensor)> {
    tch::manual_seed(5);
    let shapes: [(&str, &[i64]); 4] =
        [("fc1.weight", &[8, 6]), ("fc1.bias", &[8]), ("fc2.weight", &[3, 8]), ("fc2.bias", &[3])];
    let random = |shape| (Tensor::randn(shape, (Kind::Double, Device::Cpu)) * 0.5).set_requires_grad(true);
    shapes.map(|(name, shape)| (name.to_owned(), random(shape))).into()
}

fn loss(params: &[(String, Tensor)], own: std::ops::Range<usize>) -> Tensor {
    tch::manual_seed(9);
    let inputs = Tensor::randn([DRAWS as i64, 6], (Kind::Double, Device::Cpu));
    let targets = Tensor::arange(DRAWS as i64, (Kind::Int64, Device::Cpu)).remainder(3);
    let of_own = |tensor: Tensor| tensor.narrow(0, own.start as i64, own.len() as i64);
    let [fc1, bias1, fc2, bias2] = [0, 1, 2, 3].map(|at| &params[at].1);
    let hidden = of_own(inputs).linear(fc1, Some(bias1)).relu();
    hidden.linear(fc2, Some(bias2)).log_softmax(-1, Kind::Double).nll_loss(&of_own(targets))
}

/// Two epochs of plain gradient descent, each batch in `accumulate` passes.
fn descend(collective: &Collective, options: ReducerOptions, accumulate: usize) -> Result<Tensor> {
    let params = parameters();
    let mut gradients: Gradients = collective.gradients(&params, options)?;
    for epoch in 0..2 {
        for (step, begin) in (0..DRAWS).step_by(BATCH).enumerate() {
            collective.doing(format!("epoch {epoch}, step {step}"));
            let batch = begin..DRAWS.min(begin + BATCH);
            for pass in 0..accumulate {
                let whole = Share { rank: pass, world_size: accumulate }.of(batch.clone());
                let part = collective.share().of_training(whole);
                let last = pass + 1 == accumulate;
                if last {
                    gradients.begin()?;
                }
                let share = part.weight * part.whole as f64 / batch.len() as f64;
                let loss = loss(&params, part.own) * share;
                if last {
                    gradients.turn(&loss)?;
                }
                loss.f_backward().torch_context(|| "backward".into())?;
            }
            let _no_grad = tch::no_grad_guard();
            for (_, param) in &params {
                let mut value = param.shallow_clone();
                let _ = value.f_sub_(&(param.grad() * 0.3)).torch_context(|| "update".into())?;
                let mut grad = param.grad();
                let _ = grad.zero_();
            }
        }
    }
    let _no_grad = tch::no_grad_guard();
    Ok(Tensor::cat(&params.iter().map(|(_, param)| param.flatten(0, -1)).collect::<Vec<_>>(), 0))
}

/// Ways to reduce, by name: options, and passes of a batch.
fn ways() -> [(&'static str, ReducerOptions, usize); 5] {
    let plain = ReducerOptions::default();
    // One parameter a bucket.
    let small = ReducerOptions { bucket_bytes: 1, first_bucket_bytes: 1, ..plain };
    [
        ("plain", plain, 1),
        ("small buckets", small, 1),
        ("unused are sought", ReducerOptions { find_unused: true, ..small }, 1),
        ("static graph", ReducerOptions { static_graph: true, ..small }, 1),
        ("accumulated", small, 2),
    ]
}

fn play_gradients(collective: &Collective, folder: &Path) -> Result<()> {
    for (name, options, accumulate) in ways() {
        let params = descend(collective, options, accumulate)?;
        let all = collective.gather(
            &Vec::<f64>::try_from(&params)?.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>(),
        )?;
        assert!(all.iter().all(|rank| *rank == all[0]), "{name}: the ranks have other parameters");
        if collective.is_main() {
            std::fs::write(folder.join(name), &all[0])?;
        }
    }
    Ok(())
}

// ---- starting them ---------------------------------------------------------------------------------------------------

fn role(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ENTRY).env(ROLE, role).env(FOLDER, folder);
    command.env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

/// Ranks under way, killed when the test gives up.
struct Started(Vec<Option<Child>>);

impl Drop for Started {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts `ranks` of a job of `world_size` processes that meet at `port`, where rank 0 keeps the store.
fn start(role_name: &str, ranks: &[usize], world_size: usize, port: u16, folder: &Path) -> Started {
    start_with(role_name, ranks, world_size, port, folder, &[])
}

/// The same with further variables.
fn start_with(
    role_name: &str,
    ranks: &[usize],
    world_size: usize,
    port: u16,
    folder: &Path,
    variables: &[(&str, &str)],
) -> Started {
    let start = |rank: &usize| {
        let mut command = role(role_name, folder);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world_size.to_string());
        command.env("LOCAL_RANK", rank.to_string()).env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", port.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(variables.iter().copied());
        Some(command.spawn().unwrap())
    };
    Started(ranks.iter().map(start).collect())
}

impl Started {
    /// Exit codes (-1 for a signal) and what was said, once all have ended.
    fn end(mut self) -> Vec<(i32, String)> {
        let begun = Instant::now();
        let living = |child: &mut Option<Child>| {
            child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
        };
        while self.0.iter_mut().any(living) {
            assert!(begun.elapsed() < END, "ranks are still running after {END:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let outputs = self.0.iter_mut().map(|child| child.take().unwrap().wait_with_output().unwrap());
        outputs
            .map(|Output { status, stderr, .. }| {
                (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
            })
            .collect()
    }
}

/// What torchrun sets where it keeps the store.
const LAUNCHERS_STORE: [(&str, &str); 1] = [("TORCHELASTIC_USE_AGENT_STORE", "True")];

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn play_all(role: &str, world_size: usize) -> Vec<(i32, String)> {
    let folder = tempfile::tempdir().unwrap();
    start(role, &(0..world_size).collect::<Vec<_>>(), world_size, free_port(), folder.path()).end()
}

// ---- the tests -------------------------------------------------------------------------------------------------------

/// torchrun's store lives on when the job is started anew, on each machine with a count of restarts of its own.
#[test]
fn ranks_meet_again_in_a_launchers_store() {
    let time = Duration::from_secs(10);
    let store = Store::open("127.0.0.1", 0, Keeper::Us, time, "").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for attempt in 0..3 {
        // The last in another number, as elastic jobs come.
        let world_size = if attempt == 2 { 2 } else { 3 };
        let counts = [["0", "0", "0"], ["1", "0", "0"], ["1", "1", "0"]][attempt];
        let mut started = Started(Vec::new());
        for rank in (0..world_size).rev() {
            let variables =
                [LAUNCHERS_STORE.as_slice(), &[("TORCHELASTIC_RESTART_COUNT", counts[rank])]].concat();
            let mut one =
                start_with("operations", &[rank], world_size, store.port(), folder.path(), &variables);
            started.0.append(&mut one.0);
        }
        for (code, said) in started.end() {
            assert_eq!(code, 0, "attempt {attempt}: {said}");
        }
    }
    // One that is by itself: who is missing is said all the same.
    for alone in [0, 1] {
        let ended =
            start_with("operations", &[alone], 2, store.port(), folder.path(), &LAUNCHERS_STORE).end();
        let absent = format!("rank {} of 2 did not come within 4s", 1 - alone);
        assert!(ended[0].0 == 3 && ended[0].1.contains(&absent), "{ended:?}");
    }
}

#[test]
fn operations_of_two_and_three_ranks_give_all_of_them_the_same() {
    for world_size in [2, 3] {
        for (rank, (code, said)) in play_all("operations", world_size).into_iter().enumerate() {
            assert_eq!((code, said.as_str()), (0, ""), "rank {rank} of {world_size}");
        }
    }
}

#[test]
fn a_process_by_itself_does_them_alone() {
    let collective = Collective::join(None, Device::Cpu, LIMITS, |_| ()).unwrap();
    assert_eq!((collective.rank(), collective.world_size(), collective.is_main()), (0, 1, true));
    let tensors = [Tensor::from(3.0)];
    collective.all_reduce_sum(&tensors).unwrap();
    collective.all_reduce_mean(&tensors).unwrap();
    collective.broadcast(&tensors).unwrap();
    assert_eq!(tensors[0].double_value(&[]), 3.0);
    assert_eq!(collective.gather(b"x").unwrap(), [b"x"]);
    collective.agree(&BTreeMap::new()).unwrap();
    collective.leave(None);
}

#[test]
fn ranks_descend_as_one_process_does() {
    for world_size in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let ranks: Vec<usize> = (0..world_size).collect();
        let ended = start("gradients", &ranks, world_size, free_port(), folder.path()).end();
        for (rank, (code, said)) in ended.into_iter().enumerate() {
            assert_eq!(code, 0, "rank {rank} of {world_size}: {said}");
        }
        let alone = Collective::Alone;
        let one = descend(&alone, ReducerOptions::default(), 1).unwrap();
        let one = Vec::<f64>::try_from(&one).unwrap();
        let begin = Tensor::cat(&parameters().iter().map(|(_, p)| p.flatten(0, -1)).collect::<Vec<_>>(), 0);
        let begin = Vec::<f64>::try_from(&begin.detach()).unwrap();
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(distance(&one, &begin) > 0.05, "nothing was learnt");
        for (name, ..) in ways() {
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            let many: Vec<f64> =
                bytes.chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().unwrap())).collect();
            assert_eq!(many.len(), one.len());
            assert!(distance(&many, &one) < 1e-12, "{name}, {world_size} ranks: {}", distance(&many, &one));
        }
    }
}

#[test]
fn ranks_that_differ_are_told_where() {
    for (code, said) in play_all("differ", 3) {
        assert_eq!(code, 3);
        assert!(said.contains("rank 1 has another data than rank 0: `5678`, not `1234`"), "{said}");
    }
    for (code, said) in play_all("other parameters", 2) {
        assert_eq!(code, 3);
        let difference = "another parameter layer.weight than rank 0: `Float [4]`, not `Float [3]`";
        assert!(said.contains(difference), "{said}");
    }
}

#[test]
fn a_rank_that_never_arrives_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    for (code, said) in start("operations", &[0, 1], 3, free_port(), folder.path()).end() {
        assert_eq!(code, 3);
        assert!(said.contains("rank 2 of 3 did not come within 4s"), "{said}");
    }
    assert!(begun.elapsed() < END / 2);
    // And rank 0, which has the store.
    let ended = start("operations", &[1], 2, free_port(), folder.path()).end();
    assert!(ended[0].0 == 3 && ended[0].1.contains("where rank 0 should be"), "{ended:?}");
}

#[test]
fn what_does_not_fit_together_ends_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let two = start("operations", &[0], 2, port, folder.path());
    let three = start("operations", &[1], 3, port, folder.path());
    for (code, said) in [two.end(), three.end()].concat() {
        assert_eq!(code, 3);
        assert!(
            said.contains("was told of 3 processes") || said.contains("was told of 2 processes"),
            "{said}"
        );
    }

    let taken = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = start("operations", &[0], 2, port, folder.path()).end();
    assert!(ended[0].0 == 3 && ended[0].1.contains(&format!("port {port} is in use")), "{ended:?}");

    let port = free_port();
    let twins = start("operations", &[0, 1, 1], 3, port, folder.path()).end();
    assert!(
        twins.iter().any(|(_, said)| said.contains("two processes say that they are rank 1")),
        "{twins:?}"
    );
    assert!(twins.iter().all(|(code, _)| *code == 3), "{twins:?}");
}

#[test]
fn a_rank_that_dies_in_mid_step_ends_the_others_and_is_named() {
    let ended = play_all("dies", 3);
    assert_eq!(ended[1].0, -1);
    for (code, said) in [&ended[0], &ended[2]] {
        assert_eq!(*code, 3, "{said}");
        assert!(said.contains("cannot go on with `step 3`: rank 1 no longer answers"), "{said}");
        assert!(said.contains("what it last did: `step"), "{said}");
    }
    let ended = play_all("rank 0 dies", 3);
    for (code, said) in &ended[1..] {
        assert_eq!(*code, 3, "{said}");
        assert!(said.contains("rank 0 no longer answers"), "{said}");
    }
}

#[test]
fn a_rank_that_hangs_is_named_and_ended() {
    let ended = play_all("hangs", 3);
    for (code, said) in [&ended[0], &ended[2]] {
        assert_eq!(*code, 3, "{said}");
        assert!(said.contains("rank 1 does not come; it still does `step 3`"), "{said}");
    }
    assert_eq!(ended[1].0, STUCK, "{}", ended[1].1);
    assert!(ended[1].1.contains("rank 1 hangs in `step 3`"), "{}", ended[1].1);
}

#[test]
fn a_rank_that_fails_tells_the_others_why() {
    for (rank, (code, said)) in play_all("fails", 3).into_iter().enumerate() {
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("the disk is full"), "rank {rank}: {said}");
        assert!(rank == 1 || said.contains("rank 1 failed in `step 3`"), "rank {rank}: {said}");
    }
    let ended = play_all("goes", 2);
    assert_eq!((ended[0].0, ended[1].0), (3, 0), "{ended:?}");
    assert!(ended[0].1.contains("rank 1 has finished"), "{ended:?}");
}

// ---- our own launcher ------------------------------------------------------------------------------------------------

/// A launcher in a process of its own, whose ranks write their process's number into the folder and wait.
fn play_launcher(folder: &Path) -> Result<()> {
    let ended = spawn::run(&Words::new("spawned waits", folder).job(folder))?;
    leave_at_once(ended.code)
}

fn play_waiting(folder: &Path) -> Result<()> {
    spawn::end_with_launcher(|| leave_at_once(1))?;
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, asked.clone())?;
    let rank = launch().rank;
    std::fs::write(folder.join(format!("{rank}.new")), std::process::id().to_string())?;
    std::fs::rename(folder.join(format!("{rank}.new")), folder.join(format!("pid-{rank}")))?;
    let begun = Instant::now();
    while begun.elapsed() < 2 * END {
        if asked.load(std::sync::atomic::Ordering::Relaxed) {
            leave_at_once(75);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn play_spawned() -> Result<()> {
    spawn::end_with_launcher(|| leave_at_once(1))?;
    let launch = launch();
    let collective = Collective::join(Some(&launch), Device::Cpu, LIMITS, |_| leave_at_once(STUCK))?;
    println!("{launch}");
    assert!(launch.meeting.token.is_some(), "anybody could write into the store");
    if launch.rank == 2 {
        eprintln!("error: no space left");
        leave_at_once(41);
    }
    // Rank 1 does not even notice.
    if launch.rank == 1 {
        std::thread::sleep(END * 2);
    }
    let played = collective.barrier();
    collective.leave(played.as_ref().err().map(|error| format!("{error:#}")).as_deref());
    played
}

/// What the ranks of our launcher are started with.
struct Words {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Words {
    fn new(role: &str, folder: &Path) -> Self {
        Self {
            program: std::env::current_exe().unwrap(),
            arguments: ENTRY.map(Into::into).to_vec(),
            variables: vec![
                (ROLE.into(), role.into()),
                (FOLDER.into(), folder.into()),
                ("OMP_NUM_THREADS".into(), "1".into()),
            ],
        }
    }

    fn job<'a>(&'a self, folder: &'a Path) -> Job<'a> {
        Job {
            program: &self.program,
            arguments: &self.arguments,
            variables: &self.variables,
            processes: 3,
            logs: folder,
            asked: &[75, 130],
            patience: Duration::from_secs(6),
        }
    }
}

#[test]
fn the_launcher_ends_all_with_the_first_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let ended = spawn::run(&Words::new("spawned fails", folder.path()).job(folder.path())).unwrap();
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    assert_eq!(ended.code, 41);
    let failure = ended.failure.unwrap();
    assert_eq!(failure.message, "rank 2 ended with exit code 41; its last words: error: no space left");
    assert!(failure.hint.unwrap().contains("rank-2.log"));
    let log = std::fs::read_to_string(folder.path().join("rank-1.log")).unwrap();
    assert!(log.contains("rank 1 of 3, local rank 1, from senet --nproc"), "{log}");
}

/// The processes of a launcher's ranks, once they all run.
fn pids(folder: &Path, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let read = |rank| std::fs::read_to_string(folder.join(format!("pid-{rank}")));
        let pids: Vec<String> = (0..count).filter_map(|rank| read(rank).ok()).collect();
        if pids.len() == count {
            return pids;
        }
        assert!(begun.elapsed() < END, "the ranks do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
fn runs(pid: &str) -> bool {
    // The state follows the name in parentheses; a zombie has ended.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
#[cfg(target_os = "linux")]
fn the_launcher_passes_signals_on_and_leaves_no_orphans() {
    for (signal, code) in [("-TERM", Some(75)), ("-KILL", None)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = role("launch", folder.path());
        let mut launcher =
            Started(vec![Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())]);
        let pids = pids(folder.path(), 3);
        assert!(pids.iter().all(|pid| runs(pid)));
        let child = launcher.0[0].as_mut().unwrap();
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), code);
        let begun = Instant::now();
        while pids.iter().any(|pid| runs(pid)) {
            assert!(begun.elapsed() < END / 4, "{signal}: ranks outlive the launcher");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

// ---- the store -------------------------------------------------------------------------------------------------------

/// What 127.0.0.2 stands for here is any other address of this machine.
#[test]
#[cfg(target_os = "linux")]
fn the_store_of_a_local_job_listens_on_the_loopback_alone() {
    for host in ["127.0.0.1", "localhost"] {
        let store = Store::open(host, 0, Keeper::Us, Duration::from_secs(5), "test/").unwrap();
        assert!(TcpStream::connect(("127.0.0.1", store.port())).is_ok() || host == "localhost");
        let refused = TcpStream::connect(("127.0.0.2", store.port())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{host}");
        let another = Store::open(host, store.port(), Keeper::Another, Duration::from_secs(5), "test/");
        another.unwrap().set("key", b"value").unwrap();
        assert!(store.has("key").unwrap());
    }
}

#[test]
fn the_store_waits_no_longer_than_it_is_told() {
    let open = |port, keeper| Store::open("127.0.0.1", port, keeper, Duration::from_secs(5), "test/");
    let ours = open(0, Keeper::Us).unwrap();
    assert_ne!(ours.port(), 0);
    let theirs = open(ours.port(), Keeper::Another).unwrap();
    theirs.set("key", b"\0value").unwrap();
    theirs.set("empty", b"").unwrap();
    let keys = ["key".to_owned(), "empty".to_owned()];
    assert_eq!(ours.get(&keys).unwrap(), [b"\0value".to_vec(), Vec::new()]);
    assert!(ours.wait(&keys, Duration::from_secs(1)).unwrap());
    assert_eq!((ours.add("count", 2).unwrap(), theirs.add("count", 3).unwrap()), (2, 5));

    let begun = Instant::now();
    assert!(!theirs.wait(&["nowhere".to_owned()], Duration::from_millis(300)).unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(250) && begun.elapsed() < Duration::from_secs(5));
    // The connection is as good as before.
    assert!(theirs.has("key").unwrap());
    theirs.delete("key").unwrap();
    assert!(!ours.has("key").unwrap());
    assert!(ours.set("nul\0", b"").is_err());

    drop(ours);
    let begun = Instant::now();
    assert!(theirs.set("key", b"").is_err() || theirs.has("key").is_err());
    assert!(begun.elapsed() < END);
    let refused = Store::open("127.0.0.1", free_port(), Keeper::Another, Duration::from_secs(1), "test/");
    assert!(refused.is_err() && begun.elapsed() < END);
}
