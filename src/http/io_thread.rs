//! Threads for the connections to destinations: what a receiver keeps busy is its thread, and nothing else
//! (`docs/delivery.md#isolation`).

use crate::sync::lock;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The thread of one destination. It begins with the first request, and ends when nobody has it any more.
pub(super) struct IoThread {
    running: Mutex<Option<Arc<Running>>>,
    /// Whom it may have the same thread with.
    others: Option<&'static Shared>,
    /// It has kept a thread busy that it had with others.
    is_busy: AtomicBool,
}

/// Threads that several destinations have, once there are many of these.
pub(super) struct Shared(Mutex<Vec<Weak<Running>>>);

/// Up to so many destinations each have a thread of their own: one takes a quarter of a MiB.
const MOST_SHARED: usize = 32;

/// The threads of webhooks.
pub(super) static WEBHOOKS: Shared = Shared(Mutex::new(Vec::new()));

struct Running {
    handle: Handle,
    /// Its end is the thread's.
    _stop: oneshot::Sender<()>,
}

impl IoThread {
    /// One that nobody else has; or one that it may have with `others`.
    pub(super) fn new(others: Option<&'static Shared>) -> Self {
        Self { running: Mutex::default(), others, is_busy: AtomicBool::new(false) }
    }

    /// Whether other destinations have the same thread now.
    pub(super) fn is_shared(&self) -> bool {
        self.others.is_some()
            && lock(&self.running).as_ref().is_some_and(|running| Arc::strong_count(running) > 1)
    }

    /// It has kept its thread busy for long: from the next request on it has one for itself.
    pub(super) fn note_busy(&self) {
        self.is_busy.store(true, Ordering::Relaxed);
    }

    /// Does `work` on this thread, with every connection that it opens. It is given up when it is not awaited any more.
    ///
    /// A machine that has no thread left does it where it is awaited.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let Some(handle) = self.handle() else { return work.await };
        match Task(handle.spawn(work)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread ends with the last that can await it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn handle(&self) -> Option<Handle> {
        let others = self.others.filter(|_| !self.is_busy.load(Ordering::Relaxed));
        let mut running = lock(&self.running);
        let leaves =
            others.is_none() && running.as_ref().is_some_and(|running| Arc::strong_count(running) > 1);
        if running.is_none() || leaves {
            *running = match others {
                Some(shared) => shared.take(),
                None => start(),
            };
        }
        running.as_ref().map(|running| running.handle.clone())
    }
}

impl Shared {
    /// A thread for one more destination: a new one, or once there are many the one that the fewest have.
    fn take(&self) -> Option<Arc<Running>> {
        let mut all = lock(&self.0);
        all.retain(|running| running.strong_count() > 0);
        let least =
            all.iter().min_by_key(|running| running.strong_count()).filter(|_| all.len() >= MOST_SHARED);
        if let Some(running) = least.and_then(Weak::upgrade) {
            return Some(running);
        }
        let running = start()?;
        all.push(Arc::downgrade(&running));
        Some(running)
    }
}

fn start() -> Option<Arc<Running>> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let begun = std::thread::Builder::new().name("batchd-io".to_owned()).spawn(move || {
        // Whatever it says, it is over.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    });
    begun.ok().map(|_| Arc::new(Running { handle, _stop: stop }))
}

/// A task that ends with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_given_up_with_whoever_waits_for_it() {
        struct Noted(Arc<AtomicBool>);
        impl Drop for Noted {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let thread = IoThread::new(None);
        let here = std::thread::current().id();
        assert_ne!(thread.run(async { std::thread::current().id() }).await, here);
        let over = Arc::new(AtomicBool::new(false));
        let noted = Noted(Arc::clone(&over));
        let endless = thread.run(async move {
            let _noted = noted;
            std::future::pending::<()>().await;
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), endless).await;
        assert!(waited.is_err());
        while !over.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    #[should_panic(expected = "as it was")]
    async fn a_panic_is_passed_on() {
        IoThread::new(None).run(async { panic!("as it was") }).await;
    }

    #[tokio::test]
    async fn of_many_destinations_several_have_one_thread_and_one_that_keeps_it_busy_leaves() {
        static MANY: Shared = Shared(Mutex::new(Vec::new()));
        let threads: Vec<IoThread> = (0..3 * MOST_SHARED).map(|_| IoThread::new(Some(&MANY))).collect();
        let mut seen = Vec::new();
        for thread in &threads {
            seen.push(thread.run(async { std::thread::current().id() }).await);
        }
        let different = |seen: &[std::thread::ThreadId]| {
            let mut known: Vec<std::thread::ThreadId> = Vec::new();
            for id in seen {
                if !known.contains(id) {
                    known.push(*id);
                }
            }
            known.len()
        };
        assert_eq!((different(&seen[..MOST_SHARED]), different(&seen)), (MOST_SHARED, MOST_SHARED));
        assert!(threads.iter().all(IoThread::is_shared));
        threads[0].note_busy();
        let own = threads[0].run(async { std::thread::current().id() }).await;
        assert!(!seen.contains(&own) && !threads[0].is_shared());
        assert_eq!(threads[1].run(async { std::thread::current().id() }).await, seen[1]);
    }
}
