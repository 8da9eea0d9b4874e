//! A weights file's bytes, and what they are: told by their content, whatever the file is called.

use crate::error::{Problem, Result, failed};
use crate::printable;
use anyhow::Context;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A form of file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// safetensors.
    Safetensors,
    /// The index of a sharded checkpoint: which tensor lies in which file.
    Index,
    /// PyTorch's `.pth` since 1.6: a zip of a pickle and the values.
    Zip,
    /// PyTorch's `.pth` before 1.6: pickles, then the values.
    Pickle,
    /// Caffe's `.caffemodel`.
    Caffe,
}

/// Opens a weights file. What is no regular file is refused: a FIFO would wait for a writer for ever, and a device ends never.
///
/// # Errors
/// When there is none, or it is a folder, a FIFO, a socket or a device.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let unreadable = || format!("cannot read {}", path.display());
    let metadata = fs::metadata(path).with_context(unreadable)?;
    if metadata.is_dir() {
        return Err(folder(path).into());
    }
    if !metadata.is_file() {
        let message = format!("{} is a pipe or device, and a weights file was expected", path.display());
        return Err(failed(message).hint("write its content to a file and name that one").into());
    }
    Ok((File::open(path).with_context(unreadable)?, metadata.len()))
}

/// A folder where a file was expected, with the file in it that may be meant.
fn folder(path: &Path) -> Problem {
    let problem = failed(format!("{} is a folder, and a weights file was expected", path.display()));
    if path.join("checkpoints").is_dir() {
        return problem.hint("it is a run: `senet eval RUN` and `--run RUN` take it without `--weights`");
    }
    const USUAL: [&str; 5] = [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model.pth",
    ];
    let usual = USUAL.iter().map(|name| path.join(name)).find(|file| file.is_file());
    let is_weights = |file: &PathBuf| {
        let ending = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        ["safetensors", "pth", "pt", "bin", "ckpt", "caffemodel"].contains(&&*ending)
    };
    let found = usual.or_else(|| {
        let entries = fs::read_dir(path).into_iter().flatten().take(1000);
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_weights).min()
    });
    problem.hint(match found {
        Some(file) => format!("did you mean {}?", file.display()),
        None => "name the file itself".to_string(),
    })
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// As of [`open`], and when the file is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    let mut bytes = Vec::new();
    if length <= limit {
        // One more than allowed, in case it still grows.
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    if length.max(bytes.len() as u64) > limit {
        let message = format!(
            "{} is larger than the {limit} bytes that weights of this network can take",
            path.display()
        );
        return Err(failed(message).hint("`--model` names the network that the file belongs to").into());
    }
    Ok(bytes)
}

/// The first MiB of a file, by which [`form`] tells what it is.
///
/// # Errors
/// As of [`open`].
pub fn start(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// What the content of the file `path` is.
///
/// # Errors
/// When it is no weights file that is read; the message says what it is instead, where that can be told.
pub fn form(path: &Path, bytes: &[u8]) -> Result<Form> {
    // The first eight bytes of safetensors are a number, and a text that has `{` for its ninth letter is none.
    if bytes.get(8) == Some(&b'{') && !bytes[..8].iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Ok(Form::Safetensors);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Form::Zip);
    }
    if matches!(bytes, [0x80, 2..=5, ..]) {
        return Ok(Form::Pickle);
    }
    if let Some(text) = text(bytes) {
        if text.starts_with('{') && text.contains("\"weight_map\"") {
            return Ok(Form::Index);
        }
        return Err(other_text(path, text).into());
    }
    if let Some((what, hint)) = other_binary(bytes) {
        let message = format!("{}: {what}, not weights", path.display());
        return Err(failed(message).hint(hint).into());
    }
    // A NetParameter begins with its name, or with a layer of today's form or of the one before 2015.
    let caffe: [&[u8]; 3] = [&[0x0a], &[0xa2, 0x06], &[0x12]];
    if caffe.iter().any(|start| bytes.starts_with(start)) {
        return Ok(Form::Caffe);
    }
    let message = format!("{}: not a weights file of a known form", path.display());
    Err(failed(message).hint(KNOWN).into())
}

/// What is read.
const KNOWN: &str = "safetensors, PyTorch's .pth (a state dict saved by torch.save) and .caffemodel are read";

/// The file as text, without white space before it, if it begins as one.
fn text(bytes: &[u8]) -> Option<&str> {
    let start = &bytes[..bytes.len().min(512)];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | b' '..=b'~' | 0x80..);
    if start.is_empty() || !start.iter().all(is_text) {
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Only its beginning is shown.
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    (!text.is_empty()).then_some(text)
}

