//! Downloading: the results of every batch that ends are fetched before their provider deletes them, tried again until
//! then, and told of.

mod results_dir;

use super::results::{Format, Results, Summary, Unfinished, Wanted};
use super::{Engine, ProviderError};
use crate::clock::Clock;
use crate::config::ResultsConfig;
use crate::domain::download::{Trouble, next_try};
use crate::domain::ownership::Scope;
use crate::domain::time::{earlier, has_passed};
use crate::domain::tracked::SavedResults;
use crate::http::failure::{Failure, Verdict};
use crate::logging::Recurring;
use crate::store::downloads::Due;
use crate::store::{Pk, Store, StoreError};
use crate::sync::lock;
use crate::tasks::{Pulse, Tasks};
use jiff::Timestamp;
use results_dir::ResultsDir;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// Downloads under way at the same time: they are long, and nobody waits for them.
const AT_ONCE: usize = 2;
/// How often old files are deleted, whether or not there are new ones; and when a download that panicked is tried again.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);
/// What nobody has written to for so long is not being downloaded any more.
const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// What downloading works with. Cheap to clone.
#[derive(Clone)]
pub struct Downloads {
    pub engine: Engine,
    pub store: Store,
    pub clock: Clock,
    pub tasks: Tasks,
    /// `[results]`, as it is now.
    pub settings: Arc<dyn Fn() -> ResultsConfig + Send + Sync>,
}

/// Why nothing was downloaded.
struct Undone {
    what: String,
    trouble: Trouble,
}

impl Downloads {
    /// Fetches what is due until everything stops.
    pub async fn run(self, pulse: Pulse) {
        const MAX_SLEEP: Duration = Duration::from_secs(15);
        let stopping = self.tasks.stopping();
        let mut recorded = self.store.watch_events();
        let busy: Arc<Mutex<BTreeSet<Pk>>> = Arc::default();
        let done = Arc::new(Notify::new());
        let mut swept_at: Option<Timestamp> = None;
        let mut reading = Recurring::new("read from the state which results are to be downloaded");
        loop {
            pulse.beat();
            recorded.mark_unchanged();
            let finished = done.notified();
            let settings = (self.settings)();
            if settings.download {
                reading.note(self.begin(&settings, &busy, &done).await);
                let now = self.clock.now();
                if swept_at.is_none_or(|at| has_passed(SWEEP_INTERVAL, at, now)) {
                    swept_at = Some(now);
                    self.sweep(&settings).await;
                }
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = finished => {}
                _ = recorded.changed() => {}
                () = tokio::time::sleep(MAX_SLEEP) => {}
            }
        }
    }

    async fn begin(
        &self,
        settings: &ResultsConfig,
        busy: &Arc<Mutex<BTreeSet<Pk>>>,
        done: &Arc<Notify>,
    ) -> Result<(), StoreError> {
        #[expect(clippy::cast_possible_truncation, reason = "a handful")]
        let due = self.store.downloads_due(self.clock.now(), AT_ONCE as u32 * 2).await?;
        for due in due {
            let pk = due.pk;
            if !self.store.holds(&Scope::Account(due.tracked.key.provider.clone())) {
                continue;
            }
            {
                let mut busy = lock(busy);
                if busy.len() >= AT_ONCE || !busy.insert(pk) {
                    continue;
                }
            }
            let (this, settings) = (self.clone(), settings.clone());
            let (back, done_) = (busy.clone(), done.clone());
            let run = async move {
                this.download(due, &settings).await;
                lock(&back).remove(&pk);
                done_.notify_one();
            };
            let (back, this) = (busy.clone(), self.clone());
            self.tasks.attempt(&TaskTracker::new(), run, move || {
                tracing::error!("a download panicked; it is tried again later");
                let again = crate::domain::time::later(this.clock.now(), SWEEP_INTERVAL);
                let (tasks, store) = (this.tasks.clone(), this.store.clone());
                tasks.spawn_tracked(async move {
                    let what = "the download panicked".to_owned();
                    let noted =
                        store.download_failed(pk, what, Some(again), this.clock.now(), this.engine.routes());
                    let noted = noted.await;
                    if let Err(error) = noted {
                        tracing::error!(%error, "cannot record that a download panicked");
                    }
                    lock(&back).remove(&pk);
                });
            });
        }
        Ok(())
    }

