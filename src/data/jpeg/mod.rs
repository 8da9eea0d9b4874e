//! JPEGs by libjpeg-turbo, and of a JPEG only the part that is needed.
//!
//! A JPEG is decoded in two halves of about the same cost: its bits, which can only be read from the first one on,
//! and its pixels, of which any part can be made. [`Jpeg::decode`] reads no bits below the wanted region and makes no
//! pixels beside or above it.
//!
//! The pixels of the region are those of the whole image, bit for bit. Where chroma has fewer columns than luma, the
//! outermost pixels of what libjpeg-turbo makes see a neighbour repeated that in truth is another one, so a margin is
//! decoded and handed out as well: [`Jpeg::decode`] says which region it has made.
//!
//! Two things that decoding the whole would have seen are not: damage below the region, as nobody looks there, and
//! data that ends early there. The latter must not depend on where a random crop falls; a file that lacks the marker of
//! its end is therefore decoded whole.
//!
//! The only `unsafe` of the data path is here: TurboJPEG's cropping has no safe wrapper.
#![allow(unsafe_code)]

pub mod segments;

use crate::error::{Result, failed};
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use turbojpeg::raw;

/// What a whole JPEG ends with. Cut off inside its pixels it cannot: there 0xff is followed by zero or a restart.
pub const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Pixels on either side of a region that are decoded with it, where there are any: one for chroma's upsampling.
const MARGIN: usize = 1;

/// The narrowest region that is decoded: with chroma of one column, libjpeg-turbo takes another way to upsample it.
const NARROWEST: usize = 8;

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// Divisor of both sides while decoding; those that libjpeg-turbo has fast code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// All pixels.
    Whole = 1,
    /// Half as wide and high.
    Half = 2,
    /// A quarter.
    Quarter = 4,
    /// An eighth: one pixel a block.
    Eighth = 8,
}

impl Scale {
    /// A side's length, once divided.
    pub fn of(self, length: usize) -> usize {
        length.div_ceil(self as usize)
    }
}

/// Colours that pixels are decoded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// Of gray, YCbCr or RGB.
    Rgb,
    /// Of four inks, as they are stored, YCCK converted: usually inverted.
    Inks,
}

impl Colours {
    /// Bytes of a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Inks => 4,
        }
    }

    fn format(self) -> c_int {
        match self {
            Self::Rgb => raw::TJPF_TJPF_RGB as c_int,
            Self::Inks => raw::TJPF_TJPF_CMYK as c_int,
        }
    }
}

/// What libjpeg-turbo warns of while it decodes: the first thing that it noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt(pub String);

