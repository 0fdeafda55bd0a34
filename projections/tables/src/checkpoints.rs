//! Checkpoints: who owns a topic-partition of a build, and how far it is folded.
//!
//! A checkpoint moves in the transaction that writes the rows, before them: [`advance`] looks at
//! epoch and position, so a worker that lost its partition, or one that fell asleep over its batch,
//! changes nothing. The caller sets the deadline.

use crate::TableError;
use foldstream_core::{Timestamp, TopicPartition};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

/// What stands in the way of a partition, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionState {
    /// Nothing.
    Running,
    /// An event is missing in the topic; later ones wait.
    Gap,
    /// An event could not be folded.
    Failed,
}
impl PartitionState {
    /// `running`, `gap` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            PartitionState::Running => "running",
            PartitionState::Gap => "gap",
            PartitionState::Failed => "failed",
        }
    }
    /// The state of this name; a name from a later version is a failure here.
    pub fn from_name(name: &str) -> Self {
        match name {
            "running" => PartitionState::Running,
            "gap" => PartitionState::Gap,
            _ => PartitionState::Failed,
        }
    }
}

/// Which build of which read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildRef {
    /// The read model's name.
    pub read_model: &'static str,
    /// Its build.
    pub build: i32,
}

/// How far a partition is folded, and under which epoch it may be moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which partition.
    pub partition: TopicPartition,
    /// The position of the last event folded; 0 before the first.
    pub position: u64,
    /// The offset of its record.
    pub offset: Option<i64>,
    /// The event store that gave the positions, once known.
    pub store_id: Option<Uuid>,
    /// The id of the last event folded.
    pub event_id: Option<Uuid>,
    /// The owner's epoch.
    pub epoch: i64,
    /// Assignments since the last commit, this one included.
    pub attempts: i32,
    /// What stood in the way.
    pub state: PartitionState,
    /// Why.
    pub detail: Option<String>,
}

/// Takes partitions over: from here on only writes with the new epochs count.
///
/// # Errors
/// When Postgres is away or refuses.
pub async fn claim(
    connection: &mut PgConnection,
    build: BuildRef,
    partitions: &[TopicPartition],
) -> Result<Vec<Checkpoint>, TableError> {
    let (topics, numbers) = columns(partitions);
    let rows = sqlx::query(
        r#"insert into meta.checkpoints as c (read_model, build, topic, partition, attempts)
           select $1, $2, topic, partition, 1
           from unnest($3::text[], $4::int4[]) as w (topic, partition) order by 3, 4
           on conflict (read_model, build, topic, partition)
           do update set epoch = c.epoch + 1, attempts = c.attempts + 1
           returning topic, partition, position, "offset", store_id, event_id, epoch, attempts,
             state, detail"#,
    )
    .bind(build.read_model)
    .bind(build.build)
    .bind(topics)
    .bind(numbers)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(checkpoint).collect::<Result<_, _>>()?)
}

fn columns(partitions: &[TopicPartition]) -> (Vec<&str>, Vec<i32>) {
    partitions.iter().map(|at| (at.topic.as_str(), at.partition)).unzip()
}

fn checkpoint(row: &PgRow) -> Result<Checkpoint, sqlx::Error> {
    Ok(Checkpoint {
        partition: TopicPartition::new(row.try_get::<String, _>(0)?, row.try_get(1)?),
        position: row.try_get::<i64, _>(2)?.unsigned_abs(),
        offset: row.try_get(3)?,
        store_id: row.try_get(4)?,
        event_id: row.try_get(5)?,
        epoch: row.try_get(6)?,
        attempts: row.try_get(7)?,
        state: PartitionState::from_name(row.try_get(8)?),
        detail: row.try_get(9)?,
    })
}

/// One step of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Which partition.
    pub partition: TopicPartition,
    /// The owner's epoch.
    pub epoch: i64,
    /// Where it stands, as far as the owner knows.
    pub from: u64,
    /// The position of the last event folded now.
    pub to: u64,
    /// The offset of its record.
    pub offset: i64,
    /// The event store that gave the positions.
    pub store_id: Option<Uuid>,
    /// The id of that event.
    pub event_id: Uuid,
    /// When it was recorded.
    pub last_event_at: Timestamp,
}

/// Moves checkpoints on; answers which moved. Fewer than steps: roll back, drop the others, begin
/// anew. The first statement of the transaction that writes the rows, so
/// that locks are taken in one order: checkpoints, then tables.
///
/// # Errors
/// When Postgres is away or refuses.
pub async fn advance(
    connection: &mut PgConnection,
    build: BuildRef,
    steps: &[Advance],
) -> Result<Vec<TopicPartition>, TableError> {
    let times: Vec<_> = steps.iter().map(|s| s.last_event_at.utc()).collect();
    let moved: Vec<(String, i32)> = sqlx::query_as(
        r#"update meta.checkpoints c set position = w.reached, "offset" = w.at,
               store_id = coalesce(w.store_id, c.store_id), event_id = w.event_id,
               last_event_at = w.last_event_at, updated_at = clock_timestamp(), attempts = 0,
               state = 'running', detail = null,
               state_since = case when c.state = 'running' then c.state_since
                 else clock_timestamp() end
             from unnest($3::text[], $4::int4[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
                 $9::uuid[], $10::uuid[], $11::timestamptz[])
               as w (topic, partition, epoch, position, reached, at, store_id, event_id,
                 last_event_at)
             where c.read_model = $1 and c.build = $2 and c.topic = w.topic
               and c.partition = w.partition and c.epoch = w.epoch and c.position = w.position
             returning c.topic, c.partition"#,
    )
    .bind(build.read_model)
    .bind(build.build)
    .bind(steps.iter().map(|s| s.partition.topic.as_str()).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| s.partition.partition).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| s.epoch).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| signed(s.from)).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| signed(s.to)).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| s.offset).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| s.store_id).collect::<Vec<_>>())
    .bind(steps.iter().map(|s| s.event_id).collect::<Vec<_>>())
    .bind(times)
    .fetch_all(connection)
    .await?;
    Ok(moved.into_iter().map(|(topic, number)| TopicPartition::new(topic, number)).collect())
}

/// Positions come from an `int8` and stay below 2⁶³.
fn signed(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// Says what stands in the way of a partition. Changes nothing under another epoch; answers
/// whether it did.
///
/// # Errors
/// When Postgres is away or refuses.
pub async fn tell(
    connection: &mut PgConnection,
    build: BuildRef,
    partition: &TopicPartition,
    epoch: i64,
    state: PartitionState,
    detail: &str,
) -> Result<bool, TableError> {
    let done = sqlx::query(
        "update meta.checkpoints set state = $6, detail = $7,
           state_since = case when state = $6 then state_since else clock_timestamp() end
         where read_model = $1 and build = $2 and topic = $3 and partition = $4 and epoch = $5",
    )
    .bind(build.read_model)
    .bind(build.build)
    .bind(&partition.topic)
    .bind(partition.partition)
    .bind(epoch)
    .bind(state.as_str())
    .bind(detail)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
