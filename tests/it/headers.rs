//! A provider's further headers: they reach every request to its own address and no other, and their secrets show nowhere.

use crate::adapter_results::ended;
use crate::adapter_submissions::job;
use crate::provider::answer;
use crate::world::{Daemon, World, until};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use batchd::config::ProviderConfig;
use batchd::http::call::{Answer, Call};
use batchd::provider::registry::{KINDS, kind};
use batchd::provider::results::{FetchStep, Part};
use batchd::provider::submit::{Job, SubmitStep};
use batchd::provider::{Account, Kind, PageRequest, Provider};
use http::{HeaderName, HeaderValue, Method};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use url::Url;

/// The kind's adapter for an account with `headers` and every further key that the kind has.
fn adapter(
    kind: &Kind,
    base_url: Option<&str>,
    key: Option<&str>,
    headers: &[(&str, &str)],
) -> Box<dyn Provider> {
    let places = |option: &str| match option {
        "input_uri" | "output_uri" if kind.facts.name == "vertex" => "gs://bucket/folder",
        "input_uri" | "output_uri" => "s3://bucket/folder",
        "region" => "eu-central-1",
        _ => "of-ours",
    };
    let options: BTreeMap<String, String> = kind
        .facts
        .options
        .iter()
        .filter(|option| !matches!(**option, "storage_url" | "api_version"))
        .map(|option| ((*option).to_owned(), places(option).to_owned()))
        .collect();
    let base_url = base_url.or(kind.facts.base_url).unwrap_or("https://batches.example.com/v1");
    let base_url = options
        .iter()
        .fold(base_url.to_owned(), |url, (key, value)| url.replace(&format!("{{{key}}}"), value));
    let config = ProviderConfig { options, ..ProviderConfig::bare(kind.facts.name, &base_url) };
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    (kind.build)(&Account { headers, ..Account::new(&config, key.map(SecretString::from)) })
}

/// An answer after which every kind goes on: a file, a dataset, a page of names, each with addresses elsewhere.
fn something() -> Answer {
    let elsewhere = "https://storage.example.com/signed?signature=x";
    let mut answer = answer(
        200,
        json!({
            "id": "file-1", "name": "files/1", "object": "file", "status": "processed", "state": "READY",
            "file": {"name": "files/1", "state": "ACTIVE"}, "dataset": {
                "id": "dataset-1", "validation_status": "validated",
                "dataset_parts": [{"name": "1", "url": elsewhere}],
            },
            "filenameToSignedUrls": {"in.jsonl": elsewhere, "out.jsonl": elsewhere},
            "outputDatasetId": "accounts/of-ours/datasets/out",
            "items": [{"name": "folder/out/predictions.jsonl"}],
            "results": [], "pagination_token": null,
        })
        .to_string(),
    );
    answer.headers.insert("x-goog-upload-url", elsewhere.parse().unwrap());
    answer
}

/// Every request that the adapter forms in the life of a batch, by what it is for.
fn calls(kind: &Kind, provider: &dyn Provider) -> Vec<(String, Call)> {
    let mut calls = Vec::new();
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    calls.push(("retrieve".to_owned(), provider.retrieve("batch_1").unwrap()));
    calls.push(("list".to_owned(), provider.list(&page).unwrap()));
    calls.extend(provider.cancel("batch_1").ok().map(|call| ("cancel".to_owned(), call)));
    calls.extend(provider.file_content("file-1").ok().map(|call| ("content".to_owned(), call)));
    let passed = provider.pass(&Method::GET, "/files/file-1", None);
    calls.extend(passed.ok().map(|call| ("pass".to_owned(), call)));
    for bytes in [100, 400_000_000] {
        let endpoint = provider.default_endpoint().to_owned();
        let Ok(mut steps) = provider.submit(&Job { endpoint, bytes, ..job() }) else { continue };
        let mut last = None;
        // More steps than any kind takes.
        for _ in 0..12 {
            let (call, what) = match steps.next(last.as_ref()) {
                Ok(SubmitStep::Send(call)) => (call, "step"),
                Ok(SubmitStep::Create(call)) => (call, "create"),
                Ok(SubmitStep::Upload(upload)) => (upload.call, "upload"),
                Ok(SubmitStep::CreateWith(upload)) => (upload.call, "create"),
                Ok(SubmitStep::Wait(_)) => {
                    last = None;
                    continue;
                }
                Ok(SubmitStep::Done(_)) | Err(_) => break,
            };
            calls.push((what.to_owned(), call));
            last = Some(something());
        }
        assert!(calls.iter().any(|(what, _)| what == "create"), "{}: nothing is created", kind.facts.name);
    }
    let Some(batch) = ended(kind) else { return calls };
    for part in [Part::Output, Part::Errors] {
        let Ok(Some(mut fetch)) = provider.results(&batch, part) else { continue };
        let mut last = None;
        for _ in 0..6 {
            match fetch.next(last.as_ref()) {
                Ok(FetchStep::Send(call)) => {
                    calls.push(("results".to_owned(), call));
                    last = Some(something());
                }
                Ok(FetchStep::Stream(call, _)) => {
                    calls.push(("results".to_owned(), call));
                    last = None;
                }
                Ok(FetchStep::Records(_)) => last = None,
                Ok(FetchStep::Done) | Err(_) => break,
            }
        }
    }
    calls
}

