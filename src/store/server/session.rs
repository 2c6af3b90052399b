//! A connection to the server as statements use it: made when it is needed, given up when it fails.
//!
//! Its calls wait, so they are for the threads of blocking work. Nothing waits longer than ten seconds for the
//! server.

use super::super::error::{OpenError, StoreError};
use super::super::value::{Bound, Cell};
use super::connect::{Connected, Connector};
use super::dialect::{Place, Translated, translated};
use super::refusal::Refusal;
use super::sqlstate::{Meaning, meaning};
use crate::http::scrub::Scrubber;
use crate::sync::lock;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, TryStreamExt as _};
use std::cell::{Cell as Slot, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage};

/// The server, for all connections of this process.
#[derive(Debug)]
pub(in super::super) struct Server {
    connector: Connector,
    runtime: Handle,
    scrubber: Scrubber,
    /// Each statement as the server wants it; there is a fixed number of them, but for filters and lists.
    statements: Mutex<BTreeMap<String, Arc<Translated>>>,
}

/// One connection.
pub(in super::super) struct Session {
    server: Arc<Server>,
    client: RefCell<Option<Arc<Client>>>,
    in_transaction: Slot<bool>,
    /// The connection was lost in the middle of a transaction: nothing is done in its place until another is begun.
    broken_off: Slot<bool>,
    /// Which host it is connected to, and what that refused last.
    last: RefCell<(String, Option<Refusal>)>,
}

/// A row of an answer.
#[derive(Debug)]
pub(in super::super) struct ServerRow(tokio_postgres::Row);

impl Server {
    /// Must be called inside a tokio runtime with threads for blocking work.
    pub(in super::super) fn new(connector: Connector) -> Self {
        let scrubber = Scrubber::new(connector.address().password());
        Self { connector, runtime: Handle::current(), scrubber, statements: Mutex::default() }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn translated(&self, sql: &str) -> Arc<Translated> {
        let mut known = lock(&self.statements);
        if let Some(translated) = known.get(sql) {
            return Arc::clone(translated);
        }
        let new = Arc::new(translated(sql));
        if known.len() < MOST_STATEMENTS {
            known.insert(sql.to_owned(), Arc::clone(&new));
        }
        new
    }

    /// What an error of the client means for whoever asked.
    fn error(&self, error: &tokio_postgres::Error) -> StoreError {
        let Some(answer) = error.as_db_error() else {
            let because = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            return StoreError::Unreachable(self.scrubber.excerpt(because.as_bytes(), LONGEST_TEXT));
        };
        let text = self.scrubber.excerpt(answer.message().as_bytes(), LONGEST_TEXT);
        match meaning(answer.code().code()) {
            Meaning::Lost
            | Meaning::NotReady
            | Meaning::NoConnection
            | Meaning::TimedOut
            | Meaning::ReadOnly
            | Meaning::Credentials
            | Meaning::NoRights
            | Meaning::NoDatabase
            | Meaning::Full
            | Meaning::Io
            | Meaning::Again => StoreError::Unreachable(text),
            Meaning::NoTable => {
                StoreError::Unreachable(format!("{text}; the tables of batchd are not there"))
            }
            Meaning::BadValue | Meaning::BadSetting | Meaning::Damaged | Meaning::Defect => {
                StoreError::Internal(format!("the PostgreSQL server: {text} ({})", answer.code().code()))
            }
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("in_transaction", &self.in_transaction.get()).finish_non_exhaustive()
    }
}

impl Session {
    /// One that connects when it is needed.
    pub(in super::super) fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            client: RefCell::new(None),
            in_transaction: Slot::new(false),
            broken_off: Slot::new(false),
            last: RefCell::default(),
        }
    }

    /// Uses `connected` until it fails.
    pub(super) fn take(&self, connected: Connected) {
        let Connected { client, wire, host, .. } = connected;
        self.last.borrow_mut().0 = host;
        // It ends with the client, and statements fail with it.
        self.server.runtime.spawn(async move {
            if let Err(error) = wire.await {
                tracing::debug!("a connection to the PostgreSQL server ended: {error}");
            }
        });
        self.in_transaction.set(false);
        *self.client.borrow_mut() = Some(Arc::new(client));
    }

    /// Whether a transaction is open on it.
    pub(in super::super) fn is_in_transaction(&self) -> bool {
        self.in_transaction.get()
    }

