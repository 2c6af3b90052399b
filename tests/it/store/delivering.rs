//! The outbox: what is owed, what is due, what was tried.

use super::stage::{Stage, on_both};
use super::*;
use batchd::store::outbox::{
    AttemptEnd, Backlog, Delivery, DeliveryFilter, DeliveryState, Next, Trigger, WebhookState,
};
use std::time::Duration;

on_both! {
    a_receiver_that_is_gone_after_its_webhook_was_enabled_holds_nothing_under_an_enabled_webhook,
    a_delivery_from_owed_to_delivered,
    long_answers_are_cut,
    watchers_wake_after_the_commit,
    a_webhook_that_is_off_is_owed_and_not_sent_to,
    without_a_state_the_route_says_whether_it_is_off,
    an_attempt_that_ends_does_not_switch_a_webhook_on,
    what_is_owed_to_a_webhook_that_is_gone_waits_for_it,
    f10_f11_anything_but_what_is_under_way_can_be_sent_again,
    a3_what_was_in_flight_when_the_process_died_is_due_at_start,
    a11_what_three_processes_died_of_is_set_apart_and_given_up_after_three_deaths_alone,
    a10_a_suspect_that_ends_once_is_none_any_more_and_a_stop_is_no_death,
    e2_a_clock_that_is_set_forward_shortens_no_wait_that_had_begun,
    e1_a_clock_that_is_set_back_lengthens_no_wait,
    deliveries_are_listed_newest_first_filtered_and_paged,
    h10_an_end_waits_for_its_beginning_and_for_no_other,
    purging_takes_what_is_in_flight_along,
}

/// Makes one attempt that ends at [`EPOCH`] with `next`.
pub async fn deliver(store: &Store, delivery: Pk, next: Next) {
    let attempt = store.begin_attempts(vec![delivery], EPOCH).await.unwrap()[0].unwrap();
    store.finish_attempt(attempt, end(next), WebhookState::default()).await.unwrap();
}

fn end(next: Next) -> AttemptEnd {
    let delivered = next == Next::Delivered;
    AttemptEnd {
        at: EPOCH,
        outcome: if delivered { "delivered" } else { "http_503" }.to_owned(),
        http_status: Some(if delivered { 200 } else { 503 }),
        error: (!delivered).then(|| "503 from the receiver".to_owned()),
        excerpt: Some("busy".to_owned()),
        next,
    }
}

fn again(wait: u64, counts: bool) -> Next {
    let wait = Duration::from_secs(wait);
    Next::Again { at: EPOCH + jiff::SignedDuration::try_from(wait).unwrap(), wait, counts, plain: false }
}

/// A store whose webhooks are owed one event each of so many batches.
async fn owing(stage: &Stage, batches: u32, webhooks: &[&str]) -> Store {
    let store = stage.open().await;
    for number in 0..batches {
        let pk = track(&store, &format!("batch_{number}")).await;
        see(&store, pk, Status::Completed, 1, webhooks).await;
    }
    store
}

async fn due(store: &Store, webhook: &str, at: i64) -> Vec<Pk> {
    store.due(webhook.to_owned(), seconds(at), 100).await.unwrap().into_iter().map(|due| due.pk).collect()
}

async fn all(store: &Store) -> Vec<Delivery> {
    store.deliveries(DeliveryFilter::default()).await.unwrap().0
}

async fn states(store: &Store, webhook: &str) -> Vec<DeliveryState> {
    let filter = DeliveryFilter { webhook: Some(webhook.to_owned()), ..DeliveryFilter::default() };
    let mut found = store.deliveries(filter).await.unwrap().0;
    found.reverse();
    found.into_iter().map(|delivery| delivery.state).collect()
}

fn off(by_hand: bool) -> WebhookState {
    WebhookState { disabled: Some("410 Gone".to_owned()), by_hand, ..WebhookState::default() }
}

