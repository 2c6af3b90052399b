//! Simulated providers that speak OpenAI's API: what they have, what they show of it, and how they fail.

use super::outside::{Outside, at};
use super::plan::{Life, Quirk, Trouble, Window, current};
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::rng::Rng;
use batchd::sync::lock;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// All accounts.
pub struct Providers {
    rng: Rng,
    trouble: BTreeMap<&'static str, Vec<Window<Trouble>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: BTreeMap<(String, String), Batch>,
    files: u32,
    created: u32,
    accounts: BTreeMap<String, Traffic>,
}

/// One batch as the provider has it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub life: Life,
    cancelled: Option<Duration>,
    /// What it was created with, if it was created by batchd.
    pub metadata: Option<Value>,
    /// When an end was first shown, and which.
    pub shown_end: Option<(&'static str, Duration)>,
    shown: Duration,
    /// The longest time for which it was not shown, since [`Providers::measure`].
    pub longest_gap: Duration,
}

/// How much an account is asked.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    in_flight: u32,
    /// The most at once since [`Providers::measure`].
    pub most: u32,
    /// How often it said "too many requests" in each window in which it does so, by when that began.
    pub refused: BTreeMap<Duration, u32>,
}

/// Whoever asks may go away meanwhile.
struct InFlight<'p> {
    providers: &'p Providers,
    account: String,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(traffic) = lock(&self.providers.state).accounts.get_mut(&self.account) {
            traffic.in_flight -= 1;
        }
    }
}

impl Batch {
    fn new(life: Life, metadata: Option<Value>) -> Self {
        let shown = life.created;
        Self { life, cancelled: None, metadata, shown_end: None, shown, longest_gap: Duration::ZERO }
    }

    /// When it ends and how, if it does.
    pub fn end(&self) -> Option<(Duration, &'static str)> {
        let by_itself = self.life.takes.map(|takes| (self.life.created + takes, self.life.ending));
        let by_hand = self.cancelled.map(|at| (at + Duration::from_mins(1), "cancelled"));
        [by_itself, by_hand].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// For how long it has not been shown.
    pub fn unseen_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.shown)
    }

    fn object(&self, now: Duration) -> Value {
        let life = &self.life;
        let quirk = current(&life.quirks, now);
        let age = now.saturating_sub(life.created);
        let length = life.takes.unwrap_or(Duration::from_hours(400)).max(Duration::from_secs(1));
        let part = (age.as_secs_f64() / length.as_secs_f64()).min(0.999);
        let ended = self.end().filter(|(at, _)| *at <= now);
        let status = match ended {
            Some((_, status)) => status,
            None if self.cancelled.is_some_and(|at| at <= now) => "cancelling",
            None if part >= 0.9 => "finalizing",
            None if part >= 0.05 => "in_progress",
            None => "validating",
        };
        let word = match quirk {
            Some(Quirk::Revived) if ended.is_some() => "in_progress",
            Some(Quirk::Word) if ended.is_none() => "daydreaming",
            _ => status,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count up to 100")]
        let mut done = if status == "completed" { 100 } else { (part * 100.0) as u64 };
        if quirk == Some(&Quirk::Counts) {
            done /= 2;
        }
        let mut batch = json!({
            "id": life.id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
            "completion_window": "24h", "status": word, "created_at": at(life.created).as_second(),
            "request_counts": {"total": 100, "completed": done, "failed": 0},
            "metadata": self.metadata.clone().unwrap_or_default(),
        });
        if let Some((end, status)) = ended {
            batch[format!("{status}_at")] = at(end).as_second().into();
            if status != "failed" && now >= end + life.files_after {
                batch["output_file_id"] = "file-out".into();
            }
        }
        batch
    }

    /// It is shown at `now`, as it was at `then`.
    fn show(&mut self, then: Duration, now: Duration) -> Value {
        let object = self.object(then);
        self.longest_gap = self.longest_gap.max(now.saturating_sub(self.shown));
        self.shown = now;
        let ended = self.end().filter(|(at, status)| *at <= then && object["status"] == *status);
        if let (None, Some((_, status))) = (self.shown_end, ended) {
            self.shown_end = Some((status, now));
        }
        object
    }

    /// Whether the provider says for a while that there is no such batch.
    pub fn is_ever_gone(&self) -> bool {
        self.life.quirks.iter().any(|window| window.what == Quirk::Gone)
    }

    fn is_there(&self, then: Duration) -> bool {
        self.life.created <= then && current(&self.life.quirks, then) != Some(&Quirk::Gone)
    }
}

