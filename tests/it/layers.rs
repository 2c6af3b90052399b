//! The floors of the house: a module imports from its own floor downwards only.

use std::path::{Path, PathBuf};

/// Lowest first; modules of one line share a floor.
const FLOORS: &[&[&str]] = &[
    &["domain"],
    &["clock", "rng", "sync", "tasks", "config", "http", "failpoint"],
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
fn only_the_store_names_rusqlite_and_only_the_fence_names_the_scheduler() {
    for (word, home) in [
        ("rusqlite::", "src/store"),
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
