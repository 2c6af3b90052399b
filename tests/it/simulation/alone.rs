//! The engine alone on a virtual clock, with a provider that is scripted or fixed by a seed.

use batchd::clock::Clock;
use batchd::config::{Polling, ProviderConfig};
use batchd::domain::event::EventType;
use batchd::domain::route::Routes;
use batchd::domain::time::{earlier, since};
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::domain::user_fields::UserFields;
use batchd::engine::{Account, Engine};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::provider;
use batchd::rng::Rng;
use batchd::store::Store;
use batchd::store::events::EventFilter;
use batchd::store::recording::Registration;
use batchd::tasks::Tasks;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const EPOCH: Timestamp = Timestamp::constant(1_795_000_000, 0);
pub const DAY: Duration = Duration::from_hours(24);
pub const MINUTE: Duration = Duration::from_mins(1);

/// A provider whose every answer is fixed by a seed, the batch and the instant.
pub struct Provider {
    clock: Clock,
    rng: Rng,
    /// How much of its answers are faults.
    faults: f64,
    /// Nothing but silence until then.
    pub silent_until: Timestamp,
    in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    pub asked: AtomicUsize,
}

impl Provider {
    pub fn new(clock: &Clock, seed: u64, faults: f64) -> Self {
        Self {
            clock: clock.clone(),
            rng: Rng::seeded(seed),
            faults,
            silent_until: EPOCH,
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        }
    }

    /// How long a batch lives: between a minute and a day, by its name.
    pub fn life(&self, id: &str) -> Duration {
        let share = self.rng.jitter_of(id, EPOCH);
        Duration::from_secs_f64(60.0 * 1440_f64.powf(share))
    }

    pub fn ending(&self, id: &str) -> &'static str {
        let endings = ["completed", "failed", "expired", "cancelled"];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 3")]
        let index = (self.rng.jitter_of(id, earlier(EPOCH, DAY)) * 4.0) as usize;
        endings[index]
    }

    fn batch(&self, id: &str, now: Timestamp) -> Value {
        let (age, life) = (since(EPOCH, now), self.life(id));
        let created_at = EPOCH.as_second();
        let part = (age.as_secs_f64() / life.as_secs_f64()).min(1.0);
        let status = match part {
            part if part >= 1.0 => self.ending(id),
            part if part >= 0.95 => "finalizing",
            part if part >= 0.05 => "in_progress",
            _ => "validating",
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count up to 100")]
        let done = (part * 100.0) as u64;
        let mut batch = json!({
            "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "status": status, "created_at": created_at,
            "request_counts": {"total": 100, "completed": done, "failed": 0},
        });
        if part >= 1.0 {
            batch[format!("{status}_at")] = json!(created_at + i64::try_from(life.as_secs()).unwrap());
            batch["output_file_id"] = json!("file-2");
        }
        batch
    }

    fn answer(&self, id: &str) -> Result<Answer, Failure> {
        let now = self.clock.now();
        if now < self.silent_until {
            return Err(Failure::ConnectRefused);
        }
        let mut headers = HeaderMap::new();
        let chance = self.rng.jitter_of(id, now);
        let (status, body) = if chance >= self.faults {
            (StatusCode::OK, self.batch(id, now).to_string())
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number from 0 to 7"
            )]
            match (chance / self.faults * 8.0) as u32 {
                0 => return Err(Failure::Reset),
                1 => return Err(Failure::Timeout(Duration::from_secs(30))),
                2 => (StatusCode::BAD_GATEWAY, "<html>bad gateway</html>".to_owned()),
                3 => (StatusCode::OK, "{\"id\": \"batch".to_owned()),
                4 => (StatusCode::OK, json!({"error": {"message": "try later"}}).to_string()),
                5 => (
                    StatusCode::OK,
                    json!({"id": id, "status": "daydreaming", "created_at": "soon"}).to_string(),
                ),
                6 => {
                    headers.insert("retry-after", HeaderValue::from_static("40"));
                    (StatusCode::TOO_MANY_REQUESTS, "{}".to_owned())
                }
                _ => (StatusCode::NOT_FOUND, json!({"error": {"message": "no such batch"}}).to_string()),
            }
        };
        Ok(Answer { status, headers, body: Bytes::from(body), cut: false })
    }
}

impl Transport for Provider {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_in_flight.fetch_max(now, Ordering::Relaxed);
            let id = call.request.uri().path().rsplit('/').next().unwrap().to_owned();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let answer = self.answer(&id);
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            answer
        })
    }
}

/// What a scripted provider answers to a question after a batch at an instant.
type Script = dyn Fn(&str, Timestamp) -> Answer + Send + Sync;

/// A provider that answers what a test says, and takes its time.
pub struct Scripted {
    clock: Clock,
    takes: Duration,
    script: Box<Script>,
    /// Whether the script has a list too.
    lists: bool,
    pub asked: Mutex<Vec<(String, Timestamp)>>,
}

