//! A webhook is switched off and on at a daemon that does not send to it.

use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::postgres::Postgres;
use crate::{mark, seed};
use serde_json::json;
use std::time::Duration;

const SETUP: Setup = Setup {
    lease: "10s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
    accounts: &[("one", "")],
    webhooks: &[("steady", "rate = \"20/s\""), ("second", "")],
};

#[test]
fn a_webhook_is_switched_off_and_on_wherever_it_is_said() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, SETUP, seed());
    stage.provider.calm();
    let _nodes = Node::all(&stage);
    // Enough to be sending for a while.
    let count: usize = 300;
    let items: Vec<_> = (0..count)
        .map(|_| json!({"id": stage.provider.make("one", Some(Duration::ZERO)), "provider": "one", "check": false}))
        .collect();
    let body = json!({"items": items}).to_string();
    let reply = stage.ask(NAMES[0], "POST", "/v1/batches/track", body.as_bytes());
    assert!(reply.is_some_and(|reply| reply.is_success()));
    within(mark(Duration::from_secs(20)), || (stage.receiver.accepted("steady") > 20).then_some(())).unwrap();
    let owner = stage.owner_of(NAMES[0], "webhook:steady").unwrap();
    let other = NAMES.into_iter().find(|name| *name != owner).unwrap();
    let switch = |word: &str| {
        let reply = stage.ask(other, "POST", &format!("/v1/webhooks/steady/{word}"), b"");
        assert!(reply.is_some_and(|reply| reply.is_success()), "{word} is refused");
        now()
    };
    for round in 0..2 {
        let off = switch("disable");
        pause(mark(Duration::from_secs(2)).min(Duration::from_secs(4)));
        let quiet = stage.receiver.accepted("steady");
        assert!(quiet < count, "everything was sent before it was switched off");
        pause(Duration::from_secs(3));
        assert_eq!(stage.receiver.accepted("steady"), quiet, "round {round}: sent although it is off");
        let last = stage.receiver.last("steady").unwrap().duration_since(off);
        assert!(
            last <= mark(Duration::from_secs(2)),
            "round {round}: sent {last:?} after it was switched off"
        );
        let held = stage.json(owner, "/v1/deliveries?state=held&webhook=steady&limit=1").unwrap();
        assert!(!held["data"].as_array().unwrap().is_empty(), "round {round}: nothing is held");
        switch("enable");
        let goes_on = within(mark(Duration::from_secs(3)), || {
            (stage.receiver.accepted("steady") > quiet).then_some(())
        });
        assert!(goes_on.is_some(), "round {round}: it does not go on");
        eprintln!("switched off at another daemon: the last was sent {last:?} later");
    }
    within(Duration::from_mins(1), || (stage.receiver.accepted("steady") == count).then_some(())).unwrap();
    let left = stage.json(other, "/v1/deliveries?state=held&limit=1").unwrap();
    assert!(left["data"].as_array().unwrap().is_empty(), "something is still held: {left}");
    let received = stage.receiver.received();
    assert!(received.wrong.is_empty(), "{:?}", received.wrong);
    assert!(received.accepted["steady"].values().all(|times| *times == 1), "something was sent twice");
}
