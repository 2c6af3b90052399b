//! The recipes of `docs/recipes`, each run as it stands on its page, with the real programs where they are installed.
//!
//! `BATCHD_SDK_PYTHON`, `BATCHD_SDK_NODE_MODULES`, `BATCHD_AIRFLOW_PYTHON` and `BATCHD_LITELLM_PYTHON` name where
//! OpenAI's SDKs and any-llm, Airflow and LiteLLM's proxy are (`.ci/run` installs them); without one its test says that it
//! was skipped.

use crate::field::{configuration, free_address, node, python};
use crate::world::{Daemon, TOKEN, World, until, until_within};
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The blocks of a page in one language, in their order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("docs/recipes/{page}.md")).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn block(page: &str, language: &str, number: usize) -> String {
    blocks(page, language).get(number).unwrap_or_else(|| panic!("{page} has no such {language}")).clone()
}

/// A daemon with four simulated providers and its API on TCP, in place of the pages' 127.0.0.1:8765.
struct Stage {
    world: World,
    api: SocketAddr,
    daemon: Option<Daemon>,
    stopping: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let sandbox = format!("http://{}", listener.local_addr().unwrap());
        let options = SandboxOptions { speed: Speed::new(500.0).unwrap(), ..SandboxOptions::default() };
        let stopping = CancellationToken::new();
        let token = stopping.clone();
        runtime.spawn(async move { Sandbox::new(&options).serve(listener, token).await });
        let world = World::new();
        let api = free_address();
        std::fs::write(world.config(), configuration(&world, &sandbox, api)).unwrap();
        let daemon = Some(world.daemon());
        until("TCP answers", || TcpStream::connect(api).ok());
        Self { world, api, daemon, stopping, runtime }
    }

    /// A file of the recipe, with this stage's address.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.world.directory.path().join(name);
        std::fs::write(&path, text.replace("127.0.0.1:8765", &self.api.to_string())).unwrap();
        path
    }

    /// Requests whose models say which provider is meant, or do not.
    fn requests(&self, model: &str) {
        self.file("requests.jsonl", &crate::submit::requests(7).replace("\"m-1\"", &format!("\"{model}\"")));
    }

    /// A program in the recipe's directory, with what the pages have in the environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.world.directory.path())
            .env("PATH", path_with_batchd(&self.world))
            .env("NO_PROXY", "127.0.0.1")
            .env("BATCHD_API_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    /// The results that a recipe has written, by `custom_id`.
    fn results(&self) -> usize {
        let text = std::fs::read_to_string(self.world.directory.path().join("results.jsonl")).unwrap();
        let ids: std::collections::BTreeSet<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["custom_id"].as_str().unwrap().to_owned()
            })
            .collect();
        ids.len()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.daemon.take();
        self.stopping.cancel();
        // Whatever of it still runs is of no interest.
        let _ = self.runtime.handle();
    }
}

