//! Real daemons that share a state on a real server: who does what, what a kill, a stop or a cut leaves to the others.

use crate::support::postgres::{Postgres, Stop, query};
use crate::support::proxy::{Cut, Proxy};
use crate::world::{Daemon, Received, World, until, until_within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Daemons on one database, by their names; they share the provider and the receiver of a world.
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) url: String,
}

impl Cluster {
    pub(super) fn new(url: &str) -> Self {
        Self { world: World::new(), url: url.to_owned() }
    }

    pub(super) fn path(&self, name: &str, what: &str) -> PathBuf {
        self.world.directory.path().join(format!("{name}.{what}"))
    }

    /// A command of the daemon `name`, which reaches the database by `url`.
    pub(super) fn command_by(&self, url: &str, name: &str) -> Command {
        let text = std::fs::read_to_string(self.world.config()).unwrap();
        let socket = self.path(name, "sock");
        let text = text
            .replace(
                "[state]\n",
                &format!("[state]\nurl = {{ env = \"TEST_URL\" }}\nname = \"{name}\"\nlease = \"2s\"\n"),
            )
            .replace(
                &self.world.state().display().to_string(),
                &self.path(name, "state").display().to_string(),
            )
            .replace(&self.world.socket().display().to_string(), &socket.display().to_string());
        std::fs::write(self.path(name, "toml"), text).unwrap();
        let mut command = self.world.command();
        command.env("BATCHD_CONFIG", self.path(name, "toml")).env("TEST_URL", url);
        command
    }

    pub(super) fn command(&self, name: &str) -> Command {
        self.command_by(&self.url, name)
    }

    pub(super) fn daemon_by(&self, url: &str, name: &str) -> Daemon {
        self.started(name, self.command_by(url, name).args(["-v", "run"]))
    }

    /// Waits until a daemon that is started so answers.
    pub(super) fn started(&self, name: &str, command: &mut Command) -> Daemon {
        let daemon = Daemon::start(command);
        until_within(START, "the daemon answers", || {
            assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
            std::os::unix::net::UnixStream::connect(self.path(name, "sock")).ok()
        });
        daemon
    }

    pub(super) fn daemon(&self, name: &str) -> Daemon {
        self.daemon_by(&self.url, name)
    }

    pub(super) fn ok(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn json(&self, name: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(name, arguments)).unwrap()
    }

    /// What a daemon does, as `asked` tells.
    pub(super) fn scopes_of(&self, asked: &str, name: &str) -> Vec<String> {
        let status = self.json(asked, &["status", "--json"]);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let member = members.iter().find(|member| member["name"] == name);
        let scopes = member.and_then(|member| member["scopes"].as_array().cloned()).unwrap_or_default();
        scopes.iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until `name` does everything.
    pub(super) fn until_all_is_of(&self, name: &str) {
        until_within(HANDED_OVER, &format!("{name} does everything"), || {
            (self.scopes_of(name, name).len() == SCOPES).then_some(())
        });
    }

    /// The messages that the generic webhook got of a batch.
    pub(super) fn told(&self, batch: &str) -> Vec<Value> {
        let received = self.world.receiver.received("/hooks");
        let messages = received.iter().map(Received::json);
        messages.filter(|message| message["data"]["id"] == batch).collect()
    }

    pub(super) fn until_told(&self, batch: &str) {
        until_within(HANDED_OVER, &format!("{batch} is told"), || {
            (!self.told(batch).is_empty()).then_some(())
        });
    }

    /// Every event that there is.
    pub(super) fn log(&self, asked: &str) -> Vec<Value> {
        let events = self.json(asked, &["events", "--json"]);
        events["data"].as_array().cloned().unwrap_or_else(|| events.as_array().unwrap().clone())
    }

    /// Every event once, numbered without gaps.
    pub(super) fn assert_log_is_whole(&self, asked: &str) {
        let events = self.log(asked);
        let numbers: Vec<i64> = events.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
        let whole: Vec<i64> = (1..=numbers.len()).map(|number| i64::try_from(number).unwrap()).collect();
        assert_eq!(numbers, whole);
        let mut ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), events.len());
    }
}

/// `keeper`, one account, two webhooks.
const SCOPES: usize = 4;
/// Much more than a lease of 2 s and what follows: these machines are slow.
pub(super) const HANDED_OVER: Duration = Duration::from_secs(40);
pub(super) const START: Duration = Duration::from_secs(40);

