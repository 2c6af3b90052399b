//! What is fuzzed: one function for each way that bytes from outside are read, for `just fuzz` and for cargo-fuzz alike.
//!
//! A target takes any bytes, and panics if a reader does, or if what was read breaks a rule. Where there are kinds, the
//! first byte says which.

use batchd::config::{Config, Env, ProviderConfig};
use batchd::control::api::{CheckRequest, DiscoverRequest, RetryDead, TestRequest, TrackItem, TrackMany};
use batchd::control::query::Query;
use batchd::domain::batch::Batch;
use batchd::domain::calendar::Calendar;
use batchd::domain::duration;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::domain::transition::observe;
use batchd::http::call::Answer;
use batchd::http::failure::{self, Failure};
use batchd::provider::input_checker::{InputChecker, Overrides};
use batchd::provider::records::Splitter;
use batchd::provider::registry::KINDS;
use batchd::provider::results::{FetchStep, Form, Part, Record, is_written_in};
use batchd::provider::submit::{Job, SubmitStep};
use batchd::provider::{Account, PageRequest, Provider, lenient, salvage};
use batchd::webhook::{self, EventBody, Target as Destination, Webhook, template};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// One way that bytes are read.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 15] = [
    Target { name: "retrieve", run: retrieve },
    Target { name: "list", run: list },
    Target { name: "create", run: create },
    Target { name: "fetch", run: fetch },
    Target { name: "result", run: result },
    Target { name: "records", run: records },
    Target { name: "input", run: input },
    Target { name: "config", run: config },
    Target { name: "api", run: api },
    Target { name: "hook", run: hook },
    Target { name: "headers", run: headers },
    Target { name: "json", run: json },
    Target { name: "template", run: templates },
    Target { name: "event", run: event },
    Target { name: "time", run: time },
];

/// An adapter of every kind, in the order of the registry.
static PROVIDERS: LazyLock<Vec<Box<dyn Provider>>> = LazyLock::new(|| {
    let adapter = |kind: &&batchd::provider::Kind| {
        let options = kind.facts.required.iter().map(|option| ((*option).to_owned(), "of-ours".to_owned()));
        let config = ProviderConfig {
            options: options.collect(),
            ..ProviderConfig::bare(kind.facts.name, "https://batches.example.com/v1")
        };
        (kind.build)(&Account::new(&config, Some(SecretString::from("sk-fuzz"))))
    };
    KINDS.iter().map(adapter).collect()
});

/// An adapter of every kind of webhook.
static WEBHOOKS: LazyLock<Vec<Box<dyn Webhook>>> = LazyLock::new(|| {
    let adapter = |kind: &&'static webhook::Kind| {
        let mut target = Destination::new("fuzz", "https://hooks.example.com/services/T0/B0/x");
        for option in kind.facts.options {
            target.options.insert(*option, SecretString::from("12345:abcdefghijklmnopqrstuvwxyz012345"));
        }
        (kind.build)(&target).ok()
    };
    webhook::registry::KINDS.iter().filter_map(adapter).collect()
});

/// Splits off the byte that says which of `all` is meant.
fn pick<'a, T>(all: &'a [T], data: &'a [u8]) -> Option<(&'a T, &'a [u8])> {
    let (first, rest) = data.split_first()?;
    Some((&all[usize::from(*first) % all.len()], rest))
}

fn answer(status: u16, body: &[u8]) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap_or_default(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
        cut: false,
    }
}

/// Answers with every status that means something.
fn answers(body: &[u8]) -> impl Iterator<Item = Answer> {
    [200, 400, 401, 404, 429, 503].into_iter().map(move |status| answer(status, body))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap_or_default()
}

fn batch(provider: &dyn Provider) -> Batch {
    let key = BatchKey { provider: "p".to_owned(), id: "batch_x".to_owned() };
    Tracked::new(key, "openai", provider.default_endpoint(), Origin::Hand, now()).batch
}

fn told(failure: &Failure) {
    let text = failure.to_string();
    assert!(text.chars().count() < 2000 && !text.contains('\n'), "{text}");
    let _ = (failure.verdict(), failure.class(), failure.may_have_arrived());
}

fn retrieve(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    for answer in answers(body) {
        match provider.retrieved("batch_x", &answer) {
            Ok(sighting) => {
                assert!(!sighting.id.is_empty());
                let key = BatchKey { provider: "p".to_owned(), id: sighting.id.clone() };
                let before = Tracked::new(key, "openai", provider.default_endpoint(), Origin::Hand, now());
                let step = observe(&before, &sighting, provider.hold_incomplete(), now());
                // The same again changes nothing.
                let again = observe(&step.tracked, &sighting, provider.hold_incomplete(), now());
                assert_eq!(again.tracked.batch.status, step.tracked.batch.status);
                let shown = serde_json::to_string(&step.tracked.batch);
                assert!(shown.is_ok_and(|shown| serde_json::from_str::<Batch>(&shown).is_ok()));
                if provider.retrieve(&sighting.id).is_ok() {
                    assert_eq!(
                        provider.canonical_id(&provider.canonical_id(&sighting.id)),
                        provider.canonical_id(&sighting.id)
                    );
                }
            }
            Err(failure) => told(&failure),
        }
        if let Err(failure) = provider.cancelled("batch_x", &answer) {
            told(&failure);
        }
    }
}

