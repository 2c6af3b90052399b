//! What a person, a script or a program sees of the real binary, held to the contract's words.

use crate::world::{Daemon, KEY, World, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::Output;

/// A request over the socket: the status, and the body as text.
fn ask(world: &World, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A second account at the same service.
fn with_second_account(world: &World) {
    world.configure(&format!(
        "[providers.second]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{}/v1\"\n",
        world.provider_address
    ));
}

/// An id that two providers have is an error that lists them, on every way in.
#[test]
fn an_id_that_two_providers_have_must_be_told_apart() {
    let world = World::new();
    with_second_account(&world);
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    let bare = world.batchd(&["track", "batch_1"]);
    assert_eq!(bare.status.code(), Some(2), "{bare:?}");
    assert!(err(&bare).contains("openai:batch_1 or second:batch_1"), "{bare:?}");
    world.ok(&["track", "openai:batch_1", "--name", "first"]);
    // Known at one only: that one.
    assert_eq!(world.json(&["show", "batch_1", "--json"])["batchd"]["provider"], "openai");
    world.ok(&["track", "second:batch_1"]);
    for command in [&["show"][..], &["wait"], &["poll"], &["get"], &["untrack"], &["events"]] {
        let output = world.batchd(&[command, &["batch_1"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}: {output:?}");
        assert!(err(&output).contains("openai:batch_1 or second:batch_1"), "{command:?}: {output:?}");
    }
    let (status, body) = ask(&world, "GET", "/v1/batches/batch_1", "");
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("openai:batch_1 or second:batch_1"), "{body}");
    let (status, body) = ask(&world, "GET", "/v1/batches/openai:batch_1", "");
    assert_eq!(status, 200, "{body}");
    // As a cursor too, and cursors that need it have it.
    let listed = world.json(&["list", "--json"]);
    assert_eq!(listed["first_id"], "second:batch_1");
    let (status, body) = ask(&world, "GET", "/v1/batches?after=second:batch_1", "");
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &page["data"][0]["batchd"]["provider"]), (200, &json!("openai")), "{body}");

    let torn = world.batchd(&["track", "openai:batch_2", "--provider", "second", "--no-check"]);
    assert_eq!(torn.status.code(), Some(2), "{torn:?}");
    assert!(err(&torn).contains("`openai`, not `second`"), "{torn:?}");
    let empty = world.batchd(&["track", "openai:", "--no-check"]);
    assert_eq!(empty.status.code(), Some(2), "{empty:?}");
    assert!(err(&empty).contains("not the id of a batch"), "{empty:?}");
    daemon.terminate();
}

/// Ids with a slash in them work in paths, encoded or not.
#[test]
fn an_id_with_a_slash_is_one_id() {
    let world = World::new();
    let daemon = world.daemon();
    let (status, body) = ask(&world, "PUT", "/v1/batches/openai:batches/a1", r#"{"check":false}"#);
    assert_eq!(status, 201, "{body}");
    for path in ["batches/a1", "batches%2Fa1", "openai:batches/a1", "openai%3Abatches%2Fa1"] {
        let (status, body) = ask(&world, "GET", &format!("/v1/batches/{path}"), "");
        assert_eq!(status, 200, "{path}: {body}");
        let (status, body) = ask(&world, "GET", &format!("/v1/batches/{path}/events"), "");
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (status, body) = ask(&world, "DELETE", "/v1/batches/batches/a1?purge=true", "");
    assert_eq!(status, 200, "{body}");
    let (status, _) = ask(&world, "GET", "/v1/batches/batches/a1", "");
    assert_eq!(status, 404);
    daemon.terminate();
}

/// `get` changes nothing and does not pretend to track.
#[test]
fn a_look_at_an_untracked_batch_leaves_no_trace() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    let seen = world.json(&["get", "batch_1", "--json"]);
    assert_eq!(seen["status"], "completed");
    assert_eq!(seen["batchd"]["tracked_at"], Value::Null);
    assert_eq!(seen["batchd"]["owner"], Value::Null);
    assert_eq!(world.json(&["list", "--all", "--json"])["data"], json!([]));
    assert_eq!(world.json(&["events", "--json"])["data"], json!([]));
    daemon.terminate();
}

/// Every list says what it covers; the event of an end plans no look.
#[test]
fn lists_have_their_envelope_and_ends_plan_nothing() {
    let world = World::new();
    world.provider.complete("batch_1");
    world.provider.complete("batch_2");
    let daemon = world.daemon();
    for arguments in
        [&["track", "batch_1", "batch_2", "--json"][..], &["wait", "batch_1", "batch_2", "--json"]]
    {
        let list = world.json(arguments);
        assert_eq!(list["object"], "list");
        assert_eq!([&list["first_id"], &list["last_id"]], ["batch_1", "batch_2"], "{list}");
        assert_eq!(list["has_more"], false);
    }
    let webhooks = world.json(&["webhooks", "--json"]);
    assert_eq!([&webhooks["first_id"], &webhooks["last_id"]], ["ops", "pipeline"]);
    let events = world.json(&["events", "batch_1", "--json"]);
    assert_eq!(events["data"][0]["data"]["previous_status"], Value::Null);
    assert_eq!(events["data"][0]["data"]["batch"]["batchd"]["next_poll_at"], Value::Null);
    daemon.terminate();
}

/// Every name, also while nothing is owed; histograms end in `+Inf`.
#[test]
fn metrics_are_all_there_from_the_start() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    let (_, before) = ask(&world, "GET", "/metrics", "");
    for line in [
        "batchd_pending_deliveries{webhook=\"pipeline\",state=\"pending\"} 0",
        "batchd_oldest_pending_delivery_seconds{webhook=\"ops\"} 0",
        "batchd_config_last_reload_successful 1",
        "batchd_commit_seconds_bucket{le=\"+Inf\"}",
        "batchd_poll_lag_seconds_bucket{le=\"+Inf\"}",
        "batchd_polls_total{provider=\"openai\",result=\"ok\"} 0",
        "batchd_polls_total{provider=\"openai\",result=\"unauthorized\"} 0",
        "batchd_polls_total{provider=\"openai\",result=\"http_5xx\"} 0",
        "batchd_events_total{type=\"batch.completed\"} 0",
        "batchd_events_total{type=\"webhook.delivery_dead\"} 0",
        "batchd_deliveries_total{webhook=\"pipeline\",outcome=\"delivered\"} 0",
        "batchd_deliveries_total{webhook=\"ops\",outcome=\"dead\"} 0",
        "batchd_schedule_repaired_total{provider=\"openai\"} 0",
    ] {
        assert!(before.contains(line), "{line} is missing:\n{before}");
    }
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    for line in [
        "batchd_batches{provider=\"openai\",status=\"completed\"} 1",
        "batchd_polls_total{provider=\"openai\",result=\"ok\"} ",
        "batchd_last_poll_success_timestamp_seconds{provider=\"openai\"}",
        "batchd_events_total{type=\"batch.completed\"} 1",
        "batchd_deliveries_total{webhook=\"pipeline\",outcome=\"delivered\"} 1",
    ] {
        until(line, || ask(&world, "GET", "/metrics", "").1.contains(line).then_some(()));
    }
    daemon.terminate();
}

/// A counter is named by its sample for whoever does not ask for `OpenMetrics`.
#[test]
fn metrics_suit_who_asks() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["get", "batch_1"]);
    let (_, text) = ask(&world, "GET", "/metrics", "");
    assert!(text.contains("\n# TYPE batchd_polls_total counter\n"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    // An answer that somebody asked for by hand is one, too.
    assert!(text.contains("batchd_last_poll_success_timestamp_seconds{provider=\"openai\"}"), "{text}");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: batchd\r\naccept: {accept}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("\n# TYPE batchd_polls counter\n") && answer.ends_with("# EOF\n"), "{answer}");
    daemon.terminate();
}

