//! The one writer: operations that wait are committed together, each as if it were alone.
//!
//! An operation is a closure over the open transaction. Whatever has queued up while the last commit ran goes into
//! the next one, each operation in its own savepoint; its caller is answered after `COMMIT` only.

use super::column::Pk;
use super::commit_stats::CommitStats;
use super::damage::Damage;
use super::error::StoreError;
use super::file_writer::FileWriter;
use super::operations::{self, Answer, Many, Sets, Write};
use super::reckoning::Reckoner;
use super::rescheduled::ScheduleWatcher;
use super::server::leases::MemberView;
use super::server::session::Hints;
use super::server::writer::ServerWriter;
use super::sql::Sql;
use super::threads::off_thread;
use super::touch::{PackedTouch, Touch, Touches};
use super::transaction::{AfterCommit, Terms, Tx};
use crate::clock::Clock;
use crate::domain::event::EventType;
use crate::domain::prices::Prices;
use crate::failpoint;
use crate::logging::Recurring;
use crate::sync::lock;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// The queue to the writer, and what it shares with everybody.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    pub(super) core: Arc<Core>,
    committer: tokio::task::JoinHandle<()>,
}

/// What the writer works on. Whoever drops the last store closes it; the committer only borrows it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) clock: Clock,
    reckoner: Arc<Reckoner>,
    damage: Damage,
    pub(super) open: Mutex<Option<Open>>,
    pub(super) touches: Mutex<Touches>,
    touched: Arc<Notify>,
    pub(super) events: watch::Sender<i64>,
    /// Who waits for deliveries, by webhook.
    pub(super) webhooks: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    pub(super) schedule: Mutex<ScheduleWatcher>,
    recorded: Mutex<BTreeMap<EventType, u64>>,
    commits: Mutex<CommitStats>,
    /// Why the last commit failed, if it did.
    trouble: Mutex<Option<StoreError>>,
    /// What ended batches are priced by.
    prices: Mutex<Arc<Prices>>,
    /// Those that share the state, as they were seen last.
    pub(super) members: Mutex<Vec<MemberView>>,
    /// Webhooks that another daemon has switched on or off.
    pub(super) switched: Mutex<BTreeSet<String>>,
}

/// The connection that writes, and what belongs to it.
#[derive(Debug)]
pub(super) enum Open {
    File(FileWriter),
    Server(ServerWriter),
}

enum Job {
    Write(Write),
    /// Something that must run outside of a transaction.
    Alone(Box<dyn FnOnce(&Core) + Send>),
}

impl Writer {
    /// Starts the committer on `connection`, which it owns from now on, with the lock.
    pub(super) fn start(
        open: Open,
        damage: Damage,
        (clock, reckoner): (Clock, Arc<Reckoner>),
        newest: i64,
    ) -> Self {
        let touched = Arc::new(Notify::new());
        let hints = match &open {
            Open::File(_) => None,
            Open::Server(server) => Some(server.hints()),
        };
        let core = Arc::new(Core {
            clock,
            reckoner,
            damage,
            open: Mutex::new(Some(open)),
            touches: Mutex::default(),
            touched: Arc::clone(&touched),
            events: watch::Sender::new(newest),
            webhooks: Mutex::default(),
            schedule: Mutex::default(),
            recorded: Mutex::default(),
            commits: Mutex::new(CommitStats::default()),
            trouble: Mutex::default(),
            prices: Mutex::default(),
            members: Mutex::default(),
            switched: Mutex::default(),
        });
        let (jobs, queue) = mpsc::channel(QUEUE);
        #[expect(
            clippy::disallowed_methods,
            reason = "below the supervisor; the handle is kept, and without the task every write answers an error"
        )]
        let committer = tokio::spawn(commit_what_waits(Arc::downgrade(&core), queue, touched, hints));
        Self { jobs, core, committer }
    }

    /// Runs `operation` in the next transaction; answers once that is committed.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Write::alone(operation, reply), answer).await
    }

    /// The same of an operation that is run together with others of its kind that wait.
    pub(super) async fn write_in_set<M: Many>(&self, operation: M) -> Result<M::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Write::in_set(operation, reply), answer).await
    }

    async fn queue<T>(
        &self,
        write: Write,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // The times that it writes were read from the clock before this, and may be committed after that is set.
        self.core.reckoner.follow();
        self.send(Job::Write(write)).await?;
        answer.await.map_err(|_| self.unanswered())?
    }

    /// Runs `action` between two transactions.
    pub(super) async fn alone<T, F>(&self, action: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let action = move |core: &Core| {
            let _ = reply.send(action(core));
        };
        self.send(Job::Alone(Box::new(action))).await?;
        answer.await.map_err(|_| self.unanswered())?
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| self.unanswered())
    }

    fn unanswered(&self) -> StoreError {
        if lock(&self.core.open).is_none() {
            StoreError::Closed
        } else if self.committer.is_finished() {
            StoreError::Internal("the writer has stopped; restart batchd".to_owned())
        } else {
            StoreError::Internal("a write panicked; the log tells where".to_owned())
        }
    }
}

