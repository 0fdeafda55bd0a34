//! The store as the relay sees it.

use crate::carts::{AddItems, add, command, connection, options, version};
use foldstream_core::{Outbox as _, Progress, TopicPartition};
use foldstream_postgres::{EventStore, ExecuteError, Metadata, PostgresOutbox};
use foldstream_testkit::{TestDatabase, eventually};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(15);

async fn short_leases(database: &TestDatabase) -> EventStore {
    let mut options = options(database);
    options.timings.lease = Duration::from_millis(400);
    crate::carts::open(options).await
}

#[tokio::test]
async fn one_owner_at_a_time_and_the_next_one_ends_the_former() {
    let database = crate::carts::database("leases").await;
    let store = short_leases(&database).await;
    let (one, two) = (store.outbox(), store.outbox());
    let claims = one.claim().await.unwrap().held;
    assert_eq!(claims.len(), 8);
    assert!(claims.iter().all(|claim| claim.epoch == 1));
    assert_eq!(two.claim().await.unwrap().held, []);
    // Renewed, not taken again.
    assert_eq!(one.claim().await.unwrap().held, claims);
    let progress = Progress { position: 7, offset: Some(11) };
    let lost = one.record(&[(claims[3].clone(), progress)]).await.unwrap();
    assert_eq!(lost, []);
    // The owner is silent: its leases run out.
    let taken = eventually(LONG, "the leases run out", async || {
        Some(two.claim().await.unwrap().held).filter(|claims| claims.len() == 8)
    })
    .await;
    assert!(taken.iter().all(|claim| claim.epoch == 2));
    assert_eq!(taken[3].progress, progress);
    // Its backend is gone; on a new one its epoch counts nothing.
    let late = Progress { position: 9, offset: Some(13) };
    assert!(one.record(&[(claims[3].clone(), late)]).await.is_err());
    let lost = one.record(&[(claims[3].clone(), late)]).await.unwrap();
    assert_eq!(lost, [claims[3].partition.clone()]);
    assert_eq!(two.claim().await.unwrap().held[3].progress, progress);
}

#[tokio::test]
async fn what_is_given_back_is_free_at_once() {
    let database = crate::carts::database("released").await;
    let store = crate::carts::store(&database).await;
    let (one, two) = (store.outbox(), store.outbox());
    assert_eq!(one.claim().await.unwrap().held.len(), 8);
    one.release().await.unwrap();
    let claims = two.claim().await.unwrap().held;
    assert_eq!((claims.len(), claims[0].epoch), (8, 2));
    assert_eq!(one.claim().await.unwrap().held, []);
    // A claim that was given back is lost also for its epoch.
    two.release().await.unwrap();
    let lost = two.record(&[(claims[0].clone(), Progress::default())]).await.unwrap();
    assert_eq!(lost.len(), 1);
}

#[tokio::test]
async fn shares_make_up_all_partitions_and_only_surplus_moves() {
    let database = crate::carts::database("shares").await;
    let store = crate::carts::store(&database).await;
    let (one, two, three) = (store.outbox(), store.outbox(), store.outbox());
    let held = async |outbox: &PostgresOutbox| {
        let claims = outbox.claim().await.unwrap();
        (claims.held.len(), claims.share, claims.surplus())
    };
    assert_eq!(held(&one).await, (8, 8, 0));
    // One that joins takes nothing that is held; the others hear what they have to give.
    assert_eq!(held(&two).await, (0, 4, 0));
    assert_eq!(held(&one).await, (8, 4, 4));
    let claims = one.claim().await.unwrap().held;
    one.give_up(&claims[4..]).await.unwrap();
    assert_eq!(held(&one).await, (4, 4, 0));
    assert_eq!(held(&two).await, (4, 4, 0));
    // A claim that was given up counts no more, nor does giving it up again harm its new owner.
    let lost = one.record(&[(claims[7].clone(), Progress::default())]).await.unwrap();
    assert_eq!(lost, [claims[7].partition.clone()]);
    one.give_up(&claims[4..]).await.unwrap();
    assert_eq!(held(&two).await, (4, 4, 0));
    // Eight by three: those that are here longer have more, and nobody's share grew.
    assert_eq!(held(&three).await, (0, 2, 0));
    assert_eq!(held(&one).await, (4, 3, 1));
    assert_eq!(held(&two).await, (4, 3, 1));
    // Shares follow at once when one leaves as it should.
    three.release().await.unwrap();
    assert_eq!(held(&one).await, (4, 4, 0));
    assert_eq!(held(&two).await, (4, 4, 0));
}

