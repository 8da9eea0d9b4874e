//! The table of ImageNet's development kit (`meta.mat`) that says which WordNet id each number of
//! `ILSVRC2012_validation_ground_truth.txt` stands for, and those numbers themselves.
//!
//! `meta.mat` is a MATLAB level 5 file with a struct array `synsets`; those of its members that have no children are
//! the classes. Only as much of the format is read as that takes: other variables are passed over by their name, and
//! of the structs only three fields are opened. Nothing here recurses, a size is never taken for memory before the
//! bytes are there, and what is decompressed has a limit.

use flate2::read::ZlibDecoder;
use std::io::Read;

/// The variable, and its fields of interest.
const TABLE: &str = "synsets";
const ID: &str = "ILSVRC2012_ID";
const WNID: &str = "WNID";
const CHILDREN: &str = "num_children";

/// Bytes of the file's header.
const HEADER: usize = 128;
/// Bytes of a variable that are decompressed to learn its name; MATLAB's names have 63 letters at most.
const HEAD: u64 = 4096;
/// Most bytes of the table when decompressed.
const MAX_TABLE: u64 = 64 << 20;
/// Most dimensions of an array.
const MAX_DIMENSIONS: usize = 32;
/// Most members of the table, ImageNet's has 1860, and most fields of each.
const MAX_SYNSETS: usize = 1 << 16;
const MAX_FIELDS: usize = 1 << 10;
/// Bytes of foreign text that a message shows, and names that it lists.
const SHOWN: usize = 40;
const LISTED: usize = 12;

// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;
const UTF32: u32 = 18;

// Classes of arrays; 0 here stands for the empty array that has no header.
const EMPTY: u8 = 0;
const STRUCT: u8 = 2;
const CHAR: u8 = 4;
const FIRST_NUMERIC: u8 = 6;
const LAST_NUMERIC: u8 = 15;
const OPAQUE: u8 = 17;

/// The WordNet ids of the classes in `bytes`, a `meta.mat`, in the order of ILSVRC2012_ID: that of number 1 first.
///
/// # Errors
/// When it is no MATLAB level 5 file of the little-endian kind, is damaged or has no such table, or when the numbers
/// of the classes are not 1 to as many as there are.
pub fn wordnet_ids(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut file = Elements(check_header(bytes)?);
    let mut others = Vec::new();
    for number in 1u64.. {
        if file.0.is_empty() {
            break;
        }
        let variable = |what| format!("variable {number}: {what}");
        let element = file.next("an array").map_err(variable)?;
        let mut inflated = Vec::new();
        let data = match element.kind {
            MATRIX => element.data,
            COMPRESSED => {
                inflate(element.data, &mut inflated).map_err(variable)?;
                inflated.get(8..).unwrap_or_default()
            }
            kind => return Err(variable(format!("expected an array, found {}", type_name(kind)))),
        };
        let array = Array::open(data).map_err(variable)?;
        if array.name == TABLE.as_bytes() {
            return read_table(array).map_err(|what| format!("{TABLE}: {what}"));
        }
        if others.len() <= LISTED {
            others.push(if array.name.is_empty() { "(unnamed)".to_string() } else { shown(array.name) });
        }
    }
    Err(format!("expected a variable {TABLE}, found {}", list(others)))
}

/// What follows the file's header.
fn check_header(bytes: &[u8]) -> Result<&[u8], String> {
    const EXPECTED: &str = "expected a MATLAB level 5 file";
    if bytes.starts_with(b"MATLAB 7.3") || bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Err(format!("{EXPECTED}, found one of MATLAB 7.3 (HDF5); save it with `-v7`"));
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Err(format!("{EXPECTED}, with a header of {HEADER} bytes; found {} bytes", bytes.len()));
    };
    match &header[124..] {
        [0, 1, b'I', b'M'] => Ok(rest),
        [1, 0, b'M', b'I'] => Err(format!("{EXPECTED} of little-endian numbers, found big-endian ones")),
        [minor, major, b'I', b'M'] => {
            Err(format!("{EXPECTED} (version 0x0100), found version 0x{major:02x}{minor:02x}"))
        }
        mark => Err(format!("{EXPECTED} (bytes 124 to 127: 00 01 49 4d), found {mark:02x?} there")),
    }
}

