//! Slack's incoming webhooks: one coloured attachment of blocks, and Slack's own words for what went wrong
//! (`docs/webhooks/slack.md`).

use super::chat::{CHAT, Channel, Chat};
use super::escape::SLACK;
#[cfg(test)]
use super::expected::{Expected, Meaning, length, list};
use super::message::{List, Message};
use super::text::{cut, instant, utf16};
use super::{DeliveryOutcome, Kind, answered};
use crate::config::WebhookFacts;
use crate::http::call::Answer;
use crate::http::failure::status_line;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// `kind = "slack"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts { name: "slack", hosts: &["slack.com", "slack-gov.com"], ..CHAT },
    build: |target| {
        let channel = Channel {
            escape: SLACK,
            call: |post, message, _, plain| post.json(&payload(message, plain)),
            outcome,
        };
        Chat::build(target, channel)
    },
    #[cfg(test)]
    expected: &EXPECTED,
};

/// What the answer means.
fn outcome(answer: &Answer) -> DeliveryOutcome {
    let body = String::from_utf8_lossy(&answer.body);
    // Servers that imitate Slack often answer in JSON, as Slack's other interfaces do.
    if answer.status == StatusCode::OK && (body.trim() == "ok" || answered::says_accepted(answer)) {
        return DeliveryOutcome::Delivered;
    }
    let json = answered::json(answer);
    let word = json["error"].as_str().unwrap_or(body.trim());
    let status = status_line(answer.status);
    if let Some(gone) = GONE.iter().find(|(known, _)| *known == word) {
        return DeliveryOutcome::Gone(format!("{status}: {word}: {}", gone.1));
    }
    if TOO_RICH.contains(&word) {
        return DeliveryOutcome::Simplify(format!("{status}: {word}"));
    }
    match DeliveryOutcome::of_status(answer) {
        // Slack also says it in the body.
        DeliveryOutcome::Snooze(None) => DeliveryOutcome::Snooze(retry_after(&body)),
        // Whether it was posted cannot be known: rather twice than never.
        DeliveryOutcome::Trouble(_) if answer.status.is_success() => {
            DeliveryOutcome::Trouble(if answer.cut {
                format!("{status}: the answer did not end in time")
            } else {
                format!("{status}: the answer is not `ok`; is this the URL of an incoming webhook?")
            })
        }
        other => other,
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
fn retry_after(body: &str) -> Option<Duration> {
    let body: Value = serde_json::from_str(body).ok()?;
    let seconds = body["retry_after"].as_f64().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds.ceil().min(6.0 * 3600.0)).ok()
}

const HEADER: usize = 150;
/// Of a field's text; Slack allows 2,000.
const FIELD: usize = 1000;
const FIELDS: usize = 10;
/// Of a section's text; Slack allows 3,000.
const SECTION: usize = 2900;
const ELEMENTS: usize = 10;
/// Of a list, which is spread over sections.
const LIST: usize = 8000;
/// Of a message without blocks; Slack cuts at 40,000.
const TEXT: usize = 4000;

fn payload(message: &Message, plain: bool) -> Value {
    match &message.text {
        Some(text) => {
            json!({"text": cut(text, TEMPLATE_TEXT, utf16), "unfurl_links": false, "unfurl_media": false})
        }
        None if plain => as_text(message),
        None => as_blocks(message),
    }
}

fn as_blocks(message: &Message) -> Value {
    let header = SLACK.fit(&message.headline(), HEADER);
    let mut blocks =
        vec![json!({"type": "header", "text": {"type": "plain_text", "emoji": true, "text": header}})];
    let fields: Vec<Value> = message
        .facts
        .iter()
        .take(FIELDS)
        .map(|fact| {
            let value = if matches!(fact.name, "Model" | "Batch") {
                code(&fact.value)
            } else {
                SLACK.fit(&fact.value, FIELD)
            };
            mrkdwn(&format!("*{}*\n{value}", fact.name))
        })
        .collect();
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    if !message.errors.is_empty() {
        blocks.push(section(&format!("*Errors*\n{}", bullets(&message.errors))));
    }
    for list in &message.lists {
        let title = list.title().map(|title| format!("*{title}*"));
        let mut lines: VecDeque<String> = title.into_iter().chain(entries(list)).collect();
        while !lines.is_empty() {
            let text = SLACK.join(lines.iter().cloned(), SECTION);
            lines.drain(..(text.matches('\n').count() + 1).min(lines.len()));
            blocks.push(section(&text));
        }
    }
    let mut context: Vec<Value> =
        message.notes.iter().map(|note| mrkdwn(&SLACK.fit(note, FIELD))).take(ELEMENTS - 1).collect();
    context.extend(footer(message).map(|footer| mrkdwn(&footer)));
    if !context.is_empty() {
        blocks.push(json!({"type": "context", "elements": context}));
    }
    json!({
        "text": SLACK.fit(&message.line, TEXT),
        "unfurl_links": false,
        "unfurl_media": false,
        "attachments": [{"color": message.tone.web_colour(), "blocks": blocks}],
    })
}

/// The plainest form that tells it.
fn as_text(message: &Message) -> Value {
    let lines = Message { link: None, ..message.clone() }.lines();
    let lines = lines.iter().map(|line| SLACK.fit(line, FIELD)).chain(footer(message));
    json!({"text": SLACK.join(lines, TEXT), "unfurl_links": false, "unfurl_media": false})
}

/// A line for each entry, its text a link where there is one.
fn entries(list: &List) -> Vec<String> {
    list.lines(LIST, utf16, |entry| {
        let text = SLACK.fit(&entry.text.replace('|', "/"), FIELD);
        match &entry.url {
            Some(url) => format!("{} {}", entry.tone.icon(), link(url, &text)),
            None => format!("{} {text}", entry.tone.icon()),
        }
    })
}

/// Link and time: a link, not a button, because a button asks Slack for an app that answers.
fn footer(message: &Message) -> Option<String> {
    let link = message.link.as_ref().map(|at| link(&at.url, &SLACK.fit(&at.text.replace('|', "/"), FIELD)));
    let at = message
        .at
        .map(|at| format!("<!date^{}^{{date_short_pretty}} {{time}}|{}>", at.as_second(), instant(at)));
    let parts: Vec<String> = [link, at].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

fn link(url: &str, text: &str) -> String {
    format!("<{}|{text}>", SLACK.all(&url.replace('|', "%7C")))
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": mrkdwn(text)})
}

/// Text of ours with markup; what came from outside is escaped already, and nothing in it becomes a mention.
fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "verbatim": true, "text": text})
}

