//! Goes over strict JSON once, checking all of it and building nothing: for what comes by the gigabyte.

use super::lenient::unit;
use std::borrow::Cow;

/// A place in a text that is one JSON value on one line. Every method returns `None` where the text is not what was
/// asked for, or where that would take more than a scan to tell; then the place is nowhere.
#[derive(Clone, Debug)]
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// What stands where a value or `null` may.
#[derive(Clone, Copy, Debug)]
pub(super) enum OrNull<T> {
    Null,
    Value(T),
}

impl<T> OrNull<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// How a string is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Without escapes.
    Plain,
    /// With escapes, all of which are the ones that `serde_json` writes.
    Usual,
    /// With others.
    Otherwise,
}

/// Nothing is scanned that is nested deeper.
const MAX_DEPTH: u32 = 100;
/// Nothing is copied that is nested deeper: what is left alone when it is that deep differs from reader to reader.
const MAX_COPIED_DEPTH: u32 = 60;
/// No object with more fields is copied: each key has to be compared with those before it.
const MAX_COPIED_FIELDS: usize = 32;
/// The noncharacters and the mark that stand for other things where values are read.
const RESERVED: [char; 3] = ['\u{1FFFE}', '\u{10FFFD}', '\u{10FFFE}'];

impl<'a> Scan<'a> {
    /// At the beginning of `text`; `None`: it is not UTF-8, or has control characters, which no string may hold.
    pub(super) fn new(text: &'a [u8]) -> Option<Self> {
        // Not `min`, nor `any`: this the compiler turns into a few instructions for many bytes at once.
        let least = text.iter().fold(u8::MAX, |least, byte| least.min(*byte));
        let text = std::str::from_utf8(text).ok().filter(|_| least >= b' ')?;
        let mut scan = Self { text, at: 0, depth: 0 };
        scan.blanks();
        Some(scan)
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        (self.at == self.text.len()).then_some(())
    }

    /// An object, of whose fields `take` takes each value by its key. A key with escapes is `None`.
    #[inline]
    pub(super) fn object(&mut self, mut take: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.fields(|scan| {
            let key = scan.text()?;
            scan.byte(b':')?;
            take(scan, key)
        })
    }

    /// Any value.
    pub(super) fn pass_over(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.string()?;
                self.blanks();
                Some(())
            }
            b'{' => self.fields(|scan| {
                scan.string()?;
                scan.blanks();
                scan.byte(b':')?;
                scan.pass_over()
            }),
            b'[' => self.list(b'[', b']', Self::pass_over),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    /// An array, of which `take` takes each item.
    #[inline]
    pub(super) fn array(&mut self, take: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.list(b'[', b']', take)
    }

