//! From any data set to tar [shards](super), mixed once so that reading them one after the other is mixed too.
//!
//! The same data and options make the same bytes. Each shard is written under another name and renamed when it is
//! whole; `manifest.json` then takes it in. A packing that was broken off goes on with the first shard that is not
//! there or is not what the manifest says.

use super::tar::{END_BYTES, decimal, member_bytes, write_end, write_member};
use crate::data::images::dimensions;
use crate::data::{Dataset, Image, decode, workers};
use crate::error::{Result, failed, usage};
use crate::escaped::{escaped, shown};
use crate::files::{FolderLock, parse_json};
use crate::{files, rng};
use anyhow::Context;
use fast_image_resize::images::{Image as FirImage, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{ExtendedColorType, ImageEncoder};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// The list of what was packed.
pub const MANIFEST: &str = "manifest.json";
/// Held by the process that packs.
const LOCK: &str = ".senet-pack.lock";
const FORMAT: &str = "senet-shards";
const VERSION: u32 = 1;

/// How to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// Most bytes of a shard; one sample goes in whatever its size.
    pub shard_bytes: u64,
    /// Images whose short side is longer are made this small, in pixels; others keep their bytes.
    pub short_side: Option<usize>,
    /// JPEG quality of what is encoded anew, 1-100.
    pub quality: u8,
    /// Seed of the order.
    pub seed: u64,
    /// Threads that encode.
    pub threads: usize,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            shard_bytes: 256 << 20,
            short_side: None,
            quality: 90,
            seed: 0,
            threads: workers::for_computing(),
        }
    }
}

/// How far a packing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Samples in shards, kept ones included.
    pub done: usize,
    /// All samples.
    pub samples: usize,
    /// Whole shards.
    pub shards: usize,
}

/// What was packed, as `manifest.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What kind of manifest this is.
    pub format: String,
    /// Of the format.
    pub version: u32,
    /// Of the samples' names and labels, the classes and the options.
    pub fingerprint: String,
    /// Samples of the data set.
    pub samples: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Most bytes of a shard.
    pub shard_bytes: u64,
    /// Longest short side.
    pub short_side: Option<usize>,
    /// JPEG quality.
    pub quality: u8,
    /// Whether all shards are there.
    pub complete: bool,
    /// The shards in order.
    pub shards: Vec<Shard>,
}

/// A shard that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// File name.
    pub name: String,
    /// Samples in it.
    pub samples: usize,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// Packs `data` into `out_dir`; `progress` is told after each shard and every few dozen samples, and may break the
