//! What may be deleted for its age although clocks are wrong at times (`docs/contract.md#what-is-never-lost`).
//!
//! Age is counted on a scale of its own, the time that has surely passed: what batchd ran, and what it was down. Where
//! the wall clock leaps, by a wrong setting or over a downtime, nobody can tell the two apart at once. So a leap counts
//! only once batchd has run for a day without its being taken back. What the wall clock showed in each stretch is kept,
//! so that a time that was written down then (in 1970, or next year) still has its age.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;

/// What is known of the clock. All numbers are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The time that has surely passed since the first observation.
    passed: i64,
    /// What the wall clock showed last.
    wall: i64,
    /// What the wall clock has shown, in the order of the stretches' beginnings; the last one goes on.
    stretches: Vec<Stretch>,
    /// Leaps forward that do not count yet, the oldest first.
    leaps: Vec<Leap>,
    /// How far the wall clock is behind what was believed of it: a leap forward of so much only makes up for it.
    behind: i64,
    /// Since the clock was set back: until it has gone right for a day nobody knows when what it makes up for has passed.
    doubt: Option<Doubt>,
    /// The stretch in which batchd was started last.
    started: u64,
    /// How many stretches there have been.
    born: u64,
    /// When the present hour of deleting began, and how much of it is spent.
    hour: (i64, u64),
}

/// A time in which the wall clock ran as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    born: u64,
    from: i64,
    to: i64,
    /// The wall clock minus the time that had passed.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Leap {
    length: i64,
    /// How long batchd has run since.
    ran: i64,
    /// The first stretch after it.
    born: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Doubt {
    /// The first stretch that is in doubt.
    born: u64,
    /// How long batchd has run since the clock was set back last.
    ran: i64,
}

impl Retention {
    /// Begins where the wall clock shows `wall`; what was written down before is believed.
    pub fn beginning(wall: i64) -> Self {
        let wall = sane(wall);
        let first = Stretch { born: 0, from: -FAR, to: wall, offset: wall };
        Self { wall, stretches: vec![first], ..Self::default() }
    }

    /// The wall clock shows `wall`, and `ran` has passed by a clock that nobody sets since the last observation; `None`:
    /// nobody knows, for batchd was down. Whether the clock leapt.
    pub fn observe(&mut self, wall: i64, ran: Option<Duration>) -> bool {
        let wall = sane(wall);
        let known = ran.map_or(0, |ran| i64::try_from(ran.as_millis()).unwrap_or(FAR).min(FAR));
        let leap = wall - self.wall - known;
        self.passed += known;
        for leap in &mut self.leaps {
            leap.ran += known;
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.ran += known;
            if doubt.ran >= BELIEVED_AFTER && self.behind == 0 {
                self.doubt = None;
            }
        }
        let slack = if ran.is_some() { SLACK.max(known / 100) } else { SLACK_DOWN };
        let leapt = leap.abs() > slack;
        if leapt {
            self.leap(leap, wall, ran.map(|_| known));
        } else {
            // Clocks drift, and are put right little by little.
            self.passed = (self.passed + leap).max(0);
        }
        if ran.is_none() {
            self.started = self.born;
        }
        self.wall = wall;
        if let Some(last) = self.stretches.last_mut() {
            last.to = last.to.max(wall);
        }
        self.believe();
        leapt
    }

