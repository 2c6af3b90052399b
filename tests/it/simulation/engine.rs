//! The engine alone through weeks of faults: what one provider's trouble, a clock or a full disk must not break.

use super::alone::{
    DAY, EPOCH, Life, MINUTE, Provider, Scripted, World, account, answer, count, ids, is, refuses,
};
use batchd::config::Polling;
use batchd::domain::event::EventType;
use batchd::domain::route::Routes;
use batchd::domain::time::since;
use batchd::domain::tracked::{BatchKey, Lineage, Tracked};
use batchd::domain::user_fields::UserFields;
use batchd::http::call::Answer;
use batchd::provider;
use batchd::store::events::EventFilter;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a simulated week with many faults leaves in the log.
async fn week_of_faults(seed: u64) -> Vec<(String, String, EventType)> {
    const BATCHES: usize = 20;
    let world = World::new(seed);
    let provider = Arc::new(Provider::new(&world.clock, seed, 0.4));
    let polling = Polling { concurrency: 3, ..Polling::default() };
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    life.track("openai", ids(BATCHES), world.clock.now()).await;
    tokio::time::sleep(3 * DAY).await;
    // A restart in the middle: nothing but the database goes on.
    life.end().await;
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    tokio::time::sleep(4 * DAY).await;

    for id in ids(BATCHES) {
        let (_, tracked) = life.store.find(id.clone()).await.unwrap().pop().unwrap();
        assert_eq!(tracked.batch.status.as_str(), provider.ending(&id), "{id}");
        let ended = format!("batch.{}", provider.ending(&id));
        let told = life
            .store
            .events(EventFilter { batch: Some(tracked.key.clone()), ..EventFilter::default() })
            .await
            .unwrap()
            .into_iter()
            .filter(|event| event.kind.as_str() == ended)
            .count();
        assert_eq!(told, 1, "{id} must be told once to have {ended}");
    }
    assert!(provider.most_in_flight.load(Ordering::Relaxed) <= 3, "more in flight than concurrency allows");
    let log = life.log().await;
    life.end().await;
    log
}

