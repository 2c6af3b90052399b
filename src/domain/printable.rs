//! Text from outside made safe to print: control characters and marks that turn the writing direction are escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` without what would move a terminal's cursor or turn its writing round.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_harmful(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// The same, but newlines stay.
pub fn clean_lines(text: &str) -> String {
    text.trim_end().split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// The same for JSON, whose own escapes leave C1 controls and direction marks as they are.
pub fn clean_json(json: &str) -> Cow<'_, str> {
    let harmful = |letter: char| letter != '\n' && is_harmful(letter);
    if !json.chars().any(harmful) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 8);
    for letter in json.chars() {
        if harmful(letter) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn what_is_harmful_is_shown_not_done() {
        assert_eq!(clean("a\x1b]0;x\x07\u{9b}\u{202e}b"), "a\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}b");
        assert_eq!(clean_lines("one\ntwo\r"), "one\ntwo");
        assert_eq!(clean("grüße 世界"), "grüße 世界");
    }

    proptest! {
        #[test]
        fn json_means_the_same_after_it_was_made_harmless(text in any::<String>()) {
            let json = Value::String(text).to_string();
            let safe = clean_json(&json);
            prop_assert!(!safe.chars().any(is_harmful));
            prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), serde_json::from_str::<Value>(&json).unwrap());
        }
    }
}
