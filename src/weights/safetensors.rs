//! safetensors: a JSON header of names, types, shapes and places, then the values.

use super::dtype::Dtype;
use super::{About, Array, Arrays};
use crate::error::{LESS_MEMORY, Result, TorchContext, failed};
use crate::printable::{line, quoted};
use safetensors::tensor::{Dtype as Stored, SafeTensors, TensorView};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use tch::{Device, Tensor};

/// The one metadata key that we write; several would be written in another order by each process.
const KEY: &str = "senet";

/// Longest header that is looked at for what a file says of itself, in bytes; the largest networks have a tenth.
const MAX_HEADER: u64 = 1 << 24;

/// What the file `path` says of itself, if it is one of ours.
///
/// # Errors
/// When it says something that this version does not know.
pub fn about(path: &Path, file: &mut impl Read) -> Result<Option<About>> {
    let mut header = || -> Option<serde_json::Value> {
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let mut header = Vec::new();
        file.take(u64::from_le_bytes(length).min(MAX_HEADER)).read_to_end(&mut header).ok()?;
        serde_json::from_slice(&header).ok()
    };
    // A file whose header cannot be read is refused where its tensors are.
    let header = header().unwrap_or_default();
    header["__metadata__"][KEY].as_str().map(|text| parse_about(path, text)).transpose()
}

/// A description must not be ignored: the network would be computed as another one.
fn parse_about(path: &Path, text: &str) -> Result<About> {
    serde_json::from_str(text).map_err(|error| {
        failed(format!(
            "{}: the description of the network in the file cannot be read: {error}",
            path.display()
        ))
        .hint("a newer version of senet may have written it; `senet --version` is this one's")
        .into()
    })
}

/// Reads a file's tensors as float32, and what it says of itself.
///
/// # Errors
/// When the file is damaged, holds more than `max_values` values, or numbers of a type that weights do not have.
pub fn read(path: &Path, bytes: &[u8], max_values: u64) -> Result<(Arrays, About)> {
    let damaged = |what: String| {
        failed(format!("{}: not a whole safetensors file: {}", path.display(), line(&what)))
            .hint("the file is cut short, damaged or of another format; fetch it again")
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    let about = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let about = about.map(|text| parse_about(path, text)).transpose()?.unwrap_or_default();
    let mut left = max_values;
    let mut arrays = Arrays::new();
    for (name, view) in tensors.iter() {
        let count = view.shape().iter().map(|&side| side as u64).product::<u64>();
        left = left.checked_sub(count).ok_or_else(|| {
            failed(format!("{} holds more than the {max_values} values that were expected", path.display()))
                .hint("the file belongs to a larger network")
        })?;
        let dtype = dtype(view.dtype()).ok_or_else(|| {
            let (name, dtype) = (quoted(name), view.dtype());
            failed(format!("{}: {name} is of type {dtype:?}, which weights do not have", path.display()))
                .hint("floats of 8 (E4M3, E5M2), 16, 32 and 64 bits, bfloat16, integers and bool are read")
        })?;
        let values = dtype.floats(view.data(), 0..count as usize);
        let shape = view.shape().iter().map(|&side| side as i64).collect();
        arrays.insert(name.to_string(), Array { shape, values });
    }
    Ok((arrays, about))
}

/// The type of numbers, if it is one that weights have.
fn dtype(stored: Stored) -> Option<Dtype> {
    Some(match stored {
        Stored::F64 => Dtype::Double,
        Stored::F32 => Dtype::Float,
        Stored::F16 => Dtype::Half,
        Stored::BF16 => Dtype::BFloat16,
        Stored::F8_E4M3 => Dtype::Float8E4M3,
        Stored::F8_E5M2 => Dtype::Float8E5M2,
        Stored::I64 => Dtype::Long,
        Stored::I32 => Dtype::Int,
        Stored::I16 => Dtype::Short,
        Stored::I8 => Dtype::Char,
        Stored::U64 => Dtype::UInt64,
        Stored::U32 => Dtype::UInt32,
        Stored::U16 => Dtype::UInt16,
        Stored::U8 => Dtype::Byte,
        Stored::BOOL => Dtype::Bool,
        _ => return None,
    })
}

/// A file of float32 tensors. The same tensors give the same bytes.
///
/// # Errors
/// When a tensor cannot be copied to the host.
pub fn write(tensors: &[(String, Tensor)], about: &About) -> Result<Vec<u8>> {
    // Values and file are in memory side by side. An allocation that fails within would end the process.
    let bytes: usize = tensors.iter().map(|(_, tensor)| 4 * tensor.numel()).sum();
    if Vec::<u8>::new().try_reserve_exact(2 * bytes).is_err() {
        let message = format!("out of memory: {} MB are needed to write the weights", 2 * bytes / 1_000_000);
        return Err(failed(message).hint(LESS_MEMORY).into());
    }
    let mut values = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let host = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous());
        let host = host.torch_context(|| format!("cannot save `{name}`"))?;
        let mut bytes = vec![0; host.numel() * 4];
        host.f_copy_data_u8(&mut bytes, host.numel()).torch_context(|| format!("cannot save `{name}`"))?;
        let shape: Vec<usize> = host.size().iter().map(|&side| side as usize).collect();
        values.push((name, shape, bytes));
    }
    let mut views = Vec::with_capacity(values.len());
    for (name, shape, bytes) in &values {
        views.push((name, TensorView::new(Stored::F32, shape.clone(), bytes)?));
    }
    let metadata = HashMap::from([(KEY.to_string(), serde_json::to_string(about)?)]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}
