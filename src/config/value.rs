//! Readers of single values: what each type and unit looks like, and what is reported where one does not.

use super::environment::Env;
use super::problem::{Problem, nearest, quote, shown};
use super::secret::{self, SecretSource};
use super::size;
use crate::domain::calendar::Calendar;
use crate::domain::cost::Usd;
use crate::domain::duration;
use crate::domain::pace::Rate;
use http::HeaderName;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// What the paths in a file are relative to.
#[derive(Clone, Copy, Debug)]
pub struct PathBase<'a> {
    /// Names the home directory, which `~/` stands for.
    pub env: &'a Env,
    /// The file's own directory, where relative paths start.
    pub directory: &'a Path,
}

impl PathBase<'_> {
    /// The path that a file means by `written`.
    pub fn resolve(self, written: &Path) -> PathBuf {
        match (written.strip_prefix("~"), self.env.directory("HOME")) {
            (Ok(below), Some(home)) => home.join(below),
            _ => self.directory.join(written),
        }
    }
}

/// A value that is being read.
pub struct Cell<'a, 'i> {
    /// The key in full.
    pub path: String,
    pub value: &'a Spanned<DeValue<'i>>,
    pub base: PathBase<'a>,
    /// Receives what is wrong.
    pub problems: &'a mut Vec<Problem>,
}

impl<'i> Cell<'_, 'i> {
    /// Reports the value as wrong.
    pub fn wrong(&mut self, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.push(Problem::error(self.value.span(), message).help(help));
    }

    /// It has another type than `expected`, which fits behind "must be".
    fn wrong_type<T>(&mut self, expected: &str, help: impl Into<Option<String>>) -> Option<T> {
        let message = format!("`{}` must be {expected}, not {}", self.path, type_name(self.value.get_ref()));
        self.wrong(message, help);
        None
    }

    /// A value within this one, under the same name.
    fn within<'b>(&'b mut self, value: &'b Spanned<DeValue<'i>>) -> Cell<'b, 'i> {
        Cell { path: self.path.clone(), value, base: self.base, problems: self.problems }
    }

    /// The text, if it is one; `expected` fits behind "must be".
    pub fn as_text(&mut self, expected: &str) -> Option<String> {
        let value = self.value.get_ref();
        match value {
            DeValue::String(text) if text.trim().is_empty() => {
                let message = format!("`{}` is empty", self.path);
                self.wrong(message, "leave the key out if nothing is to be set".to_owned());
                None
            }
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Integer(number) => {
                let help = format!("text is written in quotes: \"{number}\"");
                self.wrong_type(expected, help)
            }
            _ => self.wrong_type(expected, None),
        }
    }

    /// The elements of a list, each read by `read`.
    pub fn elements<T>(
        &mut self,
        expected: &str,
        read: fn(&mut Cell<'_, 'i>) -> Option<T>,
    ) -> Option<Vec<Spanned<T>>> {
        let value = self.value;
        match value.get_ref() {
            DeValue::Array(array) => {
                let found: Vec<_> = array
                    .iter()
                    .map(|element| {
                        read(&mut self.within(element)).map(|read| Spanned::new(element.span(), read))
                    })
                    .collect();
                // One bad element has been told; without it the list would be another.
                found.into_iter().collect()
            }
            DeValue::String(_) => {
                self.wrong_type(expected, "a list is written in brackets: [\"…\"]".to_owned())
            }
            _ => self.wrong_type(expected, None),
        }
    }
}

pub fn text(cell: &mut Cell<'_, '_>) -> Option<String> {
    cell.as_text("text")
}

/// A list of texts with commas between them, from a list or such a text.
pub fn text_list(cell: &mut Cell<'_, '_>) -> Option<String> {
    if !matches!(cell.value.get_ref(), DeValue::Array(_)) {
        return cell.as_text("a list of texts");
    }
    let members = texts(cell)?;
    if members.is_empty() {
        let message = format!("`{}` is an empty list", cell.path);
        cell.wrong(message, "leave the key out if nothing is to be set".to_owned());
        return None;
    }
    Some(members.iter().map(|member| member.get_ref().as_str()).collect::<Vec<_>>().join(","))
}

