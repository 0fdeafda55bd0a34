//! Who relays which partition: leases with epochs, by the database's clock, shared fairly between
//! the relays that live.

use crate::StoreError;
use crate::connection::{connect, in_time};
use crate::outbox::PostgresOutbox;
use crate::planted::{CLAIM_ALL, Fault, RECORD_ALL, planted};
use crate::reading::unsigned;
use foldstream_core::{Claim, Claims, Lease, Progress, Timestamp, TopicPartition};
use sqlx::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};
use std::time::Duration;

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
struct LeaseRow {
    topic: String,
    partition: i32,
    owner: Option<String>,
    epoch: i64,
    expires_at: Option<DateTime<Utc>>,
    has_expired: bool,
    position: i64,
    offset: Option<i64>,
    head: i64,
}

impl LeaseRow {
    fn lease(self) -> Result<Lease, StoreError> {
        Ok(Lease {
            partition: TopicPartition::new(self.topic, self.partition),
            owner: self.owner,
            epoch: self.epoch,
            expires_at: self.expires_at.map(Timestamp::from),
            has_expired: self.has_expired,
            progress: Progress { position: unsigned(self.position)?, offset: self.offset },
            head: unsigned(self.head)?,
        })
    }
}

/// Says that this relay lives, forgets those that do not, and answers how many partitions of `$3`
/// are its share. All relays count alike, so the shares make up `$3`; a relay that joins takes from
/// the others, and lets none of them have more than before.
const SHARE: &str = "
    with gone as (
        delete from relays where owner <> $1 and expires_at <= clock_timestamp()
    ), own as (
        insert into relays as r (owner, expires_at)
        values ($1, clock_timestamp() + make_interval(secs => $2))
        on conflict (owner) do update set expires_at = excluded.expires_at
        returning r.owner, r.since
    ), others as (
        select count(*) as living,
               count(*) filter (where (r.since, r.owner) < (own.since, own.owner)) as earlier
        from relays r, own
        where r.owner <> $1 and r.expires_at > clock_timestamp()
    )
    select ($3 - earlier + living) / (living + 1) from others";

