use super::poll::Poll;
use super::shared::{Command, Rebalances, Shared};
use super::{ConsumerEvent, ConsumerOptions};
use crate::reader::PartitionReader;
use crate::{Delivered, KafkaError, settings};
use foldstream_core::TopicPartition;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

/// A member of a consumer group. Dropping it leaves the group.
#[derive(Debug)]
pub struct GroupConsumer {
    events: mpsc::Receiver<ConsumerEvent>,
    control: ConsumerControl,
    ended: Option<oneshot::Receiver<()>>,
}

/// Tells a [`GroupConsumer`] what to do. Cheap to clone; usable from any task.
#[derive(Debug, Clone)]
pub struct ConsumerControl {
    shared: Arc<Shared>,
    reader: Arc<Mutex<Option<PartitionReader>>>,
    bootstrap: Arc<str>,
}

impl GroupConsumer {
    /// Joins the group. Polling happens on a thread of its own.
    ///
    /// # Errors
    /// When the client cannot be made of these options; a broker that is away is none.
    pub fn new(options: ConsumerOptions) -> Result<Self, KafkaError> {
        let mut config = settings::consumer(
            &options.bootstrap,
            &options.client_id,
            &options.group,
            options.queue_kbytes,
        );
        config
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", options.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", "1000")
            // The thread polls whatever the caller does, so this only finds a thread that hangs.
            .set("max.poll.interval.ms", "60000");
        let (sender, events) = mpsc::channel(options.queued_batches.max(1));
        let shared = Arc::new(Shared::default());
        let context = Rebalances::new(shared.clone());
        let consumer = BaseConsumer::from_config_and_context(&config, context)?;
        let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        let (end, ended) = oneshot::channel();
        let bootstrap = options.bootstrap.as_str().into();
        let poll = Poll::new(consumer, options, shared.clone(), sender);
        let thread = thread::Builder::new().name("kafka-consumer".into()).spawn(move || {
            poll.run();
            // Nobody may be waiting for the end.
            let _ = end.send(());
        });
        let thread = thread.map_err(|e| KafkaError::Configuration(format!("no thread: {e}")))?;
        shared.set_thread(thread.thread().clone());
        let control = ConsumerControl { shared, reader: Arc::default(), bootstrap };
        Ok(GroupConsumer { events, control, ended: Some(ended) })
    }

    /// What happened next; `None` after [`ConsumerControl::stop`]. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<ConsumerEvent> {
        loop {
            let event = self.events.recv().await?;
            self.control.shared.taken();
            match &event {
                ConsumerEvent::Batch(batch)
                    if !self.control.shared.is_current(&batch.partition, batch.generation) => {}
                ConsumerEvent::Assigned { .. }
                | ConsumerEvent::Revoked { .. }
                | ConsumerEvent::Batch(_)
                | ConsumerEvent::OutOfRange { .. }
                | ConsumerEvent::State(_) => return Some(event),
            }
        }
    }

    /// The way to steer it from elsewhere.
    pub fn control(&self) -> ConsumerControl {
        self.control.clone()
    }

    /// Leaves the group and waits until that is done, or the deadline is over.
    pub async fn close(mut self, deadline: Duration) {
        self.control.stop();
        self.events.close();
        if let Some(ended) = self.ended.take() {
            // Past the deadline the thread finishes alone.
            let _ = tokio::time::timeout(deadline, ended).await;
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl ConsumerControl {
    /// Reads an assigned partition from this offset on, whatever was read of it before. Of no
    /// effect when the partition is no longer assigned in this generation.
    pub fn start(&self, partition: &TopicPartition, generation: u64, offset: i64) {
        let partition = partition.clone();
        self.shared.tell(Command::Start { partition, generation, offset: offset.max(0) });
    }

    /// Fetches nothing more of these partitions until they are resumed. What is fetched and not
    /// yet handed over is fetched again later.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        self.shared.tell(Command::Pause(partitions.to_vec()));
    }

    /// Goes on with paused partitions where they stopped.
    pub fn resume(&self, partitions: &[TopicPartition]) {
        self.shared.tell(Command::Resume(partitions.to_vec()));
    }

    /// Leaves the group, in the background.
    pub fn stop(&self) {
        self.shared.tell(Command::Stop);
    }

    /// The record at an offset; `None` when there is none.
    ///
    /// # Errors
    /// Kafka is away, or the partition does not exist.
    pub async fn read_at(
        &self,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<Option<Delivered>, KafkaError> {
        let mut reader = self.reader().await?;
        let result = reader.read_at(partition, offset).await;
        self.put_back(reader).await;
        result
    }

    /// The offsets of the oldest record and of the next one.
    ///
    /// # Errors
    /// Kafka is away, or the partition does not exist.
    pub async fn watermarks(&self, partition: &TopicPartition) -> Result<(i64, i64), KafkaError> {
        let reader = self.reader().await?;
        let result = reader.watermarks(partition).await;
        self.put_back(reader).await;
        result
    }

    async fn reader(&self) -> Result<PartitionReader, KafkaError> {
        match self.reader.lock().await.take() {
            Some(reader) => Ok(reader),
            None => PartitionReader::new(&self.bootstrap),
        }
    }

    async fn put_back(&self, reader: PartitionReader) {
        *self.reader.lock().await = Some(reader);
    }
}
