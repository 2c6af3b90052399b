//! Standard Webhooks `v1` signatures: made for what is sent, checked for what is received (`docs/delivery.md#signing`).

use crate::domain::time::from_seconds;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The header with the event's id, the same on every attempt.
pub const ID: &str = "webhook-id";
/// The header with the attempt's time, in Unix seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with one signature for each secret.
pub const SIGNATURE: &str = "webhook-signature";

/// How far a timestamp may lie from now, either way.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// How many bytes of secret the specification asks for; others work and deserve a warning.
pub const USUAL_BYTES: RangeInclusive<usize> = 24..=64;

/// The secret of one signature.
#[derive(Clone, Debug)]
pub struct SigningKey(SecretSlice<u8>);

/// Why a text is no signing secret. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It does not begin with `whsec_`.
    #[error("a signing secret begins with whsec_; make one with: echo whsec_$(openssl rand -base64 32)")]
    Prefix,
    /// What follows is not base64.
    #[error(
        "what follows whsec_ in a signing secret is not base64; make one with: echo whsec_$(openssl rand -base64 32)"
    )]
    Base64,
    /// Nothing follows.
    #[error(
        "nothing follows whsec_ in the signing secret; make one with: echo whsec_$(openssl rand -base64 32)"
    )]
    Empty,
}

/// Why a received message is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// A header is not there.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The time of the attempt is no number.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// It is too far from now.
    #[error("webhook-timestamp is more than five minutes from now; compare the clocks")]
    Age,
    /// No `v1` signature fits.
    #[error("no signature matches")]
    Mismatch,
}

impl SigningKey {
    /// Reads `whsec_` and base64, with or without padding.
    pub fn parse(secret: &str) -> Result<Self, BadSecret> {
        let key = secret.trim().strip_prefix(PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = LENIENT.decode(key).map_err(|_| BadSecret::Base64)?;
        if bytes.is_empty() { Err(BadSecret::Empty) } else { Ok(Self(bytes.into())) }
    }

    /// The key with which a service signs its own webhooks, as the service gives it out.
    pub const fn of_service(key: SecretSlice<u8>) -> Self {
        Self(key)
    }

    /// How many bytes it has; see [`USUAL_BYTES`].
    pub fn bytes(&self) -> usize {
        self.0.expose_secret().len()
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).ok()?;
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        Some(mac)
    }
}

