//! The consumer of projections: a consumer group says which partitions are ours, and nothing more.
//! Where to begin is the caller's to say, from the checkpoint it keeps beside its rows.

mod group;
mod poll;
mod shared;

pub use group::{ConsumerControl, GroupConsumer};

use crate::Delivered;
use foldstream_core::TopicPartition;
use std::time::Duration;

/// How a [`GroupConsumer`] consumes.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Kafka's bootstrap servers.
    pub bootstrap: String,
    /// The consumer group, such as `shop.sales_by_day.b3`.
    pub group: String,
    /// The topics, by full name. One that is missing is waited for.
    pub topics: Vec<String>,
    /// Names this client in the broker's logs.
    pub client_id: String,
    /// A batch has no more records.
    pub batch_records: usize,
    /// A batch has no more bytes, unless a single record has.
    pub batch_bytes: usize,
    /// So many batches wait for the caller; beyond them nothing is fetched.
    pub queued_batches: usize,
    /// What the client itself holds before it is asked for, in KiB.
    pub queue_kbytes: u32,
    /// A member that is silent for so long is taken for dead and its partitions go to others.
    pub session_timeout: Duration,
}
impl ConsumerOptions {
    /// Options of this group for these topics, with the defaults of the rest.
    pub fn new(
        bootstrap: impl Into<String>,
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let group = group.into();
        ConsumerOptions {
            bootstrap: bootstrap.into(),
            client_id: format!("foldstream-{group}"),
            group,
            topics: topics.into_iter().map(Into::into).collect(),
            batch_records: 5_000,
            batch_bytes: 1 << 20,
            queued_batches: 4,
            queue_kbytes: 8192,
            // The shortest that brokers allow by default: after a crash the partitions of the dead
            // wait for so long.
            session_timeout: Duration::from_secs(6),
        }
    }
}

/// What a consumer tells its caller, in order.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// These partitions are ours now. Nothing of them comes until [`ConsumerControl::start`] says
    /// from which offset.
    Assigned {
        /// Which ones.
        partitions: Vec<TopicPartition>,
        /// Counts up with each assignment; [`Batch::generation`] of what follows.
        generation: u64,
    },
    /// These partitions are no longer ours. Nothing more of them comes, not even what was read
    /// already.
    Revoked {
        /// Which ones.
        partitions: Vec<TopicPartition>,
        /// Whether they went without notice: another member may have them already.
        lost: bool,
    },
    /// Records of one partition, in the order of their offsets.
    Batch(Batch),
    /// The offset to read from is not in the topic, which was created again or cut off. Nothing
    /// more of this partition comes until it is started again.
    OutOfRange {
        /// Which partition.
        partition: TopicPartition,
        /// Its generation.
        generation: u64,
        /// The offset that is not there.
        offset: i64,
        /// The offset of the oldest record.
        low: i64,
        /// The offset that the next record gets.
        high: i64,
    },
    /// Kafka went away or came back. Reading goes on by itself.
    State(ConsumerState),
}

/// Whether Kafka can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerState {
    /// It can.
    Connected,
    /// It cannot; why.
    Away(String),
}

/// Records of one partition.
#[derive(Debug)]
pub struct Batch {
    /// Which partition.
    pub partition: TopicPartition,
    /// The generation of its assignment.
    pub generation: u64,
    /// Events, and what else was found, in the order of their offsets. Never empty.
    pub records: Vec<Delivered>,
}
