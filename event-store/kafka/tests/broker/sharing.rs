//! Several relays of one store.

use crate::support::{LONG, MemoryStore, Running, check_first_occurrences, read_all, topic};
use foldstream_core::TopicPartition;
use foldstream_testkit::{eventually, infra};
use std::sync::Arc;

/// How many partitions each relay has and relays, when none is in trouble.
fn shares(relays: &[&Running]) -> Option<Vec<usize>> {
    let of = |relay: &&Running| {
        let status = relay.watch.status();
        status.trouble().is_none().then_some(status.partitions.len())
    };
    relays.iter().map(of).collect()
}

async fn shared(relays: &[&Running], wanted: &[usize]) {
    let what = format!("shares are {wanted:?}");
    eventually(LONG, &what, async || match shares(relays) {
        Some(shares) if shares == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Events of all partitions in the topic: first occurrences in order; how many repeats.
async fn repeats(store: &Arc<MemoryStore>, name: &str, partitions: i32) -> usize {
    let mut repeats = 0;
    for number in 0..partitions {
        let at = TopicPartition::new(name, number);
        let records = read_all(&infra().kafka, &at).await;
        repeats += check_first_occurrences(&records, &store.events(&at));
    }
    repeats
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_share_fairly_hand_over_in_order_and_do_not_flap() {
    let (_, name) = topic(8).await;
    let store = MemoryStore::new(&name, 8);
    store.append_many(&name, 2_000, 100);
    let feeding = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
            loop {
                ticks.tick().await;
                store.append_many(&name, 20, 100);
            }
        }
    });
    let one = Running::start(store.outbox(), &infra().kafka);
    shared(&[&one], &[8]).await;
    let two = Running::start(store.outbox(), &infra().kafka);
    shared(&[&one, &two], &[4, 4]).await;
    let three = Running::start(store.outbox(), &infra().kafka);
    shared(&[&one, &two, &three], &[3, 3, 2]).await;

    // Nothing moves any more, however often they renew.
    let (epochs, claims) = (store.epochs(), store.claims());
    eventually(LONG, "many renewals", async || store.claims() > claims + 30).await;
    assert_eq!(store.epochs(), epochs);

    two.stop().await;
    shared(&[&one, &three], &[4, 4]).await;
    feeding.abort();
    eventually(LONG, "all is relayed", async || store.is_relayed()).await;
    // What was handed over was acknowledged and recorded: nobody sent anything twice.
    assert_eq!(repeats(&store, &name, 8).await, 0);

    // A dead one's leases run out; until then its part waits.
    let dead = three.owner();
    three.crash();
    store.append_many(&name, 500, 100);
    store.bury(dead);
    shared(&[&one], &[8]).await;
    eventually(LONG, "all is relayed", async || store.is_relayed()).await;
    one.stop().await;
    repeats(&store, &name, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_relays_than_partitions_leave_some_idle() {
    let (_, name) = topic(2).await;
    let store = MemoryStore::new(&name, 2);
    let relays: Vec<Running> =
        (0..3).map(|_| Running::start(store.outbox(), &infra().kafka)).collect();
    eventually(LONG, "two work and one waits", async || {
        let mut found = shares(&relays.iter().collect::<Vec<_>>());
        found.iter_mut().for_each(|shares| shares.sort_unstable());
        // The one without partitions has nothing to be in trouble with.
        found == Some(vec![0, 1, 1])
    })
    .await;
    store.append_many(&name, 100, 10);
    eventually(LONG, "all is relayed", async || store.is_relayed()).await;
    for relay in relays {
        relay.stop().await;
    }
    assert_eq!(repeats(&store, &name, 2).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_drain_is_not_handed_over() {
    let (cluster, name) = topic(2).await;
    let store = MemoryStore::new(&name, 2);
    store.append_many(&name, 100, 10);
    let one = Running::start(store.outbox(), &infra().kafka);
    shared(&[&one], &[2]).await;
    eventually(LONG, "all is relayed", async || store.is_relayed()).await;
    // Without the topic neither can relay; the second still gets its share, which is at rest.
    cluster.delete(&[&name]).await.unwrap();
    store.append_many(&name, 10, 10);
    let two = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "both have one", async || {
        [&one, &two].iter().all(|relay| relay.watch.status().partitions.len() == 1)
    })
    .await;
    cluster.ensure(&[foldstream_kafka::TopicSpec::new(&name, 2)]).await.unwrap();
    shared(&[&one, &two], &[1, 1]).await;
    eventually(LONG, "the new topic holds all", async || {
        let mut held = 0;
        for number in 0..2 {
            held += read_all(&infra().kafka, &TopicPartition::new(&name, number)).await.len();
        }
        held >= 110 && store.is_relayed()
    })
    .await;
    one.stop().await;
    two.stop().await;
}
