//! The end that a simulated batch was asked to take, by its metadata, its name or its model's name.

use crate::domain::duration;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Every request succeeds.
    #[default]
    Succeeded,
    /// Some requests fail.
    Partial,
    /// Every request fails.
    AllFailed,
    /// The input does not pass validation.
    Failed,
    /// The completion window closes when part of the requests is done.
    Expired,
    /// The completion window closes before any request is done.
    ExpiredEmpty,
    /// The provider cancels it midway.
    Cancelled,
}

impl Ending {
    /// The ending that metadata `sandbox_outcome` names.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase().replace('-', "_");
        WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, ending)| ending)
    }

    /// The ending that a model's or a batch's name asks for: `sandbox-partial`, `gpt-5-all-failed`,
    /// `claude_expired`. The longest run of words that means one wins.
    pub fn in_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        (1..=3).rev().find_map(|length| {
            parts.windows(length).find_map(|run| {
                // `completed` and the like are too common in names to mean something alone.
                WORDS.into_iter().skip(PLAIN).find(|(word, _)| *word == run.join("_")).map(|found| found.1)
            })
        })
    }

    /// Every word, for an error's text.
    pub fn words() -> String {
        ["succeeded", "partial", "all_failed", "failed", "expired", "expired_empty", "cancelled"].join(", ")
    }
}

/// The working time that a name asks for with `duration-30s`, at speed 1.
pub fn duration_in_name(name: &str) -> Option<Duration> {
    let name = name.to_ascii_lowercase();
    let rest = &name[name.find("duration-")? + "duration-".len()..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    duration::parse(&rest[..end]).ok()
}

/// How many of [`WORDS`] only metadata may use.
const PLAIN: usize = 3;

const WORDS: [(&str, Ending); 15] = [
    ("success", Ending::Succeeded),
    ("completed", Ending::Succeeded),
    ("ok", Ending::Succeeded),
    ("succeeded", Ending::Succeeded),
    ("partial", Ending::Partial),
    ("all_failed", Ending::AllFailed),
    ("failed", Ending::Failed),
    ("failed_validation", Ending::Failed),
    ("expired", Ending::Expired),
    ("expired_with_output", Ending::Expired),
    ("expired_empty", Ending::ExpiredEmpty),
    ("cancelled", Ending::Cancelled),
    ("canceled", Ending::Cancelled),
    ("cancelled_with_output", Ending::Cancelled),
    ("validation_failed", Ending::Failed),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_ask_for_an_end() {
        assert_eq!(Ending::in_name("sandbox-partial"), Some(Ending::Partial));
        assert_eq!(Ending::in_name("gpt-5-all-failed"), Some(Ending::AllFailed));
        assert_eq!(Ending::in_name("models/gemini_failed"), Some(Ending::Failed));
        assert_eq!(Ending::in_name("claude-expired-empty-2026"), Some(Ending::ExpiredEmpty));
        assert_eq!(Ending::in_name("claude-Expired"), Some(Ending::Expired));
        assert_eq!(Ending::in_name("mistral-canceled"), Some(Ending::Cancelled));
        for plain in ["gpt-4o-mini", "", "impartial", "text-ok", "job-completed"] {
            assert_eq!(Ending::in_name(plain), None, "{plain}");
        }
    }

    #[test]
    fn every_word_of_the_error_is_known() {
        for word in Ending::words().split(", ") {
            assert!(Ending::from_word(word).is_some(), "{word}");
        }
        assert_eq!(Ending::from_word("all-failed"), Some(Ending::AllFailed));
        assert_eq!(Ending::from_word("nonsense"), None);
    }

    #[test]
    fn a_working_time_in_a_name() {
        assert_eq!(duration_in_name("sandbox-partial-duration-90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration_in_name("x-duration-2m-expired"), Some(Duration::from_mins(2)));
        assert_eq!(duration_in_name("x-duration-long"), None);
        assert_eq!(duration_in_name("gpt"), None);
    }

    proptest! {
        #[test]
        fn no_name_panics(name in "\\PC*") {
            let _ = (Ending::in_name(&name), Ending::from_word(&name), duration_in_name(&name));
        }
    }
}
