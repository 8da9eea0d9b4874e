//! Text of foreign files (names of classes, tensors, layers and files), made fit for a terminal and for messages.
//!
//! A name may hold an escape sequence that moves the cursor, renames the window or hides what follows, or a line
//! feed that forges a line of ours. Files that we write keep such text as it is; what is printed is escaped.

use std::borrow::Cow;

/// Longest part of a name that a message shows, in characters.
const MAX_NAME: usize = 80;

/// Whether a terminal would act on `c` instead of showing it: control characters, and those that change the direction
/// of the text around them.
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Escapes all of `text` that a terminal would act on, except line feeds and tabs. All texts that are printed pass through
/// here.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'))
}

/// Escapes all of `text` that a terminal would act on, line feeds too.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, acts)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_escaped(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// A foreign name inside a message: one line of at most 80 characters.
pub fn name(name: &str) -> String {
    let shown: String = name.chars().take(MAX_NAME).collect();
    let cut = if shown.len() < name.len() { "…" } else { "" };
    format!("{}{cut}", line(&shown))
}

/// A foreign name inside a message, in backticks; the empty name is `""`.
pub fn quoted(text: &str) -> String {
    if text.is_empty() { "\"\"".to_string() } else { format!("`{}`", name(text)) }
}

/// A JSON document as it is, but for characters that a terminal would act on and that JSON allows unescaped within strings:
/// they are written as JSON's `\uXXXX`, so that what is read back is the same.
pub fn json(document: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| acts(c) && c != '\n';
    if !document.contains(is_escaped) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        // All of them lie in the Basic Multilingual Plane.
        if is_escaped(c) { safe += &format!("\\u{:04x}", u32::from(c)) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_the_rest_is_kept() {
        let hostile = "cat\u{1b}[2J\u{1b}]0;pwned\u{7}\u{9b}31m\u{202e}\r\ndog";
        let safe = lines(hostile);
        assert_eq!(safe, "cat\\u{1b}[2J\\u{1b}]0;pwned\\u{7}\\u{9b}31m\\u{202e}\\r\ndog");
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
        for harmless in ["tench, Tinca tinca", "e\u{301}té", "猫 🐈 — `x`\\n", ""] {
            assert!(matches!(lines(harmless), Cow::Borrowed(same) if same == harmless));
        }
    }

    #[test]
    fn names_in_messages_are_short_and_the_empty_one_can_be_read() {
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(name(&"é".repeat(81)), format!("{}…", "é".repeat(80)));
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let value = serde_json::json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}\n" });
        let document = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&document);
        assert!(safe.chars().all(|c| c == '\n' || !acts(c)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
