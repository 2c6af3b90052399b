//! The only printer: data to stdout, talk to stderr, colour only where somebody sees it.

use super::error::Error;
use super::exit::Exit;
use super::source::Extent;
use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, IsTerminal, Stderr, Stdout, Write};
use unicode_width::UnicodeWidthStr;

/// Prints for one run of the program.
#[derive(Debug)]
pub struct Ui {
    out: BufWriter<Stdout>,
    err: Stderr,
    /// What became of stdout.
    fate: Fate,
    out_style: Style,
    err_style: Style,
    quiet: bool,
    /// Whether a progress line stands on stderr.
    progress: bool,
}

/// A list on its way out.
#[derive(Debug)]
#[must_use = "a list that is not ended is no JSON"]
pub struct JsonList {
    entries: u64,
}

/// Whether stdout still takes what is written.
#[derive(Debug)]
enum Fate {
    Open,
    /// The reader has gone, as `head` does: nothing more to say, and no error.
    Gone,
    Failed(std::io::Error),
}

/// What a stream can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences for colour are wanted.
    pub colour: bool,
    /// Whether somebody looks at it.
    pub terminal: bool,
    /// How many columns there are; `None`: as many as are needed.
    pub width: Option<u16>,
    /// How many lines there are.
    pub height: Option<u16>,
}

/// How a piece of text is meant; the words say it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Well.
    Good,
    /// Worth a look.
    Warning,
    /// Bad.
    Bad,
    /// Beside the point.
    Faint,
    /// A heading.
    Strong,
}

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

impl Ui {
    /// A printer for this process's streams; `quiet`: errors and data only.
    pub fn new(quiet: bool) -> Self {
        let out = std::io::stdout();
        let err = std::io::stderr();
        let out_style = Style::of(out.is_terminal(), terminal_size::terminal_size_of(&out));
        let err_style = Style::of(err.is_terminal(), terminal_size::terminal_size_of(&err));
        Self { out: BufWriter::new(out), err, fate: Fate::Open, out_style, err_style, quiet, progress: false }
    }

    /// What stdout can show.
    pub fn style(&self) -> Style {
        self.out_style
    }

    /// Looks again at what stdout can show: a terminal's size changes while something is watched on it.
    pub fn measure(&mut self) -> Style {
        let out = std::io::stdout();
        self.out_style = Style::of(out.is_terminal(), terminal_size::terminal_size_of(&out));
        self.out_style
    }

    /// Whether stdout still has a reader: what streams for ever stops when it has not.
    pub fn is_open(&self) -> bool {
        matches!(self.fate, Fate::Open)
    }

    /// Data, as it is.
    pub fn write(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Data of any kind, as it is.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.clear_progress();
        if self.is_open() {
            let result = self.out.write_all(bytes);
            self.settle(result);
        }
    }

    /// A bar for bytes that go or come, `length` of them if that is known; hidden where nobody looks.
    pub fn bar(&self, length: Option<u64>) -> ProgressBar {
        let template = match length {
            Some(_) => "{bar:30} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
            None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
        };
        let watched = !self.quiet && self.err_style.terminal;
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(length, target).with_style(style)
    }

    /// A line of data.
    pub fn line(&mut self, text: &str) {
        self.write(text);
        self.write("\n");
    }

    /// Hands what was written to whoever reads it: after each line of what is watched live.
    pub fn flush(&mut self) {
        if self.is_open() {
            let result = self.out.flush();
            self.settle(result);
        }
    }

    /// A table of data.
    pub fn table(&mut self, table: &Table) {
        let text = table.render(self.out_style);
        self.write(&text);
    }

    /// One JSON document: indented for a person, on one line for a program.
    pub fn json(&mut self, document: &impl Serialize) {
        let text = if self.out_style.terminal {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        match text {
            Ok(text) => self.line(&harmless(&text)),
            Err(error) => self.settle(Err(error.into())),
        }
    }

    /// Begins a list that is printed entry by entry, so that a long one needs no memory.
    pub fn json_list(&mut self) -> JsonList {
        self.write(r#"{"object":"list","data":["#);
        JsonList { entries: 0 }
    }

    /// One JSON document a line.
    pub fn json_line(&mut self, document: &Value) {
        self.line(&harmless(&document.to_string()));
        self.flush();
    }

    /// Talk: what a script does not need.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.talk(text);
        }
    }

