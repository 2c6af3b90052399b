//! The adapters against recorded answers: every status word, every quirk, every request.

use batchd::config::ProviderConfig;
use batchd::domain::sighting::Sighting;
use batchd::domain::status::Status;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::domain::transition::observe;
use batchd::http::call::{Answer, BodyLimit, Call};
use batchd::http::failure::Failure;
use batchd::http::limits;
use batchd::provider::registry::{self, KINDS, kind};
use batchd::provider::{Account, Kind, PageRequest, Provider, dialects};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub const KEY: &str = "sk-a-key-that-nobody-may-see";

/// The adapter of `kind` for an account that is named like it and has what the kind needs.
pub fn adapter(kind: &Kind) -> Box<dyn Provider> {
    let options: Vec<(&str, &str)> = kind.facts.required.iter().map(|option| (*option, "of-ours")).collect();
    adapter_at(kind, kind.facts.base_url.unwrap_or("https://batches.example.com/v1"), &options)
}

pub fn adapter_at(kind: &Kind, base_url: &str, options: &[(&str, &str)]) -> Box<dyn Provider> {
    let base_url = options
        .iter()
        .fold(base_url.to_owned(), |url, (key, value)| url.replace(&format!("{{{key}}}"), value));
    let config = ProviderConfig {
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ProviderConfig::bare(kind.facts.name, &base_url)
    };
    (kind.build)(&Account::new(&config, Some(SecretString::from(KEY))))
}

pub fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        // Every answer has a date, which the transport adds if need be.
        headers: HeaderMap::from_iter([(
            http::header::DATE,
            "Wed, 25 Nov 2026 00:00:00 GMT".parse().unwrap(),
        )]),
        body: body.into(),
        cut: false,
    }
}

/// Whether the kind is a row of `dialects.rs`.
fn is_row(kind: &Kind) -> bool {
    dialects::KINDS.iter().any(|row| row.facts.name == kind.facts.name)
}

/// Whether the kind's answers are OpenAI's but for what its own fixtures show.
pub fn speaks_openai(kind: &Kind) -> bool {
    is_row(kind)
        || matches!(
            kind.facts.name,
            "azure-openai" | "dashscope" | "litellm" | "openrouter" | "otari" | "voyage"
        )
}

/// The answers that the kind is tested with, by name: those recorded for it and, if it speaks OpenAI's API, OpenAI's.
pub fn fixtures(kind: &Kind, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    if speaks_openai(kind) {
        all.extend(recorded(registry::kind("openai").unwrap(), folder));
    }
    all.extend(recorded(kind, folder));
    all
}

