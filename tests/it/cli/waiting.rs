//! `batchd wait`: how it ends, and what it survives.

use super::program::Running;
use super::stand_in::{Daemon, batch, ended};

#[test]
fn waiting_exits_as_the_batch_ended() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = vec![
            ended("good", "completed", "succeeded"),
            ended("part", "completed", "partial"),
            ended("none", "completed", "all_failed"),
            ended("bad", "failed", "failed"),
            ended("late", "expired", "expired_with_output"),
            ended("gone", "cancelled", "cancelled"),
            batch("openai", "live", "in_progress"),
        ];
    });
    let good = daemon.run(&["wait", "good"]).code(0);
    assert_eq!((good.out.as_str(), good.err.as_str()), ("openai  good  completed    succeeded\n", ""));
    daemon.run(&["wait", "part"]).code(0).says("warning: openai:part: 2 of 400 requests failed");
    daemon.run(&["wait", "part", "--strict"]).code(3);
    daemon.run(&["wait", "none"]).code(3);
    daemon.run(&["wait", "bad"]).code(3);
    daemon.run(&["wait", "late"]).code(4);
    daemon.run(&["wait", "gone"]).code(5);
    daemon.run(&["wait", "good", "gone", "late", "bad"]).code(3);
    daemon.run(&["wait", "gone", "late", "good"]).code(4);
    daemon.run(&["wait", "live", "--timeout", "1s"]).code(124).says("1 batch has not ended within 1 s");
    daemon.run(&["wait", "live", "late", "--timeout", "0s"]).code(4);
    let any = daemon.run(&["wait", "--any", "live", "gone", "bad"]).code(5);
    assert_eq!(any.out, "openai  gone  cancelled    cancelled\n");
    let json = daemon.run(&["wait", "good", "part", "--json"]).code(0).json();
    assert_eq!(json["data"][1]["batchd"]["outcome"], "partial");
}

#[test]
fn waiting_tracks_what_is_not_tracked() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let mut untracked = batch("openai", "dropped", "in_progress");
        untracked["batchd"]["untracked_at"] = "2026-11-18T11:06:40Z".into();
        world.batches = vec![untracked];
        world.elsewhere = vec![ended("new", "failed", "failed")];
    });
    daemon.run(&["wait", "new"]).code(3);
    daemon.run(&["wait", "dropped", "--timeout", "0s"]).code(124);
    let tracked: Vec<String> = daemon.world(|world| {
        world.requests.iter().map(|(line, _)| line.clone()).filter(|line| line.starts_with("PUT")).collect()
    });
    assert_eq!(tracked, ["PUT /v1/batches/new", "PUT /v1/batches/dropped"]);
    daemon.run(&["wait", "nowhere"]).code(66).says("error: nowhere: no such batch");
    daemon.run(&["wait", "batch_locked"]).code(77).says("openai refuses the key");
    daemon.run(&["wait", "nowhere", "new"]).code(66);
}

#[test]
fn waiting_ends_with_the_event() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = ["a", "b"].iter().map(|id| batch("openai", id, "in_progress")).collect();
    });
    let mut running = Running::start(daemon.batchd(&["wait", "a", "openai:b"]));
    daemon.until(|world| world.streams == 1);
    daemon.end("b", "expired", "expired");
    assert_eq!(running.line(), "openai  b  expired      expired");
    daemon.end("a", "completed", "succeeded");
    let run = running.finish().code(4);
    assert_eq!(run.out, "openai  a  completed    succeeded\n");
}

#[test]
fn waiting_survives_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "a", "in_progress")]);
    let running = Running::start(daemon.batchd(&["wait", "a"]));
    daemon.until(|world| world.streams == 1);
    daemon.down();
    daemon.end("a", "cancelled", "cancelled");
    daemon.up();
    let run = running.finish().code(5);
    assert_eq!(run.out, "openai  a  cancelled    cancelled\n");
    assert!(run.err.matches("waiting continues").count() <= 1, "{}", run.err);
}

#[test]
fn waiting_notices_what_is_untracked_meanwhile() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "a", "in_progress")]);
    let running = Running::start(daemon.batchd(&["wait", "a"]));
    daemon.until(|world| world.streams == 1);
    daemon.run(&["untrack", "a"]).code(0);
    // A restart makes it look again at once.
    daemon.down();
    daemon.up();
    daemon.until(|world| world.streams >= 2);
    running.finish().code(1).says("error: a: it was untracked meanwhile");
}
