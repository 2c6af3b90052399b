//! Many at once: a hundred thousand batches, ten thousand transitions; a tenth of that on a server.

use super::stage::{Stage, on_both};
use super::*;
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use batchd::store::outbox::DeliveryFilter;
use batchd::store::schedule::ScheduleEntry;

on_both! {
    (flavor = "multi_thread")
    a_hundred_thousand_are_registered_in_one_commit_listed_and_scheduled,
    j2_ten_thousand_transitions_at_once_are_few_commits,
}

async fn a_hundred_thousand_are_registered_in_one_commit_listed_and_scheduled(stage: Stage) {
    let many = stage.portion(100_000);
    let store = stage.open().await;
    let items = (0..many).map(|number| registration(&format!("batch_{number:032x}"))).collect();
    let before = store.commit_stats().count;
    let registered = store.register(items, routes(&[])).await.unwrap();
    assert_eq!(registered.len(), many);
    assert!(registered.iter().all(|one| one.new) && registered.is_sorted_by_key(|one| one.pk));
    assert_eq!(store.commit_stats().count, before + 1);

    let schedule = store.schedule().await.unwrap();
    assert_eq!(schedule.len(), many);
    let expected = ScheduleEntry {
        pk: registered[0].pk,
        provider: "openai".into(),
        next_poll_at: EPOCH,
        created_at: None,
    };
    assert_eq!(schedule[0], expected);

    let mut filter = BatchFilter { active_only: true, limit: Some(1000), ..BatchFilter::default() };
    let mut listed = 0;
    loop {
        let (page, more) = store.list(filter.clone()).await.unwrap();
        listed += page.len();
        filter.after = page.last().map(|(pk, _)| *pk);
        if !more {
            break;
        }
    }
    assert_eq!(listed, many);
    assert_eq!(store.counts().await.unwrap(), [("openai".to_owned(), Status::Validating, many as u64)]);

    // Too large to be checked whole before the daemon is ready.
    drop(store);
    let store = stage.open().await;
    store.check_whole().await.unwrap();
    store.close().await.unwrap();
}

async fn j2_ten_thousand_transitions_at_once_are_few_commits(stage: Stage) {
    let many = stage.portion(10_000);
    let store = stage.open().await;
    let items = (0..many).map(|number| registration(&format!("batch_{number}"))).collect();
    let registered = store.register(items, routes(&[])).await.unwrap();
    let before = store.commit_stats().count;
    let routes = routes(&["pipeline"]);
    let recording = registered.iter().map(|one| {
        let step = look(&one.tracked, Status::Completed, seconds(1));
        store.record(one.pk, step, Arc::clone(&routes))
    });
    let recorded = futures_util::future::join_all(recording).await;
    assert!(recorded.into_iter().all(|result| result == Ok(1)));
    let commits = store.commit_stats().count - before;
    assert!(commits < 500, "{commits} commits for {many} transitions");
    let events = store.events(EventFilter::default()).await.unwrap();
    assert_eq!(events.len(), many);
    assert!(events.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence));
    assert_eq!(store.deliveries(DeliveryFilter::default()).await.unwrap().0.len(), many);
    let stats = store.commit_stats();
    assert_eq!(stats.buckets.iter().map(|(_, count)| count).sum::<u64>(), stats.count);
    assert!(stats.seconds_total > 0.0);
    store.close().await.unwrap();
    stage.assert_sound();
}
