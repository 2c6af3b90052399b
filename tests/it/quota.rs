//! Submissions that wait for quota, with the real binary: queued under an id of their own, created in their turn and once,
//! whatever is killed.

use crate::creating::{ask, creation, doomed, kept};
use crate::submit::{Manner, Stage, err, requests, serve};
use crate::world::{Daemon, World, until};
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A daemon over the sandbox's four services, each of which takes three requests at a time.
pub fn sandbox(quota: Option<u64>) -> (World, Daemon, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), quota, ..SandboxOptions::default() };
    let address = format!("http://{}", serve(&runtime, Sandbox::new(&options).router()));
    let world = World::new();
    let account = |name: &str, path: &str| {
        format!("[providers.{name}]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"{address}{path}\"\n")
    };
    let text = format!(
        "[state]\ndir = \"{}\"\n[api]\nsocket = \"{}\"\n[polling]\nmin_interval = \"1s\"\nmax_interval = \"1s\"\n{}{}{}{}",
        world.state().display(),
        world.socket().display(),
        account("openai", "/v1"),
        account("anthropic", ""),
        account("gemini", "/v1beta"),
        account("mistral", "")
    );
    std::fs::write(world.config(), text).unwrap();
    std::fs::write(world.directory.path().join("in.jsonl"), requests(2)).unwrap();
    let daemon = world.daemon();
    (world, daemon, runtime)
}

fn submit(world: &World, arguments: &[&str]) -> std::process::Output {
    let mut command = world.command();
    command.current_dir(world.directory.path()).args(["submit", "in.jsonl"]).args(arguments);
    command.output().unwrap()
}

