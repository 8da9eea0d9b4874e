//! How parameters change: the optimizer and the learning rate over time.

mod schedule;
mod sgd;

pub use schedule::{Plateau, Schedule, ScheduleSpec, Timeline};
pub use sgd::{DecayExemption, Sgd, SgdSpec};
