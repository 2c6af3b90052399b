//! `batchd track`, `untrack` and `poll`.

use super::program::Run;
use super::stand_in::{Daemon, batch};
use serde_json::{Value, json};

#[test]
fn tracking_prints_a_line_a_batch_and_an_error_a_failure() {
    let daemon = Daemon::start();
    let run = daemon.run(&["track", "batch_1", "openai:batch_22"]).code(0);
    assert_eq!(run.out, "openai  batch_1   in_progress\nopenai  batch_22  in_progress\n");
    assert_eq!(run.err, "");
    let run = daemon
        .run(&["track", "batch_1", "batch_locked", "batch_nowhere", "batch_2"])
        .code(77)
        .says("error: batch_locked: openai refuses the key\nhint: ")
        .says("error: batch_nowhere: no such batch at openai\n")
        .says("2 of 4 are tracked\n");
    assert_eq!(run.out, "openai  batch_1  in_progress\nopenai  batch_2  in_progress\n");
    daemon.run(&["track", "batch_nowhere"]).code(66);
    daemon.run(&["track", "batch_down"]).code(1);
    let listing = daemon.run(&["track", "batch_1", "batch_nowhere", "--json"]).code(66).json();
    assert_eq!((&listing["object"], listing["data"].as_array().unwrap().len()), (&json!("list"), 2));
}

#[test]
fn what_is_said_of_a_batch_goes_with_it() {
    let daemon = Daemon::start();
    daemon
        .run(&[
            "track",
            "b",
            "--provider",
            "p",
            "--name",
            "n",
            "--label",
            "k=v=w",
            "--label",
            "e=",
            "--notify",
            "ops",
            "--deadline",
            "6h",
            "--no-check",
        ])
        .code(0);
    daemon.run(&["track", "b", "--no-notify"]).code(0);
    let bodies: Vec<Value> =
        daemon.world(|world| world.requests.iter().map(|(_, body)| body.clone()).collect());
    assert_eq!(
        bodies,
        [
            json!({"items": [{"id": "b", "provider": "p", "name": "n", "labels": {"e": "", "k": "v=w"},
                "notify": ["ops"], "deadline": "6h", "check": false}]}),
            json!({"items": [{"id": "b", "no_notify": true}]}),
        ]
    );
}

#[test]
fn a_hundred_thousand_ids_come_from_standard_input_in_equal_parts() {
    let daemon = Daemon::start();
    let lines = (0..100_000).map(|number| format!("batch_{number:032}"));
    let ids = ["# what to watch".to_owned(), String::new()].into_iter().chain(lines);
    let ids = ids.collect::<Vec<_>>().join("\n");
    let input = daemon.home.path().join("ids");
    std::fs::write(&input, ids).unwrap();
    let mut command = daemon.batchd(&["track", "-"]);
    let run = Run::of(command.stdin(std::fs::File::open(input).unwrap()).output().unwrap()).code(0);
    assert_eq!(run.out.lines().count(), 100_000);
    let sizes: Vec<usize> = daemon.world(|world| {
        world.requests.iter().map(|(_, body)| body["items"].as_array().unwrap().len()).collect()
    });
    assert_eq!(sizes, [5_000; 20]);
}

#[test]
fn several_ids_stand_alone() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches =
            vec![batch("openai", "batch_1", "in_progress"), batch("openai", "batch_2", "in_progress")];
    });
    daemon
        .run(&["untrack", "batch_1", "batch_9", "batch_2"])
        .code(66)
        .says("batch_1: no longer watched\nerror: batch_9: no such batch\nbatch_2: no longer watched\n");
    let run = daemon.run(&["poll", "batch_9", "batch_2"]).code(66);
    assert_eq!(run.out, "openai  batch_2  in_progress\n");
    daemon.run(&["poll", "--all"]).code(0).says("7 batches are due now");
    daemon.run(&["untrack", "--purge", "batch_1"]).code(0);
    let asked = daemon.world(|world| world.requests.last().unwrap().0.clone());
    assert_eq!(asked, "DELETE /v1/batches/batch_1?purge=true");
}
