//! The server is away, or busy with a copy of everything.

use crate::hunt::{Ends, report};
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::load::insisting;
use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::cluster::program;
use crate::support::postgres::{Postgres, Stop, query};
use crate::support::proxy::Cut;
use crate::{amount, is_long, mark, seed};
use serde_json::json;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const SETUP: Setup = Setup {
    lease: "10s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
    accounts: &[("one", ""), ("two", "")],
    webhooks: &[("steady", ""), ("second", "")],
};

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Who is there, and who was given up. Work may be shared out anew while all of them live.
fn members(stage: &Stage<'_>) -> Vec<Vec<Option<String>>> {
    query(&stage.url, "SELECT id, dead FROM members ORDER BY id").unwrap()
}

#[test]
fn while_the_server_is_away_nobody_asks_grows_or_ends_and_then_all_goes_on() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let stage = Stage::new(&postgres, SETUP, seed());
    stage.provider.calm();
    let nodes = Node::all(&stage);
    let (ledger, begun) = (Ledger::default(), now());
    let mut kept = Vec::new();
    for (number, account) in (0..40).zip(["one", "two"].into_iter().cycle()) {
        let id = stage.provider.make(account, (number > 3).then(|| Duration::from_secs(8)));
        let body = json!({"provider": account, "check": false}).to_string();
        let reply = stage.ask(NAMES[number % 3], "PUT", &format!("/v1/batches/{id}"), body.as_bytes());
        assert!(reply.is_some_and(|reply| reply.is_success()), "{id} is not registered");
        ledger.acknowledge(&id);
        if number <= 3 {
            kept.push((account, id));
        }
    }
    let polled_since = |since| {
        let is_polled = |(account, id): &(&str, String)| {
            stage.provider.told(account, id).last().is_some_and(|at| *at > since)
        };
        kept.iter().all(is_polled).then_some(())
    };
    within(mark(Duration::from_secs(10)), || polled_since(begun)).unwrap();
    let (before, resident_before) =
        (members(&stage), nodes.iter().map(|node| resident(node.pid())).collect::<Vec<_>>());

    postgres.stop(Stop::Immediate);
    let gone = now();
    let away = Duration::from_secs(amount("AWAY", 20, 3600));
    let mut wrong = Vec::new();
    let mut grown = [0; 3];
    while gone.elapsed() < away {
        for (number, node) in nodes.iter().enumerate() {
            let now = resident(node.pid()).saturating_sub(resident_before[number]);
            grown[number] = grown[number].max(now);
        }
        pause(Duration::from_secs(1));
    }
    for name in NAMES {
        let probe = |path: &str| stage.ask(name, "GET", path, b"").map(|reply| reply.status);
        let body = json!({"provider": "one", "check": false}).to_string();
        let tracked = stage.ask(name, "PUT", "/v1/batches/batch_while_away", body.as_bytes());
        let told = (probe("/healthz"), probe("/readyz"), tracked.map(|reply| reply.status));
        if told != (Some(200), Some(503), Some(503)) {
            wrong.push(format!("{name} answered {told:?} to a probe, to another and to a registration"));
        }
    }
    let back = now();
    for account in ["one", "two"] {
        let late =
            stage.provider.asked(account).into_iter().filter(|at| *at > gone + Duration::from_secs(10));
        let late: Vec<Duration> = late.map(|at| at.duration_since(gone)).collect();
        if !late.is_empty() {
            wrong.push(format!("{account} was asked {late:?} after the server had gone"));
        }
    }
    postgres.start();
    let returned = now();
    let polled = within(mark(Duration::from_secs(5)), || polled_since(back).map(|()| returned.elapsed()));
    if polled.is_none() {
        wrong.push("not every batch is checked soon after the server is back".to_owned());
    }
    wrong.extend(nodes.iter().filter_map(|node| node.answers().err()));
    if members(&stage) != before {
        wrong.push(format!("somebody was given up: {before:?} became {:?}", members(&stage)));
    }
    // A debug build holds more of itself than it has read before.
    if let Some(most) = grown.iter().max().filter(|most| is_long() && **most > 10 * 1024) {
        wrong.push(format!("a daemon grew by {most} KiB"));
    }
    let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES };
    wrong.extend(judge.settle(returned, Duration::from_mins(1)));
    wrong.extend(judge.judge());
    eprintln!(
        "the server away for {away:?}: all checked {polled:?} after its return; daemons grew by {grown:?} KiB"
    );
    report(&stage, wrong, seed());
}

