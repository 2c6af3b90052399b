//! What is bound to a statement, on its way to the server.

use super::super::error::StoreError;
use super::super::value::{Bound, Cell, Value, without_nul};
use super::dialect::Place;
use bytes::BytesMut;
use std::borrow::Cow;
use std::error::Error;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A value, as text and of whatever type the server finds that it has; or a column of what is given as a set.
#[derive(Debug)]
pub(super) enum Parameter<'a> {
    Null,
    Int(i64),
    Text(Cow<'a, str>),
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<Cow<'a, str>>>),
}

impl<'a> From<Cell<'a>> for Parameter<'a> {
    fn from(cell: Cell<'a>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(number) => Self::Int(number),
            Cell::Text(text) => Self::Text(without_nul(text)),
        }
    }
}

impl Parameter<'_> {
    /// The type by which the statement is understood.
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Null | Self::Int(_) | Self::Text(_) => Type::UNKNOWN,
            Self::Ints(_) => Type::INT8_ARRAY,
            Self::Texts(_) => Type::TEXT_ARRAY,
        }
    }

    pub(super) fn into_owned(self) -> Parameter<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Parameter::Null,
            Self::Int(number) => Parameter::Int(number),
            Self::Text(text) => Parameter::Text(owned(text)),
            Self::Ints(numbers) => Parameter::Ints(numbers),
            Self::Texts(texts) => Parameter::Texts(texts.into_iter().map(|text| text.map(owned)).collect()),
        }
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Ints(numbers) => return numbers.to_sql(kind, out),
            Self::Texts(texts) => return texts.to_sql(kind, out),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self {
            Self::Null | Self::Int(_) | Self::Text(_) => Format::Text,
            Self::Ints(_) | Self::Texts(_) => Format::Binary,
        }
    }

    to_sql_checked!();
}

/// What is bound, in the order of the places.
pub(super) fn bound_to<'a>(places: &[Place], bound: &Bound<'a>) -> Result<Vec<Parameter<'a>>, StoreError> {
    let value = |place: &Place| match (place, bound) {
        (Place::Number(number), Bound::ByPlace(cells)) => cells.get(number - 1).copied(),
        (Place::Name(wanted), Bound::ByName(cells)) => {
            cells.iter().find(|(name, _)| name == wanted).map(|(_, cell)| *cell)
        }
        _ => None,
    };
    places.iter().map(|place| value(place).map(Parameter::from).ok_or_else(|| unbound(place))).collect()
}

/// The columns of the rows that are given, in the order of the places.
pub(super) fn columns_of<'a>(
    places: &[Place],
    rows: &'a [Vec<Value>],
) -> Result<Vec<Parameter<'a>>, StoreError> {
    let column = |place: &Place| {
        let Place::Given(at, numbers) = *place else { return Err(unbound(place)) };
        let cells = rows.iter().map(|row| row.get(at).map(Value::cell));
        if numbers {
            let number = |cell| match cell {
                Some(Cell::Int(number)) => Ok(Some(number)),
                Some(Cell::Null) => Ok(None),
                Some(Cell::Text(_)) | None => Err(unbound(place)),
            };
            return cells.map(number).collect::<Result<_, _>>().map(Parameter::Ints);
        }
        let text = |cell| match cell {
            Some(Cell::Text(text)) => Ok(Some(without_nul(text))),
            Some(Cell::Null) => Ok(None),
            Some(Cell::Int(_)) | None => Err(unbound(place)),
        };
        cells.map(text).collect::<Result<_, _>>().map(Parameter::Texts)
    };
    places.iter().map(column).collect()
}

fn unbound(place: &Place) -> StoreError {
    StoreError::Internal(format!("nothing that fits is bound to {place:?}"))
}
