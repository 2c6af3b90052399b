//! Successful lines of Anthropic's results, and of others that hold such messages, written in OpenAI's form in one pass.

use super::results::{STOP_REASONS, tokens};
use crate::domain::batch::Batch;
use crate::provider::chat::Tokens;
use crate::provider::chat_line::{Answered, Call, ChoiceText, count};
use crate::provider::given_line::{GivenLine, once};
use crate::provider::scan::Scan;

/// A line of the results file, as [`output_line`](super::results::output_line) reads it.
pub(super) fn write_line<'a>(record: &'a [u8], batch: &Batch, out: &mut Vec<u8>) -> Option<GivenLine<'a>> {
    let mut scan = Scan::new(record)?;
    let (mut custom_id, mut message) = (None, None);
    scan.object(|scan, key| match key {
        "custom_id" => once(&mut custom_id, scan.name_or_null()?.value()?),
        "result" => once(&mut message, succeeded(scan)?),
        _ => scan.pass_over(),
    })?;
    scan.end()?;
    let Message { id, model, choices, tokens } = message?;
    let line = Answered { custom_id: custom_id?, id, created: batch.created_at, model, choices, tokens };
    Some(line.write(out))
}

/// The message of a result that is a success.
fn succeeded<'a>(scan: &mut Scan<'a>) -> Option<Message<'a>> {
    let (mut fate, mut message) = (None, None);
    scan.object(|scan, key| match key {
        "type" => once(&mut fate, scan.text()?),
        "message" => once(&mut message, Message::read(scan)?),
        // It would tell an id.
        "error" => None,
        _ => scan.pass_over(),
    })?;
    message.filter(|_| fate == Some("succeeded"))
}

/// A message as a chat completion.
pub(in crate::provider) struct Message<'a> {
    pub id: &'a str,
    pub model: &'a str,
    /// One alternative, as JSON.
    pub choices: Vec<u8>,
    pub tokens: Option<Tokens>,
}

impl<'a> Message<'a> {
    pub fn read(scan: &mut Scan<'a>) -> Option<Self> {
        let (mut id, mut model, mut choice, mut word, mut usage) = (None, None, None, None, None);
        scan.object(|scan, key| match key {
            "id" => once(&mut id, scan.name_or_null()?.value()),
            "model" => once(&mut model, scan.name_or_null()?.value()),
            "content" => once(&mut choice, content(scan)?),
            "stop_reason" => once(&mut word, scan.name_or_null()?.value()),
            "usage" => once(&mut usage, read_usage(scan)?),
            _ => scan.pass_over(),
        })?;
        let mut choices = Vec::new();
        choice?.end(word.flatten(), &STOP_REASONS, 0, &mut choices);
        let [id, model] = [id, model].map(|text| text.flatten().unwrap_or_default());
        Some(Self { id, model, choices, tokens: usage })
    }
}

fn content(scan: &mut Scan<'_>) -> Option<ChoiceText> {
    let mut choice = ChoiceText::default();
    scan.array(|scan| {
        let begin = scan.clone();
        let (mut kind, mut text, mut thought, mut call) = (None, None, None, Call::default());
        scan.object(|scan, key| match key {
            "type" => once(&mut kind, scan.text()?),
            "text" => once(&mut text, scan.quoted()?),
            "thinking" => once(&mut thought, scan.quoted()?),
            "id" => once(&mut call.id, scan.quoted()?),
            "name" => once(&mut call.name, scan.quoted()?),
            "input" => call.take_arguments(scan),
            _ => scan.pass_over(),
        })?;
        match kind? {
            "text" => choice.say(&text?),
            "thinking" => choice.think(&thought?),
            "tool_use" => choice.call(call.id.as_deref()?, call.name.as_deref()?, call.arguments()),
            _ => {
                let mut whole = begin;
                return choice.other(&mut whole);
            }
        }
        Some(())
    })?;
    Some(choice)
}

fn read_usage(scan: &mut Scan<'_>) -> Option<Tokens> {
    let (mut input, mut written, mut cached) = (None, None, None);
    let (mut output, mut thinking, mut written_1h) = (None, None, None);
    scan.object(|scan, key| match key {
        "input_tokens" => once(&mut input, count(scan)?),
        "cache_creation_input_tokens" => once(&mut written, count(scan)?),
        "cache_read_input_tokens" => once(&mut cached, count(scan)?),
        "output_tokens" => once(&mut output, count(scan)?),
        "output_tokens_details" => once(&mut thinking, count_within(scan, "thinking_tokens")?),
        "cache_creation" => once(&mut written_1h, count_within(scan, "ephemeral_1h_input_tokens")?),
        _ => scan.pass_over(),
    })?;
    Some(tokens(|field| {
        match field {
            "input_tokens" => input,
            "cache_creation_input_tokens" => written,
            "cache_read_input_tokens" => cached,
            "output_tokens" => output,
            "output_tokens_details.thinking_tokens" => thinking,
            "cache_creation.ephemeral_1h_input_tokens" => written_1h,
            _ => None,
        }
        .unwrap_or(0)
    }))
}

