//! A sign of life to a service that misses it: who watches the watcher (`docs/contract.md#heartbeat`, `[heartbeat]`).

use crate::control::assembly::Heartbeat;
use crate::control::live::{Live, Parts};
use crate::control::reports::LATE;
use crate::domain::time::{later, since};
use crate::engine::poller::Snapshot;
use crate::http::call::{BodyLimit, Call};
use crate::http::failure::status_line;
use crate::store::Store;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Sends signs of life for as long as the engine really makes progress.
pub(super) fn start(parts: &Parts, live: &Arc<Live>) {
    let (clock, store, tasks) = (parts.clock.clone(), parts.store.clone(), parts.tasks.clone());
    let stopping = tasks.stopping();
    let live = Arc::downgrade(live);
    let beats = {
        let stopping = stopping.clone();
        async move |pulse: crate::tasks::Pulse| {
            let mut heart = Heart::default();
            loop {
                pulse.beat();
                let Some(live) = live.upgrade() else { return stopping.cancelled().await };
                let now = clock.now();
                heart.progress.note(&live.engine.snapshot(), clock.awake());
                if let Some(heartbeat) = live.heartbeat().filter(|heartbeat| heart.is_due(heartbeat, now)) {
                    let trouble = beat(&heartbeat, &live, &store, &heart.progress, clock.awake()).await.err();
                    heart.note(&heartbeat, trouble, clock.now());
                }
                let wait = if live.heartbeat().is_some() { CHECK_INTERVAL } else { IDLE_INTERVAL };
                drop(live);
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    };
    tasks.keep_running("heartbeat", stopping, beats);
}

/// One sign of life, if there is life; otherwise why there was none.
async fn beat(
    heartbeat: &Heartbeat,
    live: &Live,
    store: &Store,
    progress: &Progress,
    awake: Duration,
) -> Result<(), String> {
    let still = match store.healthy().await {
        Ok(()) => progress.standstill(&live.late(LATE), awake),
        Err(error) => Some(error.to_string()),
    };
    if let Some(still) = still {
        return Err(format!("no heartbeat is sent: {still}"));
    }
    send(heartbeat).await.map_err(|why| format!("cannot send the heartbeat: {why}"))
}

async fn send(heartbeat: &Heartbeat) -> Result<(), String> {
    let request = http::Request::get(heartbeat.url.expose_secret()).body(Bytes::new());
    let request = request.map_err(|_| "its address is none".to_owned())?;
    let call = Call { request, timeout: TIMEOUT, body_limit: BodyLimit::Beginning(1024) };
    match heartbeat.transport.send(call).await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => Err(status_line(answer.status)),
        Err(failure) => Err(failure.to_string()),
    }
}

/// When the next sign is due, and what was said of the last.
#[derive(Debug, Default)]
struct Heart {
    due_at: Option<Timestamp>,
    progress: Progress,
    told: Option<String>,
}

impl Heart {
    fn is_due(&self, heartbeat: &Heartbeat, now: Timestamp) -> bool {
        // Another interval, or a clock that was set back, must not put the next one off.
        self.due_at.is_none_or(|at| at <= now || since(now, at) > heartbeat.every)
    }

    fn note(&mut self, heartbeat: &Heartbeat, trouble: Option<String>, now: Timestamp) {
        let wait = if trouble.is_none() { heartbeat.every } else { heartbeat.every.min(RETRY) };
        self.due_at = Some(later(now, wait));
        if trouble != self.told {
            if let Some(trouble) = &trouble {
                tracing::error!("{trouble}");
            } else {
                tracing::info!("heartbeats arrive again");
            }
            self.told = trouble;
        }
    }
}

/// Whether polls that are due are had.
#[derive(Debug, Default)]
struct Progress {
    /// By provider: how many polls there had been, and since when (by [`crate::clock::Clock::awake`]) there have been no
    /// more although some are late.
    polls: BTreeMap<String, (u64, Option<Duration>)>,
}

impl Progress {
    fn note(&mut self, pollers: &[Snapshot], awake: Duration) {
        self.polls.retain(|name, _| pollers.iter().any(|poller| poller.name == *name));
        for poller in pollers {
            let count: u64 = poller.polls.values().sum();
            let late = poller.held_until.is_none() && poller.late >= VERY_LATE;
            let (before, still) = self.polls.entry(poller.name.clone()).or_default();
            *still = (late && *before == count).then(|| still.unwrap_or(awake));
            *before = count;
        }
    }

    /// What stands still, if anything does.
    fn standstill(&self, late_loops: &[String], awake: Duration) -> Option<String> {
        if !late_loops.is_empty() {
            return Some(format!("no progress in {}", late_loops.join(", ")));
        }
        let names: Vec<&str> = self
            .polls
            .iter()
            .filter(|(_, (_, still))| still.is_some_and(|at| awake.saturating_sub(at) >= STILL))
            .map(|(name, _)| name.as_str())
            .collect();
        (!names.is_empty()).then(|| format!("batches that are due at {} are not polled", names.join(", ")))
    }
}

/// How often it is checked whether one is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is checked whether one is configured by now.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);
/// A heartbeat that did not arrive is sent again after this.
const RETRY: Duration = Duration::from_secs(30);
/// For the whole exchange: well within what a loop may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// By so much a poll may be late where a ceiling spreads many.
const VERY_LATE: Duration = Duration::from_mins(2);
/// No poll at all for so long, with some very late, is a standstill.
const STILL: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::providers::ProviderState;

    fn poller(late: Duration, polls: u64) -> Snapshot {
        Snapshot {
            name: "openai".to_owned(),
            kind: "openai".to_owned(),
            base_url: String::new(),
            key: true,
            active: 1,
            due: 1,
            late,
            in_flight: 0,
            held_until: None,
            state: ProviderState::default(),
            polls: BTreeMap::from([("ok", polls)]),
            recent: Vec::new(),
            repaired: 0,
        }
    }

    #[test]
    fn late_polls_are_a_standstill_only_if_none_is_had() {
        let mut progress = Progress::default();
        let mut standing = |minute: u64, poller: Snapshot| {
            let awake = Duration::from_secs(minute * 60);
            progress.note(&[poller], awake);
            progress.standstill(&[], awake)
        };
        let late = Duration::from_hours(1);
        assert_eq!(standing(0, poller(late, 1)), None);
        assert_eq!(standing(1, poller(late, 1)), None);
        assert_eq!(standing(2, poller(late, 2)), None, "a backlog that is worked off");
        assert_eq!(standing(3, poller(late, 2)), None);
        assert_eq!(standing(4, poller(late, 2)), None);
        let why = standing(5, poller(late, 2)).unwrap();
        assert_eq!(why, "batches that are due at openai are not polled");
        assert_eq!(standing(6, poller(Duration::ZERO, 2)), None);
        let held = Snapshot { held_until: Some(Timestamp::MAX), ..poller(late, 2) };
        assert_eq!(standing(9, held), None, "the provider wants it so");
    }

    #[test]
    fn a_loop_that_does_not_come_round_stops_the_heart() {
        let progress = Progress::default();
        assert!(
            progress
                .standstill(&["housekeeping".to_owned()], Duration::ZERO)
                .unwrap()
                .contains("housekeeping")
        );
    }
}
