//! How PostgreSQL's clients write where a server is, taken apart into options: a URL, or a list of `key=value`.

use percent_encoding::percent_decode_str;

/// Why a text is none; nothing of the text is repeated, for it holds a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConnInfo {
    #[error("write it like `postgres://USER:PASSWORD@HOST:5432/DATABASE`")]
    Form,
    #[error("a `%` in it does not begin an encoded character; a percent sign is written `%25`")]
    Encoding,
    #[error(
        "a `/`, `?` or `@` in it is not where one belongs; in a user, a password or a value write `%2F`, `%3F`, `%40`"
    )]
    Misplaced,
    #[error("an option behind the `?` has no `=`")]
    NoValue,
    #[error("a quote `'` is opened and not closed")]
    Quote,
}

/// The options that `text` gives, in order, decoded. Of several hosts the option `host` holds all, with commas between
/// them; so does `port`.
pub fn options(text: &str) -> Result<Vec<(String, String)>, BadConnInfo> {
    let text = text.trim();
    match SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => of_url(rest),
        None if !text.contains("://") && text.contains('=') => of_list(text),
        None => Err(BadConnInfo::Form),
    }
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

fn of_url(rest: &str) -> Result<Vec<(String, String)>, BadConnInfo> {
    let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let database = path.strip_prefix('/').unwrap_or(path);
    // Most likely a password that holds one of these, so that what seems to be the rest is part of it.
    if behind.contains('@') || database.contains('/') || query.contains('?') {
        return Err(BadConnInfo::Misplaced);
    }
    let mut options = Vec::new();
    let mut add = |key: &str, value: String| options.push((key.to_owned(), value));
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = credentials.split_once(':').unzip();
            add("user", decoded(user.unwrap_or(credentials))?);
            if let Some(password) = password {
                add("password", decoded(password)?);
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let places: Vec<(String, &str)> = hosts.split(',').map(place).collect::<Result<_, _>>()?;
        add("host", places.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(","));
        if places.iter().any(|(_, port)| !port.is_empty()) {
            add("port", places.iter().map(|(_, port)| *port).collect::<Vec<_>>().join(","));
        }
    }
    if !database.is_empty() {
        add("dbname", decoded(database)?);
    }
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or(BadConnInfo::NoValue)?;
        add(&decoded(key)?, decoded(value)?);
    }
    Ok(options)
}

/// A host of a URL, decoded, and its port; `[::1]` stands without its brackets.
fn place(text: &str) -> Result<(String, &str), BadConnInfo> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or(BadConnInfo::Form)?;
            let port = if behind.is_empty() { Some("") } else { behind.strip_prefix(':') };
            (host, port.ok_or(BadConnInfo::Form)?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    Ok((decoded(host)?, port))
}

/// `text` with what is percent-encoded in it decoded.
fn decoded(text: &str) -> Result<String, BadConnInfo> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let sound = |(at, byte): (usize, &u8)| *byte != b'%' || (digit(at + 1) && digit(at + 2));
    if !bytes.iter().enumerate().all(sound) {
        return Err(BadConnInfo::Encoding);
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| BadConnInfo::Encoding)?;
    if text.contains('\0') { Err(BadConnInfo::Encoding) } else { Ok(text.into_owned()) }
}