/// A list of texts, each with its place.
pub fn texts<'i>(cell: &mut Cell<'_, 'i>) -> Option<Vec<Spanned<String>>> {
    cell.elements("a list of texts", |cell: &mut Cell<'_, 'i>| cell.as_text("a list of texts"))
}

/// A path, resolved.
pub fn path(cell: &mut Cell<'_, '_>) -> Option<PathBuf> {
    cell.as_text("a path").map(|written| cell.base.resolve(Path::new(&written)))
}

/// `true` or `false`.
pub fn switch(cell: &mut Cell<'_, '_>) -> Option<bool> {
    match cell.value.get_ref() {
        DeValue::Boolean(on) => Some(*on),
        DeValue::String(word) => {
            let help =
                matches!(word.as_ref(), "true" | "false").then(|| format!("write {word} without quotes"));
            cell.wrong_type("true or false", help)
        }
        _ => cell.wrong_type("true or false", None),
    }
}

pub fn count(cell: &mut Cell<'_, '_>) -> Option<u32> {
    match cell.value.get_ref() {
        DeValue::Integer(number) => {
            let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
            if count.is_none() {
                let message = format!("`{}` must be a whole number from 1 on", cell.path);
                cell.wrong(message, None);
            }
            count
        }
        DeValue::String(digits) => {
            let help = digits.parse::<u32>().ok().map(|number| format!("write {number} without quotes"));
            cell.wrong_type("a whole number", help)
        }
        _ => cell.wrong_type("a whole number", None),
    }
}

pub fn duration(cell: &mut Cell<'_, '_>) -> Option<Duration> {
    const EXPECTED: &str = "a duration";
    const FORMS: &str = "durations are written \"15s\", \"10m\", \"24h\" or \"7d\"";
    match cell.value.get_ref() {
        DeValue::String(text) => duration::parse(text).ok().or_else(|| {
            let message = format!("`{}`: {} is not a duration", cell.path, quote(text));
            let help = duration_guess(text)
                .map_or_else(|| FORMS.to_owned(), |guess| format!("did you mean \"{guess}\"?"));
            cell.wrong(message, help);
            None
        }),
        DeValue::Integer(number) => {
            let help = duration::parse(&format!("{number}s"))
                .map_or_else(|_| FORMS.to_owned(), |_| format!("did you mean \"{number}s\"? {FORMS}"));
            cell.wrong_type(EXPECTED, help)
        }
        _ => cell.wrong_type(EXPECTED, FORMS.to_owned()),
    }
}

/// A size, in bytes.
pub fn bytes(cell: &mut Cell<'_, '_>) -> Option<u64> {
    const EXPECTED: &str = "a size";
    const FORMS: &str = "sizes are written \"500MB\" or \"50GiB\"";
    match cell.value.get_ref() {
        DeValue::String(text) => size::parse(text).or_else(|| {
            let message = format!("`{}`: {} is not a size", cell.path, quote(text));
            let help = size::guess(text)
                .map_or_else(|| FORMS.to_owned(), |guess| format!("did you mean \"{guess}\"?"));
            cell.wrong(message, help);
            None
        }),
        _ => cell.wrong_type(EXPECTED, FORMS.to_owned()),
    }
}

/// US dollars for a million tokens, digit by digit as they are written.
pub fn price(cell: &mut Cell<'_, '_>) -> Option<Usd> {
    const EXPECTED: &str = "a price in dollars for a million tokens";
    let digits = match cell.value.get_ref() {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        DeValue::String(text) => {
            let help = Usd::price(text).ok().map(|price| format!("write {price} without quotes"));
            return cell.wrong_type(EXPECTED, help);
        }
        _ => return cell.wrong_type(EXPECTED, None),
    };
    match Usd::price(&digits.replace('_', "")) {
        Ok(price) => Some(price),
        Err(why) => {
            let message = format!("`{}` must be {EXPECTED}: {why}", cell.path);
            cell.wrong(message, None);
            None
        }
    }
}

