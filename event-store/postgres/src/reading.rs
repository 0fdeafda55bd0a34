//! Reads of streams: folds, histories.

use crate::connection::{Connections, in_time};
use crate::schemas::{Schemas, not_an_id};
use crate::served::Served;
use crate::{Metadata, StoreError};
use foldstream_core::{AnyState, Invalid, RawRecord, StreamRef, Timestamp, Uuid};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use std::sync::Arc;

/// Events of one stream read at once.
pub(crate) const PAGE: i64 = 1_000;

/// How far a state is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the last event.
    Latest,
    /// To this version; the last one when there are fewer.
    Version(u64),
    /// To the last event recorded at this instant or before.
    Instant(Timestamp),
}

/// An event of a stream, with who, why and when.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The event as it is stored: version, position, time, schema, datum.
    pub record: RawRecord,
    /// The event's name with its namespace, such as `shop.invoices.InvoiceIssued`.
    pub event_type: String,
    /// The command that led to it.
    pub command_id: Uuid,
    /// Who and why.
    pub metadata: Metadata,
}

#[derive(sqlx::FromRow)]
pub(crate) struct EventRow {
    pub(crate) position: i64,
    pub(crate) stream_id: String,
    pub(crate) version: i64,
    pub(crate) event_id: Uuid,
    pub(crate) schema_id: i64,
    pub(crate) data: Vec<u8>,
    pub(crate) recorded_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct HistoryRow {
    #[sqlx(flatten)]
    event: EventRow,
    #[sqlx(rename = "type")]
    event_type: String,
    command_id: Uuid,
    metadata: Json<Metadata>,
}

/// What every reader of events needs.
pub(crate) struct Reader {
    pub(crate) connections: Connections,
    pub(crate) served: Served,
    pub(crate) schemas: Schemas,
}

impl Reader {
    /// The row as a record. Looks the schema up once more when another process learned it.
    pub(crate) async fn record(&self, row: EventRow) -> Result<RawRecord, StoreError> {
        let id = schema_id(row.schema_id)?;
        let writer = match self.schemas.writer(id) {
            Some(writer) => writer,
            None => {
                self.schemas.load(&self.connections, &self.served).await?;
                let missing = || Invalid::new("schema-id", format!("schema {id} is not known"));
                self.schemas.writer(id).ok_or_else(missing)?
            }
        };
        Ok(RawRecord {
            stream_id: row.stream_id.into(),
            version: unsigned(row.version)?,
            position: unsigned(row.position)?,
            event_id: row.event_id,
            recorded_at: Timestamp::from(row.recorded_at),
            writer,
            datum: row.data,
        })
    }
    /// Events of a stream from a version on.
    pub(crate) async fn history(
        &self,
        stream: &StreamRef,
        from_version: u64,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.served.of_topic(&stream.topic)?;
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, HistoryRow>(
            "select position, stream_id, version, event_id, schema_id, data, recorded_at, type,
                    command_id, metadata
             from events where topic = $1 and stream_id = $2 and version >= $3
             order by version limit $4",
        )
        .bind(&stream.topic)
        .bind(&stream.stream_id)
        .bind(i64::try_from(from_version).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            entries.push(HistoryEntry {
                record: self.record(row.event).await?,
                event_type: row.event_type,
                command_id: row.command_id,
                metadata: row.metadata.0,
            });
        }
        Ok(entries)
    }
    /// The state of a stream at some place, with the version there; `None` before its first event.
    pub(crate) async fn state(
        &self,
        stream: &StreamRef,
        until: Until,
    ) -> Result<Option<(u64, AnyState)>, StoreError> {
        let place = self.served.of_topic(&stream.topic)?;
        let aggregate = &self.served.aggregates[place].aggregate;
        let (mut version, mut state) = (0, aggregate.initial());
        loop {
            let rows = self.page(stream, version, until).await?;
            let is_last = (rows.len() as i64) < PAGE;
            for row in rows {
                let record = self.record(row).await?;
                state = evolve(aggregate.as_ref(), state, &record)?;
                version = record.version;
            }
            if is_last {
                return Ok((version > 0).then_some((version, state)));
            }
        }
    }
    async fn page(
        &self,
        stream: &StreamRef,
        after: u64,
        until: Until,
    ) -> Result<Vec<EventRow>, StoreError> {
        let (last, time) = match until {
            Until::Latest => (i64::MAX, None),
            Until::Version(version) => (i64::try_from(version).unwrap_or(i64::MAX), None),
            Until::Instant(time) => (i64::MAX, Some(time.utc())),
        };
        let mut connection = self.connections.borrow().await?;
        let call = sqlx::query_as::<_, EventRow>(
            "select position, stream_id, version, event_id, schema_id, data, recorded_at
             from events
             where topic = $1 and stream_id = $2 and version > $3 and version <= $4
               and ($5::timestamptz is null or recorded_at <= $5)
             order by version limit $6",
        )
        .bind(&stream.topic)
        .bind(&stream.stream_id)
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(last)
        .bind(time)
        .bind(PAGE)
        .fetch_all(&mut *connection);
        let rows = in_time(self.connections.call, call).await?;
        connection.give_back();
        Ok(rows)
    }
}

/// Evolves a state; a panic in it is the stream's misfortune only.
pub(crate) fn evolve(
    aggregate: &dyn foldstream_core::AnyAggregate,
    state: AnyState,
    record: &RawRecord,
) -> Result<AnyState, StoreError> {
    let evolved =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| aggregate.evolve(state, record)));
    let panicked = || Invalid::new("panic", format!("evolve of {} panicked", aggregate.name()));
    Ok(evolved.map_err(|_| panicked())??)
}

