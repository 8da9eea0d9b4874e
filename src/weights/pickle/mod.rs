//! PyTorch's state dicts, as `torch.save` writes them (.pth, .pt, .bin): a zip of a pickle that describes the
//! tensors and of one plain member for each storage.
//!
//! A pickle is a program, and a foreign one: nothing of it is ever run.

mod archive;
mod machine;

use super::{Array, Arrays, printable};
use crate::error::{Problem, Result, failed};
use archive::Archive;
use half::{bf16, f16};
use machine::{Dtype, Machine, Tensor, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Where training scripts keep the weights inside a checkpoint, in order of preference.
const NESTED: [&str; 5] = ["state_dict", "model", "net", "weights", "module"];

/// More dimensions than any weights have.
const MAX_DIMENSIONS: usize = 8;

/// Reads the tensors of a state dict, converted to float32.
///
/// The state dict is the pickled dict itself or, in a training checkpoint, the first of its entries
/// `state_dict`, `model`, `net`, `weights` and `module` that is a dict with tensors. Entries that are no
/// tensors are passed over. The prefix `module.` of `DataParallel` is dropped if every name has it.
///
/// `path` only names the file in errors. `max_values` bounds the values of all tensors together; a storage
/// that several tensors share counts for each.
///
/// # Errors
/// When `bytes` are no such archive (the formats of TorchScript and of PyTorch before 1.6 are told apart),
/// are damaged, call anything but what tensors need, or hold no tensors or too many values.
pub fn read(path: &Path, bytes: &[u8], max_values: u64) -> Result<Arrays> {
    state_dict(bytes, max_values).map_err(|mut problem| {
        problem.message = format!("{}: {}", path.display(), problem.message);
        let hint = "the file is damaged or no state dict of PyTorch; fetch it again or save it anew";
        problem.hint.get_or_insert_with(|| hint.to_string());
        problem.into()
    })
}

/// A result whose problem does not name the file yet.
type Step<T> = Result<T, Problem>;

fn state_dict(bytes: &[u8], max_values: u64) -> Step<Arrays> {
    let archive = Archive::open(bytes)?;
    let mut machine = Machine::new(archive.member("data.pkl")?);
    let top = machine.run()?;
    let Value::Dict(top) = top else {
        return Err(failed(format!("holds {}, not a dict of tensors", top.kind()))
            .hint("save the weights by name: `torch.save(model.state_dict(), \"new.pth\")`"));
    };
    let top = machine.dict(top);
    let mut nested = NESTED.iter().filter_map(|key| match top.get(key) {
        Some(Value::Dict(id)) => Some(tensors(&machine.dict(*id))),
        _ => None,
    });
    let chosen = nested.find(|found| !found.is_empty()).unwrap_or_else(|| tensors(&top));
    if chosen.is_empty() {
        let keys: Vec<String> = top.keys().take(8).map(|key| printable(key)).collect();
        return Err(failed(format!("holds no tensors; its keys are [{}]", keys.join(", ")))
            .hint(format!("the tensors are looked for at the top and under {}", NESTED.join(", "))));
    }
    let parallel = chosen.iter().all(|(name, _)| name.starts_with("module."));
    let mut left = max_values;
    let mut arrays = Arrays::new();
    for (name, tensor) in chosen {
        let array = machine.tensor(tensor).and_then(|tensor| array(tensor, &archive, &mut left)).map_err(
            |mut problem| {
                problem.message = format!("tensor `{}`: {}", printable(name), problem.message);
                problem
            },
        )?;
        let name = if parallel { &name["module.".len()..] } else { name };
        arrays.insert(name.to_string(), array);
    }
    Ok(arrays)
}

/// The tensors of a dict, by name.
fn tensors<'a>(dict: &BTreeMap<&'a str, Value<'a>>) -> Vec<(&'a str, usize)> {
    let tensor = |(name, value): (&&'a str, &Value<'a>)| match value {
        Value::Tensor(id) => Some((*name, *id)),
        _ => None,
    };
    dict.iter().filter_map(tensor).collect()
}