fn origin(call: &Call) -> String {
    Url::parse(&call.request.uri().to_string()).unwrap().origin().ascii_serialization()
}

#[test]
fn they_reach_every_request_to_the_provider_and_no_other_address() {
    let mut elsewhere = 0;
    for kind in KINDS {
        let name = kind.facts.name;
        let provider = adapter(kind, None, Some("sk-key"), &[("x-gateway", "word")]);
        let own = origin(&provider.retrieve("batch_1").unwrap());
        let calls = calls(kind, provider.as_ref());
        for what in ["retrieve", "list"] {
            assert!(calls.iter().any(|(of, _)| of == what), "{name}: no request for {what}");
        }
        for (what, call) in calls {
            let header = call.request.headers().get("x-gateway").map(|value| value.to_str().unwrap());
            let (at, uri) = (origin(&call), call.request.uri());
            assert_eq!(header, (at == own).then_some("word"), "{name}: {what} {uri}");
            elsewhere += u32::from(at != own);
        }
    }
    // Gemini, Fireworks, Bedrock, Vertex: otherwise nothing is shown of other addresses.
    assert!(elsewhere >= 4, "{elsewhere}");
}

proptest! {
    #[test]
    fn whatever_they_are_the_key_and_the_accepted_form_stay(
        name in "x-[a-z]{1,10}",
        value in "[!-~]{1,30}",
        port in 1024_u16..,
        at in 0..KINDS.len(),
    ) {
        let kind = KINDS[at];
        let base_url = format!("http://gateway.example.com:{port}/v1");
        let plain = adapter(kind, Some(&base_url), Some("sk-key"), &[]);
        let with = adapter(kind, Some(&base_url), Some("sk-key"), &[(&name, &value)]);
        for ((what, plain), (_, with)) in calls(kind, plain.as_ref()).into_iter().zip(calls(kind, with.as_ref())) {
            let mut headers = with.request.headers().clone();
            let removed = headers.remove(&name);
            prop_assert_eq!(&headers, plain.request.headers(), "{}", what);
            prop_assert_eq!(with.request.uri(), plain.request.uri());
            let own = origin(&with) == format!("http://gateway.example.com:{port}");
            prop_assert_eq!(removed.is_some(), own, "{}: {} {}", kind.facts.name, what, with.request.uri());
        }
    }
}

#[test]
fn a_header_takes_the_place_of_what_the_kind_says_itself() {
    let anthropic =
        adapter(kind("anthropic").unwrap(), None, Some("k"), &[("anthropic-version", "2026-10-21")]);
    let call = anthropic.retrieve("msgbatch_1").unwrap();
    let told: Vec<_> = call.request.headers().get_all("anthropic-version").iter().collect();
    assert_eq!(told, ["2026-10-21"]);
}

