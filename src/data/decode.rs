//! From the bytes of an image file to RGB. The format is detected from the content, not from the name.
//!
//! The pixels are those of Pillow's `Image.open(file).convert("RGB")`, which is torchvision's loader: alpha is dropped, of
//! an animation the first frame is taken, EXIF orientation is ignored, and of 16-bit samples the high byte is kept. There
//! is one exception: Pillow clips 16-bit *gray* to 255, which turns nearly all of it white; here its high byte is kept, too.
//!
//! A damaged JPEG is refused where Pillow refuses it, and has Pillow's pixels where it does not: with corrupt data inside,
//! libjpeg-turbo resynchronises or fills up, and only warns. Pillow refuses a file that ends before its last row is
//! decoded, and needs up to 8 bytes behind that row, which usually are the end mark; [`Segments`] and [`ends_early`] find
//! that out, except where fewer than [`LOOKAHEAD`] other bytes follow: such a file is refused.
//! Inks (CMYK, YCCK) are taken for inverted, as Adobe stores them, and converted by Pillow's formula.

use super::Image;
use super::jpeg::segments::Segments;
use super::jpeg::{Colours, Doubt, END_OF_IMAGE, Jpeg};
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

/// The same where there are inks, whose pixels are converted in place of a fourth byte.
const INK_BYTES: u64 = 4 * 2 + 4;

/// Bytes that libjpeg-turbo may read behind those that it needs: it fills a buffer of 8, and 0xff is followed by a zero.
const LOOKAHEAD: usize = 16;

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
    if is_jpeg(bytes) {
        return decode_jpeg(bytes).map(|(image, reservation, _)| (image, reservation));
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

/// Whether the bytes start as a JPEG does.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
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

/// Decodes a JPEG, and says what libjpeg-turbo doubts in it.
pub(super) fn decode_jpeg(bytes: &[u8]) -> Result<(Image, Reservation<'static>, Option<Doubt>)> {
    let segments = Segments::of(bytes);
    // libjpeg-turbo has a limit of its own, and names no size.
    segments.size.map_or(Ok(()), |(width, height)| check_size(width, height))?;
    let jpeg = match Jpeg::open(bytes) {
        Err(_) if !segments.has_end => return Err(ends_early()),
        opened => opened?,
    };
    let (width, height) = jpeg.size();
    check_size(width, height)?;
    let colours = jpeg.colours();
    let reservation = match colours {
        Colours::Rgb => reserve_for_jpeg(width, height)?,
        Colours::Inks => reserve(width, height, INK_BYTES * (width * height) as u64)?,
    };
    let (mut pixels, doubt) = match jpeg.decode_whole() {
        Err(_) if !segments.has_end => return Err(ends_early()),
        decoded => decoded?,
    };
    if doubt.is_some() && !segments.has_end && !(segments.is_one_scan && has_all_rows(bytes)) {
        return Err(ends_early());
    }
    if colours == Colours::Inks {
        to_rgb_of_inks(&mut pixels);
    }
    Ok((Image { width, height, channels: 3, pixels }, reservation, doubt))
}

fn ends_early() -> anyhow::Error {
    failed("it ends early: pixels are missing").into()
}

/// Whether the rows of a JPEG of one scan end [`LOOKAHEAD`] bytes before the file does: then they do not depend on what
/// those bytes, and further ones, are.
fn has_all_rows(bytes: &[u8]) -> bool {
    let Some(needed) = bytes.len().checked_sub(LOOKAHEAD).map(|length| &bytes[..length]) else {
        return false;
    };
    // With restart markers, as one may be looked for; several, as some bits decode to what zeros do.
    let restarts = (0..8).flat_map(|number| [&[0xaa; 32][..], &[0xff, 0xd0 + number]].concat()).collect();
    let mixed = (0..64).map(|at: u8| at.wrapping_mul(89) ^ 0x5a).filter(|byte| *byte != 0xff).collect();
    let others: [Vec<u8>; 4] = [vec![0xaa; 64], vec![0x55; 64], mixed, restarts];
    let followed_by = |more: &[u8]| {
        let bytes = [needed, more, &END_OF_IMAGE].concat();
        Jpeg::open(&bytes).and_then(Jpeg::decode_whole).ok().map(|(pixels, _)| pixels)
    };
    let rows = followed_by(&[0; 64]);
    rows.is_some() && others.iter().all(|more| followed_by(more) == rows)
}

/// From inverted inks to RGB, in place: as Pillow's `convert("RGB")` rounds.
fn to_rgb_of_inks(pixels: &mut Vec<u8>) {
    for at in 0..pixels.len() / 4 {
        let [c, m, y, k] = [0, 1, 2, 3].map(|ink| u16::from(pixels[4 * at + ink]));
        let rgb = [c, m, y].map(|inverted| {
            let product = (255 - inverted) * k + 128;
            (k - ((product + (product >> 8)) >> 8)) as u8
        });
        pixels[3 * at..3 * at + 3].copy_from_slice(&rgb);
    }
    pixels.truncate(pixels.len() / 4 * 3);
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
    fn a_jpeg_without_its_end_is_refused_unless_enough_follows_its_rows() {
        let whole = encoded(ImageFormat::Jpeg);
        let image = decode(&whole).unwrap();
        for byte in [0, 0xaa] {
            let filled = [&whole[..whole.len() - 2], &[byte; 20]].concat();
            assert_eq!(decode(&filled).unwrap(), image);
        }
        for missing in [1, 2, 40, 100, whole.len() / 3] {
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
