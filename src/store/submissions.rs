//! Batches that are being created: what is written before a provider is asked, so that none is created twice.

use super::column::{Pk, count, from_json, instant, json, maybe_at, ms};
use super::creations::{self, Asked};
use super::error::StoreError;
use super::given::Given;
use super::queue;
use super::recording::{self, Registered, Registration};
use super::sql::Sql;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, Lineage, Tracked};
use crate::domain::user_fields::UserFields;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A batch that is being created, or may have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What the batch is marked with, where the provider keeps marks.
    pub marker: String,
    pub provider: String,
    /// The endpoint of its requests, in OpenAI's words.
    pub endpoint: String,
    /// The one model of all requests, where there is one.
    pub model: Option<String>,
    /// How many requests it has; 0: nobody has counted them.
    pub requests: u64,
    /// The file it was made from.
    pub file_name: String,
    /// The file that a client uploaded before, if it was made from one.
    pub uploaded_file: Option<String>,
    /// The provider's own file, if the creation was passed on as it came: then the batch carries no mark.
    pub input_file: Option<String>,
    /// How it came about: what waited before it, and what it repeats.
    pub lineage: Lineage,
    /// What the user attached to it.
    pub metadata: BTreeMap<String, String>,
    /// What the user said of it.
    pub user_fields: UserFields,
    /// The user who submitted it.
    pub owner: Option<String>,
    /// When the provider was about to be asked.
    pub begun_at: Timestamp,
    /// Since when nobody waits for the answer any more.
    pub lost_at: Option<Timestamp>,
    /// Where a person has to decide: the ids of the batches that it may be.
    pub candidates: Vec<String>,
    /// What a person is told of it.
    pub trouble: Option<String>,
}

impl Store {
    /// Writes that a batch is about to be created; and that it was asked for over the API, if it was. `false`: it waited,
    /// and does not any more, or is being created already, so that nothing is to be created.
    pub async fn open_submission(
        &self,
        submission: Submission,
        asked: Option<Asked>,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            // Another daemon may be about to create it too, or have asked and not know yet.
            if let Some(id) = &submission.lineage.submission
                && (!queue::waits(tx, id)? || queue::is_being_created(tx, id)?)
            {
                return Ok(false);
            }
            if let Some(asked) = &asked {
                creations::open(tx, &submission.marker, asked)?;
            }
            tx.send("INSERT INTO submissions
                   (marker, provider, endpoint, model, requests, file_name, uploaded_file, input_file, lineage, metadata,
                    given, owner, begun_at)
                 VALUES (:marker, :provider, :endpoint, :model, :requests, :file_name, :uploaded_file, :input_file,
                   :lineage, :metadata, :given, :owner, :begun_at)", named! {
                ":marker": submission.marker,
                ":provider": submission.provider,
                ":endpoint": submission.endpoint,
                ":model": submission.model,
                ":requests": i64::try_from(submission.requests).unwrap_or(i64::MAX),
                ":file_name": submission.file_name,
                ":uploaded_file": submission.uploaded_file,
                ":input_file": submission.input_file,
                ":lineage": json(&submission.lineage)?,
                ":metadata": json(&submission.metadata)?,
                ":given": json(&submission.user_fields)?,
                ":owner": submission.owner,
                ":begun_at": ms(submission.begun_at),
            })?;
            Ok(true)
        })
        .await
    }

    /// Registers the batch that was created and closes its submission, in one transaction.
    pub async fn complete_submission(
        &self,
        marker: String,
        item: Registration,
        routes: Arc<Routes>,
    ) -> Result<Registered, StoreError> {
        self.write(move |tx| {
            close(tx, &marker)?;
            creations::complete(tx, &marker, &item.tracked.key)?;
            let Tracked { key, uploaded_file: file, lineage, .. } = item.tracked.clone();
            let mut item = item;
            if let Some(id) = &lineage.submission
                && let Some(stood) = queue::became(tx, id, &key)?
            {
                let tracked = item.first_look.as_mut().map_or(&mut item.tracked, |look| &mut look.tracked);
                queue::take_over(tracked, stood);
            }
            let mut registered = recording::register(tx, item, &routes)?;
            if !registered.new {
                // It was found in the provider's list before it was registered here.
                tx.send("UPDATE batches SET uploaded_file = coalesce(?2, uploaded_file), lineage = ?3 WHERE pk = ?1", (registered.pk, &file, json(&lineage)?))?;
                registered.tracked.uploaded_file = file.or(registered.tracked.uploaded_file);
                registered.tracked.lineage = lineage;
            }
            recording::link(tx, &registered.tracked)?;
            Ok(registered)
        })
        .await
    }

    /// Closes a submission that created no batch.
    pub async fn drop_submission(&self, marker: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            close(tx, &marker)?;
            creations::forget(tx, &marker)
        })
        .await
    }

    /// Nobody waits for the answer any more.
    pub async fn lose_submission(&self, marker: String, lost_at: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.send(
                "UPDATE submissions SET lost_at = coalesce(lost_at, :lost_at) WHERE marker = :marker",
                named! { ":marker": marker, ":lost_at": ms(lost_at) },
            )?;
            Ok(())
        })
        .await
    }

    /// Notes what a person is to be told, and which batches it may be.
    pub async fn doubt_submission(
        &self,
        marker: String,
        candidates: Vec<String>,
        trouble: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.send(
                "UPDATE submissions SET candidates = :candidates, trouble = :trouble WHERE marker = :marker",
                named! {
                    ":marker": marker,
                    ":candidates": json(&candidates)?,
                    ":trouble": trouble,
                },
            )?;
            Ok(())
        })
        .await
    }

    /// Every submission that is open, the oldest first.
    pub async fn submissions(&self) -> Result<Vec<Submission>, StoreError> {
        self.read(|connection| submissions(connection, "")).await
    }

    /// The same without those whose answer another daemon waits for that shares the state.
    pub async fn submissions_not_awaited_elsewhere(&self) -> Result<Vec<Submission>, StoreError> {
        self.read(|connection| {
            let condition = match connection {
                Sql::File(_) => "",
                Sql::Server(_) => {
                    "WHERE lost_at IS NOT NULL OR NOT EXISTS (
                       SELECT 1 FROM members WHERE members.id = submissions.member AND dead = 0)"
                }
            };
            submissions(connection, condition)
        })
        .await
    }
}

