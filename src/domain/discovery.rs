//! What a provider's list tells of batches that nobody registered: which are new, and which are old news.

use super::sighting::Sighting;
use super::status::Status;
use super::time::{earlier, from_seconds, later};
use super::walk::{Onward, Walk};
use jiff::Timestamp;
use std::time::Duration;

/// How far a list has been searched by the rounds before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// When the first round of all began.
    pub began_at: Option<Timestamp>,
    /// When the last complete round began, but no later than [`read_to`].
    pub round_at: Option<Timestamp>,
}

/// What becomes of an entry of the list that is neither tracked nor passed over already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// It is tracked, and its end is told.
    New,
    /// It was over before: it is passed over, now and later.
    OldNews,
    /// It is older than anybody asks.
    TooOld,
}

impl Searched {
    /// From which creation on an end that is past is news; `None`: at the first round nothing is.
    fn news_from(self) -> Option<Timestamp> {
        match self.round_at {
            // What was listed within the slack is known by its id.
            Some(at) => Some(earlier(at, SLACK)),
            None => self.began_at,
        }
    }

    /// Back to which creation a round at `now` reads the list.
    pub fn floor(self, now: Timestamp) -> Timestamp {
        let usual = earlier(now, LOOK_BACK);
        // After a long stop as far as the round before has read; otherwise no farther than that.
        self.round_at.map_or(usual, |at| earlier(at, SLACK))
    }

    /// What an unknown entry is to a round at `now`.
    pub fn judge(self, entry: &Sighting, now: Timestamp) -> Find {
        let created = entry.created_by().and_then(from_seconds);
        let is_older = |than: Timestamp| created.is_some_and(|created| created < than);
        match entry.status {
            Some(status) if !status.is_terminal() => Find::New,
            // A word that is not known may be an end; in a young batch it is looked into.
            None if !is_older(self.floor(now)) => Find::New,
            None => Find::TooOld,
            Some(Status::Completed | Status::Failed | Status::Expired | Status::Cancelled) => {
                match self.news_from() {
                    Some(from) if !is_older(from) => Find::New,
                    _ if is_older(earlier(now, LOOK_BACK)) => Find::TooOld,
                    _ => Find::OldNews,
                }
            }
            Some(_) => Find::New,
        }
    }
}

/// How far a round that began at `began_at` has surely read the list, by `entries` of it.
///
/// The provider's times say it, not the local clock alone, which may be months ahead when a machine starts: what is
/// created after the newest entry has not been read. A creation more than a day in the future is a provider's mistake,
/// or the local clock is far behind: both say nothing.
pub fn read_to(entries: &[Sighting], began_at: Timestamp) -> Option<Timestamp> {
    let created = entries.iter().filter_map(Sighting::created_by).filter_map(from_seconds);
    let newest = created.filter(|created| *created <= later(began_at, FUTURE)).max()?;
    Some(later(newest, SLACK).min(began_at))
}

/// How far a list has been read.
#[derive(Clone, Debug)]
pub struct Reading {
    floor: Timestamp,
    walk: Walk,
    /// Whether all so far came newest first.
    newest_first: bool,
    last: Option<i64>,
    pages: u32,
}

impl Reading {
    /// The beginning of a reading back to what was created at `floor`.
    pub fn back_to(floor: Timestamp) -> Self {
        Self { floor, walk: Walk::default(), newest_first: true, last: None, pages: 0 }
    }

    /// Notes a page and its cursor for the next one; whether and how to go on.
    ///
    /// [`Onward::End`]: nothing behind it can be of interest. A list that does not come newest first is read to its
    /// end, unless that is too far away ([`Onward::NoProgress`]).
    pub fn note(&mut self, page: &[Sighting], next: Option<&str>) -> Onward {
        self.pages += 1;
        let onward = self.walk.note(page.iter().map(|entry| entry.id.as_str()), next);
        for created in page.iter().filter_map(Sighting::created_by) {
            self.newest_first &= self.last.is_none_or(|last| created <= last);
            self.last = Some(created);
        }
        let past = self.last.and_then(from_seconds).is_some_and(|last| last < self.floor);
        match onward {
            Onward::Read if self.newest_first && past => Onward::End,
            Onward::Read if self.pages >= MAX_PAGES => Onward::NoProgress,
            onward => onward,
        }
    }
}

