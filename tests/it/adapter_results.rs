//! What the adapters make of recorded results, and how they ask for them.

use crate::provider::{adapter, answer, asked, fixtures, recorded, sent, speaks_openai};
use batchd::domain::batch::{Batch, Usage};
use batchd::domain::cost::{Cost, Priced, Rates, Spent, Told, Usd};
use batchd::domain::status::Status;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::http::failure::Failure;
use batchd::provider::Kind;
use batchd::provider::lenient;
use batchd::provider::registry::{KINDS, kind};
use batchd::provider::results::{FetchStep, Part, Record};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A completed batch of `kind`, as its own recorded answer shows it.
pub fn ended(kind: &Kind) -> Option<Batch> {
    let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let provider = adapter(kind);
    let recorded = fixtures(kind, "").into_iter().filter(|(name, _)| !name.starts_with("quirk"));
    let sighting = recorded
        .filter_map(|(_, body)| provider.retrieved(&asked(&body), &answer(200, body)).ok())
        .find(|sighting| sighting.status == Some(Status::Completed) && sighting.output_file_id.is_some())?;
    let key = BatchKey { provider: kind.facts.name.to_owned(), id: sighting.id.clone() };
    let before = Tracked::new(key, kind.facts.name, provider.default_endpoint(), Origin::Hand, now);
    let step = batchd::domain::transition::observe(&before, &sighting, provider.hold_incomplete(), now);
    Some(step.tracked.batch)
}

/// The first step to a part of the results; what stands in the way of it.
fn way(kind: &Kind, batch: &Batch, part: Part) -> Value {
    match adapter(kind).results(batch, part) {
        Err(failure) => failure.to_string().into(),
        Ok(None) => Value::Null,
        Ok(Some(mut fetch)) => match fetch.next(None).unwrap() {
            FetchStep::Send(call) => json!({"send": sent(&call)}),
            FetchStep::Stream(call, form) => json!({"stream": sent(&call), "form": format!("{form:?}")}),
            FetchStep::Records(records) => json!({"records": records.len()}),
            FetchStep::Done => "nothing".into(),
        },
    }
}

#[test]
fn every_recorded_result_is_read() {
    for kind in KINDS {
        let Some(batch) = ended(kind) else { continue };
        let provider = adapter(kind);
        let read: BTreeMap<String, Vec<Value>> = recorded(kind, "results")
            .into_iter()
            .map(|(name, body)| {
                let mut batch = batch.clone();
                if name.starts_with("inline") {
                    // Results that came with their batch are in no file.
                    batch.output_file_id = Some(format!("results:{}:{}", kind.facts.name, batch.id));
                }
                let part = if name.starts_with("errors") { Part::Errors } else { Part::Output };
                let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let lines = lines.zip(0..).map(|(line, index)| {
                    let object = serde_json::from_slice(line).unwrap();
                    let record = Record { object: &object, index, part, batch: &batch };
                    let line = provider.output_line(record).unwrap();
                    json!([
                        line.result.is_success(),
                        line.usage.as_ref().map(|usage| usage.total_tokens),
                        line.into_json()
                    ])
                });
                (name, lines.collect())
            })
            .collect();
        if !read.is_empty() {
            insta::assert_json_snapshot!(format!("results_{}", kind.facts.name), read);
        }
    }
}

