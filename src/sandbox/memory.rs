//! How much the sandbox holds at once: every upload and every batch is reserved before it is kept.

use super::refusal::Refusal;
use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound in bytes that everything kept counts against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Gauge>);

#[derive(Debug)]
struct Gauge {
    limit: usize,
    used: AtomicUsize,
}

impl Memory {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Gauge { limit, used: AtomicUsize::new(0) }))
    }

    /// Takes `bytes` of it until the reservation is dropped.
    ///
    /// # Errors
    ///
    /// Says what to do if there is not so much left.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Refusal> {
        let mut reservation = Reservation { memory: self.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Reads `body` to its end, reserving as it comes.
    pub async fn read(&self, body: Body) -> Result<Content, Refusal> {
        let mut stream = body.into_data_stream();
        let mut gathered = Gathered::new(self)?;
        while let Some(chunk) = stream.next().await {
            gathered.add(&chunk.map_err(|_| Refusal::invalid("the request's body broke off"))?)?;
        }
        Ok(gathered.finish())
    }
}

/// A part of the memory, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Memory,
    bytes: usize,
}

impl Reservation {
    /// Takes `more` bytes.
    pub fn grow(&mut self, more: usize) -> Result<(), Refusal> {
        let gauge = &self.memory.0;
        let fits = |used: usize| used.checked_add(more).filter(|sum| *sum <= gauge.limit);
        gauge.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| {
            Refusal::too_large(format!(
                "the sandbox keeps everything in memory and its {} MiB are full; delete files or start it again",
                gauge.limit >> 20
            ))
        })?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes on their way in.
#[derive(Debug)]
pub struct Gathered {
    bytes: Vec<u8>,
    held: Reservation,
}

impl Gathered {
    /// Nothing yet; what it will cost to keep is reserved.
    pub fn new(memory: &Memory) -> Result<Self, Refusal> {
        Ok(Self { bytes: Vec::new(), held: memory.reserve(OVERHEAD)? })
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn add(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.held.grow(chunk.len())?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// Nothing more comes.
    pub fn finish(self) -> Content {
        Content { bytes: self.bytes.into(), _held: self.held }
    }
}

/// Bytes that are kept, with their reservation.
#[derive(Debug)]
pub struct Content {
    bytes: Bytes,
    _held: Reservation,
}

impl std::ops::Deref for Content {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// What a record costs besides its bytes, roughly.
const OVERHEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_what_is_dropped_is_free_again() {
        let memory = Memory::new(4096);
        let kept = memory.read(Body::from(vec![0; 2000])).await.unwrap();
        assert_eq!(kept.len(), 2000);
        let refused = memory.read(Body::from(vec![0; 2000])).await.unwrap_err();
        assert_eq!(refused.status, http::StatusCode::PAYLOAD_TOO_LARGE);
        drop(kept);
        memory.read(Body::from(vec![0; 2000])).await.unwrap();
        assert!(memory.reserve(4096).is_ok());
    }
}
