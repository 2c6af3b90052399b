//! What a daemon did that is gone is done by others soon: after a kill, and after a stop.

use crate::patience::{now, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::postgres::Postgres;
use crate::{amount, is_long, mark, seed};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

fn setup() -> Setup {
    Setup {
        lease: if is_long() { "10s" } else { "3s" },
        polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
        accounts: &[("one", ""), ("two", "")],
        webhooks: &[("steady", ""), ("second", "")],
    }
}

#[test]
fn what_a_killed_or_stopped_daemon_did_others_do_in_time() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, setup(), seed());
    stage.provider.calm();
    let mut nodes = Node::all(&stage);
    let (mut owned_after, mut sent_after, mut stopped_after) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..amount("TAKEOVERS", 1, 20) {
        // One is under way when it dies.
        stage.receiver.slow_down("steady", Duration::from_mins(1));
        let before = stage.receiver.last("steady");
        let id = stage.provider.make("one", Some(Duration::ZERO));
        let body = json!({"provider": "one"}).to_string();
        let reply = stage.ask(NAMES[0], "PUT", &format!("/v1/batches/{id}"), body.as_bytes());
        assert!(reply.is_some_and(|reply| reply.is_success()), "{id} is not registered");
        within(mark(Duration::from_secs(10)), || (stage.receiver.last("steady") > before).then_some(()))
            .unwrap();
        let owner = stage.owner_of(NAMES[0], "webhook:steady").unwrap();
        let alive: Vec<&str> = NAMES.into_iter().filter(|name| *name != owner).collect();
        let node = nodes.iter_mut().find(|node| node.name == owner).unwrap();
        let (began, killed_at) = (stage.receiver.last("steady"), now());
        node.kill().unwrap();
        let followed = stage.until_all_is_owned_by(&alive, mark(Duration::from_secs(13)));
        owned_after
            .push(followed.unwrap_or_else(|| panic!("kill {number} of {owner}: not all is owned in time")));
        let sent = within(mark(Duration::from_secs(15)), || {
            (stage.receiver.last("steady") > began).then(|| killed_at.elapsed())
        });
        sent_after
            .push(sent.unwrap_or_else(|| panic!("kill {number} of {owner}: what was under way is not sent")));
        stage.receiver.calm();
        node.start();
        node.answers().unwrap();

        // Who follows it is told to stop.
        let leaving =
            within(mark(Duration::from_secs(5)), || stage.owner_of(alive[0], "webhook:steady")).unwrap();
        let staying: Vec<&str> = NAMES.into_iter().filter(|name| *name != leaving).collect();
        let node = nodes.iter_mut().find(|node| node.name == leaving).unwrap();
        node.signal(Signal::SIGTERM);
        let followed = stage.until_all_is_owned_by(&staying, mark(Duration::from_secs(3)));
        stopped_after
            .push(followed.unwrap_or_else(|| panic!("stop {number} of {leaving}: not all is owned in time")));
        node.stop().unwrap();
        node.start();
        node.answers().unwrap();
    }
    let most = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    eprintln!(
        "lease {}, {} kills: all owned after {:?} at most, sent again after {:?}; {} stops: owned after {:?}",
        setup().lease,
        owned_after.len(),
        most(&owned_after),
        most(&sent_after),
        stopped_after.len(),
        most(&stopped_after)
    );
}