async fn a_delivery_from_owed_to_delivered(stage: Stage) {
    let store = owing(&stage, 2, &["pipeline"]).await;
    let found = store.due("pipeline".to_owned(), EPOCH, 1).await.unwrap();
    assert_eq!(found.len(), 1, "at most the limit");
    let first = &found[0];
    assert!(first.event_id.starts_with("evt_") && first.body.contains(&first.event_id));
    assert_eq!((first.attempts, first.plain, first.recorded_at), (0, false, EPOCH));
    assert_eq!(store.next_due("pipeline".to_owned(), EPOCH).await.unwrap(), Some(EPOCH));
    assert_eq!(store.next_due("ops".to_owned(), EPOCH).await.unwrap(), None);

    let begun = store.begin_attempts(vec![first.pk, first.pk, 999], seconds(2)).await.unwrap();
    assert!(begun[0].is_some() && begun[1].is_none() && begun[2].is_none(), "never two at once: {begun:?}");
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Inflight, DeliveryState::Pending]);
    let attempts = store.attempts(first.pk).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].number, attempts[0].started_at), (1, 1, seconds(2)));
    assert_eq!(
        (attempts[0].finished_at, &attempts[0].outcome, attempts[0].trigger),
        (None, &None, Trigger::Schedule)
    );

    // First a refusal that counts and wants plain text, then one that does not, then success.
    let next = Next::Again { at: seconds(5), wait: Duration::from_secs(5), counts: true, plain: true };
    store.finish_attempt(begun[0].unwrap(), end(next), WebhookState::default()).await.unwrap();
    assert_eq!(due(&store, "pipeline", 4).await.len(), 1);
    let found = store.due("pipeline".to_owned(), seconds(5), 9).await.unwrap();
    assert_eq!((found[1].pk, found[1].attempts, found[1].plain), (first.pk, 1, true), "soonest first");
    let shown = all(&store).await.pop().unwrap();
    assert_eq!((shown.attempts, shown.next_attempt_at), (1, Some(seconds(5))));
    assert_eq!(shown.last_error.as_deref(), Some("503 from the receiver"));
    deliver(&store, first.pk, again(30, false)).await;
    assert_eq!(store.due("pipeline".to_owned(), seconds(30), 9).await.unwrap()[1].attempts, 1);
    deliver(&store, first.pk, Next::Delivered).await;

    let shown = all(&store).await.pop().unwrap();
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Delivered, 3));
    assert_eq!((shown.next_attempt_at, shown.last_error), (None, None));
    assert_eq!((shown.created_at, shown.last_attempt_at), (EPOCH, Some(EPOCH)));
    assert_eq!((shown.delivered_at, shown.last_status_code), (Some(EPOCH), Some(200)));
    assert_eq!((shown.batch_id.as_deref(), shown.provider.as_deref()), (Some("batch_0"), Some("openai")));
    let outcomes: Vec<_> = store
        .attempts(first.pk)
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one.number, one.outcome.unwrap()))
        .collect();
    assert_eq!(
        outcomes,
        [(1, "http_503".to_owned()), (2, "http_503".to_owned()), (3, "delivered".to_owned())]
    );
    // A second end of the same attempt changes nothing.
    store.finish_attempt(begun[0].unwrap(), end(Next::Dead), off(false)).await.unwrap();
    assert_eq!(states(&store, "pipeline").await[0], DeliveryState::Delivered);
}

async fn long_answers_are_cut(stage: Stage) {
    let store = owing(&stage, 1, &["pipeline"]).await;
    let delivery = due(&store, "pipeline", 0).await[0];
    let attempt = store.begin_attempts(vec![delivery], EPOCH).await.unwrap()[0].unwrap();
    let end =
        AttemptEnd { excerpt: Some("ä".repeat(5000)), error: Some("x".repeat(5000)), ..end(Next::Dead) };
    store.finish_attempt(attempt, end, WebhookState::default()).await.unwrap();
    let attempt = store.attempts(delivery).await.unwrap().remove(0);
    assert_eq!(attempt.excerpt.unwrap(), "ä".repeat(1024));
    assert_eq!(attempt.error.unwrap().len(), 2048);
}

