//! Submissions that wait for their provider's quota: each is shown as a batch, and its turn comes in the order of arrival.

use super::column::{Pk, json};
use super::creations::{self, Asked};
use super::error::StoreError;
use super::recording::{self, Check, Registered, Registration};
use super::row;
use super::sql::Sql;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, Tracked, WaitingFor};
use crate::domain::transition::Step;
use crate::domain::user_fields::UserFields;
use crate::failpoint;
use std::sync::Arc;

/// A submission that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its id, `sub_…`.
    pub submission: String,
    pub provider: String,
    /// The one model of its requests; empty: there is none, or several.
    pub model: String,
    /// What is to be submitted, as JSON.
    pub request: String,
    /// Its provider has been asked for its batch, and the answer is not known yet.
    pub is_being_created: bool,
}

impl Store {
    /// Puts a submission at the end of the queue, shown as `tracked`; and notes that it was asked for over the API, if it
    /// was.
    pub async fn enqueue(
        &self,
        queued: Queued,
        tracked: Tracked,
        asked: Option<Asked>,
        routes: Arc<Routes>,
    ) -> Result<Registered, StoreError> {
        let provider = queued.provider.clone();
        let registered = self
            .write(move |tx| {
                if let Some(asked) = &asked {
                    creations::open(tx, &queued.submission, asked)?;
                    creations::complete(tx, &queued.submission, &tracked.key)?;
                }
                tx.send(
                    "INSERT INTO queue (submission, provider, model, request)
                     VALUES (:submission, :provider, :model, :request)",
                    named! {
                        ":submission": queued.submission,
                        ":provider": queued.provider,
                        ":model": queued.model,
                        ":request": queued.request,
                    },
                )?;
                let (waiting_for, user_fields) = (tracked.waiting_for.clone(), UserFields::default());
                let item = Registration { tracked, first_look: None, user_fields };
                let mut registered = recording::register(tx, item, &routes)?;
                set_waiting_for(tx, registered.pk, waiting_for.as_ref())?;
                registered.tracked.waiting_for = waiting_for;
                recording::link(tx, &registered.tracked)?;
                Ok(registered)
            })
            .await?;
        failpoint::reach("queue.entered", || provider);
        Ok(registered)
    }

    /// Of the submissions that wait for the same model of the same provider the one that came first.
    pub async fn heads_of_queue(&self) -> Result<Vec<Queued>, StoreError> {
        self.read(|connection| {
            connection.rows(
                "SELECT submission, provider, model, request,
                   EXISTS (SELECT 1 FROM submissions WHERE lineage ->> '$.submission' = submission) AS asked
                 FROM queue WHERE pk IN (SELECT min(pk) FROM queue GROUP BY provider, model) ORDER BY pk",
                [],
                |row| {
                    Ok(Queued {
                        submission: row.get("submission")?,
                        provider: row.get("provider")?,
                        model: row.get("model")?,
                        request: row.get("request")?,
                        is_being_created: row.get("asked")?,
                    })
                },
            )
        })
        .await
    }

    /// Whether a submission for this model of this provider waits already.
    pub async fn is_queued(&self, provider: String, model: String) -> Result<bool, StoreError> {
        self.read(move |connection| {
            connection.one(
                "SELECT EXISTS (SELECT 1 FROM queue WHERE provider = ?1 AND model = ?2) AS waits",
                (provider, model),
                |row| row.get("waits"),
            )
        })
        .await
    }

    /// Writes what a submission waits for now; if it still waits.
    pub async fn note_wait(
        &self,
        provider: String,
        submission: String,
        waiting_for: WaitingFor,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let key = BatchKey { provider, id: submission };
            if waits(tx, &key.id)?
                && let Some(pk) = row::number(tx, &key)?
            {
                set_waiting_for(tx, pk, Some(&waiting_for))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a submission out of the queue, with what that means for the batch as which it is shown. `false`: it does not
    /// wait, or its batch is being created.
    pub async fn end_wait(&self, pk: Pk, step: Step, routes: Arc<Routes>) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let id = &step.tracked.key.id;
            if is_being_created(tx, id)? {
                return Ok(false);
            }
            if tx.execute("DELETE FROM queue WHERE submission = ?1", [id])? == 0 {
                return Ok(false);
            }
            set_waiting_for(tx, pk, None)?;
            recording::record(tx, &[Check { pk, step, routes }])?;
            Ok(true)
        })
        .await
    }
}

