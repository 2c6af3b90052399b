//! What becomes of batches on a schedule, whatever happens in whatever order.

use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn at(seconds: u64) -> Timestamp {
    later(NOW, Duration::from_secs(seconds))
}

fn next(seconds: u64) -> Next {
    Next::at(at(seconds), Some(1))
}

fn wanted(due: &DueList, seconds: u64) -> Vec<Pk> {
    due.wanted(Duration::from_mins(15), at(seconds)).into_iter().map(|wanted| wanted.pk).collect()
}

#[test]
fn what_is_taken_off_during_its_poll_stays_off_unless_it_is_put_on_again() {
    let mut due = DueList::default();
    due.put(1, next(10), NOW);
    let claim = due.claim(1);
    assert!(claim.is_some() && due.claim(1).is_none());
    due.forget(1);
    due.settle(1, Some(next(20)), false, NOW);
    assert_eq!(due.first(false), None);

    assert!(due.claim(1).is_some());
    due.forget(1);
    due.told(1, Some(next(12)), NOW);
    due.settle(1, None, false, NOW);
    let why = "untracked and tracked again while a poll was under way";
    assert_eq!(due.first(false), Some((at(12), 1)), "{why}");
}

#[test]
fn what_is_said_during_a_poll_is_not_lost() {
    let mut due = DueList::default();
    due.put(1, next(10), NOW);
    // The poll's own commit says the same as the poll.
    assert!(due.claim(1).is_some());
    due.told(1, Some(next(20)), NOW);
    due.settle(1, Some(next(20)), false, NOW);
    assert_eq!(due.first(false), Some((at(20), 1)));
    // Made due meanwhile: the poll that is under way may have come too early for that.
    assert!(due.claim(1).is_some());
    due.told(1, Some(next(5)), at(5));
    due.told(1, Some(next(900)), at(6));
    due.settle(1, Some(next(900)), false, at(6));
    assert_eq!(due.first(true), Some((at(5), 1)));
    // An end.
    assert!(due.claim(1).is_some());
    due.told(1, None, at(7));
    due.settle(1, Some(next(900)), false, at(7));
    assert!(!due.knows(1));
}

#[test]
fn a_batch_keeps_its_place_in_the_list_whatever_becomes_of_a_poll() {
    let mut due = DueList::default();
    due.put(1, Next::at(at(10), Some(77)), NOW);
    assert!(due.claim(1).is_some());
    due.settle(1, Some(Next::at(at(20), None)), false, NOW);
    assert_eq!(due.created(), [77]);
    due.put(1, Next::at(at(10), None), NOW);
    assert_eq!(due.created(), [77]);
}

#[test]
fn what_was_read_gives_way_to_what_was_said_since() {
    let mut due = DueList::default();
    due.told(1, None, NOW);
    due.told(2, Some(next(20)), NOW);
    assert!(!due.is_filled());
    due.fill([1, 2, 3].map(|pk| (pk, next(10))).into_iter(), NOW);
    assert!(due.is_filled());
    let known: Vec<Pk> = (1..=4).filter(|pk| due.knows(*pk)).collect();
    assert_eq!((known, due.first(false)), (vec![2, 3], Some((at(10), 3))));
}

#[test]
fn what_is_begun_anew_is_as_the_database_has_it() {
    let mut due = DueList::default();
    let mark = Mark { fingerprint: 7, until: at(900) };
    for pk in 1..=4 {
        due.put(
            pk,
            Next { mark: Some(Mark { fingerprint: 10 + pk.unsigned_abs(), ..mark }), ..next(10) },
            NOW,
        );
    }
    let (_two, _three) = (due.claim(2), due.claim(3));
    let _round = due.begin_round();
    due.expect(&due.wanted(Duration::from_mins(15), at(10)));
    due.begin_anew();
    assert!(!due.is_filled() && due.unseen() == 0 && due.expected().is_empty());
    due.told(5, Some(next(30)), NOW);
    due.fill([2, 4, 5].map(|pk| (pk, next(20))).into_iter(), NOW);
    assert_eq!(due.unchanged_item(14, NOW), None, "what an answer was like that was lost with what it said");
    due.settle(2, Some(Next { mark: Some(mark), ..next(50) }), false, NOW);
    due.settle(3, Some(next(50)), false, NOW);
    assert!(due.waits(2) && due.waits(4) && due.waits(5) && !due.knows(1) && !due.knows(3));
    assert_eq!(due.unchanged_item(7, NOW), None);
    due.end_round(NOW, NOW);
    assert_eq!(due.first(false), Some((at(20), 4)));
}

