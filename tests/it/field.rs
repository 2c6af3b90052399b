//! The daemon among programs that others wrote: the vendors' SDKs beside it, in front of it and as its receivers.
//!
//! `BATCHD_SDK_PYTHON` names a Python that has what `tests/sdk/requirements.txt` lists, `python3` is tried otherwise;
//! without it a test says that it was skipped.

use crate::world::{SIGNING, TOKEN, World, until};
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use tokio_util::sync::CancellationToken;

/// What the daemon sent is what OpenAI's SDK and the reference library of Standard Webhooks accept, and nothing else.
#[test]
fn others_verify_what_is_sent() {
    let Some(python) = python("openai, standardwebhooks") else { return };
    let world = World::new();
    let ends = ["completed", "failed", "expired", "cancelled"];
    for end in ends {
        world.provider.put(&format!("batch_{end}"), "in_progress", &json!({}));
    }
    world.provider.put(
        "batch_ünï",
        "in_progress",
        &json!({"metadata": {"who": "Zoë \u{1f9ea} \"quoted\"\n"}}),
    );
    let daemon = world.daemon();
    let ids: Vec<String> =
        ends.iter().map(|end| format!("batch_{end}")).chain(["batch_ünï".into()]).collect();
    let mut arguments = vec!["track", "--label", "who=Zoë <&>"];
    arguments.extend(ids.iter().map(String::as_str));
    world.ok(&arguments);
    for end in ends {
        let more = json!({"request_counts": {"total": 4, "completed": 2, "failed": 2}, "output_file_id": "file-out"});
        world.provider.put(&format!("batch_{end}"), end, &more);
    }
    world.provider.complete("batch_ünï");
    let received = world.receiver.wait_for("/hooks", ids.len());
    daemon.terminate();

    let deliveries: Vec<Value> = received
        .iter()
        .map(|delivery| {
            let headers: serde_json::Map<String, Value> = delivery
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
                .collect();
            json!({"headers": headers, "body": std::str::from_utf8(&delivery.body).unwrap()})
        })
        .collect();
    let file = world.directory.path().join("deliveries.json");
    std::fs::write(&file, json!(deliveries).to_string()).unwrap();
    run(&world, &python, "verify_webhooks.py", &[SIGNING, file.to_str().unwrap()]);
}

/// Each vendor's SDK and batchd say the same of the same batches, and OpenAI's reads them all from batchd.
#[test]
fn the_vendors_and_batchd_see_the_same() {
    let modules = "anthropic, google.genai, mistralai.client, openai";
    let Some(python) = python(modules) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let sandbox = format!("http://{}", listener.local_addr().unwrap());
    let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), ..SandboxOptions::default() };
    let stopping = CancellationToken::new();
    let served = runtime.spawn({
        let stopping = stopping.clone();
        async move { Sandbox::new(&options).serve(listener, stopping).await }
    });

    let world = World::new();
    let api = free_address();
    std::fs::write(world.config(), configuration(&world, &sandbox, api)).unwrap();
    let daemon = world.daemon();
    until("TCP answers", || TcpStream::connect(api).ok());
    let batchd = env!("CARGO_BIN_EXE_batchd");
    run(&world, &python, "same_view.py", &[&sandbox, batchd]);
    run(&world, &python, "openai_reads_batchd.py", &[&format!("http://{api}"), batchd, TOKEN]);
    daemon.terminate();
    stopping.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