async fn watchers_wake_after_the_commit(stage: Stage) {
    let store = stage.open().await;
    let (mut events, mut deliveries) = (store.watch_events(), store.watch_deliveries("pipeline"));
    let mut others = store.watch_deliveries("ops");
    let pk = track(&store, "batch_1").await;
    assert!(!events.has_changed().unwrap() && !deliveries.has_changed().unwrap());
    see(&store, pk, Status::InProgress, 1, &[]).await;
    assert!(events.has_changed().unwrap() && !deliveries.has_changed().unwrap());
    assert_eq!(*events.borrow_and_update(), 1);
    see(&store, pk, Status::Completed, 1, &["pipeline"]).await;
    assert_eq!(*events.borrow_and_update(), 2);
    assert!(deliveries.has_changed().unwrap());
    deliveries.mark_unchanged();
    let delivery = due(&store, "pipeline", 0).await[0];
    deliver(&store, delivery, Next::Dead).await;
    assert!(!deliveries.has_changed().unwrap());
    assert_eq!(store.retry(vec![delivery], EPOCH).await.unwrap(), [true]);
    assert!(deliveries.has_changed().unwrap());
    // Nobody else is woken for that …
    assert!(!others.has_changed().unwrap());
    deliveries.mark_unchanged();
    deliver(&store, due(&store, "pipeline", 0).await[0], Next::Dead).await;
    assert_eq!(store.retry_dead(None, EPOCH).await.unwrap(), 1);
    assert!(deliveries.has_changed().unwrap() && !others.has_changed().unwrap());
    // … nor for what is held, and all are where the clock concerns all.
    deliveries.mark_unchanged();
    store.set_webhook_state("ops".to_owned(), off(true), EPOCH).await.unwrap();
    let other = track(&store, "batch_2").await;
    see(&store, other, Status::Completed, 2, &["ops"]).await;
    assert!(!deliveries.has_changed().unwrap() && !others.has_changed().unwrap());
    store.set_webhook_state("ops".to_owned(), WebhookState::default(), EPOCH).await.unwrap();
    assert!(!deliveries.has_changed().unwrap() && others.has_changed().unwrap());
    others.mark_unchanged();
    store.follow_step(EPOCH, Duration::from_hours(1)).await.unwrap();
    assert!(deliveries.has_changed().unwrap() && others.has_changed().unwrap());
    drop(store);
    let store = stage.open().await;
    assert_eq!(*store.watch_events().borrow(), 3);
}

async fn a_webhook_that_is_off_is_owed_and_not_sent_to(stage: Stage) {
    let store = owing(&stage, 3, &["pipeline", "ops"]).await;
    let first = due(&store, "pipeline", 0).await[0];
    // The receiver is gone: this one and all others are held, with the state, in one step.
    let attempt = store.begin_attempts(vec![first], EPOCH).await.unwrap()[0].unwrap();
    store.finish_attempt(attempt, end(Next::Hold), off(false)).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Held; 3]);
    assert_eq!(states(&store, "ops").await, [DeliveryState::Pending; 3]);
    assert_eq!(store.webhook_states().await.unwrap(), [("pipeline".to_owned(), off(false))]);
    // What comes now is held too, though the routes do not know yet.
    let pk = track(&store, "late").await;
    see(&store, pk, Status::Completed, 1, &["pipeline", "ops"]).await;
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Held; 4]);
    assert_eq!(store.retry(vec![first], EPOCH).await.unwrap(), [false]);
    // So it is after a restart.
    drop(store);
    let store = stage.open().await;
    assert!(due(&store, "pipeline", 99_999).await.is_empty());

    let mut deliveries = store.watch_deliveries("pipeline");
    deliveries.mark_unchanged();
    let on = WebhookState { last_success_at: Some(seconds(1)), ..WebhookState::default() };
    store.set_webhook_state("pipeline".to_owned(), on.clone(), seconds(7)).await.unwrap();
    assert!(deliveries.has_changed().unwrap());
    assert_eq!(due(&store, "pipeline", 7).await.len(), 4);
    assert!(due(&store, "pipeline", 6).await.is_empty());
    assert_eq!(store.webhook_states().await.unwrap(), [("pipeline".to_owned(), on)]);
}