fn id_of(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn each_service_s_refusal_names_limit_and_usage_and_what_waits_is_created_in_its_turn() {
    let (world, daemon, _runtime) = sandbox(Some(3));
    for provider in ["openai", "anthropic", "gemini", "mistral"] {
        let at = ["--provider", provider];
        let first = id_of(&submit(&world, &["--provider", provider, "--model", "m-duration-1h"]));
        let refused = submit(&world, &at);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let told = err(&refused);
        assert!(
            told.contains("(limit 3, in use 2)") && told.contains("--wait-for-quota"),
            "{provider}: {told}"
        );

        let named = format!("second-{provider}");
        let second = id_of(&submit(&world, &["--provider", provider, "--wait-for-quota", "--name", &named]));
        let third = id_of(&submit(&world, &["--provider", provider, "--wait-for-quota"]));
        let fourth = id_of(&submit(&world, &["--provider", provider, "--wait-for-quota"]));
        assert!(second.starts_with("sub_") && third.starts_with("sub_"), "{second} {third}");
        let shown = world.json(&["show", &second, "--json"]);
        assert_eq!((&shown["id"], &shown["status"]), (&json!(second), &json!("validating")));
        let waiting = &shown["batchd"]["waiting_for"];
        assert_eq!((&waiting["limit"], &waiting["usage"]), (&json!(3), &json!(2)), "{provider}: {shown}");
        assert_eq!(world.json(&["show", &named, "--json"])["id"], json!(second), "its name means it");
        assert_eq!(world.json(&["get", &third, "--json"])["id"], json!(third));
        let listed = world.json(&["list", "--json", "--provider", provider]);
        assert!(listed["data"].as_array().unwrap().iter().any(|batch| batch["id"] == json!(third)));
        let results = world.batchd(&["results", &third]);
        assert_eq!(results.status.code(), Some(1), "{results:?}");
        assert!(err(&results).contains("waits to be created"), "{results:?}");

        // One is taken out of the queue; the others become batches, one after the other.
        world.ok(&["cancel", &fourth]);
        let cancelled = world.json(&["show", &fourth, "--json"]);
        assert_eq!(
            (&cancelled["status"], &cancelled["batchd"]["waiting_for"]),
            (&json!("cancelled"), &Value::Null)
        );
        assert_eq!(world.batchd(&["cancel", &fourth]).status.code(), Some(1));
        assert!(world.batchd(&["wait", &first]).status.success());
        for (submission, name) in [(&second, json!(named)), (&third, Value::Null)] {
            let waited = world.batchd(&["wait", &format!("{provider}:{submission}"), "--timeout", "60s"]);
            assert!(waited.status.success(), "{provider}: {waited:?} {}", daemon.log());
            let batch = world.json(&["show", submission, "--json"]);
            assert_ne!(batch["id"], json!(submission));
            assert_eq!(batch["batchd"]["submission"], json!(submission));
            assert_eq!(batch["batchd"]["waiting_for"], Value::Null);
            if !name.is_null() {
                assert_eq!(batch["batchd"]["name"], name);
            }
            let results = world.ok(&["results", submission]);
            assert_eq!(results.lines().count(), 2, "{provider}");
            let over_http = ask(&world, "GET", &format!("/v1/batches/{submission}"), &[], &Value::Null);
            assert_eq!(over_http.json()["id"], batch["id"]);
        }
        let (second, third) =
            (world.json(&["show", &second, "--json"]), world.json(&["show", &third, "--json"]));
        assert!(
            second["created_at"].as_i64() <= third["created_at"].as_i64(),
            "in the order of arrival: {second} {third}"
        );
    }
    daemon.terminate();
}

#[test]
fn over_http_it_is_accepted_and_the_same_key_means_the_same_submission() {
    let stage = Stage::new();
    stage.service.manner(Manner::Limited(0));
    let world = &stage.world;
    let daemon = world.daemon();
    let file = kept(world, &requests(2));
    let body = creation(&file, Some("mine"));
    let headers = [("x-batchd-wait", "quota"), ("idempotency-key", "k1")];
    let answer = ask(world, "POST", "/v1/batches", &headers, &body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let batch = answer.json();
    let id = batch["id"].as_str().unwrap().to_owned();
    assert_eq!((&batch["status"], &batch["input_file_id"]), (&json!("validating"), &json!(file)));
    assert_eq!(batch["batchd"]["waiting_for"]["limit"], json!(10_000));
    let again = ask(world, "POST", "/v1/batches", &headers, &body);
    assert_eq!((again.status, &again.json()["id"]), (202, &json!(id)));
    // The file stays while it waits, and what waits for nothing that there is is refused.
    let deleted = ask(world, "DELETE", &format!("/v1/files/{file}"), &[], &Value::Null);
    assert_eq!(deleted.status, 409, "{}", deleted.body);
    let odd = ask(world, "POST", "/v1/batches", &[("x-batchd-wait", "tea")], &body);
    assert_eq!(odd.status, 400, "{}", odd.body);
    let refused = ask(world, "POST", "/v1/batches", &[], &body);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("quota_exceeded")));
    // A file of the provider's own is passed on, and waits too.
    let mut own = body.clone();
    own["input_file_id"] = "file-theirs".into();
    own.as_object_mut().unwrap().remove("provider");
    let passed = ask(world, "POST", "/providers/mine/v1/batches", &[("x-batchd-wait", "quota")], &own);
    assert_eq!(passed.status, 202, "{}", passed.body);
    let passed = passed.json()["id"].as_str().unwrap().to_owned();

    stage.service.manner(Manner::Well);
    world.ok(&["poll", &id]);
    for submission in [&id, &passed] {
        let created = until("it is created", || {
            let batch = world.json(&["show", submission, "--json"]);
            batch["id"].as_str().unwrap().starts_with("batch_").then_some(batch)
        });
        assert_eq!(created["batchd"]["submission"], json!(submission));
    }
    let again = ask(world, "POST", "/v1/batches", &headers, &body);
    assert_eq!((again.status, again.json()["batchd"]["submission"].clone()), (200, json!(id)));
    assert_eq!(stage.service.count(), 2);
    daemon.terminate();
}

#[test]
fn a_final_refusal_is_the_end_of_a_failed_batch_and_is_told() {
    let stage = Stage::new();
    stage.service.manner(Manner::Limited(0));
    let world = &stage.world;
    let daemon = world.daemon();
    let id = id_of(&stage.submit(&["--provider", "mine", "--wait-for-quota"]).output().unwrap());
    stage.service.manner(Manner::Refusing(400));
    world.ok(&["poll", &id]);
    let waited = world.batchd(&["wait", &id, "--timeout", "60s"]);
    assert_eq!(waited.status.code(), Some(3), "{waited:?} {}", daemon.log());
    assert!(err(&waited).contains("not today"), "{waited:?}");
    let batch = world.json(&["show", &id, "--json"]);
    assert_eq!((&batch["id"], &batch["status"]), (&json!(id), &json!("failed")));
    let event = world.receiver.wait_for("/hooks", 1).remove(0).json();
    assert_eq!((&event["type"], &event["data"]["id"]), (&json!("batch.failed"), &json!(id)));
    let results = world.batchd(&["results", &id]);
    assert_eq!(results.status.code(), Some(3), "{results:?}");
    // Its requests never ran, and all of them are there to be submitted once more.
    stage.service.manner(Manner::Well);
    let again = world.batchd(&["resubmit", &id]);
    assert!(err(&again).contains("2 missing"), "{again:?}");
    assert_eq!(id_of(&again), "batch_1");
    daemon.terminate();
}

