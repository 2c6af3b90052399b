//! Reads JSON as the parsers of Python and JavaScript do: what only strict JSON refuses is read all the same, and numbers
//! can be passed on as they were written.

use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// The JSON value in `text`.
///
/// Read like Python's or JavaScript's parser reads them: escapes of half a surrogate pair (as U+FFFD, since a Rust text
/// cannot hold one), `NaN` and the infinities (as `null`, which is what JSON has for them), numbers beyond what a float
/// holds (as `null` too), bytes that are not UTF-8 (as U+FFFD). What is nested more than [`MAX_DEPTH`] deep is `null`.
///
/// # Errors
///
/// What strict JSON says about a text that none of these parsers reads.
pub fn value(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).or_else(|error| match mended(text, Numbers::Finite, usize::MAX) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    })
}

/// The JSON object in `text`, read as [`value`] does.
///
/// # Errors
///
/// As for [`value`]; also for a value that is no object.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match value(text)? {
        Value::Object(object) => Ok(object),
        other => serde_json::from_value(other),
    }
}

/// The JSON object in `text` with every number as it was written, if reading it as [`object`] does changes one.
///
/// Such a number is a marked text, which `write` and [`text`] turn into the number again: `serde_json` holds neither
/// integers of more than 64 bits nor every digit of a float.
pub fn exact(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(&mended(text, Numbers::AsWritten, usize::MAX)?).ok()
}

/// The JSON object in a long `text`, with every number as it was written and every object or array of more than
/// a few thousand values as a text that [`text`] turns into itself again: it takes memory in proportion to its length.
///
/// # Errors
///
/// As for [`object`]; also for an object that has too many values itself.
pub fn compact(text: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let strict = |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text);
    let mut text = Cow::Borrowed(text);
    // What has no end must not be decoded up to there.
    if let Err(error) = strict(&text) {
        text = Cow::Owned(mended(&text, Numbers::Finite, usize::MAX).ok_or(error)?);
        strict(&text)?;
    }
    if let Some(mended) = mended(&text, Numbers::AsWritten, MAX_VALUES) {
        text = Cow::Owned(mended);
    }
    serde_json::from_slice(&text)
}

/// Whether `text` is one whole JSON value to any of these parsers, rather than the beginning of one.
pub fn is_whole(text: &[u8]) -> bool {
    let reads = |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    reads(text) || mended(text, Numbers::Finite, usize::MAX).is_some_and(|mended| reads(&mended))
}

/// The text or number that stands behind the first of `keys` that there is, in a text that may be no JSON at all.
pub fn find_text(text: &[u8], keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| {
        let quoted = format!("\"{key}\"");
        memchr::memmem::find_iter(text, quoted.as_bytes()).find_map(|at| {
            let rest = text[at + quoted.len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let end = match rest.first()? {
                b'"' => string_end(rest, 0)?,
                _ => number_end(rest, 0),
            };
            match value(&rest[..end]).ok()? {
                Value::String(text) => Some(text),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            }
        })
    })
}

/// `value` as JSON, marked numbers as they were written.
pub fn text(value: &Value) -> String {
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// JSON that is written as it is.
pub fn raw(json: &[u8]) -> Value {
    let mut text = String::from(MARK);
    text.push_str(&String::from_utf8_lossy(json));
    text.into()
}

/// Writes `value` as JSON, marked numbers as they were written.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => match text.strip_prefix(MARK) {
            // A text that began with the mark itself has a second one.
            Some(rest) if rest.starts_with(MARK) => plain(&rest, out),
            Some(raw) => out.extend_from_slice(raw.as_bytes()),
            None => plain(text, out),
        },
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (place, (key, value)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                plain(key, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => plain(value, out),
    }
}

fn plain(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    // Texts and numbers can always be written, and a vector takes everything.
    let _ = serde_json::to_writer(out, value);
}

/// What is nested deeper than this is passed over, since `serde_json` gives up at 128.
pub const MAX_DEPTH: usize = 100;

/// More values than this in one object or array are kept as they are written, where much is to be read.
const MAX_VALUES: usize = 16 * 1024;

/// Begins a text that is JSON to be written as it is. A character for private use, the last there is.
const MARK: char = '\u{10FFFD}';

/// What becomes of numbers that `serde_json` cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// Those beyond a float's range become `null`, the others are rounded.
    Finite,
    /// All whose text would change are marked.
    AsWritten,
}

