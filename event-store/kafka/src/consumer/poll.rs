//! The thread that polls: rebalances, records, and nothing that waits for the caller.

use super::shared::{Command, Rebalances, Shared};
use super::{Batch, ConsumerEvent, ConsumerOptions, ConsumerState};
use crate::wire;
use foldstream_core::TopicPartition;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Client;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Longest sleep between two looks; whatever happens wakes the thread before.
const NAP: Duration = Duration::from_millis(250);
/// A caller that takes nothing for so long stops the fetching, so that polling can go on.
const STALL: Duration = Duration::from_secs(1);
/// A question to the broker from the polling thread waits no longer.
const QUESTION: Duration = Duration::from_secs(2);

/// One assigned partition.
struct Lane {
    partition: TopicPartition,
    generation: u64,
    /// Where the caller wants to begin, until that is done.
    wanted: Option<i64>,
    /// Whether it is being read.
    started: bool,
    /// By the caller.
    paused: bool,
    /// The client gave up fetching it: seeking alone does not help.
    broken: bool,
    /// The offset after the last record read.
    next: i64,
    records: Vec<wire::Delivered>,
}

/// The polling thread.
pub(super) struct Poll {
    consumer: BaseConsumer<Rebalances>,
    options: ConsumerOptions,
    shared: Arc<Shared>,
    sender: mpsc::Sender<ConsumerEvent>,
    lanes: Vec<Lane>,
    /// What the caller has no room for yet.
    waiting: VecDeque<ConsumerEvent>,
    waiting_since: Option<Instant>,
    stalled: bool,
    away_since: Option<Instant>,
    stopped: bool,
}

impl Poll {
    pub(super) fn new(
        consumer: BaseConsumer<Rebalances>,
        options: ConsumerOptions,
        shared: Arc<Shared>,
        sender: mpsc::Sender<ConsumerEvent>,
    ) -> Self {
        Poll {
            consumer,
            options,
            shared,
            sender,
            lanes: Vec::new(),
            waiting: VecDeque::new(),
            waiting_since: None,
            stalled: false,
            away_since: None,
            stopped: false,
        }
    }

    pub(super) fn run(mut self) {
        let me = thread::current();
        self.shared.set_thread(me.clone());
        self.consumer.set_nonempty_callback(move || me.unpark());
        while !self.stopped {
            self.obey();
            let delivered = self.deliver();
            let busy = if delivered { self.unstall() || self.collect() } else { self.stall() };
            self.look_for_kafka();
            if !busy && !self.stopped {
                thread::park_timeout(NAP);
            }
        }
        // Dropping the client leaves the group.
    }

    fn obey(&mut self) {
        let commands = self.shared.commands();
        for command in commands {
            match command {
                Command::Start { partition, generation, offset } => {
                    let lane = self.lane(&partition).filter(|lane| lane.generation == generation);
                    if let Some(lane) = lane {
                        lane.wanted = Some(offset);
                        lane.started = false;
                        lane.records.clear();
                    }
                }
                Command::Pause(partitions) => self.set_paused(&partitions, true),
                Command::Resume(partitions) => self.set_paused(&partitions, false),
                Command::Stop => self.stopped = true,
            }
        }
        for index in 0..self.lanes.len() {
            if self.lanes[index].wanted.is_some() && !self.start(index) {
                // Kafka does not answer: asking for each of the others would take as long again.
                break;
            }
        }
    }

