//! Files and creations as clients of OpenAI's API ask for them, at a service that fails in every way there is: what is
//! kept, at which provider a batch is created, and that it is created once, whatever is lost or killed.

use crate::submit::{Manner, Stage, requests};
use crate::world::{Daemon, World, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn error(&self) -> Value {
        self.json()["error"].clone()
    }
}

/// Sends these bytes and reads the answer; `None`: there is none.
pub fn exchange(world: &World, request: &[u8]) -> Option<Answered> {
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    // Whoever is refused may close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = lines.concat();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answered {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    exchange(world, &request(method, path, headers, body.as_bytes())).unwrap()
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

/// A form with the fields and the file.
fn form(fields: &[(&str, &str)], content: &str) -> String {
    let field = |(name, value): &(&str, &str)| {
        format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields = fields.iter().map(field).collect::<Vec<_>>().concat();
    format!(
        "{fields}--XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{content}\r\n--XX--\r\n"
    )
}

fn upload(world: &World, path: &str, content: &str) -> Answered {
    let body = form(&[("purpose", "batch")], content);
    exchange(world, &request("POST", path, &[FORM], body.as_bytes())).unwrap()
}

/// Uploads requests, which are kept; the file's id.
pub fn kept(world: &World, content: &str) -> String {
    let answer = upload(world, "/v1/files", content);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

pub fn creation(file: &str, provider: Option<&str>) -> Value {
    let mut body = json!({
        "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"job": "n1"},
    });
    if let Some(provider) = provider {
        body["provider"] = provider.into();
    }
    body
}

fn listed(world: &World) -> Vec<Value> {
    ask(world, "GET", "/v1/files", &[], &Value::Null).json()["data"].as_array().unwrap().clone()
}

/// The names in the directory of contents.
fn contents(world: &World) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(world.state().join("files")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub fn doomed(world: &World, place: &str) -> Daemon {
    let daemon = Daemon::start(world.command().env("BATCHD_FAILPOINT", place).args(["-vv", "run"]));
    until("the daemon answers", || {
        assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
        UnixStream::connect(world.socket()).ok()
    });
    daemon
}

#[test]
fn what_is_uploaded_is_kept_listed_read_and_deleted() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let content = requests(3);
    let ids: Vec<String> = (0..5).map(|_| kept(world, &content)).collect();
    let file = ask(world, "GET", &format!("/v1/files/{}", ids[0]), &[], &Value::Null).json();
    assert_eq!((&file["object"], &file["bytes"]), (&json!("file"), &json!(content.len())));
    assert_eq!((&file["filename"], &file["purpose"]), (&json!("in.jsonl"), &json!("batch")));
    assert_eq!((&file["status"], &file["expires_at"]), (&json!("processed"), &Value::Null));
    let read = ask(world, "GET", &format!("/v1/files/{}/content", ids[0]), &[], &Value::Null);
    assert_eq!(read.body, content);
    let path = world.state().join("files").join(&ids[0]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);

    // Newest first, page by page, and the other way round.
    let page = |query: &str| {
        let page = ask(world, "GET", &format!("/v1/files?{query}"), &[], &Value::Null).json();
        let ids: Vec<String> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, page["has_more"].as_bool().unwrap())
    };
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(page(""), (newest.clone(), false));
    assert_eq!(page("limit=2"), (newest[..2].to_vec(), true));
    assert_eq!(page(&format!("limit=3&after={}", newest[1])), (newest[2..].to_vec(), false));
    assert_eq!(page("order=asc&limit=4"), (ids[..4].to_vec(), true));
    assert_eq!(page("purpose=vision"), (Vec::new(), false));
    for (method, path) in [
        ("GET", "/v1/files?limit=0"),
        ("GET", "/v1/files?order=up"),
        ("GET", "/v1/files?page=2"),
        ("GET", &format!("/v1/files/{}?fetch=true", ids[0])),
        ("DELETE", &format!("/v1/files/{}?force=true", ids[0])),
        ("POST", "/v1/files?purpose=batch"),
        ("POST", "/v1/batches?provider=mine"),
    ] {
        let refused = ask(world, method, path, &[FORM], &Value::Null);
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
        assert_eq!(refused.error()["type"], "invalid_request_error", "{path}");
        assert!(refused.error()["param"].is_string(), "{path}");
    }

    let deleted = ask(world, "DELETE", &format!("/v1/files/{}", ids[0]), &[], &Value::Null);
    assert_eq!(deleted.json(), json!({"id": ids[0], "object": "file", "deleted": true}));
    assert!(!path.exists());
    for (method, path, param) in [
        ("GET", format!("/v1/files/{}", ids[0]), "id"),
        ("GET", format!("/v1/files/{}/content", ids[0]), "id"),
        ("DELETE", format!("/v1/files/{}", ids[0]), "id"),
        ("GET", "/v1/files/file-another".to_owned(), "id"),
        ("DELETE", "/v1/files/file-another".to_owned(), "id"),
        ("GET", "/v1/files?after=file-another".to_owned(), "after"),
    ] {
        let refused = ask(world, method, &path, &[], &Value::Null);
        assert_eq!(refused.status, 404, "{path}: {refused:?}");
        assert_eq!(refused.error()["code"], "file_not_found", "{path}");
        assert_eq!(refused.error()["param"], param, "{path}");
    }
    for body in [creation(&ids[0], Some("mine")), creation("file-another", Some("claude"))] {
        let refused = ask(world, "POST", "/v1/batches", &[], &body);
        assert_eq!(
            (refused.status, refused.error()["param"].clone()),
            (404, json!("input_file_id")),
            "{refused:?}"
        );
    }
    // At a service of another interface the same files stand in for its own.
    let file = upload(world, "/providers/claude/v1/files", &content).json();
    let listed = ask(world, "GET", "/providers/claude/v1/files?limit=1", &[], &Value::Null).json();
    assert_eq!(listed["data"][0]["id"], file["id"]);
    // A restored backup has the rows alone.
    std::fs::remove_file(world.state().join("files").join(&ids[1])).unwrap();
    let gone = ask(world, "GET", &format!("/v1/files/{}/content", ids[1]), &[], &Value::Null);
    assert_eq!((gone.status, gone.error()["code"].clone()), (410, json!("file_missing")));
    let gone = ask(world, "POST", "/v1/batches", &[], &creation(&ids[1], Some("mine")));
    assert_eq!((gone.status, gone.error()["param"].clone()), (410, json!("input_file_id")), "{gone:?}");
    let shown = ask(world, "GET", &format!("/v1/files/{}", ids[1]), &[], &Value::Null).json();
    assert_eq!(shown["status"], "error", "{shown}");
    assert_eq!(stage.service.asked(), 0);
    daemon.terminate();
}

#[test]
fn an_upload_that_is_cut_or_lies_leaves_nothing() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let whole = form(&[("purpose", "batch")], &requests(2000));
    let claims = |length: usize, body: &str| {
        let (name, kind) = FORM;
        format!(
            "POST /v1/files HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\ncontent-length: {length}\r\n{name}: {kind}\r\n\r\n{body}"
        )
    };
    // Longer than it is, and shorter; in the first case nobody answers whoever hangs up.
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.write_all(claims(whole.len() + 1000, &whole[..whole.len() / 2]).as_bytes()).unwrap();
    drop(stream);
    let short = exchange(world, claims(whole.len() - 50, &whole).as_bytes()).unwrap();
    assert_eq!(short.status, 400, "{short:?}");
    // The form is whole, and more is announced than comes.
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.write_all(claims(whole.len() + 1000, &whole).as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = String::new();
    let _ = stream.read_to_string(&mut told);
    assert!(!told.starts_with("HTTP/1.1 200"), "{told}");
    // Broken off while it comes in chunks.
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    let (name, kind) = FORM;
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: batchd\r\ntransfer-encoding: chunked\r\n{name}: {kind}\r\n\r\n"
    );
    stream.write_all(format!("{head}{:x}\r\n{whole}\r\n", whole.len()).as_bytes()).unwrap();
    drop(stream);
    for (body, param) in [
        (form(&[], "x"), json!("purpose")),
        (form(&[("purpose", "vision")], "x"), json!("purpose")),
        (
            form(&[("purpose", "batch"), ("expires_after[anchor]", "created_at")], "x"),
            json!("expires_after[seconds]"),
        ),
        (
            "--XX\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX--\r\n".to_owned(),
            json!("file"),
        ),
        (whole.replace("--XX--\r\n", ""), Value::Null),
        (
            whole.replace(
                "--XX--\r\n",
                "--XX\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\ny\r\n--XX--\r\n",
            ),
            json!("file"),
        ),
        ("nonsense".to_owned(), Value::Null),
    ] {
        let refused = exchange(world, &request("POST", "/v1/files", &[FORM], body.as_bytes())).unwrap();
        assert_eq!((refused.status, refused.error()["param"].clone()), (400, param), "{refused:?}");
    }
    let refused = ask(world, "POST", "/v1/files", &[], &json!({}));
    assert_eq!(refused.status, 400, "{refused:?}");
    until("nothing is left", || contents(world).is_empty().then_some(()));
    assert_eq!(listed(world), Vec::<Value>::new());
    daemon.terminate();
}

#[test]
fn a_full_store_takes_nothing_more() {
    let stage = Stage::new();
    let world = &stage.world;
    let mut text = std::fs::read_to_string(world.config()).unwrap();
    text.push_str("[files]\nmax_bytes = \"64KiB\"\n");
    std::fs::write(world.config(), text).unwrap();
    let daemon = world.daemon();
    let small = kept(world, &"x".repeat(40 << 10));
    let full = |answer: &Answered| {
        assert_eq!(
            (answer.status, answer.error()["code"].clone()),
            (507, json!("storage_full")),
            "{answer:?}"
        );
        assert!(answer.head.contains("x-should-retry: false"), "{answer:?}");
    };
    // Refused as it comes, and by its length alone.
    full(&upload(world, "/v1/files", &"x".repeat(30 << 10)));
    full(&upload(world, "/v1/files", &"x".repeat(4 << 20)));
    assert_eq!(contents(world), std::slice::from_ref(&small));
    assert_eq!(ask(world, "DELETE", &format!("/v1/files/{small}"), &[], &Value::Null).status, 200);
    kept(world, &"x".repeat(64 << 10));
    daemon.terminate();

    // The file system takes no more: a limit on the size of files is what a full disk is to whoever writes.
    std::fs::write(world.config(), std::fs::read_to_string(world.config()).unwrap().replace("64KiB", "1GiB"))
        .unwrap();
    let mut command = Command::new("sh");
    let bounded = world.command();
    command.args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$0\" run", env!("CARGO_BIN_EXE_batchd")]);
    command.env_clear().envs(bounded.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let daemon = Daemon::start(command.stdin(Stdio::null()));
    until("the daemon answers", || UnixStream::connect(world.socket()).ok());
    let before = contents(world);
    full(&upload(world, "/v1/files", &"x".repeat(20 << 20)));
    assert_eq!(contents(world), before);
    kept(world, "still");
    daemon.terminate();
}

