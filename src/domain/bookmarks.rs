//! Where the pages of a list have begun, each known by the id before it: so that the next reading can begin there too,
//! at many places at once (`docs/schedule.md#side-by-side`).

/// The places of one list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmarks {
    ids: Vec<String>,
    /// For so many readings there are to be none.
    none_for: u8,
}

/// A reading of a list from its beginning, that knows the bookmarks of the one before.
///
/// What it has read is always one stretch without a gap: a page that was begun at a bookmark counts only if the pages
/// before it have shown that bookmark, so neither batches that have come or gone since nor a service that does not know
/// the place can hide anything. Where that fails, the rest is read one page after another.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    known: Vec<String>,
    /// So many of the known bookmarks have been shown.
    shown: usize,
    /// So many of them have been read behind, or are left behind.
    done: usize,
    /// The bookmarks for the next reading.
    learnt: Vec<String>,
    /// Behind which id the next page begins, where it is read after the one before; `None`: at the beginning.
    next: Option<String>,
    /// How often a page was in no known place.
    breaks: u8,
    /// For so many readings, this one included, no bookmarks are kept.
    none_for: u8,
}

/// What a page that was begun at a bookmark is to its reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It goes on where the reading was.
    Next,
    /// Pages before it have shown all that it can.
    Behind,
    /// Nothing says what stands between the pages before and this one.
    Unknown,
}

impl Reading {
    /// Of a list that was read before, and has had these bookmarks.
    pub fn new(bookmarks: Bookmarks) -> Self {
        Self { known: bookmarks.ids, none_for: bookmarks.none_for, ..Self::default() }
    }

    /// Behind which id the next page begins; `None`: at the list's beginning.
    pub fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// The bookmarks at which at most `count` pages can be begun now, and the number of the first.
    pub fn ahead(&self, count: usize) -> (usize, &[String]) {
        let from = self.done;
        let reachable = if from < self.shown { &self.known[from..] } else { &[] };
        (from, &reachable[..reachable.len().min(count)])
    }

    /// Those that may stand on the next page that is read after the one before, and the number of the first.
    pub fn expected(&self) -> (usize, &[String]) {
        self.expected_from(self.shown)
    }

    /// The same of the page that is begun at bookmark `number`.
    pub fn expected_behind(&self, number: usize) -> (usize, &[String]) {
        self.expected_from(number + 1)
    }

    fn expected_from(&self, number: usize) -> (usize, &[String]) {
        /// So many may be gone in a row without breaking the reading.
        const TRIED: usize = 3;
        let rest = self.known.get(number..).unwrap_or_default();
        (number, &rest[..rest.len().min(TRIED)])
    }

    /// A page came that was read after the one before. `shows`: the number of the last bookmark that stands on it;
    /// `next`: the id behind which the page after it begins.
    pub fn went_on(&mut self, shows: Option<usize>, next: Option<&str>) {
        /// At the beginning, where new batches come, so many pages are read one after another before they are worth
        /// bookmarks: the last of them is hardly ever full.
        const WORTH_KEEPING: usize = 4;
        let begin = std::mem::replace(&mut self.next, next.map(str::to_owned));
        self.learnt.extend(begin);
        let Some(number) = shows else {
            self.done = self.shown;
            return;
        };
        let fits = self.known.get(number).map(String::as_str) == next;
        if self.shown == 0 && !fits && self.learnt.len() < WORTH_KEEPING {
            self.learnt.clear();
        }
        self.shown = self.shown.max(number + 1);
        self.done = self.done.max(number);
    }

    /// A page came that was begun at bookmark `number`; they are told in their order. Where it is [`Place::Unknown`], the
    /// reading goes on one page after another, until one shows a bookmark again.
    pub fn came(&mut self, number: usize, shows: Option<usize>, next: Option<&str>) -> Place {
        if number + 1 < self.shown {
            self.done = self.done.max(number + 1);
            return Place::Behind;
        }
        let ends_too_soon = next.is_none() && number + 1 < self.known.len();
        if number >= self.shown || ends_too_soon {
            self.break_off(number);
            return Place::Unknown;
        }
        self.learnt.extend(self.known.get(number).cloned());
        self.done = number + 1;
        self.shown = shows.map_or(self.shown, |shows| self.shown.max(shows + 1));
        self.next = next.map(str::to_owned);
        Place::Next
    }

