//! The open state directory: reading, writing, closing and its health.

use super::commit_stats::CommitStats;
use super::damage::Damage;
use super::database;
use super::directory::{self, Identity};
use super::error::StoreError;
use super::file_check::replaced;
use super::holdings::Holdings;
use super::lock::Lock;
use super::operations::Many;
use super::reader::Readers;
use super::reckoning::Reckoner;
use super::server::leases::MemberView;
use super::server::session::Server;
use super::sql::Sql;
use super::threads::off_thread;
use super::transaction::Tx;
use super::writer::{Core, Writer};
use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::sync::lock;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

/// The open state directory. Cheap to clone; all clones are one store.
///
/// Dropping the last clone without [`Store::close`] is what a crash is: nothing is lost, nothing is tidied.
#[derive(Clone, Debug)]
pub struct Store(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    damage: Damage,
    readers: Readers,
    /// `None`: opened for reading only.
    pub(super) daemon: Option<Daemon>,
    /// The server that holds the state; `None`: it is in a file.
    pub(super) server: Option<Arc<Server>>,
    /// Where contents of files are, if not below `dir`.
    pub(super) files: OnceLock<PathBuf>,
}

impl Inner {
    pub(super) fn shared_server(&self) -> Option<Arc<Server>> {
        self.server.clone()
    }
}

/// What only the daemon's store has.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) writer: Writer,
    /// `None`: the state is on a server.
    pub(super) lock_file: Option<(PathBuf, Identity)>,
    pub(super) checked: bool,
    /// The time, in Unix milliseconds, when somebody last asked what is due.
    pub(super) asked_at: AtomicI64,
    pub(super) clock: Clock,
    pub(super) reckoner: Arc<Reckoner>,
    /// Ended batches that pruning kept although they are old.
    pub(super) held_back: AtomicU64,
    /// Of the directory with this daemon's own files, where the state is on a server.
    pub(super) directory_lock: Mutex<Option<Lock>>,
    pub(super) holdings: Holdings,
    /// The server that holds the state, as people know it.
    pub(super) server: Option<String>,
}

impl Store {
    pub(super) fn of(
        dir: &Path,
        damage: Damage,
        readers: Readers,
        daemon: Option<Daemon>,
        server: Option<Arc<Server>>,
    ) -> Self {
        let (dir, files) = (dir.to_owned(), OnceLock::new());
        Self(Arc::new(Inner { dir, damage, readers, daemon, server, files }))
    }

    /// Resolves once any read or write has met with damage; from then on nothing is written.
    pub async fn is_damaged(&self) -> StoreError {
        self.0.damage.comes().await
    }

    /// The damage that a read or a write has met with.
    pub fn known_damage(&self) -> Option<StoreError> {
        self.0.damage.known()
    }

