//! What an answer means whatever the kind; what every kind must do is in `conformance.rs`.

mod conformance;

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
        let judgement = Judgement::of_status(&answer(code, &[]));
        let as_expected = match code {
            429 => judgement == Judgement::Snooze(None),
            410 => matches!(judgement, Judgement::Gone(_)),
            300..=499 => matches!(judgement, Judgement::Refused(_)),
            _ => matches!(judgement, Judgement::Trouble(_)),
        };
        assert!(as_expected, "{code}: {judgement:?}");
    }
}

#[test]
fn b6_b7_b9_a_wish_to_be_left_alone_is_heard() {
    let wish = |code, headers: &[(&'static str, &str)]| Judgement::of_status(&answer(code, headers));
    let seconds = |seconds| Judgement::Snooze(Some(Duration::from_secs(seconds)));
    assert_eq!(wish(429, &[("retry-after", "7")]), seconds(7));
    assert_eq!(wish(503, &[("retry-after", "120")]), seconds(120));
    assert_eq!(wish(429, &[("retry-after", "1.5")]), seconds(2));
    assert_eq!(wish(429, &[("retry-after", "1000000000000")]), seconds(6 * 3600));
    assert_eq!(wish(429, &[("retry-after", "banana"), ("retry-after", "9")]), seconds(9));
    for nonsense in ["", "-5", "banana", "0", "NaN"] {
        assert_eq!(wish(429, &[("retry-after", nonsense)]), Judgement::Snooze(None), "{nonsense}");
    }
    // The server's clock is an hour ahead of ours: the difference of its two headers counts.
    let dates = [("date", "Sun, 22 Nov 2026 10:00:00 GMT"), ("retry-after", "Sun, 22 Nov 2026 10:00:30 GMT")];
    assert_eq!(wish(429, &dates), seconds(30));
    let past = [("date", "Sun, 22 Nov 2026 10:00:00 GMT"), ("retry-after", "Sun, 22 Nov 2026 09:00:00 GMT")];
    assert_eq!(wish(429, &past), Judgement::Snooze(None));
}

#[test]
fn b10_a_redirect_tells_the_host_and_nothing_else() {
    let moved = answer(308, &[("location", "https://other.example.com/hooks/SECRET?token=SECRET")]);
    let Judgement::Refused(text) = Judgement::of_status(&moved) else { panic!() };
    assert!(text.contains("other.example.com") && !text.contains("SECRET"), "{text}");
}

#[test]
fn every_kind_is_found_by_its_name_and_refuses_what_is_no_url() {
    for kind in KINDS {
        assert!(std::ptr::eq(super::kind(kind.facts.name).unwrap(), *kind));
        let mut target = Target::new("ops", "nowhere");
        target.options = kind.facts.needs.iter().map(|key| (*key, SecretString::from("1"))).collect();
        assert_eq!((kind.build)(&target).unwrap_err(), BadTarget::Address(BadAddress::Unreadable));
    }
    assert!(super::kind("carrier-pigeon").is_none());
}
