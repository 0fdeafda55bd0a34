//! Finding out what the topic holds already.

use crate::reader::PartitionReader;
use crate::{Delivered, KafkaError};
use foldstream_core::{Claim, Outbox, OutboxEvent, Progress, TopicPartition};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Records looked at in one go.
const CHUNK: usize = 1000;

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

/// A partition under examination.
pub(super) struct Takeover<'a, O: Outbox> {
    pub(super) outbox: &'a O,
    pub(super) reader: &'a mut PartitionReader,
    pub(super) claim: &'a Claim,
    pub(super) deadline: Duration,
}

impl<O: Outbox> Takeover<'_, O> {
    /// Where the topic's contiguous run of events ends, and the head of the partition. Reads from
    /// the recorded offset to the high watermark and counts only last + 1.
    pub(super) async fn run(mut self) -> Result<(Progress, u64), Obstacle> {
        let partition = &self.claim.partition;
        let (low, high) = self.reader.watermarks(partition).await?;
        // Asked for after the watermark: what was in the topic by then is in the store by now.
        let head = self.head().await?;
        let (mut run, from) = self.beginning(low, high, head).await?;
        if from >= high {
            return Ok((run, head));
        }
        self.reader.open(partition, from).await?;
        let result = self.scan(&mut run, from, high, head).await;
        self.reader.rest().await?;
        result.map(|()| (run, head))
    }

    async fn head(&self) -> Result<u64, Obstacle> {
        let heads = bounded(self.deadline, self.outbox.heads()).await.map_err(Obstacle::Outbox)?;
        let head = heads.into_iter().find(|head| head.partition == self.claim.partition);
        Ok(head.map_or(0, |head| head.position))
    }

    /// The recorded progress if the topic bears it out, else nothing; and the offset to read from.
    async fn beginning(
        &mut self,
        low: i64,
        high: i64,
        head: u64,
    ) -> Result<(Progress, i64), Obstacle> {
        let nothing = (Progress::default(), low);
        let recorded = self.claim.progress;
        if recorded.position > head {
            return Err(Obstacle::Contradiction(format!(
                "position {} was relayed, but the store ends at {head}",
                recorded.position
            )));
        }
        let Some(offset) = recorded.offset.filter(|offset| (low..high).contains(offset)) else {
            return Ok(nothing);
        };
        match self.reader.read_at(&self.claim.partition, offset).await? {
            Some(Ok(event)) if event.position == recorded.position => {
                self.check_store(event.store_id)?;
                self.compare(&[(event.position, event.event_id)]).await?;
                Ok((recorded, offset + 1))
            }
            Some(_) | None => Ok(nothing),
        }
    }

    async fn scan(
        &mut self,
        run: &mut Progress,
        from: i64,
        high: i64,
        head: u64,
    ) -> Result<(), Obstacle> {
        let mut next = from;
        while next < high {
            let chunk = self.reader.next(CHUNK, self.deadline).await?;
            if chunk.records.is_empty() && !chunk.at_end {
                let silent = format!("{} yields no records", self.claim.partition);
                return Err(Obstacle::Kafka(KafkaError::Unavailable(silent)));
            }
            let mut counted = Vec::new();
            for record in &chunk.records {
                next = crate::reader::offset_of(record) + 1;
                if next > high {
                    break;
                }
                if let Some(event) = self.look(record, run, head)? {
                    counted.push(event);
                }
            }
            self.compare(&counted).await?;
            if chunk.at_end {
                break;
            }
        }
        Ok(())
    }

    /// Counts a record if it is the next one.
    fn look(
        &self,
        record: &Delivered,
        run: &mut Progress,
        head: u64,
    ) -> Result<Option<(u64, Uuid)>, Obstacle> {
        let event = match record {
            Ok(event) => event,
            Err(malformed) => {
                let partition = &self.claim.partition;
                tracing::warn!(%partition, %malformed, "the topic holds a record that is not ours");
                return Ok(None);
            }
        };
        self.check_store(event.store_id)?;
        if event.position > head {
            return Err(Obstacle::Contradiction(format!(
                "the topic holds position {} at offset {}, but the store ends at {head}",
                event.position, event.offset
            )));
        }
        if event.position != run.position + 1 {
            return Ok(None);
        }
        *run = Progress { position: event.position, offset: Some(event.offset) };
        Ok(Some((event.position, event.event_id)))
    }

    fn check_store(&self, found: Uuid) -> Result<(), Obstacle> {
        let ours = self.outbox.store_id();
        if found == ours {
            return Ok(());
        }
        let reason = format!("the topic belongs to store {found}, not to {ours}");
        Err(Obstacle::Contradiction(reason))
    }

    /// Whether these contiguous positions hold the same events in the store.
    async fn compare(&self, mut found: &[(u64, Uuid)]) -> Result<(), Obstacle> {
        while let Some((first, _)) = found.first() {
            let events = read(
                self.outbox,
                &self.claim.partition,
                first - 1,
                (found.len(), 4 << 20),
                self.deadline,
            );
            let events = events.await.map_err(Obstacle::Outbox)?;
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
