//! The schedule in memory follows from what is committed, whatever becomes of who asked; what is lost all the same is
//! found within a minute.

use crate::simulation::{DAY, EPOCH, Life, MINUTE, World, account, answer, is};
use batchd::config::Polling;
use batchd::domain::batch::Usage;
use batchd::domain::cost::Told;
use batchd::domain::event::EventType;
use batchd::domain::route::Routes;
use batchd::domain::status::Status;
use batchd::domain::time::{later, since};
use batchd::domain::tracked::{Origin, Tracked};
use batchd::domain::user_fields::UserFields;
use batchd::http::call::{Answer, Call};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::store::recording::Registration;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type Script = dyn Fn(&str, usize) -> Answer + Send + Sync;

/// A provider without a list that takes its time; `script` is told the id and how often it was asked for before.
struct Provider {
    clock: batchd::clock::Clock,
    takes: Duration,
    script: Box<Script>,
    asked: Mutex<BTreeMap<String, Vec<Duration>>>,
}

impl Provider {
    fn new(
        world: &World,
        takes: Duration,
        script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        let clock = world.clock.clone();
        Arc::new(Self { clock, takes, script: Box::new(script), asked: Mutex::default() })
    }

    /// When it was asked for `id`, from the world's beginning on.
    fn asked(&self, id: &str) -> Vec<Duration> {
        self.asked.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

impl Transport for Provider {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let id = call.request.uri().path().rsplit('/').next().unwrap().to_owned();
            if id == "batches" {
                return Ok(answer(404, &json!({"error": {"message": "no"}})));
            }
            let before = {
                let mut asked = self.asked.lock().unwrap();
                let asked = asked.entry(id.clone()).or_default();
                asked.push(since(EPOCH, self.clock.now()));
                asked.len() - 1
            };
            tokio::time::sleep(self.takes).await;
            Ok((self.script)(&id, before))
        })
    }
}

async fn alive(world: &World, provider: &Arc<Provider>) -> Life {
    world.live(&[("openai", provider.clone() as _, Polling::default())]).await
}

fn repaired(life: &Life) -> u64 {
    life.engine.snapshot()[0].repaired
}

fn active(life: &Life) -> u64 {
    life.engine.snapshot()[0].active
}