/// A JPEG whose header has been read.
pub struct Jpeg<'a> {
    handle: Handle,
    bytes: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is damaged or of something that cannot be decoded here, or there is no memory for a decoder.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut handle = Handle::new()?;
        let (width, height) = handle.header(bytes)?;
        Ok(Self { handle, bytes, width, height })
    }

    /// Width and height in pixels, of the whole.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Decodes at least `wanted` (in pixels of the scaled image, inside of it) to RGB, row by row without gaps, at the
    /// start of `pixels`, which grows where it is too small. Returns the region that was decoded.
    ///
    /// `None` where there are inks, libjpeg-turbo has doubts about the data or there is no memory: the whole is then to be
    /// decoded.
    pub fn decode(mut self, wanted: Region, scale: Scale, pixels: &mut Vec<u8>) -> Option<Region> {
        if self.colours() != Colours::Rgb {
            return None;
        }
        let region = self.around(wanted, scale)?;
        let needed = region.width.checked_mul(region.height)?.checked_mul(3)?;
        if pixels.len() < needed {
            pixels.try_reserve_exact(needed - pixels.len()).ok()?;
            pixels.resize(needed, 0);
        }
        let whole = Region { x: 0, y: 0, width: scale.of(self.width), height: scale.of(self.height) };
        let part = (region != whole).then_some(region);
        let doubt = self.handle.decode(self.bytes, part, scale, Colours::Rgb, &mut pixels[..needed]).ok()?;
        doubt.is_none().then_some(region)
    }

    /// The colours that it can be decoded to.
    pub fn colours(&self) -> Colours {
        match self.handle.get(raw::TJPARAM_TJPARAM_COLORSPACE) as raw::TJCS {
            raw::TJCS_TJCS_CMYK | raw::TJCS_TJCS_YCCK => Colours::Inks,
            _ => Colours::Rgb,
        }
    }

    /// Decodes all pixels to [its colours](Self::colours), with libjpeg-turbo's doubts about them.
    ///
    /// # Errors
    /// When it cannot decode them, or there is no memory for them.
    pub fn decode_whole(mut self) -> Result<(Vec<u8>, Option<Doubt>)> {
        let colours = self.colours();
        let length = (self.width * self.height).saturating_mul(colours.channels());
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(length).map_err(|_| failed("there is no memory for its pixels"))?;
        pixels.resize(length, 0);
        let doubt = self.handle.decode(self.bytes, None, Scale::Whole, colours, &mut pixels)?;
        Ok((pixels, doubt))
    }

    /// The smallest region that can be decoded and in which the pixels of `wanted` are right.
    fn around(&self, wanted: Region, scale: Scale) -> Option<Region> {
        let (width, height) = (scale.of(self.width), scale.of(self.height));
        let Region { x, y, .. } = wanted;
        let (right, bottom) = (x.checked_add(wanted.width)?, y.checked_add(wanted.height)?);
        if wanted.width == 0 || wanted.height == 0 || right > width || bottom > height {
            return None;
        }
        let column = match self.handle.column_width() {
            Some(column) if self.bytes.ends_with(&END_OF_IMAGE) => (column / scale as usize).max(1),
            _ => return Some(Region { x: 0, y: 0, width, height }),
        };
        let left = x.saturating_sub(MARGIN).min(width.saturating_sub(NARROWEST)) / column * column;
        let right = (right + MARGIN).max(left + NARROWEST).min(width);
        Some(Region { x: left, y, width: right - left, height: wanted.height })
    }
}

/// An instance of TurboJPEG. One serves one image: it costs a microsecond, and tables of an image before, which it
/// would keep, could stand in for those that a damaged one lacks.
struct Handle(NonNull<std::ffi::c_void>);

impl Handle {
    fn new() -> Result<Self> {
        // SAFETY: takes a constant, returns null or an instance that is ours alone until tj3Destroy.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as c_int) };
        let handle = NonNull::new(handle).ok_or_else(|| failed("no memory for a JPEG decoder"))?;
        let this = Self(handle);
        // Colour profiles are not used, so they need not be kept.
        this.set(raw::TJPARAM_TJPARAM_SAVEMARKERS, 0)
            .ok_or_else(|| failed("the JPEG decoder refuses to skip colour profiles"))?;
        Ok(this)
    }