#[tokio::test(start_paused = true)]
async fn every_end_is_told_once_through_a_week_of_faults() {
    week_of_faults(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_log() {
    let first = week_of_faults(2).await;
    assert!(!first.is_empty());
    assert_eq!(first, week_of_faults(2).await);
    assert_ne!(first, week_of_faults(3).await);
}

#[tokio::test(start_paused = true)]
async fn one_providers_trouble_delays_no_other() {
    let world = World::new(4);
    let mut dead = Provider::new(&world.clock, 4, 0.0);
    dead.silent_until = Timestamp::MAX;
    let healthy = Arc::new(Provider::new(&world.clock, 4, 0.0));
    let polling = Polling { concurrency: 1, ..Polling::default() };
    let life = world
        .live(&[("dead", Arc::new(dead) as _, polling), ("healthy", healthy.clone() as _, polling)])
        .await;
    life.track("dead", ids(50), world.clock.now()).await;
    life.track("healthy", ids(1), world.clock.now()).await;
    let first = ids(1).next().unwrap();
    let end = healthy.life(&first) + Polling::default().max_interval;
    tokio::time::sleep(end).await;
    let key = BatchKey { provider: "healthy".into(), id: first };
    let (_, tracked) = life.store.get(key).await.unwrap().unwrap();
    assert!(tracked.batch.status.is_terminal(), "{tracked:?}");
    let told: Vec<EventType> = life.log().await.into_iter().map(|(_, _, kind)| kind).collect();
    assert_eq!(told.iter().filter(|kind| **kind == EventType::ProviderUnreachable).count(), 1);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_after_a_restart_keeps_to_the_ceiling() {
    let world = World::new(5);
    let provider = Arc::new(Provider::new(&world.clock, 5, 0.0));
    let polling = Polling { concurrency: 4, requests_per_minute: Some(60), ..Polling::default() };
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    life.track("openai", ids(300), world.clock.now()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    life.end().await;
    tokio::time::sleep(DAY).await;
    provider.asked.store(0, Ordering::Relaxed);
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let asked = provider.asked.load(Ordering::Relaxed);
    assert!((30..=61).contains(&asked), "{asked} requests in the first minute");
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert!(provider.asked.load(Ordering::Relaxed) >= 300, "what was overdue is caught up");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_by_hand_that_nobody_waits_for_any_more_leaves_the_schedule_whole() {
    let world = World::new(6);
    let provider = Scripted::new(&world.clock, Duration::from_secs(20), |id, _| is(id, "in_progress"));
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let (pk, _) = life.batch("batch_1").await;
    // Whoever asked goes away while the provider thinks.
    let gone = tokio::time::timeout(Duration::from_secs(1), life.engine.poll_now("openai", pk)).await;
    assert!(gone.is_err());
    let before = provider.asked().len();
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked().len() > before, "the batch is never polled again");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_untracked_and_tracked_again_while_a_look_is_in_flight_is_watched() {
    let world = World::new(7);
    let provider = Scripted::new(&world.clock, Duration::from_secs(20), |id, _| is(id, "in_progress"));
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (pk, _) = life.batch("batch_1").await;
    life.store.untrack(pk, world.clock.now()).await.unwrap();
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked().len() > 2, "asked at {:?}", provider.asked());

    // Untracked for good while a look is under way: that look is the last.
    let untracked = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        life.store.untrack(pk, world.clock.now()).await.unwrap();
    };
    tokio::join!(life.engine.poll_now("openai", pk), untracked).0.unwrap();
    let before = provider.asked().len();
    tokio::time::sleep(DAY).await;
    assert_eq!(provider.asked().len(), before, "an untracked batch is not polled");
    assert_eq!(life.batch("batch_1").await.1.next_poll_at, None);

    // Tracked again while a look by hand at the untracked batch is under way.
    let tracked = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        life.track_one("batch_1", world.clock.now()).await;
    };
    tokio::join!(life.engine.poll_now("openai", pk), tracked).0.unwrap();
    assert!(life.batch("batch_1").await.1.next_poll_at.is_some(), "watched, and due some day");
    let before = provider.asked().len();
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked().len() > before);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn polls_by_hand_and_the_schedule_take_turns_at_a_batch() {
    let world = World::new(8);
    let provider = Scripted::new(&world.clock, Duration::from_secs(10), |id, now| {
        is(id, if since(EPOCH, now) < 2 * MINUTE { "in_progress" } else { "completed" })
    });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (pk, _) = life.batch("batch_1").await;
    for _ in 0..6 {
        let (one, other) =
            tokio::join!(life.engine.poll_now("openai", pk), life.engine.poll_now("openai", pk));
        one.unwrap();
        other.unwrap();
    }
    let asked = provider.asked();
    assert!(asked.windows(2).all(|pair| pair[1] >= pair[0] + Duration::from_secs(10)), "{asked:?}");
    tokio::time::sleep(20 * MINUTE).await;
    let told = life.told().await;
    assert_eq!(told.iter().filter(|kind| kind.as_str() == "batch.completed").count(), 1, "{told:?}");
    life.end().await;
}

async fn reload(life: &Life, provider: &Arc<Scripted>, polling: Polling) {
    let account = account("openai", provider.clone(), polling);
    life.engine.apply(vec![account], Routes::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reloads_with_requests_in_flight_ask_for_nothing_twice() {
    let world = World::new(9);
    let provider = Scripted::new(&world.clock, Duration::from_secs(20), |id, _| is(id, "in_progress"));
    let polling = Polling { concurrency: 4, ..Polling::default() };
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    life.track("openai", ids(12), world.clock.now()).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        reload(&life, &provider, polling).await;
    }
    tokio::time::sleep(MINUTE).await;
    let asked = provider.asked();
    let together = |at: &Duration| {
        asked.iter().filter(|other| **other <= *at && *at < **other + Duration::from_secs(20)).count()
    };
    assert!(asked.iter().map(together).max().unwrap() <= 4, "{asked:?}");
    tokio::time::sleep(20 * MINUTE).await;
    let seen: std::collections::BTreeSet<String> =
        provider.asked.lock().unwrap().iter().skip(12).map(|(id, _)| id.clone()).collect();
    assert_eq!(seen.len(), 12, "every batch is still watched");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_hold_the_whole_account_through_a_reload_and_nobody_else() {
    let world = World::new(10);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, now| {
        if since(EPOCH, now) > 2 * MINUTE {
            return is(id, "completed");
        }
        let mut refusal = refuses(429);
        refusal.headers.insert("retry-after", HeaderValue::from_static("3600"));
        refusal
    });
    let other = Scripted::new(&world.clock, Duration::from_millis(100), |id, _| is(id, "in_progress"));
    let polling = Polling { concurrency: 2, ..Polling::default() };
    let life = world.live(&[("openai", provider.clone() as _, polling)]).await;
    life.track("openai", ids(20), world.clock.now()).await;
    tokio::time::sleep(MINUTE).await;
    assert!(provider.asked().len() <= 2, "{:?}", provider.asked());
    let accounts =
        vec![account("openai", provider.clone(), polling), account("other", other.clone(), polling)];
    life.engine.apply(accounts, Routes::default()).await.unwrap();
    life.track("other", ids(20), world.clock.now()).await;
    tokio::time::sleep(50 * MINUTE).await;
    assert!(provider.asked().len() <= 2, "a reload does not end the hold");
    let waiting = life.batch(&ids(20).last().unwrap()).await.1;
    let waiting = Tracked { key: BatchKey { provider: "openai".into(), ..waiting.key.clone() }, ..waiting };
    let why = life.engine.explain(&waiting).reasons;
    assert!(why[0].contains("wants to be left alone until"), "{why:?}");
    assert!(other.asked().len() > 40);
    tokio::time::sleep(15 * MINUTE).await;
    assert_eq!(count(&life.told().await, "batch.completed"), 20);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_provider_forgot_is_lost_once_and_still_looked_for() {
    let world = World::new(11);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, now| {
        let age = since(EPOCH, now);
        if age < 10 * MINUTE {
            is(id, "in_progress")
        } else if age < 2 * DAY {
            refuses(404)
        } else {
            is(id, "completed")
        }
    });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(DAY).await;
    let told = life.told().await;
    assert_eq!(count(&told, "batch.lost"), 1, "{told:?}");
    assert!(life.batch("batch_1").await.1.lost_since.is_some());
    let before = provider.asked().len();
    tokio::time::sleep(Duration::from_hours(10)).await;
    let looks = provider.asked().len() - before;
    assert!((38..=52).contains(&looks), "{looks} looks in ten hours");
    tokio::time::sleep(DAY).await;
    let told = life.told().await;
    assert_eq!((count(&told, "batch.lost"), count(&told, "batch.completed")), (1, 1), "{told:?}");
    assert_eq!(life.batch("batch_1").await.1.lost_since, None);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_told_once_and_everything_goes_on_with_a_good_one() {
    let world = World::new(12);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, now| {
        if since(EPOCH, now) < 2 * Duration::from_hours(1) { refuses(401) } else { is(id, "in_progress") }
    });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(10), world.clock.now()).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    let asked = provider.asked().len();
    assert!(asked <= 10 * 11, "{asked} requests with a refused key in two hours");
    assert_eq!(life.told().await, [EventType::ProviderUnauthorized]);
    reload(&life, &provider, Polling::default()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let told = life.told().await;
    assert_eq!(count(&told, "provider.recovered"), 1);
    assert_eq!(count(&told, "batch.in_progress"), 10, "one look tries the key, and all others follow it");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_batch_of_another_project_does_not_take_the_account_back_and_forth() {
    let world = World::new(21);
    let foreign = ids(1).next().unwrap();
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), move |id, _| {
        if id == foreign { refuses(403) } else { is(id, "in_progress") }
    });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(4), world.clock.now()).await;
    tokio::time::sleep(DAY).await;
    let told = life.told().await;
    let counts = (count(&told, "provider.unauthorized"), count(&told, "provider.recovered"));
    assert!(counts.0 <= 1 && counts.1 <= 1, "{counts:?}");
    // Every recovery makes everything due: a flapping account would be asked far more often.
    assert!(provider.asked().len() < 4 * 330, "{} looks in a day", provider.asked().len());
    life.end().await;
}

/// A list that can be read.
fn empty_list() -> Answer {
    answer(200, &json!({"object": "list", "data": [], "has_more": false}))
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_alone_is_refused_is_lost_and_the_key_is_not_refused() {
    for status in [401, 403] {
        let world = World::new(22);
        let deleted = ids(1).next().unwrap();
        let gone = deleted.clone();
        let provider = Scripted::with_list(&world.clock, move |id, now| match id {
            "batches" => empty_list(),
            _ if id == gone && since(EPOCH, now) > MINUTE => refuses(status),
            _ => is(id, "in_progress"),
        });
        let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
        life.track("openai", ids(3), world.clock.now()).await;
        tokio::time::sleep(Duration::from_hours(3)).await;
        let told = life.told().await;
        let refused = (count(&told, "provider.unauthorized"), count(&told, "provider.recovered"));
        assert_eq!((count(&told, "batch.lost"), refused), (1, (0, 0)), "{told:?}");
        let (_, batch) = life.batch(&deleted).await;
        assert!(batch.lost_since.is_some() && batch.last_error.unwrap().contains(&status.to_string()));
        life.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_is_asked_at_most_once_a_minute_whether_refusals_are_the_keys() {
    let world = World::new(23);
    let provider =
        Scripted::with_list(&world.clock, |id, _| if id == "batches" { empty_list() } else { refuses(403) });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(40), world.clock.now()).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let told = life.told().await;
    assert_eq!((count(&told, "batch.lost"), count(&told, "provider.unauthorized")), (40, 0), "{told:?}");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_how_long_its_batch_is_to_be_left_alone() {
    let asked = async |seed: u64, wait: Option<&'static str>| {
        let world = World::new(seed);
        let provider = Scripted::new(&world.clock, Duration::ZERO, move |id, _| {
            let mut answer = is(id, "in_progress");
            answer.headers.extend(wait.map(|wait| (http::header::RETRY_AFTER, wait.parse().unwrap())));
            answer
        });
        let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
        life.track_one("batch_1", world.clock.now()).await;
        tokio::time::sleep(Duration::from_hours(3)).await;
        life.end().await;
        let asked = provider.asked();
        (asked.len(), asked.windows(2).map(|two| two[1].saturating_sub(two[0])).min().unwrap())
    };
    let (usual, shortest) = asked(26, None).await;
    assert!(shortest < 2 * MINUTE, "{shortest:?}");
    let (fewer, shortest) = asked(26, Some("150")).await;
    assert!(shortest >= Duration::from_secs(150) && fewer <= usual, "{fewer} {usual} {shortest:?}");
    // No wish keeps a batch from being checked as often as every batch is.
    let (held, _) = asked(26, Some("20000")).await;
    assert!(held >= 10, "{held}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_list_refuses_too_is_refused() {
    let world = World::new(24);
    let provider = Scripted::with_list(&world.clock, |_, _| refuses(401));
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(10), world.clock.now()).await;
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert_eq!(life.told().await, [EventType::ProviderUnauthorized]);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_list_does_not_answer_a_refusal_says_nothing_of_the_key() {
    let world = World::new(25);
    let provider =
        Scripted::with_list(&world.clock, |id, _| refuses(if id == "batches" { 500 } else { 403 }));
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(Duration::from_mins(8)).await;
    assert_eq!(life.told().await, [] as [EventType; 0]);
    assert_eq!(life.batch("batch_1").await.1.missing, None);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_completed_without_files_is_held_for_a_minute_and_told_once() {
    let world = World::new(13);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, now| {
        let ended = since(EPOCH, now) >= 5 * MINUTE;
        let status = if ended { "completed" } else { "in_progress" };
        answer(
            200,
            &json!({
                "id": id, "status": status, "created_at": EPOCH.as_second(),
                "request_counts": {"total": 2, "completed": 2, "failed": 0},
            }),
        )
    });
    let life = world.live(&[]).await;
    let mut slow = account("openai", provider.clone(), Polling::default());
    slow.config.kind = "openai-compatible".to_owned();
    let kind = provider::registry::kind("openai-compatible").unwrap();
    slow.adapter = (kind.build)(&provider::Account::new(&slow.config, None));
    life.engine.apply(vec![slow], Routes::default()).await.unwrap();
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let transitions = life.store.transitions(life.batch("batch_1").await.0).await.unwrap();
    let words: Vec<&str> = transitions.iter().map(|transition| transition.to.as_str()).collect();
    assert_eq!(words, ["in_progress", "finalizing", "completed"]);
    let held = since(transitions[1].observed_at, transitions[2].observed_at);
    assert!(held >= MINUTE && held <= Duration::from_secs(70), "held for {held:?}");
    assert_eq!(count(&life.told().await, "batch.completed"), 1);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_for_a_while_loses_no_transition_and_no_finding() {
    let world = World::new(14);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, now| {
        let age = since(EPOCH, now);
        if age < 10 * MINUTE {
            is(id, "in_progress")
        } else if age < 40 * MINUTE {
            refuses(401)
        } else {
            is(id, "completed")
        }
    });
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(60), world.clock.now()).await;
    tokio::time::sleep(9 * MINUTE).await;
    life.store.limit_growth(Some(0)).await.unwrap();
    tokio::time::sleep(20 * MINUTE).await;
    life.store.limit_growth(None).await.unwrap();
    tokio::time::sleep(3 * MINUTE).await;
    life.store.limit_growth(Some(0)).await.unwrap();
    tokio::time::sleep(2 * Duration::from_hours(1)).await;
    life.store.limit_growth(None).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let told = life.told().await;
    for (word, times) in [
        ("batch.in_progress", 60),
        ("batch.completed", 60),
        ("provider.unauthorized", 1),
        ("provider.recovered", 1),
    ] {
        assert_eq!(count(&told, word), times, "{word}");
    }
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stops_nothing() {
    const HOUR: Duration = Duration::from_hours(1);
    let world = World::new(15);
    let provider = Scripted::new(&world.clock, Duration::from_millis(100), |id, _| is(id, "in_progress"));
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    life.track("openai", ids(5), world.clock.now()).await;
    tokio::time::sleep(HOUR).await;
    world.clock.set_back(5 * HOUR);
    let before = provider.asked().len();
    tokio::time::sleep(HOUR).await;
    let looks = provider.asked().len() - before;
    assert!((20..=400).contains(&looks), "{looks} looks in the hour after the clock was set back");
    life.end().await;

    // And while batchd did not run.
    world.clock.set_back(5 * HOUR);
    let before = provider.asked().len();
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    tokio::time::sleep(HOUR).await;
    assert!(provider.asked().len() - before >= 15);
    life.end().await;

    // A leap forward is no storm: everything is due, once.
    tokio::time::sleep(30 * DAY).await;
    let before = provider.asked().len();
    let life = world.live(&[("openai", provider.clone() as _, Polling::default())]).await;
    tokio::time::sleep(MINUTE).await;
    let looks = provider.asked().len() - before;
    assert!((5..=10).contains(&looks), "{looks} looks in the first minute");
    life.end().await;
}

/// A creation that was never answered is looked for until it is sure that it created nothing, and then forgotten; one
/// whose batch appears late in the provider's list is found.
#[tokio::test(start_paused = true)]
async fn a_creation_that_was_not_answered_is_settled_in_time() {
    let world = World::new(7);
    let clock = world.clock.clone();
    let late = Scripted::with_list(&clock, move |asked, now| {
        let batch = json!({
            "id": "batch_late", "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-1",
            "completion_window": "24h", "status": "in_progress", "created_at": EPOCH.as_second(),
            "metadata": {"batchd_id": "bd-late"},
        });
        let listed = asked == "batches" && since(EPOCH, now) > Duration::from_secs(90);
        answer(
            200,
            &if listed {
                json!({"object": "list", "data": [batch]})
            } else {
                json!({"object": "list", "data": []})
            },
        )
    });
    let polling = Polling::default();
    let life = world.live(&[("openai", late, polling)]).await;
    for marker in ["bd-late", "bd-never"] {
        life.store.open_submission(submission(marker), None).await.unwrap();
    }
    let engine = life.engine.clone();
    life.tasks.keep_running("submissions", life.tasks.stopping(), |pulse| engine.reconcile(pulse));
    let open = async || {
        life.store.submissions().await.unwrap().into_iter().map(|each| each.marker).collect::<Vec<_>>()
    };
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(open().await, ["bd-late", "bd-never"]);
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(open().await, ["bd-never"]);
    let (_, found) = life.batch("batch_late").await;
    assert_eq!((found.name.as_deref(), found.owner.as_deref()), (Some("bd-late"), Some("ada")));
    assert_eq!(found.batch.model.as_deref(), Some("m-1"));
    tokio::time::sleep(Duration::from_mins(8)).await;
    assert!(open().await.is_empty());
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_creation_was_not_answered_is_found_behind_thousands_of_newer_ones() {
    let world = World::new(9);
    let counted = AtomicU64::new(0);
    // Pages of a hundred, newest first; every third request fails.
    let long = Scripted::with_list(&world.clock, move |asked, _| {
        if !asked.starts_with("batches") {
            return is(asked, "in_progress");
        }
        if counted.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
            return answer(500, &json!({"error": {"message": "not now"}}));
        }
        let after = asked.strip_prefix("batches after batch_");
        let from: u64 = after.map_or(NEWER + 1, |after| after.parse().unwrap());
        let page: Vec<_> = (from.saturating_sub(100)..from)
            .rev()
            .map(|number| {
                json!({
                    "id": format!("batch_{number}"), "object": "batch", "endpoint": "/v1/responses",
                    "input_file_id": "file-1", "completion_window": "24h", "status": "in_progress",
                    "created_at": EPOCH.as_second() + i64::try_from(number).unwrap(),
                    "metadata": {"batchd_id": if number == 0 { "bd-early" } else { "" }},
                })
            })
            .collect();
        answer(200, &json!({"object": "list", "data": page, "has_more": from > 100}))
    });
    let life = world.live(&[("openai", long.clone() as _, Polling::default())]).await;
    let mut lost = submission("bd-early");
    lost.lost_at = Some(EPOCH);
    life.store.open_submission(lost, None).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let engine = life.engine.clone();
    life.tasks.keep_running("submissions", life.tasks.stopping(), |pulse| engine.reconcile(pulse));
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert!(life.store.submissions().await.unwrap().is_empty());
    let (_, found) = life.batch("batch_0").await;
    assert_eq!(found.name.as_deref(), Some("bd-early"));
    // Each page was read once: what failed was asked for again, not the list from its beginning.
    let asked = u64::try_from(long.asked().len()).unwrap();
    assert!(asked < 3 * NEWER / 100, "{asked} requests");
    life.end().await;
}

/// How many batches were created after the one that is searched for.
const NEWER: u64 = 5000;

/// One whose creation was not answered.
fn submission(marker: &str) -> batchd::store::submissions::Submission {
    batchd::store::submissions::Submission {
        marker: marker.to_owned(),
        provider: "openai".to_owned(),
        endpoint: "/v1/responses".to_owned(),
        model: Some("m-1".to_owned()),
        requests: 2,
        file_name: format!("{marker}.jsonl"),
        uploaded_file: None,
        input_file: None,
        lineage: Lineage::default(),
        metadata: BTreeMap::new(),
        user_fields: UserFields { name: Some(marker.to_owned()), ..UserFields::default() },
        owner: Some("ada".to_owned()),
        begun_at: EPOCH,
        lost_at: None,
        candidates: Vec::new(),
        trouble: None,
    }
}