#[test]
fn what_nobody_takes_care_of_is_due_again() {
    let mut due = DueList::default();
    for pk in 1..=3 {
        due.put(pk, next(0), NOW);
    }
    let (held, lost) = (due.claim(1), due.claim(2));
    drop(lost);
    let round = due.begin_round();
    due.watch();
    assert!(due.claim_shown(3).is_some());
    assert_eq!(due.release_lost(at(30)), [2]);
    drop(round);
    due.release_lost(at(40));
    assert!(!due.is_in_round());
    assert_eq!(due.first(false), Some((at(30), 2)));
    assert!(due.waits(3) && !due.waits(1) && due.knows(1));
    drop(held);
    assert_eq!(due.release_lost(at(50)), [1]);
    assert_eq!(due.counts(), (3, 0));
}

#[test]
fn news_has_what_is_on_the_schedule_retrieved_at_once_and_nothing_else() {
    let mut due = DueList::default();
    due.nudge(1, NOW);
    assert_eq!(due.first(false), None);
    due.put(1, next(10), NOW);
    due.nudge(1, at(20));
    assert_eq!(due.first(true), Some((at(10), 1)), "never put off, and not left to a page");
    // The poll that is under way may have come too early for the news …
    assert!(due.claim(1).is_some());
    due.nudge(1, at(21));
    due.settle(1, Some(next(900)), false, at(22));
    assert_eq!(due.first(true), Some((at(21), 1)));
    // … or have seen it …
    assert!(due.claim(1).is_some());
    due.nudge(1, at(23));
    due.settle(1, None, false, at(24));
    assert_eq!(due.first(false), None);
    // … and a page that was asked for before it has not.
    due.put(2, next(10), NOW);
    due.begin_round();
    due.watch();
    due.nudge(2, at(30));
    assert_eq!(due.claim_shown(2), None);
}

#[test]
fn what_is_due_soon_is_checked_with_what_is_due() {
    let mut due = DueList::default();
    for (pk, seconds) in [(1, 100), (2, 115), (3, 140), (4, 900)] {
        due.put(pk, next(seconds), NOW);
    }
    due.put(5, Next { closely: true, ..next(100) }, NOW);
    assert!(wanted(&due, 99).is_empty());
    assert_eq!(wanted(&due, 100), [1, 2], "140 s is more than a fifth before its time");
    assert_eq!(wanted(&due, 112), [1, 2, 3]);
}

#[test]
fn a_page_does_not_undo_what_a_poll_saw_meanwhile() {
    let mut due = DueList::default();
    for pk in 1..=4 {
        due.put(pk, next(0), NOW);
    }
    assert!(due.claim(1).is_some());
    let round = due.begin_round();
    assert!(round.is_some() && due.begin_round().is_none());
    due.expect(&due.wanted(Duration::from_mins(15), NOW));
    assert_eq!(due.first(false), None);
    due.watch();
    // One was under way when the page was asked for, another was polled and settled while it came.
    assert!(due.claim(2).is_some());
    due.settle(2, Some(next(60)), false, NOW);
    due.settle(1, Some(next(60)), false, NOW);
    due.forget(3);
    let shown: Vec<bool> = (1..=5).map(|pk| due.claim_shown(pk).is_some()).collect();
    assert_eq!(shown, [false, false, false, true, false]);
    due.settle(4, Some(next(60)), true, NOW);
    due.end_round(at(15), NOW);
    assert_eq!(due.counts(), (3, 0));
    assert_eq!(due.first(false), Some((at(60), 1)));
}

