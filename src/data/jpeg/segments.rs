//! A JPEG walked through without decoding it.

/// What the segments of a JPEG say.
#[derive(Debug, Default)]
pub struct Segments<'a> {
    /// Of its pixels: 1 is gray, 4 are inks; 0 where no segment says.
    pub components: u8,
    /// Width and height in pixels, where a segment says.
    pub size: Option<(usize, usize)>,
    /// What follows the name of the EXIF segment.
    pub exif: Option<&'a [u8]>,
    /// Whether there is an end mark behind the pixels.
    pub has_end: bool,
    /// Whether all of the pixels are in one scan that is not progressive, so that they can be decoded row by row.
    pub is_one_scan: bool,
}

impl<'a> Segments<'a> {
    /// Of these bytes, damaged or not, up to the end mark, as libjpeg reads them.
    pub fn of(bytes: &'a [u8]) -> Self {
        let (mut found, mut is_sequential) = (Self::default(), false);
        let mut at = 2;
        while let Some((code, body_at)) = next_marker(bytes, at) {
            match code {
                0xd9 => {
                    found.has_end = true;
                    break;
                }
                0x01 | 0xd0..=0xd7 => {
                    at = body_at;
                    continue;
                }
                _ => {}
            }
            let Some(&[high, low]) = bytes.get(body_at..body_at + 2) else { break };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < 2 {
                break;
            }
            let Some(body) = bytes.get(body_at + 2..body_at + length) else { break };
            match code {
                0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                    found.components = body.get(5).copied().unwrap_or(0);
                    let side = |at: usize| {
                        Some(usize::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])))
                    };
                    found.size = side(3).zip(side(1));
                    is_sequential = matches!(code, 0xc0 | 0xc1 | 0xc9);
                }
                0xda => found.is_one_scan = is_sequential && body.first() == Some(&found.components),
                0xe1 if found.exif.is_none() => found.exif = body.strip_prefix(b"Exif\0\0"),
                _ => {}
            }
            at = body_at + length;
        }
        found
    }
}

/// The code of the next marker from `at` on and where what follows it begins. What is no marker is skipped: the data of a
/// scan, where 0xff is followed by a zero, and what should not be there.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut at = at;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        at += bytes[at..].iter().position(|byte| *byte != 0xff)?;
        match bytes[at] {
            0 => {}
            code => return Some((code, at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(code: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() + 2) as u16;
        [&[0xff, code], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn end_marks_within_segments_are_none() {
        let start = [0xff, 0xd8];
        let frame = segment(0xc2, &[8, 0, 1, 0, 1, 3]);
        let scan = [segment(0xda, &[1, 0, 0]), vec![0x12, 0xff, 0x00, 0xff, 0xd0, 0x34]].concat();
        let table = segment(0xc4, &[0xff, 0xd9]);
        let whole = |ending: &[u8]| [&start[..], &frame, &scan, &table, &scan, ending].concat();
        for (ending, has_end) in [(&[0xff, 0xd9][..], true), (&[0xff, 0xff, 0xd9, 7], true), (&[0xff], false)]
        {
            let bytes = whole(ending);
            let found = Segments::of(&bytes);
            assert_eq!((found.components, found.has_end, found.is_one_scan), (3, has_end, false));
        }
    }

    #[test]
    fn a_scan_of_all_components_is_the_only_one() {
        for (frame, in_scan, expected) in
            [(0xc0, 3, true), (0xc0, 1, false), (0xc1, 3, true), (0xc2, 3, false)]
        {
            let frame = segment(frame, &[8, 0, 1, 0, 1, 3]);
            let bytes = [&[0xff, 0xd8][..], &frame, &segment(0xda, &[in_scan])].concat();
            assert_eq!(Segments::of(&bytes).is_one_scan, expected);
        }
    }
}
