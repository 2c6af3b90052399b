//! Slack's incoming webhooks: one coloured attachment of blocks, and Slack's own words for what went wrong
//! (`delivery.md` §3.3).

use super::message::Message;
use super::text::{cut, instant, utf16};
use super::{BadTarget, EventBody, Judgement, Kind, Target, Webhook};
use crate::config::WebhookFacts;
use crate::domain::outcome::Severity;
use crate::http::address::Address;
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::{Failure, status_line};
use crate::http::limits;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// `kind = "slack"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "slack",
        signs: false,
        severity: Severity::Info,
        findings: true,
        options: &[],
    },
    build: |target| Ok(Box::new(Slack::new(target)?)),
};

/// One channel's incoming webhook.
#[derive(Debug)]
struct Slack {
    address: Address,
    timeout: Duration,
}

impl Slack {
    fn new(target: &Target) -> Result<Self, BadTarget> {
        Ok(Self { address: Address::parse(&target.url)?, timeout: target.timeout })
    }
}

impl Webhook for Slack {
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure> {
        let message = Message::from_event(event.body, now)?;
        let payload = if plain { as_text(&message) } else { as_blocks(&message) };
        let mut request = Request::post(self.address.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(authorization) = &self.address.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Bytes::from(payload.to_string()))
            .map_err(|_| Failure::BadRequest("the request cannot be put together".to_owned()))?;
        Ok(Call { request, timeout: self.timeout, body_limit: BodyLimit::Beginning(limits::RECEIVER_BODY) })
    }

    fn judge(&self, answer: &Answer) -> Judgement {
        let body = String::from_utf8_lossy(&answer.body);
        let word = body.trim();
        if answer.status == StatusCode::OK && word == "ok" {
            return Judgement::Delivered;
        }
        let status = status_line(answer.status);
        if let Some(gone) = GONE.iter().find(|(known, _)| *known == word) {
            return Judgement::Gone(format!("{status}: {word}: {}", gone.1));
        }
        if TOO_RICH.contains(&word) {
            return Judgement::Simplify(format!("{status}: {word}"));
        }
        match Judgement::of_status(answer) {
            // Slack also says it in the body.
            Judgement::Snooze(None) => Judgement::Snooze(wish(word)),
            // Whether it was posted cannot be known: rather twice than never.
            Judgement::Trouble(_) if answer.status.is_success() => Judgement::Trouble(if answer.cut {
                format!("{status}: the answer did not end in time")
            } else {
                format!("{status}: the answer is not `ok`; is this the URL of an incoming webhook?")
            }),
            other => other,
        }
    }

    fn concurrency(&self) -> usize {
        1
    }
}

/// What Slack says of a hook that will never work again, and what to do.
const GONE: [(&str, &str); 10] = [
    ("no_service", "the webhook was removed or its app is gone; make a new one and configure its URL"),
    ("no_active_hooks", "the webhook is disabled; make a new one and configure its URL"),
    ("invalid_token", "the webhook's token is not valid; copy its URL again"),
    ("no_team", "the workspace is gone; configure another webhook"),
    ("team_disabled", "the workspace is disabled; configure another webhook"),
    ("channel_not_found", "the channel is gone; make a webhook for another one"),
    ("channel_is_archived", "the channel is archived; unarchive it or make a webhook for another one"),
    ("action_prohibited", "an administrator forbids posting; ask them"),
    ("posting_to_general_channel_denied", "posting to #general is forbidden; use another channel"),
    ("user_not_found", "the user who is written to is gone; make a webhook for somebody else"),
];

/// What Slack says of a message whose form it does not take.
const TOO_RICH: [&str; 7] = [
    "invalid_payload",
    "no_text",
    "too_many_attachments",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
    "msg_blocks_too_long",
];

/// `{"ok":false,"error":"rate_limited","retry_after":1}`
fn wish(body: &str) -> Option<Duration> {
    let body: Value = serde_json::from_str(body).ok()?;
    let seconds = body["retry_after"].as_f64().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds.ceil().min(6.0 * 3600.0)).ok()
}

/// Of a header's text.
const HEADER: usize = 150;
/// Of a field's text; Slack allows 2,000.
const FIELD: usize = 1000;
/// Fields of a section.
const FIELDS: usize = 10;
/// Of a section's text; Slack allows 3,000.
const SECTION: usize = 2900;
/// Of a message without blocks; Slack cuts at 40,000.
const TEXT: usize = 4000;