/// How far back the first round reads.
const LOOK_BACK: Duration = Duration::from_hours(7 * 24);
/// By so much a provider's clock and list may be behind.
const SLACK: Duration = Duration::from_mins(10);
/// By so much a creation may be ahead of the local clock. Some services tell only the day.
const FUTURE: Duration = Duration::from_hours(36);
/// A list of more pages is too long to be read.
const MAX_PAGES: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::later;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);
    const HOUR: Duration = Duration::from_hours(1);

    fn entry(status: Option<Status>, created: Timestamp) -> Sighting {
        Sighting {
            id: "batch_1".to_owned(),
            status,
            created_at: Some(created.as_second()),
            ..Sighting::default()
        }
    }

    #[test]
    fn at_the_first_round_only_what_lives_is_news() {
        let first = Searched::default();
        let judge = |status, age| first.judge(&entry(status, earlier(NOW, age)), NOW);
        assert_eq!(judge(Some(Status::InProgress), HOUR), Find::New);
        assert_eq!(judge(Some(Status::InProgress), HOUR * 1000), Find::New, "a live one of whatever age");
        assert_eq!(judge(Some(Status::Completed), Duration::ZERO), Find::OldNews);
        assert_eq!(judge(Some(Status::Failed), HOUR * 24 * 8), Find::TooOld);
        assert_eq!(judge(None, HOUR), Find::New);
        assert_eq!(judge(None, HOUR * 24 * 8), Find::TooOld);
    }

    #[test]
    fn an_end_is_news_if_the_batch_was_created_since_the_round_before() {
        let round_at = earlier(NOW, HOUR);
        let searched = Searched { began_at: Some(earlier(NOW, HOUR * 50)), round_at: Some(round_at) };
        let judge = |created| searched.judge(&entry(Some(Status::Expired), created), NOW);
        assert_eq!(judge(later(round_at, Duration::from_secs(1))), Find::New);
        assert_eq!(judge(earlier(round_at, HOUR)), Find::OldNews);
        let unknown = Sighting { created_at: None, ..entry(Some(Status::Failed), NOW) };
        assert_eq!(searched.judge(&unknown, NOW), Find::New, "nobody can say that it is old");
        // A first round that broke off: what came after it began is news, what was there is not.
        let broken = Searched { began_at: Some(round_at), round_at: None };
        let judge = |created| broken.judge(&entry(Some(Status::Expired), created), NOW);
        assert_eq!(judge(later(round_at, Duration::from_secs(1))), Find::New);
        assert_eq!(judge(earlier(round_at, Duration::from_secs(1))), Find::OldNews);
        // After a fortnight without rounds everything since is news.
        let long_ago = Searched { began_at: None, round_at: Some(earlier(NOW, HOUR * 24 * 14)) };
        let created = earlier(NOW, HOUR * 24 * 13);
        assert_eq!(long_ago.judge(&entry(Some(Status::Completed), created), NOW), Find::New);
        assert!(long_ago.floor(NOW) < created);
    }

    #[test]
    fn how_far_a_list_was_read_does_not_depend_on_the_local_clock() {
        let created = |ago: u32| entry(Some(Status::Completed), earlier(NOW, HOUR * ago));
        let entries = [created(30), created(3), created(50)];
        let newest = earlier(NOW, HOUR * 3);
        for ahead in [Duration::ZERO, HOUR, HOUR * 24 * 91] {
            assert_eq!(read_to(&entries, later(NOW, ahead)), Some(later(newest, SLACK)));
        }
        assert_eq!(read_to(&entries, newest), Some(newest));
        assert_eq!(read_to(&entries, Timestamp::UNIX_EPOCH), None, "the clock has not been set yet");
        let odd = [created(3), entry(None, later(NOW, HOUR * 24 * 400))];
        assert_eq!(read_to(&odd, NOW), Some(later(newest, SLACK)), "a date that cannot be");
        // What ends after a round by a clock that was ahead is news.
        let searched = Searched { began_at: None, round_at: read_to(&entries, later(NOW, HOUR * 24 * 91)) };
        assert_eq!(searched.judge(&created(1), NOW), Find::New);
        assert_eq!(searched.judge(&created(30), NOW), Find::OldNews);
    }

    #[test]
    fn a_list_is_read_until_what_is_known_and_one_out_of_order_to_its_end() {
        let floor = earlier(NOW, HOUR);
        let mut serial = 0;
        let mut page = |minutes: &[u64]| -> Vec<Sighting> {
            let entries = minutes.iter().map(|minutes| {
                serial += 1;
                let created = earlier(NOW, Duration::from_secs(minutes * 60));
                Sighting { id: format!("batch_{serial}"), ..entry(Some(Status::Completed), created) }
            });
            entries.collect()
        };
        let mut reading = Reading::back_to(floor);
        assert_eq!(reading.note(&page(&[1, 2, 3]), Some("1")), Onward::Read);
        assert_eq!(reading.note(&page(&[30, 60]), Some("2")), Onward::Read);
        assert_eq!(reading.note(&page(&[60, 61]), Some("3")), Onward::End);
        let mut reading = Reading::back_to(floor);
        assert_eq!(reading.note(&page(&[300, 2, 500]), Some("1")), Onward::Read);
        assert_eq!(reading.note(&page(&[600]), Some("2")), Onward::Read);
        assert_eq!(reading.note(&[], Some("3")), Onward::Read, "an empty page is no end");
        assert_eq!(reading.note(&[], None), Onward::End);
        // Out of order from one page to the next.
        let mut reading = Reading::back_to(floor);
        assert_eq!(reading.note(&page(&[30]), Some("1")), Onward::Read);
        assert_eq!(reading.note(&page(&[10, 300]), Some("2")), Onward::Read);
        assert_eq!(reading.note(&page(&[400]), Some("1")), Onward::NoProgress, "it leads back");
    }

    proptest! {
        /// Batches come and end at any time, rounds break off anywhere: whatever was created after the first round
        /// began is found exactly once, and what was over before it never.
        #[test]
        fn what_is_found_is_found_once(
            lives in prop::collection::vec((0_i64..200_000, 0_i64..50_000), 1..40),
            rounds in prop::collection::vec((1_i64..20_000, prop::option::of(0_usize..4)), 1..30),
        ) {
            let at = |seconds: i64| Timestamp::from_second(NOW.as_second() + seconds).unwrap();
            let mut searched = Searched::default();
            let mut known = BTreeSet::new();
            let mut told = BTreeSet::new();
            let mut clock = 100_000;
            let mut first_began = None;
            for (gap, broken) in rounds.into_iter().chain([(1, None)]) {
                clock += gap;
                let now = at(clock);
                let mut list: Vec<_> =
                    lives.iter().enumerate().filter(|(_, (created, _))| *created <= clock).collect();
                list.sort_by_key(|(_, (created, _))| std::cmp::Reverse(*created));
                let floor = searched.floor(now);
                let before = searched;
                let mut reading = Reading::back_to(floor);
                let mut complete = true;
                for (number, page) in list.chunks(3).enumerate() {
                    if broken == Some(number) {
                        complete = false;
                        break;
                    }
                    let entries: Vec<Sighting> = page
                        .iter()
                        .map(|(id, (created, life))| {
                            let status =
                                if created + life <= clock { Status::Completed } else { Status::InProgress };
                            Sighting { id: id.to_string(), ..entry(Some(status), at(*created)) }
                        })
                        .collect();
                    for ((id, _), entry) in page.iter().zip(&entries) {
                        if known.contains(id) {
                            continue;
                        }
                        match before.judge(entry, now) {
                            Find::New => {
                                known.insert(*id);
                                prop_assert!(told.insert(*id), "found twice");
                            }
                            Find::OldNews => {
                                known.insert(*id);
                            }
                            Find::TooOld => {}
                        }
                    }
                    searched.began_at.get_or_insert(now);
                    first_began = first_began.or(Some(clock));
                    if reading.note(&entries, Some(&number.to_string())) != Onward::Read {
                        break;
                    }
                }
                if complete {
                    searched.began_at.get_or_insert(now);
                    first_began = first_began.or(Some(clock));
                    searched.round_at = Some(now);
                }
            }
            let first = first_began.unwrap();
            for (id, (created, life)) in lives.iter().enumerate() {
                if *created > first && *created <= clock {
                    prop_assert!(told.contains(&id), "{} created at {} was not found", id, created);
                }
                if created + life <= first {
                    prop_assert!(!told.contains(&id), "{} was over at {}", id, created + life);
                }
            }
        }
    }
}