#[tokio::test]
async fn a_dead_relay_counts_until_its_leases_are_over() {
    let database = crate::carts::database("dead").await;
    let store = short_leases(&database).await;
    let (one, dead) = (store.outbox(), store.outbox());
    assert_eq!(one.claim().await.unwrap().held.len(), 8);
    assert_eq!(dead.claim().await.unwrap().share, 4);
    let claims = one.claim().await.unwrap();
    one.give_up(&claims.held[..4]).await.unwrap();
    assert_eq!(dead.claim().await.unwrap().held.len(), 4);
    let claims = eventually(LONG, "its part is free", async || {
        Some(one.claim().await.unwrap()).filter(|claims| claims.held.len() == 8)
    })
    .await;
    assert_eq!(claims.share, 8);
    let taken: Vec<i64> = claims.held[..4].iter().map(|claim| claim.epoch).collect();
    assert_eq!(taken, [3, 3, 3, 3]);
}

#[tokio::test]
async fn a_rewind_takes_the_claim_from_the_owner_and_tells_it_where_to_begin() {
    let database = crate::carts::database("rewind").await;
    let store = crate::carts::store(&database).await;
    let outbox = store.outbox();
    let claims = outbox.claim().await.unwrap().held;
    let progress = Progress { position: 7, offset: Some(11) };
    assert_eq!(outbox.record(&[(claims[3].clone(), progress)]).await.unwrap(), []);
    let back = Progress { position: 4, offset: Some(6) };
    assert!(store.outbox().rewind(&claims[3].partition, back).await.unwrap());
    // What the owner still had to write comes too late.
    let late = Progress { position: 9, offset: Some(13) };
    let lost = outbox.record(&[(claims[3].clone(), late)]).await.unwrap();
    assert_eq!(lost, [claims[3].partition.clone()]);
    let again = outbox.claim().await.unwrap().held;
    assert_eq!((again[3].epoch, again[3].progress), (claims[3].epoch + 1, back));
    assert_eq!(again[2], claims[2]);
    // Only back, never on.
    assert!(!outbox.rewind(&claims[3].partition, late).await.unwrap());
    let lease = &outbox.leases().await.unwrap()[3];
    assert_eq!((lease.owner.as_deref(), lease.progress), (Some(outbox.owner()), back));
    assert!(!lease.has_expired && lease.expires_at.is_some());
}

