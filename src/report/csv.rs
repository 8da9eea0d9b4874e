//! Comma-separated values (RFC 4180, with the line ends of Unix).

/// A cell: in quotes where it needs them.
pub fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = ["tench", "tench, Tinca", "a \"b\"", "a\r", ""].map(quoted);
        assert_eq!(cells, ["tench", "\"tench, Tinca\"", "\"a \"\"b\"\"\"", "\"a\r\"", ""]);
    }
}
