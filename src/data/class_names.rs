//! Names of classes in messages, and names that people would read as one.

use crate::printable::quoted;
use std::collections::{BTreeMap, HashMap};
use unicode_normalization::UnicodeNormalization;

/// Names that are listed before the rest is counted.
const LISTED: usize = 5;

/// The first names of a list, and how many follow.
pub fn listed(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(LISTED).map(|name| quoted(name)).collect();
    match names.len().saturating_sub(LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// In what two names differ that people would read as one; `None` where they differ otherwise.
pub fn spelled_alike(a: &str, b: &str) -> Option<&'static str> {
    let composed = |name: &str| name.nfc().collect::<String>();
    match (a, b) {
        _ if a == b => None,
        _ if composed(a) == composed(b) => Some("composed and decomposed accents"),
        _ if key(a) == key(b) => Some("the case of letters"),
        _ => None,
    }
}

/// The same for all spellings of a name.
fn key(name: &str) -> String {
    name.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Classes whose names are two spellings of one.
pub fn alike(classes: &[String]) -> Vec<String> {
    let mut first: HashMap<String, &String> = HashMap::new();
    let mut pairs: BTreeMap<usize, String> = BTreeMap::new();
    for (at, name) in classes.iter().enumerate() {
        let Some(other) = first.insert(key(name), name) else { continue };
        let what = spelled_alike(other, name).unwrap_or("their spelling");
        pairs.insert(
            at,
            format!("the classes `{other}` and `{name}` differ in {what} alone: are they one class?"),
        );
    }
    pairs.into_values().take(LISTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_name_are_told() {
        assert_eq!(spelled_alike("Cat", "cat"), Some("the case of letters"));
        assert_eq!(spelled_alike("caf\u{e9}", "cafe\u{301}"), Some("composed and decomposed accents"));
        assert_eq!(spelled_alike("CAFE\u{301}", "caf\u{e9}"), Some("the case of letters"));
        assert_eq!((spelled_alike("cat", "cat"), spelled_alike("cat", "car")), (None, None));
        let classes = ["Cat", "cat", "dog"].map(str::to_string);
        assert_eq!(alike(&classes).len(), 1);
        assert_eq!(alike(&classes[1..]).len(), 0);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(listed(&names), "`0`, `1`, `2`, `3`, `4` and 2 more");
    }
}