pub(crate) fn schema_id(id: i64) -> Result<u32, StoreError> {
    Ok(u32::try_from(id).map_err(|_| not_an_id(id))?)
}
pub(crate) fn unsigned(number: i64) -> Result<u64, StoreError> {
    let negative = |_| Invalid::new("negative", format!("{number} is no version or position"));
    Ok(u64::try_from(number).map_err(negative)?)
}

/// The streams of a batch that are not in memory, after these versions: one query for all.
pub(crate) struct Wanted {
    pub(crate) stream: Arc<StreamRef>,
    pub(crate) after: u64,
}

/// At most [`PAGE`] events of each stream, those of a stream in order.
pub(crate) async fn read_wanted(
    connection: &mut sqlx::PgConnection,
    wanted: &[Wanted],
) -> Result<Vec<(usize, EventRow)>, sqlx::Error> {
    #[derive(sqlx::FromRow)]
    struct Row {
        place: i64,
        #[sqlx(flatten)]
        event: EventRow,
    }
    let topics: Vec<&str> = wanted.iter().map(|w| w.stream.topic.as_str()).collect();
    let ids: Vec<&str> = wanted.iter().map(|w| w.stream.stream_id.as_str()).collect();
    let after: Vec<i64> =
        wanted.iter().map(|w| i64::try_from(w.after).unwrap_or(i64::MAX)).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "select w.place, e.position, e.stream_id, e.version, e.event_id, e.schema_id, e.data,
                e.recorded_at
         from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality
            as w(topic, stream_id, after, place)
         cross join lateral (
            select * from events
            where topic = w.topic and stream_id = w.stream_id and version > w.after
            order by version limit $4
         ) e",
    )
    .bind(topics)
    .bind(ids)
    .bind(after)
    .bind(PAGE)
    .fetch_all(connection)
    .await?;
    let place = |row: &Row| usize::try_from(row.place - 1).unwrap_or(usize::MAX);
    let mut rows: Vec<_> = rows.into_iter().map(|row| (place(&row), row.event)).collect();
    // A lateral join keeps the order in practice; nothing promises it.
    rows.sort_by_key(|(place, event)| (*place, event.version));
    Ok(rows)
}
