//! What may be shown of a text that came from outside: no secret, and nothing that a terminal obeys.

use super::address::credentials;
use crate::domain::printable::is_unprintable;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;

/// Knows every secret in the forms in which an echo may bring it back, and takes them out of texts.
#[derive(Default)]
pub struct Scrubber {
    /// Longest first, so that a part never spoils the whole.
    forms: Vec<SecretString>,
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
        let mut forms: Vec<String> = forms.into_iter().filter(|form| form.len() >= SHORTEST).collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self { forms: forms.into_iter().map(SecretString::from).collect() }
    }

    /// `text` with every secret in it replaced by `[redacted]`.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.expose_secret()) {
                text = text.replace(form.expose_secret(), REDACTED);
            }
        }
        text
    }

    /// The beginning of an answer's body for people: at most `limit` bytes, on one line, without secrets.
    ///
    /// A secret of which only the beginning was read is taken out as well.
    pub fn excerpt(&self, body: &[u8], limit: usize) -> String {
        let mut text = self.scrub(&String::from_utf8_lossy(body));
        let broken_off = self.forms.iter().filter_map(|form| broken_off(&text, form.expose_secret())).min();
        if let Some(at) = broken_off {
            text.truncate(at);
            text.push_str(REDACTED);
        }
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
}

const REDACTED: &str = "[redacted]";

/// What is shorter is no secret, and would tear holes into every text.
const SHORTEST: usize = 6;

/// Of a secret that is cut off by the end of a text, so much must be there to be sure of it.
const RECOGNISABLE: usize = 8;

/// A segment of a URL's path that is longer than this may be a token.
const TOKEN: usize = 16;

/// What encoders of URLs leave as it is, besides letters and digits.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

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

/// A part as it is, in JSON, percent-encoded and in base64.
fn add_forms(part: &[u8], forms: &mut BTreeSet<String>) {
    if part.len() < SHORTEST {
        return;
    }
    forms.insert(STANDARD.encode(part));
    forms.insert(STANDARD_NO_PAD.encode(part));
    forms.insert(URL_SAFE_NO_PAD.encode(part));
    let Ok(text) = std::str::from_utf8(part) else { return };
    for set in [COMPONENT, NON_ALPHANUMERIC] {
        let encoded = utf8_percent_encode(text, set).to_string();
        forms.insert(lower_hex(&encoded));
        forms.insert(encoded);
    }
    let quoted = serde_json::Value::from(text).to_string();
    forms.insert(quoted.trim_matches('"').replace('/', "\\/"));
    forms.insert(quoted.trim_matches('"').to_owned());
    forms.insert(text.to_owned());
}

/// Percent-encoding with small letters.
fn lower_hex(encoded: &str) -> String {
    let mut pieces = encoded.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (hex, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        text.push('%');
        text.push_str(&hex.to_ascii_lowercase());
        text.push_str(rest);
    }
    text
}

/// Where `form` begins at the very end of `text` without being whole.
fn broken_off(text: &str, form: &str) -> Option<usize> {
    let first = form.get(..RECOGNISABLE.min(form.len()))?;
    // No earlier beginning could be unfinished.
    let mut from = text.len().saturating_sub(form.len());
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].match_indices(first).map(|(at, _)| from + at).find(|at| form.starts_with(&text[*at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scrubber(secrets: &[&str]) -> Scrubber {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Scrubber::new(&secrets)
    }

    #[test]
    fn b16_an_echo_of_our_own_secret_is_redacted_in_every_form() {
        let secret = "sk-proj/ab+cd==&x";
        let scrubber = scrubber(&[secret]);
        let percent = utf8_percent_encode(secret, COMPONENT).to_string();
        for form in [
            secret.to_owned(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            percent.clone(),
            lower_hex(&percent),
            secret.replace('/', "\\/"),
        ] {
            let shown = scrubber.scrub(&format!("you sent {form}, thanks"));
            assert!(shown.starts_with("you sent [redacted]"), "{shown}");
            assert!(!shown.contains(&form), "{shown}");
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
        assert_eq!(scrubber(&["on", ""]).scrub("on and on"), "on and on");
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
