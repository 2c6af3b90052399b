//! The judge of the torture: it holds what clients were promised, what the provider saw and what the receiver got against
//! what the daemon says in the end, and against its database once it has stopped.

use crate::client::{Reply, ask};
use crate::ledger::Entries;
use crate::patience::{now, pause};
use crate::receiver::Received;
use crate::stage::{Death, Stage};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

pub struct Checker<'a> {
    pub stage: &'a Stage,
    pub entries: Entries,
    pub deaths: &'a [Death],
    /// When the last daemon was started.
    pub last_start: Instant,
    /// Whether histories were deleted, so that numbers may be missing.
    pub deletes: bool,
}

/// So many times the limit, deliveries may go on being accepted.
const MOST_LIMITS: u32 = 20;

/// An event as the log has it.
struct Event {
    id: String,
    kind: String,
    batch: Option<(String, String)>,
    body: Value,
}

impl Checker<'_> {
    /// Waits until all that is owed is settled; gives what is not once nothing was accepted for `limit`. What was owed
    /// when the last daemon started may be thousands of deliveries.
    pub fn settle(&self, limit: Duration) -> Vec<String> {
        let (mut accepted, mut since) = (0, now());
        let begun = since;
        loop {
            let open = self.open();
            let so_far = self.stage.receiver.received().iter().filter(|one| is_accepted(one)).count();
            if so_far > accepted {
                (accepted, since) = (so_far, now());
            }
            let given_up = since.elapsed() > limit || begun.elapsed() > limit * MOST_LIMITS;
            if open.is_empty() || given_up {
                return open.into_iter().map(|what| format!("not settled: {what}")).collect();
            }
            pause(Duration::from_millis(200));
        }
    }

    /// What has not come to rest yet.
    fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for state in ["pending", "inflight"] {
            let told = self.get(&format!("/v1/deliveries?state={state}&limit=1"));
            if let Some(first) = told["data"].get(0) {
                open.push(format!("a delivery is {state}: {first}"));
            }
        }
        let batches = self.batches();
        for (id, job) in self.stage.provider.jobs() {
            let known = batches.get(&id);
            let wanted = self.entries.acknowledged.contains_key(&id) && !self.is_given_up(&id);
            if wanted && job.is_over() && known.is_some_and(|batch| batch["batchd"]["outcome"].is_null()) {
                open.push(format!("{id} has ended at its provider, and batchd does not know"));
            }
            if wanted && job.life.is_none() && job.told_at.is_none_or(|at| at < self.last_start) {
                open.push(format!("{id} is active and has not been checked since the last start"));
            }
            let is_ours = job.metadata.contains_key("batchd_id");
            if is_ours && known.is_none() && !self.is_given_up(&id) {
                open.push(format!("{id} was created by batchd and is not tracked: {:?}", job.metadata));
            }
        }
        open
    }

    fn is_given_up(&self, id: &str) -> bool {
        self.entries.purged.contains(id) || self.entries.untracked.contains(id) || self.deletes
    }

    /// Everything that can be said while the daemon runs.
    pub fn judge_running(&self) -> Vec<String> {
        let mut wrong = self.entries.wrong.clone();
        let batches = self.batches();
        let events = self.events();
        let jobs = self.stage.provider.jobs();

        for (id, how) in &self.entries.acknowledged {
            // Where histories are deleted, what has ended or is not watched any more goes in time.
            let in_time = jobs[id].is_over() || self.entries.untracked.contains(id);
            let may_be_gone = self.entries.purged.contains(id) || self.deletes && in_time;
            if !batches.contains_key(id) && !may_be_gone {
                wrong.push(format!("{id} was acknowledged ({how}) and is lost"));
            }
        }

        let mut marks: BTreeMap<(&str, &str), Vec<&String>> = BTreeMap::new();
        for (id, job) in &jobs {
            for key in ["batchd_id", "tag"] {
                if let Some(value) = job.metadata.get(key) {
                    marks.entry((key, value)).or_default().push(id);
                }
            }
        }
        for (mark, ids) in marks.iter().filter(|(_, ids)| ids.len() > 1) {
            wrong.push(format!("{mark:?} was created {} times: {ids:?}", ids.len()));
        }
        for (tag, told) in &self.entries.submitted {
            let created = marks.get(&("tag", tag.as_str())).and_then(|ids| ids.first());
            if told.is_some() && told.as_ref() != created.copied() {
                wrong.push(format!("submission {tag} was told {told:?}; the provider has {created:?}"));
            }
        }

        let mut once: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
        for (sequence, event) in &events {
            if let Some(other) = ids.insert(&event.id, *sequence) {
                wrong.push(format!("event {} is in the log as {other} and as {sequence}", event.id));
            }
            if let (Some((provider, batch)), true) = (&event.batch, event.kind.starts_with("batch.")) {
                let is_status = !FINDINGS.contains(&event.kind.as_str());
                let key = (provider.clone(), batch.clone(), event.kind.clone());
                if is_status && let Some(other) = once.insert(key, *sequence) {
                    wrong.push(format!("{batch} is told of twice as {}: {other}, {sequence}", event.kind));
                }
            }
        }
        if !self.deletes
            && let Some(last) = events.keys().next_back()
        {
            let missing: Vec<u64> = (1..=*last).filter(|number| !events.contains_key(number)).collect();
            if !missing.is_empty() {
                wrong.push(format!("the log has gaps: {missing:?}"));
            }
            for (sequence, id) in &self.entries.read {
                if events.get(sequence).is_none_or(|event| event.id != *id) {
                    wrong.push(format!("event {sequence} was read as {id} and is gone or another one now"));
                }
            }
        }
        wrong.extend(self.judge_deliveries(&events, &batches));
        wrong
    }

    /// What the receiver got, against the log.
    fn judge_deliveries(
        &self,
        events: &BTreeMap<u64, Event>,
        batches: &BTreeMap<String, Value>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let received = self.stage.receiver.received();
        let by_id: BTreeMap<&str, &Event> = events.values().map(|event| (event.id.as_str(), event)).collect();
        // What is found again after somebody had its history deleted is told anew, under the same id.
        let is_told_anew = |one: &Received| {
            let told: Value = serde_json::from_slice(&one.body).unwrap_or_default();
            told["data"]["id"].as_str().is_some_and(|id| self.entries.purged.contains(id))
        };
        let told_anew: BTreeSet<&str> =
            received.iter().filter(|one| is_told_anew(one)).map(|one| one.id.as_str()).collect();
        let mut bodies: BTreeMap<&str, &Received> = BTreeMap::new();
        let mut attempts: BTreeMap<(&str, &str), Vec<&Received>> = BTreeMap::new();
        for one in &received {
            let first = *bodies.entry(&one.id).or_insert(one);
            if first.body != one.body && !told_anew.contains(one.id.as_str()) {
                wrong.push(format!(
                    "event {} was sent with other bytes than before to {}",
                    one.id, one.webhook
                ));
            }
            attempts.entry((&one.webhook, &one.id)).or_default().push(one);
        }
        for (id, first) in &bodies {
            let told: Value = serde_json::from_slice(&first.body).unwrap_or_default();
            match by_id.get(id) {
                Some(event) if event.body == told => {}
                Some(_) if told_anew.contains(id) => {}
                Some(event) => {
                    wrong.push(format!("event {id} was sent as {told}, and the log says {}", event.body));
                }
                None if self.deletes => {}
                None => wrong.push(format!("event {id} was sent to {} and is not in the log", first.webhook)),
            }
        }
        for event in events.values() {
            let is_end = ENDS.contains(&event.kind.as_str());
            let needs = |webhook: &&str| **webhook == *"steady" || is_end;
            for webhook in ["steady", "slow", "flaky", "mute"].iter().filter(|webhook| needs(webhook)) {
                if FINDINGS.contains(&event.kind.as_str()) || event.batch.is_none() {
                    continue;
                }
                let accepted = attempts.get(&(*webhook, event.id.as_str()));
                let accepted = accepted.is_some_and(|all| all.iter().any(|one| is_accepted(one)));
                if !accepted {
                    wrong.push(format!("{webhook} has not accepted {} of {:?}", event.kind, event.batch));
                }
            }
        }
        let ended = |id: &String| {
            let kinds: BTreeSet<&str> = events
                .values()
                .filter(|event| event.batch.as_ref().is_some_and(|(_, batch)| batch == id))
                .map(|event| event.kind.as_str())
                .collect();
            ENDS.iter().any(|end| kinds.contains(end))
        };
        for (id, job) in self.stage.provider.jobs() {
            let wanted = self.entries.acknowledged.contains_key(&id) && !self.is_given_up(&id);
            if wanted && job.is_over() && batches.contains_key(&id) && !ended(&id) {
                wrong.push(format!("{id} has ended, and no event says so"));
            }
        }
        // Nothing that was accepted is sent again, unless a daemon died before it can have noted that.
        for ((webhook, id), all) in &attempts {
            for pair in all.windows(2) {
                let Some((200, at)) = pair[0].answered else { continue };
                let excused = self.deaths.iter().any(|death| {
                    death.until <= pair[1].began
                        && death.from < at + NOTED_WITHIN
                        && death.until >= pair[0].began
                });
                // The daemon waits for 1 s, and began to wait before the receiver saw the request.
                let late = at.duration_since(pair[0].began) > Duration::from_millis(400);
                if !excused && !late && !told_anew.contains(id) {
                    wrong.push(format!("{webhook} accepted {id} and got it again although nobody had died"));
                }
            }
        }
        let dead = self.get("/v1/deliveries?state=dead&limit=1000");
        for delivery in dead["data"].as_array().into_iter().flatten() {
            wrong.push(format!("a delivery was given up: {delivery}"));
        }
        wrong
    }

    /// The database after a stop, and every backup.
    pub fn judge_stopped(&self) -> Vec<String> {
        let mut wrong = sound(&self.stage.database());
        let database = open(&self.stage.database());
        for (what, query) in [
            ("deliveries are in flight", "SELECT count(*) FROM deliveries WHERE state = 'inflight'"),
            (
                "active batches are on no schedule",
                "SELECT count(*) FROM batches WHERE active = 1 AND waiting_for IS NULL
                   AND pk NOT IN (SELECT batch FROM checks)",
            ),
            (
                "events are there without their batch",
                "SELECT count(*) FROM events WHERE batch IS NOT NULL AND batch NOT IN (SELECT pk FROM batches)",
            ),
            (
                "transitions have no event",
                "SELECT count(*) FROM transitions JOIN batches ON batches.pk = transitions.batch
                 WHERE origin = 'hand' AND NOT EXISTS (SELECT 1 FROM events
                   WHERE events.batch = transitions.batch AND events.type = 'batch.' || to_status)",
            ),
        ] {
            let count: i64 = database.query_row(query, [], |row| row.get(0)).unwrap();
            if count != 0 {
                wrong.push(format!("after the stop {count} {what}"));
            }
        }
        for (path, before) in &self.entries.backups {
            wrong.extend(sound(path));
            let backup = open(path);
            let mut ids = backup.prepare("SELECT id FROM batches").unwrap();
            let ids: BTreeSet<String> =
                ids.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
            let lost: Vec<&String> = before
                .iter()
                .filter(|id| !self.deletes && !self.entries.purged.contains(*id) && !ids.contains(*id))
                .collect();
            if !lost.is_empty() {
                wrong.push(format!("{} lacks what was acknowledged before: {lost:?}", path.display()));
            }
        }
        let log = std::fs::read_to_string(self.stage.log_file()).unwrap_or_default();
        wrong.extend(log.lines().filter(|line| line.contains("panicked")).map(|line| format!("log: {line}")));
        wrong
    }

    fn get(&self, path: &str) -> Value {
        let reply = ask(&self.stage.socket(), "GET", path, b"", Duration::from_secs(20));
        reply.filter(Reply::is_success).map(|reply| reply.json()).unwrap_or_default()
    }

    /// Every item of a list.
    fn all(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=1000{after}"));
            all.extend(page["data"].as_array().into_iter().flatten().cloned());
            if page["has_more"] != true {
                return all;
            }
            let last = page["last_id"].as_str().map_or_else(|| page["last_id"].to_string(), str::to_owned);
            after = format!("&after={last}");
        }
    }

    fn batches(&self) -> BTreeMap<String, Value> {
        let all = self.all("/v1/batches").into_iter();
        all.map(|batch| (batch["id"].as_str().unwrap_or("").to_owned(), batch)).collect()
    }

    fn events(&self) -> BTreeMap<u64, Event> {
        let event = |body: Value| {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let data = &body["data"];
            let batch = data["id"].as_str().map(|id| (text(&data["provider"]), id.to_owned()));
            let sequence = body["sequence"].as_u64().unwrap_or(0);
            (sequence, Event { id: text(&body["id"]), kind: text(&body["type"]), batch, body })
        };
        self.all("/v1/events").into_iter().map(event).collect()
    }

    /// What happened, for people.
    pub fn summary(&self) -> String {
        let done: Vec<String> =
            self.entries.done.iter().map(|(name, (good, bad))| format!("{name} {good}+{bad}")).collect();
        let received = self.stage.receiver.received();
        let mut sent: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for one in received.iter().filter(|one| is_accepted(one)) {
            *sent.entry((&one.webhook, &one.id)).or_default() += 1;
        }
        let twice: u64 = sent.values().map(|count| count - 1).sum();
        format!(
            "{} deaths, {} batches acknowledged, {} backups, {} attempts received, {} accepted once and {twice} again; \
             succeeded+failed: {}; it took until {:?} after the last start",
            self.deaths.len(),
            self.entries.acknowledged.len(),
            self.entries.backups.len(),
            received.len(),
            sent.len(),
            done.join(", "),
            now().duration_since(self.last_start),
        )
    }
}