    fn lane(&mut self, partition: &TopicPartition) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.partition == *partition)
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        let mut list = TopicPartitionList::new();
        for lane in self.lanes.iter_mut().filter(|lane| partitions.contains(&lane.partition)) {
            if lane.paused != paused {
                lane.paused = paused;
                if lane.started {
                    list.add_partition(&lane.partition.topic, lane.partition.partition);
                }
            }
        }
        if !self.stalled {
            self.fetching(&list, !paused);
        }
    }

    fn fetching(&self, list: &TopicPartitionList, on: bool) {
        if list.count() == 0 {
            return;
        }
        let done = if on { self.consumer.resume(list) } else { self.consumer.pause(list) };
        if let Err(error) = done {
            tracing::warn!(%error, on, "cannot pause or resume");
        }
    }

    /// Begins at the wanted offset, if it is there; else tries again at the next round. False when
    /// Kafka does not answer.
    fn start(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        let (topic, number) = (&*lane.partition.topic, lane.partition.partition);
        let Some(offset) = lane.wanted else { return true };
        let Ok((low, high)) = self.consumer.fetch_watermarks(topic, number, QUESTION) else {
            return false;
        };
        let list = one(topic, number, None);
        if offset < low || offset > high {
            lane.wanted = None;
            let (partition, generation) = (lane.partition.clone(), lane.generation);
            let event = ConsumerEvent::OutOfRange { partition, generation, offset, low, high };
            self.waiting.push_back(event);
            self.fetching(&list, false);
            return true;
        }
        if let Err(error) = begin(&self.consumer, lane, offset) {
            // Just assigned, it may not be ready to be sought yet.
            tracing::debug!(%error, partition = %lane.partition, offset, "not started yet");
            return true;
        }
        lane.wanted = None;
        lane.broken = false;
        lane.started = true;
        lane.next = offset;
        if !lane.paused && !self.stalled {
            self.fetching(&list, true);
        }
        true
    }

    /// Hands over what waits; false when the caller has no room.
    fn deliver(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => self.waiting_since = None,
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    // Told first and asked again, so that no taking goes unnoticed.
                    if self.shared.is_told_blocked() {
                        self.waiting_since.get_or_insert_with(Instant::now);
                        return false;
                    }
                }
                Err(TrySendError::Closed(_)) => {
                    self.stopped = true;
                    return false;
                }
            }
        }
        self.waiting_since = None;
        true
    }

    /// The caller takes nothing: after a while nothing more is fetched, so that polling, which
    /// keeps the membership, yields no more records.
    fn stall(&mut self) -> bool {
        let since = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        if since < STALL || self.stopped {
            return false;
        }
        if !self.stalled {
            self.stalled = true;
            self.fetching(&self.flowing(), false);
        }
        self.poll_once();
        false
    }

    fn unstall(&mut self) -> bool {
        if self.stalled {
            self.stalled = false;
            self.fetching(&self.flowing(), true);
        }
        false
    }

    fn flowing(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for lane in self.lanes.iter().filter(|lane| lane.started && !lane.paused) {
            list.add_partition(&lane.partition.topic, lane.partition.partition);
        }
        list
    }

    /// Takes what the client has, up to a batch; false when there was nothing.
    fn collect(&mut self) -> bool {
        let (mut records, mut bytes) = (0, 0);
        while records < self.options.batch_records && bytes < self.options.batch_bytes {
            match self.poll_once() {
                Polled::Record(size) => {
                    records += 1;
                    bytes += size;
                }
                Polled::Other => {}
                Polled::Nothing => break,
            }
        }
        for lane in self.lanes.iter_mut().filter(|lane| !lane.records.is_empty()) {
            self.waiting.push_back(ConsumerEvent::Batch(Batch {
                partition: lane.partition.clone(),
                generation: lane.generation,
                records: std::mem::take(&mut lane.records),
            }));
        }
        !self.waiting.is_empty()
    }

    fn poll_once(&mut self) -> Polled {
        let polled = match self.consumer.poll(Duration::ZERO) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(take(&mut self.lanes, &message)),
            Some(Err(error)) => Err(error),
        };
        let rebalanced = self.follow_rebalances();
        match polled {
            Ok(Polled::Nothing) if rebalanced => Polled::Other,
            Ok(Polled::Record(size)) => {
                if self.away_since.take().is_some() {
                    self.waiting.push_back(ConsumerEvent::State(ConsumerState::Connected));
                }
                Polled::Record(size)
            }
            Ok(polled) => polled,
            Err(error) => {
                self.weigh(&error);
                Polled::Other
            }
        }
    }

    /// Takes over what the rebalance callbacks did during the last poll.
    fn follow_rebalances(&mut self) -> bool {
        let events = self.consumer.context().events();
        let some = !events.is_empty();
        for event in events {
            if let ConsumerEvent::Assigned { partitions, generation } = &event {
                self.lanes.retain(|lane| !partitions.contains(&lane.partition));
                self.lanes.extend(partitions.iter().map(|partition| Lane {
                    partition: partition.clone(),
                    generation: *generation,
                    wanted: None,
                    started: false,
                    paused: false,
                    broken: false,
                    next: 0,
                    records: Vec::new(),
                }));
            }
            if let ConsumerEvent::Revoked { partitions, .. } = &event {
                self.lanes.retain(|lane| !partitions.contains(&lane.partition));
            }
            self.waiting.push_back(event);
        }
        some
    }

    fn weigh(&mut self, error: &Client) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                if self.away_since.is_none() {
                    let away = ConsumerState::Away(error.to_string());
                    self.waiting.push_back(ConsumerEvent::State(away));
                }
                self.away_since = Some(Instant::now());
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.begin_again(),
            Some(_) | None => tracing::debug!(%error, "kafka consumer"),
        }
    }

    /// Some partition's offset is not there, and the client does not say which one's: all begin
    /// again where they are, and the beginning finds out.
    fn begin_again(&mut self) {
        for lane in &mut self.lanes {
            // Also one that was not started yet: the client may have fetched at the offset that it
            // was assigned with before it was paused, and what failed so cannot be sought.
            lane.broken = true;
            if lane.started {
                lane.wanted = Some(lane.next);
                lane.started = false;
            }
        }
    }

    /// Asks for Kafka while it is away: with nothing to read, nothing else tells that it is back.
    fn look_for_kafka(&mut self) {
        let due = self.away_since.is_some_and(|since| since.elapsed() > Duration::from_secs(1));
        if !due {
            return;
        }
        let topic = self.options.topics.first().map(String::as_str);
        if self.consumer.fetch_metadata(topic, Duration::from_millis(300)).is_ok() {
            self.away_since = None;
            self.waiting.push_back(ConsumerEvent::State(ConsumerState::Connected));
        } else {
            self.away_since = Some(Instant::now());
        }
    }
}

