//! The readers of files, each as a function of bytes that must return without a panic: the fuzz targets and
//! `tests/fuzz_corpus.rs` call these. What a reader accepts is checked for the properties that the rest of the program
//! relies on.

use half::f16;
use rand::Rng;
use senet::data::augment::Window;
use senet::data::cifar::CifarDataset;
use senet::data::idx::{self, IdxDataset};
use senet::data::index::{Index, Kind, Stamp, Unit, is_inside};
use senet::data::jpeg::{Jpeg, Region, Scale};
use senet::data::quarantine::Exclusions;
use senet::data::sample::Workbench;
use senet::data::shards::tar::Members;
use senet::data::shards::{Broken, list_members};
use senet::data::{Dataset, decode, imagenet_meta, imagenet_val, images};
use senet::experiment::load::{self, Layers};
use senet::experiment::request::Request;
use senet::experiment::{Experiment, validate};
use senet::rng;
use senet::weights::file::{self, Form};
use senet::weights::{Array, Arrays, caffe, pickle, safetensors, sharded, state_dict};
use std::path::Path;

/// What a JPEG begins with.
const JPEG_START: [u8; 2] = [0xff, 0xd8];

/// A reader by the name of its fuzz target.
pub type Reader = (&'static str, fn(&[u8]));

/// All of them.
pub const READERS: [Reader; 15] = [
    ("safetensors", safetensors),
    ("pickle", pickle),
    ("torch_zip", torch_zip),
    ("torch_legacy", torch_legacy),
    ("weights_form", weights_form),
    ("caffemodel", caffemodel),
    ("tar", tar),
    ("index", index),
    ("idx", idx),
    ("cifar", cifar),
    ("meta_mat", meta_mat),
    ("val_labels", val_labels),
    ("config", config),
    ("jpeg", jpeg),
    ("image", image),
];

/// Values that a file may hold here: enough for the corpora, few enough that a reader that does not count is noticed.
const MAX_VALUES: u64 = 1 << 16;

/// Pixels of an image that is decoded here; of larger ones only the header is read. The program bounds them by the memory
/// there is, which would make a run depend on the machine.
const MAX_PIXELS: usize = 1 << 20;

/// Formats an error and its hint, as the program does.
fn show(error: &anyhow::Error) {
    let hint = senet::error::problem(error).and_then(|problem| problem.hint.as_deref());
    std::hint::black_box(format!("{error:#}\n{}", hint.unwrap_or_default()));
}

/// Checks tensors that a reader of weights returned, and removes the prefixes of their names.
fn check_arrays(arrays: Arrays) {
    let mut total = 0;
    for (name, array) in &arrays {
        let count: i64 = array.shape.iter().product();
        assert_eq!(count, array.values.len() as i64, "`{name}` is {:?}", array.shape);
        total += array.values.len() as u64;
    }
    assert!(total <= MAX_VALUES, "{total} values");
    let count = arrays.len();
    if let Ok(unwrapped) = state_dict::unwrap(arrays, |module| module == "conv1") {
        assert_eq!(unwrapped.arrays.len() + unwrapped.counters.len(), count);
    }
}

/// Weights as safetensors.
pub fn safetensors(bytes: &[u8]) {
    let _ = safetensors::about(Path::new("w.safetensors"), &mut &*bytes);
    match safetensors::read(Path::new("w.safetensors"), bytes, MAX_VALUES) {
        Ok((arrays, _)) => check_arrays(arrays),
        Err(error) => show(&error),
    }
}

/// The archive that `torch.save` writes: the weights in it, and their moving average.
pub fn torch_zip(bytes: &[u8]) {
    for average in [false, true] {
        match pickle::read(Path::new("w.pth"), bytes, MAX_VALUES, average) {
            Ok(state_dict) => check_arrays(state_dict.arrays),
            Err(error) => show(&error),
        }
    }
}

/// The form that `torch.save` wrote before PyTorch 1.6, which begins with a pickle.
pub fn torch_legacy(bytes: &[u8]) {
    if bytes.first() == Some(&0x80) {
        torch_zip(bytes);
    }
}

/// What a file of weights is by its content, and the index of a sharded one.
pub fn weights_form(bytes: &[u8]) {
    let path = Path::new("w.index.json");
    match file::form(path, bytes) {
        Ok(Form::Index) => {
            let array = Array { shape: vec![1], values: vec![1.0] };
            let part = |_: &Path| Ok([("a".to_string(), array.clone())].into_iter().collect());
            match sharded::read(path, bytes, part) {
                Ok(arrays) => check_arrays(arrays),
                Err(error) => show(&error),
            }
        }
        Ok(_) => {}
        Err(error) => show(&error),
    }
}

/// The pickle in the archive of `torch_zip`, with 64 float16 values in each of its storages `0` to `3`.
pub fn pickle(bytes: &[u8]) {
    let storage: Vec<u8> = (0..64u8).flat_map(|value| f16::from_f32(value.into()).to_le_bytes()).collect();
    let storages = ["w/data/0", "w/data/1", "w/data/2", "w/data/3"].map(|name| (name, storage.as_slice()));
    torch_zip(&stored(&[[("w/data.pkl", bytes)].as_slice(), &storages].concat()));
}

/// A zip archive of uncompressed members, without their CRC-32.
fn stored(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in members {
        let size = contents.len() as u32;
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        // Version, flags, method, time, date, checksum, both sizes, length of the name, of what else there is.
        let common = [
            words(&[20, 0, 0, 0, 0x21, 0, 0]),
            size.to_le_bytes().to_vec(),
            size.to_le_bytes().to_vec(),
            words(&[name.len() as u16, 0]),
        ]
        .concat();
        directory.extend([b"PK\x01\x02\x14\0".as_slice(), &common, &[0; 10]].concat());
        directory.extend((zip.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        zip.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), contents].concat());
    }
    let count = (members.len() as u16).to_le_bytes();
    let end =
        [b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &(directory.len() as u32).to_le_bytes()].concat();
    let start = (zip.len() as u32).to_le_bytes();
    [zip, directory, end, start.to_vec(), vec![0; 2]].concat()
}

