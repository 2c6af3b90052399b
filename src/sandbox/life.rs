//! The life of a simulated batch: a pure function of its plan, when it was created, whether it was cancelled, and now.

use crate::domain::status::Status;
use crate::domain::time;
use jiff::Timestamp;
use std::time::Duration;

/// What will become of a batch unless somebody cancels it. Durations have been divided by the sandbox's speed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the input passes validation; otherwise the batch fails when validation ends.
    pub valid: bool,
    pub requests: u32,
    /// The places, in the order of processing and ascending, whose requests fail.
    pub failing: Vec<u32>,
    /// From creation until validation ends.
    pub validating: Duration,
    /// From there until the last request is done; requests are done evenly.
    pub working: Duration,
    /// From there until the results are written.
    pub finalizing: Duration,
    /// From a cancellation until the batch is cancelled.
    pub cancelling: Duration,
    /// From creation until the completion window closes.
    pub window: Duration,
    /// The provider cancels the batch by itself this long after its creation.
    pub cancels_itself: Option<Duration>,
}

/// A batch at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Where it stands, in OpenAI's words.
    pub status: Status,
    /// How many requests have been processed; the first so many in the order of processing.
    pub done: u32,
    /// How many of these failed.
    pub errored: u32,
    pub total: u32,
    /// When the completion window closes.
    pub expires_at: Timestamp,
    /// When validation ended well.
    pub in_progress_at: Option<Timestamp>,
    /// When the last request was done.
    pub finalizing_at: Option<Timestamp>,
    /// When a cancellation was asked for.
    pub cancelling_at: Option<Timestamp>,
    /// When the batch ended, however it did.
    pub ended_at: Option<Timestamp>,
    /// The last instant at which something changed that a vendor would stamp.
    pub updated_at: Timestamp,
}

impl Moment {
    pub const fn succeeded(&self) -> u32 {
        self.done - self.errored
    }

    /// How many requests have not been processed; of an ended batch, never will be.
    pub const fn remaining(&self) -> u32 {
        self.total - self.done
    }

    /// When the batch ended, if it ended in `status`.
    pub fn ended_as(&self, status: Status) -> Option<Timestamp> {
        self.ended_at.filter(|_| self.status == status)
    }
}

impl Plan {
    /// The batch created at `created`, at `now`. A cancellation asked for after the end counts for nothing.
    pub fn at(&self, created: Timestamp, cancel_asked: Option<Timestamp>, now: Timestamp) -> Moment {
        let age = time::since(created, now);
        let worked = self.validating.saturating_add(self.working);
        let finished = worked.saturating_add(self.finalizing);
        let end = if self.valid { finished.min(self.window) } else { self.validating };
        let cancel = [cancel_asked.map(|asked| time::since(created, asked)), self.cancels_itself]
            .into_iter()
            .flatten()
            .min()
            .filter(|cancel| *cancel < end);
        let ended = cancel.map_or(end, |cancel| cancel.saturating_add(self.cancelling));

        let status = match cancel {
            _ if age >= ended => match cancel {
                Some(_) => Status::Cancelled,
                None if !self.valid => Status::Failed,
                None if finished <= self.window => Status::Completed,
                None => Status::Expired,
            },
            Some(cancel) if age >= cancel => Status::Cancelling,
            _ if age < self.validating => Status::Validating,
            _ if age < worked => Status::InProgress,
            _ => Status::Finalizing,
        };
        // Work stops where the batch is cancelled or its window closes.
        let stop = cancel.unwrap_or(end);
        let done = if self.valid { self.done(age.min(stop)) } else { 0 };
        let reached = |after: Duration| {
            (self.valid && after <= age && after <= stop).then(|| time::later(created, after))
        };
        let cancelling_at = cancel.filter(|cancel| *cancel <= age).map(|at| time::later(created, at));
        let ended_at = (age >= ended).then(|| time::later(created, ended));
        let in_progress_at = reached(self.validating);
        let finalizing_at = reached(worked);
        Moment {
            status,
            done,
            errored: u32::try_from(self.failing.partition_point(|place| *place < done)).unwrap_or(done),
            total: self.requests,
            expires_at: time::later(created, self.window),
            in_progress_at,
            finalizing_at,
            cancelling_at,
            ended_at,
            updated_at: [in_progress_at, finalizing_at, cancelling_at, ended_at]
                .into_iter()
                .flatten()
                .max()
                .unwrap_or(created),
        }
    }

