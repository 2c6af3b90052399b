//! The clouds' services against what others wrote: credentials as AWS's machines give them, ministack in AWS's place,
//! and the official SDKs, whose requests ours must equal.

use crate::world::{Daemon, World, until};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse as _;
use batchd::config::{Polling, ProviderConfig};
use batchd::http::call::Call;
use batchd::provider::{Account, PageRequest, Provider, kind};
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

/// A request: method, path, query in order of its names, body.
type Asked = (String, String, Vec<(String, String)>, Value);

fn asked(method: &str, uri: &Uri, body: &[u8]) -> Asked {
    let mut query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    query.sort();
    (method.to_owned(), uri.path().to_owned(), query, serde_json::from_slice(body).unwrap_or_default())
}

fn asked_by(call: &Call) -> Asked {
    asked(call.request.method().as_str(), call.request.uri(), call.request.body())
}

/// What the official SDK of `kind` asks for, in the order of the script; `None`: there is no Python with it at hand.
fn sdk_asks(module: &str, kind: &str) -> Option<Vec<Asked>> {
    async fn listen(
        State(seen): State<Arc<Mutex<Vec<Asked>>>>,
        method: axum::http::Method,
        uri: Uri,
        body: axum::body::Bytes,
    ) -> axum::response::Response {
        seen.lock().unwrap().push(asked(method.as_str(), &uri, &body));
        ([("content-type", "application/json")], "{}").into_response()
    }
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported =
        Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !imported.is_ok_and(|status| status.success()) {
        eprintln!("skipped: {python} has no {module}; BATCHD_SDK_PYTHON names a Python that has");
        return None;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let seen = Arc::<Mutex<Vec<Asked>>>::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(listen).with_state(seen.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/cloud_requests.py");
    let output = Command::new(&python)
        .arg(script)
        .args([&format!("http://{address}"), kind])
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = seen.lock().unwrap().clone();
    Some(seen)
}

fn adapter(name: &str, options: &[(&str, &str)]) -> Box<dyn Provider> {
    let config = ProviderConfig {
        name: name.to_owned(),
        kind: name.to_owned(),
        base_url: "http://127.0.0.1:9".to_owned(),
        api_key: None,
        webhook_secret: None,
        discover: None,
        polling: Polling::default(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    (kind(name).unwrap().build)(&Account { config: &config, api_key: None })
}

#[test]
fn vertex_is_asked_as_google_s_sdk_asks() {
    let Some(asks) = sdk_asks("google.genai", "vertex") else { return };
    let vertex = adapter("vertex", &[("project", "of-ours"), ("location", "of-ours")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [vertex.retrieve("4002"), vertex.list(&page), vertex.cancel("4002")];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..3]);
}

#[test]
fn fireworks_is_asked_as_its_sdk_asks() {
    let Some(asks) = sdk_asks("fireworks", "fireworks") else { return };
    let fireworks = adapter("fireworks", &[("account", "of-ours")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [fireworks.retrieve("job-1"), fireworks.list(&page)];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..2]);
}

#[test]
fn bedrock_is_asked_as_aws_s_sdk_asks() {
    let Some(asks) = sdk_asks("boto3", "bedrock") else { return };
    let bedrock = adapter("bedrock", &[("region", "us-east-1")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [bedrock.retrieve(ARN), bedrock.list(&page), bedrock.cancel(ARN)];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..3]);
}
