//! Aligned columns without borders, at any width: text is shortened, then columns are left out, and where not even the
//! rest has room each row is a few lines.

use super::style::{Style, Tone};
use crate::domain::printable::clean;
use std::borrow::Cow;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// A cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    tone: Tone,
    /// The same said ever more shortly; there is at least one.
    forms: Vec<String>,
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
    /// Whether it is shown even if every cell is empty.
    always: bool,
    /// How narrow it may become, where that is not its kind's.
    at_least: Option<usize>,
    /// Rather than be narrower than this it has other columns go, as long as one of them may.
    prefers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnKind {
    Whole,
    Id,
    Text,
    Number,
}

/// How a table is laid out: which form of each cell, and the columns that are shown with their widths.
struct Layout {
    form: usize,
    shown: Vec<(usize, usize)>,
}

impl Cell {
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, forms: vec![text.into()] }
    }

    /// A cell that says the same ever more shortly where there is less room; the longest form first.
    pub fn of_forms(tone: Tone, forms: impl IntoIterator<Item = String>) -> Self {
        let mut forms: Vec<String> = forms.into_iter().collect();
        if forms.is_empty() {
            forms.push(String::new());
        }
        Self { tone, forms }
    }

    fn text(&self, form: usize) -> Cow<'_, str> {
        clean(&self.forms[form.min(self.forms.len() - 1)])
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

    /// The table as text for a stream that can show so much, each line with its end. No line is wider than the stream.
    ///
    /// Columns in which every cell is empty are left out, and those for which there is no room.
    pub fn render(&self, style: Style) -> String {
        let room = style.width.map(usize::from);
        let Some(layout) = self.layout(room) else { return self.stacked(room.unwrap_or(usize::MAX), style) };
        let shown = &layout.shown;
        if shown.is_empty() {
            return String::new();
        }
        let titles = shown.iter().map(|&(column, _)| (Tone::Strong, self.columns[column].title.into()));
        let mut text = self.line(shown, titles, style);
        for row in &self.rows {
            let cells = shown.iter().map(|&(column, _)| (row[column].tone, row[column].text(layout.form)));
            text.push_str(&self.line(shown, cells, style));
        }
        text
    }

    fn line<'a>(
        &self,
        shown: &[(usize, usize)],
        cells: impl Iterator<Item = (Tone, Cow<'a, str>)>,
        style: Style,
    ) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for (&(column, width), (tone, text)) in shown.iter().zip(cells) {
            let text = self.columns[column].shortened(&text, width);
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

    /// Each row as a few lines, for a stream that is too narrow for any table.
    fn stacked(&self, room: usize, style: Style) -> String {
        let form = SHORT;
        let filled = |column: &usize| self.rows.iter().any(|row| !row[*column].text(form).is_empty());
        let shown: Vec<usize> = (0..self.columns.len()).filter(filled).collect();
        let titles = shown.iter().map(|&column| self.columns[column].title.width()).max().unwrap_or(0);
        // Where title and value do not fit side by side the value is what is wanted.
        let whole = |column: &&usize| self.columns[**column].kind == ColumnKind::Whole;
        let widths = shown
            .iter()
            .filter(whole)
            .flat_map(|&column| self.rows.iter().map(move |row| row[column].text(form).width()));
        let label = if titles + 1 + widths.max().unwrap_or(0).max(MIN_TEXT) <= room { titles + 1 } else { 0 };
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            for &column in &shown {
                let value = row[column].text(form);
                if value.is_empty() {
                    continue;
                }
                if label > 0 {
                    let title = self.columns[column].title;
                    text.push_str(&style.paint(Tone::Strong, title));
                    text.extend(std::iter::repeat_n(' ', label - title.width()));
                }
                let value = self.columns[column].shortened(&value, room.saturating_sub(label));
                text.push_str(&style.paint(row[column].tone, &value));
                text.push('\n');
            }
        }
        text
    }

    /// How the table fits into `room` columns; `None` if it does not.
    ///
    /// First text is shortened; then cells say it more shortly; then columns go, and at last the id.
    fn layout(&self, room: Option<usize>) -> Option<Layout> {
        let last = self.rows.iter().flatten().map(|cell| cell.forms.len()).max().unwrap_or(1) - 1;
        let Some(room) = room else { return Some(Layout { form: 0, shown: self.natural(0) }) };
        // A form that is shorter is worth more than a column that is beside the point, but only once.
        let short = last.min(1);
        let whole = (0..=short).map(|form| (form, u8::MAX, true));
        let without = |spacious| (short..=last).map(move |form| (form, LAST, spacious));
        let mut tries = whole.chain(without(true)).chain(without(false)).chain([(last, 0, false)]);
        tries.find_map(|(form, keeps, spacious)| {
            let shown = self.fitting(room, form, keeps, spacious)?;
            Some(Layout { form, shown })
        })
    }

    /// The columns that are not empty, with the widths that they would like.
    fn natural(&self, form: usize) -> Vec<(usize, usize)> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text(form).width());
            let Column { title, always, .. } = self.columns[column];
            cells.max().filter(|width| *width > 0 || always).map(|width| width.max(title.width()))
        };
        (0..self.columns.len()).filter_map(|column| Some((column, width(column)?))).collect()
    }

    /// The columns that are shown, with their widths, if those that may not go have room.
    fn fitting(&self, room: usize, form: usize, keeps: u8, spacious: bool) -> Option<Vec<(usize, usize)>> {
        let natural = self.natural(form);
        let mut shown = natural.clone();
        loop {
            if shown.is_empty() {
                return natural.is_empty().then_some(shown);
            }
            let taken = |shown: &[(usize, usize)]| {
                (shown.iter().map(|(_, width)| width + GAP).sum::<usize>()).saturating_sub(GAP)
            };
            // The widest text gives way first, so that several become equally short.
            let mut excess = taken(&shown).saturating_sub(room);
            while excess > 0 {
                let gives = |(column, width): &(usize, usize)| *width > self.columns[*column].least(spacious);
                let Some(widest) = shown.iter().filter(|each| gives(each)).map(|(_, width)| *width).max()
                else {
                    break;
                };
                let next = shown
                    .iter()
                    .filter(|each| gives(each) && each.1 < widest)
                    .map(|(_, width)| *width)
                    .max()
                    .unwrap_or(0);
                for each in shown.iter_mut().filter(|each| each.1 == widest) {
                    let least = self.columns[each.0].least(spacious);
                    if each.1 <= least || excess == 0 {
                        continue;
                    }
                    let down = next.max(least).max(each.1.saturating_sub(excess));
                    excess -= each.1 - down;
                    each.1 = down;
                }
            }
            if excess == 0 {
                return Some(shown);
            }
            let drops = |place: usize| self.columns[shown[place].0].drops;
            let place = (0..shown.len()).max_by_key(|&place| drops(place))?;
            if drops(place) <= keeps || drops(place) == 0 {
                return None;
            }
            let gone = shown[place].0;
            // What is left may have its room back.
            let left: Vec<usize> =
                shown.iter().map(|(column, _)| *column).filter(|column| *column != gone).collect();
            shown = natural.iter().copied().filter(|(column, _)| left.contains(column)).collect();
        }
    }
}