    /// One download, from the first request to the commit.
    async fn download(&self, due: Due, settings: &ResultsConfig) {
        let Due { pk, tracked, tries } = due;
        let (provider, batch) = (&tracked.key.provider, &tracked.key.id);
        let fetched = tokio::select! {
            biased;
            fetched = self.fetch(&tracked.key.provider, &tracked.batch, settings) => fetched,
            // What was begun is begun again at the next start.
            () = async { self.tasks.stopping().cancelled().await } => return,
        };
        let now = self.clock.now();
        let noted = match fetched {
            Ok(None) => self.store.download_done(pk, None, None, None, now, self.engine.routes()).await,
            Ok(Some((saved, summary))) => {
                let SavedResults { path, bytes, lines, .. } = &saved;
                let flaw = (summary.unreadable > 0).then(|| {
                    format!(
                        "{} of {lines} lines cannot be read; in {path} each of them is an error with the text as it came",
                        summary.unreadable
                    )
                });
                match &flaw {
                    None => {
                        tracing::info!(
                            provider,
                            batch,
                            path,
                            bytes,
                            lines,
                            "downloaded the results of {batch}"
                        );
                    }
                    Some(flaw) => {
                        tracing::warn!(provider, batch, path, "downloaded the results of {batch}: {flaw}");
                    }
                }
                let told = summary.told;
                self.store.download_done(pk, Some(saved), told, flaw, now, self.engine.routes()).await
            }
            Err(Undone { what, trouble }) => {
                let next = next_try(tries + 1, trouble, &tracked, now);
                if let Some(at) = next {
                    tracing::warn!(
                        provider,
                        batch,
                        "cannot download the results of {batch}: {what}; trying again at {at}"
                    );
                } else {
                    tracing::error!(
                        provider,
                        batch,
                        "cannot download the results of {batch}, giving up: {what}"
                    );
                }
                self.store.download_failed(pk, what, next, now, self.engine.routes()).await
            }
        };
        if let Err(error) = noted {
            tracing::error!(provider, batch, %error, "cannot record the result of a download; the download is repeated");
        }
    }

    async fn fetch(
        &self,
        provider: &str,
        batch: &crate::domain::batch::Batch,
        settings: &ResultsConfig,
    ) -> Result<Option<(SavedResults, Summary)>, Undone> {
        let opened = self.engine.results(provider, batch, Wanted::Everything, Format::OpenAi).await;
        let mut results = match opened {
            Ok(Some(results)) => results,
            Ok(None) => return Ok(None),
            Err(ProviderError::Provider { failure, .. }) => return Err(of_failure(&failure)),
            Err(other) => return Err(passing(other.to_string())),
        };
        let place = ResultsDir::new(&settings.dir, self.is_shared());
        let io = |error: std::io::Error| {
            passing(format!("cannot write below {}: {error}", settings.dir.display()))
        };
        let mut file = place.begin(provider, &batch.id).await.map_err(io)?;
        while let Some(piece) = results.next().await {
            let bytes = match piece {
                Ok(bytes) => bytes,
                Err(Unfinished::Failed(failure)) => return Err(of_failure(&failure)),
                Err(Unfinished::Short(shortage)) => {
                    let lines = Results::summary(&results).lines;
                    let path = file.keep().await.map_err(io)?;
                    let what = format!("{shortage}; the {lines} that came are in {path}");
                    return Err(Undone { what, trouble: Trouble::Missing });
                }
            };
            file.write(&bytes).await.map_err(io)?;
            if file.bytes() > settings.max_bytes {
                let what = "they are longer than `results.max_bytes` allows for all results together";
                return Err(Undone { what: what.to_owned(), trouble: Trouble::Lasting });
            }
        }
        let summary = Results::summary(&results);
        let saved = file.finish(summary.lines).await.map_err(io)?;
        self.sweep(settings).await;
        Ok(Some((saved, summary)))
    }

    /// Whether other daemons have the directory too.
    fn is_shared(&self) -> bool {
        self.store.server().is_some()
    }

    /// Deletes files that are older than `results.retain`, and the oldest beyond `results.max_bytes`.
    async fn sweep(&self, settings: &ResultsConfig) {
        let place = ResultsDir::new(&settings.dir, self.is_shared());
        let expired = match self.store.expired(settings.retain).await {
            Ok(expired) => expired,
            Err(error) => {
                tracing::warn!(%error, "cannot tell which results are old; none is deleted for its age");
                Vec::new()
            }
        };
        let abandoned = earlier(self.clock.now(), ABANDONED_AFTER).as_millisecond();
        match place.sweep(expired, settings.max_bytes, abandoned).await {
            Ok(gone) => {
                for path in gone {
                    tracing::info!(
                        path,
                        "deleted the downloaded results in {path}: results.retain or results.max_bytes was exceeded"
                    );
                    if let Err(error) = self.store.forget_results(path).await {
                        tracing::warn!(%error, "cannot record that downloaded results were deleted");
                    }
                }
            }
            Err(error) => {
                tracing::warn!("cannot delete old results below {}: {error}", settings.dir.display());
            }
        }
    }
}

fn of_failure(failure: &Failure) -> Undone {
    let trouble = match failure {
        Failure::Unsupported(_) | Failure::BadRequest(_) | Failure::Blocked(_) => Trouble::Lasting,
        // The same bytes come again, most likely; so does a refusal for the request's own sake.
        Failure::Malformed(_) | Failure::TooLarge(_) => Trouble::Missing,
        Failure::Status { status, .. }
            if (status.is_client_error() || status.is_redirection())
                && !matches!(status.as_u16(), 401 | 403 | 408 | 409 | 425 | 429) =>
        {
            Trouble::Missing
        }
        _ if failure.verdict() == Verdict::Missing => Trouble::Missing,
        _ => Trouble::Passing,
    };
    Undone { what: failure.to_string(), trouble }
}

fn passing(what: String) -> Undone {
    Undone { what, trouble: Trouble::Passing }
}
