//! Where each partition stands, for whoever asks and for the metrics.

use crate::RelayMetrics;
use crate::planted::skips_gaps;
use foldstream_core::{Claim, Head, Progress, TopicPartition};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a relay does with one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum PartitionState {
    /// Events leave as they are appended.
    Relaying,
    /// It looks into the topic for what is there already.
    TakingOver,
    /// The topic does not exist. It is waited for.
    MissingTopic,
    /// No broker answers; why. It is waited for.
    KafkaAway(String),
    /// The event store does not answer; why. It is waited for.
    OutboxAway(String),
    /// The topic contradicts the event store: somebody has to look. Nothing is sent.
    Stopped(String),
}
impl PartitionState {
    /// Whether events leave.
    pub fn is_relaying(&self) -> bool {
        *self == PartitionState::Relaying
    }
    /// The value of the metric `relay_state`.
    pub fn code(&self) -> i64 {
        match self {
            PartitionState::Relaying => 0,
            PartitionState::TakingOver => 1,
            PartitionState::MissingTopic => 2,
            PartitionState::KafkaAway(_) => 3,
            PartitionState::OutboxAway(_) => 4,
            PartitionState::Stopped(_) => 5,
        }
    }
}

/// One partition of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Which one.
    #[serde(flatten)]
    pub partition: TopicPartition,
    /// What the relay does with it.
    #[serde(flatten)]
    pub state: PartitionState,
    /// The position of the last event in the store, as last seen.
    pub head: u64,
    /// The position up to which Kafka has acknowledged everything.
    pub acknowledged: u64,
}

/// A relay as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RelayStatus {
    /// Whether it ever heard from the event store which partitions are its own.
    pub claimed: bool,
    /// Why it cannot renew its claims, if it cannot.
    pub outbox_error: Option<String>,
    /// The partitions that it owns, in order. Others belong to other relays.
    pub partitions: Vec<PartitionStatus>,
}
impl RelayStatus {
    /// Why this relay is not ready, if it is not: it cannot claim, or some partition does not
    /// relay.
    pub fn trouble(&self) -> Option<String> {
        if let Some(error) = &self.outbox_error {
            return Some(format!("the event store does not answer: {error}"));
        }
        if !self.claimed {
            return Some("no claims yet".into());
        }
        let mut standing = self.partitions.iter().filter(|p| !p.state.is_relaying());
        let first = standing.next()?;
        let more = match standing.count() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let PartitionStatus { partition, state, .. } = first;
        Some(match state {
            PartitionState::Relaying => return None,
            PartitionState::TakingOver => format!("{partition} is being taken over{more}"),
            PartitionState::MissingTopic => format!("topic {} is missing{more}", partition.topic),
            PartitionState::KafkaAway(why) => format!("{partition}: Kafka is away: {why}{more}"),
            PartitionState::OutboxAway(why) => format!("{partition}: database away: {why}{more}"),
            PartitionState::Stopped(why) => format!("{partition} is stopped: {why}{more}"),
        })
    }
}

/// One claimed partition during one session.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) claim: Claim,
    /// The last position that was appended, as last heard.
    pub(super) head: watch::Sender<u64>,
    /// The last position given to the producer.
    pub(super) sent: AtomicU64,
    /// The contiguous acknowledged run.
    run: Mutex<Progress>,
    /// Set by the takeover: from then on acknowledgements count.
    taken_over: AtomicBool,
    /// Cancelled when the partition is to go to another relay: nothing more is begun.
    pub(super) leave: CancellationToken,
    /// Nothing is sent any more, whatever is still under way.
    rests: AtomicBool,
    state: Mutex<PartitionState>,
}
impl Slot {
    pub(super) fn new(claim: Claim) -> Self {
        let position = claim.progress.position;
        Slot {
            run: Mutex::new(claim.progress),
            claim,
            head: watch::Sender::new(position),
            sent: AtomicU64::new(position),
            taken_over: AtomicBool::new(false),
            leave: CancellationToken::new(),
            rests: AtomicBool::new(false),
            state: Mutex::new(PartitionState::TakingOver),
        }
    }
    pub(super) fn partition(&self) -> &TopicPartition {
        &self.claim.partition
    }
    pub(super) fn begin(&self, progress: Progress) {
        self.sent.store(progress.position, Ordering::Release);
        *lock(&self.run) = progress;
        self.taken_over.store(true, Ordering::Release);
    }
    pub(super) fn acknowledge(&self, position: u64, offset: i64) -> Result<(), String> {
        let mut run = lock(&self.run);
        if position != run.position + 1 && !skips_gaps() {
            return Err(format!("position {position} was acknowledged after {}", run.position));
        }
        if let Some(before) = run.offset.filter(|before| offset <= *before) {
            return Err(format!("the topic lost records: offset {offset} came after {before}"));
        }
        *run = Progress { position, offset: Some(offset) };
        Ok(())
    }
    pub(super) fn progress(&self) -> Progress {
        *lock(&self.run)
    }
    pub(super) fn is_drained(&self) -> bool {
        self.progress().position == self.sent.load(Ordering::Acquire)
    }
    /// Nothing of it will be sent from now on.
    pub(super) fn rest(&self) {
        self.rests.store(true, Ordering::Release);
    }
    /// It is on its way to another relay, and nothing of it is under way any more.
    pub(super) fn has_left(&self) -> bool {
        self.leave.is_cancelled() && self.rests.load(Ordering::Acquire) && self.is_drained()
    }
    /// The partition goes up to this position at least.
    pub(super) fn hear(&self, head: u64) {
        self.head.send_if_modified(|known| {
            let more = head > *known;
            *known = head.max(*known);
            more
        });
    }
    pub(super) fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Acquire)
    }
    pub(super) fn state(&self) -> PartitionState {
        lock(&self.state).clone()
    }
}

