//! What a simulated model says: plausible answers that echo the request, in each API's own form.

use super::chance;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use serde_json::{Value, json};

/// What one request of a batch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A chat completion (OpenAI, Mistral).
    Chat,
    /// A response (OpenAI).
    Response,
    Completion,
    /// Embeddings (OpenAI, Mistral).
    Embedding,
    /// Moderation (OpenAI, Mistral).
    Moderation,
    /// Images (OpenAI).
    Image,
    /// A video (OpenAI).
    Video,
    /// Fill in the middle (Mistral).
    Fim,
    /// Classification (Mistral).
    Classification,
    /// Text from pages (Mistral).
    Ocr,
    /// A conversation with an agent (Mistral).
    Conversation,
    /// Text from speech (Mistral).
    Transcription,
    /// A message (Anthropic).
    Message,
    /// Generated content (Gemini).
    Content,
    /// One embedding (Gemini).
    ContentEmbedding,
}

/// Tokens read and written for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read.
    pub input: u32,
    /// Written.
    pub output: u32,
}

impl Task {
    /// The task of an OpenAI endpoint; `None` if the Batch API does not take it.
    pub fn of_openai(endpoint: &str) -> Option<Self> {
        Some(match endpoint {
            "/v1/chat/completions" => Self::Chat,
            "/v1/responses" => Self::Response,
            "/v1/completions" => Self::Completion,
            "/v1/embeddings" => Self::Embedding,
            "/v1/moderations" => Self::Moderation,
            "/v1/images/generations" | "/v1/images/edits" => Self::Image,
            "/v1/videos" => Self::Video,
            _ => return None,
        })
    }

    /// The task of a Mistral endpoint; `None` if batch jobs do not take it.
    pub fn of_mistral(endpoint: &str) -> Option<Self> {
        Some(match endpoint {
            "/v1/chat/completions" => Self::Chat,
            "/v1/fim/completions" => Self::Fim,
            "/v1/embeddings" => Self::Embedding,
            "/v1/moderations" | "/v1/chat/moderations" => Self::Moderation,
            "/v1/classifications" | "/v1/chat/classifications" => Self::Classification,
            "/v1/ocr" => Self::Ocr,
            "/v1/conversations" => Self::Conversation,
            "/v1/audio/transcriptions" => Self::Transcription,
            _ => return None,
        })
    }

    /// What is wrong with a request's body, as (field, message); `None` if a model would take it.
    pub fn defect(self, body: &Value) -> Option<(&'static str, String)> {
        let required: &[&[&str]] = match self {
            Self::Chat => &[&["messages"]],
            Self::Response => &[&["input", "prompt", "previous_response_id"]],
            Self::Completion | Self::Fim | Self::Image | Self::Video => &[&["prompt"]],
            Self::Embedding | Self::Moderation | Self::Classification => &[&["input", "inputs"]],
            Self::Ocr => &[&["document"]],
            Self::Conversation => &[&["inputs"]],
            Self::Transcription => &[&["file", "file_url", "file_id"]],
            Self::Message => &[&["model"], &["max_tokens"], &["messages"]],
            Self::Content => &[&["contents"]],
            Self::ContentEmbedding => &[&["content"]],
        };
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        for names in required {
            if names.iter().all(|name| body.get(name).is_none_or(empty)) {
                return Some((names[0], format!("{}: field required", names[0])));
            }
        }
        let listed = matches!(self, Self::Chat | Self::Message).then_some("messages");
        if let Some(name) = listed.filter(|name| !body[name].is_array()) {
            return Some((name, format!("{name}: input should be a list")));
        }
        if self == Self::Message && body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
            return Some(("max_tokens", "max_tokens: input should be a number of at least 1".to_owned()));
        }
        if self == Self::Message && body["stream"] == true {
            return Some(("stream", "stream: streaming is not supported in a batch".to_owned()));
        }
        None
    }

    /// The tokens that [`Task::answer`] will report for `body`.
    pub fn tokens(self, body: &Value) -> Tokens {
        let prompt = prompt(body);
        let output = match self {
            Self::Embedding
            | Self::ContentEmbedding
            | Self::Moderation
            | Self::Classification
            | Self::Image
            | Self::Video
            | Self::Ocr => 0,
            _ => count(&spoken(&prompt.last)),
        };
        Tokens { input: prompt.tokens, output }
    }

    /// The answer of `model` to `body`, made at `created` (Unix seconds); ids are drawn from `chance`.
    pub fn answer(self, body: &Value, model: &str, created: i64, chance: &mut Rng) -> Value {
        let prompt = prompt(body);
        let text = spoken(&prompt.last);
        let mut reply =
            Reply { model, created, text, prompt: prompt.last, tokens: self.tokens(body), chance };
        match self {
            Self::Chat | Self::Fim => reply.chat(),
            Self::Response => reply.response(&body["instructions"]),
            Self::Completion => reply.completion(),
            Self::Embedding => reply.embedding(body),
            Self::Moderation => reply.moderation(body),
            Self::Image => json!({"created": created, "data": [{"b64_json": PIXEL}]}),
            Self::Video => reply.video(),
            Self::Classification => reply.classification(body),
            Self::Ocr => reply.ocr(),
            Self::Conversation => reply.conversation(),
            Self::Transcription => reply.transcription(),
            Self::Message => reply.message(),
            Self::Content => reply.content(),
            Self::ContentEmbedding => json!({
                "embedding": {"values": vector(&reply.prompt, dimensions(body))},
                "tokenCount": reply.tokens.input.to_string(),
            }),
        }
    }
}

