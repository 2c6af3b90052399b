//! The parser rules of `docs/providers.md#parser-rules`: from whatever JSON a service sends to the fields of a sighting.

use super::answer::shorten;
use super::reading::{Reading, count, errors, id, metadata, text, time};
use super::salvage::{self, TOO_LARGE};
use crate::domain::batch::{BatchErrors, InputTokensDetails, OutputTokensDetails, RequestCounts, Usage};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Reads the fields of one JSON object; what is there and cannot be read is noted and costs that field only.
///
/// A path is one key, or several with dots between them. Absent, `null` and `""` are the same to it.
#[derive(Debug)]
pub struct Reader<'a> {
    object: &'a Map<String, Value>,
    unreadable: Vec<String>,
    /// Where a day stood in place of a time, with its end in Unix seconds.
    days: Vec<(String, i64)>,
}

impl<'a> Reader<'a> {
    pub const fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, unreadable: Vec::new(), days: Vec::new() }
    }

    /// The sighting that `read` makes of `object`, with a note of everything that could not be read.
    pub fn sighting(object: &'a Map<String, Value>, read: impl FnOnce(&mut Self) -> Sighting) -> Sighting {
        let mut reader = Self::new(object);
        let sighting = read(&mut reader);
        let created = |path: &str| {
            let path = path.to_ascii_lowercase();
            path.contains("creat") || path.contains("submit")
        };
        let created_before = reader.days.iter().find(|(path, _)| created(path)).map(|(_, end)| *end);
        Sighting { unreadable: reader.unreadable, created_before, ..sighting }
    }

    /// Whether there is anything but `null` at `path`; it may be too large to be read.
    pub fn has(&mut self, path: &str) -> bool {
        self.find(path).is_some_and(|value| value == TOO_LARGE || !salvage::is_broken(value))
    }

    /// What is at `path`, as it is.
    pub fn value(&mut self, path: &str) -> Option<&'a Value> {
        let value = self.find(path)?;
        if let Some(why) = salvage::why_broken(value) {
            self.note(path, why);
            return None;
        }
        Some(value)
    }

    fn find(&mut self, path: &str) -> Option<&'a Value> {
        let mut object = self.object;
        let mut walked = 0;
        for (dot, _) in path.match_indices('.') {
            match object.get(&path[walked..dot])? {
                Value::Object(inner) => object = inner,
                Value::Null => return None,
                other => {
                    self.note(&path[..dot], salvage::why_broken(other).unwrap_or("is not an object"));
                    return None;
                }
            }
            walked = dot + 1;
        }
        object.get(&path[walked..]).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, path: &str) -> Option<String> {
        self.read(path, "is not text", text)
    }

    /// An id: a text, a number, or an object that has one in `id`.
    pub fn id(&mut self, path: &str) -> Option<String> {
        self.read(path, "is neither an id nor an object with one", id)
    }

    /// The first id of a list of them; a single one is fine too.
    pub fn first_id(&mut self, path: &str) -> Option<String> {
        self.read(path, "is not a list of ids", |value| match value {
            Value::Array(items) => items.first().map_or(Reading::Absent, id),
            single => id(single),
        })
    }

    /// A point in time, in Unix seconds. A bare date is none: it is a day long.
    pub fn time(&mut self, path: &str) -> Option<i64> {
        if let Some(end) = self.day_end(path) {
            if self.days.iter().all(|(known, _)| known != path) {
                self.days.push((path.to_owned(), end));
            }
            return None;
        }
        self.read(path, "is neither a number nor a date", time)
    }

    /// The time at which something ends: a bare date means the end of that day.
    pub fn deadline(&mut self, path: &str) -> Option<i64> {
        self.day_end(path).or_else(|| self.time(path))
    }

    /// The end of the day that stands at `path` without a time of day.
    fn day_end(&mut self, path: &str) -> Option<i64> {
        let date = self.value(path)?.as_str()?.trim().parse::<Date>().ok()?;
        let is_bare = self.value(path)?.as_str()?.trim().len() == "2026-11-20".len();
        let next = date.tomorrow().ok()?.to_datetime(Time::midnight());
        let end = TimeZone::UTC.to_timestamp(next).ok()?;
        is_bare.then(|| end.as_second())
    }

    pub fn count(&mut self, path: &str) -> Option<u64> {
        self.read(path, "is not a count", count)
    }

    /// A truth, which some write as text.
    pub fn flag(&mut self, path: &str) -> Option<bool> {
        self.read(path, "is neither true nor false", |value| match value {
            Value::Bool(flag) => Reading::Value(*flag),
            Value::String(text) if text.is_empty() => Reading::Absent,
            Value::String(text) if text.eq_ignore_ascii_case("true") => Reading::Value(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Reading::Value(false),
            _ => Reading::Unreadable,
        })
    }

    /// The service's own word for the status, at the first of `paths` that has one.
    ///
    /// A word may be anything; what is too long to be one is shortened.
    pub fn word(&mut self, paths: &[&str]) -> Option<String> {
        const MAX_WORD_CHARS: usize = 128;
        let mut word = None;
        let noted = self.unreadable.len();
        for path in paths {
            word = self.read(path, "is not a word", |value| match text(value) {
                Reading::TooLong => Reading::Value(value.as_str().unwrap_or_default().to_owned()),
                reading => reading,
            });
            if word.is_some() {
                // A service that keeps its word elsewhere has something else in the places before.
                self.unreadable.truncate(noted);
                break;
            }
        }
        word.map(|word| word.chars().filter(|c| !c.is_control()).take(MAX_WORD_CHARS).collect())
    }

    /// Counts in OpenAI's form: `total`, `completed`, `failed`.
    pub fn counts(&mut self, path: &str) -> Option<RequestCounts> {
        if !self.is_object(path) {
            return None;
        }
        self.whole(|reader| {
            let [total, completed, failed] =
                ["total", "completed", "failed"].map(|field| reader.count(&format!("{path}.{field}")));
            counts(total, completed, failed)
        })
    }

    /// What `read` makes of fields that mean something only together: nothing if one of them is unreadable.
    pub fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let noted = self.unreadable.len();
        read(self).filter(|_| self.unreadable.len() == noted)
    }

    /// The errors of the batch, in any of the forms that services give them.
    pub fn errors(&mut self, path: &str) -> Option<BatchErrors> {
        self.read(path, "is not a list of errors", errors)
    }

    /// What the submitter attached; values that are not text become their JSON.
    pub fn metadata(&mut self, path: &str) -> Option<BTreeMap<String, String>> {
        if let Some(Value::Object(entries)) = self.value(path) {
            let broken =
                entries.iter().filter_map(|(key, value)| Some((key, salvage::why_holds_broken(value)?)));
            for (key, why) in broken.take(MAX_NOTES) {
                self.note(&format!("{path}.{key}"), why);
            }
        }
        self.read(path, "is not a table", metadata)
    }

    /// Tokens used, in OpenAI's form.
    pub fn usage(&mut self, path: &str) -> Option<Usage> {
        if !self.is_object(path) {
            return None;
        }
        self.whole(|reader| {
            // Some tell a batch's tokens under the names of chat completions.
            let mut tokens = |fields: [&str; 2]| {
                fields.into_iter().find_map(|field| reader.count(&format!("{path}.{field}")))
            };
            let input = tokens(["input_tokens", "prompt_tokens"]);
            let output = tokens(["output_tokens", "completion_tokens"]);
            let total = tokens(["total_tokens"; 2]);
            let cached =
                tokens(["input_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens"]);
            let reasoning = tokens([
                "output_tokens_details.reasoning_tokens",
                "completion_tokens_details.reasoning_tokens",
            ]);
            if input.is_none() && output.is_none() && total.is_none() {
                return None;
            }
            let output_tokens = output.unwrap_or(0);
            // Embeddings are often told by their total alone.
            let input_tokens = input.or(total.map(|total| total.saturating_sub(output_tokens))).unwrap_or(0);
            Some(Usage {
                input_tokens,
                input_tokens_details: InputTokensDetails {
                    cached_tokens: cached.unwrap_or(0),
                    ..InputTokensDetails::default()
                },
                output_tokens,
                output_tokens_details: OutputTokensDetails { reasoning_tokens: reasoning.unwrap_or(0) },
                total_tokens: total.unwrap_or(input_tokens.saturating_add(output_tokens)),
            })
        })
    }

    /// Whether there is an object at `path`; anything else that is there is noted.
    pub fn is_object(&mut self, path: &str) -> bool {
        match self.value(path) {
            None => false,
            Some(Value::Object(_)) => true,
            Some(_) => {
                self.note(path, "is not an object");
                false
            }
        }
    }

    fn read<T>(
        &mut self,
        path: &str,
        otherwise: &str,
        reading: impl FnOnce(&Value) -> Reading<T>,
    ) -> Option<T> {
        match reading(self.value(path)?) {
            Reading::Value(value) => Some(value),
            Reading::Part(value) => {
                self.note(path, "holds more than is kept");
                Some(value)
            }
            Reading::Absent => None,
            Reading::TooLong => {
                self.note(path, "is too long");
                None
            }
            Reading::Unreadable => {
                self.note(path, otherwise);
                None
            }
        }
    }

    fn note(&mut self, path: &str, what: &str) {
        if self.unreadable.len() >= MAX_NOTES {
            return;
        }
        let sentence = format!("`{}` {what}", shorten(path));
        if !self.unreadable.contains(&sentence) {
            self.unreadable.push(sentence);
        }
    }
}

