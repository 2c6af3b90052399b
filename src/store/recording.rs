//! What a registration or a check of a batch writes: its row, its transitions, its events and what hangs on them.

use super::column::{Pk, json, ms};
use super::error::StoreError;
use super::operations::Many;
use super::rescheduled::Rescheduled;
use super::row::Plans;
use super::telling::Telling;
use super::transaction::Tx;
use super::value::named;
use super::{checks, costs, downloads, history, row, telling};
use crate::domain::batch::Usage;
use crate::domain::cost::SpentByModel;
use crate::domain::event::EventType;
use crate::domain::finding;
use crate::domain::route::Routes;
use crate::domain::tracked::{Lineage, Tracked, Transition, is_submission};
use crate::domain::transition::Step;
use crate::domain::user_fields::UserFields;
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    let registered = register_all(tx, vec![item], routes)?.pop();
    registered.ok_or_else(|| StoreError::Internal("nothing was registered".to_owned()))
}

/// The same of many, in the order of `items`, as if one came after the other.
pub(super) fn register_all(
    tx: &mut Tx<'_>,
    items: Vec<Registration>,
    routes: &Routes,
) -> Result<Vec<Registered>, StoreError> {
    let mut registered = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        // What comes a second time is known by then.
        let mut keys = BTreeSet::new();
        let mut some = Vec::new();
        while let Some(item) =
            items.next_if(|item| some.len() < REGISTERED_AT_ONCE && keys.insert(item.tracked.key.clone()))
        {
            some.push(item);
        }
        registered.extend(register_some(tx, some, routes)?);
    }
    Ok(registered)
}

/// The same of batches of which each is there once.
fn register_some(
    tx: &mut Tx<'_>,
    items: Vec<Registration>,
    routes: &Routes,
) -> Result<Vec<Registered>, StoreError> {
    let mut known = row::find_all(tx, items.iter().map(|item| &item.tracked.key))?;
    let mut registered = Vec::with_capacity(items.len());
    let mut steps = Vec::new();
    for item in items {
        let key = item.tracked.key.clone();
        if let Some((pk, mut tracked)) = known.remove(&key) {
            give(tx, pk, &mut tracked, &item.user_fields)?;
            registered.push(Some(Registered { pk, new: false, tracked }));
            continue;
        }
        let mut step = item.first_look.unwrap_or_else(|| Step::quiet(item.tracked));
        step.tracked.key = key;
        row::to_resolution(&mut step.tracked);
        step.tracked.cost = costs::of(&tx.prices, &step.tracked, None, &SpentByModel::new());
        registered.push(None);
        steps.push(step);
    }
    let planned: Vec<_> =
        steps.iter().map(|step| (&step.tracked, plans(&step.tracked, step, tx.now))).collect();
    let pks = row::insert_all(tx, &planned)?;
    let mut followed = Vec::with_capacity(steps.len());
    costs::count(tx, steps.iter().map(|step| &step.tracked))?;
    for (pk, step) in pks.iter().zip(&steps) {
        tx.reschedule(*pk, &step.tracked);
        followed.push(Followed { pk: *pk, step, stored: &step.tracked, routes });
    }
    follow(tx, &followed)?;
    let mut new =
        pks.into_iter().zip(steps).map(|(pk, step)| Registered { pk, new: true, tracked: step.tracked });
    Ok(registered.into_iter().filter_map(|known| known.or_else(|| new.next())).collect())
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
    tx.send(
        "UPDATE batches SET resubmitted_by = ?3 WHERE provider = ?1 AND id = ?2",
        (&tracked.key.provider, first, json(&by)?),
    )?;
    Ok(())
}

/// A check of a batch that brought news.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) pk: Pk,
    pub(super) step: Step,
    pub(super) routes: Arc<Routes>,
}

impl Many for Check {
    type Answer = usize;

    fn key(&self) -> Option<Pk> {
        Some(self.pk)
    }

    fn all(tx: &mut Tx<'_>, checks: &[Self]) -> Result<Vec<usize>, StoreError> {
        record(tx, checks)
    }
}

