//! What daemons do at the same moment, or at the worst one (`docs/reliability.md#several-daemons-at-once`).

use super::daemons::{Cluster, HANDED_OVER};
use crate::support::postgres::{Postgres, query};
use crate::world::until_within;
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_daemon_that_is_stopped_in_the_middle_of_a_commit_holds_up_nobody_for_long() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    for batch in ["batch_1", "batch_2"] {
        cluster.world.provider.put(batch, "in_progress", &json!({}));
    }
    let mut command = cluster.command("one");
    let stop = "store.commit=batch.completed:stop";
    let one = cluster.started("one", command.args(["-v", "run"]).env("BATCHD_FAILPOINT", stop));
    cluster.until_all_is_of("one");
    cluster.ok("one", &["track", "batch_1", "batch_2"]);
    let _two = cluster.daemon("two");
    cluster.world.provider.complete("batch_1");
    // It holds the row that every commit needs, and goes no further.
    until_within(HANDED_OVER, "it has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", one.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim().starts_with('T').then_some(())
    });
    cluster.until_all_is_of("two");
    cluster.until_told("batch_1");
    cluster.world.provider.complete("batch_2");
    cluster.until_told("batch_2");
    one.signal(Signal::SIGCONT);
    until_within(HANDED_OVER, "it joins anew", || one.log().contains("it joins them anew").then_some(()));
    cluster.assert_log_is_whole("two");
}

#[test]
fn who_was_buried_claims_nothing_until_it_has_joined_anew() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let id = query(&cluster.url, "SELECT id FROM members WHERE dead = 0").unwrap()[0][0].clone().unwrap();
    // Buried and robbed of everything in one stroke: its next look shows it all of it as free.
    query(&cluster.url, "UPDATE members SET dead = 1; UPDATE leases SET owner = NULL").unwrap();
    until_within(HANDED_OVER, "everything is its again", || {
        let owners = query(&cluster.url, "SELECT DISTINCT coalesce(owner, '') FROM leases").unwrap();
        assert!(owners.iter().all(|owner| owner[0].as_ref() != Some(&id)), "the dead own nothing");
        (owners.len() == 1 && owners[0][0].as_deref() != Some("")).then_some(())
    });
    assert!(one.log().contains("it joins them anew"), "{}", one.log());
}

#[test]
fn a_commit_that_no_standby_confirms_is_not_acknowledged() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let cluster = Cluster::new(&postgres.database());
    for batch in ["batch_1", "batch_2"] {
        cluster.world.provider.put(batch, "in_progress", &json!({}));
    }
    let _one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let confirmed_by = |standby: &str| {
        postgres.admin(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
        postgres.admin("SELECT pg_reload_conf()");
    };
    confirmed_by("nobody");
    let tracked = cluster.command("one").args(["track", "--no-check", "batch_1"]).output().unwrap();
    assert!(!tracked.status.success(), "{tracked:?}");
    confirmed_by("");
    until_within(HANDED_OVER, "it goes on", || {
        let tracked = cluster.command("one").args(["track", "--no-check", "batch_2"]).output().unwrap();
        tracked.status.success().then_some(())
    });
    cluster.assert_log_is_whole("one");
}

#[test]
fn what_is_registered_while_an_account_changes_hands_is_polled_by_whoever_has_it() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let _two = cluster.daemon("two");
    let count = 12;
    for number in 0..count {
        cluster.world.provider.put(&format!("batch_{number}"), "in_progress", &json!({}));
        // In the middle of it, the account goes from one to the other.
        if number == 4 {
            one.signal(Signal::SIGTERM);
        }
        let by = if number < 4 { "one" } else { "two" };
        cluster.ok(by, &["track", "--no-check", &format!("batch_{number}")]);
    }
    cluster.until_all_is_of("two");
    for number in 0..count {
        cluster.world.provider.complete(&format!("batch_{number}"));
    }
    for number in 0..count {
        cluster.until_told(&format!("batch_{number}"));
    }
    assert!(one.end().success(), "{}", one.log());
    cluster.assert_log_is_whole("two");
}