/// Of one answer, so many oddities are told: a server must not fill the log with them.
const MAX_NOTES: usize = 32;

/// Which of `words` the service's word is, whatever its case, separators, prefix and spelling of `cancelled`.
pub fn status(word: &str, words: &[(&str, Status)]) -> Option<Status> {
    let plain = plain(word);
    words.iter().find(|(known, _)| self::plain(known) == plain).map(|(_, status)| *status)
}

/// Counts from numbers of which some may be unknown; `None` if all are.
pub fn counts(total: Option<u64>, completed: Option<u64>, failed: Option<u64>) -> Option<RequestCounts> {
    if total.is_none() && completed.is_none() && failed.is_none() {
        return None;
    }
    let (completed, failed) = (completed.unwrap_or(0), failed.unwrap_or(0));
    let total = total.unwrap_or(0).max(completed.saturating_add(failed));
    Some(RequestCounts { total, completed, failed })
}

/// OpenAI's eight words, which most services share.
pub const OPENAI_WORDS: [(&str, Status); 8] = [
    ("validating", Status::Validating),
    ("in_progress", Status::InProgress),
    ("finalizing", Status::Finalizing),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("expired", Status::Expired),
    ("cancelling", Status::Cancelling),
    ("cancelled", Status::Cancelled),
];

