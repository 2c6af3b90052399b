//! What is done for many at once gives what it gives one by one, and one that cannot be written is refused alone.

use super::stage::{Stage, on_both};
use super::*;
use batchd::store::StoreError;
use batchd::store::jobs::JobRun;
use batchd::store::outbox::{AttemptEnd, Next, WebhookState};
use futures_util::future::join_all;
use std::time::Duration;

on_both! {
    checks_together_give_what_they_give_one_by_one,
    registrations_together_give_what_they_give_one_by_one,
    attempts_together_give_what_they_give_one_by_one,
    an_end_told_with_its_beginning_comes_to_whom_was_told_of_that,
}

/// The tables that everything here writes.
const WRITTEN: [&str; 9] = [
    "batches",
    "checks",
    "transitions",
    "events",
    "fences",
    "deliveries",
    "attempts",
    "classes",
    "durations",
];

/// The same on a state of its own of the same kind.
fn another(stage: &Stage) -> Stage {
    if stage.is_on_server() { Stage::server().unwrap() } else { Stage::file() }
}

/// Steps from what is stored, some of the same batch, some that have been overtaken, in an order by `seed`.
async fn steps(store: &Store, pks: &[Pk], seed: u64) -> Vec<(Pk, Step)> {
    let mut draws = fastrand::Rng::with_seed(seed);
    let mut steps = Vec::new();
    for _ in 0..pks.len() * 2 {
        let pk = pks[draws.usize(..pks.len())];
        let before = store.load(pk).await.unwrap().unwrap();
        let status =
            [Status::InProgress, Status::Completed, Status::Failed, Status::Cancelled][draws.usize(..4)];
        let mut step = look(&before, status, seconds(draws.i64(1..1000)));
        step.tracked.batch.model = Some(format!("model-{}", draws.u8(..3)));
        step.tracked.batch.completed_at =
            (status == Status::Completed).then(|| EPOCH.as_second() + draws.i64(1..1000));
        steps.push((pk, step));
    }
    steps
}

async fn checks_together_give_what_they_give_one_by_one(stage: Stage) {
    for seed in 0..3 {
        let (together, apart) = (another(&stage), another(&stage));
        let mut gave = Vec::new();
        for (stage, at_once) in [(&together, true), (&apart, false)] {
            let store = stage.open().await;
            let mut pks = Vec::new();
            for number in 0..20 {
                pks.push(track(&store, &format!("batch_{number}")).await);
            }
            let steps = steps(&store, &pks, seed).await;
            let record = |(pk, step): (Pk, Step)| store.record(pk, step, routes(&["pipeline", "ops"]));
            if at_once {
                gave.push(join_all(steps.into_iter().map(record)).await);
            } else {
                let mut each = Vec::new();
                for step in steps {
                    each.push(record(step).await);
                }
                gave.push(each);
            }
            store.close().await.unwrap();
            stage.assert_sound();
        }
        assert_eq!(gave[0], gave[1], "{seed}");
        assert_eq!(together.dump(&WRITTEN), apart.dump(&WRITTEN), "{seed}");
    }
}

async fn registrations_together_give_what_they_give_one_by_one(stage: Stage) {
    let items = || {
        let mut draws = fastrand::Rng::with_seed(7);
        let mut items = Vec::new();
        for _ in 0..60 {
            let mut item = registration(&format!("batch_{}", draws.u8(..40)));
            if draws.bool() {
                let status = [Status::InProgress, Status::Completed][draws.usize(..2)];
                item.first_look = Some(look(&item.tracked, status, seconds(5)));
            }
            if draws.bool() {
                item.user_fields.name = Some(format!("name {}", draws.u8(..5)));
            }
            items.push(item);
        }
        items
    };
    let (together, apart) = (another(&stage), another(&stage));
    let mut gave = Vec::new();
    for (stage, at_once) in [(&together, true), (&apart, false)] {
        let store = stage.open().await;
        let items = items();
        let mut each = Vec::new();
        if at_once {
            each = store.register(items, routes(&["pipeline"])).await.unwrap();
        } else {
            for item in items {
                each.extend(store.register(vec![item], routes(&["pipeline"])).await.unwrap());
            }
        }
        gave.push(each.into_iter().map(|of| (of.pk, of.new, of.tracked)).collect::<Vec<_>>());
        store.close().await.unwrap();
        stage.assert_sound();
    }
    assert_eq!(gave[0], gave[1]);
    assert!(gave[0].iter().any(|(_, new, _)| !new), "some come twice");
    assert_eq!(together.dump(&WRITTEN), apart.dump(&WRITTEN));
}

async fn attempts_together_give_what_they_give_one_by_one(stage: Stage) {
    const WEBHOOKS: [&str; 3] = ["pipeline", "ops", "pager"];
    let (together, apart) = (another(&stage), another(&stage));
    for (stage, at_once) in [(&together, true), (&apart, false)] {
        let store = stage.open().await;
        for number in 0..6 {
            let pk = track(&store, &format!("batch_{number}")).await;
            see(&store, pk, Status::Completed, 1, &WEBHOOKS).await;
        }
        let mut due = Vec::new();
        for webhook in WEBHOOKS {
            let found = store.due(webhook.to_owned(), EPOCH, 100).await.unwrap();
            due.push(found.into_iter().map(|due| due.pk).collect::<Vec<_>>());
        }
        // One delivery is begun by two.
        due.push(due[0][..1].to_vec());
        let mut begun = Vec::new();
        if at_once {
            begun = join_all(due.into_iter().map(|pks| store.begin_attempts(pks, EPOCH))).await;
        } else {
            for pks in due {
                begun.push(store.begin_attempts(pks, EPOCH).await);
            }
        }
        let begun: Vec<Vec<Option<Pk>>> = begun.into_iter().map(Result::unwrap).collect();
        assert_eq!(begun[3], [None], "it was begun before");
        let ends: Vec<_> = begun
            .into_iter()
            .flatten()
            .flatten()
            .enumerate()
            .map(|(at, attempt)| ended(at, attempt))
            .collect();
        let finish = |(attempt, end, state)| store.finish_attempt(attempt, end, state);
        if at_once {
            join_all(ends.into_iter().map(finish)).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        } else {
            for end in ends {
                finish(end).await.unwrap();
            }
        }
        store.close().await.unwrap();
        stage.assert_sound();
    }
    let tables = ["deliveries", "attempts", "webhooks"];
    assert_eq!(together.dump(&tables), apart.dump(&tables));
    assert!(together.number("SELECT count(*) FROM deliveries WHERE state = 'held'") > 0);
}

