//! The text of a configuration file as it may be shown: every secret in it covered, every position kept.

use super::keys::{Sections, Visibility};
use super::secret;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file's name, and its text with everything covered that may be a secret. What is covered keeps its length, so
/// that a span of the file is a span of this text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Source {
    name: Option<String>,
    text: String,
}

/// A line to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its text without the line break.
    pub text: &'a str,
    /// The part that matters, in bytes of `text`.
    pub span: Range<usize>,
}

impl Source {
    /// A file that TOML understands; what of it may be shown is declared in `sections`.
    pub fn new(file: &Path, text: &str, document: &DeTable<'_>, sections: Sections) -> Self {
        let mut cover = Cover { text, sections, covered: text.as_bytes().to_vec(), tokens: Vec::new() };
        cover.table(&mut Vec::new(), document);
        cover.comments();
        Self::named(file, String::from_utf8(cover.covered).unwrap_or_default())
    }

    /// A file that TOML does not understand, so that nobody knows where its secrets are: only what stands behind a
    /// key that never holds one is shown.
    pub fn broken(file: &Path, text: &str, sections: Sections) -> Self {
        Self::named(file, text.split_inclusive('\n').map(|line| broken_line(line, sections)).collect())
    }

    /// A file whose text is not to be shown at all.
    pub fn unread(file: &Path) -> Self {
        Self::named(file, String::new())
    }

    fn named(file: &Path, text: String) -> Self {
        Self { name: Some(file.display().to_string()), text }
    }

    /// The file's name; `None`: there is no file.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.boundary(offset)];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    /// The line in which `span` begins.
    pub fn line(&self, span: &Range<usize>) -> Line<'_> {
        let start = self.boundary(span.start);
        let first = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let text = self.text[first..].split('\n').next().unwrap_or_default().trim_end();
        let from = (start - first).min(text.len());
        let to = self.boundary(span.end.max(start)).saturating_sub(first).clamp(from, text.len());
        Line { number: self.position(start).0, text, span: from..to }
    }

    /// The nearest place at or before `offset` where a character begins.
    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.name).finish()
    }
}

/// Covers what may be a secret while it walks the document.
struct Cover<'a> {
    text: &'a str,
    sections: Sections,
    covered: Vec<u8>,
    /// Keys and values, in which `#` begins no comment.
    tokens: Vec<Range<usize>>,
}

impl<'a> Cover<'a> {
    fn table(&mut self, path: &mut Vec<&'a str>, table: &DeTable<'_>) {
        for (key, value) in table {
            self.tokens.push(key.span());
            if secret::looks_like_one(key.get_ref()) {
                self.hide(key.span());
            }
            // The key as it stands in the text lives as long as the text; a path only tells known names apart.
            path.push(self.text.get(key.span()).unwrap_or_default());
            self.value(path, value);
            path.pop();
        }
    }

    fn value(&mut self, path: &mut Vec<&'a str>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, table),
            DeValue::Array(array) => array.iter().for_each(|element| self.value(path, element)),
            _ => {
                self.tokens.push(value.span());
                let hidden = self.hidden(path, value);
                self.hide(hidden);
            }
        }
    }

    /// The part of a single value that must not be shown.
    fn hidden(&self, path: &[&str], value: &Spanned<DeValue<'_>>) -> Range<usize> {
        let span = value.span();
        let text = self.text.get(span.clone()).unwrap_or_default();
        let whole = inside_quotes(text, &span);
        let nothing = span.start..span.start;
        let value = value.get_ref().as_str().unwrap_or_default();
        match self.sections.visibility(path) {
            Visibility::Plain | Visibility::PlainTable if !secret::looks_like_one(value) => nothing,
            Visibility::Variable if secret::is_variable(value) => nothing,
            Visibility::Plain
            | Visibility::PlainTable
            | Visibility::SecretTable
            | Visibility::Variable
            | Visibility::Secret => whole,
            Visibility::Address { whole_path } => {
                let shown = shown_of_address(text, whole_path);
                (span.start + shown).min(whole.end)..whole.end
            }
        }
    }

    fn hide(&mut self, span: Range<usize>) {
        let Some(text) = self.text.get(span.clone()) else { return };
        let covered: String = text.chars().map(covered).collect();
        self.covered[span].copy_from_slice(covered.as_bytes());
    }

    /// Comments go too: a key that was switched off is still a key.
    fn comments(&mut self) {
        self.tokens.sort_by_key(|token| token.start);
        let mut tokens = self.tokens.iter().peekable();
        let mut at = 0;
        while let Some(offset) = self.text[at..].find('#') {
            let hash = at + offset;
            while tokens.next_if(|token| token.end <= hash).is_some() {}
            if let Some(token) = tokens.peek().filter(|token| token.start <= hash) {
                at = token.end;
                continue;
            }
            let end = self.text[hash..].find('\n').map_or(self.text.len(), |newline| hash + newline);
            self.covered[hash..end].fill(b' ');
            at = end;
        }
    }
}

