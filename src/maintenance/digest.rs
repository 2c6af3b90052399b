//! Digests: put together from the state, and owed to exactly the webhooks that they name.

use super::housekeeping::Housekeeping;
use super::scheduled::digest_name;
use crate::domain::digest::{Digest, MAX_ENTRIES};
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use crate::domain::route::{Route, Routes};
use crate::store::StoreError;
use crate::store::jobs::JobRun;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Housekeeping {
    /// Records the digest called `name`, whose turn came `at`, about what happened since `since`; `None`: it is new,
    /// and only its beginning is noted.
    pub(super) async fn digest(
        &self,
        name: &str,
        since: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let run = JobRun { name: digest_name(name), started_at: now, finished_at: now, error: None };
        let webhooks = (self.config)().digests.get(name).map(|digest| digest.webhooks.clone());
        let (Some(since), Some(webhooks)) = (since, webhooks) else {
            return self.store.set_job_run(run).await;
        };
        let mut digest = Digest::new(since, now);
        let mut after = None;
        loop {
            let page = self.store.ended_between(since, now, after).await?;
            let Some((pk, last)) = page.last() else { break };
            after = Some((last.status_since, *pk));
            for (_, batch) in &page {
                digest.ended(batch);
            }
        }
        let (running, count) = self.store.running(MAX_ENTRIES).await?;
        digest.running(&running, count);
        let (stuck, count) = self.store.stuck(now, MAX_ENTRIES).await?;
        digest.stuck(&stuck, count);
        let routes = routes_to(&webhooks, &self.engine.routes());
        self.store.record_digest(digest.draft(name, at), run, Arc::new(routes)).await?;
        tracing::info!(job = digest_name(name), "recorded the digest {name}; it is sent to its webhooks");
        Ok(())
    }
}

/// Routes for a digest alone, to these webhooks and no other, whatever else they ask for.
fn routes_to(webhooks: &BTreeSet<String>, in_force: &Routes) -> Routes {
    let routes = in_force.0.iter().filter(|route| webhooks.contains(&route.webhook));
    Routes(
        routes
            .map(|route| Route {
                events: BTreeSet::from([EventType::Digest]),
                severity: Severity::Info,
                providers: BTreeSet::new(),
                labels: BTreeMap::new(),
                on_request: false,
                ..route.clone()
            })
            .collect(),
    )
}