fn as_blocks(message: &Message) -> Value {
    let mut blocks = vec![json!({
        "type": "header",
        "text": {"type": "plain_text", "emoji": true, "text": escaped(&message.title, HEADER)},
    })];
    let fields: Vec<Value> = message
        .facts
        .iter()
        .take(FIELDS)
        .map(|fact| {
            let value = if matches!(fact.name, "Model" | "Batch") {
                code(&fact.value)
            } else {
                escaped(&fact.value, FIELD)
            };
            mrkdwn(&format!("*{}*\n{value}", fact.name))
        })
        .collect();
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    if !message.errors.is_empty() {
        let text = format!("*Errors*\n{}", bullets(&message.errors));
        blocks.push(json!({"type": "section", "text": mrkdwn(&text)}));
    }
    let mut context: Vec<Value> = message.notes.iter().map(|note| mrkdwn(&escaped(note, FIELD))).collect();
    context.extend(footer(message).map(|footer| mrkdwn(&footer)));
    if !context.is_empty() {
        blocks.push(json!({"type": "context", "elements": context}));
    }
    json!({
        "text": escaped(&message.line, TEXT),
        "unfurl_links": false,
        "unfurl_media": false,
        "attachments": [{"color": message.tone.colour(), "blocks": blocks}],
    })
}

/// The plainest form that tells it.
fn as_text(message: &Message) -> Value {
    let mut lines = vec![escaped(&message.title, HEADER), escaped(&message.line, FIELD)];
    lines.extend(message.facts.iter().map(|fact| format!("{}: {}", fact.name, escaped(&fact.value, FIELD))));
    if !message.errors.is_empty() {
        lines.push(bullets(&message.errors));
    }
    lines.extend(message.notes.iter().map(|note| escaped(note, FIELD)));
    lines.extend(footer(message));
    // Cut by lines: a cut inside an entity or a link would show.
    let mut text = String::new();
    for line in lines {
        if utf16(&text) + utf16(&line) >= TEXT {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    json!({"text": text.trim_end(), "unfurl_links": false, "unfurl_media": false})
}

/// Link and time: a link, not a button, because a button asks Slack for an app that answers.
fn footer(message: &Message) -> Option<String> {
    let link = message.link.as_ref().map(|link| {
        let url = escaped(&link.url.replace('|', "%7C"), usize::MAX);
        format!("<{url}|{}>", escaped(&link.text.replace('|', "/"), FIELD))
    });
    let at = message
        .at
        .map(|at| format!("<!date^{}^{{date_short_pretty}} {{time}}|{}>", at.as_second(), instant(at)));
    let parts: Vec<String> = [link, at].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// Text of ours with markup; what came from outside is escaped already, and nothing in it becomes a mention.
fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "verbatim": true, "text": text})
}

fn bullets(lines: &[String]) -> String {
    let most = SECTION / lines.len().max(1);
    let lines: Vec<String> = lines.iter().map(|line| format!("• {}", escaped(line, most - 10))).collect();
    lines.join("\n")
}

fn code(text: &str) -> String {
    format!("`{}`", escaped(&text.replace('`', "'"), FIELD))
}

/// `text` cut so that it has at most `most` units once `&`, `<` and `>` are escaped, and escaped.
fn escaped(text: &str, most: usize) -> String {
    let cost: fn(&str) -> usize = |piece| {
        let more: usize =
            piece.bytes().map(|byte| entity(byte as char).map_or(0, |entity| entity.len() - 1)).sum();
        utf16(piece) + more
    };
    let mut escaped = String::with_capacity(text.len());
    for c in cut(text, most, cost).chars() {
        match entity(c) {
            Some(entity) => escaped.push_str(entity),
            None => escaped.push(c),
        }
    }
    escaped
}

