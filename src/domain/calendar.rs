//! Turns at set times: a cron pattern as the clocks of a time zone show it, across their changes.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron pattern of five fields in a time zone.
///
/// Where clocks go forward, a daily turn in the hour that is left out comes right after it. Where they go back, a daily
/// turn in the hour that is had twice comes the first time only. A turn every so many minutes follows the clock as it
/// goes.
#[derive(Clone, Debug)]
pub struct Calendar {
    pattern: Cron,
    written: String,
    zone: TimeZone,
}

impl Calendar {
    /// Reads a pattern: minute, hour, day of the month, month, day of the week. `None` if it is none.
    pub fn new(pattern: &str, zone: TimeZone) -> Option<Self> {
        if !pattern.is_ascii() || pattern.split_whitespace().count() != 5 {
            return None;
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        Some(Self { pattern: parser.parse(pattern).ok()?, written: pattern.to_owned(), zone })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The latest turn up to `now`, if it came after `last`. What was missed in between is one turn, not many.
    pub fn due(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let zoned = now.to_zoned(self.zone.clone());
        let turn = self.pattern.find_previous_occurrence(&zoned, true).ok()?.timestamp();
        // To the second: a pattern knows no finer time.
        let turn = Timestamp::from_second(turn.as_second()).ok()?;
        (turn > last && turn <= now).then_some(turn)
    }

    /// The first turn after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let zoned = now.to_zoned(self.zone.clone());
        let turn = self.pattern.find_next_occurrence(&zoned, false).ok()?.timestamp();
        Timestamp::from_second(turn.as_second()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::{earlier, later};
    use proptest::prelude::*;
    use std::time::Duration;

    fn calendar(pattern: &str, zone: &str) -> Calendar {
        Calendar::new(pattern, TimeZone::get(zone).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Every turn that ticks once a minute bring, from one instant to another.
    fn occurrences(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
        let (mut now, end) = (at(from), at(to));
        let mut last = now;
        let mut occurrences = Vec::new();
        while now < end {
            now = later(now, Duration::from_mins(1));
            if let Some(turn) = calendar.due(last, now) {
                occurrences.push(turn.to_string());
                last = turn;
            }
        }
        occurrences
    }

    #[test]
    fn nine_in_the_morning_is_nine_in_the_morning_all_year() {
        let berlin = calendar("0 9 * * *", "Europe/Berlin");
        // The clocks go forward on 2026-03-29 at 01:00Z and back on 2026-10-25 at 01:00Z.
        assert_eq!(
            occurrences(&berlin, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"),
            ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"]
        );
        assert_eq!(
            occurrences(&berlin, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z"),
            ["2026-10-24T07:00:00Z", "2026-10-25T08:00:00Z", "2026-10-26T08:00:00Z"]
        );
        // New York: 2026-03-08 07:00Z and 2026-11-01 06:00Z.
        let new_york = calendar("0 9 * * Mon-Fri", "America/New_York");
        assert_eq!(
            occurrences(&new_york, "2026-03-06T00:00:00Z", "2026-03-10T00:00:00Z"),
            ["2026-03-06T14:00:00Z", "2026-03-09T13:00:00Z"]
        );
        assert_eq!(
            occurrences(&new_york, "2026-10-30T00:00:00Z", "2026-11-03T00:00:00Z"),
            ["2026-10-30T13:00:00Z", "2026-11-02T14:00:00Z"]
        );
    }

    #[test]
    fn a_turn_in_the_hour_that_is_left_out_comes_right_after_it_and_once() {
        let berlin = calendar("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            occurrences(&berlin, "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        let new_york = calendar("30 2 * * *", "America/New_York");
        assert_eq!(
            occurrences(&new_york, "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z"),
            ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
        );
        // Lord Howe's clocks go forward by half an hour: 02:00 to 02:30 on 2026-10-04, at 15:30Z the day before.
        let lord_howe = calendar("15 2 * * *", "Australia/Lord_Howe");
        assert_eq!(
            occurrences(&lord_howe, "2026-10-02T12:00:00Z", "2026-10-05T12:00:00Z"),
            ["2026-10-02T15:45:00Z", "2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]
        );
    }

    #[test]
    fn a_turn_in_the_hour_that_is_had_twice_comes_once() {
        let berlin = calendar("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            occurrences(&berlin, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        let new_york = calendar("30 1 * * *", "America/New_York");
        assert_eq!(
            occurrences(&new_york, "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z"),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        // Back by half an hour, from 02:00 to 01:30, on 2026-04-05, at 15:00Z the day before.
        let lord_howe = calendar("45 1 * * *", "Australia/Lord_Howe");
        assert_eq!(
            occurrences(&lord_howe, "2026-04-03T12:00:00Z", "2026-04-06T12:00:00Z"),
            ["2026-04-03T14:45:00Z", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
        );
    }

    #[test]
    fn what_comes_every_few_minutes_goes_on_through_a_change_of_the_clocks() {
        for (zone, from, to) in [
            ("Europe/Berlin", "2026-03-28T22:00:00Z", "2026-03-29T04:00:00Z"),
            ("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z"),
            ("America/New_York", "2026-11-01T03:00:00Z", "2026-11-01T09:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-04T18:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T18:00:00Z"),
        ] {
            let occurrences = occurrences(&calendar("*/10 * * * *", zone), from, to);
            assert_eq!(occurrences.len(), 36, "{zone} {from}: {occurrences:?}");
        }
    }

    #[test]
    fn what_was_missed_is_one_turn() {
        let daily = calendar("0 9 * * *", "Europe/Berlin");
        let last = at("2026-11-20T08:00:00Z");
        assert_eq!(daily.due(last, at("2026-11-24T12:00:00Z")), Some(at("2026-11-24T08:00:00Z")));
        assert_eq!(daily.due(at("2026-11-24T08:00:00Z"), at("2026-11-24T12:00:00Z")), None);
        assert_eq!(daily.next(at("2026-11-24T12:00:00Z")), Some(at("2026-11-25T08:00:00Z")));
        // A clock that was set back brings none again.
        assert_eq!(daily.due(at("2026-11-25T08:00:00Z"), at("2026-11-24T12:00:00Z")), None);
    }

    #[test]
    fn what_is_no_pattern_of_five_fields_is_none() {
        for wrong in ["", "* * * *", "* * * * * *", "61 * * * *", "@daily", "ö * * * *"] {
            assert!(Calendar::new(wrong, TimeZone::UTC).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn due_and_next_agree_and_a_day_has_one_daily_turn(
            zone in prop::sample::select(&["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"][..]),
            hour in 0_u8..24, minute in 0_u8..60, start in 1_700_000_000_i64..1_900_000_000, ahead in 1_u64..200_000,
        ) {
            let calendar = calendar(&format!("{minute} {hour} * * *"), zone);
            let now = Timestamp::from_second(start).unwrap();
            let next = calendar.next(now).unwrap();
            prop_assert!(next > now);
            prop_assert_eq!(calendar.due(now, next), Some(next));
            prop_assert_eq!(calendar.due(now, earlier(next, Duration::from_secs(1))), None);
            // Days differ by an hour at most from 24, and each has its turn.
            let after = calendar.next(next).unwrap();
            let hours = after.duration_since(next).as_secs_f64() / 3600.0;
            prop_assert!((22.0..=26.0).contains(&hours), "{} {}", next, after);
            let then = later(now, Duration::from_secs(ahead));
            if let Some(turn) = calendar.due(now, then) {
                prop_assert!(turn > now && turn <= then);
                prop_assert!(calendar.next(turn).unwrap() > then);
            } else {
                prop_assert!(next > then);
            }
        }
    }
}
