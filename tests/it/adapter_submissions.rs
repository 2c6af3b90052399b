//! How files of requests become batches at the services shaped like OpenAI's: what is sent, step by step.

use crate::provider::{adapter, adapter_at, answer, fixtures, sent};
use batchd::http::call::Answer;
use batchd::http::failure::Failure;
use batchd::provider::input_checker::{CheckedInput, InputChecker, Overrides};
use batchd::provider::registry::{KINDS, kind};
use batchd::provider::submit::{Job, Submission, SubmitStep, is_marked};
use batchd::provider::{Kind, Provider};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

const NAMES: [&str; 21] = [
    "openai",
    "openai-compatible",
    "azure-openai",
    "groq",
    "together",
    "dashscope",
    "moonshot",
    "zai",
    "siliconflow",
    "deepinfra",
    "doubleword",
    "novita",
    "litellm",
    "voyage",
    "nebius",
    "ovhcloud",
    "perplexity",
    "qianfan",
    "parasail",
    "inference-net",
    "neosantara",
];

pub fn job() -> Job {
    Job {
        marker: "bd-0123456789abcdef".to_owned(),
        name: Some("nightly".to_owned()),
        endpoint: "/v1/chat/completions".to_owned(),
        model: Some("m-1".to_owned()),
        completion_window: "24h".to_owned(),
        output_expires_after: None,
        metadata: BTreeMap::new(),
        file_name: "in.jsonl".to_owned(),
        bytes: 100,
        requests: 2,
    }
}

/// The answer to a creation: the kind's own first word for a new batch.
fn created(kind: &Kind) -> Answer {
    let recorded = fixtures(kind, "");
    answer(200, recorded.into_iter().find(|(name, _)| name.ends_with("validating.json")).unwrap().1)
}

/// Takes every step, each but the last answered by the next of `answers`.
fn steps(mut submission: Box<dyn Submission>, answers: Vec<Answer>) -> Result<Vec<Value>, Failure> {
    let mut answers = VecDeque::from(answers);
    let mut told = Vec::new();
    let mut last = None;
    loop {
        let step = submission.next(last.as_ref())?;
        let waits = matches!(step, SubmitStep::Wait(_));
        told.push(match step {
            SubmitStep::Send(call) => json!({"send": sent(&call)}),
            SubmitStep::Create(call) => json!({"create": sent(&call)}),
            SubmitStep::Upload(upload) | SubmitStep::CreateWith(upload) => json!({
                "upload": sent(&upload.call),
                "before": String::from_utf8_lossy(&upload.before),
                "after": String::from_utf8_lossy(&upload.after),
            }),
            SubmitStep::Wait(time) => json!({"wait": time.as_secs()}),
            SubmitStep::Done(created) => {
                told.push(json!({"done": created.id}));
                return Ok(told);
            }
        });
        last = if waits { None } else { Some(answers.pop_front().unwrap()) };
    }
}

fn submitted(provider: &dyn Provider, job: &Job, answers: Vec<Answer>) -> Result<Vec<Value>, Failure> {
    steps(provider.submit(job)?, answers)
}

#[test]
fn every_step_is_as_the_service_wants_it() {
    let file = || answer(200, json!({"id": "file-1", "object": "file", "status": "processed"}).to_string());
    let ways: BTreeMap<&str, Vec<Value>> = NAMES
        .iter()
        .map(|name| {
            let kind = kind(name).unwrap();
            (*name, submitted(adapter(kind).as_ref(), &job(), vec![file(), created(kind)]).unwrap())
        })
        .collect();
    insta::assert_json_snapshot!("ways_to_a_batch", ways);
    let otari = kind("otari").unwrap();
    let provider = adapter_at(otari, "http://127.0.0.1:8000", &[("upstream", "anthropic")]);
    let way = submitted(provider.as_ref(), &job(), vec![created(otari)]).unwrap();
    insta::assert_json_snapshot!("otari_s_way_to_a_batch", way);
    let before = way[0]["before"].as_str().unwrap();
    let after = way[0]["after"].as_str().unwrap();
    let whole: Value = serde_json::from_str(&format!("{before}{{\"custom_id\":\"a\"}}{after}")).unwrap();
    assert_eq!(whole["requests"][0]["custom_id"], "a");
}