/// `text` so that strict JSON reads it, if there is anything to be changed. What holds more than `most_values` is marked,
/// or passed over if it is all of the text.
fn mended(text: &[u8], numbers: Numbers, most_values: usize) -> Option<Vec<u8>> {
    let (text, is_utf8) = match String::from_utf8_lossy(text) {
        Cow::Borrowed(text) => (Cow::Borrowed(text.as_bytes()), true),
        Cow::Owned(text) => (Cow::Owned(text.into_bytes()), false),
    };
    let mut mending =
        Mending { text: &text, numbers, most_values, open: Vec::new(), out: Vec::new(), copied: 0 };
    mending.run();
    let Mending { mut out, copied, .. } = mending;
    if out.is_empty() && is_utf8 {
        return None;
    }
    out.extend_from_slice(&text[copied..]);
    Some(out)
}

struct Mending<'a> {
    text: &'a [u8],
    numbers: Numbers,
    most_values: usize,
    /// What is open, where values are counted.
    open: Vec<Open>,
    out: Vec<u8>,
    /// How much of the text is in `out`.
    copied: usize,
}

/// An object or array that has begun, and how things stood then.
struct Open {
    at: usize,
    out: usize,
    copied: usize,
    values: usize,
}

impl Mending<'_> {
    fn run(&mut self) {
        let (mut at, mut depth) = (0, 0_usize);
        while let Some(&byte) = self.text.get(at) {
            at = match byte {
                b'"' => self.string(at),
                b'{' | b'[' if depth >= MAX_DEPTH => self.deep(at),
                b'{' | b'[' => {
                    depth += 1;
                    if self.most_values < usize::MAX {
                        self.open.push(Open { at, out: self.out.len(), copied: self.copied, values: 1 });
                    }
                    at + 1
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.close(at + 1);
                    at + 1
                }
                b',' => {
                    if let Some(open) = self.open.last_mut() {
                        open.values += 1;
                    }
                    at + 1
                }
                b'-' | b'0'..=b'9' | b'N' | b'I' => self.number(at),
                _ => at + 1,
            };
        }
    }

    /// What was opened last ends before `end`: if it holds too much it is marked.
    fn close(&mut self, end: usize) {
        let Some(Open { at, out, copied, values }) = self.open.pop() else { return };
        let is_too_much = values > self.most_values;
        if is_too_much {
            self.out.truncate(out);
            self.copied = copied;
            self.mark(at, end);
        }
        if let Some(around) = self.open.last_mut() {
            around.values += if is_too_much { 1 } else { values };
        }
    }

    fn replace(&mut self, from: usize, to: usize, with: &[u8]) {
        self.out.extend_from_slice(&self.text[self.copied..from]);
        self.out.extend_from_slice(with);
        self.copied = to;
    }

    /// Replaces by JSON to be written as it is.
    fn mark(&mut self, from: usize, to: usize) {
        let begin = self.out.len() + (from - self.copied) + 1;
        self.replace(from, to, b"");
        plain(&String::from_utf8_lossy(&self.text[from..to]), &mut self.out);
        let mut mark = [0; 4];
        self.out.splice(begin..begin, MARK.encode_utf8(&mut mark).bytes());
    }

    /// Passes over the string that begins `at` its quotation mark.
    fn string(&mut self, at: usize) -> usize {
        let Some(end) = string_end(self.text, at) else { return self.text.len() };
        let inside = &self.text[at + 1..end - 1];
        if self.numbers == Numbers::AsWritten && begins_with_mark(inside) {
            let is_key = self.text[end..].trim_ascii_start().starts_with(b":");
            if !is_key {
                let mut buffer = [0; 4];
                self.replace(at + 1, at + 1, MARK.encode_utf8(&mut buffer).as_bytes());
            }
        }
        let mut rest = at + 1;
        while let Some(escape) = memchr::memchr(b'\\', &self.text[rest..end]).map(|place| rest + place) {
            rest = escape + 2;
            match unit(self.text, escape) {
                Some(0xD800..0xDC00) if matches!(unit(self.text, escape + 6), Some(0xDC00..0xE000)) => {
                    rest = escape + 12;
                }
                Some(0xD800..0xE000) => {
                    self.replace(escape, escape + 6, b"\\ufffd");
                    rest = escape + 6;
                }
                _ => {}
            }
        }
        end
    }

    /// Passes over a number, or a word that stands for one in Python.
    fn number(&mut self, at: usize) -> usize {
        for word in ["NaN", "Infinity", "-Infinity"] {
            if self.text[at..].starts_with(word.as_bytes()) {
                self.replace(at, at + word.len(), b"null");
                return at + word.len();
            }
        }
        let end = number_end(self.text, at);
        let number = std::str::from_utf8(&self.text[at..end]).unwrap_or_default();
        if !is_number(number) {
            return end.max(at + 1);
        }
        match self.numbers {
            Numbers::AsWritten if !survives(number) => self.mark(at, end),
            Numbers::Finite if number.parse().is_ok_and(f64::is_infinite) => {
                self.replace(at, end, b"null");
            }
            Numbers::AsWritten | Numbers::Finite => {}
        }
        end
    }

    /// Passes over an object or array that is nested too deep.
    fn deep(&mut self, at: usize) -> usize {
        let (mut end, mut open) = (at, 0_usize);
        while let Some(&byte) = self.text.get(end) {
            end = match byte {
                b'"' => string_end(self.text, end).unwrap_or(self.text.len()),
                _ => end + 1,
            };
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            if open == 0 {
                break;
            }
        }
        // What is none has to be seen as none.
        if serde_json::from_slice::<IgnoredAny>(&self.text[at..end]).is_ok() {
            match self.numbers {
                Numbers::Finite => self.replace(at, end, b"null"),
                Numbers::AsWritten => self.mark(at, end),
            }
        }
        end
    }
}

