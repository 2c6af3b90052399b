//! Floor 7: the command line, one file a command; the only floor that prints.

pub mod atomic_file;
pub mod connect;
pub mod error;
pub mod exit;
pub mod follow;
pub mod ids;
pub mod keyboard;
pub mod offline;
pub mod quantity;
pub mod source;
pub mod style;
pub mod table;
pub mod ui;
pub mod view;

pub mod backup;
pub mod cancel;
pub mod complete;
pub mod completions;
pub mod config;
pub mod deliveries;
pub mod demo;
pub mod discover;
pub mod doctor;
pub mod events;
pub mod get;
pub mod help;
pub mod init;
pub mod init_answers;
pub mod list;
pub mod list_columns;
pub mod man;
pub mod poll;
pub mod prices;
pub mod providers;
pub mod reload;
pub mod restore;
pub mod resubmit;
mod results;
pub mod run;
pub mod sandbox;
pub mod show;
pub mod state;
mod state_server;
pub mod status;
pub mod submit;
pub mod track;
pub mod untrack;
pub mod version;
pub mod wait;
pub mod watch;
pub mod webhooks;
pub mod wrap;

use crate::clock::Clock;
use crate::control::address::Address;
use crate::control::client::Client;
use crate::logging;
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
    /// Read the state directory itself, without a daemon (list, show, events, deliveries, status, backup)
    #[arg(long, global = true, conflicts_with = "host")]
    pub offline: bool,
    /// How log records are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto", value_parser = parse_format())]
    pub log_format: logging::Format,
    /// Print only data, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Declares the commands from a table: by what they are for, the most used first.
///
/// `inside` runs in the program itself, `remote` is a future that is run on a small runtime.
macro_rules! commands {
    ($($title:literal: $($module:ident $variant:ident $place:ident),+;)+) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($($variant($module::Arguments),)+)+
        }

        /// The commands by what they are for.
        const GROUPS: &[(&str, &[&str])] = &[$(($title, &[$(stringify!($module)),+])),+];

        fn dispatch(command: Command, context: &mut Context) -> Result<Exit, Error> {
            match command {
                $($(Command::$variant(arguments) => commands!($place $module arguments context),)+)+
            }
        }
    };
    (inside $module:ident $arguments:ident $context:ident) => { $module::run(&$arguments, $context) };
    (remote $module:ident $arguments:ident $context:ident) => { on_runtime($module::run($arguments, $context)) };
}

commands! {
    "Watch batches":
        track Track remote,
        wait Wait remote,
        list List remote,
        show Show remote,
        events Events remote,
        get Get remote,
        poll Poll remote,
        untrack Untrack remote,
        discover Discover remote;
    "Send, fetch, cancel":
        submit Submit remote,
        resubmit Resubmit remote,
        results Results remote,
        cancel Cancel remote;
    "Notify":
        webhooks Webhooks remote,
        deliveries Deliveries remote;
    "Run the daemon":
        init Init remote,
        run Run inside,
        status Status remote,
        providers Providers remote,
        config Config remote,
        prices Prices inside,
        reload Reload remote,
        doctor Doctor remote,
        backup Backup remote,
        restore Restore inside,
        state State remote;
    "Try it out":
        demo Demo inside,
        sandbox Sandbox inside;
    "For the shell":
        completions Completions inside,
        man Man inside,
        help Help inside,
        version Version inside;
}

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    pub globals: Globals,
    pub ui: Ui,
    pub clock: Clock,
    /// The reader's time zone.
    pub zone: TimeZone,
}

/// The program: reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    if let Some(answer) = complete::answer(definition) {
        Ui::new(true).finish_with(&answer);
        return Exit::Ok.into();
    }
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
            return Ok(Source::Offline(Box::new(
                Box::pin(offline::Offline::open(&view, self.globals.config.as_deref())).await?,
            )));
        }
        Ok(Source::Remote(self.client().await?))
    }
}

/// Does `work` for each of several ids (`-`: those of standard input); every one stands alone, and the first failure's code is the whole's.
///
/// A daemon that is gone is gone for all of them: that ends it at once.
pub async fn each(
    context: &mut Context,
    ids: &[String],
    mut work: impl AsyncFnMut(&mut Context, &str) -> Result<(), Error>,
) -> Result<Exit, Error> {
    let mut exit = Exit::Ok;
    for id in &ids::every(ids, &mut context.ui)? {
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
    Ok(exit)
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
    let result =
        check_offline(&context.globals, &cli.command).and_then(|()| dispatch(cli.command, &mut context));
    context.ui.finish(result)
}

/// Refuses `--offline` where it means nothing.
fn check_offline(globals: &Globals, command: &Command) -> Result<(), Error> {
    let reads_state = matches!(
        command,
        Command::List(_)
            | Command::Show(_)
            | Command::Events(_)
            | Command::Deliveries(_)
            | Command::Status(_)
            | Command::Backup(_)
    );
    if globals.offline && !reads_state {
        return Err(Error::usage("--offline is only for list, show, events, deliveries, status and backup"));
    }
    Ok(())
}

/// What is logged: a daemon logs what it does, a client only trouble.
fn level(globals: &Globals, command: &Command) -> LevelFilter {
    let daemon = matches!(command, Command::Run(_) | Command::Sandbox(_));
    // What goes wrong in the demo belongs to it, and it shows that itself.
    let demo = matches!(command, Command::Demo(_));
    match (daemon, globals.quiet, globals.verbose) {
        (false, true, _) => LevelFilter::ERROR,
        (false, false, 0) if demo => LevelFilter::OFF,
        (true, true, _) | (false, false, 0) => LevelFilter::WARN,
        (true, false, 0) | (false, false, 1) => LevelFilter::INFO,
        (true, false, 1) | (false, false, 2) => LevelFilter::DEBUG,
        (_, false, _) => LevelFilter::TRACE,
    }
}

/// Reads a format's word; completions know the words.
fn parse_format() -> impl clap::builder::TypedValueParser<Value = logging::Format> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(["auto", "text", "json"]).map(|word| match word.as_str() {
        "text" => logging::Format::Text,
        "json" => logging::Format::Json,
        _ => logging::Format::Auto,
    })
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
        "Ids may be written PROVIDER:ID. Data goes to stdout, messages to stderr.\n",
        "Commands that read take --json. See also `batchd COMMAND -h` and `batchd man`.",
    ));
    text
}

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