/// The answers recorded for the kind in `folder` (`""` for batches), by name.
pub fn recorded(kind: &Kind, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = root().join("tests/fixtures").join(kind.facts.name).join(folder);
    let Ok(entries) = std::fs::read_dir(&directory) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The id of the batch that a recorded answer is about.
pub fn asked(body: &[u8]) -> String {
    fn id(value: &Value) -> Option<&str> {
        match value {
            Value::Array(items) => items.first().and_then(id),
            Value::Object(object) => ["batch_id", "jobArn", "id", "name"]
                .iter()
                .find_map(|key| object.get(*key)?.as_str())
                .or_else(|| ["batch", "job"].iter().find_map(|key| object.get(*key).and_then(id))),
            _ => None,
        }
    }
    id(&serde_json::from_slice(body).unwrap()).unwrap_or("batch_that_was_asked_for").to_owned()
}

fn seen(kind: &Kind, body: &[u8]) -> Result<Sighting, Failure> {
    adapter(kind).retrieved(&asked(body), &answer(200, body.to_vec()))
}

/// The batch as it is shown once `sighting` was had; its nulls left out for the reader's sake.
pub fn shown(kind: &Kind, sighting: &Sighting) -> Value {
    let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let provider = adapter(kind);
    let key = BatchKey { provider: kind.facts.name.to_owned(), id: sighting.id.clone() };
    let before = Tracked::new(key, kind.facts.name, provider.default_endpoint(), Origin::Hand, now);
    let step = observe(&before, sighting, provider.hold_incomplete(), now);
    let batch = serde_json::to_value(&step.tracked.batch).unwrap();
    let told: Map<String, Value> =
        batch.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
    json!({
        "batch": told,
        "outcome": step.tracked.outcome(),
        "provider_status": sighting.provider_status,
        "name": sighting.display_name,
        "results_expire_at": sighting.results_expire_at,
        "warnings": step.warnings,
    })
}

/// What leaves the machine, the key blotted out.
pub fn sent(call: &Call) -> Value {
    let headers: Map<String, Value> = call
        .request
        .headers()
        .iter()
        .map(|(name, value)| {
            let shown = if value.is_sensitive() { "[secret]" } else { value.to_str().unwrap() };
            (name.to_string(), shown.into())
        })
        .collect();
    let mut shown = json!({
        "method": call.request.method().as_str(),
        "url": call.request.uri().to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(call.request.body()),
        "timeout": call.timeout.as_secs(),
        "limit": format!("{:?}", call.body_limit),
    });
    if let Some(grant) = call.grant() {
        shown["grant"] = format!("{grant:?}").into();
    }
    shown
}

#[test]
fn every_recorded_batch_is_read() {
    for kind in KINDS {
        let read: BTreeMap<String, Value> = recorded(kind, "")
            .iter()
            .map(|(name, body)| (name.clone(), shown(kind, &seen(kind, body).unwrap())))
            .collect();
        assert_snapshot("batches", kind, &read);
    }
}

#[test]
fn every_recorded_list_is_read() {
    for kind in KINDS {
        let read: BTreeMap<String, Value> =
            recorded(kind, "lists").into_iter().map(|(name, body)| (name, listed(kind, body))).collect();
        assert_snapshot("lists", kind, &read);
    }
}

#[test]
fn every_recorded_refusal_is_read() {
    for kind in KINDS {
        let read: BTreeMap<String, Value> = recorded(kind, "refusals")
            .into_iter()
            .map(|(name, body)| (name.clone(), refused(kind, &name, body)))
            .collect();
        assert_snapshot("refusals", kind, &read);
    }
}

/// What the kind makes of a page of its list.
fn listed(kind: &Kind, body: Vec<u8>) -> Value {
    let page = PageRequest { cursor: None, limit: 2, ..PageRequest::default() };
    let page = adapter(kind).listed(&page, &answer(200, body)).unwrap();
    let batches: Vec<Value> = page
        .sightings
        .iter()
        .map(|sighting| json!([sighting.id, sighting.status, sighting.unreadable]))
        .collect();
    json!({ "batches": batches, "next": page.next })
}

/// What the kind makes of a refusal, whose status the file's `name` begins with.
fn refused(kind: &Kind, name: &str, body: Vec<u8>) -> Value {
    let status = name.split('.').next().unwrap().parse().unwrap();
    let answer = answer(status, body);
    let failure = adapter(kind).retrieved("x", &answer).unwrap_err();
    let page = PageRequest { cursor: None, limit: 20, ..PageRequest::default() };
    assert_eq!(adapter(kind).listed(&page, &answer), Err(failure.clone()));
    json!([failure.to_string(), failure.class(), format!("{:?}", failure.verdict())])
}

/// Every kind but those whose answers are OpenAI's must have something recorded.
fn assert_snapshot(what: &str, kind: &Kind, read: &BTreeMap<String, Value>) {
    if !read.is_empty() {
        insta::assert_json_snapshot!(format!("{what}_{}", kind.facts.name), read);
    }
}

/// Every request that the kind's adapter forms about batches, of which one is called `id`.
fn requests(kind: &Kind, options: &[(&str, &str)], id: &str) -> Value {
    let base_url = kind.facts.base_url.unwrap_or("https://batches.example.com/v1");
    let provider = adapter_at(kind, base_url, options);
    let list = |cursor: Option<&str>, limit| {
        let page = PageRequest { cursor: cursor.map(str::to_owned), limit, ..PageRequest::default() };
        sent(&provider.list(&page).unwrap())
    };
    let mut requests = json!({
        "retrieve": sent(&provider.retrieve(id).unwrap()),
        "retrieve an id with marks": sent(&provider.retrieve("x?y#z é").unwrap()),
        "retrieve an id that would leave": provider.retrieve("../x").unwrap_err().to_string(),
        "list": list(None, 20),
        "list from there on": list(Some("7"), 100_000),
        "list at least one": list(None, 0),
        "cancel": provider.cancel(id).map_or_else(|failure| failure.to_string().into(), |call| sent(&call)),
    });
    let listing = provider.listing();
    if listing.is_some_and(|listing| listing.live_only) {
        let page = PageRequest { limit: 20, live_only: true, ..PageRequest::default() };
        requests["list what is live"] = sent(&provider.list(&page).unwrap());
    }
    if listing.is_some_and(|listing| listing.by_id > 0) {
        let ids = vec![id.to_owned(), "another".to_owned()];
        let page = PageRequest { limit: 20, ids, ..PageRequest::default() };
        requests["list these"] = sent(&provider.list(&page).unwrap());
    }
    requests
}

/// Each of the kind's further keys, with a value; none where they would take the place of the key.
fn all_options(kind: &Kind) -> Vec<(&'static str, &'static str)> {
    let options = kind.facts.options.iter().filter(|_| kind.facts.signed_place.is_none());
    options.map(|option| (*option, "of-ours")).collect()
}

#[test]
fn every_request_is_as_the_service_wants_it() {
    for kind in KINDS.iter().filter(|kind| !is_row(kind)) {
        let id = fixtures(kind, "").values().next().map_or_else(String::new, |body| asked(body));
        let requests = requests(kind, &all_options(kind), &id);
        insta::assert_json_snapshot!(format!("requests_{}", kind.facts.name), requests);
    }
}

/// Adds to `differences` each place at which `other` is not as `openai`.
fn compare(place: &str, openai: &Value, other: &Value, differences: &mut Map<String, Value>) {
    if let (Value::Object(openai), Value::Object(other)) = (openai, other) {
        let keys: BTreeSet<&String> = openai.keys().chain(other.keys()).collect();
        for key in keys {
            let at = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
            compare(&format!("{place}/{key}"), &at(openai), &at(other), differences);
        }
    } else if openai != other {
        differences.insert(place.to_owned(), other.clone());
    }
}

/// OpenAI's recorded answers, read by every kind that speaks its API, and the requests of those that are rows: what is
/// not as at OpenAI.
#[test]
fn every_dialect_is_openai_s_but_for_what_is_shown() {
    let openai = kind("openai").unwrap();
    let mut all = BTreeMap::new();
    for kind in KINDS.iter().filter(|kind| speaks_openai(kind)) {
        let mut differences = Map::new();
        for (name, body) in recorded(openai, "") {
            let both = [openai, *kind].map(|kind| shown(kind, &seen(kind, &body).unwrap()));
            compare(&name, &both[0], &both[1], &mut differences);
        }
        for (name, body) in recorded(openai, "lists") {
            let both = [openai, *kind].map(|kind| listed(kind, body.clone()));
            compare(&format!("lists/{name}"), &both[0], &both[1], &mut differences);
        }
        for (name, body) in recorded(openai, "refusals") {
            let both = [openai, *kind].map(|kind| refused(kind, &name, body.clone()));
            compare(&format!("refusals/{name}"), &both[0], &both[1], &mut differences);
        }
        if is_row(kind) {
            let both = [requests(openai, &[], "batch_1"), requests(kind, &all_options(kind), "batch_1")];
            compare("requests", &both[0], &both[1], &mut differences);
        }
        all.insert(kind.facts.name, differences);
    }
    insta::assert_json_snapshot!("dialects", all);
}

/// A new kind is whole when nothing is named here.
#[test]
fn no_kind_lacks_a_piece() {
    let mut missing = Vec::new();
    let example = std::fs::read_to_string(root().join("config.example.toml")).ok();
    for kind in KINDS {
        let name = kind.facts.name;
        let mut bodies: Vec<Vec<u8>> = fixtures(kind, "").into_values().collect();
        if speaks_openai(kind) {
            bodies.extend(kind.words.iter().map(|(word, _)| openai_s_batch_in(word)));
        }
        let sightings: Vec<Sighting> = bodies.iter().filter_map(|body| seen(kind, body).ok()).collect();
        for (word, status) in kind.words {
            let is_shown = sightings.iter().any(|sighting| {
                let told = sighting.provider_status.as_deref().unwrap_or_default();
                plain(told) == plain(word) && sighting.status == Some(*status)
            });
            if !is_shown {
                missing.push(format!("{name}: a fixture where `{word}` is {status}"));
            }
        }
        if !sightings.iter().any(|sighting| sighting.provider_status.is_some() && sighting.status.is_none()) {
            missing.push(format!("{name}: a fixture with a status word that is not known"));
        }
        for folder in ["lists", "refusals"] {
            if fixtures(kind, folder).is_empty() {
                missing.push(format!("{name}: a fixture under {folder}"));
            }
        }
        let has_requests =
            root().join(format!("tests/it/snapshots/it__provider__requests_{name}.snap")).exists();
        if !has_requests && !is_row(kind) {
            missing.push(format!("{name}: a snapshot of its requests"));
        }
        if let Some(example) = &example {
            // A table of that name, or any table that names the kind; commented out is fine.
            let is_there = example.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("[providers.{name}]"))
                    || line.starts_with("kind") && line.contains(&format!("= \"{name}\""))
            });
            if !is_there {
                missing.push(format!("{name}: a block [providers.{name}] in config.example.toml"));
            }
        }
        let provider = adapter(kind);
        if !provider.default_endpoint().starts_with('/') {
            missing.push(format!("{name}: a default endpoint"));
        }
        if format!("{provider:?}").contains(KEY) {
            missing.push(format!("{name}: a Debug that keeps the key to itself"));
        }
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