/// packing off, which then returns `None`: the same again goes on with it. Keys are the samples' places in `data`, in
/// eight digits or more.
///
/// # Errors
/// When a sample cannot be read or decoded, the folder holds other shards, or the disk is full.
pub fn pack(
    data: &dyn Dataset,
    out_dir: &Path,
    options: &PackOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Manifest>> {
    check(options)?;
    if data.is_empty() {
        return Err(failed("there is nothing to pack").into());
    }
    files::create_dir(out_dir)?;
    let Some(_lock) = FolderLock::take(out_dir, LOCK)? else {
        let message = format!("another process is packing into {}", shown(out_dir));
        return Err(failed(message).hint("wait for its end, or choose another folder").into());
    };
    let mut manifest = Manifest {
        format: FORMAT.to_string(),
        version: VERSION,
        fingerprint: fingerprint(data, options),
        samples: data.len(),
        seed: options.seed,
        shard_bytes: options.shard_bytes,
        short_side: options.short_side,
        quality: options.quality,
        complete: false,
        shards: Vec::new(),
    };
    let mut known = match read_manifest(out_dir)? {
        Some(known) if known.fingerprint == manifest.fingerprint => known.shards,
        Some(_) => {
            let message = format!("{} holds the shards of other data or options", out_dir.display());
            return Err(failed(message).hint("choose another folder, or empty this one").into());
        }
        None => Vec::new(),
    };
    shards_in(out_dir)?;
    write_classes(data.classes(), out_dir)?;
    if known.is_empty() {
        // Before the first shard: who opens the folder meanwhile sees that it is a part.
        write_manifest(&manifest, out_dir)?;
    }

    let order = order(data.len(), options.seed);
    let mut ready: VecDeque<(String, Vec<u8>)> = VecDeque::new();
    let mut done = 0;
    while done < order.len() {
        let number = manifest.shards.len();
        let name = shard_name(number);
        if let Some(shard) = known.get(number)
            && shard.name == name
            && (1..=order.len() - done).contains(&shard.samples)
            && is_as_recorded(&out_dir.join(&name), shard)?
        {
            ready.drain(..ready.len().min(shard.samples));
            done += shard.samples;
            manifest.shards.push(shard.clone());
        } else {
            let mut tell = |within: usize| {
                progress(Progress { done: done + within, samples: data.len(), shards: number })
            };
            let written = write_shard(data, &order[done..], &mut ready, out_dir, name, options, &mut tell)?;
            let Some(shard) = written else { return Ok(None) };
            // Samples that have changed since fall elsewhere, and all that follow with them.
            if known.get(number).is_some_and(|known| known.samples != shard.samples) {
                known.truncate(number);
            }
            done += shard.samples;
            manifest.shards.push(shard);
            // What is known of later shards stays, for a packing that is broken off once more.
            let mut kept = manifest.clone();
            kept.shards.extend(known.iter().skip(number + 1).cloned());
            write_manifest(&kept, out_dir)?;
        }
        let so_far = Progress { done, samples: data.len(), shards: manifest.shards.len() };
        if progress(so_far).is_break() && done < order.len() {
            return Ok(None);
        }
    }
    remove_later(out_dir, manifest.shards.len())?;
    manifest.complete = true;
    write_manifest(&manifest, out_dir)?;
    Ok(Some(manifest))
}

fn check(options: &PackOptions) -> Result<()> {
    if !(1..=100).contains(&options.quality) {
        let message = format!("the JPEG quality is {}, but 1 to 100 is expected", options.quality);
        return Err(usage(message).hint("90 is hardly seen").into());
    }
    if options.shard_bytes < 4096 {
        let message = format!("shards of {} bytes hold nothing", options.shard_bytes);
        return Err(usage(message).hint("256 MiB is usual").into());
    }
    if let Some(side) = options.short_side.filter(|side| !(8..=1 << 14).contains(side)) {
        let message = format!("a short side of {side} pixels, but 8 to 16384 is expected");
        return Err(usage(message).hint("256 suits networks for 224 pixels").into());
    }
    Ok(())
}

/// Opening a folder of shards whose packing was broken off would train on a part.
///
/// # Errors
/// When the folder has a manifest that says so, or shards of other sizes than it says.
pub fn check_finished(folder: &Path, names: &[String]) -> Result<()> {
    let Some(manifest) = read_manifest(folder)? else { return Ok(()) };
    if !manifest.complete {
        let message = format!("{}: packing has not finished", folder.display());
        return Err(failed(message).hint("pack again with the same options; whole shards are kept").into());
    }
    let strange = |name: &&String| !manifest.shards.iter().any(|shard| shard.name == **name);
    if names.len() > manifest.shards.len()
        && let Some(name) = names.iter().find(strange)
    {
        let message = format!("{}: {MANIFEST} does not name {name}", folder.display());
        return Err(failed(message).hint("move the shard elsewhere").into());
    }
    for shard in &manifest.shards {
        let size = fs::metadata(folder.join(&shard.name)).map(|metadata| metadata.len()).ok();
        if size != Some(shard.bytes) || names.binary_search(&shard.name).is_err() {
            let found = size.map_or("it is missing".to_string(), |size| format!("it has {size}"));
            let path = folder.join(&shard.name);
            let message = format!("{}: {MANIFEST} says {} bytes, but {found}", path.display(), shard.bytes);
            return Err(failed(message).hint("pack again with the same options, or fetch it again").into());
        }
    }
    Ok(())
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Ok(None);
    }
    let text = files::read(&path)?;
    let hint = "remove it, and the shards, to pack again";
    // Other programs keep manifests, too.
    #[derive(Deserialize)]
    struct Format {
        format: Option<serde_json::Value>,
    }
    match parse_json::<Format>(&text) {
        Ok(Format { format }) if format.as_ref().and_then(|format| format.as_str()) == Some(FORMAT) => {}
        _ => return Ok(None),
    }
    let damaged = |what: String| failed(format!("{}: {what}", path.display())).hint(hint);
    let manifest: Manifest = parse_json(&text).map_err(|error| damaged(error.to_string()))?;
    if manifest.version != VERSION {
        return Err(damaged(format!("version {VERSION} is expected, not {}", manifest.version)).into());
    }
    if let Some((number, shard)) =
        manifest.shards.iter().enumerate().find(|(number, shard)| shard.name != shard_name(*number))
    {
        return Err(damaged(format!("shard {number} is called `{}`", shard.name.escape_debug())).into());
    }
    Ok(Some(manifest))
}

