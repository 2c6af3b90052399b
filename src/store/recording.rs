//! What a registration or a check of a batch writes: its row, its transitions, its events and what hangs on them.

use super::column::{Pk, json, ms};
use super::error::StoreError;
use super::rescheduled::Rescheduled;
use super::transaction::Tx;
use super::value::named;
use super::{checks, costs, downloads, expiring, history, row, telling};
use crate::domain::batch::Usage;
use crate::domain::cost::SpentByModel;
use crate::domain::event::EventType;
use crate::domain::finding;
use crate::domain::route::Routes;
use crate::domain::status::Status;
use crate::domain::tracked::{Lineage, Tracked, Transition, is_submission};
use crate::domain::transition::Step;
use crate::domain::user_fields::UserFields;
use jiff::Timestamp;
use std::borrow::Cow;

/// One batch to register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// What is stored if it is new.
    pub tracked: Tracked,
    /// The first check, if there has been one: stored with it, if it is new.
    pub first_look: Option<Step>,
    /// What the user gave, for a batch that is known already.
    pub user_fields: UserFields,
}

#[derive(Clone, Debug)]
pub struct Registered {
    /// Its row.
    pub pk: Pk,
    /// Whether it was new; a batch that had been untracked and is watched again is not.
    pub new: bool,
    /// As stored now.
    pub tracked: Tracked,
}

/// Registers one batch; one that is known takes what the user gave and nothing else.
pub(super) fn register(
    tx: &mut Tx<'_>,
    item: Registration,
    routes: &Routes,
) -> Result<Registered, StoreError> {
    if let Some((pk, mut tracked)) = row::find(tx, &item.tracked.key)? {
        give(tx, pk, &mut tracked, &item.user_fields)?;
        return Ok(Registered { pk, new: false, tracked });
    }
    let key = item.tracked.key.clone();
    let mut step = item.first_look.unwrap_or_else(|| Step::quiet(item.tracked));
    step.tracked.key = key;
    row::to_resolution(&mut step.tracked);
    step.tracked.cost = costs::of(&tx.prices, &step.tracked, None, &SpentByModel::new());
    let pk = row::insert(tx, &step.tracked)?;
    costs::count(tx, &step.tracked)?;
    tx.reschedule(pk, &step.tracked);
    follow(tx, pk, &step, &step.tracked, routes)?;
    Ok(Registered { pk, new: true, tracked: step.tracked })
}

/// Notes in the batch whose requests `tracked` repeats that it does; a submission that waited for that is replaced.
pub(super) fn link(tx: &Tx<'_>, tracked: &Tracked) -> Result<(), StoreError> {
    let Lineage { resubmits: Some(first), submission, .. } = &tracked.lineage else { return Ok(()) };
    let by: Option<Option<String>> = tx.row(
        "SELECT resubmitted_by FROM batches WHERE provider = ?1 AND id = ?2",
        (&tracked.key.provider, first),
        |row| row.get("resubmitted_by"),
    )?;
    let Some(by) = by else { return Ok(()) };
    let mut by: Vec<String> = by.and_then(|ids| serde_json::from_str(&ids).ok()).unwrap_or_default();
    by.retain(|id| *id != tracked.key.id && Some(id) != submission.as_ref());
    by.push(tracked.key.id.clone());
    tx.execute(
        "UPDATE batches SET resubmitted_by = ?3 WHERE provider = ?1 AND id = ?2",
        (&tracked.key.provider, first, json(&by)?),
    )?;
    Ok(())
}

/// Writes what a check means for a batch. Returns how many events were new.
pub(super) fn record(tx: &mut Tx<'_>, pk: Pk, step: &Step, routes: &Routes) -> Result<usize, StoreError> {
    let key = &step.tracked.key;
    // The row may be gone, and its number another batch's.
    let Some((_, before)) = row::load(tx, pk)?.filter(|(_, before)| before.key == *key) else {
        tx.take_off_schedule(pk, key.provider.clone());
        return Ok(0);
    };
    let mut step = merged(step, &before, tx.now);
    let cost = costs::of_row(tx, pk, &step.tracked, before.cost.as_ref())?;
    if step.tracked.cost != cost {
        step.to_mut().tracked.cost = cost;
    }
    // What users change meanwhile stays: the events are made, and the webhooks chosen, by what is stored.
    let place = Rescheduled::of(pk, &before);
    let Some(stored) = row::update(tx, pk, before, &step.tracked)? else {
        tx.after_commit.rescheduled.push(place);
        return Ok(0);
    };
    costs::count(tx, &stored)?;
    tx.supersede(pk);
    tx.reschedule(pk, &stored);
    follow(tx, pk, &step, &stored, routes)
}

