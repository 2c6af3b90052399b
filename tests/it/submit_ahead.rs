//! A large file is on its way to the provider while it is still coming and being checked, and whole there only once it was
//! accepted.

use crate::submit::serve;
use crate::world::{Daemon, World, until};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// A service of OpenAI's shape that remembers what was uploaded.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<Uploads>>);

#[derive(Default)]
struct Uploads {
    begun: usize,
    /// Bytes of all of them so far.
    bytes: usize,
    /// Those that ended.
    over: usize,
    /// The forms that came to their end.
    whole: Vec<Vec<u8>>,
    created: usize,
}

async fn files(State(service): State<Service>, body: Body) -> Response {
    service.0.lock().unwrap().begun += 1;
    let mut pieces = body.into_data_stream();
    let (mut form, mut is_whole) = (Vec::new(), true);
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            is_whole = false;
            break;
        };
        form.extend_from_slice(&piece);
        service.0.lock().unwrap().bytes += piece.len();
    }
    let mut uploads = service.0.lock().unwrap();
    uploads.over += 1;
    if is_whole {
        assert!(form.ends_with(b"--\r\n"), "a whole body is a whole form");
        uploads.whole.push(form);
    }
    json!({"id": "file-in", "object": "file", "purpose": "batch"}).to_string().into_response()
}

async fn create(State(service): State<Service>, asked: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    service.0.lock().unwrap().created += 1;
    json!({
        "id": "batch_1", "object": "batch", "endpoint": asked["endpoint"], "created_at": 1_795_000_000,
        "input_file_id": asked["input_file_id"], "completion_window": "24h", "status": "validating",
        "metadata": asked["metadata"], "request_counts": {"total": 2, "completed": 0, "failed": 0},
    })
    .to_string()
    .into_response()
}

struct Stage {
    world: World,
    service: Service,
    daemon: Daemon,
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = Service::default();
        let list = || async { json!({"object": "list", "data": [], "has_more": false}).to_string() };
        let app = Router::new()
            .route("/v1/files", post(files))
            .route("/v1/batches", post(create).get(list))
            .layer(DefaultBodyLimit::disable())
            .with_state(service.clone());
        let address = serve(&runtime, app);
        let world = World::new();
        world.configure(&format!(
            "[providers.mine]\nkind = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\n"
        ));
        let daemon = world.daemon();
        Self { world, service, daemon, _runtime: runtime }
    }

    /// Submits a file that is said to have `length` bytes, and sends the first of it.
    fn begin(&self, length: usize, first: &[u8]) -> UnixStream {
        let mut connection = UnixStream::connect(self.world.socket()).unwrap();
        let head = format!(
            "POST /v1/submit?provider=mine HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(first).unwrap();
        connection
    }

    /// Waits until some of the file has come to the provider.
    fn is_on_its_way(&self) {
        until("some of it is at the provider", || {
            (self.service.0.lock().unwrap().bytes > 1 << 20).then_some(())
        });
    }

    /// How many uploads were begun, came to their end whole, and how many batches were created, once no upload is under way.
    fn counts(&self) -> (usize, usize, usize) {
        until("no upload is under way", || {
            let uploads = self.service.0.lock().unwrap();
            (uploads.over == uploads.begun).then(|| (uploads.begun, uploads.whole.len(), uploads.created))
        })
    }
}

/// Lines of a MiB together, from a number on.
fn lines(mebibytes: usize, from: usize) -> String {
    let words = "lorem ipsum ".repeat(850);
    let line = |number: usize| {
        let body = json!({"model": "m-1", "messages": [{"role": "user", "content": words}]});
        json!({"custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
            .to_string()
    };
    (from..from + 100 * mebibytes).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn answer(mut connection: UnixStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_large_file_is_uploaded_while_it_comes_and_its_batch_is_created_once_it_was_checked() {
    let stage = Stage::new();
    let (first, last) = (lines(8, 0), lines(2, 800));
    let mut connection = stage.begin(first.len() + last.len(), first.as_bytes());
    stage.is_on_its_way();
    assert_eq!(stage.service.0.lock().unwrap().created, 0);
    connection.write_all(last.as_bytes()).unwrap();
    assert!(answer(connection).contains("\"batch_1\""));
    assert_eq!(stage.counts(), (1, 1, 1));
    let form = stage.service.0.lock().unwrap().whole.pop().unwrap();
    let content = memchr::memmem::find(&form, first.as_bytes()).unwrap();
    assert!(form[content + first.len()..].starts_with(last.as_bytes()));
    stage.daemon.terminate();
}

#[test]
fn of_a_file_that_is_refused_at_its_end_the_provider_has_nothing() {
    let stage = Stage::new();
    let (first, last) = (lines(8, 0), "{\"custom_id\": \"last\"}\n");
    let mut connection = stage.begin(first.len() + last.len(), first.as_bytes());
    stage.is_on_its_way();
    connection.write_all(last.as_bytes()).unwrap();
    assert!(answer(connection).contains("line 801"));
    assert_eq!(stage.counts(), (1, 0, 0));
    stage.daemon.terminate();
}

#[test]
fn of_a_file_that_is_cut_off_the_provider_has_nothing() {
    let stage = Stage::new();
    let first = lines(8, 0);
    let connection = stage.begin(first.len() + 1000, first.as_bytes());
    stage.is_on_its_way();
    drop(connection);
    assert_eq!(stage.counts(), (1, 0, 0));
    stage.daemon.terminate();
}

#[test]
fn a_file_is_uploaded_once_whether_or_not_its_last_line_ends_and_anew_where_less_of_it_is_sent() {
    let stage = Stage::new();
    let file = stage.world.directory.path().join("in.jsonl");
    let whole = lines(8, 0);
    let submit = |text: &str| {
        std::fs::write(&file, text).unwrap();
        stage.world.ok(&["submit", file.to_str().unwrap(), "--provider", "mine"]);
        let counts = stage.counts();
        *stage.service.0.lock().unwrap() = Uploads::default();
        counts
    };
    assert_eq!(submit(&whole), (1, 1, 1));
    assert_eq!(submit(whole.trim_end()), (1, 1, 1));
    // An empty line at the end is not sent.
    assert_eq!(submit(&format!("{whole}\n")), (2, 1, 1));
    // What is small is checked first.
    assert_eq!(submit(&lines(1, 0)), (1, 1, 1));
    stage.daemon.terminate();
}