/// Decompresses an array with its tag: all of the table, but only the head of another variable.
fn inflate(packed: &[u8], target: &mut Vec<u8>) -> Result<(), String> {
    let unreadable = |error| format!("it cannot be decompressed ({error})");
    let mut decoder = ZlibDecoder::new(packed);
    decoder.by_ref().take(HEAD).read_to_end(target).map_err(unreadable)?;
    let Some((kind, size)) = full_tag(target) else {
        return Err(format!("expected an array within the compressed bytes, found {} bytes", target.len()));
    };
    if kind != MATRIX {
        return Err(format!("expected an array within the compressed bytes, found {}", type_name(kind)));
    }
    let size = 8 + u64::from(size);
    if Array::open(&target[8..])?.name != TABLE.as_bytes() {
        return Ok(());
    }
    if size > MAX_TABLE {
        return Err(format!("{TABLE} has {size} bytes when decompressed; expected {MAX_TABLE} at most"));
    }
    // One byte further, which must not be there: then the checksum behind the last one has been compared too.
    let further = (size + 1).saturating_sub(target.len() as u64);
    decoder.take(further).read_to_end(target).map_err(unreadable)?;
    let found = target.len() as u64;
    if found > size {
        return Err(format!("expected {size} decompressed bytes of {TABLE}, found more"));
    }
    if found < size {
        return Err(format!("expected {size} decompressed bytes of {TABLE}, found {found}"));
    }
    Ok(())
}

/// The table in `array`.
fn read_table(mut array: Array) -> Result<Vec<String>, String> {
    if array.class != STRUCT {
        return Err(format!("expected a struct array, found {}", class_name(array.class)));
    }
    if array.count > MAX_SYNSETS {
        return Err(format!("expected {MAX_SYNSETS} structs at most, found {}", array.count));
    }
    let elements = &mut array.elements;
    let width = elements.next("the width of field names")?;
    let width = match (width.kind, number(&width)) {
        (INT32 | UINT32, Some(value)) if value >= 1.0 => value as usize,
        _ => return Err(format!("expected the width of field names, found {}", width.describe())),
    };
    let names = elements.next("field names")?;
    if !is_name(names.kind) || !names.data.len().is_multiple_of(width) {
        return Err(format!("expected field names of {width} bytes each, found {}", names.describe()));
    }
    if names.data.len() / width > MAX_FIELDS {
        return Err(format!("expected {MAX_FIELDS} fields at most, found {}", names.data.len() / width));
    }
    let names: Vec<&[u8]> = names.data.chunks_exact(width).map(until_nul).collect();
    let place = |field: &str| {
        let place = names.iter().position(|name| *name == field.as_bytes());
        place.ok_or_else(|| {
            format!("expected a field {field}, found {}", list(names.iter().map(|name| shown(name))))
        })
    };
    let (id_place, wnid_place, children_place) = (place(ID)?, place(WNID)?, place(CHILDREN)?);

    let mut leaves = Vec::new();
    for synset in 1..=array.count {
        let within = |field: &str, what: String| format!("struct {synset}: {field}: {what}");
        let (mut id, mut wnid, mut children) = (Array::EMPTY, Array::EMPTY, Array::EMPTY);
        for (place, name) in names.iter().enumerate() {
            let broken = |what| within(&shown(name), what);
            let value = elements.next("an array").map_err(broken)?;
            if value.kind != MATRIX {
                return Err(broken(format!("expected an array, found {}", type_name(value.kind))));
            }
            let target = match place {
                _ if place == id_place => &mut id,
                _ if place == wnid_place => &mut wnid,
                _ if place == children_place => &mut children,
                _ => continue,
            };
            *target = Array::open(value.data).map_err(broken)?;
        }
        if children.whole().map_err(|what| within(CHILDREN, what))? == 0 {
            let id = id.whole().map_err(|what| within(ID, what))?;
            leaves.push((synset, id, wnid.wordnet_id().map_err(|what| within(WNID, what))?));
        }
    }
    if !elements.0.is_empty() {
        return Err(format!("expected its end, found {} more bytes", elements.0.len()));
    }
    if leaves.is_empty() {
        return Err(format!("expected structs without children, found none among {}", array.count));
    }

    let mut ids = vec![None; leaves.len()];
    let classes = leaves.len();
    for (synset, id, wnid) in leaves {
        let within = |what: &str| format!("struct {synset}: {ID}: expected 1 to {classes}, {what} {id}");
        match id.checked_sub(1).and_then(|place| ids.get_mut(place)) {
            Some(Some(_)) => return Err(within("each once, found a second")),
            Some(free) => *free = Some(wnid),
            None => return Err(within("found")),
        }
    }
    let ids: Vec<String> = ids.into_iter().flatten().collect();
    let mut sorted: Vec<&String> = ids.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("expected a {WNID} of its own for each class, found {} twice", pair[0])),
        None => Ok(ids),
    }
}

