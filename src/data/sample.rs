//! From the bytes of an image file to one sample, with nothing done that the sample does not need.
//!
//! A [`Workbench`] belongs to one thread and keeps what is used from sample to sample. Of a JPEG only the region is
//! decoded that the window and the resampling filter touch.

use super::augment::Window;
use super::jpeg::{Jpeg, Region, Scale};
use super::memory::Reservation;
pub use super::stages::Stage;
use super::stages::Stages;
use super::{Image, decode};
use crate::error::{Result, failed};
use fast_image_resize::images::{CroppedImage, Image as FirImage, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Decoded pixels of more bytes than these are not kept for the next sample.
const KEPT_BYTES: usize = 64 << 20;

/// What a thread that makes samples uses again and again.
#[derive(Default)]
pub struct Workbench {
    resizer: Resizer,
    /// Decoded pixels; only as long as the largest so far.
    pixels: Vec<u8>,
    reduced: bool,
    /// What it has spent its time on.
    pub stages: Stages,
}

/// Some of an image's pixels.
#[derive(Clone, Copy)]
struct View<'a> {
    width: usize,
    height: usize,
    channels: usize,
    pixels: &'a [u8],
}

impl Workbench {
    /// For samples of full quality.
    pub fn new() -> Self {
        Self::default()
    }

    /// For samples that may be made of JPEGs decoded at a half, quarter or eighth, where that leaves at least as many
    /// pixels as the sample has. Faster, but other pixels: each is the mean of a square, as it was in the JPEG.
    pub fn reduced() -> Self {
        Self { reduced: true, ..Self::default() }
    }

    /// Makes a sample of an encoded image: `choose` gets its width and height and says which part becomes
    /// `size` × `size` RGB pixels in `out`. It is asked once.
    ///
    /// # Errors
    /// When the bytes are no image, end early or promise an absurd size.
    pub fn sample(
        &mut self,
        bytes: &[u8],
        size: usize,
        choose: impl FnOnce(usize, usize) -> Window,
        out: &mut [u8],
    ) -> Result<()> {
        let Some(jpeg) = open(bytes) else {
            let (image, _reservation) = self.decode(bytes)?;
            return self.resample(&image, choose(image.width, image.height), size, out);
        };
        let (width, height) = jpeg.size();
        decode::check_size(width, height)?;
        let window = choose(width, height);
        let reservation = decode::reserve_for_jpeg(width, height)?;
        if !self.region(jpeg, window, size, out)? {
            // Asked for anew, as a thread must not wait for memory while it holds some.
            drop(reservation);
            let (image, _reservation) = self.decode(bytes)?;
            if (image.width, image.height) != (width, height) {
                let (other_width, other_height) = (image.width, image.height);
                let message = format!(
                    "the header says {width} × {height}, the pixels are {other_width} × {other_height}"
                );
                return Err(failed(message).into());
            }
            self.resample(&image, window, size, out)?;
        }
        Ok(())
    }

    /// Decodes the whole image; the memory that it takes is reserved as long as the second value lives.
    ///
    /// # Errors
    /// When the bytes are no image, end early or promise an absurd size.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(Image, Reservation<'static>)> {
        self.stages.time(Stage::Decode, || decode::reserved(bytes))
    }

    /// Resamples `window` to `size` × `size` with a bilinear filter that widens when it shrinks (Pillow's).
    ///
    /// # Errors
    /// When the window lies outside of the image.
    pub fn resample(&mut self, image: &Image, window: Window, size: usize, out: &mut [u8]) -> Result<()> {
        let Image { width, height, channels, ref pixels } = *image;
        let view = View { width, height, channels, pixels };
        self.stages.time(Stage::Resize, || resample(&mut self.resizer, view, window, size, out))
    }

    /// Decodes what `window` needs of a JPEG and resamples it; `false` where the JPEG cannot be decoded so.
    fn region(&mut self, jpeg: Jpeg<'_>, window: Window, size: usize, out: &mut [u8]) -> Result<bool> {
        let (width, height) = jpeg.size();
        let scale = if self.reduced { largest_scale(window, size) } else { Scale::Whole };
        let (width, height) = (scale.of(width), scale.of(height));
        let window = window.divided_by(scale as usize as f64);
        let Some(wanted) = touched(window, width, height, size) else { return Ok(false) };
        let decoded = self.stages.time(Stage::Decode, || jpeg.decode(wanted, scale, &mut self.pixels));
        let Some(part) = decoded else { return Ok(false) };
        let pixels = &self.pixels[..part.width * part.height * 3];
        let view = View { width: part.width, height: part.height, channels: 3, pixels };
        let window = Window { x: window.x - part.x as f64, y: window.y - part.y as f64, ..window };
        self.stages.time(Stage::Resize, || resample(&mut self.resizer, view, window, size, out))?;
        if self.pixels.capacity() > KEPT_BYTES {
            self.pixels = Vec::new();
        }
        Ok(true)
    }
}

