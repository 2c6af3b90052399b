//! What is bound to statements, and what columns are read as.

use super::error::StoreError;
use std::borrow::Cow;

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

/// PostgreSQL stores no U+0000; neither does the other, so that nothing changes for who moves.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A stored value that no statement of ours can have written.
pub(super) fn unreadable(column: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("column {column}: {what}"))
}

impl Value {
    pub(super) fn cell(&self) -> Cell<'_> {
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
        &[$(($name, &$value as &dyn $crate::store::value::Bind)),*] as &[(&'static str, &dyn $crate::store::value::Bind)]
    };
}

pub(super) use named;
