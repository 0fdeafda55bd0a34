//! One partition as a worker sees it: which records are next, which are repeats, what is missing.
//! Pure: records go in, verdicts come out.

use foldstream_core::{RawRecord, TopicPartition};
use foldstream_kafka::{Delivered, Malformed, Received};
use foldstream_tables::checkpoints::{Checkpoint, PartitionState};
use std::collections::VecDeque;
use std::time::Instant;
use uuid::Uuid;

/// The place of a record in both worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    position: u64,
    offset: i64,
    event_id: Uuid,
}

/// An assigned partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) at: TopicPartition,
    /// Of its assignment.
    pub(crate) generation: u64,
    /// The owner's epoch.
    pub(crate) epoch: i64,
    /// The last position that is folded and committed.
    pub(crate) committed: u64,
    /// The last record that was accepted.
    last: Option<Place>,
    store_id: Option<Uuid>,
    /// Accepted, not yet handed to a batch.
    waiting: VecDeque<Received>,
    waiting_bytes: usize,
    /// The next record must be the last accepted one, read again.
    checking: bool,
    reading: Reading,
    gap: Option<Gap>,
    block: Option<Block>,
}

/// Where reading began, to tell its records from those of an earlier reading that are still under
/// way.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The offset it began at.
    from: i64,
    /// The highest offset seen, of any reading.
    seen: i64,
    /// Records above this offset are of the earlier reading, until one at or below it comes.
    stale_above: Option<i64>,
}

/// Events that the topic does not have, while it has later ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// The first position that is missing.
    pub(crate) missing: u64,
    /// Since when.
    pub(crate) since: Instant,
    /// Whether it is believed: the last record was read again and is the same.
    pub(crate) believed: bool,
    /// Whether the alarm was given.
    pub(crate) alarmed: bool,
}

/// A record that stops the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its position.
    pub(crate) position: u64,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// Whether a sound record at the same position mends it.
    mends: bool,
}

/// What a record means for its partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is next, and waits to be folded.
    Accepted,
    /// It was there already, or is not ours to judge now.
    Dropped,
    /// It is further than next, so one is missing. Said once per gap.
    Gap,
    /// It stops the partition. Said once.
    Blocked,
    /// What was read so far cannot be trusted: read again from this offset.
    Reread(i64),
}

impl Partition {
    /// A partition that begins at its checkpoint, and the offset to read from: that of the last
    /// applied record, to see that it is still the same.
    pub(crate) fn new(generation: u64, checkpoint: Checkpoint) -> (Self, i64) {
        let last = checkpoint.offset.zip(checkpoint.event_id).map(|(offset, event_id)| Place {
            position: checkpoint.position,
            offset,
            event_id,
        });
        let offset = last.map_or(0, |place| place.offset);
        let partition = Partition {
            at: checkpoint.partition,
            generation,
            epoch: checkpoint.epoch,
            committed: checkpoint.position,
            last,
            store_id: checkpoint.store_id,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            checking: last.is_some(),
            reading: Reading { from: offset, seen: -1, stale_above: None },
            gap: None,
            block: None,
        };
        (partition, offset)
    }