    /// Writes what waits, shortens the log and closes. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        if self.0.damage.known().is_none()
            && let Err(error) = self.keep_reckoning().await
        {
            tracing::debug!("cannot note how much time has passed: {error}");
        }
        self.0.readers.close().await;
        match &self.0.daemon {
            Some(daemon) => {
                let closed = self.0.damage.noted(daemon.writer.alone(Core::close).await);
                lock(&daemon.directory_lock).take();
                closed
            }
            None => Ok(()),
        }
    }

    /// Whether opening checked the whole file; if not (it is large), [`Store::check_whole`] should soon.
    pub fn was_checked(&self) -> bool {
        self.0.daemon.as_ref().is_some_and(|daemon| daemon.checked)
    }

    /// Checks the whole file; may take long, and holds up nothing.
    pub async fn check_whole(&self) -> Result<(), StoreError> {
        if self.is_on_server() {
            return Ok(());
        }
        let found = self.apart(|connection, _| Ok(database::check(connection, "integrity_check")?)).await?;
        self.0.damage.noted(found.map_err(StoreError::Damaged))
    }

    /// Copies the log into the database and empties it: now and then, so that it does not grow. Not an error if
    /// somebody reads just now; the next one will do it.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.0.damage.noted(self.writer()?.alone(Core::checkpoint).await)
    }

    /// Whether the files are still as the last commit left them. Some `stat`s; what it finds is damage.
    pub async fn check_files(&self) -> Result<(), StoreError> {
        self.0.damage.none_yet()?;
        let Some(daemon) = &self.0.daemon else { return Ok(()) };
        let Some((path, before)) = daemon.lock_file.clone() else { return Ok(()) };
        let core = Arc::clone(&daemon.writer.core);
        let checked = off_thread(move || {
            if Identity::of(&path).ok().flatten() != Some(before) {
                return Err(replaced(&path));
            }
            core.check_files()
        });
        self.0.damage.noted(checked.await?)
    }

    /// The same, and whether writing works.
    ///
    /// Writes only if the last write failed. Cheap otherwise; meant for every 30 s.
    pub async fn healthy(&self) -> Result<(), StoreError> {
        let Some(daemon) = &self.0.daemon else { return self.0.damage.none_yet() };
        let core = Arc::clone(&daemon.writer.core);
        off_thread(move || core.is_over().map_or(Ok(()), Err)).await??;
        self.unreachable().map_or(Ok(()), Err)?;
        let dir = self.0.dir.clone();
        off_thread(move || directory::set_ballast(&dir)).await?;
        self.check_files().await?;
        if let Some(trouble) = daemon.writer.core.trouble() {
            // The smallest write may fit where no other does.
            if trouble == StoreError::Full && directory::is_short_of_space(&self.0.dir) {
                return Err(trouble);
            }
            self.write(|tx| tx.execute("UPDATE learnt SET at = at WHERE provider = ''", []).map(drop))
                .await?;
        }
        Ok(())
    }

    /// How long commits took, for metrics.
    pub fn commit_stats(&self) -> CommitStats {
        self.0.daemon.as_ref().map(|daemon| daemon.writer.core.commits()).unwrap_or_default()
    }

    /// For tests of a full disk: the database grows by at most `pages` pages from now on; `None`: freely.
    #[doc(hidden)]
    pub async fn limit_growth(&self, pages: Option<u32>) -> Result<(), StoreError> {
        self.writer()?.alone(move |core| core.limit_growth(pages)).await
    }

    /// Which parts of the work are this daemon's.
    pub fn holdings(&self) -> Option<Holdings> {
        self.0.daemon.as_ref().map(|daemon| daemon.holdings.clone())
    }

    /// Whether `scope` is this daemon's to work on.
    pub fn holds(&self, scope: &Scope) -> bool {
        self.0.daemon.as_ref().is_some_and(|daemon| daemon.holdings.holds(scope))
    }

    /// The same, with a number that is another once it was not in between, or what was known of it may be wrong.
    pub fn tenure(&self, scope: &Scope) -> Option<u64> {
        self.0.daemon.as_ref()?.holdings.tenure(scope)
    }

    /// A number that stays for as long as the others take this daemon for the same; `None`: the state has not answered
    /// lately, and they may have given it up.
    pub fn standing(&self) -> Option<u64> {
        self.0.daemon.as_ref()?.holdings.standing()
    }

    /// Tells those that share the state what this daemon could do, each scope with a fingerprint of how it is
    /// configured here.
    pub async fn declare(&self, scopes: BTreeMap<Scope, u64>) -> Result<(), StoreError> {
        if !self.is_on_server() {
            return Ok(());
        }
        self.writer()?.alone(move |core| core.declare(&scopes)).await
    }

    /// Gives back what is idle, as this daemon stops; `all`: whatever is under way.
    pub async fn step_down(&self, all: bool) -> Result<(), StoreError> {
        if !self.is_on_server() {
            return Ok(());
        }
        self.writer()?.alone(move |core| core.step_down(all)).await
    }

    /// The server that holds the state, as people know it; `None`: it is in a file.
    pub fn server(&self) -> Option<String> {
        self.0.daemon.as_ref()?.server.clone()
    }

    /// Why nothing can be read or written just now, where the state is on a server.
    pub fn unreachable(&self) -> Option<StoreError> {
        let holdings = &self.0.daemon.as_ref()?.holdings;
        (!holdings.is_heard()).then(|| {
            let why = "the PostgreSQL server does not answer, or takes no writes".to_owned();
            StoreError::Unreachable(why)
        })
    }

    /// The daemons that share the state; empty: it is this one's alone.
    pub fn members(&self) -> Vec<MemberView> {
        self.0.daemon.as_ref().map(|daemon| daemon.writer.core.members()).unwrap_or_default()
    }

    /// Whether the state is on a server, not in a file.
    pub(super) fn is_on_server(&self) -> bool {
        self.0.server.is_some()
    }

    pub(super) fn writer(&self) -> Result<&Writer, StoreError> {
        self.0.daemon.as_ref().map(|daemon| &daemon.writer).ok_or(StoreError::ReadOnly)
    }

    /// Runs `operation` in the next transaction; answers after its commit. Refused at once while the server with the state
    /// has not been heard of lately: who waits in line for it would wait for long.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.unreachable().map_or(Ok(()), Err)?;
        self.0.damage.noted(self.writer()?.write(operation).await)
    }

    /// The same of an operation that is run together with others of its kind that wait.
    pub(super) async fn write_in_set<M: Many>(&self, operation: M) -> Result<M::Answer, StoreError> {
        self.unreachable().map_or(Ok(()), Err)?;
        self.0.damage.noted(self.writer()?.write_in_set(operation).await)
    }

    /// The same for what frees space: on a full disk it is tried once more without the ballast.
    pub(super) async fn write_freeing<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Clone + Send + 'static,
        T: Send + 'static,
    {
        match self.write(operation.clone()).await {
            Err(StoreError::Full) if directory::drop_ballast(&self.0.dir) => self.write(operation).await,
            other => other,
        }
    }

    /// Reads on one of the read-only connections; refused like a write.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Sql<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.unreachable().map_or(Ok(()), Err)?;
        self.0.damage.noted(self.0.readers.read(query).await)
    }

    /// Reads on a connection of its own: for what takes long.
    pub(super) async fn apart<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection, &Path) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.0.readers.opened()?;
        let dir = self.0.dir.clone();
        let found = off_thread(move || {
            let connection = database::read_only(&database::file(&dir), false)?;
            query(&connection, &dir)
        });
        self.0.damage.noted(found.await?)
    }
}