#[test]
fn the_request_says_at_which_provider() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let file = kept(world, &requests(2));
    let created = |headers: &[(&str, &str)], path: &str, body: &Value| {
        let answer = ask(world, "POST", path, headers, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let at = |batch: &Value| batch["batchd"]["provider"].as_str().unwrap().to_owned();
    // Nothing says it.
    let refused = ask(world, "POST", "/v1/batches", &[], &creation(&file, None));
    assert_eq!((refused.status, refused.error()["param"].clone()), (400, json!("provider")));
    assert!(refused.error()["message"].as_str().unwrap().contains("claude, mine, openai"), "{refused:?}");
    for (headers, body, param) in [
        (&[][..], creation(&file, Some("yours")), "provider"),
        (&[("x-batchd-provider", "yours")][..], creation(&file, None), "x-batchd-provider"),
    ] {
        let refused = ask(world, "POST", "/v1/batches", headers, &body);
        assert_eq!((refused.status, refused.error()["param"].clone()), (400, json!(param)), "{refused:?}");
    }
    let mut odd = creation(&file, Some("mine"));
    odd["colour"] = "red".into();
    let refused = ask(world, "POST", "/v1/batches", &[], &odd);
    assert_eq!((refused.status, refused.error()["param"].clone()), (400, json!("colour")), "{refused:?}");

    let batch = created(&[("x-batchd-provider", "claude")], "/v1/batches", &creation(&file, Some("mine")));
    assert_eq!(
        (at(&batch).as_str(), &batch["input_file_id"]),
        ("mine", &json!(file)),
        "the body comes first"
    );
    assert_eq!(batch["batchd"]["provider_input_file_id"], "file-in");
    assert_eq!((&batch["metadata"]["job"], &batch["model"]), (&json!("n1"), &json!("m-1")));
    let batch = created(&[("x-batchd-provider", "claude")], "/v1/batches", &creation(&file, None));
    assert_eq!((at(&batch).as_str(), &batch["input_file_id"]), ("claude", &json!(file)));
    for field in ["id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"] {
        assert!(!batch[field].is_null(), "{field}: {batch}");
    }
    let batch = created(&[], "/providers/claude/v1/batches", &creation(&file, None));
    assert_eq!(at(&batch), "claude");

    // By the models, which lose the prefix.
    let prefixed = kept(world, &requests(2).replace("m-1", "claude/m-1"));
    let batch = created(&[], "/v1/batches", &creation(&prefixed, None));
    assert_eq!((at(&batch).as_str(), &batch["model"]), ("claude", &json!("m-1")));
    let foreign = kept(world, &requests(2).replace("m-1", "nobody/m-1"));
    let refused = ask(world, "POST", "/v1/batches", &[], &creation(&foreign, None));
    assert!(
        refused.status == 400 && refused.error()["message"].as_str().unwrap().contains("`nobody/`"),
        "{refused:?}"
    );
    let mut overridden = creation(&file, None);
    overridden["model"] = "mine/other".into();
    let batch = created(&[], "/v1/batches", &overridden);
    assert_eq!((at(&batch).as_str(), &batch["model"]), ("mine", &json!("other")));
    // Named otherwise, a model keeps a name that begins like that.
    let mut kept_as_it_is = creation(&prefixed, Some("mine"));
    kept_as_it_is["labels"] = json!({"team": "evals"});
    let batch = created(&[], "/v1/batches", &kept_as_it_is);
    assert_eq!(
        (&batch["model"], &batch["batchd"]["labels"]["team"]),
        (&json!("claude/m-1"), &json!("evals"))
    );
    daemon.terminate();
}

#[test]
fn what_is_wrong_with_the_file_is_told_as_a_whole() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let text = requests(4);
    let lines: Vec<&str> = text.lines().collect();
    let file =
        kept(world, &format!("{}\nnonsense\n{}\n{}\n", lines[0], lines[0], lines[2].replace("POST", "GET")));
    let refused = ask(world, "POST", "/v1/batches", &[], &creation(&file, Some("mine")));
    let error = refused.error();
    assert_eq!((refused.status, &error["type"]), (400, &json!("invalid_request_error")));
    assert_eq!((&error["param"], &error["code"]), (&json!("input_file_id"), &json!("invalid_input")));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("in.jsonl is not accepted: line 2 is not JSON") && message.contains("2 more"),
        "{message}"
    );
    let at: Vec<&Value> = error["errors"].as_array().unwrap().iter().map(|fault| &fault["line"]).collect();
    assert_eq!(at, [&json!(2), &json!(3), &json!(4)], "{error}");
    let mut expiring = creation(&kept(world, &requests(1)), Some("claude"));
    expiring["output_expires_after"] = json!({"anchor": "created_at", "seconds": 3600});
    let refused = ask(world, "POST", "/v1/batches", &[], &expiring);
    assert!(refused.status == 400 && refused.body.contains("output expires"), "{refused:?}");
    // A client of OpenAI's API asks again after any 5xx, and what a provider does not have it will not have then.
    assert_eq!(refused.error()["type"], json!("invalid_request_error"), "{refused:?}");
    expiring["provider"] = "mine".into();
    for seconds in [json!(1), json!(2_592_001), json!(-1), json!("3600")] {
        expiring["output_expires_after"]["seconds"] = seconds.clone();
        let refused = ask(world, "POST", "/v1/batches", &[], &expiring);
        assert_eq!(refused.status, 400, "{seconds}: {refused:?}");
    }
    let mut hasty = creation(&kept(world, &requests(1)), Some("claude"));
    hasty["completion_window"] = "7d".into();
    let refused = ask(world, "POST", "/v1/batches", &[], &hasty);
    assert!(refused.status == 400 && refused.body.contains("completion window"), "{refused:?}");
    assert_eq!(stage.service.asked(), 0);
    daemon.terminate();
}

