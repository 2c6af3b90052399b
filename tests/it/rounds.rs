//! Rounds on the virtual clock: what is read from pages, what is retrieved, and what that costs.

use crate::simulation::{DAY, EPOCH, Life, MINUTE, World, account, answer, count, ids};
use batchd::clock::Clock;
use batchd::config::Polling;
use batchd::domain::event::EventType;
use batchd::domain::route::Routes;
use batchd::domain::sighting::Sighting;
use batchd::domain::time::{earlier, since};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::provider::{self, Listing, Page, PageRequest, Provider};
use batchd::rng::Rng;
use batchd::store::events::EventFilter;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// A question that the vendor was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Retrieve(String),
    Page,
}

type Status = dyn Fn(&str, Timestamp) -> &'static str + Send + Sync;
type Item = dyn Fn(&str, Value) -> Value + Send + Sync;
type Fault = dyn Fn(&Asked, Timestamp) -> Option<Result<Answer, Failure>> + Send + Sync;

/// A service with a list, whose every answer follows from the batch and the instant.
struct Vendor {
    clock: Clock,
    takes: Duration,
    /// Every batch there is, newest first.
    ids: Vec<String>,
    /// The status of a batch at an instant.
    status: Box<Status>,
    /// What becomes of an item of the list; `Null`: it is not shown.
    item: Box<Item>,
    /// What is answered instead, if anything is.
    fault: Box<Fault>,
    asked: Mutex<Vec<(Asked, Timestamp)>>,
}

impl Vendor {
    fn new(clock: &Clock, count: usize) -> Self {
        let mut ids: Vec<String> = ids(count).collect();
        ids.reverse();
        Self {
            clock: clock.clone(),
            takes: Duration::from_millis(100),
            ids,
            status: Box::new(|_, _| "in_progress"),
            item: Box::new(|_, item| item),
            fault: Box::new(|_, _| None),
            asked: Mutex::default(),
        }
    }

    fn with_status(
        mut self,
        status: impl Fn(&str, Timestamp) -> &'static str + Send + Sync + 'static,
    ) -> Self {
        self.status = Box::new(status);
        self
    }

    fn with_item(mut self, item: impl Fn(&str, Value) -> Value + Send + Sync + 'static) -> Self {
        self.item = Box::new(item);
        self
    }

    fn with_fault(
        mut self,
        fault: impl Fn(&Asked, Timestamp) -> Option<Result<Answer, Failure>> + Send + Sync + 'static,
    ) -> Self {
        self.fault = Box::new(fault);
        self
    }

    /// One was created every ten seconds before the world began.
    fn batch(&self, id: &str, now: Timestamp) -> Value {
        let number = self.ids.iter().rev().position(|other| other == id).unwrap();
        let age = 10 * i64::try_from(self.ids.len() - number).unwrap();
        let status = (self.status)(id, now);
        let done = if status == "completed" { 4 } else { 0 };
        let mut batch = json!({
            "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "status": status, "created_at": EPOCH.as_second() - age,
            "request_counts": {"total": 4, "completed": done, "failed": 0},
        });
        if status == "completed" {
            batch["output_file_id"] = json!(format!("file-{number}"));
        }
        batch
    }

    fn page(&self, query: &str, now: Timestamp) -> Answer {
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let limit: usize = value("limit").unwrap().parse().unwrap();
        let begin =
            value("after").map_or(0, |after| self.ids.iter().position(|id| *id == after).unwrap() + 1);
        let page: Vec<&String> = self.ids.iter().skip(begin).take(limit).collect();
        let items: Vec<Value> = page
            .iter()
            .map(|id| (self.item)(id, self.batch(id, now)))
            .filter(|item| !item.is_null())
            .collect();
        let more = begin + page.len() < self.ids.len();
        answer(200, &json!({"object": "list", "data": items, "has_more": more, "last_id": page.last()}))
    }

    fn asked(&self) -> Vec<(Asked, Timestamp)> {
        self.asked.lock().unwrap().clone()
    }

