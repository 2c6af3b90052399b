//! `GET /openapi.json` is valid `OpenAPI` 3.1, and what a running daemon answers is what it describes.

use crate::world::{SIGNING, TOKEN, World, until};
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use jsonschema::{Validator, options};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const READ_TOKEN: &str = "read-token-1b2c3d4e";

/// The document, and a daemon whose answers are held to it.
struct Site<'a> {
    runtime: &'a Runtime,
    socket: Client,
    tcp: Client,
    api: SocketAddr,
    document: Value,
    answered: RefCell<BTreeSet<String>>,
}

/// What was answered, in the document's form.
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Site<'_> {
    /// A request over the socket to `path`, which is `template` of the document filled in; its answer is as described.
    fn ask(&self, method: &str, template: &str, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.held(method, template, self.over_socket(method, path).body(body))
    }

    /// The same with a body in JSON.
    fn post(&self, template: &str, path: &str, body: &Value) -> Answer {
        self.ask("POST", template, path, body.to_string())
    }

    fn get(&self, template: &str, path: &str) -> Answer {
        self.ask("GET", template, path, "")
    }

    /// The same, which must succeed.
    fn read(&self, template: &str, path: &str) -> Value {
        let answer = self.get(template, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    fn over_socket(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.socket.request(method, format!("http://batchd{path}"))
    }

    fn over_tcp(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.tcp.request(method, format!("http://{}{path}", self.api))
    }

    /// Sends `request` and holds the answer to what the document says of `method` and `template`.
    fn held(&self, method: &str, template: &str, request: RequestBuilder) -> Answer {
        let place = format!("{method} {template}");
        let operation = &self.document["paths"][template][method.to_ascii_lowercase()];
        assert!(operation.is_object(), "describe {place} in src/control/openapi.json");
        let (status, kind, text) = self.runtime.block_on(async {
            let mut answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let kind =
                answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
            let mut bytes = Vec::new();
            // A live stream has no end: its first message is enough.
            while let Some(piece) = answer.chunk().await.unwrap() {
                bytes.extend_from_slice(&piece);
                let message = bytes.windows(6).any(|some| some == b"\ndata:") && bytes.ends_with(b"\n\n");
                if kind.starts_with("text/event-stream") && message {
                    break;
                }
            }
            (status, kind, String::from_utf8_lossy(&bytes).into_owned())
        });
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let responses = &operation["responses"];
        let said = responses.get(status.to_string()).or_else(|| responses.get("default"));
        let said = said.unwrap_or_else(|| {
            panic!(
                "{place} answers {status}, which its \"responses\" in src/control/openapi.json lack: {text}"
            )
        });
        let response = match said["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => said,
        };
        let media = &response["content"][essence];
        assert!(
            media.is_object(),
            "{place} answers {status} as `{essence}`: add that to its \"content\": {text}"
        );
        let where_from = format!("the answer {status} of {place}");
        if essence == "application/json" {
            let value: Value = serde_json::from_str(&text).unwrap();
            self.fits(&media["schema"], &value, &where_from);
            if let Some(code) = value.pointer("/error/code").and_then(Value::as_str) {
                let codes = said["description"].as_str().or(response["description"].as_str()).unwrap();
                assert!(
                    codes.contains(&format!("`{code}`")),
                    "{place} answers {status} with the code `{code}`: name it in that response's \"description\": {text}"
                );
            }
        }
        if let Some(schema) = media.get("x-batchd-item-schema") {
            let items = text.lines().filter(|line| !line.is_empty());
            for line in items.filter_map(|line| match essence {
                "text/event-stream" => line.strip_prefix("data:"),
                _ => Some(line),
            }) {
                self.fits(schema, &serde_json::from_str(line).unwrap(), &format!("a line of {where_from}"));
            }
        }
        if status < 300 {
            self.answered.borrow_mut().insert(place);
        }
        Answer { status, text }
    }

    /// Holds `value` to `schema`, in which nothing goes undescribed.
    fn fits(&self, schema: &Value, value: &Value, what: &str) {
        let faults: Vec<String> = self
            .validator(schema)
            .iter_errors(value)
            .map(|fault| {
                let (at, rule) = (fault.instance_path().to_string(), fault.schema_path().to_string());
                format!("  at `{at}`: {fault} (rule {rule})")
            })
            .collect();
        assert!(
            faults.is_empty(),
            "{what} is not what src/control/openapi.json describes:\n{}\n{value:#}",
            faults.join("\n")
        );
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut root =
            json!({"components": {"schemas": self.document["components"]["schemas"]}, "allOf": [schema]});
        tighten(&mut root);
        options().should_validate_formats(true).build(&root).unwrap()
    }
}

/// Refuses every property that a schema does not describe.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields["properties"].is_object() {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(tighten);
        }
        Value::Array(items) => items.iter_mut().for_each(tighten),
        _ => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "a caller from outside, not one of batchd's own clients")]