    /// The position of the last accepted record.
    pub(crate) fn accepted(&self) -> u64 {
        self.last.map_or(self.committed, |place| place.position)
    }
    /// The gap, once it is believed.
    pub(crate) fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref().filter(|gap| gap.believed)
    }
    /// The gap, if it lasts since before `then` and gives its alarm now.
    pub(crate) fn alarm(&mut self, then: Instant) -> Option<&Gap> {
        let due = |gap: &&mut Gap| gap.believed && !gap.alarmed && gap.since <= then;
        let gap = self.gap.as_mut().filter(due)?;
        gap.alarmed = true;
        Some(gap)
    }
    pub(crate) fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }
    /// How many records wait, and how many bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// Judges the next record of the topic.
    pub(crate) fn take(&mut self, delivered: Delivered, now: Instant) -> Verdict {
        if self.is_stale(offset_of(&delivered)) {
            return Verdict::Dropped;
        }
        if std::mem::take(&mut self.checking) && !self.is_last(&delivered) {
            self.gap = None;
            return self.reread(0);
        }
        if self.block.as_ref().is_some_and(|block| !block.mends) {
            return Verdict::Dropped;
        }
        match delivered {
            Ok(event) => self.take_event(event, now),
            Err(malformed) => self.take_malformed(malformed),
        }
    }

    /// The offset is not in the topic, which was created again or lost its tail: everything is
    /// read from the offset of its oldest record, and what was applied is dropped.
    pub(crate) fn out_of_range(&mut self, low: i64) -> i64 {
        self.checking = false;
        self.reading = Reading { from: low, seen: -1, stale_above: None };
        low
    }

    fn is_stale(&mut self, offset: i64) -> bool {
        let Reading { from, seen, stale_above } = &mut self.reading;
        if stale_above.is_some_and(|above| offset > above && offset != *from) {
            return true;
        }
        *stale_above = None;
        *seen = offset.max(*seen);
        false
    }
    fn reread(&mut self, from: i64) -> Verdict {
        let seen = self.reading.seen;
        self.reading = Reading { from, seen, stale_above: Some(seen) };
        Verdict::Reread(from)
    }

    fn is_last(&self, delivered: &Delivered) -> bool {
        let Some(last) = self.last else { return true };
        delivered.as_ref().is_ok_and(|event| {
            event.offset == last.offset
                && event.position == last.position
                && event.event_id == last.event_id
        })
    }

    fn take_event(&mut self, event: Received, now: Instant) -> Verdict {
        if let Some(own) = self.store_id
            && own != event.store_id
        {
            let reason = format!(
                "the record comes from event store {}, this read model was folded from {own}: the \
                 topic was filled by another store",
                event.store_id
            );
            self.waiting.clear();
            self.waiting_bytes = 0;
            return self.stop(event.position, reason, false);
        }
        let next = self.accepted() + 1;
        if event.position < next {
            return Verdict::Dropped;
        }
        if event.position > next {
            return self.missing(next, now);
        }
        self.gap = None;
        self.block = None;
        self.store_id = Some(event.store_id);
        self.last = Some(Place {
            position: event.position,
            offset: event.offset,
            event_id: event.event_id,
        });
        self.waiting_bytes += event.datum.len();
        self.waiting.push_back(event);
        Verdict::Accepted
    }

    /// Before a gap is believed, the last record is read again: the topic may have been created
    /// again and refilled past our offset.
    fn missing(&mut self, next: u64, now: Instant) -> Verdict {
        if self.block.is_some() {
            return Verdict::Dropped;
        }
        match (&mut self.gap, self.last) {
            (Some(gap), _) if gap.believed => Verdict::Dropped,
            (Some(gap), _) => {
                gap.believed = true;
                Verdict::Gap
            }
            (gap @ None, last) => {
                let believed = last.is_none();
                *gap = Some(Gap { missing: next, since: now, believed, alarmed: false });
                let Some(last) = last else { return Verdict::Gap };
                self.checking = true;
                self.reread(last.offset)
            }
        }
    }

    /// A record that is no event stops the partition only where the next event should be; a later
    /// or foreign one leaves a gap if it mattered.
    fn take_malformed(&mut self, malformed: Malformed) -> Verdict {
        let next = self.accepted() + 1;
        match malformed.position {
            Some(position) if position == next => self.stop(position, malformed.to_string(), true),
            Some(_) | None => {
                tracing::warn!(partition = %self.at, %malformed, "a record that is no event");
                Verdict::Dropped
            }
        }
    }

    fn stop(&mut self, position: u64, reason: String, mends: bool) -> Verdict {
        let block = Block { position, reason, mends };
        if self.block.as_ref() == Some(&block) {
            return Verdict::Dropped;
        }
        self.block = Some(block);
        Verdict::Blocked
    }

    /// An event that cannot be folded: nothing after it is.
    pub(crate) fn fail(&mut self, position: u64, reason: String) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.block = Some(Block { position, reason, mends: false });
    }

    /// The next records to fold: at most so many and so many bytes, but at least one.
    pub(crate) fn hand_out(&mut self, records: usize, bytes: usize) -> Vec<Received> {
        let mut size = 0;
        let fits = |event: &&Received| {
            size += event.datum.len();
            size <= bytes
        };
        let count = self.waiting.iter().take(records).take_while(fits).count();
        let count = count.max(1).min(self.waiting.len());
        let out: Vec<Received> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= out.iter().map(|event| event.datum.len()).sum::<usize>();
        out
    }
}

fn offset_of(delivered: &Delivered) -> i64 {
    match delivered {
        Ok(event) => event.offset,
        Err(malformed) => malformed.offset,
    }
}

/// Records of one partition that are folded together, contiguous.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) at: TopicPartition,
    pub(crate) epoch: i64,
    pub(crate) store_id: Uuid,
    pub(crate) records: Vec<RawRecord>,
    /// The offset of each record.
    pub(crate) offsets: Vec<i64>,
}

impl Slice {
    /// The position before the first record.
    pub(crate) fn from(&self) -> u64 {
        self.records.first().map_or(0, |record| record.position.saturating_sub(1))
    }
    /// Keeps the first `count` records and answers the others.
    pub(crate) fn split_off(&mut self, count: usize) -> Slice {
        Slice {
            at: self.at.clone(),
            epoch: self.epoch,
            store_id: self.store_id,
            records: self.records.split_off(count),
            offsets: self.offsets.split_off(count),
        }
    }
}

impl Gap {
    /// The gap as operators read it.
    pub(crate) fn told(&self) -> (PartitionState, String) {
        let detail = format!(
            "position {} is missing in the topic, later ones are there; \
             send it again from the event store",
            self.missing
        );
        (PartitionState::Gap, detail)
    }
}
impl Block {
    /// What stops the partition, as operators read it.
    pub(crate) fn told(&self) -> (PartitionState, String) {
        (PartitionState::Failed, format!("position {}: {}", self.position, self.reason))
    }
}