    /// Width and height.
    fn header(&mut self, bytes: &[u8]) -> Result<(usize, usize)> {
        // SAFETY: the instance is alive, and the bytes are read during the call only.
        let code = unsafe { raw::tj3DecompressHeader(self.0.as_ptr(), bytes.as_ptr(), bytes.len() as _) };
        if code != 0 && !self.only_warns() {
            return Err(failed(self.complaint()).into());
        }
        // -1 where the file holds tables only.
        let side = |parameter| usize::try_from(self.get(parameter)).ok().filter(|&side| side > 0);
        let (width, height) = (side(raw::TJPARAM_TJPARAM_JPEGWIDTH), side(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
        Ok(width.zip(height).ok_or_else(|| failed("it holds tables, but no image"))?)
    }

    /// Whether the last call failed for a warning alone. TurboJPEG's code says so where an error followed, too; its text is
    /// the error's then, else that of the first warning.
    fn only_warns(&self) -> bool {
        // As of jerror.h; the first letter as `complaint` has it.
        const WARNINGS: [&str; 6] = [
            "corrupt JPEG data",
            "premature end of JPEG file",
            "inconsistent progression sequence",
            "unknown Adobe color transform code",
            "warning: unknown JFIF revision",
            "invalid SOS parameters for sequential JPEG",
        ];
        // SAFETY: the instance is alive.
        let code = unsafe { raw::tj3GetErrorCode(self.0.as_ptr()) };
        let text = self.complaint();
        code == raw::TJERR_TJERR_WARNING as c_int && WARNINGS.iter().any(|warning| text.starts_with(warning))
    }

    /// What the last call complained of.
    fn complaint(&self) -> String {
        // SAFETY: the instance is alive; the string is its own, ends with a zero and is copied at once.
        let text = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0.as_ptr())) };
        // "tj3Decompress8(): " is no help.
        let text = text.to_string_lossy();
        let text = text.rsplit("(): ").next().unwrap_or(&text);
        let mut letters = text.chars();
        match (letters.next(), letters.clone().next()) {
            (Some(first), Some(second)) if !second.is_uppercase() => {
                first.to_lowercase().chain(letters).collect()
            }
            _ => text.to_string(),
        }
    }

    /// Pixels between two columns that a region may begin at, where it may begin anywhere at all.
    fn column_width(&self) -> Option<usize> {
        if self.get(raw::TJPARAM_TJPARAM_LOSSLESS) != 0 {
            return None;
        }
        match self.get(raw::TJPARAM_TJPARAM_SUBSAMP) as raw::TJSAMP {
            raw::TJSAMP_TJSAMP_444
            | raw::TJSAMP_TJSAMP_GRAY
            | raw::TJSAMP_TJSAMP_440
            | raw::TJSAMP_TJSAMP_441 => Some(8),
            raw::TJSAMP_TJSAMP_422 | raw::TJSAMP_TJSAMP_420 => Some(16),
            raw::TJSAMP_TJSAMP_411 => Some(32),
            _ => None,
        }
    }

    /// Decodes `part`, or everything, to `colours`. The header of the same bytes must have been read.
    fn decode(
        &mut self,
        bytes: &[u8],
        part: Option<Region>,
        scale: Scale,
        colours: Colours,
        pixels: &mut [u8],
    ) -> Result<Option<Doubt>> {
        self.prepare(part, scale, colours, pixels.len())
            .ok_or_else(|| failed("the JPEG decoder refuses the region"))?;
        let (width, _) = self.target(part, scale).ok_or_else(|| failed("the JPEG has no size"))?;
        let pitch = c_int::try_from(width * colours.channels())?;
        // SAFETY: the instance is alive. It writes `height` rows of `width` pixels, `pitch` bytes apart, and `pixels` is at
        // least that long, as `prepare` has checked: the size is the region's, or that of the header that the same bytes
        // gave, which this call reads once more.
        let code = unsafe {
            raw::tj3Decompress8(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as _,
                pixels.as_mut_ptr(),
                pitch,
                colours.format(),
            )
        };
        match code {
            0 => Ok(None),
            _ if self.only_warns() => Ok(Some(Doubt(self.complaint()))),
            _ => Err(failed(self.complaint()).into()),
        }
    }

    /// Width and height of what is decoded.
    fn target(&self, part: Option<Region>, scale: Scale) -> Option<(usize, usize)> {
        let scaled = |side: c_int| usize::try_from(side).ok().map(|side| scale.of(side));
        match part {
            Some(part) => Some((part.width, part.height)),
            None => {
                let width = scaled(self.get(raw::TJPARAM_TJPARAM_JPEGWIDTH))?;
                Some((width, scaled(self.get(raw::TJPARAM_TJPARAM_JPEGHEIGHT))?))
            }
        }
    }

    /// Sets scale and region; `None` where they cannot be, or their pixels are more than `length` bytes.
    fn prepare(&self, part: Option<Region>, scale: Scale, colours: Colours, length: usize) -> Option<()> {
        let factor = raw::tjscalingfactor { num: 1, denom: scale as c_int };
        // SAFETY: the instance is alive; the factor is passed by value.
        if unsafe { raw::tj3SetScalingFactor(self.0.as_ptr(), factor) } != 0 {
            return None;
        }
        if let Some(part) = part {
            let [x, y, w, h] = [part.x, part.y, part.width, part.height].map(c_int::try_from);
            let region = raw::tjregion { x: x.ok()?, y: y.ok()?, w: w.ok()?, h: h.ok()? };
            // SAFETY: the instance is alive; the region is passed by value and refused if it leaves the image.
            if unsafe { raw::tj3SetCroppingRegion(self.0.as_ptr(), region) } != 0 {
                return None;
            }
        }
        let (width, height) = self.target(part, scale)?;
        let needed = width.checked_mul(colours.channels())?.checked_mul(height)?;
        (width > 0 && height > 0 && length >= needed).then_some(())
    }

    fn get(&self, parameter: raw::TJPARAM) -> c_int {
        // SAFETY: the instance is alive; an unknown parameter gives -1.
        unsafe { raw::tj3Get(self.0.as_ptr(), parameter as c_int) }
    }

    fn set(&self, parameter: raw::TJPARAM, value: c_int) -> Option<()> {
        // SAFETY: the instance is alive; a parameter or value that does not suit is refused.
        let code = unsafe { raw::tj3Set(self.0.as_ptr(), parameter as c_int, value) };
        (code == 0).then_some(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by tj3Init, destroyed once.
        unsafe { raw::tj3Destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turbojpeg::{Compressor, PixelFormat, Subsamp};

    const SIZE: (usize, usize) = (203, 149);

    fn encoded(subsamp: Subsamp, format: PixelFormat) -> Vec<u8> {
        let (width, height) = SIZE;
        let mut state = 1u32;
        // Edges, noise and full colours: where a neighbour's chroma is missing, it shows.
        let mut value = |at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let block = (at / 35 + at / (width * 21)).is_multiple_of(2);
            (if block { 200 } else { 30 }) + (state >> 27) as u8
        };
        let pixels: Vec<u8> = (0..width * height * format.size()).map(&mut value).collect();
        let pitch = width * format.size();
        let image = turbojpeg::Image { pixels: &pixels[..], width, pitch, height, format };
        let mut compressor = Compressor::new().unwrap();
        compressor.set_quality(90).unwrap();
        compressor.set_subsamp(subsamp).unwrap();
        compressor.compress_to_vec(image).unwrap()
    }

    fn colour() -> Vec<u8> {
        encoded(Subsamp::Sub2x2, PixelFormat::RGB)
    }

    fn decoded(bytes: &[u8], wanted: Region, scale: Scale) -> Option<(Region, Vec<u8>)> {
        let mut pixels = Vec::new();
        let region = Jpeg::open(bytes).ok()?.decode(wanted, scale, &mut pixels)?;
        Some((region, pixels))
    }

    /// Windows of all kinds: at corners and edges, thin, and inside.
    fn windows(width: usize, height: usize) -> Vec<Region> {
        let mut all = Vec::new();
        for (x, w) in [(0, 1), (0, width), (1, width - 1), (width - 1, 1), (width / 3, width / 2), (17, 3)] {
            for (y, h) in [(0, 1), (0, height), (height - 1, 1), (height / 3, height / 2), (9, 7)] {
                let (x, y) = (x.min(width - 1), y.min(height - 1));
                all.push(Region { x, y, width: w.min(width - x), height: h.min(height - y) });
            }
        }
        all
    }

    #[test]
    fn a_region_has_the_pixels_of_the_whole() {
        use Subsamp::*;
        for subsamp in [None, Sub2x1, Sub2x2, Gray, Sub1x2, Sub4x1, Sub1x4] {
            let bytes = encoded(subsamp, PixelFormat::RGB);
            for scale in [Scale::Whole, Scale::Half, Scale::Quarter, Scale::Eighth] {
                let (width, height) = (scale.of(SIZE.0), scale.of(SIZE.1));
                let everything = Region { x: 0, y: 0, width, height };
                let (region, whole) = decoded(&bytes, everything, scale).unwrap();
                assert_eq!(region, everything);
                for wanted in windows(width, height) {
                    let (region, pixels) = decoded(&bytes, wanted, scale).unwrap();
                    for y in wanted.y..wanted.y + wanted.height {
                        let inside = &pixels[((y - region.y) * region.width + wanted.x - region.x) * 3..]
                            [..wanted.width * 3];
                        let expected = &whole[(y * width + wanted.x) * 3..][..wanted.width * 3];
                        assert!(inside == expected, "{subsamp:?} {scale:?} {wanted:?} row {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn less_than_the_whole_is_decoded() {
        let wanted = Region { x: 100, y: 40, width: 30, height: 20 };
        let (region, pixels) = decoded(&colour(), wanted, Scale::Whole).unwrap();
        assert_eq!(region, Region { x: 96, y: 40, width: 35, height: 20 });
        assert_eq!(pixels.len(), 35 * 20 * 3);
    }

    #[test]
    fn what_leaves_the_image_is_refused() {
        let (width, height) = SIZE;
        for (x, y, width, height) in [
            (0, 0, width + 1, 1),
            (0, 0, 1, height + 1),
            (width, 0, 1, 1),
            (0, height, 1, 1),
            (3, 3, 0, 1),
            (usize::MAX, 0, 2, 1),
        ] {
            assert_eq!(decoded(&colour(), Region { x, y, width, height }, Scale::Whole), None);
        }
    }

    #[test]
    fn an_early_end_is_seen_from_every_region() {
        let whole = colour();
        let top = Region { x: 0, y: 0, width: 8, height: 8 };
        assert!(decoded(&whole, top, Scale::Whole).is_some());
        for part in [whole.len() / 2, whole.len() - 40] {
            assert_eq!(decoded(&whole[..part], top, Scale::Whole), None, "{part} of {}", whole.len());
        }
        // Only the marker of the end is missing, and with other bytes after it: nothing to complain about.
        let mut longer = whole.clone();
        longer.extend([0; 5]);
        assert!(decoded(&longer, top, Scale::Whole).is_some());
    }

    #[test]
    fn damage_gives_no_pixels_and_harms_no_later_image() {
        let whole = colour();
        let everything = Region { x: 0, y: 0, width: SIZE.0, height: SIZE.1 };
        let good = decoded(&whole, everything, Scale::Whole);
        for at in (2..whole.len()).step_by(101) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            // Some damage only changes pixels; none may do more.
            let _ = decoded(&bytes, everything, Scale::Whole);
            let _ = decoded(&bytes, Region { x: 64, y: 30, width: 50, height: 40 }, Scale::Half);
        }
        assert_eq!(decoded(&whole, everything, Scale::Whole), good);
        for cut in 0..40 {
            assert_eq!(decoded(&whole[..cut], everything, Scale::Whole), None);
        }
    }

    #[test]
    fn four_inks_are_decoded_whole_as_they_are_stored() {
        let bytes = encoded(Subsamp::None, PixelFormat::CMYK);
        let wanted = Region { x: 0, y: 0, width: 8, height: 8 };
        assert_eq!(decoded(&bytes, wanted, Scale::Whole), None);
        let jpeg = Jpeg::open(&bytes).unwrap();
        assert_eq!(jpeg.colours(), Colours::Inks);
        let (pixels, doubt) = jpeg.decode_whole().unwrap();
        assert_eq!((pixels.len(), doubt), (SIZE.0 * SIZE.1 * 4, None));
    }

    #[test]
    fn tables_without_an_image_are_no_image() {
        assert!(Jpeg::open(&[0xff, 0xd8, 0xff, 0xd9]).is_err());
        assert!(Jpeg::open(&[]).is_err());
    }
}