fn submissions(connection: &Sql<'_>, condition: &str) -> Result<Vec<Submission>, StoreError> {
    connection.rows(
        &format!(
            "SELECT marker, provider, endpoint, model, requests, file_name, uploaded_file, input_file, lineage, metadata,
               given, owner, begun_at, lost_at, candidates, trouble
             FROM submissions {condition} ORDER BY pk"
        ),
        [],
        |row| {
            Ok(Submission {
                marker: row.get("marker")?,
                provider: row.get("provider")?,
                endpoint: row.get("endpoint")?,
                model: row.get("model")?,
                requests: count(row, "requests")?,
                file_name: row.get("file_name")?,
                uploaded_file: row.get("uploaded_file")?,
                input_file: row.get("input_file")?,
                lineage: from_json(row, "lineage")?,
                metadata: from_json(row, "metadata")?,
                user_fields: from_json(row, "given")?,
                owner: row.get("owner")?,
                begun_at: instant(row, "begun_at")?,
                lost_at: maybe_at(row, "lost_at")?,
                candidates: from_json(row, "candidates")?,
                trouble: row.get("trouble")?,
            })
        },
    )
}

fn close(tx: &Tx<'_>, marker: &str) -> Result<(), StoreError> {
    tx.send("DELETE FROM submissions WHERE marker = ?1", [marker])?;
    Ok(())
}

/// A person has tracked batches that submissions may have created: those are the ones.
pub(super) fn settle<'k>(
    tx: &mut Tx<'_>,
    keys: impl Iterator<Item = &'k BatchKey> + Clone,
) -> Result<(), StoreError> {
    let providers: BTreeSet<&String> = keys.clone().map(|key| &key.provider).collect();
    if providers.is_empty() {
        return Ok(());
    }
    let mut in_doubt: Vec<(Pk, InDoubt)> = tx.rows_of(
        "SELECT submissions.pk AS pk, submissions.provider AS provider, marker, candidates, lineage
         FROM submissions, given(wanted TEXT) WHERE submissions.provider = given.wanted AND candidates <> '[]'",
        &Given::each(providers.into_iter().cloned()),
        |row| {
            let in_doubt = InDoubt {
                provider: row.get("provider")?,
                marker: row.get("marker")?,
                candidates: from_json(row, "candidates")?,
                lineage: from_json(row, "lineage")?,
            };
            Ok((row.get("pk")?, in_doubt))
        },
    )?;
    in_doubt.sort_by_key(|(pk, _)| *pk);
    for key in keys {
        let is_it = |(_, of): &(Pk, InDoubt)| of.provider == key.provider && of.candidates.contains(&key.id);
        let Some(at) = in_doubt.iter().position(is_it) else { continue };
        let (_, InDoubt { marker, lineage, .. }) = in_doubt.remove(at);
        close(tx, &marker)?;
        if let Some(submission) = &lineage.submission {
            queue::became(tx, submission, key)?;
        }
        creations::complete(tx, &marker, key)?;
    }
    Ok(())
}

/// A submission that a person has to decide on.
struct InDoubt {
    provider: String,
    marker: String,
    candidates: Vec<String>,
    lineage: Lineage,
}
