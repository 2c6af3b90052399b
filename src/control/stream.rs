//! What streams: the live event log, and a copy of the state.

use super::api_error::ApiError;
use super::service::{Service, event_shape};
use crate::store::events::EventFilter;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// Events read from the log at once.
const PAGE: u32 = 256;

/// The events after `after`, then every new one as it is recorded, as server-sent events whose ids are the
/// numbers of the log. Ends when the daemon stops.
pub(super) async fn events(
    service: &Service,
    batch: Option<&str>,
    after: i64,
    stopping: CancellationToken,
) -> Result<Response, ApiError> {
    let batch = match batch {
        Some(text) => Some(service.find(text).await?.1.key),
        None => None,
    };
    let store = service.store.clone();
    let recorded = store.watch_events();
    let start = (after, VecDeque::new(), recorded);
    let stream = stream::unfold(start, move |(mut after, mut waiting, mut recorded)| {
        let (store, batch, stopping) = (store.clone(), batch.clone(), stopping.clone());
        async move {
            loop {
                if let Some(event) = waiting.pop_front() {
                    return Some((Ok::<_, Infallible>(event), (after, waiting, recorded)));
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
                    () = stopping.cancelled() => return None,
                    changed = recorded.changed() => changed.ok()?,
                }
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response())
}

/// A consistent copy of the state: its length and its bytes. The copy is deleted once it is read or abandoned.
pub(super) async fn backup(
    service: &Service,
) -> Result<(u64, impl Stream<Item = io::Result<Bytes>> + Send + 'static), ApiError> {
    let path = service.store.copy_aside().await?;
    let opened = async {
        let file = tokio::fs::File::open(&path).await?;
        Ok::<_, io::Error>((file.metadata().await?.len(), file))
    };
    let opened = opened.await;
    // The open file stays readable; its name is not needed any more.
    if let Err(error) = tokio::fs::remove_file(&path).await {
        tracing::warn!(%error, "cannot delete the copy of the state");
    }
    let (length, file) = opened.map_err(|error| {
        ApiError::from(crate::store::StoreError::Io(format!("cannot read the copy: {error}")))
    })?;
    let bytes = stream::try_unfold(file, async |mut file| {
        let mut chunk = vec![0; 64 * 1024];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, io::Error>((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    Ok((length, bytes))
}