#[test]
fn openrouter_gets_the_requests_after_all_else() {
    let openrouter = kind("openrouter").unwrap();
    let way = submitted(adapter(openrouter).as_ref(), &job(), vec![created(openrouter)]).unwrap();
    assert_eq!(way[0]["upload"]["url"], "https://openrouter.ai/api/v1/batches");
    let [before, after] = ["before", "after"].map(|part| way[0][part].as_str().unwrap());
    assert_eq!(
        (before, after),
        (r#"{"endpoint":"/v1/chat/completions","model":"m-1","completion_window":"24h","requests":["#, "]}")
    );
    let attached = Job { metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..job() };
    let refused = submitted(adapter(openrouter).as_ref(), &attached, Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("keeps no metadata"), "{refused}");
    let longer = Job { completion_window: "48h".to_owned(), ..job() };
    assert!(
        adapter(openrouter).submit(&longer).unwrap_err().to_string().contains("no completion window but")
    );
    let refused = adapter(openrouter).cancel("batch_1").unwrap_err();
    assert!(refused.to_string().contains("cannot cancel a batch"), "{refused}");
    let (input, judged) = input(adapter(openrouter).as_ref(), &[line("a"), inner("b")]).unwrap();
    let whole: Value = serde_json::from_str(&format!("{before}{input}{after}")).unwrap();
    assert_eq!((&whole["requests"], judged.requests), (&json!([inner("a"), inner("b")]), 2));
}

#[test]
fn voyage_is_told_the_model_once_and_the_requests_hold_nothing_else() {
    let voyage = adapter(kind("voyage").unwrap());
    let embedding = |more: Value| {
        let mut body = json!({"model": "voyage-4-large", "input": ["hi"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body})
    };
    let (sent, judged) = input(voyage.as_ref(), &[embedding(json!({}))]).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&sent).unwrap(),
        json!({"custom_id": "a", "body": {"input": ["hi"]}})
    );
    assert_eq!(
        (judged.endpoint.as_str(), judged.model.as_deref()),
        ("/v1/embeddings", Some("voyage-4-large"))
    );
    let refused = input(voyage.as_ref(), &[embedding(json!({"output_dimension": 512}))]).unwrap_err();
    assert!(refused.contains("--param 'request_params={\"output_dimension\""), "{refused}");
    let own = json!({"custom_id": "b", "body": {"query": "q", "documents": ["d"]}});
    let overrides = Overrides { model: Some("rerank-3".to_owned()), ..Overrides::default() };
    let mut judge = InputChecker::new(voyage.as_ref(), overrides).unwrap();
    let mut into = Vec::new();
    judge.push(voyage.as_ref(), format!("{own}\n").as_bytes(), &mut into);
    assert_eq!(judge.finish(voyage.as_ref(), &mut into).unwrap().endpoint, "/v1/rerank");
}

#[test]
fn azure_is_waited_for_until_it_has_looked_at_the_file() {
    let azure = kind("azure-openai").unwrap();
    let file = |status: &str| answer(200, json!({"id": "file-1", "status": status}).to_string());
    let way = submitted(
        adapter(azure).as_ref(),
        &job(),
        vec![file("pending"), file("running"), file("processed"), created(azure)],
    )
    .unwrap();
    let kinds: Vec<&str> =
        way.iter().map(|step| step.as_object().unwrap().keys().next().unwrap().as_str()).collect();
    assert_eq!(kinds, ["upload", "wait", "send", "wait", "send", "create", "done"]);
    assert!(way[2]["send"]["url"].as_str().unwrap().ends_with("/files/file-1"), "{way:?}");
    let bad =
        answer(200, json!({"id": "file-1", "status": "error", "status_details": "no lines"}).to_string());
    let refused = submitted(adapter(azure).as_ref(), &job(), vec![file("pending"), bad]).unwrap_err();
    assert!(refused.to_string().contains("no lines"), "{refused}");
    let refused = submitted(adapter(azure).as_ref(), &job(), vec![file("pending"); 200]).unwrap_err();
    assert!(refused.to_string().contains("submit it again later"), "{refused}");
}

