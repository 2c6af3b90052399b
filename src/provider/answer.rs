//! From a service's HTTP answer to the JSON object in it, or to the failure that it tells.

use super::bounds::{self, bounded};
use super::{quota, salvage};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use http::StatusCode;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

/// The one object that a successful answer holds, freed of what some servers wrap around it.
///
/// # Errors
///
/// What the status line says if it is no success; [`Failure::Malformed`] for what is not JSON, not one object, or
/// an error dressed as a success.
pub fn object(answer: &Answer) -> Result<Map<String, Value>, Failure> {
    let object = match unwrapped(json(answer, None)?) {
        Value::Object(object) => object,
        other => return Err(Failure::Malformed(format!("it is {}, not an object", kind_of(&other)))),
    };
    let told = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
    let is_error = told("error") && !told("id") && !told("name") && !told("metadata")
        || object.get("object").or_else(|| object.get("type")).is_some_and(|kind| kind == "error");
    if is_error {
        let message = words(&Value::Object(object), 0).unwrap_or_else(|| "no message".to_owned());
        return Err(Failure::Malformed(format!("it is an error: {}", shorten(&message))));
    }
    Ok(object)
}

/// The list that a successful answer holds under `key`, and the object around it.
///
/// A bare array is a list too, with nothing around it; an object without `key` is an empty one if it is `{}` (how
/// Google writes it) or says of itself that it is a list.
///
/// # Errors
///
/// As [`object`], and [`Failure::Malformed`] for what is no list.
pub fn list(answer: &Answer, key: &str) -> Result<(Vec<Value>, Map<String, Value>), Failure> {
    let mut around = match json(answer, Some(key))? {
        Value::Array(items) => return Ok((read_items(items), Map::new())),
        Value::Object(object) => object,
        other => return Err(Failure::Malformed(format!("it is {}, not a list", kind_of(&other)))),
    };
    match around.remove(key) {
        Some(Value::Array(items)) => Ok((read_items(items), around)),
        Some(Value::Null) => Ok((Vec::new(), around)),
        None if around.is_empty()
            || around.get("object").is_some_and(|kind| kind == "list")
            || is_paging(&around) =>
        {
            Ok((Vec::new(), around))
        }
        Some(other) => Err(Failure::Malformed(format!("`{key}` is {}, not a list", kind_of(&other)))),
        None => Err(Failure::Malformed(match words(&Value::Object(around), 0) {
            Some(message) => format!("it is an error: {}", shorten(&message)),
            None => format!("there is no `{key}` in it"),
        })),
    }
}

/// `items` without the sign that there are too many.
fn read_items(mut items: Vec<Value>) -> Vec<Value> {
    if items.last().is_some_and(|last| last == salvage::TOO_LARGE) {
        items.pop();
        tracing::warn!(
            items = items.len(),
            "a page of a provider's list is too large; only its first items are read"
        );
    }
    items
}

/// Whether what stands around a list that is not there says how to read on: Google leaves out a list that is empty,
/// also where more pages follow.
fn is_paging(around: &Map<String, Value>) -> bool {
    const KEYS: [&str; 8] = [
        "nextPageToken",
        "next_page_token",
        "nextToken",
        "pagination_token",
        "has_more",
        "last_id",
        "paging",
        "total",
    ];
    KEYS.iter().any(|key| around.contains_key(*key)) && !around.contains_key("error")
}