#[tokio::test]
async fn events_are_read_as_they_were_appended_within_the_bounds() {
    let database = crate::carts::database("read").await;
    let store = crate::carts::store(&database).await;
    let mut execute = command("cart", AddItems { sku: "x".repeat(1_000), count: 10 });
    execute.metadata = Metadata {
        actor: Some("ann".into()),
        correlation_id: Some("c".into()),
        causation_id: Some("b".into()),
        traceparent: Some("00-1".into()),
    };
    let executed = store.execute(execute).await.unwrap();
    let (at, head) = executed.token.positions.iter().next().unwrap();
    assert_eq!(*head, 10);
    let outbox = store.outbox();
    let all = outbox.read(at, 0, 100, 1_000_000).await.unwrap();
    let positions: Vec<u64> = all.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=10).collect::<Vec<_>>());
    assert!(all.iter().all(|event| event.version == event.position));
    assert_eq!((all[0].stream_id.as_str(), all[0].schema_id), ("cart", 1));
    assert_eq!(all[0].event_type, "test.carts.ItemAdded");
    assert_eq!(all[0].actor.as_deref(), Some("ann"));
    assert_eq!(all[0].correlation_id.as_deref(), Some("c"));
    assert_eq!(all[0].causation_id.as_deref(), Some("b"));
    assert_eq!(all[0].traceparent.as_deref(), Some("00-1"));
    let some = async |after, events, bytes| {
        let read = outbox.read(at, after, events, bytes).await.unwrap();
        read.iter().map(|event| event.position).collect::<Vec<_>>()
    };
    assert_eq!(some(4, 3, 1_000_000).await, [5, 6, 7]);
    assert_eq!(some(4, 100, 2_500).await, [5, 6]);
    assert_eq!(some(4, 100, 1).await, [5]);
    assert_eq!(some(10, 100, 1_000_000).await, Vec::<u64>::new());
    let heads = outbox.heads().await.unwrap();
    assert_eq!(heads.len(), 8);
    let own = heads.iter().find(|head| head.partition == *at).unwrap();
    assert_eq!((own.position, own.recorded_at), (10, Some(all[0].recorded_at)));
}

#[tokio::test]
async fn an_append_of_this_process_wakes_the_relay() {
    let database = crate::carts::database("woken").await;
    let store = crate::carts::store(&database).await;
    let outbox = store.outbox();
    // Seen or not: an append before the wait counts as well.
    version(&store.execute(add("cart", "a")).await);
    tokio::time::timeout(LONG, outbox.woken()).await.unwrap();
    // Without one it returns all the same: others may have appended.
    tokio::time::timeout(LONG, outbox.woken()).await.unwrap();
}

#[tokio::test]
async fn the_backlog_is_measured_and_bounded() {
    let database = crate::carts::database("backlog").await;
    let mut options = options(&database);
    options.limits.backlog_events = 4;
    options.timings.backlog = Duration::from_millis(50);
    let store = crate::carts::open(options).await;
    let executed = store.execute(command("cart", AddItems { sku: "a".into(), count: 5 })).await;
    assert_eq!(version(&executed), 5);
    eventually(LONG, "the backlog is seen", async || {
        let backlog = store.backlog();
        backlog.events == 5 && backlog.oldest > Duration::ZERO
    })
    .await;
    assert_eq!(store.execute(add("cart", "b")).await, Err(ExecuteError::OutboxFull));
    let outbox = store.outbox();
    let claims = outbox.claim().await.unwrap().held;
    let positions = executed.unwrap().token.positions;
    let progress = |claim: &foldstream_core::Claim| {
        let position = positions.get(&claim.partition).copied().unwrap_or(0);
        (claim.clone(), Progress { position, offset: Some(1) })
    };
    let all: Vec<_> = claims.iter().map(progress).collect();
    assert_eq!(outbox.record(&all).await.unwrap(), Vec::<TopicPartition>::new());
    eventually(LONG, "commands are taken again", async || {
        store.execute(add("cart", "b")).await.is_ok()
    })
    .await;
    assert_eq!(store.measure_backlog().await.unwrap().events, 1);
}

#[tokio::test]
async fn a_hole_in_the_table_stops_the_reader_loudly() {
    let database = crate::carts::database("hole").await;
    let store = crate::carts::store(&database).await;
    let executed = store.execute(command("cart", AddItems { sku: "a".into(), count: 5 })).await;
    let positions = executed.unwrap().token.positions;
    let at = positions.keys().next().unwrap();
    let delete = "delete from events where position = 3";
    sqlx::raw_sql(delete).execute(&mut connection(&database).await).await.unwrap();
    let error = store.outbox().read(at, 0, 100, 1_000_000).await.unwrap_err();
    assert!(error.to_string().ends_with("position 3 is missing"), "{error}");
}