/// `PATH` with this build's `batchd` in front.
fn path_with_batchd(world: &World) -> String {
    let bin = world.directory.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_batchd"), bin.join("batchd")).unwrap();
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

#[track_caller]
fn ok(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A Python that is named by a variable, if it has a module; said aloud if not.
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn named_python(variable: &str, module: &str) -> Option<String> {
    let python = std::env::var(variable).ok().filter(|python| {
        let imported = Command::new(python).args(["-c", &format!("import {module}")]).output();
        imported.is_ok_and(|imported| imported.status.success())
    });
    if python.is_none() {
        println!("skipped: {variable} names no Python that has {module}");
    }
    python
}

/// Every recipe is tried here, and the index names it.
#[test]
fn every_recipe_is_tried_and_named() {
    let index = std::fs::read_to_string("docs/README.md").unwrap();
    let tried = std::fs::read_to_string("tests/it/recipes.rs").unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir("docs/recipes").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let page = name.strip_suffix(".md").unwrap();
        assert!(index.contains(&format!("(recipes/{name})")), "docs/README.md does not name {name}");
        assert!(tried.contains(&format!("(\"{page}\", ")), "no test runs {name}");
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn openai_for_python() {
    let Some(python) = python("openai") else { return };
    let stage = Stage::new();
    stage.requests("m-1");
    stage.file("nightly.py", &block("openai-python", "python", 0));
    assert!(block("openai-python", "sh", 0).contains("python nightly.py anthropic"));
    for provider in ["anthropic", "openai"] {
        ok(&stage.command(&python).args(["nightly.py", provider]).output().unwrap());
        assert_eq!(stage.results(), 7);
    }
    // The key makes it one batch, however often the script is run in a day: with another upload it is another request.
    let again = stage.command(&python).args(["nightly.py", "anthropic"]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("409"), "{again:?}");
    let found = stage.world.json(&["list", "--all", "--label", "team=evals", "--json"]);
    assert_eq!(found["data"].as_array().unwrap().len(), 2, "{found}");
}

#[test]
fn openai_for_node() {
    let Some(node) = node() else { return };
    let stage = Stage::new();
    stage.requests("m-1");
    stage.file("nightly.mjs", &block("openai-node", "js", 0));
    assert!(block("openai-node", "sh", 0).contains("node nightly.mjs anthropic"));
    let modules = std::env::var("BATCHD_SDK_NODE_MODULES").unwrap();
    std::os::unix::fs::symlink(modules, stage.world.directory.path().join("node_modules")).unwrap();
    ok(&stage.command(&node).args(["nightly.mjs", "anthropic"]).output().unwrap());
    assert_eq!(stage.results(), 7);
}

#[test]
fn any_llm() {
    let Some(python) = python("any_llm, openai") else { return };
    let stage = Stage::new();
    stage.requests("anthropic/claude-haiku-4-5");
    stage.file("nightly.py", &block("any-llm", "python", 0));
    let exports = block("any-llm", "sh", 0).replace("127.0.0.1:8765", &stage.api.to_string());
    let script = format!("{exports}\nexec {python} nightly.py");
    let out = ok(&stage.command("bash").args(["-euc", &script]).output().unwrap());
    assert_eq!(out.lines().filter(|line| line.starts_with('r')).count(), 7, "{out}");
    let found = stage.world.json(&["list", "--all", "--json"]);
    assert_eq!(found["data"][0]["batchd"]["provider"], "anthropic");
}

/// A group of processes that ends with the test.
struct Group(std::process::Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn litellm_s_proxy() {
    let Some(python) = named_python("BATCHD_LITELLM_PYTHON", "litellm.proxy") else { return };
    let Some(client) = self::python("openai") else { return };
    let stage = Stage::new();
    stage.requests("anthropic/claude-haiku-4-5");
    stage.file("config.yaml", &block("litellm-proxy", "yaml", 0));
    let proxy = free_address();
    let here = |text: String| {
        text.replace("127.0.0.1:8765", &stage.api.to_string())
            .replace("--port 4000", &format!("--port {}", proxy.port()))
            .replace("127.0.0.1:4000", &proxy.to_string())
    };
    let bin = Path::new(&python).parent().unwrap().display().to_string();
    let mut start = stage.command("bash");
    start
        .args(["-euc", &here(block("litellm-proxy", "sh", 0))])
        .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap_or_default()))
        // It fetches nothing from elsewhere.
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let _group = Group(start.spawn().unwrap());
    until_within(Duration::from_mins(3), "the proxy answers", || TcpStream::connect(proxy).ok());
    stage.file("client.py", &here(block("litellm-proxy", "python", 0)));
    let mut command = stage.command(&client);
    let out = ok(&command.arg("client.py").env("LITELLM_MASTER_KEY", "sk-proxy").output().unwrap());
    assert_eq!(out.lines().filter(|line| line.contains("custom_id")).count(), 7, "{out}");
    let found = stage.world.json(&["list", "--all", "--json"]);
    assert_eq!(found["data"][0]["batchd"]["provider"], "anthropic");
    assert_eq!(found["data"][0]["metadata"]["job"], "nightly");
}

#[test]
fn airflow() {
    let Some(python) = named_python("BATCHD_AIRFLOW_PYTHON", "airflow.sdk") else { return };
    let stage = Stage::new();
    let file = stage.file("nightly_evals.py", &block("airflow", "python", 0));
    stage.requests("m-1");
    let submit = |outcome: &str| {
        let metadata = format!("sandbox_outcome={outcome}");
        let input = stage.world.directory.path().join("requests.jsonl");
        let input = input.to_str().unwrap();
        let id = stage.world.ok(&["submit", input, "--provider", "openai", "--metadata", &metadata]);
        format!("openai:{}", id.trim())
    };
    let (good, bad) = (submit("completed"), submit("failed"));
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/run_sensor.py");
    let mut command = stage.command(&python);
    command.arg(driver).arg(file).args([&good, &bad]);
    command.env("BATCHD_API", format!("http://{}", stage.api));
    command.env("AIRFLOW_HOME", stage.world.directory.path().join("airflow"));
    assert!(ok(&command.output().unwrap()).contains("airflow: ok"));
}

/// The scripts of a workflow's steps, as the runner takes them out of it.
fn steps(workflow: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut lines = workflow.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start() != "run: |" {
            continue;
        }
        let mut script = String::new();
        let indent = |line: &str| line.len() - line.trim_start().len();
        let depth = indent(line);
        while let Some(next) = lines.next_if(|next| indent(next) > depth) {
            script.push_str(next.trim_start());
            script.push('\n');
        }
        steps.push(script);
    }
    steps
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn github_actions() {
    if Command::new("jq").arg("--version").output().is_err() {
        println!("skipped: there is no jq");
        return;
    }
    let stage = Stage::new();
    stage.requests("m-1");
    let directory = stage.world.directory.path();
    let (given, summary) = (directory.join("output"), directory.join("summary"));
    let [submit, wait, results] = steps(&block("github-actions", "yaml", 0)).try_into().unwrap();
    let run = |script: &str, batch: &str| {
        let mut command = stage.command("bash");
        command
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script])
            .env("BATCHD_HOST", format!("http://{}", stage.api))
            .env("BATCHD_TOKEN", TOKEN)
            .env("GITHUB_RUN_ID", "4711")
            .env("GITHUB_OUTPUT", &given)
            .env("GITHUB_STEP_SUMMARY", &summary)
            .env("BATCH", batch);
        ok(&command.output().unwrap())
    };
    run(&submit, "");
    let output = std::fs::read_to_string(&given).unwrap();
    let batch = output.trim().strip_prefix("id=").unwrap();
    run(&wait, batch);
    run(&results, batch);
    assert_eq!(stage.results(), 7);
    assert_eq!(std::fs::read_to_string(&summary).unwrap(), "succeeded: 7 of 7\n");
    assert_eq!(stage.world.json(&["show", "evals 4711", "--json"])["batchd"]["labels"]["run"], "4711");
}

