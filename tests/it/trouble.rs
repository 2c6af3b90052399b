//! What the dispatcher makes of lasting trouble: findings, suspects, rates, clocks that are set, renamed webhooks;
//! numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::deliver::webhook_config;
use crate::dispatch::{EPOCH, Reply, World, seconds, setup};
use batchd::config::WebhookConfig;
use batchd::domain::event::EventType;
use batchd::domain::outcome::Severity;
use batchd::domain::pace::Rate;
use batchd::domain::route::{Route, Routes};
use batchd::domain::time::{later, since};
use batchd::store::Store;
use batchd::store::outbox::DeliveryState;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A route that wants exactly these.
fn route(webhook: &str, events: &[EventType]) -> Route {
    Route {
        webhook: webhook.to_owned(),
        events: events.iter().copied().collect(),
        severity: Severity::Info,
        providers: BTreeSet::new(),
        labels: BTreeMap::new(),
        on_request: false,
        disabled: false,
    }
}

/// The types of events that came to `host`, with the seconds at which they did.
fn told(world: &World, host: &str) -> Vec<(String, u64)> {
    let seen = world.wire.seen().into_iter().filter(|seen| seen.host == host);
    seen.map(|seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        (body["type"].as_str().unwrap().to_owned(), since(EPOCH, seen.at).as_secs())
    })
    .collect()
}

