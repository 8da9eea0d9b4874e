//! From the bytes of an image file to RGB. What a file is, its first bytes say, not its name.

use super::Image;
use super::jpeg::segments::Segments;
use super::jpeg::{END_OF_IMAGE, Jpeg, Region, Scale};
use crate::error::{Result, failed};
use image::{DynamicImage, ImageError, ImageReader, Limits};
use std::io::Cursor;

/// No photograph has more; a header that promises more is a mistake or an attack.
const MAX_PIXELS: usize = 1 << 28;

/// Decodes a JPEG with libjpeg-turbo, anything else with the `image` crate. Gray, palette, 16-bit and CMYK images
/// come out as RGB; EXIF orientation is ignored, as torchvision ignores it.
///
/// # Errors
/// When the bytes are no image, end early or promise an absurd size.
pub fn decode(bytes: &[u8]) -> Result<Image> {
    if bytes.is_empty() {
        return Err(failed("the file is empty").into());
    }
    if bytes.starts_with(&[0xff, 0xd8])
        && let Some(image) = decode_jpeg(bytes)?
    {
        return Ok(image);
    }
    let guessed = || ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let unreadable = |error: ImageError| failed(error.to_string().to_lowercase());
    let mut reader = guessed()?;
    if reader.format().is_none() {
        let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).escape_debug().collect();
        return Err(failed(format!("not an image (it starts with \"{start}\")")).into());
    }
    // The size first: a decoder's own limit would only say that memory is short.
    let (width, height) = guessed()?.into_dimensions().map_err(unreadable)?;
    check_size(width as usize, height as usize)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(4 * MAX_PIXELS as u64);
    reader.limits(limits);
    let rgb = reader.decode().map_err(unreadable)?;
    let rgb = match rgb {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => other.to_rgb8(),
    };
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(Image { width, height, channels: 3, pixels: rgb.into_raw() })
}

/// A JPEG's pixels, or `None` where libjpeg-turbo cannot give RGB (CMYK) or has doubts about the data; the
/// other decoder then has the last word. But not on a file that ends within its pixels: it would make up the rest.
fn decode_jpeg(bytes: &[u8]) -> Result<Option<Image>> {
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
fn decode_whole_jpeg(bytes: &[u8]) -> Result<Option<Image>> {
    let Some(jpeg) = Jpeg::open(bytes)? else { return Ok(None) };
    let (width, height) = jpeg.size();
    check_size(width, height)?;
    let mut pixels = Vec::new();
    let whole = Region { x: 0, y: 0, width, height };
    let decoded = jpeg.decode(whole, Scale::Whole, &mut pixels);
    Ok(decoded.map(|_| Image { width, height, channels: 3, pixels }))
}

/// Refuses what is no size for a photograph, before memory is asked for.
pub(super) fn check_size(width: usize, height: usize) -> Result<()> {
    match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(failed(format!("{width} × {height} pixels are not a size for a photograph")).into()),
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
    fn a_bomb_is_refused_before_memory_is_asked_for() {
        let mut bomb = encoded(ImageFormat::Jpeg);
        let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        let message = decode(&bomb).unwrap_err().to_string();
        assert!(message.contains("65535 × 65535"), "{message}");
    }
}