#[test]
fn what_waits_is_created_once_wherever_the_daemon_is_killed() {
    for place in ["queue.entered", "queue.attempt", "submit.uploaded", "submit.answered", "submit.registered"]
    {
        let stage = Stage::new();
        stage.service.manner(Manner::Limited(0));
        let world = &stage.world;
        let submit =
            || stage.submit(&["--provider", "mine", "--wait-for-quota", "--name", "n"]).output().unwrap();
        if place == "queue.entered" {
            let daemon = doomed(world, place);
            assert!(!submit().status.success());
            until(place, || daemon.is_over().then_some(()));
        } else {
            let daemon = world.daemon();
            let id = id_of(&submit());
            assert!(id.starts_with("sub_"), "{id}");
            daemon.kill();
            stage.service.manner(Manner::Well);
            let daemon = doomed(world, place);
            until(place, || daemon.is_over().then_some(()));
        }
        stage.service.manner(Manner::Well);
        let daemon = world.daemon();
        let batch = until("it is created", || {
            let batch = stage.tracked().pop()?;
            batch["id"].as_str().unwrap().starts_with("batch_").then_some(batch)
        });
        assert_eq!(batch["batchd"]["name"], json!("n"), "{place}");
        let submission = batch["batchd"]["submission"].as_str().unwrap();
        assert_eq!(world.json(&["show", submission, "--json"])["id"], batch["id"], "{place}");
        assert_eq!((stage.service.count(), stage.tracked().len()), (1, 1), "{place}: {}", daemon.log());
        daemon.terminate();
    }
}

#[test]
fn what_was_about_to_be_asked_for_when_the_daemon_was_killed_is_not_asked_for_again_before_that_is_settled() {
    let stage = Stage::new();
    stage.service.manner(Manner::Limited(0));
    let world = &stage.world;
    let daemon = world.daemon();
    let id = id_of(&stage.submit(&["--provider", "mine", "--wait-for-quota"]).output().unwrap());
    daemon.kill();
    stage.service.manner(Manner::Well);
    let daemon = doomed(world, "submit.intended");
    until("it is dead", || daemon.is_over().then_some(()));
    let daemon = world.daemon();
    until("it is being searched for", || stage.open().pop());
    world.ok(&["poll", &id]);
    let cancelled = world.batchd(&["cancel", &id]);
    assert_eq!(cancelled.status.code(), Some(1), "{cancelled:?}");
    assert!(err(&cancelled).contains("is being created"), "{cancelled:?}");
    assert_eq!((stage.service.count(), stage.service.asked()), (0, 1));
    daemon.terminate();
}

/// As OpenAI shows a batch that it took, and for which there was no room after all.
fn fail_for_quota(stage: &Stage, id: &str) {
    let message = "Enqueued token limit reached for m-1 in organization org-1. Limit: 90,000 enqueued tokens. Please \
                   try again once some in_progress batches have been completed.";
    stage.service.change(id, |batch| {
        batch["status"] = "failed".into();
        batch["failed_at"] = batch["created_at"].clone();
        batch["request_counts"] = json!({"total": 0, "completed": 0, "failed": 0});
        batch["errors"] = json!({"object": "list", "data": [
            {"code": "token_limit_exceeded", "message": message, "line": null, "param": null}]});
    });
}