fn list(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    let page = PageRequest { cursor: Some("1".to_owned()), limit: 2, ..PageRequest::default() };
    for answer in answers(body) {
        match provider.listed(&page, &answer) {
            Ok(listed) => {
                assert_ne!(listed.next.as_deref(), Some("1"), "it gets nowhere");
                assert!(listed.sightings.iter().all(|sighting| !sighting.id.is_empty()));
                let next = PageRequest { cursor: listed.next, ..page.clone() };
                let _ = provider.list(&next);
            }
            Err(failure) => told(&failure),
        }
    }
}

/// The steps to a batch, each answered with the same bytes.
fn create(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    let job = Job {
        marker: "bd-0123456789abcdef".to_owned(),
        name: Some("nightly".to_owned()),
        endpoint: provider.default_endpoint().to_owned(),
        model: Some("m-1".to_owned()),
        completion_window: "24h".to_owned(),
        output_expires_after: None,
        metadata: BTreeMap::new(),
        file_name: "in.jsonl".to_owned(),
        bytes: 100,
        requests: 2,
    };
    for answer in answers(body) {
        let Ok(mut submission) = provider.submit(&job) else { return };
        let mut last = None;
        for _ in 0..STEPS {
            last = match submission.next(last.as_ref()) {
                Ok(SubmitStep::Done(created)) => {
                    assert!(!created.id.is_empty());
                    break;
                }
                Ok(SubmitStep::Wait(time)) => {
                    assert!(time < Duration::from_hours(1), "{time:?}");
                    None
                }
                Ok(_) => Some(answer.clone()),
                Err(failure) => {
                    told(&failure);
                    break;
                }
            };
        }
    }
}

/// The steps to results, each answered with the same bytes.
fn fetch(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    let mut ended = batch(provider.as_ref());
    ended.output_file_id = Some("file-out".to_owned());
    ended.error_file_id = Some("file-err".to_owned());
    for (part, answer) in
        [Part::Output, Part::Errors].into_iter().zip([200, 500].map(|status| answer(status, body)))
    {
        let Ok(Some(mut fetch)) = provider.results(&ended, part) else { continue };
        let mut last = None;
        for _ in 0..STEPS {
            last = match fetch.next(last.as_ref()) {
                Ok(FetchStep::Done) => break,
                Ok(FetchStep::Send(_)) => Some(answer.clone()),
                Ok(FetchStep::Stream(..) | FetchStep::Records(_)) => None,
                Err(failure) => {
                    told(&failure);
                    break;
                }
            };
        }
    }
}

fn result(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    let batch = batch(provider.as_ref());
    let Ok(object) = lenient::object(body) else { return };
    for part in [Part::Output, Part::Errors] {
        let record = Record { object: &object, index: 3, part, batch: &batch };
        match provider.output_line(record) {
            Ok(line) => {
                let shown = line.into_json();
                assert!(shown["response"].is_object() != shown["error"].is_object(), "{shown}");
                let _ = is_written_in(&shown, &object);
            }
            Err(what) => assert!(!what.is_empty()),
        }
    }
}

/// A few bytes may be many records of an Avro file.
const MOST_RECORDS: usize = 1_000_000;

/// However the bytes are cut into pieces, the records are the same.
fn records(data: &[u8]) {
    const FORMS: [Form; 3] =
        [Form::Lines, Form::Array(&[&["responses"], &["response", "inlinedResponses"]]), Form::Avro];
    let Some((form, rest)) = pick(&FORMS, data) else { return };
    let Some((step, rest)) = pick(&[1_usize, 2, 3, 7, 64], rest) else { return };
    let split = |size: usize| {
        let mut splitter = Splitter::new(*form);
        let mut records = Vec::new();
        for piece in rest.chunks(size.max(1)) {
            let mut piece = Bytes::copy_from_slice(piece);
            loop {
                match splitter.push(&piece) {
                    Ok(more) => records.extend(more),
                    Err(_) => return (records, false),
                }
                if !splitter.is_behind() || records.len() > MOST_RECORDS {
                    break;
                }
                piece = Bytes::new();
            }
        }
        match splitter.finish() {
            Ok(last) => {
                records.extend(last);
                (records, true)
            }
            Err(_) => (records, false),
        }
    };
    let (whole, pieces) = (split(rest.len()), split(*step));
    assert_eq!(whole.1, pieces.1);
    if whole.1 {
        assert_eq!(whole.0, pieces.0);
    }
}

