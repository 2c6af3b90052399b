//! Rounds over long lists on the virtual clock: pages that are read at the same time, what that costs, and what happens
//! where a list changes meanwhile or its service does not know the places.

use crate::simulation::{EPOCH, Life, MINUTE, World, answer, count, ids};
use batchd::clock::Clock;
use batchd::config::Polling;
use batchd::domain::time::{later, since};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::rng::Rng;
use batchd::store::events::EventFilter;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(15);
/// How long the service takes for a page.
const TAKES: Duration = Duration::from_millis(400);
const PAGE: usize = 100;

/// What the service does with an `after` that it has not told lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    Begins,
    Refuses(u16),
    BeginsAnew,
    ShowsNothing,
}

/// A service whose list changes.
struct Shelf {
    clock: Clock,
    elsewhere: Elsewhere,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// What the list shows, newest first.
    listed: Vec<String>,
    /// When each batch was created, Unix seconds; also of those that the list has lost.
    created_at: BTreeMap<String, i64>,
    /// When each ends.
    ends: BTreeMap<String, Timestamp>,
    /// Behind which batch a page ended, and when.
    told: BTreeMap<String, Timestamp>,
    /// When each request began and ended, and whether it was for a page.
    asked: Vec<(Timestamp, Timestamp, bool)>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Shelf {
    /// With `count` batches, one of which was created every so many seconds.
    fn new(clock: &Clock, count: usize, apart: i64, elsewhere: Elsewhere) -> Arc<Self> {
        let shelf = Self { clock: clock.clone(), elsewhere, held: Mutex::default() };
        for (number, id) in ids(count).enumerate() {
            let before = apart * i64::try_from(count - number).unwrap();
            shelf.add(&id, EPOCH.as_second() - before);
        }
        Arc::new(shelf)
    }

    fn add(&self, id: &str, created_at: i64) {
        let mut held = self.held.lock().unwrap();
        held.listed.insert(0, id.to_owned());
        held.created_at.insert(id.to_owned(), created_at);
    }

    fn end(&self, id: &str, at: Timestamp) {
        self.held.lock().unwrap().ends.insert(id.to_owned(), at);
    }

    /// The list shows it no more.
    fn hide(&self, id: &str) {
        self.held.lock().unwrap().listed.retain(|other| other != id);
    }

    /// Pages and retrievals that have begun since `from`.
    fn counts(&self, from: Timestamp) -> (usize, usize) {
        let held = self.held.lock().unwrap();
        let asked = held.asked.iter().filter(|(begun, ..)| *begun >= from);
        let pages = asked.clone().filter(|(.., is_page)| *is_page).count();
        (pages, asked.count() - pages)
    }

    /// How long each round has taken that began after `from`: pages between which less than a second passes.
    fn rounds(&self, from: Timestamp) -> Vec<Duration> {
        let held = self.held.lock().unwrap();
        let mut rounds: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (begun, ended, is_page) in &held.asked {
            match rounds.last_mut() {
                _ if !is_page || *begun < from => {}
                Some((_, end)) if since(*end, *begun) < SECOND => *end = (*end).max(*ended),
                _ => rounds.push((*begun, *ended)),
            }
        }
        rounds.into_iter().map(|(begun, ended)| since(begun, ended)).collect()
    }
}

impl Held {
    fn batch(&self, id: &str, now: Timestamp) -> Value {
        let status =
            if self.ends.get(id).is_some_and(|end| *end <= now) { "completed" } else { "in_progress" };
        json!({
            "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1", "completion_window": "24h",
            "status": status, "created_at": self.created_at[id], "output_file_id": (status == "completed").then_some("file-2"),
            "request_counts": {"total": 4, "completed": if status == "completed" { 4 } else { 0 }, "failed": 0},
        })
    }

    /// Whether a page has told this place within the last seconds.
    fn is_told(&self, after: Option<&str>, now: Timestamp) -> bool {
        after.is_none_or(|after| self.told.get(after).is_some_and(|at| since(*at, now) < 5 * SECOND))
    }

