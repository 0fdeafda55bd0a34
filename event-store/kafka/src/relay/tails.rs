//! Reading many partitions at once, each from an offset of its own.

use crate::reader::{assign_all, fail};
use crate::settings::{self, DEADLINE, Quiet, blocking};
use crate::{Delivered, KafkaError, wire};
use foldstream_core::TopicPartition;
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Client;
use rdkafka::message::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the client holds before it is asked for, all partitions together, in KiB.
const QUEUE_KBYTES: u32 = 4096;
/// What one call answers holds no more bytes, unless a single record does.
const BYTES: usize = 4 << 20;

/// Reads partitions together. Keeps one connection.
pub(super) struct Tails {
    consumer: Arc<BaseConsumer<Quiet>>,
}

/// What one call read.
#[derive(Debug, Default)]
pub(super) struct Tide {
    /// Records in the order of their offsets, by partition.
    pub(super) records: Vec<(TopicPartition, Vec<Delivered>)>,
    /// Numbers of partitions, of whichever topic, that had no more for the moment.
    pub(super) ends: Vec<i32>,
}

impl Tails {
    /// Does not connect yet.
    pub(super) fn new(bootstrap: &str) -> Result<Self, KafkaError> {
        let group = "foldstream-takeover";
        let mut config = settings::consumer(bootstrap, group, group, QUEUE_KBYTES);
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
        let consumer = Arc::new(BaseConsumer::from_config_and_context(&config, Quiet)?);
        Ok(Tails { consumer })
    }

    /// The offsets of the oldest record and of the next one.
    pub(super) async fn watermarks(&self, at: &TopicPartition) -> Result<(i64, i64), KafkaError> {
        let (consumer, at) = (self.consumer.clone(), at.clone());
        blocking(move || {
            let marks = consumer.fetch_watermarks(&at.topic, at.partition, DEADLINE);
            marks.map_err(|error| KafkaError::about(&at.topic, error))
        })
        .await
    }

    /// Reads these from now on, each from this offset, and nothing else.
    pub(super) async fn assign(&self, all: Vec<(TopicPartition, i64)>) -> Result<(), KafkaError> {
        let consumer = self.consumer.clone();
        blocking(move || assign_all(&consumer, &all)).await
    }

    /// Fetches nothing more of these.
    pub(super) async fn pause(&self, done: Vec<TopicPartition>) -> Result<(), KafkaError> {
        let consumer = self.consumer.clone();
        blocking(move || {
            let mut list = TopicPartitionList::new();
            for at in &done {
                list.add_partition(&at.topic, at.partition);
            }
            Ok(consumer.pause(&list)?)
        })
        .await
    }

    /// At most so many records; returns when some are there or the time is over.
    pub(super) async fn next(&self, max: usize, within: Duration) -> Result<Tide, KafkaError> {
        let consumer = self.consumer.clone();
        blocking(move || read(&consumer, max, within)).await
    }
}

fn read(consumer: &BaseConsumer<Quiet>, max: usize, within: Duration) -> Result<Tide, KafkaError> {
    let mut tide = Tide::default();
    let (mut count, mut bytes) = (0, 0);
    let until = Instant::now() + within;
    while count < max && bytes < BYTES {
        // What is there is taken; only for the first record is it worth to wait.
        let left = until.saturating_duration_since(Instant::now());
        let wait = if count == 0 { left.min(Duration::from_millis(50)) } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                count += 1;
                bytes += message.payload_len() + message.key_len();
                let (topic, partition) = (message.topic(), message.partition());
                let same =
                    |(at, _): &(TopicPartition, _)| at.partition == partition && at.topic == topic;
                let place = tide.records.iter().position(same).unwrap_or_else(|| {
                    tide.records.push((TopicPartition::new(topic, partition), Vec::new()));
                    tide.records.len() - 1
                });
                tide.records[place].1.push(wire::read(&message));
            }
            Some(Err(Client::PartitionEOF(number))) => tide.ends.push(number),
            Some(Err(error)) => fail("of the relay", error)?,
            None if count == 0 && tide.ends.is_empty() && !left.is_zero() => {}
            None => break,
        }
    }
    Ok(tide)
}
