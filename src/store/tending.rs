//! What a daemon does about the others that share its state: what it hears of them, what it declares, how it leaves.

use super::error::StoreError;
use super::rescheduled::{self, NextCheck, Rescheduled};
use super::server::leases::{Letter, MemberView};
use super::sql::Sql;
use super::writer::{Core, Open};
use crate::domain::ownership::Scope;
use crate::sync::lock;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// Does what those owe each other that share the state: see `ServerWriter::tend`.
    pub(super) fn tend(&self) -> Result<(), StoreError> {
        let mut open = lock(&self.open);
        let Open::Server(server) = open.as_mut().ok_or(StoreError::Closed)? else { return Ok(()) };
        let tended = server.tend(self.clock.now())?;
        if tended.is_afresh {
            // Before anything is read anew.
            lock(&self.touches).waiting.clear();
        }
        let changes = match changes(&server.sql(), &tended.letters, self.clock.now()) {
            Ok(changes) => changes,
            Err(error) => {
                // They are gone from the server.
                server.keep(tended.letters);
                return Err(error);
            }
        };
        let mut webhooks = BTreeSet::new();
        for letter in tended.letters {
            match letter {
                Letter::Due(webhook) => {
                    webhooks.insert(webhook);
                }
                Letter::Switched(webhook) => {
                    lock(&self.switched).insert(webhook.clone());
                    webhooks.insert(webhook);
                }
                Letter::Checks(_) | Letter::Hurry(_) | Letter::Nudge(_) => {}
            }
        }
        drop(open);
        if !tended.members.is_empty() {
            *lock(&self.members) = tended.members;
        }
        let watcher = lock(&self.schedule).clone();
        watcher.tell(changes);
        self.events.send_if_modified(|newest| {
            let is_newer = tended.sequence > *newest;
            *newest = (*newest).max(tended.sequence);
            is_newer
        });
        for (webhook, watched) in &*lock(&self.webhooks) {
            let gained =
                tended.gained.iter().any(|scope| matches!(scope, Scope::Webhook(name) if name == webhook));
            if gained || webhooks.contains(webhook) {
                watched.send_modify(|count| *count += 1);
            }
        }
        Ok(())
    }

    pub(super) fn declare(&self, scopes: &BTreeMap<Scope, u64>) -> Result<(), StoreError> {
        if let Open::Server(server) = lock(&self.open).as_mut().ok_or(StoreError::Closed)? {
            server.declare(scopes, self.clock.now())?;
        }
        self.tend()
    }

    pub(super) fn step_down(&self, all: bool) -> Result<(), StoreError> {
        match lock(&self.open).as_mut().ok_or(StoreError::Closed)? {
            Open::File(_) => Ok(()),
            Open::Server(server) => server.step_down(all, self.clock.now()),
        }
    }

    /// Whether another daemon has switched the webhook on or off since this was asked last.
    pub(super) fn was_switched(&self, webhook: &str) -> bool {
        lock(&self.switched).remove(webhook)
    }

    pub(super) fn members(&self) -> Vec<MemberView> {
        lock(&self.members).clone()
    }
}

/// What these letters have changed on the schedule.
fn changes(sql: &Sql<'_>, letters: &[Letter], now: Timestamp) -> Result<Vec<Rescheduled>, StoreError> {
    let (mut batches, mut nudged) = (Vec::new(), Vec::new());
    let mut hurried = Vec::new();
    for letter in letters {
        match letter {
            Letter::Checks(pk) => batches.push(*pk),
            Letter::Nudge(pk) => nudged.push(*pk),
            Letter::Hurry(provider) => hurried.push(provider),
            Letter::Due(_) | Letter::Switched(_) => {}
        }
    }
    let mut changes = rescheduled::read(sql, &batches)?;
    for mut change in rescheduled::read(sql, &nudged)? {
        change.next = change.next.map(|next| NextCheck { at: now, ..next });
        changes.push(change);
    }
    for provider in hurried {
        changes.extend(rescheduled::at_once(sql, provider, now)?);
    }
    Ok(changes)
}