impl Column {
    /// A column that is never shortened: words that programs search for.
    pub const fn whole(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Whole, drops: 0, always: false, at_least: None, prefers: 0 }
    }

    /// A column of ids: shortened in the middle, for they differ at their ends. It is the last to go.
    pub const fn id(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Id, drops: LAST, always: false, at_least: None, prefers: 0 }
    }

    /// A column that is shortened with `…` where the terminal is too narrow.
    pub const fn text(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Text, drops: LAST + 1, always: false, at_least: None, prefers: 0 }
    }

    /// A column of numbers, aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Self { title, kind: ColumnKind::Number, drops: 0, always: false, at_least: None, prefers: 0 }
    }

    /// The same, given up where the terminal is too narrow; the greater number goes first, 0 never.
    #[must_use]
    pub const fn drops(self, drops: u8) -> Self {
        Self { drops: if drops == 0 { 0 } else { drops.saturating_add(LAST) }, ..self }
    }

    /// The same, shown even if every cell is empty.
    #[must_use]
    pub const fn always(self) -> Self {
        Self { always: true, ..self }
    }

    /// The same, and it never goes.
    #[must_use]
    pub const fn stays(self) -> Self {
        Self { drops: 0, ..self }
    }

    /// The same, shortened to so many letters and no further: rather than that, other columns go.
    #[must_use]
    pub const fn at_least(self, letters: usize) -> Self {
        Self { at_least: Some(letters), ..self }
    }

    /// The same, shortened to so many letters at once and further only where no other column may go any more.
    #[must_use]
    pub const fn prefers(self, letters: usize) -> Self {
        Self { prefers: letters, ..self }
    }

    /// How narrow it may become; `spacious`: as long as other columns may go.
    fn least(&self, spacious: bool) -> usize {
        let least = self.at_least.unwrap_or(match self.kind {
            ColumnKind::Whole | ColumnKind::Number => usize::MAX,
            ColumnKind::Id => MIN_ID,
            ColumnKind::Text => MIN_TEXT,
        });
        if spacious { least.max(self.prefers) } else { least }
    }

    fn shortened<'a>(&self, text: &'a str, width: usize) -> Cow<'a, str> {
        match self.kind {
            ColumnKind::Id => shorten_middle(text, width),
            ColumnKind::Whole | ColumnKind::Number | ColumnKind::Text => shorten(text, width),
        }
    }
}

/// `text` in at most `width` columns.
pub fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    if width == 0 {
        return Cow::Borrowed("");
    }
    let mut short = beginning(text, width - 1);
    short.push('…');
    Cow::Owned(short)
}

