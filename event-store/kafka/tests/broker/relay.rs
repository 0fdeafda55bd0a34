//! The relay against a real Kafka, driven by a store in memory.

use crate::support::{LONG, MemoryStore, Running, check_first_occurrences, read_all, topic};
use foldstream_core::TopicPartition;
use foldstream_kafka::{PartitionState, TopicSpec};
use foldstream_testkit::{eventually, infra};

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_in_order_and_once() {
    let (_, name) = topic(3).await;
    let store = MemoryStore::new(&name, 3);
    store.append_many(&name, 5_000, 100);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "the backlog is relayed", async || store.is_relayed()).await;
    store.append_many(&name, 500, 100);
    eventually(LONG, "live events are relayed", async || store.is_relayed()).await;
    assert_eq!(relay.watch.status().trouble(), None);
    relay.stop().await;
    for number in 0..3 {
        let at = TopicPartition::new(&name, number);
        let events = store.events(&at);
        let records = read_all(&infra().kafka, &at).await;
        assert_eq!(check_first_occurrences(&records, &events), 0);
        let progress = store.progress(&at);
        assert_eq!(progress.offset, Some(events.len() as i64 - 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgot_its_progress_repeats_nothing_it_can_see() {
    let (_, name) = topic(1).await;
    let at = TopicPartition::new(&name, 0);
    let store = MemoryStore::new(&name, 1);
    store.append_many(&name, 2_500, 10);
    let first = Running::start(store.forgetful_outbox(), &infra().kafka);
    eventually(LONG, "some events are in the topic", async || {
        read_all(&infra().kafka, &at).await.len() > 100
    })
    .await;
    first.crash();
    store.expire();
    store.append_many(&name, 100, 10);
    let second = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "the second relay goes on", async || store.is_relayed()).await;
    second.stop().await;
    let records = read_all(&infra().kafka, &at).await;
    check_first_occurrences(&records, &store.events(&at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_its_claim_stops_and_another_goes_on() {
    let (_, name) = topic(2).await;
    let store = MemoryStore::new(&name, 2);
    store.append_many(&name, 200, 20);
    let zombie = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it relays", async || store.is_relayed()).await;
    let lost = TopicPartition::new(&name, 0);
    store.take_away(&lost);
    eventually(LONG, "it lets go", async || {
        let status = zombie.watch.status();
        status.partitions.len() == 1 && status.trouble().is_none()
    })
    .await;
    let before = store.progress(&lost);
    store.append_many(&name, 200, 20);
    let kept = TopicPartition::new(&name, 1);
    eventually(LONG, "it relays the other one", async || {
        store.progress(&kept).position == store.events(&kept).len() as u64
    })
    .await;
    assert_eq!(store.progress(&lost), before);
    zombie.stop().await;
    store.expire();
    let next = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "the next owner goes on", async || store.is_relayed()).await;
    next.stop().await;
    for at in [lost, kept] {
        let records = read_all(&infra().kafka, &at).await;
        assert_eq!(check_first_occurrences(&records, &store.events(&at)), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_waited_for_and_a_new_one_is_filled_again() {
    let (cluster, name) = topic(1).await;
    let at = TopicPartition::new(&name, 0);
    let store = MemoryStore::new(&name, 1);
    store.append_many(&name, 300, 10);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    cluster.delete(&[&name]).await.unwrap();
    store.append_many(&name, 10, 10);
    eventually(LONG, "the missing topic is said", async || {
        relay.watch.status().partitions.first().map(|p| p.state.clone())
            == Some(PartitionState::MissingTopic)
    })
    .await;
    cluster.ensure(&[TopicSpec::new(&name, 1)]).await.unwrap();
    eventually(LONG, "the new topic holds everything", async || {
        read_all(&infra().kafka, &at).await.len() == 310
    })
    .await;
    relay.stop().await;
    let records = read_all(&infra().kafka, &at).await;
    assert_eq!(check_first_occurrences(&records, &store.events(&at)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_again_behind_its_back_is_filled_again() {
    let (cluster, name) = topic(1).await;
    let at = TopicPartition::new(&name, 0);
    let store = MemoryStore::new(&name, 1);
    store.append_many(&name, 100, 10);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    cluster.delete(&[&name]).await.unwrap();
    cluster.ensure(&[TopicSpec::new(&name, 1)]).await.unwrap();
    store.append(&name, "stream-1");
    eventually(LONG, "the loss is noticed and mended", async || {
        let records = read_all(&infra().kafka, &at).await;
        records.iter().flatten().any(|e| e.position == 1)
            && records.iter().flatten().any(|e| e.position == 101 && e.offset > 1)
    })
    .await;
    relay.stop().await;
    let records = read_all(&infra().kafka, &at).await;
    // What came in before the loss was noticed lies before the first position; readers drop it.
    let from = records.iter().flatten().position(|e| e.position == 1).unwrap();
    check_first_occurrences(&records[from..], &store.events(&at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_stops_the_partition() {
    let (_, name) = topic(1).await;
    let at = TopicPartition::new(&name, 0);
    let store = MemoryStore::new(&name, 1);
    store.append_many(&name, 20, 3);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    relay.stop().await;

    let stopped = async |store: &std::sync::Arc<MemoryStore>, reason: &str| {
        let relay = Running::start(store.outbox(), &infra().kafka);
        eventually(LONG, reason, async || {
            let status = relay.watch.status();
            status
                .partitions
                .iter()
                .any(|p| matches!(&p.state, PartitionState::Stopped(why) if why.contains(reason)))
        })
        .await;
        assert!(relay.watch.status().trouble().is_some());
        relay.stop().await;
    };
    let other = MemoryStore::new(&name, 1);
    other.append_many(&name, 20, 3);
    stopped(&other, "belongs to store").await;
    store.falsify(&at, 20);
    stopped(&store, "position 20 is event").await;
    store.truncate(&at, 19);
    stopped(&store, "position 20 was relayed, but the store ends at 19").await;
    store.forget_progress();
    stopped(&store, "the topic holds position 20").await;
    assert_eq!(read_all(&infra().kafka, &at).await.len(), 20);
}
