//! Keeps count of a batch's results, so that fewer than there are is never taken for all, and nothing is given twice when
//! they are fetched a second time.

use crate::provider::results::Part;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What is known of the records while they come.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many records of the output have come in this pass.
    output: u64,
    /// The records that the first pass gave, by their hashes, in their order.
    given: Vec<u64>,
    /// There were too many to keep.
    unknown: bool,
    /// In a second pass: how often each record was given that has not come again, by its hash.
    outstanding: Option<BTreeMap<u64, u32>>,
    /// What is wrong with the end of this pass.
    cut: Option<String>,
}

/// Results that are fewer than there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Shortage(String);

impl Shortage {
    /// The batch completed so many requests, and no file of results is named.
    pub(super) fn no_file(completed: u64) -> Self {
        Self(format!(
            "its provider has completed {completed} request{} and has named no file of results yet",
            plural(completed)
        ))
    }

    /// The copy on this machine is not what it was.
    pub(super) fn of_copy(lines: u64, expected: u64) -> Self {
        Self(format!("the copy has {lines} line{} where {expected} were written", plural(lines)))
    }
}

impl Tally {
    /// Whether the record is to be given: in a second pass only if the first has not given it. `id`: what it is known by,
    /// where that is not its bytes.
    pub(super) fn take(&mut self, record: &Bytes, id: Option<&str>, part: Part) -> bool {
        if part == Part::Output {
            self.output += 1;
        }
        if self.unknown {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        match id {
            Some(id) => (part, id).hash(&mut hasher),
            None => (part, record).hash(&mut hasher),
        }
        let hash = hasher.finish();
        match &mut self.outstanding {
            None if self.given.len() < MAX_KNOWN => self.given.push(hash),
            None => {
                self.unknown = true;
                self.given = Vec::new();
            }
            Some(outstanding) => match outstanding.get_mut(&hash) {
                Some(1) => {
                    outstanding.remove(&hash);
                    return false;
                }
                Some(count) => {
                    *count -= 1;
                    return false;
                }
                None => {}
            },
        }
        true
    }

    /// The stream ended within a record, as `what` says.
    pub(super) fn cut(&mut self, what: String) {
        self.cut = Some(what);
    }

    /// Begins the second pass; `false`: it has been, or nobody knows what the first has given.
    pub(super) fn begin_again(&mut self) -> bool {
        let begins = !self.is_again() && !self.unknown;
        let outstanding = self.outstanding.get_or_insert_default();
        for hash in std::mem::take(&mut self.given) {
            *outstanding.entry(hash).or_default() += 1;
        }
        self.output = 0;
        self.cut = None;
        begins
    }

    /// How many records of the output have come in this pass.
    pub(super) fn output(&self) -> u64 {
        self.output
    }

    /// Whether this is the second pass.
    pub(super) fn is_again(&self) -> bool {
        self.outstanding.is_some()
    }

    /// What is missing at the end of a pass, if `completed` requests succeeded; `None`: nothing is expected.
    pub(super) fn shortage(&self, completed: Option<u64>) -> Option<Shortage> {
        let missing = completed.map_or(0, |completed| completed.saturating_sub(self.output));
        let counted = || {
            let completed = completed.unwrap_or_default();
            format!(
                "{missing} of {completed} lines {} missing: {} came of the requests that were completed",
                if missing == 1 { "is" } else { "are" },
                self.output
            )
        };
        match &self.cut {
            Some(cut) if missing > 0 => Some(Shortage(format!("{}; {cut}", counted()))),
            Some(cut) => Some(Shortage(cut.clone())),
            None if missing > 0 => Some(Shortage(counted())),
            None if self.outstanding.as_ref().is_some_and(|outstanding| !outstanding.is_empty()) => {
                Some(Shortage("the results changed while they were fetched; fetch them again".to_owned()))
            }
            None => None,
        }
    }
}

/// So many records are known again: more than any service's batches have, but for those in buckets.
const MAX_KNOWN: usize = 500_000;

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(tally: &mut Tally, records: &[u8]) -> Vec<u8> {
        let mut given = records.to_vec();
        given.retain(|record| tally.take(&Bytes::from(vec![*record]), None, Part::Output));
        given
    }

    #[test]
    fn what_is_missing_is_counted() {
        let mut tally = Tally::default();
        pass(&mut tally, &[1, 2]);
        assert_eq!(tally.shortage(None), None);
        assert_eq!(tally.shortage(Some(2)), None);
        let told = tally.shortage(Some(3)).unwrap().to_string();
        assert_eq!(told, "1 of 3 lines is missing: 2 came of the requests that were completed");
        tally.cut("the results end in the middle of record 3".to_owned());
        assert!(tally.shortage(Some(3)).unwrap().to_string().ends_with("in the middle of record 3"));
        assert!(tally.shortage(None).is_some());
        assert!(tally.begin_again() && !tally.begin_again());
    }

    #[test]
    fn another_edition_is_not_sewn_to_the_first() {
        let mut tally = Tally::default();
        pass(&mut tally, &[1, 2]);
        tally.begin_again();
        pass(&mut tally, &[3, 4, 5]);
        assert!(tally.shortage(Some(3)).unwrap().to_string().contains("changed"));
    }

    proptest! {
        #[test]
        fn two_passes_give_each_record_as_often_as_it_is_there(whole in prop::collection::vec(0_u8..6, 0..12), first in any::<prop::sample::Index>()) {
            let mut tally = Tally::default();
            let mut given = pass(&mut tally, &whole[..first.index(whole.len() + 1)]);
            tally.begin_again();
            given.extend(pass(&mut tally, &whole));
            let mut expected = whole.clone();
            given.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(given, expected);
            prop_assert_eq!(tally.shortage(Some(whole.len() as u64)), None);
        }
    }
}
