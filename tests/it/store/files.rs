//! Uploaded files: what is kept, for how long, and what a crash or an older state leaves.

use super::*;
use batchd::domain::tracked::Lineage;
use batchd::store::StoreError;
use batchd::store::creations::Asked;
use batchd::store::files::{Deletion, FilePage, StoredFile};
use batchd::store::submissions::Submission;
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::ops::Range;
use std::time::Duration;

/// Keeps a file of this content.
async fn keep(store: &Store, id: &str, content: &'static [u8], expires_at: Option<Timestamp>) -> bool {
    let upload = store.begin_upload(id).await.unwrap();
    let uploaded = upload.add(vec![Bytes::from_static(content)]).await.unwrap().finish().await.unwrap();
    let file = StoredFile {
        id: id.to_owned(),
        name: "in.jsonl".to_owned(),
        bytes: uploaded.bytes,
        sha256: uploaded.sha256.clone(),
        created_at: EPOCH,
        expires_at,
        owner: None,
    };
    store.add_file(uploaded, file, 1000).await.unwrap()
}

fn contents(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("files")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn before(at: Timestamp) -> Vec<Range<i64>> {
    std::iter::once(i64::MIN..at.as_millisecond()).collect()
}

async fn ids(store: &Store, now: Timestamp) -> Vec<String> {
    let page = FilePage { limit: 100, ascending: true, ..FilePage::default() };
    store.files(page, now).await.unwrap().unwrap().0.into_iter().map(|file| file.id).collect()
}

#[tokio::test]
async fn what_is_kept_is_there_whole_and_what_is_not_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    assert!(keep(&store, "a", b"hello", None).await);
    assert!(keep(&store, "b", &[b'x'; 990], None).await);
    assert!(!keep(&store, "c", &[b'x'; 6], None).await, "with it there would be too much");
    drop(store.begin_upload("d").await.unwrap().add(vec![Bytes::from_static(b"half")]).await.unwrap());
    drop(store.begin_upload("e").await.unwrap().finish().await.unwrap());
    assert_eq!(contents(dir.path()), ["a", "b"]);
    assert_eq!((store.file_bytes().await.unwrap(), ids(&store, EPOCH).await.len()), (995, 2));
    let file = store.file("a".to_owned(), EPOCH).await.unwrap().unwrap();
    assert_eq!(file.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    let content = store.file_content("a", 5).await.unwrap().unwrap();
    let pieces: Vec<Bytes> = content.pieces().map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"hello");
    assert!(store.file_content("a", 6).await.unwrap().is_none(), "it is not as long as it was");
    assert!(store.file_content("z", 5).await.unwrap().is_none());
}

/// A process that died has left what it did not finish, and what it did not register.
#[tokio::test]
async fn what_a_crash_leaves_goes_and_what_an_older_state_has_not_stays_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    keep(&store, "a", b"hello", None).await;
    store.close().await.unwrap();
    let now = Clock::system().now();
    for (name, age) in [("half.part", 0), ("young", 23), ("old", 25)] {
        let path = dir.path().join("files").join(name);
        std::fs::write(&path, "x").unwrap();
        let at = now - jiff::SignedDuration::from_hours(age);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(at.into()).unwrap();
    }
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    assert_eq!(contents(dir.path()), ["a", "old", "young"]);
    store.prune_files(Vec::new(), now).await.unwrap();
    assert_eq!(contents(dir.path()), ["a", "young"]);
}

#[tokio::test]
async fn a_file_goes_after_its_last_use_and_stays_while_a_batch_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    for id in ["unused", "read", "running", "ended", "coming"] {
        keep(&store, id, b"x", None).await;
    }
    keep(&store, "expiring", b"x", Some(seconds(3600))).await;
    for id in ["read", "expiring"] {
        store.use_file(id.to_owned(), seconds(500)).await.unwrap();
    }
    for (id, status) in [("running", Status::InProgress), ("ended", Status::Completed)] {
        let mut item = registration(&format!("batch_{id}"));
        item.tracked.uploaded_file = Some(id.to_owned());
        let registered = store.register(vec![item], routes(&[])).await.unwrap();
        see(&store, registered[0].pk, status, 10, &[]).await;
    }
    let submission = Submission {
        marker: "bd-1".to_owned(),
        provider: "openai".to_owned(),
        endpoint: "/v1/responses".to_owned(),
        model: None,
        requests: 1,
        file_name: "in.jsonl".to_owned(),
        uploaded_file: Some("coming".to_owned()),
        input_file: None,
        lineage: Lineage::default(),
        metadata: BTreeMap::new(),
        user_fields: UserFields::default(),
        owner: None,
        begun_at: EPOCH,
        lost_at: None,
        candidates: Vec::new(),
        trouble: None,
    };
    store.open_submission(submission, None).await.unwrap();
    assert_eq!(store.delete_file("running".to_owned(), EPOCH).await.unwrap(), Deletion::InUse);
    assert_eq!(store.delete_file("coming".to_owned(), EPOCH).await.unwrap(), Deletion::InUse);
    assert_eq!(store.delete_file("nothing".to_owned(), EPOCH).await.unwrap(), Deletion::Absent);

    assert_eq!(store.prune_files(before(seconds(100)), seconds(100)).await.unwrap(), 2);
    assert_eq!(contents(dir.path()), ["coming", "expiring", "read", "running"]);
    assert_eq!(ids(&store, seconds(3600)).await, ["read", "running", "coming"], "it is gone when it says");
    assert!(store.file("expiring".to_owned(), seconds(3600)).await.unwrap().is_none());
    assert_eq!(store.prune_files(before(seconds(100)), seconds(3600)).await.unwrap(), 1);
    store.drop_submission("bd-1".to_owned()).await.unwrap();
    let after = store.prune_files(before(seconds(1000)), seconds(1000)).await.unwrap();
    assert_eq!((after, contents(dir.path())), (2, vec!["running".to_owned()]));
}

