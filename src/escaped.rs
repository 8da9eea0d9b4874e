//! File names as text, whatever bytes they are: different names stay different, and no name moves a terminal's cursor.
//!
//! A backslash is doubled; line ends are `\n` and `\r`; other characters that a [terminal would act on](crate::printable),
//! and bytes that are not UTF-8, are `\xHH`.

use crate::printable::acts;
use serde::Serializer;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A name as text. [`unescaped`] is the way back.
pub fn escaped(name: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let _ = match letter {
                '\\' => write!(text, "\\\\"),
                '\n' => write!(text, "\\n"),
                '\r' => write!(text, "\\r"),
                other if !acts(other) => write!(text, "{other}"),
                control => {
                    let mut bytes = [0; 4];
                    let bytes = control.encode_utf8(&mut bytes).bytes();
                    bytes.into_iter().try_for_each(|byte| write!(text, "\\x{byte:02x}"))
                }
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The name that a text stands for.
///
/// # Errors
/// When a backslash begins nothing known.
pub fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            name.push(*first);
            continue;
        }
        let (byte, length) = match rest {
            [b'\\', ..] => (b'\\', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', digits @ ..] if digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit) => {
                let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
                (16 * digit(digits[0]) + digit(digits[1]), 3)
            }
            _ => return Err("an unknown escape after a backslash".to_string()),
        };
        name.push(byte);
        rest = &rest[length..];
    }
    Ok(name)
}

/// Whether a path can be shown as it is: UTF-8 without characters that a terminal would act on.
pub fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains(acts))
}

/// A path as people read it: as it is where that [can be](is_plain), else [`escaped`].
pub fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) if is_plain(path) => text.to_string(),
        _ => escaped(path.as_os_str().as_bytes()),
    }
}

/// For JSON: a path that is UTF-8 as it is, another one [`escaped`].
///
/// # Errors
/// When the serializer fails.
pub fn serialize<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref();
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_str(&escaped(path.as_os_str().as_bytes())),
    }
}

/// The same of a path that may not be there.
///
/// # Errors
/// When the serializer fails.
pub fn serialize_some<P: AsRef<Path>, S: Serializer>(
    path: &Option<P>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serialize(path, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_stay_different_and_come_back() {
        let names: [&[u8]; 10] = [
            b"a.jpg",
            b"\xe9.jpg",
            b"\xe8.jpg",
            "\u{fffd}.jpg".as_bytes(),
            b"\\xe9.jpg",
            b"new\nline\r\t",
            b"esc\x1b[31m",
            "caf\u{e9}".as_bytes(),
            b"\xf0\x9f\x98",
            "\u{202e}gpj.exe".as_bytes(),
        ];
        let texts: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        for (at, (name, text)) in names.iter().zip(&texts).enumerate() {
            assert_eq!(unescaped(text).unwrap(), *name, "{text}");
            assert!(
                !texts[..at].contains(text) && !text.contains(|letter: char| letter.is_control()),
                "{text}"
            );
        }
        assert_eq!((texts[1].as_str(), texts[6].as_str()), ("\\xe9.jpg", "esc\\x1b[31m"));
        for broken in ["\\", "\\y", "\\x1", "\\xgg"] {
            assert!(unescaped(broken).is_err(), "{broken}");
        }
    }
}