#[test]
fn what_no_page_shows_is_retrieved_until_one_does() {
    let mut due = DueList::default();
    due.put(1, next(0), NOW);
    due.begin_round();
    due.expect(&due.wanted(Duration::from_mins(15), NOW));
    assert_eq!(due.expected().len(), 1);
    due.release(1, true);
    due.end_round(at(15), NOW);
    assert_eq!(due.first(true), Some((NOW, 1)));
    for _ in 0..2 {
        assert!(due.claim(1).is_some());
        due.settle(1, Some(next(10)), false, NOW);
        assert!(wanted(&due, 10).is_empty(), "it stays apart");
    }
    due.begin_round();
    due.watch();
    assert_eq!(due.claim_shown(1), Some(at(10)));
    due.settle(1, Some(next(10)), true, NOW);
    due.end_round(at(15), NOW);
    assert_eq!(wanted(&due, 10), [1]);
}

#[test]
fn a_round_that_dies_leaves_nothing_behind() {
    let mut due = DueList::default();
    for pk in 1..=3 {
        due.put(pk, next(0), NOW);
    }
    due.begin_round();
    due.expect(&due.wanted(Duration::from_mins(15), NOW));
    due.watch();
    assert!(due.claim_shown(2).is_some());
    due.end_round(at(15), NOW);
    assert_eq!(due.counts(), (3, 0));
    assert_eq!(due.overdue(NOW).0, 2);
    assert!(due.begin_round().is_some());
}

fn marked(pk: Pk, until: u64) -> Mark {
    Mark { fingerprint: pk.unsigned_abs(), until: at(until) }
}

/// One batch that was polled and is due again in a minute, as long as nothing is new.
fn unchanged_for(seconds: u64) -> DueList {
    let mut due = DueList::default();
    due.put(1, next(0), NOW);
    assert!(due.claim(1).is_some());
    due.settle(1, Some(Next { mark: Some(marked(1, seconds)), ..next(60) }), false, NOW);
    due.begin_round();
    due.watch();
    due
}

#[test]
fn what_a_page_shows_unchanged_is_due_again_after_the_same_time() {
    let mut due = unchanged_for(600);
    assert_eq!(due.unchanged_item(1, at(55)), Some(Wanted { pk: 1, created_at: Some(1) }));
    let settled = due.settle_unchanged(1, at(55)).unwrap();
    assert_eq!((settled.pk, settled.due_at, settled.next_at), (1, at(60), at(115)));
    assert_eq!(due.settle_unchanged(1, at(115)).unwrap().next_at, at(175));
    assert_eq!(due.first(false), Some((at(175), 1)));
    assert_eq!((due.unchanged_item(1, at(600)), due.settle_unchanged(1, at(600))), (None, None), "no longer");
    assert_eq!(due.unchanged_item(2, at(55)), None);
}

#[test]
fn what_a_poll_shows_unchanged_is_due_again_after_the_same_time() {
    let mut due = unchanged_for(600);
    assert!(!due.may_be_unchanged(1, at(60)), "nobody polls it");
    assert!(due.claim(1).is_some() && due.may_be_unchanged(1, at(60)) && !due.may_be_unchanged(1, at(600)));
    assert_eq!((due.after_unchanged(1, 2, at(61)), due.after_unchanged(1, 1, at(600))), (None, None));
    let after = due.after_unchanged(1, 1, at(61)).unwrap();
    assert_eq!((after.at, after.mark), (at(121), Some(marked(1, 600))));
    due.settle(1, Some(after), false, at(61));
    assert!(due.claim(1).is_some() && due.may_be_unchanged(1, at(121)));
    // What is written meanwhile has to be read.
    due.told(1, Some(next(500)), at(122));
    assert_eq!(due.after_unchanged(1, 1, at(122)), None);
}