    /// Pages and retrievals so far.
    fn counts(&self) -> (usize, usize) {
        let asked = self.asked();
        let pages = asked.iter().filter(|(asked, _)| *asked == Asked::Page).count();
        (pages, asked.len() - pages)
    }

    /// Which batches were retrieved, each as often as it was.
    fn retrieved(&self) -> Vec<String> {
        let only = |(asked, _)| if let Asked::Retrieve(id) = asked { Some(id) } else { None };
        self.asked().into_iter().filter_map(only).collect()
    }

    fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

impl Transport for Vendor {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let uri = call.request.uri();
            let last = uri.path().rsplit('/').next().unwrap();
            let asked = if last == "batches" { Asked::Page } else { Asked::Retrieve(last.to_owned()) };
            self.asked.lock().unwrap().push((asked.clone(), self.clock.now()));
            tokio::time::sleep(self.takes).await;
            let now = self.clock.now();
            if let Some(instead) = (self.fault)(&asked, now) {
                return instead;
            }
            Ok(match &asked {
                Asked::Page => self.page(uri.query().unwrap(), now),
                Asked::Retrieve(id) if self.ids.contains(id) => answer(200, &self.batch(id, now)),
                Asked::Retrieve(_) => answer(404, &json!({"error": {"message": "no such batch"}})),
            })
        })
    }
}

fn every(interval: Duration) -> Polling {
    Polling { min_interval: interval, max_interval: interval, ..Polling::default() }
}

/// A world with one account `openai` at `vendor`, where all of its batches are tracked.
async fn watching(world: &World, vendor: &Arc<Vendor>, polling: Polling) -> Life {
    let life = world.live(&[("openai", vendor.clone() as _, polling)]).await;
    life.track("openai", vendor.ids.iter().rev().cloned(), world.clock.now()).await;
    life
}

