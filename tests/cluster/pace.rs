//! What a provider asks for is kept over hand-overs: its ceiling, and the time for which it wants to be left alone.

use crate::judge::most_in_a_minute;
use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Node, Setup, Stage};
use crate::support::postgres::Postgres;
use crate::{is_long, mark, seed};
use serde_json::json;
use std::time::{Duration, Instant};

const SETUP: Setup = Setup {
    lease: "3s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"1s\"",
    accounts: &[("bounded", "requests_per_minute = 60"), ("wary", "")],
    webhooks: &[("steady", "")],
};

/// Registers so many batches of an account that go on for ever.
fn register(stage: &Stage<'_>, account: &str, count: usize) {
    let ids = (0..count).map(|_| stage.provider.make(account, None));
    let items: Vec<_> = ids.map(|id| json!({"id": id, "provider": account, "check": false})).collect();
    let body = json!({"items": items}).to_string();
    let reply = stage.ask(NAMES[0], "POST", "/v1/batches/track", body.as_bytes());
    assert!(reply.is_some_and(|reply| reply.is_success()), "they are not registered");
}

#[test]
fn a_ceiling_holds_over_hand_overs() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, SETUP, seed());
    stage.provider.calm();
    let mut nodes = Node::all(&stage);
    register(&stage, "bounded", 5);
    let begun = now();
    within(mark(Duration::from_secs(20)), || stage.provider.asked("bounded").get(2).copied()).unwrap();
    // Ten in a minute; the short run has a third of both.
    let (hand_overs, lasts) = if is_long() { (10, 70) } else { (4, 20) };
    let every = Duration::from_mins(1) / 10;
    for number in 0..hand_overs {
        let owner = within(mark(Duration::from_secs(10)), || {
            NAMES.into_iter().find_map(|name| stage.owner_of(name, "account:bounded"))
        });
        let owner = owner.unwrap();
        let node = nodes.iter_mut().find(|node| node.name == owner).unwrap();
        if number % 2 == 0 {
            node.stop().unwrap();
        } else {
            node.kill().unwrap();
        }
        node.start();
        node.answers().unwrap();
        while begun.elapsed() < every * (number + 1) {
            pause(Duration::from_millis(50));
        }
    }
    while begun.elapsed() < Duration::from_secs(lasts) {
        pause(Duration::from_millis(50));
    }
    let asked = stage.provider.asked("bounded");
    let most = most_in_a_minute(&asked);
    eprintln!(
        "{hand_overs} hand-overs in {:?}: {} requests, at most {most} in a minute",
        begun.elapsed(),
        asked.len()
    );
    assert!(most <= 60, "{most} requests in a minute");
    // Of a shorter run no minute is whole: what it has had is held to its length.
    let spent = asked.last().unwrap().duration_since(asked[0]).as_secs();
    let may = usize::try_from(spent).unwrap() + 2;
    assert!(asked.len() <= may, "{} requests in {spent} s", asked.len());
    assert!(asked.len() > 5, "nobody asked any more: {asked:?}");
}

#[test]
fn a_wish_to_be_left_alone_is_kept_over_a_kill() {
    let Some(postgres) = Postgres::shared() else { return };
    let stage = Stage::new(postgres, SETUP, seed());
    stage.provider.calm();
    let mut nodes = Node::all(&stage);
    register(&stage, "wary", 5);
    let since = |from: Instant| {
        let asked = stage.provider.asked("wary").into_iter();
        asked.filter(|at| *at > from).collect::<Vec<Instant>>()
    };
    let registered = now();
    within(mark(Duration::from_secs(20)), || since(registered).first().copied()).unwrap();
    let wish = if is_long() { 120 } else { 25 };
    let before = now();
    stage.provider.refuse_next("wary", wish);
    let refused = within(mark(Duration::from_secs(10)), || since(before).first().copied()).unwrap();
    let owner = stage.owner_of(NAMES[0], "account:wary").unwrap();
    // Known to the state, once somebody is told who does not poll the account.
    within(mark(Duration::from_secs(10)), || {
        let is_told = |name| {
            let providers = stage.json(name, "/v1/providers")?;
            let wary =
                providers["data"].as_array()?.iter().find(|provider| provider["name"] == "wary").cloned();
            Some(!wary?["held_until"].is_null())
        };
        NAMES.into_iter().any(|name| name != owner && is_told(name) == Some(true)).then_some(())
    })
    .unwrap();
    nodes.iter_mut().find(|node| node.name == owner).unwrap().kill().unwrap();
    let alive: Vec<&str> = NAMES.into_iter().filter(|name| *name != owner).collect();
    let followed = stage.until_all_is_owned_by(&alive, mark(Duration::from_secs(6))).unwrap();
    let wish = Duration::from_secs(wish);
    let next = within(wish + mark(Duration::from_secs(10)), || {
        let later = since(refused + IN_FLIGHT);
        later.first().copied()
    });
    let waited = next.expect("the account is asked again").duration_since(refused);
    eprintln!(
        "asked to be left alone for {wish:?}, its owner killed and followed after {followed:?}: asked after {waited:?}"
    );
    assert!(waited >= wish, "asked again after {waited:?}");
}

/// Requests that were sent before the answer was there.
const IN_FLIGHT: Duration = Duration::from_millis(500);
