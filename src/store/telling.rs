//! How an event is recorded: once, with its number, its frozen body, and a delivery for each webhook that wants it.

use super::column::{Pk, event_type, ms, without_escaped_nul};
use super::error::StoreError;
use super::given::Given;
use super::outbox::delivery::DeliveryState;
use super::sql::Sql;
use super::transaction::Tx;
use super::value::named;
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, Tracked};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The number that was given last, even if its event has been deleted since.
pub(super) fn last_sequence(connection: &Sql<'_>) -> Result<i64, StoreError> {
    let last = match connection {
        Sql::File(_) => "SELECT seq AS sequence FROM sqlite_sequence WHERE name = 'events'",
        Sql::Server(_) => "SELECT sequence FROM head",
    };
    Ok(connection.row(last, [], |row| row.get("sequence"))?.unwrap_or(0))
}

/// An event that is to be recorded.
pub(super) struct Telling<'t> {
    pub(super) draft: Cow<'t, Draft>,
    /// The batch that it is about, as it stands in its row; its event is fenced for ever.
    pub(super) about: Option<(Pk, &'t Tracked)>,
    pub(super) routes: &'t Routes,
}

/// Records `draft` with a delivery for each webhook that wants it, unless it was recorded before.
///
/// `about`: see [`Telling`].
pub(super) fn record(
    tx: &mut Tx<'_>,
    draft: &Draft,
    about: Option<(Pk, &Tracked)>,
    routes: &Routes,
) -> Result<bool, StoreError> {
    let one = Telling { draft: Cow::Borrowed(draft), about, routes };
    Ok(record_all(tx, &[one])?.contains(&true))
}

/// The same of many, numbered in their order; which of them were new.
pub(super) fn record_all(tx: &mut Tx<'_>, tellings: &[Telling<'_>]) -> Result<Vec<bool>, StoreError> {
    if tellings.is_empty() {
        return Ok(Vec::new());
    }
    let is_new = are_new(tx, tellings)?;
    let mut sequence = last_sequence(tx)?;
    let (mut events, mut numbered) = (Given::default(), Vec::new());
    for (telling, _) in tellings.iter().zip(&is_new).filter(|(_, is_new)| **is_new) {
        // The number stands in the body, so it must be known first; one transaction writes at a time.
        sequence += 1;
        let Telling { draft, about, .. } = telling;
        events.push(vec![
            sequence.into(),
            draft.id.clone().into(),
            draft.kind.as_str().to_owned().into(),
            about.map(|(pk, _)| pk).into(),
            draft.provider.clone().into(),
            draft.batch_id.clone().into(),
            ms(tx.now).into(),
            without_escaped_nul(draft.body(sequence).into()).into_owned().into(),
        ]);
        tx.tell_event(sequence, draft.kind);
        numbered.push((sequence, telling));
    }
    if numbered.is_empty() {
        return Ok(is_new);
    }
    tx.set(
        "INSERT INTO events (sequence, id, type, batch, provider, batch_id, recorded_at, body)
         SELECT given.sequence, given.id, given.type, given.batch, given.provider, given.batch_id, given.recorded_at, given.body
         FROM given(sequence INT, id TEXT, type TEXT, batch INT, provider TEXT, batch_id TEXT, recorded_at INT, body TEXT)",
        &events,
    )?;
    if let Sql::Server(_) = tx.sql() {
        tx.send("UPDATE head SET sequence = ?1", [sequence])?;
    }
    owe(tx, &numbered)?;
    Ok(is_new)
}

/// Which of these were not recorded before, nor come earlier among them.
fn are_new(tx: &Tx<'_>, tellings: &[Telling<'_>]) -> Result<Vec<bool>, StoreError> {
    let fence_of = |telling: &Telling<'_>| {
        telling.about.map(|(_, tracked)| (fence(&tracked.key), telling.draft.id.clone()))
    };
    let fences: Vec<Option<(i64, String)>> = tellings.iter().map(fence_of).collect();
    let mut newly: BTreeSet<(i64, String)> = tx
        .rows_of(
            "INSERT INTO fences (about, id) SELECT given.about, given.id FROM given(about INT, id TEXT)
             WHERE TRUE ON CONFLICT DO NOTHING RETURNING about, id",
            &fences.iter().flatten().map(|(about, id)| vec![(*about).into(), id.clone().into()]).collect(),
            |row| Ok((row.get("about")?, row.get("id")?)),
        )?
        .into_iter()
        .collect();
    let passes: Vec<bool> =
        fences.iter().map(|fence| fence.as_ref().is_none_or(|fence| newly.remove(fence))).collect();
    let ids =
        tellings.iter().zip(&passes).filter(|(_, passes)| **passes).map(|(telling, _)| &telling.draft.id);
    let mut known: BTreeSet<String> = tx
        .rows_of(
            "SELECT events.id AS id FROM events, given(wanted TEXT) WHERE events.id = given.wanted",
            &Given::each(ids.cloned()),
            |row| row.get("id"),
        )?
        .into_iter()
        .collect();
    let is_new = tellings.iter().zip(passes);
    Ok(is_new.map(|(telling, passes)| passes && known.insert(telling.draft.id.clone())).collect())
}