fn outside() -> ClientBuilder {
    Client::builder().no_proxy()
}

/// The document is what `OpenAPI`'s own schema of its version 3.1 asks for, and so is each schema in it.
#[test]
fn the_document_is_valid() {
    let world = World::new();
    let daemon = world.daemon();
    let runtime = Runtime::new().unwrap();
    let socket = outside().unix_socket(world.socket()).build().unwrap();
    let document: Value = runtime.block_on(async {
        let text = socket.get("http://batchd/openapi.json").send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    });
    let official = std::fs::read_to_string("tests/fixtures/openapi/schema-3.1.json").unwrap();
    let official: Value = serde_json::from_str(&official).unwrap();
    let official = options().build(&official).unwrap();
    let faults: Vec<String> =
        official.iter_errors(&document).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let text = document.to_string();
    let mut references = BTreeSet::new();
    for rest in text.split("\"$ref\":\"").skip(1) {
        references.insert(rest.split('"').next().unwrap());
    }
    for reference in &references {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    for section in ["schemas", "responses", "parameters"] {
        for (name, part) in document["components"][section].as_object().unwrap() {
            let reference = format!("#/components/{section}/{name}");
            assert!(references.contains(reference.as_str()), "nothing uses {reference}");
            if section == "schemas" {
                assert!(jsonschema::meta::is_valid(part), "{name}");
            }
        }
    }
    daemon.terminate();
}

/// Every operation of the document is asked of a daemon with data in it, and answers as described.
#[test]
fn what_a_daemon_answers_is_what_the_document_describes() {
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let sandbox = format!("http://{}", listener.local_addr().unwrap());
    let options = SandboxOptions { speed: Speed::new(2000.0).unwrap(), ..SandboxOptions::default() };
    let stopping = CancellationToken::new();
    let served = runtime.spawn({
        let stopping = stopping.clone();
        async move { Sandbox::new(&options).serve(listener, stopping).await }
    });
    let world = World::new();
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(&world, &sandbox, api);
    let daemon = world.daemon();
    until("TCP answers", || std::net::TcpStream::connect(api).ok());

    let tcp = outside().build().unwrap();
    let site = Site {
        runtime: &runtime,
        socket: outside().unix_socket(world.socket()).build().unwrap(),
        document: runtime.block_on(async {
            let text =
                tcp.get(format!("http://{api}/openapi.json")).send().await.unwrap().text().await.unwrap();
            serde_json::from_str(&text).unwrap()
        }),
        tcp,
        api,
        answered: RefCell::default(),
    };

    let file = creating(&site);
    tracked_batches(&site, &file);
    events_and_deliveries(&site, &world);
    administration(&site, &world);
    refusals(&site);

    let answered = site.answered.borrow();
    for (path, item) in site.document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let place = format!("{} {path}", method.to_ascii_uppercase());
            assert!(
                answered.contains(&place),
                "no answer was held to the document: ask {place} in tests/it/openapi.rs"
            );
        }
    }
    daemon.terminate();
    stopping.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

