//! Tar archives, as far as shards need them: a reader of headers that says where each member's bytes lie, and a
//! writer that makes the same bytes from the same members.
//!
//! ustar, GNU and PAX are read, long names and sizes of either kind included. Nothing is ever unpacked. A header's
//! word is never taken for memory: a member must lie within the file, and names and PAX records have limits.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes of a header, and what members are padded to.
pub const BLOCK: u64 = 512;
/// Longest name; the longest path that Linux opens.
const MAX_NAME: u64 = 4096;
/// Longest set of PAX records.
const MAX_RECORDS: u64 = 1 << 20;
/// How far behind the end mark members of a second archive are looked for.
const LOOK_BEHIND: u64 = 1 << 20;
const WINDOW: usize = 16 << 10;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A file; its bytes lie in the archive as they are.
    File,
    /// A folder.
    Folder,
    /// A symbolic or hard link.
    Link,
    /// A device, a pipe, a sparse file or anything else.
    Special,
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, as it is written there.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Where its header begins.
    pub header: u64,
    /// Where its bytes begin.
    pub offset: u64,
    /// Its bytes; within the archive.
    pub size: u64,
}

/// What is wrong with an archive.
#[derive(Debug)]
pub struct Fault {
    /// Where.
    pub offset: u64,
    /// What.
    pub what: String,
    /// Whether the archive ends before it should; what comes before is sound.
    pub truncated: bool,
}

impl Fault {
    fn at(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into(), truncated: false }
    }
    fn cut(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into(), truncated: true }
    }
}

/// A file, or the bytes of one, read at any offset.
pub trait ReadAt {
    /// Fills `target` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When there are not as many bytes, or they cannot be read.
    fn read_exact_at(&self, target: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, target: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, target, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, target: &mut [u8], offset: u64) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let bytes = rest.and_then(|rest| rest.get(..target.len()));
        target.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The members of an archive, in order.
pub struct Members<'a> {
    file: &'a dyn ReadAt,
    len: u64,
    position: u64,
    window: Vec<u8>,
    window_at: u64,
    done: bool,
}

impl<'a> Members<'a> {
    /// Of the first `len` bytes of `file`.
    pub fn new(file: &'a dyn ReadAt, len: u64) -> Self {
        Self { file, len, position: 0, window: Vec::new(), window_at: 0, done: false }
    }

    /// The next one; `None` at the end mark. After a fault there is nothing more.
    ///
    /// # Errors
    /// When the archive is damaged or ends early.
    pub fn next_member(&mut self) -> Result<Option<Member>, Fault> {
        if self.done {
            return Ok(None);
        }
        let result = self.advance();
        self.done = !matches!(result, Ok(Some(_)));
        result
    }

    fn advance(&mut self) -> Result<Option<Member>, Fault> {
        let mut long_name: Option<Vec<u8>> = None;
        let mut pax = Pax::default();
        let first = self.position;
        loop {
            let at = self.position;
            if at >= self.len {
                let what = match at {
                    0 => "the file is empty",
                    _ => "it ends without an end mark",
                };
                return Err(Fault::cut(at.min(self.len), what));
            }
            if self.len - at < BLOCK {
                return Err(Fault::cut(
                    at,
                    format!("it ends within a header, after {} bytes", self.len - at),
                ));
            }
            let mut header = [0; BLOCK as usize];
            self.copy(at, &mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                return self.finish(at).map(|()| None);
            }
            check_header(&header, at)?;
            let mut size = number(&header[124..136])
                .ok_or_else(|| Fault::at(at, "its header has a size that is no number"))?;
            let flag = header[156];
            let meta = matches!(flag, b'L' | b'K' | b'x' | b'g' | b'X');
            if !meta {
                size = pax.size.unwrap_or(size);
            }
            // Links and devices have no bytes, whatever their header says; GNU tar writes links with a size.
            if matches!(flag, b'1'..=b'6') {
                size = 0;
            }
            let offset = at + BLOCK;
            let end = offset.checked_add(size).filter(|end| *end <= self.len).ok_or_else(|| {
                let left = self.len - offset;
                let what = format!("a member of {size} bytes begins there, but {left} follow");
                Fault::cut(at, what)
            })?;
            self.position = end.next_multiple_of(BLOCK);
            match flag {
                b'L' | b'K' => {
                    let bytes = self.read(offset, size, MAX_NAME + 1, "a name")?;
                    if flag == b'L' {
                        long_name = Some(until_nul(&bytes).to_vec());
                    }
                }
                b'x' | b'X' => {
                    let bytes = self.read(offset, size, MAX_RECORDS, "PAX records")?;
                    pax = Pax::parse(&bytes).map_err(|what| Fault::at(offset, what))?;
                }
                // Defaults for all that follow: dates and comments, of no use here.
                b'g' => {}
                _ => {
                    let name = pax.path.or(long_name).unwrap_or_else(|| plain_name(&header));
                    if name.is_empty() || name.contains(&0) || name.len() as u64 > MAX_NAME {
                        return Err(Fault::at(at, "a member has an impossible name"));
                    }
                    let kind = match flag {
                        _ if pax.sparse => MemberKind::Special,
                        // The oldest tars mark folders by the name alone.
                        b'0' | 0 | b'7' if name.ends_with(b"/") => MemberKind::Folder,
                        b'0' | 0 | b'7' => MemberKind::File,
                        b'5' => MemberKind::Folder,
                        b'1' | b'2' => MemberKind::Link,
                        _ => MemberKind::Special,
                    };
                    return Ok(Some(Member { name, kind, header: first, offset, size }));
                }
            }
        }
    }