fn findings(world: &World, host: &str) -> Vec<String> {
    told(world, host).into_iter().map(|(kind, _)| kind).filter(|kind| kind.starts_with("webhook.")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_fails_is_told_of_once_through_the_others_and_so_is_its_end() {
    let (dir, clock) = setup();
    let back = later(EPOCH, Duration::from_hours(3));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        Reply::Status(if seen.host == "ill.example" && seen.at < back { 503 } else { 200 }, "")
    });
    let names = [
        ("ill", "generic", "ill.example"),
        ("well", "generic", "well.example"),
        ("deaf", "generic", "deaf.example"),
    ];
    world.configure(&names).await;
    let failing = EventType::WebhookFailing;
    // The end is told where the beginning was, though nobody asked for it; and nowhere else.
    let routes = [route("ill", &EventType::ALL), route("well", &[failing]), route("deaf", &[])];
    world.dispatcher.set_routes(Arc::new(Routes(routes.to_vec())));
    world.happen(1).await;
    sleep(Duration::from_hours(2)).await;
    assert_eq!(findings(&world, "well.example"), ["webhook.failing"]);
    let at = told(&world, "well.example")[1].1;
    assert!((600..1000).contains(&at), "after five attempts, not {at} s");
    // So it is after a restart.
    world.stop().await;
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        Reply::Status(if seen.host == "ill.example" && seen.at < back { 503 } else { 200 }, "")
    });
    world.configure(&names).await;
    world.dispatcher.set_routes(Arc::new(Routes(routes.to_vec())));
    sleep(Duration::from_hours(30)).await;
    assert_eq!(findings(&world, "well.example"), ["webhook.recovered"]);
    assert_eq!(findings(&world, "ill.example"), [] as [&str; 0], "never through itself");
    assert_eq!(findings(&world, "deaf.example"), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn b4_a_webhook_that_is_gone_is_told_of_at_once() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, number| {
        Reply::Status(if seen.host == "gone.example" && number == 1 { 410 } else { 200 }, "")
    });
    world.configure(&[("gone", "generic", "gone.example"), ("well", "generic", "well.example")]).await;
    let routes = vec![route("gone", &EventType::ALL), route("well", &EventType::ALL)];
    world.dispatcher.set_routes(Arc::new(Routes(routes)));
    world.happen(1).await;
    sleep(seconds(1)).await;
    assert_eq!(findings(&world, "well.example"), ["webhook.failing"]);
    // Switched on again it has recovered once it has accepted something.
    assert!(world.dispatcher.enable("gone").await.unwrap());
    sleep(seconds(1)).await;
    assert_eq!(world.states("gone").await, [DeliveryState::Delivered]);
    assert_eq!(findings(&world, "well.example"), ["webhook.failing", "webhook.recovered"]);
    assert_eq!(findings(&world, "gone.example"), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a11_a_suspect_is_sent_with_nothing_else_under_way() {
    let (dir, clock) = setup();
    let names = [("a", "generic", "a.example"), ("b", "generic", "b.example")];
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Hang);
    world.names = vec!["a".to_owned()];
    world.happen(1).await;
    drop(world);
    for _ in 0..3 {
        let store = Store::open(dir.path(), clock.clone()).unwrap();
        let due = store.due("a".to_owned(), clock.now(), 9).await.unwrap();
        store.begin_attempts(due.iter().map(|due| due.pk).collect(), clock.now()).await.unwrap();
    }
    let mut world = World::open(dir.path(), &clock, |seen, _| {
        Reply::After(seconds(if seen.host == "a.example" { 3 } else { 20 }), 200)
    });
    world.configure(&names).await;
    for number in 2..5 {
        world.happen(number).await;
    }
    sleep(seconds(180)).await;
    assert_eq!(world.states("a").await, [DeliveryState::Delivered; 4]);
    assert_eq!(world.states("b").await, [DeliveryState::Delivered; 3]);
    let seen = world.wire.seen();
    let suspect = seen.iter().find(|seen| seen.body.contains(r#""sequence":1,"#)).unwrap();
    assert!(since(EPOCH, suspect.at) >= seconds(60), "{suspect:?}");
    let (begin, end) = (suspect.at, later(suspect.at, seconds(3)));
    for other in seen.iter().filter(|other| other.id != suspect.id) {
        let length = seconds(if other.host == "a.example" { 3 } else { 20 });
        assert!(other.at >= end || later(other.at, length) <= begin, "{other:?} beside {suspect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_are_given_up_are_told_to_the_others_and_never_in_a_circle() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, _| {
        Reply::Status(if seen.host == "well.example" { 200 } else { 404 }, "")
    });
    let destinations = ["ill", "sick", "well"].map(|name| {
        let config = WebhookConfig { retry: Some(vec![seconds(1)]), ..webhook_config(name, "generic") };
        world.destination(&config, &format!("{name}.example"))
    });
    world.dispatcher.apply(Vec::from(destinations)).await.unwrap();
    let routes = ["ill", "sick", "well"].map(|name| route(name, &[EventType::DeliveryDead]));
    world.dispatcher.set_routes(Arc::new(Routes(routes.to_vec())));
    world.names = vec!["ill".to_owned()];
    for number in 0..60 {
        world.happen(number).await;
    }
    sleep(Duration::from_hours(2)).await;
    assert_eq!(world.states("ill").await, [DeliveryState::Dead; 60]);
    let told: Vec<Value> = world
        .wire
        .seen()
        .into_iter()
        .filter(|seen| seen.host == "well.example")
        .map(|seen| serde_json::from_str(&seen.body).unwrap())
        .filter(|body: &Value| body["type"] == "webhook.delivery_dead")
        .collect();
    let count: u64 = told.iter().map(|body| body["data"]["deliveries"].as_u64().unwrap()).sum();
    assert_eq!(count, 60, "each is told once; nothing is told of those that were to tell it");
    assert!(told.len() <= 6, "{}", told.len());
    assert!(told.iter().all(|body| body["data"]["webhook"] == "ill" && body["data"]["severity"] == "error"));
    assert_eq!(findings(&world, "ill.example"), [] as [&str; 0], "never through itself");
    // Sent again by hand it goes out under its own id.
    let before = world.wire.seen().len();
    world.store.retry_dead(Some("sick".to_owned()), clock.now()).await.unwrap();
    world.dispatcher.probe(Some("sick"));
    sleep(seconds(1)).await;
    let seen = world.wire.seen();
    assert!(
        seen.len() > before
            && seen[before..].iter().all(|again| seen[..before].iter().any(|one| one.id == again.id))
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_whatever_is_due() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    let config = WebhookConfig { rate: Rate::parse("30/m"), ..webhook_config("slow", "generic") };
    let destination = world.destination(&config, "slow.example");
    world.dispatcher.apply(vec![destination]).await.unwrap();
    world.names = vec!["slow".to_owned()];
    for number in 0..10 {
        world.happen(number).await;
    }
    sleep(seconds(60)).await;
    assert_eq!(world.wire.times(), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
}

#[tokio::test(start_paused = true)]
async fn e1_e2_a_clock_that_is_set_while_it_runs_changes_no_wait() {
    for forward in [true, false] {
        let (dir, clock) = setup();
        let start = Instant::now();
        let answered = Arc::new(std::sync::Mutex::new(Vec::new()));
        let times = Arc::clone(&answered);
        let mut world = World::open(dir.path(), &clock, move |_, number| {
            times.lock().unwrap().push(start.elapsed().as_secs());
            Reply::Status(if number < 3 { 500 } else { 200 }, "")
        });
        world.configure(&[("ops", "generic", "a.example")]).await;
        world.happen(1).await;
        // In the wait of about 30 s after the second attempt.
        sleep(seconds(15)).await;
        if forward {
            clock.set_forward(Duration::from_hours(5 * 24));
        } else {
            clock.set_back(Duration::from_hours(1));
        }
        sleep(seconds(90)).await;
        assert_eq!(world.states("ops").await, [DeliveryState::Delivered], "forward: {forward}");
        let times = answered.lock().unwrap().clone();
        let longest = if forward { 43 } else { 60 };
        assert!((27..=longest).contains(&times[2]), "forward: {forward}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn f4_f5_a_webhook_under_another_name_is_another_webhook() {
    let (dir, clock) = setup();
    let back = later(EPOCH, seconds(100));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        Reply::Status(if seen.at < back { 503 } else { 200 }, "")
    });
    world.configure(&[("old", "generic", "a.example")]).await;
    world.happen(1).await;
    sleep(seconds(1)).await;
    world.configure(&[("new", "generic", "a.example")]).await;
    world.happen(2).await;
    sleep(seconds(600)).await;
    // What the old one is owed waits for it; the new one gets what happens from now on.
    assert_eq!(world.states("old").await, [DeliveryState::Held]);
    assert_eq!(world.states("new").await, [DeliveryState::Delivered]);
    world.configure(&[("old", "generic", "a.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("old").await, [DeliveryState::Delivered]);
}
