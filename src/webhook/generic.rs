//! The generic webhook: the event's own bytes, signed per Standard Webhooks (`docs/contract.md#signature`).

#[cfg(test)]
use super::expected::{Expected, Meaning};
use super::message::Message;
use super::signature::{self, SigningKey};
use super::template::{self, Template};
use super::{BadTarget, DeliveryOutcome, EventBody, Kind, Target, Webhook};
use crate::config::WebhookFacts;
use crate::http::address::Address;
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::{Failure, status_line};
use crate::http::limits;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use std::time::Duration;

/// `kind = "generic"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "generic",
        signs: true,
        findings: false,
        judge_template: template::judge_body,
        ..WebhookFacts::NONE
    },
    build: |target| Ok(Box::new(Generic::new(target)?)),
    #[cfg(test)]
    expected: &EXPECTED,
};

#[derive(Debug)]
struct Generic {
    address: Address,
    keys: Vec<SigningKey>,
    template: Option<Template>,
    pages: Option<String>,
    timeout: Duration,
}

impl Generic {
    fn new(target: &Target) -> Result<Self, BadTarget> {
        let keys = target.secrets.iter().map(|secret| SigningKey::parse(secret.expose_secret()));
        let template = target.template.as_deref().map(|text| Template::body(&target.name, text));
        Ok(Self {
            address: Address::parse(&target.url)?,
            keys: keys.collect::<Result<_, _>>()?,
            pages: target.pages.clone(),
            template: template.transpose().map_err(BadTarget::Template)?,
            timeout: target.timeout,
        })
    }
}