/// An element: a type and bytes.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl Element<'_> {
    fn describe(&self) -> String {
        format!("{} bytes of {}", self.data.len(), type_name(self.kind))
    }
}

/// Elements, one behind the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The next one, which should be `what`.
    fn next(&mut self, what: &str) -> Result<Element<'a>, String> {
        let Some((kind, size)) = full_tag(self.0) else {
            return Err(format!("expected {what}, found the end ({} bytes left)", self.0.len()));
        };
        // Four bytes or less lie within the tag; then its first half holds the size too.
        let (kind, offset, size) = match kind >> 16 {
            0 => (kind, 8, size as usize),
            small @ 1..=4 => (kind & 0xffff, 4, small as usize),
            size => return Err(format!("expected {what}, found a tag of a small element of {size} bytes")),
        };
        let rest = self.0.get(offset..).unwrap_or_default();
        let Some(data) = rest.get(..size) else {
            return Err(format!("expected {what} of {size} bytes, found {} bytes", rest.len()));
        };
        // Compressed ones are not padded. The last one may lack its padding, as other readers see it.
        let end = if kind == COMPRESSED { offset + size } else { (offset + size).next_multiple_of(8) };
        self.0 = self.0.get(end..).unwrap_or_default();
        Ok(Element { kind, data })
    }
}

/// The two halves of a tag.
fn full_tag(bytes: &[u8]) -> Option<(u32, u32)> {
    let (kind, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*kind), u32::from_le_bytes(*rest.first_chunk()?)))
}

/// An array whose header has been read.
struct Array<'a> {
    class: u8,
    complex: bool,
    /// Its members: the product of its dimensions.
    count: usize,
    name: &'a [u8],
    /// What follows the header.
    elements: Elements<'a>,
}

impl<'a> Array<'a> {
    const EMPTY: Self = Self { class: EMPTY, complex: false, count: 0, name: &[], elements: Elements(&[]) };

    /// Reads the header. MATLAB writes an empty array without one.
    fn open(data: &'a [u8]) -> Result<Self, String> {
        if data.is_empty() {
            return Ok(Self::EMPTY);
        }
        let mut elements = Elements(data);
        let flags = elements.next("array flags")?;
        let (UINT32, [class, bits, _, _, _, _, _, _]) = (flags.kind, flags.data) else {
            return Err(format!("expected 8 bytes of array flags, found {}", flags.describe()));
        };
        // An object of a newer kind, such as a table or a string, has no dimensions.
        let count = if *class == OPAQUE { 0 } else { count(&elements.next("dimensions")?)? };
        let name = elements.next("an array's name")?;
        if !is_name(name.kind) {
            return Err(format!("expected an array's name, found {}", name.describe()));
        }
        Ok(Self { class: *class, complex: bits & 8 != 0, count, name: until_nul(name.data), elements })
    }

