//! Answers of webhooks that cannot be written down at once; numbers are those of `docs/delivery.md#database-and-disk`.

use crate::dispatch::{EPOCH, Reply, World, seconds, setup};
use batchd::domain::time::since;
use batchd::failpoint;
use batchd::store::outbox::DeliveryState;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// Lets every commit of this thread fail from `from` until `until`, since the beginning.
fn disk_is_full(world: &World, from: Duration, until: Duration) {
    let clock = world.clock.clone();
    failpoint::watch(Some(Rc::new(move |place| {
        place == "store.write" && (from..until).contains(&since(EPOCH, clock.now()))
    })));
}

/// The answers come while the disk is full; there is space again after a minute.
async fn answered_while_the_disk_is_full(status: u16) -> (World, tempfile::TempDir) {
    let (dir, clock) = setup();
    let mut world = World::open(dir.path(), &clock, move |_, number| match number {
        1 | 2 => Reply::After(seconds(10), status),
        _ => Reply::Status(200, ""),
    });
    world.configure(&[("ops", "generic", "a.example")]).await;
    world.happen(1).await;
    world.happen(2).await;
    disk_is_full(&world, seconds(5), seconds(60));
    sleep(seconds(50)).await;
    assert_eq!(world.wire.seen().len(), 2);
    assert_eq!(world.states("ops").await, [DeliveryState::Inflight; 2], "nothing can be written");
    (world, dir)
}

#[tokio::test(start_paused = true)]
async fn d3_an_answer_that_cannot_be_written_down_is_kept_until_it_can_and_nothing_is_sent_twice() {
    let (world, _dir) = answered_while_the_disk_is_full(200).await;
    sleep(seconds(20)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
    assert_eq!(world.wire.seen().len(), 2);
    world.happen(3).await;
    sleep(seconds(1)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 3], "it goes on");
}

#[tokio::test(start_paused = true)]
async fn d3_a_failure_that_cannot_be_written_down_counts_once_there_is_space_and_is_tried_again() {
    let (world, _dir) = answered_while_the_disk_is_full(500).await;
    sleep(seconds(60)).await;
    let deliveries = world.deliveries("ops").await;
    let (states, attempts): (Vec<_>, Vec<_>) =
        deliveries.iter().map(|delivery| (delivery.state, delivery.attempts)).unzip();
    assert_eq!((states, attempts), (vec![DeliveryState::Delivered; 2], vec![2; 2]));
    assert_eq!(world.wire.seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn d3_stopped_before_there_is_space_what_was_accepted_is_sent_again_at_the_next_start() {
    let (world, dir) = answered_while_the_disk_is_full(200).await;
    let clock = world.clock.clone();
    world.stop().await;
    failpoint::watch(None);
    let mut world = World::open(dir.path(), &clock, |_, _| Reply::Status(200, ""));
    world.configure(&[("ops", "generic", "a.example")]).await;
    sleep(seconds(60)).await;
    assert_eq!(world.states("ops").await, [DeliveryState::Delivered; 2]);
    assert_eq!(world.wire.seen().len(), 2, "each once more, under the id that it had");
}
