//! What the caller's side, the polling thread and the client's callbacks share.

use super::ConsumerEvent;
use foldstream_core::TopicPartition;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as Client;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// What the caller wants.
#[derive(Debug)]
pub(super) enum Command {
    Start { partition: TopicPartition, generation: u64, offset: i64 },
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Stop,
}

/// What the thread and the caller's side share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    commands: Mutex<VecDeque<Command>>,
    /// The generation of each partition that is ours.
    current: Mutex<HashMap<TopicPartition, u64>>,
    thread: OnceLock<Thread>,
    blocked: AtomicBool,
}
impl Shared {
    pub(super) fn set_thread(&self, thread: Thread) {
        self.thread.get_or_init(|| thread);
    }
    pub(super) fn tell(&self, command: Command) {
        lock(&self.commands).push_back(command);
        self.wake();
    }
    pub(super) fn is_current(&self, partition: &TopicPartition, generation: u64) -> bool {
        lock(&self.current).get(partition) == Some(&generation)
    }
    /// The caller took an event: there is room again.
    pub(super) fn taken(&self) {
        if self.blocked.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }
    /// What the caller said since the last call.
    pub(super) fn commands(&self) -> VecDeque<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }
    /// Notes that there is no room; whether that was noted before.
    pub(super) fn is_told_blocked(&self) -> bool {
        self.blocked.swap(true, Ordering::AcqRel)
    }
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// A lock whose holder panicked still guards a value that is whole: nothing that can panic is done
/// under these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries out rebalances and notes them for the thread.
pub(super) struct Rebalances {
    shared: Arc<Shared>,
    noted: Mutex<Noted>,
}
#[derive(Default)]
struct Noted {
    generation: u64,
    events: VecDeque<ConsumerEvent>,
}
impl Rebalances {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Rebalances { shared, noted: Mutex::default() }
    }
    /// What happened since the last call.
    pub(super) fn events(&self) -> VecDeque<ConsumerEvent> {
        std::mem::take(&mut lock(&self.noted).events)
    }
}
impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::settings::log(level, facility, message);
    }
    fn error(&self, error: Client, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}
impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = partitions(list);
        let mut noted = lock(&self.noted);
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            noted.generation += 1;
            let generation = noted.generation;
            // Any offset will do, for nothing is fetched before the caller names its own; without
            // one the client would ask the group for it.
            let done = list
                .set_all_offsets(Offset::Offset(0))
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| consumer.pause(list));
            if let Err(error) = done {
                tracing::warn!(%error, "cannot take assigned partitions");
            }
            let mut current = lock(&self.shared.current);
            current.extend(partitions.iter().map(|p| (p.clone(), generation)));
            noted.events.push_back(ConsumerEvent::Assigned { partitions, generation });
        } else {
            let lost = consumer.assignment_lost();
            lock(&self.shared.current).retain(|partition, _| !partitions.contains(partition));
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::warn!(%error, "cannot give up revoked partitions");
            }
            noted.events.push_back(ConsumerEvent::Revoked { partitions, lost });
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let partition = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        TopicPartition::new(e.topic(), e.partition())
    };
    list.elements().iter().map(partition).collect()
}
