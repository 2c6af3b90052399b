//! Floor 6: the whole product in one process: simulated providers, the daemon, and a receiver that checks signatures.
//!
//! Nothing is faked but the providers: batches are submitted over their APIs, the daemon tracks and polls them as it
//! would anywhere, and every webhook goes over a socket, signed, with its attempts logged.

mod receiver;
mod submit;

use crate::clock::Clock;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::assembly::{catalog, network};
use crate::control::live::Parts;
use crate::daemon::{RunError, Running};
use crate::domain::duration;
use crate::domain::event::EventType;
use crate::domain::status::Status;
use crate::rng::Rng;
use crate::sandbox::{Sandbox, SandboxOptions, Speed};
use crate::store::Store;
use crate::store::events::EventFilter;
use crate::tasks::Tasks;
use receiver::{Receipt, Receiver};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use submit::{PLAN, submit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How much faster than real ones the simulated providers are.
const SPEED: f64 = 45.0;
/// The demo gives up after this long.
const DEMO_TIMEOUT: Duration = Duration::from_secs(18);

#[derive(Clone, Debug)]
pub enum Moment {
    /// Everything runs.
    Ready {
        sandbox: String,
        /// How much faster than real ones they are.
        speed: f64,
        receiver: String,
        state: PathBuf,
    },
    /// A batch was created at a provider and is tracked.
    Submitted { provider: String, name: String, id: String, requests: usize },
    /// batchd saw a batch change.
    Changed {
        provider: String,
        name: String,
        from: Option<String>,
        to: Status,
        /// How it really ended, if it has.
        outcome: Option<String>,
        /// Succeeded, failed, total.
        counts: Option<(u64, u64, u64)>,
    },
    /// The receiver got a webhook.
    Told {
        /// The provider that it is about.
        provider: String,
        /// The batch that it is about.
        name: String,
        kind: String,
        verified: bool,
        answered: u16,
    },
    /// All is over.
    Done {
        batches: usize,
        /// Webhooks whose signature was right.
        verified: usize,
        /// How often the receiver refused and batchd came again.
        retried: usize,
    },
}

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system refuses a directory, a port or a thread.
    #[error("cannot set up the demo: {0}")]
    System(#[from] std::io::Error),
    #[error("the daemon did not start: {0}")]
    Daemon(#[from] RunError),
    /// A part did not do what it should.
    #[error("{0}")]
    Failed(String),
    #[error("not everything had ended after {}: {missing}", duration::human(DEMO_TIMEOUT))]
    TooLong { missing: String },
}

/// Plays the demo, telling `show` each moment as it comes.
pub fn run(mut show: impl FnMut(Moment)) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(play(&mut show));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn play(show: &mut impl FnMut(Moment)) -> Result<(), DemoError> {
    let directory = tempfile::Builder::new().prefix("batchd-demo-").tempdir()?;
    let clock = Clock::system();
    let tasks = Tasks::new(clock.clone());
    let stopping = tasks.stopping();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let sandbox = format!("http://{}", listener.local_addr()?);
    let speed = Speed::new(SPEED).map_err(|problem| DemoError::Failed(problem.to_string()))?;
    let simulated = Sandbox::new(&SandboxOptions { speed, ..SandboxOptions::default() });
    let until = stopping.clone();
    tasks.spawn_tracked(async move {
        if let Err(error) = simulated.serve(listener, until).await {
            tracing::error!(%error, "the sandbox stopped");
        }
    });

    let (told, mut receipts) = mpsc::unbounded_channel();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let receiver = Receiver::new(&Rng::system(), told);
    let secret = receiver.secret().to_owned();
    tasks.spawn_tracked(receiver.serve(listener, stopping.clone()));

    let state = directory.path().join("state");
    let env = Env::from([("DEMO_KEY", "sk-demo"), ("DEMO_SECRET", secret.as_str())]);
    let file = directory.path().join("config.toml");
    std::fs::write(&file, configuration(&state, &sandbox, &format!("http://{address}/hooks")))?;
    let config = Config::load(Some(&file), &catalog(), &env).map_err(RunError::Config)?;
    let store = Store::open(&state, clock.clone()).map_err(RunError::Open)?;
    let events = store.watch_events();
    let parts = Parts {
        store: store.clone(),
        clock,
        rng: Rng::system(),
        tasks: tasks.clone(),
        env,
        config_file: Some(file),
        connect: network(),
    };
    let daemon = Running::without_sockets(parts, config).await?;
    show(Moment::Ready {
        sandbox: sandbox.clone(),
        speed: SPEED,
        receiver: format!("http://{address}/hooks"),
        state,
    });

    let plot = async {
        let names = submit_all(&daemon, show).await?;
        watch(&store, events, &mut receipts, &names, show).await
    };
    let result = plot.await;
    daemon.stop().await;
    result
}

/// Submits every batch of the plan. Gives their names by provider and id.
async fn submit_all(
    daemon: &Running,
    show: &mut impl FnMut(Moment),
) -> Result<BTreeMap<(String, String), String>, DemoError> {
    let mut names = BTreeMap::new();
    for planned in &PLAN {
        let id = submit(&daemon.service, planned).await.map_err(DemoError::Failed)?;
        show(Moment::Submitted {
            provider: planned.provider.to_owned(),
            name: planned.name.to_owned(),
            id: id.clone(),
            requests: planned.requests,
        });
        names.insert((planned.provider.to_owned(), id), planned.name.to_owned());
    }
    Ok(names)
}

/// Shows what happens until every batch has ended and every end has been told.
async fn watch(
    store: &Store,
    mut recorded: tokio::sync::watch::Receiver<i64>,
    receipts: &mut mpsc::UnboundedReceiver<Receipt>,
    names: &BTreeMap<(String, String), String>,
    show: &mut impl FnMut(Moment),
) -> Result<(), DemoError> {
    let mut after = 0;
    let mut ended = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut retried = 0;
    let deadline = tokio::time::sleep(DEMO_TIMEOUT);
    tokio::pin!(deadline);
    while ended.len() < names.len() || !ended.is_subset(&told) {
        tokio::select! {
            () = &mut deadline => {
                let missing = names.iter().filter(|(key, _)| !told.contains(*key)).map(|(_, name)| name.as_str());
                return Err(DemoError::TooLong { missing: missing.collect::<Vec<_>>().join(", ") });
            }
            Some(receipt) = receipts.recv() => {
                let (key, name) = about(&receipt.body, names);
                if receipt.accepted() {
                    told.insert(key.clone());
                } else if receipt.verified {
                    retried += 1;
                }
                show(Moment::Told {
                    provider: key.0,
                    name,
                    kind: receipt.body["type"].as_str().unwrap_or_default().to_owned(),
                    verified: receipt.verified,
                    answered: receipt.answered,
                });
            }
            _ = recorded.changed() => {
                let filter = EventFilter { after, ..EventFilter::default() };
                let events = store.events(filter).await.map_err(|error| DemoError::Failed(error.to_string()))?;
                for event in events {
                    after = event.sequence;
                    let EventType::Batch(to) = event.kind else { continue };
                    let body: Value = serde_json::from_str(&event.body).unwrap_or_default();
                    let (key, name) = about(&body, names);
                    if to.is_terminal() {
                        ended.insert(key.clone());
                    }
                    let data = &body["data"];
                    let count = |field: &str| data["batch"]["request_counts"][field].as_u64();
                    show(Moment::Changed {
                        provider: key.0,
                        name,
                        from: data["previous_status"].as_str().map(str::to_owned),
                        to,
                        outcome: data["outcome"].as_str().map(str::to_owned),
                        counts: count("completed").zip(count("failed")).zip(count("total")).map(|((a, b), c)| (a, b, c)),
                    });
                }
            }
        }
    }
    show(Moment::Done { batches: ended.len(), verified: told.len(), retried });
    Ok(())
}

/// Which batch an event is about, and what it is called here.
fn about(body: &Value, names: &BTreeMap<(String, String), String>) -> ((String, String), String) {
    let text = |field: &str| body["data"][field].as_str().unwrap_or_default().to_owned();
    let key = (text("provider"), text("id"));
    let name = names.get(&key).cloned().unwrap_or_else(|| text("name"));
    (key, name)
}

/// The configuration that a user would write for this, with quick polls.
fn configuration(state: &std::path::Path, sandbox: &str, receiver: &str) -> String {
    use std::fmt::Write;
    let mut text = format!(
        r#"
[state]
dir = "{}"

[polling]
min_interval = "1s"
max_interval = "1s"

[webhooks.receiver]
url = "{receiver}"
secret = {{ env = "DEMO_SECRET" }}
retry = ["1s", "1s", "1s"]
"#,
        state.display()
    );
    for (name, path) in [("openai", "/v1"), ("anthropic", ""), ("gemini", "/v1beta"), ("mistral", "")] {
        let _ = write!(
            text,
            "\n[providers.{name}]\napi_key = {{ env = \"DEMO_KEY\" }}\nbase_url = \"{sandbox}{path}\"\n"
        );
    }
    text
}
