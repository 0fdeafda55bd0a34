use crate::TableError;
use crate::checkpoints::PartitionState;
use foldstream_core::{Timestamp, TopicPartition};
use serde::Deserialize;
use sqlx::postgres::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// An SQL expression of type `text` for the read model whose name is the parameter `$1`: the live
/// build with its checkpoints and heads, for [`Snapshot::parse`]; null when there is no live build.
///
/// In the statement that reads the rows it is of the rows' own snapshot. So a reader names the
/// table of the build it knows, asks for this beside the rows, and asks again with the new build
/// when the answer names another one:
/// `select (select meta.snapshot($1)::text), … from "rm_orders_b1"."orders"`.
pub const SNAPSHOT: &str = "(select meta.snapshot($1)::text)";

/// Heads older than this are not known: the relay writes them each second.
const HEADS_FRESH: Duration = Duration::from_secs(5);

/// The live build of a read model with its checkpoints and heads, of one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The build to read.
    pub build: i32,
    /// The version of its declaration.
    pub version: u32,
    /// When the snapshot was read, by the database's clock.
    pub now: Timestamp,
    /// Every partition that has a checkpoint or a head, by topic and number.
    pub partitions: Vec<PartitionSnapshot>,
}

/// How far one partition is folded.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionSnapshot {
    /// Which partition.
    pub partition: TopicPartition,
    /// The position of the last event folded; 0 before the first.
    pub position: u64,
    /// The event store that gave the positions, once known.
    pub store_id: Option<Uuid>,
    /// What stands in the way.
    pub state: PartitionState,
    /// When the last event folded was recorded.
    pub last_event_at: Option<Timestamp>,
    /// When the checkpoint last moved.
    pub updated_at: Option<Timestamp>,
    /// The last position of the topic-partition, when it is known (at most 5 s old).
    pub head: Option<u64>,
}

#[derive(Deserialize)]
struct Wire {
    build: i32,
    version: u32,
    now: i64,
    partitions: Vec<WirePartition>,
}
#[derive(Deserialize)]
struct WirePartition {
    topic: String,
    partition: i32,
    position: u64,
    store_id: Option<Uuid>,
    state: String,
    last_event_at: Option<i64>,
    updated_at: Option<i64>,
    head: Option<u64>,
    head_at: Option<i64>,
}

impl Snapshot {
    /// Reads what [`SNAPSHOT`] answered.
    ///
    /// # Errors
    /// When the text is not of this version of the `meta` schema.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let wire: Wire = serde_json::from_str(text)?;
        let fresh = HEADS_FRESH.as_micros() as i64;
        let partition = |p: WirePartition| PartitionSnapshot {
            partition: TopicPartition::new(p.topic, p.partition),
            position: p.position,
            store_id: p.store_id,
            state: PartitionState::from_name(&p.state),
            last_event_at: p.last_event_at.and_then(Timestamp::from_micros),
            updated_at: p.updated_at.and_then(Timestamp::from_micros),
            head: p.head.filter(|_| p.head_at.is_some_and(|at| wire.now - at <= fresh)),
        };
        Ok(Snapshot {
            build: wire.build,
            version: wire.version,
            now: Timestamp::from_micros(wire.now).unwrap_or(Timestamp::EPOCH),
            partitions: wire.partitions.into_iter().map(partition).collect(),
        })
    }
    /// The position of the last event folded of a partition; 0 before the first.
    pub fn position(&self, partition: &TopicPartition) -> u64 {
        let found = self.partitions.iter().find(|p| p.partition == *partition);
        found.map_or(0, |p| p.position)
    }
    /// Events not yet folded; `None` when that is not known.
    pub fn lag_events(&self) -> Option<u64> {
        let lag = |p: &PartitionSnapshot| p.head.map(|head| head.saturating_sub(p.position));
        if self.partitions.is_empty() { None } else { self.partitions.iter().map(lag).sum() }
    }
    /// The sum of the positions: how many events are folded.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|p| p.position).sum()
    }
}

/// Asks for the snapshot alone; `None` when the read model has no live build. The caller sets the
/// deadline. In a REPEATABLE READ transaction it is of the snapshot of the rows read there.
///
/// # Errors
/// When Postgres is away or refuses.
pub async fn read_snapshot(
    connection: &mut PgConnection,
    read_model: &str,
) -> Result<Option<Snapshot>, TableError> {
    let text: Option<String> = sqlx::query_scalar("select meta.snapshot($1)::text")
        .bind(read_model)
        .fetch_one(connection)
        .await?;
    text.as_deref().map(Snapshot::parse).transpose()
}