impl Core {
    /// Keeps `touch` until the next commit.
    pub(super) fn touch(&self, pk: Pk, touch: Touch) {
        lock(&self.touches).add(pk, touch.into());
        self.touched.notify_one();
    }

    /// The same of checks that have left what is expected as it was: when each batch was asked about, and will be.
    pub(super) fn touch_times(&self, asked_at: Timestamp, batches: impl Iterator<Item = (Pk, Timestamp)>) {
        let mut touches = lock(&self.touches);
        for (pk, next_poll_at) in batches {
            touches.add(pk, PackedTouch::of_times(asked_at, next_poll_at));
        }
        drop(touches);
        self.touched.notify_one();
    }

    /// What is known of a batch's last check and not written yet.
    pub(super) fn touch_of(&self, pk: Pk) -> Option<PackedTouch> {
        lock(&self.touches).of(pk)
    }

    /// All such checks.
    pub(super) fn all_touches(&self) -> BTreeMap<Pk, PackedTouch> {
        lock(&self.touches).all()
    }

    pub(super) fn watch_events(&self) -> watch::Receiver<i64> {
        self.events.subscribe()
    }

    pub(super) fn watch_deliveries(&self, webhook: String) -> watch::Receiver<u64> {
        let mut webhooks = lock(&self.webhooks);
        webhooks.retain(|_, watched| watched.receiver_count() > 0);
        webhooks.entry(webhook).or_default().subscribe()
    }

    pub(super) fn watch_schedule(&self, watcher: ScheduleWatcher) {
        *lock(&self.schedule) = watcher;
    }

    pub(super) fn recorded(&self) -> Vec<(EventType, u64)> {
        lock(&self.recorded).iter().map(|(kind, count)| (*kind, *count)).collect()
    }

    pub(super) fn commits(&self) -> CommitStats {
        lock(&self.commits).clone()
    }

    /// From the next commit on.
    pub(super) fn set_prices(&self, prices: Arc<Prices>) {
        *lock(&self.prices) = prices;
    }

