//! The results of a batch and of those that repeat its requests, read as those of one batch: each request once, the newest
//! success, or else the newest failure (`docs/contract.md#merged-results`).

use super::Engine;
use super::results::{Format, Results, Summary, Unfinished, Wanted};
use crate::domain::outcome::Outcome;
use crate::domain::tracked::Tracked;
use crate::http::failure::Failure;
use crate::provider::fates::{Fate, RequestKey, fate_in};
use crate::store::spool::{Spool, Spooled};
use crate::store::{Store, StoreError};
use crate::tasks;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

/// Merged results on their way. Successes go out as they come; failures wait on disk until it is known that no older batch
/// has a success. Of each request that has gone out, 16 bytes are kept.
pub struct Merged {
    engine: Engine,
    /// What is still to be read, the newest first.
    batches: VecDeque<Tracked>,
    now: Option<Results>,
    only_failures: bool,
    succeeded: BTreeSet<RequestKey>,
    failed: BTreeSet<RequestKey>,
    spool: Option<Spool>,
    waiting: Option<(BoxStream<'static, io::Result<Bytes>>, BytesMut)>,
    summary: Summary,
}

impl std::fmt::Debug for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merged").field("batches", &self.batches.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// The results of these batches, the newest first, as those of one.
    pub fn merged_results(&self, batches: Vec<Tracked>, only_failures: bool) -> Merged {
        Merged {
            engine: self.clone(),
            batches: batches.into(),
            now: None,
            only_failures,
            succeeded: BTreeSet::new(),
            failed: BTreeSet::new(),
            spool: None,
            waiting: None,
            summary: Summary { failed: Some(0), ..Summary::default() },
        }
    }

    /// The results of a batch that has ended, from its provider or else from the copy; `None`: there are none.
    pub async fn all_results(&self, tracked: &Tracked) -> Result<Option<Results>, Unfinished> {
        let (provider, batch) = (&tracked.key.provider, &tracked.batch);
        let opened = self.results(provider, batch, Wanted::Everything, Format::OpenAi).await;
        let failure = match opened {
            Ok(Some(mut results)) => match results.take_shortage() {
                None => return Ok(Some(results)),
                Some(shortage) => Unfinished::Short(shortage),
            },
            Ok(None) => return Ok(None),
            Err(error) => Unfinished::Failed(failure_of(error)),
        };
        if let Some(saved) = &tracked.results
            && let Ok(Ok(copy)) = self.saved_results(provider, batch, Wanted::Everything, saved).await
        {
            return Ok(Some(copy));
        }
        Err(failure)
    }
}

impl Merged {
    /// The next bytes, whole lines; `None`: that was all.
    pub async fn next(&mut self) -> Option<Result<Bytes, Unfinished>> {
        loop {
            if let Some(results) = &mut self.now {
                match results.next().await {
                    Some(Ok(bytes)) => match self.sift(bytes).await {
                        Ok(bytes) if bytes.is_empty() => {}
                        Ok(bytes) => return Some(Ok(bytes)),
                        Err(error) => return Some(Err(self.over(stored(&error)))),
                    },
                    Some(Err(unfinished)) => return Some(Err(self.over(unfinished))),
                    None => {
                        self.summary.unreadable += results.summary().unreadable;
                        self.now = None;
                    }
                }
                continue;
            }
            if let Some(batch) = self.batches.pop_front() {
                match self.engine.all_results(&batch).await {
                    Ok(results) => self.now = results,
                    Err(unfinished) => return Some(Err(self.over(unfinished))),
                }
                continue;
            }
            return match self.give_failures().await {
                Ok(bytes) => bytes.map(Ok),
                Err(error) => Some(Err(self.over(stored(&error)))),
            };
        }
    }

    /// Lets others have long lines.
    pub fn make_room(&mut self) {
        if let Some(results) = &mut self.now {
            results.make_room();
        }
    }

    /// What has been given so far.
    pub fn summary(&self) -> Summary {
        self.summary.clone()
    }

    /// What it comes to, once all has been given; `None`: there was nothing.
    pub fn outcome(&self) -> Option<Outcome> {
        let failed = self.failed.difference(&self.succeeded).count();
        Some(match (self.succeeded.is_empty(), failed) {
            (true, 0) => return None,
            (true, _) => Outcome::AllFailed,
            (false, 0) => Outcome::Succeeded,
            (false, _) => Outcome::Partial,
        })
    }

