//! The forms that values take: how each is read, written and named, and how much of it may be shown.

use super::keys::Visibility;
use super::secret::SecretSource;
use super::size;
use super::value::{self, Cell};
use crate::domain::calendar::Calendar;
use crate::domain::cost::Usd;
use crate::domain::duration::compact;
use crate::domain::pace::Rate;
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use url::Url;

/// How the value of a key is read and shown.
///
/// Only a form says how much of its values may be shown, so a key cannot be declared without it: secrets have the
/// forms [`SECRET`], [`SECRETS`], [`SECRET_ADDRESS`] and [`SECRET_SERVER`], whose values have no other way to text than [`source`].
pub struct Form<T: 'static> {
    /// Type and unit in words.
    pub name: &'static str,
    pub visibility: Visibility,
    /// Reads a value, or reports what is wrong with it.
    pub read: fn(&mut Cell<'_, '_>) -> Option<T>,
    /// The value as TOML, without what may not be shown; `None`: the same as a key that is not there.
    pub write: fn(&T) -> Option<String>,
    pub bounds: Option<&'static Bounds<T>>,
}

impl<T> Form<T> {
    /// The same form with bounds.
    pub const fn within(self, bounds: &'static Bounds<T>) -> Self {
        Self { bounds: Some(bounds), ..self }
    }

    /// Type, unit and bounds in words.
    pub fn describe(&self) -> String {
        match self.bounds {
            Some(bounds) => format!("{}, {}", self.name, (bounds.described)(bounds)),
            None => self.name.to_owned(),
        }
    }
}

/// What a value may be, both ends included.
pub struct Bounds<T: 'static> {
    least: T,
    most: T,
    includes: fn(&Self, &T) -> bool,
    written: fn(&T) -> String,
    described: fn(&Self) -> String,
}

impl<T> Bounds<T> {
    /// The value if it is within the bounds; else that is reported.
    pub fn hold(&self, value: T, cell: &mut Cell<'_, '_>) -> Option<T> {
        if (self.includes)(self, &value) {
            return Some(value);
        }
        let message = format!(
            "`{}` must be between {} and {}, not {}",
            cell.path,
            (self.written)(&self.least),
            (self.written)(&self.most),
            (self.written)(&value)
        );
        cell.wrong(message, None);
        None
    }
}

impl Bounds<Duration> {
    pub const fn durations(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            includes: |bounds, value| (bounds.least..=bounds.most).contains(value),
            written: |duration| compact(*duration),
            described: |bounds| format!("`{}` to `{}`", compact(bounds.least), compact(bounds.most)),
        }
    }
}

impl Bounds<u32> {
    pub const fn counts(least: u32, most: u32) -> Self {
        Self {
            least,
            most,
            includes: |bounds, value| (bounds.least..=bounds.most).contains(value),
            written: u32::to_string,
            described: |bounds| format!("{} to {}", bounds.least, bounds.most),
        }
    }
}

impl Bounds<u64> {
    /// Sizes of at least `least` bytes.
    pub const fn sizes_from(least: u64) -> Self {
        Self {
            least,
            most: u64::MAX,
            includes: |bounds, value| (bounds.least..=bounds.most).contains(value),
            written: |bytes| format!("{bytes} bytes"),
            described: |bounds| format!("`{}` or more", size::compact(bounds.least)),
        }
    }
}

/// Text that holds no secret.
pub const PLAIN_TEXT: Form<String> = plain("text", value::text, |text| Some(quoted(text)));

/// A list of texts without secrets, kept as one text with commas between them, which is another way to write it.
pub const TEXT_LIST: Form<String> = Form { name: "list of texts", read: value::text_list, ..PLAIN_TEXT };

/// One word of those that the key's documentation names.
pub const WORD: Form<String> = Form { name: "word", ..PLAIN_TEXT };

/// Names that the user chose elsewhere in the file.
pub const NAMES: Form<Vec<Spanned<String>>> =
    plain("list of names", value::texts, |names| Some(list(names.iter().map(|name| quoted(name.get_ref())))));

pub const PATH: Form<PathBuf> = plain("path", value::path, |path| Some(quoted(&path.to_string_lossy())));

pub const SWITCH: Form<bool> = plain("`true` or `false`", value::switch, |on| Some(on.to_string()));

pub const COUNT: Form<u32> = plain("whole number", value::count, |count| Some(count.to_string()));

pub const DURATION: Form<Duration> =
    plain("duration", value::duration, |duration| Some(quoted(&compact(*duration))));

pub const SIZE: Form<u64> = plain("size", value::bytes, |bytes| Some(quoted(&size::compact(*bytes))));

