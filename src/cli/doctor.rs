//! `batchd doctor`: looks at everything that batchd needs, and says what to do about what is wrong.

use super::Context;
use super::connect::client_view;
use super::error::Error;
use super::exit::Exit;
use super::quantity::size;
use super::status::troubles;
use super::style::Tone;
use super::view::columns;
use super::wrap::hanging;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::api::{CheckAnswer, CheckRequest};
use crate::control::assembly::catalog;
use crate::control::client::Client;
use crate::control::trial::Trial;
use crate::domain::duration::human;
use crate::domain::printable::clean;
use crate::domain::time::since;
use crate::store::server::connect::Connector;
use crate::store::server::examine::examine;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

/// Check keys, sockets, clock, disk and network, and say what to do
#[derive(Debug, Args)]
#[command(after_help = "Lines that begin with ✗ need a person, those with ! are worth knowing.
Exit code 1 if something needs a person.")]
pub struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let env = Env::of_process();
    let mut findings = Findings::default();
    versions(&mut findings);
    let config = configuration(&mut findings, context, &env);
    let daemon = daemon(&mut findings, context, config.as_ref()).await;
    let mut clock = None;
    match (&daemon, config) {
        (Some(client), _) => {
            let checked = client.check_providers(&CheckRequest::default()).await?;
            providers(&mut findings, &checked.data);
        }
        (None, Some(config)) => {
            server(&mut findings, &config, &env, context.clock.now()).await;
            clock = trial(&mut findings, config, &env, context).await;
        }
        (None, None) => {}
    }
    clock_of(&mut findings, clock, context.clock.now());
    disk(&mut findings, context, daemon.is_some());
    if arguments.json {
        context.ui.json(&findings.0);
    } else {
        let style = context.ui.style();
        let width = findings.0.iter().map(|finding| finding.about.width()).max().unwrap_or_default();
        let indent = width + 3;
        for finding in &findings.0 {
            let (tone, mark) = match finding.verdict {
                Verdict::Ok => (Tone::Good, "✓"),
                Verdict::Warning => (Tone::Warning, "!"),
                Verdict::Wrong => (Tone::Bad, "✗"),
            };
            let mut lines = finding.message.lines();
            let first = hanging(&clean(lines.next().unwrap_or_default()), indent, style);
            let about = columns(&[(&finding.about, width), ("", 0)]);
            context.ui.line(&format!("{} {}{first}", style.paint(tone, mark), &about[..about.len() - 1]));
            for line in lines {
                context.ui.line(&format!("{:indent$}{}", "", hanging(&clean(line), indent, style)));
            }
            for hint in &finding.hints {
                let hint = hanging(&format!("→ {}", clean(hint)), indent, style);
                context.ui.line(&format!("{:indent$}{}", "", style.paint(Tone::Faint, &hint)));
            }
        }
    }
    let wrong = findings.0.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    context.ui.note(&match wrong {
        0 => "nothing needs a person".to_owned(),
        1 => "1 problem needs a person".to_owned(),
        several => format!("{several} problems need a person"),
    });
    Ok(if wrong > 0 { Exit::Failed } else { Exit::Ok })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    about: String,
    verdict: Verdict,
    message: String,
    /// What to do about it.
    hints: Vec<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, about: &str, verdict: Verdict, message: impl Into<String>, hints: Vec<String>) {
        self.0.push(Finding { about: about.to_owned(), verdict, message: message.into(), hints });
    }

    fn ok(&mut self, about: &str, message: impl Into<String>) {
        self.add(about, Verdict::Ok, message, Vec::new());
    }

    fn wrong(&mut self, about: &str, message: impl Into<String>, hint: &str) {
        self.add(about, Verdict::Wrong, message, vec![hint.to_owned()]);
    }
}

fn versions(findings: &mut Findings) {
    let program = std::env::current_exe().map(|path| format!(", {}", path.display())).unwrap_or_default();
    findings.ok("version", format!("batchd {}{program}", env!("CARGO_PKG_VERSION")));
}

