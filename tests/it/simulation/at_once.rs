//! The same thing asked for twice at once: two reloads, and a delivery sent again while it is being sent.

use super::operator::Operator;
use super::outside::Outside;
use super::plan::{Form, Life, Mood, Plan, Window};
use super::weeks::{Daemon, outside_of, runtime, write_config};
use axum::body::Body;
use batchd::failpoint;
use http::{Method, StatusCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Everything, and as little as may be: a reload from the one to the other takes longer than back.
const ALL: Form = Form {
    beta: true,
    ends: true,
    ops: true,
    concurrency: 3,
    moved: true,
    discover: false,
    retain_days: 90,
    longest: 3,
};
const LITTLE: Form = Form { beta: false, ends: false, ops: false, moved: false, ..ALL };

/// After so many turns of the other tasks the second begins.
const MOST_TURNS: u32 = 40;

fn world(form: Form, moods: BTreeMap<String, Vec<Window<Mood>>>) -> Arc<Outside> {
    let plan = Plan {
        form,
        lives: vec![Life {
            account: "alpha",
            id: "batch_1".to_owned(),
            created: Duration::ZERO,
            takes: None,
            ending: "completed",
            files_after: Duration::ZERO,
            quirks: Vec::new(),
        }],
        trouble: BTreeMap::new(),
        moods,
        disk: Vec::new(),
        steps: Vec::new(),
        peace: Duration::ZERO,
    };
    outside_of(1, &plan, std::env::var_os("SIM_LOG").is_some())
}

#[test]
fn of_two_reloads_at_once_the_file_as_it_is_last_is_in_force() {
    let outside = world(LITTLE, BTreeMap::new());
    runtime().block_on(async {
        let daemon = Daemon::start(&outside, 1).await.unwrap();
        let operator = &daemon.operator;
        for turns in 0..MOST_TURNS {
            for (first, second) in [(ALL, LITTLE), (LITTLE, ALL)] {
                write_config(&outside, first);
                let later = async {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    write_config(&outside, second);
                    reload(operator).await;
                };
                tokio::join!(reload(operator), later);
                let said = operator.get("/v1/config").await.unwrap()["toml"].as_str().unwrap().to_owned();
                for (list, section) in [("/v1/providers", "providers"), ("/v1/webhooks", "webhooks")] {
                    let listed = operator.get(list).await.unwrap();
                    for name in ["beta", "ends", "ops"] {
                        let runs =
                            listed["data"].as_array().unwrap().iter().any(|entry| entry["name"] == name);
                        let wanted = second == ALL && (section == "providers") == (name == "beta");
                        assert_eq!(runs, wanted, "{section}.{name} after {turns} turns: {said}");
                        assert_eq!(said.contains(&format!("[{section}.{name}]")), wanted, "{said}");
                    }
                }
                let status = operator.get("/v1/status").await.unwrap();
                assert!(status["reload_error"].is_null(), "{status}");
            }
        }
        daemon.stop().await;
    });
    failpoint::watch(None);
}

async fn reload(operator: &Operator) {
    let answer = operator.call(None, Method::POST, "/v1/reload", Body::empty()).await;
    assert_eq!(answer.map(|(status, _)| status), Some(StatusCode::OK));
}

#[test]
fn f11_what_is_being_sent_is_not_sent_again_by_hand() {
    let slow = Window {
        from: Duration::ZERO,
        to: Duration::from_hours(1),
        what: Mood::Slow(Duration::from_secs(8)),
    };
    let outside = world(LITTLE, BTreeMap::from([("pipeline".to_owned(), vec![slow])]));
    runtime().block_on(async {
        let daemon = Daemon::start(&outside, 1).await.unwrap();
        let operator = &daemon.operator;
        operator.track("alpha:batch_1", true, None).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let deliveries = operator.get("/v1/deliveries").await.unwrap();
        assert_eq!(deliveries["data"][0]["state"], "inflight", "{deliveries}");
        let path = format!("/v1/deliveries/{}/retry", deliveries["data"][0]["id"].as_str().unwrap());
        let (status, body) = operator.call(None, Method::POST, &path, Body::empty()).await.unwrap();
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::CONFLICT, &"delivery_in_flight".into()),
            "{body}"
        );
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(outside.receivers.received("pipeline").len(), 1);
        let (status, _) = operator.call(None, Method::POST, &path, Body::empty()).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(outside.receivers.received("pipeline").len(), 2);
        daemon.stop().await;
    });
    failpoint::watch(None);
}