/// The values of a tensor; `left` is how many more may be read.
fn array(mut tensor: Tensor, archive: &Archive, left: &mut u64) -> Step<Array> {
    let content = archive.member(&format!("data/{}", tensor.key))?;
    let (stored, width) = (tensor.stored, tensor.dtype.width());
    if stored.checked_mul(width) != Some(content.len()) {
        let bytes = content.len();
        let message =
            format!("its storage should have {stored} values of {width} byte(s), but has {bytes} bytes");
        return Err(failed(message));
    }
    let (size, stride, offset) = (&tensor.size, &mut tensor.stride, tensor.offset);
    if size.len() > MAX_DIMENSIONS || size.len() != stride.len() {
        return Err(failed(format!(
            "{} dimensions with {} strides, at most {MAX_DIMENSIONS} with as many expected",
            size.len(),
            stride.len()
        )));
    }
    let total = size.iter().try_fold(1usize, |total, side| total.checked_mul(*side));
    let total = total.ok_or_else(|| failed(format!("impossible size {size:?}")))?;
    *left = left.checked_sub(total as u64).ok_or_else(|| {
        failed(format!("{total} values, where at most {left} more were expected"))
            .hint("the file is damaged or of another network")
    })?;
    // Along a single place no stride is ever walked, and it may be anything.
    stride.iter_mut().zip(size).filter(|(_, side)| **side == 1).for_each(|(stride, _)| *stride = 0);
    if total > 0 {
        let mut steps = size.iter().zip(&*stride).map(|(side, stride)| (side - 1).checked_mul(*stride));
        let last = steps.try_fold(offset, |last, step| last.checked_add(step?));
        if last.is_none_or(|last| last >= stored) {
            let walk = format!("size {size:?} with strides {stride:?} from {offset} on");
            return Err(failed(format!("{walk} reaches beyond the {stored} values stored")));
        }
    }
    let values = match tensor.dtype {
        Dtype::Float => gather(content, &tensor, total, f32::from_le_bytes),
        Dtype::Double => gather(content, &tensor, total, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::Half => gather(content, &tensor, total, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BFloat16 => gather(content, &tensor, total, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::Long => gather(content, &tensor, total, |bytes| i64::from_le_bytes(bytes) as f32),
        Dtype::Int => gather(content, &tensor, total, |bytes| i32::from_le_bytes(bytes) as f32),
        Dtype::Short => gather(content, &tensor, total, |bytes| i16::from_le_bytes(bytes).into()),
        Dtype::Byte => gather(content, &tensor, total, |bytes| u8::from_le_bytes(bytes).into()),
        Dtype::Char => gather(content, &tensor, total, |bytes| i8::from_le_bytes(bytes).into()),
        Dtype::Bool => gather(content, &tensor, total, |[byte]| f32::from(u8::from(byte != 0))),
    };
    Ok(Array { shape: tensor.size.iter().map(|side| *side as i64).collect(), values })
}

/// The `total` values of a tensor in row-major order; its way through `content` is known to stay inside.
fn gather<const WIDTH: usize>(
    content: &[u8],
    tensor: &Tensor,
    total: usize,
    convert: impl Fn([u8; WIDTH]) -> f32,
) -> Vec<f32> {
    let (stored, _) = content.as_chunks::<WIDTH>();
    let mut place = tensor.offset;
    let mut index = [0; MAX_DIMENSIONS];
    let mut values = Vec::with_capacity(total);
    while values.len() < total {
        values.push(convert(stored[place]));
        for (dimension, (side, stride)) in tensor.size.iter().zip(&tensor.stride).enumerate().rev() {
            index[dimension] += 1;
            place += stride;
            if index[dimension] < *side {
                break;
            }
            place -= side * stride;
            index[dimension] = 0;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn int(value: i64) -> Vec<u8> {
        [&[0x8a, 8], &value.to_le_bytes()[..]].concat()
    }

    fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        [b"(", &items.concat()[..], b"t"].concat()
    }

    fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let entries = entries.iter().map(|(key, value)| [text(key), value.clone()].concat());
        [b"}(", &entries.collect::<Vec<_>>().concat()[..], b"u"].concat()
    }

    /// A tensor of a storage of so many values.
    fn tensor(kind: &str, key: &str, stored: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
        let ints = |values: &[i64]| tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>());
        let kind = format!("ctorch\n{kind}Storage\n").into_bytes();
        let id = tuple(&[text("storage"), kind, text(key), text("cpu"), int(stored)]);
        let storage = [id, b"Q".to_vec()].concat();
        let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
        let arguments = tuple(&[storage, int(offset), ints(size), ints(stride), vec![0x89], hooks]);
        [b"ctorch._utils\n_rebuild_tensor_v2\n", &arguments[..], b"R"].concat()
    }

    fn zipped(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// A file whose pickle leaves `value`, with the float32 0, 1, … 5 for its storage `0`.
    fn file(value: &[u8]) -> Vec<u8> {
        let storage: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let pickle = [b"\x80\x02", value, b"."].concat();
        zipped(CompressionMethod::Stored, &[("w/data.pkl", &pickle), ("w/data/0", &storage)])
    }

    fn whole() -> Vec<u8> {
        tensor("Float", "0", 6, 0, &[2, 3], &[3, 1])
    }

    fn arrays(bytes: &[u8]) -> Arrays {
        read(Path::new("w.pth"), bytes, 1000).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        match read(Path::new("w.pth"), bytes, 1000) {
            Ok(arrays) => format!("read {:?}", arrays.keys()),
            Err(error) => {
                let hint = crate::error::problem(&error).unwrap().hint.as_deref().unwrap();
                format!("{error:#} | {hint}")
            }
        }
    }

    #[track_caller]
    fn refuses(bytes: &[u8], why: &str) {
        let refusal = refusal(bytes);
        assert!(refusal.starts_with("w.pth: ") && refusal.contains(why), "{refusal}");
    }

    #[test]
    fn strides_and_offsets_are_followed_and_other_entries_passed_over() {
        let arrays = arrays(&file(&dict(&[
            ("plain", whole()),
            ("transposed", tensor("Float", "0", 6, 0, &[3, 2], &[1, 3])),
            ("part", tensor("Float", "0", 6, 1, &[2, 1, 2], &[3, i64::MAX, 1])),
            ("expanded", tensor("Float", "0", 6, 5, &[3], &[0])),
            ("single", tensor("Float", "0", 6, 4, &[], &[])),
            ("empty", tensor("Float", "0", 6, 6, &[0, 2], &[2, 1])),
            ("epoch", int(7)),
            ("history", b"](G\x3f\xf0\0\0\0\0\0\0Ne".to_vec()),
        ])));
        let expect = |name: &str, shape: &[i64], values: &[f32]| {
            assert_eq!(arrays[name], Array { shape: shape.to_vec(), values: values.to_vec() }, "{name}");
        };
        expect("plain", &[2, 3], &[0., 1., 2., 3., 4., 5.]);
        expect("transposed", &[3, 2], &[0., 3., 1., 4., 2., 5.]);
        expect("part", &[2, 1, 2], &[1., 2., 4., 5.]);
        expect("expanded", &[3], &[5., 5., 5.]);
        expect("single", &[], &[4.]);
        expect("empty", &[0, 2], &[]);
        assert_eq!(arrays.len(), 6);
    }

    #[test]
    fn every_type_becomes_float32() {
        let values: [(&str, &[u8], f32); 10] = [
            ("Float", &1.5f32.to_le_bytes(), 1.5),
            ("Double", &(-2.25f64).to_le_bytes(), -2.25),
            ("Half", &0x3e00u16.to_le_bytes(), 1.5),
            ("BFloat16", &0xc040u16.to_le_bytes(), -3.0),
            ("Long", &(-7i64).to_le_bytes(), -7.0),
            ("Int", &70_000i32.to_le_bytes(), 70_000.0),
            ("Short", &(-300i16).to_le_bytes(), -300.0),
            ("Byte", &[200], 200.0),
            ("Char", &[0xff], -1.0),
            ("Bool", &[1], 1.0),
        ];
        for (kind, bytes, value) in values {
            let pickle = dict(&[("a", tensor(kind, "7", 1, 0, &[1], &[1]))]);
            let pickle = [b"\x80\x02", &pickle[..], b"."].concat();
            let members: [(&str, &[u8]); 2] = [("data.pkl", &pickle), ("data/7", bytes)];
            assert_eq!(arrays(&zipped(CompressionMethod::Stored, &members))["a"].values, [value], "{kind}");
        }
    }

    #[test]
    fn weights_are_found_inside_a_checkpoint_and_lose_the_prefix_of_data_parallel() {
        let weights = dict(&[("module.fc.weight", whole()), ("module.fc.bias", whole())]);
        let nested = file(&dict(&[("best", whole()), ("model", int(1)), ("net", weights)]));
        assert_eq!(arrays(&nested).into_keys().collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
        let mixed = file(&dict(&[("module.a", whole()), ("b", whole())]));
        assert_eq!(arrays(&mixed).into_keys().collect::<Vec<_>>(), ["b", "module.a"]);
        refuses(&file(&dict(&[("epoch", int(1))])), "no tensors; its keys are [epoch]");
        refuses(&file(&whole()), "holds a tensor, not a dict");
    }

    #[test]
    fn memo_state_parameters_and_protocol_4_are_understood() {
        let global = [text("collections"), text("OrderedDict"), b"\x93)R\x94".to_vec()].concat();
        let parameter =
            [b"ctorch._utils\n_rebuild_parameter\n", &tuple(&[whole(), vec![0x88], b"}".to_vec()])[..], b"R"];
        let entry =
            [text("a"), parameter.concat(), b"q\x05s".to_vec(), text("b"), b"h\x05s".to_vec()].concat();
        let state = [dict(&[("_metadata", b"}".to_vec())]), b"b".to_vec()].concat();
        let arrays =
            arrays(&file(&[b"\x80\x04\x95\0\0\0\0\0\0\0\0", &global[..], &entry, b"h\0", &state].concat()));
        assert_eq!(arrays["a"], arrays["b"]);
        assert_eq!(arrays["a"].shape, [2, 3]);
    }

    #[test]
    fn foreign_calls_are_refused_by_name() {
        let attack = [b"cos\nsystem\n".to_vec(), tuple(&[text("true")]), b"R".to_vec()].concat();
        refuses(&file(&dict(&[("a", attack.clone())])), "calls `os.system`, and only tensors are read");
        let stacked = [text("builtins"), text("eval"), vec![0x93]].concat();
        refuses(&file(&dict(&[("a", stacked)])), "calls `builtins.eval`");
        refuses(&file(b"i os\nsystem\n"), "opcode 0x69");
        refuses(&file(b"ctorch\nSize\nctorch\nSize\nR"), "malformed");
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let one = |value| file(&dict(&[("a", value)]));
        let refuses_tensor = |stored, offset, size: &[i64], stride: &[i64], why| {
            refuses(&one(tensor("Float", "0", stored, offset, size, stride)), why);
        };
        refuses_tensor(
            6,
            1,
            &[2, 3],
            &[3, 1],
            "tensor `a`: size [2, 3] with strides [3, 1] from 1 on reaches",
        );
        refuses_tensor(6, i64::MAX, &[2], &[i64::MAX], "beyond the 6 values");
        refuses_tensor(6, -1, &[2], &[1], "negative");
        refuses_tensor(6, 0, &[2], &[-1], "negative");
        refuses_tensor(6, 0, &[1 << 40, 1 << 40], &[0, 0], "impossible size");
        refuses_tensor(6, 0, &[1 << 40], &[0], "more were expected");
        refuses_tensor(6, 0, &[1; 9], &[1; 9], "9 dimensions");
        refuses_tensor(6, 0, &[2, 3], &[1], "2 dimensions with 1 strides");
        refuses_tensor(i64::MAX, 0, &[1], &[1], "its storage should have");
        refuses(&one(tensor("Float", "9", 6, 0, &[1], &[1])), "no member `data/9`");
    }

    #[test]
    fn many_aliases_and_deep_nesting_cost_little() {
        let mut aliases = [b"}", &text("a")[..], &whole(), b"q\0s"].concat();
        (0..1_000_000).for_each(|_| aliases.extend_from_slice(b"X\x01\0\0\0bh\0s"));
        assert_eq!(arrays(&file(&aliases)).len(), 2);
        let names = (0..1000).map(|alias| [text(&alias.to_string()), b"h\0s".to_vec()].concat());
        aliases.extend(names.collect::<Vec<_>>().concat());
        refuses(&file(&aliases), "more were expected");
        refuses(&file(&[b"N".to_vec(), vec![0x85; 10_000_000]].concat()), "too many objects");
        refuses(&file(&[b"N".to_vec(), vec![0x85; 1_000_000]].concat()), "holds a tuple");
        refuses(&file(&vec![b'('; 10_000_000]), "too many objects");
        refuses(&file(&vec![b'}'; 10_000_000]), "too many objects");
        refuses(&file(&[b"N".to_vec(), vec![0x94; 10_000_000]].concat()), "too many objects");
        let selfish = [b"}q\0", &text("a")[..], b"h\0s"].concat();
        refuses(&file(&selfish), "no tensors");
    }

    #[test]
    fn damage_at_any_place_is_an_error_or_harmless() {
        let pickle = dict(&[("a", whole()), ("b", tensor("Float", "0", 6, 3, &[3], &[1]))]);
        let good = file(&pickle);
        assert_eq!(arrays(&good).len(), 2);
        (0..good.len()).for_each(|cut| refuses(&good[..cut], "w.pth: "));
        for cut in 0..pickle.len() {
            // What is cut is the pickle, inside a sound archive; the full stop of `file` makes some cuts a
            // value.
            refuses(&file(&pickle[..cut]), "w.pth: ");
        }
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[place] ^= 1 << bit;
                drop(read(Path::new("w.pth"), &damaged, 1000));
            }
        }
    }

    #[test]
    fn other_formats_are_told_apart() {
        let mut damaged = file(&dict(&[("a", whole())]));
        let place = damaged.windows(4).position(|bytes| bytes == 5f32.to_le_bytes()).unwrap();
        damaged[place] ^= 1;
        refuses(&damaged, "hecksum");
        let stored = |members: &[(&str, &[u8])]| zipped(CompressionMethod::Stored, members);
        let packed = zipped(CompressionMethod::Deflated, &[("w/data.pkl", &[b'N'; 1000])]);
        refuses(&packed, "member `w/data.pkl` is compressed or encrypted | re-save it");
        refuses(
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
            "before 1.6, and the zip format was expected | re-save it: `torch.save(torch.load(",
        );
        refuses(&stored(&[("w/data.pkl", b"N."), ("w/constants.pkl", b"N.")]), "TorchScript");
        refuses(&stored(&[("w/data.pkl", b"N."), ("w/byteorder", b"big")]), "big-endian");
        refuses(&stored(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")]), "data.pkl");
        refuses(&stored(&[("a.npy", b"")]), "data.pkl");
        refuses(b"hello, this is text", "not the zip archive");
        refuses(b"", "not the zip archive");
        refuses(&b"PK\x05\x06".repeat(100), "many ends");
    }
}
