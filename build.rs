//! Links libtorch into our binaries, compiles the C++ that tch lacks, and notes the git revision.
//!
//! torch-sys (0.26) finds libtorch and links its own C++ with it, but a build script can't set linker arguments for
//! another crate's binaries. Two are left to us: where the libraries lie at run time, and, with CUDA, that the linker
//! must keep libtorch_cuda although nothing calls into it (it registers its kernels when it is loaded; without it
//! `Cuda::is_available()` is false on a machine full of GPUs).

// Cargo reads what a build script prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// Our C++, beside its Rust wrapper.
const TORCH_EXT: &str = "src/torch_ext";

/// gloo's headers as c10d's ask for them. The wheels hold gloo without them: `gloo.h` stands in.
const GLOO_HEADERS: [&str; 5] = [
    "gloo/algorithm.h",
    "gloo/common/error.h",
    "gloo/context.h",
    "gloo/rendezvous/store.h",
    "gloo/transport/device.h",
];

/// What the binary is made of. A change of any of these runs this script again, so that the revision it notes says
/// truly whether the binary is the commit's.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "build.rs", "configs", "src"];

fn main() -> ExitCode {
    note_git_revision();
    match Libtorch::find().and_then(|libtorch| libtorch.compile_torch_ext().map(|()| libtorch)) {
        Ok(libtorch) => {
            libtorch.link();
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// A libtorch on disk.
struct Libtorch {
    /// The folder where the libraries themselves lie, links followed: they look for CUDA's relative to their own
    /// place (`$ORIGIN/../../nvidia/…`), which a link elsewhere would break.
    lib: PathBuf,
    /// The headers' folder, links followed.
    include: PathBuf,
}

impl Libtorch {
    /// Where torch-sys has found it, so that the two never differ; else where LIBTORCH says.
    fn find() -> Result<Self, String> {
        let missing = |what: String| {
            format!("{what}\nhint: run `make setup`, or set LIBTORCH to the folder of a libtorch 2.13.0")
        };
        let libtorch = env_var("LIBTORCH").map(PathBuf::from);
        // "tch" is what torch-sys declares as `links`; it tells its direct dependents where libtorch is.
        let Some(lib) = env_var("DEP_TCH_LIBTORCH_LIB")
            .map(PathBuf::from)
            .or_else(|| libtorch.map(|folder| folder.join("lib")))
        else {
            return Err(missing("cannot find libtorch: LIBTORCH is not set".to_owned()));
        };
        let Some(core) =
            ["libc10.so", "libc10.dylib"].iter().find_map(|name| lib.join(name).canonicalize().ok())
        else {
            return Err(missing(format!("cannot find libtorch: {} holds no libc10", lib.display())));
        };
        // LIBTORCH_INCLUDE is torch-sys's way to name headers that lie apart from the libraries.
        let folder = env_var("LIBTORCH_INCLUDE")
            .map(PathBuf::from)
            .or_else(|| lib.parent().map(Path::to_owned))
            .unwrap_or_default();
        let Ok(include) = folder.join("include").canonicalize() else {
            return Err(missing(format!(
                "cannot find libtorch's headers: no include/ in {}",
                folder.display()
            )));
        };
        let lib = core.parent().map(Path::to_owned).unwrap_or(lib);
        Ok(Self { lib, include })
    }

    /// The run-time search path, and CUDA where this libtorch has it. These arguments reach our binaries, tests,
    /// examples and benches.
    fn link(&self) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", self.lib.display());
        if self.has_cuda() {
            println!("cargo::rustc-link-search=native={}", self.lib.display());
            println!(
                "cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,-ltorch_cuda,--pop-state"
            );
        }
    }

    /// The same OpenMP as libtorch's, under whatever name it lies beside it: two would be two sets of threads. Else the
    /// system's.
    fn link_openmp(&self) {
        let is_openmp = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("libgomp") && name.contains(".so") && !name.contains("plugin")
        };
        let entries =
            fs::read_dir(&self.lib).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        match entries.filter(is_openmp).min() {
            Some(library) => println!("cargo::rustc-link-arg={}", library.display()),
            None => println!("cargo::rustc-link-arg=-fopenmp"),
        }
    }

    fn has_cuda(&self) -> bool {
        self.lib.join("libtorch_cuda.so").exists()
    }

    /// Compiles `src/torch_ext/*.cpp` against the same headers, unless the archive of last time was made of
    /// the same: this script runs at every change in src/, and libtorch's headers take half a minute.
    fn compile_torch_ext(&self) -> Result<(), String> {
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo runs this script")?);
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .opt_level(3)
            .define("_GLIBCXX_USE_CXX11_ABI", env_var("LIBTORCH_CXX11_ABI").as_deref().unwrap_or("1"))
            .cargo_metadata(false);
        // Without OpenMP libtorch's headers make a plain loop of at::parallel_for. Clang's is another than libtorch's.
        if build.get_compiler().is_like_gnu() {
            build.flag("-fopenmp");
            self.link_openmp();
        }
        // As system headers, for which the compiler doesn't warn: libtorch's warnings would bury our own. CUDA's and
        // NCCL's lie beside the libraries of the CUDA wheels.
        let wheels = self.lib.join("../../nvidia");
        let folders = [
            self.include.clone(),
            self.include.join("torch/csrc/api/include"),
            wheels.join("cu13/include"),
            wheels.join("nccl/include"),
        ];
        for folder in folders.iter().filter(|folder| folder.exists()) {
            build.flag("-isystem").flag(folder);
        }
        if !self.include.join(GLOO_HEADERS[0]).exists() {
            stand_in_for_gloo(&out)
                .map_err(|problem| format!("cannot write to {}: {problem}", out.display()))?;
            build.include(&out);
        }
        if self.has_cuda() {
            build.define("SENET_CUDA", None);
        }

        let unreadable = |problem| format!("cannot read {TORCH_EXT}: {problem}");
        let sources = foreign_files().map_err(unreadable)?;
        build.files(
            sources.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cpp")),
        );
        let made_of = self.ingredients(&build, &sources).map_err(unreadable)?;
        let note = out.join("torch_ext.made-of");
        if !out.join("libtorch_ext.a").exists() || fs::read(&note).ok().as_ref() != Some(&made_of) {
            build.try_compile("torch_ext").map_err(|problem| format!("{TORCH_EXT}: {problem}"))?;
            fs::write(&note, made_of)
                .map_err(|problem| format!("cannot write {}: {problem}", note.display()))?;
        }

        println!("cargo::rustc-link-search=native={}", out.display());
        println!("cargo::rustc-link-lib=static=torch_ext");
        let apple = env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
        println!("cargo::rustc-link-lib={}", if apple { "c++" } else { "stdc++" });
        Ok(())
    }

    /// All that decides what the archive holds: the compiler with its arguments, libtorch's version, our files.
    fn ingredients(&self, build: &cc::Build, sources: &[PathBuf]) -> io::Result<Vec<u8>> {
        // Not the command whole: it holds the environment, where job numbers and the like differ from call to call.
        let compiler = build.get_compiler();
        let mut made_of = format!("{:?} {:?}\n", compiler.path(), compiler.args()).into_bytes();
        made_of.extend(fs::read(self.include.join("torch/headeronly/version.h")).unwrap_or_default());
        for file in sources {
            made_of.extend(fs::read(file)?);
        }
        Ok(made_of)
    }
}

/// Has the compiler find `gloo.h` under the names of gloo's headers, in the folder `out`.
fn stand_in_for_gloo(out: &Path) -> io::Result<()> {
    let ours = fs::canonicalize(Path::new(TORCH_EXT).join("gloo.h"))?;
    for header in GLOO_HEADERS {
        let path = out.join(header);
        fs::create_dir_all(path.parent().unwrap_or(out))?;
        fs::write(path, format!("#include {:?}\n", ours.display().to_string()))?;
    }
    Ok(())
}

/// The files of [`TORCH_EXT`] that are not Rust, sorted.
fn foreign_files() -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(TORCH_EXT)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension != "rs"));
    files.sort();
    Ok(files)
}

