//! The judge of local files, and the translation of their requests, by examples and by properties.

use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::provider::Provider;
use batchd::provider::input_checker::{CheckedInput, InputChecker, InputProblem, MOST_PROBLEMS, Overrides};
use batchd::provider::registry::kind;
use batchd::provider::submit::{Job, MARKER, SubmitStep, Upload};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const KEY: &str = "sk-a-key-that-nobody-may-see";

fn adapter(name: &str) -> Box<dyn Provider> {
    crate::provider::adapter(kind(name).unwrap())
}

/// Judges `file`, given in pieces that end at `cuts`.
fn judge_cut(
    name: &str,
    overrides: Overrides,
    file: &[u8],
    cuts: &[usize],
) -> (Result<CheckedInput, Vec<InputProblem>>, Vec<u8>) {
    let provider = adapter(name);
    let mut judge = InputChecker::new(provider.as_ref(), overrides).unwrap();
    let mut input = Vec::new();
    let mut from = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (file.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(file.len());
    for end in ends {
        if !judge.push(provider.as_ref(), &file[from..end], &mut input) {
            break;
        }
        from = end;
    }
    let judged = judge.finish(provider.as_ref(), &mut input);
    (judged, input)
}

pub fn judge(name: &str, file: &str) -> (Result<CheckedInput, Vec<InputProblem>>, String) {
    let (judged, input) = judge_cut(name, Overrides::default(), file.as_bytes(), &[]);
    (judged, String::from_utf8(input).unwrap())
}

/// What is wrong with a file, one line each.
fn faults(name: &str, overrides: Overrides, file: &[u8]) -> String {
    let problems = judge_cut(name, overrides, file, &[]).0.unwrap_err();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn chat(id: &str) -> Value {
    json!({
        "custom_id": id, "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]},
    })
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn requests_about_recordings_keep_the_method_that_together_wants() {
    let body = json!({"model": "openai/whisper-large-v3", "file": "https://example.com/a.mp3"});
    let own = json!({"custom_id": "a", "method": "FILE", "body": body}).to_string();
    let openai = json!({"custom_id": "b", "method": "POST", "url": "/v1/audio/transcriptions", "body": body});
    for (line, id) in [(own, "a"), (openai.to_string(), "b")] {
        let (judged, input) = judge("together", &format!("{line}\n"));
        assert_eq!(judged.unwrap().endpoint, "/v1/audio/transcriptions");
        let sent: Value = serde_json::from_str(&input).unwrap();
        assert_eq!(sent, json!({"custom_id": id, "method": "FILE", "body": body}));
    }
    let elsewhere = json!({"custom_id": "a", "method": "FILE", "body": body}).to_string();
    assert!(faults("openai", Overrides::default(), elsewhere.as_bytes()).contains("method `FILE`"));
}

#[test]
fn images_and_videos_are_taken_where_batches_may_be_for_them() {
    for endpoint in ["/v1/images/generations", "/v1/images/edits", "/v1/videos/generations"] {
        let line = json!({"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m", "prompt": "p"}});
        assert_eq!(judge("xai", &line.to_string()).0.unwrap().endpoint, endpoint);
    }
}

#[test]
fn a_good_file_is_sent_as_it_is() {
    let file = lines(&[chat("a"), chat("b")]);
    for kind in ["openai", "openai-compatible"] {
        let (judged, input) = judge(kind, &file);
        assert_eq!(
            judged.unwrap(),
            CheckedInput {
                endpoint: "/v1/chat/completions".to_owned(),
                model: Some("m-1".to_owned()),
                requests: 2,
                bytes: file.len() as u64,
                warnings: Vec::new(),
            }
        );
        assert_eq!(input, file);
        // The last line need not end, and the others may end as they do on other systems.
        assert_eq!(judge(kind, &file.replace('\n', "\r\n")).1, file);
        assert_eq!(judge(kind, file.trim_end()).1, file);
    }
}

#[test]
fn every_fault_is_told_with_its_line() {
    let line = |change: fn(&mut Value)| {
        let mut line = chat("x");
        change(&mut line);
        line.to_string().into_bytes()
    };
    let mut not_text = chat("u").to_string().into_bytes();
    let at = not_text.len() - 6;
    not_text[at] = 0xff;
    let rows: Vec<Vec<u8>> = vec![
        chat("a").to_string().into_bytes(),
        b"".to_vec(),
        b"{\"custom_id\": \"half\", \"body".to_vec(),
        b"{\"custom_id\": nonsense}".to_vec(),
        chat("a").to_string().into_bytes(),
        b"[1]".to_vec(),
        b"7".to_vec(),
        not_text,
        line(|line| line["custom_id"] = json!(7)),
        line(|line| drop(line.as_object_mut().unwrap().remove("custom_id"))),
        line(|line| line["method"] = json!("GET")),
        line(|line| line["url"] = json!("/v1/embeddings")),
        line(|line| line["body"] = json!("text")),
        line(|line| line["body"]["model"] = json!("m-2")),
        line(|line| line["body"] = json!({"model": "m-1", "input": "hi"})),
        line(|line| drop(line["body"].as_object_mut().unwrap().remove("model"))),
        b"{\"custom_id\":\"t\",\"custom_id\":\"t\"}".to_vec(),
        json!({"custom_id": "p", "params": {"model": "m", "max_tokens": 1, "messages": []}})
            .to_string()
            .into_bytes(),
        b"{\"custom_id\": \"cut".to_vec(),
    ];
    insta::assert_snapshot!(faults("openai", Overrides::default(), &rows.join(&b'\n')));
}

#[test]
fn what_a_file_is_instead_is_said() {
    let told = |bytes: &[u8]| faults("openai", Overrides::default(), bytes);
    assert!(told(b"\xef\xbb\xbf{}").contains("byte order mark (BOM)"));
    assert!(told(b"\xff\xfe{\0").contains("UTF-16"));
    assert!(told(b"\x1f\x8b\x08").contains("zcat"));
    assert!(told(b"[{}]").contains("jq -c"));
    assert!(told(b"").contains("has no requests"));
    assert_eq!(told(b"\n"), "the file has no requests: it is empty");
}

#[test]
fn there_is_an_end_to_complaints_and_to_lines() {
    let line = |number: u32| {
        format!("{{\"custom_id\":\"a\",\"method\":\"M{number}\",\"url\":\"/v1/x\",\"body\":{{}}}}\n")
    };
    let file: String = (0..1000).map(line).collect();
    let told = faults("openai", Overrides::default(), file.as_bytes());
    assert_eq!(told.lines().count(), MOST_PROBLEMS + 1, "{told}");
    assert!(told.ends_with("the file was not checked any further"), "{told}");

    // A line of 70 MB costs its own place and nothing else; the one behind it is checked.
    let mut file = b"{\"custom_id\":\"long\",\"x\":\"".to_vec();
    file.resize(70 << 20, b'x');
    file.extend_from_slice(b"\"}\nnonsense\n");
    let cuts: Vec<usize> = (0..file.len()).step_by(64 << 10).collect();
    let problems = judge_cut("openai", Overrides::default(), &file, &cuts).0.unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told[0], "line 1 is longer than the 64 MiB that batchd reads of one line");
    assert!(told[1].starts_with("line 2 is not JSON"), "{told:?}");
}

#[test]
fn the_bound_of_a_line_is_the_service_s_own() {
    let line = |bytes: usize| {
        let mut request = chat("a");
        request["body"]["messages"][0]["content"] = "x".repeat(bytes).into();
        lines(&[request])
    };
    let own = |bytes: usize| {
        let content = "x".repeat(bytes);
        let params =
            json!({"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": content}]});
        json!({"custom_id": "a", "params": params}).to_string()
    };
    assert!(judge("openai", &line(16 << 20)).0.is_ok());
    assert!(judge("anthropic", &line(16 << 20)).0.is_ok());
    assert!(judge("anthropic", &own(31 << 20)).0.is_ok());
    let told = judge("anthropic", &own(33 << 20)).0.unwrap_err();
    assert_eq!(told[0].to_string(), "line 1 is longer than the 32 MB that a request may have here");
    let told = judge("dashscope", &line(7 << 20)).0.unwrap_err();
    assert!(told[0].what.contains("may have here"), "{told:?}");
}