/// Writes what checks mean for their batches, each of which is there once. Returns how many events of each were new.
pub(super) fn record(tx: &mut Tx<'_>, checks: &[Check]) -> Result<Vec<usize>, StoreError> {
    let pks: Vec<Pk> = checks.iter().map(|check| check.pk).collect();
    let mut rows = costs::load_spent(tx, &pks)?;
    let mut written = Vec::with_capacity(checks.len());
    for (at, Check { pk, step, routes }) in checks.iter().enumerate() {
        let key = &step.tracked.key;
        // The row may be gone, and its number another batch's.
        let Some((before, spent)) = rows.remove(pk).filter(|(before, _)| before.key == *key) else {
            tx.take_off_schedule(*pk, key.provider.clone());
            continue;
        };
        let mut step = merged(step, &before, tx.now);
        let cost = costs::of_check(&tx.prices, &step.tracked, before.cost.as_ref(), &spent);
        if step.tracked.cost != cost {
            step.to_mut().tracked.cost = cost;
        }
        // What users change meanwhile stays: the events are made, and the webhooks chosen, by what is stored.
        let place = Rescheduled::of(*pk, &before);
        match row::updated(before, &step.tracked) {
            Some(stored) => written.push((at, *pk, step, stored, routes)),
            None => tx.after_commit.rescheduled.push(place),
        }
    }
    let planned: Vec<_> =
        written.iter().map(|(_, pk, step, stored, _)| (*pk, stored, plans(stored, step, tx.now))).collect();
    row::update_all(tx, &planned)?;
    let mut followed = Vec::with_capacity(written.len());
    costs::count(tx, written.iter().map(|(_, _, _, stored, _)| stored))?;
    for (_, pk, step, stored, routes) in &written {
        tx.supersede(*pk);
        tx.reschedule(*pk, stored);
        followed.push(Followed { pk: *pk, step, stored, routes });
    }
    let mut recorded = vec![0; checks.len()];
    for ((at, ..), count) in written.iter().zip(follow(tx, &followed)?) {
        recorded[*at] = count;
    }
    Ok(recorded)
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

/// What is planned by a step whose batch is `stored` now. A submission that became no batch has no results.
fn plans(stored: &Tracked, step: &Step, now: Timestamp) -> Plans {
    if is_submission(&stored.key.id) {
        return Plans::default();
    }
    Plans {
        is_over: stored.batch.status.is_terminal(),
        warn_at: finding::results_warn_at(stored),
        download_at: downloads::are_wanted(&step.events).then_some(now),
    }
}

/// A step whose batch is `stored` now.
struct Followed<'s> {
    pk: Pk,
    step: &'s Step,
    stored: &'s Tracked,
    routes: &'s Routes,
}

/// Writes what follows from steps. Returns how many events of each were new.
fn follow(tx: &mut Tx<'_>, steps: &[Followed<'_>]) -> Result<Vec<usize>, StoreError> {
    let transitions = steps.iter().filter_map(|of| Some((of.pk, of.step.transition.as_ref()?)));
    insert_transitions(tx, transitions)?;
    // A submission that became no batch teaches nothing.
    let taught = steps.iter().filter(|of| of.step.transition.is_some() && !is_submission(&of.stored.key.id));
    history::learn_all(tx, taught.map(|of| (&of.stored.key, &of.stored.batch)))?;
    let drafts: Vec<(usize, Telling<'_>)> = steps
        .iter()
        .enumerate()
        .flat_map(|(at, of)| {
            of.step.events.iter().map(move |event| {
                let draft = event.draft_of_check(of.stored, of.step.usual);
                (at, Telling { draft: Cow::Owned(draft), about: Some((of.pk, of.stored)), routes: of.routes })
            })
        })
        .collect();
    let (of, drafts): (Vec<usize>, Vec<Telling<'_>>) = drafts.into_iter().unzip();
    let mut recorded = vec![0; steps.len()];
    for (at, is_new) in of.into_iter().zip(telling::record_all(tx, &drafts)?) {
        recorded[at] += usize::from(is_new);
    }
    Ok(recorded)
}

/// What a second `track` changes of a known batch.
fn give(tx: &mut Tx<'_>, pk: Pk, tracked: &mut Tracked, user_fields: &UserFields) -> Result<(), StoreError> {
    let deadline = tracked.deadline;
    if *user_fields != UserFields::default() {
        user_fields.apply(tracked);
        tx.send(
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
        tx.send("UPDATE batches SET untracked_at = NULL WHERE pk = ?1", [pk])?;
        checks::place(tx, pk, tracked)?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    } else if tracked.lost_since.is_some() {
        // Somebody knows of it: it is looked for at once, and as long as one that was lost just now.
        tracked.lost_since = Some(tx.now);
        tracked.next_poll_at = Some(tx.now);
        tx.send("UPDATE batches SET lost_since = ?2 WHERE pk = ?1", (pk, ms(tx.now)))?;
        checks::place(tx, pk, tracked)?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    } else if tracked.deadline != deadline && tracked.next_poll_at.is_some() {
        // Planned by the other deadline.
        tracked.next_poll_at = Some(tx.now);
        tx.send("UPDATE checks SET next_poll_at = ?2 WHERE batch = ?1", (pk, ms(tx.now)))?;
        tx.supersede(pk);
        tx.reschedule(pk, tracked);
    }
    Ok(())
}

/// Two checks that saw the same change at once leave one transition.
fn insert_transitions<'t>(
    tx: &Tx<'_>,
    transitions: impl Iterator<Item = (Pk, &'t Transition)>,
) -> Result<(), StoreError> {
    let given = transitions.map(|(pk, transition)| {
        vec![
            pk.into(),
            transition.from.map(|from| from.as_str().to_owned()).into(),
            transition.to.as_str().to_owned().into(),
            transition.provider_status.clone().into(),
            transition.occurred_at.map(ms).into(),
            ms(transition.observed_at).into(),
        ]
    });
    tx.set(
        "INSERT INTO transitions (batch, from_status, to_status, provider_status, occurred_at, observed_at)
         SELECT given.batch, given.from_status, given.to_status, given.provider_status, given.occurred_at, given.observed_at
         FROM given(batch INT, from_status TEXT, to_status TEXT, provider_status TEXT, occurred_at INT, observed_at INT)
         WHERE given.to_status IS DISTINCT FROM (
           SELECT to_status FROM transitions WHERE transitions.batch = given.batch ORDER BY pk DESC LIMIT 1)",
        &given.collect(),
    )
}

/// Batches that are registered by one statement.
const REGISTERED_AT_ONCE: usize = 1000;
