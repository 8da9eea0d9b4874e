//! In which order classes are whose folders are named by numbers: as text, "10" before "2", as torchvision's ImageFolder
//! sorts them, or by number, as timm does. The two give other labels, and nothing but the user's word decides.

use crate::error::{Result, usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The order of class folders, which is that of the network's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClassOrder {
    /// As text in training. In evaluation, classes are matched by name; a network whose classes have no names takes folders
    /// that count from 0 by number, others as text.
    #[default]
    Auto,
    /// As text, byte by byte, as torchvision's ImageFolder: "10" before "2".
    Alphabetical,
    /// By number, as timm: "2" before "10". All folders must be named by numbers.
    Numeric,
}

/// The number that a class is named by.
pub fn number(class: &str) -> Option<usize> {
    let is_number = (1..=9).contains(&class.len()) && class.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| class.parse().ok()).flatten()
}

/// Whether all classes are named by numbers.
pub fn are_numbers(classes: &[String]) -> bool {
    classes.iter().all(|class| number(class).is_some())
}

/// `classes` by number; numbers that are equal (`1`, `01`) as text.
pub fn by_number(classes: &[String]) -> Vec<String> {
    let mut sorted = classes.to_vec();
    sorted.sort_by(|a, b| (number(a), a).cmp(&(number(b), b)));
    sorted
}

/// `classes` as text.
pub fn as_text(classes: &[String]) -> Vec<String> {
    let mut sorted = classes.to_vec();
    sorted.sort_unstable();
    sorted
}

impl ClassOrder {
    /// The names of class folders in this order.
    ///
    /// # Errors
    /// When they are to be in the order of their numbers and one is not named by a number.
    pub fn sort(self, classes: &[String]) -> Result<Vec<String>> {
        if self != Self::Numeric {
            return Ok(as_text(classes));
        }
        match classes.iter().find(|class| number(class).is_none()) {
            None => Ok(by_number(classes)),
            Some(other) => {
                let message = format!(
                    "`data.class_order` is `numeric`, but the class folder `{}` is no number",
                    other.escape_debug()
                );
                Err(usage(message).hint("`auto` and `alphabetical` sort folders as text").into())
            }
        }
    }
}

/// What is said of classes in this order, where the other one would give other labels.
pub fn remark(classes: &[String]) -> Option<String> {
    if !are_numbers(classes) {
        return None;
    }
    let (text, numeric) = (as_text(classes), by_number(classes));
    let output = text.iter().zip(&numeric).position(|(a, b)| a != b)?;
    let (text_folder, number_folder) = (&text[output], &numeric[output]);
    Some(if *classes == numeric {
        format!(
            "class folders are named by numbers and sorted by number, as timm does: output {output} is folder \
             {number_folder} (`data.class_order=alphabetical`: folder {text_folder}, as torchvision's ImageFolder)"
        )
    } else {
        format!(
            "class folders are named by numbers and sorted as text, as torchvision's ImageFolder does: output {output} is \
             folder {text_folder} (`data.class_order=numeric`: folder {number_folder}, as timm)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn numbers_are_sorted_as_text_or_by_number() {
        let found = strings(&["1", "10", "100", "2"]);
        assert_eq!(ClassOrder::Auto.sort(&found).unwrap(), found);
        assert_eq!(ClassOrder::Alphabetical.sort(&found).unwrap(), found);
        assert_eq!(ClassOrder::Numeric.sort(&found).unwrap(), strings(&["1", "2", "10", "100"]));
        let error = ClassOrder::Numeric.sort(&strings(&["1", "cat"])).unwrap_err().to_string();
        assert!(error.contains("class folder `cat` is no number"), "{error}");
        for other in ["", "-1", "1.5", "9999999999", "\u{662}"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn only_where_the_orders_differ_there_is_something_to_say() {
        let text = remark(&strings(&["0", "1", "10", "2"])).unwrap();
        assert!(text.contains("output 2 is folder 10 (`data.class_order=numeric`: folder 2"), "{text}");
        let numeric = remark(&strings(&["0", "1", "2", "10"])).unwrap();
        assert!(
            numeric.contains("output 2 is folder 2 (`data.class_order=alphabetical`: folder 10"),
            "{numeric}"
        );
        for same in [
            &["0", "1", "2"][..],
            &["00", "01", "02", "10"],
            &["cat", "dog"],
            &["1", "10", "2", "cat"],
            &["5"],
        ] {
            assert_eq!(remark(&strings(same)), None, "{same:?}");
        }
    }
}
