//! What every kind must do, tried on all there are; a new kind fails here until every piece of it is there.

use crate::domain::event::{Draft, EventType, Occurrence};
use crate::domain::status::Status;
use crate::domain::tracked::Tracked;
use crate::http::call::{Answer, Call};
use crate::webhook::expected::{Expected, Meaning};
use crate::webhook::registry::{self, KINDS};
use crate::webhook::samples::{NOW, batch, reached, with_errors};
use crate::webhook::{DeliveryOutcome, EventBody, Kind, Target, Webhook, specimen};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const URL: &str = "https://hooks.example.com/T000/abcdefghijkl?sig=1";

fn target(kind: &Kind) -> Target {
    let mut target = Target::new("ops", kind.facts.url.unwrap_or(URL));
    let options = kind.facts.needs.iter().chain(kind.facts.options);
    target.options = options.map(|key| (*key, SecretString::from(format!("-100{}", key.len())))).collect();
    target
}

fn build(kind: &Kind) -> Box<dyn Webhook> {
    (kind.build)(&target(kind)).unwrap()
}

fn payload(call: &Call) -> Value {
    serde_json::from_slice(call.request.body()).unwrap()
}

fn tell(webhook: &dyn Webhook, body: &str, plain: bool) -> Value {
    payload(&webhook.render(&EventBody { id: "evt_1", body }, plain, NOW).unwrap())
}

fn tell_group(webhook: &dyn Webhook, bodies: &[String], plain: bool) -> Value {
    let ids: Vec<String> = (0..bodies.len()).map(|number| format!("evt_{number}")).collect();
    let events: Vec<EventBody<'_>> =
        ids.iter().zip(bodies).map(|(id, body)| EventBody { id, body }).collect();
    payload(&webhook.render_group(&events, plain, NOW).unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "as an event takes them")]
fn counts(completed: u64, failed: u64) -> Option<(u64, u64, u64)> {
    Some((completed + failed, completed, failed))
}

/// The events of a busy minute: most went well.
fn busy(number: u64) -> Vec<String> {
    let one = |at: u64| {
        let mut tracked = match at % 10 {
            3 => batch(Status::Failed, None),
            5 => batch(Status::Completed, counts(90, 10)),
            _ => batch(Status::Completed, counts(100, 0)),
        };
        tracked.name = Some(format!("eval-{at}"));
        reached(&tracked)
    };
    (0..number).map(one).collect()
}

