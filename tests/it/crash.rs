//! The real binary, killed at named places, and what the next start makes of it; numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::world::{Daemon, Received, SIGNING, World, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// A daemon that dies when it comes to `place`.
fn doomed(world: &World, place: &str) -> Daemon {
    let daemon = Daemon::start(world.command().args(["-vv", "run"]).env("BATCHD_FAILPOINT", place));
    until("the daemon answers or is over", || {
        let answers = std::os::unix::net::UnixStream::connect(world.socket()).is_ok();
        (answers || daemon.is_over()).then_some(())
    });
    daemon
}

fn dies(daemon: &Daemon) {
    let status = daemon.end();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status:?}: {}", daemon.log());
}

/// What the generic webhook got of a batch.
fn sightings(world: &World, batch: &str) -> Vec<Received> {
    let received = world.receiver.received("/hooks").into_iter();
    received.filter(|received| received.json()["data"]["id"] == batch).collect()
}

/// The attempts at the generic webhook's delivery of a batch's end.
fn attempts(world: &World, batch: &str) -> Vec<Value> {
    let shown = world.json(&["show", batch, "--json"]);
    let deliveries = shown["batchd"]["deliveries"].as_array().unwrap();
    let delivery = deliveries.iter().find(|delivery| delivery["webhook"] == "pipeline").unwrap();
    delivery["log"].as_array().unwrap().clone()
}

fn state(world: &World, webhook: &str, batch: &str) -> String {
    let deliveries = world.json(&["deliveries", "--webhook", webhook, "--json"]);
    let deliveries = deliveries["data"].as_array().unwrap();
    let delivery = deliveries.iter().find(|delivery| delivery["batch_id"] == batch);
    delivery.map_or_else(String::new, |delivery| delivery["state"].as_str().unwrap().to_owned())
}

/// Tracks a batch, lets it end, and lets the daemon die at `place`; then starts one that does not.
fn die_at(place: &str, before: usize) -> (World, Daemon) {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = doomed(&world, place);
    world.ok(&["track", "batch_1"]);
    world.provider.complete("batch_1");
    dies(&daemon);
    assert_eq!(sightings(&world, "batch_1").len(), before, "before the death");
    let daemon = world.daemon();
    until("it is delivered", || (state(&world, "pipeline", "batch_1") == "delivered").then_some(()));
    (world, daemon)
}

/// What came later is delivered, and by then nothing more has come of the first.
fn nothing_more_comes(world: &World, count: usize) {
    world.provider.complete("batch_2");
    world.ok(&["track", "batch_2"]);
    until("the next one is told", || (!sightings(world, "batch_2").is_empty()).then_some(()));
    let seen = sightings(world, "batch_1");
    assert_eq!(seen.len(), count);
    for one in &seen {
        Webhook::new(SIGNING).unwrap().verify(&one.body, &one.headers).unwrap();
        assert_eq!((one.id(), &one.body), (seen[0].id(), &seen[0].body), "I4");
    }
    let events = world.json(&["events", "batch_1", "--json"]);
    let ends = events["data"].as_array().unwrap().iter().filter(|event| event["type"] == "batch.completed");
    assert_eq!(ends.count(), 1, "I1");
}

#[test]
fn a1_killed_before_the_commit_nothing_is_recorded_and_it_is_seen_again() {
    let (world, daemon) = die_at("store.commit=batch.completed", 0);
    nothing_more_comes(&world, 1);
    assert_eq!(attempts(&world, "batch_1").len(), 1);
    daemon.terminate();
}

#[test]
fn a2_killed_right_after_the_commit_it_is_delivered_at_the_next_start() {
    let (world, daemon) = die_at("store.committed=batch.completed", 0);
    nothing_more_comes(&world, 1);
    assert_eq!(attempts(&world, "batch_1").len(), 1);
    daemon.terminate();
}

#[test]
fn a3_killed_after_the_attempt_is_logged_it_is_sent_once() {
    let (world, daemon) = die_at("deliver.logged=pipeline", 0);
    nothing_more_comes(&world, 1);
    let attempts = attempts(&world, "batch_1");
    assert_eq!(attempts[0]["outcome"], "unknown_crash");
    assert_eq!((&attempts[1]["outcome"], &attempts[1]["trigger"]), (&json!("delivered"), &json!("startup")));
    daemon.terminate();
}

#[test]
fn a5_killed_after_the_answer_was_read_it_is_sent_twice_under_one_id() {
    let (world, daemon) = die_at("deliver.answered=pipeline", 1);
    nothing_more_comes(&world, 2);
    assert_eq!(attempts(&world, "batch_1")[0]["outcome"], "unknown_crash");
    daemon.terminate();
}

#[test]
fn a6_killed_after_the_result_is_recorded_it_is_not_sent_again() {
    let (world, daemon) = die_at("deliver.recorded=pipeline", 1);
    nothing_more_comes(&world, 1);
    assert_eq!(attempts(&world, "batch_1").len(), 1);
    daemon.terminate();
}

