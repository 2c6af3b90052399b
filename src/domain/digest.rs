//! A digest: what ended since the one before and how, what runs and until when, what is stuck.

use super::cost::{CURRENCY, Usd};
use super::duration::human;
use super::event::Draft;
use super::outcome::{Outcome, Severity};
use super::shape::time;
use super::time::{from_seconds, since};
use super::tracked::Tracked;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A digest in the making. However much there is to tell, its body stays short: beyond [`MAX_ENTRIES`] entries of each kind
/// only the counts go on.
#[derive(Clone, Debug)]
pub struct Digest {
    since: Timestamp,
    until: Timestamp,
    /// The worst first, then the latest, each with what it is ordered by.
    ended: Vec<(Severity, Timestamp, Value)>,
    outcomes: BTreeMap<&'static str, u64>,
    /// What they cost, by provider, as far as it is known.
    cost: BTreeMap<String, Usd>,
    /// Batches with tokens whose cost is not known.
    unpriced: u64,
    running: Vec<Value>,
    stuck: Vec<Value>,
    running_count: u64,
    stuck_count: u64,
}

impl Digest {
    /// An empty one about the time from `since` to `until`.
    pub const fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            since,
            until,
            ended: Vec::new(),
            outcomes: BTreeMap::new(),
            cost: BTreeMap::new(),
            unpriced: 0,
            running: Vec::new(),
            stuck: Vec::new(),
            running_count: 0,
            stuck_count: 0,
        }
    }

    /// A batch whose end was seen in that time.
    pub fn ended(&mut self, batch: &Tracked) {
        let Some(outcome) = batch.outcome() else { return };
        *self.outcomes.entry(outcome.as_str()).or_default() += 1;
        match &batch.cost {
            Some(cost) => {
                let sum = self.cost.entry(batch.key.provider.clone()).or_default();
                *sum = sum.plus(cost.amount()).unwrap_or(*sum);
            }
            None => self.unpriced += u64::from(batch.batch.usage.is_some()),
        }
        self.ended.push((outcome.severity(), batch.status_since, ended(batch, outcome)));
        if self.ended.len() > MAX_ENTRIES * 4 {
            self.keep_the_worst();
        }
    }

    /// Batches that run, the next to end first, and how many there are in all.
    pub fn running(&mut self, batches: &[Tracked], count: u64) {
        self.running = batches.iter().take(MAX_ENTRIES).map(running).collect();
        self.running_count = count;
    }

    /// Batches that do not get on, and how many there are in all.
    pub fn stuck(&mut self, batches: &[Tracked], count: u64) {
        self.stuck = batches.iter().take(MAX_ENTRIES).map(|batch| stuck(batch, self.until)).collect();
        self.stuck_count = count;
    }

    /// As the event of the digest called `name`, whose turn came `at`.
    pub fn draft(mut self, name: &str, at: Timestamp) -> Draft {
        self.keep_the_worst();
        let ended: u64 = self.outcomes.values().sum();
        let data = json!({
            "id": null,
            "name": name,
            "severity": Severity::Info,
            "observed_at": self.until.to_string(),
            "since": self.since.to_string(),
            "until": self.until.to_string(),
            "counts": {
                "ended": ended,
                "outcomes": self.outcomes,
                "running": self.running_count,
                "stuck": self.stuck_count,
            },
            "cost": cost(&self.cost, self.unpriced),
            "ended": self.ended.into_iter().map(|(_, _, entry)| entry).collect::<Vec<_>>(),
            "running": self.running,
            "stuck": self.stuck,
        });
        Draft::digest(name, at, self.until, data)
    }

    fn keep_the_worst(&mut self) {
        self.ended.sort_by(|(a_severity, a_at, _), (b_severity, b_at, _)| {
            b_severity.cmp(a_severity).then(b_at.cmp(a_at))
        });
        self.ended.truncate(MAX_ENTRIES);
    }
}

/// In all and by provider; null if nothing is known to have cost anything.
fn cost(by_provider: &BTreeMap<String, Usd>, unpriced: u64) -> Value {
    if by_provider.is_empty() {
        return Value::Null;
    }
    let sum = by_provider.values().fold(Usd::default(), |sum, amount| sum.plus(*amount).unwrap_or(sum));
    let providers = by_provider.iter().map(|(provider, amount)| (provider.clone(), amount.number().into()));
    json!({
        "amount": sum.number(),
        "currency": CURRENCY,
        "providers": providers.collect::<serde_json::Map<String, Value>>(),
        "unpriced": unpriced,
    })
}

