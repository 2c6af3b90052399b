//! Reads what can be read of JSON that is broken in places: a broken value costs its field, a broken item of a list that
//! item (`docs/providers.md#parser-rules`).

use super::lenient::{self, string_end};
use serde_json::{Map, Value};

/// The JSON value in `text`, with `BROKEN` in place of what no parser reads.
///
/// A byte order mark is passed over, and all that [`lenient::value`] reads is read. `None`: it is no JSON at all, or it
/// is cut off.
pub fn value(text: &[u8]) -> Option<Value> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if let Ok(value) = lenient::value(text) {
        return Some(value);
    }
    let mut reader = Salvage { text, at: 0 };
    let value = reader.value(0)?;
    let is_worth_it = match &value {
        Value::Object(fields) => fields.values().any(|value| !is_broken(value)),
        Value::Array(items) => items.iter().any(|item| !is_broken(item)),
        _ => false,
    };
    (is_worth_it && reader.peek().is_none()).then_some(value)
}

/// The JSON object in `text`, read as [`value`] does.
pub fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match value(text)? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Whether `value` stands where something was that no parser reads, or that was too large to be read.
pub fn is_broken(value: &Value) -> bool {
    why_broken(value).is_some()
}

/// Why what stood in the place of `value` was not read, as the end of a sentence; `None`: it was read.
pub fn why_broken(value: &Value) -> Option<&'static str> {
    match value.as_str()? {
        BROKEN => Some("is not JSON"),
        TOO_LARGE => Some("is too large to be read"),
        _ => None,
    }
}

/// The same for what stands anywhere in `value`.
pub fn why_holds_broken(value: &Value) -> Option<&'static str> {
    match value {
        Value::Array(items) => items.iter().find_map(why_holds_broken),
        Value::Object(fields) => fields.values().find_map(why_holds_broken),
        other => why_broken(other),
    }
}

/// Stands for what no parser reads: a noncharacter of Unicode, which no text has.
const BROKEN: &str = "\u{10FFFE}";

/// Stands for what was too large to be read, in a text before it is decoded and among the values: another noncharacter.
pub const TOO_LARGE: &str = "\u{1FFFE}";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

struct Salvage<'a> {
    text: &'a [u8],
    at: usize,
}

impl Salvage<'_> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
        self.text.get(self.at).copied()
    }

    /// The value that begins here; `None`: the text ends before it does.
    fn value(&mut self, depth: usize) -> Option<Value> {
        let begin = self.at;
        match self.peek()? {
            b'{' | b'[' if depth >= lenient::MAX_DEPTH => {
                self.skip_one()?;
                Some(read(&self.text[begin..self.at]))
            }
            b'{' => self.fields(depth),
            b'[' => self.items(depth),
            _ => {
                let begin = self.at;
                self.skip_junk()?;
                Some(read(&self.text[begin..self.at]))
            }
        }
    }

    /// The fields of the object that begins here.
    fn fields(&mut self, depth: usize) -> Option<Value> {
        let mut fields = Map::new();
        self.at += 1;
        loop {
            match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Some(Value::Object(fields));
                }
                // Its own end is missing: the bracket belongs to what is around it.
                b']' => return Some(Value::Object(fields)),
                b',' => self.at += 1,
                b'"' => {
                    let begin = self.at;
                    self.at = string_end(self.text, begin)?;
                    let key = read(&self.text[begin..self.at]);
                    if self.peek()? != b':' {
                        self.skip_junk()?;
                        continue;
                    }
                    self.at += 1;
                    let value = self.delimited(depth)?;
                    if let Value::String(key) = key {
                        fields.insert(key, value);
                    }
                }
                _ => self.skip_junk()?,
            }
        }
    }

    /// The items of the list that begins here.
    fn items(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.peek()? {
                b']' => {
                    self.at += 1;
                    return Some(Value::Array(items));
                }
                b'}' => return Some(Value::Array(items)),
                b',' => self.at += 1,
                _ => items.push(self.delimited(depth)?),
            }
        }
    }

    /// The value that begins here, if it goes up to a comma or bracket.
    fn delimited(&mut self, depth: usize) -> Option<Value> {
        let value = match self.peek()? {
            b',' | b'}' | b']' => Value::from(BROKEN),
            _ => self.value(depth + 1)?,
        };
        if matches!(self.peek()?, b',' | b'}' | b']') {
            return Some(value);
        }
        self.skip_junk()?;
        Some(Value::from(BROKEN))
    }

    /// Passes over everything up to a comma or bracket that belongs to what is around it.
    fn skip_junk(&mut self) -> Option<()> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b',' | b'}' | b']' => break,
                _ => self.skip_one()?,
            }
        }
        Some(())
    }

    /// Passes over a string, a bracketed part or one other byte.
    fn skip_one(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            match self.text.get(self.at)? {
                b'"' => self.at = string_end(self.text, self.at)?,
                byte => {
                    match byte {
                        b'{' | b'[' => open += 1,
                        b'}' | b']' => open = open.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                }
            }
            if open == 0 {
                return Some(());
            }
        }
    }
}