    /// Why the last commit failed, if it did.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        lock(&self.trouble).clone()
    }

    /// Why nothing will be written any more, where another batchd has made the state what this one cannot write.
    pub(super) fn is_over(&self) -> Option<StoreError> {
        match self.open.try_lock().as_deref() {
            Ok(Some(Open::Server(server))) => server.is_over(),
            _ => None,
        }
    }

    /// Copies the log into the database and empties it, where there is one.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        match lock(&self.open).as_mut().ok_or(StoreError::Closed)? {
            Open::File(file) => file.checkpoint(),
            Open::Server(_) => Ok(()),
        }
    }

    /// Writes what waits, empties the log, gives up the lock.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut result = self.damage.none_yet();
        while result.is_ok() && !lock(&self.touches).waiting.is_empty() {
            result = self.commit(Vec::new());
        }
        let Some(open) = lock(&self.open).take() else { return Err(StoreError::Closed) };
        let closed = match open {
            Open::File(file) => file.close(self.clock.now()),
            Open::Server(server) => server.close(),
        };
        result.and(closed)
    }

    /// Whether the files are still those that were written; says nothing while a commit is under way, which says it.
    pub(super) fn check_files(&self) -> Result<(), StoreError> {
        match self.open.try_lock().as_deref_mut() {
            Ok(Some(Open::File(file))) => file.may_write(),
            Ok(Some(Open::Server(_)) | None) | Err(_) => Ok(()),
        }
    }

    /// Lets the database grow by `pages` at most from now on.
    pub(super) fn limit_growth(&self, pages: Option<u32>) -> Result<(), StoreError> {
        match lock(&self.open).as_ref().ok_or(StoreError::Closed)? {
            Open::File(file) => file.limit_growth(pages),
            Open::Server(_) => Err(StoreError::Internal("a server's tables have no limit here".to_owned())),
        }
    }

    /// Does what has queued up, in its order.
    fn work(&self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let mut result = Ok(());
        let mut writes = Vec::new();
        for job in jobs {
            match job {
                Job::Write(write) => writes.push(write),
                Job::Alone(action) => {
                    result = self.commit(std::mem::take(&mut writes));
                    action(self);
                }
            }
        }
        if !writes.is_empty() || result.is_ok() { self.commit(writes) } else { result }
    }

    /// Commits `writes` and some of the touches that wait as one transaction, and answers.
    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut open = lock(&self.open);
        let Some(open) = open.as_mut() else {
            refuse(writes, &StoreError::Closed);
            return Err(StoreError::Closed);
        };
        let touches = lock(&self.touches).take();
        if writes.is_empty() && touches.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut answers = Vec::with_capacity(writes.len());
        let prices = lock(&self.prices).clone();
        let terms = Terms { now: self.clock.now(), prices };
        let committed = open.transact(writes, &touches, &self.reckoner, terms, &mut answers);
        let committed = self.damage.noted(committed);
        lock(&self.touches).settle(committed.is_ok());
        let result = match committed {
            Ok(after_commit) => {
                lock(&self.commits).add(started.elapsed());
                self.tell(after_commit);
                for answer in answers {
                    answer(None);
                }
                Ok(())
            }
            Err(error) => {
                for answer in answers {
                    answer(Some(error.clone()));
                }
                Err(error)
            }
        };
        let before = std::mem::replace(&mut *lock(&self.trouble), result.clone().err());
        match &result {
            Err(error) if before.is_none() => tracing::error!("failed to write the state: {error}"),
            Ok(()) if before.is_some() => tracing::info!("the state can be written again"),
            _ => {}
        }
        result
    }

    fn tell(&self, after_commit: AfterCommit) {
        if !after_commit.superseded.is_empty() {
            let mut touches = lock(&self.touches);
            for pk in after_commit.superseded {
                touches.waiting.remove(&pk);
            }
        }
        let watcher = lock(&self.schedule).clone();
        watcher.tell(after_commit.rescheduled);
        if after_commit.newest > 0 {
            let mut recorded = lock(&self.recorded);
            for kind in after_commit.events {
                *recorded.entry(kind).or_default() += 1;
            }
            drop(recorded);
            self.events.send_replace(after_commit.newest);
        }
        if after_commit.all_webhooks || !after_commit.webhooks.is_empty() {
            for (webhook, watched) in &*lock(&self.webhooks) {
                if after_commit.all_webhooks || after_commit.webhooks.contains(webhook) {
                    watched.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

impl Open {
    fn sql(&self) -> Sql<'_> {
        match self {
            Self::File(file) => file.sql(),
            Self::Server(server) => server.sql(),
        }
    }

    /// Opens a transaction, if anything may be written.
    fn begin(&mut self, now: Timestamp) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.begin(),
            Self::Server(server) => server.begin(now),
        }
    }

    /// Commits it. Without an error it is there; with one it is not, or nobody can say and nothing more is written.
    fn commit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.commit(),
            Self::Server(server) => server.commit(now),
        }
    }

    /// Before it: what the owners of others' work are to hear.
    fn write_letters(&mut self, changes: &AfterCommit) -> Result<(), StoreError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Server(server) => server.write_letters(changes),
        }
    }

    /// After a commit: what was written must be there.
    fn settle(&mut self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.settle(),
            Self::Server(_) => Ok(()),
        }
    }

    /// After an error, whatever is left of the transaction goes.
    fn roll_back(&mut self, error: &StoreError) {
        match self {
            Self::File(file) => file.roll_back(error),
            Self::Server(server) => server.roll_back(),
        }
    }

    /// Runs everything in one transaction. Every write's answer is in `answers` afterwards, whatever happened.
    fn transact(
        &mut self,
        writes: Vec<Write>,
        touches: &BTreeMap<Pk, PackedTouch>,
        reckoner: &Reckoner,
        terms: Terms,
        answers: &mut Vec<Answer>,
    ) -> Result<AfterCommit, StoreError> {
        let mut writes = writes.into_iter();
        let reckoning = reckoner.unwritten();
        let now = terms.now;
        let begun = self.begin(now);
        let mut transaction = Tx::of(self.sql(), terms);
        let mut sets = Sets::default();
        let result = begun
            .and_then(|()| reckoning.as_ref().map_or(Ok(()), |reckoning| reckoning.write(&transaction)))
            .and_then(|()| PackedTouch::write_all(&transaction, touches))
            // What fails here is no operation's.
            .and_then(|()| transaction.settle())
            .and_then(|()| {
                writes.try_for_each(|write| match write {
                    Write::InSet(one) => {
                        sets.add(one);
                        Ok(())
                    }
                    Write::Alone(write) => {
                        // What came before it is done before it.
                        let ran = sets.run(&mut transaction, answers);
                        match ran {
                            Ok(()) => operations::run(&mut transaction, write, answers),
                            Err(error) => {
                                answers.push(Write::Alone(write).refused(&error));
                                Err(error)
                            }
                        }
                    }
                })
            })
            .and_then(|()| sets.run(&mut transaction, answers));
        let after_commit = transaction.after_commit;
        let result = result.and_then(|()| {
            failpoint::reach("store.commit", || after_commit.kinds());
            if failpoint::fails("store.write") {
                return Err(StoreError::Full);
            }
            self.write_letters(&after_commit)?;
            self.commit(now)?;
            if let Some(reckoning) = &reckoning {
                reckoner.written(reckoning);
            }
            self.settle()
        });
        failpoint::reach("store.committed", || after_commit.kinds());
        if let Err(error) = &result {
            self.roll_back(error);
            answers.extend(sets.refuse());
            answers.extend(writes.map(|write| write.refused(error)));
        }
        result.map(|()| after_commit)
    }
}