/// Every batch has told its end, and once.
async fn assert_told_once(life: &Life, count: usize) {
    let events = life.store.events(EventFilter::default()).await.unwrap();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.into_iter().filter(|event| event.kind.as_str() == "batch.completed") {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        *ends.entry(body["data"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(ends.len(), count);
    assert!(ends.values().all(|times| *times == 1), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_batches_cost_about_ten_requests_a_round() {
    let world = World::new(31);
    let vendor = Arc::new(Vendor::new(&world.clock, 1000));
    let life = watching(&world, &vendor, every(MINUTE)).await;
    tokio::time::sleep(10 * SECOND).await;
    let (pages, retrieved) = vendor.counts();
    assert!(pages <= 12 && retrieved == 0, "the first look took {pages} pages and {retrieved} retrievals");
    vendor.forget();
    tokio::time::sleep(HOUR / 2).await;
    let (pages, retrieved) = vendor.counts();
    let most = 20 * 30 * 5 / 4;
    assert!(pages + retrieved <= most, "{pages} pages and {retrieved} retrievals in half an hour");
    let unseen = life.told().await.iter().filter(|kind| kind.as_str() == "batch.in_progress").count();
    assert_eq!(unseen, 1000);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_batches_at_their_own_pace_cost_about_a_hundred_requests_a_round() {
    let world = World::new(32);
    let vendor = Arc::new(Vendor::new(&world.clock, 10_000));
    let life = watching(&world, &vendor, Polling { min_interval: MINUTE, ..Polling::default() }).await;
    tokio::time::sleep(3 * MINUTE).await;
    let (pages, retrieved) = vendor.counts();
    // No batch is looked at more often than once a minute: three rounds and the first.
    assert!(pages + retrieved <= 4 * 150, "{pages} pages and {retrieved} retrievals in three minutes");
    assert_eq!(count(&life.told().await, "batch.in_progress"), 10_000);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_retrieved_and_so_are_few_that_lie_deep() {
    let world = World::new(33);
    let vendor = Arc::new(Vendor::new(&world.clock, 3000));
    let life = world.live(&[("openai", vendor.clone() as _, every(MINUTE))]).await;
    // Five of the oldest, looked at by hand when they were tracked.
    life.track("openai", ids(5), world.clock.now()).await;
    tokio::time::sleep(HOUR).await;
    let (pages, retrieved) = vendor.counts();
    // Six pages more are read once, to learn from what the account has had before.
    assert!(pages <= 4 + 6 && retrieved >= 5 * 55, "{pages} pages and {retrieved} retrievals");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_page_should_show_and_does_not_is_retrieved_and_never_lost_from_a_list() {
    let world = World::new(34);
    let hidden: BTreeSet<String> = ids(300).step_by(60).collect();
    let hides = hidden.clone();
    let vendor = Vendor::new(&world.clock, 300)
        .with_item(move |id, item| if hides.contains(id) { Value::Null } else { item })
        .with_status(|_, now| if since(EPOCH, now) < HOUR { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let life = watching(&world, &vendor, every(MINUTE)).await;
    tokio::time::sleep(55 * MINUTE).await;
    let retrieved: BTreeSet<String> = vendor.retrieved().into_iter().collect();
    assert_eq!(retrieved, hidden);
    let (pages, _) = vendor.counts();
    assert!(pages <= 4 * 60, "{pages} pages in an hour");
    tokio::time::sleep(10 * MINUTE).await;
    assert_told_once(&life, 300).await;
    assert_eq!(count(&life.told().await, "batch.lost"), 0);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_list_hid_for_a_while_is_read_from_it_again() {
    let world = World::new(35);
    let clock = world.clock.clone();
    let vendor = Vendor::new(&world.clock, 200)
        .with_item(move |_, item| if since(EPOCH, clock.now()) < MINUTE { Value::Null } else { item });
    let vendor = Arc::new(vendor);
    let life = watching(&world, &vendor, every(MINUTE)).await;
    tokio::time::sleep(5 * MINUTE).await;
    assert!(vendor.counts().1 >= 4 * 200, "an empty list says nothing of anybody");
    tokio::time::sleep(HOUR).await;
    vendor.forget();
    tokio::time::sleep(20 * MINUTE).await;
    let (pages, retrieved) = vendor.counts();
    assert!(pages >= 30 && retrieved <= 20, "{pages} pages and {retrieved} retrievals");
    assert_eq!(count(&life.told().await, "batch.in_progress"), 200);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_item_costs_nobody_else_the_page() {
    let world = World::new(36);
    let poisoned: Vec<String> = ids(100).step_by(20).collect();
    let poison = poisoned.clone();
    let vendor = Vendor::new(&world.clock, 100)
        .with_item(move |id, item| match poison.iter().position(|other| other == id) {
            Some(0) => json!("not an object"),
            Some(1) => json!({"id": id}),
            Some(2) => json!({"id": {"id": [id]}, "status": 7, "created_at": [], "request_counts": "many"}),
            Some(3) => json!({"id": id, "status": {"state": null}, "created_at": "soon"}),
            Some(_) => json!([item]),
            None => item,
        })
        .with_status(|_, now| if since(EPOCH, now) < 10 * MINUTE { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let life = watching(&world, &vendor, every(MINUTE)).await;
    tokio::time::sleep(12 * MINUTE).await;
    let retrieved: BTreeSet<String> = vendor.retrieved().into_iter().collect();
    assert_eq!(retrieved, poisoned.into_iter().collect());
    assert_told_once(&life, 100).await;
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_left_alone_for_a_while_and_then_read_again() {
    for status in [500_u16, 404, 403] {
        let world = World::new(37);
        let vendor = Vendor::new(&world.clock, 100).with_fault(move |asked, now| {
            let down = *asked == Asked::Page && since(EPOCH, now) < 10 * MINUTE;
            down.then(|| Ok(answer(status, &json!({"error": {"message": "no"}}))))
        });
        let vendor = Arc::new(vendor);
        let life = watching(&world, &vendor, every(MINUTE)).await;
        tokio::time::sleep(9 * MINUTE).await;
        let (pages, retrieved) = vendor.counts();
        assert!(pages <= 10, "{pages} pages of a list that answers {status}");
        assert!(retrieved >= 8 * 100, "only {retrieved} retrievals in nine minutes");
        tokio::time::sleep(2 * HOUR).await;
        vendor.forget();
        tokio::time::sleep(20 * MINUTE).await;
        let (pages, retrieved) = vendor.counts();
        assert!((15..=30).contains(&pages) && retrieved <= 20, "{pages} pages and {retrieved} retrievals");
        let told = life.told().await;
        // A key that may not list is good enough for everything else.
        assert_eq!(count(&told, "provider.unauthorized") + count(&told, "provider.unreachable"), 0);
        life.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_after_a_suspended_week_is_caught_up_from_pages_within_the_ceiling() {
    let world = World::new(38);
    let vendor = Vendor::new(&world.clock, 2000)
        .with_status(|_, now| if since(EPOCH, now) < DAY { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let polling = Polling { requests_per_minute: Some(30), concurrency: 4, ..Polling::default() };
    let life = watching(&world, &vendor, polling).await;
    tokio::time::sleep(3 * MINUTE).await;
    life.end().await;
    tokio::time::sleep(7 * DAY).await;
    vendor.forget();
    let life = world.live(&[("openai", vendor.clone() as _, polling)]).await;
    tokio::time::sleep(MINUTE).await;
    let asked = vendor.asked();
    assert!(asked.len() <= 31, "{} requests in the first minute", asked.len());
    let together =
        |at: &Timestamp| asked.iter().filter(|(_, other)| since(*at, *other) < SECOND && other >= at).count();
    assert!(asked.iter().all(|(_, at)| together(at) <= 4), "no burst");
    assert_told_once(&life, 2000).await;
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_round_holds_up_neither_what_is_asked_by_hand_nor_what_no_page_shows() {
    let world = World::new(39);
    let hidden = ids(1).next().unwrap();
    let hides = hidden.clone();
    let mut vendor = Vendor::new(&world.clock, 1000)
        .with_item(move |id, item| if id == hides { Value::Null } else { item });
    vendor.takes = 20 * SECOND;
    let vendor = Arc::new(vendor);
    // One slot: whoever waits for it gets his turn.
    let polling = Polling { concurrency: 1, ..every(MINUTE) };
    let life = watching(&world, &vendor, polling).await;
    tokio::time::sleep(10 * MINUTE).await;
    vendor.forget();
    let (pk, _) = life.batch(&ids(1000).last().unwrap()).await;
    let asked = world.clock.now();
    life.engine.poll_now("openai", pk).await.unwrap();
    assert!(since(asked, world.clock.now()) <= 45 * SECOND);
    tokio::time::sleep(20 * MINUTE).await;
    let looks = vendor.retrieved().into_iter().filter(|id| *id == hidden).count();
    assert!(looks >= 8, "the batch that no page shows was looked at {looks} times in twenty minutes");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_headers_say_is_left_is_never_overdrawn() {
    let world = World::new(40);
    // Twenty a minute, in windows of a minute, and whoever asks for more is told so.
    let used: Mutex<(u64, u32)> = Mutex::default();
    let refused = Arc::new(Mutex::new(0));
    let refusals = refused.clone();
    let vendor = Vendor::new(&world.clock, 60)
        // Only retrievals, to make it hard.
        .with_fault(move |asked, now| {
            let (window, into) = (since(EPOCH, now).as_secs() / 60, since(EPOCH, now).as_secs() % 60);
            let mut used = used.lock().unwrap();
            if used.0 != window {
                *used = (window, 0);
            }
            used.1 += 1;
            if used.1 > 20 {
                *refusals.lock().unwrap() += 1;
                return Some(Ok(answer(429, &json!({}))));
            }
            let Asked::Retrieve(id) = asked else { return Some(Ok(answer(404, &json!({})))) };
            let mut answer = answer(200, &json!({"id": id, "status": "in_progress", "created_at": 1}));
            for (name, value) in [
                ("limit", 20.to_string()),
                ("remaining", (20 - used.1).to_string()),
                ("reset", format!("{}s", 60 - into)),
            ] {
                let name = http::HeaderName::try_from(format!("x-ratelimit-{name}-requests")).unwrap();
                answer.headers.insert(name, HeaderValue::try_from(value).unwrap());
            }
            Some(Ok(answer))
        });
    let vendor = Arc::new(vendor);
    // The first answer tells the limit: not more than that may be on their way before it.
    let life = watching(&world, &vendor, Polling { concurrency: 4, ..every(MINUTE) }).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(*refused.lock().unwrap(), 0);
    let (_, retrieved) = vendor.counts();
    assert!(retrieved >= 60 * 18, "{retrieved} looks in an hour of twenty a minute");
    life.end().await;
}

/// A week of faults of every kind, at the list and at each batch; some are on no page; a restart in between.
async fn week(seed: u64) -> Vec<(String, String, EventType)> {
    const BATCHES: usize = 120;
    let world = World::new(seed);
    let rng = Rng::seeded(seed);
    let chance = move |what: &str, at: Timestamp| rng.jitter_of(what, at);
    let (life_of, hides, faults) = (chance.clone(), chance.clone(), chance);
    let clock = world.clock.clone();
    let vendor = Vendor::new(&world.clock, BATCHES)
        .with_status(move |id, now| {
            let lives = Duration::from_secs_f64(60.0 * 1440_f64.powf(life_of(id, EPOCH)));
            match since(EPOCH, now).as_secs_f64() / lives.as_secs_f64() {
                part if part >= 1.0 => "completed",
                part if part >= 0.9 => "finalizing",
                part if part >= 0.1 => "in_progress",
                _ => "validating",
            }
        })
        .with_item(move |id, mut item| match hides(id, earlier(EPOCH, DAY)) {
            // Never shown, shown now and then, and shown later than it is.
            chance if chance < 0.05 => Value::Null,
            chance if chance < 0.1 && hides(id, clock.now()) < 0.5 => Value::Null,
            chance if chance < 0.2 && item["status"] == "completed" && hides(id, clock.now()) < 0.8 => {
                item["status"] = json!("in_progress");
                item
            }
            _ => item,
        })
        .with_fault(move |asked, now| {
            let what = format!("{asked:?}");
            let chance = faults(&what, now);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number from 0 to 7"
            )]
            match (chance * 5.0 * 6.0) as u32 {
                0 => Some(Err(Failure::Reset)),
                1 => Some(Ok(answer(502, &json!("<html>")))),
                2 => Some(Ok(answer(200, &json!({"error": {"message": "try later"}})))),
                3 => {
                    let mut slow = answer(429, &json!({}));
                    slow.headers.insert("retry-after", HeaderValue::from_static("20"));
                    Some(Ok(slow))
                }
                4 => Some(Ok(answer(404, &json!({"error": {"message": "no such batch"}})))),
                5 => Some(Ok(answer(200, &json!({"data": [], "has_more": false})))),
                _ => None,
            }
        });
    let vendor = Arc::new(vendor);
    let polling = Polling { concurrency: 3, ..Polling::default() };
    let life = watching(&world, &vendor, polling).await;
    tokio::time::sleep(8 * HOUR).await;
    life.end().await;
    let life = world.live(&[("openai", vendor.clone() as _, polling)]).await;
    tokio::time::sleep(6 * DAY).await;
    assert_told_once(&life, BATCHES).await;
    let (pages, retrieved) = vendor.counts();
    assert!(pages > 100 && retrieved > 100, "{pages} pages and {retrieved} retrievals: both ways were gone");
    let log = life.log().await;
    life.end().await;
    log
}

#[tokio::test(start_paused = true)]
async fn no_end_is_lost_or_told_twice_whichever_way_it_is_seen() {
    for seed in 50..53 {
        week(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_rounds() {
    let first = week(60).await;
    assert_eq!(first, week(60).await);
    assert_ne!(first, week(61).await);
}

#[tokio::test(start_paused = true)]
async fn what_a_short_item_shows_changed_is_retrieved_before_it_is_told() {
    let world = World::new(41);
    let vendor = Vendor::new(&world.clock, 50)
        .with_item(|id, item| json!({"id": id, "status": item["status"], "created_at": item["created_at"]}))
        .with_status(|_, now| if since(EPOCH, now) < 10 * MINUTE { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let life = world.live(&[]).await;
    let mut short = account("openai", vendor.clone(), every(MINUTE));
    short.config.kind = "openai-compatible".to_owned();
    let kind = provider::registry::kind("openai-compatible").unwrap();
    short.adapter = (kind.build)(&provider::Account::new(&short.config, None));
    assert!(!short.adapter.listing().unwrap().complete);
    life.engine.apply(vec![short], Routes::default()).await.unwrap();
    life.track("openai", vendor.ids.iter().cloned(), world.clock.now()).await;
    tokio::time::sleep(20 * MINUTE).await;
    assert_told_once(&life, 50).await;
    for id in &vendor.ids {
        let (_, tracked) = life.batch(id).await;
        assert!(tracked.batch.output_file_id.is_some() && tracked.settled, "{tracked:?}");
        assert_eq!(tracked.outcome().unwrap().as_str(), "succeeded");
    }
    let (pages, retrieved) = vendor.counts();
    // Once when first seen, once when it had ended.
    assert!(pages >= 8 && retrieved <= 2 * 50 + 10, "{pages} pages and {retrieved} retrievals");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_a_page_shows_half_is_held_and_looked_at_closely() {
    let world = World::new(42);
    let vendor = Vendor::new(&world.clock, 20)
        .with_item(|_, mut item| {
            item["output_file_id"] = Value::Null;
            item
        })
        .with_status(|_, now| if since(EPOCH, now) < 10 * MINUTE { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let life = watching(&world, &vendor, every(MINUTE)).await;
    tokio::time::sleep(15 * MINUTE).await;
    assert_told_once(&life, 20).await;
    for id in &vendor.ids {
        let (pk, tracked) = life.batch(id).await;
        assert!(tracked.batch.output_file_id.is_some() && tracked.settled && tracked.next_poll_at.is_none());
        let words: Vec<&str> =
            life.store.transitions(pk).await.unwrap().iter().map(|change| change.to.as_str()).collect();
        assert_eq!(words, ["in_progress", "finalizing", "completed"]);
    }
    life.end().await;
}

/// OpenAI's adapter, as if the service could give batches by their ids, like Groq.
#[derive(Debug)]
struct ById(Box<dyn Provider>);

impl Provider for ById {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.0.retrieve(id)
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        self.0.retrieved(id, answer)
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing { by_id: 30, ..Listing::pages(20) })
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let mut call = self.0.list(page)?;
        let uri = format!("{}&ids={}", call.request.uri(), page.ids.join(","));
        *call.request.uri_mut() = uri.parse().unwrap();
        Ok(call)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        self.0.listed(page, answer)
    }

    fn default_endpoint(&self) -> &'static str {
        self.0.default_endpoint()
    }

    fn console_url(&self, id: &str) -> Option<String> {
        self.0.console_url(id)
    }
}

/// Gives batches by their ids only.
struct GivesById(Arc<Vendor>);

impl Transport for GivesById {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let query = call.request.uri().query().unwrap_or_default().to_owned();
            let Some((_, ids)) = query.split_once("&ids=") else { return self.0.send(call).await };
            self.0.asked.lock().unwrap().push((Asked::Page, self.0.clock.now()));
            tokio::time::sleep(self.0.takes).await;
            let now = self.0.clock.now();
            let items: Vec<Value> = ids
                .split(',')
                .map(|id| (self.0.item)(id, self.0.batch(id, now)))
                .filter(|item| !item.is_null())
                .collect();
            assert!(items.len() <= 30);
            Ok(answer(200, &json!({"data": items})))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn where_batches_can_be_had_by_their_ids_they_are() {
    let world = World::new(43);
    let hidden = ids(1).next().unwrap();
    let hides = hidden.clone();
    let vendor = Vendor::new(&world.clock, 5000)
        .with_item(move |id, item| if id == hides { Value::Null } else { item })
        .with_status(|_, now| if since(EPOCH, now) < 10 * MINUTE { "in_progress" } else { "completed" });
    let vendor = Arc::new(vendor);
    let life = world.live(&[]).await;
    let mut by_id = account("openai", Arc::new(GivesById(vendor.clone())), every(MINUTE));
    by_id.adapter = Box::new(ById(by_id.adapter));
    life.engine.apply(vec![by_id], Routes::default()).await.unwrap();
    // The oldest: no page would be worth it.
    life.track("openai", ids(90), world.clock.now()).await;
    tokio::time::sleep(9 * MINUTE).await;
    let (pages, retrieved) = vendor.counts();
    assert!((27..=40).contains(&pages), "{pages} requests for ninety batches nine times");
    assert!(vendor.retrieved().iter().all(|id| *id == hidden) && retrieved >= 8, "{retrieved} retrievals");
    tokio::time::sleep(3 * MINUTE).await;
    assert_told_once(&life, 90).await;
    life.end().await;
}

/// Mistral's jobs: the list can be had of live ones alone.
struct Mistral {
    clock: Clock,
    asked: Mutex<Vec<String>>,
}

const JOBS: usize = 3000;

impl Mistral {
    fn job(number: usize, now: Timestamp) -> Value {
        // Every hundredth runs for an hour, all others have ended.
        let runs = number.is_multiple_of(100) && since(EPOCH, now) < HOUR;
        let created_at = EPOCH.as_second() - 10 * i64::try_from(number).unwrap();
        json!({
            "id": Self::id(number), "object": "batch", "status": if runs { "RUNNING" } else { "SUCCESS" },
            "created_at": created_at, "endpoint": "/v1/chat/completions",
            "total_requests": 4, "succeeded_requests": if runs { 0 } else { 4 }, "failed_requests": 0,
            "output_file": if runs { Value::Null } else { json!("file") },
        })
    }

    fn id(number: usize) -> String {
        format!("3f1e2d4c-5b6a-4978-8899-{number:012x}")
    }
}

impl Transport for Mistral {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let uri = call.request.uri().clone();
            self.asked.lock().unwrap().push(uri.to_string());
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.clock.now();
            let last = uri.path().rsplit('/').next().unwrap();
            if last != "jobs" {
                let number = usize::from_str_radix(last.rsplit('-').next().unwrap(), 16).unwrap();
                return Ok(answer(200, &Self::job(number, now)));
            }
            let query = uri.query().unwrap();
            let page: usize =
                query.split('&').find_map(|pair| pair.strip_prefix("page=")).unwrap().parse().unwrap();
            let live = query.contains("status=RUNNING");
            let jobs: Vec<Value> = (0..JOBS)
                .map(|number| Self::job(number, now))
                .filter(|job| !live || job["status"] == "RUNNING")
                .collect();
            let data: Vec<&Value> = jobs.iter().skip(page * 100).take(100).collect();
            Ok(answer(200, &json!({"object": "list", "data": data, "total": jobs.len()})))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn few_live_ones_among_many_that_ended_are_read_from_the_live_ones_alone() {
    let world = World::new(44);
    let mistral = Arc::new(Mistral { clock: world.clock.clone(), asked: Mutex::default() });
    let life = world.live(&[]).await;
    let mut jobs = account("openai", mistral.clone(), every(MINUTE));
    jobs.config.kind = "mistral".to_owned();
    let kind = provider::registry::kind("mistral").unwrap();
    jobs.adapter = (kind.build)(&provider::Account::new(&jobs.config, None));
    life.engine.apply(vec![jobs], Routes::default()).await.unwrap();
    let running = (0..JOBS).step_by(100).map(Mistral::id);
    life.track("openai", running, world.clock.now()).await;
    tokio::time::sleep(5 * MINUTE).await;
    mistral.asked.lock().unwrap().clear();
    tokio::time::sleep(HOUR / 2).await;
    let asked = mistral.asked.lock().unwrap().clone();
    assert!(asked.len() <= 45, "{} requests in half an hour", asked.len());
    assert!(asked.iter().all(|uri| uri.contains("status=RUNNING")), "{asked:?}");
    tokio::time::sleep(HOUR / 2).await;
    assert_told_once(&life, JOBS / 100).await;
    life.end().await;
}
