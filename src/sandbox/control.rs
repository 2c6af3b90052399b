//! The sandbox's own pages for tests: faults on request, and a journal of what was asked.

use super::Sandbox;
use super::refusal::Refusal;
use super::vendor::Vendor;
use super::wire::{self, Answer};
use crate::domain::duration;
use crate::sync::lock;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The faults that wait and the journal.
#[derive(Debug, Default)]
pub struct Control(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    journal: VecDeque<Entry>,
    seen: u64,
}

/// What goes wrong with the next requests that fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(rename = "match")]
    path: String,
    /// Only requests of this method.
    method: Option<String>,
    /// The answer's status, with an error in the vendor's shape; without one the request is done as usual.
    status: Option<u16>,
    /// How many requests; once if it is not said.
    #[serde(default = "once")]
    times: u32,
    /// `Retry-After`: seconds, or a date as text.
    retry_after: Option<Value>,
    /// `retry-after-ms`.
    retry_after_ms: Option<u64>,
    /// Waits so long before it answers.
    delay: Option<String>,
    /// The answer's body, in place of the vendor's error.
    body: Option<String>,
}

/// One request that came.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    number: u64,
    at: String,
    vendor: Option<Vendor>,
    method: String,
    path: String,
    query: Option<String>,
    status: u16,
}

/// What a fault does to one request.
#[derive(Debug)]
pub struct Strike {
    /// Wait first.
    pub delay: Duration,
    /// Then answer so, if at all.
    pub answer: Option<(Refusal, HeaderMap, Option<String>)>,
}

/// The routes; they need no key.
pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/", get(index))
        .route("/sandbox/requests", get(requests).delete(forget))
        .route("/sandbox/faults", get(faults).post(add).delete(clear))
}

impl Control {
    /// What waits for a request of `method` to `path`; it is used up by this.
    pub fn strike(&self, method: &Method, path: &str) -> Option<Strike> {
        let mut inner = self.inner();
        let place = inner.faults.iter().position(|fault| fault.fits(method, path))?;
        let fault = &mut inner.faults[place];
        fault.times -= 1;
        let strike = fault.strike();
        if fault.times == 0 {
            inner.faults.remove(place);
        }
        Some(strike)
    }

    /// Writes a request into the journal.
    pub fn note(&self, at: String, vendor: Option<Vendor>, method: &Method, uri: &Uri, status: StatusCode) {
        let mut inner = self.inner();
        inner.seen += 1;
        let entry = Entry {
            number: inner.seen,
            at,
            vendor,
            method: method.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().map(without_key),
            status: status.as_u16(),
        };
        inner.journal.push_back(entry);
        if inner.journal.len() > MOST_ENTRIES {
            inner.journal.pop_front();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

impl Fault {
    /// # Errors
    ///
    /// Says which part makes no sense.
    fn check(&self) -> Result<(), Refusal> {
        if self.path.is_empty() {
            return Err(Refusal::wrong("match", "match must be a part of a path"));
        }
        if self.status.is_none() && self.delay.is_none() {
            return Err(Refusal::wrong("status", "a fault needs a status or a delay"));
        }
        if self.status.is_some_and(|status| !(300..=599).contains(&status)) {
            return Err(Refusal::wrong("status", "status must be from 300 to 599"));
        }
        if !(1..=1_000_000).contains(&self.times) {
            return Err(Refusal::wrong("times", "times must be from 1 to 1000000"));
        }
        if self.delay.as_deref().is_some_and(|text| self.wait().is_zero() && text != "0s") {
            return Err(Refusal::wrong("delay", "delay must be a duration of at most a minute, like \"2s\""));
        }
        if self.retry_after.is_some() && self.headers().get(header::RETRY_AFTER).is_none() {
            return Err(Refusal::wrong("retry_after", "retry_after must be a number of seconds or a date"));
        }
        Ok(())
    }

    fn fits(&self, method: &Method, path: &str) -> bool {
        path.contains(&self.path)
            && self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method.as_str()))
    }

    fn strike(&self) -> Strike {
        let answer = self.status.and_then(|status| StatusCode::from_u16(status).ok()).map(|status| {
            let refusal = Refusal::new(status, "This fault was asked for.");
            (refusal, self.headers(), self.body.clone())
        });
        Strike { delay: self.wait(), answer }
    }

    fn wait(&self) -> Duration {
        let delay = self.delay.as_deref().and_then(|text| duration::parse(text).ok());
        delay.filter(|delay| *delay <= LONGEST_DELAY).unwrap_or_default()
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let text = match &self.retry_after {
            Some(Value::Number(seconds)) => Some(seconds.to_string()),
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::RETRY_AFTER, value);
        }
        if let Some(millis) = self.retry_after_ms {
            headers.insert(wire::name("retry-after-ms"), millis.into());
        }
        headers
    }
}

