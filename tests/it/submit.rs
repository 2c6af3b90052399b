//! `batchd submit` with the real binary: at the sandbox's four services, and at one that fails in every way there is.

use crate::world::{Daemon, World, until};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A service of OpenAI's and Anthropic's shape that does with a creation what the test says.
#[derive(Clone)]
pub struct Service(Arc<Mutex<State_>>);

pub struct State_ {
    manner: Manner,
    /// Batches as they are listed, newest first.
    batches: Vec<Value>,
    /// How often a batch was asked for.
    asked: usize,
    /// How many bytes of uploads have come.
    uploaded: usize,
    begun: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// As it should be.
    Well,
    /// Creates the batch and never answers.
    Silent,
    /// Creates the batch and breaks the connection off within the answer.
    Broken,
    /// Creates as many batches as that, as if others had done so too, and breaks off.
    Crowded(usize),
    /// Takes so many batches in all; for more the quota is used up.
    Limited(usize),
    /// Answers this, and creates nothing.
    Refusing(u16),
    /// Takes uploads and never answers them.
    Swallowing,
    /// Breaks uploads off in the middle.
    Cutting,
}

impl Service {
    pub fn manner(&self, manner: Manner) {
        self.0.lock().unwrap().manner = manner;
    }

    /// Changes a batch that was created, as it is shown from now on.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock().unwrap();
        change(state.batches.iter_mut().find(|batch| batch["id"] == id).unwrap());
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().batches.len()
    }

    pub fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    /// The times of batches are those of this machine.
    fn now() -> i64 {
        batchd::clock::Clock::system().now().as_second()
    }

    /// What becomes of a request for a batch.
    async fn create(&self, make: impl Fn(usize, i64) -> Value) -> Response {
        let manner = {
            let mut state = self.0.lock().unwrap();
            state.asked += 1;
            state.begun = Self::now();
            let more = match state.manner {
                Manner::Refusing(_) => 0,
                Manner::Limited(most) if state.batches.len() >= most => 0,
                Manner::Crowded(count) => count,
                _ => 1,
            };
            for _ in 0..more {
                let batch = make(state.batches.len() + 1, state.begun);
                state.batches.insert(0, batch);
            }
            if let Manner::Limited(most) = state.manner
                && more == 0
            {
                return used_up(most);
            }
            state.manner
        };
        match manner {
            Manner::Silent => std::future::pending().await,
            Manner::Broken | Manner::Crowded(_) => broken(),
            Manner::Refusing(status) => refused(status),
            _ => self.0.lock().unwrap().batches[0].to_string().into_response(),
        }
    }
}

/// An answer that ends before it should.
fn broken() -> Response {
    let body = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("as it must")) });
    ([(header::CONTENT_LENGTH, "100")], Body::from_stream(body)).into_response()
}

fn refused(status: u16) -> Response {
    let body = json!({"error": {"message": "not today", "type": "invalid_request_error"}}).to_string();
    (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, "http://127.0.0.1:1/")], body).into_response()
}

/// A refusal as OpenAI words it.
fn used_up(most: usize) -> Response {
    let message = format!(
        "Enqueued token limit reached for m-1 in organization org-1. Limit: {}0,000 enqueued tokens. Please try again \
         once some in_progress batches have been completed.",
        most + 1
    );
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "code": "token_limit_exceeded"}});
    (StatusCode::TOO_MANY_REQUESTS, body.to_string()).into_response()
}

async fn files(State(service): State<Service>, body: Body) -> Response {
    let manner = service.0.lock().unwrap().manner;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { break };
        service.0.lock().unwrap().uploaded += piece.len();
        if manner == Manner::Cutting {
            return broken();
        }
    }
    if manner == Manner::Swallowing {
        std::future::pending::<()>().await;
    }
    json!({"id": "file-in", "object": "file", "purpose": "batch"}).to_string().into_response()
}

async fn openai_create(State(service): State<Service>, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    service
        .create(|number, at| {
            json!({
                "id": format!("batch_{number}"), "object": "batch", "endpoint": asked["endpoint"], "created_at": at,
                "input_file_id": asked["input_file_id"], "completion_window": "24h", "status": "validating",
                "metadata": asked["metadata"], "request_counts": {"total": 2, "completed": 0, "failed": 0},
            })
        })
        .await
}

