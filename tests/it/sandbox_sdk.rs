//! The vendors' own SDKs against the sandbox, where a Python that has them is at hand.
//!
//! `BATCHD_SDK_PYTHON` names it, `python3` is tried otherwise; without the SDK a test says that it was skipped. A
//! Python for all four: `python3 -m venv V && V/bin/pip install openai anthropic google-genai mistralai`.

use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use std::path::Path;
use std::process::Stdio;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn openai() {
    run("openai", "openai_batches.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic() {
    run("anthropic", "anthropic_batches.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini() {
    run("google.genai", "gemini_batches.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistral() {
    run("mistralai.extra.batch.client", "mistral_batches.py").await;
}

/// Runs `script` against a sandbox of its own, in which a batch lives for about a second.
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
async fn run(module: &str, script: &str) {
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported =
        Command::new(&python).args(["-c", &format!("import {module}")]).stdin(Stdio::null()).output().await;
    if !imported.is_ok_and(|imported| imported.status.success()) {
        println!("skipped: {python} has no {module}; BATCHD_SDK_PYTHON names a Python that has");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), ..SandboxOptions::default() };
    let sandbox = Sandbox::new(&options);
    let shutdown = CancellationToken::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script);
    let ended = async {
        let ended = Command::new(&python)
            .arg(path)
            .arg(address)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        shutdown.cancel();
        ended.unwrap()
    };
    let (ended, served) = tokio::join!(ended, sandbox.serve(listener, shutdown.clone()));
    served.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{script} failed\n{out}\n{err}");
    println!("{out}");
}
