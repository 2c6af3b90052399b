//! Keyed lines of Gemini's results with answers in words, written in OpenAI's form in one pass.

use super::results::{FINISH_REASONS, call_id, tokens};
use crate::domain::batch::Batch;
use crate::provider::chat::Tokens;
use crate::provider::chat_line::{Answered, Call, ChoiceText, count};
use crate::provider::given_line::{GivenLine, once};
use crate::provider::read::Reader;
use crate::provider::scan::Scan;
use serde_json::Map;
use std::borrow::Cow;

/// A line of the results file, as [`output_line`](super::results::output_line) reads it.
pub(super) fn write_line<'a>(record: &'a [u8], batch: &'a Batch, out: &mut Vec<u8>) -> Option<GivenLine<'a>> {
    let mut scan = Scan::new(record)?;
    let (mut key, mut response) = (None, None);
    scan.object(|scan, field| match field {
        "key" => once(&mut key, scan.name_or_null()?.value()?),
        "response" => once(&mut response, Response::read(scan)?),
        _ => scan.pass_over(),
    })?;
    scan.end()?;
    let Response { id, model, created, choices, tokens } = response?;
    let line = Answered {
        custom_id: key?,
        id: id.unwrap_or_default(),
        created: created.unwrap_or(batch.created_at),
        model: model.or(batch.model.as_deref()).unwrap_or_default(),
        choices,
        tokens,
    };
    Some(line.write(out))
}

/// A `GenerateContentResponse` with candidates.
struct Response<'a> {
    id: Option<&'a str>,
    model: Option<&'a str>,
    created: Option<i64>,
    /// As JSON.
    choices: Vec<u8>,
    tokens: Option<Tokens>,
}

impl<'a> Response<'a> {
    fn read(scan: &mut Scan<'a>) -> Option<Self> {
        let (mut id, mut model, mut created, mut choices, mut usage) = (None, None, None, None, None);
        scan.object(|scan, key| match key {
            "responseId" => once(&mut id, scan.name_or_null()?.value()),
            "modelVersion" => once(&mut model, scan.name_or_null()?.value()),
            "createTime" => once(&mut created, time(scan.name_or_null()?.value()?)),
            "candidates" => once(&mut choices, candidates(scan)?),
            "usageMetadata" => once(&mut usage, read_usage(scan)?),
            // These are answers of other kinds.
            "embedding" | "status_code" | "body" => None,
            _ => scan.pass_over(),
        })?;
        let choices = choices.filter(|choices| !choices.is_empty())?;
        Some(Self {
            id: id.flatten(),
            model: model.flatten(),
            created: created.flatten(),
            choices,
            tokens: usage,
        })
    }
}

fn time(text: &str) -> Option<i64> {
    let field = "time";
    let object = Map::from_iter([(field.to_owned(), text.into())]);
    Reader::new(&object).time(field)
}

fn candidates(scan: &mut Scan<'_>) -> Option<Vec<u8>> {
    let mut choices = Vec::new();
    let mut index = 0;
    scan.array(|scan| {
        let (mut choice, mut word) = (None, None);
        scan.object(|scan, key| match key {
            "content" => once(&mut choice, content(scan, index)?),
            "finishReason" => once(&mut word, scan.name_or_null()?.value()),
            _ => scan.pass_over(),
        })?;
        choice.unwrap_or_default().end(word.flatten(), &FINISH_REASONS, index, &mut choices);
        index += 1;
        Some(())
    })?;
    Some(choices)
}

fn content(scan: &mut Scan<'_>, index: usize) -> Option<ChoiceText> {
    let mut choice = None;
    scan.object(|scan, key| match key {
        "parts" => once(&mut choice, parts(scan, index)?),
        _ => scan.pass_over(),
    })?;
    Some(choice.unwrap_or_default())
}

fn parts(scan: &mut Scan<'_>, index: usize) -> Option<ChoiceText> {
    let mut choice = ChoiceText::default();
    scan.array(|scan| {
        let mut whole = scan.clone();
        let (mut text, mut is_thought, mut called) = (None, None, None);
        scan.object(|scan, key| match key {
            "text" => once(&mut text, scan.quoted()?),
            "thought" => once(&mut is_thought, scan.flag()?),
            "functionCall" => once(&mut called, call(scan)?),
            // It may be a picture.
            "inlineData" | "inline_data" => None,
            _ => scan.pass_over(),
        })?;
        match (called, text) {
            (Some(call), _) => {
                let id =
                    call.id.as_deref().map_or_else(|| call_id(index, choice.calls()).into(), Cow::Borrowed);
                choice.call(&id, call.name.as_deref().unwrap_or_default(), call.arguments());
            }
            (None, Some(text)) if is_thought == Some(true) => choice.think(&text),
            (None, Some(text)) => choice.say(&text),
            (None, None) => choice.other(&mut whole)?,
        }
        Some(())
    })?;
    Some(choice)
}

fn call<'a>(scan: &mut Scan<'a>) -> Option<Call<'a>> {
    let mut call = Call::default();
    scan.object(|scan, key| match key {
        "id" => once(&mut call.id, scan.quoted()?),
        "name" => once(&mut call.name, scan.quoted()?),
        "args" => call.take_arguments(scan),
        _ => scan.pass_over(),
    })?;
    Some(call)
}

