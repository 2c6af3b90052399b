//! Checks that show nothing new, on the virtual clock: they are not read, and what has to be told is told all the same.

use crate::simulation::{EPOCH, Life, MINUTE, World, account, answer, count};
use batchd::clock::Clock;
use batchd::config::Polling;
use batchd::domain::batch::RequestCounts;
use batchd::domain::route::Routes;
use batchd::domain::sighting::Sighting;
use batchd::domain::time::{earlier, since};
use batchd::domain::tracked::BatchKey;
use batchd::domain::user_fields::UserFields;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::provider::{Listing, Page, PageRequest, Provider};
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type Change = dyn Fn(usize, Timestamp, &mut Value) + Send + Sync;

/// A service whose batches were all created in one second, the newest of them first in its list.
struct Service {
    clock: Clock,
    count: usize,
    /// Whether it has a list.
    lists: bool,
    /// What is different of a batch at an instant.
    change: Box<Change>,
    pages: AtomicUsize,
    retrieved: AtomicUsize,
}

impl Service {
    fn new(
        world: &World,
        count: usize,
        change: impl Fn(usize, Timestamp, &mut Value) + Send + Sync + 'static,
    ) -> Self {
        let (pages, retrieved) = Default::default();
        Self { clock: world.clock.clone(), count, lists: true, change: Box::new(change), pages, retrieved }
    }

    fn batch(&self, number: usize) -> Value {
        let mut batch = json!({
            "id": id(number), "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "status": "in_progress", "created_at": EPOCH.as_second() - 3600,
            "request_counts": {"total": 4, "completed": 0, "failed": 0},
        });
        (self.change)(number, self.clock.now(), &mut batch);
        batch
    }

    /// Pages and retrievals since this was asked last.
    fn asked(&self) -> (usize, usize) {
        (self.pages.swap(0, Ordering::Relaxed), self.retrieved.swap(0, Ordering::Relaxed))
    }
}

impl Transport for Service {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let uri = call.request.uri();
            let last = uri.path().rsplit('/').next().unwrap();
            if last != "batches" {
                self.retrieved.fetch_add(1, Ordering::Relaxed);
                return Ok(answer(200, &self.batch(number(last))));
            }
            self.pages.fetch_add(1, Ordering::Relaxed);
            if !self.lists {
                return Ok(answer(404, &json!({"error": {"message": "no"}})));
            }
            let query = uri.query().unwrap();
            let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
            let limit: usize = value("limit=").unwrap().parse().unwrap();
            let from = value("after=").map_or(self.count, number);
            let to = from.saturating_sub(limit);
            let data: Vec<Value> = (to..from).rev().map(|number| self.batch(number)).collect();
            let body = json!({"object": "list", "data": data, "has_more": to > 0, "last_id": id(to)});
            Ok(answer(200, &body))
        })
    }
}

fn id(number: usize) -> String {
    format!("batch_{number:05}")
}

fn number(id: &str) -> usize {
    id.strip_prefix("batch_").unwrap().parse().unwrap()
}

/// An adapter that counts what it reads.
#[derive(Debug)]
struct Reader {
    adapter: Box<dyn Provider>,
    read: Arc<Mutex<usize>>,
}

impl Provider for Reader {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.adapter.retrieve(id)
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        *self.read.lock().unwrap() += 1;
        self.adapter.retrieved(id, answer)
    }

    fn listing(&self) -> Option<Listing> {
        self.adapter.listing()
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        self.adapter.list(page)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let read = self.adapter.listed(page, answer)?;
        *self.read.lock().unwrap() += read.sightings.len();
        Ok(read)
    }

    fn default_endpoint(&self) -> &'static str {
        self.adapter.default_endpoint()
    }

    fn hold_incomplete(&self) -> bool {
        self.adapter.hold_incomplete()
    }

    fn console_url(&self, id: &str) -> Option<String> {
        self.adapter.console_url(id)
    }
}

/// All batches of `service` tracked, and how many answers about one were read so far.
async fn watching(world: &World, service: &Arc<Service>, polling: Polling) -> (Life, Arc<Mutex<usize>>) {
    let read = Arc::<Mutex<usize>>::default();
    let life = world.live(&[]).await;
    let mut reading = account("openai", service.clone(), polling);
    reading.adapter = Box::new(Reader { adapter: reading.adapter, read: read.clone() });
    life.engine.apply(vec![reading], Routes::default()).await.unwrap();
    life.track("openai", (0..service.count).map(id), world.clock.now()).await;
    (life, read)
}