    /// Runs a statement and hands each row to `read`. Returns how many rows it gave or changed.
    pub(in super::super) fn run(
        &self,
        sql: &str,
        bound: &Bound<'_>,
        mut read: impl FnMut(&ServerRow) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let translated = self.server.translated(sql);
        let parameters: Vec<Parameter<'_>> = parameters(&translated.places, bound)?;
        let (mut begun, is_alone) = (false, !self.in_transaction.get());
        let mut attempt = || self.attempt(&translated.sql, &parameters, &mut begun, &mut read);
        match attempt() {
            // The server may have closed a connection that nobody used; a statement alone can be repeated.
            Err(StoreError::Unreachable(_)) if is_alone && !self.broken_off.get() && !begun => {
                self.attempt(&translated.sql, &parameters, &mut begun, &mut read)
            }
            other => other,
        }
    }

    fn attempt(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        begun: &mut bool,
        read: &mut impl FnMut(&ServerRow) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let client = self.connected()?;
        let running = async {
            let typed = parameters.iter().map(|parameter| (parameter, Type::UNKNOWN));
            let rows = within(client.query_typed_raw(sql, typed)).await?;
            tokio::pin!(rows);
            while let Some(row) = within(rows.try_next()).await? {
                *begun = true;
                read(&ServerRow(row)).map_err(Failure::Own)?;
            }
            Ok(rows.rows_affected().unwrap_or_default())
        };
        let result: Result<u64, Failure> = self.server.runtime.block_on(running);
        self.judged(&client, result)
    }

    /// Sends what `next` gives, piece by piece, as what a `COPY … FROM STDIN` reads.
    pub(super) fn copy_in(
        &self,
        statement: &str,
        mut next: impl FnMut() -> Result<Option<Bytes>, StoreError>,
    ) -> Result<(), StoreError> {
        let client = self.connected()?;
        let running = async {
            let sink = within(client.copy_in(statement)).await?;
            tokio::pin!(sink);
            while let Some(piece) = next().map_err(Failure::Own)? {
                within(sink.send(piece)).await?;
            }
            within(sink.finish()).await
        };
        let result: Result<u64, Failure> = self.server.runtime.block_on(running);
        self.judged(&client, result).map(drop)
    }

    /// Runs statements without parameters and rows, one after the other, in one message.
    pub(in super::super) fn control(&self, statements: &str) -> Result<(), StoreError> {
        self.told(statements).map(drop)
    }

    /// The same; the columns of all rows that they give, and how many rows each of them gave or changed.
    pub(super) fn told(&self, statements: &str) -> Result<Told, StoreError> {
        if statements.starts_with("BEGIN") {
            self.broken_off.set(false);
        }
        let client = self.connected()?;
        let running = async { within(client.simple_query(statements)).await };
        let result: Result<Vec<SimpleQueryMessage>, Failure> = self.server.runtime.block_on(running);
        let messages = self.judged(&client, result).inspect_err(|_| {
            if statements.starts_with("BEGIN") {
                // A transaction that was begun and failed in the same message is open, and of no use.
                self.give_up();
            }
        })?;
        self.in_transaction.set(follows(self.in_transaction.get(), statements));
        let mut told = Told::default();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    told.rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => told.counts.push(count),
                _ => {}
            }
        }
        Ok(told)
    }

    /// The connection, made if there is none; a transaction that was open on the last one is not begun again.
    fn connected(&self) -> Result<Arc<Client>, StoreError> {
        if let Some(client) = self.client.borrow().as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        self.lose();
        if self.broken_off.get() {
            return Err(StoreError::Unreachable("the connection was lost".to_owned()));
        }
        let connecting = timeout(ANSWER_WITHIN, self.server.connector.connect());
        let connected = self
            .server
            .runtime
            .block_on(connecting)
            .map_err(|_| {
                StoreError::Unreachable(format!("no connection within {} s", ANSWER_WITHIN.as_secs()))
            })?
            .map_err(|refusal| StoreError::Unreachable(refusal.to_string()))?;
        self.take(connected);
        self.client.borrow().clone().ok_or(StoreError::Closed)
    }

    /// What kept the state from being opened, by an error of this connection.
    pub(super) fn refusal(&self, error: StoreError) -> OpenError {
        match error {
            StoreError::Unreachable(what) => self.last.take().1.unwrap_or(Refusal::Unreachable(what)).into(),
            other => Refusal::Unexpected(other.to_string()).into(),
        }
    }

    /// Makes the next statement use a new connection, whatever was open on the last one.
    pub(super) fn give_up(&self) {
        self.broken_off.set(false);
        self.in_transaction.set(false);
        *self.client.borrow_mut() = None;
    }

    /// Whoever began a transaction that was lost with its connection has done with it.
    pub(super) fn forget_lost(&self) {
        self.broken_off.set(false);
    }

    /// The connection is gone, and so is what was open on it: what belongs to that must not be done alone.
    fn lose(&self) {
        let broken_off = self.broken_off.get() || self.in_transaction.get();
        self.give_up();
        self.broken_off.set(broken_off);
    }

    fn judged<T>(&self, client: &Client, result: Result<T, Failure>) -> Result<T, StoreError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(Failure::Own(error)) => return Err(error),
            Err(Failure::Late) => {
                StoreError::Unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
            }
            Err(Failure::Server(error)) => {
                let mut last = self.last.borrow_mut();
                let refusal = Refusal::of(&last.0, &error, &self.server.scrubber);
                last.1 = Some(refusal);
                self.server.error(&error)
            }
        };
        if client.is_closed() || matches!(error, StoreError::Unreachable(_)) {
            self.lose();
        }
        Err(error)
    }
}

