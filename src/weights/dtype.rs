//! Types of numbers in weights files, and how they become float32.

use half::{bf16, f16};

/// A type of numbers; what is wider than float32 is rounded to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// float64
    Double,
    /// float32
    Float,
    /// float16
    Half,
    /// bfloat16
    BFloat16,
    /// float8 with 4 bits of exponent and 3 of mantissa, without infinities (`float8_e4m3fn`)
    Float8E4M3,
    /// float8 with 5 bits of exponent and 2 of mantissa (`float8_e5m2`)
    Float8E5M2,
    /// int64
    Long,
    /// int32
    Int,
    /// int16
    Short,
    /// int8
    Char,
    /// uint64
    UInt64,
    /// uint32
    UInt32,
    /// uint16
    UInt16,
    /// uint8
    Byte,
    /// bool, a byte each
    Bool,
}

impl Dtype {
    /// Bytes of one value.
    pub fn width(self) -> usize {
        match self {
            Self::Double | Self::Long | Self::UInt64 => 8,
            Self::Float | Self::Int | Self::UInt32 => 4,
            Self::Half | Self::BFloat16 | Self::Short | Self::UInt16 => 2,
            Self::Float8E4M3 | Self::Float8E5M2 | Self::Char | Self::Byte | Self::Bool => 1,
        }
    }

    /// PyTorch's name of it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "float64" | "double" => Self::Double,
            "float32" | "float" => Self::Float,
            "float16" | "half" => Self::Half,
            "bfloat16" => Self::BFloat16,
            "float8_e4m3fn" => Self::Float8E4M3,
            "float8_e5m2" => Self::Float8E5M2,
            "int64" | "long" => Self::Long,
            "int32" | "int" => Self::Int,
            "int16" | "short" => Self::Short,
            "int8" => Self::Char,
            "uint64" => Self::UInt64,
            "uint32" => Self::UInt32,
            "uint16" => Self::UInt16,
            "uint8" => Self::Byte,
            "bool" => Self::Bool,
            _ => return None,
        })
    }

    /// The values at `places` (counted in values) of `bytes`, little-endian.
    ///
    /// # Panics
    /// When a place lies outside.
    pub fn floats(self, bytes: &[u8], places: impl Iterator<Item = usize>) -> Vec<f32> {
        fn each<const WIDTH: usize>(
            bytes: &[u8],
            places: impl Iterator<Item = usize>,
            value: impl Fn([u8; WIDTH]) -> f32,
        ) -> Vec<f32> {
            let (stored, _) = bytes.as_chunks::<WIDTH>();
            places.map(|place| value(stored[place])).collect()
        }
        match self {
            Self::Double => each(bytes, places, |b| f64::from_le_bytes(b) as f32),
            Self::Float => each(bytes, places, f32::from_le_bytes),
            Self::Half => each(bytes, places, |b| f16::from_le_bytes(b).to_f32()),
            Self::BFloat16 => each(bytes, places, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Float8E4M3 => each(bytes, places, |[b]| e4m3(b)),
            // The upper half of a float16.
            Self::Float8E5M2 => each(bytes, places, |[b]| f16::from_le_bytes([0, b]).to_f32()),
            Self::Long => each(bytes, places, |b| i64::from_le_bytes(b) as f32),
            Self::Int => each(bytes, places, |b| i32::from_le_bytes(b) as f32),
            Self::Short => each(bytes, places, |b| i16::from_le_bytes(b).into()),
            Self::Char => each(bytes, places, |b| i8::from_le_bytes(b).into()),
            Self::UInt64 => each(bytes, places, |b| u64::from_le_bytes(b) as f32),
            Self::UInt32 => each(bytes, places, |b| u32::from_le_bytes(b) as f32),
            Self::UInt16 => each(bytes, places, |b| u16::from_le_bytes(b).into()),
            Self::Byte => each(bytes, places, |[b]| b.into()),
            Self::Bool => each(bytes, places, |[b]| f32::from(u8::from(b != 0))),
        }
    }
}

/// A bias of 7, subnormals, and all ones for NaN ("FP8 Formats for Deep Learning", Micikevicius et al. 2022).
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float8_has_the_values_of_its_definition() {
        let floats = |dtype: Dtype, bytes: &[u8]| dtype.floats(bytes, 0..bytes.len());
        // Zero, smallest subnormal, largest subnormal, smallest normal, one, -1.125, largest.
        let e4m3 = floats(Dtype::Float8E4M3, &[0, 1, 7, 8, 0x38, 0xb9, 0x7e]);
        assert_eq!(e4m3, [0.0, 2f32.powi(-9), 7.0 * 2f32.powi(-9), 2f32.powi(-6), 1.0, -1.125, 448.0]);
        let e5m2 = floats(Dtype::Float8E5M2, &[0, 1, 4, 0x3c, 0xbd, 0x7b, 0x7c]);
        assert_eq!(e5m2, [0.0, 2f32.powi(-16), 2f32.powi(-14), 1.0, -1.25, 57344.0, f32::INFINITY]);
        assert!(floats(Dtype::Float8E4M3, &[0x7f, 0xff]).iter().all(|value| value.is_nan()));
        assert!(floats(Dtype::Float8E5M2, &[0x7d]).iter().all(|value| value.is_nan()));
    }
}
