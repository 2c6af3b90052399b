//! What is learnt of how long batches take: estimates by class, made anew when their classes end or their time has passed.

use crate::clock::Clock;
use crate::domain::hazard::Estimate;
use crate::domain::history::Class;
use crate::domain::time::has_passed;
use crate::logging::Recurring;
use crate::store::history::History;
use crate::store::{Store, StoreError};
use crate::sync::lock;
use crate::tasks::Pulse;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The estimates of the classes that have live batches, or had some lately.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    estimates: BTreeMap<Class, Entry>,
    /// Asked for and not there.
    wanted: BTreeSet<Class>,
    /// Providers whose batches have ended since their classes were learnt.
    stale: BTreeSet<String>,
    learnt_at: BTreeMap<String, Timestamp>,
}

#[derive(Debug)]
struct Entry {
    estimate: Arc<Estimate>,
    asked_at: Timestamp,
}

impl Estimates {
    /// What is learnt of `class`, or until that is there of the next coarser one; `None`: nothing.
    pub(crate) fn about(&self, class: &Class, now: Timestamp) -> Option<Arc<Estimate>> {
        let mut state = self.state();
        if let Some(entry) = state.estimates.get_mut(class) {
            entry.asked_at = entry.asked_at.max(now);
            return Some(entry.estimate.clone()).filter(|estimate| estimate.mostly().is_some());
        }
        let coarser = class.line().find_map(|class| state.estimates.get(&class)).map(|entry| &entry.estimate);
        let coarser = coarser.filter(|estimate| estimate.mostly().is_some()).cloned();
        if state.wanted.insert(class.clone()) {
            self.changed.notify_one();
        }
        coarser
    }

    /// Learns all that is known of a provider's batches, before the first of them is polled.
    pub(crate) async fn begin(&self, store: &Store, provider: &str, now: Timestamp) {
        if let Err(error) = self.learn(store, provider, true, now).await {
            self.invalidate(provider);
            tracing::warn!(provider, %error, "cannot read from the state how long earlier batches took; trying again");
        }
    }

    /// A batch of the provider has ended, or its list has told of some.
    pub(crate) fn invalidate(&self, provider: &str) {
        let mut state = self.state();
        if !state.stale.contains(provider) {
            state.stale.insert(provider.to_owned());
            self.changed.notify_one();
        }
    }

    /// Keeps the estimates up to date.
    pub(crate) async fn keep(
        self: Arc<Self>,
        store: Store,
        clock: Clock,
        stopping: CancellationToken,
        pulse: Pulse,
    ) {
        let mut reading = Recurring::new("read from the state how long earlier batches took");
        loop {
            pulse.beat();
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = clock.now();
            let due = self.due(now);
            for provider in &due {
                if reading.note_of(provider, self.learn(&store, provider, false, now).await).is_none() {
                    self.invalidate(provider);
                }
                tokio::task::yield_now().await;
            }
            // What ends in a burst is learnt from together, and not at every end.
            let pause = if due.is_empty() { Duration::ZERO } else { PAUSE };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = &mut changed => {}
                () = tokio::time::sleep(MAX_SLEEP) => {}
            }
        }
    }

    /// The providers of which something is to be learnt.
    fn due(&self, now: Timestamp) -> BTreeSet<String> {
        let mut state = self.state();
        state.estimates.retain(|_, entry| !has_passed(FORGOTTEN_AFTER, entry.asked_at, now));
        let mut due = std::mem::take(&mut state.stale);
        due.extend(state.wanted.iter().map(|class| class.provider.clone()));
        // Those that still run have run longer by now.
        let old = |provider: &String| {
            state.learnt_at.get(provider).is_none_or(|at| has_passed(OLD_AFTER, *at, now))
        };
        due.extend(state.estimates.keys().map(|class| class.provider.clone()).filter(old));
        due
    }

    /// Learns anew what is asked for of a provider, or `all` that is known.
    async fn learn(
        &self,
        store: &Store,
        provider: &str,
        all: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let history = store.history(provider.to_owned(), now).await?;
        let classes: BTreeSet<Class> = {
            let mut state = self.state();
            let own = |class: &&Class| class.provider == provider;
            let asked: Vec<Class> =
                state.wanted.iter().chain(state.estimates.keys()).filter(own).cloned().collect();
            state.wanted.retain(|class| class.provider != provider);
            let known = all.then(|| history.classes().cloned()).into_iter().flatten();
            asked.into_iter().chain(known).flat_map(|class| class.line().collect::<Vec<_>>()).collect()
        };
        let estimates = learnt(&history, classes);
        let mut state = self.state();
        state.learnt_at.insert(provider.to_owned(), now);
        for (class, estimate) in estimates {
            let asked_at = state.estimates.get(&class).map_or(now, |entry| entry.asked_at);
            state.estimates.insert(class, Entry { estimate, asked_at });
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the value whole.
        lock(&self.state)
    }
}

/// An estimate of each of `classes`, whose coarser ones are among them.
fn learnt(history: &History, classes: BTreeSet<Class>) -> BTreeMap<Class, Arc<Estimate>> {
    let mut estimates: BTreeMap<Class, Arc<Estimate>> = BTreeMap::new();
    let mut classes: Vec<Class> = classes.into_iter().collect();
    classes.sort_by_key(|class| class.line().count());
    for class in classes {
        let coarser = class.coarser().and_then(|coarser| estimates.get(&coarser).cloned());
        let spans = history.spans(&class);
        let estimate = Arc::new(Estimate::learn(class.clone(), &spans, coarser));
        estimates.insert(class, estimate);
    }
    estimates
}

/// At least so long is between two times that something is learnt.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_SLEEP: Duration = Duration::from_secs(15);
/// What runs has run longer after this.
const OLD_AFTER: Duration = Duration::from_mins(10);
/// A class that nobody asks for makes room.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
