//! Tables without borders: they read well, and `awk` and `cut` like them too.

use super::{
    Look,
    style::{Tone, paint, tone_of},
};

/// Between columns.
const GAP: &str = "  ";
/// What an empty cell shows, so that columns stay countable.
const EMPTY: &str = "-";

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text in a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// A word that says how something is, in the tone that fits.
    pub(crate) fn word(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { tone: tone_of(&text), text }
    }

    /// A value, or a dash.
    pub(crate) fn maybe<T: ToString>(value: Option<T>) -> Self {
        value.map(|v| v.to_string()).unwrap_or_default().into()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// A table in the making.
pub(crate) struct Table {
    look: Look,
    headers: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns; a `>` before a header aligns the column to the right.
    pub(crate) fn new(look: Look, columns: &[&'static str]) -> Self {
        let headers = columns.iter().map(|c| c.strip_prefix('>').unwrap_or(c)).collect();
        let right = columns.iter().map(|c| c.starts_with('>')).collect();
        Self { look, headers, right, rows: Vec::new() }
    }

    /// Adds a row. Cells beyond the columns are left out, so rows may carry what only wide tables show.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().take(self.headers.len()).collect();
        row.resize_with(self.headers.len(), Cell::default);
        for cell in row.iter_mut().filter(|c| c.text.is_empty()) {
            *cell = Cell::toned(EMPTY, Tone::Dim);
        }
        self.rows.push(row);
    }

    /// The table as text, or `nothing` as a sentence when it has no row.
    pub(crate) fn or(self, nothing: &str) -> String {
        if self.rows.is_empty() { format!("{nothing}\n") } else { self.finish() }
    }

    /// The table as text.
    pub(crate) fn finish(self) -> String {
        let widths: Vec<usize> = (0..self.headers.len())
            .map(|i| self.rows.iter().map(|r| width(&r[i].text)).fold(width(self.headers[i]), usize::max))
            .collect();
        let headers = self.headers.iter().map(|h| Cell::toned(*h, Tone::Strong)).collect();
        let mut text = String::new();
        for row in std::iter::once(&headers).chain(&self.rows) {
            text.push_str(&self.line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn line(&self, row: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (i, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[i].saturating_sub(width(&cell.text)));
            let shown = paint(&cell.text, cell.tone, self.look.colour);
            match (self.right[i], i == last) {
                (true, _) => line.extend([padding.as_str(), shown.as_str()]),
                (false, false) => line.extend([shown.as_str(), padding.as_str()]),
                (false, true) => line.push_str(&shown),
            }
            if i != last {
                line.push_str(GAP);
            }
        }
        line
    }
}

/// Columns that a text takes. Names are ASCII; in other texts a letter is taken for one column.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_nothing_trails() {
        let mut table = Table::new(Look::PLAIN, &["NAME", ">RTT", "STATE"]);
        table.row(["aws-1".into(), "0.3".into(), Cell::word("alive")]);
        table.row(["a".into(), "120.25".into(), "".into()]);
        table.row(["b".into()]);
        let expected = "NAME      RTT  STATE\naws-1     0.3  alive\na      120.25  -\nb           -  -\n";
        assert_eq!(table.finish(), expected);
    }

    #[test]
    fn colour_does_not_move_columns() {
        let build = |colour| {
            let mut table = Table::new(Look { wide: false, colour }, &["A", "B"]);
            table.row([Cell::word("down"), "x".into()]);
            table.finish()
        };
        let plain = build(true).replace("\x1b[1m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, build(false));
        assert!(build(true).contains("\x1b[31mdown\x1b[0m"));
    }

    #[test]
    fn an_empty_table_is_a_sentence() {
        assert_eq!(Table::new(Look::PLAIN, &["A"]).or("no members"), "no members\n");
    }
}
