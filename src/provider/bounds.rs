//! Bounds what the JSON of an answer can become in memory: what is too long or too much is passed over before anything is
//! decoded, and costs its own field (`docs/providers.md#parser-rules`).

use super::lenient::{MAX_DEPTH, string_end};
use std::borrow::Cow;

/// Shorter answers are decoded as they are: whatever they hold, it is little. In bytes.
pub const SMALL: usize = 64 * 1024;
/// No list is read beyond so many items; what is asked for is a hundred or a thousand at a time.
pub const MAX_ITEMS: usize = 10_000;

/// The longest text, number or key, in bytes.
const MAX_SCALAR: usize = 64 * 1024;
/// How much is kept of a whole list.
const LIST: Size = Size { bytes: 8 * 1024 * 1024, values: 400_000 };
/// What one object may hold in bytes and values, from the outermost level to the innermost; each is less than the one
/// around it, so that what is too large is found where it is.
const LEVELS: [Size; 5] = [
    Size { bytes: 1024 * 1024, values: 50_000 },
    Size { bytes: 512 * 1024, values: 25_000 },
    Size { bytes: 256 * 1024, values: 12_000 },
    Size { bytes: 128 * 1024, values: 6_000 },
    Size { bytes: 96 * 1024, values: 3_000 },
];

/// `text`, a JSON document, without what is too large in it.
///
/// Too large is a text or number of more than 64 KiB, an object or array with more than a few thousand values in it, and
/// what is nested deeper than any service nests; [`TOO_LARGE`](super::salvage::TOO_LARGE) stands in its place. Of the outermost object, what
/// comes after the first mebibyte is left out. The array under `list`, or an outermost array, is a list: each of its items
/// counts as a document, and after [`MAX_ITEMS`] of them that is the last item. What is no JSON stays none.
///
/// Takes time in proportion to the length, and less than 10 MiB of memory.
pub fn bounded<'a>(text: &'a [u8], list: Option<&str>) -> Cow<'a, [u8]> {
    if text.len() <= SMALL {
        return Cow::Borrowed(text);
    }
    let begin = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    if !begin.starts_with(b"{") && !begin.starts_with(b"[") {
        // No document at all: the beginning shows that as well.
        return Cow::Borrowed(&text[..SMALL]);
    }
    let mut pass = Pass { text: begin, list, out: Vec::new(), open: Vec::new(), skipped: 0, key: None };
    pass.run();
    Cow::Owned(pass.out)
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    bytes: usize,
    values: usize,
}

/// An object or array that has begun and not ended.
#[derive(Debug)]
struct Open {
    /// Where it begins in what is kept.
    begin: usize,
    kept: Size,
    /// It holds the items of the list.
    is_list: bool,
    /// How many commas have been in it.
    members: usize,
    /// How deep it is in its document; 0 is the document itself.
    level: usize,
}

struct Pass<'a> {
    text: &'a [u8],
    list: Option<&'a str>,
    out: Vec<u8>,
    open: Vec<Open>,
    /// How many brackets are open within what is passed over; 0: nothing is.
    skipped: usize,
    /// The last text that came.
    key: Option<&'a [u8]>,
}

