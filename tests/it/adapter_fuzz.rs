//! The adapters against answers that nobody would give: whatever they are, they are read or refused, and nothing panics.

use crate::provider::{adapter, answer, asked, recorded, shown};
use batchd::provider::registry::KINDS;
use batchd::provider::{Kind, PageRequest};
use proptest::prelude::*;
use serde_json::Value;

/// Any JSON, made of the words that adapters read.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(VALUES).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        let key = prop_oneof![prop::sample::select(KEYS).prop_map(str::to_owned), "\\PC{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..10)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

const KEYS: &[&str] = &[
    "id",
    "name",
    "object",
    "type",
    "status",
    "state",
    "processing_status",
    "error",
    "errors",
    "message",
    "data",
    "metadata",
    "operations",
    "request_counts",
    "batchStats",
    "requestCount",
    "total",
    "completed",
    "failed",
    "succeeded",
    "created_at",
    "createTime",
    "endTime",
    "ended_at",
    "expires_at",
    "output_file_id",
    "output_file",
    "input_files",
    "usage",
    "input_tokens",
    "output",
    "response",
    "responsesFile",
    "inlinedResponses",
    "done",
    "details",
    "retryDelay",
    "detail",
    "has_more",
    "last_id",
    "nextPageToken",
    "timeout_hours",
    "model",
    "batch",
];

const VALUES: &[&str] = &[
    "x",
    "batches/x",
    "batch",
    "list",
    "error",
    "completed",
    "ended",
    "BATCH_STATE_SUCCEEDED",
    "SUCCESS",
    "canceled",
    "2026-11-18T11:06:40.123456789Z",
    "1795000000",
    "99999999999999999999",
    "-1",
    "",
];

/// Whatever the body, the answer is a sighting or a failure.
fn read_all(body: &[u8]) {
    for kind in KINDS {
        let provider = adapter(kind);
        for status in [200, 500] {
            let answer = answer(status, body.to_vec());
            if let Ok(sighting) = provider.retrieved("x", &answer) {
                assert!(!sighting.id.is_empty());
                shown(kind, &sighting);
            }
            let page = PageRequest { cursor: Some("1".to_owned()), limit: 2, ..PageRequest::default() };
            if let Ok(page) = provider.listed(&page, &answer) {
                assert_ne!(page.next.as_deref(), Some("1"));
                page.sightings.iter().for_each(|sighting| drop(shown(kind, sighting)));
            }
        }
    }
}

/// Replaces one value somewhere in `value`, counted from the outside in, or takes it out.
fn mutate(value: &mut Value, at: &mut usize, with: Option<&Value>) {
    match value {
        Value::Array(items) => {
            for item in items {
                step(item, at, with);
            }
        }
        Value::Object(object) => {
            let keys: Vec<String> = object.keys().cloned().collect();
            for key in keys {
                if *at == 0 && with.is_none() {
                    object.remove(&key);
                    *at = usize::MAX;
                    return;
                }
                if let Some(child) = object.get_mut(&key) {
                    step(child, at, with);
                }
            }
        }
        _ => {}
    }
}

fn step(child: &mut Value, at: &mut usize, with: Option<&Value>) {
    if *at == 0 {
        if let Some(with) = with {
            *child = with.clone();
        }
        *at = usize::MAX;
    } else {
        *at -= 1;
        mutate(child, at, with);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_json_is_a_panic(value in any_json()) {
        read_all(value.to_string().as_bytes());
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        read_all(&bytes);
    }

    #[test]
    fn no_mutation_of_a_recorded_answer_is_a_panic(
        pick in any::<prop::sample::Index>(),
        at in 0_usize..40,
        with in prop::option::of(any_json()),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let all: Vec<(&Kind, Vec<u8>)> = KINDS
            .iter()
            .flat_map(|kind| {
                ["", "lists", "refusals"].into_iter().flat_map(|folder| {
                    recorded(kind, folder).into_values().map(|body| (*kind, body))
                })
            })
            .collect();
        let (kind, body) = pick.get(&all);
        if let Ok(mut value) = serde_json::from_slice::<Value>(body) {
            let id = asked(body);
            mutate(&mut value, &mut at.clone(), with.as_ref());
            let answer = answer(200, value.to_string());
            if let Ok(sighting) = adapter(kind).retrieved(&id, &answer) {
                shown(kind, &sighting);
            }
            read_all(value.to_string().as_bytes());
        }
        if let Some(cut) = cut {
            read_all(&body[..cut.index(body.len())]);
        }
    }
}