#[test]
fn empty_lines_at_the_end_are_no_fault_and_the_same_fault_is_told_once() {
    for end in ["\n\n", "\n  \n\r\n", "\n\t"] {
        let (judged, input) = judge("openai", &format!("{}{end}", chat("a")));
        assert_eq!((judged.unwrap().requests, input.trim_end()), (1, chat("a").to_string().as_str()));
    }
    let told = judge("openai", &format!("{}\n\n\n{}\n", chat("a"), chat("b"))).0.unwrap_err();
    assert_eq!(told[0].to_string(), "lines 2–3: each is empty; each line holds one request");
    let bare: Vec<String> =
        (0..200).map(|number| format!("{{\"custom_id\":\"{number}\",\"body\":{{}}}}")).collect();
    let bare = bare.join("\n");
    let told = judge("openai", &bare).0.unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().starts_with("lines 1–200: each has no `method`"), "{told:?}");
}

#[test]
fn a_service_s_limits_hold() {
    let ids = |count: usize| lines(&(0..count).map(|number| chat(&number.to_string())).collect::<Vec<_>>());
    assert!(judge("openai", &ids(50_000)).0.is_ok());
    let told = judge("openai", &ids(50_001)).0.unwrap_err();
    assert_eq!(
        told[0].to_string(),
        "the file has 50,001 requests (6.7 MB), and one batch may have 50,000 requests and 200 MB here; --split makes \
         2 batches of it: 50,000 requests (6.7 MB), 1 request (0.1 MB)"
    );
    let told = judge("anthropic", &lines(&[chat("a b"), chat(&"x".repeat(65))])).0.unwrap_err();
    assert!(told[0].what.contains("letters, digits"), "{told:?}");
    assert!(told[1].what.contains("more than 64"), "{told:?}");
    let mut other = chat("o");
    other["url"] = json!("/v1/frobnicate");
    let told = judge("openai", &lines(&[other])).0.unwrap_err();
    assert!(
        told[0].what.contains("`/v1/frobnicate`") && told[0].what.contains("`/v1/responses`"),
        "{told:?}"
    );
}