/// What is odd is said once, and neither ends a batch nor fills the log.
#[test]
fn oddities_are_said_once() {
    let world = World::new();
    world.provider.put("batch_1", "pondering", &json!({"metadata": 7}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let shown = world.json(&["show", "batch_1", "--json"]);
    assert_eq!(shown["status"], "in_progress");
    assert_eq!(shown["batchd"]["provider_status"], "pondering");
    until("it is checked again", || (daemon.log().matches("unchanged").count() > 1).then_some(()));
    assert_eq!(daemon.log().matches("pondering").count(), 1, "{}", daemon.log());
    world.provider.fault(Some((500, "{\"error\":{\"message\":\"out of order\"}}")));
    until("it fails again", || {
        (daemon.log().matches("the batch still cannot be checked: ").count() > 1).then_some(())
    });
    assert_eq!(daemon.log().matches("cannot check the batch").count(), 1, "{}", daemon.log());
    daemon.terminate();
}

/// A warning is labelled once, wherever it shows.
#[test]
fn a_warning_of_the_configuration_is_labelled_once() {
    let world = World::new();
    world.configure(&format!(
        "[providers.inline]\nkind = \"openai\"\napi_key = \"{KEY}\"\nbase_url = \"http://{}/v1\"\n",
        world.provider_address
    ));
    let daemon = world.daemon();
    let status = world.ok(&["status"]);
    let report = world.json(&["status", "--json"]);
    let reload = err(&world.batchd(&["reload"]));
    assert!(report["warnings"][0].as_str().unwrap().contains("providers.inline.api_key"), "{report}");
    for text in [daemon.log(), status, report.to_string(), reload] {
        assert!(!text.contains(": warning: "), "{text}");
    }
    daemon.terminate();
}

/// A deadline that passes is told once.
#[test]
fn a_deadline_that_passes_is_told() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "--name", "nightly", "--deadline", "1s"]);
    let slack = world.receiver.wait_for("/slack", 1)[0].json();
    assert!(slack.to_string().contains("nightly is late"), "{slack}");
    until("it is checked again", || (daemon.log().matches("unchanged").count() > 3).then_some(()));
    let events = world.json(&["events", "batch_1", "--json"]);
    let kinds: Vec<&Value> = events["data"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["batch.in_progress", "batch.overdue"]);
    assert_eq!(events["data"][1]["data"]["severity"], "warning");
    daemon.terminate();
}