impl Scripted {
    pub fn new(
        clock: &Clock,
        takes: Duration,
        script: impl Fn(&str, Timestamp) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::of(clock, takes, script, false))
    }

    /// One that is asked for its list too, under the name `batches`, its further pages under `batches after ID`.
    pub fn with_list(
        clock: &Clock,
        script: impl Fn(&str, Timestamp) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::of(clock, Duration::ZERO, script, true))
    }

    fn of(
        clock: &Clock,
        takes: Duration,
        script: impl Fn(&str, Timestamp) -> Answer + Send + Sync + 'static,
        lists: bool,
    ) -> Self {
        Self { clock: clock.clone(), takes, script: Box::new(script), lists, asked: Mutex::default() }
    }

    /// When it was asked, from the world's beginning on.
    pub fn asked(&self) -> Vec<Duration> {
        self.asked.lock().unwrap().iter().map(|(_, at)| since(EPOCH, *at)).collect()
    }
}

impl Transport for Scripted {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let mut id = call.request.uri().path().rsplit('/').next().unwrap().to_owned();
            if id == "batches" && !self.lists {
                // Without a list every look is at one batch: `rounds` has the others.
                return Ok(refuses(404));
            }
            let query = call.request.uri().query().unwrap_or_default();
            if let Some(after) = query.split('&').find_map(|pair| pair.strip_prefix("after=")) {
                id = format!("{id} after {after}");
            }
            self.asked.lock().unwrap().push((id.clone(), self.clock.now()));
            tokio::time::sleep(self.takes).await;
            Ok((self.script)(&id, self.clock.now()))
        })
    }
}

pub fn answer(status: u16, body: &Value) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_string()), cut: false }
}

pub fn is(id: &str, status: &str) -> Answer {
    answer(
        200,
        &json!({
            "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "status": status, "created_at": EPOCH.as_second(),
        }),
    )
}

pub fn refuses(status: u16) -> Answer {
    answer(status, &json!({"error": {"message": "no"}}))
}

pub struct World {
    directory: tempfile::TempDir,
    pub clock: Clock,
    seed: u64,
}

pub struct Life {
    pub store: Store,
    pub engine: Engine,
    pub tasks: Tasks,
}

impl World {
    pub fn new(seed: u64) -> Self {
        // Weeks of commits: in memory where there is such a place, for their order matters here, not the disk.
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { directory: directory.unwrap(), clock: Clock::simulated(EPOCH), seed }
    }

    /// Where its state is.
    pub fn state(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A daemon's engine from here on, over whatever state there is.
    pub async fn live(&self, accounts: &[(&str, Arc<dyn Transport>, Polling)]) -> Life {
        let store = Store::open(self.directory.path(), self.clock.clone()).unwrap();
        let tasks = Tasks::new(self.clock.clone());
        let engine = Engine::new(store.clone(), self.clock.clone(), Rng::seeded(self.seed), tasks.clone());
        let accounts = accounts
            .iter()
            .map(|(name, provider, polling)| account(name, provider.clone(), *polling))
            .collect();
        engine.apply(accounts, Routes::default()).await.unwrap();
        Life { store, engine, tasks }
    }
}

impl Life {
    pub async fn track(&self, provider: &str, ids: impl Iterator<Item = String>, now: Timestamp) {
        let items = ids
            .map(|id| {
                let key = BatchKey { provider: provider.to_owned(), id };
                let tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, now);
                Registration { tracked, first_look: None, user_fields: UserFields::default() }
            })
            .collect();
        self.store.register(items, Arc::default()).await.unwrap();
    }

    /// Every event, by what it says rather than by its place among others of the same instant.
    pub async fn log(&self) -> Vec<(String, String, EventType)> {
        let events = self.store.events(EventFilter::default()).await.unwrap();
        let mut log: Vec<_> = events
            .into_iter()
            .map(|event| {
                let body: Value = serde_json::from_str(&event.body).unwrap();
                (body["timestamp"].as_str().unwrap().to_owned(), event.id, event.kind)
            })
            .collect();
        log.sort();
        log
    }

    /// The batch called `id`, with its row.
    pub async fn batch(&self, id: &str) -> (i64, Tracked) {
        self.store.find(id.to_owned()).await.unwrap().pop().unwrap()
    }

    /// Every event's type, in the order of the log.
    pub async fn told(&self) -> Vec<EventType> {
        let events = self.store.events(EventFilter::default()).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    pub async fn track_one(&self, id: &str, now: Timestamp) {
        self.track("openai", std::iter::once(id.to_owned()), now).await;
    }

    pub async fn end(self) {
        self.engine.stop().await;
        assert!(self.tasks.stop(Duration::from_mins(1)).await, "something is left running");
        self.store.close().await.unwrap();
    }
}

pub fn account(name: &str, transport: Arc<dyn Transport>, polling: Polling) -> Account {
    let config = ProviderConfig {
        name: name.to_owned(),
        polling,
        ..ProviderConfig::bare("openai", "https://provider.invalid/v1")
    };
    let kind = provider::registry::kind("openai").unwrap();
    let adapter = (kind.build)(&provider::Account::new(&config, None));
    Account { config, adapter, transport }
}

pub fn ids(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("batch_{number:024}"))
}

/// How often an event of this type was told.
pub fn count(told: &[EventType], word: &str) -> usize {
    told.iter().filter(|kind| kind.as_str() == word).count()
}