/// Providers in the sandbox, one that refuses its key, a webhook, the API on TCP with both tokens.
fn configure(world: &World, sandbox: &str, api: SocketAddr) {
    let (state, socket) = (world.state(), world.socket());
    let (provider, receiver) = (world.provider_address, world.receiver_address);
    let text = format!(
        r#"
[state]
dir = "{}"
[api]
socket = "{}"
listen = "{api}"
token = "{TOKEN}"
read_token = "{READ_TOKEN}"
[polling]
min_interval = "1s"
max_interval = "1s"
[providers.openai]
api_key = {{ env = "TEST_KEY" }}
base_url = "{sandbox}/v1"
webhook_secret = {{ env = "TEST_SIGNING" }}
[providers.anthropic]
api_key = {{ env = "TEST_KEY" }}
base_url = "{sandbox}"
[providers.locked]
kind = "openai"
api_key = "sk-refused"
base_url = "http://{provider}/v1"
[webhooks.pipeline]
url = "http://{receiver}/hooks/pipeline"
secret = {{ env = "TEST_SIGNING" }}
events = ["batch.validating", "batch.completed", "batch.failed", "batch.cancelled", "provider.unauthorized"]
"#,
        state.display(),
        socket.display(),
    );
    std::fs::write(world.config(), text).unwrap();
}

const LINE: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-x","messages":[{"role":"user","content":"Hi"}]}}"#;

/// Uploads files that are kept here, creates a batch at a provider without OpenAI's interface, and has one deleted.
fn kept_here(site: &Site<'_>, form: &str) {
    let (files, one, content) = ("/v1/files", "/v1/files/{id}", "/v1/files/{id}/content");
    let upload = |form: &str| {
        let request = site.over_socket("POST", files);
        let request = request.header("content-type", "multipart/form-data; boundary=X").body(form.to_owned());
        site.held("POST", files, request)
    };
    let id = |answer: &Answer| answer.json()["id"].as_str().unwrap().to_owned();
    let (file, other) = (id(&upload(form)), id(&upload(form)));
    assert_eq!(upload("--X--").status, 400);
    site.read(files, "/v1/files?purpose=batch&order=asc&limit=10");
    assert_eq!(site.get(files, "/v1/files?sort=asc").status, 400);
    site.read(one, &format!("/v1/files/{file}"));
    assert_eq!(site.get(one, "/v1/files/file-nosuch").status, 404);
    assert_eq!(site.get(content, &format!("/v1/files/{file}/content")).status, 200);
    let wanted = |provider: &str| {
        format!(
            r#"{{"input_file_id":"{file}","endpoint":"/v1/chat/completions","completion_window":"24h",
            "model":"claude-haiku-4-5","provider":"{provider}"}}"#
        )
    };
    let batches = "/v1/batches";
    assert_eq!(site.ask("POST", batches, batches, wanted("anthropic")).status, 200);
    assert_eq!(site.ask("POST", batches, batches, wanted("nobody")).status, 400);
    assert_eq!(site.ask("DELETE", one, &format!("/v1/files/{file}"), "").status, 409);
    assert_eq!(site.ask("DELETE", one, &format!("/v1/files/{other}"), "").status, 200);
    assert_eq!(site.ask("DELETE", one, &format!("/v1/files/{other}"), "").status, 404);
}

/// Uploads a file, creates a batch at the provider that is called `openai`, and submits another to `anthropic`.
fn creating(site: &Site<'_>) -> String {
    let (files, one) = ("/providers/{name}/v1/files", "/providers/{name}/v1/files/{id}");
    let form = format!(
        "--X\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"in.jsonl\"\r\ncontent-type: application/jsonl\r\n\r\n{LINE}\n\r\n--X--\r\n"
    );
    let upload = || {
        let request = site.over_socket("POST", "/providers/openai/v1/files");
        let request = request.header("content-type", "multipart/form-data; boundary=X").body(form.clone());
        let answer = site.held("POST", files, request);
        answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
    };
    let (file, other) = (upload(), upload());
    site.read(files, "/providers/openai/v1/files?purpose=batch");
    site.read(one, &format!("/providers/openai/v1/files/{file}"));
    let content = format!("/providers/openai/v1/files/{file}/content");
    assert_eq!(site.get("/providers/{name}/v1/files/{id}/content", &content).status, 200);
    assert_eq!(site.ask("DELETE", one, &format!("/providers/openai/v1/files/{other}"), "").status, 200);

    kept_here(site, &form);
    let submit = "/v1/submit?provider=anthropic&model=claude-haiku-4-5&name=nightly&label=team%3Devals";
    let answer = site.ask("POST", "/v1/submit", submit, format!("{LINE}\n"));
    assert!(answer.text.lines().last().unwrap().contains("\"object\":\"batch\""), "{}", answer.text);
    assert_eq!(site.ask("POST", "/v1/submit", submit, "no json\n").status, 400);
    file
}

