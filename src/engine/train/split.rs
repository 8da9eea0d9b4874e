//! Where the time of training goes.

use serde::Serialize;
use std::time::Instant;
use tch::{Cuda, Device};

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Waiting for a batch, making floats of it and mixing them.
    Data,
    /// The network and the loss.
    Forward,
    /// Their gradients.
    Backward,
    /// Clipping, the optimizer and the moving average.
    Optimizer,
    /// Counting, looking whether loss and gradients are finite (and dividing these by a loss scaler's factor), telling and
    /// saving.
    Rest,
}

impl Part {
    /// In the order of a step.
    pub const ALL: [Self; 5] = [Self::Data, Self::Forward, Self::Backward, Self::Optimizer, Self::Rest];

    /// In a word, as [`Seconds`] has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Optimizer => "optimizer",
            Self::Rest => "rest",
        }
    }
}

/// Seconds by what they were spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Waiting for batches and making floats of them.
    pub data: f64,
    /// The network and the loss.
    pub forward: f64,
    /// Their gradients.
    pub backward: f64,
    /// Clipping, the optimizer and the moving average.
    pub optimizer: f64,
    /// Everything else.
    pub rest: f64,
}

impl Seconds {
    /// All together.
    pub fn total(&self) -> f64 {
        Part::ALL.into_iter().map(|part| self.of(part)).sum()
    }

    /// Those of one part.
    pub fn of(mut self, part: Part) -> f64 {
        *self.part(part)
    }

    /// Share of the time that the network did not get.
    pub fn outside(&self) -> f64 {
        (self.data + self.rest) / self.total()
    }

    fn part(&mut self, part: Part) -> &mut f64 {
        match part {
            Part::Data => &mut self.data,
            Part::Forward => &mut self.forward,
            Part::Backward => &mut self.backward,
            Part::Optimizer => &mut self.optimizer,
            Part::Rest => &mut self.rest,
        }
    }
}

/// A stopwatch with a hand for each part.
#[derive(Debug)]
pub struct Split {
    since: Instant,
    seconds: Seconds,
    /// A GPU that is waited for at each lap; without, what it was only asked for takes no time here.
    waits_for: Option<usize>,
}

impl Split {
    /// Runs from now on, and never waits.
    pub fn start() -> Self {
        Self { since: Instant::now(), seconds: Seconds::default(), waits_for: None }
    }

    /// The same for measurements: `device` is waited for at each lap.
    pub fn waiting_for(device: Device) -> Self {
        let waits_for = if let Device::Cuda(index) = device { Some(index) } else { None };
        Self { waits_for, ..Self::start() }
    }

    /// The time since the last lap was `part`'s.
    pub fn lap(&mut self, part: Part) {
        if let Some(index) = self.waits_for {
            // sync: only in measurements.
            Cuda::synchronize(index as i64);
        }
        let now = Instant::now();
        *self.seconds.part(part) += (now - self.since).as_secs_f64();
        self.since = now;
    }

    /// What there is, and all hands at 0 again.
    pub fn take(&mut self) -> Seconds {
        std::mem::take(&mut self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_time_is_somebodys() {
        let mut split = Split::start();
        split.lap(Part::Data);
        std::thread::sleep(std::time::Duration::from_millis(2));
        split.lap(Part::Forward);
        let seconds = split.take();
        assert!(seconds.forward >= 0.002 && seconds.data < seconds.forward);
        assert_eq!(seconds.total(), seconds.data + seconds.forward);
        assert_eq!(split.take(), Seconds::default());
    }

    #[test]
    fn what_is_outside_is_neither_network_nor_optimizer() {
        let seconds = Seconds { data: 1.0, forward: 30.0, backward: 60.0, optimizer: 8.0, rest: 1.0 };
        assert_eq!(seconds.outside(), 0.02);
    }
}
