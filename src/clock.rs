//! The only wall clock: real in the daemon, driven by tokio's paused time in simulations.

use crate::domain::time;
use crate::sync::lock;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Tells the time, to the millisecond. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    /// Wall-clock time as tokio's timer sees it: it stands still while a test's runtime is paused.
    Virtual {
        epoch: Mutex<Timestamp>,
        /// How long the machine was suspended.
        suspended: Mutex<Duration>,
        start: tokio::time::Instant,
    },
}

impl Clock {
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that begins at `epoch` and runs with tokio's timer, for tests on paused time.
    pub fn simulated(epoch: Timestamp) -> Self {
        Self(Arc::new(Source::Virtual {
            epoch: Mutex::new(epoch),
            suspended: Mutex::default(),
            start: tokio::time::Instant::now(),
        }))
    }

    /// Whether it is the system's own, as everything is that is not ours.
    pub fn is_system(&self) -> bool {
        matches!(&*self.0, Source::System)
    }

    /// Now, without what is finer than a millisecond.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock")]
                let now = Timestamp::now();
                time::to_millis(now)
            }
            Source::Virtual { epoch, start, .. } => {
                let epoch = *lock(epoch);
                time::to_millis(time::later(epoch, start.elapsed()))
            }
        }
    }

    /// How long it is since some moment before, by a clock that nobody sets and that goes on while the machine sleeps.
    pub fn steady(&self) -> Duration {
        match &*self.0 {
            // Linux has it since 2.6.39; without it nothing is known of steps.
            Source::System => clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from),
            Source::Virtual { suspended, start, .. } => start.elapsed() + *lock(suspended),
        }
    }

    /// The same by a clock that stands still while the machine sleeps.
    pub fn awake(&self) -> Duration {
        match &*self.0 {
            Source::System => clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from),
            Source::Virtual { start, .. } => start.elapsed(),
        }
    }

    /// Which run of the machine it is that [`Clock::steady`] counts from; `None`: it does not say.
    pub fn boot(&self) -> Option<String> {
        match &*self.0 {
            Source::System => {
                let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
                Some(id.trim().to_owned())
            }
            Source::Virtual { .. } => None,
        }
    }

    /// Sets a simulated clock forward.
    pub fn set_forward(&self, by: Duration) {
        if let Source::Virtual { epoch, .. } = &*self.0 {
            let mut epoch = lock(epoch);
            *epoch = time::later(*epoch, by);
        }
    }

    /// Lets a simulated machine sleep: the time goes on, and no timer does.
    pub fn suspend(&self, by: Duration) {
        if let Source::Virtual { suspended, .. } = &*self.0 {
            *lock(suspended) += by;
            self.set_forward(by);
        }
    }

    /// Sets a simulated clock back, as an administrator or a time server does; the system's is never set.
    pub fn set_back(&self, by: Duration) {
        if let Source::Virtual { epoch, .. } = &*self.0 {
            let mut epoch = lock(epoch);
            *epoch = time::earlier(*epoch, by);
        }
    }
}
