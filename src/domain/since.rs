//! A beginning in time as people write it: so long ago, or an instant.

use super::duration::{self, BadDuration};
use super::time::earlier;
use jiff::Timestamp;

/// Reads `2d` (so long before `now`) or an instant in RFC 3339.
///
/// # Errors
///
/// Says what it may look like if `text` is neither.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, BadSince> {
    if let Ok(at) = text.trim().parse() {
        return Ok(at);
    }
    match duration::parse(text) {
        Ok(ago) => Ok(earlier(now, ago)),
        Err(BadDuration { .. }) => Err(BadSince(text.to_owned())),
    }
}

/// A text that is no beginning in time.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is neither a duration such as \"2d\" nor an instant such as \"2026-11-22T17:00:00Z\"")]
pub struct BadSince(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_back_and_an_instant_is_itself() {
        let now = Timestamp::constant(1_795_000_000, 0);
        assert_eq!(parse("2d", now).unwrap().as_second(), 1_795_000_000 - 172_800);
        assert_eq!(parse("2026-11-18T12:06:40+01:00", now).unwrap().as_second(), 1_795_000_000);
        for bad in ["", "yesterday", "2", "2026-11-22", "-3d"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
