//! Who does what: what a daemon sees of the others, what it takes and gives back, and what others ask of it.

use super::super::error::StoreError;
use super::member::quoted;
use super::session::{Session, Told};
use super::steps::Timeline;
use crate::domain::ownership::{Act, Lease, Member, MemberId, Pulse, Scope, differences, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A daemon that shares the state, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    pub name: String,
    /// Which machine and directory it runs in.
    pub place: String,
    pub version: String,
    /// Unix milliseconds, by its own clock.
    pub joined_at: i64,
    pub seen_at: i64,
    /// By how many milliseconds its clock is ahead of the server's.
    pub offset_ms: i64,
    /// What it does.
    pub scopes: Vec<String>,
    /// How its configuration differs from that of most, for people.
    pub differs: Vec<String>,
    /// Whether it is the one that tells this.
    pub is_this: bool,
}

/// What another daemon has changed that concerns a scope of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Letter {
    /// A batch's place on the schedule.
    Checks(i64),
    /// Something was made due for a webhook.
    Due(String),
    /// A webhook was switched on or off.
    Switched(String),
    /// Every batch of an account is to be checked now.
    Hurry(String),
    /// One batch of it is.
    Nudge(i64),
}

/// What was seen at a look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sequence: i64,
    /// The number of the newest step of the numbers.
    pub(super) step: i64,
    pub(super) timeline: Option<String>,
    /// The oldest schema that may be written.
    pub(super) oldest_writer: i64,
    pub(super) acts: Vec<Act>,
    pub(super) held: BTreeSet<Scope>,
    pub(super) members: Vec<MemberView>,
    pub(super) letters: Vec<Letter>,
    /// The rows of the letters.
    pub(super) taken: Vec<String>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    pulses: BTreeMap<MemberId, Pulse>,
    /// Since when each lease has had its owner and epoch.
    since: BTreeMap<Scope, (Option<MemberId>, u64, Duration)>,
}

impl Lookout {
    /// Looks at everything in one round trip; `now` by a clock that nobody sets.
    pub(super) fn look(
        &mut self,
        session: &Session,
        me: &str,
        lease: Duration,
        now: Duration,
        timeline: Timeline,
    ) -> Result<Seen, StoreError> {
        let told = session.told(&format!(
            "SELECT 'head', sequence, (SELECT coalesce(max(number), 0) FROM steps), {}, (SELECT min_writer FROM batchd) FROM head; \
             SELECT 'member', id, name, place, version, commits, dead, scopes, joined_at, seen_at, offset_ms FROM members; \
             SELECT 'lease', scope, owner, epoch, wanted FROM leases; \
             SELECT 'mail', pk, scope, kind, batch FROM mail \
               WHERE scope IN (SELECT scope FROM leases WHERE owner = '{me}') ORDER BY pk LIMIT {LETTERS_AT_ONCE}",
            timeline.0
        ))?;
        Ok(self.judged(&told, me, lease, now))
    }

    fn judged(&mut self, told: &Told, me: &str, lease: Duration, now: Duration) -> Seen {
        let mut seen = Seen::default();
        let (mut members, mut leases, mut pulses) = (Vec::new(), Vec::new(), BTreeMap::new());
        for row in &told.rows {
            let text = |at: usize| row.get(at).cloned().flatten();
            let number = |at: usize| text(at).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
            match text(0).as_deref() {
                Some("head") => {
                    (seen.sequence, seen.step, seen.timeline) = (number(1), number(2), text(3));
                    seen.oldest_writer = number(4);
                }
                Some("member") => {
                    let id = MemberId(text(1).unwrap_or_default());
                    let commits = number(5).unsigned_abs();
                    let pulse = match self.pulses.get(&id) {
                        Some(pulse) => pulse.seen(commits, now),
                        None => Pulse::new(commits, now),
                    };
                    let dead = number(6) != 0;
                    if !dead {
                        pulses.insert(id.clone(), pulse);
                        seen.members.push(MemberView {
                            name: text(2).unwrap_or_default(),
                            place: text(3).unwrap_or_default(),
                            version: text(4).unwrap_or_default(),
                            joined_at: number(8),
                            seen_at: number(9),
                            offset_ms: number(10),
                            scopes: Vec::new(),
                            differs: Vec::new(),
                            is_this: id.0 == me,
                        });
                    }
                    let holds = read_scopes(&text(7).unwrap_or_default());
                    members.push(Member { id, holds, dead, gone: false, pulse });
                }
                Some("lease") => {
                    let Some(scope) = text(1).and_then(|scope| scope.parse::<Scope>().ok()) else { continue };
                    let (owner, epoch) = (text(2).map(MemberId), number(3).unsigned_abs());
                    let known = self.since.get(&scope);
                    let since = known
                        .filter(|(was, before, _)| *was == owner && *before == epoch)
                        .map_or(now, |(.., since)| *since);
                    leases.push(Lease {
                        scope,
                        owner,
                        epoch,
                        wanted: text(4).map(MemberId),
                        weight: 1,
                        since,
                    });
                }
                Some("mail") => {
                    seen.taken.push(text(1).unwrap_or_default());
                    let scope = text(2).and_then(|scope| scope.parse::<Scope>().ok());
                    seen.letters.extend(letter(scope, text(3).as_deref(), number(4)));
                }
                _ => {}
            }
        }
        self.pulses = pulses;
        self.since =
            leases.iter().map(|of| (of.scope.clone(), (of.owner.clone(), of.epoch, of.since))).collect();
        let own = MemberId(me.to_owned());
        seen.acts = plan(&own, &members, &leases, lease, now);
        seen.held = leases
            .iter()
            .filter(|lease| lease.owner.as_ref() == Some(&own))
            .map(|lease| lease.scope.clone())
            .collect();
        let there: Vec<&MemberId> =
            members.iter().filter(|member| !member.dead).map(|member| &member.id).collect();
        for (id, differs) in differences(&members, &leases) {
            if let Some(view) =
                there.iter().position(|other| **other == id).and_then(|at| seen.members.get_mut(at))
            {
                view.differs = differs.iter().map(ToString::to_string).collect();
            }
        }
        for lease in &leases {
            let at = lease.owner.as_ref().and_then(|owner| there.iter().position(|id| *id == owner));
            if let Some(view) = at.and_then(|at| seen.members.get_mut(at)) {
                view.scopes.push(lease.scope.to_string());
            }
        }
        seen
    }
}

