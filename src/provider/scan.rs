//! Goes over strict JSON once, checking all of it and building nothing: for what comes by the gigabyte.

/// A place in a text that is one JSON value on one line. Every method returns `None` where the text is not what was
/// asked for, or where that would take more than a scan to tell; then the place is nowhere.
#[derive(Debug)]
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

/// Nothing is scanned that is nested deeper.
const MAX_DEPTH: u32 = 100;

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

    /// A string without escapes, or `null`.
    pub(super) fn text_or_null(&mut self) -> Option<OrNull<&'a str>> {
        if self.is_null() { Some(OrNull::Null) } else { self.text().map(OrNull::Value) }
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
    fn text(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        let is_plain = self.string()?;
        let text = self.text.get(from..self.at - 1).filter(|_| is_plain)?;
        self.blanks();
        Some(text)
    }

    /// A string. Whether it has no escapes.
    #[inline]
    fn string(&mut self) -> Option<bool> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let mut is_plain = true;
        loop {
            self.at = special(self.text.as_bytes(), self.at)?;
            if self.peek()? == b'"' {
                self.at += 1;
                return Some(is_plain);
            }
            is_plain = false;
            self.escape()?;
        }
    }

    fn escape(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        self.at += match bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => {
                let digits = bytes.get(self.at + 2..self.at + 6)?;
                // Half a surrogate pair may be no character, which takes more to tell.
                let is_surrogate =
                    matches!(digits, [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
                if is_surrogate || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                6
            }
            _ => return None,
        };
        Some(())
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