#[test]
fn anthropic_bears_a_key_or_a_token_or_signs() {
    let config = |options: &[(&str, &str)]| ProviderConfig {
        name: "claude".to_owned(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ProviderConfig::bare("anthropic", "https://aws-external-anthropic.us-west-2.api.aws")
    };
    let shown = |options: &[(&str, &str)], key: Option<&str>, token: Option<&str>| {
        let config = config(options);
        let account = Account {
            auth_token: token.map(SecretString::from),
            ..Account::new(&config, key.map(SecretString::from))
        };
        let provider = (kind("anthropic").unwrap().build)(&account);
        let call = provider.retrieve("msgbatch_1").unwrap();
        let text =
            |name: &str| call.request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let grants = call.grant().map(|grant| format!("{grant:?}"));
        (text("x-api-key"), text("authorization"), grants, provider.issuer().is_some())
    };
    let grant = r#"Aws { service: "aws-external-anthropic", region: "us-west-2" }"#;
    assert_eq!(shown(&[], Some("k"), None), (Some("k".to_owned()), None, None, false));
    assert_eq!(shown(&[], None, Some("t")), (None, Some("Bearer t".to_owned()), None, false));
    let region = ("region", "us-west-2");
    assert_eq!(shown(&[region], None, None), (None, None, Some(grant.to_owned()), true));
    assert_eq!(shown(&[region], Some("k"), None), (Some("k".to_owned()), None, None, false));
    let fixed = [region, ("access_key_id", "AKIDEXAMPLE")];
    assert_eq!(shown(&fixed, Some("secret"), None), (None, None, Some(grant.to_owned()), true));
}

/// Secrets that headers of the daemon below carry, one from each place that a secret may be in.
const FROM_ENV: &str = "pk-from-the-environment-4711";
const FROM_FILE: &str = "Bearer from-a-file-0815";
const IN_PLACE: &str = "hl-in-the-file-itself-1234";

/// What was asked: the path, and the headers.
type Asked = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A gateway that refuses what lacks a header, and repeats all that it was told.
async fn gateway(State(asked): State<Asked>, uri: Uri, headers: HeaderMap) -> Response {
    asked.lock().unwrap().push((uri.path().to_owned(), headers.clone()));
    let echo = format!("{uri} {headers:?}");
    if headers.get("x-portkey-api-key").is_none_or(|value| value != FROM_ENV) {
        return (StatusCode::UNAUTHORIZED, json!({"error": {"message": echo}}).to_string()).into_response();
    }
    if uri.path().ends_with("/batch_gone") {
        return (StatusCode::BAD_REQUEST, json!({"error": {"message": echo}}).to_string()).into_response();
    }
    let batch = json!({
        "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": "in_progress", "created_at": 1_795_000_000,
        "metadata": {"echo": echo},
    });
    if uri.path().ends_with("/batches") {
        return json!({"object": "list", "data": [batch], "has_more": false}).to_string().into_response();
    }
    batch.to_string().into_response()
}

#[test]
fn they_work_in_a_daemon_and_their_secrets_show_nowhere() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let app = Router::new().fallback(gateway).with_state(asked.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let file = world.state().parent().unwrap().join("token");
    std::fs::write(&file, FROM_FILE).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut text = String::new();
    write!(
        text,
        "\n[providers.gateway]\nkind = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\n\
         [providers.gateway.headers]\nX-Portkey-Api-Key = {{ env = \"PORTKEY\" }}\n\
         cf-aig-authorization = {{ file = \"{}\" }}\nhelicone-auth = \"{IN_PLACE}\"\nx-team = \"evaluations\"\n",
        file.display()
    )
    .unwrap();
    world.configure(&text);
    let daemon =
        Daemon::start(world.command().args(["-vv", "run"]).env("RUST_LOG", "trace").env("PORTKEY", FROM_ENV));
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());

    let mut surfaces = Vec::new();
    let mut batchd = |arguments: &[&str]| {
        let output = world.command().args(arguments).env("PORTKEY", FROM_ENV).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        surfaces.push((format!("batchd {arguments:?}"), text.clone()));
        text
    };
    let tracked = batchd(&["track", "gateway:batch_1"]);
    assert!(tracked.contains("in_progress"), "{tracked}");
    let gone = batchd(&["track", "gateway:batch_gone"]);
    assert!(gone.contains("[redacted]"), "{gone}");
    // What is no secret is not taken out of what a provider says.
    let shown = batchd(&["show", "gateway:batch_1", "--json"]);
    assert!(shown.contains("evaluations"), "{shown}");
    let in_force = batchd(&["config", "show"]);
    assert!(in_force.contains(r#"headers = { "cf-aig-authorization" = { file = "#), "{in_force}");
    assert!(in_force.contains(r#""x-portkey-api-key" = { env = "PORTKEY" }"#), "{in_force}");
    assert!(in_force.contains(r#""helicone-auth" = "[redacted]""#), "{in_force}");
    let checked = batchd(&["config", "check"]);
    assert!(checked.contains("`providers.gateway.headers.helicone-auth` is a secret"), "{checked}");
    assert!(!checked.contains("headers.x-team"), "{checked}");
    for arguments in [
        &["providers"][..],
        &["providers", "check"],
        &["doctor"],
        &["discover", "--provider", "gateway", "--json"],
        &["cancel", "gateway:batch_1"],
        &["status", "--json"],
        &["events", "--json"],
        &["reload"],
    ] {
        batchd(arguments);
    }
    let passed = crate::creating::ask(&world, "GET", "/providers/gateway/v1/files/file-1", &[], &json!(null));
    assert_eq!(passed.status, 200, "{}", passed.body);
    surfaces.push(("what is passed through".to_owned(), passed.body));
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap_or_default();
        surfaces.push((path.display().to_string(), String::from_utf8_lossy(&content).into_owned()));
    }
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    surfaces.push(("the log".to_owned(), daemon.log()));

    let asked = asked.lock().unwrap();
    for (path, headers) in asked.iter() {
        let all = [
            ("x-portkey-api-key", FROM_ENV),
            ("cf-aig-authorization", FROM_FILE),
            ("helicone-auth", IN_PLACE),
            ("x-team", "evaluations"),
        ];
        for (name, value) in all {
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{path} {name}");
        }
    }
    for part in ["/batches/batch_1", "/batches", "/cancel", "/files/file-1"] {
        assert!(asked.iter().any(|(path, _)| path.ends_with(part)), "{part} was not asked for");
    }
    for secret in [FROM_ENV, FROM_FILE, IN_PLACE] {
        for (surface, text) in &surfaces {
            assert!(!text.contains(secret), "{surface} shows {secret}");
        }
    }
}