/// A cron expression of five fields.
pub fn cron(cell: &mut Cell<'_, '_>) -> Option<String> {
    const FORM: &str =
        "the five fields are minute, hour, day of the month, month, day of the week: \"0 9 * * Mon-Fri\"";
    let pattern = cell.as_text("a cron expression")?;
    let fields = pattern.split_whitespace().count();
    if fields != 5 {
        let message = format!("`{}` must have five fields, and this has {fields}", cell.path);
        cell.wrong(message, FORM.to_owned());
        return None;
    }
    // The parser's own reasons speak of its insides.
    if Calendar::new(&pattern, TimeZone::UTC).is_none() {
        let message = format!("`{}` is no cron expression: {}", cell.path, quote(&pattern));
        cell.wrong(message, FORM.to_owned());
        return None;
    }
    Some(pattern)
}

/// The name of a time zone.
pub fn time_zone(cell: &mut Cell<'_, '_>) -> Option<String> {
    let name = cell.as_text("the name of a time zone")?;
    let database = jiff::tz::db();
    // A machine without any time zones cannot judge the name.
    if database.is_definitively_empty() || database.get(&name).is_ok() {
        return Some(name);
    }
    let zones: Vec<String> = database.available().map(|zone| zone.to_string()).collect();
    let help = nearest(&name, zones.iter().map(String::as_str)).map_or_else(
        || "IANA names are written like \"Europe/Berlin\" or \"UTC\"".to_owned(),
        |near| format!("did you mean \"{near}\"?"),
    );
    let message = format!("`{}` names no time zone: {}", cell.path, quote(&name));
    cell.wrong(message, help);
    None
}

pub fn rate(cell: &mut Cell<'_, '_>) -> Option<Rate> {
    let rate = cell.as_text("a rate such as \"1/s\" or \"60/m\"")?;
    let read = Rate::parse(&rate);
    if read.is_some() {
        return read;
    }
    let message = format!("`{}`: {} is not a rate", cell.path, quote(&rate));
    cell.wrong(message, "rates are written \"1/s\", \"60/m\" or \"500/h\"".to_owned());
    None
}

/// A table of texts.
pub fn labels(cell: &mut Cell<'_, '_>) -> Option<BTreeMap<String, String>> {
    let value = cell.value;
    let DeValue::Table(table) = value.get_ref() else {
        return cell.wrong_type("a table of labels", "labels are written { team = \"evals\" }".to_owned());
    };
    let labels: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let mut label = cell.within(value);
            label.path = format!("{}.{}", label.path, shown(key.get_ref()));
            label.as_text("text").map(|value| (key.get_ref().clone().into_owned(), value))
        })
        .collect();
    labels.into_iter().collect()
}

/// A table of header names, each with the source of a secret. Names are in lower case then, as HTTP compares them.
pub fn headers(cell: &mut Cell<'_, '_>) -> Option<BTreeMap<String, SecretSource>> {
    let table_of = cell.value;
    let DeValue::Table(table) = table_of.get_ref() else {
        return cell.wrong_type(
            "a table of headers",
            "headers are written { \"x-team\" = { env = \"NAME\" } }".to_owned(),
        );
    };
    let mut headers = BTreeMap::new();
    let mut sound = true;
    for (key, value) in table {
        let mut header = cell.within(value);
        header.path = format!("{}.{}", header.path, shown(key.get_ref()));
        let Ok(name) = HeaderName::from_bytes(key.get_ref().as_bytes()) else {
            let message =
                format!("{} in `{}` cannot be the name of a header", quote(key.get_ref()), cell.path);
            let help = "names are made of letters, digits and `-`, such as \"x-team\"".to_owned();
            cell.problems.push(Problem::error(key.span(), message).help(help));
            sound = false;
            continue;
        };
        let Some(source) = secret(&mut header) else {
            sound = false;
            continue;
        };
        if headers.insert(name.as_str().to_owned(), source).is_some() {
            let message = format!("the header `{name}` is in `{}` twice; capitals do not count", cell.path);
            cell.problems.push(Problem::error(key.span(), message));
            sound = false;
        }
    }
    sound.then_some(headers)
}