#[test]
fn a_daemon_that_is_starting_waits_for_a_server_that_goes_away() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let stage = Stage::new(&postgres, SETUP, seed());
    stage.provider.calm();
    let mut node = Node::started(&stage, NAMES[0]);
    node.stop().unwrap();
    // Whatever it has come to when the server stops.
    let proxy = stage.proxy(NAMES[0]);
    for needle in [
        &b"INSERT INTO members"[..],
        b"FROM providers",
        b"FROM checks",
        b"UPDATE webhooks",
        b"INSERT INTO leases",
    ] {
        let sprung = proxy.sprung();
        proxy.trap(needle, Cut::Before);
        node.start();
        within(mark(Duration::from_secs(20)), || (proxy.sprung() > sprung).then_some(())).unwrap();
        proxy.refuse(true);
        proxy.cut();
        pause(Duration::from_secs(2));
        proxy.refuse(false);
        node.answers().unwrap_or_else(|what| panic!("{}: {what}", String::from_utf8_lossy(needle)));
        let owned = stage.until_all_is_owned_by(&NAMES[..1], mark(Duration::from_secs(15)));
        assert!(owned.is_some(), "{}: it works on nothing: {}", String::from_utf8_lossy(needle), node.log());
        node.stop().unwrap();
    }
}

#[test]
fn a_dump_in_a_loop_leaves_commits_their_speed() {
    // What it measures needs the machine for itself.
    if !is_long() {
        return;
    }
    let Some(postgres) = Postgres::own(&[]) else { return };
    let Some(dump) = program("pg_dump") else {
        eprintln!("skipped: there is no pg_dump here");
        return;
    };
    let stage = Stage::new(&postgres, SETUP, seed());
    stage.provider.calm();
    let _nodes: Vec<Node<'_>> = NAMES.iter().map(|name| Node::started(&stage, name)).collect();
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));
    let took = Duration::from_secs(amount("DUMP", 10, 60));
    let (without, with, dumps) = std::thread::scope(|scope| {
        let ends = Ends(&over);
        for account in ["one", "two", "one", "two"] {
            scope.spawn({
                let (stage, ledger, over) = (&stage, &ledger, &over);
                move || insisting(stage, ledger, account, over)
            });
        }
        let committed = |time: Duration, mut meanwhile: Box<dyn FnMut() + '_>| {
            let (before, begun) = (ledger.open().acknowledged.len(), now());
            while begun.elapsed() < time {
                meanwhile();
            }
            let done = ledger.open().acknowledged.len() - before;
            f64::from(u32::try_from(done).unwrap()) / begun.elapsed().as_secs_f64()
        };
        let idle = || Box::new(|| pause(Duration::from_millis(100)));
        committed(Duration::from_secs(10), idle());
        let without = committed(took, idle());
        let mut dumps = 0;
        let with = committed(
            took,
            Box::new(|| {
                let mut command = Command::new(&dump);
                command.arg(&stage.url).stdout(Stdio::null()).stdin(Stdio::null());
                assert!(command.status().unwrap().success());
                dumps += 1;
            }),
        );
        drop(ends);
        (without, with, dumps)
    });
    eprintln!("registrations a second: {without:.0} before, {with:.0} during {dumps} dumps in {took:?}");
    assert!(with >= 0.8 * without, "{with:.0} a second during dumps, {without:.0} before");
}