    /// The clock leapt to what led to `wall`, while batchd ran for `ran` or, if that is `None`, was down.
    fn leap(&mut self, leap: i64, wall: i64, ran: Option<i64>) {
        self.born += 1;
        if leap > 0 {
            let made_up = leap.min(self.behind);
            self.behind -= made_up;
            if leap > made_up {
                // What was written down in doubt is taken for young. While batchd runs no time passes unseen: then the
                // clock was wrong since the start, and nothing since is older for it.
                let born = self.doubt.map_or(self.born, |doubt| doubt.born);
                let born = if ran.is_some() { born.min(self.started) } else { born };
                self.leaps.push(Leap { length: leap - made_up, ran: 0, born });
            }
            if self.leaps.len() > MAX_LEAPS
                && let Some(newest) = self.leaps.pop()
                && let Some(before) = self.leaps.last_mut()
            {
                before.length += newest.length;
                before.ran = 0;
            }
        } else {
            let mut back = -leap;
            let mut born = self.doubt.map_or(self.born, |doubt| doubt.born);
            while back > 0
                && let Some(newest) = self.leaps.last_mut()
            {
                let taken_back = back.min(newest.length);
                newest.length -= taken_back;
                back -= taken_back;
                newest.ran = 0;
                born = born.min(newest.born);
                if newest.length == 0 {
                    self.leaps.pop();
                }
            }
            self.doubt = Some(Doubt { born, ran: 0 });
            self.behind = (self.behind + back).min(FAR);
        }
        // When it leapt nobody has seen: it may have shown this since the observation before.
        let from = wall - ran.unwrap_or(0);
        self.stretches.push(Stretch { born: self.born, from, to: wall, offset: wall - self.passed });
        if self.stretches.len() > MAX_STRETCHES {
            self.stretches.remove(1);
        }
    }

    /// Counts the leaps that have stood long enough, and joins what they no longer part.
    fn believe(&mut self) {
        while let Some(leap) = self.leaps.first().copied().filter(|leap| leap.ran >= BELIEVED_AFTER) {
            self.leaps.remove(0);
            self.passed += leap.length;
            for stretch in self.stretches.iter_mut().filter(|stretch| stretch.born >= leap.born) {
                stretch.offset -= leap.length;
            }
        }
        let mut at = 1;
        while at < self.stretches.len() {
            let (before, this) = (self.stretches[at - 1], self.stretches[at]);
            if before.offset == this.offset {
                self.stretches[at] =
                    Stretch { from: before.from.min(this.from), to: before.to.max(this.to), ..this };
                self.stretches.remove(at - 1);
            } else {
                at += 1;
            }
        }
    }

    /// Which times of the wall clock are longer ago than `retain`, as parts that do not overlap, the earliest first.
    pub fn expired(&self, retain: Duration) -> Vec<Range<i64>> {
        let retain = i64::try_from(retain.as_millis()).unwrap_or(FAR).min(FAR);
        let mut edges: Vec<i64> =
            self.stretches.iter().flat_map(|stretch| [stretch.from, stretch.to + 1]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut parts: Vec<Range<i64>> = Vec::new();
        for edge in edges.windows(2) {
            let (from, to) = (edge[0], edge[1]);
            let holding =
                self.stretches.iter().filter(|stretch| stretch.from <= from && stretch.to >= to - 1);
            // Of several stretches that showed this time, the last counts.
            let end = if let Some(offset) = holding.map(|stretch| stretch.offset).min() {
                to.min(self.passed - retain + offset + 1)
            } else {
                // A time that no clock has shown is as young as the next one that was shown.
                let next = self.stretches.iter().filter(|stretch| stretch.from >= to);
                let next = next.min_by_key(|stretch| stretch.from).map(|next| next.from - next.offset);
                if next.is_some_and(|next| self.passed - next >= retain) { to } else { from }
            };
            if end > from {
                match parts.last_mut().filter(|last| last.end == from) {
                    Some(last) => last.end = end,
                    None => parts.push(from..end),
                }
            }
        }
        parts
    }

    /// How many of `total` batches may be deleted now. An hour has room for a tenth of them or a thousand.
    pub fn allowance(&self, total: u64) -> u64 {
        let most = (total / 10).max(AN_HOUR_AT_LEAST);
        let (began, spent) = self.hour;
        if self.passed - began >= HOUR || self.passed < began { most } else { most.saturating_sub(spent) }
    }

    /// `count` of them are deleted.
    pub fn spend(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        let (began, spent) = self.hour;
        self.hour = if spent == 0 || self.passed - began >= HOUR || self.passed < began {
            (self.passed, count)
        } else {
            (began, spent + count)
        };
    }
}

/// A time that can be reckoned with: some hundred thousand years around 1970.
fn sane(wall: i64) -> i64 {
    wall.clamp(-FAR, FAR)
}

const HOUR: i64 = 3_600_000;
/// How long batchd runs before it believes a leap of the clock.
const BELIEVED_AFTER: i64 = 24 * HOUR;
/// So far the wall clock may be off between two observations, or by a hundredth of what has passed.
const SLACK: i64 = 2_000;
/// A downtime so short is believed at once.
const SLACK_DOWN: i64 = 5 * 60_000;
const FAR: i64 = 1 << 53;
const MAX_LEAPS: usize = 32;
const MAX_STRETCHES: usize = 128;
const AN_HOUR_AT_LEAST: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_795_000_000_000;
    const DAY: i64 = 24 * HOUR;
    const RETAIN: Duration = Duration::from_hours(90 * 24);

