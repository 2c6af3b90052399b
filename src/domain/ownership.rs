//! Which daemon does what, where several share a state: a plan that each makes for itself from what all of them see.
//!
//! Nothing here is safe by itself: a claim or a burial is done only if what it was planned by still holds when it is
//! written. The plan makes work stand still as little, and go from hand to hand as seldom, as it can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A part of the work that has one owner at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: one daemon works, the others stand by.
    All,
    /// What is done once for all: pruning, digests, moving scopes from one member to another.
    Keeper,
    /// Polling an account, and what goes with it.
    Account(String),
    /// Delivering to a webhook.
    Webhook(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Keeper => f.write_str("keeper"),
            Self::Account(name) => write!(f, "account:{name}"),
            Self::Webhook(name) => write!(f, "webhook:{name}"),
        }
    }
}

/// A text is the name of no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such scope")]
pub struct NoScope;

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "keeper" => Ok(Self::Keeper),
            Some(("account", name)) => Ok(Self::Account(name.to_owned())),
            Some(("webhook", name)) => Ok(Self::Webhook(name.to_owned())),
            _ => Err(NoScope),
        }
    }
}

/// One run of a daemon: a daemon that starts again is another member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub String);

/// A member, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    /// The scopes that its configuration knows, each with a fingerprint of how it is defined there.
    pub holds: BTreeMap<Scope, u64>,
    /// Others have declared it dead.
    pub dead: bool,
    /// It has said goodbye.
    pub gone: bool,
    pub pulse: Pulse,
}

/// How long a member has given no sign of life, by the clock of who watches it.
///
/// Each look tells the number of the member's commits. A number that stands still counts only while looks are close
/// together: who was stopped himself learns nothing of the others' silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    number: u64,
    since: Duration,
    seen: Duration,
}

impl Pulse {
    /// The first look at a member, at `now` by a clock that neither jumps nor stands still.
    pub const fn new(number: u64, now: Duration) -> Self {
        Self { number, since: now, seen: now }
    }

    /// The same after another look.
    #[must_use]
    pub fn seen(self, number: u64, now: Duration) -> Self {
        let moved = number != self.number;
        let unwatched = now.saturating_sub(self.seen) > CLOSE;
        let since = if moved || unwatched { now } else { self.since };
        Self { number, since, seen: now }
    }

    /// The number of the member's commits when it was last seen: a burial holds only while it is still that.
    pub const fn number(self) -> u64 {
        self.number
    }

    /// For how long it is known to have stood still.
    pub fn still(self) -> Duration {
        self.seen.saturating_sub(self.since)
    }
}

/// What one member remembers of all it has seen, to tell how long it has been so.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pulses: BTreeMap<MemberId, Pulse>,
    leases: BTreeMap<Scope, (Seen, Duration)>,
}

/// A lease as it was seen: its owner, its epoch, and whether the owner was there.
type Seen = (Option<MemberId>, u64, bool);

impl Watch {
    /// Another look at a member, whose commits are numbered `number`, at `now` by a clock that neither jumps nor stands
    /// still.
    pub fn member(&mut self, id: &MemberId, number: u64, now: Duration) -> Pulse {
        let known = self.pulses.get(id);
        let pulse = known.map_or_else(|| Pulse::new(number, now), |pulse| pulse.seen(number, now));
        self.pulses.insert(id.clone(), pulse);
        pulse
    }

    /// Another look at a lease: since when it has had this owner and this epoch, and its owner has been there or not.
    pub fn lease(
        &mut self,
        scope: &Scope,
        owner: Option<&MemberId>,
        epoch: u64,
        there: bool,
        now: Duration,
    ) -> Duration {
        let seen = (owner.cloned(), epoch, there);
        let since =
            self.leases.get(scope).filter(|(known, _)| *known == seen).map_or(now, |(_, since)| *since);
        self.leases.insert(scope.clone(), (seen, since));
        since
    }

    /// Forgets members that are no longer in the table.
    pub fn keep(&mut self, is_there: impl Fn(&MemberId) -> bool) {
        self.pulses.retain(|id, _| is_there(id));
    }
}

