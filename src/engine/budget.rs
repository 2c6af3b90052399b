//! Leave to send: how many requests at once, how many a minute, and what the server itself asks for.

use crate::clock::Clock;
use crate::config::Polling;
use crate::domain::pace::{Pace, Window};
use crate::domain::time::{earlier, later, since};
use crate::http::allowance::allowance;
use crate::http::call::Answer;
use crate::http::failure::MAX_WAIT;
use crate::sync::lock;
use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long an account is left alone that says "too many requests" without saying how long.
const HOLD: Duration = Duration::from_mins(1);
/// No sleep is longer, so that a suspended machine and a clock that jumps are noticed.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(15);

/// What the server has asked for. The pollers of an account that follow each other at reloads share it.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    held_until: Option<Timestamp>,
    window: Option<Window>,
}

/// One account's leave to send. Whoever sends by the schedule takes it first; what is asked for by hand does not.
#[derive(Debug)]
pub(super) struct Budget {
    slots: Arc<Semaphore>,
    concurrency: u32,
    pace: Mutex<Option<Pace>>,
    wishes: Arc<Mutex<Wishes>>,
}

/// Why there is no leave just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Every slot is taken; one that comes free is worth asking again.
    Slot,
    /// Not before so long.
    For(Duration),
}

impl Wishes {
    /// Of a server that wanted to be left alone before this process began; never for longer than one may ask for now.
    pub(super) fn remembered(held_until: Option<Timestamp>, now: Timestamp) -> Self {
        Self { held_until: held_until.map(|until| until.min(later(now, MAX_WAIT))), window: None }
    }
}

impl Budget {
    pub(super) fn new(polling: &Polling, wishes: Arc<Mutex<Wishes>>, now: Timestamp) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(polling.concurrency as usize)),
            concurrency: polling.concurrency,
            pace: Mutex::new(polling.requests_per_minute.map(|per_minute| Pace::new(per_minute, now))),
            wishes,
        }
    }

    /// Takes leave for one request at `now`; it is in flight for as long as the permit is held.
    pub(super) fn take(&self, now: Timestamp) -> Result<OwnedSemaphorePermit, Wait> {
        if let Some(until) = self.held_until(now) {
            return Err(Wait::For(since(now, until)));
        }
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Wait::Slot)?;
        self.begin(now).map(|()| slot)
    }

    /// The same, once there is leave: behind those who asked before.
    pub(super) async fn wait(&self, clock: &Clock) -> OwnedSemaphorePermit {
        let slot = loop {
            match self.slots.clone().acquire_owned().await {
                Ok(slot) => break slot,
                // It is never closed.
                Err(_) => tokio::time::sleep(MAX_SLEEP).await,
            }
        };
        loop {
            let now = clock.now();
            let wait = match self.held_until(now) {
                Some(until) => since(now, until),
                None => match self.begin(now) {
                    Ok(()) => return slot,
                    Err(Wait::For(wait)) => wait,
                    Err(Wait::Slot) => MAX_SLEEP,
                },
            };
            tokio::time::sleep(wait.min(MAX_SLEEP)).await;
        }
    }

    /// Until when the server wants to be left alone, if it does.
    pub(super) fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        lock(&self.wishes).held_until.filter(|until| *until > now)
    }

    /// The server asked to be left alone.
    pub(super) fn hold(&self, wait: Option<Duration>, now: Timestamp) -> Timestamp {
        let until = later(now, wait.unwrap_or(HOLD));
        let held = &mut lock(&self.wishes).held_until;
        let until = held.map_or(until, |before| before.max(until));
        *held = Some(until);
        until
    }

    /// Heeds what an answer says of the server's own limit.
    pub(super) fn note(&self, answer: &Answer, now: Timestamp) {
        if let Some(told) = allowance(&answer.headers) {
            // The one that was answered is counted already.
            let in_flight = self.in_flight().saturating_sub(1);
            lock(&self.wishes).window = Some(Window::told(&told, in_flight, now));
        }
    }

    /// What was to happen in an hour still happens in an hour.
    pub(super) fn clock_was_set_back(&self, by: Duration) {
        let held = &mut lock(&self.wishes).held_until;
        *held = held.map(|until| earlier(until, by));
    }

    fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX);
        self.concurrency.saturating_sub(free)
    }

    fn begin(&self, now: Timestamp) -> Result<(), Wait> {
        let mut wishes = lock(&self.wishes);
        let wait = wishes.window.map_or(Duration::ZERO, |window| window.wait(now));
        if !wait.is_zero() {
            return Err(Wait::For(wait));
        }
        if let Some(pace) = lock(&self.pace).as_mut() {
            pace.take(now).map_err(Wait::For)?;
        }
        if let Some(window) = &mut wishes.window {
            window.took(now);
        }
        Ok(())
    }
}
