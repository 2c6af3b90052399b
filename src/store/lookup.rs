//! Batches by what people call them: a name, the beginning of an id, the address of a page about one.

use super::column::Pk;
use super::error::StoreError;
use super::state::Store;
use super::value::Value;
use crate::domain::tracked::Tracked;

/// Names and beginnings of ids that a few characters of text may stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Only this provider's.
    pub provider: Option<String>,
    pub name: String,
    /// What the id may begin with.
    pub beginnings: Vec<String>,
    /// At most so many.
    pub limit: u32,
}

impl Store {
    /// Batches that are called so, or whose id begins so, the newest first.
    pub async fn called(&self, called: Called) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let limit = called.limit;
        let of = called.provider.is_some();
        let at =
            |values: Vec<Value>| values.into_iter().chain(called.provider.clone().map(Value::from)).collect();
        let by_name = format!("WHERE name = ?1{} ORDER BY pk DESC LIMIT {limit}", and_provider(of, 2));
        let mut found = self.select(by_name, at(vec![called.name.clone().into()])).await?;
        for beginning in &called.beginnings {
            // Said as a range, it is read from the index of the ids.
            let end = format!("{beginning}{}", char::MAX);
            let by_id =
                format!("WHERE id >= ?1 AND id < ?2{} ORDER BY pk DESC LIMIT {limit}", and_provider(of, 3));
            found.extend(self.select(by_id, at(vec![beginning.clone().into(), end.into()])).await?);
        }
        found.sort_by_key(|(pk, _)| std::cmp::Reverse(*pk));
        found.dedup_by_key(|(pk, _)| *pk);
        Ok(found)
    }

    /// Batches whose page at their provider has one of these addresses.
    pub async fn find_by_page(&self, addresses: Vec<String>) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let places = vec!["?"; addresses.len()].join(", ");
        let rest = format!("WHERE console_url IN ({places}) ORDER BY pk DESC LIMIT 11");
        self.select(rest, addresses.into_iter().map(Value::from).collect()).await
    }
}

fn and_provider(of: bool, place: u8) -> String {
    if of { format!(" AND provider = ?{place}") } else { String::new() }
}
