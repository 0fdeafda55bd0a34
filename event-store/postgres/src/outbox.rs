//! The store as the relay sees it: contiguous reads and heads; leases are a file of their own.

use crate::connection::{Connections, in_time};
use crate::planted::{Fault, PAGE_OF_UNLOCKED, planted};
use crate::reading::{schema_id, unsigned};
use crate::writer::Shared;
use crate::{Metadata, StoreError, Timings};
use foldstream_core::{
    Claim, Claims, Head, Lease, Outbox, OutboxEvent, Progress, Timestamp, TopicPartition, Uuid,
};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

/// Another process appends without a signal: so long at least and at most between two looks.
const LOOK: (u64, u64) = (50, 500);

/// The event table as an outbox. One owner of leases: two of them, also in one process, never own
/// the same partition.
pub struct PostgresOutbox {
    store_id: Uuid,
    pub(crate) owner: String,
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) connections: Connections,
    pub(crate) connect: PgConnectOptions,
    pub(crate) timings: Timings,
    /// Leases and progress go over this one: a next owner terminates it.
    pub(crate) leases: Mutex<Option<PgConnection>>,
    appended: Mutex<watch::Receiver<u64>>,
    /// Milliseconds until the next look without a signal.
    look: AtomicU64,
}

impl PostgresOutbox {
    pub(crate) fn new(common: &Shared, owner: &str) -> Self {
        PostgresOutbox {
            store_id: common.store_id,
            owner: format!("{owner}/{}", Uuid::new_v4().simple()),
            partitions: common.reader.served.all_partitions(),
            connections: common.reader.connections.clone(),
            connect: common.connect.clone(),
            timings: common.timings.clone(),
            leases: Mutex::new(None),
            appended: Mutex::new(common.appended.subscribe()),
            look: AtomicU64::new(LOOK.0),
        }
    }
    /// Who it is in the table of leases.
    pub fn owner(&self) -> &str {
        &self.owner
    }
    /// How long a claim holds that is not renewed, by the database's clock. An owner that has not
    /// renewed for so long must not send.
    pub fn lease(&self) -> Duration {
        self.timings.lease
    }
}

#[derive(sqlx::FromRow)]
struct OutboxRow {
    position: i64,
    stream_id: String,
    version: i64,
    event_id: Uuid,
    #[sqlx(rename = "type")]
    event_type: String,
    schema_id: i64,
    data: Vec<u8>,
    metadata: Json<Metadata>,
    recorded_at: DateTime<Utc>,
}

impl OutboxRow {
    fn event(self) -> Result<OutboxEvent, StoreError> {
        let Json(metadata) = self.metadata;
        Ok(OutboxEvent {
            position: unsigned(self.position)?,
            stream_id: self.stream_id,
            version: unsigned(self.version)?,
            event_id: self.event_id,
            event_type: self.event_type,
            schema_id: schema_id(self.schema_id)?,
            datum: self.data,
            recorded_at: Timestamp::from(self.recorded_at),
            correlation_id: metadata.correlation_id,
            causation_id: metadata.causation_id,
            actor: metadata.actor,
            traceparent: metadata.traceparent,
        })
    }
}

/// A page of events. The sum that bounds its bytes runs over lengths alone: a window over whole
/// rows copies each of them twice.
const PAGE: &str = "
    select position, stream_id, version, event_id, type, schema_id, data, metadata, recorded_at
    from events
    where topic = $1 and partition = $2 and position > $3
      and position <= greatest($3 + 1, (
        select max(position) from (
            select position, sum(octet_length(data)) over (
                       order by position rows unbounded preceding) as bytes
            from (
                select position, data from events
                where topic = $1 and partition = $2 and position > $3
                order by position limit $4
            ) page
        ) measured
        where bytes <= $5
      ))
    order by position";

impl Outbox for PostgresOutbox {
    type Error = StoreError;

    fn store_id(&self) -> Uuid {
        self.store_id
    }

    async fn claim(&self) -> Result<Claims, StoreError> {
        self.claim_share().await
    }

    async fn give_up(&self, claims: &[Claim]) -> Result<(), StoreError> {
        self.give_up_claims(claims).await
    }

    async fn release(&self) -> Result<(), StoreError> {
        self.release_all().await
    }

    async fn read(
        &self,
        partition: &TopicPartition,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        let big = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut connection = self.connections.borrow().await?;
        let page = if planted(Fault::SkipLocked) { PAGE_OF_UNLOCKED } else { PAGE };
        let call = sqlx::query_as::<_, OutboxRow>(page)
            .bind(&partition.topic)
            .bind(partition.partition)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(big(max_events.max(1)))
            .bind(big(max_bytes))
            .fetch_all(&mut *connection);
        let rows = in_time(self.timings.call, call).await?;
        connection.give_back();
        let mut events = Vec::with_capacity(rows.len());
        for (row, wanted) in rows.into_iter().zip(after + 1..) {
            let event = row.event()?;
            let skips = planted(Fault::PollBySequence) || planted(Fault::SkipLocked);
            if event.position != wanted && !skips {
                let partition = partition.clone();
                return Err(StoreError::Gap { partition, position: wanted });
            }
            events.push(event);
        }
        if !events.is_empty() {
            self.look.store(LOOK.0, Ordering::Relaxed);
        }
        Ok(events)
    }

    async fn record(
        &self,
        progress: &[(Claim, Progress)],
    ) -> Result<Vec<TopicPartition>, StoreError> {
        self.record_progress(progress).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        self.all_leases().await
    }

    async fn rewind(&self, partition: &TopicPartition, to: Progress) -> Result<bool, StoreError> {
        self.rewind_to(partition, to).await
    }

    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        heads(&self.connections).await
    }

    async fn woken(&self) {
        let look = self.look.load(Ordering::Relaxed);
        let signal = async {
            let mut appended = self.appended.lock().await;
            if appended.changed().await.is_err() {
                // The store is closed; only other processes append.
                std::future::pending::<()>().await;
            }
        };
        match timeout(Duration::from_millis(look), signal).await {
            Ok(()) => self.look.store(LOOK.0, Ordering::Relaxed),
            Err(_) => self.look.store((look * 2).min(LOOK.1), Ordering::Relaxed),
        }
    }
}

pub(crate) async fn heads(connections: &Connections) -> Result<Vec<Head>, StoreError> {
    let mut connection = connections.borrow().await?;
    let call = sqlx::query_as(
        "select topic, partition, position, recorded_at from heads order by topic, partition",
    )
    .fetch_all(&mut *connection);
    let rows: Vec<(String, i32, i64, Option<DateTime<Utc>>)> =
        in_time(connections.call, call).await?;
    connection.give_back();
    let head = |(topic, partition, position, recorded_at): (String, i32, i64, Option<_>)| {
        Ok(Head {
            partition: TopicPartition::new(topic, partition),
            position: unsigned(position)?,
            recorded_at: recorded_at.map(Timestamp::from),
        })
    };
    rows.into_iter().map(head).collect()
}