#[test]
fn what_has_been_written_or_said_of_a_batch_has_it_read() {
    for happens in [
        (|due| {
            due.told(1, Some(next(70)), at(50));
        }) as fn(&mut DueList),
        |due| due.put(1, next(70), at(50)),
        |due| due.nudge(1, at(50)),
        |due| due.forget(1),
        |due| due.advance(Duration::from_secs(1)),
        // A poll that saw something else, or failed, or whose commit was not the only one.
        |due| {
            due.claim(1);
            due.settle(1, Some(next(70)), false, at(50));
        },
        |due| {
            due.claim(1);
            due.told(1, Some(next(80)), at(50));
            due.settle(1, Some(Next { mark: Some(marked(1, 600)), ..next(70) }), false, at(50));
        },
    ] {
        let mut due = unchanged_for(600);
        assert!(due.unchanged_item(1, at(50)).is_some());
        happens(&mut due);
        assert_eq!((due.unchanged_item(1, at(50)), due.settle_unchanged(1, at(50))), (None, None));
        assert!(due.by_fingerprint.is_empty());
    }
    // A poll that was under way when the page was asked for knows better, and leaves it as it was.
    let mut due = unchanged_for(600);
    assert!(due.claim(1).is_some());
    due.watch();
    let after = due.after_unchanged(1, 1, at(61)).unwrap();
    due.settle(1, Some(after), false, at(61));
    assert_eq!(due.settle_unchanged(1, at(62)), None);
    due.watch();
    assert!(due.settle_unchanged(1, at(62)).is_some());
}

#[test]
fn a_clock_that_is_set_back_puts_off_neither_what_waits_nor_what_is_under_way() {
    let (mut due, year) = (DueList::default(), 365 * 24 * 3600);
    due.follow_clock(at(year));
    for pk in 1..=3 {
        due.put(pk, next(year + 60), at(year));
    }
    let claims = (due.claim(1), due.claim(2));
    due.follow_clock(NOW);
    // One was planned before, one after.
    due.settle(1, Some(next(year + 60)), false, NOW);
    due.settle(2, Some(next(60)), false, NOW);
    drop(claims);
    let all_at = |due: &DueList| due.overdue(at(60)).0;
    assert_eq!(all_at(&due), 3);
}

proptest! {
    /// Whatever happens in whatever order, a batch is in exactly one place.
    #[test]
    fn no_batch_is_lost_or_twice(steps in prop::collection::vec((0_u8..14, 1_i64..6, 0_u64..50), 0..200)) {
        let mut due = DueList::default();
        let mut alive = BTreeSet::new();
        for (step, pk, seconds) in steps {
            match step {
                0 | 1 => {
                    let created_at = Some(1).filter(|_| seconds % 3 > 0);
                    due.put(pk, Next { closely: step == 1, ..Next::at(at(seconds), created_at) }, NOW);
                    alive.insert(pk);
                }
                2 => { due.forget(pk); alive.remove(&pk); }
                // A claim of what is on no schedule is a poll by hand.
                3 => { due.claim(pk); }
                4 => {
                    let mark = Some(marked(pk, 25)).filter(|_| seconds % 4 < 2);
                    let next = Some(Next { mark, ..next(seconds) }).filter(|_| alive.contains(&pk));
                    due.settle(pk, next, seconds % 2 == 0, NOW);
                }
                5 => { due.begin_round(); }
                6 => due.expect(&due.wanted(Duration::from_mins(15), at(seconds))),
                7 => due.watch(),
                8 => { due.claim_shown(pk); }
                9 => due.release(pk, seconds % 2 == 0),
                10 => due.end_round(at(seconds), NOW),
                11 => { due.hurry(at(seconds)); }
                13 => due.nudge(pk, at(seconds)),
                14 | 15 => { due.settle_unchanged(pk.unsigned_abs(), at(seconds)); }
                _ => due.advance(Duration::from_secs(seconds)),
            }
            let expected = due.round.as_ref().map_or(0, |round| round.expected.len());
            let unseen = due.expected().iter().filter(|wanted| wanted.created_at.is_none()).count();
            prop_assert_eq!(due.unseen(), unseen);
            prop_assert_eq!(due.by_batch.len(), due.together.len() + due.apart.len() + expected);
            let marks = due.by_batch.iter().filter_map(|(pk, entry)| Some((entry.mark()?.fingerprint, *pk)));
            prop_assert_eq!(&due.by_fingerprint, &marks.collect::<BTreeMap<_, _>>());
            for pk in &alive {
                prop_assert!(due.by_batch.contains_key(pk) != due.busy.contains_key(pk), "{} {:?}", pk, due);
            }
        }
    }
}