/// What simple statements told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) rows: Vec<Vec<Option<String>>>,
    pub(super) counts: Vec<u64>,
}

enum Failure {
    Server(tokio_postgres::Error),
    Late,
    Own(StoreError),
}

async fn within<T>(work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    timeout(ANSWER_WITHIN, work).await.map_err(|_| Failure::Late)?.map_err(Failure::Server)
}

/// Whether a transaction is open after `statements`.
fn follows(before: bool, statements: &str) -> bool {
    let begun = before || statements.starts_with("BEGIN");
    begun && !statements.ends_with("COMMIT") && !statements.ends_with("ROLLBACK")
}

/// A value on its way to the server: as text, of whatever type the server finds that it has.
#[derive(Debug)]
struct Parameter<'a>(Cell<'a>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Cell::Null => return Ok(IsNull::Yes),
            Cell::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Cell::Text(text) => out.extend_from_slice(super::super::value::without_nul(text).as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// What is bound, in the order of the places.
fn parameters<'a>(places: &[Place], bound: &Bound<'a>) -> Result<Vec<Parameter<'a>>, StoreError> {
    let value = |place: &Place| match (place, bound) {
        (Place::Number(number), Bound::ByPlace(cells)) => cells.get(number - 1).copied(),
        (Place::Name(wanted), Bound::ByName(cells)) => {
            cells.iter().find(|(name, _)| name == wanted).map(|(_, cell)| *cell)
        }
        _ => None,
    };
    let bind = |place: &Place| {
        let cell = value(place);
        cell.map(Parameter).ok_or_else(|| StoreError::Internal(format!("nothing is bound to {place:?}")))
    };
    places.iter().map(bind).collect()
}

/// The bytes of a column as they came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ServerRow {
    /// What stands in the column of this name; the inner error says why it cannot be read.
    pub(in super::super) fn cell(&self, name: &str) -> Result<Cell<'_>, String> {
        let columns = self.0.columns();
        let at = columns.iter().position(|column| column.name() == name).ok_or("there is no such column")?;
        let raw: Option<Raw<'_>> = self.0.try_get(at).map_err(|error| error.to_string())?;
        let Some(Raw(bytes)) = raw else { return Ok(Cell::Null) };
        let odd = |_| "it has another length than its type".to_owned();
        Ok(match *columns[at].type_() {
            Type::INT8 => Cell::Int(i64::from_be_bytes(bytes.try_into().map_err(odd)?)),
            Type::INT4 => Cell::Int(i32::from_be_bytes(bytes.try_into().map_err(odd)?).into()),
            Type::INT2 => Cell::Int(i16::from_be_bytes(bytes.try_into().map_err(odd)?).into()),
            Type::BOOL => Cell::Int(i64::from(bytes.first().is_some_and(|byte| *byte != 0))),
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN | Type::JSON => {
                Cell::Text(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)
            }
            ref other => return Err(format!("it is of type {other}")),
        })
    }
}

/// How long an answer may take: what waits for it beats, and must not seem dead.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Of a server's error, in bytes.
const LONGEST_TEXT: usize = 300;
/// Statements that are remembered.
const MOST_STATEMENTS: usize = 1000;
