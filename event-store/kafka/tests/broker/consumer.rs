//! The consumer against a real Kafka.

use crate::support::{LONG, MemoryStore, Running, topic};
use foldstream_core::TopicPartition;
use foldstream_kafka::{
    Batch, ConsumerEvent, ConsumerOptions, Delivered, GroupConsumer, Malformation, PartitionReader,
    TopicSpec,
};
use foldstream_testkit::{eventually, infra, unique};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};
use tokio::time::timeout;

fn join(group: &str, topic: &str) -> GroupConsumer {
    GroupConsumer::new(ConsumerOptions::new(&infra().kafka, group, [topic])).unwrap()
}

async fn next(consumer: &mut GroupConsumer) -> ConsumerEvent {
    timeout(LONG, consumer.next()).await.expect("an event in time").expect("a running consumer")
}

async fn assigned(consumer: &mut GroupConsumer) -> (Vec<TopicPartition>, u64) {
    loop {
        if let ConsumerEvent::Assigned { partitions, generation } = next(consumer).await
            && !partitions.is_empty()
        {
            return (partitions, generation);
        }
    }
}

async fn batch(consumer: &mut GroupConsumer) -> Batch {
    loop {
        match next(consumer).await {
            ConsumerEvent::Batch(batch) => return batch,
            ConsumerEvent::OutOfRange { partition, offset, .. } => {
                panic!("{partition} has no offset {offset}")
            }
            ConsumerEvent::Assigned { .. }
            | ConsumerEvent::Revoked { .. }
            | ConsumerEvent::State(_) => {}
        }
    }
}

/// Reads until so many records came of any partition; their positions.
async fn positions(consumer: &mut GroupConsumer, count: usize) -> Vec<u64> {
    let mut positions = Vec::new();
    while positions.len() < count {
        let batch = batch(consumer).await;
        positions.extend(batch.records.into_iter().map(|r| r.unwrap().position));
    }
    positions
}