/// The value of [`SIGNATURE`]: one item for each key, in their order; `None` without keys.
pub fn sign(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let items: Vec<String> = keys
        .iter()
        .filter_map(|key| key.mac(id, timestamp, body))
        .map(|mac| format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        .collect();
    (!items.is_empty()).then(|| items.join(" "))
}

/// Checks a received message by its three headers; any key and any `v1` item will do, compared in constant time.
pub fn verify(
    keys: &[SigningKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), BadSignature> {
    let header = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or(BadSignature::Missing(name))
    };
    let (id, timestamp, signature) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
    let seconds: i64 = timestamp.trim().parse().map_err(|_| BadSignature::Timestamp)?;
    let at = from_seconds(seconds).ok_or(BadSignature::Timestamp)?;
    if at.duration_since(now).unsigned_abs() > TOLERANCE {
        return Err(BadSignature::Age);
    }
    let given = signature.split(' ').filter_map(|item| STANDARD.decode(item.strip_prefix("v1,")?).ok());
    for item in given {
        for key in keys {
            if key.mac(id, seconds, body).is_some_and(|mac| mac.verify_slice(&item).is_ok()) {
                return Ok(());
            }
        }
    }
    Err(BadSignature::Mismatch)
}

const PREFIX: &str = "whsec_";

/// Generators differ in whether they pad.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OLD_SECRET: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    const EVENT: &str = "evt_01JBATCHD0000000000000001";
    const AT: i64 = 1_760_000_000;
    const BODY: &str = r#"{"type":"batch.completed","timestamp":"2025-10-09T08:53:20Z","data":{"batch_id":"batch_abc123","provider":"openai"}}"#;

    fn key(secret: &str) -> SigningKey {
        SigningKey::parse(secret).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        from_seconds(seconds).unwrap()
    }

    #[test]
    fn vector_a_one_secret() {
        assert_eq!(BODY.len(), 116);
        assert_eq!(
            sign(&[key(SECRET)], EVENT, AT, BODY.as_bytes()).as_deref(),
            Some("v1,+fqLOC+diXp9MewpQw/wL1iUlQfr5pZPe2ZCOxY5EPU=")
        );
    }

    #[test]
    fn vector_b_rotation_signs_with_every_secret_newest_first() {
        assert_eq!(
            sign(&[key(SECRET), key(OLD_SECRET)], EVENT, AT, BODY.as_bytes()).as_deref(),
            Some(
                "v1,+fqLOC+diXp9MewpQw/wL1iUlQfr5pZPe2ZCOxY5EPU= v1,mnPqpnKXhkNtqJ9mqeAChkPOL7Kn+fCtmlbuKZ2TgzY="
            )
        );
    }

    #[test]
    fn vector_c_the_body_is_bytes() {
        let body = "{\"type\":\"batch.failed\",\"data\":{\"name\":\"näïve ☃ 😀\"}}";
        assert_eq!(
            sign(&[key(SECRET)], EVENT, AT, body.as_bytes()).as_deref(),
            Some("v1,hJIucPYRA/MYtqdOorJPqKJGQsL0o6LVCX/a/JZWyr8=")
        );
    }

    #[test]
    fn vector_e_the_published_one() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(
            sign(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
                .as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn without_a_secret_nothing_is_signed() {
        assert_eq!(sign(&[], EVENT, AT, b"{}"), None);
    }

    #[test]
    fn a_receiver_takes_any_of_several_and_nothing_else() {
        let good = sign(&[key(SECRET), key(OLD_SECRET)], EVENT, AT, BODY.as_bytes()).unwrap();
        let check = |keys: &[SigningKey], id: &str, timestamp: &str, signature: &str, body: &str, now| {
            let mut headers = HeaderMap::new();
            headers.insert(ID, id.parse().unwrap());
            headers.insert(TIMESTAMP, timestamp.parse().unwrap());
            headers.insert(SIGNATURE, signature.parse().unwrap());
            verify(keys, &headers, body.as_bytes(), at(now))
        };
        let none = verify(&[key(SECRET)], &HeaderMap::new(), b"{}", at(AT));
        assert_eq!(none, Err(BadSignature::Missing("webhook-id")));
        let time = AT.to_string();
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &good, BODY, AT), Ok(()));
        assert_eq!(check(&[key(OLD_SECRET)], EVENT, &time, &good, BODY, AT), Ok(()));
        // Other versions beside it are passed over.
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &format!("v1a,xyz v2 {good}"), BODY, AT), Ok(()));
        let mismatch = Err(BadSignature::Mismatch);
        assert_eq!(check(&[key(SECRET)], "evt_2", &time, &good, BODY, AT), mismatch);
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &good, "{}", AT), mismatch);
        assert_eq!(check(&[key(SECRET)], EVENT, &time, "", BODY, AT), mismatch);
        assert_eq!(check(&[key(SECRET)], EVENT, &time, "v1,", BODY, AT), mismatch);
        assert_eq!(check(&[], EVENT, &time, &good, BODY, AT), mismatch);
        assert_eq!(check(&[key(SECRET)], EVENT, "soon", &good, BODY, AT), Err(BadSignature::Timestamp));
        assert_eq!(
            check(&[key(SECRET)], EVENT, &i64::MAX.to_string(), &good, BODY, AT),
            Err(BadSignature::Timestamp)
        );
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &good, BODY, AT + 300), Ok(()));
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &good, BODY, AT + 301), Err(BadSignature::Age));
        assert_eq!(check(&[key(SECRET)], EVENT, &time, &good, BODY, AT - 301), Err(BadSignature::Age));
    }

    #[test]
    fn a_secret_says_what_is_wrong_with_it_and_never_itself() {
        assert_eq!(key(SECRET).bytes(), 32);
        assert_eq!(key(&format!(" {}\n", SECRET.trim_end_matches('='))).bytes(), 32);
        for (secret, problem) in [
            ("", BadSecret::Prefix),
            ("hunter22hunter22", BadSecret::Prefix),
            ("whsec_", BadSecret::Empty),
            ("whsec_hunter22!", BadSecret::Base64),
        ] {
            let found = SigningKey::parse(secret).unwrap_err();
            assert_eq!(found, problem, "{secret}");
            assert!(!found.to_string().contains("hunter22"));
        }
        assert!(!USUAL_BYTES.contains(&key("whsec_c2hvcnQ=").bytes()));
        assert!(!format!("{:?}", key(SECRET)).contains("AAEC"));
    }

    proptest! {
        #[test]
        fn the_reference_agrees(secret: [u8; 32], id in "[a-z0-9_]{1,40}", body in "\\PC{0,200}", at_seconds in 0_i64..4_000_000_000) {
            let text = format!("whsec_{}", STANDARD.encode(secret));
            let reference = standardwebhooks::Webhook::new(&text).unwrap();
            prop_assert_eq!(
                sign(&[key(&text)], &id, at_seconds, body.as_bytes()).unwrap(),
                reference.sign(&id, at_seconds, body.as_bytes()).unwrap()
            );
        }
    }
}