/// The committer: takes whatever waits, and writes touches that nothing else took along after a while.
async fn commit_what_waits(
    core: Weak<Core>,
    mut queue: mpsc::Receiver<Job>,
    touched: Arc<Notify>,
    hints: Option<Arc<Hints>>,
) {
    let mut jobs = Vec::new();
    let mut tending = Recurring::new("tell the other daemons that this one lives");
    // Armed only while there is something to write, so that simulated time need not stop for nothing.
    let mut flush_at: Option<Instant> = None;
    // Only where others share the state.
    let mut tended = Instant::now();
    let mut tend_at = hints.as_ref().map(|_| tended + TENDED_EVERY);
    loop {
        let mut flush = false;
        tokio::select! {
            biased;
            // Before what waits, or a queue that is never empty would keep the others waiting for ever.
            () = sleep_until(tend_at) => {
                let Some(core) = core.upgrade() else { return };
                if let Ok(tended) = off_thread(move || core.tend()).await {
                    tending.note(tended);
                }
                tended = Instant::now();
                tend_at = Some(tended + TENDED_EVERY);
                continue;
            }
            () = hinted(hints.as_deref()) => {
                tend_at = Some(tended + TENDED_AT_MOST_EVERY);
                continue;
            }
            count = queue.recv_many(&mut jobs, MAX_OPERATIONS) => if count == 0 { return },
            () = touched.notified(), if flush_at.is_none() => {
                flush_at = Some(Instant::now() + FLUSH_AFTER);
                continue;
            }
            () = sleep_until(flush_at) => flush = true,
        }
        let Some(core) = core.upgrade() else { return };
        let jobs = std::mem::take(&mut jobs);
        let done = off_thread(move || {
            let result = core.work(jobs);
            let left = !lock(&core.touches).waiting.is_empty();
            (result.is_ok(), left)
        })
        .await;
        flush_at = match done {
            Ok((_, false)) => None,
            Ok((true, true)) if flush => Some(Instant::now()),
            Ok((true, true)) => flush_at.or_else(|| Some(Instant::now() + FLUSH_AFTER)),
            Ok((false, true)) | Err(_) => Some(Instant::now() + FLUSH_AFTER),
        };
    }
}

/// Waits until another daemon says that there is something to see.
async fn hinted(hints: Option<&Hints>) {
    match hints {
        Some(hints) => hints.heard.notified().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn refuse(writes: Vec<Write>, error: &StoreError) {
    for write in writes {
        (write.refused(error))(Some(error.clone()));
    }
}

/// Callers that wait to be queued wait in order.
const QUEUE: usize = 1024;
/// How often it is looked at what others do that share the state.
const TENDED_EVERY: Duration = Duration::from_millis(500);
/// How soon after that it is looked at again, if another says that there is something to see.
const TENDED_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// Operations in one transaction.
const MAX_OPERATIONS: usize = 500;
/// How long a touch waits for a commit that takes it along.
const FLUSH_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