/// Where each vendor's API is.
async fn index(base: wire::Base) -> String {
    format!(
        "A simulated provider service. Any key will do.\n\n\
         OpenAI     base_url {0}/v1\n\
         Anthropic  base_url {0}\n\
         Gemini     base_url {0}/v1beta (Google's own SDK: {0})\n\
         Mistral    base_url {0}\n\n\
         GET {0}/sandbox/requests lists what was asked; POST {0}/sandbox/faults lets requests fail.\n",
        base.0
    )
}

async fn requests(State(sandbox): State<Sandbox>) -> Answer {
    let inner = sandbox.control().inner();
    Ok(wire::answer(&json!({"total": inner.seen, "data": inner.journal})))
}

async fn forget(State(sandbox): State<Sandbox>) -> Answer {
    let mut inner = sandbox.control().inner();
    inner.journal.clear();
    inner.seen = 0;
    Ok(wire::answer(&json!({"deleted": true})))
}

async fn faults(State(sandbox): State<Sandbox>) -> Answer {
    Ok(wire::answer(&json!({"data": sandbox.control().inner().faults})))
}

async fn add(State(sandbox): State<Sandbox>, body: Body) -> Answer {
    let body = wire::json(&sandbox, body).await?;
    let fault: Fault = serde_json::from_value(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    fault.check()?;
    let mut inner = sandbox.control().inner();
    if inner.faults.len() >= MOST_FAULTS {
        return Err(Refusal::invalid(format!("{MOST_FAULTS} faults wait already; DELETE them first")));
    }
    inner.faults.push(fault);
    Ok(wire::answer(&json!({"waiting": inner.faults.len()})))
}

async fn clear(State(sandbox): State<Sandbox>) -> Answer {
    sandbox.control().inner().faults.clear();
    Ok(wire::answer(&json!({"deleted": true})))
}

/// A query as it may be shown: Google's clients may put their key there, a signed address its signature.
fn without_key(query: &str) -> String {
    let secret =
        |pair: &&str| !["key=", "signature=", "upload_id="].iter().any(|name| pair.starts_with(name));
    query.split('&').filter(secret).collect::<Vec<_>>().join("&")
}

fn once() -> u32 {
    1
}

/// Of the journal; the oldest go first.
const MOST_ENTRIES: usize = 10_000;
const MOST_FAULTS: usize = 1000;
const LONGEST_DELAY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(value: Value) -> Result<Fault, String> {
        let fault: Fault = serde_json::from_value(value).map_err(|error| error.to_string())?;
        fault.check().map_err(|refusal| refusal.param.unwrap_or_default())?;
        Ok(fault)
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says_and_only_where_it_fits() {
        let control = Control::default();
        let asked =
            json!({"match": "/v1/batches", "method": "get", "status": 503, "times": 2, "retry_after": 3});
        control.inner().faults.push(fault(asked).unwrap());
        assert!(control.strike(&Method::POST, "/v1/batches").is_none());
        assert!(control.strike(&Method::GET, "/v1/files").is_none());
        for _ in 0..2 {
            let (refusal, headers, _) =
                control.strike(&Method::GET, "/v1/batches/x").unwrap().answer.unwrap();
            assert_eq!(
                (refusal.status.as_u16(), &headers[header::RETRY_AFTER]),
                (503, &HeaderValue::from(3))
            );
        }
        assert!(control.strike(&Method::GET, "/v1/batches/x").is_none());
    }

    #[test]
    fn a_fault_that_makes_no_sense_is_refused() {
        assert_eq!(fault(json!({"match": "", "status": 500})).unwrap_err(), "match");
        assert_eq!(fault(json!({"match": "x"})).unwrap_err(), "status");
        assert_eq!(fault(json!({"match": "x", "status": 200})).unwrap_err(), "status");
        assert_eq!(fault(json!({"match": "x", "status": 500, "times": 0})).unwrap_err(), "times");
        assert_eq!(fault(json!({"match": "x", "delay": "2h"})).unwrap_err(), "delay");
        assert_eq!(
            fault(json!({"match": "x", "status": 429, "retry_after": {}})).unwrap_err(),
            "retry_after"
        );
        assert!(
            fault(json!({"match": "x", "status": 500, "when": 1})).unwrap_err().contains("unknown field")
        );
        assert_eq!(fault(json!({"match": "x", "delay": "2s"})).unwrap().wait(), Duration::from_secs(2));
    }

    #[test]
    fn the_journal_shows_no_key_and_is_bounded() {
        assert_eq!(without_key("pageSize=5&key=secret&fields=a"), "pageSize=5&fields=a");
        let control = Control::default();
        for _ in 0..MOST_ENTRIES + 5 {
            control.note(String::new(), None, &Method::GET, &Uri::from_static("/x?key=s"), StatusCode::OK);
        }
        let inner = control.inner();
        assert_eq!((inner.journal.len(), inner.seen), (MOST_ENTRIES, 10_005));
        assert_eq!(inner.journal.back().unwrap().query.as_deref(), Some(""));
    }
}
