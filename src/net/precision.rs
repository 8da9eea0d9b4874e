//! In which number format a network computes while it is trained.

use crate::error::Result;
use crate::torch_ext::precision::{Autocast, Half, allow_tf32};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, TchError};

/// The format. Weights, statistics, gradients and the optimizer's memory are float32 in all of them, and so is every
/// evaluation, but that of a `tf32` run while it goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    Fp32,
    /// float32 whose convolutions and matrix products round their inputs to 10 bits of mantissa, on GPUs that can. On a
    /// CPU it is float32.
    Tf32,
    /// Convolutions and matrix products in bfloat16.
    Bf16,
    /// The same in float16, with a loss scaler.
    Fp16,
}

impl Precision {
    /// Sets what holds for the whole process: whether float32 is rounded (libtorch, left to itself, rounds in cuDNN's
    /// convolutions), and that cuDNN times its kernels for each shape that it meets first and keeps the fastest. Shapes
    /// repeat in training and in evaluation.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn prepare(self) -> Result<()> {
        tch::Cuda::cudnn_set_benchmark(true);
        allow_tf32(self == Precision::Tf32)
    }

    /// The format of the forward passes until what is returned is dropped.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn enter(self, device: Device) -> Result<Option<Autocast>, TchError> {
        match self {
            Precision::Fp32 | Precision::Tf32 => Ok(None),
            Precision::Bf16 => Autocast::enter(device, Half::BFloat16).map(Some),
            Precision::Fp16 => Autocast::enter(device, Half::Float16).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelSpec;
    use crate::net::build::{Mode, Net};
    use tch::{Kind, Tensor};

    /// Logits, and the gradients of the classifier and of the first convolution.
    fn step(precision: Precision) -> (Tensor, [Tensor; 2]) {
        let node = ModelSpec::named("se-resnet-20").describe(3, 10).unwrap();
        let net = Net::build(&node, 0, Device::Cpu).unwrap();
        let waves: Vec<f32> = (0..4 * 3 * 16 * 16).map(|at| (at as f32 * 0.37).sin()).collect();
        let images = Tensor::from_slice(&waves).view([4, 3, 16, 16]);
        let autocast = precision.enter(Device::Cpu).unwrap();
        let logits = net.forward(&images, Mode::Train).unwrap();
        drop(autocast);
        logits.to_kind(Kind::Float).square().mean(Kind::Float).backward();
        let gradient =
            |name: &str| net.trainable().find(|named| named.param.name == name).unwrap().tensor.grad();
        (logits.detach(), ["fc.weight", "conv1.weight"].map(gradient))
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let norm = |t: Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
        norm(a.to_kind(Kind::Float) - b) / norm(b.shallow_clone())
    }

    #[test]
    fn bfloat16_computes_about_the_same_in_fewer_bits() {
        let (exact, exact_gradients) = step(Precision::Fp32);
        let (rough, rough_gradients) = step(Precision::Bf16);
        assert_eq!((exact.kind(), rough.kind()), (Kind::Float, Kind::BFloat16));
        let of_logits = distance(&rough, &exact);
        assert!(of_logits > 0.0 && of_logits < 0.05, "{of_logits}");
        assert!(rough_gradients.iter().all(|gradient| gradient.kind() == Kind::Float));
        // Twenty layers of eight bits lie between the logits and the first convolution.
        let [last, first] = [0, 1].map(|at| distance(&rough_gradients[at], &exact_gradients[at]));
        assert!(last < 0.05 && first < 0.5, "{last}, {first}");
        // Nothing is left behind.
        assert_eq!(step(Precision::Fp32).0, exact);
    }
}