/// A batch of OpenAI's whose status is `word`.
fn openai_s_batch_in(word: &str) -> Vec<u8> {
    let recorded = recorded(kind("openai").unwrap(), "");
    let mut batch: Value = serde_json::from_slice(&recorded["in_progress.json"]).unwrap();
    batch["status"] = word.into();
    batch.to_string().into()
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace("canceled", "cancelled").replace("canceling", "cancelling")
}

#[test]
fn another_batch_s_answer_is_not_taken() {
    for kind in KINDS {
        let provider = adapter(kind);
        let about = |id: &str| {
            let body = json!({
                "id": id, "name": id, "status": "completed", "created_at": 1_795_000_000,
            });
            answer(200, body.to_string())
        };
        assert!(
            matches!(provider.retrieved("batch_mine", &about("batch_yours")), Err(Failure::Malformed(_))),
            "{}",
            kind.facts.name
        );
        assert!(provider.retrieved("batch_mine", &about("batch_mine")).is_ok(), "{}", kind.facts.name);
    }
}

#[test]
fn an_object_that_is_no_batch_is_not_taken_for_one() {
    for kind in KINDS {
        for body in [
            json!({"error": {"message": "try again later"}}),
            json!({"status": "failed", "message": "quota"}),
            json!({"status": "ok"}),
            json!({"object": "list", "data": []}),
            json!({}),
            json!([]),
            json!("completed"),
        ] {
            let read = adapter(kind).retrieved("x", &answer(200, body.to_string()));
            assert!(matches!(read, Err(Failure::Malformed(_))), "{}: {body}", kind.facts.name);
        }
    }
}

