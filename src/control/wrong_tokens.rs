//! Wrong tokens at the sign-in form: who goes on guessing waits ever longer for the answer (`docs/dashboard.md#access`).

use crate::sync::lock;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Who has given wrong tokens of late to one listener. The right token never waits.
pub(super) struct WrongTokens {
    peers: Mutex<BTreeMap<IpAddr, Tally>>,
    /// An answer that waits holds a connection, so that only so many may.
    waiting: Arc<Semaphore>,
}

#[derive(Clone, Copy)]
struct Tally {
    count: u32,
    last: Instant,
}

/// What becomes of a wrong token's answer.
pub(super) enum Slowed {
    /// It waits so long, and holds its place meanwhile.
    Wait(Duration, OwnedSemaphorePermit),
    /// It is given at once.
    AtOnce,
    /// Too many wait: it is given at once, and says to come again after so long.
    Refused(Duration),
}

impl WrongTokens {
    pub(super) fn new() -> Self {
        Self { peers: Mutex::default(), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Notes a wrong token of this peer.
    pub(super) fn note(&self, peer: Option<IpAddr>) -> Slowed {
        let Some(peer) = peer.map(neighbourhood) else { return Slowed::AtOnce };
        let now = Instant::now();
        let mut peers = lock(&self.peers);
        peers.retain(|_, tally| now.duration_since(tally.last) < FORGOTTEN_AFTER);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            let quietest = peers.iter().min_by_key(|(_, tally)| tally.last).map(|(peer, _)| *peer);
            quietest.and_then(|quietest| peers.remove(&quietest));
        }
        let tally = peers.entry(peer).or_insert(Tally { count: 0, last: now });
        *tally = Tally { count: tally.count.saturating_add(1), last: now };
        let over = tally.count.saturating_sub(FREE);
        if over == 0 {
            return Slowed::AtOnce;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << (over - 1).min(8)).min(LONGEST_WAIT);
        match Arc::clone(&self.waiting).try_acquire_owned() {
            Ok(place) => Slowed::Wait(wait, place),
            Err(_) => Slowed::Refused(LONGEST_WAIT),
        }
    }
}

/// Whoever has one address of IPv6 has a whole network of them.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// So many mistakes cost nothing.
const FREE: u32 = 3;
/// How long the next one waits; each after it twice as long …
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Who gives no wrong token for so long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);
/// So many are known; then the one that was quiet longest is forgotten.
const MAX_PEERS: usize = 1024;
/// So many answers wait at a time.
const MAX_WAITING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(wrong: &WrongTokens, peer: u32) -> Slowed {
        wrong.note(Some(IpAddr::V4((0x0a00_0000 + peer).into())))
    }

    fn wait(slowed: &Slowed) -> Option<u128> {
        match slowed {
            Slowed::Wait(wait, _) => Some(wait.as_millis()),
            Slowed::AtOnce => Some(0),
            Slowed::Refused(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_mistake_costs_more_and_only_whoever_makes_them() {
        let wrong = WrongTokens::new();
        let waits: Vec<_> = (0..9).map(|_| wait(&note(&wrong, 1))).collect();
        assert_eq!(waits, [0, 0, 0, 500, 1000, 2000, 4000, 8000, 8000].map(Some));
        assert_eq!(wait(&note(&wrong, 2)), Some(0), "another peer");
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(wait(&note(&wrong, 1)), Some(0), "it was long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_memory_nor_connections_run_out() {
        let wrong = WrongTokens::new();
        for number in 0..5000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            note(&wrong, number);
        }
        assert_eq!(lock(&wrong.peers).len(), MAX_PEERS);
        let held: Vec<_> = (0..FREE + 20).map(|_| note(&wrong, 9999)).collect();
        let waiting = held.iter().filter(|slowed| matches!(slowed, Slowed::Wait(..))).count();
        let refused = held.iter().filter(|slowed| matches!(slowed, Slowed::Refused(_))).count();
        assert_eq!((waiting, refused), (MAX_WAITING, 4));
        drop(held);
        assert!(matches!(note(&wrong, 9999), Slowed::Wait(..)), "their places are free again");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
