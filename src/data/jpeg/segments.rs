//! A JPEG walked through without decoding it.

/// What the segments of a JPEG say.
pub struct Segments<'a> {
    /// Of its pixels: 1 is gray, 4 are inks; 0 where no segment says.
    pub components: u8,
    /// What follows the name of the EXIF segment.
    pub exif: Option<&'a [u8]>,
    /// Whether there is an end mark behind the pixels.
    pub has_end: bool,
}

impl<'a> Segments<'a> {
    /// Of these bytes, damaged or not.
    pub fn of(bytes: &'a [u8]) -> Self {
        let mut found = Self { components: 0, exif: None, has_end: false };
        let mut at = 2;
        while let Some(&[mark, code]) = bytes.get(at..at + 2) {
            match (mark, code) {
                (0xff, 0xff) => {
                    at += 1;
                    continue;
                }
                (0xff, 0xd9) => {
                    found.has_end = true;
                    break;
                }
                (0xff, 0xda) => {
                    // In what follows 0xff comes with a zero, except before marks.
                    found.has_end = bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]);
                    break;
                }
                (0xff, 0x01 | 0xd0..=0xd7) => {
                    at += 2;
                    continue;
                }
                (0xff, _) => {}
                _ => break,
            }
            let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { break };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < 2 {
                break;
            }
            let Some(body) = bytes.get(at + 4..at + 2 + length) else { break };
            match code {
                0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                    found.components = body.get(5).copied().unwrap_or(0);
                }
                0xe1 if found.exif.is_none() => found.exif = body.strip_prefix(b"Exif\0\0"),
                _ => {}
            }
            at += 2 + length;
        }
        found
    }
}
