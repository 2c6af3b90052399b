//! Reading a list page by page: where to go on, and when the list gets nowhere.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a reading of a list has come across so far.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    cursors: BTreeSet<u64>,
    ids: BTreeSet<u64>,
    /// How many pages in a row brought no entry that had not been there before.
    barren: u32,
    /// So many entries more than [`MAX_ENTRIES`] may be there.
    known: usize,
}

/// How to go on after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// The next page is worth asking for.
    Read,
    /// That was the last page.
    End,
    /// The list repeats itself, goes on without showing anything, or is longer than any account's: asking further would
    /// not end.
    NoProgress,
}

impl Walk {
    /// Of a list that is known to have so many entries, and may have others besides.
    pub fn past(known: usize) -> Self {
        Self { known, ..Self::default() }
    }

    /// Whether a page has named `cursor` as the one for the next.
    pub fn has_been_told(&self, cursor: &str) -> bool {
        self.cursors.contains(&fingerprint(cursor))
    }

    /// Notes a page by the ids of its entries and its cursor for the next one.
    ///
    /// An empty page is no end: services that filter on their side give some in the middle of a list.
    pub fn note(&mut self, ids: impl IntoIterator<Item = impl Hash>, next: Option<&str>) -> Onward {
        let mut new = false;
        for id in ids {
            new |= self.ids.insert(fingerprint(id));
        }
        self.barren = if new { 0 } else { self.barren + 1 };
        let Some(cursor) = next else { return Onward::End };
        let is_endless = self.barren >= MAX_BARREN_PAGES || self.ids.len() >= MAX_ENTRIES + self.known;
        if !self.cursors.insert(fingerprint(cursor)) || is_endless {
            return Onward::NoProgress;
        }
        Onward::Read
    }
}

fn fingerprint(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// No list is read beyond so many entries that nobody knows.
const MAX_ENTRIES: usize = 200_000;

/// So many pages in a row may show nothing new. Where batches are created while a list is read, a page may repeat the
/// one before; more than a few in a row are a list that goes round.
const MAX_BARREN_PAGES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_to_its_end_over_empty_pages() {
        let mut walk = Walk::default();
        assert_eq!(walk.note(["a", "b"], Some("1")), Onward::Read);
        for page in 2..8 {
            assert_eq!(walk.note([""; 0], Some(&page.to_string())), Onward::Read);
        }
        assert_eq!(walk.note(["c"], Some("8")), Onward::Read);
        assert_eq!(walk.note([""; 0], None), Onward::End);
    }

    #[test]
    fn a_list_that_goes_round_is_noticed_however_it_does() {
        let pages = |pages: &dyn Fn(u32) -> (Vec<String>, String)| {
            let mut walk = Walk::default();
            (1..1000).find(|number| {
                let (ids, next) = pages(*number);
                walk.note(ids.iter().map(String::as_str), Some(&next)) == Onward::NoProgress
            })
        };
        let id = |number: u32| vec![format!("batch_{number}")];
        assert_eq!(pages(&|number| (id(number), "same".to_owned())), Some(2), "the cursor stays");
        assert_eq!(
            pages(&|number| (id(number), (number % 3).to_string())),
            Some(4),
            "the cursors take turns"
        );
        assert_eq!(pages(&|number| (id(1), number.to_string())), Some(11), "new cursors, the same page");
        assert_eq!(pages(&|number| (id(number % 5), number.to_string())), Some(15), "pages take turns");
        assert_eq!(pages(&|number| (Vec::new(), number.to_string())), Some(10), "nothing, for ever");
    }

    proptest! {
        /// Whatever stands on the pages of a list that ends, all of it is read if no ten pages in a row are barren.
        #[test]
        fn what_makes_progress_is_read(pages in prop::collection::vec(0_u32..4, 1..60)) {
            let mut walk = Walk::default();
            let mut serial = 0;
            for (number, count) in pages.iter().enumerate() {
                // Every third page shows something in any case.
                let count = if number % 3 == 0 { *count + 1 } else { *count };
                let ids: Vec<String> = (0..count).map(|index| format!("batch_{}", serial + index)).collect();
                serial += count;
                let onward = walk.note(ids.iter().map(String::as_str), Some(&number.to_string()));
                prop_assert_eq!(onward, Onward::Read);
            }
            prop_assert_eq!(walk.note([""; 0], None), Onward::End);
        }
    }
}