    /// Talk that has a form of its own, plain and in colour, such as text with the place it is about.
    pub fn exhibit(&mut self, render: impl FnOnce(bool) -> String) {
        let text = render(self.err_style.colour);
        if !text.trim().is_empty() {
            self.talk(text.trim_end());
        }
    }

    /// Whether somebody looks at stderr.
    pub fn is_watched(&self) -> bool {
        self.err_style.terminal
    }

    /// A warning.
    pub fn warn(&mut self, text: &str) {
        let label = self.err_style.paint(Tone::Warning, "warning:");
        self.talk(&format!("{label} {}", clean_lines(text)));
    }

    /// An error with its causes and hints.
    pub fn error(&mut self, error: &Error) {
        if let Some(refused) = &error.refused {
            let text = refused.rendered(self.err_style.colour);
            self.talk(text.trim_end());
        }
        let mut text =
            format!("{} {}", self.err_style.paint(Tone::Bad, "error:"), clean_lines(&error.message));
        for cause in &error.causes {
            let _ = write!(text, "\n  {}", clean_lines(cause));
        }
        for hint in &error.hints {
            let label = self.err_style.paint(Tone::Strong, "hint:");
            let _ = write!(text, "\n{label} {}", clean_lines(hint));
        }
        self.talk(&text);
    }

    /// A line on the terminal that the next one replaces; nothing where nobody looks.
    pub fn progress(&mut self, text: &str) {
        if self.quiet || !self.err_style.terminal {
            return;
        }
        let width = usize::from(self.err_style.width.unwrap_or(80)).saturating_sub(1);
        let _ = write!(self.err, "\r\x1b[2K{}", shorten(text, width));
        let _ = self.err.flush();
        self.progress = true;
    }

    /// Takes the progress line away.
    pub fn clear_progress(&mut self) {
        if std::mem::take(&mut self.progress) {
            let _ = write!(self.err, "\r\x1b[2K");
            let _ = self.err.flush();
        }
    }

    /// Prints what `result` says, if anything, and gives the exit code.
    pub fn finish(&mut self, result: Result<Exit, Error>) -> Exit {
        self.clear_progress();
        self.flush();
        let exit = result.unwrap_or_else(|error| {
            self.error(&error);
            error.kind
        });
        if let Fate::Failed(error) = std::mem::replace(&mut self.fate, Fate::Gone) {
            self.error(&Error::io("cannot write to standard output", &error));
            return if exit == Exit::Ok { Exit::Failed } else { exit };
        }
        exit
    }

    fn talk(&mut self, text: &str) {
        self.clear_progress();
        // What was printed before must stand before it where both go to one place.
        self.flush();
        let _ = writeln!(self.err, "{text}");
    }

    fn settle(&mut self, result: std::io::Result<()>) {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.fate = Fate::Gone,
            Err(error) => self.fate = Fate::Failed(error),
            Ok(()) => {}
        }
    }
}

impl JsonList {
    /// The next entry.
    pub fn entry(&mut self, ui: &mut Ui, entry: &impl Serialize) {
        if self.entries > 0 {
            ui.write(",");
        }
        if ui.out_style.terminal {
            ui.write("\n");
        }
        self.entries += 1;
        match serde_json::to_string(entry) {
            Ok(text) => ui.write(&harmless(&text)),
            Err(error) => ui.settle(Err(error.into())),
        }
    }

    /// The end, with the cursors.
    pub fn end(self, ui: &mut Ui, extent: &Extent) {
        let end = serde_json::json!({
            "first_id": extent.first_id, "last_id": extent.last_id, "has_more": extent.has_more,
        });
        let line_end = if ui.out_style.terminal && self.entries > 0 { "\n" } else { "" };
        ui.line(&format!("{line_end}],{}", harmless(end.to_string().trim_start_matches('{'))));
    }
}

