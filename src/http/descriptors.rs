//! How many files and sockets this process may have open, and how they are shared out: what comes in from one side
//! leaves enough for the state, the socket, providers and webhooks (`docs/design.md#descriptors`).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What requests are sent for. Each has a share of its own, so that receivers that hang keep nothing from being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Providers,
    Webhooks,
}

/// Raises the number of descriptors that the system warns at to the one that it enforces; what it then is.
///
/// Where that cannot be done the present limit stays, and the shares are made of it.
pub fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return MODEST };
    // No system opens more than it can name, and some say "unlimited" and refuse it.
    let wanted = hard.min(MOST);
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft }
}

/// How many descriptors this process may have open.
pub fn limit() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(MODEST, |(soft, _)| soft);
    usize::try_from(soft.min(MOST)).unwrap_or(usize::MAX)
}

/// Whether there are so few that connections are not kept for later requests.
pub fn scarce() -> bool {
    limit() < SCARCE
}

impl Share {
    /// Waits until a connection of this share may be opened; it counts for as long as the permit is held.
    pub(super) async fn take(self) -> Option<OwnedSemaphorePermit> {
        let share = match self {
            Self::Providers => &PROVIDERS,
            Self::Webhooks => &WEBHOOKS,
        };
        // It is never closed.
        Arc::clone(share).acquire_owned().await.ok()
    }
}

static PROVIDERS: LazyLock<Arc<Semaphore>> = LazyLock::new(share);
static WEBHOOKS: LazyLock<Arc<Semaphore>> = LazyLock::new(share);

/// An eighth: the API has half of all ([`crate::control`]), the state and what is opened for a moment has the rest.
fn share() -> Arc<Semaphore> {
    Arc::new(Semaphore::new((limit() / 8).clamp(4, 2048)))
}

/// What most systems allow by default.
const MODEST: u64 = 1024;
const MOST: u64 = 1 << 19;
const SCARCE: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shares_are_apart_and_leave_most_of_what_there_is() {
        let all = limit();
        let webhooks = Arc::clone(&WEBHOOKS).available_permits();
        assert!(webhooks + PROVIDERS.available_permits() <= all / 4 || all < 64);
        let held: Vec<_> =
            futures_util::future::join_all((0..webhooks).map(|_| Share::Webhooks.take())).await;
        assert!(futures_util::poll!(Box::pin(Share::Webhooks.take())).is_pending());
        assert!(
            Share::Providers.take().await.is_some(),
            "receivers that hang keep nothing from being polled"
        );
        drop(held);
    }
}
