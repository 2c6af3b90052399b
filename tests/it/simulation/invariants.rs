//! What must hold whatever went wrong, judged by what people were told, what providers did and what receivers got.

use super::ledger::{ENDS, Standing};
use super::operator::{Operator, encoded};
use super::plan::Plan;
use axum::body::Body;
use batchd::sync::lock;
use http::Method;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIVE: [&str; 4] = ["validating", "in_progress", "finalizing", "cancelling"];

/// From here on nothing goes wrong: people do what they do after trouble.
pub async fn peace(operator: &Operator) {
    for attempt in 0.. {
        let reloaded = operator.call(None, Method::POST, "/v1/reload", Body::empty()).await;
        if reloaded.is_some_and(|(status, _)| status.is_success()) {
            break;
        }
        assert!(attempt < 10, "the configuration is never taken");
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    only_the_hopeless_are_dead(operator).await;
    for webhook in ["pipeline", "ends", "ops"] {
        operator.call(None, Method::POST, &format!("/v1/webhooks/{webhook}/enable"), Body::empty()).await;
    }
    operator.call(None, Method::POST, "/v1/deliveries/retry", Body::empty()).await;
}

/// A delivery is given up after enough attempts, or if it kills whoever sends it.
async fn only_the_hopeless_are_dead(operator: &Operator) {
    let dead = all(operator, "/v1/deliveries?state=dead").await;
    for delivery in dead {
        let attempts = delivery["attempts"].as_u64().unwrap_or_default();
        let crashed = delivery["last_error"].as_str().is_some_and(|error| error.starts_with("crash_loop"));
        assert!(attempts >= 6 || crashed, "given up too early: {delivery}");
    }
}

/// Every entry of a list.
pub async fn all(operator: &Operator, path: &str) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut after = String::new();
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page = operator.get(&format!("{path}{mark}limit=1000{after}")).await;
        let page = page.unwrap_or_else(|| panic!("{path} cannot be read"));
        entries.extend(page["data"].as_array().cloned().unwrap_or_default());
        if page["has_more"] != true {
            return entries;
        }
        after = format!("&after={}", encoded(page["last_id"].as_str().unwrap_or_default()));
    }
}

/// Judges everything, a day after the last trouble.
pub async fn judge(operator: &Operator, plan: &Plan) {
    operator.read_events().await;
    let ready = operator.call(None, Method::GET, "/readyz", Body::empty()).await;
    assert!(ready.as_ref().is_some_and(|(status, _)| status.is_success()), "not ready: {ready:?}");
    let tracked = tracked(operator).await;
    nothing_acknowledged_is_lost(operator, plan, &tracked);
    ends_are_recorded(operator, plan, &tracked);
    the_log_is_whole(operator, plan);
    for key in tracked.keys() {
        transitions_are_in_order(operator, key).await;
    }
    what_is_owed_has_arrived(operator, plan).await;
    nothing_is_created_twice(operator, plan, &tracked);
    the_active_are_polled(operator, plan.form.longest, &tracked);
    limits_are_kept(operator, plan);
}

