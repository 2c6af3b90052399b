//! The only printer: data to stdout, everything else to stderr, colour only on a terminal.

use super::error::Error;
use super::exit::Exit;
use super::keyboard::hidden_line;
use super::source::Extent;
use super::style::{Style, Tone};
use super::table::{Table, shorten};
use crate::domain::printable::{clean, clean_json, clean_lines};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufWriter, IsTerminal, Stderr, Stdout, Write};

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

impl Ui {
    /// A printer for this process's streams; `quiet`: errors and data only.
    pub fn new(quiet: bool) -> Self {
        let out = std::io::stdout();
        let err = std::io::stderr();
        let out_style = Style::of(out.is_terminal(), terminal_size::terminal_size_of(&out));
        let err_style = Style::of(err.is_terminal(), terminal_size::terminal_size_of(&err));
        Self { out: BufWriter::new(out), err, fate: Fate::Open, out_style, err_style, quiet, progress: false }
    }

    pub fn style(&self) -> Style {
        self.out_style
    }

    /// Measures stdout again: a terminal's size changes while something is watched on it.
    pub fn measure(&mut self) -> Style {
        let out = std::io::stdout();
        self.out_style = Style::of(out.is_terminal(), terminal_size::terminal_size_of(&out));
        self.out_style
    }

    /// Whether stdout still has a reader; without one, endless output stops.
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

    /// A piece of a stream of JSON lines from outside: as it is to a program; on a terminal, which would obey what is in
    /// it, escaped. `rest` holds what belongs to the next piece, and is empty before the first; `None` ends the stream.
    pub fn json_lines(&mut self, piece: Option<&[u8]>, rest: &mut Vec<u8>) {
        if !self.out_style.terminal {
            self.bytes(piece.unwrap_or_default());
            return;
        }
        rest.extend_from_slice(piece.unwrap_or_default());
        // A character may be cut in two.
        let whole = match std::str::from_utf8(rest) {
            Err(error) if error.error_len().is_none() && piece.is_some() => error.valid_up_to(),
            _ => rest.len(),
        };
        let text = String::from_utf8_lossy(&rest[..whole]).into_owned();
        rest.drain(..whole);
        self.write(&clean_json(&text));
    }

    /// A bar for bytes that go or come, `length` of them if that is known; hidden unless stderr is a terminal. It takes
    /// the place of the progress line.
    pub fn bar(&mut self, length: Option<u64>) -> ProgressBar {
        self.clear_progress();
        let template = match length {
            Some(_) => "{bar:30} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
            None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
        };
        let watched = !self.quiet && self.err_style.terminal;
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(length, target).with_style(style)
    }

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
            Ok(text) => self.line(&clean_json(&text)),
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
        self.line(&clean_json(&document.to_string()));
        self.flush();
    }

    /// For people only; hidden with `--quiet`.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.talk(&clean_lines(text));
        }
    }

    /// The same, behind a sign in a colour of its own.
    pub fn sign(&mut self, tone: Tone, sign: &str, text: &str) {
        if !self.quiet {
            let sign = self.err_style.paint(tone, sign);
            self.talk(&format!("{sign} {}", clean_lines(text)));
        }
    }

    /// For people, and rendered with colour or without, such as the problems of a configuration.
    pub fn exhibit(&mut self, render: impl FnOnce(bool) -> String) {
        let text = render(self.err_style.colour);
        if !text.trim().is_empty() {
            self.talk(text.trim_end());
        }
    }

    /// Whether stderr is a terminal.
    pub fn is_watched(&self) -> bool {
        self.err_style.terminal
    }

    /// Asks a person; where stdin is no terminal nobody is asked, and it is as if they had agreed.
    pub fn confirm(&mut self, question: &str) -> Result<bool, Error> {
        if !std::io::stdin().is_terminal() {
            return Ok(true);
        }
        let agreed = is_yes(&self.ask(&format!("{question} [y/N]"))?);
        if !agreed {
            self.talk("nothing was done");
        }
        Ok(agreed)
    }

    /// Asks a person what is most likely wanted: an empty line agrees.
    pub fn agrees(&mut self, question: &str) -> Result<bool, Error> {
        let answer = self.ask(&format!("{question} [Y/n]"))?;
        Ok(answer.is_empty() || is_yes(&answer))
    }

    /// Asks for a line of text on the terminal; empty at the end of the input.
    pub fn ask(&mut self, question: &str) -> Result<String, Error> {
        self.prompt(question);
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|error| Error::io("standard input", &error))?;
        if !line.ends_with('\n') {
            let _ = writeln!(self.err);
        }
        Ok(line.trim().to_owned())
    }

    /// The same for what nobody may see over somebody's shoulder.
    pub fn ask_secret(&mut self, question: &str) -> Result<String, Error> {
        if !std::io::stdin().is_terminal() {
            return self.ask(question);
        }
        self.prompt(question);
        let answer = hidden_line()?;
        let _ = writeln!(self.err);
        match answer {
            Some(line) => Ok(line.trim().to_owned()),
            None => Err(Error::new(Exit::Interrupted, "interrupted; nothing was done")),
        }
    }

    fn prompt(&mut self, question: &str) {
        self.clear_progress();
        self.flush();
        let _ = write!(self.err, "{} ", clean(question));
        let _ = self.err.flush();
    }

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

    /// A line on the terminal that the next one replaces; nothing elsewhere.
    pub fn progress(&mut self, text: &str) {
        if self.quiet || !self.err_style.terminal {
            return;
        }
        let width = usize::from(self.err_style.width.unwrap_or(80)).saturating_sub(1);
        let _ = write!(self.err, "\r\x1b[2K{}", shorten(&clean(text), width));
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

    /// Prints the last thing that is said.
    pub fn finish_with(&mut self, text: &str) {
        self.write(text);
        self.flush();
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
    pub fn entry(&mut self, ui: &mut Ui, entry: &impl Serialize) {
        if self.entries > 0 {
            ui.write(",");
        }
        if ui.out_style.terminal {
            ui.write("\n");
        }
        self.entries += 1;
        match serde_json::to_string(entry) {
            Ok(text) => ui.write(&clean_json(&text)),
            Err(error) => ui.settle(Err(error.into())),
        }
    }

    /// The end, with the cursors.
    pub fn end(self, ui: &mut Ui, extent: &Extent) {
        let end = serde_json::json!({
            "first_id": extent.first_id, "last_id": extent.last_id, "has_more": extent.has_more,
        });
        let line_end = if ui.out_style.terminal && self.entries > 0 { "\n" } else { "" };
        ui.line(&format!("{line_end}],{}", clean_json(end.to_string().trim_start_matches('{'))));
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a progress line would stand before the bar, and the two are wider than the terminal.
    #[test]
    fn a_bar_takes_the_place_of_the_progress_line() {
        let mut ui = Ui::new(false);
        ui.progress = true;
        ui.bar(Some(10)).finish_and_clear();
        assert!(!ui.progress);
    }
}