impl Style {
    fn of(terminal: bool, size: Option<(terminal_size::Width, terminal_size::Height)>) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let colour =
            terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let size = size.filter(|_| terminal);
        Self {
            colour,
            terminal,
            width: columns.filter(|columns| *columns > 0).or(size.map(|(width, _)| width.0)),
            height: size.map(|(_, height)| height.0),
        }
    }

    /// `text` in the colour of `tone`, if colour is wanted.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Cell {
    /// A cell of this tone.
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
    /// A table with these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; one cell a column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
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
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if style.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let titles = shown.iter().map(|&(column, width)| {
            let title = shorten(self.columns[column].title, width);
            comfy_table::Cell::new(title).add_attribute(Attribute::Bold)
        });
        table.set_header(titles.collect::<Vec<_>>());
        for row in &self.rows {
            let cells = shown.iter().map(|&(column, width)| painted(&row[column], width));
            table.add_row(cells.collect::<Vec<_>>());
        }
        for (place, &(column, _)) in shown.iter().enumerate() {
            let Some(target) = table.column_mut(place) else { continue };
            target.set_padding((0, if place + 1 == shown.len() { 0 } else { GAP }));
            if self.columns[column].kind == ColumnKind::Number {
                target.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
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
            let taken = |shown: &[(usize, usize)]| {
                shown.iter().map(|(_, width)| width + usize::from(GAP)).sum::<usize>() - usize::from(GAP)
            };
            if shown.is_empty() {
                return shown;
            }
            // The widest text gives way, one column at a time, so that several become equally short.
            let is_text = |column: usize| self.columns[column].kind == ColumnKind::Text;
            while taken(&shown) > room {
                let widest = shown.iter_mut().filter(|(column, width)| is_text(*column) && *width > LEAST);
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
    /// A column that is never shortened: ids, and words that programs look for.
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

/// `text` without what would move a terminal's cursor or turn its writing round.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_harmful(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// The same, but lines stay lines, each below the one before.
pub fn clean_lines(text: &str) -> String {
    text.trim_end().split('\n').map(clean).collect::<Vec<_>>().join("\n")
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

fn painted(cell: &Cell, width: usize) -> comfy_table::Cell {
    let shown = comfy_table::Cell::new(shorten(&clean(&cell.text), width));
    match cell.tone {
        Tone::Plain => shown,
        Tone::Good => shown.fg(Color::DarkGreen),
        Tone::Warning => shown.fg(Color::DarkYellow),
        Tone::Bad => shown.fg(Color::DarkRed).add_attribute(Attribute::Bold),
        Tone::Faint => shown.add_attribute(Attribute::Dim),
        Tone::Strong => shown.add_attribute(Attribute::Bold),
    }
}

/// JSON's own escapes leave C1 and direction marks as they are; inside its strings they may be escaped too.
fn harmless(json: &str) -> Cow<'_, str> {
    let harmful = |letter: char| letter != '\n' && is_harmful(letter);
    if !json.chars().any(harmful) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 8);
    for letter in json.chars() {
        if harmful(letter) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Between two columns.
const GAP: u16 = 2;

/// Text that is shorter than this says nothing.
const LEAST: usize = 8;

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

    #[test]
    fn what_is_harmful_is_shown_not_done() {
        assert_eq!(clean("a\x1b]0;x\x07\u{9b}\u{202e}b"), "a\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}b");
        assert_eq!(clean_lines("one\ntwo\r"), "one\ntwo");
        assert_eq!(clean("grüße 世界"), "grüße 世界");
    }

    proptest! {
        #[test]
        fn json_means_the_same_after_it_was_made_harmless(text in any::<String>()) {
            let json = Value::String(text).to_string();
            let safe = harmless(&json);
            prop_assert!(!safe.chars().any(is_harmful));
            prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), serde_json::from_str::<Value>(&json).unwrap());
        }

        #[test]
        fn what_is_shortened_fits(text in "\\PC{0,40}", width in 1_usize..40) {
                    prop_assert!(shorten(&text, width).width() <= width);
        }
    }
}