impl Pass<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(&byte) = self.text.get(at) {
            if self.open.is_empty() && at > 0 {
                // Behind the document there is nothing, or it is none.
                let rest = self.text[at..].trim_ascii();
                self.out.extend_from_slice(&rest[..rest.len().min(MAX_REST)]);
                return;
            }
            at = match byte {
                b'"' => {
                    let Some(end) = string_end(self.text, at) else {
                        // It is cut off, and stays so.
                        self.out.push(b'"');
                        return;
                    };
                    let text = self.text;
                    self.key = Some(&text[at + 1..end - 1]);
                    self.scalar(at, end);
                    end
                }
                b'{' | b'[' => {
                    self.begin(byte);
                    at + 1
                }
                b'}' | b']' => {
                    self.end(byte);
                    at + 1
                }
                b',' => {
                    self.comma();
                    at + 1
                }
                b':' => {
                    self.keep(b":");
                    at + 1
                }
                byte if byte.is_ascii_whitespace() => {
                    let rest = &self.text[at..];
                    let end = at + rest.len() - rest.trim_ascii_start().len();
                    self.keep(b" ");
                    end
                }
                _ => {
                    let ends = |byte: &u8| {
                        byte.is_ascii_whitespace()
                            || matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':')
                    };
                    let end =
                        self.text[at..].iter().position(ends).map_or(self.text.len(), |length| at + length);
                    self.scalar(at, end);
                    end
                }
            };
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipped > 0 {
            return;
        }
        self.out.extend_from_slice(bytes);
        if let Some(open) = self.open.last_mut() {
            open.kept.bytes += bytes.len();
        }
        self.check();
    }

    fn scalar(&mut self, at: usize, end: usize) {
        if self.skipped > 0 {
            return;
        }
        if let Some(open) = self.open.last_mut() {
            open.kept.values += 1;
        }
        let text = self.text;
        if end - at > MAX_SCALAR {
            self.keep(PLACEHOLDER);
        } else {
            self.keep(&text[at..end]);
        }
    }

    fn begin(&mut self, bracket: u8) {
        if self.skipped > 0 {
            self.skipped += 1;
            return;
        }
        if self.open.len() >= MAX_DEPTH {
            self.keep(PLACEHOLDER);
            self.skipped = 1;
            return;
        }
        let level = match self.open.last() {
            None => 0,
            Some(around) if around.is_list => 0,
            Some(around) => around.level + 1,
        };
        let under_key = self.list.is_some_and(|list| self.key == Some(list.as_bytes()));
        let is_list = bracket == b'['
            && self.list.is_some()
            && (self.open.is_empty() || self.open.len() == 1 && under_key);
        self.open.push(Open {
            begin: self.out.len(),
            kept: Size { bytes: 0, values: 1 },
            is_list,
            members: 0,
            level,
        });
        self.keep(&[bracket]);
    }

    fn end(&mut self, bracket: u8) {
        if self.skipped > 0 {
            self.skipped -= 1;
            if self.skipped > 0 || self.is_replaced() {
                return;
            }
            // What is over is the object or list whose rest was left out.
        }
        self.out.push(bracket);
        if let Some(closed) = self.open.pop() {
            // A list has its own bounds; what is around it has to fit beside it.
            self.add(if closed.is_list { Size::default() } else { closed.kept });
        }
    }

    /// Whether what has been passed over is not open any more: something else stands in its place.
    fn is_replaced(&self) -> bool {
        self.open.last().is_none_or(|open| open.members != REST_LEFT_OUT)
    }

    fn add(&mut self, kept: Size) {
        if let Some(around) = self.open.last_mut() {
            around.kept.bytes += kept.bytes + 1;
            around.kept.values += kept.values;
        }
        self.check();
    }

    fn comma(&mut self) {
        if self.skipped > 0 {
            return;
        }
        let Some(open) = self.open.last_mut() else { return self.keep(b",") };
        open.members += 1;
        let is_full = if open.is_list {
            open.members >= MAX_ITEMS || exceeds(open.kept, LIST)
        } else {
            open.level == 0 && exceeds(open.kept, LEVELS[0])
        };
        if is_full {
            if open.is_list {
                self.out.push(b',');
                self.out.extend_from_slice(PLACEHOLDER);
            }
            self.leave_out_rest();
            return;
        }
        self.keep(b",");
    }

    fn leave_out_rest(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.members = REST_LEFT_OUT;
            self.skipped = 1;
        }
    }

    /// Puts something short in the place of what has become too large.
    fn check(&mut self) {
        let Some(open) = self.open.last() else { return };
        if open.is_list || open.level == 0 {
            let most = if open.is_list { LIST } else { LEVELS[0] };
            // Where no comma comes, it is broken.
            if exceeds(open.kept, Size { bytes: most.bytes * 2, values: most.values * 2 }) {
                self.leave_out_rest();
            }
            return;
        }
        if !exceeds(open.kept, LEVELS[open.level.min(LEVELS.len() - 1)]) {
            return;
        }
        self.out.truncate(open.begin);
        self.open.pop();
        self.skipped = 1;
        self.out.extend_from_slice(PLACEHOLDER);
        if let Some(around) = self.open.last_mut() {
            around.kept.bytes += PLACEHOLDER.len();
            around.kept.values += 1;
        }
    }
}

/// [`TOO_LARGE`](super::salvage::TOO_LARGE) as JSON.
const PLACEHOLDER: &[u8] = "\"\u{1FFFE}\"".as_bytes();
/// In place of a count of members: no more of them are kept.
const REST_LEFT_OUT: usize = usize::MAX;
/// So much of what stands behind a document shows that it is none. In bytes.
const MAX_REST: usize = 1024;