    /// What came for the page that was begun at bookmark `number` is no page behind it.
    pub fn is_gone(&mut self, number: usize) -> Place {
        if number + 1 < self.shown {
            self.done = self.done.max(number + 1);
            return Place::Behind;
        }
        self.break_off(number + 1);
        Place::Unknown
    }

    /// No bookmark before this one is of any use.
    fn break_off(&mut self, number: usize) {
        /// A list that changes under its bookmarks more often than this is read without them.
        const MOST_BREAKS: u8 = 3;
        self.breaks += 1;
        self.done = number;
        self.shown = number;
        if self.breaks > MOST_BREAKS {
            self.known.truncate(number);
            self.none_for = UNUSED_FOR;
        }
    }

    /// What the next reading is to know. `to_the_end`: the list has nothing behind what was read.
    pub fn finish(self, to_the_end: bool) -> Bookmarks {
        if self.none_for > 0 {
            return Bookmarks { ids: Vec::new(), none_for: self.none_for - 1 };
        }
        let mut ids = self.learnt;
        if !to_the_end {
            ids.extend(self.known.into_iter().skip(self.done));
        }
        ids.truncate(MOST);
        ids.shrink_to_fit();
        Bookmarks { ids, none_for: 0 }
    }
}

/// Where bookmarks were of no use, so many readings do without.
const UNUSED_FOR: u8 = 20;