/// `text` in at most `width` columns, its beginning and its end kept.
pub fn shorten_middle(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    if width < 3 {
        return shorten(text, width);
    }
    let tail_width = (width - 1) / 2;
    let mut tail: Vec<&str> = Vec::new();
    let mut used = 0;
    for grapheme in text.graphemes(true).rev() {
        used += grapheme.width();
        if used > tail_width {
            break;
        }
        tail.push(grapheme);
    }
    let mut short = beginning(text, width - 1 - tail_width);
    short.push('…');
    short.extend(tail.into_iter().rev());
    Cow::Owned(short)
}

/// As much of the beginning of `text` as fits into `width` columns.
fn beginning(text: &str, width: usize) -> String {
    let mut short = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += grapheme.width();
        if used > width {
            break;
        }
        short.push_str(grapheme);
    }
    short
}

/// The form of a cell that is used where each row is a few lines.
const SHORT: usize = 2;

/// Between two columns.
const GAP: usize = 2;

/// Text that is shorter than this says nothing.
const MIN_TEXT: usize = 8;

/// An id that is shorter than this is not known again.
const MIN_ID: usize = 13;

/// What goes last of all that may go.
const LAST: u8 = 1;

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
    fn a_narrow_terminal_shortens_text_then_columns_go() {
        let at = |width| table().render(Style { width: Some(width), ..Style::default() });
        insta::assert_snapshot!(at(32), @r"
        ID        NAME              DONE
        batch_1   a name that …        7
        batch_22  tab\there \u…  120/400
        ");
        insta::assert_snapshot!(at(20), @r"
        ID        NAME
        batch_1   a name th…
        batch_22  tab\there…
        ");
        insta::assert_snapshot!(at(7), @r"
        batch_1
        a name…
        7

        batch_…
        tab\th…
        120/400
        ");
    }

    #[test]
    fn what_may_go_goes_before_a_text_is_narrower_than_it_prefers() {
        let mut table = Table::new(&[
            Column::whole("ID"),
            Column::text("NAME").stays().prefers(16),
            Column::text("NOTE").drops(3),
        ]);
        table.row(vec!["batch_1".into(), "nightly-evals-2026".into(), "404 Not Found: no such batch".into()]);
        let at = |width| {
            let text = table.render(Style { width: Some(width), ..Style::default() });
            text.lines().last().unwrap().to_owned()
        };
        assert_eq!(at(36), "batch_1  nightly-evals-2…  404 Not …");
        assert_eq!(at(34), "batch_1  nightly-evals-2026");
        assert_eq!(at(20), "batch_1  nightly-ev…");
    }

    #[test]
    fn cells_say_it_more_shortly_before_columns_go() {
        let mut table = Table::new(&[Column::id("ID"), Column::text("NAME").stays(), Column::whole("DONE")]);
        let done = Cell::of_forms(Tone::Plain, ["▓▓░░ 120/400".to_owned(), "30%".to_owned()]);
        table.row(vec!["batch_68fd8e2f1c0c8190a1b2".into(), "nightly".into(), done]);
        let at = |width| table.render(Style { width: Some(width), ..Style::default() });
        insta::assert_snapshot!(at(60), @r"
        ID                          NAME     DONE
        batch_68fd8e2f1c0c8190a1b2  nightly  ▓▓░░ 120/400
        ");
        insta::assert_snapshot!(at(30), @r"
        ID               NAME     DONE
        batch_6…190a1b2  nightly  30%
        ");
        insta::assert_snapshot!(at(18), @r"
        NAME     DONE
        nightly  30%
        ");
        insta::assert_snapshot!(at(12), @r"
        batch_…0a1b2
        nightly
        30%
        ");
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
        fn no_line_is_wider_than_the_terminal(
            rows in prop::collection::vec(("\\PC{0,30}", "[a-z]{0,40}", 0_u64..1_000_000), 0..5), width in 1_u16..90,
        ) {
            let mut table =
                Table::new(&[Column::text("NAME").stays(), Column::id("ID"), Column::number("N").drops(2), Column::whole("W")]);
            for (name, id, number) in rows {
                table.row(vec![name.into(), id.into(), number.to_string().into(), "in_progress".into()]);
            }
            let text = table.render(Style { width: Some(width), ..Style::default() });
            for line in text.lines() {
                prop_assert!(line.width() <= usize::from(width), "{}: {:?}", width, line);
            }
        }

        #[test]
        fn what_is_shortened_in_the_middle_fits(text in "\\PC{0,40}", width in 1_usize..40) {
            prop_assert!(shorten_middle(&text, width).width() <= width);
        }

        #[test]
        fn what_is_shortened_fits(text in "\\PC{0,40}", width in 1_usize..40) {
            prop_assert!(shorten(&text, width).width() <= width);
        }
    }
}
