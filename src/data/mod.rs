//! Images and labels, from files to batches on the device.
//!
//! The way of a sample: [`Dataset::image`] (a file or a piece of one, [decoded](decode)) → [`augment`] (crop,
//! flip, resize) → a place in a batch of u8 NHWC, filled by the [`loader`]'s threads in the [`order`] of the epoch
//! → [`Normalise`], on the device, to floats in channels_last.

pub mod augment;
pub mod cifar;
pub mod class_names;
pub mod class_order;
pub mod decode;
pub mod faults;
pub mod folder;
pub mod idx;
pub mod imagenet_meta;
pub mod imagenet_val;
pub mod images;
pub mod index;
pub mod jpeg;
pub mod loader;
pub mod memory;
pub mod order;
pub mod preprocessing;
pub mod quarantine;
pub mod real_labels;
pub mod sample;
pub mod sampling;
pub mod shards;
pub mod share;
mod source;
pub mod split;
pub mod stages;
pub mod subset;
pub mod synthetic;
pub mod verify;
pub mod views;
mod walk;
pub mod workers;

use crate::error::{Result, failed, usage};
use crate::torch_ext::host;
pub use preprocessing::Preprocessing;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shards::ShardOptions;
pub use split::Split;
use split::SplitOrigin;
use std::path::PathBuf;
use std::sync::Arc;
use subset::Subset;
use tch::{Device, Kind, TchError, Tensor};

/// Largest height and width of a network's input, in pixels.
pub const MAX_SIZE: usize = 1 << 14;

/// Pixels of one image, row by row, channels innermost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// W.
    pub width: usize,
    /// H.
    pub height: usize,
    /// C: 1 or 3.
    pub channels: usize,
    /// H·W·C values.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Luma by ITU-R 601, rounded as Pillow rounds it.
    pub fn to_gray(&self) -> Self {
        if self.channels == 1 {
            return self.clone();
        }
        let pixels = self.pixels.chunks_exact(3).map(augment::colour::luma).collect();
        Self { width: self.width, height: self.height, channels: 1, pixels }
    }
}

/// Labelled images with random access; asked by several threads at once.
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;
    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Names of the classes, in the order of the labels.
    fn classes(&self) -> &[String];
    /// Channels of all images.
    fn channels(&self) -> usize;
    /// Height and width, where all images have the same.
    fn natural_size(&self) -> Option<(usize, usize)>;
    /// Class index of sample `index`.
    fn label(&self, index: usize) -> usize;
    /// Pixels of sample `index`.
    ///
    /// # Errors
    /// When the sample cannot be read or decoded; the message names its file.
    fn image(&self, index: usize) -> Result<Image>;
    /// Puts the bytes of sample `index`'s RGB image file into `bytes`, in place of what was there, and returns true; or
    /// returns false where samples are no files. Of a file no more is then decoded than is needed.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn encoded(&self, _index: usize, _bytes: &mut Vec<u8>) -> Result<bool> {
        Ok(false)
    }
    /// Where sample `index` lies, as the user would write it: a path, `shard:key` or `file:number`.
    fn source_name(&self, index: usize) -> String;
    /// The same relative to the data's folder, with `/` between the parts: what a [quarantine] list calls it,
    /// wherever the data is mounted.
    fn relative_name(&self, index: usize) -> String;
    /// What is said of an encoded sample that cannot be decoded because of `error`.
    fn undecodable(&self, index: usize, error: &anyhow::Error) -> anyhow::Error {
        failed(format!("cannot decode {}: {error:#}", self.source_name(index)))
            .hint("remove or replace the file; `data.on_error=skip` goes on without")
            .into()
    }
    /// How the samples were listed, where they lie in many files.
    fn listing(&self) -> Option<index::Listing> {
        None
    }
    /// Which split they are, by its name; of synthetic data, nothing.
    fn origin(&self) -> Option<SplitOrigin> {
        None
    }
}

/// Decodes sample `index` of a data set of image files.
fn decode_file(data: &dyn Dataset, index: usize) -> Result<Image> {
    let mut bytes = Vec::new();
    data.encoded(index, &mut bytes)?;
    decode::decode(&bytes).map_err(|error| data.undecodable(index, &error))
}

/// Form in which a data set is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Whatever `data.dir` holds.
    Auto,
    /// MNIST's IDX files, gzip or not.
    Idx,
    /// `train/CLASS/**` and `val/CLASS/**` (or `valid/`, `validation/`, `dev/`, `test/`).
    Folder,
    /// Tar shards by WebDataset's convention; `data.dir` may also be one shard or a pattern.
    Shards,
    /// The binary files of CIFAR-10 or CIFAR-100.
    Cifar,
    /// ImageNet as it is handed out: `train/CLASS/*`, and a flat `val/` with a list of labels.
    ImagenetVal,
    /// Made up, seeded and learnable; needs no files.
    Synthetic,
}