/// A JPEG; what is wrong with one that cannot be opened, decoding the whole says.
fn open(bytes: &[u8]) -> Option<Jpeg<'_>> {
    if decode::is_jpeg(bytes) { Jpeg::open(bytes).ok() } else { None }
}

/// The smallest scale at which a window still has `size` pixels in both directions.
fn largest_scale(window: Window, size: usize) -> Scale {
    let shrinks = window.width.min(window.height) / size as f64;
    [Scale::Eighth, Scale::Quarter, Scale::Half]
        .into_iter()
        .find(|&scale| shrinks >= scale as usize as f64)
        .unwrap_or(Scale::Whole)
}

/// The pixels of a `width` × `height` image that the filter reads for a sample of `window`.
fn touched(window: Window, width: usize, height: usize, size: usize) -> Option<Region> {
    // A bilinear filter reaches one pixel of the output, or of the input where that is larger. A hundredth more is for
    // what the subtraction of the region's corner rounds.
    let reach = |length: f64| if window.closed { 0.0 } else { (length / size as f64).max(1.0) + 0.01 };
    let span = |start: f64, length: f64, side: usize| {
        let first = (start - reach(length)).floor().max(0.0);
        let last = (start + length + reach(length)).ceil().min(side as f64);
        (first < last).then_some((first as usize, (last - first) as usize))
    };
    let (x, width) = span(window.x, window.width, width)?;
    let (y, height) = span(window.y, window.height, height)?;
    Some(Region { x, y, width, height })
}

