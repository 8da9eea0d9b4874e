//! Looking at every sample before training does: which files are damaged, and which are odd.
//!
//! What cannot be used can be kept as a [`quarantine`](super::quarantine), which training reads.

use super::images::{MAX_FILE_BYTES, dimensions};
use super::jpeg::Doubt;
use super::jpeg::segments::Segments;
use super::quarantine::line;
use super::{Dataset, decode, workers};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What there is to say of a sample; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// A PNG called `.JPEG`, or the like. The first bytes decide, so training takes it.
    Misnamed,
    /// A JPEG of four inks. Training converts it to RGB.
    Cmyk,
    /// EXIF data that lead nowhere. Training ignores them.
    BrokenExif,
    /// A JPEG with corrupt data or superfluous bytes inside, which decodes all the same. Training takes what
    /// libjpeg-turbo makes of it.
    Corrupt,
    /// A JPEG that lacks its end mark, but whose rows can all be decoded since enough bytes follow.
    NoEnd,
    /// It ends early: pixels are missing.
    Truncated,
    /// It does not decode, for another reason.
    Damaged,
    /// Its first bytes are those of no image.
    NotAnImage,
    /// No bytes.
    Empty,
    /// Too many pixels or bytes for a photograph.
    Absurd,
    /// The file cannot be read.
    Unreadable,
}

impl Verdict {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Fine,
        Self::Misnamed,
        Self::Cmyk,
        Self::BrokenExif,
        Self::Corrupt,
        Self::NoEnd,
        Self::Truncated,
        Self::Damaged,
        Self::NotAnImage,
        Self::Empty,
        Self::Absurd,
        Self::Unreadable,
    ];

    /// Whether training can use the sample.
    pub fn is_usable(self) -> bool {
        self <= Self::NoEnd
    }

    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Misnamed => "misnamed",
            Self::Cmyk => "CMYK",
            Self::BrokenExif => "broken EXIF",
            Self::Corrupt => "corrupt inside",
            Self::NoEnd => "without end mark",
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
            Self::NotAnImage => "not an image",
            Self::Empty => "empty",
            Self::Absurd => "absurd size",
            Self::Unreadable => "unreadable",
        }
    }

    /// What training does about such a sample.
    pub fn in_training(self) -> &'static str {
        match self {
            Self::Fine => "used",
            Self::Corrupt | Self::NoEnd => "used as it decodes, like Pillow: look at it",
            Self::Misnamed => "used: the first bytes decide, not the name",
            Self::Cmyk => "used, converted to RGB",
            Self::BrokenExif => "used: EXIF data are ignored",
            _ => "not used: an error, unless skipped or in quarantine",
        }
    }
}

/// A sample of which there is something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its [relative name](Dataset::relative_name).
    pub name: String,
    /// The worst that there is to say.
    pub verdict: Verdict,
    /// Whatever else there is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Verdict>,
    /// What exactly, for people.
    pub detail: String,
}

/// What was found in a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Samples looked at.
    pub samples: usize,
    /// All that are not fine, in the order of the data set.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many samples have this as the worst.
    pub fn count(&self, verdict: Verdict) -> usize {
        match verdict {
            Verdict::Fine => self.samples - self.findings.len(),
            other => self.findings.iter().filter(|finding| finding.verdict == other).count(),
        }
    }

    /// How many samples training cannot use.
    pub fn unusable(&self) -> usize {
        self.findings.iter().filter(|finding| !finding.verdict.is_usable()).count()
    }

    /// Lines of a quarantine for all samples that training cannot use, each after a comment that says why.
    pub fn quarantine(&self) -> String {
        let mut text = String::new();
        for finding in self.findings.iter().filter(|finding| !finding.verdict.is_usable()) {
            let detail: String =
                finding.detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(text, "# {}: {detail}\n{}", finding.verdict.in_words(), line(&finding.name));
        }
        text
    }
}