impl Providers {
    pub fn new(seed: u64, lives: &[Life], trouble: BTreeMap<&'static str, Vec<Window<Trouble>>>) -> Self {
        let batches = lives
            .iter()
            .map(|life| ((life.account.to_owned(), life.id.clone()), Batch::new(life.clone(), None)))
            .collect();
        let state = Mutex::new(State { batches, ..State::default() });
        Self { rng: Rng::seeded(seed), trouble, state }
    }

    /// What there is, by account and id.
    pub fn batches(&self) -> BTreeMap<(String, String), Batch> {
        lock(&self.state).batches.clone()
    }

    /// One more batch.
    pub fn add(&self, life: Life) {
        let key = (life.account.to_owned(), life.id.clone());
        lock(&self.state).batches.insert(key, Batch::new(life, None));
    }

    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        lock(&self.state).accounts.clone()
    }

    /// Gaps and traffic are measured from `now` on.
    pub fn measure(&self, now: Duration) {
        let mut state = lock(&self.state);
        for batch in state.batches.values_mut() {
            (batch.shown, batch.longest_gap) = (now, Duration::ZERO);
        }
        for traffic in state.accounts.values_mut() {
            traffic.most = traffic.in_flight;
        }
    }

    /// A request to `account` is in flight for as long as this is held.
    fn in_flight(&self, account: &str) -> InFlight<'_> {
        let mut state = lock(&self.state);
        let traffic = state.accounts.entry(account.to_owned()).or_default();
        traffic.in_flight += 1;
        traffic.most = traffic.most.max(traffic.in_flight);
        InFlight { providers: self, account: account.to_owned() }
    }

    pub async fn ask(&self, outside: &Outside, account: &str, call: &Call) -> Result<Answer, Failure> {
        let begun = outside.now();
        let in_flight = self.in_flight(account);
        let windows = self.trouble.get(account).map_or(&[][..], Vec::as_slice);
        let window = windows.iter().find(|window| window.from <= begun && begun < window.to);
        let trouble = window.map(|window| window.what);
        let path = call.request.uri().path().to_owned();
        let chance = self.rng.jitter_of(&format!("{account} {path}"), at(begun));
        let takes = match trouble {
            Some(Trouble::Silent) => call.timeout,
            Some(Trouble::Away) => Duration::ZERO,
            Some(Trouble::Slow(by)) => by.mul_f64(0.5 + chance),
            _ => Duration::from_secs_f64(0.05 + chance),
        };
        tokio::time::sleep(takes.min(call.timeout)).await;
        if outside.is_dead() {
            return Err(Failure::Reset);
        }
        drop(in_flight);
        match trouble {
            Some(Trouble::Away) => return Err(Failure::ConnectRefused),
            Some(Trouble::Silent) => return Err(Failure::Timeout(call.timeout)),
            Some(Trouble::Refuses) => return Ok(answer(401, &json!({"error": {"message": "no such key"}}))),
            Some(Trouble::Held) => {
                let window = window.unwrap();
                let wait = (window.to.saturating_sub(outside.now())).as_secs() + 1;
                let mut state = lock(&self.state);
                let refused = &mut state.accounts.entry(account.to_owned()).or_default().refused;
                *refused.entry(window.from).or_default() += 1;
                let mut refusal = answer(429, &json!({"error": {"message": "too many requests"}}));
                refusal.headers.insert(http::header::RETRY_AFTER, HeaderValue::from(wait));
                return Ok(refusal);
            }
            Some(Trouble::Errors(share)) if chance * 100.0 < f64::from(share) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small number"
                )]
                return fault((chance * 10_000.0 / f64::from(share)) as u32 % 6, call.timeout);
            }
            _ => {}
        }
        if takes > call.timeout {
            return Err(Failure::Timeout(call.timeout));
        }
        let now = outside.now();
        let lag = if let Some(Trouble::Lags(lag)) = trouble { lag } else { Duration::ZERO };
        let found = self.find(outside, account, call, &path, now, lag, trouble == Some(Trouble::Overlaps));
        let writes = call.request.method() == Method::POST;
        if trouble == Some(Trouble::Forgetful) && (writes || chance < 0.2) {
            return Err(Failure::Reset);
        }
        Ok(found)
    }

    #[expect(clippy::too_many_arguments, reason = "a request, and what is wrong with the answer")]
    fn find(
        &self,
        outside: &Outside,
        account: &str,
        call: &Call,
        path: &str,
        now: Duration,
        lag: Duration,
        overlaps: bool,
    ) -> Answer {
        let mut state = lock(&self.state);
        let nothing = || answer(404, &json!({"error": {"message": "no such batch"}}));
        let path: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (call.request.method(), path.as_slice()) {
            (&Method::GET, ["batches"]) => {
                let query = call.request.uri().query().unwrap_or_default();
                state.list(account, query, now.saturating_sub(lag), now, overlaps)
            }
            (&Method::GET, ["batches", id]) => {
                match state.batches.get_mut(&(account.to_owned(), (*id).to_owned())) {
                    Some(batch) if batch.is_there(now) => answer(200, &batch.show(now, now)),
                    _ => nothing(),
                }
            }
            (&Method::POST, ["batches", id, "cancel"]) => {
                match state.batches.get_mut(&(account.to_owned(), (*id).to_owned())) {
                    Some(batch) if batch.is_there(now) && batch.end().is_none_or(|(at, _)| at > now) => {
                        batch.cancelled.get_or_insert(now);
                        answer(200, &batch.show(now, now))
                    }
                    Some(_) => answer(409, &json!({"error": {"message": "it has ended"}})),
                    None => nothing(),
                }
            }
            (&Method::POST, ["files"]) => {
                state.files += 1;
                let id = format!("file-{}", state.files);
                answer(200, &json!({"id": id, "object": "file", "purpose": "batch", "status": "processed"}))
            }
            (&Method::POST, ["batches"]) => {
                let asked: Value = serde_json::from_slice(call.request.body()).unwrap_or_default();
                state.created += 1;
                let id = format!("batch_made{:020}", state.created);
                let takes =
                    Duration::from_secs_f64(60.0 * 200_f64.powf(self.rng.jitter_of(&id, at(Duration::ZERO))));
                let life = Life {
                    account: if account == "alpha" { "alpha" } else { "beta" },
                    id: id.clone(),
                    created: now,
                    takes: Some(takes),
                    ending: "completed",
                    files_after: Duration::ZERO,
                    quirks: Vec::new(),
                };
                let mut batch = Batch::new(life, Some(asked["metadata"].clone()));
                let shown = answer(200, &batch.show(now, now));
                state.batches.insert((account.to_owned(), id.clone()), batch);
                drop(state);
                outside.note(format_args!("{account} creates {id}"));
                shown
            }
            _ => nothing(),
        }
    }
}