    /// Nothing may follow the end mark but padding: two archives in one file would otherwise lose the second.
    fn finish(&mut self, mark: u64) -> Result<(), Fault> {
        let end = self.len.min(mark.saturating_add(LOOK_BEHIND));
        let mut at = mark;
        while at < end {
            let mut piece = [0; 4096];
            let piece = &mut piece[..(end - at).min(4096) as usize];
            self.copy(at, piece)?;
            if let Some(place) = piece.iter().position(|byte| *byte != 0) {
                let what = "something follows the end mark (two archives in one file?)";
                return Err(Fault::at((at + place as u64) / BLOCK * BLOCK, what));
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Bytes of a member.
    ///
    /// # Errors
    /// When there are more than `limit`, or they cannot be read.
    pub fn read(&mut self, offset: u64, size: u64, limit: u64, what: &str) -> Result<Vec<u8>, Fault> {
        if size > limit {
            return Err(Fault::at(offset, format!("{what} of {size} bytes, more than {limit}")));
        }
        let mut bytes = vec![0; size as usize];
        self.copy(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Through a window, since small members come many to a page.
    fn copy(&mut self, at: u64, target: &mut [u8]) -> Result<(), Fault> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::cut(at, "the file has become shorter"),
            _ => Fault::at(at, format!("it cannot be read ({error})")),
        };
        if target.len() > WINDOW {
            return self.file.read_exact_at(target, at).map_err(unreadable);
        }
        let within =
            at >= self.window_at && at + target.len() as u64 <= self.window_at + self.window.len() as u64;
        if !within {
            let size = (self.len - at).min(WINDOW as u64) as usize;
            self.window.resize(size, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(unreadable(error));
            }
        }
        let start = (at - self.window_at) as usize;
        match self.window.get(start..start + target.len()) {
            Some(bytes) => target.copy_from_slice(bytes),
            None => return Err(Fault::cut(at, "it ends early")),
        }
        Ok(())
    }
}

fn check_header(header: &[u8; 512], at: u64) -> Result<(), Fault> {
    // The checksum's own field counts as spaces. Old programs added signed bytes.
    let byte = |place: usize| if (148..156).contains(&place) { b' ' } else { header[place] };
    let unsigned: u64 = (0..512).map(|place| u64::from(byte(place))).sum();
    let signed: i64 = (0..512).map(|place| i64::from(byte(place) as i8)).sum();
    let stored = number(&header[148..156]);
    if stored.is_some_and(|stored| stored == unsigned || i64::try_from(stored) == Ok(signed)) {
        return Ok(());
    }
    let what = match (at, &header[..6]) {
        (0, [0x1f, 0x8b, ..]) => "it is packed with gzip; members are read at random, from plain tar",
        (0, [0x28, 0xb5, 0x2f, 0xfd, ..]) => {
            "it is packed with zstd; members are read at random, from plain tar"
        }
        (0, [b'B', b'Z', b'h', ..]) => "it is packed with bzip2; members are read at random, from plain tar",
        (0, [0xfd, b'7', b'z', b'X', b'Z', 0]) => {
            "it is packed with xz; members are read at random, from plain tar"
        }
        (0, _) => "it is not a tar archive",
        _ => "a header's checksum is wrong",
    };
    Err(Fault::at(at, what))
}

/// A number of a header: octal digits, or big-endian after a first byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        // 0xff begins a negative number, and other bits a number beyond any file.
        let (high, low) = rest.split_at(rest.len() - 8.min(rest.len()));
        if *first != 0x80 || high.iter().any(|byte| *byte != 0) {
            return None;
        }
        let value = low.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        return (value <= i64::MAX as u64).then_some(value);
    }
    let text = until_nul(field).trim_ascii();
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn plain_name(header: &[u8; 512]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    // GNU tar keeps other things in the place of the prefix.
    if header[257..263] == *b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// What matters of the PAX records of a member.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Pax {
    /// From records of the form `length key=value\n`, where the length counts the whole record.
    fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        const BROKEN: &str = "PAX records are broken";
        let mut found = Self::default();
        while !until_nul(bytes).is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or(BROKEN)?;
            let length = decimal(&bytes[..space]).ok_or(BROKEN)?;
            let length = usize::try_from(length).map_err(|_| BROKEN)?;
            if length > bytes.len() || length < space + 2 || bytes[length - 1] != b'\n' {
                return Err(BROKEN);
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => found.path = Some(value.to_vec()).filter(|path| !path.is_empty()),
                b"size" => found.size = Some(decimal(value).ok_or("a PAX size is no number")?),
                _ => found.sparse |= key.starts_with(b"GNU.sparse"),
            }
            bytes = &bytes[length..];
        }
        Ok(found)
    }
}