/// How the training crop is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// As in evaluation.
    None,
    /// A random window of the image with `data.padding` zeros on each side (CIFAR).
    Pad,
    /// A random part of 8-100 % of the area and 3:4 to 4:3 in shape, resized (ImageNet).
    Resized,
}

/// What to load and how to prepare it. `null` means: what suits the data; a run saves what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// Form of the data.
    pub source: Source,
    /// Folder of the data, or a pattern of shards.
    pub dir: PathBuf,
    /// Order of class folders that are named by numbers, and with it of the network's outputs.
    pub class_order: class_order::ClassOrder,
    /// List of samples that are left out of both halves, as `senet data verify` writes it.
    pub quarantine: Option<PathBuf>,
    /// Train on a seeded subset of this many samples.
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// Height and width of the network's input in pixels.
    #[schemars(range(min = 1, max = MAX_SIZE))]
    pub size: Option<usize>,
    /// Training crop; `null` is `none` where all images have the network's size already, else `resized`.
    pub crop: Option<Crop>,
    /// Zeros on each side for the `pad` crop, in pixels.
    #[schemars(range(max = MAX_SIZE))]
    pub padding: usize,
    /// The `resized` crop: smallest and largest share of the image's area.
    #[schemars(inner(range(min = 0.001, max = 1)))]
    pub crop_area: [f64; 2],
    /// Whether training mirrors every other image.
    pub flip: bool,
    /// What else is done to training images, in this order, after crop and flip.
    pub augment: augment::Augment,
    /// Whether training may decode JPEGs at a half, quarter or eighth where that leaves enough pixels: faster, but other
    /// pixels.
    pub scaled_decoding: bool,
    /// Which samples an epoch has, in which order.
    pub sampling: sampling::Sampling,
    /// Evaluation: length of the short side before the centre crop, in pixels.
    #[schemars(range(min = 1, max = 2 * MAX_SIZE))]
    pub resize: Option<usize>,
    /// Mean of each channel, as a fraction of 255.
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, as a fraction of 255.
    pub std: Option<Vec<f64>>,
    /// Threads that prepare batches; `null` is one for each core.
    #[schemars(range(min = 1))]
    pub threads: Option<usize>,
    /// What to do about a file that cannot be read or decoded.
    pub on_error: faults::OnError,
    /// Largest share of such files that is skipped; more stop the run.
    #[schemars(range(min = 0, max = 1))]
    pub max_bad: f64,
    /// The made-up data set.
    pub synthetic: synthetic::SyntheticSpec,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            source: Source::Auto,
            dir: PathBuf::from("data/fashion-mnist"),
            class_order: class_order::ClassOrder::default(),
            quarantine: None,
            limit: None,
            size: None,
            crop: None,
            padding: 4,
            crop_area: [0.08, 1.0],
            flip: true,
            augment: augment::Augment::default(),
            scaled_decoding: false,
            sampling: sampling::Sampling::default(),
            resize: None,
            mean: None,
            std: None,
            threads: None,
            on_error: faults::OnError::default(),
            max_bad: 0.01,
            synthetic: synthetic::SyntheticSpec::default(),
        }
    }
}

/// Channel statistics of Fashion-MNIST, for images of one channel.
const FASHION_MNIST_MEAN: [f64; 1] = [0.2860];
const FASHION_MNIST_STD: [f64; 1] = [0.3530];

impl DataSpec {
    /// Opens one half of the data.
    ///
    /// # Errors
    /// When the data is missing, damaged or of another form.
    pub fn open(&self, split: Split, seed: u64) -> Result<Arc<dyn Dataset>> {
        let all = self.open_whole(split, seed, &ShardOptions::for_training())?;
        let all = match &self.quarantine {
            Some(path) => quarantine::without_listed(all, path)?,
            None => all,
        };
        match (self.limit, split) {
            (Some(0), _) => Err(usage("`data.limit` is 0, but training needs samples").into()),
            (Some(limit), Split::Train) if limit < all.len() => {
                let indices = order::subset(all.len(), limit, seed).into_iter().map(|index| index as u32);
                Ok(Arc::new(Subset::new(all, indices.collect())))
            }
            _ => Ok(all),
        }
    }