/// `SENET_GIT_REVISION`, for the provenance that every run records: twelve digits, with `-dirty` when [`SOURCES`]
/// differ from that commit, or `unknown` outside a git checkout.
fn note_git_revision() {
    let sources: Vec<&str> = SOURCES.into_iter().filter(|source| Path::new(source).exists()).collect();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let changes =
        git(&[&["status", "--porcelain", "--untracked-files=all", "--"], sources.as_slice()].concat());
    let revision = match (commit, changes) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => commit + "-dirty",
        (None, _) => "unknown".to_owned(),
    };
    println!("cargo::rustc-env=SENET_GIT_REVISION={revision}");

    for source in sources {
        println!("cargo::rerun-if-changed={source}");
    }
    // HEAD's log grows with every commit, checkout and reset; without a log (no commit yet), the branches. The index
    // would do too, but `git status` touches it. In a linked worktree these lie elsewhere than in .git: git knows.
    let path = |name: &str| git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
    for watched in [path("HEAD"), path("logs/HEAD").or_else(|| path("refs/heads"))].into_iter().flatten() {
        println!("cargo::rerun-if-changed={watched}");
    }
}

/// What git prints, or nothing where there is no git, no checkout or no commit yet. Without its optional locks it
/// leaves the index alone, and the user's own git commands in peace.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// An environment variable that counts only when it isn't empty; a change of it runs this script again.
fn env_var(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}
