//! What fuzzing begins with: the recorded answers, inputs and examples that the tree has anyway.

use crate::provider::{fixtures, recorded};
use batchd::provider::registry::KINDS;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Inputs by target.
pub struct Corpus(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Corpus {
    pub fn recorded() -> Self {
        let mut corpus = Self(BTreeMap::new());
        for (number, kind) in (0_u8..).zip(KINDS) {
            let of_kind = |body: &[u8]| [&[number], body].concat();
            for (targets, folder) in [
                (&["retrieve", "create"][..], ""),
                (&["retrieve", "list", "create"], "refusals"),
                (&["list"], "lists"),
            ] {
                for body in fixtures(kind, folder).values().filter(|body| body.len() <= LONGEST) {
                    for target in targets {
                        corpus.add(target, of_kind(body));
                    }
                    corpus.add("json", body.clone());
                }
            }
            for body in recorded(kind, "results").values() {
                corpus.add("fetch", of_kind(&body[..body.len().min(LONGEST)]));
                corpus.add("records", [&[0, 2], &body[..body.len().min(LONGEST)]].concat());
                for line in
                    body.split(|byte| *byte == b'\n').filter(|line| (1..LONGEST).contains(&line.len()))
                {
                    corpus.add("result", of_kind(line));
                }
            }
            corpus.add("input", of_kind(INPUT.as_bytes()));
        }
        let document =
            r#"{"metadata":{"state":"DONE"},"response":{"inlinedResponses":[{"a":[1,"]"]},{"b":"\""}]}}"#;
        corpus.add("records", [&[1, 3], document.as_bytes()].concat());
        let examples = std::fs::read_to_string(root().join("config.example.toml")).unwrap();
        corpus.add("config", examples.replace("\n# ", "\n").into_bytes());
        corpus.add("config", examples.into_bytes());
        for text in TEMPLATES {
            corpus.add("template", text.as_bytes().to_vec());
        }
        for text in TIMES {
            corpus.add("time", text.as_bytes().to_vec());
        }
        for text in HEADERS {
            corpus.add("headers", text.as_bytes().to_vec());
        }
        for text in API {
            corpus.add("api", text.as_bytes().to_vec());
        }
        for body in [
            json!({"type": "batch.completed", "data": {"id": "batch_x"}}),
            json!({"type": "batch.failed", "data": {"batch_id": "3f1e2d4c", "status": "failed"}}),
        ] {
            corpus.add("hook", body.to_string().into_bytes());
        }
        corpus.events();
        corpus
    }

    /// Bodies of events, as they are recorded.
    fn events(&mut self) {
        let batch = json!({"id": "batch_x", "object": "batch", "endpoint": "/v1/chat/completions", "status": "completed",
            "errors": {"object": "list", "data": [{"code": "c", "message": "<b>no</b> & *so*", "line": 3}]},
            "request_counts": {"total": 10, "completed": 8, "failed": 2}, "created_at": 1_795_000_000,
            "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, "metadata": {"a": "b"},
            "batchd": {"provider": "openai", "console_url": "https://example.com/x", "outcome": "partial"}});
        for kind in [
            "batch.completed",
            "batch.failed",
            "batch.expired",
            "batch.stalled",
            "batch.results_failed",
            "provider.unauthorized",
            "provider.recovered",
            "webhook.failing",
            "batchd.test",
        ] {
            let body = json!({"id": "evt_x", "object": "event", "type": kind, "sequence": 8,
                "created_at": 1_795_000_000, "timestamp": "2026-11-18T11:06:40.123Z",
                "data": {"id": "batch_x", "provider": "openai", "status": "completed", "outcome": "partial",
                    "severity": "warning", "previous_status": "finalizing", "observed_at": "2026-11-18T11:06:40.123Z",
                    "occurred_at": null, "duration_seconds": 5321, "name": "night <ly>", "labels": {"team": "evals"},
                    "message": "no progress for 6 h", "batch": batch, "usual_seconds": 5100, "usual_of": 37}});
            self.add("event", body.to_string().into_bytes());
        }
        let digest = json!({"id": "evt_d", "object": "event", "type": "batchd.digest", "sequence": 9,
            "created_at": 1_795_000_000, "timestamp": "2026-11-18T11:06:40.123Z",
            "data": {"name": "morning", "since": "2026-11-17T09:00:00Z", "until": "2026-11-18T09:00:00Z",
                "severity": "info", "counts": {"ended": 3, "running": 2, "stuck": 1},
                "ended": [{"id": "batch_x", "provider": "openai", "status": "completed", "outcome": "succeeded"}],
                "running": [{"id": "batch_y", "provider": "openai", "eta": "2026-11-18T12:00:00Z"}],
                "stuck": [{"id": "batch_z", "provider": "openai", "stalled": true}]}});
        self.add("event", digest.to_string().into_bytes());
    }

    fn add(&mut self, target: &'static str, input: Vec<u8>) {
        self.0.entry(target).or_default().push(input);
    }

    pub fn of(&self, target: &str) -> &[Vec<u8>] {
        self.0.get(target).map_or(&[], Vec::as_slice)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Longer ones only slow the search down.
const LONGEST: usize = 24 * 1024;

const INPUT: &str = concat!(
    r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","max_tokens":9,"temperature":0.5,"#,
    r#""messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"},"#,
    r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}],"tools":[{"type":"function","#,
    r#""function":{"name":"f","parameters":{"type":"object","properties":{"x":{"type":"string"}}}}}],"#,
    r#""tool_choice":"auto","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}}}"#,
    "\n",
    r#"{"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}"#,
    "\n",
    r#"{"custom_id":"c","params":{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}}"#,
    "\n",
    r#"{"key":"d","request":{"contents":[{"role":"user","parts":[{"text":"x"}]}]}}"#,
);

const TEMPLATES: [&str; 5] = [
    r#"{"text": "{{ line }}", "batch": "{{ id }}"}"#,
    "{% for error in errors %}{{ loop.index }}: {{ error | upper }}{% endfor %}",
    "{% if severity == 'error' %}{{ event.data.batch.request_counts.failed }}{% else %}fine{% endif %}",
    "{{ name or id }} {{ '%d' | format(3) }} {{ labels | tojson }} {{ range(3) | join(',') }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(m(title)) }}{# done #}",
];

const TIMES: [&str; 9] = [
    "15s",
    "1h30m",
    "7d",
    "2w3d4h5m6s7ms",
    "*/5 * * * *",
    "0 9 * * Mon-Fri",
    "0 0 29 2 *",
    "59 23 31 12 7",
    "0 0 L * 5#2",
];

const HEADERS: [&str; 5] = [
    "retry-after: 120\nretry-after-ms: 1500\ndate: Wed, 25 Nov 2026 00:00:00 GMT",
    "retry-after: Wed, 25 Nov 2026 00:10:00 GMT\ndate: Wed, 25 Nov 2026 00:00:00 GMT",
    "retry-after: 1000000000000\nretry-after-ms: -1\nx-should-retry: true",
    "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\nx-ratelimit-reset-requests: 6m0s",
    "webhook-delivery: disable\nx-ratelimit-remaining: 0\nx-ratelimit-reset-after: 1.5",
];

const API: [&str; 5] = [
    r#"{"items":[{"id":"batch_1","provider":"openai","name":"n","labels":{"a":"b"},"notify":["w"],"no_notify":false,"deadline":"6h","check":true}]}"#,
    r#"{"id":"batch_1","provider":"openai","deadline":"6h"}"#,
    r#"{"provider":"openai","since":"7d","track":true}"#,
    "status=completed,failed&provider=openai&label=a%3Db&limit=20&after=batch_1&active=true&owner=me",
    "provider=openai&endpoint=/v1/chat/completions&metadata=a%3Db&label=k%3Dv&format=raw&errors=true&state=dead",
];
