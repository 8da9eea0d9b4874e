//! Text in markup: escaping, estimates of width, line breaks.

/// Size of the letters of a plot, in the units of its drawing.
pub const LETTERS: f64 = 13.0;
/// From one line of text to the next.
pub const LINE: f64 = 15.5;
/// Text as markup, for content and for attributes in double quotes. Control characters, which no document may
/// hold, are left out.
pub fn escape(text: &str) -> String {
    let mut markup = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => markup.push_str("&amp;"),
            '<' => markup.push_str("&lt;"),
            '>' => markup.push_str("&gt;"),
            '"' => markup.push_str("&quot;"),
            '\'' => markup.push_str("&#39;"),
            '\n' | '\t' => markup.push(letter),
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            _ => markup.push(letter),
        }
    }
    markup
}

/// Roughly how wide text is drawn, in the wider of the usual fonts.
pub fn text_width(text: &str) -> f64 {
    let of = |letter: char| match letter {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '\u{a0}' => 0.30,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '-' => 0.36,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.90,
        _ if letter > '\u{2e7f}' => 1.05,
        _ if letter.is_uppercase() => 0.69,
        _ => 0.57,
    };
    LETTERS * text.chars().map(of).sum::<f64>()
}

/// Breaks text into lines of at most `room`, between words where that is possible.
pub fn wrap(text: &str, room: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or("", String::as_str);
        if !line.is_empty() && text_width(line) + text_width(word) + 0.4 * LETTERS > room {
            lines.push(String::new());
        } else if !line.is_empty() {
            append(&mut lines, ' ');
        }
        for letter in word.chars() {
            if lines.last().is_some_and(|line| !line.is_empty() && text_width(line) + LETTERS > room) {
                lines.push(String::new());
            }
            append(&mut lines, letter);
        }
    }
    lines
}

fn append(lines: &mut [String], letter: char) {
    if let Some(line) = lines.last_mut() {
        line.push(letter);
    }
}

/// The first `most` letters, and a mark where there are more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_escaped() {
        assert_eq!(escape("a<b> & \"c\" 'd'\u{1b}[0m"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;[0m");
    }

    #[test]
    fn lines_fit_and_lose_no_letter() {
        let text = "no squeeze, a_very_long_identifier_without_any_space_in_it & more";
        let lines = wrap(text, 90.0);
        assert!(lines.iter().all(|line| text_width(line) <= 90.0), "{lines:?}");
        let letters = |text: &str| text.replace(' ', "");
        assert_eq!(letters(&lines.concat()), letters(text));
    }
}