/// A batch whose provider has left the file is kept, not polled, and shown so.
#[test]
fn a_batch_whose_provider_is_gone_is_kept_and_shown_so() {
    let world = World::new();
    with_second_account(&world);
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "second:batch_1"]);
    world.configure("");
    world.ok(&["reload"]);
    assert!(world.ok(&["status"]).contains("1 batch is not polled: provider second is not"));
    assert!(world.ok(&["list"]).contains("not in the configuration: not polled"));
    let shown = world.json(&["show", "second:batch_1", "--json"]);
    assert_eq!(shown["batchd"]["next_poll_at"], Value::Null);
    assert_eq!(shown["batchd"]["schedule"]["next_poll_at"], Value::Null);
    assert!(shown["batchd"]["last_error"].as_str().unwrap().contains("`second`"), "{shown}");
    // It comes back with its provider.
    with_second_account(&world);
    world.ok(&["reload"]);
    world.provider.complete("batch_1");
    assert_eq!(world.batchd(&["wait", "batch_1", "--timeout", "20s"]).status.code(), Some(0));
    daemon.terminate();
}

/// What is held cannot be sent again, and it says what can be done.
#[test]
fn a_held_delivery_says_how_to_go_on() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["webhooks", "disable", "pipeline"]);
    world.ok(&["track", "batch_1"]);
    let held = world.json(&["deliveries", "--state", "held", "--json"]);
    let id = held["data"][0]["id"].as_str().unwrap();
    let refused = world.batchd(&["deliveries", "retry", id]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(err(&refused).contains("batchd webhooks enable pipeline"), "{refused:?}");
    let absent = world.batchd(&["deliveries", "retry", "99999"]);
    assert!(err(&absent).contains("there is no delivery 99999"), "{absent:?}");
    world.ok(&["webhooks", "enable", "pipeline"]);
    world.receiver.wait_for("/hooks", 1);
    daemon.terminate();
}

