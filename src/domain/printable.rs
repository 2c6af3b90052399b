//! Text from outside made safe to print: what a terminal obeys, and what turns a text round or hides in it, is escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` on one line, with everything in it that is unprintable written as an escape.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_unprintable(letter) {
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

/// The same for JSON, whose own escapes leave C1 controls, direction marks and hidden characters as they are; it means
/// the same afterwards.
pub fn clean_json(json: &str) -> Cow<'_, str> {
    let harmful = |letter: char| !matches!(letter, '\n' | '\t') && is_unprintable(letter);
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

/// Whether a terminal or a reader's eye is led astray by it: control characters (C0, DEL, C1), line and paragraph
/// separators, marks that turn the direction of a text, and characters that hide in it, such as tags.
///
/// The joiners U+200C and U+200D are none of these: scripts and emoji are written with them.
pub fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn what_is_unprintable_is_shown_not_done() {
        assert_eq!(clean("a\x1b]0;x\x07\u{9b}\u{202e}b"), "a\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}b");
        assert_eq!(
            clean("a\u{7f}\u{200b}\u{61c}\u{2067}\u{2029}\u{feff}"),
            r"a\u{7f}\u{200b}\u{61c}\u{2067}\u{2029}\u{feff}"
        );
        assert_eq!(clean("x\u{e0041}\u{e007f}"), r"x\u{e0041}\u{e007f}");
        assert_eq!(clean_lines("one\ntwo\r"), "one\ntwo");
        for kept in ["grüße 世界", "می\u{200c}خواهم", "👩\u{200d}🚀", "क्\u{200d}ष", "❤\u{fe0f}"]
        {
            assert_eq!(clean(kept), kept);
        }
    }

    proptest! {
        #[test]
        fn json_means_the_same_after_it_was_made_harmless(text in any::<String>()) {
            let json = Value::String(text).to_string();
            let safe = clean_json(&json);
            prop_assert!(!safe.chars().any(is_unprintable), "{}", safe);
            prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), serde_json::from_str::<Value>(&json).unwrap());
        }
    }
}