/// Renews what is held and takes of what is free, up to the share. The rows of others are left
/// alone, also locked ones: they are being taken just now. What is free is taken across the topics,
/// so that a busy one is shared too.
const CLAIM: &str = "
    with own as (
        select * from unnest($2::text[], $3::integer[]) as own(topic, partition)
    ), held as (
        select l.topic, l.partition, l.owner, l.pid, l.backend_start
        from leases l join own on own.topic = l.topic and own.partition = l.partition
        where l.owner = $1
        order by l.topic, l.partition
        for update of l skip locked
    ), free as (
        select l.topic, l.partition, l.owner, l.pid, l.backend_start
        from leases l join own on own.topic = l.topic and own.partition = l.partition
        where l.owner is null or (l.owner <> $1 and l.expires_at <= clock_timestamp())
        order by l.partition, l.topic
        limit greatest($5 - (select count(*) from held), 0)
        for update of l skip locked
    ), wanted as (
        select * from held union all select * from free
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

const RECORD: &str = "
    with new as (
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
     returning l.topic, l.partition";

const GIVE_UP: &str = "
    update leases l
    set owner = null, expires_at = null, pid = null, backend_start = null
    from unnest($2::text[], $3::integer[], $4::bigint[]) as given(topic, partition, epoch)
    where l.topic = given.topic and l.partition = given.partition
      and l.epoch = given.epoch and l.owner = $1";

const RELEASE: &str = "
    with gone as (delete from relays where owner = $1)
    update leases set owner = null, expires_at = null, pid = null, backend_start = null
    where owner = $1";

const LEASES: &str = "
    select l.topic, l.partition, l.owner, l.epoch, l.expires_at,
           coalesce(l.expires_at <= clock_timestamp(), false) as has_expired,
           l.position, l.\"offset\", h.position as head
    from leases l join heads h on h.topic = l.topic and h.partition = l.partition
    order by l.topic, l.partition";

const REWIND: &str = "
    update leases
    set position = $3, \"offset\" = $4, epoch = epoch + 1, updated_at = clock_timestamp()
    where topic = $1 and partition = $2 and position >= $3";

fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Topics and partitions as two columns.
fn columns<'a>(all: impl Iterator<Item = &'a TopicPartition>) -> (Vec<&'a str>, Vec<i32>) {
    all.map(|at| (at.topic.as_str(), at.partition)).unzip()
}

impl PostgresOutbox {
    /// The connection for leases; dropped unless the caller puts it back, its calls having ended
    /// well.
    async fn lease_connection(
        &self,
        slot: &mut Option<PgConnection>,
    ) -> Result<PgConnection, StoreError> {
        match slot.take() {
            Some(connection) => Ok(connection),
            None => connect(&self.connect, self.timings.connect).await,
        }
    }

    pub(crate) async fn claim_share(&self) -> Result<Claims, StoreError> {
        let mut slot = self.leases.lock().await;
        let mut connection = self.lease_connection(&mut slot).await?;
        let (topics, partitions) = columns(self.partitions.iter());
        let lease = self.timings.lease.as_secs_f64();
        let call = sqlx::query_scalar(SHARE)
            .bind(&self.owner)
            .bind(lease)
            .bind(i64::try_from(partitions.len()).unwrap_or(i64::MAX))
            .fetch_one(&mut connection);
        let mut share: i64 = in_time(self.timings.call, call).await?;
        if planted(Fault::SkipLocked) {
            share = i64::MAX;
        }
        let claim = if planted(Fault::SkipLocked) { CLAIM_ALL } else { CLAIM };
        let call = sqlx::query_as::<_, ClaimRow>(claim)
            .bind(&self.owner)
            .bind(topics)
            .bind(partitions)
            .bind(lease)
            .bind(share)
            .fetch_all(&mut connection);
        let rows = in_time(self.timings.call, call).await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in rows {
            if let (Some(pid), Some(start)) = (row.pid, row.backend_start) {
                terminate(&mut connection, pid, start, self.timings.call).await?;
            }
            let progress = Progress { position: unsigned(row.position)?, offset: row.offset };
            let partition = TopicPartition::new(row.topic, row.partition);
            held.push(Claim { partition, epoch: row.epoch, progress });
        }
        *slot = Some(connection);
        held.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(Claims { held, share: usize::try_from(share).unwrap_or(0) })
    }

    pub(crate) async fn give_up_claims(&self, claims: &[Claim]) -> Result<(), StoreError> {
        let (topics, partitions) = columns(claims.iter().map(|claim| &claim.partition));
        let epochs: Vec<i64> = claims.iter().map(|claim| claim.epoch).collect();
        let mut slot = self.leases.lock().await;
        let mut connection = self.lease_connection(&mut slot).await?;
        let call = sqlx::query(GIVE_UP)
            .bind(&self.owner)
            .bind(topics)
            .bind(partitions)
            .bind(epochs)
            .execute(&mut connection);
        in_time(self.timings.call, call).await?;
        *slot = Some(connection);
        Ok(())
    }

    pub(crate) async fn release_all(&self) -> Result<(), StoreError> {
        let mut slot = self.leases.lock().await;
        let mut connection = self.lease_connection(&mut slot).await?;
        let call = sqlx::query(RELEASE).bind(&self.owner).execute(&mut connection);
        in_time(self.timings.call, call).await?;
        *slot = Some(connection);
        Ok(())
    }

    pub(crate) async fn record_progress(
        &self,
        progress: &[(Claim, Progress)],
    ) -> Result<Vec<TopicPartition>, StoreError> {
        let (topics, partitions) = columns(progress.iter().map(|(claim, _)| &claim.partition));
        let epochs: Vec<i64> = progress.iter().map(|(claim, _)| claim.epoch).collect();
        let positions: Vec<i64> = progress.iter().map(|(_, at)| big(at.position)).collect();
        let offsets: Vec<Option<i64>> = progress.iter().map(|(_, at)| at.offset).collect();
        let mut slot = self.leases.lock().await;
        let mut connection = self.lease_connection(&mut slot).await?;
        let record = if planted(Fault::SkipLocked) { RECORD_ALL } else { RECORD };
        let call = sqlx::query_as(record)
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

    pub(crate) async fn all_leases(&self) -> Result<Vec<Lease>, StoreError> {
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, LeaseRow>(LEASES).fetch_all(&mut *connection);
        let rows = in_time(self.timings.call, call).await?;
        connection.give_back();
        rows.into_iter().map(LeaseRow::lease).collect()
    }

    pub(crate) async fn rewind_to(
        &self,
        partition: &TopicPartition,
        to: Progress,
    ) -> Result<bool, StoreError> {
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query(REWIND)
            .bind(&partition.topic)
            .bind(partition.partition)
            .bind(big(to.position))
            .bind(to.offset)
            .execute(&mut *connection);
        let rewound = in_time(self.timings.call, call).await?.rows_affected();
        connection.give_back();
        Ok(rewound > 0)
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
