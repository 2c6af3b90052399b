//! Discovery: its rounds on a virtual clock, and the whole of it over real sockets against the sandbox.

use crate::simulation::{EPOCH, World, answer, is};
use crate::world::{World as Surroundings, until};
use batchd::clock::Clock;
use batchd::config::Polling;
use batchd::domain::event::EventType;
use batchd::domain::status::Status;
use batchd::domain::time::{later, since};
use batchd::engine::ProviderError;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);

/// A service with a list: batches that are created and end at set times, a few a page.
struct Service {
    clock: Clock,
    /// Each batch's number, creation and end, in seconds from the world's beginning.
    batches: Mutex<Vec<(u32, i64, i64)>>,
    /// What is answered to every request for a page behind the first.
    broken: Mutex<Option<u16>>,
    asked: Mutex<Vec<(String, Timestamp)>>,
}

impl Service {
    fn new(clock: &Clock, batches: &[(u32, i64, i64)]) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            batches: Mutex::new(batches.to_vec()),
            broken: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    fn add(&self, number: u32, created: i64, ended: i64) {
        self.batches.lock().unwrap().push((number, created, ended));
    }

    fn pages_asked(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|(path, _)| path == "/v1/batches").count()
    }

    fn object(&self, (number, created, ended): (u32, i64, i64)) -> Value {
        let now = self.clock.now().as_second() - EPOCH.as_second();
        let over = ended <= now;
        json!({
            "id": id(number), "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "created_at": EPOCH.as_second() + created,
            "status": if over { "completed" } else { "in_progress" },
            "completed_at": over.then_some(EPOCH.as_second() + ended),
            "output_file_id": over.then_some("file-2"),
            "request_counts": {"total": 4, "completed": if over { 4 } else { 0 }, "failed": 0},
        })
    }

    fn answer(&self, call: &Call) -> Answer {
        let uri = call.request.uri();
        self.asked.lock().unwrap().push((uri.path().to_owned(), self.clock.now()));
        let mut batches = self.batches.lock().unwrap().clone();
        let now = self.clock.now().as_second() - EPOCH.as_second();
        batches.retain(|(_, created, _)| *created <= now);
        batches.sort_by_key(|(_, created, _)| std::cmp::Reverse(*created));
        if let Some(asked) = uri.path().strip_prefix("/v1/batches/") {
            let found = batches.into_iter().find(|(number, ..)| id(*number) == asked);
            return found.map_or_else(|| answer(404, &json!({})), |batch| answer(200, &self.object(batch)));
        }
        let after = uri.query().and_then(|query| {
            query.split('&').find_map(|pair| pair.strip_prefix("after=").map(str::to_owned))
        });
        if let (Some(status), Some(_)) = (*self.broken.lock().unwrap(), &after) {
            return answer(status, &json!({"error": {"message": "not now"}}));
        }
        let begin = after.map_or(0, |after| {
            batches.iter().position(|(number, ..)| id(*number) == after).map_or(batches.len(), |at| at + 1)
        });
        let page: Vec<Value> = batches[begin..].iter().take(3).map(|batch| self.object(*batch)).collect();
        let more = batches.len() > begin + page.len();
        answer(200, &json!({"object": "list", "data": page, "has_more": more}))
    }
}

impl Transport for Service {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(self.answer(&call))
        })
    }
}

fn id(number: u32) -> String {
    format!("batch_{number:032x}")
}

fn completed(told: &[EventType]) -> usize {
    told.iter().filter(|kind| **kind == EventType::Batch(Status::Completed)).count()
}

