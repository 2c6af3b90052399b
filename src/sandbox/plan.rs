//! Draws what becomes of a batch: its ending turned into times and failing requests.

use super::chance::Order;
use super::ending::Ending;
use super::life::Plan;
use fastrand::Rng;
use std::time::Duration;

/// What a plan is drawn from. Durations are those of speed 1.
#[derive(Clone, Copy, Debug)]
pub struct Sketch<'a> {
    pub ending: Ending,
    /// Whether the input passes validation.
    pub valid: bool,
    /// For each request, in input order, whether no model would answer it.
    pub defective: &'a [bool],
    /// The order in which requests are processed.
    pub order: Order,
    /// The working time asked for, if any.
    pub working: Option<Duration>,
    pub window: Duration,
    /// How much faster time runs.
    pub speed: f64,
}

impl Sketch<'_> {
    /// Draws the plan. A batch takes about 5 to 20 minutes at speed 1: 5 to 15 s of validation, 4 minutes of work
    /// and 0.2 s for each request, at most 20 minutes, give or take a fifth, and 20 s to write the results. One that
    /// expires has its window shortened to one and a half times that, and then 60 % of its requests are done; one that
    /// the provider cancels is half done.
    pub fn draw(&self, chance: &mut Rng) -> Plan {
        let requests = u32::try_from(self.defective.len()).unwrap_or(u32::MAX);
        let validating = Duration::from_secs_f64(5.0 + 10.0 * chance.f64());
        let usual = Duration::from_millis(240_000 + u64::from(requests) * 200).min(LONGEST_WORK);
        let usual = usual.mul_f64(0.8 + 0.4 * chance.f64());
        let mut working = self.working.unwrap_or(usual);
        let mut window = self.window;
        match self.ending {
            Ending::Expired => {
                window = validating + working.mul_f64(1.5);
                working = working.mul_f64(1.5 / share(requests, requests.saturating_mul(6) / 10));
            }
            Ending::ExpiredEmpty => {
                window = validating + working.mul_f64(1.5);
                // So slow that the first request would come after the window.
                working = working.mul_f64(1.5) * requests.saturating_add(1);
            }
            _ => {}
        }
        let cancels_itself = (self.ending == Ending::Cancelled)
            .then(|| validating + working.mul_f64(share(requests, requests / 2)));
        let faster = |duration: Duration| {
            Duration::try_from_secs_f64(duration.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
        };
        Plan {
            valid: self.valid && self.ending != Ending::Failed,
            requests,
            failing: self.failing(requests, chance),
            validating: faster(validating),
            working: faster(working),
            finalizing: faster(FINALIZING),
            cancelling: faster(CANCELLING),
            window: faster(window),
            cancels_itself: cancels_itself.map(faster),
        }
    }

    /// The places whose requests fail: those no model would answer, and about a fifth, at least one, of the others
    /// where only a part shall succeed. Of several good requests at least one succeeds.
    fn failing(&self, requests: u32, chance: &mut Rng) -> Vec<u32> {
        let good =
            |place: u32| self.defective.get(self.order.request(place)).is_some_and(|defective| !defective);
        let bad = |place: &u32| !good(*place);
        match self.ending {
            Ending::AllFailed => (0..requests).collect(),
            Ending::Partial => {
                let sound: Vec<u32> = (0..requests).filter(|place| good(*place)).collect();
                let mut failing: Vec<u32> = (0..requests).filter(bad).collect();
                let mut chosen: Vec<u32> = sound.iter().copied().filter(|_| chance.f64() < 0.2).collect();
                if chosen.len() == sound.len() && sound.len() > 1 {
                    chosen.truncate(1);
                }
                if chosen.is_empty() && failing.is_empty() {
                    chosen.extend(sound.get(chance.usize(..sound.len().max(1))));
                }
                failing.extend(chosen);
                failing.sort_unstable();
                failing
            }
            _ => (0..requests).filter(bad).collect(),
        }
    }
}

/// The share of the work after which `done` of `requests` are done and the next one is halfway.
fn share(requests: u32, done: u32) -> f64 {
    (f64::from(done) + 0.5) / f64::from(requests.max(1))
}

/// The longest that a batch works, before chance has its say.
const LONGEST_WORK: Duration = Duration::from_mins(20);
const FINALIZING: Duration = Duration::from_secs(20);
const CANCELLING: Duration = Duration::from_secs(10);
#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::status::Status;
    use crate::domain::time;
    use crate::sandbox::chance;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn draw(ending: Ending, defective: &[bool], speed: f64, number: u64) -> Plan {
        let mut chance = chance::draw(number, 0);
        let order = Order::new(u32::try_from(defective.len()).unwrap(), &mut chance);
        Sketch {
            ending,
            valid: true,
            defective,
            order,
            working: None,
            window: Duration::from_hours(24),
            speed,
        }
        .draw(&mut chance)
    }

    proptest! {
        #[test]
        fn a_batch_ends_as_it_was_asked_to_within_the_hour(
            requests in 2_usize..300,
            speed in 1.0_f64..500.0,
            seed: u64,
        ) {
            let start = Timestamp::from_second(1_800_000_000).unwrap();
            let hour = Duration::from_secs_f64(3600.0 / speed);
            for (ending, status) in [
                (Ending::Succeeded, Status::Completed),
                (Ending::Partial, Status::Completed),
                (Ending::AllFailed, Status::Completed),
                (Ending::Failed, Status::Failed),
                (Ending::Expired, Status::Expired),
                (Ending::ExpiredEmpty, Status::Expired),
                (Ending::Cancelled, Status::Cancelled),
            ] {
                let plan = draw(ending, &vec![false; requests], speed, seed);
                let end = plan.at(start, None, time::later(start, hour));
                prop_assert_eq!(end.status, status, "{:?}", plan);
                match ending {
                    Ending::Succeeded => prop_assert_eq!(end.succeeded(), end.total),
                    Ending::Partial => prop_assert!(end.succeeded() > 0 && end.errored > 0),
                    Ending::AllFailed => prop_assert_eq!(end.errored, end.total),
                    Ending::Failed | Ending::ExpiredEmpty => prop_assert_eq!(end.done, 0),
                    Ending::Expired | Ending::Cancelled => {
                        prop_assert!(end.done > 0 && end.remaining() > 0, "{end:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_request_that_no_model_would_answer_fails_whatever_was_asked_for() {
        let plan = draw(Ending::Succeeded, &[false, true, false], 1.0, 3);
        assert_eq!(plan.failing.len(), 1);
        assert_eq!(draw(Ending::Partial, &[true, false], 1.0, 3).failing.len(), 1);
        assert_eq!(draw(Ending::Partial, &[false], 1.0, 3).failing, [0]);
    }
}