async fn without_a_state_the_route_says_whether_it_is_off(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    let step = look(&unseen("batch_1"), Status::Completed, seconds(1));
    let disabled = Route { disabled: true, ..route("pipeline") };
    store.record(pk, step, Arc::new(Routes(vec![disabled]))).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Held]);
    store.align_webhooks(vec!["pipeline".to_owned()], EPOCH).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Pending]);
}

async fn an_attempt_that_ends_does_not_switch_a_webhook_on(stage: Stage) {
    let store = owing(&stage, 2, &["pipeline"]).await;
    let both = due(&store, "pipeline", 0).await;
    let begun = store.begin_attempts(both, EPOCH).await.unwrap();
    store.set_webhook_state("pipeline".to_owned(), off(true), EPOCH).await.unwrap();
    let healthy = WebhookState { failures: 3, ..WebhookState::default() };
    store.finish_attempt(begun[0].unwrap(), end(Next::Delivered), healthy.clone()).await.unwrap();
    store.finish_attempt(begun[1].unwrap(), end(again(5, true)), healthy).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Delivered, DeliveryState::Held]);
    let found = store.webhook_states().await.unwrap().remove(0).1;
    assert_eq!((found.disabled.as_deref(), found.by_hand, found.failures), (Some("410 Gone"), true, 3));
}

async fn a_receiver_that_is_gone_after_its_webhook_was_enabled_holds_nothing_under_an_enabled_webhook(
    stage: Stage,
) {
    let store = owing(&stage, 2, &["pipeline"]).await;
    let pks = due(&store, "pipeline", 0).await;
    let attempts = store.begin_attempts(pks, EPOCH).await.unwrap();
    let set = |state| store.set_webhook_state("pipeline".to_owned(), state, EPOCH);
    set(off(true)).await.unwrap();
    set(WebhookState::default()).await.unwrap();
    // What was under way before both is answered now, by daemons that know of the first only, or of neither.
    let [first, second] = attempts[..] else { panic!("two") };
    store.finish_attempt(first.unwrap(), end(Next::Delivered), off(true)).await.unwrap();
    let known = store.webhook_state("pipeline".to_owned()).await.unwrap();
    assert_eq!(known.disabled, None, "nobody but a person undoes what a person did");
    store.finish_attempt(second.unwrap(), end(Next::Hold), off(false)).await.unwrap();
    let held = "SELECT count(*) FROM deliveries JOIN webhooks ON name = webhook
        WHERE state = 'held' AND configured = 1 AND disabled IS NULL";
    assert_eq!(stage.number(held), 0);
    drop(store);
    stage.assert_sound();
}

async fn what_is_owed_to_a_webhook_that_is_gone_waits_for_it(stage: Stage) {
    let store = owing(&stage, 2, &["pipeline", "ops"]).await;
    let first = due(&store, "pipeline", 0).await[0];
    let attempt = store.begin_attempts(vec![first], EPOCH).await.unwrap()[0].unwrap();
    stage.serve(&store, &["ops"]).await;
    store.align_webhooks(vec!["ops".to_owned()], EPOCH).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Inflight, DeliveryState::Held]);
    assert_eq!(states(&store, "ops").await, [DeliveryState::Pending; 2]);
    // What was in flight ends, and is not tried again.
    store.finish_attempt(attempt, end(again(5, true)), WebhookState::default()).await.unwrap();
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Held; 2]);
    assert_eq!(store.retry(vec![first], EPOCH).await.unwrap(), [false]);

    store.set_webhook_state("ops".to_owned(), off(true), EPOCH).await.unwrap();
    store.align_webhooks(vec!["ops".to_owned(), "pipeline".to_owned()], seconds(9)).await.unwrap();
    assert_eq!(due(&store, "pipeline", 9).await.len(), 2);
    assert_eq!(states(&store, "ops").await, [DeliveryState::Held; 2], "switched off, though configured");
}