#[tokio::test(start_paused = true)]
async fn the_first_round_pages_nobody_and_each_later_find_is_told_once() {
    let world = World::new(21);
    // Over long ago, over just now, and three that run; seven entries are three pages.
    let service = Service::new(
        &world.clock,
        &[
            (1, -900_000, -890_000),
            (2, -4000, -3000),
            (3, -3900, -60),
            (4, -3800, 1200),
            (5, -3700, 2400),
            (6, -200, 90_000),
            (7, -100, -1),
        ],
    );
    let life = world.live(&[("openai", service.clone() as _, Polling::default())]).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 3);
    assert_eq!(completed(&life.told().await), 0, "what was over is old news");
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 0);

    // Created and over between two rounds; one that still runs; one whose end was seen by its own schedule.
    service.add(8, 200, 300);
    service.add(9, 250, 90_000);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 2);
    assert_eq!(completed(&life.told().await), 1);
    let (_, found) = life.batch(&id(8)).await;
    assert_eq!(found.batch.status, Status::Completed);
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 0);
    let before = service.pages_asked();
    assert_eq!(life.engine.discover("openai").await.unwrap(), 0);
    assert_eq!(service.pages_asked() - before, 1, "no farther than what is known");
    // What runs is watched like any other, to its end.
    tokio::time::sleep(2 * Duration::from_hours(1)).await;
    assert_eq!(completed(&life.told().await), 3);

    // A restart changes nothing, a purged batch is not found again, and what comes meanwhile is.
    let (pk, _) = life.batch(&id(6)).await;
    life.store.purge(pk).await.unwrap();
    life.end().await;
    service.add(10, 9000, 9001);
    tokio::time::sleep(Duration::from_hours(2)).await;
    let life = world.live(&[("openai", service.clone() as _, Polling::default())]).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 1);
    assert_eq!(completed(&life.told().await), 4);
    assert!(life.store.find(id(6)).await.unwrap().is_empty());
    assert!(life.store.find(id(2)).await.unwrap().is_empty(), "old news is not registered");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_round_that_breaks_off_is_had_again_and_finds_nothing_twice_and_misses_nothing() {
    let world = World::new(22);
    let service = Service::new(&world.clock, &[(1, -500, 90_000)]);
    let life = world.live(&[("openai", service.clone() as _, Polling::default())]).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 1);
    for number in 2..12 {
        service.add(number, i64::from(number) * 10, 90_000);
    }
    tokio::time::sleep(20 * MINUTE).await;
    *service.broken.lock().unwrap() = Some(500);
    let broken = life.engine.discover("openai").await;
    assert!(matches!(broken, Err(ProviderError::Provider { .. })), "{broken:?}");
    assert_eq!(life.store.counts().await.unwrap().iter().map(|(_, _, count)| count).sum::<u64>(), 4);
    // The daemon is killed; what was stored counts.
    life.end().await;
    *service.broken.lock().unwrap() = None;
    let life = world.live(&[("openai", service.clone() as _, Polling::default())]).await;
    assert_eq!(life.engine.discover("openai").await.unwrap(), 7);
    assert_eq!(life.engine.discover("openai").await.unwrap(), 0);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_round_keeps_to_the_ceiling_and_waits_while_the_provider_wants_to_be_left_alone() {
    let world = World::new(23);
    let batches: Vec<(u32, i64, i64)> = (1..30).map(|number| (number, -i64::from(number), 90_000)).collect();
    let service = Service::new(&world.clock, &batches);
    let polling = Polling { requests_per_minute: Some(5), ..Polling::default() };
    let life = world.live(&[("openai", service.clone() as _, polling)]).await;
    let begun = world.clock.now();
    // Ten pages at five a minute, with the looks at what was found among them.
    assert_eq!(life.engine.discover("openai").await.unwrap(), 29);
    assert!(since(begun, world.clock.now()) >= MINUTE, "faster than the ceiling allows");
    let asked = service.asked.lock().unwrap().clone();
    for (at, (_, first)) in asked.iter().enumerate() {
        let within = asked[at..].iter().take_while(|(_, later)| since(*first, *later) < MINUTE).count();
        assert!(within <= 5, "{within} requests in a minute");
    }
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_list_says_so() {
    struct Listless;
    impl Transport for Listless {
        fn send(&self, _call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
            Box::pin(async { Ok(answer(404, &json!({"error": {"message": "no such path"}}))) })
        }
    }
    let world = World::new(24);
    let life = world.live(&[("openai", Arc::new(Listless) as _, Polling::default())]).await;
    assert!(life.engine.discover("openai").await.is_err());
    assert_eq!(life.told().await, [], "the account is well");
    assert!(matches!(life.engine.discover("nobody").await, Err(ProviderError::NoProvider(_))));
    life.end().await;
}

/// What the simulation of a single batch answers is an answer to a question after a list as well.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_list_breaks_nothing() {
    struct Odd;
    impl Transport for Odd {
        fn send(&self, _call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
            Box::pin(async { Ok(is("batch_1", "in_progress")) })
        }
    }
    let world = World::new(25);
    let life = world.live(&[("openai", Arc::new(Odd) as _, Polling::default())]).await;
    let _ = life.engine.discover("openai").await;
    let far = later(EPOCH, MINUTE);
    assert!(world.clock.now() < far);
    life.end().await;
}