#[test]
fn a_file_that_is_not_ready_is_waited_for_wherever_it_says_so() {
    let steps = |kind: &Kind, answers: Vec<Answer>| {
        let way = submitted(adapter(kind).as_ref(), &job(), answers).unwrap();
        way.iter()
            .map(|step| step.as_object().unwrap().keys().next().unwrap().clone())
            .collect::<Vec<String>>()
    };
    for name in NAMES {
        let kind = kind(name).unwrap();
        let file = |status: &str| {
            let file = json!({"id": "file-1", "status": status});
            let file = if name == "siliconflow" { json!({"data": file}) } else { file };
            answer(200, file.to_string())
        };
        for word in ["pending", "processing", "PROCESSING", "in_progress", "uploaded"] {
            assert_eq!(
                steps(kind, vec![file(word), file("processed"), created(kind)]),
                ["upload", "wait", "send", "create", "done"],
                "{name} {word}"
            );
        }
        let refused = submitted(adapter(kind).as_ref(), &job(), vec![file("processing"); 200]).unwrap_err();
        assert!(refused.to_string().contains("submit it again later"), "{name}: {refused}");
        let refused = submitted(adapter(kind).as_ref(), &job(), vec![file("error")]).unwrap_err();
        assert!(refused.to_string().contains("does not take the file"), "{name}: {refused}");
        if name == "azure-openai" {
            continue;
        }
        // The last word that some services have for a file.
        let forever = [vec![file("uploaded"); 7], vec![created(kind)]].concat();
        let forever = steps(kind, forever);
        assert_eq!((forever.len(), forever[forever.len() - 2].as_str()), (1 + 6 * 2 + 2, "create"), "{name}");
        // A gateway that tells nothing of its files.
        let silent = answer(404, "{}".to_owned());
        assert_eq!(
            steps(kind, vec![file("pending"), silent, created(kind)]),
            ["upload", "wait", "send", "create", "done"],
            "{name}"
        );
    }
    let together = kind("together").unwrap();
    let file = |processed: bool| answer(200, json!({"id": "file-1", "processed": processed}).to_string());
    let way = steps(together, vec![file(false), file(true), created(together)]);
    assert_eq!(way, ["upload", "wait", "send", "create", "done"]);
}

#[test]
fn azure_is_told_the_one_endpoint_of_text_and_when_the_file_may_go() {
    let azure = kind("azure-openai").unwrap();
    let file = answer(200, json!({"id": "file-1", "status": "processed"}).to_string());
    for (endpoint, told) in [
        ("/v1/chat/completions", "/chat/completions"),
        ("/v1/responses", "/chat/completions"),
        ("/v1/embeddings", "/v1/embeddings"),
    ] {
        let job = Job { endpoint: endpoint.to_owned(), ..job() };
        let way = submitted(adapter(azure).as_ref(), &job, vec![file.clone(), created(azure)]).unwrap();
        let creation: Value = serde_json::from_str(way[1]["create"]["body"].as_str().unwrap()).unwrap();
        assert_eq!(creation["endpoint"], told, "{way:?}");
        let form = way[0]["before"].as_str().unwrap();
        assert!(form.contains("name=\"expires_after.seconds\"\r\n\r\n1209600\r\n"), "{form}");
    }
    let old = adapter_at(azure, "https://r.openai.azure.com/openai", &[("api_version", "2024-10-21")]);
    let way = submitted(old.as_ref(), &job(), vec![file, created(azure)]).unwrap();
    assert!(!way[0]["before"].as_str().unwrap().contains("expires_after"), "{way:?}");
}