#[test]
fn a_file_stays_while_its_batch_runs() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let file = kept(world, &requests(2));
    let batch = ask(world, "POST", "/v1/batches", &[], &creation(&file, Some("mine"))).json();
    let refused = ask(world, "DELETE", &format!("/v1/files/{file}"), &[], &Value::Null);
    assert_eq!((refused.status, refused.error()["code"].clone()), (409, json!("file_in_use")), "{refused:?}");
    world.ok(&["untrack", batch["id"].as_str().unwrap()]);
    assert_eq!(ask(world, "DELETE", &format!("/v1/files/{file}"), &[], &Value::Null).status, 200);
    daemon.terminate();
}

#[test]
fn a_provider_s_own_files_go_on_working_and_its_refusals_are_passed_on() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let uploaded = upload(world, "/providers/mine/v1/files", &requests(2)).json();
    assert_eq!(uploaded["id"], "file-in");
    for (path, body) in [
        ("/providers/mine/v1/batches", creation("file-in", None)),
        ("/v1/batches", creation("file-in", Some("mine"))),
    ] {
        let batch = ask(world, "POST", path, &[], &body).json();
        assert_eq!(batch["batchd"]["provider"], "mine", "{batch}");
        assert_eq!(batch["metadata"], json!({"job": "n1"}), "the request is passed on as it came");
    }
    stage.service.manner(Manner::Refusing(422));
    let refused = ask(world, "POST", "/providers/mine/v1/batches", &[], &creation("file-in", None));
    assert_eq!((refused.status, refused.error()["message"].clone()), (422, json!("not today")));
    assert_eq!((stage.tracked().len(), stage.open().len()), (2, 0));
    // An answer that is lost is made good by the input that the batch has.
    stage.service.manner(Manner::Broken);
    let batch = ask(world, "POST", "/providers/mine/v1/batches", &[], &creation("file-in", None)).json();
    assert_eq!(batch["id"], "batch_3", "{batch}");
    assert_eq!((stage.tracked().len(), stage.open().len(), stage.service.asked()), (3, 0, 4));
    daemon.terminate();
}