/// US dollars for a million tokens.
pub const PRICE: Form<Usd> = plain("price", value::price, |price| Some(price.to_string()));

pub const RATE: Form<Rate> = plain("rate", value::rate, |rate| Some(quoted(&rate.to_string())));

pub const CRON: Form<String> =
    plain("cron pattern of five fields", value::cron, |pattern| Some(quoted(pattern)));

/// A cron pattern whose times are in UTC.
pub const CRON_IN_UTC: Form<Calendar> = plain(
    "cron pattern of five fields, in UTC",
    |cell| Calendar::new(&value::cron(cell)?, TimeZone::UTC),
    |calendar| Some(quoted(calendar.as_str())),
);

pub const TIME_ZONE: Form<String> =
    plain("name of a time zone (IANA)", value::time_zone, |name| Some(quoted(name)));

pub const LABELS: Form<BTreeMap<String, String>> = Form {
    visibility: Visibility::PlainTable,
    ..plain("table of labels", value::labels, |labels| {
        let labels = labels.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
        let labels: Vec<String> = labels.collect();
        (!labels.is_empty()).then(|| format!("{{ {} }}", labels.join(", ")))
    })
};

/// An address without secrets in its path.
pub const ADDRESS: Form<String> = Form {
    name: "address",
    visibility: Visibility::Address { whole_path: true },
    read: value::text,
    write: |address| Some(quoted(without_secrets(address))),
    bounds: None,
};

pub const SECRET: Form<SecretSource> = Form {
    name: "secret",
    visibility: Visibility::Secret,
    read: value::secret,
    write: |secret| Some(source(secret)),
    bounds: None,
};

/// Where a PostgreSQL server is, its password included.
pub const SECRET_SERVER: Form<SecretSource> =
    Form { name: "address of a PostgreSQL server, as a secret", ..SECRET };

/// Headers of requests by their names, in lower case; each value is a secret.
pub const HEADERS: Form<BTreeMap<String, SecretSource>> = Form {
    name: "table of header names and secrets",
    visibility: Visibility::SecretTable,
    read: value::headers,
    write: |headers| {
        let headers = headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), source(value)));
        let headers: Vec<String> = headers.collect();
        (!headers.is_empty()).then(|| format!("{{ {} }}", headers.join(", ")))
    },
    bounds: None,
};

pub const SECRETS: Form<Vec<Spanned<SecretSource>>> = Form {
    name: "secret or list of secrets",
    visibility: Visibility::Secret,
    read: value::secrets,
    write: |secrets| Some(list(secrets.iter().map(|secret| source(secret.get_ref())))),
    bounds: None,
};

/// An address that whoever knows it may use.
pub const SECRET_ADDRESS: Form<SecretSource> = Form {
    name: "address, as a secret",
    visibility: Visibility::Address { whole_path: false },
    read: value::secret,
    write: |secret| Some(secret_address(secret)),
    bounds: None,
};

/// A form of which everything may be shown.
pub const fn plain<T>(
    name: &'static str,
    read: fn(&mut Cell<'_, '_>) -> Option<T>,
    write: fn(&T) -> Option<String>,
) -> Form<T> {
    Form { name, visibility: Visibility::Plain, read, write, bounds: None }
}

/// A secret's source as the file writes it; of an inline one nothing.
pub fn source(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name) => format!("{{ env = {} }}", quoted(name)),
        SecretSource::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
        SecretSource::Credential(name) => format!("{{ credential = {} }}", quoted(name)),
        SecretSource::Inline(_) => quoted(REDACTED),
    }
}

/// The same for an address: of an inline one scheme, host and port.
fn secret_address(address: &SecretSource) -> String {
    let SecretSource::Inline(text) = address else { return source(address) };
    quoted(&Url::parse(text.expose_secret()).map_or_else(|_| REDACTED.to_owned(), |url| shortened(&url)))
}

/// Scheme, host and port of an address; an ellipsis says that there is more.
pub fn shortened(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    let whole = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if whole && url.username().is_empty() && url.password().is_none() {
        origin
    } else {
        format!("{origin}/…")
    }
}

/// The address, unless a user or a query in it may be secret.
fn without_secrets(address: &str) -> &str {
    let harmless = |url: &Url| url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if Url::parse(address).is_ok_and(|url| harmless(&url)) { address } else { REDACTED }
}

/// A list as TOML, of elements that are TOML already.
pub fn list(elements: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", elements.into_iter().collect::<Vec<_>>().join(", "))
}

/// A text as a TOML string on one line.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a text cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";
