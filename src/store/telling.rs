//! How an event is recorded: once, with its number, its frozen body, and a delivery for each webhook that wants it.

use super::column::{Pk, ms, without_escaped_nul};
use super::error::StoreError;
use super::outbox::delivery::DeliveryState;
use super::sql::Sql;
use super::transaction::Tx;
use super::value::named;
use crate::domain::event::Draft;
use crate::domain::route::{Route, Routes};
use crate::domain::tracked::{BatchKey, Tracked};
use sha2::{Digest, Sha256};

/// The number that was given last, even if its event has been deleted since.
pub(super) fn last_sequence(connection: &Sql<'_>) -> Result<i64, StoreError> {
    let last = match connection {
        Sql::File(_) => "SELECT seq AS sequence FROM sqlite_sequence WHERE name = 'events'",
        Sql::Server(_) => "SELECT sequence FROM head",
    };
    Ok(connection.row(last, [], |row| row.get("sequence"))?.unwrap_or(0))
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
        let fenced = tx.execute(
            "INSERT INTO fences (about, id) VALUES (:about, :id) ON CONFLICT DO NOTHING",
            named! { ":about": fence(&tracked.key), ":id": draft.id },
        )?;
        if fenced == 0 {
            return Ok(false);
        }
    }
    // The number stands in the body, so it must be known first; one transaction writes at a time.
    let sequence = last_sequence(tx)? + 1;
    let recorded = tx.execute(
        "INSERT INTO events (sequence, id, type, batch, provider, batch_id, recorded_at, body)
             VALUES (:sequence, :id, :type, :batch, :provider, :batch_id, :recorded_at, :body)
             ON CONFLICT (id) DO NOTHING",
        named! {
            ":sequence": sequence,
            ":id": draft.id,
            ":type": draft.kind.as_str(),
            ":batch": about.map(|(pk, _)| pk),
            ":provider": draft.provider,
            ":batch_id": draft.batch_id,
            ":recorded_at": ms(tx.now),
            ":body": &*without_escaped_nul(draft.body(sequence).into()),
        },
    )?;
    if recorded == 0 {
        return Ok(false);
    }
    if let Sql::Server(_) = tx.sql() {
        tx.execute("UPDATE head SET sequence = ?1", [sequence])?;
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
            Some(pk) => tx.one("SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch = ?1 AND type = ?2 AND webhook = ?3) AS told", (pk, beginning.as_str(), webhook), |row| row.get("told"))?,
            // What the end before has ended is over.
            None => tx.one("SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch IS NULL AND provider IS NOT DISTINCT FROM :provider AND type = :beginning
                         AND webhook = :webhook AND body ->> '$.data.webhook' IS NOT DISTINCT FROM :about
                         AND sequence > coalesce((SELECT max(sequence) FROM events
                           WHERE batch IS NULL AND provider IS NOT DISTINCT FROM :provider AND type = :end AND sequence < :sequence
                             AND body ->> '$.data.webhook' IS NOT DISTINCT FROM :about), 0)) AS told", named! {
                        ":provider": draft.provider,
                        ":beginning": beginning.as_str(),
                        ":webhook": webhook,
                        ":about": draft.data["webhook"].as_str(),
                        ":end": draft.kind.as_str(),
                        ":sequence": sequence,
                    },
                    |row| row.get("told"))?,
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
    let reachable: Option<bool> = tx.row(
        "SELECT configured = 1 AND disabled IS NULL AS reachable FROM webhooks WHERE name = ?1",
        [&route.webhook],
        |row| row.get("reachable"),
    )?;
    let state =
        if reachable.unwrap_or(!route.disabled) { DeliveryState::Pending } else { DeliveryState::Held };
    tx.execute(
        "INSERT INTO deliveries (sequence, webhook, state, due_at, recorded_at)
         VALUES (:sequence, :webhook, :state, :now, :now) ON CONFLICT DO NOTHING",
        named! {
            ":sequence": sequence,
            ":webhook": route.webhook,
            ":state": state.as_str(),
            ":now": ms(tx.now),
        },
    )?;
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