fn digest() -> String {
    let entry = |name: &str, more: Value| {
        let mut entry = json!({
            "id": format!("batch_{name}"), "provider": "openai", "name": name, "status": "in_progress",
            "request_counts": {"total": 1000, "completed": 400, "failed": 0},
            "console_url": format!("https://platform.openai.com/batches/batch_{name}"),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            entry[key] = value.clone();
        }
        entry
    };
    let data = json!({
        "id": null, "name": "morning", "severity": "info", "observed_at": "2025-10-09T08:53:51Z",
        "since": "2025-10-08T09:00:00Z", "until": "2025-10-09T09:00:00Z",
        "counts": {"ended": 42, "outcomes": {"succeeded": 41, "failed": 1}, "running": 1, "stuck": 1},
        "ended": [
            entry("nightly", json!({"status": "failed", "outcome": "failed", "severity": "error", "duration_seconds": 240})),
            entry("weekly", json!({"status": "completed", "outcome": "succeeded", "severity": "info",
                "duration_seconds": 3600, "request_counts": {"total": 1000, "completed": 1000, "failed": 0}})),
        ],
        "running": [entry("slow", json!({"eta": "2025-10-09T10:53:51Z"}))],
        "stuck": [entry("old", json!({"why": "no progress for 7h"}))],
    });
    json!({"id": "evt_1", "object": "event", "type": "batchd.digest", "sequence": 7, "data": data})
        .to_string()
}

/// What each kind is seen to make of; the names stand in the snapshots.
fn occasions() -> Vec<(&'static str, String)> {
    let errors = [("token_limit_exceeded", "too *many* tokens"), ("invalid_request_error", "`x` & <y>")];
    let stalled = batch(Status::InProgress, Some((10_000, 120, 0)));
    let mut usual: Value =
        serde_json::from_str(&reached(&batch(Status::Completed, counts(10_000, 0)))).unwrap();
    usual["data"]["usual_seconds"] = 10_200.into();
    let tested = batch(Status::Completed, counts(118, 2));
    let refused = "openai refuses the key (401: bad key)";
    vec![
        ("ended well", usual.to_string()),
        ("partial", reached(&batch(Status::Completed, counts(9_872, 128)))),
        ("all failed", reached(&batch(Status::Completed, counts(0, 9)))),
        ("failed", reached(&with_errors(batch(Status::Failed, None), &errors))),
        (
            "stalled",
            Occurrence::finding_because(EventType::BatchStalled, NOW, NOW, "no progress for 7 h".to_owned())
                .draft(&stalled)
                .body(7),
        ),
        (
            "unauthorized",
            Draft::about_provider(EventType::ProviderUnauthorized, "openai", refused, NOW, NOW).body(7),
        ),
        (
            "recovered",
            Draft::about_provider(EventType::ProviderRecovered, "openai", "it answers again", NOW, NOW)
                .body(8),
        ),
        ("digest", digest()),
        ("test", Draft::test(&tested, EventType::Batch(Status::Completed), "1", NOW).body(0)),
    ]
}

#[test]
fn every_piece_of_every_kind_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (example, readme) = (read("config.example.toml"), read("README.md"));
    let mut missing = Vec::new();
    for kind in KINDS {
        let name = kind.facts.name;
        let mut need = |what: String, there: bool| {
            if !there {
                missing.push(format!("{name}: {what}"));
            }
        };
        let block = format!("kind = \"{name}\"");
        need("a block in config.example.toml".to_owned(), example.contains(&block));
        for key in kind.facts.needs.iter().chain(kind.facts.options) {
            need(format!("`{key}` in config.example.toml"), example.contains(&format!("# {key} = ")));
        }
        need("a line in README.md".to_owned(), readme.contains(&format!("| `{name}` |")));
        if !kind.expected.relays {
            let snapshot =
                format!("src/webhook/tests/snapshots/batchd__webhook__tests__conformance__{name}.snap");
            need(snapshot.clone(), root.join(snapshot).exists());
        }
        need("answers that are expected".to_owned(), !kind.expected.answers.is_empty());
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn what_each_kind_makes_of_what_happens() {
    for kind in KINDS.iter().filter(|kind| !kind.expected.relays) {
        let webhook = build(kind);
        let mut seen = serde_json::Map::new();
        for (occasion, body) in occasions() {
            seen.insert(occasion.to_owned(), tell(&*webhook, &body, false));
        }
        let failed = &occasions()[3].1;
        seen.insert("failed, plain".to_owned(), tell(&*webhook, failed, true));
        if webhook.groups() {
            seen.insert("group".to_owned(), tell_group(&*webhook, &busy(12), false));
            seen.insert("group, plain".to_owned(), tell_group(&*webhook, &busy(3), true));
        }
        insta::assert_json_snapshot!(kind.facts.name, seen);
    }
}

#[test]
fn only_what_people_read_is_grouped_and_a_group_of_one_is_the_event() {
    for kind in KINDS {
        let webhook = build(kind);
        let Expected { groups, names_messages, .. } = *kind.expected;
        assert_eq!(webhook.groups(), groups, "{}", kind.facts.name);
        let bodies = busy(2);
        let events =
            [EventBody { id: "evt_0", body: &bodies[0] }, EventBody { id: "evt_1", body: &bodies[1] }];
        assert_eq!(webhook.render_group(&events, false, NOW).is_ok(), groups, "{}", kind.facts.name);
        let [one, _] = events;
        let alone = webhook.render(&one, false, NOW).unwrap();
        let grouped = webhook.render_group(&[one], false, NOW).unwrap();
        if !names_messages {
            assert_eq!(alone.request.body(), grouped.request.body(), "{}", kind.facts.name);
        }
    }
}

#[test]
fn a_crowd_is_told_the_worst_first_and_how_many_are_left_out() {
    for kind in KINDS {
        let webhook = build(kind);
        if webhook.groups() {
            let text = tell_group(&*webhook, &busy(500), false).to_string();
            for part in ["500 batches", "50 failed", "400 completed", "50 completed with errors", "more"] {
                assert!(text.contains(part), "{}: {part}: {text}", kind.facts.name);
            }
            let place = |name: &str| text.find(name);
            // The first that failed is named, and before one that went well, if that is named at all.
            let failed = place("eval-3 failed").unwrap_or_else(|| panic!("{}: {text}", kind.facts.name));
            assert!(
                place("eval-0 completed").is_none_or(|well| failed < well),
                "{}: {text}",
                kind.facts.name
            );
        }
    }
}

#[test]
fn h16_the_same_events_are_the_same_request_at_every_attempt() {
    for kind in KINDS.iter().filter(|kind| !kind.expected.relays) {
        let webhook = build(kind);
        let later = crate::domain::time::later(NOW, Duration::from_secs(1));
        let bodies = busy(3);
        let events: Vec<EventBody<'_>> = bodies.iter().map(|body| EventBody { id: "evt_1", body }).collect();
        let first = webhook.render(&events[0], false, NOW).unwrap().request;
        let second = webhook.render(&events[0], false, later).unwrap().request;
        assert_eq!((first.uri(), first.body()), (second.uri(), second.body()), "{}", kind.facts.name);
        if webhook.groups() {
            let first = webhook.render_group(&events, false, NOW).unwrap().request;
            let second = webhook.render_group(&events, false, later).unwrap().request;
            assert_eq!((first.uri(), first.body()), (second.uri(), second.body()), "{}", kind.facts.name);
        }
    }
}

fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// A batch about which everything that comes from outside is hostile.
fn hostile() -> Tracked {
    let evil = "@everyone <!channel> <users/all> @here</b>[x](https://evil.example)\u{202e}\u{1b}[2J\r\nX: y";
    let mut tracked = with_errors(batch(Status::Failed, counts(1, 2)), &[(evil, evil)]);
    tracked.name = Some(evil.to_owned());
    tracked.labels.insert(evil.to_owned(), evil.to_owned());
    tracked.batch.model = Some(evil.to_owned());
    tracked
}

#[test]
fn g11_nothing_from_outside_mentions_anybody_or_is_taken_for_markup() {
    let event = reached(&hostile());
    for kind in KINDS.iter().filter(|kind| !kind.expected.relays) {
        let name = kind.facts.name;
        let webhook = build(kind);
        let mut payloads = vec![tell(&*webhook, &event, false), tell(&*webhook, &event, true)];
        if webhook.groups() {
            payloads.push(tell_group(&*webhook, &[event.clone(), event.clone()], false));
        }
        for payload in payloads {
            let mut all = Vec::new();
            texts(&payload, &mut all);
            for text in all {
                let seen: Vec<char> =
                    text.chars().filter(|c| crate::domain::printable::is_unprintable(*c)).collect();
                assert!(seen.iter().all(|c| matches!(c, '\n' | '\u{200b}')), "{name}: {text:?}");
                for mention in (kind.expected.forbidden)(&payload, text) {
                    assert!(!text.contains(mention), "{name}: {mention}: {text}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn h7_h9_no_event_breaks_a_limit(
        name in "(\\PC|[&<>`|@_*\\[\\]]){0,300}", model in "(\\PC|[&<>*]){0,1500}", error in "(\\PC|[&<>_]){0,1500}",
        id in "\\PC{1,400}", number in 1_usize..130,
    ) {
        let mut tracked = with_errors(
            batch(Status::Failed, counts(5, 5)),
            &[("a", &error), ("b", &error), ("c", &error), ("d", &error)],
        );
        tracked.name = Some(name.clone());
        tracked.labels.insert(name.clone(), model.clone());
        tracked.key.id.clone_from(&id);
        tracked.batch.id = id;
        tracked.batch.model = Some(model.clone());
        tracked.console_url = Some(format!("https://example.com/{}", "x(".repeat(400)));
        let body = reached(&tracked);
        let stalled = Occurrence::finding_because(EventType::BatchStalled, NOW, NOW, error.clone());
        let stalled = stalled.draft(&tracked).body(1);
        let mut full: Value = serde_json::from_str(&digest()).unwrap();
        for list in ["ended", "running", "stuck"] {
            let mut entry = full["data"][list][0].clone();
            entry["name"] = name.as_str().into();
            entry["why"] = error.as_str().into();
            full["data"][list] = vec![entry; number].into();
        }
        let full = full.to_string();
        let group = vec![body.clone(); number];
        for kind in KINDS {
            let webhook = build(kind);
            for plain in [false, true] {
                for body in [&body, &stalled, &full] {
                    (kind.expected.limits)(&tell(&*webhook, body, plain));
                }
                if webhook.groups() {
                    (kind.expected.limits)(&tell_group(&*webhook, &group, plain));
                }
            }
        }
    }
}

#[test]
fn h7_nothing_is_so_long_that_it_breaks_a_limit() {
    let long = "<@&>*né".repeat(1500);
    let errors: Vec<(&str, &str)> = vec![("code", long.as_str()); 50];
    let mut tracked = with_errors(batch(Status::Failed, counts(5, 5)), &errors);
    tracked.name = Some(long.clone());
    tracked.labels = (0..100).map(|number| (format!("{number}{long}"), long.clone())).collect();
    tracked.batch.metadata = Some(tracked.labels.clone());
    tracked.last_error = Some(long.repeat(100));
    tracked.batch.model = Some(long);
    let body = reached(&tracked);
    for kind in KINDS {
        let webhook = build(kind);
        for plain in [false, true] {
            (kind.expected.limits)(&tell(&*webhook, &body, plain));
            if webhook.groups() {
                (kind.expected.limits)(&tell_group(&*webhook, &vec![body.clone(); 40], plain));
            }
        }
    }
}

#[test]
fn every_type_of_event_reads_well_in_every_kind() {
    for kind in KINDS {
        let webhook = build(kind);
        for event in specimen::events() {
            let word = event["type"].as_str().unwrap();
            for plain in [false, true] {
                let payload = tell(&*webhook, &event.to_string(), plain);
                (kind.expected.limits)(&payload);
                // Whatever it says, it is not the name of the type.
                let mut all = Vec::new();
                texts(&payload, &mut all);
                let said = all.iter().any(|text| text.len() > 10 && !text.contains(word));
                assert!(said, "{}: {word}: {payload}", kind.facts.name);
            }
        }
    }
}

fn answer(status: u16, body: &'static str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
        cut: false,
    }
}

#[test]
fn h5_h6_h8_h12_h13_what_each_service_answers_is_taken_for_what_it_means() {
    for kind in KINDS {
        let webhook = build(kind);
        for (status, body, meaning) in kind.expected.answers {
            let outcome = webhook.outcome(&answer(*status, body));
            assert_eq!(Meaning::of(&outcome), *meaning, "{}: {status} {body}: {outcome:?}", kind.facts.name);
            // Who switches a webhook off says what to do.
            if let DeliveryOutcome::Gone(reason) = outcome {
                assert!(kind.expected.relays || reason.contains(';') || reason.contains(": "), "{reason}");
            }
        }
        // A wish in the header is heard by all of them, and a redirect is never a success.
        let mut limited = answer(429, "");
        limited.headers.insert("retry-after", "9".parse().unwrap());
        assert_eq!(
            Meaning::of(&webhook.outcome(&limited)),
            Meaning::Snooze(Some(9000)),
            "{}",
            kind.facts.name
        );
        assert_eq!(Meaning::of(&webhook.outcome(&answer(302, ""))), Meaning::Refused, "{}", kind.facts.name);
    }
}

#[test]
fn h10_pagerduty_opens_and_closes_the_same_alert() {
    let webhook = build(registry::kind("pagerduty").unwrap());
    let alert = |body: &str| {
        let payload = tell(&*webhook, body, false);
        let text = |key: &str| payload[key].as_str().unwrap().to_owned();
        (text("event_action"), text("dedup_key"))
    };
    let running = batch(Status::InProgress, counts(1, 0));
    let finding = |kind| alert(&Occurrence::finding(kind, NOW, NOW).draft(&running).body(1));
    let end = |status, counts| alert(&reached(&batch(status, counts)));
    let provider = |kind| alert(&Draft::about_provider(kind, "openai", "why", NOW, NOW).body(1));
    let (trigger, resolve) = ("trigger".to_owned(), "resolve".to_owned());
    let key = "batchd/openai/batch_abc123".to_owned();
    for kind in [EventType::BatchStalled, EventType::BatchOverdue, EventType::BatchLost] {
        assert_eq!(finding(kind), (trigger.clone(), key.clone()));
    }
    assert_eq!(end(Status::Completed, counts(5, 0)), (resolve.clone(), key.clone()));
    assert_eq!(end(Status::Cancelled, None), (resolve.clone(), key.clone()));
    for (status, counts) in [
        (Status::Failed, None),
        (Status::Expired, None),
        (Status::Completed, counts(5, 1)),
        (Status::Completed, counts(0, 5)),
    ] {
        assert_eq!(end(status, counts), (trigger.clone(), key.clone()));
    }
    let key = "batchd/provider/openai".to_owned();
    assert_eq!(provider(EventType::ProviderUnauthorized), (trigger.clone(), key.clone()));
    assert_eq!(provider(EventType::ProviderUnreachable), (trigger.clone(), key.clone()));
    assert_eq!(provider(EventType::ProviderRecovered), (resolve.clone(), key));
    assert_eq!(finding(EventType::ResultsExpiring).1, "batchd/openai/batch_abc123/results");
    let key = "batchd/openai/batch_abc123/results".to_owned();
    assert_eq!(finding(EventType::ResultsFailed), (trigger.clone(), key));
    assert_eq!(finding(EventType::ResultsDownloaded).0, resolve);
    // A try-out opens an alert of its own that wakes nobody.
    let test = Draft::test(&batch(Status::Failed, None), EventType::Batch(Status::Failed), "1", NOW).body(0);
    assert_eq!(alert(&test), (trigger, "batchd/evt_1".to_owned()));
    assert_eq!(tell(&*webhook, &test, false)["payload"]["severity"], "info");
}

#[test]
fn requests_go_where_each_service_takes_them() {
    let uri = |kind: &str, change: &dyn Fn(&mut Target)| {
        let kind = registry::kind(kind).unwrap();
        let mut target = target(kind);
        change(&mut target);
        let webhook = (kind.build)(&target).unwrap();
        let body = reached(&batch(Status::Completed, counts(1, 0)));
        let call = webhook.render(&EventBody { id: "evt_1", body: &body }, false, NOW).unwrap();
        (call.request.uri().to_string(), payload(&call), call.request.headers().clone())
    };
    let at = |url: &str| {
        let url = url.to_owned();
        move |target: &mut Target| target.url = SecretString::from(url.as_str())
    };
    assert_eq!(uri("discord", &|_| {}).0, format!("{URL}&wait=true"));
    assert_eq!(uri("discord", &at("https://a.b/c")).0, "https://a.b/c?wait=true");
    let (url, payload, _) = uri("google-chat", &|_| {});
    assert_eq!(url, format!("{URL}&requestId=evt_1&messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"));
    assert_eq!(payload["thread"]["threadKey"], "openai/batch_abc123");
    assert_eq!(uri("pagerduty", &|_| {}).0, "https://events.pagerduty.com/v2/enqueue");
    assert_eq!(
        uri("pagerduty", &at("https://events.eu.pagerduty.com")).0,
        "https://events.eu.pagerduty.com/v2/enqueue"
    );
    assert_eq!(uri("pagerduty", &at("http://127.0.0.1:9/own")).0, "http://127.0.0.1:9/own");
    assert_eq!(uri("telegram", &|_| {}).0, "https://api.telegram.org/bot-1005/sendMessage");
    assert_eq!(uri("telegram", &at("http://127.0.0.1:9/x/")).0, "http://127.0.0.1:9/x/bot-1005/sendMessage");
    assert_eq!(uri("telegram", &|_| {}).1["chat_id"], -1004);
    let channel = uri("telegram", &|target| {
        target.options.insert("chat", SecretString::from("@alerts"));
    });
    assert_eq!(channel.1["chat_id"], "@alerts");
    let (url, payload, headers) = uri("ntfy", &|_| {});
    assert_eq!((url.as_str(), &payload["topic"]), ("https://ntfy.sh/", &json!("-1005")));
    assert!(headers["authorization"] == "Bearer -1005" && headers["authorization"].is_sensitive());
    // The address of the topic itself, as a browser shows it.
    assert_eq!(uri("ntfy", &at("https://ntfy.example/-1005")).0, "https://ntfy.example/");
    let without = uri("ntfy", &|target| {
        target.options.remove("token");
    });
    assert!(!without.2.contains_key("authorization"));
}

#[test]
fn where_people_reach_the_dashboard_every_kind_links_there() {
    let body = reached(&batch(Status::Completed, counts(10, 2)));
    let provider =
        Draft::about_provider(EventType::ProviderUnreachable, "openai", "silent", NOW, NOW).body(1);
    for kind in KINDS.iter().filter(|kind| kind.facts.name != "generic") {
        let name = kind.facts.name;
        let pages = Some("https://ops.example.com/batchd".to_owned());
        let webhook = (kind.build)(&Target { pages, ..target(kind) }).unwrap();
        let said = tell(&*webhook, &body, false).to_string();
        // Some escape the full stop or the colon.
        let said = said.replace('\\', "");
        assert!(said.contains("https://ops.example.com/batchd/b/openai:batch_abc123"), "{name}: {said}");
        assert!(!said.contains("platform.openai.com"), "{name}: {said}");
        let said = tell(&*webhook, &provider, false).to_string().replace('\\', "");
        assert!(said.contains("https://ops.example.com/batchd/providers"), "{name}: {said}");
        let digest = tell(&*webhook, &digest(), false).to_string().replace('\\', "");
        assert!(digest.contains("https://ops.example.com/batchd/"), "{name}: {digest}");
    }
}

#[test]
fn a_template_replaces_the_text_of_every_kind_and_never_loses_a_message() {
    let body = reached(&hostile());
    for kind in KINDS {
        let name = kind.facts.name;
        let with = |template: &str| {
            let webhook = (kind.build)(&Target { template: Some(template.to_owned()), ..target(kind) });
            let event = EventBody { id: "evt_1", body: &body };
            webhook.map(|webhook| {
                let call = webhook.render(&event, false, NOW).unwrap();
                let grouped =
                    webhook.groups().then(|| webhook.render_group(&[event, event], false, NOW).unwrap());
                (call, grouped)
            })
        };
        let text = |call: &Call| String::from_utf8_lossy(call.request.body()).into_owned();
        let (call, group) = with("HELLO {{ provider }} {{ outcome }}").unwrap();
        assert!(text(&call).contains("HELLO openai failed"), "{name}: {}", text(&call));
        if let Some(group) = group {
            assert_eq!(text(&group).matches("HELLO openai failed").count(), 2, "{name}");
        }
        // Values are escaped, what the template says is not.
        let (call, _) = with("<b>{{ name }}</b>").unwrap();
        let said = text(&call);
        assert!(said.contains("<b>"), "{name}: {said}");
        if kind.expected.escapes_values {
            assert!(!said.contains("@everyone <!channel>"), "{name}: {said}");
        }
        // One that fails or says nothing at run time: the built-in text.
        let (built_in, _) = with("{{ line }}").unwrap();
        assert!(text(&built_in).contains("everyone"), "{name}");
        for failing in [
            "{{ 1 // 0 }}",
            "{% if false %}x{% endif %}",
            "{{ 'x' * 90000000 }}",
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        ] {
            let (call, _) = with(failing).unwrap();
            assert!(text(&call).contains("everyone"), "{name}: {failing}: {}", text(&call));
        }
        assert!(with("{{ line").is_err() && with("{{ nmae }}").is_err(), "{name}");
    }
}
