//! Results are told as they are, or it is said that they could not be read: through the real binary and real sockets.

use crate::world::{World, until};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// What the server answers, path by path: one answer after another, the last one for ever.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Server {
    fn script(&self, path: &str, answers: &[&str]) {
        let answers = answers.iter().rev().map(|answer| (*answer).to_owned()).collect();
        self.0.lock().unwrap().insert(path.to_owned(), answers);
    }
}

async fn answer(State(server): State<Server>, Path(path): Path<String>) -> Response {
    let mut scripts = server.0.lock().unwrap();
    let Some(answers) = scripts.get_mut(&path) else {
        return (StatusCode::NOT_FOUND, json!({"error": {"message": "No such thing"}}).to_string())
            .into_response();
    };
    let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
    answer.into_response()
}

/// A world whose provider answers by script.
struct Setting {
    world: World,
    server: Server,
    _runtime: Runtime,
}

const OUTPUT: &str = "v1/files/file-out/content";

impl Setting {
    fn new(more: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = Server::default();
        let app = Router::new().route("/{*path}", get(answer)).with_state(server.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut world = World::new();
        world.provider_address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        world.configure(&more.replace("ADDRESS", &world.provider_address.to_string()));
        Self { world, server, _runtime: runtime }
    }

    /// A batch that completed `completed` of `total` requests, with this output, answer for answer.
    fn completed(completed: u64, total: u64, output: &[&str]) -> Self {
        let setting = Self::new("");
        let more = counted(completed, total);
        setting.batch("batch_1", &[batch("batch_1", "completed", &more)]);
        setting.server.script(OUTPUT, output);
        setting
    }

    fn batch(&self, id: &str, answers: &[Value]) {
        let answers: Vec<String> = answers.iter().map(Value::to_string).collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        self.server.script(&format!("v1/batches/{id}"), &answers);
    }

    fn output(&self) -> String {
        self.world.directory.path().join("out.jsonl").display().to_string()
    }

    /// Files whose names begin like the output's, with what is in them.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(self.world.directory.path()).unwrap().map(Result::unwrap);
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        let ours = named.filter(|(name, _)| name.starts_with("out"));
        ours.map(|(name, path)| (name, std::fs::read_to_string(path).unwrap())).collect()
    }
}

fn batch(id: &str, status: &str, more: &Value) -> Value {
    let mut batch = json!({
        "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": status, "created_at": 1_795_000_000,
    });
    for (key, value) in more.as_object().unwrap() {
        batch[key] = value.clone();
    }
    batch
}

fn counted(completed: u64, total: u64) -> Value {
    json!({
        "output_file_id": "file-out", "completed_at": 1_795_000_100,
        "request_counts": {"total": total, "completed": completed, "failed": total - completed},
    })
}

fn line(number: u32, content: &str) -> String {
    format!(
        "{{\"id\": \"q{number}\", \"custom_id\": \"row-{number}\", \"response\": {{\"status_code\": 200, \
         \"request_id\": \"r\", \"body\": {{\"content\": {content}}}}}, \"error\": null}}\n"
    )
}

