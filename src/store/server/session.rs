//! A connection to the server as statements use it: made when it is needed, given up when it fails.
//!
//! Its calls wait, so they are for the threads of blocking work. Nothing waits longer than ten seconds for the
//! server.

use super::super::error::{OpenError, StoreError};
use super::super::value::{Bound, Cell, Value};
use super::connect::{Connected, Connector};
use super::dialect::{Translated, translated};
use super::parameter::{Parameter, bound_to, columns_of};
use super::refusal::Refusal;
use super::sqlstate::{Meaning, meaning};
use crate::http::scrub::Scrubber;
use crate::sync::lock;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, TryStreamExt as _};
use std::cell::{Cell as Slot, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

/// The server, for all connections of this process.
#[derive(Debug)]
pub(in super::super) struct Server {
    connector: Connector,
    runtime: Handle,
    scrubber: Scrubber,
    /// Each statement as the server wants it; there is a fixed number of them, but for filters and lists.
    statements: Mutex<BTreeMap<String, Arc<Translated>>>,
    hints: Arc<Hints>,
}

/// What other daemons say to whoever listens: that there is something to see. Nothing relies on it.
#[derive(Debug, Default)]
pub(in super::super) struct Hints {
    pub(in super::super) heard: Notify,
    /// What this daemon says itself.
    own: Mutex<String>,
}

/// One connection.
pub(in super::super) struct Session {
    server: Arc<Server>,
    client: RefCell<Option<Arc<Client>>>,
    in_transaction: Slot<bool>,
    /// The connection was lost in the middle of a transaction: nothing is done in its place until another is begun.
    broken_off: Slot<bool>,
    /// Statements of the open transaction that were sent and whose answers nobody has read yet, oldest first.
    sent: RefCell<Vec<Sent>>,
    /// Whether it is told of hints.
    listens: Slot<bool>,
    /// Which host it is connected to, and what that refused last.
    last: RefCell<(String, Option<Refusal>)>,
}

/// The answer to a statement that was sent.
type Sent = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// A row of an answer.
#[derive(Debug)]
pub(in super::super) struct ServerRow(tokio_postgres::Row);

impl Server {
    /// Must be called inside a tokio runtime with threads for blocking work.
    pub(in super::super) fn new(connector: Connector) -> Self {
        let scrubber = Scrubber::new(connector.address().password());
        let (statements, hints) = (Mutex::default(), Arc::default());
        Self { connector, runtime: Handle::current(), scrubber, statements, hints }
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
            sent: RefCell::default(),
            listens: Slot::new(false),
            last: RefCell::default(),
        }
    }

    /// Uses `connected` until it fails.
    pub(super) fn take(&self, connected: Connected) {
        let Connected { client, mut wire, host, .. } = connected;
        self.last.borrow_mut().0 = host;
        let hints = Arc::clone(&self.server.hints);
        // It ends with the client, and statements fail with it.
        self.server.runtime.spawn(async move {
            while let Some(message) = poll_fn(|context| wire.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(hint)) if hint.payload() != *lock(&hints.own) => {
                        hints.heard.notify_one();
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!("a connection to the PostgreSQL server ended: {error}");
                        break;
                    }
                }
            }
        });
        self.in_transaction.set(false);
        self.listens.set(false);
        *self.client.borrow_mut() = Some(Arc::new(client));
    }

    pub(super) fn hints(&self) -> Arc<Hints> {
        Arc::clone(&self.server.hints)
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
        read: impl FnMut(&ServerRow) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let translated = self.server.translated(sql);
        self.asked(&translated.sql, &bound_to(&translated.places, bound)?, read)
    }

    /// The same of a statement for all `rows` that are given to it.
    pub(in super::super) fn run_set(
        &self,
        sql: &str,
        rows: &[Vec<Value>],
        read: impl FnMut(&ServerRow) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let translated = self.server.translated(sql);
        self.asked(&translated.sql, &columns_of(&translated.places, rows)?, read)
    }

    /// Sends a statement whose rows nobody needs; in a transaction without waiting for its answer, which is read with
    /// that of the next statement that is waited for.
    pub(in super::super) fn send(&self, sql: &str, bound: &Bound<'_>) -> Result<(), StoreError> {
        let translated = self.server.translated(sql);
        self.post(&translated, bound_to(&translated.places, bound)?)
    }

    /// The same of a statement for all `rows` that are given to it.
    pub(in super::super) fn send_set(&self, sql: &str, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        let translated = self.server.translated(sql);
        self.post(&translated, columns_of(&translated.places, rows)?)
    }

    /// The same of a statement that begins or ends a part of the transaction.
    pub(in super::super) fn send_control(&self, statement: impl Into<String>) -> Result<(), StoreError> {
        let (client, statement) = (self.connected()?, statement.into());
        self.on_its_way(Box::pin(async move { client.simple_query(&statement).await.map(drop) }))
    }

    fn post(&self, translated: &Arc<Translated>, parameters: Vec<Parameter<'_>>) -> Result<(), StoreError> {
        if !self.in_transaction.get() {
            return self.asked(&translated.sql, &parameters, |_| Ok(())).map(drop);
        }
        let client = self.connected()?;
        let parameters: Vec<_> = parameters.into_iter().map(Parameter::into_owned).collect();
        let translated = Arc::clone(translated);
        self.on_its_way(Box::pin(async move {
            let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                parameters.iter().map(|of| (of as &(dyn ToSql + Sync), of.kind())).collect();
            client.execute_typed(&translated.sql, &typed).await.map(drop)
        }))
    }

    fn on_its_way(&self, mut answer: Sent) -> Result<(), StoreError> {
        // Polled once, it is sent.
        let answer = match (&mut answer).now_or_never() {
            Some(result) => Box::pin(std::future::ready(result)),
            None => answer,
        };
        self.sent.borrow_mut().push(answer);
        if self.sent.borrow().len() < MOST_UNREAD { Ok(()) } else { self.settle() }
    }

    /// Is told of hints from now on, but not of those that say `own`.
    pub(super) fn listen(&self, own: &str) -> Result<(), StoreError> {
        self.connected()?;
        if !self.listens.get() {
            own.clone_into(&mut lock(&self.server.hints.own));
            self.control("LISTEN batchd")?;
            self.listens.set(true);
        }
        Ok(())
    }

    /// Reads the answers to all that was sent; an error is the first of them.
    pub(in super::super) fn settle(&self) -> Result<(), StoreError> {
        let sent = self.sent.take();
        if sent.is_empty() {
            return Ok(());
        }
        let client = self.connected()?;
        let result = self.server.runtime.block_on(answered(sent));
        self.judged(&client, result)
    }

    /// Nobody wants to know how what was sent has ended: it is taken back.
    pub(in super::super) fn forget_sent(&self) {
        self.sent.take();
    }

    fn asked(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        mut read: impl FnMut(&ServerRow) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let (mut begun, is_alone) = (false, !self.in_transaction.get());
        let mut attempt = || self.attempt(sql, parameters, &mut begun, &mut read);
        match attempt() {
            // The server may have closed a connection that nobody used; a statement alone can be repeated.
            Err(StoreError::Unreachable(_)) if is_alone && !self.broken_off.get() && !begun => {
                self.attempt(sql, parameters, &mut begun, &mut read)
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
        let sent = self.sent.take();
        let running = async {
            let typed = parameters.iter().map(|parameter| (parameter, parameter.kind()));
            let asking = client.query_typed_raw(sql, typed);
            tokio::pin!(asking);
            let rows = match behind(sent, asking.as_mut()).await? {
                Some(rows) => rows,
                None => within(asking).await?,
            };
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
        let sent = self.sent.take();
        let running = async {
            let asking = client.simple_query(statements);
            tokio::pin!(asking);
            match behind(sent, asking.as_mut()).await? {
                Some(messages) => Ok(messages),
                None => within(asking).await,
            }
        };
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
        self.sent.take();
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

/// Reads the answers to what was sent; an error is the first of them.
async fn answered(sent: Vec<Sent>) -> Result<(), Failure> {
    for answer in sent {
        within(answer).await?;
    }
    Ok(())
}

/// Sends what `asking` sends before the answers to what was `sent` are read; its own answer, if it was there already.
async fn behind<T>(
    sent: Vec<Sent>,
    asking: Pin<&mut impl Future<Output = Result<T, tokio_postgres::Error>>>,
) -> Result<Option<T>, Failure> {
    if sent.is_empty() {
        return Ok(None);
    }
    let first = asking.now_or_never();
    answered(sent).await?;
    first.transpose().map_err(Failure::Server)
}

/// Whether a transaction is open after `statements`.
fn follows(before: bool, statements: &str) -> bool {
    let begun = before || statements.starts_with("BEGIN");
    begun && !statements.ends_with("COMMIT") && !statements.ends_with("ROLLBACK")
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
/// Answers that wait to be read.
const MOST_UNREAD: usize = 500;
/// Statements that are remembered.
const MOST_STATEMENTS: usize = 1000;
