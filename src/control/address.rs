//! The address of a daemon: a Unix socket, or HTTP.

use std::path::PathBuf;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `http://HOST:PORT` (or `https`, behind a proxy), no slash at the end.
    Http(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(base) => f.write_str(base),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |what| BadAddress { text: text.to_owned(), what };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(bad("the path of a socket is absolute"))
            };
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(bad("it has no scheme that batchd knows"));
        }
        let url = url::Url::parse(text).map_err(|_| bad("it is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            // Repeating it would show the password.
            return Err(BadAddress {
                text: "the address".to_owned(),
                what: "it holds a password; a token goes into BATCHD_TOKEN",
            });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("nothing may follow the path"));
        }
        Ok(Self::Http(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} cannot be used: {what}; write unix:///PATH or http://HOST:PORT")]
pub struct BadAddress {
    text: String,
    what: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_again() {
        for text in ["unix:///run/batchd/batchd.sock", "http://127.0.0.1:8765", "https://batchd.example.com"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("http://h:1/".parse::<Address>().unwrap().to_string(), "http://h:1");
        for bad in ["", "/run/x", "unix://run/x", "ftp://h", "127.0.0.1:80", "http://", "http://h?x=1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let error = "http://u:hunter2@h".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
