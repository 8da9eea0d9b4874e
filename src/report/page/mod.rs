//! Results as one HTML page that needs nothing beside it: tables, plots, and how to read them.
//!
//! A page of a [`comparison`] of networks, and one of what [`excitation`] does in one of them. The markup is
//! well-formed XML as well, so that a test can check that it is balanced.

pub mod comparison;
pub mod excitation;
mod html_table;

use super::plot::escape;

const STYLE: &str = include_str!("page.css");
/// The heading of the section that each page ends with.
const HOW_TO_READ: &str = "How to read this page";

/// The whole document, from the text of its name and heading and the markup of the rest.
fn document(name: &str, heading: &str, header: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{}</h1>\n{header}</header>\n<main>\n{main}</main>\n</body>\n</html>\n",
        escape(name),
        escape(heading),
    )
}

/// Lines of text about the setting, and one of markup.
fn setting_list(setting: &[String], last: &str) -> String {
    let lines: String = setting.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<ul class=\"setting\">\n{lines}<li>{last}</li>\n</ul>\n")
}

/// A section, from markup.
fn section(heading: &str, content: &str) -> String {
    format!("<section>\n<h2>{heading}</h2>\n{content}</section>\n")
}

/// A section that lists something as markup; empty where there is nothing to list.
fn list(heading: &str, items: Vec<String>) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    section(heading, &format!("<ul>\n{items}</ul>\n"))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod testing {
    /// Whether each tag is closed, in order, by its own end.
    fn is_balanced(page: &str) -> bool {
        let mut open = Vec::new();
        let after_doctype = page.split_once("<html").map_or("", |(_, rest)| rest);
        let document = format!("<html{after_doctype}");
        for tag in document.split('<').skip(1) {
            let Some((tag, text)) = tag.split_once('>') else { return false };
            let name = tag.split(|letter: char| letter.is_whitespace()).next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) if open.pop() != Some(name) => return false,
                None if !tag.ends_with('/') => open.push(name),
                _ => {}
            }
            if text.contains('>') || tag.matches('"').count() % 2 != 0 {
                return false;
            }
        }
        open.is_empty()
    }

    /// A page is balanced and shows no figure that is none.
    pub fn check(page: &str) {
        assert!(is_balanced(page), "{page}");
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
    }
}