/// Makes the webhooks of the page this world's only ones, and does what the page does.
fn follow(world: &World, page: &str, toml: &str, secrets: &[(&str, String)]) -> Daemon {
    let text = std::fs::read_to_string(world.config()).unwrap();
    let own = text.split("[webhooks.pipeline]").next().unwrap();
    std::fs::write(world.config(), format!("{own}{toml}")).unwrap();
    let mut command = world.command();
    command.args(["-vv", "run"]).envs(secrets.iter().map(|(name, value)| (name, value.as_str())));
    let daemon = Daemon::start(&mut command);
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());
    for script in blocks(page, "sh") {
        let mut bash = Command::new("bash");
        bash.args(["-euc", &script]).env("PATH", path_with_batchd(world));
        bash.env("BATCHD_CONFIG", world.config()).stdin(Stdio::null());
        bash.envs(secrets.iter().map(|(name, value)| (name, value.as_str())));
        // What the page tracks is there.
        world.provider.put("batch_68fd8e2f1c0c8190", "in_progress", &json!({}));
        ok(&bash.output().unwrap());
    }
    daemon
}

fn bodies(world: &World, path: &str) -> Vec<Value> {
    let received = world.receiver.received(path);
    received.iter().map(|each| serde_json::from_slice(&each.body).unwrap()).collect()
}

