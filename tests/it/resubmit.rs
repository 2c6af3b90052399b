//! Resubmitting and merged results with the real binary, at the sandbox's four services.

use crate::creating::ask;
use crate::quota::sandbox;
use crate::submit::{Manner, Stage, err, requests};
use crate::world::{World, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn ok(world: &World, arguments: &[&str]) -> (String, String) {
    let output = world.batchd(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    (String::from_utf8_lossy(&output.stdout).trim().to_owned(), err(&output))
}

/// Lines of results by their `custom_id`, each of which is there once; whether it succeeded.
fn read(text: &str) -> BTreeMap<String, bool> {
    let mut read = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let succeeded = line["error"].is_null() && line["response"]["status_code"] == json!(200);
        let before = read.insert(line["custom_id"].as_str().unwrap().to_owned(), succeeded);
        assert_eq!(before, None, "twice: {line}");
    }
    read
}

#[test]
fn what_expired_is_submitted_again_until_all_is_done_and_read_as_one() {
    let (world, daemon, _runtime) = sandbox(None);
    let path = world.directory.path().join("in.jsonl");
    std::fs::write(&path, requests(10)).unwrap();
    let file = path.to_str().unwrap();
    for provider in ["openai", "mistral", "anthropic"] {
        let submitted = ok(
            &world,
            &[
                "submit",
                file,
                "--provider",
                provider,
                "--name",
                provider,
                "--label",
                "team=evals",
                "--model",
                "sandbox-expired",
            ],
        );
        let first = submitted.0;
        let early = world.batchd(&["resubmit", &first]);
        assert_eq!(early.status.code(), Some(1), "{early:?}");
        let mut newest = first.clone();
        let mut chain = vec![first.clone()];
        loop {
            world.batchd(&["wait", &newest]);
            let batch = world.json(&["show", &newest, "--json"]);
            let merged = read(&ok(&world, &["results", &chain[0], "--merged"]).0);
            let done = merged.values().filter(|succeeded| **succeeded).count();
            if chain.len() > 3 || done == 10 {
                break;
            }
            let left = 10 - done;
            let mut arguments = vec!["resubmit", newest.as_str()];
            if provider == "anthropic" && chain.len() == 1 {
                // It keeps no input; what is submitted again is kept here.
                let refused = world.batchd(&arguments);
                assert_eq!(refused.status.code(), Some(1), "{refused:?}");
                assert!(err(&refused).contains("--input"), "{refused:?}");
                arguments.extend(["--input", file]);
            }
            let (again, told) = ok(&world, &arguments);
            let noun = if left == 1 { "request" } else { "requests" };
            assert!(told.contains(&format!("{left} {noun} of {newest}")), "{provider}, {left} left: {told}");
            assert!(told.contains(if provider == "mistral" { "missing" } else { "expired" }), "{told}");
            let twice = world.batchd(&arguments);
            assert_eq!(twice.status.code(), Some(1), "{twice:?}");
            assert!(err(&twice).contains(&format!("was resubmitted as {again}")), "{twice:?}");
            let child = world.json(&["show", &again, "--json"]);
            assert_eq!(child["batchd"]["resubmits"], batch["id"]);
            assert_eq!(child["model"], json!("sandbox-expired"), "the model that was given holds: {child}");
            assert_eq!(child["batchd"]["labels"]["team"], json!("evals"));
            let linked = world.json(&["show", &newest, "--json"]);
            assert_eq!(linked["batchd"]["resubmitted_by"], json!([again]));
            chain.push(again.clone());
            newest = again;
        }
        assert!(chain.len() > 1, "{provider}: nothing was resubmitted");
        // The same whichever of them is named.
        let merged = read(&ok(&world, &["results", &chain[0], "--merged"]).0);
        // Mistral has no lines of requests that never ran.
        assert!(merged.len() == 10 || provider == "mistral" && merged.len() > 6, "{provider}: {merged:?}");
        assert_eq!(merged, read(&ok(&world, &["results", &chain[chain.len() - 1], "--merged"]).0));
        let failures = read(&ok(&world, &["results", &chain[0], "--merged", "--errors"]).0);
        let failed = merged.values().filter(|succeeded| !**succeeded).count();
        assert_eq!(failures.len(), failed);
        let raw = world.batchd(&["results", &chain[0], "--merged", "--format", "raw"]);
        assert_eq!(raw.status.code(), Some(2), "{raw:?}");
    }
    daemon.terminate();
}

#[test]
fn a_batch_that_went_well_has_nothing_to_be_submitted_again() {
    let (world, daemon, _runtime) = sandbox(None);
    let file = world.directory.path().join("in.jsonl");
    let file = file.to_str().unwrap();
    let (id, _) = ok(&world, &["submit", file, "--provider", "openai"]);
    ok(&world, &["wait", &id]);
    let refused = world.batchd(&["resubmit", &id]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        err(&refused).contains("every request") && err(&refused).contains("has succeeded"),
        "{refused:?}"
    );
    let refused = ask(&world, "POST", &format!("/v1/batches/{id}/resubmit"), &[], &Value::Null);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("nothing_to_resubmit")));
    // Another file is not its input.
    let (other, _) =
        ok(&world, &["submit", file, "--provider", "openai", "--metadata", "sandbox_outcome=all_failed"]);
    world.batchd(&["wait", &other]);
    let foreign = world.directory.path().join("other.jsonl");
    std::fs::write(&foreign, requests(4).replace("\"r", "\"x")).unwrap();
    let refused = world.batchd(&["resubmit", &other, "--input", foreign.to_str().unwrap()]);
    assert!(err(&refused).contains("not the input"), "{refused:?}");
    let none = world.batchd(&["resubmit", &other, "--only", "expired"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    let again = ask(&world, "POST", &format!("/v1/batches/{other}/resubmit"), &[], &Value::Null);
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(
        again.json()["batchd"]["resubmitted"],
        json!({"requests": 2, "failed": 2, "expired": 0, "cancelled": 0, "missing": 0})
    );
    assert_eq!(again.json()["metadata"]["batchd_resubmits"], json!(other));
    let more = ask(&world, "POST", &format!("/v1/batches/{other}/resubmit?again=true"), &[], &Value::Null);
    assert_eq!(more.status, 200, "{}", more.body);
    let by = world.json(&["show", &other, "--json"])["batchd"]["resubmitted_by"].clone();
    assert_eq!(by, json!([again.json()["id"], more.json()["id"]]));
    daemon.terminate();
}

#[test]
fn a_resubmission_whose_daemon_is_killed_is_not_created_twice() {
    for place in ["submit.answered", "submit.registered"] {
        let stage = Stage::new();
        let world = &stage.world;
        stage.service.manner(Manner::Limited(0));
        let daemon = world.daemon();
        let waiting = stage.submit(&["--provider", "mine", "--wait-for-quota"]).output().unwrap();
        let id = String::from_utf8_lossy(&waiting.stdout).trim().to_owned();
        stage.service.manner(Manner::Refusing(400));
        world.ok(&["poll", &id]);
        world.batchd(&["wait", &id]);
        daemon.kill();
        stage.service.manner(Manner::Well);
        let daemon = crate::creating::doomed(world, place);
        assert!(!world.batchd(&["resubmit", &id]).status.success());
        until(place, || daemon.is_over().then_some(()));
        let daemon = world.daemon();
        until("the batch is found", || {
            let by = world.json(&["show", &id, "--json"])["batchd"]["resubmitted_by"].clone();
            (by == json!(["batch_1"])).then_some(())
        });
        let again = world.batchd(&["resubmit", &id]);
        assert!(err(&again).contains("was resubmitted as batch_1"), "{again:?}");
        assert_eq!(stage.service.count(), 1);
        daemon.terminate();
    }
}
