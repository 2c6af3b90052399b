//! Completes calls that need more than a fixed key: signatures and tokens that expire, added as each is sent.
//!
//! An adapter says of each call which [`Grant`] it needs, and of itself whose [`Issuer`] gives them out.
//! [`Authorized`] is a [`Transport`] around another: whatever goes through it is complete when it leaves, so that polls,
//! requests by hand, uploads and downloads have one way out and none of them knows of credentials. A call without a grant
//! (its key is in it already, or its address is signed) passes as it is.

mod aws;
mod cache;
mod google;
mod routes;

pub use aws::{AwsSource, S3};
pub use google::GoogleSource;
pub use routes::CredentialRoutes;

use super::call::{Answer, Call, Grant, Incoming, Outgoing};
use super::failure::Failure;
use super::transport::Transport;
use crate::clock::Clock;
use crate::config::Env;
use futures_util::future::BoxFuture;
use http::StatusCode;
use std::sync::Arc;

/// Who gives out what completes an account's calls.
#[derive(Clone, Debug)]
pub enum Issuer {
    /// AWS: calls are signed (`docs/providers/bedrock.md`).
    Aws(AwsSource),
    /// Google: calls carry an OAuth access token (`docs/providers/vertex.md`).
    Google(GoogleSource),
}

/// A transport that completes what it sends.
pub struct Authorized {
    inner: Arc<dyn Transport>,
    authority: Authority,
}

enum Authority {
    Aws(aws::Signer),
    Google(google::Tokens),
}

impl std::fmt::Debug for Authorized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorized")
    }
}

impl Authorized {
    /// Around `inner`, with what `issuer` gives.
    pub fn new(
        inner: Arc<dyn Transport>,
        issuer: Issuer,
        routes: CredentialRoutes,
        clock: Clock,
        env: &Env,
    ) -> Self {
        let authority = match issuer {
            Issuer::Aws(source) => Authority::Aws(aws::Signer::new(source, routes, clock)),
            Issuer::Google(source) => Authority::Google(google::Tokens::new(source, routes, clock, env)),
        };
        Self { inner, authority }
    }

    /// `call` as it may leave.
    async fn complete(&self, call: Call) -> Result<Call, Failure> {
        match (call.grant().cloned(), &self.authority) {
            (None, _) => Ok(call),
            (Some(Grant::Aws { service, region }), Authority::Aws(signer)) => {
                signer.sign(call, service, &region).await
            }
            (Some(Grant::Google), Authority::Google(tokens)) => tokens.bear(call).await,
            (Some(_), _) => {
                Err(Failure::BadRequest("it needs a credential that this account does not have".to_owned()))
            }
        }
    }

    /// Whether what was refused deserves a second try: the credential was not brand-new, and is gone now.
    async fn renews(&self) -> bool {
        match &self.authority {
            Authority::Aws(signer) => signer.doubt().await,
            Authority::Google(tokens) => tokens.doubt().await,
        }
    }
}

impl Transport for Authorized {
    /// Completes and sends `call`; once more with new credentials if they are refused and were not new: a key may have
    /// been replaced, and a token revoked, before its time.
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            if call.grant().is_none() {
                return self.inner.send(call).await;
            }
            let again = call.clone();
            let answer = self.inner.send(self.complete(call).await?).await?;
            if is_refused(answer.status) && self.renews().await {
                return self.inner.send(self.complete(again).await?).await;
            }
            Ok(answer)
        })
    }

    /// Completes and sends `call`, once: its body is read only once.
    fn upload(&self, call: Call, body: Outgoing) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let is_granted = call.grant().is_some();
            let answer = self.inner.upload(self.complete(call).await?, body).await?;
            if is_granted && is_refused(answer.status) {
                // So that a second try by whoever asked has others.
                self.renews().await;
            }
            Ok(answer)
        })
    }

    /// As [`Authorized::send`].
    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        Box::pin(async move {
            if call.grant().is_none() {
                return self.inner.open(call).await;
            }
            let again = call.clone();
            let incoming = self.inner.open(self.complete(call).await?).await?;
            if is_refused(incoming.status) && self.renews().await {
                return self.inner.open(self.complete(again).await?).await;
            }
            Ok(incoming)
        })
    }
}

fn is_refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
