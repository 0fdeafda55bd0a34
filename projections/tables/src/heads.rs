use crate::TableError;
use foldstream_core::Head;
use sqlx::postgres::PgPool;
use std::time::Duration;

/// Writing the heads takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the last positions of topics to `meta.heads`; the relay does so each second. Lag is
/// unknown 5 seconds after the last time. A head never goes back.
///
/// # Errors
/// When Postgres is away, refuses, or does not answer within 5 seconds.
pub async fn write_heads(pool: &PgPool, heads: &[Head]) -> Result<(), TableError> {
    if heads.is_empty() {
        return Ok(());
    }
    let position = |head: &Head| i64::try_from(head.position).unwrap_or(i64::MAX);
    let statement = sqlx::query(
        "insert into meta.heads as h (topic, partition, position, recorded_at)
         select * from unnest($1::text[], $2::int4[], $3::int8[], $4::timestamptz[])
         order by 1, 2
         on conflict (topic, partition) do update set
           previous_position = case when excluded.position > h.position then h.position
             else h.previous_position end,
           previous_at = case when excluded.position > h.position then h.updated_at
             else h.previous_at end,
           position = greatest(h.position, excluded.position),
           recorded_at = case when excluded.position >= h.position then excluded.recorded_at
             else h.recorded_at end,
           updated_at = excluded.updated_at",
    )
    .bind(heads.iter().map(|head| head.partition.topic.as_str()).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| head.partition.partition).collect::<Vec<_>>())
    .bind(heads.iter().map(position).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| head.recorded_at.map(|t| t.utc())).collect::<Vec<_>>());
    match tokio::time::timeout(PATIENCE, statement.execute(pool)).await {
        Ok(done) => Ok(done.map(drop)?),
        Err(_) => Err(TableError::Deadline(PATIENCE)),
    }
}
