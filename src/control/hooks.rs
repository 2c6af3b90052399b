//! The services' own webhooks: verified, read for the id of a batch, and never trusted (`docs/contract.md#inbound-webhooks`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::resolve::is_an_id;
use super::service::Service;
use crate::domain::tracked::{BatchKey, Origin};
use crate::domain::user_fields::UserFields;
use crate::provider::bounds::bounded;
use crate::provider::hook::Hook;
use crate::provider::salvage;
use crate::store::recording::Registration;
use crate::webhook::signature::{self, BadSignature};
use bytes::Bytes;
use http::HeaderMap;

impl Service {
    /// Takes a message that a service has sent: the batch that it names is checked, and tracked if it is not yet.
    pub async fn hook(&self, provider: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
        let live = self.live()?;
        let inbound = live.hooks.of(provider).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("no webhooks of `{provider}` are accepted here"))
                .hint("set `webhook_secret` in the provider's table, then `batchd reload`")
        })?;
        let now = self.clock.now();
        if let Err(problem) = signature::verify(std::slice::from_ref(&inbound.key), headers, body, now) {
            if live.hooks.refused(provider) {
                tracing::warn!(provider, "a message to /hooks/{provider} is refused: {problem}");
            }
            return Err(refusal(problem));
        }
        live.hooks.accepted(provider);
        let id = headers.get(signature::ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let message = (provider.to_owned(), inbound.known.scrub(id));
        if !live.hooks.note(message.clone(), now) {
            tracing::debug!(provider, message = message.1, "came in before: ignored");
            return Ok(());
        }
        let body = inbound.known.body(Bytes::copy_from_slice(body), false);
        let done = self.follow_hint(provider, inbound.hook, &body).await;
        if done.is_err() {
            live.hooks.forget(&message);
        }
        done
    }

    async fn follow_hint(&self, provider: &str, hook: Hook, body: &[u8]) -> Result<(), ApiError> {
        let live = self.live()?;
        let payload = salvage::object(&bounded(body, None))
            .ok_or_else(|| ApiError::invalid("the message is not a JSON object").param("body"))?;
        let Some(id) = (hook.batch_id)(&payload) else {
            tracing::debug!(provider, "a message that is not about a batch: ignored");
            return Ok(());
        };
        let key =
            BatchKey { provider: provider.to_owned(), id: live.engine.canonical_id(provider, id.trim()) };
        if !is_an_id(&key.id) {
            return Err(ApiError::invalid("the message names no batch").param("body"));
        }
        if let Some((pk, _)) = self.store.get(key.clone()).await? {
            tracing::debug!(provider, batch = key.id, "its service sent news of it: due now");
            live.engine.nudge(provider, pk);
            return Ok(());
        }
        // Due at once; what the message says of it is not used.
        let unseen = live.engine.unseen(&key, Origin::Found, self.clock.now());
        let tracked = unseen.map_err(|error| ApiError::from_provider(error, &key.id))?;
        let registration = Registration { tracked, first_look: None, user_fields: UserFields::default() };
        self.store.register(vec![registration], live.routes()).await?;
        tracing::info!(provider, batch = key.id, "tracking {key}, which its service has named");
        Ok(())
    }
}

fn refusal(problem: BadSignature) -> ApiError {
    match problem {
        BadSignature::Missing(_) | BadSignature::Timestamp => ApiError::invalid(problem.to_string()),
        BadSignature::Age | BadSignature::Mismatch => {
            ApiError::new(ErrorCode::Unauthorized, problem.to_string())
                .hint("check that `webhook_secret` belongs to this endpoint, and that both clocks are right")
        }
    }
}