    fn ms(length: i64) -> Duration {
        Duration::from_millis(length.unsigned_abs())
    }

    /// Runs on for `length` with a clock that goes right, from `wall`; gives what it shows then.
    fn run(retention: &mut Retention, wall: i64, length: i64) -> i64 {
        retention.observe(wall + length, Some(ms(length)));
        wall + length
    }

    fn is_expired(retention: &Retention, at: i64) -> bool {
        retention.expired(RETAIN).iter().any(|part| part.contains(&at))
    }

    #[test]
    fn what_a_clock_that_goes_right_calls_old_is_old() {
        let mut retention = Retention::beginning(NOW);
        let mut wall = NOW;
        for _ in 0..100 {
            wall = run(&mut retention, wall, DAY);
        }
        let parts = retention.expired(RETAIN);
        assert_eq!((parts.len(), &parts[0]), (1, &(-FAR..NOW + 10 * DAY + 1)));
        assert_eq!(retention.stretches.len(), 1);
    }

    #[test]
    fn months_ahead_for_a_moment_or_for_hours_make_nothing_old() {
        for (ran, restarts) in [(20_000, true), (20_000, false), (20 * HOUR, true), (20 * HOUR, false)] {
            let mut retention = Retention::beginning(NOW);
            let wall = run(&mut retention, NOW, 10 * DAY);
            let ahead = wall + 91 * DAY;
            assert!(retention.observe(ahead, if restarts { None } else { Some(ms(1000)) }));
            let ended_ahead = run(&mut retention, ahead, ran);
            assert!(!is_expired(&retention, NOW + 5 * DAY), "{ran} {restarts}");
            let back = wall + ran + 2000;
            assert!(retention.observe(back, if restarts { None } else { Some(ms(1000)) }));
            let wall = run(&mut retention, back, 5 * DAY);
            assert!(!is_expired(&retention, NOW + 5 * DAY));
            // What was written down ahead of time is as old as it is.
            let wall = run(&mut retention, wall, 80 * DAY);
            assert!(is_expired(&retention, NOW) && !is_expired(&retention, ended_ahead));
            // By now a clock that goes right has shown the same, and the later of the two counts.
            let wall = run(&mut retention, wall, 12 * DAY);
            assert!(!is_expired(&retention, ended_ahead));
            run(&mut retention, wall, 90 * DAY);
            assert!(is_expired(&retention, ended_ahead));
        }
    }

    #[test]
    fn a_boot_in_1970_makes_nothing_old() {
        let mut retention = Retention::beginning(NOW);
        let before = run(&mut retention, NOW, 10 * DAY);
        retention.observe(30_000, None);
        let early = run(&mut retention, 30_000, HOUR);
        // Then the time server comes.
        retention.observe(before + 2 * HOUR, Some(ms(1000)));
        let wall = run(&mut retention, before + 2 * HOUR, 3 * DAY);
        assert!(!is_expired(&retention, early) && !is_expired(&retention, NOW));
        let wall = run(&mut retention, wall, 78 * DAY);
        assert!(is_expired(&retention, NOW) && !is_expired(&retention, early));
        run(&mut retention, wall, 12 * DAY);
        assert!(is_expired(&retention, early));
    }

    #[test]
    fn a_downtime_counts_once_batchd_has_run_for_a_day() {
        let mut retention = Retention::beginning(NOW);
        let wall = NOW + 100 * DAY;
        retention.observe(wall, None);
        assert!(!is_expired(&retention, NOW));
        let wall = run(&mut retention, wall, 23 * HOUR);
        assert!(!is_expired(&retention, NOW));
        run(&mut retention, wall, 2 * HOUR);
        assert!(is_expired(&retention, NOW) && !is_expired(&retention, NOW + 50 * DAY));
        assert_eq!(retention.stretches.len(), 1, "nothing is left of it");
    }