async fn f10_f11_anything_but_what_is_under_way_can_be_sent_again(stage: Stage) {
    let store = owing(&stage, 4, &["pipeline"]).await;
    let pks = due(&store, "pipeline", 0).await;
    let ids: Vec<_> = all(&store).await.into_iter().rev().map(|delivery| delivery.event_id).collect();
    deliver(&store, pks[0], Next::Delivered).await;
    deliver(&store, pks[1], Next::Dead).await;
    deliver(&store, pks[2], again(3600, true)).await;
    store.begin_attempts(vec![pks[3]], EPOCH).await.unwrap();
    let mut asked = pks.clone();
    asked.push(999);
    assert_eq!(store.retry(asked, seconds(1)).await.unwrap(), [true, true, true, false, false]);
    let found = store.due("pipeline".to_owned(), seconds(1), 9).await.unwrap();
    assert_eq!(found.iter().map(|due| due.pk).collect::<Vec<_>>(), pks[..3]);
    assert!(found.iter().all(|due| due.attempts == 0), "a new budget");
    assert_eq!(found.iter().map(|due| due.event_id.as_str()).collect::<Vec<_>>(), ids[..3], "the same ids");
    deliver(&store, pks[0], Next::Delivered).await;
    let attempts = store.attempts(pks[0]).await.unwrap();
    assert_eq!((attempts[1].number, attempts[1].trigger), (2, Trigger::Manual));

    deliver(&store, pks[1], Next::Dead).await;
    assert_eq!(store.retry_dead(Some("ops".to_owned()), EPOCH).await.unwrap(), 0);
    assert_eq!(store.retry_dead(Some("pipeline".to_owned()), EPOCH).await.unwrap(), 1);
    deliver(&store, pks[1], Next::Dead).await;
    assert_eq!(store.retry_dead(None, EPOCH).await.unwrap(), 1);
    assert_eq!(store.retry_dead(None, EPOCH).await.unwrap(), 0);
}

async fn a3_what_was_in_flight_when_the_process_died_is_due_at_start(stage: Stage) {
    let mut store = owing(&stage, 1, &["pipeline"]).await;
    let delivery = due(&store, "pipeline", 0).await[0];
    // Some crashes may be anybody's fault.
    for _ in 0..2 {
        store.begin_attempts(vec![delivery], EPOCH).await.unwrap();
        drop(store);
        store = stage.open().await;
        assert_eq!(due(&store, "pipeline", 0).await, [delivery]);
    }
    let attempts = store.attempts(delivery).await.unwrap();
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        assert_eq!((attempt.outcome.as_deref(), attempt.finished_at), (Some("unknown_crash"), None));
        let expected = if attempt.number == 1 { Trigger::Schedule } else { Trigger::Startup };
        assert_eq!(attempt.trigger, expected);
    }
    // One that ends, whatever way, clears the suspicion.
    deliver(&store, delivery, again(0, true)).await;
    for _ in 0..2 {
        store.begin_attempts(vec![delivery], EPOCH).await.unwrap();
        drop(store);
        store = stage.open().await;
        assert_eq!(due(&store, "pipeline", 0).await, [delivery]);
    }
    drop(store);
    stage.assert_sound();
}

