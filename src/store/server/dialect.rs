//! Statements as PostgreSQL wants them.
//!
//! They are written in SQL that SQLite and PostgreSQL both understand; what is bound, and how JSON is read, is said in
//! SQLite's way and put into PostgreSQL's here. So is what is given as a set ([`super::super::given`]).

use super::super::given::columns;
use std::fmt::Write as _;

/// A statement for PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) sql: String,
    /// What stands for `$1`, `$2`, …: a number as in `?1`, or a name as in `:name`.
    pub(super) places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From 1.
    Number(usize),
    Name(String),
    /// A column of what is given, from 0, and whether it holds numbers.
    Given(usize, bool),
}

/// Translates a statement. Text in quotes stays as it is.
pub(super) fn translated(sql: &str) -> Translated {
    let mut out = Translated { sql: String::with_capacity(sql.len() + 32), places: Vec::new() };
    let mut rest = sql;
    let mut unnumbered = 0;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => quoted(rest),
            '?' => {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                let number = rest[1..=digits].parse().unwrap_or_else(|_| {
                    unnumbered += 1;
                    unnumbered
                });
                out.bind(Place::Number(number));
                rest = &rest[1 + digits..];
                continue;
            }
            ':' if !rest.starts_with("::") => {
                let name = 1 + rest[1..].bytes().take_while(|byte| is_word(*byte)).count();
                out.bind(Place::Name(rest[..name].to_owned()));
                rest = &rest[name..];
                continue;
            }
            ':' => 2,
            '-' if rest.starts_with("->> '$.") => {
                let path = quoted(&rest[4..]);
                out.read_json(&rest[7..4 + path - 1]);
                rest = &rest[4 + path..];
                continue;
            }
            'g' if rest.starts_with("given(")
                && !out.sql.ends_with(|c: char| c.is_alphanumeric() || c == '_') =>
            {
                rest = out.given(rest);
                continue;
            }
            'j' if rest.starts_with("json_each(") && !out.sql.ends_with(|c: char| c.is_alphanumeric()) => {
                rest = out.each(rest);
                continue;
            }
            _ => first.len_utf8(),
        };
        out.sql.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

impl Translated {
    fn bind(&mut self, place: Place) {
        let known = self.places.iter().position(|known| *known == place);
        let at = known.unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() - 1
        });
        let _ = write!(self.sql, "${}", at + 1);
    }

    /// `COLUMN ->> '$.a.b'`, whose column has been written already.
    fn read_json(&mut self, path: &str) {
        let before = self.sql.trim_end().len();
        self.sql.truncate(before);
        let column = self.sql.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
        let column = self.sql.split_off(column.map_or(0, |at| at + 1));
        let _ = match path.split_once('.') {
            None => write!(self.sql, "({column}::json ->> '{path}')"),
            Some(_) => write!(self.sql, "({column}::json #>> '{{{}}}')", path.replace('.', ",")),
        };
    }

    /// `given(A INT, B TEXT)`: a table of the columns that are bound. What comes after it.
    fn given<'s>(&mut self, rest: &'s str) -> &'s str {
        let Some(given) = columns(rest) else { return "" };
        self.sql.push_str("unnest(");
        for (at, (_, numbers)) in given.names.iter().enumerate() {
            if at > 0 {
                self.sql.push_str(", ");
            }
            self.bind(Place::Given(at, *numbers));
        }
        let names: Vec<&str> = given.names.iter().map(|(name, _)| *name).collect();
        let _ = write!(self.sql, ") AS given ({})", names.join(", "));
        &rest[given.end..]
    }

    /// `json_each(COLUMN) AS NAME`: the keys and values of an object. What comes after it.
    fn each<'s>(&mut self, rest: &'s str) -> &'s str {
        let rest = &rest["json_each(".len()..];
        let (column, rest) = rest.split_once(')').unwrap_or((rest, ""));
        let name = rest.trim_start().strip_prefix("AS ").unwrap_or(rest);
        let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        let _ = write!(self.sql, "json_each_text({column}::json) AS {name} (key, value)");
        rest
    }
}

/// How long the text in quotes is at the beginning of `sql`, quotes included.
fn quoted(sql: &str) -> usize {
    sql[1..].find('\'').map_or(sql.len(), |end| end + 2)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(of: &str) -> String {
        translated(of).sql
    }

    #[test]
    fn what_is_bound_is_numbered_as_it_comes() {
        let found = translated("UPDATE t SET a = :now, b = :now + :wait WHERE c = ':no' AND d::text = :pk");
        assert_eq!(found.sql, "UPDATE t SET a = $1, b = $1 + $2 WHERE c = ':no' AND d::text = $3");
        assert_eq!(found.places, [":now", ":wait", ":pk"].map(|name| Place::Name(name.to_owned())));
        let found = translated("SELECT ?2, ?1, ?2, '?' FROM t WHERE (a, b) > (?1, ?3)");
        assert_eq!(found.sql, "SELECT $1, $2, $1, '?' FROM t WHERE (a, b) > ($2, $3)");
        assert_eq!(found.places, [2, 1, 3].map(Place::Number));
        assert_eq!(sql("a = ? AND b IN (?, ?)"), "a = $1 AND b IN ($2, $3)");
    }

    #[test]
    fn what_is_given_is_a_table() {
        let found = translated("UPDATE t SET a = given.a FROM given(k INT, a TEXT) WHERE t.k = given.k");
        assert_eq!(
            found.sql,
            "UPDATE t SET a = given.a FROM unnest($1, $2) AS given (k, a) WHERE t.k = given.k"
        );
        assert_eq!(found.places, [Place::Given(0, true), Place::Given(1, false)]);
    }

    #[test]
    fn json_is_read_from_its_text() {
        assert_eq!(sql("batch ->> '$.model' IS NULL"), "(batch::json ->> 'model') IS NULL");
        assert_eq!(
            sql("coalesce(body ->> '$.data.webhook', '') = ?"),
            "coalesce((body::json #>> '{data,webhook}'), '') = $1"
        );
        assert_eq!(
            sql("lower(b.batch ->> '$.x') LIKE ? ESCAPE '\\'"),
            "lower((b.batch::json ->> 'x')) LIKE $1 ESCAPE '\\'"
        );
        assert_eq!(
            sql("SELECT 1 FROM json_each(labels) AS label WHERE label.key = ?"),
            "SELECT 1 FROM json_each_text(labels::json) AS label (key, value) WHERE label.key = $1"
        );
    }
}