/// The failure that an answer with another status than 2xx tells.
pub fn refusal(answer: &Answer) -> Failure {
    let body = salvage::value(&bounded(&answer.body, None));
    let message = match &body {
        Some(body) => words(body, 0),
        None => None,
    }
    .unwrap_or_else(|| plain_text(&beginning(answer)));
    let message = match answer.header("location") {
        Some(location) if answer.status.is_redirection() => redirect(location),
        _ => shorten(&message),
    };
    let status = match &body {
        Some(body) if refuses_key(unwrapped_ref(body)) => StatusCode::UNAUTHORIZED,
        _ => answer.status,
    };
    let mut failure = Failure::from_status(status, &answer.headers, (!message.is_empty()).then_some(message));
    if let Failure::Status { retry_after, quota, .. } = &mut failure {
        let body = body.unwrap_or_else(|| Value::String(beginning(answer).into_owned()));
        *retry_after = retry_after.or_else(|| retry_delay(unwrapped_ref(&body)));
        // AWS names the kind of an error beside its body.
        *quota = quota::quota(answer.status, answer.header("x-amzn-errortype"), unwrapped_ref(&body));
    }
    failure
}

/// Where an answer sends on to: its host and no more, since the rest may be a secret.
fn redirect(location: &str) -> String {
    let host =
        location.parse().ok().and_then(|uri: http::Uri| uri.authority().map(|at| at.host().to_owned()));
    let to = host.map_or_else(String::new, |host| format!(" to {host}"));
    format!("it redirects{to}, and no key is sent on to another place; check `base_url`")
}

/// At most 200 characters of `text` on one line, without control characters.
pub fn shorten(text: &str) -> String {
    let mut line = String::new();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > LONGEST_MESSAGE * 4 {
            break;
        }
    }
    if line.chars().nth(LONGEST_MESSAGE).is_some() {
        line = line.chars().take(LONGEST_MESSAGE - 1).collect();
        line.push('…');
    }
    line
}

/// How much of a server's own words is kept.
const LONGEST_MESSAGE: usize = 200;

/// As much of the body as words for people may be in.
fn beginning(answer: &Answer) -> Cow<'_, str> {
    String::from_utf8_lossy(&answer.body[..answer.body.len().min(bounds::SMALL)])
}

/// The document in the answer; `list` is under which key it has a list, if it has one.
fn json(answer: &Answer, list: Option<&str>) -> Result<Value, Failure> {
    if !answer.status.is_success() {
        return Err(refusal(answer));
    }
    if answer.cut {
        return Err(Failure::TooLarge(answer.body.len()));
    }
    if answer.body.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::Malformed("it is empty, not JSON".to_owned()));
    }
    salvage::value(&bounded(&answer.body, list)).ok_or_else(|| {
        let begin = shorten(&plain_text(&beginning(answer)));
        Failure::Malformed(format!(
            "it is not JSON; it begins `{}`",
            begin.chars().take(60).collect::<String>()
        ))
    })
}

/// Takes off a list around a single object, or an envelope with one batch in it.
fn unwrapped(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        Value::Object(mut object) if !object.contains_key("id") && !object.contains_key("name") => {
            for key in ["batch", "job", "data"] {
                match object.remove(key) {
                    Some(Value::Object(inner)) => return Value::Object(inner),
                    Some(Value::Array(mut items)) if items.len() == 1 && items[0].is_object() => {
                        return items.remove(0);
                    }
                    Some(other) => {
                        object.insert(key.to_owned(), other);
                    }
                    None => {}
                }
            }
            Value::Object(object)
        }
        other => other,
    }
}

fn unwrapped_ref(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What an error's body says to a person, wherever this server puts it.
fn words(value: &Value, depth: usize) -> Option<String> {
    /// Deeper than anybody nests an error.
    const DEEPEST: usize = 6;
    if depth > DEEPEST {
        return None;
    }
    match value {
        Value::String(text) if text.trim().is_empty() || salvage::is_broken(value) => None,
        // An error page that a proxy put into a JSON string.
        Value::String(text) => Some(plain_text(text)),
        Value::Array(items) => items.iter().find_map(|item| words(item, depth + 1)),
        Value::Object(object) => {
            let said =
                ["error", "message", "Message", "detail", "msg", "errors", "error_description", "title"]
                    .iter()
                    .find_map(|key| object.get(*key).and_then(|value| words(value, depth + 1)))
                    .or_else(|| {
                        ["type", "code", "status"].iter().find_map(|key| match object.get(*key) {
                            Some(broken) if salvage::is_broken(broken) => None,
                            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
                            _ => None,
                        })
                    })?;
            // FastAPI tells where apart from what.
            Some(match object.get("loc") {
                Some(Value::Array(path)) if object.contains_key("msg") => {
                    let path: Vec<String> = path
                        .iter()
                        .map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned))
                        .collect();
                    format!("{}: {said}", path.join("."))
                }
                _ => said,
            })
        }
        _ => None,
    }
}

