//! What a server's answer says of its own rate limit, before it has to say "too many requests".

use crate::domain::pace::Allowance;
use http::HeaderMap;
use jiff::Timestamp;
use std::time::Duration;

/// What is left of the server's limit on requests, if `headers` tell: Anthropic's
/// `anthropic-ratelimit-requests-*` (`docs/providers/anthropic.md`), OpenAI's `x-ratelimit-*-requests` (`docs/providers/openai.md`), and the plain
/// `x-ratelimit-*` and `ratelimit-*` of others.
///
/// A reset is a time span (`6m0s`, `8.64s`, or a number of seconds), an instant in RFC 3339, or a Unix time;
/// instants are measured against the answer's own `Date`. Without one that can be read a minute is assumed.
pub fn allowance(headers: &HeaderMap) -> Option<Allowance> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok().filter(|number| *number >= 0.0);
    FAMILIES.iter().find_map(|[limit, remaining, reset]| {
        let date = text("date").and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let now = date.map(|zoned| zoned.timestamp());
        let reset = text(reset).and_then(|value| until(value, now)).unwrap_or(MINUTE);
        Some(Allowance { limit: number(limit), remaining: number(remaining)?, reset: reset.min(MAX_RESET) })
    })
}

/// The names of limit, what remains, and reset. Token limits say nothing about polls.
const FAMILIES: [[&str; 3]; 4] = [
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
];

const MINUTE: Duration = Duration::from_mins(1);
/// Limits by the day reset in a day; whether one of those concerns polls at all, the next request shows sooner.
const MAX_RESET: Duration = Duration::from_mins(15);
/// A number from here on is a Unix time, not a span.
const YEAR_2001: f64 = 1e9;

/// How long from `now` until what `value` says.
fn until(value: &str, now: Option<Timestamp>) -> Option<Duration> {
    let to = |at: Timestamp| Some(crate::domain::time::since(now?, at));
    match value.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough, and `as` saturates")]
        Ok(at) if at >= YEAR_2001 => to(Timestamp::from_second(at as i64).ok()?),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => span(value).or_else(|| to(value.parse().ok()?)),
    }
}

/// A span as Go writes it: `1h2m3s`, `8.64s`, `120ms`.
fn span(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (amount, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(amount.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const DATE: &str = "Wed, 18 Nov 2026 10:13:20 GMT";

    fn told(pairs: &[(&'static str, &str)]) -> Option<Allowance> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        allowance(&headers)
    }

    fn reset(value: &str) -> Duration {
        told(&[
            ("date", DATE),
            ("x-ratelimit-remaining-requests", "1"),
            ("x-ratelimit-reset-requests", value),
        ])
        .unwrap()
        .reset
    }

    #[test]
    fn each_vendors_headers_are_read() {
        let anthropic = told(&[
            ("date", DATE),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "3"),
            ("anthropic-ratelimit-requests-reset", "2026-11-18T10:13:45Z"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
        ]);
        let expected = Allowance { limit: Some(50.0), remaining: 3.0, reset: Duration::from_secs(25) };
        assert_eq!(anthropic, Some(expected));
        let openai = told(&[
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-reset-requests", "120ms"),
        ]);
        let expected = Allowance { limit: Some(500.0), remaining: 499.0, reset: Duration::from_millis(120) };
        assert_eq!(openai, Some(expected));
        let plain = told(&[("x-ratelimit-remaining", "0")]);
        assert_eq!(plain, Some(Allowance { limit: None, remaining: 0.0, reset: MINUTE }));
        let draft = told(&[("ratelimit-remaining", "7"), ("ratelimit-reset", "9")]);
        let expected = Allowance { limit: None, remaining: 7.0, reset: Duration::from_secs(9) };
        assert_eq!(draft, Some(expected));
        assert_eq!(told(&[("x-ratelimit-remaining-tokens", "0")]), None);
        assert_eq!(told(&[("x-ratelimit-remaining-requests", "-1")]), None);
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn a_reset_has_many_forms() {
        for (value, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("8.64s", 8.64),
            ("120ms", 0.12),
            ("0", 0.0),
            ("30", 30.0),
            ("1.5", 1.5),
            // 25 s after the answer's date.
            ("1794996825", 25.0),
            ("2026-11-18T10:13:45.000Z", 25.0),
            // Passed.
            ("2026-11-18T10:13:00Z", 0.0),
            // A day's limit is asked again sooner.
            ("23h59m", 900.0),
            // Nonsense.
            ("soon", 60.0),
            ("", 60.0),
            ("-3", 60.0),
            ("5x", 60.0),
            ("s", 60.0),
        ] {
            assert_eq!(reset(value), Duration::from_secs_f64(seconds), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_in_a_header_panics(value in "[ -~]{0,20}") {
            prop_assert!(reset(&value) <= MAX_RESET);
            told(&[("x-ratelimit-remaining", &value)]);
        }
    }
}
