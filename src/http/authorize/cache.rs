//! What was given out, kept until shortly before it ends, and had anew by one caller at a time.

use crate::clock::Clock;
use crate::domain::duration;
use crate::domain::time::{has_passed, since};
use crate::http::failure::Failure;
use jiff::Timestamp;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Mutex;

/// A credential with its times.
#[derive(Clone, Debug)]
pub(super) struct Issued<T> {
    pub credential: T,
    /// When it ends; `None`: nobody says.
    pub until: Option<Timestamp>,
}

/// Keeps one credential.
#[derive(Debug)]
pub(super) struct Cache<T> {
    clock: Clock,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    issued: Option<Issued<T>>,
    /// When it was obtained.
    since: Timestamp,
    /// The last attempt that came to nothing.
    failed: Option<(Timestamp, Failure)>,
}

impl<T: Clone> Cache<T> {
    pub(super) fn new(clock: Clock) -> Self {
        let since = clock.now();
        Self { clock, held: Mutex::new(Held { issued: None, since, failed: None }) }
    }

    /// The credential that is kept, or what `obtain` brings. One that is about to end is renewed, and used to its end
    /// while that fails.
    pub(super) async fn get<F>(&self, obtain: impl FnOnce() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Issued<T>, Failure>>,
    {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        let left = |issued: &Issued<T>| issued.until.map_or(Duration::MAX, |until| since(now, until));
        // By a clock that was set back since, it would be valid for longer than it is.
        let is_set_back = held.since > now;
        let lasts = |issued: &&Issued<T>| left(issued) > RENEW_BEFORE && !is_set_back;
        if let Some(issued) = held.issued.as_ref().filter(lasts) {
            return Ok(issued.credential.clone());
        }
        let valid = held.issued.as_ref().filter(|issued| !left(issued).is_zero());
        if let Some((at, failure)) = &held.failed
            && !has_passed(if valid.is_some() { RETRY_VALID } else { RETRY }, *at, now)
        {
            return valid.map_or_else(|| Err(failure.clone()), |issued| Ok(issued.credential.clone()));
        }
        let obtained = tokio::time::timeout(OBTAIN_TIMEOUT, obtain()).await.unwrap_or_else(|_| {
            let message = format!("no credentials within {}", duration::human(OBTAIN_TIMEOUT));
            Err(Failure::Credentials { message, refused: false })
        });
        let now = self.clock.now();
        match obtained {
            Ok(issued) => {
                let credential = issued.credential.clone();
                *held = Held { issued: Some(issued), since: now, failed: None };
                Ok(credential)
            }
            Err(failure) => {
                let valid = held.issued.as_ref().filter(|issued| !left(issued).is_zero());
                let result =
                    valid.map_or_else(|| Err(failure.clone()), |issued| Ok(issued.credential.clone()));
                if result.is_ok() {
                    tracing::warn!("cannot renew credentials that expire soon: {failure}");
                }
                held.failed = Some((now, failure));
                result
            }
        }
    }

    /// The credential was refused: forgets it unless it is so new that another would be no better. Whether it did.
    pub(super) async fn doubt(&self) -> bool {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        if !has_passed(NEW, held.since, now) {
            return false;
        }
        held.issued.take().is_some()
    }
}

/// So long before its end a credential is renewed. Google's metadata server gives a new token four minutes before
/// the old one ends, AWS's five.
const RENEW_BEFORE: Duration = Duration::from_secs(225);

/// After a failure those who waited for the same get the same answer.
const RETRY: Duration = Duration::from_secs(5);

/// The same while there still is a credential.
const RETRY_VALID: Duration = Duration::from_secs(30);

/// To obtain a credential, all steps together.
const OBTAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A credential younger than this that is refused is refused for another reason than its age.
const NEW: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::later;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    struct Counter {
        cache: Cache<u32>,
        obtained: AtomicU32,
    }

    impl Counter {
        fn new() -> Self {
            Self { cache: Cache::new(Clock::simulated(NOW)), obtained: AtomicU32::new(0) }
        }

        /// What the cache gives if another credential would live so long.
        async fn get(&self, lives: Option<Duration>) -> Result<u32, Failure> {
            let until = |lives| later(self.cache.clock.now(), lives);
            self.cache
                .get(|| async {
                    let number = self.obtained.fetch_add(1, Ordering::Relaxed) + 1;
                    Ok(Issued { credential: number, until: lives.map(until) })
                })
                .await
        }

        async fn fail(&self) -> Result<u32, Failure> {
            self.cache
                .get(|| async {
                    self.obtained.fetch_add(1, Ordering::Relaxed);
                    Err(Failure::Reset)
                })
                .await
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_before_it_ends_and_not_earlier() {
        let counter = Counter::new();
        assert_eq!(counter.get(Some(HOUR)).await, Ok(1));
        tokio::time::advance(Duration::from_secs(3600 - 225 - 1)).await;
        assert_eq!(counter.get(Some(HOUR)).await, Ok(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(counter.get(None).await, Ok(2));
        tokio::time::advance(1000 * HOUR).await;
        assert_eq!(counter.get(None).await, Ok(2), "what nobody says the end of is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_used_to_its_end_while_there_is_no_other() {
        let counter = Counter::new();
        assert_eq!(counter.get(Some(HOUR)).await, Ok(1));
        tokio::time::advance(Duration::from_mins(59)).await;
        assert_eq!(counter.fail().await, Ok(1));
        assert_eq!(counter.fail().await, Ok(1));
        assert_eq!(counter.obtained.load(Ordering::Relaxed), 2, "one that fails is not tried at every call");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(counter.fail().await, Err(Failure::Reset));
        assert_eq!(counter.fail().await, Err(Failure::Reset));
        assert_eq!(counter.obtained.load(Ordering::Relaxed), 3);
        tokio::time::advance(RETRY).await;
        assert_eq!(counter.get(None).await, Ok(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_had_anew_once() {
        let counter = Counter::new();
        assert!(!counter.cache.doubt().await);
        assert_eq!(counter.get(None).await, Ok(1));
        assert!(!counter.cache.doubt().await, "another would be no better");
        tokio::time::advance(NEW).await;
        assert!(counter.cache.doubt().await);
        assert_eq!(counter.get(None).await, Ok(2));
        assert!(!counter.cache.doubt().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_keeps_neither_a_failure_nor_a_credential() {
        let counter = Counter::new();
        let year = Duration::from_hours(365 * 24);
        assert_eq!(counter.fail().await, Err(Failure::Reset));
        counter.cache.clock.set_back(year);
        assert_eq!(counter.get(Some(HOUR)).await, Ok(2));
        counter.cache.clock.set_back(year);
        assert_eq!(counter.fail().await, Ok(2), "it is used while there is no other");
        assert_eq!(counter.obtained.load(Ordering::Relaxed), 3);
        assert!(counter.cache.doubt().await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let counter = Counter::new();
        let waited = counter.cache.get(std::future::pending).await.unwrap_err();
        assert_eq!(waited.to_string(), "no credentials within 20 s");
    }
}