/// A status word without what differs between services that mean the same.
fn plain(word: &str) -> String {
    const PREFIXES: [&str; 3] = ["jobstate", "batchstate", "batchstatus"];
    let letters: String = word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let bare = PREFIXES
        .iter()
        .find_map(|prefix| letters.strip_prefix(prefix).filter(|rest| !rest.is_empty()))
        .unwrap_or(&letters);
    match bare {
        "canceled" => "cancelled".to_owned(),
        "canceling" => "cancelling".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::BatchError;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::json;

    /// Reads `value` at the path `field` and gives what came of it, with the notes.
    fn field<T>(value: &Value, read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> (Option<T>, Vec<String>) {
        let Value::Object(object) = json!({ "field": value }) else { unreachable!() };
        let mut reader = Reader::new(&object);
        let value = read(&mut reader);
        (value, reader.unreadable)
    }

    fn noted(what: &str) -> Vec<String> {
        vec![format!("`field` {what}")]
    }

    #[test]
    fn a_time_has_many_forms() {
        let of = |value: Value| field(&value, |reader| reader.time("field"));
        for form in [
            json!(1_795_000_000),
            json!(1_795_000_000.75),
            json!("1795000000"),
            json!("1795000000.5"),
            json!(1_795_000_000_123_i64),
            json!("1795000000123"),
            json!(1_795_000_000_123_456_i64),
            json!(1_795_000_000_123_456_789_i64),
            json!("2026-11-18T11:06:40Z"),
            json!("2026-11-18t11:06:40z"),
            json!("2026-11-18 11:06:40Z"),
            json!("2026-11-18T11:06:40.1Z"),
            json!("2026-11-18T11:06:40.123456789Z"),
            json!("2026-11-18T11:06:40.123456+00:00"),
            json!("2026-11-18T12:06:40+01:00"),
            json!("2026-11-18T12:06:40+0100"),
            json!("2026-11-18T11:06:40"),
            json!("2026-11-18T11:06:40.5"),
            json!(" 2026-11-18T11:06:40Z "),
        ] {
            assert_eq!(of(form.clone()), (Some(1_795_000_000), vec![]), "{form}");
        }
        assert_eq!(of(json!("2026-11-18")), (None, vec![]), "a day is no time");
        for absent in
            [json!(null), json!(0), json!(0.0), json!(""), json!("0"), json!("0001-01-01T00:00:00Z")]
        {
            assert_eq!(of(absent.clone()), (None, vec![]), "{absent}");
        }
        for bad in
            [json!("soon"), json!(true), json!({}), json!([1]), json!("nan"), json!("inf"), json!(1e300)]
        {
            assert_eq!(of(bad.clone()), (None, noted("is neither a number nor a date")), "{bad}");
        }
    }

    #[test]
    fn a_count_may_be_text() {
        let of = |value: Value| field(&value, |reader| reader.count("field"));
        for form in [json!(4), json!("4"), json!(4.0)] {
            assert_eq!(of(form), (Some(4), vec![]));
        }
        assert_eq!(of(json!(u64::MAX)), (Some(u64::MAX), vec![]));
        assert_eq!(of(json!(0)), (Some(0), vec![]));
        assert_eq!(of(json!("")), (None, vec![]));
        for bad in [json!(-1), json!(1.5), json!("four"), json!([]), json!(false), json!(1e300)] {
            assert_eq!(of(bad.clone()), (None, noted("is not a count")), "{bad}");
        }
    }

    #[test]
    fn a_file_may_stand_where_its_id_belongs() {
        let of = |value: Value| field(&value, |reader| reader.id("field"));
        assert_eq!(of(json!("file-1")), (Some("file-1".into()), vec![]));
        assert_eq!(of(json!({"id": "file-1", "object": "file"})), (Some("file-1".into()), vec![]));
        assert_eq!(of(json!(17)), (Some("17".into()), vec![]));
        assert_eq!(of(json!("")), (None, vec![]));
        for bad in [json!({"name": "x"}), json!(["file-1"]), json!(true)] {
            assert_eq!(of(bad), (None, noted("is neither an id nor an object with one")));
        }
        let first = |value: Value| field(&value, |reader| reader.first_id("field"));
        assert_eq!(first(json!(["a", "b"])), (Some("a".into()), vec![]));
        assert_eq!(first(json!([{"id": "a"}])), (Some("a".into()), vec![]));
        assert_eq!(first(json!("a")), (Some("a".into()), vec![]));
        assert_eq!(first(json!([])), (None, vec![]));
    }

    #[test]
    fn errors_have_many_forms() {
        let of = |value: Value| {
            let (errors, notes) = field(&value, |reader| reader.errors("field"));
            (errors.map(|errors| errors.data), notes)
        };
        let one = |code: Option<&str>, message: &str| {
            let error = BatchError {
                code: code.map(str::to_owned),
                message: Some(message.to_owned()),
                ..BatchError::default()
            };
            (Some(vec![error]), vec![])
        };
        assert_eq!(
            of(json!({"object": "list", "data": [{"code": "c", "message": "m"}]})),
            one(Some("c"), "m")
        );
        assert_eq!(of(json!({"data": [{"code": "c", "message": "m", "line": null}]})), one(Some("c"), "m"));
        assert_eq!(of(json!([{"code": "c", "message": "m"}])), one(Some("c"), "m"));
        assert_eq!(of(json!(["m"])), one(None, "m"));
        assert_eq!(of(json!("m")), one(None, "m"));
        assert_eq!(of(json!({"code": 13, "message": "m"})), one(Some("13"), "m"));
        assert_eq!(of(json!([{"error": {"code": "c", "message": "m"}}])), one(Some("c"), "m"));
        assert_eq!(of(json!([{"message": "m", "count": 1}])), one(None, "m"));
        assert_eq!(of(json!([{"message": "m", "count": 3}])), one(None, "m (3 requests)"));
        let (data, _) = of(json!([{"line": "7", "param": "body.model"}, 5, {}]));
        assert_eq!(
            data.unwrap(),
            [BatchError { line: Some(7), param: Some("body.model".into()), ..BatchError::default() }]
        );
        for none in
            [json!([]), json!({}), json!({"object": "list", "data": []}), json!({"data": null}), json!("")]
        {
            assert_eq!(of(none), (None, vec![]));
        }
        for bad in [json!(5), json!({"data": "x"})] {
            assert_eq!(of(bad), (None, noted("is not a list of errors")));
        }
    }

    #[test]
    fn counts_may_be_null_inside_and_out() {
        let of = |value: Value| field(&value, |reader| reader.counts("field"));
        let some = |total, completed, failed| (Some(RequestCounts { total, completed, failed }), vec![]);
        assert_eq!(of(json!({"total": 4, "completed": 3, "failed": 1})), some(4, 3, 1));
        assert_eq!(of(json!({"total": 0, "completed": 0, "failed": 0})), some(0, 0, 0));
        assert_eq!(of(json!({"total": "4", "completed": null})), some(4, 0, 0));
        assert_eq!(of(json!({"completed": 3, "failed": 1})), some(4, 3, 1));
        assert_eq!(of(json!({"total": null, "completed": null, "failed": null})), (None, vec![]));
        assert_eq!(of(json!({})), (None, vec![]));
        assert_eq!(of(json!(null)), (None, vec![]));
        assert_eq!(of(json!([1])), (None, noted("is not an object")));
        // Half of them would be a lie.
        let many = of(json!({"total": "many", "completed": 1}));
        assert_eq!(many, (None, vec!["`field.total` is not a count".to_owned()]));
    }

    #[test]
    fn metadata_becomes_text() {
        let of = |value: Value| field(&value, |reader| reader.metadata("field"));
        let (metadata, notes) = of(json!({"a": "x", "b": 1, "c": true, "d": null, "e": {"f": []}}));
        let expected = [("a", "x"), ("b", "1"), ("c", "true"), ("e", r#"{"f":[]}"#)];
        assert_eq!(metadata.unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert!(notes.is_empty());
        assert_eq!(of(json!([])), (None, vec![]));
        assert_eq!(of(json!("x")), (None, noted("is not a table")));
    }

    #[test]
    fn usage_needs_no_details() {
        let of = |value: Value| field(&value, |reader| reader.usage("field")).0;
        let usage = of(
            json!({"input_tokens": 9, "output_tokens": "4", "input_tokens_details": {"cached_tokens": 2}}),
        );
        let usage = usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (9, 4, 13));
        assert_eq!(usage.input_tokens_details.cached_tokens, 2);
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!(null)), None);
    }

    #[test]
    fn a_status_word_is_known_in_any_dress() {
        let of = |word| status(word, &OPENAI_WORDS);
        for word in [
            "in_progress",
            "In_Progress",
            "IN_PROGRESS",
            "InProgress",
            "in-progress",
            "JOB_STATE_IN_PROGRESS",
        ] {
            assert_eq!(of(word), Some(Status::InProgress), "{word}");
        }
        for word in ["cancelled", "canceled", "Canceled", "BATCH_STATUS_CANCELED", "BATCH_STATE_CANCELLED"] {
            assert_eq!(of(word), Some(Status::Cancelled), "{word}");
        }
        assert_eq!(of("canceling"), Some(Status::Cancelling));
        for unknown in ["", "done", "complete", "JOB_STATE_", "completed!later", "ended"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_word_may_stand_elsewhere() {
        let read = |value: Value| {
            let Value::Object(object) = value else { unreachable!() };
            let mut reader = Reader::new(&object);
            (reader.word(&["status", "state.status"]), reader.unreadable)
        };
        assert_eq!(read(json!({"status": "x"})), (Some("x".into()), vec![]));
        assert_eq!(read(json!({"status": {}, "state": {"status": "x"}})), (Some("x".into()), vec![]));
        assert_eq!(read(json!({"status": 5})), (None, vec!["`status` is not a word".to_owned()]));
        assert_eq!(read(json!({"status": "w".repeat(1000)})).0.map(|word| word.len()), Some(128));
    }

    #[test]
    fn a_path_through_something_else_is_noted_once() {
        let Value::Object(object) = json!({"outer": "text"}) else { unreachable!() };
        let mut reader = Reader::new(&object);
        assert_eq!(reader.text("outer.inner"), None);
        assert_eq!(reader.time("outer.at"), None);
        assert_eq!(reader.unreadable, ["`outer` is not an object"]);
    }

    proptest! {
        #[test]
        fn every_form_of_a_time_is_read_back(seconds in 1_i64..99_999_999_999, nanos in 0_i32..1_000_000_000) {
            let read = |value: Value| field(&value, |reader| reader.time("field"));
            let at = Timestamp::new(seconds, nanos).unwrap();
            let zoned = at.to_zoned(jiff::tz::Offset::from_seconds(-5 * 3600 - 1800).unwrap().to_time_zone());
            for form in [
                json!(seconds),
                json!(seconds.to_string()),
                json!(at.to_string()),
                json!(format!("{at:.0}")),
                json!(format!("{at:.9}")),
                json!(zoned.timestamp().display_with_offset(zoned.offset()).to_string()),
                json!(TimeZone::UTC.to_datetime(at).to_string()),
            ] {
                prop_assert_eq!(read(form.clone()), (Some(seconds), vec![]), "{}", form);
            }
            if seconds > 100_000_000 {
                prop_assert_eq!(read(json!(at.as_millisecond())), (Some(seconds), vec![]));
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC*", number in any::<f64>()) {
            for value in [json!(text), json!(number), json!({"id": text}), json!([text])] {
                field(&value, |reader| reader.time("field"));
                field(&value, |reader| reader.count("field"));
                field(&value, |reader| reader.id("field"));
                field(&value, |reader| reader.errors("field"));
                field(&value, |reader| reader.metadata("field"));
            }
            status(&text, &OPENAI_WORDS);
        }
    }

    #[test]
    fn what_is_no_json_costs_its_field_and_is_noted() {
        let text = r#"{"id":"b","status":"in_progress","usage":nope,"errors":{"data":[oops,{"message":"m","code":+1}]},
            "metadata":{"note":"great \ud83d","bad":"\q","good":"yes"},"expires_at":{},"created_at":tomorrow}"#;
        let object = salvage::object(text.as_bytes()).unwrap();
        let sighting = Reader::sighting(&object, |reader| Sighting {
            status: reader.word(&["status"]).and_then(|word| status(&word, &OPENAI_WORDS)),
            usage: reader.usage("usage"),
            created_at: reader.time("created_at"),
            errors: reader.errors("errors"),
            metadata: reader.metadata("metadata"),
            ..Sighting::default()
        });
        assert_eq!(sighting.status, Some(Status::InProgress));
        let metadata = sighting.metadata.unwrap();
        assert_eq!(metadata["note"], "great \u{fffd}");
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["good", "note"]);
        assert_eq!(sighting.errors.unwrap().data.len(), 1);
        let unreadable = ["`usage` is not JSON", "`created_at` is not JSON", "`metadata.bad` is not JSON"];
        assert_eq!(sighting.unreadable, unreadable);
    }

    #[test]
    fn a_day_is_no_time() {
        let object =
            json!({"create_time": "2026-08-10", "expire_time": "2026-09-09", "at": "2026-08-10T22:28:00Z"});
        let Value::Object(object) = object else { unreachable!() };
        let sighting = Reader::sighting(&object, |reader| Sighting {
            created_at: reader.time("create_time"),
            expires_at: reader.deadline("expire_time"),
            in_progress_at: reader.time("at"),
            ..Sighting::default()
        });
        assert_eq!((sighting.created_at, sighting.created_before), (None, Some(1_786_406_400)));
        assert_eq!(sighting.expires_at, Some(1_788_998_400));
        assert_eq!(sighting.in_progress_at, Some(1_786_400_880));
        assert_eq!(sighting.unreadable, [] as [&str; 0]);
    }
}
