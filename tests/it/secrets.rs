//! Every kind of webhook and every answer that a receiver can give: no secret shows anywhere afterwards.

use crate::world::{Daemon, World, until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use batchd::webhook::registry::KINDS;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Of every URL, in its path and in its query.
const PATH: &str = "P4THSECRET0123456789";
const QUERY: &str = "QU3RYSECRET0123456789";
/// What each further key is; the chat must be a number.
const KEYS: [(&str, &str); 4] = [
    ("routing_key", "R0UTINGKEYSECRET0123456789"),
    ("topic", "T0PICSECRET0123456789"),
    ("token", "T0KENSECRET0123456789"),
    ("chat", "-1009876543210123"),
];
const SIGNING: &str = "whsec_c2lnbmluZy1zZWNyZXQtMDEyMzQ1Njc4OS1hYmNkZWY=";

/// Statuses that services really answer with; 302 also tells where to, 429 how long.
const STATUSES: [u16; 13] = [200, 202, 204, 302, 400, 401, 403, 404, 410, 413, 429, 500, 503];

/// Gives back everything that it was sent.
async fn echo(State(status): State<Arc<AtomicU16>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let status = StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap();
    let text = format!("{uri}\n{headers:?}\n{}", String::from_utf8_lossy(&body));
    let json = json!({"message": text, "description": text, "error": {"message": text}, "errors": [text]});
    let location = format!("https://elsewhere.example{uri}");
    (status, [("location", location), ("retry-after", "1".to_owned())], json.to_string()).into_response()
}

fn ask(world: &World, method: &str, path: &str) -> Vec<u8> {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: 2\r\n\r\n{{}}"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn configuration(receiver: SocketAddr) -> String {
    let mut text = String::new();
    for kind in KINDS {
        let name = kind.facts.name;
        write!(
            text,
            "\n[webhooks.{name}]\nkind = \"{name}\"\nurl = \"http://ops:{QUERY}@{receiver}/{PATH}?key={QUERY}\"\n\
             retry = [\"1ms\", \"1ms\"]\ntemplate = \"{{{{ line }}}}\"\n"
        )
        .unwrap();
        if kind.facts.signs {
            writeln!(text, "secret = \"{SIGNING}\"").unwrap();
        }
        for (key, secret) in KEYS {
            if kind.facts.needs.contains(&key) || kind.facts.options.contains(&key) {
                writeln!(text, "{key} = \"{secret}\"").unwrap();
            }
        }
    }
    text
}

#[test]
fn g10_no_kind_and_no_answer_makes_a_secret_seen() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let receiver = listener.local_addr().unwrap();
    let status = Arc::new(AtomicU16::new(200));
    let app = Router::new().fallback(echo).with_state(status.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    world.configure(&configuration(receiver));
    let daemon = Daemon::start(world.command().args(["-vv", "run"]).env("RUST_LOG", "trace"));
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());

    let mut surfaces: Vec<(String, Vec<u8>)> = Vec::new();
    for code in STATUSES {
        status.store(code, Ordering::SeqCst);
        for kind in KINDS {
            let name = kind.facts.name;
            let answer = ask(&world, "POST", &format!("/v1/webhooks/{name}/test"));
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{name}: {}", String::from_utf8_lossy(&answer));
            surfaces.push((format!("the try-out of {name} at {code}"), answer));
        }
        // One more through the outbox, so that rows are written.
        let id = format!("batch_{code}");
        world.provider.put(&id, "failed", &json!({"errors": {"data": [{"message": "it failed"}]}}));
        world.ok(&["track", &id]);
        surfaces.push((format!("webhooks at {code}"), ask(&world, "GET", "/v1/webhooks")));
        for kind in KINDS {
            let answer = ask(&world, "POST", &format!("/v1/webhooks/{}/enable", kind.facts.name));
            surfaces.push((format!("{} enabled", kind.facts.name), answer));
        }
    }
    // None of them is switched off or asked to wait any more: each has tried something.
    status.store(500, Ordering::SeqCst);
    until("every webhook has been tried through the outbox", || {
        let deliveries = world.json(&["deliveries", "--json"]);
        let all = deliveries["data"].as_array().cloned().unwrap_or_default();
        let tried = |name: &str| all.iter().any(|one| one["webhook"] == name && !one["last_error"].is_null());
        KINDS.iter().all(|kind| tried(kind.facts.name)).then_some(())
    });
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["webhooks"],
        &["webhooks", "--json"],
        &["webhooks", "test", "telegram"],
        &["deliveries"],
        &["deliveries", "--json"],
        &["show", "batch_404", "--json"],
        &["show", "batch_302"],
        &["events", "--json"],
        &["config", "show"],
        &["config", "check"],
        &["reload"],
    ] {
        let output = world.batchd(arguments);
        surfaces.push((format!("batchd {arguments:?}"), [output.stdout, output.stderr].concat()));
    }
    surfaces.push(("metrics".to_owned(), ask(&world, "GET", "/metrics")));
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        surfaces.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    surfaces.push(("the log".to_owned(), daemon.log().into_bytes()));

    let key = SIGNING.trim_start_matches("whsec_");
    let secrets = [PATH, QUERY, SIGNING, key].into_iter().chain(KEYS.map(|(_, secret)| secret));
    for secret in secrets {
        for (surface, bytes) in &surfaces {
            if let Some(at) = bytes.windows(secret.len()).position(|window| window == secret.as_bytes()) {
                let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
                panic!("{surface} shows {secret}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }
}
