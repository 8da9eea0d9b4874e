//! Checksums within the records of a run, so that a damaged byte anywhere in them is found.
//!
//! A JSON document ends with the SHA-256 of everything before it, as its last field; a line of a JSON-lines file with its
//! CRC-32C. To other readers both are a further field. Records of older versions have neither.

use crate::error::Result;
use crate::files;
use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Whether a record carries a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Yes, and it matches.
    Valid,
    /// No: an older version wrote it.
    Missing,
}

/// What is said of a record whose checksum differs.
const MISMATCH: &str = "it is not what was saved (its checksum differs)";

/// Characters of a SHA-256 in hexadecimal.
const HEX: usize = 64;

/// SHA-256 in lower-case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// What follows `head` in a document.
fn tail(head: &[u8]) -> String {
    format!(",\n  \"sha256\": \"{}\"\n}}\n", sha256(head))
}

/// An object as an indented JSON document that ends with its checksum.
///
/// # Errors
/// When the value is no object, or an empty one.
pub(super) fn document(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    anyhow::ensure!(text.ends_with(b"\n}"), "only an object with fields can carry a checksum");
    text.truncate(text.len() - 2);
    let tail = tail(&text);
    text.extend(tail.into_bytes());
    Ok(text)
}

/// Writes such a document.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    files::write_atomic(path, &document(value)?)
}

/// Reads a document with or without a checksum.
///
/// # Errors
/// When it is damaged; the message says how.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<(T, Checksum), String> {
    let at = text.len().saturating_sub(tail(b"").len());
    let (head, end) = text.split_at(at);
    let parsed = |text: &[u8]| serde_json::from_slice(text).map_err(|error| error.to_string());
    if tail(head).as_bytes() == end {
        return Ok((parsed(&[head, b"\n}"].concat())?, Checksum::Valid));
    }
    if has_checksum(&text[at.saturating_sub(HEX)..]) {
        return Err(MISMATCH.to_string());
    }
    Ok((parsed(text)?, Checksum::Missing))
}

/// Whether a document's end looks like one with a checksum, damaged or not.
fn has_checksum(end: &[u8]) -> bool {
    end.split(|byte| !byte.is_ascii_hexdigit()).any(|digits| digits.len() >= HEX / 2 - 1)
}

/// The same of the file at `path`.
///
/// # Errors
/// When it cannot be read or is damaged.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let (value, _) = parse(&files::read(path)?)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} is damaged", path.display()))?;
    Ok(value)
}

/// An object as a line of a JSON-lines file, with its checksum and the line's end.
///
/// # Errors
/// When the value is no object, or an empty one.
pub(super) fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    anyhow::ensure!(text.pop() == Some(b'}') && text.len() > 1, "only an object with fields can be a line");
    let end = line_end(&text);
    text.extend(end.into_bytes());
    text.push(b'\n');
    Ok(text)
}

/// What follows `head` in a line.
fn line_end(head: &[u8]) -> String {
    format!(",\"crc32c\":\"{:08x}\"}}", crc32c::crc32c(head))
}

/// Whether a line (without its end) is intact, as far as it carries a checksum; nothing where it is damaged.
pub(super) fn check_line(line: &[u8]) -> Option<Checksum> {
    let (head, end) = line.split_at(line.len().saturating_sub(line_end(b"").len()));
    if line_end(head).as_bytes() == end {
        return Some(Checksum::Valid);
    }
    let key = b"\"crc32c\":";
    if end.windows(key.len()).any(|window| window == key) {
        return None;
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok().then_some(Checksum::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_changed_byte_of_a_document_is_found() {
        let value = json!({ "steps": 12, "name": "a", "list": [1.5, null, true] });
        let text = document(&value).unwrap();
        assert_eq!(parse::<Value>(&text).unwrap(), (value.clone(), Checksum::Valid));
        // Whoever reads it otherwise sees one more field.
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap()["steps"], 12);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                assert!(parse::<Value>(&damaged).is_err(), "byte {at}, bit {bit}");
            }
            assert!(parse::<Value>(&text[..at]).is_err(), "cut after {at} bytes");
        }
        let older = serde_json::to_vec_pretty(&value).unwrap();
        assert_eq!(parse::<Value>(&older).unwrap(), (value, Checksum::Missing));
    }

    #[test]
    fn a_changed_byte_of_a_line_is_found_or_beside_its_contents() {
        let value = json!({ "event": "steps", "step": 12, "loss": 0.5 });
        let mut text = line(&value).unwrap();
        assert_eq!(text.pop(), Some(b'\n'));
        assert_eq!(check_line(&text), Some(Checksum::Valid));
        let contents = text.len() - line_end(b"").len();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                // In the name of the checksum alone, nothing is lost.
                assert!(check_line(&damaged).is_none() || at >= contents, "byte {at}, bit {bit}");
            }
            assert_eq!(check_line(&text[..at]), None);
        }
        assert_eq!(check_line(&serde_json::to_vec(&value).unwrap()), Some(Checksum::Missing));
    }
}