/// A second connection to the state, for faults.
fn fault(world: &World, sql: &str) {
    let connection = rusqlite::Connection::open(world.state().join("batchd.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_memory_has_lost_is_polled_within_a_minute_and_counted() {
    let world = World::new(101);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    life.track_one("batch_known", world.clock.now()).await;
    // From here on memory hears nothing of what is committed.
    life.store.watch_schedule(|_| {});
    life.track_one("batch_lost", world.clock.now()).await;
    tokio::time::sleep(MINUTE).await;
    let asked = provider.asked("batch_lost");
    assert!(!asked.is_empty(), "not found within a minute");
    assert_eq!((repaired(&life), active(&life)), (1, 2));
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked("batch_lost").len() > 2, "it goes on as if nothing had been");
    assert_eq!(repaired(&life), 1, "what is known is left alone");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_on_the_schedule_and_should_not_be_goes_without_being_asked_for() {
    let world = World::new(102);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    for id in ["batch_purged", "batch_untracked"] {
        life.track_one(id, world.clock.now()).await;
    }
    // By then the next check is more than a minute away.
    tokio::time::sleep(Duration::from_hours(12)).await;
    life.store.watch_schedule(|_| {});
    let purged = life.batch("batch_purged").await.0;
    let untracked = life.batch("batch_untracked").await.0;
    let before = (provider.asked("batch_purged").len(), provider.asked("batch_untracked").len());
    life.store.purge(purged).await.unwrap();
    life.store.untrack(untracked, world.clock.now()).await.unwrap();
    assert_eq!(active(&life), 2);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(active(&life), 0);
    tokio::time::sleep(DAY).await;
    let after = (provider.asked("batch_purged").len(), provider.asked("batch_untracked").len());
    assert_eq!(after, before, "not asked for once more");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asked_may_go_between_the_commit_and_the_answer() {
    let world = World::new(103);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    {
        let mut registering = Box::pin(life.track_one("batch_1", world.clock.now()));
        assert!(futures_util::poll!(&mut registering).is_pending());
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(provider.asked("batch_1").len(), 1);
    assert_eq!(repaired(&life), 0, "it is no repair: the commit itself tells");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_untracking_fails_stays_on_the_schedule() {
    let world = World::new(104);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(SECOND).await;
    let (pk, _) = life.batch("batch_1").await;
    fault(
        &world,
        "CREATE TRIGGER fault BEFORE UPDATE OF untracked_at ON batches BEGIN SELECT RAISE(ABORT, 'no'); END;
         CREATE TRIGGER fault_too BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'no'); END;",
    );
    life.store.untrack(pk, world.clock.now()).await.unwrap_err();
    life.store.purge(pk).await.unwrap_err();
    assert_eq!(active(&life), 1);
    let before = provider.asked("batch_1").len();
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked("batch_1").len() > before);
    fault(&world, "DROP TRIGGER fault; DROP TRIGGER fault_too;");
    life.store.untrack(pk, world.clock.now()).await.unwrap();
    assert_eq!((active(&life), repaired(&life)), (0, 0));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_written_is_had_again() {
    let world = World::new(105);
    let provider = Provider::new(&world, Duration::ZERO, |id, asked| {
        is(id, if asked == 0 { "in_progress" } else { "completed" })
    });
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(SECOND).await;
    fault(
        &world,
        "CREATE TRIGGER fault BEFORE UPDATE OF status ON batches BEGIN SELECT RAISE(ABORT, 'no'); END;",
    );
    tokio::time::sleep(MINUTE).await;
    assert!(provider.asked("batch_1").len() > 2);
    assert_eq!((active(&life), life.batch("batch_1").await.1.batch.status), (1, Status::InProgress));
    fault(&world, "DROP TRIGGER fault;");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(life.batch("batch_1").await.1.batch.status, Status::Completed);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_panics_costs_its_batch_nothing_but_time() {
    let world = World::new(106);
    let provider = Provider::new(&world, Duration::ZERO, |id, asked| {
        assert!(asked > 0, "the first poll panics");
        is(id, "in_progress")
    });
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(MINUTE).await;
    assert!(provider.asked("batch_1").len() > 1);
    assert_eq!(life.batch("batch_1").await.1.batch.status, Status::InProgress);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_while_the_pollers_change_is_neither_lost_nor_undone() {
    let world = World::new(107);
    let provider = Provider::new(&world, 20 * SECOND, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    for id in ["batch_slow", "batch_gone"] {
        life.track_one(id, world.clock.now()).await;
    }
    tokio::time::sleep(35 * SECOND).await;
    // A poll is under way: the successor has not begun yet.
    life.engine.nudge("openai", life.batch("batch_slow").await.0);
    tokio::time::sleep(SECOND).await;
    let accounts = vec![account("openai", provider.clone() as _, Polling::default())];
    life.engine.apply(accounts, Routes::default()).await.unwrap();
    life.track_one("batch_new", world.clock.now()).await;
    let gone = life.batch("batch_gone").await.0;
    life.store.untrack(gone, world.clock.now()).await.unwrap();
    assert_eq!(provider.asked("batch_new").len(), 0, "this test is about the time in between");
    let before = provider.asked("batch_gone").len();
    tokio::time::sleep(MINUTE).await;
    assert!(!provider.asked("batch_new").is_empty());
    tokio::time::sleep(20 * MINUTE).await;
    assert!(provider.asked("batch_gone").len() <= before + 1, "a poll that was under way at most");
    assert!(provider.asked("batch_slow").len() > 2);
    assert_eq!((active(&life), repaired(&life)), (2, 0));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_read_leaves_the_accounts_as_they_were() {
    let world = World::new(108);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(SECOND).await;
    let accounts = || {
        Vec::from(["openai", "second"].map(|name| account(name, provider.clone() as _, Polling::default())))
    };
    for (broken, mended) in [
        ("ALTER TABLE providers RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO providers"),
        (
            "ALTER TABLE checks RENAME COLUMN created_at TO elsewhere",
            "ALTER TABLE checks RENAME COLUMN elsewhere TO created_at",
        ),
    ] {
        fault(&world, broken);
        life.engine.apply(accounts(), Routes::default()).await.unwrap_err();
        let names: Vec<String> = life.engine.snapshot().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["openai"], "{broken}");
        fault(&world, mended);
        let before = provider.asked("batch_1").len();
        tokio::time::sleep(20 * MINUTE).await;
        assert!(provider.asked("batch_1").len() > before, "polled as before: {broken}");
    }
    life.engine.apply(accounts(), Routes::default()).await.unwrap();
    assert_eq!(life.engine.snapshot().len(), 2);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_keeps_what_was_written_to_its_batch_while_it_was_under_way() {
    let world = World::new(109);
    let provider = Provider::new(&world, 20 * SECOND, |id, asked| {
        is(id, if asked == 0 { "validating" } else { "in_progress" })
    });
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(25 * SECOND).await;
    let (pk, before) = life.batch("batch_1").await;
    let meanwhile = async {
        tokio::time::sleep(5 * SECOND).await;
        let usage: Usage = serde_json::from_value(json!({
            "input_tokens": 7, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
        }))
        .unwrap();
        life.store.set_usage(before.key.clone(), Told { usage, ..Told::default() }).await.unwrap();
        let user_fields = UserFields {
            name: Some("nightly".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "evals".to_owned())]),
            deadline: Some(later(world.clock.now(), 40 * SECOND)),
            ..UserFields::default()
        };
        let tracked = Tracked::new(before.key.clone(), "openai", "", Origin::Hand, world.clock.now());
        let item = Registration { tracked, first_look: None, user_fields };
        life.store.register(vec![item], Arc::default()).await.unwrap();
    };
    tokio::join!(life.engine.poll_now("openai", pk), meanwhile).0.unwrap();
    let (_, after) = life.batch("batch_1").await;
    assert_eq!(after.batch.status, Status::InProgress);
    assert_eq!(after.batch.usage.as_ref().map(|usage| usage.total_tokens), Some(10));
    assert_eq!(after.name.as_deref(), Some("nightly"));
    assert_eq!(after.labels["team"], "evals");
    assert!(after.deadline.is_some());
    // The deadline is heeded, although the poll had planned without it.
    tokio::time::sleep(2 * MINUTE).await;
    let told = life.told().await;
    assert_eq!(told.iter().filter(|kind| **kind == EventType::BatchOverdue).count(), 1, "{told:?}");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_be_left_alone_outlives_a_restart() {
    let world = World::new(110);
    let provider = Provider::new(&world, Duration::ZERO, |id, asked| {
        if asked > 0 {
            return is(id, "in_progress");
        }
        let mut refusal = answer(429, &json!({"error": {"message": "slow down"}}));
        refusal.headers.insert("retry-after", HeaderValue::from_static("3600"));
        refusal
    });
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(SECOND).await;
    let held = life.engine.held_until("openai").unwrap();
    life.end().await;
    let life = alive(&world, &provider).await;
    assert_eq!(life.engine.held_until("openai"), Some(held));
    life.track_one("batch_2", world.clock.now()).await;
    tokio::time::sleep(59 * MINUTE).await;
    assert_eq!((provider.asked("batch_1").len(), provider.asked("batch_2").len()), (1, 0));
    tokio::time::sleep(2 * MINUTE).await;
    assert!(provider.asked("batch_1").len() > 1 && !provider.asked("batch_2").is_empty());
    life.end().await;

    // Whatever the database says, no longer than a server may ask for now.
    let forever = later(world.clock.now(), 30 * DAY);
    let store = batchd::store::Store::open(world.state(), world.clock.clone()).unwrap();
    let mut state = store.provider_states().await.unwrap().pop().unwrap().1;
    state.held_until = Some(forever);
    store.set_provider_state("openai".to_owned(), state, Vec::new(), Arc::default()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let life = alive(&world, &provider).await;
    let held = life.engine.held_until("openai").unwrap();
    assert!(since(world.clock.now(), held) <= Duration::from_hours(6), "{held}");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_makes_no_loop_late() {
    let world = World::new(111);
    let provider = Provider::new(&world, Duration::ZERO, |id, _| is(id, "in_progress"));
    let life = alive(&world, &provider).await;
    life.track_one("batch_1", world.clock.now()).await;
    tokio::time::sleep(MINUTE).await;
    world.clock.set_forward(DAY);
    assert_eq!(life.tasks.late(Duration::from_secs(45)), Vec::<String>::new());
    world.clock.set_back(2 * DAY);
    assert_eq!(life.tasks.late(Duration::from_secs(45)), Vec::<String>::new());
    life.end().await;
}
