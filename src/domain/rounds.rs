//! List pages or single retrievals: which costs less for the batches that are due (`docs/contract.md#polling`).

/// What one page costs, in single retrievals: it is one request as well, with a longer answer.
pub const PAGE: f64 = 1.5;

/// How an account's list lies, newest batch first, as its pages have shown.
///
/// A page can only be reached by reading those before it, so what counts is how deep a batch lies. That is known by
/// its creation time as far as the list has been read; beyond, what is on the schedule is all that is known, thinned
/// out by whatever else the account has.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The most batches on a page.
    size: usize,
    /// When the oldest batch on each page was created, Unix seconds.
    edges: Vec<i64>,
    /// Whether the last of these pages ends the list.
    ends: bool,
    /// Whether the list is really sorted, newest first.
    sorted: bool,
    /// How much of what pages show is on the schedule.
    share: f64,
}

/// What reading on brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// So many pages are worth reading; the batches beyond are not worth the pages before them.
    pub pages: usize,
    /// What that costs with the single retrievals of the batches beyond, in single retrievals.
    pub cost: f64,
}

/// One page, as [`Outline::note`] wants to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// How many batches it has.
    pub batches: usize,
    /// Creation times of its batches, in its order, as far as the service tells them.
    pub created_at: Vec<i64>,
    /// How many of its batches are on the schedule.
    pub scheduled: usize,
    /// Whether it is the list's last.
    pub last: bool,
}

impl Outline {
    /// Of a list that nobody has read yet, with at most `size` batches a page.
    pub fn new(size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        Self { size, edges: Vec::new(), ends: false, sorted: true, share: 1.0 }
    }

    /// Page `number` (from 0) showed this.
    pub fn note(&mut self, number: usize, shown: &Shown) {
        let tells_none = shown.created_at.is_empty() && shown.batches > 0;
        if tells_none || !shown.created_at.is_sorted_by(|a, b| a >= b) {
            self.sorted = false;
        } else if number == 0 && !shown.created_at.is_empty() {
            self.sorted = true;
        }
        if shown.last {
            self.edges.truncate(number + usize::from(!shown.created_at.is_empty()));
        }
        if let Some(oldest) = shown.created_at.last().copied() {
            if number == self.edges.len() {
                self.edges.push(oldest);
            } else if let Some(edge) = self.edges.get_mut(number) {
                *edge = oldest;
            }
            // Newer pages end no earlier, older ones no later.
            let here = number.min(self.edges.len());
            let (newer, rest) = self.edges.split_at_mut(here);
            newer.iter_mut().rev().take_while(|edge| **edge < oldest).for_each(|edge| *edge = oldest);
            rest.iter_mut().skip(1).take_while(|edge| **edge > oldest).for_each(|edge| *edge = oldest);
        }
        if shown.batches > 0 {
            self.share = (0.7 * self.share + 0.3 * ratio(shown.scheduled, shown.batches)).max(0.01);
        }
        self.ends = shown.last || (self.ends && number + 1 < self.edges.len());
    }

    /// Whether a batch created then should have been shown by pages of which the last ended with one created at
    /// `oldest`. Never where the list is not sorted: its end alone tells.
    pub fn passed(&self, created_at: i64, oldest: i64) -> bool {
        self.sorted && created_at > oldest
    }

    /// On which pages the wanted batches lie, counted from page `from` on and ascending.
    ///
    /// `wanted`: their creation times; `None` where that is not known, or the list is not sorted: they are taken to be
    /// among the next, as `found`, the share of such that pages have shown lately, promises. `scheduled`: the creation
    /// times of everything on the schedule, newest first.
    pub fn places(
        &self,
        from: usize,
        wanted: impl IntoIterator<Item = Option<i64>>,
        scheduled: &[i64],
        found: f64,
    ) -> Vec<usize> {
        let wanted: Vec<Option<i64>> = wanted.into_iter().map(|at| at.filter(|_| self.sorted)).collect();
        let mut known: Vec<i64> = wanted.iter().copied().flatten().collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        let mut places = Vec::with_capacity(wanted.len());
        for of_one_time in known.chunk_by(|a, b| a == b) {
            self.places_of_one_time(from, of_one_time, scheduled, &mut places);
        }
        // Where no times tell, all that is known is how much of what pages show is on the schedule.
        let found = if self.sorted { found } else { found.min(self.share) };
        let unplaced = wanted.len() - known.len();
        places.extend((0..unplaced).map(|number| self.pages(number, found.max(0.001))));
        places.sort_unstable();
        places
    }