/// Lets the waits of suspects pass.
fn hours_pass(world: &World) {
    let database = rusqlite::Connection::open(world.state().join("batchd.db")).unwrap();
    database
        .execute("UPDATE deliveries SET due_at = 0 WHERE state = 'pending' AND crashes >= 3", [])
        .unwrap();
}

/// What may come of a daemon that has something to deliver that kills it.
enum Next {
    Died,
    Waits,
    GivenUp,
}

/// Whether all that is owed waits as suspects do, for longer than a test would.
fn suspects_wait(world: &World) -> bool {
    let database = rusqlite::Connection::open(world.state().join("batchd.db")).unwrap();
    let owed = "SELECT count(*) > 0 AND min(crashes >= 3 AND due_at > 1000 * unixepoch() + 5000)
         FROM deliveries WHERE state IN ('pending', 'inflight')";
    database.query_row(owed, [], |row| row.get(0)).unwrap()
}

/// How many attempts were under way when the daemon was told to stop.
fn interrupted(world: &World) -> i64 {
    let database = rusqlite::Connection::open(world.state().join("batchd.db")).unwrap();
    let count = "SELECT count(*) FROM attempts JOIN deliveries ON deliveries.pk = delivery
         WHERE outcome = 'interrupted' AND webhook = 'pipeline'";
    database.query_row(count, [], |row| row.get(0)).unwrap()
}

#[test]
fn a10_a_harmless_delivery_is_not_given_up_however_often_somebody_kills_the_daemon() {
    let world = World::new();
    // One webhook alone: two suspects would wait for each other.
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.split("[webhooks.ops]").next().unwrap()).unwrap();
    world.receiver.hang(true);
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    daemon.kill();
    for deaths in 2..=6 {
        let daemon = world.daemon();
        if deaths <= 3 {
            world.receiver.wait_for("/hooks", deaths);
        }
        // From the fourth start on it waits, and who kills the daemon then does not hit it.
        daemon.kill();
    }
    assert_eq!(world.receiver.received("/hooks").len(), 3);
    // Told to stop, and killed before it has: no death either.
    hours_pass(&world);
    for begun in 0..4 {
        let daemon = world.daemon();
        world.receiver.wait_for("/hooks", 4 + usize::try_from(begun).unwrap());
        daemon.signal(Signal::SIGTERM);
        until("it notes that it stops", || (interrupted(&world) > begun).then_some(()));
        daemon.kill();
    }
    world.receiver.hang(false);
    let daemon = world.daemon();
    until("it is delivered", || (state(&world, "pipeline", "batch_1") == "delivered").then_some(()));
    daemon.terminate();
}

#[test]
fn a11_an_event_that_kills_whoever_renders_it_is_given_up_and_everything_else_is_told() {
    let world = World::new();
    let ids = ["batch_1", "batch_poison", "batch_2"];
    for id in ids {
        world.provider.put(id, "in_progress", &json!({}));
    }
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "batch_2"]);
    // What is poison in it is not in what is told of it.
    world.ok(&["track", "batch_poison", "--name", "arsenic"]);
    daemon.terminate();
    for id in &ids {
        world.provider.complete(id);
    }
    let mut deaths = 0;
    // The daemon may die while it is asked.
    let given_up = || {
        let dead = world.batchd(&["deliveries", "--state", "dead", "--json"]);
        let dead: Value = serde_json::from_slice(&dead.stdout).unwrap_or_default();
        dead["data"].as_array().is_some_and(|dead| dead.len() == 2)
    };
    let daemon = loop {
        let daemon = doomed(&world, "deliver.render=arsenic");
        let next = until("it dies, waits, or has given both up", || {
            if daemon.is_over() {
                Some(Next::Died)
            } else if given_up() {
                Some(Next::GivenUp)
            } else {
                suspects_wait(&world).then_some(Next::Waits)
            }
        });
        match next {
            Next::Died => deaths += 1,
            // Suspected since this start, of both webhooks at once or of one after the other was given up.
            Next::Waits => daemon.terminate(),
            Next::GivenUp => break daemon,
        }
        hours_pass(&world);
        assert!(deaths <= 16, "it never ends");
    };
    assert!(deaths >= 6, "{deaths}");
    let told = world.json(&["events", "--json"])["data"].as_array().unwrap().clone();
    let told: BTreeSet<&str> = told
        .iter()
        .filter(|event| event["type"] == "webhook.delivery_dead")
        .map(|event| event["data"]["webhook"].as_str().unwrap())
        .collect();
    assert_eq!(told, BTreeSet::from(["ops", "pipeline"]));
    // The chat is told of what the program never got.
    until("it is told", || {
        world
            .receiver
            .received("/slack")
            .iter()
            .any(|one| {
                String::from_utf8_lossy(&one.body)
                    .contains("webhook pipeline never got batch.completed of openai:batch_poison")
            })
            .then_some(())
    });
    for webhook in ["pipeline", "ops"] {
        for id in ["batch_1", "batch_2"] {
            until("the others are told", || (state(&world, webhook, id) == "delivered").then_some(()));
        }
    }
    assert!(sightings(&world, "batch_poison").is_empty());
    let dead = world.json(&["deliveries", "--state", "dead", "--json"]);
    let errors = dead["data"].as_array().unwrap().iter().map(|one| one["last_error"].as_str().unwrap());
    assert!(
        errors.clone().count() == 2 && errors.clone().all(|error| error.starts_with("crash_loop")),
        "{dead}"
    );
    daemon.terminate();
    // A binary that does not die of it sends it when it is asked to.
    let daemon = world.daemon();
    world.ok(&["deliveries", "retry", "--dead"]);
    until("it is told", || (!sightings(&world, "batch_poison").is_empty()).then_some(()));
    daemon.terminate();
}

