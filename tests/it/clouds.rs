//! The clouds' services against what others wrote: credentials as AWS's machines give them, ministack in AWS's place,
//! and the official SDKs, whose requests ours must equal.

use crate::world::{Daemon, World, until};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::IntoResponse as _;
use batchd::config::ProviderConfig;
use batchd::domain::batch::Batch;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::provider::registry::kind;
use batchd::provider::results::{Fetch, FetchStep, Part};
use batchd::provider::submit::{Created, Job, SubmitStep};
use batchd::provider::{Account, PageRequest, Provider};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const ARN: &str = "arn:aws:bedrock:us-east-1:111122223333:model-invocation-job/ab12cd34ef56";

/// A daemon of `world` with more in its environment.
fn daemon(world: &World, environment: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::start(world.command().envs(environment.iter().copied()).args(["-vv", "run"]));
    until("the daemon answers", || {
        assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
        std::os::unix::net::UnixStream::connect(world.socket()).ok()
    });
    daemon
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// The credentials of a container, and a job at the same address.
async fn aws(State(seen): State<Seen>, uri: Uri, headers: HeaderMap) -> axum::response::Response {
    seen.lock().unwrap().push((uri.path().to_owned(), headers));
    if uri.path() == "/credentials" {
        return json!({
            "AccessKeyId": "ASIAOFTHECONTAINER", "SecretAccessKey": "secret-of-the-container",
            "Token": "token-of-the-container", "Expiration": "2099-01-01T00:00:00Z",
        })
        .to_string()
        .into_response();
    }
    json!({"jobArn": ARN, "status": "InProgress", "submitTime": "2026-11-20T08:00:00Z"})
        .to_string()
        .into_response()
}

#[test]
fn a_container_s_credentials_sign_and_are_asked_for_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let seen = Seen::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(aws).with_state(seen.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let world = World::new();
    world.configure(&format!(
        "[providers.bedrock]\nregion = \"us-east-1\"\nbase_url = \"http://{address}\"\n"
    ));
    let place = format!("http://{address}/credentials");
    let daemon = daemon(
        &world,
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", place.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")],
    );
    for _ in 0..2 {
        assert_eq!(world.json(&["get", ARN, "--json"])["status"], "in_progress");
    }
    let seen = seen.lock().unwrap();
    let asked = |path: &str| seen.iter().filter(|(seen, _)| seen == path).count();
    assert_eq!(asked("/credentials"), 1);
    let path = format!("/model-invocation-job/{}", ARN.replace(':', "%3A").replace('/', "%2F"));
    let (_, headers) = seen.iter().find(|(seen, _)| *seen == path).unwrap();
    let authorization = headers["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIAOFTHECONTAINER/"), "{authorization}");
    assert!(authorization.contains("/us-east-1/bedrock/aws4_request"), "{authorization}");
    assert_eq!(headers["x-amz-security-token"], "token-of-the-container");
    for secret in ["secret-of-the-container", "token-of-the-container"] {
        assert!(!daemon.log().contains(secret));
    }
}

