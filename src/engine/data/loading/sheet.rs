//! A contact sheet: samples as the network will see them, side by side.

use super::Pipeline;
use crate::data::faults::Faults;
use crate::data::loader::Loader;
use crate::error::{Result, failed};
use image::{DynamicImage, ImageFormat, RgbImage, imageops};
use std::io::Cursor;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Pixels between two samples.
const GAP: u32 = 4;
/// Gray that the samples lie on.
const GROUND: u8 = 32;
/// Widest sheet, in pixels.
const WIDEST: usize = 4096;

/// A picture of some samples.
pub struct Sheet {
    /// A PNG.
    pub png: Vec<u8>,
    /// Number and class of each sample, row by row from the upper left.
    pub samples: Vec<(usize, String)>,
    /// Samples in a row.
    pub columns: usize,
    /// Samples that could not be read.
    pub warnings: Vec<String>,
}

/// The first `count` samples of an epoch of the pipeline.
///
/// # Errors
/// When the data cannot be read.
pub fn sheet(pipeline: &Pipeline, epoch: u64, count: usize, threads: usize) -> Result<Sheet> {
    let faults = Arc::new(Faults::new(&pipeline.spec, pipeline.dataset.len()));
    let loader = Loader::start(pipeline.plan(&faults, epoch)?, 0, threads, Device::Cpu);
    let mut tiles = Vec::new();
    let mut samples = Vec::new();
    for batch in loader {
        let batch = batch?;
        for (row, &sample) in batch.samples.iter().enumerate().take(count - samples.len()) {
            tiles.push(tile(&batch.pixels, row)?);
            let label = batch.labels.int64_value(&[row as i64]) as usize;
            samples.push((sample, pipeline.dataset.classes()[label].clone()));
        }
        if samples.len() == count {
            break;
        }
    }
    let Some(first) = tiles.first() else { return Err(failed("there is no sample to show").into()) };
    let (side, gap) = (first.width(), GAP);
    let fitting = (WIDEST / (side + gap) as usize).max(1);
    let columns = ((tiles.len() as f64).sqrt().ceil() as usize).min(fitting);
    let rows = tiles.len().div_ceil(columns) as u32;
    let length = |tiles: u32| tiles * (side + gap) + gap;
    let mut sheet = RgbImage::from_pixel(length(columns as u32), length(rows), image::Rgb([GROUND; 3]));
    for (place, tile) in tiles.iter().enumerate() {
        let [x, y] = [place % columns, place / columns].map(|at| at as u32 * (side + gap) + gap);
        imageops::replace(&mut sheet, tile, i64::from(x), i64::from(y));
    }
    let mut png = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(sheet).write_to(&mut png, ImageFormat::Png)?;
    Ok(Sheet { png: png.into_inner(), samples, columns, warnings: faults.take_news() })
}

/// Sample `row` of u8 `[N, H, W, C]` as RGB.
fn tile(pixels: &Tensor, row: usize) -> Result<RgbImage> {
    let [_, height, width, channels] = pixels.size()[..] else { return Err(failed("not a batch").into()) };
    let bytes: Vec<u8> = Vec::try_from(pixels.f_select(0, row as i64)?.f_flatten(0, -1)?)?;
    let rgb = if channels == 1 { bytes.into_iter().flat_map(|value| [value; 3]).collect() } else { bytes };
    RgbImage::from_raw(width as u32, height as u32, rgb).ok_or_else(|| failed("not RGB").into())
}