async fn anthropic_create(State(service): State<Service>, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let count = asked["requests"].as_array().unwrap().len();
    service
        .create(|number, at| {
            let at = jiff::Timestamp::from_second(at).unwrap().to_string();
            json!({
                "id": format!("msgbatch_{number}"), "type": "message_batch", "processing_status": "in_progress",
                "created_at": at, "request_counts":
                    {"processing": count, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
            })
        })
        .await
}

async fn list(State(service): State<Service>, uri: axum::http::Uri) -> Response {
    let mut batches = service.0.lock().unwrap().batches.clone();
    // Each shape has a list of its own.
    batches.retain(|batch| uri.path().contains("messages") == batch["type"].is_string());
    json!({"object": "list", "data": batches, "has_more": false}).to_string().into_response()
}

async fn one(State(service): State<Service>, Path(id): Path<String>) -> Response {
    let state = service.0.lock().unwrap();
    match state.batches.iter().find(|batch| batch["id"] == id.as_str()) {
        Some(batch) => batch.to_string().into_response(),
        None => (StatusCode::NOT_FOUND, json!({"error": {"message": "no such batch"}}).to_string())
            .into_response(),
    }
}

/// A world with the failing service as `mine` and, in Anthropic's shape, as `claude`.
pub struct Stage {
    pub world: World,
    pub service: Service,
    /// Where it is.
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

pub fn serve(runtime: &tokio::runtime::Runtime, app: Router) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

impl Stage {
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = Service(Arc::new(Mutex::new(State_ {
            manner: Manner::Well,
            batches: Vec::new(),
            asked: 0,
            uploaded: 0,
            begun: 0,
        })));
        let address = serve(
            &runtime,
            Router::new()
                .route("/v1/files", post(files))
                .route("/v1/batches", post(openai_create).get(list))
                .route("/v1/batches/{id}", get(one))
                .route("/v1/messages/batches", post(anthropic_create).get(list))
                .layer(axum::extract::DefaultBodyLimit::disable())
                .with_state(service.clone()),
        );
        let world = World::new();
        world.configure(&format!(
            "[providers.mine]\nkind = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\n\
             [providers.claude]\nkind = \"anthropic\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}\"\n"
        ));
        std::fs::write(world.directory.path().join("in.jsonl"), requests(2)).unwrap();
        Self { world, service, address, _runtime: runtime }
    }

    pub fn submit(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command();
        command.current_dir(self.world.directory.path()).args(["submit", "in.jsonl"]).args(arguments);
        command
    }

    /// Submissions that are not settled, as `status` tells.
    pub fn open(&self) -> Vec<Value> {
        self.world.json(&["status", "--json"])["submissions"].as_array().unwrap().clone()
    }

    pub fn tracked(&self) -> Vec<Value> {
        self.world.json(&["list", "--all", "--json"])["data"].as_array().unwrap().clone()
    }
}

pub fn requests(count: usize) -> String {
    let line = |number| {
        json!({
            "custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
        })
        .to_string()
    };
    (0..count).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_batch_that_was_created_but_never_answered_is_found_after_a_kill_and_not_created_again() {
    let stage = Stage::new();
    stage.service.manner(Manner::Silent);
    let daemon = stage.world.daemon();
    let arguments =
        ["--provider", "mine", "--name", "nightly", "--label", "team=evals", "--metadata", "job=n1"];
    let mut submitting =
        stage.submit(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until("the provider has the batch", || (stage.service.count() == 1).then_some(()));
    daemon.kill();
    assert_eq!(submitting.wait().unwrap().code(), Some(69));
    let mut told = String::new();
    submitting.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("batchd status"), "{told}");

    stage.service.manner(Manner::Well);
    let daemon = stage.world.daemon();
    let batch = until("the batch is tracked", || stage.tracked().pop());
    assert_eq!(batch["id"], "batch_1");
    assert_eq!(
        (&batch["batchd"]["name"], &batch["batchd"]["labels"]["team"]),
        (&json!("nightly"), &json!("evals"))
    );
    assert_eq!((&batch["metadata"]["job"], &batch["model"]), (&json!("n1"), &json!("m-1")));
    assert_eq!((stage.open().len(), stage.service.asked()), (0, 1));
    daemon.terminate();
}

#[test]
fn a_lost_answer_is_made_good_at_once() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    for (provider, id) in [("mine", "batch_1"), ("claude", "msgbatch_2")] {
        stage.service.manner(Manner::Broken);
        let output = stage.submit(&["--provider", provider]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), id);
        assert!(err(&output).contains("the answer was lost"), "{output:?}");
    }
    assert_eq!((stage.tracked().len(), stage.open().len(), stage.service.asked()), (2, 0, 2));
    daemon.terminate();
}

