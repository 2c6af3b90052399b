//! Decodes the escapes in which a text may hide a word: those of JSON, of URLs and of HTML, also within each other.
//!
//! Nothing is said of which of them the text is in; so everything is decoded that can be, which is right for searching
//! and for nothing else.

use std::borrow::Cow;

/// No escape of one byte is longer.
pub(super) const LONGEST: usize = 8;

/// A text without escapes, and where its bytes stood.
pub(super) struct Decoded<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// From which place on the bytes stand elsewhere: in the decoded text, and in the text.
    moves: Vec<(usize, usize)>,
}

impl Decoded<'_> {
    /// Where in the text the decoded byte `at` begins.
    pub(super) fn place(&self, at: usize) -> usize {
        let after = self.moves.partition_point(|(decoded, _)| *decoded <= at);
        after.checked_sub(1).map_or(at, |last| self.moves[last].1 + (at - self.moves[last].0))
    }

    /// Where the part of `text`, which this was decoded from, ends that ends before the decoded byte `at`.
    pub(super) fn end(&self, text: &[u8], at: usize) -> usize {
        let Some(last) = at.checked_sub(1) else { return 0 };
        let begin = self.place(last);
        match unit(text, begin) {
            Unit::Escape(length, _) => begin + length,
            Unit::Plain | Unit::Mark => begin + 1,
        }
    }
}

/// What begins at a byte that may begin an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Only itself.
    Plain,
    /// One byte that only keeps the next one from meaning something.
    Mark,
    /// So many bytes that stand for this one.
    Escape(usize, u8),
}

/// `text` with every escape in it decoded.
pub(super) fn decoded(text: &[u8]) -> Decoded<'_> {
    let mut bytes = Vec::new();
    let mut moves = Vec::new();
    let mut copied = 0;
    for at in memchr::memchr3_iter(b'\\', b'%', b'&', text) {
        if at < copied {
            continue;
        }
        let (length, byte) = match unit(text, at) {
            Unit::Plain => continue,
            Unit::Mark => (1, None),
            Unit::Escape(length, byte) => (length, Some(byte)),
        };
        bytes.extend_from_slice(&text[copied..at]);
        if let Some(byte) = byte {
            moves.push((bytes.len(), at));
            bytes.push(byte);
        }
        copied = at + length;
        moves.push((bytes.len(), copied));
    }
    if moves.is_empty() {
        return Decoded { bytes: Cow::Borrowed(text), moves };
    }
    bytes.extend_from_slice(&text[copied..]);
    Decoded { bytes: Cow::Owned(bytes), moves }
}

/// Whether escapes in `text` hide a byte of `alphabet`.
pub(super) fn hide(text: &[u8], alphabet: &[bool; 256]) -> bool {
    memchr::memchr3_iter(b'\\', b'%', b'&', text).any(|at| match unit(text, at) {
        Unit::Plain => false,
        Unit::Mark => text.get(at + 1).is_some_and(|next| alphabet[usize::from(*next)]),
        Unit::Escape(_, byte) => alphabet[usize::from(byte)],
    })
}

/// The last place up to `at` that does not divide an escape.
pub(super) fn boundary(text: &[u8], at: usize) -> usize {
    let from = at.saturating_sub(LONGEST);
    let divided = (from..at).find(|begin| match unit(text, *begin) {
        Unit::Escape(length, _) => begin + length > at,
        Unit::Plain | Unit::Mark => false,
    });
    divided.unwrap_or(at)
}

/// What begins `at`; it depends on nothing that stands before.
fn unit(text: &[u8], at: usize) -> Unit {
    let rest = &text[at..];
    match rest {
        [b'\\', b'u', digits @ ..] if digits.len() >= 4 => match hex(&digits[..4]).map(u8::try_from) {
            Some(Ok(byte)) if byte.is_ascii() => Unit::Escape(6, byte),
            // Another character is in no secret; half of it is in none either.
            Some(_) => Unit::Escape(6, 0),
            None => Unit::Mark,
        },
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => Unit::Escape(2, b'\n'),
        [b'\\', ..] => Unit::Mark,
        // A percent sign may be escaped itself.
        [b'%', b'2', b'5', high, low, ..] if hex(&[*high, *low]).is_some() => escape(5, hex(&[*high, *low])),
        [b'%', high, low, ..] => escape(3, hex(&[*high, *low])),
        [b'&', b'#', digits @ ..] => {
            let end = digits.iter().take(LONGEST - 2).position(|byte| *byte == b';');
            let Some(end) = end else { return Unit::Plain };
            let code = match &digits[..end] {
                [b'x' | b'X', digits @ ..] => hex(digits),
                digits => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
            };
            escape(end + 3, code)
        }
        _ => Unit::Plain,
    }
}

fn escape(length: usize, code: Option<u32>) -> Unit {
    code.and_then(|code| u8::try_from(code).ok()).map_or(Unit::Plain, |byte| Unit::Escape(length, byte))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_within_each_other_are_decoded() {
        for (text, plain) in [
            (r"\u0073k", "sk"),
            (r"\\\\u0073k", "sk"),
            (r"a\/b\\\/c", "a/b/c"),
            ("%73%6B%2F%252f%2", "sk//%2"),
            ("&#115;&#x6b;&#x002f;&#;&#xx;&", "sk/&#;&#xx;&"),
            (r"\n\q\u12g4\", "\nqu12g4"),
            ("plain", "plain"),
        ] {
            assert_eq!(String::from_utf8_lossy(&decoded(text.as_bytes()).bytes), plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_decoded_byte_has_its_place(text in "[\\\\u%&#x0-7;nsk]{0,40}") {
            let text = text.as_bytes();
            let decoded = decoded(text);
            let mut last = 0;
            for at in 0..decoded.bytes.len() {
                let (begin, end) = (decoded.place(at), decoded.end(text, at + 1));
                prop_assert!(last <= begin && begin < end && end <= text.len());
                let again = super::decoded(&text[begin..end]);
                prop_assert_eq!(&again.bytes[..1], &decoded.bytes[at..=at]);
                last = end;
            }
        }

        #[test]
        fn parts_are_decoded_as_the_whole(text in "[\\\\u%&#x0-7;nsk]{0,40}", at in any::<prop::sample::Index>()) {
            let text = text.as_bytes();
            let cut = boundary(text, at.index(text.len() + 1));
            // What is undecided at the end of the first part is decided by the second.
            let whole = decoded(text);
            let second = decoded(&text[cut..]);
            prop_assert!(whole.bytes.ends_with(&second.bytes));
        }
    }
}
