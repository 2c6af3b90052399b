//! Requests whose caller goes away: each operation is dropped at its first poll, at its second, and so on until it is
//! done; what it was about is then done or not done, and never half.

use super::invariants;
use super::operator::{Operator, encoded};
use super::outside::Outside;
use super::plan::{Form, Life, Mood, Plan, Window};
use super::weeks::{Daemon, outside_of, runtime, write_config};
use axum::body::Body;
use batchd::failpoint;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const FORM: Form = Form {
    beta: true,
    ends: true,
    ops: true,
    concurrency: 3,
    moved: false,
    discover: false,
    retain_days: 90,
    longest: 3,
};

/// No operation is polled more often.
const MOST_POLLS: u32 = 400;

type Answered = Option<(StatusCode, Value)>;

/// Runs `attempt` with ever more patience until it is answered, then has `after` judge the whole, a quarter of an hour
/// later.
#[expect(clippy::needless_pass_by_value, reason = "closures are written where they are used")]
fn drop_at_every_poll(
    moods: BTreeMap<String, Vec<Window<Mood>>>,
    attempt: impl AsyncFn(&Operator, u32) -> Answered,
    after: impl AsyncFn(&Operator),
) {
    let plan = Plan {
        form: FORM,
        lives: vec![alive("lasting"), Life { account: "beta", ..alive("beta") }],
        trouble: BTreeMap::new(),
        moods,
        disk: Vec::new(),
        steps: Vec::new(),
        peace: Duration::ZERO,
    };
    let outside = outside_of(1, &plan, std::env::var_os("SIM_LOG").is_some());
    runtime().block_on(async {
        let daemon = Daemon::start(&outside, 1).await.unwrap();
        let operator = &daemon.operator;
        operator.track("beta:batch_beta", false, None).await;
        for patience in 1.. {
            assert!(patience < MOST_POLLS, "it is never done");
            let answered = attempt(operator, patience).await;
            if let Some((status, body)) = answered {
                assert!(status.is_success(), "after {patience} polls: {status} {body}");
                break;
            }
            // What goes on without its caller comes to its end.
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        tokio::time::sleep(Duration::from_mins(10)).await;
        outside.providers.measure(outside.now());
        tokio::time::sleep(Duration::from_mins(15)).await;
        let tracked = invariants::tracked(operator).await;
        invariants::the_active_are_polled(operator, FORM.longest, &tracked);
        after(operator).await;
        daemon.stop().await;
    });
    failpoint::watch(None);
}

fn alive(id: &str) -> Life {
    Life {
        account: "alpha",
        id: format!("batch_{id}"),
        created: Duration::ZERO,
        takes: None,
        ending: "completed",
        files_after: Duration::ZERO,
        quirks: Vec::new(),
    }
}

/// A batch for the attempt with this patience alone.
fn another(outside: &Outside, patience: u32) -> String {
    let id = format!("{patience}");
    outside.providers.add(Life { created: outside.now(), ..alive(&id) });
    format!("alpha:batch_{id}")
}

async fn nothing_more(_: &Operator) {}

#[test]
fn tracking() {
    for check in [true, false] {
        let track = async |operator: &Operator, patience| {
            let key = another(&operator.outside, patience);
            operator.track(&key, check, Some(patience)).await
        };
        drop_at_every_poll(BTreeMap::new(), track, nothing_more);
    }
}

#[test]
fn tracking_many() {
    let track = async |operator: &Operator, patience| {
        let keys = [1, 2, 3].map(|number| another(&operator.outside, patience * 10 + number));
        let items: Vec<Value> = keys.iter().map(|key| json!({"id": key})).collect();
        let body = json!({"items": items}).to_string();
        operator.call(Some(patience), Method::POST, "/v1/batches/track", body).await
    };
    drop_at_every_poll(BTreeMap::new(), track, nothing_more);
}

#[test]
fn untracking() {
    for purge in [false, true] {
        let untrack = async |operator: &Operator, patience| {
            let key = another(&operator.outside, patience);
            operator.track(&key, false, None).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            operator.untrack(&key, purge, Some(patience)).await
        };
        drop_at_every_poll(BTreeMap::new(), untrack, nothing_more);
    }
}

#[test]
fn polling_and_cancelling() {
    for what in ["poll", "cancel"] {
        let ask = async |operator: &Operator, patience| {
            let key = another(&operator.outside, patience);
            operator.track(&key, false, None).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let path = format!("/v1/batches/{}/{what}", encoded(&key));
            operator.call(Some(patience), Method::POST, &path, Body::empty()).await
        };
        drop_at_every_poll(BTreeMap::new(), ask, nothing_more);
    }
}

#[test]
fn discovering() {
    let discover = async |operator: &Operator, patience| {
        another(&operator.outside, patience);
        let body = json!({"track": true}).to_string();
        operator.call(Some(patience), Method::POST, "/v1/discover", body).await
    };
    drop_at_every_poll(BTreeMap::new(), discover, nothing_more);
}

#[test]
fn a_services_own_webhook() {
    let hook = async |operator: &Operator, patience| {
        let key = another(&operator.outside, patience);
        operator.hook(&key, Some(patience)).await
    };
    drop_at_every_poll(BTreeMap::new(), hook, nothing_more);
}

#[test]
fn submitting() {
    let submit = async |operator: &Operator, patience: u32| {
        let last = operator.submit("alpha", patience, Some(patience)).await?;
        Some((StatusCode::OK, last))
    };
    drop_at_every_poll(BTreeMap::new(), submit, async |operator| {
        let tracked = invariants::tracked(operator).await;
        for ((account, id), batch) in operator.outside.providers.batches() {
            let watched = tracked.contains_key(&format!("{account}:{id}"));
            assert!(batch.metadata.is_none() || watched, "{id} was created and nobody watches it");
        }
    });
}

#[test]
fn reloading() {
    let reload = async |operator: &Operator, patience: u32| {
        let outside = &operator.outside;
        let odd = patience % 2 == 1;
        write_config(outside, Form { beta: odd, ops: !odd, ..FORM });
        let answered = operator.call(Some(patience), Method::POST, "/v1/reload", Body::empty()).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let beta = the_configuration_is_whole(operator).await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        let key = ("beta".to_owned(), "batch_beta".to_owned());
        let unseen = outside.providers.batches()[&key].unseen_for(outside.now());
        assert_eq!(unseen < Duration::from_mins(5), beta, "beta is in one and not in the other: {unseen:?}");
        if answered.is_some() {
            write_config(outside, FORM);
            operator.call(None, Method::POST, "/v1/reload", Body::empty()).await;
        }
        answered
    };
    drop_at_every_poll(BTreeMap::new(), reload, async |operator| {
        assert!(the_configuration_is_whole(operator).await);
    });
}

/// What runs is what the configuration in force says.
///
/// Gives whether `beta` is in it.
async fn the_configuration_is_whole(operator: &Operator) -> bool {
    let config = operator.get("/v1/config").await.unwrap();
    let text = config["toml"].as_str().unwrap();
    for (list, section) in [("/v1/providers", "providers"), ("/v1/webhooks", "webhooks")] {
        let listed = operator.get(list).await.unwrap();
        for name in ["beta", "ends", "ops"] {
            let runs = listed["data"].as_array().unwrap().iter().any(|entry| entry["name"] == name);
            let said = text.contains(&format!("[{section}.{name}]"));
            assert_eq!(runs, said, "{section}.{name}: {text}\n{listed}");
        }
    }
    text.contains("[providers.beta]")
}

#[test]
fn switching_a_webhook_off_and_on() {
    let switch = async |operator: &Operator, patience: u32| {
        let path = |what: &str| format!("/v1/webhooks/pipeline/{what}");
        let off = operator.call(Some(patience), Method::POST, &path("disable"), Body::empty()).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let key = another(&operator.outside, patience);
        operator.track(&key, true, None).await;
        let on = operator.call(Some(patience), Method::POST, &path("enable"), Body::empty()).await;
        off.and(on)
    };
    drop_at_every_poll(BTreeMap::new(), switch, all_arrives);
}

#[test]
fn sending_again() {
    let away = Window { from: Duration::ZERO, to: Duration::from_mins(3), what: Mood::Away };
    let again = async |operator: &Operator, patience: u32| {
        let key = another(&operator.outside, patience);
        operator.track(&key, true, None).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let deliveries = invariants::all(operator, "/v1/deliveries").await;
        let id = deliveries[0]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/deliveries/{id}/retry");
        operator.call(Some(patience), Method::POST, &path, Body::empty()).await
    };
    drop_at_every_poll(BTreeMap::from([("pipeline".to_owned(), vec![away])]), again, all_arrives);
}

async fn all_arrives(operator: &Operator) {
    operator.call(None, Method::POST, "/v1/webhooks/pipeline/enable", Body::empty()).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    for delivery in invariants::all(operator, "/v1/deliveries").await {
        assert_eq!(delivery["state"], "delivered", "{delivery}");
    }
}