/// Where the string ends that begins `at` its quotation mark.
pub(super) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut rest = at + 1;
    loop {
        rest += memchr::memchr2(b'"', b'\\', text.get(rest..)?)?;
        if text[rest] == b'"' {
            return Some(rest + 1);
        }
        rest += 2;
    }
}

/// Where the run of characters ends that numbers consist of.
fn number_end(text: &[u8], at: usize) -> usize {
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    at + text[at..].iter().take_while(|byte| in_number(byte)).count()
}

/// The UTF-16 unit that is escaped `at` its backslash.
pub(super) fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

/// Whether a string's inside begins with [`MARK`], plain or escaped.
fn begins_with_mark(inside: &[u8]) -> bool {
    let mut buffer = [0; 4];
    let mut units = [0; 2];
    let units = MARK.encode_utf16(&mut units);
    inside.starts_with(MARK.encode_utf8(&mut buffer).as_bytes())
        || units.iter().zip([0, 6]).all(|(wanted, at)| unit(inside, at) == Some(*wanted))
}

/// Whether it is a number in JSON's own grammar.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

/// Whether `serde_json` writes the number as it was written.
fn survives(number: &str) -> bool {
    /// As many digits as every float of them can be told apart by.
    const SAFE_DIGITS: usize = 15;
    if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return number != "-0"
            && (number.len() <= SAFE_DIGITS
                || number.parse::<i64>().is_ok()
                || number.parse::<u64>().is_ok());
    }
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let float = number.parse().ok().and_then(Number::from_f64);
    digits <= SAFE_DIGITS && float.is_some_and(|float| float.to_string() == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_python_and_javascript_read_is_read() {
        for (text, read) in [
            (r#"{"a":"so nice \ud83d"}"#, json!({"a": "so nice \u{fffd}"})),
            (r#"{"a":"\ude00\ud83d\ud83d\ude00\ud83dx"}"#, json!({"a": "\u{fffd}\u{fffd}😀\u{fffd}x"})),
            (r#"{"a":"\\ud83d"}"#, json!({"a": "\\ud83d"})),
            (r#"{"\ud83d":1}"#, json!({"\u{fffd}": 1})),
            (r#"{"a":[NaN,Infinity,-Infinity,-1]}"#, json!({"a": [null, null, null, -1]})),
            (r#"{"a":"NaN"}"#, json!({"a": "NaN"})),
            (r#"{"a":1e999,"b":-1e999}"#, json!({"a": null, "b": null})),
        ] {
            assert_eq!(value(text.as_bytes()).unwrap(), read, "{text}");
            assert!(is_whole(text.as_bytes()), "{text}");
        }
        assert_eq!(value(b"\"caf\xe9\"").unwrap(), json!("caf\u{fffd}"));
    }

    #[test]
    fn what_nobody_reads_is_not_read() {
        for text in [
            "{",
            "{\"a\":\"\\ud83d",
            "{'a':1}",
            "[1,]",
            "[1 NaN]",
            "NaNNaN",
            "[01]",
            "nan",
            "{NaN:1}",
            "\"\t\"",
            "-",
        ] {
            assert!(value(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(b"[1]").is_err());
        assert!(!is_whole(b"{\"a\":[NaN"));
    }

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let text = r#"{"a":[0.1234567890123456789,12345678901234567890123,-0,1E5,0.10,1.0,7,18446744073709551615,1e999]}"#;
        assert_eq!(super::text(&Value::Object(exact(text.as_bytes()).unwrap())), text);
        assert!(exact(br#"{"a":[1,-2,0.5,1.0,-9223372036854775808]}"#).is_none());
    }

    #[test]
    fn what_holds_much_is_passed_on_as_it_is_written() {
        let many = |item: &str| format!("[{}{item}]", format!("{item}, ").repeat(MAX_VALUES));
        for large in
            [many("0.10"), many("\"\\u00e9\""), many("[]"), format!("{{\"a\":{}}}", many("{\"b\":[1]}"))]
        {
            let text = format!("{{\"n\":1.0,\"a\":{{\"b\":[{large},7]}},\"c\":\"\u{10FFFD}x\",\"d\":1E5}}");
            let object = compact(text.as_bytes()).unwrap();
            assert!(object["a"]["b"].as_array().unwrap().len() == 2);
            assert!(object["a"]["b"][0].is_string() || object["a"]["b"][0]["a"].is_string());
            assert_eq!(super::text(&Value::Object(object)), text);
            assert!(compact(&text.as_bytes()[..text.len() - 1]).is_err());
            assert!(large.starts_with('{') || compact(large.as_bytes()).is_err(), "no object");
            let odd = text.replace("1E5", "NaN");
            assert_eq!(compact(odd.as_bytes()).unwrap()["d"], Value::Null);
        }
        let keys: Vec<String> = (0..=MAX_VALUES).map(|number| format!("\"k{number}\":0")).collect();
        assert!(compact(format!("{{{}}}", keys.join(",")).as_bytes()).is_err());
    }

    #[test]
    fn what_is_nested_too_deep_is_passed_over_or_on() {
        let deep = format!("{{\"b\":2,\"a\":{}1{}}}", "[".repeat(3000), "]".repeat(3000));
        assert_eq!(object(deep.as_bytes()).unwrap()["b"], 2);
        assert_eq!(super::text(&Value::Object(exact(deep.as_bytes()).unwrap())), deep);
        let broken = format!("{}x{}", "[".repeat(200), "]".repeat(200));
        assert!(value(broken.as_bytes()).is_err());
    }

    #[test]
    fn an_id_is_found_in_what_is_no_json() {
        let keys = ["custom_id", "key"];
        assert_eq!(find_text(br#"{"key": "k\"1", "x": }"#, &keys).as_deref(), Some("k\"1"));
        assert_eq!(find_text(br#"{"key":"k","custom_id" : 7,"#, &keys).as_deref(), Some("7"));
        assert_eq!(find_text(br#"{"custom_id":nul"#, &keys), None);
        assert_eq!(find_text(br#"{"custom_id"#, &keys), None);
        assert_eq!(find_text(br#"{"custom_id":"half"#, &keys), None);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
            "\u{10FFFD}{0,3}\\PC{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("\u{10FFFD}{0,2}\\PC{0,3}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn number() -> impl Strategy<Value = String> {
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?"
    }

    proptest! {
        #[test]
        fn strict_json_is_read_as_ever(document in json()) {
            let written = document.to_string();
            let read: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(value(written.as_bytes()).unwrap(), read);
        }

        #[test]
        fn what_is_read_exactly_is_written_byte_for_byte(document in json(), numbers in prop::collection::vec(number(), 1..6)) {
            let written = format!("{{\"n\":[{}],\"d\":{document}}}", numbers.join(","));
            let read = exact(written.as_bytes()).unwrap_or_else(|| object(written.as_bytes()).unwrap());
            prop_assert_eq!(&text(&Value::Object(read)), &written);
            let compact = compact(written.as_bytes()).unwrap();
            prop_assert_eq!(text(&Value::Object(compact)), written);
        }

        #[test]
        fn half_pairs_anywhere_cost_themselves_only(before in "[a-zé\u{1F600}]{0,4}", unit in 0xD800_u16..0xE000, after in "[a-z]{0,4}") {
            let written = format!("{{\"t\":\"{before}\\u{unit:04x}{after}\",\"n\":1}}");
            let read = object(written.as_bytes()).unwrap();
            prop_assert_eq!(&read["t"], &format!("{before}\u{fffd}{after}"));
            prop_assert_eq!(&read["n"], 1);
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>, noise in "[\\[\\]{}\",:\\\\udINa0-9eE.+-]{0,40}") {
            for text in [bytes.as_slice(), noise.as_bytes()] {
                let (_, _, _) = (exact(text), find_text(text, &["a"]), compact(text));
                prop_assert_eq!(value(text).is_ok() && !is_whole(text), false);
            }
        }
    }
}
