//! How far each provider's list has been searched for batches that nobody registered, and what was passed over.

use super::column::{maybe_at, ms};
use super::error::StoreError;
use super::recording::{Registered, Registration, register_all};
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
            let given = ids.into_iter().map(|id| vec![provider.clone().into(), id.into()]);
            let unknown = connection.rows_of(
                "SELECT given.wanted AS id FROM given(at TEXT, wanted TEXT)
                 WHERE NOT EXISTS (SELECT 1 FROM batches WHERE id = given.wanted AND provider = given.at)
                   AND NOT EXISTS (SELECT 1 FROM passed_over WHERE provider = given.at AND id = given.wanted)",
                &given.collect(),
                |row| row.get("id"),
            )?;
            Ok(unknown.into_iter().collect())
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
            let registered = register_all(tx, page.new, &routes)?;
            let old_news = page.old_news.into_iter().map(|(id, created_at)| {
                // What has no time is never forgotten: it would be new again.
                (id, created_at.map_or(i64::MAX, |seconds| seconds.saturating_mul(1000)))
            });
            insert_passed_over(tx, &provider, old_news)?;
            tx.send(
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
                tx.send(
                    "DELETE FROM passed_over WHERE provider = ?1 AND created_at < ?2",
                    (&provider, ms(page.forget_before)),
                )?;
            }
            Ok(registered)
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
        let one = (id.to_owned(), created_at.saturating_mul(1000));
        insert_passed_over(connection, provider, std::iter::once(one))?;
    }
    Ok(())
}

fn insert_passed_over(
    connection: &Sql<'_>,
    provider: &str,
    batches: impl Iterator<Item = (String, i64)>,
) -> Result<(), StoreError> {
    let given =
        batches.map(|(id, created_at)| vec![provider.to_owned().into(), id.into(), created_at.into()]);
    connection.set(
        "INSERT INTO passed_over (provider, id, created_at) SELECT given.provider, given.id, given.created_at
         FROM given(provider TEXT, id TEXT, created_at INT) WHERE TRUE ON CONFLICT DO NOTHING",
        &given.collect(),
    )
}
