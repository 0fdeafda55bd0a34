use foldstream_core::TopicPartition;
use foldstream_kafka::{ConsumerControl, ConsumerEvent, GroupConsumer};
use std::future::Future;
use std::time::Duration;

/// Where a worker's partitions and records come from: a consumer group, or a test.
pub(crate) trait Source: Send + 'static {
    /// What happened next; `None` when it is over. Safe to drop while it waits.
    fn next(&mut self) -> impl Future<Output = Option<ConsumerEvent>> + Send;
    /// Reads an assigned partition from this offset on.
    fn start(&self, partition: &TopicPartition, generation: u64, offset: i64);
    /// Reads nothing more of a partition.
    fn pause(&self, partition: &TopicPartition);
    /// Gives everything back, within the deadline.
    fn close(self, deadline: Duration) -> impl Future<Output = ()> + Send;
}

/// A member of a consumer group.
pub(crate) struct Group {
    consumer: GroupConsumer,
    control: ConsumerControl,
}
impl From<GroupConsumer> for Group {
    fn from(consumer: GroupConsumer) -> Self {
        let control = consumer.control();
        Group { consumer, control }
    }
}
impl Source for Group {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        self.consumer.next().await
    }
    fn start(&self, partition: &TopicPartition, generation: u64, offset: i64) {
        self.control.start(partition, generation, offset);
    }
    fn pause(&self, partition: &TopicPartition) {
        self.control.pause(std::slice::from_ref(partition));
    }
    async fn close(self, deadline: Duration) {
        self.consumer.close(deadline).await;
    }
}
