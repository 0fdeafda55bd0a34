//! What a record looks like to anybody's consumer.

use crate::support::{LONG, MemoryStore, Running, topic};
use foldstream_core::partition_of;
use foldstream_testkit::{eventually, infra};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[tokio::test(flavor = "multi_thread")]
async fn headers_key_framing_and_time_are_those_of_the_interface() {
    let (_, name) = topic(4).await;
    let store = MemoryStore::new(&name, 4);
    let event = store.append(&name, "536365");
    let relay = Running::start(store.outbox(), &infra().kafka);
    eventually(LONG, "it is relayed", async || store.is_relayed()).await;
    relay.stop().await;

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &infra().kafka)
        .set("group.id", "wire")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let partition = partition_of("536365", 4);
    list.add_partition_offset(&name, partition, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let message = consumer.poll(LONG).unwrap().unwrap();
    assert_eq!(message.key(), Some("536365".as_bytes()));
    let framed = [&[0, 0, 0, 0, 7], event.datum.as_slice()].concat();
    assert_eq!(message.payload(), Some(framed.as_slice()));
    assert_eq!(message.timestamp().to_millis(), Some(event.recorded_at.as_micros() / 1000));
    let headers = message.headers().unwrap();
    let found: Vec<(String, String)> = headers
        .iter()
        .map(|h| (h.key.into(), String::from_utf8(h.value.unwrap().into()).unwrap()))
        .collect();
    let id = event.event_id.to_string();
    let wanted = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_type", "shop.invoices.InvoiceIssued"),
        ("ce_source", "/invoices"),
        ("ce_subject", "536365"),
        ("ce_time", "2010-12-01T08:26:00.123457Z"),
        ("ce_dataschema", "http://registry:1/schemas/ids/7"),
        ("content-type", "application/avro"),
        ("ce_position", "1"),
        ("ce_streamversion", "1"),
        ("ce_correlationid", "correlation"),
        ("ce_actor", "clerk"),
        ("ce_storeid", &store.id.to_string()),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    assert_eq!(found, wanted);
}
