//! How the database is asked: statements with what is bound to them, and the rows that come back.
//!
//! Every statement is written once, in the SQL that both kinds of database understand (`docs/design.md#sql`).

use super::error::StoreError;
use super::server::session::{ServerRow, Session};
use rusqlite::types::ValueRef;
use std::borrow::Cow;

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

/// What stands in a column, or is to stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

/// The same, on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
}

/// A row that a statement gave.
#[derive(Debug)]
pub(super) enum Row<'r> {
    File(&'r rusqlite::Row<'r>),
    Server(&'r ServerRow),
}

/// What is bound to a statement: by place (`?1` or `?`), or by name (`:name`).
#[derive(Debug)]
pub(super) enum Bound<'a> {
    ByPlace(Vec<Cell<'a>>),
    ByName(Vec<(&'a str, Cell<'a>)>),
}

/// A value that can be bound.
pub(super) trait Bind {
    fn cell(&self) -> Cell<'_>;
}

/// What a column's value can be read as.
pub(super) trait FromCell: Sized {
    /// `None`: it is something else.
    fn from_cell(cell: Cell<'_>) -> Option<Self>;
}

/// All that is bound to one statement.
pub(super) trait Params {
    fn bound(&self) -> Bound<'_>;
}

impl Connection {
    pub(super) fn sql(&self) -> Sql<'_> {
        match self {
            Self::File(connection) => Sql::File(connection),
            Self::Server(session) => Sql::Server(session),
        }
    }
}

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

/// What happens between statements.
impl Sql<'_> {
    /// Runs a statement that begins or ends a transaction or a part of one.
    pub(super) fn control(&self, statement: &str) -> Result<(), StoreError> {
        match self {
            Self::File(connection) => Ok(connection.prepare_cached(statement)?.execute([]).map(drop)?),
            Self::Server(session) => session.control(statement),
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

/// PostgreSQL stores no U+0000; neither does the other, so that nothing changes for who moves.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
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

/// A stored value that no statement of ours can have written.
pub(super) fn unreadable(column: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("column {column}: {what}"))
}

impl Value {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Int(number) => Cell::Int(*number),
            Self::Text(text) => Cell::Text(text),
        }
    }
}

impl Bind for Value {
    fn cell(&self) -> Cell<'_> {
        Self::cell(self)
    }
}

impl Bind for str {
    fn cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl Bind for String {
    fn cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl<T: Bind + ?Sized> Bind for &T {
    fn cell(&self) -> Cell<'_> {
        (*self).cell()
    }
}

impl<T: Bind> Bind for Option<T> {
    fn cell(&self) -> Cell<'_> {
        self.as_ref().map_or(Cell::Null, Bind::cell)
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Bind for $number {
            fn cell(&self) -> Cell<'_> {
                Cell::Int(i64::from(*self))
            }
        }

        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Int(i64::from(number))
            }
        }
    )*};
}

whole_numbers!(i64, u32, u16, u8, bool);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl FromCell for i64 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Int(number) = cell { Some(number) } else { None }
    }
}

impl FromCell for u32 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        i64::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for u8 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        i64::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for u16 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        i64::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for bool {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        Some(i64::from_cell(cell)? != 0)
    }
}

impl FromCell for String {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Text(text) = cell { Some(text.to_owned()) } else { None }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if cell == Cell::Null { Some(None) } else { T::from_cell(cell).map(Some) }
    }
}

impl Params for [&dyn Bind; 0] {
    fn bound(&self) -> Bound<'_> {
        Bound::ByPlace(Vec::new())
    }
}

macro_rules! lists {
    ($($count:literal),*) => {$(
        impl<T: Bind> Params for [T; $count] {
            fn bound(&self) -> Bound<'_> {
                Bound::ByPlace(self.iter().map(Bind::cell).collect())
            }
        }
    )*};
}

lists!(1, 2, 3, 4);

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        impl<$($name: Bind),+> Params for ($($name,)+) {
            fn bound(&self) -> Bound<'_> {
                #[expect(non_snake_case, reason = "named as its type")]
                let ($($name,)+) = self;
                Bound::ByPlace(vec![$($name.cell()),+])
            }
        }
    )*};
}

tuples! {
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
}

impl Params for &[Value] {
    fn bound(&self) -> Bound<'_> {
        Bound::ByPlace(self.iter().map(Value::cell).collect())
    }
}

impl Params for &[(&'static str, Value)] {
    fn bound(&self) -> Bound<'_> {
        Bound::ByName(self.iter().map(|(name, value)| (*name, value.cell())).collect())
    }
}

impl Params for &[(&'static str, &dyn Bind)] {
    fn bound(&self) -> Bound<'_> {
        Bound::ByName(self.iter().map(|(name, value)| (*name, value.cell())).collect())
    }
}

/// What is bound by name: `named! { ":name": value, … }`.
macro_rules! named {
    ($($name:literal: $value:expr),* $(,)?) => {
        &[$(($name, &$value as &dyn $crate::store::sql::Bind)),*] as &[(&'static str, &dyn $crate::store::sql::Bind)]
    };
}

pub(super) use named;
