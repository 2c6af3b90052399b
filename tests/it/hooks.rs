//! The services' own webhooks as a service would send them, signed by the reference implementation.

use crate::world::{SIGNING, World, until};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::io::{Read, Write};

/// A world with an account that looks at nothing by itself for an hour and takes webhooks.
fn world() -> World {
    let world = World::new();
    world.configure(&format!(
        "[providers.hooked]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\n\
         base_url = \"http://{}/v1\"\nwebhook_secret = {{ env = \"TEST_SIGNING\" }}\n\
         min_interval = \"1h\"\nmax_interval = \"1h\"\n",
        world.provider_address
    ));
    world
}

fn now() -> i64 {
    jiff_now().as_second()
}

fn jiff_now() -> jiff::Timestamp {
    batchd::clock::Clock::system().now()
}

fn message(kind: &str, id: &str) -> String {
    json!({"id": "evt_1", "object": "event", "created_at": now(), "type": kind, "data": {"id": id}})
        .to_string()
}

/// Sends a body to a path with these three headers.
fn send(world: &World, path: &str, id: &str, timestamp: i64, signature: &str, body: &str) -> (u16, String) {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: somewhere.example\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/json\r\nwebhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\n\
         webhook-signature: {signature}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The same, well signed.
fn signed(world: &World, path: &str, id: &str, timestamp: i64, body: &str) -> (u16, String) {
    let signature = Webhook::new(SIGNING).unwrap().sign(id, timestamp, body.as_bytes()).unwrap();
    send(world, path, id, timestamp, &signature, body)
}

#[test]
fn a_hint_has_its_batch_looked_at_and_is_not_believed() {
    let world = world();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "hooked:batch_1"]);
    world.provider.complete("batch_1");
    let body = message("batch.failed", "batch_1");
    let (status, answer) = signed(&world, "/hooks/hooked", "msg_1", now(), &body);
    assert_eq!((status, answer.as_str()), (200, "{\"received\":true}"));
    let ended = until("the end is seen", || {
        let batch = world.json(&["show", "batch_1", "--json"]);
        (batch["status"] != "in_progress").then_some(batch)
    });
    assert_eq!(ended["status"], "completed", "the provider's own word counts");
    daemon.terminate();
}

#[test]
fn an_id_that_is_not_tracked_yet_is_tracked_and_its_end_is_told() {
    let world = world();
    world.provider.complete("batch_2");
    let daemon = world.daemon();
    let body = message("batch.completed", "batch_2");
    assert_eq!(signed(&world, "/hooks/hooked", "msg_2", now(), &body).0, 200);
    let told = world.receiver.wait_for("/hooks", 1);
    assert_eq!(told[0].json()["type"], "batch.completed");
    assert_eq!(told[0].json()["data"]["previous_status"], Value::Null);
    let found = world.json(&["show", "hooked:batch_2", "--json"]);
    assert_eq!(found["batchd"]["owner"], Value::Null);
    // Once more is no news, even of a batch that has been purged since.
    world.ok(&["untrack", "--purge", "hooked:batch_2"]);
    assert_eq!(signed(&world, "/hooks/hooked", "msg_2", now(), &body).0, 200);
    assert_eq!(world.batchd(&["show", "hooked:batch_2"]).status.code(), Some(66));
    // What is not about a batch is taken and left alone.
    let body = message("response.completed", "resp_1");
    assert_eq!(signed(&world, "/hooks/hooked", "msg_3", now(), &body).0, 200);
    assert_eq!(world.json(&["list", "--all", "--json"])["data"], json!([]));
    daemon.terminate();
}

#[test]
fn what_is_not_signed_well_or_too_old_is_refused() {
    let world = world();
    let daemon = world.daemon();
    let body = message("batch.completed", "batch_3");
    let good = |id: &str, at: i64| Webhook::new(SIGNING).unwrap().sign(id, at, body.as_bytes()).unwrap();
    let at = now();
    let other = Webhook::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let foreign = other.sign("msg_1", at, body.as_bytes()).unwrap();
    for (what, id, timestamp, signature, expected) in [
        ("another secret", "msg_1", at, foreign.as_str(), 401),
        ("no signature", "msg_1", at, "", 401),
        ("another id", "msg_other", at, &good("msg_1", at), 401),
        ("another time", "msg_1", at + 1, &good("msg_1", at), 401),
        ("too old", "msg_1", at - 310, &good("msg_1", at - 310), 401),
        ("too far ahead", "msg_1", at + 310, &good("msg_1", at + 310), 401),
    ] {
        let (status, answer) = send(&world, "/hooks/hooked", id, timestamp, signature, &body);
        assert_eq!(status, expected, "{what}: {answer}");
        assert!(answer.contains("\"error\""), "{what}: {answer}");
    }
    let (status, answer) =
        send(&world, "/hooks/hooked", "msg_1", at, &good("msg_1", at), &format!("{body} "));
    assert_eq!(status, 401, "another body: {answer}");
    assert_eq!(signed(&world, "/hooks/hooked", "msg_4", at, "no JSON").0, 400);
    assert_eq!(signed(&world, "/hooks/hooked", "msg_5", at, &message("batch.completed", "a\nb")).0, 400);
    assert_eq!(signed(&world, "/hooks/hooked", "msg_6", at, &"x".repeat(100_000)).0, 413);
    assert_eq!(signed(&world, "/hooks/openai", "msg_7", at, &body).0, 404, "it has no secret");
    assert_eq!(signed(&world, "/hooks/nobody", "msg_8", at, &body).0, 404);
    assert_eq!(world.json(&["list", "--all", "--json"])["data"], json!([]));
    // The very last second of either side still counts.
    assert_eq!(signed(&world, "/hooks/hooked", "msg_9", now() - 290, &body).0, 200);
    assert!(!daemon.log().contains(SIGNING), "{}", daemon.log());
    daemon.terminate();
}
