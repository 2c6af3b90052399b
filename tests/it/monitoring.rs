//! The dashboard and the alert rules ask for metrics and labels that a daemon really has, and `docs/metrics.md` names
//! them all.

use crate::world::{World, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::process::Command;

const FILES: [&str; 3] =
    ["monitoring/alerts.yml", "monitoring/alerts-test.yml", "monitoring/grafana-dashboard.json"];

/// What Prometheus adds to every series.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// Every metric of a daemon with the labels that it has.
type Metrics = BTreeMap<String, BTreeSet<String>>;

#[test]
fn what_is_asked_for_is_there_and_documented() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    let metrics = until("every metric has a series", || {
        let metrics = metrics(&scrape(&world));
        // The last to come is the count of deliveries.
        metrics.contains_key("batchd_deliveries_total").then_some(metrics)
    });
    daemon.terminate();

    let mut wrong = Vec::new();
    for file in FILES {
        let text = std::fs::read_to_string(file).unwrap();
        let asked = asked(&text);
        assert!(!asked.is_empty(), "{file} asks for nothing");
        for (name, labels) in asked {
            match metrics.get(&name) {
                None => wrong.push(format!("{file}: there is no metric {name}")),
                Some(known) => wrong.extend(
                    labels
                        .iter()
                        .filter(|label| !known.contains(*label) && !SCRAPED.contains(&label.as_str()))
                        .map(|label| format!("{file}: {name} has no label {label}")),
                ),
            }
        }
    }
    let page = std::fs::read_to_string("docs/metrics.md").unwrap();
    for (name, labels) in &metrics {
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let shown = page.lines().find(|line| {
            line.strip_prefix("| `")
                .and_then(|line| line.strip_prefix(base))
                .is_some_and(|rest| rest.starts_with('`') || rest.starts_with('{'))
        });
        match shown {
            None => wrong.push(format!("docs/metrics.md does not name {base}")),
            Some(line) => {
                let listed = line.split('`').nth(1).unwrap_or_default();
                let missing =
                    labels.iter().filter(|label| *label != "le" && !listed.contains(label.as_str()));
                wrong.extend(missing.map(|label| format!("docs/metrics.md: {base} has a label {label}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Prometheus' own tool takes the rules, and they are set off by what they are for.
#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn the_rules_are_set_off_by_what_they_are_for() {
    let promtool = std::env::var("BATCHD_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    if Command::new(&promtool).arg("--version").output().is_err() {
        println!("skipped: there is no {promtool}; BATCHD_PROMTOOL names one (Debian: prometheus)");
        return;
    }
    for (task, file) in [("check", "monitoring/alerts.yml"), ("test", "monitoring/alerts-test.yml")] {
        let checked = Command::new(&promtool).args([task, "rules", file]).output().unwrap();
        assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
    }
}

#[test]
fn names_and_labels_are_found_in_an_expression() {
    let found = asked(
        r#"rate(batchd_polls_total{job="$job",result!="ok, {x}"}[5m]) / process_open_fds{\"le\"=\"1\"}"#,
    );
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].0, "batchd_polls_total");
    assert_eq!(found[0].1, ["job", "result"]);
    assert_eq!(found[1].0, "process_open_fds");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scrape(world: &World) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn metrics(scraped: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in scraped.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name: String = line.chars().take_while(|c| is_of_name(*c)).collect();
        let labels = line[name.len()..].strip_prefix('{').map(labels).unwrap_or_default();
        metrics.entry(name).or_default().extend(labels);
    }
    metrics
}

/// The metrics that a text of any kind asks for, each with the labels that it is asked for by.
fn asked(text: &str) -> Vec<(String, Vec<String>)> {
    // In JSON, quotes of an expression are escaped.
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    for prefix in ["batchd_", "process_"] {
        for (at, _) in text.match_indices(prefix) {
            if text[..at].chars().next_back().is_some_and(is_of_name) {
                continue;
            }
            let name: String = text[at..].chars().take_while(|c| is_of_name(*c)).collect();
            let labels = text[at + name.len()..].strip_prefix('{').map(labels).unwrap_or_default();
            found.push((name, labels));
        }
    }
    found
}

/// The names of the labels in what stands behind `{`, up to its end.
fn labels(matchers: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    for c in matchers.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '}' => break,
            '=' | '!' | '~' if !name.is_empty() => names.push(std::mem::take(&mut name)),
            c if is_of_name(c) => name.push(c),
            _ => name.clear(),
        }
    }
    names
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