#[test]
fn a_large_input_of_fireworks_goes_to_a_signed_address_without_the_key() {
    let fireworks = kind("fireworks").unwrap();
    let provider = adapter_at(fireworks, "https://api.fireworks.ai", &[("account", "a")]);
    let large = Job { bytes: 400_000_000, ..job() };
    let ok = |body: Value| answer(200, body.to_string());
    let url = "https://storage.example.com/in?signature=x";
    let way = submitted(
        provider.as_ref(),
        &large,
        vec![
            ok(json!({"name": "accounts/a/datasets/d"})),
            ok(json!({"filenameToSignedUrls": {"in.jsonl": url}})),
            answer(200, String::new()),
            ok(json!({})),
            ok(json!({"state": "READY"})),
            created(fireworks),
        ],
    )
    .unwrap();
    assert!(way[1]["send"]["url"].as_str().unwrap().ends_with(":getUploadEndpoint"), "{way:?}");
    assert_eq!(way[1]["send"]["body"], r#"{"filenameToSize":{"in.jsonl":"400000000"}}"#);
    let upload = &way[2]["upload"];
    assert_eq!((upload["method"].as_str(), upload["url"].as_str()), (Some("PUT"), Some(url)));
    assert_eq!(upload["headers"]["x-goog-content-length-range"], "400000000,400000000");
    assert!(upload["headers"].get("authorization").is_none() && way[2]["before"] == "");
    assert!(way[3]["send"]["url"].as_str().unwrap().ends_with(":validateUpload"), "{way:?}");
    assert!(provider.intake("/v1/chat/completions").unwrap().max_bytes.unwrap() >= 500_000_000);
}

#[test]
fn together_takes_files_at_one_of_two_places() {
    let together = kind("together").unwrap();
    let file = answer(200, json!({"id": "file-1"}).to_string());
    let elsewhere = answer(404, json!({"error": "no such route"}).to_string());
    let way = submitted(adapter(together).as_ref(), &job(), vec![elsewhere.clone(), file, created(together)])
        .unwrap();
    let urls: Vec<&str> = way.iter().filter_map(|step| step["upload"]["url"].as_str()).collect();
    assert_eq!(urls, ["https://api.together.ai/v1/files/upload", "https://api.together.ai/v1/files"]);
    assert!(submitted(adapter(together).as_ref(), &job(), vec![elsewhere.clone(), elsewhere]).is_err());
}

#[test]
fn a_file_that_was_not_taken_makes_no_batch() {
    for name in NAMES {
        let provider = adapter(kind(name).unwrap());
        for bad in [
            answer(400, json!({"error": {"message": "too long"}}).to_string()),
            answer(200, json!({"object": "file"}).to_string()),
            answer(200, json!({"code": 20012, "message": "no", "data": null}).to_string()),
            answer(200, "<html>"),
        ] {
            let failure = submitted(provider.as_ref(), &job(), vec![bad]);
            assert!(failure.is_err(), "{name}: {failure:?}");
        }
    }
}

#[test]
fn siliconflow_s_envelope_is_opened() {
    let kind = kind("siliconflow").unwrap();
    let body =
        json!({"code": 20000, "message": "Ok", "status": true, "data": {"id": "file-9", "object": "file"}});
    let way = submitted(adapter(kind).as_ref(), &job(), vec![answer(200, body.to_string()), created(kind)])
        .unwrap();
    assert!(way[1]["create"]["body"].as_str().unwrap().contains("\"file-9\""), "{way:?}");
}

#[test]
fn what_a_service_does_not_take_beside_the_requests_is_said_before_anything_is_sent() {
    let refusal = |name: &str, job: &Job| {
        let provider = adapter(kind(name).unwrap());
        match provider.submit(job) {
            Err(Failure::Unsupported(what)) => what,
            other => panic!("{name}: {other:?}"),
        }
    };
    for (name, window) in [
        ("groq", "12h"),
        ("groq", "8d"),
        ("moonshot", "6h"),
        ("dashscope", "15d"),
        ("siliconflow", "1h"),
        ("ovhcloud", "4d"),
        ("qianfan", "29d"),
        ("groq", "soon"),
    ] {
        let job = Job { completion_window: window.to_owned(), ..job() };
        assert!(refusal(name, &job).contains("completion windows from"), "{name} {window}");
    }
    let attached = Job { metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..job() };
    for name in ["together", "novita"] {
        assert!(refusal(name, &attached).contains("no metadata"), "{name}");
    }
    assert!(refusal("scaleway", &job()).contains("creates no batches"));
    for name in ["cohere", "fireworks"] {
        assert!(refusal(name, &attached).contains("no metadata"), "{name}");
    }
    let many = (0..16).map(|key| (key.to_string(), "x".to_owned())).collect();
    assert!(refusal("groq", &Job { metadata: many, ..job() }).contains("15 entries"));
    let modelless = Job { model: None, ..job() };
    let otari = adapter(kind("otari").unwrap()).submit(&modelless).unwrap().next(None).unwrap_err();
    assert!(otari.to_string().contains("--model"), "{otari}");
}

/// A batch whose creation was not answered is found again by its mark where the service keeps one.
#[test]
fn dashscope_s_name_carries_the_mark() {
    let dashscope = kind("dashscope").unwrap();
    let provider = adapter(dashscope);
    let long = Job { metadata: BTreeMap::from([("ds_name".to_owned(), "n".repeat(200))]), ..job() };
    for job in [job(), long] {
        let file = answer(200, json!({"id": "file-1"}).to_string());
        let way = submitted(provider.as_ref(), &job, vec![file, created(dashscope)]).unwrap();
        let creation: Value = serde_json::from_str(way[1]["create"]["body"].as_str().unwrap()).unwrap();
        let name = creation["metadata"]["ds_name"].as_str().unwrap();
        assert!(name.chars().count() <= 100, "{name}");
        let shown = json!({"id": "b", "status": "validating", "metadata": creation["metadata"]}).to_string();
        let sighting = provider.retrieved("b", &answer(200, shown)).unwrap();
        assert!(is_marked(&sighting, &job.marker), "{sighting:?}");
        assert!(!sighting.display_name.unwrap().contains("bd-"));
    }
}

/// The input that a local file becomes, and what is known of it.
fn input(provider: &dyn Provider, lines: &[Value]) -> Result<(String, CheckedInput), String> {
    let file: Vec<String> = lines.iter().map(Value::to_string).collect();
    let file = file.join("\n") + "\n";
    let mut judge =
        InputChecker::new(provider, Overrides::default()).map_err(|failure| failure.to_string())?;
    let mut input = Vec::new();
    judge.push(provider, file.as_bytes(), &mut input);
    let judged = judge
        .finish(provider, &mut input)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((String::from_utf8(input).unwrap(), judged))
}

fn line(id: &str) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}})
}

