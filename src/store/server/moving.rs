//! What leads from a file to a server and back: `batchd state import`, and backups of a server's state.

use super::super::connection;
use super::super::database;
use super::super::directory;
use super::super::error::{OpenError, StoreError};
use super::super::lock::{Lock, Marks};
use super::super::migrate as file_schema;
use super::super::state::Store;
use super::connect::Connector;
use super::copying;
use super::migrate;
use super::refusal::Refusal;
use super::session::{Server, Session};
use crate::tasks;
use jiff::Timestamp;
use rusqlite::Connection;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What has moved to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub batches: u64,
    pub events: u64,
    /// The server, as people know it.
    pub host: String,
}

impl Store {
    /// Moves the state in `dir`, which no daemon may use, to a server whose tables are empty or not there. From then on a
    /// daemon refuses the directory and says where its state is.
    ///
    /// In one transaction: a failure leaves the server as it was.
    pub async fn import(dir: &Path, connector: Connector, now: Timestamp) -> Result<Moved, OpenError> {
        let connected = connector.connect().await?;
        let server = Arc::new(Server::new(connector));
        let dir = dir.to_owned();
        let moving = tasks::begin_waiting({
            let dir = dir.clone();
            move || {
                let host = connected.host.clone();
                let session = Session::new(server);
                session.take(connected);
                import(&dir, &session, &host, now)
            }
        });
        moving.await.map_err(|error| OpenError::Unwritable { dir, what: error.to_string() })?
    }
}

fn import(dir: &Path, session: &Session, host: &str, now: Timestamp) -> Result<Moved, OpenError> {
    if database::length(&database::file(dir)).is_none_or(|length| length == 0) {
        return Err(OpenError::Absent { dir: dir.to_owned() });
    }
    let lock = Lock::take(dir)?;
    if let Some(to) = &lock.left.moved {
        return Err(OpenError::Moved { dir: dir.to_owned(), to: to.clone() });
    }
    let opened = connection::open_writable(dir, &lock, LOCK_TIMEOUT, now)?;
    migrate::migrate(session, host)?;
    let counts = copying::to_server(&opened.connection, session).map_err(|error| match error {
        StoreError::Internal(what) => OpenError::Server(Refusal::Unexpected(what)),
        other => session.refusal(other),
    })?;
    let marks = Marks { moved: Some(host.to_owned()), ..lock.marks() };
    lock.write(&marks, now)?;
    let count = |table: &str| counts.get(table).copied().unwrap_or_default();
    Ok(Moved { batches: count("batches"), events: count("events"), host: host.to_owned() })
}

/// Makes a copy of what the server holds at one moment, as a file.
pub(in super::super) fn copy_into(session: &Session, path: &Path) -> Result<(), StoreError> {
    let copied = write_copy(session, path);
    if copied.is_err() {
        let _ = std::fs::remove_file(path);
    }
    copied
}

fn write_copy(session: &Session, path: &Path) -> Result<(), StoreError> {
    // A copy that was begun and never finished.
    let _ = std::fs::remove_file(path);
    directory::make_private(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = Connection::open(path)?;
    file.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    file.pragma_update(None, "journal_mode", "DELETE")?;
    file_schema::migrate(&mut file, file_schema::SCHEMAS, dir)
        .map_err(|error| StoreError::Io(error.to_string()))?;
    file.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; BEGIN")?;
    copying::from_server(session, &file)?;
    file.execute_batch("COMMIT")?;
    drop(file);
    Ok(File::open(path).and_then(|file| file.sync_all())?)
}

/// How long the import waits for another program that has the database locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
