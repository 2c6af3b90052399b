//! What may be shown of a text that came from outside: no secret, and nothing that a terminal obeys.

use super::address::credentials;
use super::escapes::{self, Decoded};
use super::memory;
use crate::domain::printable::is_unprintable;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;
use std::ops::Range;

/// Knows every secret in the forms in which an echo may bring it back, and takes them out of texts.
///
/// The forms are the secret itself, its base64 and its hexadecimal digits, each as part of something longer too; any
/// character of these may be escaped as JSON, URLs and HTML do it.
#[derive(Default)]
pub struct Scrubber {
    /// Longest first, so that a part never spoils the whole.
    forms: Vec<SecretString>,
    search: Option<Search>,
}

struct Search {
    /// The forms as they are.
    plain: Forms,
    /// The forms, to be found in a text whose escapes have been decoded.
    decoded: Forms,
    /// Which bytes are in a form.
    alphabet: [bool; 256],
    /// No form, however escaped, is longer. In bytes.
    longest: usize,
}

struct Forms {
    /// Tells whether there is one at all, many bytes at a time.
    any: AhoCorasick,
    /// Finds each, byte by byte.
    each: AhoCorasick,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({} forms)", self.forms.len())
    }
}

impl Scrubber {
    /// Learns `secrets`: keys, tokens, signing secrets, and URLs, of which the path, the query and the credentials
    /// are secret by themselves.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            for part in parts(secret.expose_secret().trim()) {
                add_forms(&part, &mut forms);
            }
        }
        let mut forms: Vec<String> = forms.into_iter().collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self { search: Search::of(&forms), forms: forms.into_iter().map(SecretString::from).collect() }
    }

    /// Whether it knows no secret.
    pub fn is_empty(&self) -> bool {
        self.search.is_none()
    }

    /// No secret, however written, is longer than this, in bytes, what escapes its beginning included.
    pub fn longest(&self) -> usize {
        self.search.as_ref().map_or(0, |search| search.longest + ESCAPES_BEFORE)
    }

    /// Where secrets stand in `text`: in order, apart from each other.
    pub fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        let Some(search) = &self.search else { return Vec::new() };
        let mut found = search.find(text);
        found.sort_by_key(|range| (range.start, range.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in found {
            match apart.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        apart
    }

    /// `text` with every secret in it replaced by `[redacted]`.
    pub fn scrub(&self, text: &str) -> String {
        match self.scrubbed(text.as_bytes()) {
            // What is taken out of a text in whole characters leaves a text.
            Some(scrubbed) => String::from_utf8_lossy(&scrubbed).into_owned(),
            None => text.to_owned(),
        }
    }

    /// The same for bytes; `None`: there is no secret in them.
    pub fn scrubbed(&self, text: &[u8]) -> Option<Vec<u8>> {
        let found = self.find(text);
        if found.is_empty() {
            return None;
        }
        let is_long = text.len() > memory::SMALL;
        let mut scrubbed =
            Vec::with_capacity(if is_long { memory::LONG.max(text.len()) } else { text.len() });
        let mut copied = 0;
        for range in found {
            scrubbed.extend_from_slice(&text[copied..range.start]);
            scrubbed.extend_from_slice(REDACTED.as_bytes());
            copied = range.end;
        }
        scrubbed.extend_from_slice(&text[copied..]);
        Some(scrubbed)
    }

    /// `body` without secrets; with `cut`, one of which only the beginning is there at the end is taken out as well.
    pub fn body(&self, body: Bytes, cut: bool) -> Bytes {
        let body = self.scrubbed(&body).map_or(body, Bytes::from);
        match self.broken_off(&body).filter(|_| cut) {
            Some(at) => [&body[..at], REDACTED.as_bytes()].concat().into(),
            None => body,
        }
    }

    /// The beginning of an answer's body for people: at most `limit` bytes, on one line, without secrets.
    ///
    /// A secret of which only the beginning was read is taken out as well.
    pub fn excerpt(&self, body: &[u8], limit: usize) -> String {
        let scrubbed = self.body(Bytes::copy_from_slice(body), true);
        let text = String::from_utf8_lossy(&scrubbed);
        let mut excerpt = String::new();
        for c in text.trim().chars() {
            let before = excerpt.len();
            if is_unprintable(c) {
                excerpt.extend(c.escape_default());
            } else {
                excerpt.push(c);
            }
            if excerpt.len() > limit {
                excerpt.truncate(before);
                while excerpt.len() + '…'.len_utf8() > limit && excerpt.pop().is_some() {}
                excerpt.push('…');
                break;
            }
        }
        excerpt
    }

    /// Where a secret begins at the very end of `text` without being whole.
    fn broken_off(&self, text: &[u8]) -> Option<usize> {
        // No earlier beginning could be unfinished.
        let from = text.len().saturating_sub(self.longest());
        let tail = escapes::decoded(&text[from..]);
        let begin = |form: &SecretString| {
            let form = form.expose_secret().as_bytes();
            let first = form.get(..RECOGNISABLE.min(form.len()))?;
            memchr::memmem::find_iter(&tail.bytes, first).find(|at| form.starts_with(&tail.bytes[*at..]))
        };
        let at = self.forms.iter().filter_map(begin).min()?;
        Some(from + tail.place(at))
    }
}

impl Search {
    fn of(forms: &[String]) -> Option<Self> {
        let longest = forms.iter().map(String::len).max()?;
        let decoded: BTreeSet<Vec<u8>> = forms
            .iter()
            .map(|form| escapes::decoded(form.as_bytes()).bytes.into_owned())
            .filter(|form| form.len() >= SHORTEST)
            .collect();
        let mut alphabet = [false; 256];
        for byte in decoded.iter().flatten() {
            alphabet[usize::from(*byte)] = true;
        }
        Some(Self {
            plain: Forms::new(forms)?,
            decoded: Forms::new(decoded)?,
            alphabet,
            longest: longest * escapes::LONGEST,
        })
    }

    fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        /// So much is searched at once: what is noted of escapes takes many times as much memory.
        const WINDOW: usize = 256 * 1024;
        let mut found = Vec::new();
        let mut from = 0;
        loop {
            let end = text.len().min(from + WINDOW + self.longest);
            let next = if end == text.len() { end } else { escapes::boundary(text, from + WINDOW) };
            let within = self.find_within(&text[from..end]);
            let within = within.into_iter().map(|range| from + range.start..from + range.end);
            found.extend(within.filter(|range| range.start < next));
            if end == text.len() {
                break;
            }
            from = next;
        }
        for range in &mut found {
            // Half an escape is none: what is escaped goes with what escapes it.
            let before = text[..range.start].iter().rev().take(ESCAPES_BEFORE);
            range.start -= before.take_while(|byte| **byte == b'\\').count();
        }
        found
    }

    fn find_within(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = self.plain.find(text).collect();
        if escapes::hide(text, &self.alphabet) {
            let decoded: Decoded = escapes::decoded(text);
            let hidden = self.decoded.find(&decoded.bytes);
            let hidden = hidden.map(|found| decoded.place(found.start)..decoded.end(text, found.end));
            found.extend(hidden.filter(|range| range.len() <= self.longest));
        }
        found
    }
}