/// Every batch that batchd has, by `ACCOUNT:ID`.
pub async fn tracked(operator: &Operator) -> BTreeMap<String, Value> {
    let batches = all(operator, "/v1/batches").await.into_iter();
    let key = |batch: &Value| format!("{}:{}", word(&batch["batchd"]["provider"]), word(&batch["id"]));
    batches.map(|batch| (key(&batch), batch)).collect()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether retention may have deleted what has ended.
fn may_be_pruned(plan: &Plan) -> bool {
    plan.form.retain_days < 10 || plan.is_a_wrong_year_believed()
}

fn nothing_acknowledged_is_lost(operator: &Operator, plan: &Plan, tracked: &BTreeMap<String, Value>) {
    let outside = &operator.outside;
    let batches = outside.providers.batches();
    for (key, standing) in &lock(&outside.ledger).batches {
        let (account, id) = key.split_once(':').unwrap();
        let truth = batches.get(&(account.to_owned(), id.to_owned()));
        // What the provider does not know, or not for long, is lost one day.
        let over = truth.is_none_or(|batch| batch.is_ever_gone() || batch.end().is_some());
        match standing {
            Standing::Tracked => {
                let there = tracked.contains_key(key) || (over && may_be_pruned(plan));
                assert!(there, "{key} was acknowledged and is not there");
                let untracked =
                    tracked.get(key).is_some_and(|batch| !batch["batchd"]["untracked_at"].is_null());
                assert!(!untracked, "{key} was tracked last and is untracked");
            }
            Standing::Untracked => {
                let active = tracked.get(key).is_some_and(|batch| batch["batchd"]["untracked_at"].is_null());
                assert!(!active || plan.form.discover, "{key} was untracked last and is watched");
            }
            Standing::Doubtful | Standing::Purged => {}
        }
    }
}

/// What the provider shows as ended for good is recorded so, with one event.
fn ends_are_recorded(operator: &Operator, plan: &Plan, tracked: &BTreeMap<String, Value>) {
    let outside = &operator.outside;
    let batches = outside.providers.batches();
    let ledger = lock(&outside.ledger);
    for (key, batch) in tracked {
        let (account, id) = key.split_once(':').unwrap();
        let untracked = !batch["batchd"]["untracked_at"].is_null();
        let Some(truth) = batches.get(&(account.to_owned(), id.to_owned())) else { continue };
        let Some((at, status)) = truth.end().filter(|(at, _)| *at < plan.peace) else { continue };
        let told = ledger
            .events
            .values()
            .filter(|event| {
                word(&event["data"]["provider"]) == account
                    && word(&event["data"]["id"]) == id
                    && ENDS.iter().any(|end| word(&event["type"]) == format!("batch.{end}"))
            })
            .map(|event| word(&event["type"]).to_owned())
            .collect::<Vec<_>>();
        if ledger.ever_purged.contains(key) {
            continue;
        }
        if untracked {
            assert!(told.len() <= 1, "{key} has ended more than once: {told:?}");
            continue;
        }
        assert_eq!(word(&batch["status"]), status, "{key} ended at {at:?}, told {told:?}: {batch}");
        let silent = truth.shown_end.is_none() || (plan.form.discover && told.is_empty());
        assert!(told == [format!("batch.{status}")] || silent, "{key} is {status} and was told as {told:?}");
    }
}

/// How many events there can be about one batch in a few days.
const MOST_OF_ONE: usize = 12;

fn the_log_is_whole(operator: &Operator, plan: &Plan) {
    let ledger = lock(&operator.outside.ledger);
    let mut ids = BTreeSet::new();
    let mut statuses = BTreeSet::new();
    let mut ended = BTreeSet::new();
    for event in ledger.events.values() {
        let key = (word(&event["data"]["provider"]), word(&event["data"]["id"]));
        // What was deleted is told anew if it is tracked again.
        if ledger.ever_purged.contains(&format!("{}:{}", key.0, key.1)) {
            continue;
        }
        assert!(ids.insert(word(&event["id"])), "two events with one id: {event}");
        let status = word(&event["type"]).strip_prefix("batch.").filter(|status| ENDS.contains(status));
        if let Some(status) = status {
            assert!(statuses.insert((key, status)), "told twice: {event}");
            ended.insert(key);
        } else if word(&event["type"]).strip_prefix("batch.").is_some_and(|status| LIVE.contains(&status)) {
            // Deleted by retention and found again, it is a new batch.
            if may_be_pruned(plan) && event["data"]["previous_status"].is_null() {
                ended.remove(&key);
            }
            assert!(!ended.contains(&key), "told as live after its end: {event}");
        }
    }
    if !may_be_pruned(plan) {
        let last = usize::try_from(ledger.newest()).unwrap();
        // The events of what was purged go with it, and some nobody had read.
        let purged = ledger.ever_purged.len() * MOST_OF_ONE;
        let missing = last - ledger.events.len();
        assert!(missing <= purged, "the log has gaps: {:?}", ledger.events.keys());
    }
}

async fn transitions_are_in_order(operator: &Operator, key: &str) {
    let shown = operator.get(&format!("/v1/batches/{}?detail=true", encoded(key))).await;
    let shown = shown.unwrap_or_else(|| panic!("{key} cannot be shown"));
    let transitions = shown["batchd"]["transitions"].as_array().cloned().unwrap_or_default();
    let mut before: Option<String> = None;
    for transition in &transitions {
        assert_eq!(transition["from"].as_str(), before.as_deref(), "{key}: {transitions:?}");
        let ended = before.as_deref().is_some_and(|before| ENDS.contains(&before));
        let ends = ENDS.contains(&word(&transition["to"]));
        assert!(!ended || ends, "{key} came back to life: {transitions:?}");
        before = Some(word(&transition["to"]).to_owned());
    }
    if let Some(last) = before {
        assert_eq!(last, word(&shown["status"]), "{key}: {transitions:?}");
    }
}

async fn what_is_owed_has_arrived(operator: &Operator, plan: &Plan) {
    let outside = &operator.outside;
    let purged = lock(&outside.ledger).ever_purged.clone();
    // What is tracked anew after its history was deleted is told anew, under the same id.
    let is_forgotten = |body: &[u8]| {
        let event: Value = serde_json::from_slice(body).unwrap();
        let key = format!("{}:{}", word(&event["data"]["provider"]), word(&event["data"]["id"]));
        may_be_pruned(plan) || purged.contains(&key)
    };
    let mut got: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for webhook in ["pipeline", "pipeline-moved", "ends"] {
        let mut bodies: BTreeMap<String, bytes::Bytes> = BTreeMap::new();
        for one in outside.receivers.received(webhook) {
            let before = bodies.entry(one.id.clone()).or_insert_with(|| one.body.clone());
            assert!(
                *before == one.body || is_forgotten(&one.body),
                "{} was sent with other bytes: {before:?}, {:?}",
                one.id,
                one.body
            );
            if one.taken {
                got.entry(webhook.replace("-moved", "")).or_default().insert(one.id);
            }
        }
        let ledger = lock(&outside.ledger);
        let by_id: BTreeMap<&str, &Value> =
            ledger.events.values().map(|event| (word(&event["id"]), event)).collect();
        for (id, body) in bodies {
            let sent: Value = serde_json::from_slice(&body).unwrap();
            if let Some(logged) = by_id.get(id.as_str())
                && !is_forgotten(&body)
            {
                assert_eq!(**logged, sent, "what was sent is not what is in the log");
            }
        }
    }
    let pipeline = got.remove("pipeline").unwrap_or_default();
    {
        let ledger = lock(&outside.ledger);
        for event in ledger.events.values() {
            let kind = word(&event["type"]);
            let key = format!("{}:{}", word(&event["data"]["provider"]), word(&event["data"]["id"]));
            // What hangs on a batch that was purged went with it.
            let purged = ledger.ever_purged.contains(&key);
            if kind.starts_with("webhook.")
                || kind.starts_with("batchd.")
                || kind.starts_with("batch.results")
                || purged
            {
                continue;
            }
            assert!(pipeline.contains(word(&event["id"])), "pipeline never got {event}");
        }
    }
    for delivery in all(operator, "/v1/deliveries").await {
        assert_eq!(word(&delivery["state"]), "delivered", "a day after all trouble: {delivery}");
    }
}

fn nothing_is_created_twice(operator: &Operator, plan: &Plan, tracked: &BTreeMap<String, Value>) {
    let outside = &operator.outside;
    let mut numbers = BTreeSet::new();
    for ((account, id), batch) in outside.providers.batches() {
        let Some(metadata) = &batch.metadata else { continue };
        let number = word(&metadata["number"]).to_owned();
        assert!(numbers.insert(number.clone()), "submission {number} was created twice");
        let key = format!("{account}:{id}");
        let standing = lock(&outside.ledger).batches.get(&key).copied();
        let given_up = standing == Some(Standing::Purged) || lock(&outside.ledger).ever_purged.contains(&key);
        let there = tracked.contains_key(&key) || given_up || may_be_pruned(plan);
        assert!(there, "submission {number} has created {key}, which nobody watches");
    }
    for (number, id) in &lock(&outside.ledger).submitted {
        let created = outside.providers.batches().into_iter().any(|((_, there), batch)| {
            there == *id
                && batch.metadata.is_some_and(|metadata| word(&metadata["number"]) == number.to_string())
        });
        assert!(created, "submission {number} was acknowledged as {id}, which is another's");
    }
}

/// What is active is polled at least every `longest` minutes, and what jitter and a slow provider may add.
pub fn the_active_are_polled(operator: &Operator, longest: u64, tracked: &BTreeMap<String, Value>) {
    let bound = Duration::from_mins(longest * 3 / 2);
    let outside = &operator.outside;
    let batches = outside.providers.batches();
    for (key, batch) in tracked {
        let active = !ENDS.contains(&word(&batch["status"])) && batch["batchd"]["untracked_at"].is_null();
        if !active {
            continue;
        }
        let (account, id) = key.split_once(':').unwrap();
        let Some(truth) = batches.get(&(account.to_owned(), id.to_owned())) else { continue };
        let gap = truth.longest_gap.max(truth.unseen_for(outside.now()));
        assert!(gap <= bound, "{key} was not polled for {gap:?}: {batch}");
        assert!(!batch["batchd"]["next_poll_at"].is_null(), "{key} is active and never due: {batch}");
    }
}

fn limits_are_kept(operator: &Operator, plan: &Plan) {
    let outside = &operator.outside;
    let lives = lock(&outside.ledger).lives;
    for (account, traffic) in outside.providers.traffic() {
        let most = plan.form.concurrency;
        assert!(traffic.most <= most, "{} requests at once at {account}, which takes {most}", traffic.most);
        for (begun, refused) in &traffic.refused {
            // Each life tries once with all it may, and whatever is asked by hand is asked.
            let by_hand = lock(&outside.ledger).by_hand.len();
            let bound = lives * 4 + u32::try_from(by_hand).unwrap();
            assert!(
                *refused <= bound,
                "{account} said {refused} times from {begun:?} on that it is too much"
            );
        }
    }
}
