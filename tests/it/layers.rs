//! The floors of the house (`docs/design.md#floors`): a module imports from its own floor downwards only, and no files
//! import each other, directly or in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lowest first; modules of one line share a floor.
const FLOORS: &[&[&str]] = &[
    &["domain"],
    &["clock", "rng", "sync", "tasks", "config", "http", "logging", "failpoint"],
    &["provider", "webhook"],
    &["store"],
    &["engine", "notify", "maintenance"],
    &["control"],
    &["daemon", "sandbox", "demo"],
    &["cli"],
];

#[test]
fn no_module_reaches_upwards() {
    let mut upward = Vec::new();
    for file in sources(Path::new("src")) {
        let Some(own) = floor_of(&module_of(&file)) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for imported in imports(line) {
                if floor_of(&imported).is_some_and(|floor| floor > own) {
                    upward.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "these reach upwards:\n{}", upward.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let text = std::fs::read_to_string("src/lib.rs").unwrap();
    for line in text.lines() {
        if let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(floor_of(module).is_some(), "`{module}` has no floor");
        }
    }
}

#[test]
fn only_the_store_names_databases_and_only_the_fence_names_the_scheduler() {
    for (word, home) in [
        ("rusqlite::", "src/store"),
        ("tokio_postgres::", "src/store/server"),
        ("tokio_cron_scheduler::", "src/maintenance/cron.rs"),
        ("reqwest::", "src/http/"),
    ] {
        for file in sources(Path::new("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            // In quotes it is the name of a target of the log.
            let named = code.clone().any(|line| line.contains(word) && !line.contains(&format!("\"{word}")));
            let client = word == "reqwest::" && file.ends_with("control/client.rs");
            assert!(!named || client || file.starts_with(home), "{} names {word}", file.display());
        }
    }
}

pub fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn no_files_import_each_other() {
    let files = sources(Path::new("src"));
    let modules: BTreeMap<Vec<String>, &PathBuf> = files.iter().map(|file| (path_of(file), file)).collect();
    let mut imports: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = BTreeMap::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let own = path_of(file);
        for path in paths(&code(&text)) {
            let Some(absolute) = absolute(&own, &path) else { continue };
            // The longest prefix that is a file: what follows is what that file holds.
            let owner = (1..=absolute.len()).rev().find_map(|length| modules.get(&absolute[..length]));
            if let Some(owner) = owner.filter(|owner| **owner != file) {
                imports.entry(file).or_default().insert(owner);
            }
        }
    }
    let circles = circles(&imports);
    let told: Vec<String> = circles
        .iter()
        .map(|circle| circle.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(circles.is_empty(), "{} circles of files:\n{}", circles.len(), told.join("\n"));
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let read = |text: &str| paths(&code(text)).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(
        read("use super::a::{self, B, c::{D, E as F}};"),
        ["super::a", "super::a::B", "super::a::c::D", "super::a::c::E"]
    );
    assert_eq!(read("fn f() -> crate::x::Y { super::z::go() }"), ["crate::x::Y", "super::z::go"]);
    assert_eq!(
        read("// use crate::x;\n\"crate::y\"\n#[cfg(test)]\nmod tests { use crate::z; }"),
        [] as [&str; 0]
    );
    let own = ["engine", "poll"].map(str::to_owned);
    let seen = |path: &str| absolute(&own, &path.split("::").map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(seen("super::due::Due").unwrap().join("/"), "engine/due/Due");
    assert_eq!(seen("crate::domain::batch").unwrap().join("/"), "domain/batch");
    assert_eq!(seen("self::x").unwrap().join("/"), "engine/poll/x");
    assert_eq!(seen("std::fmt"), None);
}

/// The files that reach each other, each circle once.
fn circles<'a>(imports: &BTreeMap<&'a PathBuf, BTreeSet<&'a PathBuf>>) -> Vec<BTreeSet<&'a PathBuf>> {
    let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = imports
        .keys()
        .map(|file| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&PathBuf> = imports[*file].iter().copied().collect();
            while let Some(file) = next.pop() {
                if seen.insert(file) {
                    next.extend(imports.get(file).into_iter().flatten());
                }
            }
            (*file, seen)
        })
        .collect();
    let mut found: BTreeSet<BTreeSet<&PathBuf>> = BTreeSet::new();
    for (file, seen) in &reach {
        let circle: BTreeSet<&PathBuf> = seen
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if !circle.is_empty() {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// A text without comments, strings and what is compiled for tests only.
fn code(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start() == "#[cfg(test)]" && !line.starts_with(' ') {
            // By custom the tests stand last; a `mod x;` for tests is one line.
            let rest = text.split_once(line).map_or("", |(_, rest)| rest);
            if rest.trim_start().starts_with("mod tests {") {
                break;
            }
            continue;
        }
        // Whom something is shown to is no import.
        let line = line.split("//").next().unwrap_or_default().replace("pub(in super::super)", "pub");
        for (at, piece) in line.split('"').enumerate() {
            if at % 2 == 0 {
                kept.push_str(piece);
            }
        }
        kept.push('\n');
    }
    kept
}

/// Every path that begins with `crate`, `super`, `self`, or stands in a `use`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            tree(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    // `use sibling::X` in a `mod.rs` names a child without a root.
    for (at, _) in code.match_indices("use ") {
        let rest = &code[at + 4..];
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let begins = code[..at].trim_end_matches("pub ").trim_end_matches(' ').ends_with('\n') || at == 0;
        if begins && !matches!(word.as_str(), "crate" | "super" | "self" | "std" | "") {
            tree(&format!("self::{rest}"), &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one path or tree of them, and tells how much of `text` it took.
fn tree(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            loop {
                at += text[at..].len()
                    - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
                if at >= text.len() || text[at..].starts_with('}') {
                    at = (at + 1).min(text.len());
                    break;
                }
                let took = tree(&text[at..], prefix, found);
                if took == 0 {
                    break;
                }
                at += took;
                // `as other`
                let rest = text[at..].trim_start();
                if let Some(alias) = rest.strip_prefix("as ") {
                    let word = alias.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
                    at = text.len() - alias.len() + word;
                }
            }
            prefix.truncate(depth);
            return at;
        }
        let word: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += word.len();
        if word.is_empty() {
            at += usize::from(text[at..].starts_with('*'));
        } else if word != "self" || prefix.is_empty() {
            prefix.push(word);
        }
        if text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        if prefix.len() > depth || at > 0 {
            found.push(prefix.clone());
        }
        prefix.truncate(depth);
        return at;
    }
}

/// `path`, seen from the module `own`, from the root of the crate.
fn absolute(own: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => own.to_vec(),
        "super" => own[..own.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    let mut rest = &path[1..];
    while rest.first().is_some_and(|word| word == "super") {
        base.pop()?;
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The module that a file is, from the root of the crate.
fn path_of(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").unwrap().with_extension("");
    let mut path: Vec<String> =
        inside.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
    if path.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib")) {
        path.pop();
    }
    path
}

/// The modules that a line of code names by `crate::…`, also in `use crate::{a, b::c}`.
fn imports(line: &str) -> Vec<String> {
    let line = line.trim_start();
    if line.starts_with("//") {
        return Vec::new();
    }
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(|item| word(item.trim()))),
            None => found.push(word(rest)),
        }
    }
    found
}
