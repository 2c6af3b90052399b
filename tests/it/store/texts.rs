//! Whatever text there is, it survives on a file and on a server, and reads the same on both.

use super::stage::Stage;
use super::*;
use batchd::domain::event::Draft;
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Text of pieces that mean something to a parser of SQL, of JSON, or of what a server is sent.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\0", "\\u0000", "\\", "\\\\", "\"", "'", "''", "\n", "\t", "\\N", "%", "_", "$1", "?1", ":name",
            "{", "}", "--", "/*", "💥", "é", "\u{202e}", "\u{fffd}", "\u{1}", "\u{7f}", "a",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What is stored of it.
fn kept(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A batch with such text wherever there can be some.
fn full(id: &str, texts: &[String]) -> Registration {
    let one = |at: usize| texts[at % texts.len()].clone();
    let mut item = registration(id);
    item.tracked.name = Some(one(0));
    item.tracked.labels = BTreeMap::from([(one(1), one(2))]);
    item.tracked.owner = Some(one(3));
    item.tracked.console_url = Some(one(4));
    item.tracked.warned.insert(one(5));
    item.tracked.batch.model = Some(one(6));
    item.tracked.batch.output_file_id = Some(one(7));
    item.tracked.batch.metadata = Some(BTreeMap::from([(one(8), one(9))]));
    item
}

/// Stores it, tells of it, and reads all that again, as text.
async fn round(store: &Store, id: &str, texts: &[String]) -> String {
    let item = full(id, texts);
    let (label, owner) = (item.tracked.labels.clone(), item.tracked.owner.clone());
    let pk = store.register(vec![item], routes(&[])).await.unwrap()[0].pk;
    see(store, pk, Status::Completed, 1, &["pipeline"]).await;
    let (_, found) = store.get(key(id)).await.unwrap().unwrap();
    assert_eq!(found.name, Some(kept(&texts[0])));
    assert_eq!(found.labels, label.iter().map(|(key, value)| (kept(key), kept(value))).collect());
    assert_eq!(found.owner, owner.as_deref().map(kept));
    let told = EventFilter { batch: Some(key(id)), ..EventFilter::default() };
    let bodies: Vec<String> = store.events(told).await.unwrap().into_iter().map(|event| event.body).collect();
    let listed =
        store.list(BatchFilter { labels: found.labels.clone(), ..BatchFilter::default() }).await.unwrap().0;
    assert!(listed.iter().any(|(its, _)| *its == pk), "it is found by its label: {label:?}");
    let draft =
        Draft::about_provider(EventType::ProviderUnreachable, "openai", &texts[1], seconds(pk), seconds(pk));
    assert!(store.record_event(draft, routes(&["ops"])).await.unwrap());
    let newest = store.last_sequence().await.unwrap() - 1;
    let apart = store.events(EventFilter { after: newest, ..EventFilter::default() }).await.unwrap();
    format!("{found:?} {bodies:?} {:?}", apart[0].body)
}

#[test]
fn text_of_any_kind_reads_the_same_on_both() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let _entered = runtime.enter();
    let Some(server) = Stage::server() else { return };
    let file = Stage::file();
    let (here, there) = runtime.block_on(async { (file.open().await, server.open().await) });
    let number = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    runner
        .run(&prop::collection::vec(text(), 2..10), |texts| {
            number.set(number.get() + 1);
            let id = format!("batch_{}", number.get());
            let (one, other) = runtime
                .block_on(async { (round(&here, &id, &texts).await, round(&there, &id, &texts).await) });
            prop_assert_eq!(one, other);
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        // Reading what stands in JSON stumbles over none of it.
        for store in [&here, &there] {
            let search = BatchFilter { search: Some("\\%_'".to_owned()), ..BatchFilter::default() };
            store.list(search).await.unwrap();
            store.unpriced().await.unwrap();
            let well = Draft::about_provider(EventType::ProviderRecovered, "openai", "", EPOCH, seconds(1));
            store.record_event(well, routes(&["ops"])).await.unwrap();
        }
        let counts = (here.counts().await.unwrap(), there.counts().await.unwrap());
        assert_eq!(counts.0, counts.1);
        here.close().await.unwrap();
        there.close().await.unwrap();
    });
    file.assert_sound();
    server.assert_sound();
}

#[test]
fn a_megabyte_of_metadata_and_the_longest_names_survive() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let _entered = runtime.enter();
    let Some(server) = Stage::server() else { return };
    let file = Stage::file();
    // No compression makes it short.
    let mut random = 7_u64;
    let mut noise = |length: usize| {
        let letter = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((random >> 33) % 26).unwrap())
        };
        (0..length).map(letter).collect::<String>()
    };
    let id = noise(512);
    let mut item = registration(&id);
    item.tracked.batch.metadata = Some(BTreeMap::from([("all".to_owned(), noise(1 << 20))]));
    item.tracked.batch.output_file_id = Some(noise(5000));
    item.tracked.uploaded_file = Some(noise(5000));
    item.tracked.name = Some(noise(5000));
    runtime.block_on(async {
        for stage in [&file, &server] {
            let store = stage.open().await;
            store.register(vec![item.clone()], routes(&[])).await.unwrap();
            assert_eq!(store.get(key(&id)).await.unwrap().unwrap().1, item.tracked);
            store.close().await.unwrap();
            stage.assert_sound();
        }
    });
}
