//! The tests' own server and the way to it do what the other tests rely on.

use crate::support::postgres::{Postgres, ROLE_PASSWORD, Stop, query, rows};
use crate::support::proxy::{Cut, Passage, Proxy, Way};
use crate::world::until;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// A client whose bytes move by themselves.
async fn client(url: &str) -> Client {
    let (client, wire) = tokio_postgres::connect(url, NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with its client, at the latest with the test")]
    tokio::spawn(async move {
        let _ = wire.await;
    });
    client
}

fn address(postgres: &Postgres) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], postgres.port()))
}

#[test]
fn each_database_is_new_and_its_owner_may_make_tables() {
    let Some(postgres) = Postgres::shared() else { return };
    let (one, other) = (postgres.database(), postgres.database());
    assert_ne!(one, other);
    query(&one, "CREATE TABLE here (x int)").unwrap();
    assert!(query(&other, "SELECT * FROM here").is_err());
    let shown = query(&one, "SELECT current_user, current_setting('fsync')").unwrap();
    let owner = one.rsplit_once('/').unwrap().1;
    assert_eq!(shown, [[Some(owner.to_owned()), Some("on".to_owned())]]);
    assert!(query(&one.replace(ROLE_PASSWORD, "wrong"), "SELECT 1").is_err(), "passwords are asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_survives_both_kinds_of_restart() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let url = postgres.database();
    query(&url, "CREATE TABLE kept (x int)").unwrap();
    for (number, how) in [Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        let client = client(&url).await;
        rows(&client, &format!("INSERT INTO kept VALUES ({number})")).await.unwrap();
        postgres.stop(how);
        assert!(rows(&client, "SELECT 1").await.is_err(), "{how:?}: the connection is gone");
        assert!(query(&url, "SELECT 1").is_err(), "{how:?}: nothing listens");
        postgres.start();
        let count = query(&url, "SELECT count(*) FROM kept").unwrap();
        assert_eq!(count, [[Some((number + 1).to_string())]], "{how:?}");
    }
    postgres.restart(Stop::Fast);
    assert_eq!(query(&url, "SELECT count(*) FROM kept").unwrap(), [[Some("2".to_owned())]]);
    assert!(postgres.log().contains("database system was not properly shut down"), "it was a crash");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_of_one_database_alone() {
    let Some(postgres) = Postgres::shared() else { return };
    let (url, other) = (postgres.database(), postgres.database());
    let (cut, kept) = (client(&url).await, client(&other).await);
    rows(&cut, "SELECT 1").await.unwrap();
    assert_eq!(postgres.cut(&url), 1);
    until("the connection is gone", || cut.is_closed().then_some(()));
    rows(&kept, "SELECT 1").await.unwrap();
}

#[test]
fn the_server_ends_with_its_keeper_and_leaves_nothing() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let (directory, url) = (postgres.directory().to_owned(), postgres.admin_url());
    assert!(directory.join("data").is_dir() && postgres.keeper() > 0);
    postgres.freeze(true);
    drop(postgres);
    assert!(!directory.exists(), "{} is left", directory.display());
    assert!(query(&url, "SELECT 1").is_err(), "it still answers");
}

#[test]
fn the_server_ends_with_a_test_process_that_is_killed() {
    if Postgres::shared().is_none() {
        return;
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["server::support::waits_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.find_map(|line| Some(line.split_once(TOLD)?.1.to_owned())).unwrap();
    let (directory, url) = told.split_once(' ').unwrap();
    query(url, "SELECT 1").unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    until("the server's directory is gone", || (!Path::new(directory).exists()).then_some(()));
    assert!(query(url, "SELECT 1").is_err(), "it still answers");
}

/// Runs in the process that the test above kills.
#[test]
#[ignore = "it waits to be killed by another test"]
fn waits_to_be_killed() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let told = format!("{TOLD}{} {}", postgres.directory().display(), postgres.admin_url());
    writeln!(std::io::stdout(), "{told}").unwrap();
    let begun = crate::world::now();
    while begun.elapsed() < Duration::from_mins(2) {
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

/// Before what the process to be killed says.
const TOLD: &str = "told: ";

#[tokio::test(flavor = "multi_thread")]
async fn a_way_can_be_cut_slowed_down_and_lost() {
    let Some(postgres) = Postgres::shared() else { return };
    let proxy = Proxy::to(address(postgres));
    let url = proxy.url(&postgres.database());
    let one = client(&url).await;
    rows(&one, "SELECT 1").await.unwrap();
    assert_eq!(proxy.cut(), 1);
    until("the connection is gone", || one.is_closed().then_some(()));
    proxy.refuse(true);
    assert!(query(&url, "SELECT 1").is_err());
    proxy.refuse(false);

    let slow = client(&url).await;
    proxy.set(Way::ToClient, Passage::Delay(Duration::from_millis(300)));
    let begun = crate::world::now();
    rows(&slow, "SELECT 1").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    proxy.set(Way::ToClient, Passage::Pass);

    proxy.set(Way::ToServer, Passage::Swallow);
    let lost = tokio::time::timeout(Duration::from_millis(500), rows(&slow, "SELECT 1")).await;
    assert!(lost.is_err(), "nothing comes back, and the connection stands");
    assert!(!slow.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_cut_off_before_or_behind() {
    let Some(postgres) = Postgres::shared() else { return };
    let direct = postgres.database();
    query(&direct, "CREATE TABLE kept (x int)").unwrap();
    let proxy = Proxy::to(address(postgres));
    for (cut, there) in [(Cut::Before, "0"), (Cut::Behind, "1")] {
        let client = client(&proxy.url(&direct)).await;
        client.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await.unwrap();
        proxy.trap(b"COMMIT", cut);
        assert!(client.batch_execute("COMMIT").await.is_err(), "{cut:?}: no answer comes");
        // A transaction that is not committed is rolled back once the server has noticed.
        until("the server knows that the client is gone", || {
            let others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            query(&direct, others).unwrap().is_empty().then_some(())
        });
        assert_eq!(
            query(&direct, "SELECT count(*) FROM kept").unwrap(),
            [[Some(there.to_owned())]],
            "{cut:?}"
        );
    }
    assert_eq!(proxy.sprung(), 2);
}
