//! What a shell may put in the place of ids, names, providers, webhooks and labels: it asks the running daemon, quickly and
//! without a word.

use super::connect::{client, client_view};
use super::view::BatchView;
use crate::control::client::{Client, Query};
use crate::control::client_error::ClientError;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, EnvCompleter as _, Shells};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

/// The variable by which the scripts of `batchd completions` ask.
const VARIABLE: &str = "BATCHD_COMPLETE";

/// Answers a shell, if it is one that asks; then the program ends here.
///
/// `definition`: the whole command line's.
pub fn answer(definition: fn() -> clap::Command) {
    if std::env::var_os(VARIABLE).is_some() {
        // What goes wrong must not be written into somebody's command line.
        std::panic::set_hook(Box::new(|_| {}));
        CompleteEnv::with_factory(definition).var(VARIABLE).bin("batchd").complete();
    }
}

/// The script by which `shell` asks.
pub fn script(shell: &str) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let known = shells.iter().find(|known| known.is(shell));
    let known = known.ok_or_else(|| std::io::Error::other(format!("no completions for {shell}")))?;
    known.write_registration(VARIABLE, "batchd", "batchd", "batchd", &mut script)?;
    Ok(script)
}

/// Names and ids of tracked batches, the newest first.
pub fn batches() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let listed = ask(async |client| {
            client.batches(&Query::default().with("limit", MOST)).await.map(|listing| listing.data)
        });
        let mut candidates = Vec::new();
        for batch in listed.unwrap_or_default() {
            let view = BatchView(&batch);
            let name = view.added("name").as_str().unwrap_or_default();
            let help = [name, view.status(), view.outcome().unwrap_or_default()].join(" ");
            let whole = view.key();
            for text in [name, view.id(), &whole] {
                // A colon begins a new word in bash: the provider is only completed where it was begun.
                let wanted = !text.is_empty() && text.starts_with(&*typed) && (text != whole || typed.contains(':'));
                if wanted && is_plain(text) {
                    candidates.push(CompletionCandidate::new(text).help(Some(help.trim().to_owned().into())));
                }
            }
        }
        once(candidates)
    })
}

/// Names of providers: the configuration's, and the daemon's.
pub fn providers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut names: BTreeSet<String> = client_view(None).map(|view| view.providers).unwrap_or_default();
        let running = ask(async |client| client.providers().await);
        names.extend(running.into_iter().flat_map(|listing| listing.data).map(|provider| provider.name));
        these(names, typed)
    })
}

/// Names of webhooks.
pub fn webhooks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let running = ask(async |client| client.webhooks().await);
        these(running.into_iter().flat_map(|listing| listing.data).map(|webhook| webhook.name), typed)
    })
}

/// Labels of tracked batches.
pub fn labels() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let listed = ask(async |client| client.batches(&Query::default().with("limit", MOST)).await);
        let mut labels = BTreeSet::new();
        for batch in listed.into_iter().flat_map(|listing| listing.data) {
            let of_batch = BatchView(&batch).added("labels").as_object().cloned().unwrap_or_default();
            labels.extend(of_batch.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))));
        }
        these(labels, typed)
    })
}

/// Numbers of deliveries that were given up.
pub fn deliveries() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let query = Query::default().with("state", "dead").with("limit", MOST);
        let dead = ask(async |client| client.deliveries(&query).await);
        these(dead.into_iter().flat_map(|listing| listing.data).map(|delivery| delivery.id), typed)
    })
}

fn these(texts: impl IntoIterator<Item = String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fitting = texts.into_iter().filter(|text| text.starts_with(&*typed) && is_plain(text));
    once(fitting.map(CompletionCandidate::new).collect())
}

/// The same without repetitions.
fn once(candidates: Vec<CompletionCandidate>) -> Vec<CompletionCandidate> {
    let mut seen = BTreeSet::new();
    candidates.into_iter().filter(|candidate| seen.insert(candidate.get_value().to_owned())).collect()
}

/// Whether a shell takes the text as one word; what it would not is not offered.
fn is_plain(text: &str) -> bool {
    text.chars().all(|letter| letter.is_alphanumeric() || "_-.:/=@%+,".contains(letter))
}

/// Asks the daemon, if one runs and answers at once.
fn ask<T>(question: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Option<T> {
    if std::env::var_os("BATCHD_HOST").is_none() && !is_running() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(tokio::time::timeout(PATIENCE, async {
        let client = client(None, None).await.ok()?;
        question(client).await.ok()
    }));
    runtime.shutdown_background();
    answer.ok().flatten()
}

/// Whether a daemon runs on this machine. Opening systemd's socket would start one.
fn is_running() -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        program == b"batchd" && words.any(|word| word == b"run")
    })
}

/// A shell waits for it at every key.
const PATIENCE: Duration = Duration::from_millis(120);

/// So many are offered.
const MOST: &str = "200";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_asks_again() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("batchd"), "{shell}: {script}");
        }
        assert!(script("tcsh").is_err());
    }

    #[test]
    fn only_what_is_one_word_is_offered() {
        assert!(is_plain("openai:batch_1") && is_plain("team=evals") && is_plain("größe"));
        assert!(!is_plain("nightly evals") && !is_plain("a;b") && !is_plain("$(x)") && !is_plain("it's"));
    }
}