fn write_manifest(manifest: &Manifest, folder: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    files::write_atomic(&folder.join(MANIFEST), &text)
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:06}.tar")
}

/// The shards in a folder, by number. Foreign ones are refused: who opens the folder would read them as well.
fn shards_in(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let unreadable = || format!("cannot list the folder {}", folder.display());
    let mut shards = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = escaped(entry.file_name().as_bytes());
        if !name.ends_with(".tar") || name.starts_with('.') {
            continue;
        }
        let digits = name.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".tar"));
        let number = digits.and_then(|digits| decimal(digits.as_bytes())).map(|number| number as usize);
        match number.filter(|number| shard_name(*number) == name) {
            Some(number) => shards.push((number, entry.path())),
            None => {
                let message = format!("{} holds other shards already ({name})", folder.display());
                return Err(failed(message).hint("choose an empty folder").into());
            }
        }
    }
    Ok(shards)
}

/// Removes what an earlier packing has left behind the last shard.
fn remove_later(folder: &Path, count: usize) -> Result<()> {
    for (number, path) in shards_in(folder)? {
        if number >= count {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_classes(classes: &[String], folder: &Path) -> Result<()> {
    let unfit =
        |name: &&String| name.contains(['\n', '\r']) || name.trim() != name.as_str() || name.is_empty();
    if let Some(name) = classes.iter().find(unfit) {
        let message = format!("the class \"{}\" cannot be a line of classes.txt", name.escape_debug());
        return Err(failed(message).hint("rename its folder").into());
    }
    files::write_atomic(&folder.join("classes.txt"), (classes.join("\n") + "\n").as_bytes())
}

fn fingerprint(data: &dyn Dataset, options: &PackOptions) -> String {
    let mut hash = Sha256::new();
    let mut text = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let PackOptions { shard_bytes, short_side, quality, seed, threads: _ } = options;
    text(format!("{VERSION} {shard_bytes} {short_side:?} {quality} {seed} {}", data.len()).as_bytes());
    data.classes().iter().for_each(|class| text(class.as_bytes()));
    for index in 0..data.len() {
        text(data.relative_name(index).as_bytes());
        text(&(data.label(index) as u64).to_le_bytes());
    }
    format!("{:x}", hash.finalize())
}

fn order(len: usize, seed: u64) -> Vec<usize> {
    let mut random = rng::stream(seed, "pack", [0, 0]);
    let mut order: Vec<usize> = (0..len).collect();
    for place in 0..len {
        order.swap(place, random.random_range(place..len));
    }
    order
}

fn is_as_recorded(path: &Path, shard: &Shard) -> Result<bool> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let unreadable = || format!("cannot read {}", path.display());
    if file.metadata().with_context(unreadable)?.len() != shard.bytes {
        return Ok(false);
    }
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).with_context(unreadable)? {
            0 => return Ok(format!("{:x}", hash.finalize()) == shard.sha256),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Hashes and counts what goes through.
struct Hashed<W> {
    output: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Writes the first samples of `order` that fit, or nothing where `tell` breaks off. `ready` holds those that are
/// encoded already, in order.
fn write_shard(
    data: &dyn Dataset,
    order: &[usize],
    ready: &mut VecDeque<(String, Vec<u8>)>,
    folder: &Path,
    name: String,
    options: &PackOptions,
    tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Shard>> {
    let path = folder.join(&name);
    let unwritable = |error| files::unwritable(&path, error);
    // Removed where anything fails.
    let partial = TempPath::try_from_path(folder.join(format!(".{name}.partial"))).map_err(unwritable)?;
    let file = File::create(&partial).map_err(unwritable)?;
    let mut output =
        Hashed { output: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), bytes: 0 };
    let mut samples = 0;
    while samples < order.len() {
        if ready.is_empty() {
            let next = &order[samples..order.len().min(samples + 16 * options.threads.max(1))];
            let encoded =
                workers::map(next.len(), options.threads, |place| encode(data, next[place], options));
            for (index, encoded) in next.iter().zip(encoded) {
                let (extension, bytes) = encoded?;
                ready.push_back((format!("{index:08}.{extension}"), bytes));
            }
            if tell(samples).is_break() {
                return Ok(None);
            }
        }
        let Some((member, bytes)) = ready.front() else { break };
        let label = data.label(order[samples]).to_string();
        let size = member_bytes(bytes.len()) + member_bytes(label.len());
        if samples > 0 && output.bytes + size + END_BYTES > options.shard_bytes {
            break;
        }
        let key = member.split_once('.').map_or(member.as_str(), |(key, _)| key);
        write_member(&mut output, member, bytes).map_err(unwritable)?;
        write_member(&mut output, &format!("{key}.cls"), label.as_bytes()).map_err(unwritable)?;
        ready.pop_front();
        samples += 1;
    }
    write_end(&mut output).map_err(unwritable)?;
    let Hashed { output, hash, bytes } = output;
    let file = output.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.sync_all().map_err(unwritable)?;
    partial.persist(&path).map_err(|error| unwritable(error.error))?;
    Ok(Some(Shard { name, samples, bytes, sha256: format!("{:x}", hash.finalize()) }))
}

/// A sample as it goes into a shard: its extension and bytes.
fn encode(data: &dyn Dataset, index: usize, options: &PackOptions) -> Result<(&'static str, Vec<u8>)> {
    let too_large = |width: usize, height: usize| options.short_side.filter(|side| width.min(height) > *side);
    let mut bytes = Vec::new();
    let image = if data.encoded(index, &mut bytes)? {
        if bytes.starts_with(&[0xff, 0xd8])
            && let Ok((width, height)) = dimensions(&bytes)
            && too_large(width, height).is_none()
        {
            return Ok(("jpg", bytes));
        }
        decode::decode(&bytes).map_err(|error| data.undecodable(index, &error))?
    } else {
        let image = data.image(index)?;
        // Pixels that were never compressed stay what they are.
        if too_large(image.width, image.height).is_none() {
            return Ok(("png", to_png(&image)?));
        }
        image
    };
    let image = match too_large(image.width, image.height) {
        Some(side) => shrink(&image, side)?,
        None => image,
    };
    Ok(("jpg", to_jpeg(&image, options.quality)?))
}

/// So that the short side has `side` pixels.
fn shrink(image: &Image, side: usize) -> Result<Image> {
    let short = image.width.min(image.height);
    let scaled = |length: usize| ((length * side + short / 2) / short).max(1);
    let (width, height, channels) = (scaled(image.width), scaled(image.height), image.channels);
    let kind = if channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let source = ImageRef::new(image.width as u32, image.height as u32, &image.pixels, kind)?;
    let mut target = FirImage::new(width as u32, height as u32, kind);
    let lanczos =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false);
    Resizer::new().resize(&source, &mut target, &lanczos)?;
    Ok(Image { width, height, channels, pixels: target.into_vec() })
}

fn to_jpeg(image: &Image, quality: u8) -> Result<Vec<u8>> {
    let (format, subsampling) = match image.channels {
        1 => (turbojpeg::PixelFormat::GRAY, turbojpeg::Subsamp::Gray),
        _ => (turbojpeg::PixelFormat::RGB, turbojpeg::Subsamp::Sub2x2),
    };
    let mut compressor = turbojpeg::Compressor::new()?;
    compressor.set_quality(i32::from(quality))?;
    compressor.set_subsamp(subsampling)?;
    compressor.set_optimize(true)?;
    let source = turbojpeg::Image {
        pixels: image.pixels.as_slice(),
        width: image.width,
        pitch: image.width * image.channels,
        height: image.height,
        format,
    };
    Ok(compressor.compress_to_vec(source)?)
}

fn to_png(image: &Image) -> Result<Vec<u8>> {
    let colour = if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(
        &image.pixels,
        image.width as u32,
        image.height as u32,
        colour,
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{ShardDataset, ShardOptions};
    use super::*;
    use crate::data::Split;
    use crate::data::index::Cache;
    use image::{DynamicImage, ImageFormat, RgbImage};
    use std::io::Cursor;

    /// A file or pixels.
    #[derive(Clone)]
    enum Sample {
        Encoded(Vec<u8>),
        Pixels(Image),
    }

    /// Pictures in memory.
    struct Pictures {
        samples: Vec<Sample>,
        classes: Vec<String>,
        reads: std::sync::atomic::AtomicUsize,
    }

    impl Dataset for Pictures {
        fn len(&self) -> usize {
            self.samples.len()
        }
        fn classes(&self) -> &[String] {
            &self.classes
        }
        fn channels(&self) -> usize {
            3
        }
        fn natural_size(&self) -> Option<(usize, usize)> {
            None
        }
        fn label(&self, index: usize) -> usize {
            index % 3
        }
        fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
            self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if let Sample::Encoded(file) = &self.samples[index] {
                bytes.clone_from(file);
                return Ok(true);
            }
            Ok(false)
        }
        fn image(&self, index: usize) -> Result<Image> {
            let Sample::Pixels(image) = &self.samples[index] else { panic!("a file") };
            Ok(image.clone())
        }
        fn source_name(&self, index: usize) -> String {
            format!("memory:{index}")
        }
        fn relative_name(&self, index: usize) -> String {
            self.source_name(index)
        }
    }

    fn picture(width: u32, height: u32, tone: u8, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, tone]));
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn pictures(count: usize) -> Pictures {
        let sample = |index: usize| match index % 4 {
            0 => Sample::Encoded(picture(40, 30, index as u8, ImageFormat::Jpeg)),
            1 => Sample::Encoded(picture(120, 90, index as u8, ImageFormat::Jpeg)),
            2 => Sample::Encoded(picture(40, 30, index as u8, ImageFormat::Png)),
            _ => Sample::Pixels(Image {
                width: 8,
                height: 8,
                channels: 3,
                pixels: (0..192).map(|value| value + index as u8 % 60).collect(),
            }),
        };
        let classes = ["cat", "dog", "fox"].map(str::to_string).to_vec();
        Pictures { samples: (0..count).map(sample).collect(), classes, reads: 0.into() }
    }

    fn options() -> PackOptions {
        PackOptions { shard_bytes: 20_000, short_side: Some(32), threads: 3, ..PackOptions::default() }
    }

    fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .filter(|(name, _)| !name.starts_with(".senet"))
            .collect();
        files.sort();
        files
    }

    /// To the end.
    fn packed(data: &Pictures, dir: &Path, options: &PackOptions) -> Result<Manifest> {
        pack(data, dir, options, &mut |_| ControlFlow::Continue(())).map(|manifest| manifest.unwrap())
    }

    fn open(dir: &Path) -> Result<ShardDataset> {
        let options = ShardOptions { cache: Cache::none(), ..ShardOptions::default() };
        ShardDataset::open(dir, Split::Train, &options)
    }

    #[test]
    fn packed_samples_come_back_small_mixed_and_labelled() {
        let data = pictures(60);
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("train");
        let mut told = Vec::new();
        let mut tell = |progress| {
            told.push(progress);
            ControlFlow::Continue(())
        };
        let manifest = pack(&data, &dir, &options(), &mut tell).unwrap().unwrap();
        assert!(manifest.complete && manifest.shards.len() > 3);
        assert_eq!(told.last().unwrap(), &Progress { done: 60, samples: 60, shards: manifest.shards.len() });
        assert!(told.is_sorted_by_key(|progress| progress.done));
        for shard in &manifest.shards {
            assert!(shard.bytes <= 20_000, "{}", shard.bytes);
            assert!(is_as_recorded(&dir.join(&shard.name), shard).unwrap());
        }
        let packed = open(root.path()).unwrap();
        assert_eq!((packed.len(), packed.classes()), (60, data.classes()));
        let mut seen: Vec<usize> = Vec::new();
        for index in 0..60 {
            let name = packed.relative_name(index);
            let source: usize = name.rsplit(':').next().unwrap().parse().unwrap();
            seen.push(source);
            assert_eq!(packed.label(index), data.label(source));
            let mut bytes = Vec::new();
            assert!(packed.encoded(index, &mut bytes).unwrap());
            let image = decode::decode(&bytes).unwrap();
            match (&data.samples[source], source % 4) {
                (Sample::Encoded(original), 0) => assert_eq!(&bytes, original, "bytes are kept"),
                (_, 1) => assert_eq!((image.width, image.height), (43, 32)),
                (_, 2) => assert_eq!((image.width, image.height, bytes[0]), (40, 30, 0xff)),
                (Sample::Pixels(original), _) => assert_eq!(&image, original),
                _ => unreachable!(),
            }
        }
        assert!(!seen.is_sorted());
        seen.sort_unstable();
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_again_whatever_the_threads_and_interruptions() {
        let data = pictures(60);
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        let manifest = packed(&data, &one, &options()).unwrap();
        packed(&data, &two, &PackOptions { threads: 1, ..options() }).unwrap();
        let whole = contents(&one);
        assert!(whole == contents(&two));
        // Nothing is read when all is there.
        let before = data.reads.load(std::sync::atomic::Ordering::Relaxed);
        packed(&data, &one, &options()).unwrap();
        assert_eq!(data.reads.load(std::sync::atomic::Ordering::Relaxed), before);
        // One damaged, one cut, one gone; and one not in the manifest.
        let path = |number: usize| one.join(shard_name(number));
        let mut bytes = fs::read(path(0)).unwrap();
        bytes[700] ^= 1;
        fs::write(path(0), bytes).unwrap();
        let bytes = fs::read(path(2)).unwrap();
        fs::write(path(2), &bytes[..bytes.len() / 2]).unwrap();
        fs::write(one.join(format!(".{}.partial", shard_name(3))), "half").unwrap();
        fs::remove_file(path(3)).unwrap();
        let mut shorter = manifest.clone();
        shorter.shards.pop();
        shorter.complete = false;
        write_manifest(&shorter, &one).unwrap();
        let error = open(&one).err().unwrap().to_string();
        assert!(error.contains("packing has not finished"), "{error}");
        packed(&data, &one, &options()).unwrap();
        assert!(whole == contents(&one));
        // Stopped again and again, with a shard more each time.
        let stopped = root.path().join("stopped");
        let mut rounds = 1;
        while pack(&data, &stopped, &options(), &mut |progress| match progress.shards < rounds {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
        .unwrap()
        .is_none()
        {
            rounds += 1;
        }
        assert!(rounds > 3 && whole == contents(&stopped));
        // Other seeds give other orders.
        let other = root.path().join("other");
        packed(&data, &other, &PackOptions { seed: 1, ..options() }).unwrap();
        assert!(whole[2..] != contents(&other)[2..]);
    }

    #[test]
    fn other_shards_are_not_mixed_in() {
        let data = pictures(8);
        let root = tempfile::tempdir().unwrap();
        let refused =
            |options: &PackOptions| format!("{:#}", packed(&data, root.path(), options).unwrap_err());
        fs::write(root.path().join("foreign.tar"), "").unwrap();
        assert!(refused(&options()).contains("holds other shards already (foreign.tar)"));
        fs::remove_file(root.path().join("foreign.tar")).unwrap();
        packed(&data, root.path(), &options()).unwrap();
        assert!(refused(&PackOptions { quality: 50, ..options() }).contains("other data or options"));
        assert!(refused(&PackOptions { quality: 0, ..options() }).contains("quality is 0"));
        assert!(refused(&PackOptions { short_side: Some(1), ..options() }).contains("short side of 1"));
        fs::write(root.path().join(MANIFEST), "{\"format\": \"senet-shards\"}").unwrap();
        assert!(refused(&options()).contains("manifest.json: missing field"));
        let shard = root.path().join(shard_name(0));
        fs::remove_file(root.path().join(MANIFEST)).unwrap();
        packed(&data, root.path(), &options()).unwrap();
        File::options().append(true).open(shard).unwrap().write_all(b"x").unwrap();
        assert!(open(root.path()).err().unwrap().to_string().contains("manifest.json says"));
    }

    #[test]
    fn a_sample_that_does_not_decode_is_named() {
        let mut data = pictures(8);
        data.samples[5] = Sample::Encoded(b"this is text".to_vec());
        let root = tempfile::tempdir().unwrap();
        let error = format!("{:#}", packed(&data, root.path(), &options()).unwrap_err());
        assert!(error.contains("cannot decode memory:5: not an image"), "{error}");
    }
}
