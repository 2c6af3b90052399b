//! Floor 7: the command line, one file a command; the only floor that prints.

pub mod atomic_file;
pub mod backup;
pub mod cancel;
pub mod completions;
pub mod config;
pub mod connect;
pub mod deliveries;
pub mod demo;
pub mod discover;
pub mod error;
pub mod events;
pub mod exit;
pub mod follow;
pub mod get;
pub mod list;
pub mod logging;
pub mod man;
pub mod offline;
pub mod poll;
pub mod providers;
pub mod reload;
pub mod results;
pub mod run;
pub mod sandbox;
pub mod show;
pub mod source;
pub mod status;
pub mod submit;
pub mod track;
pub mod ui;
pub mod untrack;
pub mod view;
pub mod wait;
pub mod webhooks;

use crate::clock::Clock;
use crate::control::client::{Address, Client};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use error::Error;
use exit::Exit;
use jiff::tz::TimeZone;
use source::Source;
use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;
use ui::Ui;

/// batchd, as called.
#[derive(Debug, Parser)]
#[command(name = "batchd", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Configuration file [default: $BATCHD_CONFIG, ~/.config/batchd/config.toml, /etc/batchd/config.toml]"
    )]
    pub config: Option<PathBuf>,
    /// Where the daemon is.
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        help = "Where the daemon is: unix:///PATH or http://HOST:PORT [default: $BATCHD_HOST, then the usual sockets]"
    )]
    pub host: Option<Address>,
    /// Read the state directory itself, without a daemon (list, show, events, deliveries, backup)
    #[arg(long, global = true, conflicts_with = "host")]
    pub offline: bool,
    /// How log records are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto", value_parser = logging::parse_format())]
    pub log_format: logging::Format,
    /// Say less: data, warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Reload(reload::Arguments),
    Track(track::Arguments),
    Untrack(untrack::Arguments),
    Get(get::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Events(events::Arguments),
    Wait(wait::Arguments),
    Poll(poll::Arguments),
    Discover(discover::Arguments),
    Submit(submit::Arguments),
    Cancel(cancel::Arguments),
    Results(results::Arguments),
    Status(status::Arguments),
    Webhooks(webhooks::Arguments),
    Deliveries(deliveries::Arguments),
    Providers(providers::Arguments),
    Config(config::Arguments),
    Backup(backup::Arguments),
    Sandbox(sandbox::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// The global options.
    pub globals: Globals,
    /// The printer.
    pub ui: Ui,
    /// The time.
    pub clock: Clock,
    /// The reader's time zone.
    pub zone: TimeZone,
}

/// The program: reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    // A panic has been told by its hook; its code is that of a defect.
    std::panic::catch_unwind(run_command_line).unwrap_or(Exit::Internal).into()
}

/// The whole command line's definition: for parsing, completions and the manual.
pub fn definition() -> clap::Command {
    let command = Cli::command();
    let overview = overview(&command);
    command.help_template(overview)
}

impl Context {
    /// A way to the daemon.
    pub async fn client(&self) -> Result<Client, Error> {
        connect::client(self.globals.host.as_ref(), self.globals.config.as_deref()).await
    }

    /// What a reading command reads from: the daemon, or the state directory.
    pub async fn source(&self) -> Result<Source, Error> {
        if self.globals.offline {
            let view = connect::client_view(self.globals.config.as_deref())?;
            return Ok(Source::Offline(offline::Offline::open(&view)?));
        }
        Ok(Source::Remote(self.client().await?))
    }
}

/// Does `work` for each of several ids; every one stands alone, and the first failure's code is the whole's.
///
/// A daemon that is gone is gone for all of them: that ends it at once.
pub async fn each(
    context: &mut Context,
    ids: &[String],
    mut work: impl AsyncFnMut(&mut Context, &str) -> Result<(), Error>,
) -> Exit {
    let mut exit = Exit::Ok;
    for id in ids {
        if let Err(error) = work(context, id).await {
            let gone = error.kind == Exit::Unreachable;
            let error = if gone { error } else { error.about(id) };
            context.ui.error(&error);
            if exit == Exit::Ok {
                exit = error.kind;
            }
            if gone {
                break;
            }
        }
    }
    exit
}

/// Ends when somebody interrupts: Ctrl-C, a closed terminal, or `kill`.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Runs a client command's future on a small runtime of its own.
fn on_runtime(work: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start", &error))?;
    let result = runtime.block_on(work);
    // A thread that still waits for standard input must not keep the program.
    runtime.shutdown_background();
    result
}

fn run_command_line() -> Exit {
    let cli = match definition().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help asked for is data; if nobody reads it, nobody misses it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    let globals = cli.globals;
    let _log = logging::init(globals.log_format, level(&globals, &cli.command));
    let mut context =
        Context { ui: Ui::new(globals.quiet), clock: Clock::system(), zone: TimeZone::system(), globals };
    let result = dispatch(cli.command, &mut context);
    context.ui.finish(result)
}

