//! Daemons that fall silent and live: stopped with the lock in their hands that every commit takes, or cut off from the
//! server. The others go on, and the silent ones write nothing any more.

use crate::hunt::report;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::postgres::{Postgres, query};
use crate::support::proxy::{Passage, Way};
use crate::{is_long, mark, seed};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

const SETUP: Setup = Setup {
    lease: "3s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
    accounts: &[("one", ""), ("two", "")],
    webhooks: &[("steady", ""), ("second", "")],
};

/// Registers a batch at a daemon that is to end at once; whether that was acknowledged.
fn registered(stage: &Stage<'_>, ledger: &Ledger, name: &str, account: &str) -> bool {
    let id = stage.provider.make(account, Some(Duration::from_millis(500)));
    let body = json!({"provider": account, "check": false}).to_string();
    let reply = stage.ask(name, "PUT", &format!("/v1/batches/{id}"), body.as_bytes());
    let well = reply.is_some_and(|reply| reply.is_success());
    if well {
        ledger.acknowledge(&id);
    }
    well
}

/// The numbers of the last commits of daemons that were given up, by their ids.
fn last_commits(stage: &Stage<'_>) -> Vec<Vec<Option<String>>> {
    query(&stage.url, "SELECT id, commits FROM members WHERE dead = 1 ORDER BY id").unwrap()
}

#[test]
fn who_is_stopped_with_the_lock_in_hand_holds_up_nobody_for_long() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, SETUP, seed());
    stage.provider.calm();
    let nodes = Node::all(&stage);
    let (ledger, begun) = (Ledger::default(), now());
    // The server answers them late, so that they are in the middle of a transaction most of the time.
    for name in &NAMES[..2] {
        stage.proxy(name).set(Way::ToClient, Passage::Delay(Duration::from_millis(100)));
    }
    let database = stage.url.rsplit('/').next().unwrap();
    let holding = format!(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = '{database}' \
         AND relation = (SELECT oid FROM pg_class WHERE relname = 'head') AND mode = 'RowShareLock' \
         AND locktype = 'relation' AND state = 'idle in transaction'"
    );
    let waiting = holding.replace("state = 'idle in transaction'", "wait_event_type = 'Lock'");
    let count = |sql: &str| query(&stage.url, sql).unwrap()[0][0].clone().unwrap().parse::<u32>().unwrap();
    // One holds the lock, and the other waits for it or has it, when both are stopped.
    let caught = within(Duration::from_mins(1), || {
        std::thread::scope(|scope| {
            for name in &NAMES[..2] {
                scope.spawn(|| registered(&stage, &ledger, name, "one"));
            }
            let held = within(Duration::from_secs(2), || (count(&holding) > 0).then_some(()));
            for node in &nodes[..2] {
                node.signal(Signal::SIGSTOP);
            }
            pause(Duration::from_millis(150));
            let held = held.is_some() && count(&holding) > 0;
            if held {
                eprintln!("{} hold the lock, {} wait for it", count(&holding), count(&waiting));
                // Whoever asked is let go.
                for name in &NAMES[..2] {
                    stage.proxy(name).set(Way::ToClient, Passage::Pass);
                }
            }
            let stopped = now();
            let after = held.then(|| {
                within(mark(Duration::from_secs(3)), || {
                    registered(&stage, &ledger, NAMES[2], "two").then(|| stopped.elapsed())
                })
            });
            if held {
                // They are given up, and have whoever asked them wait until they go on.
                stage.until_all_is_owned_by(&NAMES[2..], mark(Duration::from_secs(10))).unwrap();
                let before = last_commits(&stage);
                assert_eq!(before.len(), 2, "{before:?}");
                for node in &nodes[..2] {
                    node.signal(Signal::SIGCONT);
                }
                let joined = |node: &Node<'_>| node.log().contains("it joins them anew").then_some(());
                for node in &nodes[..2] {
                    within(mark(Duration::from_secs(10)), || joined(node)).unwrap();
                }
                assert_eq!(last_commits(&stage), before, "they wrote something after they were given up");
            } else {
                for node in &nodes[..2] {
                    node.signal(Signal::SIGCONT);
                }
            }
            after
        })
    });
    let after =
        caught.expect("no daemon was stopped with the lock in hand").expect("the others do not go on");
    eprintln!("two daemons stopped with the lock in hand: the third commits again after {after:?}");
    let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES };
    let mut wrong = judge.settle(begun, Duration::from_mins(1));
    wrong.extend(judge.judge());
    report(&stage, wrong, seed());
}

#[test]
fn who_is_cut_off_hands_over_and_writes_nothing_after() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, SETUP, seed());
    stage.provider.calm();
    let nodes = Node::all(&stage);
    let (ledger, begun) = (Ledger::default(), now());
    let cut_off = stage.owner_of(NAMES[0], "webhook:steady").unwrap();
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != cut_off).collect();
    // One is under way when it is cut off.
    stage.receiver.slow_down("steady", Duration::from_mins(1));
    assert!(registered(&stage, &ledger, others[0], "one"));
    within(mark(Duration::from_secs(10)), || stage.receiver.last("steady")).unwrap();
    let proxy = stage.proxy(cut_off);
    for way in [Way::ToServer, Way::ToClient] {
        proxy.set(way, Passage::Swallow);
    }
    let lasts = Duration::from_secs(if is_long() { 30 } else { 10 });
    let cut_at = now();
    let owned = stage.until_all_is_owned_by(&others, mark(Duration::from_secs(6)));
    stage.receiver.calm();
    let before = last_commits(&stage);
    // What it is asked meanwhile it refuses in time.
    let asked = now();
    assert!(!registered(&stage, &ledger, cut_off, "two"), "it cannot have been written");
    let refused = asked.elapsed();
    assert!(refused < Duration::from_secs(19), "it is refused only after {refused:?}");
    while cut_at.elapsed() < lasts {
        registered(&stage, &ledger, others[1], "two");
        pause(Duration::from_millis(200));
    }
    for way in [Way::ToServer, Way::ToClient] {
        proxy.set(way, Passage::Pass);
    }
    proxy.cut();
    let node = nodes.iter().find(|node| node.name == cut_off).unwrap();
    within(mark(Duration::from_secs(15)), || node.log().contains("it joins them anew").then_some(()))
        .unwrap();
    within(mark(Duration::from_secs(10)), || registered(&stage, &ledger, cut_off, "two").then_some(()))
        .unwrap();
    assert_eq!(last_commits(&stage), before, "it wrote something after it was given up");
    let crashes = query(&stage.url, "SELECT coalesce(max(crashes), 0) FROM deliveries").unwrap();
    let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES };
    let mut wrong = judge.settle(begun, Duration::from_mins(1));
    wrong.extend(judge.judge());
    eprintln!(
        "one cut off for {lasts:?}: all owned by the others after {:?}, requests to it refused after {refused:?}; \
         deaths counted against deliveries: {crashes:?}",
        owned.expect("the others do not take over")
    );
    report(&stage, wrong, seed());
}
