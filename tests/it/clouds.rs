//! Bedrock with the real binary: credentials as AWS's machines give them, and ministack in AWS's place.

use crate::world::{Daemon, World, until};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const ARN: &str = "arn:aws:bedrock:us-east-1:111122223333:model-invocation-job/ab12cd34ef56";

/// A daemon of `world` with more in its environment.
fn daemon(world: &World, environment: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::start(world.command().envs(environment.iter().copied()).args(["-vv", "run"]));
    until("the daemon answers", || {
        assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
        std::os::unix::net::UnixStream::connect(world.socket()).ok()
    });
    daemon
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// The credentials of a container, and a job at the same address.
async fn aws(State(seen): State<Seen>, uri: Uri, headers: HeaderMap) -> axum::response::Response {
    seen.lock().unwrap().push((uri.path().to_owned(), headers));
    if uri.path() == "/credentials" {
        return json!({
            "AccessKeyId": "ASIAOFTHECONTAINER", "SecretAccessKey": "secret-of-the-container",
            "Token": "token-of-the-container", "Expiration": "2099-01-01T00:00:00Z",
        })
        .to_string()
        .into_response();
    }
    json!({"jobArn": ARN, "status": "InProgress", "submitTime": "2026-11-20T08:00:00Z"})
        .to_string()
        .into_response()
}

#[test]
fn a_container_s_credentials_sign_and_are_asked_for_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let seen = Seen::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(aws).with_state(seen.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let world = World::new();
    world.configure(&format!(
        "[providers.bedrock]\nregion = \"us-east-1\"\nbase_url = \"http://{address}\"\n"
    ));
    let place = format!("http://{address}/credentials");
    let daemon = daemon(
        &world,
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", place.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")],
    );
    for _ in 0..2 {
        assert_eq!(world.json(&["get", ARN, "--json"])["status"], "in_progress");
    }
    let seen = seen.lock().unwrap();
    let asked = |path: &str| seen.iter().filter(|(seen, _)| seen == path).count();
    assert_eq!(asked("/credentials"), 1);
    let path = format!("/model-invocation-job/{}", ARN.replace(':', "%3A").replace('/', "%2F"));
    let (_, headers) = seen.iter().find(|(seen, _)| *seen == path).unwrap();
    let authorization = headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIAOFTHECONTAINER/"), "{authorization}");
    assert!(authorization.contains("/us-east-1/bedrock/aws4_request"), "{authorization}");
    assert_eq!(headers["x-amz-security-token"], "token-of-the-container");
    for secret in ["secret-of-the-container", "token-of-the-container"] {
        assert!(!daemon.log().contains(secret));
    }
}

#[test]
fn a_machine_without_credentials_is_told_what_to_set() {
    let world = World::new();
    world.configure("[providers.bedrock]\nregion = \"us-east-1\"\nbase_url = \"http://127.0.0.1:9\"\n");
    let _daemon = daemon(&world, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    let output = world.batchd(&["get", ARN]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no AWS credentials are found: set AWS_ACCESS_KEY_ID"), "{told}");
}

/// ministack, and the Python that has it.
struct Ministack {
    python: String,
    address: String,
    process: Child,
    _state: tempfile::TempDir,
}

impl Ministack {
    /// `None`: there is no Python with it at hand.
    fn start() -> Option<Self> {
        let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = |module: &str| {
            let mut command = Command::new(&python);
            command.args(["-c", &format!("import {module}")]).stdin(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !has("boto3") || !has("ministack") {
            eprintln!(
                "skipped: {python} has no boto3 and ministack; BATCHD_SDK_PYTHON names a Python that has"
            );
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = tempfile::tempdir().unwrap();
        let process = Command::new(&python)
            .args(["-m", "ministack"])
            .current_dir(state.path())
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("TMPDIR", state.path())
            .env("S3_PERSIST", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        until("ministack answers", || std::net::TcpStream::connect(&address).ok());
        Some(Self { python, address: format!("http://{address}"), process, _state: state })
    }

    /// Has AWS's own SDK do something; gives what it prints.
    fn boto(&self, arguments: &[&str]) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/bedrock_jobs.py");
        let output = Command::new(&self.python)
            .arg(script)
            .arg(&self.address)
            .args(arguments)
            .envs(KEYS)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIATEST"),
    ("AWS_SECRET_ACCESS_KEY", "aws-secret-that-nobody-may-see"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
];

#[test]
fn ministack_s_jobs_are_watched_and_stopped() {
    let Some(ministack) = Ministack::start() else { return };
    let made = ministack.boto(&["create", "nightly"]);
    let arn = made.as_str().unwrap();
    let world = World::new();
    world.configure(&format!("[providers.bedrock]\nbase_url = \"{}\"\n", ministack.address));
    let daemon = daemon(&world, &KEYS);

    world.ok(&["providers", "check", "bedrock"]);
    world.ok(&["track", arn]);
    let shown = world.json(&["show", arn, "--json"]);
    assert_eq!(shown["status"], "in_progress", "{shown}");
    assert_eq!(shown["batchd"]["provider"], "bedrock");
    assert_eq!(shown["batchd"]["provider_status"], "InProgress");
    assert_eq!(shown["model"], "anthropic.claude-example-v1:0");
    assert_eq!(shown["input_file_id"], "s3://batches/in/nightly.jsonl");

    world.ok(&["cancel", arn]);
    assert_eq!(ministack.boto(&["status", arn]), "Stopped");
    until("the end is seen", || {
        (world.json(&["show", arn, "--json"])["status"] == "cancelled").then_some(())
    });
    assert!(!daemon.log().contains("aws-secret"), "{}", daemon.log());
}