/// Which webhooks were told what of batches: by batch and type of event.
type Told = BTreeSet<(Pk, EventType, String)>;

/// What the webhooks were told of the batches of these events, for those that may be told of an end because they were told
/// of the beginning (`docs/contract.md#findings`).
fn told_of_batches(tx: &Tx<'_>, events: &[(i64, &Telling<'_>)]) -> Result<Told, StoreError> {
    let wanted = events.iter().filter_map(|(_, Telling { draft, about, routes })| {
        let (pk, tracked) = (*about)?;
        let may_be_told =
            !draft.kind.ends().is_empty() && routes.0.iter().any(|route| !route.wants(draft, Some(tracked)));
        may_be_told.then_some(pk)
    });
    let wanted: BTreeSet<Pk> = wanted.collect();
    let told = tx.rows_of(
        "SELECT events.batch AS batch, type, webhook FROM events JOIN deliveries USING (sequence), given(about INT)
         WHERE events.batch = given.about",
        &Given::each(wanted),
        |row| Ok((row.get("batch")?, event_type(row, "type")?, row.get("webhook")?)),
    )?;
    Ok(told.into_iter().collect())
}

/// Whether `draft`, which is about no batch, ends what `webhook` was told of. What the end before has ended is over.
fn was_told_of_the_beginning(
    tx: &Tx<'_>,
    draft: &Draft,
    sequence: i64,
    webhook: &str,
) -> Result<bool, StoreError> {
    for beginning in draft.kind.ends() {
        let told: bool = tx.one("SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
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
                |row| row.get("told"))?;
        if told {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes what each webhook is owed of events with these numbers.
fn owe(tx: &mut Tx<'_>, events: &[(i64, &Telling<'_>)]) -> Result<(), StoreError> {
    let mut told = told_of_batches(tx, events)?;
    let mut owed = Vec::new();
    for (sequence, Telling { draft, about, routes }) in events {
        for route in &routes.0 {
            let is_told = route.wants(draft, about.map(|(_, tracked)| tracked))
                || match about {
                    Some((pk, _)) => draft
                        .kind
                        .ends()
                        .iter()
                        .any(|beginning| told.contains(&(*pk, *beginning, route.webhook.clone()))),
                    None => was_told_of_the_beginning(tx, draft, *sequence, &route.webhook)?,
                };
            if is_told {
                owed.push((*sequence, route));
                told.extend(about.map(|(pk, _)| (pk, draft.kind, route.webhook.clone())));
            }
        }
    }
    if owed.is_empty() {
        return Ok(());
    }
    // A route may be older than the last switch; the row never is.
    let names: BTreeSet<&String> = owed.iter().map(|(_, route)| &route.webhook).collect();
    let switches: BTreeMap<String, bool> = tx
        .rows_of(
            "SELECT name, configured = 1 AND disabled IS NULL AS reachable
             FROM webhooks, given(wanted TEXT) WHERE name = given.wanted",
            &Given::each(names.into_iter().cloned()),
            |row| Ok((row.get("name")?, row.get("reachable")?)),
        )?
        .into_iter()
        .collect();
    let mut deliveries = Given::default();
    for (sequence, route) in owed {
        let is_reachable = switches.get(&route.webhook).copied().unwrap_or(!route.disabled);
        let state = if is_reachable { DeliveryState::Pending } else { DeliveryState::Held };
        deliveries.push(vec![
            sequence.into(),
            route.webhook.clone().into(),
            state.as_str().to_owned().into(),
            ms(tx.now).into(),
        ]);
        if is_reachable {
            tx.tell_webhook(&route.webhook);
        }
    }
    tx.set(
        "INSERT INTO deliveries (sequence, webhook, state, due_at, recorded_at)
         SELECT given.sequence, given.webhook, given.state, given.now, given.now
         FROM given(sequence INT, webhook TEXT, state TEXT, now INT) WHERE TRUE ON CONFLICT DO NOTHING",
        &deliveries,
    )
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
