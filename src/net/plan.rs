//! Reader 4: a built network, arranged for inference.
//!
//! Batch normalisation is folded into the convolution before it (y = γ (w·x + b - μ) / √(σ² + ε) + β is a convolution
//! again), ReLUs and residual sums are done by the convolution that makes their input, and on the CPU the weights
//! are packed once, in the layout of the operator that is the fastest. Computes what [`Net::forward`] computes in `Eval`
//! mode, up to rounding.
//!
//! NaN stays NaN in all of it. What becomes of an infinity is another matter: Winograd's transforms turn it into NaN,
//! and spread it over its tile. So that logits do not depend on the way, on the CPU a network or images that are not finite
//! are computed by libtorch's reference operators instead: whether they are costs one read of the weights for each plan
//! and of the images for each batch. So is a batch whose values overflow on the way to its logits.

use super::Conv;
use super::build::{self, ConvLayer, Layer, Mode, Net, Pass, channels_last, shake};
use super::finite::all_finite;
use crate::torch_ext::conv::{convolve, pack};
use crate::torch_ext::excite::excite_add_relu;
use crate::torch_ext::grouped;
use crate::torch_ext::norm::BatchNorm;
use crate::torch_ext::winograd;
use std::cell::{Cell, OnceCell};
use tch::{TchError, Tensor, no_grad_guard};

/// A network for inference, as its weights are now: after training steps make a new one. Some of its weights are the
/// network's own, others were folded or packed.
#[derive(Debug)]
pub struct InferencePlan<'a> {
    steps: Vec<Step<'a>>,
    net: &'a Net,
    /// Whether all tensors, and all folded ones, are finite.
    is_finite: bool,
}

