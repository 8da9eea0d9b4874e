//! First convolutions for images of another number of channels.

use super::{Array, Weights};
use crate::net::build::Net;

impl Weights {
    /// Converts the first convolution to the channels of `net`'s, as timm does: the kernels of three channels are summed
    /// to one, that of one channel is repeated with a third of its values. So an image of three equal channels gives what
    /// its single channel gives. Returns what was done.
    pub fn convert_channels(&mut self, net: &Net) -> Option<String> {
        let first = &net.tensors().first()?.param;
        let array = self.arrays.get_mut(&first.name)?;
        let (given, wanted) = (*array.shape.get(1)?, *first.shape.get(1)?);
        let is_convertible = matches!((given, wanted), (1, 3) | (3, 1))
            && (array.shape.len(), array.shape[0], &array.shape[2..])
                == (4, first.shape[0], &first.shape[2..]);
        if !is_convertible {
            return None;
        }
        *array = converted(array, wanted);
        let how = if wanted == 1 { "its sum over the channels" } else { "a third of it for each channel" };
        Some(format!(
            "{}: `{}` is for images of {given} channel(s), and those here have {wanted}: {how} is used",
            self.path.display(),
            first.name
        ))
    }
}

/// A kernel `[C_out, C_in, H, W]` for one channel instead of three, or three instead of one.
fn converted(Array { shape, values }: &Array, wanted: i64) -> Array {
    let plane = (shape[2] * shape[3]) as usize;
    let values = match wanted {
        1 => values
            .chunks(3 * plane)
            .flat_map(|kernel| (0..plane).map(|at| kernel[at] + kernel[plane + at] + kernel[2 * plane + at]))
            .collect(),
        _ => values
            .chunks(plane)
            .flat_map(|kernel| [kernel; 3].into_iter().flatten().map(|value| value / 3.0))
            .collect(),
    };
    Array { shape: vec![shape[0], wanted, shape[2], shape[3]], values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_channels_are_summed_and_one_is_shared_out() {
        let rgb = Array { shape: vec![2, 3, 1, 2], values: (0..12).map(|value| value as f32).collect() };
        let gray = converted(&rgb, 1);
        assert_eq!(
            (gray.shape.as_slice(), gray.values.as_slice()),
            ([2, 1, 1, 2].as_slice(), [6., 9., 24., 27.].as_slice())
        );
        let back = converted(&gray, 3);
        assert_eq!(back.shape, [2, 3, 1, 2]);
        assert_eq!(back.values, [2., 3., 2., 3., 2., 3., 8., 9., 8., 9., 8., 9.]);
    }
}
