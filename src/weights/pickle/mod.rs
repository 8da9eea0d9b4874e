//! PyTorch's state dicts, as `torch.save` writes them (.pth, .pt, .bin): a pickle that describes the tensors, and the values of
//! each storage, in a [zip](archive) or, before PyTorch 1.6, [one after another](legacy).
//!
//! A pickle is a program, and a foreign one: nothing of it is ever run. Trainers keep much beside the weights; what is
//! no tensor is an opaque value.

mod archive;
mod checkpoint;
mod globals;
mod legacy;
mod machine;

use super::{Array, Arrays};
use crate::error::{Problem, Result, failed};
use crate::printable::quoted;
use archive::Archive;
use legacy::Legacy;
use machine::{Machine, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// More dimensions than any weights have.
const MAX_DIMENSIONS: usize = 8;

/// Tensors of a file, and what its user should know of how they were chosen.
#[derive(Debug, Default)]
pub struct StateDict {
    /// The tensors, as float32.
    pub arrays: Arrays,
    /// A sentence each.
    pub notes: Vec<String>,
}

/// Reads the tensors of a state dict, converted to float32; with `average`, those of the moving average that the file has.
///
/// The state dict is the pickled dict itself or lies in a training checkpoint, under the names that trainers use. Entries
/// that are no tensors are skipped.
///
/// `path` only names the file in errors. `max_values` bounds the values of all tensors together; a storage
/// that several tensors share counts for each.
///
/// # Errors
/// When `bytes` are no such file (TorchScript, whole modules and others are named), are damaged, or hold no
/// tensors, no average or too many values.
pub fn read(path: &Path, bytes: &[u8], max_values: u64, average: bool) -> Result<StateDict> {
    state_dict(bytes, max_values, average).map_err(|mut problem| {
        problem.message = format!("{}: {}", path.display(), problem.message);
        let hint = "the file is damaged or no state dict of PyTorch; fetch it again or save it anew";
        problem.hint.get_or_insert_with(|| hint.to_string());
        problem.into()
    })
}

/// A result whose problem does not name the file yet.
type Step<T> = Result<T, Problem>;

/// Where the values lie.
enum Storages<'a> {
    Zip(Archive<'a>),
    Legacy(HashMap<&'a str, &'a [u8]>),
}

impl<'a> Storages<'a> {
    fn content(&self, key: &str) -> Step<&'a [u8]> {
        match self {
            Self::Zip(archive) => archive.member(&format!("data/{key}")),
            Self::Legacy(storages) => {
                let missing = || failed(format!("it has no storage {}", quoted(key)));
                storages.get(key).copied().ok_or_else(missing)
            }
        }
    }
}

fn state_dict(bytes: &[u8], max_values: u64, average: bool) -> Step<StateDict> {
    let (machine, top, storages) = if bytes.first() == Some(&0x80) {
        let Legacy { machine, top, storages } = Legacy::open(bytes)?;
        (machine, top, Storages::Legacy(storages))
    } else {
        let archive = Archive::open(bytes)?;
        let mut machine = Machine::new(archive.member("data.pkl")?);
        let top = machine.run()?;
        (machine, top, Storages::Zip(archive))
    };
    let checkpoint::Chosen { tensors, notes } = checkpoint::choose(&machine, top, average)?;
    // A value takes a byte or more, so only tensors that share storages, or repeat values, can be more than the file.
    let mut left = max_values.min(2 * bytes.len() as u64);
    let mut arrays = Arrays::new();
    for (name, tensor) in tensors {
        let array = machine.tensor(tensor).and_then(|tensor| array(tensor, &storages, &mut left)).map_err(
            |mut problem| {
                problem.message = format!("tensor {}: {}", quoted(name), problem.message);
                problem
            },
        )?;
        arrays.insert(name.to_string(), array);
    }
    Ok(StateDict { arrays, notes })
}

/// The values of a tensor; `left` is how many more may be read.
fn array(mut tensor: Tensor, storages: &Storages, left: &mut u64) -> Step<Array> {
    let content = storages.content(tensor.key)?;
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
    let values = tensor.dtype.floats(content, places(&tensor, total));
    Ok(Array { shape: tensor.size.iter().map(|side| *side as i64).collect(), values })
}

