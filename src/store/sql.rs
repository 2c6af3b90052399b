//! How the database is asked: statements with what is bound to them, and the rows that come back.
//!
//! Every statement is written once, in the SQL that both kinds of database understand (`docs/design.md#sql`).

use super::error::StoreError;
use super::given::{Given, one_by_one};
use super::server::session::{ServerRow, Session};
use super::value::{Bound, Cell, FromCell, Params, unreadable, without_nul};
use rusqlite::types::ValueRef;

/// A connection, as whoever asks sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sql<'c> {
    File(&'c rusqlite::Connection),
    Server(&'c Session),
}

/// The same, as whoever lends it has it.
#[derive(Debug)]
pub(super) enum Connection {
    File(rusqlite::Connection),
    Server(Session),
}

/// A row that a statement gave.
#[derive(Debug)]
pub(super) enum Row<'r> {
    File(&'r rusqlite::Row<'r>),
    Server(&'r ServerRow),
}

impl Connection {
    pub(super) fn sql(&self) -> Sql<'_> {
        match self {
            Self::File(connection) => Sql::File(connection),
            Self::Server(session) => Sql::Server(session),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what is bound is made for the call")]
impl Sql<'_> {
    /// Runs a statement that gives no rows. Returns how many it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        match self {
            Self::File(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind(&mut statement, &params.bound())?;
                Ok(statement.raw_execute()?)
            }
            Self::Server(session) => {
                let changed = session.run(sql, &params.bound(), |_| Ok(()))?;
                Ok(usize::try_from(changed).unwrap_or(usize::MAX))
            }
        }
    }

    /// Runs a statement of which nobody needs to know how many rows it changed: inside a transaction on a server its
    /// answer is not waited for. If it fails, the next statement that is waited for says so, at the latest the end of
    /// the operation ([`Sql::end_operation`]).
    pub(super) fn send(&self, sql: &str, params: impl Params) -> Result<(), StoreError> {
        match self {
            Self::File(_) => self.execute(sql, params).map(drop),
            Self::Server(session) => session.send(sql, &params.bound()),
        }
    }

    /// Hands each row of a statement to `read`.
    pub(super) fn each(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.rows(sql, params, read).map(drop)
    }

    /// All rows of a statement, each read by `read`.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        match self {
            Self::File(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind(&mut statement, &params.bound())?;
                let mut rows = statement.raw_query();
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push(read(&Row::File(row))?);
                }
                Ok(all)
            }
            Self::Server(session) => {
                let mut all = Vec::new();
                session.run(sql, &params.bound(), |row| {
                    all.push(read(&Row::Server(row))?);
                    Ok(())
                })?;
                Ok(all)
            }
        }
    }

    /// The first row of a statement, if it gives any.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self {
            Self::File(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind(&mut statement, &params.bound())?;
                let mut rows = statement.raw_query();
                rows.next()?.map(|row| read(&Row::File(row))).transpose()
            }
            Self::Server(session) => {
                let (mut read, mut first) = (Some(read), None);
                session.run(sql, &params.bound(), |row| {
                    if let Some(read) = read.take() {
                        first = Some(read(&Row::Server(row))?);
                    }
                    Ok(())
                })?;
                Ok(first)
            }
        }
    }

    /// The row of a statement that always gives one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.row(sql, params, read)?.ok_or_else(|| StoreError::Internal(format!("no row came of: {sql}")))
    }
}