enum Polled {
    /// A record of so many bytes.
    Record(usize),
    /// Something that is no record.
    Other,
    Nothing,
}

fn take(lanes: &mut [Lane], message: &BorrowedMessage<'_>) -> Polled {
    let (topic, number) = (message.topic(), message.partition());
    let ours =
        |lane: &&mut Lane| lane.partition.partition == number && lane.partition.topic == topic;
    match lanes.iter_mut().find(ours) {
        Some(lane) if lane.started && message.offset() >= lane.next => {
            lane.next = message.offset() + 1;
            lane.records.push(wire::read(message));
            // Headers and what our own types need come to about as much.
            Polled::Record(message.payload_len() + message.key_len() + 512)
        }
        Some(_) | None => Polled::Other,
    }
}

fn begin(consumer: &BaseConsumer<Rebalances>, lane: &Lane, offset: i64) -> Result<(), Client> {
    let TopicPartition { topic, partition } = &lane.partition;
    if lane.broken {
        let list = one(topic, *partition, Some(offset));
        consumer.incremental_unassign(&list)?;
        consumer.incremental_assign(&list)?;
        return consumer.pause(&list);
    }
    let sought = consumer.seek_partitions(one(topic, *partition, Some(offset)), QUESTION)?;
    sought.elements().iter().try_for_each(|element| element.error())
}

fn one(topic: &str, partition: i32, offset: Option<i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    if let Some(offset) = offset {
        // Fails only for offsets below zero, which nobody wants here.
        let _ = element.set_offset(Offset::Offset(offset));
    }
    list
}