#[test]
fn a_provider_that_nobody_knows_is_no_empty_list() {
    let world = World::new();
    let daemon = world.daemon();
    assert_eq!(world.json(&["list", "--provider", "openai", "--json"])["data"], json!([]));
    let output = world.batchd(&["list", "--provider", "opnai"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(err(&output).contains("openai"), "{output:?}");
    daemon.terminate();
}

#[test]
fn what_the_server_itself_refuses_has_the_shape_of_every_error() {
    let world = World::new();
    let daemon = world.daemon();
    for (method, path, status) in
        [("GET", "/v1/batches/%ff", 400), ("PUT", "/v1/status", 405), ("GET", "/v1/nothing", 404)]
    {
        let (answered, body) = ask(&world, method, path, "");
        assert_eq!(answered, status, "{path}: {body}");
        let body: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert!(body["error"]["message"].is_string() && body["error"]["code"].is_string(), "{body}");
    }
    daemon.terminate();
}

/// `status --check` fails where something needs a person, and the screen says how much does.
#[test]
fn a_status_that_is_checked_fails_when_something_needs_a_person() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    world.provider.put("batch_2", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "batch_2"]);
    assert!(world.ok(&["status", "--check"]).contains("nothing needs a person"));
    // What is not tracked any more is no batch in validation, and nobody expects its end.
    world.ok(&["untrack", "batch_2"]);
    let status = world.json(&["status", "--json"]);
    assert_eq!((&status["batches"]["in_progress"], &status["batches"]["untracked"]), (&json!(1), &json!(1)));
    assert_eq!(world.json(&["show", "batch_2", "--json"])["batchd"]["eta"], Value::Null);
    let (_, metrics) = ask(&world, "GET", "/metrics", "");
    assert!(metrics.contains(r#"batchd_batches{provider="openai",status="untracked"} 1"#), "{metrics}");

    world.provider.fault(Some((401, r#"{"error":{"message":"no"}}"#)));
    until("the key is refused", || {
        (world.batchd(&["status", "--check"]).status.code() == Some(1)).then_some(())
    });
    let screen = world.ok(&["status"]);
    assert!(screen.contains("✗ provider openai is refused"), "{screen}");
    assert!(screen.contains("1 problem needs a person"), "{screen}");
    assert!(
        daemon.log().lines().any(|line| line.contains("ERROR") && line.contains("401")),
        "{}",
        daemon.log()
    );
    let offline = world.batchd(&["--offline", "status"]);
    assert_eq!(offline.status.code(), Some(0), "{offline:?}");
    daemon.terminate();
    // When it is needed most.
    let offline = world.ok(&["--offline", "status"]);
    assert!(offline.contains("read from the state directory"), "{offline}");
    assert!(offline.contains("1 active of 2") && offline.contains("openai (refused)"), "{offline}");
    assert_eq!(world.batchd(&["--offline", "status", "--check"]).status.code(), Some(1));
}

/// A batch whose requests failed is an error in the log, so that `journalctl -p warning` shows it.
#[test]
fn an_end_is_logged_as_loudly_as_it_is_bad() {
    let world = World::new();
    for id in ["batch_1", "batch_2", "batch_3"] {
        world.provider.put(id, "in_progress", &json!({}));
    }
    let counts = |completed: u64| {
        let file = (completed > 0).then_some("file-out");
        json!({
            "request_counts": {"total": 4, "completed": completed, "failed": 4 - completed}, "output_file_id": file,
        })
    };
    let daemon = Daemon::start(world.command().env("JOURNAL_STREAM", "").args(["run"]));
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());
    world.ok(&["track", "batch_1", "batch_2", "batch_3"]);
    world.provider.put("batch_1", "completed", &counts(0));
    world.provider.put("batch_2", "completed", &counts(3));
    world.provider.complete("batch_3");
    for (id, level) in [("batch_1", "ERROR"), ("batch_2", "WARN"), ("batch_3", "INFO")] {
        let said = format!("{id} completed");
        until(&said, || daemon.log().contains(&said).then_some(()));
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains(&said)).unwrap();
        assert!(line.contains(level), "{line}");
    }
    // One that had failed when it was tracked is no less bad.
    world.provider.put("batch_4", "failed", &json!({}));
    world.ok(&["track", "batch_4"]);
    until("it is logged", || {
        daemon
            .log()
            .lines()
            .any(|line| line.contains("ERROR") && line.contains("batch_4 failed"))
            .then_some(())
    });
    let listed = world.ok(&["list", "--all"]);
    assert!(listed.contains("3 ok · 1 failed") && listed.contains("0 ok · 4 failed"), "{listed}");
    daemon.terminate();
}

/// A reload says what is different now, and what it leaves behind.
#[test]
fn a_reload_says_what_it_changes_and_what_it_leaves_behind() {
    let world = World::new();
    world.configure("[webhooks.broken]\nurl = \"http://127.0.0.1:1/x\"\n");
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let same = world.batchd(&["reload"]);
    assert!(err(&same).contains("reloaded: nothing has changed"), "{same:?}");

    world.configure("");
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("max_interval = \"1s\"", "max_interval = \"2s\"")).unwrap();
    // Before the reload the daemon's configuration is in force, and the file is not.
    let shown = world.batchd(&["config", "show"]);
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        page.starts_with("# in force in the running daemon") && page.contains("max_interval = \"1s\""),
        "{page}"
    );
    assert!(page.contains("[webhooks.broken]") && page.contains("/…\""), "{page}");
    assert!(err(&shown).contains("`batchd reload` would change: polling.max_interval 1s → 2s"), "{shown:?}");

    let changed = world.batchd(&["reload"]);
    assert_eq!(changed.status.code(), Some(0), "{changed:?}");
    let said = err(&changed);
    assert!(said.contains("polling.max_interval 1s → 2s"), "{said}");
    assert!(said.contains("webhooks.broken removed (1 delivery held)"), "{said}");
    assert!(daemon.log().contains("webhooks.broken removed (1 delivery held)"), "{}", daemon.log());
    let status = world.ok(&["status"]);
    assert!(status.contains("✗ 1 delivery is held: webhook broken is not in the configuration"), "{status}");
    assert!(status.contains("broken: 1 held, not in the configuration"), "{status}");
    let shown = world.batchd(&["config", "show"]);
    assert!(!err(&shown).contains("edited"), "{shown:?}");

    // What is wrong stands first, and nothing is printed as `\n`.
    std::fs::write(
        world.config(),
        text.replace("[polling]", "[polling]\nmin_intervall = \"1s\"\ntimout = \"1s\""),
    )
    .unwrap();
    let refused = world.batchd(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(err(&refused).lines().next().unwrap().contains("unknown key `min_intervall`"), "{refused:?}");
    let status = world.ok(&["status"]);
    assert!(status.contains("refused: ") && !status.contains("\\n"), "{status}");
    daemon.terminate();
    let shown = world.batchd(&["config", "show"]);
    assert_eq!(shown.status.code(), Some(78), "{shown:?}");
}

/// Without the service's own variables `config check` says how to do without them.
#[test]
fn a_check_in_a_shell_that_lacks_the_secrets_says_how_to_do_without() {
    let world = World::new();
    let checked = world.command().env_remove("TEST_KEY").args(["config", "check"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(78), "{checked:?}");
    assert!(err(&checked).contains("--no-secrets"), "{checked:?}");
    let without =
        world.command().env_remove("TEST_KEY").args(["config", "check", "--no-secrets"]).output().unwrap();
    assert_eq!(without.status.code(), Some(0), "{without:?}");
    // An error of another kind needs no such hint.
    let wrong = world.command().env("TEST_SIGNING", "short").args(["config", "check"]).output().unwrap();
    assert!(!err(&wrong).contains("--no-secrets"), "{wrong:?}");
}

/// A batch that has ended cannot be cancelled, and the error says how it ended.
#[test]
fn a_batch_that_has_ended_is_not_cancelled() {
    let world = World::new();
    world.provider.complete("batch_1");
    world.provider.put("batch_2", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let refused = world.batchd(&["cancel", "batch_1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(err(&refused).contains("has ended (completed, succeeded)"), "{refused:?}");
    let (status, body) = ask(&world, "POST", "/v1/batches/batch_1/cancel", "");
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("already_ended"), "{body}");
    // Whose end nobody has seen yet: this provider answers a cancellation with 405.
    let unseen = world.batchd(&["cancel", "openai:batch_1"]);
    assert_eq!(unseen.status.code(), Some(1), "{unseen:?}");
    world.ok(&["untrack", "batch_1", "--purge"]);
    let unseen = world.batchd(&["cancel", "openai:batch_1"]);
    assert!(err(&unseen).contains("has ended (completed, succeeded)"), "{unseen:?}");
    let live = world.batchd(&["cancel", "openai:batch_2"]);
    assert!(!err(&live).contains("has ended"), "{live:?}");
    daemon.terminate();
}

/// Where nothing could be tracked under an id, nobody is told to track it.
#[test]
fn an_id_of_an_unknown_provider_is_not_advised_to_be_tracked() {
    let world = World::new();
    let daemon = world.daemon();
    let absent = world.batchd(&["show", "nosuch:batch_1"]);
    assert_eq!(absent.status.code(), Some(66), "{absent:?}");
    assert!(err(&absent).contains("no provider `nosuch` is configured"), "{absent:?}");
    assert!(!err(&absent).contains("batchd track"), "{absent:?}");
    let known = world.batchd(&["show", "openai:batch_1"]);
    assert!(err(&known).contains("`batchd track openai:batch_1`"), "{known:?}");
    daemon.terminate();
    let offline = world.batchd(&["--offline", "show", "batch_1"]);
    assert!(!err(&offline).contains("batchd track"), "{offline:?}");
}

/// A client that is refused while it still sends reads an answer, not a broken connection.
#[test]
fn what_a_refused_client_still_sends_is_read_away() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("[api]", &format!("[api]\nlisten = \"{address}\""))).unwrap();
    let daemon = world.daemon();
    // More than any buffer on the way holds.
    let body = vec![b'x'; 32 << 20];
    for (path, status) in [("/v1/files", 403), ("/v1/nothing", 403), ("/hooks/openai", 413)] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len())
            .unwrap();
        stream.write_all(&body).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("\"error\""), "{path}: {answer}");
    }
    // Over the socket, where it may be done, but is no form.
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(stream, "POST /v1/files HTTP/1.1\r\nhost: batchd\r\ncontent-length: {}\r\n\r\n", body.len())
        .unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("multipart/form-data"), "{answer}");
    daemon.terminate();
}

