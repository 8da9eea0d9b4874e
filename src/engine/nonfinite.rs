//! Logits that are NaN or infinite: of which images. Such an image has no prediction, and its evaluation no result.

use crate::error::{Problem, Result, TorchContext, failed};
use tch::{Device, Kind, TchError, Tensor};

/// What helps where weights are finite and logits are not.
pub const HINT: &str = "a layer's output overflows: were weights, mean and standard deviation meant for each other, and did the \
                        training diverge?";

/// Samples of an evaluation with their batches' verdicts, which stay on the device until the end.
#[derive(Debug, Default)]
pub struct LogitsCheck {
    samples: Vec<usize>,
    /// bool `[N]` for each batch: whether all logits of the sample are finite.
    finite: Vec<Tensor>,
}

impl LogitsCheck {
    /// Checks the logits `[N, outputs]` of `samples`. Does not wait for the device.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn add(&mut self, samples: &[usize], logits: &Tensor) -> Result<(), TchError> {
        self.samples.extend_from_slice(samples);
        self.finite.push(logits.f_isfinite()?.f_all_dim(1, false)?);
        Ok(())
    }

    /// Returns the samples whose logits are not finite.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn failed(self) -> Result<Vec<usize>> {
        if self.finite.is_empty() {
            return Ok(Vec::new());
        }
        // sync: waits for the last batch.
        let read = || -> Result<Vec<bool>, TchError> {
            let finite = Tensor::f_cat(&self.finite, 0)?.f_to_kind(Kind::Bool)?;
            Vec::try_from(finite.f_to_device(Device::Cpu)?)
        };
        let finite = read().torch_context(|| "cannot check the logits".to_string())?;
        let failed = self.samples.into_iter().zip(finite).filter(|(_, finite)| !finite);
        Ok(failed.map(|(sample, _)| sample).collect())
    }
}

/// What is wrong where the logits of `count` images of `total` are not finite, `first` before the others.
pub fn message(count: u64, total: u64, first: &str) -> String {
    let which = if count == 1 { "it is" } else { "the first is" };
    format!("the logits of {count} of {total} images are NaN or infinite; {which} {first}")
}

/// The same as an error of a trained network, whose weights are finite.
pub fn problem(count: u64, total: u64, first: &str) -> Problem {
    failed(message(count, total, first)).hint(HINT)
}
