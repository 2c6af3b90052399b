//! The dispatcher over a real store, on a virtual clock; numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::deliver::webhook_config;
use crate::transport::{in_a_process_with, inside};
use batchd::clock::Clock;
use batchd::config::WebhookConfig;
use batchd::domain::event::{Draft, EventType};
use batchd::domain::outcome::Severity;
use batchd::domain::route::{Route, Routes};
use batchd::domain::time::{earlier, later, since};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::scrub::Scrubber;
use batchd::http::transport::Transport;
use batchd::notify::{Destination, Dispatcher};
use batchd::rng::Rng;
use batchd::store::Store;
use batchd::store::outbox::{Delivery, DeliveryFilter, DeliveryState, Trigger};
use batchd::tasks::Tasks;
use batchd::webhook::{DeliveryOutcome, EventBody, Target};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const EPOCH: Timestamp = Timestamp::constant(1_795_000_000, 0);
const KIND: EventType = EventType::ProviderRecovered;

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16, &'static str),
    /// 429 with this `retry-after`.
    Later(&'static str),
    Fail(Failure),
    /// Answers after a while.
    After(Duration, u16),
    /// Never answers.
    Hang,
    Panic,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Timestamp,
    pub host: String,
    pub id: String,
    pub timestamp: String,
    pub body: String,
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// Receivers at the end of a wire that is not there: what they do is a function of the request and its number.
pub struct Wire {
    clock: Clock,
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
}

impl Wire {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Seconds since the epoch at which requests came, rounded.
    pub fn times(&self) -> Vec<u64> {
        self.seen()
            .iter()
            .map(|seen| since(EPOCH, seen.at).as_millis())
            .map(|ms| u64::try_from(ms).unwrap() / 1000)
            .collect()
    }
}

impl Transport for Wire {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        let header = |name: &str| {
            call.request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        let seen = Seen {
            at: self.clock.now(),
            host: call.request.uri().host().unwrap().to_owned(),
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            body: String::from_utf8(call.request.body().to_vec()).unwrap(),
        };
        let number = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.iter().filter(|other| other.host == seen.host).count()
        };
        let reply = (self.script)(&seen, number);
        Box::pin(async move {
            let answer = |status, body: &'static str| Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::from_static(body.as_bytes()),
                cut: false,
            };
            match reply {
                Reply::Status(status, body) => Ok(answer(status, body)),
                Reply::Later(wish) => {
                    let mut answer = answer(429, "");
                    answer.headers.insert("retry-after", HeaderValue::from_static(wish));
                    Ok(answer)
                }
                Reply::Fail(failure) => Err(failure),
                Reply::After(wait, status) => {
                    sleep(wait).await;
                    Ok(answer(status, ""))
                }
                Reply::Hang => std::future::pending().await,
                Reply::Panic => panic!("a defect of ours"),
            }
        })
    }
}

/// A daemon's lower half: store, dispatcher, and a wire.
pub struct World {
    pub clock: Clock,
    pub store: Store,
    pub dispatcher: Dispatcher,
    pub wire: Arc<Wire>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub supervision: Tasks,
    pub names: Vec<String>,
}

impl World {
    pub fn open(
        dir: &Path,
        clock: &Clock,
        script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let store = Store::open(dir, clock.clone()).unwrap();
        let supervision = Tasks::new(clock.clone());
        Self {
            clock: clock.clone(),
            dispatcher: Dispatcher::new(store.clone(), clock.clone(), Rng::seeded(7), supervision.clone()),
            store,
            wire: Arc::new(Wire { clock: clock.clone(), seen: Mutex::default(), script: Box::new(script) }),
            tasks: supervision.tracker(),
            stop: supervision.stopping(),
            supervision,
            names: Vec::new(),
        }
    }

    /// Configures these webhooks: name, kind, host.
    pub async fn configure(&mut self, webhooks: &[(&str, &str, &str)]) {
        self.names = webhooks.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let destinations =
            webhooks.iter().map(|(name, kind, host)| self.destination(&webhook_config(name, kind), host));
        let destinations = destinations.collect();
        self.dispatcher.apply(destinations).await.unwrap();
    }

