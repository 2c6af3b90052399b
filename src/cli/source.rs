//! Where reading commands read: the daemon, or with `--offline` the state directory itself.

use super::error::Error;
use super::offline::Offline;
use crate::clock::Clock;
use crate::control::api::{DeliveryView, Listing, StatusReport};
use crate::control::client::{Client, Query};
use serde_json::Value;

/// How much of a list is wanted.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Limit {
    /// At most this many, the newest
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
}

impl Limit {
    /// Cuts a list that came whole.
    pub fn cut<T>(self, listing: &mut Listing<T>) {
        let wanted = usize::try_from(self.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        listing.has_more |= listing.data.len() > wanted;
        listing.data.truncate(wanted);
    }
}

/// Accepts so long ago, or an instant, and keeps its text, which is what goes over the API.
pub fn parse_since(text: &str) -> Result<String, crate::domain::since::BadSince> {
    crate::domain::since::parse(text, Clock::system().now()).map(|_| text.to_owned())
}

#[derive(Debug)]
pub enum Source {
    Remote(Client),
    /// A state directory, read-only.
    Offline(Box<Offline>),
}

/// What a list covers: its cursors, and whether it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first entry's cursor.
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    /// Whether there is more behind it.
    pub has_more: bool,
}

impl Extent {
    /// Of a list that is complete.
    pub fn whole(ids: &[&str]) -> Self {
        let id = |id: &&str| (*id).to_owned();
        Self { first_id: ids.first().map(id), last_id: ids.last().map(id), has_more: false }
    }
}

impl Source {
    pub async fn batches(&self, query: &Query) -> Result<Listing<Value>, Error> {
        Ok(match self {
            Self::Remote(client) => client.batches(query).await?,
            Self::Offline(state) => state.batches(query).await?,
        })
    }

    /// A batch; `detail`: with its transitions, deliveries and schedule.
    pub async fn batch(&self, id: &str, detail: bool) -> Result<Value, Error> {
        Ok(match self {
            Self::Remote(client) => client.batch(id, detail).await?,
            Self::Offline(state) => state.batch(id, detail).await?,
        })
    }

    /// A page of the event log, or of one batch's events.
    pub async fn events(&self, batch: Option<&str>, query: &Query) -> Result<Listing<Value>, Error> {
        Ok(match self {
            Self::Remote(client) => client.events(batch, query).await?,
            Self::Offline(state) => state.events(batch, query).await?,
        })
    }

    /// The daemon's health, or what the state tells of itself.
    pub async fn status(&self) -> Result<StatusReport, Error> {
        Ok(match self {
            Self::Remote(client) => client.status().await?,
            Self::Offline(state) => state.status().await?,
        })
    }

    pub async fn deliveries(&self, query: &Query) -> Result<Listing<DeliveryView>, Error> {
        Ok(match self {
            Self::Remote(client) => client.deliveries(query).await?,
            Self::Offline(state) => state.deliveries(query).await?,
        })
    }
}

/// Reads a list to its end, or to its first `limit` entries.
///
/// `page` reads what comes after a cursor, so many at most; `cursor` is where the next page begins; `take` gets
/// each entry and says whether more are wanted.
pub async fn every<T>(
    limit: Option<u64>,
    page: impl AsyncFn(Option<&str>, u64) -> Result<Listing<T>, Error>,
    cursor: impl Fn(&Listing<T>) -> Option<String>,
    mut take: impl FnMut(T) -> bool,
) -> Result<Extent, Error> {
    let mut extent = Extent::default();
    let mut left = limit.unwrap_or(u64::MAX);
    let mut after: Option<String> = None;
    let mut first = true;
    while left > 0 {
        let mut listing = page(after.as_deref(), left.min(PAGE)).await?;
        if first {
            extent.first_id = listing.first_id.take();
            first = false;
        }
        let next = cursor(&listing);
        if listing.last_id.is_some() {
            extent.last_id = listing.last_id.take();
        }
        extent.has_more = listing.has_more;
        let count = listing.data.len() as u64;
        if count > left {
            extent.has_more = true;
        }
        for entry in listing.data.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if !take(entry) {
                return Ok(extent);
            }
        }
        left = left.saturating_sub(count);
        // A page that leads nowhere ends the list, whatever it says of more.
        if !listing.has_more || count == 0 || next.is_none() || next == after {
            break;
        }
        after = next;
    }
    Ok(extent)
}

/// What is asked for at once.
const PAGE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A list of the numbers below `total`, given in pages of at most `size`.
    fn read(total: u64, size: u64, limit: Option<u64>) -> (Vec<u64>, Extent) {
        let page = async |after: Option<&str>, wanted: u64| {
            let from = after.map_or(0, |after| after.parse::<u64>().unwrap() + 1);
            let data: Vec<u64> = (from..total.min(from + size.min(wanted))).collect();
            let id = |number: Option<&u64>| number.map(ToString::to_string);
            let has_more = data.last().map_or(from, |last| last + 1) < total;
            Ok(Listing {
                first_id: id(data.first()),
                last_id: id(data.last()),
                has_more,
                ..Listing::whole(data, u64::to_string)
            })
        };
        let mut taken = Vec::new();
        let extent = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(every(
            limit,
            page,
            |listing| listing.last_id.clone(),
            |number| {
                taken.push(number);
                true
            },
        ));
        (taken, extent.unwrap())
    }

    proptest! {
        #[test]
        fn a_list_is_whole_unless_it_is_limited(total in 0_u64..60, size in 1_u64..20, limit in prop::option::of(0_u64..70)) {
            let (taken, extent) = read(total, size, limit);
            let wanted = limit.unwrap_or(total).min(total);
            prop_assert_eq!(&taken, &(0..wanted).collect::<Vec<_>>());
            if limit != Some(0) {
                prop_assert_eq!(extent.has_more, wanted < total);
                prop_assert_eq!(extent.first_id, taken.first().map(ToString::to_string));
                prop_assert_eq!(extent.last_id, taken.last().map(ToString::to_string));
            }
        }
    }
}
