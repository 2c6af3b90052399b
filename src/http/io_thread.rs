//! A thread of its own for the connections to one destination: what a receiver keeps busy is that thread, and nothing
//! else (`docs/delivery.md#isolation`).

use crate::sync::lock;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Begins with the first request, and ends when it is dropped.
#[derive(Default)]
pub(super) struct IoThread(Mutex<Option<Running>>);

struct Running {
    handle: Handle,
    /// Its end is the thread's.
    _stop: oneshot::Sender<()>,
}

impl IoThread {
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
        let mut running = lock(&self.0);
        if running.is_none() {
            *running = start();
        }
        running.as_ref().map(|running| running.handle.clone())
    }
}

fn start() -> Option<Running> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let begun = std::thread::Builder::new().name("batchd-io".to_owned()).spawn(move || {
        // Whatever it says, it is over.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    });
    begun.ok().map(|_| Running { handle, _stop: stop })
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn work_is_done_elsewhere_and_given_up_with_whoever_waits_for_it() {
        struct Noted(Arc<AtomicBool>);
        impl Drop for Noted {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let thread = IoThread::default();
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
        IoThread::default().run(async { panic!("as it was") }).await;
    }
}