#[test]
fn what_openrouter_tells_of_a_batch_is_read_whatever_its_results_weigh() {
    let openrouter = adapter(kind("openrouter").unwrap());
    let call = openrouter.retrieve("b").unwrap();
    assert_eq!(call.body_limit, BodyLimit::Beginning(limits::PROVIDER_BODY));
    let status = r#""status":"completed","finalized_at":1795004200,"request_counts":{"total":2,"completed":2,"failed":0}"#;
    let around = r#"{"id":"b","created_at":1795000000"#;
    let results = r#""results":[{"custom_id":"]}\\\"","response":{"body":{"results":[{}]}}},{"custom"#;
    let read = |body: String, cut: bool| openrouter.retrieved("b", &Answer { cut, ..answer(200, body) });
    for (body, cut) in [
        (format!(r#"{around},{status},{results}":1}}]}}"#), false),
        (format!(r#"{around},{results}":1}}],{status}}}"#), false),
        (format!("{around},{status},{results}"), true),
        (format!(r#"{around},{status},"results":["#), true),
    ] {
        let sighting = read(body.clone(), cut).unwrap();
        assert_eq!(sighting.status, Some(Status::Completed), "{body}");
        assert_eq!(sighting.output_file_id.as_deref(), Some("results:openrouter:b"), "{body}");
        assert_eq!(sighting.ended_at, Some(1_795_004_200), "{body}");
    }
    // What stands behind results that are too long is not guessed.
    let unknown = read(format!("{around},{results}"), true).unwrap();
    assert_eq!(unknown.status, None);
    assert!(read(around.to_owned(), true).is_err());
}

#[test]
fn gemini_knows_a_batch_by_both_its_names() {
    let gemini = adapter(kind("gemini").unwrap());
    let body = json!({"name": "batches/abc", "metadata": {"state": "BATCH_STATE_RUNNING"}}).to_string();
    for id in ["abc", "batches/abc"] {
        let url = gemini.retrieve(id).unwrap().request.uri().to_string();
        assert!(url.starts_with("https://generativelanguage.googleapis.com/v1beta/batches/abc?"), "{url}");
        assert_eq!(gemini.retrieved(id, &answer(200, body.clone())).unwrap().id, "batches/abc");
        assert_eq!(gemini.canonical_id(id), "batches/abc");
    }
}

#[test]
fn gemini_s_endpoint_has_the_version_of_its_address() {
    let gemini = adapter_at(kind("gemini").unwrap(), "http://127.0.0.1:9399/v1", &[]);
    let body =
        json!({"name": "batches/a", "metadata": {"model": "models/m", "state": "BATCH_STATE_RUNNING"}});
    let sighting = gemini.retrieved("a", &answer(200, body.to_string())).unwrap();
    assert_eq!(sighting.endpoint.as_deref(), Some("/v1/models/m:batchGenerateContent"));
}

#[test]
fn a_gateway_may_answer_with_the_id_behind_its_own() {
    for name in ["openai-compatible", "litellm"] {
        let gateway = adapter(kind(name).unwrap());
        let routed = "batch_bGl0ZWxsbTpiYXRjaF8xMjM7bW9kZWwsZ3B0LTRv";
        let body = json!({"id": "batch_123", "object": "batch", "status": "completed"}).to_string();
        assert_eq!(gateway.retrieved(routed, &answer(200, body)).unwrap().id, routed);
    }
}

#[test]
fn a_gateway_is_told_which_service_has_the_batch() {
    let first = PageRequest { cursor: None, limit: 20, ..PageRequest::default() };
    let urls = |name: &str, options: &[(&str, &str)]| {
        let gateway = adapter_at(kind(name).unwrap(), "http://127.0.0.1:4000", options);
        [gateway.retrieve("a/b"), gateway.list(&first), gateway.cancel("b")]
            .map(|call| call.unwrap().request.uri().to_string().replace("http://127.0.0.1:4000", ""))
    };
    assert_eq!(
        urls("otari", &[("upstream", "anthropic")]),
        [
            "/v1/batches/a%2Fb?provider=anthropic",
            "/v1/batches?limit=20&provider=anthropic",
            "/v1/batches/b/cancel?provider=anthropic",
        ]
    );
    assert_eq!(
        urls("litellm", &[("upstream", "vertex_ai")]),
        [
            "/v1/batches/a%2Fb?custom_llm_provider=vertex_ai",
            "/v1/batches?limit=20&custom_llm_provider=vertex_ai",
            "/v1/batches/b/cancel?custom_llm_provider=vertex_ai",
        ]
    );
    assert_eq!(urls("litellm", &[])[0], "/v1/batches/a%2Fb");
}

#[test]
fn azure_has_two_ways() {
    let azure = kind("azure-openai").unwrap();
    let url = |base_url: &str, options: &[(&str, &str)]| {
        adapter_at(azure, base_url, options).retrieve("b").unwrap().request.uri().to_string()
    };
    let version: &[_] = &[("api_version", "2024-10-21")];
    // The resource's address as the SDK has it in AZURE_OPENAI_ENDPOINT, and the whole of it.
    for base_url in ["https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1"] {
        assert_eq!(url(base_url, &[]), "https://r.openai.azure.com/openai/v1/batches/b");
    }
    for base_url in ["https://r.openai.azure.com", "https://r.openai.azure.com/openai"] {
        let classic = "https://r.openai.azure.com/openai/batches/b?api-version=2024-10-21";
        assert_eq!(url(base_url, version), classic);
    }
    let preview: &[_] = &[("api_version", "preview")];
    assert_eq!(
        url("https://r.openai.azure.com/openai/v1", preview),
        "https://r.openai.azure.com/openai/v1/batches/b?api-version=preview"
    );
}

#[test]
fn groq_s_address_may_be_the_host_alone() {
    for base_url in ["https://api.groq.com", "https://api.groq.com/openai/v1"] {
        let groq = adapter_at(kind("groq").unwrap(), base_url, &[]);
        let url = groq.retrieve("b").unwrap().request.uri().to_string();
        assert_eq!(url, "https://api.groq.com/openai/v1/batches/b");
    }
}

#[test]
fn ids_that_no_path_can_hold_are_refused_before_anything_is_sent() {
    for kind in KINDS {
        for id in ["", "..", ".", &"x".repeat(513), "batches/"] {
            let call = adapter(kind).retrieve(id);
            let is_other_slash = id == "batches/" && kind.facts.name != "gemini";
            assert_eq!(call.is_err(), !is_other_slash, "{}: {id}", kind.facts.name);
        }
    }
}

#[test]
fn the_console_is_the_vendor_s_and_shown_only_for_the_vendor() {
    let page = |name: &str, id: &str| adapter(kind(name).unwrap()).console_url(id);
    assert_eq!(page("openai", "batch_1").as_deref(), Some("https://platform.openai.com/batches/batch_1"));
    assert_eq!(page("openai", "a/b").as_deref(), Some("https://platform.openai.com/batches/a%2Fb"));
    assert_eq!(page("openai-compatible", "batch_1"), None);
    let anthropic = page("anthropic", "msgbatch_1");
    assert_eq!(anthropic.as_deref(), Some("https://platform.claude.com/workspaces/default/batches"));
    assert_eq!(page("mistral", "x").as_deref(), Some("https://console.mistral.ai/build/batches"));
    for name in ["gemini", "groq", "azure-openai", "together", "cohere"] {
        assert_eq!(page(name, "x"), None);
    }
    for kind in KINDS {
        assert_eq!(adapter_at(kind, "http://127.0.0.1:9399/v1", &[]).console_url("x"), None);
    }
}

#[test]
fn one_piece_that_strict_json_refuses_costs_nothing_around_it() {
    let mut seen_broken = (0, 0);
    for kind in KINDS {
        let name = kind.facts.name;
        let provider = adapter(kind);
        for (file, body) in fixtures(kind, "") {
            let text = String::from_utf8(body.clone()).unwrap();
            let Some(rest) = text.trim_start().strip_prefix('{') else { continue };
            let broken = format!(
                "\u{feff}{{\"x_half\":\"great \\ud83d\",\"x_nan\":NaN,\"x_inf\":[-Infinity],\"x_bad\":nope,\"x_tab\":\"\t\",{rest}"
            );
            let id = asked(&body);
            let seen = |body: Vec<u8>| provider.retrieved(&id, &answer(200, body));
            assert_eq!(seen(broken.into_bytes()).ok(), seen(body).ok(), "{name} {file}");
            seen_broken.0 += 1;
        }
        for (file, body) in fixtures(kind, "lists") {
            let text = String::from_utf8(body.clone()).unwrap();
            let Some(list) = text.find("[{").or_else(|| text.find("[\n")) else { continue };
            let (before, after) = text.split_at(list + 1);
            let broken = format!("{before}nope,{{\"id\":\"\\q\",\"name\":\"\\q\",\"batch_id\":+}},{after}");
            let page = PageRequest { limit: 20, ..PageRequest::default() };
            let seen = |body: Vec<u8>| provider.listed(&page, &answer(200, body));
            let (whole, broken) = (seen(body), seen(broken.into_bytes()));
            if let Ok(whole) = whole {
                assert_eq!(broken.unwrap().sightings, whole.sightings, "{name} {file}");
                seen_broken.1 += 1;
            }
        }
    }
    assert!(seen_broken.0 > 100 && seen_broken.1 > 20, "{seen_broken:?}");
}

#[test]
fn a_mistral_job_without_an_input_file_has_its_outputs_where_its_requests_were() {
    let mistral = adapter(kind("mistral").unwrap());
    let id = "3f1e2d4c-5b6a-4978-8899-aabbccddeeff";
    let asked = mistral.retrieve(id).unwrap();
    assert_eq!(asked.request.uri().query(), Some("inline=false"));
    let seen = |input: Value, succeeded: u64, outputs: Value| {
        let job = json!({"id": id, "object": "batch", "status": "SUCCESS", "input_files": input, "outputs": outputs,
            "output_file": null, "created_at": 1_795_000_000, "total_requests": 2, "succeeded_requests": succeeded,
            "failed_requests": 0, "completed_requests": succeeded});
        mistral.retrieved(id, &answer(200, job.to_string().into_bytes())).unwrap().output_file_id
    };
    let inline = Some(format!("results:mistral:{id}"));
    assert_eq!(seen(json!([]), 2, Value::Null), inline);
    assert_eq!(seen(Value::Null, 2, json!([{"custom_id": "0"}])), inline);
    assert_eq!(seen(json!([]), 0, Value::Null), None);
    assert_eq!(seen(json!(["file-1"]), 2, Value::Null), None);
}

#[test]
fn lists_end() {
    let full = |ids: &[&str], more: Value| {
        let data: Vec<Value> = ids.iter().map(|id| json!({"id": id, "status": "completed"})).collect();
        answer(200, json!({"data": data, "has_more": more}).to_string())
    };
    let by_id = [
        "openai",
        "openai-compatible",
        "anthropic",
        "azure-openai",
        "dashscope",
        "moonshot",
        "zai",
        "litellm",
    ];
    for name in by_id {
        let provider = adapter(kind(name).unwrap());
        let next = |cursor: Option<&str>, answer: &Answer| {
            let page = PageRequest { cursor: cursor.map(str::to_owned), limit: 2, ..PageRequest::default() };
            provider.listed(&page, answer).unwrap().next
        };
        assert_eq!(next(None, &full(&["a", "b"], json!(true))).as_deref(), Some("b"));
        assert_eq!(next(Some("b"), &full(&["c"], json!(false))), None);
        // A server that says there is more and gives nothing, or the same again, would be asked for ever.
        assert_eq!(next(None, &full(&[], json!(true))), None);
        assert_eq!(next(Some("b"), &full(&["a", "b"], json!(true))), None);
    }
    let groq = adapter(kind("groq").unwrap());
    let next = |cursor: Option<&str>, told: Value| {
        let page = PageRequest { cursor: cursor.map(str::to_owned), limit: 1, ..PageRequest::default() };
        let body = json!({"data": [{"id": "a"}, {"id": "b"}], "has_more": true, "paging": told}).to_string();
        groq.listed(&page, &answer(200, body)).unwrap().next
    };
    assert_eq!(next(None, json!({"next_cursor": "c1"})).as_deref(), Some("c1"));
    assert_eq!(next(Some("c1"), json!({"next_cursor": "c1"})), None);
    for last in [json!({}), json!(null), json!({"next_cursor": null}), json!({"next_cursor": ""})] {
        assert_eq!(next(Some("c1"), last), None);
    }
    let together = adapter(kind("together").unwrap());
    let all = together.listed(
        &PageRequest { cursor: None, limit: 1, ..PageRequest::default() },
        &full(&["a", "b"], json!(true)),
    );
    assert_eq!(all.unwrap().next, None);
    let mistral = adapter(kind("mistral").unwrap());
    let next = |cursor: Option<&str>, total: Value| {
        let page = PageRequest { cursor: cursor.map(str::to_owned), limit: 2, ..PageRequest::default() };
        let body = json!({"data": [{"id": "a"}, {"id": "b"}], "total": total}).to_string();
        mistral.listed(&page, &answer(200, body)).unwrap().next
    };
    assert_eq!(next(None, json!(5)).as_deref(), Some("1"));
    assert_eq!(next(Some("1"), json!(5)).as_deref(), Some("2"));
    assert_eq!(next(Some("2"), json!(5)), None);
    assert_eq!(next(None, json!(null)).as_deref(), Some("1"));
    assert!(
        mistral
            .list(&PageRequest { cursor: Some("x".to_owned()), limit: 2, ..PageRequest::default() })
            .is_err()
    );
}

/// The cap is Gemini's: its `get` may carry results all the same.
#[test]
fn an_answer_that_was_cut_off_is_no_answer() {
    for kind in KINDS {
        let body = fixtures(kind, "").into_values().next().unwrap();
        let whole = answer(200, body.clone());
        let cut = Answer { cut: true, ..whole };
        assert!(matches!(adapter(kind).retrieved(&asked(&body), &cut), Err(Failure::TooLarge(_))));
        assert!(body.len() < limits::PROVIDER_BODY);
    }
}
