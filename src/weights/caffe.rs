//! Caffe's trained networks (.caffemodel): a protocol buffer of layers, each with its arrays of weights
//! (`blobs`). The message types are the few fields of BVLC's caffe.proto that weights need.

use super::{Array, Arrays};
use crate::error::{Problem, Result, failed};
use crate::printable::quoted;
use prost::Message;
use std::iter;
use std::path::Path;

/// A layer that holds weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name in the network.
    pub name: String,
    /// Its type: `Convolution`, `BatchNorm`, …
    pub kind: String,
    /// Its weights, in Caffe's order for that type.
    pub blobs: Vec<Array>,
}

/// `NetParameter.layer`, repeated `LayerParameter`.
const LAYER: u64 = 100;
/// `NetParameter.layers`, repeated `V1LayerParameter`: the form before 2015.
const LAYERS_V1: u64 = 2;
/// `LayerParameter.blobs`, repeated `BlobProto`.
const BLOBS: u64 = 7;

/// `LayerParameter` but for its blobs.
#[derive(Message)]
struct Head {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, Message)]
struct BlobProto {
    #[prost(int32, optional, tag = "1")]
    num: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    channels: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    height: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    width: Option<i32>,
    #[prost(float, repeated, tag = "5")]
    data: Vec<f32>,
    /// A `BlobShape`, undecoded: its length is checked first, as each byte of it may unfold to eight.
    #[prost(bytes = "vec", optional, tag = "7")]
    shape: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "8")]
    double_data: Vec<f64>,
}

#[derive(Message)]
struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    dim: Vec<i64>,
}

/// More than the dimensions of any weights take, at up to eleven bytes each.
const MAX_SHAPE_BYTES: usize = 100;

/// Reads the layers that hold weights, in the file's order. `path` only names the file in errors;
/// `max_values` bounds the values of all layers together.
///
/// # Errors
/// When `bytes` are no caffemodel, are damaged or of the form before 2015, when a shape does not agree with
/// its values, or when there are no weights or too many.
pub fn read(path: &Path, bytes: &[u8], max_values: u64) -> Result<Vec<Layer>> {
    layers(bytes, max_values).map_err(|mut problem| {
        problem.message = format!("{}: {}", path.display(), problem.message);
        let hint = "the weights are in the .caffemodel, not in the .prototxt; if this is it, fetch it again";
        problem.hint.get_or_insert_with(|| hint.to_string());
        problem.into()
    })
}

/// A result whose problem does not name the file yet.
type Step<T> = Result<T, Problem>;

fn layers(mut bytes: &[u8], max_values: u64) -> Step<Vec<Layer>> {
    if bytes.is_empty() {
        return Err(failed("not a caffemodel (the file is empty)"));
    }
    let file = bytes;
    let (mut found, mut left, mut layers) = (false, max_values, Vec::new());
    while let Some(mut layer) = next_message(&mut bytes, LAYER)? {
        found = true;
        let Head { name, kind } = Head::decode(layer).map_err(|error| damaged(&error.to_string()))?;
        let mut blobs = Vec::new();
        while let Some(blob) = next_message(&mut layer, BLOBS)? {
            blobs.push(array(blob, &mut left).map_err(|mut problem| {
                problem.message = format!("layer {}: {}", quoted(&name), problem.message);
                problem
            })?);
        }
        if !blobs.is_empty() {
            layers.push(Layer { name, kind, blobs });
        }
    }
    if !found && next_message(&mut &*file, LAYERS_V1)?.is_some() {
        return Err(failed("holds layers of Caffe's form before 2015, and the present form was expected")
            .hint("convert it with Caffe's tool: `upgrade_net_proto_binary old.caffemodel new.caffemodel`"));
    }
    match layers.is_empty() {
        false => Ok(layers),
        true if found => Err(failed("none of its layers holds weights")),
        true => Err(failed("not a caffemodel (it holds no layers)")),
    }
}

fn damaged(what: &str) -> Problem {
    failed(format!("not a caffemodel, or a damaged one ({what})"))
}