/// Judges the configuration; secrets only where no daemon has them.
fn configuration(findings: &mut Findings, context: &Context, env: &Env) -> Option<Config> {
    match Config::load(context.globals.config.as_deref(), &catalog(), env) {
        Ok(config) => {
            let place = config.file.as_ref().map_or_else(
                || "no file; keys come from the environment".to_owned(),
                |file| file.display().to_string(),
            );
            findings.ok("configuration", place);
            // Where there is no provider, the finding below says what the warning does, and is worse.
            let warnings = config
                .warnings
                .iter()
                .filter(|warning| !config.providers.is_empty() || !warning.contains(NO_PROVIDER));
            for warning in warnings {
                findings.add("configuration", Verdict::Warning, warning.clone(), Vec::new());
            }
            if config.providers.is_empty() {
                let hint = "`batchd init` writes a configuration; or set a key such as OPENAI_API_KEY";
                findings.wrong("configuration", NO_PROVIDER, hint);
            }
            Some(config)
        }
        Err(refused) => {
            let hint = if refused.is_of_a_file() {
                "`batchd config check` shows each place"
            } else {
                "name one that is there with --config or BATCHD_CONFIG; `batchd init` writes one"
            };
            findings.wrong("configuration", refused.error_lines().join("\n"), hint);
            None
        }
    }
}

/// Finds the daemon and takes over what it says of itself.
async fn daemon(findings: &mut Findings, context: &Context, here: Option<&Config>) -> Option<Client> {
    let asked = async {
        let client = context.client().await?;
        let report = client.status().await?;
        Ok::<_, Error>((client, report))
    };
    let (client, report) = match asked.await {
        Ok(answered) => answered,
        Err(error) => {
            let message = std::iter::once(error.message).chain(error.causes).collect::<Vec<_>>().join("\n");
            findings.add("daemon", Verdict::Wrong, message, error.hints);
            return None;
        }
    };
    let up = report.uptime_seconds.map(|seconds| format!(", up {}", human(Duration::from_secs(seconds))));
    let at = client.address();
    findings.ok("daemon", format!("batchd {}{} at {at}", report.version, up.unwrap_or_default()));
    if let Some((its, here)) = another_file(here, report.config_file.as_deref()) {
        findings.add(
            "daemon",
            Verdict::Wrong,
            format!("it runs with {its}, not with {here}: what follows is about the former"),
            vec![format!(
                "`batchd --config {here} run` starts one with this file; --host names another daemon"
            )],
        );
    }
    if report.version != env!("CARGO_PKG_VERSION") {
        findings.add(
            "version",
            Verdict::Warning,
            format!("the daemon is batchd {}, this is {}", report.version, env!("CARGO_PKG_VERSION")),
            vec!["restart it: `systemctl restart batchd`".to_owned()],
        );
    }
    for trouble in troubles(&report, context.clock.now()) {
        let verdict = if trouble.needs_person { Verdict::Wrong } else { Verdict::Warning };
        // The daemon warns of the same configuration.
        let is_same = |finding: &Finding| {
            finding.message == trouble.text
                || finding.message == NO_PROVIDER && trouble.text.contains(NO_PROVIDER)
        };
        if findings.0.iter().any(is_same) {
            continue;
        }
        findings.add("daemon", verdict, trouble.text, Vec::new());
    }
    Some(client)
}

/// The daemon's configuration file and the one that was judged here, if the user names one that is not the daemon's.
fn another_file(here: Option<&Config>, its: Option<&str>) -> Option<(String, String)> {
    let here = here?.file.as_ref()?;
    let same = |its: &str| match (here.canonicalize(), Path::new(its).canonicalize()) {
        (Ok(here), Ok(its)) => here == its,
        // What cannot be compared is not called different: a service's file may be hidden from this user.
        _ => true,
    };
    let other = its.filter(|its| !same(its))?;
    Some((other.to_owned(), here.display().to_string()))
}

/// Tries the server that holds the state, if one does.
async fn server(findings: &mut Findings, config: &Config, env: &Env, now: Timestamp) {
    let address = match config.state.server(env) {
        Ok(Some(address)) => address,
        Ok(None) => return,
        Err(problem) => {
            let hint = "a service may have variables and credentials that this shell lacks";
            return findings.wrong(SERVER, problem, hint);
        }
    };
    let connector = Connector::new(address, config.http.ca_file.clone());
    let found = match examine(&connector).await {
        Ok(found) => found,
        Err(refusal) => return findings.add(SERVER, Verdict::Wrong, refusal.to_string(), Vec::new()),
    };
    let (used, most) = (found.connections, found.max_connections);
    let milliseconds = found.round_trip.as_secs_f64() * 1000.0;
    findings.ok(
        SERVER,
        format!(
            "PostgreSQL {} at {} answers in {milliseconds:.1} ms; {used} of {most} connections are in use",
            found.version, found.host
        ),
    );
    if found.read_only {
        findings.wrong(SERVER, "it takes no writes", "name the primary in `[state] url`");
    }
    match found.schema {
        None => findings.wrong(
            SERVER,
            "the search path of the role leads to no schema that is there",
            "make it (`CREATE SCHEMA`), or name another by `options=-c search_path=…` in `[state] url`",
        ),
        Some(schema) if !found.may_create => {
            let hint = format!("as its owner: `GRANT CREATE ON SCHEMA {schema} TO …`");
            findings.wrong(SERVER, format!("the role may make no tables in the schema `{schema}`"), &hint);
        }
        Some(_) => {}
    }
    if most.saturating_sub(used) < FEW_CONNECTIONS {
        let hint = "raise `max_connections`, or put PgBouncer before the server".to_owned();
        findings.add(SERVER, Verdict::Warning, "few of its connections are free".to_owned(), vec![hint]);
    }
    let off = found.at.map(|at| since(at, now).max(since(now, at))).unwrap_or_default();
    if off > SERVER_CLOCK_TOLERANCE {
        let hint = "set both clocks, and keep them right: `timedatectl set-ntp true`".to_owned();
        findings.add(
            SERVER,
            Verdict::Warning,
            format!("its clock is {} off this one", human(off)),
            vec![hint],
        );
    }
}

