//! What a shell may put at the end of a command line: commands, options and their values from the definition; ids, names,
//! providers, webhooks and labels from the running daemon, quickly and without a word.

use super::connect::{client, client_view};
use super::view::BatchView;
use crate::control::client::{Client, Query};
use crate::control::client_error::ClientError;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeSet;
use std::time::Duration;

/// Something that may stand where the cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub text: String,
    /// What it is, for shells that show that.
    pub about: String,
}

/// What is wanted where the cursor is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// One of these, as they stand.
    These(Vec<Candidate>),
    /// A value of the kind that this word names, behind `before`, which is there already.
    Value { kind: Kind, before: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Batch,
    Delivery,
    Provider,
    Webhook,
    Label,
    File,
    Nothing,
}

/// Answers a shell, if it is one that asks (`batchd _complete SHELL …`); `None`: it is not.
///
/// `definition`: the whole command line's.
pub fn answer(definition: impl FnOnce() -> Command) -> Option<String> {
    let mut arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    if arguments.next()? != "_complete" {
        return None;
    }
    let shell = arguments.next().unwrap_or_default();
    let words: Vec<String> = match shell.as_str() {
        // It cuts words at colons; the line is whole.
        "bash" => split(&arguments.next().unwrap_or_default()),
        _ => arguments.collect(),
    };
    let typed = words.last().cloned().unwrap_or_default();
    let mut command = definition();
    command.build();
    let candidates = match place(&command, &words) {
        Place::Value { kind: Kind::File, .. } => return Some(":files\n".to_owned()),
        Place::Value { kind, before } => {
            let typed = typed.strip_prefix(&before).unwrap_or(&typed);
            let values = values(kind, typed).into_iter();
            values.map(|value| Candidate { text: format!("{before}{}", value.text), ..value }).collect()
        }
        Place::These(candidates) => candidates,
    };
    let fitting = candidates.into_iter().filter(|each| each.text.starts_with(&typed) && is_plain(&each.text));
    Some(written(&shell, &typed, fitting))
}

/// The script by which `shell` asks; `None`: it has none of its own here.
pub fn script(shell: &str) -> Option<&'static str> {
    Some(match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        _ => return None,
    })
}

fn written(shell: &str, typed: &str, candidates: impl Iterator<Item = Candidate>) -> String {
    // What stands before the last colon or equals sign is a word of its own to bash.
    let kept = if shell == "bash" { typed.rfind([':', '=']).map_or(0, |place| place + 1) } else { 0 };
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    for Candidate { text: candidate, about } in candidates {
        if !seen.insert(candidate.clone()) {
            continue;
        }
        text.push_str(candidate.get(kept..).unwrap_or(&candidate));
        if shell != "bash" && !about.is_empty() {
            text.push('\t');
            text.push_str(&about.replace(['\n', '\t'], " "));
        }
        text.push('\n');
    }
    text
}

/// The words of a line up to the cursor, the last of them under it; quotes and backslashes are taken away.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') if word.is_empty() => {}
            (None, ' ' | '\t' | '\n') => words.push(std::mem::take(&mut word)),
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None | Some('"'), '\\') => word.extend(letters.next()),
            (_, letter) => word.push(letter),
        }
    }
    words.push(word);
    words
}

/// What is wanted at the end of `words`, of which the first is the program.
fn place(root: &Command, words: &[String]) -> Place {
    let nothing = Place::Value { kind: Kind::Nothing, before: String::new() };
    let Some((typed, before)) = words.split_last() else { return nothing };
    let mut command = root;
    let mut path: Vec<&str> = Vec::new();
    let mut places = 0;
    let mut waiting: Option<&Arg> = None;
    let mut only_values = false;
    for word in before.iter().skip(1) {
        if waiting.take().is_some() {
            continue;
        }
        if word == "--" {
            only_values = true;
        } else if word.starts_with('-') && word.len() > 1 && !only_values {
            waiting = option(command, word).filter(|option| takes_value(option) && !word.contains('='));
        } else if let Some(next) = command.find_subcommand(word).filter(|_| places == 0) {
            command = next;
            path.push(next.get_name());
        } else {
            places += 1;
        }
    }
    if let Some(option) = waiting {
        return value_of(option, &path, "");
    }
    if typed.starts_with('-') && !only_values {
        if let Some((name, _)) = typed.split_once('=') {
            return option(command, name)
                .map_or(nothing, |option| value_of(option, &path, &format!("{name}=")));
        }
        return Place::These(options(command));
    }
    let mut candidates = Vec::new();
    if places == 0 {
        let commands = command.get_subcommands().filter(|each| !each.is_hide_set());
        candidates.extend(commands.map(|each| Candidate {
            text: each.get_name().to_owned(),
            about: each.get_about().map(ToString::to_string).unwrap_or_default(),
        }));
    }
    let positional = command.get_positionals().nth(places).or_else(|| {
        command
            .get_positionals()
            .last()
            .filter(|last| last.get_num_args().is_some_and(|count| count.max_values() > 1))
    });
    if path == ["help"] {
        return Place::These(
            root.get_subcommands()
                .map(|each| Candidate { text: each.get_name().to_owned(), about: String::new() })
                .collect(),
        );
    }
    match positional {
        Some(positional) if candidates.is_empty() => value_of(positional, &path, ""),
        _ if !candidates.is_empty() => Place::These(candidates),
        _ => nothing,
    }
}