/// A scope and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub scope: Scope,
    pub owner: Option<MemberId>,
    /// Counts the owners.
    pub epoch: u64,
    /// Who is to have it next, by the keeper's wish.
    pub wanted: Option<MemberId>,
    /// How much work it is.
    pub weight: u64,
    /// Since when its reader has seen it so: [`Watch::lease`].
    pub since: Duration,
}

/// What a member does next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Declare a member dead, if its commits are still numbered so.
    Bury(MemberId, u64),
    /// Let what is under way in a scope end, and give it back.
    Release(Scope),
    /// Take a scope, if it is still free.
    Claim(Scope),
    /// Have a scope go to a member, if this one is still the keeper.
    Want(Scope, MemberId),
}

/// What `me` does at `now`, seeing these members and leases. `lease`: so long a member may give no sign of life.
pub fn plan(me: &MemberId, members: &[Member], leases: &[Lease], lease: Duration, now: Duration) -> Vec<Act> {
    let Some(own) = members.iter().find(|member| member.id == *me && member.is_there()) else {
        return Vec::new();
    };
    let view = View::of(members, leases, lease);
    let mut acts = Vec::new();
    acts.extend(view.burial(own));
    acts.extend(view.releases(own).into_iter().map(Act::Release));
    acts.extend(view.claims(own, now).into_iter().map(Act::Claim));
    let keeps = leases.iter().any(|lease| lease.is_keepers() && lease.owner.as_ref() == Some(me));
    if keeps {
        acts.extend(view.moves(now).into_iter().map(|(scope, to)| Act::Want(scope, to)));
    }
    acts
}

/// What each member knows otherwise than most do, or not at all although others do: who may not have it is there no owner
/// of it.
pub fn differences(members: &[Member], leases: &[Lease]) -> BTreeMap<MemberId, Vec<Difference>> {
    let there: BTreeMap<&MemberId, &Member> =
        members.iter().filter(|member| member.is_there()).map(|member| (&member.id, member)).collect();
    let mut differences: BTreeMap<MemberId, Vec<Difference>> = BTreeMap::new();
    for lease in leases {
        let able = able(lease, &there);
        let others = there.iter().filter(|(id, _)| !able.is_empty() && !able.contains(*id));
        for (id, member) in others {
            let difference = match member.holds.get(&lease.scope) {
                Some(_) => Difference::Otherwise(lease.scope.clone()),
                None => Difference::Lacks(lease.scope.clone()),
            };
            differences.entry((*id).clone()).or_default().push(difference);
        }
    }
    differences
}

/// How a member's configuration differs from that of most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It defines the scope otherwise.
    Otherwise(Scope),
    /// It does not have it.
    Lacks(Scope),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otherwise(scope) => write!(f, "{scope} is defined otherwise than by the others"),
            Self::Lacks(scope) => write!(f, "{scope} is not in its configuration"),
        }
    }
}

impl Member {
    /// Whether it counts: nobody has declared it dead, and it has not left.
    const fn is_there(&self) -> bool {
        !self.dead && !self.gone
    }
}

impl Lease {
    /// Whether its owner does what is done once for all.
    fn is_keepers(&self) -> bool {
        matches!(self.scope, Scope::Keeper | Scope::All)
    }
}

/// What is known at one moment, put in order.
struct View<'a> {
    there: BTreeMap<&'a MemberId, &'a Member>,
    leases: &'a [Lease],
    /// Those of each scope who may hold it.
    able: BTreeMap<&'a Scope, BTreeSet<&'a MemberId>>,
    lease: Duration,
}

impl<'a> View<'a> {
    fn of(members: &'a [Member], leases: &'a [Lease], lease: Duration) -> Self {
        let there: BTreeMap<&MemberId, &Member> =
            members.iter().filter(|member| member.is_there()).map(|member| (&member.id, member)).collect();
        let able = leases.iter().map(|lease| (&lease.scope, able(lease, &there))).collect();
        Self { there, leases, able, lease }
    }

    fn is_able(&self, member: &MemberId, scope: &Scope) -> bool {
        self.able.get(scope).is_some_and(|able| able.contains(member))
    }

    /// Whether a member is there and answers: something may be left to it.
    fn answers(&self, member: &MemberId) -> bool {
        self.there.get(member).is_some_and(|member| member.pulse.still() < self.lease / 2)
    }

