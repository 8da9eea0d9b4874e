//! What this program runs on, and what is missing.

use crate::data::{DataSpec, Split};
use crate::torch_ext;
use serde::Serialize;
use std::path::Path;
use tch::Cuda;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// Whether it is as it should be; a missing GPU is.
    pub good: bool,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub hint: Option<String>,
}

/// Looks at everything. `large_blocks_kept` is what `keep_large_blocks` answered at start.
pub fn examine(large_blocks_kept: bool) -> Vec<Finding> {
    vec![program(), libtorch(), gpu(), threads(), memory(large_blocks_kept), default_data()]
}

fn good(subject: &'static str, found: String) -> Finding {
    Finding { subject, good: true, found, hint: None }
}

fn program() -> Finding {
    good("senet", format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("SENET_GIT_REVISION")))
}

fn libtorch() -> Finding {
    let build = if torch_ext::cuda_linked() { "with CUDA" } else { "CPU build" };
    let place = torch_ext::library_path().unwrap_or_else(|| "place unknown".to_string());
    good(
        "libtorch",
        format!("{}, {build}, {} ({place})", torch_ext::torch_version(), torch_ext::cpu_capability()),
    )
}

fn gpu() -> Finding {
    let count = Cuda::device_count();
    if count > 0 {
        return good("GPU", format!("{count} CUDA device(s); `device` auto uses cuda:0"));
    }
    let driver = Path::new("/proc/driver/nvidia/version").exists();
    let (why, hint) = match (torch_ext::cuda_linked(), driver) {
        (false, true) => (
            "none used: this program was built with a CPU libtorch, but an NVIDIA driver is here",
            Some("`SENET_LIBTORCH=cuda make setup build` builds it with CUDA"),
        ),
        (false, false) => ("none: no NVIDIA driver is here, and this libtorch is the CPU build", None),
        (true, false) => {
            ("none: no NVIDIA driver is here", Some("install the driver; `nvidia-smi` must list the GPU"))
        }
        (true, true) => (
            "none: CUDA found no device although a driver is here",
            Some("`nvidia-smi` must list the GPU; look at CUDA_VISIBLE_DEVICES and the driver's version"),
        ),
    };
    Finding { subject: "GPU", good: hint.is_none(), found: why.to_string(), hint: hint.map(str::to_string) }
}

fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{} for an operation, {cores} for loading ({cores} cores)", tch::get_num_threads());
    good("threads", found)
}

fn memory(large_blocks_kept: bool) -> Finding {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let huge = setting.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("unknown");
    let kept = if large_blocks_kept { "large blocks are kept" } else { "large blocks are given back" };
    let hint = (huge == "never").then(|| {
        "huge pages are off: `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` as root".to_string()
    });
    Finding { subject: "memory", good: hint.is_none(), found: format!("{kept}; huge pages: {huge}"), hint }
}

fn default_data() -> Finding {
    let spec = DataSpec::default();
    let place = spec.dir.display();
    match spec.open(Split::Train, 0).and_then(|train| Ok((train.len(), spec.open(Split::Eval, 0)?.len()))) {
        Ok((train, eval)) => good("default data", format!("{place}: {train} + {eval} images")),
        Err(error) => Finding {
            subject: "default data",
            good: false,
            found: format!("{error:#}"),
            hint: Some("`make data` fetches Fashion-MNIST".to_string()),
        },
    }
}
