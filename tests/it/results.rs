//! Results through the real binary: broken connections, half files, redirects, and files that are whole or not there.

use crate::world::{KEY, World, until};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// How the server gives the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Whole,
    /// The first answer breaks in the middle; a range goes on from there.
    BreaksAndResumes,
    /// The first answer breaks in the middle; ranges are not known.
    BreaksAndBeginsAnew,
    /// The first answer breaks; by then the file has become another.
    BreaksAndChanges,
    /// The file itself ends within a line.
    EndsEarly,
    /// It is to be had elsewhere.
    Redirects(SocketAddr),
    /// It has been deleted.
    Gone,
}

#[derive(Clone)]
struct Server(Arc<Mutex<Seen>>);

struct Seen {
    manner: Manner,
    /// The headers of the requests for content.
    asked: Vec<HeaderMap>,
    paths: Vec<String>,
}

fn lines() -> String {
    let line = |number: u32| {
        let body =
            json!({"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
        let (status, body) =
            if number % 4 == 3 { (400, json!({"error": {"message": "no"}})) } else { (200, body) };
        let response = json!({"status_code": status, "request_id": "r", "body": body});
        json!({"id": "q", "custom_id": format!("row-{number}"), "response": response, "error": null})
            .to_string()
    };
    (0..400).map(|number| line(number) + "\n").collect()
}

async fn batch(State(server): State<Server>, Path(id): Path<String>) -> Response {
    server.0.lock().unwrap().paths.push(id.clone());
    let status = if id == "batch_live" { "in_progress" } else { "completed" };
    json!({
        "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": status, "created_at": 1_795_000_000, "completed_at": 1_795_000_100,
        "output_file_id": "file/out", "request_counts": {"total": 400, "completed": 300, "failed": 100},
    })
    .to_string()
    .into_response()
}

async fn content(State(server): State<Server>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    assert_eq!(id, "file/out");
    let (manner, number) = {
        let mut seen = server.0.lock().unwrap();
        seen.asked.push(headers.clone());
        (seen.manner, seen.asked.len())
    };
    let whole = Bytes::from(lines());
    let half = whole.len() / 2;
    let tag = |tag: &'static str| (header::ETAG, tag);
    let broken = |bytes: Bytes, whole: usize| {
        // Between the two the server comes to send what it has.
        let pieces = stream::iter([Ok(bytes), Err(std::io::Error::other("cut"))]).then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        ([(header::CONTENT_LENGTH, whole.to_string())], [tag("\"1\"")], Body::from_stream(pieces))
            .into_response()
    };
    match manner {
        Manner::BreaksAndResumes | Manner::BreaksAndBeginsAnew | Manner::BreaksAndChanges if number == 1 => {
            broken(whole.slice(..half), whole.len())
        }
        Manner::BreaksAndResumes => {
            let range = headers[header::RANGE].to_str().unwrap();
            let from: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
            let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], whole.slice(from..))
                .into_response()
        }
        Manner::BreaksAndChanges => ([tag("\"2\"")], whole).into_response(),
        Manner::Whole | Manner::BreaksAndBeginsAnew => ([tag("\"1\"")], whole).into_response(),
        Manner::EndsEarly => {
            Body::from_stream(stream::iter([Ok::<_, std::io::Error>(whole.slice(..half))])).into_response()
        }
        Manner::Redirects(to) => {
            (StatusCode::FOUND, [(header::LOCATION, format!("http://{to}/v1/files/secret-path"))])
                .into_response()
        }
        Manner::Gone => {
            (StatusCode::NOT_FOUND, json!({"error": {"message": "No such File"}}).to_string()).into_response()
        }
    }
}

/// A world whose provider gives content in this manner.
struct Setting {
    world: World,
    server: Server,
    _runtime: Runtime,
}

impl Setting {
    fn new(manner: Manner) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = Server(Arc::new(Mutex::new(Seen { manner, asked: Vec::new(), paths: Vec::new() })));
        let app = Router::new()
            .route("/v1/batches/{id}", get(batch))
            .route("/v1/files/{id}/content", get(content))
            .with_state(server.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut world = World::new();
        world.provider_address = address;
        world.configure("");
        Self { world, server, _runtime: runtime }
    }

    fn asked(&self) -> Vec<HeaderMap> {
        self.server.0.lock().unwrap().asked.clone()
    }

    /// Files in the world's directory whose names begin like the output's.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.world.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("out")).collect()
    }

    fn output(&self) -> String {
        self.world.directory.path().join("out.jsonl").display().to_string()
    }
}

#[test]
fn the_bytes_come_as_they_are_and_lines_in_one_form() {
    let setting = Setting::new(Manner::Whole);
    let _daemon = setting.world.daemon();
    assert_eq!(setting.world.ok(&["results", "batch_1", "--format", "raw"]), lines());
    let given = setting.world.ok(&["results", "batch_1"]);
    let parse =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    assert_eq!(parse(&given), parse(&lines()));
    let failed = parse(&setting.world.ok(&["results", "batch_1", "--errors"]));
    assert_eq!(failed.len(), 100);
    assert!(failed.iter().all(|line| line["response"]["status_code"] == 400));
    let raw = setting.world.ok(&["results", "batch_1", "--errors", "--format", "raw"]);
    assert_eq!(parse(&raw), failed);
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let setting = Setting::new(Manner::BreaksAndResumes);
    let _daemon = setting.world.daemon();
    assert_eq!(setting.world.ok(&["results", "batch_1", "--format", "raw"]), lines());
    let asked = setting.asked();
    assert_eq!(asked.len(), 2);
    assert!(!asked[0].contains_key(header::RANGE));
    assert_eq!(asked[1][header::IF_RANGE], "\"1\"");
}

