use crate::StoreError;
use foldstream_core::{AnyAggregate, SnapshotPolicy, StreamRef, TopicPartition, partition_of};
use std::sync::Arc;

/// The aggregates of the service with their topics.
pub(crate) struct Served {
    pub(crate) aggregates: Vec<ServedAggregate>,
    pub(crate) partitions: i32,
}

/// One of them.
pub(crate) struct ServedAggregate {
    pub(crate) topic: String,
    pub(crate) aggregate: Arc<dyn AnyAggregate>,
    /// `None` when it asks for none, or they are switched off.
    pub(crate) snapshots: Option<SnapshotPolicy>,
}

impl Served {
    pub(crate) fn new(
        app: &str,
        partitions: i32,
        all: Vec<Arc<dyn AnyAggregate>>,
        snapshots: bool,
    ) -> Self {
        let of = |aggregate: Arc<dyn AnyAggregate>| ServedAggregate {
            topic: format!("{app}.{}", aggregate.name()),
            snapshots: aggregate.snapshots().filter(|_| snapshots),
            aggregate,
        };
        Served { aggregates: all.into_iter().map(of).collect(), partitions }
    }
    /// The place of the aggregate of this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.aggregates.iter().position(|served| served.aggregate.name() == name)
    }
    /// The place of the aggregate with this topic.
    pub(crate) fn of_topic(&self, topic: &str) -> Result<usize, StoreError> {
        let found = self.aggregates.iter().position(|served| served.topic == topic);
        found.ok_or_else(|| StoreError::UnknownTopic(topic.into()))
    }
    pub(crate) fn partition(&self, stream: &StreamRef) -> i32 {
        partition_of(&stream.stream_id, self.partitions)
    }
    /// All partitions of all topics, in order.
    pub(crate) fn all_partitions(&self) -> Vec<TopicPartition> {
        let of = |served: &ServedAggregate| {
            let topic = served.topic.clone();
            (0..self.partitions).map(move |partition| TopicPartition::new(topic.clone(), partition))
        };
        let mut all: Vec<_> = self.aggregates.iter().flat_map(of).collect();
        all.sort();
        all
    }
}