fn other_text(path: &Path, text: &str) -> Problem {
    let path = path.display();
    if text.starts_with("version https://git-lfs") {
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
        let size = size.map_or(String::new(), |size| format!(" of {size} bytes"));
        return failed(format!("{path}: a git-lfs pointer to a file{size}, not the weights themselves"))
            .hint("`git lfs pull` in that repository fetches them");
    }
    let start: String = text.chars().take(2000).collect::<String>().to_lowercase();
    if start.starts_with('<') {
        let title = start.find("<title").and_then(|at| Some(at + start[at..].find('>')? + 1));
        let title = title.and_then(|from| text.get(from..)?.split('<').next());
        let title = title.map_or(String::new(), |title| format!(" ({})", printable::name(title.trim())));
        let what =
            if start.contains("<html") || start.starts_with("<!doctype") { "a web page" } else { "XML" };
        return failed(format!("{path}: {what}{title}, not weights"))
            .hint("the download gave a page instead of the file: fetch it again by its direct link");
    }
    if text.starts_with(['{', '[']) {
        return failed(format!("{path}: JSON, not weights"))
            .hint("weights are in a .safetensors or .pth file, perhaps beside this one");
    }
    let first = printable::name(text.lines().next().unwrap_or_default());
    failed(format!("{path}: a text (`{first}`), not a weights file of a known form")).hint(KNOWN)
}

/// Other formats by their first bytes: what they are and what to do.
fn other_binary(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const UNPACK: &str = "unpack it and name the file in it";
    const CONVERT: &str =
        "convert the weights to safetensors or a PyTorch state dict with the library that wrote them";
    const STARTS: [(&[u8], &str, &str); 16] = [
        (b"\x1f\x8b", "gzip", UNPACK),
        (b"\x28\xb5\x2f\xfd", "zstd", UNPACK),
        (b"\xfd7zXZ\0", "xz", UNPACK),
        (b"BZh", "bzip2", UNPACK),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
        (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
        (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras or TensorFlow)", CONVERT),
        (b"\x93NUMPY", "a NumPy array", CONVERT),
        (b"GGUF", "GGUF", CONVERT),
        (b"\x08\x03\x12", "ONNX", CONVERT),
        (b"\x08\x08\x12", "ONNX", CONVERT),
        (b"\x08\x0a\x12", "ONNX", CONVERT),
        (b"\x89PNG", "an image", KNOWN),
        (b"\xff\xd8\xff", "an image", KNOWN),
        (b"GIF8", "an image", KNOWN),
        (b"%PDF", "a PDF", KNOWN),
    ];
    if bytes.is_empty() {
        return Some(("the file is empty", "fetch it again"));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Some((
            "nothing but zeros",
            "the file was never written or only preallocated; fetch it again",
        ));
    }
    STARTS.iter().find(|(start, ..)| bytes.starts_with(start)).map(|&(_, what, hint)| (what, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> String {
        match form(Path::new("w.pth"), bytes) {
            Ok(form) => format!("{form:?}"),
            Err(error) => {
                let hint = crate::error::problem(&error).unwrap().hint.clone().unwrap();
                format!("{error:#} | {hint}")
            }
        }
    }

    #[test]
    fn content_decides_what_a_file_is() {
        let header = [&8u64.to_le_bytes()[..], b"{}      "].concat();
        for (bytes, part) in [
            (&header[..], "Safetensors"),
            (&[0xff; 8].iter().copied().chain(*b"{}").collect::<Vec<_>>(), "Safetensors"),
            (b"PK\x03\x04", "Zip"),
            (b"\x80\x02}.", "Pickle"),
            (b"\x0a\x03net", "Caffe"),
            (b"{\"metadata\": {}, \"weight_map\": {}}", "Index"),
            (b"{\"archi\":{\"a\": 1}}", "JSON, not weights"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 450\n",
                "git-lfs pointer to a file of 450 bytes",
            ),
            (b"\n<!DOCTYPE html><html><head><title>Virus \x1b[2J</title>", "a web page (Virus \\u{1b}[2J)"),
            (
                b"\n<!DOCTYPE html><html><head><title>Virus scan</title>",
                "a web page (Virus scan), not weights",
            ),
            (b"<?xml version=\"1.0\"?><Error>", "XML, not weights"),
            (b"these are no weights", "a text (`these are no weights`), not a weights file of a known form"),
            (b"\x1f\x8b\x08", "gzip, not weights | unpack it"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"", "the file is empty"),
            (&[0; 4096], "nothing but zeros"),
            (b"\x7f\x00\x01", "not a weights file of a known form"),
        ] {
            let told = told(bytes);
            assert!(told.contains(part), "{part}: {told}");
            assert!(!told.contains('\x1b'));
        }
    }

    #[test]
    fn a_folder_names_the_file_that_may_be_meant() {
        let dir = tempfile::tempdir().unwrap();
        let hint =
            |path: &Path| crate::error::problem(&open(path).unwrap_err()).unwrap().hint.clone().unwrap();
        assert_eq!(hint(dir.path()), "name the file itself");
        fs::write(dir.path().join("b.pth"), "").unwrap();
        assert!(hint(dir.path()).ends_with("b.pth?"));
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert!(hint(dir.path()).ends_with("model.safetensors?"));
        fs::create_dir(dir.path().join("checkpoints")).unwrap();
        assert!(hint(dir.path()).contains("it is a run"));
    }
}
