//! A run on disk: its folder, its checkpoints, where it came from.

pub mod checkpoint;
mod dir;
mod history;
mod identity;
mod lab;
pub mod location;
mod lock;
mod provenance;
mod sealed;
mod tensorboard;

pub use dir::{Checkpoint, RunDir};
pub use history::History;
pub use lab::{LabDir, Lock};
pub use lock::RunLock;
pub use provenance::{Provenance, timestamp};
pub use tensorboard::{EventFile, LogSpec};
