//! Connections that are cut in the middle of a transaction, and right before or behind its commit: what callers are told is
//! what is there.

use crate::hunt::report;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::patience::{now, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::postgres::{Postgres, query};
use crate::support::proxy::Cut;
use crate::{amount, seed};
use serde_json::json;
use std::time::Duration;

const SETUP: Setup = Setup {
    lease: "10s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"2s\"",
    accounts: &[("one", "")],
    webhooks: &[("steady", ""), ("second", "")],
};

/// What is cut off: a commit, or a statement before it.
const NEEDLES: [&[u8]; 6] = [COMMIT, COMMIT, COMMIT, b"INSERT INTO", b"UPDATE", b"SAVEPOINT"];
/// As it goes over the wire by itself, or as the last of several statements; `READ COMMITTED` is none.
const COMMIT: &[u8] = b"COMMIT\0";

#[test]
fn callers_are_told_what_is_there_wherever_the_connection_is_cut() {
    let Some(postgres) = Postgres::shared() else { return };
    let seed = seed();
    let stage = Stage::new(postgres, SETUP, seed);
    stage.provider.calm();
    let _nodes: Vec<Node<'_>> = NAMES[..2].iter().map(|name| Node::started(&stage, name)).collect();
    let begun = now();
    let (ledger, mut rng) = (Ledger::default(), fastrand::Rng::with_seed(seed));
    let (mut wrong, mut told) = (Vec::new(), [0, 0]);
    let cuts = amount("CUTS", 10, 200);
    for number in 0..cuts {
        let cut = if rng.bool() { Cut::Before } else { Cut::Behind };
        let proxy = stage.proxy(NAMES[0]);
        let sprung = proxy.sprung();
        let operation = rng.u32(..4);
        let life = Duration::from_millis(rng.u64(..3000));
        let id = stage.provider.make("one", Some(life));
        let track = json!({"provider": "one", "check": false}).to_string();
        if operation == 1 {
            stage.ask(NAMES[1], "PUT", &format!("/v1/batches/{id}"), track.as_bytes()).unwrap();
        }
        let needle = NEEDLES[rng.usize(..NEEDLES.len())];
        proxy.trap(needle, cut);
        let ask = |method: &str, path: &str, body: &[u8]| {
            let reply = stage.ask(NAMES[0], method, path, body).unwrap();
            if !reply.is_success() && reply.status != 503 {
                ledger.wrong(format!("{method} {path}: {}: {}", reply.status, reply.json()));
            }
            reply.is_success()
        };
        let batch = || stage.json(NAMES[1], &format!("/v1/batches/{id}"));
        // Whether it was told that it is done, and whether it is, as the other daemon says.
        let (said, done) = match operation {
            0 => {
                let said = ask("PUT", &format!("/v1/batches/{id}"), track.as_bytes());
                (said, batch().is_some())
            }
            1 => {
                ledger.open().untracked.insert(id.clone());
                let said = ask("DELETE", &format!("/v1/batches/{id}"), b"");
                (said, batch().is_some_and(|batch| !batch["batchd"]["untracked_at"].is_null()))
            }
            2 => {
                let items = json!({"items": [{"id": id, "provider": "one", "check": false}]}).to_string();
                let reply = stage.ask(NAMES[0], "POST", "/v1/batches/track", items.as_bytes()).unwrap();
                let said = reply.is_success() && reply.json()["data"][0]["error"].is_null();
                (said, batch().is_some())
            }
            _ => {
                let off = "SELECT 1 FROM webhooks WHERE name = 'second' AND disabled IS NOT NULL";
                let is_off = || !query(&stage.url, off).unwrap().is_empty();
                let was_off = is_off();
                let word = if was_off { "enable" } else { "disable" };
                let said = ask("POST", &format!("/v1/webhooks/second/{word}"), b"");
                (said, is_off() != was_off)
            }
        };
        if said != done {
            wrong.push(format!(
                "{number}: {cut:?} {} operation {operation} of {id}: told {said}, and it is {done}",
                String::from_utf8_lossy(needle).trim_end_matches(char::from(0))
            ));
        }
        told[usize::from(said)] += 1;
        if operation != 1 && done && operation != 3 {
            ledger.acknowledge(&id);
        }
        // Some commit of this daemon is cut off at the latest when it shows that it lives.
        if proxy.sprung() == sprung {
            proxy.trap(COMMIT, cut);
        }
        if within(Duration::from_secs(20), || (proxy.sprung() > sprung).then_some(())).is_none() {
            wrong.push(format!("{number}: nothing was committed for 20 s"));
        }
    }
    within(Duration::from_secs(20), || {
        stage.ask(NAMES[0], "POST", "/v1/webhooks/second/enable", b"")?.is_success().then_some(())
    })
    .unwrap();
    eprintln!("{cuts} transactions cut off: {} times refused, {} times done", told[0], told[1]);
    let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES[..2] };
    wrong.extend(judge.settle(begun, Duration::from_mins(1)));
    wrong.extend(judge.judge());
    let members = stage.json(NAMES[1], "/v1/status").unwrap()["members"].as_array().map_or(0, Vec::len);
    if members != 2 {
        wrong.push(format!("{members} daemons are there: the one that was cut off was given up"));
    }
    report(&stage, wrong, seed);
}
