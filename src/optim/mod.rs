//! How parameters change: the optimizer and the learning rate over time, and what stands before and behind them.

mod clip;
mod ema;
mod optimizer;
mod scaler;
mod schedule;
mod spec;

pub use clip::ClipSpec;
pub use ema::{Ema, EmaSpec};
pub use optimizer::Optimizer;
pub use scaler::LossScaler;
pub use schedule::{Part, Plateau, Schedule, ScheduleSpec, Shape, Timeline};
pub use spec::{DecayExemption, OptimSpec, Rule};
