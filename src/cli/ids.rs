//! The ids of a command line; `-` stands for those of standard input, one a line.

use super::error::Error;
use super::ui::Ui;
use std::io::{BufRead, IsTerminal as _};

/// What `-` is called.
pub const STDIN: &str = "-";

/// Reads an id: anything that is not empty and holds no spaces at its ends.
pub fn parse_id(text: &str) -> Result<String, String> {
    let id = text.trim();
    if id.is_empty() { Err("an id cannot be empty".to_owned()) } else { Ok(id.to_owned()) }
}

/// The ids of the command line; where one is `-`, those of standard input stand in its place.
pub fn every(given: &[String], ui: &mut Ui) -> Result<Vec<String>, Error> {
    let stdin = std::io::stdin();
    if given.iter().any(|id| id == STDIN) && stdin.is_terminal() {
        ui.note("waiting for ids on standard input, one a line; Ctrl-D ends them");
    }
    let ids = read(given, || stdin.lock())?;
    if ids.is_empty() && !given.is_empty() {
        ui.note("no ids on standard input; nothing to do");
    }
    Ok(ids)
}

/// The one id of a command that takes one; `-` is the only one on standard input.
pub fn one(given: &str, ui: &mut Ui) -> Result<String, Error> {
    if given != STDIN {
        return Ok(given.to_owned());
    }
    let ids = every(&[given.to_owned()], ui)?;
    <[String; 1]>::try_from(ids)
        .map(|[id]| id)
        .map_err(|ids| Error::usage(format!("standard input holds {} ids, and one is wanted", ids.len())))
}

fn read<R: BufRead>(given: &[String], stdin: impl FnOnce() -> R) -> Result<Vec<String>, Error> {
    let mut stdin = Some(stdin);
    let mut ids = Vec::with_capacity(given.len());
    for id in given {
        if id != STDIN {
            ids.push(id.clone());
            continue;
        }
        let Some(stdin) = stdin.take() else {
            return Err(Error::usage("`-` is standard input and can be given only once"));
        };
        for (number, line) in stdin().lines().enumerate() {
            let line =
                line.map_err(|error| Error::io(format!("standard input, line {}", number + 1), &error))?;
            let id = line.trim_start_matches('\u{feff}').trim();
            if !id.is_empty() && !id.starts_with('#') {
                ids.push(id.to_owned());
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::*;

    #[test]
    fn ids_come_from_the_command_line_and_from_standard_input() {
        let given = ["a".to_owned(), "-".to_owned(), "z".to_owned()];
        let input: &[u8] = b"\xef\xbb\xbfopenai:b\r\n\n  # a comment\n  c  \nd";
        assert_eq!(read(&given, || input).unwrap(), ["a", "openai:b", "c", "d", "z"]);
        let twice = ["-".to_owned(), "-".to_owned()];
        assert_eq!(read(&twice, || input).unwrap_err().kind, Exit::Usage);
        let garbage: &[u8] = b"a\n\xff\n";
        assert!(read(&given, || garbage).unwrap_err().message.contains("line 2"));
    }
}