/// A file of requests is judged and translated alike, however it is cut into pieces.
fn input(data: &[u8]) {
    let Some((provider, body)) = pick(&PROVIDERS, data) else { return };
    let judge = |size: usize| {
        let mut checker = InputChecker::new(provider.as_ref(), Overrides::default()).ok()?;
        let mut sent = Vec::new();
        for piece in body.chunks(size.max(1)) {
            if !checker.push(provider.as_ref(), piece, &mut sent) {
                break;
            }
        }
        let problems = checker.finish(provider.as_ref(), &mut sent).map(|checked| checked.requests);
        Some((
            problems.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>()),
            sent,
        ))
    };
    let (Some((whole, sent)), Some((pieces, sent_so))) = (judge(body.len()), judge(17)) else { return };
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let Ok(requests) = whole {
        assert_eq!((requests, sent), (pieces.unwrap_or_default(), sent_so));
    }
}

fn config(data: &[u8]) {
    static CATALOG: LazyLock<batchd::config::Catalog> = LazyLock::new(batchd::control::assembly::catalog);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(Path::new("/nowhere/config.toml"), text, &CATALOG, &Env::default()) {
        Ok(config) => drop(config.rendered_warnings(true)),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn api(data: &[u8]) {
    fn read<T: DeserializeOwned>(data: &[u8]) {
        drop(serde_json::from_slice::<T>(data));
    }
    read::<TrackItem>(data);
    read::<TrackMany>(data);
    read::<DiscoverRequest>(data);
    read::<RetryDead>(data);
    read::<TestRequest>(data);
    read::<CheckRequest>(data);
    let pairs = url::form_urlencoded::parse(data).map(|(key, value)| (key.into_owned(), value.into_owned()));
    let query = Query::of_pairs(pairs);
    let _ = (
        query.batches().is_ok(),
        query.deliveries().is_ok(),
        query.submit().is_ok(),
        query.results().is_ok(),
    );
}

fn hook(data: &[u8]) {
    let Ok(message) = lenient::object(data) else { return };
    for hook in KINDS.iter().filter_map(|kind| kind.hook) {
        let _ = (hook.batch_id)(&message);
    }
}

/// Headers, one a line: what they say of when to come back is never beyond reckoning.
fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let _ = failure::date(&headers);
    if let Some(wait) = failure::retry_after(&headers) {
        let _ = batchd::domain::time::later(now(), wait);
        let _ = duration::human(wait);
    }
    for status in [429, 503, 529, 307] {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        told(&Failure::from_status(status, &headers, Some("no".to_owned())));
    }
    for webhook in WEBHOOKS.iter() {
        for status in [200, 204, 302, 400, 404, 410, 429, 503] {
            let answer = Answer { headers: headers.clone(), ..answer(status, data) };
            let _ = webhook.outcome(&answer);
        }
    }
}

/// What strict JSON reads is read as it says; and what was read can be written and read again.
fn json(data: &[u8]) {
    let strict = serde_json::from_slice::<Value>(data);
    let read = lenient::value(data);
    if let Ok(strict) = &strict {
        assert_eq!(read.as_ref().ok(), Some(strict));
        assert!(lenient::is_whole(data));
    }
    if let Ok(read) = &read {
        let written = lenient::text(read);
        let again = lenient::value(written.as_bytes());
        assert_eq!(again.ok().as_ref(), Some(read), "{written}");
        assert!(salvage::value(data).is_some());
    }
    if let Some(exact) = lenient::exact(data) {
        let written = lenient::text(&Value::Object(exact));
        assert!(lenient::is_whole(written.as_bytes()), "{written}");
    }
    if let Some(saved) = salvage::value(data) {
        let _ = salvage::why_holds_broken(&saved);
    }
    let _ = lenient::find_text(data, &["id", "custom_id"]);
}

fn templates(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for judged in [template::judge(text), template::judge_body(text)] {
        if let Err(what) = judged {
            assert!(!what.is_empty());
        }
    }
}

/// A recorded event, whatever is in it, can be told by every kind of webhook: whole, plainly, and with others.
fn event(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    if serde_json::from_str::<Value>(body).is_err() {
        return;
    }
    let event = EventBody { id: "evt_fuzz", body };
    for webhook in WEBHOOKS.iter() {
        for plain in [false, true] {
            let _ = webhook.render(&event, plain, now());
            if webhook.groups() {
                let _ = webhook.render_group(&[event, event, event], plain, now());
            }
        }
    }
}

fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = duration::parse(text) {
        let written = duration::compact(read);
        assert_eq!(duration::parse(&written).ok(), Some(read), "{written}");
        let _ = duration::human(read);
    }
    if let Some(calendar) = Calendar::new(text, TimeZone::UTC) {
        assert!(calendar.next(now()).is_none_or(|next| next > now()));
    }
}

/// More than any way to a batch or to results has.
const STEPS: usize = 12;
