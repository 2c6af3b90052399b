//! Whether a service refuses a batch because the account has enough waiting already, and how much it allows: read from
//! whatever form of error it has (`docs/providers.md#quotas`).

use crate::domain::batch::BatchErrors;
use crate::http::failure::Quota;
use http::StatusCode;
use serde_json::{Value, json};

/// What `body`, and the `code` that stands beside it at some services, say of a quota that is used up; `None`: the refusal
/// is not for that, or waiting would not help.
pub(super) fn quota(status: StatusCode, code: Option<&str>, body: &Value) -> Option<Quota> {
    let mut said = Said { codes: code.map(plain).into_iter().collect(), ..Said::default() };
    said.read(body, 0);
    let text = said.text.to_lowercase();
    let is_paid_for = |code: &String| UNPAID.iter().any(|word| code.contains(word));
    if status == StatusCode::PAYMENT_REQUIRED || said.codes.iter().any(is_paid_for) {
        return None;
    }
    let by_code = said.codes.iter().any(|code| CODES.iter().any(|word| code.contains(word)));
    let may_be = matches!(status.as_u16(), 400 | 409 | 422 | 429);
    let by_text = may_be && is_about_a_quota(&text);
    // 403 is for keys and permissions, and a server's own trouble is none of the account's, unless a code says so.
    if !(by_code && (may_be || status == StatusCode::FORBIDDEN) || by_text) {
        return None;
    }
    let numbers = numbers(&text);
    let find =
        |words: &[&str]| numbers.iter().find(|number| number.is_behind(words)).map(|found| found.value);
    let (used, limit) = ratio(&text).unzip();
    Some(Quota {
        limit: said.limit.or_else(|| find(&LIMIT_WORDS)).or(limit),
        usage: said.usage.or_else(|| find(&USAGE_WORDS)).or(used),
    })
}

/// The same of a batch that was taken and failed afterwards.
pub fn of_batch(errors: &BatchErrors) -> Option<Quota> {
    errors.data.iter().find_map(|error| {
        let body = json!({"code": error.code, "message": error.message});
        quota(StatusCode::BAD_REQUEST, None, &body)
    })
}

/// Codes of a quota that others have to leave room in, without what is no letter or digit.
const CODES: [&str; 14] = [
    "tokenlimitexceeded",
    "tokenlimitreached",
    "enqueuedtoken",
    "batchlimit",
    "toomanybatches",
    "toomanyjobs",
    "toomanyconcurrent",
    "quotaexceeded",
    "exceededquota",
    "joblimit",
    "limitexceededexception",
    "concurrencylimit",
    "maxbatches",
    "queuefull",
];

/// Codes of an account that has to be paid for first.
const UNPAID: [&str; 3] = ["insufficientquota", "billing", "insufficientcredits"];

/// Whether `text` speaks of how much may be waiting at a time, and not of how much may be in one file or one minute.
fn is_about_a_quota(text: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&[
        "per minute",
        "per second",
        "per file",
        "per job",
        "per batch",
        "file size",
        "in a batch",
        "in one batch",
    ]) {
        return false;
    }
    let over = has(&["limit", "exceed", "reached", "too many", "maximum", "at most", "no more than"]);
    let waiting = has(&[
        "enqueued",
        "in progress",
        "in-progress",
        "in flight",
        "in-flight",
        "concurrent",
        "processing queue",
        "queued",
        "pending",
        "running",
        "active batch",
        "active job",
        "unfinished",
    ]);
    let of_work = has(&["token", "batch", "job", "request"]);
    over && (waiting && of_work || text.contains("quota"))
        || has(&["too many batch", "too many active", "too many running", "too many open"])
}

/// What an error says, wherever it says it.
#[derive(Default)]
struct Said {
    codes: Vec<String>,
    text: String,
    limit: Option<u64>,
    usage: Option<u64>,
}