#[test]
fn a_machine_without_credentials_is_told_what_to_set() {
    let world = World::new();
    world.configure("[providers.bedrock]\nregion = \"us-east-1\"\nbase_url = \"http://127.0.0.1:9\"\n");
    let _daemon = daemon(&world, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    let output = world.batchd(&["get", ARN]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no AWS credentials are found: set AWS_ACCESS_KEY_ID"), "{told}");
}

/// ministack, and the Python that has it.
struct Ministack {
    python: String,
    address: String,
    process: Child,
    _state: tempfile::TempDir,
}

impl Ministack {
    /// `None`: there is no Python with it at hand.
    fn start() -> Option<Self> {
        let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = |module: &str| {
            let mut command = Command::new(&python);
            command.args(["-c", &format!("import {module}")]).stdin(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !has("boto3") || !has("ministack") {
            eprintln!(
                "skipped: {python} has no boto3 and ministack; BATCHD_SDK_PYTHON names a Python that has"
            );
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = tempfile::tempdir().unwrap();
        let process = Command::new(&python)
            .args(["-m", "ministack"])
            .current_dir(state.path())
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("TMPDIR", state.path())
            .env("S3_PERSIST", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        until("ministack answers", || std::net::TcpStream::connect(&address).ok());
        Some(Self { python, address: format!("http://{address}"), process, _state: state })
    }

    /// Has AWS's own SDK do something; gives what it prints.
    fn boto(&self, arguments: &[&str]) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/bedrock_jobs.py");
        let output = Command::new(&self.python)
            .arg(script)
            .arg(&self.address)
            .args(arguments)
            .envs(KEYS)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIATEST"),
    ("AWS_SECRET_ACCESS_KEY", "aws-secret-that-nobody-may-see"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
];

#[test]
fn ministack_s_jobs_are_watched_and_stopped() {
    let Some(ministack) = Ministack::start() else { return };
    let made = ministack.boto(&["create", "nightly"]);
    let arn = made.as_str().unwrap();
    let world = World::new();
    world.configure(&format!("[providers.bedrock]\nbase_url = \"{}\"\n", ministack.address));
    let daemon = daemon(&world, &KEYS);

    world.ok(&["providers", "check", "bedrock"]);
    world.ok(&["track", arn]);
    let shown = world.json(&["show", arn, "--json"]);
    assert_eq!(shown["status"], "in_progress", "{shown}");
    assert_eq!(shown["batchd"]["provider"], "bedrock");
    assert_eq!(shown["batchd"]["provider_status"], "InProgress");
    assert_eq!(shown["model"], "anthropic.claude-example-v1:0");
    assert_eq!(shown["input_file_id"], "s3://batches/in/nightly.jsonl");

    world.ok(&["cancel", arn]);
    assert_eq!(ministack.boto(&["status", arn]), "Stopped");
    until("the end is seen", || {
        (world.json(&["show", arn, "--json"])["status"] == "cancelled").then_some(())
    });
    assert!(!daemon.log().contains("aws-secret"), "{}", daemon.log());
}

#[test]
fn ministack_takes_what_is_submitted_and_gives_its_results() {
    let Some(ministack) = Ministack::start() else { return };
    ministack.boto(&["bucket", "batches"]);
    let world = World::new();
    world.configure(&format!(
        "[providers.bedrock]\nbase_url = \"{0}\"\nstorage_url = \"{0}\"\ninput_uri = \"s3://batches/in\"\n\
         output_uri = \"s3://batches/out\"\nrole_arn = \"arn:aws:iam::000000000000:role/batches\"\n",
        ministack.address
    ));
    let daemon = daemon(&world, &KEYS);
    let input = world.directory.path().join("in.jsonl");
    let line = |id: &str| {
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "amazon.nova-example-v1:0", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}})
    };
    std::fs::write(&input, format!("{}\n{}\n", line("a"), line("b"))).unwrap();

    let arn =
        world.ok(&["submit", input.to_str().unwrap(), "--provider", "bedrock", "--name", "nightly run"]);
    let arn = arn.trim();
    assert!(arn.starts_with("arn:aws:bedrock:us-east-1:"), "{arn}");
    let jobs = ministack.boto(&["list"]);
    let job = &jobs.as_array().unwrap()[0];
    assert_eq!(job["jobArn"], arn);
    let name = job["jobName"].as_str().unwrap();
    assert!(name.starts_with("bd-") && name.ends_with("-nightly-run"), "{name}");
    let place = job["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].as_str().unwrap();
    let sent = ministack.boto(&["read", place]);
    let sent: Vec<Value> =
        sent.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let converse = json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 9}});
    assert_eq!(sent[0], json!({"recordId": "a", "modelInput": converse}));
    assert_eq!(sent.len(), 2);

    // ministack works on nothing; what Bedrock would leave in S3 is put there.
    let output = world.directory.path().join("out.jsonl");
    let answer = json!({"output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
        "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}});
    let lines = [
        json!({"recordId": "b", "modelInput": {}, "error": {"errorCode": 400, "errorMessage": "bad request"}}),
        json!({"recordId": "a", "modelInput": {}, "modelOutput": answer}),
    ];
    std::fs::write(&output, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let id = arn.rsplit('/').next().unwrap();
    let file = place.rsplit('/').next().unwrap();
    ministack.boto(&["put", &format!("s3://batches/out/{id}/{file}.out"), output.to_str().unwrap()]);
    world.ok(&["cancel", arn]);
    until("the end is seen", || {
        (world.json(&["show", arn, "--json"])["status"] == "cancelled").then_some(())
    });
    let results = world.ok(&["results", arn]);
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 2, "{results:?}");
    let of = |id: &str| results.iter().find(|line| line["custom_id"] == id).unwrap();
    assert_eq!(of("a")["response"]["body"]["choices"][0]["message"]["content"], "hello");
    assert_eq!(of("b")["error"], json!({"code": "400", "message": "bad request"}));
    assert!(!daemon.log().contains("aws-secret"), "{}", daemon.log());
}

/// OpenAI's own SDK, told where batchd is and nothing of AWS, does the same through `/v1/files` and `/v1/batches`; what
/// failed is submitted again from the input in S3.
#[test]
fn openai_s_sdk_creates_at_ministack_and_reads_the_results() {
    let Some(ministack) = Ministack::start() else { return };
    let imported =
        Command::new(&ministack.python).args(["-c", "import openai"]).stdin(Stdio::null()).output();
    if !imported.is_ok_and(|imported| imported.status.success()) {
        eprintln!("skipped: {} has no openai; BATCHD_SDK_PYTHON names a Python that has", ministack.python);
        return;
    }
    ministack.boto(&["bucket", "batches"]);
    let world = World::new();
    world.configure(&format!(
        "[providers.bedrock]\nbase_url = \"{0}\"\nstorage_url = \"{0}\"\ninput_uri = \"s3://batches/in\"\n\
         output_uri = \"s3://batches/out\"\nrole_arn = \"arn:aws:iam::000000000000:role/batches\"\n",
        ministack.address
    ));
    let daemon = daemon(&world, &KEYS);
    let openai = |arguments: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/openai_at_bedrock.py");
        let output = Command::new(&ministack.python)
            .arg(script)
            .arg(world.socket())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?} {}", daemon.log());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let write = |name: &str, lines: &[Value]| {
        let path = world.directory.path().join(name);
        std::fs::write(&path, lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n")
            .unwrap();
        path.display().to_string()
    };
    let line = |id: &str, more: Value| {
        let mut body = json!({"model": "bedrock/amazon.nova-example-v1:0", "max_tokens": 9,
            "messages": [{"role": "user", "content": id}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
    };
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let told = openai(&["refused", &write("tools.jsonl", &[line("a", json!({})), line("b", tools)])]);
    assert!(told.as_str().unwrap().contains("line 2 cannot be translated: `tools`"), "{told}");
    assert_eq!(ministack.boto(&["list"]), json!([]));

    let file = write("in.jsonl", &["a", "b", "c"].map(|id| line(id, json!({}))));
    let batch = openai(&["create", &file]);
    let arn = batch["id"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:bedrock:us-east-1:"), "{batch}");
    assert_eq!(world.json(&["show", arn, "--json"])["batchd"]["kind"], "bedrock");
    let jobs = ministack.boto(&["list"]);
    let job = &jobs[0];
    assert_eq!((&job["jobArn"], &job["modelId"]), (&json!(arn), &json!("amazon.nova-example-v1:0")));
    let place = job["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].as_str().unwrap();

    // ministack works on nothing; what Bedrock would leave in S3 is put there, the last request never having run.
    let answer = json!({"output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
        "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}});
    let output = write(
        "out.jsonl",
        &[
            json!({"recordId": "b", "modelInput": {"x": 1}, "error": {"errorCode": 400, "errorMessage": "bad request"}}),
            json!({"recordId": "a", "modelInput": {"x": 1}, "modelOutput": answer}),
        ],
    );
    let (id, name) = (arn.rsplit('/').next().unwrap(), place.rsplit('/').next().unwrap());
    ministack.boto(&["put", &format!("s3://batches/out/{id}/{name}.out"), &output]);
    let stopped = openai(&["cancel", arn]);
    assert!(["cancelling", "cancelled"].contains(&stopped["status"].as_str().unwrap()), "{stopped}");
    until("the end is seen", || {
        (world.json(&["show", arn, "--json"])["status"] == "cancelled").then_some(())
    });
    let lines = openai(&["read", arn]);
    let of = |id: &str| lines.as_array().unwrap().iter().find(|line| line["custom_id"] == id).unwrap();
    assert_eq!(of("a")["response"]["body"]["choices"][0]["message"]["content"], "hello");
    assert_eq!(of("b")["error"], json!({"code": "400", "message": "bad request"}));

    // Once the file is gone here, what is submitted again is read from S3: what ran and failed, and what never ran.
    let files = crate::creating::ask(&world, "GET", "/v1/files", &[], &Value::Null).json();
    for file in files["data"].as_array().unwrap() {
        let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
        assert_eq!(crate::creating::ask(&world, "DELETE", &path, &[], &Value::Null).status, 200);
    }
    let again = world.ok(&["resubmit", arn]);
    let again = again.trim();
    let jobs = ministack.boto(&["list"]);
    let job = jobs.as_array().unwrap().iter().find(|job| job["jobArn"] == again).unwrap();
    let sent =
        ministack.boto(&["read", job["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].as_str().unwrap()]);
    let sent: Vec<Value> =
        sent.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let converse = |text: &str| json!({"messages": [{"role": "user", "content": [{"text": text}]}], "inferenceConfig": {"maxTokens": 9}});
    assert_eq!(
        sent,
        ["b", "c"].map(|id| json!({"recordId": id, "modelInput": converse(id)})),
        "in the order of the input, without anything of the results"
    );
    assert!(!daemon.log().contains("aws-secret"), "{}", daemon.log());
}

/// A request: method, path, query in order of its names, body.
type Asked = (String, String, Vec<(String, String)>, Value);

fn asked(method: &str, uri: &Uri, body: &[u8]) -> Asked {
    let mut query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    query.sort();
    (method.to_owned(), uri.path().to_owned(), query, serde_json::from_slice(body).unwrap_or_default())
}

fn asked_by(call: &Call) -> Asked {
    asked(call.request.method().as_str(), call.request.uri(), call.request.body())
}

/// What the official SDK of `kind` asks for, in the order of the script; `None`: there is no Python with it at hand.
fn sdk_asks(module: &str, kind: &str) -> Option<Vec<Asked>> {
    async fn listen(
        State(seen): State<Arc<Mutex<Vec<Asked>>>>,
        method: axum::http::Method,
        uri: Uri,
        body: axum::body::Bytes,
    ) -> axum::response::Response {
        seen.lock().unwrap().push(asked(method.as_str(), &uri, &body));
        ([("content-type", "application/json")], "{}").into_response()
    }
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imported =
        Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !imported.is_ok_and(|status| status.success()) {
        eprintln!("skipped: {python} has no {module}; BATCHD_SDK_PYTHON names a Python that has");
        return None;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let seen = Arc::<Mutex<Vec<Asked>>>::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(listen).with_state(seen.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/cloud_requests.py");
    let output = Command::new(&python)
        .arg(script)
        .args([&format!("http://{address}"), kind])
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = seen.lock().unwrap().clone();
    Some(seen)
}

fn adapter(name: &str, options: &[(&str, &str)]) -> Box<dyn Provider> {
    let config = ProviderConfig {
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ProviderConfig::bare(name, "http://127.0.0.1:9")
    };
    (kind(name).unwrap().build)(&Account::new(&config, None))
}

#[test]
fn bedrock_is_told_whose_buckets_which_key_and_which_network() {
    let creation = |more: &[(&str, &str)]| {
        let usual = [
            ("region", "eu-central-1"),
            ("role_arn", "arn:aws:iam::111122223333:role/batches"),
            ("input_uri", "s3://bucket/in"),
        ];
        let bedrock = adapter("bedrock", &[&usual[..], more].concat());
        let mut steps = bedrock.submit(&job("m-1"))?;
        steps.next(None)?;
        match steps.next(Some(&crate::provider::answer(200, "")))? {
            SubmitStep::Create(call) => {
                Ok::<Value, Failure>(serde_json::from_slice(call.request.body()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    };
    let plain = creation(&[]).unwrap();
    assert!(plain.get("vpcConfig").is_none());
    assert!(plain["outputDataConfig"]["s3OutputDataConfig"].get("s3BucketOwner").is_none());
    let subnets = ("subnet_ids", "subnet-1, subnet-2");
    let body = creation(&[
        ("bucket_owner", "444455556666"),
        ("kms_key", "arn:aws:kms:eu-central-1:111122223333:key/k"),
        subnets,
        ("security_group_ids", "sg-1"),
    ])
    .unwrap();
    assert_eq!(body["inputDataConfig"]["s3InputDataConfig"]["s3BucketOwner"], "444455556666");
    let output = &body["outputDataConfig"]["s3OutputDataConfig"];
    assert_eq!(output["s3BucketOwner"], "444455556666");
    assert_eq!(output["s3EncryptionKeyId"], "arn:aws:kms:eu-central-1:111122223333:key/k");
    assert_eq!(
        body["vpcConfig"],
        json!({"subnetIds": ["subnet-1", "subnet-2"], "securityGroupIds": ["sg-1"]})
    );
    let refused = creation(&[subnets]).unwrap_err().to_string();
    assert!(refused.contains("`security_group_ids`"), "{refused}");
}

#[test]
fn vertex_is_asked_as_google_s_sdk_asks() {
    let Some(asks) = sdk_asks("google.genai", "vertex") else { return };
    let vertex = adapter("vertex", &[("project", "of-ours"), ("location", "of-ours")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [vertex.retrieve("4002"), vertex.list(&page), vertex.cancel("4002")];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..3]);
}

#[test]
fn fireworks_is_asked_as_its_sdk_asks() {
    let Some(asks) = sdk_asks("fireworks", "fireworks") else { return };
    let fireworks = adapter("fireworks", &[("account", "of-ours")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [fireworks.retrieve("job-1"), fireworks.list(&page)];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..2]);
}

#[test]
fn bedrock_is_asked_as_aws_s_sdk_asks() {
    let Some(asks) = sdk_asks("boto3", "bedrock") else { return };
    let bedrock = adapter("bedrock", &[("region", "us-east-1")]);
    let page = PageRequest { limit: 20, ..PageRequest::default() };
    let ours = [bedrock.retrieve(ARN), bedrock.list(&page), bedrock.cancel(ARN)];
    assert_eq!(ours.map(|call| asked_by(&call.unwrap())), asks[..3]);
}

/// What is submitted: two requests for one model.
fn job(model: &str) -> Job {
    Job {
        marker: "bd-1".to_owned(),
        name: Some("nightly".to_owned()),
        endpoint: "/v1/chat/completions".to_owned(),
        model: Some(model.to_owned()),
        completion_window: "24h".to_owned(),
        output_expires_after: None,
        metadata: BTreeMap::new(),
        file_name: "in.jsonl".to_owned(),
        bytes: 3,
        requests: 2,
    }
}

/// Every request on the way to a batch, each answered with the next of `answers`, and the batch that came of it.
fn submitted(provider: &dyn Provider, job: &Job, answers: &[Value]) -> (Vec<Asked>, Created) {
    let mut submission = provider.submit(job).unwrap();
    let mut answers = answers.iter();
    let mut answer: Option<Answer> = None;
    let mut asked = Vec::new();
    loop {
        let call = match submission.next(answer.as_ref()).unwrap() {
            SubmitStep::Send(call) | SubmitStep::Create(call) => call,
            SubmitStep::Upload(upload) | SubmitStep::CreateWith(upload) => upload.call,
            SubmitStep::Wait(_) => {
                answer = None;
                continue;
            }
            SubmitStep::Done(created) => {
                assert_eq!(answers.next(), None);
                return (asked, created);
            }
        };
        asked.push(asked_by(&call));
        answer = Some(Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: answers.next().unwrap().to_string().into(),
            cut: false,
        });
    }
}

const PLACES: [(&str, &str); 2] = [("input_uri", "gs://bucket/in"), ("output_uri", "gs://bucket/out")];

#[test]
fn vertex_is_given_its_input_in_cloud_storage() {
    let options = [&[("project", "of-ours"), ("location", "of-ours")], PLACES.as_slice()].concat();
    let vertex = adapter("vertex", &options);
    let name = "projects/123/locations/of-ours/batchPredictionJobs/4002";
    let told = json!({"name": name, "displayName": "nightly [bd-1]", "state": "JOB_STATE_PENDING"});
    let (asked, created) = submitted(vertex.as_ref(), &job("gemini-example-flash"), &[json!({}), told]);
    assert_eq!(created.id, "projects/of-ours/locations/of-ours/batchPredictionJobs/4002");
    let sighting = created.sighting.unwrap();
    assert_eq!(
        (sighting.display_name.as_deref(), sighting.marker.as_deref()),
        (Some("nightly"), Some("bd-1"))
    );
    let (method, path, query, _) = &asked[0];
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/upload/storage/v1/b/bucket/o"));
    assert_eq!(query, &pairs(&[("name", "in/bd-1.jsonl"), ("uploadType", "media")]));
    for (model, resource) in [
        ("claude-haiku-4-5@20251001", "publishers/anthropic/models/claude-haiku-4-5@20251001"),
        ("anthropic/claude-opus-5-5", "publishers/anthropic/models/claude-opus-5-5"),
        ("publishers/anthropic/models/claude-opus-5-5", "publishers/anthropic/models/claude-opus-5-5"),
        ("gemini-example-flash", "publishers/google/models/gemini-example-flash"),
        ("projects/p/locations/l/models/7", "projects/p/locations/l/models/7"),
    ] {
        let told = json!({"name": name, "state": "JOB_STATE_PENDING"});
        let (asked, _) = submitted(vertex.as_ref(), &job(model), &[json!({}), told]);
        assert_eq!(asked[1].3["model"], resource, "{model}");
    }
    let Some(asks) = sdk_asks("google.genai", "vertex") else { return };
    assert_eq!(asked[1], asks[3]);
}

#[test]
fn bedrock_is_given_its_input_in_s3() {
    let options = [
        ("region", "us-east-1"),
        ("input_uri", "s3://bucket/in/"),
        ("output_uri", "s3://bucket/out"),
        ("role_arn", "arn:aws:iam::111122223333:role/batches"),
    ];
    let bedrock = adapter("bedrock", &options);
    let (asked, created) = submitted(bedrock.as_ref(), &job("m"), &[json!({}), json!({"jobArn": ARN})]);
    assert_eq!(created.id, ARN);
    assert_eq!((asked[0].0.as_str(), asked[0].1.as_str()), ("PUT", "/in/bd-1.jsonl"));
    let Some(asks) = sdk_asks("boto3", "bedrock") else { return };
    assert_eq!(asked[1], asks[3]);
}

#[test]
fn what_a_submission_needs_is_named() {
    let refused = |name: &str, options: &[(&str, &str)], job: &Job| {
        adapter(name, options).submit(job).unwrap_err().to_string()
    };
    let region = ("region", "us-east-1");
    let place = ("input_uri", "s3://bucket/in");
    assert!(refused("bedrock", &[region], &job("m")).contains("needs `input_uri`"));
    assert!(refused("bedrock", &[region, place], &job("m")).contains("needs `role_arn`"));
    assert!(refused("bedrock", &[region, ("input_uri", "/tmp")], &job("m")).contains("s3://BUCKET/FOLDER"));
    let hasty = Job { completion_window: "12h".to_owned(), ..job("m") };
    let role = ("role_arn", "arn:aws:iam::111122223333:role/batches");
    assert!(refused("bedrock", &[region, place, role], &hasty).contains("24h to 168h, not 12h"));
    let labelled = Job { metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]), ..job("m") };
    assert!(refused("xai", &[], &labelled).contains("keeps no metadata"));
    let vertex = [("project", "p"), ("location", "l"), PLACES[0]];
    let shouted = Job { metadata: BTreeMap::from([("KEY".to_owned(), "v".to_owned())]), ..job("m") };
    assert!(refused("vertex", &vertex, &shouted).contains("labels at Vertex"));
}

#[test]
fn fireworks_is_given_a_dataset() {
    let fireworks = adapter("fireworks", &[("account", "of-ours")]);
    let told = json!({"name": "accounts/of-ours/batchInferenceJobs/job-1", "state": "JOB_STATE_CREATING"});
    let answers = [json!({}), json!({}), json!({"state": "UPLOADING"}), json!({"state": "READY"}), told];
    let (asked, created) = submitted(fireworks.as_ref(), &job("m"), &answers);
    assert_eq!(created.id, "accounts/of-ours/batchInferenceJobs/job-1");
    let Some(asks) = sdk_asks("fireworks", "fireworks") else { return };
    // The SDK does not look whether the dataset is ready, and the script looks once.
    assert_eq!(asked[3], asked[2]);
    for (ours, theirs) in [(0, 2), (1, 3), (2, 4), (4, 5)] {
        assert_eq!(asked[ours], asks[theirs]);
    }
}

#[test]
fn cohere_is_given_a_dataset_that_is_valid() {
    let cohere = adapter("cohere", &[]);
    let dataset =
        |status: &str| json!({"dataset": {"id": "bd-1-x7", "name": "bd-1", "validation_status": status}});
    let told = json!({"batch": {"id": "b-1", "name": "nightly [bd-1]", "status": "BATCH_STATUS_QUEUED", "model": "m"}});
    for (endpoint, kind) in [
        ("/v1/chat/completions", "batch-chat-v2-input"),
        ("/v2/chat", "batch-chat-v2-input"),
        ("/v1/embeddings", "batch-embed-v2-input"),
        ("/v2/embed", "batch-embed-v2-input"),
    ] {
        let job = Job { endpoint: endpoint.to_owned(), ..job("m") };
        let answers = [json!({"id": "bd-1-x7"}), dataset("queued"), dataset("validated"), told.clone()];
        let (asked, created) = submitted(cohere.as_ref(), &job, &answers);
        assert_eq!(created.id, "b-1");
        let sighting = created.sighting.unwrap();
        assert_eq!(
            (sighting.display_name.as_deref(), sighting.marker.as_deref()),
            (Some("nightly"), Some("bd-1"))
        );
        let query = pairs(&[("keep_original_file", "true"), ("name", "bd-1"), ("type", kind)]);
        assert_eq!(asked[0], ("POST".to_owned(), "/v1/datasets".to_owned(), query, Value::Null));
        let check = ("GET".to_owned(), "/v1/datasets/bd-1-x7".to_owned(), Vec::new(), Value::Null);
        assert_eq!((&asked[1], &asked[2]), (&check, &check));
        let body = json!({"name": "nightly [bd-1]", "input_dataset_id": "bd-1-x7", "model": "m"});
        assert_eq!(asked[3], ("POST".to_owned(), "/v2/batches".to_owned(), Vec::new(), body));
        let Some(asks) = sdk_asks("cohere", "cohere") else { continue };
        if kind == "batch-chat-v2-input" {
            assert_eq!(asked[0], asks[0]);
        }
        assert_eq!((&asked[1], &asked[3]), (&asks[1], &asks[2]));
        assert_eq!(asked_by(&cohere.retrieve("b-1").unwrap()), asks[3]);
        let (method, path, query, _) = asked_by(&cohere.cancel("b-1").unwrap());
        assert_eq!((&method, &path, &query), (&asks[4].0, &asks[4].1, &asks[4].2));
    }
}

#[test]
fn a_dataset_that_cohere_does_not_take_is_no_batch() {
    let cohere = adapter("cohere", &[]);
    let refused = |answers: &[Value]| {
        let mut steps = cohere.submit(&job("m")).unwrap();
        let mut next = steps.next(None);
        let mut waited = 0;
        for answer in answers.iter().cycle() {
            let answer = match next {
                Ok(SubmitStep::Wait(time)) => {
                    waited += time.as_secs();
                    None
                }
                Ok(SubmitStep::Create(call)) => panic!("{call:?}"),
                Ok(_) => Some(crate::provider::answer(200, answer.to_string())),
                Err(failure) => return (failure.to_string(), waited),
            };
            next = steps.next(answer.as_ref());
        }
        unreachable!()
    };
    let created = json!({"id": "d"});
    let failed = json!({"id": "d", "dataset": {"validation_status": "failed", "validation_error": "line 2: no messages"}});
    let (told, _) = refused(&[created, failed]);
    assert!(told.contains("does not take the requests as a dataset: line 2: no messages"), "{told}");
    let (told, waited) = refused(&[json!({"id": "d", "dataset": {"validation_status": "processing"}})]);
    assert!(told.contains("`d` is not validated within half an hour"), "{told}");
    assert!((1700..=1900).contains(&waited), "{waited}");
}

#[test]
fn xai_is_given_a_file() {
    let xai = adapter("xai", &[]);
    let id = "batch_2c3d4e5f-1111-4222-8333-444455556666";
    let told = json!({"batch_id": id, "name": "nightly [bd-1]", "state": {"num_requests": 0}});
    let (asked, created) = submitted(xai.as_ref(), &job("m"), &[json!({"id": "file_1"}), told]);
    assert_eq!(created.id, id);
    assert_eq!(created.sighting.unwrap().marker.as_deref(), Some("bd-1"));
    let post = |path: &str, body: Value| ("POST".to_owned(), path.to_owned(), Vec::new(), body);
    assert_eq!(asked[0], post("/v1/files", Value::Null));
    assert_eq!(asked[1], post("/v1/batches", json!({"name": "nightly [bd-1]", "input_file_id": "file_1"})));
}

/// Every step to the results, in words.
fn fetched(provider: &dyn Provider, id: &str, part: Part, answers: &[&str]) -> Vec<String> {
    let mut batch = Batch::unseen(id, "/v1/chat/completions", 1_795_000_000);
    batch.output_file_id = Some(format!("results:of-ours:{id}"));
    followed(provider.results(&batch, part).unwrap().unwrap(), answers)
}

/// Every step to the input, in words.
fn input_of(provider: &dyn Provider, input: &str, answers: &[&str]) -> Vec<String> {
    let mut batch = Batch::unseen("b", "/v1/chat/completions", 1_795_000_000);
    batch.output_file_id = Some("results:of-ours:b".to_owned());
    input.clone_into(&mut batch.input_file_id);
    match provider.input(&batch) {
        Ok(fetch) => followed(fetch, answers),
        Err(failure) => vec![failure.to_string()],
    }
}

fn followed(mut fetch: Box<dyn Fetch>, answers: &[&str]) -> Vec<String> {
    let mut answers = answers.iter();
    let mut answer: Option<Answer> = None;
    let mut steps = Vec::new();
    loop {
        let step = fetch.next(answer.take().as_ref()).unwrap();
        match step {
            FetchStep::Send(call) => {
                steps.push(format!("ask {}", call.request.uri()));
                let body = (*answers.next().unwrap()).to_owned().into();
                answer = Some(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body, cut: false });
            }
            FetchStep::Stream(call, _) => {
                let bears = call.request.headers().contains_key("authorization") || call.grant().is_some();
                steps.push(format!(
                    "stream {} {}",
                    call.request.uri(),
                    if bears { "with credentials" } else { "bare" }
                ));
            }
            FetchStep::Records(records) => steps.push(format!("{} records", records.len())),
            FetchStep::Done => return steps,
        }
    }
}

#[test]
fn results_are_followed_to_where_they_are() {
    let bedrock = adapter("bedrock", &[("region", "us-east-1"), ("storage_url", "http://127.0.0.1:4566")]);
    let job = |input: &str| {
        json!({"jobArn": ARN, "status": "Completed",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": input}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://b/out/"}}})
        .to_string()
    };
    let ask = format!(
        "ask http://127.0.0.1:9/model-invocation-job/{}",
        ARN.replace(':', "%3A").replace('/', "%2F")
    );
    assert_eq!(
        fetched(bedrock.as_ref(), ARN, Part::Output, &[&job("s3://b/in/r.jsonl")]),
        [ask.as_str(), "stream http://127.0.0.1:4566/b/out/ab12cd34ef56/r.jsonl.out with credentials"]
    );
    let listed = "<R><Contents><Key>out/ab12cd34ef56/manifest.json.out</Key></Contents><Contents><Key>out/ab12cd34ef56/1.jsonl.out</Key></Contents><Contents><Key>out/ab12cd34ef56/2.jsonl.out</Key></Contents></R>";
    assert_eq!(
        fetched(bedrock.as_ref(), ARN, Part::Output, &[&job("s3://b/in/"), listed]),
        [
            ask.as_str(),
            "ask http://127.0.0.1:4566/b/?encoding-type=url&list-type=2&prefix=out%2Fab12cd34ef56%2F",
            "stream http://127.0.0.1:4566/b/out/ab12cd34ef56/1.jsonl.out with credentials",
            "stream http://127.0.0.1:4566/b/out/ab12cd34ef56/2.jsonl.out with credentials",
        ]
    );

    let vertex =
        adapter("vertex", &[("project", "p"), ("location", "l"), ("storage_url", "http://127.0.0.1:4443")]);
    let job = json!({"name": "projects/1/locations/l/batchPredictionJobs/7", "state": "JOB_STATE_SUCCEEDED",
        "outputInfo": {"gcsOutputDirectory": "gs://b/out/prediction-m"}})
    .to_string();
    let listed =
        json!({"items": [{"name": "out/prediction-m/predictions.jsonl"}, {"name": "out/prediction-m/x"}]});
    assert_eq!(
        fetched(vertex.as_ref(), "7", Part::Output, &[&job, &listed.to_string()]),
        [
            "ask http://127.0.0.1:9/v1/projects/p/locations/l/batchPredictionJobs/7",
            "ask http://127.0.0.1:4443/storage/v1/b/b/o?prefix=out/prediction-m/&fields=items/name,nextPageToken",
            "stream http://127.0.0.1:4443/storage/v1/b/b/o/out%2Fprediction-m%2Fpredictions.jsonl?alt=media with credentials",
        ]
    );

    let fireworks = adapter("fireworks", &[("account", "a")]);
    let job =
        json!({"name": "accounts/a/batchInferenceJobs/j", "outputDatasetId": "accounts/a/datasets/out-1"})
            .to_string();
    let urls = json!({"filenameToSignedUrls": {
        "datasets/out-1/BIJOutputSet.jsonl": "https://storage.example.com/1?sig=s",
        "datasets/out-1/error-data.jsonl": "https://storage.example.com/2?sig=s",
    }})
    .to_string();
    for (part, url) in [
        (Part::Output, "https://storage.example.com/1?sig=s"),
        (Part::Errors, "https://storage.example.com/2?sig=s"),
    ] {
        assert_eq!(
            fetched(fireworks.as_ref(), "j", part, &[&job, &urls]),
            [
                "ask http://127.0.0.1:9/v1/accounts/a/batchInferenceJobs/j",
                "ask http://127.0.0.1:9/v1/accounts/a/datasets/out-1:getDownloadEndpoint",
                format!("stream {url} bare").as_str(),
            ]
        );
    }

    let cohere = adapter("cohere", &[]);
    let batch = json!({"batch": {"id": "b", "output_dataset_id": "out-x"}}).to_string();
    let part = |index: u64| json!({"id": "p", "index": index, "url": format!("https://storage.example.com/{index}?sig=s")});
    let dataset = json!({"dataset": {"id": "out-x", "validation_status": "validated", "dataset_parts": [part(1), part(0)]}});
    assert_eq!(
        fetched(cohere.as_ref(), "b", Part::Output, &[&batch, &dataset.to_string()]),
        [
            "ask http://127.0.0.1:9/v2/batches/b",
            "ask http://127.0.0.1:9/v1/datasets/out-x",
            "stream https://storage.example.com/0?sig=s bare",
            "stream https://storage.example.com/1?sig=s bare",
        ]
    );

    let xai = adapter("xai", &[]);
    let page = |token: Value| {
        json!({"results": [{"batch_request_id": "a"}, {}], "pagination_token": token}).to_string()
    };
    assert_eq!(
        fetched(xai.as_ref(), "batch_1", Part::Output, &[&page(json!("t 2")), &page(Value::Null)]),
        [
            "ask http://127.0.0.1:9/v1/batches/batch_1/results?limit=100",
            "2 records",
            "ask http://127.0.0.1:9/v1/batches/batch_1/results?limit=100&pagination_token=t%202",
            "2 records",
        ]
    );
}

/// What is submitted again is what was submitted, and never the results, which look much like it.
#[test]
fn inputs_are_followed_to_where_they_are() {
    let bedrock = adapter("bedrock", &[("region", "us-east-1"), ("storage_url", "http://127.0.0.1:4566")]);
    let got = input_of(bedrock.as_ref(), "s3://b/in/r.jsonl", &[]);
    assert_eq!(got, ["stream http://127.0.0.1:4566/b/in/r.jsonl with credentials"]);
    assert!(input_of(bedrock.as_ref(), "s3://b/in/", &[])[0].contains("one `.jsonl` file"));

    let vertex =
        adapter("vertex", &[("project", "p"), ("location", "l"), ("storage_url", "http://127.0.0.1:4443")]);
    let got = input_of(vertex.as_ref(), "gs://b/in/r.jsonl", &[]);
    assert_eq!(
        got,
        ["stream http://127.0.0.1:4443/storage/v1/b/b/o/in%2Fr.jsonl?alt=media with credentials"]
    );
    assert!(input_of(vertex.as_ref(), "bq://p.d.t", &[])[0].contains("no input of this batch"));

    let fireworks = adapter("fireworks", &[("account", "a")]);
    let urls =
        json!({"filenameToSignedUrls": {"datasets/in-1/r.jsonl": "https://storage.example.com/1?sig=s"}})
            .to_string();
    assert_eq!(
        input_of(fireworks.as_ref(), "accounts/a/datasets/in-1", &[&urls]),
        [
            "ask http://127.0.0.1:9/v1/accounts/a/datasets/in-1:getDownloadEndpoint",
            "stream https://storage.example.com/1?sig=s bare",
        ]
    );

    let cohere = adapter("cohere", &[]);
    let part = |index: u64, original: Value| json!({"index": index, "url": "https://storage.example.com/avro", "original_url": original});
    let original = json!("https://storage.example.com/r.jsonl?sig=s");
    let dataset = |parts: [Value; 2]| json!({"dataset": {"id": "in-x", "dataset_parts": parts}}).to_string();
    let kept = dataset([part(0, original.clone()), part(1, original)]);
    assert_eq!(
        input_of(cohere.as_ref(), "in-x", &[&kept]),
        ["ask http://127.0.0.1:9/v1/datasets/in-x", "stream https://storage.example.com/r.jsonl?sig=s bare"]
    );

    for name in ["xai", "anthropic"] {
        assert!(input_of(adapter(name, &[]).as_ref(), "file_1", &[])[0].contains("keeps no files"), "{name}");
    }
    let mistral = input_of(adapter("mistral", &[]).as_ref(), "f", &[]);
    assert_eq!(mistral, ["stream http://127.0.0.1:9/v1/files/f/content bare"]);
}

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