async fn filled(partitions: i32, events: usize) -> (String, std::sync::Arc<MemoryStore>, Running) {
    let (_, name) = topic(partitions).await;
    let store = MemoryStore::new(&name, partitions);
    store.append_many(&name, events, 50);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "the topic is filled", async || store.is_relayed()).await;
    (name, store, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_from_the_offset_it_is_told_and_again_from_another() {
    let (name, store, relay) = filled(1, 300).await;
    let mut consumer = join(&unique("group"), &name);
    let (partitions, generation) = assigned(&mut consumer).await;
    let control = consumer.control();
    // Nothing comes before the start.
    assert!(timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    control.start(&partitions[0], generation, 100);
    assert_eq!(positions(&mut consumer, 200).await, (101..=300).collect::<Vec<_>>());
    control.start(&partitions[0], generation, 290);
    assert_eq!(positions(&mut consumer, 10).await, (291..=300).collect::<Vec<_>>());

    let live = Instant::now();
    let event = store.append(&name, "stream-1");
    let batch = batch(&mut consumer).await;
    let received = batch.records[0].as_ref().unwrap();
    assert_eq!(received.event_id, event.event_id);
    assert_eq!(received.datum, event.datum);
    assert_eq!(received.store_id, store.id);
    assert_eq!(received.recorded_at, event.recorded_at);
    assert_eq!(received.actor.as_deref(), Some("clerk"));
    assert_eq!(received.causation_id, None);
    println!("append to consumer: {:?}", live.elapsed());
    consumer.close(LONG).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_partitions_wait_and_go_on_where_they_stopped() {
    let (name, store, relay) = filled(1, 10).await;
    let mut consumer = join(&unique("group"), &name);
    let (partitions, generation) = assigned(&mut consumer).await;
    let control = consumer.control();
    control.start(&partitions[0], generation, 0);
    assert_eq!(positions(&mut consumer, 10).await.last(), Some(&10));
    control.pause(&partitions);
    store.append_many(&name, 5, 1);
    eventually(LONG, "they are in the topic", async || store.is_relayed()).await;
    assert!(timeout(Duration::from_millis(500), consumer.next()).await.is_err());
    control.resume(&partitions);
    assert_eq!(positions(&mut consumer, 5).await, [11, 12, 13, 14, 15]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_nothing_loses_nothing() {
    let (name, _store, relay) = filled(1, 3_000).await;
    let mut options = ConsumerOptions::new(&infra().kafka, unique("group"), [&name]);
    options.batch_records = 100;
    options.queued_batches = 1;
    let mut consumer = GroupConsumer::new(options).unwrap();
    let (partitions, generation) = assigned(&mut consumer).await;
    consumer.control().start(&partitions[0], generation, 0);
    let first = positions(&mut consumer, 100).await;
    // Longer than the consumer waits before it stops fetching.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut all = first;
    all.extend(positions(&mut consumer, 2_900).await);
    assert_eq!(all, (1..=3_000).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_partitions_go_to_the_other_member_and_come_back() {
    let (name, store, relay) = filled(2, 400).await;
    let group = unique("group");
    let mut one = join(&group, &name);
    let mut held = Vec::new();
    while held.len() < 2 {
        let (partitions, generation) = assigned(&mut one).await;
        for partition in partitions {
            one.control().start(&partition, generation, 0);
            held.push(partition);
        }
    }
    positions(&mut one, 400).await;
    let mut two = join(&group, &name);
    let moved = loop {
        match next(&mut one).await {
            ConsumerEvent::Revoked { partitions, lost } if !partitions.is_empty() => {
                assert!(!lost);
                break partitions;
            }
            ConsumerEvent::Batch(_)
            | ConsumerEvent::Assigned { .. }
            | ConsumerEvent::Revoked { .. }
            | ConsumerEvent::OutOfRange { .. }
            | ConsumerEvent::State(_) => {}
        }
    };
    let (partitions, generation) = assigned(&mut two).await;
    assert_eq!(partitions, moved);
    let offset = store.progress(&moved[0]).offset.unwrap() + 1;
    two.control().start(&moved[0], generation, offset);
    store.append_many(&name, 50, 50);
    let got = batch(&mut two).await;
    assert_eq!(got.partition, moved[0]);
    let got = batch(&mut one).await;
    assert_ne!(got.partition, moved[0]);
    two.close(LONG).await;
    let (partitions, again) = assigned(&mut one).await;
    assert_eq!(partitions, moved);
    assert!(again > 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_not_there_is_said() {
    let (name, store, relay) = filled(1, 20).await;
    let mut consumer = join(&unique("group"), &name);
    let (partitions, generation) = assigned(&mut consumer).await;
    let control = consumer.control();
    control.start(&partitions[0], generation, 21);
    let said = next(&mut consumer).await;
    assert!(
        matches!(said, ConsumerEvent::OutOfRange { offset: 21, low: 0, high: 20, .. }),
        "{said:?}"
    );
    assert!(control.read_at(&partitions[0], 20).await.unwrap().is_none());
    let last = control.read_at(&partitions[0], 19).await.unwrap().unwrap().unwrap();
    assert_eq!(last.event_id, store.events(&partitions[0])[19].event_id);
    assert_eq!(control.watermarks(&partitions[0]).await.unwrap(), (0, 20));
    control.start(&partitions[0], generation, 15);
    assert_eq!(positions(&mut consumer, 5).await, [16, 17, 18, 19, 20]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_is_noticed() {
    let (name, store, relay) = filled(1, 50).await;
    let cluster = foldstream_kafka::Cluster::new(&infra().kafka).unwrap();
    let mut consumer = join(&unique("group"), &name);
    let (partitions, generation) = assigned(&mut consumer).await;
    consumer.control().start(&partitions[0], generation, 0);
    positions(&mut consumer, 50).await;
    cluster.delete(&[&name]).await.unwrap();
    cluster.ensure(&[TopicSpec::new(&name, 1)]).await.unwrap();
    store.append(&name, "stream-1");
    // The offset is found missing, or the partition goes and comes back, or the new topic holds so
    // much already that reading just goes on. Who applies only last + 1 misses nothing.
    let mut last = 50;
    while last < 51 {
        match next(&mut consumer).await {
            ConsumerEvent::OutOfRange { partition, generation, low, .. } => {
                consumer.control().start(&partition, generation, low);
            }
            ConsumerEvent::Assigned { partitions, generation } => {
                for partition in partitions {
                    consumer.control().start(&partition, generation, 0);
                }
            }
            ConsumerEvent::Batch(batch) => {
                let applied = |last, record: &Delivered| {
                    let position = record.as_ref().unwrap().position;
                    if position == last + 1 { position } else { last }
                };
                last = batch.records.iter().fold(last, applied);
            }
            ConsumerEvent::Revoked { .. } | ConsumerEvent::State(_) => {}
        }
    }
    relay.stop().await;
}

const GOOD: [(&str, &str); 7] = [
    ("ce_id", "0189e7a0-0000-7000-8000-000000000001"),
    ("ce_type", "shop.invoices.InvoiceIssued"),
    ("ce_subject", "536365"),
    ("ce_time", "2010-12-01T08:26:00Z"),
    ("ce_position", "7"),
    ("ce_streamversion", "1"),
    ("ce_storeid", "0189e7a0-0000-7000-8000-000000000002"),
];
const FRAMED: Option<&[u8]> = Some(&[0, 0, 0, 0, 9, 1, 2]);

struct Case {
    key: Option<&'static str>,
    value: Option<&'static [u8]>,
    headers: Vec<(&'static str, &'static str)>,
    reason: Malformation,
}

fn cases() -> Vec<Case> {
    let plain = |key, value, reason| Case { key, value, headers: GOOD.to_vec(), reason };
    // A header left out, or with another value.
    let header = |name: &str, other: Option<&'static str>, reason| {
        let kept = GOOD.into_iter().filter(|(n, _)| *n != name || other.is_some());
        let headers = kept.map(|(n, v)| (n, if n == name { other.unwrap_or(v) } else { v }));
        Case { key: Some("536365"), value: FRAMED, headers: headers.collect(), reason }
    };
    let key = Some("536365");
    vec![
        plain(None, FRAMED, Malformation::NoKey),
        plain(Some("a b"), FRAMED, Malformation::BadKey),
        plain(key, None, Malformation::NoValue),
        plain(key, Some(&[0, 0, 0]), Malformation::BadFraming),
        plain(key, Some(&[1, 0, 0, 0, 9, 1]), Malformation::BadFraming),
        plain(Some("536366"), FRAMED, Malformation::Contradiction("ce_subject")),
        header("ce_subject", None, Malformation::NoHeader("ce_subject")),
        header("ce_position", None, Malformation::NoHeader("ce_position")),
        header("ce_position", Some("+7"), Malformation::BadHeader("ce_position")),
        header("ce_streamversion", Some("0"), Malformation::BadHeader("ce_streamversion")),
        header("ce_id", Some("1"), Malformation::BadHeader("ce_id")),
        header("ce_time", Some("yesterday"), Malformation::BadHeader("ce_time")),
        header("ce_storeid", None, Malformation::NoHeader("ce_storeid")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_records_are_said_with_their_place() {
    let (_, name) = topic(1).await;
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &infra().kafka).create().unwrap();
    let cases = cases();
    for Case { key, value, headers, .. } in &cases {
        let owned = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: Some(*value) })
        });
        let mut record = BaseRecord::<[u8], [u8]>::to(&name).partition(0).headers(owned);
        if let Some(key) = key {
            record = record.key(key.as_bytes());
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONG).unwrap();
    let mut reader = PartitionReader::new(&infra().kafka).unwrap();
    reader.open(&TopicPartition::new(&name, 0), 0).await.unwrap();
    let mut records = Vec::new();
    while records.len() < cases.len() {
        records.extend(reader.next(100, LONG).await.unwrap().records);
    }
    for (offset, (record, case)) in records.iter().zip(&cases).enumerate() {
        let malformed = record.as_ref().unwrap_err();
        assert_eq!(malformed.reason, case.reason);
        assert_eq!(malformed.offset, offset as i64);
        assert_eq!(malformed.stream_id.as_deref(), case.key);
        let plain = case.headers.contains(&("ce_position", "7"));
        assert_eq!(malformed.position, plain.then_some(7));
    }
}