/// How many bytes of an address, as it stands in the file, may be shown: scheme and host, or (`whole_path`) all
/// before a query; nothing behind the scheme if it names a user.
fn shown_of_address(text: &str, whole_path: bool) -> usize {
    let Some(scheme) = text.find("://").map(|at| at + "://".len()) else {
        return if whole_path && !text.contains(['@', '?', '#', '\\']) { text.len() } else { 0 };
    };
    if text.contains(['@', '\\']) {
        return scheme;
    }
    let ends: &[char] = if whole_path { &['?', '#'] } else { &['/', '?', '#'] };
    text[scheme..].find(ends).map_or(text.len(), |at| scheme + at)
}

/// The span without the quotes around it.
fn inside_quotes(text: &str, span: &Range<usize>) -> Range<usize> {
    let quoted = |quote| text.len() >= 2 && text.starts_with(quote) && text.ends_with(quote);
    if quoted('"') || quoted('\'') { span.start + 1..span.end - 1 } else { span.clone() }
}

/// A character that says nothing and is as long as `c`; line breaks stay.
fn covered(c: char) -> char {
    match c.len_utf8() {
        _ if c == '\n' => c,
        1 => '*',
        2 => '·',
        3 => '•',
        _ => '\u{10107}',
    }
}

/// A line of a file that is no TOML, with everything covered but what cannot be a secret.
fn broken_line(line: &str, sections: Sections) -> String {
    let hidden = |text: &str| -> String {
        text.chars().map(|c| if c.is_whitespace() { c } else { covered(c) }).collect()
    };
    if is_header(line, sections) {
        return line.to_owned();
    }
    let Some((key, value)) = line.split_once('=').filter(|(key, _)| is_known_key(key, sections)) else {
        return hidden(line);
    };
    let plain = sections.is_plain(last_segment(key));
    // A second `=` may be another key on the same line.
    if !plain || value.contains('=') || secret::looks_like_one(value) {
        return format!("{key}={}", hidden(value));
    }
    let (value, comment) = value.split_at(value.find('#').unwrap_or(value.len()));
    let blank = |c: char| std::iter::repeat_n(if c == '\n' { c } else { ' ' }, c.len_utf8());
    format!("{key}={value}{}", comment.chars().flat_map(blank).collect::<String>())
}

/// Whether a line is a table's header, closed or not.
fn is_header(line: &str, sections: Sections) -> bool {
    let path = line.trim().trim_start_matches('[').trim_end_matches(']');
    let group = path.split('.').next().unwrap_or(path).trim();
    line.trim_start().starts_with('[') && is_bare(path) && sections.is_table(group)
}

/// Whether it is certainly a key: base64 may stand before a `=` too.
fn is_known_key(key: &str, sections: Sections) -> bool {
    is_bare(key) && sections.is_key(last_segment(key))
}

fn last_segment(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key).trim()
}

