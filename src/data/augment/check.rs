//! Refusing numbers that are out of range, by the key under which a user has written them.

use crate::error::{Result, usage};
use std::fmt;
use std::ops::RangeInclusive;

/// The path of a value in a configuration, such as `data.augment[1].p`.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    list: &'a str,
    index: Option<usize>,
    name: &'a str,
}

impl<'a> Key<'a> {
    /// Item `index` of the list `list`.
    pub fn item(list: &'a str, index: usize) -> Self {
        Self { list, index: Some(index), name: "" }
    }

    /// The object `path`.
    pub fn object(path: &'a str) -> Self {
        Self { list: path, index: None, name: "" }
    }

    /// A value of this item or object.
    pub fn at(self, name: &'a str) -> Self {
        Self { name, ..self }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.list)?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        if !self.name.is_empty() {
            write!(f, ".{}", self.name)?;
        }
        Ok(())
    }
}

/// Refuses a `value` outside of `range` (NaN too).
///
/// # Errors
/// Names the key, the value and the range.
pub fn range(key: Key, value: f64, range: RangeInclusive<f64>, hint: &str) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let message = format!("`{key}` is {value}, but {} to {} is expected", range.start(), range.end());
    Err(usage(message).hint(hint).into())
}

/// Refuses a share of images that is none.
///
/// # Errors
/// Names the key.
pub fn share(key: Key, value: f64) -> Result<()> {
    range(key, value, 0.0..=1.0, "the share of images that it happens to; 1 is all")
}

/// Refuses bounds outside of `range`, or the upper one first.
///
/// # Errors
/// Names the key, the bounds and the range.
pub fn bounds(key: Key, [low, high]: [f64; 2], within: RangeInclusive<f64>, hint: &str) -> Result<()> {
    range(key, low, within.clone(), hint)?;
    range(key, high, within, hint)?;
    if low > high {
        let message = format!("`{key}` is [{low}, {high}], but the lower bound comes first");
        return Err(usage(message).hint(format!("[{high}, {low}]")).into());
    }
    Ok(())
}
