//! Requests in OpenAI's form at services with another: what today's models take, and that no key is lost in silence.

use crate::input_checker::judge;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The services that requests are translated for, each with a model of an older family and one of the newest.
const MODELS: [(&str, [&str; 2]); 7] = [
    ("anthropic", ["claude-sonnet-4-5", "claude-opus-5-5"]),
    ("gemini", ["gemini-2.5-flash", "gemini-3.8-flash"]),
    ("mistral", ["mistral-large-latest", "magistral-medium-latest"]),
    ("bedrock", ["amazon.nova-lite-v1:0", "anthropic.claude-opus-5-5"]),
    ("vertex", ["gemini-2.5-flash", "publishers/google/models/gemini-3.8-flash"]),
    ("vertex", ["claude-sonnet-4-5@20250929", "publishers/anthropic/models/claude-opus-5-5"]),
    ("cohere", ["command-a-03-2025", "command-a-reasoning-08-2025"]),
];

/// Every key of OpenAI's request.
const KEYS: &str = include_str!("../fixtures/requests/chat_keys.txt");
/// Requests, without a model and, if they are not about messages, without messages, that have all of them.
const BODIES: &str = include_str!("../fixtures/requests/chat_bodies.json");

/// Keys that may be missing because they say what is the case anyway.
const IMPLIED: [&str; 5] = [
    // A part without a type is a text, a tool and a call without one are a function's.
    "messages[].content[].type",
    "messages[].tool_calls[].type",
    "tools[].type",
    "prediction.type",
    // Wherever a schema can be given, the answer is held to it.
    "response_format.json_schema.strict",
];

/// Keys of a request that a service refuses for another key that cannot be without them.
const BESIDE_OTHERS: [(&str, &str); 1] = [("bedrock", "messages[].tool_call_id")];

/// What is inside these is the user's own.
const FREE: [&str; 5] = ["schema", "parameters", "metadata", "logit_bias", "cache_control"];

/// What becomes of a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Sent { line: String, model: Option<String>, warnings: Vec<String> },
    Refused(String),
}

fn outcome(kind: &str, body: &Value) -> Outcome {
    let line = json!({"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": body});
    let (judged, line) = judge(kind, &line.to_string());
    match judged {
        Ok(judged) => Outcome::Sent { line, model: judged.model, warnings: judged.warnings },
        Err(problems) => {
            assert!(
                problems.iter().all(|problem| problem.lines == [(1, 1)] || problem.what.contains("model")),
                "{problems:?}"
            );
            Outcome::Refused(problems[0].what.clone())
        }
    }
}

/// What is sent for a request, and the warnings.
fn sent(kind: &str, body: &Value) -> (Value, Vec<String>) {
    match outcome(kind, body) {
        Outcome::Sent { line, warnings, .. } => {
            let sent: Value = serde_json::from_str(&line).unwrap();
            let place =
                ["params", "request", "modelInput", "body"].into_iter().find(|key| sent.get(key).is_some());
            (sent[place.unwrap()].clone(), warnings)
        }
        Outcome::Refused(what) => panic!("{kind} refused {body}: {what}"),
    }
}

fn refused(kind: &str, body: &Value) -> String {
    match outcome(kind, body) {
        Outcome::Refused(what) => what,
        sent @ Outcome::Sent { .. } => panic!("{kind} sent {body} as {sent:?}"),
    }
}

/// A request for `model` with the fields of `more`.
fn request(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn bodies() -> BTreeMap<String, Value> {
    serde_json::from_str(BODIES).unwrap()
}

/// The places of all keys in `value`, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{at}/{key}");
                if !FREE.contains(&key.as_str()) {
                    places(value, &place, found);
                }
                if !value.is_null() {
                    found.push(place);
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{number}"), found);
            }
        }
        _ => {}
    }
}

/// A place as the list of keys has it: `messages[].role`.
fn path(place: &str) -> String {
    let mut path = String::new();
    for step in place.split('/').skip(1) {
        if step.bytes().all(|c| c.is_ascii_digit()) {
            path.push_str("[]");
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(step);
        }
    }
    path
}

fn without(body: &Value, place: &str) -> Value {
    let mut body = body.clone();
    let (parent, key) = place.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    body
}

