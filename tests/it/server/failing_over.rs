//! Servers that have lost commits which had been answered: what was lost is found again, and nobody who follows the events
//! passes over new ones.

use super::daemons::{Cluster, HANDED_OVER};
use crate::support::postgres::{Postgres, query};
use crate::world::until_within;
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Stdio};

/// Somebody who follows the events of a daemon, and what that has brought.
struct Follower {
    child: Child,
    path: std::path::PathBuf,
}

impl Follower {
    fn of(cluster: &Cluster, name: &str) -> Self {
        let path = cluster.path(name, "followed");
        let child = cluster
            .command(name)
            .args(["events", "--follow", "--json", "--after", "0"])
            .stdout(File::create(&path).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, path }
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The numbers under which it was told the end of this batch.
    fn until_told(&self, batch: &str) -> Vec<i64> {
        until_within(HANDED_OVER, &format!("the follower is told of {batch}"), || {
            let events = self.events();
            let ends = events
                .iter()
                .filter(|event| event["data"]["id"] == batch && event["type"] == "batch.completed");
            let numbers: Vec<i64> = ends.map(|event| event["sequence"].as_i64().unwrap()).collect();
            (!numbers.is_empty()).then_some(numbers)
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fails_over(as_standby: bool) {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let cluster = Cluster::new(&postgres.database());
    let provider = &cluster.world.provider;
    for batch in ["batch_1", "batch_2", "batch_3", "batch_4"] {
        provider.put(batch, "in_progress", &json!({}));
    }
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let two = cluster.daemon("two");
    cluster.ok("one", &["track", "batch_1", "batch_2"]);
    provider.complete("batch_1");
    cluster.until_told("batch_1");
    let followers = [Follower::of(&cluster, "one"), Follower::of(&cluster, "two")];
    for follower in &followers {
        follower.until_told("batch_1");
    }

    postgres.copy_aside();
    until_within(HANDED_OVER, "the daemons go on", || {
        cluster.command("two").args(["track", "batch_3"]).output().unwrap().status.success().then_some(())
    });
    provider.complete("batch_2");
    cluster.until_told("batch_2");
    let before = followers.iter().map(|follower| follower.until_told("batch_2")[0]).max().unwrap();
    postgres.go_back(as_standby);

    // What was there is there, and its end is found again under the id that it had.
    until_within(HANDED_OVER, "the end is told again", || (cluster.told("batch_2").len() > 1).then_some(()));
    let mut ids: Vec<String> =
        cluster.told("batch_2").iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(cluster.json("two", &["show", "batch_1", "--json"])["status"], "completed");
    // What was registered since is not, and can be registered again.
    assert!(!cluster.command("one").args(["show", "batch_3"]).output().unwrap().status.success());
    cluster.ok("one", &["track", "batch_3", "batch_4"]);
    for batch in ["batch_3", "batch_4"] {
        provider.complete(batch);
        cluster.until_told(batch);
    }
    // Whoever follows is told of all that comes after, by numbers that nobody had seen.
    for follower in &followers {
        for batch in ["batch_3", "batch_4"] {
            let numbers = follower.until_told(batch);
            assert!(
                numbers.iter().all(|number| *number >= before + 10_000),
                "{batch}: {numbers:?} after {before}"
            );
        }
        let numbers: Vec<i64> =
            follower.events().iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
    let log = until_within(HANDED_OVER, "the step is told", || {
        let log = cluster.log("one");
        log.iter().any(|event| event["type"] == "batchd.log_stepped").then_some(log)
    });
    let steps: Vec<&Value> = log.iter().filter(|event| event["type"] == "batchd.log_stepped").collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    let (behind, goes_on) =
        (steps[0]["data"]["behind"].as_i64().unwrap(), steps[0]["data"]["goes_on"].as_i64().unwrap());
    assert!(behind >= before && goes_on == behind + 10_001, "{:?}", steps[0]);
    let numbers: Vec<i64> = log.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    let gaps: Vec<(i64, i64)> =
        numbers.windows(2).map(|pair| (pair[0], pair[1])).filter(|(one, next)| next - one != 1).collect();
    assert_eq!(gaps.len(), 1, "{numbers:?}");
    assert_eq!(gaps[0].1, goes_on, "{numbers:?}");
    let status = cluster.json("two", &["status", "--json"]);
    assert_eq!(status["log_step"]["goes_on"], goes_on);
    assert!(cluster.ok("two", &["status"]).contains("the server may have lost commits"));
    assert_eq!(status["members"].as_array().unwrap().len(), 2, "{status}");
    let rows = query(&cluster.url, "SELECT 1 FROM steps").unwrap();
    assert_eq!(rows.len(), 1, "both daemons noticed, and numbers were left out once");
    for daemon in [one, two] {
        daemon.terminate();
    }
}

#[test]
fn an_older_copy_of_the_server_is_noticed_and_followers_miss_nothing_new() {
    fails_over(false);
}

#[test]
fn a_standby_that_was_behind_is_noticed_too() {
    fails_over(true);
}

#[test]
fn a_standby_that_took_over_while_no_daemon_ran_is_noticed_at_the_start() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let cluster = Cluster::new(&postgres.database());
    cluster.world.provider.put("batch_1", "in_progress", &json!({}));
    let one = cluster.daemon("one");
    cluster.ok("one", &["track", "batch_1"]);
    postgres.copy_aside();
    cluster.world.provider.complete("batch_1");
    cluster.until_told("batch_1");
    one.terminate();
    postgres.go_back(true);
    let one = cluster.daemon("one");
    until_within(HANDED_OVER, "the end is told again", || (cluster.told("batch_1").len() > 1).then_some(()));
    let told = cluster.told("batch_1");
    assert_eq!(told[0]["id"], told[1]["id"]);
    assert!(told[1]["sequence"].as_i64() >= Some(10_000), "{told:?}");
    one.terminate();
    // No more than once for one of them, and not at a restart of the server.
    postgres.restart(crate::support::postgres::Stop::Immediate);
    let one = cluster.daemon("one");
    assert_eq!(query(&cluster.url, "SELECT 1 FROM steps").unwrap().len(), 1);
    one.terminate();
}

#[test]
fn a_server_that_crashes_and_comes_back_has_lost_nothing() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let cluster = Cluster::new(&postgres.database());
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    for number in 0..4 {
        let batch = format!("batch_{number}");
        cluster.world.provider.put(&batch, "in_progress", &json!({}));
        until_within(HANDED_OVER, "it registers", || {
            cluster.command("one").args(["track", &batch]).output().unwrap().status.success().then_some(())
        });
        // Signs of life that are not on disk are lost with it, and nothing else.
        postgres.restart(crate::support::postgres::Stop::Immediate);
        cluster.world.provider.complete(&batch);
        cluster.until_told(&batch);
    }
    assert!(query(&cluster.url, "SELECT 1 FROM steps").unwrap().is_empty(), "{}", one.log());
    cluster.assert_log_is_whole("one");
}
