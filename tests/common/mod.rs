//! What the tests of the program share: a place to run it in, and small data sets to run it on.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A made-up data set on which a step takes milliseconds; its sizes are multiples of no batch. One epoch, 5 steps.
pub const TINY: &str = "--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1 \
                        --set data.synthetic.train=67 --set data.synthetic.eval=23 \
                        --set train.batch_size=16 --set train.duration=1ep";

/// No command of these tests comes near these; a command that hangs or eats memory is ended and fails its test
/// instead of taking the machine along.
const MAX_TIME: Duration = Duration::from_secs(120);
const MAX_RESIDENT_KIB: u64 = 3 << 20;

/// An empty folder to run the program in, removed in the end.
pub struct Sandbox {
    dir: TempDir,
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// The result.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

/// A run of the program that is still going on.
pub struct Running {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `senet` with these words and waits for its end.
    pub fn senet(&self, words: &str) -> Output {
        self.start(words).wait()
    }

    /// The same; it must succeed.
    pub fn succeed(&self, words: &str) -> Output {
        let output = self.senet(words);
        assert_eq!(output.code, 0, "senet {words}\n{}", output.stderr);
        output
    }

    /// Starts `senet` with these words, split at white space.
    pub fn start(&self, words: &str) -> Running {
        let [stdout, stderr] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let child = self
            .command(words)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Running { command: words.to_string(), child, stdout, stderr, started: Instant::now() }
    }

    /// `senet` as all machines have it: one thread an operation, since several tests run at once and OpenMP's
    /// threads wait for each other by spinning, and no GPU.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_senet"));
        command
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("OMP_NUM_THREADS", "1")
            .env("CUDA_VISIBLE_DEVICES", "")
            // If something crashes, it shall show.
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Copies the folder `from` to `to`.
    pub fn copy(&self, from: &str, to: &str) {
        copy_folder(&self.path(from), &self.path(to));
    }

    /// Names of what lies in a folder, sorted.
    pub fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}

impl Running {
    /// Waits for the end.
    pub fn wait(mut self) -> Output {
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => self.pause(),
            }
        };
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let (stdout, stderr) = (read(&mut self.stdout), read(&mut self.stderr));
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `reached` and asks the program to stop, as Ctrl-C does.
    pub fn interrupt_when(self, reached: impl FnMut() -> bool) -> Output {
        self.signal_when("INT", reached)
    }

