//! A destination's URL taken apart: what goes on the request line and what becomes a header. All of it is secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// Where a request goes. Its `Debug` form tells nothing.
#[derive(Clone)]
pub struct Address {
    /// The URL without user and password, in its normal form.
    pub uri: Uri,
    /// `Authorization` from the URL's user and password, marked sensitive.
    pub authorization: Option<HeaderValue>,
}

/// Why a text is no address. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// It cannot be read at all.
    #[error("the URL cannot be read; write it like \"https://example.com/hooks/batches\"")]
    Unreadable,
    /// It is of another scheme.
    #[error("the URL must begin with https:// or http://")]
    Scheme,
}

impl Address {
    /// Reads a URL; a user and a password in it become `Authorization: Basic`.
    pub fn parse(url: &SecretString) -> Result<Self, BadAddress> {
        let mut url: reqwest::Url = url.expose_secret().trim().parse().map_err(|_| BadAddress::Unreadable)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadAddress::Scheme);
        }
        let authorization = credentials(&url).map(|text| {
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text)))
                .map_err(|_| BadAddress::Unreadable)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let authorization = authorization.transpose()?;
        // An `http` URL always has a host, so these cannot fail.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_fragment(None);
        let uri = url.as_str().parse().map_err(|_| BadAddress::Unreadable)?;
        Ok(Self { uri, authorization })
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address([redacted])")
    }
}

/// `user:password` of a URL, decoded.
pub fn credentials(url: &reqwest::Url) -> Option<Vec<u8>> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut text: Vec<u8> = percent_decode_str(url.username()).collect();
    text.push(b':');
    text.extend(percent_decode_str(url.password().unwrap_or_default()));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, BadAddress> {
        Address::parse(&SecretString::from(url))
    }

    #[test]
    fn g9_user_and_password_become_a_header_and_leave_the_url() {
        let address = parse("https://ops:p%40ss%3A@hooks.example.com:8443/in?key=1#part").unwrap();
        assert_eq!(address.uri.to_string(), "https://hooks.example.com:8443/in?key=1");
        let header = address.authorization.clone().unwrap();
        assert_eq!(header, format!("Basic {}", STANDARD.encode("ops:p@ss:")).as_str());
        assert!(header.is_sensitive());
        assert_eq!(format!("{address:?}"), "Address([redacted])");
        assert!(parse("http://127.0.0.1/").unwrap().authorization.is_none());
    }

    #[test]
    fn the_normal_form_hides_no_address() {
        assert_eq!(parse("http://0xa9fea9fe/x").unwrap().uri.host(), Some("169.254.169.254"));
        assert_eq!(parse("http://[::FFFF:10.0.0.1]/").unwrap().uri.host(), Some("[::ffff:a00:1]"));
    }

    #[test]
    fn what_is_no_web_address_is_refused_without_repeating_it() {
        for (url, problem) in [
            ("", BadAddress::Unreadable),
            ("hooks.example.com/SECRET", BadAddress::Unreadable),
            ("https://", BadAddress::Unreadable),
            ("ftp://example.com/SECRET", BadAddress::Scheme),
            ("file:///SECRET", BadAddress::Scheme),
        ] {
            let found = parse(url).unwrap_err();
            assert_eq!(found, problem, "{url}");
            assert!(!found.to_string().contains("SECRET"));
        }
    }
}