fn is_bare(path: &str) -> bool {
    path.chars().all(|c| c.is_ascii_alphanumeric() || "_-. \t".contains(c)) && !secret::looks_like_one(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SECTIONS;
    use proptest::prelude::*;

    const SECRET: &str = "correct horse battery";

    fn shown(text: &str) -> String {
        let document = DeTable::parse(text).unwrap().into_inner();
        let source = Source::new(Path::new("c.toml"), text, &document, SECTIONS);
        assert_eq!(source.text.len(), text.len());
        assert_eq!(source.text.chars().count(), text.chars().count());
        source.text
    }

    fn shown_broken(text: &str) -> String {
        Source::broken(Path::new("c.toml"), text, SECTIONS).text
    }

    #[test]
    fn secrets_are_covered_and_the_rest_is_not() {
        let stars = "*".repeat(SECRET.len());
        for (text, expected) in [
            ("api.token = \"SECRET\"", "api.token = \"STARS\""),
            ("[providers.x]\napi_key = 'SECRET'", "[providers.x]\napi_key = 'STARS'"),
            ("[providers.x]\napi_kye = 'SECRET'", "[providers.x]\napi_kye = 'STARS'"),
            ("providers.x = 'SECRET'", "providers.x = 'STARS'"),
            ("[webhooks.x]\nsecret = ['SECRET', \"SECRET\"]", "[webhooks.x]\nsecret = ['STARS', \"STARS\"]"),
            ("[api]\ntoken = { evn = 'SECRET' }", "[api]\ntoken = { evn = 'STARS' }"),
            ("[api]\ntoken = { env = 'NAME' }", "[api]\ntoken = { env = 'NAME' }"),
            ("[api]\nlisten = 'SECRET'", "[api]\nlisten = 'SECRET'"),
            ("[api]\ntoken = 12345", "[api]\ntoken = *****"),
            ("[state]\ndir = '#a' # api_key", "[state]\ndir = '#a'          "),
        ] {
            let text = text.replace("SECRET", SECRET);
            let expected = expected.replace("SECRET", SECRET).replace("STARS", &stars);
            assert_eq!(shown(&text), expected);
        }
    }

    #[test]
    fn addresses_show_their_host() {
        let of = |key: &str, value: &str| {
            let text = shown(&format!("{key} = \"{value}\""));
            text.split('"').nth(1).unwrap().trim_end_matches('*').to_owned()
        };
        assert_eq!(
            of("webhooks.x.url", "https://hooks.slack.com/services/T0/B0/x"),
            "https://hooks.slack.com"
        );
        assert_eq!(of("webhooks.x.url", "https://me:word@a.b/c"), "https://");
        assert_eq!(of("webhooks.x.url", "no address"), "");
        assert_eq!(of("providers.x.base_url", "https://a.b/c/d"), "https://a.b/c/d");
        assert_eq!(of("providers.x.base_url", "https://a.b/c?key=1"), "https://a.b/c");
        assert_eq!(of("providers.x.base_url", "ftp//a"), "ftp//a");
        assert_eq!(of("http.proxy", "http://me:word@a:1"), "http://");
        assert_eq!(of("http.proxy", "http://me\\u0040a:1"), "http://");
        assert_eq!(of("http.proxy", "none"), "none");
    }

    #[test]
    fn nothing_doubtful_of_a_broken_file_is_shown() {
        for text in [
            "api_key = \"SECRET",
            "api_key = SECRET",
            "secret = [\n\"SECRET\",\n",
            "kind = \"openai\", api_key = \"SECRET\"",
            "providers.x = { api_key = \"SECRET\"",
            "# api_key = \"SECRET\"\n=",
            "dir = \"/a\" # SECRET\n=",
            "url = \"https://a.b/SECRET\n",
            "SECRET",
            "[SECRET",
            "token: SECRET",
        ] {
            for secret in ["abc+def/ghi", "abcdef0123=", "abcdef=="] {
                let shown = shown_broken(&text.replace("SECRET", secret));
                assert!(!shown.contains(secret.trim_end_matches('=')), "{shown}");
            }
        }
        assert_eq!(shown_broken("[state]\ndir = /var\nretain = \"9"), "[state]\ndir = /var\nretain = \"9");
        assert_eq!(shown_broken("[sk-abcdefgh]"), "*".repeat("[sk-abcdefgh]".len()));
    }

    #[test]
    fn lines_and_columns() {
        let source = Source::named(Path::new("c.toml"), "a = 1\r\nböse = \"x\"\n".to_owned());
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(14), (2, 7));
        assert_eq!(source.position(1000), (3, 1));
        assert_eq!(source.line(&(4..5)), Line { number: 1, text: "a = 1", span: 4..5 });
        assert_eq!(source.line(&(7..12)), Line { number: 2, text: "böse = \"x\"", span: 0..5 });
        // A span of several lines ends with its first.
        assert_eq!(source.line(&(0..15)), Line { number: 1, text: "a = 1", span: 0..5 });
        assert_eq!(source.line(&(900..1000)).span, 0..0);
    }

    proptest! {
        #[test]
        fn positions_of_any_text_are_its_own(text in "[\\PC\n\r\t]{0,80}", start in 0_usize..90, length in 0_usize..90) {
            for source in [Source::broken(Path::new("c"), &text, SECTIONS), Source::named(Path::new("c"), text.clone())] {
                let line = source.line(&(start..start + length));
                prop_assert!(line.text.get(line.span.clone()).is_some());
                prop_assert_eq!(line.number, source.position(start).0);
            }
        }
    }
}
