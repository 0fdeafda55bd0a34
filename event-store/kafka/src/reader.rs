//! Reading one partition without a group: for takeovers, rebuilds, replays and single records.

use crate::settings::{self, DEADLINE, Quiet, blocking};
use crate::{Delivered, KafkaError, wire};
use foldstream_core::TopicPartition;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as Client;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A chunk holds no more bytes, unless a single record does.
const CHUNK_BYTES: usize = 4 << 20;
/// What the client holds before it is asked for, in KiB.
const QUEUE_KBYTES: u32 = 4096;

impl ConsumerContext for Quiet {}

/// Reads partitions one after the other, each from an offset on. Keeps one connection.
pub struct PartitionReader {
    consumer: Arc<BaseConsumer<Quiet>>,
    reading: Option<Reading>,
}

#[derive(Clone)]
struct Reading {
    partition: TopicPartition,
    next: i64,
}

/// Records read by [`PartitionReader::next`].
#[derive(Debug)]
pub struct Chunk {
    /// In the order of their offsets.
    pub records: Vec<Delivered>,
    /// Whether the end of the partition, as it was then, is reached.
    pub at_end: bool,
}

impl std::fmt::Debug for PartitionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reading = self.reading.as_ref().map(|r| (r.partition.to_string(), r.next));
        f.debug_struct("PartitionReader").field("reading", &reading).finish_non_exhaustive()
    }
}

impl PartitionReader {
    /// A reader of this cluster. Does not connect yet.
    ///
    /// # Errors
    /// When the client cannot be made of this configuration.
    pub fn new(bootstrap: &str) -> Result<Self, KafkaError> {
        // The client insists on a group's name; without a subscription it joins none.
        let group = "foldstream-reader";
        let mut config = settings::consumer(bootstrap, group, group, QUEUE_KBYTES);
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
        let consumer = Arc::new(BaseConsumer::from_config_and_context(&config, Quiet)?);
        Ok(PartitionReader { consumer, reading: None })
    }

    /// The offsets of the oldest record and of the next one.
    ///
    /// # Errors
    /// Kafka is away, or the partition does not exist.
    pub async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), KafkaError> {
        let (consumer, at) = (self.consumer.clone(), partition.clone());
        blocking(move || {
            let marks = consumer.fetch_watermarks(&at.topic, at.partition, DEADLINE);
            marks.map_err(|error| KafkaError::about(&at.topic, error))
        })
        .await
    }

    /// The record at an offset; `None` when there is none. Ends what was being read.
    ///
    /// # Errors
    /// Kafka is away, or the partition does not exist.
    pub async fn read_at(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<Option<Delivered>, KafkaError> {
        let (low, high) = self.watermarks(partition).await?;
        if offset < low || offset >= high {
            return Ok(None);
        }
        self.open(partition, offset).await?;
        let chunk = self.next(1, DEADLINE).await;
        self.rest().await?;
        let record = chunk?.records.into_iter().next();
        Ok(record.filter(|record| offset_of(record) == offset))
    }

    /// Reads this partition from now on, from this offset, which must be in the partition or its
    /// end.
    ///
    /// # Errors
    /// When the client refuses.
    pub async fn open(&mut self, partition: &TopicPartition, from: i64) -> Result<(), KafkaError> {
        let (consumer, at) = (self.consumer.clone(), partition.clone());
        self.reading = Some(Reading { partition: partition.clone(), next: from });
        blocking(move || assign_all(&consumer, &[(at, from)])).await
    }

    /// Reads nothing more until the next [`PartitionReader::open`]; costs nothing meanwhile.
    ///
    /// # Errors
    /// When the client refuses.
    pub async fn rest(&mut self) -> Result<(), KafkaError> {
        let consumer = self.consumer.clone();
        self.reading = None;
        blocking(move || Ok(consumer.unassign()?)).await
    }

    /// The next records of the opened partition: at most so many and some MiB, at least one
    /// unless the end is reached or the deadline is over.
    ///
    /// # Errors
    /// Kafka is away, or the offset is not in the partition.
    pub async fn next(&mut self, max: usize, deadline: Duration) -> Result<Chunk, KafkaError> {
        let Some(mut reading) = self.reading.clone() else {
            return Ok(Chunk { records: Vec::new(), at_end: true });
        };
        let consumer = self.consumer.clone();
        let (chunk, next) = blocking(move || {
            let chunk = read(&consumer, &mut reading, max, deadline)?;
            Ok((chunk, reading.next))
        })
        .await?;
        if let Some(reading) = &mut self.reading {
            reading.next = next;
        }
        Ok(chunk)
    }
}

/// Reads these partitions, each from this offset, and nothing else.
pub(crate) fn assign_all(
    consumer: &BaseConsumer<Quiet>,
    all: &[(TopicPartition, i64)],
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for (at, from) in all {
        list.add_partition_offset(&at.topic, at.partition, Offset::Offset(*from))?;
    }
    Ok(consumer.assign(&list)?)
}

/// The offset of what was delivered.
pub(crate) fn offset_of(record: &Delivered) -> i64 {
    match record {
        Ok(event) => event.offset,
        Err(malformed) => malformed.offset,
    }
}

fn read(
    consumer: &BaseConsumer<Quiet>,
    reading: &mut Reading,
    max: usize,
    deadline: Duration,
) -> Result<Chunk, KafkaError> {
    let Reading { partition, next } = reading;
    let mut chunk = Chunk { records: Vec::new(), at_end: false };
    let until = Instant::now() + deadline;
    let mut bytes = 0;
    while chunk.records.len() < max && bytes < CHUNK_BYTES {
        // What is there is taken; only for the first record is it worth to wait.
        let first = chunk.records.is_empty();
        let left = until.saturating_duration_since(Instant::now());
        let wait = if first { left.min(Duration::from_millis(100)) } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                let ours = message.partition() == partition.partition
                    && message.topic() == partition.topic;
                if ours && message.offset() >= *next {
                    *next = message.offset() + 1;
                    bytes += message.payload_len() + message.key_len();
                    chunk.records.push(wire::read(&message));
                }
            }
            Some(Err(Client::PartitionEOF(number))) if number == partition.partition => {
                // The end of a partition that was read before may still be announced.
                let (_, high) = consumer
                    .fetch_watermarks(&partition.topic, partition.partition, DEADLINE)
                    .map_err(|error| KafkaError::about(&partition.topic, error))?;
                if *next >= high {
                    chunk.at_end = true;
                    break;
                }
            }
            Some(Err(error)) => fail(&partition.topic, error)?,
            None if first && !left.is_zero() => {}
            None => break,
        }
    }
    Ok(chunk)
}

/// An error that ends the reading; others are over by themselves.
pub(crate) fn fail(topic: &str, error: Client) -> Result<(), KafkaError> {
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(KafkaError::Mismatch {
            topic: topic.to_owned(),
            reason: "the offset to read from is not there".into(),
        }),
        Some(Code::PartitionEOF) => Ok(()),
        Some(_) | None => Err(KafkaError::about(topic, error)),
    }
}