/// Tries the keys and the network from here, for no daemon does; gives what time it is elsewhere.
async fn trial(findings: &mut Findings, config: Config, env: &Env, context: &Context) -> Option<Timestamp> {
    match Trial::of(config, env, &context.clock) {
        Ok(trial) => {
            let tried = trial.providers().await;
            providers(findings, &tried.iter().map(|tried| tried.answer.clone()).collect::<Vec<_>>());
            tried.iter().find_map(|tried| tried.at)
        }
        Err(problems) => {
            let hint = "a service may have variables and credentials that this shell lacks: start it, then try again";
            findings.wrong("keys", problems.join("\n"), hint);
            None
        }
    }
}

fn providers(findings: &mut Findings, answers: &[CheckAnswer]) {
    for answer in answers {
        let about = format!("provider {}", answer.name);
        if answer.ok {
            findings.ok(&about, format!("answers, the key is right ({} ms)", answer.milliseconds));
        } else {
            let message = answer.error.clone().unwrap_or_else(|| "failed".to_owned());
            findings.add(&about, Verdict::Wrong, message, answer.hint.iter().cloned().collect());
        }
    }
}

fn clock_of(findings: &mut Findings, elsewhere: Option<Timestamp>, now: Timestamp) {
    let off = elsewhere.map(|at| since(at, now).max(since(now, at)));
    let hint = "set it, and keep it right: `timedatectl set-ntp true`";
    if now < BUILT {
        findings.wrong("clock", format!("it says {now}, which is before this batchd was made"), hint);
    } else if let Some(off) = off.filter(|off| *off > CLOCK_TOLERANCE) {
        findings.wrong("clock", format!("it is {} off what a provider says", human(off)), hint);
    } else {
        let compared = if off.is_some() { ", as a provider says" } else { "" };
        findings.ok("clock", format!("{}{compared}", now.strftime("%Y-%m-%d %H:%M:%S UTC")));
    }
}

fn disk(findings: &mut Findings, context: &Context, runs: bool) {
    let Ok(view) = client_view(context.globals.config.as_deref()) else { return };
    let Some(dir) = view.state_dir else {
        return findings.wrong("disk", "no state directory is known", "name it: `[state] dir`");
    };
    // What is not there yet is made where its nearest ancestor is.
    let Some(there) = dir.ancestors().find(|path| path.exists()) else { return };
    let Ok(space) = nix::sys::statvfs::statvfs(there) else { return };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let text = format!("{} free for the state in {}", size(free), dir.display());
    if free < LITTLE_SPACE {
        findings.wrong("disk", text, "free some space, or name another disk: `[state] dir`");
    } else {
        findings.ok("disk", text);
    }
    if !runs && !may_write(there) {
        let who = "run the daemon as the user that owns it, or name another directory: `[state] dir`";
        findings.add(
            "disk",
            Verdict::Warning,
            format!("this user may not write {}", there.display()),
            vec![who.to_owned()],
        );
    }
}

fn may_write(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// What is wrong with a configuration without providers, of which there is a warning too.
const NO_PROVIDER: &str = "no provider is configured";
/// What the findings about the server that holds the state are about.
const SERVER: &str = "state server";
/// A daemon needs several.
const FEW_CONNECTIONS: u32 = 10;
/// Times in the database are those of whichever daemon wrote them.
const SERVER_CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// No clock that is right shows an earlier time: 2026-01-01.
const BUILT: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// Signatures are refused when the clock is off by more than a few minutes.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);
/// With less a daemon soon stops recording.
const LITTLE_SPACE: u64 = 256 * 1024 * 1024;