/// The only three characters that Slack's text is escaped for.
const fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::samples::{NOW, batch, reached, with_errors};
    use super::*;
    use crate::domain::status::Status;
    use http::HeaderMap;
    use proptest::prelude::*;
    use secrecy::SecretString;

    fn slack() -> Box<dyn Webhook> {
        (KIND.build)(&Target {
            url: SecretString::from("https://hooks.slack.com/services/T000/B000/abcdefghijkl"),
            secrets: Vec::new(),
            timeout: Duration::from_secs(15),
        })
        .unwrap()
    }

    fn payload(body: &str, plain: bool) -> Value {
        let call = slack().render(&EventBody { id: "evt_1", body }, plain, NOW).unwrap();
        assert_eq!(call.request.headers()["content-type"], "application/json; charset=utf-8");
        serde_json::from_slice(call.request.body()).unwrap()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            cut: false,
        }
    }

    #[test]
    fn a_message_in_full() {
        let tracked = with_errors(
            batch(Status::Completed, Some((10_000, 9_872, 128))),
            &[("context_length_exceeded", "prompt > limit"), ("invalid_request_error", "`x` & <y>")],
        );
        insta::assert_json_snapshot!(payload(&reached(&tracked), false));
        insta::assert_json_snapshot!(payload(&reached(&tracked), true));
    }

    #[test]
    fn h1_only_200_with_ok_is_success() {
        let judge = |status, body: &str| slack().judge(&answer(status, body));
        assert_eq!(judge(200, "ok"), Judgement::Delivered);
        assert_eq!(judge(200, "ok\n"), Judgement::Delivered);
        assert!(matches!(judge(200, ""), Judgement::Trouble(_)));
        assert!(matches!(judge(200, "<html>welcome to the guest network</html>"), Judgement::Trouble(_)));
        assert!(matches!(judge(202, "ok"), Judgement::Trouble(_)));
        assert!(matches!(judge(200, "no_service"), Judgement::Gone(_)));
        assert!(matches!(judge(200, "invalid_blocks"), Judgement::Simplify(_)));
        let stalled = Answer { cut: true, ..answer(200, "") };
        assert!(matches!(slack().judge(&stalled), Judgement::Trouble(_)), "B15: ambiguous, so again");
    }

    #[test]
    fn h2_a_dead_hook_is_switched_off_with_words_for_people() {
        for (status, word) in [
            (404, "no_service"),
            (403, "invalid_token"),
            (403, "action_prohibited"),
            (404, "channel_not_found"),
            (410, "channel_is_archived"),
            (404, "no_team"),
            (403, "team_disabled"),
            (400, "user_not_found"),
        ] {
            let Judgement::Gone(reason) = slack().judge(&answer(status, word)) else { panic!("{word}") };
            assert!(reason.contains(word) && reason.contains(';'), "{reason}");
        }
        assert!(matches!(slack().judge(&answer(404, "nginx")), Judgement::Refused(_)));
    }

    #[test]
    fn h3_a_form_that_is_refused_is_asked_for_in_plain() {
        for word in TOO_RICH {
            assert!(matches!(slack().judge(&answer(400, word)), Judgement::Simplify(_)), "{word}");
        }
        assert!(matches!(slack().judge(&answer(400, "something_else")), Judgement::Refused(_)));
        let plain = payload(&reached(&batch(Status::Completed, Some((1, 1, 0)))), true);
        assert!(plain.get("attachments").is_none() && plain.get("blocks").is_none());
        assert!(plain["text"].as_str().unwrap().contains("nightly-eval completed"));
    }

    #[test]
    fn h4_a_limit_is_heeded_wherever_it_is_said() {
        let mut limited = answer(429, r#"{"ok":false,"error":"rate_limited","retry_after":3}"#);
        assert_eq!(slack().judge(&limited), Judgement::Snooze(Some(Duration::from_secs(3))));
        limited.headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(slack().judge(&limited), Judgement::Snooze(Some(Duration::from_secs(7))));
        assert_eq!(slack().judge(&answer(429, "slow down")), Judgement::Snooze(None));
        assert!(matches!(slack().judge(&answer(500, "rollup_error")), Judgement::Trouble(_)));
        assert_eq!(slack().concurrency(), 1);
    }

    #[test]
    fn g11_nobody_is_mentioned_by_a_name() {
        let mut tracked = batch(Status::Completed, Some((1, 1, 0)));
        tracked.name = Some("<!channel> & <@U123|x>".to_owned());
        tracked.console_url = Some("https://example.com/a|b?x=<y>&z".to_owned());
        for plain in [false, true] {
            let text = payload(&reached(&tracked), plain).to_string();
            assert!(!text.contains("<!channel") && !text.contains("<@"), "{text}");
            assert!(text.contains("&lt;!channel&gt; &amp; &lt;@U123|x&gt;"), "{text}");
            assert!(text.contains("<https://example.com/a%7Cb?x=&lt;y&gt;&amp;z|Open in openai>"), "{text}");
        }
    }

    /// Slack refuses a whole message for one text that is too long.
    fn check_limits(payload: &Value) {
        assert!(utf16(payload["text"].as_str().unwrap()) <= 40_000);
        let blocks = payload["attachments"][0]["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        for block in blocks {
            let long = |value: &Value| utf16(value["text"].as_str().unwrap());
            match block["type"].as_str().unwrap() {
                "header" => assert!((1..=150).contains(&long(&block["text"]))),
                "section" => {
                    for field in block["fields"].as_array().into_iter().flatten() {
                        assert!(long(field) <= 2000);
                    }
                    assert!(block["fields"].as_array().is_none_or(|fields| fields.len() <= 10));
                    assert!(block.get("text").is_none_or(|text| long(text) <= 3000));
                }
                "context" => assert!(block["elements"].as_array().unwrap().len() <= 10),
                other => panic!("{other}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_batch_breaks_a_limit(
            name in "(\\PC|[&<>`|]){0,300}", model in "(\\PC|[&<>]){0,3000}", error in "(\\PC|[&<>]){0,3000}",
        ) {
            let mut tracked = with_errors(
                batch(Status::Failed, Some((10, 5, 5))),
                &[("a", &error), ("b", &error), ("c", &error), ("d", &error)],
            );
            tracked.name = Some(name);
            tracked.batch.model = Some(model);
            check_limits(&payload(&reached(&tracked), false));
            let plain = payload(&reached(&tracked), true);
            prop_assert!(utf16(plain["text"].as_str().unwrap()) <= 4000);
        }
    }
}