    /// The same by the signal of this name.
    pub fn signal_when(mut self, signal: &str, reached: impl FnMut() -> bool) -> Output {
        self.wait_until(reached);
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &process]).status().unwrap().success());
        self.wait()
    }

    /// Ends it, as a power cut would, as soon as this holds.
    pub fn kill_when(mut self, reached: impl FnMut() -> bool) {
        self.wait_until(reached);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn wait_until(&mut self, mut reached: impl FnMut() -> bool) {
        while !reached() {
            assert!(self.child.try_wait().unwrap().is_none(), "`senet {}` ended too early", self.command);
            self.pause();
        }
    }

    /// A few milliseconds, within the limits.
    fn pause(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        if resident > MAX_RESIDENT_KIB || self.started.elapsed() > MAX_TIME {
            self.child.kill().unwrap();
            let seconds = self.started.elapsed().as_secs();
            panic!("`senet {}` held {resident} KiB after {seconds} s", self.command);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Output {
    /// The one JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// Runs `senet` and expects a refusal: this exit code, one short message with all `parts`, nothing on stdout and no trace
/// of a crash.
pub fn refused(sandbox: &Sandbox, words: &str, code: i32, parts: &[&str]) -> Output {
    let output = sandbox.senet(words);
    let message = &output.stderr;
    assert_eq!(output.code, code, "senet {words}\n{message}");
    for part in parts {
        assert!(message.contains(part), "senet {words}\nno {part:?} in {message}");
    }
    assert_calm(words, message);
    let errors = message.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "senet {words}: one message is enough\n{message}");
    assert!(message.len() < 1500, "senet {words}: {message}");
    assert_eq!(output.stdout, "", "senet {words}");
    output
}

/// No trace of a crash, ours or libtorch's.
pub fn assert_calm(words: &str, message: &str) {
    for trace in ["panicked", "internal error", "backtrace", "frame #", "Exception raised from", "TchError"] {
        assert!(!message.contains(trace), "senet {words}\n{trace:?} in {message}");
    }
}

/// The names of an object's fields, in order.
pub fn fields(object: &Value) -> Vec<&str> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().map(String::as_str).collect()
}

/// An IDX file of unsigned bytes.
pub fn idx(dimensions: &[usize], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|side| bytes.extend((*side as u32).to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// Writes the four files of an IDX data set: `train` and `eval` images of 12 × 12 in `classes` classes.
pub fn write_idx_set(sandbox: &Sandbox, dir: &str, train: usize, eval: usize, classes: usize) {
    for (prefix, count) in [("train", train), ("t10k", eval)] {
        let labels: Vec<u8> = (0..count).map(|sample| (sample % classes) as u8).collect();
        let pixels: Vec<u8> = (0..count * 144).map(|at| brightness(at / 144, labels[at / 144], at)).collect();
        sandbox.write(&format!("{dir}/{prefix}-images-idx3-ubyte"), idx(&[count, 12, 12], &pixels));
        sandbox.write(&format!("{dir}/{prefix}-labels-idx1-ubyte"), idx(&[count], &labels));
    }
}

/// Stripes as wide as the class says, and some noise.
fn brightness(sample: usize, class: u8, at: usize) -> u8 {
    let stripe = (at / (1 + usize::from(class))) % 2;
    let noise = (sample * 144 + at).wrapping_mul(2_654_435_761) >> 7;
    (stripe * 180 + noise % 60) as u8
}

/// Writes an image whose colour says its class, in the format that is named, whatever the file's name says.
pub fn write_image(sandbox: &Sandbox, name: &str, format: ImageFormat, class: usize) {
    let path = sandbox.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = RgbImage::from_fn(20, 14, |x, y| {
        let mut pixel = [(x * 3) as u8, (y * 4) as u8, 40];
        pixel[class % 3] = 220;
        Rgb(pixel)
    });
    DynamicImage::ImageRgb8(picture).save_with_format(path, format).unwrap();
}

/// Writes class folders: in each class `train` and `eval` images, JPEG and PNG in turn and half of them misnamed.
pub fn write_class_folders(sandbox: &Sandbox, dir: &str, classes: &[&str], train: usize, eval: usize) {
    for (half, count) in [("train", train), ("val", eval)] {
        for (class, name) in classes.iter().enumerate() {
            for image in 0..count {
                let format = [ImageFormat::Jpeg, ImageFormat::Png][image % 2];
                let ending = ["jpg", "png", "png", "JPEG"][image % 4];
                write_image(sandbox, &format!("{dir}/{half}/{name}/{image}.{ending}"), format, class);
            }
        }
    }
}

/// The default's data set, in small.
pub fn default_data(sandbox: &Sandbox) {
    write_idx_set(sandbox, "data/fashion-mnist", 130, 37, 10);
}

/// The only run below runs/.
pub fn only_run(sandbox: &Sandbox) -> String {
    let runs = sandbox.list("runs");
    assert_eq!(runs.len(), 1, "{runs:?}");
    format!("runs/{}", runs[0])
}

/// The last step in a run's history, 0 before the first.
pub fn last_step(sandbox: &Sandbox, run: &str) -> u64 {
    let history = fs::read_to_string(sandbox.path(run).join("events.jsonl")).unwrap_or_default();
    // The last line may be half written.
    let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
    history.lines().rev().find_map(step).unwrap_or(0)
}