fn is_accepted(one: &Received) -> bool {
    one.answered.is_some_and(|(status, _)| status == 200)
}

fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .unwrap()
}

/// What SQLite itself finds wrong with a database.
fn sound(path: &Path) -> Vec<String> {
    let check = || -> rusqlite::Result<Vec<String>> {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut found = Vec::new();
        let mut integrity = database.prepare("PRAGMA integrity_check")?;
        for line in integrity.query_map([], |row| row.get::<_, String>(0))? {
            found.push(line?);
        }
        let mut keys = database.prepare("PRAGMA foreign_key_check")?;
        for table in keys.query_map([], |row| row.get::<_, String>(0))? {
            found.push(format!("a row of {} refers to nothing", table?));
        }
        Ok(found)
    };
    match check() {
        Ok(found) => found
            .into_iter()
            .filter(|line| line != "ok")
            .map(|line| format!("{}: {line}", path.display()))
            .collect(),
        Err(error) => vec![format!("{} cannot be opened: {error}", path.display())],
    }
}

const ENDS: [&str; 4] = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"];
const FINDINGS: [&str; 6] = [
    "batch.stalled",
    "batch.overdue",
    "batch.lost",
    "batch.results_expiring",
    "batch.results_downloaded",
    "batch.results_failed",
];
/// An accepted delivery is noted in the database by then, on a busy machine too.
const NOTED_WITHIN: Duration = Duration::from_secs(4);