/// What is known of all partitions of a relay; outlives sessions.
#[derive(Debug, Default)]
pub(super) struct Board {
    claimed: AtomicBool,
    outbox_error: Mutex<Option<String>>,
    slots: Mutex<BTreeMap<TopicPartition, Arc<Slot>>>,
    kafka_away: Mutex<Option<String>>,
    metrics: Option<RelayMetrics>,
}
impl Board {
    pub(super) fn new(metrics: Option<RelayMetrics>) -> Self {
        Board { metrics, ..Board::default() }
    }
    pub(super) fn claims(&self, result: Result<(), String>) {
        if result.is_ok() {
            self.claimed.store(true, Ordering::Release);
        }
        *lock(&self.outbox_error) = result.err();
    }
    pub(super) fn put(&self, slot: &Arc<Slot>) {
        lock(&self.slots).insert(slot.partition().clone(), slot.clone());
        self.show(slot);
    }
    pub(super) fn clear(&self) {
        let slots = std::mem::take(&mut *lock(&self.slots));
        slots.keys().for_each(|partition| self.hide(partition));
    }
    /// The partition belongs to another relay now.
    pub(super) fn remove(&self, partition: &TopicPartition) {
        lock(&self.slots).remove(partition);
        self.hide(partition);
    }
    fn hide(&self, partition: &TopicPartition) {
        if let Some(metrics) = &self.metrics {
            let number = partition.partition.to_string();
            // Fails when it was never shown, which is what is wanted.
            let _ = metrics.state.remove_label_values(&[&partition.topic, &number]);
        }
    }
    /// Tells the lanes how far their partitions go.
    pub(super) fn heads(&self, heads: &[Head]) {
        let slots = lock(&self.slots);
        for head in heads {
            if let Some(slot) = slots.get(&head.partition) {
                slot.hear(head.position);
            }
        }
    }
    /// Notes a state; true when it is a new one.
    pub(super) fn set(&self, slot: &Slot, state: PartitionState) -> bool {
        let new = {
            let mut current = lock(&slot.state);
            let new = *current != state;
            *current = state;
            new
        };
        if new {
            self.show(slot);
        }
        new
    }
    pub(super) fn kafka(&self, away: Option<String>) {
        let changed = {
            let mut current = lock(&self.kafka_away);
            let changed = current.is_some() != away.is_some();
            *current = away;
            changed
        };
        if changed {
            for slot in lock(&self.slots).values() {
                self.show(slot);
            }
        }
    }
    pub(super) fn is_kafka_away(&self) -> bool {
        lock(&self.kafka_away).is_some()
    }
    pub(super) fn published(&self, topic: &str, events: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.published.with_label_values(&[topic]).inc_by(events);
        }
    }
    pub(super) fn status(&self) -> RelayStatus {
        let status = |slot: &Arc<Slot>| PartitionStatus {
            partition: slot.partition().clone(),
            state: self.shown(slot),
            head: *slot.head.borrow(),
            acknowledged: slot.progress().position,
        };
        RelayStatus {
            claimed: self.claimed.load(Ordering::Acquire),
            outbox_error: lock(&self.outbox_error).clone(),
            partitions: lock(&self.slots).values().map(status).collect(),
        }
    }
    fn shown(&self, slot: &Slot) -> PartitionState {
        match (slot.state(), &*lock(&self.kafka_away)) {
            (PartitionState::Relaying, Some(why)) => PartitionState::KafkaAway(why.clone()),
            (state, _) => state,
        }
    }
    fn show(&self, slot: &Slot) {
        if let Some(metrics) = &self.metrics {
            let TopicPartition { topic, partition } = slot.partition();
            let labels = [topic.as_str(), &partition.to_string()];
            metrics.state.with_label_values(&labels).set(self.shown(slot).code());
        }
    }
}

/// A lock whose holder panicked still guards a value that is whole: each is written at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
