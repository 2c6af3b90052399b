//! From a file to a server and back: the same rows, and numbers that go on.

use super::stage::{Stage, dumped_file};
use super::*;
use batchd::domain::event::Draft;
use batchd::store::events::EventFilter;

/// All tables but those that say whose database it is.
const ALL: [&str; 22] = [
    "attempts",
    "batches",
    "checks",
    "classes",
    "counted",
    "creations",
    "deliveries",
    "discovery",
    "durations",
    "events",
    "fences",
    "files",
    "jobs",
    "learnt",
    "passed_over",
    "providers",
    "queue",
    "retention",
    "spending",
    "submissions",
    "transitions",
    "webhooks",
];

/// Some of everything, and numbers that were given and are gone.
async fn fill(store: &Store) {
    super::fixture::fill(store).await;
    let mut odd = registration("batch_odd");
    odd.tracked.name = Some("tab\tnewline\n\\N \\ 'quotes' \"two\" \u{202e}💥".to_owned());
    odd.tracked.labels = BTreeMap::from([("a\tb".to_owned(), "\\n\n".to_owned())]);
    store.register(vec![odd], routes(&[])).await.unwrap();
    let gone = track(store, "batch_gone").await;
    see(store, gone, Status::Completed, 5, &["pipeline"]).await;
    store.purge(gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_moves_to_a_server_and_back_into_a_file_with_every_row_and_its_numbers() {
    let Some(server) = Stage::server() else { return };
    let file = Stage::file();
    let store = file.open().await;
    fill(&store).await;
    let (sequence, newest) = (store.last_sequence().await.unwrap(), store.schedule().await.unwrap());
    store.close().await.unwrap();
    // What an older release wrote, where U+0000 was kept.
    file.execute(
        "UPDATE events SET body = replace(body, 'no answer', 'no \\u0000 answer') WHERE batch IS NULL",
    );
    let before = file.dump(&ALL);
    assert!(before.iter().any(|row| row.contains("\\\\u0000")));
    let told: Vec<_> = before.iter().filter(|row| row.starts_with("events ")).collect();
    assert!(told.len() < usize::try_from(sequence).unwrap(), "the newest event is gone");

    let moved = Store::import(file.dir(), server.connector(), EPOCH).await.unwrap();
    assert_eq!((moved.batches, moved.events), (4, told.len() as u64));
    // As every start does, it makes due what was under way.
    let left = file.dump(&ALL).into_iter().map(|row| row.replace("\\\\u0000", "\u{fffd}"));
    assert_eq!(server.dump(&ALL), left.collect::<Vec<_>>());
    let refused = Store::import(file.dir(), server.connector(), EPOCH).await.unwrap_err().to_string();
    assert!(refused.contains("127.0.0.1"), "{refused}");
    assert!(Store::open(file.dir(), still()).is_err(), "the file is left for good");

    let store = server.open().await;
    server.assert_sound();
    assert_eq!(store.last_sequence().await.unwrap(), sequence);
    assert_eq!(store.schedule().await.unwrap(), newest);
    // The row numbers of batches are used again, those of events never.
    let numbered = go_on(&store, "batch_later").await;
    assert_eq!(numbered, (5, sequence + 1));
    assert_eq!(see(&store, 1, Status::Completed, 200, &["pipeline"]).await, 0, "told already");

    let back = Stage::file();
    let database = back.dir().join("batchd.db");
    store.copy_to(&database).await.unwrap();
    let aside = store.copy_aside().await.unwrap();
    let held = server.dump(&ALL);
    assert_eq!(dumped_file(&database, &ALL), held);
    assert_eq!(dumped_file(&aside, &ALL), held);
    store.close().await.unwrap();

    let store = back.open().await;
    store.check_whole().await.unwrap();
    assert_eq!(go_on(&store, "batch_last").await, (6, sequence + 2));
    store.close().await.unwrap();
    back.assert_sound();
}

/// Tracks a batch and tells of its end; the numbers of both.
async fn go_on(store: &Store, id: &str) -> (Pk, i64) {
    let pk = track(store, id).await;
    see(store, pk, Status::Completed, 9, &["pipeline"]).await;
    let told = EventFilter { batch: Some(key(id)), ..EventFilter::default() };
    (pk, store.events(told).await.unwrap()[0].sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_a_state_takes_no_other() {
    let Some(server) = Stage::server() else { return };
    let store = server.open().await;
    let draft = Draft::about_provider(EventType::ProviderUnreachable, "openai", "no", EPOCH, EPOCH);
    store.record_event(draft, routes(&[])).await.unwrap();
    store.close().await.unwrap();
    let before = server.dump(&ALL);
    let file = Stage::file();
    let store = file.open().await;
    fill(&store).await;
    store.close().await.unwrap();
    let refused = Store::import(file.dir(), server.connector(), EPOCH).await.unwrap_err().to_string();
    assert!(refused.contains("name an empty schema"), "{refused}");
    assert_eq!(server.dump(&ALL), before);
    file.open().await.close().await.unwrap();
}
