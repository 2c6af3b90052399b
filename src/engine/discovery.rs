//! Discovery: batches that nobody registered, found in their provider's list (`docs/contract.md#commands` and `docs/contract.md#webhooks`).

use super::{Engine, ProviderError};
use crate::domain::discovery::{self, Find, Reading};
use crate::domain::sighting::Sighting;
use crate::domain::time::earlier;
use crate::domain::tracked::{BatchKey, Origin, Tracked};
use crate::domain::user_fields::UserFields;
use crate::domain::walk::Onward;
use crate::provider::{Page, PageRequest};
use crate::store::discovery::Discovered;
use crate::store::recording::{Registered, Registration};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

impl Engine {
    /// One round at one provider: tracks what is new in its list. Returns how many batches that were.
    ///
    /// The list is read page by page, and each page is stored before the next is asked for; a round that breaks off is
    /// had again from the beginning, and finds nothing twice.
    pub async fn discover(&self, provider: &str) -> Result<u64, ProviderError> {
        let store = &self.shared.store;
        let began_at = self.shared.clock.now();
        let searched = store.searched(provider.to_owned()).await?;
        let floor = searched.floor(began_at);
        let mut reading = Reading::back_to(floor);
        let mut cursor = None;
        let mut found = 0;
        let mut read_to = None;
        loop {
            let page = self.page_of(provider, cursor).await?;
            let onward = reading.note(&page.sightings, page.next.as_deref());
            read_to = read_to.max(discovery::read_to(&page.sightings, began_at));
            let last = onward != Onward::Read;
            let ids = page.sightings.iter().map(|entry| entry.id.clone()).collect();
            let mut unknown = store.unknown_of(provider.to_owned(), ids).await?;
            let mut brought = Discovered {
                began_at,
                read_to,
                last,
                forget_before: earlier(floor, FORGOTTEN_AFTER),
                ..Discovered::default()
            };
            for entry in &page.sightings {
                // An id that stands there twice is one batch.
                if !unknown.remove(&entry.id) {
                    continue;
                }
                match searched.judge(entry, began_at) {
                    Find::New => brought.new.push(self.listed_registration(provider, entry, None, began_at)?),
                    Find::OldNews => brought.old_news.push((entry.id.clone(), entry.created_by())),
                    Find::TooOld => {}
                }
            }
            let registered = store.discovered(provider.to_owned(), brought, self.shared.routes()).await?;
            self.log_ends(&registered);
            for batch in registered.iter().filter(|batch| batch.new) {
                found += 1;
                let key = &batch.tracked.key;
                tracing::info!(provider, batch = key.id, status = %batch.tracked.batch.status, "found {key} in the provider's list; it is tracked now");
            }
            if onward == Onward::NoProgress {
                tracing::warn!(provider, "{NO_PROGRESS}");
            }
            if last {
                return Ok(found);
            }
            if found >= MAX_FOUND {
                tracing::warn!(
                    provider,
                    "{found} batches are new in the provider's list; a round ends with so many, the next one goes on"
                );
                return Ok(found);
            }
            cursor = page.next;
        }
    }

    /// What the provider's list has, newest first, back to what was created at `since`. Changes nothing.
    pub async fn listed(&self, provider: &str, since: Timestamp) -> Result<Vec<Sighting>, ProviderError> {
        let mut reading = Reading::back_to(since);
        let mut cursor = None;
        let mut seen = BTreeSet::new();
        let mut listed = Vec::new();
        let mut size = 0;
        loop {
            let page = self.page_of(provider, cursor).await?;
            let mut onward = reading.note(&page.sightings, page.next.as_deref());
            size += page.sightings.iter().map(Sighting::size).sum::<usize>();
            if onward == Onward::Read && size > MAX_LISTED {
                onward = Onward::NoProgress;
            }
            let young = |entry: &Sighting| entry.created_by().is_none_or(|at| at >= since.as_second());
            listed.extend(
                page.sightings.into_iter().filter(|entry| young(entry) && seen.insert(entry.id.clone())),
            );
            cursor = page.next;
            if onward == Onward::NoProgress {
                tracing::warn!(provider, "{NO_PROGRESS}");
            }
            if onward != Onward::Read {
                listed.sort_by_key(|entry| std::cmp::Reverse(entry.created_by()));
                return Ok(listed);
            }
        }
    }

    /// Tracks entries of a list that a user asked for.
    pub async fn track_listed(
        &self,
        provider: &str,
        entries: &[Sighting],
        owner: Option<&str>,
    ) -> Result<Vec<Registered>, ProviderError> {
        let now = self.shared.clock.now();
        let registrations = entries
            .iter()
            .map(|entry| self.listed_registration(provider, entry, owner, now))
            .collect::<Result<_, ProviderError>>()?;
        let registered = self.shared.store.register(registrations, self.shared.routes()).await?;
        self.log_ends(&registered);
        Ok(registered)
    }

    /// A batch as it is before it was first checked.
    pub fn unseen(&self, key: &BatchKey, origin: Origin, now: Timestamp) -> Result<Tracked, ProviderError> {
        let about = self.describe(&key.provider, &key.id)?;
        let mut tracked = Tracked::new(key.clone(), about.kind, about.endpoint, origin, now);
        tracked.console_url = about.console_url;
        Ok(tracked)
    }

    /// An entry of the list as a new batch: what the list says of it is the first check, if that is all there is to say;
    /// otherwise it is due at once.
    fn listed_registration(
        &self,
        provider: &str,
        entry: &Sighting,
        owner: Option<&str>,
        now: Timestamp,
    ) -> Result<Registration, ProviderError> {
        let key = BatchKey { provider: provider.to_owned(), id: entry.id.clone() };
        let mut tracked = self.unseen(&key, Origin::Found, now)?;
        tracked.name.clone_from(&entry.display_name);
        tracked.owner = owner.map(str::to_owned);
        let complete = self.account(provider)?.adapter.listing().is_some_and(|listing| listing.complete);
        let first_look = if complete { Some(self.first_step(&tracked, entry)?) } else { None };
        Ok(Registration { tracked, first_look, user_fields: UserFields::default() })
    }

    async fn page_of(&self, provider: &str, cursor: Option<String>) -> Result<Page, ProviderError> {
        self.page(provider, &PageRequest { cursor, limit: PAGE_SIZE, ..PageRequest::default() }).await
    }
}

/// What is logged where a list does not end.
const NO_PROGRESS: &str =
    "the provider's list repeats itself, shows no batch or is too long; reading ends here";
/// How many batches are asked for with one page; an adapter keeps it within what its service allows.
const PAGE_SIZE: u32 = 100;
/// So many new batches are tracked in one round; it is read again from the beginning then, and goes on with the rest.
const MAX_FOUND: u64 = 10_000;
/// How much of a list is held for one request by hand, in bytes.
const MAX_LISTED: usize = 32 * 1024 * 1024;
/// Beyond what a round reads, in case the clock is set back.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(7 * 24);
