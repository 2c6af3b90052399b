//! What an answer means whatever the kind; what every kind must do is in `conformance.rs`.

mod conformance;

use super::registry::{self, KINDS};
use super::*;
use bytes::Bytes;
use http::HeaderMap;

fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    Answer { status: StatusCode::from_u16(status).unwrap(), headers: map, body: Bytes::new(), cut: false }
}

#[test]
fn every_status_line_has_its_meaning() {
    for code in 100..=599 {
        let outcome = DeliveryOutcome::of_status(&answer(code, &[]));
        let as_expected = match code {
            429 => outcome == DeliveryOutcome::Snooze(None),
            410 => matches!(outcome, DeliveryOutcome::Gone(_)),
            300..=499 => matches!(outcome, DeliveryOutcome::Refused(_)),
            _ => matches!(outcome, DeliveryOutcome::Trouble(_)),
        };
        assert!(as_expected, "{code}: {outcome:?}");
    }
}

#[test]
fn b6_b7_b9_a_wish_to_be_left_alone_is_heard() {
    let retry_after =
        |code, headers: &[(&'static str, &str)]| DeliveryOutcome::of_status(&answer(code, headers));
    let seconds = |seconds| DeliveryOutcome::Snooze(Some(Duration::from_secs(seconds)));
    assert_eq!(retry_after(429, &[("retry-after", "7")]), seconds(7));
    assert_eq!(retry_after(503, &[("retry-after", "120")]), seconds(120));
    assert_eq!(retry_after(429, &[("retry-after", "1.5")]), seconds(2));
    assert_eq!(retry_after(429, &[("retry-after", "1000000000000")]), seconds(6 * 3600));
    assert_eq!(retry_after(429, &[("retry-after", "banana"), ("retry-after", "9")]), seconds(9));
    for nonsense in ["", "-5", "banana", "0", "NaN"] {
        assert_eq!(
            retry_after(429, &[("retry-after", nonsense)]),
            DeliveryOutcome::Snooze(None),
            "{nonsense}"
        );
    }
    // The server's clock is an hour ahead of ours: the difference of its two headers counts.
    let dates = [("date", "Sun, 22 Nov 2026 10:00:00 GMT"), ("retry-after", "Sun, 22 Nov 2026 10:00:30 GMT")];
    assert_eq!(retry_after(429, &dates), seconds(30));
    let past = [("date", "Sun, 22 Nov 2026 10:00:00 GMT"), ("retry-after", "Sun, 22 Nov 2026 09:00:00 GMT")];
    assert_eq!(retry_after(429, &past), DeliveryOutcome::Snooze(None));
}

#[test]
fn b10_a_redirect_tells_the_host_and_nothing_else() {
    let moved = answer(308, &[("location", "https://other.example.com/hooks/SECRET?token=SECRET")]);
    let DeliveryOutcome::Refused(text) = DeliveryOutcome::of_status(&moved) else { panic!() };
    assert!(text.contains("other.example.com") && !text.contains("SECRET"), "{text}");
}

#[test]
fn every_kind_is_found_by_its_name_and_refuses_what_is_no_url() {
    for kind in KINDS {
        assert!(std::ptr::eq(registry::kind(kind.facts.name).unwrap(), *kind));
        let mut target = Target::new("ops", "nowhere");
        target.options = kind.facts.needs.iter().map(|key| (*key, SecretString::from("1"))).collect();
        assert_eq!((kind.build)(&target).unwrap_err(), BadTarget::Address(BadAddress::Unreadable));
    }
    assert!(registry::kind("carrier-pigeon").is_none());
}