/// Where the `total` values of a tensor lie in its storage, in row-major order.
fn places<'a>(tensor: &'a Tensor, total: usize) -> impl Iterator<Item = usize> + 'a {
    let mut place = tensor.offset;
    let mut index = [0; MAX_DIMENSIONS];
    (0..total).map(move |_| {
        let this = place;
        for (dimension, (side, stride)) in tensor.size.iter().zip(&tensor.stride).enumerate().rev() {
            index[dimension] += 1;
            place += stride;
            if index[dimension] < *side {
                break;
            }
            place -= side * stride;
            index[dimension] = 0;
        }
        this
    })
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
        read(Path::new("w.pth"), bytes, 1000, false).unwrap().arrays
    }

    fn refusal(bytes: &[u8]) -> String {
        match read(Path::new("w.pth"), bytes, 1000, false) {
            Ok(found) => format!("read {:?}", found.arrays.keys()),
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
    fn weights_are_found_inside_a_checkpoint() {
        let weights = dict(&[("module.fc.weight", whole()), ("module.fc.bias", whole())]);
        let nested = file(&dict(&[("best", whole()), ("model", int(1)), ("net", weights)]));
        assert_eq!(arrays(&nested).into_keys().collect::<Vec<_>>(), ["module.fc.bias", "module.fc.weight"]);
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

    /// The names of the tensors and the notes of a file, or why it is refused.
    fn chosen(bytes: &[u8], average: bool) -> String {
        match read(Path::new("w.pth"), bytes, 1000, average) {
            Ok(StateDict { arrays, notes }) => format!("{:?} {notes:?}", arrays.keys().collect::<Vec<_>>()),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn the_average_is_taken_on_demand_or_where_it_is_alone_and_named_otherwise() {
        let net = |name: &str| dict(&[(name, whole()), ("fc.bias", whole())]);
        for key in ["state_dict_ema", "model_ema", "ema"] {
            let both = file(&dict(&[("state_dict", net("plain.w")), (key, net("ema.w")), ("epoch", int(3))]));
            assert_eq!(
                chosen(&both, false),
                format!(
                    "[\"fc.bias\", \"plain.w\"] [\"it also holds a moving average of the weights (`{key}`), which `--ema` takes\"]"
                )
            );
            assert_eq!(chosen(&both, true), "[\"ema.w\", \"fc.bias\"] []");
            let alone = file(&dict(&[(key, net("ema.w")), ("epoch", int(3))]));
            let told = chosen(&alone, false);
            assert!(
                told.starts_with("[\"ema.w\", \"fc.bias\"]") && told.contains("average of the weights alone"),
                "{told}"
            );
            assert_eq!(chosen(&alone, true), "[\"ema.w\", \"fc.bias\"] []");
        }
        let plain = file(&dict(&[("model", net("plain.w"))]));
        assert!(chosen(&plain, true).contains("no moving average"));
        let averaged = file(&dict(&[("n_averaged", whole()), ("module.fc.bias", whole())]));
        assert!(chosen(&averaged, false).contains("the weights are a moving average"));
        assert!(chosen(&averaged, true).starts_with("[\"module.fc.bias\", \"n_averaged\"]"));
    }

    #[test]
    fn foreign_objects_are_opaque_and_nothing_is_called() {
        let attack = [b"cos\nsystem\n".to_vec(), tuple(&[text("touch pwned")]), b"R".to_vec()].concat();
        let namespace = b"cargparse\nNamespace\n)\x81}X\x02\0\0\0lrG\x3f\xf0\0\0\0\0\0\0sb".to_vec();
        let enumeration =
            [b"ccomposer.core\nPrecision\n".to_vec(), tuple(&[text("amp")]), b"R".to_vec()].concat();
        let numpy = [
            b"cnumpy.core.multiarray\nscalar\n".to_vec(),
            tuple(&[b"cnumpy\ndtype\n".to_vec(), text("x")]),
            b"R".to_vec(),
        ]
        .concat();
        let found = arrays(&file(&dict(&[
            ("state_dict", dict(&[("a.b", whole()), ("c.d", attack.clone())])),
            ("args", namespace),
            ("precision", enumeration),
            ("best", numpy),
            ("attack", attack.clone()),
        ])));
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a.b"]);
        refuses(&file(&attack), "a whole object of the class `os.system`, not a dict of tensors");
        let module = b"cnets\nNet\n)\x81}X\x08\0\0\0_modules}sb".to_vec();
        refuses(&file(&module), "`nets.Net`, not a dict of tensors | if you trust the file");
        refuses(&file(&dict(&[("model", module)])), "weights_only=False)[\"model\"].state_dict()");
        let quantized =
            [b"ctorch._utils\n_rebuild_qtensor\n".to_vec(), tuple(&[text("x")]), b"R".to_vec()].concat();
        refuses(
            &file(&dict(&[("a.b", whole()), ("c.d", quantized)])),
            "tensor `c.d`: made by `_rebuild_qtensor`",
        );
        refuses(&file(b"i os\nsystem\n"), "opcode 0x69");
        refuses(&file(b"ctorch\nSize\nctorch\nSize\nR"), "malformed");
    }

    /// A file of PyTorch's format before 1.6 with the storage of [`file`].
    fn legacy_file(value: &[u8]) -> Vec<u8> {
        let values: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let start = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
        let keys = [b".\x80\x02]", &text("0")[..], b"a."].concat();
        [start, value, &keys, &6u64.to_le_bytes(), &values].concat()
    }

    #[test]
    fn the_format_before_1_6_is_read_and_its_damage_refused() {
        let pickle = dict(&[("a", whole()), ("b", tensor("Float", "0", 6, 3, &[3], &[1]))]);
        let good = legacy_file(&pickle);
        assert_eq!(arrays(&good), arrays(&file(&pickle)));
        for cut in 1..good.len() {
            refuses(&good[..cut], "w.pth: ");
        }
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[place] ^= 1 << bit;
                drop(read(Path::new("w.pth"), &damaged, 1000, false));
            }
        }
        refuses(b"\x80\x02}.", "not one that torch.save wrote");
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
                drop(read(Path::new("w.pth"), &damaged, 1000, false));
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
            "its pickle is malformed (it ends early)",
        );
        refuses(&stored(&[("w/data.pkl", b"N."), ("w/constants.pkl", b"N.")]), "TorchScript");
        refuses(&stored(&[("w/data.pkl", b"N."), ("w/byteorder", b"big")]), "big-endian");
        refuses(&stored(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")]), "data.pkl");
        refuses(&stored(&[("a.npy", b"")]), "NumPy arrays");
        refuses(b"hello, this is text", "not a whole zip archive");
        refuses(b"", "not a whole zip archive");
        refuses(&b"PK\x05\x06".repeat(100), "many ends");
    }
}