fn read(text: &[u8]) -> Value {
    lenient::value(text).unwrap_or_else(|_| Value::from(BROKEN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_broken_value_costs_its_field() {
        for (text, expected) in [
            ("\u{feff}{\"id\":\"b\"}", json!({"id": "b"})),
            (r#"{"id":"b","x":nope,"y":1}"#, json!({"id": "b", "x": BROKEN, "y": 1})),
            (r#"{"id":"b","x":"\q","y":1}"#, json!({"id": "b", "x": BROKEN, "y": 1})),
            ("{\"id\":\"b\",\"x\":\"a\tb\"}", json!({"id": "b", "x": BROKEN})),
            (
                r#"{"id":"b","x":,"y":[1,,2],"z":01}"#,
                json!({"id": "b", "x": BROKEN, "y": [1, 2], "z": BROKEN}),
            ),
            (
                r#"{"id":"b","m":{"a":"ok","b":+1,"c":NaN}}"#,
                json!({"id": "b", "m": {"a": "ok", "b": BROKEN, "c": null}}),
            ),
            (
                r#"{"id":"b",oops,'k':1,"y":{"z":2 3},"w":"\ud83d"}"#,
                json!({"id": "b", "y": {"z": BROKEN}, "w": "\u{fffd}"}),
            ),
        ] {
            assert_eq!(value(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_broken_item_costs_that_item() {
        for (page, expected) in [
            (r#"{"data":[{"id":"a"},nope,{"id":"c"}]}"#, json!({"data": [{"id": "a"}, BROKEN, {"id": "c"}]})),
            (
                r#"{"data":[{"id":"a"},{"id":"b" "x"},{"id":"c"}],"n":1}"#,
                json!({"data": [{"id": "a"}, {"id": BROKEN}, {"id": "c"}], "n": 1}),
            ),
            (
                r#"{"data":[{"id":"a"},{"id":"b","x":[1}],"n":1}"#,
                json!({"data": [{"id": "a"}, {"id": "b", "x": [1]}], "n": 1}),
            ),
            (r#"[{"id":"a"},{"id":}]"#, json!([{"id": "a"}, {"id": BROKEN}])),
        ] {
            assert_eq!(value(page.as_bytes()), Some(expected), "{page}");
        }
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in [
            "",
            "no such batch",
            "<html>{\"a\":1}</html>",
            "{'a':1}",
            "{oops}",
            "[nope]",
            "{\"a\":1",
            "{\"a\":\"b}",
            "{\"a\":1} x",
            "{\"a\":1}}",
        ] {
            assert_eq!(value(text.as_bytes()), None, "{text}");
        }
        let deep = format!("{{\"a\":1,\"b\":{}x{}}}", "[".repeat(9000), "]".repeat(9000));
        assert!(why_holds_broken(&value(deep.as_bytes()).unwrap()).is_some());
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{}\",:a1 \\\\n]*") {
            value(text.as_bytes());
        }

        #[test]
        fn what_is_json_is_read_as_it_is(keys in proptest::collection::vec(("\\PC*", any::<i64>()), 0..5)) {
            let whole = Value::Object(keys.into_iter().map(|(key, number)| (key, number.into())).collect());
            prop_assert_eq!(value(whole.to_string().as_bytes()), Some(whole));
        }
    }
}
