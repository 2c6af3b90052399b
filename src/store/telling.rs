//! How an event is recorded: once, with its number, its frozen body, and a delivery for each webhook that wants it.

use super::column::{Pk, ms};
use super::error::StoreError;
use super::outbox::delivery::DeliveryState;
use super::transaction::Tx;
use crate::domain::event::Draft;
use crate::domain::route::{Route, Routes};
use crate::domain::tracked::{BatchKey, Tracked};
use rusqlite::{Connection, OptionalExtension, named_params};
use sha2::{Digest, Sha256};

/// The number that was given last, even if its event has been deleted since.
pub(super) fn last_sequence(connection: &Connection) -> Result<i64, StoreError> {
    let last = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_row([], |row| row.get("seq"))
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// Records `draft` with a delivery for each webhook that wants it, unless it was recorded before.
///
/// `about`: the batch that it is about, as it stands in its row; its event is fenced for ever.
pub(super) fn record(
    tx: &mut Tx<'_>,
    draft: &Draft,
    about: Option<(Pk, &Tracked)>,
    routes: &Routes,
) -> Result<bool, StoreError> {
    if let Some((_, tracked)) = about {
        let fenced = tx
            .prepare_cached("INSERT INTO fences (about, id) VALUES (:about, :id) ON CONFLICT DO NOTHING")?
            .execute(named_params! { ":about": fence(&tracked.key), ":id": draft.id })?;
        if fenced == 0 {
            return Ok(false);
        }
    }
    // The number stands in the body, so it must be known first; there is one writer only.
    let sequence = last_sequence(tx)? + 1;
    let recorded = tx
        .prepare_cached(
            "INSERT INTO events (sequence, id, type, batch, provider, batch_id, recorded_at, body)
             VALUES (:sequence, :id, :type, :batch, :provider, :batch_id, :recorded_at, :body)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(named_params! {
            ":sequence": sequence,
            ":id": draft.id,
            ":type": draft.kind.as_str(),
            ":batch": about.map(|(pk, _)| pk),
            ":provider": draft.provider,
            ":batch_id": draft.batch_id,
            ":recorded_at": ms(tx.now),
            ":body": draft.body(sequence),
        })?;
    if recorded == 0 {
        return Ok(false);
    }
    tx.tell_event(sequence, draft.kind);
    for route in &routes.0 {
        if route.wants(draft, about.map(|(_, tracked)| tracked))
            || was_told_of_the_beginning(tx, draft, about.map(|(pk, _)| pk), sequence, &route.webhook)?
        {
            owe(tx, sequence, route)?;
        }
    }
    Ok(true)
}

/// Whether `draft` ends what `webhook` was told of (`docs/contract.md#findings`).
fn was_told_of_the_beginning(
    tx: &Tx<'_>,
    draft: &Draft,
    about: Option<Pk>,
    sequence: i64,
    webhook: &str,
) -> Result<bool, StoreError> {
    for beginning in draft.kind.ends() {
        let told: bool = match about {
            Some(pk) => tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch = ?1 AND type = ?2 AND webhook = ?3) AS told",
                )?
                .query_row((pk, beginning.as_str(), webhook), |row| row.get("told"))?,
            // What the end before has ended is over.
            None => tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch IS NULL AND provider IS :provider AND type = :beginning
                         AND webhook = :webhook AND body ->> '$.data.webhook' IS :about
                         AND sequence > coalesce((SELECT max(sequence) FROM events
                           WHERE batch IS NULL AND provider IS :provider AND type = :end AND sequence < :sequence
                             AND body ->> '$.data.webhook' IS :about), 0)) AS told",
                )?
                .query_row(
                    named_params! {
                        ":provider": draft.provider,
                        ":beginning": beginning.as_str(),
                        ":webhook": webhook,
                        ":about": draft.data["webhook"].as_str(),
                        ":end": draft.kind.as_str(),
                        ":sequence": sequence,
                    },
                    |row| row.get("told"),
                )?,
        };
        if told {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes that the webhook of `route` is owed an event.
fn owe(tx: &mut Tx<'_>, sequence: i64, route: &Route) -> Result<(), StoreError> {
    // A route may be older than the last switch; the row never is.
    let reachable: Option<bool> = tx
        .prepare_cached(
            "SELECT configured = 1 AND disabled IS NULL AS reachable FROM webhooks WHERE name = ?1",
        )?
        .query_row([&route.webhook], |row| row.get("reachable"))
        .optional()?;
    let state =
        if reachable.unwrap_or(!route.disabled) { DeliveryState::Pending } else { DeliveryState::Held };
    tx.prepare_cached(
        "INSERT INTO deliveries (sequence, webhook, state, due_at, recorded_at)
         VALUES (:sequence, :webhook, :state, :now, :now) ON CONFLICT DO NOTHING",
    )?
    .execute(named_params! {
        ":sequence": sequence,
        ":webhook": route.webhook,
        ":state": state.as_str(),
        ":now": ms(tx.now),
    })?;
    if state == DeliveryState::Pending {
        tx.tell_webhook(&route.webhook);
    }
    Ok(())
}

/// Where the fences of a batch's events stand.
pub(super) fn fence(key: &BatchKey) -> i64 {
    let mut hash = Sha256::new();
    for field in [&key.provider, &key.id] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    i64::from_be_bytes(first)
}