/// The command against a provider over real sockets: everything is shown, what lives is tracked.
#[test]
fn the_command_lists_what_there_is_and_tracks_what_lives() {
    let world = Surroundings::new();
    let now = Clock::system().now().as_second();
    world.provider.put("batch_live", "in_progress", &json!({"created_at": now - 60}));
    world.provider.put("batch_over", "completed", &json!({"created_at": now - 120, "output_file_id": "f"}));
    world.provider.put("batch_old", "completed", &json!({"created_at": now - 30 * 86_400}));
    let daemon = world.daemon();
    let listed = world.json(&["discover", "--json"]);
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["batch_live", "batch_over"]);
    assert_eq!(listed["data"][0]["batchd"]["tracked_at"], Value::Null);
    assert_eq!(listed["errors"], json!([]));
    assert_eq!(world.json(&["list", "--all", "--json"])["data"], json!([]), "a look changes nothing");
    let ids = world.json(&["discover", "--since", "60d", "--provider", "openai", "--json"]);
    assert_eq!(ids["data"].as_array().unwrap().len(), 3);

    let tracked = world.json(&["discover", "--track", "--json"]);
    assert_eq!(tracked["tracked"], 1);
    assert_ne!(tracked["data"][0]["batchd"]["tracked_at"], Value::Null);
    assert_eq!(world.json(&["list", "--all", "--json"])["data"][0]["id"], "batch_live");
    assert_eq!(world.json(&["discover", "--track", "--json"])["tracked"], 0);
    let table = world.ok(&["discover"]);
    assert!(table.contains("batch_live") && table.contains("yes") && table.contains("no"), "{table}");

    let unknown = world.batchd(&["discover", "--provider", "opnai"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    world.provider.fault(Some((401, "{}")));
    let refused = world.batchd(&["discover"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    world.provider.fault(Some((404, "{}")));
    let listless = world.batchd(&["discover"]);
    assert_eq!(listless.status.code(), Some(1), "{listless:?}");
    assert!(String::from_utf8_lossy(&listless.stderr).contains("has no list of batches"), "{listless:?}");
    daemon.terminate();
}

/// `discover` in a provider's table: the daemon finds and tells by itself.
#[test]
fn the_daemon_finds_by_itself_what_nobody_registered() {
    let world = Surroundings::new();
    world.configure(&format!(
        "[providers.found]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\n\
         base_url = \"http://{}/v1\"\ndiscover = \"* * * * *\"\n",
        world.provider_address
    ));
    let now = Clock::system().now().as_second();
    world.provider.put("batch_live", "in_progress", &json!({"created_at": now - 60}));
    world.provider.put("batch_over", "completed", &json!({"created_at": now - 120, "output_file_id": "f"}));
    let daemon = world.daemon();
    let found = until("what lives is found at once", || {
        let list = world.json(&["list", "--all", "--json"]);
        list["data"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&found["id"], &found["batchd"]["provider"]), (&json!("batch_live"), &json!("found")));
    assert_eq!(world.json(&["list", "--all", "--json"])["data"].as_array().unwrap().len(), 1);
    let jobs = world.json(&["status", "--json"])["jobs"].clone();
    assert!(
        jobs.as_array().unwrap().iter().any(|job| job["name"] == "discover found" && job["error"].is_null()),
        "{jobs}"
    );
    assert_eq!(world.receiver.received("/").len(), 0, "nobody is told of what was over");
    daemon.terminate();
}