fn bullets(lines: &[String]) -> String {
    let most = SECTION / lines.len().max(1);
    let lines: Vec<String> = lines.iter().map(|line| format!("• {}", SLACK.fit(line, most - 10))).collect();
    lines.join("\n")
}

fn code(text: &str) -> String {
    format!("`{}`", SLACK.fit(&text.replace('`', "'"), FIELD))
}

/// Of a message that a template made.
const TEMPLATE_TEXT: usize = 40_000;

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, "ok", Meaning::Delivered),
        (200, r#"{"success":true}"#, Meaning::Delivered),
        (200, r#"{"success":false}"#, Meaning::Trouble),
        (200, "welcome", Meaning::Trouble),
        (204, "", Meaning::Trouble),
        (400, "invalid_blocks", Meaning::Simplify),
        (403, "action_prohibited", Meaning::Gone),
        (404, "no_service", Meaning::Gone),
        (429, "", Meaning::Snooze(None)),
        (500, "rollup_error", Meaning::Trouble),
    ],
    limits: |payload| {
        assert!(length(payload, "/text") <= 40_000);
        let blocks = list(payload, "/attachments/0/blocks");
        assert!(blocks.len() <= 50);
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "header" => assert!((1..=150).contains(&length(block, "/text/text"))),
                "section" => {
                    let fields = list(block, "/fields");
                    assert!(fields.len() <= 10 && fields.iter().all(|field| length(field, "/text") <= 2000));
                    assert!(length(block, "/text/text") <= 3000);
                }
                "context" => assert!(list(block, "/elements").len() <= 10),
                other => panic!("{other}"),
            }
        }
    },
    forbidden: |_, _| &["<!channel", "<users", "</b>"],
    ..Expected::CHANNEL
};

#[cfg(test)]
mod tests {
    use super::super::samples::{NOW, batch, reached, with_errors};
    use super::super::{EventBody, Target, Webhook};
    use super::*;
    use crate::domain::status::Status;
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn slack() -> Box<dyn Webhook> {
        (KIND.build)(&Target::new("ops", "https://hooks.slack.com/services/T000/B000/abcdefghijkl")).unwrap()
    }

    fn sent(body: &str, plain: bool) -> Value {
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
        insta::assert_json_snapshot!(sent(&reached(&tracked), false));
        insta::assert_json_snapshot!(sent(&reached(&tracked), true));
    }

