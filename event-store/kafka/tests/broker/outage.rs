//! A broker that goes away and comes back.

use crate::support::{MemoryStore, Running, check_first_occurrences, read_all};
use foldstream_core::TopicPartition;
use foldstream_kafka::{
    Cluster, ConsumerEvent, ConsumerOptions, ConsumerState, GroupConsumer, PartitionState,
    TopicSpec,
};
use foldstream_local::{Local, Options};
use foldstream_testkit::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_said_and_everything_drains_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::in_dir(dir.path().join("kafka"));
    options.postgres = false;
    let local = tokio::task::spawn_blocking(|| Local::start(options, &mut |_| {}).unwrap());
    let local = local.await.unwrap();
    let bootstrap = local.kafka().to_owned();
    let name = "outage.invoices";
    Cluster::new(&bootstrap).unwrap().ensure(&[TopicSpec::new(name, 2)]).await.unwrap();
    let store = MemoryStore::new(name, 2);
    store.append_many(name, 500, 20);
    let relay = Running::start(store.outbox(), &bootstrap);
    eventually(LONG, "it relays", async || store.is_relayed()).await;
    let mut consumer =
        GroupConsumer::new(ConsumerOptions::new(&bootstrap, "outage", [name])).unwrap();
    let (events, mut heard) = tokio::sync::watch::channel((0usize, ConsumerState::Connected));
    let reading = tokio::spawn(async move {
        while let Some(event) = consumer.next().await {
            match event {
                ConsumerEvent::Assigned { partitions, generation } => {
                    for partition in partitions {
                        consumer.control().start(&partition, generation, 0);
                    }
                }
                ConsumerEvent::Batch(batch) => {
                    events.send_modify(|(count, _)| *count += batch.records.len());
                }
                ConsumerEvent::State(state) => events.send_modify(|(_, now)| *now = state),
                ConsumerEvent::Revoked { .. } | ConsumerEvent::OutOfRange { .. } => {}
            }
        }
    });
    heard.wait_for(|(count, _)| *count == 500).await.unwrap();

    local.kill_kafka();
    store.append_many(name, 500, 20);
    eventually(LONG, "the relay says so", async || {
        let states = relay.watch.status().partitions;
        states.len() == 2 && states.iter().all(|p| matches!(p.state, PartitionState::KafkaAway(_)))
    })
    .await;
    let away = heard.wait_for(|(_, state)| matches!(state, ConsumerState::Away(_)));
    tokio::time::timeout(LONG, away).await.unwrap().unwrap();

    tokio::task::block_in_place(|| local.start_kafka()).unwrap();
    eventually(LONG, "it drains", async || store.is_relayed()).await;
    eventually(LONG, "it is well again", async || relay.watch.status().trouble().is_none()).await;
    let all = heard.wait_for(|(count, state)| *count >= 1000 && *state == ConsumerState::Connected);
    tokio::time::timeout(LONG, all).await.unwrap().unwrap();
    relay.stop().await;
    reading.abort();
    for number in 0..2 {
        let at = TopicPartition::new(name, number);
        let records = read_all(&bootstrap, &at).await;
        check_first_occurrences(&records, &store.events(&at));
    }
    tokio::task::block_in_place(|| drop(local));
}
