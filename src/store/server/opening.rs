//! Opening the state on a server: the tables, this daemon's row, and what daemons before have left under way.

use super::super::damage::Damage;
use super::super::error::{OpenError, StoreError};
use super::super::holdings::Holdings;
use super::super::lock::Lock;
use super::super::reader::Readers;
use super::super::reckoning::Reckoner;
use super::super::sql::{Connection, Sql};
use super::super::state::{Daemon, Store};
use super::super::writer::{Open, Writer};
use super::super::{directory, history, telling, uploads};
use super::connect::{Connected, Connector};
use super::member::{Member, Place};
use super::migrate;
use super::session::{Server, Session};
use super::steps::{self, Known, Timeline};
use super::writer::ServerWriter;
use crate::clock::Clock;
use crate::tasks;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Which server holds the state, and as whom this daemon uses it.
#[derive(Debug)]
pub struct Shared {
    pub connector: Connector,
    /// By which people know this daemon.
    pub name: String,
    /// After how much silence another daemon is given up.
    pub lease: Duration,
}

impl Store {
    /// Opens (or makes) the state on a server for the daemon, whose own files are in `dir`.
    ///
    /// A server that cannot be reached is tried for half a minute.
    pub async fn open_shared(dir: &Path, shared: Shared, clock: Clock) -> Result<Self, OpenError> {
        let Shared { connector, name, lease } = shared;
        let server = Arc::new(Server::new(connector));
        let until = Instant::now() + TRIED_FOR;
        loop {
            let connected = reached(server.connector(), until).await?;
            let opening = tasks::begin_waiting({
                let (dir, server, name) = (dir.to_owned(), Arc::clone(&server), name.clone());
                let clock = clock.clone();
                move || open(&dir, &server, connected, &name, lease, clock)
            });
            let opened = opening
                .await
                .map_err(|error| OpenError::Unwritable { dir: dir.to_owned(), what: error.to_string() })?;
            match opened {
                // It went away in the middle.
                Err(OpenError::Server(refusal)) if refusal.may_pass() && Instant::now() < until => {
                    tracing::warn!("{refusal}; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Opens the state on a server for reading only.
    pub async fn open_shared_offline(dir: &Path, connector: Connector) -> Result<Self, OpenError> {
        let connected = reached(&connector, Instant::now() + TRIED_FOR).await?;
        let server = Arc::new(Server::new(connector));
        let session = Session::new(Arc::clone(&server));
        session.take(connected);
        let readers = Readers::new([Connection::Server(session)]);
        Ok(Self::of(dir, Damage::default(), readers, None, Some(server)))
    }
}

async fn reached(connector: &Connector, until: Instant) -> Result<Connected, OpenError> {
    let mut told = false;
    loop {
        match connector.connect().await {
            Ok(connected) => return Ok(connected),
            Err(refusal) if refusal.may_pass() && Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{refusal}; trying for {} s", TRIED_FOR.as_secs());
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

fn open(
    dir: &Path,
    server: &Arc<Server>,
    connected: Connected,
    name: &str,
    lease: Duration,
    clock: Clock,
) -> Result<Store, OpenError> {
    directory::prepare(dir)?;
    let lock = Lock::take(dir)?;
    directory::remove_stale_copies(dir);
    uploads::remove_unfinished(&uploads::usual(dir));
    let host = connected.host.clone();
    let session = Session::new(Arc::clone(server));
    session.take(connected);
    migrate::migrate(&session, &host)?;
    let member = Member::new(name, Place::of(dir));
    let failed = |error: StoreError| session.refusal(error);
    let now = clock.now();
    let timeline = Timeline::of(&session).map_err(failed)?;
    let follow = || steps::follow(&session, timeline, &Known::default(), false, now.as_millisecond());
    let known = member.join(&session, now, follow).map_err(failed)?;
    let newest = telling::last_sequence(&Sql::Server(&session)).map_err(failed)?;
    let reckoner = Arc::new(Reckoner::begin(&Sql::Server(&session), clock.clone()).map_err(failed)?);
    let holdings = Holdings::nothing_yet(clock.clone(), lease);
    let mut writer = ServerWriter::new(session, (member, known, timeline), holdings.clone(), lease);
    let begun = begin(&mut writer, &clock);
    begun.map_err(|error| Session::new(Arc::clone(server)).refusal(error))?;

    let damage = Damage::default();
    let sessions: Vec<Connection> =
        (0..READERS).map(|_| Connection::Server(Session::new(Arc::clone(server)))).collect();
    let followed = (clock.clone(), Arc::clone(&reckoner));
    let writer = {
        let _runtime = server.runtime().enter();
        Writer::start(Open::Server(writer), damage.clone(), followed, newest)
    };
    let daemon = Daemon {
        writer,
        lock_file: None,
        checked: true,
        asked_at: AtomicI64::new(i64::MIN),
        clock,
        reckoner,
        held_back: AtomicU64::new(0),
        directory_lock: Mutex::new(Some(lock)),
        holdings,
        server: Some(host),
    };
    Ok(Store::of(dir, damage, Readers::new(sessions), Some(daemon), Some(Arc::clone(server))))
}

/// Learns once from what ended before there was a history.
fn begin(writer: &mut ServerWriter, clock: &Clock) -> Result<(), StoreError> {
    let now = clock.now();
    writer.begin(now)?;
    let begun = history::has_begun(&writer.sql())
        .and_then(|begun| if begun { Ok(()) } else { history::begin(&writer.sql(), now) });
    match begun {
        Ok(()) => writer.commit(now),
        Err(error) => {
            writer.roll_back();
            Err(error)
        }
    }
}

/// How long a server is tried that cannot be reached.
const TRIED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// Connections that only read.
const READERS: usize = 3;
