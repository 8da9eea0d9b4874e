//! Reader 2 of a [`Node`]: shapes, parameters and multiply-adds, without allocating the network.

use super::params::{Role, params};
use super::{Node, Op};
use crate::error::{Result, usage};
use serde::Serialize;
use std::fmt;

/// The shape of one sample's features: channels, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// C.
    pub channels: i64,
    /// H.
    pub height: i64,
    /// W.
    pub width: i64,
}

impl Shape {
    /// A square map.
    pub fn square(channels: i64, size: i64) -> Self {
        Self { channels, height: size, width: size }
    }
}

impl Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.channels, self.height, self.width].serialize(serializer)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} × {}", self.channels, self.height, self.width)
    }
}

/// Numbers of tensor values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ParamCount {
    /// What the optimizer changes.
    pub trainable: i64,
    /// Running means and variances of batch normalisation.
    pub bn_statistics: i64,
}

impl ParamCount {
    /// All values.
    pub fn values(&self) -> u64 {
        (self.trainable + self.bn_statistics) as u64
    }
}

/// One row of a network's summary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Name of the part.
    pub name: String,
    /// Shape of its output.
    pub output: Shape,
    /// Its tensors.
    pub params: ParamCount,
    /// Its multiply-adds for one sample.
    pub macs: i64,
}

/// What one sample costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// All tensors.
    pub params: ParamCount,
    /// Multiply-adds of convolutions and fully connected layers, those of SE included. Pooling, batch norm,
    /// activations, scaling and sums are not counted, as in the paper's figures.
    pub macs: i64,
    /// The named parts of the top level, in order.
    pub stages: Vec<Stage>,
}

/// Counts `root` for one sample of shape `input`.
///
/// # Errors
/// When `input` is too small for a window, or its channels do not fit.
pub fn cost(root: &Node, input: Shape) -> Result<Cost> {
    let parts = match &root.op {
        Op::Seq(parts) => parts.as_slice(),
        _ => std::slice::from_ref(root),
    };
    let mut stages: Vec<Stage> = Vec::new();
    let mut shape = input;
    for part in parts {
        let (output, macs) = trace(part, shape)?;
        let params = count(part);
        let continues = part.name.is_empty() || matches!(part.op, Op::BatchNorm { .. });
        match stages.last_mut() {
            // Normalisation and activation belong to the row of what they follow.
            Some(last) if continues => {
                last.output = output;
                last.macs += macs;
                last.params.trainable += params.trainable;
                last.params.bn_statistics += params.bn_statistics;
            }
            _ => stages.push(Stage { name: part.name.clone(), output, params, macs }),
        }
        shape = output;
    }
    Ok(Cost { params: count(root), macs: stages.iter().map(|stage| stage.macs).sum(), stages })
}

/// Counts the tensors of `root`.
pub fn count(root: &Node) -> ParamCount {
    let mut total = ParamCount::default();
    for param in params(root) {
        match param.role {
            Role::Statistic => total.bn_statistics += param.count(),
            _ => total.trainable += param.count(),
        }
    }
    total
}