/// A decimal number of at most 18 digits.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

/// Bytes that a member of `size` bytes takes in an archive.
pub fn member_bytes(size: usize) -> u64 {
    BLOCK + (size as u64).next_multiple_of(BLOCK)
}

/// Bytes of the end mark.
pub const END_BYTES: u64 = 2 * BLOCK;

/// Writes a file, of no one and of no date, so that the same members make the same archive.
///
/// # Errors
/// When the name has more than 100 bytes, the contents 8 GiB, or the output fails.
pub fn write_member(output: &mut impl Write, name: &str, contents: &[u8]) -> io::Result<()> {
    if name.is_empty() || name.len() > 100 || contents.len() as u64 >= 1 << 33 {
        return Err(io::Error::other(format!("the member {name} does not fit a tar header")));
    }
    let mut header = [0; BLOCK as usize];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let mut field = |at: usize, digits: usize, value: u64| {
        header[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    };
    field(100, 7, 0o644);
    field(108, 7, 0);
    field(116, 7, 0);
    field(124, 11, contents.len() as u64);
    field(136, 11, 0);
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    output.write_all(&header)?;
    output.write_all(contents)?;
    let padding = contents.len().next_multiple_of(BLOCK as usize) - contents.len();
    output.write_all(&[0; BLOCK as usize][..padding])
}

/// Writes the end mark.
///
/// # Errors
/// When the output fails.
pub fn write_end(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; END_BYTES as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn members(bytes: &[u8]) -> Result<Vec<Member>, Fault> {
        let mut members = Members::new(&bytes, bytes.len() as u64);
        let mut found = Vec::new();
        while let Some(member) = members.next_member()? {
            found.push(member);
        }
        assert!(members.next_member().unwrap().is_none());
        Ok(found)
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        members(bytes)
            .unwrap()
            .iter()
            .map(|member| String::from_utf8_lossy(&member.name).into_owned())
            .collect()
    }

    fn written(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        members.iter().for_each(|(name, contents)| write_member(&mut bytes, name, contents).unwrap());
        write_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read_by_this_and_by_the_tar_crate() {
        let contents: [(&str, &[u8]); 4] =
            [("a.jpg", b"12345"), ("a.cls", b"7"), ("d/b.jpg", &[9; 1025]), ("d/empty", b"")];
        let bytes = written(&contents);
        assert_eq!(
            bytes.len() as u64,
            contents.iter().map(|(_, c)| member_bytes(c.len())).sum::<u64>() + END_BYTES
        );
        for (member, (name, contents)) in members(&bytes).unwrap().iter().zip(contents) {
            assert_eq!((member.name.as_slice(), member.kind), (name.as_bytes(), MemberKind::File));
            assert_eq!(&bytes[member.offset as usize..][..member.size as usize], contents);
        }
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        for (entry, (name, contents)) in archive.entries().unwrap().zip(contents) {
            let entry = entry.unwrap();
            assert_eq!(
                (entry.path().unwrap().as_ref(), entry.size()),
                (Path::new(name), contents.len() as u64)
            );
        }
    }

    #[test]
    fn the_tar_crate_writes_what_is_read() {
        let long = format!("{}/x.jpg", "long".repeat(40));
        let mut builder = ::tar::Builder::new(Vec::new());
        for name in ["short.jpg", &long] {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(3);
            builder.append_data(&mut header, name, b"abc".as_slice()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        assert_eq!(names(&bytes), ["short.jpg", &long]);
    }

    #[test]
    fn every_format_of_the_tar_program_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let deep = format!("{}/{}", "d".repeat(60), "e".repeat(60));
        let long = format!("{deep}/{}.jpg", "f".repeat(90));
        let middle = format!("{deep}/g.jpg");
        std::fs::create_dir_all(dir.path().join(&deep)).unwrap();
        for (name, contents) in [(long.as_str(), "long"), (&middle, "middle"), ("h.jpg", "short")] {
            std::fs::write(dir.path().join(name), contents).unwrap();
        }
        std::os::unix::fs::symlink("h.jpg", dir.path().join("link.jpg")).unwrap();
        for format in ["gnu", "pax", "ustar", "v7"] {
            let fits: &[&str] = if format == "v7" { &["h.jpg"] } else { &[&long, &middle, "h.jpg"] };
            let output = Command::new("tar")
                .current_dir(dir.path())
                .args([&format!("--format={format}"), "-cf", "-", "link.jpg"])
                .args(fits)
                .output()
                .unwrap();
            assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
            let found = members(&output.stdout).unwrap();
            assert_eq!(found[0].kind, MemberKind::Link);
            for (member, name) in found[1..].iter().zip(fits) {
                assert_eq!(String::from_utf8_lossy(&member.name), *name, "{format}");
                let contents = std::fs::read(dir.path().join(name)).unwrap();
                assert_eq!(&output.stdout[member.offset as usize..][..member.size as usize], contents);
            }
            assert_eq!(found.len(), 1 + fits.len());
        }
    }

    #[test]
    fn a_cut_is_noticed_wherever_it_is() {
        let bytes = written(&[("a.jpg", &[1; 700]), ("a.cls", b"7")]);
        for len in 0..bytes.len() - END_BYTES as usize + 1 {
            let fault = members(&bytes[..len]).unwrap_err();
            assert!(fault.truncated && fault.offset <= len as u64, "{len}: {fault:?}");
        }
        // Half an end mark is one.
        assert_eq!(members(&bytes[..bytes.len() - 512]).unwrap().len(), 2);
        let fault = members(&bytes[..600]).unwrap_err();
        assert_eq!(
            (fault.offset, fault.what.as_str()),
            (0, "a member of 700 bytes begins there, but 88 follow")
        );
    }

    #[test]
    fn what_is_no_tar_is_named() {
        let what = |bytes: &[u8]| members(bytes).unwrap_err().what;
        assert!(what(&[b'x'; 1000]).contains("not a tar archive"));
        assert!(what(&[&[0x1f, 0x8b], [7; 1000].as_slice()].concat()).contains("gzip"));
        assert!(what(b"").contains("empty"));
        let one = written(&[("a.jpg", b"1")]);
        let fault = members(&[one.as_slice(), &one].concat()).unwrap_err();
        assert_eq!((fault.offset, fault.truncated), (one.len() as u64, false));
    }

    #[test]
    fn numbers_of_headers() {
        for (field, value) in [
            (b"00000000017\0".as_slice(), Some(15)),
            (b"       17 \0\0", Some(15)),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\x01\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"-0000000017\0", None),
            (b"00000000018\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
