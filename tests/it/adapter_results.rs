//! What the adapters make of recorded results, and how they ask for them.

use crate::provider::{adapter, answer, asked, fixtures, recorded, sent, speaks_openai};
use batchd::domain::batch::{Batch, Usage};
use batchd::domain::cost::{Cost, Priced, Rates, Spent, Told, Usd};
use batchd::domain::status::Status;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::http::failure::Failure;
use batchd::provider::Kind;
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