#[derive(Debug)]
enum Step<'a> {
    /// A convolution with everything behind it that it can do itself.
    Conv { conv: FoldedConv, relu: bool },
    /// relu?(branch(x) + shortcut(x)), where the branch's last convolution adds the shortcut.
    Residual { branch: Vec<Step<'a>>, last: FoldedConv, shortcut: Vec<Step<'a>>, relu: bool },
    /// relu(u × gate(u) + shortcut(x)) with u = branch(x).
    Excite { branch: Vec<Step<'a>>, fc1: &'a ConvLayer, fc2: &'a ConvLayer, shortcut: Vec<Step<'a>> },
    /// Branches of one input, side by side.
    Concat(Vec<Vec<Step<'a>>>),
    /// features(x) × gate(x).
    Scale { features: Vec<Step<'a>>, gate: Vec<Step<'a>> },
    /// branch(x) + shortcut(x).
    Add { branch: Vec<Step<'a>>, shortcut: Vec<Step<'a>> },
    /// The mean of two branches.
    Shake { one: Vec<Step<'a>>, other: Vec<Step<'a>> },
    /// As in training.
    Plain(&'a Layer),
}

/// A convolution with bias.
#[derive(Debug)]
struct FoldedConv {
    conv: Conv,
    weight: Tensor,
    bias: Tensor,
    packed: Packed,
}

/// Weights as each operator wants them, made at its first use: which one is the fastest, and how oneDNN packs them,
/// depends on the size of the input.
#[derive(Debug, Default)]
struct Packed {
    winograd: OnceCell<Tensor>,
    grouped: OnceCell<Tensor>,
    onednn: OnceCell<Tensor>,
}

impl<'a> InferencePlan<'a> {
    /// Folds and arranges `net` as it is now.
    ///
    /// # Errors
    /// When the device has not enough memory for a second copy of the weights.
    pub fn new(net: &'a Net) -> Result<Self, TchError> {
        let _guard = no_grad_guard();
        let is_finite = Cell::new(true);
        for named in net.tensors() {
            note_finite(&is_finite, &named.tensor)?;
        }
        let steps = arrange(net.layers(), &is_finite)?;
        Ok(Self { steps, net, is_finite: is_finite.get() })
    }

    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`, without gradients.
    ///
    /// # Errors
    /// When libtorch refuses: out of memory, or images that do not fit the network.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let _guard = no_grad_guard();
        if images.device().is_cuda() {
            return run(&self.steps, images);
        }
        if self.is_finite && all_finite(images)? {
            let logits = run(&self.steps, images)?;
            if all_finite(&logits)? {
                return Ok(logits);
            }
        }
        build::run(self.net.layers(), images, Pass::reference(Mode::Eval))
    }
}

fn note_finite(is_finite: &Cell<bool>, tensor: &Tensor) -> Result<(), TchError> {
    is_finite.set(is_finite.get() && all_finite(tensor)?);
    Ok(())
}

fn arrange<'a>(layers: &'a [Layer], is_finite: &Cell<bool>) -> Result<Vec<Step<'a>>, TchError> {
    let mut steps = Vec::new();
    let mut rest = layers;
    while let Some((layer, after)) = rest.split_first() {
        rest = after;
        steps.push(match layer {
            Layer::Conv(conv) => match take(&mut rest, |next| matches!(next, Layer::BatchNorm { .. })) {
                Some(Layer::BatchNorm { norm, epsilon, relu }) => Step::Conv {
                    conv: FoldedConv::new(conv, Some((norm, *epsilon)), is_finite)?,
                    relu: *relu,
                },
                _ => Step::Conv { conv: FoldedConv::new(conv, None, is_finite)?, relu: take_relu(&mut rest) },
            },
            Layer::ExciteAddRelu { branch, fc1, fc2, shortcut, .. } => Step::Excite {
                branch: arrange(branch, is_finite)?,
                fc1,
                fc2,
                shortcut: arrange(shortcut, is_finite)?,
            },
            Layer::Add { branch, shortcut, .. } => {
                let (mut branch, shortcut) = (arrange(branch, is_finite)?, arrange(shortcut, is_finite)?);
                match branch.pop() {
                    Some(Step::Conv { conv: last, relu: false }) => {
                        Step::Residual { branch, last, shortcut, relu: take_relu(&mut rest) }
                    }
                    last => {
                        branch.extend(last);
                        Step::Add { branch, shortcut }
                    }
                }
            }
            Layer::Concat(branches) => Step::Concat(
                branches.iter().map(|branch| arrange(branch, is_finite)).collect::<Result<_, _>>()?,
            ),
            Layer::Scale { features, gate, .. } => {
                Step::Scale { features: arrange(features, is_finite)?, gate: arrange(gate, is_finite)? }
            }
            Layer::Shake { one, other } => {
                Step::Shake { one: arrange(one, is_finite)?, other: arrange(other, is_finite)? }
            }
            plain => Step::Plain(plain),
        });
    }
    Ok(steps)
}

/// The next layer, taken from `rest`, if it is wanted.
fn take<'a>(rest: &mut &'a [Layer], wanted: impl Fn(&Layer) -> bool) -> Option<&'a Layer> {
    let (next, after) = rest.split_first()?;
    wanted(next).then(|| {
        *rest = after;
        next
    })
}

fn take_relu(rest: &mut &[Layer]) -> bool {
    take(rest, |next| matches!(next, Layer::Relu { .. })).is_some()
}

impl FoldedConv {
    fn new(
        layer: &ConvLayer,
        norm: Option<(&BatchNorm, f64)>,
        is_finite: &Cell<bool>,
    ) -> Result<Self, TchError> {
        let ConvLayer { conv, weight, bias } = layer;
        let bias = match bias {
            Some(bias) => bias.f_detach()?,
            None => Tensor::f_zeros([conv.c_out], (weight.kind(), weight.device()))?,
        };
        let (weight, bias) = match norm {
            Some((BatchNorm { gamma, beta, mean, variance }, epsilon)) => {
                let factor = gamma.f_div(&variance.f_add_scalar(epsilon)?.f_sqrt()?)?;
                let weight = weight.f_mul(&factor.f_view([-1, 1, 1, 1])?)?;
                (weight, bias.f_sub(mean)?.f_mul(&factor)?.f_add(beta)?)
            }
            None => (weight.f_detach()?, bias),
        };
        note_finite(is_finite, &weight)?;
        note_finite(is_finite, &bias)?;
        Ok(Self { conv: *conv, weight: channels_last(&weight)?, bias, packed: Packed::default() })
    }

    /// relu?(convolution(x) + bias + other?)
    fn forward(&self, x: &Tensor, other: Option<&Tensor>, relu: bool) -> Result<Tensor, TchError> {
        if x.device().is_cuda() {
            let Conv { stride, padding, groups, .. } = self.conv;
            let strides = [stride, stride];
            let mut y = x.f_conv2d(&self.weight, Some(&self.bias), strides, padding, [1, 1], groups)?;
            if let Some(other) = other {
                y = y.f_add_(other)?;
            }
            return if relu { y.f_relu_() } else { Ok(y) };
        }
        if winograd::suits(&self.conv, x) {
            let packed = once(&self.packed.winograd, || winograd::pack(&self.weight))?;
            return winograd::convolve_packed(&self.conv, x, packed, &self.bias, other, relu);
        }
        if other.is_none() && grouped::suits(&self.conv, x) {
            let packed = once(&self.packed.grouped, || grouped::pack(&self.weight))?;
            return grouped::convolve_packed(&self.conv, x, packed, &self.bias, relu);
        }
        let (n, c, h, w) = x.size4()?;
        let packed = once(&self.packed.onednn, || pack(&self.conv, &self.weight, [n, c, h, w]))?;
        convolve(&self.conv, x, packed, &self.bias, other, relu)
    }
}

/// What the cell holds, made now if it holds nothing.
fn once(
    cell: &OnceCell<Tensor>,
    make: impl FnOnce() -> Result<Tensor, TchError>,
) -> Result<&Tensor, TchError> {
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| cell.get_or_init(|| made)),
    }
}

fn run(steps: &[Step<'_>], x: &Tensor) -> Result<Tensor, TchError> {
    let mut x = x.shallow_clone();
    for step in steps {
        x = step.forward(x)?;
    }
    Ok(x)
}

impl Step<'_> {
    fn forward(&self, x: Tensor) -> Result<Tensor, TchError> {
        match self {
            Step::Conv { conv, relu } => conv.forward(&x, None, *relu),
            Step::Residual { branch, last, shortcut, relu } => {
                last.forward(&run(branch, &x)?, Some(&run(shortcut, &x)?), *relu)
            }
            Step::Excite { branch, fc1, fc2, shortcut } => {
                let shortcut = run(shortcut, &x)?;
                excite_add_relu(&run(branch, &x)?, &shortcut, fc1.tensors(), fc2.tensors())
            }
            Step::Concat(branches) => {
                let maps: Result<Vec<Tensor>, _> = branches.iter().map(|branch| run(branch, &x)).collect();
                Tensor::f_cat(&maps?, 1)
            }
            Step::Scale { features, gate } => run(features, &x)?.f_mul(&run(gate, &x)?),
            Step::Add { branch, shortcut } => run(branch, &x)?.f_add(&run(shortcut, &x)?),
            Step::Shake { one, other } => shake(&run(one, &x)?, &run(other, &x)?, Mode::Eval),
            Step::Plain(layer) => layer.forward(x, Pass::of(Mode::Eval)),
        }
    }
}