/// The names by which a key may be told: its own, those around it, and the roles and types of what it is in.
fn names(body: &Value, place: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = String::new();
    for step in place.split('/').skip(1) {
        let around = body.pointer(&at).unwrap();
        names.extend(["role", "type"].into_iter().filter_map(|key| around[key].as_str()).map(str::to_owned));
        if !matches!(step, "messages" | "content") || place.ends_with(step) {
            names.push(step.to_owned());
        }
        at = format!("{at}/{step}");
    }
    names
}

fn names_one_of(text: &str, names: &[String]) -> bool {
    names.iter().any(|name| text.contains(&format!("`{name}`")))
}

/// Whether the key at `place` of `body`, of which `whole` became, is translated, refused by one of its `names` or warned
/// of; `None`: the request is refused for something else.
fn is_told(kind: &str, whole: &Outcome, body: &Value, place: &str, names: &[String]) -> Option<bool> {
    match whole {
        Outcome::Refused(what) => names_one_of(what, names).then_some(true),
        Outcome::Sent { warnings, .. } => Some(
            outcome(kind, &without(body, place)) != *whole
                || warnings.iter().any(|warning| names_one_of(warning, names)),
        ),
    }
}

#[test]
fn the_example_requests_have_every_key_of_openai_s() {
    let mut found = Vec::new();
    for body in bodies().into_values() {
        places(&request("m", &body), "", &mut found);
    }
    let found: BTreeSet<String> = found.iter().map(|place| path(place)).collect();
    let missing: Vec<&str> =
        KEYS.lines().filter(|line| !line.starts_with('#') && !found.contains(*line)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn every_key_is_translated_refused_by_name_or_warned_of() {
    let mut lost = BTreeSet::new();
    for (kind, models) in MODELS {
        for model in models {
            let mut hidden = BTreeSet::new();
            let mut told = BTreeSet::new();
            for (name, body) in bodies() {
                let body = request(model, &body);
                let mut found = Vec::new();
                places(&body, "", &mut found);
                let whole = outcome(kind, &body);
                for place in found {
                    let path = path(&place);
                    let names = names(&body, &place);
                    // Where something else is refused, the key is tried with nothing else from the top.
                    let top = place.split('/').nth(1).unwrap();
                    let alone = request(model, &json!({ top: body[top] }));
                    let is_told = is_told(kind, &whole, &body, &place, &names)
                        .or_else(|| is_told(kind, &outcome(kind, &alone), &alone, &place, &names));
                    match is_told {
                        None => hidden.insert(path),
                        Some(is_told) if is_told || IMPLIED.contains(&path.as_str()) => told.insert(path),
                        Some(_) => lost.insert(format!("{kind} {model}: {path} of {name}")),
                    };
                }
            }
            for path in hidden.difference(&told) {
                if !BESIDE_OTHERS.contains(&(kind, path)) {
                    lost.insert(format!("{kind} {model}: {path} is hidden by what else is refused"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.into_iter().collect::<Vec<_>>().join("\n"));
}

/// All objects inside `value` to which a key may be added.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(at.to_owned());
            for (key, value) in fields.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                objects(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{number}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    /// Wherever a request has a key that nobody has heard of, it is refused or warned of.
    #[test]
    fn a_key_that_nobody_knows_is_told_wherever_it_is(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        key in "x_[a-z]{1,8}",
        value in prop_oneof![Just(json!(1)), Just(json!("y")), Just(json!({"z": 1})), Just(json!([true]))],
    ) {
        let bodies: Vec<Value> = bodies().into_values().collect();
        for (kind, models) in MODELS {
            for model in models {
                let mut body = request(model, which.get(&bodies));
                let mut found = Vec::new();
                objects(&body, "", &mut found);
                let place = place.get(&found);
                body.pointer_mut(place).unwrap().as_object_mut().unwrap().insert(key.clone(), value.clone());
                if let Outcome::Sent { warnings, .. } = outcome(kind, &body) {
                    let known = names(&body, &format!("{place}/{key}"));
                    prop_assert!(
                        warnings.iter().any(|warning| names_one_of(warning, &known)),
                        "{kind} lost `{key}` at {place} of {body}"
                    );
                }
            }
        }
    }
}

#[test]
fn claude_thinks_as_each_family_wants_it() {
    let told = |model: &str, effort: &str| {
        let body = request(model, &json!({"reasoning_effort": effort}));
        match outcome("anthropic", &body) {
            Outcome::Refused(what) => json!(what),
            Outcome::Sent { .. } => {
                let (params, warnings) = sent("anthropic", &body);
                let key = |key: &str| params.get(key).cloned().unwrap_or_default();
                json!({"thinking": key("thinking"), "output_config": key("output_config"),
                       "max_tokens": key("max_tokens"), "warnings": warnings})
            }
        }
    };
    let models = [
        "claude-3-5-haiku-latest",
        "claude-opus-4-1",
        "claude-haiku-4-5",
        "claude-sonnet-4-6",
        "claude-opus-4-8",
        "claude-opus-5",
        "claude-sonnet-5-5",
        "claude-opus-5-5",
        "claude-opus-9",
    ];
    let efforts = ["none", "auto", "minimal", "low", "medium", "high", "xhigh", "max", "lots"];
    let shown: BTreeMap<&str, BTreeMap<&str, Value>> = models
        .into_iter()
        .map(|model| (model, efforts.into_iter().map(|effort| (effort, told(model, effort))).collect()))
        .collect();
    insta::assert_json_snapshot!(shown);
}

#[test]
fn gemini_thinks_as_each_family_wants_it() {
    let told = |model: &str, effort: &str| {
        let body = request(model, &json!({"reasoning_effort": effort}));
        match outcome("gemini", &body) {
            Outcome::Refused(what) => json!(what),
            Outcome::Sent { .. } => {
                let (request, warnings) = sent("gemini", &body);
                json!({"config": request["generationConfig"], "warnings": warnings})
            }
        }
    };
    let models = [
        "gemini-2.0-flash",
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        "gemini-3-pro-preview",
        "gemini-3.5-flash",
        "gemini-4-hydrogen",
        "gemini-9-neon",
    ];
    let efforts = ["none", "auto", "minimal", "low", "medium", "high", "xhigh", "max", "lots"];
    let shown: BTreeMap<&str, BTreeMap<&str, Value>> = models
        .into_iter()
        .map(|model| (model, efforts.into_iter().map(|effort| (effort, told(model, effort))).collect()))
        .collect();
    insta::assert_json_snapshot!(shown);
}

#[test]
fn a_budget_is_always_below_the_bound_of_the_answer() {
    for most in [2048, 2049, 5000, 9000, 30_000, 40_000, 100_000] {
        for effort in ["minimal", "low", "medium", "high", "xhigh", "max"] {
            let more = json!({"reasoning_effort": effort, "max_completion_tokens": most});
            let (params, _) = sent("anthropic", &request("claude-haiku-4-5", &more));
            let budget = params["thinking"]["budget_tokens"].as_u64().unwrap();
            assert!((1024..most).contains(&budget), "{effort} of {most}: {budget}");
        }
    }
    let more = json!({"reasoning_effort": "low", "max_tokens": 2000});
    let what = refused("anthropic", &request("claude-haiku-4-5", &more));
    assert!(what.contains("`reasoning_effort`") && what.contains("2000"), "{what}");
}

#[test]
fn what_a_claude_model_would_refuse_is_refused_before_it_is_sent() {
    let tool = json!([{"type": "function", "function": {"name": "look"}}]);
    let prefill = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]);
    for (model, more, what) in [
        ("claude-opus-5-5", json!({"temperature": 0.2}), "the `temperature` 0.2"),
        ("claude-opus-4-7", json!({"top_p": 0.5}), "the `top_p` 0.5"),
        ("claude-sonnet-5", json!({"top_k": 3}), "the `top_k` 3"),
        (
            "claude-sonnet-4-5",
            json!({"temperature": 0.2, "top_p": 0.5}),
            "`temperature` or `top_p`, not both",
        ),
        ("claude-sonnet-4-0", json!({"temperature": 0.2, "reasoning_effort": "low"}), "while it thinks"),
        ("claude-sonnet-4-0", json!({"temperature": 1.5}), "not between 0 and 1"),
        ("claude-opus-5-5", json!({"tools": tool, "tool_choice": "required"}), "`tool_choice`"),
        (
            "claude-opus-4-6",
            json!({"tools": tool, "tool_choice": "required", "reasoning_effort": "low"}),
            "`tool_choice`",
        ),
        ("claude-opus-4-6", json!({"messages": prefill}), "`assistant`"),
        ("claude-haiku-4-5", json!({"messages": prefill, "reasoning_effort": "low"}), "while it thinks"),
        (
            "claude-sonnet-4-0",
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}}),
            "`response_format`",
        ),
        ("claude-opus-5-5", json!({"max_tokens": 0}), "no whole number above 0"),
    ] {
        let told = refused("anthropic", &request(model, &more));
        assert!(told.contains(what), "{model} {more}: {told}");
    }
    // What is the default anyway is not worth a word.
    for more in [json!({"temperature": 1}), json!({"temperature": 1.0, "top_p": 1})] {
        let (params, warnings) = sent("anthropic", &request("claude-opus-5-5", &more));
        assert!(params.get("temperature").is_none() && params.get("top_p").is_none() && warnings.is_empty());
    }
    let (params, _) =
        sent("anthropic", &request("claude-sonnet-4-5", &json!({"temperature": 0.2, "top_p": 1})));
    assert_eq!((&params["temperature"], params.get("top_p")), (&json!(0.2), None));
    let (params, _) =
        sent("anthropic", &request("claude-opus-5", &json!({"tools": tool, "tool_choice": "required"})));
    assert_eq!(params["tool_choice"], json!({"type": "any"}));
}

#[test]
fn a_prefill_does_not_end_in_white_space() {
    let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once \n"}]);
    let (params, warnings) = sent("anthropic", &request("claude-haiku-4-5", &json!({"messages": messages})));
    assert_eq!(params["messages"][1], json!({"role": "assistant", "content": "Once"}));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (body, _) = sent("mistral", &request("mistral-small-latest", &json!({"messages": messages})));
    assert_eq!(body["messages"][1]["prefix"], true);
    let bedrock =
        refused("bedrock", &request("us.anthropic.claude-opus-4-6-v1", &json!({"messages": messages})));
    assert!(bedrock.contains("`assistant`"), "{bedrock}");
}

/// Two calls of one function, answered in the other order.
fn parallel_calls() -> Value {
    let call = |id: &str, town: &str| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": json!({"town": town}).to_string()}});
    json!({"messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("functions.weather:0", "Ulm"), call("functions.weather:1", "Bonn")]},
        {"role": "tool", "tool_call_id": "functions.weather:1", "content": "rain in Bonn"},
        {"role": "tool", "tool_call_id": "functions.weather:0", "content": "sun in Ulm"},
    ]})
}

#[test]
fn parallel_calls_of_one_function_get_each_its_own_result() {
    let (params, _) = sent("anthropic", &request("claude-haiku-4-5", &parallel_calls()));
    let (calls, results) = (&params["messages"][1]["content"], &params["messages"][2]["content"]);
    for (place, (town, sky)) in [("Ulm", "sun in Ulm"), ("Bonn", "rain in Bonn")].into_iter().enumerate() {
        assert_eq!(calls[place]["input"]["town"], town);
        assert_eq!(results[place]["content"], sky);
        assert_eq!(calls[place]["id"], results[place]["tool_use_id"]);
        let id = calls[place]["id"].as_str().unwrap();
        assert!(id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-')), "{id}");
    }
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let (body, _) = sent("gemini", &request("gemini-2.5-pro", &parallel_calls()));
    let (calls, results) = (&body["contents"][1]["parts"], &body["contents"][2]["parts"]);
    for (place, sky) in ["sun in Ulm", "rain in Bonn"].into_iter().enumerate() {
        assert_eq!(results[place]["functionResponse"]["response"]["result"], sky);
        assert_eq!(calls[place]["functionCall"]["id"], results[place]["functionResponse"]["id"]);
    }
    assert_ne!(calls[0]["functionCall"]["id"], calls[1]["functionCall"]["id"]);

    let (body, _) = sent("mistral", &request("mistral-small-latest", &parallel_calls()));
    let messages = &body["messages"];
    assert_eq!(messages[1]["tool_calls"][1]["id"], messages[2]["tool_call_id"]);
    assert_eq!(messages[1]["tool_calls"][0]["id"], messages[3]["tool_call_id"]);
    assert_eq!(messages[2]["tool_call_id"].as_str().map(str::len), Some(9));
    assert_ne!(messages[2]["tool_call_id"], messages[3]["tool_call_id"]);
}

#[test]
fn a_result_belongs_to_a_call_and_a_call_has_one() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let user = json!({"role": "user", "content": "hi"});
    let calls = json!({"role": "assistant", "tool_calls": [call]});
    let result = json!({"role": "tool", "tool_call_id": "c", "content": "x"});
    for kind in ["anthropic", "gemini"] {
        for (messages, what) in [
            (json!([user, calls, result, result]), "or one that has its answer"),
            (json!([user, result]), "answers no call"),
            (json!([user, calls, user]), "the call of `f` has no answer"),
            (json!([user, calls]), "the call of `f` has no answer"),
        ] {
            let told = refused(kind, &request("claude-haiku-4-5", &json!({ "messages": messages })));
            assert!(told.contains(what), "{kind}: {told}");
        }
    }
}

#[test]
fn a_request_of_nothing_but_a_system_message_is_the_user_s() {
    let messages = json!([{"role": "system", "content": "Write a haiku."}]);
    for (kind, models) in MODELS {
        let (body, warnings) = sent(kind, &request(models[0], &json!({"messages": messages})));
        let turns = body.get("messages").or(body.get("contents")).unwrap().clone();
        assert_eq!((turns.as_array().unwrap().len(), &turns[0]["role"]), (1, &json!("user")), "{kind}");
        assert!(warnings.iter().any(|warning| warning.contains("`system`")), "{kind}: {warnings:?}");
    }
    for (kind, what) in [("anthropic", "`user`"), ("gemini", "`user`"), ("bedrock", "`user`")] {
        let messages = json!([{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]);
        let told = refused(kind, &request("m", &json!({"messages": messages})));
        assert!(told.contains(what), "{kind}: {told}");
    }
}

#[test]
fn empty_texts_are_left_out_and_image_jpg_is_set_right() {
    let content = json!([
        {"type": "text", "text": ""},
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,iVBO"}},
    ]);
    let more = json!({"messages": [{"role": "user", "content": content}]});
    for (kind, models) in MODELS {
        let (body, _) = sent(kind, &request(models[0], &more));
        let text = body.to_string();
        assert!(!text.contains("image/jpg") && !text.contains("\"jpg\""), "{kind}: {text}");
        assert!(text.contains("jpeg"), "{kind}: {text}");
        assert!(kind == "mistral" || !text.contains("\"\""), "{kind}: {text}");
    }
}

#[test]
fn marks_of_what_is_cached_reach_claude() {
    let body = request("claude-haiku-4-5", &bodies()["marks of what is cached"]);
    let (params, warnings) = sent("anthropic", &body);
    let mark = json!({"type": "ephemeral"});
    assert_eq!(params["system"][0]["cache_control"], mark);
    assert_eq!(params["messages"][0]["content"][0]["cache_control"], mark);
    assert_eq!(params["messages"][1]["content"][0]["cache_control"], mark);
    assert_eq!(params["messages"][2]["content"][0]["cache_control"], mark);
    assert_eq!(params["tools"][0]["cache_control"], mark);
    assert_eq!(warnings, Vec::<String>::new());
    let (_, warnings) = sent("gemini", &request("gemini-2.5-pro", &bodies()["marks of what is cached"]));
    assert!(warnings.iter().any(|warning| warning.contains("`cache_control`")), "{warnings:?}");
}

#[test]
fn thought_signatures_reach_gemini_and_a_lost_one_is_marked() {
    let body = bodies()["thought signatures"].clone();
    let (request_body, _) = sent("gemini", &request("gemini-3.8-flash", &body));
    assert_eq!(request_body["contents"][1]["parts"][0]["thoughtSignature"], "c2ln");
    let of_text = request("gemini-3.8-flash", &bodies()["a thought signature of a text"]);
    assert_eq!(sent("gemini", &of_text).0["contents"][1]["parts"][0]["thoughtSignature"], "c2ln");
    let (_, warnings) = sent("anthropic", &request("claude-haiku-4-5", &body));
    assert!(warnings.iter().any(|warning| warning.contains("`extra_content`")), "{warnings:?}");

    let (request_body, warnings) = sent("gemini", &request("gemini-3.8-flash", &parallel_calls()));
    let parts = &request_body["contents"][1]["parts"];
    assert_eq!(parts[0]["thoughtSignature"], "skip_thought_signature_validator");
    assert!(parts[1].get("thoughtSignature").is_none());
    assert!(warnings.iter().any(|warning| warning.contains("`thought_signature`")), "{warnings:?}");
    let (request_body, _) = sent("gemini", &request("gemini-2.5-pro", &parallel_calls()));
    assert!(request_body["contents"][1]["parts"][0].get("thoughtSignature").is_none());
}

#[test]
fn an_openai_schema_becomes_gemini_s_own_or_is_warned_of() {
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}}});
    let strict = json!({"type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "required": ["n"], "additionalProperties": false});
    let (body, warnings) = sent("gemini", &request("gemini-2.5-pro", &format(strict)));
    assert_eq!(
        body["generationConfig"],
        json!({"responseMimeType": "application/json", "responseSchema": {
            "type": "object", "properties": {"n": {"nullable": true, "type": "integer"}}, "required": ["n"], "title": "a",
        }})
    );
    assert_eq!(warnings, Vec::<String>::new());
    let free = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let (body, warnings) = sent("gemini", &request("gemini-2.5-pro", &format(free)));
    assert!(body["generationConfig"].get("responseJsonSchema").is_some());
    assert!(warnings[0].contains("`responseJsonSchema`"), "{warnings:?}");
}

#[test]
fn a_schema_is_closed_for_claude() {
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    let open = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}, "p": {"$ref": "#/$defs/p"}},
                      "$defs": {"p": {"type": "object", "properties": {"s": {"type": "string", "format": "odd"}}}}});
    let (params, warnings) = sent("anthropic", &request("claude-opus-5-5", &format(open)));
    assert_eq!(
        params["output_config"]["format"]["schema"],
        json!({"type": "object", "additionalProperties": false, "title": "a",
               "properties": {"n": {"type": "integer"}, "p": {"$ref": "#/$defs/p"}},
               "$defs": {"p": {"type": "object", "additionalProperties": false, "properties": {"s": {"type": "string"}}}}})
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let told = refused(
        "anthropic",
        &request("claude-opus-5-5", &format(json!({"type": "array", "prefixItems": []}))),
    );
    assert!(told.contains("`prefixItems`"), "{told}");
}

