//! Lines on their way to stderr: a reader that is stuck costs records and never blocks.

use crate::sync::lock;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lines on their way to stderr; a thread of its own writes them.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) lines: SyncSender<Order>,
    pub(super) dropped: Arc<AtomicU64>,
    /// The writer's answer to [`Order::Drain`].
    pub(super) drained: Arc<Mutex<Receiver<()>>>,
}

#[derive(Debug)]
pub(super) enum Order {
    Write(String),
    Drain,
}

impl Queue {
    pub(super) fn start(
        mut to: impl Write + Send + 'static,
        notice: impl Fn(u64) -> String + Send + 'static,
    ) -> Self {
        let (lines, orders) = sync_channel::<Order>(CAPACITY);
        let (done, drained) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let missing = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                while let Ok(order) = orders.recv() {
                    match order {
                        Order::Write(line) => {
                            let _ = to.write_all(line.as_bytes());
                        }
                        Order::Drain => {
                            let _ = done.try_send(());
                        }
                    }
                    let count = missing.swap(0, Ordering::Relaxed);
                    if count > 0 {
                        let _ = to.write_all(notice(count).as_bytes());
                    }
                }
            })
            // Without the thread the queue is closed and `put` writes nothing: a daemon without a log still works.
            .ok();
        Self { lines, dropped, drained: Arc::new(Mutex::new(drained)) }
    }

    pub(super) fn put(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Order::Write(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was put is written, but no longer than `limit`.
    pub(super) fn drain(&self, limit: Duration) {
        let drained = lock(&self.drained);
        // A full queue takes no order yet; nothing is received on the way there, so this waits.
        for _ in 0..100 {
            if self.lines.try_send(Order::Drain).is_ok() {
                break;
            }
            let _ = drained.recv_timeout(limit / 100);
        }
        let _ = drained.recv_timeout(limit);
    }
}

/// Lines that may wait for a reader that is slow.
const CAPACITY: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A reader that is stuck until it is let go.
    struct Stuck {
        go: Receiver<()>,
        held: bool,
        written: Arc<Mutex<String>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if std::mem::take(&mut self.held) {
                let _ = self.go.recv();
            }
            self.written.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn f14_a_stuck_reader_costs_records_and_never_blocks() {
        let (go, stuck) = channel();
        let written = Arc::new(Mutex::new(String::new()));
        let reader = Stuck { go: stuck, held: true, written: Arc::clone(&written) };
        let queue = Queue::start(reader, |count| format!("{count} dropped\n"));
        for number in 0..CAPACITY + 100 {
            queue.put(format!("{number}\n"));
        }
        assert!(queue.dropped.load(Ordering::Relaxed) >= 99);
        go.send(()).unwrap();
        while queue.lines.try_send(Order::Drain).is_err() {
            std::thread::yield_now();
        }
        queue.drained.lock().unwrap().recv().unwrap();
        let written = written.lock().unwrap();
        assert!(written.contains(" dropped\n"), "{}", written.len());
        assert!(written.contains("\n8000\n"));
    }
}
