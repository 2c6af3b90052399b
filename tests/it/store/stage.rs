//! A state of a test's own, in a file or on a server, and what stands in its tables.

use super::*;
use crate::support::postgres::{Postgres, query};
use batchd::domain::ownership::Scope;
use batchd::store::{Connector, Shared};
use std::time::Duration;
use tempfile::TempDir;

/// Where the state of a test is.
pub struct Stage {
    dir: TempDir,
    /// The database's URL; `None`: the state is in a file in the directory.
    url: Option<String>,
}

impl Stage {
    pub fn file() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: None }
    }

    /// `None`: no server can be run here, which is said. Needs a runtime of many threads.
    pub fn server() -> Option<Self> {
        let url = Postgres::shared()?.database();
        Some(Self { dir: tempfile::tempdir().unwrap(), url: Some(url) })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn is_on_server(&self) -> bool {
        self.url.is_some()
    }

    /// How many a test of load takes: every statement is a way to a server and back.
    pub fn portion(&self, count: usize) -> usize {
        if self.is_on_server() { count / 10 } else { count }
    }

    /// Opens the state, as a daemon that starts at [`EPOCH`] and is alone.
    pub async fn open(&self) -> Store {
        self.open_at(EPOCH).await
    }

    /// The same, of one that starts at `at`.
    pub async fn open_at(&self, at: Timestamp) -> Store {
        if !self.is_on_server() {
            return Store::open(self.dir(), Clock::simulated(at)).unwrap();
        }
        let shared =
            Shared { connector: self.connector(), name: "test".to_owned(), lease: Duration::from_mins(1) };
        let store = Store::open_shared(self.dir(), shared, standing(at)).await.unwrap();
        self.serve(&store, &["pipeline", "ops", "pager", "other"]).await;
        store
    }

    /// From now on the daemon has these webhooks, and no others; on a server it says so to those that share the state.
    pub async fn serve(&self, store: &Store, webhooks: &[&str]) {
        let webhooks = webhooks.iter().map(|name| Scope::Webhook((*name).to_owned()));
        let scopes = [Scope::Keeper, Scope::Account("openai".to_owned())].into_iter().chain(webhooks);
        store.declare(scopes.map(|scope| (scope, 1)).collect()).await.unwrap();
    }

    /// What leads to the database.
    pub fn connector(&self) -> Connector {
        Connector::new(self.url.as_ref().expect("on a server").parse().unwrap(), None)
    }

    /// What a statement gives: each row as the text of its columns.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        match &self.url {
            Some(url) => query(url, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")),
            None => rows_of(&raw(self.dir()), sql),
        }
    }

    /// The number that a statement gives.
    pub fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].as_ref().unwrap().parse().unwrap()
    }

    pub fn execute(&self, sql: &str) {
        self.rows(sql);
    }

    /// All rows of these tables, in no order of the database's.
    pub fn dump(&self, tables: &[&str]) -> Vec<String> {
        dumped(tables, &|sql| self.rows(sql), self.is_on_server())
    }

    /// See [`assert_sound`].
    pub fn assert_sound(&self) {
        if !self.is_on_server() {
            return assert_sound(self.dir());
        }
        for (what, sql) in UNSOUND {
            let sql = sql.replace("body ->>", "body::json ->>").replace("batch ->>", "batch::json ->>");
            assert_eq!(self.number(&sql), 0, "{what}");
        }
    }
}

/// All rows of these tables in a database file.
pub fn dumped_file(file: &Path, tables: &[&str]) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    dumped(tables, &|sql| rows_of(&connection, sql), false)
}

fn dumped(
    tables: &[&str],
    rows: &dyn Fn(&str) -> Vec<Vec<Option<String>>>,
    is_on_server: bool,
) -> Vec<String> {
    let mut all = Vec::new();
    for table in tables {
        let columns = if is_on_server {
            format!(
                "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' \
                 AND table_schema = current_schema() AND is_generated = 'NEVER'"
            )
        } else {
            format!("SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden = 0")
        };
        let mut columns: Vec<String> =
            rows(&columns).into_iter().map(|row| row.into_iter().next().flatten().unwrap()).collect();
        columns.sort_unstable();
        let found = rows(&format!("SELECT {} FROM {table}", columns.join(", ")));
        all.extend(found.into_iter().map(|row| {
            let named = columns.iter().zip(row).map(|(column, cell)| format!("{column}={cell:?}"));
            format!("{table} {}", named.collect::<Vec<_>>().join(" "))
        }));
    }
    all.sort_unstable();
    all
}

fn rows_of(connection: &Connection, sql: &str) -> Vec<Vec<Option<String>>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cell = |column| match row.get_ref(column).unwrap() {
            rusqlite::types::ValueRef::Null => None,
            rusqlite::types::ValueRef::Integer(number) => Some(number.to_string()),
            rusqlite::types::ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            odd => panic!("{sql}: {odd:?}"),
        };
        all.push((0..columns).map(cell).collect());
    }
    all
}

/// A clock that stands at `at` on every runtime: it is made where the timer is far ahead of all others.
fn standing(at: Timestamp) -> Clock {
    let ahead = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async move {
            tokio::time::advance(Duration::from_hours(24 * 365)).await;
            Clock::simulated(at)
        })
    };
    std::thread::scope(|scope| scope.spawn(ahead).join().unwrap())
}

/// Makes two tests of each of these: one on a file, where time is paused or as `(…)` says, and one on a server.
macro_rules! on_both {
    (@ ($($file:tt)*) $name:ident) => {
        mod $name {
            use super::super::stage::Stage;

            #[tokio::test($($file)*)]
            async fn on_a_file() {
                Box::pin(super::$name(Stage::file())).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_a_server() {
                if let Some(stage) = Stage::server() {
                    Box::pin(super::$name(stage)).await;
                }
            }
        }
    };
    ($($name:ident),* $(,)?) => {
        super::stage::on_both! { (start_paused = true) $($name),* }
    };
    ($file:tt $($name:ident),* $(,)?) => {$(
        super::stage::on_both! { @ $file $name }
    )*};
}

pub(super) use on_both;