    fn over(&mut self, why: Unfinished) -> Unfinished {
        self.batches.clear();
        self.now = None;
        self.spool = None;
        self.waiting = None;
        why
    }

    /// Gives what is decided of some lines, and puts the rest aside.
    async fn sift(&mut self, bytes: Bytes) -> Result<Bytes, StoreError> {
        let (mut given, mut aside) = (BytesMut::new(), Vec::new());
        tasks::in_place(bytes.len(), || {
            for line in lines(&bytes) {
                match fate_in(line) {
                    (Some(key), Fate::Succeeded) => {
                        if self.succeeded.insert(key) && !self.only_failures {
                            self.summary.lines += 1;
                            add(&mut given, line);
                        }
                    }
                    (Some(key), _) => {
                        if !self.succeeded.contains(&key) && self.failed.insert(key) {
                            aside.extend_from_slice(line);
                            aside.push(b'\n');
                        }
                    }
                    (None, _) => {
                        self.summary.lines += 1;
                        self.summary.without_id += 1;
                        add(&mut given, line);
                    }
                }
            }
        });
        drop(bytes);
        if !aside.is_empty() {
            let (store, spool) = (self.engine.shared.store.clone(), self.spool.take());
            let written = tasks::begin_blocking(move || {
                let mut spool = spool.map_or_else(|| store.spool(), Ok)?;
                spool.add(&aside)?;
                Ok::<_, StoreError>(spool)
            });
            let written = written.await.map_err(|_| StoreError::Internal("merging panicked".to_owned()))?;
            self.spool = Some(written?);
        }
        Ok(given.freeze())
    }

    /// The failures of requests that succeeded nowhere.
    async fn give_failures(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some(spool) = self.spool.take() {
            let spooled: Spooled = spool.finish();
            self.waiting = Some((spooled.pieces(), BytesMut::new()));
        }
        loop {
            let Some((pieces, open)) = &mut self.waiting else { return Ok(None) };
            let Some(piece) = pieces.next().await else {
                self.waiting = None;
                return Ok(None);
            };
            open.extend_from_slice(&piece.map_err(StoreError::from)?);
            let Some(end) = memchr::memrchr(b'\n', open) else { continue };
            let whole = open.split_to(end + 1);
            let mut given = BytesMut::new();
            for line in lines(&whole) {
                let is_left = fate_in(line).0.is_none_or(|key| !self.succeeded.contains(&key));
                if is_left {
                    self.summary.lines += 1;
                    self.summary.failed = self.summary.failed.map(|failed| failed + 1);
                    add(&mut given, line);
                }
            }
            if !given.is_empty() {
                return Ok(Some(given.freeze()));
            }
        }
    }
}

/// A batch and all that repeat its requests, directly or not, the newest first.
pub async fn family(store: &Store, of: &Tracked) -> Result<Vec<Tracked>, StoreError> {
    let key =
        |id: &str| crate::domain::tracked::BatchKey { provider: of.key.provider.clone(), id: id.to_owned() };
    let mut first = of.clone();
    let mut climbed = BTreeSet::from([first.key.id.clone()]);
    while let Some(before) = first.lineage.resubmits.clone() {
        if !climbed.insert(before.clone()) {
            break;
        }
        match store.get(key(&before)).await? {
            Some((_, tracked)) => first = tracked,
            None => break,
        }
    }
    let mut found: BTreeMap<String, Tracked> = BTreeMap::new();
    let mut open = vec![first];
    while let Some(one) = open.pop() {
        for again in &one.resubmitted_by {
            if !found.contains_key(again)
                && *again != one.key.id
                && let Some((_, tracked)) = store.get(key(again)).await?
            {
                open.push(tracked);
            }
        }
        found.insert(one.key.id.clone(), one);
    }
    let mut all: Vec<Tracked> = found.into_values().collect();
    all.sort_by(|one, other| {
        let order = |tracked: &Tracked| (tracked.tracked_at, tracked.batch.created_at);
        order(other).cmp(&order(one))
    });
    Ok(all)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn add(given: &mut BytesMut, line: &[u8]) {
    given.extend_from_slice(line);
    given.extend_from_slice(b"\n");
}

fn failure_of(error: super::ProviderError) -> Failure {
    match error {
        super::ProviderError::Provider { failure, .. }
        | super::ProviderError::BatchRefused { failure, .. } => failure,
        other => Failure::Unsupported(other.to_string()),
    }
}

fn stored(error: &StoreError) -> Unfinished {
    Unfinished::Failed(Failure::Unsupported(format!("what failed cannot be put aside: {error}")))
}