impl Forms {
    fn new<F: AsRef<[u8]>>(forms: impl IntoIterator<Item = F> + Clone) -> Option<Self> {
        let any = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(forms.clone()).ok()?;
        Some(Self { any, each: AhoCorasick::new(forms).ok()? })
    }

    /// All places, those within others too.
    fn find(&self, text: &[u8]) -> impl Iterator<Item = Range<usize>> {
        // Nearly every text has none.
        let each = self.any.is_match(text).then(|| self.each.find_overlapping_iter(text));
        each.into_iter().flatten().map(|found| found.start()..found.end())
    }
}

/// So many backslashes before a secret go with it. An even number: in what is left no escape is halved.
const ESCAPES_BEFORE: usize = 8;

/// Stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// What is shorter is no secret, and would tear holes into every text.
const SHORTEST: usize = 8;

/// Of a secret that is cut off by the end of a text, so much must be there to be sure of it.
const RECOGNISABLE: usize = 8;

/// A segment of a URL's path that is longer than this may be a token.
const TOKEN: usize = 16;

/// What is secret in a secret: itself and, in a URL, what stands behind the host and before it.
fn parts(secret: &str) -> Vec<Vec<u8>> {
    let mut parts = vec![secret.as_bytes().to_vec()];
    let mut add = |part: &str| parts.push(part.as_bytes().to_vec());
    if let Some(key) = secret.strip_prefix("whsec_") {
        add(key);
        return parts;
    }
    let Some(url) = secret.parse::<reqwest::Url>().ok().filter(reqwest::Url::has_host) else { return parts };
    add(url.as_str());
    // A short path such as `/hook` is nobody's secret.
    if url.path().len() >= TOKEN {
        add(url.path());
    }
    for segment in url.path().split('/').filter(|segment| segment.len() >= TOKEN) {
        add(segment);
    }
    if let Some(query) = url.query() {
        add(query);
        add(&format!("{}?{query}", url.path()));
        for (_, value) in url.query_pairs() {
            add(&value);
        }
    }
    if let Some(text) = credentials(&url) {
        let half = text.iter().position(|byte| *byte == b':').unwrap_or(0);
        parts.push(text[half + 1..].to_vec());
        parts.push(text);
    }
    parts
}