fn inner(id: &str) -> Value {
    json!({"custom_id": id, "body": line(id)["body"]})
}

#[test]
fn lines_in_openai_s_form_become_the_service_s_own() {
    let of = |name: &str, lines: &[Value]| input(adapter(kind(name).unwrap()).as_ref(), lines).unwrap();
    let parsed = |input: &str| -> Vec<Value> {
        input.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for name in
        ["groq", "dashscope", "moonshot", "siliconflow", "deepinfra", "doubleword", "litellm", "azure-openai"]
    {
        assert_eq!(parsed(&of(name, &[line("a"), line("b")]).0), [line("a"), line("b")], "{name}");
    }
    for name in ["together", "novita"] {
        let (input, judged) = of(name, &[line("a"), inner("b")]);
        assert_eq!(parsed(&input), [inner("a"), inner("b")], "{name}");
        assert_eq!((judged.endpoint.as_str(), judged.requests), ("/v1/chat/completions", 2));
    }
    let (otari, _) = of("otari", &[line("a"), inner("b")]);
    let whole: Value = serde_json::from_str(&format!("[{otari}]")).unwrap();
    assert_eq!(whole, json!([inner("a"), inner("b")]));
    for (name, url) in [("zai", "/v4/chat/completions"), ("qianfan", "/v2/chat/completions")] {
        assert_eq!(parsed(&of(name, &[line("a")]).0)[0]["url"], url);
    }
}

#[test]
fn azure_s_deployment_takes_the_model_s_place() {
    let azure = adapter_at(
        kind("azure-openai").unwrap(),
        "https://r.openai.azure.com",
        &[("deployment", "global-batch")],
    );
    let (input, _) = input(azure.as_ref(), &[line("a")]).unwrap();
    let sent: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(sent["body"]["model"], "global-batch");
    assert_eq!(sent["url"], "/v1/chat/completions");
}

#[test]
fn what_a_service_would_refuse_is_told_by_line() {
    let problem =
        |name: &str, lines: &[Value]| input(adapter(kind(name).unwrap()).as_ref(), lines).unwrap_err();
    let mut elsewhere = line("a");
    elsewhere["url"] = "/v1/embeddings".into();
    elsewhere["body"] = json!({"model": "m", "input": "x"});
    assert!(problem("moonshot", &[elsewhere.clone()]).contains("line 1 is for `/v1/embeddings`"));
    assert!(problem("otari", &[elsewhere]).contains("line 1 is for `/v1/embeddings`"));
    assert!(problem("together", &[line(&"x".repeat(65))]).contains("more than 64 characters"));
    assert!(problem("novita", &[line("a"), line("a")]).contains("same `custom_id`"));
    let mut other = line("b");
    other["body"]["model"] = "m-2".into();
    assert!(problem("otari", &[line("a"), other]).contains("one model"));
}

/// A service that cannot be submitted to says so for itself.
#[test]
fn every_kind_says_what_it_takes_or_that_it_does_not() {
    for kind in KINDS {
        let provider = adapter(kind);
        let takes = provider.intake(provider.default_endpoint()).is_ok();
        let refused = provider.submit(&job()).err().map(|failure| failure.to_string());
        // Bedrock and Vertex must be told where in their storage the input goes.
        let lacks_place = refused.as_ref().is_some_and(|told| told.contains("`input_uri`"));
        assert_eq!(takes, refused.is_none() || lacks_place, "{}", kind.facts.name);
    }
}