/// The tokens of every kind's recorded answers and results, and what they cost where a million tokens of input cost 1
/// dollar, of output 10, from a cache 0.1, into one 1.25, and into one for an hour 2.
#[test]
fn what_every_provider_s_tokens_cost() {
    let price = |text| Some(Usd::price(text).unwrap());
    let rates = Rates {
        input: price("1").unwrap(),
        output: price("10").unwrap(),
        cached_input: price("0.1"),
        cache_write: price("1.25"),
        cache_write_1h: price("2"),
        max_input: None,
    };
    let priced = |usage: Usage| {
        let details = usage.input_tokens_details;
        let apart = details.cached_tokens + details.cache_write_tokens + details.cache_write_1h_tokens;
        assert!(apart <= usage.input_tokens, "they are among the input: {usage:?}");
        let spent = BTreeMap::from([("m".to_owned(), Spent { usage, longest_input: None })]);
        let cost = Cost::of(&spent, |_| Some(Priced { by: String::new(), rates })).unwrap();
        json!([usage, cost.amount().to_string()])
    };
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for kind in KINDS {
        let provider = adapter(kind);
        for (name, body) in fixtures(kind, "") {
            let sighting = provider.retrieved(&asked(&body), &answer(200, body)).ok();
            if let Some(usage) = sighting.and_then(|sighting| sighting.usage) {
                all.insert(format!("{}: {name}", kind.facts.name), priced(usage));
            }
        }
        let Some(batch) = ended(kind) else { continue };
        for (name, body) in recorded(kind, "results") {
            let mut told = Told::default();
            for (line, index) in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).zip(0..) {
                let object = serde_json::from_slice(line).unwrap();
                let record = Record { object: &object, index, part: Part::Output, batch: &batch };
                let line = provider.output_line(record).unwrap();
                let model = line.result.model().map(str::to_owned);
                if let Some(usage) = line.usage {
                    told.add(model.as_deref(), usage);
                }
            }
            if told.usage.total_tokens > 0 {
                let models: Vec<&String> = told.by_model.keys().collect();
                all.insert(
                    format!("{} results: {name}", kind.facts.name),
                    json!([priced(told.usage), models]),
                );
            }
        }
    }
    insta::assert_json_snapshot!(all);
}

#[test]
fn openai_s_results_are_read_alike_wherever_its_api_is_spoken() {
    let openai = kind("openai").unwrap();
    // An otari gateway has results of a form of its own.
    for kind in KINDS.iter().filter(|kind| speaks_openai(kind) && kind.facts.name != "otari") {
        let batch = ended(openai).unwrap();
        for (name, body) in recorded(openai, "results") {
            for (line, index) in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).zip(0..) {
                let object = serde_json::from_slice(line).unwrap();
                let record = Record { object: &object, index, part: Part::Output, batch: &batch };
                let [as_openai, read] =
                    [openai, *kind].map(|kind| adapter(kind).output_line(record).unwrap());
                assert_eq!(read, as_openai, "{}: {name}", kind.facts.name);
            }
        }
    }
}

#[test]
fn results_are_asked_for_as_the_service_wants_it() {
    let ways: BTreeMap<&str, Value> = KINDS
        .iter()
        .filter_map(|kind| {
            let batch = ended(kind)?;
            let parts = json!({
                "output": way(kind, &batch, Part::Output),
                "errors": way(kind, &batch, Part::Errors),
            });
            Some((kind.facts.name, parts))
        })
        .collect();
    insta::assert_json_snapshot!("ways_to_results", ways);
}

#[test]
fn results_in_storage_of_one_s_own_are_nobody_else_s_to_fetch() {
    let azure = kind("azure-openai").unwrap();
    let mut batch = ended(azure).unwrap();
    batch.output_file_id = Some("https://acct.blob.core.windows.net/out/r.jsonl?sig=secret".to_owned());
    let refused = adapter(azure).results(&batch, Part::Output).unwrap_err();
    assert!(matches!(refused, Failure::Unsupported(_)), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("acct.blob.core.windows.net/out/r.jsonl") && !told.contains("secret"), "{told}");
}