/// The daemon dies at `at` while these are under way; then it starts again.
async fn die(store: Store, stage: &Stage, inflight: &[Pk], at: i64) -> Store {
    let begun = store.begin_attempts(inflight.to_vec(), seconds(at)).await.unwrap();
    assert!(begun.iter().all(Option::is_some));
    drop(store);
    stage.open_at(seconds(at)).await
}

async fn suspect(store: &Store, at: i64) -> Option<Pk> {
    store.suspect("pipeline".to_owned(), seconds(at)).await.unwrap().map(|due| due.pk)
}

async fn a11_what_three_processes_died_of_is_set_apart_and_given_up_after_three_deaths_alone(stage: Stage) {
    let mut store = owing(&stage, 3, &["pipeline"]).await;
    let pks = due(&store, "pipeline", 0).await;
    for _ in 0..3 {
        store = die(store, &stage, &pks[..2], 0).await;
    }
    assert_eq!(due(&store, "pipeline", 9999).await, pks[2..], "set apart");
    assert_eq!((suspect(&store, 59).await, suspect(&store, 60).await), (None, Some(pks[0])));
    // With company it may have been the company.
    store = die(store, &stage, &[pks[0], pks[2]], 60).await;
    assert_eq!(states(&store, "pipeline").await, [DeliveryState::Pending; 3]);
    // A receiver that took the other clears it.
    deliver(&store, pks[1], Next::Delivered).await;
    for (at, wait) in [(120, 600), (720, 3600)] {
        store = die(store, &stage, &pks[..1], at).await;
        assert_eq!(suspect(&store, at + wait - 1).await, None, "it waits, over a restart too");
        assert_eq!(suspect(&store, at + wait).await, Some(pks[0]));
    }
    assert_eq!(store.given_up("pipeline".to_owned()).await.unwrap(), None);
    store = die(store, &stage, &pks[..1], 4320).await;
    let [dead, delivered, pending] = states(&store, "pipeline").await[..] else { panic!() };
    assert_eq!(
        (dead, delivered, pending),
        (DeliveryState::Dead, DeliveryState::Delivered, DeliveryState::Pending)
    );
    let shown = all(&store).await.pop().unwrap();
    assert!(shown.last_error.unwrap().starts_with("crash_loop"));
    assert_eq!(
        (suspect(&store, 99_999).await, due(&store, "pipeline", 4320).await),
        (None, pks[2..].to_vec())
    );
    let given_up = store.given_up("pipeline".to_owned()).await.unwrap().unwrap();
    assert_eq!((given_up.count, given_up.since, given_up.last.pk), (1, seconds(4320), pks[0]));
    // By hand it is sent again, as if nothing had been.
    assert_eq!(store.retry(vec![pks[0]], seconds(4320)).await.unwrap(), [true]);
    assert_eq!(due(&store, "pipeline", 4320).await.len(), 2);
    assert_eq!(store.given_up("pipeline".to_owned()).await.unwrap(), None, "nothing to tell any more");
    drop(store);
    stage.assert_sound();
}

async fn a10_a_suspect_that_ends_once_is_none_any_more_and_a_stop_is_no_death(stage: Stage) {
    let mut store = owing(&stage, 1, &["pipeline"]).await;
    let pk = due(&store, "pipeline", 0).await[0];
    for _ in 0..5 {
        // Told to stop while it was under way, and killed before it had ended.
        store.begin_attempts(vec![pk], EPOCH).await.unwrap();
        store.expect_stop("pipeline".to_owned()).await.unwrap();
        drop(store);
        store = stage.open().await;
        assert_eq!(due(&store, "pipeline", 0).await, [pk], "no death");
    }
    // What ends while the daemon stops is recorded as ever.
    let attempt = store.begin_attempts(vec![pk], EPOCH).await.unwrap()[0].unwrap();
    store.expect_stop("pipeline".to_owned()).await.unwrap();
    store.finish_attempt(attempt, end(again(0, true)), WebhookState::default()).await.unwrap();
    assert_eq!(store.attempts(pk).await.unwrap().pop().unwrap().outcome.as_deref(), Some("http_503"));
    for at in [0, 0, 0, 60, 660] {
        store = die(store, &stage, &[pk], at).await;
    }
    assert_eq!(suspect(&store, 4260).await, Some(pk));
    let attempt = store.begin_attempts(vec![pk], seconds(4260)).await.unwrap()[0].unwrap();
    store.finish_attempt(attempt, end(again(0, true)), WebhookState::default()).await.unwrap();
    assert_eq!(due(&store, "pipeline", 4260).await, [pk], "among the others again");
    drop(store);
    stage.assert_sound();
}