    /// The member that has been silent for longest, if it is dead by that. One at a time: whoever is wrong about the
    /// others is stopped by the first.
    fn burial(&self, own: &Member) -> Option<Act> {
        let others = self.there.values().filter(|member| member.id != own.id);
        let silent = others.filter(|member| member.pulse.still() >= self.lease);
        let dead = silent.max_by_key(|member| (member.pulse.still(), &member.id))?;
        Some(Act::Bury(dead.id.clone(), dead.pulse.number()))
    }

    /// What `own` holds and gives back: because another is to have it, or because its configuration does not know it.
    fn releases(&self, own: &Member) -> Vec<Scope> {
        let held = self.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&own.id));
        let given = held.filter(|lease| {
            let unknown = !own.holds.contains_key(&lease.scope);
            let next = lease.wanted.as_ref().filter(|next| **next != own.id);
            unknown || next.is_some_and(|next| self.is_able(next, &lease.scope) && self.answers(next))
        });
        given.map(|lease| lease.scope.clone()).collect()
    }

    /// What `own` takes of what is free: its share, and what nobody has taken for a while.
    fn claims(&self, own: &Member, now: Duration) -> Vec<Scope> {
        let free: Vec<&Lease> = self.leases.iter().filter(|lease| self.is_free(lease)).collect();
        let shares = self.shares(&free);
        let mine = free.into_iter().filter(|lease| {
            let share = shares.get(&lease.scope);
            let left = share.is_none() || now.saturating_sub(lease.since) >= PATIENCE;
            self.is_able(&own.id, &lease.scope) && (share.is_some_and(|to| **to == own.id) || left)
        });
        mine.map(|lease| lease.scope.clone()).collect()
    }

    fn is_free(&self, lease: &Lease) -> bool {
        lease.owner.as_ref().is_none_or(|owner| !self.there.contains_key(owner))
    }

    /// Who takes which of these: whoever is wanted, else who has least. All members come to the same as long as they see
    /// the same.
    fn shares(&self, free: &[&'a Lease]) -> BTreeMap<&'a Scope, &'a MemberId> {
        let mut loads = self.loads();
        let mut shares = BTreeMap::new();
        let mut heaviest_first = free.to_vec();
        heaviest_first.sort_by(|one, other| other.weight.cmp(&one.weight).then(one.scope.cmp(&other.scope)));
        for lease in heaviest_first {
            let Some(able) = self.able.get(&lease.scope) else { continue };
            let answering = || able.iter().copied().filter(|member| self.answers(member));
            let wanted =
                lease.wanted.as_ref().and_then(|wanted| answering().find(|member| *member == wanted));
            let least =
                || answering().min_by_key(|member| (loads.get(member).copied().unwrap_or_default(), *member));
            if let Some(to) = wanted.or_else(least) {
                shares.insert(&lease.scope, to);
                if wanted.is_none() {
                    *loads.entry(to).or_default() += lease.weight;
                }
            }
        }
        shares
    }

    /// What each member has, and what it is about to have.
    fn loads(&self) -> BTreeMap<&'a MemberId, u64> {
        let mut loads: BTreeMap<&MemberId, u64> = self.there.keys().map(|member| (*member, 0)).collect();
        for lease in self.leases {
            if let Some(load) = self.holder(lease).and_then(|holder| loads.get_mut(holder)) {
                *load += lease.weight;
            }
        }
        loads
    }

    /// Who has a scope once what is wished for has been done.
    fn holder(&self, lease: &'a Lease) -> Option<&'a MemberId> {
        let next =
            lease.wanted.as_ref().filter(|next| self.is_able(next, &lease.scope) && self.answers(next));
        next.or(lease.owner.as_ref()).filter(|holder| self.there.contains_key(holder))
    }

    /// What the keeper has move: what its owner may no longer hold, and what evens out the loads.
    fn moves(&self, now: Duration) -> Vec<(Scope, MemberId)> {
        let mut loads = self.loads();
        let mut moves = Vec::new();
        let settled = |lease: &&Lease| {
            let under_way = self.holder(lease) != lease.owner.as_ref();
            lease.owner.is_some() && !under_way && now.saturating_sub(lease.since) >= SETTLED
        };
        let mut movable: Vec<(&Lease, &MemberId)> = self
            .leases
            .iter()
            .filter(settled)
            .filter_map(|lease| Some((lease, self.holder(lease)?)))
            .collect();
        movable.retain(|(lease, holder)| {
            if self.is_able(holder, &lease.scope) {
                return true;
            }
            let able = self.able.get(&lease.scope).into_iter().flatten().copied();
            let least = able
                .filter(|member| self.answers(member))
                .min_by_key(|member| (loads.get(member).copied().unwrap_or_default(), *member));
            if let Some(to) = least {
                shift(&mut loads, holder, to, lease.weight);
                moves.push((lease.scope.clone(), to.clone()));
            }
            false
        });
        while let Some((at, to)) = self.best_move(&movable, &loads) {
            let (lease, from) = movable.remove(at);
            shift(&mut loads, from, to, lease.weight);
            moves.push((lease.scope.clone(), to.clone()));
        }
        moves
    }

    /// The move that evens out the loads most: which of `movable`, and to whom; `None`: none is worth it.
    fn best_move(
        &self,
        movable: &[(&'a Lease, &'a MemberId)],
        loads: &BTreeMap<&'a MemberId, u64>,
    ) -> Option<(usize, &'a MemberId)> {
        let load = &|member: &MemberId| loads.get(member).copied().unwrap_or_default();
        let candidates = movable.iter().enumerate().flat_map(|(at, &(lease, from))| {
            let able = self.able.get(&lease.scope).into_iter().flatten().copied();
            let others = able.filter(move |to| *to != from && self.answers(to));
            others.filter_map(move |to| {
                let before = load(from).checked_sub(load(to))?;
                // How much nearer to each other the two are afterwards.
                let gain = before.checked_sub(before.abs_diff(lease.weight.saturating_mul(2)))?;
                Some((gain, at, to))
            })
        });
        let worth = self.worth();
        let (_, at, to) = candidates
            .filter(|(gain, ..)| *gain >= worth)
            .max_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)).then(other.2.cmp(one.2)))?;
        Some((at, to))
    }

    /// How much a move must even out to be worth it. Where all scopes weigh the same, their numbers are evened out; else
    /// weights that change a little must not keep scopes on the move.
    fn worth(&self) -> u64 {
        let weights: BTreeSet<u64> =
            self.leases.iter().map(|lease| lease.weight).filter(|weight| *weight > 0).collect();
        if weights.len() <= 1 {
            return 1;
        }
        let total: u64 = self.leases.iter().map(|lease| lease.weight).sum();
        let mean = total / u64::try_from(self.there.len().max(1)).unwrap_or(u64::MAX);
        (mean / SMALL_PART).max(1)
    }
}