/// One answer, before it has the form of an API.
struct Reply<'a> {
    model: &'a str,
    created: i64,
    text: String,
    prompt: String,
    tokens: Tokens,
    chance: &'a mut Rng,
}

impl Reply<'_> {
    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", chance::alphanumeric(self.chance, 24))
    }

    fn total(&self) -> u32 {
        self.tokens.input + self.tokens.output
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.tokens.input,
            "completion_tokens": self.tokens.output,
            "total_tokens": self.total(),
        })
    }

    fn chat(&mut self) -> Value {
        json!({
            "id": self.id("chatcmpl-"),
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text, "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": self.usage(),
        })
    }

    fn response(&mut self, instructions: &Value) -> Value {
        json!({
            "id": self.id("resp_"),
            "object": "response",
            "created_at": self.created,
            "status": "completed",
            "error": null,
            "incomplete_details": null,
            "instructions": instructions,
            "metadata": {},
            "model": self.model,
            "output": [{
                "id": self.id("msg_"),
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": self.text, "annotations": []}],
            }],
            "parallel_tool_calls": true,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": self.tokens.input,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.tokens.output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.total(),
            },
        })
    }

    fn completion(&mut self) -> Value {
        json!({
            "id": self.id("cmpl-"),
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "text": self.text, "logprobs": null, "finish_reason": "stop"}],
            "usage": self.usage(),
        })
    }

    fn embedding(&mut self, body: &Value) -> Value {
        json!({
            "id": self.id("embd-"),
            "object": "list",
            "model": self.model,
            "data": embeddings(body),
            "usage": self.usage(),
        })
    }

    fn moderation(&mut self, body: &Value) -> Value {
        let result = json!({
            "flagged": false,
            "categories": {"hate": false, "violence": false},
            "category_scores": {"hate": 0.0001, "violence": 0.0002},
        });
        json!({"id": self.id("modr-"), "model": self.model, "results": vec![result; inputs(body).len()]})
    }

    fn video(&mut self) -> Value {
        json!({
            "id": self.id("video_"),
            "object": "video",
            "created_at": self.created,
            "completed_at": self.created,
            "model": self.model,
            "progress": 100,
            "prompt": self.prompt,
            "seconds": "4",
            "size": "720x1280",
            "status": "completed",
        })
    }

    fn classification(&mut self, body: &Value) -> Value {
        let result = json!({"category": {"scores": {"sandbox": 0.9, "other": 0.1}}});
        json!({"id": self.id("clsf-"), "model": self.model, "results": vec![result; inputs(body).len()]})
    }

    fn ocr(&self) -> Value {
        json!({
            "pages": [{
                "index": 0,
                "markdown": "# A page of the sandbox",
                "images": [],
                "dimensions": {"dpi": 200, "height": 2200, "width": 1700},
            }],
            "model": self.model,
            "document_annotation": null,
            "usage_info": {"pages_processed": 1, "doc_size_bytes": null},
        })
    }

    fn conversation(&mut self) -> Value {
        json!({
            "object": "conversation.response",
            "conversation_id": self.id("conv_"),
            "outputs": [{
                "object": "entry",
                "type": "message.output",
                "id": self.id("msg_"),
                "role": "assistant",
                "model": self.model,
                "content": self.text,
            }],
            "usage": self.usage(),
        })
    }

    fn transcription(&self) -> Value {
        json!({
            "model": self.model, "text": self.text, "language": null, "segments": [], "usage": self.usage(),
        })
    }

    fn message(&mut self) -> Value {
        json!({
            "id": self.id("msg_01"),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [{"type": "text", "text": self.text}],
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": {
                "input_tokens": self.tokens.input,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": self.tokens.output,
                "service_tier": "batch",
            },
        })
    }

    fn content(&mut self) -> Value {
        json!({
            "candidates": [{
                "content": {"parts": [{"text": self.text}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }],
            "usageMetadata": {
                "promptTokenCount": self.tokens.input,
                "candidatesTokenCount": self.tokens.output,
                "totalTokenCount": self.total(),
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": self.tokens.input}],
            },
            "modelVersion": self.model,
            "responseId": self.id(""),
        })
    }
}

/// What a request says to the model.
struct Prompt {
    last: String,
    /// The size of everything said.
    tokens: u32,
}

/// Finds the texts in a request of any of the APIs.
fn prompt(body: &Value) -> Prompt {
    let mut texts = Vec::new();
    for name in ["system", "instructions", "prompt", "messages", "input", "inputs", "contents", "content"] {
        if let Some(value) = body.get(name) {
            gather(value, &mut texts);
        }
    }
    let tokens = texts.iter().map(|text| count(text)).fold(0, u32::saturating_add);
    Prompt { last: texts.pop().unwrap_or_default().to_owned(), tokens }
}

fn gather<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| gather(item, texts)),
        Value::Object(fields) => {
            for name in ["text", "content", "parts"] {
                if let Some(value) = fields.get(name) {
                    gather(value, texts);
                }
            }
        }
        _ => {}
    }
}

