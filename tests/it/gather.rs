//! Chats: the first event at once, what follows within ten seconds in one message, and each delivery with a row and an
//! end of its own; numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::dispatch::{EPOCH, Reply, World, live_and_crash, seconds, setup};
use batchd::clock::Clock;
use batchd::domain::time::{later, since};
use batchd::notify::GATHER;
use batchd::store::outbox::DeliveryState;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

const DELIVERED: DeliveryState = DeliveryState::Delivered;

/// How many attempts each delivery has had, and how they ended.
async fn outcomes(world: &World, webhook: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for delivery in world.deliveries(webhook).await {
        let attempts = world.store.attempts(delivery.pk).await.unwrap();
        all.push(attempts.into_iter().map(|attempt| attempt.outcome.unwrap_or_default()).collect());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn h4_fifty_endings_are_two_messages_and_fifty_deliveries() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, "ok"));
    world.configure(&[("chat", "slack", "a.example"), ("program", "generic", "b.example")]).await;
    for number in 0..50 {
        world.happen(number).await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.states("chat").await.iter().filter(|state| **state == DELIVERED).count(), 1, "at once");
    sleep(GATHER).await;
    let chat: Vec<_> = world.wire.seen().into_iter().filter(|seen| seen.host == "a.example").collect();
    assert_eq!(chat.len(), 2);
    assert!(since(chat[0].at, chat[1].at) >= GATHER);
    assert!(!chat[0].body.contains("49") && chat[1].body.contains("49 events"), "{}", chat[1].body);
    assert_eq!(world.states("chat").await, [DELIVERED; 50]);
    assert_eq!(outcomes(&world, "chat").await, vec![["delivered"]; 50]);
    assert_eq!(world.total("chat", "delivered"), 50);
    // What programs read is never put together.
    assert_eq!(world.wire.seen().len(), 52);

    // A quiet time later the first one is told at once again.
    sleep(seconds(60)).await;
    world.happen(50).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.states("chat").await, [DELIVERED; 51]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_together_comes_back_together_and_each_keeps_its_own_count() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |_, number| match number {
        2 | 4 => Reply::Status(500, "rollup_error"),
        _ => Reply::Status(200, "ok"),
    });
    world.configure(&[("chat", "slack", "a.example")]).await;
    for number in 0..4 {
        world.happen(number).await;
        sleep(Duration::from_millis(20)).await;
    }
    // While these wait to be tried again, there is nothing to gather for what comes then.
    sleep(GATHER + seconds(1)).await;
    world.happen(4).await;
    sleep(seconds(120)).await;
    let failed = vec!["http_5xx", "http_5xx", "delivered"];
    let expected = [vec!["delivered"], failed.clone(), failed.clone(), failed, vec!["delivered"]];
    assert_eq!(outcomes(&world, "chat").await, expected);
    assert_eq!(world.wire.seen().len(), 5);
    assert_eq!((world.total("chat", "retried"), world.total("chat", "delivered")), (6, 5));
    assert_eq!(world.dispatcher.health().remove(0).state.failures, 0);
}

#[test]
fn a4_a_crash_with_several_in_one_message_sends_every_one_of_them_again() {
    let dir = tempfile::tempdir().unwrap();
    live_and_crash(async || {
        let clock = Clock::simulated(EPOCH);
        let mut world =
            World::open(
                dir.path(),
                &clock,
                |_, number| {
                    if number == 1 { Reply::Status(200, "ok") } else { Reply::Hang }
                },
            );
        world.configure(&[("chat", "slack", "a.example")]).await;
        for number in 0..20 {
            world.happen(number).await;
            sleep(Duration::from_millis(20)).await;
        }
        sleep(GATHER).await;
        let inflight = world.states("chat").await;
        assert_eq!(inflight.iter().filter(|state| **state == DeliveryState::Inflight).count(), 19);
        world
    });
    live_and_crash(async || {
        let clock = Clock::simulated(later(EPOCH, seconds(30)));
        let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, "ok"));
        world.configure(&[("chat", "slack", "a.example")]).await;
        sleep(seconds(1)).await;
        assert_eq!(world.wire.seen().len(), 1);
        assert!(world.wire.seen()[0].body.contains("19 events"));
        let outcomes = outcomes(&world, "chat").await;
        assert_eq!(outcomes[0], ["delivered"]);
        assert!(outcomes[1..].iter().all(|one| one[..] == ["unknown_crash", "delivered"]));
        world
    });
}

#[tokio::test(start_paused = true)]
async fn h3_one_that_is_refused_for_what_it_says_takes_no_other_with_it() {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, |seen, _| {
        if seen.body.contains("poison") {
            Reply::Status(400, "invalid_blocks")
        } else {
            Reply::Status(200, "ok")
        }
    });
    world.configure(&[("chat", "slack", "a.example")]).await;
    for (number, provider) in [(0, "first"), (1, "second"), (2, "poison"), (3, "fourth"), (4, "fifth")] {
        world.happen_at(number, provider).await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(seconds(120)).await;
    assert_eq!(world.states("chat").await, [DELIVERED, DELIVERED, DeliveryState::Dead, DELIVERED, DELIVERED]);
    // The first; the four together, in both forms; each by itself.
    assert_eq!(world.wire.seen().len(), 1 + 2 + 4);
    // After that things are as before.
    world.happen(5).await;
    world.happen(6).await;
    sleep(seconds(30)).await;
    assert!(world.wire.seen().len() <= 9);
    assert_eq!(world.states("chat").await[5..], [DELIVERED; 2]);
}

#[tokio::test(start_paused = true)]
async fn h2_a_channel_that_is_gone_holds_all_of_them_after_one_request() {
    let (dir, clock) = setup();
    let gone = later(EPOCH, seconds(5));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        if seen.at < gone { Reply::Status(200, "ok") } else { Reply::Status(404, "no_service") }
    });
    world.configure(&[("chat", "slack", "a.example")]).await;
    for number in 0..9 {
        world.happen(number).await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(seconds(600)).await;
    assert_eq!(world.wire.seen().len(), 2);
    assert_eq!(world.states("chat").await[1..], [DeliveryState::Held; 8]);
    assert!(world.dispatcher.health()[0].state.disabled.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_was_down_for_hours_gets_one_message_of_it_all() {
    let (dir, clock) = setup();
    let back: Timestamp = later(EPOCH, Duration::from_hours(2));
    let mut world = World::open(dir.path(), &clock, move |seen, _| {
        if seen.at < back { Reply::Status(502, "") } else { Reply::Status(200, "ok") }
    });
    world.configure(&[("chat", "slack", "a.example")]).await;
    for number in 0..40 {
        world.happen(number).await;
        sleep(Duration::from_mins(2)).await;
    }
    sleep(Duration::from_hours(12)).await;
    assert_eq!(world.states("chat").await, [DELIVERED; 40]);
    let messages = world.wire.seen().into_iter().filter(|seen| seen.at >= back).count();
    assert!(messages <= 10, "{messages} messages");
}
