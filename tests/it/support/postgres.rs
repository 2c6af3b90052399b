//! PostgreSQL for tests: one cluster for all of a test process, or one of a test's own that it may stop and restart.

use super::cluster::{Cluster, Programs};
use crate::world::until_within;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A server on loopback and on a Unix socket, whose superuser is `postgres`.
pub struct Postgres {
    cluster: Cluster,
}

/// A row, each column as text.
pub type Row = Vec<Option<String>>;

/// How a server is made to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Connections are ended, everything is written.
    Fast,
    /// As a crash: the next start recovers.
    Immediate,
}

impl Postgres {
    /// The server that all tests of this process share; `None`: there is none here, which is said.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::own(&[]));
        if shared.is_none() {
            eprintln!("skipped: no PostgreSQL server can be run here");
        }
        shared.as_ref()
    }

    /// A server of the test's own, with these settings (`name = value`) in its configuration; `None`: there is none here,
    /// which is said.
    pub fn own(settings: &[&str]) -> Option<Self> {
        let programs = match Programs::find() {
            Ok(programs) => programs,
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let postgres = Self { cluster: Cluster::start(&programs, PASSWORD, &settings) };
        postgres.wait();
        Some(postgres)
    }

    /// A new, empty database: the URL by which its owner reaches it on loopback, as text and password alone.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.admin(&format!("CREATE ROLE {name} LOGIN PASSWORD '{ROLE_PASSWORD}'"));
        self.admin(&format!("CREATE DATABASE {name} OWNER {name}"));
        self.url_of(&name, ROLE_PASSWORD, &name)
    }

    /// The URL of a role and its password at a database, on loopback.
    pub fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// The superuser's URL.
    pub fn admin_url(&self) -> String {
        self.url_of("postgres", PASSWORD, "postgres")
    }

    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    /// The directory of the Unix socket, and of what a test puts there for the server to read.
    pub fn directory(&self) -> &Path {
        &self.cluster.directory
    }

    /// Does something as the superuser; the rows of the last statement that has some.
    pub fn admin(&self, sql: &str) -> Vec<Row> {
        query(&self.admin_url(), sql).unwrap()
    }

    /// Ends the connections to the database of this URL, as an administrator would; how many there were.
    pub fn cut(&self, url: &str) -> usize {
        let database = url.rsplit_once('/').unwrap().1.split('?').next().unwrap();
        let rows = self.admin(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        ));
        rows.len()
    }

    /// Stops the server and waits for its end.
    pub fn stop(&self, how: Stop) {
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        self.cluster.order(&format!("stop {signal}"));
    }

    /// Starts it after a stop, and waits until it answers.
    pub fn start(&self) {
        self.cluster.order("start");
        self.wait();
    }

    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start();
    }

    /// Stops the server's main process where it stands, so that it takes no connection; or has it go on.
    pub fn freeze(&self, frozen: bool) {
        self.cluster.order(if frozen { "signal STOP" } else { "signal CONT" });
    }

    /// Puts a file of this content, which only the server may read, into its directory (`data/pg_hba.conf`).
    pub fn put(&self, name: &str, content: &str) -> PathBuf {
        self.cluster.put(name, content)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.cluster.log()
    }

    /// The process with which the server ends.
    pub fn keeper(&self) -> u32 {
        self.cluster.keeper()
    }

    fn wait(&self) {
        self.cluster.wait_until_it_listens();
        until_within(Duration::from_mins(1), "PostgreSQL answers", || {
            query(&self.admin_url(), "SELECT 1").ok()
        });
    }
}

/// Does something at a URL, from a thread of its own so that any test may; the rows of the last statement that has some.
pub fn query(url: &str, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let asking = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, wire) = url.parse::<Config>()?.connect(NoTls).await?;
            tokio::select! {
                rows = rows(&client, sql) => rows,
                ended = wire => Err(ended.expect_err("the client is there")),
            }
        })
    };
    std::thread::scope(|scope| scope.spawn(asking).join().unwrap())
}

/// The rows of the last statement that has some.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Of the superuser.
pub const PASSWORD: &str = "Sup3rUserOfTheTests";

/// Of the roles that own the tests' databases.
pub const ROLE_PASSWORD: &str = "0wnerOfOneDatabase";
