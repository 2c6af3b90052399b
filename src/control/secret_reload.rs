//! Secrets that changed while the daemon ran: read again once a receiver refuses what was signed or sent with them.

use super::assembly::target;
use super::live::Live;
use crate::notify::Destination;
use crate::sync::lock;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Live {
    /// Reads the secrets of these webhooks again, whose receivers refuse what they are sent (401, 403), and uses
    /// those that have changed. A secret that cannot be read is kept as it was (`docs/delivery.md#secrets`).
    pub(super) fn renew(&self, refused: BTreeSet<String>) {
        let config = self.config();
        let changed: BTreeSet<String> = refused
            .into_iter()
            .filter(|name| {
                let Some(webhook) = config.webhooks.get(name) else { return false };
                let read =
                    target(webhook, config.api.pages(), |key, source| match source.resolve(self.env()) {
                        Ok(secret) => Some(secret),
                        Err(problem) => {
                            tracing::debug!(webhook = %name, "{key}: {problem}; the previous one is used");
                            None
                        }
                    });
                read.is_some_and(|target| {
                    self.dispatcher.secrets_digest(name) != Some(Destination::secrets_digest_of(&target))
                })
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        match self.assemble(&config) {
            Ok(assembly) => {
                let _all_at_once = lock(&self.swapping);
                if !Arc::ptr_eq(&config, &self.config()) {
                    // A reload has read them itself.
                    return;
                }
                let destinations = assembly.destinations.into_iter();
                for destination in destinations.filter(|destination| changed.contains(destination.name())) {
                    tracing::info!(
                        webhook = destination.name(),
                        "the secrets of webhook {} have changed; it now uses the new ones",
                        destination.name()
                    );
                    self.dispatcher.renew(destination);
                }
            }
            Err(problems) => {
                tracing::warn!("changed secrets are not used: {}", problems.join("; "));
            }
        }
    }
}
