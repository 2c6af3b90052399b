//! `batchd man`: the manual page.

use super::error::Error;
use super::exit::Exit;
use super::{Context, definition};
use clap::Args;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::Write;

/// Print the manual page
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  batchd man | man -l -")]
pub struct Arguments {}

pub fn run(_: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let page = page().map_err(|error| Error::io("cannot write the page", &error))?;
    context.ui.write(&String::from_utf8_lossy(&page));
    Ok(Exit::Ok)
}

/// The page: the program, then each command with what it takes.
fn page() -> std::io::Result<Vec<u8>> {
    let mut program = definition();
    program.build();
    let mut page = Vec::new();
    let man = Man::new(program.clone()).manual("batchd");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    heading(&mut page, "COMMANDS")?;
    for command in program.get_subcommands() {
        section(&mut page, command)?;
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            section(&mut page, below)?;
        }
    }
    heading(&mut page, "EXIT STATUS")?;
    terms(&mut page, EXIT_STATUS)?;
    heading(&mut page, "ENVIRONMENT")?;
    terms(&mut page, ENVIRONMENT)?;
    heading(&mut page, "FILES")?;
    terms(&mut page, FILES)?;
    Ok(page)
}

/// One command as a subsection.
fn section(page: &mut Vec<u8>, command: &clap::Command) -> std::io::Result<()> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    // The global options stand once, with the program.
    let own = command.clone().mut_args(|argument| {
        let hidden = argument.is_global_set() || argument.get_id() == "help";
        argument.hide(hidden)
    });
    let man = Man::new(own.clone());
    let mut part = Vec::new();
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    if own.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut part)?;
    }
    let mut roff = Roff::default();
    roff.control("SS", [name.as_str()]);
    roff.to_writer(page)?;
    // Inside a command's section its parts need no headings of their own.
    for line in String::from_utf8_lossy(&part).lines() {
        let preamble = line.starts_with(".ie ") || line.starts_with(".el ");
        if line.starts_with(".SH") {
            writeln!(page, ".PP")?;
        } else if !preamble {
            writeln!(page, "{line}")?;
        }
    }
    if let Some(more) = own.get_after_help() {
        let mut roff = Roff::default();
        roff.control("PP", []);
        roff.control("nf", []);
        for line in more.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(page)?;
    }
    Ok(())
}

fn heading(page: &mut Vec<u8>, title: &str) -> std::io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]);
    roff.to_writer(page)
}

fn terms(page: &mut Vec<u8>, terms: &[(&str, &str)]) -> std::io::Result<()> {
    let mut roff = Roff::default();
    for (term, meaning) in terms {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
    roff.to_writer(page)
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "it failed"),
    ("2", "the command line is wrong, or an id is ambiguous"),
    ("3", "wait: a batch failed, or none of its requests succeeded"),
    ("4", "wait: a batch expired"),
    ("5", "wait: a batch was cancelled"),
    ("65", "the state is damaged"),
    ("66", "no such batch"),
    ("69", "the daemon is needed and cannot be reached"),
    ("70", "the state is newer than this program, or there is a bug in it"),
    ("73", "the state cannot be created or written"),
    ("75", "another daemon holds the state"),
    ("77", "credentials are refused, or this user may not open the socket"),
    ("78", "the configuration is wrong"),
    ("124", "wait timed out"),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("BATCHD_CONFIG", "the configuration file, unless --config names one"),
    ("BATCHD_HOST", "where the daemon is, unless --host says so"),
    ("BATCHD_TOKEN", "the token that is sent over HTTP"),
    ("NO_COLOR", "if set, no colours"),
    ("COLUMNS", "how wide tables may be"),
    ("RUST_LOG", "what is logged, in place of -q and -v"),
];

const FILES: &[(&str, &str)] = &[
    ("~/.config/batchd/config.toml, /etc/batchd/config.toml", "the configuration; none is needed"),
    ("$XDG_RUNTIME_DIR/batchd/batchd.sock, /run/batchd/batchd.sock", "the daemon's socket"),
    ("~/.local/state/batchd, /var/lib/batchd", "the state"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_its_arguments() {
        let page = String::from_utf8(page().unwrap()).unwrap().replace("\\-", "-");
        let mut program = definition();
        program.build();
        for command in program.get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!(".SS \"batchd {name}\"")), "{name}");
            for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
                if let Some(long) = argument.get_long().filter(|long| *long != "help") {
                    assert!(page.contains(&format!("--{long}")), "{name} --{long}");
                }
            }
        }
        assert!(page.contains("batchd deliveries retry"));
        assert_eq!(page.matches(".SH OPTIONS").count(), 1);
    }
}
