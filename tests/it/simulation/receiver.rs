//! Simulated receivers of webhooks: well, slow, failing, overrun, silent, forgetful or gone, as the plan has it.

use super::outside::Outside;
use super::plan::{Mood, Window, current};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::sync::lock;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// One message that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event's id, where the kind tells it.
    pub id: String,
    pub body: Bytes,
    /// Whether batchd was told that it had been taken.
    pub taken: bool,
}

/// All receivers, by the webhook that leads to each.
#[derive(Default)]
pub struct Receivers {
    moods: BTreeMap<String, Vec<Window<Mood>>>,
    received: Mutex<BTreeMap<String, Vec<Received>>>,
}

impl Receivers {
    pub fn new(moods: BTreeMap<String, Vec<Window<Mood>>>) -> Self {
        Self { moods, received: Mutex::default() }
    }

    /// What came to one of them.
    pub fn received(&self, webhook: &str) -> Vec<Received> {
        lock(&self.received).get(webhook).cloned().unwrap_or_default()
    }

    pub async fn take(&self, outside: &Outside, call: &Call) -> Result<Answer, Failure> {
        let webhook = call.request.uri().path().trim_matches('/').to_owned();
        let mood = self.moods.get(&webhook).and_then(|moods| current(moods, outside.now()));
        let (takes, answer) = match mood.copied().unwrap_or(Mood::Well) {
            Mood::Well => (Duration::from_millis(80), Ok((200, None))),
            Mood::Slow(by) => (by, Ok((200, None))),
            Mood::Says(status) => (Duration::from_millis(80), Ok((status, None))),
            Mood::Overrun(wait) => (Duration::from_millis(20), Ok((429, Some(wait)))),
            Mood::Silent => (Duration::from_hours(1), Ok((200, None))),
            Mood::Forgetful => (Duration::from_millis(80), Err(Failure::Reset)),
            Mood::Away => (Duration::ZERO, Err(Failure::ConnectRefused)),
            Mood::Flapping => {
                let well = (outside.now().as_secs() / 20).is_multiple_of(2);
                (Duration::from_millis(80), Ok((if well { 200 } else { 502 }, None)))
            }
        };
        let in_time = takes <= call.timeout;
        tokio::time::sleep(takes.min(call.timeout)).await;
        if outside.is_dead() {
            return Err(Failure::Reset);
        }
        if answer != Err(Failure::ConnectRefused) {
            let id = call.request.headers().get("webhook-id").and_then(|id| id.to_str().ok());
            let accepted = in_time && matches!(answer, Ok((200, _)));
            let one = Received {
                id: id.unwrap_or_default().to_owned(),
                body: call.request.body().clone(),
                taken: accepted,
            };
            lock(&self.received).entry(webhook).or_default().push(one);
        }
        if !in_time {
            return Err(Failure::Timeout(call.timeout));
        }
        let (status, wait) = answer?;
        let mut headers = HeaderMap::new();
        if let Some(wait) = wait {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(wait));
        }
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers, body: Bytes::from_static(b"ok"), cut: false })
    }
}