/// The count `wanted` within an object; 0 where there is `null`.
fn count_within(scan: &mut Scan<'_>, wanted: &str) -> Option<u64> {
    let mut found = None;
    if !scan.is_null() {
        scan.object(
            |scan, key| {
                if key == wanted { once(&mut found, count(scan)?) } else { scan.pass_over() }
            },
        )?;
    }
    Some(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::anthropic::results::output_line;
    use crate::provider::chat_line::tests::{
        agrees, damage, goes_through, is_left, texts, values, with_each,
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LINE: &str = r#"{"custom_id": "row-ü", "result": {"type": "succeeded", "message": {"id": "msg_1", "type": "message",
        "model": "claude-x", "content": [{"type": "text", "text": "a \"b\" \n é \/ \u00e9 \ud83d\ude00 {[,:"},
        {"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "tool_use", "id": "t", "name": "f",
        "input": {"a": [1.50, -0.0, 12345678901234567890123], "b\u0062": {}}}, {"type": "redacted_thinking", "data": "x\/"}],
        "stop_reason": "tool_use", "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_1h_input_tokens": 1}, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 4},
        "service_tier": "batch"}}}}"#;

    fn line() -> String {
        // On one line, as a record is.
        LINE.replace("\n        ", " ").replace("b\\u0062", "b")
    }

    #[test]
    fn an_ordinary_line_is_written_in_one_pass() {
        let line = line();
        assert!(goes_through(line.as_bytes(), write_line, output_line), "{line}");
        let changes = [
            ("\"tool_use\", \"usage\"", "\"pause_turn\", \"usage\""),
            ("\"tool_use\", \"usage\"", "null, \"usage\""),
            ("{\"type\": \"text\"", "{\"citations\": [], \"type\": \"text\""),
            ("\"service_tier\": \"batch\"", "\"service_tier\": null, \"x\": 1.5e400"),
            ("\"input_tokens\": 5", "\"input_tokens\": null"),
            ("\"id\": \"msg_1\", ", ""),
            (", \"usage\": {", ", \"others\": {"),
        ];
        with_each(&line, &changes, |line| goes_through(line, write_line, output_line));
    }

    #[test]
    fn what_is_not_clear_is_left_to_be_taken_apart() {
        let line = line();
        let changes = [
            ("\"succeeded\"", "\"errored\""),
            ("\"succeeded\"", "\"succeeded\", \"error\": {\"request_id\": \"r\"}"),
            ("\"row-ü\"", "7"),
            ("\"custom_id\": \"row-ü\", ", ""),
            ("\"text\": \"a", "\"text\": \"\u{10FFFD}a"),
            ("\"text\": \"a", "\"text\": \"\\udbff\\udffda"),
            ("\"text\": \"a", "\"text\": \"\\ud83da"),
            ("\"b\": {}", "\"a\": {}"),
            ("-0.0", "NaN"),
            ("-0.0", "\"\u{10FFFD}1\""),
            ("\"input_tokens\": 5", "\"input_tokens\": 5.0"),
            ("\"input_tokens\": 5", "\"input_tokens\": \"5\""),
            ("\"content\": [", "\"content\": [7, "),
            ("\"content\": [", "\"content\": null, \"x\": ["),
        ];
        with_each(&line, &changes, |line| is_left(line, write_line, output_line));
    }

    fn block() -> impl Strategy<Value = Value> {
        prop_oneof![
            texts().prop_map(|text| json!({"type": "text", "text": text})),
            texts().prop_map(|text| json!({"type": "thinking", "thinking": text, "signature": "s"})),
            (texts(), values()).prop_map(
                |(name, input)| json!({"type": "tool_use", "id": "t", "name": name, "input": input})
            ),
            values().prop_map(|value| json!({"type": "server_tool_use", "what": value})),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_message_says_both_ways_write_the_same(
            blocks in prop::collection::vec(block(), 0..5),
            word in prop::sample::select(vec!["end_turn", "max_tokens", "tool_use", "refusal", "Else"]),
            more in values(), counts in prop::array::uniform3(any::<u64>()),
        ) {
            let usage = json!({"input_tokens": counts[0], "output_tokens": counts[1], "cache_read_input_tokens": counts[2]});
            let message = json!({"id": "m", "model": "claude", "content": blocks, "stop_reason": word, "usage": usage, "more": more});
            let line = json!({"custom_id": "a", "result": {"type": "succeeded", "message": message}}).to_string();
            prop_assert!(goes_through(line.as_bytes(), write_line, output_line), "{}", line);
        }

        #[test]
        fn no_damage_makes_another_line(changes in damage()) {
            let line = changes.to(&line());
            prop_assert!(agrees(&line, write_line, output_line), "{}", String::from_utf8_lossy(&line));
        }
    }
}