/// A page's title, or its text without the tags; other text as it is.
fn plain_text(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return text.to_owned();
    }
    let lower = text.to_ascii_lowercase();
    if let Some(title) = lower.find("<title>").map(|at| at + "<title>".len())
        && let Some(end) = lower[title..].find("</title>")
        && !text[title..title + end].trim().is_empty()
    {
        return text[title..title + end].to_owned();
    }
    let mut plain = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                plain.push(' ');
            }
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// Whether Google says that the key is no good: it does so with 400, where others say 401.
fn refuses_key(body: &Value) -> bool {
    let details = body.get("error").and_then(|error| error.get("details")).and_then(Value::as_array);
    details.is_some_and(|details| {
        details.iter().any(|detail| {
            matches!(
                detail.get("reason").and_then(Value::as_str),
                Some("API_KEY_INVALID" | "API_KEY_EXPIRED")
            )
        })
    })
}

/// Google's `RetryInfo` among the details of an error.
fn retry_delay(body: &Value) -> Option<Duration> {
    /// As for the header of the same meaning.
    const MAX_WAIT: Duration = Duration::from_hours(6);
    let details = body.get("error").unwrap_or(body).get("details")?.as_array()?;
    details.iter().find_map(|detail| {
        let seconds = match detail.get("retryDelay")? {
            Value::String(text) => text.trim().trim_end_matches('s').parse::<f64>().ok()?,
            Value::Number(number) => number.as_f64()?,
            Value::Object(duration) => {
                let seconds = duration.get("seconds")?;
                seconds.as_f64().or_else(|| seconds.as_str()?.parse().ok())?
            }
            _ => return None,
        };
        (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::Verdict;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            cut: false,
        }
    }

    fn message(body: &str) -> String {
        match refusal(&answer(400, body)) {
            Failure::Status { message, .. } => message.unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_of_an_error_are_found_wherever_they_are() {
        for body in [
            r#"{"error":{"message":"no such batch","type":"invalid_request_error","param":null,"code":null}}"#,
            r#"{"type":"error","error":{"type":"not_found_error","message":"no such batch"},"request_id":"req_1"}"#,
            r#"{"error":{"code":404,"message":"no such batch","status":"NOT_FOUND"}}"#,
            r#"[{"error":{"code":404,"message":"no such batch","status":"NOT_FOUND"}}]"#,
            r#"{"object":"error","message":"no such batch","type":"not_found","param":null,"code":"1"}"#,
            r#"{"object":"error","message":{"detail":[{"msg":"no such batch"}]},"type":"x"}"#,
            r#"{"message":"no such batch","request_id":"r"}"#,
            r#"{"detail":"no such batch"}"#,
            r#"{"detail":{"message":"no such batch"}}"#,
            r#"{"error":"no such batch"}"#,
            r#"{"error":{"error":{"message":"no such batch"}}}"#,
            r#"{"errors":["no such batch"]}"#,
            r#"{"title":"no such batch","status":404}"#,
            r#""no such batch""#,
            "no such batch",
            "  no such\r\n\tbatch\u{7}\u{1b} ",
            "<html><head><title>no such batch</title></head><body><h1>404</h1></body></html>",
            "<p>no such <b>batch</b></p>",
        ] {
            assert_eq!(message(body), "no such batch", "{body}");
        }
        assert_eq!(
            message(
                r#"{"detail":[{"loc":["path","job_id",0],"msg":"not a valid uuid","type":"uuid_parsing"}]}"#
            ),
            "path.job_id.0: not a valid uuid"
        );
        assert_eq!(message(r#"{"error":{"type":"overloaded_error","message":""}}"#), "overloaded_error");
        assert_eq!(message(""), "");
        assert_eq!(message(r#"{"ok":false}"#), r#"{"ok":false}"#);
    }

    #[test]
    fn a_redirect_names_the_host_and_is_tried_again() {
        for (location, told) in [
            ("https://elsewhere.example.com/v1/batches?token=secret", "to elsewhere.example.com, and no key"),
            ("/login", "it redirects, and no key"),
        ] {
            for status in [301, 302, 307, 308] {
                let mut redirect = answer(status, "<html>moved</html>");
                redirect.headers.insert("location", HeaderValue::from_static(location));
                let failure = object(&redirect).unwrap_err();
                let text = failure.to_string();
                assert!(text.contains(told) && !text.contains("secret"), "{text}");
                assert_eq!(failure.verdict(), Verdict::Again);
                assert!(!failure.may_have_arrived());
            }
        }
    }

    #[test]
    fn an_error_with_a_broken_part_still_tells_its_words() {
        for body in [
            "\u{feff}{\"error\":{\"message\":\"no such batch\"}}",
            r#"{"error":{"message":"no such batch","param":\ud83d}}"#,
            r#"{"error":{"code":NaN,"message":"no such batch"}}"#,
            r#"{"error":nope,"message":"no such batch"}"#,
        ] {
            assert_eq!(message(body), "no such batch", "{body}");
        }
        assert_eq!(message(r#"{"error":{"message":"no \ud83d batch"}}"#), "no \u{fffd} batch");
    }

    #[test]
    fn one_broken_item_costs_a_page_that_item() {
        let page = r#"{"data":[{"id":"a"},nope,{"id":"c","note":"\q"},{"id":"d","note":"\ud83d"}],"has_more":false}"#;
        let (items, around) = list(&answer(200, page), "data").unwrap();
        let ids: Vec<_> = items.iter().filter_map(|item| item.get("id")?.as_str()).collect();
        assert_eq!(ids, ["a", "c", "d"]);
        assert_eq!(around["has_more"], false);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = message(&"é\u{0}x ".repeat(2000));
        assert_eq!(cut.chars().count(), LONGEST_MESSAGE);
        assert!(cut.ends_with('…') && !cut.contains(char::is_control));
        assert_eq!(message(&"x".repeat(LONGEST_MESSAGE)).len(), LONGEST_MESSAGE);
    }

    #[test]
    fn google_tells_in_the_body_when_to_come_back() {
        let after = |body: &str| match refusal(&answer(429, body)) {
            Failure::Status { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        let info = |delay: &str| {
            format!(
                r#"{{"error":{{"code":429,"message":"m","details":[{{"@type":"x"}},
                {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":{delay}}}]}}}}"#
            )
        };
        assert_eq!(after(&info(r#""23s""#)), Some(Duration::from_secs(23)));
        assert_eq!(after(&info(r#""0.5s""#)), Some(Duration::from_millis(500)));
        assert_eq!(after(&info(r#"{"seconds":"23"}"#)), Some(Duration::from_secs(23)));
        assert_eq!(after(&format!("[{}]", info("23"))), Some(Duration::from_secs(23)));
        assert_eq!(after(&info(r#""-1s""#)), None);
        assert_eq!(after(&info(r#""soon""#)), None);
        assert_eq!(after(&info(r#""999999999s""#)), Some(Duration::from_hours(6)));
        let mut both = answer(429, &info(r#""23s""#));
        both.headers.insert("retry-after", HeaderValue::from_static("7"));
        let Failure::Status { retry_after, .. } = refusal(&both) else { panic!() };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn google_refuses_a_key_with_another_status() {
        let body = r#"{"error":{"code":400,"message":"m","details":[{"reason":"API_KEY_INVALID"}]}}"#;
        assert_eq!(refusal(&answer(400, body)).verdict(), Verdict::Refused);
        assert_eq!(
            refusal(&answer(400, r#"{"error":{"code":400,"message":"m"}}"#)).verdict(),
            Verdict::Again
        );
    }

    #[test]
    fn an_object_may_be_wrapped() {
        for body in [
            r#"{"id":"b"}"#,
            r#"[{"id":"b"}]"#,
            r#"{"batch":{"id":"b"}}"#,
            r#"{"job":{"id":"b"}}"#,
            r#"{"object":"list","data":[{"id":"b"}]}"#,
        ] {
            assert_eq!(object(&answer(200, body)).unwrap()["id"], "b", "{body}");
        }
    }

    #[test]
    fn what_is_plainly_something_else_is_no_batch() {
        for body in [
            "",
            " \n",
            "<html></html>",
            "{",
            "null",
            "[]",
            "[1,2]",
            "\"completed\"",
            r#"{"error":{"message":"no such batch"}}"#,
            r#"[{"error":{"message":"no such batch"}}]"#,
            r#"{"type":"error","error":{"type":"x","message":"no"}}"#,
            r#"{"object":"error","message":"no"}"#,
        ] {
            assert!(matches!(object(&answer(200, body)), Err(Failure::Malformed(_))), "{body}");
        }
        let told = object(&answer(200, r#"{"error":{"message":"no such batch"}}"#)).unwrap_err().to_string();
        assert_eq!(told, "the answer makes no sense: it is an error: no such batch");
        let half = Answer { cut: true, ..answer(200, r#"{"id":"b"}"#) };
        assert!(matches!(object(&half), Err(Failure::TooLarge(_))));
        assert!(matches!(object(&answer(302, "")), Err(Failure::Status { .. })));
    }

    #[test]
    fn an_empty_list_has_many_forms() {
        let items = |body: &str| list(&answer(200, body), "data").map(|(items, _)| items.len());
        for body in ["{}", "[]", r#"{"data":[]}"#, r#"{"data":null}"#, r#"{"object":"list"}"#] {
            assert_eq!(items(body), Ok(0), "{body}");
        }
        assert_eq!(items(r#"[{"id":"b"}]"#), Ok(1));
        for bad in [r#"{"error":"no"}"#, r#"{"data":{}}"#, "5", r#"{"id":"b"}"#] {
            assert!(matches!(items(bad), Err(Failure::Malformed(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..400), page in "<[a-zé<>/ ]{0,80}") {
            for bytes in [body, page.into_bytes()] {
                let answer = Answer { body: bytes.into(), ..answer(500, "") };
                let Failure::Status { message, .. } = refusal(&answer) else { panic!() };
                let message = message.unwrap_or_default();
                prop_assert!(message.chars().count() <= LONGEST_MESSAGE);
                prop_assert!(!message.contains(char::is_control));
                let _ = object(&answer);
                let _ = list(&answer, "data");
            }
        }
    }

    #[test]
    fn a_list_that_is_left_out_is_empty_wherever_more_may_follow() {
        for around in [
            r#"{"nextPageToken":"t1"}"#,
            r#"{"next_page_token":"t1"}"#,
            r#"{"nextToken":"t1"}"#,
            r#"{"pagination_token":"t1"}"#,
            r#"{"has_more":true,"last_id":"b"}"#,
            r#"{"total":0}"#,
        ] {
            assert_eq!(list(&answer(200, around), "data").unwrap().0, Vec::<Value>::new(), "{around}");
        }
        let error = r#"{"error":{"message":"down"},"has_more":false}"#;
        assert!(matches!(list(&answer(200, error), "data"), Err(Failure::Malformed(_))));
        assert!(matches!(list(&answer(200, r#"{"hello":"world"}"#), "data"), Err(Failure::Malformed(_))));
    }
}
