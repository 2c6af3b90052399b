//! One account, ready to be asked: every request to a provider leaves through here.

use crate::config::ProviderConfig;
use crate::http::call::{Answer, Call, Incoming, Outgoing};
use crate::http::failure::Failure;
use crate::http::transport::Transport;
use crate::provider::Provider;
use crate::tasks::in_place;
use std::sync::Arc;

/// One account: its configuration, its adapter with the key, and the way out.
pub struct Account {
    pub config: ProviderConfig,
    pub adapter: Box<dyn Provider>,
    pub transport: Arc<dyn Transport>,
}

impl Account {
    /// Sends what the adapter has formed.
    pub async fn send(&self, call: Call) -> Result<Answer, Failure> {
        self.transport.send(call).await
    }

    /// What `read` makes of an answer by way of the adapter. It may be long; nobody else waits for that.
    pub fn read<T>(&self, answer: &Answer, read: impl FnOnce(&dyn Provider) -> T) -> T {
        in_place(answer.body.len(), || read(self.adapter.as_ref()))
    }

    /// The same with `body` in place of the call's own: see [`Transport::upload`].
    pub async fn upload(&self, call: Call, body: Outgoing) -> Result<Answer, Failure> {
        self.transport.upload(call, body).await
    }

    /// The same, giving the answer as soon as it begins: see [`Transport::open`].
    pub async fn open(&self, call: Call) -> Result<Incoming, Failure> {
        self.transport.open(call).await
    }
}

/// What an adapter says of a batch without asking its provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub kind: String,
    /// Where its requests go unless the provider says otherwise.
    pub endpoint: &'static str,
    /// The provider's page about it.
    pub console_url: Option<String>,
}