/// No list has more.
const MOST: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const SIZE: usize = 5;

    /// A service's list, newest first.
    #[derive(Clone, Debug)]
    struct List(Vec<u32>);

    impl List {
        /// The page behind `after`; `None`: it knows no such batch.
        fn page(&self, after: Option<&str>) -> Option<(Vec<u32>, Option<String>)> {
            let begin = match after {
                Some(after) => self.0.iter().position(|id| id.to_string() == after)? + 1,
                None => 0,
            };
            let page: Vec<u32> = self.0.iter().copied().skip(begin).take(SIZE).collect();
            let more = begin + page.len() < self.0.len();
            let next = page.last().filter(|_| more).map(ToString::to_string);
            Some((page, next))
        }
    }

    fn shows(page: &[u32], (first, expected): (usize, &[String])) -> Option<usize> {
        let last = expected.iter().rposition(|id| page.iter().any(|other| other.to_string() == *id))?;
        Some(first + last)
    }

    /// Reads `list`, which `change` changes before each page. Gives what the pages have shown that count, the requests, and
    /// the bookmarks.
    fn read(
        list: &mut List,
        bookmarks: Bookmarks,
        mut change: impl FnMut(&mut List),
    ) -> (BTreeSet<u32>, usize, Bookmarks) {
        let mut reading = Reading::new(bookmarks);
        let (mut seen, mut requests) = (BTreeSet::new(), 0);
        loop {
            let (first, ahead) = reading.ahead(8);
            if ahead.len() > 1 {
                let ahead = ahead.to_vec();
                let mut end = false;
                for (number, bookmark) in (first..).zip(ahead) {
                    change(list);
                    requests += 1;
                    let Some((page, next)) = list.page(Some(&bookmark)) else {
                        if reading.is_gone(number) == Place::Unknown {
                            break;
                        }
                        continue;
                    };
                    let shows = shows(&page, reading.expected_behind(number));
                    match reading.came(number, shows, next.as_deref()) {
                        Place::Next => {
                            seen.extend(page);
                            end = next.is_none();
                        }
                        Place::Behind => {}
                        Place::Unknown => break,
                    }
                    if end {
                        return (seen, requests, reading.finish(true));
                    }
                }
                continue;
            }
            change(list);
            requests += 1;
            let Some((page, next)) = list.page(reading.next()) else {
                return (seen, requests, reading.finish(false));
            };
            let shows = shows(&page, reading.expected());
            seen.extend(page);
            reading.went_on(shows, next.as_deref());
            if next.is_none() {
                return (seen, requests, reading.finish(true));
            }
        }
    }

    fn quietly(list: &mut List, bookmarks: Bookmarks) -> (BTreeSet<u32>, usize, Bookmarks) {
        read(list, bookmarks, |_| ())
    }

    #[test]
    fn the_second_reading_begins_everywhere_at_once_and_costs_no_more() {
        let mut list = List((0..103).rev().collect());
        let (seen, requests, bookmarks) = quietly(&mut list, Bookmarks::default());
        assert_eq!((seen.len(), requests), (103, 21));
        let mut reading = Reading::new(bookmarks.clone());
        let (page, next) = list.page(None).unwrap();
        reading.went_on(shows(&page, reading.expected()), next.as_deref());
        assert_eq!(reading.ahead(1000).1.len(), 20);
        assert_eq!(quietly(&mut list, bookmarks), quietly(&mut list, Bookmarks::default()));
    }

    #[test]
    fn new_batches_cost_little_more_than_the_pages_that_they_fill() {
        let mut list = List((0..100).rev().collect());
        let mut bookmarks = quietly(&mut list, Bookmarks::default()).2;
        for newest in 100..200 {
            list.0.insert(0, newest);
            let (seen, requests, next) = quietly(&mut list, bookmarks);
            assert_eq!(seen.len(), list.0.len());
            assert!(requests <= list.0.len().div_ceil(SIZE) * 5 / 4 + 2, "{requests} for {}", list.0.len());
            bookmarks = next;
        }
    }

    #[test]
    fn a_service_that_knows_no_place_but_the_beginning_is_read_from_there() {
        let mut reading =
            Reading::new(Bookmarks { ids: ["5", "9", "13"].map(str::to_owned).to_vec(), none_for: 0 });
        reading.went_on(Some(0), Some("5"));
        assert_eq!(reading.came(0, None, Some("5")), Place::Next, "this may be");
        assert_eq!(reading.came(1, None, Some("5")), Place::Unknown);
        assert_eq!((reading.ahead(9).1.len(), reading.next()), (0, Some("5")));
        for _ in 0..9 {
            reading.went_on(None, Some("5"));
        }
        assert_eq!(reading.ahead(9).1.len(), 0);
    }

    proptest! {
        /// Whatever comes and goes, before and while it is read: what was there all the time is seen.
        #[test]
        fn nothing_that_stays_is_missed(
            count in 0_u32..80,
            before in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3), 0..40),
            meanwhile in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3), 0..60),
        ) {
            let mut list = List((0..count).map(|id| id * 1000).rev().collect());
            let (_, _, bookmarks) = quietly(&mut list, Bookmarks::default());
            let mut fresh = 1_000_000;
            let mut change = |list: &mut List, (place, what): (prop::sample::Index, u8)| {
                let at = if list.0.is_empty() { 0 } else { place.index(list.0.len()) };
                match what {
                    // A new batch is the newest; one that others had hidden may appear anywhere.
                    0 => list.0.insert(0, fresh),
                    1 => list.0.insert(at, fresh),
                    _ if list.0.is_empty() => {}
                    _ => drop(list.0.remove(at)),
                }
                fresh += 1;
            };
            for one in before {
                change(&mut list, one);
            }
            let before: BTreeSet<u32> = list.0.iter().copied().collect();
            let mut meanwhile = meanwhile.into_iter();
            let (seen, _, _) = read(&mut list, bookmarks, |list| {
                if let Some(one) = meanwhile.next() {
                    change(list, one);
                }
            });
            let after: BTreeSet<u32> = list.0.iter().copied().collect();
            let stayed: BTreeSet<u32> = before.intersection(&after).copied().collect();
            // A reading whose very place is deleted breaks off, and claims nothing of what comes behind.
            let last = seen.iter().filter_map(|id| list.0.iter().position(|other| other == id)).max();
            let reached: BTreeSet<u32> = list.0.iter().copied().take(last.map_or(0, |last| last + 1)).collect();
            for id in stayed.intersection(&reached) {
                prop_assert!(seen.contains(id), "{} of {:?}", id, list);
            }
        }
    }
}
