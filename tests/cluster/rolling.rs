//! One daemon after the other is stopped and started, under load: nobody who asks again hears of it.

use crate::hunt::{Ends, panics, report};
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::load::insisting;
use crate::patience::{now, pause};
use crate::stage::{NAMES, Node, OTHER_TIMES, Setup, Stage};
use crate::support::postgres::Postgres;
use crate::{amount, seed};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const SETUP: Setup = Setup {
    lease: "10s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
    accounts: &[("one", ""), ("two", "")],
    webhooks: &[("steady", ""), ("slow", ""), ("second", "")],
};

#[test]
fn a_rolling_restart_refuses_and_loses_nothing() {
    let Some(postgres) = Postgres::shared() else { return };
    let seed = seed();
    let stage = Stage::new(postgres, SETUP, seed);
    stage.provider.calm();
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));
    let (mut nodes, slowest) = std::thread::scope(|scope| {
        let ends = Ends(&over);
        let mut nodes: Vec<Node<'_>> = NAMES.iter().map(|name| Node::started(&stage, name)).collect();
        let clients: Vec<_> = ["one", "two", "one"]
            .into_iter()
            .map(|account| {
                scope.spawn({
                    let (stage, ledger, over) = (&stage, &ledger, &over);
                    move || insisting(stage, ledger, account, over)
                })
            })
            .collect();
        // First with what they have, then with a changed configuration, and back.
        for round in 0..amount("ROUNDS", 2, 6) {
            for node in &mut nodes {
                pause(Duration::from_secs(1));
                node.stop().unwrap();
                stage.configure(node.name, if round % 2 == 0 { 0 } else { OTHER_TIMES });
                node.start();
                node.answers().unwrap();
            }
        }
        pause(Duration::from_secs(1));
        drop(ends);
        let slowest = clients.into_iter().map(|client| client.join().unwrap()).max().unwrap();
        (nodes, slowest)
    });
    stage.receiver.calm();
    let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES };
    let mut wrong = judge.settle(now(), Duration::from_mins(1));
    wrong.extend(judge.judge());
    for node in &mut nodes {
        wrong.extend(node.stop().err());
    }
    wrong.extend(panics(&stage));
    eprintln!(
        "{} registrations over rolling restarts, none refused for good; the slowest took {slowest:?}",
        judge.entries.acknowledged.len()
    );
    report(&stage, wrong, seed);
}
