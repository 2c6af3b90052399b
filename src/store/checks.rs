//! When each watched batch was and will be checked: a narrow row that is there as long as the batch is on the schedule.

use super::column::{Pk, ms};
use super::error::StoreError;
use super::sql::Sql;
use super::value::named;
use crate::domain::tracked::Tracked;

/// What stands behind `FROM` to read batches with their places on the schedule, whose columns keep out of the way of the
/// batches' own.
pub(super) const BATCHES_AND_CHECKS: &str = "batches LEFT JOIN (
     SELECT batch AS checked, last_polled_at AS checked_at, next_poll_at, eta, eta_earliest, eta_latest FROM checks
   ) AS places ON checked = pk";

/// Writes where `stored`, which is the batch's row, stands on the schedule; what is not to be checked has no row.
pub(super) fn place(connection: &Sql<'_>, pk: Pk, stored: &Tracked) -> Result<(), StoreError> {
    let Some(next_poll_at) = stored.next_poll_at.filter(|_| stored.untracked_at.is_none()) else {
        connection.execute("DELETE FROM checks WHERE batch = ?1", [pk])?;
        return Ok(());
    };
    connection.execute("INSERT INTO checks (batch, provider, created_at, last_polled_at, next_poll_at, eta, eta_earliest, eta_latest)
             VALUES (:batch, :provider, :created_at, :last_polled_at, :next_poll_at, :eta, :eta_earliest, :eta_latest)
             ON CONFLICT (batch) DO UPDATE
             SET created_at = excluded.created_at, last_polled_at = excluded.last_polled_at,
                 next_poll_at = excluded.next_poll_at, eta = excluded.eta, eta_earliest = excluded.eta_earliest,
                 eta_latest = excluded.eta_latest", named! {
            ":batch": pk,
            ":provider": stored.key.provider,
            ":created_at": stored.first_seen_at.map(|_| stored.batch.created_at),
            ":last_polled_at": stored.last_polled_at.map(ms),
            ":next_poll_at": ms(next_poll_at),
            ":eta": stored.eta.map(|eta| ms(eta.at)),
            ":eta_earliest": stored.eta.map(|eta| ms(eta.earliest)),
            ":eta_latest": stored.eta.map(|eta| ms(eta.latest)),
        })?;
    Ok(())
}