/// The next message of one field, taken off `rest` undecoded: a million empty messages, as structs, would
/// take fifty times the file.
fn next_message<'a>(rest: &mut &'a [u8], field: u64) -> Step<Option<&'a [u8]>> {
    let number =
        |rest: &mut &[u8]| prost::decode_length_delimiter(rest).map_err(|error| damaged(&error.to_string()));
    while !rest.is_empty() {
        let key = number(rest)? as u64;
        let size = match key & 7 {
            0 => number(rest).map(|_| 0)?,
            1 => 8,
            2 => number(rest)?,
            5 => 4,
            _ => return Err(damaged("no protocol buffer")),
        };
        let (content, after) = rest.split_at_checked(size).ok_or_else(|| damaged("it ends early"))?;
        *rest = after;
        if key == field << 3 | 2 {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// One blob's shape and values; `left` is how many more values may be read.
fn array(message: &[u8], left: &mut u64) -> Step<Array> {
    let blob = BlobProto::decode(message).map_err(|error| damaged(&error.to_string()))?;
    // As Caffe does it: the old fields, where there are any, and double precision.
    let legacy = [blob.num, blob.channels, blob.height, blob.width];
    let shape = if legacy.iter().any(Option::is_some) {
        legacy.iter().map(|side| side.unwrap_or(0).into()).collect()
    } else {
        let shape = blob.shape.unwrap_or_default();
        if shape.len() > MAX_SHAPE_BYTES {
            return Err(damaged("a blob of too many dimensions"));
        }
        BlobShape::decode(&*shape).map_err(|error| damaged(&error.to_string()))?.dim
    };
    let values = match blob.double_data.is_empty() {
        true => blob.data,
        false => blob.double_data.iter().map(|value| *value as f32).collect(),
    };
    let product =
        shape.iter().try_fold(1u64, |product, side| product.checked_mul(u64::try_from(*side).ok()?));
    if product != Some(values.len() as u64) || values.is_empty() {
        return Err(failed(format!("a blob of shape {shape:?} has {} values", values.len())));
    }
    *left = left.checked_sub(values.len() as u64).ok_or_else(|| {
        failed(format!("{} values, where at most {left} more were expected", values.len()))
            .hint("the file is damaged or of another network")
    })?;
    Ok(Array { shape, values })
}

/// Names the arrays of Caffe's layers, and makes statistics of what BatchNorm keeps.
///
/// A Convolution or InnerProduct NAME gives `NAME.weight` and, with a second blob, `NAME.bias`; a Scale both
/// of them; a BatchNorm `NAME.running_mean` and `NAME.running_var`: its blobs are sums, which its third blob
/// divides. Vectors and InnerProduct's matrices lose the leading ones that old files pad their shapes with.
///
/// # Errors
/// When a layer with weights is of another type, has blobs that its type does not, or shares a name.
pub fn fold_statistics(layers: Vec<Layer>) -> Result<Arrays> {
    let mut arrays = Arrays::new();
    for Layer { name, kind, blobs } in layers {
        let shapes: Vec<_> = blobs.iter().map(|blob| blob.shape.clone()).collect();
        let Some(named) = named(&kind, blobs) else {
            let (name, kind) = (quoted(&name), quoted(&kind));
            let message = format!("layer {name} of type {kind} has blobs of the shapes {shapes:?}");
            let hint = "expected: Convolution or InnerProduct (weight, perhaps bias), Scale (weight, bias), \
                        BatchNorm (mean, variance, one factor)";
            return Err(failed(message).hint(hint).into());
        };
        for (part, array) in named {
            if arrays.insert(format!("{name}.{part}"), array).is_some() {
                let message = format!("two layers have the name {} and a {part}", quoted(&name));
                return Err(failed(message).hint("the file is damaged, or of no network known here").into());
            }
        }
    }
    Ok(arrays)
}

/// The arrays of one layer, if it is of a known type and has that type's blobs.
fn named(kind: &str, blobs: Vec<Array>) -> Option<Vec<(&'static str, Array)>> {
    let mut blobs = blobs.into_iter();
    let (first, second, third) = (blobs.next()?, blobs.next(), blobs.next());
    let extra = blobs.next().is_some();
    match (kind, second, third) {
        _ if extra => None,
        ("Convolution" | "InnerProduct", bias, None) => {
            let weight = unpadded(first, if kind == "Convolution" { 4 } else { 2 })?;
            let bias = match bias {
                Some(bias) => Some(("bias", unpadded(bias, 1)?)),
                None => None,
            };
            Some(iter::once(("weight", weight)).chain(bias).collect())
        }
        ("Scale", Some(bias), None) => {
            Some(vec![("weight", unpadded(first, 1)?), ("bias", unpadded(bias, 1)?)])
        }
        ("BatchNorm", Some(variance), Some(factor)) => {
            let &[factor] = &factor.values[..] else { return None };
            // A network that never trained has the factor 0, and Caffe takes its statistics for 0.
            let scale = if factor == 0.0 { 0.0 } else { 1.0 / factor };
            let statistic = |sum: Array| {
                let mut array = unpadded(sum, 1)?;
                array.values.iter_mut().for_each(|value| *value *= scale);
                Some(array)
            };
            Some(vec![("running_mean", statistic(first)?), ("running_var", statistic(variance)?)])
        }
        _ => None,
    }
}

/// The array in so many dimensions, if the ones before them are of length 1.
fn unpadded(array: Array, dimensions: usize) -> Option<Array> {
    let (padding, shape) = array.shape.split_at(array.shape.len().checked_sub(dimensions)?);
    padding.iter().all(|side| *side == 1).then(|| Array { shape: shape.to_vec(), values: array.values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(dim: &[i64], data: &[f32]) -> BlobProto {
        let shape = BlobShape { dim: dim.to_vec() }.encode_to_vec();
        BlobProto { shape: Some(shape), data: data.to_vec(), ..BlobProto::default() }
    }

    fn legacy(sides: [i32; 4], data: &[f32]) -> BlobProto {
        let [num, channels, height, width] = sides.map(Some);
        BlobProto { num, channels, height, width, data: data.to_vec(), ..BlobProto::default() }
    }

    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encode_length_delimiter((number << 3 | 2) as usize, &mut bytes).unwrap();
        prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
        [bytes, content.to_vec()].concat()
    }

    fn layer(name: &str, kind: &str, blobs: &[BlobProto]) -> Vec<u8> {
        let mut bytes = Head { name: name.to_string(), kind: kind.to_string() }.encode_to_vec();
        // `LayerParameter.phase`, an integer that is passed over.
        bytes.extend([10 << 3, 1]);
        blobs.iter().for_each(|blob| bytes.extend(field(BLOBS, &blob.encode_to_vec())));
        field(LAYER, &bytes)
    }

    fn good() -> Vec<u8> {
        let double = BlobProto { data: Vec::new(), double_data: vec![2.0, 4.0], ..shaped(&[2], &[]) };
        [
            field(1, b"a network"),
            layer("data", "Input", &[]),
            layer(
                "conv",
                "Convolution",
                &[shaped(&[2, 1, 1, 1], &[1., 2.]), legacy([1, 1, 1, 2], &[3., 4.])],
            ),
            layer("bn", "BatchNorm", &[shaped(&[2], &[1., 2.]), double, shaped(&[1], &[4.])]),
            layer("bn/scale", "Scale", &[shaped(&[2], &[5., 6.]), shaped(&[2], &[7., 8.])]),
            layer("fc", "InnerProduct", &[legacy([1, 1, 1, 2], &[9., 10.])]),
        ]
        .concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        match read(Path::new("w.caffemodel"), bytes, 1000) {
            Ok(layers) => format!("read {layers:?}"),
            Err(error) => {
                let hint = crate::error::problem(&error).unwrap().hint.as_deref().unwrap();
                format!("{error:#} | {hint}")
            }
        }
    }

    #[track_caller]
    fn refuses(bytes: &[u8], why: &str) {
        let refusal = refusal(bytes);
        assert!(refusal.starts_with("w.caffemodel: ") && refusal.contains(why), "{refusal}");
    }

    #[test]
    fn layers_are_read_in_order_and_named() {
        let layers = read(Path::new("w.caffemodel"), &good(), 15).unwrap();
        let names: Vec<_> =
            layers.iter().map(|layer| (&*layer.name, &*layer.kind, layer.blobs.len())).collect();
        let expected = [
            ("conv", "Convolution", 2),
            ("bn", "BatchNorm", 3),
            ("bn/scale", "Scale", 2),
            ("fc", "InnerProduct", 1),
        ];
        assert_eq!(names, expected);
        let array = |shape: &[i64], values: &[f32]| Array { shape: shape.to_vec(), values: values.to_vec() };
        let expected = [
            ("bn.running_mean", array(&[2], &[0.25, 0.5])),
            ("bn.running_var", array(&[2], &[0.5, 1.0])),
            ("bn/scale.bias", array(&[2], &[7., 8.])),
            ("bn/scale.weight", array(&[2], &[5., 6.])),
            ("conv.bias", array(&[2], &[3., 4.])),
            ("conv.weight", array(&[2, 1, 1, 1], &[1., 2.])),
            ("fc.weight", array(&[1, 2], &[9., 10.])),
        ];
        let arrays = fold_statistics(layers).unwrap();
        assert_eq!(
            arrays.into_iter().collect::<Vec<_>>(),
            expected.map(|(name, array)| (name.to_string(), array))
        );
        assert!(refusal(&good()).starts_with("read"));
    }

    #[test]
    fn values_may_be_unpacked_and_a_factor_zero() {
        // The number 1.5 by itself, not in a packed list, as Caffe's own writer may put it.
        let blob = [&[5 << 3 | 5][..], &1.5f32.to_le_bytes(), &field(7, &[8, 1])].concat();
        let head = Head { name: "bn".to_string(), kind: "BatchNorm".to_string() }.encode_to_vec();
        let zero = shaped(&[1], &[0.0]).encode_to_vec();
        let parts = [head, field(BLOBS, &blob), field(BLOBS, &blob), field(BLOBS, &zero)].concat();
        let layers = read(Path::new("w.caffemodel"), &field(LAYER, &parts), 3).unwrap();
        assert_eq!(layers[0].blobs[0].values, [1.5]);
        assert_eq!(fold_statistics(layers).unwrap()["bn.running_var"].values, [0.0]);
    }

    #[test]
    fn layers_that_are_not_understood_are_named() {
        let fold = |bytes: Vec<u8>| {
            let layers = read(Path::new("w.caffemodel"), &bytes, 1000).unwrap();
            format!("{:#}", fold_statistics(layers).unwrap_err())
        };
        let one = shaped(&[1], &[1.0]);
        let two = shaped(&[2], &[1.0, 2.0]);
        assert!(
            fold(layer("act", "PReLU", std::slice::from_ref(&one))).contains("layer `act` of type `PReLU`")
        );
        assert!(fold(layer("s", "Scale", std::slice::from_ref(&one))).contains("shapes [[1]]"));
        assert!(fold(layer("b", "BatchNorm", &[one.clone(), one.clone(), two])).contains("layer `b`"));
        let conv = layer("c", "Convolution", &[shaped(&[1, 1, 1, 1], &[1.0])]);
        assert!(fold([conv.clone(), conv].concat()).contains("two layers have the name `c` and a weight"));
    }

    #[test]
    fn foreign_and_hostile_files_are_refused() {
        let blob = |blob: BlobProto| layer("c", "Convolution", &[blob]);
        refuses(b"", "the file is empty");
        refuses(b"name: \"SENet\"\nlayer {\n", "not a caffemodel");
        refuses(b"\x80\x02}q\0.", "not a caffemodel");
        refuses(&field(1, b"a network"), "it holds no layers");
        refuses(&layer("data", "Input", &[]), "none of its layers holds weights");
        refuses(&field(LAYERS_V1, b""), "before 2015, and the present form was expected | convert it");
        refuses(&blob(shaped(&[2, 2], &[1.0])), "layer `c`: a blob of shape [2, 2] has 1 values");
        refuses(&blob(shaped(&[-1, -1], &[1.0])), "shape [-1, -1]");
        refuses(&blob(shaped(&[i64::MAX, i64::MAX, 4], &[1.0])), "has 1 values");
        refuses(&blob(shaped(&[0], &[])), "has 0 values");
        refuses(&blob(shaped(&[1; 200], &[1.0])), "too many dimensions");
        refuses(&blob(shaped(&[1001], &[1.0; 1001])), "1001 values, where at most 1000 more were expected");
        refuses(&field(LAYER, &field(BLOBS, b"").repeat(1_000_000)), "has 0 values");
        refuses(&field(LAYER, b"").repeat(1_000_000), "none of its layers");
    }

    #[test]
    fn damage_at_any_place_is_an_error_or_harmless() {
        let good = good();
        for cut in 0..good.len() {
            // Between two layers, what precedes a cut is a network by itself.
            let refusal = refusal(&good[..cut]);
            assert!(refusal.starts_with("w.caffemodel: ") || refusal.starts_with("read ["), "{refusal}");
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[cut] ^= 1 << bit;
                let _ = read(Path::new("w.caffemodel"), &damaged, 1000).map(fold_statistics);
            }
        }
    }
}
