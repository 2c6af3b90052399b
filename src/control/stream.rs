//! What streams: the live event log, and a copy of the state.

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::event_stream::RESET;
use super::respond::Shared;
use super::service::{Service, event_shape};
use crate::store::events::EventFilter;
use crate::store::jobs::{BACKUP, JobRun};
use crate::store::{Store, StoreError};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Events read from the log at once.
const PAGE: u32 = 32;

/// The events after `after`, then every new one as it is recorded, as server-sent events whose ids are the
/// numbers of the log. Ends when the daemon stops.
pub(super) async fn events(shared: &Shared, batch: Option<&str>, after: i64) -> Result<Response, ApiError> {
    let Shared { service, stopping, listeners, .. } = shared;
    let place = listeners.clone().try_acquire_owned().map_err(|_| {
        ApiError::busy("too many streams of the event log are open", Duration::from_secs(30))
            .hint("close some, or ask for /v1/events?after=SEQ now and then")
    })?;
    let batch = match batch {
        Some(text) => Some(service.find(text).await?.1.key),
        None => None,
    };
    let store = service.store.clone();
    let recorded = store.watch_events();
    let mut waiting = VecDeque::new();
    let last = store.last_sequence().await?;
    if after > last {
        // A restored backup, most likely: the reader hears where the log ends now.
        waiting.push_back(Event::default().id(last.to_string()).event(RESET).data(last.to_string()));
    }
    let stopping = stopping.clone();
    let start = (after.min(last), waiting, recorded, place);
    let stream = stream::unfold(start, move |(mut after, mut waiting, mut recorded, place)| {
        let (store, batch, stopping) = (store.clone(), batch.clone(), stopping.clone());
        async move {
            loop {
                if let Some(event) = waiting.pop_front() {
                    return Some((Ok::<_, Infallible>(event), (after, waiting, recorded, place)));
                }
                // Marked as seen before the log is read: what is recorded meanwhile wakes the wait below.
                recorded.mark_unchanged();
                let filter =
                    EventFilter { after, batch: batch.clone(), limit: Some(PAGE), ..EventFilter::default() };
                match store.events(filter).await {
                    Ok(page) if !page.is_empty() => {
                        for event in page {
                            after = event.sequence;
                            let data = event_shape(&event).to_string();
                            waiting.push_back(
                                Event::default()
                                    .id(event.sequence.to_string())
                                    .event(event.kind.as_str())
                                    .data(data),
                            );
                        }
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        // The client resumes where it was.
                        tracing::warn!(%error, "an event stream ends");
                        return None;
                    }
                }
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return None,
                    changed = recorded.changed() => changed.ok()?,
                }
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response())
}

/// A consistent copy of the state: its length and its bytes.
///
/// Only one is made and read at a time. The copy has no name any more when it is read, so nothing is left of it whoever
/// goes when; a client that does not read on is given up.
pub(super) async fn backup(
    service: &Service,
    stopping: CancellationToken,
) -> Result<(u64, impl Stream<Item = io::Result<Bytes>> + Send + 'static), ApiError> {
    let busy = || ApiError::busy("another copy of the state is being made or read", Duration::from_secs(10));
    // Whoever has just read one to its end may be back before that is noted.
    let turn = timeout(TURN_AWAITED, service.backups.clone().acquire_owned()).await;
    let turn = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
    let (opened, length) = oneshot::channel();
    let (pieces, read) = mpsc::channel(1);
    let (store, clock) = (service.store.clone(), service.clock.clone());
    let copying = async move {
        let _turn = turn;
        let started_at = clock.now();
        match nameless_copy(&store).await {
            Ok((length, file)) => {
                // Nobody may wait for it any more.
                if opened.send(Ok(length)).is_ok() {
                    let is_whole = tokio::select! {
                        biased;
                        is_whole = hand_over(file, pieces) => is_whole,
                        () = stopping.cancelled() => false,
                    };
                    if is_whole {
                        note(&store, started_at, clock.now()).await;
                    }
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        }
    };
    // Apart from the request: what is begun is cleared away, whether or not the client stays.
    service.live()?.parts.tasks.spawn_tracked(copying);
    let length = length
        .await
        .map_err(|_| ApiError::new(ErrorCode::Internal, "copying the state panicked; see the log"))??;
    let bytes = stream::unfold(read, async |mut read| read.recv().await.map(|piece| (piece, read)));
    Ok((length, bytes))
}

/// Notes that a backup was read whole, for `status`.
async fn note(store: &Store, started_at: Timestamp, finished_at: Timestamp) {
    let run = JobRun { name: BACKUP.to_owned(), started_at, finished_at, error: None };
    if let Err(error) = store.set_job_run(run).await {
        tracing::warn!(%error, "cannot note when the last backup was");
    }
}

async fn nameless_copy(store: &Store) -> Result<(u64, File), StoreError> {
    let path = store.copy_aside().await?;
    let opened = async {
        let file = File::open(&path).await?;
        Ok::<_, io::Error>((file.metadata().await?.len(), file))
    };
    let opened = opened.await;
    // The open file stays readable; its name is not needed any more.
    if let Err(error) = tokio::fs::remove_file(&path).await {
        tracing::warn!(%error, "cannot delete the copy of the state");
    }
    opened.map_err(|error| StoreError::Io(format!("cannot read the copy: {error}")))
}

/// Gives `file` piece by piece to whoever reads `pieces`, as long as that goes on; whether all of it was taken.
async fn hand_over(mut file: File, pieces: mpsc::Sender<io::Result<Bytes>>) -> bool {
    let mut waited = Duration::ZERO;
    let mut allowed = READ_TIMEOUT;
    loop {
        let mut chunk = vec![0; PIECE];
        let piece = match file.read(&mut chunk).await {
            Ok(0) => return true,
            Ok(read) => {
                chunk.truncate(read);
                allowed += READ_TIME;
                Ok(Bytes::from(chunk))
            }
            Err(error) => Err(error),
        };
        let begun = Instant::now();
        let patience = allowed.saturating_sub(waited).min(READ_TIMEOUT);
        match timeout(patience, pieces.send(piece)).await {
            Ok(Ok(())) => waited += begun.elapsed(),
            Ok(Err(_)) => return false,
            Err(_) => {
                tracing::warn!("a copy of the state is given up: its reader does not read on");
                return false;
            }
        }
    }
}

/// How long a copy waits for the one before it.
const TURN_AWAITED: Duration = Duration::from_secs(2);
/// Of a copy, this many bytes are given at once …
const PIECE: usize = 64 * 1024;
/// … which may take so long on the whole (at 128 KiB a second) …
const READ_TIME: Duration = Duration::from_millis(500);
/// … and so long once.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_a_copy_does_not_keep_it() {
        tokio::time::pause();
        let copy = tempfile::tempfile().unwrap();
        copy.set_len(1 << 20).unwrap();
        let (pieces, mut read) = mpsc::channel(1);
        let begun = Instant::now();
        hand_over(File::from_std(copy.try_clone().unwrap()), pieces).await;
        // Reading the file takes real time, in which the paused clock may go on a little.
        assert_eq!(begun.elapsed().as_secs(), READ_TIMEOUT.as_secs());
        assert!(read.recv().await.is_some() && read.recv().await.is_none(), "no more than waits was kept");
    }
}