    #[test]
    fn h1_only_200_with_ok_is_success() {
        let outcome = |status, body: &str| slack().outcome(&answer(status, body));
        assert_eq!(outcome(200, "ok"), DeliveryOutcome::Delivered);
        assert_eq!(outcome(200, "ok\n"), DeliveryOutcome::Delivered);
        for imitation in [
            r#"{"ok":true}"#,
            r#"{"success":true}"#,
            r#"{"result":"success","msg":""}"#,
            r#"{"status":"ok"}"#,
        ] {
            assert_eq!(outcome(200, imitation), DeliveryOutcome::Delivered, "{imitation}");
        }
        for refusal in [r#"{"ok":false}"#, r#"{"success":false,"status":"ok"}"#, r#"{"id":1}"#, "[true]"] {
            assert!(matches!(outcome(200, refusal), DeliveryOutcome::Trouble(_)), "{refusal}");
        }
        let gone = outcome(200, r#"{"ok":false,"error":"no_service"}"#);
        assert!(matches!(gone, DeliveryOutcome::Gone(_)), "{gone:?}");
        assert!(matches!(outcome(200, ""), DeliveryOutcome::Trouble(_)));
        assert!(matches!(
            outcome(200, "<html>welcome to the guest network</html>"),
            DeliveryOutcome::Trouble(_)
        ));
        assert!(matches!(outcome(202, "ok"), DeliveryOutcome::Trouble(_)));
        assert!(matches!(outcome(200, "no_service"), DeliveryOutcome::Gone(_)));
        assert!(matches!(outcome(200, "invalid_blocks"), DeliveryOutcome::Simplify(_)));
        let stalled = Answer { cut: true, ..answer(200, "") };
        assert!(matches!(slack().outcome(&stalled), DeliveryOutcome::Trouble(_)), "B15: ambiguous, so again");
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
            let DeliveryOutcome::Gone(reason) = slack().outcome(&answer(status, word)) else {
                panic!("{word}")
            };
            assert!(reason.contains(word) && reason.contains(';'), "{reason}");
        }
        assert!(matches!(slack().outcome(&answer(404, "nginx")), DeliveryOutcome::Refused(_)));
    }

    #[test]
    fn h3_a_form_that_is_refused_is_asked_for_in_plain() {
        for word in TOO_RICH {
            assert!(matches!(slack().outcome(&answer(400, word)), DeliveryOutcome::Simplify(_)), "{word}");
        }
        assert!(matches!(slack().outcome(&answer(400, "something_else")), DeliveryOutcome::Refused(_)));
        let plain = sent(&reached(&batch(Status::Completed, Some((1, 1, 0)))), true);
        assert!(plain.get("attachments").is_none() && plain.get("blocks").is_none());
        assert!(plain["text"].as_str().unwrap().contains("nightly-eval completed"));
    }

    #[test]
    fn h4_a_limit_is_heeded_wherever_it_is_said() {
        let mut limited = answer(429, r#"{"ok":false,"error":"rate_limited","retry_after":3}"#);
        assert_eq!(slack().outcome(&limited), DeliveryOutcome::Snooze(Some(Duration::from_secs(3))));
        limited.headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(slack().outcome(&limited), DeliveryOutcome::Snooze(Some(Duration::from_secs(7))));
        assert_eq!(slack().outcome(&answer(429, "slow down")), DeliveryOutcome::Snooze(None));
        assert!(matches!(slack().outcome(&answer(500, "rollup_error")), DeliveryOutcome::Trouble(_)));
        assert_eq!(slack().concurrency(), 1);
    }

    #[test]
    fn g11_nobody_is_mentioned_by_a_name() {
        let mut tracked = batch(Status::Completed, Some((1, 1, 0)));
        tracked.name = Some("<!channel> & <@U123|x>".to_owned());
        tracked.console_url = Some("https://example.com/a|b?x=<y>&z".to_owned());
        for plain in [false, true] {
            let text = sent(&reached(&tracked), plain).to_string();
            assert!(!text.contains("<!channel") && !text.contains("<@"), "{text}");
            assert!(text.contains("&lt;!channel&gt; &amp; &lt;@U123|x&gt;"), "{text}");
            assert!(text.contains("<https://example.com/a%7Cb?x=&lt;y&gt;&amp;z|Open in openai>"), "{text}");
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
            (EXPECTED.limits)(&sent(&reached(&tracked), false));
            let plain = sent(&reached(&tracked), true);
            prop_assert!(utf16(plain["text"].as_str().unwrap()) <= 4000);
        }
    }
}