    fn page(&mut self, after: Option<&str>, is_told: bool, elsewhere: Elsewhere, now: Timestamp) -> Answer {
        let place = after.and_then(|after| self.listed.iter().position(|id| id == after));
        let begin = match (after, place) {
            (None, _) => 0,
            (Some(_), Some(place)) if is_told || elsewhere == Elsewhere::Begins => place + 1,
            _ => match elsewhere {
                Elsewhere::Begins => return refused(404),
                Elsewhere::Refuses(status) => return refused(status),
                Elsewhere::BeginsAnew => 0,
                Elsewhere::ShowsNothing => self.listed.len(),
            },
        };
        let page: Vec<String> = self.listed.iter().skip(begin).take(PAGE).cloned().collect();
        let items: Vec<Value> = page.iter().map(|id| self.batch(id, now)).collect();
        let more = begin + page.len() < self.listed.len();
        self.told.extend(page.last().map(|last| (last.clone(), now)));
        answer(200, &json!({"object": "list", "data": items, "has_more": more, "last_id": page.last()}))
    }
}

fn refused(status: u16) -> Answer {
    answer(status, &json!({"error": {"message": "no such batch to begin behind"}}))
}

impl Transport for Shelf {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let uri = call.request.uri();
            let last = uri.path().rsplit('/').next().unwrap();
            let after =
                uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("after=")));
            let begun = self.clock.now();
            let is_told = {
                let mut held = self.held.lock().unwrap();
                held.in_flight += 1;
                held.most_in_flight = held.most_in_flight.max(held.in_flight);
                held.is_told(after, begun)
            };
            tokio::time::sleep(TAKES).await;
            let now = self.clock.now();
            let mut held = self.held.lock().unwrap();
            held.in_flight -= 1;
            held.asked.push((begun, now, last == "batches"));
            Ok(match last {
                "batches" => held.page(after, is_told, self.elsewhere, now),
                id if held.created_at.contains_key(id) => answer(200, &held.batch(id, now)),
                _ => answer(404, &json!({"error": {"message": "no such batch"}})),
            })
        })
    }
}

fn polling() -> Polling {
    Polling { min_interval: INTERVAL, max_interval: INTERVAL, ..Polling::default() }
}

async fn watching(world: &World, shelf: &Arc<Shelf>, polling: Polling) -> Life {
    let life = world.live(&[("openai", shelf.clone() as _, polling)]).await;
    let ids: Vec<String> = shelf.held.lock().unwrap().listed.iter().rev().cloned().collect();
    life.track("openai", ids.into_iter(), world.clock.now()).await;
    life
}

/// How long after its end each batch was seen to have ended, shortest first; each of them once.
async fn lags(life: &Life, shelf: &Shelf) -> Vec<Duration> {
    let events = life.store.events(EventFilter::default()).await.unwrap();
    let held = shelf.held.lock().unwrap();
    let mut lags = BTreeMap::new();
    for event in events.into_iter().filter(|event| event.kind.as_str() == "batch.completed") {
        let body: Value = serde_json::from_str(&event.body).unwrap();
        let id = body["data"]["id"].as_str().unwrap().to_owned();
        let seen: Timestamp = body["data"]["observed_at"].as_str().unwrap().parse().unwrap();
        let end = held.ends[&id];
        assert_eq!(lags.insert(id, since(end, seen)), None, "told once");
    }
    let mut lags: Vec<Duration> = lags.into_values().collect();
    lags.sort_unstable();
    lags
}

