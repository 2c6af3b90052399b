//! Statements about many rows at once: on a server one statement takes the whole set, in a file each row runs it.
//!
//! They are written once (`docs/design.md#sql`): `given(a INT, b TEXT)` stands among the tables of a statement for what is
//! given, and `given.a` for a column of it. A server reads it as a table; in a file, where a statement costs no way to a
//! server and back, it vanishes and each `given.a` is bound.

use super::value::Value;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What is given to a statement: rows of as many columns as the statement names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    rows: Vec<Vec<Value>>,
}

/// The columns of what is given, as a statement names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns<'s> {
    /// Each with whether it holds numbers; it holds text otherwise.
    pub(super) names: Vec<(&'s str, bool)>,
    /// Where it stands in the statement, with the word or comma before it.
    from: usize,
    pub(super) end: usize,
}

impl Given {
    /// One row for each value.
    pub(super) fn each<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Self {
        values.into_iter().map(|value| vec![value.into()]).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    /// The rows, as many at once as one statement takes.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[Vec<Value>]> {
        self.rows.chunks(MOST_AT_ONCE)
    }
}

impl FromIterator<Vec<Value>> for Given {
    fn from_iter<I: IntoIterator<Item = Vec<Value>>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect() }
    }
}

/// The columns that `sql` names.
pub(super) fn columns(sql: &str) -> Option<Columns<'_>> {
    let begin = sql.find("given(")?;
    let length = sql[begin..].find(')')?;
    let names = sql[begin + "given(".len()..begin + length].split(',').map(|column| {
        let (name, kind) = column.trim().split_once(' ').unwrap_or((column, ""));
        (name, kind == "INT")
    });
    let before = sql[..begin].trim_end();
    let before = before.strip_suffix("FROM").or_else(|| before.strip_suffix(',')).unwrap_or(before);
    Some(Columns { names: names.collect(), from: before.trim_end().len(), end: begin + length + 1 })
}

/// `sql` as it is run for one row.
pub(super) fn one_by_one(sql: &str) -> Cow<'_, str> {
    let Some(Columns { names, from, end, .. }) = columns(sql) else { return sql.into() };
    let mut out = String::with_capacity(sql.len());
    for piece in [&sql[..from], &sql[end..]] {
        let mut rest = piece;
        while let Some(at) = rest.find("given.") {
            out.push_str(&rest[..at]);
            let name = &rest[at + "given.".len()..];
            let (name, after) = name.split_at(name.find(|c: char| !is_word(c)).unwrap_or(name.len()));
            let place = names.iter().position(|(known, _)| *known == name);
            // A column that is not given is SQLite's to refuse.
            match place {
                Some(place) => {
                    let _ = write!(out, "?{}", place + 1);
                }
                None => out.push_str(&rest[at..at + "given.".len() + name.len()]),
            }
            rest = after;
        }
        out.push_str(rest);
    }
    out.into()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Rows in one statement.
const MOST_AT_ONCE: usize = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_file_each_row_runs_the_statement_alone() {
        for (set, one) in [
            (
                "UPDATE t SET a = given.a, b = t.b + given.b FROM given(k INT, a TEXT, b INT) WHERE t.k = given.k",
                "UPDATE t SET a = ?2, b = t.b + ?3 WHERE t.k = ?1",
            ),
            (
                "INSERT INTO t (a) SELECT given.a FROM given(a INT) WHERE TRUE ON CONFLICT DO NOTHING RETURNING a",
                "INSERT INTO t (a) SELECT ?1 WHERE TRUE ON CONFLICT DO NOTHING RETURNING a",
            ),
            (
                "SELECT a FROM t LEFT JOIN u ON t.x = u.x, given(k INT) WHERE t.k = given.k",
                "SELECT a FROM t LEFT JOIN u ON t.x = u.x WHERE t.k = ?1",
            ),
            ("SELECT a FROM t WHERE k = ?1", "SELECT a FROM t WHERE k = ?1"),
        ] {
            assert_eq!(one_by_one(set), one);
        }
    }
}
