//! The judge of the hunt: it holds what clients were promised, what the provider told and what the receiver and the
//! followers got against what any of the daemons says in the end.

use crate::follower::Seen;
use crate::ledger::Entries;
use crate::patience::{now, pause};
use crate::receiver::{Received, meaning};
use crate::stage::Stage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Judge<'a> {
    pub stage: &'a Stage<'a>,
    pub entries: Entries,
    /// Who can be asked.
    pub names: &'a [&'static str],
}

/// An event as the log has it.
struct Event {
    id: String,
    kind: String,
    batch: Option<(String, String)>,
    meaning: u64,
}

impl Judge<'_> {
    /// Waits until all that is owed is settled; gives what is not once nothing has moved for `limit`.
    ///
    /// Since `last` every batch that goes on must have been checked.
    pub fn settle(&self, last: Instant, limit: Duration) -> Vec<String> {
        let (mut moved, mut since) = (String::new(), now());
        loop {
            let open = self.open(last);
            if open.is_empty() {
                return open;
            }
            let state = format!("{open:?} {}", self.stage.receiver.received().attempts);
            if state != moved {
                (moved, since) = (state, now());
            }
            if since.elapsed() > limit {
                return open.into_iter().map(|what| format!("not settled: {what}")).collect();
            }
            pause(Duration::from_millis(500));
        }
    }

    /// What has not come to rest yet.
    fn open(&self, last: Instant) -> Vec<String> {
        let mut open = Vec::new();
        for state in ["pending", "inflight"] {
            match self.stage.json(self.names[0], &format!("/v1/deliveries?state={state}&limit=1")) {
                Some(told) => {
                    let first = told["data"].get(0);
                    open.extend(first.map(|first| format!("a delivery is {state}: {first}")));
                }
                None => open.push("the first daemon does not answer".to_owned()),
            }
        }
        let jobs = self.stage.provider.jobs();
        for batch in self.all("/v1/batches?status=validating,in_progress,finalizing,cancelling&") {
            let id = batch["id"].as_str().unwrap_or("");
            let is_left = self.entries.untracked.contains(id);
            if !is_left && jobs.get(id).is_none_or(|job| job.life.is_some()) {
                open.push(format!("{id} ends at its provider, and batchd does not know yet"));
            }
        }
        for (id, job) in jobs {
            let wanted = self.entries.acknowledged.contains_key(&id) && !self.entries.untracked.contains(&id);
            if wanted && job.life.is_none() && job.told.last().is_none_or(|at| *at < last) {
                open.push(format!("{id} is active and has not been checked since the last start"));
            }
        }
        open
    }

    /// Everything that can be said once it has settled.
    pub fn judge(&self) -> Vec<String> {
        let mut wrong = self.entries.wrong.clone();
        let batches: BTreeMap<String, Value> = self
            .all("/v1/batches?")
            .into_iter()
            .map(|batch| (batch["id"].as_str().unwrap_or("").to_owned(), batch))
            .collect();
        let events = self.events();
        for id in self.entries.acknowledged.keys().filter(|id| !batches.contains_key(*id)) {
            wrong.push(format!("{id} was acknowledged and is lost"));
        }
        let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
        let mut once: BTreeMap<(&(String, String), &str), u64> = BTreeMap::new();
        let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
        for (sequence, event) in &events {
            if let Some(other) = ids.insert(&event.id, *sequence) {
                wrong.push(format!("event {} is in the log as {other} and as {sequence}", event.id));
            }
            let Some(batch) = event.batch.as_ref().filter(|_| STATUSES.contains(&event.kind.as_str())) else {
                continue;
            };
            if let Some(other) = once.insert((batch, &event.kind), *sequence) {
                wrong.push(format!("{batch:?} is told of twice as {}: {other}, {sequence}", event.kind));
            }
            if ENDS.contains(&event.kind.as_str())
                && let Some(other) = ends.insert(&batch.1, &event.kind)
            {
                wrong.push(format!("{batch:?} has ended twice: {other}, {}", event.kind));
            }
        }
        let last = events.keys().next_back().copied().unwrap_or(0);
        let gaps: Vec<u64> = (1..=last).filter(|number| !events.contains_key(number)).collect();
        if !gaps.is_empty() {
            wrong.push(format!("the log has gaps: {gaps:?}"));
        }
        for (id, job) in self.stage.provider.jobs() {
            let wanted = self.entries.acknowledged.contains_key(&id) && !self.entries.untracked.contains(&id);
            let end = ends.get(id.as_str()).copied();
            let due = job.life.is_some().then(|| format!("batch.{}", job.end));
            if wanted && end != due.as_deref() || end.is_some() && end != due.as_deref() {
                wrong.push(format!("{id} has come to {due:?}, and the log has {end:?}"));
            }
            let status = batches.get(&id).and_then(|batch| batch["status"].as_str());
            if wanted && due.is_some() && status != Some(job.end) {
                wrong.push(format!("{id} is {} at its provider, and {status:?} here", job.end));
            }
        }
        wrong.extend(self.judge_deliveries(&events));
        wrong
    }

    /// What the receiver got, against the log.
    fn judge_deliveries(&self, events: &BTreeMap<u64, Event>) -> Vec<String> {
        let Received { accepted, events: got, wrong, .. } = self.stage.receiver.received();
        let mut wrong = wrong;
        let by_id: BTreeMap<&str, &Event> = events.values().map(|event| (event.id.as_str(), event)).collect();
        for (id, (_, told)) in &got {
            match by_id.get(id.as_str()) {
                Some(event) if event.meaning == *told => {}
                Some(_) => wrong.push(format!("event {id} was sent as something else than the log has")),
                None => wrong.push(format!("event {id} was sent and is not in the log")),
            }
        }
        for event in events.values().filter(|event| event.batch.is_some()) {
            for (webhook, more) in self.stage.setup.webhooks {
                let wants_all = more.contains("batch.validating");
                let kinds = if wants_all { &STATUSES[..] } else { &ENDS[..] };
                let has = accepted.get(*webhook).is_some_and(|accepted| accepted.contains_key(&event.id));
                if kinds.contains(&event.kind.as_str()) && !has {
                    wrong.push(format!("{webhook} has not accepted {} of {:?}", event.kind, event.batch));
                }
            }
        }
        let (once, again) = repeats(&accepted);
        // Of a few, one that was under way when its daemon died is much.
        if once >= 100 && again * 10 > once {
            wrong.push(format!("of {once} deliveries {again} were repeated"));
        }
        let dead = self.stage.json(self.names[0], "/v1/deliveries?state=dead&limit=1000").unwrap_or_default();
        for delivery in dead["data"].as_array().into_iter().flatten() {
            wrong.push(format!("a delivery was given up: {delivery}"));
        }
        wrong
    }

    /// Whether the followers saw the same list in the same order, which is the log's, as far as event number `last`.
    pub fn judge_followers(&self, followers: &[Seen], last: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let events = self.events().into_iter();
        let log: Vec<(u64, String)> = events
            .map(|(sequence, event)| (sequence, event.id))
            .filter(|(sequence, _)| *sequence <= last)
            .collect();
        for (name, seen) in self.names.iter().zip(followers) {
            wrong.extend(seen.wrong.iter().map(|what| format!("the follower of {name}: {what}")));
            let differs = seen.events.iter().zip(&log).find(|(one, other)| one != other);
            if let Some((saw, is)) = differs {
                wrong.push(format!("the follower of {name} saw {saw:?} where the log has {is:?}"));
            } else if seen.events.len() < log.len() {
                let (saw, are) = (seen.events.len(), log.len());
                wrong.push(format!("the follower of {name} saw {saw} events of {are}"));
            }
        }
        wrong
    }

    /// The longest time for which a batch that goes on was not polled, and which.
    pub fn longest_neglect(&self, until: Instant) -> (Duration, String) {
        let jobs = self.stage.provider.jobs();
        let kept =
            jobs.iter().filter(|(id, job)| job.life.is_none() && !self.entries.untracked.contains(*id));
        let gap = |id: &String, told: &[Instant]| {
            let begun = *self.entries.acknowledged.get(id)?;
            let times: Vec<Instant> = [begun]
                .into_iter()
                .chain(told.iter().copied().filter(|at| *at > begun))
                .chain([until])
                .collect();
            times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max()
        };
        let gaps = kept.filter_map(|(id, job)| Some((gap(id, &job.told)?, id.clone())));
        gaps.max().unwrap_or_default()
    }

    /// What happened, for people.
    pub fn summary(&self, followers: &[Seen]) -> String {
        let done: Vec<String> =
            self.entries.done.iter().map(|(name, (good, bad))| format!("{name} {good}+{bad}")).collect();
        let received = self.stage.receiver.received();
        let (once, again) = repeats(&received.accepted);
        format!(
            "{} batches acknowledged, {} events, {once} deliveries accepted and {again} again ({:.1} %), {} attempts; \
             the followers' streams began {:?} times; succeeded+failed: {}",
            self.entries.acknowledged.len(),
            followers.iter().map(|seen| seen.events.len()).max().unwrap_or(0),
            f64::from(u32::try_from(again).unwrap()) * 100.0 / f64::from(u32::try_from(once.max(1)).unwrap()),
            received.attempts,
            followers.iter().map(|seen| seen.streams).collect::<Vec<_>>(),
            done.join(", "),
        )
    }

    /// The number of the last event.
    pub fn last_event(&self) -> u64 {
        let last = self.stage.json(self.names[0], "/v1/events?newest=1");
        last.and_then(|last| last["data"][0]["sequence"].as_u64()).unwrap_or(0)
    }

    /// Every item of a list; of each page whichever daemon's turn it is.
    fn all(&self, path: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        for name in self.names.iter().cycle() {
            let page = self.stage.json(name, &format!("{path}limit=1000{after}")).unwrap_or_default();
            all.extend(page["data"].as_array().into_iter().flatten().cloned());
            if page["has_more"] != true {
                break;
            }
            let last = page["last_id"].as_str().map_or_else(|| page["last_id"].to_string(), str::to_owned);
            after = format!("&after={last}");
        }
        all
    }

    fn events(&self) -> BTreeMap<u64, Event> {
        let event = |body: Value| {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let data = &body["data"];
            let batch = data["id"].as_str().map(|id| (text(&data["provider"]), id.to_owned()));
            let sequence = body["sequence"].as_u64().unwrap_or(0);
            let meaning = meaning(&body);
            (sequence, Event { id: text(&body["id"]), kind: text(&body["type"]), batch, meaning })
        };
        self.all("/v1/events?").into_iter().map(event).collect()
    }
}

/// How many deliveries were accepted, and how often one was accepted again.
fn repeats(accepted: &BTreeMap<String, BTreeMap<String, u32>>) -> (usize, usize) {
    let counts: Vec<u32> = accepted.values().flat_map(|events| events.values().copied()).collect();
    (counts.len(), counts.iter().map(|count| count.saturating_sub(1) as usize).sum())
}

/// How many requests of an account came within any minute.
pub fn most_in_a_minute(asked: &[Instant]) -> usize {
    let within = |at: usize| {
        let begun = asked[at];
        asked[at..].iter().take_while(|other| other.duration_since(begun) < Duration::from_mins(1)).count()
    };
    (0..asked.len()).map(within).max().unwrap_or(0)
}

pub const ENDS: [&str; 4] = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"];
pub const STATUSES: [&str; 8] = [
    "batch.validating",
    "batch.in_progress",
    "batch.finalizing",
    "batch.cancelling",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
];
