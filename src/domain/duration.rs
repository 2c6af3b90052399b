//! Durations as people write them: `15s`, `10m`, `24h`, `7d`, `1h30m`.

use std::fmt::Write;
use std::time::Duration;

/// Seconds of each unit, by its letter.
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Reads a duration such as `15s`, `10m`, `24h`, `7d` or `1h30m`; `ms` is understood too.
///
/// # Errors
///
/// Says what a duration looks like if `text` is none, or too long to count.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let amount: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(letters);
        let part = if unit == "ms" {
            Duration::from_millis(amount)
        } else {
            let seconds = UNITS.iter().find(|(letter, _)| *letter == unit).ok_or_else(bad)?.1;
            Duration::from_secs(amount.checked_mul(seconds).ok_or_else(bad)?)
        };
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    // Beyond a few centuries no calendar follows.
    if total > Duration::from_secs(UNITS[1].1 * 36_500) {
        return Err(bad());
    }
    Ok(total)
}

/// Writes a duration so that [`parse`] reads it back, to the millisecond: `1h30m`.
pub fn compact(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    for (letter, size) in UNITS.into_iter().skip(1) {
        if seconds >= size {
            let _ = write!(text, "{}{letter}", seconds / size);
            seconds %= size;
        }
    }
    let millis = duration.subsec_millis();
    if millis > 0 {
        let _ = write!(text, "{millis}ms");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a duration for a person, in its two largest units: `3 h 12 m`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut parts = Vec::with_capacity(2);
    let mut rest = seconds;
    for (letter, size) in UNITS.into_iter().skip(1) {
        if rest >= size {
            parts.push(format!("{} {letter}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    match (parts.is_empty(), duration.subsec_millis()) {
        (false, _) => parts.join(" "),
        (true, 0) => "0 s".to_owned(),
        (true, millis) => format!("{millis} ms"),
    }
}

/// A text that is no duration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a duration; write it like \"15s\", \"10m\", \"24h\" or \"7d\"")]
pub struct BadDuration(String);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_documentation() {
        let seconds = |text| parse(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("15s"), Ok(15));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "15", "s", "15 s", "-3s", "1.5h", "3x", "99999999999999999999s", "99999999w"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn for_a_person() {
        let text = |seconds| human(Duration::from_secs(seconds));
        assert_eq!(text(0), "0 s");
        assert_eq!(human(Duration::from_millis(250)), "250 ms");
        assert_eq!(text(59), "59 s");
        assert_eq!(text(11_521), "3 h 12 m");
        assert_eq!(text(86_401), "1 d");
        assert_eq!(text(90_000), "1 d 1 h");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..3_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&compact(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