/// How the attempt number `at` ends: some are taken, some are to be made again, one switches its webhook off.
fn ended(at: usize, attempt: Pk) -> (Pk, AttemptEnd, WebhookState) {
    let wait = Duration::from_mins(1);
    let again =
        Next::Again { at: seconds(60), wait, counts: at.is_multiple_of(2), plain: at.is_multiple_of(3) };
    let next = match at {
        8 => Next::Hold,
        _ if at % 4 == 1 => again,
        _ if at % 4 == 2 => Next::Dead,
        _ => Next::Delivered,
    };
    let end = AttemptEnd {
        at: EPOCH,
        outcome: if next == Next::Delivered { "delivered" } else { "http_503" }.to_owned(),
        http_status: Some(if next == Next::Delivered { 200 } else { 503 }),
        error: (next != Next::Delivered).then(|| format!("refusal {at}")),
        excerpt: None,
        next,
    };
    let disabled = (next == Next::Hold).then(|| "410 Gone".to_owned());
    (attempt, end, WebhookState { disabled, failures: u32::try_from(at).unwrap(), ..WebhookState::default() })
}

/// One check that shows a finding and its end at once: who wants the finding alone is told of its end.
async fn an_end_told_with_its_beginning_comes_to_whom_was_told_of_that(stage: Stage) {
    use batchd::domain::event::Occurrence;
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    let before = store.load(pk).await.unwrap().unwrap();
    let mut step = look(&before, Status::Completed, seconds(10));
    step.events.insert(0, Occurrence::finding(EventType::BatchStalled, EPOCH, seconds(9)));
    let mut of_findings = route("ops");
    of_findings.events = [EventType::BatchStalled].into();
    let routes = Arc::new(Routes(vec![of_findings]));
    assert_eq!(store.record(pk, step, routes).await.unwrap(), 2);
    let owed = stage.rows("SELECT type FROM deliveries JOIN events USING (sequence) ORDER BY sequence");
    assert_eq!(owed.concat(), ["batch.stalled", "batch.completed"].map(|kind| Some(kind.to_owned())));
}

/// Text that no index of the server takes: an entry holds 2,704 bytes, and this cannot be made shorter.
fn too_long() -> String {
    let mut draws = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| draws.alphanumeric()).take(6000).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_written_is_refused_alone_of_500() {
    const COUNT: usize = 500;
    let Some(stage) = Stage::server() else { return };
    let store = stage.open().await;
    let items = (0..COUNT).map(|number| registration(&format!("batch_{number}"))).collect();
    let registered = store.register(items, routes(&[])).await.unwrap();
    let record = |(at, of): (usize, &batchd::store::recording::Registered)| {
        let mut step = look(&of.tracked, Status::Completed, seconds(10));
        if at == 250 {
            // What has an end teaches how long its model takes, by an index of models.
            step.tracked.batch.completed_at = Some(EPOCH.as_second() + 10);
            step.tracked.batch.model = Some(too_long());
        }
        store.record(of.pk, step, routes(&["pipeline"]))
    };
    let before = store.commit_stats().count;
    let recorded = join_all(registered.iter().enumerate().map(record)).await;
    assert!(store.commit_stats().count - before < 10, "they were written together");
    for (at, recorded) in recorded.into_iter().enumerate() {
        match recorded {
            Ok(1) if at != 250 => {}
            Err(StoreError::Internal(why)) if at == 250 => assert!(why.contains("index row"), "{why}"),
            odd => panic!("{at}: {odd:?}"),
        }
    }
    assert_eq!(stage.number("SELECT count(*) FROM events"), 499);
    assert_eq!(stage.number("SELECT max(sequence) FROM events"), 499, "without a gap");
    assert_eq!(stage.number("SELECT count(*) FROM deliveries"), 499);
    assert_eq!(stage.number("SELECT count(*) FROM batches WHERE status = 'completed'"), 499);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nobody_waited_for_fails_the_operation_that_it_belongs_to() {
    let Some(stage) = Stage::server() else { return };
    let store = stage.open().await;
    let run = |name: String| JobRun { name, started_at: EPOCH, finished_at: EPOCH, error: None };
    let named = |at: usize| if at == 20 { too_long() } else { format!("job-{at}") };
    let written = join_all((0..40).map(|at| store.set_job_run(run(named(at))))).await;
    for (at, written) in written.into_iter().enumerate() {
        assert_eq!(written.is_ok(), at != 20, "{at}: {written:?}");
    }
    assert_eq!(stage.number("SELECT count(*) FROM jobs WHERE name LIKE 'job-%'"), 39);
    store.close().await.unwrap();
}