async fn e2_a_clock_that_is_set_forward_shortens_no_wait_that_had_begun(stage: Stage) {
    let store = owing(&stage, 3, &["pipeline"]).await;
    let pks = due(&store, "pipeline", 0).await;
    deliver(&store, pks[0], again(5, true)).await;
    // Five days at once, two seconds after that; and a wait that begins when the clock has been set already.
    let days = 5 * 86_400;
    let attempt = store.begin_attempts(vec![pks[1]], seconds(2)).await.unwrap()[0].unwrap();
    let next =
        Next::Again { at: seconds(days + 7), wait: Duration::from_secs(5), counts: true, plain: false };
    store.finish_attempt(attempt, end(next), WebhookState::default()).await.unwrap();
    store.follow_step(seconds(2), Duration::from_secs(days.unsigned_abs())).await.unwrap();
    assert_eq!(due(&store, "pipeline", days + 2).await, pks[2..], "what was due stays due");
    assert_eq!(due(&store, "pipeline", days + 5).await, [pks[2], pks[0]]);
    assert_eq!(due(&store, "pipeline", days + 7).await, [pks[2], pks[0], pks[1]]);
}

async fn e1_a_clock_that_is_set_back_lengthens_no_wait(stage: Stage) {
    let store = owing(&stage, 2, &["pipeline"]).await;
    let pks = due(&store, "pipeline", 0).await;
    deliver(&store, pks[0], again(5, true)).await;
    deliver(&store, pks[1], again(3600, true)).await;
    assert_eq!(store.next_due("pipeline".to_owned(), seconds(1)).await.unwrap(), Some(seconds(5)));
    // While it runs: an hour back. Asking again and again must not begin the wait again and again.
    for asked in [-3600, -3599, -3598] {
        assert_eq!(
            store.next_due("pipeline".to_owned(), seconds(asked)).await.unwrap(),
            Some(seconds(-3595))
        );
    }
    assert_eq!(due(&store, "pipeline", -3595).await, [pks[0]]);
    assert_eq!(due(&store, "pipeline", 0).await, pks);
    // Forward again, everything is due, and nothing is lost.
    assert_eq!(due(&store, "pipeline", 999_999).await.len(), 2);

    // Across a restart: ten days back.
    deliver(&store, pks[0], again(5, true)).await;
    drop(store);
    let store = stage.open_at(seconds(-864_000)).await;
    assert_eq!(
        store.next_due("pipeline".to_owned(), seconds(-864_000)).await.unwrap(),
        Some(seconds(-863_995))
    );
    assert_eq!(due(&store, "pipeline", -863_995).await, [pks[0]]);
}