impl Said {
    fn read(&mut self, value: &Value, depth: usize) {
        /// Deeper than anybody nests an error.
        const DEEPEST: usize = 6;
        /// More than anybody says.
        const LONGEST: usize = 16 << 10;
        if depth > DEEPEST || self.text.len() > LONGEST {
            return;
        }
        match value {
            Value::String(text) => {
                self.text.push_str(text);
                self.text.push('\n');
            }
            Value::Array(items) => items.iter().for_each(|item| self.read(item, depth + 1)),
            Value::Object(object) => {
                for (key, value) in object {
                    let key = plain(key);
                    let number = || value.as_u64().or_else(|| number_in(value.as_str()?));
                    match key.as_str() {
                        "code" | "type" | "reason" | "errorcode" | "quotaid" | "errortype" => {
                            self.codes.extend(value.as_str().map(plain));
                        }
                        // Google has HTTP's 429 for whatever is used up, and says in a violation what it is.
                        "quotavalue" | "limit" | "quotalimit" | "maxlimit" | "enqueuedtokenlimit" => {
                            self.limit = self.limit.or_else(number);
                        }
                        "usage" | "used" | "current" | "currentusage" | "enqueuedtokens" => {
                            self.usage = self.usage.or_else(number);
                        }
                        "violations" => self.codes.push("quotaexceeded".to_owned()),
                        _ => {}
                    }
                    if !matches!(value, Value::Number(_)) {
                        self.read(value, depth + 1);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Letters and digits only, lower case.
fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// A number in a text, and the words before it.
struct Number<'t> {
    value: u64,
    before: &'t str,
}

impl Number<'_> {
    /// Whether one of `words` stands before it, with few other words between and no other number.
    fn is_behind(&self, words: &[&str]) -> bool {
        let near: Vec<&str> = self.before.split_whitespace().rev().take(4).collect();
        near.iter().any(|word| {
            let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            words.contains(&word)
        })
    }
}

const LIMIT_WORDS: [&str; 9] =
    ["limit", "limits", "maximum", "max", "quota", "most", "allowed", "cap", "exceed"];
const USAGE_WORDS: [&str; 10] =
    ["used", "usage", "current", "currently", "using", "have", "already", "has", "present", "inuse"];

/// The numbers of a text, in its order; each with what stands between it and the one before.
fn numbers(text: &str) -> Vec<Number<'_>> {
    let mut found = Vec::new();
    let mut begin = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_digit()
            && (at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || b"-_.".contains(&bytes[at - 1])));
        if !starts {
            at += 1;
            continue;
        }
        let end = bytes[at..]
            .iter()
            .position(|byte| !(byte.is_ascii_digit() || b",_".contains(byte)))
            .map_or(bytes.len(), |length| at + length);
        // A model's version or an id is no number.
        let goes_on = bytes.get(end).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
        if let Some(value) = number_in(&text[at..end]).filter(|_| !goes_on) {
            found.push(Number { value, before: &text[begin..at] });
            begin = end;
        }
        at = end;
    }
    found
}

/// `text` as a whole number, with or without marks between its thousands.
fn number_in(text: &str) -> Option<u64> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ',' | '_')).collect();
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// What is used of what there is, written `20/20` or `20 of 20`.
fn ratio(text: &str) -> Option<(u64, u64)> {
    let numbers = numbers(text);
    numbers
        .windows(2)
        .find(|pair| matches!(pair[1].before.trim_start_matches(',').trim(), "/" | "of" | "out of"))
        .map(|pair| (pair[0].value, pair[1].value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &Value) -> Option<(Option<u64>, Option<u64>)> {
        let found = quota(StatusCode::from_u16(status).unwrap(), None, body)?;
        Some((found.limit, found.usage))
    }

    #[test]
    fn each_services_form_is_read() {
        let openai = |code: &str, message: &str| json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}});
        for (status, body, told) in [
            (
                429,
                openai(
                    "token_limit_exceeded",
                    "Enqueued token limit reached for gpt-4o in organization org-AbC1. Limit: 90,000 enqueued tokens. Please try again once some in_progress batches have been completed.",
                ),
                (Some(90_000), None),
            ),
            (
                400,
                openai(
                    "rate_limit_exceeded",
                    "Rate limit reached for gpt-4o-mini-2024-07-18 in organization org-1 on enqueued tokens. Limit 2000000, Used 1900000, Requested 200000.",
                ),
                (Some(2_000_000), Some(1_900_000)),
            ),
            (
                429,
                json!({"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your organization's limit of 100,000 batch requests in the processing queue; you currently have 99,500."}}),
                (Some(100_000), Some(99_500)),
            ),
            (
                429,
                json!({"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [
                    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
                        {"quotaMetric": "generativelanguage.googleapis.com/batch_enqueued_tokens", "quotaId": "BatchEnqueuedTokensPerModel", "quotaValue": "3000000"}]},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}]}}),
                (Some(3_000_000), None),
            ),
            (
                400,
                json!({"__type": "ServiceQuotaExceededException", "message": "Your account has 20 of 20 in progress model invocation jobs."}),
                (Some(20), Some(20)),
            ),
            (
                422,
                json!({"detail": "Too many batches in flight for this model: 100/100"}),
                (Some(100), Some(100)),
            ),
            (
                429,
                json!({"object": "error", "message": "Too many active jobs", "type": "rate_limited"}),
                (None, None),
            ),
            (400, json!({"error": "batch limit reached: max 10 concurrent batches"}), (Some(10), None)),
            (
                429,
                json!({"error": {"message": "no room", "code": "batch_limit_exceeded", "limit": 5, "current": 5}}),
                (Some(5), Some(5)),
            ),
        ] {
            assert_eq!(read(status, &body), Some(told), "{body}");
        }
    }

    #[test]
    fn the_kind_of_an_error_may_stand_beside_its_body() {
        let code = Some("ServiceQuotaExceededException:http://internal.amazon.com/coral/");
        let body = json!({"message": "no more jobs"});
        assert_eq!(quota(StatusCode::BAD_REQUEST, code, &body), Some(Quota::default()));
        assert_eq!(quota(StatusCode::BAD_REQUEST, None, &body), None);
    }

    #[test]
    fn what_waiting_does_not_help_is_no_quota() {
        let openai = |code: &str, message: &str| json!({"error": {"message": message, "code": code}});
        for (status, body) in [
            (
                429,
                openai(
                    "insufficient_quota",
                    "You exceeded your current quota, please check your plan and billing details.",
                ),
            ),
            (400, openai("too_many_tasks", "A batch may have 50000 requests; the file exceeds that.")),
            (400, openai("invalid_value", "The file exceeds the limit of 200 MB.")),
            (400, json!({"message": "The number of records exceeds the quota of 50,000 records per job"})),
            (401, openai("invalid_api_key", "Incorrect API key; quota unknown")),
            (403, openai("forbidden", "no permission; concurrent batches exceed")),
            (429, openai("rate_limit_exceeded", "Rate limit reached: 60 requests per minute, limit 60.")),
            (500, openai("server_error", "quota service exceeded its time")),
        ] {
            assert_eq!(read(status, &body), None, "{body}");
        }
    }
}
