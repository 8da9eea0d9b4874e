//! From the bytes of an image file to RGB. The format is detected from the content, not from the name.
//!
//! The pixels are those of Pillow's `Image.open(file).convert("RGB")`, which is torchvision's loader: alpha is dropped, of
//! an animation the first frame is taken, EXIF orientation is ignored, and of 16-bit samples the high byte is kept. There
//! is one exception: Pillow clips 16-bit *gray* to 255, which turns nearly all of it white; here its high byte is kept, too.

use super::Image;
use super::jpeg::segments::Segments;
use super::jpeg::{END_OF_IMAGE, Jpeg, Region, Scale};
use super::memory::{Budget, Reservation};
use crate::error::{Result, failed};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Pillow refuses larger images, too (`DecompressionBombError`).
const MAX_PIXELS: usize = 178_956_970;

/// What decoders of the `image` crate may use beside the pixels: tables, a palette, a strip.
const OVERHEAD: u64 = 64 << 20;

/// Bytes a pixel that libjpeg-turbo and the result take: coefficients of three components, which a progressive JPEG keeps,
/// and RGB.
const JPEG_BYTES: u64 = 3 * 2 + 3;

/// Decodes a JPEG with libjpeg-turbo, anything else with the `image` crate. Gray, palette, 16-bit and CMYK images
/// come out as RGB. Waits where other threads use the memory that it needs.
///
/// # Errors
/// When the bytes are no image, end early, or need more memory than there is.
pub fn decode(bytes: &[u8]) -> Result<Image> {
    reserved(bytes).map(|(image, _)| image)
}

/// The same with what it has reserved of the memory, to be kept as long as the image.
pub fn reserved(bytes: &[u8]) -> Result<(Image, Reservation<'static>)> {
    if bytes.is_empty() {
        return Err(failed("the file is empty").into());
    }
    if bytes.starts_with(&[0xff, 0xd8])
        && let Some(image) = decode_jpeg(bytes)?
    {
        return Ok(image);
    }
    let mut decoder = reader(bytes)?.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    // Decoders make the pixels from something of about their size, and RGB is made from them.
    let decoded = decoder.total_bytes();
    let reservation = reserve(width, height, 2 * decoded + 3 * (width * height) as u64)?;
    decoder.set_limits(limits(2 * decoded + OVERHEAD)).map_err(unreadable)?;
    let pixels = to_rgb(DynamicImage::from_decoder(decoder).map_err(unreadable)?);
    Ok((Image { width, height, channels: 3, pixels }, reservation))
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>> {
    let Some(format) = format(bytes) else {
        let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).escape_debug().collect();
        return Err(failed(format!("not an image (it starts with \"{start}\")")).into());
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // For the header alone.
    reader.limits(limits(OVERHEAD));
    Ok(reader)
}

fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(bytes);
    limits
}

fn unreadable(error: ImageError) -> anyhow::Error {
    failed(error.to_string().to_lowercase()).into()
}

/// The format of an image file by its content.
pub(super) fn format(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes).ok().or_else(|| is_tga(bytes).then_some(ImageFormat::Tga))
}

/// Whether the bytes start with a possible header of a TGA, which has no signature, and are as many as it says. To be asked
/// where nothing else matches.
fn is_tga(bytes: &[u8]) -> bool {
    const HEADER: usize = 18;
    if bytes.len() < HEADER {
        return false;
    }
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (map_type, kind, depth) = (bytes[1], bytes[2], usize::from(bytes[16]));
    let (width, height) = (word(12), word(14));
    let map_bytes = if map_type == 1 { word(5) * usize::from(bytes[7]).div_ceil(8) } else { 0 };
    let pixels = HEADER + usize::from(bytes[0]) + map_bytes;
    let fits = match kind {
        1..=3 => bytes.len() >= pixels + (width * depth).div_ceil(8) * height,
        9..=11 => bytes.len() > pixels,
        _ => false,
    };
    let map_fits = match kind {
        1 | 9 => map_type == 1 && matches!(bytes[7], 15 | 16 | 24 | 32),
        _ => map_type <= 1,
    };
    let depth_fits = match kind {
        2 | 10 => matches!(depth, 15 | 16 | 24 | 32),
        _ => matches!(depth, 8 | 16),
    };
    fits && map_fits && depth_fits && width > 0 && height > 0
}

/// Without alpha, and of 16 bits the higher 8.
fn to_rgb(image: DynamicImage) -> Vec<u8> {
    let high = |value: u16| (value >> 8) as u8;
    let gray = |values: Vec<u16>, channels: usize| {
        values.chunks_exact(channels).flat_map(|pixel| [high(pixel[0]); 3]).collect()
    };
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgb16(rgb) => rgb.into_raw().into_iter().map(high).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba
            .into_raw()
            .chunks_exact(4)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]].map(high))
            .collect(),
        DynamicImage::ImageLuma16(luma) => gray(luma.into_raw(), 1),
        DynamicImage::ImageLumaA16(luma) => gray(luma.into_raw(), 2),
        other => other.to_rgb8().into_raw(),
    }
}

/// Reserves memory for decoding `width` × `height` pixels.
fn reserve(width: usize, height: usize, bytes: u64) -> Result<Reservation<'static>> {
    let budget = Budget::of_process();
    budget.reserve(bytes).ok_or_else(|| {
        let [needed, limit] = [bytes.div_ceil(1 << 20), budget.total() >> 20];
        let message = format!(
            "{width} × {height} pixels take {needed} MiB to decode, but {limit} MiB are the limit, a quarter of the \
             memory that this process may use"
        );
        failed(message).hint("scale the image down, exclude it, or give the process more memory").into()
    })
}