    /// The inside of a string as `serde_json` writes it. One that begins with what stands for something else where values
    /// are read is `None`.
    pub(super) fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let from = self.at;
        let written = self.string()?;
        let (text, inside) = (&self.text[from..self.at], &self.text[from + 1..self.at - 1]);
        self.blanks();
        if written != Written::Otherwise {
            return (!inside.starts_with(RESERVED)).then_some(Cow::Borrowed(inside));
        }
        let read: String =
            serde_json::from_str(text).ok().filter(|read: &String| !read.starts_with(RESERVED))?;
        let mut written = serde_json::to_string(&read).ok()?;
        written.pop();
        written.remove(0);
        Some(Cow::Owned(written))
    }

    /// Copies any value to `out`: without blanks, numbers as they are written, strings as `serde_json` writes them.
    pub(super) fn copy(&mut self, out: &mut Vec<u8>) -> Option<()> {
        if self.depth > MAX_COPIED_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => {
                out.push(b'"');
                out.extend_from_slice(self.quoted()?.as_bytes());
                out.push(b'"');
            }
            b'{' => {
                let mut keys: Vec<&str> = Vec::new();
                out.push(b'{');
                self.object(|scan, key| {
                    if keys.len() == MAX_COPIED_FIELDS || keys.contains(&key) || key.starts_with(RESERVED) {
                        return None;
                    }
                    if !keys.is_empty() {
                        out.push(b',');
                    }
                    keys.push(key);
                    out.push(b'"');
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":");
                    scan.copy(out)
                })?;
                out.push(b'}');
            }
            b'[' => {
                let mut is_first = true;
                out.push(b'[');
                self.array(|scan| {
                    if !std::mem::take(&mut is_first) {
                        out.push(b',');
                    }
                    scan.copy(out)
                })?;
                out.push(b']');
            }
            _ => {
                let from = self.at;
                self.pass_over()?;
                out.extend_from_slice(self.text[from..self.at].trim_ascii_end().as_bytes());
            }
        }
        Some(())
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self) -> Option<bool> {
        let is_true = self.peek()? == b't';
        self.word(if is_true { "true" } else { "false" })?;
        Some(is_true)
    }

    /// A string without escapes, or `null`.
    pub(super) fn text_or_null(&mut self) -> Option<OrNull<&'a str>> {
        if self.is_null() { Some(OrNull::Null) } else { self.text().map(OrNull::Value) }
    }

    /// An id or a name, or `null`: a text that every reader takes for the same.
    pub(super) fn name_or_null(&mut self) -> Option<OrNull<&'a str>> {
        /// A longer one is left to whoever takes the line apart, in bytes.
        const LONGEST: usize = 512;
        let name = self.text_or_null()?;
        // A blank one is none.
        let is_plain = |name: &str| {
            name.len() <= LONGEST && name.starts_with(|c: char| !c.is_whitespace() && !RESERVED.contains(&c))
        };
        name.value().is_none_or(is_plain).then_some(name)
    }

    /// A whole number of at most 64 bits that is not negative.
    pub(super) fn count(&mut self) -> Option<u64> {
        let from = self.at;
        self.number()?;
        self.text[from..self.at].trim_ascii_end().parse().ok()
    }

    /// The same, or `null`.
    pub(super) fn count_or_null(&mut self) -> Option<OrNull<u64>> {
        if self.is_null() { Some(OrNull::Null) } else { self.count().map(OrNull::Value) }
    }

    pub(super) fn null(&mut self) -> Option<()> {
        self.word("null")
    }

    /// Goes over a `null`, if there is one here.
    pub(super) fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.null().is_some()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// This byte, and the blanks behind it.
    #[inline]
    fn byte(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.blanks();
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return None;
        }
        self.at += word.len();
        self.blanks();
        Some(())
    }

    #[inline]
    fn fields(&mut self, field: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.list(b'{', b'}', field)
    }

    /// What stands between `open` and `close` with commas between.
    #[inline]
    fn list(&mut self, open: u8, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.byte(open)?;
        if self.peek()? == close {
            return self.byte(close);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        loop {
            item(self)?;
            match self.peek()? {
                b',' => self.byte(b',')?,
                _ => break,
            }
        }
        self.depth -= 1;
        self.byte(close)
    }

    /// A string without escapes, and the blanks behind it.
    #[inline]
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        let written = self.string()?;
        let text = self.text.get(from..self.at - 1).filter(|_| written == Written::Plain)?;
        self.blanks();
        Some(text)
    }

    /// A string.
    #[inline]
    fn string(&mut self) -> Option<Written> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let mut written = Written::Plain;
        loop {
            self.at = special(self.text.as_bytes(), self.at)?;
            if self.peek()? == b'"' {
                self.at += 1;
                return Some(written);
            }
            if !self.escape()? {
                written = Written::Otherwise;
            } else if written == Written::Plain {
                written = Written::Usual;
            }
        }
    }

    /// An escape. Whether it is one that `serde_json` writes.
    fn escape(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        let (length, is_usual) = match bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => (2, true),
            b'/' => (2, false),
            b'u' => match unit(bytes, self.at)? {
                // Half a surrogate pair is no character.
                0xD800..0xDC00 => match unit(bytes, self.at + 6)? {
                    0xDC00..0xE000 => (12, false),
                    _ => return None,
                },
                0xDC00..0xE000 => return None,
                _ => (6, false),
            },
            _ => return None,
        };
        self.at += length;
        Some(is_usual)
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    /// A number in JSON's own grammar, and the blanks behind it.
    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.blanks();
        Some(())
    }
}

/// Where the first quotation mark or backslash stands from `at` on.
#[inline]
fn special(text: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    /// Most strings are short; what is longer is worth a search that takes longer to begin.
    const SHORT: usize = 4;
    let mut at = at;
    for _ in 0..SHORT {
        let Some(eight) = text.get(at..at + 8).and_then(|eight| eight.try_into().ok()) else { break };
        let eight = u64::from_le_bytes(eight);
        let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let found = has_zero(eight ^ (ONES * u64::from(b'"'))) | has_zero(eight ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr::memchr2(b'"', b'\\', text.get(at..)?).map(|place| at + place)
}