/// Output shape and multiply-adds of `node` on an input of shape `x`.
fn trace(node: &Node, x: Shape) -> Result<(Shape, i64)> {
    let sized = |channels: i64, height: i64, width: i64| -> Result<Shape> {
        let shape = Shape { channels, height, width };
        if shape.height < 1 || shape.width < 1 {
            let message = format!("the input is too small: nothing is left of {x} at `{}`", node.name);
            return Err(usage(message)
                .hint("use a larger `data.size` (`--size` of `eval`, `summary` and `bench`)")
                .into());
        }
        Ok(shape)
    };
    let expect = |channels: i64| {
        assert_eq!(x.channels, channels, "the description of `{}` does not fit its input {x}", node.name);
    };
    Ok(match &node.op {
        Op::Conv(conv) => {
            expect(conv.c_in);
            let [height, width] = [(x.height, 0), (x.width, 1)].map(|(size, axis)| {
                (size + 2 * conv.padding[axis] - conv.kernel[axis]).div_euclid(conv.stride) + 1
            });
            let y = sized(conv.c_out, height, width)?;
            let per_output = conv.kernel[0] * conv.kernel[1] * conv.c_in / conv.groups;
            (y, per_output * y.channels * y.height * y.width)
        }
        Op::MaxPool(pool) | Op::AvgPool { pool, .. } => {
            (sized(x.channels, pool.windows(x.height), pool.windows(x.width))?, 0)
        }
        Op::AdaptiveAvgPool { size } => (Shape { height: *size, width: *size, ..x }, 0),
        Op::GlobalAvgPool | Op::GlobalMaxPool => (Shape { height: 1, width: 1, ..x }, 0),
        Op::Flatten => (Shape { channels: x.channels * x.height * x.width, height: 1, width: 1 }, 0),
        Op::Linear { inputs, outputs } => {
            assert_eq!((x.height, x.width), (1, 1), "`{}` takes a vector", node.name);
            if x.channels != *inputs {
                let message = format!(
                    "`{}` takes {inputs} values, but an input of this size leaves {} to it",
                    node.name, x.channels
                );
                return Err(usage(message).hint("this network takes images of one size only").into());
            }
            (Shape { channels: *outputs, height: 1, width: 1 }, inputs * outputs)
        }
        Op::Subsample { stride, c_in, c_out, .. } => {
            expect(*c_in);
            let [height, width] = [x.height, x.width].map(|size| (size - 1) / stride + 1);
            (sized(*c_out, height, width)?, 0)
        }
        Op::BatchNorm { channels, .. } => {
            expect(*channels);
            (x, 0)
        }
        Op::Shuffle { groups } => {
            assert_eq!(x.channels % groups, 0, "the channels of {x} are no {groups} equal groups");
            (x, 0)
        }
        Op::Relu | Op::Relu6 | Op::Sigmoid | Op::Tanh | Op::Dropout { .. } | Op::Times(_) | Op::Identity => {
            (x, 0)
        }
        Op::Seq(parts) => {
            let mut shape = x;
            let mut total = 0;
            for part in parts {
                let (output, macs) = trace(part, shape)?;
                shape = output;
                total += macs;
            }
            (shape, total)
        }
        Op::Concat(branches) => {
            let mut joined: Option<Shape> = None;
            let mut total = 0;
            for branch in branches {
                let (y, macs) = trace(branch, x)?;
                let channels = joined.map_or(0, |joined| {
                    let size = |map: Shape| (map.height, map.width);
                    assert_eq!(size(joined), size(y), "the branches of a concatenation have one size");
                    joined.channels
                });
                joined = Some(Shape { channels: channels + y.channels, ..y });
                total += macs;
            }
            (joined.expect("a concatenation has branches"), total)
        }
        Op::Add { branch: a, shortcut: b, .. } | Op::Shake { one: a, other: b } => {
            let ((output, first), (other, second)) = (trace(a, x)?, trace(b, x)?);
            assert_eq!(output, other, "the branches of a sum have one shape");
            (output, first + second)
        }
        Op::Scale { features, gate } => {
            let ((output, first), (gate, second)) = (trace(features, x)?, trace(gate, x)?);
            assert_eq!(output.channels, gate.channels, "a gate has its features' channels");
            (output, first + second)
        }
    })
}

impl super::Pool {
    /// Number of windows along `size` pixels, by PyTorch's (and Caffe's) rule.
    pub fn windows(&self, size: i64) -> i64 {
        let room = size + 2 * self.padding - self.kernel;
        let windows = if self.ceil { room + self.stride - 1 } else { room }.div_euclid(self.stride) + 1;
        // A last window must start inside the input or its near border.
        let starts_outside = self.ceil && (windows - 1) * self.stride >= size + self.padding;
        if starts_outside { windows - 1 } else { windows }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{flatten, linear, seq};
    use super::*;

    #[test]
    fn a_classifier_for_one_size_refuses_others() {
        let net = seq("", [flatten(), linear("fc", 3 * 7 * 7, 10)]);
        assert_eq!(cost(&net, Shape::square(3, 7)).unwrap().macs, 1470);
        let text = cost(&net, Shape::square(3, 8)).unwrap_err().to_string();
        assert!(text.contains("`fc` takes 147 values, but an input of this size leaves 192"), "{text}");
    }
}
