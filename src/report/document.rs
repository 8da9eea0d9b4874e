//! Tables within a document that people write: what stands between two markers is made anew, the rest is theirs.

use crate::error::{Result, failed};

const BEGIN: &str = "<!-- senet report ";
const END: &str = "<!-- end of report -->";

/// `document` with what `table` gives for each key put between the key's marker and the next end marker. Keys that
/// `table` does not know keep what they have. The second value is the number of tables that were put in.
///
/// # Errors
/// When a marker has no end.
pub fn with_tables(document: &str, table: impl Fn(&str) -> Option<String>) -> Result<(String, usize)> {
    let (mut made, mut rest, mut count) = (String::new(), document, 0);
    while let Some((before, from_key)) = rest.split_once(BEGIN) {
        let unended = || {
            failed(format!("a marker `{BEGIN}… -->` has no `{END}` after it")).hint("add one below its table")
        };
        let (key, inside) = from_key.split_once("-->").ok_or_else(unended)?;
        let (old, after) = inside.split_once(END).ok_or_else(unended)?;
        made += &format!("{before}{BEGIN}{key}-->");
        match table(key.trim()) {
            Some(table) => {
                made += &format!("\n\n{}\n\n", table.trim());
                count += 1;
            }
            None => made += old,
        }
        made += END;
        rest = after;
    }
    Ok((made + rest, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_tables_are_made_anew() {
        let text = "a\n<!-- senet report x -->\nold\n<!-- end of report -->\nb\n<!-- senet report y -->kept<!-- end of report -->c";
        let (made, count) = with_tables(text, |key| (key == "x").then(|| "new".to_string())).unwrap();
        let expected = text.replace("\nold\n", "\n\nnew\n\n");
        assert_eq!((made.as_str(), count), (expected.as_str(), 1));
        let (again, _) = with_tables(&made, |key| (key == "x").then(|| "new".to_string())).unwrap();
        assert_eq!(again, made);
        assert!(with_tables("<!-- senet report x -->", |_| None).is_err());
    }
}