fn resample(
    resizer: &mut Resizer,
    view: View<'_>,
    window: Window,
    size: usize,
    out: &mut [u8],
) -> Result<()> {
    let whole = Window { x: 0.0, y: 0.0, width: size as f64, height: size as f64, closed: window.closed };
    if (view.width, view.height) == (size, size) && window == whole {
        out.copy_from_slice(view.pixels);
        return Ok(());
    }
    let kind = if view.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let source = ImageRef::new(view.width as u32, view.height as u32, view.pixels, kind)?;
    let mut target = FirImage::from_slice_u8(size as u32, size as u32, out, kind)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    if window.closed {
        let (left, top) = (window.x.floor(), window.y.floor());
        let right = (window.x + window.width).ceil().min(view.width as f64);
        let bottom = (window.y + window.height).ceil().min(view.height as f64);
        let (width, height) = ((right - left) as u32, (bottom - top) as u32);
        let source = CroppedImage::new(&source, left as u32, top as u32, width, height)?;
        let options = options.crop(window.x - left, window.y - top, window.width, window.height);
        resizer.resize(&source, &mut target, &options)?;
    } else {
        let options = options.crop(window.x, window.y, window.width, window.height);
        resizer.resize(&source, &mut target, &options)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::crop::{centre_window, random_window};
    use crate::rng;
    use image::{DynamicImage, ImageFormat, RgbImage};
    use std::io::Cursor;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbImage::from_fn(330, 250, |x, y| {
            let wave = |rate: f64| (127.0 + 120.0 * ((f64::from(x) - f64::from(y)) * rate).sin()) as u8;
            image::Rgb([wave(0.31), wave(0.07), (x ^ y) as u8])
        });
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn windows() -> Vec<Window> {
        let mut random = rng::stream(0, "test", [0, 0]);
        let mut all: Vec<Window> =
            (0..20).map(|_| random_window(330, 250, [0.08, 1.0], &mut random)).collect();
        all.extend(all.clone().into_iter().map(|window| Window { closed: false, ..window }));
        all.push(centre_window(330, 250, 72, 64));
        all.push(Window { x: 12.0, y: 7.0, width: 64.0, height: 64.0, closed: true });
        all
    }

    #[test]
    fn a_sample_is_that_of_the_whole_image() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let bytes = encoded(format);
            let image = decode::decode(&bytes).unwrap();
            let (mut bench, mut part, mut whole) =
                (Workbench::new(), vec![0; 64 * 64 * 3], vec![0; 64 * 64 * 3]);
            for window in windows() {
                bench.sample(&bytes, 64, |_, _| window, &mut part).unwrap();
                bench.resample(&image, window, 64, &mut whole).unwrap();
                let off = part.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(off <= 1, "{format:?} {window:?}: off by {off}");
            }
        }
    }

    #[test]
    fn a_closed_window_sees_nothing_beside_it() {
        let pixels = (0..20 * 20).map(|at| if (5..15).contains(&(at % 20)) { 100 } else { 255 }).collect();
        let image = Image { width: 20, height: 20, channels: 1, pixels };
        let mut window = Window { x: 5.0, y: 5.0, width: 10.0, height: 10.0, closed: true };
        let (mut bench, mut out) = (Workbench::new(), vec![0; 16]);
        bench.resample(&image, window, 4, &mut out).unwrap();
        assert_eq!(out, [100; 16]);
        window.closed = false;
        bench.resample(&image, window, 4, &mut out).unwrap();
        assert!(out[0] > 100 && out[1] == 100, "{out:?}");
    }

    #[test]
    fn reduced_samples_look_the_same() {
        let bytes = encoded(ImageFormat::Jpeg);
        let window = Window { x: 8.0, y: 4.0, width: 300.0, height: 240.0, closed: true };
        let [whole, reduced] = [Workbench::new(), Workbench::reduced()].map(|mut bench| {
            let mut out = vec![0; 48 * 48 * 3];
            bench.sample(&bytes, 48, |_, _| window, &mut out).unwrap();
            out
        });
        let off: u32 = whole.iter().zip(&reduced).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        let mean = f64::from(off) / whole.len() as f64;
        assert!(mean > 0.0 && mean < 12.0, "off by {mean} on average");
        assert_eq!(largest_scale(window, 48), Scale::Quarter);
        assert_eq!(largest_scale(window, 200), Scale::Whole);
    }

    #[test]
    fn the_size_is_told_and_checked_before_anything_is_decoded() {
        let mut bytes = encoded(ImageFormat::Jpeg);
        let (mut bench, mut out) = (Workbench::new(), vec![0; 8 * 8 * 3]);
        let mut asked = Vec::new();
        let mut choose = |width, height| {
            asked.push((width, height));
            Window { x: 0.0, y: 0.0, width: 8.0, height: 8.0, closed: true }
        };
        bench.sample(&bytes, 8, &mut choose, &mut out).unwrap();
        bench.sample(&encoded(ImageFormat::Bmp), 8, &mut choose, &mut out).unwrap();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        let message = bench.sample(&bytes, 8, &mut choose, &mut out).unwrap_err().to_string();
        assert!(message.contains("65535 × 65535"), "{message}");
        assert_eq!(asked, [(330, 250), (330, 250)]);
    }

    #[test]
    fn what_decoding_the_whole_refuses_is_refused_for_any_part() {
        let whole = encoded(ImageFormat::Jpeg);
        let (mut bench, mut out) = (Workbench::new(), vec![0; 8 * 8 * 3]);
        let top = |_, _| Window { x: 0.0, y: 0.0, width: 8.0, height: 8.0, closed: true };
        bench.sample(&whole, 8, top, &mut out).unwrap();
        for bytes in [b"this is text".as_slice(), b"", &whole[..3], &whole[..100]] {
            assert!(bench.sample(bytes, 8, top, &mut out).is_err());
        }
        // Where an end that comes too early still leaves an image is for the other decoder to say.
        for cut in [whole.len() / 8, whole.len() / 2, whole.len() - 30] {
            let expected = decode::decode(&whole[..cut]).is_ok();
            assert_eq!(bench.sample(&whole[..cut], 8, top, &mut out).is_ok(), expected, "cut at {cut}");
        }
        let outside = |_, _| Window { x: 400.0, y: 0.0, width: 8.0, height: 8.0, closed: true };
        assert!(bench.sample(&whole, 8, outside, &mut out).is_err());
        bench.sample(&whole, 8, top, &mut out).unwrap();
    }
}
