//! A line of results with a chat completion, written as the service's own line is gone over: byte for byte what
//! [`Completion`](super::chat::Completion) becomes, without values between.

use super::chat::{Tokens, finish_reason};
use super::given_line::GivenLine;
use super::scan::Scan;
use std::borrow::Cow;

/// One alternative, of texts that are the insides of JSON strings.
#[derive(Debug, Default)]
pub(super) struct ChoiceText {
    content: Option<Vec<u8>>,
    reasoning: Option<Vec<u8>>,
    /// JSON, with commas between.
    calls: Vec<u8>,
    count: usize,
    /// JSON, with commas between.
    others: Vec<u8>,
}

/// What a whole line says.
#[derive(Debug)]
pub(super) struct Answered<'a> {
    pub custom_id: &'a str,
    /// The completion's id.
    pub id: &'a str,
    /// Unix seconds.
    pub created: i64,
    pub model: &'a str,
    /// The alternatives that [`ChoiceText::end`] has written.
    pub choices: Vec<u8>,
    pub tokens: Option<Tokens>,
}

impl ChoiceText {
    pub fn say(&mut self, text: &str) {
        self.content.get_or_insert_default().extend_from_slice(text.as_bytes());
    }

    /// Thinks some more.
    pub fn think(&mut self, text: &str) {
        self.reasoning.get_or_insert_default().extend_from_slice(text.as_bytes());
    }

    /// How many calls there are so far.
    pub fn calls(&self) -> usize {
        self.count
    }

