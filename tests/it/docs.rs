//! Every page that the code or another page cites is in the tree, and so is the heading it points at; every kind of
//! provider and of webhook has its page.

use batchd::{provider, webhook};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where citations may stand.
const PLACES: &[&str] = &["src", "tests", "benches", "systemd", "docs", "monitoring", "packaging", ".github"];

/// Single files that cite, too.
const FILES: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "Cargo.toml",
    "clippy.toml",
    "Dockerfile",
    "compose.postgres.yaml",
    "compose.yaml",
    "config.example.toml",
    "justfile",
];

#[test]
fn every_cited_page_and_heading_is_there() {
    let anchors = anchors();
    let mut wrong = Vec::new();
    for file in texts() {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for cited in citations(line).into_iter().chain(links(&file, line)) {
                let (page, anchor) = cited.split_once('#').unwrap_or((&cited, ""));
                let there = match anchors.get(page) {
                    Some(known) => anchor.is_empty() || known.iter().any(|heading| heading == anchor),
                    None => anchor.is_empty() && Path::new(page).exists(),
                };
                if !there {
                    wrong.push(format!("{}:{}: {cited}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these lead nowhere:\n{}", wrong.join("\n"));
}

/// A row of docs/reliability.md names a promise, the tests that hold it, and what was changed for them to fail.
#[test]
fn every_test_that_proves_a_promise_is_there() {
    let page = std::fs::read_to_string("docs/reliability.md").unwrap();
    let promises = page.split("\n## Promises\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise "));
    let (mut count, mut missing) = (0, Vec::new());
    for row in rows {
        let [promise, tests, file, _] = row.trim_matches('|').split(" | ").collect::<Vec<_>>()[..] else {
            panic!("a row has four cells: {row}");
        };
        count += 1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {promise}");
        missing.extend(named.into_iter().filter(|test| !is_a_test(test)).map(str::to_owned));
        let files = file.split('`').skip(1).step_by(2);
        missing.extend(files.filter(|file| !Path::new(file).is_file()).map(str::to_owned));
    }
    assert!(count >= 30, "{count} rows");
    assert!(missing.is_empty(), "these are not there:\n{}", missing.join("\n"));
}

/// Each row of what several daemons could do to each other has a test.
#[test]
fn every_test_of_what_daemons_do_at_once_is_there() {
    let page = std::fs::read_to_string("docs/reliability.md").unwrap();
    let rows = page.split("\n## Several daemons at once\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        rows.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| at the same")).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let named = rows.iter().filter_map(|row| row.trim_matches('|').split(" | ").nth(2));
    let named = named.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let missing: Vec<&str> = named.filter(|name| name.contains("::") && !is_a_test(name)).collect();
    assert!(missing.is_empty(), "these are not there:\n{}", missing.join("\n"));
}

/// Whether there is a test of this full name: in `src` if it has a step `tests`, else in one of the test programs.
fn is_a_test(name: &str) -> bool {
    let (module, function) = name.rsplit_once("::").unwrap_or_default();
    let (roots, module): (&[&str], &str) = match module.strip_suffix("::tests") {
        Some(module) => (&["src"], module),
        None => (&["tests/it", "tests/hostile"], module),
    };
    let module = module.replace("::", "/");
    let places = ["{}.rs", "{}/mod.rs", "{}/tests.rs"].map(|place| place.replace("{}", &module));
    roots.iter().flat_map(|root| places.iter().map(move |place| format!("{root}/{place}"))).any(|file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if crate::cases::run_on_both(&text).contains(function) {
            return true;
        }
        // Not any function: one with the attribute right above it.
        text.find(&format!("fn {function}(")).is_some_and(|place| {
            let mut above = text[..place].lines().rev().take(5);
            above.any(|line| line.contains("#[") && line.contains("test"))
        })
    })
}

#[test]
fn every_kind_has_a_page_and_every_page_a_kind() {
    let presets: Vec<&str> = provider::registry::KINDS
        .iter()
        .filter(|kind| kind.facts.preset_of.is_some())
        .map(|kind| kind.facts.name)
        .collect();
    let providers: BTreeSet<&str> = provider::registry::KINDS
        .iter()
        .map(|kind| kind.facts.name)
        .filter(|name| !presets.contains(name))
        .collect();
    let webhooks: BTreeSet<&str> = webhook::registry::KINDS.iter().map(|kind| kind.facts.name).collect();
    for (folder, kinds) in [("docs/providers", providers), ("docs/webhooks", webhooks)] {
        let pages = pages_in(folder);
        assert_eq!(pages.iter().map(String::as_str).collect::<BTreeSet<_>>(), kinds, "{folder}");
    }
    // Those of which little is known share a page.
    let shared = std::fs::read_to_string("docs/providers/openai-compatible.md").unwrap();
    for preset in presets {
        assert!(
            shared.contains(&format!("\n| `{preset}` |")),
            "there is no row for {preset} among the presets"
        );
    }
    // The comparison has a row for each, too.
    let comparison = std::fs::read_to_string("docs/providers.md").unwrap();
    for kind in pages_in("docs/providers") {
        let row = format!("| [`{kind}`](providers/{kind}.md) |");
        assert!(comparison.contains(&row), "docs/providers.md#comparison has no row for {kind}");
    }
}

/// The example of every kind's page is a configuration that is taken.
#[test]
fn every_example_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    for folder in ["docs/providers", "docs/webhooks"] {
        for kind in pages_in(folder) {
            let page = std::fs::read_to_string(format!("{folder}/{kind}.md")).unwrap();
            let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
            std::fs::write(&file, example.unwrap_or_else(|| panic!("{folder}/{kind}.md has no example")))
                .unwrap();
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_batchd"));
            let checked = check.args(["config", "check", "--no-secrets"]).arg(&file).output().unwrap();
            assert!(
                checked.status.success(),
                "{folder}/{kind}.md: {}",
                String::from_utf8_lossy(&checked.stderr)
            );
        }
    }
}

