//! Opening the state: for the daemon, or beside it for reading.

use super::damage::Damage;
use super::directory;
use super::error::{OpenError, StoreError};
use super::file_check::FileCheck;
use super::file_writer::FileWriter;
use super::holdings::Holdings;
use super::lock::{self, Lock};
use super::reader::Readers;
use super::reckoning::Reckoner;
use super::sql::{Connection, Sql};
use super::state::{Daemon, Store};
use super::writer::{Open, Writer};
use super::{connection, database, telling, uploads};
use crate::clock::Clock;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

impl Store {
    /// Opens (or makes) the state in `dir` for the daemon: locks it, checks it, migrates it, and makes due what
    /// was under way when the last daemon died.
    ///
    /// Must be called inside a tokio runtime. On a current-thread runtime everything runs inline, so that
    /// simulations do the same every time; on others on the threads for blocking work.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        Self::open_within(dir, clock, LOCK_TIMEOUT)
    }

    fn open_within(dir: &Path, clock: Clock, timeout: Duration) -> Result<Self, OpenError> {
        directory::prepare(dir)?;
        refuse_links(dir)?;
        let lock = Lock::take(dir)?;
        if let Some(to) = lock.left.moved.clone() {
            return Err(OpenError::Moved { dir: dir.to_owned(), to });
        }
        directory::remove_stale_copies(dir);
        uploads::remove_unfinished(&uploads::usual(dir));
        let opened = connection::open_writable(dir, &lock, timeout, clock.now())?;
        let readers = Readers::new(
            [connection::open_readable(dir)?, connection::open_readable(dir)?].map(Connection::File),
        );
        directory::set_ballast(dir);

        let locked = lock.identity().map_err(|error| directory::unwritable(dir, &lock::path(dir), &error))?;
        let newest = telling::last_sequence(&Sql::File(&opened.connection))
            .map_err(|error| database::damaged(dir, error))?;
        let open = FileCheck::begin(dir).and_then(|check| {
            let reckoner = Reckoner::begin(&Sql::File(&opened.connection), clock.clone())?;
            Ok((FileWriter::new(opened.connection, check, lock, dir)?, Arc::new(reckoner)))
        });
        let (open, reckoner) = open.map_err(|error| match error {
            StoreError::Damaged(what) => database::damaged(dir, what),
            other => OpenError::Unwritable { dir: dir.to_owned(), what: other.to_string() },
        })?;
        let damage = Damage::default();
        let lock_file = (lock::path(dir), locked);
        let (followed, followed_by) = ((clock.clone(), Arc::clone(&reckoner)), clock.clone());
        let writer = Writer::start(Open::File(open), damage.clone(), followed, newest);
        let daemon = Daemon {
            writer,
            lock_file: Some(lock_file),
            checked: opened.checked,
            asked_at: AtomicI64::new(i64::MIN),
            clock,
            reckoner,
            held_back: AtomicU64::new(0),
            directory_lock: Mutex::default(),
            holdings: Holdings::everything(followed_by),
            server: None,
        };
        Ok(Self::of(dir, damage, readers, Some(daemon), None))
    }

    /// Opens existing state for reading only, beside a daemon or without one.
    pub fn open_offline(dir: &Path) -> Result<Self, OpenError> {
        refuse_links(dir)?;
        let readers = Readers::new([Connection::File(connection::open_offline(dir)?)]);
        Ok(Self::of(dir, Damage::default(), readers, None, None))
    }
}

fn refuse_links(dir: &Path) -> Result<(), OpenError> {
    directory::refuse_links(
        dir,
        &[database::file(dir), database::log(dir), database::index(dir), lock::path(dir)],
    )
}

/// How long opening waits for another program that has the database locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn refused(dir: &Path) -> String {
        let refused = Store::open_within(dir, Clock::system(), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        refused.to_string()
    }

    #[tokio::test]
    async fn d7_a_database_that_another_program_has_locked_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(database::file(dir.path())).unwrap();
        other.execute_batch("CREATE TABLE theirs (x); BEGIN EXCLUSIVE").unwrap();
        assert!(refused(dir.path()).contains("another program has"));

        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path(), Clock::system()).unwrap().close().await.unwrap();
        let other = Connection::open(database::file(dir.path())).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(refused(dir.path()).contains("`fuser` names it"));
        other.execute_batch("ROLLBACK").unwrap();
        Store::open(dir.path(), Clock::system()).unwrap();
    }
}
