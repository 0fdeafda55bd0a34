//! The raw topic, read with a plain consumer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

const DEADLINE: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(10);

/// A record as it is in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its time in milliseconds.
    pub timestamp: Option<i64>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A header that is there once.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => std::str::from_utf8(value).ok(),
            _none_or_two => None,
        }
    }

    /// Everything but its offset.
    #[must_use]
    pub fn is_repeat_of(&self, first: &Record) -> bool {
        Record { offset: first.offset, ..self.clone() } == *first
    }
}

/// All records of a topic, by partition and offset. Blocks.
///
/// # Errors
/// Kafka does not answer, or the topic has another number of partitions.
pub fn read(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<Record>, String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "crash-checker")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .create()
        .map_err(|error| error.to_string())?;
    let metadata = consumer.fetch_metadata(Some(topic), CALL).map_err(|error| error.to_string())?;
    let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if i32::try_from(found) != Ok(partitions) {
        return Err(format!("{topic} has {found} partitions, not {partitions}"));
    }
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in 0..partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, CALL)
            .map_err(|error| format!("{topic} {partition}: {error}"))?;
        let add = assignment.add_partition_offset(topic, partition, Offset::Offset(low));
        add.map_err(|error| error.to_string())?;
        if high > low {
            ends.insert(partition, high);
        }
    }
    consumer.assign(&assignment).map_err(|error| error.to_string())?;
    let (mut records, mut last) = (Vec::new(), String::new());
    let began = Instant::now();
    while !ends.is_empty() {
        if began.elapsed() > DEADLINE {
            return Err(format!("{topic} cannot be read to {ends:?} in time ({last})"));
        }
        let message = match consumer.poll(Duration::from_millis(500)) {
            None => continue,
            // Brokers that come and go are seen by it, too; the deadline ends what does not pass.
            Some(Err(error)) => {
                last = error.to_string();
                continue;
            }
            Some(Ok(message)) => message,
        };
        let partition = message.partition();
        if ends.get(&partition).is_some_and(|end| message.offset() + 1 >= *end) {
            ends.remove(&partition);
        }
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
            };
            headers.iter().map(pair).collect()
        });
        records.push(Record {
            partition,
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis(),
            headers,
        });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// The partition of a key, as Java clients choose it.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff).cast_signed() % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_of_java_clients() {
        // From org.apache.kafka.common.utils.UtilsTest.
        let cases = [("21", -973_932_308_i32), ("foobar", -790_332_482), ("abc", 479_470_107)];
        for (key, hash) in cases {
            let wanted = (hash.cast_unsigned() & 0x7fff_ffff).cast_signed() % 1_000_003;
            assert_eq!(partition_of(key.as_bytes(), 1_000_003), wanted, "{key}");
        }
    }
}
