//! Whether the daemon really works: the state's files, the loops, and the watchdog that is fed only while they do.

use super::systemd;
use crate::control::live::{Live, Parts};
use crate::control::reports::LATE;
use crate::logging::Recurring;
use crate::store::{Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the daemon's health is checked where no watchdog asks for more.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often the state's files are checked where nothing is written: a commit checks them itself.
const FILES_INTERVAL: Duration = Duration::from_secs(2);

/// Watches the daemon's health.
pub(super) struct Watch {
    fatal: watch::Receiver<Option<StoreError>>,
    store: Store,
}

impl Watch {
    /// Starts the rounds, and the check of the whole state.
    pub(super) fn start(parts: &Parts, live: &Arc<Live>) -> Self {
        let (fatal, told) = watch::channel(None);
        let damaged = parts.store.clone();
        let (store, tasks) = (parts.store.clone(), parts.tasks.clone());
        let stopping = tasks.stopping();

        let whole = {
            let (store, stopping) = (store.clone(), stopping.clone());
            async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    checked = store.check_whole() => match checked {
                        // What is damaged ends the daemon, whoever finds it.
                        Ok(()) | Err(StoreError::Damaged(_)) => {}
                        Err(error) => tracing::warn!(%error, "the database could not be checked for damage"),
                    }
                }
            }
        };
        tasks.spawn_tracked(whole);
        let files = {
            let (store, stopping) = (store.clone(), stopping.clone());
            async move {
                while store.check_files().await.is_ok() {
                    tokio::select! {
                        biased;
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(FILES_INTERVAL) => {}
                    }
                }
            }
        };
        tasks.spawn_tracked(files);

        let live = Arc::downgrade(live);
        let rounds = {
            let stopping = stopping.clone();
            async move |pulse: crate::tasks::Pulse| {
                let watchdog = systemd::watchdog_period();
                let round = watchdog.map_or(CHECK_INTERVAL, |period| (period / 3).min(CHECK_INTERVAL));
                let mut told = None;
                let mut writing = Recurring::new("write the state");
                loop {
                    pulse.beat();
                    let health = store.healthy().await;
                    let Some(live) = live.upgrade() else { return stopping.cancelled().await };
                    live.trouble("state", health.as_ref().err().map(ToString::to_string));
                    match health {
                        Err(
                            error
                            @ (StoreError::Damaged(_) | StoreError::Io(_) | StoreError::Outdated { .. }),
                        ) => {
                            tracing::error!(%error, "the state cannot be used any more; batchd stops");
                            fatal.send_replace(Some(error));
                        }
                        health => {
                            writing.note(health);
                        }
                    }
                    let late = live.late(LATE);
                    if late.is_empty() {
                        systemd::watchdog().await;
                    } else {
                        tracing::error!(
                            "these loops have made no progress for {} s, so systemd's watchdog is not notified: {}",
                            LATE.as_secs(),
                            late.join(", ")
                        );
                    }
                    let active: u64 = live.engine.snapshot().iter().map(|poller| poller.active).sum();
                    if told != Some(active) {
                        systemd::status(&format!("watching {active} batches")).await;
                        told = Some(active);
                    }
                    drop(live);
                    tokio::select! {
                        biased;
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(round) => {}
                    }
                }
            }
        };
        tasks.keep_running("health", stopping, rounds);
        Self { fatal: told, store: damaged }
    }

    /// Resolves when the state has gone bad.
    pub(super) async fn fatal(&self) -> StoreError {
        tokio::select! {
            biased;
            error = self.store.is_damaged() => error,
            error = self.told() => error,
        }
    }

    async fn told(&self) -> StoreError {
        let mut told = self.fatal.clone();
        loop {
            if let Some(error) = told.borrow_and_update().clone() {
                return error;
            }
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
