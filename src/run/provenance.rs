//! Where a run's numbers came from.

use crate::escaped::shown;
use crate::torch_ext;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use tch::Device;

/// What else, beside the configuration, decides what a run computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this program.
    pub senet: String,
    /// Git revision that it was built from; `-dirty` where the tree had changes.
    pub revision: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Where it computes.
    pub device: String,
    /// Vector instructions that libtorch uses on the CPU.
    pub cpu_capability: String,
    /// Threads of one operation on the CPU.
    pub threads: i32,
    /// Processes that work together; runs of older versions do not say, and had one.
    #[serde(default = "one")]
    pub world_size: usize,
    /// Command line.
    pub command: Vec<String>,
    /// Start, UTC.
    pub started: String,
}

impl Provenance {
    /// Of this process, which is one of `world_size`.
    pub fn here(device: Device, world_size: usize) -> Self {
        Self {
            senet: env!("CARGO_PKG_VERSION").to_string(),
            revision: env!("SENET_GIT_REVISION").to_string(),
            libtorch: torch_ext::torch_version(),
            device: format!("{device:?}").to_lowercase(),
            cpu_capability: torch_ext::cpu_capability(),
            threads: tch::get_num_threads(),
            world_size,
            command: std::env::args_os().map(|word| shown(word.as_ref())).collect(),
            started: timestamp(),
        }
    }
}

fn one() -> usize {
    1
}

/// Now, as `2026-11-24T03:10:00Z`.
pub fn timestamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
