use crate::{Timestamp, TopicPartition};
use std::future::Future;
use uuid::Uuid;

/// How far a relay has come with one partition: the longest contiguous acknowledged run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last position of the run; 0 before the first.
    pub position: u64,
    /// The offset in the topic of the record with that position; `None` before the first.
    pub offset: Option<i64>,
}

/// The right to relay one partition, until it is lost to another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which partition.
    pub partition: TopicPartition,
    /// Counts up with each change of owner; every write of the owner carries it.
    pub epoch: i64,
    /// Where the owner before came to.
    pub progress: Progress,
}

/// What one relay holds, and how much of it it may keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// All that it holds now, in order of topic and partition.
    pub held: Vec<Claim>,
    /// How many it is entitled to while the relays that live now do. The shares of all of them
    /// make up all partitions.
    pub share: usize,
}
impl Claims {
    /// How many it has to hand over to others.
    pub fn surplus(&self) -> usize {
        self.held.len().saturating_sub(self.share)
    }
}

/// The lease of one partition, as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which partition.
    pub partition: TopicPartition,
    /// Who relays it; `None` when nobody does.
    pub owner: Option<String>,
    /// Counts up with each change of owner and each rewind.
    pub epoch: i64,
    /// Until when the owner has it unless it renews it, by the database's clock.
    pub expires_at: Option<Timestamp>,
    /// Whether it has run out: the owner is silent and nobody took over yet.
    pub has_expired: bool,
    /// How far the topic is known to hold the partition without a gap.
    pub progress: Progress,
    /// The last position given out.
    pub head: u64,
}

/// The last position given out in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which partition.
    pub partition: TopicPartition,
    /// The position of its last event; 0 when it has none.
    pub position: u64,
    /// When that event was appended.
    pub recorded_at: Option<Timestamp>,
}

/// An event as it leaves for its topic. The relay moves these bytes and makes up nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEvent {
    /// Its 1-based place in the partition.
    pub position: u64,
    /// The key of the record.
    pub stream_id: String,
    /// The 1-based place in its stream.
    pub version: u64,
    /// `ce_id`.
    pub event_id: Uuid,
    /// `ce_type`: the event's name with its namespace, such as `shop.invoices.InvoiceIssued`.
    pub event_type: String,
    /// The registry's id of the schema the datum was written with.
    pub schema_id: u32,
    /// The Avro datum.
    pub datum: Vec<u8>,
    /// `ce_time`, also the record's Kafka timestamp.
    pub recorded_at: Timestamp,
    /// `ce_correlationid`.
    pub correlation_id: Option<String>,
    /// `ce_causationid`.
    pub causation_id: Option<String>,
    /// `ce_actor`.
    pub actor: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
}

/// The port through which the relay sees an event store: the event table itself is the outbox.
///
/// All times are the database's. A method that fails leaves nothing half done.
pub trait Outbox: Send + Sync + 'static {
    /// What can go wrong: the database is away, or the lease was lost.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The id of the store, which its topics carry.
    fn store_id(&self) -> Uuid;
    /// Renews what is held, takes of what is free or has run out as much as is lacking to a fair
    /// share, and says what is held now. Whoever holds more than its share keeps it until it gives
    /// it up: others take only what is free.
    fn claim(&self) -> impl Future<Output = Result<Claims, Self::Error>> + Send;
    /// Gives these back, with nothing of them under way and their progress recorded.
    fn give_up(&self, claims: &[Claim]) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Gives everything back, at shutdown; this relay counts no more for the shares of others.
    fn release(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Contiguous events after a position, at most so many and so many bytes (at least one event
    /// when there is one).
    fn read(
        &self,
        partition: &TopicPartition,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<OutboxEvent>, Self::Error>> + Send;
    /// Writes progress under the claims' epochs; answers the partitions whose claim was lost.
    fn record(
        &self,
        progress: &[(Claim, Progress)],
    ) -> impl Future<Output = Result<Vec<TopicPartition>, Self::Error>> + Send;
    /// The leases of all partitions, in order, whoever holds them.
    fn leases(&self) -> impl Future<Output = Result<Vec<Lease>, Self::Error>> + Send;
    /// Sets the progress of a partition back and counts its epoch up: whoever owns it has lost its
    /// claim by that, looks into the topic from there on, and sends what is missing. True when the
    /// partition had come that far.
    fn rewind(
        &self,
        partition: &TopicPartition,
        to: Progress,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// The heads of all partitions.
    fn heads(&self) -> impl Future<Output = Result<Vec<Head>, Self::Error>> + Send;
    /// Returns when something was appended in this process, or after a while in any case: a hint
    /// to look, never a promise.
    fn woken(&self) -> impl Future<Output = ()> + Send;
}