fn letter(scope: Option<Scope>, kind: Option<&str>, batch: i64) -> Option<Letter> {
    match (scope?, kind?) {
        (_, "checks") => Some(Letter::Checks(batch)),
        (Scope::Webhook(name), "due") => Some(Letter::Due(name)),
        (Scope::Webhook(name), "switched") => Some(Letter::Switched(name)),
        (Scope::Account(name), "hurry") => Some(Letter::Hurry(name)),
        (Scope::Account(_), "nudge") => Some(Letter::Nudge(batch)),
        _ => None,
    }
}

/// What a member can do, as it stands in its row.
pub(super) fn written_scopes(scopes: &BTreeMap<Scope, u64>) -> String {
    let by_name: BTreeMap<String, u64> = scopes.iter().map(|(scope, of)| (scope.to_string(), *of)).collect();
    serde_json::to_string(&by_name).unwrap_or_default()
}

fn read_scopes(text: &str) -> BTreeMap<Scope, u64> {
    let by_name: BTreeMap<String, u64> = serde_json::from_str(text).unwrap_or_default();
    by_name.into_iter().filter_map(|(name, of)| Some((name.parse().ok()?, of))).collect()
}

/// The statement that takes `scope` for `me`, if it is still free; it changes one row then.
pub(super) fn claim(scope: &Scope, me: &str) -> String {
    format!(
        "UPDATE leases SET owner = '{me}', epoch = epoch + 1, wanted = NULL WHERE scope = {} \
         AND (owner IS NULL OR NOT EXISTS (SELECT 1 FROM members WHERE id = leases.owner AND dead = 0))",
        quoted(&scope.to_string())
    )
}

/// The statement that gives `scope` back.
pub(super) fn release(scope: &Scope, me: &str) -> String {
    format!("UPDATE leases SET owner = NULL WHERE scope = {} AND owner = '{me}'", quoted(&scope.to_string()))
}

/// The statement that gives everything back.
pub(super) fn release_all(me: &str) -> String {
    format!("UPDATE leases SET owner = NULL WHERE owner = '{me}'")
}

/// The statement by which the keeper has `scope` go to a member.
pub(super) fn want(scope: &Scope, to: &MemberId) -> String {
    format!("UPDATE leases SET wanted = {} WHERE scope = {}", quoted(&to.0), quoted(&scope.to_string()))
}

/// So many letters are read at a look.
pub(super) const LETTERS_AT_ONCE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<Option<String>> {
        columns.iter().map(|column| column.map(str::to_owned)).collect()
    }

    fn member(id: &str, commits: &str) -> Vec<Option<String>> {
        let scopes = r#"{"keeper":1,"webhook:w":7}"#;
        let columns = ["member", id, "name", "place", "1.0", commits, "0", scopes, "1", "2", "0"];
        row(&columns.map(Some))
    }

    #[test]
    fn what_is_free_is_taken_and_what_is_silent_is_given_up() {
        let mut lookout = Lookout::default();
        let lease = Duration::from_secs(10);
        let told = |commits: &str| Told {
            rows: vec![
                row(&[Some("head"), Some("42"), Some("1"), Some("00000001"), Some("1")]),
                member("me", commits),
                member("other", "5"),
                row(&[Some("lease"), Some("webhook:w"), Some("other"), Some("3"), None]),
                row(&[Some("lease"), Some("keeper"), Some("me"), Some("1"), None]),
                row(&[Some("mail"), Some("9"), Some("keeper"), Some("checks"), Some("77")]),
            ],
            counts: Vec::new(),
        };
        let first = lookout.judged(&told("1"), "me", lease, Duration::ZERO);
        assert_eq!((first.sequence, first.step, first.acts.len()), (42, 1, 0));
        assert_eq!(first.held, BTreeSet::from([Scope::Keeper]));
        assert_eq!((first.letters, first.taken), (vec![Letter::Checks(77)], vec!["9".to_owned()]));
        assert_eq!(first.members[1].scopes, ["webhook:w"]);
        let mut acts = Vec::new();
        for second in 1..=11 {
            acts = lookout.judged(&told(&second.to_string()), "me", lease, Duration::from_secs(second)).acts;
        }
        assert_eq!(acts, [Act::Bury(MemberId("other".to_owned()), 5)]);
    }
}
