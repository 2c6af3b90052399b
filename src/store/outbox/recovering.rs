//! What a start makes of attempts that the process before left open: deaths are counted against their deliveries.

use super::super::column::{Pk, length, ms};
use super::super::error::StoreError;
use super::super::sql::Sql;
use super::super::value::named;
use crate::domain::suspect::{AfterDeath, after_death};
use jiff::Timestamp;

/// Makes due what was under way when the process before died, whatever the clock says: at once, or if it is suspected of
/// having killed the process, after a wait; and gives up what has killed it again and again (`docs/delivery.md#suspects`).
///
/// `of`: only what was under way to this webhook, as others may live that share the state.
pub(in super::super) fn recover(
    connection: &Sql<'_>,
    of: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let open: Vec<Open> = connection.rows("SELECT pk, crashes,
               (SELECT outcome FROM attempts WHERE delivery = deliveries.pk ORDER BY number DESC LIMIT 1) AS outcome
             FROM deliveries WHERE state = 'inflight' AND state <> 'delivered'
               AND webhook = coalesce(:webhook, webhook)",
        named! { ":webhook": of }, |row| {
            let outcome: Option<String> = row.get("outcome")?;
            Ok(Open { pk: row.get("pk")?, deaths: row.get("crashes")?, died: outcome.is_none() })
        })?;
    // In a file that is this daemon's alone the table is read from end to end by its narrow index.
    connection.send(
        "UPDATE attempts SET outcome = 'unknown_crash' WHERE outcome IS NULL AND (CAST(:webhook AS TEXT) IS NULL
           OR delivery IN (SELECT pk FROM deliveries WHERE webhook = :webhook))",
        named! { ":webhook": of },
    )?;
    let everywhere: i64 = connection.one(
        "SELECT count(*) AS count FROM deliveries WHERE state = 'inflight' AND state <> 'delivered'
               AND webhook = coalesce(:webhook, webhook)",
        named! { ":webhook": of },
        |row| row.get("count"),
    )?;
    for Open { pk, deaths, died } in &open {
        let next = if *died {
            after_death(*deaths, everywhere == 1)
        } else {
            AfterDeath::Again { deaths: *deaths, wait: std::time::Duration::ZERO }
        };
        match next {
            AfterDeath::Again { deaths, wait } => {
                connection.send(
                    "UPDATE deliveries SET
                           state = CASE WHEN webhook IN (SELECT name FROM webhooks WHERE disabled IS NOT NULL)
                             THEN 'held' ELSE 'pending' END,
                           crashes = :deaths, wait = :wait, due_at = :due_at, trigger = 'startup'
                         WHERE pk = :pk",
                    named! {
                        ":pk": pk, ":deaths": deaths, ":wait": length(wait), ":due_at": ms(now) + length(wait)
                    },
                )?;
            }
            AfterDeath::GiveUp { deaths } => {
                connection.send(
                    &format!(
                        "UPDATE deliveries SET state = 'dead', crashes = :deaths, due_at = :now, wait = 0,
                           last_error = :error, untold = {TOLD_OF}
                         WHERE pk = :pk"
                    ),
                    named! {
                        ":pk": pk, ":deaths": deaths, ":error": CRASH_LOOP, ":now": ms(now)
                    },
                )?;
                tracing::error!(
                    delivery = pk,
                    "a delivery is given up: {CRASH_LOOP}; to send it again: batchd deliveries retry {pk}"
                );
            }
        }
    }
    shorten_waits(connection, now)
}

/// A delivery that the process before left under way.
struct Open {
    pk: Pk,
    /// Deaths in a row before.
    deaths: u32,
    /// Whether that process died in the attempt, rather than being told to stop.
    died: bool,
}

/// Where a wait ends later than it can have begun by `now`, it begins now (`docs/delivery.md#clocks`).
pub(super) fn shorten_waits(connection: &Sql<'_>, now: Timestamp) -> Result<(), StoreError> {
    connection.send(
        "UPDATE deliveries SET due_at = ?1 + wait
         WHERE state = 'pending' AND state <> 'delivered' AND due_at > ?1 + wait",
        [ms(now)],
    )?;
    Ok(())
}

const CRASH_LOOP: &str = "crash_loop: batchd died again and again while sending it, three times of those with nothing \
     else under way; please report this";
/// Whether the others are to be told that the delivery of the row was given up: not if it was to tell just that of another
/// one, or one webhook's trouble would never end at the others.
pub(super) const TOLD_OF: &str =
    "(SELECT CASE WHEN type <> 'webhook.delivery_dead' THEN 1 ELSE 0 END FROM events
     WHERE events.sequence = deliveries.sequence)";