async fn deliveries_are_listed_newest_first_filtered_and_paged(stage: Stage) {
    let store = owing(&stage, 5, &["pipeline", "ops"]).await;
    let pks = due(&store, "pipeline", 0).await;
    deliver(&store, pks[0], Next::Delivered).await;
    deliver(&store, pks[1], Next::Dead).await;
    let list = |filter: DeliveryFilter| {
        let store = store.clone();
        async move {
            let (found, more) = store.deliveries(filter).await.unwrap();
            (found.into_iter().map(|delivery| delivery.pk).collect::<Vec<_>>(), more)
        }
    };
    let any = DeliveryFilter::default;
    let everything: Vec<_> = (1..=10).rev().collect();
    assert_eq!(list(any()).await, (everything, false));
    assert_eq!(list(DeliveryFilter { limit: Some(2), after: Some(9), ..any() }).await, (vec![8, 7], true));
    assert_eq!(list(DeliveryFilter { webhook: Some("ops".to_owned()), ..any() }).await.0, [10, 8, 6, 4, 2]);
    for (state, expected) in [
        (DeliveryState::Delivered, vec![pks[0]]),
        (DeliveryState::Dead, vec![pks[1]]),
        (DeliveryState::Held, vec![]),
        (DeliveryState::Pending, vec![10, 9, 8, 7, 6, 5, 4, 2]),
    ] {
        assert_eq!(list(DeliveryFilter { state: Some(state), ..any() }).await.0, expected, "{state:?}");
    }
    let batch = DeliveryFilter { batch: Some(key("batch_1")), webhook: Some("ops".to_owned()), ..any() };
    assert_eq!(list(batch).await.0, [4]);

    let backlogs: BTreeMap<_, _> = store.backlogs().await.unwrap().into_iter().collect();
    assert_eq!(backlogs["ops"], Backlog { counts: vec![(DeliveryState::Pending, 5)], oldest: Some(EPOCH) });
    assert_eq!(backlogs["pipeline"].counts, [(DeliveryState::Dead, 1), (DeliveryState::Pending, 3)]);
}

async fn h10_an_end_waits_for_its_beginning_and_for_no_other(stage: Stage) {
    let store = stage.open().await;
    for (number, statuses) in [(1, &[Status::InProgress, Status::Completed][..]), (2, &[Status::Completed])] {
        let pk = track(&store, &format!("batch_{number}")).await;
        for status in statuses {
            see(&store, pk, *status, 1, &["pager", "other"]).await;
        }
    }
    let in_order = async |at| {
        let due = store.due_in_order("pager".to_owned(), seconds(at), 9).await.unwrap();
        due.into_iter().map(|due| due.pk).collect::<Vec<_>>()
    };
    let pks = due(&store, "pager", 0).await;
    assert_eq!(in_order(0).await, [pks[0], pks[2]]);
    // It is under way, and then it waits to be tried again: still it is not overtaken.
    deliver(&store, pks[0], again(30, true)).await;
    assert_eq!(in_order(5).await, [pks[2]]);
    assert_eq!(in_order(30).await, [pks[2], pks[0]]);
    deliver(&store, pks[0], Next::Delivered).await;
    assert_eq!(in_order(5).await, [pks[1], pks[2]]);
    // What was given up keeps nobody waiting.
    let other = due(&store, "other", 0).await;
    deliver(&store, other[0], Next::Dead).await;
    assert_eq!(store.due_in_order("other".to_owned(), EPOCH, 9).await.unwrap().len(), 2);
}

async fn purging_takes_what_is_in_flight_along(stage: Stage) {
    let store = owing(&stage, 1, &["pipeline"]).await;
    let delivery = due(&store, "pipeline", 0).await[0];
    let attempt = store.begin_attempts(vec![delivery], EPOCH).await.unwrap()[0].unwrap();
    store.purge(1).await.unwrap();
    store.finish_attempt(attempt, end(Next::Delivered), WebhookState::default()).await.unwrap();
    assert!(all(&store).await.is_empty() && store.attempts(delivery).await.unwrap().is_empty());
    drop(store);
    assert_eq!(stage.dump(&TABLES), [] as [String; 0]);
}

#[test]
fn words_of_states_are_those_of_the_contract() {
    let words = DeliveryState::ALL.map(DeliveryState::as_str);
    assert_eq!(words, ["pending", "inflight", "delivered", "dead", "held"]);
    assert!(DeliveryState::ALL.iter().all(|state| DeliveryState::from_word(state.as_str()) == Some(*state)));
    assert_eq!(DeliveryState::from_word("Dead"), None);
}