/// Clients of OpenAI's API create batches at every provider, as if it were OpenAI's: its own SDK, in Python and in Node,
/// and any-llm.
#[test]
fn clients_of_openai_create_batches_at_every_provider() {
    let python = python("openai");
    let any_llm = self::python("any_llm, openai");
    let node = node();
    if python.is_none() && node.is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let sandbox = format!("http://{}", listener.local_addr().unwrap());
    let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), ..SandboxOptions::default() };
    let stopping = CancellationToken::new();
    let served = runtime.spawn({
        let stopping = stopping.clone();
        async move { Sandbox::new(&options).serve(listener, stopping).await }
    });
    let world = World::new();
    let api = free_address();
    std::fs::write(world.config(), configuration(&world, &sandbox, api)).unwrap();
    let file = world.directory.path().join("in.jsonl");
    std::fs::write(&file, crate::submit::requests(12)).unwrap();
    let daemon = world.daemon();
    until("TCP answers", || TcpStream::connect(api).ok());
    let address = format!("http://{api}");
    let arguments = [address.as_str(), TOKEN, file.to_str().unwrap()];
    if let Some(python) = python {
        run(&world, &python, "openai_creates.py", &arguments);
    }
    if let Some(python) = any_llm {
        run(&world, &python, "any_llm_batches.py", &arguments);
    }
    if let Some(node) = node {
        run(&world, &node, "openai_creates.mjs", &arguments);
    }
    daemon.terminate();
    stopping.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

/// Prometheus' own checker finds nothing to say of the metrics.
#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn promtool_accepts_the_metrics() {
    let promtool = std::env::var("BATCHD_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    if Command::new(&promtool).arg("--version").output().is_err() {
        println!("skipped: there is no {promtool}; BATCHD_PROMTOOL names one (Debian: prometheus)");
        return;
    }
    let world = World::new();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/", 2);
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, metrics) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}\n{metrics}");
    daemon.terminate();
}

/// Whatever a batch is called and whatever went wrong with it, Slack takes the message as it is.
#[test]
fn slack_takes_every_message() {
    let Some(python) = python("json") else { return };
    let world = World::new();
    let wild = "<!channel> *x* `y` &amp; <@U1> https://e.example/?a=1&b=2|z \u{202e}\u{1f9ea}\n\t> ";
    let long = wild.repeat(200);
    let ends = [
        ("completed", json!({"completed": 4, "failed": 0, "total": 4}), "completed"),
        ("completed", json!({"completed": 3, "failed": 1, "total": 4}), "completed with errors"),
        ("completed", json!({"completed": 0, "failed": 4, "total": 4}), "every request failed"),
        ("failed", Value::Null, "failed"),
        ("expired", json!({"completed": 0, "failed": 0, "total": 4}), "expired"),
        ("expired", json!({"completed": 2, "failed": 0, "total": 4}), "expired with some results"),
        ("cancelled", json!({"completed": 0, "failed": 0, "total": 4}), "cancelled"),
        ("cancelled", json!({"completed": 2, "failed": 0, "total": 4}), "cancelled with some results"),
    ];
    let errors: Vec<Value> = (0..50)
        .map(|line| json!({"code": format!("{long}{line}"), "message": long, "line": line, "param": wild}))
        .collect();
    let mut tells = Vec::new();
    for (number, (status, counts, headline)) in ends.iter().enumerate() {
        for (manner, errors) in [("tame", Value::Null), ("wild", json!({"object": "list", "data": errors}))] {
            let id = if manner == "wild" {
                format!("batch_{number}_<!here>&*x*`y`")
            } else {
                format!("batch_{number}")
            };
            let model = if manner == "wild" { long.as_str() } else { "gpt-x" };
            let more =
                json!({"request_counts": counts, "errors": errors, "model": model, "output_file_id": "f"});
            world.provider.put(&id, status, &more);
            tells.push((id, manner, *headline));
        }
    }
    let daemon = world.daemon();
    for (number, (id, manner, _)) in tells.iter().enumerate() {
        let (name, label) = if *manner == "wild" {
            (format!("{id}{}", wild.repeat(5).trim()), format!("who={}", wild.repeat(5)))
        } else {
            (format!("{id}_name"), "who=R&D <evals>".to_owned())
        };
        world.ok(&["track", "--name", &name, "--label", &label, "--", id]);
        // What follows within ten seconds would share a message, if nobody asked for it.
        until("it is told by itself", || {
            world.ok(&["deliveries", "retry", "--dead"]);
            (world.receiver.received("/slack").len() > number).then_some(())
        });
    }
    let rich = world.receiver.wait_for("/slack", tells.len());

    // The same where Slack refuses the form, and what is no batch.
    world.receiver.answer(400, "invalid_blocks");
    world.provider.put("batch_plain", "failed", &json!({"errors": {"object": "list", "data": errors}}));
    world.ok(&["track", "--name", &wild.repeat(5), "batch_plain"]);
    let plain = world.receiver.wait_for("/slack", tells.len() + 2);
    world.receiver.answer(200, "ok");
    world.provider.put("batch_live", "in_progress", &json!({}));
    world.ok(&["track", "batch_live"]);
    world.provider.fault(Some((401, &json!({"error": {"message": long}}).to_string())));
    let refused = until("the refused key is told", || {
        let told = world.receiver.received("/slack");
        told.into_iter().find(|post| String::from_utf8_lossy(&post.body).contains("refuses the key"))
    });
    daemon.terminate();

    let mut posts: Vec<Value> = rich
        .iter()
        .map(|post| {
            let body = std::str::from_utf8(&post.body).unwrap();
            let found = tells
                .iter()
                .find(|(id, manner, _)| *manner == "tame" && body.contains(&format!("{id}_name")));
            let tells = found.map(|(id, _, headline)| json!([headline, id, "gpt-x", "who=R&D <evals>"]));
            json!({"body": body, "tells": tells.unwrap_or_else(|| json!([]))})
        })
        .collect();
    assert_eq!(posts.iter().filter(|post| post["tells"] != json!([])).count(), ends.len());
    for post in plain.iter().skip(tells.len()).chain([&refused]) {
        posts.push(json!({"body": std::str::from_utf8(&post.body).unwrap(), "tells": []}));
    }
    let file = world.directory.path().join("posts.json");
    std::fs::write(&file, json!(posts).to_string()).unwrap();
    run(&world, &python, "check_slack.py", &[file.to_str().unwrap()]);
}