    /// Calls a tool with `arguments`, which are compact JSON.
    pub fn call(&mut self, id: &str, name: &str, arguments: &str) {
        separate(&mut self.calls);
        self.count += 1;
        let out = &mut self.calls;
        for piece in [r#"{"id":""#, id, r#"","type":"function","function":{"name":""#, name] {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(br#"","arguments":"#);
        json(arguments, out);
        out.extend_from_slice(b"}}");
    }

    /// A value for which OpenAI's form has no place, passed on as it is.
    pub fn other(&mut self, scan: &mut Scan<'_>) -> Option<()> {
        separate(&mut self.others);
        scan.copy(&mut self.others)
    }

    /// Writes it as the next of `choices`; `word` and `words` are as for [`finish_reason`].
    pub fn end(
        self,
        word: Option<&str>,
        words: &[(&str, &'static str)],
        index: usize,
        choices: &mut Vec<u8>,
    ) {
        let is_empty = self.content.is_none() && self.others.is_empty();
        let reason = finish_reason(word, words, is_empty, self.count > 0);
        let out = choices;
        separate(out);
        out.extend_from_slice(br#"{"index":"#);
        json(&index, out);
        out.extend_from_slice(br#","message":{"role":"assistant","content":"#);
        match &self.content {
            Some(content) => string(content, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","refusal":null"#);
        if let Some(reasoning) = &self.reasoning {
            out.extend_from_slice(br#","reasoning_content":"#);
            string(reasoning, out);
        }
        for (key, items) in [("provider_content", &self.others), ("tool_calls", &self.calls)] {
            if !items.is_empty() {
                for piece in [b",\"", key.as_bytes(), b"\":[", items, b"]"] {
                    out.extend_from_slice(piece);
                }
            }
        }
        out.extend_from_slice(br#"},"logprobs":null,"finish_reason":"#);
        json(&reason, out);
        out.push(b'}');
    }
}

impl<'a> Answered<'a> {
    /// Writes the line to `out`; gives what is counted of it.
    pub fn write(self, out: &mut Vec<u8>) -> GivenLine<'a> {
        out.extend_from_slice(br#"{"id":null,"custom_id":"#);
        json(self.custom_id, out);
        out.extend_from_slice(br#","response":{"status_code":200,"request_id":null,"body":{"id":"#);
        json(self.id, out);
        out.extend_from_slice(br#","object":"chat.completion","created":"#);
        json(&self.created, out);
        out.extend_from_slice(br#","model":"#);
        json(self.model, out);
        out.extend_from_slice(br#","choices":["#);
        out.extend_from_slice(&self.choices);
        out.push(b']');
        if let Some(tokens) = self.tokens {
            let total = tokens.prompt.saturating_add(tokens.completion);
            for (before, count) in [
                (&br#","usage":{"prompt_tokens":"#[..], tokens.prompt),
                (br#","completion_tokens":"#, tokens.completion),
                (br#","total_tokens":"#, total),
                (br#","prompt_tokens_details":{"cached_tokens":"#, tokens.cached),
                (br#"},"completion_tokens_details":{"reasoning_tokens":"#, tokens.reasoning),
            ] {
                out.extend_from_slice(before);
                json(&count, out);
            }
            out.extend_from_slice(b"}}");
        }
        out.extend_from_slice(br#"}},"error":null}"#);
        GivenLine {
            custom_id: Some(self.custom_id),
            status_code: 200,
            model: Some(self.model),
            usage: self.tokens.map(Tokens::usage),
        }
    }
}

/// A count, or 0 where there is `null`.
pub(super) fn count(scan: &mut Scan<'_>) -> Option<u64> {
    scan.count_or_null().map(|count| count.value().unwrap_or(0))
}

/// The fields of a call to a tool, however the service names them.
#[derive(Debug, Default)]
pub(super) struct Call<'a> {
    pub id: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
    /// Compact JSON.
    pub arguments: Option<String>,
}

impl<'a> Call<'a> {
    pub fn take_arguments(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        let mut arguments = Vec::new();
        scan.copy(&mut arguments)?;
        self.arguments.replace(String::from_utf8(arguments).ok()?).is_none().then_some(())
    }

    pub fn arguments(&self) -> &str {
        self.arguments.as_deref().unwrap_or("{}")
    }
}

fn separate(list: &mut Vec<u8>) {
    if !list.is_empty() {
        list.push(b',');
    }
}

fn string(inside: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(inside);
    out.push(b'"');
}

fn json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    // Texts and numbers can always be written, and a vector takes everything.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::batch::Batch;
    use crate::provider::lenient;
    use crate::provider::results::{OutputLine, Part, Record};
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    type WriteLine = for<'a> fn(&'a [u8], &'a Batch, &mut Vec<u8>) -> Option<GivenLine<'a>>;
    type Read = fn(Record<'_>) -> Result<OutputLine, String>;

    /// Whether `write` writes the line just as it is written once it is taken apart, and counts the same; `None`: it does
    /// not write it.
    fn compare(line: &[u8], write: WriteLine, read: Read) -> Option<bool> {
        let mut batch = Batch::unseen("b", "/v1/chat/completions", 1_795_000_000);
        batch.output_file_id = Some("files/out".to_owned());
        let mut written = b"before".to_vec();
        let given = write(line, &batch, &mut written)?;
        let read = |object: &Map<String, Value>| {
            read(Record { object, index: 3, part: Part::Output, batch: &batch })
        };
        let Ok(taken) =
            lenient::object(line).map_err(|error| error.to_string()).and_then(|object| read(&object))
        else {
            return Some(false);
        };
        let counted = GivenLine {
            custom_id: taken.custom_id.as_deref(),
            status_code: 200,
            model: taken.result.model(),
            usage: taken.usage,
        };
        let is_counted = counted == given && taken.result.is_success();
        let exact = lenient::exact(line).map(|exact| read(&exact).unwrap());
        let mut expected = b"before".to_vec();
        lenient::write(&exact.unwrap_or_else(|| taken.clone()).into_json(), &mut expected);
        Some(is_counted && written == expected)
    }

    /// Whether the line is written as it is once it is taken apart.
    pub fn goes_through(line: &[u8], write: WriteLine, read: Read) -> bool {
        compare(line, write, read) == Some(true)
    }

    /// Whether the line is written as it is once it is taken apart, or left alone.
    pub fn agrees(line: &[u8], write: WriteLine, read: Read) -> bool {
        compare(line, write, read) != Some(false)
    }

    /// Whether the line is left to be taken apart.
    pub fn is_left(line: &[u8], write: WriteLine, read: Read) -> bool {
        compare(line, write, read).is_none()
    }

    /// Holds `check` against the line with each of these changes made in it, once and by itself.
    pub fn with_each(line: &str, changes: &[(&str, &str)], check: impl Fn(&[u8]) -> bool) {
        for (from, to) in changes {
            let other = line.replacen(from, to, 1);
            assert_ne!(other, line, "{from}");
            assert!(check(other.as_bytes()), "{other}");
        }
    }

    /// Texts, with what is escaped in JSON.
    pub fn texts() -> impl Strategy<Value = String> {
        "[\\PC\"\\\\{}\\[\\],:\u{1}\t\u{7f}\n ]{0,12}"
    }

    /// Any values.
    pub fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|float| serde_json::json!(float)),
            texts().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zé]{0,4}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// What may happen to a line.
    #[derive(Clone, Debug)]
    pub struct Damage(Vec<(prop::sample::Index, Vec<u8>, bool)>);

    impl Damage {
        pub fn to(self, line: &str) -> Vec<u8> {
            let mut line = line.as_bytes().to_vec();
            for (place, with, instead) in self.0 {
                if !line.is_empty() {
                    let at = place.index(line.len());
                    line.splice(at..at + usize::from(instead), with);
                }
            }
            line
        }
    }

    pub fn damage() -> impl Strategy<Value = Damage> {
        let pieces = [
            "",
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "0",
            "-",
            ".",
            "e",
            "null",
            "\\u",
            "\\/",
            " ",
            "\"error\":1,",
            "\"type\":\"text\",",
            "\"text\":\"\",",
            "{\"text\":\"x\"},",
            "\u{10FFFD}",
        ];
        let with = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop::sample::select(pieces.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        ];
        prop::collection::vec((any::<prop::sample::Index>(), with, any::<bool>()), 0..4).prop_map(Damage)
    }
}
