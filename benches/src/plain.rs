//! What one writes without an event store of its own: one transaction per command through a pool,
//! into the same tables. The unique index on stream and version tells who came second.

use anyhow::{Result, bail};
use foldstream_core::{Uuid, partition_of};
use sqlx::PgPool;
use sqlx::error::ErrorKind;
use sqlx::postgres::PgPoolOptions;
use sqlx::types::chrono::Utc;
use std::time::Duration;

/// Connections of a pool unless `--pool` says otherwise.
const CONNECTIONS: u32 = 32;
/// So many writers may queue for a connection that the last one waits long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Positions come from a sequence: cheap, but with gaps and out of commit order.
const SEQUENCE: &str = "create sequence bench_position cache 100";

const INSERT: &str = "
    insert into events (topic, partition, position, stream_id, version, event_id, command_id,
                        ordinal, type, schema_id, data, metadata, recorded_at)
    values ($1, $2, nextval('bench_position'), $3, $4, $5, $6, 0, $7, 1, $8, $9, $10)";
const INSERT_MANY: &str = "
    insert into events (topic, partition, position, stream_id, version, event_id, command_id,
                        ordinal, type, schema_id, data, metadata, recorded_at)
    select $1, $2, nextval('bench_position'), $3, $4 + n - 1, id, $6, n - 1, $7, 1, data, $9, $10
    from unnest($5::uuid[], $8::bytea[]) with ordinality as new(id, data, n)";
const INSERT_AFTER: &str = "
    insert into events (topic, partition, position, stream_id, version, event_id, command_id,
                        ordinal, type, schema_id, data, metadata, recorded_at)
    select $1, $2, $11 + n, $3, $4 + n - 1, id, $6, n - 1, $7, 1, data, $9, $10
    from unnest($5::uuid[], $8::bytea[]) with ordinality as new(id, data, n)";

const VERSION: &str =
    "select coalesce(max(version), 0) from events where topic = $1 and stream_id = $2";
const LOCK_HEAD: &str = "
    update heads set position = position + $3 where topic = $1 and partition = $2
    returning position - $3";

/// How a command is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// One INSERT that is its own transaction: the least one can do.
    Insert,
    /// BEGIN, the version, INSERT, COMMIT.
    Transaction,
    /// The same under the lock of the partition's head row, with gapless positions.
    Locked,
}

/// A tuned pool on a database with the event tables.
pub(crate) async fn pool(url: &str, writers: usize, most: Option<u32>) -> Result<PgPool> {
    let most = most.unwrap_or(CONNECTIONS);
    let most = u32::try_from(writers).map_or(most, |writers| writers.min(most));
    let pool = PgPoolOptions::new()
        .max_connections(most)
        .min_connections(most)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    sqlx::query(SEQUENCE).execute(&pool).await?;
    Ok(pool)
}

/// Events of one command for one stream, encoded.
pub(crate) struct Command<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    pub(crate) stream: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) data: Vec<Vec<u8>>,
    pub(crate) metadata: serde_json::Value,
}

/// Writes the commands of one writer.
#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) pool: PgPool,
    pub(crate) way: Way,
    /// Whether others write the same streams, so that the version has to be read each time.
    pub(crate) shared: bool,
}

impl Plain {
    /// Appends, trying again whenever another writer was faster; answers the version reached.
    /// `known` is the version that this writer left the stream at.
    pub(crate) async fn append(&self, command: &Command<'_>, known: i64) -> Result<i64> {
        let mut version = known;
        let mut is_stale = self.shared;
        loop {
            let written = match self.way {
                Way::Insert => {
                    if is_stale {
                        version = self.version(command).await?;
                    }
                    insert(&self.pool, command, version, None).await
                }
                Way::Transaction => self.in_transaction(command).await,
                Way::Locked => self.locked(command).await,
            };
            match written {
                Ok(version) => return Ok(version),
                Err(error) if is_conflict(&error) => is_stale = true,
                Err(error) => bail!(error),
            }
        }
    }
    async fn version(&self, command: &Command<'_>) -> Result<i64> {
        let version = sqlx::query_scalar(VERSION).bind(command.topic).bind(command.stream);
        Ok(version.fetch_one(&self.pool).await?)
    }
    async fn in_transaction(&self, command: &Command<'_>) -> sqlx::Result<i64> {
        let mut transaction = self.pool.begin().await?;
        let version = sqlx::query_scalar(VERSION).bind(command.topic).bind(command.stream);
        let version = version.fetch_one(&mut *transaction).await?;
        let version = insert(&mut *transaction, command, version, None).await?;
        transaction.commit().await?;
        Ok(version)
    }
    async fn locked(&self, command: &Command<'_>) -> sqlx::Result<i64> {
        let mut transaction = self.pool.begin().await?;
        let position = sqlx::query_scalar(LOCK_HEAD)
            .bind(command.topic)
            .bind(partition_of(command.stream, command.partitions))
            .bind(command.data.len() as i64)
            .fetch_one(&mut *transaction)
            .await?;
        // A statement of its own, after the lock: it sees what the holder before committed.
        let version = sqlx::query_scalar(VERSION).bind(command.topic).bind(command.stream);
        let version = version.fetch_one(&mut *transaction).await?;
        let version = insert(&mut *transaction, command, version, Some(position)).await?;
        transaction.commit().await?;
        Ok(version)
    }
}

/// Inserts the events after this version, at positions after that one or from the sequence.
async fn insert<'c>(
    on: impl sqlx::PgExecutor<'c>,
    command: &Command<'_>,
    version: i64,
    position: Option<i64>,
) -> sqlx::Result<i64> {
    let partition = partition_of(command.stream, command.partitions);
    let ids: Vec<Uuid> = command.data.iter().map(|_| Uuid::new_v4()).collect();
    let sql = match (position, command.data.len()) {
        (Some(_), _) => INSERT_AFTER,
        (None, 1) => INSERT,
        (None, _) => INSERT_MANY,
    };
    let mut query =
        sqlx::query(sql).bind(command.topic).bind(partition).bind(command.stream).bind(version + 1);
    query = if sql == INSERT { query.bind(ids[0]) } else { query.bind(ids) };
    query = query.bind(Uuid::new_v4()).bind(command.event_type);
    query = if sql == INSERT { query.bind(&command.data[0]) } else { query.bind(&command.data) };
    query = query.bind(&command.metadata).bind(Utc::now());
    if let Some(position) = position {
        query = query.bind(position);
    }
    query.execute(on).await?;
    Ok(version + command.data.len() as i64)
}

fn is_conflict(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.kind() == ErrorKind::UniqueViolation)
}
