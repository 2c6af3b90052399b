//! Commands that read batches: `list`, `show` and `get`.

use super::program::{Run, Running};
use super::stand_in::{Daemon, batch, ended, event};
use serde_json::{Value, json};

#[test]
fn a_list_is_an_aligned_table() {
    let daemon = Daemon::start();
    let empty = daemon.run(&["list"]).code(0).says("`batchd track ID` watches one");
    assert_eq!(empty.out, "");
    daemon.world(|world| {
        let mut named = batch("anthropic", "msgbatch_2", "in_progress");
        named["batchd"]["name"] = "nightly evals\u{1b}[31m".into();
        named["request_counts"] = Value::Null;
        world.batches =
            vec![batch("openai", "batch_1", "in_progress"), named, ended("batch_3", "completed", "partial")];
    });
    insta::assert_snapshot!(daemon.run(&["list"]).code(0).out, @r"
    ID          NAME                     PROVIDER   STATUS       PROGRESS               ETA       AGE
    msgbatch_2  nightly evals\u{1b}[31m  anthropic  in_progress  –                      –    3 h 12 m
    batch_1                              openai     in_progress  ██░░░░░░ 120/400  30%  –    3 h 12 m
    ");
    let all = daemon.run(&["list", "--all"]).code(0).out;
    assert!(all.contains("completed") && all.contains("partial"), "{all}");
    let ends = daemon.run(&["list", "--status", "completed"]).code(0).out;
    assert!(ends.contains("batch_3") && !ends.contains("batch_1"), "{ends}");
    let mut narrow = daemon.batchd(&["list"]);
    let narrow = Run::of(narrow.env("COLUMNS", "60").output().unwrap()).code(0).out;
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    assert!(!all.contains('\x1b'), "no colour where nobody looks");
}

#[test]
fn lists_are_whole_unless_limited_and_their_envelope_is_exact() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.page = 3;
        world.batches = (0..8).map(|n| batch("openai", &format!("batch_{n}"), "in_progress")).collect();
    });
    let list = daemon.run(&["list", "--json"]).code(0).json();
    let keys: Vec<&String> = list.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["object", "data", "first_id", "last_id", "has_more"]);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 8);
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("openai:batch_7"), &json!("openai:batch_0")));
    assert_eq!(list["has_more"], false);
    let part = daemon.run(&["list", "--json", "--limit", "4"]).code(0).json();
    assert_eq!(part["data"].as_array().unwrap().len(), 4);
    assert_eq!((&part["last_id"], &part["has_more"]), (&json!("openai:batch_4"), &json!(true)));
    daemon.world(|world| world.batches.clear());
    assert_eq!(
        daemon.run(&["list", "--json"]).code(0).json(),
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
    );
}

#[test]
fn mine_are_those_of_this_user() {
    let daemon = Daemon::start();
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    daemon.world(|world| {
        let mut mine = batch("openai", "batch_mine", "in_progress");
        mine["batchd"]["owner"] = me.into();
        world.batches = vec![mine, batch("openai", "batch_theirs", "in_progress")];
    });
    let out = daemon.run(&["list", "--mine"]).code(0).out;
    assert!(out.contains("batch_mine") && !out.contains("batch_theirs"), "{out}");
}

#[test]
fn a_list_that_is_watched_comes_again_when_it_changes() {
    let daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let mut running = Running::start(daemon.batchd(&["list", "--watch"]));
    assert!(running.line().starts_with("ID"));
    assert!(running.line().contains("in_progress"));
    daemon.world(|world| world.batches.push(batch("openai", "batch_2", "validating")));
    daemon.world(|world| {
        let event = event(1, "batch.validating", &world.batches[1]);
        world.events.push(event);
    });
    assert_eq!(running.line(), "");
    assert!(running.line().starts_with("ID"));
    assert!(running.line().contains("batch_2"));
}

#[test]
fn a_batch_is_shown_on_a_page_and_as_it_is() {
    let daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let page = daemon.run(&["show", "openai:batch_1"]).code(0).out;
    assert!(page.starts_with("openai:batch_1\n  status      in_progress\n"), "{page}");
    let shown = daemon.run(&["show", "batch_1", "--json"]).code(0).json();
    assert_eq!(shown, daemon.world(|world| world.batches[0].clone()));
    assert!(daemon.world(|world| world.requests.last().unwrap().0.clone()).ends_with("?detail=true"));
    daemon.run(&["show", "batch_9"]).code(66).says("error: batch_9: no such batch\nhint: `batchd get`");
    daemon.world(|world| world.batches.push(batch("groq", "batch_1", "in_progress")));
    daemon.run(&["show", "batch_1"]).code(2).says("batch_1 is known at two providers");
}

#[test]
fn get_looks_at_what_is_not_tracked() {
    let daemon = Daemon::start();
    daemon.world(|world| world.elsewhere = vec![batch("gemini", "batches/x y", "in_progress")]);
    let got = daemon.run(&["get", "batches/x y", "--provider", "gemini", "--json"]).code(0).json();
    assert_eq!(got["id"], "batches/x y");
    let asked = daemon.world(|world| world.requests.last().unwrap().0.clone());
    assert_eq!(asked, "GET /v1/batches/batches%2Fx%20y?fetch=true&provider=gemini");
    daemon.run(&["get", "nope"]).code(66).says("error: nope: no such batch");
}