#[test]
fn a_key_stands_for_one_batch_however_often_it_is_sent() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = world.daemon();
    let file = kept(world, &requests(2));
    let key = [("idempotency-key", "night-1")];
    let body = creation(&file, Some("mine"));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..8).map(|_| scope.spawn(|| ask(world, "POST", "/v1/batches", &key, &body).json())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()["id"].as_str().unwrap().to_owned()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(stage.service.asked(), 1);
    // The order of the keys says nothing; anything else does.
    let mut turned = json!({"provider": "mine"});
    for (name, value) in body.as_object().unwrap().iter().rev() {
        turned[name] = value.clone();
    }
    assert_eq!(ask(world, "POST", "/v1/batches", &key, &turned).json()["id"], ids[0]);
    for (path, body) in
        [("/v1/batches", creation(&file, Some("claude"))), ("/providers/mine/v1/batches", body.clone())]
    {
        let refused = ask(world, "POST", path, &key, &body);
        assert_eq!((refused.status, refused.error()["code"].clone()), (409, json!("idempotency_key_reused")));
    }
    // What an SDK sends again is what it sent before; what is asked for anew is created anew.
    let count = |count: &'static str| [("x-stainless-retry-count", count)];
    assert_eq!(ask(world, "POST", "/v1/batches", &count("1"), &body).json()["id"], ids[0]);
    let anew = ask(world, "POST", "/v1/batches", &count("0"), &body).json();
    assert_ne!(anew["id"], ids[0]);
    assert_eq!(ask(world, "POST", "/v1/batches", &count("2"), &body).json()["id"], anew["id"]);
    assert_eq!(stage.service.asked(), 2);
    // A refusal is not kept.
    stage.service.manner(Manner::Refusing(400));
    let other = [("idempotency-key", "night-2")];
    assert_eq!(ask(world, "POST", "/v1/batches", &other, &body).status, 502);
    stage.service.manner(Manner::Well);
    assert_eq!(ask(world, "POST", "/v1/batches", &other, &body).status, 200);
    // Over a restart, and once the file is gone.
    daemon.kill();
    let daemon = world.daemon();
    assert_eq!(ask(world, "POST", "/v1/batches", &key, &body).json()["id"], ids[0]);
    assert_eq!(stage.service.asked(), 4);
    daemon.terminate();
}