    /// Fills in what is `null` for a data set and a network that was made for `network`.
    ///
    /// # Errors
    /// When a setting does not fit the data.
    pub fn resolve(&mut self, data: &dyn Dataset, network: &Preprocessing) -> Result<()> {
        let natural = data.natural_size();
        let size = *self.size.get_or_insert(match natural {
            Some((height, width)) if height == width => height,
            _ => network.size,
        });
        self.crop.get_or_insert(if natural == Some((size, size)) { Crop::None } else { Crop::Resized });
        let resize = *self.resize.get_or_insert(match natural {
            Some(_) => size,
            // The network's share, at other sizes than its own, too.
            None => (size * network.resize).div_ceil(network.size),
        });
        if resize < size {
            let message = format!("`data.resize` is {resize}, less than the {size} pixels of `data.size`");
            return Err(usage(message).hint("a centre crop cannot be larger than its image").into());
        }
        let gray = data.channels() == 1;
        let mean = if gray { FASHION_MNIST_MEAN.to_vec() } else { network.mean.clone() };
        let std = if gray { FASHION_MNIST_STD.to_vec() } else { network.std.clone() };
        let mean = self.mean.get_or_insert(mean);
        let std = self.std.get_or_insert(std);
        for (key, values) in [("mean", &*mean), ("std", &*std)] {
            if values.len() != data.channels() {
                let message = format!(
                    "`data.{key}` has {} values, but the images have {} channel(s)",
                    values.len(),
                    data.channels()
                );
                return Err(usage(message).hint("null takes what suits the data").into());
            }
        }
        if let Some(value) = std.iter().find(|value| !(1e-6..=1e6).contains(*value)) {
            let message = format!("`data.std` holds {value:e}, but a fraction of 255 is expected");
            return Err(usage(message).hint("for example 0.25").into());
        }
        Ok(())
    }

    /// How images are prepared, of a [resolved](Self::resolve) specification.
    pub fn preprocessing(&self) -> Preprocessing {
        let resolved = "the data specification is resolved";
        Preprocessing {
            size: self.size.expect(resolved),
            resize: self.resize.expect(resolved),
            mean: self.mean.clone().expect(resolved),
            std: self.std.clone().expect(resolved),
        }
    }

    /// The other way around: a resolved specification that prepares images so.
    pub fn prepared(preprocessing: &Preprocessing) -> Self {
        let mut spec = Self { crop: Some(Crop::None), ..Self::default() };
        spec.preprocess_as(preprocessing);
        spec
    }

    /// Replaces how images are prepared.
    pub fn preprocess_as(&mut self, preprocessing: &Preprocessing) {
        let Preprocessing { size, resize, mean, std } = preprocessing.clone();
        (self.size, self.resize, self.mean, self.std) = (Some(size), Some(resize), Some(mean), Some(std));
    }

    /// Whether nobody has said which data: it is the built-in default's.
    pub fn is_unnamed(&self) -> bool {
        let default = Self::default();
        (self.source, &self.dir) == (default.source, &default.dir)
    }

    /// Where the data is from, for people.
    pub fn in_words(&self) -> String {
        match self.source {
            Source::Synthetic => "made-up data".to_string(),
            _ => self.dir.display().to_string(),
        }
    }

    /// Threads that prepare batches.
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(crate::process::allowed_cores).max(1)
    }
}

/// From bytes to what a network was trained on: (x / 255 - mean) / std, on the device.
#[derive(Debug)]
pub struct Normalise {
    /// 1 / (255 · std), `[C]`.
    factor: Tensor,
    /// -mean / std, `[C]`.
    offset: Tensor,
}

impl Normalise {
    /// For channels of these means and standard deviations (fractions of 255).
    pub fn new(mean: &[f64], std: &[f64], device: Device) -> Self {
        let factor: Vec<f32> = std.iter().map(|std| (1.0 / (255.0 * std)) as f32).collect();
        let offset: Vec<f32> = mean.iter().zip(std).map(|(mean, std)| (-mean / std) as f32).collect();
        let on_device = |values: &[f32]| Tensor::from_slice(values).to_device(device);
        Self { factor: on_device(&factor), offset: on_device(&offset) }
    }

    /// u8 `[N, H, W, C]` to float `[N, C, H, W]` in channels_last.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn apply(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        let floats = match pixels.device() {
            Device::Cpu => host::normalise(&pixels.f_contiguous()?, &self.factor, &self.offset)?,
            _ => self.offset.f_addcmul(&pixels.f_to_kind(Kind::Float)?, &self.factor)?,
        };
        floats.f_permute([0, 3, 1, 2])
    }
}