impl Generic {
    /// What is sent: the event's own bytes, or what the template makes of it, the same at every attempt.
    fn body(&self, event: &EventBody<'_>) -> Result<(Bytes, &'static str), Failure> {
        if let Some(template) = &self.template {
            // The time of the event, not of the attempt: what is signed under one id is always the same.
            let message = Message::from_event(event.body, self.pages.as_deref(), Timestamp::UNIX_EPOCH)?;
            if let Some(text) = template.render(event.body, &message) {
                return Ok((Bytes::from(text), if template.is_json() { JSON } else { TEXT }));
            }
        }
        Ok((Bytes::copy_from_slice(event.body.as_bytes()), JSON))
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Webhook for Generic {
    fn render(&self, event: &EventBody<'_>, _plain: bool, now: Timestamp) -> Result<Call, Failure> {
        let timestamp = now.as_second();
        let (body, media_type) = self.body(event)?;
        let mut request = Request::post(self.address.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(media_type))
            .header(signature::ID, event.id)
            .header(signature::TIMESTAMP, timestamp);
        if let Some(signature) = signature::sign(&self.keys, event.id, timestamp, &body) {
            request = request.header(signature::SIGNATURE, signature);
        }
        if let Some(authorization) = &self.address.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(body)
            .map_err(|_| Failure::BadRequest("the event's id does not fit into a header".to_owned()))?;
        Ok(Call { request, timeout: self.timeout, body_limit: BodyLimit::Beginning(limits::RECEIVER_BODY) })
    }

    fn outcome(&self, answer: &Answer) -> DeliveryOutcome {
        if answer.status.is_success() {
            // The status line decides, even if the body never ends.
            return DeliveryOutcome::Delivered;
        }
        // A convention of Svix's senders for receivers that want no more.
        if answer.header("webhook-delivery").is_some_and(|wanted| wanted.eq_ignore_ascii_case("disable")) {
            return DeliveryOutcome::Gone(format!(
                "{}: the receiver asked to be switched off",
                status_line(answer.status)
            ));
        }
        DeliveryOutcome::of_status(answer)
    }

    fn concurrency(&self) -> usize {
        4
    }
}

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, "", Meaning::Delivered),
        (204, "", Meaning::Delivered),
        (302, "", Meaning::Refused),
        (404, "", Meaning::Refused),
        (410, "", Meaning::Gone),
        (500, "", Meaning::Trouble),
    ],
    limits: |_| {},
    relays: true,
    groups: false,
    escapes_values: false,
    ..Expected::CHANNEL
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::from_seconds;
    use http::{HeaderMap, Method, StatusCode};
    use secrecy::SecretString;

    const BODY: &str = r#"{"id":"evt_1","type":"batch.completed"}"#;

    fn build(url: &str, secrets: &[&str]) -> Result<Box<dyn Webhook>, BadTarget> {
        (KIND.build)(&Target {
            secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
            ..Target::new("pipeline", url)
        })
    }

    fn answer(status: u16, headers: &[(&'static str, &str)], cut: bool) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: map, body: Bytes::new(), cut }
    }

    #[test]
    fn the_body_is_sent_byte_for_byte_and_signed_anew_for_each_attempt() {
        let secrets = [
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
        ];
        let webhook = build("https://ops:pw@example.com/hooks/batches?x=1", &secrets).unwrap();
        let event = EventBody { id: "evt_1", body: BODY };
        for seconds in [1_760_000_000, 1_760_000_005] {
            let now = from_seconds(seconds).unwrap();
            let call = webhook.render(&event, false, now).unwrap();
            assert_eq!(call.request.method(), Method::POST);
            assert_eq!(call.request.uri(), "https://example.com/hooks/batches?x=1");
            assert_eq!(call.request.body(), BODY);
            assert_eq!(call.timeout, Duration::from_secs(15));
            assert_eq!(call.body_limit, BodyLimit::Beginning(64 * 1024));
            let header = |name| call.request.headers()[name].to_str().unwrap();
            assert_eq!(header("content-type"), "application/json");
            assert_eq!(header("webhook-id"), "evt_1");
            assert_eq!(header("webhook-timestamp"), seconds.to_string());
            assert_eq!(header("authorization"), "Basic b3BzOnB3");
            assert_eq!(header("webhook-signature").split(' ').count(), 2);
            for secret in secrets {
                let referee = standardwebhooks::Webhook::new(secret).unwrap();
                let expected = referee.sign("evt_1", seconds, BODY.as_bytes()).unwrap();
                assert!(header("webhook-signature").contains(&expected));
            }
        }
    }

    #[test]
    fn without_a_secret_there_is_no_signature() {
        let webhook = build("http://127.0.0.1:9000/", &[]).unwrap();
        let event = EventBody { id: "evt_1", body: BODY };
        let call = webhook.render(&event, false, from_seconds(0).unwrap()).unwrap();
        assert!(!call.request.headers().contains_key("webhook-signature"));
        assert!(call.request.headers().contains_key("webhook-id"));
    }

    #[test]
    fn what_is_wrong_with_a_target_is_said_before_anything_is_sent() {
        assert!(matches!(build("https://example.com/", &["hunter2"]), Err(BadTarget::Secret(_))));
        assert!(matches!(build("example.com", &[]), Err(BadTarget::Address(_))));
    }

    #[test]
    fn b12_b15_any_2xx_is_success_whether_or_not_its_body_ends() {
        let webhook = build("https://example.com/", &[]).unwrap();
        for code in [200, 201, 202, 204, 206, 226] {
            assert_eq!(webhook.outcome(&answer(code, &[], true)), DeliveryOutcome::Delivered, "{code}");
        }
    }

    #[test]
    fn b4_a_receiver_can_ask_to_be_switched_off() {
        let webhook = build("https://example.com/", &[]).unwrap();
        assert!(matches!(webhook.outcome(&answer(410, &[], false)), DeliveryOutcome::Gone(_)));
        let disable = [("webhook-delivery", "disable")];
        assert!(matches!(webhook.outcome(&answer(400, &disable, false)), DeliveryOutcome::Gone(_)));
        assert_eq!(webhook.outcome(&answer(200, &disable, false)), DeliveryOutcome::Delivered);
    }

    #[test]
    fn neither_url_nor_secret_is_in_the_debug_form() {
        let webhook = build(
            "https://ops:pw@example.com/T0KEN",
            &["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],
        )
        .unwrap();
        let text = format!("{webhook:?}");
        assert!(!text.contains("T0KEN") && !text.contains("example") && !text.contains("AAEC"), "{text}");
    }
}
