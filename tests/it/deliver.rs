//! One attempt from event to outcome, over real sockets; numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::chaos::{Chaos, Step};
use batchd::config::secret::SecretSource;
use batchd::config::{Proxy, WebhookConfig};
use batchd::domain::outcome::Severity;
use batchd::http::call::{Answer, Call};
use batchd::http::descriptors::Share;
use batchd::http::egress::Guard;
use batchd::http::failure::Failure;
use batchd::http::scrub::Scrubber;
use batchd::http::transport::{ReqwestTransport, Transport, TransportConfig};
use batchd::notify::deliver::attempt;
use batchd::notify::{Destination, Exchange};
use batchd::webhook::registry::KINDS;
use batchd::webhook::{DeliveryOutcome, EventBody, Target};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Part of the URL, in its path; and the signing secret.
const TOKEN: &str = "T0PSECRET-0123456789";
const SIGNING: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const BODY: &str =
    r#"{"id":"evt_1","object":"event","type":"batch.completed","data":{"id":"batch_1","provider":"openai"}}"#;
const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

pub fn webhook_config(name: &str, kind: &str) -> WebhookConfig {
    WebhookConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        url: Some(SecretSource::Env("NOT_READ_HERE".to_owned())),
        secrets: Vec::new(),
        options: BTreeMap::new(),
        template: None,
        events: BTreeSet::new(),
        severity: Severity::Info,
        providers: BTreeSet::new(),
        labels: BTreeMap::new(),
        on_request: false,
        timeout: Duration::from_secs(15),
        retry: None,
        rate: None,
        ca_file: None,
        insecure_skip_verify: false,
    }
}

pub fn real_transport() -> Arc<dyn Transport> {
    let config = TransportConfig {
        proxy: &Proxy::None,
        ca_files: Vec::new(),
        insecure_skip_verify: false,
        guard: Guard::Local,
        share: Share::Webhooks,
    };
    Arc::new(ReqwestTransport::new(&config).unwrap())
}

fn destination(kind: &str, url: &str, timeout: Duration, transport: Arc<dyn Transport>) -> Destination {
    let mut target =
        Target { secrets: vec![SecretString::from(SIGNING)], timeout, ..Target::new("ops", url) };
    let facts = batchd::webhook::registry::kind(kind).unwrap().facts;
    let options = facts.needs.iter().chain(facts.options);
    target.options = options.map(|key| (*key, SecretString::from(TOKEN))).collect();
    let secrets = [&target.url].into_iter().chain(&target.secrets).chain(target.options.values());
    let scrubber = Arc::new(Scrubber::new(secrets));
    Destination::new(&webhook_config("ops", kind), &target, transport, scrubber).unwrap()
}

/// One attempt, and I7 with it: nothing that comes of it tells where it went or what it was signed with.
async fn tell(kind: &str, url: &str, timeout: Duration) -> Exchange {
    let destination = destination(kind, url, timeout, real_transport());
    let exchange = attempt(&destination, &[EventBody { id: "evt_1", body: BODY }], false, NOW).await;
    let told = format!("{exchange:?} {destination:?}");
    for secret in [TOKEN, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"] {
        assert!(!told.contains(secret), "{told}");
    }
    exchange
}

async fn tell_chaos(kind: &str, chaos: &Chaos) -> Exchange {
    tell(kind, &chaos.url(&format!("/hooks/{TOKEN}")), Duration::from_secs(15)).await
}

#[tokio::test]
async fn a_signed_event_is_delivered() {
    let chaos = Chaos::answering("HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nthank").await;
    let exchange = tell_chaos("generic", &chaos).await;
    assert_eq!((&exchange.outcome, exchange.result), (&DeliveryOutcome::Delivered, "delivered"));
    assert_eq!(
        (exchange.status, exchange.error, exchange.excerpt.as_deref()),
        (Some(202), None, Some("thank"))
    );
    let requests = chaos.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, BODY, "byte for byte");
    // The reference verifier wants a timestamp near now, so its signature is compared instead.
    let referee = standardwebhooks::Webhook::new(SIGNING).unwrap();
    let signature = referee.sign("evt_1", NOW.as_second(), BODY.as_bytes()).unwrap();
    assert!(head.contains(&format!("webhook-signature: {signature}")), "{head}");
}

