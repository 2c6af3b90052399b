//! The chat completion that other services' answers become in the `openai` format of results.

use super::lenient;
use super::results::RequestResult;
use crate::domain::batch::{InputTokensDetails, OutputTokensDetails, Usage};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// One answer of a model, on its way to OpenAI's `ChatCompletion`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    pub model: String,
    /// One entry an alternative.
    pub choices: Vec<Choice>,
    /// Tokens used, where the service tells.
    pub tokens: Option<Tokens>,
}

/// One alternative of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// What the model says; `None`: nothing but calls.
    pub content: Option<String>,
    /// What it thought before, where the service shows it.
    pub reasoning: Option<String>,
    pub calls: Vec<ToolCall>,
    /// Pictures, as the address of each.
    pub images: Vec<String>,
    /// Parts for which OpenAI's form has no place, as the service gave them.
    pub others: Vec<Value>,
    /// OpenAI's word for why it ended, or the service's own in lower case where OpenAI has none for it.
    pub finish_reason: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: Value,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, cached ones included.
    pub prompt: u64,
    /// Of those, read from a cache.
    pub cached: u64,
    /// Of `prompt`, written to a cache.
    pub written: u64,
    /// Of `prompt`, written to a cache that keeps it for an hour; not among the ones before.
    pub written_1h: u64,
    /// Written, reasoning included.
    pub completion: u64,
    /// Of those, reasoning.
    pub reasoning: u64,
}

impl Choice {
    pub fn say(&mut self, text: &str) {
        self.content.get_or_insert_default().push_str(text);
    }

    /// Ends for the reason that the service calls `word`, as [`finish_reason`] has it.
    pub fn end(&mut self, word: Option<&str>, words: &[(&str, &'static str)]) {
        let is_empty = self.content.is_none() && self.images.is_empty() && self.others.is_empty();
        self.finish_reason = finish_reason(word, words, is_empty, !self.calls.is_empty());
    }

    /// Thinks some more.
    pub fn think(&mut self, text: &str) {
        self.reasoning.get_or_insert_default().push_str(text);
    }
}

impl Tokens {
    /// As the batch's usage counts them.
    pub fn usage(self) -> Usage {
        Usage {
            input_tokens: self.prompt,
            input_tokens_details: InputTokensDetails {
                cached_tokens: self.cached,
                cache_write_tokens: self.written,
                cache_write_1h_tokens: self.written_1h,
            },
            output_tokens: self.completion,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: self.reasoning },
            total_tokens: self.prompt.saturating_add(self.completion),
        }
    }
}

impl Completion {
    /// The result of a request that was answered with this.
    pub fn into_result(self) -> RequestResult {
        RequestResult::Response { status_code: 200, request_id: None, body: self.into_json() }
    }

    pub fn into_json(self) -> Value {
        let choices: Vec<Value> = self
            .choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| {
                let finish_reason = choice.finish_reason.clone();
                json!({"index": index, "message": message(choice), "logprobs": null, "finish_reason": finish_reason})
            })
            .collect();
        let mut body = json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model, "choices": choices,
        });
        if let Some(tokens) = self.tokens {
            body["usage"] = json!({
                "prompt_tokens": tokens.prompt,
                "completion_tokens": tokens.completion,
                "total_tokens": tokens.prompt.saturating_add(tokens.completion),
                "prompt_tokens_details": {"cached_tokens": tokens.cached},
                "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
            });
        }
        body
    }
}

/// Why an alternative ended that the service calls `word`: one of `words`, or another that stands for itself. Without a
/// word a usual end is taken for granted only where there is something: `is_empty` says that it has nothing but maybe calls.
pub fn finish_reason(
    word: Option<&str>,
    words: &[(&str, &'static str)],
    is_empty: bool,
    has_calls: bool,
) -> Cow<'static, str> {
    let reason = match word {
        Some(word) => match words.iter().find(|(known, _)| *known == word) {
            Some((_, reason)) => Cow::Borrowed(*reason),
            None => Cow::Owned(word.to_lowercase()),
        },
        None if is_empty && !has_calls => Cow::Borrowed("unknown"),
        None => Cow::Borrowed("stop"),
    };
    if reason == "stop" && has_calls { "tool_calls".into() } else { reason }
}

fn message(choice: Choice) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    message.insert("content".to_owned(), choice.content.into());
    message.insert("refusal".to_owned(), Value::Null);
    if let Some(reasoning) = choice.reasoning {
        // Not OpenAI's own: the name that the services with open reasoning share.
        message.insert("reasoning_content".to_owned(), reasoning.into());
    }
    if !choice.images.is_empty() {
        // Nor is this: the form that gateways have agreed on.
        let images = choice.images.into_iter();
        let images = images.map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
        message.insert("images".to_owned(), images.collect());
    }
    if !choice.others.is_empty() {
        message.insert("provider_content".to_owned(), choice.others.into());
    }
    if !choice.calls.is_empty() {
        let calls = choice.calls.into_iter().map(|call| {
            json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": lenient::text(&call.arguments)},
            })
        });
        message.insert("tool_calls".to_owned(), calls.collect());
    }
    Value::Object(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_everything_is_a_chat_completion() {
        let mut choice = Choice { finish_reason: "tool_calls".into(), ..Choice::default() };
        choice.say("Let me ");
        choice.say("look.");
        choice.think("hm");
        choice.calls.push(ToolCall { id: "call_1".into(), name: "look".into(), arguments: json!({"at": 1}) });
        let tokens = Tokens { prompt: 10, cached: 4, completion: 6, reasoning: 1, ..Tokens::default() };
        let completion = Completion {
            id: "msg_1".into(),
            created: 1_795_000_000,
            model: "m".into(),
            choices: vec![choice],
            tokens: Some(tokens),
        };
        insta::assert_json_snapshot!(completion.into_json());
        assert_eq!(tokens.usage().total_tokens, 16);
    }
}
