//! Checkpoints in several files, as Hugging Face's libraries write large ones: an index
//! (`model.safetensors.index.json`) says which tensor lies in which file beside it.

use super::Arrays;
use crate::error::{Result, failed};
use crate::printable;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// Longest index that is read, in bytes; a hundred bytes a tensor are usual.
const MAX_INDEX: usize = 1 << 24;

/// The part of an index that is needed; its `metadata` has sizes.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the tensors of all files that the index `bytes` names. `read` reads one of them.
///
/// # Errors
/// When the index is damaged, names a file outside its own folder, or a tensor is not where it says.
pub fn read(path: &Path, bytes: &[u8], mut read: impl FnMut(&Path) -> Result<Arrays>) -> Result<Arrays> {
    let shown = path.display();
    let damaged = |what: String| {
        failed(format!("{shown}: not the index of a sharded checkpoint: {what}")).hint("fetch it again")
    };
    if bytes.len() > MAX_INDEX {
        return Err(damaged(format!("it has {} bytes", bytes.len())).into());
    }
    let Index { weight_map } =
        serde_json::from_slice(bytes).map_err(|error| damaged(printable::line(&error.to_string()).into()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut arrays = Arrays::new();
    for name in weight_map.values().collect::<BTreeSet<_>>() {
        let is_below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || name.is_empty() {
            let message =
                format!("{shown} names the file {}, which is not in its folder", printable::quoted(name));
            return Err(failed(message).hint("nothing outside an index's folder is read").into());
        }
        let part = folder.join(name);
        if !part.exists() {
            let message = format!("{shown} names {}, which does not exist", printable::quoted(name));
            return Err(failed(message).hint("fetch all parts into the folder of the index").into());
        }
        for (tensor, array) in read(&part)? {
            // In two files it may be; the index says which counts.
            let is_meant = weight_map.get(&tensor).is_none_or(|file| file == name);
            if is_meant {
                arrays.insert(tensor, array);
            }
        }
    }
    match weight_map.iter().find(|(tensor, _)| !arrays.contains_key(*tensor)) {
        None => Ok(arrays),
        Some((tensor, file)) => {
            let (tensor, file) = (printable::quoted(tensor), printable::quoted(file));
            let message = format!("{shown}: {tensor} should be in {file}, and is not");
            Err(failed(message).hint("the files are of different checkpoints; fetch them again").into())
        }
    }
}

/// Whether a file's name says that it is one of several: `model-00001-of-00002.safetensors`.
pub fn is_part(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let numbers = stem.rsplit_once("-of-").and_then(|(start, of)| Some((start.rsplit_once('-')?.1, of)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(number, of)| is_number(number) && is_number(of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Array;

    fn told(index: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.safetensors"), "").unwrap();
        std::fs::write(dir.path().join("b.safetensors"), "").unwrap();
        let array = |value| Array { shape: vec![1], values: vec![value] };
        let part = |path: &Path| {
            let is_a = path.ends_with("a.safetensors");
            let names = if is_a { ["x", "both"] } else { ["y", "both"] };
            Ok(names.map(|name| (name.to_string(), array(f32::from(u8::from(is_a))))).into_iter().collect())
        };
        match read(&dir.path().join("i.json"), index.as_bytes(), part) {
            Ok(arrays) => {
                let values = arrays.iter().map(|(name, array)| format!("{name}={}", array.values[0]));
                values.collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn parts_are_put_together_and_nothing_outside_is_read() {
        let index = |map: &str| told(&format!("{{\"metadata\": {{}}, \"weight_map\": {{{map}}}}}"));
        let two = r#""x": "a.safetensors", "y": "b.safetensors", "both": "a.safetensors""#;
        assert_eq!(index(two), "both=1 x=1 y=0");
        for file in ["../a.safetensors", "/etc/passwd", "", ".", "sub/../../a"] {
            let told = index(&format!("\"x\": \"{file}\""));
            assert!(told.contains("which is not in its folder"), "{file}: {told}");
        }
        assert!(index(r#""x": "c.safetensors""#).contains("`c.safetensors`, which does not exist"));
        assert!(index(r#""z": "a.safetensors""#).contains("`z` should be in `a.safetensors`, and is not"));
        assert!(told("{\"weight_map\": 3}").contains("not the index of a sharded checkpoint"));
    }

    #[test]
    fn parts_are_known_by_their_names() {
        for (name, is) in
            [("model-00001-of-00002.safetensors", true), ("one-of-two.pth", false), ("a.pth", false)]
        {
            assert_eq!(is_part(Path::new(name)), is, "{name}");
        }
    }
}