#[test]
fn what_is_taken_and_failed_for_the_quota_is_queued_again_by_itself() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let file = kept(world, &requests(2));
    let wait = [("x-batchd-wait", "quota")];
    let mut body = creation(&file, Some("mine"));
    body["output_expires_after"] = json!({"anchor": "created_at", "seconds": 7200});
    let made = ask(world, "POST", "/v1/batches", &wait, &body);
    assert_eq!((made.status, &made.json()["id"]), (200, &json!("batch_1")), "{}", made.body);
    world.ok(&["track", "batch_1", "--name", "nightly", "--label", "team=evals"]);
    // One that does not wait, and fails for the same reason, is over.
    let other = ask(world, "POST", "/v1/batches", &[], &creation(&file, Some("mine")));
    assert_eq!(other.json()["id"], json!("batch_2"), "{}", other.body);
    for id in ["batch_1", "batch_2"] {
        fail_for_quota(&stage, id);
        world.ok(&["poll", id]);
    }
    let failed = until("it is queued again", || {
        let failed = world.json(&["show", "batch_1", "--json"]);
        failed["batchd"]["resubmitted_by"][0].is_string().then_some(failed)
    });
    assert_eq!(failed["status"], json!("failed"));
    let id = failed["batchd"]["resubmitted_by"][0].as_str().unwrap().to_owned();
    assert!(id.starts_with("sub_"), "{failed}");
    let waiting = world.json(&["show", &id, "--json"]);
    assert_eq!(
        (&waiting["status"], &waiting["batchd"]["name"]),
        (&json!("validating"), &json!("nightly-again"))
    );
    let why = &waiting["batchd"]["waiting_for"];
    assert_eq!(why["limit"], json!(90_000), "{waiting}");
    assert!(
        why["reason"].as_str().unwrap().starts_with("mine took it as batch_1 and failed it: Enqueued"),
        "{why}"
    );
    // Its own end has made no room: it is not created at once, but when it is asked for, or something else ends.
    assert_eq!(stage.service.count(), 2);
    world.ok(&["poll", &id]);
    let created = until("it is created again", || {
        let batch = world.json(&["show", &id, "--json"]);
        (batch["id"] == "batch_3").then_some(batch)
    });
    let told = &created["batchd"];
    assert_eq!((&told["resubmits"], &told["submission"]), (&json!("batch_1"), &json!(id)));
    assert_eq!((&told["labels"]["team"], &created["metadata"]["job"]), (&json!("evals"), &json!("n1")));
    assert_eq!(created["metadata"]["batchd_resubmits"], json!("batch_1"));
    assert_eq!(world.json(&["show", "batch_1", "--json"])["batchd"]["resubmitted_by"], json!(["batch_3"]));
    assert_eq!(world.json(&["show", "batch_2", "--json"])["batchd"]["resubmitted_by"], json!([]));

    // And once more, with the daemon killed between the end and the queue.
    daemon.kill();
    fail_for_quota(&stage, "batch_3");
    let daemon = doomed(world, "queue.again");
    world.batchd(&["poll", "batch_3"]);
    until("it is dead", || daemon.is_over().then_some(()));
    let daemon = world.daemon();
    let again = until("it is queued again", || {
        let by = world.json(&["show", "batch_3", "--json"])["batchd"]["resubmitted_by"].clone();
        by[0].as_str().map(str::to_owned)
    });
    world.ok(&["poll", &again]);
    until("it is created again", || (stage.service.count() == 4).then_some(()));
    stage.service.change("batch_4", |batch| {
        batch["status"] = "completed".into();
        batch["output_file_id"] = "file-out".into();
        batch["request_counts"] = json!({"total": 2, "completed": 2, "failed": 0});
    });
    let waited = world.batchd(&["wait", &again, "--timeout", "60s"]);
    assert!(waited.status.success(), "{waited:?} {}", daemon.log());
    assert_eq!(world.json(&["show", &again, "--json"])["batchd"]["name"], json!("nightly-again-2"));
    daemon.terminate();
}

/// OpenAI's own SDK gets a batch that waits, and goes on with its id.
#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn openais_sdk_waits_for_quota() {
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported = Command::new(&python).args(["-c", "import openai"]).stdin(Stdio::null()).output();
    if !imported.is_ok_and(|imported| imported.status.success()) {
        println!("skipped: {python} has no `openai`; BATCHD_SDK_PYTHON names a Python that has");
        return;
    }
    let (world, daemon, _runtime) = sandbox(Some(3));
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/waiting.py");
    let ended = Command::new(&python)
        .arg(script)
        .arg(world.socket())
        .arg(world.directory.path().join("in.jsonl"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}\n{}", String::from_utf8_lossy(&ended.stdout), err(&ended));
    daemon.terminate();
}