/// What a check means for the batch as it is `stored` now: others may have written to it since the check began, and
/// what they wrote stays.
fn merged<'s>(step: &'s Step, stored: &Tracked, now: Timestamp) -> Cow<'s, Step> {
    let Tracked { warned, deadline, batch, lost_since, .. } = &step.tracked;
    // A provider that tells zeros does not count: what its results told stays.
    let tells_none = batch.usage.is_none_or(|usage| usage == Usage::default());
    let usage = tells_none && stored.batch.usage.is_some() && stored.batch.usage != batch.usage;
    // Tracked again since the check began.
    let lost_anew =
        lost_since.is_some() && stored.lost_since.is_some_and(|stored| *lost_since < Some(stored));
    if !usage && !lost_anew && stored.warned.is_subset(warned) && stored.deadline == *deadline {
        return Cow::Borrowed(step);
    }
    let mut step = step.clone();
    let tracked = &mut step.tracked;
    if usage {
        tracked.batch.usage.clone_from(&stored.batch.usage);
    }
    if lost_anew {
        tracked.lost_since = stored.lost_since;
    }
    tracked.warned.extend(stored.warned.iter().cloned());
    if tracked.deadline != stored.deadline {
        // What was planned and told by the other deadline is thought over at once.
        finding::forget_overdue(tracked, stored);
        step.events.retain(|event| event.kind() != EventType::BatchOverdue);
        tracked.deadline = stored.deadline;
        tracked.next_poll_at = tracked.next_poll_at.map(|_| now);
    }
    Cow::Owned(step)
}

/// Writes what follows from a step whose batch is `stored` now.
fn follow(
    tx: &mut Tx<'_>,
    pk: Pk,
    step: &Step,
    stored: &Tracked,
    routes: &Routes,
) -> Result<usize, StoreError> {
    // A submission that became no batch teaches nothing, and has no results.
    let is_batch = !is_submission(&stored.key.id);
    if is_batch {
        expiring::plan(tx, pk, stored)?;
    }
    if let Some(transition) = &step.transition {
        insert_transition(tx, pk, transition)?;
        if is_batch {
            history::learn(tx, &stored.key, &stored.batch)?;
        }
    }
    let mut recorded = 0;
    for event in &step.events {
        let draft = event.draft_of_check(stored, step.usual);
        recorded += usize::from(telling::record(tx, &draft, Some((pk, stored)), routes)?);
    }
    if is_batch {
        downloads::want(tx, pk, &step.events)?;
    }
    Ok(recorded)
}

/// What a second `track` changes of a known batch.
fn give(tx: &mut Tx<'_>, pk: Pk, tracked: &mut Tracked, user_fields: &UserFields) -> Result<(), StoreError> {
    let deadline = tracked.deadline;
    if *user_fields != UserFields::default() {
        user_fields.apply(tracked);
        tx.execute(
            "UPDATE batches SET name = :name, labels = :labels, notify = :notify, deadline = :deadline
             WHERE pk = :pk",
            named! {
                ":pk": pk,
                ":name": tracked.name,
                ":labels": json(&tracked.labels)?,
                ":notify": json(&tracked.notify)?,
                ":deadline": tracked.deadline.map(ms),
            },
        )?;
    }
    if tracked.untracked_at.is_some() {
        tracked.untracked_at = None;
        // A finished record gets no richer, and its provider may have forgotten it by now.
        let over = tracked.batch.status.is_terminal() && tracked.settled;
        tracked.next_poll_at = (!over).then_some(tx.now);
        tx.execute("UPDATE batches SET untracked_at = NULL WHERE pk = ?1", [pk])?;
        checks::place(tx, pk, tracked)?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    } else if tracked.lost_since.is_some() {
        // Somebody knows of it: it is looked for at once, and as long as one that was lost just now.
        tracked.lost_since = Some(tx.now);
        tracked.next_poll_at = Some(tx.now);
        tx.execute("UPDATE batches SET lost_since = ?2 WHERE pk = ?1", (pk, ms(tx.now)))?;
        checks::place(tx, pk, tracked)?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    } else if tracked.deadline != deadline && tracked.next_poll_at.is_some() {
        // Planned by the other deadline.
        tracked.next_poll_at = Some(tx.now);
        tx.execute("UPDATE checks SET next_poll_at = ?2 WHERE batch = ?1", (pk, ms(tx.now)))?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    }
    Ok(())
}

/// Two checks that saw the same change at once leave one transition.
fn insert_transition(tx: &Tx<'_>, pk: Pk, transition: &Transition) -> Result<(), StoreError> {
    tx.execute("INSERT INTO transitions (batch, from_status, to_status, provider_status, occurred_at, observed_at)
         SELECT :batch, :from_status, :to_status, :provider_status, :occurred_at, :observed_at
         WHERE :to_status IS DISTINCT FROM (SELECT to_status FROM transitions WHERE batch = :batch ORDER BY pk DESC LIMIT 1)", named! {
        ":batch": pk,
        ":from_status": transition.from.map(Status::as_str),
        ":to_status": transition.to.as_str(),
        ":provider_status": transition.provider_status,
        ":occurred_at": transition.occurred_at.map(ms),
        ":observed_at": ms(transition.observed_at),
    })?;
    Ok(())
}
