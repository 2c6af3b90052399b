//! The body of an event as text, never longer than receivers take: what is cut is counted beside it (`docs/contract.md#body`).

use super::bounds::beginning;
use serde_json::{Map, Value};

/// The longest body: more than any real batch needs, and less than receivers and services refuse.
pub const MOST: usize = 64 * 1024;

/// `body` as JSON of at most 64 KiB.
///
/// What is too long gives way in this order: errors of the batch, its metadata, then whatever else is long. `errors.truncated`
/// counts errors that are left out, `NAME_truncated` beside any other field the entries of it that were left out or cut,
/// or the bytes that its text lost.
pub fn bounded(mut body: Value) -> String {
    let text = body.to_string();
    if text.len() <= MOST {
        return text;
    }
    let mut length = text.len();
    drop(text);
    if let Some(errors) = body.pointer_mut("/data/batch/errors").and_then(Value::as_object_mut) {
        length = length.saturating_sub(cut_errors(errors, length.saturating_sub(MOST)));
    }
    if length <= MOST {
        return body.to_string();
    }
    let mut without_metadata = body.clone();
    if let Some(batch) = without_metadata.pointer_mut("/data/batch").and_then(Value::as_object_mut) {
        let room = batch
            .get("metadata")
            .map_or(0, |map| map.to_string().len())
            .saturating_sub(length - MOST + COUNT);
        keep_entries(batch, "metadata", Keep { entries: usize::MAX, text: LONG_VALUE, bytes: room });
    }
    let mut text = without_metadata.to_string();
    for (text_length, entries) in STEPS {
        if text.len() <= MOST {
            break;
        }
        // Each from the whole, so that nothing is counted twice.
        let mut shorter = body.clone();
        shorten(&mut shorter["data"], text_length, entries);
        text = shorter.to_string();
    }
    text
}

/// Cuts the errors' texts, then leaves out the last of them until `excess` bytes are saved. How many bytes it saved.
fn cut_errors(errors: &mut Map<String, Value>, excess: usize) -> usize {
    let before = length(errors);
    let mut left_out = 0;
    if let Some(Value::Array(data)) = errors.get_mut("data") {
        for error in &mut *data {
            shorten(error, LONG_ERROR, usize::MAX);
        }
        let lengths: Vec<usize> = data.iter().map(|error| error.to_string().len() + 1).collect();
        let room = before.saturating_sub(excess + COUNT);
        let mut taken = 0;
        let kept = lengths.iter().take_while(|length| {
            taken += **length;
            taken <= room
        });
        let kept = kept.count().max(LEAST_ERRORS).min(data.len());
        left_out = (data.len() - kept) as u64;
        data.truncate(kept);
    }
    add_to(errors, "truncated", left_out);
    before.saturating_sub(length(errors))
}

/// Cuts every text and every list in `value` to these lengths, and counts beside each what it lost.
fn shorten(value: &mut Value, longest_text: usize, most_entries: usize) {
    match value {
        Value::Array(entries) => {
            for entry in entries {
                shorten(entry, longest_text, most_entries);
            }
        }
        Value::Object(fields) => {
            let mut lost: Vec<(String, u64)> = Vec::new();
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if TEXT_MAPS.contains(&name.as_str()) && fields[&name].is_object() {
                    keep_entries(
                        fields,
                        &name,
                        Keep { entries: most_entries, text: longest_text, bytes: usize::MAX },
                    );
                    continue;
                }
                let longest =
                    if IDS.contains(&name.as_str()) { longest_text.max(LONG_ID) } else { longest_text };
                match &mut fields[&name] {
                    Value::String(text) if text.len() > longest => {
                        let short = beginning(text, longest);
                        lost.push((format!("{name}{TRUNCATED}"), (text.len() - short.len()) as u64));
                        *text = short;
                    }
                    Value::Array(entries) => {
                        let gone = entries.len().saturating_sub(most_entries) as u64;
                        entries.truncate(most_entries);
                        // As OpenAI's lists have it in errors.
                        let count = if name == "data" {
                            "truncated".to_owned()
                        } else {
                            format!("{name}{TRUNCATED}")
                        };
                        lost.push((count, gone));
                        shorten(&mut fields[&name], longest_text, most_entries);
                    }
                    other => shorten(other, longest_text, most_entries),
                }
            }
            for (name, count) in lost {
                add_to(fields, &name, count);
            }
        }
        _ => {}
    }
}