/// Batches in every way that they are asked for.
fn tracked_batches(site: &Site<'_>, file: &str) {
    let all = "/providers/{name}/v1/batches";
    let create = |metadata: Value| {
        let body = json!({
            "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": metadata,
        });
        let request = site.over_socket("POST", "/providers/openai/v1/batches");
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = site.held("POST", all, request);
        answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
    };
    let good = create(json!({}));
    let failed = create(json!({"sandbox_outcome": "failed"}));
    let slow = create(json!({"sandbox_duration": "100h"}));
    site.read(all, "/providers/openai/v1/batches?limit=2");
    site.read("/providers/{name}/v1/batches/{id}", &format!("/providers/openai/v1/batches/{good}"));

    let one = "/v1/batches/{id}";
    let path = |id: &str| format!("/v1/batches/{id}");
    let tracked =
        site.ask("PUT", one, &path(&good), r#"{"name":"first","labels":{"a":"b"},"deadline":"6h"}"#);
    assert_eq!(tracked.status, 200, "{}", tracked.text);
    assert_eq!(site.ask("PUT", one, &path("locked:batch_1"), r#"{"check":false}"#).status, 201);
    let refused = site.ask("PUT", one, &path("locked:batch_2"), "");
    assert_eq!(refused.status, 502, "{}", refused.text);
    assert_eq!(site.ask("PUT", one, &path("openai:batch_nosuch"), "").status, 404);
    let many = json!({"items": [{"id": good}, {"id": "nosuch", "provider": "openai"}]});
    assert_eq!(site.post("/v1/batches/track", "/v1/batches/track", &many).status, 200);

    for (id, end) in [(&good, "completed"), (&failed, "failed")] {
        until(&format!("{id} is {end}"), || (site.read(one, &path(id))["status"] == end).then_some(()));
    }
    site.read(one, &format!("/v1/batches/{good}?detail=true"));
    site.read(one, &format!("/v1/batches/{failed}?detail=true"));
    site.read(one, &format!("/v1/batches/{good}?fetch=true&provider=openai"));
    site.read("/v1/batches", "/v1/batches?limit=1");
    site.read("/v1/batches", "/v1/batches?active=true&status=in_progress,validating&label=a%3Db&since=2d");
    let output = site.read(one, &path(&good))["output_file_id"].as_str().unwrap().to_owned();

    let results = "/v1/batches/{id}/results";
    assert_eq!(site.get(results, &format!("/v1/batches/{good}/results")).status, 200);
    assert_eq!(site.get(results, &format!("/v1/batches/{failed}/results")).status, 409);
    assert_eq!(site.get(results, &format!("/v1/batches/{slow}/results")).status, 409);
    assert_eq!(site.get("/v1/files/{id}/content", &format!("/v1/files/{output}/content")).status, 200);
    assert_eq!(site.get("/v1/files/{id}/content", "/v1/files/file-nosuch/content").status, 404);

    assert_eq!(site.get(results, &format!("/v1/batches/{good}/results?merged=true&errors=true")).status, 200);
    let resubmit = |id: &str, query: &str| {
        let path = format!("/v1/batches/{id}/resubmit?{query}");
        site.ask("POST", "/v1/batches/{id}/resubmit", &path, "").status
    };
    assert_eq!((resubmit(&good, ""), resubmit(&slow, "wait=quota"), resubmit("nosuch", "")), (409, 409, 404));
    assert_eq!(
        (resubmit(&failed, "only=missing"), resubmit(&failed, ""), resubmit(&failed, "only=x")),
        (200, 409, 400)
    );

    let poll =
        |id: &str| site.ask("POST", "/v1/batches/{id}/poll", &format!("/v1/batches/{id}/poll"), "").status;
    assert_eq!((poll(&slow), poll("nosuch")), (200, 404));
    let cancel =
        |id: &str| site.ask("POST", "/v1/batches/{id}/cancel", &format!("/v1/batches/{id}/cancel"), "");
    assert_eq!((cancel(&slow).status, cancel(&good).status), (200, 409));
    let there =
        format!("/providers/openai/v1/batches/{}/cancel", create(json!({"sandbox_duration": "100h"})));
    assert_eq!(site.ask("POST", "/providers/{name}/v1/batches/{id}/cancel", &there, "").status, 200);
    assert_eq!(site.ask("POST", "/v1/poll", "/v1/poll", "").status, 200);
    let discovered = site.post("/v1/discover", "/v1/discover", &json!({"since": "7d"})).json();
    assert_ne!(discovered["errors"], json!([]), "one provider refuses its key: {discovered}");
    assert_eq!(site.ask("DELETE", one, &format!("/v1/batches/{slow}?purge=true"), "").status, 200);
}

/// The log, as a page and as a stream; deliveries, webhooks, and the bodies that a receiver got.
fn events_and_deliveries(site: &Site<'_>, world: &World) {
    until("the refused key is an event", || {
        let log = site.read("/v1/events", "/v1/events?type=provider.*");
        log["data"].as_array().is_some_and(|events| !events.is_empty()).then_some(())
    });
    site.read("/v1/events", "/v1/events?limit=1000");
    let batch =
        site.read("/v1/batches", "/v1/batches?label=a%3Db")["data"][0]["id"].as_str().unwrap().to_owned();
    site.read("/v1/batches/{id}/events", &format!("/v1/batches/{batch}/events?newest=1"));
    for (template, path) in [
        ("/v1/events", "/v1/events?after=0".to_owned()),
        ("/v1/batches/{id}/events", format!("/v1/batches/{batch}/events")),
    ] {
        let stream = site.over_socket("GET", &path).header("accept", "text/event-stream");
        assert!(site.held("GET", template, stream).text.contains("\ndata:"));
    }
    assert_eq!(site.get("/v1/events", "/v1/events?after=100000").status, 409);

    let delivered = until("something is delivered", || {
        let page = site.read("/v1/deliveries", "/v1/deliveries?state=delivered&webhook=pipeline&limit=5");
        Some(page["data"][0]["id"].as_str()?.to_owned())
    });
    let retry = "/v1/deliveries/{id}/retry";
    assert_eq!(site.ask("POST", retry, &format!("/v1/deliveries/{delivered}/retry"), "").status, 200);
    assert_eq!(site.ask("POST", retry, "/v1/deliveries/999999/retry", "").status, 404);
    let dead = "/v1/deliveries/retry";
    assert_eq!(site.post(dead, dead, &json!({"webhook": "pipeline"})).status, 200);
    assert_eq!(site.post(dead, dead, &json!({"webhook": "nosuch"})).status, 400);

    site.read("/v1/webhooks", "/v1/webhooks");
    for operation in ["test", "disable", "enable"] {
        let template = format!("/v1/webhooks/{{name}}/{operation}");
        assert_eq!(
            site.ask("POST", &template, &format!("/v1/webhooks/pipeline/{operation}"), "").status,
            200
        );
        assert_eq!(site.ask("POST", &template, &format!("/v1/webhooks/nosuch/{operation}"), "").status, 400);
    }
    let event =
        &site.document["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let received = world.receiver.received("/hooks/pipeline");
    assert!(received.iter().any(|body| body.json()["data"]["test"] == true), "a test is among them");
    for body in received {
        site.fits(event, &body.json(), "the body of a webhook");
    }
}

fn administration(site: &Site<'_>, world: &World) {
    site.read("/v1/providers", "/v1/providers");
    let check = "/v1/providers/check";
    assert_eq!(site.ask("POST", check, check, "").status, 200);
    assert_eq!(site.post(check, check, &json!({"name": "nosuch"})).status, 400);
    site.read("/v1/status", "/v1/status");
    site.read("/v1/config", "/v1/config");
    assert_eq!(site.ask("POST", "/v1/reload", "/v1/reload", "").status, 200);
    let good = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{good}\nnosuch = 1\n")).unwrap();
    assert_eq!(site.ask("POST", "/v1/reload", "/v1/reload", "").status, 422);
    site.read("/v1/status", "/v1/status");
    std::fs::write(world.config(), good).unwrap();
    for (path, begins) in
        [("/v1/backup", "SQLite format 3"), ("/healthz", "ok"), ("/readyz", "ready"), ("/openapi.json", "{")]
    {
        let answer = site.get(path, path);
        assert!(answer.status == 200 && answer.text.starts_with(begins), "{path}: {}", answer.status);
    }
    assert!(site.get("/metrics", "/metrics").text.contains("batchd_batches"));
    let metrics = site.over_socket("GET", "/metrics").header("accept", "application/openmetrics-text");
    assert!(site.held("GET", "/metrics", metrics).text.ends_with("# EOF\n"));

    let hook = |body: &str, id: &str, signed: bool| {
        #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
        let at = jiff::Timestamp::now().as_second();
        let signature =
            standardwebhooks::Webhook::new(SIGNING).unwrap().sign(id, at, body.as_bytes()).unwrap();
        let mut request = site.over_socket("POST", "/hooks/openai").body(body.to_owned());
        if signed {
            request = request.header("webhook-id", id).header("webhook-timestamp", at.to_string());
        }
        site.held("POST", "/hooks/{provider}", request.header("webhook-signature", signature)).status
    };
    assert_eq!(hook("{}", "msg_1", true), 200);
    assert_eq!(hook("{}", "msg_2", false), 400);
    assert_eq!(hook("no json", "msg_3", true), 400);
    assert_eq!(site.ask("POST", "/hooks/{provider}", "/hooks/anthropic", "{}").status, 404);
}

/// Whoever may not, and whoever asks for what there is not.
fn refusals(site: &Site<'_>) {
    let tcp = |method: &str, path: &str, token: Option<&str>| {
        let request = site.over_tcp(method, path);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        site.held(method, path.split('?').next().unwrap(), request).status
    };
    for path in ["/v1/batches", "/v1/status", "/v1/events", "/v1/deliveries", "/v1/config", "/v1/backup"] {
        assert_eq!(tcp("GET", path, None), 401, "{path}");
        let read = if matches!(path, "/v1/config" | "/v1/backup") { 403 } else { 200 };
        assert_eq!(tcp("GET", path, Some(READ_TOKEN)), read, "{path}");
        assert_eq!(tcp("GET", &format!("{path}?nosuch=1"), Some(TOKEN)), 400, "{path}");
    }
    for path in
        ["/v1/poll", "/v1/reload", "/v1/discover", "/v1/submit", "/v1/providers/check", "/v1/batches/track"]
    {
        assert_eq!(tcp("POST", path, Some("wrong")), 401, "{path}");
        assert_eq!(tcp("POST", path, Some(READ_TOKEN)), 403, "{path}");
    }
    for path in ["/v1/status", "/metrics", "/openapi.json"] {
        let foreign = site.over_tcp("GET", path).header("host", "evil.example");
        assert_eq!(site.held("GET", path, foreign).status, 421, "{path}");
    }
    for (method, template, path, status) in [
        ("GET", "/v1/batches/{id}", "/v1/batches/nosuch", 404),
        ("GET", "/v1/batches/{id}", "/v1/batches/x?fetch=true&provider=nosuch", 400),
        ("GET", "/v1/batches/{id}", "/v1/batches/x?fetch=maybe", 400),
        ("GET", "/v1/batches/{id}", "/v1/batches/new-id?fetch=true", 409),
        ("DELETE", "/v1/batches/{id}", "/v1/batches/nosuch", 404),
        ("GET", "/v1/batches", "/v1/batches?after=nosuch", 404),
        ("GET", "/v1/batches", "/v1/batches?status=nosuch", 400),
        ("GET", "/v1/deliveries", "/v1/deliveries?state=nosuch", 400),
        ("GET", "/v1/batches/{id}/events", "/v1/batches/nosuch/events", 404),
        ("GET", "/providers/{name}/v1/batches", "/providers/nosuch/v1/batches", 404),
        ("GET", "/providers/{name}/v1/batches", "/providers/openai/v1/batches?nosuch=1", 400),
        ("GET", "/providers/{name}/v1/batches", "/providers/locked/v1/batches", 502),
        ("POST", "/v1/batches/track", "/v1/batches/track", 400),
        ("POST", "/v1/submit", "/v1/submit?provider=nosuch", 400),
    ] {
        let answer = site.ask(method, template, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
    }
}