fn read_usage(scan: &mut Scan<'_>) -> Option<Tokens> {
    let (mut prompt, mut tools, mut cached, mut written, mut thought) = (None, None, None, None, None);
    scan.object(|scan, key| match key {
        "promptTokenCount" => once(&mut prompt, count(scan)?),
        "toolUsePromptTokenCount" => once(&mut tools, count(scan)?),
        "cachedContentTokenCount" => once(&mut cached, count(scan)?),
        "candidatesTokenCount" => once(&mut written, count(scan)?),
        "thoughtsTokenCount" => once(&mut thought, count(scan)?),
        _ => scan.pass_over(),
    })?;
    Some(tokens(|field| {
        match field {
            "promptTokenCount" => prompt,
            "toolUsePromptTokenCount" => tools,
            "cachedContentTokenCount" => cached,
            "candidatesTokenCount" => written,
            "thoughtsTokenCount" => thought,
            _ => None,
        }
        .unwrap_or(0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::chat_line::tests::{
        agrees, damage, goes_through, is_left, texts, values, with_each,
    };
    use crate::provider::gemini::results::output_line;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LINE: &str = r#"{"key": "row-ü", "response": {"candidates": [{"content": {"role": "model", "parts": [
        {"text": "a \"b\" \n é \/ \u00e9 \ud83d\ude00 {[,:", "thoughtSignature": "x"}, {"text": "hm", "thought": true},
        {"functionCall": {"name": "f", "args": {"a": [1.50, -0.0, 12345678901234567890123]}}}, {"functionCall": {"id": "t", "name": "g"}},
        {"executableCode": {"code": "x\/"}}]}, "finishReason": "STOP", "index": 0, "avgLogprobs": -0.25}, {"finishReason": "SAFETY"}],
        "usageMetadata": {"promptTokenCount": 5, "cachedContentTokenCount": 2, "candidatesTokenCount": 7, "thoughtsTokenCount": 4,
        "toolUsePromptTokenCount": 1, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}]}, "modelVersion": "gemini-x",
        "createTime": "2026-11-20T08:00:00.25Z", "responseId": "r"}}"#;

    fn line() -> String {
        // On one line, as a record is.
        LINE.replace("\n        ", " ")
    }

    #[test]
    fn an_ordinary_line_is_written_in_one_pass() {
        let line = line();
        assert!(goes_through(line.as_bytes(), write_line, output_line), "{line}");
        let changes = [
            ("\"STOP\"", "\"MALFORMED_FUNCTION_CALL\""),
            ("\"STOP\"", "null"),
            ("\"thought\": true", "\"thought\": false"),
            ("\"createTime\": \"2026-11-20T08:00:00.25Z\", ", ""),
            ("2026-11-20T08:00:00.25Z", "2026-11-20"),
            ("2026-11-20T08:00:00.25Z", "soon"),
            ("\"modelVersion\": \"gemini-x\", ", ""),
            ("\"responseId\": \"r\"", "\"responseId\": null, \"promptFeedback\": {}"),
            (", \"usageMetadata\": {", ", \"others\": {"),
            ("\"key\"", "\"custom_id\": \"b\", \"error\": null, \"key\""),
        ];
        with_each(&line, &changes, |line| goes_through(line, write_line, output_line));
    }

    #[test]
    fn what_is_not_clear_is_left_to_be_taken_apart() {
        let line = line();
        let changes = [
            ("\"row-ü\"", "7"),
            ("\"key\": \"row-ü\", ", ""),
            ("\"text\": \"a", "\"text\": \"\u{10FFFD}a"),
            ("\"text\": \"a", "\"text\": \"\\ud83da"),
            ("{\"text\": \"hm\"", "{\"inlineData\": {\"mimeType\": \"image/png\", \"data\": \"iVBO\"}"),
            ("{\"text\": \"hm\"", "{\"text\": 7"),
            ("{\"text\": \"hm\"", "7, {\"text\": \"hm\""),
            ("\"thought\": true", "\"thought\": 1"),
            ("\"executableCode\"", "\"functionCall\": null, \"executableCode\""),
            ("\"promptTokenCount\": 5", "\"promptTokenCount\": 5.0"),
            ("\"candidates\"", "\"embedding\": {\"values\": [1]}, \"candidates\""),
            ("\"candidates\"", "\"candidates\": [], \"old\""),
            ("\"candidates\"", "\"status_code\": 200, \"candidates\""),
        ];
        with_each(&line, &changes, |line| is_left(line, write_line, output_line));
    }

    fn part() -> impl Strategy<Value = Value> {
        prop_oneof![
            texts().prop_map(|text| json!({"text": text})),
            (texts(), any::<bool>()).prop_map(|(text, thought)| json!({"thought": thought, "text": text})),
            (texts(), values())
                .prop_map(|(name, args)| json!({"functionCall": {"name": name, "args": args}})),
            values().prop_map(|value| json!({"codeExecutionResult": value})),
        ]
    }

    proptest! {
        #[test]
        fn whatever_an_answer_says_both_ways_write_the_same(
            candidates in prop::collection::vec(prop::collection::vec(part(), 0..4), 1..3),
            word in prop::sample::select(vec!["STOP", "MAX_TOKENS", "SAFETY", "Else"]),
            more in values(), counts in prop::array::uniform3(any::<u64>()),
        ) {
            let candidates: Vec<Value> = candidates.into_iter()
                .map(|parts| json!({"content": {"parts": parts, "role": "model"}, "finishReason": word})).collect();
            let usage = json!({"promptTokenCount": counts[0], "candidatesTokenCount": counts[1], "thoughtsTokenCount": counts[2]});
            let response = json!({"candidates": candidates, "usageMetadata": usage, "more": more});
            let line = json!({"key": "a", "response": response}).to_string();
            prop_assert!(goes_through(line.as_bytes(), write_line, output_line), "{}", line);
        }

        #[test]
        fn no_damage_makes_another_line(changes in damage()) {
            let line = changes.to(&line());
            prop_assert!(agrees(&line, write_line, output_line), "{}", String::from_utf8_lossy(&line));
        }
    }
}