    pub fn destination(&self, config: &WebhookConfig, host: &str) -> Destination {
        let target = Target::new(&config.name, &format!("http://{host}/hooks"));
        let transport: Arc<dyn Transport> = Arc::clone(&self.wire) as Arc<dyn Transport>;
        Destination::new(config, &target, transport, Arc::new(Scrubber::default())).unwrap()
    }

    /// Records the `number`-th event, owed to every configured webhook.
    pub async fn happen(&self, number: u64) {
        self.happen_at(number, "openai").await;
    }

    /// The same, at another provider.
    pub async fn happen_at(&self, number: u64, provider: &str) {
        let routes = self.names.iter().map(|name| Route {
            webhook: name.clone(),
            events: BTreeSet::from([KIND]),
            severity: Severity::Info,
            providers: BTreeSet::new(),
            labels: BTreeMap::new(),
            on_request: false,
            disabled: false,
        });
        let episode = earlier(EPOCH, Duration::from_secs(number));
        let draft = Draft::about_provider(KIND, provider, "all is well", episode, self.clock.now());
        assert!(self.store.record_event(draft, Arc::new(Routes(routes.collect()))).await.unwrap());
    }

    pub async fn deliveries(&self, webhook: &str) -> Vec<Delivery> {
        let filter = DeliveryFilter { webhook: Some(webhook.to_owned()), ..DeliveryFilter::default() };
        let (mut deliveries, _) = self.store.deliveries(filter).await.unwrap();
        deliveries.sort_by_key(|delivery| delivery.pk);
        deliveries
    }

    pub async fn states(&self, webhook: &str) -> Vec<DeliveryState> {
        self.deliveries(webhook).await.into_iter().map(|delivery| delivery.state).collect()
    }

    pub fn total(&self, webhook: &str, fate: &str) -> u64 {
        let totals = self.dispatcher.deliveries_total();
        totals
            .iter()
            .filter(|(name, known, _)| name == webhook && *known == fate)
            .map(|(_, _, count)| count)
            .sum()
    }

    /// Stops as the daemon does.
    pub async fn stop(self) -> Duration {
        let begun = self.clock.now();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await.unwrap();
        since(begun, self.clock.now())
    }
}

pub fn setup() -> (tempfile::TempDir, Clock) {
    (tempfile::tempdir().unwrap(), Clock::simulated(EPOCH))
}

