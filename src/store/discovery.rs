//! How far each provider's list has been searched for batches that nobody registered, and what was passed over.

use super::column::{maybe_at, ms};
use super::error::StoreError;
use super::recording::{Registered, Registration, register};
use super::sql::Sql;
use super::state::Store;
use super::value::named;
use crate::domain::discovery::Searched;
use crate::domain::route::Routes;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a page of a provider's list has brought.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    pub new: Vec<Registration>,
    /// Ids that are old news, each with the time of its creation in Unix seconds, where that is known.
    pub old_news: Vec<(String, Option<i64>)>,
    /// When the round began that read the page.
    pub began_at: Timestamp,
    /// How far the round has surely read the list; `None`: the list does not say.
    pub read_to: Option<Timestamp>,
    /// Whether it was the last page that the round had to read.
    pub last: bool,
    /// What was passed over and created before this is in no page any more that a round reads.
    pub forget_before: Timestamp,
}

impl Store {
    /// How far the provider's list has been searched.
    pub async fn searched(&self, provider: String) -> Result<Searched, StoreError> {
        self.read(move |connection| {
            let found = connection.row(
                "SELECT began_at, round_at FROM discovery WHERE provider = ?1",
                [provider],
                |row| {
                    let (began_at, round_at) = (maybe_at(row, "began_at")?, maybe_at(row, "round_at")?);
                    Ok::<_, StoreError>(Searched { began_at, round_at })
                },
            )?;
            Ok(found.unwrap_or_default())
        })
        .await
    }

    /// Those of `ids` that are neither tracked nor passed over.
    pub async fn unknown_of(
        &self,
        provider: String,
        ids: Vec<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        self.read(move |connection| {
            let mut unknown = BTreeSet::new();
            for id in ids {
                let known: bool = connection.one(
                    "SELECT EXISTS (SELECT 1 FROM batches WHERE id = ?2 AND provider = ?1)
                     OR EXISTS (SELECT 1 FROM passed_over WHERE provider = ?1 AND id = ?2) AS known",
                    (&provider, &id),
                    |row| row.get("known"),
                )?;
                if !known {
                    unknown.insert(id);
                }
            }
            Ok(unknown)
        })
        .await
    }

    /// Stores what a page has brought, in one transaction: a round that breaks off behind it finds nothing twice.
    pub async fn discovered(
        &self,
        provider: String,
        page: Discovered,
        routes: Arc<Routes>,
    ) -> Result<Vec<Registered>, StoreError> {
        self.write(move |tx| {
            let registered = page.new.into_iter().map(|item| register(tx, item, &routes)).collect();
            for (id, created_at) in page.old_news {
                // What has no time is never forgotten: it would be new again.
                let created_at = created_at.map_or(i64::MAX, |seconds| seconds.saturating_mul(1000));
                insert_passed_over(tx, &provider, &id, created_at)?;
            }
            tx.execute(
                "INSERT INTO discovery (provider, began_at, round_at)
                 VALUES (:provider, :began_at, CASE WHEN :last = 1 THEN coalesce(CAST(:read_to AS BIGINT), CAST(:began_at AS BIGINT)) END)
                 ON CONFLICT (provider) DO UPDATE
                 SET round_at = CASE WHEN :last = 1 THEN coalesce(:read_to, discovery.round_at, :began_at) ELSE discovery.round_at END",
                named! {
                    ":provider": provider,
                    ":began_at": ms(page.began_at),
                    ":read_to": page.read_to.map(ms),
                    ":last": page.last,
                },
            )?;
            if page.last {
                tx.execute(
                    "DELETE FROM passed_over WHERE provider = ?1 AND created_at < ?2",
                    (&provider, ms(page.forget_before)),
                )?;
            }
            registered
        })
        .await
    }
}

/// Keeps discovery from finding again what a user has deleted.
pub(super) fn pass_over(
    connection: &Sql<'_>,
    provider: &str,
    id: &str,
    created_at: i64,
) -> Result<(), StoreError> {
    let searched = connection.row("SELECT 1 FROM discovery WHERE provider = ?1", [provider], |_| Ok(()))?;
    if searched.is_some() {
        insert_passed_over(connection, provider, id, created_at.saturating_mul(1000))?;
    }
    Ok(())
}

fn insert_passed_over(
    connection: &Sql<'_>,
    provider: &str,
    id: &str,
    created_at: i64,
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO passed_over (provider, id, created_at) VALUES (:provider, :id, :created_at)
             ON CONFLICT DO NOTHING",
        named! { ":provider": provider, ":id": id, ":created_at": created_at },
    )?;
    Ok(())
}
