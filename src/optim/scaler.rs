//! The loss scaler of float16 training (Micikevicius et al. 2018): gradients too small for float16 are lifted into its
//! range by a factor on the loss, as large as they bear.

use serde::{Deserialize, Serialize};

/// The factor, and what moves it: PyTorch's `GradScaler` with its numbers. Before an update the gradients are divided by
/// the factor; where one was not finite the update is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossScaler {
    scale: f64,
    /// Updates since the factor was changed.
    good: u64,
}

/// The factor that training begins with.
const START: f64 = 65_536.0;
/// What it is multiplied by after [`PATIENCE`] good updates.
const GROWTH: f64 = 2.0;
/// What it is multiplied by after gradients that were not finite.
const BACKOFF: f64 = 0.5;
/// Good updates before the factor grows.
const PATIENCE: u64 = 2000;
/// Below this the fault is not the factor's: the network itself has diverged.
const LEAST: f64 = 1.0 / 65_536.0;

impl Default for LossScaler {
    fn default() -> Self {
        Self { scale: START, good: 0 }
    }
}

impl LossScaler {
    /// The factor on the loss.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Moves the factor after gradients that were `finite` or not.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            *self = Self { scale: self.scale * BACKOFF, good: 0 };
        } else if self.good + 1 == PATIENCE {
            *self = Self { scale: self.scale * GROWTH, good: 0 };
        } else {
            self.good += 1;
        }
    }

    /// Whether no factor helps: gradients are infinite at the smallest.
    pub fn is_exhausted(&self) -> bool {
        self.scale < LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_halves_at_once_and_doubles_with_patience() {
        let mut scaler = LossScaler::default();
        scaler.update(false);
        scaler.update(false);
        assert_eq!(scaler.scale(), 16_384.0);
        (0..1999).for_each(|_| scaler.update(true));
        assert_eq!(scaler.scale(), 16_384.0);
        scaler.update(true);
        assert_eq!(scaler.scale(), 32_768.0);
        // What was counted before a fall counts no more.
        (0..1999).for_each(|_| scaler.update(true));
        scaler.update(false);
        (0..1999).for_each(|_| scaler.update(true));
        assert_eq!(scaler.scale(), 16_384.0);
        scaler.update(true);
        assert_eq!(scaler.scale(), 32_768.0);
    }

    #[test]
    fn a_network_that_has_diverged_is_told_from_a_factor_that_is_too_large() {
        let mut scaler = LossScaler::default();
        (0..32).for_each(|_| scaler.update(false));
        assert!(!scaler.is_exhausted(), "{}", scaler.scale());
        scaler.update(false);
        assert!(scaler.is_exhausted());
    }

    #[test]
    fn it_is_saved_exactly() {
        let mut scaler = LossScaler::default();
        scaler.update(false);
        scaler.update(true);
        let saved = serde_json::to_string(&scaler).unwrap();
        assert_eq!(serde_json::from_str::<LossScaler>(&saved).unwrap(), scaler);
    }
}