#[tokio::test]
async fn ten_thousand_files_are_listed_page_by_page() {
    const COUNT: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path(), Clock::system()).unwrap().close().await.unwrap();
    raw(dir.path())
        .execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT})
             INSERT INTO files (id, name, bytes, sha256, created_at, used_at)
             SELECT 'f' || i, 'in.jsonl', 1, '', 0, 0 FROM n"
        ))
        .unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = FilePage { after, limit: 300, ascending: false };
        let (files, more) = store.files(page, EPOCH).await.unwrap().unwrap();
        seen += files.len();
        after = files.last().map(|file| file.id.clone());
        if !more {
            break;
        }
    }
    assert_eq!((seen, after.as_deref()), (COUNT, Some("f1")));
    let absent = FilePage { after: Some("nothing".to_owned()), limit: 1, ascending: false };
    assert_eq!(store.files(absent, EPOCH).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_known_for_a_day_and_a_request_for_ten_minutes() -> Result<(), StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let asked =
        |key: Option<&str>, request: &str| Asked { key: key.map(str::to_owned), request: request.to_owned() };
    let open = async |marker: &str, asked: Asked| {
        let submission = Submission {
            marker: marker.to_owned(),
            provider: "openai".to_owned(),
            endpoint: "/v1/responses".to_owned(),
            model: None,
            requests: 1,
            file_name: "in.jsonl".to_owned(),
            uploaded_file: None,
            input_file: None,
            lineage: Lineage::default(),
            metadata: BTreeMap::new(),
            user_fields: UserFields::default(),
            owner: None,
            begun_at: EPOCH,
            lost_at: None,
            candidates: Vec::new(),
            trouble: None,
        };
        store.open_submission(submission, Some(asked)).await
    };
    open("bd-1", asked(Some("k"), "a")).await?;
    let now = still().now();
    let before = async |wanted: Asked, after: Duration| {
        let found = store.asked_before(wanted, batchd::domain::time::later(now, after)).await.unwrap();
        found.map(|before| (before.marker, before.batch.map(|key| key.id)))
    };
    let moment = Duration::from_secs(1);
    assert_eq!(before(asked(Some("k"), "b"), moment).await, Some(("bd-1".to_owned(), None)));
    store.complete_submission("bd-1".to_owned(), registration("batch_1"), routes(&[])).await?;
    let known = Some(("bd-1".to_owned(), Some("batch_1".to_owned())));
    assert_eq!(before(asked(Some("k"), "a"), Duration::from_hours(23)).await, known);
    assert_eq!(before(asked(Some("k"), "a"), Duration::from_hours(24)).await, None);
    assert_eq!(before(asked(None, "a"), Duration::from_mins(9)).await, known);
    assert_eq!(before(asked(None, "a"), Duration::from_mins(10)).await, None);
    assert_eq!(before(asked(None, "b"), moment).await, None);
    // What created nothing is not known, and what a person has found is.
    open("bd-2", asked(Some("l"), "b")).await?;
    store.drop_submission("bd-2".to_owned()).await?;
    assert_eq!(before(asked(Some("l"), "b"), moment).await, None);
    open("bd-3", asked(Some("m"), "c")).await?;
    store.doubt_submission("bd-3".to_owned(), vec!["batch_3".to_owned()], None).await?;
    store.register(vec![registration("batch_3")], routes(&[])).await?;
    assert_eq!(
        before(asked(Some("m"), "c"), moment).await,
        Some(("bd-3".to_owned(), Some("batch_3".to_owned())))
    );
    Ok(())
}