fn set_waiting_for(tx: &Tx<'_>, pk: Pk, waiting_for: Option<&WaitingFor>) -> Result<(), StoreError> {
    tx.send("UPDATE batches SET waiting_for = ?2 WHERE pk = ?1", (pk, waiting_for.map(json).transpose()?))?;
    Ok(())
}

/// Whether this submission is in the queue.
pub(super) fn waits(connection: &Sql<'_>, submission: &str) -> Result<bool, StoreError> {
    connection.one(
        "SELECT EXISTS (SELECT 1 FROM queue WHERE submission = ?1) AS waits",
        [submission],
        |row| row.get("waits"),
    )
}

/// Whether its provider has been asked for its batch, and the answer is not known yet.
fn is_being_created(connection: &Sql<'_>, submission: &str) -> Result<bool, StoreError> {
    connection.one(
        "SELECT EXISTS (SELECT 1 FROM submissions WHERE lineage ->> '$.submission' = ?1) AS asked",
        [submission],
        |row| row.get("asked"),
    )
}

/// The submission has become the batch `key`: it waits no more, and what stood for it goes. Gives what that was.
pub(super) fn became(
    tx: &mut Tx<'_>,
    submission: &str,
    key: &BatchKey,
) -> Result<Option<Tracked>, StoreError> {
    tx.send("DELETE FROM queue WHERE submission = ?1", [submission])?;
    creations::complete(tx, submission, key)?;
    let place = BatchKey { provider: key.provider.clone(), id: submission.to_owned() };
    let Some(pk) = row::number(tx, &place)? else { return Ok(None) };
    let stood = row::load(tx, pk)?.map(|(_, tracked)| tracked);
    tx.send("DELETE FROM batches WHERE pk = ?1", [pk])?;
    tx.supersede(pk);
    tx.take_off_schedule(pk, place.provider);
    Ok(stood)
}

/// What a batch takes over from the submission that it was: users may have changed it since.
pub(super) fn take_over(tracked: &mut Tracked, stood: Tracked) {
    tracked.name = stood.name.or(tracked.name.take());
    tracked.labels.extend(stood.labels);
    tracked.notify = stood.notify;
    tracked.deadline = stood.deadline;
    tracked.tracked_at = stood.tracked_at;
    tracked.owner = stood.owner.or(tracked.owner.take());
}

/// Forgets a submission whose batch is deleted.
pub(super) fn forget(connection: &Sql<'_>, id: &str) -> Result<(), StoreError> {
    connection.send("DELETE FROM queue WHERE submission = ?1", [id])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::tracked::Origin;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_is_a_batch_until_it_becomes_one() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store = Store::open(dir.path(), clock.clone()).unwrap();
        let routes = Arc::new(Routes::default());
        for id in ["sub_1", "sub_2"] {
            let key = BatchKey { provider: "openai".to_owned(), id: id.to_owned() };
            let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, clock.now());
            tracked.next_poll_at = None;
            tracked.lineage.submission = Some(id.to_owned());
            let waiting = WaitingFor {
                reason: "enqueued tokens".to_owned(),
                limit: Some(90),
                usage: None,
                since: clock.now(),
                tried_at: None,
            };
            tracked.waiting_for = Some(waiting);
            let queued = Queued {
                submission: id.to_owned(),
                provider: "openai".to_owned(),
                model: "m".to_owned(),
                request: "{}".to_owned(),
                is_being_created: false,
            };
            store.enqueue(queued, tracked, None, routes.clone()).await.unwrap();
        }
        let first = async || store.heads_of_queue().await.unwrap().pop().unwrap().submission;
        assert_eq!(first().await, "sub_1");
        assert!(store.is_queued("openai".to_owned(), "m".to_owned()).await.unwrap());
        let (pk, waiting) = store.find("sub_1".to_owned()).await.unwrap().pop().unwrap();
        assert_eq!(waiting.waiting_for.as_ref().unwrap().limit, Some(90));
        // One leaves the queue once.
        let step = Step::quiet(Tracked { waiting_for: None, ..waiting });
        assert!(store.end_wait(pk, step.clone(), routes.clone()).await.unwrap());
        assert!(!store.end_wait(pk, step, routes.clone()).await.unwrap());
        assert_eq!(store.find("sub_1".to_owned()).await.unwrap()[0].1.waiting_for, None);
        assert_eq!(first().await, "sub_2");
    }
}
