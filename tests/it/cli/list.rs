//! `batchd list`: filters, order, columns, ids alone, and the layout at any width.

use crate::world::World;
use serde_json::json;
use std::process::Output;

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Three batches of two models, one of which has ended.
fn world() -> World {
    let world = World::new();
    let at = |seconds: i64| batchd::clock::Clock::system().now().as_second() - seconds;
    let counts =
        |completed: u64, failed: u64| json!({"total": 120, "completed": completed, "failed": failed});
    world.provider.put(
        "batch_68fd8e2f1c0c8190a1b2c3d4e5f60718",
        "in_progress",
        &json!({"model": "gpt-5-mini", "created_at": at(7_200), "request_counts": counts(10, 2)}),
    );
    world.provider.put(
        "batch_2",
        "completed",
        &json!({"model": "gpt-5", "created_at": at(90_000), "completed_at": at(86_400), "output_file_id": "f",
            "error_file_id": "e", "request_counts": counts(98, 22)}),
    );
    world.provider.put("batch_3", "in_progress", &json!({"model": "o5", "created_at": at(60)}));
    world
}

fn track(world: &World) {
    world.ok(&["track", "batch_2", "--name", "Weekly Report", "--label", "team=evals"]);
    world.ok(&["track", "batch_68fd8e2f1c0c8190a1b2c3d4e5f60718", "--name", "nightly evals"]);
    world.ok(&["track", "batch_3"]);
}

#[test]
fn what_is_listed_is_filtered_sorted_and_chosen() {
    let world = world();
    let daemon = world.daemon();
    track(&world);
    let ids = |arguments: &[&str]| {
        let output = world.batchd(&[&["list", "-q"], arguments].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        let ends = out(&output);
        ends.lines().map(|id| id.chars().last().unwrap()).collect::<String>()
    };
    assert_eq!(ids(&[]), "38");
    assert_eq!(ids(&["-a"]), "382");
    assert_eq!(ids(&["-a", "-n", "2"]), "38");
    assert_eq!(ids(&["-a", "--model", "gpt-5"]), "2");
    assert_eq!(ids(&["-a", "--model", "gpt-5*"]), "82");
    assert_eq!(ids(&["-a", "--search", "REPORT"]), "2");
    assert_eq!(ids(&["-a", "--search", "team=ev"]), "2");
    assert_eq!(ids(&["-a", "--search", "1c0c8190"]), "8");
    assert_eq!(ids(&["-a", "--since", "1h"]), "3");
    assert_eq!(ids(&["-a", "--since", "2020-01-01T00:00:00Z"]), "382");
    assert_eq!(ids(&["-a", "--sort", "created"]), "283");
    assert_eq!(ids(&["-a", "--sort", "-created"]), "382");
    assert_eq!(ids(&["-a", "--sort", "name"]), "823");
    // The newest two, in the order that was asked for.
    assert_eq!(ids(&["-a", "-n", "2", "--sort", "created"]), "83");
    let sorted = world.json(&["list", "-a", "--sort", "created", "--json"]);
    assert_eq!((&sorted["data"][0]["id"], sorted["has_more"].as_bool()), (&json!("batch_2"), Some(false)));
    let chosen = out(&world.batchd(&["list", "-a", "--columns", "name,result,labels", "--sort", "name"]));
    assert!(
        chosen.starts_with(
            "NAME           RESULT   LABELS\nnightly evals\nWeekly Report  partial  team=evals\n"
        ),
        "{chosen}"
    );
    for wrong in [&["--since", "soon"][..], &["--sort", "size"], &["--columns", "id,size"]] {
        assert_eq!(world.batchd(&[&["list"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    let listed = world.batchd(&["list", "-a"]);
    let (text, footer) = (out(&listed), String::from_utf8_lossy(&listed.stderr).into_owned());
    assert!(text.contains("98 ok · 22 failed") && text.contains("12/120  10% · 2 failed"), "{text}");
    assert!(footer.contains("3 batches: ") && footer.contains("ok · "), "{footer}");
    daemon.terminate();
    assert_eq!(
        out(&world.batchd(&["--offline", "list", "-q", "-a", "--search", "nightly"])).lines().count(),
        1
    );
}

#[test]
fn the_layout_holds_at_any_width() {
    use unicode_width::UnicodeWidthStr as _;
    let world = world();
    let daemon = world.daemon();
    track(&world);
    for columns in [20_usize, 40, 60, 80, 120] {
        let output =
            world.command().env("COLUMNS", columns.to_string()).args(["list", "-a"]).output().unwrap();
        let text = out(&output);
        assert!(text.lines().all(|line| line.width() <= columns), "{columns}:\n{text}");
        for word in ["in_progress", "nightly"] {
            assert!(text.contains(word), "{columns}: {word}:\n{text}");
        }
        if columns >= 60 {
            let header = text.lines().next().unwrap();
            assert!(["NAME", "STATUS", "PROGRESS"].iter().all(|title| header.contains(title)), "{text}");
        }
    }
    daemon.terminate();
}