    /// The whole number that it is.
    fn whole(mut self) -> Result<usize, String> {
        const EXPECTED: &str = "expected a whole number";
        if !(FIRST_NUMERIC..=LAST_NUMERIC).contains(&self.class) || self.complex {
            let complex = if self.complex { " with complex numbers" } else { "" };
            return Err(format!("{EXPECTED}, found {}{complex}", class_name(self.class)));
        }
        if self.count != 1 {
            return Err(format!("{EXPECTED}, found {} of them", self.count));
        }
        let element = self.elements.next("a number")?;
        match number(&element) {
            Some(value) if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value) => {
                Ok(value as usize)
            }
            Some(value) => Err(format!("{EXPECTED}, found {value:e}")),
            None => Err(format!("{EXPECTED}, found {}", element.describe())),
        }
    }

    /// The WordNet id that it is.
    fn wordnet_id(mut self) -> Result<String, String> {
        const EXPECTED: &str = "expected a WordNet id such as n01440764";
        if self.class != CHAR {
            return Err(format!("{EXPECTED}, found {}", class_name(self.class)));
        }
        let element = self.elements.next("characters")?;
        let width = match element.kind {
            INT8 | UINT8 | UTF8 => 1,
            UINT16 | UTF16 => 2,
            UTF32 => 4,
            _ => return Err(format!("{EXPECTED}, found {}", element.describe())),
        };
        if !element.data.len().is_multiple_of(width) {
            return Err(format!("{EXPECTED}, found {}", element.describe()));
        }
        // Ids are ASCII, of which every encoding has as many units as letters.
        let units = element.data.chunks_exact(width).take(SHOWN);
        let code = |unit: &[u8]| unit.iter().rfold(0u32, |code, byte| code << 8 | u32::from(*byte));
        let text: String =
            units.map(|unit| char::from_u32(code(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        let digits = text.strip_prefix('n').unwrap_or_default();
        if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{EXPECTED}, found {text:?}"));
        }
        if self.count != text.len() {
            return Err(format!("{EXPECTED}, found {text:?} in an array of {} characters", self.count));
        }
        Ok(text)
    }
}

/// The product of dimensions.
fn count(dimensions: &Element) -> Result<usize, String> {
    let (sizes, rest) = dimensions.data.as_chunks::<4>();
    if !matches!(dimensions.kind, INT32 | UINT32)
        || !rest.is_empty()
        || !(2..=MAX_DIMENSIONS).contains(&sizes.len())
    {
        let found = dimensions.describe();
        return Err(format!("expected 2 to {MAX_DIMENSIONS} dimensions of 4 bytes each, found {found}"));
    }
    let product = sizes.iter().try_fold(1usize, |product, size| {
        product.checked_mul(usize::try_from(i32::from_le_bytes(*size)).ok()?)
    });
    product.ok_or_else(|| "expected the dimensions of an array, found impossible ones".to_string())
}

/// The number that an element is, if it is just one. MATLAB stores numbers in the smallest type that holds them.
fn number(element: &Element) -> Option<f64> {
    Some(match (element.kind, element.data) {
        (INT8, &[byte]) => f64::from(byte as i8),
        (UINT8, &[byte]) => f64::from(byte),
        (INT16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
        (UINT16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
        (INT32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
        (UINT32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
        (SINGLE, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (DOUBLE, data) => f64::from_le_bytes(data.try_into().ok()?),
        (INT64, data) => i64::from_le_bytes(data.try_into().ok()?) as f64,
        (UINT64, data) => u64::from_le_bytes(data.try_into().ok()?) as f64,
        _ => return None,
    })
}

/// Whether names are stored in that type; some programs write UTF-8 where the format has bytes.
fn is_name(kind: u32) -> bool {
    matches!(kind, INT8 | UINT8 | UTF8)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Foreign text for a message.
fn shown(text: &[u8]) -> String {
    let more = if text.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", text[..text.len().min(SHOWN)].escape_ascii())
}

/// Foreign names for a message.
fn list(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().take(LISTED + 1).collect();
    if let Some(last) = names.get_mut(LISTED) {
        *last = "…".to_string();
    }
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

fn type_name(kind: u32) -> String {
    let name = match kind {
        INT8 => "miINT8",
        UINT8 => "miUINT8",
        INT16 => "miINT16",
        UINT16 => "miUINT16",
        INT32 => "miINT32",
        UINT32 => "miUINT32",
        SINGLE => "miSINGLE",
        DOUBLE => "miDOUBLE",
        INT64 => "miINT64",
        UINT64 => "miUINT64",
        MATRIX => "miMATRIX",
        COMPRESSED => "miCOMPRESSED",
        UTF8 => "miUTF8",
        UTF16 => "miUTF16",
        UTF32 => "miUTF32",
        _ => return format!("type {kind}"),
    };
    name.to_string()
}

fn class_name(class: u8) -> String {
    let name = match class {
        EMPTY => "an empty array",
        1 => "a cell array",
        STRUCT => "a struct array",
        3 | OPAQUE => "an object",
        CHAR => "text",
        5 => "a sparse array",
        FIRST_NUMERIC..=LAST_NUMERIC => "an array of numbers",
        16 => "a function",
        _ => return format!("an array of class {class}"),
    };
    name.to_string()
}

/// The lines of `ILSVRC2012_validation_ground_truth.txt`, numbers from 1 to `classes`, each less one. Empty lines may
/// follow the last one.
///
/// # Errors
/// The number of a line, from 1, and what is wrong with it.
pub fn read_numbers(text: &str, classes: usize) -> Result<Vec<usize>, (usize, String)> {
    let expected = || format!("expected a number from 1 to {classes}");
    let text = text.trim_ascii_end();
    if text.is_empty() {
        return Err((1, format!("{}, found nothing", expected())));
    }
    let number = |(place, line): (usize, &str)| {
        let word = line.trim_ascii();
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let value = word.parse::<usize>().ok().filter(|value| digits && (1..=classes).contains(value));
        let found = || if word.is_empty() { "an empty line".to_string() } else { shown(word.as_bytes()) };
        value.map(|value| value - 1).ok_or_else(|| (place + 1, format!("{}, found {}", expected(), found())))
    };
    text.lines().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    /// Made by `scripts/golden_meta.py`.
    const GOLDEN: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/meta.mat"));

    fn file(variables: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file, made by a test".to_vec();
        bytes.resize(116, b' ');
        bytes.extend([0; 8]);
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(variables.concat());
        bytes
    }

    fn full(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        if kind != COMPRESSED {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    /// Packed into the tag, where it fits.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        if !(1..=4).contains(&data.len()) {
            return full(kind, data);
        }
        let mut bytes = (kind | (data.len() as u32) << 16).to_le_bytes().to_vec();
        bytes.extend(data);
        bytes.resize(8, 0);
        bytes
    }

    fn header(class: u8, dimensions: &[i32], name: &str) -> Vec<u8> {
        let dimensions: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
        let flags = element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]);
        [flags, element(INT32, &dimensions), element(INT8, name.as_bytes())].concat()
    }

    fn array(class: u8, dimensions: &[i32], name: &str, contents: &[Vec<u8>]) -> Vec<u8> {
        full(MATRIX, &[header(class, dimensions, name), contents.concat()].concat())
    }

    fn scalar(kind: u32, data: &[u8]) -> Vec<u8> {
        array(FIRST_NUMERIC, &[1, 1], "", &[element(kind, data)])
    }

    fn double(value: f64) -> Vec<u8> {
        scalar(DOUBLE, &value.to_le_bytes())
    }

    fn text(text: &str) -> Vec<u8> {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        array(CHAR, &[1, text.len() as i32], "", &[element(UINT16, &units)])
    }

    fn synsets(fields: &[&str], structs: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut names = Vec::new();
        for (place, field) in fields.iter().enumerate() {
            names.extend(field.as_bytes());
            names.resize((place + 1) * 24, 0);
        }
        let fields = [element(INT32, &24i32.to_le_bytes()), element(INT8, &names)];
        let values: Vec<Vec<u8>> = structs.iter().flatten().cloned().collect();
        array(STRUCT, &[structs.len() as i32, 1], TABLE, &[fields.concat(), values.concat()])
    }

    /// Of the three fields alone.
    fn table(structs: &[(Vec<u8>, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let structs: Vec<Vec<Vec<u8>>> = structs
            .iter()
            .map(|(id, wnid, children)| vec![id.clone(), wnid.clone(), children.clone()])
            .collect();
        synsets(&[ID, WNID, CHILDREN], &structs)
    }

    /// Two classes and an inner node.
    fn small() -> Vec<u8> {
        table(&[
            (double(2.0), text("n00000007"), double(0.0)),
            (double(3.0), text("n00000001"), double(2.0)),
            (double(1.0), text("n00000009"), double(0.0)),
        ])
    }
    const SMALL: [&str; 2] = ["n00000009", "n00000007"];

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(variable: &[u8]) -> Vec<u8> {
        full(COMPRESSED, &deflate(variable))
    }

    /// The golden file's only variable, decompressed.
    fn golden_variable() -> Vec<u8> {
        let mut bytes = Vec::new();
        ZlibDecoder::new(&GOLDEN[HEADER + 8..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn what(variables: &[Vec<u8>]) -> String {
        wordnet_ids(&file(variables)).unwrap_err()
    }

    #[test]
    fn the_golden_file() {
        // As wnid() of golden_meta.py has them.
        let expected: Vec<String> =
            (1..=12).map(|number| format!("n{}", 10_000_000 + 7919 * number % 1000)).collect();
        assert_eq!(wordnet_ids(GOLDEN).unwrap(), expected);
        assert_eq!(wordnet_ids(&file(&[golden_variable()])).unwrap(), expected);
    }

    #[test]
    fn the_table_is_found_behind_other_variables() {
        assert_eq!(wordnet_ids(&file(&[small()])).unwrap(), SMALL);
        let numbers = array(6, &[2, 3], "numbers", &[element(UINT8, &[1, 2, 3, 4, 5, 6])]);
        let long: Vec<u8> =
            (0..100_000u32).flat_map(|value| value.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let long = array(13, &[1, 100_000], "long", &[element(UINT32, &long)]);
        let flags = element(UINT32, &[OPAQUE, 0, 0, 0, 0, 0, 0, 0]);
        let object = full(MATRIX, &[flags, element(INT8, b"object"), element(INT8, b"MCOS")].concat());
        let similar = array(STRUCT, &[0, 0], "synsets2", &[]);
        let empty = full(MATRIX, &[]);
        let others = [numbers, long, object, similar, empty];
        let packed: Vec<Vec<u8>> = others.iter().map(|variable| compressed(variable)).collect();
        for table in [small(), compressed(&small())] {
            let variables = [others.concat(), packed.concat(), table, vec![0xff; 3]];
            assert_eq!(wordnet_ids(&file(&variables)).unwrap(), SMALL);
        }
        assert_eq!(
            what(&others),
            "expected a variable synsets, found numbers, long, object, synsets2, (unnamed)"
        );
        assert_eq!(what(&[]), "expected a variable synsets, found none");
    }

    #[test]
    fn numbers_in_every_storage() {
        let stored = [
            scalar(INT8, &[2]),
            scalar(UINT8, &[2]),
            scalar(INT16, &2i16.to_le_bytes()),
            scalar(UINT16, &2u16.to_le_bytes()),
            scalar(INT32, &2i32.to_le_bytes()),
            scalar(UINT32, &2u32.to_le_bytes()),
            scalar(SINGLE, &2f32.to_le_bytes()),
            scalar(INT64, &2i64.to_le_bytes()),
            scalar(UINT64, &2u64.to_le_bytes()),
            // Not packed into the tag, as some programs write it.
            array(9, &[1, 1], "", &[full(UINT8, &[2])]),
        ];
        for id in stored {
            let structs =
                [(id, text("n00000007"), double(0.0)), (double(1.0), text("n00000009"), double(0.0))];
            assert_eq!(wordnet_ids(&file(&[table(&structs)])).unwrap(), SMALL);
        }
        let found = |id: Vec<u8>| what(&[table(&[(id, text("n00000007"), double(0.0))])]);
        let expected = "synsets: struct 1: ILSVRC2012_ID: expected a whole number, found";
        for (id, rest) in [
            (double(1.5), "1.5e0"),
            (double(-1.0), "-1e0"),
            (double(f64::NAN), "NaN"),
            (double(f64::INFINITY), "inf"),
            (scalar(UINT16, &[1]), "1 bytes of miUINT16"),
            (scalar(UINT8, &[]), "0 bytes of miUINT8"),
            (scalar(UTF8, &[1]), "1 bytes of miUTF8"),
            (array(6, &[1, 2], "", &[element(UINT8, &[1, 2])]), "2 of them"),
            (full(MATRIX, &[]), "an empty array"),
            (text("1"), "text"),
        ] {
            assert_eq!(found(id), format!("{expected} {rest}"));
        }
        let mut complex = double(1.0);
        complex[8 + 8 + 1] = 8;
        assert_eq!(found(complex), format!("{expected} an array of numbers with complex numbers"));
    }

    #[test]
    fn ids_in_every_encoding() {
        let id = "n00000007";
        let wide: Vec<u8> = id.chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
        let narrow: Vec<u8> = id.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let data = |kind| match kind {
            UTF32 => wide.as_slice(),
            UINT16 | UTF16 => narrow.as_slice(),
            _ => id.as_bytes(),
        };
        let of = |wnid: Vec<u8>| table(&[(double(1.0), wnid, double(0.0))]);
        for kind in [INT8, UINT8, UTF8, UINT16, UTF16, UTF32] {
            let wnid = array(CHAR, &[1, 9], "", &[element(kind, data(kind))]);
            assert_eq!(wordnet_ids(&file(&[of(wnid)])).unwrap(), [id]);
        }
        let expected = "synsets: struct 1: WNID: expected a WordNet id such as n01440764, found";
        for (wnid, rest) in [
            (text("n0000007"), "\"n0000007\""),
            (text("x00000007"), "\"x00000007\""),
            (text("n0000000\n"), "\"n0000000\\n\""),
            (text(""), "\"\""),
            (array(CHAR, &[1, 9], "", &[element(UTF16, &narrow[..17])]), "17 bytes of miUTF16"),
            (array(CHAR, &[1, 9], "", &[element(DOUBLE, id.as_bytes())]), "9 bytes of miDOUBLE"),
            (
                array(CHAR, &[3, 9], "", &[element(UTF8, id.as_bytes())]),
                "\"n00000007\" in an array of 27 characters",
            ),
            (double(7.0), "an array of numbers"),
            (array(1, &[1, 1], "", &[text(id)]), "a cell array"),
        ] {
            assert_eq!(what(&[of(wnid)]), format!("{expected} {rest}"));
        }
        assert!(what(&[of(text(&"n".repeat(1_000_000)))]).len() < 200);
    }

    #[test]
    fn numbers_of_classes_must_be_one_to_their_count() {
        let leaf = |id: f64, wnid: &str| (double(id), text(wnid), double(0.0));
        let (a, b) = ("n00000001", "n00000002");
        assert_eq!(
            what(&[table(&[leaf(1.0, a), leaf(1.0, b)])]),
            "synsets: struct 2: ILSVRC2012_ID: expected 1 to 2, each once, found a second 1"
        );
        assert_eq!(
            what(&[table(&[leaf(1.0, a), leaf(3.0, b)])]),
            "synsets: struct 2: ILSVRC2012_ID: expected 1 to 2, found 3"
        );
        assert_eq!(
            what(&[table(&[leaf(0.0, a)])]),
            "synsets: struct 1: ILSVRC2012_ID: expected 1 to 1, found 0"
        );
        assert_eq!(
            what(&[table(&[leaf(1.0, a), leaf(2.0, a)])]),
            "synsets: expected a WNID of its own for each class, found n00000001 twice"
        );
        assert_eq!(
            what(&[table(&[(double(1.0), text(a), double(1.0))])]),
            "synsets: expected structs without children, found none among 1"
        );
    }

    #[test]
    fn what_is_no_such_table_is_named() {
        let other =
            |fields: &[&str]| what(&[synsets(fields, &[fields.iter().map(|_| double(1.0)).collect()])]);
        assert_eq!(
            other(&["ILSVRC2010_ID", WNID, CHILDREN]),
            "synsets: expected a field ILSVRC2012_ID, found ILSVRC2010_ID, WNID, num_children"
        );
        assert_eq!(other(&[ID, WNID]), "synsets: expected a field num_children, found ILSVRC2012_ID, WNID");
        assert_eq!(
            what(&[array(1, &[1, 1], TABLE, &[double(1.0)])]),
            "synsets: expected a struct array, found a cell array"
        );
        assert_eq!(
            what(&[array(STRUCT, &[70_000, 1], TABLE, &[])]),
            "synsets: expected 65536 structs at most, found 70000"
        );
        let fields = [element(INT32, &1i32.to_le_bytes()), element(INT8, &[b'x'; 5000])];
        assert_eq!(
            what(&[array(STRUCT, &[1, 1], TABLE, &fields)]),
            "synsets: expected 1024 fields at most, found 5000"
        );
        let fields = [element(INT32, &0i32.to_le_bytes()), element(INT8, b"x")];
        assert_eq!(
            what(&[array(STRUCT, &[1, 1], TABLE, &fields)]),
            "synsets: expected the width of field names, found 4 bytes of miINT32"
        );
        assert_eq!(
            what(&[array(STRUCT, &[-1, 1], TABLE, &[])]),
            "variable 1: expected the dimensions of an array, found impossible ones"
        );
        assert_eq!(
            what(&[array(STRUCT, &[i32::MAX; 4], TABLE, &[])]),
            "variable 1: expected the dimensions of an array, found impossible ones"
        );
        assert_eq!(
            what(&[array(STRUCT, &[1; 33], TABLE, &[])]),
            "variable 1: expected 2 to 32 dimensions of 4 bytes each, found 132 bytes of miINT32"
        );
        assert_eq!(what(&[element(UINT8, &[7])]), "variable 1: expected an array, found miUINT8");
        let twice = compressed(&compressed(&small()));
        assert_eq!(
            what(&[twice]),
            "variable 1: expected an array within the compressed bytes, found miCOMPRESSED"
        );
    }

    #[test]
    fn other_files_are_named() {
        let of = |bytes: &[u8]| wordnet_ids(bytes).unwrap_err();
        assert_eq!(of(b""), "expected a MATLAB level 5 file, with a header of 128 bytes; found 0 bytes");
        let mut big = GOLDEN.to_vec();
        big[124..128].copy_from_slice(&[1, 0, b'M', b'I']);
        assert_eq!(
            of(&big),
            "expected a MATLAB level 5 file of little-endian numbers, found big-endian ones"
        );
        big[124..128].copy_from_slice(&[0, 2, b'I', b'M']);
        assert_eq!(of(&big), "expected a MATLAB level 5 file (version 0x0100), found version 0x0200");
        big[..10].copy_from_slice(b"MATLAB 7.3");
        assert!(of(&big).ends_with("found one of MATLAB 7.3 (HDF5); save it with `-v7`"));
        assert!(of(&[b'x'; 300]).ends_with("(bytes 124 to 127: 00 01 49 4d), found [78, 78, 78, 78] there"));
    }

    #[test]
    fn a_cut_is_noticed_wherever_it_is() {
        for whole in [file(&[small()]), file(&[compressed(&small())]), GOLDEN.to_vec()] {
            for length in 0..whole.len() {
                assert!(wordnet_ids(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
            }
            assert!(wordnet_ids(&whole).is_ok());
        }
        // With a sound checksum.
        let whole = golden_variable();
        for length in 0..whole.len() {
            assert!(wordnet_ids(&file(&[compressed(&whole[..length])])).is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_decompressed_has_a_limit() {
        let start = header(STRUCT, &[1, 1], TABLE);
        let bomb = |size: u32, zeros: usize| {
            let tag = [MATRIX.to_le_bytes(), size.to_le_bytes()].concat();
            compressed(&[tag, start.clone(), vec![0; zeros]].concat())
        };
        let zeros = MAX_TABLE as usize + 1000;
        assert_eq!(
            what(&[bomb(zeros as u32, zeros)]),
            format!(
                "variable 1: synsets has {} bytes when decompressed; expected 67108864 at most",
                zeros + 8
            )
        );
        assert_eq!(
            what(&[bomb(6000, zeros)]),
            "variable 1: expected 6008 decompressed bytes of synsets, found more"
        );
        assert_eq!(
            what(&[bomb(60_000, 6000)]),
            format!("variable 1: expected 60008 decompressed bytes of synsets, found {}", 6008 + start.len())
        );
        // The last four bytes are the checksum.
        for mut variable in
            [compressed(&small()), compressed(&array(STRUCT, &[1, 1], TABLE, &[vec![0; 9000]]))]
        {
            *variable.last_mut().unwrap() ^= 1;
            assert!(what(&[variable]).starts_with("variable 1: it cannot be decompressed ("));
        }
    }

    #[test]
    fn damage_never_panics() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % below
        };
        let plain = golden_variable();
        let mut refused = 0;
        for round in 0..9000 {
            // Packed bytes, plain ones, and plain ones that are packed after the damage.
            let mut bytes = if round % 3 == 0 { GOLDEN[HEADER..].to_vec() } else { plain.clone() };
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                match random(6) {
                    0 => bytes[place] = random(256) as u8,
                    1 => bytes[place] ^= 1 << random(8),
                    2 => bytes.truncate(place.max(1)),
                    3 => {
                        let value =
                            [0, 1, 8, 0x7fff_ffff, u32::MAX, 0x0005_0001, 0x0004_0001, 14, 15][random(9)];
                        let place = place / 4 * 4;
                        for (target, byte) in bytes[place..].iter_mut().zip(u32::to_le_bytes(value)) {
                            *target = byte;
                        }
                    }
                    4 => {
                        let end = (place + 1 + random(64)).min(bytes.len());
                        bytes.drain(place..end).for_each(drop);
                        bytes.push(0);
                    }
                    _ => {
                        let end = (place + 8 * random(16)).min(bytes.len());
                        let piece = bytes[place..end].to_vec();
                        let target = random(bytes.len());
                        bytes.splice(target..target, piece).for_each(drop);
                    }
                }
            }
            let bytes = if round % 3 == 2 { compressed(&bytes) } else { bytes };
            match wordnet_ids(&file(&[bytes])) {
                Ok(ids) => assert!((1..=15).contains(&ids.len()) && ids.iter().all(|id| id.len() == 9)),
                Err(what) => {
                    refused += 1;
                    assert!(what.len() < 1000 && !what.contains(char::is_control), "{what}");
                }
            }
        }
        assert!(refused > 3000, "{refused}");
    }

    #[test]
    fn lines_of_numbers() {
        assert_eq!(read_numbers("490\n361\r\n 1\n1000\n\n", 1000), Ok(vec![489, 360, 0, 999]));
        assert_eq!(read_numbers("3", 3), Ok(vec![2]));
        let what = |text: &str| read_numbers(text, 1000).unwrap_err();
        let expected = "expected a number from 1 to 1000, found";
        for (text, line, rest) in [
            ("", 1, "nothing"),
            ("\n\n", 1, "nothing"),
            ("1\n0\n", 2, "0"),
            ("1\n2\n1001", 3, "1001"),
            ("+1", 1, "+1"),
            ("1\n\n2", 2, "an empty line"),
            ("1 2", 1, "1 2"),
            ("1.0", 1, "1.0"),
            ("99999999999999999999999", 1, "99999999999999999999999"),
            ("n01440764", 1, "n01440764"),
        ] {
            assert_eq!(what(text), (line, format!("{expected} {rest}")));
        }
        assert!(what(&"x".repeat(1_000_000)).1.len() < 100);
    }
}