/// The option that a word names; of several short ones the last.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    command.get_arguments().find(|option| match name.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => option.get_short().is_some() && option.get_short() == name.chars().last(),
    })
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

fn options(command: &Command) -> Vec<Candidate> {
    let options = command.get_arguments().filter(|option| !option.is_hide_set());
    let long = options.filter_map(|option| Some((option.get_long()?, option.get_help())));
    long.map(|(long, help)| Candidate {
        text: format!("--{long}"),
        about: help.map(ToString::to_string).unwrap_or_default(),
    })
    .collect()
}

/// What may be a value of `argument` in the command `path`.
fn value_of(argument: &Arg, path: &[&str], before: &str) -> Place {
    let words = argument.get_possible_values();
    if !words.is_empty() {
        let words = words
            .iter()
            .map(|word| Candidate { text: format!("{before}{}", word.get_name()), about: String::new() });
        return Place::These(words.collect());
    }
    let name = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let kind = match (name, path) {
        ("ID", ["deliveries", "retry"]) => Kind::Delivery,
        // What is tracked is new.
        ("ID", ["track"]) => Kind::Nothing,
        ("ID", _) => Kind::Batch,
        ("PROVIDER", _) | ("NAME", ["providers", ..]) => Kind::Provider,
        ("WEBHOOK", _) | ("NAME", ["webhooks", ..]) => Kind::Webhook,
        ("KEY=VALUE", _) if argument.get_long() == Some("label") => Kind::Label,
        ("FILE" | "DIR", _) => Kind::File,
        _ => Kind::Nothing,
    };
    Place::Value { kind, before: before.to_owned() }
}

/// The values of a kind that the daemon knows; none if it is away.
fn values(kind: Kind, typed: &str) -> Vec<Candidate> {
    let bare = |text: String| Candidate { text, about: String::new() };
    match kind {
        Kind::Batch => {
            let listed = ask(async |client| client.batches(&newest()).await);
            listed
                .into_iter()
                .flat_map(|listing| listing.data)
                .flat_map(|batch| named(&batch, typed))
                .collect()
        }
        Kind::Label => {
            let listed = ask(async |client| client.batches(&newest()).await);
            let mut labels = BTreeSet::new();
            for batch in listed.into_iter().flat_map(|listing| listing.data) {
                let pairs = BatchView(&batch).added("labels").as_object().cloned().unwrap_or_default();
                labels.extend(
                    pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))),
                );
            }
            labels.into_iter().map(bare).collect()
        }
        Kind::Provider => {
            // The configuration knows their names without a daemon.
            let mut names = client_view(None).map(|view| view.providers).unwrap_or_default();
            let running = ask(async |client| client.providers().await);
            names.extend(running.into_iter().flat_map(|listing| listing.data).map(|provider| provider.name));
            names.into_iter().map(bare).collect()
        }
        Kind::Webhook => {
            let running = ask(async |client| client.webhooks().await);
            running.into_iter().flat_map(|listing| listing.data).map(|webhook| bare(webhook.name)).collect()
        }
        Kind::Delivery => {
            let dead = ask(async |client| client.deliveries(&newest().with("state", "dead")).await);
            let dead = dead.into_iter().flat_map(|listing| listing.data);
            dead.map(|each| Candidate { text: each.id, about: format!("{} to {}", each.kind, each.webhook) })
                .collect()
        }
        Kind::File | Kind::Nothing => Vec::new(),
    }
}

/// How a batch may be called: by its name, by its id, and where a provider was begun, by both.
fn named(batch: &serde_json::Value, typed: &str) -> Vec<Candidate> {
    let view = BatchView(batch);
    let name = view.added("name").as_str().unwrap_or_default();
    let about = [name, view.status(), view.outcome().unwrap_or_default()];
    let about = about.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
    let whole = if typed.contains(':') { view.key() } else { String::new() };
    let texts = [name.to_owned(), view.id().to_owned(), whole].into_iter().filter(|text| !text.is_empty());
    texts.map(|text| Candidate { text, about: about.clone() }).collect()
}

