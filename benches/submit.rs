//! A file of 199 MB on its way to a simulated provider, beside curl with the same bytes: `cargo bench --bench submit`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use batchd::sandbox::{Sandbox, SandboxOptions};
use harness::{best, is_asked_for, peak, quiet_daemon};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use world::World;

const ROUNDS: usize = 4;
const BYTES: usize = 199_000_000;

fn main() {
    if !is_asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let options = SandboxOptions { memory: 4 << 30, ..SandboxOptions::default() };
    let sandbox = Sandbox::new(&options).router();
    let served = runtime.spawn(async move { axum::serve(listener, sandbox).await });

    let world = World::new();
    let account = |name: &str, path: &str| {
        format!(
            "[providers.{name}]\nkind = \"{name}\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"{address}{path}\"\n"
        )
    };
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace("[providers.openai]", "[providers.unused]\nkind = \"openai\"");
    std::fs::write(world.config(), text + &account("openai", "/v1") + &account("mistral", "")).unwrap();
    let file = world.directory.path().join("requests.jsonl");
    write_requests(&file);
    let daemon = quiet_daemon(&world);

    println!("{:<58} {:>10}", "", "best of 4");
    let uploaded = best(ROUNDS, || drop(upload(&address, &file)));
    say("curl uploads the file", uploaded);
    let created = best(ROUNDS, || create(&address, &upload(&address, &file)));
    say("curl uploads the file and creates a batch from it", created);
    let submitted =
        best(ROUNDS, || drop(world.ok(&["submit", file.to_str().unwrap(), "--provider", "openai"])));
    say("batchd submit", submitted);
    let peak_of_one = peak(&daemon);
    let translated =
        best(ROUNDS, || drop(world.ok(&["submit", file.to_str().unwrap(), "--provider", "mistral"])));
    say("batchd submit, every request translated", translated);
    let share = |other: Duration| other.as_secs_f64() / submitted.as_secs_f64();
    println!(
        "batchd submit has {:.2} of the speed of curl's upload, {:.2} of that with the creation; marks: at least 0.5, and \
         under 60 MiB",
        share(uploaded),
        share(created)
    );
    println!("the daemon's most memory: {peak_of_one:.1} MiB, with translation {:.1} MiB", peak(&daemon));
    daemon.terminate();
    served.abort();
}

fn say(what: &str, taken: Duration) {
    println!("{what:<58} {:>8.2} s", taken.as_secs_f64());
}

/// Requests of some 5 KB each.
fn write_requests(file: &Path) {
    let words = "lorem ipsum dolor sit amet consectetur ".repeat(120);
    let mut text = String::with_capacity(BYTES + 8192);
    for number in 0.. {
        if text.len() >= BYTES {
            break;
        }
        let body = json!({"model": "m", "messages": [{"role": "user", "content": words}]});
        let line = json!({
            "custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body,
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    std::fs::write(file, text).unwrap();
}

fn upload(address: &str, file: &Path) -> String {
    let form = format!("file=@{}", file.display());
    curl(&["-F", "purpose=batch", "-F", &form, &format!("{address}/v1/files")])
}

fn create(address: &str, file: &str) {
    let batch =
        json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let body = batch.to_string();
    curl(&["-H", "content-type: application/json", "-d", &body, &format!("{address}/v1/batches")]);
}

/// The id in the answer.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-s", "-f", "-H", "authorization: Bearer k"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["id"].as_str().unwrap().to_owned()
}