    #[test]
    fn an_hour_has_room_for_a_tenth_or_a_thousand() {
        let mut retention = Retention::beginning(NOW);
        assert_eq!((retention.allowance(10), retention.allowance(50_000)), (1000, 5000));
        retention.spend(700);
        assert_eq!(retention.allowance(10), 300);
        let wall = run(&mut retention, NOW, HOUR / 2);
        retention.spend(300);
        assert_eq!(retention.allowance(10), 0);
        run(&mut retention, wall, HOUR / 2);
        assert_eq!(retention.allowance(10), 1000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Runs(i64),
        Leaps(i64),
        /// Is down for so long, and comes back with a clock that is off by so much.
        Down(i64, i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let leap = prop_oneof![-100 * DAY..100 * DAY, Just(-NOW), Just(1000 * DAY)];
        let step = prop_oneof![
            4 => (1..40 * HOUR).prop_map(Step::Runs),
            1 => leap.clone().prop_map(Step::Leaps),
            1 => (0..20 * DAY, prop_oneof![Just(0), leap]).prop_map(|(down, off)| Step::Down(down, off)),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Whatever the clock does, as long as a wrong one is put right within a day and while batchd runs, nothing younger
        /// goes.
        #[test]
        fn nothing_goes_before_its_time(steps in steps(), retain in 1_i64..100) {
            let mut retention = Retention::beginning(NOW);
            // What has really passed, and how far the wall clock is off.
            let (mut real, mut off) = (0_i64, 0_i64);
            let mut rows: Vec<(i64, i64)> = vec![(0, NOW)];
            for step in steps {
                match step {
                    Step::Runs(length) => {
                        // A wrong clock does not stay.
                        let length = if off == 0 { length } else { length.min(DAY / 4) };
                        real += length;
                        retention.observe(NOW + real + off, Some(ms(length)));
                        if off != 0 {
                            rows.push((real, NOW + real + off));
                            off = 0;
                            retention.observe(NOW + real, Some(ms(0)));
                        }
                    }
                    Step::Leaps(by) => {
                        off = by;
                        retention.observe(NOW + real + off, Some(ms(0)));
                    }
                    Step::Down(length, by) => {
                        // A clock that was wrong at a start and right at the next is one that stood still meanwhile.
                        if off != 0 {
                            retention.observe(NOW + real, Some(ms(0)));
                        }
                        real += length;
                        off = by;
                        retention.observe(NOW + real + off, None);
                    }
                }
                rows.push((real, NOW + real + off));
                let expired = retention.expired(ms(retain * DAY));
                for (written, shown) in &rows {
                    if expired.iter().any(|part| part.contains(shown)) {
                        // A downtime of minutes is believed without proof.
                        prop_assert!(real - written >= retain * DAY - 40 * SLACK_DOWN, "{written} at {real}");
                    }
                }
            }
            // And with a clock that goes right everything goes in the end.
            for _ in 0..(retain + 30) {
                real += DAY;
                retention.observe(NOW + real, Some(ms(DAY)));
            }
            let expired = retention.expired(ms(retain * DAY));
            for (written, shown) in &rows {
                let is_ahead = *shown > NOW + written;
                if !is_ahead && real - written > (retain + 25) * DAY {
                    prop_assert!(expired.iter().any(|part| part.contains(shown)), "{written} {shown}");
                }
            }
        }

        #[test]
        fn no_clock_panics(walls in prop::collection::vec((any::<i64>(), prop::option::of(any::<u64>())), 0..20)) {
            let mut retention = Retention::beginning(walls.first().map_or(0, |(wall, _)| *wall));
            for (wall, ran) in walls {
                retention.observe(wall, ran.map(|ran| Duration::from_millis(ran >> 20)));
                let parts = retention.expired(Duration::from_millis(1));
                prop_assert!(parts.windows(2).all(|two| two[0].end < two[1].start));
                let text = serde_json::to_string(&retention).unwrap();
                prop_assert_eq!(serde_json::from_str::<Retention>(&text).unwrap(), retention.clone());
            }
        }
    }
}
