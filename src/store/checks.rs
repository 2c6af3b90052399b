//! When each watched batch was and will be checked: a narrow row that is there as long as the batch is on the schedule.

use super::column::{Pk, ms};
use super::error::StoreError;
use super::given::Given;
use super::sql::Sql;
use crate::domain::tracked::Tracked;

/// What stands behind `FROM` to read batches with their places on the schedule, whose columns keep out of the way of the
/// batches' own.
pub(super) const BATCHES_AND_CHECKS: &str = "batches LEFT JOIN (
     SELECT batch AS checked, last_polled_at AS checked_at, next_poll_at, eta, eta_earliest, eta_latest FROM checks
   ) AS places ON checked = pk";

/// Whether a batch is to be checked some day.
pub(super) fn has_place(stored: &Tracked) -> bool {
    stored.next_poll_at.is_some() && stored.untracked_at.is_none()
}

/// Writes where `stored`, which is the batch's row, stands on the schedule; what is not to be checked has no row.
pub(super) fn place(connection: &Sql<'_>, pk: Pk, stored: &Tracked) -> Result<(), StoreError> {
    place_all(connection, std::iter::once((pk, stored)))
}

/// The same of several.
pub(super) fn place_all<'t>(
    connection: &Sql<'_>,
    batches: impl Iterator<Item = (Pk, &'t Tracked)>,
) -> Result<(), StoreError> {
    let (mut gone, mut places) = (Given::default(), Given::default());
    for (pk, stored) in batches {
        let Some(next_poll_at) = stored.next_poll_at.filter(|_| has_place(stored)) else {
            gone.push(vec![pk.into()]);
            continue;
        };
        places.push(vec![
            pk.into(),
            stored.key.provider.clone().into(),
            stored.first_seen_at.map(|_| stored.batch.created_at).into(),
            stored.last_polled_at.map(ms).into(),
            ms(next_poll_at).into(),
            stored.eta.map(|eta| ms(eta.at)).into(),
            stored.eta.map(|eta| ms(eta.earliest)).into(),
            stored.eta.map(|eta| ms(eta.latest)).into(),
        ]);
    }
    connection.set("DELETE FROM checks WHERE batch IN (SELECT given.gone FROM given(gone INT))", &gone)?;
    connection.set(
        "INSERT INTO checks (batch, provider, created_at, last_polled_at, next_poll_at, eta, eta_earliest, eta_latest)
         SELECT given.batch, given.provider, given.created_at, given.last_polled_at, given.next_poll_at, given.eta,
           given.eta_earliest, given.eta_latest
         FROM given(batch INT, provider TEXT, created_at INT, last_polled_at INT, next_poll_at INT, eta INT,
           eta_earliest INT, eta_latest INT)
         WHERE TRUE ON CONFLICT (batch) DO UPDATE
         SET created_at = excluded.created_at, last_polled_at = excluded.last_polled_at,
             next_poll_at = excluded.next_poll_at, eta = excluded.eta, eta_earliest = excluded.eta_earliest,
             eta_latest = excluded.eta_latest",
        &places,
    )
}