/// Four providers, all in the sandbox, and the API on TCP.
pub fn configuration(world: &World, sandbox: &str, api: SocketAddr) -> String {
    let providers: String = [("openai", "/v1"), ("anthropic", ""), ("gemini", "/v1beta"), ("mistral", "")]
        .map(|(name, path)| {
            format!(
                "[providers.{name}]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"{sandbox}{path}\"\n"
            )
        })
        .concat();
    format!(
        "[state]\ndir = \"{}\"\n[api]\nsocket = \"{}\"\nlisten = \"{api}\"\ntoken = {{ env = \"TEST_TOKEN\" }}\n\
         [polling]\nmin_interval = \"1s\"\nmax_interval = \"1s\"\n{providers}",
        world.state().display(),
        world.socket().display(),
    )
}

/// An address on which nobody listens now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The Python to use, if it has `modules`.
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
pub fn python(modules: &str) -> Option<String> {
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if imported.is_ok_and(|imported| imported.status.success()) {
        return Some(python);
    }
    println!("skipped: {python} lacks one of {modules}; BATCHD_SDK_PYTHON names a Python that has them");
    None
}

/// Node, if it has OpenAI's package: `BATCHD_SDK_NODE_MODULES` is the directory that holds it.
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
pub fn node() -> Option<String> {
    let modules = std::env::var("BATCHD_SDK_NODE_MODULES").unwrap_or_default();
    if Path::new(&modules).join("openai").is_dir() && Command::new("node").arg("--version").output().is_ok() {
        return Some("node".to_owned());
    }
    println!("skipped: no node, or BATCHD_SDK_NODE_MODULES names no directory with the package openai");
    None
}

/// Runs `script`, whose `batchd` finds this world's daemon.
#[expect(clippy::print_stdout, reason = "what another program saw")]
fn run(world: &World, python: &str, script: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script);
    let ended = Command::new(python)
        .arg(path)
        .args(arguments)
        .env("BATCHD_CONFIG", world.config())
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{script} failed\n{out}\n{err}");
    println!("{out}");
}