#[test]
fn a12_a_worker_that_panics_is_begun_anew_and_takes_no_other_with_it() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = doomed(&world, "worker.pass=pipeline:panic");
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/slack", 1);
    world.receiver.wait_for("/hooks", 1);
    assert!(daemon.log().contains("the worker of webhook pipeline panicked"), "{}", daemon.log());
    daemon.terminate();
}

/// A state from before, as after a power loss that took the last commits, or from a backup.
#[test]
fn a13_what_was_lost_is_seen_again_and_told_under_the_same_id() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    daemon.terminate();
    let before = tempfile::tempdir().unwrap();
    copy(&world.state(), before.path());
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.receiver.wait_for("/hooks", 1);
    daemon.kill();
    std::fs::remove_dir_all(world.state()).unwrap();
    std::fs::create_dir(world.state()).unwrap();
    copy(before.path(), &world.state());
    let daemon = world.daemon();
    let seen = world.receiver.wait_for("/hooks", 2);
    assert_eq!(seen[0].id(), seen[1].id());
    daemon.terminate();
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a16_told_twice_to_stop_it_stops_at_once_and_nothing_is_lost() {
    let world = World::new();
    world.provider.complete("batch_1");
    world.receiver.hang(true);
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    daemon.signal(Signal::SIGTERM);
    until("it stops", || daemon.log().contains("stopping").then_some(()));
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    world.receiver.hang(false);
    let daemon = world.daemon();
    until("it is delivered", || (state(&world, "pipeline", "batch_1") == "delivered").then_some(()));
    daemon.terminate();
}

#[test]
fn b20_f7_a_secret_that_changes_is_read_again_after_a_refusal() {
    let world = World::new();
    let secret = world.directory.path().join("secret");
    let write = |text: &str| {
        std::fs::write(&secret, text).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write(SIGNING);
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace(
        "secret = { env = \"TEST_SIGNING\" }",
        &format!("secret = {{ file = \"{}\" }}", secret.display()),
    );
    std::fs::write(world.config(), text).unwrap();
    world.provider.complete("batch_1");
    world.receiver.answer(401, "bad signature");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let other = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    Webhook::new(SIGNING)
        .unwrap()
        .verify(&world.receiver.wait_for("/hooks", 1)[0].body, &world.receiver.received("/hooks")[0].headers)
        .unwrap();
    // F7: a file that is gone for a moment costs nothing.
    std::fs::remove_file(&secret).unwrap();
    world.receiver.wait_for("/hooks", 2);
    write(other);
    until("it signs with the new one", || {
        let hooks = world.receiver.received("/hooks");
        hooks
            .iter()
            .any(|hook| Webhook::new(other).unwrap().verify(&hook.body, &hook.headers).is_ok())
            .then_some(())
    });
    world.receiver.answer(200, "ok");
    until("it is delivered", || (state(&world, "pipeline", "batch_1") == "delivered").then_some(()));
    assert!(!daemon.log().contains("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"));
    daemon.terminate();
}

#[test]
fn f13_a_storm_of_reloads_leaves_nothing_behind() {
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    world.ok(&["reload"]);
    // Each destination has opened what it needs once it was sent to.
    world.provider.complete("batch_0");
    world.ok(&["track", "batch_0"]);
    until("it is told", || {
        let slack = world.receiver.received("/slack").len();
        (sightings(&world, "batch_0").len() == 1 && slack == 2).then_some(())
    });
    let before = open();
    for _ in 0..100 {
        daemon.signal(Signal::SIGHUP);
    }
    world.ok(&["reload"]);
    world.provider.complete("batch_2");
    world.ok(&["track", "batch_2"]);
    until("the next one is told", || (sightings(&world, "batch_2").len() == 1).then_some(()));
    assert_eq!(sightings(&world, "batch_1").len(), 1);
    until("its clients are gone", || (open() <= before + 8).then_some(()));
    let names: BTreeSet<String> = world.json(&["webhooks", "--json"])["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|webhook| webhook["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2);
    daemon.terminate();
}