/// A part as it is, its hexadecimal digits, and what is the same in every base64 of a text that it stands in.
fn add_forms(part: &[u8], forms: &mut BTreeSet<String>) {
    if part.len() < SHORTEST {
        return;
    }
    forms.extend(std::str::from_utf8(part).ok().map(str::to_owned));
    forms.insert(data_encoding::HEXLOWER.encode(part));
    forms.insert(data_encoding::HEXUPPER.encode(part));
    // Three bytes make four digits, so there are three ways in which it may stand among the others.
    for before in 0..3_usize {
        let text = [&[0; 2][..before], part].concat();
        let digits = (before * 8).div_ceil(6)..text.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            forms.extend(
                encoded.get(digits.clone()).filter(|digits| digits.len() >= SHORTEST).map(str::to_owned),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn scrubber(secrets: &[&str]) -> Scrubber {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Scrubber::new(&secrets)
    }

    #[test]
    fn b16_an_echo_of_our_own_secret_is_redacted_in_every_form() {
        let secret = "sk-proj/ab+cd==&x";
        let scrubber = scrubber(&[secret]);
        let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        let units = |prefix: &str, suffix: &str| -> String {
            secret.bytes().fold(String::new(), |units, byte| format!("{units}{prefix}{byte:02x}{suffix}"))
        };
        for form in [
            secret.to_owned(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            STANDARD.encode(format!("Bearer {secret} and more")),
            STANDARD.encode(format!("u:{secret}")),
            percent.clone(),
            percent.to_lowercase(),
            utf8_percent_encode(&percent, NON_ALPHANUMERIC).to_string(),
            STANDARD.encode(secret).replace('=', "%3D"),
            secret.replace('/', "\\/"),
            secret.replace('/', "\\\\\\/"),
            secret.replace('s', "\\u0073"),
            secret.replace('&', "\\u0026"),
            secret.replace('/', "&#x2F;").replace('=', "&#61;"),
            units("\\u00", ""),
            units("\\\\u00", "").to_uppercase().replace('U', "u"),
            units("&#x", ";"),
            units("%", ""),
            units("", ""),
        ] {
            let shown = scrubber.scrub(&format!("you sent {form}, thanks"));
            assert!(shown.starts_with("you sent ") && shown.contains(REDACTED), "{form}: {shown}");
            for telling in ["proj", "cm9q", "70726f6a", "70726F6A", "0070", "%70"] {
                assert!(!shown.contains(telling), "{form}: {shown}");
            }
        }
    }

    #[test]
    fn a_long_text_is_searched_as_a_short_one() {
        let scrubber = scrubber(&["sk-0123456789"]);
        let hidden = r"x\u0073\u006b-0123456789";
        let text = hidden.repeat(60_000);
        let found = scrubber.find(text.as_bytes());
        assert_eq!(found.len(), 60_000);
        assert!(found.iter().enumerate().all(|(number, range)| range.start == number * hidden.len() + 1));
        assert_eq!(scrubber.scrub(&text), format!("x{REDACTED}").repeat(60_000));
    }

    #[test]
    fn what_is_left_of_json_is_json() {
        let scrubber = scrubber(&["nsk-0123456789"]);
        for text in [
            r#"{"a":"nsk-0123456789"}"#,
            r#"{"a":"\nsk-0123456789"}"#,
            r#"{"a":"x\\nsk-0123456789\n"}"#,
            r#"{"a":"\u006e\u0073k-0123456789\\"}"#,
            r#"{"nsk-\u0030123456789":"\""}"#,
        ] {
            let shown = scrubber.scrub(text);
            assert!(shown.contains(REDACTED), "{shown}");
            assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{shown}");
        }
    }

    #[test]
    fn g10_the_telling_parts_of_a_url_are_secrets_too() {
        let scrubber = scrubber(&[
            "https://ops:hunter22@hooks.example.com/services/T0000/B0000/abcdefghijklmnopqrstuvwx?token=0123456789",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ]);
        for echo in [
            "POST /services/T0000/B0000/abcdefghijklmnopqrstuvwx?token=0123456789 HTTP/1.1",
            "no_service: abcdefghijklmnopqrstuvwx",
            "token=0123456789",
            "0123456789 is not valid",
            "wrong password hunter22",
            "Basic b3BzOmh1bnRlcjIy",
            "key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ] {
            let shown = scrubber.scrub(echo);
            assert!(shown.contains(REDACTED), "{shown}");
            for telling in ["abcdefghijkl", "0123456789", "hunter22", "b3BzOmh1", "AAECAwQF"] {
                assert!(!shown.contains(telling), "{shown}");
            }
        }
        assert_eq!(scrubber.scrub("POST https://hooks.example.com/"), "POST https://hooks.example.com/");
    }

    #[test]
    fn a_secret_that_is_cut_off_is_redacted_too() {
        let scrubber = scrubber(&["sk-0123456789abcdef"]);
        assert_eq!(scrubber.excerpt(b"key: sk-0123456", 2048), "key: [redacted]");
        assert_eq!(scrubber.excerpt(b"key: sk-0123456789abcdef", 2048), "key: [redacted]");
        assert_eq!(scrubber.excerpt(b"key: sk-0", 2048), "key: sk-0");
    }

    #[test]
    fn b19_an_excerpt_moves_no_cursor() {
        let scrubber = Scrubber::default();
        assert_eq!(
            scrubber.excerpt(b"a\x1b[2Jb\0c\r\nd\xff\xe2\x80\xae", 2048),
            "a\\u{1b}[2Jb\\u{0}c\\r\\nd\u{fffd}\\u{202e}"
        );
        assert_eq!(scrubber.excerpt("ééééé".as_bytes(), 8), "éé…");
        assert_eq!(scrubber.excerpt(b"short", 5), "short");
    }

    #[test]
    fn what_is_short_is_no_secret() {
        assert_eq!(scrubber(&["on", "", "test-ke"]).scrub("on and on, test-key"), "on and on, test-key");
    }

    proptest! {
        #[test]
        fn no_excerpt_is_too_long_or_unprintable(body: Vec<u8>, limit in 3_usize..64) {
            let excerpt = Scrubber::default().excerpt(&body, limit);
            prop_assert!(excerpt.len() <= limit);
            prop_assert!(!excerpt.chars().any(is_unprintable));
        }

        #[test]
        fn no_secret_survives_whatever_is_around_it(
            secret in "[a-zA-Z0-9/+_-]{8,40}", before in "\\PC{0,40}", after in "\\PC{0,40}",
        ) {
            let scrubber = scrubber(&[&secret]);
            let excerpt = scrubber.excerpt(format!("{before}{secret}{after}").as_bytes(), 4096);
            prop_assert!(!excerpt.contains(&secret));
        }
    }
}
