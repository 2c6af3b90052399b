//! What the daemon tells by the clock: heartbeats and digests, and whom its filters choose, over real sockets.

use crate::world::{PATH_SECRET, World, until};
use serde_json::{Value, json};

/// A heartbeat for as long as all is well; its address shows nowhere.
#[test]
fn heartbeats_go_out_and_their_address_is_a_secret() {
    let world = World::new();
    world.configure(&format!(
        "[heartbeat]\nurl = \"http://{}/heart/{PATH_SECRET}\"\nevery = \"1s\"\n",
        world.receiver_address
    ));
    let daemon = world.daemon();
    let beats = world.receiver.wait_for("/heart", 3);
    assert_eq!(beats[0].method, "GET");
    assert!(beats[0].body.is_empty());
    // A receiver in trouble is told of in the log, once and without its address.
    world.receiver.answer(503, "no");
    until("the trouble is told", || daemon.log().contains("cannot send the heartbeat").then_some(()));
    world.receiver.answer(200, "ok");
    let shown = format!("{}{}{}", daemon.log(), world.ok(&["config", "show"]), world.ok(&["status"]));
    assert!(!shown.contains(PATH_SECRET), "{shown}");
    daemon.terminate();
}

/// A digest at its turn, to exactly those that it names.
#[test]
fn a_digest_goes_to_whom_it_names() {
    let world = World::new();
    let digest = "[digests.every_minute]\ncron = \"* * * * *\"\ntimezone = \"Europe/Berlin\"\nwebhooks = [\"pipeline\"]\n";
    world.configure(digest);
    world.provider.complete("batch_1");
    world.provider.put("batch_2", "in_progress", &json!({}));
    let daemon = world.daemon();
    until("its beginning is noted", || {
        let jobs = world.json(&["status", "--json"])["jobs"].clone();
        jobs.as_array().unwrap().iter().any(|job| job["name"] == "digest every_minute").then_some(())
    });
    world.ok(&["track", "batch_1", "batch_2"]);
    world.receiver.wait_for("/hooks", 1);
    // A daemon that is down at a turn catches up at its start: no test waits for a minute.
    daemon.terminate();
    let state = rusqlite::Connection::open(world.state().join("batchd.db")).unwrap();
    state
        .execute("UPDATE jobs SET started_at = started_at - 7200000 WHERE name LIKE 'digest %'", [])
        .unwrap();
    drop(state);
    let daemon = world.daemon();
    let told = until("the digest", || {
        let received = world.receiver.received("/hooks");
        received.into_iter().map(|request| request.json()).find(|body| body["type"] == "batchd.digest")
    });
    let data = &told["data"];
    assert_eq!(data["name"], "every_minute");
    assert_eq!(data["counts"], json!({"ended": 1, "outcomes": {"succeeded": 1}, "running": 1, "stuck": 0}));
    assert_eq!(data["ended"][0]["id"], "batch_1");
    assert_eq!(data["running"][0]["id"], "batch_2");
    assert!(data["since"].as_str() < data["until"].as_str(), "{data}");
    let owed = world.json(&["deliveries", "--json"]);
    let digests: Vec<&Value> =
        owed["data"].as_array().unwrap().iter().filter(|one| one["type"] == "batchd.digest").collect();
    assert!(digests.iter().all(|one| one["webhook"] == "pipeline"), "{digests:?}");
    daemon.terminate();
}

/// Who gets what by filters, by `--notify` and by `on_request`.
#[test]
fn filters_and_requests_choose_who_is_told() {
    let world = World::new();
    let webhook = |name: &str, more: &str| {
        format!("[webhooks.{name}]\nurl = \"http://{}/{name}\"\n{more}\n", world.receiver_address)
    };
    world.configure(
        &[
            webhook("evals", "labels = { team = \"evals\" }"),
            webhook("errors", "severity = \"error\""),
            webhook("elsewhere", "providers = [\"openai\"]\nevents = [\"batch.failed\"]"),
            webhook("asked", "on_request = true"),
        ]
        .concat(),
    );
    let daemon = world.daemon();
    world.provider.complete("batch_1");
    world.provider.complete("batch_2");
    world.provider.put("batch_3", "failed", &json!({}));
    world.provider.complete("batch_4");
    world.ok(&["track", "batch_1", "--label", "team=evals"]);
    world.ok(&["track", "batch_2", "--notify", "asked"]);
    world.ok(&["track", "batch_3"]);
    world.ok(&["track", "batch_4", "--no-notify"]);
    world.receiver.wait_for("/hooks", 3);
    let ids = |path: &str, count: usize| {
        let received = world.receiver.wait_for(path, count);
        let mut ids: Vec<String> =
            received.iter().map(|one| one.json()["data"]["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("/evals", 1), ["batch_1"]);
    assert_eq!(ids("/errors", 1), ["batch_3"]);
    assert_eq!(ids("/elsewhere", 1), ["batch_3"]);
    assert_eq!(ids("/asked", 1), ["batch_2"]);
    assert_eq!(ids("/hooks", 3), ["batch_1", "batch_2", "batch_3"]);

    // Switched off, what it is owed is held; switched on, it goes out.
    world.ok(&["webhooks", "disable", "errors"]);
    world.provider.put("batch_5", "failed", &json!({}));
    world.ok(&["track", "batch_5"]);
    let held = until("it is held", || {
        let held = world.json(&["deliveries", "--state", "held", "--json"]);
        held["data"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&held["webhook"], &held["batch_id"]), (&json!("errors"), &json!("batch_5")));
    assert_eq!(world.receiver.received("/errors").len(), 1);
    world.ok(&["webhooks", "enable", "errors"]);
    assert_eq!(ids("/errors", 2), ["batch_3", "batch_5"]);
    daemon.terminate();
}
