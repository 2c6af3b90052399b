//! Aligned columns without borders: text is shortened where the terminal is narrow, then columns are left out.

use super::style::{Style, Tone};
use crate::domain::printable::clean;
use std::borrow::Cow;
use unicode_width::UnicodeWidthStr;

/// A cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// Aligned columns without borders.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    kind: ColumnKind,
    /// In a terminal that is too narrow the column with the greatest number goes first; 0 never goes.
    drops: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnKind {
    Whole,
    Text,
    Number,
}

impl Cell {
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl Table {
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; one cell a column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text for a stream that can show so much, each line with its end.
    ///
    /// Columns in which every cell is empty are left out, and those for which there is no room.
    pub fn render(&self, style: Style) -> String {
        let shown = self.fitting(style.width);
        if shown.is_empty() {
            return String::new();
        }
        let titles = shown.iter().map(|&(column, _)| (Tone::Strong, self.columns[column].title));
        let mut text = self.line(&shown, titles, style);
        for row in &self.rows {
            let cells = shown.iter().map(|&(column, _)| (row[column].tone, row[column].text.as_str()));
            text.push_str(&self.line(&shown, cells, style));
        }
        text
    }

    fn line<'a>(
        &self,
        shown: &[(usize, usize)],
        cells: impl Iterator<Item = (Tone, &'a str)>,
        style: Style,
    ) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for (&(column, width), (tone, text)) in shown.iter().zip(cells) {
            let text = clean(text);
            let text = shorten(&text, width);
            let padding = width.saturating_sub(text.width());
            let right = self.columns[column].kind == ColumnKind::Number;
            blanks += if right { padding } else { 0 };
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', std::mem::take(&mut blanks)));
                line.push_str(&style.paint(tone, &text));
            }
            blanks += GAP + if right { 0 } else { padding };
        }
        line.push('\n');
        line
    }

    /// The columns that are shown, with their widths: text is shortened first, then columns go.
    fn fitting(&self, room: Option<u16>) -> Vec<(usize, usize)> {
        let natural = |column: usize| {
            let cells = self.rows.iter().map(|row| clean(&row[column].text).width());
            cells.max().filter(|width| *width > 0).map(|width| width.max(self.columns[column].title.width()))
        };
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).filter_map(|column| Some((column, natural(column)?))).collect();
        let Some(room) = room.map(usize::from) else { return shown };
        loop {
            let taken =
                |shown: &[(usize, usize)]| shown.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
            if shown.is_empty() {
                return shown;
            }
            // The widest text gives way, one column at a time, so that several become equally short.
            let is_text = |column: usize| self.columns[column].kind == ColumnKind::Text;
            while taken(&shown) > room {
                let widest = shown.iter_mut().filter(|(column, width)| is_text(*column) && *width > MIN_TEXT);
                let Some(widest) = widest.max_by_key(|(_, width)| *width) else { break };
                widest.1 -= 1;
            }
            if taken(&shown) <= room {
                return shown;
            }
            let drops = |place: usize| self.columns[shown[place].0].drops;
            match (0..shown.len()).max_by_key(|&place| drops(place)) {
                Some(place) if drops(place) > 0 => {
                    shown.remove(place);
                    // What is left may have its room back.
                    for (column, width) in &mut shown {
                        *width = natural(*column).unwrap_or(*width);
                    }
                }
                _ => return shown,
            }
        }
    }
}

impl Column {
    /// A column that is never shortened: ids, and words that programs search for.
    pub const fn whole(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Whole, drops: 0 }
    }

    /// A column that is shortened with `…` where the terminal is too narrow.
    pub const fn text(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Text, drops: 1 }
    }

    /// A column of numbers, aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Number, drops: 0 }
    }

    /// The same, given up where the terminal is too narrow; the greater number goes first.
    #[must_use]
    pub const fn drops(self, drops: u8) -> Self {
        Self { drops, ..self }
    }
}

/// `text` in at most `width` columns.
pub fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    use unicode_segmentation::UnicodeSegmentation;
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += grapheme.width();
        if used + 1 > width {
            break;
        }
        short.push_str(grapheme);
    }
    short.push('…');
    Cow::Owned(short)
}

/// Between two columns.
const GAP: usize = 2;

/// Text that is shorter than this says nothing.
const MIN_TEXT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::whole("ID"),
            Column::text("NAME"),
            Column::text("NOTHING"),
            Column::number("DONE").drops(2),
        ]);
        table.row(vec!["batch_1".into(), "a name that is rather long".into(), "".into(), "7".into()]);
        table.row(vec![
            "batch_22".into(),
            Cell::new(Tone::Bad, "tab\there \x1b[2J"),
            "".into(),
            "120/400".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        insta::assert_snapshot!(table().render(Style::default()), @r"
        ID        NAME                           DONE
        batch_1   a name that is rather long        7
        batch_22  tab\there \u{1b}[2J         120/400
        ");
    }

    #[test]
    fn a_narrow_terminal_shortens_text_but_no_id() {
        let narrow = table().render(Style { width: Some(32), ..Style::default() });
        insta::assert_snapshot!(narrow);
        assert!(narrow.lines().all(|line| line.chars().count() <= 32), "{narrow}");
        let narrower = table().render(Style { width: Some(20), ..Style::default() });
        insta::assert_snapshot!(narrower, @r"
        ID        NAME
        batch_1   a name th…
        batch_22  tab\there…
        ");
        assert_eq!(table().render(Style { width: Some(3), ..Style::default() }), "ID\nbatch_1\nbatch_22\n");
    }

    #[test]
    fn colour_is_there_only_when_wanted() {
        let colour = Style { colour: true, ..Style::default() };
        assert!(table().render(colour).contains("\x1b["));
        assert!(!table().render(Style::default()).contains('\x1b'));
        assert_eq!(Style::default().paint(Tone::Bad, "x"), "x");
    }

    proptest! {
        #[test]
        fn what_is_shortened_fits(text in "\\PC{0,40}", width in 1_usize..40) {
            prop_assert!(shorten(&text, width).width() <= width);
        }
    }
}