/// What every entry begins with.
fn entry(batch: &Tracked) -> Value {
    let name = batch.name.as_deref().map(|name| name.chars().take(MAX_NAME_LENGTH).collect::<String>());
    json!({
        "id": batch.key.id,
        "provider": batch.key.provider,
        "name": name,
        "status": batch.batch.status,
        "request_counts": batch.batch.request_counts,
        "console_url": batch.console_url,
    })
}

fn ended(batch: &Tracked, outcome: Outcome) -> Value {
    let mut entry = entry(batch);
    entry["outcome"] = json!(outcome);
    entry["severity"] = json!(outcome.severity());
    entry["ended_at"] = time(batch.batch.ended_at().and_then(from_seconds).or(Some(batch.status_since)));
    entry["duration_seconds"] = json!(batch.duration_seconds());
    entry
}

fn running(batch: &Tracked) -> Value {
    let mut entry = entry(batch);
    entry["created_at"] = time(from_seconds(batch.batch.created_at));
    entry["eta"] = time(batch.eta.map(|eta| eta.at));
    entry
}

fn stuck(batch: &Tracked, now: Timestamp) -> Value {
    let mut entry = entry(batch);
    let (begun, why) = if let Some(at) = batch.lost_since {
        (at, format!("its provider does not know it any more, for {}", human(since(at, now))))
    } else if let Some(at) = batch.stalled_since {
        let moved = batch.progress_at.unwrap_or(batch.status_since);
        (at, format!("no progress for {}", human(since(moved, now))))
    } else if let Some(at) = batch.deadline.filter(|at| *at <= now) {
        (at, format!("{} past its deadline", human(since(at, now))))
    } else {
        (batch.status_since, "near the end of its provider's window".to_owned())
    };
    entry["since"] = time(Some(begun));
    entry["why"] = why.into();
    entry
}

/// Entries of each kind in one digest.
pub const MAX_ENTRIES: usize = 40;
/// In characters.
const MAX_NAME_LENGTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::RequestCounts;
    use crate::domain::status::Status;
    use crate::domain::time::{earlier, later};
    use crate::domain::tracked::{BatchKey, Eta, Origin};
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);
    const HOUR: Duration = Duration::from_hours(1);

    fn batch(number: usize, status: Status) -> Tracked {
        let key = BatchKey { provider: "openai".to_owned(), id: format!("batch_{number}") };
        let at = earlier(NOW, HOUR);
        let mut tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, at);
        tracked.batch.status = status;
        tracked.batch.request_counts = Some(RequestCounts { total: 4, completed: 4, failed: 0 });
        tracked.batch.completed_at = Some(NOW.as_second() - 60);
        tracked
    }

    #[test]
    fn it_tells_what_ended_what_runs_and_what_is_stuck() {
        let mut digest = Digest::new(earlier(NOW, HOUR * 24), NOW);
        digest.ended(&batch(1, Status::Completed));
        digest.ended(&batch(2, Status::Failed));
        digest.ended(&batch(3, Status::InProgress));
        let mut late = batch(4, Status::InProgress);
        late.deadline = Some(earlier(NOW, HOUR));
        let at = later(NOW, HOUR);
        late.eta = Some(Eta { at, earliest: NOW, latest: at });
        late.name = Some("x".repeat(500));
        digest.running(std::slice::from_ref(&late), 7);
        digest.stuck(&[late], 1);
        let draft = digest.draft("morning", NOW);
        assert_eq!(draft.kind.as_str(), "batchd.digest");
        let data = draft.data;
        assert_eq!(
            data["counts"],
            json!({"ended": 2, "outcomes": {"failed": 1, "succeeded": 1}, "running": 7, "stuck": 1})
        );
        assert_eq!(data["ended"][0]["outcome"], "failed", "the worst comes first");
        assert_eq!(data["ended"][1]["duration_seconds"], 3540);
        assert_eq!(data["running"][0]["eta"], later(NOW, HOUR).to_string());
        assert_eq!(data["running"][0]["name"].as_str().unwrap().len(), MAX_NAME_LENGTH);
        assert_eq!(data["stuck"][0]["why"], "1 h past its deadline");
    }

    #[test]
    fn however_much_ended_it_stays_short_and_keeps_the_worst() {
        let mut digest = Digest::new(earlier(NOW, HOUR * 24), NOW);
        for number in 0..10_000 {
            let failed = number % 1000 == 7;
            digest.ended(&batch(number, if failed { Status::Failed } else { Status::Completed }));
        }
        let draft = digest.draft("morning", NOW);
        let ended = draft.data["ended"].as_array().unwrap();
        assert_eq!(ended.len(), MAX_ENTRIES);
        assert_eq!(ended.iter().filter(|entry| entry["outcome"] == "failed").count(), 10);
        assert_eq!(draft.data["counts"]["ended"], 10_000);
        assert!(draft.body(1).len() < 64 * 1024);
    }
}
