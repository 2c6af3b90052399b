//! What a server is like, for `batchd doctor`: whether the state can be there, and how far away it is.

use super::connect::{Connected, Connector, driven};
use super::refusal::Refusal;
use crate::http::scrub::Scrubber;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

/// What was found of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Which host it is, for people.
    pub host: String,
    /// Its version, as it says.
    pub version: String,
    /// Whether it takes no writes at the moment.
    pub read_only: bool,
    /// The schema that tables would be made in; `None`: the search path leads to none that is there.
    pub schema: Option<String>,
    /// Whether the role may make tables there.
    pub may_create: bool,
    /// How many connections the server takes.
    pub max_connections: u32,
    /// How many it has, this one included, as far as the role may see them.
    pub connections: u32,
    /// Whether a commit is on disk when it is answered, `synchronous_commit`.
    pub synchronous_commit: String,
    /// How long an answer takes that needs no work: the median of several.
    pub round_trip: Duration,
    /// The server's clock, when it was asked.
    pub at: Option<Timestamp>,
}

/// Connects and looks around; changes nothing.
pub async fn examine(connector: &Connector) -> Result<Examination, Refusal> {
    let Connected { client, mut wire, host, version, read_only } = connector.connect().await?;
    let limit = connector.address().connect_timeout;
    let looking = timeout(limit, driven(&mut wire, look(&client))).await;
    let found = looking.map_err(|_| Refusal::timed_out(&host, limit))?;
    let scrubber = Scrubber::new(connector.address().password());
    let (round_trip, columns) = found.map_err(|error| Refusal::of(&host, &error, &scrubber))?;
    let column = |at: usize| columns.get(at).cloned().flatten();
    let number = |at: usize| column(at).and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Examination {
        host,
        version,
        read_only,
        schema: column(0),
        may_create: column(1).is_some_and(|may| may == "t"),
        max_connections: number(2),
        connections: number(3),
        synchronous_commit: column(4).unwrap_or_default(),
        round_trip,
        at: column(5)
            .and_then(|milliseconds| milliseconds.parse().ok())
            .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok()),
    })
}

/// A row of what is asked, each column as text.
type Columns = Vec<Option<String>>;

async fn look(client: &Client) -> Result<(Duration, Columns), tokio_postgres::Error> {
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let begun = Instant::now();
        client.simple_query("SELECT 1").await?;
        trips.push(begun.elapsed());
    }
    trips.sort_unstable();
    let answer = client.simple_query(QUESTION).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok((trips[TRIPS / 2], row.unwrap_or_default()))
}

/// So many answers are waited for to tell how long one takes.
const TRIPS: usize = 5;

const QUESTION: &str = "SELECT current_schema(), \
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
    current_setting('max_connections'), \
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
    current_setting('synchronous_commit'), \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