/// `host=db port='5432'`: values with spaces stand in quotes, `\` takes the next character as it is.
fn of_list(text: &str) -> Result<Vec<(String, String)>, BadConnInfo> {
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=').ok_or(BadConnInfo::Form)?;
        let (value, behind) = value(behind.trim_start())?;
        options.push((key.trim_end().to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(options)
}

/// The value at the beginning of `text`, and what follows.
fn value(text: &str) -> Result<(String, &str), BadConnInfo> {
    let (quoted, text) = text.strip_prefix('\'').map_or((false, text), |rest| (true, rest));
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(BadConnInfo::Quote) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, BadConnInfo> {
        let options = options(text)?;
        Ok(options.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, options) in [
            ("postgres://h", "host=h"),
            ("postgresql://h/d", "host=h dbname=d"),
            ("postgresql://u@h:1/d", "user=u host=h port=1 dbname=d"),
            ("postgres://u:p@h/d?sslmode=require", "user=u password=p host=h dbname=d sslmode=require"),
            ("postgres://u:p%40%2F%3A@h/d", "user=u password=p@/: host=h dbname=d"),
            ("postgres://u:p@p:q@h/d", "user=u password=p@p:q host=h dbname=d"),
            ("postgres://a:1,b,c:3/d", "host=a,b,c port=1,,3 dbname=d"),
            ("postgres://a,b/d", "host=a,b dbname=d"),
            ("postgres://[::1]:5433,[fe80::1]/d", "host=::1,fe80::1 port=5433, dbname=d"),
            ("postgres://%2Fvar%2Frun/d", "host=/var/run dbname=d"),
            ("postgres:///d?host=/var/run&port=5433", "dbname=d host=/var/run port=5433"),
            ("postgres://h?user=u", "host=h user=u"),
            ("postgres://h/?options=-c%20search_path%3Da", "host=h options=-c search_path=a"),
            (" postgres://h/d\n", "host=h dbname=d"),
            ("postgres://", ""),
        ] {
            assert_eq!(read(url).as_deref(), Ok(options), "{url}");
        }
    }

    #[test]
    fn lists_are_read_as_libpq_reads_them() {
        for (text, options) in [
            ("host=h", "host=h"),
            ("host = h  port= 1 dbname =d", "host=h port=1 dbname=d"),
            (r"password='a b\'c\\' user=u\ v", r"password=a b'c\ user=u v"),
            ("password='' host=h", "password= host=h"),
            ("password=a=b", "password=a=b"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(options), "{text}");
        }
        assert_eq!(read("password='a"), Err(BadConnInfo::Quote));
        assert_eq!(read("host=h nonsense"), Err(BadConnInfo::Form));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, why) in [
            ("", BadConnInfo::Form),
            ("h", BadConnInfo::Form),
            ("mysql://u:p@h/d?a=b", BadConnInfo::Form),
            ("https://h/d", BadConnInfo::Form),
            ("postgres://[::1/d", BadConnInfo::Form),
            ("postgres://[::1]x/d", BadConnInfo::Form),
            ("postgres://u:100%@h/d", BadConnInfo::Encoding),
            ("postgres://u:%ff@h/d", BadConnInfo::Encoding),
            ("postgres://u:%00@h/d", BadConnInfo::Encoding),
            ("postgres://u:p/q@h/d", BadConnInfo::Misplaced),
            ("postgres://u:p?q@h/d", BadConnInfo::Misplaced),
            ("postgres://h/d/e", BadConnInfo::Misplaced),
            ("postgres://h/d?sslmode", BadConnInfo::NoValue),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((postgres://)?[ -~]{0,40}|\\PC{0,40})") {
            let _ = options(&text);
        }

        #[test]
        fn what_is_encoded_comes_back(user in "\\PC{1,12}", password in "\\PC{0,12}", database in "\\PC{1,12}") {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let url = format!("postgres://{}:{}@h/{}", encoded(&user), encoded(&password), encoded(&database));
            let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            prop_assert_eq!(
                options(&url),
                Ok(vec![of("user", &user), of("password", &password), of("host", "h"), of("dbname", &database)])
            );
            let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
            // Without an end of line it is one text; a `://` in it would make it a URL.
            if !user.contains("://") && !password.contains("://") {
                let list = format!("user={} password={} host=h", quoted(&user), quoted(&password));
                prop_assert_eq!(
                    options(&list),
                    Ok(vec![of("user", &user), of("password", &password), of("host", "h")])
                );
            }
        }
    }
}
