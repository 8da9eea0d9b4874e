//! Where a computation went wrong: the first layer whose output is not finite.

use super::build::{ConvLayer, Layer, Mode, Net, Pass, run};
use std::cell::RefCell;
use std::collections::HashMap;
use tch::{Kind, TchError, Tensor, no_grad};

impl Net {
    /// Computes as [`Net::forward`] does, without gradients, and says which layer's output was the first with an
    /// infinity or a NaN in it: by the name of its parameters, or as what comes after such a layer. A network in
    /// [`Mode::Train`] moves its statistics as ever.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn first_not_finite(&self, images: &Tensor, mode: Mode) -> Result<Option<String>, TchError> {
        let log = FiniteLog::of(self);
        let _logits = no_grad(|| run(self.layers(), images, Pass::looking(mode, &log)))?;
        Ok(log.first.into_inner())
    }
}

/// Looks at outputs until one is not finite.
pub(super) struct FiniteLog {
    /// Names of layers by the address of their weights.
    names: HashMap<usize, String>,
    /// The last layer with a name that was looked at.
    last: RefCell<String>,
    first: RefCell<Option<String>>,
}

impl FiniteLog {
    fn of(net: &Net) -> Self {
        let named = net.tensors().iter().filter_map(|named| {
            let layer = named.param.name.strip_suffix(".weight")?;
            Some((address(&named.tensor), layer.to_string()))
        });
        Self {
            names: named.collect(),
            last: RefCell::new("the images".to_string()),
            first: RefCell::new(None),
        }
    }

    /// Takes note of `layer` and its output.
    pub(super) fn look(&self, layer: &Layer, output: &Tensor) -> Result<(), TchError> {
        if self.first.borrow().is_some() {
            return Ok(());
        }
        let weight = match layer {
            Layer::Conv(ConvLayer { weight, .. }) | Layer::Linear { weight, .. } => Some(weight),
            Layer::BatchNorm { norm, .. } => Some(&norm.gamma),
            _ => None,
        };
        let own_name = weight.and_then(|weight| self.names.get(&address(weight)));
        if let Some(name) = own_name {
            self.last.replace(name.clone());
        }
        if !all_finite(output)? {
            let last = self.last.borrow();
            let name = own_name.map_or_else(|| format!("{} after {last}", what(layer)), String::clone);
            self.first.replace(Some(name));
        }
        Ok(())
    }
}

fn address(tensor: &Tensor) -> usize {
    tensor.data_ptr() as usize
}

/// Whether no value is an infinity or a NaN.
pub(super) fn all_finite(values: &Tensor) -> Result<bool, TchError> {
    let finite = values.f_isfinite()?.f_all()?;
    Ok(finite.f_to_kind(Kind::Int64)?.f_int64_value(&[])? != 0)
}

/// A layer without parameters, in words.
fn what(layer: &Layer) -> &'static str {
    match layer {
        Layer::Conv(_) => "the convolution",
        Layer::BatchNorm { .. } => "the batch normalisation",
        Layer::Linear { .. } => "the classifier",
        Layer::Relu { .. } | Layer::Relu6 => "the ReLU",
        Layer::Sigmoid => "the sigmoid",
        Layer::Tanh => "the tanh",
        Layer::MaxPool(_)
        | Layer::AvgPool { .. }
        | Layer::AdaptiveAvgPool { .. }
        | Layer::GlobalAvgPool
        | Layer::GlobalMaxPool => "the pool",
        Layer::Flatten | Layer::Subsample { .. } | Layer::Shuffle { .. } | Layer::Dropout { .. } => {
            "what comes"
        }
        Layer::Times(_) | Layer::Scale { .. } => "the scale",
        Layer::Concat(_) => "the concatenation",
        Layer::Shake { .. } | Layer::Add { .. } => "the sum",
        Layer::ExciteAddRelu { .. } => "the SE block and the sum",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelSpec;
    use crate::net::build::overwrite;
    use tch::Device;

    fn spoilt(name: &str) -> Option<String> {
        let node = ModelSpec::named("se-resnet-20").describe(1, 10).unwrap();
        let net = Net::build(&node, 0, Device::Cpu).unwrap();
        if let Some(named) = net.tensors().iter().find(|named| named.param.name == name) {
            overwrite(&named.tensor, &named.tensor.full_like(f64::NAN)).unwrap();
        }
        let images = Tensor::rand([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        net.first_not_finite(&images, Mode::Train).unwrap()
    }

    #[test]
    fn the_first_bad_layer_is_named() {
        assert_eq!(spoilt("nothing"), None);
        assert_eq!(spoilt("conv1.weight").unwrap(), "conv1");
        assert_eq!(spoilt("layer2.1.bn1.bias").unwrap(), "layer2.1.bn1");
        assert_eq!(spoilt("fc.weight").unwrap(), "fc");
        let se = spoilt("layer1.0.se.fc2.weight").unwrap();
        assert_eq!(se, "the SE block and the sum after layer1.0.bn2");
    }
}