#[test]
fn where_nothing_tells_which_batch_it_is_a_person_is_asked() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    stage.service.manner(Manner::Crowded(2));
    let output = stage.submit(&["--provider", "claude"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(err(&output).contains("do not submit the file again"), "{output:?}");
    let open = until("both are named", || {
        stage.open().pop().filter(|open| open["candidates"].as_array().unwrap().len() == 2)
    });
    assert_eq!((&open["provider"], &open["file_name"]), (&json!("claude"), &json!("in.jsonl")));
    let screen = stage.world.ok(&["status"]);
    assert!(screen.contains("msgbatch_1") && screen.contains("`batchd track` the right one"), "{screen}");
    // It survives a restart, and is settled by whoever knows.
    daemon.kill();
    stage.service.manner(Manner::Well);
    let daemon = stage.world.daemon();
    assert_eq!(stage.open().len(), 1);
    stage.world.ok(&["track", "msgbatch_1", "--provider", "claude", "--no-check"]);
    assert_eq!((stage.open().len(), stage.service.asked()), (0, 1));
    daemon.terminate();
}

#[test]
fn a_refusal_creates_nothing_and_can_be_repeated() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    for (status, code, word) in [(400, 1, "not today"), (401, 77, "refuses the key"), (307, 1, "307")] {
        stage.service.manner(Manner::Refusing(status));
        let output = stage.submit(&["--provider", "mine"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(err(&output).contains(word), "{output:?}");
        assert_eq!(stage.open().len(), 0);
    }
    stage.service.manner(Manner::Well);
    assert!(stage.submit(&["--provider", "mine"]).output().unwrap().status.success());
    assert_eq!((stage.tracked().len(), stage.service.count()), (1, 1));
    daemon.terminate();
}

#[test]
fn an_upload_that_is_cut_off_creates_nothing() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    std::fs::write(stage.world.directory.path().join("in.jsonl"), requests(20_000)).unwrap();
    stage.service.manner(Manner::Cutting);
    let output = stage.submit(&["--provider", "mine"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(err(&output).contains("nothing was created"), "{output:?}");
    assert_eq!((stage.open().len(), stage.service.asked()), (0, 0));
    daemon.terminate();
}

/// The daemon is told to stop while the provider sits on the upload.
#[test]
fn a_stop_during_an_upload_says_that_nothing_was_submitted() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    stage.service.manner(Manner::Swallowing);
    let submitting =
        stage.submit(&["--provider", "mine"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until("the upload has come", || (stage.service.0.lock().unwrap().uploaded > 0).then_some(()));
    daemon.terminate();
    let output = submitting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(err(&output).contains("nothing was submitted"), "{output:?}");
    let daemon = stage.world.daemon();
    assert_eq!((stage.open().len(), stage.tracked().len(), stage.service.asked()), (0, 0, 0));
    daemon.terminate();
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    let names = || {
        let entries = std::fs::read_dir(stage.world.state()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let mut connection = std::os::unix::net::UnixStream::connect(stage.world.socket()).unwrap();
    let head = "POST /v1/submit?provider=mine HTTP/1.1\r\nhost: batchd\r\ncontent-length: 100000\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(requests(100).as_bytes()).unwrap();
    drop(connection);
    // A whole submission goes through meanwhile and afterwards.
    assert!(stage.submit(&["--provider", "mine"]).output().unwrap().status.success());
    assert_eq!(names(), before);
    assert_eq!((stage.service.count(), stage.open().len()), (1, 0));
    daemon.terminate();
}

#[test]
fn files_and_options_that_make_no_sense_are_refused_before_anything_is_asked() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    let refused = |arguments: &[&str], code: i32, word: &str| {
        let output = stage.submit(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(err(&output).contains(word), "{word}: {output:?}");
    };
    refused(&[], 2, "--provider");
    refused(&["--provider", "yours"], 2, "no provider `yours`");
    refused(&["--provider", "mine", "--notify", "nobody"], 2, "no webhook `nobody`");
    refused(&["--provider", "mine", "--endpoint", "/v1/embeddings"], 1, "lines 1–2: each has the url");
    refused(&["--provider", "claude", "--completion-window", "2h"], 1, "24h");
    std::fs::write(stage.world.directory.path().join("in.jsonl"), "\u{feff}{}\n").unwrap();
    refused(&["--provider", "mine"], 1, "byte order mark");
    let missing = stage.world.batchd(&["submit", "/nowhere.jsonl", "--provider", "mine"]);
    assert!(err(&missing).contains("/nowhere.jsonl"), "{missing:?}");
    assert_eq!(stage.service.asked(), 0);
    daemon.terminate();
}

/// What stands on standard input is submitted as a file is, and read to its end even if it is refused at its beginning.
#[test]
fn standard_input_is_a_file_too() {
    let stage = Stage::new();
    let daemon = stage.world.daemon();
    let pipe = |text: String| {
        let mut command = stage.world.command();
        command.args(["submit", "-", "--provider", "mine", "--json"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    };
    let output = pipe(requests(3));
    let batch: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&batch["object"], &batch["batchd"]["provider"]), (&json!("batch"), &json!("mine")));
    let output = pipe(format!("nonsense\n{}", requests(50_000)));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(err(&output).contains("line 1 is not JSON"), "{output:?}");
    daemon.terminate();
}

/// A daemon over the sandbox's four services.
fn sandbox() -> (World, Daemon, String, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), ..SandboxOptions::default() };
    let address = format!("http://{}", serve(&runtime, Sandbox::new(&options).router()));
    let world = World::new();
    let account = |name: &str, path: &str| {
        format!("[providers.{name}]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"{address}{path}\"\n")
    };
    let text = format!(
        "[state]\ndir = \"{}\"\n[api]\nsocket = \"{}\"\n[polling]\nmin_interval = \"1s\"\n{}{}{}{}",
        world.state().display(),
        world.socket().display(),
        account("openai", "/v1"),
        account("anthropic", ""),
        account("gemini", "/v1beta"),
        account("mistral", "")
    );
    std::fs::write(world.config(), text).unwrap();
    std::fs::write(world.directory.path().join("in.jsonl"), requests(12)).unwrap();
    let daemon = world.daemon();
    (world, daemon, address, runtime)
}

#[test]
fn one_file_goes_to_every_kind_of_service_and_its_batches_end_well() {
    let (world, daemon, _, _runtime) = sandbox();
    let file = world.directory.path().join("in.jsonl");
    for provider in ["openai", "anthropic", "gemini", "mistral"] {
        let arguments = ["submit", file.to_str().unwrap(), "--provider", provider, "--name", "one"];
        let id = world.ok(&arguments);
        let id = id.trim();
        assert!(
            world.batchd(&["wait", &format!("{provider}:{id}")]).status.success(),
            "{provider}: {}",
            daemon.log()
        );
        let batch = world.json(&["show", &format!("{provider}:{id}"), "--json"]);
        assert_eq!(
            batch["request_counts"],
            json!({"total": 12, "completed": 12, "failed": 0}),
            "{provider}: {batch}"
        );
        assert_eq!((&batch["batchd"]["name"], &batch["model"]), (&json!("one"), &json!("m-1")), "{provider}");
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().success());
}

/// The vendors' own SDKs see what was submitted.
#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn the_vendors_see_what_was_submitted() {
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let modules = "import anthropic, google.genai, mistralai.client, openai";
    let imported = Command::new(&python).args(["-c", modules]).stdin(Stdio::null()).output();
    if !imported.is_ok_and(|imported| imported.status.success()) {
        println!("skipped: {python} has not all four SDKs; BATCHD_SDK_PYTHON names a Python that has");
        return;
    }
    let (world, daemon, address, _runtime) = sandbox();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/submitted.py");
    let file = world.directory.path().join("in.jsonl");
    let ended = Command::new(&python)
        .arg(script)
        .args([&address, env!("CARGO_BIN_EXE_batchd")])
        .arg(file)
        .env("BATCHD_CONFIG", world.config())
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}\n{}", String::from_utf8_lossy(&ended.stdout), err(&ended));
    daemon.terminate();
}
