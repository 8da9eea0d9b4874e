//! Tables as HTML: a name for each row, and columns that may share a heading above their own.

/// A column of a table whose rows are made from a `T`.
pub struct Column<T> {
    /// The heading that it shares with its neighbours.
    pub group: &'static str,
    /// Its own heading.
    pub heading: &'static str,
    /// Its class in the style sheet; may be empty.
    pub class: &'static str,
    /// What a cell holds, as markup; `None` where it is not known.
    pub cell: fn(&T) -> Option<String>,
}

impl<T> Column<T> {
    /// All parts of it.
    pub const fn of(
        group: &'static str,
        heading: &'static str,
        class: &'static str,
        cell: fn(&T) -> Option<String>,
    ) -> Self {
        Self { group, heading, class, cell }
    }
}

/// The table, from its rows as markup; `name` is the heading above their names.
pub fn table<T>(name: &str, columns: &[Column<T>], rows: &str) -> String {
    let headings: String = columns.iter().map(|column| cell("th", column, column.heading)).collect();
    // A region that scrolls can be reached by keyboard only when it can be focused.
    format!(
        "<div class=\"scroll\" tabindex=\"0\">\n<table>\n<thead>\n{}<tr><th class=\"name\">{name}</th>{headings}</tr>\n\
         </thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n",
        groups(columns)
    )
}

/// The upper headings, each over all columns that share it.
fn groups<T>(columns: &[Column<T>]) -> String {
    if columns.iter().all(|column| column.group.is_empty()) {
        return String::new();
    }
    let group = |columns: &[Column<T>]| {
        let (first, span) = (&columns[0], columns.len());
        if first.group.is_empty() {
            return format!("<th colspan=\"{span}\"></th>");
        }
        let class = format!("group {}", first.class);
        format!("<th class=\"{}\" colspan=\"{span}\"><span>{}</span></th>", class.trim_end(), first.group)
    };
    let groups: String = columns.chunk_by(|one, other| one.group == other.group).map(group).collect();
    format!("<tr><th class=\"name\"></th>{groups}</tr>\n")
}

/// A row; its name is markup.
pub fn row<T>(class: &str, name: &str, columns: &[Column<T>], of: &T) -> String {
    let cells: String = columns
        .iter()
        .map(|column| match (column.cell)(of) {
            Some(content) => cell("td", column, &content),
            None => cell("td", column, "<span class=\"missing\">–</span>"),
        })
        .collect();
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<tr{class}><th class=\"name\">{name}</th>{cells}</tr>\n")
}

fn cell<T>(tag: &str, column: &Column<T>, content: &str) -> String {
    match column.class {
        "" => format!("<{tag}>{content}</{tag}>"),
        class => format!("<{tag} class=\"{class}\">{content}</{tag}>"),
    }
}
