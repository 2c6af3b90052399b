//! Since when no daemon has had a webhook in its configuration, of those that share a state.

use std::collections::BTreeMap;
use std::time::Duration;

/// The webhooks that no daemon knows, each with when that was seen first.
#[derive(Debug, Default)]
pub(super) struct Undeclared(BTreeMap<String, Duration>);

impl Undeclared {
    /// Of `names`, which no daemon knows at `now` (by a clock that nobody sets), those that none has known for long.
    pub(super) fn over(&mut self, names: Vec<String>, now: Duration) -> Vec<String> {
        let since: BTreeMap<String, Duration> =
            names.into_iter().map(|name| (name.clone(), self.0.get(&name).copied().unwrap_or(now))).collect();
        self.0 = since;
        let over = self.0.iter().filter(|(_, since)| now.saturating_sub(**since) >= KEPT_FOR);
        over.map(|(name, _)| name.clone()).collect()
    }
}

/// A daemon that is being restarted, or its machine, is back by then.
const KEPT_FOR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_given_up_once_nobody_has_known_it_for_an_hour_on_end() {
        let mut undeclared = Undeclared::default();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(undeclared.over(of(&["a", "b"]), minutes(0)).is_empty());
        assert!(undeclared.over(of(&["a", "b"]), minutes(59)).is_empty());
        assert_eq!(undeclared.over(of(&["a"]), minutes(60)), ["a"], "a daemon knows b again");
        assert!(undeclared.over(of(&["b"]), minutes(61)).is_empty());
        assert!(undeclared.over(of(&["b"]), minutes(120)).is_empty());
        assert_eq!(undeclared.over(of(&["b"]), minutes(121)), ["b"]);
    }
}
