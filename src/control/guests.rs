//! Who is connected to one listener: at most so many, and whoever has asked for nothing longest goes first when there
//! is no place left for somebody new.

use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Nobody has to give up the place who has come so shortly before.
const GRACE: Duration = Duration::from_millis(500);

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Guests {
    most: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    guests: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    /// Since when it has asked for nothing; `None` while a request of it is answered.
    idle_since: Option<Instant>,
    leave: CancellationToken,
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guests: Arc<Guests>,
    number: u64,
    /// Cancelled when somebody else needs it.
    pub(super) leave: CancellationToken,
}

/// As long as it lives, a request of the connection is being answered.
#[derive(Debug)]
pub(super) struct Serving {
    guests: Arc<Guests>,
    number: u64,
}

impl Guests {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, present: Mutex::default() })
    }

    /// A place for one more connection; `None` if every place is taken by somebody who is being served.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut present = lock(&self.present);
        if present.guests.len() >= self.most {
            let idle = present.guests.iter().filter_map(|(number, guest)| {
                guest.idle_since.filter(|since| since.elapsed() >= GRACE).map(|since| (since, *number))
            });
            let (_, longest) = idle.min()?;
            if let Some(guest) = present.guests.remove(&longest) {
                guest.leave.cancel();
            }
        }
        let number = present.next;
        present.next += 1;
        let leave = CancellationToken::new();
        let guest = Guest { idle_since: Some(Instant::now()), leave: leave.clone() };
        present.guests.insert(number, guest);
        Some(Place { guests: self.clone(), number, leave })
    }

    fn note(&self, number: u64, idle_since: Option<Instant>) {
        if let Some(guest) = lock(&self.present).guests.get_mut(&number) {
            guest.idle_since = idle_since;
        }
    }
}

impl Place {
    /// A request has come in.
    pub(super) fn serve(&self) -> Serving {
        self.guests.note(self.number, None);
        Serving { guests: self.guests.clone(), number: self.number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.guests.present).guests.remove(&self.number);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.guests.note(self.number, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_been_idle_longest_makes_room_and_who_is_served_does_not() {
        let guests = Guests::new(2);
        let first = guests.admit().unwrap();
        let second = guests.admit().unwrap();
        assert!(guests.admit().is_none(), "they have only just come");
        tokio::time::advance(GRACE).await;
        let serving = first.serve();
        let third = guests.admit().unwrap();
        assert!(second.leave.is_cancelled() && !first.leave.is_cancelled());
        drop(second);
        assert!(guests.admit().is_none(), "one is served, one has only just come");
        let both = (serving, third.serve());
        tokio::time::advance(GRACE).await;
        assert!(guests.admit().is_none());
        drop(both);
        tokio::time::advance(GRACE).await;
        assert!(guests.admit().is_some());
        drop((first, third));
        assert!(lock(&guests.present).guests.is_empty());
    }
}