#[test]
fn a_service_s_own_lines_are_taken_as_they_are() {
    let anthropic =
        json!({"custom_id": "a", "params": {"model": "c", "max_tokens": 5, "messages": []}}).to_string();
    let (judged, input) =
        judge("anthropic", &format!("{anthropic}\n{}", anthropic.replace("\"a\"", "\"b\"")));
    assert_eq!(judged.unwrap().endpoint, "/v1/messages");
    assert_eq!(input, format!("{anthropic},{}", anthropic.replace("\"a\"", "\"b\"")));

    let gemini = json!({"key": "a", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}).to_string();
    let told = judge("gemini", &gemini).0.unwrap_err();
    assert_eq!(told[0].to_string(), "the file names no model: give it with --model");
    let overrides = Overrides { model: Some("gemini-x".to_owned()), ..Overrides::default() };
    let (judged, input) = judge_cut("gemini", overrides, gemini.as_bytes(), &[]);
    assert_eq!(judged.unwrap().model.as_deref(), Some("gemini-x"));
    assert_eq!(input, format!("{gemini}\n").into_bytes());
    let told = judge("gemini", &json!({"key": "a", "request": {}}).to_string()).0.unwrap_err();
    assert_eq!(told[0].what, "is no request: its `request` has no `contents` or `content`");

    let mistral = json!({"custom_id": "0", "body": {"inputs": ["hi"]}}).to_string();
    let (judged, input) = judge("mistral", &mistral);
    assert_eq!((judged.unwrap().endpoint.as_str(), input.trim_end()), ("/v1/embeddings", mistral.as_str()));
    let told = judge("anthropic", &gemini).0.unwrap_err();
    assert!(told[0].what.contains("Google's"), "{told:?}");
}

#[test]
fn a_model_given_by_hand_is_every_request_s() {
    let overrides = || Overrides { model: Some("m-9".to_owned()), ..Overrides::default() };
    let mut other = chat("b");
    other["body"]["model"] = json!("m-2");
    let file = lines(&[chat("a"), other]);
    for kind in ["openai", "anthropic", "gemini", "mistral"] {
        let (judged, input) = judge_cut(kind, overrides(), file.as_bytes(), &[]);
        assert_eq!(judged.unwrap().model.as_deref(), Some("m-9"), "{kind}");
        let input = String::from_utf8(input).unwrap();
        assert!(!input.contains("m-1") && !input.contains("m-2"), "{kind}: {input}");
    }
}