#[test]
fn a_killed_daemon_is_followed_by_itself_and_by_others() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    cluster.world.provider.put("batch_1", "in_progress", &json!({}));
    cluster.world.provider.put("batch_2", "in_progress", &json!({}));
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let two = cluster.daemon("two");
    // Who owns nothing answers and registers all the same; the owner hears of it.
    cluster.ok("two", &["track", "batch_1"]);
    cluster.world.provider.complete("batch_1");
    cluster.until_told("batch_1");
    one.signal(Signal::SIGKILL);
    one.end();
    cluster.ok("two", &["track", "batch_2"]);
    cluster.until_all_is_of("two");
    cluster.world.provider.complete("batch_2");
    cluster.until_told("batch_2");
    // It comes back in its place, and joins.
    let _one = cluster.daemon("one");
    let names = until("both are there", || {
        let status = cluster.json("one", &["status", "--json"]);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            members.iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        (names.len() == 2).then_some(names)
    });
    assert_eq!(names, ["one", "two"], "its predecessor is not taken for another of its name");
    assert_eq!(cluster.json("one", &["show", "batch_1", "--json"])["status"], "completed");
    cluster.assert_log_is_whole("one");
    for batch in ["batch_1", "batch_2"] {
        let mut ids: Vec<String> =
            cluster.told(batch).iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{batch} was told under {ids:?}");
    }
    drop(two);
}

#[test]
fn a_daemon_that_is_told_to_stop_hands_over_at_once() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let _two = cluster.daemon("two");
    one.signal(Signal::SIGTERM);
    cluster.until_all_is_of("two");
    assert!(one.end().success(), "{}", one.log());
    let log = one.log();
    assert!(log.contains("gave back account:openai"), "{log}");
}

#[test]
fn a_frozen_daemon_writes_nothing_when_it_wakes_and_joins_anew() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    cluster.world.provider.put("batch_1", "in_progress", &json!({}));
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let _two = cluster.daemon("two");
    cluster.ok("one", &["track", "batch_1"]);
    one.signal(Signal::SIGSTOP);
    cluster.until_all_is_of("two");
    cluster.world.provider.complete("batch_1");
    cluster.until_told("batch_1");
    one.signal(Signal::SIGCONT);
    until_within(HANDED_OVER, "it joins anew", || one.log().contains("it joins them anew").then_some(()));
    until_within(HANDED_OVER, "it answers", || {
        let shown = cluster.command("one").args(["show", "batch_1", "--json"]).output().unwrap();
        shown.status.success().then_some(())
    });
    cluster.assert_log_is_whole("two");
}

#[test]
fn while_the_server_is_away_nobody_is_asked_and_nobody_ends() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let cluster = Cluster::new(&postgres.database());
    cluster.world.provider.put("batch_1", "in_progress", &json!({}));
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    cluster.ok("one", &["track", "batch_1"]);
    postgres.stop(Stop::Immediate);
    until_within(HANDED_OVER, "it says that it is not ready", || {
        let status = cluster.command("one").args(["status"]).output().unwrap();
        (!status.status.success()).then_some(())
    });
    until_within(HANDED_OVER, "the provider is left alone for several intervals", || {
        (cluster.world.provider.left_alone()? > Duration::from_secs(3)).then_some(())
    });
    cluster.world.provider.complete("batch_1");
    assert!(!one.is_over(), "{}", one.log());
    postgres.start();
    cluster.until_told("batch_1");
    cluster.assert_log_is_whole("one");
    // Each loop has said once that it cannot go on.
    let log = one.log();
    let mut said: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains(" DEBUG "))
        .filter_map(|line| line.split("cannot ").nth(1)?.split(':').next())
        .collect();
    let all = said.len();
    said.sort_unstable();
    said.dedup();
    assert!(all > 0 && said.len() == all, "{log}");
}

