//! Topics that lost something, or hold what they should not: found, mended, and whole again for
//! readers that apply only last + 1.

use crate::support::{LONG, MemoryOutbox, MemoryStore, Running, read_all, topic};
use foldstream_core::{Outbox, TopicPartition};
use foldstream_kafka::{
    Cluster, ConsumerEvent, ConsumerOptions, GroupConsumer, PartitionReport, TopicSpec,
    Verification,
};
use foldstream_testkit::{eventually, infra, unique};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

async fn verified(store: &Arc<MemoryStore>, at: &TopicPartition) -> PartitionReport {
    let outbox: Arc<MemoryOutbox> = store.outbox();
    let mut verification = Verification::new(&*outbox, &infra().kafka, LONG).unwrap();
    let mut told = Vec::new();
    let report = verification.partition(at, |verified| told.push(verified)).await.unwrap();
    if let Some(last) = told.last() {
        assert_eq!((last.done, last.done), (report.records, last.total));
    }
    report
}

/// What an operator's repair does: sets the progress back, for the owner to send again.
async fn repair(store: &Arc<MemoryStore>, at: &TopicPartition) {
    let report = verified(store, at).await;
    assert!(report.is_mendable(), "{report:?}");
    let target = store.progress(at).position;
    assert!(store.outbox().rewind(at, report.run).await.unwrap());
    eventually(LONG, "it is sent again", async || store.progress(at).position >= target).await;
    assert!(verified(store, at).await.is_whole());
}

/// Everything that a partition holds, as it is, to be put somewhere else.
fn raw(at: &TopicPartition, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &infra().kafka)
        .set("group.id", "raw")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&at.topic, at.partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let next = || consumer.poll(LONG).expect("a record in time").unwrap().detach();
    std::iter::repeat_with(next).take(count).collect()
}

fn producer() -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", &infra().kafka).create().unwrap()
}

fn put(at: &TopicPartition, records: &[OwnedMessage]) {
    let producer = producer();
    for message in records {
        let record = BaseRecord::to(&at.topic)
            .partition(at.partition)
            .key(message.key().unwrap())
            .payload(message.payload().unwrap())
            .timestamp(message.timestamp().to_millis().unwrap())
            .headers(message.headers().unwrap().clone());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONG).unwrap();
}

/// The topic is there again and holds only the first records.
async fn cut_tail(cluster: &Cluster, at: &TopicPartition, kept: &[OwnedMessage]) {
    cluster.delete(&[&at.topic]).await.unwrap();
    cluster.ensure(&[TopicSpec::new(&at.topic, 1)]).await.unwrap();
    let (at, kept) = (at.clone(), kept.to_vec());
    tokio::task::spawn_blocking(move || put(&at, &kept)).await.unwrap();
}

/// Kafka's own delete-records: everything below an offset is gone.
async fn cut_head(at: &TopicPartition, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &infra().kafka).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// A reader that applies only last + 1, and begins at the beginning when its place is gone. What it
/// applied, so far.
struct Applying {
    applied: watch::Receiver<Vec<Uuid>>,
    task: JoinHandle<()>,
}

fn apply(name: &str) -> Applying {
    let options = ConsumerOptions::new(&infra().kafka, unique("applying"), [name]);
    let mut consumer = GroupConsumer::new(options).unwrap();
    let (sender, applied) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        let mut next_offset = 0;
        while let Some(event) = consumer.next().await {
            match event {
                ConsumerEvent::Assigned { partitions, generation } => {
                    for partition in partitions {
                        consumer.control().start(&partition, generation, next_offset);
                    }
                }
                ConsumerEvent::OutOfRange { partition, generation, low, .. } => {
                    consumer.control().start(&partition, generation, low);
                }
                ConsumerEvent::Batch(batch) => {
                    for event in batch.records.into_iter().flatten() {
                        next_offset = event.offset + 1;
                        sender.send_if_modified(|applied| {
                            let is_next = event.position == applied.len() as u64 + 1;
                            if is_next {
                                applied.push(event.event_id);
                            }
                            is_next
                        });
                    }
                }
                ConsumerEvent::Revoked { .. } | ConsumerEvent::State(_) => {}
            }
        }
    });
    Applying { applied, task }
}

impl Applying {
    /// Waits until it applied this many, and says whether they are the store's.
    async fn is_whole(&mut self, store: &MemoryStore, at: &TopicPartition) {
        let ids: Vec<Uuid> = store.events(at).iter().map(|event| event.event_id).collect();
        let all = self.applied.wait_for(|applied| applied.len() >= ids.len());
        let all = tokio::time::timeout(LONG, all).await.expect("all in time").unwrap();
        assert_eq!(*all, ids);
    }
    fn end(self) {
        self.task.abort();
    }
}

