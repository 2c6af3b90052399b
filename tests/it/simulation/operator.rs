//! Whoever uses the daemon over its API, and sometimes goes away before the answer is there.

use super::ledger::Standing;
use super::outside::{Outside, at};
use super::plan::Act;
use axum::Router;
use axum::body::Body;
use batchd::sync::lock;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tower_service::Service as _;

/// What the accounts' own webhooks are signed with.
pub const HOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One user of one daemon.
#[derive(Clone)]
pub struct Operator {
    pub router: Router,
    pub outside: Arc<Outside>,
}

/// Polls `future` until it is done, or has been polled so often; then it is dropped.
pub async fn with_patience<T>(patience: Option<u32>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => {
            polls += 1;
            if patience == Some(polls) { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

/// Encodes what stands in a path.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Operator {
    /// Asks for something, as clients do: the answer is read to its end.
    async fn ask(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = self.router.clone().call(request).await.unwrap();
        let status = answer.status();
        let body =
            answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        (status, body)
    }

    /// The same by a user who goes away after `patience` polls, and after ten minutes in any case; `None`: there was no
    /// answer, or nobody was there any more to read it.
    pub async fn call(
        &self,
        patience: Option<u32>,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> Option<(StatusCode, Value)> {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        self.send(patience, request).await
    }

    async fn send(&self, patience: Option<u32>, request: Request<Body>) -> Option<(StatusCode, Value)> {
        let what = format!("{} {}", request.method(), request.uri());
        lock(&self.outside.ledger).by_hand.push(self.outside.now().as_secs_f64());
        let answer = with_patience(patience, self.ask(request));
        let answer = tokio::time::timeout(Duration::from_mins(10), answer).await.ok().flatten();
        if self.outside.is_dead() {
            return None;
        }
        let told = answer.as_ref().map_or("no answer".to_owned(), |(status, body)| {
            // Metrics come in any order.
            let body = if what.ends_with("/metrics") { String::new() } else { body.to_string() };
            // The disk is somewhere else each time.
            let body = body.replace(&lock(&self.outside.disk).root().display().to_string(), "");
            format!("{status} {}", body.chars().take(400).collect::<String>())
        });
        self.outside.note(format_args!("{what}: {told}"));
        // What discovery shows is the provider's word.
        if let Some((_, body)) = &answer
            && !what.ends_with("/v1/discover")
        {
            lock(&self.outside.ledger).see(&what, body);
        }
        if let Some((status, _)) = &answer
            && status.is_server_error()
        {
            lock(&self.outside.ledger).failures.insert(format!("{what}: {told}"));
        }
        answer
    }

    pub async fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.call(None, Method::GET, path, Body::empty()).await?;
        status.is_success().then_some(body)
    }

    /// Follows the event log to its end.
    pub async fn read_events(&self) {
        loop {
            let after = lock(&self.outside.ledger).newest();
            let Some(page) = self.get(&format!("/v1/events?after={after}&limit=1000")).await else { return };
            let Some(events) = page["data"].as_array() else { return };
            lock(&self.outside.ledger).read(events);
            if page["has_more"] != true {
                return;
            }
        }
    }

    /// Asks for what changes whether the batch `key` is tracked, and keeps in mind what is known of that.
    async fn change(
        &self,
        key: &str,
        patience: Option<u32>,
        method: Method,
        path: &str,
        body: &Value,
        then: Standing,
    ) -> Option<(StatusCode, Value)> {
        let before = lock(&self.outside.ledger).doubt(key);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.call(patience, method, path, body).await;
        let mut ledger = lock(&self.outside.ledger);
        match &answer {
            Some((status, _)) if status.is_success() => ledger.settle(key, Some(then)),
            // What was tracked before is so still.
            Some((status, _)) if status.is_client_error() => ledger.settle(key, before),
            _ if before == Some(Standing::Tracked) && then == Standing::Tracked => ledger.settle(key, before),
            // Whether it was done nobody knows, but a refusal leaves all as it was.
            Some(_) if before.is_none() && then != Standing::Tracked => ledger.settle(key, None),
            _ => {}
        }
        answer
    }

    pub async fn track(&self, key: &str, check: bool, patience: Option<u32>) -> Option<(StatusCode, Value)> {
        // Said apart: a prefix means nothing while its provider is not configured.
        let (account, id) = key.split_once(':').unwrap();
        let path = format!("/v1/batches/{}", encoded(id));
        let body = json!({"provider": account, "check": check});
        self.change(key, patience, Method::PUT, &path, &body, Standing::Tracked).await
    }

    pub async fn untrack(
        &self,
        key: &str,
        purge: bool,
        patience: Option<u32>,
    ) -> Option<(StatusCode, Value)> {
        let path = format!("/v1/batches/{}{}", encoded(key), if purge { "?purge=true" } else { "" });
        if purge {
            lock(&self.outside.ledger).ever_purged.insert(key.to_owned());
        }
        let then = if purge { Standing::Purged } else { Standing::Untracked };
        self.change(key, patience, Method::DELETE, &path, &Value::Null, then).await
    }

    pub async fn track_many(&self, keys: &[String], check: bool, patience: Option<u32>) {
        let before: Vec<_> = keys.iter().map(|key| lock(&self.outside.ledger).doubt(key)).collect();
        let item = |key: &String| {
            let (account, id) = key.split_once(':').unwrap();
            json!({"provider": account, "id": id, "check": check})
        };
        let items: Vec<Value> = keys.iter().map(item).collect();
        let body = Body::from(json!({"items": items}).to_string());
        let answer = self.call(patience, Method::POST, "/v1/batches/track", body).await;
        let mut ledger = lock(&self.outside.ledger);
        for ((number, key), before) in keys.iter().enumerate().zip(before) {
            match &answer {
                Some((status, body)) if status.is_success() => {
                    let good = body["data"][number]["error"].is_null();
                    ledger.settle(key, if good { Some(Standing::Tracked) } else { before });
                }
                _ if before == Some(Standing::Tracked) => ledger.settle(key, before),
                Some((status, _)) if status.is_client_error() => ledger.settle(key, before),
                _ => {}
            }
        }
    }

    pub async fn submit(&self, account: &str, number: u32, patience: Option<u32>) -> Option<Value> {
        let line = |number: u32| {
            json!({
                "custom_id": format!("request-{number}"), "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "m-1", "messages": [{"role": "user", "content": "hello"}]},
            })
        };
        let file = format!("{}\n{}\n", line(1), line(2));
        let path = format!("/v1/submit?provider={account}&file_name=in.jsonl&metadata=number%3D{number}");
        let (status, body) = self.call(patience, Method::POST, &path, file).await?;
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let last: Value = serde_json::from_str(text.lines().last()?).ok()?;
        if status.is_success()
            && let Some(id) = last["id"].as_str().filter(|_| last["object"] == "batch")
        {
            let mut ledger = lock(&self.outside.ledger);
            ledger.submitted.insert(number, id.to_owned());
            ledger.batches.insert(format!("{account}:{id}"), Standing::Tracked);
        }
        Some(last)
    }

    /// The service tells of a batch by its own webhook.
    pub async fn hook(&self, key: &str, patience: Option<u32>) -> Option<(StatusCode, Value)> {
        let (account, id) = key.split_once(':').unwrap();
        let body = json!({"id": "evt_1", "object": "event", "type": "batch.completed", "data": {"id": id}})
            .to_string();
        let stamp = at(self.outside.now()).as_second();
        let name = format!("msg_{}_{}", self.outside.now().as_millis(), id);
        let signature = Webhook::new(HOOK_SECRET).unwrap().sign(&name, stamp, body.as_bytes()).unwrap();
        let request = Request::post(format!("/hooks/{account}"))
            .header("webhook-id", name)
            .header("webhook-timestamp", stamp)
            .header("webhook-signature", signature)
            .body(Body::from(body))
            .unwrap();
        let before = lock(&self.outside.ledger).doubt(key);
        let answer = self.send(patience, request).await;
        let mut ledger = lock(&self.outside.ledger);
        match (&answer, before) {
            // It stays untracked if it was, and tracked if it was.
            (_, Some(Standing::Tracked | Standing::Untracked)) => ledger.settle(key, before),
            // It may be untracked, and then it stays so.
            (_, Some(Standing::Doubtful)) => {}
            (Some((status, _)), _) if status.is_success() => ledger.settle(key, Some(Standing::Tracked)),
            (Some((status, _)), _) if status.is_client_error() => ledger.settle(key, before),
            _ => {}
        }
        answer
    }

    /// Does what is done over the API.
    pub async fn act(&self, act: &Act, patience: Option<u32>) {
        let post = async |path: &str| self.call(patience, Method::POST, path, Body::empty()).await;
        match act {
            Act::Track { key, check } => drop(self.track(key, *check, patience).await),
            Act::TrackMany { keys, check } => self.track_many(keys, *check, patience).await,
            Act::Untrack { key, purge } => drop(self.untrack(key, *purge, patience).await),
            Act::Poll(key) => drop(post(&format!("/v1/batches/{}/poll", encoded(key))).await),
            Act::PollAll => drop(post("/v1/poll").await),
            Act::Cancel(key) => drop(post(&format!("/v1/batches/{}/cancel", encoded(key))).await),
            Act::Discover(account) => {
                let body = json!({"provider": account, "track": true}).to_string();
                // What somebody untracked is found again.
                for (key, standing) in &mut lock(&self.outside.ledger).batches {
                    if *standing == Standing::Untracked && key.starts_with(account) {
                        *standing = Standing::Doubtful;
                    }
                }
                let _ = self.call(patience, Method::POST, "/v1/discover", body).await;
            }
            Act::Submit { account, number } => drop(self.submit(account, *number, patience).await),
            Act::Hook(key) => drop(self.hook(key, patience).await),
            Act::Disable(webhook) => drop(post(&format!("/v1/webhooks/{webhook}/disable")).await),
            Act::Enable(webhook) => drop(post(&format!("/v1/webhooks/{webhook}/enable")).await),
            Act::RetryDead => drop(post("/v1/deliveries/retry").await),
            Act::Read => {
                for path in ["/v1/batches", "/v1/status", "/v1/deliveries", "/metrics"] {
                    let _ = self.call(patience, Method::GET, path, Body::empty()).await;
                }
            }
            _ => {}
        }
    }
}
