//! Every `batchd …` that the documents show is a command line that the program takes: its commands, flags and values.

use batchd::cli::definition;
use std::path::{Path, PathBuf};

/// A page's file, and one command line on it: the line's number and the words behind `batchd`.
type Shown = (PathBuf, usize, Vec<String>);

#[test]
fn every_command_that_is_shown_is_one() {
    let mut wrong = Vec::new();
    let (mut in_blocks, mut in_text) = (0, 0);
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (number, words) in in_shell_blocks(&text) {
            in_blocks += 1;
            judge(&(page.clone(), number, words), false, &mut wrong);
        }
        for (number, words) in in_code_spans(&text) {
            in_text += 1;
            judge(&(page.clone(), number, words), true, &mut wrong);
        }
    }
    assert!(
        in_blocks > 40 && in_text > 90,
        "{in_blocks} in blocks, {in_text} in text: the reading is broken"
    );
    assert!(wrong.is_empty(), "these are no command lines of batchd:\n{}", wrong.join("\n"));
}

/// What is taken for a command line and what is not.
#[test]
fn command_lines_are_found_in_shell() {
    let commands = |text: &str| -> Vec<String> {
        in_shell_blocks(&format!("```sh\n{text}\n```\n"))
            .into_iter()
            .map(|(_, words)| words.join("|"))
            .collect()
    };
    assert_eq!(
        commands("my-script | batchd track - --provider openai   # batchd list"),
        ["track|-|--provider|openai"]
    );
    assert_eq!(
        commands("id=$(batchd submit a.jsonl --name \"b c\") && batchd wait \"$id\""),
        ["submit|a.jsonl|--name|b c", "wait|$id"]
    );
    assert_eq!(commands("sudo env X=/y batchd --offline backup z > q.db"), ["--offline|backup|z"]);
    assert_eq!(
        commands("docker exec batchd batchd status; kubectl -n batchd exec batchd-0 -- batchd list"),
        ["status", "list"]
    );
    assert_eq!(commands("batchd track a \\\n  --name b"), ["track|a|--name|b"]);
    assert_eq!(commands("cat <<'END'\nbatchd frobnicate\nEND\nbatchd run 2> batchd.log & sleep 1"), ["run"]);
    assert_eq!(commands("sudo systemctl restart batchd\nexport A=1"), [] as [&str; 0]);
    let spans =
        |text: &str| in_code_spans(text).into_iter().map(|(_, words)| words.join("|")).collect::<Vec<_>>();
    assert_eq!(spans("say `batchd wait ID`, `batchd COMMAND -h` and `batchd …`"), ["wait|ID"]);
    assert_eq!(spans("`batchd.db` and\n```sh\nbatchd list\n```"), [] as [&str; 0]);
    let mut wrong = Vec::new();
    for words in
        [&["track"][..], &["frobnicate"], &["list", "--stat", "x"], &["wait", "a", "--timeout", "soon"]]
    {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        judge(&(PathBuf::new(), 1, words), false, &mut wrong);
    }
    assert_eq!(wrong.len(), 4, "{wrong:?}");
}

/// Notes what the program does not take. In a sentence a command may be named without what it needs.
fn judge((page, number, words): &Shown, is_named: bool, wrong: &mut Vec<String>) {
    let line = ["batchd"].into_iter().chain(words.iter().map(String::as_str));
    let Err(error) = definition().try_get_matches_from(line) else { return };
    let lacks = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
    // Help and version are what was asked for.
    if error.use_stderr() && !(is_named && lacks) {
        let why = error.to_string();
        let why = why.lines().next().unwrap_or_default();
        wrong.push(format!("{}:{number}: batchd {}: {why}", page.display(), words.join(" ")));
    }
}

