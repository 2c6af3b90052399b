//! How much of what providers answer is in memory at once: what is long waits for its turn.
//!
//! An answer up to [`SMALL`] is read as it comes; of longer ones there are at most two in the process and one of
//! each account, so that an account that sends long ones, or sends them slowly, holds up itself and nobody's short ones.

use super::failure::Failure;
use crate::sync::lock;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// An answer, or a line of results, up to this length waits for nothing. In bytes.
pub const SMALL: usize = 512 * 1024;

/// As much is set aside for whatever is longer than [`SMALL`], before it has come: the system's allocator gives a block
/// of more than 32 MiB back as soon as it is freed, and keeps what grows up to that in pieces. In bytes.
pub const LONG: usize = 33 * 1024 * 1024;

/// How many longer answers there are at once.
const ANSWERS: usize = 2;

static ALL: Semaphore = Semaphore::const_new(ANSWERS);
static LINES: Semaphore = Semaphore::const_new(1);

/// One account's share.
#[derive(Clone, Debug)]
pub struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The turn of one call. It rides on the request, so that whoever reads the answer can wait for it; a clone is the same
/// turn.
#[derive(Clone, Debug)]
pub struct Turn {
    share: Share,
    held: Arc<Mutex<Option<Room>>>,
}

/// Room for one long answer, or one long line.
#[derive(Debug)]
pub struct Room {
    _of_all: SemaphorePermit<'static>,
    _of_share: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// For a call of the account with this share.
    pub fn of(share: &Share) -> Self {
        Self { share: share.clone(), held: Arc::default() }
    }

    /// Waits until there is room for the answer. Once is enough.
    pub async fn wait(&self) {
        if lock(&self.held).is_some() {
            return;
        }
        // Neither is ever closed.
        let of_share = self.share.0.clone().acquire_owned().await.ok();
        if let Ok(of_all) = ALL.acquire().await {
            *lock(&self.held) = Some(Room { _of_all: of_all, _of_share: of_share });
        }
    }

    /// `body`, which keeps its room for as long as it is there.
    pub fn hold(&self, body: Bytes) -> Bytes {
        match lock(&self.held).take() {
            Some(room) => Bytes::from_owner(Held { body, _room: room }),
            None => body,
        }
    }
}

struct Held {
    body: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// For as long it is waited for room for a long line: whoever reads another one may be slow.
const LINE_TIMEOUT: Duration = Duration::from_mins(1);

/// Waits until there is room for a line of results that is longer than [`SMALL`].
///
/// # Errors
///
/// [`Failure::Timeout`] if there is none within a minute.
pub async fn line() -> Result<Room, Failure> {
    match tokio::time::timeout(LINE_TIMEOUT, LINES.acquire()).await {
        Ok(Ok(of_all)) => Ok(Room { _of_all: of_all, _of_share: None }),
        _ => Err(Failure::Timeout(LINE_TIMEOUT)),
    }
}