/// Whatever dies between two steps, a client that asks again has one batch.
#[test]
fn a_creation_that_is_killed_anywhere_is_done_once() {
    for (path, input, place) in [
        ("/v1/batches", None, "submit.uploaded"),
        ("/v1/batches", None, "submit.answered"),
        ("/v1/batches", None, "submit.registered"),
        ("/providers/mine/v1/batches", Some("file-in"), "submit.answered"),
        ("/providers/mine/v1/batches", Some("file-in"), "submit.registered"),
        ("/providers/claude/v1/batches", None, "submit.answered"),
    ] {
        let stage = Stage::new();
        let world = &stage.world;
        let daemon = doomed(world, place);
        let file = input.map_or_else(|| kept(world, &requests(2)), str::to_owned);
        let provider = (path == "/v1/batches").then_some("mine");
        let body = creation(&file, provider);
        let key = [("idempotency-key", "k")];
        let sent = request("POST", path, &key, body.to_string().as_bytes());
        assert!(exchange(world, &sent).is_none(), "{path} {place}");
        until("it is dead", || daemon.is_over().then_some(()));
        let daemon = world.daemon();
        let batch = ask(world, "POST", path, &key, &body);
        assert_eq!(batch.status, 200, "{path} {place}: {batch:?}\n{}", daemon.log());
        assert_eq!(stage.service.count(), 1, "{path} {place}");
        let tracked = stage.tracked();
        assert_eq!((tracked.len(), &tracked[0]["id"]), (1, &batch.json()["id"]), "{path} {place}");
        assert_eq!(stage.open().len(), 0);
        daemon.terminate();
    }
}