/// The requests that a translation is shown with.
fn translated() -> Vec<(&'static str, Value)> {
    let image = json!([
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.webp?x=1"}},
    ]);
    let tool = json!({"type": "function", "function": {
        "name": "weather", "description": "of a town", "strict": true,
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "additionalProperties": false},
    }});
    let call = |id: &str, town: &str| {
        let arguments = json!({ "town": town }).to_string();
        json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
    };
    let calls = [call("call_1", "Ulm"), call("call_2", "Bonn")];
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    vec![
        (
            "plain",
            json!({"model": "m", "messages": [
            {"role": "system", "content": "be brief"}, {"role": "developer", "content": [{"type": "text", "text": "no jokes"}]},
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and?"},
        ], "max_completion_tokens": 64, "temperature": 0.2, "stop": "END", "seed": 7, "user": "ada",
           "n": 1, "stream": false, "frequency_penalty": 0, "logit_bias": {}, "metadata": null}),
        ),
        ("nucleus", json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "top_p": 0.9})),
        ("image", json!({"model": "m", "messages": [{"role": "user", "content": image}]})),
        (
            "tools",
            json!({"model": "m", "messages": [
            {"role": "user", "content": "weather?"}, {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_2", "content": "{\"sky\":\"grey\"}"}, {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ], "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": false}),
        ),
        (
            "schema",
            json!({"model": "m", "messages": [{"role": "user", "content": "n?"}], "stop": ["a", "b"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}),
        ),
        (
            "json",
            json!({"model": "m", "messages": [{"role": "user", "content": "n?"}], "response_format": {"type": "json_object"}}),
        ),
        (
            "thinking",
            json!({"model": "m", "messages": [{"role": "user", "content": "why?"}], "reasoning_effort": "low"}),
        ),
        ("hot", json!({"model": "m", "messages": [{"role": "user", "content": "!"}], "temperature": 1.7})),
        (
            "audio",
            json!({"model": "m", "messages": [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}]}]}),
        ),
        (
            "penalties",
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "presence_penalty": 0.5, "logprobs": true, "top_logprobs": 2}),
        ),
        (
            "unknown",
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "web_search_options": {}}),
        ),
        (
            "half a call",
            json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]}]}),
        ),
    ]
}

#[test]
fn requests_in_openai_s_form_become_the_service_s_own() {
    for (shown_as, kind, model) in [
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("anthropic_newest", "anthropic", "claude-opus-5-5"),
        ("gemini", "gemini", "gemini-2.5-flash"),
        ("gemini_newest", "gemini", "gemini-3.8-flash"),
        ("mistral", "mistral", "mistral-medium-latest"),
    ] {
        let shown: BTreeMap<&str, Value> = translated()
            .into_iter()
            .map(|(name, mut body)| {
                body["model"] = json!(model);
                let line = json!({"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": body});
                let (judged, input) = judge(kind, &line.to_string());
                let shown = match judged {
                    Ok(judged) => json!({"sent": serde_json::from_str::<Value>(&input).unwrap(), "warnings": judged.warnings}),
                    Err(problems) => json!(problems.iter().map(ToString::to_string).collect::<Vec<_>>()),
                };
                (name, shown)
            })
            .collect();
        insta::assert_json_snapshot!(format!("translation_{shown_as}"), shown);
    }
}

#[test]
fn embeddings_are_translated_too() {
    let line = |body: Value| {
        json!({"custom_id": "r", "method": "POST", "url": "/v1/embeddings", "body": body}).to_string()
    };
    let (_, input) = judge("gemini", &line(json!({"model": "e", "input": "hi", "dimensions": 256})));
    let sent: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(
        sent,
        json!({"key": "r", "request": {"content": {"parts": [{"text": "hi"}]}, "outputDimensionality": 256}})
    );
    let told = judge("gemini", &line(json!({"model": "e", "input": ["a", "b"]}))).0.unwrap_err();
    assert!(told[0].what.contains("a line of its own"), "{told:?}");
    let (_, input) = judge("mistral", &line(json!({"model": "e", "input": ["a", "b"], "dimensions": 8})));
    let sent: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(sent, json!({"custom_id": "r", "body": {"input": ["a", "b"], "output_dimension": 8}}));
    let told = judge("anthropic", &line(json!({"model": "e", "input": "a"}))).0.unwrap_err();
    assert!(told[0].what.contains("/v1/embeddings"), "{told:?}");
}