    /// How many requests are processed after `age`.
    fn done(&self, age: Duration) -> u32 {
        let worked = age.saturating_sub(self.validating).as_nanos();
        let working = self.working.as_nanos();
        if worked >= working {
            return if age < self.validating { 0 } else { self.requests };
        }
        u32::try_from(u128::from(self.requests) * worked / working).unwrap_or(self.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> impl Strategy<Value = Plan> {
        let seconds = |most: u64| (0..most * 1000).prop_map(Duration::from_millis);
        (
            any::<bool>(),
            0_u32..200,
            proptest::collection::btree_set(0_u32..200, 0..50),
            (seconds(20), seconds(2000), seconds(40), seconds(30), seconds(3000)),
            proptest::option::of(seconds(2500)),
        )
            .prop_map(|(valid, requests, failing, times, cancels_itself)| Plan {
                valid,
                requests,
                failing: failing.into_iter().filter(|place| *place < requests).collect(),
                validating: times.0,
                working: times.1,
                finalizing: times.2,
                cancelling: times.3,
                window: times.0 + times.4,
                cancels_itself,
            })
    }

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn legal(from: Status, to: Status) -> bool {
        use Status::{Cancelled, Cancelling, Completed, Expired, Failed, Finalizing, InProgress, Validating};
        from == to
            || match from {
                Validating => true,
                InProgress => !matches!(to, Validating | Failed),
                Finalizing => matches!(to, Completed | Expired | Cancelling | Cancelled),
                Cancelling => to == Cancelled,
                Completed | Failed | Expired | Cancelled => false,
            }
    }

    proptest! {
        #[test]
        fn a_life_only_goes_forward(
            plan in plan(),
            cancel in proptest::option::of(0_u64..3_000_000),
            mut instants in proptest::collection::vec(0_u64..6_000_000, 2..30),
        ) {
            instants.sort_unstable();
            let after = |millis| time::later(start(), Duration::from_millis(millis));
            let mut before: Option<Moment> = None;
            for instant in instants {
                // A cancellation is known only once it was asked for.
                let asked = cancel.filter(|cancel| *cancel <= instant).map(after);
                let moment = plan.at(start(), asked, after(instant));
                prop_assert!(moment.errored <= moment.done && moment.done <= moment.total);
                prop_assert_eq!(moment.ended_at.is_some(), moment.status.is_terminal());
                if let Some(before) = before {
                    prop_assert!(legal(before.status, moment.status), "{before:?} then {moment:?}");
                    prop_assert!(before.done <= moment.done && before.errored <= moment.errored);
                    prop_assert!(before.updated_at <= moment.updated_at);
                    for (earlier, later) in [
                        (before.in_progress_at, moment.in_progress_at),
                        (before.finalizing_at, moment.finalizing_at),
                        (before.cancelling_at, moment.cancelling_at),
                        (before.ended_at, moment.ended_at),
                    ] {
                        prop_assert!(earlier.is_none() || earlier == later, "{before:?} then {moment:?}");
                    }
                    if before.status.is_terminal() {
                        prop_assert_eq!(before, moment);
                    }
                }
                before = Some(moment);
            }
        }

        #[test]
        fn every_life_ends(plan in plan()) {
            let moment = plan.at(start(), None, time::later(start(), Duration::from_hours(24)));
            prop_assert!(moment.status.is_terminal());
            if moment.status == Status::Completed {
                prop_assert_eq!(moment.remaining(), 0);
                prop_assert_eq!(moment.errored as usize, plan.failing.len());
            }
            if moment.status == Status::Failed {
                prop_assert_eq!(moment.done, 0);
            }
        }
    }

    #[test]
    fn the_stages_and_their_stamps() {
        let second = Duration::from_secs;
        let plan = Plan {
            valid: true,
            requests: 10,
            failing: vec![0, 9],
            validating: second(10),
            working: second(100),
            finalizing: second(20),
            cancelling: second(5),
            window: second(1000),
            cancels_itself: None,
        };
        let at = |age| time::later(start(), second(age));
        let moment = |age| plan.at(start(), None, at(age));
        assert_eq!((moment(9).status, moment(9).done), (Status::Validating, 0));
        assert_eq!((moment(60).status, moment(60).done, moment(60).errored), (Status::InProgress, 5, 1));
        assert_eq!((moment(110).status, moment(110).done), (Status::Finalizing, 10));
        let ended = moment(130);
        assert_eq!((ended.status, ended.errored, ended.succeeded()), (Status::Completed, 2, 8));
        assert_eq!(
            (ended.in_progress_at, ended.finalizing_at, ended.ended_at),
            (Some(at(10)), Some(at(110)), Some(at(130)))
        );

        let cancelled = plan.at(start(), Some(at(60)), at(65));
        assert_eq!((cancelled.status, cancelled.done), (Status::Cancelled, 5));
        assert_eq!((cancelled.cancelling_at, cancelled.finalizing_at), (Some(at(60)), None));
        let too_late = plan.at(start(), Some(at(130)), at(140));
        assert_eq!(too_late, moment(140));

        let short = Plan { window: second(70), ..plan.clone() };
        let expired = short.at(start(), None, at(500));
        assert_eq!((expired.status, expired.done), (Status::Expired, 6));
        assert_eq!(expired.ended_at, Some(expired.expires_at));
    }
}
