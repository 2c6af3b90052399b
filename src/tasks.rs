//! Supervision: loops that must not end, attempts that may fail, and one way to stop them all.

use crate::clock::Clock;
use crate::sync::lock;
use futures_util::future::BoxFuture;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Does `work`, which takes time in proportion to `bytes`: where that is long, other tasks go on in other threads
/// meanwhile.
pub fn in_place<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    /// So many bytes are worked on within a millisecond or two.
    const SHORT: usize = 256 * 1024;
    let threads = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match threads {
        Ok(RuntimeFlavor::MultiThread) if bytes > SHORT => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Begins `work`, which may block, where it holds up nobody; on a current-thread runtime it is done here and now, so that
/// simulations do the same every time. An error says that it panicked or that the runtime has ended.
pub fn begin_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, JoinError>> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Box::pin(ready(Ok(work())));
    }
    begin_waiting(work)
}

/// Begins `work`, which waits for the runtime itself and so can never be done where that runs.
pub fn begin_waiting<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, JoinError>> {
    Box::pin(tokio::task::spawn_blocking(work))
}

/// The tasks of one daemon. Cheap to clone; all clones are one set.
///
/// A loop that panics or returns unasked ends the daemon: systemd starts it again, and nothing needs cleaning up.
/// A panic in one attempt (a poll, a delivery) is that attempt's failure and nobody else's.
#[derive(Clone, Debug)]
pub struct Tasks {
    clock: Clock,
    tracker: TaskTracker,
    stopping: CancellationToken,
    failed: Arc<watch::Sender<Option<String>>>,
    pulses: Arc<Mutex<Vec<Watched>>>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    pulse: Pulse,
    until: CancellationToken,
}

/// A loop's sign of life: when it last completed a pass. Whoever has not beaten it for too long is [late](Tasks::late).
///
/// Neither a wall clock that is set nor a machine that sleeps makes a loop late.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Clock,
    /// Milliseconds by [`Clock::awake`].
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// The loop has completed a pass.
    pub fn beat(&self) {
        let now = u64::try_from(self.clock.awake().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long ago the loop completed a pass.
    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.clock.awake().saturating_sub(last)
    }
}

impl Tasks {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failed: Arc::new(watch::Sender::new(None)),
            pulses: Arc::default(),
        }
    }

    /// Cancelled when everything is to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Runs a loop for as long as neither `until` nor the whole set is cancelled; its end before that is fatal.
    ///
    /// The loop itself watches `until` (a child of [`Tasks::stopping`] or a token of its own) and must beat its
    /// pulse at least every 30 s.
    pub fn keep_running<F>(
        &self,
        name: impl Into<String>,
        until: CancellationToken,
        run: impl FnOnce(Pulse) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let run = run(self.watch(name.clone(), until.clone()));
        let failed = self.failed.clone();
        let stopping = self.stopping.clone();
        let supervised = async move {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the supervisor: the handle is awaited below"
            )]
            let ended = tokio::spawn(run).await;
            if until.is_cancelled() || stopping.is_cancelled() {
                return;
            }
            let how = if ended.is_err_and(|error| error.is_panic()) { "panicked" } else { "ended by itself" };
            tracing::error!("the loop `{name}` {how}; batchd stops so that it can be started again");
            failed.send_replace(Some(format!("{name} {how}")));
        };
        self.tracker.spawn(supervised);
    }

    /// A pulse for the loop `name`, which must beat it at least every 30 s until `until` is cancelled.
    ///
    /// For loops that supervise themselves; [`Tasks::keep_running`] gives the others theirs.
    pub fn watch(&self, name: String, until: CancellationToken) -> Pulse {
        let pulse = Pulse { clock: self.clock.clone(), last: Arc::default() };
        pulse.beat();
        let mut pulses = lock(&self.pulses);
        pulses.retain(|watched| !watched.until.is_cancelled());
        pulses.push(Watched { name, pulse: pulse.clone(), until });
        pulse
    }

    /// Runs one attempt, tracked by `tracker` too; if it panics, `on_panic` is told.
    pub fn attempt<F>(&self, tracker: &TaskTracker, run: F, on_panic: impl FnOnce() + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the supervisor: the handle is awaited below")]
        let handle = tokio::spawn(self.tracker.track_future(run));
        tracker.spawn(async move {
            if handle.await.is_err_and(|error| error.is_panic()) {
                on_panic();
            }
        });
    }

    /// Runs something short to its end, unsupervised but waited for at the stop.
    pub fn spawn_tracked(&self, run: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(run);
    }

    /// Runs something that must not break off half done to its end, whether or not its caller goes on waiting; the stop
    /// waits for it. `None`: it panicked.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        run: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.tracker.spawn(run).await.ok()
    }

    /// For parts that supervise tasks of their own: what runs in it is waited for at the stop.
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Resolves when a loop has ended unasked, with its name.
    pub async fn failure(&self) -> String {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(what) = failed.borrow_and_update().clone() {
                return what;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The loops that run, and how long ago each of them completed a pass.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        let pulses = lock(&self.pulses);
        let running = pulses.iter().filter(|watched| !watched.until.is_cancelled());
        running.map(|watched| (watched.name.clone(), watched.pulse.age())).collect()
    }

    /// The loops that have not completed a pass within `bound`, by name.
    pub fn late(&self, bound: Duration) -> Vec<String> {
        self.ages().into_iter().filter(|(_, age)| *age > bound).map(|(name, _)| name).collect()
    }

    /// Tells everything to stop, and waits for it at most `grace`. Whether all had ended by then.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