fn newest() -> Query {
    Query::default().with("limit", MOST)
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
    let answer = runtime.block_on(async {
        let asked = async {
            let client = client(None, None).await.ok()?;
            question(client).await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    });
    runtime.shutdown_background();
    answer
}

/// Whether a daemon runs on this machine. Opening systemd's socket would start one.
fn is_running() -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        let program =
            words.next().unwrap_or_default().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        program == b"batchd" && words.any(|word| word == b"run")
    })
}

/// A shell waits for it at every key.
const PATIENCE: Duration = Duration::from_millis(150);

/// So many are offered.
const MOST: &str = "200";

const BASH: &str = r#"_batchd() {
    local line=${COMP_LINE:0:${COMP_POINT:-0}}
    if [[ -z $line ]]; then
        local IFS=' '
        line="${COMP_WORDS[*]:0:COMP_CWORD+1}"
    fi
    local IFS=$'\n'
    COMPREPLY=($(batchd _complete bash "$line" 2>/dev/null))
    if [[ ${COMPREPLY[0]-} == :files ]]; then
        COMPREPLY=()
        compopt -o default 2>/dev/null
    fi
}
complete -F _batchd batchd
"#;

const ZSH: &str = r#"#compdef batchd
_batchd() {
    local -a lines described
    local line
    lines=("${(@f)$(batchd _complete zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ ${lines[1]} == :files ]]; then
        _files
        return
    fi
    for line in $lines; do
        if [[ $line == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        elif [[ -n $line ]]; then
            described+=("${line//:/\\:}")
        fi
    done
    (( ${#described} )) && _describe batchd described
}
if [[ $funcstack[1] == _batchd ]]; then
    _batchd "$@"
else
    compdef _batchd batchd
fi
"#;

const FISH: &str = r#"function __batchd_complete
    set -l lines (batchd _complete fish (commandline -opc) (commandline -ct) 2>/dev/null)
    if test "$lines[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        string join \n -- $lines
    end
end
complete -c batchd -f -a '(__batchd_complete)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let mut command = crate::cli::definition();
        command.build();
        place(&command, &split(line))
    }

    fn kind(line: &str) -> Kind {
        match at(line) {
            Place::Value { kind, .. } => kind,
            Place::These(candidates) => panic!("{line}: {candidates:?}"),
        }
    }

    fn texts(line: &str) -> Vec<String> {
        match at(line) {
            Place::These(candidates) => candidates.into_iter().map(|each| each.text).collect(),
            Place::Value { kind, .. } => panic!("{line}: {kind:?}"),
        }
    }

    #[test]
    fn what_is_wanted_follows_from_the_definition() {
        assert!(texts("batchd ").contains(&"track".to_owned()));
        assert!(texts("batchd list --").contains(&"--provider".to_owned()));
        assert!(texts("batchd list --status ").contains(&"in_progress".to_owned()));
        assert!(texts("batchd list --status=").contains(&"--status=in_progress".to_owned()));
        assert!(texts("batchd webhooks ").contains(&"test".to_owned()));
        assert!(texts("batchd help tr").contains(&"track".to_owned()));
        assert_eq!(texts("batchd -q completions "), ["bash", "elvish", "fish", "powershell", "zsh"]);
        for (line, wanted) in [
            ("batchd wait ", Kind::Batch),
            ("batchd wait a b ", Kind::Batch),
            ("batchd --config f show ", Kind::Batch),
            ("batchd track ", Kind::Nothing),
            ("batchd track x --provider ", Kind::Provider),
            ("batchd track x --notify o", Kind::Webhook),
            ("batchd list --label ", Kind::Label),
            ("batchd webhooks test ", Kind::Webhook),
            ("batchd providers check ", Kind::Provider),
            ("batchd deliveries retry ", Kind::Delivery),
            ("batchd deliveries --webhook=", Kind::Webhook),
            ("batchd submit ", Kind::File),
            ("batchd results x -o ", Kind::File),
            ("batchd status ", Kind::Nothing),
        ] {
            assert_eq!(kind(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_is_cut_as_a_shell_cuts_it() {
        assert_eq!(split("batchd show 'a b' c\\ d \"e"), ["batchd", "show", "a b", "c d", "e"]);
        assert_eq!(split("batchd  show "), ["batchd", "show", ""]);
    }

    #[test]
    fn bash_gets_what_stands_behind_the_last_colon() {
        let candidate = |text: &str| Candidate { text: text.to_owned(), about: "running".to_owned() };
        let candidates = || [candidate("openai:batch_1"), candidate("openai:batch_1")].into_iter();
        assert_eq!(written("bash", "openai:b", candidates()), "batch_1\n");
        assert_eq!(written("zsh", "openai:b", candidates()), "openai:batch_1\trunning\n");
    }

    #[test]
    fn only_what_is_one_word_is_offered() {
        assert!(is_plain("openai:batch_1") && is_plain("team=evals") && is_plain("größe"));
        assert!(!is_plain("nightly evals") && !is_plain("a;b") && !is_plain("$(x)") && !is_plain("it's"));
    }
}