/// The page that shows the API by example leaves no route out.
#[test]
fn every_route_has_an_example() {
    let page = std::fs::read_to_string("docs/http-api.md").unwrap();
    let mut missing = Vec::new();
    for file in
        ["src/control/server.rs", "src/control/openai.rs", "src/control/files.rs", "src/control/creation.rs"]
    {
        let code = std::fs::read_to_string(file).unwrap();
        let routes: Vec<&str> = code
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .split('"')
            .filter(|text| !text.contains(' ') && ROOTS.iter().any(|root| text.starts_with(root)))
            .collect();
        assert!(routes.len() > 1, "{file} has no routes");
        missing.extend(routes.into_iter().filter(|route| !shows(&page, route)).map(str::to_owned));
    }
    assert!(missing.is_empty(), "docs/http-api.md does not show {missing:?}");
}

/// What the path of a route begins with.
const ROOTS: [&str; 6] = ["/v1/", "/providers/", "/hooks/", "/healthz", "/readyz", "/metrics"];

/// Whether a line has the route, with anything in place of its parameters.
fn shows(page: &str, route: &str) -> bool {
    let pieces: Vec<&str> =
        route.split('{').map(|piece| piece.split_once('}').map_or(piece, |(_, rest)| rest)).collect();
    page.lines().any(|line| {
        let mut rest = line;
        pieces.iter().all(|piece| match rest.split_once(piece) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    })
}

#[test]
fn every_picture_and_every_sample_that_a_page_shows_is_used() {
    let is_page = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "md");
    let pages = texts().into_iter().filter(is_page);
    let pages: String = pages.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for folder in ["docs/pictures", "docs/examples"] {
        walk(Path::new(folder), &mut |file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(pages.contains(name), "no page shows {}", file.display());
        });
    }
}