#[test]
fn a_server_without_ranges_begins_anew_and_nothing_comes_twice() {
    let setting = Setting::new(Manner::BreaksAndBeginsAnew);
    let _daemon = setting.world.daemon();
    let output = setting.output();
    setting.world.ok(&["results", "batch_1", "-o", &output]);
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 400);
    assert_eq!(setting.asked().len(), 2);
    assert_eq!(setting.files(), ["out.jsonl"]);
    // A file is replaced only if that is wished.
    assert_eq!(setting.world.batchd(&["results", "batch_1", "-o", &output]).status.code(), Some(1));
    setting.world.ok(&["results", "batch_1", "-o", &output, "--force"]);
}

#[test]
fn a_file_that_became_another_meanwhile_is_not_sewn_together() {
    let setting = Setting::new(Manner::BreaksAndChanges);
    let _daemon = setting.world.daemon();
    let ended = setting.world.batchd(&["results", "batch_1", "-o", &setting.output()]);
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("the results changed while they were fetched"), "{told}");
    assert_eq!(setting.files(), Vec::<String>::new());
}

#[test]
fn results_that_end_early_are_an_error_and_leave_a_partial_file_only() {
    let setting = Setting::new(Manner::EndsEarly);
    let _daemon = setting.world.daemon();
    for format in ["raw", "openai"] {
        let ended =
            setting.world.batchd(&["results", "batch_1", "--format", format, "-o", &setting.output()]);
        assert_eq!(ended.status.code(), Some(1), "{format}");
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains("end in the middle of record"), "{told}");
        // What came whole is kept, under a name that says that it is not all.
        assert_eq!(setting.files(), ["out.jsonl.partial"]);
    }
}

#[test]
fn a_redirect_is_not_followed_and_no_key_leaves() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let setting = Setting::new(Manner::Redirects(elsewhere.local_addr().unwrap()));
    let _daemon = setting.world.daemon();
    let ended = setting.world.batchd(&["results", "batch_1"]);
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("it redirects to 127.0.0.1, and no key is sent on"), "{told}");
    assert!(!told.contains("secret-path") && !told.contains(KEY), "{told}");
    assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn what_has_not_ended_or_is_gone_is_said() {
    let setting = Setting::new(Manner::Gone);
    let _daemon = setting.world.daemon();
    let told = |id: &str| {
        let ended = setting.world.batchd(&["results", id]);
        assert_eq!(ended.status.code(), Some(1));
        String::from_utf8(ended.stderr).unwrap()
    };
    let live = told("batch_live");
    assert!(live.contains("batch `batch_live` is in_progress: it has no results yet"), "{live}");
    let gone = told("batch_1");
    assert!(gone.contains("has no results of `batch_1` (any more): 404 Not Found: No such File"), "{gone}");
}

/// What `[results] download = true` needs, in a directory of the world's own.
fn downloading(setting: &Setting) -> String {
    let dir = setting.world.directory.path().join("kept");
    setting.world.configure(&format!("[results]\ndownload = true\ndir = \"{}\"\n", dir.display()));
    dir.display().to_string()
}

#[test]
fn what_ends_is_downloaded_once_and_told() {
    let setting = Setting::new(Manner::Whole);
    let dir = downloading(&setting);
    let _daemon = setting.world.daemon();
    setting.world.ok(&["track", "batch_1"]);
    let path = format!("{dir}/openai/batch_1.jsonl");
    let told = until("the download is told", || {
        let events = setting.world.json(&["events", "batch_1", "--json"]);
        events["data"].as_array()?.iter().find(|event| event["type"] == "batch.results_downloaded").cloned()
    });
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept.lines().count(), 400);
    let results = &told["data"]["batch"]["batchd"]["results"];
    assert_eq!(results["path"], path);
    assert_eq!((&results["bytes"], &results["lines"]), (&json!(kept.len()), &json!(400)));
    let digest = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(&kept));
    assert_eq!(results["sha256"], digest);
    // The tokens that the lines tell, once.
    let batch = setting.world.json(&["show", "batch_1", "--json"]);
    assert_eq!(batch["usage"]["input_tokens"], 300);
    assert_eq!(batch["usage"]["total_tokens"], 900);
    assert_eq!(&batch["batchd"]["results"], results);
    assert_eq!(setting.asked().len(), 1);

    // Once the provider has deleted them, the copy is what there is.
    setting.server.0.lock().unwrap().manner = Manner::Gone;
    assert_eq!(setting.world.ok(&["results", "batch_1"]).lines().count(), 400);
    assert_eq!(setting.world.ok(&["results", "batch_1", "--errors"]).lines().count(), 100);
    assert_eq!(setting.world.batchd(&["results", "batch_1", "--format", "raw"]).status.code(), Some(1));
}

#[test]
fn a_download_that_was_killed_is_had_at_the_next_start() {
    let setting = Setting::new(Manner::EndsEarly);
    let dir = downloading(&setting);
    let daemon = setting.world.daemon();
    setting.world.ok(&["track", "batch_1"]);
    until("it was tried", || (!setting.asked().is_empty()).then_some(()));
    daemon.kill();
    assert!(!std::path::Path::new(&format!("{dir}/openai/batch_1.jsonl")).exists());
    setting.server.0.lock().unwrap().manner = Manner::Whole;
    // What failed waits half a minute: the clock of its row is set back instead.
    let state = rusqlite::Connection::open(setting.world.state().join("batchd.db")).unwrap();
    state.execute("UPDATE batches SET download_at = 0", []).unwrap();
    drop(state);
    let _daemon = setting.world.daemon();
    let path = format!("{dir}/openai/batch_1.jsonl");
    until("it is downloaded", || std::fs::read_to_string(&path).ok());
}