/// A backup goes where it is sent: to standard output, through a link, into a pipe.
#[test]
fn a_backup_goes_where_it_is_sent() {
    let world = World::new();
    let daemon = world.daemon();
    let is_database = |bytes: &[u8]| bytes.starts_with(b"SQLite format 3\0");
    let output = world.batchd(&["backup", "-"]);
    assert!(output.status.success() && is_database(&output.stdout), "{}", err(&output));
    assert!(!std::path::Path::new("-").exists());
    let (target, link) = (world.directory.path().join("copy.db"), world.directory.path().join("latest"));
    std::os::unix::fs::symlink("copy.db", &link).unwrap();
    let link = link.to_str().unwrap();
    world.ok(&["backup", link]);
    assert_eq!(world.batchd(&["backup", link]).status.code(), Some(1));
    world.ok(&["backup", link, "--force"]);
    assert!(is_database(&std::fs::read(target).unwrap()));
    assert!(std::fs::symlink_metadata(link).unwrap().is_symlink());
    world.ok(&["backup", "/dev/null", "--force"]);
    daemon.terminate();
    let offline = world.batchd(&["--offline", "backup", "-"]);
    assert!(offline.status.success() && is_database(&offline.stdout), "{}", err(&offline));
}

#[test]
fn an_option_without_a_value_is_a_mistake() {
    let world = World::new();
    let file = world.directory.path().join("requests.jsonl");
    std::fs::write(&file, "{}\n").unwrap();
    for option in ["--model", "--provider", "--endpoint"] {
        let output = world.batchd(&["submit", file.to_str().unwrap(), option, ""]);
        assert_eq!(output.status.code(), Some(2), "{option}: {output:?}");
    }
}