#[test]
fn no_section_is_cited_by_a_number_alone() {
    let mut wrong = Vec::new();
    for file in texts() {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            // A standard's own sections are numbered; ours are named.
            if line.contains('§') && !line.contains("RFC") && !file.ends_with("it/docs.rs") {
                wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "cite `docs/PAGE.md#heading`:\n{}", wrong.join("\n"));
}

#[test]
fn every_page_is_on_the_map() {
    let map = std::fs::read_to_string("docs/README.md").unwrap();
    for page in pages() {
        let name = page.strip_prefix("docs").unwrap().to_str().unwrap().to_owned();
        assert!(
            name == "README.md" || map.contains(&format!("({name}")),
            "docs/README.md does not link {name}"
        );
    }
}

/// The samples that verify signatures, against a delivery of this binary and against forgeries; those whose interpreter
/// is missing say that they were skipped.
#[test]
#[expect(clippy::print_stdout, reason = "what was skipped must be said")]
fn the_samples_verify_what_batchd_signs() {
    let python = std::env::var_os("BATCHD_SDK_PYTHON").unwrap_or_else(|| "python3".into());
    let tried = std::process::Command::new("tests/docs/verify.sh")
        .env("BATCHD", env!("CARGO_BIN_EXE_batchd"))
        .env("PYTHON", python)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{said}{}", String::from_utf8_lossy(&tried.stderr));
    println!("{said}");
}

/// What a page shows of a sample is what the sample says.
#[test]
fn pages_show_samples_as_they_are() {
    let page = std::fs::read_to_string("docs/verifying-webhooks.md").unwrap();
    let mut samples = String::new();
    walk(Path::new("docs/examples/verify"), &mut |file| samples += &std::fs::read_to_string(file).unwrap());
    // The shell's is shortened.
    for language in ["python", "js", "go", "ruby"] {
        for shown in page.split(&format!("```{language}\n")).skip(1) {
            let shown = shown.split("```").next().unwrap();
            assert!(samples.contains(shown), "no sample has:\n{shown}");
        }
    }
}

#[test]
fn a_citation_ends_where_its_anchor_ends() {
    assert_eq!(
        citations("(`docs/design.md#tests`), docs/delivery.md."),
        ["docs/design.md#tests", "docs/delivery.md"]
    );
    assert_eq!(citations("https://example.com/docs/a.md"), [] as [&str; 0]);
    assert_eq!(slug("Z.ai and Zhipu: `x`"), "zai-and-zhipu-x");
}

/// `docs/PAGE.md` and `docs/PAGE.md#heading` in a line, but not inside an address.
fn citations(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("docs/") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '.')) {
            continue;
        }
        let cited: String = line[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '#'))
            .collect();
        let cited = cited.trim_end_matches('.');
        let page = cited.split('#').next().unwrap_or_default();
        // `PAGE` stands for any.
        if page != "docs/PAGE.md" && Path::new(page).extension().is_some_and(|extension| extension == "md") {
            found.push(cited.to_owned());
        }
    }
    found
}

/// The targets of Markdown links in a line of a page, as paths from the root.
fn links(file: &Path, line: &str) -> Vec<String> {
    if file.extension().is_none_or(|extension| extension != "md") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let Some((target, _)) = line[at + 2..].split_once(')') else { continue };
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = match target.split_once('#') {
            Some((path, anchor)) => (path, format!("#{anchor}")),
            None => (target, String::new()),
        };
        let resolved = if path.is_empty() { file.to_owned() } else { resolve(file, path) };
        found.push(format!("{}{anchor}", resolved.display()));
    }
    found
}

/// `path` as a link from `file`, without `..`.
fn resolve(file: &Path, path: &str) -> PathBuf {
    let mut resolved = file.parent().unwrap().to_owned();
    for part in path.split('/') {
        match part {
            ".." => drop(resolved.pop()),
            "." | "" => {}
            part => resolved.push(part),
        }
    }
    resolved
}

/// The headings of every page, as GitHub names their anchors.
fn anchors() -> BTreeMap<String, Vec<String>> {
    let mut anchors = BTreeMap::new();
    for page in texts().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"))
    {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut headings: Vec<String> = Vec::new();
        let mut fenced = false;
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
            let heading = slug(heading.trim_start_matches('#').trim());
            assert!(!headings.contains(&heading), "{}: two headings `{heading}`", page.display());
            headings.push(heading);
        }
        anchors.insert(page.to_str().unwrap().to_owned(), headings);
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The names of the pages in a folder, without their endings.
fn pages_in(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new(folder), &mut |file| {
        found.insert(file.file_stem().unwrap().to_str().unwrap().to_owned());
    });
    found
}

fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("docs"), &mut |file| found.push(file.to_owned()));
    found.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    found
}

/// Every file that may cite.
fn texts() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = FILES.iter().map(PathBuf::from).filter(|file| file.exists()).collect();
    for place in PLACES {
        walk(Path::new(place), &mut |file| {
            let known = [
                "rs", "md", "sql", "toml", "yml", "service", "socket", "conf", "py", "sh", "go", "rb", "mjs",
            ];
            if file.extension().is_some_and(|extension| known.iter().any(|known| extension == *known)) {
                found.push(file.to_owned());
            }
        });
    }
    found.sort();
    found
}

fn walk(directory: &Path, found: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found(&path);
        }
    }
}
