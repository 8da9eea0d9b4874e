//! Samples that are left out: a list of [relative names](Dataset::relative_name), one a line, and a data set
//! without what it names. [`verify`](super::verify) writes such lists.

use super::Dataset;
use super::subset::Subset;
use crate::error::{Result, failed};
use crate::escaped::{escaped, unescaped};
use crate::files;
use anyhow::Context;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// What a list begins with that this program has written. Lists of people need not.
pub const TITLE: &str = "# senet quarantine";

/// Names of samples to leave out.
///
/// One relative name a line, [escaped](crate::escaped) as data sets give it; `#` begins a comment line, `./` may stand
/// before a name (and must, where it begins with `#`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions {
    names: HashSet<String>,
}

/// A relative name as a line of a list.
pub fn line(name: &str) -> String {
    // A name that seems to begin with `./` itself would lose it.
    if name.starts_with('#') || name.starts_with("./") { format!("./{name}") } else { name.to_string() }
}

impl Exclusions {
    /// From a quarantine file.
    ///
    /// # Errors
    /// When it cannot be read or a line is no name.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_text(&files::read_text(path)?).map_err(|(line, what)| {
            failed(format!("{}, line {line}: {what}", path.display()))
                .hint("one relative path, or shard:key, a line; `#` begins a comment")
                .into()
        })
    }

    /// From the text of one; on failure with the number of the line.
    ///
    /// # Errors
    /// When a line is no name.
    pub fn from_text(text: &str) -> Result<Self, (usize, String)> {
        let mut names = HashSet::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line = line.strip_prefix("./").unwrap_or(line);
            // Other spellings of an escape mean the same name.
            let name = escaped(&unescaped(line).map_err(|what| (number + 1, what))?);
            if name.starts_with('/') {
                return Err((number + 1, format!("`{name}` is an absolute path")));
            }
            names.insert(name);
        }
        Ok(Self { names })
    }

    /// Whether a sample is to be left out.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// `all` without the samples that `exclusions` name.
///
/// # Errors
/// When nothing remains.
pub fn without(all: Arc<dyn Dataset>, exclusions: &Exclusions) -> Result<Subset> {
    let kept = |index: &u32| !exclusions.contains(&all.relative_name(*index as usize));
    let count = u32::try_from(all.len()).map_err(|_| failed("more than 4 billion samples"))?;
    let indices: Vec<u32> = (0..count).filter(kept).collect();
    if indices.is_empty() {
        return Err(failed("the quarantine names every sample").hint("look at the list again").into());
    }
    Ok(Subset::new(all, indices))
}

/// `all` without what the list in the file `path` names; `all` itself, where that is nothing of it.
///
/// # Errors
/// When the list cannot be read or is none, or nothing remains.
pub fn without_listed(all: Arc<dyn Dataset>, path: &Path) -> Result<Arc<dyn Dataset>> {
    let kept =
        without(Arc::clone(&all), &Exclusions::read(path)?).with_context(|| path.display().to_string())?;
    Ok(if kept.len() == all.len() { all } else { Arc::new(kept) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_file() {
        let names: [&[u8]; 8] =
            [b"a", b"#a", b"./a", b"a\\n\n\r", b"a b ", "é".as_bytes(), b"\xe9.jpg", b"\xe8.jpg"];
        for name in names {
            let name = escaped(name);
            let read = Exclusions::from_text(&format!("# list\n\n{}\n", line(&name))).unwrap();
            assert!(read.contains(&name) && read.len() == 1, "{name:?}: {read:?}");
        }
        // As people, or earlier versions, write them.
        let read = Exclusions::from_text("tab\t.jpg\n\\x41.jpg\n").unwrap();
        assert!(read.contains("tab\\x09.jpg") && read.contains("A.jpg"), "{read:?}");
        assert_eq!(Exclusions::from_text("a\n/b\n").unwrap_err().0, 2);
        assert_eq!(Exclusions::from_text("a\\x\n").unwrap_err().0, 1);
    }
}