/// Decodes every sample, with `threads` threads; `progress` is told how many are done, and says whether to go on. Where
/// it says no, there is no report.
pub fn verify(
    data: &dyn Dataset,
    threads: usize,
    progress: &(dyn Fn(usize) -> ControlFlow<()> + Sync),
) -> Option<Report> {
    const CHUNK: usize = 64;
    let done = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let look = |chunk: usize| {
        if stopped.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let range = chunk * CHUNK..data.len().min((chunk + 1) * CHUNK);
        let (count, mut bytes) = (range.len(), Vec::new());
        let findings: Vec<Finding> = range.filter_map(|index| look_at(data, index, &mut bytes)).collect();
        if progress(done.fetch_add(count, Ordering::Relaxed) + count).is_break() {
            stopped.store(true, Ordering::Relaxed);
        }
        findings
    };
    let chunks = data.len().div_ceil(CHUNK);
    let findings = workers::map(chunks, threads, look).into_iter().flatten().collect();
    let all = done.into_inner() == data.len();
    all.then_some(Report { samples: data.len(), findings })
}

fn look_at(data: &dyn Dataset, index: usize, bytes: &mut Vec<u8>) -> Option<Finding> {
    let name = data.relative_name(index);
    let unreadable = |error: anyhow::Error| {
        let text = format!("{error:#}");
        let absurd = text.contains("too many for an image");
        (vec![if absurd { Verdict::Absurd } else { Verdict::Unreadable }], text)
    };
    let (mut verdicts, detail) = match data.encoded(index, bytes) {
        Ok(true) => inspect(&name, bytes),
        Ok(false) => match data.image(index) {
            Ok(_) => return None,
            Err(error) => unreadable(error),
        },
        Err(error) => unreadable(error),
    };
    verdicts.sort_unstable();
    let verdict = verdicts.pop()?;
    Some(Finding { name, verdict, also: verdicts, detail })
}

/// All that there is to say of an image file, and the details. Nothing when it is fine.
pub fn inspect(name: &str, bytes: &[u8]) -> (Vec<Verdict>, String) {
    if bytes.is_empty() {
        return (vec![Verdict::Empty], "no bytes".to_string());
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return (vec![Verdict::Absurd], format!("{} bytes", bytes.len()));
    }
    let mut verdicts = Vec::new();
    let mut details = Vec::new();
    let mut say = |verdict, detail: String| {
        verdicts.push(verdict);
        details.push(detail);
    };
    // A key of a shard has no extension; those of TGA have nothing to compare with.
    let kind = decode::format(bytes);
    let extension =
        name.rsplit('/').next().and_then(|base| base.rsplit_once('.')).map(|(_, extension)| extension);
    let called = extension.and_then(image::ImageFormat::from_extension);
    if let (Some(kind), Some(called)) = (kind, called)
        && kind != called
        && !name.contains(".tar:")
    {
        let name = |format: image::ImageFormat| format!("{format:?}").to_uppercase();
        say(Verdict::Misnamed, format!("it is {}, not {}", name(kind), name(called)));
    }
    let jpeg = decode::is_jpeg(bytes).then(|| Segments::of(bytes));
    if let Some(jpeg) = &jpeg {
        if jpeg.components == 4 {
            say(Verdict::Cmyk, "four components".to_string());
        }
        if let Some(what) = jpeg.exif.and_then(|exif| check_exif(exif).err()) {
            say(Verdict::BrokenExif, what.to_string());
        }
    }
    let absurd = |(width, height): (usize, usize)| !decode::fits(width, height);
    let decoded = match &jpeg {
        Some(_) => decode::decode_jpeg(bytes).map(|(_, _, doubt)| doubt),
        None => decode::decode(bytes).map(|_| None),
    };
    match decoded {
        Ok(doubt) => match (&jpeg, doubt) {
            (Some(jpeg), _) if !jpeg.has_end => {
                say(Verdict::NoEnd, "no end mark: its last rows may be made of other bytes".to_string());
            }
            (_, Some(Doubt(text))) => say(Verdict::Corrupt, text),
            _ => {}
        },
        Err(error) => {
            let text = format!("{error:#}");
            let verdict = match dimensions(bytes) {
                Ok(size) if absurd(size) => Verdict::Absurd,
                _ if kind.is_none() && jpeg.is_none() => Verdict::NotAnImage,
                _ if ends_early(bytes, jpeg.as_ref(), &text) => Verdict::Truncated,
                _ => Verdict::Damaged,
            };
            say(verdict, text);
        }
    }
    (verdicts, details.join("; "))
}