#[tokio::test(start_paused = true)]
async fn a_round_over_ten_thousand_batches_takes_a_few_pages_time() {
    let world = World::new(71);
    let shelf = Shelf::new(&world.clock, 10_000, 7, Elsewhere::Begins);
    let life = watching(&world, &shelf, polling()).await;
    // The first round has to find the places: it takes 40 s.
    tokio::time::sleep(MINUTE).await;
    let from = world.clock.now();
    for (number, id) in ids(10_000).enumerate().filter(|(number, _)| number % 7 == 0) {
        shelf.end(&id, later(from, Duration::from_millis(7 * number as u64)));
    }
    tokio::time::sleep(2 * MINUTE).await;
    let rounds = shelf.rounds(from);
    let (pages, retrieved) = shelf.counts(from);
    assert!(rounds.len() >= 5, "{rounds:?}");
    assert!(rounds.iter().all(|took| *took <= 8 * SECOND), "{rounds:?}");
    assert!(
        pages + retrieved <= 130 * rounds.len(),
        "{pages} pages, {retrieved} retrievals, {} rounds",
        rounds.len()
    );
    let lags = lags(&life, &shelf).await;
    assert_eq!(lags.len(), 10_000_usize.div_ceil(7));
    let p99 = lags[lags.len() * 99 / 100];
    assert!(p99 <= 25 * SECOND, "{p99:?} from an end to its being seen");
    let most = Polling::default().concurrency as usize;
    assert!(shelf.held.lock().unwrap().most_in_flight <= most);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_where_batches_come_and_go_between_pages() {
    for seed in 0..3 {
        let world = World::new(seed);
        let rng = Rng::seeded(seed);
        let shelf = Shelf::new(&world.clock, 1500, 7, Elsewhere::Begins);
        let life = watching(&world, &shelf, polling()).await;
        tokio::time::sleep(MINUTE).await;
        let from = world.clock.now();
        let mut watched: Vec<String> = ids(1500).collect();
        for number in 0..300_usize {
            let now = world.clock.now();
            let draw = |what: &str| rng.jitter_of(what, now);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place among them"
            )]
            let some = |what: &str, count: usize| (draw(what) * count as f64) as usize % count;
            // A new batch, every other one of which is somebody else's.
            let id = format!("batch_new_{number:016}");
            shelf.add(&id, now.as_second());
            if number % 2 == 0 {
                life.track("openai", std::iter::once(id.clone()), now).await;
                watched.push(id);
            }
            // One ends, and one that may be a place where pages begin is gone from the list.
            let ending = watched[some("ending", watched.len())].clone();
            shelf.held.lock().unwrap().ends.entry(ending).or_insert(now);
            let hidden = {
                let held = shelf.held.lock().unwrap();
                let place = some("hidden", held.listed.len() / PAGE) * PAGE + PAGE - 1;
                held.listed[place].clone()
            };
            if number % 5 == 0 {
                shelf.hide(&hidden);
            }
            tokio::time::sleep(Duration::from_millis(470)).await;
        }
        tokio::time::sleep(MINUTE).await;
        let ended = shelf.held.lock().unwrap().ends.len();
        let lags = lags(&life, &shelf).await;
        assert_eq!(lags.len(), ended, "seed {seed}");
        let told = life.told().await;
        assert_eq!(count(&told, "batch.lost"), 0);
        let rounds = shelf.rounds(from).len();
        let (pages, retrieved) = shelf.counts(from);
        // Sixty batches are on no page any more, and each is retrieved every time; the rest is the pages that are full.
        assert!(
            pages <= 40 * rounds && retrieved <= 90 * 15,
            "{pages} pages, {retrieved} retrievals, {rounds} rounds"
        );
        life.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_ceiling_and_the_concurrency_are_kept() {
    let world = World::new(72);
    let shelf = Shelf::new(&world.clock, 3000, 7, Elsewhere::Begins);
    let ceiling = Polling { requests_per_minute: Some(60), concurrency: 5, ..polling() };
    let life = watching(&world, &shelf, ceiling).await;
    tokio::time::sleep(10 * MINUTE).await;
    {
        let held = shelf.held.lock().unwrap();
        assert!(held.asked.len() >= 9 * 60, "{} requests in ten minutes of sixty each", held.asked.len());
        for (at, ..) in &held.asked {
            let within =
                held.asked.iter().filter(|(other, ..)| other >= at && since(*at, *other) < MINUTE).count();
            assert!(within <= 61, "{within} requests in the minute from {at}");
        }
        assert!(held.most_in_flight <= 5, "{} requests at once", held.most_in_flight);
    }
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_know_the_places_is_read_one_page_after_another() {
    for elsewhere in
        [Elsewhere::Refuses(404), Elsewhere::Refuses(400), Elsewhere::BeginsAnew, Elsewhere::ShowsNothing]
    {
        let world = World::new(73);
        let shelf = Shelf::new(&world.clock, 1000, 7, elsewhere);
        let life = watching(&world, &shelf, polling()).await;
        tokio::time::sleep(MINUTE).await;
        let from = world.clock.now();
        for (number, id) in ids(1000).enumerate() {
            shelf.end(&id, later(from, SECOND * u32::try_from(number / 4).unwrap()));
        }
        tokio::time::sleep(6 * MINUTE).await;
        let lags = lags(&life, &shelf).await;
        assert_eq!(lags.len(), 1000, "{elsewhere:?}");
        let (pages, retrieved) = shelf.counts(from);
        let rounds = shelf.rounds(from).len();
        assert!(
            pages <= 16 * rounds && retrieved <= 30,
            "{elsewhere:?}: {pages} pages, {retrieved} retrievals, {rounds} rounds"
        );
        life.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_batches_of_one_second_cost_at_most_sixty_requests_a_round() {
    let world = World::new(74);
    let shelf = Shelf::new(&world.clock, 5000, 0, Elsewhere::Begins);
    let life = watching(&world, &shelf, polling()).await;
    tokio::time::sleep(2 * MINUTE).await;
    let from = world.clock.now();
    tokio::time::sleep(5 * MINUTE).await;
    let (pages, retrieved) = shelf.counts(from);
    let rounds = shelf.rounds(from).len();
    assert!(rounds >= 12, "{rounds} rounds");
    assert!(pages + retrieved <= 60 * rounds, "{pages} pages, {retrieved} retrievals, {rounds} rounds");
    life.end().await;
}
