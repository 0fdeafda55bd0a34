//! Finding out what the topic holds already.

use crate::planted::{Fault, planted};
use crate::{Delivered, KafkaError};
use foldstream_core::{Claim, Outbox, OutboxEvent, Progress, TopicPartition};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Why a partition was not taken over.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Kafka is away, or the topic is missing: try again.
    Kafka(KafkaError),
    /// The event store is away: try again.
    Outbox(String),
    /// The topic contradicts the event store: somebody has to look.
    Contradiction(String),
}
impl From<KafkaError> for Obstacle {
    fn from(error: KafkaError) -> Self {
        Obstacle::Kafka(error)
    }
}

/// A call of the outbox with a deadline.
pub(super) async fn bounded<T, E: std::error::Error>(
    deadline: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {deadline:?}")),
    }
}

/// A partition under examination. What it yields is where the topic's contiguous run of events
/// ends: read from the recorded offset to the high watermark, counting only last + 1.
pub(super) struct Scan {
    claim: Claim,
    store_id: Uuid,
    low: i64,
    high: i64,
    /// The head of the partition.
    pub(super) head: u64,
    /// The offset of the next record.
    pub(super) next: i64,
    /// The run so far.
    pub(super) run: Progress,
    /// What was recorded, until the record there bears it out.
    recorded: Option<Progress>,
}

/// What some records of a partition mean for its examination.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// These counted, and are to be compared with the store.
    Counted(Vec<(u64, Uuid)>),
    /// What was recorded is not there: read again from [`Scan::next`].
    Again,
}

impl Scan {
    /// The examination of a partition between these watermarks, whose head was asked for after
    /// them: what was in the topic by then is in the store by now.
    pub(super) fn new(
        claim: Claim,
        store_id: Uuid,
        (low, high): (i64, i64),
        head: u64,
    ) -> Result<Self, Obstacle> {
        let recorded = claim.progress;
        if recorded.position > head {
            return Err(Obstacle::Contradiction(format!(
                "position {} was relayed, but the store ends at {head}",
                recorded.position
            )));
        }
        let offset = recorded.offset.filter(|offset| (low..high).contains(offset));
        if planted(Fault::ProgressBeforeDelivery) || planted(Fault::SkipLocked) {
            let (run, recorded, next) = (recorded, None, high);
            return Ok(Scan { claim, store_id, low, high, head, next, run, recorded });
        }
        if planted(Fault::TailTakeover) {
            let (run, recorded, next) = (Progress::default(), None, low.max(high - 1));
            return Ok(Scan { claim, store_id, low, high, head, next, run, recorded });
        }
        Ok(Scan {
            claim,
            store_id,
            low,
            high,
            head,
            next: offset.unwrap_or(low),
            run: Progress::default(),
            recorded: offset.map(|_| recorded),
        })
    }
    pub(super) fn partition(&self) -> &TopicPartition {
        &self.claim.partition
    }
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.high
    }
    /// There is no more, whatever the watermark says: its last offsets are not records.
    pub(super) fn end(&mut self) {
        self.next = self.high;
    }

    /// Takes in records as they lie in the topic.
    pub(super) fn look(&mut self, records: &[Delivered]) -> Result<Seen, Obstacle> {
        let mut counted = Vec::new();
        for record in records {
            let offset = crate::reader::offset_of(record);
            if offset < self.next {
                continue;
            }
            if offset >= self.high {
                self.next = self.high;
                break;
            }
            if let Some(recorded) = self.recorded.take() {
                let borne_out = recorded.offset == Some(offset)
                    && record.as_ref().is_ok_and(|event| event.position == recorded.position);
                if !borne_out {
                    self.next = self.low;
                    return Ok(Seen::Again);
                }
                self.run.position = recorded.position.saturating_sub(1);
            }
            self.next = offset + 1;
            counted.extend(self.count(record)?);
        }
        Ok(Seen::Counted(counted))
    }

    /// Counts a record if it is the next one.
    fn count(&mut self, record: &Delivered) -> Result<Option<(u64, Uuid)>, Obstacle> {
        let event = match record {
            Ok(event) => event,
            Err(malformed) => {
                let partition = self.partition();
                tracing::warn!(%partition, %malformed, "the topic holds a record that is not ours");
                return Ok(None);
            }
        };
        if event.store_id != self.store_id {
            return Err(Obstacle::Contradiction(format!(
                "the topic belongs to store {}, not to {}",
                event.store_id, self.store_id
            )));
        }
        if event.position > self.head {
            return Err(Obstacle::Contradiction(format!(
                "the topic holds position {} at offset {}, but the store ends at {}",
                event.position, event.offset, self.head
            )));
        }
        if event.position != self.run.position + 1 && !planted(Fault::TailTakeover) {
            return Ok(None);
        }
        self.run = Progress { position: event.position, offset: Some(event.offset) };
        Ok(Some((event.position, event.event_id)))
    }
}

/// Whether these contiguous positions hold the same events in the store.
pub(super) async fn compare<O: Outbox>(
    outbox: &O,
    partition: &TopicPartition,
    mut found: &[(u64, Uuid)],
    deadline: Duration,
) -> Result<(), Obstacle> {
    while let Some((first, _)) = found.first() {
        let most = (found.len(), 4 << 20);
        let events = read(outbox, partition, first - 1, most, deadline).await;
        let events = events.map_err(Obstacle::Outbox)?;
        if events.is_empty() {
            let reason = format!("position {first} is in the topic but not in the store");
            return Err(Obstacle::Contradiction(reason));
        }
        for ((position, id), event) in found.iter().zip(&events) {
            if (*position, *id) != (event.position, event.event_id) {
                return Err(Obstacle::Contradiction(format!(
                    "position {position} is event {id} in the topic, but {} in the store",
                    event.event_id
                )));
            }
        }
        found = &found[events.len().min(found.len())..];
    }
    Ok(())
}

/// Events after a position; `most` says how many and how many bytes.
pub(super) async fn read<O: Outbox>(
    outbox: &O,
    partition: &TopicPartition,
    after: u64,
    most: (usize, usize),
    deadline: Duration,
) -> Result<Vec<OutboxEvent>, String> {
    bounded(deadline, outbox.read(partition, after, most.0, most.1)).await
}