    /// The same of batches that were created at one time. They lie spread over all pages that hold that time, behind what
    /// has been read.
    fn places_of_one_time(&self, from: usize, wanted: &[i64], scheduled: &[i64], places: &mut Vec<usize>) {
        let Some(created_at) = wanted.first().copied() else { return };
        let newer = scheduled.partition_point(|at| *at > created_at);
        let alike = scheduled.partition_point(|at| *at >= created_at).saturating_sub(newer);
        let mut first = self.edges.partition_point(|edge| *edge > created_at);
        let last = self.edges.partition_point(|edge| *edge >= created_at);
        if first == self.edges.len() {
            // Older than the list is long: no page shows it.
            if self.ends {
                return;
            }
            let known = self.edges.last().map_or(0, |edge| scheduled.partition_point(|at| *at > *edge));
            first += self.pages(newer.saturating_sub(known), self.share);
        }
        // What the pages before have shown is not looked for any more.
        let shown = from.saturating_sub(first);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, and `as` saturates"
        )]
        let gone = (shown as f64 * self.size as f64 * self.share) as usize;
        let left = alike.saturating_sub(gone).max(wanted.len());
        let end = if last < self.edges.len() || self.ends { last.max(first) } else { usize::MAX };
        places.extend((0..wanted.len()).map(|number| {
            let before = left * (2 * number + 1) / (2 * wanted.len());
            (first.max(from) + self.pages(before, self.share)).min(end).saturating_sub(from)
        }));
    }

    /// How many whole pages `batches` fill if they are only this share of what stands there.
    fn pages(&self, batches: usize, share: f64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate, and `as` saturates"
        )]
        let pages = (batches as f64 / share / self.size as f64) as usize;
        pages
    }
}

