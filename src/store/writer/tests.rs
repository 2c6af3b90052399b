//! Operations beside each other in one transaction, and what a commit that fails leaves.

use super::*;
use crate::store::Store;
use crate::store::jobs::JobRun;
use rusqlite::ffi;

async fn note(store: &Store, name: &'static str) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            tx.execute("INSERT INTO jobs VALUES (?1, 0, 0, NULL)", [name])?;
            Ok(())
        })
        .await
}

async fn names(store: &Store) -> Vec<String> {
    store.job_runs().await.unwrap().into_iter().map(|run| run.name).collect()
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_fails_or_panics_fails_alone_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let events = store.watch_events();
    let failing = store.write(|tx| {
        tx.execute("INSERT INTO jobs VALUES ('failing', 0, 0, NULL)", [])?;
        tx.tell_event(7, EventType::Test);
        tx.tell_webhook("pipeline");
        Err::<(), _>(StoreError::Internal("as it must".to_owned()))
    });
    let panicking = store.write(|tx| {
        tx.execute("INSERT INTO jobs VALUES ('panicking', 0, 0, NULL)", [])?;
        std::panic::panic_any("a panic that is caught");
        #[expect(unreachable_code, reason = "it names the type")]
        Ok(())
    });
    let broken = store.write(|tx| tx.execute("INSERT INTO nowhere VALUES (1)", []).map(drop));
    let before = store.commit_stats().count;
    let (first, failing, panicking, broken, last) =
        tokio::join!(note(&store, "first"), failing, panicking, broken, note(&store, "last"));
    assert_eq!((first, last), (Ok(()), Ok(())));
    assert_eq!(failing, Err(StoreError::Internal("as it must".to_owned())));
    assert!(matches!(panicking, Err(StoreError::Internal(what)) if what.contains("panicked")));
    assert!(matches!(broken, Err(StoreError::Internal(what)) if what.contains("nowhere")));
    assert_eq!(names(&store).await, ["first", "last"]);
    assert_eq!(store.commit_stats().count, before + 1, "one commit for all");
    assert!(!events.has_changed().unwrap(), "what is not there is not told");
    assert_eq!(store.recorded_by_type(), []);
    store.healthy().await.unwrap();
}

/// A job of many that are noted together.
struct Noted {
    name: &'static str,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Well,
    Badly,
    InPanic,
}

impl Many for Noted {
    type Answer = &'static str;

    fn key(&self) -> Option<Pk> {
        self.name.strip_prefix("same").map(|_| 1)
    }

    fn all(tx: &mut Tx<'_>, noted: &[Self]) -> Result<Vec<&'static str>, StoreError> {
        let names: BTreeSet<&str> = noted.iter().map(|of| of.name).collect();
        assert!(names.iter().filter(|name| name.starts_with("same")).count() < 2);
        for Self { name, ends } in noted {
            tx.execute("INSERT INTO jobs VALUES (?1, 0, 0, NULL)", [name])?;
            tx.tell_webhook(name);
            if *ends == Ends::InPanic {
                std::panic::panic_any("a panic that is caught");
            }
        }
        if noted.iter().any(|of| of.ends == Ends::Badly) {
            return Err(StoreError::Internal("as it must".to_owned()));
        }
        Ok(noted.iter().map(|of| of.name).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_are_written_together_one_that_fails_or_panics_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let watched = ["failing", "panicking"].map(|name| store.watch_deliveries(name));
    let named = |name| store.write_in_set(Noted { name, ends: Ends::Well });
    let failing = store.write_in_set(Noted { name: "failing", ends: Ends::Badly });
    let panicking = store.write_in_set(Noted { name: "panicking", ends: Ends::InPanic });
    let before = store.commit_stats().count;
    let (first, failing, alone, panicking, one, other, last) = tokio::join!(
        named("first"),
        failing,
        note(&store, "alone"),
        panicking,
        named("same 1"),
        named("same 2"),
        named("last")
    );
    assert_eq!((first, one, other, last), (Ok("first"), Ok("same 1"), Ok("same 2"), Ok("last")));
    assert_eq!(failing, Err(StoreError::Internal("as it must".to_owned())));
    assert!(matches!(panicking, Err(StoreError::Internal(what)) if what.contains("panicked")));
    assert_eq!(alone, Ok(()));
    assert_eq!(names(&store).await, ["alone", "first", "last", "same 1", "same 2"]);
    assert_eq!(store.commit_stats().count, before + 1, "one commit for all");
    assert!(watched.iter().all(|watched| !watched.has_changed().unwrap()), "what is not there is not told");
    // A name that is taken keeps the others of its set from nothing.
    let (taken, new) = tokio::join!(named("first"), named("new"));
    assert!(taken.is_err());
    assert_eq!(new, Ok("new"));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_answered_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    // A commit that fails takes back what its operations did.
    let deferred = store.write(|tx| {
        tx.control("PRAGMA defer_foreign_keys = ON")?;
        tx.execute(
            "INSERT INTO transitions (batch, to_status, observed_at) VALUES (99, 'completed', 0)",
            [],
        )?;
        Ok(())
    });
    let (neighbour, deferred) = tokio::join!(note(&store, "neighbour"), deferred);
    assert!(neighbour.is_err() && deferred.is_err());
    assert!(names(&store).await.is_empty());
    store.healthy().await.unwrap();
    note(&store, "next").await.unwrap();
    assert_eq!(names(&store).await, ["next"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_undo() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    {
        let mut write = Box::pin(note(&store, "abandoned"));
        assert!(futures_util::poll!(&mut write).is_pending());
    }
    note(&store, "next").await.unwrap();
    assert_eq!(names(&store).await, ["abandoned", "next"]);
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_disk_is_written_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let fsync = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
    let failing = store.writer().unwrap().alone(move |core| {
        let mut open = lock(&core.open);
        let open = open.as_mut().ok_or(StoreError::Closed)?;
        let failing = move |transaction: &mut Tx<'_>| {
            let _ = transaction.control("ROLLBACK");
            Err::<(), StoreError>(rusqlite::Error::SqliteFailure(fsync, None).into())
        };
        let failing = Write::alone(failing, oneshot::channel().0);
        let terms = Terms { now: Timestamp::UNIX_EPOCH, prices: Arc::default() };
        open.transact(vec![failing], &BTreeMap::new(), &core.reckoner, terms, &mut Vec::new()).map(drop)
    });
    assert!(matches!(failing.await, Err(StoreError::Io(_))));
    assert!(matches!(note(&store, "more").await, Err(StoreError::Io(_))));
    assert!(matches!(store.healthy().await, Err(StoreError::Io(_))));
    assert!(names(&store).await.is_empty(), "reading goes on");
}

#[tokio::test]
async fn without_its_runtime_the_writer_says_that_it_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let open = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { Store::open(&path, Clock::system()).unwrap() })
    });
    let store = open.join().unwrap();
    let run = JobRun {
        name: "prune".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        error: None,
    };
    let error = store.set_job_run(run).await.unwrap_err();
    assert!(matches!(&error, StoreError::Internal(what) if what.contains("has stopped")), "{error}");
}
