//! The engine learns how long batches take, on the virtual clock: from their ends, and from a provider's own list.

use crate::simulation::{DAY, EPOCH, MINUTE, World, answer};
use batchd::clock::Clock;
use batchd::config::Polling;
use batchd::domain::time::since;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::store::events::EventFilter;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// A provider whose batches take about an hour each from the moment that they were first asked for, and which did
/// others before.
struct Hourly {
    clock: Clock,
    begun: Mutex<std::collections::BTreeMap<String, Timestamp>>,
    past: usize,
    pages: AtomicUsize,
    looks: AtomicUsize,
}

impl Hourly {
    fn new(clock: &Clock, past: usize) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            begun: Mutex::default(),
            past,
            pages: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
        })
    }

    fn batch(id: &str, created: i64, took: i64, now: i64) -> Value {
        let ended = now >= created + took;
        json!({
            "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "created_at": created, "model": "gpt-5-mini",
            "status": if ended { "completed" } else { "in_progress" },
            "completed_at": ended.then_some(created + took), "output_file_id": ended.then_some("file-2"),
        })
    }

    fn retrieved(&self, id: &str) -> Answer {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let mut begun = self.begun.lock().unwrap();
        let number = i64::try_from(begun.len()).unwrap();
        let created = begun.entry(id.to_owned()).or_insert(now).as_second();
        drop(begun);
        // Within a few minutes of an hour, by the order of their coming.
        answer(200, &Self::batch(id, created, 3500 + number * 37 % 200, now.as_second()))
    }

    /// Pages of ten of what ended long ago.
    fn listed(&self, query: &str) -> Answer {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let after = query.split("after=batch_past").nth(1).and_then(|rest| rest.split('&').next());
        let from = after.map_or(0, |number| number.parse::<usize>().unwrap() + 1);
        let until = (from + 10).min(self.past);
        let data: Vec<Value> = (from..until)
            .map(|number| {
                let created = EPOCH.as_second() - 86_400 - i64::try_from(number).unwrap() * 60;
                Self::batch(&format!("batch_past{number}"), created, 3600, EPOCH.as_second())
            })
            .collect();
        let last = data.last().map(|batch| batch["id"].clone());
        let body = json!({"object": "list", "data": data, "last_id": last, "has_more": until < self.past});
        answer(200, &body)
    }
}

impl Transport for Hourly {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let uri = call.request.uri().clone();
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(match uri.path().rsplit('/').next() {
                Some("batches") => self.listed(uri.query().unwrap_or_default()),
                id => self.retrieved(id.unwrap_or_default()),
            })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_ended_says_when_the_next_ones_will_and_after_a_restart_still_does() {
    let world = World::new(31);
    let provider = Hourly::new(&world.clock, 0);
    let polling = Polling::default();
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    life.track("openai", (0..30).map(|number| format!("batch_a{number}")), world.clock.now()).await;
    tokio::time::sleep(2 * HOUR).await;
    let unlearnt = provider.looks.swap(0, Ordering::Relaxed);

    let begun = world.clock.now();
    life.track("openai", (0..30).map(|number| format!("batch_b{number}")), begun).await;
    tokio::time::sleep(MINUTE).await;
    life.end().await;
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    tokio::time::sleep(20 * MINUTE).await;
    let (_, waiting) = life.batch("batch_b7").await;
    let eta = waiting.eta.unwrap();
    let foreseen = [eta.earliest, eta.at, eta.latest].map(|at| since(begun, at).as_secs());
    assert!(foreseen.is_sorted() && (3400..3800).contains(&foreseen[1]), "{foreseen:?}");
    let why = life.engine.explain(&waiting).reasons;
    assert!(why[0].starts_with("learnt from 30 earlier batch(es) (openai, gpt-5-mini)"), "{why:?}");

    tokio::time::sleep(2 * HOUR).await;
    let learnt = provider.looks.load(Ordering::Relaxed);
    // By default a batch gets as many looks as without, but better placed: those of the ends are seen much sooner.
    let events = life.store.events(EventFilter::default()).await.unwrap();
    let lags = |prefix: &str| -> i64 {
        let ends = events.iter().map(|event| serde_json::from_str::<Value>(&event.body).unwrap());
        ends.filter(|event| event["type"] == "batch.completed")
            .filter(|event| event["data"]["id"].as_str().unwrap().starts_with(prefix))
            .map(|event| {
                let seen: Timestamp = event["data"]["observed_at"].as_str().unwrap().parse().unwrap();
                seen.as_second() - event["data"]["batch"]["completed_at"].as_i64().unwrap()
            })
            .sum()
    };
    let (before, after) = (lags("batch_a"), lags("batch_b"));
    assert!(after * 2 < before, "{after} s late with what was learnt, {before} s without");
    assert!(learnt < unlearnt * 5 / 4, "{learnt} looks with what was learnt, {unlearnt} without");
    let told: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(&event.body).unwrap())
        .filter(|event: &Value| event["data"]["id"] == "batch_b7" && event["type"] == "batch.completed")
        .collect();
    let usual = told[0]["data"]["usual_seconds"].as_i64().unwrap();
    assert!((3500..3700).contains(&usual) && told[0]["data"]["usual_of"].as_i64() >= Some(30), "{told:?}");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_providers_list_teaches_once_and_tells_nothing() {
    let world = World::new(32);
    let provider = Hourly::new(&world.clock, 25);
    let polling = Polling::default();
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(provider.pages.load(Ordering::Relaxed), 3);
    assert!(life.store.has_learnt("openai".to_owned()).await.unwrap());
    assert_eq!(life.told().await, []);

    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(10 * MINUTE).await;
    let (_, tracked) = life.batch("batch_1").await;
    let why = life.engine.explain(&tracked).reasons;
    assert!(why[0].starts_with("learnt from 25 earlier batch(es)"), "{why:?}");
    life.end().await;

    let before = provider.pages.load(Ordering::Relaxed);
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    tokio::time::sleep(DAY).await;
    assert_eq!(provider.pages.load(Ordering::Relaxed), before, "once");
    life.end().await;
}
