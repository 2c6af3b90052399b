//! What a user says of a batch besides its id, when it is tracked or submitted.

use super::time::to_millis;
use super::tracked::Tracked;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the user gave; what was not given changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserFields {
    /// Replaces the name.
    pub name: Option<String>,
    /// Added to the labels, replacing those of the same key.
    pub labels: BTreeMap<String, String>,
    /// Added to the webhooks that the batch names.
    pub notify_also: BTreeSet<String>,
    /// `Some(true)`: `--no-notify`.
    pub notify_nobody: Option<bool>,
    /// Replaces the deadline.
    pub deadline: Option<Timestamp>,
}

impl UserFields {
    /// Takes what was given over into `tracked`, a new batch or one that is tracked already.
    pub fn apply(&self, tracked: &mut Tracked) {
        if self.name.is_some() {
            tracked.name.clone_from(&self.name);
        }
        tracked.labels.extend(self.labels.clone());
        tracked.notify.also.extend(self.notify_also.iter().cloned());
        tracked.notify.nobody = self.notify_nobody.unwrap_or(tracked.notify.nobody);
        tracked.deadline = self.deadline.map(to_millis).or(tracked.deadline);
    }
}

/// What the batch of the requests of `name` is called: a name that means one batch goes on meaning that.
pub fn name_again(name: &str) -> String {
    let Some((base, number)) = name.rsplit_once(AGAIN) else { return format!("{name}{AGAIN}") };
    match number.strip_prefix('-').map(str::parse::<u32>) {
        None if number.is_empty() => format!("{base}{AGAIN}-2"),
        Some(Ok(number)) => format!("{base}{AGAIN}-{}", number.saturating_add(1)),
        _ => format!("{name}{AGAIN}"),
    }
}

/// What the name of a batch that repeats requests ends with.
const AGAIN: &str = "-again";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracked::{BatchKey, Origin};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn what_was_given_is_taken_over_and_the_rest_stays() {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let new = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
        let mut tracked = new.clone();
        UserFields::default().apply(&mut tracked);
        assert_eq!(tracked, new);

        let given = UserFields {
            name: Some("nightly".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "evals".to_owned())]),
            notify_also: BTreeSet::from(["ops".to_owned()]),
            notify_nobody: Some(true),
            deadline: Some(NOW),
        };
        given.apply(&mut tracked);
        let known = tracked.clone();
        UserFields::default().apply(&mut tracked);
        assert_eq!(tracked, known);

        let more = UserFields {
            labels: BTreeMap::from([("run".to_owned(), "7".to_owned())]),
            notify_nobody: Some(false),
            ..UserFields::default()
        };
        more.apply(&mut tracked);
        assert_eq!((tracked.labels["team"].as_str(), tracked.labels["run"].as_str()), ("evals", "7"));
        assert_eq!((tracked.name, tracked.deadline), (given.name, Some(NOW)));
        assert!(tracked.notify.also.contains("ops") && !tracked.notify.nobody);
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        for (before, after) in [
            ("nightly", "nightly-again"),
            ("nightly-again", "nightly-again-2"),
            ("nightly-again-2", "nightly-again-3"),
            ("nightly-against", "nightly-against-again"),
        ] {
            assert_eq!(name_again(before), after);
        }
    }
}
