//! The store as the relay sees it: leases, contiguous reads, progress.

use crate::connection::{Connections, connect, in_time};
use crate::reading::{schema_id, unsigned};
use crate::writer::Shared;
use crate::{Metadata, StoreError, Timings};
use foldstream_core::{
    Claim, Head, Outbox, OutboxEvent, Progress, Timestamp, TopicPartition, Uuid,
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
    owner: String,
    partitions: Vec<TopicPartition>,
    connections: Connections,
    connect: PgConnectOptions,
    timings: Timings,
    /// Leases and progress go over this one: a next owner terminates it.
    leases: Mutex<Option<PgConnection>>,
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
    fn names(&self) -> (Vec<&str>, Vec<i32>) {
        self.partitions.iter().map(|at| (at.topic.as_str(), at.partition)).unzip()
    }
}

/// A connection that is dropped unless its calls ended well.
async fn lease_connection(
    slot: &mut Option<PgConnection>,
    options: &PgConnectOptions,
    within: Duration,
) -> Result<PgConnection, StoreError> {
    match slot.take() {
        Some(connection) => Ok(connection),
        None => connect(options, within).await,
    }
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    topic: String,
    partition: i32,
    epoch: i64,
    position: i64,
    offset: Option<i64>,
    /// Of the owner before, when there was one.
    pid: Option<i32>,
    backend_start: Option<DateTime<Utc>>,
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

/// Renews what is held and takes what is free. The rows of others are left alone, also locked
/// ones: they are being taken just now.
const CLAIM: &str = "
    with wanted as (
        select l.topic, l.partition, l.owner, l.pid, l.backend_start
        from leases l
        join unnest($2::text[], $3::integer[]) as own(topic, partition)
          on own.topic = l.topic and own.partition = l.partition
        where l.owner = $1 or l.owner is null or l.expires_at <= clock_timestamp()
        order by l.topic, l.partition
        for update of l skip locked
    )
    update leases l
    set owner = $1,
        epoch = case when w.owner = $1 then l.epoch else l.epoch + 1 end,
        expires_at = clock_timestamp() + make_interval(secs => $4),
        pid = pg_backend_pid(),
        backend_start = (select a.backend_start from pg_stat_get_activity(pg_backend_pid()) a)
    from wanted w
    where l.topic = w.topic and l.partition = w.partition
    returning l.topic, l.partition, l.epoch, l.position, l.\"offset\",
              case when w.owner <> $1 then w.pid end as pid,
              case when w.owner <> $1 then w.backend_start end as backend_start";

impl Outbox for PostgresOutbox {
    type Error = StoreError;

    fn store_id(&self) -> Uuid {
        self.store_id
    }

    async fn claim(&self) -> Result<Vec<Claim>, StoreError> {
        let mut slot = self.leases.lock().await;
        let mut connection =
            lease_connection(&mut slot, &self.connect, self.timings.connect).await?;
        let (topics, partitions) = self.names();
        let call = sqlx::query_as::<_, ClaimRow>(CLAIM)
            .bind(&self.owner)
            .bind(topics)
            .bind(partitions)
            .bind(self.timings.lease.as_secs_f64())
            .fetch_all(&mut connection);
        let rows = in_time(self.timings.call, call).await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            if let (Some(pid), Some(start)) = (row.pid, row.backend_start) {
                terminate(&mut connection, pid, start, self.timings.call).await?;
            }
            let progress = Progress { position: unsigned(row.position)?, offset: row.offset };
            let partition = TopicPartition::new(row.topic, row.partition);
            claims.push(Claim { partition, epoch: row.epoch, progress });
        }
        *slot = Some(connection);
        claims.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(claims)
    }

    async fn release(&self) -> Result<(), StoreError> {
        let mut slot = self.leases.lock().await;
        let mut connection =
            lease_connection(&mut slot, &self.connect, self.timings.connect).await?;
        let call = sqlx::query(
            "update leases
             set owner = null, expires_at = null, pid = null, backend_start = null
             where owner = $1",
        )
        .bind(&self.owner)
        .execute(&mut connection);
        in_time(self.timings.call, call).await?;
        *slot = Some(connection);
        Ok(())
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
        let call = sqlx::query_as::<_, OutboxRow>(
            "select position, stream_id, version, event_id, type, schema_id, data, metadata,
                    recorded_at
             from (
                select *, sum(octet_length(data)) over (order by position) as bytes,
                       row_number() over (order by position) as place
                from (
                    select * from events
                    where topic = $1 and partition = $2 and position > $3
                    order by position limit $4
                ) page
             ) measured
             where bytes <= $5 or place = 1
             order by position",
        )
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
            if event.position != wanted {
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
        let topics: Vec<&str> = progress.iter().map(|(c, _)| c.partition.topic.as_str()).collect();
        let partitions: Vec<i32> = progress.iter().map(|(c, _)| c.partition.partition).collect();
        let epochs: Vec<i64> = progress.iter().map(|(c, _)| c.epoch).collect();
        let big = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let positions: Vec<i64> = progress.iter().map(|(_, p)| big(p.position)).collect();
        let offsets: Vec<Option<i64>> = progress.iter().map(|(_, p)| p.offset).collect();
        let mut slot = self.leases.lock().await;
        let mut connection =
            lease_connection(&mut slot, &self.connect, self.timings.connect).await?;
        let call = sqlx::query_as(
            "with new as (
                select n.* from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[],
                                       $6::bigint[]) as n(topic, partition, epoch, position, place)
                join leases l on l.topic = n.topic and l.partition = n.partition
                order by l.topic, l.partition
                for update of l
             )
             update leases l
             set position = new.position, \"offset\" = new.place, updated_at = clock_timestamp()
             from new
             where l.topic = new.topic and l.partition = new.partition
               and l.epoch = new.epoch and l.owner = $1
             returning l.topic, l.partition",
        )
        .bind(&self.owner)
        .bind(topics)
        .bind(partitions)
        .bind(epochs)
        .bind(positions)
        .bind(offsets)
        .fetch_all(&mut connection);
        let written: Vec<(String, i32)> = in_time(self.timings.call, call).await?;
        *slot = Some(connection);
        let is_lost = |at: &&TopicPartition| {
            !written.iter().any(|(topic, n)| *topic == at.topic && *n == at.partition)
        };
        Ok(progress.iter().map(|(claim, _)| &claim.partition).filter(is_lost).cloned().collect())
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

/// Ends the backend of a former owner, so that nothing it sent arrives any more; only if it is
/// still that one.
async fn terminate(
    connection: &mut PgConnection,
    pid: i32,
    start: DateTime<Utc>,
    within: Duration,
) -> Result<(), StoreError> {
    let call = sqlx::query(
        "select pg_terminate_backend(a.pid) from pg_stat_get_activity($1) a
         where a.backend_start = $2",
    )
    .bind(pid)
    .bind(start)
    .execute(connection);
    in_time(within, call).await.map(|_| ())
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