fn lines(count: u32) -> String {
    (0..count).map(|number| line(number, "\"x\"")).collect()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_answer_that_was_short_is_fetched_once_more_and_nothing_comes_twice() {
    // At a line's end, within a line, and with nothing at all.
    for cut in [lines(2), lines(4)[..lines(3).len() + 20].to_owned(), String::new()] {
        let setting = Setting::completed(4, 4, &[&cut, &lines(4), &cut, &lines(4)]);
        let _daemon = setting.world.daemon();
        for format in ["openai", "raw"] {
            assert_eq!(setting.world.ok(&["results", "batch_1", "--format", format]), lines(4), "{cut}");
        }
    }
}

#[test]
fn fewer_lines_than_were_completed_are_never_taken_for_all() {
    for (cut, told) in [
        (lines(3), "1 of 4 lines is missing"),
        (lines(4)[..lines(2).len() + 20].to_owned(), "the results end in the middle of record 3"),
        (String::new(), "4 of 4 lines are missing"),
    ] {
        let setting = Setting::completed(4, 4, &[&cut]);
        let _daemon = setting.world.daemon();
        for format in ["openai", "raw"] {
            let output = setting.output();
            let ended =
                setting.world.batchd(&["results", "batch_1", "--format", format, "-o", &output, "--force"]);
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert!(err(&ended).contains(told), "{ended:?}");
            assert!(err(&ended).contains("out.jsonl.partial"), "{ended:?}");
            let whole = cut.rfind('\n').map_or("", |end| &cut[..=end]);
            let kept = BTreeMap::from([("out.jsonl.partial".to_owned(), whole.to_owned())]);
            assert_eq!(setting.files(), kept, "{format}");
        }
        assert_eq!(setting.world.batchd(&["results", "batch_1"]).status.code(), Some(1));
    }
}

#[test]
fn a_file_s_name_that_comes_late_is_waited_for() {
    let setting = Setting::new("");
    let mut nameless = counted(2, 2);
    nameless["output_file_id"] = Value::Null;
    let nameless = batch("batch_1", "completed", &nameless);
    let named = batch("batch_1", "completed", &counted(2, 2));
    setting.batch("batch_1", &[nameless.clone(), nameless.clone(), named]);
    setting.server.script(OUTPUT, &[&lines(2)]);
    let _daemon = setting.world.daemon();
    assert_eq!(setting.world.ok(&["results", "batch_1"]), lines(2));

    setting.batch(
        "batch_2",
        &[batch("batch_2", "completed", &{
            let mut nameless = counted(2, 2);
            nameless["output_file_id"] = Value::Null;
            nameless
        })],
    );
    let ended = setting.world.batchd(&["results", "batch_2"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        err(&ended).contains("has completed 2 requests and has named no file of results yet"),
        "{ended:?}"
    );
}

#[test]
fn a_batch_without_results_ends_the_command_as_the_batch_ended() {
    let setting = Setting::new("");
    let errors = json!({"errors": {"object": "list", "data": [
        {"code": "invalid_json_line", "line": 3, "message": "This line is not valid JSON.", "param": null},
        {"code": "duplicate_custom_id", "line": 4, "message": "Twice.", "param": null},
    ]}, "failed_at": 1_795_000_100});
    setting.batch("failed", &[batch("failed", "failed", &errors)]);
    let counts = json!({"request_counts": {"total": 4, "completed": 0, "failed": 0}});
    setting.batch("expired", &[batch("expired", "expired", &counts)]);
    setting.batch("cancelled", &[batch("cancelled", "cancelled", &counts)]);
    setting.batch("live", &[batch("live", "in_progress", &counts)]);
    let all_failed =
        json!({"request_counts": {"total": 4, "completed": 0, "failed": 4}, "error_file_id": "file-out"});
    setting.batch("all_failed", &[batch("all_failed", "completed", &all_failed)]);
    let error = |number: u32| {
        format!(
            "{{\"id\":\"q\",\"custom_id\":\"row-{number}\",\"response\":null,\"error\":{{\"code\":\"c\",\"message\":\"m\"}}}}\n"
        )
    };
    let errors: String = (0..4).map(error).collect();
    setting.server.script(OUTPUT, &[&errors]);
    let _daemon = setting.world.daemon();
    for more in [&[][..], &["--errors"], &["--format", "raw"]] {
        for (id, code, told) in [
            ("failed", 3, "failed: invalid_json_line: This line is not valid JSON. (line 3) (and 1 more)"),
            ("expired", 4, "expired without any results"),
            ("cancelled", 5, "cancelled without any results"),
            ("live", 1, "is in_progress"),
        ] {
            let ended = setting.world.batchd(&[&["results", id][..], more].concat());
            assert_eq!(ended.status.code(), Some(code), "{id} {more:?}: {ended:?}");
            assert!(err(&ended).contains(told), "{id} {more:?}: {ended:?}");
        }
    }
    let ended = setting.world.batchd(&["results", "all_failed"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(err(&ended).contains("every request failed"), "{ended:?}");
    assert_eq!(setting.world.ok(&["results", "all_failed", "--errors"]), errors);

    let waited = setting.world.batchd(&["wait", "failed"]);
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    assert!(err(&waited).contains("invalid_json_line: This line is not valid JSON. (line 3)"), "{waited:?}");
}

#[test]
fn what_other_parsers_read_is_passed_on_as_it_is_and_what_nobody_reads_costs_its_line_only() {
    let odd = [
        line(0, r#""so nice \ud83d""#),
        line(1, "[NaN, -Infinity, 1e999]"),
        line(2, "[0.12345678901234567890, 12345678901234567890123]"),
    ];
    let whole = odd.concat();
    let setting = Setting::completed(3, 3, &[&whole]);
    let broken = format!("{}{{\"custom_id\": \"row-9\", \"response\": {{'oops'\n{}", odd[0], odd[2]);
    setting.batch(
        "batch_2",
        &[batch("batch_2", "completed", &{
            let mut counted = counted(3, 3);
            counted["output_file_id"] = "file-broken".into();
            counted
        })],
    );
    setting.server.script("v1/files/file-broken/content", &[&broken]);
    let _daemon = setting.world.daemon();
    for format in ["openai", "raw"] {
        assert_eq!(setting.world.ok(&["results", "batch_1", "--format", format]), whole);
    }
    let ended = setting.world.batchd(&["results", "batch_2", "-o", &setting.output()]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(err(&ended).contains("1 of 3 lines cannot be read"), "{ended:?}");
    assert!(err(&ended).contains("--format raw"), "{ended:?}");
    let files = setting.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["out.jsonl"]);
    let given: Vec<&str> = files["out.jsonl"].lines().collect();
    assert_eq!((given[0], given[2]), (odd[0].trim_end(), odd[2].trim_end()));
    let error: Value = serde_json::from_str(given[1]).unwrap();
    assert_eq!((&error["custom_id"], &error["response"]), (&json!("row-9"), &Value::Null));
    assert_eq!(error["error"]["code"], "unreadable_line");
    assert!(error["error"]["line"].as_str().unwrap().contains("'oops'"));
    assert_eq!(setting.world.ok(&["results", "batch_2", "--format", "raw"]), broken);
}

#[test]
fn what_is_translated_loses_neither_digits_nor_parts() {
    let setting = Setting::new(
        "[providers.gemini]\napi_key = { env = \"TEST_KEY\" }\nbase_url = \"http://ADDRESS/v1beta\"\n",
    );
    let operation = json!({
        "name": "batches/abc", "done": true,
        "metadata": {"state": "BATCH_STATE_SUCCEEDED", "createTime": "2026-11-20T10:00:00Z",
            "batchStats": {"requestCount": "4", "successfulRequestCount": "4"},
            "output": {"responsesFile": "files/out"}},
        "response": {"responsesFile": "files/out"},
    });
    setting.server.script("v1beta/batches/abc", &[&operation.to_string()]);
    let output = [
        r#"{"key":"a","response":{"embedding":{"values":[0.012345678901234567891,1E-7,12345678901234567890123]}}}"#,
        r#"{"key":"b","response":{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"n":98765432109876543210987}}},{"inlineData":{"mimeType":"image/png","data":"iVBO"}}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}}"#,
        r#"{"custom_id":"c","response":{"status_code":200,"body":{"choices":[],"usage":{"promptTokens":2,"completionTokens":3,"totalTokens":5}}}}"#,
        r#"{"response":{"candidates":[{"content":{"parts":[{"text":"half \ud83d"}]},"finishReason":"STOP"}]}}"#,
    ];
    setting.server.script("v1beta/files/out:download", &[&output.join("\n")]);
    let _daemon = setting.world.daemon();
    let ended = setting.world.batchd(&["results", "gemini:batches/abc"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(err(&ended).contains("1 of 4 lines do not tell which request they belong to"), "{ended:?}");
    let given = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<&str> = given.lines().collect();
    assert!(lines[0].contains("[0.012345678901234567891,1E-7,12345678901234567890123]"), "{given}");
    assert!(lines[1].contains(r#"{\"n\":98765432109876543210987}"#), "{given}");
    assert!(lines[1].contains("data:image/png;base64,iVBO"), "{given}");
    assert!(lines[1].contains(r#""finish_reason":"malformed_function_call""#), "{given}");
    let openai: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!(openai["custom_id"], "c");
    assert_eq!(openai["response"]["body"]["usage"]["promptTokens"], 2);
    let nameless: Value = serde_json::from_str(lines[3]).unwrap();
    assert_eq!(nameless["custom_id"], Value::Null);
    assert_eq!(nameless["response"]["body"]["choices"][0]["message"]["content"], "half \u{fffd}");
}

fn downloading(setting: &Setting) -> String {
    let dir = setting.world.directory.path().join("kept");
    setting.world.configure(&format!("[results]\ndownload = true\ndir = \"{}\"\n", dir.display()));
    dir.display().to_string()
}

fn event(setting: &Setting, id: &str, kind: &str) -> Option<Value> {
    let events = setting.world.json(&["events", id, "--json"]);
    events["data"].as_array()?.iter().find(|event| event["type"] == kind).cloned()
}

#[test]
fn a_download_that_lacks_lines_is_never_told_as_one() {
    let setting = Setting::completed(4, 4, &[&lines(3)]);
    let dir = downloading(&setting);
    let daemon = setting.world.daemon();
    setting.world.ok(&["track", "batch_1"]);
    let partial = format!("{dir}/openai/batch_1.jsonl.partial");
    until("the good lines are kept", || {
        std::fs::read_to_string(&partial).ok().filter(|kept| *kept == lines(3))
    });
    let shown = until("the failure is shown", || {
        let shown = setting.world.json(&["show", "batch_1", "--json"]);
        shown["batchd"]["results_error"].as_str().map(str::to_owned)
    });
    assert!(shown.contains("1 of 4 lines is missing") && shown.contains(&partial), "{shown}");
    daemon.terminate();
    // The tries between are some minutes apart: the last of them is made due.
    let state = rusqlite::Connection::open(setting.world.state().join("batchd.db")).unwrap();
    state.execute("UPDATE batches SET download_at = 0, download_tries = 3", []).unwrap();
    drop(state);
    let _daemon = setting.world.daemon();
    let told = until("it is told", || event(&setting, "batch_1", "batch.results_failed"));
    assert_eq!(told["data"]["severity"], "warning");
    assert!(told["data"]["message"].as_str().unwrap().contains("1 of 4 lines is missing"), "{told}");
    assert_eq!(event(&setting, "batch_1", "batch.results_downloaded"), None);
    until("a webhook that takes findings is told", || {
        let deliveries = setting.world.json(&["deliveries", "--json"]);
        let told = |delivery: &Value| {
            delivery["type"] == "batch.results_failed"
                && delivery["webhook"] == "ops"
                && delivery["state"] == "delivered"
        };
        deliveries["data"].as_array()?.iter().any(told).then_some(())
    });
    assert!(setting.world.ok(&["status"]).contains("the results of openai:batch_1 could not be downloaded"));
    assert!(setting.world.ok(&["show", "batch_1"]).contains("1 of 4 lines is missing"));
}

#[test]
fn a_download_that_cannot_pass_is_given_up_at_once() {
    let setting = Setting::new("");
    let mut elsewhere = counted(2, 2);
    elsewhere["output_file_id"] = "https://acct.blob.core.windows.net/out/r.jsonl".into();
    setting.batch("batch_1", &[batch("batch_1", "completed", &elsewhere)]);
    downloading(&setting);
    let _daemon = setting.world.daemon();
    setting.world.ok(&["track", "batch_1"]);
    let told = until("it is told", || event(&setting, "batch_1", "batch.results_failed"));
    assert!(told["data"]["message"].as_str().unwrap().contains("storage of your own"), "{told}");
    assert_eq!(told["data"]["batch"]["batchd"]["results"], Value::Null);
}

#[test]
fn a_download_with_lines_that_nobody_reads_keeps_them_and_says_so() {
    let broken = format!("{}{{\"custom_id\": \"row-1\", oops}}\n", line(0, "1"));
    let setting = Setting::completed(2, 2, &[&broken]);
    let dir = downloading(&setting);
    let _daemon = setting.world.daemon();
    setting.world.ok(&["track", "batch_1"]);
    let told = until("it is told", || event(&setting, "batch_1", "batch.results_failed"));
    assert!(told["data"]["message"].as_str().unwrap().contains("1 of 2 lines cannot be read"), "{told}");
    let kept = std::fs::read_to_string(format!("{dir}/openai/batch_1.jsonl")).unwrap();
    assert_eq!(kept.lines().next(), Some(line(0, "1").trim_end()));
    assert!(kept.contains("oops"), "{kept}");
}