/// How many of the next pages are worth reading for `wanted` batches, of which some lie on the pages `places` (from 0,
/// ascending) and the others on none: those before the cheapest place to stop.
pub fn choose(places: &[usize], wanted: usize) -> Choice {
    let mut best = Choice { pages: 0, cost: float(wanted) };
    for (index, place) in places.iter().enumerate() {
        let cost = float(*place + 1) * PAGE + float(wanted - index - 1);
        if cost < best.cost {
            best = Choice { pages: *place + 1, cost };
        }
    }
    best
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { float(part.min(whole)) / float(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of batches are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A list of batches created a second apart, the newest at `newest`; all of them on the schedule.
    fn read(outline: &mut Outline, pages: usize, newest: i64, last: bool) {
        let size = i64::try_from(outline.size).unwrap();
        for number in 0..pages {
            let first = newest - size * i64::try_from(number).unwrap();
            let created_at: Vec<i64> = (0..size).map(|index| first - index).collect();
            let scheduled = created_at.len();
            outline.note(
                number,
                &Shown { batches: scheduled, created_at, scheduled, last: last && number + 1 == pages },
            );
        }
    }

    fn descending(count: i64) -> Vec<i64> {
        (0..count).map(|index| 10_000 - index).collect()
    }

    fn chosen(outline: &Outline, wanted: &[i64], scheduled: &[i64]) -> usize {
        let places = outline.places(0, wanted.iter().copied().map(Some), scheduled, 1.0);
        choose(&places, wanted.len()).pages
    }

    #[test]
    fn one_is_retrieved_and_two_of_a_page_are_read_from_it() {
        let outline = Outline::new(100);
        assert_eq!(chosen(&outline, &[10_000], &[10_000]), 0);
        assert_eq!(chosen(&outline, &[10_000, 9_999], &[10_000, 9_999]), 1);
        assert_eq!(choose(&[], 5), Choice { pages: 0, cost: 5.0 });
    }

    #[test]
    fn a_thousand_of_the_newest_are_ten_pages() {
        let scheduled = descending(1000);
        let mut outline = Outline::new(100);
        assert_eq!(chosen(&outline, &scheduled, &scheduled), 10, "before the list was ever read");
        read(&mut outline, 10, 10_000, false);
        assert_eq!(chosen(&outline, &scheduled, &scheduled), 10);
        assert_eq!(chosen(&outline, &scheduled[300..320], &scheduled), 4, "a few, not too deep");
        assert_eq!(chosen(&outline, &scheduled[900..905], &scheduled), 0, "five on the tenth page");
    }

    #[test]
    fn what_other_people_have_makes_a_list_deeper() {
        let scheduled = descending(1000);
        let mut outline = Outline::new(100);
        for number in 0..3 {
            let created_at = vec![20_000 - i64::try_from(number).unwrap(); 100];
            outline.note(number, &Shown { batches: 100, created_at, scheduled: 0, last: false });
        }
        // The share is unknown, but no longer thought to be whole.
        assert!(chosen(&outline, &scheduled[500..520], &scheduled) == 0);
    }

    #[test]
    fn what_is_older_than_the_list_is_long_is_on_no_page() {
        let mut outline = Outline::new(100);
        read(&mut outline, 2, 10_000, true);
        assert_eq!(outline.places(0, [Some(9_999), Some(5)], &[], 1.0), [0]);
        assert_eq!(choose(&[0], 2).pages, 0);
        // It has grown since.
        read(&mut outline, 3, 10_100, false);
        assert!(outline.places(0, [Some(5)], &[], 1.0)[0] >= 3);
    }

    #[test]
    fn of_a_list_that_is_not_sorted_only_the_end_tells() {
        let mut outline = Outline::new(2);
        assert!(outline.passed(5, 4) && !outline.passed(4, 4));
        outline.note(0, &Shown { batches: 2, created_at: vec![1, 5], scheduled: 2, last: false });
        assert!(!outline.passed(5, 1));
        assert_eq!(outline.places(0, [Some(1), Some(5), None], &[], 1.0), [0, 0, 1]);
        outline.note(0, &Shown { batches: 2, created_at: vec![5, 1], scheduled: 2, last: false });
        assert!(outline.passed(5, 1));
    }

    #[test]
    fn batches_of_one_time_lie_on_as_many_pages_as_they_fill() {
        let mut outline = Outline::new(100);
        let scheduled = vec![7_000; 5000];
        assert_eq!(chosen(&outline, &scheduled, &scheduled), 50);
        for number in 0..20 {
            let created_at = vec![7_000; 100];
            outline.note(number, &Shown { batches: 100, created_at, scheduled: 100, last: false });
            let places = outline.places(number + 1, vec![Some(7_000); 4900 - number * 100], &scheduled, 1.0);
            assert_eq!(choose(&places, places.len()).pages, 49 - number, "after page {number}");
        }
        assert_eq!(chosen(&outline, &scheduled[..10], &scheduled), 0, "few of many are retrieved");
    }

    #[test]
    fn a_list_without_times_is_read_as_far_as_it_shows_what_is_looked_for() {
        let mut outline = Outline::new(100);
        let page = |scheduled, last| Shown { batches: 100, created_at: Vec::new(), scheduled, last };
        outline.note(0, &page(100, false));
        outline.note(1, &page(100, true));
        assert_eq!(chosen(&outline, &[5; 200], &[5; 200]), 2);
        for _ in 0..20 {
            outline.note(0, &page(0, false));
        }
        assert_eq!(chosen(&outline, &[5; 20], &[5; 20]), 0, "others fill it");
    }

    #[test]
    fn unseen_ones_are_looked_for_as_long_as_pages_show_some() {
        let outline = Outline::new(100);
        let places = |found| outline.places(0, vec![None; 1000], &[], found);
        assert_eq!(choose(&places(1.0), 1000).pages, 10);
        assert!(choose(&places(0.0), 1000).pages <= 1);
    }

    proptest! {
        #[test]
        fn no_other_place_to_stop_is_cheaper(
            mut places in prop::collection::vec(0_usize..40, 0..200), nowhere in 0_usize..50,
        ) {
            places.sort_unstable();
            let wanted = places.len() + nowhere;
            let choice = choose(&places, wanted);
            for pages in 0..=40 {
                let shown = places.iter().filter(|place| **place < pages).count();
                let cost = float(pages) * PAGE + float(wanted - shown);
                prop_assert!(choice.cost <= cost + 1e-9, "{} pages cost {}, chosen {:?}", pages, cost, choice);
            }
            let shown = places.iter().filter(|place| **place < choice.pages).count();
            prop_assert!((choice.cost - float(choice.pages) * PAGE - float(wanted - shown)).abs() < 1e-9);
        }

        #[test]
        fn whatever_pages_show_places_are_ascending_and_edges_sorted(
            pages in prop::collection::vec((prop::collection::vec(0_i64..100, 0..6), 0_usize..6, any::<bool>()), 0..12),
            wanted in prop::collection::vec(prop::option::of(0_i64..100), 0..20), from in 0_usize..4, found in 0.0..=1.0,
        ) {
            let mut outline = Outline::new(5);
            for (number, (created_at, scheduled, last)) in pages.into_iter().enumerate() {
                outline.note(number % 4, &Shown { batches: created_at.len(), created_at, scheduled, last });
                prop_assert!(outline.edges.is_sorted_by(|a, b| a >= b), "{:?}", outline);
            }
            let mut scheduled: Vec<i64> = wanted.iter().copied().flatten().collect();
            scheduled.sort_unstable_by(|a, b| b.cmp(a));
            let count = wanted.len();
            let places = outline.places(from, wanted, &scheduled, found);
            prop_assert!(places.is_sorted() && places.len() <= count);
        }
    }
}