/// Statements about many rows (see [`super::given`]).
impl Sql<'_> {
    /// Runs a statement for all rows that are given, of which nobody needs to know how many it changed. Its failure may
    /// be told by a later statement of the same operation; see [`Sql::send`].
    pub(super) fn set(&self, sql: &str, given: &Given) -> Result<(), StoreError> {
        match self {
            Self::File(_) => self.each_given(sql, given, |_| Ok(())),
            Self::Server(session) => given.pieces().try_for_each(|rows| session.send_set(sql, rows)),
        }
    }

    /// All rows that a statement gives for those that are given, in no particular order.
    pub(super) fn rows_of<T>(
        &self,
        sql: &str,
        given: &Given,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.each_given(sql, given, |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn each_given(
        &self,
        sql: &str,
        given: &Given,
        mut read: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if given.is_empty() {
            return Ok(());
        }
        match self {
            Self::File(connection) => {
                let mut statement = connection.prepare_cached(&one_by_one(sql))?;
                for row in given.pieces().flatten() {
                    for (place, value) in (1..).zip(row) {
                        bind_cell(&mut statement, place, value.cell())?;
                    }
                    let mut rows = statement.raw_query();
                    while let Some(row) = rows.next()? {
                        read(&Row::File(row))?;
                    }
                }
                Ok(())
            }
            Self::Server(session) => given
                .pieces()
                .try_for_each(|rows| session.run_set(sql, rows, |row| read(&Row::Server(row))).map(drop)),
        }
    }
}

/// What happens between statements.
impl Sql<'_> {
    /// Runs a statement that begins or ends a transaction or a part of one.
    pub(super) fn control(&self, statement: &str) -> Result<(), StoreError> {
        match self {
            Self::File(connection) => Ok(connection.prepare_cached(statement)?.execute([]).map(drop)?),
            Self::Server(session) => session.control(statement),
        }
    }

    /// Begins what can be taken back alone.
    pub(super) fn begin_operation(&self) -> Result<(), StoreError> {
        match self {
            Self::File(_) => self.control("SAVEPOINT operation"),
            Self::Server(session) => session.send_control("SAVEPOINT operation"),
        }
    }

    /// Ends it; an error is that of one of its statements, and it is to be taken back.
    pub(super) fn end_operation(&self) -> Result<(), StoreError> {
        match self {
            Self::File(_) => self.control("RELEASE operation"),
            Self::Server(session) => {
                session.settle()?;
                session.send_control("RELEASE operation")
            }
        }
    }

    /// Waits for all that was sent; an error is the first of its answers'.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Server(session) => session.settle(),
        }
    }

    /// Takes it back, and ends it.
    pub(super) fn take_back_operation(&self) -> Result<(), StoreError> {
        match self {
            Self::File(_) => {
                self.control("ROLLBACK TO operation")?;
                self.control("RELEASE operation")
            }
            Self::Server(session) => {
                session.forget_sent();
                session.control("ROLLBACK TO operation; RELEASE operation")
            }
        }
    }

    /// Whether a transaction is open.
    pub(super) fn is_in_transaction(&self) -> bool {
        match self {
            Self::File(connection) => !connection.is_autocommit(),
            Self::Server(session) => session.is_in_transaction(),
        }
    }
}

fn bind(statement: &mut rusqlite::Statement<'_>, bound: &Bound<'_>) -> Result<(), StoreError> {
    match bound {
        Bound::ByPlace(cells) => {
            for (place, cell) in (1..).zip(cells) {
                bind_cell(statement, place, *cell)?;
            }
        }
        Bound::ByName(cells) => {
            for (name, cell) in cells {
                let place = statement.parameter_index(name)?;
                let place = place.ok_or_else(|| rusqlite::Error::InvalidParameterName((*name).to_owned()))?;
                bind_cell(statement, place, *cell)?;
            }
        }
    }
    Ok(())
}

fn bind_cell(
    statement: &mut rusqlite::Statement<'_>,
    place: usize,
    cell: Cell<'_>,
) -> Result<(), rusqlite::Error> {
    match cell {
        Cell::Null => statement.raw_bind_parameter(place, rusqlite::types::Null),
        Cell::Int(number) => statement.raw_bind_parameter(place, number),
        Cell::Text(text) => statement.raw_bind_parameter(place, without_nul(text)),
    }
}

impl Row<'_> {
    /// What stands in the column of this name.
    pub(super) fn get<T: FromCell>(&self, column: &str) -> Result<T, StoreError> {
        T::from_cell(self.cell(column)?).ok_or_else(|| unreadable(column, "it holds a value of another kind"))
    }

    /// The text that stands in the column of this name.
    pub(super) fn text(&self, column: &str) -> Result<&str, StoreError> {
        let Cell::Text(text) = self.cell(column)? else { return Err(unreadable(column, "it is no text")) };
        Ok(text)
    }

    pub(super) fn cell(&self, column: &str) -> Result<Cell<'_>, StoreError> {
        match self {
            Self::File(row) => match row.get_ref(column)? {
                ValueRef::Null => Ok(Cell::Null),
                ValueRef::Integer(number) => Ok(Cell::Int(number)),
                ValueRef::Text(text) => std::str::from_utf8(text)
                    .map(Cell::Text)
                    .map_err(|error| unreadable(column, &error.to_string())),
                ValueRef::Real(_) | ValueRef::Blob(_) => {
                    Err(unreadable(column, "it holds a value of another kind"))
                }
            },
            Self::Server(row) => row.cell(column).map_err(|what| unreadable(column, &what)),
        }
    }
}