#[test]
fn a_commit_whose_answer_is_lost_is_told_apart() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let proxy = Proxy::to(([127, 0, 0, 1], postgres.port()).into());
    let cluster = Cluster::new(&url);
    let _one = cluster.daemon_by(&proxy.url(&url), "one");
    cluster.until_all_is_of("one");
    for (number, cut) in (0..8).zip([Cut::Before, Cut::Behind].into_iter().cycle()) {
        let id = format!("batch_{number}");
        cluster.world.provider.put(&id, "in_progress", &json!({}));
        let sprung = proxy.sprung();
        // `READ COMMITTED`, with which a transaction begins, is none.
        proxy.trap(b"COMMIT\0", cut);
        let tracked = cluster.command("one").args(["track", "--no-check", &id]).output().unwrap();
        until_within(HANDED_OVER, "a commit is cut off", || (proxy.sprung() > sprung).then_some(()));
        let is_there = !query(&url, &format!("SELECT 1 FROM batches WHERE id = '{id}'")).unwrap().is_empty();
        // The commit that was cut off may have been another one's: then this one went through.
        assert_eq!(tracked.status.success(), is_there, "{cut:?} {id}: {tracked:?}");
    }
    let commits = query(&url, "SELECT commits FROM members WHERE dead = 0").unwrap();
    assert_eq!(commits.len(), 1, "it was never given up");
}

#[test]
fn a_files_state_moves_to_a_server_and_back() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let world = &cluster.world;
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.provider.complete("batch_1");
    cluster.until_told("batch_1");
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let events = world.json(&["--offline", "events", "--json"]);

    let dir = world.state().display().to_string();
    cluster.ok("one", &["state", "import", &dir, "--yes"]);
    let again = cluster.command("one").args(["state", "import", &dir, "--yes"]).output().unwrap();
    assert_eq!(again.status.code(), Some(78), "{again:?}");
    let refused = world.batchd(&["run"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");

    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    assert_eq!(cluster.json("one", &["events", "--json"]), events);
    world.provider.put("batch_2", "in_progress", &json!({}));
    cluster.ok("one", &["track", "batch_2"]);
    world.provider.complete("batch_2");
    cluster.until_told("batch_2");
    cluster.assert_log_is_whole("one");

    let backup = world.directory.path().join("backup.db").display().to_string();
    cluster.ok("one", &["backup", &backup]);
    let events = cluster.json("one", &["events", "--json"]);
    one.signal(Signal::SIGTERM);
    one.end();
    assert_eq!(cluster.json("one", &["--offline", "events", "--json"]), events);
    world.ok(&["restore", &backup, "--state-dir", &dir, "--yes"]);
    let _daemon = world.daemon();
    assert_eq!(world.json(&["events", "--json"]), events);
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_what_to_do() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let refused = |url: &str, code: i32, word: &str| {
        let run = cluster.command_by(url, "one").arg("run").output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "{said}");
        assert!(!said.contains("password123"), "{said}");
    };
    let others = postgres.database();
    query(&others, "CREATE TABLE users (id BIGINT)").unwrap();
    refused(&others, 78, "tables that are not batchd's (users)");
    let like_ours = postgres.database();
    query(&like_ours, "CREATE TABLE batchd (id BIGINT)").unwrap();
    refused(&like_ours, 78, "tables that are not batchd's (batchd)");
    let newer = postgres.database();
    let first = cluster.daemon_by(&newer, "one");
    first.signal(Signal::SIGTERM);
    first.end();
    query(&newer, "UPDATE batchd SET schema = 99, min_writer = 99").unwrap();
    refused(&newer, 70, "run the newer batchd");
    let read_only = postgres.database();
    let name = read_only.rsplit('/').next().unwrap().to_owned();
    postgres.admin(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    refused(&read_only, 73, "takes no writes");
    let no_rights = postgres.database();
    let name = no_rights.rsplit('/').next().unwrap().to_owned();
    postgres.admin(&format!("CREATE ROLE poor_{name} LOGIN PASSWORD 'password123'"));
    let poor = postgres.url_of(&format!("poor_{name}"), "password123", &name);
    refused(&poor, 73, "lacks a right that batchd needs");
    let wrong = postgres.url_of(&name, "password123", &name);
    refused(&wrong, 77, "refuses the role or its password");
}

#[test]
fn of_two_daemons_with_one_name_the_younger_takes_another() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let _one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    let mut command = cluster.command("two");
    let text = std::fs::read_to_string(cluster.path("two", "toml")).unwrap();
    std::fs::write(cluster.path("two", "toml"), text.replace("name = \"two\"", "name = \"one\"")).unwrap();
    let two = Daemon::start(command.arg("run"));
    until_within(START, "the younger one has joined", || {
        let status = cluster.json("one", &["status", "--json"]);
        let mut names: Vec<String> = status["members"]
            .as_array()?
            .iter()
            .map(|member| member["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        (names == ["one", "one-2"]).then_some(())
    });
    assert!(two.log().contains("another daemon is called one already"), "{}", two.log());
}
