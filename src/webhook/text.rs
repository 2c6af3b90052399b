//! Texts and numbers made fit for a message that a person reads: cleaned, written out, cut.

use crate::domain::printable::is_unprintable;
use jiff::Timestamp;
use unicode_segmentation::UnicodeSegmentation;

/// `text` on one line, without control characters and whatever else hides or turns a text around.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let start = clean.len();
        if start > 0 && !word.is_empty() {
            clean.push(' ');
        }
        let before = clean.len();
        clean.extend(word.chars().filter(|c| !is_unprintable(*c)));
        if clean.len() == before {
            clean.truncate(start);
        }
    }
    clean
}

/// The beginning of `text` that costs at most `most`, with an ellipsis if anything is left out.
///
/// It is cut between what a person sees as characters; `cost` counts the way the destination counts.
pub fn cut(text: &str, most: usize, cost: fn(&str) -> usize) -> String {
    if cost(text) <= most {
        return text.to_owned();
    }
    let Some(mut left) = most.checked_sub(cost("…")) else { return String::new() };
    let mut end = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        let Some(rest) = left.checked_sub(cost(grapheme)) else { break };
        left = rest;
        end = at + grapheme.len();
    }
    format!("{}…", text[..end].trim_end())
}

/// The length as most services count it: in UTF-16 units.
pub fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

/// `1,234,567`
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.3 %`; what is neither none nor all is never shown as such. `None` without a whole.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
    Some(match tenths {
        0 if part > 0 => "< 0.1 %".to_owned(),
        1000 if part < whole => "> 99.9 %".to_owned(),
        _ => format!("{}.{} %", tenths / 10, tenths % 10),
    })
}

/// `2026-11-22 16:46 UTC`
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn g11_what_is_not_seen_is_not_kept() {
        assert_eq!(clean("  a\r\nX: y\tz \u{202e}gnp.exe\u{0} \u{200b} end "), "a X: y z gnp.exe end");
        assert_eq!(clean("\u{1b}[31mred"), "[31mred");
        // A family is held together by joiners, which stay.
        assert_eq!(clean("👨‍👩‍👧"), "👨‍👩‍👧");
        assert_eq!(clean("\u{202e} \n"), "");
    }

    #[test]
    fn a_cut_never_falls_inside_a_character() {
        assert_eq!(cut("nightly", 7, utf16), "nightly");
        assert_eq!(cut("nightly eval", 9, utf16), "nightly…");
        assert_eq!(cut("👨‍👩‍👧👨‍👩‍👧", 9, utf16), "👨‍👩‍👧…");
        assert_eq!(cut("👨‍👩‍👧", 4, utf16), "…");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 4, utf16), "e\u{301}…");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1000), "1,000");
        assert_eq!(number(31_493_594), "31,493,594");
        assert_eq!(percent(128, 10_000).as_deref(), Some("1.3 %"));
        assert_eq!(percent(9, 9).as_deref(), Some("100.0 %"));
        assert_eq!(percent(1, 100_000).as_deref(), Some("< 0.1 %"));
        assert_eq!(percent(99_999, 100_000).as_deref(), Some("> 99.9 %"));
        assert_eq!(percent(0, 5).as_deref(), Some("0.0 %"));
        assert_eq!(percent(0, 0), None);
    }

    proptest! {
        #[test]
        fn a_cut_keeps_to_its_limit(text in "\\PC{0,80}", most in 1_usize..60) {
            let cut = cut(&text, most, utf16);
            prop_assert!(utf16(&cut) <= most);
            prop_assert!(text.starts_with(cut.trim_end_matches('…')) || cut == text);
        }

        #[test]
        fn clean_texts_stay_as_they_are(text: String) {
            let once = clean(&text);
            prop_assert!(!once.chars().any(is_unprintable));
            prop_assert_eq!(clean(&once), once);
        }
    }
}