/// Runs `life` as a process of its own would, up to a crash: nothing is said at the end, nothing is tidied.
pub fn live_and_crash<F: Future<Output = World>>(life: impl FnOnce() -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    drop(runtime.block_on(async { life().await }));
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn b1_two_failures_and_a_success_are_three_attempts_with_one_id_and_one_body() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| match number {
        1 => Reply::Status(500, "oh no"),
        2 => Reply::Fail(Failure::Reset),
        _ => Reply::Status(200, "thanks"),
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(120)).await;
    let seen = world.wire.seen();
    assert_eq!(seen.len(), 3);
    let waits: Vec<f64> = seen.windows(2).map(|pair| since(pair[0].at, pair[1].at).as_secs_f64()).collect();
    assert!((4.0..=6.1).contains(&waits[0]) && (24.0..=36.1).contains(&waits[1]), "{waits:?}");
    assert!(seen.iter().all(|one| one.id == seen[0].id && one.body == seen[0].body));
    let signed: BTreeSet<&str> = seen.iter().map(|one| one.timestamp.as_str()).collect();
    assert_eq!(signed.len(), 3, "each attempt has its own time");
    let delivery = world.deliveries("ops").await.remove(0);
    assert_eq!(
        (delivery.state, delivery.attempts, &delivery.event_id),
        (DeliveryState::Delivered, 3, &seen[0].id)
    );
    let attempts = world.store.attempts(delivery.pk).await.unwrap();
    let outcomes: Vec<&str> = attempts.iter().map(|attempt| attempt.outcome.as_deref().unwrap()).collect();
    assert_eq!(outcomes, ["http_5xx", "reset", "delivered"]);
    assert_eq!((attempts[0].http_status, attempts[0].excerpt.as_deref()), (Some(500), Some("oh no")));
    assert_eq!((world.total("ops", "retried"), world.total("ops", "delivered")), (2, 1));
    let health = world.dispatcher.health().remove(0);
    assert_eq!((health.state.failures, health.in_flight, health.last_failure), (0, 0, None));
    assert!(health.state.last_success_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn b2_trouble_for_ever_ends_dead_after_twelve_attempts_and_can_be_sent_again() {
    let (dir, clock) = setup();
    let back = later(EPOCH, Duration::from_hours(100));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        Reply::Status(if seen.at < back { 502 } else { 200 }, "")
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(Duration::from_hours(101)).await;
    let delivery = world.deliveries("ops").await.remove(0);
    assert_eq!((delivery.state, delivery.attempts, world.wire.seen().len()), (DeliveryState::Dead, 12, 12));
    let took = world.wire.times().pop().unwrap() / 3600;
    assert!((56..=85).contains(&took), "{took} h");
    assert_eq!(world.dispatcher.health()[0].state.failures, 12);
    assert!(world.dispatcher.health()[0].breaker_open);

    assert_eq!(world.store.retry(vec![delivery.pk], clock.now()).await.unwrap(), [true]);
    world.dispatcher.probe(Some("ops"));
    sleep(seconds(1)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered]);
    let seen = world.wire.seen();
    assert_eq!(seen[12].id, seen[0].id);
    assert_eq!(world.store.attempts(delivery.pk).await.unwrap()[12].trigger, Trigger::Manual);
}

#[tokio::test(start_paused = true)]
async fn b3_b10_refusals_and_redirects_stop_after_eight() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, _| {
        Reply::Status(if seen.host == "a.example" { 404 } else { 307 }, "")
    });
    world.configure(&[("a", "generic", "a.example"), ("b", "generic", "b.example")]).await;
    world.happen(1).await;
    sleep(Duration::from_hours(12)).await;
    for name in ["a", "b"] {
        let delivery = world.deliveries(name).await.remove(0);
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Dead, 8), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn b4_gone_switches_one_webhook_off_until_somebody_switches_it_on() {
    let (dir, clock) = setup();
    let mended = later(EPOCH, seconds(3600));
    let mut world = World::open(dir.path(), &clock, move |seen, _| match seen.host.as_str() {
        "gone.example" if seen.at < mended => Reply::Status(410, ""),
        _ => Reply::Status(200, ""),
    });
    world.configure(&[("gone", "generic", "gone.example"), ("well", "generic", "well.example")]).await;
    let mut switched_off = world.dispatcher.switched_off();
    world.happen(1).await;
    sleep(seconds(1)).await;
    world.happen(2).await;
    sleep(seconds(3600)).await;
    assert_eq!(world.states("gone").await, [DeliveryState::Held; 2]);
    assert_eq!(world.states("well").await, [DeliveryState::Delivered; 2]);
    assert_eq!(world.wire.seen().iter().filter(|seen| seen.host == "gone.example").count(), 1);
    assert_eq!(*switched_off.borrow_and_update(), BTreeSet::from(["gone".to_owned()]));
    let health = world.dispatcher.health().remove(0);
    assert!(health.state.disabled.unwrap().starts_with("410") && !health.state.by_hand);

    // A reload that changes nothing about it leaves it off.
    world.configure(&[("gone", "generic", "gone.example"), ("well", "generic", "well.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("gone").await, [DeliveryState::Held; 2]);

    assert!(world.dispatcher.enable("gone").await.unwrap());
    sleep(seconds(1)).await;
    assert_eq!(world.states("gone").await, [DeliveryState::Delivered; 2]);
    assert!(switched_off.borrow_and_update().is_empty());
    assert!(!world.dispatcher.enable("nobody").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn b5_retry_after_leaves_the_whole_webhook_alone_and_uses_nothing_up() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| {
        if number == 1 { Reply::Later("7") } else { Reply::Status(200, "ok") }
    });
    world.configure(&[("ops", "slack", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    world.happen(2).await;
    sleep(seconds(5)).await;
    assert_eq!(world.wire.times(), [0]);
    assert!(world.dispatcher.health()[0].state.paused_until.is_some());
    sleep(seconds(30)).await;
    // What came meanwhile goes with it.
    assert_eq!(world.wire.times(), [0, 7]);
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
    let first = world.deliveries("ops").await.remove(0);
    assert_eq!((first.state, world.total("ops", "snoozed")), (DeliveryState::Delivered, 1));
    assert_eq!(world.dispatcher.health()[0].state.paused_until, None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_a_restart() {
    let (dir, clock) = setup();
    let script = |_: &Seen, number| if number == 1 { Reply::Later("600") } else { Reply::Status(200, "") };
    let mut world = World::open(dir.path(), &clock, script);
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(10)).await;
    world.stop().await;
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(2).await;
    sleep(seconds(580)).await;
    assert!(world.wire.seen().is_empty());
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
}

#[tokio::test(start_paused = true)]
async fn what_went_wrong_last_outlives_a_restart_and_ends_with_a_success() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| {
        Reply::Status(if number == 1 { 500 } else { 503 }, "overloaded")
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(10)).await;
    let failure = world.dispatcher.health().remove(0).last_failure.unwrap();
    assert!(failure.error.contains("503"), "{}", failure.error);
    assert!((4..=6).contains(&since(EPOCH, failure.at).as_secs()), "{}", failure.at);
    world.stop().await;
    // More is owed, of which nothing was tried.
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::After(seconds(1), 200));
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(2).await;
    sleep(Duration::from_millis(100)).await;
    let again = world.dispatcher.health().remove(0).last_failure.unwrap();
    assert_eq!(again.error, failure.error);
    assert!(since(again.at, failure.at) < seconds(1), "{} {}", again.at, failure.at);
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
    assert_eq!(world.dispatcher.health().remove(0).last_failure, None);
}

#[tokio::test(start_paused = true)]
async fn h3_a_form_that_slack_refuses_is_sent_again_at_once_as_plain_text() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, _| {
        if seen.body.contains("attachments") {
            Reply::Status(400, "invalid_blocks")
        } else {
            Reply::Status(200, "ok")
        }
    });
    world.configure(&[("ops", "slack", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered]);
    assert_eq!(world.wire.times(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn c17_a_receiver_that_is_down_gets_single_probes_and_then_everything_ever_faster() {
    const EVENTS: u64 = 300;
    let (dir, clock) = setup();
    let back = later(EPOCH, Duration::from_hours(2));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        if seen.at < back { Reply::Fail(Failure::ConnectRefused) } else { Reply::Status(200, "") }
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    for number in 0..EVENTS {
        world.happen(number).await;
    }
    sleep(Duration::from_hours(2)).await;
    let while_down = world.wire.seen().len();
    assert!(
        (10..=30).contains(&while_down),
        "{while_down} requests to a receiver that was down for two hours"
    );
    assert!(world.dispatcher.health()[0].breaker_open);
    sleep(seconds(660)).await;
    assert!(world.states("ops").await.iter().all(|state| *state == DeliveryState::Delivered));
    // The probe that found it well again, and the seconds that followed.
    let times: Vec<u64> = world.wire.seen()[while_down..]
        .iter()
        .map(|seen| u64::try_from(since(EPOCH, seen.at).as_millis()).unwrap())
        .collect();
    let first = times[0];
    let mut each_second = [0; 9];
    for time in &times[1..] {
        each_second[usize::try_from((time - first) / 1000).unwrap()] += 1;
    }
    assert_eq!(each_second[..6], [1, 2, 4, 8, 16, 32]);
    let ids: BTreeSet<String> = world.wire.seen()[while_down..].iter().map(|seen| seen.id.clone()).collect();
    assert_eq!(ids.len() as u64, EVENTS, "each event once");
}

#[tokio::test(start_paused = true)]
async fn j1_a_webhook_that_hangs_holds_up_no_other() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, _| match seen.host.as_str() {
        "hung.example" => Reply::Hang,
        "refusing.example" => Reply::Fail(Failure::ConnectRefused),
        "broken.example" => Reply::Panic,
        _ => Reply::Status(200, ""),
    });
    world
        .configure(&[
            ("hung", "generic", "hung.example"),
            ("refusing", "generic", "refusing.example"),
            ("broken", "generic", "broken.example"),
            ("well", "generic", "well.example"),
        ])
        .await;
    for number in 0..50 {
        world.happen(number).await;
    }
    sleep(seconds(1)).await;
    assert!(world.states("well").await.iter().all(|state| *state == DeliveryState::Delivered));
    let hung = world.states("hung").await;
    assert_eq!(
        hung.iter().filter(|state| **state == DeliveryState::Inflight).count(),
        4,
        "its own slots only"
    );
    // A12: a panic is that attempt's failure; nobody over there is blamed for it.
    let broken = world.dispatcher.health().into_iter().find(|health| health.name == "broken").unwrap();
    assert_eq!((broken.state.failures, broken.breaker_open), (0, false));
    let delivery = world.deliveries("broken").await.remove(0);
    let attempts = world.store.attempts(delivery.pk).await.unwrap();
    assert_eq!(attempts[0].outcome.as_deref(), Some("panic"));
    // Whatever receivers do, every loop comes round.
    sleep(Duration::from_hours(1)).await;
    let ages = world.supervision.ages();
    assert_eq!(ages.len(), 4);
    for (name, age) in ages {
        assert!(age <= seconds(30), "{name}: {age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a14_what_is_under_way_at_the_stop_may_end() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::After(seconds(2), 200));
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    assert_eq!(world.stop().await.as_secs(), 1);
    let store = Store::open(dir.path(), clock).unwrap();
    let (deliveries, _) = store.deliveries(DeliveryFilter::default()).await.unwrap();
    assert_eq!(deliveries[0].state, DeliveryState::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a15_what_hangs_is_cut_off_after_seven_seconds_and_sent_again_at_the_next_start() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Hang);
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    let first = world.wire.seen().remove(0);
    assert_eq!(world.stop().await.as_secs(), 7);

    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    world.configure(&[("ops", "generic", "a.example")]).await;
    sleep(seconds(1)).await;
    let again = world.wire.seen().remove(0);
    assert_eq!((again.id, again.body), (first.id, first.body));
    let delivery = world.deliveries("ops").await.remove(0);
    let attempts = world.store.attempts(delivery.pk).await.unwrap();
    assert_eq!(attempts[0].outcome.as_deref(), Some("interrupted"));
    assert_eq!((attempts[1].outcome.as_deref(), attempts[1].trigger), (Some("delivered"), Trigger::Startup));
}

#[tokio::test(start_paused = true)]
async fn f2_a_webhook_that_leaves_the_configuration_keeps_what_it_is_owed() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| match number {
        1 => Reply::After(seconds(3), 200),
        2 => Reply::After(seconds(3), 500),
        _ => Reply::Status(200, "ok"),
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    for number in 0..2 {
        world.happen(number).await;
    }
    sleep(seconds(1)).await;
    let late = world.names.clone();
    world.configure(&[]).await;
    world.names = late;
    world.happen(2).await;
    sleep(seconds(600)).await;
    assert_eq!(world.wire.seen().len(), 2, "what was under way ended, and nothing began");
    assert_eq!(
        world.states("ops").await,
        [DeliveryState::Delivered, DeliveryState::Held, DeliveryState::Held]
    );
    assert!(world.dispatcher.health().is_empty());
    assert!(world.dispatcher.test("ops", EventBody { id: "evt_1", body: "{}" }).await.is_none());
    world.configure(&[("ops", "generic", "a.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 3]);
}

#[tokio::test(start_paused = true)]
async fn f3_a_webhook_that_points_elsewhere_begins_afresh_there() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, number| match (seen.host.as_str(), number) {
        ("old.example", 1) => Reply::Status(410, ""),
        ("old.example", _) => Reply::After(seconds(5), 410),
        _ => Reply::Status(200, ""),
    });
    world.configure(&[("ops", "generic", "old.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Held]);
    world.configure(&[("ops", "generic", "new.example")]).await;
    sleep(seconds(1)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered]);
    // The same across a restart, by the fingerprint.
    world.configure(&[("ops", "generic", "old.example")]).await;
    world.happen(2).await;
    sleep(seconds(1)).await;
    // One is under way to the old target, which will say that it is gone: no word about the new one.
    world.configure(&[("ops", "generic", "new.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
    assert!(world.dispatcher.health()[0].state.disabled.is_none());
}

#[tokio::test(start_paused = true)]
async fn f3_a_new_target_is_noticed_across_a_restart() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(410, ""));
    world.configure(&[("ops", "generic", "old.example"), ("hand", "generic", "old.example")]).await;
    assert!(world.dispatcher.disable("hand", "by ada").await.unwrap());
    world.happen(1).await;
    sleep(seconds(1)).await;
    world.stop().await;
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    world.configure(&[("ops", "generic", "old.example"), ("hand", "generic", "old.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Held], "nothing has changed");
    world.stop().await;
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    world.configure(&[("ops", "generic", "new.example"), ("hand", "generic", "new.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered]);
    assert_eq!(world.states("hand").await, [DeliveryState::Held], "a person's word outlives a new URL");
    assert!(world.dispatcher.enable("hand").await.unwrap());
    sleep(seconds(1)).await;
    assert_eq!(world.states("hand").await, [DeliveryState::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn f12_a_test_is_one_attempt_outside_of_everything() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(410, "no such hook"));
    world.configure(&[("ops", "generic", "a.example")]).await;
    let exchange = world.dispatcher.test("ops", EventBody { id: "evt_test", body: "{}" }).await.unwrap();
    assert!(matches!(exchange.outcome, DeliveryOutcome::Gone(_)));
    assert_eq!((exchange.status, exchange.excerpt.as_deref()), (Some(410), Some("no such hook")));
    let health = world.dispatcher.health().remove(0);
    assert_eq!((health.state.disabled, health.state.failures), (None, 0));
    assert!(world.deliveries("ops").await.is_empty() && world.total("ops", "held") == 0);
    assert!(world.dispatcher.deliveries_total().iter().all(|(_, _, count)| *count == 0));
    assert!(world.dispatcher.test("nobody", EventBody { id: "evt_test", body: "{}" }).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_switched_off_by_hand_holds_what_it_is_owed() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::After(seconds(2), 500));
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    assert!(world.dispatcher.disable("ops", "by ada").await.unwrap());
    world.happen(2).await;
    sleep(seconds(600)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Held; 2]);
    assert_eq!(world.wire.seen().len(), 1);
    let state = world.dispatcher.health().remove(0).state;
    assert_eq!((state.disabled.as_deref(), state.by_hand), (Some("by ada"), true));
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_one_line_of_the_log_and_no_line_tells_where_it_went() {
    const NAME: &str = "dispatch::every_attempt_is_one_line_of_the_log_and_no_line_tells_where_it_went";
    // Whether a line is wanted is remembered for the whole process: other tests would have their say in it.
    if !inside(NAME) {
        return in_a_process_with(NAME, &[]);
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| match number {
        1 => Reply::Status(500, ""),
        2 => Reply::Fail(Failure::ConnectRefused),
        3 => Reply::Status(200, ""),
        _ => Reply::Status(410, ""),
    });
    world.configure(&[("ops", "generic", "t0psecret.example")]).await;
    world.happen(1).await;
    sleep(seconds(120)).await;
    world.happen(2).await;
    sleep(seconds(1)).await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("t0psecret"), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let attempts: Vec<&serde_json::Value> =
        lines.iter().map(|line| &line["fields"]).filter(|line| line["attempt"].is_u64()).collect();
    let told: Vec<(u64, &str, Option<u64>)> = attempts
        .iter()
        .map(|line| {
            (line["attempt"].as_u64().unwrap(), line["outcome"].as_str().unwrap(), line["status"].as_u64())
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "http_5xx", Some(500)),
            (2, "connect_refused", None),
            (3, "delivered", Some(200)),
            (1, "http_410", Some(410))
        ]
    );
    for line in &attempts {
        assert!(line["event"].as_str().unwrap().starts_with("evt_") && line["delivery"].is_i64(), "{line}");
        assert!(line["webhook"] == "ops" && line["ms"].is_u64() && line["next"].is_string(), "{line}");
    }
    let switched_off = lines.iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(switched_off, 1, "a webhook that is switched off is an error, said once: {text}");
}
