//! The further headers of a provider's requests: which ones a file may set, and whose values are secrets.

use super::catalog::KindFacts;
use super::secret::{self, SecretSource};
use http::HeaderValue;
use secrecy::ExposeSecret;

/// Why the header `name`, in lower case, cannot be set for a provider of this kind, as the rest of a sentence about it;
/// `None`: it can.
pub fn objection(name: &str, facts: &KindFacts) -> Option<&'static str> {
    if name == facts.key_header {
        return Some("is made of `api_key`");
    }
    match name {
        "authorization" if facts.token_env.is_empty() => {
            Some("belongs to the credentials of the provider; give a key in `api_key`")
        }
        "authorization" => Some("is made of `auth_token`"),
        "host" | "proxy-authorization" => Some("is made of an address: see `base_url` and `http.proxy`"),
        "idempotency-key" => Some("would be the same for every batch, so that only the first were created"),
        "x-amz-date" | "x-amz-security-token" | "x-amz-content-sha256" => Some("is part of AWS's signature"),
        "accept" | "accept-encoding" | "connection" | "expect" | "keep-alive" | "te" | "trailer"
        | "transfer-encoding" | "upgrade" => Some("says how batchd itself sends and reads"),
        _ if name.starts_with("content-") => Some("describes the body, which batchd makes"),
        _ if name.starts_with("x-goog-upload-") => Some("says how batchd itself sends and reads"),
        _ => None,
    }
}

/// The value as it is sent; `None`: no header may carry it, or not every server reads it alike.
pub fn value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text.trim()).ok().filter(|value| value.to_str().is_ok())?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether the value must not be shown: it comes from elsewhere, or name or form say so. A short word in the file itself
/// (`x-team = "evals"`) is none, and would be taken out of every answer that has the word in it.
pub fn is_secret(name: &str, source: &SecretSource) -> bool {
    let SecretSource::Inline(value) = source else { return true };
    let telling = ["auth", "cookie", "credential", "key", "password", "secret", "token"];
    telling.iter().any(|word| name.contains(word)) || secret::looks_like_one(value.expose_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_batchd_makes_itself_cannot_be_set() {
        let kind = KindFacts { key_header: "x-api-key", token_env: &["TOKEN"], ..KindFacts::NONE };
        for name in [
            "x-api-key",
            "authorization",
            "host",
            "content-type",
            "content-length",
            "transfer-encoding",
            "idempotency-key",
            "x-amz-date",
            "x-goog-upload-command",
        ] {
            assert!(objection(name, &kind).is_some(), "{name}");
            assert!(objection(name, &KindFacts::NONE).is_some() || name == "x-api-key", "{name}");
        }
        for name in ["anthropic-workspace-id", "anthropic-beta", "x-portkey-api-key", "cf-aig-authorization"]
        {
            assert_eq!(objection(name, &kind), None, "{name}");
        }
        assert!(objection("api-key", &kind).is_none());
    }

    #[test]
    fn a_value_is_a_secret_unless_it_is_a_plain_word_in_the_file() {
        let inline = |text: &str| SecretSource::Inline(text.into());
        assert!(!is_secret("x-team", &inline("evaluations")));
        assert!(!is_secret("anthropic-beta", &inline("output-300k-2026-03-24")));
        assert!(is_secret("x-portkey-api-key", &inline("word")));
        assert!(is_secret("helicone-auth", &inline("word")));
        assert!(is_secret("x-team", &inline("sk-0123456789abcdef0123")));
        assert!(is_secret("x-team", &SecretSource::Env("TEAM".to_owned())));
    }
}
