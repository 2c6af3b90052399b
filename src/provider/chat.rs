//! The chat completion that other services' answers become in the `openai` format of results.

use super::results::RequestResult;
use crate::domain::batch::{InputTokensDetails, OutputTokensDetails, Usage};
use serde_json::{Map, Value, json};

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
    /// OpenAI's word for why it ended.
    pub finish_reason: &'static str,
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
    /// Written, reasoning included.
    pub completion: u64,
    /// Of those, reasoning.
    pub reasoning: u64,
}

impl Choice {
    pub fn say(&mut self, text: &str) {
        self.content.get_or_insert_default().push_str(text);
    }

    pub fn think(&mut self, text: &str) {
        self.reasoning.get_or_insert_default().push_str(text);
    }
}

impl Tokens {
    /// As the batch's usage counts them.
    pub fn usage(self) -> Usage {
        Usage {
            input_tokens: self.prompt,
            input_tokens_details: InputTokensDetails { cached_tokens: self.cached },
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
                let finish_reason = choice.finish_reason;
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

fn message(choice: Choice) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    message.insert("content".to_owned(), choice.content.into());
    message.insert("refusal".to_owned(), Value::Null);
    if let Some(reasoning) = choice.reasoning {
        // Not OpenAI's own: the name that the services with open reasoning share.
        message.insert("reasoning_content".to_owned(), reasoning.into());
    }
    if !choice.calls.is_empty() {
        let calls = choice.calls.into_iter().map(|call| {
            json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()},
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
        let mut choice = Choice { finish_reason: "tool_calls", ..Choice::default() };
        choice.say("Let me ");
        choice.say("look.");
        choice.think("hm");
        choice.calls.push(ToolCall { id: "call_1".into(), name: "look".into(), arguments: json!({"at": 1}) });
        let tokens = Tokens { prompt: 10, cached: 4, completion: 6, reasoning: 1 };
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