fn every(interval: Duration) -> Polling {
    Polling { min_interval: interval, max_interval: interval, ..Polling::default() }
}

/// Every batch was checked within the last `within`, and is due within as much.
async fn assert_checked(world: &World, life: &Life, within: Duration) {
    let now = world.clock.now();
    for (_, tracked) in life.store.list(BatchFilter::default()).await.unwrap().0 {
        let (last, next) = (tracked.last_polled_at.unwrap(), tracked.next_poll_at.unwrap());
        assert!(
            since(last, now) <= within && since(now, next) <= within,
            "{last} {next} at {now}: {tracked:?}"
        );
    }
}

/// When it was told, seconds after the world began.
async fn told_at(life: &Life, kind: &str) -> Vec<i64> {
    let events = life.store.events(EventFilter::default()).await.unwrap();
    let events = events.into_iter().filter(|event| event.kind.as_str() == kind);
    let times = events.map(|event| {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let at: Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
        at.as_second() - EPOCH.as_second()
    });
    times.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_as_before_is_checked_and_not_read() {
    for lists in [true, false] {
        let world = World::new(71);
        let count = if lists { 300 } else { 5 };
        let service = Arc::new(Service { lists, ..Service::new(&world, count, |_, _, _| {}) });
        let (life, read) = watching(&world, &service, every(15 * SECOND)).await;
        tokio::time::sleep(10 * MINUTE).await;
        let (pages, retrieved) = service.asked();
        let checks = if lists { pages * 100 } else { retrieved };
        assert!(checks >= 36 * count, "{pages} pages and {retrieved} retrievals");
        let read = std::mem::take(&mut *read.lock().unwrap());
        assert!(read >= count && read <= 4 * count, "{read} of {checks} were read");
        assert_checked(&world, &life, 20 * SECOND).await;
        // Written as well, though not at once.
        tokio::time::sleep(MINUTE).await;
        life.end().await;
        let store = batchd::store::Store::open_offline(world.state()).unwrap();
        for (_, tracked) in store.list(BatchFilter::default()).await.unwrap().0 {
            assert!(since(tracked.last_polled_at.unwrap(), world.clock.now()) <= 20 * SECOND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_seen_at_the_next_check() {
    for lists in [true, false] {
        let world = World::new(72);
        let count = if lists { 150 } else { 4 };
        let service = Service::new(&world, count, |number, now, batch| {
            let minutes = since(EPOCH, now).as_secs() / 60;
            if number == 3 {
                batch["request_counts"]["completed"] = json!((minutes / 5).min(3));
                batch["usage"] = json!({"input_tokens": minutes / 5, "output_tokens": 1, "total_tokens": 9});
            }
            if number == 2 && minutes >= 12 {
                batch["status"] = json!("completed");
                batch["output_file_id"] = json!("file-2");
                batch["request_counts"]["completed"] = json!(4);
            }
        });
        let service = Arc::new(Service { lists, ..service });
        let (life, _) = watching(&world, &service, every(15 * SECOND)).await;
        for minutes in [4, 9, 14, 19] {
            let until =
                EPOCH + jiff::SignedDuration::from_mins(minutes + 1) + jiff::SignedDuration::from_secs(20);
            tokio::time::sleep(since(world.clock.now(), until)).await;
            let (_, tracked) = life.batch(&id(3)).await;
            let done = u64::try_from((minutes + 1) / 5).unwrap().min(3);
            assert_eq!(tracked.batch.request_counts.map(RequestCounts::done), Some(done), "minute {minutes}");
            assert_eq!(
                tracked.batch.usage.map(|usage| usage.input_tokens),
                Some((minutes.unsigned_abs() + 1) / 5)
            );
        }
        let ends = told_at(&life, "batch.completed").await;
        assert!(ends.len() == 1 && (720..=740).contains(&ends[0]), "{ends:?}");
        life.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_time_alone_brings_is_told_in_time() {
    for lists in [true, false] {
        let world = World::new(73);
        let count = if lists { 150 } else { 4 };
        let service = Service::new(&world, count, |number, _, batch| {
            if number == 1 {
                // Nine tenths of it have passed after an hour and a half.
                batch["expires_at"] = json!(EPOCH.as_second() + 6000);
            }
        });
        let service = Arc::new(Service { lists, ..service });
        let polling = Polling { stalled_after: 40 * MINUTE, ..every(15 * SECOND) };
        let (life, read) = watching(&world, &service, polling).await;
        tokio::time::sleep(5 * MINUTE).await;
        let deadline = earlier(EPOCH, Duration::ZERO) + jiff::SignedDuration::from_mins(33);
        let (_, tracked) = life.batch(&id(2)).await;
        let mut item = batchd::store::recording::Registration {
            tracked,
            first_look: None,
            user_fields: UserFields { deadline: Some(deadline), ..UserFields::default() },
        };
        item.tracked.key = BatchKey { provider: "openai".to_owned(), id: id(2) };
        life.store.register(vec![item], Arc::default()).await.unwrap();
        tokio::time::sleep(100 * MINUTE).await;
        let overdue = told_at(&life, "batch.overdue").await;
        assert!(overdue.len() == 2 && (1980..=1996).contains(&overdue[0]), "{overdue:?}");
        assert!((5040..=5056).contains(&overdue[1]), "{overdue:?}");
        let stalled = told_at(&life, "batch.stalled").await;
        assert!(stalled.len() == count && stalled.iter().all(|at| (2400..=2417).contains(at)), "{stalled:?}");
        assert!(*read.lock().unwrap() < 40 * count, "of about 420 checks each");
        life.end().await;
    }
}

/// What is told does not depend on whether it could be left unread.
#[tokio::test(start_paused = true)]
async fn the_same_is_told_if_nothing_is_ever_written_as_before() {
    let mut told = Vec::new();
    for nonce in [false, true] {
        let world = World::new(74);
        let service = Service::new(&world, 130, move |number, now, batch| {
            let age = since(EPOCH, now).as_secs();
            let takes = 300 + 97 * number as u64 % 7000;
            batch["status"] = json!(match age {
                age if age >= takes => "completed",
                age if age + 60 >= takes => "finalizing",
                _ => "in_progress",
            });
            batch["request_counts"]["completed"] = json!((4 * age / takes).min(4));
            if age >= takes {
                batch["output_file_id"] = json!("file-2");
            }
            if nonce {
                batch["nonce"] = json!(now.as_nanosecond().to_string());
            }
        });
        let service = Arc::new(service);
        let (life, _) = watching(&world, &service, Polling::default()).await;
        tokio::time::sleep(150 * MINUTE).await;
        assert_eq!(count(&life.told().await, "batch.completed"), 130);
        let mut log: Vec<_> = life.log().await.into_iter().map(|(_, id, kind)| (id, kind)).collect();
        log.sort();
        let (pages, retrieved) = service.asked();
        told.push((log, pages + retrieved));
        life.end().await;
    }
    let (unread, read) = (&told[0], &told[1]);
    assert_eq!(unread.0, read.0);
    let (few, many) = (unread.1.min(read.1), unread.1.max(read.1));
    assert!(many * 4 <= few * 5, "{} requests, {} if all is read", unread.1, read.1);
}

#[tokio::test(start_paused = true)]
async fn batches_of_one_second_or_of_no_time_at_all_are_read_from_pages() {
    for told in [true, false] {
        let world = World::new(75);
        let service = Arc::new(Service::new(&world, 5000, move |_, _, batch| {
            if !told {
                batch.as_object_mut().unwrap().remove("created_at");
            }
        }));
        let polling = Polling { min_interval: MINUTE, max_interval: MINUTE, ..Polling::default() };
        let (life, _) = watching(&world, &service, polling).await;
        for round in 0..12 {
            tokio::time::sleep(MINUTE).await;
            let (pages, retrieved) = service.asked();
            // What pages cost lets a few seconds of rounds begin early; the first minute has the first and the second.
            let most = if round == 0 { 140 } else { 75 };
            assert!(
                pages + retrieved <= most,
                "{pages} pages and {retrieved} retrievals in minute {round}, times {told}"
            );
        }
        assert_checked(&world, &life, 62 * SECOND).await;
        life.end().await;
    }
}