/// The same for a JPEG.
pub(super) fn reserve_for_jpeg(width: usize, height: usize) -> Result<Reservation<'static>> {
    reserve(width, height, JPEG_BYTES * (width * height) as u64)
}

/// A JPEG's pixels, or `None` where libjpeg-turbo cannot give RGB (CMYK) or has doubts about the data; the
/// other decoder then has the last word. But not on a file that ends within its pixels: it would make up the rest.
fn decode_jpeg(bytes: &[u8]) -> Result<Option<(Image, Reservation<'static>)>> {
    let image = decode_whole_jpeg(bytes)?;
    if image.is_some() || Segments::of(bytes).has_end {
        return Ok(image);
    }
    match decode_whole_jpeg(&[bytes, &END_OF_IMAGE].concat())? {
        Some(image) => Ok(Some(image)),
        None => Err(failed("it ends early: pixels are missing").into()),
    }
}

/// The same of a file that is whole.
fn decode_whole_jpeg(bytes: &[u8]) -> Result<Option<(Image, Reservation<'static>)>> {
    let Some(jpeg) = Jpeg::open(bytes)? else { return Ok(None) };
    let (width, height) = jpeg.size();
    check_size(width, height)?;
    let reservation = reserve_for_jpeg(width, height)?;
    let mut pixels = Vec::new();
    let whole = Region { x: 0, y: 0, width, height };
    let decoded = jpeg.decode(whole, Scale::Whole, &mut pixels);
    Ok(decoded.map(|_| (Image { width, height, channels: 3, pixels }, reservation)))
}

/// Whether an image of this size can be decoded with the memory that there is.
pub(super) fn fits(width: usize, height: usize) -> bool {
    check_size(width, height).is_ok() && JPEG_BYTES * (width * height) as u64 <= Budget::of_process().total()
}

/// Refuses what is no size for a photograph, before memory is asked for.
pub(super) fn check_size(width: usize, height: usize) -> Result<()> {
    match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        Some(0) => Err(failed(format!("{width} × {height} pixels are none")).into()),
        _ => {
            let message = format!(
                "{width} × {height} pixels are too many for an image: {MAX_PIXELS} are the limit, as in Pillow"
            );
            Err(failed(message).hint("scale it down, or exclude it").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, 128]));
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn content_decides_not_the_name() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let image = decode(&encoded(format)).unwrap();
            assert_eq!((image.width, image.height, image.channels), (40, 30, 3), "{format:?}");
            let middle = &image.pixels[(15 * 40 + 20) * 3..][..3];
            for (value, expected) in middle.iter().zip([120u8, 120, 128]) {
                assert!(value.abs_diff(expected) <= 6, "{format:?}: {middle:?}");
            }
        }
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let text = decode(b"this is text").unwrap_err().to_string();
        assert!(text.contains("not an image (it starts with \"this is text\")"), "{text}");
        assert!(decode(b"").unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn half_a_file_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let whole = encoded(format);
            assert!(decode(&whole[..whole.len() / 2]).is_err(), "{format:?}");
        }
    }

    #[test]
    fn of_a_jpeg_only_the_end_mark_may_be_missing() {
        let whole = encoded(ImageFormat::Jpeg);
        let image = decode(&whole).unwrap();
        assert_eq!(decode(&whole[..whole.len() - 2]).unwrap(), image);
        for missing in [40, 100, whole.len() / 3] {
            let message = decode(&whole[..whole.len() - missing]).unwrap_err().to_string();
            assert!(message.contains("ends early"), "{missing} bytes: {message}");
        }
    }

    #[test]
    fn tga_is_recognised_by_a_plausible_header() {
        let bytes = encoded(ImageFormat::Tga);
        assert_eq!(format(&bytes), Some(ImageFormat::Tga));
        let image = decode(&bytes).unwrap();
        assert_eq!((image.width, image.height), (40, 30));
        assert_eq!(image.pixels[(15 * 40 + 20) * 3..][..3], [120, 120, 128]);
        assert!(decode(&bytes[..bytes.len() / 2]).is_err());
        assert_eq!(format(b"this is text, and more of it"), None);
    }

    #[test]
    fn samples_of_16_bits_keep_their_high_byte() {
        let encode = |image: DynamicImage| {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png).unwrap();
            decode(&bytes.into_inner()).unwrap().pixels
        };
        let gray = image::ImageBuffer::from_pixel(1, 1, image::Luma([0x80ffu16]));
        assert_eq!(encode(gray.into()), [0x80; 3]);
        let colour = image::ImageBuffer::from_pixel(1, 1, image::Rgb([0x01ff_u16, 0xff00, 0x7f80]));
        assert_eq!(encode(colour.into()), [0x01, 0xff, 0x7f]);
        let alpha = image::ImageBuffer::from_pixel(1, 1, image::Rgba([0x01ff_u16, 0xff00, 0x7f80, 0]));
        assert_eq!(encode(alpha.into()), [0x01, 0xff, 0x7f]);
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_asked_for() {
        let mut bomb = encoded(ImageFormat::Jpeg);
        let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        let message = decode(&bomb).unwrap_err().to_string();
        assert!(message.contains("65535 × 65535"), "{message}");
    }
}