async fn relayed(events: usize) -> (Cluster, TopicPartition, Arc<MemoryStore>, Running) {
    let (cluster, name) = topic(1).await;
    let at = TopicPartition::new(&name, 0);
    let store = MemoryStore::new(&name, 1);
    store.append_many(&name, events, 10);
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    (cluster, at, store, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_topic_is_found_whole() {
    let (_, at, store, relay) = relayed(2_500).await;
    let report = verified(&store, &at).await;
    assert!(report.is_whole() && !report.is_mendable(), "{report:?}");
    assert_eq!((report.records, report.readable, report.relayed), (2_500, 2_500, 2_500));
    assert_eq!((report.repeats, report.ahead, report.missing_from), (0, 0, None));
    relay.stop().await;
    // What was not relayed yet is not missing.
    store.append_many(&at.topic, 10, 10);
    let report = verified(&store, &at).await;
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.head, report.readable), (2_510, 2_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_tail_is_found_and_mended_while_the_relay_runs() {
    let (cluster, at, store, relay) = relayed(100).await;
    let mut reader = apply(&at.topic);
    reader.is_whole(&store, &at).await;
    let kept = tokio::task::spawn_blocking({
        let at = at.clone();
        move || raw(&at, 60)
    });
    cut_tail(&cluster, &at, &kept.await.unwrap()).await;
    let report = verified(&store, &at).await;
    assert_eq!((report.missing_from, report.missing), (Some(61), 40), "{report:?}");
    repair(&store, &at).await;
    store.append_many(&at.topic, 50, 10);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    let mut fresh = apply(&at.topic);
    fresh.is_whole(&store, &at).await;
    reader.is_whole(&store, &at).await;
    let records = read_all(&infra().kafka, &at).await;
    assert_eq!(records.len(), 150, "it was sent from the first missing one on");
    relay.stop().await;
    fresh.end();
    reader.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_found_and_mended_while_the_relay_runs() {
    let (_, at, store, relay) = relayed(100).await;
    cut_head(&at, 50).await;
    let report = verified(&store, &at).await;
    assert_eq!((report.missing_from, report.missing, report.ahead), (Some(1), 100, 50));
    repair(&store, &at).await;
    let mut fresh = apply(&at.topic);
    fresh.is_whole(&store, &at).await;
    fresh.end();
    // All of them are gone: the offsets go on, the positions begin again.
    cut_head(&at, 150).await;
    assert_eq!(verified(&store, &at).await.missing, 100);
    repair(&store, &at).await;
    store.append(&at.topic, "stream-1");
    let mut fresh = apply(&at.topic);
    fresh.is_whole(&store, &at).await;
    fresh.end();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_found_and_filled_again() {
    let (cluster, at, store, relay) = relayed(100).await;
    let mut reader = apply(&at.topic);
    reader.is_whole(&store, &at).await;
    cluster.delete(&[&at.topic]).await.unwrap();
    let report = verified(&store, &at).await;
    assert!(!report.exists && !report.is_whole(), "{report:?}");
    assert_eq!((report.missing_from, report.missing), (Some(1), 100));
    cluster.ensure(&[TopicSpec::new(&at.topic, 1)]).await.unwrap();
    let settings = cluster.describe(&[&at.topic]).await.unwrap();
    assert_eq!(settings[0].warnings, Vec::<String>::new());
    repair(&store, &at).await;
    store.append(&at.topic, "stream-1");
    let mut fresh = apply(&at.topic);
    fresh.is_whole(&store, &at).await;
    reader.is_whole(&store, &at).await;
    relay.stop().await;
    fresh.end();
    reader.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_differing_records_are_found_and_repeats_are_not_held_against_it() {
    let (_, at, store, relay) = relayed(20).await;
    relay.stop().await;
    // The fifth record once more, with another header or another value.
    let put_changed =
        async |name: &'static str, other: &'static str, value: Option<&'static [u8]>| {
            let at = at.clone();
            let put = move || {
                let event = &raw(&at, 20)[4];
                let headers =
                    event.headers().unwrap().iter().fold(OwnedHeaders::new(), |all, header| {
                        let kept = std::str::from_utf8(header.value.unwrap()).unwrap();
                        let value = if header.key == name { other } else { kept };
                        all.insert(Header { key: header.key, value: Some(value) })
                    });
                let payload: &[u8] = value.unwrap_or(event.payload().unwrap());
                let record = BaseRecord::to(&at.topic).partition(0).key(event.key().unwrap());
                let producer = producer();
                let sent = producer.send(record.payload(payload).headers(headers));
                sent.map_err(|(error, _)| error).unwrap();
                producer.flush(LONG).unwrap();
            };
            tokio::task::spawn_blocking(put).await.unwrap();
        };
    put_changed("", "", None).await;
    let report = verified(&store, &at).await;
    assert!(report.is_whole() && report.repeats == 1, "{report:?}");

    put_changed("", "", Some(&[0, 0, 0, 0, 7, 1])).await;
    let report = verified(&store, &at).await;
    assert_eq!((report.differing, report.foreign, report.repeats), (1, 0, 2));
    assert_eq!(report.findings[0].offset, 21);
    assert!(report.findings[0].what.starts_with("the value differs"), "{report:?}");

    let nobody = "00000000-0000-0000-0000-000000000000";
    let changes =
        [("ce_id", nobody), ("ce_position", "21"), ("ce_storeid", nobody), ("ce_time", "once")];
    for (name, other) in changes {
        put_changed(name, other, None).await;
    }
    let report = verified(&store, &at).await;
    assert_eq!((report.differing, report.foreign), (2, 3), "{report:?}");
    let what: Vec<&str> = report.findings[1..].iter().map(|f| f.what.as_str()).collect();
    assert!(what[0].starts_with("ce_id differs"), "{what:?}");
    assert_eq!(what[1], "the store ends at 20");
    assert!(what[2].starts_with("it comes from store"), "{what:?}");
    assert_eq!(what[3], "header ce_time is malformed");
    // All that belongs there is there, so there is nothing to send.
    assert_eq!((report.missing, report.is_mendable()), (0, false));
}