/// What of a map of texts is kept.
#[derive(Clone, Copy)]
struct Keep {
    entries: usize,
    /// Bytes of one key or value.
    text: usize,
    /// Bytes of all, as they are written.
    bytes: usize,
}

/// Keeps the first entries of a map of texts, and counts beside it those that are left out or cut.
fn keep_entries(parent: &mut Map<String, Value>, name: &str, keep: Keep) {
    let Some(Value::Object(map)) = parent.get_mut(name) else { return };
    let (mut taken, mut lost) = (0, 0);
    for (key, value) in std::mem::take(map) {
        let text = value.as_str().unwrap_or_default();
        let short = Value::String(beginning(text, keep.text));
        let bytes = Value::from(key.as_str()).to_string().len() + short.to_string().len() + 2;
        if map.len() < keep.entries && key.len() <= keep.text && taken + bytes <= keep.bytes {
            lost += u64::from(short != value);
            taken += bytes;
            map.insert(key, short);
        } else {
            lost += 1;
        }
    }
    add_to(parent, &format!("{name}{TRUNCATED}"), lost);
}

fn add_to(fields: &mut Map<String, Value>, name: &str, count: u64) {
    if count > 0 {
        let before = fields.get(name).and_then(Value::as_u64).unwrap_or(0);
        fields.insert(name.to_owned(), before.saturating_add(count).into());
    }
}

fn length(fields: &Map<String, Value>) -> usize {
    // Written out once more; nothing here is so long that it matters.
    serde_json::to_string(fields).map_or(0, |text| text.len())
}

