//! Simulated daemons that plan by what they see, and a table that decides what of it is done.

use super::*;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(10);

fn id(number: usize) -> MemberId {
    MemberId(format!("m{number}"))
}

fn scopes(count: usize) -> Vec<Scope> {
    let account = |number: usize| Scope::Account(format!("a{number}"));
    std::iter::once(Scope::Keeper).chain((1..count).map(account)).collect()
}

fn holding(scopes: &[Scope], print: u64) -> BTreeMap<Scope, u64> {
    scopes.iter().map(|scope| (scope.clone(), print)).collect()
}

fn lively(number: usize, scopes: &[Scope], at: Duration) -> Member {
    let pulse = Pulse::new(1, at).seen(2, at);
    Member { id: id(number), holds: holding(scopes, 1), dead: false, gone: false, pulse }
}

fn lease(scope: &Scope, owner: Option<usize>) -> Lease {
    Lease {
        scope: scope.clone(),
        owner: owner.map(id),
        epoch: 1,
        wanted: None,
        weight: 1,
        since: Duration::ZERO,
    }
}

#[test]
fn scopes_are_written_and_read() {
    for scope in
        [Scope::All, Scope::Keeper, Scope::Account("open:ai".to_owned()), Scope::Webhook("ops".to_owned())]
    {
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
    for text in ["", "every", "provider:openai", "all:x"] {
        assert_eq!(text.parse::<Scope>(), Err(NoScope), "{text}");
    }
}

#[test]
fn a_silence_counts_only_while_somebody_watches() {
    let second = Duration::from_secs;
    let mut pulse = Pulse::new(5, second(0));
    for at in 1..=9 {
        pulse = pulse.seen(5, second(at));
    }
    assert_eq!(pulse.still(), second(9));
    assert_eq!(pulse.seen(6, second(10)).still(), second(0), "a commit is a sign of life");
    // Whoever was stopped for a minute has seen nothing of it.
    assert_eq!(pulse.seen(5, second(69)).still(), second(0));
    assert_eq!(pulse.seen(5, second(12)).still(), second(12));
}

#[test]
fn what_a_member_defines_otherwise_or_lacks_is_told_of_it() {
    let all = scopes(3);
    let mut members: Vec<Member> = (0..4).map(|number| lively(number, &all, Duration::ZERO)).collect();
    members[2].holds.insert(all[1].clone(), 7);
    members[2].holds.remove(&all[2]);
    members[3].dead = true;
    members[3].holds.clear();
    let nobodys = lease(&Scope::Webhook("gone".to_owned()), None);
    let leases: Vec<Lease> = all.iter().map(|scope| lease(scope, Some(0))).chain([nobodys]).collect();
    let differs = vec![Difference::Otherwise(all[1].clone()), Difference::Lacks(all[2].clone())];
    assert_eq!(differences(&members, &leases), BTreeMap::from([(id(2), differs)]));
}

#[test]
fn a_dead_members_scopes_are_shared_out_among_the_others() {
    let all = scopes(7);
    let now = Duration::from_secs(100);
    let mut members: Vec<Member> = (0..3).map(|number| lively(number, &all, now)).collect();
    members[0].dead = true;
    let leases: Vec<Lease> = all.iter().map(|scope| lease(scope, Some(0))).collect();
    let claimed = |number: usize, members: &[Member], leases: &[Lease]| {
        plan(&id(number), members, leases, LEASE, Duration::ZERO)
            .into_iter()
            .filter_map(|act| match act {
                Act::Claim(scope) => Some(scope),
                _ => None,
            })
            .collect::<BTreeSet<_>>()
    };
    let (one, other) = (claimed(1, &members, &leases), claimed(2, &members, &leases));
    assert!(one.is_disjoint(&other) && one.len() + other.len() == 7 && one.len().abs_diff(other.len()) <= 1);
    assert!(claimed(0, &members, &leases).is_empty(), "the dead claim nothing");
    // What nobody has taken for a while anybody takes.
    let late = plan(&id(1), &members, &leases, LEASE, Duration::from_secs(3));
    assert_eq!(late.len(), 7);
}

#[test]
fn definitions_that_differ_are_decided_by_the_majority_and_a_tie_by_the_owner() {
    let scope = Scope::Account("a".to_owned());
    let now = Duration::from_secs(100);
    let mut members: Vec<Member> =
        (0..2).map(|number| lively(number, &[scope.clone(), Scope::Keeper], now)).collect();
    members[1].holds.insert(scope.clone(), 9);
    let leases = [lease(&scope, Some(0)), lease(&Scope::Keeper, Some(1))];
    assert_eq!(plan(&id(1), &members, &leases, LEASE, now), [], "a tie stays where it is");
    let mut third = lively(2, std::slice::from_ref(&scope), now);
    third.holds.insert(scope.clone(), 9);
    members.push(third);
    assert_eq!(plan(&id(1), &members, &leases, LEASE, now), [Act::Want(scope.clone(), id(2))]);
    let wanted = [Lease { wanted: Some(id(2)), ..leases[0].clone() }, leases[1].clone()];
    assert_eq!(plan(&id(0), &members, &wanted, LEASE, now), [Act::Release(scope.clone())]);
    assert_eq!(plan(&id(1), &members, &wanted, LEASE, now), []);
    // What its own configuration no longer knows a member gives back unasked.
    members[0].holds.remove(&scope);
    assert_eq!(plan(&id(0), &members, &leases, LEASE, now), [Act::Release(scope)]);
}

#[test]
fn weights_that_change_a_little_move_nothing() {
    let all = scopes(5);
    let now = Duration::from_secs(100);
    let members: Vec<Member> = (0..2).map(|number| lively(number, &all, now)).collect();
    let weighed = |weights: [u64; 5]| -> Vec<Lease> {
        let owners = [0, 0, 0, 1, 1];
        let lease = |((scope, owner), weight)| Lease { weight, ..lease(scope, Some(owner)) };
        all.iter().zip(owners).zip(weights).map(lease).collect()
    };
    assert_eq!(plan(&id(0), &members, &weighed([0, 503, 500, 498, 499]), LEASE, now), []);
    let uneven = plan(&id(0), &members, &weighed([0, 900, 500, 100, 100]), LEASE, now);
    assert_eq!(uneven, [Act::Want(all[2].clone(), id(1))], "500 of 1400 go to the one with 200");
}

/// What happens to a world, in seconds.
#[derive(Clone, Debug)]
enum Fate {
    Join,
    Kill(usize),
    Freeze(usize, u32),
    Leave(usize),
    /// Its configuration defines one scope anew, or does not know it.
    Redefine(usize, usize, Option<u64>),
}

fn fates() -> impl Strategy<Value = Vec<(u32, Fate)>> {
    let fate = prop_oneof![
        3 => Just(Fate::Join),
        2 => (0_usize..6).prop_map(Fate::Kill),
        2 => (0_usize..6, 1_u32..40).prop_map(|(who, time)| Fate::Freeze(who, time)),
        1 => (0_usize..6).prop_map(Fate::Leave),
        1 => (0_usize..6, 0_usize..8, prop::option::of(1_u64..3)).prop_map(|(who, scope, print)| Fate::Redefine(who, scope, print)),
    ];
    prop::collection::vec((0_u32..50, fate), 0..12)
}

/// What the table in the database says of a member.
#[derive(Clone, Debug)]
struct Stored {
    number: u64,
    dead: bool,
    gone: bool,
    holds: BTreeMap<Scope, u64>,
}

/// A process, and what it remembers.
#[derive(Debug)]
struct Process {
    me: usize,
    frozen_until: u32,
    watch: Watch,
    /// What it was about to do when it was stopped.
    unfinished: Vec<Act>,
}

struct World {
    stored: Vec<Stored>,
    leases: Vec<Lease>,
    /// When each lease last changed hands, in seconds.
    moved: BTreeMap<Scope, u32>,
    processes: Vec<Process>,
}

impl World {
    fn new(scopes: &[Scope]) -> Self {
        let leases = scopes.iter().map(|scope| lease(scope, None)).collect();
        Self { stored: Vec::new(), leases, moved: BTreeMap::new(), processes: Vec::new() }
    }

    fn join(&mut self, scopes: &[Scope]) {
        self.processes.push(Process {
            me: self.stored.len(),
            frozen_until: 0,
            watch: Watch::default(),
            unfinished: Vec::new(),
        });
        self.stored.push(Stored { number: 0, dead: false, gone: false, holds: holding(scopes, 1) });
    }

    fn suffer(&mut self, fate: &Fate, second: u32, scopes: &[Scope]) {
        let running = self.processes.len();
        let nth = |who: usize| (running > 0).then(|| who % running);
        match *fate {
            Fate::Join if running < 6 => self.join(scopes),
            Fate::Join => {}
            Fate::Kill(who) => drop(nth(who).map(|at| self.processes.remove(at))),
            Fate::Freeze(who, time) => {
                if let Some(at) = nth(who) {
                    self.processes[at].frozen_until = second + time;
                }
            }
            Fate::Leave(who) => {
                if let Some(at) = nth(who) {
                    let left = self.processes.remove(at);
                    self.stored[left.me].gone = true;
                }
            }
            Fate::Redefine(who, scope, print) => {
                // The keeper's work is the same everywhere.
                if let (Some(at), Some(scope)) =
                    (nth(who), scopes.get(scope).filter(|scope| **scope != Scope::Keeper))
                {
                    let holds = &mut self.stored[self.processes[at].me].holds;
                    match print {
                        Some(print) => holds.insert(scope.clone(), print),
                        None => holds.remove(scope),
                    };
                }
            }
        }
    }

    /// One second of one process: it does what it planned, beats, looks and plans.
    fn step(&mut self, at: usize, second: u32) -> Result<(), TestCaseError> {
        let now = Duration::from_secs(u64::from(second));
        let unfinished = std::mem::take(&mut self.processes[at].unfinished);
        let me = self.processes[at].me;
        for act in unfinished {
            self.apply(me, &act, second)?;
        }
        if self.stored[me].dead {
            // It joins anew under another id.
            let holds = self.stored[me].holds.clone();
            let process = &mut self.processes[at];
            process.me = self.stored.len();
            process.watch = Watch::default();
            self.stored.push(Stored { number: 0, dead: false, gone: false, holds });
            return Ok(());
        }
        if second.is_multiple_of(2) {
            self.stored[me].number += 1;
        }
        let process = &mut self.processes[at];
        let members: Vec<Member> = self
            .stored
            .iter()
            .enumerate()
            .map(|(number, stored)| Member {
                id: id(number),
                holds: stored.holds.clone(),
                dead: stored.dead,
                gone: stored.gone,
                pulse: process.watch.member(&id(number), stored.number, now),
            })
            .collect();
        let leases: Vec<Lease> = self
            .leases
            .iter()
            .map(|lease| {
                let owner = lease.owner.as_ref();
                let there = owner.is_some_and(|owner| members.iter().any(|m| m.id == *owner && m.is_there()));
                let since = process.watch.lease(&lease.scope, owner, lease.epoch, there, now);
                Lease { since, ..lease.clone() }
            })
            .collect();
        let acts = plan(&id(me), &members, &leases, LEASE, now);
        for act in &acts {
            if let Act::Claim(scope) = act {
                let lease = leases.iter().find(|lease| lease.scope == *scope).unwrap();
                let live = |owner: &MemberId| members.iter().any(|m| m.id == *owner && !m.dead && !m.gone);
                prop_assert!(
                    !lease.owner.as_ref().is_some_and(live),
                    "claims what a live member holds: {scope}"
                );
            }
        }
        self.processes[at].unfinished = acts;
        Ok(())
    }

    /// Does what was planned, if the database lets it.
    fn apply(&mut self, me: usize, act: &Act, second: u32) -> Result<(), TestCaseError> {
        if self.stored[me].dead {
            return Ok(());
        }
        match act {
            Act::Bury(who, number) => {
                let at = (0..self.stored.len()).find(|at| id(*at) == *who).unwrap();
                if self.stored[at].number == *number {
                    prop_assert!(at != me);
                    self.stored[at].dead = true;
                }
            }
            Act::Release(scope) => {
                let moved = self.moved.get(scope).copied();
                let declared = self.stored[me].holds.contains_key(scope);
                let lease = self.leases.iter_mut().find(|lease| lease.scope == *scope).unwrap();
                if lease.owner == Some(id(me)) {
                    if declared {
                        let rested = moved.is_none_or(|moved| second - moved >= 30);
                        prop_assert!(rested, "{scope} moved at {moved:?} and again at {second}");
                    }
                    lease.owner = None;
                }
            }
            Act::Claim(scope) => {
                let lease = self.leases.iter_mut().find(|lease| lease.scope == *scope).unwrap();
                let stored = |owner: &MemberId| &self.stored[owner.0[1..].parse::<usize>().unwrap()];
                if lease.owner.as_ref().is_none_or(|owner| stored(owner).dead || stored(owner).gone) {
                    lease.owner = Some(id(me));
                    lease.epoch += 1;
                    lease.wanted = None;
                    self.moved.insert(scope.clone(), second);
                }
            }
            Act::Want(scope, to) => {
                let keeps = self
                    .leases
                    .iter()
                    .any(|lease| lease.scope == Scope::Keeper && lease.owner == Some(id(me)));
                let lease = self.leases.iter_mut().find(|lease| lease.scope == *scope).unwrap();
                if keeps {
                    lease.wanted = Some(to.clone());
                }
            }
        }
        Ok(())
    }

    fn second(&mut self, second: u32, order: u64) -> Result<(), TestCaseError> {
        let count = self.processes.len();
        for turn in 0..count {
            let at = (turn + usize::try_from(order % 7).unwrap()) % count;
            if self.processes[at].frozen_until <= second {
                self.step(at, second)?;
            }
        }
        Ok(())
    }

    /// The scopes that a running process could hold and none holds.
    fn orphans(&self) -> Vec<String> {
        let running = |owner: &MemberId| self.processes.iter().any(|process| id(process.me) == *owner);
        let could = |scope: &Scope| {
            self.processes.iter().any(|process| self.stored[process.me].holds.contains_key(scope))
        };
        let alone = self
            .leases
            .iter()
            .filter(|lease| could(&lease.scope) && !lease.owner.as_ref().is_some_and(running));
        alone.map(|lease| lease.scope.to_string()).collect()
    }

    /// Of every running process, how much it holds.
    fn loads(&self) -> Vec<u64> {
        let load = |me: usize| -> u64 {
            self.leases.iter().filter(|lease| lease.owner == Some(id(me))).map(|lease| lease.weight).sum()
        };
        self.processes.iter().map(|process| load(process.me)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_scope_ends_with_one_owner_and_the_loads_are_even(
        first in 1_usize..5, count in 1_usize..12, fates in fates(), order: u64,
    ) {
        let scopes = scopes(count);
        let mut world = World::new(&scopes);
        for _ in 0..first {
            world.join(&scopes);
        }
        let mut fates = fates;
        fates.sort_by_key(|(second, _)| *second);
        let alike = !fates.iter().any(|(_, fate)| matches!(fate, Fate::Redefine(..)));
        for second in 0..60 {
            for (_, fate) in fates.iter().filter(|(at, _)| *at == second) {
                world.suffer(fate, second, &scopes);
            }
            world.second(second, order)?;
        }
        // Whoever is frozen wakes up, is buried or joins anew; then all is quiet.
        for second in 60..260 {
            world.second(second, order)?;
        }
        prop_assert!(world.orphans().is_empty() || world.processes.is_empty(), "{:?}", world.orphans());
        let loads = world.loads();
        if let (true, Some(most), Some(least)) = (alike, loads.iter().max(), loads.iter().min()) {
            prop_assert!(most - least <= 1, "{loads:?}");
        }
        let owners: Vec<Option<MemberId>> = world.leases.iter().map(|lease| lease.owner.clone()).collect();
        for second in 260..330 {
            world.second(second, order)?;
        }
        let later: Vec<Option<MemberId>> = world.leases.iter().map(|lease| lease.owner.clone()).collect();
        prop_assert_eq!(owners, later, "what is even stays where it is");
    }

    #[test]
    fn what_a_killed_member_held_is_owned_elsewhere_soon(members in 2_usize..6, count in 1_usize..12, who: usize, order: u64) {
        let scopes = scopes(count);
        let mut world = World::new(&scopes);
        for _ in 0..members {
            world.join(&scopes);
        }
        for second in 0..120 {
            world.second(second, order)?;
        }
        prop_assert!(world.orphans().is_empty());
        let killed = id(world.processes.remove(who % members).me);
        for second in 120..134 {
            world.second(second, order)?;
        }
        let left = world.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&killed)).count();
        prop_assert_eq!(left, 0);
        for second in 134..140 {
            world.second(second, order)?;
        }
        prop_assert!(world.orphans().is_empty(), "{:?}", world.orphans());
    }

    #[test]
    fn nobody_is_buried_whose_commits_are_seen(numbers in prop::collection::vec((1_u64..4, 0_u64..5), 1..60)) {
        let all = scopes(3);
        let mut now = Duration::ZERO;
        let mut pulse = Pulse::new(0, now);
        let mut moved = now;
        let mut last = 0;
        for (wait, number) in numbers {
            now += Duration::from_secs(wait);
            if number != last {
                moved = now;
            }
            last = number;
            pulse = pulse.seen(number, now);
            let mut members = vec![lively(0, &all, now), lively(1, &all, now)];
            members[1].pulse = pulse;
            let acts = plan(&id(0), &members, &[lease(&Scope::Keeper, Some(0))], LEASE, now);
            let buried = acts.iter().any(|act| matches!(act, Act::Bury(..)));
            prop_assert!(!buried || now.saturating_sub(moved) >= LEASE);
            prop_assert!(!buried || acts.contains(&Act::Bury(id(1), number)));
        }
    }
}