#[tokio::test]
async fn b10_to_b12_the_status_line_decides() {
    for (line, outcome) in [
        ("302 Found", "http_3xx"),
        ("304 Not Modified", "http_3xx"),
        ("400 Bad Request", "http_4xx"),
        ("401 Unauthorized", "unauthorized"),
        ("404 Not Found", "not_found"),
        ("410 Gone", "http_410"),
        ("429 Too Many Requests", "http_429"),
        ("500 Oops", "http_5xx"),
        ("503 Later", "http_5xx"),
    ] {
        let chaos = Chaos::answering(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")).await;
        let exchange = tell_chaos("generic", &chaos).await;
        assert_eq!(exchange.result, outcome);
        assert!(exchange.error.is_some_and(|error| error.starts_with(&line[..3])), "{line}");
        assert!(exchange.receiver_at_fault);
    }
}

#[tokio::test]
async fn b15_a_stalled_body_is_delivered_to_generic_and_sent_again_to_slack() {
    let head = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".to_vec());
    let chaos = Chaos::always(vec![Step::Read, head, Step::Hang]).await;
    let url = chaos.url("/hooks");
    let short = Duration::from_millis(300);
    assert_eq!(tell("generic", &url, short).await.outcome, DeliveryOutcome::Delivered);
    let slack = tell("slack", &url, short).await;
    assert!(matches!(slack.outcome, DeliveryOutcome::Trouble(_)), "{slack:?}");
    assert_eq!((slack.result, slack.status), ("bad_response", Some(200)));
}

#[tokio::test]
async fn b16_an_echo_of_the_request_is_stored_without_its_secrets() {
    let chaos = Chaos::always(vec![Step::Read, Step::Echo]).await;
    let exchange = tell_chaos("generic", &chaos).await;
    let excerpt = exchange.excerpt.unwrap();
    assert!(excerpt.starts_with("POST [redacted]") && excerpt.contains("evt_1"), "{excerpt}");
    assert!(excerpt.len() <= 2048);
}

#[tokio::test]
async fn b19_an_excerpt_is_short_and_moves_no_cursor() {
    let body = [b"\xff\0\x1b[2J".to_vec(), vec![b'x'; 100_000]].concat();
    let mut answer = format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    let excerpt = tell_chaos("generic", &Chaos::answering(answer).await).await.excerpt.unwrap();
    assert!(excerpt.starts_with("\u{fffd}\\u{0}\\u{1b}[2Jxxx") && excerpt.ends_with('…'), "{excerpt}");
    assert!(excerpt.len() <= 2048 && !excerpt.chars().any(char::is_control));
}

#[tokio::test]
async fn e3_e4_a_refusal_by_a_receiver_of_another_time_says_so() {
    let date = |seconds: i64| {
        let at = Timestamp::from_second(NOW.as_second() + seconds).unwrap();
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
    };
    for (status, seconds, told) in [(401, -600, true), (400, 600, true), (401, 60, false), (500, 600, false)]
    {
        let answer = format!("HTTP/1.1 {status} No\r\ndate: {}\r\ncontent-length: 0\r\n\r\n", date(seconds));
        let exchange = tell_chaos("generic", &Chaos::answering(answer).await).await;
        let error = exchange.error.unwrap();
        assert_eq!(error.contains("10 m apart"), told, "{error}");
    }
}

#[tokio::test]
async fn h1_h2_slack_says_ok_or_it_did_not_happen() {
    for (answer, outcome) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "delivered"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "bad_response"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\nno_service", "not_found"),
    ] {
        let exchange = tell_chaos("slack", &Chaos::answering(answer).await).await;
        assert_eq!(exchange.result, outcome, "{answer}");
        assert_eq!(matches!(exchange.outcome, DeliveryOutcome::Gone(_)), outcome == "not_found");
    }
}

#[tokio::test]
async fn g10_no_failure_of_any_kind_tells_a_secret() {
    let short = Duration::from_millis(300);
    let garbage = format!("GARBAGE {TOKEN} {SIGNING}\r\n\r\n");
    for kind in KINDS.iter().map(|kind| kind.facts.name) {
        for script in [
            vec![Step::Reset],
            vec![Step::Read, Step::Reset],
            vec![Step::Read],
            vec![Step::Read, Step::Hang],
            vec![Step::Read, Step::Send(garbage.clone().into_bytes())],
            vec![Step::Read, Step::Echo],
        ] {
            let chaos = Chaos::always(script).await;
            let exchange = tell(kind, &chaos.url(&format!("/hooks/{TOKEN}?key={TOKEN}")), short).await;
            assert!(matches!(exchange.outcome, DeliveryOutcome::Trouble(_)), "{exchange:?}");
            assert!(exchange.error.is_some());
        }
        for url in [
            format!("http://{}/hooks/{TOKEN}", Chaos::nobody().await),
            format!("https://{}/hooks/{TOKEN}", Chaos::nobody().await),
            format!("http://169.254.169.254/hooks/{TOKEN}"),
            format!("http://ops:{TOKEN}@169.254.169.254/"),
        ] {
            let exchange = tell(kind, &url, short).await;
            assert!(exchange.error.is_some(), "{exchange:?}");
        }
    }
}

/// A defect of ours, in the place where it hurts most.
struct Broken;

impl Transport for Broken {
    fn send(&self, _call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        panic!("a defect")
    }
}

#[tokio::test]
async fn a12_a_panic_is_a_failed_attempt_that_nobody_else_is_blamed_for() {
    let destination = destination("generic", "http://127.0.0.1:9/", Duration::from_secs(1), Arc::new(Broken));
    let exchange = attempt(&destination, &[EventBody { id: "evt_1", body: BODY }], false, NOW).await;
    assert_eq!((exchange.result, exchange.receiver_at_fault), ("panic", false));
    assert!(matches!(exchange.outcome, DeliveryOutcome::Trouble(_)));
}

#[tokio::test]
async fn a_message_that_cannot_be_formed_is_not_sent_and_nobody_elses_fault() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let destination = destination("slack", &chaos.url("/"), Duration::from_secs(1), real_transport());
    let exchange = attempt(&destination, &[EventBody { id: "evt_1", body: "not json" }], false, NOW).await;
    assert_eq!((exchange.result, exchange.receiver_at_fault), ("render", false));
    assert_eq!(chaos.connections(), 0);
}