const TRUNCATED: &str = "_truncated";
/// Bytes that a count takes at most, with its name.
const COUNT: usize = 64;
/// Of one text of an error, in a body that is too long.
const LONG_ERROR: usize = 512;
/// Errors that are kept in any case: messages show three.
const LEAST_ERRORS: usize = 3;
/// Of one value of the metadata, in a body that is too long.
const LONG_VALUE: usize = 512;
/// Texts that are cut last: a part of one means nothing.
const LONG_ID: usize = 400;
const IDS: [&str; 13] = [
    "id",
    "provider",
    "webhook",
    "status",
    "endpoint",
    "input_file_id",
    "provider_input_file_id",
    "submission",
    "resubmits",
    "output_file_id",
    "error_file_id",
    "console_url",
    "event_id",
];
/// Maps whose keys are the user's: nothing is counted inside.
const TEXT_MAPS: [&str; 2] = ["labels", "metadata"];
/// To which lengths texts and lists are cut, one after the other, until the body fits.
const STEPS: [(usize, usize); 8] =
    [(4096, 200), (1024, 100), (1024, 50), (512, 30), (256, 20), (128, 12), (64, 6), (32, 3)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::{Batch, BatchError, BatchErrors};
    use crate::domain::event::Occurrence;
    use crate::domain::status::Status;
    use crate::domain::tracked::{BatchKey, Origin, Tracked, Transition};
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn batch() -> Tracked {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
        tracked.batch.status = Status::Failed;
        tracked
    }

    fn body(tracked: &Tracked) -> Value {
        let transition = Transition {
            from: None,
            to: Status::Failed,
            provider_status: None,
            occurred_at: None,
            observed_at: NOW,
        };
        let text = Occurrence::Status(transition).draft(tracked).body(7);
        assert!(text.len() <= MOST, "{}", text.len());
        let body: Value = serde_json::from_str(&text).unwrap();
        // As the SDK's strict model reads it.
        serde_json::from_value::<Batch>(body["data"]["batch"].clone()).unwrap();
        body
    }

    fn failed(count: u64, message: &str) -> BatchErrors {
        let data = (0..count).map(|line| BatchError {
            code: Some("invalid_json_line".to_owned()),
            line: Some(line),
            message: Some(message.to_owned()),
            param: None,
        });
        BatchErrors { data: data.collect(), ..BatchErrors::default() }
    }

    #[test]
    fn what_is_short_is_left_as_it_is() {
        let mut tracked = batch();
        tracked.batch.errors = Some(failed(100, "not JSON"));
        let body = body(&tracked);
        assert_eq!(body["data"]["batch"]["errors"]["data"].as_array().unwrap().len(), 100);
        assert!(!body.to_string().contains("truncated"));
    }

    #[test]
    fn of_fifty_thousand_errors_the_first_are_told_and_the_others_counted() {
        let mut tracked = batch();
        tracked.name = Some("nightly".to_owned());
        tracked.batch.metadata = Some(BTreeMap::from([("run".to_owned(), "7".to_owned())]));
        tracked.batch.errors = Some(failed(50_000, &"This line is not valid JSON. ".repeat(6)));
        let body = body(&tracked);
        let errors = &body["data"]["batch"]["errors"];
        let kept = errors["data"].as_array().unwrap();
        assert!(kept.len() > 200, "{}", kept.len());
        assert_eq!(kept.len() as u64 + errors["truncated"].as_u64().unwrap(), 50_000);
        assert_eq!((&kept[0]["line"], &body["data"]["name"]), (&json!(0), &json!("nightly")));
        assert_eq!(body["data"]["batch"]["metadata"], json!({"run": "7"}), "errors go first");
    }

    #[test]
    fn then_metadata_gives_way_then_other_long_texts() {
        let mut tracked = batch();
        tracked.batch.metadata = Some((0..5000).map(|n| (format!("key{n:04}"), "v".repeat(100))).collect());
        let told = body(&tracked);
        let kept = told["data"]["batch"]["metadata"].as_object().unwrap();
        assert!(kept.len() > 200 && kept.values().all(Value::is_string), "{}", kept.len());
        assert_eq!(kept.len() as u64 + told["data"]["batch"]["metadata_truncated"].as_u64().unwrap(), 5000);

        tracked.batch.metadata = None;
        tracked.last_error = Some("e".repeat(1_000_000));
        tracked.labels = (0..500).map(|n| (format!("k{n}"), "l".repeat(10_000))).collect();
        tracked.name = Some("n".repeat(10_000));
        let told = body(&tracked);
        let name = told["data"]["name"].as_str().unwrap();
        assert_eq!(name.len() as u64 + told["data"]["name_truncated"].as_u64().unwrap(), 10_000);
        assert!(told["data"]["labels_truncated"].as_u64().unwrap() > 0);
        assert_eq!(told["data"]["id"], "batch_1");
    }

    fn text() -> impl Strategy<Value = String> {
        let piece =
            prop_oneof!["[a-z]{0,8}", "\\PC{0,4}", Just("\u{1}\"\\".to_owned()), Just("𝄞é".to_owned())];
        (piece, prop_oneof![Just(1_usize), 1..50_usize, 1000..6_000_usize])
            .prop_map(|(piece, times)| piece.repeat(times))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_a_batch_holds_its_body_is_short_and_can_be_read(
            texts in proptest::collection::vec(text(), 12),
            labels in proptest::collection::btree_map(text(), text(), 0..24),
            metadata in proptest::collection::btree_map(text(), text(), 0..24),
            errors in 0_u64..1000,
        ) {
            let mut tracked = batch();
            let mut texts = texts.into_iter();
            let mut next = || texts.next();
            tracked.key.id = next().unwrap();
            tracked.batch.id = tracked.key.id.clone();
            tracked.batch.endpoint = next().unwrap();
            tracked.batch.input_file_id = next().unwrap();
            tracked.batch.completion_window = next().unwrap();
            tracked.batch.model = next();
            tracked.batch.output_file_id = next();
            tracked.name = next();
            tracked.last_error = next();
            tracked.provider_status = next();
            tracked.owner = next();
            tracked.console_url = next();
            tracked.batch.errors = Some(failed(errors, &next().unwrap().chars().take(2000).collect::<String>()));
            tracked.labels = labels;
            tracked.batch.metadata = Some(metadata);
            body(&tracked);
        }

        #[test]
        fn whatever_a_digest_holds_too(entries in 0_usize..150, name in text()) {
            let entry = json!({"id": "batch_1", "provider": "openai", "name": name, "labels": {"a": name}});
            let list = vec![entry; entries];
            let text = bounded(json!({"id": "evt_1", "data": {"counts": {"ended": entries}, "ended": list, "running": list}}));
            prop_assert!(text.len() <= MOST, "{}", text.len());
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read["data"]["counts"]["ended"], &json!(entries));
            let ended = read["data"]["ended"].as_array().unwrap().len() as u64;
            prop_assert_eq!(ended + read["data"]["ended_truncated"].as_u64().unwrap_or(0), entries as u64);
        }
    }
}