/// The source of a secret, or a list of them.
pub fn secrets(cell: &mut Cell<'_, '_>) -> Option<Vec<Spanned<SecretSource>>> {
    let value = cell.value;
    match value.get_ref() {
        DeValue::Array(_) => cell.elements("a secret or a list of secrets", secret),
        _ => secret(cell).map(|secret| vec![Spanned::new(value.span(), secret)]),
    }
}

pub fn secret(cell: &mut Cell<'_, '_>) -> Option<SecretSource> {
    const SOURCES: [&str; 3] = ["env", "file", "credential"];
    const FORMS: &str = "write { env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }";
    let value = cell.value;
    let table = match value.get_ref() {
        // An empty one is refused like any text; what the others are is nobody's business.
        DeValue::String(text) if !text.trim().is_empty() => {
            return Some(SecretSource::Inline(text.as_ref().into()));
        }
        DeValue::String(_) => {
            let message = format!("`{}` is empty", cell.path);
            cell.wrong(message, FORMS.to_owned());
            return None;
        }
        DeValue::Table(table) => table,
        _ => return cell.wrong_type("the source of a secret", FORMS.to_owned()),
    };
    let mut sound = true;
    for (key, _) in table.iter().filter(|(key, _)| !SOURCES.contains(&key.get_ref().as_ref())) {
        let help = nearest(key.get_ref(), SOURCES)
            .map_or_else(|| FORMS.to_owned(), |near| format!("did you mean `{near}`?"));
        let message = format!("unknown key {} in `{}`", quote(key.get_ref()), cell.path);
        cell.problems.push(Problem::error(key.span(), message).help(help));
        sound = false;
    }
    let given: Vec<_> = SOURCES.into_iter().filter_map(|source| Some((source, table.get(source)?))).collect();
    let [(source, place)] = given.as_slice() else {
        // Where a misspelt source is the only one, it has been told.
        if sound || given.len() > 1 {
            let message = format!("`{}` needs exactly one source", cell.path);
            cell.wrong(message, FORMS.to_owned());
        }
        return None;
    };
    let mut place = cell.within(place);
    place.path = format!("{}.{source}", place.path);
    let name = place.as_text("text")?;
    let (source, valid, expected) = match *source {
        "env" => {
            let valid = secret::is_variable(&name);
            (SecretSource::Env(name), valid, "the name of an environment variable")
        }
        "file" => {
            let valid = name.contains('/') || !secret::looks_like_one(&name);
            (SecretSource::File(place.base.resolve(Path::new(&name))), valid, "the path of a file")
        }
        _ => {
            let valid = secret::is_credential(&name);
            (SecretSource::Credential(name), valid, "the name of a credential, without a slash")
        }
    };
    if !valid {
        let message = format!("`{}` must be {expected}", place.path);
        place.wrong(message, "it says where the secret is, not what it is".to_owned());
        return None;
    }
    sound.then_some(source)
}

/// What was probably meant by a text that is no duration: `15 sec` is `15s`.
fn duration_guess(text: &str) -> Option<String> {
    let text = text.trim();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let rest = text[digits.len()..].trim();
    // No unit at all is seconds most often.
    let unit = rest.chars().next().unwrap_or('s').to_ascii_lowercase();
    let words = ["s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes"]
        .into_iter()
        .chain(["h", "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "week", "weeks", ""]);
    let guess = format!("{digits}{unit}");
    (words.into_iter().any(|word| word.eq_ignore_ascii_case(rest)) && duration::parse(&guess).is_ok())
        .then_some(guess)
}

/// A value's type in plain words.
pub fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
