//! `batchd events`: the log, and what is new in it.

use super::program::Running;
use super::stand_in::{Daemon, batch, ended, event};
use serde_json::{Value, json};

#[test]
fn the_event_log_is_read_whole_and_from_a_number() {
    let daemon = Daemon::start();
    daemon.run(&["events"]).code(0).says("no events yet");
    daemon.world(|world| {
        world.page = 2;
        let one = batch("openai", "batch_1", "in_progress");
        let two = ended("batch_2", "completed", "partial");
        world.batches = vec![one.clone(), two.clone()];
        world.events = vec![
            event(1, "batch.in_progress", &one),
            event(2, "batch.in_progress", &two),
            event(3, "batch.completed", &two),
        ];
    });
    insta::assert_snapshot!(daemon.run(&["events"]).code(0).out, @r"
     1  2026-11-18 11:06:40 UTC  batch.in_progress         openai:batch_1  120/400
     2  2026-11-18 11:06:40 UTC  batch.in_progress         openai:batch_2  partial, 398 ok · 2 failed
     3  2026-11-18 11:06:40 UTC  batch.completed           openai:batch_2  partial, 398 ok · 2 failed
    ");
    let log = daemon.run(&["events", "--json", "--after", "1"]).code(0).json();
    let numbers: Vec<i64> =
        log["data"].as_array().unwrap().iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    assert_eq!((numbers, &log["has_more"]), (vec![2, 3], &json!(false)));
    let of_one = daemon.run(&["events", "batch_2", "--json"]).code(0).json();
    assert_eq!(of_one["data"].as_array().unwrap().len(), 2);
}

#[test]
fn following_survives_a_restart_and_gives_each_event_once() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let more = |daemon: &Daemon, sequence: i64| {
        daemon.world(|world| {
            let event = event(sequence, "batch.stalled", &world.batches[0]);
            world.events.push(event);
        });
    };
    more(&daemon, 1);
    let mut running = Running::start(daemon.batchd(&["events", "--follow", "--after", "0", "--json"]));
    let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_i64();
    assert_eq!(sequence(&running.line()), Some(1));
    more(&daemon, 2);
    assert_eq!(sequence(&running.line()), Some(2));
    daemon.down();
    more(&daemon, 3);
    daemon.up();
    assert_eq!(sequence(&running.line()), Some(3));
    more(&daemon, 4);
    assert_eq!(sequence(&running.line()), Some(4));
}

#[test]
fn following_one_batch_joins_its_past_and_its_future() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let (one, two) =
            (batch("openai", "batch_1", "in_progress"), batch("openai", "batch_2", "in_progress"));
        world.events = vec![event(1, "batch.in_progress", &one), event(2, "batch.in_progress", &two)];
        world.batches = vec![one, two];
    });
    let mut running = Running::start(daemon.batchd(&["events", "batch_2", "--follow", "--since", "1d"]));
    assert!(running.line().contains("batch.in_progress         openai:batch_2"));
    daemon.end("batch_1", "failed", "failed");
    daemon.end("batch_2", "cancelled", "cancelled");
    assert!(running.line().contains("batch.cancelled           openai:batch_2  120/400"));
}