#[test]
fn slack() {
    let world = World::new();
    let address = |name: &str| format!("http://{}/{name}", world.receiver_address);
    let secrets = [("SLACK_WEBHOOK_URL", address("batches")), ("SLACK_ALERTS_URL", address("alerts"))];
    let daemon = follow(&world, "slack", &block("slack", "toml", 0), &secrets);
    let texts = |path: &str| bodies(&world, path).iter().map(Value::to_string).collect::<Vec<_>>();
    until("both tests", || (texts("/batches").len() == 1 && texts("/alerts").len() == 1).then_some(()));
    let more = json!({"request_counts": {"total": 4, "completed": 3, "failed": 1}, "output_file_id": "f",
        "completed_at": 1_795_000_100});
    world.provider.put("batch_68fd8e2f1c0c8190", "completed", &more);
    for path in ["/batches", "/alerts"] {
        let told = until("the end", || texts(path).into_iter().find(|text| text.contains("nightly-evals")));
        assert!(told.contains("blocks") && told.contains('3') && told.contains("failed"), "{path}: {told}");
    }
    // One that went well is told to the first channel alone.
    world.provider.complete("batch_good");
    world.ok(&["track", "batch_good", "--name", "went-well"]);
    until("the good end", || texts("/batches").iter().any(|text| text.contains("went-well")).then_some(()));
    assert!(!texts("/alerts").iter().any(|text| text.contains("went-well")));
    daemon.terminate();
}

#[test]
fn pagerduty() {
    let world = World::new();
    world.receiver.answer(202, r#"{"status":"success","message":"Event processed","dedup_key":"x"}"#);
    let receiver = format!("url = \"http://{}/pagerduty\"\n", world.receiver_address);
    let secrets = [("PAGERDUTY_ROUTING_KEY", "R0UT1NGK3Y0123456789abcdef012345".to_owned())];
    let toml = format!("{}{receiver}", block("pagerduty", "toml", 0));
    let daemon = follow(&world, "pagerduty", &toml, &secrets);
    let alerts = || bodies(&world, "/pagerduty");
    let tests = until("the test", || (!alerts().is_empty()).then(alerts));
    assert_eq!(
        (&tests[0]["event_action"], &tests[0]["payload"]["severity"]),
        (&json!("trigger"), &json!("info"))
    );
    assert_eq!(tests[0]["routing_key"], "R0UT1NGK3Y0123456789abcdef012345");
    let more = json!({"errors": {"object": "list", "data": [{"code": "model_not_found", "message": "no such model",
        "line": 1, "param": null}]}, "failed_at": 1_795_000_100});
    world.provider.put("batch_68fd8e2f1c0c8190", "failed", &more);
    let of = |action: &str, part: &str| {
        alerts().into_iter().find(|alert| alert["event_action"] == action && alert.to_string().contains(part))
    };
    let page = until("the page", || of("trigger", "nightly-evals"));
    assert_eq!(page["payload"]["severity"], "error", "{page}");
    // A refused key is one alert, and it resolves itself.
    for id in ["batch_a", "batch_b"] {
        world.provider.put(id, "in_progress", &json!({}));
        world.ok(&["track", id]);
    }
    world.provider.fault(Some((401, r#"{"error":{"message":"Incorrect API key provided"}}"#)));
    let refused = until("the key is refused", || of("trigger", "provider.unauthorized"));
    world.provider.fault(None);
    let resolved = until("it is over", || of("resolve", ""));
    assert_eq!(resolved["dedup_key"], refused["dedup_key"], "{resolved}");
    let refusals = alerts().iter().filter(|alert| alert["dedup_key"] == refused["dedup_key"]).count();
    assert_eq!(refusals, 2, "one alert and its end");
    daemon.terminate();
}