/// The command lines in fenced blocks of shell, with the number of the line where each begins.
fn in_shell_blocks(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    let mut here_document: Option<String> = None;
    let mut joined = String::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                None => Some(matches!(language, "sh" | "bash" | "console")),
                Some(_) => None,
            };
            here_document = None;
            continue;
        }
        if fence != Some(true) {
            continue;
        }
        if let Some(end) = &here_document {
            if line.trim() == end {
                here_document = None;
            }
            continue;
        }
        if let Some(end) = line.split("<<").nth(1).filter(|rest| !rest.starts_with('<')) {
            let end = end.trim_matches(|c: char| c == '-' || c.is_whitespace()).trim_matches(['\'', '"']);
            here_document =
                Some(end.split_whitespace().next().unwrap_or_default().trim_matches('\'').to_owned());
        }
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if line.ends_with('\\') {
            continue;
        }
        found.extend(commands(&std::mem::take(&mut joined)).into_iter().map(|words| (number + 1, words)));
    }
    found
}

/// The command lines in a page's sentences: what stands between single backticks and has no part left out.
fn in_code_spans(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for span in line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("batchd ")) {
            if span.contains('…') || span.contains("COMMAND") {
                continue;
            }
            found.extend(commands(span).into_iter().map(|words| (number + 1, words)));
        }
    }
    found
}

/// The words behind each `batchd` of a line of shell that stands where a command does.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for command in simple_commands(line) {
        // What runs another command, with its own words before that.
        let runs_another = ["sudo", "env", "exec", "docker", "kubectl", "time", "nohup"];
        let mut words = command.iter().map(String::as_str).peekable();
        let is_assignment = |word: &str| word.split_once('=').is_some_and(|(name, _)| is_name(name));
        while words.next_if(|word| is_assignment(word)).is_some() {}
        let place = match words.peek() {
            Some(&"batchd") => words.position(|word| word == "batchd"),
            Some(word) if runs_another.contains(word) => {
                let all: Vec<&str> = words.clone().collect();
                // `docker exec batchd batchd status`: the last one is the program.
                let last = all.iter().rposition(|word| *word == "batchd" || word.ends_with("/batchd"));
                let controls = all.first().is_some_and(|runs| matches!(*runs, "docker" | "kubectl"))
                    && !all.contains(&"exec")
                    || all
                        .iter()
                        .any(|word| matches!(*word, "systemctl" | "apt" | "install" | "rm" | "usermod"));
                last.filter(|last| !controls && last + 1 < all.len()).inspect(|last| {
                    words.nth(*last);
                })
            }
            _ => None,
        };
        if place.is_some() {
            found.push(words.map(str::to_owned).collect());
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A line of shell, taken apart into its simple commands and these into words; redirections and comments are left out.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    let mut inner = String::new();
    let mut skips_word = false;
    let end_word = |word: &mut Option<String>, commands: &mut Vec<Vec<String>>, skips: &mut bool| {
        if let Some(word) = word.take() {
            if std::mem::take(skips) {
                return;
            }
            commands.last_mut().unwrap().push(word);
        }
    };
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => end_word(&mut word, &mut commands, &mut skips_word),
            '#' if word.is_none() => break,
            '\'' => {
                let quoted: String = letters.by_ref().take_while(|c| *c != '\'').collect();
                word.get_or_insert_default().push_str(&quoted);
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = letters.next().filter(|c| *c != '"') {
                    word.push(c);
                }
            }
            '$' if letters.peek() == Some(&'(') => {
                letters.next();
                let mut depth = 1;
                inner.clear();
                for c in letters.by_ref() {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    if depth == 0 {
                        break;
                    }
                    inner.push(c);
                }
                let nested = simple_commands(&inner);
                let here = commands.pop().unwrap();
                commands.extend(nested);
                commands.push(here);
                word.get_or_insert_default().push_str("$(…)");
            }
            '>' | '<' => {
                // A number before it belongs to it.
                if word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
                    word = None;
                }
                end_word(&mut word, &mut commands, &mut skips_word);
                while letters.next_if(|c| matches!(c, '>' | '<' | '&')).is_some() {}
                skips_word = true;
            }
            '|' | '&' | ';' | '(' | ')' => {
                end_word(&mut word, &mut commands, &mut skips_word);
                commands.push(Vec::new());
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    end_word(&mut word, &mut commands, &mut skips_word);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Every page that people read to use batchd.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.retain(|page| Path::new(page).is_file());
    found.sort();
    found
}
