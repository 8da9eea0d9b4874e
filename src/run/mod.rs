//! A run on disk: its folder, its checkpoints, where it came from.

pub mod checkpoint;
mod dir;
mod lab;
mod provenance;

pub use dir::{Checkpoint, RunDir};
pub use lab::{LabDir, Lock};
pub use provenance::{Provenance, timestamp};