/// Where the creation was written down and nothing tells whether the provider was asked, it is not asked again for as long
/// as it may still come.
#[test]
fn a_creation_that_may_have_been_asked_for_is_not_asked_for_again() {
    let stage = Stage::new();
    let world = &stage.world;
    let daemon = doomed(world, "submit.intended");
    let body = creation(&kept(world, &requests(2)), Some("mine"));
    let sent =
        request("POST", "/v1/batches", &[("x-stainless-retry-count", "0")], body.to_string().as_bytes());
    assert!(exchange(world, &sent).is_none());
    until("it is dead", || daemon.is_over().then_some(()));
    let daemon = world.daemon();
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    let again =
        request("POST", "/v1/batches", &[("x-stainless-retry-count", "1")], body.to_string().as_bytes());
    stream.write_all(&again).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "it is waited for");
    assert_eq!((stage.service.asked(), stage.open().len()), (0, 1));
    daemon.signal(Signal::SIGTERM);
    daemon.end();
}

/// An upload that is killed is there whole, or not at all.
#[test]
fn an_upload_that_is_killed_is_whole_or_not_there() {
    for (place, there) in [("files.written", 0), ("files.named", 0), ("files.registered", 1)] {
        let stage = Stage::new();
        let world = &stage.world;
        let daemon = doomed(world, place);
        let body = form(&[("purpose", "batch")], &requests(2));
        assert!(
            exchange(world, &request("POST", "/v1/files", &[FORM], body.as_bytes())).is_none(),
            "{place}"
        );
        until("it is dead", || daemon.is_over().then_some(()));
        let daemon = world.daemon();
        assert_eq!(listed(world).len(), there, "{place}");
        assert!(contents(world).iter().all(|name| !name.contains(".part")), "{place}: {:?}", contents(world));
        daemon.terminate();
    }
}