fn shift<'a>(loads: &mut BTreeMap<&'a MemberId, u64>, from: &'a MemberId, to: &'a MemberId, weight: u64) {
    if let Some(load) = loads.get_mut(from) {
        *load = load.saturating_sub(weight);
    }
    *loads.entry(to).or_default() += weight;
}

/// The members that may hold a scope: those who define it as most do. Of definitions that as many have, the owner's
/// counts, so that it stays where it is.
fn able<'a>(lease: &Lease, there: &BTreeMap<&'a MemberId, &'a Member>) -> BTreeSet<&'a MemberId> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for print in there.values().filter_map(|member| member.holds.get(&lease.scope)) {
        *votes.entry(*print).or_default() += 1;
    }
    let owners = lease.owner.as_ref().and_then(|owner| there.get(owner)?.holds.get(&lease.scope)).copied();
    let most = votes.iter().max_by_key(|(print, count)| (**count, Some(**print) == owners, **print));
    let Some((definition, _)) = most else { return BTreeSet::new() };
    let able = there.iter().filter(|(_, member)| member.holds.get(&lease.scope) == Some(definition));
    able.map(|(id, _)| *id).collect()
}

/// Looks further apart than this tell nothing of what was between them.
const CLOSE: Duration = Duration::from_secs(3);

/// A free scope is left to whoever is to have it for so long; then anybody takes it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A scope stays where it is for so long before it is moved for the sake of order.
const SETTLED: Duration = Duration::from_secs(30);

/// Of the mean load, this part is not worth a move.
const SMALL_PART: u64 = 20;

#[cfg(test)]
mod tests;