const fn exceeds(kept: Size, most: Size) -> bool {
    kept.bytes > most.bytes || kept.values > most.values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::salvage;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::fmt::Write as _;

    fn object(text: &str) -> serde_json::Map<String, Value> {
        let bounded = bounded(text.as_bytes(), None);
        assert!(bounded.len() < 4 * 1024 * 1024, "{} bytes are left", bounded.len());
        salvage::object(&bounded).unwrap_or_else(|| panic!("{}", &text[..60]))
    }

    #[test]
    fn what_is_too_large_costs_its_field() {
        const MANY: usize = 200_000;
        let mut keys = String::new();
        for number in 0..MANY {
            let _ = write!(keys, "\"key{number}\":{number},");
        }
        for large in [
            format!("[{}0]", "0,".repeat(MANY)),
            format!("{{{keys}\"z\":1}}"),
            format!("\"{}\"", "\\u0061".repeat(MANY)),
            "7".repeat(MANY),
            format!("{}{}", "[".repeat(MANY), "]".repeat(MANY)),
            format!("{}1{}", "{\"a\":".repeat(MANY), "}".repeat(MANY)),
            format!("[{}[]]", "[[]],".repeat(MANY)),
        ] {
            let text = format!(
                "{{\"id\":\"b\",\"large\":{large},\"in\":{{\"x\":{large},\"y\":1}},\"status\":\"s\"}}"
            );
            let object = object(&text);
            assert_eq!(
                (&object["id"], &object["status"], &object["in"]["y"]),
                (&json!("b"), &json!("s"), &json!(1))
            );
            let is_deep = large.starts_with("[[[") || large.starts_with("{\"a");
            assert!(
                is_deep || salvage::is_broken(&object["large"]) && salvage::is_broken(&object["in"]["x"])
            );
        }
    }

    #[test]
    fn of_an_object_with_too_many_keys_the_first_are_kept() {
        let mut text = "{\"id\":\"b\"".to_owned();
        for number in 0..1_000_000 {
            let _ = write!(text, ",\"key{number}\":[{number}]");
        }
        let object = object(&format!("{text}}}"));
        assert_eq!(object["id"], "b");
        assert!(object.len() < 60_000);
    }

    #[test]
    fn of_a_list_each_item_counts_for_itself() {
        let large = "0,".repeat(100_000);
        let mut items: Vec<String> = (0..300)
            .map(|number| format!("{{\"id\":{number},\"text\":\"{}\"}}", "x".repeat(20_000)))
            .collect();
        items.insert(7, format!("{{\"id\":\"large\",\"errors\":[{large}0]}}"));
        for (around, list) in
            [("{\"has_more\":true,\"data\":[ITEMS],\"last_id\":\"z\"}", "/data"), ("[ITEMS]", "")]
        {
            let text = around.replace("ITEMS", &items.join(","));
            let value = salvage::value(&bounded(text.as_bytes(), Some("data"))).unwrap();
            let read = value.pointer(list).unwrap().as_array().unwrap();
            assert_eq!(read.len(), items.len());
            assert_eq!((&read[300]["id"], &read[7]["id"]), (&json!(299), &json!("large")));
            assert!(salvage::is_broken(&read[7]["errors"]));
            assert!(list.is_empty() || value["last_id"] == "z");
        }
        let text = format!(
            "{{\"data\":[{}{{\"id\":\"last\"}}],\"has_more\":false}}",
            "{\"id\":\"b\"},".repeat(100_000)
        );
        let value = salvage::value(&bounded(text.as_bytes(), Some("data"))).unwrap();
        let read = value["data"].as_array().unwrap();
        assert_eq!((read.len(), &value["has_more"]), (MAX_ITEMS + 1, &json!(false)));
        assert!(salvage::is_broken(&read[MAX_ITEMS]));
    }

    #[test]
    fn what_is_no_document_stays_none() {
        let long = "x".repeat(SMALL);
        for text in [
            format!("{{\"a\":\"{long}\"}} x"),
            format!("{{\"a\":\"{long}"),
            format!("<html>{long}"),
            format!("{{\"a\":\"{long}\""),
            format!("{{\"a\":1}}{long}"),
        ] {
            assert_eq!(salvage::value(&bounded(text.as_bytes(), None)), None, "{}", &text[..20]);
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],: ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[\\PC\"\\\\]{0,4}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_of_a_usual_size_is_kept_as_it_is(document in value(), list: bool, pretty: bool) {
            let padding = "x".repeat(SMALL - 100);
            let document = json!({"a": padding, "data": document, "b": ["x".repeat(200)]});
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let read = bounded(text.as_ref().unwrap().as_bytes(), list.then_some("data"));
            prop_assert!(matches!(read, Cow::Owned(_)));
            prop_assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), document);
        }

        #[test]
        fn no_bytes_break_it(noise in "[\\[\\]{}\",:\\\\a1 ]{0,60}", times in 1_usize..4000, list: bool) {
            let text = format!("{{{}{}", noise.repeat(times), "]".repeat(SMALL));
            bounded(text.as_bytes(), list.then_some("a"));
        }
    }
}
