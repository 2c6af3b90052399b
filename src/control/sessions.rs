//! Who has the dashboard open: sessions that a token opened, the words that prove that a form is ours, and what is told
//! after an action (`docs/dashboard.md#access`).

use super::tokens::Digest;
use crate::domain::time::{later, since};
use crate::sync::lock;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_hours(12);

/// The sessions of one listener. They are kept in memory: a restart closes them.
pub(super) struct Sessions {
    /// What the words in forms are made with.
    key: [u8; 32],
    open: Mutex<BTreeMap<SessionId, Session>>,
    told: Mutex<VecDeque<(SessionId, Flash)>>,
}

/// What a cookie holds: chance that nobody guesses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(String);

struct Session {
    /// Of the token that opened it: with another in force, it is closed.
    token: Digest,
    until: Timestamp,
}

/// What is told on the next page after an action.
#[derive(Clone, Debug)]
pub(super) struct Flash {
    pub(super) went_well: bool,
    pub(super) text: String,
}

impl Sessions {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { key: chance(), open: Mutex::default(), told: Mutex::default() }
    }

    /// Opens one for whoever has given the token of this digest.
    pub(super) fn open(&self, token: Digest, now: Timestamp) -> SessionId {
        let id = SessionId::new();
        let mut open = lock(&self.open);
        open.retain(|_, session| session.until > now);
        while open.len() >= MOST {
            let oldest = open.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            open.remove(&oldest);
        }
        open.insert(id.clone(), Session { token, until: later(now, LIFETIME) });
        id
    }

    /// The digest of the token that opened the session, while it lasts.
    pub(super) fn token_of(&self, id: &SessionId, now: Timestamp) -> Option<Digest> {
        let open = lock(&self.open);
        // Whose clock was set back is asked again, rather than let in for longer.
        let lasts = |session: &&Session| session.until > now && since(now, session.until) <= LIFETIME;
        open.get(id).filter(lasts).map(|session| session.token)
    }

    pub(super) fn close(&self, id: &SessionId) {
        lock(&self.open).remove(id);
    }

    /// The word that the forms on a session's pages carry.
    pub(super) fn form_word(&self, id: &SessionId) -> String {
        self.mac(id).map(|mac| BASE64URL_NOPAD.encode(&mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// Whether `word` stands in a form of that session; compared in a time that tells nothing.
    pub(super) fn is_form_word(&self, id: &SessionId, word: &str) -> bool {
        let Ok(given) = BASE64URL_NOPAD.decode(word.as_bytes()) else { return false };
        self.mac(id).is_some_and(|mac| mac.verify_slice(&given).is_ok())
    }

    fn mac(&self, id: &SessionId) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(b"batchd/form/");
        mac.update(id.0.as_bytes());
        Some(mac)
    }

    /// Keeps what is to be told on the session's next page.
    pub(super) fn tell(&self, id: &SessionId, flash: Flash) {
        let mut told = lock(&self.told);
        told.push_back((id.clone(), flash));
        if told.len() > MOST {
            told.pop_front();
        }
    }

    /// What is to be told now; it is told once.
    pub(super) fn take_told(&self, id: &SessionId) -> Vec<Flash> {
        let mut told = lock(&self.told);
        let (own, others) = std::mem::take(&mut *told).into_iter().partition(|(at, _)| at == id);
        *told = others;
        let own: VecDeque<(SessionId, Flash)> = own;
        own.into_iter().map(|(_, flash)| flash).collect()
    }
}

impl SessionId {
    pub(super) fn new() -> Self {
        Self(BASE64URL_NOPAD.encode(&chance()))
    }

    /// What a cookie says, if it can be one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_one = BASE64URL_NOPAD.decode(text.as_bytes()).is_ok_and(|bytes| bytes.len() == 32);
        is_one.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes that nobody guesses, from the system.
///
/// # Panics
///
/// If the system gives none: then nothing here can be kept apart from what is guessed.
fn chance() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// How many sessions may be open; the oldest makes room.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_760_000_000, 0);

    #[test]
    fn a_session_lasts_its_time_and_no_longer() {
        let sessions = Sessions::new();
        let id = sessions.open([7; 32], NOW);
        assert_eq!(sessions.token_of(&id, NOW), Some([7; 32]));
        assert_eq!(sessions.token_of(&id, later(NOW, LIFETIME)), None);
        let before = crate::domain::time::earlier(NOW, Duration::from_hours(1));
        assert_eq!(sessions.token_of(&id, before), None, "the clock was set back");
        assert_eq!(sessions.token_of(&SessionId::new(), NOW), None);
        sessions.close(&id);
        assert_eq!(sessions.token_of(&id, NOW), None);
    }

    #[test]
    fn there_are_never_more_than_fit_and_the_oldest_goes() {
        let sessions = Sessions::new();
        let first = sessions.open([1; 32], NOW);
        let second = sessions.open([1; 32], later(NOW, Duration::from_secs(1)));
        for _ in 0..MOST - 1 {
            sessions.open([2; 32], later(NOW, Duration::from_secs(2)));
        }
        let now = later(NOW, Duration::from_secs(3));
        assert!(sessions.token_of(&first, now).is_none() && sessions.token_of(&second, now).is_some());
    }

    #[test]
    fn a_word_is_good_for_one_session_of_one_process() {
        let (sessions, others) = (Sessions::new(), Sessions::new());
        let (id, other) = (SessionId::new(), SessionId::new());
        let word = sessions.form_word(&id);
        assert!(sessions.is_form_word(&id, &word));
        assert!(!sessions.is_form_word(&other, &word) && !others.is_form_word(&id, &word));
        for wrong in ["", "x", &word[1..]] {
            assert!(!sessions.is_form_word(&id, wrong), "{wrong}");
        }
        assert!(SessionId::parse("short").is_none() && SessionId::parse(id.as_str()).is_some());
    }

    #[test]
    fn what_is_told_is_told_once_and_to_one() {
        let sessions = Sessions::new();
        let (id, other) = (SessionId::new(), SessionId::new());
        sessions.tell(&id, Flash { went_well: true, text: "done".to_owned() });
        assert!(sessions.take_told(&other).is_empty());
        assert_eq!(sessions.take_told(&id).len(), 1);
        assert!(sessions.take_told(&id).is_empty());
    }
}