/// Whether a file that does not decode lacks its end.
fn ends_early(bytes: &[u8], jpeg: Option<&Segments<'_>>, message: &str) -> bool {
    let word = |at: usize| {
        bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    let shorter = |expected: Option<u32>, more: u64| {
        expected.is_none_or(|expected| u64::from(expected) + more > bytes.len() as u64)
    };
    if let Some(jpeg) = jpeg {
        return !jpeg.has_end;
    }
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => !bytes.windows(4).any(|window| window == b"IEND"),
        [b'G', b'I', b'F', ..] => bytes.last() != Some(&b';'),
        [b'R', b'I', b'F', b'F', ..] => shorter(word(4), 8),
        [b'B', b'M', ..] => shorter(word(2), 0),
        _ => ["unexpected end", "eof", "fill whole buffer", "end of file"]
            .iter()
            .any(|hint| message.contains(hint)),
    }
}

/// Whether every entry of the directories lies within the data.
fn check_exif(tiff: &[u8]) -> Result<(), &'static str> {
    let little = match tiff.get(..4) {
        Some(b"II*\0") => true,
        Some(b"MM\0*") => false,
        _ => return Err("the EXIF data begin with no byte order"),
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?;
        let bytes = [bytes[0], bytes[1]];
        Some(usize::from(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }))
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(4)?)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize)
    };
    const OUTSIDE: &str = "the EXIF data point outside of themselves";
    let mut directory = long(4).ok_or(OUTSIDE)?;
    // Two are usual, the image's and the thumbnail's; a loop must end.
    for _ in 0..8 {
        if directory == 0 {
            return Ok(());
        }
        let entries = short(directory).ok_or(OUTSIDE)?;
        for entry in 0..entries {
            let at = directory + 2 + 12 * entry;
            let kind = short(at + 2).ok_or(OUTSIDE)?;
            let count = long(at + 4).ok_or(OUTSIDE)?;
            let width = match kind {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 => 8,
                _ => return Err("an EXIF entry is of an unknown type"),
            };
            let size = count.saturating_mul(width);
            let place = if size <= 4 { at + 8 } else { long(at + 8).ok_or(OUTSIDE)? };
            if place.saturating_add(size) > tiff.len() {
                return Err(OUTSIDE);
            }
        }
        // Some cameras leave out the pointer to the next directory.
        directory = long(directory + 2 + 12 * entries).unwrap_or(0);
    }
    Err("the EXIF directories form a loop")
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::class_order::ClassOrder;
    use super::super::folder::FolderDataset;
    use super::super::index::Cache;
    use super::super::quarantine::{Exclusions, without};
    use super::super::shards::{ShardOptions, pack};
    use super::*;
    use crate::rng;
    use image::{DynamicImage, ImageFormat, RgbImage};
    use rand::Rng;
    use std::fs;
    use std::io::Cursor;
    use std::sync::Arc;

    fn picture(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image =
            RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn with_exif(tiff: &[u8]) -> Vec<u8> {
        let jpeg = picture(ImageFormat::Jpeg);
        let length = (8 + tiff.len() as u16).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, b"Exif\0\0", tiff, &jpeg[2..]].concat()
    }

    fn verdict(name: &str, bytes: &[u8]) -> Vec<Verdict> {
        inspect(name, bytes).0
    }

    #[test]
    fn every_verdict_is_given() {
        let jpeg = picture(ImageFormat::Jpeg);
        let png = picture(ImageFormat::Png);
        for format in
            [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif]
        {
            let bytes = picture(format);
            let name = format!("a.{}", format.extensions_str()[0]);
            assert_eq!(verdict(&name, &bytes), [], "{format:?}");
            assert_eq!(verdict(&name, &bytes[..bytes.len() / 2]), [Verdict::Truncated], "{format:?}");
        }
        assert_eq!(inspect("x/n01.JPEG", &png), (vec![Verdict::Misnamed], "it is PNG, not JPEG".to_string()));
        assert_eq!(verdict("a.tar:n01.jpg", &png), []);
        assert_eq!(verdict("a.jpg", b""), [Verdict::Empty]);
        assert_eq!(verdict("a.jpg", b"<html>not found</html>"), [Verdict::NotAnImage]);
        let mut bomb = jpeg.clone();
        let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bomb[frame + 5..frame + 9].fill(0xff);
        assert_eq!(verdict("a.jpg", &bomb), [Verdict::Absurd]);
        let mut damaged = png.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert_eq!(verdict("a.png", &damaged), [Verdict::Damaged]);
        assert_eq!(verdict("a.jpg", &with_exif(b"II*\0\x08\0\0\0\0\0\0\0\0\0")), []);
        assert_eq!(verdict("a.jpg", &with_exif(b"II*\0\xff\0\0\0")), [Verdict::BrokenExif]);
        assert_eq!(verdict("a.jpg", &with_exif(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")), [Verdict::BrokenExif]);
        assert_eq!(verdict("a.png", &with_exif(b"nonsense")), [Verdict::Misnamed, Verdict::BrokenExif]);
        let (rows, end) = jpeg.split_at(jpeg.len() - 2);
        assert_eq!(verdict("a.jpg", rows), [Verdict::Truncated]);
        assert_eq!(verdict("a.jpg", &[rows, &[0; 20]].concat()), [Verdict::NoEnd]);
        let (verdicts, detail) = inspect("a.jpg", &[rows, &[0; 30], end].concat());
        assert_eq!(verdicts, [Verdict::Corrupt]);
        assert!(detail.contains("extraneous bytes before marker 0xd9"), "{detail}");
        // Wherever else it is cut, whatever a lenient decoder makes of the rest.
        for len in (3..jpeg.len() - 3).step_by(7) {
            assert!(!verdict("a.jpg", &jpeg[..len])[0].is_usable(), "{len} bytes");
        }
    }

    #[test]
    fn four_inks_are_told() {
        let pixels = vec![100; 16 * 16 * 4];
        let image = turbojpeg::Image {
            pixels: pixels.as_slice(),
            width: 16,
            pitch: 64,
            height: 16,
            format: turbojpeg::PixelFormat::CMYK,
        };
        let bytes = turbojpeg::compress(image, 90, turbojpeg::Subsamp::None).unwrap();
        assert_eq!(verdict("a.jpg", &bytes), [Verdict::Cmyk]);
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let mut random = rng::stream(3, "damage", [0, 0]);
        let wholes = [
            picture(ImageFormat::Jpeg),
            with_exif(b"MM\0*\0\0\0\x08\0\x01\0\0\0\x02\0\0\0\x09\0\0\0\x1a\0\0\0\0"),
        ];
        for round in 0..3000 {
            let mut bytes = wholes[round % 2].clone();
            for _ in 0..random.random_range(1..8) {
                let most = if random.random_bool(0.5) { 200.min(bytes.len()) } else { bytes.len() };
                bytes[random.random_range(0..most)] = random.random();
            }
            if random.random_bool(0.3) {
                bytes.truncate(random.random_range(0..bytes.len()));
            }
            inspect("a.jpg", &bytes);
        }
    }

    #[test]
    fn what_is_in_quarantine_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (jpeg, png) = (picture(ImageFormat::Jpeg), picture(ImageFormat::Png));
        for (name, bytes) in [
            ("train/a/1.jpg", jpeg.as_slice()),
            ("train/a/2.jpg", b"text"),
            ("train/a/#\\\n.jpg", b""),
            ("train/b/3.jpg", &png),
            ("train/b/4.jpg", &jpeg[..jpeg.len() / 2]),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let options = ShardOptions { cache: Cache::none(), ..ShardOptions::default() };
        let data: Arc<dyn Dataset> =
            Arc::new(FolderDataset::open(dir.path(), Split::Train, ClassOrder::Auto, &options).unwrap());
        let last = AtomicUsize::new(0);
        let report = verify(data.as_ref(), 3, &|done| {
            last.fetch_max(done, Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert_eq!((report.samples, last.into_inner(), report.unusable()), (5, 5, 3));
        for (verdict, count) in [
            (Verdict::Fine, 1),
            (Verdict::Misnamed, 1),
            (Verdict::Empty, 1),
            (Verdict::NotAnImage, 1),
            (Verdict::Truncated, 1),
        ] {
            assert_eq!(report.count(verdict), count, "{verdict:?}");
        }
        let file = dir.path().join("quarantine.txt");
        fs::write(&file, report.quarantine()).unwrap();
        let exclusions = Exclusions::read(&file).unwrap();
        assert_eq!(exclusions.len(), 3);
        let kept = without(data, &exclusions).unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!([kept.relative_name(0), kept.relative_name(1)], ["train/a/1.jpg", "train/b/3.jpg"]);
        assert_eq!([kept.label(0), kept.label(1)], [0, 1]);
        // The same in a shard.
        let out = dir.path().join("out/train");
        let packed =
            pack::pack(&kept, &out, &pack::PackOptions::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(packed.unwrap().unwrap().samples, 2);
        assert!(verify(&kept, 1, &|_| ControlFlow::Break(())).is_some(), "nothing is left to break off");
    }
}