impl State {
    fn list(&mut self, account: &str, query: &str, then: Duration, now: Duration, overlaps: bool) -> Answer {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let limit = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20).min(4);
        let mut there: Vec<&mut Batch> = self
            .batches
            .iter_mut()
            .filter(|((at, _), batch)| at == account && batch.is_there(then))
            .map(|(_, batch)| batch)
            .collect();
        there.sort_by_key(|batch| std::cmp::Reverse((batch.life.created, batch.life.id.clone())));
        let from = match value("after") {
            Some(after) => match there.iter().position(|batch| batch.life.id == after) {
                Some(place) if overlaps => place,
                Some(place) => place + 1,
                None => return answer(400, &json!({"error": {"message": "no such cursor"}})),
            },
            None => 0,
        };
        let has_more = there.len() > from + limit;
        let data: Vec<Value> =
            there.iter_mut().skip(from).take(limit).map(|batch| batch.show(then, now)).collect();
        let last = data.last().map(|batch| batch["id"].clone());
        answer(200, &json!({"object": "list", "data": data, "has_more": has_more, "last_id": last}))
    }
}

fn answer(status: u16, body: &Value) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_string()), cut: false }
}

/// One of the ways in which a single request fails.
fn fault(which: u32, timeout: Duration) -> Result<Answer, Failure> {
    match which {
        0 => Err(Failure::Reset),
        1 => Err(Failure::Timeout(timeout)),
        2 => {
            Ok(Answer { body: Bytes::from_static(b"<html>bad gateway</html>"), ..answer(502, &Value::Null) })
        }
        3 => Ok(Answer { body: Bytes::from_static(b"{\"id\": \"batch"), ..answer(200, &Value::Null) }),
        4 => Ok(answer(200, &json!({"error": {"message": "try later"}}))),
        _ => Ok(answer(500, &json!({"error": {"message": "oops"}}))),
    }
}
