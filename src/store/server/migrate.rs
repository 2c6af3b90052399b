//! The tables on the server: made when they are not there, brought to the newest schema, refused where they are others'.

use super::super::error::{OpenError, StoreError};
use super::session::{Session, Told};

/// The schemas on a server, oldest first. Released ones never change.
const SCHEMAS: &[&str] = &[include_str!("schema/0001.sql")];

/// What this binary writes.
#[expect(clippy::cast_possible_wrap, reason = "there are a handful")]
pub(super) const fn newest() -> i64 {
    SCHEMAS.len() as i64
}

/// Makes the tables, or brings them up to date. Returns the name of the cluster that they are.
pub(super) fn migrate(session: &Session, host: &str) -> Result<String, OpenError> {
    // Of two daemons that begin with an empty schema at once, one finds the other's tables at the second try.
    match step(session, host) {
        Err(Trouble::Store(_)) => step(session, host).map_err(|trouble| trouble.told(session)),
        other => other.map_err(|trouble| trouble.told(session)),
    }
}

enum Trouble {
    Open(OpenError),
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    fn told(self, session: &Session) -> OpenError {
        match self {
            Self::Open(error) => error,
            Self::Store(error) => session.refusal(error),
        }
    }
}

fn step(session: &Session, host: &str) -> Result<String, Trouble> {
    session.control("BEGIN")?;
    let result = in_transaction(session, host);
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    match (session.control(end), result) {
        (_, Err(trouble)) => Err(trouble),
        (Err(error), Ok(_)) => Err(error.into()),
        (Ok(()), Ok(cluster)) => Ok(cluster),
    }
}

fn in_transaction(session: &Session, host: &str) -> Result<String, Trouble> {
    session.control("SET LOCAL lock_timeout = '5s'")?;
    let Some(schema) = first(&session.told("SELECT current_schema()")?) else {
        return Err(Trouble::Open(OpenError::Foreign {
            host: host.to_owned(),
            schema: "none".to_owned(),
            table: "the search path leads to no schema that is there".to_owned(),
        }));
    };
    let present = present(session)?;
    if present.is_empty() {
        let cluster = format!("{:016x}", fastrand::u64(..));
        for schema in SCHEMAS {
            session.control(schema)?;
        }
        session.control(&format!(
            "INSERT INTO batchd (one, cluster, schema, min_writer) VALUES (1, '{cluster}', {0}, {0})",
            newest()
        ))?;
        tracing::info!(schema, host, "created the tables of batchd");
        return Ok(cluster);
    }
    let foreign = |table: &str| {
        Trouble::Open(OpenError::Foreign {
            host: host.to_owned(),
            schema: schema.clone(),
            table: table.to_owned(),
        })
    };
    if !present.iter().any(|table| table == "batchd") {
        return Err(foreign(&present[0]));
    }
    let columns = session.told(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = 'batchd'::regclass AND attnum > 0 \
         AND attname IN ('cluster', 'schema', 'min_writer')",
    )?;
    if columns.rows.len() != 3 {
        return Err(foreign("batchd"));
    }
    let told = session.told("SELECT cluster, schema, min_writer FROM batchd FOR UPDATE")?;
    let column = |at: usize| told.rows.first().and_then(|row| row.get(at).cloned().flatten());
    let number = |at: usize| column(at).and_then(|text| text.parse::<i64>().ok());
    let (Some(cluster), Some(found), Some(oldest_writer)) = (column(0), number(1), number(2)) else {
        return Err(foreign("batchd"));
    };
    if oldest_writer > newest() {
        return Err(Trouble::Open(OpenError::NewerServer {
            host: host.to_owned(),
            found: oldest_writer,
            known: newest(),
        }));
    }
    for (statements, number) in SCHEMAS.iter().zip(1_i64..).skip(usize::try_from(found).unwrap_or(0)) {
        session.control(statements)?;
        session.control(&format!("UPDATE batchd SET schema = {number}"))?;
        tracing::info!(schema = number, "migrated the tables of batchd");
    }
    Ok(cluster)
}

/// The tables in the schema where batchd's are made.
fn present(session: &Session) -> Result<Vec<String>, StoreError> {
    let told = session.told(
        "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = current_schema()::regnamespace \
         AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname",
    )?;
    Ok(told.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

fn first(told: &Told) -> Option<String> {
    told.rows.first()?.first()?.clone()
}