/// JSON of any kind.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop_oneof![
            "user",
            "assistant",
            "tool",
            "system",
            "text",
            "image_url",
            "function",
            "auto",
            "\\PC{0,8}"
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            "messages",
            "role",
            "content",
            "type",
            "text",
            "tools",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "image_url",
            "url",
            "stop",
            "response_format",
            "json_schema",
            "schema",
            "model",
            "input",
            "tool_choice"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn where_a_file_is_cut_changes_nothing(
        rows in prop::collection::vec(prop_oneof![
            3 => "[a-z]{1,3}".prop_map(|id| chat(&id).to_string()),
            1 => "\\PC{0,30}".prop_map(String::from),
        ], 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        name in prop::sample::select(vec!["openai", "anthropic", "gemini", "mistral"]),
    ) {
        let file = rows.join("\n");
        let whole = judge_cut(name, Overrides::default(), file.as_bytes(), &[]);
        let pieces = judge_cut(name, Overrides::default(), file.as_bytes(), &cuts);
        prop_assert_eq!(&whole.0, &pieces.0);
        if whole.0.is_ok() {
            prop_assert_eq!(whole.1.len() as u64, whole.0.unwrap().bytes);
            prop_assert_eq!(whole.1, pieces.1);
        }
    }

    #[test]
    fn no_bytes_make_it_fall(file in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["openai", "anthropic"] {
            let judged = judge_cut(name, Overrides::default(), &file, &[]).0;
            prop_assert!(judged.is_err_and(|problems| !problems.is_empty()));
        }
    }

    /// What is translated is JSON with the id, and no part of a request is lost without a word.
    #[test]
    fn any_request_is_translated_or_refused_by_name(body in any_json(), messages in prop::collection::vec(any_json(), 0..3)) {
        let mut body = if body.is_object() { body } else { json!({}) };
        body["model"] = json!("m");
        body["messages"] = json!(messages);
        let line = json!({"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": body});
        for name in ["anthropic", "gemini", "mistral"] {
            match judge(name, &line.to_string()) {
                (Ok(_), input) => {
                    let sent: Value = serde_json::from_str(&input).unwrap();
                    prop_assert!(sent["custom_id"] == "r" || sent["key"] == "r");
                }
                (Err(problems), _) => prop_assert!(problems[0].lines == [(1, 1)] && !problems[0].what.is_empty()),
            }
        }
    }

    #[test]
    fn ids_are_unique_or_the_first_is_named(ids in prop::collection::vec("[a-d]{1,2}", 1..20)) {
        let file = lines(&ids.iter().map(|id| chat(id)).collect::<Vec<_>>());
        let repeated = ids.iter().enumerate().skip(1).find_map(|(place, id)| {
            let first = ids[..place].iter().position(|other| other == id)?;
            Some((place as u64 + 1, format!("has the same `custom_id` as line {}: `{id}`", first + 1)))
        });
        let told = judge("openai", &file).0.err().map(|problems| (problems[0].lines[0].0, problems[0].what.clone()));
        prop_assert_eq!(told, repeated);
    }
}

fn job() -> Job {
    Job {
        marker: "bd-00112233445566778899aabbccddeeff".to_owned(),
        name: Some("nightly".to_owned()),
        endpoint: "/v1/chat/completions".to_owned(),
        model: Some("m-1".to_owned()),
        completion_window: "24h".to_owned(),
        output_expires_after: None,
        metadata: BTreeMap::from([("job".to_owned(), "n1".to_owned())]),
        file_name: "in.jsonl".to_owned(),
        bytes: 1000,
        requests: 2,
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &Value) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    Answer { status: StatusCode::from_u16(status).unwrap(), headers: map, body, cut: false }
}

/// What leaves the machine, the key blotted out.
fn sent(call: &Call) -> Value {
    let headers: serde_json::Map<String, Value> = call
        .request
        .headers()
        .iter()
        .map(|(name, value)| {
            let shown = if value.is_sensitive() { "[secret]" } else { value.to_str().unwrap() };
            (name.to_string(), shown.into())
        })
        .collect();
    json!({
        "method": call.request.method().as_str(),
        "url": call.request.uri().to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(call.request.body()),
        "timeout": call.timeout.as_secs(),
    })
}

fn upload(word: &str, Upload { call, before, after }: &Upload) -> Value {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    json!({ word: sent(call), "before": text(before), "after": text(after) })
}

fn step(step: &SubmitStep) -> Value {
    match step {
        SubmitStep::Send(call) => json!({ "send": sent(call) }),
        SubmitStep::Create(call) => json!({ "create": sent(call) }),
        SubmitStep::Upload(form) => upload("upload", form),
        SubmitStep::CreateWith(form) => upload("create with", form),
        SubmitStep::Wait(time) => json!({ "wait": time.as_secs() }),
        SubmitStep::Done(created) => json!({ "done": created.id }),
    }
}

/// Every step of a submission at a service that answers like this.
fn steps(name: &str, answers: &[Answer]) -> Vec<Value> {
    let mut submission = adapter(name).submit(&job()).unwrap();
    let mut shown = vec![step(&submission.next(None).unwrap())];
    for answer in answers {
        shown.push(step(&submission.next(Some(answer)).unwrap()));
    }
    shown
}

