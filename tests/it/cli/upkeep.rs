//! Commands that look after the daemon: `backup`, `webhooks`, `providers`, `deliveries`, `reload`, `status`.

use super::stand_in::Daemon;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_backup_is_whole_and_private_or_not_there() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.db");
    let name = file.to_str().unwrap();
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();

    daemon.run(&["backup", name]).code(0).says("390 KiB");
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[399_999]), (400_000, b'a', b'd'));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::write(&file, "precious").unwrap();
    daemon.run(&["backup", name]).code(1).says("exists\nhint: --force replaces it");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    daemon.run(&["backup", "--force", name]).code(0);
    assert_eq!(std::fs::read(&file).unwrap().len(), 400_000);

    daemon.world(|world| world.cut_backup = true);
    daemon.run(&["backup", "--force", name]).code(69).says("connection to the daemon was lost");
    assert_eq!(std::fs::read(&file).unwrap().len(), 400_000);
    assert_eq!(entries(), 1, "nothing half-written is left");
    daemon.run(&["backup", "/nowhere/copy.db"]).code(1).says("no such file or directory");
}

#[test]
fn a_webhook_test_shows_the_answer() {
    let daemon = Daemon::start();
    let good = daemon.run(&["webhooks", "test", "good", "--event", "batch.failed"]).code(0);
    assert_eq!(good.out, "✓ good: delivered, HTTP 200, 12 ms\n    hello\\u{1b}[2J\n    world\n");
    let bad = daemon.run(&["webhooks", "test", "bad", "--event", "batch.failed"]).code(1);
    assert!(
        bad.out.starts_with("✗ bad: not delivered, HTTP 500, 12 ms: 500 Internal Server Error\n"),
        "{}",
        bad.out
    );
    let json = daemon.run(&["webhooks", "test", "bad", "--event", "batch.failed", "--json"]).code(1).json();
    assert_eq!(json["delivered"], false);
}

#[test]
fn providers_are_checked_one_line_each() {
    let daemon = Daemon::start();
    assert_eq!(daemon.run(&["providers", "check"]).code(0).out, "✓ gemini  ok (5 ms)\n");
    let refused = daemon.run(&["providers", "check", "openai"]).code(77).out;
    assert_eq!(refused, "✗ openai  401: invalid key (5 ms)\n          set OPENAI_API_KEY to a valid key\n");
    daemon.run(&["providers", "check", "mistral"]).code(1);
}

#[test]
fn a_refused_reload_says_why() {
    let daemon = Daemon::start();
    daemon
        .run(&["reload"])
        .code(78)
        .says("error: config.toml:3:1: unknown key `pollin`\nconfig.toml:9:1: `url` is missing\n");
}

#[test]
fn deliveries_are_listed_and_sent_again() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let delivery = |id: &str, state: &str| {
            json!({"id": id, "object": "delivery", "event_id": "evt_1", "type": "batch.completed",
                "batch_id": "batch_1", "provider": "openai", "webhook": "ops", "state": state, "attempts": 2,
                "next_attempt_at": null, "last_error": "500"})
        };
        world.page = 1;
        world.deliveries = vec![delivery("42", "dead"), delivery("41", "delivered")];
    });
    let all = daemon.run(&["deliveries", "--json"]).code(0).json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    assert_eq!(all["data"][0]["state"], "dead");
    let dead = daemon.run(&["deliveries", "--state", "dead"]).code(0).out;
    assert!(dead.contains("42") && !dead.contains("41"), "{dead}");
    daemon.run(&["deliveries", "retry", "41"]).code(0).says("41: due now");
    daemon.run(&["deliveries", "retry", "7", "41"]).code(1).says("error: 7: no such delivery\n41: due now");
    daemon
        .run(&["deliveries", "retry", "--dead", "--webhook", "ops"])
        .code(0)
        .says("3 deliveries are due now");
    let asked = daemon.world(|world| world.requests.last().unwrap().clone());
    assert_eq!(asked, ("POST /v1/deliveries/retry".to_owned(), json!({"webhook": "ops"})));
}

#[test]
fn the_status_is_one_screen() {
    let daemon = Daemon::start();
    insta::assert_snapshot!(daemon.run(&["status"]).code(0).out, @r"
    attention  nothing needs a person
    batchd     0.1.0, ready, up 4 h 6 m, since 2026-11-18 07:00:00 UTC, pid 1
    config     no file; keys come from the environment
    state      /var/lib/batchd
    backup     none yet; `batchd backup FILE` makes one
    batches    none yet
    polling    nothing due
    events     0
    owed       nothing
    providers  none
    webhooks   none
    ");
    let report: BTreeMap<String, Value> =
        serde_json::from_str(&daemon.run(&["status", "--json"]).code(0).out).unwrap();
    assert!(report.contains_key("uptime_seconds"));
}
