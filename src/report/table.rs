//! Tables of text and of Markdown.

use comfy_table::{CellAlignment, LineStyle, TableStyle, presets};

/// One line below the headings, none between rows.
const TERMINAL: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table: a heading for each column, then rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub headings: Vec<String>,
    /// Cells, as many a row as there are headings.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { headings: headings.map(str::to_string).to_vec(), rows: Vec::new() }
    }

    /// A table from its columns: a heading and cells, as many for each; a dash where there is none.
    pub fn of_columns(columns: impl IntoIterator<Item = (String, Vec<Option<String>>)>) -> Self {
        let mut table = Self::default();
        for (heading, cells) in columns {
            table.headings.push(heading);
            table.rows.resize(cells.len(), Vec::new());
            for (row, cell) in table.rows.iter_mut().zip(cells) {
                row.push(cell.unwrap_or_else(|| "–".to_string()));
            }
        }
        table
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.headings.len(), "a cell for each column");
        self.rows.push(cells.to_vec());
    }

    /// For a terminal: first column to the left, the others to the right.
    pub fn text(&self) -> String {
        self.render(TERMINAL)
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        self.render(presets::ASCII_MARKDOWN) + "\n"
    }

    fn render(&self, style: TableStyle) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_header(&self.headings);
        self.rows.iter().for_each(|row| {
            table.add_row(row);
        });
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_cell_alignment(if at == 0 { CellAlignment::Left } else { CellAlignment::Right });
        }
        table.to_string()
    }
}

/// `28088024` as `28,088,024`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A fraction as `93.10 %`.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(28_088_024), "28,088,024");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(-1000), "-1,000");
    }

    #[test]
    fn markdown_has_one_line_a_row() {
        let mut table = Table::new(["net", "error"]);
        table.row(["r = 4".into(), "9.10 %".into()]);
        assert_eq!(table.markdown().lines().count(), 3);
        assert!(table.markdown().starts_with("| net"));
    }
}
