//! Everything outside of batchd that a crash does not touch: the true time, the providers, the receivers, the network.

use super::alone::EPOCH;
use super::disk::Disk;
use super::ledger::Ledger;
use super::provider::Providers;
use super::receiver::Receivers;
use batchd::clock::Clock;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::sync::lock;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The world around a daemon, for as many of its lives as there are.
pub struct Outside {
    time: Mutex<Time>,
    /// The daemon has died, although its tasks do not know it yet: nothing that they do has any effect.
    dead: AtomicBool,
    died: Notify,
    pub providers: Providers,
    pub receivers: Receivers,
    pub disk: Mutex<Disk>,
    pub ledger: Mutex<Ledger>,
    log: Mutex<Vec<String>>,
    aloud: bool,
}

struct Time {
    /// Until the present life began.
    before: Duration,
    /// When it began; `None`: there is none.
    since: Option<Instant>,
    /// How wrong batchd's clock is.
    wrong: SignedDuration,
}

impl Outside {
    /// `aloud`: what happens is printed as it happens.
    pub fn new(providers: Providers, receivers: Receivers, disk: Disk, aloud: bool) -> Arc<Self> {
        Arc::new(Self {
            time: Mutex::new(Time { before: Duration::ZERO, since: None, wrong: SignedDuration::ZERO }),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            providers,
            receivers,
            disk: Mutex::new(disk),
            ledger: Mutex::default(),
            log: Mutex::default(),
            aloud,
        })
    }

    /// The true time, since it all began.
    pub fn now(&self) -> Duration {
        let time = lock(&self.time);
        time.before + time.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A life begins: with batchd's clock, which may be wrong.
    pub fn begin(&self) -> Clock {
        self.dead.store(false, Ordering::SeqCst);
        let now = self.now();
        let mut time = lock(&self.time);
        time.since = Some(Instant::now());
        Clock::simulated(at(now).checked_add(time.wrong).unwrap_or(EPOCH))
    }

    /// It ends; the next begins after `pause`.
    pub fn end(&self, pause: Duration) {
        let now = self.now();
        let mut time = lock(&self.time);
        time.before = now + pause;
        time.since = None;
    }

    /// Somebody sets batchd's clock to what it is `by` wrong by.
    pub fn set_wrong(&self, clock: &Clock, wrong: SignedDuration) {
        let mut time = lock(&self.time);
        let by = wrong - time.wrong;
        if by.is_negative() {
            clock.set_back(by.unsigned_abs());
        } else {
            clock.set_forward(by.unsigned_abs());
        }
        time.wrong = wrong;
    }

    /// The machine sleeps.
    pub fn suspend(&self, clock: &Clock, by: Duration) {
        clock.suspend(by);
        lock(&self.time).before += by;
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    pub async fn died(&self) {
        while !self.is_dead() {
            self.died.notified().await;
        }
    }

    /// Writes down what happens.
    pub fn note(&self, what: impl std::fmt::Display) {
        let line = format!("{:>12.3} {what}", self.now().as_secs_f64());
        if self.aloud {
            eprintln!("{line}");
        }
        lock(&self.log).push(line);
    }

    /// The same of what only matters where two worlds are compared.
    fn note_silently(&self, what: impl std::fmt::Display) {
        let line = format!("{:>12.3} {what}", self.now().as_secs_f64());
        lock(&self.log).push(line);
    }

    /// All that happened; at one instant in the order of the words, for what waits for the same `watch` is woken by tokio
    /// in an order that it draws.
    pub fn log(&self) -> Vec<String> {
        let mut log = lock(&self.log).clone();
        log.sort();
        log
    }
}

/// The true time as clocks show it.
pub fn at(time: Duration) -> Timestamp {
    batchd::domain::time::later(EPOCH, time)
}

/// What leads out of a daemon.
pub struct Network(pub Arc<Outside>);

impl Transport for Network {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let outside = &self.0;
            if outside.is_dead() {
                std::future::pending::<()>().await;
            }
            let host = call.request.uri().host().unwrap_or_default().to_owned();
            let about = String::from_utf8_lossy(call.request.body());
            outside.note_silently(format_args!("{} {} {about}", call.request.method(), call.request.uri()));
            let answer = match host.strip_suffix(".provider.invalid") {
                Some(account) => outside.providers.ask(outside, account, &call).await,
                None => outside.receivers.take(outside, &call).await,
            };
            if outside.is_dead() {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}