/// The answer to `prompt`.
fn spoken(prompt: &str) -> String {
    let excerpt: String = prompt.chars().take(EXCERPT).collect();
    if excerpt.is_empty() { "Sandbox answer.".to_owned() } else { format!("Sandbox answer to: {excerpt}") }
}

/// About as many tokens as `text` would be.
fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count().div_ceil(4)).unwrap_or(u32::MAX)
}

/// The texts of a request that takes one or several.
fn inputs(body: &Value) -> Vec<&Value> {
    let input = body.get("input").or_else(|| body.get("inputs")).unwrap_or(&Value::Null);
    match input {
        Value::Array(items) if items.first().is_none_or(|item| !item.is_number()) => items.iter().collect(),
        one => vec![one],
    }
}

fn embeddings(body: &Value) -> Vec<Value> {
    let encoded = body["encoding_format"] == "base64";
    inputs(body)
        .into_iter()
        .enumerate()
        .map(|(index, input)| {
            let text = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
            let values = vector(&text, dimensions(body));
            let embedding = if encoded {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(values)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect()
}

/// How long a vector the request asks for.
fn dimensions(body: &Value) -> usize {
    ["dimensions", "output_dimension", "outputDimensionality", "output_dimensionality"]
        .into_iter()
        .find_map(|name| body[name].as_u64())
        .and_then(|wanted| usize::try_from(wanted).ok())
        .map_or(DIMENSIONS, |wanted| wanted.clamp(1, MOST_DIMENSIONS))
}

/// A vector of length one that depends on `text` alone.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut chance = chance::draw(chance::of_text(text), 0);
    let values: Vec<f32> = (0..dimensions).map(|_| chance.f32() - 0.5).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length.max(f32::MIN_POSITIVE)).collect()
}

/// Of a prompt, in characters, as the answer repeats it.
const EXCERPT: usize = 200;
/// Of a vector whose length the request does not say.
const DIMENSIONS: usize = 8;
const MOST_DIMENSIONS: usize = 4096;
/// A PNG of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_echoes_the_last_thing_said_and_repeats_itself() {
        let body = json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hello there"}]},
        ]});
        let answer = || Task::Chat.answer(&body, "m", 1, &mut chance::draw(1, 1));
        assert_eq!(answer(), answer());
        assert_eq!(answer()["choices"][0]["message"]["content"], "Sandbox answer to: hello there");
        assert_eq!(
            answer()["usage"],
            json!({"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13})
        );
        let gemini = json!({"contents": [{"parts": [{"text": "hello there"}]}]});
        let answer = Task::Content.answer(&gemini, "m", 1, &mut chance::draw(1, 1));
        assert_eq!(answer["candidates"][0]["content"]["parts"][0]["text"], "Sandbox answer to: hello there");
    }

    #[test]
    fn embeddings_come_one_for_each_input_and_as_long_as_asked() {
        let body = json!({"input": ["a", "b"], "dimensions": 3});
        let answer = Task::Embedding.answer(&body, "m", 1, &mut chance::draw(1, 1));
        let vectors = answer["data"].as_array().unwrap();
        assert_eq!(vectors.len(), 2);
        assert_ne!(vectors[0]["embedding"], vectors[1]["embedding"]);
        let length: f64 =
            vectors[0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-3);
        let tokens = json!({"input": [1, 2, 3], "encoding_format": "base64"});
        let answer = Task::Embedding.answer(&tokens, "m", 1, &mut chance::draw(1, 1));
        assert_eq!(answer["data"].as_array().unwrap().len(), 1);
        assert_eq!(STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap().len(), 32);
    }

    #[test]
    fn a_body_that_a_model_would_refuse() {
        let field = |task: Task, body: Value| task.defect(&body).map(|found| found.0);
        assert_eq!(field(Task::Chat, json!({"messages": []})), Some("messages"));
        assert_eq!(field(Task::Chat, json!({"messages": "hi"})), Some("messages"));
        assert_eq!(field(Task::Chat, json!({"messages": [{"role": "user", "content": "x"}]})), None);
        assert_eq!(field(Task::Message, json!({"model": "m", "messages": [1]})), Some("max_tokens"));
        let zero = json!({"model": "m", "max_tokens": 0, "messages": [1]});
        assert_eq!(field(Task::Message, zero), Some("max_tokens"));
        assert_eq!(field(Task::Response, json!({"input": "x"})), None);
        assert_eq!(field(Task::Content, json!({})), Some("contents"));
        assert_eq!(field(Task::Chat, json!("not an object")), Some("messages"));
    }
}