#[test]
fn bedrock_s_batches_take_no_tools_and_no_form_of_the_answer() {
    let tools = json!([{"type": "function", "function": {"name": "look"}}]);
    for (more, what) in [
        (json!({"tools": tools}), "`tools`"),
        (json!({"tool_choice": "auto"}), "`tool_choice`"),
        (json!({"response_format": {"type": "json_object"}}), "`response_format`"),
        (parallel_calls(), "`tool_calls`"),
    ] {
        let told = refused("bedrock", &request("amazon.nova-lite-v1:0", &more));
        assert!(told.contains(what), "{told}");
    }
    let told =
        refused("bedrock", &request("eu.anthropic.claude-opus-4-7-v1:0", &json!({"temperature": 0.2})));
    assert!(told.contains("`temperature`"), "{told}");
    let (input, _) =
        sent("bedrock", &request("amazon.nova-lite-v1:0", &json!({"temperature": 0.2, "tools": []})));
    assert_eq!(input["inferenceConfig"], json!({"temperature": 0.2}));
}

#[test]
fn a_model_of_another_company_is_warned_of_once() {
    let lines = |model: &str| {
        let line = |id: &str| json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": request(model, &json!({}))});
        ["a", "b", "c"].map(|id| line(id).to_string()).join("\n")
    };
    for (kind, model, whose) in [
        ("anthropic", "gpt-5-mini", "OpenAI's, and this provider has Anthropic's"),
        ("gemini", "claude-opus-5-5", "Anthropic's, and this provider has Google's"),
        ("mistral", "gemini-3.8-flash", "Google's, and this provider has Mistral's"),
        ("openai", "claude-opus-5-5", "Anthropic's, and this provider has OpenAI's"),
    ] {
        let warnings = judge(kind, &lines(model)).0.unwrap().warnings;
        let told: Vec<&String> = warnings.iter().filter(|warning| warning.contains(whose)).collect();
        assert_eq!(told.len(), 1, "{kind}: {warnings:?}");
        assert!(told[0].starts_with("line 1 and 2 more: "), "{told:?}");
    }
    for (kind, model) in [
        ("anthropic", "claude-haiku-4-5"),
        ("openai-compatible", "claude-opus-5-5"),
        ("openai", "ft:gpt-5:acme"),
    ] {
        assert_eq!(judge(kind, &lines(model)).0.unwrap().warnings, Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn the_keys_are_listed_in_order() {
    let keys: Vec<&str> = KEYS.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(keys.is_sorted() && keys.len() > 100);
    let _: Map<String, Value> = serde_json::from_str(BODIES).unwrap();
}