#[test]
fn every_step_is_as_the_service_wants_it() {
    let file = answer(200, &[], &json!({"id": "file-1", "object": "file"}));
    let batch =
        |id: &str| answer(200, &[], &json!({"id": id, "status": "validating", "created_at": 1_795_000_000}));
    let url = "https://upload.example.com/there?upload_id=7";
    let script: [(&str, Vec<Answer>); 4] = [
        ("openai", vec![file.clone(), batch("batch_1")]),
        (
            "anthropic",
            vec![answer(200, &[], &json!({"id": "msgbatch_1", "processing_status": "in_progress"}))],
        ),
        (
            "gemini",
            vec![
                answer(200, &[("x-goog-upload-url", url)], &Value::Null),
                answer(200, &[], &json!({"file": {"name": "files/abc"}})),
                answer(200, &[], &json!({"name": "batches/1", "metadata": {"state": "BATCH_STATE_PENDING"}})),
            ],
        ),
        ("mistral", vec![file, answer(200, &[], &json!({"id": "3f1e2d4c", "status": "QUEUED"}))]),
    ];
    for (name, answers) in script {
        insta::assert_json_snapshot!(format!("steps_{name}"), steps(name, &answers));
    }
}

#[test]
fn no_key_goes_where_an_upload_is_sent_to() {
    let mut submission = adapter("gemini").submit(&job()).unwrap();
    submission.next(None).unwrap();
    let there = answer(200, &[("x-goog-upload-url", "https://elsewhere.example.com/up")], &Value::Null);
    let SubmitStep::Upload(upload) = submission.next(Some(&there)).unwrap() else { panic!("no upload") };
    assert_eq!(upload.call.request.uri().host(), Some("elsewhere.example.com"));
    for (name, value) in upload.call.request.headers() {
        assert!(name != "x-goog-api-key" && name != "authorization" && value != KEY, "{name}");
    }
    // Nor does the input leave in the clear where the account's own address is encrypted.
    let mut submission = adapter("gemini").submit(&job()).unwrap();
    submission.next(None).unwrap();
    let plain = answer(200, &[("x-goog-upload-url", "http://elsewhere.example.com/up")], &Value::Null);
    assert!(matches!(submission.next(Some(&plain)), Err(Failure::Malformed(_))));
}

#[test]
fn what_a_service_does_not_offer_is_said() {
    let refused = |name: &str, job: &Job| adapter(name).submit(job).err().map(|failure| failure.to_string());
    let longer = Job { completion_window: "7d".to_owned(), ..job() };
    for name in ["anthropic", "gemini"] {
        assert!(refused(name, &longer).unwrap().contains("24h"), "{name}");
    }
    assert_eq!(refused("mistral", &longer), None);
    let odd = Job { completion_window: "90m".to_owned(), ..job() };
    assert!(refused("mistral", &odd).unwrap().contains("whole hours"));
    let metadata = (0..16).map(|number| (format!("k{number}"), String::new())).collect();
    assert!(refused("openai", &Job { metadata, ..job() }).unwrap().contains("15 entries"));
}

#[test]
fn an_answer_that_is_none_fails_the_step() {
    for (name, bad) in [
        ("openai", answer(200, &[], &json!({"object": "file"}))),
        ("openai", answer(413, &[], &json!({"error": {"message": "too large"}}))),
        ("gemini", answer(200, &[], &json!({}))),
        ("mistral", answer(401, &[], &json!({"message": "Unauthorized"}))),
        ("anthropic", answer(200, &[], &json!({}))),
    ] {
        let mut submission = adapter(name).submit(&job()).unwrap();
        submission.next(None).unwrap();
        assert!(submission.next(Some(&bad)).is_err(), "{name}");
    }
}

#[test]
fn a_gemini_batch_shows_its_name_without_the_mark() {
    let gemini = adapter("gemini");
    let body = json!({"name": "batches/1", "metadata": {"displayName": "nightly [bd-1f]", "state": "BATCH_STATE_RUNNING"}});
    let sighting = gemini.retrieved("batches/1", &answer(200, &[], &body)).unwrap();
    assert_eq!(
        (sighting.display_name.as_deref(), sighting.marker.as_deref()),
        (Some("nightly"), Some("bd-1f"))
    );
    assert!(batchd::provider::submit::is_marked(&sighting, "bd-1f"));
    assert!(!MARKER.is_empty());
}