/// Records of many services with `data` in them, each with the place where it stands in the line that is made of it.
fn with_media(data: &str) -> Vec<(&'static str, Value, String)> {
    const MESSAGE: &str = "/response/body/choices/0/message";
    let response = |body: Value| json!({"custom_id": "a", "response": {"status_code": 200, "body": body}});
    let gemini = |kind: &str| {
        let part = json!({"inlineData": {"mimeType": kind, "data": data}});
        json!({"candidates": [{"content": {"parts": [part, {"text": "here"}]}, "finishReason": "STOP"}]})
    };
    let xai = |call: &str, body: Value| {
        let mut response = json!({});
        response[call] = body;
        json!({"batch_request_id": "a", "batch_result": {"response": response}})
    };
    let block = json!({"type": "image", "source": {"type": "base64", "data": data}});
    let claude = json!({"type": "message", "content": [{"type": "text", "text": "x"}, block], "stop_reason": "end_turn"});
    let succeeded = json!({"custom_id": "a", "result": {"type": "succeeded", "message": claude}});
    let page = json!({"markdown": "x", "images": [{"image_base64": data}]});
    let picture = format!("{MESSAGE}/images/0/image_url/url");
    let sound = format!("{MESSAGE}/provider_content/0/inlineData/data");
    let drawn = format!("{MESSAGE}/provider_content/0/source/data");
    let body = |place: &str| format!("/response/body/{place}");
    vec![
        ("xai", xai("image_generation", json!({"data": [{"b64_json": data}]})), body("data/0/b64_json")),
        ("xai", xai("video_generation", json!({"video": {"url": data}})), body("video/url")),
        ("gemini", json!({"key": "a", "response": gemini("image/png")}), picture.clone()),
        ("gemini", json!({"key": "a", "response": gemini("audio/wav")}), sound),
        ("vertex", json!({"key": "a", "response": gemini("image/png")}), picture),
        ("vertex", json!({"custom_id": "a", "response": claude}), drawn.clone()),
        ("anthropic", succeeded, drawn),
        ("bedrock", json!({"recordId": "a", "modelOutput": {"images": [data]}}), body("images/0")),
        ("mistral", response(json!({"pages": [page]})), body("pages/0/images/0/image_base64")),
        ("mistral", response(json!({"text": data, "segments": [{"start": 0.5}]})), body("text")),
        ("together", response(json!({"text": data, "words": [{"word": "x"}]})), body("text")),
        ("openai", response(json!({"data": [{"b64_json": data}]})), body("data/0/b64_json")),
    ]
}

/// Pictures, sounds and films come out as they went in, short or long, whether OpenAI's form has a place for them or not.
#[test]
fn media_are_kept_however_long_they_are() {
    for length in [8, 3 << 20] {
        let data = "iVBORw0K".repeat(length / 8);
        for (name, record, place) in with_media(&data) {
            let kind = kind(name).unwrap();
            let batch = ended(kind).unwrap();
            let text = record.to_string();
            // As a line of its length is read, and then written.
            let read = if length > 1 << 20 { lenient::compact } else { lenient::object };
            let object = read(text.as_bytes()).unwrap();
            let record = Record { object: &object, index: 0, part: Part::Output, batch: &batch };
            let line = adapter(kind).output_line(record).unwrap();
            assert!(line.result.is_success(), "{name}");
            assert_eq!(line.custom_id.as_deref(), Some("a"), "{name}");
            let mut written = Vec::new();
            lenient::write(&line.into_json(), &mut written);
            let written: Value = serde_json::from_slice(&written).unwrap();
            let given = written.pointer(&place).and_then(Value::as_str).unwrap_or_default();
            let given = given.strip_prefix("data:image/png;base64,").unwrap_or(given);
            assert!(given == data, "{name} {place}, {length} bytes");
        }
    }
}

#[test]
fn a_record_that_is_neither_an_answer_nor_an_error_is_none() {
    for name in ["otari", "groq", "together", "azure-openai"] {
        let kind = kind(name).unwrap();
        let batch = ended(kind).unwrap();
        let object = serde_json::from_str(r#"{"custom_id": "a"}"#).unwrap();
        let record = Record { object: &object, index: 0, part: Part::Output, batch: &batch };
        assert!(adapter(kind).output_line(record).is_err(), "{name}");
    }
}