fn dispatch(command: Command, context: &mut Context) -> Result<Exit, Error> {
    let reads_state = matches!(
        command,
        Command::List(_)
            | Command::Show(_)
            | Command::Events(_)
            | Command::Deliveries(_)
            | Command::Backup(_)
    );
    if context.globals.offline && !reads_state {
        return Err(Error::usage("--offline reads only: list, show, events, deliveries, backup"));
    }
    match command {
        Command::Run(arguments) => run::run(&arguments, context),
        Command::Sandbox(arguments) => sandbox::run(&arguments, context),
        Command::Demo(arguments) => demo::run(&arguments, context),
        Command::Config(arguments) => config::run(arguments, context),
        Command::Completions(arguments) => Ok(completions::run(&arguments, context)),
        Command::Man(arguments) => man::run(&arguments, context),
        Command::Reload(arguments) => on_runtime(reload::run(arguments, context)),
        Command::Track(arguments) => on_runtime(track::run(arguments, context)),
        Command::Untrack(arguments) => on_runtime(untrack::run(arguments, context)),
        Command::Get(arguments) => on_runtime(get::run(arguments, context)),
        Command::List(arguments) => on_runtime(list::run(arguments, context)),
        Command::Show(arguments) => on_runtime(show::run(arguments, context)),
        Command::Events(arguments) => on_runtime(events::run(arguments, context)),
        Command::Wait(arguments) => on_runtime(wait::run(arguments, context)),
        Command::Poll(arguments) => on_runtime(poll::run(arguments, context)),
        Command::Discover(arguments) => on_runtime(discover::run(arguments, context)),
        Command::Submit(arguments) => on_runtime(submit::run(arguments, context)),
        Command::Cancel(arguments) => on_runtime(cancel::run(arguments, context)),
        Command::Results(arguments) => on_runtime(results::run(arguments, context)),
        Command::Status(arguments) => on_runtime(status::run(arguments, context)),
        Command::Webhooks(arguments) => on_runtime(webhooks::run(arguments, context)),
        Command::Deliveries(arguments) => on_runtime(deliveries::run(arguments, context)),
        Command::Providers(arguments) => on_runtime(providers::run(arguments, context)),
        Command::Backup(arguments) => on_runtime(backup::run(arguments, context)),
    }
}

/// What the log tells: a daemon its doings, a client only trouble.
fn level(globals: &Globals, command: &Command) -> LevelFilter {
    let daemon = matches!(command, Command::Run(_) | Command::Sandbox(_));
    // The demo's first webhook is refused on purpose; it shows that itself.
    let demo = matches!(command, Command::Demo(_));
    if matches!(command, Command::Demo(_)) && globals.verbose == 0 {
        // It tells its own story, with a failure that belongs to it.
        return LevelFilter::ERROR;
    }
    match (daemon, globals.quiet, globals.verbose) {
        (false, true, _) => LevelFilter::ERROR,
        (false, false, 0) if demo => LevelFilter::ERROR,
        (true, false, 0) | (false, false, 1) => LevelFilter::INFO,
        (true, true, _) | (false, false, 0) => LevelFilter::WARN,
        (true, false, 1) | (false, false, 2) => LevelFilter::DEBUG,
        (_, false, _) => LevelFilter::TRACE,
    }
}

/// The help of the whole program: its commands by what they are for.
fn overview(command: &clap::Command) -> String {
    let width = command.get_subcommands().map(|each| each.get_name().len()).max().unwrap_or(0);
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        let _ = write!(text, "\n{header}{title}:{header:#}\n");
        for name in *names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<width$}{literal:#}  {about}");
        }
    }
    let _ = write!(text, "\n{header}Options:{header:#}\n{{options}}\n\n");
    text.push_str(concat!(
        "An id may be written PROVIDER:ID. Data goes to stdout, talk to stderr. Commands\n",
        "that read take --json. `batchd COMMAND -h` tells more, `batchd man` everything.",
    ));
    text
}

/// The commands by what they are for, the most used first.
const GROUPS: &[(&str, &[&str])] = &[
    ("Watch batches", &["track", "wait", "list", "show", "events", "get", "poll", "untrack", "discover"]),
    ("Send, fetch, cancel", &["submit", "results", "cancel"]),
    ("Tell others", &["webhooks", "deliveries"]),
    ("Look after the daemon", &["run", "status", "providers", "config", "reload", "backup"]),
    ("Try it out", &["demo", "sandbox"]),
    ("For the shell", &["completions", "man"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_is_in_the_overview_once() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut defined: Vec<String> =
            definition().get_subcommands().map(|each| each.get_name().to_owned()).collect();
        listed.sort_unstable();
        defined.sort_unstable();
        assert_eq!(listed, defined);
    }

    #[test]
    fn every_help_fits_a_small_terminal() {
        let mut definition = definition().color(clap::ColorChoice::Never).term_width(80);
        let mut helps = vec![definition.render_help().to_string()];
        definition.build();
        helps.extend(definition.get_subcommands_mut().map(|each| each.render_long_help().to_string()));
        for line in helps.iter().flat_map(|help| help.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&definition());
    }
}
