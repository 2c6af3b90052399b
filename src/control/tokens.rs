//! The bearer tokens of the API over TCP, and what each of them opens (`docs/contract.md#access`).

use secrecy::{ExposeSecret, SecretString};

/// The bearer tokens in force.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Opens everything.
    pub all: Option<SecretString>,
    /// Opens what only reads.
    pub reading: Option<SecretString>,
}

/// What the token of a request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Nothing,
    MayRead,
    MayDoEverything,
}

impl Tokens {
    /// What `given`, the token of a request, proves.
    pub(super) fn proof(&self, given: Option<&str>) -> Proof {
        let Some(given) = given else { return Proof::Nothing };
        let is = |token: &Option<SecretString>| {
            token.as_ref().is_some_and(|token| same(token.expose_secret().as_bytes(), given.as_bytes()))
        };
        // Both are compared: the time tells nothing of which it was.
        match (is(&self.all), is(&self.reading)) {
            (true, _) => Proof::MayDoEverything,
            (false, true) => Proof::MayRead,
            (false, false) => Proof::Nothing,
        }
    }

    /// What a token of this digest proves, if it is in force.
    pub(super) fn proof_of(&self, digest: &Digest) -> Proof {
        let is = |token: &Option<SecretString>| {
            token.as_ref().is_some_and(|token| digest_of(token.expose_secret()) == *digest)
        };
        match (is(&self.all), is(&self.reading)) {
            (true, _) => Proof::MayDoEverything,
            (false, true) => Proof::MayRead,
            (false, false) => Proof::Nothing,
        }
    }

    /// Whether none is configured.
    pub(super) fn is_none(&self) -> bool {
        self.all.is_none() && self.reading.is_none()
    }
}

/// What a session remembers of the token that it was opened with.
pub(super) type Digest = [u8; 32];

pub(super) fn digest_of(token: &str) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(token.as_bytes()).into()
}

/// Compares in a time that tells nothing of where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
}