/// Caffe's weights, with the statistics of batch normalisation folded.
pub fn caffemodel(bytes: &[u8]) {
    let layers = caffe::read(Path::new("w.caffemodel"), bytes, MAX_VALUES);
    match layers.and_then(caffe::fold_statistics) {
        Ok(arrays) => check_arrays(arrays),
        Err(error) => show(&error),
    }
}

/// A shard, from its members to samples and an index of them. Once as given, and once with the checksums of its headers
/// corrected, which mutations rarely hit.
pub fn tar(bytes: &[u8]) {
    shard(bytes);
    let mut repaired = bytes.to_vec();
    for header in repaired.chunks_exact_mut(512).filter(|header| header[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    if repaired != bytes {
        shard(&repaired);
    }
}

fn shard(bytes: &[u8]) {
    let size = bytes.len() as u64;
    for broken in [Broken::Refuse, Broken::KeepWhole] {
        let unit = Unit::new(b"a.tar", Stamp { modified: 1, second: size });
        match list_members(Members::new(&bytes, size), unit, Path::new("a.tar"), broken) {
            Ok(unit) => match Index::build(Kind::Shards, Path::new("/data"), &[], vec![unit]) {
                Ok(index) => check_index(&index, size),
                Err(error) => show(&error),
            },
            Err(error) => show(&error),
        }
    }
}

/// An index of folders or shards. Once as given, and once with its checksum corrected.
pub fn index(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    if let Some(rest) = bytes.get(24..) {
        repaired[16..24].copy_from_slice(&rng::fnv1a(rest).to_le_bytes());
    }
    for bytes in [bytes.to_vec(), repaired] {
        if let Ok(index) = Index::from_bytes(bytes) {
            check_index(&index, u64::MAX);
        }
    }
}

fn check_index(index: &Index, shard_bytes: u64) {
    let _ = (index.root(), index.skipped(), index.as_bytes().len() == index.size());
    let classes = index.classes().len();
    for unit in 0..index.units() {
        assert!(is_inside(index.unit_path(unit)));
        let _ = (index.stamp(unit), index.cut(unit));
    }
    for sample in 0..index.len() {
        assert!(index.samples_of(index.unit_of(sample)).contains(&sample));
        assert!(classes == 0 || index.label(sample) < classes);
        let name = index.name(sample);
        if index.kind() == Kind::Shards {
            let (offset, length) = index.piece(sample);
            assert!(offset.checked_add(length.into()).is_some_and(|end| end <= shard_bytes));
        } else {
            assert!(!name.contains(&b'/') && is_inside(name));
        }
    }
}

/// An IDX file, of images or of labels.
pub fn idx(bytes: &[u8]) {
    let path = Path::new("train-images-idx3-ubyte");
    if let Err(error) = idx::parse(path, bytes, 1) {
        show(&error);
    }
    let (shape, values) = match idx::parse(path, bytes, 3) {
        Ok(images) => images,
        Err(error) => return show(&error),
    };
    assert_eq!(shape.iter().product::<usize>(), values.len());
    if shape[0] > MAX_VALUES as usize {
        return;
    }
    let labels = (vec![shape[0]], vec![3; shape[0]]);
    match IdxDataset::new((path, (shape, values)), (path, labels)) {
        Ok(data) => check_dataset(&data),
        Err(error) => show(&error),
    }
}

/// A file of CIFAR-10 or CIFAR-100.
pub fn cifar(bytes: &[u8]) {
    for classes in [10, 100] {
        match CifarDataset::from_bytes(Path::new("cifar/train.bin"), bytes.to_vec(), classes) {
            Ok(data) => check_dataset(&data),
            Err(error) => show(&error),
        }
    }
}

fn check_dataset(data: &dyn Dataset) {
    let (height, width) = data.natural_size().expect("all images have one size");
    for sample in 0..data.len() {
        assert!(data.label(sample) < data.classes().len());
        let image = data.image(sample).expect("the images are in memory");
        assert_eq!((image.height, image.width, image.channels), (height, width, data.channels()));
        assert_eq!(image.pixels.len(), width * height * image.channels);
        let _ = (data.source_name(sample), data.relative_name(sample));
    }
}

/// The table of ImageNet's development kit.
pub fn meta_mat(bytes: &[u8]) {
    if let Ok(ids) = imagenet_meta::wordnet_ids(bytes) {
        assert!(ids.iter().all(|id| id.len() == 9 && id.is_ascii()));
    }
}

/// Labels of ImageNet's validation images: WordNet ids, or numbers of the table that `meta_mat` reads; and a quarantine.
pub fn val_labels(bytes: &[u8]) {
    const META: &[u8] = include_bytes!("corpus/meta_mat/golden.mat");
    // As read from a file, which must be UTF-8.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Exclusions::from_text(text);
    let path = Path::new("labels.txt");
    let classes: Vec<String> = imagenet_meta::wordnet_ids(META).expect("the golden table is sound");
    let by_number = imagenet_val::labels_of_numbers(path, text, Path::new("meta.mat"), META, &classes);
    for labels in [by_number, imagenet_val::labels_of_ids(path, text, &classes)] {
        match labels {
            Ok(labels) => assert!(labels.iter().all(|label| (*label as usize) < classes.len())),
            Err(error) => show(&error),
        }
    }
}

/// A configuration or sweep file, checked as `senet config check` does; or `--set` assignments, a line each.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("c.json");
    if !text.trim_start().starts_with(['{', '[']) {
        let mut layers = Layers::default();
        for line in text.lines() {
            if let Err(error) = layers.setting(line) {
                show(&error);
            }
        }
        if let Err(error) = layers.apply_to(&Experiment::default()) {
            show(&error);
        }
        return;
    }
    let object = match load::parse_object(path, text) {
        Ok(object) => object,
        Err(error) => return show(&error),
    };
    // A base that is a path would be read from the disk.
    if !object["base"].is_string()
        && let Ok(Some(request)) = Request::parse(path, object.clone())
        && let Err(error) = validate::expanded(&request, path)
    {
        show(&error);
    }
    let (experiment, problems) = validate::all_problems(object);
    assert_eq!(experiment.is_some(), problems.is_empty());
    if let Some(experiment) = experiment {
        // What is accepted is written into a run's folder and read again.
        let saved = serde_json::to_string(&experiment).expect("an experiment is JSON");
        let read = load::parse_object(path, &saved).and_then(|object| load::over_default(&object));
        assert_eq!(read.expect("a saved experiment is read"), experiment);
    }
}

/// A JPEG: a region of it and a sample from a region, compared with those from the whole image.
pub fn jpeg(bytes: &[u8]) {
    if bytes.starts_with(&JPEG_START) {
        region(bytes);
        sample(bytes);
    }
}

/// An image of any format.
pub fn image(bytes: &[u8]) {
    sample(bytes);
}

/// A random part of a side.
fn part(side: usize, random: &mut impl Rng) -> (usize, usize) {
    let length = random.random_range(1..=side);
    (random.random_range(0..=side - length), length)
}

/// The pixels of a JPEG that libjpeg-turbo decodes without a warning.
fn decoded(bytes: &[u8], wanted: Option<Region>, scale: Scale) -> Option<(Region, Vec<u8>)> {
    let jpeg = Jpeg::open(bytes).ok()?;
    let (width, height) = jpeg.size();
    if width.saturating_mul(height) > MAX_PIXELS {
        return None;
    }
    let mut pixels = Vec::new();
    let whole = Region { x: 0, y: 0, width: scale.of(width), height: scale.of(height) };
    let region = jpeg.decode(wanted.unwrap_or(whole), scale, &mut pixels)?;
    Some((region, pixels))
}

fn region(bytes: &[u8]) {
    // The region is a function of the bytes.
    let mut random = rng::stream(rng::fnv1a(bytes), "region", [0, 0]);
    let scale = [Scale::Whole, Scale::Half, Scale::Quarter, Scale::Eighth][random.random_range(0..4)];
    let whole = decoded(bytes, None, scale);
    let Ok((width, height)) = images::dimensions(bytes) else { return };
    let (x, width) = part(scale.of(width), &mut random);
    let (y, height) = part(scale.of(height), &mut random);
    let wanted = Region { x, y, width, height };
    let region = decoded(bytes, Some(wanted), scale);
    // Damage below a region is not seen by it.
    let Some((Region { width: columns, .. }, whole)) = whole else { return };
    let (region, pixels) = region.expect("a region of a sound image is decoded");
    assert!(region.x <= x && region.x + region.width >= x + width, "{region:?} lacks a part of {wanted:?}");
    assert!(region.y <= y && region.y + region.height >= y + height, "{region:?} lacks a part of {wanted:?}");
    for row in y..y + height {
        let part = &pixels[((row - region.y) * region.width + x - region.x) * 3..][..width * 3];
        assert!(part == &whole[(row * columns + x) * 3..][..width * 3], "row {row} of {wanted:?}, {scale:?}");
    }
}

fn sample(bytes: &[u8]) {
    const SIZE: usize = 8;
    match images::dimensions(bytes) {
        Ok((width, height)) if width.saturating_mul(height) > MAX_PIXELS => return,
        Ok(_) => {}
        Err(error) => show(&error),
    }
    // The crop is a function of the bytes.
    let mut random = rng::stream(rng::fnv1a(bytes), "sample", [0, 0]);
    let mut window = None;
    let choose = |width: usize, height: usize| {
        let ((x, width), (y, height)) = (part(width, &mut random), part(height, &mut random));
        let [x, y, width, height] = [x, y, width, height].map(|length| length as f64);
        *window.insert(Window { x, y, width, height, closed: random.random() })
    };
    let reduced = bytes.len().is_multiple_of(4);
    let mut bench = if reduced { Workbench::reduced() } else { Workbench::new() };
    let (mut part, mut whole) = ([0; SIZE * SIZE * 3], [0; SIZE * SIZE * 3]);
    let sampled = bench.sample(bytes, SIZE, choose, &mut part);
    let image = decode::decode(bytes);
    if let Ok(image) = &image {
        assert_eq!(image.pixels.len(), image.width * image.height * image.channels);
    }
    [sampled.as_ref().err(), image.as_ref().err()].into_iter().flatten().for_each(show);
    // With a warning, the whole is decoded by another decoder, and a region perhaps not.
    let is_comparable =
        !reduced && (!bytes.starts_with(&JPEG_START) || decoded(bytes, None, Scale::Whole).is_some());
    let (Ok(()), Ok(image), Some(window), true) = (sampled, image, window, is_comparable) else { return };
    bench.resample(&image, window, SIZE, &mut whole).expect("the window lies inside");
    let off = part.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    assert!(off <= 1, "a sample of {window:?} is off by {off} from that of the whole image");
}
